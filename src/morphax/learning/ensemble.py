"""Independent members at once: a function of one member, carried out for a stack of them."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from morphax._checks import check_count, check_key, cores


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
    any other device it is `vmap`.

    Where the process has several local devices, each takes a group of neighbours, as many as any other or one more,
    and compiles for itself; results are gathered on the default device. On CPUs they have the bits that one device
    gives, on others, whose batches are smaller then, its numbers to rounding. `with jax.default_device(device): ...`
    keeps all members on one; so do, but on CPUs, stacks that lie where the caller has put them (committed arrays).

    **Arguments:**

    - `function`: returns arrays; compiled already (`equinox.filter_jit`) with everything else closed over or bound.
    - `stacks`: pytrees whose array leaves have the members as leading axis; other leaves are shared.
    - `compiled`: whether `function` has met these shapes before. Otherwise the first member of a device goes ahead
      alone, so that threads do not all compile the same.

    **Raises:** `ValueError` when the leading axes differ.

        >>> import jax.numpy as jnp
        >>> from morphax.learning.ensemble import map_members
        >>> map_members(lambda x, y: x @ y, jnp.ones((3, 4)), jnp.ones((3, 4))).tolist()
        [4.0, 4.0, 4.0]
    """
    members = count_members(stacks)
    # None, the default device, has its programs in common with calls outside.
    places = [_asked_device(), *_devices()[1:members]]
    groups = list(zip(places, _groups(members, len(places)), strict=True))
    if jax.default_backend() == "cpu":
        return _one_by_one(function, stacks, groups, compiled)
    if len(groups) == 1 or any(_is_placed(leaf) for leaf in jax.tree.leaves(stacks)):
        return eqx.filter_vmap(function)(*stacks)
    return _group_by_group(function, stacks, groups)


def divided(stack: PyTree) -> PyTree:
    """A stack whose members lie on several local devices, as many as can have equally many: for a `vmap` of one's own.

    A compiled function of it works on all of them at once, `jax.jit(jax.vmap(judge))(divided(keys))`, and its numbers
    are those of one device to rounding. Where there is one device, or one asked for (`jax.default_device`), the stack
    stays as it is. A loop in the function that ends when all members are done makes devices wait for each other at
    every turn.

    >>> import jax
    >>> from morphax.learning.ensemble import divided, member_keys
    >>> divided(member_keys(jax.random.key(0), 8)).shape
    (8,)
    """
    devices, members = _devices(), count_members(stack)
    parts = max((n for n in range(1, len(devices) + 1) if members % n == 0), default=1)
    if parts == 1:
        return stack
    mesh = jax.make_mesh((parts,), ("members",), (AxisType.Auto,), devices=devices[:parts])
    arrays, rest = eqx.partition(stack, eqx.is_array)
    return eqx.combine(jax.device_put(arrays, NamedSharding(mesh, PartitionSpec("members"))), rest)


def _devices() -> list[Any]:
    """Over which members are divided: the one that was asked for, or all of this process."""
    asked = _asked_device()
    return jax.local_devices() if asked is None else [asked]


def _asked_device() -> Any:
    """The default device where somebody chose it, otherwise None."""
    return jax.config.jax_default_device  # pyright: ignore[reportAttributeAccessIssue]


def _groups(members: int, count: int) -> list[range]:
    return [range(members * i // count, members * (i + 1) // count) for i in range(count)]


# A device (None: the default), and what runs there: members, or arguments.
Group = tuple[Any, range]
Part = tuple[Any, tuple[PyTree, ...]]


def _one_by_one(function: Callable[..., Any], stacks: PyTree, groups: list[Group], compiled: bool) -> PyTree:
    """A call for every member, in as many threads as there are cores whatever the number of devices."""
    parts = [(place, jax.tree.map(_as_slices(index), stacks)) for place, group in groups for index in group]
    ahead = [] if compiled else [group[0] for _, group in groups]
    behind = [index for index in range(len(parts)) if index not in ahead]
    run = _runner(function)
    with ThreadPoolExecutor(cores()) as pool:
        each = pool.map if len(ahead) > 1 else map
        results = dict(zip(ahead, each(run, [parts[index] for index in ahead]), strict=True))
        results |= zip(behind, pool.map(run, [parts[index] for index in behind]), strict=True)
    return jax.tree.map(_stacked, *(results[index] for index in range(len(parts))))


def _group_by_group(function: Callable[..., Any], stacks: PyTree, groups: list[Group]) -> PyTree:
    """A batched program for every device, each called by a thread of its own."""

    def part_of(group: range) -> tuple[PyTree, ...]:
        return jax.tree.map(lambda leaf: leaf[group.start : group.stop] if eqx.is_array(leaf) else leaf, stacks)

    run = _runner(eqx.filter_vmap(function))
    with ThreadPoolExecutor(len(groups)) as pool:
        results = list(pool.map(run, [(place, part_of(group)) for place, group in groups]))
    # They belong to no device by decree, so that this brings them to the default one.
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves) if eqx.is_array(leaves[0]) else leaves[0], *results)


def _runner(function: Callable[..., Any]) -> Callable[[Part], PyTree]:
    """Calls the function with the arguments of a part on its device, in any thread."""
    # Whether numbers are 64 bits wide is a setting of each thread.
    double = jnp.result_type(float) == jnp.float64

    def run(part: Part) -> PyTree:
        place, arguments = part
        # Not `device_put`: what a function has bound or closed over would have to be on the same device.
        with jax.default_device(place), jax.enable_x64(double):
            return jax.block_until_ready(function(*arguments))

    return run


def _is_placed(leaf: Any) -> bool:
    """Whether the caller decided where an array is, or it is traced and nowhere yet."""
    return isinstance(leaf, Tracer) or (isinstance(leaf, jax.Array) and leaf.committed)


def _as_slices(index: int) -> Callable[[Any], Any]:
    def slice_of(leaf: Any) -> Any:
        if not eqx.is_array(leaf):
            return leaf
        # A slice of a NumPy view costs nothing and is bound to no device; one of a JAX array is a program to run.
        if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return np.asarray(leaf)[index]
        numbers = np.asarray(jax.random.key_data(leaf))[index]
        return jax.random.wrap_key_data(numbers, impl=jax.random.key_impl(leaf))

    return slice_of


def _stacked(*leaves: Any) -> Any:
    if not eqx.is_array(leaves[0]):
        return leaves[0]
    if jnp.issubdtype(leaves[0].dtype, jax.dtypes.prng_key):
        return jnp.stack(leaves)
    return jnp.asarray(np.stack([np.asarray(leaf) for leaf in leaves]))
