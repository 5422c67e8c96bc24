"""NARMA obeys its recurrence; Legendre targets are orthonormal; delays are delays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.polynomial import Legendre

from morphax.tasks import memory
from morphax.tasks.memory import information_processing, legendre_products, linear_memory, narma

KEY = jax.random.key(7)


def whole(task):
    """Inputs and targets of the training and the test part in one row."""
    return (
        np.concatenate([task.train_inputs, task.test_inputs]),
        np.concatenate([task.train_targets, task.test_targets]),
    )


@pytest.mark.parametrize("order", [1, 2, 10])
@pytest.mark.usefixtures("double")
def test_narma_obeys_its_recurrence(order):
    u, targets = whole(narma(order, 300, 200, key=KEY))
    y = np.concatenate([np.zeros(order), targets[:, 0]])  # y[order + t] is the target beside u[t]
    for t in range(500):
        last = y[t : t + order]
        product = u[t] * u[t - order + 1] if t >= order - 1 else 0.0
        expected = 0.3 * last[-1] + 0.05 * last[-1] * last.sum() + 1.5 * product + 0.1
        assert y[order + t] == pytest.approx(expected, abs=1e-12)


@pytest.mark.slow
def test_narma_sequences_that_diverge_are_drawn_again():
    keys = jax.random.split(KEY, 2000)
    first = jax.jit(jax.vmap(lambda key: memory.narma_outputs(first_inputs(key), 10).max()))(keys)
    diverging = ~(np.asarray(first) <= memory.BOUND)
    assert 0.002 < diverging.mean() < 0.03  # about 1 in 100, as the docstring says
    targets = jax.jit(jax.vmap(lambda key: narma(key=key).train_targets))(keys[diverging])
    assert np.isfinite(targets).all()
    assert np.abs(targets).max() <= memory.BOUND


def first_inputs(key):
    return jax.random.uniform(jax.random.fold_in(key, 0), (2000,), maxval=0.5)


def test_narma_says_when_every_sequence_diverged(monkeypatch):
    monkeypatch.setattr(memory, "BOUND", 0.0)
    with pytest.raises(RuntimeError, match="all 100 NARMA sequences of 77 points diverged"):
        narma(10, 50, 27, washout=0, key=KEY)


def test_narma_inputs_are_uniform():
    u, _ = whole(narma(10, 9000, 1000, key=KEY))
    assert 0 <= u.min() < 0.001
    assert 0.499 < u.max() <= 0.5
    assert u.mean() == pytest.approx(0.25, abs=4 * 0.5 / np.sqrt(12 * 10_000))


def test_linear_memory_targets_are_earlier_inputs():
    u, targets = whole(linear_memory((0, 3, 1), 60, 40, washout=3, key=KEY))
    for column, delay in enumerate((0, 3, 1)):
        np.testing.assert_array_equal(targets[delay:, column], u[: u.size - delay])
    assert np.abs(targets).max() <= 1
    assert len(np.unique(targets[:3, 1])) == 3  # inputs before the first are drawn too, not set to zero


def test_information_processing_targets_are_products_of_legendre_polynomials():
    u, targets = whole(information_processing((3, 2, 1), 3, 60, 40, washout=3, key=KEY))
    products = legendre_products((3, 2, 1), 3)
    assert targets.shape[1] == len(products)
    for column, product in enumerate(products):
        expected = np.ones(97)
        for delay, degree in product:
            delayed = u[3 - delay : u.size - delay]
            expected *= np.sqrt(2 * degree + 1) * Legendre.basis(degree)(delayed)
        np.testing.assert_allclose(targets[3:, column], expected, atol=1e-5)


@pytest.mark.slow
def test_information_processing_targets_are_orthonormal():
    points = 100_000
    task = information_processing(2, 3, points, 1, washout=2, key=KEY)
    columns = np.asarray(task.train_targets, float)
    gram = columns.T @ columns / points
    # every entry is a mean over points of (product of two targets), whose standard error is estimated from the data
    error = np.sqrt(np.maximum((columns**2).T @ columns**2 / points - gram**2, 1e-12) / points)
    assert (np.abs(gram - np.eye(len(gram))) < 6 * error).all()  # 6: neighbouring points are correlated
    assert np.abs(columns.mean(axis=0)).max() < 5 / np.sqrt(points)


def test_products_are_complete_and_distinct():
    products = legendre_products(4, 3)
    assert len(set(products)) == len(products) == 5 + 15 + 35  # multisets of 1, 2, 3 out of 5 delays
    assert all(len({delay for delay, _ in product}) == len(product) for product in products)
    assert [sum(degree for _, degree in product) for product in products] == [1] * 5 + [2] * 15 + [3] * 35


@pytest.mark.slow
@pytest.mark.parametrize("make", [narma, linear_memory, information_processing])
def test_one_key_gives_one_task_and_keys_vmap(make):
    keys = jax.random.split(KEY, 3)
    many = jax.jit(jax.vmap(lambda key: make(train_points=120, test_points=40, key=key)))(keys)
    one = make(train_points=120, test_points=40, key=keys[1])
    np.testing.assert_allclose(many.train_targets[1], one.train_targets, atol=1e-5)
    np.testing.assert_allclose(many.test_inputs[1], one.test_inputs, atol=1e-6)
    assert (many.train_inputs[0] != many.train_inputs[1]).any()
    assert many.train_targets.dtype == jnp.result_type(float)


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (narma, {"order": 0}, "order is 0; it must be a whole number from 1 to 10"),
        (narma, {"order": 20}, "order is 20; it must be a whole number from 1 to 10"),
        (narma, {"washout": 1000}, "washout is 1000"),
        (linear_memory, {"delays": ()}, "delays is empty"),
        (linear_memory, {"delays": (2, -1)}, r"delays\[1\] is -1; it must be a whole number >= 0"),
        (linear_memory, {"delays": (30,), "washout": 29}, "washout is 29; it must be >= 30, the longest delay"),
        (information_processing, {"max_degree": 0}, "max_degree is 0; it must be a whole number >= 1"),
        (information_processing, {"max_delay": -1}, "max_delay is -1; it must be a whole number >= 0"),
        (information_processing, {"max_delay": (5, 3)}, "max_delay has 2 values; it must have one for each of 3"),
        (information_processing, {"max_delay": (9, 1, 1), "washout": 8}, "washout is 8; it must be >= 9"),
        (information_processing, {"test_points": 0}, "test_points is 0"),
    ],
)
def test_bad_arguments_are_refused(make, arguments, message):
    with pytest.raises(ValueError, match=message):
        make(**arguments, key=KEY)
