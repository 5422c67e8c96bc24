"""Sensitivities and traces that go forward in time against back-propagation through it, and readouts against ridge."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from morphax import (
    Backpropagation,
    EchoStateNetwork,
    HopfieldNetwork,
    SpikingNetwork,
    SpintronicNetwork,
    WithFeedback,
    WithInput,
    WithReadout,
    evolve,
)
from morphax.learning import regression
from morphax.learning.node_perturbation import NodePerturbation
from morphax.learning.online import (
    EligibilityPropagation,
    RandomFeedbackLocalOnline,
    RealTimeRecurrentLearning,
    SparseApproximation,
)
from morphax.learning.recursive_least_squares import RecursiveLeastSquares
from morphax.learning.train import train
from morphax.pytrees import select
from morphax.substrates.imperfections import Noisy
from morphax.substrates.recurrent import ContinuousTimeRecurrentNetwork

KEY = jax.random.key(0)
NETWORKS = {"spintronic": SpintronicNetwork, "leaky": ContinuousTimeRecurrentNetwork}
TRACES = (EligibilityPropagation, RandomFeedbackLocalOnline, SparseApproximation)


def network(kind: str, layers=(6, 5), *, observed="last layer", **options):
    inner = NETWORKS[kind].random(layers, scale=2.0, interval=8.0, observed=observed, key=KEY, **options)
    return WithReadout.random(inner, 3, key=jax.random.key(1))


def data(points: int, *, every: bool = False):
    inputs = jax.random.uniform(jax.random.key(2), (4, points), minval=-1.0)
    targets = jnp.eye(3)[jnp.array([0, 1, 2, 0])]
    return inputs, jnp.broadcast_to(targets[:, None], (4, points, 3)) if every else targets


def flat(gradient) -> np.ndarray:
    return np.asarray(ravel_pytree(select(gradient, "weight")[0])[0])


def cosine(a, b) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.mark.slow
@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("order", [1, 2])
def test_sensitivities_give_the_gradient_of_back_propagation(kind, order, double):
    net = network(kind, order=order)
    inputs, targets = data(7)
    right = flat(Backpropagation().gradient(net, inputs, targets, key=KEY)[1])
    metrics, gradient = eqx.filter_jit(RealTimeRecurrentLearning().gradient)(net, inputs, targets, key=KEY)
    np.testing.assert_allclose(flat(gradient), right, atol=1e-5 * np.abs(right).max())
    assert metrics["loss"] == pytest.approx(Backpropagation().metrics(net, inputs, targets, key=KEY)["loss"])


@pytest.mark.slow
@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("order", [1, 2])
def test_without_other_neurons_sparse_sensitivities_are_all(kind, order, double):
    """One neuron with its own synapse: nothing is there that SnAp-1 neglects, and what e-prop does is."""
    net = network(kind, (1,), order=order, intralayer_density=1.0)
    inputs, targets = data(7, every=True)
    right = flat(Backpropagation(regression).gradient(net, inputs, targets, key=KEY)[1])

    def found(rule) -> np.ndarray:
        return flat(rule(KEY, objective=regression).gradient(net, inputs, targets, key=KEY)[1])

    np.testing.assert_allclose(found(SparseApproximation), right, atol=1e-10 * np.abs(right).max())
    assert np.linalg.norm(found(EligibilityPropagation) - right) > 1e-3 * np.linalg.norm(right)


@pytest.mark.slow
@pytest.mark.parametrize("kind", NETWORKS)
def test_traces_without_recurrence_are_the_gradient(kind, double):
    """One layer without synapses between its neurons, all read."""
    net = network(kind, (6,), intralayer_density=0.0)
    inputs, targets = data(7)
    right = flat(Backpropagation().gradient(net, inputs, targets, key=KEY)[1])
    for rule in (EligibilityPropagation, SparseApproximation):
        np.testing.assert_allclose(
            flat(rule(KEY).gradient(net, inputs, targets, key=KEY)[1]), right, atol=1e-10 * np.abs(right).max()
        )


@pytest.mark.slow
@pytest.mark.parametrize("refractory_steps", [1, 3])
def test_traces_of_spiking_neurons_without_recurrence_are_the_gradient(refractory_steps, double):
    """Back-propagation with the same surrogate, resets and refractory times included."""
    inner = SpikingNetwork.random(
        6, 2, input_mean=1.0, refractory_steps=refractory_steps, steepness=5.0, method="exact", key=KEY
    )
    inner = eqx.tree_at(lambda n: n.recurrent_weights, inner, jnp.zeros((6, 6)))
    net = WithReadout.random(inner, 3, key=jax.random.key(1))
    inputs = jax.random.uniform(jax.random.key(2), (4, 30, 2), maxval=3.0)
    targets = jnp.broadcast_to(data(1)[1][:, None], (4, 30, 3))
    assert 0.05 < jnp.mean(evolve(inner, inputs[0])[0]) < 0.95

    right = flat(Backpropagation(regression).gradient(net, inputs, targets, key=KEY)[1])
    for rule in (EligibilityPropagation, SparseApproximation):
        found = flat(rule(KEY, objective=regression).gradient(net, inputs, targets, key=KEY)[1])
        np.testing.assert_allclose(found, right, atol=1e-9 * np.abs(right).max())


@pytest.mark.slow
def test_traces_follow_the_states_that_noise_made(double):
    net = network("leaky", (6,), intralayer_density=0.0)
    noisy = eqx.tree_at(lambda n: n.substrate, net, Noisy(net.substrate, 0.3))
    inputs, targets = data(7)
    right = flat(Backpropagation().gradient(noisy, inputs, targets, key=KEY)[1])
    metrics, gradient = EligibilityPropagation(KEY).gradient(noisy, inputs, targets, key=KEY)
    np.testing.assert_allclose(flat(gradient), right, atol=1e-10 * np.abs(right).max())
    assert abs(metrics["loss"] - EligibilityPropagation(KEY).metrics(net, inputs, targets, key=KEY)["loss"]) > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("order", [1, 2])
def test_of_as_many_directions_as_neurons_and_times_every_error_in_time_is_known(kind, order, double):
    net = network(kind, (3, 3), order=order)
    inputs, targets = data(5)
    rule = NodePerturbation(directions=64, spread=1e-4)
    metrics, gradient = eqx.filter_jit(rule.gradient)(net, inputs, targets, key=KEY)
    right = flat(Backpropagation().gradient(net, inputs, targets, key=KEY)[1])
    np.testing.assert_allclose(flat(gradient), right, atol=1e-6 * np.abs(right).max())
    assert metrics["presentations"] == 4 * 129


@pytest.mark.slow
def test_who_knows_more_is_nearer_to_the_gradient(double):
    net = network("leaky", (16,), intralayer_density=1.0, observed="outputs")
    inputs, targets = data(10)
    right = flat(Backpropagation().gradient(net, inputs, targets, key=KEY)[1].substrate)
    sparse, local, told = (
        cosine(flat(rule(KEY).gradient(net, inputs, targets, key=KEY)[1].substrate), right)
        for rule in (SparseApproximation, EligibilityPropagation, RandomFeedbackLocalOnline)
    )
    assert 1 > sparse > 0.85
    assert 1 > local > 0.85
    assert told < local - 0.2


@pytest.mark.slow
@pytest.mark.parametrize("rule", TRACES)
def test_traces_teach(rule):
    net = network("spintronic", (8,), observed="outputs")
    history = train(net, rule(KEY), data(6), optax.adam(0.02), 60, key=KEY, chunk=60).history
    loss = history.metric("loss")
    assert loss[-1] < 0.9 * loss[0]
    assert history.presentations[-1] == 60 * 4


def test_recursive_least_squares_is_ridge_regression(double):
    reservoir = EchoStateNetwork.random(20, key=KEY)
    inputs = jax.random.uniform(jax.random.key(2), (1, 300))
    targets = jnp.roll(inputs, 2)[..., None]
    net = WithReadout(reservoir, np.zeros((1, 20)), np.zeros(1))
    rule = RecursiveLeastSquares(1e-4, objective=regression)
    memory = rule.memory(net, key=KEY)
    metrics, change, memory = rule.gradient(net, inputs, targets, key=KEY, memory=memory)
    rows = np.asarray(evolve(reservoir, inputs[0])[0])
    rows = np.concatenate([rows, np.ones((300, 1))], axis=1)
    right = np.linalg.solve(rows.T @ rows + 1e-4 * np.eye(21), rows.T @ np.asarray(targets[0]))[:, 0]
    found = -np.concatenate([np.asarray(change.weights[0]), np.asarray(change.bias)])
    np.testing.assert_allclose(found, right, atol=1e-6 * np.abs(right).max())
    np.testing.assert_allclose(memory.matrix @ (rows.T @ rows + 1e-4 * np.eye(21)), np.eye(21), atol=1e-5)
    assert metrics["presentations"] == 1


def test_answers_that_reach_nothing_are_corrected_as_those_that_are_not_fed_back(double):
    reader = WithReadout.random(EchoStateNetwork.random(12, key=KEY), 2, key=jax.random.key(1))
    inputs = jax.random.uniform(jax.random.key(2), (3, 40))
    targets = jnp.stack([jnp.roll(inputs, 1, axis=1), inputs**2], axis=-1)
    rule = RecursiveLeastSquares(1e-2, objective=regression)
    alone, change, memory = rule.gradient(reader, inputs, targets, key=KEY)
    fed, same, remembered = rule.gradient(WithFeedback(reader, np.zeros((1, 2))), inputs, targets, key=KEY)
    np.testing.assert_allclose(same.substrate.weights, change.weights, atol=1e-9)
    np.testing.assert_allclose(remembered.matrix, memory.matrix, atol=1e-9)
    assert float(fed["loss"]) == pytest.approx(float(alone["loss"]))


def test_a_network_that_is_fed_back_is_corrected_along_its_own_answers(double):
    """Sussillo & Abbott's loop by hand."""
    reader = WithReadout.random(EchoStateNetwork.random(8, leak_rate=0.3, key=KEY), 1, key=jax.random.key(1))
    network = WithFeedback(reader, np.full((1, 1), 0.7))
    inputs, targets = jnp.zeros((1, 20)), jnp.sin(jnp.arange(20.0) / 3)[None, :, None]
    change = RecursiveLeastSquares(0.5, objective=regression).gradient(network, inputs, targets, key=KEY)[1]
    inside, weights = reader.substrate, np.append(reader.weights[0], reader.bias)
    inverse, state = np.eye(9) / 0.5, inside.initial_state()
    answer = weights @ np.append(inside.observe(state), 1)
    for target in np.asarray(targets[0, :, 0]):
        state = inside.step(state, jnp.atleast_1d(0.7 * answer))
        row = np.append(inside.observe(state), 1)
        seen = inverse @ row
        gain = seen / (1 + row @ seen)
        answer, weights = weights @ row, weights + (target - weights @ row) * gain
        inverse = inverse - np.outer(gain, seen)
    found = np.append(change.substrate.weights[0], change.substrate.bias)
    np.testing.assert_allclose(np.append(reader.weights[0], reader.bias) - found, weights, atol=1e-10)
    assert not jnp.any(change.matrix)


@pytest.mark.slow
def test_forgetting_follows_what_changes(double):
    """The answer that is wanted changes its sign half-way: without forgetting the mean of both is learned."""
    reservoir = EchoStateNetwork.random(10, key=KEY)
    inputs = jax.random.uniform(jax.random.key(2), (1, 600))
    targets = (inputs * jnp.where(jnp.arange(600) < 300, 1.0, -1.0))[..., None]
    net = WithReadout(reservoir, np.zeros((1, 10)), np.zeros(1))

    def last(forgetting: float) -> float:
        rule = RecursiveLeastSquares(1e-4, forgetting, objective=regression)
        change = rule.gradient(net, inputs, targets, key=KEY, memory=rule.memory(net, key=KEY))[1]
        after = WithReadout(reservoir, -change.weights, -change.bias)
        return float(jnp.mean((evolve(after, inputs[0])[0][-50:] - targets[0, -50:]) ** 2))

    assert last(0.97) < 1e-3 < last(1.0)


def test_what_they_cannot_learn_is_refused():
    inputs, targets = data(5)
    with pytest.raises(ValueError, match=r"sgd\(1\.0\)"):
        train(network("leaky"), RecursiveLeastSquares(), (inputs, targets), optax.adam(0.1), 1, key=KEY)
    with pytest.raises(ValueError, match="LayeredNetwork"):
        EligibilityPropagation(KEY).check(HopfieldNetwork.random((5, 4, 3), key=KEY), (inputs, targets))
    driven = WithInput(network("leaky"), np.eye(1), gain=1.0, offset=0.0)
    with pytest.raises(ValueError, match="LayeredNetwork"):
        EligibilityPropagation(KEY).check(driven, (inputs, targets))
    with pytest.raises(ValueError, match="forgetting"):
        RecursiveLeastSquares(forgetting=0.0)
    fed = WithFeedback(network("leaky"), np.zeros((1, 3)))
    with pytest.raises(
        ValueError, match=r"targets has shape \(4, 3\); what is fed back must be right after every input"
    ):
        train(fed, RecursiveLeastSquares(), (inputs, np.eye(3)[[0, 1, 2, 0]]), optax.sgd(1.0), 1, key=KEY)
