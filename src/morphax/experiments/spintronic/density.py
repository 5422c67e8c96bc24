"""How many connections does it take?"""

from typing import Any, Literal

import jax
import numpy as np
import xarray as xr
from jaxtyping import PRNGKeyArray
from matplotlib.figure import Figure

from morphax.experiments.spintronic._network import NetworkConfig, curves, median_band, train_networks
from morphax.lab.experiment import Claim, Experiment, parameter
from morphax.lab.figures import BLUE, GREEN, RED
from morphax.lab.progress import Progress
from morphax.tasks.base import Task

VARIED = {
    "intralayer": lambda d: {"intralayer_density": d, "interlayer_density": 1.0},
    "interlayer": lambda d: {"intralayer_density": 1.0, "interlayer_density": d},
    "both": lambda d: {"intralayer_density": d, "interlayer_density": d},
}
CURVES = (0.5, 0.25, 0.1)  # global densities of Fig. 5


def median(varied: str, density: float) -> Any:
    """Median accuracy over seeds."""
    return lambda d: float(d.accuracy.sel(varied=varied, density=density).median("seed"))


def gap(dataset: xr.Dataset, density: float) -> float:
    """Training minus test accuracy at the end of training."""
    part = dataset.sel(overall=density).isel(epoch=-1).mean("seed")
    return float(part.train_accuracy - part.test_accuracy)


class Density(Experiment):
    """Figs. 4 and 5: accuracy against the density of connections, and overfitting.

    Inter- or intralayer density varied with the other at 1, or both together; the network is thinned out at random
    before training. Trained as the entry "spintronic, ours" of spintronic/sequential-digits, which in these epochs
    comes further than the paper's schedule.
    """

    class Config(NetworkConfig):
        relaxation_time: float = parameter(11.3, "relaxation time 1 / damping rate", unit="ns", gt=0)
        initial_scale: float = parameter(10.4, "initial weights, times +-1/sqrt(fan-in)", gt=0)
        learning_rate: float = parameter(0.383, "Adam's step at the start (inverse) or at most (cosine)", gt=0)
        schedule: Literal["inverse", "cosine"] = parameter("cosine", "as in spintronic/sequential-digits")
        seeds: int = parameter(5, "independent repetitions", ge=1, le=1000)
        epochs: int = parameter(40, "passes over the training images, Fig. 4", ge=1)
        densities: tuple[float, ...] = parameter((0.0, 0.1, 0.2, 0.3, 0.5, 1.0), "densities, Fig. 4", min_length=1)
        curve_epochs: int = parameter(100, "passes over the training images, Fig. 5", ge=1)

    name = "spintronic/density"
    quick = {"seeds": 1, "epochs": 4, "curve_epochs": 4, "layers": (16, 16), "densities": (0.0, 0.2, 1.0)}
    claims = (
        Claim.within("both at 50 % (%)", 90.28, median("both", 0.5), source="Sec. V", tolerance=3.0),
        Claim.within("both at 30 % (%)", 85.42, median("both", 0.3), source="Sec. V", tolerance=3.0),
        Claim.within("both at 20 % (%)", 77.78, median("both", 0.2), source="Sec. V", tolerance=3.0),
        Claim.within(
            "interlayer at 20 %, intralayer full (%)", 87.22, median("interlayer", 0.2), source="Sec. V", tolerance=3.0
        ),
        Claim.at_least(
            "intralayer at 10 % as good as full (%)",
            median("intralayer", 1.0),
            median("intralayer", 0.1),
            source="Sec. V; full density of this run",
            tolerance=2.0,
        ),
        Claim.at_most(
            "without interlayer connections nothing is learned (%)", 15.0, median("interlayer", 0.0), source="Sec. V"
        ),
        Claim.at_least(
            "the optimum is at 50 %, not at 100 % (%)",
            median("both", 1.0),
            median("both", 0.5),
            source="Sec. V; full density of this run",
        ),
        Claim.at_most(
            "thinning out reduces overfitting: train minus test at 10 % against 50 % (points)",
            lambda d: gap(d, 0.5),
            lambda d: gap(d, 0.1),
            source="Appendix, Fig. 5",
        ),
    )

    def run(self, config: Config, *, key: PRNGKeyArray, progress: Progress) -> xr.Dataset:
        data_key, make_key, train_key = jax.random.split(key, 3)
        task = config.task(data_key)

        def point(label: str, visits: int, **changes: Any) -> dict[str, np.ndarray]:
            return _trained(config.but(**changes), label, visits, task, make_key, train_key, progress)

        # Both at 1 is the same network in all three; it is trained once.
        places = [(v, d) for v in VARIED for d in config.densities if d < 1 or v == "both"]
        work: dict[str, Any] = {}
        for varied, density in places:
            label = f"{varied} {density:g}"
            work[label] = lambda name=label, v=varied, d=density: xr.Dataset(
                {"accuracy": ("seed", 100 * point(name, 1, **VARIED[v](d))["test accuracy"][-1])}
            )
        for density in CURVES:
            label = f"curve {density:g}"
            work[label] = lambda name=label, d=density: _as_curves(
                point(name, config.curve_epochs, epochs=config.curve_epochs, **VARIED["both"](d))
            )
        parts = dict(zip(work, progress.pieces(work), strict=True))
        parts |= {f"{varied} 1": parts["both 1"] for varied in VARIED if "both 1" in parts}
        rows = [
            xr.concat(
                [parts[f"{v} {d:g}"] for d in config.densities],
                xr.Variable("density", list(config.densities)),
            )
            for v in VARIED
        ]
        dataset = xr.concat(rows, xr.Variable("varied", list(VARIED)))
        dataset.accuracy.attrs = {"units": "%", "long_name": "test accuracy after the last epoch"}
        dataset.density.attrs = {"units": "1", "long_name": "part of the connections that exist"}
        overall = xr.concat([parts[f"curve {d:g}"] for d in CURVES], xr.Variable("overall", list(CURVES)))
        return dataset.merge(overall).assign_coords(seed=np.arange(config.seeds))

    def figures(self, dataset: xr.Dataset) -> dict[str, Figure]:
        density = Figure(figsize=(6, 4))
        axes = density.subplots()
        styles = {"intralayer": RED, "interlayer": GREEN, "both": "black"}
        for varied, colour in styles.items():
            median_band(axes, dataset.density, dataset.accuracy.sel(varied=varied), color=colour, label=varied)
        axes.set(xlabel="density of connections", ylabel="test accuracy (%)", ylim=(0, 100), title="Fig. 4")
        axes.legend(title="varied", loc="lower right")

        overfitting = Figure(figsize=(10, 4))
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


def _trained(
    config: NetworkConfig,
    label: str,
    visits: int,
    task: Task,
    make_key: PRNGKeyArray,
    train_key: PRNGKeyArray,
    progress: Progress,
) -> dict[str, np.ndarray]:
    train, test = (task.train_inputs, task.train_targets), (task.test_inputs, task.test_targets)
    trained = train_networks(
        config,
        config.networks("spintronic", make_key),
        train,
        key=train_key,
        progress=progress,
        label=label,
        watch={"train": train, "test": test},
        visits=visits,
    )
    return curves(trained, "train", "test")


def _as_curves(metrics: dict[str, np.ndarray]) -> xr.Dataset:
    """Accuracy and loss of both sets against epochs."""
    scale = {"accuracy": (100, "%"), "loss": (1, "nats")}
    variables = {
        name.replace(" ", "_"): (
            ("seed", "epoch"),
            scale[name.split()[1]][0] * values.T,
            {"units": scale[name.split()[1]][1]},
        )
        for name, values in metrics.items()
    }
    return xr.Dataset(variables, {"epoch": 1 + np.arange(len(metrics["test loss"]))})
