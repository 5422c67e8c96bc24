"""A run that is killed at any of its writes goes on, and leaves the folder of an undisturbed one, file by file."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import xarray as xr

from morphax.files import read_dataset, read_json
from morphax.lab.run_folder import RunFolder

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no processes that share what is loaded")
TIMES = re.compile(r'"(seconds|started|sha256|command)"')


def run(experiment, folder: Path, killed_at: int | None = None) -> bool:
    """A run in a process of its own, which is killed when it is about to write for the n-th time; whether it ended."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1] == 0
    writes = 0
    try:
        for function in ("replace", "link", "unlink", "rename"):
            real = getattr(os, function)

            def counted(*arguments, real=real, **options):
                nonlocal writes
                if writes == killed_at:
                    os.kill(os.getpid(), signal.SIGKILL)
                writes += 1
                return real(*arguments, **options)

            setattr(os, function, counted)
        RunFolder(folder, experiment(), experiment.Config(throws=5)).execute()
        os._exit(0)
    except BaseException:
        os._exit(1)


def content(folder: Path) -> dict[str, object]:
    """Every file of a run, times apart."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_dir():
            found[name] = "folder"
        elif path.suffix == ".nc":
            dataset = read_dataset(path)
            for time in ("seconds", "sha256"):
                del dataset.attrs[time]
            found[name] = dataset
        elif path.name in ("environment.json", "manifest.json"):
            stored = read_json(path)
            found[name] = {key: value for key, value in stored.items() if key not in ("started", "sha256", "files")}
            found[f"{name}: files"] = sorted(stored.get("files", ()))
        elif path.suffix == ".html":
            found[name] = re.sub(r"(\d\d:\d\d:\d\d|[\d.]+ s\b)", "", path.read_text())
        else:
            found[name] = path.read_bytes()
    return found


def equal(one: dict[str, object], other: dict[str, object]) -> bool:
    return one.keys() == other.keys() and all(
        value.identical(twin) if isinstance(value, xr.Dataset) and isinstance(twin, xr.Dataset) else value == twin
        for value, twin in ((value, other[name]) for name, value in one.items())
    )


def killed_everywhere(experiment, folder: Path) -> None:
    """Kill a run at its first write, at its second, and so on until it ends; each time it must go on."""
    assert run(experiment, folder / "whole" / "out")
    whole = content(folder / "whole" / "out")
    assert "checkpoints" not in whole
    kills = 0
    while not run(experiment, (out := folder / str(kills) / "out"), killed_at=kills):
        assert run(experiment, out), f"killed at write {kills} it does not go on"
        found = content(out)
        assert equal(found, whole), f"killed at write {kills}: {json.dumps([*found])}"
        assert not list((out.parent / ".pieces").glob("*/.*"))
        kills += 1
    assert kills > 20


@pytest.mark.slow
def test_killed_at_every_write_it_goes_on_to_the_same_folder(tmp_path):
    """In a process of its own, in which JAX has started no threads: they would not survive a fork."""
    command = [sys.executable, "-m", "tests.lab.test_crashes", str(tmp_path)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr


if __name__ == "__main__":
    from tests.lab.conftest import Dice

    killed_everywhere(Dice, Path(sys.argv[1]))
