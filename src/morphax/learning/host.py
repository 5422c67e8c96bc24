"""Python functions inside compiled programs - a laboratory that answers -, and their exceptions as they were raised."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
from jax.experimental import io_callback
from jaxtyping import PyTree

_raised: list[Exception] = []
_lock = threading.Lock()


def ask_host(function: Callable[..., Any], expected: PyTree, *arguments: PyTree) -> PyTree:
    """`function(*arguments)`, called once on the host whenever the program comes here.

    What it raises ends the program; inside `original_errors` it arrives as it was raised.

    **Arguments:**

    - `function`: takes and returns NumPy arrays.
    - `expected`: shapes and types of what it returns (`jax.ShapeDtypeStruct`).
    - `arguments`: pytrees of arrays.
    """

    def called(*arguments: PyTree) -> Any:
        try:
            return function(*arguments)
        except Exception as error:
            with _lock:
                _raised.append(error)
            raise

    return io_callback(called, expected, *arguments)


@contextmanager
def original_errors() -> Iterator[None]:
    """Where a function of `ask_host` raises, let that exception out and not JAX's words about it.

    **Raises:** a `ValueError` of the function as it is, any other exception as the cause of a `ValueError`.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        with _lock:
            found = _raised[-1] if _raised else None
            _raised.clear()
        if found is None:
            raise
        if isinstance(found, ValueError):
            raise found from error
        raise ValueError(f"the device did not answer: {type(found).__name__}: {found}") from found
