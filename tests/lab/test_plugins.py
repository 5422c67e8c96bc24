"""Experiments of other packages: found, named where they cannot be imported, refused where a name is taken."""

import sys
import textwrap

import pytest

from morphax.cli import main

MINE = """
    from morphax import BaseConfig, Experiment
    class Mine(Experiment):
        '''An experiment of another package.'''
        name = {name!r}
        def run(self, config, *, key, progress): ...
        def figures(self, dataset): ...
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Installs a package with one experiment."""
    monkeypatch.syspath_prepend(tmp_path)

    def install(package: str, text: str) -> None:
        (tmp_path / f"{package}.py").write_text(textwrap.dedent(text))
        about = tmp_path / f"{package}-1.0.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (about / "entry_points.txt").write_text(f"[morphax.experiments]\n{package} = {package}:Mine\n")

    yield install
    for name in [name for name in sys.modules if name.startswith("laboratory_")]:
        del sys.modules[name]


@pytest.mark.filterwarnings("default")  # which are errors in tests
@pytest.mark.parametrize("text", ["import nothing_of_this_name", "1 / 0", "Mine = 3"])
def test_one_that_cannot_be_imported_is_named_and_left_out(install, capsys, text):
    install("laboratory_b", text)
    assert main(["list"]) == 0
    printed = capsys.readouterr()
    assert "josephson/waveforms" in printed.out
    assert "experiment laboratory_b of the package laboratory_b is left out; " in printed.err
    assert printed.err.count("\n") == 1
    assert main(["show", "josephson/shots"]) == 0


@pytest.mark.parametrize("other", ["josephson/shots", "c/mine"])
def test_two_of_one_name_are_an_error_that_names_both_packages(install, capsys, other):
    install("laboratory_c", MINE.format(name="c/mine"))
    install("laboratory_d", MINE.format(name=other))
    for command in (["list"], ["show", other]):
        assert main(command) == 2
        error = capsys.readouterr().err
        assert f"two experiments are called {other}: of the packages " in error
        assert "laboratory_d" in error
        assert ("morphax and" in error) if other.startswith("josephson") else ("laboratory_c" in error)
