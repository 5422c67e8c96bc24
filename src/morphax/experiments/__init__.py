"""Every experiment by its name: those of this package, and those that other packages announce.

The packages here, one a system, import their experiments: classes whose body says `name = "system/experiment"`. Names
and summaries are read from their source, which is not run before its experiment is asked for. An installed package adds
its own by an entry point of the group `morphax.experiments` that names an `Experiment` class. One that belongs to no
package is named by its file and its class: `path/to/file.py:Class`.
"""

import ast
import warnings
from collections.abc import Iterator
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING

from morphax.lab.errors import UsageError
from morphax.lab.script import load_experiment, names_a_file

if TYPE_CHECKING:
    from morphax.lab.experiment import Experiment

GROUP = "morphax.experiments"


def all_experiments() -> "dict[str, type[Experiment]]":
    """Name -> class, in the order in which they are defined.

    >>> from morphax.experiments import all_experiments
    >>> "josephson/waveforms" in all_experiments()
    True
    """
    return {point.name: point.load() for point, _ in _own()} | _announced()


def find_experiment(spec: str) -> "type[Experiment] | None":
    """The class of one experiment, by its name or as FILE:CLASS. Of the others only those of its system are loaded.

    `morphax.lab.script.spec_of` gives the text by which another process finds the same class. None where no
    experiment has that name.

    **Raises:** `UsageError`, in one line, where FILE:CLASS is no experiment, or has the name of an installed one.
    """
    announced = _announced()
    own = {point.name: point for point, _ in _own()}
    if spec in own:
        return own[spec].load()
    if spec in announced or not names_a_file(spec):
        return announced.get(spec)
    experiment = load_experiment(spec)
    if experiment.name in own or experiment.name in announced:
        raise UsageError(
            f"experiment is {spec!r}; it is called {experiment.name}, and so is an installed experiment; rename it, or "
            "run that one by its name"
        )
    return experiment


def summaries() -> dict[str, str]:
    """Name -> first line of the docstring."""
    announced = {name: experiment.summary() for name, experiment in _announced().items()}
    return {point.name: summary for point, summary in _own()} | announced


def _announced() -> "dict[str, type[Experiment]]":
    """Those of other packages; one that cannot be imported is named and left out.

    **Raises:** `UsageError`, naming both packages, where two experiments have one name.
    """
    found: dict[str, type[Experiment]] = {}
    packages = {point.name: "morphax" for point, _ in _own()}
    for point in entry_points(group=GROUP):
        package = point.dist.name if point.dist is not None else point.value
        try:
            experiment = point.load()
            name = experiment.name
        except Exception as error:
            why = f"{type(error).__name__}: {error}"
            warnings.warn(f"experiment {point.name} of the package {package} is left out; {why}", stacklevel=3)
            continue
        if name in packages:
            raise UsageError(
                f"two experiments are called {name}: of the packages {packages[name]} and {package}; uninstall one"
            )
        found[name], packages[name] = experiment, package
    return found


@cache
def _own() -> list[tuple[EntryPoint, str]]:
    """The experiments of this package and their summaries, from the source alone."""
    found: list[tuple[EntryPoint, str]] = []
    for package in sorted(Path(__file__).parent.glob("*/__init__.py")):
        for statement in _parsed(package):
            if isinstance(statement, ast.ImportFrom) and (statement.module or "").startswith(f"{__name__}."):
                found += _defined(str(statement.module), {alias.name for alias in statement.names})
    return found


def _defined(module: str, classes: set[str]) -> Iterator[tuple[EntryPoint, str]]:
    for node in _parsed(Path(__file__).parents[2].joinpath(*module.split(".")).with_suffix(".py")):
        if isinstance(node, ast.ClassDef) and node.name in classes and (name := _name(node)):
            yield EntryPoint(name, f"{module}:{node.name}", GROUP), (ast.get_docstring(node) or "").partition("\n")[0]


def _parsed(path: Path) -> list[ast.stmt]:
    return ast.parse(path.read_text(encoding="utf-8")).body


def _name(node: ast.ClassDef) -> str | None:
    """What the body of a class assigns to `name`."""
    for line in node.body:
        match line:
            case ast.Assign(targets=[ast.Name(id="name")], value=ast.Constant(value=str(name))):
                return name
    return None
