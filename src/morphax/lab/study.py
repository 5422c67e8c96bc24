"""A search for the configuration at which an experiment does best: every trial is a run of it."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
import xarray as xr
from jaxtyping import PRNGKeyArray

from morphax.files import digest_of
from morphax.lab.environment import without_password
from morphax.lab.errors import UsageError, nearest
from morphax.lab.experiment import BaseConfig, Claim, Experiment
from morphax.lab.figures import BLUE, RED, Figures, literal, new_figure
from morphax.lab.progress import Progress, raise_failures
from morphax.lab.settings import refusal
from morphax.lab.sweep import other_data, prepare, run_part, split, takes_whole
from morphax.lab.tune import Choice, Range, Record, Settings, Shared, Trial, propose

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_TRIALS = 100_000
MOST_TOGETHER = 1000
PLACE = re.compile(r"(?P<name>\w+)(\[(?P<places>[^\]]*)\])?")
NEXT = re.compile(r",(?=\s*\w+=)")  # a name may hold a comma


class Goal(NamedTuple):
    """The number that decides: the mean of a variable, or of a part of it.

    - `variable`: of the experiment's dataset.
    - `places`: coordinate -> value, where only a part counts.
    - `maximise`: whether more is better.
    """

    variable: str
    places: dict[str, Any]
    maximise: bool

    @classmethod
    def read(cls, text: str, maximise: bool = True) -> Self:
        """From "accuracy" or "accuracy[reservoir=quantum, neurons=16]".

        >>> from morphax.lab.study import Goal
        >>> Goal.read("accuracy[reservoir=quantum, neurons=16]")
        Goal(variable='accuracy', places={'reservoir': 'quantum', 'neurons': 16}, maximise=True)
        """
        found = PLACE.fullmatch(text.strip())
        pairs = [] if found is None else [part.partition("=") for part in NEXT.split(found["places"] or "") if part]
        if found is None or any(not equals or not value.strip() for _, equals, value in pairs):
            name = "maximise" if maximise else "minimise"
            raise UsageError(f"{name} is {text!r}; it must be a variable, or VARIABLE[coordinate=value, ...]")
        return cls(found["name"], {key.strip(): _value(value.strip()) for key, _, value in pairs}, maximise)

    @property
    def text(self) -> str:
        places = ", ".join(f"{key}={value}" for key, value in self.places.items())
        return f"{self.variable}[{places}]" if places else self.variable

    def value(self, dataset: xr.Dataset) -> float:
        """What a run has reached. **Raises:** `UsageError` where the dataset has no such number."""
        if self.variable not in dataset.data_vars:
            names = [str(name) for name in dataset.data_vars]
            raise UsageError(f"there is no variable {self.variable!r} to judge by; {nearest(self.variable, names)}")
        array = dataset[self.variable]
        for key, place in self.places.items():
            try:
                array = array.sel({key: place})
            except (KeyError, ValueError, TypeError):
                there = [str(value) for value in np.ravel(array[key].values)] if key in array.coords else []
                hint = f"{key} is {', '.join(there)}" if there else f"it lies along {', '.join(map(str, array.dims))}"
                raise UsageError(f"{self.variable} has no place {key}={place}; {hint}") from None
        return float(array.mean())


class Study(Experiment):
    """An experiment's configurations, tried one after the other, or several at once, in the search for the best.

    A study of one run's own proposes `together` trials at once, by the tree-structured Parzen estimator, from all
    trials before them: it is the same for the same seed, whatever carries out the trials, and an interrupted one goes
    on. Its trials are kept as pieces, and listed in `study.db` (SQLite) for other programs of Optuna. A trial that
    fails has no value, and the others go on.

    With a `storage`, several runs work on one study, and who is first decides what is proposed: it cannot be repeated.

    **Arguments:**

    - `experiment`: that is tried.
    - `over`: key of its configuration -> `Range` or `Choice`.
    - `goal`: what decides.
    - `trials`: in all.
    - `together`: proposed at once.
    - `folder`: of the run.
    - `storage`: database that is shared, as SQLAlchemy reads it.

    **Raises:** `UsageError` for unknown keys, ranges that the configuration does not take, and numbers out of range.
    """

    def __init__(
        self,
        experiment: Experiment,
        over: Mapping[str, Range | Choice],
        goal: Goal,
        *,
        trials: int,
        together: int = 1,
        folder: Path,
        storage: str | None = None,
    ):
        self.experiment = experiment
        self.over = dict(over)
        self.goal = goal
        self.trials = trials
        self.together = together
        self.folder = folder
        self.storage = storage
        self.name = experiment.name  # pyright: ignore[reportAttributeAccessIssue]
        self.Config = experiment.Config  # pyright: ignore[reportAttributeAccessIssue]
        self.quick = experiment.quick  # pyright: ignore[reportAttributeAccessIssue]
        self.claims = self._claims()  # pyright: ignore[reportAttributeAccessIssue]
        self.__doc__ = f"{inspect.getdoc(experiment) or ''}\n\n{self._told()}"
        self._check()

    @property
    def origin(self) -> type[Experiment]:
        return self.experiment.origin

    @property
    def direction(self) -> str:
        return "maximize" if self.goal.maximise else "minimize"

    def asks(self) -> dict[str, Any]:
        storage = {} if self.storage is None else {"storage": without_password(self.storage)}
        numbers = {"trials": self.trials, "together": self.together}
        goal = {"variable": self.goal.text, "maximise": self.goal.maximise}
        over = json.loads(json.dumps(self.over))  # lists, as they come back
        return {"study": {"over": over, **goal, **numbers, **storage}}

    @classmethod
    def of(cls, experiment: Experiment, asked: Mapping[str, Any], folder: Path) -> Self:
        """The study that `asks` told of."""
        over = {key: Choice(tuple(e[0])) if len(e) == 1 else Range(*e) for key, e in asked["over"].items()}
        goal = Goal.read(asked["variable"], asked["maximise"])
        numbers = {"trials": asked["trials"], "together": asked["together"]}
        return cls(experiment, over, goal, **numbers, folder=folder, storage=asked.get("storage"))

    def check_ends(self, config: BaseConfig) -> None:
        """Refuse ranges whose ends, or choices that, the configuration does not take: `UsageError`."""
        for key, entry in self.over.items():
            for value in entry.values if isinstance(entry, Choice) else entry[:2]:
                changes: dict[str, Any] = {key: round(value) if _is_whole(entry) else value}
                try:
                    here = self.Config(**(config.model_dump() | changes))
                except ValueError as error:
                    raise UsageError(f"over is {key}={value}; {refusal(error)}") from error
                self._check_data(config, here)

    def run(self, config: Any, *, key: PRNGKeyArray, progress: Progress) -> xr.Dataset:
        failed: dict[int, Exception] = {}
        known: set[str] = set()

        def evaluate(first: int, several: list[Settings]) -> list[float | None]:
            """The values of settings, None where a trial failed, which is told."""
            values = [self._judged(came, known) for came in self._carried_out(first, several, config, progress)]
            for number, value in enumerate(values, first):
                if isinstance(value, Exception):
                    failed[number] = value
                    progress.tell(f"trial {number} failed: {' '.join(str(value).split()) or type(value).__name__}")
            return [None if isinstance(value, Exception) else value for value in values]

        if self.storage is None:
            finished = self._own(config.seed, evaluate)
        else:
            shared = Shared(self.storage, self._study_name(config), self.over, self.direction)
            shared.work(self.trials, self.together, evaluate, progress.tell)
            finished = shared.finished
        if all(trial.value is None for trial in finished):
            _raise_all(failed, len(finished))
        return self._table(finished)

    def figures(self, dataset: xr.Dataset) -> Figures:
        """The value against every setting, and the best so far."""
        keys = list(self.over)
        figure = new_figure(3.2 * (len(keys) + 1), 3.4)
        panels = np.atleast_1d(figure.subplots(1, len(keys) + 1, sharey=True))
        best = self._best(dataset)
        for axes, key in zip(panels, keys, strict=False):
            self._draw(axes, key, dataset, best)
        so_far = np.maximum if self.goal.maximise else np.minimum
        values = dataset.value.values
        start = np.where(np.isnan(values), -np.inf if self.goal.maximise else np.inf, values)
        panels[-1].plot(dataset.trial, values, "o", color=BLUE, markersize=3.5)
        panels[-1].step(dataset.trial, so_far.accumulate(start), where="post", color=RED, label="best so far")
        panels[-1].set_xlabel("trial")
        panels[-1].legend(fontsize="small")
        panels[0].set_ylabel(literal(self.goal.text))
        return {"study": figure}

    def exports(self, dataset: xr.Dataset) -> Mapping[str, str | bytes]:
        """None as texts; where the record of the trials is gone or broken, it is written anew."""
        if self.storage is None:
            with suppress(ImportError):  # a result is read, and a report made, without Optuna
                self._record().write(self._trials(dataset))
        return {}

    def _record(self) -> Record:
        return Record(self.folder / "study.db", self.name, self.over, self.direction)

    def _trials(self, dataset: xr.Dataset) -> list[Trial]:
        """Those that a table is of."""
        columns = {key: [self._setting(key, told) for told in dataset[key].values.tolist()] for key in self.over}
        return [
            Trial({key: columns[key][number] for key in self.over}, None if np.isnan(value) else value)
            for number, value in enumerate(dataset.value.values.tolist())
        ]

    def _setting(self, key: str, told: Any) -> Any:
        """What stands in a table as it was asked for."""
        entry = self.over[key]
        if isinstance(entry, Range):
            return told
        return next(value for value in entry.values if told in (value, _text(value)))

    def _own(self, seed: int, evaluate: Any) -> list[Trial]:
        """All trials, those of a batch from the batches before it."""
        record = self._record()
        finished: list[Trial] = []
        while len(finished) < self.trials:
            count = min(self.together, self.trials - len(finished))
            several = propose(self.over, finished, count, seed=seed, direction=self.direction)
            values = evaluate(len(finished), several)
            finished += [Trial(settings, value) for settings, value in zip(several, values, strict=True)]
            record.write(finished)
        return finished

    def _carried_out(
        self, first: int, several: list[Settings], config: BaseConfig, progress: Progress
    ) -> list[xr.Dataset | Exception]:
        """What came of settings, tried at once where there are workers."""
        trials: dict[int, tuple[BaseConfig, Progress]] = {}
        came: dict[int, xr.Dataset | Exception] = {}
        for place, settings in enumerate(several):
            try:
                here = self.Config(**(config.model_dump() | settings))
                here.check_memory()
            except ValueError as error:
                came[place] = UsageError(refusal(error))
                continue
            self._check_data(config, here)
            trials[place] = here, progress.at(f"trial {first + place}", here)
        parts = [part for _, part in trials.values()]
        prepare(self.experiment, progress, parts, [here for here, _ in trials.values()])
        for place, (here, part) in trials.items():
            came[place] = run_part(self.experiment, here, part)
            progress.take(part)
        return [came[place] for place in range(len(several))]

    def _judged(self, came: xr.Dataset | Exception, known: set[str]) -> float | Exception:
        """The value of a trial, or why it has none; `known` are the variables that any trial had.

        **Raises:** `UsageError` where none had that which decides: it is a slip, and not this trial's failure.
        """
        if isinstance(came, Exception):
            return came
        known |= set(map(str, came.data_vars))
        try:
            value = self.goal.value(came)
        except UsageError as error:
            if self.goal.variable not in known:
                raise
            return error
        return value if np.isfinite(value) else ValueError(f"{self.goal.text} is {value}")

    def _check_data(self, config: BaseConfig, here: BaseConfig) -> None:
        if data := other_data(config, here, self.over):
            what = f"{data}, a file of data" if data in self.over else f"{', '.join(self.over)}, which changes the data"
            raise UsageError(f"over is {what}; all trials have the same data")

    def _table(self, finished: Sequence[Trial]) -> xr.Dataset:
        columns: dict[str, Any] = {}
        for key in self.over:
            extra = self.Config.model_fields[key].json_schema_extra
            unit = str(extra.get("unit", "")) if isinstance(extra, dict) else ""
            values = [trial.settings[key] for trial in finished]
            numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
            column = np.array(values if numeric else [_text(value) for value in values])
            columns[key] = ("trial", column, {"units": unit} if unit else {})
        values = [np.nan if trial.value is None else trial.value for trial in finished]
        about = {"long_name": f"mean of {self.goal.text}", "may_be_missing": 1}
        return xr.Dataset(columns | {"value": ("trial", values, about)}, {"trial": np.arange(len(finished))})

    def _best(self, dataset: xr.Dataset) -> int | None:
        """The number of the best trial; None where all failed."""
        values = dataset.value.values if self.goal.maximise else -dataset.value.values
        return None if np.isnan(values).all() else int(np.nanargmax(values))

    def _claims(self) -> tuple[Claim, ...]:
        most = "largest" if self.goal.maximise else "least"

        def at_best(key: str) -> Any:
            def number(dataset: xr.Dataset) -> Any:
                if dataset[key].dtype.kind not in "biuf":
                    raise KeyError(key)  # a text is in the table of the dataset
                if (best := self._best(dataset)) is None:
                    raise KeyError(key)
                return dataset[key][best]

            return number

        return (
            Claim.reported(f"{most} {self.goal.text}", at_best("value"), source="best trial"),
            *(Claim.reported(f"{key} there", at_best(key), source="best trial") for key in self.over),
        )

    def _told(self) -> str:
        what = "Largest" if self.goal.maximise else "Least"
        how = f"{what} {self.goal.text} over {', '.join(self.over)}: {self.trials} trials, {self.together} at once."
        if self.storage is None:
            return how
        return f"{how} The study is shared with other runs: it cannot be repeated."

    def _check(self) -> None:
        if not self.over:
            raise UsageError("over is empty; name what is searched: --over KEY=LOW:HIGH")
        for key in self.over:
            if key not in self.Config.model_fields:
                raise UsageError(f"over {key} is unknown; {nearest(key, self.Config.model_fields)}")
        if not 1 <= self.trials <= MOST_TRIALS:
            raise UsageError(f"trials is {self.trials}; it must be from 1 to {MOST_TRIALS}")
        if not 1 <= self.together <= MOST_TOGETHER:
            raise UsageError(f"parallel-trials is {self.together}; it must be from 1 to {MOST_TOGETHER}")

    def _study_name(self, config: BaseConfig) -> str:
        """One for all runs that ask the same, whatever number of trials each takes."""
        asked = self.asks()["study"]
        what = [config.model_dump(mode="json"), asked["over"], asked["variable"], asked["maximise"]]
        return f"{self.name} {digest_of(what)[:12]}"

    def _draw(self, axes: Axes, key: str, dataset: xr.Dataset, best: int | None) -> None:
        x = dataset[key].values
        x = x if x.dtype.kind in "biuf" else np.array([literal(text) for text in x.tolist()])
        axes.plot(x, dataset.value, "o", color=BLUE, markersize=3.5)
        if best is not None:
            axes.plot(x[best], dataset.value[best], "o", color=RED, markersize=6, label="best")
        entry = self.over[key]
        if isinstance(entry, Range) and entry.log:
            axes.set_xscale("log")
        axes.set_xlabel(key)


def read_entry(text: str, config: type[BaseConfig]) -> tuple[str, Range | Choice]:
    """The key and what is searched of KEY=LOW:HIGH, KEY=LOW:HIGH:log, or KEY=VALUE,VALUE,...

    **Raises:** `UsageError` in one line.

        >>> from morphax.experiments import find_experiment
        >>> from morphax.lab.study import read_entry
        >>> read_entry("noise=1e-4:1e-2:log", find_experiment("josephson/neurons").Config)
        ('noise', Range(low=0.0001, high=0.01, log=True, whole=False))
    """
    key, equals, values = text.partition("=")
    form = "it must be KEY=LOW:HIGH, KEY=LOW:HIGH:log, or KEY=VALUE,VALUE"
    if not equals or not values:
        raise UsageError(f"--over is {text!r}; {form}")
    if key not in config.model_fields:
        raise UsageError(f"--over {key} is unknown; {nearest(key, config.model_fields)}")
    if ":" not in values:
        choices = tuple(_value(value) for value in split(values))
        if len(choices) < 2 or len(set(map(json.dumps, choices))) < len(choices):
            raise UsageError(f"--over is {text!r}; there must be two or more different values to choose from")
        return key, Choice(choices)
    low, _, rest = values.partition(":")
    high, _, scale = rest.partition(":")
    try:
        entry = Range(float(low), float(high), scale == "log", takes_whole(config.model_fields[key].annotation))
    except ValueError:
        raise UsageError(f"--over is {text!r}; {form}") from None
    if scale not in ("", "log") or not -np.inf < entry.low < entry.high < np.inf or (entry.log and entry.low <= 0):
        raise UsageError(f"--over is {text!r}; {form}, with LOW < HIGH, and LOW > 0 on a logarithmic scale")
    if entry.whole and (entry.low != round(entry.low) or entry.high != round(entry.high)):
        raise UsageError(f"--over is {text!r}; {key} takes whole numbers")
    return key, entry


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _raise_all(failed: Mapping[int, Exception], trials: int) -> None:
    """Raise what is wrong where no trial has a value."""
    if failed and all(isinstance(error, UsageError) for error in failed.values()):
        raise next(iter(failed.values()))
    if len(failed) == trials:
        raise_failures({f"trial {number}": error for number, error in failed.items()}, trials, "trials")
    raise RuntimeError(f"all {trials} trials of the shared study have failed, {len(failed)} of them in this run")


def _is_whole(entry: Range | Choice) -> bool:
    return isinstance(entry, Range) and entry.whole
