"""Learning rules that cope with imperfect devices."""

# The kind of a wrapper is decided when it is made: no type checker knows it.
# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportArgumentType=false

from functools import cache
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from morphax import EnergySubstrate, JosephsonMixer, PhaseOscillators, SpintronicNetwork, Substrate, WithReadout
from morphax.learning.backprop import Backpropagation
from morphax.learning.ensemble import make_members
from morphax.learning.hardware import InTheLoop, NoiseAware, Twin
from morphax.learning.objectives import regression
from morphax.learning.rule import Asked
from morphax.learning.train import train
from morphax.pytrees import select
from morphax.substrates.imperfections import Imperfections
from morphax.substrates.layers import Connections
from morphax.substrates.reservoirs import EchoStateNetwork

pytestmark = pytest.mark.usefixtures("double")

KEY = jax.random.key(7)
RULE = Backpropagation(regression, "every")


def close(a, b, rtol=1e-12, atol=1e-15):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=atol), a, b)


# A small echo-state network that is read, and a spintronic one, with synapses everywhere.

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
    metrics, gradient = rule.gradient(substrate, jnp.asarray(INPUTS), jnp.asarray(TARGETS), key=key)
    return {name: metrics[name] for name in metrics if name not in Asked._fields}, gradient


@eqx.filter_jit
def metrics_of(rule, substrate, key=KEY):
    return rule.metrics(substrate, jnp.asarray(INPUTS), jnp.asarray(TARGETS), key=key)


@pytest.mark.slow
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


@pytest.mark.parametrize(
    ("make", "measured_states"),
    [("reader", False), pytest.param("spintronic", True, marks=pytest.mark.slow)],
)
def test_in_the_loop_with_a_perfect_device_is_backpropagation(make, measured_states):
    rule, substrate = InTheLoop(RULE, Imperfections(), KEY, measured_states), globals()[make]()
    close(gradient(rule, substrate), gradient(RULE, substrate), rtol=1e-12, atol=1e-14)


@pytest.mark.slow
@pytest.mark.parametrize("measured_states", [False, True])
def test_in_the_loop_the_device_answers_and_the_model_propagates_back(measured_states):
    device: Any = chip()
    both = RULE.for_roles("weight", "device")
    metrics, found = gradient(InTheLoop(both, CHIP, KEY, measured_states), reader())
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


# Energy substrates: a device and its model come to rest side by side.


def oscillators() -> Any:
    network = PhaseOscillators.layered((1, 4, 2), bias_scale=0.3, key=KEY)
    network = eqx.tree_at(lambda n: n.bias_strengths, network, jnp.linspace(1.0, 1.6, 6))
    return WithReadout(network, W_OUT[:, :2], np.array([0.3, -0.2]))


@pytest.mark.slow
def test_a_twin_of_energy_substrates_is_one():
    model: Any = oscillators()
    device: Any = CHIP.device(model, key=KEY)
    drive, states = jnp.array([0.4]), (jnp.linspace(-1, 1, 6), jnp.linspace(-0.5, 0.5, 6))
    for measured_states in (False, True):
        twin: Any = Twin(model, device, measured_states)
        assert isinstance(twin, EnergySubstrate)
        close(twin.energy(states, drive), device.energy(states[1], drive))
        slope = jax.grad(lambda s, t=twin: t.energy(s, drive))(states)
        close(slope, (jax.grad(model.energy)(states[0], drive), jnp.zeros(6)))
        close(twin.force(states, drive), (model.force(states[0], drive), device.force(states[1], drive)))
        np.testing.assert_array_equal(twin.observe(states), device.observe(states[1]))
        rest = twin.relax(drive, state=states)
        assert rest.converged
        assert jnp.max(jnp.abs(device.force(rest.state[1], drive))) < 1e-5
        followed = device if measured_states else model
        assert jnp.max(jnp.abs(followed.force(rest.state[0], drive))) < 1e-5
        assert twin.distance(states, rest.state) == max(
            model.distance(states[0], rest.state[0]), device.distance(states[1], rest.state[1])
        )


@pytest.mark.slow
def test_in_the_loop_an_energy_substrate_answers_as_the_device_and_learns_as_the_model():
    metrics, found = gradient(InTheLoop(RULE, CHIP, KEY, measured_states=True), oscillators())
    close(metrics, metrics_of(RULE, CHIP.device(oscillators(), key=KEY)), rtol=1e-6)
    weights = jnp.ravel(found.weights), jnp.ravel(gradient(RULE, oscillators())[1].weights)
    assert not np.allclose(*weights, rtol=1e-3)
    assert float(jnp.vdot(*weights) / jnp.linalg.norm(weights[0]) / jnp.linalg.norm(weights[1])) > 0.5


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


@pytest.mark.slow
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


class Failing:
    """A laboratory that answers for some time, and then no more."""

    def __init__(self, answers, failure):
        self.ask, self.answers, self.failure, self.calls = laboratory(), answers, failure, 0

    def __call__(self, weights, inputs):
        self.calls += 1
        answer = self.ask(weights, inputs)
        return answer if self.calls <= self.answers else self.failure(answer)


def disconnected(answer):
    raise ConnectionError("cable")


FAILURES = pytest.mark.parametrize(
    ("failure", "message", "cause"),
    [
        (disconnected, "the device did not answer: ConnectionError: cable", ConnectionError),
        (lambda answer: answer[:, -1], r"the device's answer has shape \(4, 2\); it must be \(4, 5, 2\)", None),
        (lambda answer: answer * np.nan, r"the device's answer\[0, 0, 0\] is nan; .* must be finite", None),
        (lambda answer: "nonsense", "the device did not answer: ValueError: could not convert string", ValueError),
    ],
    ids=["disconnected", "shape", "NaN", "text"],
)
DATA = (jnp.asarray(INPUTS, jnp.float32), jnp.asarray(TARGETS, jnp.float32))


@FAILURES
def test_where_a_device_fails_its_exception_arrives_and_what_was_trained_is_kept(failure, message, cause):
    device = Failing(5, failure)
    with pytest.raises(ValueError, match=message) as caught:
        train(reader(), InTheLoop(RULE, device), DATA, optax.sgd(0.05), 20, key=KEY, chunk=2)
    assert device.calls == 6
    if cause is not None:
        assert isinstance(caught.value.__cause__, cause)
    kept = caught.value.trained  # pyright: ignore[reportAttributeAccessIssue]
    whole = train(reader(), InTheLoop(RULE, laboratory()), DATA, optax.sgd(0.05), 4, key=KEY, chunk=2)
    assert kept.history == whole.history
    close(kept.last, whole.last)


def test_where_a_device_fails_an_ensemble_is_kept_too():
    """Members run in threads."""
    stack = make_members(lambda key: WithReadout.random(esn(), 2, key=key), KEY, 3)
    with pytest.raises(ValueError, match="the device did not answer: ConnectionError: cable") as caught:
        train(
            stack, InTheLoop(RULE, Failing(7, disconnected)), DATA, optax.sgd(0.05), 6, key=KEY, chunk=2, ensemble=True
        )
    assert isinstance(caught.value.__cause__, ConnectionError)
    kept = caught.value.trained  # pyright: ignore[reportAttributeAccessIssue]
    assert len(kept.history) == 2
    assert kept.last.weights.shape == (3, 2, 6)


@FAILURES
def test_where_a_device_fails_outside_a_training_its_exception_arrives(failure, message, cause):
    rule = InTheLoop(RULE, Failing(0, failure))
    for call in (rule.gradient, rule.metrics):
        with pytest.raises(ValueError, match=message) as caught:
            call(reader(), *DATA, key=KEY)
        if cause is not None:
            assert isinstance(caught.value.__cause__, cause)


NAN = (DATA[0], DATA[1].at[1, 2, 0].set(jnp.nan))
FEWER = (DATA[0], DATA[1][:3])
OTHERS = (DATA[0], DATA[1][..., :1])


@pytest.mark.parametrize(
    "wrap",
    [
        lambda rule: NoiseAware(rule, CHIP),
        lambda rule: InTheLoop(rule, CHIP, KEY),
        lambda rule: InTheLoop(rule, laboratory()),
        lambda rule: NoiseAware(InTheLoop(rule, CHIP, KEY), CHIP),
    ],
    ids=["noise-aware", "chip", "laboratory", "both"],
)
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (NAN, r"targets\[1, 2, 0\] is nan"),
        (FEWER, "inputs holds 4 examples, targets 3"),
        (OTHERS, "targets has 1 columns, but the substrate gives 2 outputs"),
    ],
    ids=["NaN", "fewer", "outputs"],
)
def test_a_wrapped_rule_refuses_what_the_rule_does(wrap, data, message):
    with pytest.raises(ValueError, match=message):
        train(reader(), wrap(RULE), data, optax.sgd(0.05), 1, key=KEY)


def test_imperfections_that_the_substrate_cannot_have_are_refused_before_anything_compiles():
    bare = WithReadout(Readings(), np.ones((2, 2)), np.zeros(2))
    for rule in (NoiseAware(RULE, Imperfections(device_mismatch=0.1)), InTheLoop(RULE, CHIP, KEY)):
        with pytest.raises(ValueError, match=r"spread is 0\..*, but WithReadout has no array with the role device"):
            rule.check(bare, DATA)
    fock = JosephsonMixer.two_mode(levels=2, measured=2, method="fock")
    noisy = NoiseAware(RULE, Imperfections(state_noise=0.1))
    with pytest.raises(ValueError, match="a density matrix takes no additive noise"):
        noisy.check(WithReadout.random(fock, 2, key=KEY), DATA)


class Readings(Substrate):
    """Nothing in it can differ from device to device."""

    def initial_state(self, *, key=None):
        return jnp.zeros(2)

    def step(self, state, drive, *, key=None):
        return state / 2 + drive

    def observe(self, state, *, key=None):
        return state


@pytest.mark.slow
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


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: InTheLoop(RULE, Imperfections()), "key is None"),
        (lambda: InTheLoop(RULE, lambda w, x: x, measured_states=True), "measured_states is True, but a Python"),
    ],
)
def test_bad_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
