import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import qutip

from morphax.quantum.correlation_map import (
    coefficients,
    configurations,
    correlations,
    density_matrix,
    distribution,
    expectations,
    extended_correlations,
    extended_spins,
)
from morphax.quantum.realisability import minimal_vertices
from morphax.quantum.states import check_density_matrix, ghz_state, random_density_matrix

pytestmark = pytest.mark.usefixtures("double")


@pytest.mark.parametrize("qubits", [1, 2, 3])
def test_coefficients_are_qutips_expectation_values(qubits):
    rho = np.asarray(random_density_matrix(qubits, key=jax.random.key(qubits)))
    pauli = [qutip.qeye(2), qutip.sigmax(), qutip.sigmay(), qutip.sigmaz()]
    state = qutip.Qobj(rho, dims=[[2] * qubits] * 2)
    chi = np.asarray(coefficients(rho))
    for index in itertools.product(range(4), repeat=qubits):
        assert chi[index] == pytest.approx(qutip.expect(qutip.tensor([pauli[mu] for mu in index]), state), abs=1e-12)
    np.testing.assert_allclose(density_matrix(jnp.asarray(chi)), rho, atol=1e-12)


def test_ghz_coefficients_are_those_of_the_paper():
    # Eqs. 43 to 45 with epsilon = 1.
    chi = np.asarray(coefficients(ghz_state(3)))
    expected = np.zeros((4, 4, 4))
    for index in ((0, 0, 0), (3, 3, 0), (3, 0, 3), (0, 3, 3), (1, 1, 1)):
        expected[index] = 1
    for index in ((2, 2, 1), (1, 2, 2), (2, 1, 2)):
        expected[index] = -1
    np.testing.assert_allclose(chi, expected, atol=1e-12)


def test_expectations_by_the_papers_bits():
    # Eqs. 6 to 9, written with binary strings.
    p = np.random.default_rng(0).dirichlet(np.ones(64))
    chi = np.asarray(expectations(jnp.asarray(p)))
    for k, m in itertools.product(range(4), repeat=2):
        total = 0.0
        for tau in range(64):
            bits = f"{tau:06b}"
            first = 1 if k == 0 else (-1) ** (1 + int(bits[k - 1]))
            second = 1 if m == 0 else (-1) ** (1 + int(bits[3 + m - 1]))
            total += p[tau] * first * second
        assert chi[k, m] == pytest.approx(total, abs=1e-12)


@pytest.mark.parametrize("qubits", [1, 2, 3])
def test_three_ways_to_coefficients_agree(qubits):
    p = np.random.default_rng(qubits).dirichlet(np.ones(8**qubits))
    chi = np.asarray(expectations(jnp.asarray(p)))
    np.testing.assert_allclose(minimal_vertices(qubits) @ p, chi.reshape(-1), atol=1e-12)
    np.testing.assert_allclose(correlations(jnp.asarray(configurations(3 * qubits)), p), chi, atol=1e-12)


def test_a_time_average_is_the_expectation_of_its_shares():
    rng = np.random.default_rng(3)
    numbers = rng.integers(0, 64, 500)
    spins = configurations(6)[numbers]
    shares = np.bincount(numbers, minlength=64) / 500
    np.testing.assert_allclose(correlations(jnp.asarray(spins)), expectations(jnp.asarray(shares)), atol=1e-12)


def test_times_above_threshold_give_the_correlations():
    # Eqs. 37 to 39; of three spins an odd number is up. The last term of Eq. 39 has one sign too many.
    spins = np.sign(np.random.default_rng(4).normal(size=(400, 9)) + 0.3)
    chi = np.asarray(correlations(jnp.asarray(spins)))
    a, b, c = spins[:, 0] > 0, spins[:, 4] > 0, spins[:, 8] > 0
    assert chi[1, 0, 0] == pytest.approx(2 * a.mean() - 1)
    assert chi[1, 2, 0] == pytest.approx(2 * (a == b).mean() - 1)
    odd = (a.astype(int) + b + c) % 2 == 1
    assert chi[1, 2, 3] == pytest.approx(2 * odd.mean() - 1)


def test_the_maps_are_linear_and_make_hermitian_matrices_of_unit_trace():
    p, q = (distribution(jax.random.normal(jax.random.key(k), (64,))) for k in range(2))
    mixed = expectations(0.3 * p + 0.7 * q)
    np.testing.assert_allclose(mixed, 0.3 * expectations(p) + 0.7 * expectations(q), atol=1e-12)
    rho = np.asarray(density_matrix(mixed))
    np.testing.assert_allclose(rho, rho.conj().T, atol=1e-14)
    assert np.trace(rho).real == pytest.approx(1)


def test_one_configuration_is_no_quantum_state():
    rho = np.asarray(density_matrix(expectations(jnp.eye(8)[7])))
    with pytest.raises(ValueError, match="eigenvalue"):
        check_density_matrix("rho", rho)


def test_products_of_single_spins_fulfil_every_quantum_constraint():
    rng = np.random.default_rng(5)
    for qubits in (3, 4):
        single = np.sign(rng.normal(size=(50, 3 * qubits)))
        site = np.concatenate([np.ones((50, qubits, 1)), single.reshape(50, qubits, 3)], axis=2)
        columns = [np.prod([site[:, q, mu] for q, mu in enumerate(index)], axis=0) for index in extended_spins(qubits)]
        chi, miss = extended_correlations(np.array(columns).T)
        assert miss < 1e-12
        np.testing.assert_allclose(chi, correlations(jnp.asarray(single)), atol=1e-12)


def test_independent_pair_spins_miss_the_quantum_constraint():
    spins = np.sign(np.random.default_rng(6).normal(size=(50, 36)))
    assert extended_correlations(spins)[1] > 0.05


def test_weights_in_single_precision_sum_to_1_as_well_as_they_can():
    spins = jnp.asarray(configurations(12), jnp.float32)
    weights = jax.nn.softmax(3 * jax.random.normal(jax.random.key(0), (4096,), jnp.float32))
    chi = correlations(spins, weights)
    assert chi.dtype == jnp.float32
    assert chi[0, 0, 0, 0] == pytest.approx(1, abs=1e-5)
    # Sums of 4,096 terms in another order: their rounding is that of processors, too.
    np.testing.assert_allclose(jax.jit(correlations)(spins, weights), chi, atol=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: expectations(jnp.ones(32)), r"\(8\^Q,\)"),
        (lambda: correlations(jnp.ones((5, 4))), "every qubit has 3"),
        (lambda: correlations(jnp.ones((5, 3)), np.ones(4) / 4), r"weights has shape \(4,\); it must be \(5,\)"),
        (lambda: correlations(jnp.ones((2, 3)), np.array([0.4, 0.4])), "weights has the sum 0.8; it must be 1"),
        (lambda: correlations(jnp.ones((2, 3)), np.array([1, np.nan])), r"weights\[1\] is nan"),
        (lambda: extended_correlations(np.ones((2, 15)), np.ones(2)), "weights has the sum 2; it must be 1"),
        (lambda: density_matrix(jnp.ones((4, 3))), r"\(4,\) \* Q"),
        (lambda: coefficients(np.eye(3)), "power of two"),
        (lambda: extended_correlations(np.ones((5, 9))), "15, 36, 66"),
        (lambda: configurations(40), "spins is 40"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
