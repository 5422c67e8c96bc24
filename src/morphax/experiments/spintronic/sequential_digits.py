"""Which digit was it? asked after the last pixel."""

from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
import xarray as xr
from jaxtyping import PRNGKeyArray
from matplotlib.figure import Figure

from morphax.experiments.spintronic._network import (
    Kind,
    NetworkConfig,
    accuracies,
    converged,
    curves,
    percent,
    train_networks,
)
from morphax.lab.experiment import Claim, Experiment, parameter
from morphax.lab.figures import BLUE, GREEN, ORANGE, RED, VIOLET
from morphax.lab.progress import Progress
from morphax.learning.ensemble import member
from morphax.substrates.imperfections import inference_energy
from morphax.tasks.base import Task


@dataclass(frozen=True)
class Entry:
    """A network and what differs from the configuration in its training."""

    kind: Kind
    changes: dict[str, Any] = field(default_factory=dict)


# All but the first as spintronic/tune found them (seed 0) on validation images, to three digits.
ENTRIES = {
    "spintronic, paper's settings": Entry("spintronic"),
    "spintronic, tuned": Entry(
        "spintronic",
        {"relaxation_time": 2.28, "learning_rate": 1.13, "learning_rate_decay": 11.5, "initial_scale": 2.71},
    ),
    "CTRNN, tuned": Entry(
        "CTRNN",
        {"relaxation_time": 3.10, "learning_rate": 0.593, "learning_rate_decay": 60.8, "initial_scale": 1.95},
    ),
    "spintronic, ours": Entry(
        "spintronic",
        {"schedule": "cosine", "relaxation_time": 11.3, "learning_rate": 0.383, "initial_scale": 10.4},
    ),
    "CTRNN, ours": Entry(
        "CTRNN", {"schedule": "cosine", "relaxation_time": 2.85, "learning_rate": 0.288, "initial_scale": 14.9}
    ),
}
PAPER, TUNED, CTRNN, OURS, OUR_CTRNN = ENTRIES


def mean(name: str, entry: str) -> Any:
    """Mean over seeds of a variable of an entry."""
    return lambda d: d[name].sel(entry=entry).mean("seed")


class SequentialDigits(Experiment):
    """Sec. III: 8 x 8 digits, one pixel a nanosecond, classified by three layers of 32 neurons.

    Each entry is trained twice: on all training images, judged after its last epoch (nothing was chosen) and, under a
    name of its own, at its best epoch on the test images; and on four fifths of them, judged at the epoch that was best
    on the held-out fifth. Every trained network is judged again with a converged integrator: a network can learn the
    errors of the one that it was trained with.
    """

    class Config(NetworkConfig):
        epochs: int = parameter(200, "passes with the inverse schedule", ge=1)
        cosine_epochs: int = parameter(100, "passes with the cosine schedule", ge=1)
        presentation: float = parameter(100.0, "duration of an image for the energy estimate", unit="ns", gt=0)

    name = "spintronic/sequential-digits"
    quick = {"seeds": 1, "epochs": 4, "cosine_epochs": 4, "layers": (16, 16)}
    claims = (
        Claim("spintronic, paper's settings: last epoch (%)", 89.83, mean("last", PAPER), "within", 2.91, "Sec. III"),
        Claim("spintronic, tuned: last epoch (%)", 89.83, mean("last", TUNED), "at least", 0.0, "Sec. III"),
        Claim("CTRNN, tuned: last epoch (%)", 89.00, mean("last", CTRNN), "within", 3.48, "Sec. III"),
        Claim("spintronic, ours: last epoch (%)", 89.83, mean("last", OURS), "at least", 0.0, "Sec. III"),
        Claim("CTRNN, ours: last epoch (%)", 89.00, mean("last", OUR_CTRNN), "at least", 0.0, "Sec. III"),
        Claim(
            "spintronic as good as CTRNN, both tuned (%)",
            mean("last", CTRNN),
            mean("last", TUNED),
            "at least",
            1.0,
            "Sec. III; CTRNN of this run",
        ),
        Claim(
            "spintronic as good as CTRNN, both ours (%)",
            mean("last", OUR_CTRNN),
            mean("last", OURS),
            "at least",
            1.0,
            "Sec. III; CTRNN of this run",
        ),
        *(
            Claim(
                f"{entry}: converged integrator changes nothing (points)",
                0.0,
                lambda d, e=entry: mean("converged", e)(d) - mean("last", e)(d),
                "within",
                0.5,
                "the same networks as trained",
            )
            for entry in ENTRIES
        ),
        Claim(
            "spintronic, ours, with a converged integrator (%)",
            mean("converged", OUR_CTRNN),
            mean("converged", OURS),
            "reported",
            0.0,
            "CTRNN, ours, with a converged integrator",
        ),
        *(
            Claim(f"{entry}: chosen on validation (%)", None, mean("selected", entry), "reported", 0.0, "fewer images")
            for entry in ENTRIES
        ),
        *(
            Claim(f"{entry}: best epoch on test (%)", None, mean("best_on_test", entry), "reported", 0.0, "optimistic")
            for entry in ENTRIES
        ),
        Claim("energy of an image (pJ)", 40.0, lambda d: d.energy, "within", 2.0, 'Sec. V: "about 40 pJ"'),
    )

    def run(self, config: Config, *, key: PRNGKeyArray, progress: Progress) -> xr.Dataset:
        data_key, held_key, make_key, train_key = jax.random.split(key, 4)
        task = config.task(data_key)
        held = config.held_out(task, held_key)
        work: dict[str, Any] = {}
        keys = (make_key, train_key)
        for name, entry in ENTRIES.items():
            here = config.but(**entry.changes)
            if here.schedule == "cosine":
                here = here.but(epochs=config.cosine_epochs)
            work[name] = lambda h=here, e=entry, n=name: _judged(h, e.kind, n, task, *keys, progress)
            work[f"{name}, validated"] = lambda h=here, e=entry, n=name: _validated(
                h, e.kind, n, task, held, *keys, progress
            )
        parts = progress.pieces(work)
        merged = [xr.merge(pair) for pair in zip(parts[::2], parts[1::2], strict=True)]
        dataset = xr.concat(merged, xr.Variable("entry", list(ENTRIES)), join="outer")
        network = member(config.networks("spintronic", make_key), 0)
        energy = inference_energy(network, config.presentation) * 1e12
        return dataset.assign(energy=((), energy, {"units": "pJ", "long_name": "of the spintronic network"}))

    def figures(self, dataset: xr.Dataset) -> dict[str, Figure]:
        figure = Figure(figsize=(10, 4))
        left, right = figure.subplots(1, 2, width_ratios=(3, 2))
        for place, (entry, colour) in enumerate(zip(ENTRIES, (RED, VIOLET, GREEN, ORANGE, BLUE), strict=True)):
            part = dataset.sel(entry=entry)
            curve = part.test_accuracy.dropna("epoch", how="all")
            left.plot(curve.epoch, curve.mean("seed"), color=colour, label=entry)
            low, high = (curve.quantile(q, "seed") for q in (0.0, 1.0))
            left.fill_between(curve.epoch, low, high, color=colour, alpha=0.15, linewidth=0)
            spread = np.linspace(-0.12, 0.12, part.sizes["seed"])
            right.plot(place + spread, part["last"], "o", color=colour, markersize=4)
            right.plot(place + spread, part.converged, "_", color="black", markersize=6)
            value, error = (89.83, 2.91) if ENTRIES[entry].kind == "spintronic" else (89.00, 3.48)
            right.errorbar(place + 0.28, value, error, fmt="s", color="grey", capsize=3, markersize=4)
        right.plot([], [], "o", color="grey", label="last epoch, each seed")
        right.plot([], [], "_", color="black", label="converged integrator")
        right.plot([], [], "s", color="grey", label="paper")
        left.set(xlabel="epoch", ylabel="test accuracy (%)", ylim=(40, 100), title="mean and range over seeds")
        left.legend(loc="lower right", fontsize="small")
        right.set_xticks(
            range(len(ENTRIES)),
            [entry.replace(", ", ",\n").replace("'s ", "'s\n") for entry in ENTRIES],
            fontsize="small",
        )
        right.set_ylabel("test accuracy (%)")
        right.legend(loc="lower left", fontsize="small")
        return {"sequential-digits": figure}


def _judged(
    config: NetworkConfig,
    kind: Kind,
    name: str,
    task: Task,
    make_key: PRNGKeyArray,
    train_key: PRNGKeyArray,
    progress: Progress,
) -> xr.Dataset:
    """Trained on all training images."""
    test = (task.test_inputs, task.test_targets)
    trained = train_networks(
        config,
        config.networks(kind, make_key),
        (task.train_inputs, task.train_targets),
        key=train_key,
        progress=progress,
        label=name,
        watch={"test": test},
    )
    curve = 100 * curves(trained, "test")["test accuracy"].T
    return xr.Dataset(
        {
            "test_accuracy": (("seed", "epoch"), curve, {"units": "%", "long_name": "test accuracy"}),
            "last": percent(curve[:, -1] / 100, "test accuracy after the last epoch"),
            "best_on_test": percent(curve.max(axis=1) / 100, "test accuracy at the epoch where it is best"),
            "converged": percent(
                accuracies(converged(trained.last), test), "after the last epoch, with a converged integrator"
            ),
        },
        {"seed": np.arange(config.seeds), "epoch": 1 + np.arange(curve.shape[1])},
    )


def _validated(
    config: NetworkConfig,
    kind: Kind,
    name: str,
    task: Task,
    held: Any,
    make_key: PRNGKeyArray,
    train_key: PRNGKeyArray,
    progress: Progress,
) -> xr.Dataset:
    """Trained on fewer images, taken at the epoch that was best on those held out."""
    trained = train_networks(
        config,
        config.networks(kind, make_key),
        held.train,
        key=train_key,
        progress=progress,
        label=f"{name}, validated",
        watch={"validation": held.validation},
        score=_validation_accuracy,
    )
    selected = accuracies(trained.best, (task.test_inputs, task.test_targets))
    return xr.Dataset({"selected": percent(selected, "test accuracy at the epoch that was best on validation images")})


def _validation_accuracy(watched: dict[str, Any]) -> Any:
    return watched["validation"]["accuracy"]
