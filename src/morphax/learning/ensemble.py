"""Independent members at once: a function of one member, carried out for a stack of them."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import PyTree

from morphax._checks import check_count, check_key


def make_members(make: Callable[[Any], Any], key: Array, members: int | range) -> PyTree:
    """A stack of results of `make(key)`, each with a key of its own (`member_keys`): leading axis on every array leaf.

    >>> import jax
    >>> from morphax import SpintronicNetwork
    >>> from morphax.learning.ensemble import make_members
    >>> stack = make_members(lambda key: SpintronicNetwork.random((4, 4), key=key), jax.random.key(0), 3)
    >>> stack.connections.weights.shape
    (3, 8, 8)
    """
    return eqx.filter_vmap(make)(member_keys(key, members))


def member_keys(key: Array, members: int | range) -> Array:
    """The keys of so many members, or of those at some places: a member has the same however many there are.

    >>> import jax
    >>> from morphax.learning.ensemble import member_keys
    >>> key = jax.random.key(0)
    >>> bool((member_keys(key, 7)[4:6] == member_keys(key, range(4, 6))).all())
    True
    """
    check_key("key", key)
    if not isinstance(members, range):
        check_count("members", members, 1)
        return jax.random.split(key, members)
    if not len(members) or members.start < 0:
        raise ValueError(f"members is {members}; it must be places from 0 on")
    return jax.random.split(key, members[-1] + 1)[members.start :: members.step]


def member(stack: PyTree, index: int) -> PyTree:
    """One member of a stack."""
    return jax.tree.map(lambda leaf: leaf[index] if eqx.is_array(leaf) else leaf, stack)


def count_members(stack: PyTree) -> int:
    """The length of the leading axis that all array leaves of a stack share.

    **Raises:** `ValueError` when there is none, or leaves disagree.
    """
    lengths = {leaf.shape[:1] for leaf in jax.tree.leaves(stack) if eqx.is_array(leaf)}
    if len(lengths) != 1 or lengths == {()}:
        found = sorted((length[0] if length else "no axis" for length in lengths), key=str)
        raise ValueError(f"the leading axes of the members' arrays are {found}; all must have one length")
    return lengths.pop()[0]


def map_members(function: Callable[..., Any], *stacks: PyTree, compiled: bool = False) -> PyTree:
    r"""`function(*one member of each stack)` for all members, results stacked along a leading axis.

    On a CPU the members run one after the other in as many threads as there are cores, all through one compilation:
    that fills the cores and keeps each member's numbers in cache, and it is faster there than one batched program. On
    any other device it is `vmap`; shard the leading axis to use several devices.

    **Arguments:**

    - `function`: returns arrays; compiled already (`equinox.filter_jit`) with everything else closed over or bound.
    - `stacks`: pytrees whose array leaves have the members as leading axis; other leaves are shared.
    - `compiled`: whether `function` has met these shapes before. Otherwise the first member goes ahead alone, so that
      threads do not all compile the same.

    **Raises:** `ValueError` when the leading axes differ.

        >>> import jax.numpy as jnp
        >>> from morphax.learning.ensemble import map_members
        >>> map_members(lambda x, y: x @ y, jnp.ones((3, 4)), jnp.ones((3, 4))).tolist()
        [4.0, 4.0, 4.0]
    """
    members = count_members(stacks)
    if jax.default_backend() != "cpu":
        return eqx.filter_vmap(function)(*stacks)
    parts = [jax.tree.map(_as_slices(index), stacks) for index in range(members)]
    # Whether numbers are 64 bits wide is a setting of each thread.
    double = jnp.result_type(float) == jnp.float64

    def run(part: tuple[PyTree, ...]) -> PyTree:
        with jax.enable_x64(double):
            return jax.block_until_ready(function(*part))

    ahead = 0 if compiled else 1
    results = [run(part) for part in parts[:ahead]]
    with ThreadPoolExecutor(_cores()) as pool:
        results += pool.map(run, parts[ahead:])
    return jax.tree.map(_stacked, *results)


def _cores() -> int:
    """The cores that this process may use. XLA, too, looks at its affinity and takes no more than NPROC says."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = os.environ.get("NPROC", "")
    return min(allowed, int(limit)) if limit.isdecimal() and int(limit) else allowed


def _as_slices(index: int) -> Callable[[Any], Any]:
    def slice_of(leaf: Any) -> Any:
        if not eqx.is_array(leaf):
            return leaf
        # A slice of a NumPy view costs nothing; one of a JAX array is a program to run.
        return leaf[index] if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else np.asarray(leaf)[index]

    return slice_of


def _stacked(*leaves: Any) -> Any:
    if not eqx.is_array(leaves[0]):
        return leaves[0]
    if jnp.issubdtype(leaves[0].dtype, jax.dtypes.prng_key):
        return jnp.stack(leaves)
    return jnp.asarray(np.stack([np.asarray(leaf) for leaf in leaves]))
