"""The names of `morphax`, each from the module that defines it."""

from morphax.lab.experiment import (
    BaseConfig as BaseConfig,
    Claim as Claim,
    Experiment as Experiment,
    parameter as parameter,
)
from morphax.learning import (
    CMAES as CMAES,
    AgnosticPropagation as AgnosticPropagation,
    AngleShift as AngleShift,
    Asked as Asked,
    Augmented as Augmented,
    Backpropagation as Backpropagation,
    CoupledLearning as CoupledLearning,
    DirectFeedbackAlignment as DirectFeedbackAlignment,
    EligibilityPropagation as EligibilityPropagation,
    EquilibriumPropagation as EquilibriumPropagation,
    FeedbackAlignment as FeedbackAlignment,
    ForwardForward as ForwardForward,
    ForwardGradient as ForwardGradient,
    FrequencyPropagation as FrequencyPropagation,
    HamiltonianEcho as HamiltonianEcho,
    HolomorphicPropagation as HolomorphicPropagation,
    ImplicitDifferentiation as ImplicitDifferentiation,
    InTheLoop as InTheLoop,
    KolenPollack as KolenPollack,
    LearningRule as LearningRule,
    LocalHeads as LocalHeads,
    MajorityVote as MajorityVote,
    NodePerturbation as NodePerturbation,
    NoiseAware as NoiseAware,
    PhysicalLocalLearning as PhysicalLocalLearning,
    RandomFeedbackLocalOnline as RandomFeedbackLocalOnline,
    Reading as Reading,
    Readout as Readout,
    RealTimeRecurrentLearning as RealTimeRecurrentLearning,
    RecursiveLeastSquares as RecursiveLeastSquares,
    RelaxationBackpropagation as RelaxationBackpropagation,
    ScoreFunction as ScoreFunction,
    SignSymmetry as SignSymmetry,
    SparseApproximation as SparseApproximation,
    ZerothOrder as ZerothOrder,
    answer as answer,
    fit_readout as fit_readout,
    make_members as make_members,
    predict as predict,
    read_task as read_task,
    train as train,
)
from morphax.pytrees import (
    DEVICE as DEVICE,
    SETTING as SETTING,
    WEIGHT as WEIGHT,
    count as count,
    perturb as perturb,
    roles as roles,
    select as select,
)
from morphax.saving import load as load, save as save
from morphax.substrates.base import Substrate as Substrate, evolve as evolve
from morphax.substrates.energy import EnergySubstrate as EnergySubstrate
from morphax.substrates.external import ExternalSubstrate as ExternalSubstrate
from morphax.substrates.hopfield import HopfieldNetwork as HopfieldNetwork
from morphax.substrates.imperfections import (
    Imperfections as Imperfections,
    Noisy as Noisy,
    mismatch as mismatch,
    quantise as quantise,
)
from morphax.substrates.josephson import JosephsonMixer as JosephsonMixer
from morphax.substrates.layered import Layered as Layered, OscillatorLayers as OscillatorLayers
from morphax.substrates.neuronwise import Neuronwise as Neuronwise
from morphax.substrates.phase_oscillators import PhaseOscillators as PhaseOscillators
from morphax.substrates.quantized import QuantizedPerceptron as QuantizedPerceptron
from morphax.substrates.recurrent import ContinuousTimeRecurrentNetwork as ContinuousTimeRecurrentNetwork
from morphax.substrates.reservoirs import (
    EchoStateNetwork as EchoStateNetwork,
    ReLUReservoir as ReLUReservoir,
    SpinTorqueReservoir as SpinTorqueReservoir,
)
from morphax.substrates.reversible import NonlinearLattice as NonlinearLattice, Reversible as Reversible
from morphax.substrates.spiking import SpikingNetwork as SpikingNetwork
from morphax.substrates.spintronic import SpintronicNetwork as SpintronicNetwork
from morphax.substrates.wrappers import (
    WithFeedback as WithFeedback,
    WithInput as WithInput,
    WithReadout as WithReadout,
    Wrapper as Wrapper,
    fitted as fitted,
)
from morphax.tasks.base import Task as Task
