"""Networks of spintronic oscillators that have faded, and gradients over long intervals."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from morphax import SpintronicNetwork, evolve
from morphax.substrates.layers import Connections

KEY = jax.random.key(13)


def in_both_precisions(function, *arguments):
    """Results of a function of the same single-precision numbers, in single and in double precision."""
    arguments = jax.tree.map(np.asarray, arguments)
    for precise, dtype in ((False, np.float32), (True, np.float64)):
        with jax.enable_x64(precise):
            cast = jax.tree.map(lambda x, d=dtype: jnp.asarray(x, d if x.dtype.kind == "f" else x.dtype), arguments)
            yield jax.tree.map(np.asarray, eqx.filter_jit(function)(*cast))


def test_an_oscillator_of_a_network_comes_back_however_far_it_has_faded():
    alone = Connections((1,), np.zeros((1, 1)), np.ones((1, 1)), np.zeros(1))
    network = SpintronicNetwork(alone, damping_rate=1.0, amplification=1.0, interval=10.0, observed="states")
    drives = np.concatenate([np.full(50, -30.0), np.zeros(20)])  # to exp(-14,500) of its power
    single, double = in_both_precisions(lambda network, drives: evolve(network, drives)[0][:, 0], network, drives)
    assert single[49] < 1e-30
    np.testing.assert_allclose(single, double, rtol=1e-4, atol=1e-37)
    assert single[-1] == pytest.approx(0.5)


@pytest.mark.slow
def test_gradients_of_a_long_interval_are_those_of_double_precision():
    def gradients(network, inputs, intervals):
        def loss(network, interval):
            network = eqx.tree_at(lambda n: n.interval, network, interval)
            return jnp.sum(jax.vmap(lambda u: evolve(network, u, observe="last")[0])(inputs) ** 2)

        def gradient(interval):
            return ravel_pytree(eqx.filter(eqx.filter_grad(loss)(network, interval), eqx.is_inexact_array))[0]

        return jax.lax.map(gradient, intervals)

    network = SpintronicNetwork.random((16, 16), scale=8.0, key=KEY)
    inputs = 4 * np.random.default_rng(0).normal(size=(2, 64))
    single, double = in_both_precisions(gradients, network, inputs, np.array([1.0, 10.0, 30.0, 50.0]))
    errors = np.linalg.norm(single - double, axis=1) / np.linalg.norm(double, axis=1)
    assert errors.max() < 1e-4
