"""Classifiers of `morphax.estimators` beside other packages' on eight sets of data: accuracy, and seconds.

    python benchmarks/estimators.py [--datasets NAME ...] [--models NAME ...] [--seeds 5] [--threads 1] [--keep]

Needs aeon, which also carries the series, and reservoirpy. Digits, wine and cancer are scikit-learn's, divided into
halves, stratified, by every seed anew; the others keep the halves they were published in, and a seed draws the model
alone. Accuracy is a mean over seeds and their standard deviation, on data that were not learned from.

- Reservoirs are as they come, 100 neurons (Josephson: 64 measured states), read in eight windows and at the end, or by
  the mean alone. They take tables as vectors, the Josephson mixer number by number, and digits as sequences of 64.
- "tuned" chooses among eight settings by three-fold cross-validation of the training data.
- Trained networks, logistic regression and boosting take digits as vectors; "in time" as sequences.
- Logistic regression and boosting see a series as one vector. Series of unequal length are filled up with zeros for
  these two and for MiniRocket.
- reservoirpy: 100 units, spectral radius 0.9, no leak; inputs standardised, last state, and the readout of ours.

Seconds are those of `fit` and `predict`. Cold: the first time in a process, for each model and set a new one, which has
imported what it needs and finds no program compiled before. Warm: the median of later ones, one for each seed.
Nothing else may work on the machine: threads of boosting spin where they wait, and then it takes a hundred times as
long.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from statistics import fmean, median, pstdev
from typing import Any, NamedTuple

import numpy as np

from measuring import Report, arguments

TABLES = ("digits", "wine", "cancer")
SERIES = ("ItalyPowerDemand", "GunPoint", "ArrowHead", "BasicMotions", "JapaneseVowels")
DATASETS = (*TABLES, *SERIES)
IN_TIME = ("digits", *SERIES)
NEURONS, RADIUS = 100, 0.9


class Split(NamedTuple):
    """What is learned from and what is asked: (samples, numbers), (samples, time, channels) or a list of series."""

    train: Any
    train_y: np.ndarray
    test: Any
    test_y: np.ndarray


class Model(NamedTuple):
    """A classifier for a set of data and a seed, the sets it is for, and the form in which it takes them."""

    title: str
    make: Callable[[str, int], Any]
    datasets: Sequence[str] = DATASETS
    form: Callable[[Any, int], Any] = lambda samples, longest: samples


def main() -> None:
    parser = arguments(__doc__, quick=None)
    parser.add_argument("--datasets", nargs="+", choices=DATASETS, default=DATASETS, metavar="NAME")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS), metavar="NAME")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.alone:
        print(json.dumps(measured(MODELS[options.models[0]], options.datasets[0], options.seeds)))
        return
    report = Report("estimators", options, "jax", "numpy", "scikit-learn", "aeon", "reservoirpy")
    found = {
        (model, data): apart(model, data, options.seeds)
        for model in options.models
        for data in options.datasets
        if data in MODELS[model].datasets
    }

    def rows(cell: str) -> list[list[str]]:
        each = {key: cell.format(**numbers) for key, numbers in found.items()}
        return [[MODELS[m].title, *(each.get((m, data), "") for data in options.datasets)] for m in options.models]

    seeds = f"{options.seeds} seeds"
    report.table("accuracy", "Accuracy", [seeds, *options.datasets], rows("{mean:.3f} ± {deviation:.3f}"))
    report.table("seconds", "Seconds", ["cold / warm", *options.datasets], rows("{cold:.2f} / {warm:.2f}"))
    report.finish()


# --- Measuring --------------------------------------------------------------------------------------------------------


def apart(model: str, data: str, seeds: int) -> dict[str, float]:
    """Accuracy and seconds from a process of its own, without programs that were kept."""
    ours = {key: value for key, value in os.environ.items() if not key.startswith("JAX_COMPILATION_CACHE")}
    with tempfile.TemporaryDirectory() as folder:
        settings = {"JAX_ENABLE_COMPILATION_CACHE": "false", "NUMBA_CACHE_DIR": folder}
        answer = subprocess.run(
            [sys.executable, __file__, "--alone", "--models", model, "--datasets", data, "--seeds", str(seeds)],
            env=ours | settings,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    found = json.loads(answer.stdout.splitlines()[-1])
    print(f"{model}, {data}: {', '.join(f'{k} {v:.3f}' for k, v in found.items())}", file=sys.stderr, flush=True)
    return found


def measured(model: Model, data: str, seeds: int) -> dict[str, float]:
    """The first seed for the time that a process needs at first, and all of them for the rest."""
    _, cold = carried_out(model, data, 0)
    accuracies, warm = zip(*(carried_out(model, data, seed) for seed in range(seeds)), strict=True)
    return {"mean": fmean(accuracies), "deviation": pstdev(accuracies), "cold": cold, "warm": median(warm)}


def carried_out(model: Model, data: str, seed: int) -> tuple[float, float]:
    """Accuracy, and seconds."""
    split = loaded(data, seed)
    longest = max(len(each) for part in (split.train, split.test) for each in part)
    train, test = model.form(split.train, longest), model.form(split.test, longest)
    classifier = model.make(data, seed)
    started = time.perf_counter()
    predicted = classifier.fit(train, split.train_y).predict(test)
    seconds = time.perf_counter() - started
    return float(np.mean(predicted == split.test_y)), seconds


# --- Data -------------------------------------------------------------------------------------------------------------


def loaded(data: str, seed: int) -> Split:
    if data in TABLES:
        from sklearn.datasets import load_breast_cancer, load_digits, load_wine
        from sklearn.model_selection import train_test_split

        table = {"digits": load_digits, "wine": load_wine, "cancer": load_breast_cancer}[data]
        X, y = table(return_X_y=True)
        train, test, train_y, test_y = train_test_split(X, y, test_size=0.5, stratify=y, random_state=seed)
        return Split(train, train_y, test, test_y)
    from aeon.datasets import load_classification

    (train, train_y), (test, test_y) = (load_classification(data, split=part) for part in ("train", "test"))
    return Split(time_first(train), train_y, time_first(test), test_y)


def time_first(samples: Any) -> Any:
    """Series of (channels, time) as (time, channels), of one channel as rows."""
    if isinstance(samples, list):
        return [each.T for each in samples]
    return samples[:, 0] if samples.shape[1] == 1 else samples.transpose(0, 2, 1)


def in_channels(samples: Any, longest: int) -> np.ndarray:
    """(samples, channels, time), filled up with zeros."""
    series = [each.reshape(len(each), -1) for each in samples]
    return np.stack([np.pad(each.T, ((0, 0), (0, longest - len(each)))) for each in series])


def as_vectors(samples: Any, longest: int) -> np.ndarray:
    return in_channels(samples, longest).reshape(len(samples), -1)


# --- Models -----------------------------------------------------------------------------------------------------------


def arranged(data: str, tables: str = "held") -> str | None:
    """How the rows of a set are taken; None where it has an axis of time."""
    if data in ("wine", "cancer"):
        return tables
    return None if data in ("BasicMotions", "JapaneseVowels") else "sequence"


def reservoir(device: str, tables: str = "held", **settings: Any) -> Callable[[str, int], Any]:
    def make(data: str, seed: int) -> Any:
        from morphax.estimators import ReservoirClassifier

        return ReservoirClassifier(device, arrangement=arranged(data, tables), random_state=seed, **settings)

    return make


def tuned(device: str, of_tables: dict[str, Any], of_series: dict[str, Any]) -> Callable[[str, int], Any]:
    """The reservoir with those of eight settings with which it does best on folds of the training data."""
    of_tables = {"input_scale": (0.1, 0.3, 1.0, 3.0)} | of_tables
    of_series = {"input_scale": (0.3, 1.0), "readings": ("mean", 8)} | of_series

    def make(data: str, seed: int) -> Any:
        from sklearn.model_selection import GridSearchCV, StratifiedKFold

        folds = StratifiedKFold(3, shuffle=True, random_state=seed)
        grid = of_tables if arranged(data) == "held" else of_series
        return GridSearchCV(reservoir(device)(data, seed), grid, cv=folds)

    return make


def trained(name: str, **settings: Any) -> Callable[[str, int], Any]:
    def make(data: str, seed: int) -> Any:
        from morphax import estimators

        return getattr(estimators, name)(random_state=seed, **settings)

    return make


def spintronic_in_time(data: str, seed: int) -> Any:
    return trained("SpintronicClassifier", arrangement=arranged(data))(data, seed)


def logistic(data: str, seed: int) -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, random_state=seed))


def boosting(data: str, seed: int) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(random_state=seed)


def minirocket(data: str, seed: int) -> Any:
    from aeon.classification.convolution_based import MiniRocketClassifier

    return MiniRocketClassifier(random_state=seed)


class EchoState:
    """A reservoir of reservoirpy, whose last state is read."""

    def __init__(self, held: bool, seed: int):
        from reservoirpy.nodes import Reservoir
        from sklearn.linear_model import RidgeClassifierCV
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        self.held = held
        self.encoder = StandardScaler()
        self.reservoir = Reservoir(NEURONS, sr=RADIUS, lr=1.0, seed=seed)
        self.readout = make_pipeline(StandardScaler(), RidgeClassifierCV(alphas=np.logspace(-4, 4, 17)))

    def fit(self, samples: Any, y: np.ndarray) -> "EchoState":
        series = self.as_series(samples)
        self.encoder.fit(np.concatenate(series))
        self.readout.fit(self.last_states(series), y)
        return self

    def predict(self, samples: Any) -> np.ndarray:
        return self.readout.predict(self.last_states(self.as_series(samples)))

    def as_series(self, samples: Any) -> list[np.ndarray]:
        return [each.reshape(1 if self.held else len(each), -1) for each in samples]

    def last_states(self, series: list[np.ndarray]) -> np.ndarray:
        found = self.reservoir.run([self.encoder.transform(each) for each in series])
        self.reservoir.reset()  # else it would go on from its last state when it is asked again
        return np.stack([states[-1] for states in found])


MODELS = {
    "echo-state": Model("`ReservoirClassifier`, echo-state", reservoir("echo-state")),
    "echo-state-mean": Model("echo-state, mean", reservoir("echo-state", readings="mean")),
    "spin-torque": Model("spin-torque", reservoir("spin-torque")),
    "relu": Model("relu", reservoir("relu")),
    "josephson": Model("josephson", reservoir("josephson", "sequence", neurons=64)),
    "echo-state-tuned": Model(
        "echo-state, tuned", tuned("echo-state", {"device__bias_scale": (0.2, 1.0)}, {"device__leak_rate": (0.3, 1.0)})
    ),
    "spin-torque-tuned": Model("spin-torque, tuned", tuned("spin-torque", *[{"device__damping_rate": (0.3, 1.0)}] * 2)),
    "quantized": Model("`QuantizedPerceptronClassifier`", trained("QuantizedPerceptronClassifier"), TABLES),
    "phase-oscillators": Model("`PhaseOscillatorClassifier`", trained("PhaseOscillatorClassifier"), TABLES),
    "spintronic": Model("`SpintronicClassifier`", trained("SpintronicClassifier", arrangement="held"), TABLES),
    "spintronic-in-time": Model("`SpintronicClassifier`, in time", spintronic_in_time, IN_TIME),
    "logistic": Model("scikit-learn, logistic regression", logistic, form=as_vectors),
    "boosting": Model("scikit-learn, gradient boosting", boosting, form=as_vectors),
    "minirocket": Model("aeon, MiniRocket", minirocket, IN_TIME, in_channels),
    "reservoirpy": Model("reservoirpy, echo-state", lambda data, seed: EchoState(arranged(data) == "held", seed)),
}

if __name__ == "__main__":
    main()
