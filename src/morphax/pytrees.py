"""Roles of the leaves of a pytree: what is learned (`weight`), what the material gives (`device`), what is set.

A `setting` is a number of the experimenter - how long an input is held, how many shots are taken -: no rule learns it
and no chip differs in it.

A role is declared once, where the field is declared:

    >>> import equinox as eqx, jax, jax.numpy as jnp
    >>> from morphax.pytrees import DEVICE, WEIGHT, count, roles, select
    >>> class Neuron(eqx.Module):
    ...     gain: jax.Array = eqx.field(metadata=WEIGHT)
    ...     time_constant: jax.Array = eqx.field(metadata=DEVICE)
    >>> neuron = Neuron(jnp.ones(3), jnp.ones(()))
    >>> roles(neuron).gain, roles(neuron).time_constant
    ('weight', 'device')
    >>> count(neuron, "weight")
    3
    >>> weights, rest = select(neuron, "weight")
    >>> weights.time_constant is None, rest.gain is None
    (True, True)

Fields of a field inherit its role unless they declare their own. Learning rules, mismatch and design optimisation ask
here and keep no lists of names.
"""

import warnings
from dataclasses import fields, is_dataclass
from typing import Any, Literal, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import PRNGKeyArray, PyTree

from morphax._checks import check_choice, check_key, check_range, is_concrete

Role = Literal["weight", "device", "setting"]
ROLES: tuple[Role, ...] = ("weight", "device", "setting")
WEIGHT = {"role": "weight"}
DEVICE = {"role": "device"}
SETTING = {"role": "setting"}
UNASSIGNED = "unassigned"
Tree = TypeVar("Tree", bound=PyTree)


def roles(tree: Tree) -> Tree:
    """The pytree `tree` with every leaf replaced by the name of its role ("unassigned" where none is declared)."""
    return jax.tree_util.tree_map_with_path(lambda path, _: _role_along(tree, path)[0], tree)


def select(tree: Tree, *chosen: Role) -> tuple[Tree, Tree]:
    """Split `tree` into (inexact leaves with a role among `chosen`, all the rest), joined by `eqx.combine`.

    A Python float with such a role comes out as an array.
    """
    for role in chosen:
        check_choice("role", role, ROLES)

    def taken(leaf: Any, role: str) -> Any:
        if role not in chosen or not (eqx.is_inexact_array(leaf) or isinstance(leaf, float)):
            return None
        return jnp.asarray(leaf, jnp.result_type(float)) if isinstance(leaf, float) else leaf

    names = roles(tree)
    picked = jax.tree.map(taken, tree, names)
    rest = jax.tree.map(lambda leaf, role: None if taken(leaf, role) is not None else leaf, tree, names)
    return picked, rest


def count(tree: PyTree, *chosen: Role) -> int:
    """How many numbers the leaves with one of the roles `chosen` hold; warns once of arrays without any role."""
    warn_of_unassigned(tree)
    return sum(leaf.size for leaf in jax.tree.leaves(select(tree, *chosen)[0]))


def unassigned(tree: PyTree) -> list[str]:
    """Paths of the inexact arrays of a pytree that have no role: nothing trains them, and no chip differs in them."""
    return [path for path, _ in _unassigned(tree)]


def warn_of_unassigned(tree: PyTree) -> None:
    """Warn, once for every class that holds some, of arrays without a role."""
    found = [(path, holder) for path, holder in _unassigned(tree) if holder not in _warned]
    if found:
        paths = [path for path, _ in found]
        _warned.update(holder for _, holder in found)
        warnings.warn(
            f"{type(tree).__name__}{paths[0]} has no role, so nothing trains it and no device differs in it; declare "
            "eqx.field(metadata=WEIGHT), DEVICE, or SETTING for what an experimenter sets"
            + (f" (also {', '.join(paths[1:])})" if paths[1:] else ""),
            stacklevel=3,
        )


_warned: set[type] = set()


def perturb(tree: Tree, spread: ArrayLike, *chosen: Role, key: PRNGKeyArray) -> Tree:
    r"""A device from the same production line: every number times a log-normal factor of mean 1.

    $$\theta \to \theta \, e^{s \xi - s^2 / 2}, \qquad s^2 = \ln(1 + \sigma^2)$$

    with normal $\xi$. For a small spread that is $\theta (1 + \sigma \xi)$; for a large one no damping rate becomes
    negative.

    **Arguments:**

    - `tree`: a substrate, or any pytree with roles.
    - `spread`: relative standard deviation $\sigma \ge 0$ of every number.
    - `chosen`: the roles that vary; weight and device when none is named.
    - `key`: random key; every number of every leaf has its own draw.

    **Raises:** `ValueError` for a negative or non-finite spread, and for a spread other than 0 where no leaf has such a
    role.
    """
    check_key("key", key)
    check_range("spread", spread, low=0.0)
    chosen = chosen or ("weight", "device")
    varied, fixed = select(tree, *chosen)
    leaves, structure = jax.tree.flatten(varied)
    if not leaves and not (is_concrete(spread) and not np.any(np.asarray(spread))):
        raise ValueError(
            f"spread is {spread}, but {type(tree).__name__} has no array with the role {' or '.join(chosen)}; use 0 "
            f"there, or declare the role where the field is: eqx.field(metadata={chosen[-1].upper()})"
        )
    keys = jax.random.split(key, max(len(leaves), 1))
    width = jnp.sqrt(jnp.log1p(jnp.square(jnp.asarray(spread, jnp.result_type(float)))))
    leaves = [
        leaf * jnp.exp(width * jax.random.normal(k, leaf.shape) - width**2 / 2).astype(leaf.real.dtype)
        for leaf, k in zip(leaves, keys, strict=False)
    ]
    return eqx.combine(jax.tree.unflatten(structure, leaves), fixed)


def _unassigned(tree: PyTree) -> list[tuple[str, type]]:
    """Paths of arrays without a role, and the classes that hold them."""
    found = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        role, holder = _role_along(tree, path)
        if eqx.is_inexact_array(leaf) and role == UNASSIGNED:
            found.append((jax.tree_util.keystr(path), holder))
    return found


def _role_along(node: Any, path: tuple[Any, ...]) -> tuple[str, type]:
    """The role of a leaf, and the last class with fields on the way to it."""
    role, holder = UNASSIGNED, type(node)
    for entry in path:
        if isinstance(entry, jax.tree_util.GetAttrKey):
            if is_dataclass(node):
                holder = type(node)
                declared = {field.name: field.metadata.get("role") for field in fields(node)}
                role = declared.get(entry.name) or role
            node = getattr(node, entry.name)
        elif isinstance(entry, jax.tree_util.SequenceKey):
            node = node[entry.idx]
        elif isinstance(entry, jax.tree_util.DictKey):
            node = node[entry.key]
        else:
            break
    return role, holder
