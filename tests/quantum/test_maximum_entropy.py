import numpy as np
import pytest
from scipy.special import logsumexp

from morphax.quantum.correlation_map import (
    coefficients,
    configurations,
    correlations,
    extended_correlations,
)
from morphax.quantum.maximum_entropy import components, largest, log_partition, maximum_entropy
from morphax.quantum.realisability import correlation_bound, extended_realisability, realisability
from morphax.quantum.states import ghz_state, pure_state, w_state

pytestmark = pytest.mark.usefixtures("double")


def pure(seed):
    rng = np.random.default_rng(seed)
    return pure_state(rng.normal(size=16) + 1j * rng.normal(size=16))


def chi_of(rho):
    return np.asarray(coefficients(rho), float)


def test_components_are_those_of_single_spins_where_pair_spins_are_their_products():
    # A configuration of single spins, and pair spins that are their products, has the moments of the minimal map.
    spins = configurations(12)[1234]
    chi = np.asarray(correlations(spins[None]), float)
    found = components(chi)
    assert found.shape == (633,)
    assert np.array_equal(found[:12], spins)
    first, last = spins[:3], spins[9:]
    assert np.array_equal(found[12 + 2 * 9 : 12 + 3 * 9], np.outer(first, last).ravel())
    assert np.array_equal(found[-81:], np.kron(np.kron(first, last), np.kron(spins[3:6], spins[6:9])))


def test_partition_function_is_that_of_an_enumeration():
    # Fields on a few spins only: single spins of two qubits, four pair spins that meet them or each other.
    rng = np.random.default_rng(0)
    fields = np.zeros(633)
    single, pair = fields[:12], fields[12:66].reshape(6, 9)
    three, four = fields[66:390].reshape(6, 9, 6), fields[390:].reshape(3, 9, 9)
    single[:6] = rng.normal(size=6)
    pair[0, :2], pair[5, :2] = rng.normal(size=(2, 2))
    three[5, :2] = rng.normal(size=(2, 6))
    four[0, :2, :2] = rng.normal(size=(2, 2))
    s = configurations(10)
    spins, low, high = s[:, :6], s[:, 6:8], s[:, 8:]
    exponents = (
        spins @ single[:6]
        + low @ pair[0, :2]
        + high @ pair[5, :2]
        + np.einsum("nk,kj,nj->n", high, three[5, :2], spins)
        + np.einsum("nk,kj,nj->n", low, four[0, :2, :2], high)
    )
    value, gradient = log_partition(fields)
    assert value == pytest.approx(logsumexp(exponents) + 56 * np.log(2), rel=1e-12)
    assert largest(fields) == pytest.approx(exponents.max(), rel=1e-12)
    weights = np.exp(exponents - logsumexp(exponents))
    assert gradient[:6] == pytest.approx(weights @ spins, abs=1e-12)
    assert gradient[66:390].reshape(6, 9, 6)[5, 1] == pytest.approx(weights @ (high[:, 1:] * spins), abs=1e-12)


def test_gradient_is_that_of_differences():
    rng = np.random.default_rng(1)
    fields = rng.normal(size=633)
    _, gradient = log_partition(fields)
    for place in rng.choice(633, 6, replace=False):
        step = 1e-5 * np.eye(1, 633, place)[0]
        difference = (log_partition(fields + step)[0] - log_partition(fields - step)[0]) / 2e-5
        assert gradient[place] == pytest.approx(difference, abs=1e-8)


def test_samples_have_the_coefficients_of_a_random_state_and_obey_the_quantum_constraint():
    chi = chi_of(pure(1))
    found = maximum_entropy(chi, 0.7)
    assert found.share > 0.7
    number = 20_000
    single, pairs = found.sample(number, np.random.default_rng(0))
    seen, miss = extended_correlations(np.concatenate([single, pairs.reshape(number, 54)], axis=1))
    # Means of +-1: five standard errors.
    assert seen.ravel() == pytest.approx(np.append(1.0, found.share * chi.ravel()[1:]), abs=5 / number**0.5)
    assert miss < 5 * (2 / number) ** 0.5


@pytest.mark.slow
@pytest.mark.parametrize("rho", [ghz_state(4), w_state(4)])
def test_ghz_and_w_of_four_qubits_are_realised(rho):
    answer = extended_realisability(rho)
    assert answer.lower == pytest.approx(1, abs=1e-5)
    assert answer.upper == 1
    assert realisability(rho).visibility < 0.6


@pytest.mark.parametrize("size", [1.0, 300.0])
def test_products_of_matrices_and_sums_of_their_own_agree(size, monkeypatch):
    fields = size * np.random.default_rng(2).normal(size=633)
    value, gradient = log_partition(fields)
    assert value >= largest(fields) - 1e-9 * abs(value)
    monkeypatch.setattr("morphax.quantum.maximum_entropy.FAR", -1.0)
    again = log_partition(fields)
    assert value == pytest.approx(again[0], rel=1e-12)
    assert gradient == pytest.approx(again[1], abs=1e-9)


@pytest.mark.slow
def test_share_and_bound_meet_where_an_inequality_says():
    # GHZ with a phase: CHSH of two groups of spins allows no more than 1 / sqrt 2.
    chi = chi_of(ghz_state(4, 1 / 8))
    answer = extended_realisability(ghz_state(4, 1 / 8))
    assert answer.lower == pytest.approx(2**-0.5, abs=1e-6)
    assert 2**-0.5 - 1e-9 < answer.upper < answer.lower + 2e-3
    assert answer.inequality is not None
    assert np.sum(answer.inequality * chi) == pytest.approx(answer.violation) == pytest.approx(1 / answer.upper)
    # It holds for configurations whose pair spins are products of single spins.
    for number in np.random.default_rng(0).integers(4096, size=50):
        assert np.sum(answer.inequality * np.asarray(correlations(configurations(12)[number][None]))) <= 1 + 1e-9


def test_what_is_nearly_mixed_is_realised():
    for share in (0.0, 1e-3):
        rho = share * pure(3) + (1 - share) * np.eye(16) / 16
        assert extended_realisability(rho).lower == pytest.approx(1, abs=1e-5)


def test_correlations_of_ghz_contradict_each_other_from_five_qubits_on():
    a, b, x = (1, 1, 0, 0, 0), (0, 0, 1, 1, 0), (0, 0, 0, 0, 1)
    c, d, y = (1, 2, 0, 0, 0), (0, 0, 1, 2, 0), (0, 0, 0, 0, 2)
    ways = [[a, b, x], [c, d, x], [c, b, y], [a, d, y]]
    assert correlation_bound(ghz_state(5), ways) == pytest.approx(0.5)
    assert correlation_bound(ghz_state(5), ways[:3]) == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: maximum_entropy(np.zeros((4, 4, 4))), "shape"),
        (lambda: maximum_entropy(np.full((4,) * 4, np.nan)), "chi"),
        (lambda: maximum_entropy(np.zeros((4,) * 4)), "maximally mixed"),
        (lambda: correlation_bound(ghz_state(3), [[(1, 1, 1)]]), "one or two of them not 0"),
        (lambda: correlation_bound(ghz_state(3), [[(1, 0, 0)]]), "no correlation"),
        (lambda: correlation_bound(ghz_state(3), [[(1, 1)]]), "an index of 3 entries"),
        (lambda: correlation_bound(ghz_state(3), [[(1, 1, 0), (0, 1, 0)]]), "no qubit in common"),
    ],
)
def test_what_makes_no_sense_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
