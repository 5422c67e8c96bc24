"""What digital hardware would need beside a device, or instead of it: NeuroBench's figures."""

from __future__ import annotations

from typing import NamedTuple

import equinox as eqx
import jax
import numpy as np
from jaxtyping import PyTree

from morphax.pytrees import select


class Footprint(NamedTuple):
    """What something that computes by weights takes on digital hardware.

    - `size`: bytes of all its numbers.
    - `connection_sparsity`: the share of weights that are 0.
    - `operations`: effective multiplications and additions for one input: weights that are not 0.
    - `dense`: the same where every weight counts.
    """

    size: int
    connection_sparsity: float
    operations: int
    dense: int


def footprint(tree: PyTree) -> Footprint:
    """NeuroBench's static figures of a network, or of a readout.

    Weights are the leaves with the role weight or device that have two axes (a reservoir's own are not trained); each
    is used once for every input. What a physical device does by itself is no operation: ask for the readout alone, an
    array of weights (outputs, readings).

    **Raises:** `ValueError` for what has no weights.

    Source: Yik et al., "NeuroBench: a framework for benchmarking neuromorphic computing", Nat. Commun. 16, 1545 (2025).

        >>> import jax.numpy as jnp
        >>> from morphax.judging.footprint import footprint
        >>> footprint(jnp.zeros((2, 50)).at[0].set(1.0))
        Footprint(size=400, connection_sparsity=0.5, operations=50, dense=100)
    """
    weights = [tree] if eqx.is_array(tree) else jax.tree.leaves(select(tree, "weight", "device")[0])
    tables = [np.asarray(leaf) for leaf in weights if np.ndim(leaf) == 2]
    dense = sum(table.size for table in tables)
    if not dense:
        raise ValueError(f"tree is a {type(tree).__name__}; it has no weights with two axes")
    used = sum(int(np.count_nonzero(table)) for table in tables)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(tree) if eqx.is_inexact_array(leaf))
    return Footprint(size, 1 - used / dense, used, dense)
