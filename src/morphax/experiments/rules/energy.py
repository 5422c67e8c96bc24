"""How near are contrastive rules to the gradient?"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from morphax._lazy import xr
from morphax.dynamics.relaxation import BlockSweeps
from morphax.experiments.rules._against import compared, flat_gradient
from morphax.experiments.rules._digits import CLASSES, PIXELS
from morphax.lab.blocks import Blocks
from morphax.lab.experiment import BaseConfig, Claim, Experiment, Positive, parameter
from morphax.lab.figures import BLUE, GREEN, GREY, ORANGE, RED, VIOLET, Figures, new_figure
from morphax.lab.progress import Progress, along
from morphax.learning.contrastive import (
    AgnosticPropagation,
    CoupledLearning,
    FrequencyPropagation,
    HolomorphicPropagation,
)
from morphax.learning.equilibrium import EquilibriumPropagation, ImplicitDifferentiation
from morphax.learning.rule import Data
from morphax.substrates.energy import phase_distance, squared_error
from morphax.substrates.hopfield import HopfieldNetwork
from morphax.substrates.phase_oscillators import PhaseOscillators
from morphax.tasks import sequential_digits

SYSTEMS = ("oscillators", "hopfield")
TITLES = {"oscillators": "phase oscillators", "hopfield": "Hopfield network"}
REAL = ("one-sided", "symmetric", "four-point")
RULES = (*REAL, "holomorphic, 4", "holomorphic, 6", "frequency", "agnostic", "coupled")
COLOURS = dict(zip(RULES, (BLUE, ORANGE, RED, GREEN, GREEN, VIOLET, GREY, "black"), strict=True))


def best_other(system: str, strength: float) -> Any:
    """The smaller median error of one-sided and symmetric nudges."""

    def smaller(dataset: xr.Dataset) -> float:
        error = dataset.error.sel(system=system).sel(strength=strength, method="nearest")
        return float(error.sel(rule=["one-sided", "symmetric"]).median("seed").min())

    return smaller


def median(system: str, rule: str, strength: float, variable: str = "cosine") -> Any:
    return lambda d: float(d[variable].sel(system=system, rule=rule).sel(strength=strength, method="nearest").median())


class Energy(Experiment):
    """Ours: gradients of rules that compare equilibria against the exact one, over the strength of the nudge.

    Of untrained networks in double precision, all at rest: phase oscillators that are all coupled to all, with random
    phases as data, and a Hopfield network that sees digits. The strength is that of the nudge, and of
    coupled learning the share of the way to the target; its gradient is that of another cost, and shown all the same.
    Rules that need an analytic energy are not asked about neurons with kinks.
    """

    class Config(BaseConfig):
        seeds: int = parameter(10, "networks, each with data of its own", ge=1, extent=True)
        precision: Literal["double", "single"] = parameter("double", "floating-point precision of the run")
        examples: int = parameter(16, "examples of a gradient", ge=1)
        strengths: tuple[Positive, ...] = parameter((0.01, 0.03, 0.1, 0.3, 1.0), "beta", min_length=1)
        inputs: int = parameter(4, "phases that are held", ge=1)
        outputs: int = parameter(2, "phases that are read", ge=1)
        free: int = parameter(6, "other phases", ge=1)
        hidden: int = parameter(32, "hidden neurons of the Hopfield network", ge=1)
        period: float = parameter(200.0, "period of an oscillating nudge", gt=0)
        tolerance: float = parameter(1e-10, "largest force at rest", gt=0)

    name = "rules/energy"
    quick = {"seeds": 1, "examples": 4, "strengths": (0.01, 0.1, 1.0), "hidden": 8, "period": 50.0}
    claims = (
        *(
            Claim.at_most(
                f"{system}, beta = {strength:g}: four nudges err least of the real ones",
                best_other(system, strength),
                median(system, "four-point", strength, "error"),
                source="ours; medians",
            )
            for system in SYSTEMS
            for strength in (0.01, 0.03, 0.1)
        ),
        *(
            Claim.at_least(
                f"{system}, beta = 1: one-sided is better than symmetric (cosines)",
                median(system, "symmetric", 1.0),
                median(system, "one-sided", 1.0),
                source="ours; medians",
            )
            for system in SYSTEMS
        ),
        Claim.reported(
            "oscillators, beta = 0.1: error of six complex nudges",
            median("oscillators", "holomorphic, 6", 0.1, "error"),
            source="ours",
        ),
        Claim.reported(
            "oscillators, a hundredth of the way: cosine of coupled learning with the squared error's gradient",
            median("oscillators", "coupled", 0.01),
            source="ours",
        ),
    )

    def run(self, config: Config, *, key: PRNGKeyArray, progress: Progress) -> xr.Dataset:
        keys = jax.random.split(key, config.seeds)
        seeds = Blocks("seed", config.seeds, size=5)
        work: dict[str, Callable[[range], xr.Dataset]] = {
            f"{system}, {rule}": partial(_errors, config, system, rule, keys) for system in SYSTEMS for rule in RULES
        }
        parts = seeds.join(progress.pieces(seeds.split(work)))
        rules = {system: along("rule", {rule: parts[f"{system}, {rule}"] for rule in RULES}) for system in SYSTEMS}
        return along("system", rules)

    def figures(self, dataset: xr.Dataset) -> Figures:
        figure = new_figure(11, 4)
        panels = figure.subplots(1, 2)
        for axes, system in zip(panels, SYSTEMS, strict=True):
            for rule in RULES:
                error = dataset.error.sel(system=system, rule=rule).median("seed")
                if np.isfinite(error).any():
                    style = "o:" if rule in ("coupled", "holomorphic, 4") else "o-"
                    axes.loglog(dataset.strength, error, style, color=COLOURS[rule], label=rule)
            axes.set(xlabel="strength", ylabel="relative error, median", title=TITLES[system])
        handles, labels = panels[0].get_legend_handles_labels()
        panels[-1].legend(handles, labels, fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
        return {"energy": figure}


def _made(config: Energy.Config, system: str, key: PRNGKeyArray) -> tuple[Any, Data]:
    make_key, input_key, target_key = jax.random.split(key, 3)
    if system == "hopfield":
        task = sequential_digits(key=input_key)
        inputs = task.train_inputs[: config.examples].reshape(-1, PIXELS) / jnp.max(task.train_inputs)
        return HopfieldNetwork.random((PIXELS, config.hidden, CLASSES), key=make_key), (
            inputs,
            task.train_targets[: config.examples],
        )
    network = PhaseOscillators.all_to_all(
        config.inputs, config.free, config.outputs, coupling_deviation=1.0, key=make_key
    )
    inputs, targets = (
        jax.random.uniform(k, (config.examples, number), minval=-1.5, maxval=1.5)
        for k, number in ((input_key, config.inputs), (target_key, config.outputs))
    )
    return network, (inputs, targets)


def _rule(name: str, cost: Any, relaxer: Any, strength: Any, period: float) -> Any:
    shared = {"objective": cost, "relaxer": relaxer}
    if name in REAL:
        return EquilibriumPropagation(**shared, strength=strength, nudging=name)
    if name.startswith("holomorphic"):
        return HolomorphicPropagation(**shared, strength=strength, points=int(name[-1]), steps=12, tolerance=1e-8)
    if name == "frequency":
        return FrequencyPropagation(**shared, strength=strength, period=period)
    if name == "agnostic":
        return AgnosticPropagation(**shared, strength=strength, nudging="symmetric", compliance=1e-3)
    return CoupledLearning(**shared, amount=strength, nudging="symmetric")


def _errors(config: Energy.Config, system: str, name: str, keys: PRNGKeyArray, seeds: range) -> xr.Dataset:
    cost = phase_distance if system == "oscillators" else squared_error
    relaxer = BlockSweeps(config.tolerance, 50_000)
    rows = []
    for seed in seeds:
        network, data = _made(config, system, keys[seed])
        right = flat_gradient(ImplicitDifferentiation(cost, relaxer), network, data, keys[seed])
        row = []
        for strength in config.strengths:
            rule = _rule(name, cost, relaxer, jnp.asarray(strength), config.period)
            if isinstance(rule, HolomorphicPropagation) and system == "hopfield":
                row.append((np.nan, np.nan))
            else:
                row.append(compared(flat_gradient(rule, network, data, keys[seed]), right))
        rows.append(row)
    found, dims, attributes = np.array(rows), ("seed", "strength"), {"units": "1", "may_be_missing": 1}
    return xr.Dataset(
        {"error": (dims, found[..., 0], attributes), "cosine": (dims, found[..., 1], attributes)},
        {"seed": list(seeds), "strength": list(config.strengths)},
    )
