"""What the experiments on quantum states share: ensembles of density matrices, and how they are drawn."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PRNGKeyArray

from morphax.learning.minimise import Minimum
from morphax.learning.quantum_states import learn_distribution
from morphax.quantum.states import (
    CNOT,
    HADAMARD,
    ghz_state,
    on_qubit,
    phase_gate,
    random_density_matrix,
    random_unitary,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GATES = {"CNOT": CNOT, "Hadamard": on_qubit(HADAMARD, 0, 2), "R 1/8": on_qubit(phase_gate(1 / 8), 0, 2)}
BELL = ghz_state(2)
TURNED = ghz_state(2, turns=1 / 8)


def _of_rank(rank: int | None) -> Callable[[PRNGKeyArray, int, int], np.ndarray]:
    def draw(key: PRNGKeyArray, number: int, qubits: int) -> np.ndarray:
        keys = jax.random.split(key, number)
        return np.asarray(jax.vmap(lambda k: random_density_matrix(qubits, rank, key=k))(keys))

    return draw


def _maximally_entangled(key: PRNGKeyArray, number: int, qubits: int) -> np.ndarray:
    """A Bell state turned by one random unitary for each of two qubits."""
    if qubits != 2:
        raise ValueError(f"qubits is {qubits}; maximally entangled states are those of 2")
    pairs = jax.vmap(lambda key: jax.random.split(key, 2))(jax.random.split(key, number))
    turns = np.asarray(jax.vmap(jax.vmap(lambda key: random_unitary(1, key=key)))(pairs))
    unitaries = np.array([np.kron(*pair) for pair in turns])
    return unitaries @ BELL @ np.swapaxes(unitaries.conj(), -1, -2)


def _chain(rank: int | None) -> Callable[[PRNGKeyArray, int, int], np.ndarray]:
    def draw(key: PRNGKeyArray, number: int, qubits: int) -> np.ndarray:
        rho = np.asarray(random_density_matrix(qubits, rank, key=key))
        gates, states = list(GATES.values()), []
        for index in range(number):
            states.append(rho)
            gate = gates[index % len(gates)]
            rho = gate @ rho @ gate.conj().T
        return np.array(states)

    return draw


ENSEMBLES = {
    "chain": _chain(None),
    "Hilbert-Schmidt": _of_rank(None),
    "rank 4": _of_rank(4),
    "rank 3": _of_rank(3),
    "rank 2": _of_rank(2),
    "pure": _of_rank(1),
    "chain, pure": _chain(1),
    "maximally entangled": _maximally_entangled,
}
"""Random density matrices of (key, number, qubits); chains: CNOT, Hadamard, R 1/8 in turn from one random matrix."""


def amplitudes(key: PRNGKeyArray, number: int, qubits: int) -> jax.Array:
    """Classical wave functions with normal components, where descents begin."""
    return jax.random.normal(key, (number, 8**qubits), jnp.result_type(float))


def draw_coefficients(axes: Axes, chi: np.ndarray, title: str, limit: float = 1.0) -> None:
    """Expectation values and correlations of two qubits as a 4 x 4 picture."""
    shown = np.where(np.arange(16).reshape(4, 4) == 0, np.nan, chi)
    picture = axes.imshow(shown, vmin=-limit, vmax=limit, cmap="RdBu_r")
    axes.set_xticks(range(4), ["", "1", "2", "3"])
    axes.set_yticks(range(4), ["", "1", "2", "3"])
    axes.grid(False)
    axes.set(title=title, xlabel="spin of the second qubit", ylabel="of the first")
    axes.figure.colorbar(picture, ax=axes, shrink=0.8)


@eqx.filter_jit
def descend(targets: Array, starts: Array, learning_rate: float, iterations: int, tolerance: float) -> Minimum:
    """Plain descent to the distributions of many states at once."""
    optimiser = optax.sgd(learning_rate)

    def one(target: Array, start: Array) -> Minimum:
        return learn_distribution(target, start, optimiser, iterations=iterations, tolerance=tolerance)

    return jax.vmap(one)(targets, starts)
