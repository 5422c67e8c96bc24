"""What the experiments with quantised perceptrons share: Table I, one way to train and judge, and intervals."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from jaxtyping import Array, PRNGKeyArray
from matplotlib.axes import Axes
from pydantic import Field, model_validator
from scipy import stats

from morphax._checks import check_range
from morphax.lab.experiment import BaseConfig, parameter
from morphax.lab.figures import BLUE, GREEN, GREY, ORANGE, RED, VIOLET
from morphax.lab.progress import Progress
from morphax.learning.backprop import Backpropagation
from morphax.learning.objectives import classification
from morphax.learning.rule import Metrics
from morphax.learning.train import Trained, train
from morphax.learning.voting import MajorityVote
from morphax.substrates.quantized import Backward, BinarisedPerceptron, QuantizedPerceptron
from morphax.tasks import Task, mnist

CLASSICAL, HTANH, ACTIVATION = "classical", "htanh", "activation"
# The paper's best points: rotation (a), weak measurement (g), both (a, g); and the validation errors it printed there.
BEST_WIDTH, BEST_STRENGTH, BEST_BOTH = 10**-0.5, 5 * np.pi / 19, (10 ** (-1 / 3), 9 * np.pi / 19)
ROTATION_ERROR, WEAK_ERROR, BOTH_ERROR = 0.0472, 0.0529, 0.0463
NonNegative = Annotated[float, Field(ge=0)]
Steps = Annotated[int, Field(ge=0, le=19)]
"""A strength g in units of pi / 38: the paper's points are multiples of pi / 19."""
COLOURS = (RED, BLUE, ORANGE, GREEN, VIOLET, GREY)
SMALL = {"hidden": 32, "train_images": 320, "test_images": 200, "epochs": 4, "every": 2, "shots": 3, "seeds": 2}


class PerceptronConfig(BaseConfig):
    """Table I."""

    precision: Literal["double", "single"] = parameter("single", "floating-point precision of the run")
    seeds: int = parameter(3, "networks at the points of the claims", ge=2)
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

    def task(self) -> Task:
        """MNIST."""
        return mnist(self.train_images, self.test_images)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Inputs, hidden layers, outputs."""
        return (784, *[self.hidden] * self.layers, 10)

    def networks(
        self,
        key: PRNGKeyArray,
        width: float | Sequence[float] = 0.0,
        strength: float | Sequence[float] | None = None,
        backward: Backward = "htanh",
    ) -> BinarisedPerceptron:
        """A stack: one network for every width and strength, or `seeds` of them where both are one number."""
        check_range("width", width, low=0.0)  # under vmap networks cannot look
        check_range("strength", np.pi / 2 if strength is None else strength, low=0.0, high=np.pi / 2)
        shape = np.broadcast_shapes(np.shape(width), np.shape(0.0 if strength is None else strength))
        number = shape[0] if shape else self.seeds
        widths = jnp.broadcast_to(jnp.asarray(width, float), number)
        strengths = None if strength is None else jnp.broadcast_to(jnp.asarray(strength, float), number)

        def make(key: PRNGKeyArray, width: Array, strength: Array | None) -> QuantizedPerceptron:
            return QuantizedPerceptron.random(self.sizes, key=key, width=width, strength=strength, backward=backward)

        return eqx.filter_vmap(make)(jax.random.split(key, number), widths, strengths)


class Judged(MajorityVote):
    """A majority vote that is watched beside the deterministic answer."""

    def metrics(self, substrate: Any, inputs: Array, targets: Array, *, key: PRNGKeyArray) -> Metrics:
        outputs = Backpropagation().outputs(substrate, inputs)
        alone = classification(outputs, targets)["accuracy"]
        return super().metrics(substrate, inputs, targets, key=key) | {"deterministic": alone}


@cache
def _optimiser(learning_rate: float, momentum: float) -> optax.GradientTransformation:
    """Cached, so that all trainings share it and compile once."""
    return optax.sgd(learning_rate, momentum=momentum)


def trained(
    config: PerceptronConfig,
    networks: Any,
    key: PRNGKeyArray,
    progress: Progress,
    label: str,
    epochs: int | None = None,
    task: Task | None = None,
) -> tuple[xr.Dataset, Trained[Any]]:
    """Train a stack of networks, with the images of `config` or of `task`; errors over (epoch, member).

    "validation" is that of the majority of shots, "deterministic" that of the classical pass with the same weights,
    "training" that of the single shots of the last epoch.
    """
    task, epochs = config.task() if task is None else task, config.epochs if epochs is None else epochs
    batches = config.train_images // config.batch_size
    done = train(
        networks,
        Judged(Backpropagation(), config.shots if _is_random(networks) else 1),
        (task.train_inputs, task.train_targets),
        _optimiser(config.learning_rate, config.momentum),
        batches * epochs,
        key=key,
        batch_size=config.batch_size,
        watch={"validation": (task.test_inputs, task.test_targets)},
        ensemble=True,
        chunk=batches * config.every,
        checkpoint=progress.checkpoint(f"{label} training"),
        on_chunk=lambda rows: progress.record(
            label, [{"step": step, **row} for step, row in enumerate(rows) if "validation" in row]
        ),
    )
    seen = [row["validation"] for row in done.history if "validation" in row]
    ends = np.minimum(config.every * (1 + np.arange(len(seen))), epochs)
    single = 1 - np.array([row["accuracy"] for row in done.history])
    errors = {
        "validation": 1 - np.array([row["accuracy"] for row in seen]),
        "deterministic": 1 - np.array([row["deterministic"] for row in seen]),
        "training": np.array([single[batches * (end - 1) : batches * end].mean(0) for end in ends]),
    }
    units = {"units": "1", "long_name": "share of wrong answers"}
    dataset = xr.Dataset({name: (("epoch", "member"), values, units) for name, values in errors.items()})
    return dataset.assign_coords(epoch=ends), done


def trainings(
    config: PerceptronConfig, kinds: Mapping[str, Any], key: PRNGKeyArray, progress: Progress
) -> dict[str, Callable[[], xr.Dataset]]:
    """The pieces of a run that train a stack of `seeds` networks of each kind."""
    return {name: lambda name=name: trained(config, kinds[name], key, progress, name)[0] for name in kinds}


def beside(parts: Sequence[xr.Dataset], kinds: Mapping[str, Any]) -> xr.Dataset:
    """What `trainings` gave: errors over (kind, epoch, seed); a and g of each kind that has them."""
    together = xr.concat(parts, xr.Variable("kind", list(kinds))).rename(member="seed")
    quantised = [stack if isinstance(stack, QuantizedPerceptron) else None for stack in kinds.values()]
    a = [np.nan if stack is None else float(stack.width[0]) for stack in quantised]
    g = [np.nan if stack is None else _strength(stack) for stack in quantised]
    return together.assign_coords(seed=np.arange(together.sizes["seed"]), a=("kind", a), g=("kind", g))


def _is_random(stack: Any) -> bool:
    """Whether two shots can differ: one is enough of a classical network."""
    return not isinstance(stack, QuantizedPerceptron) or stack.strength is not None or bool(stack.width.any())


def _strength(stack: Any) -> float:
    return np.pi / 2 if stack.strength is None else float(stack.strength[0])


def draw_errors(axes: Axes, errors: xr.DataArray, title: str, labels: Mapping[str, str] = MappingProxyType({})) -> None:
    """Error over epochs of each kind: mean over seeds, and their range."""
    for kind, colour in zip(errors.kind.values, COLOURS, strict=False):
        part = errors.sel(kind=kind)
        axes.plot(part.epoch, part.mean("seed"), color=colour, label=labels.get(kind, kind))
        axes.fill_between(part.epoch, part.min("seed"), part.max("seed"), color=colour, alpha=0.2, linewidth=0)
    low = float(errors.min())
    axes.set(xlabel="epoch", ylabel="validation error", title=title, ylim=(0.9 * low, 1.8 * low))


def last(dataset: xr.Dataset, kind: str, name: str = "validation", **point: float) -> xr.DataArray:
    """Errors of all seeds of a kind after the last epoch; KeyError where the run had it at another `a` or `g`."""
    errors = dataset[name].sel(kind=kind).isel(epoch=-1)
    for coordinate, wanted in point.items():
        if not np.isclose(errors[coordinate], wanted):
            raise KeyError(f"{kind}: {coordinate} is {float(errors[coordinate])}, not {wanted}")
    return errors


def final(kind: str, name: str = "validation", **point: float) -> Callable[[xr.Dataset], float]:
    """Mean over seeds of `last`."""
    return lambda d: float(last(d, kind, name, **point).mean("seed"))


def advantage(
    better: str, worse: str = CLASSICAL, name: str = "validation", **point: float
) -> Callable[[xr.Dataset], float]:
    """Lower end of the 95 % interval (Welch) of how much smaller the error of one kind, at `point`, is than another's.

    The interval covers what differs between seeds: initial weights, order of images, outcomes of measurements; not the
    choice of the images.
    """

    def interval(dataset: xr.Dataset) -> float:
        first, second = last(dataset, worse, name).values, last(dataset, better, name, **point).values
        parts = [np.var(x, ddof=1) / len(x) for x in (first, second)]
        difference, square = np.mean(first) - np.mean(second), sum(parts)
        if square == 0:
            return float(difference)
        freedom = square**2 / sum(v**2 / (len(x) - 1) for v, x in zip(parts, (first, second), strict=True))
        return float(difference - stats.t.ppf(0.975, freedom) * np.sqrt(square))

    return interval
