"""What a rule announces of its questions to a device is what the device is shown."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from morphax import (
    CMAES,
    AgnosticPropagation,
    AngleShift,
    Asked,
    Backpropagation,
    ContinuousTimeRecurrentNetwork,
    CoupledLearning,
    DirectFeedbackAlignment,
    EchoStateNetwork,
    EligibilityPropagation,
    EquilibriumPropagation,
    FeedbackAlignment,
    ForwardForward,
    HamiltonianEcho,
    InTheLoop,
    KolenPollack,
    LocalHeads,
    NodePerturbation,
    NoiseAware,
    NonlinearLattice,
    OscillatorLayers,
    PhaseOscillators,
    PhysicalLocalLearning,
    QuantizedPerceptron,
    RandomFeedbackLocalOnline,
    RecursiveLeastSquares,
    ScoreFunction,
    SignSymmetry,
    SparseApproximation,
    WithReadout,
    Wrapper,
    ZerothOrder,
)
from morphax.dynamics.relaxation import BlockSweeps
from morphax.learning import regression
from morphax.substrates.imperfections import Imperfections
from morphax.substrates.topology import Topology

KEY = jax.random.key(0)
EXAMPLES = 4
LABELS = jnp.eye(2)[jnp.arange(EXAMPLES) % 2]
SHOWN: list[int] = []


def seen(_) -> None:
    SHOWN.append(1)


def asked(rule, substrate, inputs, targets) -> tuple[Asked, int]:
    """What is announced of a gradient, and how often the device was shown something."""
    SHOWN.clear()
    metrics = eqx.filter_jit(rule.gradient)(substrate, inputs, targets, key=KEY)[0]
    jax.effects_barrier()
    announced = rule.cost(len(inputs))
    assert all(metrics[name] == number for name, number in announced._asdict().items())
    return announced, len(SHOWN)


class Layers(OscillatorLayers):
    def respond(self, layer, fed, *, key=None):
        if layer == 0:
            jax.debug.callback(seen, fed)
        return super().respond(layer, fed, key=key)


@pytest.mark.slow
@pytest.mark.parametrize(
    "rule",
    [
        ZerothOrder(Backpropagation(), directions=2),
        ZerothOrder(Backpropagation(), directions=3, sampling="one-sided"),
        ZerothOrder(Backpropagation(), each_example=True),
        NoiseAware(ZerothOrder(Backpropagation()), Imperfections(device_mismatch=0.1)),
        CMAES(Backpropagation(), population=6),
        NodePerturbation(directions=3),
        FeedbackAlignment(key=KEY, slope=jnp.cos),
        DirectFeedbackAlignment(key=KEY, slope=jnp.cos),
        SignSymmetry(slope=jnp.cos),
        KolenPollack(KEY, slope=jnp.cos),
        LocalHeads(KEY, slope=jnp.cos),
        ForwardForward(2, slope=jnp.cos),
        ForwardForward(2, slope=jnp.cos, wrong="likely"),
        PhysicalLocalLearning(2),
    ],
    ids=lambda rule: type(rule).__name__,
)
def test_of_layers(rule):
    labels = 2 if isinstance(rule, ForwardForward | PhysicalLocalLearning) else 0
    layers = Layers.random((3 + labels, 4, 2), key=KEY)
    announced, shown = asked(rule, layers, jnp.ones((EXAMPLES, 3)), LABELS)
    assert announced.presentations == shown
    SHOWN.clear()
    eqx.filter_jit(rule.metrics)(layers, jnp.ones((EXAMPLES, 3)), LABELS, key=KEY)
    jax.effects_barrier()
    assert rule.cost_of_metrics(EXAMPLES).presentations == len(SHOWN)


class Counted(Wrapper):
    """What is inside, one input after the other."""

    def stepper(self):
        step = self.substrate.stepper()

        def counted(state, drive, *, key=None):
            jax.debug.callback(seen, drive)
            return step(state, drive, key=key)

        return counted


@pytest.mark.slow
@pytest.mark.parametrize(
    "rule",
    [
        EligibilityPropagation(KEY),
        RandomFeedbackLocalOnline(KEY),
        SparseApproximation(KEY),
        NodePerturbation(directions=2),
        ZerothOrder(Backpropagation()),
        RecursiveLeastSquares(),
    ],
    ids=lambda rule: type(rule).__name__,
)
def test_of_networks_that_evolve(rule):
    inner = ContinuousTimeRecurrentNetwork.random((4,), key=KEY)
    if isinstance(rule, RecursiveLeastSquares):
        inner = EchoStateNetwork.random(4, key=KEY)
    network = WithReadout.random(Counted(inner), 2, key=KEY)
    announced, shown = asked(rule, network, jnp.ones((EXAMPLES, 5)), LABELS)
    assert announced.presentations * 5 == shown


class Oscillators(PhaseOscillators):
    def found(self, state, *, key=None):
        jax.debug.callback(seen, state)
        return super().found(state, key=key)


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [
        partial(EquilibriumPropagation, initial_states=2),
        partial(EquilibriumPropagation, nudging="symmetric"),
        partial(EquilibriumPropagation, nudging="four-point"),
        CoupledLearning,
        partial(AgnosticPropagation, rounds=2),
    ],
)
def test_of_energy_substrates(make):
    network = Oscillators.all_to_all(2, 2, 1, key=KEY)
    rule = make(relaxer=BlockSweeps(1e-3, 100))
    announced, shown = asked(rule, network, jnp.ones((EXAMPLES, 2)), jnp.ones((EXAMPLES, 1)))
    assert announced.presentations == shown


class Lattice(NonlinearLattice):
    def path(self, state, drive, damping):
        jax.debug.callback(seen, state.position)
        return super().path(state, drive, damping)


@pytest.mark.slow
@pytest.mark.parametrize("kicks", ["symmetric", "one-sided"])
def test_of_echoes(kicks):
    topology = Topology.lattice((2, 2), inputs=[0, 2], outputs=[1, 3])
    lattice = Lattice.random(topology, duration=1.0, key=KEY)
    rule = HamiltonianEcho(kicks=kicks, objective=regression)
    announced, shown = asked(rule, lattice, jnp.ones((EXAMPLES, 3, 2)), LABELS)
    assert announced.presentations * 3 == shown


class Qubits(QuantizedPerceptron):
    def shot(self, drive, *, key, shifts=None):
        jax.debug.callback(seen, jax.random.key_data(key))
        return super().shot(drive, key=key, shifts=shifts)


@pytest.mark.slow
@pytest.mark.parametrize(
    "rule", [ScoreFunction(shots=3), AngleShift(shots=2, neurons=3)], ids=lambda rule: type(rule).__name__
)
def test_of_qubits(rule):
    network = Qubits.random((3, 4, 2), width=0.5, key=KEY)
    announced, shown = asked(rule, network, jnp.ones((EXAMPLES, 3)), LABELS)
    assert announced.presentations == shown


def laboratory(weights, inputs: np.ndarray) -> np.ndarray:
    SHOWN.extend([1] * len(inputs))
    return np.tanh(inputs @ weights.weights[0].T[:, :2])


LOOP = InTheLoop(Backpropagation(), laboratory)


@pytest.mark.parametrize(
    "rule",
    [
        LOOP,
        CMAES(LOOP, population=4),
    ],
    ids=lambda rule: type(rule).__name__,
)
def test_of_a_python_function(rule):
    layers = OscillatorLayers.random((3, 4, 2), key=KEY)
    announced, shown = asked(rule, layers, jnp.ones((EXAMPLES, 3)), LABELS)
    assert announced.presentations == shown
