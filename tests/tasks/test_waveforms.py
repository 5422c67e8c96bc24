"""Sine and square periods: what they are, and that they cannot be told apart without memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from morphax.tasks.waveforms import waveforms


def test_every_period_is_a_sine_or_a_square():
    task = waveforms(800, 400, key=jax.random.key(1))
    inputs = np.concatenate([task.train_inputs, task.test_inputs]).reshape(-1, 8)
    labels = np.concatenate([task.train_targets, task.test_targets]).reshape(-1, 8)
    assert (labels == labels[:, :1]).all()
    sine, square = np.sin(2 * np.pi * np.arange(8) / 8), [1, 1, 1, 1, -1, -1, -1, -1]
    np.testing.assert_allclose(inputs, np.where(labels == 1, sine, square), atol=1e-6)


def test_both_forms_come_with_equal_probability():
    task = waveforms(80_000, 8, key=jax.random.key(2))
    sines = float(task.train_targets.mean())
    assert abs(sines - 0.5) < 4 * 0.5 / np.sqrt(10_000)  # four standard errors of 10000 coin tosses


def test_extreme_points_occur_in_both_classes():
    task = waveforms(key=jax.random.key(3))
    top = np.asarray(task.train_inputs) > 0.999
    assert set(np.asarray(task.train_targets)[top, 0]) == {0.0, 1.0}


def test_shapes_kind_and_longer_periods():
    task = waveforms(120, 24, points_per_period=12, washout=7, key=jax.random.key(0))
    assert task.train_inputs.shape == (120,)
    assert task.test_targets.shape == (24, 1)
    assert (task.kind, task.washout) == ("classification", 7)
    assert task.train_inputs.dtype == jnp.result_type(float)


def test_one_key_gives_one_task_and_keys_vmap():
    keys = jax.random.split(jax.random.key(4), 3)
    many = jax.jit(jax.vmap(lambda key: waveforms(80, 40, key=key)))(keys)
    assert many.train_inputs.shape == (3, 80)
    np.testing.assert_allclose(many.train_inputs[1], waveforms(80, 40, key=keys[1]).train_inputs, atol=1e-6)
    assert (many.train_targets[0] != many.train_targets[1]).any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"train_points": 1001}, "train_points is 1001; it must be a multiple of 8"),
        ({"test_points": 0}, "test_points is 0; it must be a whole number >= 1"),
        ({"test_points": 12}, "test_points is 12; it must be a multiple of 8"),
        ({"points_per_period": 5}, "points_per_period is 5; it must be a multiple of 2"),
        ({"points_per_period": 2}, "points_per_period is 2; it must be a whole number >= 4"),
        ({"train_points": 8, "washout": 8}, "washout is 8; it must be a whole number from 0 to 7"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        waveforms(**arguments, key=jax.random.key(0))
