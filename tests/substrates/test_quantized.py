"""The quantised perceptron against state vectors, and its limits."""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from morphax import QuantizedPerceptron, evolve
from morphax.learning.backprop import Backpropagation
from morphax.learning.objectives import classification
from morphax.quantum.register import outcome_distribution
from morphax.substrates.quantized import NoisyPerceptron, sign, straight_through

pytestmark = pytest.mark.usefixtures("double")
KEY = jax.random.key(0)
REGIMES = {
    "classical": {"width": 0.0, "strength": np.pi / 2},
    "rotation": {"width": 0.8, "strength": np.pi / 2},
    "weak": {"width": 0.0, "strength": 0.6},
    "both": {"width": 0.8, "strength": 0.9},
    "blind": {"width": 0.5, "strength": 0.0},
}


def network(layers=(4, 3, 3, 3, 2), **rest) -> QuantizedPerceptron:
    return QuantizedPerceptron.random(layers, key=KEY, **rest)


def image(number: int = 4) -> jax.Array:
    return jax.random.normal(jax.random.key(5), (number,))


def register(net: QuantizedPerceptron, drive: jax.Array, strength: float) -> np.ndarray:
    """The distribution of a state vector of all neurons and ancillas, with angles from Eq. 5 as printed."""
    weights, width = [np.asarray(w) for w in net.weights], float(net.width)

    def angles(outcomes):
        before = np.ones(len(weights[0])) if not outcomes else outcomes[-1]
        h = weights[len(outcomes)] @ (np.asarray(drive) if not outcomes else before)
        phi = np.clip(h / width, -1, 1) if width else np.where(h >= 0, 1.0, -1.0)
        return np.pi / 2 * (before - phi)

    return outcome_distribution(len(weights[0]), len(weights) - 1, angles, strength)


@pytest.mark.slow
@pytest.mark.parametrize("regime", REGIMES)
def test_every_outcome_is_as_probable_as_in_the_whole_register(regime):
    numbers = REGIMES[regime]
    net = network((4, 2, 2, 2, 2), **numbers)
    expected = register(net, image(), numbers["strength"])
    outcomes = jnp.array(list(product((1.0, -1.0), repeat=6))).reshape(-1, 3, 2)
    found = jax.vmap(lambda o: net.probability(image(), o))(outcomes)
    np.testing.assert_allclose(found, expected.ravel(), atol=1e-12)
    assert float(found.sum()) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.slow
def test_three_qubits_and_their_register_agree():
    net = network((4, 3, 3, 2), **REGIMES["both"])
    outcomes = jnp.array(list(product((1.0, -1.0), repeat=6))).reshape(-1, 2, 3)
    found = jax.vmap(lambda o: net.probability(image(), o))(outcomes)
    np.testing.assert_allclose(found, register(net, image(), 0.9).ravel(), atol=1e-12)


@pytest.mark.parametrize("strength", [np.pi / 2, np.pi / 2 - 1e-4])
def test_impossible_outcomes_have_probability_zero_in_single_precision(strength):
    with jax.enable_x64(False):
        weights = [0.49999 * np.eye(2), 0.3 * np.eye(2), 0.3 * np.eye(2), np.eye(2)]
        net = QuantizedPerceptron(weights, width=0.5, strength=strength)
        outcomes = jnp.array(list(product((1.0, -1.0), repeat=6))).reshape(-1, 3, 2)
        found = jax.vmap(lambda o: net.probability(jnp.ones(2), o))(outcomes)
    assert float(found.min()) >= 0
    assert float(found.sum()) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("regime", ["rotation", "weak", "both"])
def test_samples_follow_the_distribution_of_the_register(regime):
    """Joint outcomes of all layers, chi-squared with the expected counts."""
    numbers = REGIMES[regime]
    net = network((4, 2, 2, 2), **numbers)
    expected = register(net, image(), numbers["strength"]).ravel()

    def shot(key):
        below, memory, seen = image(), None, []
        for matrix, layer_key in zip(net.weights[:-1], jax.random.split(key, 2), strict=True):
            below, memory = net.activations(matrix @ below, memory, layer_key)
            seen.append(below)
        return jnp.concatenate(seen)

    shots = 20_000
    bits = (1 - np.asarray(jax.vmap(shot)(jax.random.split(KEY, shots)))) / 2
    counts = np.bincount((bits @ (2 ** np.arange(4)[::-1])).astype(int), minlength=16)
    likely = expected * shots > 5
    rest = [np.append(x[likely], x[~likely].sum()) for x in (counts, expected * shots)]
    keep = rest[1] > 0
    assert stats.chisquare(rest[0][keep], rest[1][keep] * shots / rest[1][keep].sum()).pvalue > 1e-3


def test_only_both_regimes_together_carry_coherence():
    """At a = 0 qubits never leave their basis states, whatever the strength; with a > 0 and g < pi/2 they do."""

    def coherence(**numbers) -> float:
        net = network((4, 30, 30, 30, 2), **numbers)
        below, memory, largest = image(), None, 0.0
        for matrix, layer_key in zip(net.weights[:-1], jax.random.split(KEY, 3), strict=True):
            below, memory = net.activations(matrix @ below, memory, layer_key)
            largest = max(largest, float(jnp.abs(memory[2]).max()))
        return largest

    assert coherence(strength=0.6) == 0.0
    assert coherence(strength=0.6, width=0.8) > 0.3


def test_projective_measurement_is_the_limit_of_a_weak_one():
    free, weak = network(width=0.7), network(width=0.7, strength=np.pi / 2)
    outcomes = jnp.where(jax.random.bernoulli(KEY, shape=(3, 3)), 1.0, -1.0)
    assert float(free.probability(image(), outcomes)) == pytest.approx(float(weak.probability(image(), outcomes)))


def test_the_classical_limit_is_the_classical_network():
    """At a = 0 and g = pi/2, and without a key at any a and g."""
    for net in (network((9, 20, 20, 4)), network((9, 20, 20, 4), strength=np.pi / 2)):
        hidden = image(9)
        for matrix in net.weights[:-1]:
            hidden = jnp.sign(matrix @ hidden)
        expected = net.weights[-1] @ hidden
        np.testing.assert_allclose(evolve(net, image(9)[None], key=KEY)[0][0], expected, rtol=1e-12)
        stretched = QuantizedPerceptron(net.weights, width=0.5, strength=0.7)
        np.testing.assert_allclose(evolve(stretched, image(9)[None])[0][0], expected, rtol=1e-12)


def test_the_rotation_is_a_classical_network_with_noise_of_cosine_density():
    r"""sgn(h + n) with density pi/(4 a) cos(pi n / 2 a) on [-a, a] answers +1 with the same probability."""
    width = 0.7
    h = np.linspace(-1.2, 1.2, 49)
    sine, _ = network(width=width).rotation(jnp.asarray(h))
    cumulative = np.clip(np.where(np.abs(h) < width, (1 + np.sin(np.pi * h / 2 / width)) / 2, h > 0), 0, 1)
    np.testing.assert_allclose((1 + sine) / 2, cumulative, atol=1e-12)
    grid = np.linspace(-width, width, 200_001)
    noise = np.pi / (4 * width) * np.cos(np.pi * grid / (2 * width))
    exceeded = [np.trapezoid(np.where(grid > -x, noise, 0.0), grid) for x in h]
    np.testing.assert_allclose(cumulative, exceeded, atol=1e-5)
    assert np.trapezoid(noise * grid**2, grid) == pytest.approx(width**2 * (1 - 8 / np.pi**2), rel=1e-6)


@pytest.mark.slow
def test_weak_outcomes_are_wrong_as_equation_5_says_not_as_the_text_says():
    """(1 - sin g)/2 in the first layer, cos(g)^2 / 2 later, and correlated from layer to layer."""
    g = 5 * np.pi / 19
    net = network((4, 40, 40, 40, 2), strength=g)

    def wrong(key):
        below, memory, seen = image(), None, []
        for matrix, layer_key in zip(net.weights[:-1], jax.random.split(key, 3), strict=True):
            h = matrix @ below
            below, memory = net.activations(h, memory, layer_key)
            seen.append(below != sign(h))
        return jnp.stack(seen)

    seen = np.asarray(jax.vmap(wrong)(jax.random.split(KEY, 2000)), float)
    rates = seen.mean((0, 2))
    error = 4 * np.sqrt(0.25 / seen[:, 0].size)
    np.testing.assert_allclose(rates, [(1 - np.sin(g)) / 2, np.cos(g) ** 2 / 2, np.cos(g) ** 2 / 2], atol=error)
    both = (seen[:, 1] * seen[:, 2]).mean()
    assert abs(both - rates[1] * rates[2]) > 4 * error


@pytest.mark.parametrize(
    ("backward", "width", "slope", "gate"), [("htanh", 0.3, 1.0, 1.0), ("activation", 0.3, 1 / 0.3, 0.3)]
)
def test_the_backward_pass_is_that_of_the_clipped_line(backward, width, slope, gate):
    net = network(width=width, backward=backward)
    h = jnp.array([-1.5, -0.9, -0.2, 0.0, 0.29, 0.31, 1.2])
    found = jax.grad(lambda h: net.activations(h, None, KEY)[0].sum())(h)
    np.testing.assert_allclose(found, np.where(np.abs(h) <= gate, slope, 0.0))


@pytest.mark.slow
def test_gradients_are_those_of_the_straight_through_network():
    """By hand: outcomes forward, slopes of the clipped line backward, nothing through angles and qubits."""
    net = network((5, 8, 8, 3), width=0.4, strength=1.1)
    inputs, targets = jax.random.normal(KEY, (1, 1, 5)), jnp.eye(3)[:1]
    _, gradient = Backpropagation().gradient(net, inputs, targets, key=KEY)
    keys = jax.random.split(jax.random.split(jax.random.split(jax.random.split(KEY, 1)[0])[1], 1)[0])
    first, second = jax.random.split(keys[0])
    h1 = net.weights[0] @ inputs[0, 0]
    d1, memory = net.activations(h1, None, first)
    h2 = net.weights[1] @ d1
    d2, _ = net.activations(h2, memory, second)
    error = jax.nn.softmax(net.weights[2] @ d2) - targets[0]
    back2 = (net.weights[2].T @ error) * (jnp.abs(h2) <= 1)
    back1 = (net.weights[1].T @ back2) * (jnp.abs(h1) <= 1)
    for found, expected in zip(
        gradient.weights, (jnp.outer(back1, inputs[0, 0]), jnp.outer(back2, d1), jnp.outer(error, d2)), strict=True
    ):
        np.testing.assert_allclose(found, expected, atol=1e-12)


def test_straight_through_keeps_outcomes():
    h, d = jnp.array([0.2, -0.4]), jnp.array([-1.0, -1.0])
    np.testing.assert_array_equal(straight_through(h, d, 1.0), d)


@pytest.mark.slow
def test_points_of_a_map_are_one_vmap():
    """Width and strength are leaves like any other."""
    nets = jax.vmap(lambda a, g: network(width=a, strength=g))(jnp.array([0.0, 0.5]), jnp.array([np.pi / 2, 1.0]))
    outputs = jax.vmap(lambda n: Backpropagation(classification).outputs(n, image()[None, None], key=KEY))(nets)
    assert outputs.shape == (2, 1, 2)


def test_noise_and_dropout_have_the_moments_they_say():
    net = NoisyPerceptron.random((3, 4, 2), noise=0.5, dropout=0.25, key=KEY)
    h = jnp.full(100_000, 0.3)
    values = np.asarray(net.activations(h, None, KEY)[0])
    assert np.mean(values == 0) == pytest.approx(0.25, abs=0.01)
    assert set(np.unique(np.abs(values)).round(6)) == {0.0, round(4 / 3, 6)}
    assert np.mean(values[values != 0] > 0) == pytest.approx(stats.norm.cdf(0.3 / 0.5), abs=0.01)


def test_the_slope_of_a_noisy_neuron_is_that_of_its_window():
    net = NoisyPerceptron.random((3, 4, 2), noise=0.5, window=0.4, key=KEY)
    h = jnp.array([-0.5, -0.3, 0.0, 0.3, 0.5])
    for key in (None, KEY):
        slope = jax.jvp(lambda x, key=key: net.activations(x, None, key)[0], (h,), (jnp.ones(5),))[1]
        assert slope.tolist() == pytest.approx([0, 2.5, 2.5, 2.5, 0])
    with pytest.raises(ValueError, match="window is 0"):
        NoisyPerceptron.random((3, 4, 2), window=0.0, key=KEY)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": -0.1}, "width is -0.1"),
        ({"strength": -0.1}, "strength is -0.1"),
        ({"strength": 1.6}, "strength is 1.6"),
        ({"backward": "sigmoid"}, "backward is 'sigmoid'"),
        ({"backward": "activation"}, "width 0"),
        ({"layers": (4, 2)}, r"layers is \(4, 2\)"),
        ({"layers": (4, 3, 5, 2)}, "must be equal"),
        ({"layers": (4, 0, 2)}, "layers is 0"),
    ],
)
def test_bad_arguments_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        network(**change)


def test_hidden_layers_of_a_classical_network_may_differ():
    assert NoisyPerceptron.random((4, 3, 5, 2), key=KEY).step(jnp.zeros(2), jnp.ones(4), key=KEY).shape == (2,)


@pytest.mark.parametrize("value", [1.0, 1.5])
def test_a_perceptron_without_neurons_is_refused(value):
    with pytest.raises(ValueError, match=f"dropout is {value}; it must be >= 0 and < 1"):
        NoisyPerceptron.random((4, 3, 2), dropout=value, key=KEY)
    with pytest.raises(ValueError, match="at least 1 neuron"):
        NoisyPerceptron([np.ones((0, 4)), np.ones((2, 0))])
    with pytest.raises(ValueError, match="weights holds 1 matrices"):
        NoisyPerceptron([np.ones((2, 4))])


def test_wrong_images_and_outcomes_are_refused():
    net, outcomes = network(), jnp.ones((3, 3))
    with pytest.raises(ValueError, match="drive has shape"):
        net.step(jnp.zeros(2), jnp.ones(5))
    with pytest.raises(ValueError, match="drive has shape"):
        net.probability(jnp.ones(5), outcomes)
    with pytest.raises(ValueError, match="drive\\[0\\] is nan"):
        net.probability(image() * jnp.nan, outcomes)
    with pytest.raises(ValueError, match="outcomes contains 0"):
        net.probability(image(), 0 * outcomes)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((7, 1, lambda o: np.zeros(7), 1.0), "qubits is 7"),
        ((6, 8, lambda o: np.zeros(6), 1.0), "layers is 8; it must be a whole number from 1 to 3"),
        ((2, 1, lambda o: [1.0], 1.0), "angles has shape"),
        ((1, 1, lambda o: [np.nan], 1.0), r"angles\[0\] is nan"),
        ((1, 1, lambda o: [1.0], 2.0), "strength is 2.0"),
    ],
)
def test_a_register_that_cannot_be_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        outcome_distribution(*arguments)
