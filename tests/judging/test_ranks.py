"""Independent readings, repeats, and what is forgotten."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from morphax import EchoStateNetwork, JosephsonMixer, evolve
from morphax.judging import (
    consistency,
    effective_dimension,
    forgetting_time,
    lyapunov_exponents,
    separation_ranks,
)

KEY = jax.random.key(0)


def echo_state(scale: float, points: int, radius: float = 0.9) -> np.ndarray:
    network = EchoStateNetwork.random(20, spectral_radius=radius, key=jax.random.key(2))
    drives = jax.random.uniform(KEY, (points,), minval=-1.0, maxval=1.0)
    return np.asarray(evolve(network, scale * drives)[0], float)


@pytest.mark.slow
def test_repeats_tell_the_effective_dimension_at_the_noise_that_they_have():
    clean = echo_state(0.5, 50_000)
    rng = np.random.default_rng(0)
    for noise in (0.03, 0.3):
        repeats = [clean + noise * clean.std(axis=0) * rng.normal(size=clean.shape) for _ in range(3)]
        found = consistency(repeats)
        assert float(found.dimension) == pytest.approx(effective_dimension(clean, [noise])[0], rel=0.01)
        assert found.consistency.values == pytest.approx(1 / (1 + noise**2), abs=0.005)


@pytest.mark.slow
def test_the_noise_of_a_recording_is_no_reading():
    """Twenty copies of one signal, with 2 % noise each, are one reading."""
    rng = np.random.default_rng(0)
    signal = rng.normal(size=(20_000, 1)) * np.ones(20)
    first, second = (signal + 0.02 * rng.normal(size=signal.shape) for _ in range(2))
    noises = [0.0, 0.01, 0.1]
    assert effective_dimension(first, noises)[1] > 15
    assert effective_dimension(first, noises, repeats=[second]) == pytest.approx([1, 1, 1], abs=0.1)
    clean = echo_state(0.5, 5000)
    assert effective_dimension(clean, noises, repeats=[clean]) == pytest.approx(effective_dimension(clean, noises))


def test_what_forgets_at_once_has_no_finite_exponent():
    memoryless = EchoStateNetwork.random(5, spectral_radius=1e-300, key=KEY)
    found = lyapunov_exponents(memoryless, jnp.ones(300), 1)
    assert forgetting_time(found) < 1e-2


def test_what_the_input_does_not_move_is_not_consistent():
    clean = echo_state(0.5, 10_000)
    rng = np.random.default_rng(0)
    repeats = [np.hstack([clean, rng.normal(size=(10_000, 2)), np.ones((10_000, 1))]) for _ in range(2)]
    found = consistency(repeats)
    assert found.consistency.values[-3:-1] == pytest.approx([0, 0], abs=0.05)
    assert np.isnan(found.consistency.values[-1])
    assert float(found.dimension) == pytest.approx(20, abs=0.3)


def test_the_effective_dimension_falls_from_the_rank_to_nothing():
    found = effective_dimension(echo_state(0.5, 5000), [0.0, 1e-3, 1e-2, 0.1, 1.0, 100.0])
    assert found[0] == 20
    assert np.all(np.diff(found) < 0)
    assert found[-1] < 0.01


def test_the_mixers_exponents_are_half_of_its_mean_damping():
    """Modes that are coupled more strongly than their rates differ share their damping: exactly."""
    mixer = JosephsonMixer.two_mode()
    drives = jax.random.uniform(KEY, (1000,))
    found = lyapunov_exponents(mixer, drives, 4)
    expected = -0.5 * float(jnp.mean(mixer.damping_rate)) * mixer.interval
    assert found == pytest.approx([expected] * 4, abs=1e-3)
    assert forgetting_time(found) == pytest.approx(1 / 0.95, abs=1e-3)


def test_an_echo_state_network_loses_its_past_until_it_is_chaotic():
    drives = 1e-3 * jax.random.uniform(KEY, (5000,), minval=-1.0, maxval=1.0)  # so small that the network is linear
    forgets, remembers = (
        EchoStateNetwork.random(50, spectral_radius=radius, bias_scale=0.0, key=jax.random.key(1))
        for radius in (0.9, 3.0)
    )
    assert lyapunov_exponents(forgets, drives, 2)[0] == pytest.approx(np.log(0.9), abs=0.02)
    chaotic = lyapunov_exponents(remembers, drives, 2)
    assert chaotic[0] > 0
    assert forgetting_time(chaotic) == np.inf


@pytest.mark.slow
def test_a_mixer_separates_what_it_saw_last_and_forgets_the_rest():
    found = separation_ranks(JosephsonMixer.two_mode(measured=16), key=KEY)
    assert found["kernel"] > 10
    assert found["generalisation"] <= 1
    network = separation_ranks(EchoStateNetwork.random(30, key=KEY), key=KEY)
    assert network["kernel"] == 30
    assert 1 < network["generalisation"] < 30


def test_bad_arguments_are_refused():
    rows = np.ones((10, 2))
    with pytest.raises(ValueError, match="responses hold 1 repeat; at least 2"):
        consistency([rows])
    with pytest.raises(ValueError, match=r"responses\[1\] has shape \(9, 2\)"):
        consistency([rows, rows[:9]])
    with pytest.raises(ValueError, match="noises is -1"):
        effective_dimension(rows, [-1.0], washout=0)
    with pytest.raises(ValueError, match="count is 9; it must be a whole number from 1 to 4"):
        lyapunov_exponents(JosephsonMixer.two_mode(), jnp.ones(300), 9)
