"""The training loop: resumption, refusals and failures."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from morphax import DEVICE, WEIGHT, Backpropagation, EchoStateNetwork, LearningRule, WithReadout
from morphax.learning.objectives import classification
from morphax.learning.optimisers import split_rows
from morphax.learning.train import DivergedError, adjustable, train
from morphax.tasks import waveforms

pytestmark = pytest.mark.usefixtures("double")


class Line(eqx.Module):
    slope: jax.Array = eqx.field(metadata=WEIGHT)
    offset: jax.Array = eqx.field(metadata=DEVICE)


class NoisyLeastSquares(LearningRule):
    """Uses its key, so that a resumed training must draw the same numbers."""

    def metrics(self, substrate, inputs, targets, *, key):
        return self.gradient(substrate, inputs, targets, key=key)[0]

    def gradient(self, substrate, inputs, targets, *, key):
        def loss(line):
            noise = 0.1 * jax.random.normal(key, inputs.shape)
            return jnp.mean((line.slope * inputs + line.offset + noise - targets) ** 2)

        value, gradient = eqx.filter_value_and_grad(loss)(substrate)
        return {"loss": value}, gradient


with jax.enable_x64(True):
    X = jnp.arange(5.0)
    START = Line(jnp.zeros(()), jnp.ones(()))


def run(steps, **options):
    return train(START, NoisyLeastSquares(), (X, 3 * X), optax.adam(0.1), steps, key=jax.random.key(0), **options)


def test_only_the_named_role_is_trained():
    line = run(100).last
    assert line.offset == 1
    assert 2 < line.slope < 3
    both = run(300, trained=("weight", "device")).last
    assert abs(both.offset) < 0.5


def test_chunks_do_not_change_the_numbers():
    assert run(37, chunk=37).last.slope == run(37, chunk=5).last.slope


def test_an_interrupted_training_resumes_exactly(tmp_path):
    whole, history, _ = run(60, chunk=10)

    class KilledError(Exception):
        pass

    def kill(rows):
        if len(rows) == 30:
            raise KilledError

    with pytest.raises(KilledError):
        run(60, chunk=10, checkpoint=tmp_path, on_chunk=kill)
    seen = []
    resumed, same_history, _ = run(60, chunk=10, checkpoint=tmp_path, on_chunk=lambda rows: seen.append(len(rows)))
    assert seen == [30, 40, 50, 60]
    assert resumed.slope == whole.slope
    assert same_history == history


def test_divergence_says_at_which_step_and_keeps_the_last_checkpoint(tmp_path):
    class Exploding(NoisyLeastSquares):
        def gradient(self, substrate, inputs, targets, *, key):
            metrics, gradient = super().gradient(substrate, inputs, targets, key=key)
            return {"loss": jnp.where(jnp.abs(substrate.slope) > 0.5, jnp.inf, metrics["loss"])}, gradient

    with pytest.raises(DivergedError, match="loss is not finite at step 6"):
        train(START, Exploding(), (X, 3 * X), optax.adam(0.1), 20, key=jax.random.key(0), chunk=3, checkpoint=tmp_path)
    assert [path.name for path in tmp_path.glob("state-*")] == ["state-000000006.eqx"]


# Minibatches, watched data, checkpoints.


class Watched(NoisyLeastSquares):
    """Tells which inputs it saw, and how well a line does without noise."""

    def gradient(self, substrate, inputs, targets, *, key):
        metrics, gradient = super().gradient(substrate, inputs, targets, key=key)
        return metrics | {"seen": inputs}, gradient

    def metrics(self, substrate, inputs, targets, *, key):
        error = jnp.mean((substrate.slope * inputs + substrate.offset - targets) ** 2)
        return {"loss": error, "slope": substrate.slope}


WATCHED, OPTIMISER = Watched(), optax.adam(0.1)


def score(watched):
    return -watched["validation"]["loss"]


def watched_run(steps, data=None, **options):
    x = jnp.arange(10.0)
    options = {
        "key": jax.random.key(2),
        "batch_size": 3,
        "chunk": 5,
        # What is validated wants another slope than what is trained, so that training passes the best point.
        "watch": {"validation": (jnp.arange(4.0), 1.2 * jnp.arange(4.0)), "train": (x, 3 * x)},
        "score": score,
        **options,
    }
    return train(START, WATCHED, (x, 3 * x) if data is None else data, OPTIMISER, steps, **options)


@pytest.mark.slow
def test_minibatches_visit_every_example_once_and_leave_others_over():
    history = watched_run(18, chunk=7).history  # chunks end in the middle of epochs
    orders = np.array([row["seen"] for row in history]).reshape(6, 9)  # 3 batches of 3 of 10 examples an epoch
    left_over = set()
    for order in orders:
        assert len(set(order)) == 9
        left_over |= set(range(10)) - set(order)
    assert len(left_over) > 2
    assert len({tuple(order) for order in orders}) == 6


@pytest.mark.slow
def test_best_is_the_substrate_with_the_highest_score():
    last, history, best = watched_run(33)
    ends = [row["validation"] for row in history if "validation" in row]
    assert [step + 1 for step, row in enumerate(history) if "validation" in row] == [5, 10, 15, 20, 25, 30, 33]
    index = int(np.argmin([end["loss"] for end in ends]))
    assert 0 < index < len(ends) - 1
    assert float(best.slope) == ends[index]["slope"]
    assert float(last.slope) == ends[-1]["slope"] == history[-1]["train"]["slope"]
    np.testing.assert_allclose(ends[-1]["loss"], np.mean(((last.slope - 1.2) * np.arange(4.0) + 1) ** 2), rtol=1e-12)


@pytest.mark.slow
def test_minibatches_watched_data_and_the_best_are_resumed_exactly(tmp_path):
    whole = watched_run(33)

    class KilledError(Exception):
        pass

    def kill(rows):
        if len(rows) == 25:  # after the best point
            raise KilledError

    with pytest.raises(KilledError):
        watched_run(33, checkpoint=tmp_path, on_chunk=kill)
    resumed = watched_run(33, checkpoint=tmp_path)
    assert resumed.last.slope == whole.last.slope
    assert resumed.best.slope == whole.best.slope
    assert resumed.history == whole.history


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"key": jax.random.key(3)}, "key"),
        ({"batch_size": 4}, "batch_size"),
        ({"data": (jnp.arange(10.0), jnp.arange(10.0))}, "data"),
        ({"trained": ("weight", "device")}, "trained"),
        ({"watch": {"validation": (jnp.ones(2), jnp.ones(2))}}, "watch"),
        ({"batch_size": None, "key": jax.random.key(3)}, "key, batch_size"),
        ({"score": lambda watched: watched["train"]["loss"]}, "score"),
    ],
)
def test_the_checkpoint_of_another_training_is_refused(tmp_path, other, named):
    watched_run(1, checkpoint=tmp_path)
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(ValueError, match=f"holds a training with another {named}"):
        watched_run(2, checkpoint=tmp_path, **other)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def decay(rate):
    return lambda step: 0.1 * rate**step


def table(*rates):
    """A schedule whose numbers are constants inside a program inside the optimiser's."""
    return jax.jit(lambda step: jnp.asarray(np.array(rates))[jnp.minimum(step, len(rates) - 1)])


def in_turn(rate):
    return optax.chain(optax.clip_by_global_norm(rate), optax.sgd(0.1))


def halves(rate):
    return split_rows(optax.sgd(0.1), optax.sgd(rate))


OPTIMISERS = {
    "adam": (lambda: optax.adam(0.01), lambda: optax.adam(0.5)),
    "adam, almost": (lambda: optax.adam(0.01), lambda: optax.adam(0.01 * (1 + 1e-12))),
    "adam, other memory": (lambda: optax.adam(0.01), lambda: optax.adam(0.01, b2=0.99)),
    "another one": (lambda: optax.adam(0.1), lambda: optax.nadam(0.1)),
    "schedule": (
        lambda: optax.sgd(optax.exponential_decay(0.1, 10, 0.9)),
        lambda: optax.sgd(optax.exponential_decay(0.1, 11, 0.9)),
    ),
    "schedule beyond the first step": (
        lambda: optax.sgd(optax.piecewise_constant_schedule(0.1, {50: 0.5})),
        lambda: optax.sgd(optax.piecewise_constant_schedule(0.1, {60: 0.5})),
    ),
    "lambda": (lambda: optax.sgd(decay(0.9)), lambda: optax.sgd(decay(0.8))),
    "table": (lambda: optax.sgd(table(0.1, 0.2, 0.3)), lambda: optax.sgd(table(0.1, 0.2, 0.4))),
    "chain": (lambda: in_turn(1.0), lambda: in_turn(2.0)),
    "adjustable": (
        lambda: adjustable(optax.sgd, learning_rate=0.1),
        lambda: adjustable(optax.sgd, learning_rate=0.2),
    ),
    "split rows": (lambda: halves(0.01), lambda: halves(0.02)),
    "first memory": (
        lambda: optax.adagrad(0.1, initial_accumulator_value=0.1),
        lambda: optax.adagrad(0.1, initial_accumulator_value=0.2),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIMISERS)
def test_the_checkpoint_of_another_optimiser_is_refused_and_that_of_the_same_made_anew_is_not(tmp_path, name):
    make, other = OPTIMISERS[name]

    def go_on(optimiser):
        row, data = Line(jnp.zeros(2), jnp.ones(2)), (X[:2], X[:2])
        return train(row, NoisyLeastSquares(), data, optimiser, 1, key=jax.random.key(0), checkpoint=tmp_path)

    first = go_on(make())
    assert go_on(make()).history == first.history
    with pytest.raises(ValueError, match="holds a training with another optimiser;"):
        go_on(other())


class Scaled(NoisyLeastSquares):
    """A rule with a plain number and a function, neither of which is an array."""

    strength: float = 0.1
    shape: Callable = eqx.field(static=True, default=jnp.square)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda: Scaled(0.1), lambda: Scaled(0.3)),
        (lambda: Scaled(shape=lambda x: 0.1 * x), lambda: Scaled(shape=lambda x: 0.2 * x)),
        (lambda: Scaled(shape=decay(0.1)), lambda: Scaled(shape=decay(0.2))),
    ],
    ids=["number", "lambda", "closure"],
)
def test_the_checkpoint_of_another_rule_is_refused(tmp_path, one, other):
    def again(rule, steps):
        return train(START, rule, (X, 3 * X), OPTIMISER, steps, key=jax.random.key(0), chunk=1, checkpoint=tmp_path)

    again(one(), 1)
    assert len(again(one(), 2).history) == 2
    with pytest.raises(ValueError, match="holds a training with another rule"):
        again(other(), 3)


@pytest.mark.parametrize("chunk", [5, 20])
def test_a_leaf_that_is_not_finite_is_named(chunk):
    class Broken(NoisyLeastSquares):
        def gradient(self, substrate, inputs, targets, *, key):
            metrics, gradient = super().gradient(substrate, inputs, targets, key=key)
            return metrics, eqx.tree_at(
                lambda g: g.offset, gradient, jnp.where(substrate.slope > 0.35, jnp.nan, gradient.offset)
            )

    roles = ("weight", "device")
    with pytest.raises(DivergedError, match=r"leaf \.offset is not finite after step 4"):
        train(START, Broken(), (X, 3 * X), optax.adam(0.1), 20, key=jax.random.key(0), trained=roles, chunk=chunk)


@pytest.mark.parametrize("chunk", [1, 5])
def test_what_breaks_at_once_is_not_blamed_on_the_learning_rate(chunk):
    """A gradient that overflows in the first step does so whatever the learning rate."""

    class Overflowing(NoisyLeastSquares):
        def gradient(self, substrate, inputs, targets, *, key):
            metrics, gradient = super().gradient(substrate, inputs, targets, key=key)
            return metrics, eqx.tree_at(lambda g: g.slope, gradient, jnp.nan * gradient.slope)

    def fails(rule, start=START, targets=3 * X):
        with pytest.raises(DivergedError) as caught:
            train(start, rule, (X, targets), OPTIMISER, 5, key=jax.random.key(0), chunk=chunk)
        return str(caught.value)

    words = fails(Overflowing())
    assert words.startswith(r"leaf .slope is not finite after step 0; the loss or its gradient overflows")
    assert "double precision" in words
    assert "learning rate" not in words
    assert "loss is not finite at step 0; the loss or its" in fails(NoisyLeastSquares(), Line(jnp.array(1e200), X[0]))

    class Late(Overflowing):
        def gradient(self, substrate, inputs, targets, *, key):
            metrics, gradient = super().gradient(substrate, inputs, targets, key=key)
            slope = jnp.where(substrate.slope > 0.15, jnp.nan, -1.0)
            return metrics, eqx.tree_at(lambda g: g.slope, gradient, slope)

    assert "leaf .slope is not finite after step 2; lower the learning rate" in fails(Late())
    wild = (3 * X).at[0].set(-1e9)
    assert "after step 2; targets reach 1e+09 in magnitude: scale them to about 1" in fails(Late(), targets=wild)


@pytest.mark.parametrize(
    ("inputs", "targets", "message"),
    [
        (jnp.ones(105), jnp.ones(102), "inputs holds 105 examples, targets 102; both must .* equally many"),
        (jnp.ones((3, 2)), jnp.ones(()), "inputs holds 3 examples, targets no; "),
        ({"a": jnp.ones(3), "b": jnp.ones(4)}, jnp.ones(3), "inputs holds 3 or 4 examples, targets 3; "),
        (jnp.array([1.0, jnp.nan]), jnp.ones(2), r"inputs\[1\] is nan; inputs must be finite"),
        (jnp.ones(2), jnp.array([jnp.inf, 1.0]), r"targets\[0\] is inf"),
    ],
)
def test_data_that_do_not_fit_are_refused(inputs, targets, message):
    with pytest.raises(ValueError, match=message):
        train(START, NoisyLeastSquares(), (inputs, targets), OPTIMISER, 1, key=jax.random.key(0))
    with pytest.raises(ValueError, match=r"watch\['validation'\]: " + message):
        watched_run(1, watch={"validation": (inputs, targets)})


def test_a_training_with_nothing_to_train_is_refused():
    reservoir, task = EchoStateNetwork.random(3, key=jax.random.key(0)), waveforms(16, 8, key=jax.random.key(1))
    message = "trained is .'weight',., but a EchoStateNetwork has no array with such a role.* put WithReadout.random"
    with pytest.raises(ValueError, match=message):
        train(reservoir, Backpropagation(), task, OPTIMISER, 1, key=jax.random.key(0))


def test_of_a_task_the_training_part_is_learned_and_the_test_part_is_watched():
    task = waveforms(16, 8, key=jax.random.key(1))
    network = WithReadout.random(EchoStateNetwork.random(3, key=jax.random.key(0)), 1, key=jax.random.key(2))
    by_task = train(network, Backpropagation(), task, OPTIMISER, 2, key=jax.random.key(0)).history
    rule, watch = Backpropagation(classification), {"test": task.test}
    by_hand = train(network, rule, task.train, OPTIMISER, 2, key=jax.random.key(0), watch=watch).history
    assert by_task == by_hand
    assert {"accuracy", "loss"} <= by_task[-1]["test"].keys()


RULELESS: Any = lambda substrate, inputs, targets: None  # noqa: E731


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: train(START, RULELESS, (X, X), OPTIMISER, 1, key=jax.random.key(0)), "rule is a function; it must"),
        (lambda: watched_run(3, batch_size=11), "batch_size is 11; it must be a whole number from 1 to 10"),
        (lambda: watched_run(3, batch_size=0), "batch_size is 0"),
        (lambda: watched_run(3, watch=None), "score is given without watch"),
        (lambda: run(0), "steps is 0; it must be a whole number >= 1"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
