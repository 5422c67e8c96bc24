"""How many connections does it take?"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from morphax._lazy import xr
from morphax.experiments.spintronic._network import NetworkConfig, median_band, percent
from morphax.experiments.spintronic.paper import PLOUET
from morphax.experiments.training import Trainer
from morphax.lab.blocks import Blocks, join_blocks
from morphax.lab.experiment import Claim, Experiment, Share, parameter
from morphax.lab.figures import BLUE, GREEN, RED, Figures, new_figure
from morphax.lab.progress import Progress, along
from morphax.learning.backprop import Backpropagation
from morphax.learning.history import History

VARIED = {
    "intralayer": lambda d: {"intralayer_density": d, "interlayer_density": 1.0},
    "interlayer": lambda d: {"intralayer_density": 1.0, "interlayer_density": d},
    "both": lambda d: {"intralayer_density": d, "interlayer_density": d},
}
CURVES = (0.5, 0.25, 0.1)  # global densities of Fig. 5
FEW_EPOCHS = (
    "40 epochs are few for sparse networks: with 100 (Fig. 5) those with 10 % of all connections have 88 % instead of "
    "78 %, those with 50 % 92 % instead of 89 % (spintronic/density)"
)
PART = {"units": "1", "long_name": "part of the connections that exist"}


def median(varied: str, density: float) -> Any:
    """Median accuracy over seeds."""
    return lambda d: float(d.accuracy.sel(varied=varied, density=density).median("seed"))


def gap(dataset: xr.Dataset, density: float, metric: str = "accuracy") -> float:
    """How much better training than test data are at the end of training: accuracy, or loss."""
    part = dataset.sel(overall=density).isel(epoch=-1).mean("seed")
    return float(abs(part[f"train_{metric}"] - part[f"test_{metric}"]))


class Density(Experiment):
    """Figs. 4 and 5: accuracy against the density of connections, and overfitting.

    Inter- or intralayer density varied with the other at 1, or both together; the network is thinned out at random
    before training. Trained as the entry "spintronic, ours" of spintronic/sequential-digits, which in these epochs
    comes further than the paper's schedule.
    """

    class Config(NetworkConfig):
        relaxation_time: float = parameter(11.3, "relaxation time 1 / damping rate", unit="ns", ge=1e-6, le=1e9)
        initial_scale: float = parameter(10.4, "initial weights, times +-1/sqrt(fan-in)", gt=0)
        learning_rate: float = parameter(0.383, "Adam's step at the start (inverse) or at most (cosine)", gt=0)
        schedule: Literal["inverse", "cosine"] = parameter("cosine", "as in spintronic/sequential-digits")
        seeds: int = parameter(5, "independent repetitions", ge=1, le=1000, extent=True)
        epochs: int = parameter(40, "passes over the training images, Fig. 4", ge=1)
        densities: tuple[Share, ...] = parameter((0.0, 0.1, 0.2, 0.3, 0.5, 1.0), "densities, Fig. 4", min_length=1)
        curve_epochs: int = parameter(100, "passes over the training images, Fig. 5", ge=1)

    name = "spintronic/density"
    quick = {"seeds": 1, "epochs": 4, "curve_epochs": 4, "layers": (16, 16), "densities": (0.0, 0.2, 1.0)}
    paper = PLOUET
    claims = (
        Claim.within("both at 50 % (%)", 90.28, median("both", 0.5), source="Sec. V", tolerance=3.0, item="density"),
        Claim.within("both at 30 % (%)", 85.42, median("both", 0.3), source="Sec. V", tolerance=3.0, item="density"),
        Claim.within(
            "both at 20 % (%)",
            77.78,
            median("both", 0.2),
            source="Sec. V",
            tolerance=3.0,
            item="density",
            cause="our settings come further, 92.4 against 87.0 % at 50 % (spintronic/sequential-digits), and five "
            "seeds scatter by 6.4 points here, by 1.3 at 30 % (spintronic/density)",
        ),
        Claim.within(
            "interlayer at 20 %, intralayer full (%)",
            87.22,
            median("interlayer", 0.2),
            source="Sec. V",
            tolerance=3.0,
            item="interlayer",
            cause=FEW_EPOCHS,
        ),
        Claim.at_least(
            "interlayer at 20 % as good as full (%)",
            median("interlayer", 1.0),
            median("interlayer", 0.2),
            source="Sec. V: without losing accuracy; full density of this run; ours: 2 points",
            item="interlayer",
            tolerance=2.0,
            cause=FEW_EPOCHS,
        ),
        Claim.at_least(
            "intralayer at 10 % as good as full (%)",
            median("intralayer", 1.0),
            median("intralayer", 0.1),
            source="Sec. V; full density of this run; ours: 2 points",
            item="intralayer",
            tolerance=2.0,
            cause=FEW_EPOCHS,
        ),
        Claim.at_most(
            "without interlayer connections nothing is learned (%)",
            15.0,
            median("interlayer", 0.0),
            source="Sec. V; ours: the number",
            item="without interlayer",
        ),
        Claim.at_least(
            "without intralayer connections accuracy remains high (%)",
            70.0,
            median("intralayer", 0.0),
            source="Fig. 4: about 76 drawn; ours: the number",
            item="without intralayer",
        ),
        Claim.at_most(
            "and is degraded (%)",
            median("intralayer", 1.0),
            median("intralayer", 0.0),
            source="Fig. 4; full density of this run; ours: 2 points",
            tolerance=-2.0,
            item="without intralayer",
        ),
        Claim.at_least(
            "runs vary more at higher densities: standard deviation at 100 % against 30 %, both (points)",
            lambda d: d.accuracy.sel(varied="both", density=0.3).std("seed", ddof=1),
            lambda d: d.accuracy.sel(varied="both", density=1.0).std("seed", ddof=1),
            source="Sec. V; the drawn bands say the opposite",
            item="variability",
        ),
        *(
            Claim.at_least(
                f"the optimum is at 50 %, not at {100 * other:g} % (%)",
                median("both", other),
                median("both", 0.5),
                source="Sec. V; that density of this run",
                item="optimum",
            )
            for other in (1.0, 0.3)
        ),
        Claim.at_most(
            "thinning out reduces overfitting: train minus test at 10 % against 50 % (points)",
            lambda d: gap(d, 0.5),
            lambda d: gap(d, 0.1),
            source="Appendix, Fig. 5",
            item="overfitting",
        ),
        Claim.at_most(
            "and at 25 % against 50 % (points)",
            lambda d: gap(d, 0.5),
            lambda d: gap(d, 0.25),
            source="Appendix, Fig. 5",
            item="overfitting",
        ),
        *(
            Claim.at_most(
                f"of the loss, test minus train at {100 * density:g} % against 50 % (nats)",
                lambda d: gap(d, 0.5, "loss"),
                lambda d, density=density: gap(d, density, "loss"),
                source="Appendix, Fig. 5b",
                item="overfitting",
            )
            for density in (0.1, 0.25)
        ),
    )

    def run(self, config: Config, *, key: PRNGKeyArray, progress: Progress) -> xr.Dataset:
        data_key, make_key, train_key = jax.random.split(key, 3)
        trainer = Trainer(train_key, progress)
        task = config.task(data_key)
        train, test = (task.train_inputs, task.train_targets), (task.test_inputs, task.test_targets)

        def trained(label: str, seeds: range, visits: int, **changes: Any) -> History:
            here = config.but(**changes)
            networks, watch = here.networks("spintronic", make_key, seeds), {"train": train, "test": test}
            numbers = {**here.training(train, visits), "watch": watch, "ensemble": seeds}
            return trainer.train(label, networks, Backpropagation(), train, **numbers).history

        def accuracy(label: str, changes: dict[str, float], seeds: range) -> xr.Dataset:
            last = trained(label, seeds, 1, **changes).watched("test")["accuracy"][-1]
            return xr.Dataset({"accuracy": percent(last, "test accuracy after the last epoch")})

        def curves(label: str, density: float, seeds: range) -> xr.Dataset:
            epochs = config.curve_epochs
            history = trained(label, seeds, epochs, epochs=epochs, **VARIED["both"](density))
            variables = {
                f"{data}_{metric}": (("seed", "epoch"), scale * history.watched(data)[metric].T, {"units": unit})
                for data in ("train", "test")
                for metric, (scale, unit) in {"accuracy": (100, "%"), "loss": (1, "nats")}.items()
            }
            return xr.Dataset(variables, {"epoch": 1 + np.arange(len(history.steps))})

        labels = {(varied, d): f"{varied} {d:g}" for varied in VARIED for d in config.densities}
        # All at 1 is the same network whatever is varied; it is trained once.
        labels |= {(varied, d): f"both {d:g}" for varied, d in labels if d == 1}
        # Two seeds with all epochs of a curve take about as long as five of the others.
        work: dict[str, Callable[[], xr.Dataset]] = {}
        work |= Blocks("seed", config.seeds, 5).split(
            {label: partial(accuracy, label, VARIED[varied](d)) for (varied, d), label in labels.items()}
        )
        work |= Blocks("seed", config.seeds, 2).split(
            {f"curve {d:g}": partial(curves, f"curve {d:g}", d) for d in CURVES}
        )
        parts = join_blocks("seed", progress.pieces(work))

        def by_density(varied: str) -> xr.Dataset:
            return along("density", {d: parts[labels[varied, d]] for d in config.densities}, PART)

        dataset = along("varied", {varied: by_density(varied) for varied in VARIED})
        overall = along("overall", {d: parts[f"curve {d:g}"] for d in CURVES})
        return dataset.merge(overall).assign_coords(seed=np.arange(config.seeds))

    def figures(self, dataset: xr.Dataset) -> Figures:
        density = new_figure(6, 4)
        axes = density.subplots()
        styles = {"intralayer": RED, "interlayer": GREEN, "both": "black"}
        for varied, colour in styles.items():
            median_band(axes, dataset.density, dataset.accuracy.sel(varied=varied), color=colour, label=varied)
        axes.set(xlabel="density of connections", ylabel="test accuracy (%)", ylim=(0, 100), title="Fig. 4")
        axes.legend(title="varied", loc="lower right")

        overfitting = new_figure(10, 4)
        left, right = overfitting.subplots(1, 2)
        for overall, colour in zip(CURVES, (BLUE, GREEN, RED), strict=True):
            part = dataset.sel(overall=overall).mean("seed")
            for axes, name in ((left, "accuracy"), (right, "loss")):
                axes.plot(part.epoch, part[f"train_{name}"], color=colour, label=f"{100 * overall:g} %, train")
                axes.plot(part.epoch, part[f"test_{name}"], "--", color=colour, label=f"{100 * overall:g} %, test")
        left.set(xlabel="epoch", ylabel="accuracy (%)", title="Fig. 5, mean over seeds")
        right.set(xlabel="epoch", ylabel="cross-entropy (nats)", yscale="log")
        left.legend(fontsize="small", ncols=3)
        return {"density": density, "overfitting": overfitting}
