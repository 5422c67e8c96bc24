"""The sequential digits: which images, which pixels, and a split that loses and repeats nothing."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits

from morphax import answer, evolve, read_task
from morphax.learning.metrics import accuracy
from morphax.substrates.reservoirs import EchoStateNetwork
from morphax.tasks import sequential_digits
from morphax.tasks.digits import hold_out

KEY = jax.random.key(0)


def sorted_rows(inputs, targets):
    rows = np.concatenate([np.asarray(inputs), np.asarray(targets)], axis=1)
    return rows[np.lexsort(rows.T)]


def test_the_split_holds_every_image_once_with_its_label():
    task = sequential_digits(0.3, key=KEY)
    assert (len(task.train_inputs), len(task.test_inputs)) == (539, 1258)
    digits: Any = load_digits()
    inputs = jnp.concatenate([task.train_inputs, task.test_inputs])
    targets = jnp.concatenate([task.train_targets, task.test_targets])
    np.testing.assert_array_equal(
        sorted_rows(inputs, targets), sorted_rows(digits.images.reshape(1797, 64), np.eye(10)[digits.target])
    )
    assert (inputs.min(), inputs.max()) == (0, 16)
    # A random split: both sides have all digits alike, to 5 standard deviations of drawing 539 of 1797.
    counts, whole = np.asarray(task.train_targets.sum(axis=0)), np.bincount(digits.target)
    assert np.all(np.abs(counts - 0.3 * whole) < 5 * np.sqrt(whole * 0.3 * 0.7))
    other = sequential_digits(0.3, key=jax.random.key(1))
    assert not np.array_equal(other.train_inputs, task.train_inputs)


def test_pixels_come_row_by_row_from_the_top():
    task = sequential_digits(key=KEY)
    ones = np.asarray(task.train_inputs)[np.asarray(task.train_targets)[:, 1] == 1].reshape(-1, 8, 8).mean(axis=0)
    sevens = np.asarray(task.train_inputs)[np.asarray(task.train_targets)[:, 7] == 1].reshape(-1, 8, 8).mean(axis=0)
    assert np.all(ones[:, 0] < 0.1)  # the left edge of a one is empty in every row, its middle full
    assert np.all(ones[:, 3:5].sum(axis=1) > 15)
    assert sevens[:2].sum() > 1.5 * sevens[-2:].sum()  # a seven is wide at the top


def test_held_out_examples_are_others():
    task = sequential_digits(key=KEY)
    numbered = jnp.arange(len(task.train_inputs))
    train, validation = hold_out(numbered, 2 * numbered, 0.2, key=KEY)
    assert len(validation[0]) == round(0.2 * len(numbered))
    np.testing.assert_array_equal(np.sort(np.concatenate([train[0], validation[0]])), numbered)
    np.testing.assert_array_equal(validation[1], 2 * validation[0])
    np.testing.assert_array_equal(train[1], 2 * train[0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sequential_digits(0.0, key=KEY), "train_fraction is 0.0; it must be > 0"),
        (lambda: sequential_digits(1.0, key=KEY), "train_fraction is 1; it must leave images to test with"),
        (lambda: hold_out(jnp.ones(3), jnp.ones(3), 0.1, key=KEY), "fraction is 0.1 of 3 examples"),
        (lambda: hold_out(jnp.ones(3), jnp.ones(3), 0.9, key=KEY), "fraction is 0.9 of 3 examples"),
    ],
)
def test_bad_fractions_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.slow
def test_an_echo_state_network_reads_them():
    rng = np.random.default_rng(0)
    orthogonal = np.linalg.qr(rng.normal(size=(60, 60)))[0]
    network = EchoStateNetwork(0.1 * rng.uniform(-1, 1, (60, 1)), 0.95 * orthogonal, 0.1 * rng.uniform(-1, 1, 60))
    task = sequential_digits(key=KEY)
    reading = read_task(network, task)
    assert (reading.train.shape, reading.test.shape) == ((898, 60), (899, 60))
    # Every image starts afresh: its reading depends on no other.
    alone, _ = evolve(network, task.test_inputs[17])
    np.testing.assert_allclose(reading.test[17], alone[-1], atol=1e-5)
    outputs, _ = answer(reading, task)
    assert accuracy(outputs, task.test_targets) > 0.6  # of ten classes
