"""Echoes of a lattice against back-propagation through it, with damping and without."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from morphax import Backpropagation, SpintronicNetwork, WithReadout, evolve, train
from morphax.learning import regression
from morphax.learning.echo import HamiltonianEcho
from morphax.pytrees import select
from morphax.substrates.reversible import NonlinearLattice
from morphax.substrates.topology import Topology

KEY = jax.random.key(0)


def lattice(**options) -> NonlinearLattice:
    topology = Topology.lattice((4, 6), inputs=[0, 6, 12, 18], outputs=[5, 17])
    return NonlinearLattice.random(topology, key=KEY, **options)


def data(points: int = 1) -> tuple:
    inputs = jax.random.normal(jax.random.key(1), (3, points, 4))
    return inputs, jax.random.normal(jax.random.key(2), (3, 2))


def flat(gradient) -> np.ndarray:
    return np.asarray(ravel_pytree(select(gradient, "weight")[0])[0])


def error(rule, net, points: int = 1) -> float:
    inputs, targets = data(points)
    right = flat(Backpropagation(regression, observe="last").gradient(net, inputs, targets, key=KEY)[1])
    metrics, gradient = eqx.filter_jit(rule.gradient)(net, inputs, targets, key=KEY)
    assert metrics["loss"] > 0
    return float(np.linalg.norm(flat(gradient) - right) / np.linalg.norm(right))


def echo(strength: float = 1e-3, **options) -> HamiltonianEcho:
    return HamiltonianEcho(jnp.asarray(strength), objective=regression, **options)


@pytest.mark.slow
@pytest.mark.parametrize("duration", [5.0, 20.0, 80.0])
def test_an_echo_is_the_gradient_to_second_order(duration, double):
    net = lattice(duration=duration)
    assert error(echo(), net) < 1e-5
    assert error(echo(1e-2), net) / error(echo(1e-3), net) == pytest.approx(100, rel=0.1)


@pytest.mark.slow
def test_one_kick_is_of_first_order(double):
    large, small = (error(echo(strength, kicks="one-sided"), lattice()) for strength in (1e-3, 1e-4))
    assert small < 1e-3
    assert large / small == pytest.approx(10, rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0.06, 0.6, 2.0])
def test_gain_undoes_damping(lost, double):
    net = lattice(duration=20.0, damping=lost / 20)
    assert error(echo(), net) < 5e-3
    assert error(echo(gain=0.0), net) > 10 * error(echo(), net)


@pytest.mark.slow
def test_inputs_that_follow_each_other_go_back_in_reversed_order(double):
    net = lattice(duration=4.0, damping=0.05)
    assert error(echo(), net, points=3) < 1e-5


@pytest.mark.slow
def test_a_readout_learns_beside_it(double):
    net = WithReadout.random(lattice(), 2, key=jax.random.key(4))
    assert error(echo(), net) < 1e-5


def test_the_energy_is_conserved_to_second_order_and_time_can_be_reversed(double):
    def run(time_step: float):
        net = lattice(duration=20.0, time_step=time_step)
        drive = data()[0][0, 0]
        state = net.initial_state()
        ended = net.step(state, drive)
        return net, drive, state, ended

    def gained(time_step: float) -> float:
        net, drive, state, ended = run(time_step)
        return abs(float(net.hamiltonian(ended, drive) - net.hamiltonian(state, drive)))

    assert gained(0.02) < 1e-3
    net, drive, state, ended = run(0.05)
    returned = net.step(net.reverse(ended), drive)
    np.testing.assert_allclose(returned.position, state.position, atol=1e-9)
    np.testing.assert_allclose(returned.momentum, state.momentum, atol=1e-9)


def test_a_single_linear_mass_swings_as_a_cosine(double):
    """One free mass between a held one at 1 and its own spring: omega^2 = kappa + J, about J / omega^2."""
    chain = Topology(2, [(0, 1)], inputs=[0], outputs=[1])
    net = NonlinearLattice(chain, jnp.array([2.0]), stiffness=1.0, nonlinearity=0.0, duration=0.5, time_step=1e-3)
    seen = np.asarray(evolve(net, jnp.ones((10, 1)))[0][:, 0])
    times = 0.5 * np.arange(1, 11)
    np.testing.assert_allclose(seen, 2 / 3 * (1 - np.cos(3**0.5 * times)), atol=1e-5)


@pytest.mark.slow
def test_echoes_teach():
    history = train(lattice(), echo(1e-2), data(), optax.adam(0.02), 40, key=KEY, chunk=40).history
    loss = history.metric("loss")
    assert loss[-1] < 0.6 * loss[0]
    assert history.presentations[-1] == 40 * 9


def test_damping_without_gain_is_told_and_other_substrates_are_refused():
    inputs, targets = data()
    with pytest.warns(UserWarning, match="gamma T = 1,"):
        echo(gain=0.0).check(lattice(damping=0.1), (inputs, targets))
    with pytest.raises(ValueError, match="reversible"):
        echo().check(SpintronicNetwork.random((4,), inputs=4, key=KEY), (inputs, targets))
    with pytest.raises(ValueError, match="strength"):
        echo(0.0)
