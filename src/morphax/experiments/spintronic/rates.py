"""How fast may the input be, where the learning rate follows it?"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from morphax._lazy import xr
from morphax.experiments.spintronic._network import CLASSES, PAPER_TIME, PERCENT, NetworkConfig, median_band
from morphax.experiments.spintronic.paper import PLOUET
from morphax.experiments.spintronic.time_scales import CURVES, REFERENCE
from morphax.experiments.training import Trainer
from morphax.lab.blocks import Blocks
from morphax.lab.experiment import Claim, Experiment, Positive, parameter
from morphax.lab.figures import BLUE, GREEN, GREY, RED, Figures, new_figure
from morphax.lab.progress import Progress, along
from morphax.learning.backprop import Backpropagation
from morphax.learning.train import Data, DivergedError

KINDS = (REFERENCE, "CTRNN")
COLOURS = dict(zip(KINDS, (RED, GREEN), strict=True))
CHOSEN, FIXED = "chosen", "fixed"
FAN_IN = 32  # of a neuron, by Eq. 9


def median(how: str, kind: str, interval: float) -> Callable[[xr.Dataset], float]:
    """Median test accuracy over seeds."""
    return lambda d: float(d[how].sel(kind=kind, interval=interval).median("seed"))


def lag(how: str) -> Callable[[xr.Dataset], float]:
    """The largest deficit of the spintronic network's medians against those of the CTRNN."""

    def of(dataset: xr.Dataset) -> float:
        accuracy = dataset[how].median("seed")
        return float((accuracy.sel(kind="CTRNN") - accuracy.sel(kind=REFERENCE)).max())

    return of


def off_rule(dataset: xr.Dataset) -> xr.DataArray:
    """log10 of the chosen rate over a hundredth of 1 / (S sqrt(N) dt), at every interval."""
    return np.log10(dataset.chosen_rate.sel(kind=REFERENCE) / dataset.rule)


def shift(dataset: xr.Dataset) -> float:
    """Slope of log(chosen rate) over log(interval)."""
    rates = np.log10(dataset.chosen_rate.sel(kind=REFERENCE))
    return float(np.polyfit(np.log10(dataset.interval), rates, 1)[0])


class Rates(Experiment):
    """Sec. IV, Fig. 2b: accuracy against the time between two pixels, with a learning rate for each.

    Everything else stays as in `spintronic/time-scales`. Networks are trained at multiples of the printed rate on four
    fifths of the training images; the rate whose median on the others is best is chosen for each interval ("chosen"),
    beside the rate as printed ("fixed"). Whatever the choice, test images are looked at after the last epoch alone. The
    rule of Sec. IV is a hundredth of 1 / (dt S sqrt(N)). A network that diverges counts as one that guesses.
    """

    class Config(NetworkConfig):
        seeds: int = parameter(5, "independent repetitions", ge=1, le=1000, extent=True)
        epochs: int = parameter(40, "passes over the training images", ge=2)
        intervals: tuple[Positive, ...] = parameter(
            (0.1, 0.3, 0.4, 1.0, 2.5, 10.0), "times between two pixels", unit="ns", min_length=2
        )
        multiples: tuple[Positive, ...] = parameter(
            (0.1, 0.32, 1.0, 3.2, 10.0), "of the learning rate of a kind; 1 must be among them", min_length=1
        )

        def intervals_used(self) -> list[tuple[str, float]]:
            return [(f"intervals.{index}", interval) for index, interval in enumerate(self.intervals)]

    name = "spintronic/rates"
    quick = {"seeds": 2, "epochs": 4, "layers": (16, 16), "intervals": (0.4, 1.0), "multiples": (1.0, 3.2)}
    paper = PLOUET
    claims = (
        *(
            Claim.at_least(
                f"spintronic, rate {how}: {interval:g} ns against 1 ns (%)",
                median(how, REFERENCE, 1.0),
                median(how, REFERENCE, interval),
                source="Sec. IV: maintained from 0.4 to 2.5 ns; ours: 5 points",
                tolerance=5.0,
                item="range",
            )
            for how in (CHOSEN, FIXED)
            for interval in (0.4, 2.5)
        ),
        Claim.reported(
            "spintronic, rate chosen: accuracy at 0.3 ns (%)",
            median(CHOSEN, REFERENCE, 0.3),
            source="ours",
            item="range",
        ),
        *(
            Claim.at_most(
                f"rate {how}: largest lag behind the CTRNN (points)",
                5.0,
                lag(how),
                source="Sec. IV: here again as well as the CTRNN; ours: 5 points",
                item="ctrnn range",
            )
            for how in (CHOSEN, FIXED)
        ),
        *(
            Claim.at_most(
                f"spintronic, rate chosen, {interval:g} ns: accuracy against that at 1 ns (%)",
                lambda d: median(CHOSEN, REFERENCE, 1.0)(d),
                median(CHOSEN, REFERENCE, interval),
                source="Sec. IV: significantly degraded; ours: 20 points",
                tolerance=-20.0,
                item="beyond the range",
            )
            for interval in (0.1, 10.0)
        ),
        Claim.at_most(
            "faster inputs need higher rates: slope of the logarithms",
            0.0,
            shift,
            source="Sec. IV; ours: a tenth",
            tolerance=-0.1,
            item="learning rates",
        ),
        Claim.within(
            "chosen rate over the rule, log10, mean over intervals",
            0.0,
            lambda d: off_rule(d).mean(),
            source="Sec. IV: in the range of a hundredth; ours: half a decade",
            tolerance=0.5,
            item="rate rule",
        ),
        Claim.within(
            "the same at 1 ns",
            0.0,
            lambda d: off_rule(d).sel(interval=1.0),
            source="Sec. IV; ours: half a decade",
            tolerance=0.5,
            item="rate rule",
        ),
        Claim.reported(
            "the printed rate, 0.149, over the rule at 1 ns, S = 0.5 in units of the damping rate",
            lambda d: d.printed_rate.sel(kind=REFERENCE) / d.rule.sel(interval=1.0),
            source="Sec. III, IV",
            paper=1.0,
            item="rate rule",
        ),
        Claim.reported(
            "the same, S = 0.5 / ns, as it is printed",
            lambda d: PAPER_TIME * d.printed_rate.sel(kind=REFERENCE) / d.rule.sel(interval=1.0),
            source="Sec. II to IV",
            paper=1.0,
            item="rate rule",
        ),
    )

    def run(self, config: Config, *, key: PRNGKeyArray, progress: Progress) -> xr.Dataset:
        data_key, held_key, make_key, train_key = jax.random.split(key, 4)
        task, trainer = config.task(data_key), Trainer(train_key, progress)
        held = config.held_out(task, held_key)
        watch: dict[str, Data] = {"validation": held.validation, "test": (task.test_inputs, task.test_targets)}

        def trained(kind: str, interval: float, multiple: float, seeds: range) -> xr.Dataset:
            entry = CURVES[kind]
            here = config.but(interval=interval, **entry.changes)
            here = here.but(learning_rate=multiple * here.learning_rate)
            try:
                done = trainer.train(
                    f"{kind}, {interval:g} ns, rate x {multiple:g}",
                    here.networks(entry.kind, make_key, seeds),
                    Backpropagation(),
                    held.train,
                    ensemble=seeds,
                    watch=watch,
                    **here.training(held.train, 2),
                )
            except DivergedError:
                # At large rates networks of the CTRNN may diverge: such a one knows nothing, the others go on alone.
                if len(seeds) > 1:
                    alone = [trained(kind, interval, multiple, range(seed, seed + 1)) for seed in seeds]
                    return xr.concat(alone, "seed")
                scores = {name: np.array([100 / CLASSES]) for name in watch}
            else:
                scores = {name: 100 * done.history.watched(name)["accuracy"][-1] for name in watch}
            return xr.Dataset({name: ("seed", value, PERCENT) for name, value in scores.items()}, {"seed": list(seeds)})

        points = [(kind, dt, m) for kind in KINDS for dt in config.intervals for m in config.multiples]
        labels = {point: f"{point[0]}, {point[1]:g} ns, x {point[2]:g}" for point in points}
        seeds = Blocks("seed", config.seeds, 5)
        work: dict[str, Callable[[range], xr.Dataset]] = {labels[p]: partial(trained, *p) for p in points}
        parts = seeds.join(progress.pieces(seeds.split(work)))

        def of(kind: str, interval: float) -> xr.Dataset:
            tried = {m: parts[labels[kind, interval, m]] for m in config.multiples}
            return along("multiple", tried, {"units": "1", "long_name": "learning rate over that of the kind"})

        rows = {
            kind: along("interval", {dt: of(kind, dt) for dt in config.intervals}, {"units": "ns"}) for kind in KINDS
        }
        return self._chosen(config, along("kind", rows))

    def _chosen(self, config: Config, tried: xr.Dataset) -> xr.Dataset:
        """What was tried, with the choice, the printed rates and the rule."""
        best = tried.validation.median("seed").argmax("multiple")
        about = {"units": "1", "long_name": "learning rate"}
        printed = [config.but(**CURVES[kind].changes).learning_rate for kind in KINDS]
        rates = xr.DataArray(printed, {"kind": list(KINDS)}, ["kind"], attrs=about)
        rule = 0.01 / (config.amplification * FAN_IN**0.5 * tried.interval)
        chosen = tried.test.isel(multiple=best).drop_vars("multiple")
        return tried.assign(
            chosen=chosen.assign_attrs(PERCENT | {"long_name": "test accuracy, rate chosen on validation images"}),
            fixed=tried.test.sel(multiple=1.0, drop=True).assign_attrs(PERCENT | {"long_name": "test accuracy"}),
            chosen_rate=(tried.multiple[best] * rates).drop_vars("multiple").assign_attrs(about),
            printed_rate=rates,
            rule=rule.assign_attrs({"units": "1", "long_name": "a hundredth of 1 / (dt S sqrt(N))"}),
        )

    def figures(self, dataset: xr.Dataset) -> Figures:
        figure = new_figure(9, 3.8)
        left, right = figure.subplots(1, 2)
        for kind, colour in COLOURS.items():
            median_band(left, dataset.interval, dataset.chosen.sel(kind=kind), color=colour, label=f"{kind}, chosen")
            fixed = dataset.fixed.sel(kind=kind).median("seed")
            left.plot(dataset.interval, fixed, ":", color=colour, label=f"{kind}, as printed")
            right.plot(dataset.interval, dataset.chosen_rate.sel(kind=kind), "o-", color=colour, label=kind)
        right.plot(dataset.interval, dataset.rule, "--", color=BLUE, label=r"$0.01 / (\Delta t\, S \sqrt{N})$")
        right.axhline(float(dataset.printed_rate.sel(kind=REFERENCE)), color=GREY, linewidth=0.8, label="printed")
        left.set(xscale="log", xlabel="time between two pixels (ns)", ylabel="test accuracy (%), median", ylim=(0, 100))
        right.set(xscale="log", yscale="log", xlabel="time between two pixels (ns)", ylabel="learning rate chosen")
        for axes in (left, right):
            axes.legend(fontsize="x-small")
        return {"rates": figure}
