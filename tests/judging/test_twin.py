"""Twins of devices whose parameters are known."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from morphax import DEVICE, JosephsonMixer, ReLUReservoir, Substrate, mismatch, select
from morphax.judging import Recording, record
from morphax.judging.twin import Twin, identify

DESIGN = JosephsonMixer.two_mode(measured=9)
KEY = jax.random.key(0)


class Memristors(Substrate):
    """dx/dt = k sinh(b V) (1 - x^2) - x / T, by one step an input."""

    rate: jax.Array = eqx.field(metadata=DEVICE)
    steepness: jax.Array = eqx.field(metadata=DEVICE)
    decay: jax.Array = eqx.field(metadata=DEVICE)

    def initial_state(self, *, key=None):
        return jnp.zeros_like(self.rate)

    def step(self, state, drive, *, key=None):
        return state + self.rate * jnp.sinh(self.steepness * drive) * (1 - state**2) - self.decay * state

    def observe(self, state, *, key=None):
        return state


MEMRISTORS = Memristors(jnp.array([0.1, 0.15, 0.2]), jnp.array([0.8, 1.0, 1.2]), jnp.array([0.2, 0.3, 0.4]))


def recorded(device: Any, seed: int, points: int = 1200, noise: float = 0.01) -> Recording:
    drives = np.asarray(jax.random.uniform(jax.random.key(100 + seed), (points,)))
    return record(device, drives, noise=noise, repeats=2, key=jax.random.key(200 + seed))


def deviations(twin: Twin, device: Any, design: Any = DESIGN) -> np.ndarray:
    """Of the parameters that are identified, from the truth, in standard errors."""
    truth = np.asarray(ravel_pytree(select(device, "device")[0])[0])
    start = np.asarray(ravel_pytree(select(design, "device")[0])[0])
    found = twin.parameters
    return ((found.value - truth[np.flatnonzero(start)]) / found.error).values[found.identified.values]


@pytest.mark.slow
def test_a_mixer_is_found_that_is_30_percent_off():
    device = mismatch(DESIGN, devices=0.3, key=KEY)
    twin = identify(DESIGN, recorded(device, 0), spread=0.3, gain="known", key=KEY)
    assert twin.fits
    assert 0.9 < twin.chi2 < 1.1
    assert twin.nrmse == pytest.approx(0.01, rel=0.2)  # the noise of what it is compared with
    assert np.abs(deviations(twin, device)).max() < 4
    # Of a symmetric matrix one triangle is read.
    unknown = twin.parameters.parameter.values[~twin.parameters.identified.values]
    assert unknown.tolist() == [".coupling[1, 0]"]
    assert "5 of 6 parameters are identified (not .coupling[1, 0])" in twin.says()


@pytest.mark.slow
@pytest.mark.parametrize(("design", "devices", "parameters"), [(DESIGN, 40, 200), (MEMRISTORS, 25, 225)])
def test_intervals_cover_the_parameters(design, devices, parameters):
    """95 % of them: at least 90 % of all parameters of all devices."""
    inside = []
    for seed in range(devices):
        device = mismatch(design, devices=0.3, key=jax.random.key(seed))
        twin = identify(design, recorded(device, seed), spread=0.3, gain="known", key=KEY)
        inside += (np.abs(deviations(twin, device, design)) < 1.96).tolist()
    assert len(inside) == parameters
    assert sum(inside) >= 0.9 * parameters


def test_missing_readings_are_named():
    whole = recorded(DESIGN, 4)
    broken = np.array(whole.responses)
    broken[300, 2] = np.nan
    with pytest.raises(ValueError, match="readings of 1 of 1200 points are missing, the first is x2 of point 300"):
        identify(DESIGN, Recording(whole.inputs, broken), key=KEY)


@pytest.mark.slow
def test_gain_and_offset_of_the_instrument_are_found_too():
    device = mismatch(DESIGN, devices=0.1, key=KEY)
    plain = recorded(device, 1)
    gain, offset = np.linspace(0.5, 2.0, 9), np.linspace(-1.0, 1.0, 9)
    readings = [each * gain + offset for each in (plain.responses, *plain.repeats)]
    twin = identify(DESIGN, Recording(plain.inputs, readings[0], readings[1:]), key=KEY)
    assert twin.fits
    assert twin.gain == pytest.approx(gain, rel=0.05)
    assert np.abs(deviations(twin, device)).max() < 4
    unaware = identify(DESIGN, Recording(plain.inputs, readings[0], readings[1:]), gain="known", starts=1, key=KEY)
    assert not unaware.fits


@pytest.mark.slow
def test_a_model_of_another_class_does_not_fit():
    device = ReLUReservoir.random(9, key=KEY)
    twin = identify(DESIGN, recorded(device, 2), starts=2, key=KEY)
    assert twin.chi2 > 10
    assert "the model does not fit" in twin.says()


@pytest.mark.slow
def test_without_repeats_the_noise_is_what_is_left():
    device = mismatch(DESIGN, devices=0.1, key=KEY)
    whole = recorded(device, 3)
    twin = identify(DESIGN, Recording(whole.inputs, whole.responses), gain="known", key=KEY)
    assert np.isnan(twin.chi2)
    assert twin.noise == pytest.approx(0.01 * np.asarray(whole.responses).std(axis=0), rel=0.1)
    assert "nobody can say whether the model fits" in twin.says()
    assert np.abs(deviations(twin, device)).max() < 4


def test_bad_arguments_are_refused():
    short = recorded(DESIGN, 4, points=100)
    with pytest.raises(ValueError, match="spread is 0"):
        identify(DESIGN, short, spread=0.0, key=KEY)
    with pytest.raises(ValueError, match="gain is 'maybe'"):
        identify(DESIGN, short, gain="maybe", key=KEY)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="no number that is not zero has such a role"):
        identify(DESIGN, short, free=("weight",), key=KEY)
    with pytest.raises(ValueError, match=r"responses has shape \(100, 9\); it must be \(100, 4\)"):
        identify(JosephsonMixer.two_mode(measured=4), short, key=KEY)
    with pytest.raises(ValueError, match="washout is 90; it must be a whole number from 0 to 73"):
        identify(DESIGN, short, washout=90, key=KEY)
