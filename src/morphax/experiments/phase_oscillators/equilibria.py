"""How many equilibria has a network, and how many of them does training leave?"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray
from pydantic import Field

from morphax._lazy import xr
from morphax.experiments.phase_oscillators._training import EquilibriumConfig, optimiser
from morphax.experiments.phase_oscillators.paper import WANG
from morphax.experiments.phase_oscillators.xor import distance, xor_network
from morphax.lab.blocks import Blocks
from morphax.lab.experiment import LARGEST, Claim, Experiment, parameter
from morphax.lab.figures import BLUE, ORANGE, RED, Figures, new_figure
from morphax.lab.progress import Progress, along
from morphax.learning.ensemble import make_members, map_members, member_keys
from morphax.learning.train import train
from morphax.substrates.phase_oscillators import PhaseOscillators
from morphax.tasks import xor

BEFORE, AFTER = WHEN = ("before training", "after training")
SAME = 1e-2
"""Largest 1 - cosine by which the phases of one equilibrium, found twice, may differ."""
REST = 1e-6
"""Largest force at a fixed point that Newton's method has found."""


def at(name: str, when: str, size: int) -> Callable[[xr.Dataset], float]:
    """Mean over networks and inputs."""
    return lambda d: float(d[name].sel(when=when, size=size).mean())


def growth(dataset: xr.Dataset) -> float:
    """R^2 of a straight line through the logarithm of the mean number of fixed points against the size."""
    counts = dataset.fixed.sel(when=BEFORE).mean(("network", "example")).dropna("size")
    return float(np.corrcoef(counts["size"].values, np.log(counts))[0, 1] ** 2)


def multistable(size: int) -> Callable[[xr.Dataset], float]:
    """Share of random networks and inputs with more than one stable equilibrium."""
    return lambda d: float((d.stable.sel(when=BEFORE, size=size) > 1).mean())


class Equilibria(Experiment):
    """Sec. II B: stable equilibria of random and of trained networks against the size, and fixed points of all kinds.

    Stable equilibria are where relaxations from random phases end, for each input of XOR: a lower bound that grows with
    the number of starts. Fixed points are looked for by Newton's method, which does not care for stability, in the
    smaller networks; a point is stable where no eigenvalue of the Hessian is negative. Weights are drawn as in
    `phase-oscillators/xor`.
    """

    class Config(EquilibriumConfig):
        precision: Literal["double", "single"] = parameter("double", "floating-point precision of the run")
        seeds: int = parameter(10, "networks of each size", ge=1, extent=True)
        sizes: tuple[Annotated[int, Field(ge=4, le=LARGEST)], ...] = parameter(
            (4, 5, 6, 8, 10, 20, 30, 40), "oscillators", min_length=2
        )
        searches: int = parameter(300, "random starts, each input", ge=2)
        newton: int = parameter(10, "oscillators up to which fixed points of all kinds are looked for", ge=4)
        newton_searches: int = parameter(2000, "random starts of Newton's method, each input", ge=2)
        iterations: int = parameter(500, "updates between the two looks", ge=1)

        def memory(self) -> float:
            largest = max(self.sizes)
            return self.bytes_of_number * (10.0 * self.seeds * largest**2 + 40.0 * self.newton_searches * largest**2)

    name = "phase-oscillators/equilibria"
    quick = {"seeds": 2, "sizes": (4, 6), "searches": 30, "newton": 6, "newton_searches": 100, "iterations": 50}
    paper = WANG
    claims = (
        Claim.at_least(
            "fixed points of all kinds, random networks, 10 oscillators over 5",
            10.0,
            lambda d: at("fixed", BEFORE, 10)(d) / at("fixed", BEFORE, 5)(d),
            source="Sec. II B: grow exponentially with the size; ours: the number",
            item="equilibria",
        ),
        Claim.at_least(
            "their number grows exponentially: R^2 of a straight line through its logarithm",
            0.9,
            growth,
            source="Sec. II B; ours: the number",
            item="equilibria",
        ),
        Claim.reported(
            "stable equilibria of random networks, 40 oscillators over 10",
            lambda d: at("stable", BEFORE, 40)(d) / at("stable", BEFORE, 10)(d),
            source="ours",
            item="equilibria",
        ),
        Claim.at_most(
            "5 oscillators: share of inputs with more than one stable equilibrium",
            0.25,
            multistable(5),
            source="Sec. III A: rare for small networks; ours: the number",
            item="xor five units",
        ),
        Claim.reported(
            "the same of 10 oscillators", multistable(10), source="Sec. III A: not rare", item="xor five units"
        ),
        Claim.at_most(
            "10 oscillators: share of the fixed points that is stable",
            0.1,
            lambda d: d.stable_share.sel(when=BEFORE, size=10).mean(),
            source="Sec. II B: only a small fraction; ours: the number",
            item="equilibria",
        ),
        *(
            Claim.reported(
                f"{size} oscillators: stable equilibria that training leaves, over those before",
                lambda d, size=size: at("stable", AFTER, size)(d) / at("stable", BEFORE, size)(d),
                source="ours",
                item="equilibria",
            )
            for size in (10, 40)
        ),
    )

    def run(self, config: Config, *, key: PRNGKeyArray, progress: Progress) -> xr.Dataset:
        def of(size: int, members: range) -> xr.Dataset:
            make_key, train_key, search_key, newton_key = jax.random.split(jax.random.fold_in(key, size), 4)
            networks = make_members(eqx.Partial(xor_network, size), make_key, members)
            task, descent = xor(), optimiser("sgd", config.learning_rate, config.iterations)
            data, rule = (task.train_inputs, task.train_targets), config.rule(distance)
            options = {"chunk": config.iterations, "key": train_key, "ensemble": members}
            trained = train(networks, rule, data, descent, config.iterations, **options).last
            found = {}
            for when, these in zip(WHEN, (networks, trained), strict=True):
                search = eqx.Partial(_relaxed, config.relaxer(), data[0], config.searches)
                ends, rested = map_members(search, these, member_keys(search_key, members))
                unit, missing = {"units": "1"}, {"units": "1", "may_be_missing": 1}
                counts = {"stable": (_different(np.asarray(ends), np.asarray(rested)), unit)}
                if size <= config.newton:
                    search = eqx.Partial(_roots, data[0], config.newton_searches)
                    found_roots = map_members(search, these, member_keys(newton_key, members))
                    roots, good, stable = (np.asarray(part) for part in found_roots)
                    every = _different(roots, good)
                    share = _different(roots, good & stable) / every
                    counts |= {"fixed": (every, missing), "stable_share": (share, missing)}
                else:
                    none = np.full(counts["stable"][0].shape, np.nan)
                    counts |= {"fixed": (none, missing), "stable_share": (none, missing)}
                found[when] = xr.Dataset(
                    {name: (("network", "example"), values, attrs) for name, (values, attrs) in counts.items()}
                )
            return along("when", found)

        networks = Blocks("network", config.seeds, 2)
        work: dict[str, Callable[[range], xr.Dataset]] = {f"{size}": partial(of, size) for size in config.sizes}
        parts = networks.join(progress.pieces(networks.split(work)))
        meaning = {"units": "1", "long_name": "oscillators"}
        dataset = along("size", {size: parts[f"{size}"] for size in config.sizes}, meaning)
        about = {"stable": "different ends of relaxations", "fixed": "different fixed points of all kinds"}
        about |= {"stable_share": "share of the fixed points that is stable"}
        for name, text in about.items():
            dataset[name].attrs |= {"long_name": text}
        return dataset

    def figures(self, dataset: xr.Dataset) -> Figures:
        figure = new_figure(5.5, 3.8)
        axes = figure.subplots()
        for when, colour in zip(WHEN, (BLUE, RED), strict=True):
            part = dataset.stable.sel(when=when)
            axes.semilogy(part["size"], part.mean(("network", "example")), "o-", color=colour, label=f"stable, {when}")
        fixed = dataset.fixed.sel(when=BEFORE).mean(("network", "example")).dropna("size")
        axes.semilogy(fixed["size"], fixed, "o:", color=ORANGE, label=f"of all kinds, {BEFORE}")
        axes.set(xlabel="oscillators", ylabel="different fixed points, mean")
        axes.legend(fontsize="small")
        return {"equilibria": figure}


def _relaxed(relaxer: Any, drives: Array, searches: int, network: PhaseOscillators, key: PRNGKeyArray) -> Any:
    """Where relaxations end, (inputs, searches, units), and whether they came to rest."""

    def one(drive: Array, key: PRNGKeyArray) -> tuple[Array, Array]:
        ended = network.relax(drive, relaxer=relaxer, key=key)
        return ended.state, ended.converged

    return jax.vmap(jax.vmap(one, (None, 0)), (0, None))(drives, jax.random.split(key, searches))


def _roots(drives: Array, searches: int, network: PhaseOscillators, key: PRNGKeyArray) -> Any:
    """Where Newton's method ends, whether that is a fixed point, and whether it is stable."""

    def one(drive: Array, key: PRNGKeyArray) -> tuple[Array, Array, Array]:
        force = partial(network.force, drive=drive)
        slope = jax.jacfwd(force)

        def step(state: Array, _: None) -> tuple[Array, None]:
            # Steps of at most half a radian: farther away the linear picture says nothing.
            change = jnp.linalg.solve(slope(state), -force(state))
            return state + jnp.clip(jnp.nan_to_num(change), -0.5, 0.5), None

        state = jax.lax.scan(step, network.initial_state(key=key), None, 60)[0]
        # The force falls away from a minimum of the energy in every direction.
        largest = jnp.linalg.eigvalsh(slope(state))[-1]
        return state, jnp.max(jnp.abs(force(state))) < REST, largest <= REST

    return jax.vmap(jax.vmap(one, (None, 0)), (0, None))(drives, jax.random.split(key, searches))


def _different(states: np.ndarray, count: np.ndarray) -> np.ndarray:
    """How many different points there are among those that count, (networks, inputs)."""

    def of(points: np.ndarray) -> int:
        kept: list[np.ndarray] = []
        for point in points:
            if not kept or np.max(1 - np.cos(np.array(kept) - point), axis=1).min() > SAME:
                kept.append(point)
        return len(kept)

    shape = states.shape[:2]
    numbers = [[of(states[i, j][count[i, j]]) for j in range(shape[1])] for i in range(shape[0])]
    return np.array(numbers, float)
