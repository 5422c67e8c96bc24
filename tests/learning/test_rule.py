"""What every learning rule refuses, what stands around one, and which rules fit a substrate."""

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import morphax
from morphax import (
    Backpropagation,
    EchoStateNetwork,
    EquilibriumPropagation,
    ImplicitDifferentiation,
    LearningRule,
    Noisy,
    OscillatorLayers,
    PhaseOscillators,
    SpintronicNetwork,
    WithInput,
    WithReadout,
    train,
)
from morphax.learning.objectives import classification, regression
from morphax.learning.rule import WrappedRule, described, fitting_rules

KEY = jax.random.key(0)
ESN = EchoStateNetwork.random(3, key=KEY)
READER = WithReadout.random(ESN, 2, key=KEY)
OSCILLATORS = PhaseOscillators.layered((2, 3, 1), key=KEY)
DATA = (jnp.ones((4, 5)), jnp.eye(2)[jnp.array([0, 1, 1, 0])])


class Choosy(LearningRule):
    """Admits echo-state networks only, and only the data that it likes."""

    def needs(self):
        return "an echo-state network"

    def fits(self, substrate):
        return isinstance(substrate, WithReadout) and isinstance(substrate.substrate, EchoStateNetwork)

    def metrics(self, substrate, inputs, targets, *, key):
        return {"loss": jnp.sum(substrate.weights**2)}

    def gradient(self, substrate, inputs, targets, *, key):
        return self.metrics(substrate, inputs, targets, key=key), substrate

    def check_data(self, substrate, inputs, targets):
        if len(inputs) > 4:
            raise ValueError("too many")


class Own(Choosy):
    """Refuses in its own way."""

    def check(self, substrate, data, trained=("weight",)):
        raise ValueError(f"refused, as always, {trained}")


class Around(WrappedRule):
    """Changes nothing."""


class Picky(WrappedRule):
    def check_data(self, substrate, inputs, targets):
        if len(inputs) == 4:
            raise ValueError("four is too few")


@pytest.mark.parametrize("rule", [Choosy(), Around(Choosy()), Around(Around(Choosy()))])
def test_a_rule_and_what_stands_around_it_refuse_alike(rule):
    rule.check(READER, DATA)
    refusals = {
        "Choosy needs an echo-state network; substrate is a WithReadout around a SpintronicNetwork, which .*"
        "Backpropagation.* fits": (WithReadout.random(SpintronicNetwork.random((2,), key=KEY), 2, key=KEY), DATA),
        "trained is .'setting',., but a WithReadout around a EchoStateNetwork has no array": (
            READER,
            DATA,
            ("setting",),
        ),
        "inputs holds 4 examples, targets 3": (READER, (DATA[0], DATA[1][:3])),
        r"inputs\[2, 0\] is nan": (READER, (DATA[0].at[2, 0].set(jnp.nan), DATA[1])),
        "^too many$": (READER, (jnp.ones((5, 5)), jnp.ones((5, 2)))),
    }
    for message, arguments in refusals.items():
        with pytest.raises(ValueError, match=message) as caught:
            rule.check(*arguments)
        assert "\n" not in str(caught.value)


def test_a_rule_that_refuses_in_its_own_way_does_so_inside_another_one():
    with pytest.raises(ValueError, match=r"refused, as always, .'device',."):
        Around(Own()).check(READER, DATA, ("device",))


def test_what_stands_around_a_rule_may_refuse_more():
    with pytest.raises(ValueError, match="four is too few"):
        Around(Picky(Choosy())).check(READER, DATA)


def test_what_stands_around_a_rule_takes_its_objective_from_the_task():
    twice: Any = Around(Around(Backpropagation())).suited("regression")
    assert twice.rule.rule.objective is regression
    chosen: Any = Around(Backpropagation(classification)).suited("regression")
    assert chosen.rule.objective is classification


def test_words_and_rules_that_fit():
    noisy = WithReadout.random(WithInput.random(Noisy(OSCILLATORS, 0.1), 3, key=KEY), 2, key=KEY)
    words = "a WithReadout around a WithInput around a Noisy around a PhaseOscillators"
    assert described(noisy) == words
    equilibrium = {"EquilibriumPropagation", "ImplicitDifferentiation", "RelaxationBackpropagation", "CoupledLearning"}
    # Examples of pages that ran before in this process may have left rules of their own.
    ours = [[name for name in fitting_rules(thing) if hasattr(morphax, name)] for thing in (noisy, ESN, 3)]
    assert equilibrium | {"Backpropagation", "RecursiveLeastSquares"} <= set(ours[0])
    assert ours[1:] == [["Backpropagation", "RealTimeRecurrentLearning"], []]
    layers = OscillatorLayers.random((3, 4, 2), key=KEY)
    assert {"FeedbackAlignment", "NodePerturbation", "LocalHeads"} <= set(fitting_rules(layers))


@pytest.mark.parametrize("rule", [EquilibriumPropagation(), ImplicitDifferentiation()])
def test_rules_of_energies_name_what_they_need_and_what_fits(rule):
    message = f"{type(rule).__name__} needs an energy substrate.*; substrate is a WithReadout around a EchoState"
    with pytest.raises(ValueError, match=message + "Network, which .*Backpropagation.* fits"):
        rule.check(READER, DATA)


def test_a_refusal_comes_before_anything_compiles():
    """A network that takes long to compile is refused at once."""
    network = WithReadout.random(SpintronicNetwork.random((32, 32), key=KEY), 2, key=KEY)
    inputs, targets = np.ones((50, 784), np.float32), np.full((50, 2), np.nan, np.float32)
    started = time.process_time()
    with pytest.raises(ValueError, match=r"targets.* is nan"):
        train(network, Backpropagation(), (inputs, targets), optax.sgd(0.1), 1, key=KEY)
    assert time.process_time() - started < 1


@pytest.mark.parametrize(
    ("inputs", "targets", "message"),
    [
        (
            jnp.ones((4, 5)),
            jnp.ones((4, 3)),
            "targets has 3 columns, but the substrate gives 2 outputs; put WithReadout",
        ),
        (jnp.ones((4, 5)), jnp.ones(4), r"targets has shape \(4,\); Backpropagation compares it with .* \(4, 2\)"),
        (jnp.ones((4, 5)), jnp.ones((4, 6, 2)), r"targets has shape \(4, 6, 2\); .* outputs of shape \(4, 5, 2\)"),
        (jnp.ones((4, 5, 3)), jnp.ones((4, 2)), "one input has 3 channels, .* takes 1 channel: put WithInput.random"),
        (jnp.ones(4), jnp.ones((4, 2)), r"inputs has shape \(4,\); .* one stream is one example: inputs\[None\]"),
    ],
)
def test_shapes_that_do_not_fit_are_told_at_the_boundary(inputs, targets, message):
    with pytest.raises(ValueError, match=message):
        Backpropagation(regression).check(READER, (inputs, targets))


def test_a_readout_is_asked_for_where_outputs_are_missing():
    remedy = r"put WithReadout.random\(substrate, outputs=2, key=key\) around it"
    with pytest.raises(ValueError, match=f"targets has 2 columns, but the substrate gives 3 outputs; {remedy}"):
        Backpropagation().check(SpintronicNetwork.random((2, 3), key=KEY), DATA)


def test_equilibria_answer_one_vector_each():
    energy = WithReadout.random(OSCILLATORS, 2, key=KEY)
    EquilibriumPropagation().check(energy, (jnp.ones((4, 1, 2)), DATA[1]))
    EquilibriumPropagation().check(energy, (jnp.ones((4, 2)), DATA[1]))
    with pytest.raises(ValueError, match=r"5 inputs an example; an equilibrium answers one vector: use .*as_vectors"):
        EquilibriumPropagation().check(energy, (jnp.ones((4, 5, 2)), DATA[1]))
    with pytest.raises(ValueError, match="one input has 3 channels"):
        EquilibriumPropagation().check(energy, (jnp.ones((4, 3)), DATA[1]))
