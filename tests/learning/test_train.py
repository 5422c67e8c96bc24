"""The training loop: resumption, refusals and failures."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from morphax import DEVICE, WEIGHT, LearningRule
from morphax.learning.train import DivergedError, train

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
    assert seen == [40, 50, 60]
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


def test_minibatches_visit_every_example_once_and_leave_others_over():
    history = watched_run(18, chunk=7).history  # chunks end in the middle of epochs
    orders = np.array([row["seen"] for row in history]).reshape(6, 9)  # 3 batches of 3 of 10 examples an epoch
    left_over = set()
    for order in orders:
        assert len(set(order)) == 9
        left_over |= set(range(10)) - set(order)
    assert len(left_over) > 2
    assert len({tuple(order) for order in orders}) == 6


def test_best_is_the_substrate_with_the_highest_score():
    last, history, best = watched_run(33)
    ends = [row["validation"] for row in history if "validation" in row]
    assert [step + 1 for step, row in enumerate(history) if "validation" in row] == [5, 10, 15, 20, 25, 30, 33]
    index = int(np.argmin([end["loss"] for end in ends]))
    assert 0 < index < len(ends) - 1
    assert float(best.slope) == ends[index]["slope"]
    assert float(last.slope) == ends[-1]["slope"] == history[-1]["train"]["slope"]
    np.testing.assert_allclose(ends[-1]["loss"], np.mean(((last.slope - 1.2) * np.arange(4.0) + 1) ** 2), rtol=1e-12)


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
    ],
)
def test_the_checkpoint_of_another_training_is_refused(tmp_path, other, named):
    watched_run(1, checkpoint=tmp_path)
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(ValueError, match=f"holds a training with another {named}"):
        watched_run(2, checkpoint=tmp_path, **other)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


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


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: watched_run(3, batch_size=11), "batch_size is 11; it must be a whole number from 1 to 10"),
        (lambda: watched_run(3, batch_size=0), "batch_size is 0"),
        (lambda: watched_run(3, watch=None), "score is given without watch"),
        (lambda: run(0), "steps is 0; it must be a whole number >= 1"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
