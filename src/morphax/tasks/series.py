"""Forecasting a measured series: reading it from a CSV file, splitting it in time, and the yearly sunspot number."""

import csv
import difflib
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from morphax._checks import check_count, check_finite, check_range, check_real, is_concrete
from morphax.files import check_regular, note_file
from morphax.tasks.base import Task

SUNSPOTS = Path(__file__).with_name("sunspots.csv")
MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "?", "-"})
LARGEST_FILE = 200_000_000
"""Bytes: all cells of a file are held as text while it is read, in about ten times as much memory."""
DECIMAL_COMMA = re.compile(r"[+-]?(\d+,\d*|,\d+)([eE][+-]?\d+)?")
THOUSANDS = re.compile(r"[+-]?\d{1,3}([.,' \u00a0\u202f]\d{3})+([.,]\d*)?")
COMMA_OR_THOUSAND = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}")
Rows = list[tuple[int, list[str]]]
"""The non-empty rows of a file: (line number from 1, cells)."""


class Scaling(eqx.Module):
    r"""The linear map that takes [low, high] to [-1, 1].

    Numbers that are known (not traced by JAX) are mapped in double precision, whatever the precision of JAX: of values
    like 1.7e9 +- 10 single precision keeps nothing.

    >>> import jax.numpy as jnp
    >>> from morphax.tasks.series import Scaling
    >>> scaling = Scaling(low=jnp.array(0.0), high=jnp.array(10.0))
    >>> scaling.to_unit(jnp.array([0.0, 5.0, 20.0])).tolist()
    [-1.0, 0.0, 3.0]
    >>> scaling.from_unit(jnp.array([-1.0, 3.0])).tolist()
    [0.0, 20.0]
    """

    low: Float[Array | np.ndarray, ""]
    high: Float[Array | np.ndarray, ""]

    def to_unit(self, values: Float[Array | np.ndarray, "*shape"]) -> Float[Array, "*shape"]:
        """From the series' own unit to the scale where [low, high] is [-1, 1]; values beyond are not clipped."""
        values, low, high = _exact(values, self.low, self.high)
        return jnp.asarray(2 * (values - low) / (high - low) - 1, jnp.result_type(float))

    def from_unit(self, values: Float[Array | np.ndarray, "*shape"]) -> Float[Array | np.ndarray, "*shape"]:
        """Back to the series' own unit: the inverse of `to_unit`, a NumPy array where the numbers are known."""
        values, low, high = _exact(values, self.low, self.high)
        return low + (values + 1) / 2 * (high - low)


def _exact(*arrays: Any) -> Iterator[Any]:
    """In double precision on the host, or as they are where one of them is traced."""
    known = all(map(is_concrete, arrays))
    return (np.asarray(array, np.float64) if known else jnp.asarray(array) for array in arrays)


def forecast(
    values: ArrayLike,
    horizon: int = 1,
    *,
    train_fraction: float = 0.67,
    washout: int = 10,
) -> tuple[Task, Scaling]:
    r"""Predict a measured series `horizon` points ahead, split in time order.

    The first $s$ = round(`train_fraction` x length) values are known when the model is fitted, the others are to be
    forecast. The split is one of *targets*: with horizon $h$,

    - training pairs are $(x_t, x_{t+h})$ with $t + h < s$: no later value is ever a training target;
    - test pairs go on where they end, $t \ge s - h$: the first test target is $x_s$ and every later value is forecast
      exactly once. The first $h$ test *inputs* are known values that had no known target.

    The scale [-1, 1] is set by the smallest and the largest of the $s$ known values; later values may exceed it.

    **Arguments:**

    - `values`: the series, shape (time,), at equal time steps, finite, in any unit. Known values are scaled in double
      precision before they take the precision of JAX.
    - `horizon`: how many points ahead to predict, $h \ge 1$.
    - `train_fraction`: part of the series known to the fit, in ]0, 1[.
    - `washout`: training points that drive the substrate but enter no fit, >= 0; at least 2 must remain.

    **Returns:** a regression `Task` with scaled inputs of shape (time,) and scaled targets of shape (time, 1), and the
    `Scaling` whose `from_unit` takes forecasts back to the series' unit.

    **Raises:** `ValueError` for values that are not one-dimensional and finite, are all equal in the training part, are
    too large on its scale, or are too few for the horizon and the washout.

        >>> import jax.numpy as jnp
        >>> from morphax.tasks.series import forecast
        >>> task, scaling = forecast(jnp.arange(10.0), horizon=2, train_fraction=0.6, washout=1)
        >>> [scaling.from_unit(x).round().tolist() for x in (task.train_inputs, task.train_targets[:, 0])]
        [[0.0, 1.0, 2.0, 3.0], [2.0, 3.0, 4.0, 5.0]]
        >>> [scaling.from_unit(x).round().tolist() for x in (task.test_inputs, task.test_targets[:, 0])]
        [[4.0, 5.0, 6.0, 7.0], [6.0, 7.0, 8.0, 9.0]]
    """
    check_real("values", values)
    series = next(_exact(values))
    if series.ndim != 1:
        raise ValueError(f"values has shape {series.shape}; it must be one series, (time,)")
    check_finite("values", series)
    known, train_points = _split(series.size, horizon, train_fraction, washout)
    scaling = Scaling(series[:known].min(), series[:known].max())
    if is_concrete(series) and scaling.low == scaling.high:
        raise ValueError(f"values is {float(scaling.low):g} throughout the training part; it must vary")
    with np.errstate(over="ignore", invalid="ignore"):  # what comes of it is refused
        scaled = scaling.to_unit(series)
    _check_scaled(series, scaled, scaling)
    inputs, targets = scaled[:-horizon], scaled[horizon:, None]
    task = Task(
        train_inputs=inputs[:train_points],
        train_targets=targets[:train_points],
        test_inputs=inputs[train_points:],
        test_targets=targets[train_points:],
        kind="regression",
        washout=washout,
    )
    return task, scaling


def sunspots() -> tuple[Int[np.ndarray, " time"], Float[np.ndarray, " time"]]:
    """The yearly mean sunspot number from 1700 to 2008: (years, values), 309 of each.

    Source: National Geophysical Data Center, NOAA, www.ngdc.noaa.gov (public domain), as distributed with statsmodels
    (`statsmodels.datasets.sunspots`); the series ends before the revision of 2015 and is on the old scale.

        >>> from morphax.tasks.series import sunspots
        >>> years, values = sunspots()
        >>> int(years[0]), int(years[-1]), float(values.max())
        (1700, 2008, 190.2)
    """
    return read_series(SUNSPOTS, "YEAR")[1].astype(int), read_series(SUNSPOTS, "SUNACTIVITY")[1]


def read_series(path: str | Path, column: str | None = None) -> tuple[str, Float[np.ndarray, " time"]]:
    """Read one column of numbers from a CSV file.

    Cells are separated by commas, or by semicolons or tabs where the first row holds any. With semicolons or tabs the
    numbers of the whole file may have decimal commas instead of points ("1,5", as spreadsheets write in German or
    French). Thousands separators are not read. The first row is taken for a header when none of its cells is a number,
    or when a column is text there and mostly numbers below. Without a header the columns are named "1", "2", ... Empty
    lines are skipped.

    **Arguments:**

    - `path`: the file, in UTF-8; a regular one of at most 200 MB.
    - `column`: name of the column; by default the last one that holds numbers. Columns of text are skipped, those that
      are mostly numbers are not: text in one is refused.

    **Returns:** the name of the column and its values, in the order of the file, in double precision.

    **Raises:** `ValueError`, in one line, when the file cannot be read, the column does not exist (names the nearest)
    or two have its name, a cell holds text (says the row and the text) or nothing (says which rows), commas may be
    decimal or not, or there are fewer than two rows. Rows count the lines of the file from 1.

        >>> import tempfile, pathlib
        >>> from morphax.tasks.series import read_series
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder) / "tide.csv"
        ...     _ = path.write_text("day,height\\nMon,1.5\\nTue,2.5\\n")
        ...     name, values = read_series(path)
        >>> name, values.tolist()
        ('height', [1.5, 2.5])
    """
    note_file(Path(path))
    rows = _read_rows(Path(path))
    names, rows = _split_header(rows)
    for line, cells in rows:
        if len(cells) != len(names):
            raise ValueError(
                f"{path}: row {line} has a different number of cells than the first row: {len(cells)}, not {len(names)}"
            )
    if len(rows) < 2:
        raise ValueError(f"{path} has too few rows of data: {len(rows)}; a series needs at least 2")
    index = _last_numeric(path, names, rows) if column is None else _place_of(path, column, names)
    places = [str(place) for place, name in enumerate(names, start=1) if name == names[index]]
    if len(places) > 1:
        raise ValueError(
            f"{path} has {len(places)} columns called {names[index]!r} ({', '.join(places)}); each must have a name of "
            "its own"
        )
    return names[index], _numbers(path, names[index], [(line, cells[index]) for line, cells in rows])


def _check_scaled(values: Any, scaled: Any, scaling: Scaling) -> None:
    """Refuse what is too far from the training part to be told on its scale."""
    if is_concrete(values) and len(beyond := np.flatnonzero(~np.isfinite(np.asarray(scaled)))):
        raise ValueError(
            f"values[{beyond[0]}] is {values[beyond[0]]:g}; scaled by the training part, from {float(scaling.low):g} "
            f"to {float(scaling.high):g}, it is too large for {scaled.dtype}"
        )


def _split(length: int, horizon: int, train_fraction: float, washout: int) -> tuple[int, int]:
    """How many values are known to the fit and how many training pairs they make."""
    check_count("horizon", horizon, 1)
    check_count("washout", washout, 0)
    check_range("train_fraction", train_fraction, low=0.0, high=1.0, open_low=True)
    known = round(train_fraction * length)
    train_points = known - horizon
    if train_points < washout + 2:
        raise ValueError(
            f"values has {length} points, {known} of them for training; horizon {horizon} and washout {washout} need "
            f"at least {horizon + washout + 2} for training"
        )
    if known >= length:
        raise ValueError(f"train_fraction is {train_fraction:g}; of {length} points it leaves none to test on")
    return known, train_points


def _read_rows(path: Path) -> Rows:
    try:
        check_regular(path, LARGEST_FILE)
        with path.open(newline="", encoding="utf-8-sig") as file:
            first = file.readline()
            file.seek(0)
            delimiter = next((mark for mark in ";\t" if mark in first), ",")
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            rows = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is not a CSV file in UTF-8: {error}") from error
    rows = [row for row in rows if any(row[1])]
    if not rows:
        raise ValueError(f"{path} is empty; a series needs at least 2 rows")
    return rows if delimiter == "," else _with_points(path, rows)


def _with_points(path: Path, rows: Rows) -> Rows:
    """The same rows with decimal points, where the file has decimal commas."""
    with_comma = [(line, cell) for line, cells in rows for cell in cells if DECIMAL_COMMA.fullmatch(cell)]
    if not with_comma:
        return rows
    for line, cells in rows:
        for cell in cells:
            if "." in cell and _is_number(cell):
                raise ValueError(
                    f"{path}: {cell!r} in row {line} has a decimal point and {with_comma[0][1]!r} in row "
                    f"{with_comma[0][0]} a comma; a file must have one or the other, and no thousands separators"
                )
    if all(COMMA_OR_THOUSAND.fullmatch(cell) for _, cell in with_comma):
        line, cell = with_comma[0]
        raise ValueError(
            f"{path}: {cell!r} in row {line} may be {cell.replace(',', '.')} or {cell.replace(',', '')}, and so may "
            "all numbers with a comma; write decimal points, and no thousands separators"
        )
    return [
        (line, [cell.replace(",", ".") if DECIMAL_COMMA.fullmatch(cell) else cell for cell in cells])
        for line, cells in rows
    ]


def _split_header(rows: Rows) -> tuple[list[str], Rows]:
    """The names of the columns, and the rows without the header."""
    first, below = rows[0][1], [cells for _, cells in rows[1:]]

    def is_title(index: int, cell: str) -> bool:
        text = not _is_missing(cell) and not _is_number(cell)
        return text and _is_mostly_numbers([cells[index] for cells in below if index < len(cells)])

    if not any(map(_is_number, first)) or any(is_title(index, cell) for index, cell in enumerate(first)):
        return first, rows[1:]
    return [str(index) for index in range(1, len(first) + 1)], rows


def _last_numeric(path: str | Path, names: list[str], rows: Rows) -> int:
    """The place of the last column that is not text."""
    for index in reversed(range(len(names))):
        if _is_mostly_numbers([cells[index] for _, cells in rows]):
            return index
    raise ValueError(f"{path} has no column of numbers (columns: {', '.join(names)})")


def _place_of(path: str | Path, column: str, names: list[str]) -> int:
    if column not in names:
        raise ValueError(_unknown_column(path, column, names))
    return names.index(column)


def _unknown_column(path: str | Path, column: str, names: list[str]) -> str:
    lowered = {name.lower(): name for name in names}
    near = difflib.get_close_matches(column.lower(), lowered, n=1)
    hint = f"did you mean {lowered[near[0]]!r}? " if near else ""
    return f"column is {column!r}, which {path} does not have; {hint}(columns: {', '.join(names)})"


def _numbers(path: str | Path, column: str, cells: list[tuple[int, str]]) -> Float[np.ndarray, " time"]:
    """The cells (line, text) of a column as numbers."""
    missing = [line for line, cell in cells if _is_missing(cell)]
    for line, cell in cells:
        if not (_is_missing(cell) or _is_number(cell)):
            hint = "; write decimal points, and no thousands separators" if _is_written_otherwise(cell) else ""
            raise ValueError(
                f"{path}: column {column!r} holds {cell!r} in row {line}; it must hold finite numbers{hint}"
            )
    if missing:
        listed = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
        raise ValueError(f"{path}: column {column!r} misses {len(missing)} of {len(cells)} values, in row {listed}")
    return np.array([float(cell) for _, cell in cells])


def _is_mostly_numbers(cells: list[str]) -> bool:
    """Whether at least half of the cells that are not missing were meant as numbers."""
    present = [cell for cell in cells if not _is_missing(cell)]
    meant = sum(_number(cell) is not None or _is_written_otherwise(cell) for cell in present)
    return bool(present) and 2 * meant >= len(present)


def _is_missing(cell: str) -> bool:
    return cell.lower() in MISSING


def _is_number(cell: str) -> bool:
    number = _number(cell)
    return number is not None and math.isfinite(number)


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


def _is_written_otherwise(cell: str) -> bool:
    """Whether it is a number with a decimal comma or thousands separators, which is not read as it stands."""
    return bool(DECIMAL_COMMA.fullmatch(cell) or THOUSANDS.fullmatch(cell))
