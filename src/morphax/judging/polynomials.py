"""Orthonormal polynomials of any distribution of inputs, and inputs that are made independent.

Values may be an array, or anything with a length that gives arrays for slices: it is read in stretches.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
from jaxtyping import Float

from morphax._checks import check_count

CHUNK = 1 << 16
"""So many values at once: what they need beside them stays small however long a recording is."""
VANISHED = 1e-6
"""A next polynomial with a smaller norm, before it is scaled, is none: there are no more levels than degrees."""


class Polynomials(NamedTuple):
    r"""Polynomials $p_0, p_1, \dots$ that are orthonormal under the distribution of some values.

    $$\langle p_i p_j \rangle = \delta_{ij}, \qquad
      \beta_{n + 1} p_{n + 1}(z) = (z - \alpha_n) p_n(z) - \beta_n p_{n - 1}(z), \qquad
      z = (x - \text{mean}) / \text{scale}$$

    (Stieltjes). Of L different values there are polynomials up to degree L - 1.

        >>> import numpy as np
        >>> from morphax.judging.polynomials import Polynomials
        >>> coin = Polynomials.of(np.array([0.0, 1.0, 1.0, 0.0]), degree=5)
        >>> coin.degree, coin(np.array([0.0, 1.0])).tolist()
        (1, [[1.0, 1.0], [-1.0, 1.0]])
    """

    mean: float
    scale: float
    alpha: tuple[float, ...]
    beta: tuple[float, ...]

    @classmethod
    def of(cls, values: Any, degree: int) -> Self:
        """Up to a degree >= 1, or as far as there are levels. **Raises:** `ValueError` where all values are equal."""
        check_count("degree", degree, 1)
        mean, scale = mean_and_deviation(values)
        if not scale > 0:
            raise ValueError(f"values are all {mean:g}; an input must vary")
        made = cls(mean, scale, (), ())
        while len(made.beta) < degree:
            alpha = made._mean(values, times_z=True)
            unscaled = made._replace(alpha=(*made.alpha, alpha), beta=(*made.beta, 1.0))
            beta = unscaled._mean(values) ** 0.5
            if beta < VANISHED:
                break
            made = unscaled._replace(beta=(*made.beta, beta))
        return made

    @property
    def degree(self) -> int:
        return len(self.beta)

    def __call__(self, values: Float[np.ndarray, " time"]) -> Float[np.ndarray, "degrees time"]:
        """All of them, from degree 0 on."""
        return np.stack(self._at((values - self.mean) / self.scale))

    def _at(self, z: np.ndarray) -> list[np.ndarray]:
        known = [np.ones_like(z)]
        for degree, (alpha, beta) in enumerate(zip(self.alpha, self.beta, strict=True)):
            following = (z - alpha) * known[-1]
            if degree:
                following -= self.beta[degree - 1] * known[-2]
            known.append(following / beta)
        return known

    def _mean(self, values: Any, *, times_z: bool = False) -> float:
        """Of the square of the last polynomial, or of z times it."""
        total = 0.0
        for chunk in _chunks(values):
            z = (chunk - self.mean) / self.scale
            square = self._at(z)[-1] ** 2
            total += float(np.sum(z * square if times_z else square))
        return total / len(values)


@dataclass(frozen=True)
class Channel:
    """One channel of inputs (time, channels)."""

    inputs: Any
    place: int

    def __len__(self) -> int:
        return self.inputs.shape[0]

    def __getitem__(self, time: slice) -> Float[np.ndarray, " time"]:
        return np.asarray(self.inputs[time][:, self.place], float)


@dataclass(frozen=True)
class Innovations:
    r"""What of an input its past does not foretell linearly: $e_t = z_t - \sum_k a_k z_{t - k}$, for $z$ less its mean.

    A function of past inputs is one of past innovations as well, and these are uncorrelated, which the products of
    polynomials that capacities are measured with need.

    **Attributes:** `source`, the inputs; their `mean`; `coefficients` $a_k$. Its slices are innovations, of which the
    first have less of a past.
    """

    source: Any
    mean: float
    coefficients: Float[np.ndarray, " order"]

    @classmethod
    def of(cls, inputs: Any, order: int = 5) -> Self:
        """Of an autoregression of this order, fitted by the Yule-Walker equations."""
        check_count("order", order, 1)
        from scipy.linalg import solve_toeplitz

        covariances = autocovariances(inputs, order)
        found = solve_toeplitz(covariances[:-1], covariances[1:])
        return cls(inputs, mean_and_deviation(inputs)[0], found)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, time: slice) -> Float[np.ndarray, " time"]:
        low, high, step = time.indices(len(self))
        past = _with_past(self.source, low, high, len(self.coefficients), self.mean)
        return np.convolve(past, np.concatenate([[1.0], -self.coefficients]), mode="valid")[::step]


def mean_and_deviation(values: Any) -> tuple[float, float]:
    """Of values that are read in stretches; their deviation is exactly 0 where all are equal."""
    first = float(values[0:1][0])
    total = squares = 0.0
    for chunk in _chunks(values):
        total += float(np.sum(chunk - first))
        squares += float(np.sum((chunk - first) ** 2))
    shift = total / len(values)
    return first + shift, max(squares / len(values) - shift**2, 0.0) ** 0.5


def autocovariances(values: Any, lags: int) -> Float[np.ndarray, " lags"]:
    r"""$\frac{1}{T} \sum_t z_t z_{t - k}$ for k = 0 ... `lags`, of values less their mean."""
    mean, _ = mean_and_deviation(values)
    sums = np.zeros(lags + 1)
    for low in range(0, len(values), CHUNK):
        high = min(low + CHUNK, len(values))
        z = _with_past(values, low, high, lags, mean)
        sums += [z[lags:] @ z[lags - lag : len(z) - lag] for lag in range(lags + 1)]
    return sums / len(values)


def ljung_box(values: Any, lags: int = 20) -> float:
    r"""How probable autocorrelations as large as these are of independent values: the p-value of Ljung and Box (1978).

    $$Q = T (T + 2) \sum_{k=1}^{K} \frac{\rho_k^2}{T - k} \sim \chi^2_K$$
    """
    from scipy.stats import chi2

    covariances = autocovariances(values, lags)
    shares = (covariances[1:] / covariances[0]) ** 2 / (len(values) - np.arange(1, lags + 1))
    return float(chi2.sf(len(values) * (len(values) + 2) * np.sum(shares), lags))


def _chunks(values: Any) -> Iterator[Float[np.ndarray, " some"]]:
    for low in range(0, len(values), CHUNK):
        yield np.asarray(values[low : low + CHUNK], float)


def _with_past(values: Any, low: int, high: int, past: int, mean: float) -> Float[np.ndarray, " past+time"]:
    """Values less a mean, and so many before them; 0 where there is no past."""
    first = max(low - past, 0)
    return np.pad(np.asarray(values[first:high], float) - mean, (past - low + first, 0))
