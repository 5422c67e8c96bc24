"""Layered networks: against an adaptive solver of the printed equations, the schemes' orders, masks and gradients."""

from functools import cache, partial

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from morphax import SpintronicNetwork, Substrate, WithReadout, evolve
from morphax.pytrees import select
from morphax.substrates.imperfections import Noisy, mismatch
from morphax.substrates.layers import Connections, Method
from morphax.substrates.recurrent import ContinuousTimeRecurrentNetwork
from morphax.units import MHz

pytestmark = pytest.mark.usefixtures("double")

KEY = jax.random.key(5)
LAYERS = (5, 4, 3)
INTERVAL = 4.0
BOTH = pytest.mark.parametrize("kind", [SpintronicNetwork, ContinuousTimeRecurrentNetwork])


INPUTS = np.random.default_rng(1).normal(size=(6, 2)).astype(np.float32)


def network(kind, **changes):
    """Strongly coupled, every neuron with constants of its own."""
    net = made(kind, jax.dtypes.canonicalize_dtype(float))
    for name, value in changes.items():
        net = eqx.tree_at(lambda n, name=name: getattr(n, name), net, jnp.full(12, value))
    return net


@cache
def made(kind, dtype):
    options = {"cutoff_frequency": 20 * MHz, "nonlinear_damping": 0.5} if kind is SpintronicNetwork else {}

    @eqx.filter_jit
    def make():
        net = kind.random(LAYERS, inputs=2, scale=8.0, key=KEY, interval=INTERVAL, observed="outputs", **options)
        return mismatch(net, devices=0.1, key=KEY)

    return make()


def unconnected(neurons):
    return Connections((neurons,), np.zeros((neurons, neurons)), np.zeros((neurons, 1)), np.zeros(neurons))


@eqx.filter_jit
def run(substrate, inputs):
    return evolve(substrate, inputs)


# The equations as the paper prints them, layer by layer.


def weighted_sums(net, outputs, u):
    """S (W_ext y_below + W_int y_own + b) of every layer; outputs is a list with one array a layer."""
    ends = np.cumsum(LAYERS)
    W, totals = net.connections.weights, []
    for layer, (end, size) in enumerate(zip(ends, LAYERS, strict=True)):
        rows = slice(end - size, end)
        below = slice(end - size - LAYERS[layer - 1], end - size)
        external = net.connections.input_weights[rows] @ u if layer == 0 else W[rows, below] @ outputs[layer - 1]
        internal = W[rows, rows] @ outputs[layer]
        totals.append(net.amplification[rows] * (external + internal + net.connections.bias[rows]))
    return totals


def split(values):
    return jnp.split(values, np.cumsum(LAYERS)[:-1])


def spintronic_slope(t, state, arguments):
    net, u = arguments
    x, y = state
    totals = jnp.concatenate(weighted_sums(net, split(y), u))
    dx = -net.damping_rate * (1 + net.nonlinear_damping * x) * x + (totals + net.fixed_bias) * x * (1 - x)
    return dx, -net.cutoff_frequency * y + dx


def recurrent_slope(t, x, arguments):
    net, u = arguments
    return -net.damping_rate * x + jnp.concatenate(weighted_sums(net, split(jnp.tanh(x)), u))


@eqx.filter_jit
def solved(net, inputs):
    """States after every interval, each solved by itself, as the drive jumps in between."""
    spintronic = isinstance(net, SpintronicNetwork)
    slope = spintronic_slope if spintronic else recurrent_slope
    start = (net.initial_power, jnp.zeros_like(net.initial_power)) if spintronic else jnp.zeros_like(net.damping_rate)

    def one(state, u):
        state = diffrax.diffeqsolve(
            diffrax.ODETerm(slope),  # pyright: ignore[reportArgumentType]
            diffrax.Dopri5(),
            0.0,
            net.interval,
            0.05,
            state,
            (net, u),
            stepsize_controller=diffrax.PIDController(rtol=1e-10, atol=1e-10),
            saveat=diffrax.SaveAt(t1=True),
            adjoint=diffrax.ForwardMode(),
        ).ys
        state = jax.tree.map(lambda leaf: leaf[-1], state)
        return state, state

    return jax.lax.scan(one, start, inputs)[1]


CASES = pytest.mark.parametrize(
    ("kind", "options"),
    [
        (SpintronicNetwork, {"nonlinear_damping": 0.0}),
        (SpintronicNetwork, {"nonlinear_damping": 2.0}),
        (ContinuousTimeRecurrentNetwork, {}),
    ],
)


@pytest.mark.slow
@CASES
def test_runge_kutta_solves_the_printed_equations(kind, options):
    net = network(kind, **options)
    states = jax.tree.map(np.asarray, solved(net, INPUTS))
    outputs, last = run(net.integrated_by("runge-kutta", 4, INTERVAL / 32), INPUTS)
    for a, b in zip(*map(jax.tree.leaves, (last, states)), strict=True):
        np.testing.assert_allclose(a, b[-1], rtol=0, atol=1e-8)
    expected = states[1] if kind is SpintronicNetwork else np.tanh(states)
    np.testing.assert_allclose(outputs, expected, rtol=0, atol=1e-8)
    assert np.max(np.abs(expected)) > 0.1  # neurons that hardly move would agree with anything


@pytest.mark.slow
@CASES
@pytest.mark.parametrize("order", [1, 2])
def test_exponential_scheme_converges_to_them_with_its_order(kind, options, order):
    net = network(kind, **options).integrated_by("exponential", order)
    expected = jax.tree.map(np.asarray, solved(net, INPUTS))
    expected = expected[1] if kind is SpintronicNetwork else np.tanh(expected)

    def error(steps):
        # Inputs held for several short intervals, with rows to spare: one compilation for all lengths of a step.
        short = eqx.tree_at(lambda n: n.interval, net, net.interval / steps)
        outputs, _ = run(short, np.resize(np.repeat(INPUTS, steps, axis=0), (32 * len(INPUTS), 2)))
        return np.max(np.abs(outputs[steps - 1 : steps * len(INPUTS) : steps] - expected))

    coarse, fine = error(16), error(32)
    assert 2**order * 0.85 < coarse / fine < 2**order * 1.15
    assert fine < (0.02 if order == 1 else 1e-3)


# Connections.


def test_counts_of_the_paper():
    connections = Connections.random((32, 32, 32), key=KEY)
    assert connections.synapses + 320 == 2896
    assert connections.synapses == 16 + 3 * 512 + 2 * 512
    reader = WithReadout(SpintronicNetwork(connections), np.zeros((10, 32)), np.zeros(10))
    assert {item.part: item.number for item in reader.consumption()} == {"neuron": 96, "synapse": 2896}


@pytest.mark.slow
@pytest.mark.parametrize(("between", "inside"), [(0.0, 1.0), (1.0, 0.0), (0.3, 0.7)])
def test_only_neighbours_are_connected_and_densities_are_exact(between, inside):
    connections = Connections.random(
        LAYERS, inputs=2, interlayer_density=between, intralayer_density=inside, scale=2.0, key=KEY
    )
    layer = np.repeat(np.arange(3), LAYERS)
    sizes = np.array(LAYERS)
    exists = np.asarray(connections.weights) != 0
    for to in range(3):
        for sender in range(3):
            block = exists[np.ix_(layer == to, layer == sender)]
            density = inside if to == sender else between if to == sender + 1 else 0.0
            assert block.sum() == round(density * block.size)
    assert np.count_nonzero(connections.input_weights[:5]) == round(between * 10)
    assert not np.any(connections.input_weights[5:])
    assert connections.synapses == exists.sum() + np.count_nonzero(connections.input_weights)
    fan_in = np.broadcast_to(sizes[layer], exists.shape)  # of the layer that sends
    assert np.all(np.abs(connections.weights) <= 2.0 / np.sqrt(fan_in))
    driven_by = np.array([2, *LAYERS])[layer]
    assert np.all(np.abs(connections.bias) <= 2.0 / np.sqrt(driven_by))
    assert np.max(np.abs(connections.bias) * np.sqrt(driven_by)) > 1.0


@pytest.mark.slow
@BOTH
def test_weights_without_synapse_do_nothing_and_have_no_gradient(kind):
    net = network(kind)
    c = net.connections
    full = Connections(LAYERS, c.weights + ~c.mask, c.input_weights - 1.0 * ~c.input_mask, c.bias,
                       mask=c.mask, input_mask=c.input_mask)  # fmt: skip
    everywhere = eqx.tree_at(lambda n: n.connections, net, full)

    @eqx.filter_jit
    @eqx.filter_value_and_grad
    def loss(net):
        return jnp.sum(evolve(net, INPUTS)[0] ** 2)

    value, gradient = loss(everywhere)
    assert value == loss(net)[0]
    for name in ("weights", "input_weights"):
        exists = np.asarray(getattr(full, "mask" if name == "weights" else "input_mask"))
        leaf = np.asarray(getattr(gradient.connections, name))
        np.testing.assert_array_equal(leaf[~exists], 0.0)
        assert np.all(leaf[exists] != 0)


# Limits with a known answer.


@pytest.mark.parametrize("scheme", [("exponential", 2), ("runge-kutta", 4)])
def test_an_isolated_oscillator_rests_at_one_half(scheme: tuple[Method, int]):
    alone = SpintronicNetwork(unconnected(3)).integrated_by(*scheme)
    _, state = run(alone, 3 * INPUTS[:, :1])
    np.testing.assert_allclose(state.power, 0.5, rtol=1e-13)
    np.testing.assert_allclose(state.filtered, 0.0, atol=1e-13)


def test_an_isolated_oscillator_finds_its_resting_point_and_the_filter_forgets():
    Q = np.array([0.0, 0.5, 2.0, 6.0])
    start = np.array([0.01, 0.3, 0.9, 1.0])
    alone = SpintronicNetwork(
        unconnected(4), nonlinear_damping=Q, initial_power=start, interval=10.0, cutoff_frequency=20 * MHz
    )
    _, state = run(alone, np.zeros(60))
    np.testing.assert_allclose(state.power, 1 / (2 + Q), rtol=1e-12)  # (I - gamma) / (I + gamma Q) with I = 2 gamma
    np.testing.assert_allclose(state.filtered, 0.0, atol=1e-12)


@pytest.mark.slow
def test_without_cutoff_the_filter_passes_all_changes():
    net = network(SpintronicNetwork, cutoff_frequency=0.0)
    schemes: tuple[tuple[Method, int], ...] = (("exponential", 2), ("runge-kutta", 3))
    for scheme in schemes:
        _, state = run(net.integrated_by(*scheme), INPUTS)
        np.testing.assert_allclose(state.filtered, state.power - net.initial_power, atol=1e-14)


@eqx.filter_jit
def powers_of(net, inputs):
    step = net.stepper()

    def one(state, u):
        state = step(state, u)
        return state, state.power

    return jax.lax.scan(one, net.initial_state(), inputs)[1]


@pytest.mark.slow
def test_a_chip_with_any_mismatch_stays_in_range():
    network = SpintronicNetwork.random((8, 8), observed="states", scale=50.0, key=KEY)
    chip = mismatch(network, devices=1.0, weights=1.0, key=KEY)
    assert chip.initial_power.max() > 1
    powers, _ = evolve(chip, 16 * jax.random.normal(KEY, (200,)))
    assert 0 <= powers.min() <= powers.max() <= 1


@pytest.mark.slow
@pytest.mark.parametrize("precise", [False, True])
def test_powers_stay_in_range_for_huge_weights(precise):
    with jax.enable_x64(precise):
        net = network(SpintronicNetwork)
        for factor in (10.0, 1e3, 1e5):
            huge = eqx.tree_at(lambda n: n.connections.weights, net, factor * net.connections.weights)
            huge = eqx.tree_at(lambda n: n.connections.input_weights, huge, factor * net.connections.input_weights)
            powers = np.asarray(powers_of(huge, np.sin(np.arange(40.0))[:, None] * np.ones(2)))
            assert np.isfinite(powers).all()
            assert powers.min() >= 0
            assert powers.max() <= 1
            assert np.ptp(powers) > 0.9


# Gradients.


@pytest.mark.slow
@BOTH
def test_gradients_agree_with_finite_differences_for_every_leaf(kind):
    net = network(kind)

    def loss(net, segment=None):
        outputs, _ = evolve(net, INPUTS, segment=segment)
        return jnp.sum(jnp.sin(3 * outputs) * jnp.arange(1, 13))

    value = eqx.filter_jit(loss)
    gradient = eqx.filter_jit(eqx.filter_grad(loss))(net)
    leaves, rest = select(net, "weight", "device")
    flat, structure = jax.tree.flatten(leaves)
    assert len(flat) == (9 if kind is SpintronicNetwork else 5)
    eps = 1e-5
    for index, slope in enumerate(jax.tree.leaves(select(gradient, "weight", "device")[0])):
        direction = np.random.default_rng(index).normal(size=flat[index].shape) * flat[index]

        def moved(by, index=index, direction=direction):
            changed = [leaf + by * direction if i == index else leaf for i, leaf in enumerate(flat)]
            return value(eqx.combine(jax.tree.unflatten(structure, changed), rest))

        expected = (moved(eps) - moved(-eps)) / (2 * eps)
        assert abs(expected) > 1e-6
        np.testing.assert_allclose(jnp.vdot(slope, direction), expected, rtol=1e-6, atol=1e-9)
    if kind is SpintronicNetwork:
        segmented = eqx.filter_jit(eqx.filter_grad(partial(loss, segment=3)))(net)
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-13), segmented, gradient)


# Stacks, precision.


@pytest.mark.slow
def test_a_stack_is_followed_by_another_scheme_at_once():
    net = network(SpintronicNetwork)
    stack = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), eqx.filter(net, eqx.is_array))
    stack = eqx.tree_at(lambda n: n.interval, stack, jnp.array([INTERVAL, INTERVAL / 2]))
    with pytest.raises(ValueError, match="must be a multiple of it"):
        stack.integrated_by("runge-kutta", 2, INTERVAL / 2)  # one number of steps for all members
    weights, factors = stack.connections.weights, jnp.array([1.0, 0.5])[:, None, None]
    stack = eqx.tree_at(
        lambda n: (n.interval, n.connections.weights), stack, (jnp.full(2, INTERVAL), weights * factors)
    )
    stack = stack.integrated_by("runge-kutta", 2, INTERVAL / 2)
    assert (stack.scheme.method, stack.scheme.order, stack.scheme.sub_steps) == ("runge-kutta", 2, 2)
    many = eqx.filter_jit(eqx.filter_vmap(lambda net: evolve(net, INPUTS)[0]))(stack)
    alone = run(net.integrated_by("runge-kutta", 2, INTERVAL / 2), INPUTS)[0]
    np.testing.assert_allclose(many[0], alone, rtol=1e-11, atol=1e-15)
    assert not np.allclose(many[0], many[1])


@pytest.mark.slow
def test_drawing_and_running_many_at_once():
    def drawn(key):
        net = SpintronicNetwork.random((4,), inputs=2, key=key)
        return evolve(net, INPUTS)[0], jnp.sum(net.connections.weights != 0)

    keys = jax.random.split(KEY, 3)
    many, synapses = jax.jit(jax.vmap(drawn))(keys)
    np.testing.assert_allclose(many[1], jax.jit(drawn)(keys[1])[0], rtol=1e-11, atol=1e-15)
    np.testing.assert_array_equal(synapses, 8)
    assert not np.allclose(many[0], many[1])


@pytest.mark.slow
@BOTH
def test_single_precision_stays_single_and_agrees(kind):
    with jax.enable_x64(False):
        single = network(kind)
        outputs, state = run(single, INPUTS)
    assert {leaf.dtype for leaf in jax.tree.leaves((outputs, state))} == {np.dtype(np.float32)}
    double = jax.tree.map(lambda leaf: jnp.asarray(leaf, float) if eqx.is_inexact_array(leaf) else leaf, single)
    np.testing.assert_allclose(outputs, run(double, INPUTS)[0], atol=2e-6)


# Readout, and what is returned.


@pytest.mark.slow
def test_a_readout_is_linear_with_the_gradient_of_one():
    net = network(SpintronicNetwork)
    reader = WithReadout(net, np.random.default_rng(2).normal(size=(2, 12)), np.array([0.5, -0.5]))
    outputs, read = run(reader, INPUTS)[0], run(net, INPUTS)[0]
    assert outputs.shape == (6, 2)
    np.testing.assert_allclose(outputs, read @ reader.weights.T + reader.bias, rtol=1e-12)
    gradient = eqx.filter_jit(eqx.filter_grad(lambda r: evolve(r, INPUTS, observe="last")[0][1]))(reader)
    np.testing.assert_allclose(gradient.weights, [np.zeros(12), read[-1]], rtol=1e-12)
    np.testing.assert_array_equal(gradient.bias, [0, 1])
    synapses = net.connections.synapses + 2 * 12
    assert {item.part: item.number for item in reader.consumption()} == {"neuron": 12, "synapse": synapses}


class Shots(Substrate):
    """A walk whose readings are random too."""

    @property
    def channels(self):
        return 2

    def initial_state(self, *, key=None):
        return jnp.zeros(3)

    def step(self, state, drive, *, key=None):
        assert key is not None
        return state + jnp.sum(drive) + jax.random.normal(key, (3,))

    def observe(self, state, *, key=None):
        assert key is not None
        return state + jax.random.normal(key, (3,))


@pytest.mark.slow
@pytest.mark.parametrize("make", [Shots, lambda: Noisy(network(SpintronicNetwork), 0.05)])
def test_the_last_observation_is_that_of_every(make):
    every, end = evolve(make(), INPUTS, key=KEY)
    last, same_end = evolve(make(), INPUTS, key=KEY, observe="last")
    np.testing.assert_allclose(last, every[-1], rtol=1e-13)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-13), same_end, end)


# Refusals.


def connections(layers=(2, 1), **changes):
    arrays = {"weights": np.ones((3, 3)), "input_weights": np.ones((3, 1)), "bias": np.zeros(3)}
    return Connections(layers, **(arrays | changes))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Connections.random((2, 2), interlayer_density=1.1, key=KEY), "interlayer_density is 1.1; .* <= 1"),
        (lambda: Connections.random((2, 2), intralayer_density=-0.1, key=KEY), "intralayer_density is -0.1; .* >= 0"),
        (lambda: Connections.random((2, 2), scale=-1.0, key=KEY), "scale is -1.0"),
        (lambda: Connections.random((2, 2), inputs=0, key=KEY), "inputs is 0"),
        (lambda: connections(()), "layers is empty"),
        (lambda: connections((3, 0)), "layers is 0; it must be a whole number >= 1"),
        (lambda: connections(weights=jnp.ones((3, 3)).at[1, 2].set(jnp.nan)), r"weights\[1, 2\] is nan"),
        (lambda: connections(weights=jnp.ones((2, 3))), r"weights has shape \(2, 3\); it must be \(3, 3\)"),
        (lambda: connections(bias=jnp.full(3, jnp.inf)), r"bias\[0\] is inf"),
        (lambda: connections(mask=jnp.ones((3, 2), bool)), r"mask has shape \(3, 2\)"),
        (lambda: SpintronicNetwork(connections(), damping_rate=0.0), "damping_rate is 0.0; it must be > 0"),
        (lambda: SpintronicNetwork(connections(), interval=0.0), "interval is 0.0; it must be > 0"),
        (lambda: SpintronicNetwork(connections(), time_step=-0.5), "time_step is -0.5; it must be > 0"),
        (lambda: SpintronicNetwork(connections(), time_step=0.3), "time_step is 0.3; .* must be a multiple"),
        (lambda: SpintronicNetwork(connections(), time_step=2.0), "time_step is 2; .* must be a multiple"),
        (lambda: SpintronicNetwork(connections(), order=3), "order of method 'exponential' is 3; .* 1, 2"),
        (lambda: SpintronicNetwork(connections(), method="runge-kutta", order=5), "order of method 'runge-kutta' is 5"),
        (lambda: SpintronicNetwork(connections()).integrated_by("leapfrog", 2), "method is 'leapfrog'"),  # pyright: ignore
        (lambda: SpintronicNetwork(connections(), nonlinear_damping=-1.0), "nonlinear_damping is -1.0; .* >= 0"),
        (lambda: SpintronicNetwork(connections(), initial_power=0.0), "initial_power is 0.0; .* > 0 and <= 1"),
        (lambda: SpintronicNetwork(connections(), cutoff_frequency=jnp.ones(2)), r"cutoff_frequency has shape \(2,\)"),
        (lambda: evolve(SpintronicNetwork(connections()), jnp.ones((4, 2))), r"one input has 2 channels, shape \(2,\)"),
        (lambda: evolve(SpintronicNetwork(connections()), jnp.ones(4), observe="all"), "observe is 'all'"),  # pyright: ignore
        (lambda: WithReadout(SpintronicNetwork(connections()), jnp.ones((2, 3)), jnp.ones(2)), r"weights has .*any, 1"),
        (lambda: WithReadout(SpintronicNetwork(connections()), jnp.ones((2, 1)), jnp.ones(3)), r"bias has shape"),
    ],
)
def test_bad_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
