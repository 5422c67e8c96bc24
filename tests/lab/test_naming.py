"""Run folders are named by what was changed: the same change the same name, another change another, on every system."""

import itertools
import re
from typing import Annotated, Literal

import pytest
import xarray as xr
from pydantic import Field

from morphax import BaseConfig, Experiment, cli, parameter
from morphax.cli import main
from morphax.lab.naming import LONGEST, default_folder, file_name

USUAL = {"noise": 0.0, "seeds": 10, "rates": (1.0, 2.0), "text": "wide"}


class Shapes(Experiment):
    """Fields of every kind."""

    class Config(BaseConfig):
        noise: float = parameter(0.0, "noise")
        seeds: int = parameter(10, "repetitions", extent=True)
        rates: tuple[float, ...] = parameter((1.0, 2.0), "rates")
        either: float | tuple[float, ...] = parameter(1.0, "one for all, or one for each")
        ridge: Annotated[float, Field(ge=0)] | Literal["auto"] = parameter(0.0, "ridge")
        shots: int | None = parameter(None, "shots")
        text: str = parameter("wide", "a text")
        exact: bool = parameter(False, "whether")

    name = "demo/shapes"
    quick = {"seeds": 3}

    def run(self, config, *, key, progress):
        return xr.Dataset()

    def figures(self, dataset):
        return {}


def name_of(*, quick: bool = False, **changes) -> str:
    values = (Shapes.quick if quick else {}) | changes
    folder = default_folder(Shapes(), Shapes.Config(**values), quick=quick)
    assert folder.parts[:-1] == ("runs", "demo", "shapes")
    return folder.name


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "full"),
        ({"quick": True}, "quick"),
        (USUAL, "full"),
        ({"quick": True, "seeds": 3}, "quick"),
        ({"quick": True, "seeds": 10}, "quick-seeds=10"),
        ({"noise": "1e-3"}, "full-noise=1e-3"),
        ({"noise": 0.001, "quick": True}, "quick-noise=1e-3"),
        ({"noise": 0.25}, "full-noise=0.25"),
        ({"noise": -1.5e-7}, "full-noise=-1.5e-7"),
        ({"noise": 1e22}, "full-noise=1e22"),
        ({"noise": 20, "seeds": 20.0}, "full-noise=20,seeds=20"),
        ({"rates": (1,)}, "full-rates=1"),
        ({"rates": (1, 2.5, 3), "noise": 2}, "full-noise=2,rates=1,2.5,3"),
        ({"ridge": "auto", "shots": 100, "exact": True}, "full-ridge=auto,shots=100,exact=true"),
        ({"precision": "single"}, "full-precision=single"),
        ({"text": "narrow.csv"}, "full-text=narrow.csv"),
    ],
)
def test_a_folder_says_what_was_changed(changes, name):
    assert name_of(**changes) == name
    assert name_of(**dict(reversed(changes.items()))) == name


@pytest.mark.parametrize(
    "changes",
    [
        {"text": "data/my.csv"},
        {"text": "C:\\data: *?"},
        {"text": "Wide"},  # some file systems know no capitals
        {"text": "ends."},
        {"text": "tiefe=3,noise=1"},
        {"text": "höhe"},
        {"text": "100"},
        {"text": ""},
        {"either": (2.0,)},
        {"rates": tuple(range(3, 60))},
    ],
)
def test_what_a_name_cannot_say_has_a_digest(changes):
    name = name_of(**changes)
    assert re.fullmatch(r"full-[a-z0-9_.,=+-]*-[0-9a-f]{8}", name)
    assert len(name) <= LONGEST
    assert name == name_of(**changes)


def test_different_changes_never_share_a_folder():
    noises = [{}, {"noise": 1.0}, {"noise": 10.0}]
    lists = [{}, {"rates": (1.0,)}, {"rates": (1.0, 10.0)}, {"either": 10.0}, {"either": (10.0,)}, {"either": (10, 1)}]
    texts = [{}, *({"text": text} for text in ("a/b", "a_b", "a:b", "A_B", "x,noise=1", "1", "1.0", "auto", ""))]
    texts += [{"text": "x" * 90 + end} for end in "ab"]
    changes = [a | b | c for a, b, c in itertools.product(noises, lists, texts)]
    assert len({name_of(**change).lower() for change in changes}) == len(changes)


def test_a_name_of_a_file_is_whole_or_has_a_digest():
    assert file_name("quick", {}) == "quick"
    assert file_name("quick", {}, whole=False).startswith("quick-")
    assert len(file_name("x" * 200, {})) == LONGEST
    assert file_name("x" * 200, 1) != file_name("x" * 200, 2)


def test_the_command_line_takes_that_folder(dice, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "find_experiment", lambda spec: dice)
    assert main(["run", "demo/dice", "--set", "throws=50", "--set", "faces=6"]) == 0
    assert main(["run", "demo/dice", "--set", "faces=6", "--set", "throws=5e1", "--set", "seed=0"]) == 0
    assert "has run before" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "runs" / "demo" / "dice").iterdir()] == ["full-throws=50,faces=6"]
