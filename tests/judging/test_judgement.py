"""Devices judged as a whole."""

from typing import Any

import jax
import numpy as np
import pytest

from morphax import EchoStateNetwork, ExternalSubstrate, JosephsonMixer, Noisy, ReLUReservoir, SpintronicNetwork
from morphax.judging import Recording, judge, record, stimulus, verdict, withstands
from morphax.judging.devices import BUILT_IN, built_in
from morphax.judging.robustness import trials_of
from morphax.substrates.base import count_neurons, evolve

KEY = jax.random.key(0)
FEW: dict[str, Any] = {"points": 4000, "max_degree": 6, "max_products": 2500}


@pytest.mark.slow
def test_the_mixer_has_no_linear_memory_and_no_odd_capacity():
    """Its populations are even in its input."""
    found = judge(JosephsonMixer.two_mode(measured=9), **FEW, key=KEY)
    clean = found.isel(noise=0)
    assert (np.abs(clean.by_degree) < 4 * clean.by_degree_error + 0.05)[::2].all()
    assert 6.5 < float(clean.total) < 9.2
    assert float(found.lyapunov) == pytest.approx(-0.95, abs=2e-3)
    assert (np.diff(found.total.values) < 0.1).all()
    assert (found.total <= found.effective_dimension + 4 * found.total_error + 0.1).all()
    sentences = verdict(found)
    assert "Remembers 0.0" in " ".join(sentences) or "Remembers -0.0" in " ".join(sentences)
    assert "mostly nonlinearly" in " ".join(sentences)


def test_a_recording_is_judged_as_what_it_was_recorded_from():
    drives = stimulus(4000, key=KEY)
    recording = record(ReLUReservoir.random(6, key=KEY), drives, repeats=2, key=KEY)
    found = judge(recording, max_degree=6, max_products=800, key=KEY)
    assert found.attrs["device"] == "recording"
    assert "lyapunov" not in found
    assert float(found.consistent_dimension) == pytest.approx(int(found["rank"][0]), abs=1e-3)


def test_what_cannot_be_judged_is_refused_with_the_reason():
    drives = stimulus(1000, key=KEY)
    with pytest.raises(ValueError, match="no reading changes; there is nothing to judge"):
        judge(Recording(drives, np.ones((1000, 2))), key=KEY)


@pytest.mark.slow
def test_noise_of_a_device_is_seen_in_its_repeats():
    quiet = ReLUReservoir.random(6, key=KEY)
    found = judge(Noisy(quiet, 0.3), **FEW, key=KEY)
    assert float(found.consistent_dimension) < 0.9 * int(found["rank"][0])
    assert "come again" in " ".join(verdict(found)) or "gives" in " ".join(verdict(found))


@pytest.mark.slow
def test_a_device_that_forgets_slowly_needs_a_longer_washout():
    found = judge(built_in("spintronic", layers=(4,), key=KEY), **FEW, key=KEY)
    assert any("washout of 200 is too short" in text for text in verdict(found))


@pytest.mark.slow
@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_systems_take_one_number_and_give_readings(name):
    substrate = built_in(name, key=KEY)
    read, _ = evolve(substrate, stimulus(100, key=KEY), key=KEY)
    assert read.shape[0] == 100
    assert np.asarray(read).std() > 0


def test_settings_of_built_in_systems():
    assert count_neurons(built_in("josephson", measured=9, key=KEY)) == 9
    with pytest.raises(ValueError, match="device is 'josefson'; did you mean 'josephson'"):
        built_in("josefson", key=KEY)
    with pytest.raises(ValueError, match="josephson cannot be made of neurons"):
        built_in("josephson", neurons=9, key=KEY)


@pytest.mark.slow
def test_chips_of_one_line_differ_the_more_they_spread():
    found = withstands(JosephsonMixer.two_mode(measured=9), "spread", (0.0, 0.2), chips=4, points=4000, key=KEY)
    assert found.total.isel(spread=0).std() < 0.1
    assert found.total.isel(spread=1).std() > found.total.isel(spread=0).std()


@pytest.mark.slow
def test_readings_of_few_bits_hold_what_noise_of_their_step_leaves():
    """A step of 2^-b of the range is noise of that over the square root of 12."""
    network = EchoStateNetwork.random(20, key=KEY)
    bits = 6
    rounded = withstands(network, "reading_bits", (bits,), noise=0.0, points=10_000, key=KEY)
    read = np.asarray(evolve(network, stimulus(10_000, key=jax.random.split(KEY)[0]))[0])[200:]
    step = np.ptp(read, axis=0) / (2**bits - 1) / 12**0.5 / read.std(axis=0)
    noisy = [
        float(withstands(network, "scale", (1.0,), noise=noise, points=10_000, key=KEY).total[0, 0])
        for noise in (step.max(), step.min())
    ]
    assert noisy[0] - 0.3 < float(rounded.total[0, 0]) < noisy[1] + 0.3


@pytest.mark.slow
def test_a_warm_device_loses_what_a_cold_one_holds():
    network = EchoStateNetwork.random(10, key=KEY)
    found = withstands(network, "state_noise", (0.0, 0.3), noise=0.0, points=4000, key=KEY)
    assert found.total[0, 0] > found.total[1, 0] + 2


def test_a_mixer_whose_state_cannot_be_disturbed_is_not_warmed():
    assert "state_noise" in trials_of(JosephsonMixer.two_mode(measured=4))
    assert "state_noise" not in trials_of(JosephsonMixer.two_mode(measured=4, method="fock", levels=4))


def test_trials_that_a_device_cannot_stand_are_refused():
    outside = ExternalSubstrate(lambda inputs: np.hstack([inputs, inputs**2]), neurons=2)
    with pytest.raises(ValueError, match="trial is 'spread'; it must be one of 'reading_bits', 'scale'"):
        withstands(outside, "spread", key=KEY)
    network = SpintronicNetwork.random((4,), key=KEY)
    with pytest.raises(ValueError, match=r"values\[0\] is 1; it must be .*2"):
        withstands(network, "weight_bits", (1,), key=KEY)


@pytest.mark.parametrize("kind", ["uniform", "gaussian", "binary"])
def test_a_stimulus_is_independent_and_within_its_range(kind):
    drives = stimulus(20_000, kind, low=0.0, high=2.0, key=KEY)
    assert drives.mean() == pytest.approx(1, abs=0.02)
    expected = {"uniform": 1 / 3**0.5, "gaussian": 1 / 3, "binary": 1.0}[kind]
    assert drives.std() == pytest.approx(expected, abs=0.01)


def test_bad_stimuli_are_refused():
    with pytest.raises(ValueError, match="kind is 'sine'"):
        stimulus(1000, "sine", key=KEY)
    with pytest.raises(ValueError, match="points is 10"):
        stimulus(10, key=KEY)
    with pytest.raises(ValueError, match="high is -1"):
        stimulus(1000, low=0.0, high=-1.0, key=KEY)
