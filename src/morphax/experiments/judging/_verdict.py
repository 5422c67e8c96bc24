"""What was found about a device, in sentences."""

from __future__ import annotations

import numpy as np

from morphax._lazy import xr
from morphax.experiments.judging._pictures import number
from morphax.judging.judgement import verdict
from morphax.judging.prediction import LEADERBOARD

BETTER = 0.8
"""Of the error of a linear readout, from which on down a device is good for a task."""
MARGIN = 0.01
"""By which errors may differ by chance: two standard errors of a share of 10 % of 4,000."""
GOOD, SAME, BAD = "Good for", "No better than a linear readout of past inputs at", "Not for"


def told(device: xr.Dataset) -> list[str]:
    """The verdict on one device, warnings first."""
    lines = verdict(device, float(device.used_noise))
    if "error" in device:
        lines += _at_tasks(device)
    if "smape" in device and np.isfinite(device.smape.values).any():
        others = ", ".join(f"{name} {value:g}" for name, value in LEADERBOARD.items())
        clean, noisy = (float(device.smape.isel(measured=place).mean()) for place in (0, -1))
        constant = float(device.smape_constant.mean())
        lines.append(
            f"Foretells by itself NeuroBench's Mackey-Glass series ({device.series.values}), "
            f"{device.sizes['start']} starts each, with an sMAPE of {clean:.1f} without noise and {noisy:.1f} with "
            f"{100 * float(device.used_noise):g} % on its readings (their mean has {constant:.1f}; "
            f"NeuroBench reports, on its own files, {others}); "
            f"keeps to them for {float(device.valid_time.isel(measured=0).mean()):.1f} Lyapunov times."
        )
    if "lorenz_time" in device and np.isfinite(device.lorenz_time.values).any():
        lines.append(
            f"Foretells x of the Lorenz system for {float(device.lorenz_time.mean()):.1f} Lyapunov times, from x alone "
            f"(the solver keeps to itself for {float(device.lorenz_solver.mean()):.0f})."
        )
    if device.get("asked_at", "") and str(device.asked_at.values):
        lines.append(f"Note: the device was asked until {device.asked_at.values}.")
    if "total_spread" in device and np.isfinite(device.total_spread.values).any():
        worst = device.total_spread.dropna("spread", how="all").isel(spread=-1)
        lines.append(
            f"Of chips that are {100 * float(worst.spread):g} % off, each holds {float(worst.mean()):.1f} functions "
            f"({float(worst.min()):.1f} to {float(worst.max()):.1f})."
        )
    return lines


def _at_tasks(device: xr.Dataset) -> list[str]:
    """What it is good for: where it does clearly better than a linear readout of past inputs; where not, or worse."""
    mean = device.isel(measured=-1)[["error", "linear"]].mean("seed").dropna("task")
    told: dict[str, list[str]] = {GOOD: [], SAME: [], BAD: []}
    for name in mean.task.values:
        error, linear = float(mean.error.sel(task=name)), float(mean.linear.sel(task=name))
        kind = GOOD if error + MARGIN <= BETTER * linear else BAD if BETTER * error > linear + MARGIN else SAME
        told[kind].append(f"{name} ({number(error)}; linear {number(linear)})")
    return [f"{what} {', '.join(tasks)}." for what, tasks in told.items() if tasks]
