"""Learning without derivatives: against gradients, against the statistics of random directions, and of a black box."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from morphax import Backpropagation, EchoStateNetwork, InTheLoop, SpintronicNetwork, WithReadout, make_members, train
from morphax.learning.evolution import CMAES
from morphax.learning.rule import LearningRule
from morphax.learning.zeroth_order import ForwardGradient, ZerothOrder
from morphax.pytrees import WEIGHT, select
from morphax.substrates.base import Substrate

KEY = jax.random.key(0)
INPUTS, TARGETS = jax.random.uniform(KEY, (12, 8, 1)), jnp.eye(2)[jnp.arange(12) % 2]


def network(layers=(6, 5), **settings):
    substrate = SpintronicNetwork.random(layers, key=KEY, **settings)
    return WithReadout.random(substrate, outputs=2, key=jax.random.key(1))


def flat(gradient):
    return ravel_pytree(select(gradient, "weight")[0])[0]


def cosine(a, b):
    return float(a @ b / jnp.linalg.norm(a) / jnp.linalg.norm(b))


class Quadratic(Substrate):
    """Numbers, of which the loss is a quadratic function."""

    x: jax.Array = eqx.field(metadata=WEIGHT)

    def initial_state(self, *, key=None):
        return jnp.zeros(())

    def step(self, state, drive, *, key=None):
        return state

    def observe(self, state, *, key=None):
        return self.x


class Energy(LearningRule):
    curvature: jax.Array

    def metrics(self, substrate, inputs, targets, *, key):
        return {"loss": substrate.x @ self.curvature @ substrate.x / 2 + jnp.mean(inputs) * jnp.sum(substrate.x)}

    def gradient(self, substrate, inputs, targets, *, key):
        metrics = self.metrics(substrate, inputs, targets, key=key)
        return metrics, Quadratic(self.curvature @ substrate.x + jnp.mean(inputs))


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"distribution": "normal"}, {"ranked": True}, {"sampling": "one-sided"}])
def test_the_cosine_with_the_gradient_is_that_of_random_directions(settings):
    model = network()
    exact = flat(eqx.filter_jit(Backpropagation().gradient)(model, INPUTS, TARGETS, key=KEY)[1])
    estimate = eqx.filter_jit(ZerothOrder(Backpropagation(), directions=50, **settings).gradient)
    found = [cosine(flat(estimate(model, INPUTS, TARGETS, key=jax.random.key(i))[1]), exact) for i in range(5)]
    weights = int(jnp.sum(exact != 0))
    assert np.mean(found) == pytest.approx((50 / (50 + weights)) ** 0.5, rel=0.15)


@pytest.mark.parametrize("settings", [{}, {"each_example": True}, {"distribution": "normal"}])
def test_on_a_quadratic_the_mean_is_the_gradient(settings):
    a = jax.random.normal(KEY, (4, 4))
    energy, point = Energy(a @ a.T), Quadratic(jax.random.normal(jax.random.key(1), (4,)))
    rule = ZerothOrder(energy, spread=0.1, **settings)
    exact = energy.gradient(point, INPUTS, TARGETS, key=KEY)[1].x
    draw = jax.jit(jax.vmap(lambda key: rule.gradient(point, INPUTS, TARGETS, key=key)[1].x))
    found = np.asarray(draw(jax.random.split(KEY, 1000)))
    assert (abs(found.mean(0) - exact) < 3.5 * found.std(0) / 1000**0.5 + 1e-3).all()


@pytest.mark.slow
def test_only_synapses_that_exist_are_disturbed():
    model: Any = network()
    gradient = ZerothOrder(Backpropagation()).gradient(model, INPUTS, TARGETS, key=KEY)[1]
    connections, mask = gradient.substrate.connections, model.substrate.connections.mask
    assert (connections.weights[~mask] == 0).all()
    assert (connections.weights[mask] != 0).any()


@pytest.mark.parametrize(
    "settings",
    [
        {"directions": 3},
        {"directions": 3, "sampling": "one-sided"},
        {"directions": 2, "each_example": True},
        {"directions": 2, "ranked": True},
    ],
)
def test_a_device_is_shown_as_many_examples_as_were_announced(settings):
    model, shown = WithReadout.random(EchoStateNetwork.random(6, key=KEY), 2, key=KEY), []

    def device(weights, inputs):
        shown.append(len(inputs))
        answers = jax.vmap(lambda x: jnp.sum(x) + jnp.arange(2.0))(jnp.asarray(inputs))
        return np.asarray(answers) * float(weights.weights.sum())

    rule = ZerothOrder(InTheLoop(Backpropagation(), device), **settings)
    metrics, _ = rule.gradient(model, INPUTS, TARGETS, key=KEY)
    assert sum(shown) == rule.cost(12).presentations == metrics["presentations"]
    assert len(shown) == rule.cost(12).writes == metrics["writes"]


def test_a_black_box_is_trained():
    model = WithReadout.random(EchoStateNetwork.random(6, key=KEY), 2, key=KEY)
    hidden = jax.random.normal(KEY, (12, 6))

    def device(weights, inputs):
        return np.asarray(hidden) @ np.asarray(weights.weights).T + np.asarray(weights.bias)

    rule = ZerothOrder(InTheLoop(Backpropagation(), device), directions=8, spread=0.05)
    done = train(model, rule, (INPUTS, TARGETS), optax.adam(0.1), 60, key=KEY)
    assert done.history[-1]["loss"] < 0.5 * done.history[0]["loss"]
    assert done.history.presentations[-1] == 60 * 16 * 12


def test_a_budget_is_never_exceeded():
    model, rule = network(), ZerothOrder(Backpropagation(), directions=2)
    arguments = {"key": KEY, "batch_size": 4, "watch": {"test": (INPUTS, TARGETS)}}
    done = train(model, rule, (INPUTS, TARGETS), optax.sgd(0.1), 100, budget=50, **arguments)
    assert done.history.presentations.tolist() == [16, 32, 48]
    assert done.history.writes.tolist() == [4, 8, 12]
    assert done.history[-1]["test"]["presentations"] == 12
    with pytest.raises(ValueError, match=r"budget is 15; a step of ZerothOrder with 4 examples presents 16"):
        train(model, rule, (INPUTS, TARGETS), optax.sgd(0.1), 100, budget=15, **arguments)
    free = train(model, Backpropagation(), (INPUTS, TARGETS), optax.sgd(0.1), 2, budget=1, **arguments)
    assert free.history.presentations.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"directions": 0}, "directions is 0"),
        ({"spread": 0.0}, "spread is 0.0"),
        ({"spread": -1.0}, "spread is -1.0"),
        ({"ranked": True}, "ranked is True with directions 1"),
        ({"sampling": "two"}, "sampling is 'two'"),
    ],
)
def test_bad_numbers_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        ZerothOrder(Backpropagation(), **settings)


def test_roles_are_those_that_are_trained():
    rule = ZerothOrder(Backpropagation(), roles=("device",))
    with pytest.raises(ValueError, match=r"roles is \('device',\), but trained is \('weight',\)"):
        train(network(), rule, (INPUTS, TARGETS), optax.sgd(0.1), 1, key=KEY)
    done = train(network(), rule, (INPUTS, TARGETS), optax.sgd(1e-3), 1, key=KEY, trained=("device",))
    assert np.isfinite(done.history[-1]["loss"])


@pytest.mark.slow
def test_forward_gradients_have_the_cosine_of_random_directions_and_ask_nothing():
    model = network()
    exact = flat(eqx.filter_jit(Backpropagation().gradient)(model, INPUTS, TARGETS, key=KEY)[1])
    estimate = eqx.filter_jit(ForwardGradient(Backpropagation(), directions=50).gradient)
    draws = [estimate(model, INPUTS, TARGETS, key=jax.random.key(i)) for i in range(5)]
    weights = int(jnp.sum(exact != 0))
    found = np.mean([cosine(flat(gradient), exact) for _, gradient in draws])
    assert found == pytest.approx((50 / (50 + weights)) ** 0.5, rel=0.15)
    assert draws[0][0]["presentations"] == 0


@pytest.mark.parametrize("separable", [False, True])
def test_covariance_adapts_to_a_long_valley(separable):
    """Ten thousand times as steep one way as another, along the axes where the covariance is diagonal."""
    with jax.enable_x64(True):
        turn = jnp.eye(6) if separable else jnp.linalg.qr(jax.random.normal(KEY, (6, 6)))[0]
        curvature = turn @ jnp.diag(jnp.logspace(0, 4, 6)) @ turn.T
        rule = CMAES(Energy(curvature), population=9, spread=0.5, separable=separable)
        data = jnp.zeros((1, 1, 1)), jnp.zeros((1, 1))
        arguments = {"key": KEY, "chunk": 250}
        done = train(Quadratic(jnp.ones(6)), rule, data, optax.sgd(1.0), 250, **arguments)
    loss = done.history.metric("loss")
    assert loss[-1] < 1e-8 * loss[0]
    assert done.history.presentations[-1] == 250 * 9


@pytest.mark.slow
@pytest.mark.parametrize("separable", [False, True])
def test_what_a_rule_remembers_is_kept_in_checkpoints_and_for_members(tmp_path, separable):
    rule = CMAES(Backpropagation(), population=6, separable=separable)
    stack = make_members(lambda key: network((3, 2)), KEY, 2)
    arguments = {"key": KEY, "batch_size": 6, "chunk": 2}

    def learned(substrate, steps, **more):
        return train(substrate, rule, (INPUTS, TARGETS), optax.sgd(1.0), steps, **arguments, **more)

    whole = learned(stack, 4, ensemble=True)
    learned(stack, 2, ensemble=True, checkpoint=tmp_path)
    again = learned(stack, 4, ensemble=True, checkpoint=tmp_path)
    assert again.history == whole.history
    alone = learned(jax.tree.map(lambda x: x[1:] if eqx.is_array(x) else x, stack), 4, ensemble=range(1, 2))
    np.testing.assert_allclose(whole.history.metric("loss")[:, 1:], alone.history.metric("loss"), rtol=1e-5)
    with pytest.raises(ValueError, match="holds a training with another rule"):
        train(
            stack,
            CMAES(Backpropagation(), population=7),
            (INPUTS, TARGETS),
            optax.sgd(1.0),
            4,
            ensemble=True,
            checkpoint=tmp_path,
            **arguments,
        )


def test_whole_steps_are_not_to_be_changed():
    with pytest.raises(ValueError, match=r"CMAES gives whole steps, so the optimiser must be optax.sgd\(1.0\)"):
        train(network(), CMAES(Backpropagation()), (INPUTS, TARGETS), optax.adam(0.1), 1, key=KEY)


def test_candidates_without_a_loss_are_the_worst():
    class Edge(LearningRule):
        def metrics(self, substrate, inputs, targets, *, key):
            return {"loss": jnp.where(substrate.x[0] > 1, jnp.nan, jnp.sum((substrate.x - 3) ** 2))}

        def gradient(self, substrate, inputs, targets, *, key):
            raise NotImplementedError

    rule = CMAES(Edge(), population=20, spread=1.0)
    trained = train(Quadratic(jnp.zeros(2)), rule, (INPUTS, TARGETS), optax.sgd(1.0), 60, key=KEY)
    np.testing.assert_allclose(trained.last.x, [1, 3], atol=0.1)
