"""How fast may the input be?"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from morphax._lazy import xr
from morphax.experiments.spintronic._network import (
    Entry,
    NetworkConfig,
    accuracies,
    converged,
    layered,
    median_band,
    percent,
)
from morphax.experiments.spintronic.sequential_digits import CTRNN, ENTRIES
from morphax.experiments.training import Trainer
from morphax.lab.blocks import Blocks, join_blocks
from morphax.lab.experiment import Claim, Experiment, Positive, parameter
from morphax.lab.figures import BLUE, GREEN, ORANGE, RED, VIOLET, Figures, new_figure
from morphax.lab.progress import Progress, along
from morphax.learning.backprop import Backpropagation
from morphax.substrates.wrappers import WithReadout

REFERENCE = "spintronic"
CURVES = {
    REFERENCE: Entry("spintronic"),
    "CTRNN": ENTRIES[CTRNN],
    "tau / 3.16": Entry("spintronic", {"relaxation_time": 14.12 / 10**0.5}),
    "tau x 3.16": Entry("spintronic", {"relaxation_time": 14.12 * 10**0.5}),
    "rate / 3.16": Entry("spintronic", {"learning_rate": 0.149 / 10**0.5}),
    "rate x 3.16": Entry("spintronic", {"learning_rate": 0.149 * 10**0.5}),
}


def median(dataset: xr.Dataset, curve: str, interval: float) -> float:
    """Median accuracy of a curve at an interval."""
    return float(dataset.accuracy.sel(curve=curve, interval=interval).median("seed"))


def centre(dataset: xr.Dataset, curve: str) -> float:
    """Where a bell-shaped curve has its centre: mean of log10(interval / ns), weighted with accuracy above chance."""
    weight = (dataset.accuracy.sel(curve=curve).median("seed") - 10).clip(0)
    return float((weight * np.log10(dataset.interval)).sum() / weight.sum())


def cumulative_drive_that_works(dataset: xr.Dataset) -> float:
    """Median cumulative drive of the best quarter of the conditions with intervals below the relaxation time."""
    part = dataset.median("seed").stack(point=("curve", "interval"))
    part = part.sel(point=(part.relaxation_time > part.interval) & (part.curve != "CTRNN"))
    best = part.accuracy >= part.accuracy.quantile(0.75)
    return float(part.cumulative_drive.where(best, drop=True).median())


class TimeScales(Experiment):
    """Figs. 2b and 3: accuracy against the time between two pixels, with the paper's settings held fixed.

    For other relaxation times and learning rates; and against the cumulative drive S <|W|> sqrt(32) dt of the trained
    networks. The amplification S does not follow the relaxation time.
    """

    class Config(NetworkConfig):
        seeds: int = parameter(5, "independent repetitions", ge=1, le=1000, extent=True)
        epochs: int = parameter(40, "passes over the training images", ge=1)
        intervals: tuple[Positive, ...] = parameter(
            (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0), "times between two pixels", unit="ns", min_length=1
        )

        def intervals_used(self) -> list[tuple[str, float]]:
            return [(f"intervals.{index}", interval) for index, interval in enumerate(self.intervals)]

    name = "spintronic/time-scales"
    quick = {"seeds": 1, "epochs": 4, "layers": (16, 16), "intervals": (0.1, 1.0, 2.5)}
    claims = (
        *(
            Claim.at_least(
                f"{curve}: flat over a fivefold range, {interval} ns against 1 ns (%)",
                lambda d, c=curve: median(d, c, 1.0),
                lambda d, c=curve, i=interval: median(d, c, i),
                source="Sec. IV: maintained from 0.4 to 2.5 ns",
                tolerance=5.0,
            )
            for curve in (REFERENCE, "CTRNN")
            for interval in (0.5, 2.5)
        ),
        *(
            Claim.at_most(
                f"well {where} 1 ns accuracy is lost: {interval:g} ns against 1 ns (%)",
                lambda d: median(d, REFERENCE, 1.0),
                lambda d, i=interval: median(d, REFERENCE, i) + 20,
                source="Sec. IV, Fig. 2b, by 20 points or more",
            )
            for where, interval in (("below", 0.1), ("above", 10.0))
        ),
        Claim.at_least(
            "a longer relaxation time moves the centre to slower inputs (decades)",
            0.0,
            lambda d: centre(d, "tau x 3.16") - centre(d, "tau / 3.16"),
            source="Sec. IV, Fig. 3a; at least 0.05",
            tolerance=-0.05,
        ),
        Claim.at_most(
            "a higher learning rate moves the centre to faster inputs (decades)",
            0.0,
            lambda d: centre(d, "rate x 3.16") - centre(d, "rate / 3.16"),
            source="Sec. IV, Fig. 3b; at least 0.05",
            tolerance=-0.05,
        ),
        Claim.within(
            "cumulative drive of the best quarter of conditions, log10",
            0.0,
            lambda d: np.log10(cumulative_drive_that_works(d)),
            source="Eq. 11: around 1; half a decade",
            tolerance=0.5,
        ),
        Claim.at_most(
            "largest change by a converged integrator, spintronic (points)",
            0.0,
            lambda d: abs(d.converged - d.accuracy).sel(curve=REFERENCE).mean("seed").max(),
            source="the same networks as trained",
            tolerance=2.0,
        ),
    )

    def run(self, config: Config, *, key: PRNGKeyArray, progress: Progress) -> xr.Dataset:
        data_key, make_key, train_key = jax.random.split(key, 3)
        trainer = Trainer(train_key, progress)
        task = config.task(data_key)
        train, test = (task.train_inputs, task.train_targets), (task.test_inputs, task.test_targets)

        def point(label: str, entry: Entry, interval: float, seeds: range) -> xr.Dataset:
            here = config.but(interval=interval, **entry.changes)
            networks, numbers = here.networks(entry.kind, make_key, seeds), here.training(train, visits=2)
            numbers |= {"watch": {"test": test}, "ensemble": seeds}
            done = trainer.train(label, networks, Backpropagation(), train, **numbers)
            last, reference = done.history.watched("test")["accuracy"][-1], accuracies(converged(done.last, 0.1), test)
            drive = np.asarray(eqx.filter_vmap(cumulative_drive)(done.last))
            meaning = {"units": "1", "long_name": "S <|W|> sqrt(fan-in) dt (Eqs. 9-11)"}
            return xr.Dataset(
                {
                    "accuracy": percent(last, "test accuracy, last epoch"),
                    "converged": percent(reference, "with a converged integrator"),
                    "cumulative_drive": ("seed", drive, meaning),
                    "relaxation_time": ((), here.relaxation_time, {"units": "ns"}),
                },
                {"seed": list(seeds)},
            )

        labels = {(curve, i): f"{curve}, {i} ns" for curve in CURVES for i in config.intervals}
        work: dict[str, Callable[[], xr.Dataset]] = {}
        for (curve, interval), label in labels.items():
            # What takes more steps of the integrator has fewer seeds to a piece.
            size = max(1, round(5 / math.ceil(interval / config.longest_step - 1e-9)))
            work |= Blocks("seed", config.seeds, size).split({label: partial(point, label, CURVES[curve], interval)})
        parts = join_blocks("seed", progress.pieces(work))

        def by_interval(curve: str) -> xr.Dataset:
            return along("interval", {i: parts[labels[curve, i]] for i in config.intervals}, {"units": "ns"})

        return along("curve", {curve: by_interval(curve) for curve in CURVES})

    def figures(self, dataset: xr.Dataset) -> Figures:
        figure = new_figure(11, 7)
        panels = figure.subplots(2, 2)
        lines = (
            ("Fig. 2b: two networks", ((REFERENCE, RED), ("CTRNN", GREEN))),
            ("Fig. 3a: relaxation times", (("tau / 3.16", BLUE), (REFERENCE, RED), ("tau x 3.16", ORANGE))),
            ("Fig. 3b: learning rates", (("rate / 3.16", VIOLET), (REFERENCE, RED), ("rate x 3.16", GREEN))),
        )
        for axes, (title, curves) in zip(panels.flat, lines, strict=False):
            for curve, colour in curves:
                median_band(axes, dataset.interval, dataset.accuracy.sel(curve=curve), color=colour, label=curve)
            axes.set(xscale="log", xlabel="time between two pixels (ns)", ylabel="test accuracy (%)", ylim=(0, 100))
            axes.set_title(title)
            axes.legend(loc="lower right")
        axes = panels.flat[3]
        part = dataset.sel(curve=[c for c in CURVES if c != "CTRNN"]).median("seed")
        slower = (part.relaxation_time > part.interval).transpose("curve", "interval").values
        for chosen, colour, text in ((slower, GREEN, "tau > dt"), (~slower, ORANGE, "tau < dt")):
            drive, accuracy = (part[name].transpose("curve", "interval") for name in ("cumulative_drive", "accuracy"))
            axes.plot(drive.values[chosen], accuracy.values[chosen], "o", color=colour, label=text)
        axes.axvline(1, color=RED, linewidth=1)
        axes.set(xscale="log", xlabel="cumulative drive", ylabel="test accuracy (%)", ylim=(0, 100))
        axes.set_title("Fig. 3c: all spintronic conditions, medians")
        axes.legend(loc="lower right")
        return {"time-scales": figure}


def cumulative_drive(network: WithReadout) -> jax.Array:
    """I dt with I = S <|W|> sqrt(fan-in) (Eq. 9), over existing synapses; the fan-in is their mean number a neuron."""
    substrate = layered(network)
    mask = substrate.connections.mask
    size = jnp.sum(abs(substrate.connections.existing().weights)) / mask.sum()
    fan_in = mask.sum() / substrate.connections.neurons
    return substrate.amplification.mean() * size * jnp.sqrt(fan_in) * substrate.interval
