"""Asking a trained substrate, whatever the arrangement of the inputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from morphax import (
    EchoStateNetwork,
    HopfieldNetwork,
    JosephsonMixer,
    Noisy,
    PhaseOscillators,
    QuantizedPerceptron,
    SpikingNetwork,
    WithReadout,
    evolve,
    predict,
)
from morphax.tasks import as_vectors, held, waveforms, windows, xor

KEY = jax.random.key(0)
ONE = WithReadout.random(EchoStateNetwork.random(4, key=KEY), 2, key=KEY)  # takes one channel
TWO = WithReadout.random(EchoStateNetwork.random(4, inputs=2, key=KEY), 2, key=KEY)
X = jax.random.normal(KEY, (3, 5, 2))


def alone(network, drives):
    return evolve(network, drives)[0]


@pytest.mark.parametrize("network", [ONE, TWO])
def test_a_stream_is_answered_after_every_input(network):
    drives = X[0, :, 0] if network is ONE else X[0]
    expected = alone(network, drives)
    arrangement = None if network is ONE else "stream"
    np.testing.assert_allclose(predict(network, drives, arrangement=arrangement), expected, rtol=1e-6)
    np.testing.assert_allclose(predict(network, drives, arrangement="stream", observe="last"), expected[-1], rtol=1e-6)
    assert predict(network, np.asarray(drives), arrangement="stream").shape == (5, 2)


def test_one_channel_may_have_its_axis():
    drives = X[0, :, :1]
    np.testing.assert_array_equal(predict(ONE, drives, arrangement="stream"), predict(ONE, drives[:, 0]))
    np.testing.assert_array_equal(predict(ONE, X[..., :1]), predict(ONE, X[..., 0]))


@pytest.mark.parametrize("network", [ONE, TWO])
def test_sequences_are_answered_at_their_ends_or_everywhere(network):
    drives = X[..., 0] if network is ONE else X
    expected = np.stack([alone(network, d) for d in drives])
    np.testing.assert_allclose(predict(network, drives), expected[:, -1], rtol=1e-5)
    np.testing.assert_allclose(predict(network, drives, observe="every"), expected, rtol=1e-5)
    np.testing.assert_array_equal(predict(network, drives, arrangement="sequences"), predict(network, drives))


def test_vectors_are_presented_at_once():
    expected = np.stack([alone(TWO, x[None])[0] for x in X[0]])
    np.testing.assert_allclose(predict(TWO, X[0]), expected, rtol=1e-5)
    np.testing.assert_allclose(predict(TWO, X[0], arrangement="inputs"), expected, rtol=1e-5)
    mixer = WithReadout.random(JosephsonMixer.two_mode(measured=4), 1, key=KEY)
    # It takes one number for all modes, or one a mode: two axes are sequences unless said.
    assert predict(mixer, X[0], observe="every").shape == (5, 2, 1)
    assert predict(mixer, X[0], arrangement="inputs", observe="every").shape == (5, 1, 1)


@pytest.mark.slow
def test_a_task_is_answered_in_the_shape_of_its_targets():
    task = waveforms(16, 8, key=KEY)
    network = WithReadout.random(EchoStateNetwork.random(4, key=KEY), 1, key=KEY)
    whole = alone(network, jnp.concatenate([task.train_inputs, task.test_inputs]))
    np.testing.assert_allclose(predict(network, task), whole[16:], rtol=1e-5)
    cut = windows(task, 4)
    np.testing.assert_array_equal(predict(network, cut), predict(network, cut.test_inputs))
    vectors = as_vectors(cut)
    taking = WithReadout.random(EchoStateNetwork.random(4, inputs=4, key=KEY), 1, key=KEY)
    np.testing.assert_array_equal(predict(taking, vectors), predict(taking, vectors.test_inputs))
    for each, answering in ((task, network), (cut, network), (vectors, taking)):
        assert predict(answering, each).shape == each.test_targets.shape


@pytest.mark.slow
@pytest.mark.parametrize(
    "network",
    [PhaseOscillators.layered((2, 3, 1), bias_scale=0.5, key=KEY), HopfieldNetwork.random((2, 3, 1), key=KEY)],
    ids=lambda network: type(network).__name__,
)
def test_equilibria_are_answers(network):
    task = xor()
    expected = jax.jit(jax.vmap(lambda x: network.observe(network.relax(x).state)))(task.test_inputs)
    np.testing.assert_allclose(predict(network, task), expected, atol=1e-4)
    np.testing.assert_allclose(predict(network, held(task, 2)), expected, atol=1e-3)


@pytest.mark.slow
def test_what_is_random_needs_a_key_and_follows_it():
    noisy = WithReadout.random(Noisy(EchoStateNetwork.random(4, key=KEY), 0.1), 1, key=KEY)
    spiking = WithReadout.random(SpikingNetwork.random(3, 2, input_rate=0.5, input_mean=5.0, key=KEY), 1, key=KEY)
    shots = WithReadout.random(JosephsonMixer.two_mode(measured=4, shots=10), 1, key=KEY)
    for network in (noisy, spiking, shots):
        with pytest.raises(ValueError, match="key is None"):
            predict(network, X[0, :, 0])
        one, same, other = (predict(network, X[..., 0], observe="every", key=jax.random.key(k)) for k in (1, 1, 2))
        np.testing.assert_array_equal(one, same)
        assert (one != other).any()
    # Examples draw from keys of their own.
    same_inputs = predict(noisy, jnp.ones((2, 3)), key=KEY)
    assert same_inputs[0, 0] != same_inputs[1, 0]
    perceptron = QuantizedPerceptron.random((2, 4, 4, 2), width=0.5, key=KEY)
    assert (predict(perceptron, X[0]) == predict(perceptron, X[0])).all()  # its classical pass


@pytest.mark.parametrize(
    ("network", "inputs", "options", "message"),
    [
        (ONE, jnp.array([1.0, jnp.nan]), {}, r"inputs\[1\] is nan; inputs must be finite"),
        (TWO, X.at[1, 2, 0].set(jnp.inf), {}, r"inputs\[1, 2, 0\] is inf"),
        (ONE, X, {}, "one input has 2 channels, .* takes 1 channel: put WithInput.random"),
        (TWO, X[..., 0], {}, "one input has 5 channels"),
        (TWO, X[0], {"arrangement": "examples"}, "arrangement is 'examples'; it must be one of 'stream'"),
        (ONE, X[0, :, 0], {"observe": "first"}, "observe is 'first'"),
        (TWO, X[0, 0], {}, "one input has 1 channel"),
    ],
)
def test_what_cannot_be_asked_is_refused(network, inputs, options, message):
    with pytest.raises(ValueError, match=message):
        predict(network, inputs, **options)
