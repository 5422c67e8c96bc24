"""Time evolution: integrators, exponentials of generators, relaxation to equilibria, scans."""
