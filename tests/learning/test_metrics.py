"""Metrics by hand, and over any number of leading axes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from morphax.learning.metrics import (
    accuracy,
    capacity,
    classify,
    mean_log10_error,
    nrmse,
    rmse,
    root_sum_square_over_n,
)

pytestmark = pytest.mark.usefixtures("double")
RANDOM = np.random.default_rng(0)
TARGETS = RANDOM.normal(size=(5, 40, 3)) * [1, 5, 0.2] + [10, 0, -3]  # examples, time, outputs
OUTPUTS = TARGETS + 0.3 * RANDOM.normal(size=TARGETS.shape)
EVERY = (accuracy, rmse, nrmse, root_sum_square_over_n, mean_log10_error, capacity)


def test_by_hand():
    outputs, targets = jnp.array([[0.9], [0.2], [0.6], [0.4]]), jnp.array([[1.0], [0.0], [0.0], [1.0]])
    squares = 0.01 + 0.04 + 0.36 + 0.36
    assert jnp.array_equal(classify(outputs), jnp.array([1, 0, 1, 0]))
    assert accuracy(outputs, targets) == 0.5
    assert np.isclose(rmse(outputs, targets), np.sqrt(squares / 4))
    assert np.isclose(root_sum_square_over_n(outputs, targets), np.sqrt(squares) / 4)
    assert np.isclose(nrmse(outputs, targets), np.sqrt(squares / 4) / 0.5)
    assert np.isclose(mean_log10_error(outputs, targets), np.log10([0.1, 0.2, 0.6, 0.6]).mean())
    assert np.isclose(capacity(outputs, targets), max(1 - squares / 4 / 0.25, 0))
    assert capacity(targets, targets) == 1


def test_a_class_is_the_largest_output_at_every_time():
    scores = RANDOM.normal(size=(4, 6, 3))
    np.testing.assert_array_equal(classify(jnp.asarray(scores)), scores.argmax(axis=-1))
    np.testing.assert_array_equal(classify(jnp.asarray(scores[..., :1])), scores[..., 0] > 0.5)
    targets = np.eye(3)[scores.argmax(axis=-1)]
    targets[0] = np.roll(targets[0], 1, axis=-1)  # one of four examples is answered wrong, at all times
    assert accuracy(jnp.asarray(scores), jnp.asarray(targets)) == 0.75


@pytest.mark.slow
@pytest.mark.parametrize("metric", EVERY)
def test_points_count_alike_however_they_are_arranged(metric):
    rows = metric(OUTPUTS.reshape(-1, 3), TARGETS.reshape(-1, 3))
    assert rows.shape == ((3,) if metric is capacity else ())
    np.testing.assert_allclose(metric(OUTPUTS, TARGETS), rows, rtol=1e-12)
    np.testing.assert_allclose(metric(OUTPUTS.swapaxes(0, 1), TARGETS.swapaxes(0, 1)), rows, rtol=1e-12)
    one = metric(OUTPUTS[:1], TARGETS[:1])  # a single example
    np.testing.assert_allclose(one, metric(OUTPUTS[0], TARGETS[0]), rtol=1e-12)
    assert np.isfinite(one).all()


def test_the_constant_mean_has_an_nrmse_of_1_and_no_capacity():
    mean = np.broadcast_to(TARGETS.mean(axis=(0, 1)), TARGETS.shape)
    assert nrmse(mean, TARGETS) == pytest.approx(1)
    assert nrmse(mean[:, 0], TARGETS[:, 0]) > 1  # that of other points is worse
    np.testing.assert_allclose(capacity(mean, TARGETS), 0, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("precise", [False, True])
def test_targets_that_do_not_vary(precise):
    with jax.enable_x64(precise):
        targets = jnp.full((7, 30, 2), 0.1)  # rounded: neither sum nor mean is exact
        assert nrmse(targets + 0.5, targets) == rmse(targets + 0.5, targets)
        assert nrmse(targets, targets) == 0
        np.testing.assert_array_equal(capacity(targets, targets), 0)
        assert nrmse(jnp.array([[3.0, 1.0]]), jnp.array([[1.0, 1.0]])) == pytest.approx(2**0.5)
        for metric in (nrmse, capacity):
            slope = jax.grad(lambda outputs, m=metric: jnp.sum(m(outputs, targets)))(targets + 0.5)
            assert np.isfinite(slope).all()


def test_one_output_that_does_not_vary_leaves_the_others_as_they_are():
    targets = np.where(np.arange(3) == 1, 0.1, TARGETS)
    variances = targets.var(axis=(0, 1))
    assert nrmse(targets + 0.1, targets) == pytest.approx(0.1 / np.sqrt(variances.mean()))
    np.testing.assert_allclose(capacity(targets + 0.1, targets), [1 - 0.01 / variances[0], 0, 1 - 0.01 / variances[2]])


def test_an_error_of_nothing_counts_as_rounding():
    assert mean_log10_error(TARGETS, TARGETS) == pytest.approx(np.log10(np.finfo(float).eps))


def test_whole_numbers_are_judged_too():
    outputs, targets = jnp.array([[1, 0], [0, 1], [1, 0]]), jnp.array([[1, 0], [1, 0], [1, 0]])
    assert accuracy(outputs, targets) == pytest.approx(2 / 3)
    assert mean_log10_error(outputs, targets) == pytest.approx(np.log10(np.finfo(float).eps) * 2 / 3)


@pytest.mark.parametrize("metric", EVERY)
def test_shapes_that_differ_are_refused(metric):
    with pytest.raises(ValueError, match=r"outputs has shape \(40, 1\); it must be \(40,\)"):
        metric(TARGETS[0, :, :1], TARGETS[0, :, 0])
