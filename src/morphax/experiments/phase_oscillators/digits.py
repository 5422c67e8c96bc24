"""Can coupled phase oscillators read digits?"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray
from pydantic import Field, model_validator

from morphax._lazy import xr
from morphax._optional import needed
from morphax.experiments.phase_oscillators._claims import (
    PAPER,
    Size,
    at,
    best,
    of_perceptron,
    of_row,
    right_after_50,
    spread_until_80,
    trend,
    until_80,
)
from morphax.experiments.phase_oscillators._training import SMALL, DigitsConfig, check_held_out
from morphax.experiments.phase_oscillators.paper import WANG
from morphax.experiments.training import Trainer, judged
from morphax.lab.blocks import Blocks
from morphax.lab.experiment import Claim, Experiment, Proof, parameter
from morphax.lab.figures import BLUE, GREEN, ORANGE, RED, Figures, mean_and_range, new_figure
from morphax.lab.progress import Progress, along
from morphax.learning.ensemble import make_members, map_members, member_keys
from morphax.learning.equilibrium import EquilibriumPropagation, phase_classification
from morphax.learning.history import History
from morphax.learning.rule import Metrics
from morphax.learning.train import Data
from morphax.pytrees import count
from morphax.tasks import Task, hold_out

COLOURS = (BLUE, ORANGE, GREEN, RED)
ONE_IMAGE = (
    "0.14 points or less are one image of 700, and two seeds of a size differ by up to 1.6 points "
    "(phase-oscillators/digits)"
)
SNAPSHOTS = (10, 50, 100, 1000)  # iterations of the confusion matrices
STRUCTURES = ("layered", "all-to-all")


class Digits(Experiment):
    """Fig. 4, Tables I and II: layered and all-to-all networks of four sizes learn digits of 8 x 8 pixels.

    Test accuracy is watched every 10 iterations (the paper: every 5). "best" is its highest value, as the paper
    reports; "last" that after the last iteration; "validated" that of a second training, on four fifths of the training
    images, at the iteration that was best on the other fifth, of equals the first. The perceptron and the linear
    classifier are those of scikit-learn (extra `estimators`).
    """

    class Config(DigitsConfig):
        learning_rate: float = parameter(0.03, "eta (not printed for the digits)", gt=0)
        batch_size: int = parameter(300, "images in an update", ge=1)
        rows: tuple[Annotated[int, Field(ge=0, le=3)], ...] = parameter(
            (0, 1, 2, 3), "which of the four sizes", min_length=1
        )
        validation_fraction: float = parameter(0.2, "part of the training images held out", gt=0, lt=1)

        def largest_couplings(self) -> int:
            return max(PAPER[row].units ** 2 // 2 for row in self.rows)

        @model_validator(mode="after")
        def _some_are_held_out(self) -> Self:
            check_held_out(self, 10 * self.train_per_class)
            return self

    name = "phase-oscillators/digits"
    quick = SMALL | {"iterations": 50, "rows": (0,)}
    paper = WANG
    claims = (
        *(claim for row in range(4) for claim in of_row(row)),
        Claim.within(
            "perceptron 64-20-10: parameters",
            1540,
            lambda d: of_perceptron(PAPER[0].hidden),
            source="App. B: the number of parameters matched that of layers",
            tolerance=0.0,
            item="same parameters",
            proof=Proof(
                best=of_perceptron(PAPER[0].hidden),
                place="a neuron has one bias, an oscillator two numbers, h and psi: 64 x 20 + 20 x 10 + 30 is 1,510",
            ),
        ),
        *(
            Claim.at_least(
                f"the best {kind} network is better than linear classifiers (%)",
                best("linear"),
                best(kind),
                source="Sec. III B; linear classifier of this run",
                item="between",
            )
            for kind in ("layered", "all-to-all")
        ),
        *(
            Claim.at_most(
                f"the best {kind} network is no better than artificial networks (%)",
                best("ANN"),
                best(kind),
                source="Sec. III B; perceptron of this run",
                item="between",
            )
            for kind in ("layered", "all-to-all")
        ),
        Claim.at_least(
            "layers gain by size: 200 hidden units against 20 (%)",
            at("best", "layered", 0),
            at("best", "layered", 2),
            source="Sec. III B",
            item="layered size",
        ),
        Claim.at_most(
            "and lose again: 300 hidden units against 200 (%)",
            at("best", "layered", 2),
            at("best", "layered", 3),
            source="Sec. III B",
            item="layered size",
            cause=ONE_IMAGE,
        ),
        Claim.at_most(
            "all-to-all networks stay as they are: best less worst of four sizes (points)",
            1.5,
            lambda d: np.ptp([at("best", "all-to-all", row)(d) for row in range(4)]),
            source="Sec. III B; 0.9 printed; ours: 1.5 points",
            item="all-to-all size",
        ),
        Claim.at_most(
            "with a drop from 11 to 75 hidden units (%)",
            at("best", "all-to-all", 0),
            at("best", "all-to-all", 1),
            source="Sec. III B",
            item="all-to-all size",
        ),
        Claim.at_least(
            "all-to-all networks are best with 11 hidden units: against the best of other sizes (%)",
            lambda d: max(at("best", "all-to-all", row)(d) for row in (1, 2, 3)),
            at("best", "all-to-all", 0),
            source="Sec. III B, Tab. II; other sizes of this run",
            item="all-to-all best",
            cause=ONE_IMAGE,
        ),
        Claim.at_most(
            "layers learn faster the larger they are: iterations until 80 %, 200 hidden units against 20",
            until_80("layered", 0),
            until_80("layered", 2),
            source="Fig. 4b, c",
            item="layered speed",
        ),
        Claim.within(
            "and not above 200: iterations until 80 % of 300 hidden units over those of 200",
            1.0,
            lambda d: until_80("layered", 3)(d) / until_80("layered", 2)(d),
            source="Fig. 4b, c; ours: the number",
            item="layered speed",
            tolerance=0.3,
            cause="20 iterations against 30 are one look, every 10 iterations (phase-oscillators/digits)",
        ),
        Claim.at_most(
            "curves of all-to-all networks almost overlap: most iterations until 80 % over fewest",
            1.5,
            spread_until_80("all-to-all"),
            source="Fig. 4b, c; ours: the number",
            item="all-to-all speed",
        ),
        Claim.at_least(
            "the speed of layers depends more on the size: most iterations until 80 % over fewest, against all-to-all",
            spread_until_80("all-to-all"),
            spread_until_80("layered"),
            source="Sec. III B: more sensitive; all-to-all networks of this run",
            tolerance=-1e-9,
            item="sensitivity",
        ),
        Claim.at_least(
            "clear influence on layers: what twice the parameters change after 50 iterations, lower end (points)",
            0.0,
            trend("layered"),
            source="Sec. III B, Fig. 4d; 95 % interval of a straight line, four sizes, two seeds",
            item="sensitivity",
        ),
        Claim.at_most(
            "negligible on all-to-all networks: the same",
            0.0,
            trend("all-to-all"),
            source="Sec. III B, Fig. 4d; the interval holds 0",
            item="sensitivity",
        ),
        *(
            Claim.at_least(
                f"{what} with {parameters:,} parameters are faster after 50 iterations (%)",
                right_after_50(other, row),
                right_after_50(kind, row),
                source="Fig. 4d: diagonal of the confusion matrix; the others of this run",
                item="confusion",
            )
            for what, kind, other, row, parameters in (
                ("all-to-all networks", "all-to-all", "layered", 0, 1540),
                ("layers", "layered", "all-to-all", 3, 22820),
            )
        ),
    )

    def run(self, config: Config, *, key: PRNGKeyArray, progress: Progress) -> xr.Dataset:
        needed("sklearn", "estimators")  # refuses before anything is trained
        task = config.task()
        held_key, *base_keys = jax.random.split(key, 3)
        work = {
            f"{structure} {row}": partial(
                _oscillators, config, structure, row, task, jax.random.fold_in(base, row), held_key, progress
            )
            for row in config.rows
            for structure, base in zip(STRUCTURES, base_keys, strict=True)
        }
        work |= {f"benchmarks {row}": partial(_benchmarks, config, PAPER[row], task) for row in config.rows}
        seeds = Blocks("seed", config.seeds)
        parts = seeds.join(progress.pieces(seeds.split(work)))

        def by_row(kind: str) -> xr.Dataset:
            return along("row", {row: parts[f"{kind} {row}"] for row in config.rows})

        oscillators = along("structure", {structure: by_row(structure) for structure in STRUCTURES})
        oscillators["unconverged"] = oscillators.unconverged.mean("seed", keep_attrs=True)
        oscillators["confusion"] = oscillators.confusion.sel(seed=0, drop=True)
        software = by_row("benchmarks")
        together = xr.concat([oscillators[["best"]], software[["best"]]], "structure")
        dataset = oscillators.drop_vars("best").merge(together, join="outer")
        for name in ("best", "last", "validated", "accuracy"):
            dataset[name].attrs = {"units": "%", "long_name": "test accuracy"}
        return dataset

    def figures(self, dataset: xr.Dataset) -> Figures:
        curves = new_figure(10, 3.8)
        for axes, kind in zip(curves.subplots(1, 2, sharey=True), STRUCTURES, strict=True):
            for row, colour in zip(dataset.row.values, COLOURS, strict=False):
                error = 100 - dataset.accuracy.sel(structure=kind, row=row)
                label = f"64-{PAPER[row].hidden}-10" if kind == "layered" else f"{PAPER[row].units} units"
                mean_and_range(axes, error.iteration, error, color=colour, label=label)
            axes.set_yscale("log")
            axes.set_yticks([5, 10, 20, 50], ["5", "10", "20", "50"])
            axes.minorticks_off()
            axes.set(xlabel="iteration", title=f"Fig. 4b: {kind}")
            axes.legend(fontsize="small")
        curves.axes[0].set_ylabel("test error (%)")

        rows = len(dataset.row) * 2
        confusion = new_figure(9, 1.8 * rows)
        grid = np.atleast_2d(confusion.subplots(rows, dataset.sizes["snapshot"], sharex=True, sharey=True))
        kinds = [(kind, int(row)) for kind in STRUCTURES for row in dataset.row.values]
        for line, (kind, row) in zip(grid, kinds, strict=True):
            for axes, snapshot in zip(line, dataset.snapshot.values, strict=True):
                shares = dataset.confusion.sel(structure=kind, row=row, snapshot=snapshot)
                axes.imshow(shares, vmin=0, vmax=1, cmap="viridis")
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
    config: Digits.Config,
    structure: str,
    row: int,
    task: Task,
    key: PRNGKeyArray,
    held_key: PRNGKeyArray,
    progress: Progress,
    seeds: range,
) -> xr.Dataset:
    make_key, train_key, judge_key = jax.random.split(key, 3)
    networks = make_members(partial(PAPER[row].network, structure), make_key, seeds)
    test = (task.test_inputs, task.test_targets)
    held = hold_out(task.train_inputs, task.train_targets, config.validation_fraction, key=held_key)

    def history(rule: EquilibriumPropagation, data: Data, watch: dict[str, Data], label: str) -> History:
        label = f"{structure} {row}, {label}"
        trainer, training = Trainer(train_key, progress), config.training()
        return trainer.train(label, networks, rule, data, watch=watch, ensemble=seeds, **training).history

    rule = config.rule(phase_classification, kind=_Tested)
    whole = history(rule, (task.train_inputs, task.train_targets), {"test": test}, "all images")
    watch = {"validation": held.validation, "test": test}
    chosen = history(config.rule(phase_classification), held.train, watch, "held out")
    untrained = map_members(eqx.Partial(judged, rule, test), networks, member_keys(judge_key, seeds))
    tests, snapshots = whole.watched("test"), np.isin(whole.steps, SNAPSHOTS)
    accuracy = 100 * tests["accuracy"]
    validation, tested = (chosen.watched(name)["accuracy"] for name in watch)
    first = np.argmax(validation, axis=0)
    confusion = np.stack([untrained["confusion"], *tests["confusion"][snapshots]])
    unconverged = whole.metric("unconverged").mean(0)
    return xr.Dataset(
        {
            "accuracy": (("iteration", "seed"), accuracy),
            "best": ("seed", accuracy.max(0)),
            "last": ("seed", accuracy[-1]),
            "validated": ("seed", 100 * tested[first, np.arange(len(seeds))]),
            "parameters": ("seed", np.full(len(seeds), count(networks, "weight") / len(seeds)), {"units": "1"}),
            "unconverged": ("seed", unconverged, {"units": "1", "long_name": "share of relaxations"}),
            "confusion": (("snapshot", "seed", "true", "answered"), confusion, {"units": "1"}),
        },
        {"iteration": whole.steps, "seed": list(seeds), "snapshot": [0, *whole.steps[snapshots]]},
    )


def _benchmarks(config: Digits.Config, size: Size, task: Task, seeds: range) -> xr.Dataset:
    """The paper's comparisons (App. B): a perceptron with one hidden layer, best of 100 epochs, and a linear model."""
    inputs, test = np.asarray(task.train_inputs, float), np.asarray(task.test_inputs, float)
    labels, answers = (np.argmax(np.asarray(t), -1) for t in (task.train_targets, task.test_targets))
    epochs = 100 if config.iterations > 100 else 10
    perceptrons = needed("sklearn.neural_network", "estimators")
    linear = (
        needed("sklearn.linear_model", "estimators")
        .RidgeClassifier(alpha=1e-6, solver="svd")
        .fit(inputs, labels)
        .score(test, answers)
    )

    def perceptron(seed: int) -> float:
        model = perceptrons.MLPClassifier((size.hidden,), activation="logistic", random_state=seed).set_params(
            batch_size=10
        )
        fits = (model.partial_fit(inputs, labels, classes=np.arange(10)) for _ in range(epochs))
        return max(fit.score(test, answers) for fit in fits)

    best = 100 * np.array([[perceptron(seed) for seed in seeds], [linear for _ in seeds]])
    return xr.Dataset({"best": (("structure", "seed"), best)}, {"structure": ["ANN", "linear"], "seed": list(seeds)})
