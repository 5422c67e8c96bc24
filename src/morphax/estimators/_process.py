"""Where estimators compute: in the precision that they name, and not in a process that cannot."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import jax
import jax._src as jax_internals
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from morphax._checks import check_choice

Precision = Literal["double", "single"]
PRECISIONS: tuple[Precision, ...] = ("double", "single")
_state = {"computed": False, "forked": False}


@contextmanager
def computing(precision: Precision) -> Iterator[None]:
    """Inside, JAX computes with so many digits, in this thread: `joblib` calls from others.

    **Raises:** `ValueError` for another precision, `RuntimeError` in a process that was forked off one in which JAX had
    computed, here or elsewhere: its threads are missing there, and the first computation would wait for them for ever.
    """
    check_choice("precision", precision, PRECISIONS)
    if _state["forked"]:
        raise RuntimeError(
            "this process was forked off one in which JAX had computed, and cannot compute: use joblib's backend "
            '"loky", its default, or "threading"'
        )
    _state["computed"] = True
    with jax.enable_x64(precision == "double"):
        yield


def _has_computed() -> bool:
    """Whether JAX has started its threads, whoever asked it to; of that it says nothing in public."""
    begun = getattr(getattr(jax_internals, "xla_bridge", None), "backends_are_initialized", None)
    return _state["computed"] or begun is None or bool(begun())


def _note_fork() -> None:
    _state["forked"] = _has_computed()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)


def on_host(tree: PyTree) -> PyTree:
    """The same with NumPy's arrays, which any process can unpickle."""
    return jax.tree.map(lambda leaf: np.asarray(leaf) if _is_plain(leaf) else leaf, tree)


def on_device(tree: PyTree) -> PyTree:
    """The same with JAX's arrays, numbers in the present precision."""
    return jax.tree.map(_present, tree)


def _is_plain(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _present(leaf: Any) -> Any:
    if not (isinstance(leaf, np.ndarray) or _is_plain(leaf)):
        return leaf
    return jnp.asarray(leaf, jax.dtypes.canonicalize_dtype(leaf.dtype))
