"""Figures and tables of judgements: every device in colour, and in grey the systems of this library beside it."""

from __future__ import annotations

from typing import Any

import numpy as np

from morphax._lazy import xr
from morphax.experiments.judging._stored import others, reduced
from morphax.judging.judgement import AT_ONCE, with_error
from morphax.judging.prediction import LEADERBOARD
from morphax.judging.robustness import TRIALS
from morphax.lab.figures import BLUE, GREEN, GREY, ORANGE, RED, VIOLET, Figures, literal, new_figure

MARKERS = "os^Dv"
COLOURS = (BLUE, ORANGE, GREEN, RED, VIOLET, "#17a2b8", "#8c6d31", "#e377c2", "#111111", "#98a83a")
SHADES = "viridis"
SMALL = 1e-12
"""A number of which nothing but rounding is left; energies of an input are larger."""
NAMED = 6
"""Products that a table names."""
SHOWN = 20
"""Delays that are drawn."""
STORED = "systems of this library"
FAINT = {"color": GREY, "alpha": 0.45, "linewidth": 0.8}


def drawn(dataset: xr.Dataset) -> Figures:
    """All figures that the devices have something for."""
    known = others(dataset)
    figures = {
        "capacity": _capacity(dataset),
        "memory-and-products": _overview(dataset, known),
        "noise": _noise(dataset, known),
    }
    if "error" in dataset:
        figures["tasks"] = _tasks(dataset, known)
    if "smape" in dataset:
        figures["free-running"] = _free_running(dataset, known)
    if trials := [name for name in TRIALS if f"total_{name}" in dataset]:
        figures["robustness"] = _robustness(dataset, trials, known)
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
            axis.tick_params(labelbottom=True)
    for axis in axes[len(devices) :]:
        axis.set_visible(False)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", fontsize="small")
    return figure


def _overview(dataset: xr.Dataset, known: xr.Dataset):
    """Linear memory against all other capacity."""
    figure = new_figure(6.8, 4.4)
    axis = figure.subplots()
    for name in known.device.values:
        one = known.sel(device=name).isel(noise=0)
        place = float(one.linear_memory), float(one.total - one.linear_memory)
        axis.plot(*place, "o", color=GREY, alpha=0.6, markersize=4)
        text = literal(str(name)).replace(" neurons=", " ")
        axis.annotate(text, place, (4, 3), textcoords="offset points", color=GREY, fontsize="x-small")
    clean = dataset.isel(noise=0)
    for place, name in enumerate(dataset.device.values):
        one = clean.sel(device=name)
        memory = float(one.linear_memory)
        label = literal(str(name))
        rest = float(one.total) - memory
        look: dict[str, Any] = _look(place) | {"linestyle": ""}
        axis.errorbar(memory, rest, yerr=float(one.total_error), **look, label=label, capsize=3)
    axis.set_xlabel("linear memory (inputs)")
    axis.set_ylabel("capacity for products and powers")
    axis.set_xlim(left=min(-0.5, axis.get_xlim()[0]))
    axis.set_ylim(bottom=min(-0.5, axis.get_ylim()[0]))
    figure.legend(loc="outside right upper", fontsize="small")
    return figure


def _noise(dataset: xr.Dataset, known: xr.Dataset):
    """How many functions are left, and how many readings are independent, at noise on the readings."""
    figure = new_figure(8.5, 3.4)
    left, right = figure.subplots(1, 2, sharey=True)
    noises = dataset.noise.values
    places = np.arange(len(noises))
    for number, one in enumerate(_each(known.reindex(noise=noises))):
        left.plot(places, one.total / one.readings, **FAINT, label=STORED if number == 0 else "")
        right.plot(places, one.effective_dimension / one.readings, **FAINT)
    for place, name in enumerate(dataset.device.values):
        one = dataset.sel(device=name)
        share = float(one.readings)
        left.plot(places, one.total / share, **_look(place), label=literal(str(name)))
        right.plot(places, one.effective_dimension / share, **_look(place))
    for axis, title in ((left, "capacity"), (right, "effective dimension")):
        axis.set_xticks(places, [f"{100 * noise:g} %" for noise in noises])
        axis.set_xlabel("noise on every reading, of its deviation")
        axis.set_title(title)
        axis.set_ylim(0, max(1.05, axis.get_ylim()[1]))
    left.set_ylabel("share of readings")
    figure.legend(loc="outside right upper", fontsize="small")
    return figure


def _tasks(dataset: xr.Dataset, known: xr.Dataset):
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
    for number, one in enumerate(_each(known.reindex(task=names)) if "error" in known else []):
        errors = one.error.isel(measured=-1).transpose("task")
        axis.plot(errors, np.arange(len(names)), "x", **FAINT, markersize=4, label=STORED if number == 0 else "")
    count = dataset.sizes["device"]
    for number, device in enumerate(dataset.device.values):
        errors = dataset.error.sel(device=device).isel(measured=-1)
        mean, least, most = (getattr(errors, kind)("seed").values for kind in ("mean", "min", "max"))
        places = np.arange(len(names)) + (0 if count == 1 else 0.5 * (number / (count - 1) - 0.5))
        ends = np.array([mean - least, most - mean])
        look = _look(number) | {"linestyle": "", "markersize": 4}
        axis.errorbar(mean, places, xerr=ends, **look, label=literal(str(device)))
    axis.set_yticks(np.arange(len(names)), names)
    axis.invert_yaxis()
    axis.set_xlim(left=0)
    axis.set_xlabel("error on test points (nrmse, or the share that is wrong)")
    axis.grid(visible=False, axis="y")
    figure.legend(loc="outside right upper", fontsize="small")
    return figure


def _free_running(dataset: xr.Dataset, known: xr.Dataset):
    """Mackey-Glass series that devices foretell by themselves, by their delay."""
    figure = new_figure(8.5, 3.4)
    left, right = figure.subplots(1, 2)
    taus = dataset.tau.values
    for number, one in enumerate(_each(known.reindex(tau=taus).isel(measured=0)) if "smape" in known else []):
        left.plot(taus, one.smape, **FAINT, label=STORED if number == 0 else "")
        right.plot(taus, one.valid_time, **FAINT)
    for place, name in enumerate(dataset.device.values):
        one = dataset.sel(device=name)
        for measured, style in ((0, "-"), (-1, ":")):
            part, label = one.isel(measured=measured), literal(str(name)) if measured == 0 else ""
            look = _look(place) | {"linestyle": style, "markersize": 4}
            left.plot(taus, part.smape.mean("start"), **look, label=label)
            right.plot(taus, part.valid_time.mean("start"), **look)
    for (name, value), style in zip(LEADERBOARD.items(), ("-.", ":"), strict=True):
        left.axhline(value, color=GREY, linestyle=style, label=f"NeuroBench's files: {name}")
    left.plot(
        taus, dataset.smape_constant.mean(("device", "measured", "start")), "k--", label="a constant", linewidth=1
    )
    left.set_ylabel("sMAPE of 10 Lyapunov times (%)")
    right.set_ylabel("Lyapunov times until lost")
    right.set_title("dotted: with noise on readings", fontsize="small")
    for axis in (left, right):
        axis.set_xlabel("delay of the Mackey-Glass equation")
        axis.set_ylim(bottom=0)
    figure.legend(loc="outside right upper", fontsize="small")
    return figure


def _robustness(dataset: xr.Dataset, trials: list[str], known: xr.Dataset):
    """Capacity of devices that are made, read, driven or kept less well."""
    figure = new_figure(3.0 * len(trials) + 1.6, 3.2)
    panels = figure.subplots(1, len(trials), squeeze=False)[0]
    for axis, trial in zip(panels, trials, strict=True):
        values = dataset[f"total_{trial}"]
        ticks = dataset[trial].values
        places = np.arange(len(ticks))
        found = [f"total_{trial}", "readings"] if f"total_{trial}" in known else []
        for number, one in enumerate(_each(known[found].reindex({trial: ticks})) if found else []):
            label = STORED if number == 0 and trial == trials[0] else ""
            axis.plot(places, one[f"total_{trial}"] / one.readings, **FAINT, label=label)
        for number, name in enumerate(dataset.device.values):
            one = values.sel(device=name) / float(dataset.readings.sel(device=name))
            chips = [dim for dim in one.dims if dim != trial]
            mean = one.mean(chips) if chips else one
            axis.plot(places, mean, **_look(number), label=literal(str(name)) if trial == trials[0] else None)
            if chips:
                shade = {"color": _look(number)["color"], "alpha": 0.2, "linewidth": 0}
                axis.fill_between(places, one.min(chips), one.max(chips), **shade)
        axis.set_xticks(places, [f"{tick:g}" for tick in ticks])
        axis.set_title(TRIALS[trial].text.replace(" after every input", ""), fontsize="small")
        axis.set_ylim(bottom=0)
    panels[0].set_ylabel("capacity, share of readings")
    figure.legend(loc="outside right upper", fontsize="small")
    return figure


def _look(number: int) -> dict[str, Any]:
    """Colour and marker of a device."""
    again, place = divmod(number, len(COLOURS))
    return {"color": COLOURS[place], "marker": MARKERS[again % len(MARKERS)]}


def _each(known: xr.Dataset) -> list[xr.Dataset]:
    return [known.sel(device=name) for name in known.device.values]


def tables(dataset: xr.Dataset) -> dict[str, list[dict[str, str]]]:
    """One row a device, and one for each system of this library; and what each device holds most of."""
    mine, best = reduced(dataset), []
    rows = [{"device": str(one.device.values)} | _row(one) for one in _each(mine)]
    known = others(dataset).reindex({name: mine[name] for name in ("noise", "task") if name in mine.dims})
    for one in _each(known[[name for name in mine if name in known]]):
        told = _row(one)
        rows.append({"device": f"({one.device.values})"} | {title: told.get(title, "—") for title in [*rows[0]][1:]})
    for one in _each(dataset):
        held = zip(one.best.values, one.best_capacity.values, strict=True)
        most = [f"{product} {capacity:.2f}" for product, capacity in held if capacity > 0.01][:NAMED]
        best.append({"device": str(one.device.values), "products with the largest capacity": ", ".join(most)})
    return {"All devices; in brackets the systems of this library, at full size": rows, "What they hold": best}


def _row(one: xr.Dataset) -> dict[str, str]:
    """Of what was `reduced`."""
    clean = one.isel(noise=0)
    row = {
        "readings": f"{float(one.readings):.0f}",
        "capacity": with_error(float(clean.total), float(clean.total_error)),
        "linear memory": f"{float(clean.linear_memory):.1f}",
    }
    for noise in one.noise.values[one.noise.values > 0]:
        row[f"capacity at {100 * noise:g} %"] = number(float(one.total.sel(noise=noise)))
    for name, title in (
        ("lyapunov", "largest exponent"),
        ("forgetting_time", "forgets in"),
        ("energy", "J an input"),
        ("readout_operations", "readout: operations"),
        ("readout_size", "readout: bytes"),
        ("operations", "network: operations"),
        ("size", "network: bytes"),
        ("sparsity", "connection sparsity"),
    ):
        if name in one:
            row[title] = number(float(one[name]))
    if float(one.get("forgetting_time", np.nan)) < AT_ONCE:
        row["forgets in"] = "at once"
    if "error" in one:
        errors = one.error.isel(measured=-1)
        row |= {str(task): number(float(errors.sel(task=task))) for task in one.task.values}
    if "smape" in one:
        row["Mackey-Glass, sMAPE"] = number(float(one.smape.isel(measured=-1).mean("tau")))
    if "lorenz_time" in one:
        row["Lorenz, Lyapunov times"] = number(float(one.lorenz_time))
    return row


def number(value: float) -> str:
    """A share or an error as people write it."""
    if np.isneginf(value):
        return "-∞"
    if not np.isfinite(value):
        return "—"
    return "0" if abs(value) < SMALL else f"{value:.3g}"
