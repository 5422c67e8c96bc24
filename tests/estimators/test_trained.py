from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.datasets import load_diabetes, load_digits
from sklearn.model_selection import GridSearchCV, train_test_split

from morphax import Backpropagation, EquilibriumPropagation, NoiseAware, train
from morphax.estimators import (
    Device,
    PhaseOscillatorClassifier,
    PhysicalClassifier,
    PhysicalRegressor,
    QuantizedPerceptronClassifier,
    ReservoirClassifier,
    SpintronicClassifier,
)
from morphax.estimators._trained import WhilePresent
from morphax.learning import History
from morphax.substrates.imperfections import Imperfections
from morphax.substrates.recurrent import ContinuousTimeRecurrentNetwork

from .conftest import copy_of, tones


def halves(wine):
    X, y = wine
    return X[::2], y[::2], X[1::2], y[1::2]


@pytest.mark.slow
def test_qubits_learn_and_say_how_probable_a_class_is(wine):
    X, y, further, right = halves(wine)
    qubits = QuantizedPerceptronClassifier(hidden=(32,), steps=200, random_state=0).fit(X, y)
    assert qubits.score(further, right) > 0.93
    shares = qubits.predict_proba(further)
    np.testing.assert_allclose(shares.sum(axis=1), 1.0)
    np.testing.assert_array_equal(qubits.classes_[shares.argmax(axis=1)], qubits.predict(further))
    assert isinstance(qubits.history_, History)
    assert qubits.history_.metric("loss").shape == (200,)
    # A measurement is random: with other shots a probability is another one, and varies as the root of their number.
    assert qubits.shots_ == 15


@pytest.mark.slow
def test_one_sample_is_answered_alone_as_among_others(wine):
    X, y, further, _ = halves(wine)
    for network in (
        QuantizedPerceptronClassifier(steps=20, random_state=0),
        SpintronicClassifier(hidden=(8,), arrangement="held", steps=20, random_state=0),
    ):
        together = network.fit(X, y).predict_proba(further)
        np.testing.assert_array_equal(network.predict_proba(further[7:8])[0], together[7])
        again = copy_of(network).fit(X, y).predict_proba(further)
        np.testing.assert_array_equal(again, together)


@pytest.mark.slow
def test_another_number_of_samples_and_another_learning_rate_compile_nothing(wine, compiled):
    X, y, further, _ = halves(wine)
    SpintronicClassifier(hidden=(8,), arrangement="held", steps=20, random_state=0).fit(X, y).predict(further)
    compiled()
    other = SpintronicClassifier(hidden=(8,), arrangement="held", steps=20, learning_rate=0.02, random_state=1)
    other.fit(X[15:, :10], y[15:]).predict(further[:5, :10])
    assert compiled() == []


@pytest.mark.slow
def test_phases_learn_by_equilibrium_propagation(wine):
    X, y, further, right = halves(wine)
    phases = PhaseOscillatorClassifier(hidden=(8,), steps=300, random_state=0).fit(X, y)
    assert phases.coding_ == "phases"
    assert phases.score(further, right) > 0.9
    assert not hasattr(phases, "predict_proba")
    np.testing.assert_array_equal(phases.decision_function(further).argmax(axis=1), phases.predict(further))


@pytest.mark.slow
def test_activities_learn_classes_and_phases_numbers(wine):
    X, y, further, right = halves(wine)
    assert PhysicalClassifier("hopfield", random_state=0).fit(X, y).score(further, right) > 0.93
    X, y = load_diabetes(return_X_y=True)
    phases = PhysicalRegressor("phase-oscillators", hidden=(8,), steps=300, random_state=0)
    assert phases.fit(X[::2], y[::2]).score(X[1::2], y[1::2]) > 0.35


@pytest.mark.slow
def test_several_numbers_are_learned_at_once(wine):
    X, _ = wine
    Y = np.stack([X[:, 0], 100 * X[:, 1] - 3], axis=1)
    regressor = PhysicalRegressor("ctrnn", hidden=(16,), arrangement="held", steps=200, random_state=0)
    assert regressor.fit(X, Y).predict(X).shape == Y.shape
    assert regressor.score(X, Y) > 0.9


@pytest.mark.slow
def test_series_of_unequal_length_are_learned():
    series, labels = tones(160)
    network = PhysicalClassifier("spintronic", hidden=(32,), random_state=0).fit(series[:80], labels[:80])
    assert network.score(series[80:], labels[80:]) > 0.9
    together = network.predict_proba(series)
    np.testing.assert_allclose(network.predict_proba(series[3][None])[0], together[3], atol=1e-12)


@pytest.mark.slow
def test_what_is_over_stands_still():
    network = ContinuousTimeRecurrentNetwork.random((5,), inputs=2, key=jax.random.key(0))
    around, drives = WhilePresent(network), np.random.default_rng(0).normal(size=(9, 2))
    state = network.initial_state()
    for drive in drives[:6]:
        state = network.step(state, jnp.asarray(drive))
    present = (np.arange(9) < 6)[:, None]
    from morphax import evolve

    found, _ = evolve(around, np.concatenate([drives, present], axis=1), observe="last")
    np.testing.assert_allclose(found, network.observe(state), rtol=1e-5)


@pytest.mark.slow
def test_a_rule_may_be_given(wine):
    X, y, further, right = halves(wine)
    robust = NoiseAware(Backpropagation(), Imperfections(device_mismatch=0.05))
    network = SpintronicClassifier(robust, hidden=(16,), arrangement="held", steps=150, random_state=0).fit(X, y)
    assert network.score(further, right) > 0.9
    assert hasattr(network, "predict_proba")
    with pytest.raises(ValueError, match="EquilibriumPropagation needs an energy substrate"):
        SpintronicClassifier(EquilibriumPropagation(), hidden=(4,), arrangement="held").fit(X, y)


@pytest.mark.slow
def test_settings_of_the_substrate_are_searched(wine):
    X, y, *_ = halves(wine)
    network = PhysicalClassifier("quantized", hidden=(8,), steps=20, random_state=0)
    search = GridSearchCV(network, {"substrate__width": [0.0, 0.4]}, cv=2).fit(X, y)
    assert search.best_estimator_.substrate.kind == "quantized"
    assert PhysicalClassifier(Device("quantized", width=0.0), random_state=0, steps=5).fit(X, y).shots_ is None


@pytest.mark.slow
def test_rows_that_fill_up_never_enter_a_batch():
    """Rows that would spoil everything: what is learned is what is learned of the others alone."""
    key = jax.random.key(0)
    network = ContinuousTimeRecurrentNetwork.random((3,), inputs=2, key=key)
    inputs, targets = jax.random.normal(key, (20, 1, 2)), jnp.zeros((20, 3))
    spoiled = inputs.at[12:].set(1e6), targets.at[12:].set(1e6)
    rule = Backpropagation().suited("regression")
    done = train(network, rule, spoiled, optax.adam(0.01), 9, batch_size=4, examples=12, key=key)
    assert done.history.metric("loss").max() < 10
    with pytest.raises(ValueError, match="examples is 12 without batch_size"):
        train(network, rule, spoiled, optax.adam(0.01), 9, examples=12, key=key)
    with pytest.raises(ValueError, match="batch_size is 16; it must be"):
        train(network, rule, spoiled, optax.adam(0.01), 9, batch_size=16, examples=12, key=key)


@pytest.mark.slow
def test_each_row_is_learned_from_once_an_epoch():
    """Gradient descent on a mean: after whole epochs of small steps every row has pulled alike."""
    network = ContinuousTimeRecurrentNetwork.random((1,), key=jax.random.key(0))

    class Counting(Backpropagation):
        def gradient(self, substrate, inputs, targets, *, key=None):
            metrics, gradient = super().gradient(substrate, inputs, targets, key=key)
            return metrics | {"seen": targets[:, 0]}, gradient

    data = jnp.zeros((16, 2)), jnp.arange(16.0)[:, None]
    rule = Counting().suited("regression")
    done = train(network, rule, data, optax.sgd(0.0), 6, batch_size=4, examples=12, key=jax.random.key(1))
    seen = np.array([row["seen"] for row in done.history]).reshape(2, 12)
    np.testing.assert_array_equal(np.sort(seen, axis=1), np.tile(np.arange(12), (2, 1)))
    assert (seen[0] != seen[1]).any()


def test_what_is_asked_wrongly_is_refused(wine):
    X, y = wine
    with pytest.raises(ValueError, match="y has 1 class"):
        QuantizedPerceptronClassifier().fit(X[:20], np.zeros(20))
    with pytest.raises(ValueError, match='say arrangement="held"'):
        SpintronicClassifier().fit(X, y)
    with pytest.raises(ValueError, match="rule is 'hebb'"):
        PhysicalClassifier().set_params(rule="hebb").fit(X, y)
    with pytest.raises(ValueError, match=r"hidden is \(\)"):
        PhysicalClassifier(hidden=()).fit(X, y)
    with pytest.raises(ValueError, match="learning_rate is 0"):
        PhysicalClassifier(learning_rate=0).fit(X, y)
    with pytest.raises(ValueError, match="takes its input at once"):
        PhaseOscillatorClassifier().fit(*tones(20))
    with pytest.raises(ValueError, match='arrangement is "sequence", but PhaseOscillators takes'):
        PhaseOscillatorClassifier(arrangement="sequence").fit(X, y)
    with pytest.raises(ValueError, match="hidden is 64"):
        PhysicalClassifier(hidden=64).fit(X, y)  # pyright: ignore[reportArgumentType]


@pytest.mark.slow
def test_numbers_of_a_grid_of_numpys_are_numbers(wine):
    numbers = {"hidden": np.array([8]), "batch_size": np.int64(16), "steps": np.int64(3), "shots": np.int64(2)}
    fitted = QuantizedPerceptronClassifier(**numbers, random_state=np.int64(0)).fit(*wine)
    assert len(fitted.history_) == 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("estimator", "floor"),
    [
        (ReservoirClassifier("echo-state", arrangement="sequence"), 0.96),
        (QuantizedPerceptronClassifier(hidden=(64,)), 0.95),
    ],
)
def test_digits_are_read_without_tuning(estimator, floor):
    digits: Any = load_digits()

    def score(seed: int) -> float:
        parts = train_test_split(digits.data, digits.target, test_size=0.5, stratify=digits.target, random_state=seed)
        return copy_of(estimator).set_params(random_state=seed).fit(parts[0], parts[2]).score(parts[1], parts[3])

    assert np.mean([score(seed) for seed in range(5)]) >= floor
