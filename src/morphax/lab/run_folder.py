"""A run on disk: what was asked, where it ran, what came out; resumed when the same is asked again."""

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax
import xarray as xr
from rich.console import Console
from threadpoolctl import threadpool_limits

from morphax.files import read_dataset, read_json, write_dataset, write_json, write_text
from morphax.lab.errors import UsageError
from morphax.lab.experiment import BaseConfig, Experiment
from morphax.lab.figures import save_figures
from morphax.lab.progress import Progress
from morphax.lab.report import write_report

PACKAGES = ("morphax", "jax", "jaxlib", "equinox", "optax", "numpy", "xarray", "matplotlib")


class RunFolder:
    """The folder of one run. `config.json` is written first, `report.html` last; every file is whole or absent.

    **Raises:** `UsageError` when the folder cannot be written, holds something else, or holds a run of another
    experiment or configuration.
    """

    def __init__(self, path: Path, experiment: Experiment, config: BaseConfig, *, quick: bool = False):
        self.path = path
        self.experiment = experiment
        self.config = config
        self.request = {"experiment": experiment.name, "quick": quick, "config": config.model_dump(mode="json")}
        self._claim_folder()

    @property
    def complete(self) -> bool:
        """Whether the run has come to its end."""
        return (self.path / "report.html").exists()

    def execute(self, *, console: Console | None = None) -> list[dict[str, Any]]:
        """Run what is missing, write everything, and return the judged claims.

        `seconds` of the result are those of all legs of an interrupted run, but for what was spent on pieces that were
        not finished then.
        """
        if self.complete:
            return read_json(self.path / "claims.json")
        if not (self.path / "result.nc").exists():
            self._compute(console)
        return self.publish()

    def _compute(self, console: Console | None) -> None:
        """Write the environment and the result, with the seconds that all legs of the run took."""
        progress = Progress(self.path / "checkpoints", history=self.path / "history.jsonl", console=console)
        write_json(self.path / "environment.json", environment(self.config.seed))
        started = time.perf_counter()
        # XLA already keeps every core busy; BLAS threads beside its own make small decompositions several times slower.
        with jax.enable_x64(self.config.precision == "double"), threadpool_limits(limits=1, user_api="blas"):
            dataset = self.experiment.run(self.config, key=jax.random.key(self.config.seed), progress=progress)
        seconds = progress.seconds + time.perf_counter() - started
        write_dataset(self.path / "result.nc", dataset.assign_attrs(experiment=self.experiment.name, seconds=seconds))

    def publish(self) -> list[dict[str, Any]]:
        """Judge the stored result and write claims, figures, exports and report from it; its pieces are not kept."""
        dataset = self.dataset()
        verdicts = [claim.judge(dataset) for claim in self.experiment.claims]
        write_json(self.path / "claims.json", verdicts)
        for name, text in self.experiment.exports(dataset).items():
            write_text(self.path / name, text)
        save_figures(lambda: self.experiment.figures(dataset), self.path / "figures")
        write_report(self.path, type(self.experiment), dataset)
        shutil.rmtree(self.path / "checkpoints", ignore_errors=True)
        return verdicts

    def dataset(self) -> xr.Dataset:
        return read_dataset(self.path / "result.nc")

    def _claim_folder(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"out is {str(self.path)!r}, which cannot be made: {error.strerror}") from error
        if not os.access(self.path, os.W_OK | os.X_OK):
            raise UsageError(f"out is {str(self.path)!r}, which cannot be written")
        stored = self.path / "config.json"
        if not stored.exists():
            if any(not entry.name.startswith(".") for entry in self.path.iterdir()):
                raise UsageError(f"out is {str(self.path)!r}, which holds other files; it must be new, empty, or a run")
            write_json(stored, self.request)
            return
        found = read_json(stored)
        if found["experiment"] != self.request["experiment"]:
            raise UsageError(
                f"out is {str(self.path)!r}, a run of {found['experiment']}; choose another folder for "
                f"{self.request['experiment']}"
            )
        if found != self.request:
            old, new = found["config"], self.request["config"]
            changed = [key for key in new if old.get(key) != new[key]] or ["quick"]
            raise UsageError(
                f"out is {str(self.path)!r}, a run with another {', '.join(changed)}; choose another folder, or start "
                "it anew with --fresh"
            )


def open_run(path: Path, experiments: dict[str, type[Experiment]]) -> RunFolder:
    """The run folder at `path` with the experiment and configuration that are stored in it."""
    stored = path / "config.json"
    if not stored.exists():
        raise UsageError(f"dir is {str(path)!r}, which is no run folder (it holds no config.json)")
    request = read_json(stored)
    if request["experiment"] not in experiments:
        raise UsageError(f"dir is {str(path)!r}, a run of {request['experiment']!r}, which this installation lacks")
    experiment = experiments[request["experiment"]]()
    return RunFolder(path, experiment, experiment.Config(**request["config"]), quick=request["quick"])


def environment(seed: int) -> dict[str, Any]:
    """Versions, devices, git revision and seed: what else decides the numbers of a run."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "devices": [f"{device.platform}: {device.device_kind}" for device in jax.devices()],
        "git_revision": git_revision(),
        "seed": seed,
        "command": " ".join(["morphax", *sys.argv[1:]]),
    }


def git_revision() -> str | None:
    """The revision of the source tree that morphax runs from, "+" behind it when that was changed; else None."""
    package = Path(__file__).parents[1]

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(package), *arguments], capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    # An installed copy may lie inside somebody else's repository, which then does not track it.
    if not git("ls-files", "--error-unmatch", "__init__.py"):
        return None
    revision = git("rev-parse", "HEAD")
    return revision and revision + ("+" if git("status", "--porcelain", ".") else "")
