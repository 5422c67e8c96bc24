"""Substrates in a file: structure, static fields, roles, types and arrays, without pickle.

The file is a ZIP archive of `structure.json`, which people can read, and one `.npy` for every array. Classes and
functions are stored by name and found again by importing them; nothing in the file is code, and nothing that it names
is called but classes that say of what they are made (`constructor_arguments`).
"""

import hashlib
import importlib
import importlib.util
import inspect
import io
import itertools
import json
import sys
import zipfile
from collections.abc import Callable
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


def check_storable(tree: Any) -> None:
    """Refuse what `save` has no form for. **Raises:** `ValueError`, in one line."""
    _described(tree, type(tree).__name__, [])


def load(path: str | Path, *, changed: bool = False) -> Any:
    """What `save` wrote.

    **Arguments:**

    - `path`: the file.
    - `changed`: whether a class is taken from a file that is another one now than when it was stored.

    **Raises:** `ValueError` for a file that is none of `save`'s or is damaged, for a class that cannot be imported, has
    other fields or roles now, or whose file has changed, and for numbers in double precision where it is off: within
    `jax.enable_x64(True)` it can be loaded.
    """
    content, arrays = _read(Path(path))
    if content.get("format") != FORMAT:
        raise ValueError(f"{path} has format {content.get('format')}; this morphax reads format {FORMAT}")
    try:
        return _rebuilt(content["tree"], arrays, str(path), changed)
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise _damaged(path, error) from error


def _read(path: Path) -> tuple[dict[str, Any], list[np.ndarray]]:
    with path.open("rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                content = json.loads(archive.read("structure.json"))
                count = sum(name.endswith(".npy") for name in archive.namelist())
                arrays = [_array(archive.read(f"{index}.npy")) for index in range(count)]
                return dict(content), arrays
        except Exception as error:  # whatever the readers of ZIP, JSON and NumPy raise at bytes that are none
            raise _damaged(path, error) from error


def _array(content: bytes) -> np.ndarray:
    return np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)


def _damaged(path: str | Path, error: Exception) -> ValueError:
    return ValueError(f"{path} is no file of morphax.save, or is damaged: {type(error).__name__}: {error}")


def _described(node: Any, where: str, arrays: list[np.ndarray]) -> Any:
    """A pytree as JSON; arrays go into `arrays`."""
    if node is None or isinstance(node, bool | int | str):
        return node
    if isinstance(node, float):
        return {"float": repr(float(node))}  # that of NumPy, which is a float, too, has another form
    if isinstance(node, complex):
        return {"complex": [repr(float(node.real)), repr(float(node.imag))]}
    if eqx.is_array(node) and jnp.issubdtype(node.dtype, jax.dtypes.prng_key):
        arrays.append(np.asarray(jax.random.key_data(node)))
        return {"key": len(arrays) - 1, "implementation": str(jax.random.key_impl(node))}
    if isinstance(node, jax.Array | np.ndarray | np.generic):
        array = np.asarray(node)
        if array.dtype.hasobject:
            raise NotStorableError(f"{where} is an array of {array.dtype}, which has no stored form")
        arrays.append(array)
        return {"array": len(arrays) - 1, "type": str(array.dtype), "numpy": not isinstance(node, jax.Array)}
    if isinstance(node, type):
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
    if callable(node) and hasattr(node, "__qualname__"):
        return {"object": _name(node, where)}
    raise NotStorableError(f"{where} is a {type(node).__name__}, which has no stored form")


def _rebuilt(node: Any, arrays: list[np.ndarray], path: str, changed: bool) -> Any:
    def again(part: Any) -> Any:
        return _rebuilt(part, arrays, path, changed)

    if not isinstance(node, dict):
        return node
    if "float" in node:
        return float(node["float"])
    if "complex" in node:
        return complex(*map(float, node["complex"]))
    if "key" in node:
        return jax.random.wrap_key_data(jnp.asarray(arrays[node["key"]]), impl=node["implementation"])
    if "array" in node:
        # NumPy's files have no name for bfloat16 and its like.
        array = arrays[node["array"]].view(jnp.dtype(node["type"]))
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
        cls = _class(node["named"], path, changed, lambda cls: issubclass(cls, tuple) and hasattr(cls, "_fields"))
        return cls._make(map(again, node["parts"]))
    if "made" in node:
        cls = _class(node["made"], path, changed, lambda cls: hasattr(cls, "constructor_arguments"))
        return cls(**again(node["arguments"]))
    cls = _class(node["class"], path, changed, is_dataclass)
    return _module(node, cls, {k: again(v) for k, v in node["fields"].items()}, path)


def _class(stored: dict[str, str], path: str, changed: bool, kept: Callable[[type], bool]) -> Any:
    """A class that may be made of what is stored: no other thing by that name is called."""
    cls = _found(stored, path, changed)
    if not isinstance(cls, type) or not kept(cls):
        raise ValueError(f"{path} needs {stored['module']}.{stored['name']}, which is no class that can be stored")
    return cls


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
    if module not in sys.modules:
        raise NowhereError(f"{where} is {name} from {module}, which is neither a module nor a file")
    if _attribute(sys.modules[module], name) is not thing:
        raise NotStorableError(
            f"{where} is not what {module}.{name} names (a method of an object, or a function that was wrapped); only "
            "what can be imported is stored: give it a name at the top of a file"
        )
    if not _importable(module):
        try:
            file = Path(inspect.getfile(sys.modules[module]))
        except TypeError:
            raise NowhereError(f"{where} is {name} from {module}, which is neither a module nor a file") from None
        stored |= {"file": str(file.resolve()), "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    return stored


def _importable(module: str) -> bool:
    """Whether another process would find this module by its name, and no other one."""
    own, found = getattr(sys.modules.get(module), "__spec__", None), None
    if own is None or module == "__main__":
        return False
    # Not `importlib.util.find_spec`, which looks at the modules that are loaded here.
    for name in itertools.accumulate(module.split("."), "{}.{}".format):
        place = None if found is None else found.submodule_search_locations
        finders = (finder.find_spec for finder in sys.meta_path if hasattr(finder, "find_spec"))
        found = next((spec for find in finders if (spec := find(name, place)) is not None), None)
        if found is None:
            return False
    return found is not None and found.origin == own.origin


def _attribute(thing: Any, name: str) -> Any:
    for part in name.split("."):
        thing = getattr(thing, part, None)
    return thing


def _found(stored: dict[str, str], path: str, changed: bool) -> Any:
    try:
        module = _from_file(stored, path, changed) if "file" in stored else importlib.import_module(stored["module"])
    except ImportError as error:
        raise ValueError(
            f"{path} needs {stored['module']}.{stored['name']}, which cannot be imported: {error}"
        ) from error
    thing = _attribute(module, stored["name"])
    if thing is None:
        raise ValueError(f"{path} needs {stored['name']}, which {stored.get('file', stored['module'])} does not have")
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
    try:
        specification.loader.exec_module(module)
    except BaseException:
        del sys.modules[specification.name]
        raise
    return module
