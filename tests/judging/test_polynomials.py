"""Polynomials that are orthonormal under any distribution, and inputs made independent."""

import numpy as np
import pytest
from numpy.polynomial import hermite_e, legendre

from morphax.judging.polynomials import Innovations, Polynomials, ljung_box


@pytest.mark.parametrize("draw", ["uniform", "normal", "exponential", "lognormal"])
def test_they_are_orthonormal_under_their_values(draw):
    values = getattr(np.random.default_rng(0), draw)(size=200_000)
    rows = Polynomials.of(values, 8)(values)
    assert np.max(np.abs(rows @ rows.T / len(values) - np.eye(9))) < 1e-6


def test_of_known_distributions_they_are_the_known_ones():
    nodes, weights = legendre.leggauss(40)
    counts = np.rint(weights * 1e6).astype(int)
    found = Polynomials.of(np.repeat(nodes, counts), 5)(nodes)
    expected = np.stack([np.sqrt(2 * n + 1) * legendre.legval(nodes, np.eye(6)[n]) for n in range(6)])
    assert found == pytest.approx(expected, abs=1e-4)
    values = np.random.default_rng(1).normal(size=2_000_000)
    grid = np.linspace(-2, 2, 9)
    cubic = hermite_e.hermeval(grid, [0, 0, 0, 1]) / 6**0.5
    assert Polynomials.of(values, 3)(grid)[3] == pytest.approx(cubic, abs=0.02)


@pytest.mark.parametrize("levels", [2, 3, 7])
def test_they_end_where_the_levels_do(levels):
    values = np.random.default_rng(2).integers(0, levels, 5000) * 3.0 + 100.0
    assert Polynomials.of(values, 12).degree == levels - 1


def test_innovations_are_what_was_put_in():
    rng = np.random.default_rng(4)
    pushes, values = rng.normal(size=50_000), np.zeros(50_000)
    for time, push in enumerate(pushes):
        values[time] = 0.9 * values[time - 1] - 0.5 * values[time - 2] + push
    found = Innovations.of(values, 5)
    assert np.concatenate([found[:3], found[3:70_000]]) == pytest.approx(found[:], abs=1e-12)
    assert found.coefficients == pytest.approx([0.9, -0.5, 0, 0, 0], abs=0.02)
    assert np.corrcoef(found[10:], pushes[10:])[0, 1] > 0.999
    assert ljung_box(values) < 1e-10
    assert ljung_box(found) > 1e-3


def test_the_test_of_independence_is_as_often_wrong_as_it_says():
    rng = np.random.default_rng(6)
    often = np.mean([ljung_box(rng.uniform(size=2000)) < 0.05 for _ in range(1000)])
    assert often == pytest.approx(0.05, abs=0.025)
