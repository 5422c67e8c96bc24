"""Langevin dynamics against Boltzmann's averages, and the gradient that they give."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import ive

from morphax import PhaseOscillators
from morphax.experiments.phase_oscillators._thermal import ThermalPropagation, langevin
from morphax.learning.equilibrium import EquilibriumPropagation

KEY = jax.random.key(0)
ERRORS = 4  # standard errors by which an average may be off


def walked(force, start, temperature, walkers, readings, **options):
    walk = partial(langevin, force, start, temperature, readings=readings, **options)
    return jax.jit(jax.vmap(lambda key: walk(key=key)))(jax.random.split(KEY, walkers))[:, readings // 5 :]


def mean_and_error(values):
    """Over walkers, which are independent."""
    values = np.asarray(values, float)
    each = values.reshape(len(values), -1).mean(1)
    return each.mean(), each.std(ddof=1) / len(each) ** 0.5


@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
def test_two_oscillators_are_distributed_as_boltzmann_says(temperature):
    # E = -J cos(phi_1 - phi_2): <cos> = I_1(J / T) / I_0(J / T). The third oscillator is an input without couplings.
    coupling = 1.5
    pair = [[0, coupling, 0], [coupling, 0, 0], [0, 0, 0]]
    network = PhaseOscillators.from_matrix(pair, inputs=[2], outputs=[1])
    force = network.landscape(jnp.zeros(1)).force
    states = walked(force, jnp.array([0.0, 2.0]), temperature, 200, 100, steps=10, time_step=0.1)
    found, error = mean_and_error(jnp.cos(states[..., 0] - states[..., 1]))
    ratio = coupling / temperature
    assert abs(found - ive(1, ratio) / ive(0, ratio)) < ERRORS * error
    assert error < 0.01


def test_a_spring_has_its_variance_with_any_stable_step():
    # Euler's would be too large by 1 / (1 - k h / 2): twice.
    stiffness, temperature = 10.0, 0.3
    states = walked(lambda x: -stiffness * x, jnp.zeros(1), temperature, 200, 100, steps=10, time_step=0.1)
    found, error = mean_and_error(states**2)
    assert abs(found - temperature / stiffness) < ERRORS * error
    assert error < 0.02 * temperature / stiffness


def test_gradient_is_that_of_the_free_energy():
    # One free oscillator at a clamped one: averages by quadrature.
    strength, temperature, coupling, drive, target = 0.5, 0.3, 0.3, 1.4, 1.6
    phases = np.linspace(-np.pi, np.pi, 20001)[:-1]

    def average(beta):
        cost = -np.log((1 + np.cos(phases - target)) / 2 + 1e-6)
        energy = -coupling * np.cos(phases - drive) + beta * cost
        weights = np.exp(-(energy - energy.min()) / temperature)
        return np.sum(weights * -np.cos(phases - drive)) / weights.sum()

    exact = (average(strength) - average(0.0)) / strength
    network = PhaseOscillators.from_matrix([[0, coupling], [coupling, 0]], inputs=[0], outputs=[1])
    rule = ThermalPropagation(strength=strength, temperature=temperature, initial_states=20)
    gradient_of = eqx.filter_jit(rule.gradient)
    data = jnp.array([[drive]]), jnp.array([[target]])
    found, error = mean_and_error(
        jnp.stack([gradient_of(network, *data, key=key)[1].couplings for key in jax.random.split(KEY, 20)])
    )
    assert abs(found - exact) < ERRORS * error
    assert error < 0.1 * abs(exact)


def test_without_noise_it_is_equilibrium_propagation():
    # One hidden oscillator and the output: no other equilibrium.
    network = PhaseOscillators.layered((2, 1, 1), key=KEY)
    data = jnp.array([[0.5, -0.5], [1.0, 0.2]]), jnp.array([[0.3], [-0.3]])
    rules = ThermalPropagation(strength=0.1, same_start=True, duration=400.0), EquilibriumPropagation(strength=0.1)
    ours, theirs = (eqx.filter_jit(rule.gradient) for rule in rules)
    found = ours(network, *data, key=KEY)[1].couplings
    np.testing.assert_allclose(found, theirs(network, *data, key=KEY)[1].couplings, atol=1e-3)
    # The same start needs no luck.
    np.testing.assert_array_equal(found, ours(network, *data, key=jax.random.key(1))[1].couplings)
