"""The Ising chain against QuTiP and free fermions, and bounds that must stay below its ground-state energy."""

import functools
import sys

import cvxpy
import numpy as np
import pytest
import qutip

from morphax.quantum import ground_state
from morphax.quantum.ground_state import energy_bound, ground_state_energy, transverse_field_ising


def random_chain(sites, periodic, seed=0):
    """Couplings and fields of both signs."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=sites if periodic else sites - 1), rng.normal(size=sites)


def qutip_hamiltonian(couplings, fields):
    sites = len(fields)

    def at(places, operator):
        return qutip.tensor([operator if site in places else qutip.qeye(2) for site in range(sites)]).full()

    bonds = [J * at({i, (i + 1) % sites}, qutip.sigmaz()) for i, J in enumerate(couplings)]
    return -np.sum([*bonds, *(h * at({i}, qutip.sigmax()) for i, h in enumerate(fields))], axis=0)


def open_chain_of_fermions(couplings, fields):
    """The singular values of this matrix are the energies of the free fermions, all of which the ground state fills."""
    return -np.linalg.svd(np.diag(fields) + np.diag(couplings, 1), compute_uv=False).sum()


def ring_of_fermions(sites, coupling, field):
    """Even parity, that of the ground state when J and h are positive, makes the fermions antiperiodic."""
    k = (2 * np.arange(sites) + 1) * np.pi / sites
    return -np.sqrt(coupling**2 + field**2 - 2 * coupling * field * np.cos(k)).sum()


@pytest.mark.parametrize("periodic", [False, True])
def test_hamiltonian_is_qutips(periodic):
    couplings, fields = random_chain(5, periodic)
    H = transverse_field_ising(5, couplings, fields, periodic)
    assert np.allclose(H.toarray(), qutip_hamiltonian(couplings, fields), atol=1e-14)


@pytest.mark.parametrize("sites", [2, 7, 9, 11])
def test_open_chain_has_the_energy_of_free_fermions(sites):
    couplings, fields = random_chain(sites, periodic=False, seed=sites)
    assert ground_state_energy(sites, couplings, fields) == pytest.approx(
        open_chain_of_fermions(couplings, fields), abs=1e-10
    )


@pytest.mark.parametrize("sites", [3, 8, 11])
def test_ring_has_the_energy_of_free_fermions(sites):
    assert ground_state_energy(sites, 0.9, 0.6, periodic=True) == pytest.approx(
        ring_of_fermions(sites, 0.9, 0.6), abs=1e-10
    )


@pytest.mark.slow
@pytest.mark.parametrize("fields", [-np.ones(9), np.zeros(9)])
def test_lanczos_finds_the_ground_state_in_every_symmetry_sector(fields):
    couplings = np.linspace(-0.2, 0.3, 9)
    expected = np.linalg.eigvalsh(qutip_hamiltonian(couplings, fields))[0]
    assert ground_state_energy(9, couplings, fields, periodic=True) == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize(
    ("sites", "periodic", "expected"),
    [
        (4, False, [-7.0, -5.0, -4.7747]),
        (6, False, [-11.0, -7.8102, -7.4059]),
        (6, True, [-12.0, -8.4853, -8.0]),
        (60, True, [-120.0, -84.8528, -80.0]),
    ],
)
def test_bounds_at_the_critical_field(sites, periodic, expected):
    bounds = [energy_bound(sites, 1.0, 1.0, neighbours=k, periodic=periodic) for k in (1, 2, 3)]
    assert [bound.energy for bound in bounds] == pytest.approx(expected, abs=1e-4)
    assert [bound.primal for bound in bounds] == pytest.approx(expected, abs=1e-4)
    assert [bound.solver_status for bound in bounds] == ["not needed", "optimal", "optimal"]


@pytest.mark.parametrize("periodic", [False, True])
@pytest.mark.parametrize("uniform", [False, True])
def test_bounds_stay_below_the_energy_and_grow_to_it(periodic, uniform):
    couplings, fields = (-0.8, 0.7) if uniform else random_chain(5, periodic, seed=3)
    energies = [energy_bound(5, couplings, fields, neighbours=k, periodic=periodic).energy for k in range(1, 6)]
    exact = ground_state_energy(5, couplings, fields, periodic)
    assert max(energies) <= exact
    assert np.diff(energies).min() > -1e-7
    assert energies[-1] == pytest.approx(exact, abs=1e-6)


def test_one_window_of_a_uniform_ring_is_as_tight_as_all():
    fields = 1.0 + np.array([1e-9, 0, 0, 0, 0, 0])
    all_windows = energy_bound(6, 1.0, fields, neighbours=3, periodic=True)
    assert all_windows.energy == pytest.approx(-8.0, abs=1e-6)


@pytest.mark.parametrize("unit", [1e-9, 1e9])
def test_bound_scales_with_the_unit(unit):
    assert energy_bound(4, unit, unit, neighbours=2).energy == pytest.approx(-5.0 * unit, rel=1e-6)


def test_chain_without_terms_has_no_energy():
    assert energy_bound(4, 0.0, 0.0, neighbours=2).energy == 0.0


def test_bound_of_a_bad_solution_is_still_a_bound(monkeypatch):
    rough = {"tol_gap_abs": 0.3, "tol_gap_rel": 0.3, "tol_feas": 0.3}
    monkeypatch.setattr(cvxpy.Problem, "solve", functools.partialmethod(cvxpy.Problem.solve, **rough))
    with pytest.raises(RuntimeError, match=r"differ; they must agree within 1\.1e-05"):
        energy_bound(6, 1.0, 1.0, neighbours=3)
    monkeypatch.setattr(ground_state, "AGREEMENT", 1.0)
    bound = energy_bound(6, 1.0, 1.0, neighbours=3)
    assert bound.energy < -7.4059 - 1e-3
    assert abs(bound.primal - bound.energy) > 1e-3


def test_inaccurate_solution_is_refused(monkeypatch):
    monkeypatch.setattr(cvxpy.Problem, "status", "optimal_inaccurate")
    with pytest.raises(RuntimeError, match="its status is optimal_inaccurate"):
        energy_bound(4, 1.0, 1.0, neighbours=2)


def test_failed_solver_is_reported(monkeypatch):
    monkeypatch.setattr(cvxpy.Problem, "solve", functools.partialmethod(cvxpy.Problem.solve, max_iter=1))
    with pytest.raises(RuntimeError, match="the semidefinite programme was not solved"):
        energy_bound(4, 1.0, 1.0, neighbours=2)


def test_missing_solver_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cvxpy", None)
    with pytest.raises(ImportError, match=r'pip install "morphax\[bounds\]"'):
        energy_bound(4, 1.0, 1.0, neighbours=2)
    assert energy_bound(4, 1.0, 1.0, neighbours=1).energy == -7.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sites": 1}, "sites is 1; it must be a whole number >= 2"),
        ({"sites": 2, "periodic": True}, "sites is 2; it must be a whole number >= 3"),
        ({"neighbours": 0}, "neighbours is 0; it must be a whole number from 1 to 9"),
        ({"neighbours": 10}, "neighbours is 10; it must be a whole number from 1 to 9"),
        ({"neighbours": 7}, "neighbours is 7; it must be a whole number from 1 to 6"),
        ({"sites": 13, "neighbours": 13}, "neighbours is 13; it must be a whole number from 1 to 12"),
        ({"coupling": np.ones(9)}, r"coupling has shape \(9,\); it must be \(8,\)"),
        ({"coupling": np.ones(8), "periodic": True}, r"coupling has shape \(8,\); it must be \(9,\)"),
        ({"field": np.ones((3, 3))}, r"field has shape \(3, 3\); it must be \(9,\)"),
        ({"field": np.nan}, "field is nan; field must be finite"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        energy_bound(**({"sites": 9, "coupling": 1.0, "field": 1.0, "neighbours": 2} | arguments))


def test_chain_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="sites is 21; it must be a whole number from 2 to 20"):
        ground_state_energy(21, 1.0, 1.0)
