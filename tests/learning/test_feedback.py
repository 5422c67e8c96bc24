"""Errors through other wires: against back-propagation, and without a derivative of the device."""

from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from morphax import Backpropagation, Noisy, SpintronicNetwork, WithInput, WithReadout, Wrapper, evolve, train
from morphax.learning.feedback import DirectFeedbackAlignment, FeedbackAlignment, KolenPollack, SignSymmetry
from morphax.learning.node_perturbation import NodePerturbation
from morphax.substrates.layered import OscillatorLayers
from morphax.tasks import sequential_digits

KEY = jax.random.key(0)
NETWORK = OscillatorLayers.random((5, 8, 6, 3), key=KEY)
INPUTS, TARGETS = jax.random.uniform(KEY, (9, 5)), jnp.eye(3)[jnp.arange(9) % 3]


class BlackBox(OscillatorLayers):
    """Answers, and cannot be differentiated."""

    def respond(self, layer, fed, *, key=None):
        @jax.custom_jvp
        def answer(fed):
            return super(BlackBox, self).respond(layer, fed, key=key)

        @answer.defjvp
        def _(primals, tangents):
            raise RuntimeError("the device was differentiated")

        return answer(fed)


def gradient(rule, network=NETWORK):
    return eqx.filter_jit(rule.gradient)(network, INPUTS, TARGETS, key=KEY)[1].weights


def exact():
    return gradient(Backpropagation())


def doubled(network):
    return jax.tree.map(lambda x: x.astype(float) if eqx.is_inexact_array(x) else x, network)


def test_with_the_weights_turned_round_it_is_back_propagation():
    rule = FeedbackAlignment(matrices=tuple(w.T for w in NETWORK.weights[1:]))
    for ours, theirs in zip(gradient(rule), exact(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5 * float(abs(theirs).max()))


@pytest.mark.slow
@pytest.mark.parametrize(
    "rule",
    [
        FeedbackAlignment(key=KEY, slope=jnp.cos),
        DirectFeedbackAlignment(key=KEY, slope=lambda a: 1 / jnp.cosh(a)),
        SignSymmetry(slope=jnp.cos),
        NodePerturbation(directions=2),
    ],
)
def test_a_rule_that_promises_so_never_differentiates_the_device(rule):
    box = BlackBox.random((5, 8, 6, 3), key=KEY)
    for ours, theirs in zip(gradient(rule, box), gradient(rule), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    with pytest.raises(RuntimeError, match="differentiated"):
        gradient(FeedbackAlignment(key=KEY), box)


@pytest.mark.slow
def test_of_as_many_directions_as_neurons_every_error_is_known(double):
    rule, network = NodePerturbation(directions=16, spread=1e-3), doubled(NETWORK)
    for ours, theirs in zip(gradient(rule, network), gradient(Backpropagation(), network), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-3 * float(abs(theirs).max()))


@pytest.mark.slow
def test_many_directions_show_the_hidden_gradient_of_an_untrained_network():
    network = OscillatorLayers.random((64, 48, 48, 10), key=KEY)
    inputs, targets = jax.random.uniform(jax.random.key(1), (100, 64)), jnp.eye(10)[jnp.arange(100) % 10]

    def hidden(rule):
        found = eqx.filter_jit(rule.gradient)(network, inputs, targets, key=KEY)[1]
        return ravel_pytree((found.weights[:2], found.biases[:2]))[0]

    ours, theirs = hidden(NodePerturbation(directions=512)), hidden(Backpropagation())
    assert ours @ theirs > 0.99 * jnp.linalg.norm(ours) * jnp.linalg.norm(theirs)


def test_a_device_that_answers_for_other_neurons_is_refused():
    class Deaf(OscillatorLayers):
        def respond(self, layer, fed, *, key=None):
            return fed[:-1]

    with pytest.raises(ValueError, match=r"the answer of layer 0 has shape \(7,\); it must be \(8,\)"):
        gradient(FeedbackAlignment(key=KEY, slope=jnp.cos), Deaf.random((5, 8, 6, 3), key=KEY))


@pytest.mark.slow
def test_a_few_directions_have_the_gradient_as_their_mean(double):
    rule, network = NodePerturbation(directions=2, spread=1e-3), doubled(NETWORK)
    wanted = ravel_pytree(gradient(Backpropagation(), network))[0]
    draw = jax.jit(jax.vmap(lambda k: ravel_pytree(rule.gradient(network, INPUTS, TARGETS, key=k)[1].weights)[0]))
    found = np.asarray(draw(jax.random.split(KEY, 1000)))
    error = found.std(0) / 1000**0.5
    assert (abs(found.mean(0) - wanted) < 4 * error + 1e-4 * float(abs(wanted).max())).all()


def test_matrices_of_kolen_and_pollack_become_those_of_the_weights():
    rule = KolenPollack(jax.random.key(5), learning_rate=0.5, decay=0.1)
    memory = rule.memory(NETWORK, key=KEY)
    network, update = NETWORK, jax.jit(lambda n, m, k: rule.gradient(n, INPUTS, TARGETS, key=k, memory=m)[1:])

    def apart(network, memory):
        return [float(jnp.linalg.norm(w.T - b)) for w, b in zip(network.weights[1:], memory.backward, strict=True)]

    before = apart(network, memory)
    for key in jax.random.split(KEY, 10):
        change, memory = update(network, memory, key)
        network = eqx.apply_updates(network, jax.tree.map(lambda g: -0.5 * g, change))
    np.testing.assert_allclose(apart(network, memory), [0.95**10 * x for x in before], rtol=1e-3)


@pytest.mark.slow
def test_layers_learn_digits_without_the_slope_of_the_device():
    task, rule = sequential_digits(key=KEY), DirectFeedbackAlignment(key=KEY, slope=lambda a: 1 / jnp.cosh(a))
    images, tests = (x.reshape(len(x), 64) / 16 for x in (task.train_inputs, task.test_inputs))
    network, watch = OscillatorLayers.random((64, 48, 48, 10), key=KEY), {"test": (tests, task.test_targets)}
    data = images, task.train_targets
    done = train(network, rule, data, optax.adam(3e-3), 200, key=KEY, batch_size=100, chunk=200, watch=watch)
    assert done.history[-1]["test"]["accuracy"] > 0.85


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FeedbackAlignment(), "key and matrices: one of them"),
        (lambda: FeedbackAlignment(key=KEY, slope=cast(Any, 1.0)), "slope is 1.0"),
        (lambda: KolenPollack(KEY, learning_rate=0.0), "learning_rate is 0.0"),
        (lambda: NodePerturbation(directions=0), "directions is 0"),
        (lambda: OscillatorLayers.random((3, 2), key=KEY), r"sizes is \(3, 2\)"),
        (lambda: OscillatorLayers([jnp.ones((2, 3))], [jnp.ones(2)]), "one of each for every layer"),
    ],
)
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.slow
def test_what_stands_around_layers_belongs_to_their_wiring():
    """A mask before them and a matrix behind them have the gradient of back-propagation, as the layers have."""
    around: Any = WithReadout.random(WithInput.random(NETWORK, 7, key=KEY), 3, key=jax.random.key(1))
    data = jax.random.normal(KEY, (9, 7)), TARGETS
    rule = FeedbackAlignment(matrices=(*(w.T for w in NETWORK.weights[1:-1]), (around.weights @ NETWORK.weights[-1]).T))
    ours, theirs = (
        ravel_pytree(eqx.filter(each.gradient(around, *data, key=KEY)[1], eqx.is_inexact_array))[0]
        for each in (rule, Backpropagation())
    )
    np.testing.assert_allclose(ours, theirs, atol=1e-5 * float(abs(theirs).max()))


@pytest.mark.slow
def test_noise_disturbs_what_layers_answer_and_rules_learn_along_it():
    network = doubled(NETWORK)
    noisy: Any = Noisy(network, 0.02)
    _, _, clean = network.passed(INPUTS[0])
    passed = jax.vmap(lambda key: noisy.passed(INPUTS[0], key=key))(jax.random.split(KEY, 4000))
    deviation = jnp.std(passed[1][1], axis=0)  # of what the first layer answers
    np.testing.assert_allclose(deviation, 0.02, rtol=0.06)  # 5 standard errors
    expected = 0.02 * jnp.linalg.norm(network.weights[-1], axis=1)
    assert (jnp.std(passed[2], axis=0) > expected).all()  # the last layer's, and what the first adds
    np.testing.assert_allclose(jnp.mean(passed[2], axis=0), clean, atol=0.02)
    for rule in (KolenPollack(KEY), SignSymmetry()):
        history = train(noisy, rule, (INPUTS, TARGETS), optax.adam(0.03), 60, key=KEY).history
        assert history[-1]["loss"] < 0.6 * history[0]["loss"]
    with pytest.raises(ValueError, match="key is None; a Noisy"):
        evolve(noisy, INPUTS[:1])


def test_a_wrapper_that_does_what_layers_do_not_show_is_refused():
    class Held(Wrapper):
        def observe(self, state, *, key=None):
            return 2 * self.substrate.observe(state, key=key)

    with pytest.raises(ValueError, match=r"Held overrides observe, .* it must override `drive`, `read` or `respond`"):
        DirectFeedbackAlignment(key=KEY).gradient(cast(Any, Held(NETWORK)), INPUTS, TARGETS, key=KEY)


def test_a_substrate_without_known_wiring_is_refused():
    network = WithReadout.random(SpintronicNetwork.random((4, 3), key=KEY), 3, key=KEY)
    with pytest.raises(ValueError, match="needs layers with known wiring"):
        train(network, FeedbackAlignment(key=KEY), (INPUTS[:, :, None], TARGETS), optax.sgd(0.1), 1, key=KEY)
