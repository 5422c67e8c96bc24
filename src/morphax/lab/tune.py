"""Searches for good settings: Optuna proposes, and every finished trial is kept."""

from __future__ import annotations

import json
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from morphax._lazy import xr
from morphax._optional import needed
from morphax.files import write_atomically
from morphax.lab.environment import without_password
from morphax.lab.errors import UsageError
from morphax.lab.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Iterable

SEEDS_APART = 1_000_003  # between the samplers of two searches of one run
HEARTBEAT, GRACE = 10, 60  # seconds: signs of life of a shared study's trials, and the silence after which one is dead
Settings = dict[str, Any]


class Range(NamedTuple):
    """Numbers from `low` to `high`, searched on a logarithmic scale unless `log` is False; whole ones if `whole`."""

    low: float
    high: float
    log: bool = True
    whole: bool = False


class Choice(NamedTuple):
    """One of some values."""

    values: tuple[Any, ...]


Space = Mapping[str, Range | Choice]


class Trial(NamedTuple):
    """A finished trial: its settings and their value, None where it failed."""

    settings: Settings
    value: float | None


def tune(
    evaluate: Callable[[dict[str, float]], float],
    space: Mapping[str, Range],
    trials: int,
    *,
    seed: int,
    progress: Progress,
    label: str,
) -> xr.Dataset:
    """Search `space` for the settings with the highest value, by the tree-structured Parzen estimator.

    Every trial's proposal depends only on `seed` and on the trials before it, so that a search that was interrupted
    goes on as if it had not been.

    **Arguments:**

    - `evaluate`: the value of settings (parameter name -> number), higher is better. It must not see test data.
    - `space`: a `Range` for every parameter.
    - `trials`: evaluations, >= 1.
    - `seed`: of the proposals.
    - `progress`, `label`: of the run; every trial is a piece.

    **Returns:** a dataset along "trial" with every parameter and "value".

    **Raises:** `ImportError` that says what to install when Optuna is missing.

    Source: Akiba et al., KDD 2019 (Optuna); Bergstra et al., NeurIPS 2011 (the estimator).
    """

    def trial(name: str, earlier: dict[str, xr.Dataset]) -> xr.Dataset:
        done = [Trial({key: float(part[key]) for key in space}, float(part.value)) for part in earlier.values()]
        (settings,) = propose(space, done, seed=seed)
        return xr.Dataset({**settings, "value": evaluate(settings)})

    parts = progress.chain([f"{label} {index}" for index in range(trials)], trial)
    return xr.concat(list(parts.values()), xr.Variable("trial", np.arange(trials)))


def propose(
    space: Space, finished: Sequence[Trial], together: int = 1, *, seed: int, direction: str = "maximize"
) -> list[Settings]:
    """The next settings to try, `together` at once; they depend on these arguments and on nothing else."""
    optuna = quiet_optuna()
    sampler = optuna.samplers.TPESampler(seed=SEEDS_APART * seed + len(finished))
    study = optuna.create_study(direction=direction, sampler=sampler)
    distributions = distributions_of(space)
    add_trials(study, finished, space)
    return [settings_of(study.ask(distributions), space) for _ in range(together)]


def add_trials(study: Any, finished: Iterable[Trial], space: Space) -> None:
    """Tell a study of trials that were finished elsewhere."""
    distributions = distributions_of(space)
    optuna = quiet_optuna()
    for trial in finished:
        state = optuna.trial.TrialState.FAIL if trial.value is None else optuna.trial.TrialState.COMPLETE
        study.add_trial(
            optuna.trial.create_trial(
                params={key: _choice(value) for key, value in trial.settings.items()},
                distributions=distributions,
                value=trial.value,
                state=state,
            )
        )


def settings_of(trial: Any, space: Space) -> Settings:
    """Those of a trial of Optuna."""
    settings = dict(trial.params)
    for key, entry in space.items():
        if isinstance(entry, Choice) and key in settings:
            settings[key] = next(value for value in entry.values if _choice(value) == settings[key])
    return settings


def _choice(value: Any) -> Any:
    """A value as Optuna chooses from it: of a list the text."""
    return json.dumps(value) if isinstance(value, list | tuple) else value


def distributions_of(space: Space) -> dict[str, Any]:
    """The space in Optuna's words."""
    distributions = quiet_optuna().distributions

    def one(entry: Range | Choice) -> Any:
        if isinstance(entry, Choice):
            return distributions.CategoricalDistribution(tuple(map(_choice, entry.values)))
        if entry.whole:
            return distributions.IntDistribution(int(entry.low), int(entry.high), log=entry.log)
        return distributions.FloatDistribution(entry.low, entry.high, log=entry.log)

    return {name: one(entry) for name, entry in space.items()}


class Record:
    """The finished trials of a study that one run owns, in a file of SQLite that other programs of Optuna read.

    The trials themselves follow from the pieces of the run: the file may be removed, and is written again.
    """

    def __init__(self, path: Path, name: str, space: Space, direction: str):
        self.path = path
        self.name = name
        self.space = space
        self.direction = direction

    def write(self, finished: Sequence[Trial]) -> None:
        """Add the trials that are not there; a file that is broken, or holds others, is written anew."""
        try:
            with self._study(self.path) as study:
                there = [Trial(settings_of(trial, self.space), trial.value) for trial in study.trials]
                if fits := there == list(finished[: len(there)]):
                    add_trials(study, finished[len(there) :], self.space)
        except Exception:  # whatever a library makes of a broken file
            fits = False
        if not fits:
            # What was not finished in a broken file must not be carried into the new one.
            self.path.with_name(f"{self.path.name}-journal").unlink(missing_ok=True)
            write_atomically(self.path, lambda temporary: self._write_all(temporary, finished))

    def _write_all(self, path: Path, finished: Sequence[Trial]) -> None:
        with self._study(path) as study:
            add_trials(study, finished, self.space)

    @contextmanager
    def _study(self, path: Path) -> Iterator[Any]:
        optuna = quiet_optuna()
        storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
        try:
            yield optuna.create_study(
                study_name=self.name, storage=storage, direction=self.direction, load_if_exists=True
            )
        finally:
            storage.remove_session()
            storage.engine.dispose()


class Shared:
    """A study in a database that several runs work on at the same time.

    A trial whose process gives no sign of life for a minute is tried again by another. Proposals have no seed: with the
    same, which all runs of a study have, they would begin with the same trials.

    **Arguments:**

    - `url`: of the database, as SQLAlchemy reads it.
    - `name`: of the study there.
    - `space`, `direction`: of the search.
    """

    def __init__(self, url: str, name: str, space: Space, direction: str):
        optuna = quiet_optuna()
        self.space = space
        self.distributions = distributions_of(space)
        self.states = optuna.trial.TrialState
        self.storage = _database(url)
        self.study = optuna.create_study(
            study_name=name,
            storage=self.storage,
            direction=direction,
            sampler=optuna.samplers.TPESampler(),
            load_if_exists=True,
        )

    @property
    def finished(self) -> list[Trial]:
        """Of all runs."""
        return [
            Trial(settings_of(trial, self.space), trial.value) for trial in self._trials() if self._is_finished(trial)
        ]

    def work(
        self,
        trials: int,
        together: int,
        evaluate: Callable[[int, list[Settings]], list[float | None]],
        say: Callable[[str], object] = lambda text: None,
    ) -> None:
        """Take part until so many trials are finished, by whomever; `evaluate` is given the number of the first.

        Trials of others that go on are waited for, which `say` is told: one may die, and leave its trial.
        """
        optuna = quiet_optuna()
        signed: set[int] = set()
        waiting = False
        while True:
            optuna.storages.fail_stale_trials(self.study)
            found = self._trials()
            ended = sum(map(self._is_finished, found))
            going_on = [trial._trial_id for trial in found if trial.state == self.states.RUNNING]
            if ended >= trials:
                return
            # Optuna never misses what gave no sign of life at all, as when its process was killed right after `ask`.
            for trial in set(going_on) - signed:
                self._sign(trial)
            signed.update(going_on)
            if (count := min(together, trials - ended - len(going_on))) <= 0:
                if not waiting:
                    number = f"{len(going_on)} trial{'s' if len(going_on) > 1 else ''}"
                    say(f"waiting for {number} of other runs; what gives no sign of life for {GRACE} s is tried again")
                waiting = True
                time.sleep(0.5)
                continue
            asked = []
            for _ in range(count):
                asked.append(self.study.ask(self.distributions))
                self._sign(asked[-1]._trial_id)
            waiting = False
            with self._alive(asked):
                values = evaluate(asked[0].number, [settings_of(trial, self.space) for trial in asked])
            for trial, value in zip(asked, values, strict=True):
                self._tell(trial, value)

    def _tell(self, trial: Any, value: float | None) -> None:
        if value is None:
            trial.set_user_attr("failed", True)  # and not because its process ended
            self.study.tell(trial, state=self.states.FAIL)
        else:
            self.study.tell(trial, value)

    def _sign(self, trial: int) -> None:
        """Give a sign of life of a trial."""
        with suppress(Exception):  # a database that does not answer now does so next time
            self.storage.record_heartbeat(trial)

    def _trials(self) -> list[Any]:
        return self.study.get_trials(deepcopy=False)

    def _is_finished(self, trial: Any) -> bool:
        return trial.state == self.states.COMPLETE or (
            trial.state == self.states.FAIL and bool(trial.user_attrs.get("failed"))
        )

    @contextmanager
    def _alive(self, trials: Sequence[Any]) -> Iterator[None]:
        """Signs of life meanwhile."""
        stop = threading.Event()

        def beat() -> None:
            while True:
                for trial in trials:
                    self._sign(trial._trial_id)
                if stop.wait(HEARTBEAT):
                    return

        thread = threading.Thread(target=beat, daemon=True, name="heartbeat of trials")
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


def _database(url: str, tries: int = 5) -> Any:
    """Of two runs that make the tables of a new database at the same time one is refused, and finds them then."""
    optuna = quiet_optuna()
    refused = f"storage is {without_password(url)!r}, which cannot be used"
    for left in reversed(range(tries)):
        try:
            return optuna.storages.RDBStorage(
                url.replace("postgresql://", "postgresql+psycopg://"),  # the driver that the extra installs
                heartbeat_interval=HEARTBEAT,
                grace_period=GRACE,
                heartbeat_stale_trial_callback=optuna.storages.RetryHeartbeatStaleTrialCallback(),
            )
        except ImportError as error:
            hint = 'its driver is not installed; of PostgreSQL it comes with pip install "morphax[tune]"'
            raise UsageError(f"{refused}: {hint}") from error
        except Exception as error:
            if not left:
                raise UsageError(f"{refused}: {' '.join(str(error).split())[:200]}") from error
            time.sleep(0.5)
    raise AssertionError


def quiet_optuna() -> Any:
    """Optuna, without its notes on every trial."""
    optuna = needed("optuna", "tune")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    # Here signs of life are given by hand.
    warnings.filterwarnings("ignore", "Heartbeat of storage is supposed to be used with Study.optimize")
    return optuna
