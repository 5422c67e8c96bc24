"""What the paper printed of quantised perceptrons at its best points, and how that is judged here."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from morphax._lazy import xr
from morphax.lab.experiment import Claim

CLASSICAL, HTANH, ACTIVATION = "classical", "htanh", "activation"


class Point(NamedTuple):
    """One of the paper's best points: the validation error that it printed there, the figure, width and strength."""

    error: float
    figure: str
    width: float = 0.0
    strength: float = np.pi / 2

    def reached(self, text: str, kind: str) -> Claim:
        """The printed error, after the last epoch."""
        return Claim.within(text, self.error, final(kind, self), source=self.figure, tolerance=0.003)

    def gains(self, text: str, kind: str) -> Claim:
        """Less error than the classical network, with 95 % confidence."""
        text = f"{text}: lower end of the 95 % interval"
        return Claim.at_least(text, 0.0, advantage(kind, point=self), source=self.figure)


ROTATION = Point(0.0472, "Fig. 5", width=10**-0.5)
WEAK = Point(0.0529, "Fig. 7", strength=5 * np.pi / 19)
BOTH = Point(0.0463, "Fig. 8", width=10 ** (-1 / 3), strength=9 * np.pi / 19)


def last(dataset: xr.Dataset, kind: str, point: Point | None = None, name: str = "validation") -> xr.DataArray:
    """Errors of all seeds of a kind after the last epoch; KeyError where the run had it at another point."""
    errors = dataset[name].sel(kind=kind).isel(epoch=-1)
    for coordinate, wanted in () if point is None else (("a", point.width), ("g", point.strength)):
        if not np.isclose(errors[coordinate], wanted):
            raise KeyError(f"{kind}: {coordinate} is {float(errors[coordinate])}, not {wanted}")
    return errors


def final(kind: str, point: Point | None = None, name: str = "validation") -> Callable[[xr.Dataset], float]:
    """Mean over seeds of `last`."""
    return lambda d: float(last(d, kind, point, name).mean("seed"))


def advantage(
    better: str, worse: str = CLASSICAL, point: Point | None = None, name: str = "validation"
) -> Callable[[xr.Dataset], float]:
    """Lower end of the 95 % interval (Welch) of how much smaller the error of one kind, at `point`, is than another's.

    The interval covers what differs between seeds: initial weights, order of images, outcomes of measurements; not the
    choice of the images.
    """

    def interval(dataset: xr.Dataset) -> float:
        from scipy import stats

        first, second = last(dataset, worse, name=name).values, last(dataset, better, point, name).values
        parts = [np.var(x, ddof=1) / len(x) for x in (first, second)]
        difference, square = np.mean(first) - np.mean(second), sum(parts)
        if square == 0:
            return float(difference)
        freedom = square**2 / sum(v**2 / (len(x) - 1) for v, x in zip(parts, (first, second), strict=True))
        return float(difference - stats.t.ppf(0.975, freedom) * np.sqrt(square))

    return interval
