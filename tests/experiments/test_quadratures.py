"""What the mixer shows of itself in `josephson/quadratures`, against theory and other ways to compute it."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from morphax.experiments.josephson._quadratures import INSTANTS, ManyPhotons, Seen, Trial, _drawn, seen
from morphax.quantum.measurement import basis_states, coherent_state, homodyne_distribution, reduced
from morphax.substrates.base import evolve
from morphax.substrates.josephson import JosephsonMixer
from morphax.tasks.waveforms import waveforms
from morphax.units import ns, us

STATES = basis_states((8, 8), 16)
X = slice(16, 20)  # quadratures
VARIANCES = slice(20, 24)


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def mixer(levels=4, **options):
    reads = Seen(STATES, (levels,) * 2)
    return JosephsonMixer.two_mode(levels=levels, measured=reads, **options)


def shown(device, drives):
    """Sampled four times an input, from the vacuum: (points * 4, readings)."""
    return np.asarray(evolve(device, jnp.repeat(drives, INSTANTS))[0])


@pytest.mark.slow
def test_coherent_states_are_read_alike_as_amplitudes_and_as_density_matrices():
    alpha, levels = jnp.array([0.4 - 0.7j, -0.3 + 0.2j]), (16, 16)
    reads = Seen(basis_states(levels, 16), levels)
    both = reads.of_amplitudes(alpha), reads.of_density_matrix(coherent_state(alpha, levels), levels)
    np.testing.assert_allclose(*both, atol=1e-8)


@pytest.mark.slow
def test_variances_are_those_of_homodyne_detection():
    key, levels = jax.random.key(0), (5, 4)
    real, imaginary = jax.random.normal(key, (2, 20, 20))
    root = real + 1j * imaginary
    rho = root @ root.conj().T
    rho = rho / jnp.trace(rho).real
    found = Seen(basis_states(levels, 16), levels).of_density_matrix(rho, levels)
    for place, (phase, mode) in enumerate([(0.0, 0), (0.0, 1), (np.pi / 2, 0), (np.pi / 2, 1)]):
        positions, probabilities = homodyne_distribution(reduced(rho, levels, mode), phase, 4000)
        mean = probabilities @ positions
        assert found[X][place] == pytest.approx(float(mean), abs=1e-5)
        assert found[VARIANCES][place] == pytest.approx(float(probabilities @ (positions - mean) ** 2), abs=1e-4)


def test_many_photons_obey_the_classical_equation():
    from scipy.integrate import solve_ivp

    quarter = mixer(kerr=jnp.array([17.0, 21.0]) / us, interval=25 * ns)
    A, kerr = np.asarray(quarter.amplitude_generator()), np.asarray(quarter.kerr)
    alpha = np.zeros(2, complex)
    for drive in (1.0, -0.5):
        rates = np.asarray(quarter.drive_rates(jnp.asarray(drive)))
        slope = lambda _, a, rates=rates: -A @ a - 1j * kerr * np.abs(a) ** 2 * a - rates  # noqa: E731
        alpha = solve_ivp(slope, (0, 25), alpha, rtol=1e-10, atol=1e-12).y[:, -1]
    last = evolve(ManyPhotons(quarter), jnp.array([1.0, -0.5]))[0][-1, X]
    np.testing.assert_allclose(last, np.sqrt(2) * np.concatenate([alpha.real, alpha.imag]), atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kerr", [0.0, 0.02])
def test_the_last_instant_is_the_end_of_an_interval_as_long_as_was_asked(kerr):
    task = waveforms(16, 16, key=jax.random.key(0))
    inputs = jnp.concatenate([task.train_inputs, task.test_inputs])
    device, asked = mixer(kerr=kerr), Trial((task, task, task), inputs[None])
    drives = jnp.array([[1.0, 0.0, 1.0], [0.5, 0.5, 4.0]])
    found = eqx.filter_jit(lambda m: jax.lax.map(lambda drive: seen(m, False, drive, asked), drives))(device)
    slow = dataclasses.replace(device, interval=4 * device.interval)
    for readings, whole, series in zip(found, (device, slow), (inputs, (1 + inputs) / 2), strict=True):
        np.testing.assert_allclose(readings[0, :, 0], evolve(whole, series)[0], atol=1e-9)


def test_populations_are_even_in_the_drive_and_quadratures_odd():
    drives = jax.random.uniform(jax.random.key(0), (6,), minval=-1.0)
    there, back = (shown(mixer(kerr=0.02, interval=25 * ns), sign * drives) for sign in (1, -1))
    assert np.abs(there[:, X]).max() > 0.1
    np.testing.assert_allclose(there[:, :16], back[:, :16], atol=1e-10)
    np.testing.assert_allclose(there[:, X], -back[:, X], atol=1e-10)


def test_quadratures_of_linear_modes_are_two_functions_of_past_inputs_and_three_when_sampled():
    drives = jax.random.uniform(jax.random.key(0), (200,), minval=-1.0)
    quadratures = shown(mixer(levels=8, interval=25 * ns), drives)[:, X].reshape(200, 16)
    for readings, rank in ((quadratures[:, -4:], 2), (quadratures, 3)):
        singular = np.linalg.svd(readings, compute_uv=False)
        assert singular[rank - 1] > 1e-3 * singular[0]
        assert singular[rank] < 1e-12 * singular[0]


def test_shots_are_shared_among_the_settings_of_a_detector():
    alpha, points, runs = jnp.array([0.5 + 0.2j, -0.6j]), 4000, jnp.asarray(1600.0)
    exact = Seen(STATES, (8, 8)).of_amplitudes(alpha)
    errors = jax.random.normal(jax.random.key(1), (1, points, 16))
    drawn = _drawn(jnp.tile(exact, (1, points, 4, 1)), runs, errors, jax.random.key(2))
    means, deviations = (np.asarray(each(drawn[:, :, 0], axis=2)) for each in (jnp.mean, jnp.std))
    p = np.asarray(exact[:16])
    bound = np.sqrt(p * (1 - p))
    np.testing.assert_allclose(means[1, 0], p, atol=4 * bound.max() / np.sqrt(runs * points))
    np.testing.assert_allclose(deviations[1, 0], bound / np.sqrt(runs), rtol=0.1)
    np.testing.assert_allclose(deviations[1, 1], np.tile(bound[:4], 4) / np.sqrt(runs / 4), rtol=0.1)
    np.testing.assert_allclose(deviations[0, 2][:4], np.sqrt(0.5 / (runs / 2)), rtol=0.1)
    np.testing.assert_allclose(deviations[1, 2], np.sqrt(0.5 / (runs / 8)), rtol=0.1)
