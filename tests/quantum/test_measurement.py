"""Measurements against QuTiP and against each other on coherent states."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import qutip

from morphax.quantum import (
    PhotonNumbers,
    Populations,
    Quadratures,
    TopLevels,
    basis_states,
    coherent_state,
    homodyne_distribution,
    reduced,
)

pytestmark = pytest.mark.usefixtures("double")
LEVELS = (12, 14)
with jax.enable_x64(True):
    ALPHA = jnp.array([0.4 - 0.3j, -0.2 + 0.5j])
    RHO = coherent_state(ALPHA, LEVELS)


def random_state(levels, seed=0):
    return jnp.asarray(qutip.rand_dm(int(np.prod(levels)), seed=seed).full())


@pytest.mark.parametrize("measured", [Populations(basis_states(LEVELS, 20)), PhotonNumbers(), Quadratures()])
def test_amplitudes_and_density_matrix_read_the_same(measured):
    by_rho = measured.of_density_matrix(RHO, LEVELS)
    assert jnp.allclose(measured.of_amplitudes(ALPHA), by_rho, atol=1e-9)


def test_coherent_state_is_qutips():
    amplitudes: list = ALPHA.tolist()
    expected = qutip.tensor(*[qutip.coherent(n, a, method="analytic") for n, a in zip(LEVELS, amplitudes, strict=True)])
    assert np.allclose(RHO, qutip.ket2dm(expected).full(), atol=1e-12)


def test_expectations_of_a_random_state_are_qutips():
    levels = (3, 4)
    rho = random_state(levels)
    state = qutip.Qobj(np.asarray(rho), dims=[list(levels)] * 2)
    a, b = qutip.tensor(qutip.destroy(3), qutip.qeye(4)), qutip.tensor(qutip.qeye(3), qutip.destroy(4))
    photons = [qutip.expect(op.dag() @ op, state) for op in (a, b)]
    quadratures = [qutip.expect((op + op.dag()) / np.sqrt(2), state) for op in (a, b)]
    quadratures += [qutip.expect((op - op.dag()) / (1j * np.sqrt(2)), state) for op in (a, b)]
    assert np.allclose(PhotonNumbers().of_density_matrix(rho, levels), photons)
    assert np.allclose(Quadratures().of_density_matrix(rho, levels), np.real(quadratures))
    assert np.allclose(reduced(rho, levels, 1), state.ptrace(1).full())


@pytest.mark.parametrize("phase", [0.0, 0.7, np.pi / 2])
def test_homodyne_distribution_has_the_moments_of_the_quadrature(phase):
    rho = random_state((5,), seed=3)
    x, p = homodyne_distribution(rho, phase, 400)
    a = qutip.destroy(5)
    quadrature = (a * np.exp(-1j * phase) + a.dag() * np.exp(1j * phase)) / np.sqrt(2)
    state = qutip.Qobj(np.asarray(rho))
    assert np.isclose(x @ p, qutip.expect(quadrature, state), atol=1e-6)
    # The square of a truncated operator misses what leaves the top level; its true variance includes it.
    larger = qutip.Qobj(np.pad(np.asarray(rho), (0, 1)))
    a = qutip.destroy(6)
    quadrature = (a * np.exp(-1j * phase) + a.dag() * np.exp(1j * phase)) / np.sqrt(2)
    assert np.isclose(x**2 @ p, qutip.expect(quadrature**2, larger), atol=1e-5)


@pytest.mark.slow
def test_populations_are_smooth_at_the_vacuum():
    measured = Populations(basis_states((8,), 4))
    slope = jax.jacfwd(lambda x: measured.of_amplitudes(jnp.array([x + 0j])))(0.0)
    curvature = jax.jacfwd(jax.jacfwd(lambda x: measured.of_amplitudes(jnp.array([x + 0j]))))(0.0)
    assert jnp.allclose(slope, 0)
    assert jnp.allclose(curvature, jnp.array([-2.0, 2.0, 0, 0]))


def test_top_levels_are_the_tail_that_truncation_would_fold():
    measured = TopLevels((4, 5))
    tails = [
        1 - sum(np.exp(-m) * m**n / np.prod(np.arange(1, n + 1)) for n in range(top - 1))
        for m, top in zip(np.abs(ALPHA) ** 2, (4, 5), strict=True)
    ]
    assert np.allclose(measured.of_amplitudes(ALPHA), tails, atol=1e-12)
    assert np.allclose(measured.of_density_matrix(jnp.eye(20) / 20 + 0j, (4, 5)), [1 / 4, 1 / 5])


def test_orders_of_basis_states():
    nested = basis_states((8, 8), 64)
    assert set(nested[:9]) == {(i, j) for i in range(3) for j in range(3)}
    assert set(nested[:16]) == {(i, j) for i in range(4) for j in range(4)}
    assert len(set(nested)) == 64
    photons = basis_states((2, 3, 8), 48, order="photons")
    assert sorted(map(sum, photons)) == list(map(sum, photons))
    assert len(set(photons)) == 48
    with pytest.raises(ValueError, match="measured is 49; it must be a whole number from 1 to 48"):
        basis_states((2, 3, 8), 49)
