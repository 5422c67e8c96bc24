"""The step of an auto-oscillator against SciPy, its derivatives, and its limits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy.integrate import solve_ivp

from morphax.dynamics.logistic import SERIES_BELOW, auto_oscillator_step, relative_growth

DAMPING = 1.3
STEP = jax.jit(auto_oscillator_step)
DRIVES = np.array([-30.0, -3.0, -DAMPING, 0.0, 0.9, DAMPING - 1e-9, DAMPING, DAMPING + 1e-9, 2.0, 5.0, 40.0])
POWERS = np.array([1e-6, 0.1, 0.7, 1.0])


@pytest.mark.parametrize("nonlinear_damping", [0.0, 2.0])
@pytest.mark.parametrize("duration", [0.01, 0.7, 3.0])
@pytest.mark.usefixtures("double")
def test_closed_form_solves_the_equation(nonlinear_damping, duration):
    power, drive = (grid.ravel() for grid in np.meshgrid(POWERS, DRIVES))

    def slope(t, log_power):
        x = np.exp(log_power)
        return -DAMPING * (1 + nonlinear_damping * x) + drive * (1 - x)

    exact = np.exp(solve_ivp(slope, (0, duration), np.log(power), "DOP853", rtol=1e-12, atol=1e-13).y[:, -1])
    after = STEP(jnp.array(power), jnp.array(drive), DAMPING, nonlinear_damping, duration)
    np.testing.assert_allclose(after, exact, rtol=1e-10, atol=1e-300)


@pytest.mark.usefixtures("double")
def test_two_steps_are_one_of_twice_the_length_and_nothing_stays_nothing():
    power, drive = (jnp.asarray(grid) for grid in np.meshgrid([0.0, *POWERS], DRIVES))
    once = STEP(power, drive, DAMPING, 2.0, 1.4)
    twice = STEP(STEP(power, drive, DAMPING, 2.0, 0.7), drive, DAMPING, 2.0, 0.7)
    np.testing.assert_allclose(twice, once, rtol=1e-12)
    np.testing.assert_array_equal(once[:, 0], 0.0)


@pytest.mark.usefixtures("double")
def test_derivatives_agree_with_finite_differences_in_all_arguments():
    duration = 0.8
    near = np.array([-SERIES_BELOW, SERIES_BELOW])  # both sides of where the series takes over, decaying and growing
    growth = np.concatenate([[-30.0, -2.0], near - 1e-3, near, near + 1e-3, [-1e-7, 0.0, 1e-7, 2.0, 30.0]]) / duration
    power, drive = (jnp.asarray(grid.ravel()) for grid in np.meshgrid([0.05, 0.6, 1.0], DAMPING + growth))
    same = jnp.ones_like(power)
    arguments = (power, drive, DAMPING * same, 2.0 * same, duration * same)
    check_grads(STEP, arguments, order=1, modes=["fwd", "rev"], eps=1e-5, rtol=1e-7, atol=1e-9)
    # Scalars are broadcast, and so are their derivatives.
    scalars = (power, drive, *map(jnp.array, (DAMPING, 0.0, duration)))
    check_grads(STEP, scalars, order=1, modes=["fwd", "rev"], eps=1e-5, rtol=1e-6, atol=1e-8)


@jax.jit
@jnp.vectorize
def value_and_derivatives(*arguments):
    value, derivatives = jax.value_and_grad(auto_oscillator_step, argnums=(0, 1, 2, 3, 4))(*arguments)
    return value, *derivatives


EXTREMES = np.meshgrid(
    [1e-10, 0.1, 0.5, 1.0],
    [-1e4, -3e3, -100.0, -1.0, 0.0, 0.07, 1.0, 100.0, 3e3, 1e4],
    [0.07, 1.0],
    [0.0, 2.0],
    [1e-4, 0.01, 1.0, 10.0],
)


@pytest.mark.parametrize("precise", [False, True])
def test_any_drive_leaves_the_power_in_range_and_all_derivatives_finite(precise):
    with jax.enable_x64(precise):
        results = np.stack(value_and_derivatives(*(jnp.asarray(a) for a in EXTREMES)), axis=-1)
    assert results.dtype == (np.float64 if precise else np.float32)
    assert np.isfinite(results).all()
    assert results[..., 0].min() >= 0
    assert results[..., 0].max() <= 1


@pytest.mark.parametrize("precise", [False, True])
@pytest.mark.parametrize("power", [0.0, 1e-30, 1e-20])
def test_a_strong_drive_on_a_faded_oscillator(precise, power):
    with jax.enable_x64(precise):
        drive = jnp.array([-1e4, -100.0, 1.0, 100.0, 1e4])
        results = np.stack(value_and_derivatives(*map(jnp.asarray, (power, drive, 1.0, 0.0, 10.0))), axis=-1)
    assert np.isfinite(results[:, 0]).all()
    assert np.isfinite(results[:, 2:]).all()  # by the power itself the derivative may be too large for any number
    expected = [0, 0, power / (1 + 10 * power), 0.99, 0.9999] if power else np.zeros(5)
    np.testing.assert_allclose(results[:, 0], expected, rtol=1e-6, atol=1e-40)


@pytest.mark.parametrize("precise", [False, True])
def test_relative_growth_and_its_derivative(precise):
    y = np.concatenate([[0.0], np.logspace(-12, 2, 57), SERIES_BELOW * (1 + np.array([-1e-3, -1e-7, 0, 1e-7, 1e-3]))])
    with jax.enable_x64(precise):
        arguments = jnp.asarray(y)
        values, slopes = jax.jvp(jax.jit(relative_growth), (arguments,), (jnp.ones_like(arguments),))
        exact = np.asarray(arguments, np.float64)
    # 16-point Gauss-Legendre of the integrals over s of exp(-y s) and -s exp(-y s), on 32 panels of [0, 1].
    nodes, weights = np.polynomial.legendre.leggauss(16)
    s = ((np.arange(32)[:, None] + (nodes + 1) / 2) / 32).ravel()
    decay = np.exp(-exact[:, None] * s) * np.tile(weights / 64, 32)
    np.testing.assert_allclose(decay.sum(axis=1)[1:], -np.expm1(-exact[1:]) / exact[1:], rtol=1e-13)
    tolerance = 1e-14 if precise else 1e-6
    np.testing.assert_allclose(values, decay.sum(axis=1), rtol=tolerance)
    np.testing.assert_allclose(slopes, -(decay * s).sum(axis=1), rtol=4 * tolerance if precise else 4e-6)
