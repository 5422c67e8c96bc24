"""The mixer before the rotating-wave approximation, against the master equation of another simulator and its limit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import qutip

from morphax import JosephsonMixer, evolve
from morphax.quantum.measurement import PhotonNumbers, Populations
from morphax.substrates.three_wave import ThreeWaveMixer
from morphax.units import GHz, MHz, ns

DRIVES = jnp.array([1.0, -0.5])
LEVELS = 9


def mixer(**options):
    given = {"interval": 4 * ns, "damping_rate": (0.1, 0.13), "drive_amplitude": 0.25, "coupling": 60 * MHz}
    return JosephsonMixer(measured=9, **given | options)


def master_equation(device, frequencies):
    """Populations after every input, in the laboratory's frame, where drives and pump are cosines."""
    a = qutip.tensor(qutip.destroy(LEVELS), qutip.qeye(LEVELS))
    b = qutip.tensor(qutip.qeye(LEVELS), qutip.destroy(LEVELS))
    first, second = frequencies
    rates = np.asarray(device.drive_amplitude * jnp.sqrt(2 * device.damping_rate))
    roots = np.sqrt(np.asarray(device.damping_rate))
    parts = [roots[0] * a, roots[1] * b]
    collapse = [sum(parts)] if device.port == "joint" else parts
    state, found = qutip.fock_dm([LEVELS, LEVELS], [0, 0]), []
    for drive in np.asarray(DRIVES):
        hamiltonian = [
            first * (a.dag() @ a) + second * (b.dag() @ b),
            [
                float(device.coupling[0, 1]) * ((a + a.dag()) @ (b + b.dag())),
                lambda t: 2 * np.cos((first - second) * t),
            ],
            # i (a exp(i w t) - a+ exp(-i w t)) turns with the mode; the rest of the cosine runs against it.
            *(
                [drive * rate * 1j * (mode - mode.dag()), lambda t, w=w: 2 * np.cos(w * t)]
                for mode, rate, w in zip((a, b), rates, frequencies, strict=True)
            ),
        ]
        options = {"method": "vern7", "rtol": 1e-8, "atol": 1e-10, "nsteps": 100_000}
        state = qutip.mesolve(hamiltonian, state, [0.0, device.interval], collapse, options=options).final_state
        found.append(np.real(state.diag()).reshape(LEVELS, LEVELS)[:3, :3])
    return np.array(found)


@pytest.mark.parametrize("port", ["separate", pytest.param("joint", marks=pytest.mark.slow)])
def test_populations_are_those_of_the_master_equation(port, double):
    frequencies = (1.0 * GHz, 0.5 * GHz)
    exact = ThreeWaveMixer(mixer(port=port), frequencies, steps=64)
    found = np.zeros((len(DRIVES), 3, 3))
    assert isinstance(exact.mixer.measured, Populations)
    for place, state in enumerate(exact.mixer.measured.states):
        found[:, *state] = evolve(exact, DRIVES)[0][:, place]
    np.testing.assert_allclose(found, master_equation(exact.mixer, frequencies), atol=2e-6)


def test_far_from_each_other_the_modes_obey_the_rotating_wave_approximation(double):
    wanted = evolve(mixer(), DRIVES)[0]
    apart = [
        float(jnp.abs(evolve(ThreeWaveMixer(mixer(), (scale * GHz, scale / 2 * GHz)), DRIVES)[0] - wanted).max())
        for scale in (2.0, 4.0, 8.0)
    ]
    # Averaged over a beat the terms that were left out vanish: what is left falls with the frequencies.
    assert apart[2] < apart[1] / 1.8 < apart[0] / 3.2


def test_the_step_of_the_integrator_is_fine(double):
    coarse, fine = (evolve(ThreeWaveMixer(mixer(), (GHz, GHz / 2), steps=n), DRIVES)[0] for n in (32, 128))
    np.testing.assert_allclose(coarse, fine, atol=1e-7)


def test_it_has_derivatives(double):
    def last(coupling):
        return evolve(ThreeWaveMixer(mixer(coupling=coupling), (GHz, GHz / 2), steps=8), DRIVES)[0][-1, 1]

    step, at = 1e-5, 60 * MHz
    slope = (last(at + step) - last(at - step)) / (2 * step)
    assert float(jax.grad(last)(at)) == pytest.approx(float(slope), rel=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ThreeWaveMixer(mixer(), (GHz / 2, GHz)), "the first must be larger"),
        (lambda: ThreeWaveMixer(mixer(), (1.01 * GHz, GHz / 2)), "whole numbers of periods"),
        (lambda: ThreeWaveMixer(mixer(), (GHz, GHz / 2), steps=4), "steps is 4"),
        (lambda: ThreeWaveMixer(mixer(method="fock"), (GHz, GHz / 2)), "method 'fock'"),
        (lambda: ThreeWaveMixer(JosephsonMixer(MHz, [0.1], 1.0, measured=2), (GHz, GHz / 2)), "mixer has 1 modes"),
        (lambda: ThreeWaveMixer(mixer(shots=10), (GHz, GHz / 2)), "without shots"),
        (
            lambda: ThreeWaveMixer(JosephsonMixer(MHz, [0.1, 0.1], 1.0, measured=PhotonNumbers()), (GHz, GHz / 2)),
            "must measure populations",
        ),
    ],
)
def test_what_it_cannot_follow_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
