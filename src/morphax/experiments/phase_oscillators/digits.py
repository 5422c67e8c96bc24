"""Can coupled phase oscillators read digits?"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, PRNGKeyArray
from matplotlib.figure import Figure

from morphax._optional import needed
from morphax.experiments.phase_oscillators._training import EquilibriumConfig, optimiser
from morphax.lab.experiment import Claim, Experiment, parameter
from morphax.lab.figures import BLUE, GREEN, ORANGE, RED
from morphax.lab.progress import Progress
from morphax.learning.ensemble import make_members, map_members
from morphax.learning.equilibrium import EquilibriumPropagation, phase_classification
from morphax.learning.rule import Metrics
from morphax.learning.train import Data, History, train
from morphax.pytrees import count
from morphax.substrates.phase_oscillators import PhaseOscillators
from morphax.tasks import Task, hold_out, phase_digits

COLOURS = (BLUE, ORANGE, GREEN, RED)
SNAPSHOTS = (10, 50, 100, 1000)  # iterations of the confusion matrices


class Size(NamedTuple):
    """A row of Tables I and II: units and parameters of both networks, best test accuracies of all four models."""

    hidden: int
    parameters: int
    layered: float
    units: int
    dense_parameters: int
    dense: float
    ann: float
    linear: float


PAPER = (
    Size(20, 1540, 91.9, 85, 1596, 93.3, 94.3, 90.4),
    Size(100, 7620, 92.7, 139, 7725, 92.7, 95.0, 90.3),
    Size(200, 15220, 94.1, 185, 15246, 92.4, 95.0, 90.7),
    Size(300, 22820, 93.7, 222, 22831, 92.9, 95.1, 90.7),
)


def at(variable: str, structure: str, row: int) -> Any:
    """Mean over seeds, KeyError where a run has left the size out."""
    return lambda d: float(d[variable].sel(structure=structure, row=row).mean("seed"))


def of_row(row: int) -> list[Claim]:
    """What Tables I and II print of one size, and what came out honestly."""
    size = PAPER[row]
    layered, dense, ann = f"64-{size.hidden}-10", f"all-to-all {size.units}", f"perceptron 64-{size.hidden}-10"
    best, honest = "best test accuracy (%)", "validated test accuracy (%)"
    return [
        Claim(f"{layered}: parameters", size.parameters, at("parameters", "layered", row), "within", 0.0, "Tab. I"),
        Claim(
            f"{dense}: parameters", size.dense_parameters, at("parameters", "all-to-all", row), "within", 0.0, "Tab. I"
        ),
        Claim(f"{layered}: {best}", size.layered, at("best", "layered", row), "within", 1.5, "Tab. II"),
        Claim(f"{dense}: {best}", size.dense, at("best", "all-to-all", row), "within", 1.5, "Tab. II"),
        Claim(f"{ann}: {best}", size.ann, at("best", "ANN", row), "within", 1.5, "Tab. II"),
        Claim(f"{layered}: {honest}", None, at("validated", "layered", row), "reported", 0.0, "ours"),
        Claim(f"{dense}: {honest}", None, at("validated", "all-to-all", row), "reported", 0.0, "ours"),
    ]


class Digits(Experiment):
    """Fig. 4, Tables I and II: layered and all-to-all networks of four sizes learn digits of 8 x 8 pixels.

    Test accuracy is watched every 10 iterations. "best" is its highest value, as the paper reports; "last" that after
    the last iteration; "validated" that of a second training, on four fifths of the training images, at the iteration
    that was best on the other fifth, of equals the first. The perceptron and the linear classifier are those of
    scikit-learn (extra `sklearn`).
    """

    class Config(EquilibriumConfig):
        tolerance: float = parameter(1e-3, "largest force that counts as rest", gt=0)
        seeds: int = parameter(2, "networks of each kind and size", ge=1)
        learning_rate: float = parameter(0.03, "eta (not printed for the digits)", gt=0)
        iterations: int = parameter(1000, "updates", ge=5)
        batch_size: int = parameter(300, "images in an update", ge=1)
        every: Literal[1, 2, 5, 10] = parameter(10, "updates between two tests")
        rows: tuple[int, ...] = parameter((0, 1, 2, 3), "which of the four sizes", min_length=1)
        train_per_class: int = parameter(100, "images of each digit to train with", ge=2, le=170)
        test_per_class: int = parameter(70, "images of each digit to test with", ge=1, le=173)
        validation_fraction: float = parameter(0.2, "part of the training images held out", gt=0, lt=1)

    name = "phase-oscillators/digits"
    quick = {
        "seeds": 1,
        "iterations": 50,
        "batch_size": 31,
        "rows": (0,),
        "sweeps": 60,
        "train_per_class": 20,
        "test_per_class": 10,
    }
    claims = (
        *(claim for row in range(4) for claim in of_row(row)),
        Claim("linear classifier: test accuracy (%)", 90.4, at("best", "linear", 0), "within", 1.5, "Tab. II"),
    )

    def run(self, config: Config, *, key: PRNGKeyArray, progress: Progress) -> xr.Dataset:
        needed("sklearn", "sklearn")  # refuses before anything is trained
        task = phase_digits(config.train_per_class, config.test_per_class)
        held_key, layered_key, dense_key = jax.random.split(key, 3)
        work: dict[str, Any] = {}
        for row in config.rows:
            size = PAPER[row]

            def layered(k: PRNGKeyArray, size: Size = size) -> PhaseOscillators:
                return PhaseOscillators.layered((64, size.hidden, 10), key=k)

            def dense(k: PRNGKeyArray, size: Size = size) -> PhaseOscillators:
                return PhaseOscillators.all_to_all(64, size.units - 74, 10, key=k)

            for name, make, base in (("layered", layered, layered_key), ("all-to-all", dense, dense_key)):
                work[f"{name} {row}"] = lambda m=make, n=f"{name} {row}", k=base, r=row: _oscillators(
                    config, m, task, jax.random.fold_in(k, r), held_key, progress, n
                )
            work[f"benchmarks {row}"] = lambda s=size, k=row: _benchmarks(config, s, task)
        parts = dict(zip(work, progress.pieces(work), strict=True))
        rows = xr.Variable("row", list(config.rows))
        kinds = xr.Variable("structure", ["layered", "all-to-all"])
        oscillators = xr.concat(
            [xr.concat([parts[f"{k} {r}"] for r in config.rows], rows) for k in kinds.values], kinds
        )
        software = xr.concat([parts[f"benchmarks {r}"] for r in config.rows], rows)
        together = xr.concat([oscillators[["best"]], software[["best"]]], "structure")
        dataset = oscillators.drop_vars("best").merge(together, join="outer")
        for name in ("best", "last", "validated", "accuracy"):
            dataset[name].attrs = {"units": "%", "long_name": "test accuracy"}
        return dataset

    def figures(self, dataset: xr.Dataset) -> dict[str, Figure]:
        curves = Figure(figsize=(10, 3.8))
        for axes, kind in zip(curves.subplots(1, 2, sharey=True), ("layered", "all-to-all"), strict=True):
            for row, colour in zip(dataset.row.values, COLOURS, strict=False):
                part = 100 - dataset.accuracy.sel(structure=kind, row=row)
                label = f"64-{PAPER[row].hidden}-10" if kind == "layered" else f"{PAPER[row].units} units"
                axes.semilogy(part.iteration, part.mean("seed"), color=colour, label=label)
                axes.fill_between(
                    part.iteration, part.min("seed"), part.max("seed"), color=colour, alpha=0.2, linewidth=0
                )
            axes.set_yticks([5, 10, 20, 50], ["5", "10", "20", "50"])
            axes.minorticks_off()
            axes.set(xlabel="iteration", title=f"Fig. 4b: {kind}")
            axes.legend(fontsize="small")
        curves.axes[0].set_ylabel("test error (%)")

        rows = len(dataset.row) * 2
        confusion = Figure(figsize=(9, 1.8 * rows))
        grid = np.atleast_2d(confusion.subplots(rows, dataset.sizes["snapshot"], sharex=True, sharey=True))
        for line, (kind, row) in zip(
            grid, [(k, r) for k in ("layered", "all-to-all") for r in dataset.row.values], strict=True
        ):
            for axes, snapshot in zip(line, dataset.snapshot.values, strict=True):
                axes.imshow(
                    dataset.confusion.sel(structure=kind, row=row, snapshot=snapshot), vmin=0, vmax=1, cmap="viridis"
                )
                axes.set_title(f"{snapshot} iterations", fontsize="x-small")
                axes.grid(False)
            name = PAPER[row].hidden if kind == "layered" else PAPER[row].units
            line[0].set_ylabel(f"{kind}\n{name}", fontsize="x-small")
        return {"digits": curves, "confusion": confusion}


class _Tested(EquilibriumPropagation):
    """Equilibrium propagation that also counts which digit is taken for which, of watched images only."""

    def metrics(self, substrate: Any, inputs: Array, targets: Array, *, key: PRNGKeyArray) -> Metrics:
        return EquilibriumPropagation.metrics(replace(self, measure=_confusion), substrate, inputs, targets, key=key)


def _confusion(outputs: Array, targets: Array) -> Metrics:
    """Share of every answer among the images of a digit: (digit, answer)."""
    true, answered = (jax.nn.one_hot(jnp.argmax(jnp.sin(phases), -1), 10) for phases in (targets, outputs))
    shares = true.T @ answered / jnp.maximum(jnp.sum(true, 0), 1)[:, None]
    return phase_classification(outputs, targets) | {"confusion": shares}


def _oscillators(
    config: "Digits.Config",
    make: Callable[[PRNGKeyArray], PhaseOscillators],
    task: Task,
    key: PRNGKeyArray,
    held_key: PRNGKeyArray,
    progress: Progress,
    name: str,
) -> xr.Dataset:
    make_key, train_key, judge_key = jax.random.split(key, 3)
    networks = make_members(make, make_key, config.seeds)
    test = (task.test_inputs, task.test_targets)
    held = hold_out(task.train_inputs, task.train_targets, config.validation_fraction, key=held_key)

    def trained(rule: EquilibriumPropagation, data: Data, watch: dict[str, Data], label: str) -> History:
        return train(
            networks,
            rule,
            data,
            optimiser("sgd", config.learning_rate, config.iterations),
            config.iterations,
            key=train_key,
            batch_size=min(config.batch_size, len(data[0])),
            watch=watch,
            ensemble=True,
            chunk=config.every,
            checkpoint=progress.checkpoint(f"{name} {label}"),
        ).history

    rule = config.rule(phase_classification, kind=_Tested)
    history = trained(rule, (task.train_inputs, task.train_targets), {"test": test}, "all")
    chosen = trained(
        config.rule(phase_classification), held.train, {"validation": held.validation, "test": test}, "held out"
    )
    untrained = map_members(eqx.Partial(_judged, rule, test), networks, jax.random.split(judge_key, config.seeds))
    visits = np.arange(config.every - 1, config.iterations, config.every)
    accuracy = 100 * np.array([history[i]["test"]["accuracy"] for i in visits])
    validation, tested = (np.array([chosen[i][n]["accuracy"] for i in visits]) for n in ("validation", "test"))
    first = np.argmax(validation, axis=0)
    matrices = [untrained["confusion"]] + [
        history[s - 1]["test"]["confusion"] for s in SNAPSHOTS if s <= config.iterations
    ]
    return xr.Dataset(
        {
            "accuracy": (("iteration", "seed"), accuracy),
            "best": ("seed", accuracy.max(0)),
            "last": ("seed", accuracy[-1]),
            "validated": ("seed", 100 * tested[first, np.arange(config.seeds)]),
            "parameters": ("seed", np.full(config.seeds, count(networks, "weight") / config.seeds), {"units": "1"}),
            "unconverged": (
                (),
                np.mean([row["unconverged"] for row in history]),
                {"units": "1", "long_name": "share of relaxations"},
            ),
            "confusion": (("snapshot", "true", "answered"), np.array(matrices)[:, 0], {"units": "1"}),
        },
        {
            "iteration": visits + 1,
            "seed": np.arange(config.seeds),
            "snapshot": [0, *(s for s in SNAPSHOTS if s <= config.iterations)],
        },
    )


@eqx.filter_jit
def _judged(rule: EquilibriumPropagation, data: Data, network: PhaseOscillators, key: PRNGKeyArray) -> Metrics:
    return rule.metrics(network, *data, key=key)


def _benchmarks(config: "Digits.Config", size: Size, task: Task) -> xr.Dataset:
    """The paper's comparisons (App. B): a perceptron with one hidden layer, best of 100 epochs, and a linear model."""
    inputs, test = np.asarray(task.train_inputs, float), np.asarray(task.test_inputs, float)
    labels, answers = (np.argmax(np.asarray(t), -1) for t in (task.train_targets, task.test_targets))
    best = np.zeros((2, config.seeds))
    linear = needed("sklearn.linear_model", "sklearn").RidgeClassifier(alpha=1e-6, solver="svd").fit(inputs, labels)
    best[1] = 100 * linear.score(test, answers)
    perceptrons = needed("sklearn.neural_network", "sklearn")
    for seed in range(config.seeds):
        perceptron = perceptrons.MLPClassifier((size.hidden,), activation="logistic", random_state=seed)
        perceptron.set_params(batch_size=10)
        scores = []
        for _ in range(100 if config.iterations > 100 else 10):
            perceptron.partial_fit(inputs, labels, classes=np.arange(10))
            scores.append(perceptron.score(test, answers))
        best[0, seed] = 100 * max(scores)
    return xr.Dataset(
        {"best": (("structure", "seed"), best)}, {"structure": ["ANN", "linear"], "seed": np.arange(config.seeds)}
    )
