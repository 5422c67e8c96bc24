"""An experiment of milliseconds, for tests of what surrounds experiments."""

from pathlib import Path

import jax
import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure

from morphax import BaseConfig, Claim, Experiment, parameter
from morphax.files import write_text
from morphax.lab import run_folder
from morphax.lab.figures import KINDS, Figures


class Dice(Experiment):
    """Means of thrown dice."""

    class Config(BaseConfig):
        throws: int = parameter(100, "throws of a die", ge=1)
        faces: tuple[int, ...] = parameter((6, 20), "faces of each die", unit="faces", min_length=1, extent=True)

    name = "demo/dice"
    quick = {"throws": 10}
    claims = (
        Claim.within("six faces: mean", 3.5, lambda d: d["mean"].sel(faces=6), source="probability", tolerance=1.0),
        Claim.at_least(
            "more faces, more points: 20 against 6",
            lambda d: d["mean"].sel(faces=6),
            lambda d: d["mean"].sel(faces=20),
            source="six faces of this run",
        ),
        Claim.reported("highest of 8 faces", lambda d: d.highest.sel(faces=8), source="ours"),
    )

    def run(self, config, *, key, progress):
        parts = progress.pieces({f"die {n}": lambda n=n: self.thrown(config, n, key, progress) for n in config.faces})
        return xr.concat(list(parts.values()), xr.Variable("faces", list(config.faces)))

    def thrown(self, config, faces, key, progress):
        points = np.asarray(jax.random.randint(jax.random.fold_in(key, faces), (config.throws,), 1, faces + 1))
        progress.record(f"die {faces}", [{"points": int(point)} for point in points])
        units = {"units": "points", "long_name": "of all throws"}
        return xr.Dataset({"mean": ((), points.mean(), units), "highest": ((), points.max(), units)})

    def figures(self, dataset):
        figure = Figure()
        figure.subplots().plot(dataset.faces, dataset["mean"])
        return {"dice": figure}


@pytest.fixture
def undrawn(monkeypatch) -> None:
    """Figures are empty files: to draw them takes most of the time of a small run."""

    def touch(figures: Figures, folder: Path) -> None:
        for name in figures:
            for kind in KINDS:
                write_text(folder / f"{name}.{kind}", "")

    monkeypatch.setattr(run_folder, "save_figures", touch)


@pytest.fixture(scope="session")
def dice() -> type[Experiment]:
    return Dice
