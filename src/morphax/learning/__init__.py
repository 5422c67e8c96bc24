"""Learning rules, what they minimise, the training loop, ensembles, readouts and metrics."""

from morphax.learning.augmentation import Augmented, InputNoise, RandomAffine
from morphax.learning.backprop import Backpropagation
from morphax.learning.contrastive import (
    AgnosticPropagation,
    CoupledLearning,
    FrequencyPropagation,
    HolomorphicPropagation,
)
from morphax.learning.echo import HamiltonianEcho
from morphax.learning.ensemble import count_members, divided, make_members, map_members, member
from morphax.learning.equilibrium import (
    EquilibriumPropagation,
    ImplicitDifferentiation,
    RelaxationBackpropagation,
    phase_classification,
)
from morphax.learning.evolution import CMAES
from morphax.learning.feedback import DirectFeedbackAlignment, FeedbackAlignment, KolenPollack, SignSymmetry
from morphax.learning.forward import ForwardForward, LocalHeads, PhysicalLocalLearning
from morphax.learning.hardware import InTheLoop, NoiseAware
from morphax.learning.history import History
from morphax.learning.metrics import accuracy, capacity, classify, nrmse, rmse
from morphax.learning.node_perturbation import NodePerturbation
from morphax.learning.objectives import CategoricalLoss, DensityMatrixLoss, classification, regression
from morphax.learning.online import (
    EligibilityPropagation,
    RandomFeedbackLocalOnline,
    RealTimeRecurrentLearning,
    SparseApproximation,
)
from morphax.learning.predict import predict
from morphax.learning.readout import Reading, Readout, answer, fit_readout, read_task
from morphax.learning.recursive_least_squares import RecursiveLeastSquares
from morphax.learning.rule import Asked, LearningRule, WrappedRule
from morphax.learning.shift import AngleShift, ScoreFunction
from morphax.learning.train import DivergedError, Trained, adjustable, train
from morphax.learning.voting import MajorityVote, vote
from morphax.learning.zeroth_order import ForwardGradient, ZerothOrder

__all__ = [
    "CMAES",
    "AgnosticPropagation",
    "AngleShift",
    "Asked",
    "Augmented",
    "Backpropagation",
    "CategoricalLoss",
    "CoupledLearning",
    "DensityMatrixLoss",
    "DirectFeedbackAlignment",
    "DivergedError",
    "EligibilityPropagation",
    "EquilibriumPropagation",
    "FeedbackAlignment",
    "ForwardForward",
    "ForwardGradient",
    "FrequencyPropagation",
    "HamiltonianEcho",
    "History",
    "HolomorphicPropagation",
    "ImplicitDifferentiation",
    "InTheLoop",
    "InputNoise",
    "KolenPollack",
    "LearningRule",
    "LocalHeads",
    "MajorityVote",
    "NodePerturbation",
    "NoiseAware",
    "PhysicalLocalLearning",
    "RandomAffine",
    "RandomFeedbackLocalOnline",
    "Reading",
    "Readout",
    "RealTimeRecurrentLearning",
    "RecursiveLeastSquares",
    "RelaxationBackpropagation",
    "ScoreFunction",
    "SignSymmetry",
    "SparseApproximation",
    "Trained",
    "WrappedRule",
    "ZerothOrder",
    "accuracy",
    "adjustable",
    "answer",
    "capacity",
    "classification",
    "classify",
    "count_members",
    "divided",
    "fit_readout",
    "make_members",
    "map_members",
    "member",
    "nrmse",
    "phase_classification",
    "predict",
    "read_task",
    "regression",
    "rmse",
    "train",
    "vote",
]
