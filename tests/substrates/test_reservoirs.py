"""The ReLU reservoir by hand, the echo-state property and spectral radius, spin-torque oscillators against SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy.integrate import solve_ivp

from morphax.pytrees import count
from morphax.substrates.base import evolve
from morphax.substrates.reservoirs import EchoStateNetwork, ReLUReservoir, SpinTorqueReservoir, spectral_radius_of

KEY = jax.random.key(11)


def test_relu_reservoir_by_hand():
    reservoir = ReLUReservoir(jnp.array([[1.0, 0.0], [-2.0, 1.0]]), jnp.array([[0.0, 3.0], [1.0, 1.0]]))
    outputs, state = evolve(reservoir, jnp.array([[1.0, 2.0], [-1.0, 0.5], [0.0, -4.0]]))
    np.testing.assert_allclose(outputs, [[1.0, 0.0], [5.0, 5.5], [1.5, 0.0]])
    np.testing.assert_array_equal(state.previous, [0.0, -4.0])


@pytest.mark.parametrize("memory", ["vector", "square"])
def test_relu_reservoir_remembers_exactly_one_input(memory):
    reservoir = ReLUReservoir.random(30, memory=memory, key=KEY)
    drives = jax.random.normal(KEY, (6,))
    derivative = jax.jacobian(lambda drives: evolve(reservoir, drives)[0][-1])(drives)
    assert (np.abs(derivative).max(axis=0) > 0).tolist() == [False, False, False, False, True, True]


def test_relu_reservoir_square_memory_acts_on_the_distributed_input():
    reservoir = ReLUReservoir.random(400, inputs=1, memory="square", scale=2.0, key=KEY)
    assert reservoir.memory_weights.shape == (400, 1)
    # sum of 400 products of uniform numbers of variance 1/3 and (2^2)/3, divided by the root of 400: variance 4/9
    assert float(reservoir.memory_weights.var()) == pytest.approx(4 / 9, rel=0.25)


def test_scale_multiplies_the_outputs():
    drives = jax.random.normal(KEY, (20,))
    for memory in ("vector", "square"):
        small, large = (ReLUReservoir.random(5, scale=scale, memory=memory, key=KEY) for scale in (1.0, 3.0))
        np.testing.assert_allclose(3 * evolve(small, drives)[0], evolve(large, drives)[0], rtol=1e-5)


def test_echo_state_network_obeys_its_equation():
    network = EchoStateNetwork.random(7, inputs=2, leak_rate=0.3, key=KEY)
    drives = np.asarray(jax.random.normal(KEY, (5, 2)))
    W_in, W, b = (np.asarray(a) for a in (network.input_weights, network.recurrent_weights, network.bias))
    state, expected = np.zeros(7), []
    for drive in drives:
        state = 0.7 * state + 0.3 * np.tanh(W_in @ drive + W @ state + b)
        expected.append(state)
    np.testing.assert_allclose(evolve(network, jnp.asarray(drives))[0], expected, atol=1e-6)


@pytest.mark.parametrize("leak_rate", [1.0, 0.3])
def test_echo_state_network_forgets_where_it_started(leak_rate):
    network = EchoStateNetwork.random(80, spectral_radius=0.8, leak_rate=leak_rate, key=KEY)
    drives = jax.random.normal(KEY, (400,))
    ends = [evolve(network, drives, state=start * jnp.ones(80))[1] for start in (-1.0, 1.0)]
    np.testing.assert_allclose(ends[0], ends[1], atol=1e-6)


def test_echo_state_network_of_large_radius_does_not_forget():
    network = EchoStateNetwork.random(80, spectral_radius=3.0, bias_scale=0.0, key=KEY)
    ends = [evolve(network, jnp.zeros(400), state=start * jnp.ones(80))[1] for start in (-0.1, 0.1)]
    assert float(jnp.abs(ends[0] - ends[1]).max()) > 0.1


@pytest.mark.slow
@pytest.mark.parametrize(("neurons", "density"), [(1, 1.0), (20, 1.0), (200, 1.0), (200, 0.05)])
@pytest.mark.usefixtures("double")
def test_spectral_radius_is_what_was_asked_for(neurons, density):
    network = EchoStateNetwork.random(neurons, spectral_radius=0.7, density=density, key=KEY)
    assert np.abs(np.linalg.eigvals(network.recurrent_weights)).max() == pytest.approx(0.7, rel=1e-6)
    present = float((network.recurrent_weights != 0).mean())
    assert present == pytest.approx(density, abs=4 * np.sqrt(density * (1 - density)) / neurons + 1e-9)


def test_spectral_radius_in_single_precision_and_under_vmap():
    keys = jax.random.split(KEY, 5)
    matrices = jax.vmap(lambda key: jax.random.normal(key, (60, 60)))(keys)
    expected = np.abs(np.linalg.eigvals(np.asarray(matrices, np.float64))).max(axis=-1)
    np.testing.assert_allclose(jax.jit(jax.vmap(spectral_radius_of))(matrices), expected, rtol=1e-5)


def test_spectral_radius_of_special_matrices():
    assert float(spectral_radius_of(jnp.array([[0.0, 1.0], [0.0, 0.0]]))) == 0
    assert float(spectral_radius_of(jnp.array([[1.0, 5.0], [0.0, 1.0]]))) == pytest.approx(1, rel=1e-5)
    assert float(spectral_radius_of(jnp.diag(jnp.array([1e-8, -3e-8])))) == pytest.approx(3e-8, rel=1e-5)


def test_nilpotent_network_is_left_as_drawn():
    network = EchoStateNetwork.random(6, density=1e-6, key=KEY)
    assert not network.recurrent_weights.any()  # and no NaN from dividing by a spectral radius of 0


def test_gradient_of_the_leak_rate_agrees_with_finite_differences():
    with jax.enable_x64(True):
        network = EchoStateNetwork.random(10, key=KEY)
        drives = jax.random.normal(KEY, (15,))

        def total(leak_rate):
            same = EchoStateNetwork(network.input_weights, network.recurrent_weights, network.bias, leak_rate)
            return evolve(same, drives)[0].sum()

        slope = (total(0.5 + 1e-6) - total(0.5 - 1e-6)) / 2e-6
        assert float(jax.grad(total)(jnp.array(0.5))) == pytest.approx(float(slope), rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [ReLUReservoir, EchoStateNetwork])
def test_keys_vmap_and_nothing_is_trained(kind):
    drives = jnp.sin(jnp.arange(12.0))

    def run(key):
        return evolve(kind.random(9, key=key), drives)[0]

    keys = jax.random.split(KEY, 3)
    many = jax.jit(jax.vmap(run))(keys)
    assert many.shape == (3, 12, 9)
    np.testing.assert_allclose(many[2], run(keys[2]), atol=1e-5)
    reservoir = kind.random(9, key=KEY)
    assert count(reservoir, "weight") == 0
    assert count(reservoir, "device") == sum(leaf.size for leaf in jax.tree.leaves(reservoir))


@pytest.mark.parametrize("kind", [ReLUReservoir, EchoStateNetwork])
def test_precision_follows_jax(kind):
    assert evolve(kind.random(3, key=KEY), jnp.ones(4))[0].dtype == jnp.float32
    with jax.enable_x64(True):
        assert evolve(kind.random(3, key=KEY), jnp.ones(4))[0].dtype == jnp.float64


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ReLUReservoir.random(0, key=KEY), "neurons is 0; it must be a whole number >= 1"),
        (lambda: ReLUReservoir.random(2, inputs=0, key=KEY), "inputs is 0; it must be a whole number >= 1"),
        (lambda: ReLUReservoir.random(2, scale=0.0, key=KEY), "scale is 0.0; it must be > 0"),
        (lambda: ReLUReservoir(jnp.ones(3), jnp.ones(3)), r"input_weights has shape \(3,\)"),
        (lambda: ReLUReservoir(jnp.ones((3, 1)), jnp.ones((3, 3))), r"memory_weights has shape \(3, 3\)"),
        (lambda: ReLUReservoir(jnp.full((3, 1), jnp.nan), jnp.ones((3, 1))), r"input_weights\[0, 0\] is nan"),
        (lambda: EchoStateNetwork.random(0, key=KEY), "neurons is 0"),
        (lambda: EchoStateNetwork.random(3, spectral_radius=-0.1, key=KEY), "spectral_radius is -0.1; it must be >= 0"),
        (lambda: EchoStateNetwork.random(3, density=0.0, key=KEY), "density is 0.0; it must be > 0 and <= 1"),
        (lambda: EchoStateNetwork.random(3, leak_rate=1.5, key=KEY), "leak_rate is 1.5; it must be > 0 and <= 1"),
        (lambda: EchoStateNetwork.random(3, bias_scale=-1.0, key=KEY), "bias_scale is -1.0; it must be >= 0"),
        (lambda: EchoStateNetwork(jnp.ones((3, 1)), jnp.ones((2, 2)), jnp.ones(3)), "recurrent_weights has shape"),
        (lambda: EchoStateNetwork(jnp.ones((3, 1)), jnp.ones((3, 3)), jnp.ones(2)), "bias has shape"),
        (
            lambda: evolve(ReLUReservoir.random(3, key=KEY), jnp.ones((4, 2))),
            r"one input has 2 channels, shape \(2,\)",
        ),
        (
            lambda: evolve(EchoStateNetwork.random(3, inputs=2, key=KEY), jnp.ones(4)),
            "one input has 1 channel, .* takes 2 channels",
        ),
    ],
)
def test_bad_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# Spin-torque oscillators: the closed form of their equation against SciPy, at its limits, and its gradients.

CURRENTS = np.array([-30.0, -3.0, -1.0, 0.0, 0.9, 1.0 - 1e-9, 1.0, 1.0 + 1e-9, 1.1, 2.0, 3.0, 40.0])


def reservoir(**options):
    return SpinTorqueReservoir(jnp.ones((CURRENTS.size, 1)), bias_current=CURRENTS, **options)


def integrated(device, drives):
    """Equation 13 as printed, one interval after the other, by SciPy's DOP853 for the logarithm of the power."""
    fields = (device.damping_rate, device.nonlinearity, device.efficiency, device.bias_current)
    Gamma, Q, sigma, bias = (np.asarray(field) for field in fields)
    log_power, powers = np.log(np.asarray(device.initial_power)), []
    for drive in drives:
        I = bias + np.asarray(device.input_weights) @ np.atleast_1d(drive)  # noqa: E741

        def slope(t, log_power, I=I):  # noqa: E741
            p = np.exp(log_power)
            return 2 * (-Gamma * (1 + Q * p) + sigma * I * (1 - p))

        log_power = solve_ivp(slope, (0, device.interval), log_power, "DOP853", rtol=1e-12, atol=1e-13).y[:, -1]
        powers.append(np.exp(log_power))
    return np.array(powers)


@pytest.mark.parametrize("interval", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("initial_power", [1e-6, 0.1, 1.0])
@pytest.mark.usefixtures("double")
def test_closed_form_solves_the_equation(interval, initial_power):
    device = reservoir(interval=interval, initial_power=initial_power)
    drives = jnp.array([0.0, 1.0, -1.0, 0.7, -0.7])
    np.testing.assert_allclose(evolve(device, drives)[0], integrated(device, drives), rtol=1e-10, atol=1e-300)


@pytest.mark.usefixtures("double")
def test_units_and_devices_that_differ():
    rates = np.linspace(0.002, 0.02, CURRENTS.size)
    device = reservoir(damping_rate=rates, nonlinearity=rates * 100, efficiency=0.01, interval=80.0)
    drives = jnp.array([0.2, -0.5, 0.9])
    np.testing.assert_allclose(evolve(device, drives)[0], integrated(device, drives), rtol=1e-10, atol=1e-300)


@pytest.mark.usefixtures("double")
def test_only_products_with_the_interval_matter():
    fast = reservoir(interval=3.0)
    slow = reservoir(damping_rate=0.01, interval=300.0)  # efficiency follows the damping: currents in threshold units
    drives = jax.random.uniform(KEY, (20,))
    np.testing.assert_allclose(evolve(fast, drives)[0], evolve(slow, drives)[0], rtol=1e-9)


def test_at_threshold_the_power_decays_hyperbolically():
    device = SpinTorqueReservoir(jnp.zeros((1, 1)), bias_current=1.0, initial_power=0.5, interval=0.7)
    powers = evolve(device, jnp.zeros(50))[0][:, 0]
    times = 0.7 * np.arange(1, 51)
    np.testing.assert_allclose(powers, 0.5 / (1 + 2 * 3 * 0.5 * times), rtol=1e-5)  # dp/dt = -2 s p^2 with s = 1 + Q


@pytest.mark.parametrize("interval", [1e-6, 1.0, 1e4])
def test_power_stays_in_range_for_any_drive(interval):
    device = reservoir(interval=interval, initial_power=1.0)
    drives = jnp.array([0.0, 1e4, -1e4, 0.0, 1e6, -1e6, 1.0, -1.0])
    powers = np.asarray(evolve(device, drives)[0])
    assert np.isfinite(powers).all()
    assert powers.min() >= 0
    assert powers.max() <= 1


def test_an_oscillator_comes_back_from_below_the_smallest_number():
    device = SpinTorqueReservoir(jnp.ones((1, 1)), bias_current=0.0, interval=1.0)
    powers = evolve(device, jnp.array([-200.0, 50.0, 50.0, 50.0, 50.0, 50.0]))[0][:, 0]
    assert float(powers[0]) == 0  # e^-404 is no single-precision number, but its logarithm is the state
    assert float(powers[-1]) == pytest.approx(49 / 52, rel=1e-5)


def test_rest_is_the_known_fixed_point():
    device = reservoir(interval=200.0)
    above = CURRENTS > 1.05
    expected = (CURRENTS - 1) / (CURRENTS + 2)
    np.testing.assert_allclose(evolve(device, jnp.zeros(3))[0][-1][above], expected[above], rtol=1e-5)


@pytest.mark.parametrize("drive", [0.0, 0.5, -2.0])
@pytest.mark.usefixtures("double")
def test_gradients_of_spin_torque_oscillators_agree_with_finite_differences(drive):
    def final(bias, damping_rate, nonlinearity, initial_power, drive):
        device = SpinTorqueReservoir(
            jnp.ones((CURRENTS.size, 1)),
            bias_current=bias,
            damping_rate=damping_rate,
            nonlinearity=nonlinearity,
            efficiency=1.0,
            initial_power=initial_power,
        )
        return evolve(device, jnp.stack([drive, -drive]))[1]

    arguments = (jnp.asarray(CURRENTS), *map(jnp.array, (1.0, 2.0, 0.3, drive)))  # thresholds included
    check_grads(final, arguments, order=1, modes=["rev"], eps=1e-5, rtol=1e-6)


def test_gradient_is_finite_and_right_at_threshold_in_single_precision():
    def power(bias):
        device = SpinTorqueReservoir(jnp.zeros((1, 1)), bias_current=bias, efficiency=1.0, initial_power=0.5)
        return evolve(device, jnp.zeros(1))[0][0, 0]

    biases = 1 + jnp.array([-1e-3, -1e-6, 0.0, 1e-6, 1e-3])
    with jax.enable_x64(True):
        expected = jax.vmap(jax.grad(power))(jnp.asarray(biases, jnp.float64))
    np.testing.assert_allclose(jax.vmap(jax.grad(power))(biases), expected, rtol=1e-5)


def test_bias_is_common_or_weighted():
    common = SpinTorqueReservoir.random(6, bias=1.5, key=KEY)
    printed = SpinTorqueReservoir.random(6, bias=1.5, weighted_bias=True, key=KEY)
    np.testing.assert_array_equal(common.bias_current, 1.5)
    np.testing.assert_allclose(printed.bias_current, 1.5 * printed.input_weights[:, 0])
    powers = evolve(printed, jnp.ones(200))[0][-1]
    assert (np.asarray(powers)[np.asarray(printed.input_weights[:, 0]) < 0] < 1e-6).all()  # never start


def test_keys_vmap_precision_and_roles_of_spin_torque_oscillators():
    drives = jnp.sin(jnp.arange(12.0))

    def run(key):
        return evolve(SpinTorqueReservoir.random(9, key=key), drives)[0]

    keys = jax.random.split(KEY, 3)
    many = jax.jit(jax.vmap(run))(keys)
    np.testing.assert_allclose(many[2], run(keys[2]), rtol=1e-5)
    assert many.dtype == jnp.float32
    with jax.enable_x64(True):
        assert run(KEY).dtype == jnp.float64
    device = SpinTorqueReservoir.random(9, inputs=2, key=KEY)
    assert (count(device, "weight"), count(device, "device")) == (0, 9 * 7)
    assert evolve(device, jnp.ones((4, 2)))[0].shape == (4, 9)


WEIGHTS = jnp.ones((3, 1))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SpinTorqueReservoir(jnp.ones(3)), r"input_weights has shape \(3,\); it must be \(any, any\)"),
        (lambda: SpinTorqueReservoir(WEIGHTS * jnp.inf), r"input_weights\[0, 0\] is inf"),
        (lambda: SpinTorqueReservoir(WEIGHTS, bias_current=jnp.ones(2)), r"bias_current has shape \(2,\); .* \(3,\)"),
        (lambda: SpinTorqueReservoir(WEIGHTS, damping_rate=0.0), "damping_rate is 0.0; it must be > 0"),
        (lambda: SpinTorqueReservoir(WEIGHTS, nonlinearity=-1.0), "nonlinearity is -1.0; it must be >= 0"),
        (lambda: SpinTorqueReservoir(WEIGHTS, efficiency=0.0), "efficiency is 0.0; it must be > 0"),
        (lambda: SpinTorqueReservoir(WEIGHTS, initial_power=0.0), "initial_power is 0.0; it must be > 0 and <= 1"),
        (lambda: SpinTorqueReservoir(WEIGHTS, interval=0.0), "interval is 0.0; it must be > 0"),
        (lambda: SpinTorqueReservoir.random(0, key=KEY), "neurons is 0; it must be a whole number >= 1"),
        (lambda: SpinTorqueReservoir.random(2, input_scale=0.0, key=KEY), "input_scale is 0.0; it must be > 0"),
        (lambda: SpinTorqueReservoir.random(2, inputs=2, weighted_bias=True, key=KEY), "weighted_bias is True with 2"),
        (lambda: evolve(SpinTorqueReservoir(WEIGHTS), jnp.ones((4, 2))), r"one input has 2 channels, shape \(2,\)"),
    ],
)
def test_bad_spin_torque_oscillators_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
