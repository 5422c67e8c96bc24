"""Exported circuits against the sampler's own distribution."""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import qiskit_aer
from qiskit import qasm3

from morphax import QuantizedPerceptron
from morphax.export.circuit import read_counts, to_circuit, to_openqasm
from morphax.substrates.quantized import NoisyPerceptron

pytestmark = pytest.mark.usefixtures("double")
IMAGE = jax.random.normal(jax.random.key(5), (4,))


def network(**rest) -> QuantizedPerceptron:
    return QuantizedPerceptron.random((4, 3, 3, 2), key=jax.random.key(0), **rest)


@pytest.mark.parametrize(
    "numbers",
    [
        pytest.param({"width": 0.8}, marks=pytest.mark.slow),
        {"width": 0.8, "strength": 0.9},
        pytest.param({"strength": 0.6}, marks=pytest.mark.slow),
    ],
)
def test_the_circuit_on_aer_gives_the_distribution_of_the_sampler(numbers):
    """Total variation: at most what counting noise explains, sum of sqrt(p (1 - p) / 2 pi n) and four deviations."""
    net, shots = network(**numbers), 20_000
    outcomes = list(product((1, -1), repeat=6))
    exact = np.array([net.probability(IMAGE, jnp.array(o, float).reshape(2, 3)) for o in outcomes])
    counts = qiskit_aer.AerSimulator().run(to_circuit(net, IMAGE), shots=shots, seed_simulator=7).result().get_counts()
    found = read_counts(counts)
    seen = np.array([found.get(o, 0) for o in outcomes]) / shots
    expected = np.sum(np.sqrt(exact * (1 - exact) / (2 * np.pi * shots)))
    assert np.abs(seen - exact).sum() / 2 < expected + 4 * np.sqrt(0.25 / shots)


def test_openqasm_comes_back_as_the_same_circuit():
    net = network(width=0.8, strength=0.9)
    text = to_openqasm(net, IMAGE)
    assert text.startswith("OPENQASM 3")
    back = qasm3.loads(text)
    assert back.count_ops() == to_circuit(net, IMAGE).count_ops()


def test_what_a_circuit_cannot_express_is_refused():
    large = QuantizedPerceptron.random((4, 12, 12, 2), key=jax.random.key(0))
    with pytest.raises(ValueError, match="needs 4096 branches"):
        to_circuit(large, IMAGE)
    wide = QuantizedPerceptron.random((4, 512, 512, 512, 2), key=jax.random.key(0))
    with pytest.raises(ValueError, match=r"needs 2 x 2\^512 branches"):
        to_circuit(wide, IMAGE)
    stack = jax.vmap(lambda a: network(width=a))(jnp.array([0.1, 0.2]))
    with pytest.raises(ValueError, match="a stack of 2 networks"):
        to_circuit(stack, IMAGE)
    with pytest.raises(TypeError, match="network is a NoisyPerceptron"):
        to_circuit(NoisyPerceptron.random((4, 3, 2), key=jax.random.key(0)), IMAGE)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="counts has the key '0 2'"):
        read_counts({"0 2": 5})
    with pytest.raises(ValueError, match="image has shape"):
        to_circuit(network(), np.ones(3))
    with pytest.raises(ValueError, match=r"image\[1\] is nan"):
        to_circuit(network(), np.array([0.0, np.nan, 0.0, 0.0]))
