"""Tasks: inputs and what should be answered to each. Every function here returns a `Task`."""

from morphax.tasks.base import Task, as_labels, as_phases, as_sequences, as_vectors, held, one_hot, windows
from morphax.tasks.chaos import lorenz, mackey_glass
from morphax.tasks.digits import HeldOut, hold_out, phase_digits, sequential_digits
from morphax.tasks.logic import xor
from morphax.tasks.memory import information_processing, legendre_products, linear_memory, narma
from morphax.tasks.mnist import mnist
from morphax.tasks.series import Scaling, forecast, read_series, sunspots
from morphax.tasks.waveforms import waveforms

__all__ = [
    "HeldOut",
    "Scaling",
    "Task",
    "as_labels",
    "as_phases",
    "as_sequences",
    "as_vectors",
    "forecast",
    "held",
    "hold_out",
    "information_processing",
    "legendre_products",
    "linear_memory",
    "lorenz",
    "mackey_glass",
    "mnist",
    "narma",
    "one_hot",
    "phase_digits",
    "read_series",
    "sequential_digits",
    "sunspots",
    "waveforms",
    "windows",
    "xor",
]
