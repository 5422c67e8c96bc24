"""Back-propagation through any substrate: its loss, its gradient against finite differences, and that it learns."""

import subprocess
import sys
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from morphax import JosephsonMixer, WithReadout
from morphax.learning.backprop import Backpropagation
from morphax.learning.objectives import classification, regression
from morphax.learning.train import train
from morphax.pytrees import select
from morphax.substrates.imperfections import Noisy
from morphax.substrates.reservoirs import EchoStateNetwork

pytestmark = pytest.mark.usefixtures("double")

RNG = np.random.default_rng(3)
DRAWN = [RNG.normal(size=shape) for shape in ((4, 1), (4, 4), (4,), (2, 4), (2,))]
INPUTS = RNG.normal(size=(6, 5))
CLASSES = np.eye(2)[[0, 1, 1, 0, 1, 0]]
CURVES = RNG.normal(size=(6, 5, 2))


def network():
    W_in, W, b, W_out, b_out = map(jnp.asarray, DRAWN)
    return WithReadout(EchoStateNetwork(W_in, 0.4 * W, b, 0.7), W_out, b_out)


def answers():
    """The network once more, in NumPy: outputs after every input."""
    W_in, W, b, W_out, b_out = DRAWN
    y, outputs = np.zeros((6, 4)), []
    for u in INPUTS.T:
        y = 0.3 * y + 0.7 * np.tanh(u[:, None] @ W_in.T + 0.4 * y @ W.T + b)
        outputs.append(y @ W_out.T + b_out)
    return np.stack(outputs, axis=1)


def cross_entropy_of(outputs):
    logarithms = outputs - np.log(np.exp(outputs).sum(axis=1, keepdims=True))
    return -np.mean(np.sum(CLASSES * logarithms, axis=1))


@pytest.mark.parametrize(
    ("rule", "targets", "expected"),
    [
        (Backpropagation(), CLASSES, lambda: cross_entropy_of(answers()[:, -1])),
        (Backpropagation(regression, "every"), CURVES, lambda: np.mean((answers() - CURVES) ** 2)),
        (Backpropagation(regression, "every", segment=2), CURVES, lambda: np.mean((answers() - CURVES) ** 2)),
    ],
)
def test_loss_and_gradient(rule, targets, expected):
    inputs, targets = jnp.asarray(INPUTS), jnp.asarray(targets)
    whole = rule.for_roles("weight", "device")
    metrics, gradient = eqx.filter_jit(whole.gradient)(network(), inputs, targets)
    np.testing.assert_allclose(metrics["loss"], expected(), rtol=1e-12)
    loss = eqx.filter_jit(lambda net: rule.metrics(net, inputs, targets)["loss"])
    leaves, rest = select(network(), "weight", "device")
    flat, structure = jax.tree.flatten(leaves)
    slopes = jax.tree.leaves(select(gradient, "weight", "device")[0])
    assert len(slopes) == len(flat) == 6
    for i, slope in enumerate(slopes):
        direction = np.random.default_rng(i).normal(size=flat[i].shape)
        ends = [
            loss(eqx.combine(jax.tree.unflatten(structure, [*flat[:i], flat[i] + h * direction, *flat[i + 1 :]]), rest))
            for h in (1e-5, -1e-5)
        ]
        np.testing.assert_allclose(np.vdot(slope, direction), (ends[0] - ends[1]) / 2e-5, rtol=1e-7, atol=1e-10)


def test_metrics_of_a_classification_and_a_regression():
    outputs = jnp.array([[2.0, 1.0], [0.0, 3.0], [5.0, -1.0], [0.0, 0.1]])
    targets = jnp.eye(2)[jnp.array([0, 1, 1, 1])]
    assert classification(outputs, targets)["accuracy"] == 0.75
    values = jnp.array([[1.0], [2.0], [3.0], [4.0]])
    constant = regression(jnp.full((4, 1), 2.5), values)
    assert (constant["loss"], constant["nrmse"]) == (1.25, 1.0)  # the variance


@pytest.mark.parametrize(
    "make",
    [lambda: JosephsonMixer.two_mode(measured=4), lambda: network().substrate],
    ids=["josephson", "echo state"],
)
def test_it_teaches_a_substrate_of_any_kind(make):
    W_out = DRAWN[3]
    inputs = jnp.asarray(np.abs(INPUTS[:, :3]))
    targets = jnp.eye(2)[(inputs[:, -1] > jnp.median(inputs[:, -1])).astype(int)]
    reader = WithReadout(make(), 0.1 * W_out, np.zeros(2))
    _, history, _ = train(
        reader, Backpropagation(), (inputs, targets), optax.adam(0.1), 60, key=jax.random.key(0), chunk=60
    )
    assert history[0]["loss"] == pytest.approx(np.log(2), abs=0.15)
    assert history[-1]["loss"] < 0.7 * history[0]["loss"]


@pytest.mark.slow
def test_parts_of_a_batch_give_its_gradient():
    inputs = jax.random.normal(jax.random.key(3), (12, 5))
    targets = jax.nn.one_hot(jnp.arange(12) % 2, 2)

    def found(rule: Backpropagation) -> Any:
        return eqx.filter_jit(rule.gradient)(Noisy(network(), 0.1), inputs, targets, key=jax.random.key(0))

    for objective in (classification, regression):
        whole = found(Backpropagation(objective, microbatch=12))
        for size in (4, 6, None):
            for one, two in zip(
                *map(jax.tree.leaves, (whole, found(Backpropagation(objective, microbatch=size)))), strict=True
            ):
                np.testing.assert_allclose(two, one, rtol=1e-12, atol=1e-15)
    with pytest.raises(ValueError, match="microbatch is 5; it must divide 12 examples"):
        found(Backpropagation(microbatch=5))
    with pytest.raises(ValueError, match="is not known to be a mean over examples"):
        found(Backpropagation(lambda outputs, targets: {"loss": jnp.max(outputs)}, microbatch=4))


def test_a_large_batch_is_learned_from_in_parts_that_fit_into_a_cache(monkeypatch):
    inputs, targets = jnp.ones((64, 100)), jax.nn.one_hot(jnp.arange(64) % 2, 2)
    gradient = jax.jit(lambda i: Backpropagation().gradient(network(), i, targets, key=None)[1].weights)

    def temporary() -> int:
        jax.clear_caches()
        memory: Any = gradient.lower(inputs).compile().memory_analysis()
        return memory.temp_size_in_bytes

    whole = temporary()
    monkeypatch.setattr("morphax.learning.backprop.KEPT", 2**14)
    assert temporary() == whole  # parts of so few examples would be slower than the whole
    monkeypatch.setattr("morphax.learning.backprop.LEAST", 4)
    assert temporary() < whole / 4


def test_what_no_role_asks_for_is_not_differentiated():
    inputs, targets = jnp.asarray(INPUTS), jnp.asarray(CLASSES)
    _, gradient = Backpropagation().gradient(network(), inputs, targets)
    assert jax.tree.leaves(select(gradient, "device")[0]) == []
    _, gradient = Backpropagation().for_roles("device").gradient(network(), inputs, targets)
    assert jax.tree.leaves(select(gradient, "weight")[0]) == []
    assert jax.tree.leaves(select(gradient, "device")[0])


@pytest.mark.slow
def test_examples_divided_over_devices_give_the_same_gradient():
    program = """
import jax
jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_enable_x64", True)
import equinox as eqx, jax.numpy as jnp, numpy as np
from morphax import SpintronicNetwork, WithReadout
from morphax.learning.backprop import Backpropagation
keys = jax.random.split(jax.random.key(0), 4)
network = WithReadout.random(SpintronicNetwork.random((4, 4), scale=8.0, key=keys[0]), outputs=2, key=keys[1])
inputs, targets = jax.random.normal(keys[2], (6, 5)), jax.nn.one_hot(jnp.arange(6) % 2, 2)
def gradient(network, inputs, shards):
    return Backpropagation(shards=shards).gradient(network, inputs, targets, key=keys[3])
results = [eqx.filter_jit(gradient)(network, inputs, shards) for shards in (1, 2)]
for one, two in zip(*map(jax.tree.leaves, results)):
    np.testing.assert_allclose(two, one, rtol=1e-10, atol=1e-14)
Backpropagation(shards=2).check(network, (inputs, targets))  # which looks at one example
try:
    Backpropagation(shards=2).outputs(network, inputs[:5])
except ValueError as error:
    assert "shards is 2; it must divide the number of examples, 5" in str(error)
else:
    raise AssertionError
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
