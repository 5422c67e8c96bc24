"""How good an answer is. All take outputs and targets of shape (time, outputs) and mean over both unless said."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

Outputs = Float[Array, "time outputs"]
Scalar = Float[Array, ""]


def classify(outputs: Outputs) -> Int[Array, " time"]:
    """The class of each point: with one output, 1 above 0.5 and else 0; with several, the index of the largest."""
    if outputs.shape[1] == 1:
        return (outputs[:, 0] > 0.5).astype(jnp.int32)
    return jnp.argmax(outputs, axis=1).astype(jnp.int32)


def accuracy(outputs: Outputs, targets: Outputs) -> Scalar:
    """Fraction of points that are classified correctly (targets 0/1, or one-hot)."""
    return jnp.mean(classify(outputs) == classify(targets), dtype=outputs.dtype)


def rmse(outputs: Outputs, targets: Outputs) -> Scalar:
    r"""Root mean square error $\sqrt{\frac1N \sum_i (y_i - \tilde y_i)^2}$."""
    return jnp.sqrt(jnp.mean((outputs - targets) ** 2))


def nrmse(outputs: Outputs, targets: Outputs) -> Scalar:
    """`rmse` in units of the targets' standard deviation: 1 is what the constant mean answers."""
    return jnp.sqrt(jnp.mean((outputs - targets) ** 2) / jnp.mean((targets - jnp.mean(targets, axis=0)) ** 2))


def root_sum_square_over_n(outputs: Outputs, targets: Outputs) -> Scalar:
    r"""What Dudas et al. print as RMSE (Eq. 4): $\frac1N \sqrt{\sum_i (y_i - \tilde y_i)^2} = $ `rmse` $/\sqrt N$.

    It shrinks with the number of points, so it compares only runs of the same length.
    """
    return rmse(outputs, targets) / jnp.sqrt(1.0 * outputs.size)


def mean_log10_error(outputs: Outputs, targets: Outputs) -> Scalar:
    r"""Mean of $\log_{10} |y_i - \tilde y_i|$ (Dudas et al., Fig. 5); errors below the rounding unit count as it."""
    smallest = jnp.finfo(outputs.dtype).eps
    return jnp.mean(jnp.log10(jnp.maximum(jnp.abs(outputs - targets), smallest)))


def capacity(outputs: Outputs, targets: Outputs) -> Float[Array, " outputs"]:
    r"""Capacity of every output, $1 - \langle (y - \tilde y)^2 \rangle / \mathrm{var}(\tilde y)$, at least 0.

    With targets $u(t - k)$ their sum is the linear memory capacity (Jaeger 2001); with products of Legendre
    polynomials it is the information-processing capacity (Dambre et al. 2012). At most the number of neurons.
    """
    error = jnp.mean((outputs - targets) ** 2, axis=0)
    variance = jnp.var(targets, axis=0)
    return jnp.maximum(1 - error / variance, 0)
