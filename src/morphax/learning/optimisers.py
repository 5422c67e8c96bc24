"""Optimisers that Optax does not have."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PyTree


class SplitRowsState(NamedTuple):
    """Memory of both optimisers."""

    deviations: optax.OptState
    means: optax.OptState


def split_rows(
    deviations: optax.GradientTransformation, means: optax.GradientTransformation
) -> optax.GradientTransformation:
    r"""Descend in the mean of every row of a matrix and in the deviations from it, each with an optimiser of its own.

    $$ W_{ij} = m_i + D_{ij}, \quad \sum_j D_{ij} = 0, \qquad
       \frac{\partial l}{\partial m_i} = \sum_j \frac{\partial l}{\partial W_{ij}}, \quad
       \frac{\partial l}{\partial D_{ij}} = \frac{\partial l}{\partial W_{ij}} - \frac{1}{n} \sum_k
       \frac{\partial l}{\partial W_{ik}} $$

    Where inputs have a mean, as spikes do, a neuron's total drive depends on the mean of its row n times more steeply
    than on a single weight: one learning rate for both locks neurons into silence or permanent activity.

    Rows are the last axis of every leaf.

        >>> import jax.numpy as jnp, optax
        >>> from morphax.learning.optimisers import split_rows
        >>> optimiser = split_rows(optax.sgd(1.0), optax.sgd(0.1))
        >>> change, _ = optimiser.update(jnp.array([[1.0, 3.0]]), optimiser.init(jnp.zeros((1, 2))))
        >>> [round(x, 3) for x in change[0].tolist()]         # deviations -1 and 1; of the mean 0.1 x 4
        [0.6, -1.4]
    """

    def init(params: PyTree) -> optax.OptState:
        D, m = _split(params)
        return SplitRowsState(deviations.init(D), means.init(m))

    def update(
        updates: PyTree, state: optax.OptState, params: PyTree = None, **_: object
    ) -> tuple[PyTree, optax.OptState]:
        assert isinstance(state, SplitRowsState)
        D, m = (None, None) if params is None else _split(params)
        slope = jax.tree.map(lambda g: jnp.sum(g, -1), updates)
        change, first = deviations.update(_split(updates)[0], state.deviations, D)
        shift, second = means.update(slope, state.means, m)
        # An optimiser that scales every element differently leaves the space without means.
        total = jax.tree.map(lambda d, s: d + s[..., None], _split(change)[0], shift)
        return total, SplitRowsState(first, second)

    return optax.GradientTransformation(init, update)


def _split(tree: PyTree) -> tuple[PyTree, PyTree]:
    def mean(matrix: Array) -> Array:
        return jnp.mean(matrix, axis=-1)

    return jax.tree.map(lambda x: x - mean(x)[..., None], tree), jax.tree.map(mean, tree)
