"""Descent of a function until it is small enough."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, PyTree

from morphax._checks import check_count, check_range


class Minimum(NamedTuple):
    """Where a descent ended.

    - `argument`: the last one.
    - `loss`: there.
    - `iterations`: updates made.
    - `converged`: whether the loss is at most the tolerance.
    """

    argument: PyTree
    loss: Float[Array, ""]
    iterations: Int[Array, ""]
    converged: Bool[Array, ""]


def minimise(
    loss: Callable[[PyTree], Array],
    start: PyTree,
    optimiser: optax.GradientTransformation,
    *,
    iterations: int = 5000,
    tolerance: ArrayLike = 1e-10,
) -> Minimum:
    """Follow the gradient of a loss until it is at most the tolerance, or for so many iterations.

    Jit and vmap work; of a batch each member stops by itself. A loss of NaN ends the descent, not converged.

    **Arguments:**

    - `loss`: a scalar function of one pytree.
    - `start`: first argument.
    - `optimiser`: any of Optax.
    - `iterations`: at most, >= 1.
    - `tolerance`: >= 0.

    **Raises:** `ValueError` for values outside these ranges.

        >>> import jax.numpy as jnp, optax
        >>> from morphax.learning.minimise import minimise
        >>> found = minimise(lambda x: (x - 3.0) ** 2, jnp.array(1.0), optax.sgd(0.25), tolerance=1e-3)
        >>> found.argument.item(), found.iterations.item()                 # the distance halves: 2, 1, 1/2, ...
        (2.96875, 6)
    """
    check_count("iterations", iterations, 1)
    check_range("tolerance", tolerance, low=0.0)
    slope = jax.value_and_grad(loss)

    def unfinished(carry: tuple) -> Array:
        (_, _, value, _), count = carry
        return (value > tolerance) & (count < iterations)

    def update(carry: tuple) -> tuple:
        (argument, memory, _, gradient), count = carry
        change, memory = optimiser.update(gradient, memory, argument)
        argument = optax.apply_updates(argument, change)
        return (argument, memory, *slope(argument)), count + 1

    first = (start, optimiser.init(start), *slope(start))
    (argument, _, value, _), count = jax.lax.while_loop(unfinished, update, (first, jnp.asarray(0)))
    return Minimum(argument, value, count, value <= tolerance)
