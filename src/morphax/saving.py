"""Substrates in a file: structure, static fields, roles, types and arrays, without pickle.

The file is a ZIP archive of `structure.json`, which people can read, and one `.npy` for every array. Classes and
functions are stored by name and found again by importing them; nothing in the file is code.
"""

import hashlib
import importlib
import importlib.util
import inspect
import io
import json
import sys
import zipfile
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from morphax.files import write_atomically

FORMAT = 1
Tree = TypeVar("Tree")


class NotStorableError(ValueError):
    """Something in a pytree has no name by which it could be found again."""


class NowhereError(NotStorableError):
    """A class or function was typed in: it stands in no module and in no file."""


def save(path: str | Path, tree: Any) -> Path:
    """Write a substrate (or any pytree of modules) to one file, whole or not at all.

    **Arguments:**

    - `path`: the file.
    - `tree`: modules, dataclasses, named tuples, tuples, lists and dicts that hold arrays, numbers, texts, random keys,
      and classes and functions that can be imported. A class from a file that is no module is stored with the path
      and the SHA-256 of that file.

    **Returns:** the path.

    **Raises:** `ValueError`, naming the field, for a lambda, a function inside a function, and whatever else has no
    name.

        >>> import jax, tempfile
        >>> from morphax import SpintronicNetwork, WithReadout, load, save
        >>> network = SpintronicNetwork.random((4, 4), key=jax.random.key(0))
        >>> network = WithReadout.random(network, outputs=2, key=jax.random.key(1))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     again = load(save(f"{folder}/network.morphax", network))
        >>> bool((again.weights == network.weights).all()), type(again.substrate).__name__
        (True, 'SpintronicNetwork')
    """
    arrays: list[np.ndarray] = []
    structure = _described(tree, type(tree).__name__, arrays)
    content = {"format": FORMAT, "tree": structure}

    def write(file: Path) -> None:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("structure.json", json.dumps(content, indent=1, allow_nan=True))
            for index, array in enumerate(arrays):
                buffer = io.BytesIO()
                np.lib.format.write_array(buffer, array, allow_pickle=False)
                archive.writestr(f"{index}.npy", buffer.getvalue())

    write_atomically(Path(path), write)
    return Path(path)


def load(path: str | Path, *, changed: bool = False) -> Any:
    """What `save` wrote.

    **Arguments:**

    - `path`: the file.
    - `changed`: whether a class is taken from a file that is another one now than when it was stored.

    **Raises:** `ValueError` for a file that is none of `save`'s or is damaged, for a class that cannot be imported, has
    other fields or roles now, or whose file has changed, and for numbers in double precision where it is off: within
    `jax.enable_x64(True)` it can be loaded.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            content = json.loads(archive.read("structure.json"))
            if content.get("format") != FORMAT:
                raise ValueError(f"{path} has format {content.get('format')}; this morphax reads format {FORMAT}")
            arrays = {
                name: np.lib.format.read_array(io.BytesIO(archive.read(name)), allow_pickle=False)
                for name in archive.namelist()
                if name.endswith(".npy")
            }
    except (zipfile.BadZipFile, KeyError, json.JSONDecodeError, EOFError) as error:
        raise ValueError(f"{path} is no file of morphax.save, or is damaged: {error}") from error
    return _rebuilt(content["tree"], [arrays[f"{index}.npy"] for index in range(len(arrays))], str(path), changed)


def _described(node: Any, where: str, arrays: list[np.ndarray]) -> Any:
    """A pytree as JSON; arrays go into `arrays`."""
    if node is None or isinstance(node, bool | int | str):
        return node
    if isinstance(node, float):
        return {"float": repr(node)}
    if eqx.is_array(node) and jnp.issubdtype(node.dtype, jax.dtypes.prng_key):
        arrays.append(np.asarray(jax.random.key_data(node)))
        return {"key": len(arrays) - 1, "implementation": str(jax.random.key_impl(node))}
    if isinstance(node, jax.Array | np.ndarray | np.generic):
        arrays.append(np.asarray(node))
        return {"array": len(arrays) - 1, "numpy": not isinstance(node, jax.Array)}
    if isinstance(node, type) or inspect.isroutine(node) or inspect.isfunction(node):
        return {"object": _name(node, where)}
    if isinstance(node, dict):
        return {
            "dict": [[_described(k, where, arrays), _described(v, f"{where}[{k!r}]", arrays)] for k, v in node.items()]
        }
    if isinstance(node, tuple | list):
        parts = [_described(part, f"{where}[{index}]", arrays) for index, part in enumerate(node)]
        if isinstance(node, tuple) and hasattr(node, "_fields"):
            return {"named": _name(type(node), where), "parts": parts}
        return {"tuple" if isinstance(node, tuple) else "list": parts}
    if is_dataclass(node):
        # A wrapper's own class is made when it is called.
        name = _name(getattr(type(node), "wraps_as", type(node)), where)
        parts = {f.name: _described(getattr(node, f.name), f"{where}.{f.name}", arrays) for f in fields(node)}
        return {"class": name, "fields": parts, "roles": _roles(node)}
    if hasattr(node, "constructor_arguments"):
        return {"made": _name(type(node), where), "arguments": _described(node.constructor_arguments(), where, arrays)}
    raise NotStorableError(f"{where} is a {type(node).__name__}, which has no stored form")


def _rebuilt(node: Any, arrays: list[np.ndarray], path: str, changed: bool) -> Any:
    def again(part: Any) -> Any:
        return _rebuilt(part, arrays, path, changed)

    if not isinstance(node, dict):
        return node
    if "float" in node:
        return float(node["float"])
    if "key" in node:
        return jax.random.wrap_key_data(jnp.asarray(arrays[node["key"]]), impl=node["implementation"])
    if "array" in node:
        array = arrays[node["array"]]
        if node["numpy"]:
            return array
        if jax.dtypes.canonicalize_dtype(array.dtype) != array.dtype:
            raise ValueError(f"{path} holds {array.dtype} numbers; load it within jax.enable_x64(True)")
        return jnp.asarray(array)
    if "object" in node:
        return _found(node["object"], path, changed)
    if "dict" in node:
        return {again(key): again(value) for key, value in node["dict"]}
    if "tuple" in node or "list" in node:
        parts = [again(part) for part in node["tuple" if "tuple" in node else "list"]]
        return tuple(parts) if "tuple" in node else parts
    if "named" in node:
        return _found(node["named"], path, changed)(*map(again, node["parts"]))
    if "made" in node:
        return _found(node["made"], path, changed)(**again(node["arguments"]))
    return _module(node, _found(node["class"], path, changed), {k: again(v) for k, v in node["fields"].items()}, path)


def _module(node: dict[str, Any], cls: Any, values: dict[str, Any], path: str) -> Any:
    """A dataclass from its fields, without its constructor: it has made what is stored once already."""
    names = {field.name for field in fields(cls)}
    lost, new = sorted(set(values) - names), sorted(names - set(values))
    if lost or new:
        differences = [f"has no {', '.join(lost)} any more"] * bool(lost) + [f"has {', '.join(new)} besides"] * bool(
            new
        )
        raise ValueError(f"{path} holds a {cls.__name__} of another time: the class {' and '.join(differences)}")
    around = getattr(cls, "around", None)
    made = object.__new__(cls if around is None else around(values["substrate"]))
    for name, value in values.items():
        object.__setattr__(made, name, value)
    roles = _roles(made)
    if roles != node["roles"]:
        differing = sorted(name for name in names if roles.get(name) != node["roles"].get(name))
        raise ValueError(
            f"{path} holds a {cls.__name__} whose {differing[0]} has the role {node['roles'].get(differing[0])}; the "
            f"class says {roles.get(differing[0])} now"
        )
    return made


def _roles(node: Any) -> dict[str, str]:
    return {field.name: field.metadata["role"] for field in fields(node) if "role" in field.metadata}


def _name(thing: Any, where: str) -> dict[str, str]:
    """By what name a class or function is found again, and in which file where it is in no module."""
    module, name = getattr(thing, "__module__", None), getattr(thing, "__qualname__", "")
    if "<" in name or not name or module is None:
        kind = (
            "a lambda"
            if "<lambda>" in name
            else "defined inside a function"
            if "<locals>" in name
            else "without a name"
        )
        raise NotStorableError(
            f"{where} is {name or type(thing).__name__}, {kind}; only what can be imported is stored: define it at the "
            "top of a file"
        )
    stored = {"module": module, "name": name}
    if not _importable(module):
        try:
            file = Path(inspect.getfile(sys.modules[module]))
        except (KeyError, TypeError):
            raise NowhereError(f"{where} is {name} from {module}, which is neither a module nor a file") from None
        stored |= {"file": str(file.resolve()), "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    return stored


def _importable(module: str) -> bool:
    """Whether another process would find a module by its name."""
    if module == "__main__":
        return False
    try:
        specification = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return False
    return specification is not None and getattr(sys.modules.get(module), "__spec__", None) is not None


def _found(stored: dict[str, str], path: str, changed: bool) -> Any:
    module = _from_file(stored, path, changed) if "file" in stored else None
    try:
        thing: Any = module or importlib.import_module(stored["module"])
        for part in stored["name"].split("."):
            thing = getattr(thing, part)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"{path} needs {stored['module']}.{stored['name']}, which cannot be imported: {error}"
        ) from error
    return thing


def _from_file(stored: dict[str, str], path: str, changed: bool) -> ModuleType:
    """The module that a file makes; the one that runs already where it is the same."""
    file = Path(stored["file"])
    if not file.is_file():
        raise ValueError(f"{path} needs {stored['name']} from {file}, which is not there")
    if hashlib.sha256(file.read_bytes()).hexdigest() != stored["sha256"] and not changed:
        raise ValueError(
            f"{path} needs {stored['name']} from {file}, which has changed since it was stored; load(..., "
            "changed=True) takes it as it is now"
        )
    for module in list(sys.modules.values()):
        place = getattr(module, "__file__", None)
        if place is not None and Path(place).resolve() == file:
            return module
    specification = importlib.util.spec_from_file_location(f"morphax_loaded_{stored['sha256'][:12]}", file)
    if specification is None or specification.loader is None:
        raise ValueError(f"{path} needs {stored['name']} from {file}, which is no Python file")
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module
    specification.loader.exec_module(module)
    return module
