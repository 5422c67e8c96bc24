"""Learning to be a quantum state: probabilities of spins, gates on them, and what an estimated matrix is worth."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Complex, Float

from morphax._checks import check_shape, is_concrete
from morphax.learning.minimise import Minimum, minimise
from morphax.quantum.correlation_map import (
    coefficients,
    density_matrix,
    distribution,
    expectations,
    squared_distance,
)
from morphax.quantum.states import check_unitary, fidelity, nearest_density_matrix, number_of_qubits


def realised(amplitudes: Float[Array, " configurations"]) -> Float[Array, "..."]:
    r"""$\chi$ of the probabilities of a classical wave function q: $(g \circ h)(q)$ (Eq. 17)."""
    return expectations(distribution(amplitudes))


def learn_distribution(
    target: Float[Array, "..."],
    start: Float[Array, " configurations"],
    optimiser: optax.GradientTransformation,
    *,
    iterations: int = 5000,
    tolerance: float = 1e-10,
) -> Minimum:
    r"""A classical wave function whose probabilities make a density matrix, by descent (Eq. 14).

    $$ l_\rho(q) = |(b \circ h)(q) - \rho|_2^2 $$

    Where no distribution realises the state (`morphax.quantum.realisability`) it ends at the exact minimum. Jit and
    vmap work.

    **Arguments:**

    - `target`: coefficients $\chi$ of the density matrix, shape (4,) * Q.
    - `start`: first q, shape $(8^Q,)$.
    - `optimiser`, `iterations`, `tolerance`: as for `minimise`.

    **Raises:** `ValueError` for other shapes.

        >>> import jax, jax.numpy as jnp, optax
        >>> from morphax.learning.quantum_states import learn_distribution
        >>> from morphax.quantum.correlation_map import coefficients
        >>> mixed = coefficients(jnp.eye(4) / 4)
        >>> q = jax.random.normal(jax.random.key(0), (64,))
        >>> bool(learn_distribution(mixed, q, optax.sgd(10.0), tolerance=1e-8).converged)
        True
    """
    check_shape("target", target, (4,) * target.ndim)
    check_shape("start", start, (8**target.ndim,))
    return minimise(
        lambda q: squared_distance(realised(q), target), start, optimiser, iterations=iterations, tolerance=tolerance
    )


def learn_gate(
    amplitudes: Float[Array, " configurations"],
    unitary: Complex[Array | np.ndarray, "states states"],
    optimiser: optax.GradientTransformation,
    *,
    start: Float[Array, "configurations configurations"] | None = None,
    iterations: int = 5000,
    tolerance: float = 1e-10,
) -> Minimum:
    r"""A matrix M that carries out a gate on a classical wave function q, by descent (Eq. 15).

    $$ l_U(M) = |U \, (b \circ h)(q) \, U^\dagger - (b \circ h)(M q)|_2^2 $$

    M depends on q: what follows from it, $q' = M(q) q$, is not a linear map. `start` is the first M, the unit matrix by
    default. Jit and vmap work.

    **Raises:** `ValueError` for a gate that is not unitary (where its numbers are known) or acts on other qubits.
    """
    qubits = number_of_qubits("unitary", unitary)
    check_shape("amplitudes", amplitudes, (8**qubits,))
    if is_concrete(unitary):
        check_unitary("unitary", unitary)
    target = after_gate(amplitudes, unitary)
    first = jnp.eye(amplitudes.shape[0], dtype=amplitudes.dtype) if start is None else start
    return minimise(
        lambda M: squared_distance(realised(M @ amplitudes), target),
        first,
        optimiser,
        iterations=iterations,
        tolerance=tolerance,
    )


def after_gate(
    amplitudes: Float[Array, " configurations"], unitary: Complex[Array | np.ndarray, "states states"]
) -> Array:
    r"""$\chi$ of $U \rho U^\dagger$ for the state $\rho$ of a classical wave function."""
    U = jnp.asarray(unitary)
    return coefficients(U @ density_matrix(realised(amplitudes)) @ U.conj().T)


def apply_gates(
    amplitudes: Float[Array, " configurations"],
    gates: Sequence[ArrayLike] | Complex[Array | np.ndarray, "gates states states"],
    optimiser: optax.GradientTransformation,
    *,
    iterations: int = 5000,
    tolerance: float = 1e-10,
) -> Minimum:
    r"""A sequence of gates on the classical representation, $q \to M q$ for each; M is learned anew at every gate.

    **Returns:** q after every gate (`argument`, shape (gates, configurations)), and loss, iterations and convergence of
    each. A gate aims at what it would make of what was reached before it, so that errors add up as they would in a
    machine. Jit and vmap over q work.

    **Raises:** `ValueError` for a gate that is not unitary.
    """
    for index, gate in enumerate(gates):
        check_unitary(f"gates[{index}]", gate)

    def apply(q: Array, unitary: Array) -> tuple[Array, Minimum]:
        learned = learn_gate(q, unitary, optimiser, iterations=iterations, tolerance=tolerance)
        q = learned.argument @ q
        return q, learned._replace(argument=q)

    return jax.lax.scan(apply, amplitudes, jnp.asarray(gates))[1]


class Estimate(NamedTuple):
    """What a matrix from measured correlations is worth as a quantum state.

    - `fidelity`: of the nearest density matrix with the target.
    - `raw_fidelity`: of the matrix as it is, real part; without meaning where the matrix is far from positive.
    - `smallest_eigenvalue`: of the matrix as it is; below 0 it is no state.
    - `distance`: Frobenius distance to the nearest density matrix.
    """

    fidelity: Float[np.ndarray, "..."]
    raw_fidelity: Float[np.ndarray, "..."]
    smallest_eigenvalue: Float[np.ndarray, "..."]
    distance: Float[np.ndarray, "..."]


def judge_estimate(matrix: Complex[np.ndarray, "... states states"], rho: ArrayLike) -> Estimate:
    r"""Fidelity of an estimated matrix with a density matrix; leading axes of both are batches.

    Correlations of spins make a Hermitian matrix of unit trace that need not be positive. It is therefore projected to
    the nearest density matrix first. The fidelity of the matrix as it is stands beside it: neurons that never
    change can have 1 with an entangled state.

        >>> import numpy as np
        >>> from morphax.learning.quantum_states import judge_estimate
        >>> from morphax.quantum.states import ghz_state
        >>> outside = np.diag([1.5, 0.0, 0.0, -0.5])
        >>> estimate = judge_estimate(outside, ghz_state(2))
        >>> [round(float(value), 6) for value in estimate]
        [0.5, 0.5, -0.5, 0.707107]
    """
    estimated, target = np.asarray(matrix), np.asarray(rho)
    nearest = nearest_density_matrix(estimated)
    # sqrt(rho) X sqrt(rho) has the eigenvalues of rho X.
    raw = (np.sum(np.sqrt(np.linalg.eigvals(target @ estimated).astype(complex)), -1) ** 2).real
    return Estimate(
        fidelity(nearest, target),
        raw,
        np.linalg.eigvalsh(estimated)[..., 0],
        np.sqrt(np.sum(np.abs(nearest - estimated) ** 2, (-2, -1))),
    )
