"""Bad calls that something would come of: each is refused where it enters, in one line with argument and value."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from morphax import (
    EchoStateNetwork,
    JosephsonMixer,
    ReLUReservoir,
    SpikingNetwork,
    SpintronicNetwork,
    _checks,
    evolve,
    fit_readout,
    make_members,
    tasks,
)
from morphax.dynamics.relaxation import AdaptiveRungeKutta, RungeKutta
from morphax.learning.metrics import accuracy, nrmse
from morphax.quantum.correlation_map import coefficients, correlations, density_matrix, distribution, expectations
from morphax.quantum.states import fidelity, relative_entropy
from morphax.substrates.imperfections import Noisy, mismatch

KEY = jax.random.key(0)
NETWORK = SpintronicNetwork.random((3, 2), key=KEY)
SKEW = np.array([[0.5, 1.0], [0.0, 0.5]])


def fock(**options) -> JosephsonMixer:
    return JosephsonMixer.two_mode(levels=2, measured=2, method="fock", **options)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: JosephsonMixer.two_mode(shots=np.int64(0)), "shots is 0; it must be >= 1"),
        (lambda: JosephsonMixer.two_mode(shots=jnp.array(-5.0)), r"shots is -5\.0; it must be >= 1"),
        (lambda: JosephsonMixer.two_mode(shots="5"), "shots is '5'; it must be a number"),  # pyright: ignore[reportArgumentType]
        (lambda: JosephsonMixer.two_mode(coupling=1.0 + 1.0j), "coupling is complex; it must be real"),  # pyright: ignore[reportArgumentType]
        (lambda: JosephsonMixer.two_mode(measured=[(0.7, 1.9)]), r"measured is 0\.7; it must be a whole number"),
        (lambda: evolve(fock(), jnp.ones(2), state=jnp.diag(jnp.array([5.0, 0, 0, 0j]))), "state has trace 5; that"),
        (
            lambda: evolve(fock(), jnp.ones(2), state=jnp.eye(4, dtype=complex).at[0, 1].set(1) / 4),
            r"state differs from its adjoint by 0\.25",
        ),
        (lambda: evolve(fock(), jnp.ones(2), state=jnp.full((4, 4), jnp.nan + 0j)), r"state\[0, 0\] is .*nan"),
        (
            lambda: evolve(JosephsonMixer.two_mode(), jnp.full(3, 1e30)),
            "an observation of the JosephsonMixer is not fin",
        ),
        (lambda: evolve(NETWORK, jnp.ones(3), state=jnp.full(5, jnp.nan)), "state.* is nan; state.* must be finite"),
        (lambda: evolve(NETWORK, jnp.ones(3), key=3), "key is 3; it must be a random key"),  # pyright: ignore[reportArgumentType]
        (lambda: SpintronicNetwork.random((3, 2), key=3), "key is 3; it must be a random key"),  # pyright: ignore[reportArgumentType]
        (lambda: tasks.waveforms(key=np.int64(3)), "key is .*3.*; it must be a random key"),  # pyright: ignore[reportArgumentType]
        (lambda: mismatch(NETWORK, devices=0.1, key=3), "key is 3; it must be a random key"),  # pyright: ignore[reportArgumentType]
        (lambda: make_members(lambda key: NETWORK, 3, 2), "key is 3; it must be a random key"),  # pyright: ignore[reportArgumentType]
        (lambda: EchoStateNetwork.random(10**9, key=KEY), "neurons is 1000000000; that takes .* GiB, and this machine"),
        (lambda: ReLUReservoir.random(10**9, key=KEY), "neurons is 1000000000; that takes"),
        (lambda: SpikingNetwork.random(10**9, 2, key=KEY), "neurons is 1000000000; that takes"),
        (lambda: Noisy(NETWORK, -1.0), r"amplitude is -1\.0; it must be >= 0"),
        (lambda: tasks.lorenz(step=0.5, sample_interval=0.5, key=KEY), r"step is 0\.5; with so long a step"),
        (lambda: fit_readout(jnp.ones((0, 3)), jnp.ones((0, 1))), r"features has shape \(0, 3\); a readout needs"),
        (lambda: fit_readout(jnp.ones((5, 0)), jnp.ones((5, 1))), r"features has shape \(5, 0\); a readout needs"),
        (lambda: nrmse(jnp.ones((5, 1)), jnp.ones(5)), r"outputs has shape \(5, 1\); it must be \(5,\)"),
        (lambda: fidelity(SKEW, SKEW), "rho differs from its adjoint by 1; a density matrix is Hermitian"),
        (lambda: fidelity(np.eye(2) / 2, np.full((2, 2), np.nan)), r"sigma\[0, 0\] is nan"),
        (lambda: relative_entropy(np.eye(2) / 2, SKEW), "sigma differs from its adjoint"),
        (lambda: coefficients(np.full((2, 2), np.nan)), r"rho\[0, 0\] is nan"),
        (lambda: density_matrix(jnp.full(4, jnp.nan)), r"coefficients\[0\] is nan"),
        (lambda: expectations(jnp.full(8, jnp.nan)), r"probabilities\[0\] is nan"),
        (lambda: distribution(jnp.full(8, jnp.nan)), r"amplitudes\[0\] is nan"),
        (lambda: distribution(jnp.zeros(8)), "amplitudes is 0 everywhere"),
        (lambda: correlations(jnp.ones((4, 0))), "spins has 0 columns"),
        (lambda: correlations(jnp.full((4, 3), jnp.nan)), r"spins\[0, 0\] is nan"),
        (lambda: RungeKutta(tolerance=0.0), r"tolerance is 0\.0; it must be > 0"),
        (lambda: AdaptiveRungeKutta(tolerance=-1.0), r"tolerance is -1\.0; it must be > 0"),
    ],
)
def test_it_is_refused_by_name(call, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        call()


def test_integer_spins_are_numbers():
    spins = np.array([[1, -1, 1], [1, 1, -1]])
    assert correlations(spins).tolist() == correlations(spins.astype(float)).tolist() == [1.0, 1.0, 0.0, 0.0]


def test_integer_features_are_numbers():
    features = np.arange(6).reshape(3, 2)
    targets = features @ np.array([[1], [2]])
    assert np.allclose(fit_readout(features, targets, ridge=0.0)(jnp.asarray(features, float)), targets, atol=1e-3)


def test_an_answer_that_is_not_a_number_is_wrong():
    outputs, targets = jnp.array([[jnp.nan, jnp.nan], [0.9, 0.1]]), jnp.eye(2)[jnp.array([0, 0])]
    assert accuracy(outputs, targets).item() == 0.5
    assert accuracy(jnp.array([[jnp.nan], [0.1]]), jnp.zeros((2, 1))).item() == 0.5


@pytest.mark.parametrize(
    ("controllers", "folder", "limit", "used", "cached"),
    [
        ("", "a/b", "memory.max", "memory.current", "inactive_file"),
        ("memory", "memory/a/b", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ],
)
def test_free_memory_is_what_control_groups_leave(monkeypatch, tmp_path, controllers, folder, limit, used, cached):
    inner = tmp_path / folder
    inner.mkdir(parents=True)
    for path, (most, now) in {inner: ("max" if not controllers else 2**63, 10), inner.parent: (100, 70)}.items():
        (path / limit).write_text(f"{most}\n")
        (path / used).write_text(f"{now}\n")
        (path / "memory.stat").write_text(f"anon 3\n{cached} 5\n")
    read = _checks._lines_of
    groups = [f"7:{controllers}:/a/b", "3:cpuset:/"]
    monkeypatch.setattr(_checks, "_lines_of", lambda path: groups if str(path) == "/proc/self/cgroup" else read(path))
    assert min(_checks._left_in_groups(tmp_path)) == 35
    assert 0 < _checks.free_memory() < float("inf")


@pytest.mark.slow
@pytest.mark.parametrize("relaxer", [RungeKutta(0.1, 0.1), AdaptiveRungeKutta(0.1)])
def test_a_relaxation_that_was_cut_short_has_not_converged(relaxer):
    from morphax import PhaseOscillators

    network = PhaseOscillators.layered((2, 3, 1), coupling_deviation=50.0, key=KEY)
    ended = network.relax(jnp.array([0.5, -0.5]), relaxer=relaxer, key=KEY)
    assert ended.residual > 1
    assert not ended.converged
