"""The readout against closed forms, SciPy and scikit-learn's ridge."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from morphax import JosephsonMixer, Reading, answer, fit_readout, read_task
from morphax.learning.metrics import capacity, nrmse, rmse
from morphax.substrates.imperfections import mismatch
from morphax.substrates.reservoirs import EchoStateNetwork, SpinTorqueReservoir
from morphax.tasks import linear_memory, mackey_glass, waveforms

pytestmark = pytest.mark.usefixtures("double")
RANDOM = np.random.default_rng(0)
F = RANDOM.normal(size=(60, 7)) * [1, 2, 3, 1e-3, 1, 1, 5]
Y = RANDOM.normal(size=(60, 2))


def test_without_bias_the_weights_are_the_pseudo_inverse_of_equation_2():
    readout = fit_readout(F, Y, bias=False)
    assert jnp.allclose(readout.weights, Y.T @ np.linalg.pinv(F).T, atol=1e-10)
    assert jnp.all(readout.bias == 0)


def test_a_rank_deficient_problem_gets_the_minimum_norm_solution():
    doubled = jnp.concatenate([F, F], axis=1)
    expected = np.linalg.lstsq(doubled, Y)[0].T
    assert jnp.allclose(fit_readout(doubled, Y, bias=False).weights, expected, atol=1e-9)


def test_ridge_solves_its_normal_equations_and_leaves_the_bias_free():
    readout = fit_readout(F, Y, ridge=0.3)
    centred = F - F.mean(axis=0)
    penalty = 0.3 * jnp.sum(centred**2) / 7
    expected = jnp.linalg.solve(centred.T @ centred + penalty * jnp.eye(7), centred.T @ (Y - Y.mean(axis=0)))
    assert jnp.allclose(readout.weights, expected.T, atol=1e-12)
    assert jnp.allclose(readout(F).mean(axis=0), Y.mean(axis=0))


@pytest.mark.slow
def test_cross_validation_beats_the_pseudo_inverse_where_noise_rules():
    truth = jnp.zeros((1, 40)).at[0, 0].set(1)
    noisy = jnp.asarray(RANDOM.normal(size=(60, 40)))
    new = jnp.asarray(RANDOM.normal(size=(500, 40)))
    targets = noisy @ truth.T + jnp.asarray(RANDOM.normal(size=(60, 1)))
    errors = {r: rmse(fit_readout(noisy, targets, ridge=r)(new), new @ truth.T) for r in (0.0, "cross-validate")}
    assert errors["cross-validate"] < 0.85 * errors[0.0]


@pytest.mark.slow
def test_cross_validation_keeps_a_clean_linear_law():
    targets = F @ jnp.ones((7, 1)) + 3
    readout = fit_readout(F, targets, ridge="cross-validate")
    assert jnp.allclose(readout(F), targets, atol=1e-8)


@pytest.mark.slow
def test_the_readout_is_differentiable_and_batched():
    def error(features):
        return jnp.sum((fit_readout(features, Y, ridge=0.1)(features) - Y) ** 2)

    gradient = jax.grad(error)(jnp.asarray(F))
    step = 1e-6
    shift = step * np.outer(np.arange(60) == 3, np.arange(7) == 2)
    slope = (error(F + shift) - error(F - shift)) / (2 * step)
    assert np.isclose(gradient[3, 2], slope, rtol=1e-5)
    stack = jax.vmap(lambda f: fit_readout(f, Y).weights)(jnp.stack([F, 2 * F]))
    assert jnp.allclose(stack[0], 2 * stack[1])


@pytest.mark.parametrize("bias", [False, True])
def test_the_condition_number_is_that_of_the_features(bias):
    expected = np.linalg.cond(F - F.mean(axis=0) if bias else F)
    assert fit_readout(F, Y, bias=bias).condition_number == pytest.approx(expected, rel=1e-10)
    doubled = jnp.concatenate([F, F], axis=1)  # singular values that are dropped do not count
    assert fit_readout(doubled, Y, bias=bias).condition_number == pytest.approx(expected, rel=1e-8)


def test_the_noise_gain_foretells_what_noise_does():
    mixed, targets = F @ np.random.default_rng(1).normal(size=(7, 7)), F[:, 2:4]
    readout = fit_readout(mixed, targets)
    assert readout.noise_gain > 1
    for error in (1e-6, 1e-3):
        noise = error * np.sqrt(np.mean(mixed**2)) * np.random.default_rng(2).normal(size=(400, *F.shape))
        found = nrmse(jax.vmap(readout)(mixed + noise), jnp.broadcast_to(targets, (400, *targets.shape)))
        np.testing.assert_allclose(found, error * readout.noise_gain, rtol=0.05)


def test_a_reading_error_asks_for_the_ridge_with_the_least_expected_error():
    error = 0.03
    readout = fit_readout(F, Y, reading_error=error)
    centred = F - F.mean(axis=0)
    penalty = 60 * error**2 * np.mean(F**2)  # the mean of (F + noise)^T (F + noise)
    expected = np.linalg.solve(centred.T @ centred + penalty * np.eye(7), centred.T @ (Y - Y.mean(axis=0)))
    np.testing.assert_allclose(readout.weights, expected.T, atol=1e-12)
    for error in (1e-6, 1e-3, 1.0, 1e3):
        assert error * fit_readout(F, Y, reading_error=error).noise_gain <= 0.5


def oscillators() -> tuple:
    # 30 oscillators that are nearly alike: one fits the task with differences of large numbers.
    task = mackey_glass(train_points=400, test_points=200, key=jax.random.key(0))
    return SpinTorqueReservoir.random(30, key=jax.random.key(0)), task


@pytest.mark.slow
def test_a_readout_for_another_device_of_the_same_line():
    device, task = oscillators()
    reading = read_task(device, task)
    other = read_task(mismatch(device, devices=0.05, key=jax.random.key(1)), task)
    own, plain = answer(reading, task)
    assert nrmse(own, task.test_targets) < 0.1
    foreign, robust = answer(reading, task, other=other)
    assert nrmse(foreign, task.test_targets) < 0.5
    assert robust.noise_gain < 1e-4 * plain.noise_gain
    with pytest.warns(UserWarning, match="a relative reading error of 0.1.* becomes an nrmse of .* larger ridge="):
        lost, _ = answer(reading, task, other=other, ridge=0.0)
    assert nrmse(lost, task.test_targets) > 1000
    with pytest.warns(UserWarning, match="times as much as the targets of the fit"):
        np.testing.assert_array_equal(plain(other.test), lost)
    assert nrmse(robust(reading.test), task.test_targets) < 0.5


@pytest.mark.slow
def test_a_readout_for_noisy_readings():
    device, task = oscillators()
    clean, noisy = read_task(device, task), read_task(device, task, noise=3e-3, key=jax.random.key(2))
    assert 0.005 < noisy.noise / np.sqrt(np.mean(clean.train**2)) < 0.02  # about 1 %
    for outputs, _ in (answer(noisy, task), answer(clean, task, other=noisy)):
        assert nrmse(outputs, task.test_targets) < 0.5
    chosen = fit_readout(noisy.train, task.train_targets[task.washout :], ridge="cross-validate")
    np.testing.assert_array_equal(answer(noisy, task)[1].weights, chosen.weights)
    with pytest.warns(UserWarning, match="a relative reading error"):
        lost, _ = answer(clean, task, other=noisy, ridge=0.0)
    assert nrmse(lost, task.test_targets) > 1000


def test_rounding_that_is_amplified_is_told():
    with jax.enable_x64(False):
        waves = jnp.sin(jnp.arange(60.0))[:, None]
        fit_readout(waves + 1e5, waves)
        with pytest.warns(UserWarning, match="rounding becomes an nrmse"):
            fit_readout(waves + 8e6, waves)


def test_nothing_is_told_while_jax_traces():
    targets = Y[:, :1]
    near = jnp.stack([F, F], axis=0).at[..., 1].set(F[:, 0] + 1e-9 * F[:, 1])
    with pytest.warns(UserWarning, match="a relative reading error of 0.01"):
        one = fit_readout(near[0], targets, reading_error=0.01, ridge=0.0)
    many = jax.jit(jax.vmap(lambda f, e: fit_readout(f, targets, reading_error=e, ridge=0.0), (0, None)))(near, 0.01)
    np.testing.assert_allclose(many.weights[1], one.weights, rtol=1e-5)
    np.testing.assert_allclose(many.condition_number, one.condition_number, rtol=1e-5)


def test_what_does_not_vary_is_not_amplified():
    constant = fit_readout(F, np.full((60, 1), 0.1))
    assert constant.noise_gain * 1e-6 < 1
    still = fit_readout(np.full((60, 3), 0.25), Y)
    assert (still.condition_number, still.noise_gain) == (1, 0)
    np.testing.assert_allclose(still(np.full((5, 3), 0.25)), np.tile(Y.mean(axis=0), (5, 1)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"features": F[:50]}, r"targets has shape \(60, 2\); it must be \(50, any\)"),
        ({"features": F[:, 0]}, r"features has shape \(60,\)"),
        ({"features": np.where(F[2, 1] == F, np.nan, F)}, r"features\[2, 1\] is nan"),
        ({"ridge": -1.0}, r"ridge is -1\.0; it must be >= 0"),
        ({"ridge": "best"}, r"ridge is 'best'"),
        ({"reading_error": -0.1}, r"reading_error is -0\.1; it must be >= 0"),
        ({"ridge": "cross-validate", "folds": 1}, r"folds is 1; it must be a whole number from 2 to 60"),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments, message):
    with pytest.raises(ValueError, match=message):
        fit_readout(**({"features": F, "targets": Y} | arguments))


@pytest.mark.slow
def test_the_washout_is_dropped_from_training_only():
    network = EchoStateNetwork.random(20, key=jax.random.key(0))
    task = linear_memory(range(1, 6), 300, 200, washout=50, key=jax.random.key(1))
    reading = read_task(network, task)
    assert reading.train.shape == (250, 20)
    assert reading.test.shape == (200, 20)
    outputs, _ = answer(reading, task)
    assert outputs.shape == task.test_targets.shape
    with pytest.raises(ValueError, match=r"other\.train has shape \(250, 10\); it must be \(250, 20\)"):
        answer(reading, task, other=Reading(reading.train[:, :10], reading.test))


@pytest.mark.slow
def test_noise_has_the_stated_size_and_needs_a_key():
    task = waveforms(400, 400, key=jax.random.key(0))
    mixer = JosephsonMixer.two_mode(measured=9)
    clean = read_task(mixer, task).test
    noisy = read_task(mixer, task, noise=1e-3, key=jax.random.key(1)).test
    assert np.isclose((noisy - clean).std(), 1e-3, rtol=0.05)
    with pytest.raises(ValueError, match="key is None"):
        read_task(mixer, task, noise=1e-3)


@pytest.mark.slow
def test_linear_memory_capacity_is_bounded_by_the_number_of_neurons_and_nearly_reached():
    network = EchoStateNetwork.random(20, input_scale=0.01, bias_scale=0.0, key=jax.random.key(0))
    task = linear_memory(range(1, 61), 4000, 4000, washout=100, key=jax.random.key(1))
    total = capacity(answer(read_task(network, task), task)[0], task.test_targets).sum()
    assert 15 < total < 20.5
