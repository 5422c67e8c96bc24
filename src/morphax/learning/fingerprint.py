"""What tells two trainings apart: short texts that are equal where contents are, also in another process."""

import functools
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields, is_dataclass
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

ADDRESS = re.compile(r"0x[0-9a-f]+")  # where in memory something lies: it says nothing
PLAIN = bool | int | float | complex | str | bytes | None
ARRAY = jax.Array | np.ndarray | np.generic


def fingerprint(*things: Any) -> str:
    """Of structures, static fields, functions, numbers, and of shapes, types and values of arrays.

    A function counts with its code, its defaults, what it closes over, and the numbers, texts and arrays among the
    global variables that it reads. What the functions do that it calls does not count.

        >>> from morphax.learning.fingerprint import fingerprint
        >>> doubled, also_doubled, tripled = lambda x: 2 * x, lambda x: 2 * x, lambda x: 3 * x
        >>> fingerprint(doubled) == fingerprint(also_doubled), fingerprint(doubled) == fingerprint(tripled)
        (True, False)
    """
    return _digest(_parts(things, set()))


def program_of(function: Callable[..., Any], *arguments: Any) -> str:
    """Of the program that JAX makes of a function of arrays, every number in it included.

    An optimiser of Optax is two functions, inside which nothing can be seen; what they compute can.
    """
    program = jax.make_jaxpr(function)(*arguments)
    return _digest(_parts([ADDRESS.sub("", str(program)), *_constants(program)], set()))


def _digest(parts: Iterable[bytes]) -> str:
    total = hashlib.sha256()
    for part in parts:
        total.update(part)
    return total.hexdigest()[:16]


def _parts(node: Any, seen: set[int]) -> Iterator[bytes]:
    """Bytes that say what something is; functions that were `seen` say only their names."""
    yield f"{type(node).__qualname__}(".encode()
    if isinstance(node, PLAIN):
        yield repr(node).encode()
    elif isinstance(node, ARRAY):
        if jnp.issubdtype(node.dtype, jax.dtypes.prng_key):
            node = jax.random.key_data(node)  # pyright: ignore[reportArgumentType]
        yield f"{np.shape(node)} {node.dtype} ".encode()
        yield np.ascontiguousarray(node).tobytes()
    elif isinstance(node, set | frozenset):
        yield " ".join(sorted(_digest(_parts(each, seen)) for each in node)).encode()
    else:
        for each in _inside(node, seen):
            yield from _parts(each, seen)
    yield b")"


def _inside(node: Any, seen: set[int]) -> Iterable[Any]:
    """What makes something that it is."""
    if isinstance(node, dict):
        return node.items()
    if isinstance(node, tuple | list):
        return node
    if isinstance(node, type | ModuleType):
        return (getattr(node, "__module__", ""), getattr(node, "__qualname__", node.__name__))
    if isinstance(node, CodeType):
        return (node.co_code, node.co_consts, node.co_names)
    if isinstance(node, FunctionType):
        name = (node.__module__, node.__qualname__)
        if id(node) in seen:
            return name
        seen.add(id(node))
        closure = [cell.cell_contents for cell in node.__closure__ or ()]
        return (*name, node.__code__, node.__defaults__, node.__kwdefaults__, closure, _globals(node))
    if isinstance(node, MethodType):
        return (node.__func__, node.__self__)
    if isinstance(node, functools.partial):
        return (node.func, node.args, node.keywords)
    if is_dataclass(node):
        return [(field.name, getattr(node, field.name, None)) for field in fields(node)]
    if hasattr(node, "constructor_arguments"):
        return (node.constructor_arguments(),)
    if hasattr(node, "__wrapped__"):
        return (node.__wrapped__,)
    return (ADDRESS.sub("", repr(node)),)


def _globals(function: FunctionType) -> dict[str, Any]:
    """Numbers, texts and arrays among the global variables that a function reads."""
    values = {name: function.__globals__.get(name) for name in _names(function.__code__)}
    return {name: value for name, value in sorted(values.items()) if isinstance(value, PLAIN | ARRAY)}


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _constants(node: Any) -> Iterator[Any]:
    """Arrays inside a program, those of the programs inside it included."""
    if isinstance(node, ClosedJaxpr):
        yield from node.consts
        yield from _constants(node.jaxpr)
    elif isinstance(node, Jaxpr):
        for equation in node.eqns:
            yield from (each.val for each in equation.invars if isinstance(each, Literal))
            yield from _constants(tuple(equation.params.values()))
    elif isinstance(node, tuple | list):
        for each in node:
            yield from _constants(each)
