"""How good is the gradient that an echo gives?"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from morphax._lazy import xr
from morphax.experiments.rules._against import compared, flat_gradient
from morphax.lab.blocks import Blocks
from morphax.lab.experiment import BaseConfig, Claim, Experiment, NonNegative, Positive, parameter
from morphax.lab.figures import BLUE, GREEN, ORANGE, RED, Figures, new_figure
from morphax.lab.progress import Progress, along
from morphax.learning.backprop import Backpropagation
from morphax.learning.echo import HamiltonianEcho
from morphax.learning.objectives import regression
from morphax.learning.rule import Data
from morphax.substrates.reversible import NonlinearLattice
from morphax.substrates.topology import Topology


def worst(variable: str, **at: float) -> Any:
    """The largest over seeds."""
    return lambda d: float(d[variable].sel(**at, method="nearest").max())


class Echo(Experiment):
    """Ours: gradients of Hamiltonian echoes against back-propagation through a lattice of nonlinear oscillators.

    Over how long, with which kick, with how much damping - amplified on the way back or not - and with which error of
    the amplification.
    """

    class Config(BaseConfig):
        seeds: int = parameter(10, "lattices, each with data of its own", ge=1, extent=True)
        rows: int = parameter(4, "rows of the lattice, all first masses are inputs", ge=2, le=30)
        columns: int = parameter(6, "columns", ge=3, le=30)
        examples: int = parameter(4, "examples of a gradient", ge=1)
        durations: tuple[Positive, ...] = parameter((5.0, 20.0, 80.0), "T, for which the lattice runs", min_length=1)
        strengths: tuple[Positive, ...] = parameter((1e-4, 1e-3, 1e-2, 1e-1), "epsilon, of a kick", min_length=1)
        losses: tuple[Positive, ...] = parameter((0.06, 0.2, 0.6, 2.0), "gamma T, of T = 20", min_length=1)
        gains: tuple[NonNegative, ...] = parameter(
            (0.0, 0.5, 0.9, 0.97, 0.99, 1.0), "gain on the way back in units of the damping, at the largest gamma T"
        )

    name = "rules/echo"
    quick = {
        "seeds": 1,
        "rows": 3,
        "columns": 4,
        "durations": (5.0, 10.0),
        "strengths": (1e-3, 1e-2),
        "losses": (0.2, 2.0),
    }
    claims = (
        *(
            Claim.at_most(
                f"undamped, T = {duration:g}: relative error at epsilon = 0.001",
                1e-5,
                worst("error_of_strength", duration=duration, strength=1e-3),
                source="ours; largest of all seeds",
            )
            for duration in (5.0, 20.0, 80.0)
        ),
        Claim.within(
            "second order (log10 of the error's fall from epsilon = 0.01 to 0.001, T = 20)",
            2.0,
            lambda d: float(
                np.log10(
                    d.error_of_strength.sel(duration=20.0, strength=1e-2)
                    / d.error_of_strength.sel(duration=20.0, strength=1e-3)
                ).mean()
            ),
            source="theory",
            tolerance=0.2,
        ),
        Claim.at_most(
            "damped, gamma T = 2, amplified: relative error",
            5e-3,
            worst("error_of_loss", loss=2.0),
            source="ours; largest of all seeds",
        ),
        Claim.reported(
            "damped, gamma T = 2, not amplified: cosine",
            lambda d: d.plain_cosine.sel(loss=2.0).mean(),
            source="ours",
        ),
        Claim.reported(
            "damped, gamma T = 2, gain 10 % too small: cosine",
            lambda d: d.cosine_of_gain.sel(gain=0.9).mean(),
            source="ours",
        ),
    )

    def run(self, config: Config, *, key: PRNGKeyArray, progress: Progress) -> xr.Dataset:
        keys = jax.random.split(key, config.seeds)
        seeds = Blocks("seed", config.seeds, size=2)
        work: dict[str, Callable[[range], xr.Dataset]] = {
            f"T = {duration:g}": partial(_strengths, config, duration, keys) for duration in config.durations
        }
        work |= {f"gamma T = {loss:g}": partial(_damped, config, loss, keys) for loss in config.losses}
        work["gain"] = partial(_gains, config, keys)
        parts = seeds.join(progress.pieces(seeds.split(work)))
        errors = along("duration", {duration: parts[f"T = {duration:g}"] for duration in config.durations})
        losses = along("loss", {loss: parts[f"gamma T = {loss:g}"] for loss in config.losses})
        dataset = xr.merge([errors, losses, parts["gain"]])
        for variable in dataset.data_vars.values():
            variable.attrs["units"] = "1"
        return dataset

    def figures(self, dataset: xr.Dataset) -> Figures:
        figure = new_figure(11, 3.6)
        kicks, damping, gains = figure.subplots(1, 3)
        for duration, colour in zip(dataset.duration.values, (BLUE, ORANGE, GREEN), strict=False):
            error = dataset.error_of_strength.sel(duration=duration)
            kicks.loglog(dataset.strength, error.mean("seed"), "o-", color=colour, label=f"T = {duration:g}")
        kicks.set(xlabel="kick", ylabel="relative error", title="undamped")
        kicks.legend(fontsize="small")
        damping.semilogx(dataset.loss, dataset.gained_cosine.mean("seed"), "o-", color=BLUE, label="amplified")
        damping.semilogx(dataset.loss, dataset.plain_cosine.mean("seed"), "o-", color=RED, label="not amplified")
        damping.set(xlabel="damping x time", ylabel="cosine with the gradient", title="damped")
        damping.legend(fontsize="small")
        gains.plot(dataset.gain, dataset.cosine_of_gain.mean("seed"), "o-", color=BLUE)
        gains.set(xlabel="gain / damping", ylabel="cosine with the gradient", title="damped most")
        return {"echo": figure}


def _made(config: Echo.Config, duration: float, damping: float, key: PRNGKeyArray) -> tuple[NonlinearLattice, Data]:
    """A lattice and its data, which are the same whatever the duration and the damping."""
    make_key, input_key, target_key = jax.random.split(key, 3)
    first = [row * config.columns for row in range(config.rows)]
    last = [first[0] + config.columns - 1, first[-1] + config.columns - 1]
    topology = Topology.lattice((config.rows, config.columns), inputs=first, outputs=last)
    lattice = NonlinearLattice.random(topology, duration=duration, damping=damping, key=make_key)
    inputs = jax.random.normal(input_key, (config.examples, config.rows))
    return lattice, (inputs, jax.random.normal(target_key, (config.examples, 2)))


def _against(
    lattice: NonlinearLattice, data: Data, key: PRNGKeyArray, strength: float = 1e-3, gain: float = 1.0
) -> tuple[float, float]:
    right = flat_gradient(Backpropagation(regression), lattice, data, key)
    # Arrays, so that all numbers share one compilation.
    rule = HamiltonianEcho(jnp.asarray(strength), gain=jnp.asarray(gain), objective=regression)
    return compared(flat_gradient(rule, lattice, data, key), right)


def _strengths(config: Echo.Config, duration: float, keys: PRNGKeyArray, seeds: range) -> xr.Dataset:
    errors = [
        [_against(*_made(config, duration, 0.0, keys[seed]), keys[seed], strength=s)[0] for s in config.strengths]
        for seed in seeds
    ]
    return xr.Dataset(
        {"error_of_strength": (("seed", "strength"), np.array(errors))},
        {"seed": list(seeds), "strength": list(config.strengths)},
    )


def _damped(config: Echo.Config, loss: float, keys: PRNGKeyArray, seeds: range) -> xr.Dataset:
    found = []
    for seed in seeds:
        made = _made(config, 20.0, loss / 20.0, keys[seed])
        found.append((*_against(*made, keys[seed], gain=1.0), _against(*made, keys[seed], gain=0.0)[1]))
    errors, cosines, plain = np.array(found).T
    return xr.Dataset(
        {"error_of_loss": ("seed", errors), "gained_cosine": ("seed", cosines), "plain_cosine": ("seed", plain)},
        {"seed": list(seeds)},
    )


def _gains(config: Echo.Config, keys: PRNGKeyArray, seeds: range) -> xr.Dataset:
    damping = max(config.losses) / 20.0
    found = [
        [_against(*_made(config, 20.0, damping, keys[seed]), keys[seed], gain=gain)[1] for gain in config.gains]
        for seed in seeds
    ]
    return xr.Dataset(
        {"cosine_of_gain": (("seed", "gain"), np.array(found))}, {"seed": list(seeds), "gain": list(config.gains)}
    )
