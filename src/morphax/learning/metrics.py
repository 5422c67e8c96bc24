"""How good an answer is.

All take outputs and targets of one shape, whose last axis counts outputs; whatever comes before it - time, or examples
and time - counts points, and the mean is over everything unless said.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from morphax._checks import check_shape

Outputs = Float[Array | np.ndarray, "*points outputs"]
Scalar = Float[Array, ""]


def classify(outputs: Outputs) -> Int[Array, "*points"]:
    """The class of each point: with one output, 1 above 0.5 and else 0; with several, the index of the largest."""
    if outputs.shape[-1] == 1:
        return jnp.asarray(outputs[..., 0] > 0.5, jnp.int32)
    return jnp.argmax(outputs, axis=-1).astype(jnp.int32)


def accuracy(outputs: Outputs, targets: Outputs) -> Scalar:
    """Fraction of points that are classified correctly (targets 0/1, or one-hot); NaN is no answer, and wrong."""
    check_shape("outputs", outputs, targets.shape)
    right = (classify(outputs) == classify(targets)) & ~jnp.any(jnp.isnan(outputs), axis=-1)
    return jnp.mean(right, dtype=jnp.result_type(outputs, float))


def rmse(outputs: Outputs, targets: Outputs) -> Scalar:
    r"""Root mean square error $\sqrt{\frac1N \sum_i (y_i - \tilde y_i)^2}$."""
    return jnp.sqrt(jnp.mean(_error(outputs, targets) ** 2))


def nrmse(outputs: Outputs, targets: Outputs) -> Scalar:
    """`rmse` in units of the targets' standard deviation: 1 is what the constant mean of each output answers.

    Mean and variance are over all points. Targets that do not vary have no such unit (one example with one point,
    say): the result then is `rmse` itself.
    """
    variance = jnp.mean((targets - jnp.mean(targets, axis=_points(targets))) ** 2)
    return jnp.sqrt(jnp.mean(_error(outputs, targets) ** 2) / jnp.where(jnp.any(_vary(targets)), variance, 1.0))


def root_sum_square_over_n(outputs: Outputs, targets: Outputs) -> Scalar:
    r"""What Dudas et al. print as RMSE (Eq. 4): $\frac1N \sqrt{\sum_i (y_i - \tilde y_i)^2} = $ `rmse` $/\sqrt N$.

    It shrinks with the number of points, so it compares only runs of the same length.
    """
    return rmse(outputs, targets) / jnp.sqrt(1.0 * outputs.size)


def mean_log10_error(outputs: Outputs, targets: Outputs) -> Scalar:
    r"""Mean of $\log_{10} |y_i - \tilde y_i|$ (Dudas et al., Fig. 5); errors below the rounding unit count as it."""
    smallest = jnp.finfo(jnp.result_type(outputs, float)).eps
    return jnp.mean(jnp.log10(jnp.maximum(jnp.abs(_error(outputs, targets)), smallest)))


def capacity(outputs: Outputs, targets: Outputs) -> Float[Array, " outputs"]:
    r"""Capacity of every output, $1 - \langle (y - \tilde y)^2 \rangle / \mathrm{var}(\tilde y)$, at least 0.

    With targets $u(t - k)$ their sum is the linear memory capacity (Jaeger 2001); with products of Legendre
    polynomials it is the information-processing capacity (Dambre et al. 2012). At most the number of neurons. A target
    that does not vary tells nothing of the input: its capacity is 0.
    """
    error = jnp.mean(_error(outputs, targets) ** 2, axis=_points(targets))
    varies = _vary(targets)
    variance = jnp.where(varies, jnp.var(targets, axis=_points(targets)), 1.0)
    return jnp.where(varies, jnp.maximum(1 - error / variance, 0), 0.0)


def _error(outputs: Outputs, targets: Outputs) -> Float[Array, "*points outputs"]:
    # (time, 1) and (time,) would be broadcast to (time, time).
    check_shape("outputs", outputs, targets.shape)
    return jnp.subtract(outputs, targets)


def _points(targets: Outputs) -> tuple[int, ...]:
    """All axes but the last."""
    return tuple(range(targets.ndim - 1))


def _vary(targets: Outputs) -> Bool[Array, " outputs"]:
    """Which outputs have more than one value; a variance is not exactly 0 where a mean is rounded."""
    return jnp.max(targets, axis=_points(targets)) > jnp.min(targets, axis=_points(targets))
