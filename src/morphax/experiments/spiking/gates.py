"""Quantum gates as changes of the probabilities of spins."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PRNGKeyArray

from morphax._lazy import xr
from morphax.experiments.spiking._states import BELL, ENSEMBLES, GATES, amplitudes, draw_coefficients
from morphax.experiments.spiking.completeness import EXCLUDED
from morphax.experiments.spiking.paper import PEHLE
from morphax.lab.blocks import Blocks
from morphax.lab.experiment import BEYOND, BaseConfig, Claim, Experiment, Proof, parameter
from morphax.lab.figures import BLUE, GREEN, ORANGE, RED, Figures, new_figure
from morphax.lab.progress import Progress, along
from morphax.learning.ensemble import member_keys
from morphax.learning.minimise import Minimum
from morphax.learning.quantum_states import apply_gates, learn_distribution, learn_gate, realised
from morphax.quantum.correlation_map import coefficients, density_matrix, distribution
from morphax.quantum.realisability import realisability
from morphax.quantum.states import pure_state, random_density_matrix, random_unitary

MIXED, PURE, ANY, ZERO = "Hilbert-Schmidt", "pure", "any U(4)", "|00>"
SEQUENCE = ("Hadamard", "CNOT", "R 1/8")
EXAMPLES = ("psi_+", "rho")
ARE_CORRELATED = 1e-3  # covariance of two spins, well above what descent leaves
THIRD_GATE = Proof(
    best=(2**0.5 - 1) ** 2 / 4,
    place="CHSH: the third gate makes T psi_+, and no distribution is nearer to it (spiking/completeness)",
)


def learned(ensemble: str, among: bool | None = None) -> Callable[[xr.Dataset], float]:
    """Share of gates that were learned; with `among` of those whose result a distribution realises."""

    def of(d: xr.Dataset) -> float:
        part = d.sel(ensemble=ensemble)
        return float(part.converged.mean() if among is None else part.converged.where(part.realised == among).mean())

    return of


def missed(dataset: xr.Dataset, example: str) -> float:
    """Squared distance of what was learned after CNOT from CNOT of what was before."""
    before, after = (jnp.asarray(dataset.chi.sel(example=example, when=when)) for when in ("before", "after"))
    rho = GATES["CNOT"] @ density_matrix(before) @ GATES["CNOT"].conj().T
    return float(jnp.sum((coefficients(rho) - after) ** 2) / 4)


def connected(chi: np.ndarray) -> int:
    """Spins of the largest group that correlations of two qubits connect; any two groups are uncorrelated."""
    from scipy.sparse.csgraph import connected_components

    covariance = chi[1:, 1:] - np.outer(chi[1:, 0], chi[0, 1:])
    linked = np.block([[np.zeros((3, 3)), np.abs(covariance)], [np.zeros((3, 6))]]) > ARE_CORRELATED
    return int(np.bincount(connected_components(linked, directed=False)[1]).max())


def group(example: str) -> Callable[[xr.Dataset], int]:
    """Spins of the largest correlated group before the gate."""
    return lambda d: connected(np.asarray(d.chi.sel(when="before", example=example)))


class Gates(Experiment):
    """Figs. 1, 2: matrices M that turn the classical wave function of a state into that of the state after a gate.

    Gates act on states that a distribution realises: random mixed ones, and pure ones, of which every other one is
    excluded and drawn again. Where the state after the gate is excluded, no M exists. Sequences of gates start from a
    mixed state and from |00>, with M learned anew at every gate.
    """

    class Config(BaseConfig):
        states: int = parameter(48, "of each ensemble", ge=2, extent=True)
        norm: float = parameter(8.0, "of a classical wave function", gt=0)
        learning_rate: float = parameter(0.01, "of Adam, for M (not printed)", gt=0)
        iterations: int = parameter(5000, "updates at most", ge=1)
        slow_iterations: int = parameter(20_000, "likewise, for psi_+, which lies on a face", ge=1)
        tolerance: float = parameter(1e-10, "loss at which descent stops", gt=0)
        length: int = parameter(24, "gates in a sequence", ge=3)

        def memory(self) -> float:
            # A matrix of 64 x 64 of every state, its gradient and Adam's two memories, in two copies; and eight times
            # as many density matrices are drawn.
            return self.bytes_of_number * (8.0 * self.states * 64**2 + 8 * self.states * 2 * 4**2)

    name = "spiking/gates"
    quick = {"states": 6, "iterations": 1500, "slow_iterations": 3000, "length": 6}
    paper = PEHLE
    claims = (
        Claim.at_least(
            "mixed states: share of gates learned",
            1.0,
            learned(MIXED),
            source='Sec. IV: "always found a satisfactory M"',
            item="gates",
        ),
        Claim.at_least(
            "pure states: share of gates learned",
            1.0,
            learned(PURE),
            source="Sec. IV",
            item="gates",
            proof=Proof(best=lambda d: d.realised.sel(ensemble=PURE).mean(), place=EXCLUDED),
        ),
        Claim.at_least(
            "pure states, gates whose result a distribution realises: share learned",
            1.0,
            learned(PURE, True),
            source="linear programmes of this run",
            item="gates",
        ),
        Claim.at_most(
            "pure states, gates whose result is excluded: share learned",
            0.0,
            learned(PURE, False),
            source="linear programmes of this run",
            item=BEYOND,
        ),
        Claim.within(
            "psi_+: squared distance of what its distribution makes",
            0.0,
            lambda d: np.sum((d.chi.sel(when="before", example="psi_+").values - coefficients(BELL)) ** 2) / 4,
            source="Figs. 1a, 2a; ours: the number",
            item="entangled",
            tolerance=1e-9,
        ),
        *(
            Claim.within(
                f"{name} after CNOT: squared distance from CNOT of what was before",
                0.0,
                lambda d, name=name: missed(d, name),
                source=f"Figs. 1b, 2{panel}; ours: the number",
                item="entangled",
                tolerance=1e-9,
            )
            for name, panel in zip(EXAMPLES, "cd", strict=True)
        ),
        Claim.at_least(
            "rho: spins of the largest group that correlations connect",
            6.0,
            group("rho"),
            source="Secs. II, VIII: typically all six",
            item="global",
        ),
        Claim.at_least(
            "psi_+: spins of the largest group that correlations connect",
            6.0,
            group("psi_+"),
            source="likewise",
            item="global",
            proof=Proof(
                best=lambda d: connected(np.asarray(coefficients(BELL))),
                place="Fig. 2a: chi is diagonal, so three pairs of spins, of one direction each, make psi_+",
            ),
        ),
        Claim.within(
            "sequence from a mixed state: squared distance from the true state at its end",
            0.0,
            lambda d: d.error.sel(start=MIXED).isel(gate=-1),
            source="Sec. V; ours: gates one after the other, of q; every gate errs by 1e-5 at most",
            item="sequences",
            tolerance=1e-7,
        ),
        Claim.within(
            "sequence from |00>: largest loss of a gate",
            0.0,
            lambda d: d.sequence_loss.sel(start=ZERO).max(),
            source="likewise",
            item="sequences",
            proof=THIRD_GATE,
            tolerance=1e-7,
        ),
        Claim.within(
            "sequence from a mixed state: largest squared distance from the true state after any gate",
            0.0,
            lambda d: d.error.sel(start=MIXED).max(),
            source='Sec. VIII: "no information ... is lost"; ours: the number',
            item="information",
            tolerance=1e-7,
        ),
        Claim.within(
            "sequence from |00>: largest squared distance from the true state after any gate",
            0.0,
            lambda d: d.error.sel(start=ZERO).max(),
            source="likewise",
            item="information",
            proof=THIRD_GATE,
            tolerance=1e-7,
        ),
    )

    def run(self, config: Config, *, key: PRNGKeyArray, progress: Progress) -> xr.Dataset:
        state_key, start_key, unitary_key, bell_key = jax.random.split(key, 4)

        def gates(ensemble: str, members: range) -> xr.Dataset:
            states = self._realised_states(ensemble, members, state_key)
            starts = amplitudes(start_key, members.stop, 2)[members.start :]
            q = _wave_functions(states, starts, config.iterations, config.norm)
            keys = member_keys(unitary_key, members)
            others = np.array([np.asarray(random_unitary(2, key=k)) for k in keys])
            unitaries = {name: np.broadcast_to(gate, others.shape) for name, gate in GATES.items()} | {ANY: others}
            parts: dict[str, xr.Dataset] = {}
            for name, unitary in unitaries.items():
                found = _learn(q, jnp.asarray(unitary), (config.learning_rate, config.iterations, config.tolerance))
                targets = unitary @ states @ np.swapaxes(unitary.conj(), -1, -2)
                columns = {
                    "loss": found.loss,
                    "iterations": found.iterations,
                    "converged": found.converged,
                    "realised": [realisability(target).realised for target in targets],
                }
                parts[name] = xr.Dataset({n: ("state", np.asarray(v), {"units": "1"}) for n, v in columns.items()})
            return along("kind", parts)

        states = Blocks("state", config.states, 12, together=False)
        work: dict[str, Callable[[], xr.Dataset]] = {"probabilities": partial(self._probabilities, config, bell_key)}
        work |= {f"sequence {start}": partial(self._sequence, config, start, bell_key) for start in (MIXED, ZERO)}
        work |= states.split({name: partial(gates, name) for name in (MIXED, PURE)})
        parts = states.join(progress.pieces(work))
        learning = along("ensemble", {name: parts[name] for name in (MIXED, PURE)})
        sequences = along("start", {start: parts[f"sequence {start}"] for start in (MIXED, ZERO)})
        return learning.merge(parts["probabilities"]).merge(sequences)

    def _realised_states(self, ensemble: str, members: range, key: PRNGKeyArray) -> np.ndarray:
        """Some of the first states of an ensemble that a distribution realises."""
        drawn = ENSEMBLES[ensemble](key, 8 * members.stop, 2)
        kept = list(itertools.islice((rho for rho in drawn if realisability(rho).realised), members.stop))
        if len(kept) < members.stop:
            raise RuntimeError(f"{len(kept)} of {len(drawn)} {ensemble} states are realised; {members.stop} are needed")
        return np.array(kept[members.start :])

    def _probabilities(self, config: Config, key: PRNGKeyArray) -> xr.Dataset:
        """psi_+ and a random density matrix before and after CNOT."""
        first, second = jax.random.split(key)
        states = np.array([BELL, np.asarray(random_density_matrix(2, key=first))])
        q = _wave_functions(states, amplitudes(second, 2, 2), config.slow_iterations, config.norm)
        gate = jnp.broadcast_to(GATES["CNOT"], (2, 4, 4))
        found = _learn(q, gate, (3 * config.learning_rate, config.slow_iterations, config.tolerance))
        both = jnp.stack([q, jnp.einsum("sij,sj->si", found.argument, q)])
        probabilities, chi = jax.vmap(jax.vmap(lambda q: (distribution(q), realised(q))))(both)
        return xr.Dataset(
            {
                "probability": (("when", "example", "configuration"), np.asarray(probabilities), {"units": "1"}),
                "chi": (("when", "example", "first", "second"), np.asarray(chi), {"units": "1"}),
            },
            {"when": ["before", "after"], "example": list(EXAMPLES)},
        )

    def _sequence(self, config: Config, start: str, key: PRNGKeyArray) -> xr.Dataset:
        gates = np.array([GATES[SEQUENCE[index % len(SEQUENCE)]] for index in range(config.length)])
        first, second = jax.random.split(key)
        rho = np.asarray(random_density_matrix(2, key=first)) if start == MIXED else pure_state([1, 0, 0, 0])
        place = (MIXED, ZERO).index(start)
        begin = amplitudes(second, 2, 2)[place : place + 1]
        (q,) = _wave_functions(rho[None], begin, config.slow_iterations, config.norm)
        found = apply_gates(q, gates, optax.adam(config.learning_rate), iterations=config.iterations)
        reached, error = np.asarray(jax.vmap(realised)(found.argument)), np.zeros(found.loss.shape)
        for place, gate in enumerate(gates):
            rho = gate @ rho @ gate.conj().T
            error[place] = np.sum((reached[place] - np.asarray(coefficients(rho))) ** 2) / 4
        return xr.Dataset(
            {
                "error": ("gate", error, {"units": "1", "long_name": "squared distance from the true state"}),
                "sequence_loss": ("gate", np.asarray(found.loss), {"units": "1"}),
            },
            {"gate": np.arange(1, config.length + 1)},
        )

    def figures(self, dataset: xr.Dataset) -> Figures:
        bars = new_figure(10, 5)
        for axes, when in zip(bars.subplots(2, 1, sharex=True), dataset.when.values, strict=True):
            for example, colour, shift in zip(dataset.example.values, (BLUE, GREEN), (-0.2, 0.2), strict=True):
                heights = dataset.probability.sel(when=when, example=example)
                axes.bar(np.arange(64) + shift, heights, 0.4, color=colour, label=example)
            axes.set(ylabel="probability", title=f"Fig. 1: {when} CNOT")
        bars.axes[0].legend()
        bars.axes[1].set_xlabel("configuration")
        maps = new_figure(9, 7)
        grid = maps.subplots(2, 2)
        for row, when in zip(grid, dataset.when.values, strict=True):
            for axes, example in zip(row, dataset.example.values, strict=True):
                chi = np.asarray(dataset.chi.sel(when=when, example=example))
                limit = 1.0 if example == "psi_+" else float(np.abs(chi.reshape(-1)[1:]).max())
                draw_coefficients(axes, chi, f"Fig. 2: {example}, {when} CNOT", limit)
        learning = new_figure(10, 3.8)
        counts, errors = learning.subplots(1, 2)
        kinds, width = [str(kind) for kind in dataset.kind.values], 0.25
        shown = [
            ("mixed", dataset.converged.sel(ensemble=MIXED).mean("state"), BLUE),
            ("pure", dataset.converged.sel(ensemble=PURE).mean("state"), ORANGE),
            ("pure, realised", dataset.realised.sel(ensemble=PURE).mean("state"), RED),
        ]
        for place, (label, values, colour) in enumerate(shown):
            fill = {} if place < 2 else {"fill": False, "edgecolor": colour}
            where = np.arange(len(kinds)) + (place if place < 2 else 1) * width
            counts.bar(where, values, width, color=colour, label=label, **fill)
        counts.set_xticks(np.arange(len(kinds)) + width / 2, kinds)
        counts.set(ylabel="share of states", title="gates learned", ylim=(0, 1.2))
        counts.legend(fontsize="small", ncols=3)
        for start, colour in zip(dataset.start.values, (BLUE, ORANGE), strict=True):
            errors.semilogy(dataset.gate, dataset.error.sel(start=start), "o-", color=colour, label=f"from {start}")
        errors.set(xlabel="gates", ylabel="squared distance", title="sequences of Hadamard, CNOT, R 1/8")
        errors.legend(fontsize="small")
        return {"probabilities": bars, "coefficients": maps, "learning": learning}


@eqx.filter_jit
def _wave_functions(states: np.ndarray, starts: Array, iterations: int, norm: float) -> Array:
    """A classical wave function of every state, as near as Adam comes."""

    def one(target: Array, start: Array) -> Array:
        found = learn_distribution(target, start, optax.adam(0.1), iterations=iterations)
        return norm * found.argument / jnp.linalg.norm(found.argument)

    return jax.vmap(one)(jax.vmap(coefficients)(jnp.asarray(states)), starts)


@eqx.filter_jit
def _learn(amplitudes: Array, unitaries: Array, numbers: tuple[float, int, float]) -> Minimum:
    learning_rate, iterations, tolerance = numbers

    def one(q: Array, unitary: Array) -> Minimum:
        return learn_gate(q, unitary, optax.adam(learning_rate), iterations=iterations, tolerance=tolerance)

    return jax.vmap(one)(amplitudes, unitaries)
