"""Is Mackey-Glass forecast as well by classical reservoirs?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray
from pydantic import model_validator

from morphax._lazy import xr
from morphax.experiments.josephson._mixer import MixerConfig, check_washout, over_seeds
from morphax.experiments.josephson.paper import DUDAS
from morphax.lab.blocks import Blocks
from morphax.lab.experiment import BEYOND, Claim, Experiment, NonNegative, Positive, parameter
from morphax.lab.figures import BLUE, GREEN, GREY, ORANGE, RED, VIOLET, Figures, new_figure
from morphax.lab.progress import Progress
from morphax.learning.readout import Reading, fit_readout, read_task
from morphax.substrates.base import evolve
from morphax.substrates.josephson import JosephsonMixer
from morphax.substrates.reservoirs import EchoStateNetwork, ReLUReservoir, SpinTorqueReservoir
from morphax.tasks.base import Task
from morphax.tasks.chaos import mackey_glass

MIXER, DYNAMIC, VIRTUAL, ECHO, STATIC = KINDS = ("mixer", "spin-torque", "virtual", "echo-state", "static")
LABELS = dict(
    zip(
        KINDS,
        (
            "Josephson mixer, 16 states",
            "50 spin-torque oscillators",
            "one spin-torque oscillator, 400 times a point",
            "echo-state network, 50 neurons",
            "400 static neurons",
        ),
        strict=True,
    )
)
COLOURS = dict(zip(KINDS, (BLUE, GREEN, VIOLET, ORANGE, RED), strict=True))
HELD = 0.25
"""Part of the training points, at their end, on which a time scale is chosen before the final fit."""


def apart(other: str, noise: float) -> Callable[[xr.Dataset], float]:
    """Mean log10 error of the mixer less that of another reservoir, over delays and seeds."""

    def of(dataset: xr.Dataset) -> float:
        errors = dataset.log_error.sel(noise=noise).mean(("delay", "seed"))
        return float(errors.sel(reservoir=MIXER) - errors.sel(reservoir=other))

    return of


class ClassicalForecast(Experiment):
    """Sec. IV B: Mackey-Glass by two quantum oscillators and by the classical reservoirs that the paper names.

    16 populations of the mixer beside 50 spin-torque oscillators (Eq. 13), one of them that takes every point 400
    times, times a random mask, and is read each time, 400 static neurons (Eq. 12) and an echo-state network. Of every
    reservoir with memory the time scale is chosen on the end of the training points, the same way for all.
    """

    class Config(MixerConfig):
        bias: bool = parameter(True, "whether the readout learns a constant")
        largest_delay: int = parameter(100, "predicted are 1, 2, ... this many points ahead", ge=2)
        noises: tuple[NonNegative, ...] = parameter(
            (0.0, 1e-6, 1e-3), "noise on every reading (replaces noise)", min_length=1
        )
        measured: int = parameter(16, "measured states of the mixer", ge=1)
        neurons: int = parameter(50, "of the dynamic reservoirs", ge=1, le=10_000)
        virtual: int = parameter(400, "virtual neurons, and static ones", ge=1, le=10_000)
        peak_photons: float = parameter(2.0, "peak photon number of the fuller mode", gt=0)
        dissipations: tuple[Positive, ...] = parameter(
            (0.1, 0.3, 1.0), "tried factors on damping_rate of the mixer", min_length=1
        )
        relaxations: tuple[Positive, ...] = parameter(
            (0.03, 0.1, 0.3, 1.0), "tried: how far an oscillator relaxes during a point, Gamma T", min_length=1
        )
        leak_rates: tuple[Positive, ...] = parameter((0.1, 0.3, 1.0), "tried, of the echo-state network", min_length=1)
        washout: int = parameter(100, "training points that enter no fit", ge=0)

        @model_validator(mode="after")
        def _points_are_left(self) -> Self:
            check_washout(self)
            return self

        def columns(self) -> int:
            return max(self.virtual, self.neurons, self.measured) + self.largest_delay

        def numbers_of_state(self) -> int:
            return super().numbers_of_state() + 5 * self.neurons**2

    name = "josephson/classical-forecast"
    quick = {
        "seeds": 2,
        "train_points": 400,
        "test_points": 300,
        "virtual": 60,
        "noises": (0.0,),
        "largest_delay": 30,
        "relaxations": (0.1, 1.0),
    }
    paper = DUDAS
    claims = (
        *(
            Claim.within(
                f"exact readings: log10 error of the mixer less that of {LABELS[other]}",
                0.0,
                apart(other, 0.0),
                source="Sec. IV B: similar performance; ours: a factor of two",
                tolerance=0.3,
                item="classical forecast",
            )
            for other in (DYNAMIC, VIRTUAL)
        ),
        *(
            Claim.reported(
                f"noise {noise:g}: log10 error of the mixer less that of {LABELS[other]}",
                apart(other, noise),
                source="ours",
                paper=0.0,
                item="classical forecast",
            )
            for noise in (1e-6, 1e-3)
            for other in (DYNAMIC, VIRTUAL)
        ),
        *(
            Claim.reported(
                f"exact readings: log10 error of the mixer less that of {LABELS[other]}",
                apart(other, 0.0),
                source="ours",
                item=BEYOND,
            )
            for other in (ECHO, STATIC)
        ),
    )

    def run(self, config: Config, *, key: PRNGKeyArray, progress: Progress) -> xr.Dataset:
        delays = tuple(range(1, config.largest_delay + 1))
        task = eqx.Partial(
            mackey_glass,
            delays,
            train_points=config.train_points,
            test_points=config.test_points,
            washout=config.washout,
        )
        mixer, peak_photons = config.mixer(measured=config.measured), jnp.asarray(config.peak_photons)
        readers = {
            MIXER: (eqx.Partial(_mixer, mixer, peak_photons), config.dissipations),
            DYNAMIC: (eqx.Partial(_oscillators, config.neurons), config.relaxations),
            VIRTUAL: (eqx.Partial(_multiplexed, config.virtual), config.relaxations),
            ECHO: (eqx.Partial(_network, config.neurons), config.leak_rates),
            STATIC: (eqx.Partial(_static, config.virtual), (1.0,)),
        }
        noises = jnp.array(config.noises)
        kinds = {
            kind: over_seeds(_errors, key, task, read, jnp.array(tried), noises, config.readout)
            for kind, (read, tried) in readers.items()
        }

        def compute(seeds: range) -> xr.Dataset:
            errors, chosen = zip(*(of(seeds) for of in kinds.values()), strict=True)
            dims = ("reservoir", "seed", "noise")
            about = {"units": "1", "long_name": "mean log10 |error|"}
            return xr.Dataset(
                {
                    "log_error": ((*dims, "delay"), np.array(errors), about),
                    "chosen": (dims, np.array(chosen), {"units": "1", "long_name": "time scale that was chosen"}),
                },
                {"reservoir": list(kinds), "seed": list(seeds), "noise": list(config.noises), "delay": list(delays)},
            )

        return Blocks("seed", config.seeds).carry_out(progress, compute)

    def figures(self, dataset: xr.Dataset) -> Figures:
        count = dataset.sizes["noise"]
        figure = new_figure(4.2 * count, 4)
        panels = np.atleast_1d(figure.subplots(1, count, sharey=True))
        for axes, noise in zip(panels, dataset.noise.values, strict=True):
            for kind in KINDS:
                errors = dataset.log_error.sel(reservoir=kind, noise=noise).mean("seed")
                axes.plot(errors.delay, errors, color=COLOURS[kind], label=LABELS[kind])
            axes.set(xlabel="delay (points)", title="exact readings" if noise == 0 else f"noise {noise:g}")
            axes.grid(color=GREY, alpha=0.2)
        panels[0].set_ylabel(r"mean $\log_{10}$ |error|, mean over seeds")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize="small")
        return {"classical-forecast": figure}


def _mixer(mixer: JosephsonMixer, peak_photons: Array, factor: Array, task: Task, key: PRNGKeyArray) -> Reading:
    damped = eqx.tree_at(lambda m: m.damping_rate, mixer, factor * mixer.damping_rate)
    drives = jnp.concatenate([task.train_inputs, task.test_inputs])
    return read_task(damped.with_peak_photons(drives, peak_photons), task)


def _oscillators(neurons: int, relaxation: Array, task: Task, key: PRNGKeyArray) -> Reading:
    reservoir = SpinTorqueReservoir.random(neurons, key=key)
    # With efficiency and damping alike, currents stay in units of the threshold.
    return read_task(_relaxing(reservoir, relaxation), task)


def _multiplexed(virtual: int, relaxation: Array, task: Task, key: PRNGKeyArray) -> Reading:
    """One oscillator that takes each point so many times, times a mask, and relaxes so far during all of them."""
    oscillator = _relaxing(SpinTorqueReservoir(jnp.ones((1, 1))), relaxation / virtual)
    mask = jax.random.uniform(key, (virtual,), minval=-1.0, maxval=1.0)
    inputs = jnp.concatenate([task.train_inputs, task.test_inputs])
    powers, _ = evolve(oscillator, (inputs[:, None] * mask).reshape(-1))
    readings = powers.reshape(len(inputs), virtual)
    split = len(task.train_inputs)
    return Reading(readings[task.washout : split], readings[split:])


def _relaxing(reservoir: SpinTorqueReservoir, relaxation: Array) -> SpinTorqueReservoir:
    rates = relaxation * reservoir.damping_rate, relaxation * reservoir.efficiency
    return eqx.tree_at(lambda r: (r.damping_rate, r.efficiency), reservoir, rates)


def _network(neurons: int, leak_rate: Array, task: Task, key: PRNGKeyArray) -> Reading:
    return read_task(EchoStateNetwork.random(neurons, leak_rate=leak_rate, key=key), task)


def _static(neurons: int, unused: Array, task: Task, key: PRNGKeyArray) -> Reading:
    return read_task(ReLUReservoir.random(neurons, key=key), task)


def _errors(
    make_task: Callable[..., Task],
    read: Callable[[Array, Task, PRNGKeyArray], Reading],
    candidates: Array,
    noises: Array,
    readout: dict[str, Any],
    key: PRNGKeyArray,
) -> tuple[Array, Array]:
    """Log errors (noises, delays) of a seed on test points, each with the candidate that was best before, and which."""
    task_key, device_key, noise_key = jax.random.split(key, 3)
    task = make_task(key=task_key)
    targets = task.train_targets[task.washout :]
    held = round(HELD * len(targets))

    def of(candidate: Array) -> tuple[Array, Array]:
        reading = read(candidate, task, device_key)
        first, second = jax.random.split(noise_key)
        train_noise = jax.random.normal(first, reading.train.shape)
        test_noise = jax.random.normal(second, reading.test.shape)

        def with_noise(noise: Array) -> tuple[Array, Array]:
            train, test = reading.train + noise * train_noise, reading.test + noise * test_noise
            trial = fit_readout(train[:-held], targets[:-held], **readout)
            final = fit_readout(train, targets, **readout)
            score = _log_error(trial(train[-held:]) - targets[-held:]).mean()
            return score, _log_error(final(test) - task.test_targets)

        return jax.lax.map(with_noise, noises)

    scores, errors = jax.lax.map(of, candidates)
    best = jnp.argmin(scores, axis=0)
    return jnp.take_along_axis(errors, best[None, :, None], axis=0)[0], candidates[best]


def _log_error(differences: Array) -> Array:
    """Mean log10 of the error at each delay, as in Fig. 5."""
    return jnp.mean(jnp.log10(jnp.maximum(jnp.abs(differences), jnp.finfo(differences.dtype).eps)), axis=0)
