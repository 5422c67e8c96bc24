"""A whole register of qubits as a state vector: slow, exact, and the reference for what samples neuron by neuron."""

from collections.abc import Callable, Sequence

import numpy as np
from jax.typing import ArrayLike

from morphax._checks import check_count, check_finite, check_range, check_shape

Y = np.array([[0, -1j], [1j, 0]])
Z = np.diag([1.0, -1.0])
MOST_OUTCOMES = 20  # measurements in all layers together: a million joint outcomes
Angles = Callable[[Sequence[np.ndarray]], ArrayLike]


def rotation_y(angle: float) -> np.ndarray:
    r"""$R_Y(\theta) = e^{-i \theta Y / 2}$."""
    return np.cos(angle / 2) * np.eye(2) - 1j * np.sin(angle / 2) * Y


def rotation_zy(angle: float) -> np.ndarray:
    r"""$R_{ZY}(\theta) = e^{-i \theta Z \otimes Y / 2}$, shape (4, 4)."""
    return np.cos(angle / 2) * np.eye(4) - 1j * np.sin(angle / 2) * np.kron(Z, Y)


def outcome_distribution(qubits: int, layers: int, angles: Angles, strength: float) -> np.ndarray:
    r"""Joint distribution of all mid-circuit outcomes of a circuit with feed-forward.

    In every layer each qubit is rotated about y; then each is entangled with an ancilla in $(|0\rangle + |1\rangle) /
    \sqrt 2$ by $R_{ZY}(-g)$, and all ancillas are measured. All $2^N$ outcomes are followed, each with its own state of
    the whole register.

    **Arguments:**

    - `qubits`: N, 1 to 6; the vector holds neurons and ancillas, $4^N$ amplitudes.
    - `layers`: K, >= 1, with N K at most 20: there are $2^{NK}$ outcomes.
    - `angles`: rotation angles of the next layer, shape (N,), from the outcomes (+1 or -1) of all layers before.
    - `strength`: $g$ in $[0, \pi/2]$ rad.

    **Returns:** probabilities, shape (2,) * (layers * N), layer by layer; index 0 is the outcome +1.

    **Raises:** `ValueError` for numbers out of range, and for angles that are not N finite numbers.

    Source: Barney, Lakhdar-Hamina & Galitski (2025), Figs. 3 and 6, Eqs. 4 and 7.

        >>> from morphax.quantum.register import outcome_distribution
        >>> outcome_distribution(1, 1, lambda outcomes: [1.0], 1.5707963).round(4).tolist()  # (1 + cos 1) / 2
        [0.7702, 0.2298]
    """
    check_count("qubits", qubits, 1, 6)
    check_count("layers", layers, 1, MOST_OUTCOMES // qubits)
    check_range("strength", strength, low=0.0, high=np.pi / 2)
    probabilities = np.zeros((2**qubits,) * layers)
    start = np.zeros((2,) * qubits, complex)
    start[(0,) * qubits] = 1.0
    _follow(start, (), angles, float(strength), probabilities)
    return probabilities.reshape((2,) * (qubits * layers))


def _follow(
    state: np.ndarray, indices: tuple[int, ...], angles: Angles, strength: float, probabilities: np.ndarray
) -> None:
    """One layer for one (unnormalised) state of the register, then each of its outcomes."""
    qubits, layers = state.ndim, probabilities.ndim
    if len(indices) == layers:
        probabilities[indices] = np.sum(np.abs(state) ** 2)
        return
    outcomes = [1.0 - 2.0 * np.array(np.unravel_index(i, (2,) * qubits)) for i in indices]
    turned = np.asarray(angles(outcomes))
    check_shape("angles", turned, (qubits,))
    check_finite("angles", turned)
    for qubit, angle in enumerate(turned):
        state = _apply(rotation_y(angle), state, (qubit,))
    ancillas = np.full((2,) * qubits, 2 ** (-qubits / 2))
    whole = np.multiply.outer(state, ancillas)
    for qubit in range(qubits):
        whole = _apply(rotation_zy(-strength), whole, (qubit, qubits + qubit))
    for index in range(2**qubits):
        measured = whole[(..., *np.unravel_index(index, (2,) * qubits))]
        _follow(measured, (*indices, index), angles, strength, probabilities)


def _apply(gate: np.ndarray, state: np.ndarray, targets: tuple[int, ...]) -> np.ndarray:
    """A gate on some qubits of a state of shape (2,) * qubits."""
    number = len(targets)
    tensor = gate.reshape((2,) * (2 * number))
    moved = np.tensordot(tensor, state, axes=(range(number, 2 * number), targets))
    return np.moveaxis(moved, range(number), targets)
