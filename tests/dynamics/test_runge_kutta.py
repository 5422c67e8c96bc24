"""Runge-Kutta steps converge with the order they claim."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from morphax.dynamics.runge_kutta import TABLEAUS, runge_kutta_step

pytestmark = pytest.mark.usefixtures("double")


def errors(order, steps):
    """Of the logistic growth dp/dt = p - p^2 and of a rotation with it, dz/dt = i p z, after a time of 2."""

    def velocity(state):
        p, z = state
        return p - p**2, 1j * p * z

    def one(_, state):
        return runge_kutta_step(velocity, state, 2.0 / steps, order=order)

    p, z = jax.lax.fori_loop(0, steps, one, (jnp.array(0.1), jnp.array(1.0 + 0j)))
    exact = 0.1 * np.exp(2.0) / (0.9 + 0.1 * np.exp(2.0))
    angle = np.log(0.9 + 0.1 * np.exp(2.0))  # the integral of p
    return np.array([abs(p - exact), abs(z - np.exp(1j * angle))])


@pytest.mark.parametrize("order", sorted(TABLEAUS))
def test_error_falls_with_the_claimed_order(order):
    ratio = errors(order, 40) / errors(order, 80)
    np.testing.assert_allclose(np.log2(ratio), order, atol=0.12)


def test_orders_are_one_to_four():
    assert sorted(TABLEAUS) == [1, 2, 3, 4]
    with pytest.raises(ValueError, match="order is 5; it must be one of 1, 2, 3, 4"):
        runge_kutta_step(lambda x: -x, jnp.ones(2), 0.1, order=5)
