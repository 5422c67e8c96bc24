"""Twins from states that are read after every input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from morphax import ContinuousTimeRecurrentNetwork, SpintronicNetwork, evolve, mismatch
from morphax.judging.footprint import footprint
from morphax.judging.stepwise import Steps, identify_steps, read_steps

KEY = jax.random.key(0)


def free_error(model, chip) -> float:
    """By how much a model that runs freely is off, in units of the chip's deviation, on inputs not used."""
    fresh = jax.random.uniform(jax.random.key(9), (64,))
    one, other = (evolve(each, fresh)[0] for each in (model, chip))
    return float(jnp.sqrt(jnp.mean((one - other) ** 2) / jnp.var(other)))


@pytest.mark.slow
@pytest.mark.parametrize("kind", [SpintronicNetwork, ContinuousTimeRecurrentNetwork])
def test_a_twin_of_a_chip_runs_as_it_does(kind):
    """All weights and constants 20 % off, 1 % noise: the twin is off by a tenth of what the design is."""
    design = kind.random((8, 8), scale=4.0, key=KEY)
    chip = mismatch(design, weights=0.2, devices=0.2, key=jax.random.key(1))
    drives = jax.random.uniform(jax.random.key(2), (40, 50))
    steps = read_steps(chip, drives, noise=0.01, key=jax.random.key(3))
    twin = identify_steps(design, steps, spread=0.2, noise=0.01)
    assert free_error(design, chip) > 0.1
    assert free_error(twin, chip) < 0.1 * free_error(design, chip)


def test_what_is_read_is_what_the_device_goes_through():
    network = SpintronicNetwork.random((4, 4), key=KEY)
    drives = jax.random.uniform(KEY, (3, 20))
    steps = read_steps(network, drives, key=KEY)
    assert steps.states.power.shape == (3, 21, 8)
    readings, state = evolve(network, drives[1])
    assert np.allclose(steps.readings[1], readings, atol=1e-6)
    assert np.allclose(steps.states.power[1, -1], state.power, atol=1e-6)
    assert np.allclose(steps.states.power[:, 0], network.initial_state().power)


@pytest.mark.slow
def test_without_anything_to_tell_a_model_stays_as_designed():
    design = SpintronicNetwork.random((4, 4), key=KEY)
    steps = read_steps(design, jnp.zeros((2, 5)), key=KEY)
    twin = identify_steps(design, Steps(*steps), noise=1e3)
    assert np.allclose(twin.damping_rate, design.damping_rate, rtol=1e-3)


@pytest.mark.parametrize(("numbers", "message"), [({"spread": 0.0}, "spread is 0"), ({"noise": -1.0}, "noise is -1")])
def test_bad_numbers_are_refused(numbers, message):
    design = SpintronicNetwork.random((4,), key=KEY)
    with pytest.raises(ValueError, match=message):
        identify_steps(design, read_steps(design, jnp.zeros((1, 5)), key=KEY), **numbers)


def test_figures_of_a_network_are_those_of_its_weights():
    network = SpintronicNetwork.random((4, 4), key=KEY)
    found = footprint(network)
    used = int(jnp.sum(network.connections.weights != 0) + jnp.sum(network.connections.input_weights != 0))
    assert found.operations == used
    assert found.dense == 8 * 8 + 8
    assert found.connection_sparsity == pytest.approx(1 - used / 72)
    with pytest.raises(ValueError, match="has no weights with two axes"):
        footprint(jnp.zeros(3))
