r"""Density matrices from correlations of Ising spins.

Three Ising spins $s_k = \pm 1$ stand for the three Cartesian directions of a qubit. Expectation values and correlations
of the spins of Q qubits, with $s_0 = 1$,

$$ \chi_{\mu_1 \dots \mu_Q} = \left\langle s^{(1)}_{\mu_1} \cdots s^{(Q)}_{\mu_Q} \right\rangle, \qquad
   \rho = 2^{-Q} \sum_\mu \chi_{\mu_1 \dots \mu_Q} \, \tau_{\mu_1} \otimes \cdots \otimes \tau_{\mu_Q}, $$

make a Hermitian matrix of unit trace, whatever the spins do; it is a density matrix when it is positive too. A
configuration of the 3Q spins is a number from 0 to $8^Q - 1$ whose binary digits are the spins, the first spin of the
first qubit first, 1 for +1 and 0 for -1.

Source: Pehle & Wetterich, Phys. Rev. E 106, 045311 (2022), Eqs. 1-13, 33-36 (the order of the indices in Eq. 1
contradicts Eqs. 6-9; here as in these) and 52-53.
"""

import itertools
import math
import string

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Complex, Float

from morphax._checks import check_count, check_finite, check_shape, is_concrete
from morphax.quantum.states import PAULI, number_of_qubits


def configurations(spins: int) -> Float[np.ndarray, "configurations spins"]:
    """All configurations of Ising spins, +1 or -1, in the order of their numbers.

    >>> from morphax.quantum.correlation_map import configurations
    >>> configurations(6)[3].tolist()
    [-1.0, -1.0, -1.0, -1.0, 1.0, 1.0]
    """
    check_count("spins", spins, 1, 24)
    numbers = np.arange(2**spins)[:, None]
    return 2.0 * (numbers >> np.arange(spins - 1, -1, -1) & 1) - 1


# Values of (s_0, s_1, s_2, s_3) in the eight configurations of one qubit's spins.
SITE = np.concatenate([np.ones((8, 1)), configurations(3)], axis=1).T


def density_matrix(coefficients: Float[Array, "..."]) -> Complex[Array, "states states"]:
    r"""$\rho$ of coefficients $\chi$, shape (4,) * Q (Eqs. 3, 34).

    >>> import numpy as np
    >>> from morphax.quantum.correlation_map import coefficients, density_matrix
    >>> from morphax.quantum.states import ghz_state
    >>> bool(np.allclose(density_matrix(coefficients(ghz_state(2))), ghz_state(2)))
    True
    """
    check_finite("coefficients", coefficients)
    chi = jnp.asarray(coefficients)
    if chi.ndim < 1 or set(chi.shape) != {4}:
        raise ValueError(f"coefficients has shape {chi.shape}; it must be (4,) * Q for Q qubits")
    mu, rows, columns = _indices(chi.ndim)
    sites = [m + r + c for m, r, c in zip(mu, rows, columns, strict=True)]
    tensor = _contract([mu, *sites], rows + columns, chi, *[PAULI] * chi.ndim)
    return tensor.reshape(2**chi.ndim, 2**chi.ndim) / 2**chi.ndim


def coefficients(rho: ArrayLike) -> Float[Array, "..."]:
    r"""$\chi_\mu = \mathrm{tr} (\rho \, \tau_{\mu_1} \otimes \cdots)$, shape (4,) * Q.

    **Raises:** `ValueError` where the size of rho is no power of two.
    """
    qubits = number_of_qubits("rho", rho)
    check_finite("rho", rho)
    mu, rows, columns = _indices(qubits)
    sites = [m + c + r for m, r, c in zip(mu, rows, columns, strict=True)]
    tensor = jnp.asarray(rho).reshape((2,) * (2 * qubits))
    return _contract([rows + columns, *sites], mu, tensor, *[PAULI] * qubits).real


def squared_distance(first: Float[Array, "..."], second: Float[Array, "..."]) -> Float[Array, ""]:
    r"""$|\rho - \sigma|_2^2 = 2^{-Q} \sum (\chi - \chi')^2$ of two matrices by their coefficients, shape (4,) * Q."""
    return jnp.sum((first - second) ** 2) / 2 ** jnp.ndim(first)


def distribution(amplitudes: Float[Array, "..."]) -> Float[Array, "..."]:
    r"""$p_\tau = q_\tau^2 / \sum q^2$ of a classical wave function (Eqs. 12, 13)."""
    check_finite("amplitudes", amplitudes)
    squares = jnp.square(jnp.asarray(amplitudes, jnp.result_type(amplitudes, float)))
    total = jnp.sum(squares)
    if is_concrete(total) and not total:
        raise ValueError("amplitudes is 0 everywhere; some configuration must have one")
    return squares / total


def expectations(probabilities: Float[Array, " configurations"]) -> Float[Array, "..."]:
    r"""$\chi$, shape (4,) * Q, of probabilities of all $8^Q$ configurations (Eqs. 6-9, 35).

    The map is linear and factorises into a 4 x 8 matrix for every qubit, applied one after the other: the whole matrix,
    $4^Q \times 8^Q$, is never formed.

    **Raises:** `ValueError` for a number of probabilities that is no power of 8.

        >>> import numpy as np
        >>> from morphax.quantum.correlation_map import expectations
        >>> expectations(np.eye(64)[3])[0].tolist()                    # the second qubit's spins are -1, 1, 1
        [1.0, -1.0, 1.0, 1.0]
    """
    number = np.shape(probabilities)[0]
    qubits = round(np.log2(max(number, 1)) / 3)
    if np.ndim(probabilities) != 1 or qubits < 1 or number != 8**qubits:
        raise ValueError(f"probabilities has shape {np.shape(probabilities)}; it must be (8^Q,) for Q qubits")
    check_finite("probabilities", probabilities)
    tensor = jnp.asarray(probabilities, jnp.result_type(probabilities, float)).reshape((8,) * qubits)
    for _ in range(qubits):
        tensor = jnp.tensordot(tensor, jnp.asarray(SITE, tensor.dtype), axes=(0, 1))
    return tensor


def correlations(spins: ArrayLike, weights: ArrayLike | None = None) -> Float[Array, "..."]:
    r"""$\chi$ of 3Q Ising spins in samples: a time average (Eqs. 18, 19, 36), or with the samples' weights.

    **Arguments:**

    - `spins`: +1 or -1, shape (samples, spins), three a qubit; the first axis is time, or counts configurations.
    - `weights`: shape (samples,), finite, of sum 1: it is the trace of $\rho$. None: equal.

    **Returns:** shape (4,) * Q.

    **Raises:** `ValueError` for a number of spins that is no multiple of 3, and weights of another shape or sum.
    """
    check_shape("spins", spins, (None, None))
    check_finite("spins", spins)
    samples, number = np.shape(spins)
    if number % 3 or not number:
        raise ValueError(f"spins has {number} columns; every qubit has 3")
    spins = jnp.asarray(spins, jnp.result_type(spins, float))
    _check_weights(weights, samples)
    share = jnp.full(samples, 1 / samples, spins.dtype) if weights is None else jnp.asarray(weights)
    sites = [
        jnp.concatenate([jnp.ones((samples, 1), spins.dtype), s], axis=1) for s in jnp.split(spins, number // 3, 1)
    ]
    product = sites[0] * share[:, None]
    for site in sites[1:-1]:
        product = (product[:, :, None] * site[:, None, :]).reshape(samples, -1)
    product = product.T @ sites[-1] if len(sites) > 1 else jnp.sum(product, 0)
    return product.reshape((4,) * len(sites))


def extended_spins(qubits: int) -> list[tuple[int, ...]]:
    r"""What the spins of the extended map stand for: their index $\mu$, one or two entries of which are not 0.

    $3 Q$ single spins, qubit by qubit, then $9 Q (Q - 1) / 2$ pair spins, pair by pair.
    """
    check_count("qubits", qubits, 2)
    groups = [(q,) for q in range(qubits)] + list(itertools.combinations(range(qubits), 2))
    return [
        tuple(dict(zip(group, axes, strict=True)).get(q, 0) for q in range(qubits))
        for group in groups
        for axes in itertools.product((1, 2, 3), repeat=len(group))
    ]


def extended_correlations(
    spins: Float[np.ndarray, "samples spins"], weights: ArrayLike | None = None
) -> tuple[Float[np.ndarray, "..."], float]:
    r"""$\chi$ of single and pair spins (Eqs. 52, 53), and by how much the quantum constraint is missed.

    With one or two entries of $\mu$ not 0, $\chi_\mu$ is the expectation value of a spin of its own. With more it is a
    correlation of pair spins, and one single spin where their number is odd. All ways to make it of them must agree:
    the quantum constraint. The mean of them is returned, and the largest difference from it.

    **Arguments:** as for `correlations`, with spins in the order of `extended_spins`.

    **Raises:** `ValueError` for a number of spins that belongs to no number of qubits, and weights of another shape or
    sum.
    """
    samples, number = np.shape(spins)
    qubits = next((q for q in range(2, 9) if 3 * q + 9 * q * (q - 1) // 2 == number), None)
    if qubits is None:
        raise ValueError(f"spins has {number} columns; Q qubits have 3 Q + 9 Q (Q - 1) / 2: 15, 36, 66, ...")
    _check_weights(weights, samples)
    share = np.full(samples, 1 / samples) if weights is None else np.asarray(weights)
    column = {index: place for place, index in enumerate(extended_spins(qubits))}
    chi, miss = np.zeros((4,) * qubits), 0.0
    for index in itertools.product(range(4), repeat=qubits):
        ways = [float(np.sum(share * math.prod(spins[:, column[part]] for part in parts))) for parts in _ways(index)]
        chi[index] = np.mean(ways)
        miss = max(miss, float(np.max(np.abs(np.array(ways) - chi[index]))))
    return chi, miss


def _check_weights(weights: ArrayLike | None, samples: int) -> None:
    """Refuse weights that are no mean over the samples."""
    if weights is None:
        return
    check_shape("weights", weights, (samples,))
    check_finite("weights", weights)
    if is_concrete(weights):
        total = float(np.sum(np.asarray(weights, float)))
        if abs(total - 1) > 1e-5:
            raise ValueError(f"weights has the sum {total:g}; it must be 1")


def _ways(index: tuple[int, ...]) -> list[list[tuple[int, ...]]]:
    """The ways to write an index as a sum of such with two entries not 0, and one with one where the number is odd."""
    places = [q for q, mu in enumerate(index) if mu]

    def part(chosen: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(mu if q in chosen else 0 for q, mu in enumerate(index))

    def split(rest: list[int]) -> list[list[tuple[int, ...]]]:
        if not rest:
            return [[]]
        if len(rest) % 2:
            return [[part((alone,)), *more] for alone in rest for more in split([q for q in rest if q != alone])]
        first, *others = rest
        return [
            [part((first, second)), *more] for second in others for more in split([q for q in others if q != second])
        ]

    return split(places)


def _indices(qubits: int) -> tuple[str, str, str]:
    """Letters for mu, rows and columns of every qubit."""
    letters = string.ascii_letters
    return letters[:qubits], letters[qubits : 2 * qubits], letters[2 * qubits : 3 * qubits]


def _contract(operands: list[str], result: str, *tensors: ArrayLike) -> Array:
    typed = [jnp.asarray(tensor, jnp.result_type(complex)) for tensor in tensors]
    return jnp.einsum(f"{','.join(operands)}->{result}", *typed, optimize="greedy")
