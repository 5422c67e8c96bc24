"""What a promise is, and the tools to try one."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from morphax.substrates.base import Substrate, numbers_of

POINTS = 5  # inputs in a drive that is tried
KEY = jax.random.key(7)


class BrokenPromiseError(AssertionError):
    """What a substrate or a rule does not keep, one sentence a promise."""


@dataclass(frozen=True)
class Promise:
    """One promise, and the attempt to break it."""

    name: str
    attempt: Callable[[], None]

    def __str__(self) -> str:
        return self.name

    def check(self) -> None:
        """**Raises:** `BrokenPromiseError` that says what to change."""
        try:
            self.attempt()
        except BrokenPromiseError:
            raise
        except Exception as error:
            raise BrokenPromiseError(f"{self.name}: it raises {type(error).__name__}: {short(error)}") from error


def check_all(promises: list[Promise], what: str) -> None:
    broken = []
    for promise in promises:
        try:
            promise.check()
        except BrokenPromiseError as error:
            broken.append(f"- {promise.name}: {error}" if promise.name not in str(error) else f"- {error}")
    if broken:
        number = f"{len(broken)} promise{'s' if len(broken) > 1 else ''}"
        raise BrokenPromiseError("\n".join([f"{what} breaks {number} of {len(promises)}:", *broken]))


def that(holds: bool, sentence: str) -> None:
    if not holds:
        raise BrokenPromiseError(sentence)


def words(attempt: Callable[..., None]) -> str:
    return attempt.__name__.strip("_").replace("_", " ")


def short(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def widest(substrate: Substrate) -> int:
    return max(numbers_of(substrate.channels))


def some_drive(channels: int, seed: int = 0) -> Array:
    return jax.random.uniform(jax.random.key(seed), (POINTS, channels), jnp.float32)


def cast(tree: Any, dtype: Any) -> Any:
    """All real and complex arrays in one precision."""
    pair = jnp.complex64 if dtype == jnp.float32 else jnp.complex128

    def cast(leaf: Any) -> Any:
        if not eqx.is_inexact_array(leaf):
            return leaf
        return jnp.asarray(leaf, pair if jnp.issubdtype(leaf.dtype, jnp.complexfloating) else dtype)

    return jax.tree.map(cast, tree)


def check_slope(
    value: Callable[[PyTree], Array], at: PyTree, slopes: PyTree, what: str, *, rests: bool = False
) -> None:
    """A derivative along one random direction against a central difference, to 1e-4.

    What `rests` at an equilibrium is known to the tolerance of its relaxation: larger steps, to 3 %.
    """
    step, tolerance = (1e-3, 3e-2) if rests else (1e-5, 1e-4)
    leaves, structure = jax.tree.flatten(at)
    along = [
        jnp.abs(x) * jax.random.normal(key, x.shape, x.dtype)
        for key, x in zip(jax.random.split(jax.random.key(7), len(leaves)), leaves, strict=True)
    ]
    told = sum(float(jnp.sum((g * jnp.conj(d)).real)) for g, d in zip(jax.tree.leaves(slopes), along, strict=True))

    def moved(step: float) -> float:
        return float(value(jax.tree.unflatten(structure, [x + step * d for x, d in zip(leaves, along, strict=True)])))

    found = (moved(step) - moved(-step)) / (2 * step)
    that(
        abs(found - told) <= tolerance * max(abs(found), abs(told)) + 1e-7,
        f"{what} along one direction is {told:.6g}, a finite difference {found:.6g}; where a stand-in is meant, say so "
        "(exact_derivatives of a substrate, exact of a rule)",
    )


def shapes(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda x: (jnp.shape(x), str(jnp.result_type(x))), tree)


def equal(one: PyTree, other: PyTree) -> bool:
    return _compared(one, other, lambda a, b: bool(np.array_equal(a, b, equal_nan=True)))


def close(one: PyTree, other: PyTree, tolerance: float = 2e-4) -> bool:
    return _compared(one, other, lambda a, b: bool(np.allclose(a, b, rtol=tolerance, atol=tolerance)))


def _compared(one: PyTree, other: PyTree, same: Callable[[Any, Any], bool]) -> bool:
    one, other = (eqx.filter(tree, eqx.is_array) for tree in (one, other))
    if jax.tree.structure(one) != jax.tree.structure(other):
        return False
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(a.shape == b.shape and same(_plain(a), _plain(b)) for a, b in pairs)


def _plain(array: Array) -> np.ndarray:
    return np.asarray(jax.random.key_data(array) if jnp.issubdtype(array.dtype, jax.dtypes.prng_key) else array)


def at(tree: Any, path: tuple[Any, ...]) -> Any:
    """What stands in a pytree where a path leads, or None."""
    for entry in path:
        if tree is None:
            return None
        if isinstance(entry, jax.tree_util.GetAttrKey):
            tree = getattr(tree, entry.name, None)
        else:
            tree = tree[entry.idx if isinstance(entry, jax.tree_util.SequenceKey) else entry.key]
    return tree
