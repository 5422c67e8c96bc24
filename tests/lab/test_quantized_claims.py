"""Claims of the experiments with quantised perceptrons, on results made up for the purpose."""

from functools import partial

import jax
import numpy as np
import pytest
import xarray as xr

from morphax.experiments.quantized import Landscape, Weak
from morphax.experiments.quantized._claims import advantage
from morphax.experiments.quantized._training import beside


def errors(mean: float) -> xr.Dataset:
    """Three networks that differ by a thousandth, after one look."""
    return xr.Dataset({"validation": (("epoch", "seed"), mean + np.array([[-1e-3, 0.0, 1e-3]]))})


def points(config, strength: float) -> xr.Dataset:
    first, second = jax.random.key(0), jax.random.key(1)
    kinds = {
        "classical": partial(config.networks, first),
        "weak": partial(config.networks, second, width=0.0, strength=strength),
    }
    return beside({"classical": errors(0.07), "weak": errors(0.05)}, kinds)


@pytest.fixture(scope="module")
def config():
    return Weak.Config(hidden=2)


def test_a_claim_about_a_point_is_not_judged_at_another(config):
    claim = Weak.claims[0]
    assert claim.judge(points(config, 5 * np.pi / 19))["ours"] == pytest.approx(0.05)
    assert claim.judge(points(config, 0.5))["ours"] is None


def test_the_advantage_is_the_lower_end_of_welchs_interval(config):
    """Two means of three with a deviation of 0.001 each: 4 degrees of freedom, t = 2.776."""
    expected = 0.02 - 2.7764451 * 1e-3 * np.sqrt(2 / 3)
    assert advantage("weak")(points(config, 0.5)) == pytest.approx(expected)


@pytest.mark.parametrize(("corner", "met"), [(0.01, False), (0.095, False), (0.12, True)])
def test_the_map_can_be_best_at_its_classical_corner(corner, met):
    valley = np.full((2, 2), 0.09)
    valley[0, 1] = corner
    dataset = xr.Dataset({"valley": (("width", "steps"), valley)}, {"width": [0.0, 0.3], "steps": [10, 19]})
    assert Landscape.claims[-1].judge(dataset)["met"] is met
