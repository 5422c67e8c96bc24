r"""The logistic equation in closed form, with its derivative by hand: the step of every auto-oscillator.

$$\frac{dp}{dt} = r p - s p^2 \qquad\Rightarrow\qquad
  p(h) = \frac{p(0)}{e^{-rh} + s \, p(0) \, (1 - e^{-rh}) / r}$$
"""

from functools import partial
from math import factorial
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jax.typing import ArrayLike
from jaxtyping import Array, Float

SERIES_BELOW = 0.25  # argument under which the derivative of (1 - exp(-y)) / y is summed as a series
SERIES_TERMS = {4: 6, 8: 12}  # by the bytes of a number: the next term is below rounding


@jax.custom_jvp
def relative_growth(y: Float[Array, "..."]) -> Float[Array, "..."]:
    r"""$\varphi(y) = (1 - e^{-y}) / y$ for $y \ge 0$, accurate at $y = 0$ with its derivative too.

    >>> import jax.numpy as jnp
    >>> from morphax.dynamics.logistic import relative_growth
    >>> [round(float(value), 4) for value in relative_growth(jnp.array([0.0, 1.0]))]
    [1.0, 0.6321]
    """
    return _growth_and_slope(y)[0]


@relative_growth.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    value, slope, _ = _growth_and_slope(*primals)
    return value, slope * tangents[0]


@jax.custom_jvp
def auto_oscillator_step(
    power: Float[Array, "..."],
    drive: Float[Array, "..."],
    damping_rate: ArrayLike,
    nonlinear_damping: ArrayLike,
    duration: ArrayLike,
) -> Float[Array, "..."]:
    r"""$p(h)$ of the auto-oscillator equation under a constant drive, $dp/dt = -\gamma (1 + Q p) p + I p (1 - p)$.

    It is logistic, $dp/dt = r p - s p^2$ with $r = I - \gamma$ and $s = I + \gamma Q$. Every exponential that is formed
    is at most 1, so nothing overflows however large $|r| h$ is, and $p$ stays in [0, 1]. The derivative is written by
    hand: it shares the exponential with the value, and the backward pass is products only.

    **Arguments:**

    - `power`: $p(0) \in [0, 1]$.
    - `drive`: $I$, any sign.
    - `damping_rate`: $\gamma > 0$.
    - `nonlinear_damping`: $Q \ge 0$.
    - `duration`: $h > 0$.

    Source: Slavin & Tiberkevich, IEEE Trans. Magn. 45, 1875 (2009); Plouet et al., Phys. Rev. Applied 23, 034051
    (2025), Eqs. 1, 2.

        >>> import jax.numpy as jnp
        >>> from morphax.dynamics.logistic import auto_oscillator_step
        >>> power = auto_oscillator_step(jnp.array([0.5, 0.5]), jnp.array([2.0, 0.0]), 1.0, 0.0, 100.0)
        >>> power.round(6).tolist()                       # 1 - damping / drive, and nothing
        [0.5, 0.0]
    """
    return _oscillator(power, drive, damping_rate, nonlinear_damping, duration)[0]


@partial(auto_oscillator_step.defjvp, symbolic_zeros=True)
def _(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Array, Array]:
    power, drive, damping_rate, nonlinear_damping, duration = primals
    after, decays, exponential, filled, slope, inverse = _oscillator(*primals)
    growth, saturation = drive - damping_rate, drive + damping_rate * nonlinear_damping
    # One factor after the other: the square of the inverse may overflow where neither product does.
    part, left = power * inverse, exponential * inverse

    def by_growth() -> Array:
        # The sign of the growth decides which form of the fraction was taken.
        bend = saturation * part * duration * duration * slope
        return part * jnp.where(decays, exponential * (duration + bend), duration * left - bend)

    def by_saturation() -> Array:
        return -after * part * filled

    derivatives = (
        lambda: left * inverse,
        lambda: by_growth() + by_saturation(),
        lambda: nonlinear_damping * by_saturation() - by_growth(),
        lambda: damping_rate * by_saturation(),
        lambda: after * (growth - saturation * after),
    )
    changes = [d() * t for d, t in zip(derivatives, tangents, strict=True) if not isinstance(t, SymbolicZero)]
    return after, jnp.broadcast_to(sum(changes, jnp.zeros_like(after)), after.shape)


def _oscillator(
    power: Array, drive: Array, damping_rate: ArrayLike, nonlinear_damping: ArrayLike, duration: ArrayLike
) -> tuple[Array, ...]:
    """p(h), whether r < 0, exp(-|r| h), (1 - exp(-|r| h)) / |r|, phi'(|r| h), and 1 / denominator."""
    growth, saturation = drive - damping_rate, drive + damping_rate * nonlinear_damping
    decays = growth < 0
    relative, slope, exponential = _growth_and_slope(jnp.asarray(jnp.abs(growth) * duration))
    filled = relative * duration
    denominator = jnp.where(decays, 1.0, exponential) + saturation * power * filled
    # Without power nothing grows, even where the exponential underflows.
    inverse = 1 / jnp.where(denominator > 0, denominator, 1.0)
    after = power * inverse * jnp.where(decays, exponential, 1.0)
    return after, decays, exponential, filled, slope, inverse


def _growth_and_slope(y: Array) -> tuple[Array, Array, Array]:
    """phi(y), phi'(y) = (exp(-y) - phi) / y, and exp(-y)."""
    y = jnp.asarray(y)
    exponential = jnp.exp(-y)
    small = y < SERIES_BELOW
    inverse = 1 / jnp.where(small, 1.0, y)
    far = (1 - exponential) * inverse
    slope = jnp.where(small, _slope_series(y), (exponential - far) * inverse)
    return jnp.where(small, exponential - y * slope, far), slope, exponential


def _slope_series(y: Array) -> Array:
    """phi'(y) = sum over n >= 1 of (-1)^n n / (n + 1)! y^(n - 1)."""
    terms = SERIES_TERMS.get(y.dtype.itemsize, max(SERIES_TERMS.values()))
    series = jnp.zeros_like(y)
    for n in range(terms, 0, -1):
        series = (-1) ** n * n / factorial(n + 1) + y * series
    return series
