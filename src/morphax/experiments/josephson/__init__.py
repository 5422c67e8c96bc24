"""Dudas et al., "Quantum reservoir neural network implementation on a Josephson mixer", and beyond it."""

from morphax.experiments.josephson.waveforms import Waveforms as Waveforms  # isort: split

from morphax.experiments.josephson.budget import Budget as Budget
from morphax.experiments.josephson.classical_forecast import ClassicalForecast as ClassicalForecast
from morphax.experiments.josephson.design import Design as Design
from morphax.experiments.josephson.forecast import Forecast as Forecast
from morphax.experiments.josephson.mackey_glass import MackeyGlass as MackeyGlass
from morphax.experiments.josephson.neurons import Neurons as Neurons
from morphax.experiments.josephson.populations import Populations as Populations
from morphax.experiments.josephson.quadratures import Quadratures as Quadratures
from morphax.experiments.josephson.rotating_wave import RotatingWave as RotatingWave
from morphax.experiments.josephson.scaling import Scaling as Scaling
from morphax.experiments.josephson.shots import Shots as Shots
