"""Leaky tanh neurons in continuous time; what they share with other layered networks is in `test_layers`."""

import jax.numpy as jnp
import numpy as np
import pytest

from morphax import ContinuousTimeRecurrentNetwork, evolve
from morphax.substrates.layers import Connections

pytestmark = pytest.mark.usefixtures("double")


def unconnected(neurons):
    return Connections((neurons,), np.zeros((neurons, neurons)), np.zeros((neurons, 1)), np.zeros(neurons))


def test_unconnected_recurrent_neurons_relax_exponentially():
    rates = np.array([0.02, 0.1, 0.5, 1.0, 3.0])
    net = ContinuousTimeRecurrentNetwork(unconnected(5), damping_rate=rates, interval=2.5, observed="states")
    start = jnp.array([1.0, -3.0, 0.1, 20.0, -0.5])
    states, _ = evolve(net, np.ones((6, 1)), state=start)
    times = 2.5 * np.arange(1, 7)
    np.testing.assert_allclose(states, start * np.exp(-times[:, None] * rates), rtol=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"damping_rate": -1.0}, "damping_rate is -1.0"),
        ({"observed": "x"}, "observed is 'x'"),
    ],
)
def test_bad_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ContinuousTimeRecurrentNetwork(unconnected(3), **options)
