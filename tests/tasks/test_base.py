"""What a task is, its pairs in all arrangements, and the views between them."""

import math
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from morphax import EchoStateNetwork, Task, WithReadout, answer, evolve, predict, read_task
from morphax.tasks import as_labels, as_phases, as_sequences, as_vectors, held, one_hot, waveforms, windows, xor

KEY = jax.random.key(0)


def stream(train=10, test=6, washout=0, channels=None, **rest) -> Task:
    """Inputs 0, 1, 2, ... and targets 100, 101, 102, ...: every point can be told."""
    numbers = jnp.arange(train + test, dtype=float)
    inputs = numbers if channels is None else numbers[:, None] + 1000 * jnp.arange(channels)
    targets = 100 + numbers[:, None]
    parts = (inputs[:train], targets[:train], inputs[train:], targets[train:])
    return Task(*parts, kind="regression", **{"washout": washout, **rest})


def sequences(examples=4, time=3, channels: int | None = 2, outputs_in_time=False) -> Task:
    shape = (examples + 1, time) if channels is None else (examples + 1, time, channels)
    inputs = jnp.arange(math.prod(shape), dtype=float).reshape(shape)
    targets = jnp.arange((examples + 1) * time, dtype=float).reshape(examples + 1, time, 1)
    targets = targets if outputs_in_time else targets[:, -1]
    parts = (inputs[:-1], targets[:-1], inputs[-1:], targets[-1:])
    return Task(*parts, kind="regression", arrangement="sequences")


def shapes(task: Task) -> list:
    return [x.shape for x in (*task.train, *task.test)]


@pytest.mark.parametrize(
    ("task", "expected", "channels"),
    [
        (stream(), [(1, 10, 1), (1, 10, 1), (1, 16, 1), (1, 6, 1)], 1),
        (stream(washout=4), [(1, 10, 1), (1, 6, 1), (1, 16, 1), (1, 6, 1)], 1),
        (stream(channels=3, washout=4), [(1, 10, 3), (1, 6, 1), (1, 16, 3), (1, 6, 1)], 3),
        (sequences(), [(4, 3, 2), (4, 1), (1, 3, 2), (1, 1)], 2),
        (sequences(channels=None), [(4, 3, 1), (4, 1), (1, 3, 1), (1, 1)], 1),
        (sequences(outputs_in_time=True), [(4, 3, 2), (4, 3, 1), (1, 3, 2), (1, 3, 1)], 2),
        (xor(), [(4, 1, 2), (4, 1), (4, 1, 2), (4, 1)], 2),
    ],
)
def test_pairs_are_examples_time_channels(task, expected, channels):
    assert shapes(task) == expected
    assert (task.channels, task.outputs) == (channels, 1)


def test_of_a_stream_targets_belong_to_the_last_points():
    task = stream(washout=4)
    for inputs, targets in (task.train, task.test):
        np.testing.assert_array_equal(targets[0], 100 + inputs[0, -targets.shape[1] :])
    assert task.test[1][0, 0] == 110


@pytest.mark.slow
@pytest.mark.parametrize("washout", [0, 5])
def test_a_stream_is_judged_at_the_points_that_a_readout_reads(washout):
    """`read_task` drives a reservoir through all points in one go; so does the pair to be judged by."""
    task = waveforms(24, 16, washout=washout, key=KEY)
    reservoir = EchoStateNetwork.random(8, key=KEY)
    outputs, readout = answer(read_task(reservoir, task), task, ridge=1e-3)
    network = WithReadout(reservoir, readout.weights, readout.bias)
    np.testing.assert_allclose(predict(network, task), outputs, atol=1e-5)
    inputs, targets = task.train
    answers = evolve(network, inputs[0])[0][-targets.shape[1] :]
    np.testing.assert_allclose(answers, readout(read_task(reservoir, task).train), atol=1e-5)


def test_an_ensemble_of_tasks_is_one_vmap():
    many = jax.vmap(lambda key: waveforms(16, 8, key=key))(jax.random.split(KEY, 3))
    assert many.train_inputs.shape == (3, 16)
    assert many.kind == "classification"


# Views.


def test_windows_end_at_every_scored_point_and_hold_what_came_before():
    task = stream(washout=5)
    cut = windows(task, 3)
    assert cut.arrangement == "sequences"
    assert cut.washout == 0
    np.testing.assert_array_equal(cut.train_inputs, [[n - 2, n - 1, n] for n in range(5, 10)])
    np.testing.assert_array_equal(cut.test_inputs, [[n - 2, n - 1, n] for n in range(10, 16)])
    for inputs, targets in ((cut.train_inputs, cut.train_targets), (cut.test_inputs, cut.test_targets)):
        np.testing.assert_array_equal(targets[:, 0], 100 + inputs[:, -1])


@pytest.mark.slow
def test_windows_without_washout_begin_where_they_are_full_and_may_be_sparse():
    cut = windows(stream(channels=2), 4, every=3)
    np.testing.assert_array_equal(cut.train_inputs[:, -1, 0], [3, 6, 9])
    np.testing.assert_array_equal(cut.test_inputs[:, -1, 0], [10, 13])
    assert cut.train_inputs.shape == (3, 4, 2)
    np.testing.assert_array_equal(windows(stream(), 1).train_inputs[:, 0], range(10))
    assert len(windows(stream(), 10).train_inputs) == 1
    assert len(windows(stream(washout=9), 3).train_inputs) == 1


@pytest.mark.parametrize("every", [1, 2])
def test_no_window_to_learn_from_holds_a_point_or_a_target_of_the_test_part(every):
    cut = windows(stream(washout=2), 4, every=every)
    assert cut.train_inputs.max() < 10
    assert cut.train_targets.max() < 110
    assert cut.test_targets.min() == 110


@pytest.mark.slow
def test_windows_score_what_the_stream_scores():
    """A reservoir that remembers fewer points than a window holds answers alike."""
    task = waveforms(16, 8, key=KEY)
    network = WithReadout.random(EchoStateNetwork.random(5, spectral_radius=0.1, leak_rate=0.99, key=KEY), 1, key=KEY)
    np.testing.assert_allclose(predict(network, windows(task, 9)), predict(network, task), atol=1e-5)


def test_vectors_are_held_or_come_number_by_number_or_all_at_once():
    task = xor()
    longer = held(task, 3)
    assert longer.train_inputs.shape == (4, 3, 2)
    assert (longer.train_inputs == task.train_inputs[:, None]).all()
    line = as_sequences(task)
    assert (line.arrangement, line.channels) == ("sequences", 1)
    np.testing.assert_array_equal(line.train[0][..., 0], task.train_inputs)
    back = as_vectors(line)
    assert back.arrangement == "inputs"
    for name in ("train_inputs", "train_targets", "test_inputs", "test_targets"):
        np.testing.assert_array_equal(getattr(back, name), getattr(task, name))


def test_sequences_as_vectors_are_flat_and_keep_the_last_target():
    task = sequences(outputs_in_time=True)
    flat = as_vectors(task)
    np.testing.assert_array_equal(flat.train_inputs, task.train_inputs.reshape(4, 6))
    np.testing.assert_array_equal(flat.train_targets, task.train_targets[:, -1])
    assert as_vectors(sequences(channels=None)).train_inputs.shape == (4, 3)
    other = replace(sequences(), test_inputs=jnp.ones((1, 5, 2)))
    with pytest.raises(ValueError, match="test_inputs holds 10 numbers an example, train_inputs 6"):
        as_vectors(other)


def test_phases_fill_half_the_circle_and_labels_come_back():
    task = waveforms(16, 8, key=KEY)
    phases = as_phases(task)
    quarter = np.pi / 2
    np.testing.assert_allclose(phases.train_inputs, quarter * np.asarray(task.train_inputs), atol=1e-6)  # from -1 to 1
    np.testing.assert_allclose(phases.train_targets, np.where(task.train_targets > 0, quarter, -quarter), atol=1e-6)
    np.testing.assert_array_equal(as_labels(phases).train_targets, task.train_targets)
    np.testing.assert_array_equal(as_labels(phases).test_targets, task.test_targets)
    # One map for both parts: what lies beyond the range of the training part is mapped beyond it.
    beyond = as_phases(stream(train=11, test=1))
    np.testing.assert_allclose(beyond.train_inputs[jnp.array([0, 5, 10])], [-quarter, 0, quarter], atol=1e-6)
    np.testing.assert_allclose(beyond.test_inputs, 1.2 * quarter, rtol=1e-6)
    assert np.isfinite(as_phases(replace(task, train_targets=jnp.ones((16, 1)))).train_targets).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: windows(xor(), 2), "arrangement is 'inputs'; windows takes a task arranged as 'stream'"),
        (lambda: as_vectors(stream()), "as_vectors takes a task arranged as 'sequences': use windows"),
        (lambda: held(stream(), 2), "held takes a task arranged as 'inputs': use windows first"),
        (lambda: as_sequences(sequences()), "as_sequences takes a task arranged as 'inputs': use as_vectors first"),
        (lambda: as_vectors(xor()), "use held or as_sequences first"),
        (lambda: windows(stream(), 0), "length is 0; it must be a whole number from 1 to 10"),
        (lambda: windows(stream(), 11), "length is 11; it must be a whole number from 1 to 10"),
        (lambda: windows(stream(), 2, every=0), "every is 0"),
        (lambda: held(xor(), 0), "intervals is 0"),
        (lambda: as_labels(stream()), "kind is 'regression'; as_labels takes a task of kind 'classification'"),
        (lambda: one_hot(np.array([0, 3]), 3), r"labels\[1\] is 3; labels are whole numbers 0 to 2"),
    ],
)
def test_views_that_do_not_fit_are_refused_with_the_way(make, message):
    with pytest.raises(ValueError, match=message):
        make()


X, Y = jnp.ones((5, 2)), jnp.ones((5, 1))


@pytest.mark.parametrize(
    ("parts", "options", "message"),
    [
        ((X, Y, X, Y), {"kind": "ranking"}, "kind is 'ranking'; it must be one of 'classification', 'regression'"),
        ((X, Y, X, Y), {"arrangement": "examples"}, "arrangement is 'examples'; it must be one of 'stream', 'sequ"),
        ((X, Y[:4], X, Y), {}, "train_inputs has 5 rows, train_targets 4; both must have as many"),
        ((X, Y, X[:2], Y), {}, "test_inputs has 2 rows, test_targets 5"),
        ((X[:0], Y[:0], X, Y), {}, "train_inputs has 0 rows, train_targets 0; both must have as many, at least 1"),
        ((X.at[3, 1].set(jnp.nan), Y, X, Y), {}, r"train_inputs\[3, 1\] is nan"),
        ((X, Y, X, Y.at[0].set(jnp.inf)), {}, r"test_targets\[0, 0\] is inf"),
        ((X, Y[:, 0], X, Y), {}, r"train_targets has shape \(5,\); its last axis must count outputs"),
        ((X, Y, X[:, :1], Y), {}, r"test_inputs has shape \(5, 1\); one input must have shape \(2,\) as in train_inp"),
        ((X[..., None], Y, X, Y), {}, "train_inputs has shape .*; arranged as 'stream' it must have 1 or 2 axes"),
        ((X[0], Y[:2], X, Y), {"arrangement": "sequences"}, "arranged as 'sequences' it must have 2 or 3 axes"),
        (
            (X, Y, X[:, 0], Y),
            {"arrangement": "inputs"},
            r"test_inputs has shape \(5,\); arranged as 'inputs' .* 2 axes",
        ),
        ((X, Y, X, jnp.ones((5, 2))), {}, "test_targets has 2 columns, train_targets 1; both must have as many"),
        ((X[None], Y[:1], X[None, :, :1], Y[:1]), {"arrangement": "sequences"}, r"one input must have shape \(2,\)"),
        (
            (X[None], Y[None], X[None, :4], Y[None]),
            {"arrangement": "sequences"},
            "test_targets has 5 points in time; there",
        ),
        ((X, Y, X, Y), {"washout": 5}, "washout is 5; it must be a whole number from 0 to 4"),
        ((X, Y, X, Y), {"washout": -1}, "washout is -1"),
        ((X, Y, X, Y), {"washout": 1, "arrangement": "inputs"}, "washout is 1; only a stream has one"),
    ],
)
def test_what_is_no_task_is_refused_when_it_is_made(parts, options, message):
    with pytest.raises(ValueError, match=message):
        Task(*parts, **{"kind": "regression", **options})
