"""The segmented scan: the numbers of `lax.scan`, with less memory in the backward pass."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from morphax.dynamics.scan import segmented_scan

pytestmark = pytest.mark.usefixtures("double")

WEIGHTS = 0.9 * np.linalg.qr(np.random.default_rng(0).normal(size=(16, 16)))[0]


def run(weights, start, inputs, segment):
    def step(carry, u):
        carry = jnp.tanh(weights @ carry + u)
        return carry, {"first": carry[0], "sum": jnp.sum(carry)}

    return segmented_scan(step, start, inputs, segment=segment)


def loss(weights, start, inputs, segment):
    carry, outputs = run(weights, start, inputs, segment)
    return jnp.sum(carry**2) + jnp.sum(jnp.sin(outputs["sum"])) + jnp.sum(outputs["first"] ** 3)


@pytest.mark.slow
@pytest.mark.parametrize(("points", "segment"), [(12, 4), (13, 4), (3, 5)])
def test_values_and_gradients_are_those_of_a_scan(points, segment):
    arguments = (jnp.array(WEIGHTS), jnp.linspace(-1, 1, 16), jnp.sin(jnp.arange(points)))
    one, all_at_once = run(*arguments, segment), run(*arguments, None)
    assert one[1]["sum"].shape == (points,)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-14, atol=1e-15), one, all_at_once)
    gradient = jax.jit(jax.grad(loss, argnums=(0, 1, 2)), static_argnums=3)
    for a, b in zip(gradient(*arguments, segment), gradient(*arguments, None), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-13)


def backward_memory(points, segment):
    gradient = jax.jit(jax.grad(loss), static_argnums=3)
    arguments = (jnp.array(WEIGHTS), jnp.zeros(16), jnp.zeros(points))
    analysis = gradient.lower(*arguments, segment).compile().memory_analysis()
    assert analysis is not None
    return analysis.temp_size_in_bytes


@pytest.mark.slow
def test_backward_pass_needs_the_memory_of_the_root_of_the_length():
    whole = {points: backward_memory(points, None) for points in (1024, 4096)}
    segments = {points: backward_memory(points, int(points**0.5)) for points in (1024, 4096)}
    assert segments[1024] < whole[1024] / 4
    assert whole[4096] > 3.5 * whole[1024]  # proportional to the length
    assert segments[4096] < 2.5 * segments[1024] + 8 * 2 * 4096  # its root, and at most two numbers a point


def test_segment_must_hold_a_point():
    with pytest.raises(ValueError, match="segment is 0; it must be a whole number >= 1"):
        segmented_scan(lambda c, x: (c, x), 0.0, jnp.ones(3), segment=0)
