"""The systems of this library beside each other."""

from __future__ import annotations

import numpy as np

from morphax._lazy import xr
from morphax.experiments.judging.devices import TASKS, Devices, DevicesConfig
from morphax.judging.devices import BUILT_IN
from morphax.lab.experiment import Claim, parameter

SIZES = (16, 20, 32)
"""Of echo-state networks that have as many readings as other systems."""


def excess(dataset: xr.Dataset) -> float:
    """By how many standard errors capacities are above the number of independent readings, at most."""
    clean = dataset.isel(noise=0)
    return float(((clean.total - clean["rank"]) / np.maximum(clean.total_error, 1e-3)).max())


class Comparison(Devices):
    """The systems of this library, and echo-state networks of as many readings, judged alike.

    Every one is driven with the same independent inputs, trained on the same tasks and made worse in the same ways.
    """

    class Config(DevicesConfig):
        devices: tuple[str, ...] = parameter(
            (*BUILT_IN, *(f"echo-state neurons={size}" for size in SIZES)),
            "systems by name, and settings behind it: NAME KEY=VALUE",
            min_length=1,
            extent=True,
        )

        tasks: tuple[str, ...] = parameter(TASKS, "standard tasks", extent=True)

    name = "judging/comparison"
    quick = Devices.quick | {"devices": ("josephson", "spin-torque", "echo-state neurons=16")}
    claims = (
        Claim.within(
            "largest conditional exponent of the mixer, per input",
            -0.95,
            lambda d: d.lyapunov.sel(device="josephson"),
            source="minus half of its mean damping rate times the interval",
            tolerance=1e-3,
        ),
        Claim.within(
            "linear memory of the mixer, which is even in its input",
            0.0,
            lambda d: d.memory.isel(noise=0).sel(device="josephson").sum(),
            source="populations do not tell a drive from its negative",
            tolerance=0.1,
        ),
        Claim.at_most(
            "capacity above the number of independent readings, in standard errors, at most",
            4.0,
            excess,
            source="Dambre et al. 2012: the bound, and what chance may add to one of many",
        ),
        Claim.at_least(
            "capacity of an echo-state network of 50",
            45.0,
            lambda d: d.total.isel(noise=0).sel(device="echo-state"),
            source="50 readings of fading memory; the rest is of products that are not tried",
        ),
    )
