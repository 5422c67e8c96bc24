"""Mackey-Glass and Lorenz series against independent integrations, and the order of the integrator."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from morphax.tasks.chaos import lorenz, mackey_glass

KEY = jax.random.key(5)
FROM_THE_START: dict[str, Any] = {"train_points": 150, "test_points": 50, "washout": 0, "transient": 0.0, "key": KEY}


def mackey_glass_reference(history, times, beta=0.2, gamma=0.1, tau=17.0):
    """The method of steps with SciPy's DOP853 and its own dense output at 1e-12."""

    def slope(t, x, before):
        delayed = before(t - tau)
        return beta * delayed / (1 + delayed**10) - gamma * x

    def before(t):
        return np.array([history])

    values = np.empty(times.shape)
    for stretch in range(int(times[-1] // tau) + 1):
        start, stop = stretch * tau, (stretch + 1) * tau
        solution = solve_ivp(
            slope, (start, stop), before(start), "DOP853", args=(before,), dense_output=True, rtol=1e-12, atol=1e-13
        )
        before = solution.sol
        here = (times >= start) & (times < stop)
        values[here] = before(times[here])[0]
    return values


@pytest.mark.usefixtures("double")
def test_mackey_glass_agrees_with_an_independent_integration():
    inputs = mackey_glass(**FROM_THE_START).train_inputs
    reference = mackey_glass_reference(float(inputs[0]), np.arange(150.0))
    np.testing.assert_allclose(inputs, reference, atol=1e-6)


@pytest.mark.usefixtures("double")
def test_mackey_glass_is_of_fourth_order():
    steps = (0.5, 0.25, 0.125)
    series = [mackey_glass(step=step, **FROM_THE_START).train_inputs for step in steps]
    reference = mackey_glass_reference(float(series[0][0]), np.arange(150.0))
    errors = [np.abs(np.asarray(one) - reference).max() for one in series]
    orders = np.log2(np.array(errors[:-1]) / np.array(errors[1:]))
    assert (orders > 3.7).all(), (errors, orders)


@pytest.mark.usefixtures("double")
def test_mackey_glass_with_other_parameters_and_sampling():
    other: dict[str, Any] = {"beta": 0.25, "gamma": 0.12, "tau": 12.0}
    inputs = mackey_glass(**FROM_THE_START, **other, sample_interval=0.5).train_inputs
    reference = mackey_glass_reference(float(inputs[0]), np.arange(0.0, 75.0, 0.5), **other)
    np.testing.assert_allclose(inputs, reference, atol=1e-6)


def test_mackey_glass_targets_are_the_points_ahead():
    task = mackey_glass((3, 1, 40), 100, 50, washout=0, key=KEY)
    whole = np.concatenate([task.train_inputs, task.test_inputs])
    targets = np.concatenate([task.train_targets, task.test_targets])
    for column, delay in enumerate((3, 1, 40)):
        np.testing.assert_array_equal(targets[:-delay, column], whole[delay:])
    assert np.isfinite(targets).all()


def test_mackey_glass_stays_on_the_known_attractor():
    inputs = mackey_glass(train_points=5000, key=KEY).train_inputs
    assert 0.2 < float(inputs.min()) < 0.5
    assert 1.2 < float(inputs.max()) < 1.4
    assert float(inputs.mean()) == pytest.approx(0.92, abs=0.03)


def test_mackey_glass_transient_is_the_start_of_the_same_series():
    late = mackey_glass(**{**FROM_THE_START, "transient": 30.0})
    np.testing.assert_allclose(late.train_inputs[:100], mackey_glass(**FROM_THE_START).train_inputs[30:130], rtol=1e-5)


@pytest.mark.usefixtures("double")
def test_lorenz_agrees_with_scipy():
    task = lorenz(horizon=7, standardise=False, **FROM_THE_START, step=0.0025)
    reference = solve_ivp(
        lambda t, s: [10 * (s[1] - s[0]), s[0] * (28 - s[2]) - s[1], s[0] * s[1] - 8 / 3 * s[2]],
        (0.0, 5.0),
        np.asarray(task.train_inputs[0]),
        "DOP853",
        t_eval=0.02 * np.arange(200),
        rtol=1e-12,
        atol=1e-12,
    ).y.T
    np.testing.assert_allclose(task.train_inputs, reference[:150], atol=1e-3)
    np.testing.assert_allclose(task.train_targets, reference[7:157], atol=1e-3)


@pytest.mark.usefixtures("double")
def test_lorenz_is_of_fourth_order():
    steps = (0.01, 0.005, 0.0025, 0.000625)
    *series, reference = (
        lorenz(standardise=False, **{**FROM_THE_START, "train_points": 60}, step=step).train_inputs for step in steps
    )
    errors = [np.abs(np.asarray(one) - np.asarray(reference)).max() for one in series]
    orders = np.log2(np.array(errors[:-1]) / np.array(errors[1:]))
    assert (np.abs(orders - 4) < 0.4).all(), (errors, orders)


def test_lorenz_is_standardised_over_the_training_inputs_only():
    raw, scaled = (lorenz(standardise=flag, train_points=400, test_points=200, key=KEY) for flag in (False, True))
    mean, spread = raw.train_inputs.mean(axis=0), raw.train_inputs.std(axis=0)
    np.testing.assert_allclose(scaled.test_targets, (raw.test_targets - mean) / spread, atol=1e-5)
    np.testing.assert_allclose(scaled.train_inputs.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(scaled.train_inputs.std(axis=0), 1, atol=1e-5)


def test_lorenz_targets_are_the_points_ahead_and_components_are_columns():
    whole = lorenz(horizon=4, train_points=100, test_points=50, washout=0, key=KEY)
    one = lorenz(horizon=4, component="z", train_points=100, test_points=50, washout=0, key=KEY)
    assert one.train_inputs.shape == (100,)
    assert one.train_targets.shape == (100, 1)
    np.testing.assert_array_equal(one.train_inputs, whole.train_inputs[:, 2])
    np.testing.assert_array_equal(one.test_targets[:, 0], whole.test_targets[:, 2])
    states = np.concatenate([whole.train_inputs, whole.test_inputs])
    targets = np.concatenate([whole.train_targets, whole.test_targets])
    np.testing.assert_array_equal(targets[:-4], states[4:])


@pytest.mark.slow
@pytest.mark.parametrize("make", [mackey_glass, lorenz])
def test_one_key_gives_one_task_and_keys_vmap(make):
    def short(key):
        return make(train_points=60, test_points=40, washout=0, transient=3.0, key=key)

    keys = jax.random.split(KEY, 3)
    many = jax.jit(jax.vmap(short))(keys)
    np.testing.assert_allclose(many.train_inputs[1], short(keys[1]).train_inputs, rtol=1e-4, atol=1e-5)
    assert not jnp.allclose(many.train_inputs[0], many.train_inputs[1], atol=1e-2)
    assert many.train_inputs.dtype == jnp.result_type(float)


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (mackey_glass, {"delays": ()}, "delays is empty"),
        (mackey_glass, {"delays": (1, 0)}, r"delays\[1\] is 0; it must be a whole number >= 1"),
        (mackey_glass, {"step": 0.0}, "step is 0.0; it must be > 0"),
        (mackey_glass, {"step": 0.3}, "tau is 17; it must be a multiple of step = 0.3"),
        (mackey_glass, {"sample_interval": 0.25}, "sample_interval is 0.25; it must be a multiple of step = 0.1"),
        (
            mackey_glass,
            {"sample_interval": 0.0},
            "sample_interval is 0; it must be a multiple of step = 0.1, at least 1",
        ),
        (mackey_glass, {"transient": -1.0}, "transient is -1.0; it must be >= 0"),
        (mackey_glass, {"beta": float("nan")}, "beta is nan; beta must be finite"),
        (mackey_glass, {"gamma": -0.1}, "gamma is -0.1; it must be > 0"),
        (mackey_glass, {"train_points": 0}, "train_points is 0"),
        (mackey_glass, {"washout": 1000}, "washout is 1000; it must be a whole number from 0 to 999"),
        (lorenz, {"horizon": 0}, "horizon is 0; it must be a whole number >= 1"),
        (lorenz, {"sample_interval": 0.025}, "sample_interval is 0.025; it must be a multiple of step = 0.01"),
        (lorenz, {"rho": 0.0}, "rho is 0.0; it must be > 0"),
        (lorenz, {"test_points": 0}, "test_points is 0"),
        (lorenz, {"rho": 0.5}, "standardise is True but component z rests or has one training point"),
        (lorenz, {"train_points": 1, "washout": 0}, "standardise is True but component x rests or has one training"),
    ],
)
def test_bad_arguments_are_refused(make, arguments, message):
    with pytest.raises(ValueError, match=message):
        make(**arguments, key=KEY)
