"""Every built-in substrate, rule and task, in a size that is tried in a moment."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from morphax import (
    Augmented,
    Backpropagation,
    ContinuousTimeRecurrentNetwork,
    EchoStateNetwork,
    EquilibriumPropagation,
    HopfieldNetwork,
    Imperfections,
    ImplicitDifferentiation,
    InTheLoop,
    JosephsonMixer,
    LearningRule,
    MajorityVote,
    NoiseAware,
    Noisy,
    PhaseOscillators,
    QuantizedPerceptron,
    RelaxationBackpropagation,
    ReLUReservoir,
    SpikingNetwork,
    SpinTorqueReservoir,
    SpintronicNetwork,
    Substrate,
    Task,
    WithReadout,
    fitted,
    tasks,
)
from morphax.dynamics.relaxation import RungeKutta
from morphax.learning.contrastive import (
    AgnosticPropagation,
    CoupledLearning,
    FrequencyPropagation,
    HolomorphicPropagation,
)
from morphax.learning.design import ReadoutDesign
from morphax.learning.echo import HamiltonianEcho
from morphax.learning.evolution import CMAES
from morphax.learning.feedback import DirectFeedbackAlignment, FeedbackAlignment, KolenPollack, SignSymmetry
from morphax.learning.forward import ForwardForward, LocalHeads, PhysicalLocalLearning
from morphax.learning.node_perturbation import NodePerturbation
from morphax.learning.online import (
    EligibilityPropagation,
    RandomFeedbackLocalOnline,
    RealTimeRecurrentLearning,
    SparseApproximation,
)
from morphax.learning.recursive_least_squares import RecursiveLeastSquares
from morphax.learning.shift import AngleShift, ScoreFunction
from morphax.learning.zeroth_order import ForwardGradient, ZerothOrder
from morphax.substrates.layered import OscillatorLayers
from morphax.substrates.quantized import NoisyPerceptron
from morphax.substrates.reversible import NonlinearLattice
from morphax.substrates.topology import Topology
from morphax.testing import decide

KEY = jax.random.key(11)
CHIP = Imperfections(weight_mismatch=0.05, device_mismatch=0.05)

SUBSTRATES: dict[str, Callable[[], Substrate]] = {
    "josephson": lambda: JosephsonMixer.two_mode(measured=4),
    "josephson, Fock states": lambda: JosephsonMixer.two_mode(measured=4, levels=2, method="fock"),
    "spintronic": lambda: SpintronicNetwork.random((3, 2), key=KEY),
    "ctrnn": lambda: ContinuousTimeRecurrentNetwork.random((3, 2), key=KEY),
    "echo-state": lambda: EchoStateNetwork.random(4, key=KEY),
    "relu": lambda: ReLUReservoir.random(4, key=KEY),
    "spin-torque": lambda: SpinTorqueReservoir.random(4, key=KEY),
    "phase-oscillators": lambda: PhaseOscillators.layered((2, 3, 1), bias_scale=0.3, key=KEY),
    "hopfield": lambda: HopfieldNetwork(
        [0.3 * jnp.ones((3, 2)), 0.2 * jnp.eye(2, 3)], [0.3 * jnp.ones(3), 0.4 * jnp.ones(2)]
    ),
    "quantized": lambda: QuantizedPerceptron.random((3, 4, 4, 2), width=0.4, strength=1.2, key=KEY),
    "noisy perceptron": lambda: NoisyPerceptron.random((3, 4, 2), noise=0.3, key=KEY),
    "spiking": lambda: SpikingNetwork.random(4, 3, steps_per_input=2, key=KEY),
    "spiking, one step an input": lambda: SpikingNetwork.random(4, 3, input_mean=1.0, key=KEY),
    "spiking, Poisson inputs": lambda: SpikingNetwork.random(4, 3, input_rate=0.3, steps_per_input=2, key=KEY),
    "oscillator layers": lambda: OscillatorLayers.random((3, 4, 3, 2), key=KEY),
    "lattice": lambda: NonlinearLattice.random(
        Topology.lattice((2, 3), inputs=[0, 3], outputs=[2, 5]), duration=2.0, key=KEY
    ),
    "noisy spintronic": lambda: Noisy(SpintronicNetwork.random((3, 2), key=KEY), 0.01),
    "noisy phase-oscillators": lambda: Noisy(PhaseOscillators.layered((2, 3, 1), key=KEY), 0.01),
}


@dataclass(frozen=True)
class Laboratory:
    """A device behind a Python function: it answers with the right number of numbers, which its weights move."""

    shape: tuple[int, ...]

    def __call__(self, weights: Any, inputs: np.ndarray) -> np.ndarray:
        asked = sum(np.sum(leaf) for leaf in jax.tree.leaves(weights))
        # Not all alike: of classes that are equally likely a loss knows nothing.
        answer = 0.25 + 0.01 * np.sin(asked + np.arange(np.prod(self.shape))).reshape(self.shape)
        return np.tile(answer, (len(inputs), *(1 for _ in self.shape)))


RULES: dict[str, Callable[[Task], LearningRule]] = {
    "Backpropagation": lambda task: Backpropagation(),
    "EquilibriumPropagation": lambda task: EquilibriumPropagation(),
    "ImplicitDifferentiation": lambda task: ImplicitDifferentiation(),
    "RelaxationBackpropagation": lambda task: RelaxationBackpropagation(relaxer=RungeKutta(duration=2.0)),
    "NoiseAware(Backpropagation)": lambda task: NoiseAware(Backpropagation(), CHIP),
    "NoiseAware(EquilibriumPropagation)": lambda task: NoiseAware(EquilibriumPropagation(), CHIP),
    "InTheLoop(Backpropagation, chip)": lambda task: InTheLoop(Backpropagation(), CHIP, key=KEY),
    "InTheLoop(Backpropagation, laboratory)": lambda task: InTheLoop(
        Backpropagation(), Laboratory(task.train[1].shape[1:])
    ),
    "MajorityVote(Backpropagation)": lambda task: MajorityVote(Backpropagation(), shots=3),
    "Augmented(Backpropagation)": lambda task: Augmented(Backpropagation(), lambda inputs, key: 0.9 * inputs),
    "ZerothOrder": lambda task: ZerothOrder(Backpropagation(), directions=2),
    "ZerothOrder(EquilibriumPropagation)": lambda task: ZerothOrder(EquilibriumPropagation()),
    "ZerothOrder(InTheLoop(Backpropagation, laboratory))": lambda task: ZerothOrder(
        InTheLoop(Backpropagation(), Laboratory(task.train[1].shape[1:])), spread=0.1
    ),
    "ForwardGradient": lambda task: ForwardGradient(Backpropagation()),
    "CMAES": lambda task: CMAES(Backpropagation(), population=6),
    "NodePerturbation": lambda task: NodePerturbation(),
    "FeedbackAlignment": lambda task: FeedbackAlignment(key=KEY),
    "DirectFeedbackAlignment": lambda task: DirectFeedbackAlignment(key=KEY, slope=jnp.cos),
    "SignSymmetry": lambda task: SignSymmetry(),
    "KolenPollack": lambda task: KolenPollack(KEY),
    "LocalHeads": lambda task: LocalHeads(KEY),
    "ForwardForward": lambda task: ForwardForward(max(task.outputs, 2)),
    "PhysicalLocalLearning": lambda task: PhysicalLocalLearning(max(task.outputs, 2)),
    "EquilibriumPropagation, four-point": lambda task: EquilibriumPropagation(strength=0.01, nudging="four-point"),
    "CoupledLearning": lambda task: CoupledLearning(),
    "HolomorphicPropagation": lambda task: HolomorphicPropagation(),
    "FrequencyPropagation": lambda task: FrequencyPropagation(period=10.0),
    "AgnosticPropagation": lambda task: AgnosticPropagation(),
    "HamiltonianEcho": lambda task: HamiltonianEcho(),
    "RealTimeRecurrentLearning": lambda task: RealTimeRecurrentLearning(),
    "SparseApproximation": lambda task: SparseApproximation(KEY),
    "EligibilityPropagation": lambda task: EligibilityPropagation(KEY),
    "RandomFeedbackLocalOnline": lambda task: RandomFeedbackLocalOnline(KEY),
    "RecursiveLeastSquares": lambda task: RecursiveLeastSquares(),
    "ScoreFunction": lambda task: ScoreFunction(shots=4),
    "AngleShift": lambda task: AngleShift(shots=2, neurons=4),
    "ReadoutDesign": lambda task: ReadoutDesign(shots=100.0),
}


def _small(task: Task, points: int = 6) -> Task:
    """The first rows of a task."""
    parts = {f"{part}_{what}": getattr(task, f"{part}_{what}")[:points] for part in ("train", "test") for what in WHAT}
    return Task(**parts, kind=task.kind, arrangement=task.arrangement)


WHAT = ("inputs", "targets")

TASKS: dict[str, Callable[[], Task]] = {
    "waveforms": lambda: _small(tasks.waveforms(80, 80, key=KEY), 8),
    "mackey_glass": lambda: _small(tasks.mackey_glass(train_points=50, test_points=10, washout=0, key=KEY)),
    "lorenz": lambda: _small(tasks.lorenz(train_points=50, test_points=10, washout=0, key=KEY)),
    "linear_memory": lambda: _small(tasks.linear_memory(train_points=200, test_points=10, key=KEY)),
    "narma": lambda: _small(tasks.narma(train_points=200, test_points=10, key=KEY)),
    "sunspots": lambda: _small(tasks.forecast(tasks.sunspots()[1])[0]),
    "sequential_digits": lambda: _small(tasks.sequential_digits(key=KEY)),
    "phase_digits": lambda: _small(tasks.phase_digits()),
    "mnist": lambda: _small(tasks.mnist(6, 6)),
    "xor": tasks.xor,
}

# The lines by which a task reaches a rule that does not take it as it is.
VIEWS: tuple[Callable[[Task], Task], ...] = (
    lambda task: task,
    tasks.as_labels,
    tasks.as_vectors,
    lambda task: tasks.as_vectors(tasks.windows(task, 3)),
)


class Cell(NamedTuple):
    """A rule, a substrate with the input layer and the readout that fit a task, the task, and the view that it took."""

    rule: LearningRule
    substrate: Substrate
    task: Task
    view: Callable[[Task], Task]


@cache
def _of_its_kind(rule: str, name: str) -> bool:
    """Whether a rule admits a substrate at all, with or without a readout: most refusals are of this kind."""
    bare, task = SUBSTRATES[name](), TASKS["phase_digits"]()
    both = bare, WithReadout.random(bare, 2, key=KEY)
    return any(RULES[rule](task).fits(substrate) for substrate in both)


def admitted(rule: str, name: str, task: Task) -> Cell | None:
    """One cell through the first view of a task that the rule admits; None where it refuses all."""
    if not _of_its_kind(rule, name):
        return None
    for view in VIEWS:
        try:
            seen = view(task)
        except ValueError:
            continue
        cell = Cell(RULES[rule](seen), fitted(SUBSTRATES[name](), seen, key=KEY), seen, view)
        if decide(cell.rule, cell.substrate, seen) is None:
            return cell
    return None
