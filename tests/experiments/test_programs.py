"""Compiled programs of experiments: points of a sweep have them in common."""

import logging

import jax
import pytest

from morphax.experiments import all_experiments
from morphax.lab.progress import Progress

MIXER = {"coupling": 1.5, "damping_rate": (15.0, 20.0), "drive_amplitude": 2.0, "noise": 1e-3}
SHORT = {"seeds": 1, "train_points": 64, "test_points": 64}
slow = pytest.mark.slow


def compiled(caplog, name, **numbers) -> list[str]:
    """What a run compiles."""
    experiment = all_experiments()[name]()
    config = experiment.Config(**numbers)
    caplog.clear()
    with caplog.at_level(logging.DEBUG, logger="jax._src.interpreters.pxla"):
        experiment.run(config, key=jax.random.key(config.seed), progress=Progress())
    return [record.getMessage() for record in caplog.records if record.getMessage().startswith("Compiling")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "shape", "point"),
    [
        ("josephson/shots", {"numbers": (1000,)}, {"couplings": (0.5, 1.5), "drives": (2.0, 3.0)}),
        pytest.param("josephson/waveforms", {}, MIXER | {"joint_peak_photons": 1.0}, marks=slow),
        pytest.param("josephson/neurons", {"sizes": (1, 4)}, MIXER, marks=slow),
        pytest.param(
            "josephson/scaling",
            {"modes": (2,), "sizes": (4,), "washout": 10},
            {"coupling": 0.3, "slowest": 0.5, "fastest": 3.0, "peak_photons": 0.4, "noise": 1e-4},
            marks=slow,
        ),
        pytest.param(
            "josephson/forecast",
            {"train_points": 0, "test_points": 0},
            MIXER | {"peak_photons": 1.0, "dissipations": (0.2, 0.3, 0.4, 0.5, 0.6)},
            marks=slow,
        ),
        pytest.param(
            "josephson/mackey-glass",
            {"seeds": 2, "washout": 10, "largest_delay": 3},
            {"coupling": 1.5, "damping_rate": (15.0, 20.0), "noises": (1e-7, 1e-5), "peak_photons": 1.0},
            marks=slow,
        ),
        pytest.param(
            "josephson/design",
            {"steps": 2, "starts": 2, "numbers": (1000,), "fewer": 2, "full": 4},
            MIXER | {"design_shots": 3e4, "learning_rate": 0.02},
            marks=slow,
        ),
        pytest.param(
            "spintronic/dynamics",
            all_experiments()["spintronic/dynamics"].quick | {"seeds": 1, "epochs": 1},
            {"learning_rate": 0.1, "learning_rate_decay": 4.0},
            marks=slow,
        ),
    ],
)
def test_points_of_equal_shapes_share_compiled_programs(caplog, name, shape, point):
    """A number of the physics, or of a training, that a sweep changes is no constant of a program."""
    shape = (SHORT | shape) if name.startswith("josephson") else dict(shape)
    assert compiled(caplog, name, **shape)
    assert compiled(caplog, name, **shape | point) == []
