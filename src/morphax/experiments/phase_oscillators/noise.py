"""Can thermal noise take the place of many random starts?"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from morphax._lazy import xr
from morphax.experiments.phase_oscillators._thermal import (
    GROUP,
    ThermalPropagation,
    at_rest,
    in_groups,
    learned_networks,
)
from morphax.experiments.phase_oscillators._training import EquilibriumConfig
from morphax.experiments.phase_oscillators.paper import WANG
from morphax.experiments.phase_oscillators.xor import NEAR, distance
from morphax.lab.blocks import Blocks
from morphax.lab.experiment import Claim, Experiment, NonNegative, parameter
from morphax.lab.figures import BLUE, GREEN, GREY, RED, Figures, new_figure
from morphax.lab.progress import Progress, along
from morphax.learning.ensemble import map_members, member_keys

RANDOM, SAME = "random start", "same start"
WAYS = {RANDOM: False, SAME: True}


def ending(dataset: xr.Dataset, way: str, temperature: float, of: str = "distance") -> xr.DataArray:
    """Mean distances at the last look, of every run."""
    return dataset[of].sel(way=way, temperature=temperature).isel(iteration=-1)


def chosen(dataset: xr.Dataset, way: str) -> float:
    """The temperature above 0 at which most runs learn; of equals that with the least distances."""

    def merit(temperature: float) -> tuple[float, float]:
        distances = ending(dataset, way, temperature)
        return float((distances < NEAR).mean()), -float(distances.mean())

    return max((float(t) for t in dataset.temperature if t > 0), key=merit)


def judged(dataset: xr.Dataset, way: str) -> Iterator[tuple[float, xr.Dataset]]:
    """Each half of the runs, and the temperature that the other half chose: otherwise the best is partly luck."""
    for half in (0, 1):
        yield chosen(dataset.isel(run=slice(1 - half, None, 2)), way), dataset.isel(run=slice(half, None, 2))


def learned(way: str, *, noise: bool, of: str = "distance") -> Callable[[xr.Dataset], float]:
    """Share of the runs that ends below 0.1, without noise or at the temperature that was chosen for them."""

    def share(dataset: xr.Dataset) -> float:
        near = [ending(part, way, t if noise else 0.0, of) < NEAR for t, part in judged(dataset, way)]
        return float(xr.concat(near, "run").mean())

    return share


def until(*, noise: bool) -> Callable[[xr.Dataset], float]:
    """Median of the iterations until the distance stays below 0.1 at all looks; never counts as all of them."""

    def median(dataset: xr.Dataset) -> float:
        parts = [part.distance.sel(way=RANDOM, temperature=t if noise else 0.0) for t, part in judged(dataset, RANDOM)]
        distances = xr.concat(parts, "run")
        return float(distances.iteration.where(distances >= NEAR, 0).max("iteration").median())

    return median


class Noise(Experiment):
    """Sec. II B: Langevin dynamics at some temperatures in place of relaxations from many random states.

    All-to-all networks learn XOR from the same weights. In an update each example has the same simulated time, free and
    then nudged: that of one trajectory at a temperature, or, without noise, of several starts that share it. A
    trajectory begins in random phases, or, as a control, in every update in the same ones. Networks are judged as in
    Fig. 3, at rest and without noise, from random phases. Each half of the runs is judged at the temperature that is
    best for the other.
    """

    class Config(EquilibriumConfig):
        seeds: int = parameter(48, "training runs at each point", ge=2, extent=True)
        size: int = parameter(20, "oscillators", ge=4, le=1000)
        strength: float = parameter(1.0, "beta, strength of the nudge; noise enters divided by it", gt=0)
        temperatures: tuple[NonNegative, ...] = parameter(
            (0.0, 0.01, 0.03, 0.1, 0.3), "temperature over the deviation of couplings", min_length=2
        )
        duration: float = parameter(250.0, "simulated time of the free and of the nudged network", gt=0, le=1e5)
        starts: int = parameter(5, "starts without noise that share this time", ge=2, le=100)
        visits: int = parameter(20, "looks at each run", ge=1)
        every: int = parameter(20, "updates between two looks", ge=1)
        time_step: float = parameter(0.1, "time step of the dynamics", gt=0)
        interval: float = parameter(1.0, "time between two readings of a trajectory", gt=0)
        searches: int = parameter(20, "initial states from which a look finds equilibria", ge=2)

        def memory(self) -> float:
            # Of the runs of a group, four examples: noise, what the energies of readings are made of, and the looks.
            noise, readings = self.duration / self.time_step * self.size, self.duration / self.interval * self.size**2
            return self.bytes_of_number * GROUP * (4 * (noise + 2 * readings) + 2.0 * self.visits * self.size**2)

        def thermal(self, temperature: float, starts: int = 1, **rest: Any) -> ThermalPropagation:
            """The rule with starts that share the time; the temperature is an array: all share one compilation."""
            return ThermalPropagation(
                strength=self.strength,
                temperature=jnp.asarray(temperature),
                initial_states=starts,
                duration=self.duration / starts,
                time_step=self.time_step,
                interval=self.interval,
                **rest,
            )

    name = "phase-oscillators/noise"
    quick = {"seeds": 4, "size": 6, "temperatures": (0.0, 0.1), "duration": 20.0, "starts": 2, "visits": 10}
    paper = WANG
    claims = (
        Claim.at_least(
            "share that learns with noise, at the best temperature, against none",
            learned(RANDOM, noise=False),
            learned(RANDOM, noise=True),
            source="Sec. II B; one start of this run without noise",
            item="noise",
            cause="the warmer, the fewer learn: shares of 0.67, 0.56, 0.23 and 0 at 0.01, 0.03, 0.1 and 0.3; under the "
            "noise as many answer rightly as without, 0.63 to 0.65 up to 0.1: means under the noise are learned, not "
            "what is at rest (same run)",
        ),
        Claim.at_least(
            "the same where trajectories always begin in the same phases",
            learned(SAME, noise=False),
            learned(SAME, noise=True),
            source="Sec. II B; the same start without noise",
            tolerance=-1e-9,
            item="noise",
        ),
        Claim.reported(
            "share that learns with noise, beside several starts",
            learned(RANDOM, noise=True),
            source="several starts of this run, without noise",
            paper=lambda d: (d.many_distance.isel(iteration=-1) < NEAR).mean(),
            item="noise",
        ),
        Claim.reported(
            "share that learns with noise from always the same phases, beside one random start",
            learned(SAME, noise=True),
            source="one start of this run, without noise",
            paper=learned(RANDOM, noise=False),
            item="noise",
        ),
        Claim.reported(
            "share that ends below 0.1 under the noise itself",
            learned(RANDOM, noise=True, of="noisy"),
            source="ours",
            item="noise",
        ),
        Claim.reported(
            "median of the updates until the distance stays below 0.1, with noise, beside none",
            until(noise=True),
            source="one start of this run, without noise",
            paper=until(noise=False),
            item="noise",
        ),
        Claim.reported("the best temperature", lambda d: chosen(d, RANDOM), source="ours", item="noise"),
        Claim.reported(
            "simulated time of an example in an update, beside one start of the paper",
            lambda d: d.time,
            source="Sec. III A: T = 100, free and nudged",
            paper=200.0,
            item="noise",
        ),
    )

    def run(self, config: Config, *, key: PRNGKeyArray, progress: Progress) -> xr.Dataset:
        work: dict[str, Callable[[range], xr.Dataset]] = {
            f"{way}, T = {t:g}": partial(_trained, config, key, t, 1, same)
            for (way, same), t in itertools.product(WAYS.items(), config.temperatures)
        }
        work["several starts"] = partial(_trained, config, key, 0.0, config.starts, False)
        runs = Blocks("run", config.seeds, GROUP)
        parts = runs.join(progress.pieces(runs.split(work)))
        meaning = {"units": "1", "long_name": "temperature over the deviation of couplings"}
        rows = {
            way: along("temperature", {t: parts[f"{way}, T = {t:g}"] for t in config.temperatures}, meaning)
            for way in WAYS
        }
        several = parts["several starts"]
        dataset = along("way", rows).merge(several.rename({name: f"many_{name}" for name in several.data_vars}))
        about = {"units": "1", "long_name": "simulated time of an example in an update, times deviation of couplings"}
        return dataset.assign(time=((), 2 * config.duration, about))

    def figures(self, dataset: xr.Dataset) -> Figures:
        from matplotlib import colormaps

        figure = new_figure(11, 3.6)
        share, course, apart = figure.subplots(1, 3)
        places, names = np.arange(dataset.sizes["temperature"]), [f"{t:g}" for t in dataset.temperature.values]
        shades = colormaps["plasma"](np.linspace(0, 0.85, len(names)))
        last, first = dataset.isel(iteration=-1), dataset.isel(iteration=0).mean("run")
        for way, colour in zip(WAYS, (BLUE, GREEN), strict=True):
            for of, style, where in (("distance", "o-", "at rest"), ("noisy", "x:", "under the noise")):
                line = (last[of].sel(way=way) < NEAR).mean("run")
                share.plot(places, line, style, color=colour, label=f"{way}, {where}")
            apart.plot(places, first.scatter.sel(way=way), "o-", color=colour, label=f"distance, {way}")
        share.axhline((last.many_distance < NEAR).mean(), color=RED, linestyle="--", label="several starts")
        share.set(ylabel="share of runs below 0.1", title="learned", ylim=(-0.03, 1.03))
        for name, t, colour in zip(names, dataset.temperature.values, shades, strict=True):
            line = dataset.distance.sel(way=RANDOM, temperature=t).median("run")
            course.semilogy(dataset.iteration, line, color=colour, label=f"T = {name}")
        course.semilogy(dataset.iteration, dataset.many_distance.median("run"), "--", color=RED, label="several starts")
        course.axhline(NEAR, color=GREY, linewidth=0.8)
        course.set(xlabel="iteration", ylabel="mean distance at rest, median", title=f"{RANDOM}s")
        apart.plot(places, first.cancelled.sel(way=RANDOM), "s--", color=RED, label="updates, share that cancels")
        apart.set(title=f"deviation in the first {int(dataset.iteration[0])} updates", ylim=(0, 1))
        for axes in (share, apart):
            axes.set_xticks(places, names)
            axes.set_xlabel("temperature / deviation of couplings")
        for axes in (share, course, apart):
            axes.legend(fontsize="x-small")
        return {"noise": figure}


def _trained(
    config: Noise.Config, key: PRNGKeyArray, temperature: float, starts: int, same: bool, runs: range
) -> xr.Dataset:
    """How some runs of XOR went: mean distances at rest and under the noise, and how much of the updates cancels."""
    make_key, train_key, judge_key = jax.random.split(key, 3)
    rule = config.thermal(temperature, starts, same_start=jnp.asarray(same))
    learn = partial(learned_networks, rule, jnp.asarray(config.learning_rate), config.visits, config.every)
    networks, seen = in_groups(learn, config.size, make_key, train_key, runs)
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), networks)
    judge = partial(at_rest, config.rule(distance, initial_states=config.searches))
    rest = map_members(judge, flat, jnp.repeat(member_keys(judge_key, runs), config.visits))
    found = seen | {"distance": rest.reshape(len(runs), -1)}
    meaning = {
        "distance": "mean distance at rest (Eq. 3), from random states",
        "noisy": "mean distance (Eq. 3) along the trajectories of the updates, until a look",
        "scatter": "deviation of this distance from update to update, until a look",
        "cancelled": "share of the squared updates until a look that averaging them removes",
    }
    about = {name: {"units": "1", "long_name": text} for name, text in meaning.items()}
    return xr.Dataset(
        {name: (("run", "iteration"), np.asarray(x, float), about[name]) for name, x in found.items()},
        {"run": list(runs), "iteration": config.every * (1 + np.arange(config.visits))},
    )
