"""Learning at equilibrium: three gradients against each other and against finite differences, and what it teaches."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from morphax import HopfieldNetwork, PhaseOscillators
from morphax.dynamics.relaxation import BlockSweeps, RungeKutta
from morphax.learning.ensemble import make_members
from morphax.learning.equilibrium import (
    EquilibriumPropagation,
    ImplicitDifferentiation,
    RelaxationBackpropagation,
    phase_classification,
)
from morphax.learning.train import train
from morphax.pytrees import select
from morphax.substrates.energy import phase_distance, phase_overlap, squared_error
from morphax.tasks import xor

KEY = jax.random.key(0)
TIGHT = BlockSweeps(1e-12, 50_000)
LONG = RungeKutta(400.0, 0.1)


def phases() -> tuple:
    # Strong biases leave one equilibrium for each input, so that all ways there can be compared.
    network = PhaseOscillators.layered((4, 6, 3), key=jax.random.key(3))
    network = eqx.tree_at(lambda n: n.bias_strengths, network, jnp.linspace(1.0, 1.6, 9))
    inputs = jax.random.uniform(jax.random.key(1), (5, 4), minval=-1.5, maxval=1.5)
    return network, inputs, jax.random.uniform(jax.random.key(2), (5, 3), minval=-1, maxval=1), phase_overlap


def hopfield() -> tuple:
    network = HopfieldNetwork.random((4, 6, 3), scale=0.5, key=jax.random.key(3))
    network = eqx.tree_at(lambda n: n.biases, network, tuple(b + 0.4 for b in network.biases))
    inputs = jax.random.uniform(jax.random.key(1), (5, 4))
    return network, inputs, jax.random.uniform(jax.random.key(2), (5, 3)), squared_error


def flat(gradient) -> np.ndarray:
    return np.asarray(ravel_pytree(select(gradient, "weight")[0])[0])


def cosine(a, b) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.mark.parametrize("system", [phases, hopfield])
def test_the_exact_gradients_agree_with_each_other_and_with_finite_differences(system, double):
    network, inputs, targets, cost = system()
    implicit = ImplicitDifferentiation(cost, TIGHT)
    metrics, gradient = implicit.gradient(network, inputs, targets, key=KEY)
    assert metrics["unconverged"] == 0
    exact = flat(gradient)
    through = flat(RelaxationBackpropagation(cost, LONG).gradient(network, inputs, targets, key=KEY)[1])
    np.testing.assert_allclose(through, exact, atol=1e-5 * np.abs(exact).max())

    weights, rest = select(network, "weight")
    numbers, back = ravel_pytree(weights)
    direction = jax.random.normal(jax.random.key(4), numbers.shape)

    def loss(step):
        moved = eqx.combine(back(numbers + step * direction), rest)
        return implicit.metrics(moved, inputs, targets, key=KEY)["loss"]

    difference = (loss(1e-4) - loss(-1e-4)) / 2e-4
    assert abs(difference - exact @ direction) < 1e-5 * abs(difference)


@pytest.mark.parametrize("system", [phases, hopfield])
@pytest.mark.parametrize(("nudging", "order"), [("one-sided", 1), ("opposite", 1), ("symmetric", 2)])
def test_equilibrium_propagation_converges_to_the_gradient(system, nudging, order, double):
    network, inputs, targets, cost = system()
    exact = flat(ImplicitDifferentiation(cost, TIGHT).gradient(network, inputs, targets, key=KEY)[1])

    def error(strength):
        rule = EquilibriumPropagation(cost, TIGHT, strength=strength, nudging=nudging)
        return np.linalg.norm(flat(rule.gradient(network, inputs, targets, key=KEY)[1]) - exact)

    large, small = error(1e-2), error(1e-3)
    assert small < 2e-2 * np.linalg.norm(exact)
    # A neuron at the end of its range bends the response there, so the power need not be exact.
    assert large / small > 10**order / 2


def test_initial_states_are_averaged(double):
    network, inputs, targets, cost = phases()
    rule = EquilibriumPropagation(cost, TIGHT, initial_states=7)
    metrics, gradient = rule.gradient(network, inputs, targets, key=KEY)
    assert metrics["loss"].shape == ()
    one = EquilibriumPropagation(cost, TIGHT).gradient(network, inputs, targets, key=KEY)[1]
    # This network has one equilibrium for each input: all starts lead there.
    np.testing.assert_allclose(flat(gradient), flat(one), atol=1e-7)


def test_relaxations_that_do_not_converge_are_counted_and_left_out(double):
    network, inputs, targets, cost = phases()
    torn = eqx.tree_at(lambda n: n.frequencies, network, jnp.full_like(network.frequencies, 50.0))
    metrics, gradient = EquilibriumPropagation(cost, BlockSweeps(max_sweeps=200)).gradient(
        torn, inputs, targets, key=KEY
    )
    assert metrics["unconverged"] == 1
    assert not flat(gradient).any()
    hasty = BlockSweeps(1e-6, max_sweeps=10)
    few, _ = EquilibriumPropagation(cost, hasty).gradient(network, inputs, targets, key=KEY)
    assert 0 < few["unconverged"] <= 1


def test_it_learns_xor_in_an_ensemble():
    task = xor()
    stack = make_members(
        lambda k: PhaseOscillators.all_to_all(2, 2, 1, coupling_deviation=1.0, bias_scale=0.5, key=k), KEY, 6
    )
    rule = EquilibriumPropagation(strength=0.3)
    trained = train(
        stack, rule, (task.train_inputs, task.train_targets), optax.sgd(0.1), 400, key=KEY, ensemble=True, chunk=400
    )
    losses = np.array([row["loss"] for row in trained.history])
    assert np.mean(losses[-20:]) < 0.3 * np.mean(losses[:20])


@pytest.mark.parametrize("rule", [ImplicitDifferentiation, RelaxationBackpropagation])
def test_the_exact_rules_train_in_the_same_loop(rule):
    network, inputs, targets, cost = phases()
    relaxer = BlockSweeps() if rule is ImplicitDifferentiation else RungeKutta(20.0)
    trained = train(network, rule(cost, relaxer), (inputs, targets), optax.sgd(0.1), 30, key=KEY)
    assert trained.history[-1]["loss"] < 0.7 * trained.history[0]["loss"]


def test_the_hopfield_network_learns_a_regression():
    network, inputs, targets, cost = hopfield()
    trained = train(
        network, EquilibriumPropagation(cost, strength=0.1), (inputs, targets), optax.adam(0.02), 200, key=KEY
    )
    assert trained.history[-1]["loss"] < 0.3 * trained.history[0]["loss"]


def test_classes_are_told_by_the_largest_sine():
    outputs = jnp.array([[1.5, -1.5], [3.0, 1.0], [-1.0, -2.5]])
    targets = jnp.array([[1.57, -1.57], [-1.57, 1.57], [1.57, -1.57]])
    assert phase_classification(outputs, targets)["accuracy"] == pytest.approx(2 / 3)


def test_bad_arguments():
    network, inputs, targets, _ = phases()
    for strength in (0.0, -0.1, float("nan")):
        with pytest.raises(ValueError, match="beta must be > 0"):
            EquilibriumPropagation(strength=strength)
    with pytest.raises(ValueError, match="nudging is 'both'"):
        EquilibriumPropagation(nudging="both")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="targets is 9; a phase is from -pi to pi"):
        train(network, EquilibriumPropagation(), (inputs, targets.at[0].set(9.0)), optax.sgd(0.1), 1, key=KEY)
    with pytest.raises(ValueError, match="only RungeKutta can be differentiated"):
        RelaxationBackpropagation(phase_distance, BlockSweeps()).gradient(network, inputs, targets, key=KEY)
