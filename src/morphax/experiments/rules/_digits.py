"""What the experiments share that train on digits by many rules: images, rules by their names, how long they train."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray
from pydantic import model_validator

from morphax._lazy import xr
from morphax.lab.experiment import BaseConfig, parameter
from morphax.lab.figures import BLUE, GREEN, GREY, ORANGE, RED, VIOLET
from morphax.learning.backprop import Backpropagation
from morphax.learning.ensemble import make_members
from morphax.learning.feedback import DirectFeedbackAlignment, FeedbackAlignment
from morphax.learning.forward import ForwardForward, LocalHeads, PhysicalLocalLearning
from morphax.learning.node_perturbation import NodePerturbation
from morphax.learning.online import EligibilityPropagation, RandomFeedbackLocalOnline
from morphax.learning.rule import Asked, Data, LearningRule
from morphax.learning.zeroth_order import ZerothOrder
from morphax.substrates.layered import OscillatorLayers
from morphax.tasks.digits import digits_digests, hold_out, sequential_digits

CLASSES, IMAGES, ROWS, PIXELS = 10, 1797, 8, 64
BACKPROPAGATION, LOOP, SPSA, NODE = "back-propagation", "in the loop", "SPSA", "node perturbation"
ALIGNMENT, DIRECT, AUGMENTED = "feedback alignment", "DFA", "augmented DFA"
HEADS, FORWARD, LOCAL = "local heads", "forward-forward", "physical local"
TRACES, RANDOM_TRACES = "e-prop", "RFLO"
LABELLED = (FORWARD, LOCAL)
"""Rules that show an example with a label, for which the device has channels of its own."""
COLOURS = {
    BACKPROPAGATION: "black",
    LOOP: GREY,
    SPSA: RED,
    NODE: BLUE,
    ALIGNMENT: "#8bb174",
    DIRECT: GREEN,
    AUGMENTED: ORANGE,
    HEADS: VIOLET,
    FORWARD: "#d77fb4",
    LOCAL: "#8c6d31",
    TRACES: GREEN,
    RANDOM_TRACES: VIOLET,
}


def sech(reached: Array) -> Array:
    """A slope that shares with the device's no more than that it falls off."""
    return 1 / jnp.cosh(reached)


def nominal_slope(reached: Array) -> Array:
    """The slope of an oscillator as designed: what a rule knows of one that differs."""
    designed = OscillatorLayers([np.ones((1, 1))] * 2, [np.zeros(1)] * 2)

    def power(reached: Array) -> Array:
        return designed.respond(0, reached[..., None])[..., 0]

    return jax.jvp(power, (reached,), (jnp.ones_like(reached),))[1]


# Of a key, for what is random in them. In the loop is not among them, for it belongs to a device.
RULES: dict[str, Callable[[PRNGKeyArray], LearningRule]] = {
    BACKPROPAGATION: lambda _: Backpropagation(),
    SPSA: lambda _: ZerothOrder(Backpropagation()),
    NODE: lambda _: NodePerturbation(),
    ALIGNMENT: lambda key: FeedbackAlignment(key=key, slope=nominal_slope),
    DIRECT: lambda key: DirectFeedbackAlignment(key=key, slope=nominal_slope),
    AUGMENTED: lambda key: DirectFeedbackAlignment(key=key, slope=sech),
    HEADS: lambda key: LocalHeads(key, slope=nominal_slope),
    FORWARD: lambda _: ForwardForward(CLASSES, slope=nominal_slope),
    LOCAL: lambda _: PhysicalLocalLearning(CLASSES),
    TRACES: lambda key: EligibilityPropagation(key),
    RANDOM_TRACES: lambda key: RandomFeedbackLocalOnline(key),
}


def make_rules(name: str, key: PRNGKeyArray, seeds: range) -> LearningRule:
    """A stack of one rule, one for each seed."""
    return make_members(RULES[name], key, seeds)


class Images(NamedTuple):
    """Digits to learn from, to choose by, and to test with: (inputs, targets) each."""

    train: Data
    validation: Data
    test: Data

    def shaped(self, *shape: int) -> Images:
        """With inputs of another shape."""
        return Images(*((inputs.reshape(len(inputs), *shape), targets) for inputs, targets in self))

    @property
    def watched(self) -> dict[str, Data]:
        """What nothing is learned from."""
        return {"validation": self.validation, "test": self.test}


class DigitsConfig(BaseConfig):
    """The images, and what every training shares."""

    seeds: int = parameter(
        10, "repetitions: weights, matrices of rules, devices, order of images", ge=1, le=1000, extent=True
    )
    precision: Literal["double", "single"] = parameter("single", "floating-point precision of the run")
    train_fraction: float = parameter(0.6, "part of the images to train with and to choose by", gt=0, lt=1)
    validation_fraction: float = parameter(1 / 6, "part of these that rates are chosen by", gt=0, lt=1)
    batch_size: int = parameter(100, "images in a step", ge=1)

    @model_validator(mode="after")
    def _some_images_each(self) -> Self:
        chosen = int(self.train_fraction * IMAGES)
        learned = chosen - round(self.validation_fraction * chosen)
        if not self.batch_size <= learned < chosen:
            raise ValueError(
                f"train_fraction is {self.train_fraction:g} and validation_fraction {self.validation_fraction:g}; of "
                f"{IMAGES} images they must leave some to choose by, and a batch of {self.batch_size} to learn from"
            )
        return self

    def data(self) -> dict[str, Path | str]:
        return {**digits_digests()}

    def steps(self, rule: str, budget: int, least: int) -> int:
        """That a budget covers: so many whole times those of the least, which divides it, that no other is begun.

        What back-propagation learns from counts as if it were shown to the device.
        """
        return budget // least * (least // self.presentations(rule))

    def presentations(self, rule: str) -> int:
        """That a step counts."""
        return self.asked(rule).presentations or self.batch_size

    def asked(self, rule: str) -> Asked:
        """What a step asks of the device."""
        return Asked(self.batch_size, 1) if rule == LOOP else RULES[rule](jax.random.key(0)).cost(self.batch_size)

    def images(self, key: PRNGKeyArray) -> Images:
        """Vectors of pixels, less the mean image, in units of the standard deviation; the same for all seeds."""
        split, held = jax.random.split(key)
        task = sequential_digits(self.train_fraction, key=split)
        (learned, targets), (compared, labels) = hold_out(*task.train, self.validation_fraction, key=held)
        mean, deviation = jnp.mean(learned, axis=0), jnp.std(learned)

        def scaled(inputs: Array) -> Array:
            return (inputs - mean) / deviation

        tested, wanted = task.test
        return Images((scaled(learned), targets), (scaled(compared), labels), (scaled(tested), wanted))


def chosen(tried: xr.Dataset, prefix: str = "") -> xr.Dataset:
    """Accuracies of all rates, and the test accuracy of the rate that is best on validation images, mean over seeds."""
    scores = tried.validation.mean("seed")
    # -1: less than any accuracy, where a rate was not tried.
    picked = tried.isel(learning_rate=scores.fillna(-1.0).argmax("learning_rate"))
    found = {
        f"{prefix}validation": tried.validation,
        f"{prefix}test": tried.test,
        f"{prefix}accuracy": picked.test.drop_vars("learning_rate"),
        f"{prefix}rate": picked.learning_rate.where(scores.notnull().any("learning_rate")).drop_vars("learning_rate"),
    }
    return xr.Dataset(found)
