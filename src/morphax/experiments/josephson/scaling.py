"""What do more modes buy?"""

from __future__ import annotations

from typing import Annotated, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray
from pydantic import Field, model_validator

from morphax._lazy import xr
from morphax.experiments.josephson._mixer import (
    Conditions,
    ReservoirConfig,
    answers_of_first,
    check_washout,
    over_seeds,
)
from morphax.experiments.josephson.paper import DUDAS
from morphax.lab.blocks import Blocks
from morphax.lab.experiment import BEYOND, Claim, Experiment, parameter
from morphax.lab.figures import BLUE, Figures, new_figure
from morphax.lab.progress import Progress
from morphax.learning.metrics import nrmse
from morphax.learning.readout import read_task
from morphax.quantum.measurement import Populations, basis_states
from morphax.substrates.josephson import JosephsonMixer
from morphax.tasks.memory import narma
from morphax.units import MHz, ns, us


class Scaling(Experiment):
    """Ours: one to ten all-to-all coupled modes on NARMA-10, error against the number of measured populations.

    Ten modes of eight levels have 8^10 basis states; the coherent method needs only the measured ones. Couplings are
    drawn at random; states are measured in the order of their total photon number. Inputs are scaled into [0, 1].
    """

    class Config(ReservoirConfig):
        modes: tuple[Annotated[int, Field(ge=1, le=16)], ...] = parameter(
            (1, 2, 3, 4, 6, 8, 10), "numbers of modes", min_length=1
        )
        sizes: tuple[Annotated[int, Field(ge=1, le=10_000)], ...] = parameter(
            (2, 4, 8, 16, 32, 64, 128, 256), "measured populations", min_length=1
        )
        levels: int = parameter(8, "levels per mode: which states exist", ge=2, le=10_000)
        train_points: int = parameter(2000, "training points", ge=16)
        washout: int = parameter(100, "training points that enter no fit", ge=0)
        slowest: float = parameter(1.0, "smallest dissipation", unit="rad/us", gt=0)
        fastest: float = parameter(4.0, "largest dissipation; the others between at equal ratios", unit="rad/us", gt=0)
        coupling: float = parameter(0.5, "largest g / 2 pi; drawn between a quarter of it and it", unit="MHz", ge=0)
        interval: float = parameter(100.0, "how long an input is held", unit="ns", gt=0)
        peak_photons: float = parameter(0.5, "peak photon number of the fullest mode", gt=0)
        noise: float = parameter(1e-5, "standard deviation of Gaussian noise on every population", ge=0)
        bias: bool = parameter(True, "whether the readout learns a constant")

        @model_validator(mode="after")
        def _states_exist(self) -> Self:
            check_washout(self)
            states = self.levels ** min(self.modes)
            if min(self.sizes) > states:
                raise ValueError(
                    f"sizes is {self.sizes}; the least must be <= {states}, the states of modes = {min(self.modes)} "
                    f"with levels = {self.levels}"
                )
            return self

        def columns(self) -> int:
            return max(self.sizes)

    name = "josephson/scaling"
    quick = {"seeds": 2, "train_points": 600, "test_points": 400, "modes": (1, 2, 4, 10), "sizes": (4, 16, 64)}
    paper = DUDAS
    claims = (
        Claim.at_most(
            "64 measured states: NRMSE of ten modes against two modes",
            lambda d: at(d, 2, 64),
            lambda d: at(d, 10, 64),
            source="two modes, all 64 states, same run",
            item=BEYOND,
        ),
        Claim.at_most(
            "ten modes: NRMSE with 64 measured states against 4",
            lambda d: at(d, 10, 4),
            lambda d: at(d, 10, 64),
            source="four measured states, same run",
            item=BEYOND,
        ),
        Claim.at_most(
            "ten modes: NRMSE with 256 measured states against 64",
            lambda d: at(d, 10, 64),
            lambda d: at(d, 10, 256),
            source="do still more states help? same run",
            item=BEYOND,
            cause="1,900 training points are too few for 256 readings: with 7,900 it is 0.543 against 0.552 "
            "(josephson/scaling, four seeds, train_points=8000)",
        ),
    )

    def run(self, config: Config, *, key: PRNGKeyArray, progress: Progress) -> xr.Dataset:
        exist = {modes: [size for size in config.sizes if size <= config.levels**modes] for modes in config.modes}
        shared = jnp.asarray(config.peak_photons), config.washout, config.conditions()
        curves = {
            modes: over_seeds(_errors, key, _largest(config, modes, max(sizes)), tuple(sizes), *shared)
            for modes, sizes in exist.items()
        }
        attributes = {"units": "1", "long_name": "test NRMSE; NaN where there are fewer states", "may_be_missing": 1}

        def compute(seeds: range) -> xr.Dataset:
            errors = np.full((len(curves), len(seeds), len(config.sizes)), np.nan)
            for place, (modes, curve) in enumerate(curves.items()):
                errors[place, :, : len(exist[modes])] = curve(seeds)
            modes = xr.Variable("modes", list(curves), {"long_name": "number of modes"})
            coordinates = {"modes": modes, "seed": list(seeds), "neurons": list(config.sizes)}
            return xr.Dataset({"nrmse": (("modes", "seed", "neurons"), errors, attributes)}, coordinates)

        return Blocks("seed", config.seeds).carry_out(progress, compute)

    def figures(self, dataset: xr.Dataset) -> Figures:
        figure = new_figure(6.5, 4.2)
        axis = figure.subplots()
        for modes, shade in zip(dataset.modes.values, np.linspace(0.2, 1, dataset.sizes["modes"]), strict=True):
            part = dataset.nrmse.sel(modes=modes).dropna("neurons", how="all")
            label = f"{modes} mode" if modes == 1 else f"{modes} modes"
            style = {"fmt": "o-", "alpha": shade, "color": BLUE, "markersize": 4, "capsize": 2, "label": label}
            axis.errorbar(part.neurons, part.mean("seed"), part.std("seed"), **style)
        axis.set(xscale="log", xlabel="measured populations", ylabel="test NRMSE on NARMA-10")
        axis.set_xticks(dataset.neurons.values, [str(n) for n in dataset.neurons.values])
        axis.minorticks_off()
        axis.set_title(f"all-to-all coupled modes: mean and standard deviation of {dataset.sizes['seed']} seeds")
        axis.legend(fontsize="small", ncols=2)
        return {"scaling": figure}


def _largest(config: Scaling.Config, modes: int, measured: int) -> JosephsonMixer:
    """The mixer whose couplings are all as large as any can be."""
    return JosephsonMixer(
        config.coupling * MHz * (1 - jnp.eye(modes)),
        jnp.geomspace(config.slowest, config.fastest, modes) / us,
        1.0,
        interval=config.interval * ns,
        levels=config.levels,
        measured=Populations(basis_states((config.levels,) * modes, measured, order="photons")),
    )


def _errors(
    largest: JosephsonMixer,
    sizes: tuple[int, ...],
    peak_photons: jax.Array,
    washout: int,
    conditions: Conditions,
    key: PRNGKeyArray,
) -> jax.Array:
    """Test errors of a seed, which draws the couplings, for every number of measured populations."""
    task_key, device_key, run_key = jax.random.split(key, 3)
    task = narma(10, conditions.train_points, conditions.test_points, washout=washout, key=task_key)
    drives = eqx.tree_at(lambda t: (t.train_inputs, t.test_inputs), task, replace_fn=lambda u: 2 * u)
    drawn = jnp.triu(jax.random.uniform(device_key, largest.coupling.shape, minval=0.25, maxval=1.0), 1)
    mixer = eqx.tree_at(lambda m: m.coupling, largest, largest.coupling * (drawn + drawn.T))
    mixer = mixer.with_peak_photons(drives.train_inputs, peak_photons)
    reading = read_task(mixer, drives, noise=conditions.noise, key=run_key)
    outputs = answers_of_first(reading.train, task.train_targets[washout:], reading.test, sizes, **conditions.readout)
    return jax.vmap(nrmse, in_axes=(0, None))(outputs, task.test_targets)


def at(dataset: xr.Dataset, modes: int, neurons: int) -> float:
    """Mean test NRMSE."""
    return float(dataset.nrmse.sel(modes=modes, neurons=neurons).mean())
