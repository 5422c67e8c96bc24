"""An experiment, or a device, in a file that belongs to no installed package: FILE:NAME."""

from __future__ import annotations

import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Mapping
from functools import reduce
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeAlias

from morphax.files import digest_of
from morphax.lab.errors import UsageError, nearest
from morphax.lab.identity import changed_source, forget_sources, local_files, local_source_of, read_source

if TYPE_CHECKING:
    from morphax.lab.experiment import Experiment

    AnExperiment: TypeAlias = "Experiment | type[Experiment]"

NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)*", re.ASCII)
"""Of an experiment: it becomes a folder below `runs`."""
_loaded: dict[type[Experiment], tuple[Path, ModuleType]] = {}


def names_a_file(spec: str) -> bool:
    """Whether this is FILE:CLASS, or a file without a class, and not the name of an installed experiment."""
    return ":" in spec or spec.endswith(".py")


def file_in(spec: str) -> str:
    """The file in FILE:NAME; of any other text all of it."""
    file, _, _ = spec.rpartition(":")
    return file if file.endswith(".py") else spec


def load_experiment(spec: str) -> type[Experiment]:
    """The class behind FILE:CLASS.

    What lies beside the file can be imported from it, as by `python FILE`. Within one process a file is loaded once.

    **Raises:** `UsageError` when there is no such file, when importing it fails, when it holds no such class, and when
    that is no experiment that can be run.
    """
    experiment, name, path, module = _named(
        spec, "experiment", lambda value: _is_experiment(value) and not inspect.isabstract(value)
    )
    _check(experiment, spec, name)
    _loaded[experiment] = path, module
    return experiment


def load_named(spec: str, what: str, fits: Callable[[Any], bool]) -> tuple[Any, str]:
    """What is behind FILE:NAME, and the name of the module that the file became.

    **Arguments:**

    - `spec`: the file, and the name of something in it, or of something in that: FILE:Network.random.
    - `what`: it should be, for messages: "device".
    - `fits`: whether something in the file may be meant.

    **Raises:** `UsageError` when there is no such file, importing it fails, or it holds no such name.
    """
    found, _, _, module = _named(spec, what, fits)
    return found, module.__name__


def _named(spec: str, what: str, fits: Callable[[Any], bool]) -> tuple[Any, str, Path, ModuleType]:
    file, _, name = (spec, "", "") if spec.endswith(".py") else spec.rpartition(":")
    path = Path(file).resolve()
    if path.suffix != ".py" or not path.is_file():
        raise UsageError(f"{what} is {spec!r}; there is no Python file {file!r}")
    module = _imported(path, spec, what)
    try:
        return reduce(getattr, name.split("."), module), name, path, module
    except AttributeError:
        own = [key for key, value in vars(module).items() if fits(value)]
        kind = "class" if what == "experiment" else "name"
        wrong = f"{file} holds no {kind} {name!r}" if name else f"it must be FILE:{kind.upper()}"
        hint = nearest(name, own) if own else f"the file holds no {what}"
        raise UsageError(f"{what} is {spec!r}; {wrong}; {hint}") from None


def spec_of(experiment: AnExperiment) -> str:
    """What `find_experiment` finds an experiment by, in other processes, too: its name, or FILE:CLASS."""
    cls = _class_of(experiment)
    if cls not in _loaded:
        return cls.name
    path, module = _loaded[cls]
    return f"{path}:{_name_in(module, cls)}"


def module_of(experiment: AnExperiment) -> str:
    """The module whose source decides what an experiment computes: of FILE:CLASS that file, wherever the class is
    defined."""
    cls = _class_of(experiment)
    return _loaded[cls][1].__name__ if cls in _loaded else cls.__module__


def class_of(experiment: AnExperiment) -> str:
    """Which class an experiment is, wherever its file lies: FILE:CLASS without folders, or MODULE:CLASS."""
    cls = _class_of(experiment)
    if cls not in _loaded:
        return f"{cls.__module__}:{cls.__qualname__}"
    path, module = _loaded[cls]
    return f"{path.name}:{_name_in(module, cls)}"


def source_record(experiment: AnExperiment) -> dict[str, str] | None:
    """Where a file's experiment is found again, and the SHA-256 of that file and of what it imports beside it.

    None for an installed one, which is found by its name.
    """
    cls = _class_of(experiment)
    if cls not in _loaded:
        return None
    path, module = _loaded[cls]
    return {"file": str(path), "class": _name_in(module, cls), "sha256": local_source_of(module.__name__)}


def _class_of(experiment: AnExperiment) -> type[Experiment]:
    return experiment if isinstance(experiment, type) else experiment.origin


def _name_in(module: ModuleType, cls: type) -> str:
    return next(name for name, value in vars(module).items() if value is cls)


def _imported(path: Path, spec: str, what: str) -> ModuleType:
    # No name that something else can have: a file may be called like a module of Python.
    name = f"morphax_file_{digest_of(str(path))[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    specification = importlib.util.spec_from_file_location(name, path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.path.insert(0, folder := str(path.parent))
    files = {path: name}
    try:
        read_source(path)  # before it is loaded: that must be what its digest tells
        sys.modules[name] = module
        files = local_files(name)
        specification.loader.exec_module(module)
        if (changed := changed_source(files)) is not None:
            raise UsageError(f"{what} is {spec!r}; {changed.name} has changed while it was loaded; run again")
        _check_beside(files, path)
    except BaseException as error:
        sys.modules.pop(name, None)
        forget_sources(file for file, local in files.items() if file == path or local not in sys.modules)
        sys.path.remove(folder)
        if isinstance(error, UsageError) or not isinstance(error, Exception | SystemExit):
            raise
        told = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise UsageError(f"{what} is {spec!r}; importing {path.name} ends in {told}") from error
    return module


def _check_beside(files: Mapping[Path, str], path: Path) -> None:
    """Refuse to run something else than what the identity of pieces would say."""
    for beside, local in files.items():
        loaded = getattr(sys.modules.get(local), "__file__", None)
        if beside != path and loaded is not None and Path(loaded).resolve() != beside.resolve():
            raise UsageError(
                f"{path.name} imports {local}, but {loaded} was loaded under that name before; rename {beside.name}, "
                "or start a new process"
            )


def _check(experiment: Any, spec: str, name: str) -> None:
    if not _is_experiment(experiment):
        raise UsageError(f"experiment is {spec!r}; {name} is no subclass of morphax.Experiment")
    if lacking := ", ".join(sorted(experiment.__abstractmethods__)):
        raise UsageError(f"experiment is {spec!r}; {name} does not define {lacking}")
    called = getattr(experiment, "name", None)
    if not isinstance(called, str) or not NAME.fullmatch(called):
        raise UsageError(f"experiment is {spec!r}; its name is {called!r}; it must be like 'system/experiment'")


def _is_experiment(value: Any) -> bool:
    from morphax.lab.experiment import Experiment

    return isinstance(value, type) and issubclass(value, Experiment) and value is not Experiment
