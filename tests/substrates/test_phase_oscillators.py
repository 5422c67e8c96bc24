"""Phase oscillators: Eq. 1 term by term, closed equilibria, descent against the dynamics, refusals."""

from functools import cache

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from morphax import PhaseOscillators, count
from morphax.dynamics.relaxation import AcceleratedDescent, AdaptiveRungeKutta, BlockSweeps, RungeKutta
from morphax.learning.equilibrium import EquilibriumPropagation
from morphax.substrates.energy import (
    EnergySubstrate,
    Nudge,
    phase_distance,
    phase_overlap,
    phase_squared_error,
)
from morphax.substrates.topology import Topology

pytestmark = pytest.mark.usefixtures("double")
KEY = jax.random.key(0)
LATTICE = Topology.lattice((4, 5), inputs=[0, 7], outputs=[19, 3])
TIGHT = BlockSweeps(1e-10, 20_000)


@cache
def networks() -> dict[str, PhaseOscillators]:
    return {
        "layered": PhaseOscillators.layered((6, 8, 5, 3), bias_scale=0.5, key=KEY),
        "all-to-all": PhaseOscillators.all_to_all(4, 9, 3, coupling_deviation=0.6, bias_scale=0.5, key=KEY),
        "lattice": PhaseOscillators.from_topology(
            LATTICE, coupling_deviation=1.0, bias_scale=0.3, frequency_deviation=0.05, key=KEY
        ),
    }


def drive_of(network: PhaseOscillators) -> jax.Array:
    return jax.random.uniform(jax.random.key(1), (len(network.topology.inputs),), minval=-1.5, maxval=1.5)


@pytest.fixture(params=["layered", "all-to-all", "lattice"])
def network(request) -> PhaseOscillators:
    return networks()[request.param]


def test_energy_is_equation_1_and_the_force_its_slope(network):
    @eqx.filter_jit
    def found(network, state, drive):
        forces = network.force(state, drive), EnergySubstrate.force(network, state, drive)
        return network.matrix, network.energy(state, drive), *forces

    drive, state = np.asarray(drive_of(network)), np.asarray(network.initial_state(key=jax.random.key(2)))
    matrix, energy, force, slope = map(np.asarray, found(network, state, drive))
    phases = np.zeros(network.topology.units)
    phases[network.topology.inputs], phases[network.topology.free] = drive, state
    pairs = matrix * np.cos(phases[:, None] - phases[None, :])
    assert not np.any(matrix[np.ix_(network.topology.inputs, network.topology.inputs)])
    printed = -0.5 * pairs.sum() - network.bias_strengths @ np.cos(state - network.bias_phases)
    assert abs(printed - network.frequencies @ state - energy) < 1e-12
    np.testing.assert_allclose(force, slope, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(
    "cost",
    [
        None,
        phase_overlap,
        *(pytest.param(cost, marks=pytest.mark.slow) for cost in (phase_distance, phase_squared_error)),
    ],
)
def test_descent_ends_at_an_equilibrium_of_the_dynamics(network, cost):
    drive, start = drive_of(network), network.initial_state(key=jax.random.key(2))
    nudge = None if cost is None else Nudge(cost, 0.1, jnp.full(len(network.topology.outputs), 1.2))

    @eqx.filter_jit
    def relaxed(state, relaxer):
        return network.relax(drive, state=state, nudge=nudge, relaxer=relaxer)

    ended = relaxed(start, TIGHT)
    assert ended.converged
    assert ended.residual <= 1e-10
    # The dynamics, pushed a little, come back: it is an equilibrium, and a stable one.
    back = relaxed(ended.state + 0.01, AdaptiveRungeKutta(1000.0, 1e-9, 1e-9))
    assert network.distance(back.state, ended.state) < 1e-4


@pytest.mark.slow
def test_sweeps_never_raise_the_energy(network):
    drive, state = drive_of(network), network.initial_state(key=jax.random.key(2))

    @jax.jit
    def energies_of_sweeps(state):
        sweeps = network.landscape(drive).sweeps

        def swept_once(swept, _):
            return sweeps.sweep(swept)[0], network.energy(sweeps.decode(swept), drive)

        return jax.lax.scan(swept_once, sweeps.encode(state), length=30)[1]

    energies = energies_of_sweeps(state)
    # With frequencies the energy has no bottom on the circle; without, it must fall.
    if not jnp.any(network.frequencies):
        assert np.all(np.diff(energies) <= 1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("cost", [None, phase_overlap])
def test_slopes_are_derivatives_of_the_energy(network, cost):
    drive, state = drive_of(network), network.initial_state(key=jax.random.key(2))
    nudge = None if cost is None else Nudge(cost, 0.1, jnp.full(len(network.topology.outputs), 1.2))

    @jax.jit
    def found(state):
        def energy(state):
            pulled = 0.0 if nudge is None else nudge.energy(network.observe(state))
            return network.energy(state, drive) + pulled

        return (
            network.landscape(drive, nudge).slope(state),
            energy(state),
            jax.grad(energy)(state),
            jax.hessian(energy)(state),
        )

    slope, energy, gradient, hessian = found(state)
    np.testing.assert_allclose(slope.energy, energy, rtol=1e-12)
    np.testing.assert_allclose(slope.force, -gradient, atol=1e-12)
    np.testing.assert_allclose(slope.curvature, np.diag(hessian), atol=1e-12)


def examples(network, number):
    """Inputs, and states to start from."""
    channels = len(network.topology.inputs)
    drives = jax.random.uniform(jax.random.key(1), (number, channels), minval=-1.5, maxval=1.5)
    return drives, jax.vmap(lambda key: network.initial_state(key=key))(jax.random.split(KEY, number))


@pytest.mark.slow
def test_accelerated_descent_ends_in_minima_as_deep_as_those_of_sweeps():
    network = PhaseOscillators.all_to_all(10, 50, 10, key=KEY)
    drives, starts = examples(network, 128)

    @eqx.filter_jit
    def ended(relaxer):
        rule = EquilibriumPropagation(relaxer=relaxer)
        found = rule._relaxed(network, drives, starts, jax.random.split(KEY, 128))
        return (
            found,
            jax.vmap(network.energy)(found.state, drives),
            jax.vmap(jax.hessian(network.energy))(found.state, drives),
        )

    fast, energies, hessians = ended(AcceleratedDescent(1e-6))
    _, swept, _ = ended(BlockSweeps(1e-6))
    assert fast.converged.all()
    assert fast.residual.max() <= 1e-6
    assert np.linalg.eigvalsh(hessians).min() > -1e-6
    # Some end in other basins, neither better nor worse: to four standard errors of the mean.
    difference = np.asarray(energies - swept)
    assert abs(difference.mean()) < 4 * difference.std() / 128**0.5 + 1e-9
    alone = network.relax(drives[0], state=starts[0], relaxer=AcceleratedDescent(1e-6))
    assert alone.converged


@pytest.mark.slow
def test_what_hardly_locks_is_swept_from_where_it_began():
    network = PhaseOscillators.all_to_all(5, 16, 4, frequency_deviation=0.2, key=KEY)
    drives, starts = examples(network, 64)

    @eqx.filter_jit
    def converged(relaxer):
        rule = EquilibriumPropagation(relaxer=relaxer)
        return rule._relaxed(network, drives, starts, jax.random.split(KEY, 64)).converged

    swept = converged(BlockSweeps(1e-5, 500))
    assert 0 < swept.sum() < 64
    assert (converged(AcceleratedDescent(1e-5, 300, 500)) >= swept).all()


class Unswept(PhaseOscillators):
    """Has slopes, and no sweeps."""

    def landscape(self, drive, nudge=None):
        return super().landscape(drive, nudge)._replace(sweeps=None)


@pytest.mark.slow
@pytest.mark.parametrize("relaxer", [AcceleratedDescent(1e-9, 8, 0), AcceleratedDescent(1e-9, 8)])
def test_a_batch_that_is_not_swept_ends_where_it_descended_to(relaxer):
    network = Unswept.all_to_all(5, 16, 4, key=KEY)
    drives, starts = examples(network, 32)

    @eqx.filter_jit
    def run():
        ended = EquilibriumPropagation(relaxer=relaxer)._relaxed(network, drives, starts, jax.random.split(KEY, 32))
        energies = (jax.vmap(network.energy)(state, drives) for state in (ended.state, starts))
        return ended.converged, *energies

    converged, after, before = run()
    assert not converged.any()
    assert (after < before).all()


@pytest.mark.parametrize("strength", [0.05, -0.05])
def test_the_nudged_output_of_a_pair(strength):
    # W sin(phi - u) + beta tan((phi - t) / 2) = 0 along the arc between input and target.
    pair = PhaseOscillators.from_matrix([[0, 0.7], [0.7, 0]], inputs=[0], outputs=[1])
    ended = pair.relax(
        jnp.array([0.4]), state=jnp.zeros(1), nudge=Nudge(phase_overlap, strength, jnp.array([1.4])), relaxer=TIGHT
    )
    phase = ended.state[0]
    assert abs(0.7 * jnp.sin(phase - 0.4) + strength * jnp.tan((phase - 1.4) / 2)) < 1e-6
    assert (phase - 0.4) * strength > 0
    assert ended.converged


@pytest.mark.slow
@pytest.mark.parametrize("relaxer", [None, RungeKutta(300.0, tolerance=1e-6)])
@pytest.mark.parametrize("layers", [(2, 3), (2, 5, 1)])
def test_without_a_key_no_symmetry_of_the_inputs_leads_to_a_saddle(layers, relaxer):
    # Inputs of 0 or pi leave the energy the same when all phases change sign.
    @jax.jit
    @jax.vmap
    def rest(key):
        first, second = jax.random.split(key)
        network = PhaseOscillators.layered(layers, key=first)
        drive = jnp.pi * jax.random.bernoulli(second, shape=(2,))
        ended = network.relax(drive, relaxer=relaxer)
        stiffness = -jax.jacobian(lambda state: network.force(state, drive))(ended.state)
        at_zero = network.force(jnp.zeros_like(ended.state), drive)
        return ended.converged, jnp.linalg.eigvalsh(stiffness)[0], jnp.max(jnp.abs(at_zero))

    converged, softest, at_zero = rest(jax.random.split(KEY, 60))
    assert at_zero.max() < 1e-12
    assert converged.mean() > 0.8
    assert softest[converged].min() > -1e-6


def test_the_start_without_a_key_is_one_generic_point():
    network = networks()["layered"]
    start = network.initial_state()
    np.testing.assert_array_equal(start, network.initial_state())
    assert jnp.min(jnp.abs(jnp.sin(start))) > 1e-3
    assert jnp.all(jnp.abs(start) <= jnp.pi)
    assert jnp.abs(jnp.exp(1j * start).mean()) < 2 / start.size  # spread over the circle


def test_frequencies_lock_ahead_by_their_arcsine_or_not_at_all():
    def pair(frequency):
        return PhaseOscillators.from_matrix([[0, 1.0], [1.0, 0]], inputs=[0], outputs=[1], frequencies=[frequency])

    locked = pair(0.5).relax(jnp.array([0.3]), relaxer=TIGHT)
    assert abs(locked.state[0] - 0.3 - np.arcsin(0.5)) < 1e-9
    for relaxer in (TIGHT, RungeKutta(tolerance=1e-3)):
        assert not pair(1.1).relax(jnp.array([0.3]), relaxer=relaxer).converged


@pytest.mark.slow
def test_a_prefix_of_dynamics_finds_the_basin_of_the_dynamics():
    network = PhaseOscillators.layered((8, 20, 4), key=KEY, coupling_deviation=0.5)
    drive = jax.vmap(lambda k: jax.random.uniform(k, (8,)))(jax.random.split(KEY, 40))
    start = jax.vmap(lambda k: network.initial_state(key=k))(jax.random.split(jax.random.key(1), 40))
    dynamics, alone, after = (
        jax.vmap(lambda u, s, r=relaxer: network.relax(u, state=s, relaxer=r).state)(drive, start)
        for relaxer in (
            BlockSweeps(1e-9, 20_000, prefix=RungeKutta(300.0, 0.1)),
            TIGHT,
            BlockSweeps(1e-10, 20_000, prefix=RungeKutta(30.0, 0.1)),
        )
    )
    same = [jnp.mean(jax.vmap(network.distance)(dynamics, other) < 1e-3) for other in (alone, after)]
    assert same[1] >= max(0.95, float(same[0]))


@pytest.mark.slow
def test_parameter_counts_of_table_i():
    layered = [count(PhaseOscillators.layered((64, n, 10), key=KEY), "weight") for n in (20, 100, 200, 300)]
    dense = [count(PhaseOscillators.all_to_all(64, n - 74, 10, key=KEY), "weight") for n in (85, 139, 185, 222)]
    assert layered == [1540, 7620, 15220, 22820]
    assert dense == [1596, 7725, 15246, 22831]


def test_random_couplings_have_the_stated_spread():
    network = PhaseOscillators.layered((64, 200, 10), key=KEY)
    first = network.couplings[: 64 * 200]
    assert abs(jnp.std(first) * 264**0.5 - 1) < 5 / (2 * first.size) ** 0.5
    assert not jnp.any(network.bias_strengths)


ASYMMETRIC = [[0, 1.0, 0], [0.5, 0, 1], [0, 1, 0]]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PhaseOscillators.from_matrix(np.ones((2, 3)), inputs=[0], outputs=[1]), "it must be square"),
        (lambda: PhaseOscillators.from_matrix(ASYMMETRIC, inputs=[0], outputs=[1]), r"couplings\[0, 1\] is 1"),
        (lambda: networks()["lattice"].check_targets([4.0]), r"targets is 4; a phase is from -pi to pi. Encode"),
        (lambda: networks()["lattice"].relax(jnp.zeros(3)), r"drive has shape \(3,\); it must be \(2,\)"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.slow
def test_whoever_does_not_come_to_rest_is_swept_from_its_start_in_groups():
    """Four groups of eight for thirty, of which two fill up."""
    network = PhaseOscillators.all_to_all(5, 16, 4, key=KEY)
    drives, starts = examples(network, 30)

    @eqx.filter_jit
    def ended(relaxer):
        return EquilibriumPropagation(relaxer=relaxer)._relaxed(network, drives, starts, jax.random.split(KEY, 30))

    helped, alone = ended(AcceleratedDescent(1e-6, 8)), ended(BlockSweeps(1e-6, 2000))
    assert helped.converged.all()
    np.testing.assert_allclose(np.sin(helped.state), np.sin(alone.state), atol=1e-4)
