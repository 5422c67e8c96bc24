r"""Which density matrices do classical spins realise? Decided exactly, with a certificate.

The coefficients $\chi$ that spins can have are the mixtures of those of single configurations: a polytope. Whether it
holds the coefficients of a state is a linear programme, and where it does not, the dual solution is a *Bell inequality*

$$ \sum_\mu B_\mu \chi_\mu \le 1 \quad \text{for all configurations}, \qquad \sum_\mu B_\mu \chi_\mu(\rho) > 1, $$

which everyone can check without the programme. The *visibility* v of a state is the largest share of it in a mixture
with another, the maximally mixed one unless one is given, that spins realise: $v \rho + (1 - v) \bar\rho$. The spins of
the minimal map have a joint distribution, hence every state of two qubits that they realise fulfils the CHSH
inequalities (Fine's theorem).

Sources: Fine, Phys. Rev. Lett. 48, 291 (1982); Pehle & Wetterich, Phys. Rev. E 106, 045311 (2022), who conjecture that
every state of two qubits is realised.
"""

import itertools
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float

from morphax.quantum.correlation_map import SITE, configurations
from morphax.quantum.maximum_entropy import REACHED, maximum_entropy
from morphax.quantum.states import PAULI, check_density_matrix, number_of_qubits

if TYPE_CHECKING:
    from scipy.sparse import csr_array

MARGIN = 1e-7  # by which an inequality must be violated to count
GAP = 1e-10  # between a squared distance and the lower bound that its own direction proves


class Realisability(NamedTuple):
    r"""What a linear programme says of a state.

    - `visibility`: largest share of the state with which a mixture is realised, at most 1.
    - `realised`: whether that is 1 (to 1e-7).
    - `inequality`: $B_\mu$, shape (4,) * Q, of the Bell inequality $B \cdot \chi \le 1$ that is violated most; None for
      a state that is realised.
    - `violation`: $B \cdot \chi(\rho)$; the inverse of the visibility in the maximally mixed state. Computed from the
      inequality alone, with its bound over all configurations by enumeration, not from the programme.
    - `probabilities`: of the configurations, realising the state at its visibility (of the minimal map only).
    """

    visibility: float
    realised: bool
    inequality: Float[np.ndarray, "..."] | None
    violation: float
    probabilities: Float[np.ndarray, " configurations"] | None


def realisability(rho: ArrayLike, rest: ArrayLike | None = None) -> Realisability:
    r"""Whether the minimal correlation map of 3Q spins realises a state.

    One variable a configuration: milliseconds for two qubits, a tenth of a second for three, seconds for four.

    **Arguments:**

    - `rho`: density matrix of Q qubits.
    - `rest`: density matrix $\bar\rho$ with which it is mixed; must be realised itself. None: $2^{-Q}$.

    **Raises:** `ValueError` for what is no density matrix; `RuntimeError` where the programme has no answer.

        >>> import numpy as np
        >>> from morphax.quantum.realisability import realisability
        >>> from morphax.quantum.states import ghz_state
        >>> realisability(ghz_state(2)).realised
        True
        >>> answer = realisability(ghz_state(2, turns=1 / 8))          # T psi_+: CHSH reaches 2 sqrt 2
        >>> answer.realised, round(answer.visibility, 5), round(answer.violation, 5)
        (False, 0.70711, 1.41421)
    """
    qubits = check_density_matrix("rho", rho)
    chi, matrix = _flat(rho), minimal_vertices(qubits)
    other = np.eye(1, len(chi))[0]
    if rest is not None:
        check_density_matrix("rest", rest, qubits)
        other = _flat(rest)
    solved = _largest_share(matrix[1:], chi[1:], other[1:], np.ones((1, matrix.shape[1])))
    if solved.share >= 1 - MARGIN:
        return Realisability(1.0, True, None, 1.0, solved.solution)
    inequality = np.append(0.0, solved.normal) / np.max(solved.normal @ matrix[1:])
    probabilities = solved.solution / np.sum(solved.solution)
    shape = (4,) * qubits
    return Realisability(solved.share, False, inequality.reshape(shape), float(inequality @ chi), probabilities)


class ExtendedRealisability(NamedTuple):
    r"""What is known of a state and the extended map.

    - `lower`, `upper`: between them lies the visibility in the maximally mixed state; equal for three qubits, for four
      within 0.002 wherever it was tried.
    - `inequality`: $B_\mu$, shape (4,) * Q, of the Bell inequality $B \cdot \chi \le 1$ that gives `upper`; None where
      that is 1.
    - `violation`: $B \cdot \chi(\rho)$, the inverse of `upper`, computed from the inequality alone.
    """

    lower: float
    upper: float
    inequality: Float[np.ndarray, "..."] | None
    violation: float


def extended_realisability(rho: ArrayLike) -> ExtendedRealisability:
    r"""Whether the extended correlation map of single and pair spins realises a state of three or four qubits.

    Three qubits: no spin belongs to two correlations (Eq. 53), and the least visibility of three linear programmes is
    exact, one for the nine spins of each pair of qubits and the three of the other qubit. Given the spins $a$ of the
    qubit, those of the pair enter only by their means $u(a) / p(a)$ between -1 and 1, so that 8 + 72 variables stand
    for $2^{12}$ configurations. Four qubits: the Gibbs distribution of all 66 spins and its bound (`maximum_entropy`).

    **Raises:** `ValueError` for what is no density matrix of three or four qubits.

        >>> from morphax.quantum.realisability import extended_realisability
        >>> from morphax.quantum.states import ghz_state
        >>> [round(extended_realisability(ghz_state(3, turns)).upper, 5) for turns in (0, 1 / 8)]
        [1.0, 0.70711]
    """
    qubits = check_density_matrix("rho", rho)
    if qubits not in (3, 4):
        raise ValueError(f"rho acts on {qubits} qubits; the extended map is decided for 3 and for 4")
    chi = _flat(rho).reshape((4,) * qubits)
    if qubits == 3:
        return min((_two_groups(chi, single) for single in range(3)), key=lambda found: found.upper)
    if np.max(np.abs(chi.ravel()[1:])) < MARGIN:
        return ExtendedRealisability(1.0, 1.0, None, 1.0)
    found = maximum_entropy(chi)
    if found.share >= 1 - REACHED or found.bound >= 1:
        return ExtendedRealisability(min(found.share, 1.0), 1.0, None, 1.0)
    return ExtendedRealisability(found.share, found.bound, found.inequality, float(np.sum(found.inequality * chi)))


def correlation_bound(rho: ArrayLike, ways: Sequence[Sequence[tuple[int, ...]]]) -> float:
    r"""What some correlations alone say of a state of any number of qubits and the extended map.

    With coefficients $\chi_i$ of the state, each written as a product of single and pair spins in one of its ways, the
    visibility in the maximally mixed state is at most

    $$ \max_s \sum_i \chi_i \, m_i(s) \, \Big/ \sum_i \chi_i^2, $$

    by enumeration over the configurations of the spins that take part.

    **Arguments:**

    - `rho`: density matrix of Q qubits.
    - `ways`: for each correlation the indices $\mu$ of its spins, of length Q with one or two entries that are not 0.

    **Raises:** `ValueError` for what is no density matrix, spins that the extended map has not, or that share a qubit.

        >>> from morphax.quantum.realisability import correlation_bound
        >>> from morphax.quantum.states import ghz_state
        >>> (XX__, __XX), X = ((1, 1, 0, 0, 0), (0, 0, 1, 1, 0)), (0, 0, 0, 0, 1)
        >>> (XY__, __XY), Y = ((1, 2, 0, 0, 0), (0, 0, 1, 2, 0)), (0, 0, 0, 0, 2)
        >>> ways = [[XX__, __XX, X], [XY__, __XY, X], [XY__, __XX, Y], [XX__, __XY, Y]]
        >>> round(correlation_bound(ghz_state(5), ways), 6)             # four signs whose product is -1
        0.5
    """
    qubits = check_density_matrix("rho", rho)
    chi = _flat(rho).reshape((4,) * qubits)
    for way in ways:
        counts = np.count_nonzero(np.array(way, int).reshape(len(way), -1), axis=0)
        if any(
            len(spin) != qubits or not set(spin) <= {0, 1, 2, 3} or not 0 < len(spin) - spin.count(0) < 3
            for spin in way
        ):
            raise ValueError(
                f"ways has {way}; a spin is an index of {qubits} entries from 0 to 3, one or two of them not 0"
            )
        if np.any(counts > 1):
            raise ValueError(f"ways has {way}; spins of a correlation must have no qubit in common")
    taken = sorted({spin for way in ways for spin in way})
    spins = configurations(len(taken))
    products = [np.prod(spins[:, [taken.index(spin) for spin in way]], axis=1) for way in ways]
    values = np.array([chi[tuple(np.sum(way, axis=0))] for way in ways])
    if not np.any(values):
        raise ValueError("ways has no correlation that is not 0 in rho")
    return float(min(1.0, np.max(values @ products) / np.sum(values**2)))


def _two_groups(chi: np.ndarray, single: int) -> ExtendedRealisability:
    """Visibility of the coefficients of a qubit and of the other two and of their correlations, with an inequality."""
    first, second = (single,), tuple(qubit for qubit in range(3) if qubit != single)
    places = [_indices(chi.ndim, group) for group in ((first, second), (first,), (second,))]
    both, left, right = ([chi[index] for index in indices] for indices in places)
    rows = _bipartite(len(left), len(right))
    target = np.concatenate([left, right, both])
    solved = _largest_share(rows.rows, target, np.zeros(len(target)), rows.total, rows.bounded)
    if solved.share >= 1 - MARGIN:
        return ExtendedRealisability(1.0, 1.0, None, 1.0)
    a, b, C = np.split(solved.normal, (len(left), len(left) + len(right)))
    spins = configurations(len(left))
    # Of the second group's spins each contributes the absolute value of what it meets.
    bound = np.max(spins @ a + np.sum(np.abs(b + spins @ C.reshape(len(left), len(right))), axis=1))
    inequality = np.zeros(chi.shape)
    for indices, values in zip(places, (C, a, b), strict=True):
        for index, value in zip(indices, values, strict=True):
            inequality[index] = value / bound
    return ExtendedRealisability(solved.share, solved.share, inequality, float(np.sum(inequality * chi)))


def _indices(qubits: int, groups: tuple[tuple[int, ...], ...]) -> list[tuple[int, ...]]:
    """Indices mu that are 1, 2 or 3 at the qubits of the groups and else 0, the last qubit's running fastest."""
    places = [qubit for group in groups for qubit in group]
    return [
        tuple(dict(zip(places, axes, strict=True)).get(qubit, 0) for qubit in range(qubits))
        for axes in itertools.product((1, 2, 3), repeat=len(places))
    ]


class Nearest(NamedTuple):
    """The realised matrix nearest to a state.

    - `loss`: its squared Frobenius distance, the exact minimum of Eq. 14.
    - `coefficients`: its coefficients, shape (4,) * Q.
    - `probabilities`: of the configurations.
    """

    loss: float
    coefficients: Float[np.ndarray, "..."]
    probabilities: Float[np.ndarray, " configurations"]


def nearest_realised(rho: ArrayLike) -> Nearest:
    r"""The matrix nearest to a state among those that the minimal correlation map realises.

    The quadratic programme $\min_p |b(p) - \rho|^2$ over probabilities, as non-negative least squares: of the points
    $c_\tau = \chi(\tau) - \chi(\rho)$ the shortest mixture is $u / \sum u$ with $u \ge 0$ minimising $|C u|^2 + (\sum u
    - 1)^2$.

    Every answer is checked by the lower bound that its own direction proves.

    **Raises:** `ValueError` for what is no density matrix; `RuntimeError` where no method meets its bound.

    Source: Lawson & Hanson, Solving Least Squares Problems (1974), least distance programming.

        >>> from morphax.quantum.realisability import nearest_realised
        >>> from morphax.quantum.states import ghz_state
        >>> round(nearest_realised(ghz_state(2, turns=1 / 8)).loss, 7)           # (1 - 1 / sqrt 2)^2 / 2
        0.0428932
    """
    from scipy.optimize import lsq_linear, nnls

    qubits = check_density_matrix("rho", rho)
    chi, vertices = _flat(rho), minimal_vertices(qubits)
    points = (vertices - chi[:, None]) / 2 ** (qubits / 2)
    raised, target = np.concatenate([points[1:], np.ones((1, points.shape[1]))]), np.zeros(4**qubits)
    target[-1] = 1.0
    weights = nnls(raised, target, maxiter=50 * points.shape[1])[0]
    if _excess(points, weights) > GAP:
        # The faster method may stop early where many configurations are equally good.
        weights = lsq_linear(raised, target, bounds=(0, np.inf), method="bvls", tol=1e-14).x
    if (excess := _excess(points, weights)) > GAP:
        raise RuntimeError(f"the quadratic programme ended {excess:.1e} above a lower bound of its minimum")
    probabilities = weights / np.sum(weights)
    nearest = vertices @ probabilities
    return Nearest(float(np.sum((points @ probabilities) ** 2)), nearest.reshape((4,) * qubits), probabilities)


def _excess(points: np.ndarray, weights: np.ndarray) -> float:
    """By how much |x|^2 of a mixture x of points exceeds the minimum, at most: points lie beyond min <x, y> / |x|."""
    shortest = points @ (weights / np.sum(weights))
    return 2 * float(shortest @ shortest - np.min(shortest @ points))


def chsh(rho: ArrayLike) -> float:
    r"""The largest CHSH value of two qubits with settings along Cartesian axes.

    $$ \max |E_{kl} + E_{kl'} + E_{k'l} - E_{k'l'}|, \qquad E_{kl} = \chi_{kl}, $$

    over axes $k \ne k'$, $l \ne l'$ and places of the minus sign: at most 2 for spins with a joint distribution,
    $2 \sqrt 2$ for qubits.

    **Raises:** `ValueError` for a matrix that is not that of two qubits.
    """
    if number_of_qubits("rho", rho) != 2:
        raise ValueError(f"rho acts on {number_of_qubits('rho', rho)} qubits; CHSH is about 2")
    E = _flat(rho).reshape(4, 4)[1:, 1:]
    values = [
        abs(np.sum(E[np.ix_(k, m)]) - 2 * E[i, j])
        for k in itertools.combinations(range(3), 2)
        for m in itertools.combinations(range(3), 2)
        for i, j in itertools.product(k, m)
    ]
    return float(max(values))


def minimal_vertices(qubits: int) -> Float[np.ndarray, "coefficients configurations"]:
    r"""$\sigma_\mu(\tau)$, shape $(4^Q, 8^Q)$: the coefficients of every configuration (Eqs. 6-9)."""
    matrix = np.ones((1, 1))
    for _ in range(qubits):
        matrix = np.kron(matrix, SITE)
    return matrix


class _Share(NamedTuple):
    share: float
    solution: np.ndarray
    normal: np.ndarray


class _Rows(NamedTuple):
    """Constraints of a programme: the coefficients' rows, what sums to 1, and rows that must not be positive."""

    rows: np.ndarray
    total: np.ndarray
    bounded: "csr_array"


def _largest_share(
    matrix: np.ndarray, target: np.ndarray, rest: np.ndarray, total: np.ndarray, bounded: "csr_array | None" = None
) -> _Share:
    """The largest v <= 1 with matrix x = v target + (1 - v) rest, total x = 1; x >= 0, or rows `bounded` x <= 0."""
    from scipy import sparse
    from scipy.optimize import linprog

    equal = np.block([[matrix, (rest - target)[:, None]], [total, np.zeros((1, 1))]])
    variables = matrix.shape[1]
    limits = None if bounded is None else bounded @ np.zeros(variables)
    result = linprog(
        np.append(np.zeros(variables), -1.0),
        A_ub=None if limits is None else sparse.hstack([bounded, limits[:, None]]),
        b_ub=limits,
        A_eq=equal if bounded is None else sparse.csr_array(equal),
        b_eq=np.append(rest, 1.0),
        bounds=[(0 if bounded is None else None, None)] * variables + [(0, 1)],
        method="highs",
    )
    if result.status != 0:
        raise RuntimeError(f"the linear programme ended with status {result.status}: {result.message}")
    return _Share(float(result.x[-1]), result.x[:-1], result.eqlin.marginals[:-1])


@cache
def _bipartite(first: int, second: int) -> _Rows:
    """Variables: p(a) of the configurations of `first` spins, then u_j(a) of `second` spins for every a."""
    from scipy import sparse

    spins, number = configurations(first), 2**first
    rows = np.zeros((first + second + first * second, number * (1 + second)))
    rows[:first, :number] = spins.T
    rows[first : first + second, number:] = np.tile(np.eye(second), number)
    rows[first + second :, number:] = np.concatenate([np.kron(a[:, None], np.eye(second)) for a in spins], axis=1)
    total = np.zeros((1, rows.shape[1]))
    total[0, :number] = 1.0
    weight, means = sparse.kron(sparse.eye_array(number), np.ones((second, 1))), sparse.eye_array(number * second)
    return _Rows(rows, total, sparse.csr_array(sparse.block_array([[-weight, means], [-weight, -means]])))


def _flat(rho: ArrayLike) -> np.ndarray:
    """Coefficients in double precision whatever that of JAX is."""
    strings = np.ones((1, 1, 1))
    for _ in range(number_of_qubits("rho", rho)):
        strings = np.kron(strings, PAULI)
    return np.einsum("mij,ji->m", strings, np.asarray(rho)).real
