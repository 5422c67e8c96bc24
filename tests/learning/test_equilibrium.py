"""Learning at equilibrium: three gradients against each other and against finite differences, and what it teaches."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from morphax import Backpropagation, HopfieldNetwork, Noisy, PhaseOscillators, WithInput, WithReadout
from morphax.dynamics.relaxation import AcceleratedDescent, BlockSweeps, RungeKutta
from morphax.learning.ensemble import make_members
from morphax.learning.equilibrium import (
    EquilibriumPropagation,
    ImplicitDifferentiation,
    RelaxationBackpropagation,
    phase_classification,
)
from morphax.learning.train import train
from morphax.pytrees import select
from morphax.substrates.energy import Nudge, phase_distance, phase_overlap, squared_error
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


def read() -> tuple:
    """Oscillators behind a readout: outputs are numbers, and its weights are learned, too."""
    network, inputs, targets, _ = phases()
    return WithReadout.random(network, 3, scale=0.7, key=KEY), inputs, targets, None


def onion() -> tuple:
    """Neurons between an input layer and a readout."""
    network, inputs, targets, _ = hopfield()
    driven = WithInput(network, 0.4 * np.eye(4), gain=np.array([1.0, 0.5, 2.0, -1.0]), offset=0.3)
    return WithReadout.random(Noisy(driven, 0.0), 3, key=KEY), inputs, targets, None


def slow(*systems):
    return [pytest.param(system, marks=pytest.mark.slow) for system in systems]


@eqx.filter_jit
def gradient_of(rule, network, inputs, targets, key=KEY):
    return rule.gradient(network, inputs, targets, key=key)


@eqx.filter_jit
def metrics_of(rule, network, inputs, targets):
    return rule.metrics(network, inputs, targets, key=KEY)


@eqx.filter_jit
def answers(network, inputs):
    return jax.vmap(lambda x: network.observe(network.relax(x).state))(inputs)


def flat(gradient) -> np.ndarray:
    return np.asarray(ravel_pytree(select(gradient, "weight")[0])[0])


def cosine(a, b) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.mark.slow
@pytest.mark.parametrize("system", [hopfield, *slow(phases, read, onion)])
def test_the_exact_gradients_agree_with_each_other_and_with_finite_differences(system, double):
    network, inputs, targets, cost = system()
    implicit = ImplicitDifferentiation(cost, TIGHT)
    metrics, gradient = gradient_of(implicit, network, inputs, targets)
    assert metrics["unconverged"] == 0
    exact = flat(gradient)
    through = flat(gradient_of(RelaxationBackpropagation(cost, LONG), network, inputs, targets)[1])
    np.testing.assert_allclose(through, exact, atol=1e-5 * np.abs(exact).max())

    weights, rest = select(network, "weight")
    numbers, back = ravel_pytree(weights)
    direction = jax.random.normal(jax.random.key(4), numbers.shape)

    @jax.jit
    def loss(step):
        moved = eqx.combine(back(numbers + step * direction), rest)
        return implicit.metrics(moved, inputs, targets, key=KEY)["loss"]

    difference = (loss(1e-4) - loss(-1e-4)) / 2e-4
    assert abs(difference - exact @ direction) < 1e-5 * abs(difference)


@pytest.mark.slow
@pytest.mark.parametrize("system", [phases, hopfield, *slow(read, onion)])
@pytest.mark.parametrize(("nudging", "order"), [("one-sided", 1), ("opposite", 1), ("symmetric", 2)])
def test_equilibrium_propagation_converges_to_the_gradient(system, nudging, order, double):
    network, inputs, targets, cost = system()
    exact = select(gradient_of(ImplicitDifferentiation(cost, TIGHT), network, inputs, targets)[1], "weight")[0]

    def found(strength):
        rule = EquilibriumPropagation(cost, TIGHT, strength=jnp.asarray(strength), nudging=nudging)
        return select(gradient_of(rule, network, inputs, targets)[1], "weight")[0]

    nearer = found(1e-3)
    large, small = (np.linalg.norm(flat(each) - flat(exact)) for each in (found(1e-2), nearer))
    assert small < 2e-2 * np.linalg.norm(flat(exact))
    # Every layer is learned: weights inside, those of a readout, and those of an input layer.
    for ours, theirs in zip(jax.tree.leaves(nearer), jax.tree.leaves(exact), strict=True):
        if np.any(theirs):
            assert cosine(np.ravel(ours), np.ravel(theirs)) > 1 - 1e-3
    # A neuron at the end of its range bends the response there, so the power need not be exact.
    assert large / small > 10**order / 2


@pytest.mark.slow
@pytest.mark.parametrize("system", [read, onion])
def test_back_propagation_through_equilibria_is_the_same_gradient(system, double):
    """Of the squared error; each step of it is differentiated implicitly."""
    network, inputs, targets, _ = system()

    def halves(outputs, targets):
        return {"loss": jnp.mean(jnp.sum((outputs - targets) ** 2, axis=-1)) / 2}

    metrics, gradient = gradient_of(Backpropagation(halves), network, inputs[:, None], targets)
    at_rest, exact = gradient_of(ImplicitDifferentiation(), network, inputs, targets)
    assert float(metrics["loss"]) == pytest.approx(float(at_rest["loss"]), rel=1e-4)
    np.testing.assert_allclose(flat(gradient), flat(exact), atol=1e-3 * np.abs(flat(exact)).max())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("system", "cost"), [(phases, phase_overlap), (hopfield, squared_error), (read, squared_error)]
)
def test_what_is_compared_follows_from_the_substrate(system, cost):
    """Activities of neurons are no phases, and neither is what is read of phases."""
    network, inputs, targets, _ = system()
    for rule in (EquilibriumPropagation(), ImplicitDifferentiation()):
        assert rule.compared(network) is cost
        assert type(rule)(phase_distance).compared(network) is phase_distance
    expected = float(jnp.mean(jnp.sum(cost(answers(network, inputs), targets), axis=-1)))
    loss = metrics_of(ImplicitDifferentiation(), network, inputs, targets)["loss"]
    assert float(loss) == pytest.approx(expected, rel=1e-3)


@pytest.mark.slow
def test_the_most_probable_class_is_that_of_the_largest_output_or_sine():
    labels = jnp.eye(3)[jnp.arange(5) % 3]
    for system, best in ((phases, jnp.sin), (read, lambda o: o)):
        network, inputs, _, _ = system()
        outputs = answers(network, inputs)
        expected = float(jnp.mean(jnp.argmax(best(outputs), -1) == jnp.argmax(labels, -1)))
        rule = ImplicitDifferentiation().suited("classification")
        assert float(metrics_of(rule, network, inputs, labels)["accuracy"]) == pytest.approx(expected)
        regression = ImplicitDifferentiation().suited("regression")
        assert "accuracy" not in eqx.filter_eval_shape(metrics_of, regression, network, inputs, labels)


@pytest.mark.slow
def test_a_laboratory_reads_with_other_noise_each_time(double):
    """The error of a difference that is divided by beta is that of a reading over beta."""
    network, inputs, targets, cost = phases()
    noisy = Noisy(network, 1e-3)

    def spread(strength):
        rule = EquilibriumPropagation(cost, TIGHT, strength=jnp.asarray(strength))
        keys = jax.random.split(KEY, 30)
        found = jax.vmap(lambda k: gradient_of(rule, noisy, inputs[:1], targets[:1], k)[1].substrate.couplings)(keys)
        return float(jnp.mean(jnp.std(found, axis=0)))

    assert spread(0.02) / spread(0.2) == pytest.approx(10, rel=0.2)


@pytest.mark.slow
def test_initial_states_are_averaged(double):
    network, inputs, targets, cost = phases()
    rule = EquilibriumPropagation(cost, TIGHT, initial_states=7)
    metrics, gradient = gradient_of(rule, network, inputs, targets)
    assert metrics["loss"].shape == ()
    one = gradient_of(EquilibriumPropagation(cost, TIGHT), network, inputs, targets)[1]
    # This network has one equilibrium for each input: all starts lead there.
    np.testing.assert_allclose(flat(gradient), flat(one), atol=1e-7)


@pytest.mark.slow
def test_relaxations_that_do_not_converge_are_counted_and_left_out(double):
    network, inputs, targets, cost = phases()
    torn = eqx.tree_at(lambda n: n.frequencies, network, jnp.full_like(network.frequencies, 50.0))
    metrics, gradient = gradient_of(EquilibriumPropagation(cost, BlockSweeps(max_sweeps=200)), torn, inputs, targets)
    assert metrics["unconverged"] == 1
    assert not flat(gradient).any()
    hasty = BlockSweeps(1e-6, max_sweeps=10)
    few, _ = gradient_of(EquilibriumPropagation(cost, hasty), network, inputs, targets)
    assert 0 < few["unconverged"] <= 1


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize("rule", [ImplicitDifferentiation, RelaxationBackpropagation])
def test_the_exact_rules_train_in_the_same_loop(rule):
    network, inputs, targets, cost = phases()
    relaxer = BlockSweeps() if rule is ImplicitDifferentiation else RungeKutta(20.0)
    trained = train(network, rule(cost, relaxer), (inputs, targets), optax.sgd(0.1), 30, key=KEY)
    assert trained.history[-1]["loss"] < 0.7 * trained.history[0]["loss"]


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize("relaxer", [AcceleratedDescent(1e-9), RungeKutta(5.0, 0.25)])
def test_free_and_nudged_in_one_program_are_those_of_three(relaxer):
    with jax.enable_x64(True):
        network = PhaseOscillators.all_to_all(2, 6, 2, key=KEY)
        rule = EquilibriumPropagation(relaxer=relaxer, nudging="symmetric")
        inputs, targets = jax.random.uniform(KEY, (3, 2)), jax.random.uniform(jax.random.key(1), (3, 2))
        keys = jax.random.split(KEY, 3)
        starts = jax.vmap(lambda k: network.initial_state(key=k))(keys)
        found = rule._free_and_nudged(network, inputs, starts, keys, targets, [0.1, -0.1])
        free = rule._relaxed(network, inputs, starts, keys)
        apart = [free, *(rule._relaxed(network, inputs, free.state, keys, targets, beta) for beta in (0.1, -0.1))]
    for one, other in zip(found, apart, strict=True):
        np.testing.assert_allclose(one.state, other.state, atol=1e-7)


def test_a_cost_that_is_infinite_somewhere_leaves_the_free_system_alone():
    nudge = Nudge(lambda o, t: -t * jnp.log(jnp.maximum(o, 0.0)), 0.0, jnp.ones(2))
    np.testing.assert_array_equal(nudge.force(jnp.array([0.0, -1.0])), 0)
    assert nudge.energy(jnp.array([0.0, -1.0])) == 0
