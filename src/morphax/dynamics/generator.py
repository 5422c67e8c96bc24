"""Real linear generators that are sums of known matrices, on states whose rows stand between rows of zeros.

A matrix with few diagonals acts by shifts. Between rows of zeros every shift of the flattened state is a plain slice,
and a state that is kept there all the time need not be copied before each product: that was half of what a product
cost.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PyTree


class Generator(ABC):
    r"""$L(c) = \sum_r c_r L_r$ on real matrices; hashable, and equal only to what has the same $L_r$.

    Between `framed` states all functions are pure functions of arrays. `terms` and `transposed` are called once, the
    others once a product.
    """

    margin: int
    """Rows of zeros that `apply` and `slopes` need above and below a state."""

    @abstractmethod
    def terms(self, coefficients: Float[Array, " coefficients"]) -> PyTree[Array]:
        """What L is made of, linear in the coefficients."""

    @abstractmethod
    def transposed(self, terms: Any) -> Any:
        """The terms of the transpose of L."""

    @abstractmethod
    def apply(self, terms: Any, framed: Float[Array, "framed columns"]) -> Float[Array, "rows columns"]:
        """L times a state."""

    @abstractmethod
    def slopes(
        self, cotangent: Float[Array, "framed columns"], state: Float[Array, "framed columns"]
    ) -> PyTree[Float[Array, "rows columns"]]:
        r"""What `gathered` sums to $\langle y, L_r x \rangle$, elementwise: sums over elements are slow in loops."""

    @abstractmethod
    def gathered(self, slopes: PyTree[Float[Array, "rows columns"]]) -> Float[Array, " coefficients"]:
        r"""$\langle y, L_r x \rangle$ for every r, of `slopes` or a sum of them."""


def framed(state: Float[Array, "rows columns"], margin: int) -> Float[Array, "framed columns"]:
    """A state with rows of zeros above and below."""
    return jnp.pad(state, ((margin, margin), (0, 0)))


def inner(state: Float[Array, "framed columns"], margin: int) -> Float[Array, "rows columns"]:
    """What stands between the rows of zeros."""
    return state[margin : state.shape[0] - margin]


def placed(
    state: Float[Array, "framed columns"], rows: Float[Array, "rows columns"], margin: int
) -> Float[Array, "framed columns"]:
    """Other rows between the same rows of zeros: in a loop this is done in place."""
    return lax.dynamic_update_slice(state, rows, (margin, 0))


def shifts(state: Float[Array, "framed columns"], margin: int) -> Callable[[int, int], Array]:
    """(k, m) -> x[p + k, q + m]; beyond the first and last column stands what the neighbouring row begins with."""
    columns = state.shape[1]
    size = state.size - 2 * margin * columns
    flat = state.reshape(-1)

    def shifted(down: int, right: int) -> Array:
        start = (margin + down) * columns + right
        return lax.slice(flat, (start,), (start + size,)).reshape(-1, columns)

    return shifted
