"""Plouet et al., "Training a multilayer dynamical spintronic network" (2025): the figures, and ours beside them."""

from morphax.experiments.spintronic.sequential_digits import SequentialDigits as SequentialDigits  # isort: split

from morphax.experiments.spintronic.beside_ctrnn import BesideCtrnn as BesideCtrnn
from morphax.experiments.spintronic.density import Density as Density
from morphax.experiments.spintronic.dynamics import Dynamics as Dynamics
from morphax.experiments.spintronic.mismatch import Mismatch as Mismatch
from morphax.experiments.spintronic.oscillators import Oscillators as Oscillators
from morphax.experiments.spintronic.rates import Rates as Rates
from morphax.experiments.spintronic.time_scales import TimeScales as TimeScales
from morphax.experiments.spintronic.tune import Tune as Tune
