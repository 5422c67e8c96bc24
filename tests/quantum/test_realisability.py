import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linprog

from morphax.quantum.correlation_map import coefficients, configurations, density_matrix, expectations, extended_spins
from morphax.quantum.realisability import (
    chsh,
    extended_realisability,
    minimal_vertices,
    nearest_realised,
    realisability,
)
from morphax.quantum.states import ghz_state, pure_state, random_density_matrix, w_state

pytestmark = pytest.mark.usefixtures("double")
TURNED = ghz_state(2, 1 / 8)


def drawn(seed, qubits=2, rank=None):
    return np.asarray(random_density_matrix(qubits, rank, key=jax.random.key(seed)))


def mixed(rho, share):
    return share * rho + (1 - share) * np.eye(len(rho)) / len(rho)


@pytest.mark.parametrize(("qubits", "rank"), [(2, None), (2, 1), (3, None)])
def test_a_realised_state_comes_with_its_distribution(qubits, rank):
    for seed in range(6):
        rho = drawn(seed, qubits, rank)
        answer = realisability(rho)
        assert answer.probabilities is not None
        assert answer.probabilities.min() > -1e-9
        chi = np.asarray(expectations(jnp.asarray(answer.probabilities)))
        np.testing.assert_allclose(chi, coefficients(mixed(rho, answer.visibility)), atol=1e-7)


def test_an_excluded_state_comes_with_an_inequality_that_anyone_can_check():
    answer = realisability(TURNED)
    assert not answer.realised
    assert answer.visibility == pytest.approx(2**-0.5, abs=1e-9)
    assert answer.violation == pytest.approx(2**0.5, abs=1e-9)
    everywhere = np.array([np.sum(answer.inequality * np.asarray(expectations(jnp.asarray(p)))) for p in np.eye(64)])
    assert everywhere.max() == pytest.approx(1, abs=1e-9)
    assert np.sum(answer.inequality * np.asarray(coefficients(TURNED))) == pytest.approx(answer.violation, abs=1e-9)
    assert chsh(TURNED) == pytest.approx(2 * 2**0.5, abs=1e-9)


def test_chsh_is_two_for_every_configuration_and_for_mixtures():
    vertices = minimal_vertices(2).T.reshape(-1, 4, 4)
    assert max(chsh(np.asarray(density_matrix(jnp.asarray(v)))) for v in vertices) == pytest.approx(2)


@pytest.mark.parametrize("seed", range(4))
def test_visibility_is_where_mixtures_begin_to_be_excluded(seed):
    rho = drawn(seed + 20, 2, 1)
    share = realisability(rho).visibility
    assert realisability(mixed(rho, 0.999 * share)).realised
    if share < 1:
        assert not realisability(mixed(rho, min(1.0, 1.001 * share))).realised


def test_visibility_in_another_state():
    rest = drawn(7, 3)
    share = realisability(ghz_state(3), rest).visibility
    assert 0.4 < share < 0.6
    assert realisability((share - 1e-4) * ghz_state(3) + (1 - share + 1e-4) * rest).realised
    assert not realisability((share + 1e-4) * ghz_state(3) + (1 - share - 1e-4) * rest).realised


@pytest.mark.parametrize(
    ("rho", "visibility", "minimum"),
    [(ghz_state(3), 1 / 2, 1 / 8), (w_state(3), 2 / 3, 0.0530303), (TURNED, 2**-0.5, (1 - 2**-0.5) ** 2 / 2)],
)
def test_known_states(rho, visibility, minimum):
    assert realisability(rho).visibility == pytest.approx(visibility, abs=1e-7)
    assert nearest_realised(rho).loss == pytest.approx(minimum, abs=1e-7)


def test_ghz_contradicts_itself_as_the_paper_argues():
    # Eqs. 50, 51: of all signs of s_1, s_2 of three qubits none has the products -1, -1, -1 and 1.
    spins = configurations(6).reshape(-1, 3, 2)
    products = [spins[:, 0, i] * spins[:, 1, j] * spins[:, 2, k] for i, j, k in ((0, 1, 1), (1, 0, 1), (1, 1, 0))]
    assert not np.any((np.array(products) == -1).all(0) & (spins[:, :, 0].prod(1) == 1))


def test_the_nearest_realised_matrix_obeys_its_optimality():
    rho = drawn(31, 2, 1)
    found = nearest_realised(rho)
    chi = np.asarray(coefficients(rho)).reshape(-1)
    off = found.coefficients.reshape(-1) - chi
    assert np.min(off @ (minimal_vertices(2) - found.coefficients.reshape(-1, 1))) > -1e-8
    assert found.loss == pytest.approx(np.sum(off**2) / 4, abs=1e-12)
    assert nearest_realised(drawn(1)).loss == pytest.approx(0, abs=1e-12)


def test_blocks_of_the_extended_map_agree_with_the_whole_programme():
    """All 2^12 configurations of a pair's nine spins and the third qubit's three, one block of Eq. 53."""
    spins = configurations(12)
    names = extended_spins(3)
    for rho in (ghz_state(3, 1 / 8), drawn(3, 3, 1)):
        chi = np.asarray(coefficients(rho))
        worst = 1.0
        for single in range(3):
            pair = [q for q in range(3) if q != single]
            index = [i for i in names if i[single] == 0 and all(i[q] for q in pair)]
            alone = [i for i in names if i[single] and not any(i[q] for q in pair)]
            both = [tuple(a + b for a, b in zip(i, j, strict=True)) for i, j in itertools.product(index, alone)]
            rows = np.concatenate(
                [spins.T, (spins[:, :9, None] * spins[:, None, 9:]).reshape(len(spins), -1).T, np.ones((1, len(spins)))]
            )
            target = np.array([chi[i] for i in [*index, *alone, *both]] + [0.0])
            right = np.zeros(len(target))
            right[-1] = 1.0
            cost = np.append(np.zeros(len(spins)), -1.0)
            solved = linprog(
                cost, A_eq=np.column_stack([rows, -target]), b_eq=right, bounds=[(0, None)] * len(spins) + [(0, 1)]
            )
            worst = min(worst, solved.x[-1])
        assert extended_realisability(rho).upper == pytest.approx(worst, abs=1e-7)


def test_the_extended_map_realises_ghz_but_not_with_a_phase():
    assert extended_realisability(ghz_state(3)).lower == pytest.approx(1, abs=1e-9)
    answer = extended_realisability(ghz_state(3, 1 / 8))
    assert answer.lower == answer.upper == pytest.approx(2**-0.5, abs=1e-9)
    assert answer.violation == pytest.approx(2**0.5, abs=1e-9)
    # Its inequality holds for pair spins of any configuration, with single spins of one qubit.
    inequality = answer.inequality
    assert inequality is not None
    signs = np.sign(np.random.default_rng(0).normal(size=(2000, 36)))
    names = extended_spins(3)
    used = [i for i in itertools.product(range(4), repeat=3) if inequality[i]]
    single = next(q for q in range(3) if all(i[q] or sum(map(bool, i)) == 2 for i in used))
    column = {name: place for place, name in enumerate(names)}

    def value(index):
        if sum(map(bool, index)) < 3:
            return signs[:, column[index]]
        alone = tuple(mu if q == single else 0 for q, mu in enumerate(index))
        pair = tuple(0 if q == single else mu for q, mu in enumerate(index))
        return signs[:, column[alone]] * signs[:, column[pair]]

    assert np.max(sum(inequality[i] * value(i) for i in used)) <= 1 + 1e-9


def test_the_extended_map_realises_whatever_the_minimal_one_does():
    for seed in range(5):
        rho = drawn(seed, 3, 1 + seed)
        rho = mixed(rho, realisability(rho).visibility)
        assert extended_realisability(rho).upper == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: realisability(np.eye(2)), "trace 2"),
        (lambda: realisability(TURNED, rest=np.eye(8) / 8), "rest acts on 3"),
        (lambda: extended_realisability(TURNED), "decided for 3 and for 4"),
        (lambda: nearest_realised(np.diag([2.0, -1.0])), "eigenvalue -1"),
        (lambda: chsh(pure_state([1, 0])), "CHSH is about 2"),
    ],
)
def test_what_makes_no_sense_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
