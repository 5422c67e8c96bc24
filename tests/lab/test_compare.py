"""Runs side by side: what differs, claims, and shared numbers, without a run being touched."""

import base64
import io
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from PIL import Image

from morphax.cli import main
from morphax.files import read_sealed, write_sealed
from morphax.lab import compare
from morphax.lab.compare import Comparison, Run, _drawn, _pictures, read_runs, write_page
from morphax.lab.figures import styled
from morphax.lab.run_folder import RunFolder


@pytest.fixture(autouse=True)
def _in_a_new_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture(scope="module")
def finished(dice, tmp_path_factory) -> Path:
    """A folder with two runs of one experiment."""
    path = tmp_path_factory.mktemp("finished")
    for name, numbers in {"full": {}, "full-throws=7": {"throws": 7, "faces": (6, 8)}}.items():
        RunFolder(path / "runs/demo/dice" / name, dice(), dice.Config(**numbers)).execute()
    return path


@pytest.fixture
def folders(finished) -> list[str]:
    """Copies of the two runs."""
    shutil.copytree(finished / "runs", "runs")
    return ["runs/demo/dice/full", "runs/demo/dice/full-throws=7"]


def content(folder: str) -> dict[Path, tuple[bytes, int]]:
    files = [path for path in Path(folder).rglob("*") if path.is_file()]
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def made_up(label: str, claims=(), **variables) -> Run:
    """A run with these variables, that was never carried out."""
    request = {"experiment": "demo/made-up", "quick": False, "config": {}, "data": {}}
    environment = {"versions": {}, "python": "3", "devices": [], "git_revision": None, "started": "today"}
    return Run(Path(label), label, request, environment, list(claims), xr.Dataset(variables))


@pytest.mark.slow
def test_runs_are_compared_on_the_terminal_and_on_a_page_and_are_not_touched(folders, capsys):
    before = [content(folder) for folder in folders]
    assert main(["compare", *folders]) == 0
    printed = capsys.readouterr().out
    for line in (
        r"│ throws +│ 100 +│ 7 +│",
        r"│ faces +│ 6, 20 +│ 6, 8 +│",
        r"│ six faces: mean +│ 3.5 ± 1 +│ 3\.\d+ met +│",
        r"│ more faces, more points: 20 against 6 +│ each its own +│ [\d.]+ \(against ≥ [\d.]+\) met +│ not run",
        r"│ mean +│ points +│ 1 +│ 3\.\d+ +│ \d\.\d+ +│",
    ):
        assert re.search(line, printed), line
    assert "precision" not in printed  # which is the same
    page = Path(printed.splitlines()[-1].removeprefix("page: "))
    assert page.parent == Path("runs")
    text = page.read_text(encoding="utf-8")
    assert text.count("data:image/png;base64,") == 2
    assert "http" not in text
    assert "mean, of all throws (points)" in text
    assert [content(folder) for folder in folders] == before
    assert main(["compare", *folders, "--out", "pages/mine.html"]) == 0
    assert Path("pages/mine.html").read_text(encoding="utf-8") == text


@pytest.mark.slow
def test_runs_of_different_experiments_share_what_they_share(dice, folders, capsys):
    class Coins(dice):
        name = "demo/coins"
        claims = dice.claims[:1]

        def run(self, config, *, key, progress):
            return super().run(config, key=key, progress=progress).drop_vars("highest").assign(own=1.0)

    RunFolder(Path("runs/demo/coins/full"), Coins(), Coins.Config()).execute()
    assert main(["compare", folders[0], "runs/demo/coins/full"]) == 0
    printed = capsys.readouterr().out
    for line in (
        r"│ what differs +┃ dice/full +┃ coins/full",
        r"│ experiment +│ demo/dice +│ demo/coins",
        r"│ highest of 8 faces +│ — +│ not run reported +│ — +│",
        r"│ mean +│ points +│ 2 +│",
        r"highest: only in dice/full: along faces in points",
        r"own: only in coins/full: along nothing",
    ):
        assert re.search(line.replace("│ what", "┃ what"), printed), line


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        ("config.json", "which is no run folder (it holds no config.json)"),
        ("manifest.json", "a run that is not finished"),
        ("result.nc", "whose result.nc is not what was written; run the experiment again"),
        ("cut claims.json", "whose claims.json is not what was written"),
        ("cut manifest.json", "manifest.json is damaged"),
        ("incomplete", "a run that is not finished"),
    ],
)
def test_a_folder_that_cannot_be_compared_is_named_in_a_line(folders, harm, message, capsys):
    *cut, name = harm.split()
    path = Path(folders[1]) / name
    if harm == "incomplete":
        manifest = path.with_name("manifest.json")
        write_sealed(manifest, read_sealed(manifest) | {"complete": False})
    elif cut:
        path.write_bytes(path.read_bytes()[:50])
    else:
        path.unlink()
    assert main(["compare", *folders]) == 2
    error = capsys.readouterr().err
    assert f"dir is {folders[1]!r}" in error
    assert message in error
    assert error.strip().count("\n") == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{0}", "{0}"], "which is given twice"),
        (["{0}", "nowhere"], "dir is 'nowhere', which is no run folder"),
        (["{0}", "{1}", "--out", "{0}/page.html"], "in the run folder runs/demo/dice/full; a page of several"),
        (["{0}", "{1}", "--out", "thesis.tex"], "out is 'thesis.tex'; it must be a file whose name ends in .html"),
        (["{0}", "{1}", "--out", "runs/demo/dice/full/config.json/x.html"], "in the run folder"),
    ],
)
def test_what_cannot_be_asked_is_refused(folders, arguments, message, capsys):
    assert main(["compare", *(argument.format(*folders) for argument in arguments)]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_inside_another_has_its_own_name(dice):
    for path in ("out", "out/inner", "out/out"):
        RunFolder(Path(path), dice(), dice.Config()).execute()
    for inside in ("out/inner", "out/out"):
        assert [run.label for run in read_runs([Path("out"), Path(inside)])] == ["out", inside]


def test_what_has_other_axes_or_another_unit_or_no_numbers_is_left_out_with_its_reason():
    length, time = {"units": "mm"}, {"units": "ns"}
    first = made_up("a", x=("seed", [1.0, 2.0]), y=("time", [1.0]), z=((), 1.0, length), word=((), "up"), i=((), 1j))
    second = made_up("b", x=((), 1.0), y=("place", [1.0]), z=((), 1.0, time), word=((), "down"), i=((), 1j))
    third = made_up("c", x=((), 3.0), y=("place", [2.0]))
    comparison = Comparison([first, second, third])
    assert [(variable.name, list(variable.arrays)) for variable in comparison.variables] == [
        ("x", ["a", "b", "c"]),
        ("y", ["b", "c"]),
    ]
    assert comparison.left_out == {
        "y": "only in a: along time",
        "z": "only in a: along nothing in mm; only in b: along nothing in ns",
        "word": "only in a and b: no real numbers",
        "i": "only in a and b: no real numbers",
    }


def drawn(*runs: Run):
    comparison = Comparison(list(runs))
    (variable,) = comparison.variables
    styles = {run.label: {"color": "black", "linestyle": "-"} for run in runs}
    with styled():
        return _drawn(variable, variable.slices(), styles).axes


def test_a_curve_is_the_mean_over_seeds_with_a_band_and_all_runs_lie_in_one_panel():
    sizes = xr.Variable("size", [10, 100, 10000], {"units": "ns"})
    several = made_up("a", size=sizes, x=(("size", "seed"), [[1.0, 3.0], [2.0, 2.0], [0.0, 4.0]]))
    (axes,) = drawn(several, made_up("b", size=sizes[:2], x=("size", [5.0, 6.0])))
    assert [np.asarray(line.get_ydata()).tolist() for line in axes.lines] == [[2.0, 2.0, 2.0], [5.0, 6.0]]
    assert np.asarray(axes.lines[1].get_xdata()).tolist() == [10, 100]
    assert len(axes.collections) == 1
    assert axes.get_xscale() == "log"


def test_single_numbers_and_names_are_points():
    (axes,) = drawn(made_up("a", x=("seed", [1.0, 3.0])), made_up("b", x=((), 5.0)))
    points = [line for line in axes.lines if line.get_marker() == "o"]
    assert [np.asarray(line.get_ydata()).tolist() for line in points] == [[2.0], [5.0]]
    kinds = {"kind": ["static", "dynamic"]}
    (axes,) = drawn(made_up("a", x=("kind", [1.0, 3.0]), **kinds), made_up("b", x=("kind", [2.0, 4.0]), **kinds))
    assert [label.get_text() for label in axes.get_xticklabels()] == ["static", "dynamic"]


def test_more_axes_are_slices_up_to_a_limit_which_the_page_states(monkeypatch):
    monkeypatch.setattr(compare, "PANELS", 3)
    first = made_up("a", row=np.arange(40), x=(("row", "time"), np.ones((40, 50))), y=(("q", "p"), np.ones((1, 2))))
    second = made_up("b", row=np.arange(30), x=(("row", "time"), np.ones((30, 50))), y=(("q", "p"), np.ones((1, 2))))
    comparison = Comparison([first, second])
    assert comparison.variables[0].along == "time"
    assert len(comparison.variables[0].slices()) == 30
    write_page(comparison, Path("page.html"))
    text = Path("page.html").read_text()
    assert "3 of 30 slices, evenly spaced." in text
    assert "Left out: 10 of 40 places along row, which not all of the runs have." in text
    pictures = [base64.b64decode(picture) for picture in re.findall(r'base64,([^"]+)"', text)]
    assert [Image.open(io.BytesIO(picture)).format for picture in pictures] == ["PNG", "PNG"]


def test_slices_that_no_two_runs_share_are_not_drawn_and_the_page_says_so():
    numbers = np.ones((1, 2))
    comparison = Comparison([made_up(name, row=[name], x=(("row", "time"), numbers)) for name in "ab"])
    figures, notes = _pictures(comparison)
    assert figures == []
    assert notes == {"x": "not drawn: the runs have no place in common along the axes of its panels"}


def test_verdicts_of_a_sweep_are_those_of_all_its_points():
    claims = [{"claim": "grows", "paper": 0.0, "ours": x, "tolerance": 0, "relation": "at least"} for x in (-1.0, 2.0)]
    claims = [claim | {"met": claim["ours"] >= 0} for claim in claims]
    ((_, expected, columns),) = Comparison([made_up("swept", claims), made_up("one", claims[1:])]).claims
    assert expected == "≥ 0"
    assert [row and (row["here"], row["verdict"]) for row in columns] == [
        ("-1 … 2", "met at 1 of 2 points"),
        ("2", "met"),
    ]


def test_names_with_dollar_signs_are_drawn_as_they_are():
    kinds = {"kind": [r"$\frac$", "b"]}
    runs = [made_up(name, x=("kind", [1.0, 2.0]), **kinds) for name in (r"run $\frac$", "run b")]
    assert len(_pictures(Comparison(runs))[0]) == 1
