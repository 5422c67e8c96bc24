"""Which equilibria there are: known multistable systems, and saddles that are none."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from morphax import DEVICE, EnergySubstrate, HopfieldNetwork, PhaseOscillators
from morphax.dynamics.relaxation import BlockSweeps, RungeKutta
from morphax.substrates.equilibria import find_equilibria, is_stable
from morphax.substrates.topology import Topology

pytestmark = pytest.mark.usefixtures("double")
KEY = jax.random.key(0)
TIGHT = BlockSweeps(1e-10, 20_000)


class DoubleWell(EnergySubstrate):
    """Wells at x = -1 and 1, between them a saddle that a third of the starts hit exactly."""

    stiffness: jax.Array = eqx.field(metadata=DEVICE)

    def initial_state(self, *, key=None):
        places = jnp.array([-0.3, 0.0, 0.3])
        return {"x": places[0] if key is None else jax.random.choice(key, places), "y": jnp.array([0.5])}

    def energy(self, state, drive):
        return (state["x"] ** 2 - 1) ** 2 / 4 + self.stiffness * jnp.sum((state["y"] - drive) ** 2) / 2

    def observe(self, state, *, key=None):
        return jnp.append(state["y"], state["x"])


class Vortex(EnergySubstrate):
    """A force that is no slope: it turns around the origin, and leaves or approaches it."""

    growth: jax.Array = eqx.field(metadata=DEVICE)

    def initial_state(self, *, key=None):
        return jnp.zeros(2)

    def energy(self, state, drive):
        return -self.growth * jnp.sum(state**2) / 2

    def force(self, state, drive):
        return jnp.array([[self.growth, -1.0], [1.0, self.growth]]) @ state

    def observe(self, state, *, key=None):
        return state


def test_a_repulsive_triangle_is_frustrated_into_120_degrees():
    couplings = -(np.ones((3, 3)) - np.eye(3))
    triangle = PhaseOscillators.from_matrix(couplings, inputs=[0], outputs=[1, 2])
    found = find_equilibria(triangle, jnp.zeros(1), starts=50, relaxer=TIGHT, key=KEY)
    angles = sorted(np.round(np.degrees(found.outputs)).tolist())
    assert angles == [[-120, 120], [120, -120]]
    assert abs(found.shares.sum() - 1) < 1e-12
    assert found.unconverged == 0


@pytest.mark.slow
def test_a_ring_twists():
    # With a clamped unit, n attracting oscillators in a ring are stable when wound q < n / 4 times: -1, 0, 1 of 6.
    matrix = np.zeros((6, 6))
    for i in range(6):
        matrix[i, (i + 1) % 6] = matrix[(i + 1) % 6, i] = 1.0
    ring = PhaseOscillators.from_matrix(matrix, inputs=[0], outputs=[1])
    dynamics = RungeKutta(200.0, 0.1, tolerance=1e-6)
    found = find_equilibria(ring, jnp.zeros(1), starts=200, relaxer=dynamics, key=KEY)
    assert sorted(np.round(np.degrees(found.outputs[:, 0])).tolist()) == [-60, 0, 60]
    assert found.outputs[0] == pytest.approx(0, abs=1e-4)


def test_saddles_are_counted_and_left_out():
    relaxer = RungeKutta(60.0, tolerance=1e-8)
    found = find_equilibria(DoubleWell(jnp.array(1.0)), jnp.array([0.2]), starts=60, relaxer=relaxer, key=KEY)
    np.testing.assert_allclose(np.sort(found.outputs[:, 1]), [-1, 1], atol=1e-6)
    np.testing.assert_allclose(found.states["y"], 0.2, atol=1e-6)
    assert 0.1 < found.saddles < 0.6
    assert found.shares.sum() + found.saddles == pytest.approx(1)
    assert found.shares[0] >= found.shares[1]
    assert found.unconverged == 0


@pytest.mark.slow
def test_every_equilibrium_is_a_minimum():
    network, drive = (
        PhaseOscillators.all_to_all(2, 7, 1, coupling_deviation=1.0, key=jax.random.key(4)),
        jnp.array([0.0, np.pi]),
    )
    found = find_equilibria(network, drive, relaxer=TIGHT, key=KEY)
    assert len(found.shares) == 4
    energy = jax.jit(lambda state: network.energy(state, drive))
    hessian = jax.jit(jax.hessian(energy))
    for state in found.states:
        assert np.linalg.eigvalsh(hessian(state)).min() > 0
        nearby = state + 0.01 * np.random.default_rng(0).normal(size=(20, 8))
        assert all(energy(there) > energy(state) for there in nearby)


def test_a_saddle_of_phases_is_told_from_a_minimum():
    pair = PhaseOscillators.from_matrix([[0, 1.0], [1.0, 0]], inputs=[0], outputs=[1])
    assert is_stable(pair, jnp.zeros(1), jnp.zeros(1))
    assert not is_stable(pair, jnp.zeros(1), jnp.array([np.pi]))


def test_what_turns_freely_is_no_saddle():
    # Two oscillators that pull at each other and at nothing else: together they may have any phase.
    network = PhaseOscillators(Topology(3, [(1, 2)], inputs=[0], outputs=[1]), jnp.array([0.7]))
    found = find_equilibria(network, jnp.zeros(1), starts=20, tolerance=1e-3, relaxer=TIGHT, key=KEY)
    assert found.saddles == 0
    assert len(found.shares) > 10
    np.testing.assert_allclose(found.states[:, 0], found.states[:, 1], atol=1e-6)


@pytest.mark.parametrize(("growth", "stable"), [(-0.1, True), (0.1, False)])
def test_without_an_energy_rates_decide(growth, stable):
    assert is_stable(Vortex(jnp.array(growth)), jnp.zeros(1), jnp.zeros(2)) == stable


def test_two_hopfield_neurons_that_excite_each_other_are_both_silent_or_both_active():
    network = HopfieldNetwork([jnp.zeros((1, 1)), jnp.array([[3.0]])], [jnp.array([-1.0]), jnp.array([-1.0])])
    found = find_equilibria(network, jnp.zeros(1), key=KEY)
    np.testing.assert_allclose(np.sort(found.outputs[:, 0]), [0, 1], atol=1e-6)
    middle = (jnp.array([0.5]), jnp.array([0.5]))  # where the force vanishes, too
    assert network.distance(network.force(middle, jnp.zeros(1)), (jnp.zeros(1), jnp.zeros(1))) == 0
    assert not is_stable(network, jnp.zeros(1), middle)


def test_where_nothing_rests_nothing_is_found():
    matrix = [[0, 1.0], [1.0, 0]]
    rotating = PhaseOscillators.from_matrix(matrix, inputs=[0], outputs=[1], frequencies=[2.0])
    found = find_equilibria(rotating, jnp.zeros(1), starts=5, relaxer=BlockSweeps(max_sweeps=50), key=KEY)
    assert found.outputs.shape == (0, 1)
    assert found.shares.size == 0
    assert (found.saddles, found.unconverged) == (0, 1)


def test_bad_arguments():
    pair = PhaseOscillators.from_matrix([[0, 1.0], [1.0, 0]], inputs=[0], outputs=[1])
    with pytest.raises(ValueError, match="starts is 0; it must be a whole number >= 1"):
        find_equilibria(pair, jnp.zeros(1), starts=0, key=KEY)
    with pytest.raises(ValueError, match=r"tolerance is 0\.0; it must be > 0"):
        find_equilibria(pair, jnp.zeros(1), tolerance=0.0, key=KEY)
