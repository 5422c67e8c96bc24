"""Readings of a device, made independent of each other: the basis on which everything about them is measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

ROWS = 4096
"""Points of time at once: a stretch of so many readings stays in the cache."""
FLOATING = 10.0
"""A direction with a smaller variance than so many times that of floating-point rounding holds nothing but that."""
SAMPLE = 4096
STEPS = 4.0
"""Readings that deviate by fewer steps than this are no rounded numbers but levels, each of which is meant."""


@dataclass(frozen=True)
class Readings:
    r"""Readings $X$ (time, readings) from point `start` on, and $Q$ with $Q^T Q = T$ that spans the same space.

    $$Q = \frac{X - \bar X}{\sigma} A, \qquad h_t = |Q_t|^2 / T$$

    Columns of $Q$ are principal components of readings in their own standard deviation, scaled to variance 1. The
    leverage $h_t$ is how much of a reading at time $t$ a fit to all readings would take from that reading itself.

    The recording is read in stretches, so that it may be a file: anything with a `shape` that gives a NumPy array for a
    slice of time.

    **Attributes:**

    - `kept`: which readings vary; the others are constant.
    - `mean`, `deviation`: of those.
    - `variances`: of the principal components that are more than rounding, falling. All of them would sum up to the
      number of readings that are kept. The steps of a converter are noise as any other: what is as large as they could
      make it by chance (Marchenko & Pastur) is left out, in directions in which coarse readings have a part.
    """

    source: Any
    start: int
    kept: Int[np.ndarray, " kept"]
    mean: Float[np.ndarray, " kept"]
    deviation: Float[np.ndarray, " kept"]
    variances: Float[np.ndarray, " rank"]
    axes: Float[np.ndarray, "kept rank"]

    @classmethod
    def of(cls, source: Any, start: int = 0) -> Readings:
        """Of a recording, from a point of time on."""
        count = source.shape[0] - start
        first = np.asarray(source[start : start + 1], float)[0]
        total, squares, low = np.zeros(len(first)), np.zeros(len(first)), start
        for stretch in stretches(source, start):
            _check_finite("responses", stretch, low)
            low += len(stretch)
            total += np.sum(stretch - first, axis=0)
            squares += np.sum((stretch - first) ** 2, axis=0)
        mean = first + total / count
        deviation = np.sqrt(np.maximum(squares / count - (total / count) ** 2, 0.0))
        floating, steps = _rounding(source, start, mean)
        kept = np.flatnonzero(deviation > 4 * np.maximum(floating, steps))
        mean, deviation = mean[kept], deviation[kept]
        triangle = np.zeros((0, len(kept)))
        for stretch in stretches(source, start):
            scaled = (stretch[:, kept] - mean) / deviation
            triangle = np.linalg.qr(np.concatenate([triangle, scaled]), mode="r")
        _, singular, directions = np.linalg.svd(triangle)
        directions = directions[: len(singular)]
        variances = singular**2 / count
        # What rounding alone would be, in each direction.
        by_floating, by_steps = (directions**2 @ (each[kept] / deviation) ** 2 for each in (floating, steps))
        edge = (1 + (len(kept) / count) ** 0.5) ** 2
        limit = (max(len(kept), 1) * np.finfo(float).eps) ** 2 * float(np.max(variances, initial=0.0))
        more = variances > np.maximum(limit, np.maximum(FLOATING * by_floating, edge * by_steps))
        axes = directions[more].T / np.sqrt(variances[more])
        return cls(source, start, kept, mean, deviation, variances[more], axes)

    @property
    def rank(self) -> int:
        """How many readings are independent of each other."""
        return len(self.variances)

    def __len__(self) -> int:
        return self.source.shape[0] - self.start

    def between(self, low: int, high: int) -> Float[np.ndarray, "time rank"]:
        """Rows of $Q$, in single precision: sums over them are in double."""
        raw = np.asarray(self.source[low:high], float)[:, self.kept]
        return (((raw - self.mean) / self.deviation) @ self.axes).astype(np.float32)


class WithNoise:
    """Readings with Gaussian noise, which is the same whenever and in whatever pieces they are read.

    **Arguments:** `source`, as of `Readings`; `amplitude`, the noise's standard deviation of each reading; `seed`.
    """

    def __init__(self, source: Any, amplitude: Float[np.ndarray, " readings"], seed: int):
        self.source = source
        self.amplitude = amplitude
        self.seed = seed
        self.shape = source.shape

    def __getitem__(self, time: slice) -> Float[np.ndarray, "time readings"]:
        low, high, step = time.indices(self.shape[0])
        first = low // ROWS
        drawn = [
            np.random.default_rng([self.seed, place]).standard_normal((ROWS, self.shape[1]))
            for place in range(first, -(-high // ROWS))
        ]
        noise = np.concatenate(drawn)[low - first * ROWS : high - first * ROWS]
        return (np.asarray(self.source[low:high], float) + self.amplitude * noise)[::step]


def as_table(name: str, values: Any) -> Any:
    """Numbers (time, channels), from those or (time,): an array, or what gives arrays for slices of time.

    **Raises:** `ValueError` for another shape, and where one is not finite.
    """
    if not hasattr(values, "shape") or hasattr(values, "__array__"):
        values = np.asarray(values, float)
        values = values[:, None] if values.ndim == 1 else values
    if len(values.shape) != 2:
        raise ValueError(f"{name} has shape {values.shape}; it must be (time,) or (time, channels)")
    low = 0
    for stretch in stretches(values, 0):
        _check_finite(name, stretch, low)
        low += len(stretch)
    return values


def stretches(source: Any, start: int) -> Iterator[Float[np.ndarray, "time readings"]]:
    """All readings from a point on, some at a time."""
    for low in range(start, source.shape[0], ROWS):
        yield np.asarray(source[low : low + ROWS], float)


def _check_finite(name: str, rows: np.ndarray, low: int) -> None:
    """Of rows from point `low` on."""
    if not np.all(np.isfinite(rows)):
        row, place = np.argwhere(~np.isfinite(rows))[0].tolist()
        raise ValueError(f"{name}[{low + row}, {place}] is {rows[row, place]}; {name} must be finite")


def _rounding(source: Any, start: int, mean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """By how much numbers are rounded, by floating point and by the steps of a converter where there are such."""
    sample = np.asarray(source[start : start + SAMPLE])
    smallest = np.finfo(sample.dtype).eps if sample.dtype.kind == "f" else np.finfo(float).eps
    floating = smallest * np.maximum(np.abs(mean), np.abs(sample).max(axis=0)) / 12**0.5
    return floating, np.array([_step(column) / 12**0.5 for column in sample.T.astype(float)])


def _step(values: np.ndarray) -> float:
    """The distance of the levels to which values are rounded; 0 where they are not, or there are a few levels only."""
    levels = np.unique(values)
    if len(levels) < 2:
        return 0.0
    least = float(np.diff(levels).min())
    places = (levels - levels[0]) / least
    on_levels = bool(np.all(np.abs(places - np.rint(places)) < 1e-2))
    # Numbers that were never rounded lie on levels, too, if these are as fine as floating point.
    shared = len(levels) < len(values) / 2
    return least if on_levels and shared and np.std(values) > STEPS * least else 0.0
