"""Majorities of shots."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from morphax import (
    EquilibriumPropagation,
    Imperfections,
    NoiseAware,
    PhaseOscillators,
    QuantizedPerceptron,
    Substrate,
    WithReadout,
    train,
)
from morphax.learning.backprop import Backpropagation
from morphax.learning.voting import MajorityVote, vote

KEY = jax.random.key(0)


class Coin(Substrate):
    """Answers class 1 with probability `drive`, else class 0."""

    def initial_state(self, *, key=None):
        return jnp.zeros(2)

    def step(self, state, drive, *, key=None):
        assert key is not None
        right = jax.random.bernoulli(key, drive)
        return jnp.where(right, jnp.array([0.0, 1.0]), jnp.array([1.0, 0.0]))

    def observe(self, state, *, key=None):
        return state


def test_votes_are_binomial():
    votes = np.asarray(vote(Coin(), jnp.full((2000, 1), 0.3), 15, key=KEY))
    assert (votes.sum(1) == 15).all()
    counts = np.bincount(votes[:, 1].astype(int), minlength=16)[:10]
    expected = 2000 * stats.binom.pmf(np.arange(10), 15, 0.3)
    assert stats.chisquare(counts, expected * counts.sum() / expected.sum()).pvalue > 1e-3


@pytest.mark.parametrize("shots", [1, 2, 3, 15])
def test_the_majority_is_right_as_often_as_the_binomial_says(shots):
    """Ties go to the lowest class, here the wrong one."""
    targets = jnp.tile(jnp.array([[0.0, 1.0]]), (4000, 1))
    metrics = MajorityVote(Backpropagation(), shots).metrics(Coin(), jnp.full((4000, 1), 0.6), targets, key=KEY)
    expected = float(np.asarray(stats.binom.sf(shots // 2, shots, 0.6)))
    assert float(metrics["accuracy"]) == pytest.approx(expected, abs=4 * np.sqrt(expected * (1 - expected) / 4000))


@pytest.mark.slow
def test_the_first_layer_is_computed_once_for_all_shots():
    network = QuantizedPerceptron.random((300, 4, 4, 2), width=0.5, key=KEY)

    def cost(shots: int) -> float:
        run = jax.jit(lambda x: vote(network, x, shots, key=KEY, block=8)).lower(jnp.ones((8, 1, 300)))
        analysis = run.compile().cost_analysis()
        assert analysis is not None
        return float(analysis["flops"])

    first = 8 * 2 * 300 * 4
    assert cost(16) - cost(8) < 8 * first / 2


@pytest.mark.slow
def test_gradients_are_those_of_the_rule():
    network = QuantizedPerceptron.random((5, 4, 4, 2), width=0.5, key=KEY)
    inputs, targets = jax.random.normal(KEY, (6, 1, 5)), jnp.eye(2)[jnp.array([0, 1, 1, 0, 1, 0])]
    _, found = MajorityVote(Backpropagation(), 3).gradient(network, inputs, targets, key=KEY)
    _, expected = Backpropagation().gradient(network, inputs, targets, key=KEY)
    for a, b in zip(found.weights, expected.weights, strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_the_rule_refuses_is_refused_before_anything_compiles():
    network = QuantizedPerceptron.random((5, 4, 4, 2), width=0.5, key=KEY)
    inputs, targets = jnp.ones((3, 1, 5)), jnp.eye(2)[jnp.array([0, 1, 1])]
    rule = MajorityVote(NoiseAware(Backpropagation(), Imperfections(weight_mismatch=0.1)), 3)
    rule.check(network, (inputs, targets))
    refused = [
        (targets.at[2, 0].set(jnp.nan), r"targets\[2, 0\] is nan"),
        (targets[:2], "inputs holds 3 examples, targets 2"),
        (jnp.ones((3, 2)), r"targets\[0\] is \[1. 1.\]; classification takes one-hot"),
        (targets[:, :1], "targets has 1 columns"),
        (jnp.ones((3, 1, 2)) / 2, r"targets has shape \(3, 1, 2\); a vote decides"),
    ]
    for wrong, message in refused:
        with pytest.raises(ValueError, match=message):
            train(network, rule, (inputs, wrong), optax.sgd(0.1), 1, key=KEY)


def test_phases_are_no_votes_and_what_is_read_of_them_is():
    """The largest of the phases 3.0 and 1.5 is not the one with the larger sine."""
    network, data = PhaseOscillators.layered((2, 3, 2), key=KEY), (jnp.ones((3, 1, 2)), jnp.eye(2)[:1].repeat(3, 0))
    with pytest.raises(ValueError, match=r"a vote is cast for the largest output.*put WithReadout.random"):
        MajorityVote(EquilibriumPropagation()).check(network, data)
    MajorityVote(EquilibriumPropagation()).check(WithReadout.random(network, 2, key=KEY), data)


def test_too_few_shots_are_refused():
    with pytest.raises(ValueError, match="shots is 0"):
        MajorityVote(Backpropagation(), 0)
    with pytest.raises(ValueError, match="shots is 0"):
        vote(Coin(), jnp.ones((1, 1)), 0, key=KEY)


def test_bad_examples_are_refused():
    with pytest.raises(ValueError, match="block is 0"):
        vote(Coin(), jnp.ones((1, 1)), 1, key=KEY, block=0)
    with pytest.raises(ValueError, match="number of examples in inputs is 0"):
        vote(Coin(), jnp.ones((0, 1)), 1, key=KEY)
    with pytest.raises(ValueError, match=r"inputs\[1, 0\] is nan"):
        vote(Coin(), jnp.array([[1.0], [jnp.nan]]), 1, key=KEY)
    with pytest.raises(ValueError, match=r"targets has shape \(1, 2\); it must be \(4, 2\)"):
        MajorityVote(Backpropagation(), 3).metrics(Coin(), jnp.ones((4, 1)), jnp.eye(2)[:1], key=KEY)
