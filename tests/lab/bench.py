"""An experiment in a file of its own whose pieces fail, kill their process, or take their time, as a test asks for."""

import os
import signal
import time
from pathlib import Path

import jax
import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from morphax import BaseConfig, Experiment, parameter
from morphax.files import KnownFile, note_file, received
from morphax.lab import worker

worker.SECONDS_BETWEEN_STATES, worker.SHARE_FOR_STATES = 0.0, float("inf")


class Bench(Experiment):
    """Random numbers."""

    class Config(BaseConfig):
        count: int = parameter(4, "pieces", ge=0, extent=True)
        seconds: float = parameter(0.0, "that a piece takes", ge=0)
        failing: tuple[int, ...] = parameter((), "pieces that raise", extent=True)
        deadly: int | None = parameter(None, "piece that kills its process", extent=True)
        deaths: int = parameter(100, "how often it does", ge=1, extent=True)
        notes: str = parameter("", "folder in which pieces leave notes", extent=True)
        csv: str | None = parameter(None, "file of data")
        known: str | None = parameter(None, "digest of a file of data that lies in `notes`")

        def data(self) -> dict[str, Path | KnownFile]:
            data: dict[str, Path | KnownFile] = {} if self.csv is None else {"csv": Path(self.csv)}
            if (digest := self.known) is not None:
                place = Path(self.notes) / "known"
                data["known"] = KnownFile(digest, received(digest).is_file, lambda: place.resolve(strict=True))
            return data

    name = "demo/bench"

    def run(self, config, *, key, progress):
        keys = jax.random.split(key, max(config.count, 1))
        work = {
            f"piece {i}": lambda i=i, key=k: self.piece(config, i, key, progress)
            for i, k in zip(range(config.count), keys, strict=False)
        }
        parts = progress.pieces(work)
        return xr.concat(list(parts.values()), xr.Variable("piece", np.arange(config.count)))

    def piece(self, config, index, key, progress):
        time.sleep(config.seconds)
        if index in config.failing and not (Path(config.notes) / "mended").exists():
            raise RuntimeError(f"no power at {index}")
        first = self.steps(config, index, progress)
        factor = 1.0
        if config.csv is not None:
            note_file(Path(config.csv))
            factor = float(Path(config.csv).read_text())
        if config.known is not None:
            factor = float(received(config.known).read_text())
        values = np.asarray(jax.random.normal(key, (3,))) * factor
        return xr.Dataset({"x": ("place", values), "first": first}, {"place": np.arange(3)})

    def steps(self, config, index, progress):
        """Ten steps that are resumed where they ended; where they began."""
        folder = progress.checkpoint(f"steps {index}")
        if index != config.deadly or folder is None:
            progress.record(f"steps {index}", [{"loss": 1.0 / (1 + step)} for step in range(3)])
            return 0
        notes = Path(config.notes) / "deaths"
        folder.mkdir(parents=True, exist_ok=True)
        state = folder / "state-0.txt"
        first = int(state.read_text()) if state.exists() else 0
        for step in range(first, 10):
            state.write_text(str(step + 1))
            progress.record(f"steps {index}", [{"step": i} for i in range(step + 1)])
            deaths = int(notes.read_text()) if notes.exists() else 0
            if step == 4 + deaths and deaths < config.deaths:
                notes.write_text(str(deaths + 1))
                time.sleep(0.5)  # what was sent arrives
                os.kill(os.getpid(), signal.SIGKILL)
        return first

    def figures(self, dataset):
        figure = Figure()
        figure.subplots().plot(dataset.piece, dataset.x)
        return {"bench": figure}


class Twice(Bench):
    """Pieces that are asked for after others."""

    class Config(Bench.Config):
        known_before: bool = parameter(True, "whether the later ones do not depend on the others")

    name = "demo/twice"

    def run(self, config, *, key, progress):
        first = progress.pieces({"a": lambda: xr.Dataset({"x": 1.0})})
        if not config.known_before:
            first = int(first["a"].x)
        later = progress.pieces({f"b{i}": lambda i=i: xr.Dataset({"x": 1.0 + i}) for i in range(2)})
        return xr.concat([part.x for part in later.values()], xr.Variable("piece", np.arange(2))).to_dataset()
