"""Gradients from outcomes of measurements against enumeration of all of them."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from morphax import Backpropagation, HopfieldNetwork, QuantizedPerceptron, train
from morphax.learning.shift import AngleShift, ScoreFunction
from morphax.pytrees import select

KEY = jax.random.key(0)
REGIMES = {"rotation": {"width": 0.7}, "both": {"width": 0.7, "strength": 0.9}}


def network(**numbers) -> QuantizedPerceptron:
    return QuantizedPerceptron.random((3, 3, 3, 2), key=KEY, **numbers)


def data() -> tuple:
    return jax.random.normal(jax.random.key(1), (4, 3)), jnp.eye(2)[jnp.array([0, 1, 1, 0])]


def flat(gradient) -> np.ndarray:
    return np.asarray(ravel_pytree(select(gradient, "weight")[0])[0])


def enumerated(net: QuantizedPerceptron, inputs, targets) -> np.ndarray:
    """The gradient of the expected loss of a shot, from all outcomes."""
    outcomes = jnp.array(list(itertools.product((-1.0, 1.0), repeat=6))).reshape(-1, 2, 3)

    @eqx.filter_grad
    def gradient(net):
        def expected(drive, target):
            probabilities = jax.vmap(lambda d: net.probability(drive, d))(outcomes)
            losses = jax.vmap(lambda d: Backpropagation().judged(net.answer(d)[None], target[None])["loss"])(outcomes)
            return jnp.sum(probabilities * losses)

        return jnp.mean(jax.vmap(expected)(inputs, targets))

    return flat(gradient(net))


@pytest.mark.slow
@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize(
    "rule",
    [ScoreFunction(4), ScoreFunction(4, baseline=False), AngleShift(2, neurons=6), AngleShift(2, neurons=2)],
    ids=["score", "score without baseline", "all angles", "some angles"],
)
def test_the_mean_is_the_gradient_of_the_expected_loss(rule, regime, double):
    net, (inputs, targets) = network(**REGIMES[regime]), data()
    draws = 1000

    @jax.jit
    def found(keys):
        return jax.lax.map(
            lambda k: ravel_pytree(select(rule.gradient(net, inputs, targets, key=k)[1], "weight")[0])[0], keys
        )

    gradients = np.asarray(found(jax.random.split(jax.random.key(5), draws)))
    error = gradients.std(axis=0, ddof=1) / draws**0.5
    deviations = (gradients.mean(axis=0) - enumerated(net, inputs, targets))[error > 0] / error[error > 0]
    # 24 numbers: mean square of normal deviations, and the largest of them.
    assert np.mean(deviations**2) < 2.0
    assert np.abs(deviations).max() < 4.0


@pytest.mark.slow
def test_a_baseline_takes_most_of_the_variance(double):
    net, (inputs, targets) = network(width=0.7), data()
    right = enumerated(net, inputs, targets)

    def spread(rule) -> float:
        keys = jax.random.split(KEY, 200)
        gradients = jax.lax.map(
            lambda k: ravel_pytree(select(rule.gradient(net, inputs, targets, key=k)[1], "weight")[0])[0], keys
        )
        return float(np.mean(np.sum((np.asarray(gradients) - right) ** 2, axis=1)))

    assert spread(ScoreFunction(8)) < spread(ScoreFunction(8, baseline=False)) / 3


@pytest.mark.slow
def test_outcomes_of_shots_have_their_probabilities(double):
    net, drive = network(width=0.7, strength=0.9), data()[0][0]
    outcomes = np.asarray(jax.jit(jax.vmap(lambda k: net.shot(drive, key=k)))(jax.random.split(KEY, 40_000)))
    every = np.array(list(itertools.product((-1.0, 1.0), repeat=6))).reshape(-1, 2, 3)
    expected = 40_000 * np.asarray(jax.vmap(lambda d: net.probability(drive, d))(jnp.asarray(every)))
    counts = np.array([np.sum(np.all(outcomes == one, axis=(1, 2))) for one in every])
    often = expected > 5
    chi_squared = np.sum((counts - expected)[often] ** 2 / expected[often])
    assert chi_squared < often.sum() + 5 * (2 * often.sum()) ** 0.5


@pytest.mark.slow
@pytest.mark.parametrize("rule", [ScoreFunction(16), AngleShift(8, neurons=6)])
def test_outcomes_teach(rule):
    net = network(width=0.7)
    history = train(net, rule, data(), optax.adam(0.03), 100, key=KEY, chunk=100).history
    loss = history.metric("loss")
    assert loss[-10:].mean() < 0.8 * loss[:10].mean()
    assert history.presentations[-1] == 100 * rule.cost(4).presentations


def test_what_has_no_angles_is_refused():
    inputs, targets = data()
    with pytest.raises(ValueError, match="declared angles"):
        ScoreFunction().check(HopfieldNetwork.random((3, 4, 2), key=KEY), (inputs, targets))
    with pytest.raises(ValueError, match="width 0"):
        AngleShift(neurons=2).check(network(), (inputs, targets))
    with pytest.raises(ValueError, match="neurons is 7"):
        AngleShift(neurons=7).check(network(width=0.5), (inputs, targets))
    with pytest.raises(ValueError, match="shots is 1"):
        ScoreFunction(1)
