"""How good is the gradient that the physics gives?"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, PRNGKeyArray

from morphax._lazy import xr
from morphax.dynamics.relaxation import BlockSweeps, RungeKutta
from morphax.experiments.phase_oscillators._training import EquilibriumConfig, optimiser
from morphax.experiments.phase_oscillators.paper import WANG
from morphax.lab.experiment import BEYOND, Claim, Experiment, Positive, parameter
from morphax.lab.figures import BLUE, GREEN, ORANGE, RED, Figures, new_figure
from morphax.lab.progress import Progress, along
from morphax.learning.equilibrium import (
    EquilibriumPropagation,
    EquilibriumRule,
    ImplicitDifferentiation,
    Nudging,
    RelaxationBackpropagation,
)
from morphax.learning.train import train
from morphax.pytrees import select
from morphax.substrates.phase_oscillators import PhaseOscillators
from morphax.tasks import phase_digits
from morphax.tasks.digits import digits_digests

WAYS: tuple[Nudging, ...] = ("one-sided", "opposite", "symmetric")


def at(network: str, nudging: str, strength: float) -> Any:
    """Cosine with the exact gradient."""
    return lambda d: float(d.cosine.sel(network=network, nudging=nudging, strength=strength))


class Gradient(Experiment):
    """Ours: equilibrium propagation against the exact gradient, for three ways to nudge and many strengths.

    The gradient of a batch of digits, in double precision, at trained networks; the exact one by implicit
    differentiation at the same equilibria. Examples whose nudged relaxation does not converge are left out by the rule.
    """

    class Config(EquilibriumConfig):
        seeds: int = parameter(1, "networks of each kind; one is enough to see an order", ge=1, le=1)
        precision: Literal["double", "single"] = parameter("double", "floating-point precision of the run")
        learning_rate: float = parameter(0.03, "eta", gt=0)
        iterations: int = parameter(200, "updates before gradients are compared", ge=1)
        batch_size: int = parameter(300, "images in an update", ge=1)
        compared: int = parameter(100, "images of the batch whose gradients are compared", ge=1)
        strengths: tuple[Positive, ...] = parameter((1e-4, 1e-3, 1e-2, 0.03, 0.1, 0.3, 1.0), "beta", min_length=1)
        tolerances: tuple[Positive, ...] = parameter((1e-3, 1e-5, 1e-7, 1e-10), "largest force at rest", min_length=1)
        unrolled: float = parameter(200.0, "time through which the relaxation is differentiated", gt=0, le=1e5)

        def data(self) -> dict[str, Path | str]:
            return {**digits_digests()}

    name = "phase-oscillators/gradient"
    quick = {
        "iterations": 20,
        "batch_size": 31,
        "compared": 12,
        "strengths": (1e-3, 1e-2, 0.1),
        "tolerances": (1e-7,),
        "unrolled": 20.0,
    }
    paper = WANG
    claims = (
        *(
            Claim.at_least(
                f"{network}: cosine at beta = 0.001, one-sided",
                0.99,
                at(network, "one-sided", 1e-3),
                source="Eq. 7; ours: the number",
                item="gradient",
            )
            for network in ("layered", "all-to-all")
        ),
        *(
            Claim.within(
                f"layered: {nudging} is of {text} order (log10 of the error's fall from 0.01 to 0.001)",
                expected,
                lambda d, nudging=nudging: order(d, nudging),
                source="ours: orders of a one-sided and a symmetric quotient of differences",
                item=BEYOND,
                tolerance=0.3 * expected,
            )
            for nudging, text, expected in (("one-sided", "first", 1.0), ("symmetric", "second", 2.0))
        ),
        Claim.reported(
            "layered: cosine at beta = 0.1, one-sided", at("layered", "one-sided", 0.1), source="ours", item=BEYOND
        ),
        Claim.reported(
            "layered: cosine of back-propagation through the relaxation",
            lambda d: d.unrolled.sel(network="layered"),
            source="ours",
            item=BEYOND,
        ),
    )

    def run(self, config: Config, *, key: PRNGKeyArray, progress: Progress) -> xr.Dataset:
        make_key, train_key, batch_key, start_key = jax.random.split(key, 4)
        task = phase_digits()
        chosen = jax.random.permutation(batch_key, len(task.train_inputs))[: config.compared]
        data, batch = (task.train_inputs, task.train_targets), (task.train_inputs[chosen], task.train_targets[chosen])
        networks = {
            "layered": PhaseOscillators.layered((64, 20, 10), key=make_key),
            "all-to-all": PhaseOscillators.all_to_all(64, 11, 10, key=make_key),
        }

        tight, missing = min(config.tolerances), {"may_be_missing": 1}

        @cache
        def trained(name: str) -> PhaseOscillators:
            """In seconds, and in every process anew: nothing of it is kept."""
            descent = optimiser("sgd", config.learning_rate, config.iterations)
            numbers = {"key": train_key, "batch_size": config.batch_size}
            return train(networks[name], config.rule(), data, descent, config.iterations, **numbers).last

        def of(name: str, rule: EquilibriumRule) -> tuple[np.ndarray, float]:
            metrics, gradient = _gradient(rule, trained(name), batch, start_key)
            return np.asarray(gradient), float(metrics["unconverged"])

        @cache
        def exact(name: str) -> np.ndarray:
            return of(name, ImplicitDifferentiation(relaxer=BlockSweeps(tight, 20_000)))[0]

        def propagated(name: str, tolerance: float, nudging: Nudging) -> list[tuple[np.ndarray, float]]:
            relaxer = BlockSweeps(tolerance, 20_000)
            # An array, so that all strengths share one compilation.
            strengths = [jnp.asarray(b) for b in config.strengths]
            return [of(name, EquilibriumPropagation(relaxer=relaxer, strength=b, nudging=nudging)) for b in strengths]

        def nudged(name: str, nudging: Nudging) -> xr.Dataset:
            found = propagated(name, tight, nudging)
            return xr.Dataset(
                {
                    "cosine": ("strength", [_cosine(g, exact(name)) for g, _ in found], missing),
                    "error": ("strength", [_error(g, exact(name)) for g, _ in found]),
                    "unconverged": ("strength", [share for _, share in found]),
                }
            )

        def loose(name: str, tolerance: float) -> xr.Dataset:
            found = propagated(name, tolerance, "one-sided")
            return xr.Dataset({"loose_cosine": ("strength", [_cosine(g, exact(name)) for g, _ in found], missing)})

        def unrolled(name: str) -> xr.Dataset:
            # The dynamics may end in other equilibria than sweeps: both gradients where the dynamics ends.
            dynamics = RungeKutta(config.unrolled, 0.25, tolerance=np.inf)
            through, _ = of(name, RelaxationBackpropagation(relaxer=dynamics))
            there, _ = of(name, ImplicitDifferentiation(relaxer=dynamics))
            return xr.Dataset({"unrolled": _cosine(through, there), "unrolled_error": _error(through, there)})

        work: dict[str, Callable[[], xr.Dataset]] = {}
        for name in networks:
            work |= {f"{name}, {nudging}": partial(nudged, name, nudging) for nudging in WAYS}
            work |= {f"{name}, rest {rest:g}": partial(loose, name, rest) for rest in config.tolerances}
            work[f"{name}, unrolled"] = partial(unrolled, name)
        parts = progress.pieces(work)

        def of_network(name: str) -> xr.Dataset:
            nudgings = along("nudging", {nudging: parts[f"{name}, {nudging}"] for nudging in WAYS})
            rests = along("rest", {rest: parts[f"{name}, rest {rest:g}"] for rest in config.tolerances})
            return nudgings.merge(rests).merge(parts[f"{name}, unrolled"])

        dataset = along("network", {name: of_network(name) for name in networks})
        for variable in dataset.data_vars.values():
            variable.attrs["units"] = "1"
        return dataset.assign_coords(nudging=list(WAYS), strength=list(config.strengths), rest=list(config.tolerances))

    def figures(self, dataset: xr.Dataset) -> Figures:
        figure = new_figure(10, 6.5)
        for line, network in zip(figure.subplots(2, 2), dataset.network.values, strict=True):
            part = dataset.sel(network=network)
            for nudging, colour in zip(WAYS, (BLUE, ORANGE, GREEN), strict=True):
                line[0].loglog(part.strength, part.error.sel(nudging=nudging), "o-", color=colour, label=nudging)
            for tolerance, colour in zip(part.rest.values, (RED, ORANGE, GREEN, BLUE), strict=False):
                label = f"force at rest {tolerance:g}"
                line[1].semilogx(part.strength, part.loose_cosine.sel(rest=tolerance), "o-", color=colour, label=label)
            label = "back-propagation through the relaxation"
            line[0].axhline(float(part.unrolled_error), color="black", linewidth=0.8, label=label)
            line[0].set(ylabel="relative error", title=f"{network}: all at rest")
            line[1].set(ylabel="cosine", title=f"{network}: one-sided, less and less at rest")
            for axes in line:
                axes.legend(fontsize="small")
                axes.set_xlabel("beta")
        return {"gradient": figure}


def order(dataset: xr.Dataset, nudging: str) -> float:
    """By how many decades the error of the layered network falls from beta = 0.01 to 0.001."""
    error = dataset.error.sel(network="layered", nudging=nudging)
    return float(np.log10(error.sel(strength=1e-2) / error.sel(strength=1e-3)))


@eqx.filter_jit
def _gradient(rule: EquilibriumRule, network: PhaseOscillators, batch: Any, key: PRNGKeyArray) -> tuple[Any, Array]:
    metrics, gradient = rule.gradient(network, *batch, key=key)
    return metrics, ravel_pytree(select(gradient, "weight")[0])[0]


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    """NaN where no relaxation converged and the rule gives no gradient."""
    size = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / size) if size else np.nan


def _error(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))
