"""Figures and tables of judgements: every device beside the systems of this library."""

from __future__ import annotations

import numpy as np

from morphax._lazy import xr
from morphax.judging.prediction import LEADERBOARD
from morphax.judging.robustness import TRIALS
from morphax.lab.figures import BLUE, GREEN, GREY, ORANGE, RED, VIOLET, Figures, literal, new_figure

COLOURS = (BLUE, ORANGE, GREEN, RED, VIOLET, "#17a2b8", "#8c6d31", "#e377c2", "#111111", "#98a83a")
SHADES = "viridis"
SMALL = 1e-12
"""A number of which nothing but rounding is left; energies of an input are larger."""
NAMED = 6
"""Products that a table names."""
SHOWN = 20
"""Delays that are drawn."""


def drawn(dataset: xr.Dataset) -> Figures:
    """All figures that the devices have something for."""
    figures = {"capacity": _capacity(dataset), "memory and products": _overview(dataset), "noise": _noise(dataset)}
    if "error" in dataset:
        figures["tasks"] = _tasks(dataset)
    if "smape" in dataset:
        figures["free running"] = _free_running(dataset)
    if trials := [name for name in TRIALS if f"total_{name}" in dataset]:
        figures["robustness"] = _robustness(dataset, trials)
    return figures


def _capacity(dataset: xr.Dataset):
    """What each device holds, by degree and longest delay."""
    devices = [str(name) for name in dataset.device.values]
    columns = min(3, len(devices))
    rows = -(-len(devices) // columns)
    figure = new_figure(3.4 * columns + 1, 2.4 * rows + 0.4)
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True).ravel()
    degrees = dataset.degree.values
    import matplotlib as mpl

    colours = mpl.colormaps[SHADES](np.linspace(0, 0.95, len(degrees)))
    held = dataset.held.isel(noise=0)
    last = min(SHOWN, int(dataset.delay.max()))
    for place, (axis, name) in enumerate(zip(axes, devices, strict=False)):
        bottom = np.zeros(last + 1)
        for degree, colour in zip(degrees, colours, strict=True):
            values = np.maximum(held.sel(device=name, degree=degree).values, 0.0)
            shown = np.concatenate([values[:last], [values[last:].sum()]])
            axis.bar(np.arange(last + 1), shown, bottom=bottom, width=0.9, color=colour, label=f"degree {degree}")
            bottom += shown
        one = dataset.sel(device=name).isel(noise=0)
        axis.set_title(f"{literal(name)}: {float(one.total):.1f} of {float(one.readings):.0f}")
        if place % columns == 0:
            axis.set_ylabel("capacity")
        if place >= len(devices) - columns:
            axis.set_xlabel(f"longest delay ({last}: and more)" if last == SHOWN else "longest delay")
    for axis in axes[len(devices) :]:
        axis.set_visible(False)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", fontsize="small")
    return figure


def _overview(dataset: xr.Dataset):
    """Linear memory against all other capacity."""
    figure = new_figure(6.4, 4.2)
    axis = figure.subplots()
    clean = dataset.isel(noise=0)
    for place, name in enumerate(dataset.device.values):
        one = clean.sel(device=name)
        memory = float(one.memory.sum("delay"))
        label = literal(str(name))
        colour = COLOURS[place % len(COLOURS)]
        rest = float(one.total) - memory
        axis.errorbar(memory, rest, yerr=float(one.total_error), fmt="o", color=colour, label=label, capsize=3)
    axis.set_xlabel("linear memory (inputs)")
    axis.set_ylabel("capacity for products and powers")
    axis.set_xlim(left=min(-0.5, axis.get_xlim()[0]))
    axis.set_ylim(bottom=min(-0.5, axis.get_ylim()[0]))
    figure.legend(loc="outside right upper", fontsize="small")
    return figure


def _noise(dataset: xr.Dataset):
    """How many functions are left, and how many readings are independent, at noise on the readings."""
    figure = new_figure(8.5, 3.4)
    left, right = figure.subplots(1, 2, sharey=True)
    noises = dataset.noise.values
    places = np.arange(len(noises))
    for place, name in enumerate(dataset.device.values):
        one, colour = dataset.sel(device=name), COLOURS[place % len(COLOURS)]
        share = float(one.readings)
        left.plot(places, one.total / share, "o-", color=colour, label=literal(str(name)))
        right.plot(places, one.effective_dimension / share, "o-", color=colour)
    for axis, title in ((left, "capacity"), (right, "effective dimension")):
        axis.set_xticks(places, [f"{100 * noise:g} %" for noise in noises])
        axis.set_xlabel("noise on every reading, of its deviation")
        axis.set_title(title)
        axis.set_ylim(0, max(1.05, axis.get_ylim()[1]))
    left.set_ylabel("share of readings")
    figure.legend(loc="outside right upper", fontsize="small")
    return figure


def _tasks(dataset: xr.Dataset):
    """Errors at standard tasks beside the floors."""
    names = [str(name) for name in dataset.task.values]
    figure = new_figure(8.2, 0.5 * len(names) + 1.4)
    axis = figure.subplots()
    floors = dataset[["constant", "linear"]].mean("seed")
    for place, name in enumerate(names):
        for floor, style in (("constant", ":"), ("linear", "-")):
            values = floors[floor].sel(task=name).dropna("device").values.round(3)
            # Of a recording the task is another one than of a device that was asked.
            for number, value in enumerate(np.unique(values)):
                first = place == number == 0
                label = {"constant": "a constant", "linear": "linear in 50 inputs"}[floor] if first else ""
                axis.vlines(value, place - 0.4, place + 0.4, color=GREY, linestyle=style, label=label)
    count = dataset.sizes["device"]
    for number, device in enumerate(dataset.device.values):
        errors = dataset.error.sel(device=device).isel(measured=-1)
        mean, least, most = (getattr(errors, kind)("seed").values for kind in ("mean", "min", "max"))
        places = np.arange(len(names)) + (0 if count == 1 else 0.5 * (number / (count - 1) - 0.5))
        ends = np.array([mean - least, most - mean])
        colour = COLOURS[number % len(COLOURS)]
        axis.errorbar(mean, places, xerr=ends, fmt="o", color=colour, markersize=4, label=literal(str(device)))
    axis.set_yticks(np.arange(len(names)), names)
    axis.invert_yaxis()
    axis.set_xlim(left=0)
    axis.set_xlabel("error on test points (nrmse, or the share that is wrong)")
    axis.grid(visible=False, axis="y")
    figure.legend(loc="outside right upper", fontsize="small")
    return figure


def _free_running(dataset: xr.Dataset):
    """Mackey-Glass series that devices foretell by themselves, by their delay."""
    figure = new_figure(8.5, 3.4)
    left, right = figure.subplots(1, 2)
    taus = dataset.tau.values
    for place, name in enumerate(dataset.device.values):
        one, colour = dataset.sel(device=name), COLOURS[place % len(COLOURS)]
        for measured, style in ((0, "o-"), (-1, "o:")):
            part, label = one.isel(measured=measured), literal(str(name)) if measured == 0 else ""
            left.plot(taus, part.smape.mean("start"), style, color=colour, label=label, markersize=4)
            right.plot(taus, part.valid_time.mean("start"), style, color=colour, markersize=4)
    for (name, value), style in zip(LEADERBOARD.items(), ("--", ":"), strict=True):
        left.axhline(value, color=GREY, linestyle=style, label=f"NeuroBench's files: {name}")
    left.set_ylabel("sMAPE of 10 Lyapunov times (%)")
    right.set_ylabel("Lyapunov times until lost")
    right.set_title("dotted: with noise on readings", fontsize="small")
    for axis in (left, right):
        axis.set_xlabel("delay of the Mackey-Glass equation")
        axis.set_ylim(bottom=0)
    figure.legend(loc="outside right upper", fontsize="small")
    return figure


def _robustness(dataset: xr.Dataset, trials: list[str]):
    """Capacity of devices that are made, read, driven or kept less well."""
    figure = new_figure(3.0 * len(trials) + 1.6, 3.2)
    panels = figure.subplots(1, len(trials), squeeze=False)[0]
    for axis, trial in zip(panels, trials, strict=True):
        values = dataset[f"total_{trial}"]
        ticks = dataset[trial].values
        places = np.arange(len(ticks))
        for number, name in enumerate(dataset.device.values):
            one = values.sel(device=name) / float(dataset.readings.sel(device=name))
            colour = COLOURS[number % len(COLOURS)]
            chips = [dim for dim in one.dims if dim != trial]
            mean = one.mean(chips) if chips else one
            axis.plot(places, mean, "o-", color=colour, label=literal(str(name)) if trial == trials[0] else None)
            if chips:
                axis.fill_between(places, one.min(chips), one.max(chips), color=colour, alpha=0.2, linewidth=0)
        axis.set_xticks(places, [f"{tick:g}" for tick in ticks])
        axis.set_title(TRIALS[trial].text.replace(" after every input", ""), fontsize="small")
        axis.set_ylim(bottom=0)
    panels[0].set_ylabel("capacity, share of readings")
    figure.legend(loc="outside right upper", fontsize="small")
    return figure


def tables(dataset: xr.Dataset) -> dict[str, list[dict[str, str]]]:
    """One row a device; and what each holds most of."""
    rows, best = [], []
    for name in dataset.device.values:
        one = dataset.sel(device=name)
        rows.append({"device": str(name)} | _row(one))
        held = zip(one.best.values, one.best_capacity.values, strict=True)
        most = [f"{product} {capacity:.2f}" for product, capacity in held if capacity > 0.01][:NAMED]
        best.append({"device": str(name), "products with the largest capacity": ", ".join(most)})
    return {"All devices": rows, "What they hold": best}


def _row(one: xr.Dataset) -> dict[str, str]:
    clean = one.isel(noise=0)
    row = {
        "readings": f"{float(one.readings):.0f}",
        "capacity": f"{float(clean.total):.1f} ± {float(clean.total_error):.1f}",
        "linear memory": f"{float(clean.memory.sum()):.1f}",
    }
    for noise in one.noise.values[one.noise.values > 0]:
        row[f"capacity at {100 * noise:g} %"] = f"{float(one.total.sel(noise=noise)):.1f}"
    for name, title in (
        ("lyapunov", "largest exponent"),
        ("forgetting_time", "forgets in"),
        ("energy", "J an input"),
        ("operations", "operations an input"),
        ("sparsity", "connection sparsity"),
    ):
        if name in one:
            row[title] = number(float(one[name]))
    if "error" in one:
        errors = one.error.isel(measured=-1).mean("seed")
        row |= {str(task): number(float(errors.sel(task=task))) for task in one.task.values}
    if "smape" in one:
        row["Mackey-Glass, sMAPE"] = number(float(one.smape.isel(measured=-1).mean()))
    if "lorenz_time" in one:
        row["Lorenz, Lyapunov times"] = number(float(one.lorenz_time.mean()))
    return row


def number(value: float) -> str:
    """A share or an error as people write it."""
    if not np.isfinite(value):
        return "—"
    return "0" if abs(value) < SMALL else f"{value:.3g}"
