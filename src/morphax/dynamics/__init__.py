"""Time evolution: exponentials of generators."""
