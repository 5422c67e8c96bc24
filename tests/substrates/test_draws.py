"""Random events: their frequencies, their independence, and that keys decide."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from morphax.substrates.draws import events, words

ROWS, COLUMNS = 4096, 512


@pytest.fixture(scope="module", params=["keys that were split", "keys in a row", "one key"])
def drawn(request) -> np.ndarray:
    """Words in rows: of one key each, as simulations take them, or all of one."""
    if request.param == "one key":
        return np.asarray(words(jax.random.key(3), ROWS * COLUMNS)).reshape(ROWS, COLUMNS)
    split = request.param == "keys that were split"
    keys = jax.random.split(jax.random.key(1), ROWS) if split else jax.vmap(jax.random.key)(jnp.arange(ROWS))
    return np.asarray(jax.vmap(lambda key: words(key, COLUMNS))(keys))


def likely(statistic: float, freedom: int) -> bool:
    """Whether a chi-square is none that occurs once in a million."""
    return bool(5e-7 < stats.chi2.sf(statistic, freedom) < 1 - 5e-7)


def chi_square(values: np.ndarray, classes: int) -> float:
    counts = np.bincount(values.ravel().astype(np.int64), minlength=classes)
    expected = values.size / classes
    return float(np.sum((counts - expected) ** 2) / expected)


def test_words_are_uniform_in_every_byte_and_bit(drawn):
    for shift in (0, 8, 16, 24):
        assert likely(chi_square(drawn >> shift & 255, 256), 255)
    ones = np.array([np.sum(drawn >> bit & 1) for bit in range(32)])
    assert likely(float(np.sum((ones - drawn.size / 2) ** 2) / (drawn.size / 4)), 32)


@pytest.mark.parametrize("bits", [0, 24], ids=["low bits", "high bits"])
def test_neighbours_are_independent(drawn, bits):
    """Pairs along a row (of one key), down a column (of neighbouring keys), and triples along a row."""
    part = drawn >> bits & 255
    high = part >> 2
    for one, other in (
        (high[:, :-1], high[:, 1:]),
        (high[:-1], high[1:]),
        (high[:, : -COLUMNS // 2], high[:, COLUMNS // 2 :]),
    ):
        assert likely(chi_square(one * 64 + other, 64**2), 64**2 - 1)
    small = part >> 4
    assert likely(chi_square((small[:, :-2] * 16 + small[:, 1:-1]) * 16 + small[:, 2:], 16**3), 16**3 - 1)


@pytest.mark.slow
def test_bits_of_a_word_are_uncorrelated_with_each_other_and_with_the_next_one(drawn):
    def bits(values: np.ndarray) -> np.ndarray:
        return (2.0 * (values.ravel()[:, None] >> np.arange(32) & 1) - 1)[: 2**15]

    here, after = bits(drawn[:, :-1]), bits(drawn[:, 1:])
    scale = len(here) ** -0.5
    within = (here.T @ here / len(here))[np.triu_indices(32, 1)] / scale
    between = (here.T @ after / len(here)).ravel() / scale
    for found in (within, between):  # normal with deviation 1
        assert likely(float(np.sum(found**2)), found.size)
        assert np.abs(found).max() < 6


@pytest.mark.slow
def test_no_word_comes_twice_for_a_key_and_every_bit_of_a_key_counts():
    several = np.asarray(words(jax.random.key(0), 2**20))
    assert len(np.unique(several)) == 2**20
    first = np.asarray(words(jax.random.wrap_key_data(jnp.zeros(2, jnp.uint32)), 4096))
    for bit in range(64):
        data = np.zeros(2, np.uint32)
        data[bit // 32] = 1 << (bit % 32)
        other = np.asarray(words(jax.random.wrap_key_data(jnp.asarray(data)), 4096))
        changed = np.mean([np.mean((first ^ other) >> b & 1) for b in range(32)])
        assert abs(changed - 0.5) < 6 * 0.5 / (4096 * 32) ** 0.5


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_events_have_their_probabilities(dtype):
    with jax.enable_x64(dtype == jnp.float64):
        probability = jnp.asarray([0.0, 1e-4, 0.1, 0.5, 0.9999, 1.0], dtype)
        number = 2**20
        shares = np.asarray(events(jax.random.key(5), probability, (number, 6))).mean(axis=0)
    assert shares[0] == 0
    assert shares[-1] == 1
    p = np.asarray(probability)[1:-1]
    assert np.all(np.abs(shares[1:-1] - p) < 5 * np.sqrt(p * (1 - p) / number))


def test_events_follow_the_key_whatever_its_kind():
    half = jnp.full(1000, 0.5)
    one, again, other = (np.asarray(events(jax.random.key(seed), half, (1000,))) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert 400 < np.sum(one != other) < 600
    assert 400 < np.sum(events(jax.random.key(0, impl="rbg"), half, (1000,))) < 600
