"""Which cost, and nudged to which side?"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from typing import Annotated, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray
from pydantic import Field

from morphax._lazy import xr
from morphax.experiments.phase_oscillators._training import EquilibriumConfig
from morphax.experiments.phase_oscillators.paper import WANG
from morphax.experiments.phase_oscillators.xor import courses, distance, trained_on_xor, xor_network
from morphax.lab.blocks import Blocks
from morphax.lab.experiment import LARGEST, Claim, Experiment, Proof, parameter
from morphax.lab.figures import BLUE, GREEN, RED, Figures, new_figure
from morphax.lab.progress import Progress, along
from morphax.learning.ensemble import make_members
from morphax.substrates.energy import Cost, phase_distance, phase_overlap

DISTANCE, OVERLAP = "Eq. 3", "Eq. 4"
COSTS: dict[str, Cost] = {DISTANCE: phase_distance, OVERLAP: phase_overlap}
Side = Literal["one-sided", "opposite", "symmetric"]
NUDGINGS: tuple[Side, ...] = ("one-sided", "opposite", "symmetric")
COLOURS = dict(zip(NUDGINGS, (BLUE, GREEN, RED), strict=True))
PHASES = np.linspace(-np.pi, np.pi, 201)
NEARER = PHASES[abs(PHASES) <= 3 * np.pi / 4]
"""Phases not so near the one opposite to a target of 0 that rounding counts."""
PAULI_X, PRINTED_Y = np.array([[0, 1], [1, 0]]), np.array([[0, 1j], [-1j, 0]])
APART = 1e-2
"""Radians by which an output misses the phase opposite to its target, where slopes are compared."""


def states(phases: np.ndarray) -> np.ndarray:
    """Eq. A2, (phases, 2)."""
    return np.stack([np.ones_like(phases), np.exp(1j * phases)], axis=-1) / 2**0.5


def expectation(phases: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Of cos(phi) X + sin(phi) Y in these states."""
    turned = np.multiply.outer(np.cos(phases), PAULI_X) + np.multiply.outer(np.sin(phases), y)
    return np.einsum("pi,pij,pj->p", states(phases).conj(), turned, states(phases)).real


def overlap_cost(phases: np.ndarray) -> np.ndarray:
    """-log |<T|S>|^2 (Eq. A4) of one output whose target is the phase 0."""
    return -np.log(abs(states(phases) @ states(np.zeros(1))[0].conj()) ** 2)


def learned(cost: str, nudging: str, size: int) -> Callable[[xr.Dataset], float]:
    """Share of the runs whose mean distance ends below 0.01."""
    return lambda d: float(d.learned.sel(cost=cost, nudging=nudging, size=size).mean("run"))


def until(cost: str, nudging: str, size: int) -> Callable[[xr.Dataset], float]:
    """Median of the iterations until the distance stays below 0.1; one that never does counts as all of them."""
    return lambda d: float(d.iterations.sel(cost=cost, nudging=nudging, size=size).median("run"))


class Costs(Experiment):
    """Sec. II B, Appendix A: distance (Eq. 3) and overlap (Eq. 4) as costs, nudged to one side, the other, and both.

    All-to-all networks learn XOR from the same weights. The distance is flat where an output is opposite to its target:
    a run may stay there for long. The overlap is steepest there, and nudged away from the target it has no lower bound,
    which is why the paper could not use two sides.
    """

    class Config(EquilibriumConfig):
        seeds: int = parameter(100, "training runs at each point", ge=1, extent=True)
        iterations: int = parameter(1000, "updates", ge=1)
        sizes: tuple[Annotated[int, Field(ge=4, le=LARGEST)], ...] = parameter((5, 10), "oscillators", min_length=1)

        def memory(self) -> float:
            return self.bytes_of_number * 10.0 * self.seeds * max(self.sizes) ** 2

    name = "phase-oscillators/costs"
    quick = {"seeds": 10, "iterations": 200, "sizes": (5,)}
    paper = WANG
    claims = (
        *(
            Claim.at_least(
                f"{size} oscillators: share that learns with Eq. 4 against Eq. 3",
                learned(DISTANCE, "one-sided", size),
                learned(OVERLAP, "one-sided", size),
                source="Sec. II B: works much better; Eq. 3 of this run",
                tolerance=-1e-9,
                item="cost",
            )
            for size in (5, 10)
        ),
        *(
            Claim.at_most(
                f"{size} oscillators: iterations until the distance stays below 0.1, Eq. 4 over Eq. 3",
                0.7,
                lambda d, size=size: until(OVERLAP, "one-sided", size)(d) / until(DISTANCE, "one-sided", size)(d),
                source="App. A: much more efficient; ours: the number",
                item="cost",
            )
            for size in (5, 10)
        ),
        Claim.at_most(
            "slope of Eq. 3 where an output is opposite to its target, over that of Eq. 4",
            1e-3,
            lambda d: d.slope.sel(cost=DISTANCE) / d.slope.sel(cost=OVERLAP),
            source="App. A, Eq. A1; 0.01 rad beside it; ours: the number",
            item="cost",
        ),
        Claim.at_most(
            "Eq. 4 is -log of an overlap of quantum states (Eq. A4) but for a constant: range of the difference",
            1e-4,
            lambda d: np.ptp(overlap_cost(NEARER) - np.asarray(phase_overlap(jnp.asarray(NEARER), jnp.zeros(())))),
            source="App. A; ours: rounding",
            item="overlap",
        ),
        Claim.at_least(
            "(|0> + exp(i phi) |1>) / sqrt(2) as an eigenstate, Y as printed: least <cos(phi) X + sin(phi) Y>",
            1.0,
            lambda d: expectation(PHASES, PRINTED_Y).min(),
            source="App. A: exactly, with eigenvalue +1",
            tolerance=1e-9,
            item="eigenstate",
            proof=Proof(
                best=-1.0,
                place="with Y = i |0><1| - i |1><0| it is cos(2 phi), -1 at pi / 2; Pauli's Y has the other sign",
            ),
        ),
        Claim.at_least(
            "the same with Pauli's Y",
            1.0,
            lambda d: expectation(PHASES, -PRINTED_Y).min(),
            source="App. A",
            tolerance=1e-9,
            item="eigenstate",
        ),
        *(
            Claim.at_most(
                f"{nudging} nudging with Eq. 4 fails: share of 5 oscillators that learns",
                0.5,
                learned(OVERLAP, nudging, 5),
                source="Sec. II B: not possible; ours: the number",
                item="symmetric nudging",
            )
            for nudging in NUDGINGS[1:]
        ),
        Claim.reported(
            "relaxations that did not converge, opposite nudging with Eq. 4, share",
            lambda d: d.unconverged.sel(cost=OVERLAP, nudging="opposite").max(),
            source="ours",
            item="symmetric nudging",
        ),
    )

    def run(self, config: Config, *, key: PRNGKeyArray, progress: Progress) -> xr.Dataset:
        points: list[tuple[str, Side, int]] = list(itertools.product(COSTS, NUDGINGS, config.sizes))
        work: dict[str, Callable[[range], xr.Dataset]] = {
            f"{cost}, {nudging}, {size}": partial(_trained, config, key, cost, nudging, size)
            for cost, nudging, size in points
        }
        runs = Blocks("run", config.seeds, 50)
        parts = runs.join(progress.pieces(runs.split(work)))

        def of(cost: str, nudging: str) -> xr.Dataset:
            return along("size", {size: parts[f"{cost}, {nudging}, {size}"] for size in config.sizes})

        rows = {cost: along("nudging", {nudging: of(cost, nudging) for nudging in NUDGINGS}) for cost in COSTS}
        slopes = [abs(float(jax.grad(lambda p, c=c: jnp.sum(c(p, 0.0)))(np.pi - APART))) for c in COSTS.values()]
        about = {"units": "1", "long_name": "slope of the cost where an output is opposite to its target"}
        dataset = along("cost", rows)
        return dataset.assign(
            course=dataset.course.mean("run", keep_attrs=True),
            slope=xr.DataArray(slopes, {"cost": list(COSTS)}, ["cost"], attrs=about),
        )

    def figures(self, dataset: xr.Dataset) -> Figures:
        figure = new_figure(4.2 * dataset.sizes["size"], 3.6)
        panels = np.atleast_1d(figure.subplots(1, dataset.sizes["size"], sharey=True))
        for axes, size in zip(panels, dataset["size"].values, strict=True):
            for cost, style in zip(COSTS, ("--", "-"), strict=True):
                for nudging in NUDGINGS:
                    course = dataset.course.sel(cost=cost, nudging=nudging, size=size)
                    axes.semilogy(course.iteration, course, style, color=COLOURS[nudging], label=f"{cost}, {nudging}")
            axes.set(xlabel="iteration", title=f"{size} oscillators")
        panels[0].set_ylabel("mean distance, mean over runs")
        handles = panels[0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside lower center", ncols=3, fontsize="small")
        return {"costs": figure}


def _trained(config: Costs.Config, key: PRNGKeyArray, cost: str, nudging: Side, size: int, runs: range) -> xr.Dataset:
    make_key, train_key = jax.random.split(jax.random.fold_in(key, size))
    networks = make_members(eqx.Partial(xor_network, size), make_key, runs)
    rule = config.rule(distance, objective=COSTS[cost], nudging=nudging)
    history = trained_on_xor(config, networks, rule, config.iterations, key=train_key, ensemble=runs)
    return courses(history, runs)
