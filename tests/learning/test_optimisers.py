"""Rows that are split into their mean and the deviations from it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from morphax.learning.optimisers import split_rows

pytestmark = pytest.mark.usefixtures("double")

W = {"in": np.arange(6.0).reshape(2, 3) ** 2, "out": np.array([1.0, -1.0])}
GRADIENT = {"in": np.array([[1.0, 2.0, 6.0], [0.0, -3.0, 0.0]]), "out": np.array([2.0, 4.0])}


def update(deviations, means, steps=1) -> Any:
    optimiser = split_rows(deviations, means)
    weights, memory = W, optimiser.init(W)
    for _ in range(steps):
        change, memory = optimiser.update(GRADIENT, memory, weights)
        weights = optax.apply_updates(weights, change)
    return jax.tree.map(lambda new, old: np.asarray(new - old), weights, W)


def test_each_optimiser_moves_its_own_part():
    """By hand: m moves by the sum of a row, deviations by what differs from the mean of the gradient."""
    change = update(optax.sgd(0.1), optax.sgd(0.01))
    for name, gradient in GRADIENT.items():
        slope = np.asarray(gradient)
        mean = slope.mean(-1, keepdims=True)
        expected = -0.1 * (slope - mean) - 0.01 * slope.sum(-1, keepdims=True)
        np.testing.assert_allclose(change[name], expected, rtol=1e-12)


def test_rates_that_fit_each_other_are_plain_descent():
    """d l / d W = deviations + mean: a rate n times smaller for the mean of n weights."""
    row = {"in": W["in"]}
    optimiser = split_rows(optax.sgd(0.3), optax.sgd(0.3 / 3))
    change: Any = optimiser.update({"in": GRADIENT["in"]}, optimiser.init(row), row)[0]
    np.testing.assert_allclose(change["in"], -0.3 * GRADIENT["in"], rtol=1e-12)


@pytest.mark.parametrize("still", ["deviations", "means"])
def test_a_part_without_a_rate_stays_whatever_the_other_does(still):
    """Adam scales every element differently, and must not leave the space of deviations."""
    parts = {"deviations": optax.adam(0.1), "means": optax.adam(0.1), still: optax.sgd(0.0)}
    change = update(**parts, steps=5)
    for values in change.values():
        if still == "means":
            np.testing.assert_allclose(values.mean(-1), 0, atol=1e-12)
        else:
            np.testing.assert_allclose(values - values.mean(-1, keepdims=True), 0, atol=1e-12)
        assert np.abs(values).max() > 0.1


def test_weights_reach_their_optimiser():
    """Decay acts on deviations and means, each of its own."""
    decay = optax.add_decayed_weights(1.0)
    optimiser = split_rows(optax.chain(decay, optax.scale(-0.5)), optax.set_to_zero())
    zero = jax.tree.map(jnp.zeros_like, W)
    change: Any = optimiser.update(zero, optimiser.init(W), W)[0]
    centred = np.asarray(W["in"] - W["in"].mean(-1, keepdims=True))
    np.testing.assert_allclose(change["in"], -0.5 * centred, rtol=1e-12)
