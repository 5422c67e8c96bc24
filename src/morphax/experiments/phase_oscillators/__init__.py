"""Wang, Wanjura & Marquardt, "Training coupled phase oscillators" (2024): the figures, and ours beside them."""

from morphax.experiments.phase_oscillators.xor import Xor as Xor  # isort: split

from morphax.experiments.phase_oscillators.better import Better as Better
from morphax.experiments.phase_oscillators.costs import Costs as Costs
from morphax.experiments.phase_oscillators.digits import Digits as Digits
from morphax.experiments.phase_oscillators.equilibria import Equilibria as Equilibria
from morphax.experiments.phase_oscillators.frequencies import Frequencies as Frequencies
from morphax.experiments.phase_oscillators.gradient import Gradient as Gradient
from morphax.experiments.phase_oscillators.lattice import Lattice as Lattice
from morphax.experiments.phase_oscillators.linear import Linear as Linear
from morphax.experiments.phase_oscillators.noise import Noise as Noise
