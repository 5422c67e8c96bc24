"""Is there one distribution for a state, and how many spins for many qubits?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import PRNGKeyArray

from morphax._lazy import xr
from morphax.experiments.spiking._states import ENSEMBLES, amplitudes, descend
from morphax.experiments.spiking.paper import PEHLE
from morphax.lab.blocks import Blocks
from morphax.lab.experiment import BEYOND, BaseConfig, Claim, Experiment, parameter
from morphax.lab.figures import BLUE, GREEN, ORANGE, Figures, new_figure
from morphax.lab.progress import Progress, along
from morphax.quantum.correlation_map import coefficients, density_matrix, distribution, expectations, extended_spins

STATES = ("Hilbert-Schmidt", "pure")
COLOURS = dict(zip(STATES, (BLUE, ORANGE), strict=True))
QUBITS = (2, 3, 4, 5, 6)


def apart(state: str) -> Callable[[xr.Dataset], float]:
    """Mean total variation between two distributions that both realise a state."""
    return lambda d: float(d.distance.sel(kind=state).where(d.both.sel(kind=state)).mean())


def printed_spins(qubits: ArrayLike) -> Any:
    """The paper's count for its extended map."""
    return 4.5 * np.square(qubits) - 1.5 * np.asarray(qubits)


class Uniqueness(Experiment):
    """Secs. IV, VI: two descents to one state end at two distributions; and spins that the extended map takes.

    Descents begin at two random classical wave functions. What lies between their ends is told as total variation of
    the distributions, and as distance of the density matrices. A state that several distributions realise, as far
    apart as drawn ones are, says nothing about the distribution: the map cannot be inverted.
    """

    class Config(BaseConfig):
        states: int = parameter(100, "of each kind", ge=1, extent=True)
        learning_rate: float = parameter(30.0, "of descent", gt=0)
        iterations: int = parameter(20_000, "updates at most", ge=1)
        tolerance: float = parameter(1e-10, "loss at which descent stops", gt=0)

    name = "spiking/uniqueness"
    quick = {"states": 4, "iterations": 2000}
    paper = PEHLE
    claims = (
        Claim.at_least(
            "random mixed states: total variation between two distributions of one state, mean",
            0.1,
            apart("Hilbert-Schmidt"),
            source="Sec. IV: not unique for most; ours: the number",
            item="not unique",
        ),
        Claim.at_least(
            "share of them that lie apart by 0.1 or more",
            0.5,
            lambda d: (d.distance.sel(kind="Hilbert-Schmidt") >= 0.1).mean(),
            source='Sec. IV: "for most density matrices"',
            item="not unique",
        ),
        Claim.at_most(
            "while the density matrices differ by a Frobenius norm of, at most",
            1e-4,
            lambda d: d.matrix_distance.where(d.both).sel(kind="Hilbert-Schmidt").max(),
            source="loss of 1e-10 each; ours: the number",
            item="not unique",
        ),
        Claim.reported(
            "pure states: total variation between two distributions of one state, mean",
            apart("pure"),
            source="ours; of those that descent realises",
            item=BEYOND,
        ),
        *(
            Claim.within(
                f"{qubits} qubits: spins of the extended map",
                printed_spins(qubits),
                lambda d, qubits=qubits: d.spins.sel(qubits=qubits),
                source="Sec. VI: 9/2 Q^2 - 3/2 Q",
                tolerance=0.0,
                item="spins",
            )
            for qubits in QUBITS
        ),
    )

    def run(self, config: Config, *, key: PRNGKeyArray, progress: Progress) -> xr.Dataset:
        def of(kind: str, members: range) -> xr.Dataset:
            state_key, *starts = jax.random.split(jax.random.fold_in(key, STATES.index(kind)), 3)
            states = ENSEMBLES[kind](state_key, members.stop, 2)[members.start :]
            wanted = jax.vmap(coefficients)(jnp.asarray(states))
            numbers = config.learning_rate, config.iterations, config.tolerance
            ends = [descend(wanted, amplitudes(start, members.stop, 2)[members.start :], *numbers) for start in starts]
            first, second = (jax.vmap(distribution)(end.argument) for end in ends)
            matrices = [jax.vmap(lambda p: density_matrix(expectations(p)))(p) for p in (first, second)]
            norm = jnp.linalg.norm((matrices[0] - matrices[1]).reshape(len(members), -1), axis=1)
            columns = {
                "distance": jnp.abs(first - second).sum(1) / 2,
                "matrix_distance": norm,
                "both": ends[0].converged & ends[1].converged,
            }
            return xr.Dataset({name: ("state", np.asarray(values), {"units": "1"}) for name, values in columns.items()})

        def compute(members: range) -> xr.Dataset:
            return along("kind", {kind: of(kind, members) for kind in STATES})

        dataset = Blocks("state", config.states, 10, together=False).carry_out(progress, compute)
        counts = [len(extended_spins(qubits)) for qubits in QUBITS]
        return dataset.assign(spins=xr.DataArray(counts, {"qubits": list(QUBITS)}, ["qubits"], attrs={"units": "1"}))

    def figures(self, dataset: xr.Dataset) -> Figures:
        figure = new_figure(8.5, 3.4)
        left, right = figure.subplots(1, 2)
        for kind in STATES:
            part = dataset.sel(kind=kind).where(dataset.both.sel(kind=kind))
            left.semilogy(part.distance, part.matrix_distance, ".", color=COLOURS[kind], label=kind, markersize=4)
        left.set(xlabel="distributions: total variation", ylabel="density matrices: Frobenius norm")
        left.legend(fontsize="small")
        left.set(title="ends of two descents to one state")
        fine = np.linspace(2, 6, 100)
        right.plot(fine, printed_spins(fine), color=GREEN, label=r"$\frac{9}{2} Q^2 - \frac{3}{2} Q$")
        right.plot(dataset.qubits, dataset.spins, "o", color=BLUE, label="of the extended map here")
        right.set(xlabel="qubits", ylabel="spins")
        right.legend(fontsize="small")
        return {"uniqueness": figure}
