"""Learning to be a quantum state: probabilities of spins, gates on them, and what spiking neurons are trained for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Complex, Float

from morphax._checks import check_count, check_shape, is_concrete
from morphax.learning.minimise import Minimum, minimise
from morphax.learning.train import Metrics
from morphax.quantum.correlation_map import coefficients, correlations, density_matrix, distribution, expectations
from morphax.quantum.states import check_unitary, fidelity, nearest_density_matrix, number_of_qubits

SMALLEST = 1e-12  # probability below which a Kullback-Leibler divergence grows no steeper


def squared_distance(first: Float[Array, "..."], second: Float[Array, "..."]) -> Float[Array, ""]:
    r"""$|\rho - \sigma|_2^2 = 2^{-Q} \sum (\chi - \chi')^2$ of two matrices by their coefficients, shape (4,) * Q."""
    return jnp.sum((first - second) ** 2) / 2 ** jnp.ndim(first)


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
    target = turned(amplitudes, unitary)
    first = jnp.eye(amplitudes.shape[0], dtype=amplitudes.dtype) if start is None else start
    return minimise(
        lambda M: squared_distance(realised(M @ amplitudes), target),
        first,
        optimiser,
        iterations=iterations,
        tolerance=tolerance,
    )


def turned(amplitudes: Float[Array, " configurations"], unitary: Complex[Array | np.ndarray, "states states"]) -> Array:
    r"""$\chi$ of $U \rho U^\dagger$ for the state $\rho$ of a classical wave function."""
    U = jnp.asarray(unitary)
    return coefficients(U @ density_matrix(realised(amplitudes)) @ U.conj().T)


def carry_out(
    amplitudes: Float[Array, " configurations"],
    gates: Sequence[ArrayLike] | Complex[Array | np.ndarray, "gates states states"],
    optimiser: optax.GradientTransformation,
    *,
    iterations: int = 5000,
    tolerance: float = 1e-10,
) -> Minimum:
    r"""A sequence of gates on the classical representation, $q \to M q$ for each; M is learned anew at every gate.

    **Returns:** q after every gate (`argument`, shape (gates, configurations)), and loss, iterations and convergence of
    each. A gate aims at the turn of what was reached before it, so that errors add up as they would in a machine. Jit
    and vmap over q work.

    **Raises:** `ValueError` for a gate that is not unitary.
    """
    for index, gate in enumerate(gates):
        check_unitary(f"gates[{index}]", gate)

    def apply(q: Array, unitary: Array) -> tuple[Array, Minimum]:
        learned = learn_gate(q, unitary, optimiser, iterations=iterations, tolerance=tolerance)
        q = learned.argument @ q
        return q, learned._replace(argument=q)

    return jax.lax.scan(apply, amplitudes, jnp.asarray(gates))[1]


@dataclass(frozen=True)
class DensityMatrixLoss:
    r"""Objective: how far the correlations of neurons are from those of a quantum state (Eqs. 18, 19, 32, 36).

    $$ l = |\rho - f(\chi)|_2^2, \qquad \chi_\mu = \overline{s^{(1)}_{\mu_1} \cdots s^{(Q)}_{\mu_Q}}, \qquad
       s = 2 z - 1 $$

    The mean is over time and over examples, which are independent chains of one network; a chain needs time to forget
    how it began. Outputs are activities z, shape (chains, inputs, activities), of 3Q neurons; targets are coefficients
    $\chi$, shape (chains, 4, ..., 4), the same for every chain.

    **Arguments:**

    - `burn_in`: time steps of every chain that do not count.

    Metrics: "loss", and the "coefficients" $\chi$.
    """

    burn_in: int = 0

    def __call__(
        self, outputs: Float[Array, "chains inputs activities"], targets: Float[Array, "chains ..."]
    ) -> Metrics:
        spins = 2 * activities(outputs, 3 * (targets.ndim - 1), self.burn_in) - 1
        chi = correlations(spins)
        return {"loss": squared_distance(chi, targets[0]), "coefficients": chi}


@dataclass(frozen=True)
class CategoricalLoss:
    r"""Objective: how far the states of neurons are from a distribution (Eqs. B1, B2).

    $$ KL(p_s | p_t) = \sum_z p_s(z) \ln \frac{p_s(z)}{p_t(z)} $$

    $p_s(z)$ is the share of time, over all examples, in which the activities of n neurons are z; the first neuron is
    the most significant binary digit. Targets are $p_t > 0$, shape (chains, 2^n), the same for every chain.

    **Arguments:**

    - `neurons`: n.
    - `burn_in`: time steps of every chain that do not count.

    Metrics: "loss" in nats, and the sampled "distribution".
    """

    neurons: int
    burn_in: int = 0

    def __call__(
        self, outputs: Float[Array, "chains inputs activities"], targets: Float[Array, "chains states"]
    ) -> Metrics:
        z = activities(outputs, self.neurons, self.burn_in)
        share = jnp.full((z.shape[0], 1), 1 / z.shape[0], z.dtype)
        for neuron in range(self.neurons):
            both = jnp.stack([1 - z[:, neuron], z[:, neuron]], axis=-1)
            share = (share[:, :, None] * both[:, None, :]).reshape(z.shape[0], -1)
        sampled = jnp.sum(share, axis=0)
        loss = jnp.sum(sampled * (jnp.log(sampled + SMALLEST) - jnp.log(targets[0])))
        return {"loss": loss, "distribution": sampled}


def activities(outputs: Float[Array, "chains inputs activities"], neurons: int, burn_in: int) -> Float[Array, "..."]:
    """Of all chains after their burn-in, one time step a row, shape (time, neurons).

    **Raises:** `ValueError` where nothing is left, or the activities are those of another number of neurons.
    """
    check_count("burn_in", burn_in, 0)
    chains, inputs, number = outputs.shape
    if number % neurons:
        raise ValueError(
            f"outputs has {number} activities an input; {neurons} neurons are measured, in every time step"
        )
    steps = inputs * (number // neurons)
    if burn_in >= steps:
        raise ValueError(f"burn_in is {burn_in}; a chain has {steps} time steps")
    return outputs.reshape(chains, steps, neurons)[:, burn_in:].reshape(-1, neurons)


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
