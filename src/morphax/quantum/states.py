"""States and gates of qubits, and how far states are from each other."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Complex, Float, PRNGKeyArray

from morphax._checks import check_count, check_finite, check_range

TOLERANCE = 1e-5  # of what a density matrix or a unitary must fulfil: single precision passes

CNOT = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]], complex)
HADAMARD = np.array([[1, 1], [1, -1]], complex) / np.sqrt(2)
PAULI = np.array([[[1, 0], [0, 1]], [[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]]])


def phase_gate(turns: float) -> Complex[np.ndarray, "2 2"]:
    r"""$R_t = \mathrm{diag}(1, e^{2 \pi i t})$; $R_{1/8}$ is the T gate."""
    check_range("turns", turns)
    return np.diag([1.0, np.exp(2j * np.pi * turns)])


def on_qubit(gate: ArrayLike, qubit: int, qubits: int) -> Complex[np.ndarray, "states states"]:
    """A gate for one qubit (counted from 0) as a gate for a register: 1 on the others."""
    check_unitary("gate", gate, qubits=1)
    check_count("qubit", qubit, 0, qubits - 1)
    return np.kron(np.kron(np.eye(2**qubit), np.asarray(gate)), np.eye(2 ** (qubits - qubit - 1)))


def pure_state(amplitudes: Sequence[complex] | ArrayLike) -> Complex[np.ndarray, "states states"]:
    r"""$|\psi\rangle\langle\psi|$, normalised.

    >>> from morphax.quantum.states import pure_state
    >>> pure_state([1, 0, 0, 1])[0].real.round(3).tolist()
    [0.5, 0.0, 0.0, 0.5]
    """
    vector = np.asarray(amplitudes, complex)
    check_finite("amplitudes", vector)
    norm = np.linalg.norm(vector)
    if vector.ndim != 1 or not norm:
        raise ValueError(f"amplitudes has shape {vector.shape} and norm {norm:g}; it must be a vector other than zero")
    vector = vector / norm
    return np.outer(vector, vector.conj())


def ghz_state(qubits: int, turns: float = 0.0) -> Complex[np.ndarray, "states states"]:
    r"""$(|0 \dots 0\rangle + e^{2 \pi i t} |1 \dots 1\rangle) / \sqrt 2$; of two qubits the Bell state $\psi_+$."""
    check_count("qubits", qubits, 1)
    amplitudes = np.zeros(2**qubits, complex)
    amplitudes[0], amplitudes[-1] = 1.0, np.exp(2j * np.pi * turns)
    return pure_state(amplitudes)


def w_state(qubits: int) -> Complex[np.ndarray, "states states"]:
    """One qubit in 1, all with equal amplitude."""
    check_count("qubits", qubits, 1)
    amplitudes = np.zeros(2**qubits)
    amplitudes[2 ** np.arange(qubits)] = 1.0
    return pure_state(amplitudes)


def random_density_matrix(
    qubits: int, rank: int | None = None, *, key: PRNGKeyArray
) -> Complex[Array, "states states"]:
    r"""$G G^\dagger / \mathrm{tr}$ with G (states, rank) complex normal.

    Rank 1 is a pure state, uniform after Haar; full rank, the default, is uniform in the Hilbert-Schmidt distance.

    Source: Zyczkowski & Sommers, J. Phys. A 34, 7111 (2001).
    """
    check_count("qubits", qubits, 1)
    size = 2**qubits
    columns = size if rank is None else rank
    check_count("rank", columns, 1, size)
    real, imaginary = jax.random.normal(key, (2, size, columns))
    ginibre = real + 1j * imaginary
    matrix = ginibre @ ginibre.conj().T
    return matrix / jnp.trace(matrix).real


def random_unitary(qubits: int, *, key: PRNGKeyArray) -> Complex[Array, "states states"]:
    """Uniform after Haar."""
    check_count("qubits", qubits, 1)
    return jax.random.orthogonal(key, 2**qubits, dtype=jnp.result_type(complex))


def number_of_qubits(name: str, matrix: ArrayLike) -> int:
    """Q of a matrix of shape (2^Q, 2^Q).

    **Raises:** `ValueError` for another shape.
    """
    shape = np.shape(matrix)
    if len(shape) != 2 or shape[0] != shape[1] or shape[0] < 2 or shape[0] & (shape[0] - 1):
        raise ValueError(f"{name} has shape {shape}; it must be square with a power of two as size")
    return shape[0].bit_length() - 1


def check_density_matrix(name: str, matrix: ArrayLike, qubits: int | None = None) -> int:
    """Refuse what is not Hermitian, of unit trace and positive, and say by how much; returns the number of qubits.

    **Raises:** `ValueError`.

        >>> import numpy as np
        >>> from morphax.quantum.states import check_density_matrix
        >>> check_density_matrix("rho", np.diag([1.5, -0.5]))
        Traceback (most recent call last):
            ...
        ValueError: rho has the eigenvalue -0.5; a density matrix has none below 0
    """
    found = number_of_qubits(name, matrix)
    _check_qubits(name, found, qubits)
    check_finite(name, matrix)
    rho = np.asarray(matrix)
    skew = float(np.max(np.abs(rho - rho.conj().T)))
    if skew > TOLERANCE:
        raise ValueError(f"{name} differs from its adjoint by {skew:g}; a density matrix is Hermitian")
    trace = float(np.trace(rho).real)
    if abs(trace - 1) > TOLERANCE:
        raise ValueError(f"{name} has trace {trace:g}; that of a density matrix is 1")
    smallest = float(np.linalg.eigvalsh(rho)[0])
    if smallest < -TOLERANCE:
        raise ValueError(f"{name} has the eigenvalue {smallest:g}; a density matrix has none below 0")
    return found


def check_unitary(name: str, matrix: ArrayLike, qubits: int | None = None) -> int:
    """Refuse what is not unitary, and say by how much; returns the number of qubits.

    **Raises:** `ValueError`.
    """
    found = number_of_qubits(name, matrix)
    _check_qubits(name, found, qubits)
    check_finite(name, matrix)
    U = np.asarray(matrix)
    off = float(np.max(np.abs(U @ U.conj().T - np.eye(len(U)))))
    if off > TOLERANCE:
        raise ValueError(f"{name} times its adjoint differs from 1 by {off:g}; it must be unitary")
    return found


def nearest_density_matrix(matrix: ArrayLike) -> Complex[np.ndarray, "... states states"]:
    """The density matrix that is nearest in the Frobenius norm to a Hermitian matrix; leading axes are a batch.

    Its eigenvalues are those of the matrix, projected to the probability simplex.

    **Raises:** `ValueError` for a matrix that is not Hermitian.

    Source: Smolin, Gambetta & Smith, Phys. Rev. Lett. 108, 070502 (2012).

        >>> import numpy as np
        >>> from morphax.quantum.states import nearest_density_matrix
        >>> nearest_density_matrix(np.diag([0.9, 0.4, 0.0, -0.3])).real.diagonal().round(3).tolist()
        [0.75, 0.25, 0.0, 0.0]
    """
    check_finite("matrix", matrix)
    hermitian = np.asarray(matrix)
    skew = float(np.max(np.abs(hermitian - np.swapaxes(hermitian.conj(), -1, -2))))
    if skew > TOLERANCE:
        raise ValueError(f"matrix differs from its adjoint by {skew:g}; it must be Hermitian")
    values, vectors = np.linalg.eigh(hermitian)
    # Of the thresholds that keep the n largest eigenvalues the last that keeps a positive one is the right one.
    falling = values[..., ::-1]
    numbers = np.arange(1, falling.shape[-1] + 1)
    thresholds = (np.cumsum(falling, -1) - 1) / numbers
    kept = np.sum(falling > thresholds, -1, keepdims=True)
    projected = np.maximum(values - np.take_along_axis(thresholds, kept - 1, -1), 0.0)
    return (vectors * projected[..., None, :]) @ np.swapaxes(vectors.conj(), -1, -2)


def fidelity(rho: ArrayLike, sigma: ArrayLike) -> Float[np.ndarray, "..."]:
    r"""$F = \left( \mathrm{tr} \sqrt{\sqrt\rho \, \sigma \sqrt\rho} \right)^2$; leading axes are a batch.

    It means something for density matrices only: project an estimate first (`nearest_density_matrix`). Of a matrix with
    negative eigenvalues these are taken as 0.

    **Raises:** `ValueError` for matrices that are not Hermitian, or hold NaN.

        >>> from morphax.quantum.states import fidelity, ghz_state, pure_state
        >>> round(float(fidelity(ghz_state(2), pure_state([1, 0, 0, 0]))), 6)
        0.5
    """
    _check_hermitian("rho", rho)
    _check_hermitian("sigma", sigma)
    root = _root(np.asarray(rho))
    # The trace of the square root of a positive matrix X X^dagger is the sum of the singular values of X.
    return np.sum(np.linalg.svd(root @ _root(np.asarray(sigma)), compute_uv=False), -1) ** 2


def relative_entropy(rho: ArrayLike, sigma: ArrayLike) -> Float[np.ndarray, "..."]:
    r"""$S(\rho \| \sigma) = \mathrm{tr} \, \rho (\ln \rho - \ln \sigma)$ in nats; leading axes are a batch.

    Infinite where rho has weight outside the support of sigma.

        >>> import numpy as np
        >>> from morphax.quantum.states import pure_state, relative_entropy
        >>> round(float(relative_entropy(pure_state([1, 0]), np.eye(2) / 2)), 6)       # ln 2
        0.693147
    """
    _check_hermitian("rho", rho)
    _check_hermitian("sigma", sigma)
    p, P = np.linalg.eigh(np.asarray(rho))
    q, Q = np.linalg.eigh(np.asarray(sigma))
    smallest = 1e-14
    p, q = np.maximum(p, 0.0), np.maximum(q, 0.0)
    overlap = np.abs(np.swapaxes(P.conj(), -1, -2) @ Q) ** 2
    weight = np.sum(p[..., :, None] * overlap, -2)
    own = np.sum(np.where(p > smallest, p * np.log(np.maximum(p, smallest)), 0.0), -1)
    crossed = np.where(q > smallest, weight * np.log(np.maximum(q, smallest)), 0.0)
    outside = np.sum(np.where(q > smallest, 0.0, weight), -1) > 1e-10
    return np.where(outside, np.inf, own - np.sum(crossed, -1))


def _check_hermitian(name: str, matrices: ArrayLike) -> None:
    """Of one matrix, or of a batch."""
    check_finite(name, matrices)
    matrices = np.asarray(matrices)
    if matrices.ndim < 2 or matrices.shape[-1] != matrices.shape[-2]:
        raise ValueError(f"{name} has shape {matrices.shape}; its last two axes must be those of a square matrix")
    skew = float(np.max(np.abs(matrices - np.swapaxes(matrices.conj(), -1, -2)), initial=0.0))
    if skew > TOLERANCE:
        raise ValueError(f"{name} differs from its adjoint by {skew:g}; a density matrix is Hermitian")


def _root(matrix: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrix)
    roots = np.sqrt(np.maximum(values, 0.0))
    return (vectors * roots[..., None, :]) @ np.swapaxes(vectors.conj(), -1, -2)


def _check_qubits(name: str, found: int, wanted: int | None) -> None:
    if wanted is not None and found != wanted:
        raise ValueError(f"{name} acts on {found} qubits; it must act on {wanted}")
