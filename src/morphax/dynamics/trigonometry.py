r"""Sine, cosine and arctangent by polynomials, which a CPU evaluates for many numbers at once.

XLA's CPU backend calls a scalar function for every number, 6 to 15 ns each; these take a tenth of that or less. Where
they run is decided when a program is compiled for a device: elsewhere than on a CPU they are the functions of
`jax.numpy`, and so they are in half precision.

The argument is reduced by multiples of $\pi$ that are subtracted in three parts, the first two so short that nothing is
rounded before the third (Cody & Waite). The polynomials are Chebyshev interpolants of 40 digits.

Source: Cody & Waite, Software Manual for the Elementary Functions (Prentice-Hall, 1980), chapters 8 and 11.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float


class _Constants(NamedTuple):
    r"""Of one precision: parts of $\pi$ and of $\pi / 2$, and polynomials in $u = z^2$, highest power first.

    $\sin z \approx z + z u S(u)$ and $\cos z \approx 1 + u C(u)$ for $|z| \le 1.574$, which is beyond $\pi / 2$ by what
    rounding $x / \pi$ may cost, $\arctan z \approx z + z u A(u)$ for $|z| \le 1$.
    """

    pi: tuple[float, float, float]
    right_angle: tuple[float, float]
    sine: tuple[float, ...]
    cosine: tuple[float, ...]
    arctangent: tuple[float, ...]


REACH = 1.574
"""To which the polynomials of sine and cosine are good; what is reduced worse, of huge arguments, is clipped to it."""

CONSTANTS = {
    np.dtype(np.float32): _Constants(
        (3.140625, 0.0009675025939941406, 1.5099579909783765e-07),
        (1.5707963705062866, -4.371139000186241e-08),
        (2.6342731450002883e-06, -1.9822590019899643e-04, 8.3332410251127109e-03, -1.6666665952363448e-01),
        (
            -2.6292486525696154e-07,
            2.4774361964065850e-05,
            -1.3888648760824384e-03,
            4.1666659240973861e-02,
            -4.9999999963216146e-01,
        ),
        (
            -2.3869973167241132e-03,
            1.3507771427020535e-02,
            -3.5871538982043358e-02,
            6.2501694447495632e-02,
            -8.6568804301545215e-02,
            1.1033764115313455e-01,
            -1.4278568748210602e-01,
            1.9999739329835580e-01,
            -3.3333331733063520e-01,
        ),
    ),
    np.dtype(np.float64): _Constants(
        (3.141592651605606, 1.984187036896401e-09, 1.2246467991473532e-16),
        (1.5707963267948966, 6.123233995736766e-17),
        (
            2.7311226182093437e-15,
            -7.6439444078380146e-13,
            1.6058976499935238e-10,
            -2.5052107604438386e-08,
            2.7557319219064424e-06,
            -1.9841269841254607e-04,
            8.3333333333333154e-03,
            -1.6666666666666667e-01,
        ),
        (
            4.6270657056633346e-14,
            -1.1464640841027351e-11,
            2.0876629328126516e-09,
            -2.7557317743529998e-07,
            2.4801587292259016e-05,
            -1.3888888888860015e-03,
            4.1666666666666326e-02,
            -4.9999999999999999e-01,
        ),
        (
            1.8061954618612152e-05,
            -1.9996189377901382e-04,
            1.0496035084968516e-03,
            -3.4958859739163095e-03,
            8.3689311784501622e-03,
            -1.5535152475414176e-02,
            2.3696731580048622e-02,
            -3.1277189066996465e-02,
            3.7494868125352471e-02,
            -4.2603566326016522e-02,
            4.7377495795277790e-02,
            -5.2579733342841108e-02,
            5.8815068777936561e-02,
            -6.6665646992891042e-02,
            7.6922989710332169e-02,
            -9.0909085908919342e-02,
            1.1111111093490829e-01,
            -1.4285714285384132e-01,
            1.9999999999997532e-01,
            -3.3333333333333330e-01,
        ),
    ),
}


@jax.custom_jvp
def sin_cos(x: Float[ArrayLike, "..."]) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    r"""Sine and cosine of $x$ in radians, both at once.

    The error is at most 2 units in the last place of 1 for $|x| \le 10^4$; beyond, it grows as the distance of two
    neighbouring numbers does, and what comes out stays on the circle. NaN for NaN and infinity. Exactly odd and even.

        >>> import jax.numpy as jnp
        >>> from morphax.dynamics.trigonometry import sin_cos
        >>> sine, cosine = sin_cos(jnp.array([0.0, jnp.pi / 6]))
        >>> [round(float(s), 6) for s in sine], [round(float(c), 6) for c in cosine]
        ([0.0, 0.5], [1.0, 0.866025])
    """
    x = jnp.asarray(x, jnp.result_type(x, float))
    if x.dtype not in CONSTANTS:
        return jnp.sin(x), jnp.cos(x)
    return lax.platform_dependent(x, cpu=_sin_cos, default=lambda x: (jnp.sin(x), jnp.cos(x)))


@sin_cos.defjvp
def _(primals: tuple[Any], tangents: tuple[Any]) -> Any:
    sine, cosine = sin_cos(primals[0])
    return (sine, cosine), (cosine * tangents[0], -sine * tangents[0])


@jax.custom_jvp
def arctan2(y: Float[ArrayLike, "..."], x: Float[ArrayLike, "..."]) -> Float[Array, "..."]:
    r"""Angle of the point $(x, y)$ in $[-\pi, \pi]$, as `jax.numpy.arctan2`, also for zeros and infinities.

    The error is at most 2 units in the last place of 1. Exactly odd in $y$. Its derivative is NaN at the origin.

        >>> from morphax.dynamics.trigonometry import arctan2
        >>> round(float(arctan2(1.0, -1.0)), 6)     # 3 pi / 4
        2.356194
    """
    dtype = jnp.result_type(y, x, float)
    y, x = jnp.broadcast_arrays(jnp.asarray(y, dtype), jnp.asarray(x, dtype))
    if dtype not in CONSTANTS:
        return jnp.arctan2(y, x)
    return lax.platform_dependent(y, x, cpu=_arctan2, default=jnp.arctan2)


@arctan2.defjvp
def _(primals: tuple[Any, Any], tangents: tuple[Any, Any]) -> Any:
    (y, x), (along_y, along_x) = primals, tangents
    square = jnp.square(x) + jnp.square(y)
    return arctan2(y, x), (x * along_y - y * along_x) / square


def _sin_cos(x: Array) -> tuple[Array, Array]:
    constants = CONSTANTS[x.dtype]
    turns = _nearest(x / np.pi)
    rest = x
    for part in constants.pi:
        rest = rest - turns * part
    rest = jnp.clip(rest, -REACH, REACH)
    odd = turns - 2 * _nearest(turns / 2)
    sign = 1 - 2 * odd * odd
    square = rest * rest
    sine = rest + rest * (square * _polynomial(constants.sine, square))
    return sign * sine, sign * (1 + square * _polynomial(constants.cosine, square))


def _arctan2(y: Array, x: Array) -> Array:
    across, along = jnp.abs(y), jnp.abs(x)
    small, large = jnp.minimum(across, along), jnp.maximum(across, along)
    ratio = jnp.where(small == large, jnp.where(large > 0, 1.0, 0.0).astype(x.dtype), small / large)
    square = ratio * ratio
    angle = ratio + ratio * (square * _polynomial(CONSTANTS[x.dtype].arctangent, square))
    # From the nearest axis on, in right angles; what rounding takes from a right angle is added first.
    steep, behind = across > along, jnp.signbit(x)
    axis = jnp.where(steep, 1, jnp.where(behind, 2, 0)).astype(x.dtype)
    right_angle, missing = CONSTANTS[x.dtype].right_angle
    angle = axis * right_angle + (axis * missing + jnp.where(steep != behind, -angle, angle))
    return jnp.where(jnp.signbit(y), -angle, angle)


def _nearest(x: Array) -> Array:
    return lax.round(x, lax.RoundingMethod.TO_NEAREST_EVEN)


def _polynomial(coefficients: Sequence[float], x: Array) -> Array:
    value = jnp.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        value = value * x + coefficient
    return value
