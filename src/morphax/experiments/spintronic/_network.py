"""What the experiments with layered networks share: networks, data, schedules, ensembles and how they are judged."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

import equinox as eqx
import jax
import numpy as np
import optax
from jaxtyping import PRNGKeyArray, PyTree
from pydantic import Field, model_validator

from morphax._lazy import xr
from morphax.lab.experiment import BaseConfig, parameter
from morphax.learning.backprop import Backpropagation
from morphax.learning.ensemble import make_members, map_members
from morphax.learning.train import Data, adjustable
from morphax.substrates.layers import LayeredNetwork
from morphax.substrates.recurrent import ContinuousTimeRecurrentNetwork
from morphax.substrates.spintronic import SpintronicNetwork
from morphax.substrates.wrappers import WithReadout
from morphax.tasks.base import Task
from morphax.tasks.digits import HeldOut, digits_digests, hold_out, sequential_digits
from morphax.units import ns

Kind = Literal["spintronic", "CTRNN"]
NETWORKS = {"spintronic": SpintronicNetwork, "CTRNN": ContinuousTimeRecurrentNetwork}
PAPER_TIME = 14.12  # ns: the relaxation time at which the paper's S = 0.5 counts in units of the damping rate
CLASSES = 10
IMAGES, PIXELS = 1797, 64
MOST_STEPS = 10_000  # of the integrator between two pixels


class Entry(NamedTuple):
    """A kind of network, and what differs from the configuration."""

    kind: Kind
    changes: dict[str, Any] = {}


class NetworkConfig(BaseConfig):
    """The paper's network and training; what the paper does not print is said in docs/spintronic.md."""

    seeds: int = parameter(
        10, "independent repetitions: weights, masks and order of the images", ge=1, le=1000, extent=True
    )
    precision: Literal["double", "single"] = parameter("single", "floating-point precision of the run")
    layers: tuple[Annotated[int, Field(ge=1, le=10_000)], ...] = parameter(
        (32, 32, 32), "neurons in each layer", min_length=1
    )
    interlayer_density: float = parameter(0.5, "part of the connections between layers that exist", ge=0, le=1)
    intralayer_density: float = parameter(0.5, "part of the connections inside layers that exist", ge=0, le=1)
    relaxation_time: float = parameter(PAPER_TIME, "relaxation time 1 / damping rate", unit="ns", ge=1e-6, le=1e9)
    amplification: float = parameter(0.5 / PAPER_TIME, "drive per weighted sum, S", unit="1/ns", gt=0)
    interval: float = parameter(1.0, "time between two pixels", unit="ns", gt=0)
    longest_step: float = parameter(2.5, "longest time step of the integrator", unit="ns", gt=0)
    initial_scale: float = parameter(8.0, "initial weights, times +-1/sqrt(fan-in)", gt=0)
    train_fraction: float = parameter(0.5, "part of the images to train with", gt=0, lt=1)
    validation_fraction: float = parameter(0.2, "part of these held out where something is chosen", gt=0, lt=1)
    epochs: int = parameter(100, "passes over the training images", ge=1)
    batch_size: int = parameter(120, "images in a step", ge=1)
    learning_rate: float = parameter(0.149, "Adam's step at the start (inverse) or at most (cosine)", gt=0)
    schedule: Literal["inverse", "cosine"] = parameter("inverse", "lr / (epoch / decay + 1), or 3 epochs up, then down")
    learning_rate_decay: float = parameter(8.077, "epochs in which the inverse schedule halves the step", gt=0)

    @model_validator(mode="after")
    def _steps_come_to_an_end(self) -> Self:
        for name, interval in self.intervals_used():
            if (steps := interval / self.longest_step) > MOST_STEPS:
                raise ValueError(
                    f"{name} is {interval:g}; with longest_step = {self.longest_step:g} that takes {steps:.3g} time "
                    f"steps, and they must be <= {MOST_STEPS}"
                )
        return self

    @model_validator(mode="after")
    def _some_images_each(self) -> Self:
        trained = int(self.train_fraction * IMAGES)
        if not 0 < trained < IMAGES:
            raise ValueError(
                f"train_fraction is {self.train_fraction:g}; of {IMAGES} images it must leave some to train and some "
                "to test with"
            )
        if not 0 < round(self.validation_fraction * trained) < trained:
            raise ValueError(
                f"validation_fraction is {self.validation_fraction:g}; of {trained} images (train_fraction = "
                f"{self.train_fraction:g}) it must hold out some and leave some"
            )
        return self

    def memory(self) -> float:
        # Back-propagation keeps the stages of every time step of every pixel, of each image of a batch, for the
        # networks that are trained at once; judging takes some states of all images. Adam holds four copies of weights.
        neurons = sum(self.layers)
        steps = max(math.ceil(interval / self.longest_step) for _, interval in self.intervals_used())
        kept = PIXELS * steps * neurons * min(self.batch_size, IMAGES) * 4
        at_once = min(self.seeds, os.cpu_count() or 1)
        weights = 4 * sum(n * (n + m) for n, m in zip(self.layers, (1, *self.layers), strict=False))
        return self.bytes_of_number * (at_once * (kept + 10 * IMAGES * neurons) + self.seeds * weights)

    def intervals_used(self) -> list[tuple[str, float]]:
        """Times between two pixels, with the names of their fields."""
        return [("interval", self.interval)]

    def but(self, **changes: Any) -> Self:
        """This configuration with other numbers."""
        return self.model_copy(update=changes)

    def network(self, kind: Kind, key: PRNGKeyArray) -> WithReadout:
        """An untrained network with its readout."""
        first, second = jax.random.split(key)
        steps = max(1, math.ceil(self.interval / self.longest_step - 1e-9))
        substrate = NETWORKS[kind].random(
            self.layers,
            interlayer_density=self.interlayer_density,
            intralayer_density=self.intralayer_density,
            scale=self.initial_scale,
            damping_rate=1 / (self.relaxation_time * ns),
            amplification=self.amplification / ns,
            interval=self.interval * ns,
            time_step=self.interval * ns / steps,
            key=first,
        )
        return WithReadout.random(substrate, CLASSES, scale=self.initial_scale, key=second)

    def networks(self, kind: Kind, key: PRNGKeyArray, seeds: range) -> WithReadout:
        """A stack of some of them."""
        return make_members(lambda k: self.network(kind, k), key, seeds)

    def data(self) -> dict[str, Path | str]:
        return {**digits_digests()}

    def task(self, key: PRNGKeyArray) -> Task:
        """The digits in a random split; the same for all seeds, as only initial weights differ in the paper."""
        return sequential_digits(self.train_fraction, key=key)

    def held_out(self, task: Task, key: PRNGKeyArray) -> HeldOut:
        """The training images, with some held out to choose by."""
        return hold_out(task.train_inputs, task.train_targets, self.validation_fraction, key=key)

    def training(self, data: Data, visits: int | None = None) -> dict[str, Any]:
        """The numbers of a training, for `Trainer.train`: Adam with this schedule, every gradient clipped to 1.

        Watched data are judged after every epoch, or `visits` times in all.
        """
        epoch = max(1, len(data[0]) // self.batch_size)  # in steps
        make = _adam(self.schedule, epoch, self.epochs)
        return {
            "optimiser": adjustable(make, learning_rate=self.learning_rate, decay=self.learning_rate_decay),
            "steps": self.epochs * epoch,
            "batch_size": self.batch_size,
            "every": epoch * max(1, self.epochs // (visits or self.epochs)),
        }


@cache
def _adam(schedule: str, epoch: int, epochs: int) -> Callable[..., optax.GradientTransformation]:
    """Cached, so that the same schedule is the same function and compiles once."""
    warm = min(3, epochs - 1) * epoch
    shape = optax.warmup_cosine_decay_schedule(0.0 if warm else 1.0, 1.0, warm, epochs * epoch)

    def make(learning_rate: Any, decay: Any) -> optax.GradientTransformation:
        def rate(count: Any) -> Any:
            return learning_rate * (1 / (count // epoch / decay + 1) if schedule == "inverse" else shape(count))

        return optax.chain(optax.clip(1.0), optax.adam(rate))

    return make


@eqx.filter_jit
def _accuracy(data: Data, network: WithReadout) -> jax.Array:
    return Backpropagation().metrics(network, *data)["accuracy"]


def accuracies(networks: PyTree, data: Data) -> np.ndarray:
    """Accuracy of every member of a stack."""
    return np.asarray(map_members(eqx.Partial(_accuracy, data), networks))


def layered(networks: WithReadout) -> LayeredNetwork:
    """The layered network, or stack of them, behind the readout."""
    if not isinstance(networks.substrate, LayeredNetwork):
        raise TypeError(f"substrate is a {type(networks.substrate).__name__}; it must be a layered network")
    return networks.substrate


def converged(networks: WithReadout, longest_step: float = 0.05, fewest: int = 10) -> WithReadout:
    """The same networks, followed by classical Runge-Kutta with steps that are short against everything."""
    interval = float(np.max(np.asarray(layered(networks).interval)))
    steps = max(fewest, math.ceil(interval / longest_step - 1e-9))
    reference = layered(networks).integrated_by("runge-kutta", 4, interval / steps)
    return eqx.tree_at(lambda n: n.substrate, networks, reference)


PERCENT = {"units": "%"}


def percent(values: np.ndarray, long_name: str) -> tuple[str, np.ndarray, dict[str, str]]:
    """A variable along seeds, in per cent."""
    return "seed", 100 * np.asarray(values, float), PERCENT | {"long_name": long_name}


def median_band(axes: Any, x: Any, accuracy: xr.DataArray, **style: Any) -> None:
    """Median and quartiles over seeds, as the paper draws them."""
    low, middle, high = (accuracy.quantile(q, "seed") for q in (0.25, 0.5, 0.75))
    (line,) = axes.plot(x, middle, "o-", markersize=4, **style)
    axes.fill_between(x, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
