"""Tables and figures of rules on the same layers, over presentations, chips and rates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from morphax._lazy import xr
from morphax.experiments.rules._digits import COLOURS, LOOP
from morphax.lab.figures import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def tables(dataset: xr.Dataset) -> dict[str, list[dict[str, str]]]:
    """Accuracy, rate and cost of every rule, a table for each system and budget, and one after equal updates."""
    made = {}
    for system in dataset.system.values:
        for budget in dataset.budget.values:
            part = dataset.sel(system=system, budget=budget).dropna("rule", subset=["rate"])
            rows = [_row(part.sel(rule=rule)) for rule in part.rule.values]
            made[f"{system}, {budget:,} presentations"] = rows
    if "updated_rate" in dataset:
        part = dataset.dropna("rule", subset=["updated_rate"])
        rows = [_row(part.sel(rule=rule), "updated_") for rule in part.rule.values]
        made[f"oscillator layers, {dataset.attrs['updates']} updates"] = rows
    return made


def _row(part: xr.Dataset, prefix: str = "") -> dict[str, str]:
    accuracy = part[f"{prefix}accuracy"]
    spread = f"{float(accuracy.mean()):.1f} +- {float(accuracy.std()):.1f}"
    row = {
        "rule": str(part.rule.values),
        "learning rate": f"{float(part[f'{prefix}rate']):g}",
        "test accuracy (%), mean and standard deviation": spread,
    }
    if prefix:
        return row
    return row | {name: f"{int(part[name]):,}" for name in ("presentations", "writes")}


def over_budgets(dataset: xr.Dataset) -> Figure:
    """Errors over presentations, a panel a system."""
    figure = new_figure(5.4 * dataset.system.size, 5.0)
    panels = figure.subplots(1, dataset.system.size, squeeze=False)[0]
    for axes, system in zip(panels, dataset.system.values, strict=True):
        _errors(axes, _on_the_model(dataset.accuracy.sel(system=system)), "budget")
        axes.set(xscale="log", xlabel="presentations", ylabel="test error (%)", title=system)
        axes.legend(fontsize="small", ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.16))
    return figure


def over_chips(dataset: xr.Dataset) -> Figure:
    """Errors over mismatch, a row a system, a panel a budget."""
    budgets = dataset.dropna("budget", how="all", subset=["chip_accuracy"]).budget.values
    figure, grid = _grid(dataset, budgets)
    for row, system in zip(grid, dataset.system.values, strict=True):
        for axes, budget in zip(row, budgets, strict=True):
            _errors(axes, dataset.chip_accuracy.sel(system=system, budget=budget), "spread")
            axes.set(xticks=dataset.spread.values, xlabel="relative spread of device constants")
            axes.set_title(f"{system}, {budget:,} presentations", fontsize="small")
        row[0].set_ylabel("test error (%)")
        row[0].legend(*_all_labels(row), fontsize="small", loc="center right", bbox_to_anchor=(-0.2, 0.5))
    return figure


def over_rates(dataset: xr.Dataset) -> Figure:
    """How the choice fell: errors on validation images over the rate, a row a system, a panel a budget."""
    figure, grid = _grid(dataset, dataset.budget.values)
    for row, system in zip(grid, dataset.system.values, strict=True):
        for axes, budget in zip(row, dataset.budget.values, strict=True):
            tried = _on_the_model(dataset.validation.sel(system=system, budget=budget))
            tried = tried.dropna("learning_rate", how="all")
            _errors(axes, tried, "learning_rate", band=False)
            axes.set(xscale="log", xlabel="learning rate")
            axes.set_xticks(tried.learning_rate.values, [f"{rate:g}" for rate in tried.learning_rate.values])
            axes.set_xticks([], minor=True)
            axes.set_title(f"{system}, {budget:,} presentations", fontsize="small")
        row[0].set_ylabel("validation error (%)")
        row[0].legend(*_all_labels(row), fontsize="small", loc="center right", bbox_to_anchor=(-0.2, 0.5))
    return figure


def _on_the_model(accuracy: xr.DataArray) -> xr.DataArray:
    """Without the rule that is back-propagation there."""
    return accuracy.drop_sel(rule=LOOP, errors="ignore")


def _grid(dataset: xr.Dataset, budgets: Any) -> tuple[Figure, Any]:
    """A row a system, a panel a budget, and room for the names of rules."""
    figure = new_figure(3.8 * len(budgets) + 2.2, 3.8 * dataset.system.size)
    return figure, figure.subplots(dataset.system.size, len(budgets), squeeze=False, sharey="row")


def _errors(axes: Axes, accuracy: xr.DataArray, dim: str, band: bool = True) -> None:
    """Mean and standard deviation of every rule."""
    for rule in accuracy.rule.values:
        error = (100 - accuracy.sel(rule=rule)).dropna(dim, how="all")
        if error.size:
            style: dict[str, Any] = {"color": COLOURS[rule], "label": rule, "capsize": 2, "markersize": 4}
            axes.errorbar(error[dim], error.mean("seed"), error.std("seed") if band else None, fmt="o-", **style)
    axes.set_yscale("log")
    axes.set_yticks(ticks := [1, 2, 3, 5, 10, 20, 30, 50, 100], [str(tick) for tick in ticks])
    axes.set_yticks([], minor=True)


def _all_labels(panels: Any) -> tuple[list[Any], list[str]]:
    """Of some panels, for one legend."""
    found = {label: handle for axes in panels for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    return list(found.values()), list(found)
