"""How well do linear classifiers read the digits?"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray
from pydantic import model_validator

from morphax._lazy import xr
from morphax.experiments.phase_oscillators._claims import PAPER
from morphax.experiments.phase_oscillators._training import check_held_out, check_images
from morphax.experiments.phase_oscillators.paper import WANG
from morphax.lab.blocks import Blocks
from morphax.lab.experiment import BEYOND, BaseConfig, Claim, Experiment, parameter
from morphax.lab.figures import BLUE, GREY, RED, Figures, mean_and_range, new_figure
from morphax.lab.progress import Progress, along
from morphax.learning.ensemble import member_keys
from morphax.tasks import Task, as_labels, hold_out, phase_digits

ROWS = range(len(PAPER))
Layers = tuple[eqx.nn.Linear, eqx.nn.Linear]


def at(variable: str, row: int) -> Callable[[xr.Dataset], float]:
    """Mean over seeds."""
    return lambda d: float(d[variable].sel(row=row).mean("seed"))


class Linear(Experiment):
    """Table II, last column: linear classifiers of the size of the layered networks, trained as App. B says.

    Two layers with linear activations, the mean squared error to one-hot targets, Adam for 100 epochs in shuffled
    batches of ten images. "best" is the highest test accuracy of an epoch, as the paper reports it, "last" that of the
    last one; "validated" that of a second training, on four fifths of the training images, after the epoch that was
    best on the other fifth, of equals the first. Not printed: the learning rate and the first weights, here those that
    TensorFlow has where none are given (0.001; Glorot, uniform).
    """

    class Config(BaseConfig):
        seeds: int = parameter(10, "trainings of each size", ge=1, extent=True)
        epochs: int = parameter(100, "over the training images", ge=1)
        batch_size: int = parameter(10, "images in an update", ge=1)
        learning_rate: float = parameter(1e-3, "of Adam (not printed)", gt=0)
        train_per_class: int = parameter(100, "images of each digit to train with", ge=2, le=170)
        test_per_class: int = parameter(70, "images of each digit to test with", ge=1, le=173)
        validation_fraction: float = parameter(0.2, "part of the training images held out", gt=0, lt=1)

        @model_validator(mode="after")
        def _images_suffice(self) -> Self:
            check_images(self)
            check_held_out(self, 10 * self.train_per_class)
            if self.batch_size > 10 * self.train_per_class:
                raise ValueError(f"batch_size is {self.batch_size}; there are {10 * self.train_per_class} images")
            return self

    name = "phase-oscillators/linear"
    quick = {"seeds": 2, "epochs": 5, "train_per_class": 20, "test_per_class": 10}
    paper = WANG
    claims = (
        *(
            Claim.within(
                f"linear classifier 64-{PAPER[row].hidden}-10: best test accuracy (%)",
                PAPER[row].linear,
                at("best", row),
                source="Tab. II; ours: 1.5 points",
                tolerance=1.5,
                item="linear",
            )
            for row in ROWS
        ),
        *(
            Claim.reported(
                f"linear classifier 64-{PAPER[row].hidden}-10: validated test accuracy (%)",
                at("validated", row),
                source="ours",
                item=BEYOND,
            )
            for row in ROWS
        ),
    )

    def run(self, config: Config, *, key: PRNGKeyArray, progress: Progress) -> xr.Dataset:
        task = as_labels(phase_digits(config.train_per_class, config.test_per_class))
        held_key, *keys = jax.random.split(key, 1 + len(ROWS))
        work = {f"size {row}": partial(_trained, config, row, task, keys[row], held_key) for row in ROWS}
        seeds = Blocks("seed", config.seeds, 5)
        parts = seeds.join(progress.pieces(seeds.split(work)))
        return along("row", {row: parts[f"size {row}"] for row in ROWS})

    def figures(self, dataset: xr.Dataset) -> Figures:
        figure = new_figure(10, 3.6)
        for axes, row in zip(figure.subplots(1, len(ROWS), sharey=True), ROWS, strict=True):
            accuracy = dataset.accuracy.sel(row=row)
            mean_and_range(axes, dataset.epoch, accuracy, color=BLUE, label="test accuracy")
            axes.axhline(PAPER[row].linear, color=RED, linewidth=0.8, label="Tab. II")
            axes.axhline(at("validated", row)(dataset), color=GREY, linestyle="--", label="validated")
            axes.set(xlabel="epoch", title=f"64-{PAPER[row].hidden}-10", ylim=(80, 95))
        figure.axes[0].set_ylabel("test accuracy (%)")
        figure.axes[0].legend(fontsize="small", loc="lower right")
        return {"linear": figure}


def _trained(
    config: Linear.Config, row: int, task: Task, key: PRNGKeyArray, held_key: PRNGKeyArray, seeds: range
) -> xr.Dataset:
    """Test accuracies of some seeds after every epoch, and those that a choice on held-out images gives."""
    sizes = (task.train_inputs.shape[-1], PAPER[row].hidden, task.train_targets.shape[-1])
    held = hold_out(*task.train, config.validation_fraction, key=held_key)
    train = partial(_courses, config, sizes)
    keys = member_keys(key, seeds)
    (accuracy,) = jax.vmap(lambda k: train(task.train, (task.test,), k))(keys)
    chosen, test = jax.vmap(lambda k: train(held.train, (held.validation, task.test), k))(keys)
    validated = jnp.take_along_axis(test, jnp.argmax(chosen, axis=1)[:, None], axis=1)[:, 0]
    values = {
        "best": ("seed", accuracy.max(axis=1)),
        "last": ("seed", accuracy[:, -1]),
        "validated": ("seed", validated),
        "accuracy": (("seed", "epoch"), accuracy),
    }
    about = {"units": "%", "long_name": "test accuracy"}
    return xr.Dataset(
        {name: (dims, 100 * np.asarray(x, float), about) for name, (dims, x) in values.items()},
        {"seed": list(seeds), "epoch": 1 + np.arange(config.epochs)},
    )


def _courses(
    config: Linear.Config,
    sizes: tuple[int, int, int],
    data: tuple[Array, Array],
    watched: tuple[tuple[Array, Array], ...],
    key: PRNGKeyArray,
) -> tuple[Float[Array, " epochs"], ...]:
    """Accuracies on the watched data after every epoch of a training."""
    inputs, targets = data
    first_key, second_key, order_key = jax.random.split(key, 3)
    layers = _glorot(*sizes[:2], key=first_key), _glorot(*sizes[1:], key=second_key)
    adam = optax.adam(config.learning_rate)
    batches = len(inputs) // config.batch_size

    def answers(layers: Layers, inputs: Array) -> Array:
        return jax.vmap(lambda x: layers[1](layers[0](x.ravel())))(inputs)

    @jax.grad
    def slope(layers: Layers, inputs: Array, targets: Array) -> Array:
        return jnp.mean((answers(layers, inputs) - targets) ** 2)

    def update(carry: tuple[Layers, optax.OptState], chosen: Array) -> tuple[tuple[Layers, optax.OptState], None]:
        layers, memory = carry
        changes, memory = adam.update(slope(layers, inputs[chosen], targets[chosen]), memory)
        return (eqx.apply_updates(layers, changes), memory), None

    def epoch(carry: tuple[Layers, optax.OptState], key: PRNGKeyArray) -> tuple[tuple[Layers, optax.OptState], Array]:
        order = jax.random.permutation(key, len(inputs))[: batches * config.batch_size]
        carry, _ = jax.lax.scan(update, carry, order.reshape(batches, -1))
        right = [jnp.argmax(answers(carry[0], x), -1) == jnp.argmax(y, -1) for x, y in watched]
        return carry, jnp.stack([jnp.mean(part) for part in right])

    _, courses = jax.lax.scan(
        epoch, (layers, adam.init(eqx.filter(layers, eqx.is_array))), jax.random.split(order_key, config.epochs)
    )
    return tuple(courses.T)


def _glorot(inputs: int, outputs: int, *, key: PRNGKeyArray) -> eqx.nn.Linear:
    """A layer with weights uniform in +- sqrt(6 / (inputs + outputs)), and no bias yet."""
    layer = eqx.nn.Linear(inputs, outputs, key=key)
    weight = jax.nn.initializers.glorot_uniform()(key, (outputs, inputs))
    return eqx.tree_at(lambda linear: (linear.weight, linear.bias), layer, (weight, jnp.zeros(outputs)))
