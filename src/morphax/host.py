"""Python functions inside compiled programs - a laboratory that answers -, and their exceptions as they were raised."""

import itertools
import re
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import io_callback
from jaxtyping import PyTree

# What functions raised, each under a number that JAX's own error quotes; of those that nobody asks for, the last.
_raised: deque[tuple[int, Exception]] = deque(maxlen=1000)
_numbers = itertools.count()
QUOTED = re.compile(r"\(exception (\d+) of a host function\)")


def ask_host(function: Callable[..., Any], expected: PyTree, *arguments: PyTree) -> PyTree:
    """`function(*arguments)`, called once on the host whenever the program comes here.

    What it raises ends the program; inside `original_errors` it arrives as it was raised.

    **Arguments:**

    - `function`: takes and returns NumPy arrays.
    - `expected`: shapes and types of what it returns (`jax.ShapeDtypeStruct`).
    - `arguments`: pytrees of arrays.
    """

    double = jax.config.read("jax_enable_x64")

    def called(*arguments: PyTree) -> Any:
        try:
            # Precision is a setting of each thread, and the one that calls is not the one that asked.
            with jax.enable_x64(double):
                answer = function(*jax.tree.map(_joined, arguments, given))
            return jax.tree.map(lambda value, kind: _halves(np.asarray(value), kind), answer, expected)
        except Exception as error:
            number = next(_numbers)
            _raised.append((number, error))
            raise RuntimeError(f"{type(error).__name__}: {error} (exception {number} of a host function)") from error

    given = jax.tree.map(lambda x: jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x)), arguments)
    answer = io_callback(called, jax.tree.map(_as_halves, expected), *jax.tree.map(_split, arguments))
    return jax.tree.map(_whole, answer, expected)


def _is_double(kind: Any) -> bool:
    """Whether numbers of this kind travel as two halves: JAX would round them on a thread in single precision."""
    return jnp.dtype(kind.dtype).itemsize == 8 and not jnp.issubdtype(kind.dtype, jnp.complexfloating)


def _split(value: Any) -> jax.Array:
    value = jnp.asarray(value)
    return jax.lax.bitcast_convert_type(value, jnp.uint32) if _is_double(value) else value


def _joined(value: Any, kind: jax.ShapeDtypeStruct) -> np.ndarray:
    value = np.asarray(value)
    return np.ascontiguousarray(value).view(kind.dtype)[..., 0] if _is_double(kind) else value


def _as_halves(kind: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((*kind.shape, 2), jnp.uint32) if _is_double(kind) else kind


def _halves(value: np.ndarray, kind: jax.ShapeDtypeStruct) -> np.ndarray:
    if not _is_double(kind) or value.dtype != kind.dtype:
        return value
    return np.ascontiguousarray(value)[..., None].view(np.uint32)


def _whole(value: jax.Array, kind: jax.ShapeDtypeStruct) -> jax.Array:
    return jax.lax.bitcast_convert_type(value, kind.dtype) if _is_double(kind) else value


@contextmanager
def original_errors() -> Iterator[None]:
    """Where a function of `ask_host` raises, let that exception out and not JAX's words about it."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        numbers = {int(number) for number in QUOTED.findall(str(error))}
        found = [pair for pair in list(_raised) if pair[0] in numbers]
        if not found:
            raise
        _raised.remove(found[0])
        original = found[0][1]
        # Its own cause says more than JAX's error does.
        raise original from (original.__cause__ or error)
