"""What if the oscillators are not equal?"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import equinox as eqx
import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from morphax._lazy import xr
from morphax.experiments.phase_oscillators._training import EquilibriumConfig
from morphax.experiments.phase_oscillators.paper import WANG
from morphax.experiments.phase_oscillators.xor import courses, distance, trained_on_xor
from morphax.lab.blocks import Blocks
from morphax.lab.experiment import Claim, Experiment, NonNegative, parameter
from morphax.lab.figures import BLUE, GREY, RED, Figures, new_figure
from morphax.lab.progress import Progress, along
from morphax.learning.ensemble import make_members
from morphax.substrates.phase_oscillators import PhaseOscillators


def learned(spread: float) -> Callable[[xr.Dataset], float]:
    """Share of the runs whose mean distance ends below 0.01."""
    return lambda d: float(d.learned.sel(spread=spread).mean("run"))


class Frequencies(Experiment):
    """Sec. II A: networks whose natural frequencies differ learn XOR.

    Frequencies are normal, their deviation in units of that of the couplings. A network with a stable fixed point is
    locked; where there is none phases drift, a relaxation does not come to rest, and the rule leaves that example out
    and counts it.
    """

    class Config(EquilibriumConfig):
        seeds: int = parameter(100, "training runs at each spread", ge=1, extent=True)
        iterations: int = parameter(1000, "updates", ge=1)
        size: int = parameter(10, "oscillators", ge=4, le=1000)
        spreads: tuple[NonNegative, ...] = parameter(
            (0.0, 1e-3, 1e-2, 0.1, 0.3, 1.0), "deviation of natural frequencies over that of couplings", min_length=2
        )

        def memory(self) -> float:
            return self.bytes_of_number * 10.0 * self.seeds * self.size**2

    name = "phase-oscillators/frequencies"
    quick = {"seeds": 10, "iterations": 200, "spreads": (0.0, 1e-2, 1.0)}
    paper = WANG
    claims = (
        *(
            Claim.at_least(
                f"a spread of {spread:g} is tolerated: share that learns",
                learned(0.0),
                learned(spread),
                source="Sec. II A: small deviations; equal frequencies of this run; by 5 per cent",
                tolerance=0.05,
                item="frequencies",
            )
            for spread in (1e-3, 1e-2)
        ),
        Claim.at_most(
            "a spread of 1 is not: share that learns, over that with equal frequencies",
            0.5,
            lambda d: learned(1.0)(d) / learned(0.0)(d),
            source="Sec. II A: not helpful where they are large; ours: the number",
            item="frequencies",
        ),
        Claim.reported(
            "a spread of 1: relaxations that do not come to rest, share",
            lambda d: d.unconverged.sel(spread=1.0).mean("run"),
            source="Sec. II A: absence of stable fixed points",
            item="frequencies",
        ),
    )

    def run(self, config: Config, *, key: PRNGKeyArray, progress: Progress) -> xr.Dataset:
        make_key, train_key = jax.random.split(key)

        def at(spread: float, runs: range) -> xr.Dataset:
            networks = make_members(eqx.Partial(_network, config.size, spread), make_key, runs)
            rule = config.rule(distance)
            return courses(
                trained_on_xor(config, networks, rule, config.iterations, key=train_key, ensemble=runs), runs
            )

        work: dict[str, Callable[[range], xr.Dataset]] = {
            f"spread {spread:g}": partial(at, spread) for spread in config.spreads
        }
        runs = Blocks("run", config.seeds, 25)
        parts = runs.join(progress.pieces(runs.split(work)))
        meaning = {"units": "1", "long_name": "deviation of natural frequencies over that of couplings"}
        dataset = along("spread", {spread: parts[f"spread {spread:g}"] for spread in config.spreads}, meaning)
        return dataset.assign(course=dataset.course.mean("run", keep_attrs=True))

    def figures(self, dataset: xr.Dataset) -> Figures:
        from matplotlib import colormaps

        figure = new_figure(8.5, 3.4)
        left, right = figure.subplots(1, 2)
        colours = colormaps["viridis"](np.linspace(0, 0.95, dataset.sizes["spread"]))
        for spread, colour in zip(dataset.spread.values, colours, strict=True):
            course = dataset.course.sel(spread=spread)
            left.semilogy(course.iteration, course, color=colour, label=f"{spread:g}")
        left.set(xlabel="iteration", ylabel="mean distance, mean over runs")
        left.legend(title="spread", fontsize="x-small")
        place = np.arange(dataset.sizes["spread"])
        right.plot(place, dataset.learned.mean("run"), "o-", color=BLUE, label="learned, share of runs")
        right.plot(place, dataset.unconverged.mean("run"), "o-", color=RED, label="not at rest, share of relaxations")
        right.axhline(1, color=GREY, linewidth=0.8)
        right.set_xticks(place, [f"{spread:g}" for spread in dataset.spread.values])
        right.set(xlabel="spread of natural frequencies", ylim=(0, 1.05))
        right.legend(fontsize="small")
        return {"frequencies": figure}


def _network(size: int, spread: float, key: PRNGKeyArray) -> PhaseOscillators:
    return PhaseOscillators.all_to_all(
        2, size - 3, 1, coupling_deviation=1.0, bias_scale=0.5, frequency_deviation=spread, key=key
    )
