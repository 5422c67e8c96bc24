"""Sine, cosine and arctangent by polynomials: their error, their special values, their derivatives."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from morphax.dynamics.trigonometry import CONSTANTS, arctan2, sin_cos

RNG = np.random.default_rng(0)
SPECIAL = [0.0, -0.0, 1.0, -1.0, 1e-30, np.inf, -np.inf, np.nan]


@pytest.fixture(params=[np.float32, np.float64], ids=["single", "double"])
def precision(request):
    with jax.enable_x64(request.param == np.float64):
        yield request.param


def errors(found, exact, precision) -> float:
    """The largest, in units in the last place of 1."""
    return float(np.max(np.abs(np.asarray(found).astype(np.longdouble) - exact)) / np.finfo(precision).eps)


@pytest.mark.slow
def test_a_million_sines_and_cosines_are_right_to_two_units(precision):
    x = np.concatenate(
        [RNG.uniform(-1e4, 1e4, 700_000), RNG.uniform(-7, 7, 300_000), np.arange(-6000, 6000) * np.pi / 2]
    ).astype(precision)
    sine, cosine = jax.jit(sin_cos)(x)
    assert errors(sine, np.sin(x.astype(np.longdouble)), precision) < 2
    assert errors(cosine, np.cos(x.astype(np.longdouble)), precision) < 2
    other = jax.jit(sin_cos)(-x)
    np.testing.assert_array_equal(other[0], -sine)
    np.testing.assert_array_equal(other[1], cosine)


def test_a_million_angles_are_right_to_two_units(precision):
    y, x = (RNG.normal(size=(2, 1_000_000)) * 10 ** RNG.uniform(-3, 3, (2, 1_000_000))).astype(precision)
    found = jax.jit(arctan2)(y, x)
    assert errors(found, np.arctan2(y.astype(np.longdouble), x.astype(np.longdouble)), precision) < 2
    np.testing.assert_array_equal(jax.jit(arctan2)(-y, x), -found)


def test_what_is_not_finite_is_not_finite_and_large_arguments_stay_on_the_circle(precision):
    sine, cosine = sin_cos(jnp.array([np.nan, np.inf, -np.inf], precision))
    assert np.isnan([sine, cosine]).all()
    np.testing.assert_array_equal(sin_cos(jnp.zeros(1, precision)), [[0.0], [1.0]])
    sine, cosine = sin_cos(jnp.array(10.0 ** np.arange(5, 38), precision))
    np.testing.assert_allclose(sine**2 + cosine**2, 1, atol=4e-5)


def test_special_points_have_the_angles_of_numpy(precision):
    y, x = np.meshgrid(np.array(SPECIAL, precision), np.array(SPECIAL, precision))
    found, expected = np.asarray(arctan2(y, x)), np.arctan2(y, x)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    known = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(found)[known], np.signbit(expected)[known])


@pytest.mark.slow
def test_derivatives_of_both_modes_and_second_ones_are_those_of_jax(precision):
    x, y = jnp.asarray(RNG.normal(size=(2, 7)), precision)

    def ours(x, y):
        sine, cosine = sin_cos(x * y)
        return jnp.sum(sine * cosine**2 + arctan2(sine + 1.5, y))

    def plain(x, y):
        return jnp.sum(jnp.sin(x * y) * jnp.cos(x * y) ** 2 + jnp.arctan2(jnp.sin(x * y) + 1.5, y))

    tolerance = 2e-5 if precision == np.float32 else 1e-12
    for derivative in (jax.grad, jax.jacfwd, jax.hessian):
        for one, two in zip(derivative(ours, (0, 1))(x, y), derivative(plain, (0, 1))(x, y), strict=True):
            np.testing.assert_allclose(one, two, rtol=tolerance, atol=tolerance)


def test_half_precision_and_whole_numbers_are_taken():
    half = jnp.array([0.5, -2.0], jnp.bfloat16)
    np.testing.assert_array_equal(sin_cos(half)[0], jnp.sin(half))
    assert sin_cos(half)[1].dtype == arctan2(half, half).dtype == jnp.bfloat16
    np.testing.assert_allclose(sin_cos(2), (np.sin(2), np.cos(2)), rtol=1e-6)
    np.testing.assert_allclose(arctan2(1, -1), 3 * np.pi / 4, rtol=1e-6)


def test_single_precision_stays_single_where_double_is_on():
    with jax.enable_x64(True):
        x = jnp.linspace(-3, 3, 7, dtype=jnp.float32)
        sine, cosine = sin_cos(x)
        angle = arctan2(sine, cosine)
        slope = jax.grad(lambda x: sin_cos(x)[0])(x[0])
    assert {found.dtype.name for found in (sine, cosine, angle, slope)} == {"float32"}
    np.testing.assert_allclose(angle, x, atol=1e-6)


def test_constants_are_those_of_the_reduction():
    pi = Fraction("3.14159265358979323846264338327950288419716939937510582097494459")
    for precision, constants in CONSTANTS.items():
        assert abs(sum(map(Fraction, constants.pi)) - pi) < 1e-6 * np.finfo(precision).eps
        assert abs(2 * sum(map(Fraction, constants.right_angle)) - pi) < 1e-6 * np.finfo(precision).eps
        # The first two are so short that their products with 2^12 turns are exact.
        for part in constants.pi[:2]:
            assert precision.type(part) * 4095 == float(part) * 4095
