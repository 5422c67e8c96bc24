"""Does a readout that is trained on a twin of the mixer do on the mixer itself?"""

from __future__ import annotations

from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from morphax._lazy import xr
from morphax.judging.recording import record
from morphax.judging.stimulus import stimulus
from morphax.judging.twin import identify
from morphax.lab.blocks import Blocks
from morphax.lab.experiment import BaseConfig, Claim, Experiment, Positive, parameter
from morphax.lab.figures import BLUE, GREY, RED, Figures, new_figure
from morphax.lab.progress import Progress, along
from morphax.learning.metrics import accuracy
from morphax.learning.readout import Reading, answer, read_task
from morphax.substrates.imperfections import mismatch
from morphax.substrates.josephson import JosephsonMixer
from morphax.tasks.base import Task
from morphax.tasks.waveforms import waveforms

DESIGN, TWIN, CHIP = "the design", "its twin", "the chip itself"
MODELS = (DESIGN, TWIN, CHIP)


def mean(model: str, spread: float) -> Any:
    """Mean accuracy over chips and tasks of readouts that were trained on a model."""
    return lambda d: float(d.accuracy.sel(model=model, spread=spread).mean())


class MixerTwin(Experiment):
    """Ours: a hidden mixer is recorded, a twin is identified, and a readout that is trained on it is used on the mixer.

    Sine or square, with noise on every reading. Beside it: readouts that were trained on the design, and on answers of
    the chip itself to all training points.
    """

    class Config(BaseConfig):
        chips: int = parameter(16, "hidden mixers", ge=1, extent=True)
        spreads: tuple[Positive, ...] = parameter((0.1, 0.2), "relative spreads of chips", min_length=1)
        measured: int = parameter(16, "measured states", ge=1)
        recorded: int = parameter(1000, "inputs that are recorded, twice", ge=100)
        noise: float = parameter(0.01, "noise on every reading, of its deviation", gt=0)
        train_points: int = parameter(1000, "training points, a multiple of 8", ge=8)
        test_points: int = parameter(1000, "test points, a multiple of 8", ge=8)

    name = "judging/mixer-twin"
    quick = {"chips": 4, "spreads": (0.2,), "recorded": 400}
    claims = (
        *(
            Claim.at_least(
                f"readout of the twin, {100 * spread:g} % spread: as good as one of the chip itself",
                mean(CHIP, spread),
                mean(TWIN, spread),
                source=f"same run; within {points} point{'s' * (points > 1)}",
                tolerance=points / 100,
            )
            for spread, points in ((0.1, 1), (0.2, 3))
        ),
        *(
            Claim.reported(f"readout of the design, {100 * spread:g} % spread", mean(DESIGN, spread), source="ours")
            for spread in (0.1, 0.2)
        ),
        Claim.reported("inputs that a chip is asked to identify it", lambda d: d.asked_to_identify, source="ours"),
        Claim.reported("inputs that training on it asks", lambda d: d.asked_to_train, source="ours"),
    )

    def run(self, config: Config, *, key: PRNGKeyArray, progress: Progress) -> xr.Dataset:
        design = JosephsonMixer.two_mode(measured=config.measured)
        keys = jax.random.split(key, config.chips)
        work = {f"spread {spread:g}": partial(_chips, design, config, spread, keys) for spread in config.spreads}
        chips = Blocks("chip", config.chips, size=2)
        parts = chips.join(progress.pieces(chips.split(work)))
        meaning = {"units": "1", "long_name": "relative spread of chips"}
        dataset = along("spread", {spread: parts[f"spread {spread:g}"] for spread in config.spreads}, meaning)
        unit = {"units": "inputs"}
        return dataset.assign(
            asked_to_identify=((), 2 * config.recorded, unit), asked_to_train=((), config.train_points, unit)
        )

    def figures(self, dataset: xr.Dataset) -> Figures:
        figure = new_figure(8.5, 3.4)
        left, right = figure.subplots(1, 2)
        places = np.arange(dataset.sizes["spread"])
        for number, (model, colour) in enumerate(zip(MODELS, (GREY, BLUE, RED), strict=True)):
            part = dataset.accuracy.sel(model=model)
            middle = part.mean("chip")
            ends = [middle - part.min("chip"), part.max("chip") - middle]
            left.errorbar(places + 0.1 * (number - 1), middle, yerr=ends, fmt="o", color=colour, label=model, capsize=2)
        left.set(xlabel="spread of chips", ylabel="accuracy on the chip", title="readout trained on")
        left.legend(fontsize="small")
        right.plot(places, 100 * dataset.free_error.mean("chip"), "o-", color=BLUE, label="twin")
        right.plot(places, 100 * dataset.design_error.mean("chip"), "o-", color=GREY, label="design")
        right.set(xlabel="spread of chips", yscale="log", title="running freely, off by (% of deviation)")
        right.legend(fontsize="small")
        for axes in (left, right):
            axes.set_xticks(places, [f"{100 * spread:g} %" for spread in dataset.spread.values])
        return {"mixer-twin": figure}


def _chips(
    design: JosephsonMixer, config: MixerTwin.Config, spread: float, keys: PRNGKeyArray, members: range
) -> xr.Dataset:
    rows = [_chip(design, config, spread, keys[member]) for member in members]
    accuracies, twins, designs, known = zip(*rows, strict=True)
    unit = {"units": "1"}
    return xr.Dataset(
        {
            "accuracy": (("chip", "model"), np.array(accuracies), unit | {"long_name": "accuracy on the chip"}),
            "free_error": ("chip", np.array(twins), unit | {"long_name": "error of the twin, running freely"}),
            "design_error": ("chip", np.array(designs), unit | {"long_name": "error of the design"}),
            "identified": ("chip", np.array(known), unit | {"long_name": "share of parameters that are identified"}),
        },
        {"chip": list(members), "model": list(MODELS)},
    )


def _chip(
    design: JosephsonMixer, config: MixerTwin.Config, spread: float, key: PRNGKeyArray
) -> tuple[list[float], float, float, float]:
    """Accuracy of readouts of the design, of the twin and of the chip itself, on the chip; errors of the models."""
    chip_key, drive_key, record_key, search_key, task_key, read_key = jax.random.split(key, 6)
    chip = mismatch(design, devices=spread, key=chip_key)
    drives = stimulus(config.recorded, low=0.0, high=1.0, key=drive_key)
    recording = record(chip, drives, noise=config.noise, repeats=2, key=record_key)
    twin = identify(design, recording, spread=spread, gain="known", key=search_key)
    task = waveforms(config.train_points, config.test_points, washout=8, key=task_key)
    scores, errors = _judged(chip, design, twin.substrate, task, jnp.asarray(config.noise), read_key)
    design_error, twin_error = np.asarray(errors).tolist()
    return np.asarray(scores).tolist(), twin_error, design_error, float(twin.parameters.identified.mean())


@eqx.filter_jit
def _judged(
    chip: JosephsonMixer, design: JosephsonMixer, twin: Any, task: Task, noise: Array, key: PRNGKeyArray
) -> tuple[Array, Array]:
    truth = read_task(chip, task)
    size = noise * jnp.std(truth.train, axis=0)
    train_key, test_key, *keys = jax.random.split(key, 4)

    def noisy(part: Array, key: PRNGKeyArray) -> Array:
        return part + size * jax.random.normal(key, part.shape, part.dtype)

    asked = Reading(noisy(truth.train, train_key), noisy(truth.test, test_key))
    scores, errors = [], []
    for model, each in zip((design, twin), keys, strict=True):
        read = read_task(model, task)
        errors.append(jnp.sqrt(jnp.mean((read.test - truth.test) ** 2) / jnp.mean(jnp.var(truth.test, axis=0))))
        # With the noise that there will be: a readout that does not know of it amplifies it.
        own = Reading(noisy(read.train, each), read.test)
        scores.append(accuracy(answer(own, task, other=asked, ridge="cross-validate")[0], task.test_targets))
    scores.append(accuracy(answer(asked, task, ridge="cross-validate")[0], task.test_targets))
    return jnp.array(scores), jnp.array(errors)
