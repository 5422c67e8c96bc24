"""A rule's gradient against another one."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, PRNGKeyArray

from morphax.learning.rule import Data, LearningRule
from morphax.pytrees import select


@eqx.filter_jit
def flat_gradient(rule: LearningRule, network: Any, data: Data, key: PRNGKeyArray) -> Array:
    """With respect to the weights, as one vector."""
    gradient = rule.gradient(network, *data, key=key)[1]
    return ravel_pytree(select(gradient, "weight")[0])[0]


def compared(found: Array, right: Array) -> tuple[float, float]:
    """Relative error and cosine; NaN where there is no gradient at all."""
    sizes = jnp.linalg.norm(found) * jnp.linalg.norm(right)
    return float(jnp.linalg.norm(found - right) / jnp.linalg.norm(right)), float(found @ right / sizes)
