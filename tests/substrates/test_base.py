"""What every substrate is: numbers with roles, channels, one channel with or without its axis, evolution."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from morphax import (
    DEVICE,
    WEIGHT,
    ContinuousTimeRecurrentNetwork,
    EchoStateNetwork,
    HopfieldNetwork,
    JosephsonMixer,
    PhaseOscillators,
    QuantizedPerceptron,
    ReLUReservoir,
    SpikingNetwork,
    SpinTorqueReservoir,
    SpintronicNetwork,
    Substrate,
    WithInput,
    WithReadout,
    evolve,
)
from morphax.substrates.base import check_channels, count_neurons, presented, stepped
from morphax.substrates.quantized import NoisyPerceptron

KEY = jax.random.key(1)
ONE_CHANNEL = {
    "josephson": lambda: JosephsonMixer.two_mode(measured=4),
    "josephson, Fock states": lambda: JosephsonMixer.two_mode(measured=2, levels=2, method="fock"),
    "josephson, one mode": lambda: JosephsonMixer(0.0, [0.02], 0.05, measured=4),
    "josephson, shots": lambda: JosephsonMixer.two_mode(measured=4, shots=20),
    "spintronic": lambda: SpintronicNetwork.random((2, 2), key=KEY),
    "ctrnn": lambda: ContinuousTimeRecurrentNetwork.random((2, 2), key=KEY),
    "echo-state": lambda: EchoStateNetwork.random(3, key=KEY),
    "relu": lambda: ReLUReservoir.random(3, key=KEY),
    "spin-torque": lambda: SpinTorqueReservoir.random(3, key=KEY),
    "phase-oscillators": lambda: PhaseOscillators.layered((1, 3, 1), bias_scale=0.3, key=KEY),
    "hopfield": lambda: HopfieldNetwork.random((1, 3, 1), key=KEY),
    "quantized": lambda: QuantizedPerceptron.random((1, 3, 3, 2), width=0.4, key=KEY),
    "noisy perceptron": lambda: NoisyPerceptron.random((1, 3, 2), noise=0.3, key=KEY),
    "spiking": lambda: SpikingNetwork.random(3, 1, key=KEY),
    "spiking, Poisson inputs": lambda: SpikingNetwork.random(3, 4, input_rate=0.3, key=KEY),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ONE_CHANNEL)
def test_one_channel_has_its_axis_or_not(name):
    """Alone without; with an input layer and a readout around it, which hands one on, with it."""
    substrate = ONE_CHANNEL[name]()
    drives = jnp.array([0.3, -0.2, 0.9])
    layered = WithReadout.random(WithInput(substrate, jnp.ones((1, 1))), 2, key=KEY)
    run = eqx.filter_jit(lambda s, d: evolve(s, d, key=KEY)[0])
    flat, read = run(substrate, drives), run(layered, drives[:, None])
    np.testing.assert_allclose(read, flat @ layered.weights.T + layered.bias, rtol=1e-5, atol=1e-6)


class Leaky(Substrate):
    """A user's class that multiplies the drive as it comes, with a state of shape ()."""

    memory: float = eqx.field(metadata=DEVICE)

    def initial_state(self, *, key=None) -> Any:
        return jnp.zeros_like(self.memory)

    def step(self, state, drive, *, key=None) -> Any:
        return self.memory * state + drive

    def observe(self, state, *, key=None):
        return jnp.atleast_1d(state)


class Pair(Leaky):
    """Takes one number by its index only; its state is a module."""

    def initial_state(self, *, key=None) -> Any:
        return Held(jnp.zeros(2), jnp.zeros(()))

    def step(self, state, drive, *, key=None):
        return Held(self.memory * state.values + drive[0], drive[0])

    def observe(self, state, *, key=None):
        return state.values


class Held(eqx.Module):
    values: jax.Array
    last: jax.Array


@pytest.mark.parametrize("cls", [Leaky, Pair])
def test_a_class_of_a_user_is_driven_as_its_step_takes_it(cls):
    drives = jnp.array([1.0, 0.0, 2.0])
    expected = [1.0, 0.5, 2.25]
    for each in (drives, drives[:, None]):
        outputs, state = evolve(cls(0.5), each)
        np.testing.assert_allclose(outputs[:, 0], expected)
        assert jax.tree.map(jnp.shape, state) == jax.tree.map(jnp.shape, cls(0.5).initial_state())


def test_a_step_is_computed_once_where_it_takes_the_drive_as_it_comes():
    calls = []

    def step(state, drive, *, key=None):
        calls.append(jnp.shape(drive))
        return state + drive[0]

    assert stepped(step, jnp.zeros(2), jnp.ones(1)).tolist() == [1.0, 1.0]
    assert calls == [(1,)]
    assert stepped(step, jnp.zeros(2), jnp.ones(())).tolist() == [1.0, 1.0]
    assert calls[1:] == [(), (1,)]


def test_the_first_of_two_errors_is_told():
    class Broken(Leaky):
        def step(self, state, drive, *, key=None):
            raise ValueError(f"broken for shape {drive.shape}")

    with pytest.raises(ValueError, match=r"broken for shape \(1,\)"):
        evolve(Broken(0.5), jnp.ones((2, 1)))
    with pytest.raises(ValueError, match=r"broken for shape \(\)"):
        evolve(Broken(0.5), jnp.ones(2))


def test_numbers_with_a_role_are_arrays_in_the_present_precision(double):
    class Scaled(Leaky):
        scale: float = eqx.field(metadata=WEIGHT, default=2)
        name: float = 3.0

    made = Scaled(0.5)
    assert (made.memory.dtype, made.scale.dtype) == (jnp.float64, jnp.float64)  # pyright: ignore
    assert isinstance(made.name, float)


def test_channels_are_told_with_the_remedy():
    network = EchoStateNetwork.random(3, inputs=2, key=KEY)
    check_channels(network, (2,))
    check_channels(network, (4, 7))  # spikes in every time step are left to the substrate
    with pytest.raises(
        ValueError, match=r"one input has 3 channels, shape \(3,\); EchoStateNetwork takes 2 channels: put"
    ):
        check_channels(network, (3,))
    with pytest.raises(ValueError, match=r"takes 1 channel: put WithInput.random.*, or say in its property `channels`"):
        evolve(Leaky(0.5), jnp.ones((4, 2)))
    with pytest.raises(ValueError, match="takes 1 or 2 channels"):
        evolve(JosephsonMixer.two_mode(measured=4), jnp.ones((4, 3)))


@pytest.mark.parametrize(
    ("channels", "shape", "presented_as"),
    [
        (1, (6, 5), (6, 5)),
        (1, (6, 5, 1), (6, 5, 1)),
        (2, (6, 2), (6, 1, 2)),
        (2, (6, 5, 2), (6, 5, 2)),
    ],
)
def test_two_axes_are_sequences_or_vectors_as_the_channels_say(channels, shape, presented_as):
    network = EchoStateNetwork.random(3, inputs=channels, key=KEY)
    assert presented(network, jnp.ones(shape)).shape == presented_as


def test_an_observation_has_one_axis():
    class Single(Leaky):
        def observe(self, state, *, key=None):
            return state

    assert count_neurons(Leaky(0.5)) == 1
    with pytest.raises(ValueError, match=r"observe of Single gives shape \(\); it must give one axis, \(neurons,\)"):
        WithReadout.random(Single(0.5), 2, key=KEY)


@pytest.mark.slow
def test_evolution_goes_on_where_it_ended_and_may_be_observed_at_its_end():
    network = SpintronicNetwork.random((2, 2), key=KEY)
    drives = jnp.sin(jnp.arange(6.0))
    whole, end = evolve(network, drives)
    first, state = evolve(network, drives[:4])
    second, again = evolve(network, drives[4:], state=state)
    np.testing.assert_allclose(jnp.concatenate([first, second]), whole, rtol=1e-6)
    np.testing.assert_allclose(again.power, end.power, rtol=1e-6)
    np.testing.assert_array_equal(evolve(network, drives, observe="last")[0], whole[-1])


@pytest.mark.slow
def test_the_last_observation_reads_the_same_shots():
    mixer = JosephsonMixer.two_mode(measured=4, shots=20)
    every, _ = evolve(mixer, jnp.ones(3), key=KEY)
    np.testing.assert_array_equal(evolve(mixer, jnp.ones(3), key=KEY, observe="last")[0], every[-1])


@pytest.mark.parametrize(
    ("drives", "message"),
    [
        (jnp.ones(()), r"drives has shape \(\); its first axis is time"),
        (jnp.ones((0, 1)), r"drives has shape \(0, 1\)"),
        (jnp.array([1.0, jnp.nan]), r"drives\[1\] is nan"),
    ],
)
def test_drives_that_are_none_are_refused(drives, message):
    with pytest.raises(ValueError, match=message):
        evolve(Leaky(0.5), drives)


def test_whole_numbers_are_a_drive():
    np.testing.assert_allclose(evolve(Leaky(0.5), np.array([1, 0]))[0][:, 0], [1.0, 0.5])
