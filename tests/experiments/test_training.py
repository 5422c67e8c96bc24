"""A training inside a run: resumed with it, written to its history, and otherwise `train`."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from morphax import WithReadout
from morphax.experiments.training import Trainer, judged
from morphax.lab.progress import Progress
from morphax.learning.backprop import Backpropagation
from morphax.learning.ensemble import make_members
from morphax.learning.train import train
from morphax.substrates.reservoirs import EchoStateNetwork

KEY = jax.random.key(0)
RULE, OPTIMISER, STEPS = Backpropagation(), optax.sgd(0.1), 7
INPUTS, TARGETS = jax.random.normal(KEY, (8, 3)), jax.nn.one_hot(np.arange(8) % 2, 2)
DATA = (INPUTS, TARGETS)


def network(key):
    return WithReadout.random(EchoStateNetwork.random(4, key=key), 2, key=key)


def trained(progress=None, **options):
    trainer, stack = Trainer(KEY, progress or Progress()), make_members(network, KEY, 2)
    return trainer.train("a", stack, RULE, DATA, optimiser=OPTIMISER, steps=STEPS, every=3, **options)


def lines(progress: Progress, folder: Path) -> list[dict]:
    progress.finish()
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("watch", [None, {"test": (INPUTS[:4], TARGETS[:4])}])
def test_numbers_are_those_of_train(watch):
    ours = trained(watch=watch, batch_size=5)
    stack = make_members(network, KEY, 2)
    theirs = train(stack, RULE, DATA, OPTIMISER, STEPS, key=KEY, batch_size=5, watch=watch, ensemble=True, chunk=3)
    assert list(ours.history) == list(theirs.history)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool(jnp.all(a == b)), ours.last, theirs.last))


def test_one_network_is_trained_without_an_ensemble():
    trainer = Trainer(KEY, Progress())
    done = trainer.train("a", network(KEY), RULE, DATA, optimiser=OPTIMISER, steps=2, ensemble=False)
    assert done.history.metric("loss").shape == (2,)


@pytest.mark.slow
def test_a_batch_is_all_of_fewer_data():
    few, many = (trained(batch_size=size).history.metric("loss") for size in (8, 300))
    assert np.array_equal(few, many)


@pytest.mark.slow
def test_the_run_history_has_the_steps_at_which_something_was_watched(tmp_path):
    progress = Progress(history=tmp_path / "history.jsonl")
    history = trained(progress, watch={"test": DATA, "validation": DATA}).history
    assert [line["step"] + 1 for line in lines(progress, tmp_path)] == history.steps.tolist() == [3, 6, 7]
    assert [line["test"]["loss"] for line in lines(progress, tmp_path)] == history.watched("test")["loss"].tolist()


@pytest.mark.slow
def test_the_run_history_has_all_steps_where_nothing_is_watched(tmp_path):
    progress = Progress(history=tmp_path / "history.jsonl")
    history = trained(progress).history
    assert [(line["piece"], line["step"], line["loss"]) for line in lines(progress, tmp_path)] == [
        ("a", step, row["loss"]) for step, row in enumerate(history)
    ]


def test_an_interrupted_training_goes_on_and_gives_the_same_numbers(tmp_path, monkeypatch):
    whole = trained(watch={"test": DATA})
    progress = Progress(checkpoints=tmp_path)
    record = progress.record

    def interrupted(label, rows):
        record(label, rows)
        if len(rows) == 2:  # after six steps
            raise KeyboardInterrupt

    monkeypatch.setattr(progress, "record", interrupted)
    with pytest.raises(KeyboardInterrupt):
        trained(progress, watch={"test": DATA})
    assert [path.stem for path in tmp_path.glob("*/a-*/state-*")] == ["state-000000006"]
    resumed = trained(Progress(checkpoints=tmp_path), watch={"test": DATA})
    assert resumed.history == whole.history
    assert jax.tree.all(jax.tree.map(lambda a, b: bool(jnp.all(a == b)), resumed.last, whole.last))


def test_judged_is_what_the_rule_says():
    alone = network(KEY)
    assert judged(RULE, DATA, alone, KEY)["loss"].item() == pytest.approx(RULE.metrics(alone, *DATA)["loss"].item())
