"""Random events, many at a time."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray, UInt32


def events(key: PRNGKeyArray, probability: Float[Array, "*#shape"], shape: tuple[int, ...]) -> Bool[Array, "*shape"]:
    r"""Independent events with given probabilities, to $2^{-24}$; 0 and 1 are exact.

    Random words come from a hash of their number that the key scrambles, not from JAX's generator, with which (as in
    `jax.random.bernoulli`) to draw would be the largest part of many simulations. The same key gives the same events.

        >>> import jax, jax.numpy as jnp
        >>> from morphax.substrates.draws import events
        >>> bool(jnp.all(events(jax.random.key(0), jnp.array([0.0, 1.0]), (1000, 2)) == jnp.array([False, True])))
        True
    """
    drawn = words(key, math.prod(shape)).reshape(shape)
    return (drawn >> 8).astype(probability.dtype) * 2.0**-24 < probability


def words(key: PRNGKeyArray, number: int) -> UInt32[Array, " number"]:
    """Random words of 32 bits: a hash of 0, 1, 2, ... into which two random words of the key are mixed on the way.

    For one key it is a permutation of all words of 32 bits: none comes twice. PractRand finds nothing in 16 GB, of one
    key after the other with 17, 256 or 2^24 words each.
    """
    first, second = jax.random.bits(key, (2,), jnp.uint32)
    word = jnp.arange(number, dtype=jnp.uint32) * jnp.uint32(0x9E3779B9) + first
    word = (word ^ (word >> 16)) * jnp.uint32(0x85EBCA6B)
    word = word ^ second
    for shift, factor in ((17, 0xED5AD4BB), (11, 0xAC4C1B51), (15, 0x31848BAB)):
        word = (word ^ (word >> shift)) * jnp.uint32(factor)
    return word ^ (word >> 14)
