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
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from morphax._checks import check_finite, check_shape
from morphax.quantum.correlation_map import configurations

QUBITS = 4
PAIRS = tuple(itertools.combinations(range(QUBITS), 2))
# Two pairs without a common qubit, by their place in PAIRS.
MATCHED = tuple((place, PAIRS.index(tuple(sorted({*range(QUBITS)} - {*pair})))) for place, pair in enumerate(PAIRS[:3]))
SINGLE = configurations(3 * QUBITS)
SIX, NINE = configurations(6), configurations(9)
SIZES = (12, 6 * 9, 6 * 9 * 6, 3 * 9 * 9)
STRENGTHS = (32.0, 64.0, 128.0, 256.0)  # beta
WANTED = 1e-5  # how near to 1 a share needs no larger beta; what minimisation leaves of the gradient is of this size
MOST = 2000  # iterations at one beta


class MaximumEntropy(NamedTuple):
    r"""A Gibbs distribution of the 66 spins, and what it realises.

    - `share`: $v$, at least; what is left of the gradient is counted against it: a component $r$ that is missed is
      put right by a distribution that has this component alone, with weight $|r|$.
    - `fields`: $y$, shape (633,).
    """

    share: float
    fields: Float[np.ndarray, " components"]

    def sample(
        self, number: int, rng: np.random.Generator
    ) -> tuple[Float[np.ndarray, "number 12"], Float[np.ndarray, "number 6 9"]]:
        """Independent configurations, exactly: of the single spins, and of the spins of every pair."""
        _, weights, groups = _sums(self.fields)
        chosen = rng.choice(len(weights), number, p=weights)
        pairs = np.empty((number, len(PAIRS), 9))
        for group in groups:
            inverse = group.left[group.rows[chosen]] * group.right[group.columns[chosen]]
            level = np.cumsum(inverse, axis=1)
            first = np.sum(level < level[:, -1:] * rng.random((number, 1)), axis=1)
            up = (1 + np.tanh(group.meets[group.columns[chosen], first])) / 2
            pairs[:, group.first] = NINE[first]
            pairs[:, group.second] = np.where(rng.random((number, 9)) < up, 1.0, -1.0)
        return SINGLE[chosen], pairs


def maximum_entropy(chi: Float[np.ndarray, "4 4 4 4"], wanted: float = 1.0) -> MaximumEntropy:
    r"""The Gibbs distribution that realises the coefficients of four qubits with the largest share it reaches.

    Seconds. It ends at the first $\beta$ of 32, 64, 128 and 256 whose share reaches `wanted`.

    **Arguments:**

    - `chi`: coefficients, shape (4, 4, 4, 4), finite, not all zero beside the first.
    - `wanted`: the share that is enough.

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
    target = components(np.asarray(chi, float))
    square = target @ target
    if not square:
        raise ValueError("chi is that of the maximally mixed state; some coefficient beside the first must not be 0")
    best, fields = MaximumEntropy(0.0, np.zeros(len(target))), target / square
    for strength in STRENGTHS:
        start = fields * strength / (fields @ target)

        def across(vector: np.ndarray) -> np.ndarray:
            return vector - (vector @ target) * target / square

        def objective(step: np.ndarray, start: np.ndarray = start) -> tuple[float, np.ndarray]:
            value, gradient = log_partition(start + across(step))
            return value, across(gradient)

        options = {"maxiter": MOST, "maxfun": 2 * MOST, "maxcor": 50, "gtol": 1e-9, "ftol": 1e-16}
        try:
            with np.errstate(divide="raise", invalid="raise"):
                found = minimize(objective, np.zeros(len(target)), jac=True, method="L-BFGS-B", options=options)
                fields = start + across(found.x)
                moments = log_partition(fields)[1]
        except FloatingPointError:  # fields so large that a sum over 512 configurations underflows
            break
        share = moments @ target / square
        certain = share / (1 + np.sum(np.abs(moments - share * target)))
        if certain > best.share:
            best = MaximumEntropy(float(certain), fields)
        if best.share >= wanted - WANTED:
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
    """Two pairs without a common qubit, given the single spins; configurations of one half of these are `rows`."""

    first: int
    second: int
    rows: np.ndarray
    columns: np.ndarray
    left: np.ndarray
    right: np.ndarray
    total: np.ndarray
    meets: np.ndarray


def log_partition(fields: Float[np.ndarray, " components"]) -> tuple[float, Float[np.ndarray, " components"]]:
    r"""$\log Z$ and its gradient, the expectation values of all components."""
    value, weights, groups = _sums(fields)
    gradient = np.empty_like(fields)
    single, pair, three, four = _parts(gradient)
    single[:] = weights @ SINGLE
    for place, group in enumerate(groups):
        share = np.zeros_like(group.total)
        np.add.at(share, (group.rows, group.columns), weights)
        share /= group.total
        first = (group.left * (share @ group.right)) @ NINE
        second = np.tanh(group.meets) * (group.right * (share.T @ group.left))[..., None]
        given = second.sum(axis=1)
        pair[group.first], pair[group.second] = first.sum(axis=0), given.sum(axis=0)
        three[group.first], three[group.second] = first.T @ SIX, given.T @ SIX
        four[place] = NINE.T @ second.sum(axis=0)
    return value, gradient


def _parts(vector: np.ndarray) -> tuple[np.ndarray, ...]:
    """Views of a vector of fields: (12,), (6, 9), (6, 9, 6) and (3, 9, 9)."""
    single, pair, three, four = np.split(vector, np.cumsum(SIZES)[:-1])
    return single, pair.reshape(6, 9), three.reshape(6, 9, 6), four.reshape(3, 9, 9)


def _sums(fields: np.ndarray) -> tuple[float, np.ndarray, list[_Group]]:
    """log Z, probabilities of the configurations of the single spins, and the groups of pair spins given these."""
    from scipy.special import logsumexp

    single, pair, three, four = _parts(fields)
    exponent, groups = SINGLE @ single, []
    for place, (first, second) in enumerate(MATCHED):
        # A pair meets the single spins of the other pair.
        rows, columns = _half(PAIRS[second]), _half(PAIRS[first])
        left = (SIX @ three[first].T + pair[first]) @ NINE.T
        meets = (SIX @ three[second].T + pair[second])[:, None, :] + NINE @ four[place]
        # The sum of log (2 cosh h) with a single logarithm.
        size = np.abs(meets)
        right = np.sum(size, axis=-1) + np.log(np.prod(1 + np.exp(-2 * size), axis=-1))
        most = left.max(axis=1), right.max(axis=1)
        left, right = np.exp(left - most[0][:, None]), np.exp(right - most[1][:, None])
        total = left @ right.T
        exponent += (np.log(total) + most[0][:, None] + most[1])[rows, columns]
        groups.append(_Group(first, second, rows, columns, left, right, total, meets))
    value = np.asarray(logsumexp(exponent))
    return float(value), np.exp(exponent - value), groups


def _half(qubits: tuple[int, ...]) -> np.ndarray:
    """For every configuration of the single spins the number of that of two qubits."""
    spins = SINGLE[:, [3 * qubit + axis for qubit in qubits for axis in range(3)]]
    return (spins > 0) @ (2 ** np.arange(5, -1, -1))
