"""Roles of the leaves of a pytree: what is learned (`weight`) and what the material gives (`device`).

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

from dataclasses import fields, is_dataclass
from typing import Any, Literal, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import PRNGKeyArray, PyTree

from morphax._checks import check_choice, check_range

Role = Literal["weight", "device"]
WEIGHT = {"role": "weight"}
DEVICE = {"role": "device"}
UNASSIGNED = "unassigned"
Tree = TypeVar("Tree", bound=PyTree)


def roles(tree: Tree) -> Tree:
    """The pytree `tree` with every leaf replaced by the name of its role ("unassigned" where none is declared)."""
    return jax.tree_util.tree_map_with_path(lambda path, _: _role_along(tree, path), tree)


def select(tree: Tree, *chosen: Role) -> tuple[Tree, Tree]:
    """Split `tree` into (inexact array leaves with a role among `chosen`, all the rest), joined by `eqx.combine`."""
    for role in chosen:
        check_choice("role", role, ("weight", "device"))
    mask = jax.tree.map(lambda leaf, role: eqx.is_inexact_array(leaf) and role in chosen, tree, roles(tree))
    return eqx.partition(tree, mask)


def count(tree: PyTree, *chosen: Role) -> int:
    """How many numbers the leaves with one of the roles `chosen` hold."""
    return sum(leaf.size for leaf in jax.tree.leaves(select(tree, *chosen)[0]))


def perturb(tree: Tree, spread: ArrayLike, *chosen: Role, key: PRNGKeyArray) -> Tree:
    r"""A device from the same production line: every number times a log-normal factor of mean 1.

    $$\theta \to \theta \, e^{s \xi - s^2 / 2}, \qquad s^2 = \ln(1 + \sigma^2)$$

    with normal $\xi$. For a small spread that is $\theta (1 + \sigma \xi)$; for a large one no damping rate becomes
    negative.

    **Arguments:**

    - `tree`: a substrate, or any pytree with roles.
    - `spread`: relative standard deviation $\sigma \ge 0$ of every number.
    - `chosen`: the roles that vary; both when none is named.
    - `key`: random key; every number of every leaf has its own draw.

    **Raises:** `ValueError` for a negative or non-finite spread.
    """
    check_range("spread", spread, low=0.0)
    varied, fixed = select(tree, *(chosen or ("weight", "device")))
    leaves, structure = jax.tree.flatten(varied)
    keys = jax.random.split(key, max(len(leaves), 1))
    width = jnp.sqrt(jnp.log1p(jnp.square(jnp.asarray(spread, jnp.result_type(float)))))
    leaves = [
        leaf * jnp.exp(width * jax.random.normal(k, leaf.shape) - width**2 / 2).astype(leaf.real.dtype)
        for leaf, k in zip(leaves, keys, strict=False)
    ]
    return eqx.combine(jax.tree.unflatten(structure, leaves), fixed)


def _role_along(node: Any, path: tuple[Any, ...]) -> str:
    role = UNASSIGNED
    for entry in path:
        if isinstance(entry, jax.tree_util.GetAttrKey):
            if is_dataclass(node):
                declared = {field.name: field.metadata.get("role") for field in fields(node)}
                role = declared.get(entry.name) or role
            node = getattr(node, entry.name)
        elif isinstance(entry, jax.tree_util.SequenceKey):
            node = node[entry.idx]
        elif isinstance(entry, jax.tree_util.DictKey):
            node = node[entry.key]
        else:
            break
    return role
