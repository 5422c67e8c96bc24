"""Tasks: inputs in time order and what should be answered to each. Every function here returns a `Task`."""

from morphax.tasks.base import Task
from morphax.tasks.chaos import lorenz, mackey_glass
from morphax.tasks.memory import information_processing, legendre_products, linear_memory, narma
from morphax.tasks.series import Scaling, forecast, read_series, sunspots
from morphax.tasks.waveforms import waveforms

__all__ = [
    "Scaling",
    "Task",
    "forecast",
    "information_processing",
    "legendre_products",
    "linear_memory",
    "lorenz",
    "mackey_glass",
    "narma",
    "read_series",
    "sunspots",
    "waveforms",
]
