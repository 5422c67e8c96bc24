"""What somebody measured: an input, and what a device answered to it."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, PRNGKeyArray

from morphax._checks import check_count, check_range
from morphax._lazy import xr
from morphax.files import note_file, write_dataset
from morphax.judging.readings import as_table, stretches
from morphax.substrates.base import Substrate, evolve
from morphax.tasks.tables import Table, read_table

TIMES = ("time", "t", "zeit", "temps", "tiempo")
"""What a column of times may be called."""
SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9, "ps": 1e-12, "min": 60.0, "h": 3600.0}

BEGINNING = 1000
"""Holds of an input in which the first change is looked for."""
AHEAD = 1 << 18
"""Numbers that are read from a file at once."""


@dataclass(frozen=True)
class Recording:
    """Inputs of a device and its readings, one row a point of time, from one run or several of the same input.

    **Arguments:**

    - `inputs`: (time,), or (time, channels).
    - `responses`: readings (time, readings) that came with each input or after it. A reading that is missing is NaN.

      Both may be anything that has a `shape` and gives NumPy arrays for slices of time: they are read in stretches.
    - `repeats`: further responses to the same inputs, from the same point on.
    - `interval`: time between two points, in seconds. None: not known.
    - `input_names`, `reading_names`: of the channels and readings; by default u0, u1, ... and x0, x1, ....
    - `units`: name -> unit.

    **Raises:** `ValueError` for responses of another length than the inputs, repeats of another shape, inputs that are
    not finite, or an interval that is not positive.

        >>> import numpy as np
        >>> from morphax.judging import Recording
        >>> u = np.random.default_rng(0).uniform(-1, 1, 1000)
        >>> recording = Recording(u, np.stack([np.roll(u, 1), u**2], axis=1), interval=1e-6)
        >>> len(recording), recording.input_names, recording.reading_names
        (1000, ('u0',), ('x0', 'x1'))
    """

    inputs: Any
    responses: Any
    repeats: Sequence[Any] = ()
    interval: float | None = None
    input_names: tuple[str, ...] = ()
    reading_names: tuple[str, ...] = ()
    units: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        inputs = as_table("inputs", self.inputs)
        responses, *repeats = (
            rows if hasattr(rows, "shape") else np.asarray(rows, float)
            for rows in (self.responses, *(self.repeats or ()))
        )
        for name, rows in [("responses", responses), *((f"repeats[{i}]", each) for i, each in enumerate(repeats))]:
            if len(rows.shape) != 2 or rows.shape[0] != inputs.shape[0]:
                raise ValueError(
                    f"{name} has shape {rows.shape}; it must be ({inputs.shape[0]}, readings), as the inputs"
                )
            if rows.shape != responses.shape:
                raise ValueError(f"{name} has shape {rows.shape}; it must be {responses.shape}, as responses")
        if self.interval is not None:
            check_range("interval", self.interval, low=0.0, open_low=True)
        given = {
            "inputs": inputs,
            "responses": responses,
            "repeats": tuple(repeats),
            "input_names": _names(self.input_names, inputs.shape[1], "u", "input_names"),
            "reading_names": _names(self.reading_names, responses.shape[1], "x", "reading_names"),
        }
        for name, value in given.items():
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return self.inputs.shape[0]

    @classmethod
    def from_csv(
        cls, path: str | Path, inputs: str = "u*", responses: str = "x*", repeat: str | None = None
    ) -> Recording:
        """Of a CSV file (`read_table`), one row a point of time.

        A column called time gives the interval, and says where points are missing.

        **Arguments:**

        - `inputs`, `responses`: names of columns, separated by commas, or patterns with `*` and `?`.
        - `repeat`: the column that numbers repeats of one input, which follow each other in the file. None: one run.

        **Raises:** `ValueError` in one line, for what is no table, columns that are not there, cells that are no
        numbers, inputs that are missing, times that do not rise, and repeats of different inputs.
        """
        table = read_table(path)
        chosen = [_matching(table, names) for names in (inputs, responses)]
        both = sorted(set(chosen[0]) & set(chosen[1]))
        if both:
            raise ValueError(f"{path}: column {both[0]!r} is an input and a response; name other columns")
        given = np.stack([table.column(name) for name in chosen[0]], axis=1)
        answers = np.stack([table.column(name, gaps=True) for name in chosen[1]], axis=1)
        runs = [np.arange(len(given))] if repeat is None else _runs(table.column(repeat))
        for place, run in enumerate(runs):
            if len(run) != len(runs[0]) or not np.array_equal(given[run], given[runs[0]]):
                raise ValueError(f"{path}: repeat {place + 1} has other inputs than the first; repeats answer the same")
        times = [name for name in table.names if name.lower() in TIMES and name not in (*chosen[0], *chosen[1])]
        interval = _interval(path, table.column(times[0])[runs[0]]) if times else None
        if interval is not None:
            unit = table.units.get(times[0], "s").replace("\N{GREEK SMALL LETTER MU}", "\N{MICRO SIGN}")
            if unit not in SECONDS:
                raise ValueError(
                    f"{path}: the unit of {times[0]!r} is {unit!r}; it must be one of {', '.join(SECONDS)}"
                )
            interval *= SECONDS[unit]
        kept = {name: unit for name, unit in table.units.items() if name in (*chosen[0], *chosen[1])}
        first, *others = (answers[run] for run in runs)
        return cls(given[runs[0]], first, others, interval, tuple(chosen[0]), tuple(chosen[1]), kept)

    @classmethod
    def from_netcdf(cls, path: str | Path, inputs: str = "inputs", responses: str = "responses") -> Recording:
        """Of a netCDF file: variables (time, ...) and (time, ...) or (repeat, time, ...).

        Inputs and responses stay in the file and are read in stretches, so that a recording may be larger than memory.

        **Raises:** `ValueError` in one line when the file cannot be read, or has no such variables.
        """
        path = Path(path)
        note_file(path)
        try:
            dataset = xr.open_dataset(path, engine="h5netcdf")
        except (OSError, ValueError) as error:
            raise ValueError(f"{path} is not a netCDF file that can be read: {error}") from error
        for name in (inputs, responses):
            if name not in dataset:
                raise ValueError(f"{path} has no variable {name!r}; it has {', '.join(map(str, dataset.data_vars))}")
        drive, answers = dataset[inputs], dataset[responses]
        places = range(answers.sizes["repeat"]) if "repeat" in answers.dims else None
        first, *others = [answers] if places is None else [answers.isel(repeat=place) for place in places]
        interval = dataset.attrs.get("interval")
        channels, readings = _labels(drive, "channel"), _labels(answers, "reading")
        units = {
            name: str(variable.attrs["units"])
            for variable, names in ((drive, channels), (answers, readings))
            for name in names
            if "units" in variable.attrs
        }
        return cls(
            _InFile(drive),
            _InFile(first),
            [_InFile(other) for other in others],
            None if interval is None else float(interval),
            channels,
            readings,
            units,
        )

    def to_netcdf(self, path: str | Path) -> None:
        """Write it to a file that `from_netcdf` reads."""
        runs = np.stack([each[0 : len(self)] for each in (self.responses, *self.repeats)])
        unit = {self.units.get(name, "1") for name in self.reading_names}
        dataset = xr.Dataset(
            {
                "inputs": (
                    ("time", "channel"),
                    self.inputs[0 : len(self)],
                    {"units": self.units.get(self.input_names[0], "1")},
                ),
                "responses": (("repeat", "time", "reading"), runs, {"units": unit.pop() if len(unit) == 1 else "1"}),
            },
            {"channel": list(self.input_names), "reading": list(self.reading_names)},
            {} if self.interval is None else {"interval": self.interval},
        )
        write_dataset(Path(path), dataset)

    def every(self, count: int) -> Recording:
        """One point of so many: the last of each hold, where every input was held for that many points.

        >>> import numpy as np
        >>> from morphax.judging import Recording
        >>> u = np.repeat([1.0, 2.0, 3.0], 2)
        >>> Recording(u, u[:, None]).every(2).inputs[:, 0].tolist()
        [1.0, 2.0, 3.0]
        """
        check_count("count", count, 1, len(self))
        beginning = self.inputs[0 : BEGINNING * count]
        changes = np.flatnonzero(np.any(np.diff(beginning, axis=0), axis=1)) + 1
        first = (int(changes[0]) - 1) % count if len(changes) else count - 1
        interval = None if self.interval is None else count * self.interval
        return self._taken(np.s_[first::count], np.s_[first::count], interval)

    def shifted(self, points: int) -> Recording:
        """Every answer beside the input that came so many points later; earlier, where it is negative."""
        check_count("points", abs(points), 0, len(self) - 1)
        late, early = (
            (np.s_[points:], np.s_[: len(self) - points]) if points >= 0 else (np.s_[:points], np.s_[-points:])
        )
        return self._taken(late, early, self.interval)

    def _taken(self, inputs: slice, responses: slice, interval: float | None) -> Recording:
        """Some of the points; what is in a file stays there."""
        first, *others = (_taken(each, responses) for each in (self.responses, *self.repeats))
        return replace(self, inputs=_taken(self.inputs, inputs), responses=first, repeats=others, interval=interval)

    def missing(self) -> str | None:
        """Says which readings are missing, in which run; None where there are all."""
        for number, run in enumerate((self.responses, *self.repeats)):
            points, first, low = 0, "", 0
            for stretch in stretches(run, 0):
                gaps = np.argwhere(~np.isfinite(stretch))
                if len(gaps) and not points:
                    row, place = gaps[0].tolist()
                    first = f"the first is {self.reading_names[place]} of point {low + row}"
                points += len(np.unique(gaps[:, 0]))
                low += len(stretch)
            if points:
                where = f" of repeat {number + 1}" if self.repeats else ""
                return f"readings of {points} of {low} points{where} are missing, {first}; cut the recording there"
        return None

    def detrended(self, window: int = 200) -> Recording:
        """Readings less their mean over so many points around: what drifts more slowly is gone.

        **Raises:** `ValueError` for a window of fewer than 3 points, and where readings are missing.
        """
        check_count("window", window, 3, len(self))
        if missing := self.missing():
            raise ValueError(missing)
        runs = [
            _without_drift(np.asarray(each[0 : len(self)], float), window) for each in (self.responses, *self.repeats)
        ]
        return replace(self, responses=runs[0], repeats=tuple(runs[1:]))


def record(
    substrate: Substrate,
    inputs: Float[np.ndarray, "time ..."],
    *,
    repeats: int = 1,
    noise: float = 0.0,
    interval: float | None = None,
    key: PRNGKeyArray,
) -> Recording:
    """What a substrate answers to some inputs, as if it had been measured.

    **Arguments:**

    - `repeats`: how many times the same inputs are applied, each from an initial state of its own.
    - `noise`: Gaussian noise on every reading, in units of that reading's standard deviation.
    - `interval`: between two inputs, in seconds.

        >>> import jax
        >>> from morphax import JosephsonMixer
        >>> from morphax.judging import record
        >>> u = jax.random.uniform(jax.random.key(0), (500,))
        >>> record(JosephsonMixer.two_mode(measured=9), u, repeats=2, key=jax.random.key(1)).responses.shape
        (500, 9)
    """
    check_count("repeats", repeats, 1)
    check_range("noise", noise, low=0.0)
    runs = []
    for each in jax.random.split(key, repeats):
        run_key, meter = jax.random.split(each)
        read = np.asarray(evolve(substrate, inputs, key=run_key)[0])
        if noise:
            read = read + noise * read.std(axis=0) * np.asarray(jax.random.normal(meter, read.shape, read.dtype))
        runs.append(read)
    return Recording(np.asarray(inputs, float), runs[0], runs[1:], interval)


class _InFile:
    """A variable of a file, of which slices of time are read when they are asked for, and some that follow with them.

    A read costs a millisecond whatever its length. Every thread reads a part of its own.
    """

    def __init__(self, variable: Any):
        self.variable = variable.transpose("time", ...)
        self.shape = (*self.variable.shape, 1) if variable.ndim == 1 else self.variable.shape
        self.ahead = max(AHEAD // max(math.prod(self.shape[1:]), 1), 1)
        self.read = threading.local()

    def __getitem__(self, time: slice) -> np.ndarray:
        low, high, step = time.indices(self.shape[0])
        first, rows = getattr(self.read, "part", (0, np.empty((0, *self.shape[1:]))))
        if low < first or high > first + len(rows):
            read = self.variable[low : max(high, low + self.ahead)].values
            first, rows = low, read.reshape(len(read), *self.shape[1:])
            self.read.part = first, rows
        return rows[low - first : high - first : step]


class _Taken:
    """Some of the points of what gives arrays for slices of time."""

    def __init__(self, source: Any, which: slice):
        self.source = source
        self.places = range(source.shape[0])[which]
        self.shape = (len(self.places), *source.shape[1:])

    def __getitem__(self, time: slice) -> np.ndarray:
        places = self.places[time]
        return np.asarray(self.source[places.start : places.stop : places.step])


def _taken(source: Any, which: slice) -> Any:
    return source[which] if isinstance(source, np.ndarray) else _Taken(source, which)


def _names(given: tuple[str, ...], count: int, letter: str, argument: str) -> tuple[str, ...]:
    if given and len(given) != count:
        raise ValueError(f"{argument} has {len(given)} names; there are {count}")
    return tuple(given) or tuple(f"{letter}{place}" for place in range(count))


def _labels(variable: Any, dim: str) -> tuple[str, ...]:
    return tuple(str(each) for each in variable[dim].values) if dim in variable.coords else ()


def _matching(table: Table, names: str) -> list[str]:
    return list(dict.fromkeys(found for name in names.split(",") for found in table.matching(name.strip())))


def _runs(numbers: Float[np.ndarray, " rows"]) -> list[np.ndarray]:
    return np.split(np.arange(len(numbers)), np.flatnonzero(np.diff(numbers)) + 1)


def _interval(path: str | Path, times: Float[np.ndarray, " time"]) -> float:
    steps = np.diff(times)
    if not np.all(steps > 0):
        raise ValueError(f"{path}: the time does not rise in point {int(np.argmax(steps <= 0)) + 1}")
    usual = float(np.median(steps))
    if np.any(np.abs(steps - usual) > 0.5 * usual):
        place = int(np.argmax(np.abs(steps - usual) > 0.5 * usual))
        raise ValueError(
            f"{path}: between points {place} and {place + 1} there are {steps[place]:g}, and otherwise {usual:g}; "
            "points are missing there: cut the recording, or write them with empty readings"
        )
    return usual


def _without_drift(rows: Float[np.ndarray, "time readings"], window: int) -> Float[np.ndarray, "time readings"]:
    from scipy.ndimage import uniform_filter1d

    return rows - uniform_filter1d(rows, window, axis=0, mode="nearest")
