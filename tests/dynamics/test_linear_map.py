"""A map that is told its transpose has the derivatives of the same map written out for JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from morphax.dynamics.linear_map import LinearMap


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


TIMES = 3


def _plain(matrix, operand):
    vector, scale = operand
    for _ in range(TIMES):
        vector = matrix @ vector
    return {"image": vector + scale * jnp.sum(matrix, axis=1)}


def _in_a_loop(matrix, operand):
    """A while loop, of which JAX knows no transpose."""
    vector, scale = operand
    vector = lax.while_loop(lambda c: c[0] < TIMES, lambda c: (c[0] + 1, matrix @ c[1]), (0, vector))[1]
    return {"image": vector + scale * jnp.sum(matrix, axis=1)}


def _back(matrix, image):
    slope = image["image"]
    vector = lax.while_loop(lambda c: c[0] < TIMES, lambda c: (c[0] + 1, matrix.T @ c[1]), (0, slope))[1]
    return vector, jnp.vdot(slope, jnp.sum(matrix, axis=1))


POWER = LinearMap(_in_a_loop, _back, _plain)
RNG = np.random.default_rng(0)
MATRIX, VECTOR, SCALE = RNG.normal(size=(4, 4)), RNG.normal(size=4), 0.7
MANY = RNG.normal(size=(5, 4))


def loss(function):
    """Not linear in anything, so that first derivatives move with every argument."""
    return lambda matrix, vector, scale: jnp.sum(jnp.sin(function(jnp.tanh(matrix), (vector**2, scale))["image"]))


def each(function):
    return jax.vmap(function, in_axes=(None, 0, None))


TRANSFORMS = {
    "value": lambda f: f,
    "forward": lambda f: jax.jacfwd(f, (0, 1, 2)),
    "reverse": lambda f: jax.grad(f, (0, 1, 2)),
    "forward over reverse": lambda f: jax.jacfwd(jax.grad(f, (0, 1, 2)), (0, 1, 2)),
    "reverse over reverse": lambda f: jax.jacrev(jax.grad(f, (0, 1, 2)), (0, 1, 2)),
    "reverse over forward": lambda f: jax.jacrev(jax.jacfwd(f, (0, 1, 2)), (0, 1, 2)),
    "some arguments": lambda f: jax.grad(f, 1),
    "given alone": lambda f: jax.jacfwd(f, 0),
}


@pytest.mark.slow
@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("name", TRANSFORMS)
def test_derivatives_are_those_of_the_map_written_out(name, jit):
    transform = TRANSFORMS[name]
    found, expected = (transform(loss(f)) for f in (POWER, _plain))
    found = jax.jit(found) if jit else found
    arguments = MATRIX, VECTOR, SCALE
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), found(*arguments), expected(*arguments))


@pytest.mark.slow
@pytest.mark.parametrize("name", TRANSFORMS)
def test_so_are_those_in_lanes_and_lanes_of_derivatives(name):
    transform = TRANSFORMS[name]

    def together(function):
        return transform(lambda *arguments: jnp.sum(each(loss(function))(*arguments) ** 2))

    for nest in (lambda f: each(transform(loss(f))), together):
        found, expected = nest(POWER)(MATRIX, MANY, SCALE), nest(_plain)(MATRIX, MANY, SCALE)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-11), found, expected)


def test_lanes_of_matrices_and_lanes_within_lanes():
    matrices = RNG.normal(size=(2, 4, 4))

    def everything(function):
        return jax.vmap(jax.grad(lambda m: jnp.sum(each(loss(function))(m, MANY, SCALE))))(matrices)

    np.testing.assert_allclose(everything(POWER), everything(_plain), rtol=1e-12)
