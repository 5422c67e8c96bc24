"""Orthonormal polynomials of any distribution of inputs, and inputs that are made independent."""

from __future__ import annotations

from typing import NamedTuple, Self

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
    def of(cls, values: Float[np.ndarray, " time"], degree: int) -> Self:
        """Up to a degree >= 1, or as far as there are levels. **Raises:** `ValueError` where all values are equal."""
        check_count("degree", degree, 1)
        mean, scale = float(np.mean(values)), float(np.std(values))
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

    def _mean(self, values: np.ndarray, *, times_z: bool = False) -> float:
        """Of the square of the last polynomial, or of z times it."""
        total = 0.0
        for low in range(0, len(values), CHUNK):
            z = (values[low : low + CHUNK] - self.mean) / self.scale
            square = self._at(z)[-1] ** 2
            total += float(np.sum(z * square if times_z else square))
        return total / len(values)


class Innovations(NamedTuple):
    r"""What of an input its past does not foretell linearly: $e_t = z_t - \sum_k a_k z_{t - k}$.

    A function of past inputs is one of past innovations as well, and these are uncorrelated, which the products of
    polynomials that capacities are measured with need.

    **Attributes:** `values`, as many as inputs, whose first `order` have less of a past; `coefficients` $a_k$.
    """

    values: Float[np.ndarray, " time"]
    coefficients: Float[np.ndarray, " order"]

    @classmethod
    def of(cls, inputs: Float[np.ndarray, " time"], order: int = 5) -> Self:
        """Of an autoregression of this order, fitted by the Yule-Walker equations."""
        check_count("order", order, 1)
        from scipy.linalg import solve_toeplitz
        from scipy.signal import lfilter

        z = inputs - np.mean(inputs)
        covariances = autocovariances(z, order)
        found = solve_toeplitz(covariances[:-1], covariances[1:])
        return cls(np.asarray(lfilter(np.concatenate([[1.0], -found]), [1.0], z)), found)


def autocovariances(values: Float[np.ndarray, " time"], lags: int) -> Float[np.ndarray, " lags"]:
    r"""$\frac{1}{T} \sum_t z_t z_{t - k}$ for k = 0 ... `lags`, of values less their mean."""
    z = values - np.mean(values)
    return np.array([z[: len(z) - lag] @ z[lag:] for lag in range(lags + 1)]) / len(z)


def ljung_box(values: Float[np.ndarray, " time"], lags: int = 20) -> float:
    r"""How probable autocorrelations as large as these are of independent values: the p-value of Ljung and Box (1978).

    $$Q = T (T + 2) \sum_{k=1}^{K} \frac{\rho_k^2}{T - k} \sim \chi^2_K$$
    """
    from scipy.stats import chi2

    covariances = autocovariances(values, lags)
    shares = (covariances[1:] / covariances[0]) ** 2 / (len(values) - np.arange(1, lags + 1))
    return float(chi2.sf(len(values) * (len(values) + 2) * np.sum(shares), lags))
