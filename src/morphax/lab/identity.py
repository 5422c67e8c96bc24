"""What decides the numbers of a piece beside its data: fields of the configuration that are read, source, versions."""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from threading import Lock
from typing import NamedTuple
from uuid import uuid4

from morphax.files import state_of

VERSIONS = ("jax", "jaxlib")
_parsing = Lock()  # Python 3.11 counts the depth of all threads in one number, and then calls a mismatch an error
_sources: dict[Path, Source] = {}  # as they were when they were read first: what is loaded of them stays, too
_reads: ContextVar[set[str] | None] = ContextVar("reads", default=None)
_noting: dict[object, set[str]] = {}  # all of this process


@contextmanager
def noting_fields(found: set[str]) -> Iterator[None]:
    """Put the names of the fields into `found` that are read of any configuration meanwhile.

    In this thread the innermost one counts. Nobody knows for whom another thread reads: what is read there counts for
    all.
    """
    token, mine = _reads.set(found), object()
    _noting[mine] = found
    try:
        yield
    finally:
        del _noting[mine]
        _reads.reset(token)


def note_fields(names: Iterable[str]) -> None:
    """Tell that fields of a configuration are read."""
    here = _reads.get()
    for found in list(_noting.values()) if here is None else [here]:
        found.update(names)


def are_noted() -> bool:
    """Whether anybody wants to know which fields are read."""
    return bool(_noting)


@cache
def versions() -> dict[str, str]:
    """Of what compiles and computes."""
    return {name: importlib.metadata.version(name) for name in VERSIONS}


def installed() -> dict[str, str]:
    """The versions that all processes of a run must have in common."""
    return {"morphax": importlib.metadata.version("morphax"), **versions()}


@cache
def source_of(module: str) -> str:
    """The SHA-256 of the source of a module and of all that it imports, directly or not, of its package and of morphax.

    Imports are read from the source, those inside of functions, too. A name that a package hands on (`from
    morphax.tasks import xor`) leads to the module that defines it, not to everything else in that package. Of a module
    that is a file of its own, modules and packages beside it are followed. What is typed in is like nothing else.
    """
    if _file_of(module) is None:
        return f"typed in: {uuid4().hex}"
    return _digest_of(_Sources(module).found)


@cache
def local_source_of(module: str) -> str:
    """The SHA-256 of the source of a module that is a file of its own, and of all that it imports beside it."""
    return _digest_of(local_files(module))


def local_files(module: str) -> dict[Path, str]:
    """A module that is a file of its own, and all that it imports beside it, directly or not: path -> name."""
    return _Sources(module, follow_morphax=False).found


def source_files(module: str) -> list[Path]:
    """The files behind `source_of`."""
    return [] if _file_of(module) is None else list(_Sources(module).found)


def changed_source(files: Iterable[Path]) -> Path | None:
    """The first of some files that is loaded, or will be, with another content than its digest tells.

    What was loaded before its digest was taken, or has been found unchanged afterwards, may change.
    """
    waiting = [path for path in files if not read_source(path).loaded]
    for path, loaded in zip(waiting, _are_loaded(waiting), strict=True):
        known = read_source(path)
        try:
            if state_of(path) != known.state and hashlib.sha256(path.read_bytes()).digest() != known.digest:
                return path
        except OSError:
            return path
        _sources[path] = known._replace(loaded=loaded)
    return None


def forget_sources(files: Iterable[Path]) -> None:
    """Read files anew when they are asked for again: what was read of them was never used."""
    for path in files:
        _sources.pop(path, None)


def _digest_of(files: Mapping[Path, str]) -> str:
    whole = hashlib.sha256()
    for path in sorted(files, key=lambda path: files[path]):
        whole.update(files[path].encode() + read_source(path).digest)
    return whole.hexdigest()


class Source(NamedTuple):
    """A file of source.

    - `state`: of the file (`state_of`).
    - `digest`: SHA-256 of its content.
    - `tree`: what the content says.
    - `loaded`: whether a module was made of it, which stays as it is.
    """

    state: tuple[int, ...] | None
    digest: bytes
    tree: ast.Module
    loaded: bool


def read_source(path: Path) -> Source:
    """A file of source as it was when it was read first."""
    if path not in _sources:
        (loaded,), state, content = _are_loaded([path]), state_of(path), path.read_bytes()
        with _parsing:
            found = Source(state, hashlib.sha256(content).digest(), ast.parse(content), loaded)
        _sources.setdefault(path, found)
    return _sources[path]


def _are_loaded(paths: Sequence[Path]) -> list[bool]:
    files = {getattr(module, "__file__", None) for module in list(sys.modules.values())} if paths else set()
    return [str(path) in files for path in paths]


class _Sources:
    """The files behind a module: path -> name."""

    def __init__(self, module: str, *, follow_morphax: bool = True):
        self.found: dict[Path, str] = {}
        path = _file_of(module)
        assert path is not None
        # Where packages are installed, what lies beside a file belongs to others.
        installed = path.parent.name in ("site-packages", "dist-packages")
        alone = "." not in module and path.name != "__init__.py" and not installed
        self.beside = path.parent if alone else None
        self.roots = {"morphax": _root("morphax") if follow_morphax else None}
        if not alone:
            top = module.partition(".")[0]
            self.roots[top] = _root(top)
        # Of a file of its own the name, and not where it lies or who loaded it, belongs to what it is.
        self._add(path.stem if alone else module, path)

    def _add(self, name: str, path: Path) -> None:
        if path in self.found:
            return
        self.found[path] = name
        if self._is_local(name):  # a package beside the file runs as a whole, in whatever it defines
            *packages, _ = name.split(".")
            for depth in range(1, len(packages) + 1):
                self._follow(".".join(packages[:depth]))
        for node in ast.walk(read_source(path).tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    self._follow(alias.name)
            elif isinstance(node, ast.ImportFrom):
                source = _absolute(name, path, node)
                for alias in node.names:
                    self._follow_name(source, alias.name)

    def _follow(self, module: str) -> None:
        if (path := self._path(module)) is not None:
            self._add(module, path)

    def _follow_name(self, module: str, name: str) -> None:
        """`from module import name`: a module, a name that a package hands on, or something defined there."""
        if self._path(f"{module}.{name}") is not None:
            self._follow(f"{module}.{name}")
            return
        path = self._path(module)
        if path is None:
            return
        if path.name == "__init__.py" and not self._is_local(module):
            public = path.with_name("_public.py")  # where the package's own loads its names when they are asked for
            for handing, where in ((module, path), (f"{module}._public", public)):
                if where.exists() and (onward := _handed_on(handing, where, name)) is not None:
                    self._follow_name(*onward)
                    return
        self._add(module, path)

    def _is_local(self, module: str) -> bool:
        return self.beside is not None and module.partition(".")[0] not in self.roots

    def _path(self, module: str) -> Path | None:
        """The file of a module that belongs to one of the packages that are followed."""
        top, *rest = module.split(".")
        root = self.roots.get(top)
        if self.beside is not None and top not in self.roots:
            root = self.beside / top
        if root is None:
            return None
        path = root.joinpath(*rest)
        for candidate in (path / "__init__.py", path.with_suffix(".py")):
            if candidate.is_file():
                return candidate
        return None


def _root(top: str) -> Path | None:
    """The folder of a package; of a module in a file, that file without its suffix."""
    if folders := list(getattr(sys.modules.get(top), "__path__", ())):
        return Path(folders[0])
    path = _file_of(top)
    return None if path is None else path.with_suffix("")


def _file_of(module: str) -> Path | None:
    file = getattr(sys.modules.get(module), "__file__", None)
    return None if file is None else Path(file)


def _absolute(module: str, path: Path, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    base = package[: len(package) - node.level + 1]
    return ".".join([*base, *([node.module] if node.module else [])])


def _handed_on(module: str, path: Path, name: str) -> tuple[str, str] | None:
    """Where a package takes a name from that it hands on: (module, name there)."""
    for node in read_source(path).tree.body:
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return _absolute(module, path, node), alias.name
    return None
