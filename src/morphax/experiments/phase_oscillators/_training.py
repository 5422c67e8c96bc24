"""What the experiments with phase oscillators share: the rule's settings, schedules, and how accuracies are judged."""

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Literal, Self

import optax
from pydantic import model_validator

from morphax.dynamics.relaxation import BlockSweeps, RungeKutta
from morphax.lab.experiment import BaseConfig, parameter
from morphax.learning.equilibrium import EquilibriumPropagation, Measure
from morphax.learning.train import adjustable
from morphax.tasks import Task, phase_digits
from morphax.tasks.digits import digits_digests


class EquilibriumConfig(BaseConfig):
    """Equilibrium propagation as in the paper; what the paper does not print is said in docs/phase-oscillators.md."""

    precision: Literal["double", "single"] = parameter("single", "floating-point precision of the run")
    strength: float = parameter(0.1, "beta, strength of the nudge (not printed)", gt=0)
    learning_rate: float = parameter(0.1, "eta", gt=0)
    tolerance: float = parameter(1e-4, "largest force that counts as rest", gt=0)
    sweeps: int = parameter(500, "sweeps at most", ge=1)
    prefix: float = parameter(0.0, "time of the physical dynamics before sweeps", ge=0, le=1e5)

    def but(self, **changes: Any) -> Self:
        """This configuration with other numbers."""
        return self.model_copy(update=changes)

    def relaxer(self) -> BlockSweeps:
        """Sweeps, after the dynamics where a prefix is asked for."""
        prefix = RungeKutta(self.prefix, 0.25) if self.prefix else None
        return BlockSweeps(self.tolerance, self.sweeps, prefix)

    def rule(
        self,
        measure: Measure | None = None,
        *,
        kind: type[EquilibriumPropagation] = EquilibriumPropagation,
        **rest: Any,
    ) -> EquilibriumPropagation:
        """Equilibrium propagation, or a kind of it, with these numbers."""
        return kind(relaxer=self.relaxer(), strength=self.strength, measure=measure, **rest)


class DigitsConfig(EquilibriumConfig):
    """Networks that learn digits of 8 x 8 pixels."""

    tolerance: float = parameter(1e-3, "largest force that counts as rest", gt=0)
    seeds: int = parameter(2, "networks of each kind", ge=1, extent=True)
    iterations: int = parameter(1000, "updates", ge=1)
    batch_size: int = parameter(100, "images in an update", ge=1)
    every: int = parameter(10, "updates between two looks", ge=1)
    train_per_class: int = parameter(100, "images of each digit to train with", ge=2, le=170)
    test_per_class: int = parameter(70, "images of each digit to test with", ge=1, le=173)

    @model_validator(mode="after")
    def _images_suffice(self) -> Self:
        check_images(self)
        return self

    def task(self) -> Task:
        """The digits, as phases."""
        return phase_digits(self.train_per_class, self.test_per_class)

    def data(self) -> dict[str, Path | str]:
        return {**digits_digests()}

    def memory(self) -> float:
        # For the networks that are trained at once: the couplings' part of the gradient of every image of a batch; and
        # of all networks the couplings, some ten times (weights, gradient, optimiser, the blocks of the sweeps).
        at_once = min(self.seeds, os.cpu_count() or 1)
        copies = 1.0 * at_once * self.batch_size + 10 * self.seeds
        return self.bytes_of_number * self.largest_couplings() * copies

    def largest_couplings(self) -> int:
        """Of the largest network."""
        return 0

    def training(self, name: Literal["sgd", "adam"] = "sgd", learning_rate: float | None = None) -> dict[str, Any]:
        """The numbers of a training, for `Trainer.train`."""
        return {
            "optimiser": optimiser(name, learning_rate or self.learning_rate, self.iterations),
            "steps": self.iterations,
            "batch_size": self.batch_size,
            "every": self.every,
        }


def check_images(config: Any) -> None:
    """Refuse more images of a digit than its rarest has."""
    if config.train_per_class + config.test_per_class > PER_CLASS:
        blamed = "train_per_class" if "train_per_class" in config.model_fields_set else "test_per_class"
        raise ValueError(
            f"{blamed} is {getattr(config, blamed)}; train_per_class + test_per_class must be <= {PER_CLASS}, the "
            "images of the rarest digit"
        )


def check_held_out(config: Any, images: int) -> None:
    """Refuse a `validation_fraction` that holds out none, or all, of some images."""
    if not 0 < round(config.validation_fraction * images) < images:
        raise ValueError(
            f"validation_fraction is {config.validation_fraction:g}; of {images} images it must hold out some "
            "and leave some"
        )


PER_CLASS = 174
SMALL = {"seeds": 1, "batch_size": 31, "sweeps": 60, "train_per_class": 20, "test_per_class": 10}


@cache
def _maker(name: str, steps: int) -> Callable[..., optax.GradientTransformation]:
    """Cached, so that the same schedule is the same function and compiles once."""
    if name == "sgd":
        return optax.sgd
    shape = optax.warmup_cosine_decay_schedule(0.0, 1.0, max(1, steps // 50), steps)

    def make(learning_rate: Any) -> optax.GradientTransformation:
        return optax.adam(lambda count: learning_rate * shape(count))

    return make


def optimiser(name: Literal["sgd", "adam"], learning_rate: float, steps: int) -> optax.GradientTransformation:
    """Plain descent with a constant rate, or Adam with a cosine."""
    return adjustable(_maker(name, steps), learning_rate=learning_rate)
