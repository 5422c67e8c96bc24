"""Descent until it is small enough: where it ends, when it stops, and what it says of itself."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from morphax.learning.minimise import minimise

pytestmark = pytest.mark.usefixtures("double")


def bowl(x):
    """Curvatures 1 and 4 along the axes; the minimum is at (1, -2)."""
    return (x["a"] - 1) ** 2 / 2 + 2 * (x["b"] + 2) ** 2


START = {"a": np.float64(3.0), "b": np.float64(1.0)}


def test_it_ends_where_the_loss_is_at_most_the_tolerance_and_not_later():
    found = minimise(bowl, START, optax.sgd(0.1), tolerance=1e-6)
    assert found.converged
    assert found.loss == bowl(found.argument) <= 1e-6
    # Each update takes the distances times 0.9 and 0.6.
    losses = [0.5 * 4 * 0.81**n + 2 * 9 * 0.36**n for n in range(200)]
    assert found.iterations == next(n for n, loss in enumerate(losses) if loss <= 1e-6)
    np.testing.assert_allclose(found.argument["a"], 1 + 2 * 0.9 ** int(found.iterations), rtol=1e-12)


def test_what_is_small_enough_already_stays():
    found = minimise(bowl, START, optax.sgd(0.1), tolerance=100.0)
    assert (found.iterations, found.argument) == (0, START)
    assert found.converged


def test_what_has_no_root_ends_at_its_minimum_unconverged():
    found = minimise(lambda x: bowl(x) + 1, START, optax.adam(0.1), iterations=500)
    assert not found.converged
    assert found.iterations == 500
    np.testing.assert_allclose([found.argument["a"], found.argument["b"]], [1, -2], atol=1e-3)
    assert float(found.loss) == pytest.approx(1, abs=1e-5)


def test_nan_ends_the_descent_unconverged():
    found = minimise(lambda x: jnp.sqrt(x), jnp.array(0.5), optax.sgd(1.0), iterations=50)
    assert jnp.isnan(found.loss)
    assert not found.converged
    assert found.iterations < 5


def test_members_of_a_batch_stop_each_by_itself():
    starts = jnp.array([0.0, 1.0, 100.0])
    together = jax.jit(jax.vmap(lambda s: minimise(lambda x: x**2, s, optax.sgd(0.25), tolerance=1e-3)))(starts)
    for index, start in enumerate(starts):
        alone = minimise(lambda x: x**2, start, optax.sgd(0.25), tolerance=1e-3)
        assert together.iterations[index] == alone.iterations
        assert together.argument[index] == alone.argument
    assert together.converged.all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"iterations": 0}, "iterations is 0; it must be a whole number >= 1"),
        ({"tolerance": -1e-3}, "tolerance is -0.001; it must be >= 0"),
        ({"tolerance": jnp.nan}, "tolerance is nan"),
    ],
)
def test_bad_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        minimise(bowl, START, optax.sgd(0.1), **options)
