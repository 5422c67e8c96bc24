"""A training's rows as arrays: nothing is moved, lost or made up."""

import jax
import numpy as np
import optax
import pytest

from morphax import WithReadout
from morphax.learning.backprop import Backpropagation
from morphax.learning.ensemble import make_members
from morphax.learning.history import History
from morphax.learning.train import train
from morphax.substrates.reservoirs import EchoStateNetwork

KEY = jax.random.key(0)


def trained(ensemble: bool) -> History:
    """Seven steps of readouts behind reservoirs, judged on two sets after 3, 6 and 7 of them."""

    def make(key):
        return WithReadout.random(EchoStateNetwork.random(4, key=key), 2, key=key)

    inputs, targets = jax.random.normal(KEY, (8, 3)), jax.nn.one_hot(np.arange(8) % 2, 2)
    watch = {"validation": (inputs[:4], targets[:4]), "test": (inputs[4:], targets[4:])}
    network = make_members(make, KEY, 3) if ensemble else make(KEY)
    rule, optimiser = Backpropagation(), optax.sgd(0.1)
    rows = train(
        network, rule, (inputs, targets), optimiser, 7, key=KEY, watch=watch, chunk=3, ensemble=ensemble
    ).history
    return History(list(rows))


@pytest.mark.slow
@pytest.mark.parametrize("ensemble", [False, True])
def test_arrays_hold_the_numbers_of_the_rows(ensemble):
    history = trained(ensemble)
    assert history.steps.tolist() == [3, 6, 7]
    members = (3,) if ensemble else ()
    assert history.metric("loss").shape == (7, *members)
    assert history.metric("loss")[4].tolist() == history[4]["loss"]
    for name in ("validation", "test"):
        watched = history.watched(name)
        assert watched.keys() == history[-1][name].keys()
        assert watched["loss"].shape == (3, *members)
        assert [row.tolist() for row in watched["loss"]] == [history[step - 1][name]["loss"] for step in history.steps]


def test_a_metric_keeps_its_own_axes_behind_the_members():
    matrix = np.arange(12.0).reshape(3, 2, 2)
    history = History([{"loss": [1.0] * 3, "test": {"confusion": matrix.tolist()}}] * 5)
    assert history.watched("test")["confusion"].shape == (5, 3, 2, 2)
    assert np.array_equal(history.watched("test")["confusion"][4], matrix)


def test_a_history_is_a_sequence_of_rows():
    rows = [{"loss": float(step)} for step in range(5)]
    history = History(rows)
    assert len(history) == 5
    assert list(history) == rows
    assert history[1:3] == History(rows[1:3])
    assert history.steps.tolist() == []


def test_what_was_not_noted_is_refused_by_name():
    history = History([{"loss": 1.0, "test": {"accuracy": 0.5}}])
    with pytest.raises(ValueError, match="name is 'validation'; it must be one of 'test'"):
        history.watched("validation")
    with pytest.raises(ValueError, match="name is 'test'; it must be one of 'loss'"):
        history.metric("test")
