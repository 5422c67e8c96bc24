"""Which network is better, where neither can learn the error of an integrator?"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from morphax._lazy import xr
from morphax.experiments.spintronic._network import NetworkConfig, accuracies, converged, percent
from morphax.experiments.spintronic.paper import PLOUET
from morphax.experiments.spintronic.sequential_digits import ENTRIES, OUR_CTRNN, OURS
from morphax.experiments.training import Trainer
from morphax.lab.blocks import Blocks, join_blocks
from morphax.lab.experiment import BEYOND, Claim, Experiment, Positive, parameter
from morphax.lab.figures import GREEN, RED, Figures, new_figure
from morphax.lab.progress import Progress, along
from morphax.learning.backprop import Backpropagation
from morphax.pytrees import count

KINDS = {"spintronic": ENTRIES[OURS], "CTRNN": ENTRIES[OUR_CTRNN]}
COLOURS = dict(zip(KINDS, (RED, GREEN), strict=True))


def ahead(dataset: xr.Dataset) -> tuple[float, float]:
    """The 95 % interval (Welch) of how much better the spintronic network is, in points."""
    from scipy import stats

    values = [dataset["last"].sel(kind=kind).values for kind in KINDS]
    interval = stats.ttest_ind(*values, equal_var=False).confidence_interval(0.95)
    return float(interval.low), float(interval.high)


def mean(name: str, kind: str) -> Callable[[xr.Dataset], float]:
    """Mean over seeds."""
    return lambda d: float(d[name].sel(kind=kind).mean("seed"))


class BesideCtrnn(Experiment):
    """Ours: the spintronic network and the CTRNN, both trained with short time steps, with as many parameters.

    Masks, synapses and readouts have the same numbers. Of each network the relaxation time and the learning rate are
    chosen among as many multiples of what `spintronic/tune` found for it, by the mean accuracy on training images that
    were held out, after the last epoch; networks of all seeds are then trained on all training images, and judged after
    the last epoch, also with a converged Runge-Kutta.
    """

    class Config(NetworkConfig):
        epochs: int = parameter(100, "passes over all training images", ge=1)
        longest_step: float = parameter(0.25, "longest time step of the integrator", unit="ns", gt=0)
        times: tuple[Positive, ...] = parameter((0.5, 1.0, 2.0), "of the relaxation time of a kind", min_length=1)
        rates: tuple[Positive, ...] = parameter((0.5, 1.0, 2.0), "of the learning rate of a kind", min_length=1)
        trial_epochs: int = parameter(50, "passes of a candidate", ge=1)
        trial_seeds: int = parameter(2, "networks of a candidate", ge=1)

    name = "spintronic/beside-ctrnn"
    quick = {
        "seeds": 2,
        "epochs": 4,
        "layers": (16, 16),
        "longest_step": 0.5,
        "rates": (1.0,),
        "times": (1.0, 2.0),
        "trial_epochs": 2,
    }
    paper = PLOUET
    claims = (
        Claim.at_least(
            "the spintronic network is better than the CTRNN (points): lower end of the 95 % interval",
            0.0,
            lambda d: ahead(d)[0],
            source="ours",
            item=BEYOND,
        ),
        Claim.reported("the same: upper end", lambda d: ahead(d)[1], source="ours", item=BEYOND),
        *(Claim.reported(f"{kind} (%)", mean("last", kind), source="ours", item=BEYOND) for kind in KINDS),
        *(
            Claim.within(
                f"{kind}: converged integrator changes nothing (points)",
                0.0,
                lambda d, kind=kind: mean("converged", kind)(d) - mean("last", kind)(d),
                source="the same networks as trained; ours: half a point",
                item=BEYOND,
                tolerance=0.5,
            )
            for kind in KINDS
        ),
        Claim.within(
            "trained parameters of the spintronic network over those of the CTRNN",
            1.0,
            lambda d: d.parameters.sel(kind="spintronic") / d.parameters.sel(kind="CTRNN"),
            source="equal by construction",
            item=BEYOND,
            tolerance=0.0,
        ),
        *(
            Claim.reported(
                f"{kind}: relaxation time chosen (ns)",
                lambda d, k=kind: d.chosen_time.sel(kind=k),
                source="ours",
                item=BEYOND,
            )
            for kind in KINDS
        ),
    )

    def run(self, config: Config, *, key: PRNGKeyArray, progress: Progress) -> xr.Dataset:
        data_key, held_key, make_key, train_key = jax.random.split(key, 4)
        task, trainer = config.task(data_key), Trainer(train_key, progress)
        held = config.held_out(task, held_key)
        points = list(itertools.product(config.times, config.rates))

        def settings(kind: str, time: float, rate: float) -> BesideCtrnn.Config:
            entry = config.but(**KINDS[kind].changes)
            return entry.but(relaxation_time=time * entry.relaxation_time, learning_rate=rate * entry.learning_rate)

        def candidate(kind: str, time: float, rate: float, seeds: range) -> xr.Dataset:
            here = settings(kind, time, rate).but(epochs=config.trial_epochs)
            history = trainer.train(
                _label(kind, time, rate),
                here.networks(KINDS[kind].kind, make_key, seeds),
                Backpropagation(),
                held.train,
                ensemble=seeds,
                watch={"validation": held.validation},
                **here.training(held.train, 1),
            ).history
            accuracy = history.watched("validation")["accuracy"][-1]
            return xr.Dataset({"validation": percent(accuracy, "accuracy on images held out")})

        def final(kind: str, time: float, rate: float, seeds: range) -> xr.Dataset:
            here, data = settings(kind, time, rate), (task.train_inputs, task.train_targets)
            test = task.test_inputs, task.test_targets
            networks = here.networks(KINDS[kind].kind, make_key, seeds)
            trained = trainer.train(
                f"all images, {_label(kind, time, rate)}",
                networks,
                Backpropagation(),
                data,
                ensemble=seeds,
                watch={"test": test},
                **here.training(data, 10),
            )
            accuracy = trained.history.watched("test")["accuracy"]
            return xr.Dataset(
                {
                    "accuracy": (("epoch", "seed"), 100 * accuracy, {"units": "%", "long_name": "test accuracy"}),
                    "last": percent(accuracy[-1], "test accuracy after the last epoch"),
                    "converged": percent(accuracies(converged(trained.last), test), "with a converged integrator"),
                    "parameters": ((), count(networks, "weight") // len(seeds), {"units": "1"}),
                },
                {"epoch": np.linspace(0, config.epochs, len(accuracy) + 1)[1:], "seed": list(seeds)},
            )

        trials, seeds = Blocks("seed", config.trial_seeds, config.trial_seeds), Blocks("seed", config.seeds, 5)
        candidates = trials.split({_label(kind, *p): partial(candidate, kind, *p) for kind in KINDS for p in points})
        finals = {
            (kind, point): seeds.split({f"all images, {_label(kind, *point)}": partial(final, kind, *point)})
            for kind in KINDS
            for point in points
        }
        work = candidates | {label: piece for pieces in finals.values() for label, piece in pieces.items()}
        tried = join_blocks("seed", progress.pieces(work, candidates))
        score = {place: float(tried[_label(place[0], *place[1])].validation.mean()) for place in finals}
        best = {kind: max(points, key=lambda point, kind=kind: score[kind, point]) for kind in KINDS}
        wanted = [label for kind in KINDS for label in finals[kind, best[kind]]]
        done = join_blocks("seed", progress.pieces(work, wanted))
        dataset = along("kind", dict(zip(KINDS, done.values(), strict=True)))
        trial = [[[score[kind, (time, rate)] for rate in config.rates] for time in config.times] for kind in KINDS]
        meaning = {"units": "%", "long_name": "accuracy on images held out, mean over networks"}
        times = [settings(kind, *best[kind]).relaxation_time for kind in KINDS]
        return dataset.assign(
            trial=(("kind", "time", "rate"), trial, meaning),
            chosen_time=("kind", times, {"units": "ns", "long_name": "relaxation time"}),
        ).assign_coords(time=list(config.times), rate=list(config.rates))

    def figures(self, dataset: xr.Dataset) -> Figures:
        figure = new_figure(10, 3.8)
        course, ends, trials = figure.subplots(1, 3, width_ratios=(3, 2, 3))
        for place, (kind, colour) in enumerate(COLOURS.items()):
            part = dataset.sel(kind=kind)
            course.plot(part.epoch, part.accuracy.mean("seed"), color=colour, label=kind)
            spread = np.linspace(-0.15, 0.15, part.sizes["seed"])
            ends.plot(place + spread, part["last"], "o", color=colour, markersize=4)
            ends.plot(place + spread, part.converged, "_", color="black")
            for rate, style in zip(part.rate.values, (":", "-", "--"), strict=False):
                label = f"{kind}, rate x {rate:g}"
                trials.plot(part.time, part.trial.sel(rate=rate), style, marker="o", color=colour, label=label)
        course.set(xlabel="epoch", ylabel="test accuracy (%), mean over seeds", title="all training images")
        ends.plot([], [], "_", color="black", label="converged integrator")
        ends.legend(fontsize="small")
        ends.set(ylabel="test accuracy (%), each seed", title="after the last epoch")
        ends.set_xticks(range(len(COLOURS)), list(COLOURS))
        trials.set(xlabel="relaxation time, of that of its kind", ylabel="accuracy on images held out (%)")
        trials.set(title="candidates, mean over networks")
        course.legend(fontsize="small")
        trials.legend(fontsize="x-small")
        return {"beside-ctrnn": figure}


def _label(kind: str, time: float, rate: float) -> str:
    return f"{kind}, time x {time:g}, rate x {rate:g}"
