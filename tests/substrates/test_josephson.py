"""The Josephson mixer: coherent against closed forms and against Fock, Fock against QuTiP, and every refusal."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import qutip

from morphax import JosephsonMixer, evolve
from morphax.quantum import PhotonNumbers, Populations, Quadratures, basis_states, coherent_state
from morphax.units import MHz, us

pytestmark = pytest.mark.usefixtures("double")

DRIVES = np.random.default_rng(0).uniform(-1, 1, 50)


def qutip_populations(mixer: JosephsonMixer, drives: np.ndarray, tolerance: float = 1e-12) -> np.ndarray:
    """All populations after every input, from QuTiP's master-equation solver on the same truncated operators."""
    levels = mixer.levels
    identity = [qutip.qeye(n) for n in levels]
    a = [qutip.tensor([*identity[:j], qutip.destroy(n), *identity[j + 1 :]]) for j, n in enumerate(levels)]
    G, kappa = np.asarray(mixer.coupling), np.asarray(mixer.damping_rate)
    kerr = np.zeros(len(levels)) if mixer.kerr is None else np.asarray(mixer.kerr)
    thermal = np.zeros(len(levels)) if mixer.thermal_occupation is None else np.asarray(mixer.thermal_occupation)
    H0 = sum(G[i, j] * a[i].dag() * a[j] for i in range(len(a)) for j in range(len(a)))
    for j, b in enumerate(a):
        H0 += kerr[j] / 2 * b.dag() ** 2 * b**2
    rate = np.asarray(mixer.drive_amplitude) * np.sqrt(2 * kappa)
    H1 = sum(1j * rate[j] * (a[j] - a[j].dag()) for j in range(len(a)))
    if mixer.port == "joint":
        line = qutip.qzero(list(levels))
        for b, rate_of_b in zip(a, kappa, strict=True):
            line += np.sqrt(rate_of_b) * b
        ports = [np.sqrt(thermal[0] + 1) * line, np.sqrt(thermal[0]) * line.dag()]
    else:
        ports = [np.sqrt(kappa[j] * (thermal[j] + 1)) * a[j] for j in range(len(a))]
        ports += [np.sqrt(kappa[j] * thermal[j]) * a[j].dag() for j in range(len(a))]
    state = qutip.ket2dm(qutip.basis(list(levels), [0] * len(levels)))
    options = {"atol": tolerance, "rtol": tolerance, "nsteps": 100_000, "method": "vern9", "progress_bar": ""}
    populations = []
    for drive in drives:
        state = qutip.mesolve(H0 + drive * H1, state, [0, mixer.interval], ports, options=options).states[-1]
        populations.append(np.real(state.diag()))
    return np.array(populations)


def mixer(levels=(4, 4), **options) -> JosephsonMixer:
    count = int(np.prod(levels))
    return JosephsonMixer.two_mode(levels=levels, method="fock", measured=count, **options)


def all_populations(mixer: JosephsonMixer) -> JosephsonMixer:
    states = tuple(tuple(int(n) for n in state) for state in np.ndindex(*mixer.levels))
    return dataclasses.replace(mixer, measured=Populations(states))


SYSTEMS = {
    "separate": {},
    "joint": {"port": "joint"},
    "kerr": {"kerr": np.array([3.0, -5.0]) * 1e-3},
    "thermal": {"thermal_occupation": np.array([0.1, 0.3])},
    "joint thermal": {"port": "joint", "thermal_occupation": 0.2},
    "everything": {"kerr": 2e-3, "thermal_occupation": 0.05, "coupling": np.array([[4.0, 9.0], [9.0, -3.0]]) * 1e-3},
}


@pytest.mark.slow
@pytest.mark.parametrize("system", SYSTEMS)
def test_fock_agrees_with_qutip_on_a_random_sequence(system):
    device = all_populations(mixer(levels=(5, 4), **SYSTEMS[system]))
    reference = qutip_populations(device, DRIVES)
    populations, _ = evolve(device, DRIVES)
    assert np.abs(populations - reference).max() < 1e-8


@pytest.mark.slow
@pytest.mark.parametrize("system", ["separate", "joint", "kerr", "thermal"])
def test_fock_in_single_precision(system):
    reference, _ = evolve(all_populations(mixer(levels=(5, 4), **SYSTEMS[system])), DRIVES)
    with jax.enable_x64(False):
        single = all_populations(mixer(levels=(5, 4), **SYSTEMS[system]))
        populations, _ = evolve(single, DRIVES.astype(np.float32))
    assert populations.dtype == jnp.float32
    assert np.abs(populations - reference).max() < 1e-4


def test_the_two_mode_mixer_of_the_paper_agrees_with_qutip():
    device = all_populations(mixer(levels=(8, 8)))
    populations, _ = evolve(device, DRIVES[:8])
    assert np.abs(populations - qutip_populations(device, DRIVES[:8])).max() < 1e-8


@pytest.mark.slow
@pytest.mark.parametrize("port", ["separate", "joint"])
def test_coherent_agrees_with_fock_when_levels_suffice(port):
    weak = JosephsonMixer.two_mode(port=port, levels=10, measured=25).with_peak_photons(jnp.array(DRIVES), 0.14)
    fock = dataclasses.replace(weak, method="fock")
    assert weak.method == "coherent"
    exact, alpha = evolve(weak, DRIVES)
    truncated, rho = evolve(fock, DRIVES)
    assert jnp.abs(exact - truncated).max() < 1e-8
    assert jnp.abs(coherent_state(alpha, weak.levels) - rho).max() < 1e-7


def test_one_damped_mode_follows_its_closed_form():
    kappa, epsilon, time = 0.02, 0.05, 100.0
    device = JosephsonMixer(0.0, [kappa], epsilon, measured=PhotonNumbers())
    photons, _ = evolve(device, jnp.array([1.0, 0.0, 0.0]))
    alpha = -epsilon * np.sqrt(2 * kappa) * (1 - np.exp(-kappa * time / 2)) / (kappa / 2)
    expected = alpha**2 * np.exp(-kappa * time * np.arange(3))
    assert np.allclose(photons[:, 0], expected, rtol=1e-12)


def test_a_lossless_pair_exchanges_its_photon():
    g = 2 * MHz
    device = JosephsonMixer(g, [0.0, 0.0], 0.0, levels=3, method="fock", measured=((1, 0), (0, 1)), interval=20.0)
    one = jnp.zeros((9, 9), complex).at[3, 3].set(1)
    populations, _ = evolve(device, jnp.zeros(5), state=one)
    phase = g * 20.0 * np.arange(1, 6)
    assert np.allclose(populations, np.stack([np.cos(phase) ** 2, np.sin(phase) ** 2], axis=1), atol=1e-10)


def test_the_dark_mode_of_a_joint_port_does_not_decay():
    dark = jnp.array([1.0, -1.0]) / np.sqrt(2) + 0j
    device = JosephsonMixer(0.0, [0.02, 0.02], 0.0, port="joint", measured=PhotonNumbers())
    photons, _ = evolve(device, jnp.zeros(50), state=dark)
    assert np.allclose(photons, 0.5, atol=1e-12)


@pytest.mark.slow
def test_trace_hermiticity_and_positivity_over_ten_thousand_points(optimised):
    device = mixer(levels=(4, 3), port="joint", thermal_occupation=0.1)
    drives = jax.random.uniform(jax.random.key(0), (10_000,), minval=-1, maxval=1)
    populations, rho = evolve(all_populations(device), drives)
    assert jnp.abs(populations.sum(axis=1) - 1).max() < 1e-10
    assert populations.min() > -1e-10
    assert jnp.abs(rho - rho.conj().T).max() < 1e-10
    assert jnp.linalg.eigvalsh(rho).min() > -1e-10


@pytest.mark.slow
def test_the_trace_does_not_drift_in_single_precision():
    with jax.enable_x64(False):
        device = mixer(levels=(3, 2))
        drives = jax.random.uniform(jax.random.key(0), (20_000,), jnp.float32, minval=-1, maxval=1)
        _, rho = evolve(device, drives)
        assert rho.dtype == jnp.complex64
        assert jnp.abs(jnp.trace(rho) - 1) < 1e-6
        assert jnp.abs(rho - rho.conj().T).max() < 1e-6
        assert jnp.linalg.eigvalsh(rho).min() > -1e-5


def test_ten_modes_run_and_every_population_is_a_product_of_poissons():
    keys = jax.random.split(jax.random.key(0))
    coupling = jnp.triu(jax.random.uniform(keys[0], (10, 10), maxval=0.01), 1)
    device = JosephsonMixer(coupling + coupling.T, jnp.full(10, 0.02), 0.05, measured=200, levels=8)
    populations, alpha = evolve(device, DRIVES)
    assert device.dimension == 8**10
    mean = np.abs(alpha) ** 2
    assert isinstance(device.measured, Populations)
    for state, population in zip(device.measured.states[:20], populations[-1], strict=False):
        factors = [np.exp(-m) * m**n / np.prod(np.arange(1, n + 1)) for m, n in zip(mean, state, strict=True)]
        assert np.isclose(population, np.prod(factors), rtol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["coherent", pytest.param("fock", marks=pytest.mark.slow)])
def test_gradients_of_every_device_parameter_and_of_the_input(method):
    device = JosephsonMixer.two_mode(levels=4, method=method, measured=5)
    weights = jnp.arange(1.0, 6.0)

    def loss(device, drives):
        return jnp.sum(evolve(device, drives)[0] @ weights)

    drives = jnp.asarray(DRIVES[:4])
    by_device = eqx.filter_jit(eqx.filter_grad(loss))(device, drives)
    by_input = eqx.filter_jit(lambda device, drives: jax.grad(loss, argnums=1)(device, drives))(device, drives)
    for name in ("coupling", "damping_rate", "drive_amplitude"):
        leaf = getattr(device, name)
        for index in np.ndindex(*leaf.shape):
            step = 1e-6 * max(abs(float(leaf[index])), 1e-3)
            shifted = [
                eqx.tree_at(lambda d, n=name: getattr(d, n), device, leaf.at[index].add(s * step)) for s in (1, -1)
            ]
            slope = (loss(shifted[0], drives) - loss(shifted[1], drives)) / (2 * step)
            assert np.isclose(getattr(by_device, name)[index], slope, rtol=1e-5, atol=1e-5), (name, index)
    slope = (loss(device, drives.at[1].add(1e-6)) - loss(device, drives.at[1].add(-1e-6))) / 2e-6
    assert np.isclose(by_input[1], slope, rtol=1e-6)


@pytest.mark.slow
def test_gradient_of_kerr_and_temperature():
    def loss(kerr, thermal):
        device = JosephsonMixer.two_mode(levels=4, kerr=kerr, thermal_occupation=thermal, measured=5)
        return jnp.sum(evolve(device, DRIVES[:3])[0][:, 1:3])

    at = (jnp.array([1e-3, 2e-3]), jnp.array([0.1, 0.2]))
    gradients = jax.jit(jax.grad(loss, argnums=(0, 1)))(*at)
    for argument, unit in ((0, 1e-7), (1, 1e-6)):
        shift = [tuple(x + s * unit * (i == argument) for i, x in enumerate(at)) for s in (1, -1)]
        slope = (loss(*shift[0]) - loss(*shift[1])) / (2 * unit)
        assert np.isclose(gradients[argument].sum(), slope, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["coherent", "fock"])
def test_vmap_over_sequences_and_over_devices_equals_one_by_one(method):
    sequences = jnp.asarray(DRIVES[:12].reshape(3, 4))
    rates = jnp.array([[17.0, 21.0], [5.0, 9.0], [40.0, 60.0]]) / us

    def run(damping_rate, drives):
        device = JosephsonMixer.two_mode(damping_rate=damping_rate, levels=4, method=method, measured=4)
        return evolve(device, drives)[0]

    together = jax.vmap(run)(rates, sequences)
    alone = jnp.stack([run(r, d) for r, d in zip(rates, sequences, strict=True)])
    assert jnp.allclose(together, alone, atol=1e-12)


def test_inputs_may_differ_from_mode_to_mode():
    device = JosephsonMixer(0.0, [0.02, 0.02], 0.05, measured=PhotonNumbers())
    photons, _ = evolve(device, jnp.array([[1.0, 0.0], [0.5, 0.0]]))
    assert photons[0, 0] > 0
    assert jnp.all(photons[:, 1] == 0)


@pytest.mark.slow
def test_a_sequence_continues_where_it_stopped():
    device = JosephsonMixer.two_mode(levels=4, method="fock", measured=4)
    whole, end = evolve(device, DRIVES[:10])
    first, state = evolve(device, DRIVES[:6])
    second, same_end = evolve(device, DRIVES[6:10], state=state)
    assert jnp.allclose(whole, jnp.concatenate([first, second]), atol=1e-13)
    assert jnp.allclose(end, same_end, atol=1e-13)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["coherent", pytest.param("fock", marks=pytest.mark.slow)])
@pytest.mark.parametrize("measured", [Populations(basis_states((7, 7), 6)), PhotonNumbers(), Quadratures()])
def test_shots_scatter_around_the_exact_reading(method, measured):
    device = JosephsonMixer.two_mode(levels=7, method=method, measured=measured, shots=500)
    device = device.with_peak_photons(jnp.ones(2), 0.5)
    exact, _ = evolve(dataclasses.replace(device, shots=None), jnp.ones(2))
    readings = jax.vmap(lambda key: evolve(device, jnp.ones(2), key=key)[0])(jax.random.split(jax.random.key(0), 400))
    spread = readings.std(axis=0)
    # 400 repetitions fix the mean to spread / 20; binned homodyne positions add a little more.
    assert jnp.all(jnp.abs(readings.mean(axis=0) - exact) < 5 * spread / 20 + 1e-3)
    if isinstance(measured, Populations):
        assert jnp.allclose(spread, jnp.sqrt(exact * (1 - exact) / 500), rtol=0.2)
    if isinstance(measured, Quadratures):
        assert jnp.allclose(spread, np.sqrt(0.5 / 500), rtol=0.2)


@pytest.mark.slow
def test_a_perfectly_populated_top_level_warns():
    device = JosephsonMixer.two_mode(levels=4, method="fock")
    with pytest.warns(UserWarning, match=r"highest level holds .* %"):
        worst = device.truncation(jnp.ones(4))
    assert worst.shape == (2,)
    assert jnp.all(device.with_peak_photons(jnp.ones(4), 0.05).truncation(jnp.ones(4)) < 0.01)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"damping_rate": [-0.1, 0.1]}, r"damping_rate is -0\.1; it must be >= 0"),
        ({"damping_rate": [np.nan, 0.1]}, r"damping_rate\[0\] is nan; damping_rate must be finite"),
        ({"damping_rate": 0.1}, r"damping_rate has shape \(\); it must be \(any,\)"),
        ({"coupling": np.ones((3, 3))}, r"coupling has shape \(3, 3\); it must be \(2, 2\)"),
        ({"coupling": np.array([[0.0, 1.0], [2.0, 0.0]])}, r"coupling is not symmetric"),
        ({"drive_amplitude": [1.0, 2.0, 3.0]}, r"drive_amplitude has shape \(3,\); it must be \(2,\)"),
        ({"thermal_occupation": -0.5}, r"thermal_occupation is -0\.5; it must be >= 0"),
        ({"port": "joint", "thermal_occupation": [0.1, 0.2]}, r"joint port share one bath"),
        ({"levels": 0}, r"levels is 0; it must be a whole number >= 2"),
        ({"levels": (4, 4, 4)}, r"levels is \(4, 4, 4\); it must be one number or 2"),
        ({"levels": 3, "measured": 10}, r"measured is 10; it must be a whole number from 1 to 9"),
        ({"measured": ((0, 8),)}, r"measured state \(0, 8\) does not exist"),
        ({"measured": ((0, 1), (0, 1))}, r"measured holds a state twice"),
        ({"interval": 0.0}, r"interval is 0\.0; it must be > 0"),
        ({"port": "both"}, r"port is 'both'; it must be one of 'separate', 'joint'"),
        ({"method": "exact"}, r"method is 'exact'; it must be one of"),
        ({"method": "coherent", "kerr": 0.1}, r"method is 'coherent' but kerr is given"),
        ({"method": "coherent", "thermal_occupation": 0.1}, r"'coherent' but thermal_occupation is given"),
        ({"shots": 0}, r"shots is 0; it must be a whole number >= 1"),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments, message):
    complete = {"coupling": 0.01, "damping_rate": [0.02, 0.02], "drive_amplitude": 0.05} | arguments
    with pytest.raises(ValueError, match=message):
        JosephsonMixer(**complete)


@pytest.mark.parametrize(
    ("drives", "message"),
    [
        (np.array([0.0, np.nan]), r"drives\[1\] is nan; drives must be finite"),
        (
            np.zeros((4, 3)),
            r"one input has 3 channels, shape \(3,\); JosephsonMixer takes 1 or 2 channels: put WithInput",
        ),
        (np.float64(1.0), r"drives has shape \(\); its first axis is time"),
        (np.zeros(0), r"must hold at least 1 point"),
    ],
)
def test_bad_inputs_are_refused_by_name(drives, message):
    with pytest.raises(ValueError, match=message):
        evolve(JosephsonMixer.two_mode(), drives)


def test_a_state_of_the_wrong_kind_is_refused():
    with pytest.raises(ValueError, match=r"state has shape \(64, 64\); it must be \(2,\)"):
        evolve(JosephsonMixer.two_mode(), jnp.zeros(3), state=jnp.eye(64) + 0j)


def test_shots_without_a_key_are_refused():
    with pytest.raises(ValueError, match="key is None"):
        evolve(JosephsonMixer.two_mode(shots=10), jnp.zeros(3))


def test_auto_picks_the_exact_method():
    assert JosephsonMixer.two_mode().method == "coherent"
    assert JosephsonMixer.two_mode(kerr=0.0, thermal_occupation=0.0).method == "coherent"
    assert JosephsonMixer.two_mode(kerr=1e-3).method == "fock"
    assert JosephsonMixer.two_mode(thermal_occupation=0.1).method == "fock"


def test_the_printed_numbers_overfill_eight_levels():
    printed = JosephsonMixer.printed(measured=PhotonNumbers())
    photons, _ = evolve(printed, jnp.sin(2 * jnp.pi * jnp.arange(16) / 8))
    assert printed.port == "joint"
    assert photons.max() > 1e4
