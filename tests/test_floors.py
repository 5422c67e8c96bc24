"""Who may import whom: a floor imports only floors below it."""

import ast
from pathlib import Path

import pytest

import morphax

ROOT = Path(morphax.__file__).parent
FLOORS = (
    {"units", "_checks", "_lazy", "_optional"},
    {"files"},
    {"host", "pytrees", "saving"},
    {"dynamics", "tasks", "lab"},
    {"quantum"},
    {"substrates"},
    {"learning"},
    {"export", "judging", "testing"},
    {"estimators"},
    {"experiments"},
    {"_options", "_public"},
    {"cli"},
)
FLOOR = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Rooms of morphax that a file imports, also inside functions."""
    modules = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: imports name their module whole"
            modules += (
                [f"{node.module}.{name.name}" for name in node.names] if node.module == "morphax" else [node.module]
            )
        elif isinstance(node, ast.Import):
            modules += [name.name for name in node.names]
    return {module.split(".")[1] for module in modules if module and module.startswith("morphax.")}


FILES = [path for path in sorted(ROOT.rglob("*.py")) if path != ROOT / "__init__.py"]


def test_every_room_has_a_floor():
    assert {room_of(path) for path in FILES} == set(FLOOR)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_floor_imports_only_floors_below_it(path):
    room = room_of(path)
    for other in imported(path) - {room}:
        assert FLOOR[other] < FLOOR[room], f"{room} imports {other}, which is not below it"


def test_the_lab_knows_no_physics():
    rooms = set().union(*(imported(path) for path in FILES if room_of(path) == "lab"))
    assert rooms <= {"lab", "files", "_checks", "_lazy", "_optional"}
