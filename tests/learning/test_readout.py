"""The readout against closed forms, SciPy and scikit-learn's ridge."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from morphax import JosephsonMixer, answer, fit_readout, read_task
from morphax.learning.metrics import capacity, rmse
from morphax.substrates.reservoirs import EchoStateNetwork
from morphax.tasks import linear_memory, waveforms

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


def test_cross_validation_beats_the_pseudo_inverse_where_noise_rules():
    truth = jnp.zeros((1, 40)).at[0, 0].set(1)
    noisy = jnp.asarray(RANDOM.normal(size=(60, 40)))
    new = jnp.asarray(RANDOM.normal(size=(500, 40)))
    targets = noisy @ truth.T + jnp.asarray(RANDOM.normal(size=(60, 1)))
    errors = {r: rmse(fit_readout(noisy, targets, ridge=r)(new), new @ truth.T) for r in (0.0, "cross-validate")}
    assert errors["cross-validate"] < 0.85 * errors[0.0]


def test_cross_validation_keeps_a_clean_linear_law():
    targets = F @ jnp.ones((7, 1)) + 3
    readout = fit_readout(F, targets, ridge="cross-validate")
    assert jnp.allclose(readout(F), targets, atol=1e-8)


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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"features": F[:50]}, r"targets has shape \(60, 2\); it must be \(50, any\)"),
        ({"features": F[:, 0]}, r"features has shape \(60,\)"),
        ({"features": np.where(F[2, 1] == F, np.nan, F)}, r"features\[2, 1\] is nan"),
        ({"ridge": -1.0}, r"ridge is -1\.0; it must be >= 0"),
        ({"ridge": "best"}, r"ridge is 'best'"),
        ({"ridge": "cross-validate", "folds": 1}, r"folds is 1; it must be a whole number from 2 to 60"),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments, message):
    with pytest.raises(ValueError, match=message):
        fit_readout(**({"features": F, "targets": Y} | arguments))


def test_the_washout_is_dropped_from_training_only():
    network = EchoStateNetwork.random(20, key=jax.random.key(0))
    task = linear_memory(range(1, 6), 300, 200, washout=50, key=jax.random.key(1))
    reading = read_task(network, task)
    assert reading.train.shape == (250, 20)
    assert reading.test.shape == (200, 20)
    outputs, _ = answer(reading, task)
    assert outputs.shape == task.test_targets.shape


def test_noise_has_the_stated_size_and_needs_a_key():
    task = waveforms(400, 400, key=jax.random.key(0))
    mixer = JosephsonMixer.two_mode(measured=9)
    clean = read_task(mixer, task).test
    noisy = read_task(mixer, task, noise=1e-3, key=jax.random.key(1)).test
    assert np.isclose((noisy - clean).std(), 1e-3, rtol=0.05)
    with pytest.raises(ValueError, match="key is None"):
        read_task(mixer, task, noise=1e-3)


def test_linear_memory_capacity_is_bounded_by_the_number_of_neurons_and_nearly_reached():
    network = EchoStateNetwork.random(20, input_scale=0.01, bias_scale=0.0, key=jax.random.key(0))
    task = linear_memory(range(1, 61), 4000, 4000, washout=100, key=jax.random.key(1))
    total = capacity(answer(read_task(network, task), task)[0], task.test_targets).sum()
    assert 15 < total < 20.5
