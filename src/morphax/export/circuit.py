"""The hidden layers of a quantised perceptron as a quantum circuit: Qiskit, and from there OpenQASM 3."""

from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from jax.typing import ArrayLike

from morphax._checks import check_count, check_finite, check_shape
from morphax._optional import needed
from morphax.substrates.quantized import QuantizedPerceptron

if TYPE_CHECKING:
    from qiskit import QuantumCircuit

BRANCHES = 1024


def to_circuit(network: QuantizedPerceptron, image: ArrayLike, *, most_branches: int = BRANCHES) -> "QuantumCircuit":
    r"""The circuit that does one shot of the hidden layers for one input: rotations, measurements, feed-forward.

    Classical registers `layer1`, `layer2`, ... hold the outcomes, bit 1 for $d = -1$; the outputs are $W^L d^L$,
    computed outside from the last one (`read_counts`). A qubit is measured directly where the network's strength is
    None, else through one ancilla that is reset and used again.

    The angles of the first layer come from the input; later ones depend on *all* outcomes of the layer before, and a
    circuit of Qiskit, whose angles are fixed when it is built, can only list them: one branch (`if`) for each of $2^N$
    outcomes. So N is 9 at most for three hidden layers and the default `most_branches`; a network of 512 neurons needs
    a classical computer between its layers. (OpenQASM 3 as a language has real numbers and external functions, with
    which angles could be computed at run time; Qiskit's circuits do not.)

    **Arguments:**

    - `network`: trained.
    - `image`: one input, shape (inputs,), finite.
    - `most_branches`: refuse more branches than this in all layers together.

    **Raises:** `TypeError` for another substrate; `ValueError` for a stack of networks, a wrong image and a network
    that is too large to express; `ImportError` without Qiskit, saying how to install it.

    Source: Barney, Lakhdar-Hamina & Galitski (2025), Figs. 3 and 6.
    """
    qiskit = needed("qiskit", "export")
    if not isinstance(network, QuantizedPerceptron):
        raise TypeError(f"network is a {type(network).__name__}; it must be a QuantizedPerceptron")
    if network.width.ndim:
        raise ValueError(f"network is a stack of {network.width.size} networks; export one at a time")
    check_count("most_branches", most_branches, 0)
    image = np.asarray(image, float)
    check_shape("image", image, network.weights[0].shape[1:])
    check_finite("image", image)
    hidden = [np.asarray(matrix, float) for matrix in network.weights[:-1]]
    neurons, layers = len(hidden[0]), len(hidden)
    branches = (layers - 1) * 2**neurons
    if branches > most_branches:
        raise ValueError(
            f"network has {layers} hidden layers of {neurons} neurons; its feed-forward needs "
            f"{branches if neurons < 64 else f'{layers - 1} x 2^{neurons}'} branches, "
            f"more than most_branches = {most_branches}: each angle depends on all outcomes below, which a circuit can "
            "only list. Larger ones need a classical computer between the layers"
        )
    qubits, ancilla = qiskit.QuantumRegister(neurons, "neuron"), qiskit.QuantumRegister(1, "ancilla")
    registers = [qiskit.ClassicalRegister(neurons, f"layer{k + 1}") for k in range(layers)]
    weak = network.strength is not None
    circuit = qiskit.QuantumCircuit(qubits, *([ancilla] if weak else []), *registers)
    for layer, (matrix, register) in enumerate(zip(hidden, registers, strict=True)):
        if layer == 0:
            for neuron, angle in enumerate(_angles(network, matrix @ image, np.ones(neurons))):
                circuit.ry(angle, qubits[neuron])
        else:
            for bits in product((0, 1), repeat=neurons):
                outcomes = 1.0 - 2.0 * np.array(bits)
                value = sum(bit << place for place, bit in enumerate(bits))
                with circuit.if_test((registers[layer - 1], value)):
                    for neuron, angle in enumerate(_angles(network, matrix @ outcomes, outcomes)):
                        circuit.ry(angle, qubits[neuron])
        for neuron in range(neurons):
            if weak:
                _measure_weakly(circuit, qubits[neuron], ancilla[0], register[neuron], float(network.strength))  # pyright: ignore[reportArgumentType]
            else:
                circuit.measure(qubits[neuron], register[neuron])
    return circuit


def to_openqasm(network: QuantizedPerceptron, image: ArrayLike, *, most_branches: int = BRANCHES) -> str:
    """`to_circuit` as OpenQASM 3. `qiskit.qasm3.loads` reads it back."""
    return needed("qiskit.qasm3", "export").dumps(to_circuit(network, image, most_branches=most_branches))


def read_counts(counts: dict[str, int]) -> dict[tuple[int, ...], int]:
    """Outcomes (+1 or -1) of all layers one after the other, and how often: from Qiskit's counts of bit strings.

    **Raises:** `ValueError` for a key that is no bit string.

    >>> from morphax.export.circuit import read_counts
    >>> read_counts({"10 01": 7})  # layer2 = 10, layer1 = 01, last bits first
    {(-1, 1, 1, -1): 7}
    """
    found = {}
    for key, number in counts.items():
        if set(key) - set("01 "):
            raise ValueError(f"counts has the key {key!r}; keys are bits 0 and 1, a space between registers")
        bits = "".join(register[::-1] for register in reversed(key.split(" ")))
        found[tuple(1 - 2 * int(bit) for bit in bits)] = number
    return found


def _angles(network: QuantizedPerceptron, preactivation: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Eq. 5."""
    width = float(network.width)
    sign = np.where(preactivation >= 0, 1.0, -1.0)
    phi = np.clip(preactivation / width, -1, 1) if width > 0 else sign
    return np.pi / 2 * (before - phi)


def _measure_weakly(circuit, qubit, ancilla, bit, strength: float) -> None:
    """R_ZY(-g) on an ancilla in an equal superposition turns it by -g where the qubit is |0> and by g where |1>."""
    circuit.reset(ancilla)
    circuit.ry(np.pi / 2 - strength, ancilla)
    circuit.cry(2 * strength, qubit, ancilla)
    circuit.measure(ancilla, bit)
