"""Devices judged: the reader's own, and the systems of this library beside each other."""

from morphax.experiments.judging.comparison import Comparison as Comparison
from morphax.experiments.judging.devices import Devices as Devices
from morphax.experiments.judging.mixer_twin import MixerTwin as MixerTwin
from morphax.experiments.judging.twin import Twin as Twin
