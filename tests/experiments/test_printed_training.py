"""Trainings beside the printed one: their descent, what is told of the weights, and numbers of time steps."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from pydantic import ValidationError

from morphax.experiments.spiking._descents import Followed, descent, drive
from morphax.experiments.spiking.printed_training import PrintedTraining
from morphax.learning.backprop import Backpropagation
from morphax.learning.objectives import DensityMatrixLoss
from morphax.substrates.base import evolve
from morphax.substrates.spiking import SpikingNetwork

KEY = jax.random.key(0)


def moved(optimiser: optax.GradientTransformation, gradient: Any, steps: int = 3) -> Any:
    """Where some steps down one gradient end."""
    weights: Any = {name: jnp.zeros_like(slope) for name, slope in gradient.items()}
    state = optimiser.init(weights)
    for _ in range(steps):
        changes, state = optimiser.update(gradient, state, weights)
        weights = optax.apply_updates(weights, changes)
    return weights


def test_equal_rates_are_plain_descent():
    first, second = jax.random.split(KEY)
    gradient = {"W": jax.random.normal(first, (3, 5)), "V": jax.random.normal(second, (2, 4))}
    plain = moved(optax.sgd(optax.exponential_decay(10.0, 100, np.exp(-1.0))), gradient)
    ours = moved(descent(10.0, 10.0, 100.0), gradient)
    for name, weights in plain.items():
        np.testing.assert_allclose(ours[name], weights, rtol=1e-5)


def test_means_and_deviations_have_their_own_rates():
    gradient = {"W": jax.random.normal(KEY, (3, 5))}
    slope = np.asarray(gradient["W"])
    weights = np.asarray(moved(descent(2.0, 0.5, 100.0), gradient, steps=1)["W"])
    np.testing.assert_allclose(weights.mean(1), -0.5 * slope.mean(1), atol=1e-6)
    deviations = slope - slope.mean(1, keepdims=True)
    np.testing.assert_allclose(weights - weights.mean(1, keepdims=True), -2 * deviations, atol=1e-6)


def test_drive_is_the_mean_current_over_the_threshold():
    """Of neurons that nothing connects and that never spike, whose mean voltage is then the drive."""
    network = SpikingNetwork(
        jnp.zeros((2, 2)), jnp.array([[0.01, 0.02], [0.03, 0.0]]), input_rate=0.7, steps_per_input=100, threshold=2.0
    )
    silent, state = jax.vmap(lambda key: evolve(network, jnp.ones(1), key=key))(jax.random.split(KEY, 2000))
    assert not silent.any()
    np.testing.assert_allclose(drive(network), state.voltage.mean(0) / 2.0, rtol=0.02)


@pytest.mark.slow
def test_followed_has_the_gradient_of_back_propagation():
    network = SpikingNetwork.random(7, 5, key=KEY, input_rate=0.5, input_mean=0.3, steps_per_input=10, visible=6)
    data = jnp.ones((3, 2)), jnp.broadcast_to(jnp.eye(4), (3, 4, 4))
    objective = DensityMatrixLoss(5)
    plain = Backpropagation(objective, observe="every").gradient(network, *data, key=KEY)
    metrics, gradient = Followed(objective, observe="every").gradient(network, *data, key=KEY)
    assert metrics["loss"] == plain[0]["loss"]
    np.testing.assert_array_equal(gradient.input_weights, plain[1].input_weights)
    np.testing.assert_array_equal(metrics["drive"], drive(network))


def test_all_trainings_simulate_as_many_time_steps():
    config = PrintedTraining.Config()
    assert config.updates * config.average == config.epochs * config.chains * config.intervals * config.interval
    with pytest.raises(ValidationError, match="epochs is 300; it must be a multiple of updates, 60, and simulate"):
        PrintedTraining.Config(epochs=300)
    with pytest.raises(ValidationError, match="variants is 'slow'"):
        PrintedTraining.Config(variants=("slow",))
