"""Tasks: inputs and what should be answered to each. Every function here returns a `Task`."""

from morphax.tasks.base import Task, one_hot
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
    "forecast",
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
    "xor",
]
