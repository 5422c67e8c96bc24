"""Pehle & Wetterich, "Neuromorphic quantum computing" (2022): the figures, and ours beside."""

from morphax.experiments.spiking.completeness import Completeness as Completeness
from morphax.experiments.spiking.density_matrix import DensityMatrix as DensityMatrix
from morphax.experiments.spiking.distribution import Distribution as Distribution
from morphax.experiments.spiking.extended_map import ExtendedMap as ExtendedMap
from morphax.experiments.spiking.gates import Gates as Gates
from morphax.experiments.spiking.ghz import Ghz as Ghz
from morphax.experiments.spiking.ising_chain import IsingChain as IsingChain
from morphax.experiments.spiking.printed_training import PrintedTraining as PrintedTraining
from morphax.experiments.spiking.uniqueness import Uniqueness as Uniqueness
