"""Gaussian states against QuTiP."""

import jax.numpy as jnp
import numpy as np
import pytest
import qutip

from morphax.quantum.gaussian import gaussian_populations

LEVELS = 20  # of QuTiP's matrices
A, B = (
    qutip.tensor(*each)
    for each in ((qutip.destroy(LEVELS), qutip.qeye(LEVELS)), (qutip.qeye(LEVELS), qutip.destroy(LEVELS)))
)


def moments(rho):
    """Means and covariance of a density matrix."""
    operators = [A, B, A.dag(), B.dag()]
    means = np.array([qutip.expect(one, rho) for one in operators])
    apart = [one - mean for one, mean in zip(operators, means, strict=True)]
    covariance = [[0.5 * qutip.expect(x @ y.dag() + y.dag() @ x, rho) for y in apart] for x in apart]
    return means[:2], np.array(covariance)


def test_populations_of_a_squeezed_displaced_thermal_state_are_those_of_its_density_matrix(double):
    thermal = qutip.tensor(qutip.thermal_dm(LEVELS, 0.1), qutip.thermal_dm(LEVELS, 0.05))
    turned = (
        (0.4 * A.dag() - 0.4 * A).expm()
        @ ((0.2 + 0.3j) * B.dag() - (0.2 - 0.3j) * B).expm()
        @ (0.1 * (A @ A - A.dag() @ A.dag())).expm()
        @ (0.7j * (A.dag() @ B + A @ B.dag())).expm()
        @ (0.2 * (A @ B - A.dag() @ B.dag())).expm()
    )
    rho = turned @ thermal @ turned.dag()
    mean, covariance = moments(rho)
    found = gaussian_populations(jnp.array(mean), jnp.array(covariance), 5)
    wanted = np.real(rho.diag()).reshape(LEVELS, LEVELS)[:5, :5]
    np.testing.assert_allclose(found, wanted, atol=1e-8)


def test_coherent_states_have_poisson_populations_and_thermal_ones_geometric_ones(double):
    levels = np.arange(6)
    found = gaussian_populations(jnp.zeros(1, complex), jnp.eye(2) * (0.5 + 0.7), 6)
    np.testing.assert_allclose(found, 0.7**levels / 1.7 ** (levels + 1), rtol=1e-12)


def test_a_state_needs_a_level():
    with pytest.raises(ValueError, match="levels is 0"):
        gaussian_populations(jnp.zeros(1, complex), jnp.eye(2) / 2, 0)
