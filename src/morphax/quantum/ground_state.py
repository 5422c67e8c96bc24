r"""Ground-state energies of the quantum Ising chain: exact, and bounds from incomplete probabilistic information.

The energy $\langle H \rangle$ of $H = -\sum_i J_i \tau_3^{(i)} \tau_3^{(i+1)} - \sum_i h_i \tau_1^{(i)}$ needs few
expectation values, but a state's positive density matrix constrains them. Imposing only a part of these quantum
constraints admits more than the states there are, so that the least energy can only come out too low: a lower bound.
"""

import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float

from morphax._checks import check_count, check_finite, check_shape

if TYPE_CHECKING:
    from scipy.sparse import csr_array

LARGEST_CHAIN = 20  # sites of a sparse Hamiltonian: 2^20 states, 0.3 GB
LARGEST_WHOLE = 12  # sites whose dense Hamiltonian is diagonalised
LARGEST_WINDOW = 6  # neighbours in a semidefinite programme: 7 need gigabytes
DENSE = 8  # sites up to which dense diagonalisation is faster than Lanczos'
AGREEMENT = 1e-6  # of the solver's two energies, relative to sum |J| + sum |h|

Energies = Float[np.ndarray, " number"]
Windows = Float[np.ndarray, "windows states states"]


class EnergyBound(NamedTuple):
    """A lower bound of the ground-state energy, and how sharp the solver made it.

    - `energy`: certified: no state of the chain has less energy, however inaccurate the solver is.
    - `primal`: energy of the solver's reduced density matrices; agrees with `energy` up to the solver's accuracy.
    - `solver_status`: "optimal", or "not needed" where the bound is known in closed form or by diagonalisation.
    """

    energy: float
    primal: float
    solver_status: str


def transverse_field_ising(sites: int, coupling: ArrayLike, field: ArrayLike, periodic: bool = False) -> "csr_array":
    r"""Hamiltonian of the Ising chain in a transverse field, as a sparse real matrix.

    $$H = -\sum_i J_i \tau_3^{(i)} \tau_3^{(i+1)} - \sum_i h_i \tau_1^{(i)}$$

    Site 0 is the first factor of the Kronecker product; its state 0 has $\tau_3 = 1$. $H$ holds no $\tau_2$, so it is
    real.

    **Arguments:**

    - `sites`: n, 2 to 20; a ring has at least 3.
    - `coupling`: J of every bond in any unit of energy, or of each: shape (n - 1,), of a ring (n,). Any sign.
    - `field`: h of every site in the same unit, or of each: shape (n,). Any sign.
    - `periodic`: whether the last site is bound to the first, by the last coupling.

    **Returns:** shape (2^n, 2^n), n + 1 stored elements a row.

    **Raises:** `ValueError` for a wrong size and for a coupling or field that is not finite.

    Source: Pehle & Wetterich, Phys. Rev. E 106, 045311 (2022), Eq. 60.

        >>> from morphax.quantum.ground_state import transverse_field_ising
        >>> transverse_field_ising(2, coupling=1.0, field=0.5).toarray().tolist()
        [[-1.0, -0.5, -0.5, 0.0], [-0.5, 1.0, 0.0, -0.5], [-0.5, 0.0, 1.0, -0.5], [0.0, -0.5, -0.5, -1.0]]
    """
    from scipy.sparse import csr_array

    check_count("sites", sites, 3 if periodic else 2, LARGEST_CHAIN)
    couplings, fields = _terms(sites, coupling, field, periodic)
    states, bits = np.arange(2**sites, dtype=np.int32), np.arange(sites)[::-1]
    spins = 1.0 - 2.0 * (states >> bits[:, None] & 1)
    bonds = len(couplings)
    diagonal = -couplings @ (spins * np.roll(spins, -1, axis=0))[:bonds]
    # Every row holds its diagonal element and one for every site whose flip leads to another state.
    columns = np.stack([states, *(states ^ (1 << bit) for bit in bits)], axis=1)
    elements = np.concatenate([diagonal[:, None], np.broadcast_to(-fields, (2**sites, sites))], axis=1)
    rows = np.arange(2**sites + 1, dtype=np.int32) * np.int32(sites + 1)
    return csr_array((elements.ravel(), columns.ravel(), rows), shape=(2**sites, 2**sites))


def ground_state_energy(sites: int, coupling: ArrayLike, field: ArrayLike, periodic: bool = False) -> float:
    r"""Least eigenvalue of the Ising chain in a transverse field, by exact diagonalisation.

    Up to 8 sites the dense matrix is diagonalised; beyond, Lanczos' method runs to machine precision.

    **Arguments:** those of `transverse_field_ising`.

    **Returns:** the energy, in the unit of `coupling` and `field`.

    **Raises:** `ValueError` as `transverse_field_ising`.

    Source: Pehle & Wetterich, Phys. Rev. E 106, 045311 (2022), Eq. 60.

        >>> from morphax.quantum.ground_state import ground_state_energy
        >>> round(ground_state_energy(4, coupling=1.0, field=1.0), 4)
        -4.7588
    """
    from scipy.sparse.linalg import eigsh

    H = transverse_field_ising(sites, coupling, field, periodic)
    if sites <= DENSE:
        return float(np.linalg.eigvalsh(H.toarray())[0])
    # A fixed start makes the result reproducible; a random one lies in no symmetry sector, which Lanczos cannot leave.
    start = np.random.default_rng(0).normal(size=2**sites)
    return float(eigsh(H, k=1, which="SA", v0=start, return_eigenvectors=False)[0])


def energy_bound(
    sites: int, coupling: ArrayLike, field: ArrayLike, *, neighbours: int, periodic: bool = False
) -> EnergyBound:
    r"""Rigorous lower bound of the ground-state energy, from the quantum constraints of few neighbouring sites.

    The state is replaced by reduced density matrices $\rho_w$ of every k neighbouring sites: positive, of unit trace,
    and such that neighbouring ones agree on the k - 1 sites they share. Their least energy is a semidefinite
    programme; any state of the chain yields such matrices, so its energy is not lower. The bound returned is certified
    by the dual programme: for *any* symmetric multipliers $\Lambda_w$ of the shared sites

    $$E_0 \ge \sum_w \lambda_{min}(X_w), \quad X_w = H_w + 1 \otimes \Lambda_w - \Lambda_{w-1} \otimes 1$$

    with $\sum_w H_w = H$, as the multipliers cancel in the energy of matrices that agree. The solver only finds good
    multipliers; the eigenvalues are computed afterwards, less what rounding may add to them.

    Real matrices suffice: $H$ is real, so complex conjugation turns one solution into another of equal energy, and
    their mean is real. In a uniform ring the mean over all translations is a solution too: one matrix stands for all,
    and the bound per site depends on k only, not on n > k.

    **Arguments:**

    - `sites`: n, >= 2; a ring has at least 3. A bound costs one matrix per window, of a uniform ring one in all.
    - `coupling`, `field`, `periodic`: those of `transverse_field_ising`.
    - `neighbours`: k from 1 to 6, or n itself up to 12. With k = 1 no site shares anything with another: single sites
      are positive, $|\langle \tau_1 \rangle| \le 1$, and two-point functions, which no $\rho_w$ holds, are only kept
      in [-1, 1]; the bound is $-\sum |J| - \sum |h|$. With k = n the matrix is the whole state (with the bond that
      closes a ring) and the bound exact.

    **Returns:** the bound, in the unit of `coupling` and `field`; up to its accuracy it grows with `neighbours`.

    **Raises:** `ValueError` for wrong arguments; `RuntimeError` when the solver fails, or when its density matrices and
    the certified bound differ by more than $10^{-6} (\sum |J| + \sum |h|)$; `ImportError` without `morphax[bounds]`
    when 1 < k < n.

    Source: Pehle & Wetterich, Phys. Rev. E 106, 045311 (2022), Sec. VII, which proposes to impose part of the quantum
    constraints; windows and certificate are ours.

        >>> from morphax.quantum.ground_state import energy_bound
        >>> [round(energy_bound(4, coupling=1.0, field=1.0, neighbours=k).energy, 4) for k in (1, 2, 3, 4)]
        [-7.0, -5.0, -4.7747, -4.7588]
    """
    check_count("sites", sites, 3 if periodic else 2)
    check_count("neighbours", neighbours, 1, sites)
    check_count("neighbours", neighbours, 1, LARGEST_WHOLE if neighbours == sites else LARGEST_WINDOW)
    couplings, fields = _terms(sites, coupling, field, periodic)
    unconstrained = -float(np.abs(couplings).sum() + np.abs(fields).sum())
    if neighbours == 1 or unconstrained == 0:
        return EnergyBound(unconstrained, unconstrained, "not needed")
    if neighbours == sites:
        whole = _least_eigenvalue(transverse_field_ising(sites, couplings, fields, periodic).toarray())
        return EnergyBound(whole, whole, "not needed")
    windows, copies = _windows(couplings, fields, neighbours, periodic)
    largest = float(np.abs(windows).max())  # the solver's tolerances are absolute
    certified, primal, status = _solve(windows / largest, periodic)
    bound = EnergyBound(copies * largest * certified, copies * largest * primal, status)
    if not abs(bound.primal - bound.energy) <= -AGREEMENT * unconstrained:
        raise RuntimeError(
            f"the certified bound {bound.energy} and the energy {bound.primal} of the solver's density matrices "
            f"differ; they must agree within {-AGREEMENT * unconstrained:.1e}"
        )
    return bound


def _terms(sites: int, coupling: ArrayLike, field: ArrayLike, periodic: bool) -> tuple[Energies, Energies]:
    """The coupling of every bond and the field of every site."""
    terms = []
    for name, value, number in ("coupling", coupling, sites if periodic else sites - 1), ("field", field, sites):
        array = np.asarray(value, float)
        if array.ndim:
            check_shape(name, array, (number,))
        check_finite(name, array)
        terms.append(np.broadcast_to(array, (number,)))
    return terms[0], terms[1]


def _windows(couplings: Energies, fields: Energies, neighbours: int, periodic: bool) -> tuple[Windows, int]:
    """Hamiltonians H_w of the windows, and how many copies of them make up H.

    Each window holds its first site and bond, and the last window of an open chain all that remain: how terms are
    dealt out does not matter, as the multipliers move them freely between windows that share them.
    """
    sites = len(fields)
    uniform = periodic and np.ptp(couplings) == 0 and np.ptp(fields) == 0
    number = 1 if uniform else sites if periodic else sites - neighbours + 1
    windows = []
    for first in range(number):
        terms = neighbours if not periodic and first == number - 1 else 1
        J, h = np.zeros(neighbours - 1), np.zeros(neighbours)
        J[:terms], h[:terms] = couplings[first : first + terms], fields[first : first + terms]
        windows.append(transverse_field_ising(neighbours, J, h).toarray())
    return np.stack(windows), sites if uniform else 1


def _solve(windows: Windows, closed: bool) -> tuple[float, float, str]:
    """Certified bound, energy of the reduced density matrices and status; `closed`: the last window meets the first.

    The dual programme is the smaller one to state: its variables are the multipliers, and the density matrices are in
    turn the multipliers of its constraints.
    """
    cp = _cvxpy()
    number, states, _ = windows.shape
    one, shape = np.eye(2), (states // 2, states // 2)
    shared = [cp.Variable(shape, symmetric=True) for _ in range(number if closed else number - 1)]
    least = cp.Variable(number)
    operators = [cp.Constant(window) for window in windows]
    for left, multiplier in enumerate(shared):  # a lone window of a ring is its own neighbour
        operators[left] += cp.kron(one, multiplier)
        operators[(left + 1) % number] -= cp.kron(multiplier, one)
    positive = [X - value * np.eye(states) >> 0 for X, value in zip(operators, least, strict=True)]
    problem = cp.Problem(cp.Maximize(cp.sum(least)), positive)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of an inaccurate solution, which is refused
            problem.solve(solver=cp.CLARABEL)
    except cp.error.SolverError as error:
        raise RuntimeError(f"the semidefinite programme was not solved: {error}") from error
    if problem.status != cp.OPTIMAL:
        raise RuntimeError(f"the semidefinite programme was not solved: its status is {problem.status}")
    certified = sum(_least_eigenvalue(X.value) for X in operators)
    primal = sum(np.sum(window * rho.dual_value) for window, rho in zip(windows, positive, strict=True))
    return float(certified), float(primal), problem.status


def _least_eigenvalue(matrix: Float[np.ndarray, "states states"]) -> float:
    """A lower bound of the least eigenvalue: the computed one, less a margin for rounding."""
    margin = 4 * len(matrix) * np.finfo(float).eps * np.linalg.norm(matrix)
    return float(np.linalg.eigvalsh(matrix)[0] - margin)


def _cvxpy() -> Any:
    try:
        import cvxpy
    except ImportError as error:
        raise ImportError('energy bounds need CVXPY and Clarabel: pip install "morphax[bounds]"') from error
    return cvxpy
