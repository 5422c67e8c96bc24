"""A scan that trades arithmetic for memory in its backward pass."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from morphax._checks import check_count


def segmented_scan(
    step: Callable[[Any, Any], tuple[Any, Any]], carry: Any, inputs: Any, *, segment: int | None = None
) -> tuple[Any, Any]:
    r"""`jax.lax.scan`, with back-propagation that keeps the carry only at the ends of segments.

    Inside a segment everything is computed a second time when gradients are taken. Memory is then proportional to
    $T / L + L$ for $T$ points in segments of $L$, least at $L = \sqrt T$, instead of $T$; the time is that of one more
    forward pass. Values and gradients are the same.

    **Arguments:**

    - `step`, `carry`, `inputs`: as for `jax.lax.scan`; `inputs` must hold arrays.
    - `segment`: points in a segment, >= 1. None: an ordinary scan.

    **Raises:** `ValueError` for a segment below 1.

        >>> import jax, jax.numpy as jnp
        >>> from morphax.dynamics.scan import segmented_scan
        >>> total = lambda x: segmented_scan(lambda c, x: (c + x**2, c), 0.0, x, segment=4)[0]
        >>> jax.grad(total)(jnp.arange(10.0))[-1].item()
        18.0
    """
    if segment is None:
        return jax.lax.scan(step, carry, inputs)
    check_count("segment", segment, 1)
    points = jax.tree.leaves(inputs)[0].shape[0]
    whole = points - points % segment
    inner = jax.checkpoint(lambda carry, inputs: jax.lax.scan(step, carry, inputs))
    blocks = jax.tree.map(lambda x: x[:whole].reshape(-1, segment, *x.shape[1:]), inputs)
    carry, outputs = jax.lax.scan(inner, carry, blocks)
    outputs = jax.tree.map(lambda y: y.reshape(-1, *y.shape[2:]), outputs)
    if whole == points:
        return carry, outputs
    carry, last = inner(carry, jax.tree.map(lambda x: x[whole:], inputs))
    return carry, jax.tree.map(lambda a, b: jnp.concatenate([a, b]), outputs, last)
