"""Barney, Lakhdar-Hamina & Galitski, "Natural quantization of neural networks" (2025): the figures, and ours beside."""

from morphax.experiments.quantized.classical import Classical as Classical  # isort: split

from morphax.experiments.quantized.better import Better as Better
from morphax.experiments.quantized.curves import Curves as Curves
from morphax.experiments.quantized.landscape import Landscape as Landscape
from morphax.experiments.quantized.noise import Noise as Noise
from morphax.experiments.quantized.outcomes import Outcomes as Outcomes
from morphax.experiments.quantized.rotation import Rotation as Rotation
from morphax.experiments.quantized.shots import Shots as Shots
from morphax.experiments.quantized.subsets import Subsets as Subsets
from morphax.experiments.quantized.weak import Weak as Weak
