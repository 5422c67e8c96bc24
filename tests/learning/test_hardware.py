"""Imperfect devices: their statistics, and learning rules that cope with them."""

import math
from functools import cache
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from morphax import DEVICE, SETTING, WEIGHT, JosephsonMixer, SpintronicNetwork, WithReadout, evolve
from morphax.learning.backprop import Backpropagation
from morphax.learning.hardware import InTheLoop, NoiseAware
from morphax.learning.objectives import regression
from morphax.learning.train import train
from morphax.pytrees import select
from morphax.substrates.imperfections import Imperfections, Noisy, inference_energy, mismatch, quantise
from morphax.substrates.layers import Connections
from morphax.substrates.reservoirs import EchoStateNetwork

pytestmark = pytest.mark.usefixtures("double")

KEY = jax.random.key(7)
RULE = Backpropagation(regression, "every")


class Parts(eqx.Module):
    weights: jax.Array = eqx.field(metadata=WEIGHT)
    devices: jax.Array = eqx.field(metadata=DEVICE)
    clock: jax.Array = eqx.field(metadata=SETTING)


def close(a, b, rtol=1e-12, atol=1e-15):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=atol), a, b)


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
        (lambda: InTheLoop(RULE, Imperfections()), "key is None"),
        (lambda: InTheLoop(RULE, lambda w, x: x, measured_states=True), "measured_states is True, but a Python"),
        (lambda: inference_energy(esn(), 100.0), "substrate is a EchoStateNetwork, which states no device constants"),
        (lambda: inference_energy(spintronic(), 0.0), "duration is 0.0; it must be > 0"),
    ],
)
def test_bad_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# Noise.


def isolated(neurons):
    return SpintronicNetwork(
        Connections((neurons,), np.zeros((neurons, neurons)), np.zeros((neurons, 1)), np.zeros(neurons))
    )


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
    silent = EchoStateNetwork(np.zeros((500, 1)), np.zeros((500, 500)), np.linspace(-1, 1, 500))
    states, _ = evolve(Noisy(silent, 0.1), np.zeros(4), key=KEY)
    noise = np.asarray(states - jnp.tanh(silent.bias))
    assert_normal(noise, 0.1)
    assert np.abs(np.corrcoef(noise) - np.eye(4)).max() < 5 / math.sqrt(500)
    np.testing.assert_array_equal(evolve(Noisy(silent, 0.0), np.ones(4))[0], evolve(silent, np.ones(4))[0])


# Learning rules. A small echo-state network that is read, and a spintronic one, with synapses everywhere.

RNG = np.random.default_rng(2)
W_IN, W, BIAS, W_OUT = (RNG.normal(size=shape) for shape in ((6, 1), (6, 6), (6,), (2, 6)))
INPUTS, TARGETS = RNG.normal(size=(4, 5)), RNG.normal(size=(4, 5, 2))
CHIP = Imperfections(weight_mismatch=0.1, device_mismatch=0.3)


def esn():
    return EchoStateNetwork(W_IN, 0.3 * W, BIAS, 0.6)


def reader():
    return WithReadout(esn(), W_OUT, np.array([0.3, -0.2]))


@cache
def chip():
    return CHIP.device(reader(), key=KEY)


def spintronic():
    connections = Connections((4, 2), 5 * W, 5 * W_IN, BIAS)
    return SpintronicNetwork(connections, interval=3.0)


@eqx.filter_jit
def gradient(rule, substrate, key=KEY):
    return rule.gradient(substrate, jnp.asarray(INPUTS), jnp.asarray(TARGETS), key=key)


@eqx.filter_jit
def metrics_of(rule, substrate, key=KEY):
    return rule.metrics(substrate, jnp.asarray(INPUTS), jnp.asarray(TARGETS), key=key)


def test_noise_aware_learning_takes_the_gradient_at_a_device_drawn_anew():
    rule, key = NoiseAware(RULE, CHIP), jax.random.key(1)
    metrics, found = gradient(rule, reader(), key)
    device = CHIP.device(reader(), key=jax.random.split(key)[0])
    expected_metrics, expected = gradient(RULE, device)
    close(metrics, expected_metrics)
    # The derivative by a designed weight is that by the fabricated one.
    close(select(found, "weight")[0], select(expected, "weight")[0])
    assert gradient(rule, reader(), jax.random.key(2))[0]["loss"] != metrics["loss"]
    close(metrics_of(rule, reader()), gradient(RULE, reader())[0])  # judged as designed


@pytest.mark.parametrize(("make", "measured_states"), [("reader", False), ("spintronic", True)])
def test_in_the_loop_with_a_perfect_device_is_backpropagation(make, measured_states):
    rule, substrate = InTheLoop(RULE, Imperfections(), KEY, measured_states), globals()[make]()
    close(gradient(rule, substrate), gradient(RULE, substrate), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("measured_states", [False, True])
def test_in_the_loop_the_device_answers_and_the_model_propagates_back(measured_states):
    device: Any = chip()
    metrics, found = gradient(InTheLoop(RULE, CHIP, KEY, measured_states), reader())
    close(metrics, gradient(RULE, device)[0])

    # By hand in NumPy: sensitivities of the model, at its own states or at those of the device.
    a, V = 0.6, 0.3 * W
    dev = {name: np.asarray(getattr(device.substrate, name)) for name in ("input_weights", "recurrent_weights", "bias")}
    b, W_dev, b_dev = float(device.substrate.leak_rate), np.asarray(device.weights), np.asarray(device.bias)
    d_readout, d_bias = np.zeros((2, 6)), np.zeros(6)
    for u_row, wanted in zip(INPUTS, TARGETS, strict=True):
        s, r, sensitivity = np.zeros(6), np.zeros(6), np.zeros((6, 6))  # r: the device; d s / d bias
        for u, target in zip(u_row, wanted, strict=True):
            before = r if measured_states else s
            fired = np.tanh(W_IN[:, 0] * u + V @ before + BIAS)
            s = (1 - a) * before + a * fired
            sensitivity = (1 - a) * sensitivity + a * (1 - fired**2)[:, None] * (V @ sensitivity + np.eye(6))
            total = dev["input_weights"][:, 0] * u + dev["recurrent_weights"] @ r + dev["bias"]
            r = (1 - b) * r + b * np.tanh(total)
            slope = 2 * (W_dev @ r + b_dev - target) / TARGETS.size
            d_readout += np.outer(slope, r if measured_states else s)
            d_bias += sensitivity.T @ W_OUT.T @ slope
    np.testing.assert_allclose(found.weights, d_readout, rtol=1e-10)
    np.testing.assert_allclose(found.substrate.bias, d_bias, rtol=1e-10)


def laboratory(answer=lambda outputs: outputs):
    """The device of `CHIP` and `KEY` in NumPy: told only weights and inputs, it answers with outputs."""
    device: Any = chip()
    names = ("input_weights", "recurrent_weights", "bias", "leak_rate")
    W_in, recurrent, bias, leak = (np.asarray(getattr(device.substrate, name)) for name in names)
    gain, offset_gain = np.asarray(device.weights / reader().weights), np.asarray(device.bias / reader().bias)

    def ask(weights, inputs):
        assert jax.tree.leaves(weights.substrate) == []
        y, outputs = np.zeros((len(inputs), 6)), []
        for u in inputs.T:
            y = (1 - leak) * y + leak * np.tanh(u[:, None] @ W_in.T + y @ recurrent.T + bias)
            outputs.append(y @ (weights.weights * gain).T + weights.bias * offset_gain)
        return answer(np.stack(outputs, axis=1))

    return ask


def test_a_python_function_is_a_device_like_any_other():
    simulated, real = InTheLoop(RULE, CHIP, KEY), InTheLoop(RULE, laboratory())
    close(gradient(real, reader()), gradient(simulated, reader()), rtol=1e-10)
    close(metrics_of(real, reader()), metrics_of(simulated, reader()), rtol=1e-10)
    data = (jnp.asarray(INPUTS), jnp.asarray(TARGETS))
    history = train(reader(), real, data, optax.sgd(0.05), 8, key=KEY, chunk=4).history
    assert history[0]["loss"] == pytest.approx(float(metrics_of(simulated, reader())["loss"]), rel=1e-10)
    assert history[-1]["loss"] < 0.9 * history[0]["loss"]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda outputs: outputs[:, -1], r"the device's answer has shape \(4, 2\); it must be \(4, 5, 2\)"),
        (lambda outputs: np.where(outputs > 1, np.nan, outputs), r"the device's answer.* must be finite"),
    ],
)
def test_a_device_that_answers_wrongly_is_reported(answer, message):
    with pytest.raises(Exception, match=message):
        jax.block_until_ready(gradient(InTheLoop(RULE, laboratory(answer)), reader())[0])


def test_training_in_the_loop_recovers_what_transfer_loses():
    network = WithReadout(esn(), np.zeros((1, 6)), np.zeros(1))
    inputs = jnp.asarray(np.random.default_rng(5).normal(size=(12, 4)))
    data = (inputs, jnp.mean(inputs, axis=1, keepdims=True))
    rule, optimiser = Backpropagation(regression), optax.adam(0.03)
    imperfections = Imperfections(weight_mismatch=0.15, device_mismatch=0.15)
    designed = train(network, rule, data, optimiser, 200, key=KEY, chunk=200)
    in_the_loop = InTheLoop(rule, imperfections, KEY)
    adapted = train(designed.last, in_the_loop, data, optimiser, 200, key=KEY, chunk=200, watch={"device": data})
    ideal, transferred = designed.history[-1]["loss"], adapted.history[0]["loss"]
    assert ideal < 0.2 * designed.history[0]["loss"]
    assert transferred > 2 * ideal
    device = imperfections.device(adapted.last, key=KEY)
    reached = float(regression(rule.outputs(device, inputs), data[1])["loss"])
    assert adapted.history[-1]["device"]["loss"] == pytest.approx(reached, rel=1e-9)
    assert reached - ideal < 0.2 * (transferred - ideal)


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
