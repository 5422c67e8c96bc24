"""Leaky integrate-and-fire neurons against closed forms, a plain simulation, statistics and finite differences."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from morphax import evolve, roles
from morphax.learning.backprop import Backpropagation
from morphax.pytrees import perturb
from morphax.substrates.spiking import SpikingNetwork, heaviside

pytestmark = pytest.mark.usefixtures("double")
KEY = jax.random.key(0)


def alone(**rest) -> SpikingNetwork:
    """One neuron that hears its only input."""
    return SpikingNetwork(jnp.zeros((1, 1)), jnp.ones((1, 1)), **rest)


def spike_trains(net: SpikingNetwork, drives) -> np.ndarray:
    return np.asarray(evolve(net, jnp.asarray(drives, float))[0])


def simulated(net: SpikingNetwork, inputs: np.ndarray) -> np.ndarray:
    """Eqs. A1 to A5 in plain loops, with a counter for the refractory time (Eqs. 22, 26, 27)."""
    h = net.time_step
    v, current = np.asarray(net.initial_state().voltage).copy(), np.zeros(net.threshold.size)
    waits, active = np.zeros(v.size, int), []
    for spikes_in in inputs:
        free = v + h / np.asarray(net.membrane_time_constant) * (net.leak_potential - v + net.resistance * current)
        current = current - h / np.asarray(net.synaptic_time_constant) * current
        free = np.where(waits > 0, v, free)
        z = (free >= net.threshold) & (waits == 0)
        v = np.where(z, net.reset_potential, free)
        current = current + net.recurrent_weights @ z + net.input_weights @ spikes_in
        active.append((z | (waits > 0)).astype(float))
        waits = np.where(z, net.refractory_steps - 1, np.maximum(waits - 1, 0))
    return np.array(active)


@pytest.mark.parametrize("refractory_steps", [1, 2, 7])
@pytest.mark.parametrize("interval", [1, 5])
def test_a_network_does_what_the_equations_say(refractory_steps, interval):
    net = SpikingNetwork.random(
        6,
        8,
        key=KEY,
        input_mean=0.1,
        leak_potential=0.2,
        reset_potential=-0.3,
        membrane_time_constant=jnp.linspace(3, 12, 6),
        refractory_steps=refractory_steps,
        steps_per_input=interval,
        resistance=1.3,
        time_step=0.5,
    )
    inputs = np.random.default_rng(1).random((200, 8)) < 0.5
    drives = inputs if interval == 1 else inputs.reshape(-1, interval, 8)
    active = spike_trains(net, drives).reshape(200, 6)
    np.testing.assert_array_equal(active, simulated(net, inputs))
    assert 0.02 < active.mean() < 0.9


def test_a_driven_neuron_fires_at_the_rate_of_its_closed_form():
    # Without input v_n = v_l (1 - a^n): it fires every n with v_l (1 - a^n) >= 1, after R - 1 steps of rest.
    for method, factor in (("euler", 0.9), ("exact", np.exp(-0.1))):
        for leak, refractory in ((1.5, 1), (1.05, 4)):
            steps = int(np.ceil(np.log(1 - 1 / leak) / np.log(factor)))
            net = alone(leak_potential=leak, refractory_steps=refractory, method=method)
            active = spike_trains(net, np.zeros((300, 1)))[:, 0]
            starts = np.flatnonzero(np.diff(active, prepend=0) > 0)
            assert np.all(np.diff(starts) == steps + refractory - 1)
            assert active[starts[1] : starts[2]].sum() == refractory


@pytest.mark.slow
def test_the_exact_step_solves_the_equations_between_spikes():
    for membrane, synapse in ((10.0, 5.0), (4.0, 7.0), (6.0, 6.0)):
        net = alone(
            membrane_time_constant=membrane,
            synaptic_time_constant=synapse,
            method="exact",
            threshold=50.0,
            leak_potential=0.4,
            resistance=2.0,
        )
        drives = np.zeros((30, 1))
        drives[0] = 3.0
        state = net.initial_state()
        for drive in drives[:20]:
            state = net.step(state, jnp.asarray(drive))
        solved = solve_ivp(
            lambda t, y, m=membrane, s=synapse: [(0.4 - y[0] + 2.0 * y[1]) / m, -y[1] / s],
            (0, 19),
            [0.4, 3.0],
            rtol=1e-11,
            atol=1e-12,
        )
        assert state.voltage[0] == pytest.approx(solved.y[0, -1], abs=1e-8)
        assert state.current[0] == pytest.approx(solved.y[1, -1], abs=1e-8)


def test_euler_approaches_the_exact_step_with_order_one():
    def end(method: str, step: float) -> float:
        net = alone(method=method, threshold=50.0, time_step=step)
        drives = np.zeros((round(16 / step), 1))
        drives[0] = 1.0
        return evolve(net, jnp.asarray(drives), observe="last")[1].voltage[0]

    errors = [abs(end("euler", h) - end("exact", h)) for h in (0.2, 0.1, 0.05)]
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.1)
    assert errors[1] / errors[2] == pytest.approx(2, rel=0.1)


def test_poisson_inputs_have_the_rate_and_no_memory():
    net = SpikingNetwork(
        jnp.zeros((2, 2)),
        jnp.eye(2),
        input_rate=jnp.array([0.3, 0.7]),
        steps_per_input=100,
        membrane_time_constant=1.0,
        synaptic_time_constant=1.0,
    )
    # With time constants of one step a neuron fires one step after its input does.
    active = np.asarray(evolve(net, jnp.ones(400), key=KEY)[0]).reshape(-1, 2)
    n = len(active)
    for spikes, rate in zip(active.T, (0.3, 0.7), strict=True):
        deviation = np.sqrt(rate * (1 - rate) / n)
        assert spikes.mean() == pytest.approx(rate, abs=4 * deviation)
        assert np.mean(spikes[1:] * spikes[:-1]) - spikes.mean() ** 2 == pytest.approx(
            0, abs=4 * rate * (1 - rate) / n**0.5
        )
    assert np.cov(active.T)[0, 1] == pytest.approx(0, abs=4 * 0.21 / n**0.5)
    halved = np.asarray(evolve(net, jnp.full(400, 0.5), key=KEY)[0]).reshape(-1, 2)
    np.testing.assert_allclose(halved.mean(0), [0.15, 0.35], atol=0.01)


@pytest.mark.parametrize("implementation", ["threefry2x32", "rbg"])
def test_certain_and_impossible_inputs(implementation):
    net = SpikingNetwork(
        jnp.zeros((3, 3)),
        jnp.eye(3),
        input_rate=jnp.array([0.0, 1.0, 0.5]),
        steps_per_input=301,
        membrane_time_constant=1.0,
        synaptic_time_constant=1.0,
    )
    spikes = np.asarray(evolve(net, jnp.ones(3), key=jax.random.key(0, impl=implementation))[0]).reshape(-1, 3)[2:]
    assert spikes[:, 0].sum() == 0
    assert spikes[:, 1].all()
    assert spikes[:, 2].mean() == pytest.approx(0.5, abs=4 * 0.5 / 900**0.5)


@pytest.mark.slow
def test_many_short_chains_have_the_statistics_of_a_long_one():
    net = SpikingNetwork.random(8, 16, key=KEY, input_rate=0.7, steps_per_input=50, input_mean=0.1, visible=3)
    run = jax.jit(lambda key, drives: evolve(net, drives, key=key)[0], static_argnums=())
    long = np.asarray(run(jax.random.key(1), jnp.ones(400))).reshape(-1, 3)
    chains = jax.vmap(run, (0, None))(jax.random.split(jax.random.key(2), 40), jnp.ones(11))
    short = np.asarray(chains).reshape(40, -1, 3)[:, 50:]
    # Standard errors from the spread of chains; four of them.
    error = np.hypot(short.mean(1).std(0) / 40**0.5, short.mean(1).std(0) / 40**0.5)
    assert np.all(np.abs(short.mean((0, 1)) - long.mean(0)) < 4 * error)


@pytest.mark.slow
def test_gradients_are_those_of_the_replaced_derivative():
    net = SpikingNetwork.random(3, 2, key=KEY, input_mean=1.0, refractory_steps=2)
    drives = jnp.asarray(np.random.default_rng(0).random((1, 12, 2)) < 0.6, float)
    weight = jax.random.normal(KEY, (12, 3))

    def loss(outputs, targets):
        return {"loss": jnp.sum(outputs[0] * weight)}

    _, gradient = Backpropagation(loss, observe="every").gradient(net, drives, jnp.zeros(1))
    exact = jax.jacfwd(lambda w: _unrolled(net, w, drives[0], weight))(net.recurrent_weights)
    np.testing.assert_allclose(gradient.recurrent_weights, exact, atol=1e-10)
    assert float(jnp.abs(gradient.recurrent_weights).max()) > 1e-3


def _unrolled(net, weights, drives, weight):
    """The same network without scan, with the derivative put in by hand as a function that has it."""

    def spike(x):
        # Value of the step, slope of the fast sigmoid.
        soft = x / (1 + net.steepness * jnp.abs(x))
        return soft + jax.lax.stop_gradient((x >= 0) - soft)

    v, current, before = net.initial_state().voltage, jnp.zeros(3), jnp.zeros(3)
    total = 0.0
    for n in range(len(drives)):
        free = v + (net.leak_potential - v + current) / net.membrane_time_constant
        waits = before > 0
        free = jnp.where(waits, v, free)
        z = jnp.where(waits, 0.0, spike(free - net.threshold))
        v = free + z * (net.reset_potential - free)
        current = current - current / net.synaptic_time_constant + weights @ z + net.input_weights @ drives[n]
        total += jnp.sum((z + before) * weight[n])
        before = z
    return total


@pytest.mark.slow
def test_checkpointed_gradients_are_the_same():
    net = SpikingNetwork.random(5, 4, key=KEY, input_rate=0.7, steps_per_input=10, input_mean=0.3)

    def rule(segment):
        return Backpropagation(lambda o, t: {"loss": jnp.mean(o**2)}, observe="every", segment=segment)

    data = (jnp.ones((2, 12)), jnp.zeros(2))
    whole = rule(None).gradient(net, *data, key=KEY)[1]
    parts = rule(3).gradient(net, *data, key=KEY)[1]
    np.testing.assert_allclose(parts.recurrent_weights, whole.recurrent_weights, atol=1e-12)


def test_the_replaced_derivative():
    x = jnp.array([-0.02, 0.0, 0.03])
    np.testing.assert_allclose(jax.vmap(jax.grad(lambda x: heaviside(x, 100.0)))(x), [1 / 9, 1.0, 1 / 16])
    assert heaviside(x, 100.0).tolist() == [0, 1, 1]


def test_rows_of_random_weights_have_the_mean_that_was_asked_for():
    net = SpikingNetwork.random(64, 128, key=KEY, input_mean=0.02, recurrent_mean=-0.01)
    np.testing.assert_allclose(net.input_weights.mean(1), 0.02, atol=1e-12)
    np.testing.assert_allclose(net.recurrent_weights.mean(1), -0.01, atol=1e-12)
    assert float(net.input_weights.std()) == pytest.approx(0.3, rel=0.02)


def test_weights_are_learned_and_time_constants_belong_to_the_device():
    net = alone(input_rate=0.5)
    found = roles(net)
    assert found.recurrent_weights == found.input_weights == "weight"
    assert found.membrane_time_constant == found.threshold == found.input_rate == "device"
    moved = perturb(net, 0.1, key=KEY)
    assert float(moved.threshold[0]) != float(net.threshold[0])


def test_noise_moves_voltages_of_those_who_do_not_wait():
    net = alone(refractory_steps=3)
    state = net.initial_state()._replace(recent=jnp.array([[1.0], [0.0]]))
    assert net.disturb(state, 0.1, key=KEY).voltage[0] == state.voltage[0]
    quiet = state._replace(recent=jnp.zeros((2, 1)))
    assert net.disturb(quiet, 0.1, key=KEY).voltage[0] != state.voltage[0]


def test_a_start_above_threshold_begins_at_the_reset_potential():
    assert float(alone(leak_potential=2.0, reset_potential=-0.5).initial_state().voltage[0]) == -0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"membrane_time_constant": 0.5}, "membrane_time_constant is 0.5; it must be >= 1"),
        ({"synaptic_time_constant": 0.9}, "synaptic_time_constant is 0.9; it must be >= 1"),
        ({"input_rate": 1.2}, "input_rate is 1.2; it must be >= 0 and <= 1"),
        ({"input_rate": 2.2, "time_step": 0.5}, "<= 2"),
        ({"threshold": -0.1}, "threshold is 0.1 below the reset potential"),
        ({"refractory_steps": 0}, "refractory_steps is 0"),
        ({"steps_per_input": 0}, "steps_per_input is 0"),
        ({"visible": 2}, "visible is 2; it must be a whole number from 1 to 1"),
        ({"method": "heun"}, "'euler', 'exact'"),
        ({"resistance": 0.0}, "resistance is 0"),
        ({"steepness": 0.0}, "steepness is 0"),
        ({"leak_potential": np.nan}, "leak_potential is nan"),
    ],
)
def test_bad_numbers_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        alone(**options)


def test_bad_shapes_and_missing_keys_are_refused():
    with pytest.raises(ValueError, match="recurrent_weights has shape"):
        SpikingNetwork(jnp.zeros((2, 2)), jnp.ones((3, 1)))
    with pytest.raises(ValueError, match="one input has 2 channels"):
        evolve(alone(), jnp.zeros((4, 2)))
    with pytest.raises(ValueError, match=r"drive has shape \(4, 1\); it must be \(5, 1\)"):
        evolve(alone(steps_per_input=5), jnp.zeros((4, 4, 1)))
    with pytest.raises(ValueError, match="Poisson inputs are random"):
        evolve(alone(input_rate=0.5), jnp.ones(4))
    with pytest.raises(ValueError, match=r"input_rate|shape"):
        eqx.filter_jit(alone)(input_rate=jnp.ones((2, 2)))
