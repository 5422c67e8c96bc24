r"""The distribution of largest entropy that realises a state of four qubits by single and pair spins.

Of all distributions of the 66 spins of the extended map with given expectation values and correlations, that of largest
entropy is the Gibbs distribution of a field for each spin and a coupling for each correlation,

$$ p(s) = e^{y \cdot m(s)} / Z, \qquad m(s) = (s_k,\ s_{kl},\ s_{kl} s_m,\ s_{kl} s_{mn}), \qquad
   \langle m \rangle_p = v \, \chi(\rho), $$

with 633 components: every way to write a coefficient has one, so that the quantum constraint (Eq. 53) is fulfilled
where they agree with the state's. It is found as the least $\log Z(y)$ at $y \cdot \chi = \beta$, a smooth convex
problem; $v$ is the multiplier, and rises with $\beta$ to the largest share of the state in a mixture with the maximally
mixed one that spins realise. $\log Z$ is exact, though there are $2^{66}$ configurations: given the 12 single spins,
the pair spins fall into three groups of two pairs that have no qubit in common, which are independent; given the nine
spins of one pair those of the other are independent, too; and each meets six of the single spins only. That leaves
3 x 64 x 64 sums over 512 configurations, as products of matrices.

Source: Pehle & Wetterich, Phys. Rev. E 106, 045311 (2022), Sec. VI, which leaves four qubits open; Jaynes, Phys. Rev.
106, 620 (1957).
"""

import itertools
from functools import cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from morphax._checks import check_finite, check_range, check_shape
from morphax.quantum.correlation_map import configurations

QUBITS = 4
PAIRS = tuple(itertools.combinations(range(QUBITS), 2))
# Two pairs without a common qubit, by their place in PAIRS.
MATCHED = tuple((place, PAIRS.index(tuple(sorted({*range(QUBITS)} - {*pair})))) for place, pair in enumerate(PAIRS[:3]))
SINGLE = configurations(3 * QUBITS)
SIX, NINE = configurations(6), configurations(9)
SIZES = (12, 6 * 9, 6 * 9 * 6, 3 * 9 * 9)
DOUBLINGS = 9  # of beta
REACHED = 1e-5  # what a share may fall short by: what minimisation leaves of the gradient is of this size
GAP = 2e-3
MOST = 2000  # iterations at one beta
FAR = 500.0  # exponents beyond which products of exponentials are not taken


class MaximumEntropy(NamedTuple):
    r"""A Gibbs distribution of the 66 spins, what it realises, and what its fields prove.

    - `share`: $v$, at least: what is left of the gradient is counted against it, since a component $r$ that is missed
      is put right by a distribution that has this component alone, with weight $|r|$.
    - `bound`: at most so much of the state is realised, for no configuration has more of $y \cdot m$ than the largest.
    - `inequality`: $B_\mu$, shape (4, 4, 4, 4), of the Bell inequality $B \cdot \chi \le 1$ that says so.
    - `fields`: $y$ of the share, shape (633,).
    """

    share: float
    bound: float
    inequality: Float[np.ndarray, "4 4 4 4"]
    fields: Float[np.ndarray, " components"]

    def sample(
        self, number: int, rng: np.random.Generator
    ) -> tuple[Float[np.ndarray, "number 12"], Float[np.ndarray, "number 6 9"]]:
        """Independent configurations, exactly: of the single spins, and of the spins of every pair."""
        _, weights, groups = _sums(self.fields)
        chosen = rng.choice(len(weights), number, p=weights)
        pairs = np.empty((number, len(PAIRS), 9))
        for group in groups:
            level = np.cumsum(group.given(group.rows[chosen], group.columns[chosen]), axis=1)
            first = np.sum(level < level[:, -1:] * rng.random((number, 1)), axis=1)
            up = (1 + group.means[group.columns[chosen], first]) / 2
            pairs[:, group.first] = NINE[first]
            pairs[:, group.second] = np.where(rng.random((number, 9)) < up, 1.0, -1.0)
        return SINGLE[chosen], pairs


def maximum_entropy(chi: Float[np.ndarray, "4 4 4 4"], wanted: float = 1.0, gap: float = GAP) -> MaximumEntropy:
    r"""The Gibbs distribution that realises the coefficients of four qubits with the largest share it reaches.

    Seconds, a minute or two where it is less than 1. It ends at the first $\beta / |\chi|^2$ of 1, 2, ..., 256 whose
    share reaches `wanted`, or whose bound is less and near to it.

    **Arguments:**

    - `chi`: coefficients, shape (4, 4, 4, 4), finite, not all zero beside the first.
    - `wanted`: the share that is enough.
    - `gap`: between the share and a bound below `wanted`, that is small enough, > 0.

    **Raises:** `ValueError` for other coefficients.

        >>> import numpy as np
        >>> from morphax.quantum.correlation_map import coefficients
        >>> from morphax.quantum.maximum_entropy import maximum_entropy
        >>> from morphax.quantum.states import ghz_state
        >>> chi = np.asarray(coefficients(ghz_state(4)), float)
        >>> round(maximum_entropy(chi).share, 4)
        1.0
    """
    from scipy.optimize import minimize

    check_shape("chi", chi, (4,) * QUBITS)
    check_finite("chi", chi)
    check_range("gap", gap, low=0.0, open_low=True)
    target = components(np.asarray(chi, float))
    square = target @ target
    if not square:
        raise ValueError("chi is that of the maximally mixed state; a coefficient beside the first must not be 0")
    places = components(np.arange(chi.size).reshape(chi.shape)).astype(int)
    best, fields = MaximumEntropy(0.0, np.inf, np.zeros(chi.shape), np.zeros(len(target))), target
    for strength in square * 2.0 ** np.arange(DOUBLINGS):
        start = fields * strength / (fields @ target)

        def across(vector: np.ndarray) -> np.ndarray:
            return vector - (vector @ target) * target / square

        def objective(step: np.ndarray, start: np.ndarray = start) -> tuple[float, np.ndarray]:
            value, gradient = log_partition(start + across(step))
            return value, across(gradient)

        options = {"maxiter": MOST, "maxfun": 2 * MOST, "maxcor": 50, "gtol": 1e-9, "ftol": 1e-16}
        found = minimize(objective, np.zeros(len(target)), jac=True, method="L-BFGS-B", options=options)
        fields = start + across(found.x)
        moments = log_partition(fields)[1]
        share = moments @ target / square
        certain = float(share / (1 + np.sum(np.abs(moments - share * target))))
        if certain > best.share:
            best = best._replace(share=certain, fields=fields)
        most = largest(fields)
        if most / strength < best.bound:
            inequality = np.bincount(places, fields / most, chi.size).reshape(chi.shape)
            best = best._replace(bound=float(most / strength), inequality=inequality)
        if best.share >= wanted - REACHED or best.bound < min(wanted, best.share + gap):
            break
    return best


def components(chi: Float[np.ndarray, "4 4 4 4"]) -> Float[np.ndarray, " components"]:
    """The coefficients in the order of the fields: of single and pair spins, pairs with singles, pairs with pairs."""

    def of(*qubits: int) -> np.ndarray:
        """Those of some qubits, an axis of three for each in this order."""
        kept = chi[tuple(slice(1, None) if qubit in qubits else 0 for qubit in range(QUBITS))]
        return np.transpose(kept, np.argsort(np.argsort(qubits)))

    single = [of(qubit) for qubit in range(QUBITS)]
    pairs = [of(*pair) for pair in PAIRS]
    three = [
        np.concatenate([of(*pair, other).reshape(9, 3) for other in PAIRS[len(PAIRS) - 1 - place]], axis=1)
        for place, pair in enumerate(PAIRS)
    ]
    four = [of(*PAIRS[first], *PAIRS[second]) for first, second in MATCHED]
    return np.concatenate([part.ravel() for part in (*single, *pairs, *three, *four)])


class _Group(NamedTuple):
    """Two pairs without a common qubit. Each meets one half of the single spins, in configuration `rows` or `columns`.

    Given these, the exponents of the first pair's 512 configurations are `left[rows] + right[columns]`, where the
    second pair's spins, whose means are `means`, are summed over. `log_total` is the logarithm of the sum over all.
    """

    first: int
    second: int
    rows: np.ndarray
    columns: np.ndarray
    left: np.ndarray
    right: np.ndarray
    log_total: np.ndarray
    means: np.ndarray

    def averaged(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities of the 512 configurations with those of each half, given those of the single spins."""
        share = np.zeros_like(self.log_total)
        np.add.at(share, (self.rows, self.columns), weights)
        # As products of matrices where these do not underflow.
        low, high = self.left.max(axis=1), self.right.max(axis=1)
        left, right = np.exp(self.left - low[:, None]), np.exp(self.right - high[:, None])
        scale = low[:, None] + high - self.log_total
        far = scale > FAR
        factor = np.where(far, 0.0, share * np.exp(np.where(far, 0.0, scale)))
        of_left, of_right = left * (factor @ right), right * (factor.T @ left)
        rows, columns = np.nonzero(far & (share > 0))
        each = share[rows, columns][:, None] * self.given(rows, columns)
        np.add.at(of_left, rows, each)
        np.add.at(of_right, columns, each)
        return of_left, of_right

    def given(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Probabilities of the 512 configurations, shape (number, 512), given both halves of the single spins."""
        return np.exp(self.left[rows] + self.right[columns] - self.log_total[rows, columns][:, None])


def log_partition(fields: Float[np.ndarray, " components"]) -> tuple[float, Float[np.ndarray, " components"]]:
    r"""$\log Z$ and its gradient, the expectation values of all components."""
    value, weights, groups = _sums(fields)
    gradient = np.empty_like(fields)
    single, pair, three, four = _parts(gradient)
    single[:] = weights @ SINGLE
    for place, group in enumerate(groups):
        of_left, of_right = group.averaged(weights)
        first = of_left @ NINE
        given = np.einsum("cxj,cx->cj", group.means, of_right)
        pair[group.first], pair[group.second] = first.sum(axis=0), given.sum(axis=0)
        three[group.first], three[group.second] = first.T @ SIX, given.T @ SIX
        four[place] = NINE.T @ np.einsum("cxj,cx->xj", group.means, of_right)
    return value, gradient


def largest(fields: Float[np.ndarray, " components"]) -> float:
    r"""The largest $y \cdot m(s)$ of all $2^{66}$ configurations, exactly: maxima in place of sums."""
    single, _, _, _ = _parts(fields)
    most = SINGLE @ single
    for place in range(len(MATCHED)):
        rows, columns, left, meets = _exponents(fields, place)
        right = np.sum(np.abs(meets), axis=-1)
        most += np.max(left[:, None] + right, axis=-1)[rows, columns]
    return float(np.max(most))


def _parts(vector: np.ndarray) -> tuple[np.ndarray, ...]:
    """Views of a vector of fields: (12,), (6, 9), (6, 9, 6) and (3, 9, 9)."""
    single, pair, three, four = np.split(vector, np.cumsum(SIZES)[:-1])
    return single, pair.reshape(6, 9), three.reshape(6, 9, 6), four.reshape(3, 9, 9)


def _exponents(fields: np.ndarray, place: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Of two matched pairs: both halves of every configuration of the single spins, exponents of the first, what the
    spins of the second meet."""
    _, pair, three, four = _parts(fields)
    first, second = MATCHED[place]
    # A pair meets the single spins of the other pair.
    rows, columns = _half(PAIRS[second]), _half(PAIRS[first])
    left = (SIX @ three[first].T + pair[first]) @ NINE.T
    meets = (SIX @ three[second].T + pair[second])[:, None, :] + NINE @ four[place]
    return rows, columns, left, meets


def _sums(fields: np.ndarray) -> tuple[float, np.ndarray, list[_Group]]:
    """log Z, probabilities of the configurations of the single spins, and the groups of pair spins given these."""
    from scipy.special import logsumexp

    exponent, groups = SINGLE @ _parts(fields)[0], []
    for place, (first, second) in enumerate(MATCHED):
        rows, columns, left, meets = _exponents(fields, place)
        # The sum of log (2 cosh h), with a single logarithm, and tanh h.
        size = np.abs(meets)
        small = np.exp(-2 * size)
        right = np.sum(size, axis=-1) + np.log(np.prod(1 + small, axis=-1))
        means = np.copysign((1 - small) / (1 + small), meets)
        log_total = _log_product(left, right)
        exponent += log_total[rows, columns]
        groups.append(_Group(first, second, rows, columns, left, right, log_total, means))
    value = np.asarray(logsumexp(exponent))
    return float(value), np.exp(exponent - value), groups


def _log_product(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """log(exp(left) exp(right)^T): a product of matrices, and sums of their own where that underflows."""
    from scipy.special import logsumexp

    low, high = left.max(axis=1)[:, None], right.max(axis=1)[:, None]
    total = np.exp(left - low) @ np.exp(right - high).T
    far = total < np.exp(-FAR)
    logarithm = np.log(np.where(far, 1.0, total)) + low + high.T
    rows, columns = np.nonzero(far)
    logarithm[far] = logsumexp(left[rows] + right[columns], axis=1)
    return logarithm


@cache
def _half(qubits: tuple[int, ...]) -> np.ndarray:
    """For every configuration of the single spins the number of that of two qubits."""
    spins = SINGLE[:, [3 * qubit + axis for qubit in qubits for axis in range(3)]]
    return (spins > 0) @ (2 ** np.arange(5, -1, -1))
