"""Python functions inside compiled programs - a laboratory that answers -, and their exceptions as they were raised."""

import itertools
import re
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
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

    def called(*arguments: PyTree) -> Any:
        try:
            return function(*arguments)
        except Exception as error:
            number = next(_numbers)
            _raised.append((number, error))
            raise RuntimeError(f"{type(error).__name__}: {error} (exception {number} of a host function)") from error

    return io_callback(called, expected, *arguments)


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
