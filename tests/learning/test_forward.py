"""Layers that learn by themselves: their gradients, what they are asked, and that they learn."""

from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tests.learning.test_feedback import BlackBox

from morphax import Backpropagation, HopfieldNetwork, train
from morphax.learning.forward import ForwardForward, LocalHeads, PhysicalLocalLearning
from morphax.substrates.layered import OscillatorLayers
from morphax.tasks import sequential_digits

KEY = jax.random.key(0)
CLASSES = 3
SIZES = (5 + CLASSES, 8, 6, 4)
NETWORK = OscillatorLayers.random(SIZES, key=KEY)
INPUTS, TARGETS = jax.random.uniform(KEY, (9, 5)), jnp.eye(CLASSES)[jnp.arange(9) % CLASSES]
LABELLED = {"forward-forward": ForwardForward(CLASSES), "local": PhysicalLocalLearning(CLASSES)}


def gradient(rule, network=NETWORK, inputs=INPUTS):
    return eqx.filter_jit(rule.gradient)(network, inputs, TARGETS, key=KEY)[1].weights


@pytest.mark.slow
@pytest.mark.parametrize("name", LABELLED)
def test_every_layer_has_the_gradient_of_its_own_loss(name, double):
    """The derivative of the sum of all losses with what enters every wiring held."""
    rule = LABELLED[name]
    network = jax.tree.map(lambda x: x.astype(jnp.float64) if eqx.is_inexact_array(x) else x, NETWORK)
    which, *noise = jax.random.split(KEY, 3)
    turns = jax.random.randint(which, (len(INPUTS),), 1, CLASSES)
    labels = (TARGETS, jax.vmap(jnp.roll)(TARGETS, turns))
    entered = [rule._shown(network, INPUTS, label, k)[1] for label, k in zip(labels, noise, strict=True)]

    @eqx.filter_grad
    def right(network):
        sides = []
        for entering in entered:
            fed = [jax.vmap(lambda y, i=i: network.feed(i, y))(y) for i, y in enumerate(entering)]
            answered = [jax.vmap(lambda a, i=i: network.respond(i, a))(a) for i, a in enumerate(fed[:-1])]
            sides.append(rule.goodness(fed, answered))
        return sum(jnp.mean(rule.contrast(r, w)) for r, w in zip(*sides, strict=True))

    for ours, theirs in zip(gradient(rule, network), right(network).weights, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-10)


def test_local_heads_with_one_layer_and_the_readout_s_weights_are_back_propagation():
    network = OscillatorLayers.random((5, 8, CLASSES), key=KEY)
    rule = LocalHeads(KEY)
    head = jax.random.normal(jax.random.fold_in(KEY, 0), (CLASSES, 8)) / 8**0.5
    network = eqx.tree_at(lambda n: n.weights[1], network, head)
    right = eqx.filter_jit(Backpropagation().gradient)(network, INPUTS, TARGETS, key=KEY)[1].weights
    for ours, theirs in zip(gradient(rule, network), right, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5 * float(abs(theirs).max()))


@pytest.mark.slow
def test_the_device_is_differentiated_only_by_who_says_so():
    box = BlackBox.random(SIZES, key=KEY)
    for rule in (PhysicalLocalLearning(CLASSES), ForwardForward(CLASSES, slope=lambda a: 1 / jnp.cosh(a))):
        for ours, theirs in zip(gradient(rule, box), gradient(rule), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)
    with pytest.raises(RuntimeError, match="differentiated"):
        gradient(ForwardForward(CLASSES), box)


@pytest.mark.slow
@pytest.mark.parametrize(("rule", "least"), [(ForwardForward(10), 0.7), (PhysicalLocalLearning(10), 0.7)])
def test_labels_that_are_shown_are_learned(rule, least):
    task = sequential_digits(key=KEY)
    images, tests = (x.reshape(len(x), 64) / 16 for x in (task.train_inputs, task.test_inputs))
    network = OscillatorLayers.random((74, 48, 48, 10), key=KEY)
    watch = {"test": (tests, task.test_targets)}
    data = images, task.train_targets
    done = train(network, rule, data, optax.adam(3e-3), 400, key=KEY, batch_size=100, chunk=400, watch=watch)
    assert done.history[-1]["test"]["accuracy"] > least
    assert done.history.presentations[-1] == 400 * 200


@pytest.mark.slow
def test_a_head_for_every_layer_learns():
    task = sequential_digits(key=KEY)
    images, tests = (x.reshape(len(x), 64) / 16 for x in (task.train_inputs, task.test_inputs))
    network = OscillatorLayers.random((64, 48, 48, 10), key=KEY)
    watch, data = {"test": (tests, task.test_targets)}, (images, task.train_targets)
    done = train(network, LocalHeads(KEY), data, optax.adam(3e-3), 200, key=KEY, batch_size=100, chunk=200, watch=watch)
    assert done.history[-1]["test"]["accuracy"] > 0.85


@pytest.mark.slow
def test_wrong_labels_that_are_likely_are_drawn_as_often_as_the_network_says():
    rule = ForwardForward(CLASSES, sharpness=20.0, wrong="likely")
    examples = 3000
    inputs, targets = jnp.tile(INPUTS[:1], (examples, 1)), jnp.tile(TARGETS[:1], (examples, 1))
    drawn = jnp.mean(rule._wrong(NETWORK, inputs, targets, KEY), axis=0)
    scores = rule.sharpness * rule.scores(NETWORK, INPUTS[:1], key=KEY)[0]
    expected = jax.nn.softmax(jnp.where(TARGETS[0] > 0, -jnp.inf, scores))
    assert drawn @ TARGETS[0] == 0
    errors = jnp.sqrt(expected * (1 - expected) / examples)
    assert jnp.all(abs(drawn - expected) <= 3 * errors)
    assert jnp.max(abs(expected[1:] - 0.5)) > 10 * jnp.max(errors)


def test_what_has_no_place_for_a_label_is_refused():
    rule = ForwardForward(CLASSES)
    with pytest.raises(ValueError, match=r"it must be \(examples, 5\)"):
        rule.check(NETWORK, (jnp.ones((9, 8)), TARGETS))
    with pytest.raises(ValueError, match="labels of 3 classes"):
        rule.check(NETWORK, (INPUTS, jnp.ones((9, 2))))
    with pytest.raises(ValueError, match="layers with known wiring"):
        rule.check(HopfieldNetwork.random((5, 4, 3), key=KEY), (INPUTS, TARGETS))
    with pytest.raises(ValueError, match="classes is 1"):
        ForwardForward(1)
    with pytest.raises(ValueError, match="wrong is 'hard'"):
        ForwardForward(2, wrong=cast(Any, "hard"))
