"""What the paper printed of quantised perceptrons at its best points, and how that is judged here."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from morphax._lazy import xr
from morphax.lab.experiment import Claim
from morphax.substrates.quantized import QuantizedPerceptron

CLASSICAL, HTANH, ACTIVATION = "classical", "htanh", "activation"
CLASSICAL_STEPS = 19
"""g = pi / 2 in units of pi / 38."""
TWO_ERRORS = 0.007
"""Two binomial standard errors of the difference of two validation errors."""


class Point(NamedTuple):
    """One of the paper's best points: the error that it printed there, figure and item, width and strength."""

    error: float
    figure: str
    item: str
    width: float = 0.0
    strength: float = np.pi / 2

    def reached(self, text: str, kind: str, cause: str = "") -> Claim:
        """The printed error, after the last epoch."""
        return self._equal(text, final(kind, self), self.figure, cause)

    def least(self, text: str, found: Callable[[xr.Dataset], float], cause: str = "") -> Claim:
        """The printed error is the least of a sweep with one network a point: the same of ours."""
        return self._equal(text, found, f"{self.figure}; both are the least of single networks", cause)

    def _equal(self, text: str, found: Callable[[xr.Dataset], float], source: str, cause: str) -> Claim:
        return Claim.within(text, self.error, found, source=source, tolerance=0.003, item=self.item, cause=cause)

    def gains(self, text: str, kind: str) -> Claim:
        """Less error than the classical network, with 95 % confidence."""
        text = f"{text}: lower end of the 95 % interval"
        item = {"rotation": "rotation helps", "weak": "weak helps", "both": "both help"}[self.item]
        return Claim.at_least(text, 0.0, advantage(kind, point=self), source=self.figure, item=item)


ROTATION = Point(0.0472, "Fig. 5b", "rotation", width=10**-0.5)
WEAK = Point(0.0529, "Fig. 7b", "weak", strength=5 * np.pi / 19)
BOTH = Point(0.0463, "Fig. 8", "both", width=10 ** (-1 / 3), strength=9 * np.pi / 19)


def answer_up(preactivations: np.ndarray, *, width: float = 0.0, strength: float | None = None) -> np.ndarray:
    """Probability that a neuron of the first layer answers +1."""
    neuron = QuantizedPerceptron([np.ones((1, 1))] * 2, width=width, strength=strength)
    return np.asarray(jax.vmap(lambda h: neuron.probability(h, jnp.ones((1, 1))))(jnp.asarray(preactivations)[:, None]))


def wrong_at(preactivations: np.ndarray, *, width: float = 0.0, strength: float | None = None) -> np.ndarray:
    """Probability that it does not answer the sign of its preactivation."""
    up = answer_up(preactivations, width=width, strength=strength)
    return np.where(preactivations >= 0, 1 - up, up)


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
