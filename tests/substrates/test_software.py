"""The ReLU reservoir by hand, the echo-state property, the spectral radius against eigenvalues."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from morphax.pytrees import count
from morphax.substrates.base import evolve
from morphax.substrates.reservoirs import EchoStateNetwork, ReLUReservoir, spectral_radius_of

KEY = jax.random.key(11)


def test_relu_reservoir_by_hand():
    reservoir = ReLUReservoir(jnp.array([[1.0, 0.0], [-2.0, 1.0]]), jnp.array([[0.0, 3.0], [1.0, 1.0]]))
    outputs, state = evolve(reservoir, jnp.array([[1.0, 2.0], [-1.0, 0.5], [0.0, -4.0]]))
    np.testing.assert_allclose(outputs, [[1.0, 0.0], [5.0, 5.5], [1.5, 0.0]])
    np.testing.assert_array_equal(state.previous, [0.0, -4.0])


@pytest.mark.parametrize("memory", ["vector", "square"])
def test_relu_reservoir_remembers_exactly_one_input(memory):
    reservoir = ReLUReservoir.random(30, memory=memory, key=KEY)
    drives = jax.random.normal(KEY, (6,))
    derivative = jax.jacobian(lambda drives: evolve(reservoir, drives)[0][-1])(drives)
    assert (np.abs(derivative).max(axis=0) > 0).tolist() == [False, False, False, False, True, True]


def test_relu_reservoir_square_memory_acts_on_the_distributed_input():
    reservoir = ReLUReservoir.random(400, inputs=1, memory="square", scale=2.0, key=KEY)
    assert reservoir.memory_weights.shape == (400, 1)
    # sum of 400 products of uniform numbers of variance 1/3 and (2^2)/3, divided by the root of 400: variance 4/9
    assert float(reservoir.memory_weights.var()) == pytest.approx(4 / 9, rel=0.25)


def test_scale_multiplies_the_outputs():
    drives = jax.random.normal(KEY, (20,))
    for memory in ("vector", "square"):
        small, large = (ReLUReservoir.random(5, scale=scale, memory=memory, key=KEY) for scale in (1.0, 3.0))
        np.testing.assert_allclose(3 * evolve(small, drives)[0], evolve(large, drives)[0], rtol=1e-5)


def test_echo_state_network_obeys_its_equation():
    network = EchoStateNetwork.random(7, inputs=2, leak_rate=0.3, key=KEY)
    drives = np.asarray(jax.random.normal(KEY, (5, 2)))
    W_in, W, b = (np.asarray(a) for a in (network.input_weights, network.recurrent_weights, network.bias))
    state, expected = np.zeros(7), []
    for drive in drives:
        state = 0.7 * state + 0.3 * np.tanh(W_in @ drive + W @ state + b)
        expected.append(state)
    np.testing.assert_allclose(evolve(network, jnp.asarray(drives))[0], expected, atol=1e-6)


@pytest.mark.parametrize("leak_rate", [1.0, 0.3])
def test_echo_state_network_forgets_where_it_started(leak_rate):
    network = EchoStateNetwork.random(80, spectral_radius=0.8, leak_rate=leak_rate, key=KEY)
    drives = jax.random.normal(KEY, (400,))
    ends = [evolve(network, drives, state=start * jnp.ones(80))[1] for start in (-1.0, 1.0)]
    np.testing.assert_allclose(ends[0], ends[1], atol=1e-6)


def test_echo_state_network_of_large_radius_does_not_forget():
    network = EchoStateNetwork.random(80, spectral_radius=3.0, bias_scale=0.0, key=KEY)
    ends = [evolve(network, jnp.zeros(400), state=start * jnp.ones(80))[1] for start in (-0.1, 0.1)]
    assert float(jnp.abs(ends[0] - ends[1]).max()) > 0.1


@pytest.mark.parametrize(("neurons", "density"), [(1, 1.0), (20, 1.0), (200, 1.0), (200, 0.05)])
@pytest.mark.usefixtures("double")
def test_spectral_radius_is_what_was_asked_for(neurons, density):
    network = EchoStateNetwork.random(neurons, spectral_radius=0.7, density=density, key=KEY)
    assert np.abs(np.linalg.eigvals(network.recurrent_weights)).max() == pytest.approx(0.7, rel=1e-6)
    present = float((network.recurrent_weights != 0).mean())
    assert present == pytest.approx(density, abs=4 * np.sqrt(density * (1 - density)) / neurons + 1e-9)


def test_spectral_radius_in_single_precision_and_under_vmap():
    keys = jax.random.split(KEY, 5)
    matrices = jax.vmap(lambda key: jax.random.normal(key, (60, 60)))(keys)
    expected = np.abs(np.linalg.eigvals(np.asarray(matrices, np.float64))).max(axis=-1)
    np.testing.assert_allclose(jax.jit(jax.vmap(spectral_radius_of))(matrices), expected, rtol=1e-5)


def test_spectral_radius_of_special_matrices():
    assert float(spectral_radius_of(jnp.array([[0.0, 1.0], [0.0, 0.0]]))) == 0
    assert float(spectral_radius_of(jnp.array([[1.0, 5.0], [0.0, 1.0]]))) == pytest.approx(1, rel=1e-5)
    assert float(spectral_radius_of(jnp.diag(jnp.array([1e-8, -3e-8])))) == pytest.approx(3e-8, rel=1e-5)


def test_nilpotent_network_is_left_as_drawn():
    network = EchoStateNetwork.random(6, density=1e-6, key=KEY)
    assert not network.recurrent_weights.any()  # and no NaN from dividing by a spectral radius of 0


def test_gradient_of_the_leak_rate_agrees_with_finite_differences():
    with jax.enable_x64(True):
        network = EchoStateNetwork.random(10, key=KEY)
        drives = jax.random.normal(KEY, (15,))

        def total(leak_rate):
            same = EchoStateNetwork(network.input_weights, network.recurrent_weights, network.bias, leak_rate)
            return evolve(same, drives)[0].sum()

        slope = (total(0.5 + 1e-6) - total(0.5 - 1e-6)) / 2e-6
        assert float(jax.grad(total)(jnp.array(0.5))) == pytest.approx(float(slope), rel=1e-6)


@pytest.mark.parametrize("kind", [ReLUReservoir, EchoStateNetwork])
def test_keys_vmap_and_nothing_is_trained(kind):
    drives = jnp.sin(jnp.arange(12.0))

    def run(key):
        return evolve(kind.random(9, key=key), drives)[0]

    keys = jax.random.split(KEY, 3)
    many = jax.jit(jax.vmap(run))(keys)
    assert many.shape == (3, 12, 9)
    np.testing.assert_allclose(many[2], run(keys[2]), atol=1e-5)
    reservoir = kind.random(9, key=KEY)
    assert count(reservoir, "weight") == 0
    assert count(reservoir, "device") == sum(leaf.size for leaf in jax.tree.leaves(reservoir))


@pytest.mark.parametrize("kind", [ReLUReservoir, EchoStateNetwork])
def test_precision_follows_jax(kind):
    assert evolve(kind.random(3, key=KEY), jnp.ones(4))[0].dtype == jnp.float32
    with jax.enable_x64(True):
        assert evolve(kind.random(3, key=KEY), jnp.ones(4))[0].dtype == jnp.float64


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ReLUReservoir.random(0, key=KEY), "neurons is 0; it must be a whole number >= 1"),
        (lambda: ReLUReservoir.random(2, inputs=0, key=KEY), "inputs is 0; it must be a whole number >= 1"),
        (lambda: ReLUReservoir.random(2, scale=0.0, key=KEY), "scale is 0.0; it must be > 0"),
        (lambda: ReLUReservoir(jnp.ones(3), jnp.ones(3)), r"input_weights has shape \(3,\)"),
        (lambda: ReLUReservoir(jnp.ones((3, 1)), jnp.ones((3, 3))), r"memory_weights has shape \(3, 3\)"),
        (lambda: ReLUReservoir(jnp.full((3, 1), jnp.nan), jnp.ones((3, 1))), r"input_weights\[0, 0\] is nan"),
        (lambda: EchoStateNetwork.random(0, key=KEY), "neurons is 0"),
        (lambda: EchoStateNetwork.random(3, spectral_radius=-0.1, key=KEY), "spectral_radius is -0.1; it must be >= 0"),
        (lambda: EchoStateNetwork.random(3, density=0.0, key=KEY), "density is 0.0; it must be > 0 and <= 1"),
        (lambda: EchoStateNetwork.random(3, leak_rate=1.5, key=KEY), "leak_rate is 1.5; it must be > 0 and <= 1"),
        (lambda: EchoStateNetwork.random(3, bias_scale=-1.0, key=KEY), "bias_scale is -1.0; it must be >= 0"),
        (lambda: EchoStateNetwork(jnp.ones((3, 1)), jnp.ones((2, 2)), jnp.ones(3)), "recurrent_weights has shape"),
        (lambda: EchoStateNetwork(jnp.ones((3, 1)), jnp.ones((3, 3)), jnp.ones(2)), "bias has shape"),
        (
            lambda: evolve(ReLUReservoir.random(3, key=KEY), jnp.ones((4, 2))),
            r"one input has 2 channels, shape \(2,\)",
        ),
        (
            lambda: evolve(EchoStateNetwork.random(3, inputs=2, key=KEY), jnp.ones(4)),
            "one input has 1 channel, .* takes 2 channels",
        ),
    ],
)
def test_bad_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
