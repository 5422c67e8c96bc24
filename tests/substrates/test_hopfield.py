"""The continuous Hopfield network: its energy, its equilibria, and what a nudge does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from morphax.dynamics.relaxation import AdaptiveRungeKutta, BlockSweeps
from morphax.substrates.energy import Nudge, squared_error
from morphax.substrates.hopfield import HopfieldNetwork

pytestmark = pytest.mark.usefixtures("double")
NETWORK = (5, 7, 6, 3)


def network() -> HopfieldNetwork:
    return HopfieldNetwork.random(NETWORK, scale=0.5, key=jax.random.key(0))


@pytest.mark.slow
@pytest.mark.parametrize("strength", [0.0, 0.5, -0.1])
def test_descent_ends_where_the_dynamics_do(strength):
    nudge = Nudge(squared_error, strength, jnp.array([1.0, 0.0, 0.5]))
    drive = jax.random.uniform(jax.random.key(1), (5,))
    ended = network().relax(drive, nudge=nudge, relaxer=BlockSweeps(1e-11))
    followed = network().relax(drive, nudge=nudge, relaxer=AdaptiveRungeKutta(200.0, 1e-10, 1e-10))
    assert ended.converged
    for a, b in zip(ended.state, followed.state, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-7)


def test_the_force_is_minus_the_slope_of_the_energy_inside():
    net = network()
    state = jax.tree.map(lambda x: 0.1 + 0.8 * x, net.initial_state(key=jax.random.key(2)))
    drive = jnp.linspace(0, 1, 5)
    forces, slopes = jax.jit(lambda x: (net.force(x, drive), jax.grad(net.energy)(x, drive)))(state)
    for force, slope in zip(forces, slopes, strict=True):
        np.testing.assert_allclose(force, -slope, atol=1e-12)


@pytest.mark.slow
def test_the_equilibrium_is_the_minimum_of_the_energy():
    net, drive = network(), jnp.linspace(0, 1, 5)
    best = net.energy(net.relax(drive, relaxer=BlockSweeps(1e-11)).state, drive)
    states = jax.vmap(lambda k: net.initial_state(key=k))(jax.random.split(jax.random.key(3), 1000))
    assert jnp.all(jax.vmap(net.energy, (0, None))(states, drive) >= best)


def test_without_a_key_neurons_that_excite_each_other_do_not_stay_silent():
    # Of three layers in a row, in each of which all is alike; silent is where no force acts, and a saddle.
    net = HopfieldNetwork([jnp.ones((4, 2)), jnp.ones((4, 4)), jnp.ones((1, 4))], [jnp.zeros(n) for n in (4, 4, 1)])
    drive, silent = jnp.zeros(2), tuple(jnp.zeros(n) for n in (4, 4, 1))
    assert net.distance(net.force(silent, drive), silent) == 0
    ended = net.relax(drive)
    assert ended.converged
    assert net.observe(ended.state) == 1
    assert net.energy(ended.state, drive) < net.energy(silent, drive)


def test_bad_arguments():
    with pytest.raises(ValueError, match="must be as many"):
        HopfieldNetwork([jnp.ones((2, 2))], [])
    with pytest.raises(ValueError, match=r"weights\[1\] has shape \(3, 4\); it must be \(any, 2\)"):
        HopfieldNetwork([jnp.ones((2, 2)), jnp.ones((3, 4))], [jnp.ones(2), jnp.ones(3)])
    with pytest.raises(ValueError, match="layers is"):
        HopfieldNetwork.random((3,), key=jax.random.key(0))
