"""Is every density matrix of two qubits a distribution of six spins?"""

from __future__ import annotations

from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray
from pydantic import AfterValidator

from morphax._checks import check_choice
from morphax._lazy import xr
from morphax.experiments.spiking._states import ENSEMBLES, GATES, TURNED, amplitudes, descend
from morphax.experiments.spiking.paper import PEHLE
from morphax.lab.blocks import Blocks
from morphax.lab.experiment import BEYOND, BaseConfig, Claim, Experiment, Proof, parameter
from morphax.lab.figures import BLUE, RED, Figures, new_figure
from morphax.lab.progress import Progress, along
from morphax.quantum.correlation_map import coefficients
from morphax.quantum.realisability import chsh, nearest_realised, realisability

NAMES = tuple(name for name in ENSEMBLES if name != "rank 4")  # of two qubits that is Hilbert-Schmidt


def _known(name: str) -> str:
    check_choice("ensembles", name, NAMES)
    return name


Ensemble = Annotated[str, AfterValidator(_known)]


EXCLUDED = "a Bell inequality for every excluded state, by linear programming (spiking/completeness)"
"""Where proofs stand."""


def share(ensemble: str) -> Claim:
    """The completeness claim for one ensemble, judged by linear programming."""

    def realised(dataset: xr.Dataset) -> float:
        return float((dataset.visibility.sel(ensemble=ensemble) == 1).mean())

    return Claim.at_least(
        f"{ensemble}: share of states that a distribution realises",
        1.0,
        realised,
        source='Sec. IV: "the bit quantum map is complete"',
        item="complete",
        proof=Proof(best=realised, place=EXCLUDED),
    )


def changed_by_gates() -> int:
    """How many of the 15 expectation values and correlations the chain of gates can change.

    Those of operators that commute with every gate stay; a commutator is linear, and what it maps to 0 are these.
    """
    one = np.eye(4)
    return int(np.linalg.matrix_rank(np.concatenate([np.kron(g, one) - np.kron(one, g.T) for g in GATES.values()])))


def turned_by_unitaries() -> int:
    """Dimensions of the states that unitaries make of one with four eigenvalues: rank of its commutators."""
    rho, one = np.diag([0.1, 0.2, 0.3, 0.4]), np.eye(4)
    return int(np.linalg.matrix_rank(np.kron(rho, one) - np.kron(one, rho.T)))


class Completeness(Experiment):
    """Fig. 3: descent to distributions of six spins that make a density matrix, and which of them exist.

    Every state is decided by linear programming too, which is exact. The paper takes a chain of gates from one random
    density matrix and finds all of its states; they are mixed. Pure states are another matter.
    """

    class Config(BaseConfig):
        states: int = parameter(1000, "density matrices of each ensemble", ge=4, extent=True)
        ensembles: tuple[Ensemble, ...] = parameter(NAMES, "drawn from", min_length=1)
        learning_rate: float = parameter(30.0, "of gradient descent (not printed)", gt=0)
        iterations: int = parameter(5000, "updates at most", ge=1)
        tolerance: float = parameter(1e-10, "loss at which descent stops", gt=0)

        def memory(self) -> float:
            # A wave function of 8^2 numbers of every state, its gradient, and the program's other copies.
            return self.bytes_of_number * 20.0 * self.states * 8**2

    name = "spiking/completeness"
    quick = {"states": 40, "iterations": 1500, "ensembles": ("chain", "pure", "maximally entangled")}
    paper = PEHLE
    claims = (
        Claim.at_least(
            "chain from a random density matrix: share of losses below 1e-10",
            1.0,
            lambda d: d.converged.sel(ensemble="chain").mean(),
            source="Fig. 3a",
            item="descent",
        ),
        Claim.reported(
            "chain: median of iterations",
            lambda d: d.iterations.sel(ensemble="chain").median(),
            source='Fig. 3b: "rather few"',
            item="few iterations",
        ),
        Claim.at_least(
            "expectation values and correlations that the chain of gates changes, of 15",
            15.0,
            lambda d: changed_by_gates(),
            source='Sec. IV: "a dense covering to the space of quantum density matrices"',
            item="dense",
            proof=Proof(best=14.0, place="CNOT, H x 1, R x 1 commute with 1 x tau_1: the second qubit's <s_1> stays"),
        ),
        Claim.at_least(
            "dimensions of the states that any unitaries make of one density matrix, of 15",
            15.0,
            lambda d: turned_by_unitaries(),
            source="likewise",
            item="dense",
            proof=Proof(best=12.0, place="unitaries keep the four eigenvalues, whose sum is 1: 15 - 3 dimensions"),
        ),
        *(share(name) for name in NAMES),
        Claim.at_least(
            "T psi_+, made from |00> by the paper's gates: largest visibility",
            1.0,
            lambda d: d.turned_visibility,
            source='Sec. IV: "for every possible quantum density matrix"',
            item="complete",
            proof=Proof(best=2**-0.5, place="CHSH: by Fine's theorem six spins obey it, T psi_+ violates it by sqrt 2"),
        ),
        Claim.at_most(
            "states that are excluded and to which descent converged all the same",
            0.0,
            lambda d: ((d.visibility < 1) & d.converged).sum(),
            source="linear programmes of this run",
            item=BEYOND,
        ),
        Claim.within(
            "excluded by more than 1e-6: loss of descent over the exact minimum, largest",
            1.0,
            lambda d: (d.loss / d.minimum).where(d.minimum > 1e-6).max(),
            source="quadratic programmes of this run",
            item=BEYOND,
            tolerance=0.02,
        ),
        Claim.reported(
            "excluded states that violate a CHSH inequality",
            lambda d: (d.chsh > 2).where(d.visibility < 1).mean(),
            source="ours: the Bell inequality of two settings; others have three",
            item=BEYOND,
        ),
    )

    def run(self, config: Config, *, key: PRNGKeyArray, progress: Progress) -> xr.Dataset:
        def decided(ensemble: str, members: range) -> xr.Dataset:
            state_key, start_key = jax.random.split(jax.random.fold_in(key, NAMES.index(ensemble)))
            states = ENSEMBLES[ensemble](state_key, members.stop, 2)[members.start :]
            starts = amplitudes(start_key, members.stop, 2)[members.start :]
            numbers = config.learning_rate, config.iterations, config.tolerance
            found = descend(jax.vmap(coefficients)(jnp.asarray(states)), starts, *numbers)
            answers = [realisability(rho) for rho in states]
            columns = {
                "loss": found.loss,
                "iterations": found.iterations,
                "converged": found.converged,
                "visibility": [answer.visibility for answer in answers],
                "violation": [answer.violation for answer in answers],
                "minimum": [
                    0.0 if a.realised else nearest_realised(r).loss for a, r in zip(answers, states, strict=True)
                ],
                "chsh": [chsh(rho) for rho in states],
            }
            return xr.Dataset({name: ("state", np.asarray(values), {"units": "1"}) for name, values in columns.items()})

        def compute(members: range) -> xr.Dataset:
            return along("ensemble", {name: decided(name, members) for name in config.ensembles})

        dataset = Blocks("state", config.states, 100, together=False).carry_out(progress, compute)
        turned = realisability(TURNED)
        return dataset.assign(
            turned_visibility=((), turned.visibility, {"units": "1"}),
            turned_inequality=(("first", "second"), turned.inequality, {"units": "1"}),
        )

    def figures(self, dataset: xr.Dataset) -> Figures:
        figure = new_figure(10, 6.5)
        grid = figure.subplots(2, 2)
        names, first = [str(name) for name in dataset.ensemble.values], dataset.isel(ensemble=0)
        grid[0, 0].hist(first.loss * 1e11, bins=30, color=BLUE)
        grid[0, 0].set(xlabel="loss / 1e-11", ylabel="states", title=f"Fig. 3a: {names[0]}")
        grid[0, 1].hist(first.iterations, bins=30, color=BLUE)
        grid[0, 1].set(xlabel="iterations", title="Fig. 3b")
        realised = (dataset.visibility == 1).mean("state")
        grid[1, 0].barh(names, realised, color=BLUE)
        grid[1, 0].barh(names, 1 - realised, left=realised, color=RED)
        grid[1, 0].invert_yaxis()
        grid[1, 0].set(xlabel="share of states", title="realised, excluded", xlim=(0, 1))
        excluded = dataset.where(dataset.minimum > 1e-6)
        low = float(excluded.minimum.min().fillna(1e-6))
        grid[1, 1].loglog([low, 0.1], [low, 0.1], color="black", linewidth=0.8, label="equal")
        for name in names:
            part = excluded.sel(ensemble=name)
            if bool(part.minimum.notnull().any()):
                grid[1, 1].loglog(part.minimum, part.loss, ".", markersize=3, label=name)
        grid[1, 1].set(xlabel="exact minimum", ylabel="loss of descent", title="excluded states")
        grid[1, 1].legend(fontsize="small")
        return {"completeness": figure}
