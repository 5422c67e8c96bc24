"""What starts fast loads little: asserted by the modules of new processes."""

import importlib
import inspect
import pkgutil
import subprocess
import sys

import pytest

import morphax
from morphax import Experiment, _public, experiments
from morphax.cli import main
from morphax.experiments import all_experiments, find_experiment, summaries

HEAVY = {"sklearn", "matplotlib", "pandas", "xarray", "diffrax", "pooch", "scipy"}


def loaded(program: str) -> set[str]:
    """The packages that a program has loaded at its end."""
    report = "; import sys; print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", program + report], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stderr.split()}


def test_no_public_name_loads_what_few_need():
    packages = loaded("import morphax; from morphax import *; JosephsonMixer, train, Claim")
    assert "jax" in packages
    assert not packages & HEAVY


def test_help_and_the_list_of_experiments_do_without_jax():
    packages = loaded("import morphax; from morphax.cli import main; main(['list'])")
    assert not packages & {"jax", "numpy", *HEAVY}


def test_experiments_are_shown_without_what_only_runs_need():
    every = "from morphax.experiments import all_experiments; [e.Config() for e in all_experiments().values()]"
    assert not loaded(every) & HEAVY


def test_public_names_are_those_of_their_modules():
    names = {name for name in vars(_public) if not name.startswith("_")}
    assert names == set(morphax.__all__)
    assert names < set(dir(morphax))
    assert morphax.train is morphax.learning.train
    with pytest.raises(AttributeError, match="module 'morphax' has no attribute 'trian'"):
        _ = morphax.trian  # pyright: ignore[reportAttributeAccessIssue]


def test_every_experiment_of_the_package_is_found_in_the_source():
    found = pkgutil.walk_packages(experiments.__path__, f"{experiments.__name__}.")
    modules = [importlib.import_module(module.name) for module in found]
    classes = {value for module in modules for value in vars(module).values() if inspect.isclass(value)}
    defined = {cls for cls in classes if issubclass(cls, Experiment) and not inspect.isabstract(cls)}
    assert set(all_experiments().values()) == defined
    assert summaries() == {name: cls.summary() for name, cls in all_experiments().items()}
    assert all(find_experiment(name) is cls and cls.name == name for name, cls in all_experiments().items())


def test_an_experiment_of_another_package_is_listed_and_shown(tmp_path, monkeypatch, capsys):
    (tmp_path / "elsewhere.py").write_text(
        "from morphax import Experiment\n"
        "class Mine(Experiment):\n"
        "    '''A question of my own.'''\n"
        "    name = 'mine/own'\n"
        "    def run(self, config, *, key, progress): ...\n"
        "    def figures(self, dataset): ...\n"
    )
    announced = tmp_path / "elsewhere-1.0.dist-info"
    announced.mkdir()
    (announced / "METADATA").write_text("Name: elsewhere\nVersion: 1.0\n")
    (announced / "entry_points.txt").write_text("[morphax.experiments]\nown = elsewhere:Mine\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert main(["list"]) == 0
    assert "mine/own" in (listing := capsys.readouterr().out)
    assert "A question of my own." in listing
    assert main(["show", "mine/own"]) == 0
    assert "precision" in capsys.readouterr().out
