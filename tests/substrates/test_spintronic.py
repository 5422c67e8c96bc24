"""The closed form of the auto-oscillator equation against SciPy, at its limits, and its gradients; faded networks."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from jax.test_util import check_grads
from scipy.integrate import solve_ivp

from morphax.pytrees import count
from morphax.substrates.base import evolve
from morphax.substrates.layers import Connections
from morphax.substrates.reservoirs import SpinTorqueReservoir
from morphax.substrates.spintronic import SpintronicNetwork

KEY = jax.random.key(13)
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
def test_gradients_agree_with_finite_differences(drive):
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


def test_keys_vmap_precision_and_roles():
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


def in_both_precisions(function, *arguments):
    """Results of a function of the same single-precision numbers, in single and in double precision."""
    arguments = jax.tree.map(np.asarray, arguments)
    for precise, dtype in ((False, np.float32), (True, np.float64)):
        with jax.enable_x64(precise):
            cast = jax.tree.map(lambda x, d=dtype: jnp.asarray(x, d if x.dtype.kind == "f" else x.dtype), arguments)
            yield jax.tree.map(np.asarray, eqx.filter_jit(function)(*cast))


def test_an_oscillator_of_a_network_comes_back_however_far_it_has_faded():
    alone = Connections((1,), np.zeros((1, 1)), np.ones((1, 1)), np.zeros(1))
    network = SpintronicNetwork(alone, damping_rate=1.0, amplification=1.0, interval=10.0, measured="states")
    drives = np.concatenate([np.full(50, -30.0), np.zeros(20)])  # to exp(-14,500) of its power
    single, double = in_both_precisions(lambda network, drives: evolve(network, drives)[0][:, 0], network, drives)
    assert single[49] < 1e-30
    np.testing.assert_allclose(single, double, rtol=1e-4, atol=1e-37)
    assert single[-1] == pytest.approx(0.5)


def test_gradients_of_a_long_interval_are_those_of_double_precision():
    def gradients(network, inputs, intervals):
        def loss(network, interval):
            network = eqx.tree_at(lambda n: n.interval, network, interval)
            return jnp.sum(jax.vmap(lambda u: evolve(network, u, observe="last")[0])(inputs) ** 2)

        def gradient(interval):
            return ravel_pytree(eqx.filter(eqx.filter_grad(loss)(network, interval), eqx.is_inexact_array))[0]

        return jax.lax.map(gradient, intervals)

    network = SpintronicNetwork.random((16, 16), scale=8.0, key=KEY)
    inputs = 4 * np.random.default_rng(0).normal(size=(2, 64))
    single, double = in_both_precisions(gradients, network, inputs, np.array([1.0, 10.0, 30.0, 50.0]))
    errors = np.linalg.norm(single - double, axis=1) / np.linalg.norm(double, axis=1)
    assert errors.max() < 1e-4


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
def test_bad_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
