"""Experiments in files that belong to no package: found, refused in a line, and judged by what the file holds."""

import shlex
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from morphax import Experiment
from morphax.cli import main
from morphax.experiments import find_experiment
from morphax.files import read_sealed
from morphax.lab import identity
from morphax.lab.errors import UsageError
from morphax.lab.identity import local_source_of, source_of
from morphax.lab.run_folder import RunFolder, open_run
from morphax.lab.script import module_of, spec_of

TIDE = """
    import xarray as xr
    from matplotlib.figure import Figure
    from morphax import BaseConfig, Claim, Experiment, parameter
    from tidal_parts.moon import pull
    import tidal_scale

    class Tide(Experiment):
        '''How high the water stands.'''
        class Config(BaseConfig):
            depth: float = parameter(1.0, "of the water", unit="m")
        name = "mine/tide"
        claims = (Claim.at_least("wet", 0.0, lambda d: d.height, source="a beach"),)
        def run(self, config, *, key, progress):
            return xr.Dataset({"height": config.depth * pull() * tidal_scale.SCALE})
        def figures(self, dataset):
            return {"tide": Figure()}

    class Pail:
        pass

    class Half(Experiment):
        name = "mine/half"
"""
FILES = {
    "tide.py": TIDE,
    "tidal_scale.py": "SCALE = 2.0\n",
    "tidal_parts/__init__.py": "from tidal_parts.shore import SAND\n",
    "tidal_parts/shore.py": "SAND = 1\n",
    "tidal_parts/moon.py": "def pull(): return 3.0\n",
    "tidal_unused.py": "",
}


@pytest.fixture(autouse=True)
def _in_a_new_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    modules, path = set(sys.modules), list(sys.path)
    forget()
    yield
    for name in set(sys.modules) - modules:
        if name.startswith(("morphax_file_", "tid")):
            del sys.modules[name]
    sys.path[:] = path
    forget()


@pytest.fixture
def tide(tmp_path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(textwrap.dedent(text))
    return tmp_path / "tide.py"


def found(spec: str) -> type[Experiment]:
    experiment = find_experiment(spec)
    assert experiment is not None
    return experiment


def forget() -> None:
    """As a new process does."""
    for cached in (source_of, local_source_of):
        cached.cache_clear()
    identity._sources.clear()


def changed(path: Path) -> None:
    path.write_text(path.read_text() + "# another line\n")
    forget()


def test_an_experiment_in_a_file_is_shown_and_runs_with_what_lies_beside_it(tide, capsys):
    assert main(["show", "tide.py:Tide"]) == 0
    assert "How high the water stands." in capsys.readouterr().out
    assert main(["run", "tide.py:Tide", "--set", "depth=2"]) == 0
    folder = Path("runs/mine/tide/full-depth=2")
    assert open_run(folder, {}).dataset().height == 12.0
    assert read_sealed(folder / "config.json")["source"] == {
        "file": str(tide),
        "class": "Tide",
        "sha256": local_source_of(module_of(found("tide.py:Tide"))),
    }
    assert main(["report", str(folder)]) == 0
    assert capsys.readouterr().err == ""


def test_a_text_leads_to_the_same_class(tide):
    for spec in ("tide.py:Tide", f"{tide}:Tide"):
        experiment = found(spec)
        assert spec_of(experiment) == spec_of(experiment()) == f"{tide}:Tide"
        assert found(spec_of(experiment)) is experiment
    assert spec_of(found("josephson/shots")) == "josephson/shots"


@pytest.mark.slow
def test_another_process_finds_the_same_class_by_its_text(tide, tmp_path):
    program = f"from morphax.experiments import find_experiment as f; print(f({str(tide) + ':Tide'!r}).name)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path / "tidal_parts"
    )
    assert done.stdout == "mine/tide\n"


@pytest.mark.parametrize(
    ("spec", "text", "message"),
    [
        ("no.py:Tide", "", "experiment is 'no.py:Tide'; there is no Python file 'no.py'"),
        ("tide.py:Tied", TIDE, "tide.py holds no class 'Tied'; did you mean 'Tide'?"),
        ("tide.py", TIDE, "it must be FILE:CLASS; it must be one of Tide"),
        ("tide.py:Tide", "x = 1", "tide.py holds no class 'Tide'; the file holds no experiment"),
        ("tide.py:Pail", TIDE, "Pail is no subclass of morphax.Experiment"),
        ("tide.py:Half", TIDE, "Half does not define figures, run"),
        ("tide.py:Tide", "import no_such_thing", "importing tide.py ends in ModuleNotFoundError: No module named 'no_"),
        ("tide.py:Tide", "raise SystemExit(3)", "importing tide.py ends in SystemExit: 3"),
        ("tide.py:Tide", "class (", "importing tide.py ends in SyntaxError: invalid syntax"),
        ("tide.py:Tide", TIDE.replace("mine/tide", "../tide"), "its name is '../tide'; it must be like"),
        ("tide.py:Tide", TIDE.replace("mine/tide", "josephson/shots"), "josephson/shots, and so is an installed"),
    ],
)
def test_what_is_no_experiment_is_one_line_and_exit_code_2(tide, spec, text, message, capsys):
    tide.write_text(textwrap.dedent(text))
    assert main(["run", spec]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.strip().count("\n") == 0
    assert not Path("runs").exists()


@pytest.mark.slow
def test_pieces_depend_on_the_file_and_on_all_that_it_imports_beside_it(tide):
    module = module_of(found("tide.py:Tide"))
    before = source_of(module), local_source_of(module)
    changed(tide.parent / "tidal_unused.py")
    assert (source_of(module), local_source_of(module)) == before
    for name in ("tide", "tidal_scale", "tidal_parts/moon", "tidal_parts/__init__", "tidal_parts/shore"):
        changed(tide.parent / f"{name}.py")
        now = source_of(module), local_source_of(module)
        assert now[0] != before[0], name
        assert now[1] != before[1], name
        before = now


def test_a_class_that_is_only_imported_depends_on_the_file_as_well(tide):
    Path("tidal_other.py").write_text("from tide import Tide\n")
    assert found("tidal_other.py:Tide").__module__ == "tide"
    assert module_of(found("tidal_other.py:Tide")) != "tide"


def test_where_a_file_lies_does_not_matter_to_its_pieces(tide, tmp_path):
    first = source_of(module_of(found("tide.py:Tide")))
    shutil.copytree(tmp_path, tmp_path / "moved")
    for name in [name for name in sys.modules if name.startswith("tidal")]:
        del sys.modules[name]
    assert source_of(module_of(found("moved/tide.py:Tide"))) == first


def test_another_module_of_the_name_of_one_beside_the_file_is_refused(tide, tmp_path):
    found("tide.py:Tide")
    shutil.copytree(tmp_path, tmp_path / "moved")
    with pytest.raises(UsageError, match=r"imports tidal_[a-z.]*, but .* was loaded under that name before; rename"):
        found("moved/tide.py:Tide")


@pytest.mark.slow
def test_a_run_whose_file_has_changed_is_shown_with_a_word_about_it(tide, capsys):
    assert main(["run", "tide.py:Tide", "--out", "out"]) == 0
    changed(tide.parent / "tidal_scale.py")
    for command in (["report", "out"], ["run", "tide.py:Tide", "--out", "out"]):
        capsys.readouterr()
        assert main(command) == 0
        assert "tide.py, or what it imports beside it, has changed since out was computed" in capsys.readouterr().err
    assert main(["run", "tide.py:Tide", "--out", "out", "--fresh"]) == 0
    capsys.readouterr()
    assert main(["report", "out"]) == 0
    assert capsys.readouterr().err == ""


def test_a_run_whose_file_is_gone_is_one_line_unless_its_name_was_installed(tide, capsys):
    experiment = found("tide.py:Tide")
    RunFolder(Path("out"), experiment(), experiment.Config()).execute()
    tide.unlink()
    assert main(["report", "out"]) == 2
    assert f"dir is 'out', a run of Tide in {tide}, which is gone; put the file back" in capsys.readouterr().err
    assert open_run(Path("out"), {"mine/tide": experiment}).complete


def test_a_file_that_was_moved_is_still_the_same_run(tide, tmp_path, capsys):
    assert main(["run", "tide.py:Tide", "--out", "out"]) == 0
    for name in [name for name in sys.modules if name.startswith("tidal")]:
        del sys.modules[name]
    shutil.copytree(tmp_path, tmp_path / "moved", ignore=shutil.ignore_patterns("out", ".pieces"))
    capsys.readouterr()
    assert main(["run", "moved/tide.py:Tide", "--out", "out"]) == 0
    assert "has run before" in capsys.readouterr().err


def test_another_class_or_file_of_the_same_name_is_another_experiment(tide, capsys):
    tide.write_text(tide.read_text() + "class Flood(Tide):\n    'The same, by another name.'\n")
    shutil.copy(tide, "tidal_copy.py")
    assert main(["run", "tide.py:Tide", "--out", "out"]) == 0
    for other, fresh in (("tide.py:Flood", []), ("tidal_copy.py:Tide", []), ("tide.py:Flood", ["--fresh"])):
        capsys.readouterr()
        assert main(["run", other, "--out", "out", *fresh]) == 2
        error = capsys.readouterr().err
        assert f"a run of mine/tide (tide.py:Tide); choose another folder for mine/tide ({other})" in error


def test_what_differs_is_not_the_file_where_that_is_the_same(tide, capsys):
    assert main(["run", "tide.py:Tide", "--out", "out"]) == 0
    assert main(["sweep", "tide.py:Tide", "--over", "depth=1,2", "--out", "out"]) == 2
    assert "out is 'out', a run with another over; choose" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        ["run", "--set", "note=a b", "--set", "depth=2.0"],
        ["sweep", "--quick", "--set", "seed=3", "--over", "depth=[1.0,2.0]"],
        pytest.param(
            ["tune", "--maximise", "height", "--over", "depth=1:9", "--trials", "2", "--parallel-trials", "1"],
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_command_that_is_told_asks_for_the_same(tide, command, capsys):
    note = "class Config(BaseConfig):\n        note: str = parameter('', 'of the diver')"
    tide.write_text(tide.read_text().replace("class Config(BaseConfig):", note))
    name, *options = command
    out = str(Path("my run").absolute())
    assert main([name, f"{tide}:Tide", *options, "--out", out]) == 0
    stored = read_sealed(Path(out) / "config.json")
    changed(tide.parent / "tidal_scale.py")
    capsys.readouterr()
    assert main(["report", out]) == 0
    told = capsys.readouterr().err.partition("numbers are those of before: ")[2].partition(" computes them anew")[0]
    assert shlex.split(told) == ["morphax", name, f"{tide}:Tide", *options, "--out", out, "--fresh"]
    assert main(shlex.split(told)[1:]) == 0
    assert read_sealed(Path(out) / "config.json") | {"source": stored["source"]} == stored


def test_a_file_that_changes_while_it_is_loaded_is_refused_and_loaded_the_next_time(tide, capsys):
    slow = f"""
        from pathlib import Path
        file = Path({str(tide)!r})
        file.write_text(file.read_text() + "# another line")
        SCALE = 2.0
        """
    (tide.parent / "tidal_scale.py").write_text(textwrap.dedent(slow))
    assert main(["run", "tide.py:Tide", "--out", "out"]) == 2
    error = capsys.readouterr().err
    assert "experiment is 'tide.py:Tide'; tide.py has changed while it was loaded; run again" in error
    assert not Path("out").exists()
    assert main(["run", "tide.py:Tide", "--out", "out"]) == 0


def test_what_is_imported_late_must_be_what_its_digest_tells(tide, capsys):
    late = """
        def run(self, config, *, key, progress):
            def piece():
                with open("tidal_unused.py", "a") as file:
                    file.write("DEPTH = 9.0\\n")
                import tidal_unused
                return xr.Dataset({"height": tidal_unused.DEPTH})
            return progress.pieces({"late": piece})["late"]
        def figures"""
    (tide.parent / "tidal_unused.py").write_text("DEPTH = 1.0\n")
    tide.write_text(tide.read_text().replace("    def figures", textwrap.indent(textwrap.dedent(late), "    ")))
    assert main(["run", "tide.py:Tide", "--out", "out"]) == 2
    unused = tide.parent / "tidal_unused.py"
    assert f"{unused} has changed while the run went on; run again" in capsys.readouterr().err
    assert not list(Path().glob(".pieces/*/*.nc"))
