"""What a device makes of a table, beside a linear model and boosted trees on the same folds."""

from __future__ import annotations

import csv
import io
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from morphax._lazy import np, xr
from morphax._optional import needed
from morphax.experiments.tables._data import SHIPPED, Labelled, check_folds, check_source, labelled
from morphax.lab.errors import UsageError, nearest
from morphax.lab.experiment import BaseConfig, Claim, Count, Data, Experiment, parameter
from morphax.lab.figures import BLUE, GREY, ORANGE, Figures, literal, new_figure
from morphax.lab.identity import local_source_of
from morphax.lab.progress import Progress, along
from morphax.lab.script import file_in
from morphax.lab.settings import value_of

if TYPE_CHECKING:
    from jaxtyping import PRNGKeyArray

DEVICE, LINEAR, TREES = "device", "linear model", "boosted trees"
MODELS = {DEVICE: BLUE, LINEAR: ORANGE, TREES: GREY}
ASKED = {"table", "target", "task", "device", "settings", "learned", "neurons", "arrangement", "cv"}
"""Fields with which not every table and device goes."""
FIXED = {
    "arrangement": "--set arrangement=...",
    "device": "--device",
    "substrate": "--device",
    "kind": "--device",
    "neurons": "--set neurons=...",
    "hidden": "--set neurons=...",
    "readout": "morphax.estimators in Python",
    "rule": "morphax.estimators in Python",
    "precision": "--set precision=...",
    "random_state": "--seeds",
    "key": "--seeds",
    "inputs": "the columns of the table",
}
"""Arguments of estimators and devices that cannot be among the settings, and what says them."""
SMALL = 100_000
"""Numbers of a table for which several threads gain nothing."""
MODEL = "model.morphax"
"""The file with the fitted device."""
Name = Annotated[str, Field(min_length=1)]


class FitConfig(BaseConfig):
    """Which table, and which device."""

    table: Name = parameter("wine", f"CSV file, or of scikit-learn {', '.join(SHIPPED)}")
    target: Name = parameter("target", "column that is to be foretold; all others foretell it")
    task: Literal["auto", "classification", "regression"] = parameter(
        "auto", "auto: texts, and whole numbers with at most 20 different values, are classes"
    )
    device: Name = parameter("spin-torque", "a system by name, FILE.py:NAME, or a saved file")
    settings: tuple[Name, ...] = parameter((), "of the device, or of its estimator: KEY=VALUE")
    learned: Literal["auto", "readout", "device"] = parameter(
        "auto", "a linear readout behind the device, or the device itself; auto: what suits it"
    )
    neurons: tuple[Count, ...] = parameter((), "of its layers; none: 100 behind a readout, 64 where it is trained")
    arrangement: Literal["auto", "held", "sequence"] = parameter(
        "auto", "a row at once, or one number after the other where the device takes fewer than there are columns"
    )
    cv: int = parameter(5, "folds", ge=2, le=1000)
    seeds: int = parameter(3, "devices and foldings", ge=1, extent=True)

    def data(self) -> dict[str, Data]:
        from morphax.judging.devices import BUILT_IN, is_python, python_device

        found: dict[str, Data] = {} if self.table in SHIPPED else {"table": Path(self.table)}
        if self.device not in BUILT_IN:
            found["device"] = Path(file_in(self.device) if is_python(self.device) else self.device)
            if is_python(self.device):
                found["source of device"] = local_source_of(python_device(self.device)[1])
        return found

    @cached_property
    def rows(self) -> Labelled:
        """The table."""
        return labelled(self.table, self.target, self.task)

    @cached_property
    def whole(self) -> Any:
        """The device as an estimator, neither fitted nor with a seed.

        **Raises:** `ValueError`, in one line, for what it is not made of.
        """
        import jax

        from morphax import estimators
        from morphax.judging.devices import BUILT_IN, is_python
        from morphax.substrates.wrappers import WithInput

        system = BUILT_IN.get(self.device)
        if system is None and not Path(file_in(self.device)).is_file():
            raise UsageError(f"device is {self.device!r}, and there is no such file; {nearest(self.device, BUILT_IN)}")
        if system is None and not is_python(self.device) and not self.device.endswith(".morphax"):
            raise UsageError(f"device is {self.device!r}; of files it may be FILE.py:NAME, or one of morphax.save")
        of_classes = self.rows.kind == "classification"
        trained = self.learned == "device" or (self.learned == "auto" and system is not None and system.trained)
        if trained:
            make = estimators.PhysicalClassifier if of_classes else estimators.PhysicalRegressor
            made: Any = make(self.device, hidden=self.neurons or (64,), precision=self.precision)
        else:
            make = estimators.ReservoirClassifier if of_classes else estimators.ReservoirRegressor
            made = make(self.device, neurons=(self.neurons or (100,))[-1], precision=self.precision)
            if len(self.neurons) > 1:
                raise UsageError(f"neurons is {self.neurons}; behind a readout there is one number of them")
        fields = made.get_params(deep=False).keys()
        for text in self.settings:
            key, equals, value = text.partition("=")
            if not (key and equals):
                raise UsageError(f"settings holds {text!r}; it must be KEY=VALUE")
            if key in FIXED:
                raise UsageError(f"settings holds {text!r}, which {FIXED[key]} says")
            recipe = "substrate" if trained else "device"
            made.set_params(**{key if key in fields else f"{recipe}__{key}": value_of(value)})
        made.check_settings()
        _ = made.recipe.encoded
        try:
            with jax.enable_x64(self.precision == "double"):
                device, _ = made.recipe.make(self.neurons or (8,), len(self.rows.columns), key=jax.random.key(0))
        except ValueError:
            raise
        except Exception as error:  # of a stranger's function
            raise UsageError(f"{self.device} gives no device: {type(error).__name__}: {error}") from error
        narrow = "sequence" if isinstance(device, WithInput) else "held"
        made.set_params(arrangement=narrow if self.arrangement == "auto" else self.arrangement).check_settings()
        return made

    def estimator(self, seed: int) -> Any:
        """The device as an estimator, not fitted."""
        return needed("sklearn.base", "estimators").clone(self.whole).set_params(random_state=seed)

    @model_validator(mode="after")
    def _can_be_fitted(self) -> Self:
        if self.model_fields_set & ASKED:  # else it is shown without what only runs need
            needed("sklearn", "estimators")
            check_source(self.table)
            check_folds(self.rows, self.cv)
            self.estimator(0)
        return self


class Fit(Experiment):
    """What a device makes of a table, beside a linear model and boosted trees on the same folds.

    Scores are accuracies of classes, and coefficients of determination of numbers: of rows that were left out, on the
    folds of every seed, which also draws the device. Nothing is tuned. The linear model is logistic regression, of
    numbers ridge regression, of standardised columns; the trees are HistGradientBoosting with its own settings. At the
    end the device is fitted to all rows (`model.morphax`), for `morphax predict`.
    """

    Config = FitConfig
    name = "tables/fit"
    quick = {"seeds": 1, "cv": 3}
    claims = (
        Claim.reported(
            "score of the device, beside that of the linear model",
            lambda d: d.score.sel(model=DEVICE).mean(),
            paper=lambda d: d.score.sel(model=LINEAR).mean(),
            source="logistic or ridge regression, same folds",
        ),
        Claim.reported(
            "score of the device, beside that of boosted trees",
            lambda d: d.score.sel(model=DEVICE).mean(),
            paper=lambda d: d.score.sel(model=TREES).mean(),
            source="HistGradientBoosting, same folds",
        ),
    )

    def run(self, config: FitConfig, *, key: PRNGKeyArray, progress: Progress) -> xr.Dataset:
        work: dict[str, Callable[[], xr.Dataset]] = {
            f"{model}, seed {seed}": partial(_scored, config, model, seed)
            for model in MODELS
            for seed in range(config.seeds)
        }
        done = progress.pieces(work | {"model": partial(_fitted, config)})
        by_model = {
            model: along("seed", {s: done[f"{model}, seed {s}"] for s in range(config.seeds)}) for model in MODELS
        }
        scores = along("model", {model: found[["score"]] for model, found in by_model.items()})
        scores.score.attrs = {"units": "1", "long_name": str(done["model"].measure.item())}
        return scores.merge(done["model"]).assign(foretold=by_model[DEVICE].foretold.sel(seed=0, drop=True))

    def verdict(self, dataset: xr.Dataset) -> dict[str, list[str]]:
        device, measure = dataset.device.item(), dataset.measure.item()
        means = dataset.score.mean(("seed", "fold"))
        said = [
            f"{measure.capitalize()} {float(means.sel(model=DEVICE)):.3f} of rows left out "
            f"({dataset.sizes['fold']} folds, {_counted(dataset.sizes['seed'], 'seed')}), "
            f"{float(dataset.guess):.3f} by guessing."
        ]
        for model in (LINEAR, TREES):
            gain = dataset.score.sel(model=DEVICE) - dataset.score.sel(model=model)
            mean, margin = float(gain.mean()), _margin(gain)
            word = "not clearly different from" if abs(mean) <= margin else "better than" if mean > 0 else "worse than"
            said.append(
                f"That is {word} the {model}, {float(means.sel(model=model)):.3f}: the difference is {mean:+.3f} ± "
                f"{margin:.3f} (95 %)."
            )
        return {f"{device} on {Path(str(dataset.table.item())).name}": said}

    def figures(self, dataset: xr.Dataset) -> Figures:
        figure = new_figure(6.5, 2.8)
        axes = figure.subplots()
        for place, (model, colour) in enumerate(MODELS.items()):
            values = dataset.score.sel(model=model).values.ravel()
            axes.plot(values, np.full(values.size, place), "o", color=colour, alpha=0.35, markeredgewidth=0)
            axes.plot(values.mean(), place, "|", color=colour, markersize=28, markeredgewidth=2.5)
        axes.axvline(float(dataset.guess), color="black", linewidth=0.8, linestyle=":")
        axes.annotate("guessing", (float(dataset.guess), 2.45), fontsize="small", rotation=90, ha="right", va="bottom")
        labels = [literal(str(dataset.device.item())), LINEAR, TREES]
        axes.set(yticks=range(len(MODELS)), yticklabels=labels, ylim=(2.5, -0.5), xlabel=dataset.measure.item())
        axes.set_title("rows left out: every fold, and their mean")
        return {"scores": figure, "foretold": _foretold(dataset)}

    def exports(self, dataset: xr.Dataset) -> dict[str, str | bytes]:
        """`model.morphax`, fitted to all rows; `foretold.csv`, what it said of every row that was left out."""
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow([dataset.target.item(), "foretold"])
        table.writerows(
            zip(*(_as_written(dataset, dataset[name].values) for name in ("truth", "foretold")), strict=True)
        )
        return {MODEL: dataset.model_file.values.tobytes(), "foretold.csv": text.getvalue()}


def _margin(gain: xr.DataArray) -> float:
    """Half of the 95 % interval of a mean difference over folds and seeds, which share most of their training rows.

    Source: Nadeau & Bengio, Machine Learning 52, 239 (2003): the variance of a mean of J differences is that of one
    times 1 / J + (rows left out) / (rows trained with).
    """
    from scipy.stats import t

    shared = 1 / gain.size + 1 / (gain.sizes["fold"] - 1)
    quantile = t.ppf(0.975, gain.size - 1)
    return float(quantile * (gain.std(ddof=1) ** 2 * shared) ** 0.5)


def _scored(config: FitConfig, model: str, seed: int) -> xr.Dataset:
    """One model on all folds of one seed: how well it does, and what it says of each row that is left out."""
    selection, rows = needed("sklearn.model_selection", "estimators"), config.rows
    folding = selection.StratifiedKFold if rows.kind == "classification" else selection.KFold
    said, scores = np.empty(len(rows.targets), rows.targets.dtype), []
    for rest, held in folding(config.cv, shuffle=True, random_state=seed).split(rows.features, rows.targets):
        estimator = _estimator(config, model, seed)
        with _threads(rows.features.size):
            fitted = estimator.fit(rows.features[rest], rows.targets[rest])
            said[held] = fitted.predict(rows.features[held])
        scores.append(_score(rows.targets[held], said[held], rows.kind))
    return xr.Dataset({"score": ("fold", np.array(scores)), "foretold": ("row", _numbered(rows, said))})


def _threads(numbers: int) -> AbstractContextManager[Any]:
    """One thread of OpenMP, in libraries that are loaded by now, for a small table.

    Threads that grow trees wait for one another thousands of times a fit, and spin meanwhile. That gains nothing in a
    table of this size, and where other work has the cores a fit of a second takes minutes.
    """
    from threadpoolctl import threadpool_limits

    return nullcontext() if numbers > SMALL else threadpool_limits(1, "openmp")


def _estimator(config: FitConfig, model: str, seed: int) -> Any:
    kind = config.rows.kind
    if model == DEVICE:
        return config.estimator(seed)
    if model == TREES:
        ensemble = needed("sklearn.ensemble", "estimators")
        trees = "HistGradientBoostingClassifier" if kind == "classification" else "HistGradientBoostingRegressor"
        return getattr(ensemble, trees)(random_state=seed)
    linear = needed("sklearn.linear_model", "estimators")
    behind = linear.LogisticRegression(max_iter=10_000) if kind == "classification" else linear.Ridge()
    scaler = needed("sklearn.preprocessing", "estimators").StandardScaler()
    return needed("sklearn.pipeline", "estimators").make_pipeline(scaler, behind)


def _score(targets: Any, said: Any, kind: str) -> float:
    metrics = needed("sklearn.metrics", "estimators")
    return float((metrics.accuracy_score if kind == "classification" else metrics.r2_score)(targets, said))


def _fitted(config: FitConfig) -> xr.Dataset:
    """The device fitted to all rows, and what the table is."""
    from morphax.estimators.stored import described
    from morphax.saving import save

    rows = config.rows
    estimator = config.estimator(0).fit(rows.features, rows.targets)
    with tempfile.TemporaryDirectory() as folder:
        kept = {"model": described(estimator), "columns": rows.columns, "target": rows.target}
        content = save(Path(folder) / MODEL, kept).read_bytes()
    truth = _numbered(rows, rows.targets)
    found = xr.Dataset(
        {
            "device": ((), " ".join([config.device, *config.settings])),
            "table": ((), config.table),
            "target": ((), rows.target),
            "model_file": ("byte", np.frombuffer(content, np.uint8)),
            "truth": ("row", truth),
        }
    )
    if rows.kind == "regression":
        return found.assign(measure=((), "coefficient of determination"), guess=((), 0.0))
    classes = [str(each) for each in estimator.classes_]
    return found.assign(measure=((), "accuracy"), guess=((), np.bincount(truth).max() / len(truth))).assign_coords(
        {"class": classes}
    )


def _numbered(rows: Labelled, values: Any) -> Any:
    """Numbers as they are; classes by their place in order."""
    return values if rows.kind == "regression" else np.searchsorted(np.unique(rows.targets), values)


def _as_written(dataset: xr.Dataset, values: Any) -> list[str]:
    if "class" in dataset:
        return [str(dataset["class"].values[each]) for each in values]
    return [f"{each:.12g}" for each in values]


def _foretold(dataset: xr.Dataset) -> Any:
    """Which class was taken for which; or the number that was foretold beside the true one."""
    truth, said = dataset.truth.values, dataset.foretold.values
    if "class" not in dataset:
        figure = new_figure(4.2, 4)
        axes = figure.subplots()
        axes.plot(truth, said, "o", color=BLUE, alpha=0.4, markeredgewidth=0, markersize=4)
        ends = [min(truth.min(), said.min()), max(truth.max(), said.max())]
        axes.plot(ends, ends, color="black", linewidth=0.8)
        axes.set(xlabel=literal(dataset.target.item()), ylabel="foretold, when left out", title="seed 0")
        return figure
    classes = [str(each) for each in dataset["class"].values]
    counts = np.zeros((len(classes), len(classes)), int)
    np.add.at(counts, (truth, said), 1)
    side = 2.4 + 0.35 * len(classes)
    figure = new_figure(side + 0.6, side)
    axes = figure.subplots()
    axes.grid(False)
    shares = counts / counts.sum(axis=1, keepdims=True)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        if count:
            colour = "white" if shares[row, column] > 0.6 else "black"
            axes.text(column, row, str(count), ha="center", va="center", fontsize="small", color=colour)
    names, places = [literal(each) for each in classes], range(len(classes))
    axes.set(xticks=places, yticks=places, xticklabels=names, yticklabels=names, xlabel="foretold, when left out")
    axes.set(ylabel=literal(dataset.target.item()), title="rows, seed 0")
    axes.tick_params(axis="x", rotation=0 if max(map(len, classes)) * len(classes) < 40 else 90)
    return figure


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number > 1)}"
