"""What is minimised: of classes, one column or several, and of values."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from morphax import Backpropagation, EchoStateNetwork, WithReadout, train
from morphax.learning.objectives import classification, regression
from morphax.tasks import as_phases, waveforms, xor

KEY = jax.random.key(3)


@pytest.mark.parametrize("output", [-2.0, 0.3, 40.0])
@pytest.mark.parametrize("target", [0.0, 1.0])
def test_one_column_is_the_logarithm_of_the_odds(output, target):
    """As two classes whose outputs differ by it."""
    single = classification(jnp.array([[output]]), jnp.array([[target]]))
    double = classification(jnp.array([[0.0, output]]), jnp.array([[1 - target, target]]))
    assert float(single["loss"]) == pytest.approx(float(double["loss"]), rel=1e-5)
    assert single["accuracy"] == double["accuracy"] == ((output > 0) == (target == 1))


def test_one_column_has_a_slope():
    """Of a softmax over one column the loss is 0 whatever the output."""
    slope = jax.grad(lambda o: classification(o, jnp.array([[1.0], [0.0]]))["loss"])(jnp.zeros((2, 1)))
    np.testing.assert_allclose(slope, [[-0.25], [0.25]], rtol=1e-6)  # half of sigmoid minus target


@pytest.mark.slow
def test_a_task_of_one_column_is_learned():
    task = waveforms(40, 16, key=KEY)
    network = WithReadout.random(EchoStateNetwork.random(30, key=KEY), 1, key=KEY)
    history = train(network, Backpropagation(), task, optax.adam(0.1), 120, key=KEY, watch={}, chunk=120).history
    assert history[0]["loss"] == pytest.approx(np.log(2), abs=0.2)
    assert history[-1]["loss"] < 0.65 * history[0]["loss"]
    assert history[-1]["accuracy"] > 0.85


def test_classes_after_every_input_are_the_mean_over_inputs():
    outputs, labels = jax.random.normal(KEY, (3, 4, 2)), jax.nn.one_hot(jnp.arange(12).reshape(3, 4) % 2, 2)
    whole = classification(outputs, labels)
    rows = [classification(o, t) for o, t in zip(outputs.reshape(12, 1, 2), labels.reshape(12, 1, 2), strict=True)]
    for name, value in whole.items():
        assert float(value) == pytest.approx(np.mean([row[name] for row in rows]), rel=1e-5)


@pytest.mark.parametrize(
    ("targets", "row"),
    [
        ([[1.0, 0.0], [1.0, 1.0]], r"targets\[1\] is \[1. 1.\]"),
        ([[1.0], [2.0]], r"targets\[1\] is \[2.\]"),
        ([[[0.0, 1.0], [0.3, 0.3]]], r"targets\[0, 1\] is \[0.3 0.3\]"),
        (as_phases(waveforms(16, 8, key=KEY)).train_targets, r"targets\[0\] is \[-?1\.57"),
        (xor().train_targets, "use morphax.tasks.as_labels for phases, one_hot"),
    ],
)
def test_targets_that_are_no_classes_are_refused_with_the_remedy(targets, row):
    with pytest.raises(ValueError, match=row):
        classification.check(jnp.asarray(targets))


def test_probabilities_are_classes_and_any_value_is_one():
    classification.check(jnp.array([[0.25, 0.75], [1.0, 0.0]]))
    classification.check(jnp.array([[0.25], [1.0]]))
    regression.check(jnp.array([[-3.0], [1e9]]))
    jax.jit(lambda t: classification.check(t))(jnp.ones((1, 2)))  # what is not known yet is not judged


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (lambda o, t: {"error": jnp.sum(o - t)}, 'objective gives error; it must give a "loss", one number'),
        (lambda o, t: {"loss": o - t}, 'objective gives loss; it must give a "loss", one number'),
    ],
)
def test_an_objective_without_a_loss_is_refused(objective, message):
    network = WithReadout.random(EchoStateNetwork.random(2, key=KEY), 1, key=KEY)
    with pytest.raises(ValueError, match=message):
        Backpropagation(objective).check(network, (jnp.ones((3, 2)), jnp.ones((3, 1))))
