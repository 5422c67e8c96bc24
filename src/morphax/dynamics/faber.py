r"""Faber expansion of the exponential of a generator: which ellipse, which coefficients, how many terms.

$$ e^{A} = \sum_n c_n F_n(A), \qquad \sum_n c_n u^n = e^{c + \gamma (u + q / u)} $$

for an ellipse with centre $c$ and foci $c \pm 2 \gamma \sqrt q$ near the numerical range of A.

References: Beckermann & Reichel, SIAM J. Numer. Anal. 47, 3849 (2009), for Faber polynomials and the numerical
range; Huisinga, Pesce, Kosloff & Saalfrank, J. Chem. Phys. 110, 5538 (1999), for Faber propagation of Liouvillians.
"""

from typing import NamedTuple

import equinox.internal as eqxi
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

MAX_TERMS = 256
"""Number of coefficients that are computed; `MAX_CAPACITY` makes sure that the sum ends before."""

MAX_CAPACITY = 80.0
"""Largest half-sum of the semi-axes of the ellipse around the numerical range that one expansion takes.

The terms of order n are bounded by (e MAX_CAPACITY / n)^n, that is e^-42 at n = MAX_TERMS.
"""


class Enclosure(NamedTuple):
    r"""A stadium in the complex plane that contains the numerical range of a generator.

    $$ W(L) \subseteq \{ |z + m| \le m + s \} + i [-\omega, \omega] $$

    Attributes
    ----------
    decay
        $m \ge 0$, inverse time: half of the largest decay rate.
    growth
        $s \ge 0$, inverse time: the largest growth rate of the 2-norm.
    frequency
        $\omega \ge 0$, inverse time: norm of the part that only rotates.
    """

    decay: Float[Array, ""]
    growth: Float[Array, ""]
    frequency: Float[Array, ""]


class Expansion(NamedTuple):
    """Faber expansion of the exponential over one sub-step; no derivative passes through it.

    `tail[n]` times the larger of the norms of F_n x and F_(n+1) x bounds the sum of all terms beyond n + 1.
    """

    substeps: Int[Array, ""]
    centre: Float[Array, ""]
    capacity: Float[Array, ""]
    focus: Float[Array, ""]
    coefficients: Float[Array, " terms"]
    tail: Float[Array, " terms"]


def expand(enclosure: Enclosure, time: Float[Array, ""]) -> Expansion:
    """Choose the ellipse and the number of sub-steps, then the coefficients and the bounds."""
    enclosure, time = lax.stop_gradient((enclosure, time))
    whole = _confocal_capacity(Enclosure(*(time * x for x in enclosure)))
    # What is not finite, or would run for days, gets few sub-steps: it cannot converge, and is NaN in the end.
    wanted = jnp.where(jnp.isfinite(whole), jnp.clip(jnp.ceil(whole / MAX_CAPACITY), 1, 2**20), 1)
    substeps = eqxi.unvmap_max(wanted.astype(jnp.int32))
    stadium = Enclosure(*(time / substeps * x for x in enclosure))
    centre, capacity, focus = _ellipse(stadium)
    growth = jnp.maximum(_confocal_capacity(stadium) / capacity, 1.1)
    return Expansion(
        substeps,
        centre,
        capacity,
        focus,
        _faber_coefficients(centre, capacity, focus),
        _tail_bound(centre, capacity, focus, growth),
    )


def _ellipse(stadium: Enclosure) -> tuple[Float[Array, ""], Float[Array, ""], Float[Array, ""]]:
    """Centre c, capacity gamma (half-sum of the semi-axes) and q of an ellipse on which few terms are needed.

    Any ellipse gives the right sum. This one is smaller than the numerical range, whose corners states hardly reach;
    it was fitted to the fewest terms for one and two damped, driven, coupled, hot and anharmonic modes.
    """
    decay, _, frequency = stadium
    floor = 1e-3  # keeps the divisions finite for a vanishing generator or time
    real_axis = 0.8 * decay
    slow = 25 * decay**2 / (25 * decay**2 + frequency**2 + floor**2)
    imaginary_axis = jnp.sqrt(real_axis**2 + (1 - slow / 2) * frequency**2 - 0.3 * decay**2)
    capacity = (real_axis + imaginary_axis) / 2 + floor
    return -real_axis, capacity, (real_axis**2 - imaginary_axis**2) / (4 * capacity**2)


def _confocal_capacity(stadium: Enclosure) -> Float[Array, ""]:
    """Half-sum of the semi-axes of the ellipse that has the foci of `_ellipse` and contains the stadium."""
    centre, capacity, focus = _ellipse(stadium)
    squared_focus = 4 * capacity**2 * focus
    angle = jnp.asarray(np.linspace(0, np.pi, 65), centre.dtype)
    support = (
        -(stadium.decay + centre) * jnp.cos(angle)
        + (stadium.decay + stadium.growth)
        + stadium.frequency * jnp.sin(angle)
    )
    # The tangents at the 65 angles enclose slightly more than the convex set itself: 1 / cos(pi / 128).
    support = 1.001 * support
    real_squared = jnp.max(support**2 + squared_focus * jnp.sin(angle) ** 2)
    real_squared = jnp.maximum(real_squared, jnp.maximum(squared_focus, 0))
    return (jnp.sqrt(real_squared) + jnp.sqrt(real_squared - squared_focus)) / 2


def _faber_coefficients(centre, capacity, focus) -> Float[Array, " terms"]:
    """The c_n, which are J_n or I_n scaled, by downward recurrence: every one to full relative accuracy.

    From c_(n-1) = (n / gamma) c_n + q c_(n+1) follow the ratios c_n / c_(n-1), which cannot overflow; the sum of the
    series at u = 1 fixes the scale.
    """
    order = jnp.arange(1, MAX_TERMS, dtype=centre.dtype)

    def ratio(above, n):
        here = 1 / (n / capacity + focus * above)
        return here, here

    _, ratios = lax.scan(ratio, jnp.zeros_like(centre), order, reverse=True, unroll=32)
    relative = jnp.cumprod(ratios)
    total = 1 + jnp.sum(relative * (1 + focus**order))
    first = jnp.exp(centre + capacity * (1 + focus)) / total
    return first * jnp.concatenate([jnp.ones((1,), centre.dtype), relative])


def _tail_bound(centre, capacity, focus, growth) -> Float[Array, " terms"]:
    r"""Bound on all terms beyond n + 1, in units of the larger of the norms of $F_n x$ and $F_{n+1} x$.

    Cauchy's estimate on a circle of radius r, $|c_k| \le e^{c + \gamma (r + q / r)} r^{-k}$, is best at the saddle
    $\gamma (r - q / r) = n + 1$ and holds for all k. $F_{n+1+k} = U_k F_{n+1} - q U_{k-1} F_n$ with scaled
    Chebyshev polynomials of the second kind, whose norm is at most $2 R^k / (1 - |q| / R^2)$ when the confocal ellipse
    of R times the capacity contains the numerical range. The geometric sum over k needs r > R.
    """
    order = jnp.arange(MAX_TERMS, dtype=centre.dtype) + 1
    squared = order**2 + 4 * capacity**2 * focus
    radius = (order + jnp.sqrt(jnp.maximum(squared, 0))) / (2 * capacity)
    usable = (squared > 0) & (radius > 1.01 * growth)
    radius = jnp.where(usable, radius, 2 * growth)
    logarithm = centre + capacity * (radius + focus / radius) - order * jnp.log(radius)
    second_kind = 2 * (1 + jnp.abs(focus) / growth) / (1 - jnp.abs(focus) / growth**2)
    amplification = second_kind * growth / (radius - growth)
    return jnp.where(usable, jnp.exp(logarithm) * amplification, jnp.inf)
