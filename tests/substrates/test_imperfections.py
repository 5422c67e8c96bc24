"""Imperfect devices: their statistics, and the energy of an inference."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from morphax import (
    DEVICE,
    SETTING,
    WEIGHT,
    EchoStateNetwork,
    JosephsonMixer,
    PhaseOscillators,
    SpintronicNetwork,
    WithReadout,
    evolve,
)
from morphax.substrates.imperfections import Imperfections, Noisy, inference_energy, mismatch, quantise
from morphax.substrates.layers import Connections

pytestmark = pytest.mark.usefixtures("double")

KEY = jax.random.key(7)


class Parts(eqx.Module):
    weights: jax.Array = eqx.field(metadata=WEIGHT)
    devices: jax.Array = eqx.field(metadata=DEVICE)
    clock: jax.Array = eqx.field(metadata=SETTING)


def isolated(neurons):
    return SpintronicNetwork(
        Connections((neurons,), np.zeros((neurons, neurons)), np.zeros((neurons, 1)), np.zeros(neurons))
    )


def silent():
    return EchoStateNetwork(np.zeros((500, 1)), np.zeros((500, 500)), np.linspace(-1, 1, 500))


def assert_normal(sample, spread, deviations=5.0):
    """Mean 0 and standard deviation `spread`, each within some standard errors of a sample of that size."""
    n = sample.size
    assert abs(np.mean(sample)) < deviations * spread / math.sqrt(n)
    assert abs(np.std(sample) / spread - 1) < deviations / math.sqrt(2 * n)


# Fabrication.


def test_mismatch_is_relative_log_normal_and_independent():
    n = 20_000
    parts = Parts(jnp.linspace(-3, 3, n), jnp.full(n, 1e-6), jnp.ones(n))
    chip = mismatch(parts, weights=0.2, devices=0.05, key=KEY)
    weights, devices = np.asarray(chip.weights / parts.weights - 1), np.asarray(chip.devices / parts.devices - 1)
    for sample, spread in ((weights, 0.2), (devices, 0.05)):
        assert abs(sample.mean()) < 5 * spread / math.sqrt(n)
        width = math.sqrt(math.log1p(spread**2))
        assert_normal(np.log1p(sample) + width**2 / 2, width)
    assert abs(np.corrcoef(weights, devices)[0, 1]) < 5 / math.sqrt(n)
    np.testing.assert_array_equal(chip.clock, parts.clock)
    for spreads, touched in (({"weights": 0.1}, "weights"), ({"devices": 0.1}, "devices")):
        chip = mismatch(parts, **spreads, key=KEY)
        for name in ("weights", "devices", "clock"):
            assert np.array_equal(getattr(chip, name), getattr(parts, name)) == (name != touched)


def test_no_spread_turns_a_sign():
    parts = Parts(jnp.ones(50_000), -jnp.ones(50_000), jnp.ones(()))
    chip = mismatch(parts, weights=0.5, devices=0.5, key=KEY)
    assert chip.weights.min() > 0
    assert chip.devices.max() < 0


@pytest.mark.parametrize("bits", [2, 3, 6])
def test_quantised_weights(bits):
    values = jnp.concatenate([jnp.zeros(3), 1.7 * jax.random.normal(KEY, (2000,))])
    parts = Parts(values, jnp.array([0.1, 0.25]), jnp.ones(()))
    rounded = quantise(parts, bits)
    levels = np.unique(np.asarray(rounded.weights).round(9))
    assert len(levels) <= 2**bits - 1
    step = float(jnp.max(jnp.abs(values))) / (2 ** (bits - 1) - 1)
    np.testing.assert_allclose(levels / step, np.round(levels / step), atol=1e-7)
    error = np.abs(rounded.weights - values)
    assert error.max() <= step / 2 * (1 + 1e-9)
    assert error.max() > 0.4 * step
    np.testing.assert_array_equal(rounded.weights[:3], 0.0)
    np.testing.assert_array_equal(rounded.devices, parts.devices)
    slope = jax.grad(lambda w: jnp.sum(quantise(Parts(w, w, w), bits).weights ** 2))(values)
    np.testing.assert_allclose(slope, 2 * rounded.weights, rtol=1e-12)  # as if nothing were rounded
    np.testing.assert_allclose(quantise(parts, 2, "device").devices, [0.0, 0.25])
    np.testing.assert_array_equal(quantise(Parts(jnp.zeros(2), jnp.zeros(2), jnp.zeros(())), bits).weights, 0.0)


def test_the_same_key_is_the_same_device_whatever_is_uploaded():
    parts = Parts(jnp.linspace(0.5, 2, 50), jnp.linspace(1, 2, 50), jnp.ones(()))
    more = eqx.tree_at(lambda p: p.weights, parts, parts.weights**2)
    imperfections = Imperfections(weight_mismatch=0.1, device_mismatch=0.2, state_noise=0.3)
    here = imperfections.device(parts, key=KEY)
    again = imperfections.device(more, key=KEY)
    other = imperfections.device(parts, key=jax.random.key(8))
    assert here.amplitude == 0.3  # pyright: ignore
    np.testing.assert_array_equal(here.substrate.devices, again.substrate.devices)  # pyright: ignore
    np.testing.assert_allclose(again.substrate.weights / more.weights, here.substrate.weights / parts.weights)  # pyright: ignore
    assert not np.any(other.substrate.devices == here.substrate.devices)  # pyright: ignore
    coarse = Imperfections(weight_bits=3).device(parts, key=KEY)
    np.testing.assert_array_equal(coarse.weights, quantise(parts, 3).weights)  # pyright: ignore
    np.testing.assert_array_equal(coarse.devices, parts.devices)  # pyright: ignore


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: mismatch(Parts(*jnp.ones((3, 1))), weights=-0.1, key=KEY), "spread is -0.1; it must be >= 0"),
        (lambda: quantise(Parts(*jnp.ones((3, 1))), 1), "bits is 1; it must be a whole number >= 2"),
        (lambda: Imperfections(state_noise=-1.0), "state_noise is -1.0; it must be >= 0"),
        (lambda: Imperfections(weight_bits=1), "weight_bits is 1"),
        (
            lambda: inference_energy(silent(), 100.0),
            "substrate is a EchoStateNetwork, which states no device constants",
        ),
        (lambda: inference_energy(isolated(1), 0.0), "duration is 0.0; it must be > 0"),
    ],
)
def test_bad_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# Noise.


@pytest.mark.parametrize("amplitude", [0.02, 2.0])
def test_noise_on_oscillators_moves_power_and_filter_together_and_stays_in_range(amplitude):
    net = isolated(900)
    _, quiet = evolve(net, np.zeros(1))
    _, noisy = evolve(Noisy(net, amplitude), np.zeros(1), key=KEY)
    change = np.asarray(noisy.power - quiet.power)
    np.testing.assert_allclose(noisy.filtered - quiet.filtered, change, atol=1e-15)
    if amplitude < 0.1:
        assert_normal(change, amplitude)
    else:
        assert (noisy.power.min(), noisy.power.max()) == (0, 1)
        beyond = 0.5 * math.erfc(0.25 / math.sqrt(2))  # a quarter of a standard deviation lies between 1/2 and the ends
        for end in (0, 1):
            assert abs(np.mean(noisy.power == end) - beyond) < 5 * math.sqrt(beyond * (1 - beyond) / 900)


def test_noise_on_any_state_is_added_after_every_input_and_none_is_exact():
    states, _ = evolve(Noisy(silent(), 0.1), np.zeros(4), key=KEY)
    noise = np.asarray(states - jnp.tanh(silent().bias))
    assert_normal(noise, 0.1)
    assert np.abs(np.corrcoef(noise) - np.eye(4)).max() < 5 / math.sqrt(500)
    np.testing.assert_array_equal(evolve(Noisy(silent(), 0.0), np.ones(4))[0], evolve(silent(), np.ones(4))[0])


@pytest.mark.slow
def test_noise_without_a_key_is_refused_and_none_needs_none():
    """As for shots and Poisson inputs: without a key nothing random can happen, and silence would look like quiet."""
    network = PhaseOscillators.layered((2, 3, 1), bias_scale=0.3, key=KEY)
    for substrate, drives in ((silent(), np.ones(2)), (network, np.ones((2, 2)))):
        message = f"key is None; a Noisy {type(substrate).__name__} is random"
        with pytest.raises(ValueError, match=message):
            evolve(Noisy(substrate, 0.1), drives)
        with pytest.raises(ValueError, match=message):
            evolve(WithReadout.random(Imperfections(state_noise=0.1).device(substrate, key=KEY), 1, key=KEY), drives)
        evolve(Noisy(substrate, 0.0), drives)
    noisy: Any = Noisy(network, 0.1)
    with pytest.raises(ValueError, match="key is None"):
        noisy.relax(jnp.ones(2))


@pytest.mark.slow
def test_noise_on_an_equilibrium_is_added_where_it_came_to_rest():
    network = PhaseOscillators.layered((2, 300, 1), bias_scale=0.3, key=KEY)
    start = network.initial_state()
    systems: list[Any] = [network, Noisy(network, 0.1)]
    rest, found = (system.relax(jnp.ones(2), state=start, key=KEY) for system in systems)
    assert_normal(np.asarray(found.state - rest.state), 0.1)
    assert found.residual == rest.residual
    stepped = Noisy(network, 0.1).step(start, jnp.ones(2), key=KEY)
    assert_normal(np.asarray(stepped - rest.state), 0.1)


def test_energy_of_the_network_of_the_paper():
    neurons = 96
    mask = np.arange(neurons**2).reshape(neurons, neurons) < 2896 - 320 - 16
    connections = Connections(
        (32, 32, 32),
        mask * 1.0,
        (np.arange(neurons) < 16)[:, None] * 1.0,
        np.zeros(neurons),
    )
    network = WithReadout(SpintronicNetwork(connections), np.zeros((10, 32)), np.zeros(10))
    # 96 neurons of 100 fJ and 2896 synapses of 10 fJ in 100 ns.
    assert inference_energy(network, 100.0) == pytest.approx((96 * 100 + 2896 * 10) * 1e-15, rel=1e-12)
    assert round(inference_energy(Noisy(network, 0.0), 100.0) * 1e12, 2) == 38.56
    assert inference_energy(network, 50.0) == pytest.approx(19.28e-12, rel=1e-12)


def test_noise_on_a_density_matrix_is_refused_and_on_amplitudes_is_a_displacement():
    fock = Imperfections(state_noise=0.1).device(JosephsonMixer.two_mode(levels=3, measured=4, method="fock"), key=KEY)
    with pytest.raises(ValueError, match="a density matrix takes no additive noise"):
        evolve(fock, np.ones(2), key=KEY)
    amplitudes = jnp.zeros(4000, complex)
    moved = JosephsonMixer.two_mode(measured=4).disturb(amplitudes, 0.1, key=KEY)
    # 4000 independent squares of unit relative spread.
    assert np.isclose(np.mean(np.abs(moved) ** 2), 0.01, rtol=4 / np.sqrt(4000))
