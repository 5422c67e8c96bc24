import jax
import numpy as np
import pytest
import qutip
from scipy.linalg import logm, sqrtm

from morphax.quantum import states
from morphax.quantum.states import (
    CNOT,
    HADAMARD,
    check_density_matrix,
    check_unitary,
    fidelity,
    ghz_state,
    nearest_density_matrix,
    on_qubit,
    phase_gate,
    pure_state,
    random_density_matrix,
    random_unitary,
    relative_entropy,
    w_state,
)

pytestmark = pytest.mark.usefixtures("double")


def drawn(seed, qubits=2, rank=None):
    return np.asarray(random_density_matrix(qubits, rank, key=jax.random.key(seed)))


@pytest.mark.parametrize("ranks", [(None, None), (1, None), (2, 2), (1, 1)])
def test_fidelity_agrees_with_qutip(ranks):
    rho, sigma = drawn(0, 2, ranks[0]), drawn(1, 2, ranks[1])
    # QuTiP takes a square root of rounding errors of pure states.
    expected = qutip.fidelity(qutip.Qobj(rho), qutip.Qobj(sigma)) ** 2
    assert fidelity(rho, sigma) == pytest.approx(expected, abs=1e-6)
    assert fidelity(rho, sigma) == pytest.approx(fidelity(sigma, rho), abs=1e-12)


def test_fidelity_of_a_state_with_itself_is_1_and_batches_agree():
    many = np.array([drawn(k, 2, rank) for k, rank in enumerate((1, 2, 4))])
    np.testing.assert_allclose(fidelity(many, many), 1, atol=1e-7)
    np.testing.assert_allclose(fidelity(many, many[0]), [float(fidelity(m, many[0])) for m in many], atol=1e-12)


def test_relative_entropy_by_matrix_logarithms():
    rho, sigma = drawn(2), drawn(3)
    logs = [np.asarray(logm(matrix)) for matrix in (rho, sigma)]
    expected = np.trace(rho @ (logs[0] - logs[1])).real
    assert relative_entropy(rho, sigma) == pytest.approx(expected, abs=1e-10)
    assert relative_entropy(rho, rho) == pytest.approx(0, abs=1e-10)
    assert np.isinf(relative_entropy(rho, pure_state([1, 0, 0, 0])))
    assert relative_entropy(pure_state([1, 0, 0, 0]), rho) == pytest.approx(-logs[0][0, 0].real, abs=1e-9)


def test_nearest_density_matrix_is_one_and_no_other_is_nearer():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(4, 4)) + 1j * rng.normal(size=(4, 4))
    X = (X + X.conj().T) / 4
    X = X + (1 - np.trace(X).real) / 4 * np.eye(4)
    assert np.linalg.eigvalsh(X)[0] < -0.1
    nearest = nearest_density_matrix(X)
    check_density_matrix("nearest", nearest)
    # The projection P of X to a convex set has tr (X - P) (Y - P) <= 0 for all Y of the set.
    others = np.array([drawn(k, 2, 1 + k % 4) for k in range(200)])
    assert np.max(np.einsum("ij,nji->n", X - nearest, others - nearest).real) < 1e-12


def test_nearest_density_matrix_leaves_density_matrices_alone():
    many = np.array([drawn(k, 2, 1 + k % 4) for k in range(8)])
    np.testing.assert_allclose(nearest_density_matrix(many), many, atol=1e-12)


def test_random_density_matrices_have_the_mean_purity_of_their_ensemble():
    # Hilbert-Schmidt: E tr rho^2 = 2 n / (n^2 + 1); of rank k: (n + k) / (n k + 1). Standard error < 0.002 here.
    for rank, expected in ((None, 8 / 17), (2, 6 / 9), (1, 1.0)):
        draw = jax.vmap(lambda key, rank=rank: random_density_matrix(2, rank, key=key))
        rho = np.asarray(draw(jax.random.split(jax.random.key(0), 4000)))
        purity = np.einsum("nij,nji->n", rho, rho).real
        assert purity.mean() == pytest.approx(expected, abs=6e-3)
        check_density_matrix("rho", rho[0])


def test_random_unitaries_have_the_moment_of_haar():
    # E |U_00|^4 = 2 / (n (n + 1)) = 1 / 10; standard error about 0.004 with 1000 draws.
    keys = jax.random.split(jax.random.key(1), 1000)
    elements = np.array([np.asarray(random_unitary(2, key=key))[0, 0] for key in keys[:300]])
    check_unitary("U", np.asarray(random_unitary(2, key=keys[0])))
    assert np.mean(np.abs(elements) ** 4) == pytest.approx(0.1, abs=0.03)


def test_gates_make_the_bell_state_and_turn_it():
    zero = pure_state([1, 0, 0, 0])
    turn = on_qubit(phase_gate(1 / 8), 0, 2) @ CNOT @ on_qubit(HADAMARD, 0, 2)
    np.testing.assert_allclose(turn @ zero @ turn.conj().T, ghz_state(2, 1 / 8), atol=1e-12)


def test_w_state_has_one_excitation():
    number = sum(np.asarray(on_qubit(np.diag([1, -1]), q, 3)) for q in range(3))
    assert np.trace(w_state(3) @ number).real == pytest.approx(1)
    assert states.number_of_qubits("rho", w_state(3)) == 3


def test_root_agrees_with_scipy():
    rho = drawn(4)
    sigma = drawn(5)
    root = sqrtm(rho)
    assert fidelity(rho, sigma) == pytest.approx(np.trace(sqrtm(root @ sigma @ root)).real ** 2, abs=1e-8)


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.eye(3) / 3, "power of two"),
        (np.ones((2, 4)), "square"),
        (np.array([[0.5, 0.1], [0.0, 0.5]]), "adjoint by 0.1"),
        (np.eye(2), "trace 2"),
        (np.diag([1.2, -0.2]), "eigenvalue -0.2"),
        (np.diag([np.nan, 1.0]), "finite"),
    ],
)
def test_what_is_no_density_matrix_is_refused_with_the_amount(matrix, message):
    with pytest.raises(ValueError, match=message):
        check_density_matrix("rho", matrix)


def test_what_is_not_unitary_is_refused_with_the_amount():
    with pytest.raises(ValueError, match=r"differs from 1 by 0\.21"):
        check_unitary("gate", 1.1 * np.eye(2))
    with pytest.raises(ValueError, match="acts on 1 qubits"):
        check_unitary("gate", np.eye(2), qubits=2)
    with pytest.raises(ValueError, match="qubit is 2"):
        on_qubit(HADAMARD, 2, 2)
    with pytest.raises(ValueError, match="norm 0"):
        pure_state([0, 0])
