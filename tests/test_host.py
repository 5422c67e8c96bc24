"""Exceptions of Python functions inside compiled programs arrive as they were raised."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from morphax.host import ask_host, original_errors


def refusing(error):
    def refuse(x):
        raise error

    return refuse


def asked(function):
    return jax.jit(lambda x: ask_host(function, jax.ShapeDtypeStruct((2,), jnp.float32), x))(jnp.ones(2))


def test_a_function_is_called_once_and_its_answer_comes_back():
    seen = []

    def double(x):
        seen.append(x)
        return 2 * np.asarray(x)

    np.testing.assert_array_equal(asked(double), [2.0, 2.0])
    assert len(seen) == 1


def test_an_exception_and_its_cause_arrive_as_they_were_raised():
    cable, error = ConnectionError("cable"), ValueError("no answer")
    error.__cause__ = cable
    with pytest.raises(ValueError, match=r"^no answer$") as caught, original_errors():
        jax.block_until_ready(asked(refusing(error)))
    assert caught.value is error
    assert caught.value.__cause__ is cable


def test_outside_the_words_are_among_those_of_jax():
    with pytest.raises(jax.errors.JaxRuntimeError, match="KeyError: 'cable'"):
        jax.block_until_ready(asked(refusing(KeyError("cable"))))


def test_nothing_is_blamed_for_the_error_of_something_else():
    with pytest.raises(jax.errors.JaxRuntimeError):
        jax.block_until_ready(asked(refusing(ConnectionError("cable"))))

    def fails(x):
        raise OverflowError("something else")

    shape = jax.ShapeDtypeStruct((2,), jnp.float32)
    with pytest.raises(jax.errors.JaxRuntimeError, match="something else"), original_errors():
        jax.block_until_ready(jax.jit(lambda x: jax.pure_callback(fails, shape, x))(jnp.ones(2)))
