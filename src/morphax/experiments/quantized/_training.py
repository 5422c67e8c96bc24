"""What the experiments with quantised perceptrons share: Table I, and one way to train and judge."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PRNGKeyArray
from pydantic import Field, model_validator

from morphax._checks import check_range
from morphax._lazy import xr
from morphax.experiments.training import Trained, Trainer
from morphax.files import KnownFile
from morphax.lab.blocks import Blocks, join_blocks
from morphax.lab.experiment import BaseConfig, parameter
from morphax.lab.figures import BLUE, GREEN, GREY, ORANGE, RED, VIOLET, mean_and_range
from morphax.lab.progress import along
from morphax.learning.backprop import Backpropagation
from morphax.learning.ensemble import member_keys
from morphax.learning.history import History
from morphax.learning.objectives import classification
from morphax.learning.rule import Metrics
from morphax.learning.train import adjustable
from morphax.learning.voting import MajorityVote
from morphax.substrates.quantized import Backward, BinarisedPerceptron, QuantizedPerceptron
from morphax.tasks import Task, mnist
from morphax.tasks.mnist import mnist_data

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LARGEST_WIDTH = 1e6
NonNegative = Annotated[float, Field(ge=0, le=LARGEST_WIDTH)]
Steps = Annotated[int, Field(ge=0, le=19)]
"""A strength g in units of pi / 38: the paper's points are multiples of pi / 19."""
Kind = Callable[[range], BinarisedPerceptron]
"""Makes the networks of some seeds."""
COLOURS = (RED, BLUE, ORANGE, GREEN, VIOLET, GREY)
SMALL = {"hidden": 32, "train_images": 320, "test_images": 200, "epochs": 4, "every": 2, "shots": 3, "seeds": 2}


class PerceptronConfig(BaseConfig):
    """Table I."""

    precision: Literal["double", "single"] = parameter("single", "floating-point precision of the run")
    seeds: int = parameter(3, "networks at the points of the claims", ge=2, extent=True)
    layers: int = parameter(3, "hidden layers", ge=1)
    hidden: int = parameter(512, "neurons of a hidden layer", ge=1)
    learning_rate: float = parameter(0.01, "of gradient descent with momentum", gt=0)
    momentum: float = parameter(0.9, "part of the last step that is taken again", ge=0, lt=1)
    batch_size: int = parameter(64, "images in an update", ge=1)
    epochs: int = parameter(500, "passes through the training images", ge=1)
    every: int = parameter(50, "epochs between two looks at the validation images", ge=1)
    train_images: int = parameter(5_000, "the first ones of the training set", ge=64, le=60_000)
    test_images: int = parameter(10_000, "validation images, the first ones of the test set", ge=1, le=10_000)
    shots: int = parameter(15, "passes whose majority decides", ge=1)

    @model_validator(mode="after")
    def _a_whole_batch(self) -> Self:
        if self.batch_size > self.train_images:
            raise ValueError(f"batch_size is {self.batch_size}; it must be <= train_images, {self.train_images}")
        return self

    def memory(self) -> float:
        # Images, some copies of them; weights with gradient and momentum; of the networks that are judged at once all
        # first-layer answers to all test images.
        images = 784 * (self.train_images + self.test_images)
        weights = sum(a * b for a, b in itertools.pairwise(self.sizes))
        at_once = min(self.seeds, os.cpu_count() or 1)
        judged = self.test_images * (784 + 2 * self.hidden)
        return self.bytes_of_number * (4 * images + 4 * self.seeds * weights + at_once * (judged + 3 * weights))

    def task(self) -> Task:
        """MNIST."""
        return mnist(self.train_images, self.test_images)

    def data(self) -> dict[str, str | KnownFile]:
        return mnist_data(self.train_images)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Inputs, hidden layers, outputs."""
        return (784, *[self.hidden] * self.layers, 10)

    def networks(
        self,
        key: PRNGKeyArray,
        members: range,
        *,
        width: float | Sequence[float] = 0.0,
        strength: float | Sequence[float] | None = None,
        backward: Backward = "htanh",
    ) -> BinarisedPerceptron:
        """A stack: some of many networks that differ in their seed, and in width and strength where these are many."""
        check_range("width", width, low=0.0)  # under vmap networks cannot look
        check_range("strength", np.pi / 2 if strength is None else strength, low=0.0, high=np.pi / 2)

        def of_members(values: float | Sequence[float]) -> Array:
            each = np.asarray(values, float)
            return jnp.asarray(each[list(members)] if each.ndim else np.full(len(members), each))

        widths, strengths = of_members(width), None if strength is None else of_members(strength)

        def make(key: PRNGKeyArray, width: Array, strength: Array | None) -> QuantizedPerceptron:
            return QuantizedPerceptron.random(self.sizes, key=key, width=width, strength=strength, backward=backward)

        return eqx.filter_vmap(make)(member_keys(key, members), widths, strengths)

    def trained(
        self,
        trainer: Trainer,
        label: str,
        networks: Any,
        members: range,
        epochs: int | None = None,
        task: Task | None = None,
    ) -> Trained[Any]:
        """A stack of networks, some of many, after training with these images, or those of `task`."""
        task, batches = self.task() if task is None else task, self.train_images // self.batch_size
        return trainer.train(
            label,
            networks,
            Judged(Backpropagation(), self.shots if _is_random(networks) else 1),
            (task.train_inputs, task.train_targets),
            optimiser=adjustable(optax.sgd, learning_rate=self.learning_rate, momentum=self.momentum),
            steps=batches * (epochs or self.epochs),
            batch_size=self.batch_size,
            watch={"validation": (task.test_inputs, task.test_targets)},
            ensemble=members,
            every=batches * self.every,
        )

    def blocks(self, dim: str, count: int, epochs: int) -> Blocks:
        """Of networks that train for fewer epochs: as many to a piece as take the time of one that trains for all."""
        return Blocks(dim, count, max(1, round(self.epochs / epochs)))

    def errors(self, history: History) -> xr.Dataset:
        """Errors over (epoch, member) in the course of a training.

        "validation" is that of the majority of shots, "deterministic" that of the classical pass with the same weights,
        "training" that of the single shots of the last epoch.
        """
        batches = self.train_images // self.batch_size
        seen, single = history.watched("validation"), 1 - history.metric("accuracy")
        errors = {
            "validation": 1 - seen["accuracy"],
            "deterministic": 1 - seen["deterministic"],
            "training": np.array([single[step - batches : step].mean(0) for step in history.steps]),
        }
        units = {"units": "1", "long_name": "share of wrong answers"}
        columns = {name: (("epoch", "member"), values, units) for name, values in errors.items()}
        return xr.Dataset(columns, {"epoch": history.steps // batches})

    def trainings(self, trainer: Trainer, kinds: Mapping[str, Kind]) -> dict[str, Callable[[], xr.Dataset]]:
        """The pieces of a run that train networks of each kind, one for every seed."""

        def learned(kind: str, seeds: range) -> xr.Dataset:
            errors = self.errors(self.trained(trainer, kind, kinds[kind](seeds), seeds).history)
            return errors.rename(member="seed").assign_coords(seed=list(seeds))

        return {**Blocks("seed", self.seeds).split({kind: partial(learned, kind) for kind in kinds})}


class Judged(MajorityVote):
    """A majority vote that is watched beside the deterministic answer."""

    def metrics(self, substrate: Any, inputs: Array, targets: Array, *, key: PRNGKeyArray) -> Metrics:
        outputs = Backpropagation().outputs(substrate, inputs)
        alone = classification(outputs, targets)["accuracy"]
        return super().metrics(substrate, inputs, targets, key=key) | {"deterministic": alone}


def beside(parts: Mapping[str, xr.Dataset], kinds: Mapping[str, Kind]) -> xr.Dataset:
    """What `PerceptronConfig.trainings` gave: errors over (kind, epoch, seed); a and g of each kind that has them."""
    joined = join_blocks("seed", parts)
    together = along("kind", {kind: joined[kind] for kind in kinds})
    stacks = [make(range(1)) for make in kinds.values()]
    quantised = [stack if isinstance(stack, QuantizedPerceptron) else None for stack in stacks]
    a = [np.nan if stack is None else float(stack.width[0]) for stack in quantised]
    g = [np.nan if stack is None else _strength(stack) for stack in quantised]
    return together.assign_coords(a=("kind", a), g=("kind", g))


def swept(
    errors: xr.Dataset, dim: str, values: Sequence[float], members: range, attributes: dict | None = None
) -> xr.Dataset:
    """Errors of a stack with one network for each of some values, under names of their own."""
    renamed = errors.rename({name: f"sweep_{name}" for name in errors} | {"member": dim, "epoch": "epoch_s"})
    return renamed.assign_coords({dim: (dim, [values[index] for index in members], attributes)})


def _is_random(stack: Any) -> bool:
    """Whether two shots can differ: one is enough of a classical network."""
    return not isinstance(stack, QuantizedPerceptron) or stack.strength is not None or bool(stack.width.any())


def _strength(stack: Any) -> float:
    return np.pi / 2 if stack.strength is None else float(stack.strength[0])


def draw_errors(axes: Axes, errors: xr.DataArray, title: str, labels: Mapping[str, str] = MappingProxyType({})) -> None:
    """Error over epochs of each kind: mean over seeds, and their range."""
    for kind, colour in zip(errors.kind.values, COLOURS, strict=False):
        mean_and_range(axes, errors.epoch, errors.sel(kind=kind), color=colour, label=labels.get(kind, kind))
    low = float(errors.min())
    axes.set(xlabel="epoch", ylabel="validation error", title=title, ylim=(0.9 * low, 1.8 * low))
