"""Trainings of spiking neurons that differ from the printed one in one thing, and what is told of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from morphax._lazy import xr
from morphax.lab.figures import BLUE, GREEN, GREY, ORANGE, RED, VIOLET, Figures, new_figure
from morphax.learning.backprop import Backpropagation
from morphax.learning.rule import Metrics
from morphax.substrates.spiking import SpikingNetwork


class Variant(NamedTuple):
    """What differs from the printed training: factors of its numbers, and one chain or many."""

    rate: float = 1.0  # for deviations from the mean of a row of weights
    mean_rate: float = 1.0  # for the mean of a row
    decay: float = 1.0
    one_chain: bool = False
    wide: bool = False
    colour: str = GREY
    line: str = "-"


PRINTED, CHAINS, ONCE, WIDE, OURS = "printed", "many chains", "exp(-100 t)", "wide weights", "repository"
RATES = ("rate / 10", "rate / 100", "rate / 1000")
MEANS, TWO, TWO_ONE = "means / 10", "two rates", "two rates, one chain"
DESCENTS = {
    PRINTED: Variant(one_chain=True, colour=RED),
    CHAINS: Variant(colour=RED, line="--"),
    RATES[0]: Variant(0.1, 0.1),
    RATES[1]: Variant(0.01, 0.01, line="--"),
    RATES[2]: Variant(0.001, 0.001, line=":"),
    ONCE: Variant(decay=1e-4, colour=RED, line=":"),
    WIDE: Variant(wide=True, colour=ORANGE),
    MEANS: Variant(1.0, 0.1, colour=VIOLET),
    TWO: Variant(30.0, 0.1, colour=GREEN, line="--"),
    TWO_ONE: Variant(30.0, 0.1, one_chain=True, colour=GREEN),
}
LINES = {name: (variant.colour, variant.line) for name, variant in DESCENTS.items()} | {OURS: (BLUE, "-")}
"""All trainings, and how they are drawn."""
WANTED = 0.9
"""The fidelity that counts as acceptable."""


def descent(rate: Any, mean_rate: Any, decay: Any) -> optax.GradientTransformation:
    r"""Plain descent with rates that fall like $e^{-t / \tau}$, one for means of rows of weights, one for the rest.

    With equal rates it is that of `optax.sgd`.
    """

    def scaled(slope: Any, weight: Any = None) -> Any:
        mean: Any = jnp.mean(slope, -1, keepdims=True)
        return rate * (slope - mean) + mean_rate * mean

    def falling(count: Any) -> Any:
        return -jnp.exp(-count / decay)

    return optax.chain(optax.stateless_with_tree_map(scaled), optax.scale_by_schedule(falling))


def drive(network: SpikingNetwork) -> Float[Array, " visible"]:
    """Mean current from the inputs into the read neurons, over the current that is needed to reach the threshold."""
    assert network.input_rate is not None
    current = network.synaptic_time_constant * (network.input_weights @ network.input_rate)
    gain = network.resistance / (network.threshold - network.leak_potential)
    return (gain * current)[: network.visible]


class Followed(Backpropagation):
    """Learning rule: back-propagation that also tells of the weights, at every update, before it."""

    def gradient(self, substrate: Any, inputs: Any, targets: Any, *, key: Any = None) -> tuple[Metrics, Any]:
        """Beside the loss, the drive of the read neurons and how far their input weights are from the row's mean."""
        metrics, gradient = super().gradient(substrate, inputs, targets, key=key)
        read = substrate.input_weights[: substrate.visible]
        return metrics | {"drive": drive(substrate), "spread": jnp.mean(jnp.std(read, axis=1))}, gradient


def reach(variant: str) -> Callable[[xr.Dataset], float]:
    """Share of trainings, over targets and seeds, that reach the wanted fidelity."""
    return lambda d: float((d.fidelity.sel(variant=variant) >= WANTED).mean())


def mean_fidelity(variant: str) -> Callable[[xr.Dataset], float]:
    """Over targets and seeds."""
    return lambda d: float(d.fidelity.sel(variant=variant).mean())


def locked(variant: str) -> Callable[[xr.Dataset], float]:
    """Share of read neurons that are silent or always active at the last update, but for 1 % of its time steps."""

    def share(dataset: xr.Dataset) -> float:
        activity = dataset.activity.sel(variant=variant).isel(epoch=-1)
        return float(((activity < 0.01) | (activity > 0.99)).mean())

    return share


def table(dataset: xr.Dataset) -> list[dict[str, str]]:
    """A row for every training."""

    def row(name: str) -> dict[str, str]:
        part = dataset.sel(variant=name)
        changes, active = abs(part.drive.diff("epoch")), part.activity.isel(epoch=-1)
        first, last = (float(part.spread.isel(epoch=epoch).mean()) for epoch in (0, -1))
        means = part.fidelity.mean("seed")
        return {
            "training": name,
            **{f"{target}: fidelity": f"{float(means.sel(target=target)):.3f}" for target in part.target.values},
            f"reach {WANTED:g}": f"{reach(name)(dataset):.0%}",
            "first update changes the drive by": f"{float(changes.isel(epoch=0).mean()):.2g}",
            "deviation of input weights": f"{first:.3f} to {last:.3f}",
            "active at the end": f"{float(active.min()):.2f} to {float(active.max()):.2f}",
            "locked at the end": f"{locked(name)(dataset):.0%}",
        }

    return [row(name) for name in dataset.variant.values]


def pictures(dataset: xr.Dataset) -> Figures:
    """Courses of the fidelity; drive and activity of the read neurons; how all trainings end."""
    targets, names = list(dataset.target.values), list(dataset.variant.values)
    courses, neurons, ends = new_figure(10, 5), new_figure(10, 4), new_figure(10, 4)
    time = f"simulated time (averages of {int(dataset.average):,} steps)"
    for axes, target in zip(courses.subplots(1, 2, sharey=True), targets, strict=True):
        for name in names:
            colour, line = LINES[name]
            course = dataset.training_fidelity.sel(variant=name, target=target).mean("seed")
            axes.plot(dataset.epoch, course, color=colour, linestyle=line, label=name)
        axes.axhline(WANTED, color="black", linewidth=0.8, linestyle=":")
        axes.set(xlabel=time, title=target, ylim=(0, 1.02))
    courses.axes[0].set(ylabel="fidelity, mean of networks")
    courses.legend(*courses.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=6, fontsize="small")
    current, active = neurons.subplots(1, 2)
    for name in (name for name in (PRINTED, TWO_ONE, OURS) if name in names):
        part, colour = dataset.sel(variant=name).isel(target=0, seed=0), LINES[name][0]
        for axes, values in ((current, part.drive), (active, part.activity)):
            lines = axes.plot(dataset.epoch, values.transpose("epoch", "neuron"), color=colour, linewidth=1)
            lines[0].set_label(name)
    current.set(xlabel=time, ylabel="mean current / least that spikes", title=f"{targets[0]}: drive of six neurons")
    active.set(xlabel=time, ylabel="share of active time steps", title="the same neurons", ylim=(-0.02, 1.02))
    current.set_yscale("symlog", linthresh=10)
    current.legend(fontsize="small", loc="center right")
    places = np.arange(len(names))
    fidelities, still = ends.subplots(1, 2, sharey=True)
    for shift, target, colour in zip((-0.2, 0.2), targets, (BLUE, GREEN), strict=True):
        part = dataset.fidelity.sel(target=target)
        fidelities.barh(places + shift, part.mean("seed"), 0.4, color=colour, alpha=0.5, label=target)
        fidelities.plot(part.transpose("variant", "seed"), places + shift, ".", color=colour, markersize=4)
    fidelities.axvline(WANTED, color="black", linewidth=0.8, linestyle=":")
    fidelities.set(xlabel="fidelity of the best network; dots: networks", xlim=(0, 1.02))
    ends.legend(*fidelities.get_legend_handles_labels(), loc="outside upper right", ncols=2, fontsize="small")
    still.barh(places, [locked(name)(dataset) for name in names], 0.6, color=GREY)
    still.set(xlabel="share of read neurons that end locked", xlim=(0, 1.02))
    fidelities.set_yticks(places, names, fontsize="small")
    fidelities.invert_yaxis()
    return {"training": courses, "neurons": neurons, "ends": ends}
