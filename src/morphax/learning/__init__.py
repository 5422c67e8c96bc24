"""Learning rules, what they minimise, the training loop, ensembles, readouts and metrics."""

from morphax.learning.augmentation import Augmented, RandomAffine
from morphax.learning.backprop import Backpropagation
from morphax.learning.ensemble import count_members, divided, make_members, map_members, member
from morphax.learning.equilibrium import (
    EquilibriumPropagation,
    ImplicitDifferentiation,
    RelaxationBackpropagation,
    phase_classification,
)
from morphax.learning.hardware import InTheLoop, NoiseAware
from morphax.learning.history import History
from morphax.learning.metrics import accuracy, capacity, classify, nrmse, rmse
from morphax.learning.objectives import CategoricalLoss, DensityMatrixLoss, classification, regression
from morphax.learning.predict import predict
from morphax.learning.readout import Reading, Readout, answer, fit_readout, read_task
from morphax.learning.rule import LearningRule, WrappedRule
from morphax.learning.train import DivergedError, Trained, adjustable, train
from morphax.learning.voting import MajorityVote, vote

__all__ = [
    "Augmented",
    "Backpropagation",
    "CategoricalLoss",
    "DensityMatrixLoss",
    "DivergedError",
    "EquilibriumPropagation",
    "History",
    "ImplicitDifferentiation",
    "InTheLoop",
    "LearningRule",
    "MajorityVote",
    "NoiseAware",
    "RandomAffine",
    "Reading",
    "Readout",
    "RelaxationBackpropagation",
    "Trained",
    "WrappedRule",
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
