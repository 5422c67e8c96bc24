"""Forecasting a measured series: reading it from a CSV file, splitting it in time, and the yearly sunspot number."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from morphax._checks import check_count, check_finite, check_range, check_real, is_concrete
from morphax.tasks.base import Task
from morphax.tasks.tables import read_table

SUNSPOTS = Path(__file__).with_name("sunspots.csv")


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
    table = read_table(path)
    if len(table.rows) < 2:
        raise ValueError(f"{path} has too few rows of data: {len(table.rows)}; a series needs at least 2")
    name = table.last_numeric() if column is None else column
    return name, table.column(name)


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
