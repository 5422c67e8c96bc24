"""Examples that are changed at every step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from morphax import LearningRule
from morphax.learning.augmentation import Augmented, InputNoise, RandomAffine

IMAGES = jax.random.uniform(jax.random.key(0), (50, 36))
KEY = jax.random.key(1)


def plane(rows: int, columns: int) -> np.ndarray:
    """3 r - 2 c + 1, which linear interpolation reproduces."""
    r, c = np.indices((rows, columns))
    return (3 * r - 2 * c + 1.0).ravel()


def test_a_shift_moves_a_plane_by_what_its_slope_says():
    moved = RandomAffine((12, 12), shift=1.0)(jnp.tile(plane(12, 12), (200, 1)), KEY)
    inner = (moved.reshape(-1, 12, 12) - plane(12, 12).reshape(12, 12))[:, 2:-2, 2:-2]
    offsets = inner[:, 0, 0]
    np.testing.assert_allclose(inner, np.broadcast_to(offsets[:, None, None], inner.shape), atol=1e-4)
    # 3 u - 2 v with u, v uniform in [-1, 1]: variance (9 + 4) / 3; its estimate from 200 is good to a fifth.
    assert abs(offsets.mean()) < 4 * np.sqrt(13 / 3 / 200)
    assert np.var(offsets) == pytest.approx(13 / 3, rel=0.3)


def test_turning_keeps_the_centre_and_the_distance_from_it():
    r, c = np.indices((9, 9)) - 4.0
    distance = np.exp(-(r**2 + c**2) / 50).ravel()
    turned = RandomAffine((9, 9), rotation=np.pi)(jnp.tile(distance, (20, 1)), KEY).reshape(-1, 9, 9)
    np.testing.assert_allclose(turned[:, 2:7, 2:7], np.tile(distance.reshape(9, 9)[2:7, 2:7], (20, 1, 1)), atol=0.02)


def test_every_image_changes_in_its_own_way_and_beyond_the_rim_lies_the_background():
    moved = RandomAffine((6, 6), shift=2.0, background=-7.0)(jnp.ones((30, 36)), KEY)
    assert len(np.unique(np.asarray(moved).round(4), axis=0)) == 30
    assert moved.min() == pytest.approx(-7.0)
    assert moved.max() == pytest.approx(1.0)


def test_scaling_is_about_the_centre():
    moved = RandomAffine((12, 12), scaling=0.2)(jnp.tile(plane(12, 12) - plane(12, 12).mean(), (100, 1)), KEY)
    slopes = np.diff(moved.reshape(-1, 12, 12)[:, 3:-3, 5], axis=1)[:, 0] / 3
    assert 1 / slopes.min() <= 1.2 + 1e-4
    assert 1 / slopes.max() >= 0.8 - 1e-4
    np.testing.assert_allclose(moved.reshape(-1, 12, 12)[:, 5:7, 5:7].mean((1, 2)), 0, atol=1e-4)


def test_noise_on_inputs_has_the_moments_it_says():
    added = np.asarray(InputNoise(0.3)(IMAGES, KEY) - IMAGES)
    assert abs(added.mean()) < 4 * 0.3 / np.sqrt(added.size)
    assert added.std() == pytest.approx(0.3, rel=4 / np.sqrt(2 * added.size))
    np.testing.assert_array_equal(InputNoise()(IMAGES, KEY), IMAGES)
    with pytest.raises(ValueError, match="deviation is -1"):
        InputNoise(-1.0)


class Remembering(LearningRule):
    """A rule that returns what it was given."""

    def gradient(self, substrate, inputs, targets, *, key):
        return {"inputs": inputs}, substrate

    def metrics(self, substrate, inputs, targets, *, key):
        return {"inputs": inputs}


def test_only_gradients_see_changed_inputs():
    rule = Augmented(Remembering(), RandomAffine((6, 6), shift=1.0))
    seen, _ = rule.gradient(None, IMAGES, None, key=KEY)
    again, _ = rule.gradient(None, IMAGES, None, key=jax.random.key(2))
    assert not np.allclose(seen["inputs"], IMAGES)
    assert not np.allclose(seen["inputs"], again["inputs"])
    np.testing.assert_array_equal(rule.metrics(None, IMAGES, None, key=KEY)["inputs"], IMAGES)


@pytest.mark.parametrize(("name", "value"), [("shift", -1.0), ("rotation", -0.1), ("scaling", 1.5)])
def test_what_is_no_change_is_refused(name, value):
    with pytest.raises(ValueError, match=name):
        RandomAffine((8, 8), **{name: value})
