"""Standard tasks, each with what does without a device, so that a number means something."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray
from threadpoolctl import threadpool_limits

from morphax._checks import check_choice, check_count
from morphax._lazy import xr
from morphax.learning.metrics import accuracy, nrmse
from morphax.learning.readout import Reading, answer, read_task
from morphax.substrates.base import Substrate
from morphax.tasks.base import Task
from morphax.tasks.channels import channel_equalisation, parity, symbol_errors
from morphax.tasks.chaos import lorenz, mackey_glass
from morphax.tasks.memory import narma
from morphax.tasks.waveforms import waveforms

TAPS = 50
"""Past inputs that the linear floor reads."""
SCALES = (0.1, 0.3, 1.0)
OFFSETS = (0.0, 0.5)
HELD = 0.25
"""Share of the training points, at their end, on which scale and offset of the input are chosen."""


def wrong(outputs: Float[Array, "time outputs"], targets: Float[Array, "time outputs"]) -> Array:
    """The share of points that are classified wrongly."""
    return 1 - accuracy(outputs, targets)


class Standard(NamedTuple):
    """A task that devices are compared by: `make(key=...)`, what it asks for, and which error counts."""

    make: Callable[..., Task]
    asks: str
    error: Callable[[Array, Array], Array] = nrmse


STANDARD = {
    "NARMA-2": Standard(lambda key: narma(2, 2000, 2000, key=key), "memory of 2, products"),
    "NARMA-10": Standard(lambda key: narma(10, 2000, 2000, key=key), "memory of 10, products"),
    "Mackey-Glass, 10 ahead": Standard(lambda key: mackey_glass((10,), 2000, 2000, key=key), "a smooth chaotic series"),
    "Lorenz, x from x, 10 ahead": Standard(
        lambda key: lorenz(10, 2000, 2000, component="x", key=key), "a chaotic series that jumps"
    ),
    "parity of 2": Standard(lambda key: parity(2, 2000, 2000, key=key), "products of 2 inputs", wrong),
    "parity of 3": Standard(lambda key: parity(3, 2000, 2000, key=key), "products of 3 inputs", wrong),
    "channel, 24 dB": Standard(
        lambda key: channel_equalisation(2000, 4000, signal_to_noise=24.0, key=key),
        "memory of 9, weak distortion",
        symbol_errors,
    ),
    "sine or square": Standard(lambda key: waveforms(2000, 2000, key=key), "memory of 4, thresholds", wrong),
}


def solve(
    substrate: Substrate,
    names: Sequence[str] = tuple(STANDARD),
    *,
    seeds: int = 3,
    low: float = -1.0,
    high: float = 1.0,
    noise: float = 0.0,
    scales: Sequence[float] = SCALES,
    offsets: Sequence[float] = OFFSETS,
    key: PRNGKeyArray,
) -> xr.Dataset:
    """Errors of a device at standard tasks, beside those of a constant and of a linear readout of past inputs.

    Inputs of a task are brought into [`low`, `high`], times a scale, plus an offset in units of half that range; which,
    is decided by the last quarter of the training points, and the strength of the readout's ridge by cross-validation
    within the rest. The test points are looked at once.

    **Arguments:**

    - `substrate`: a device that takes one number an input.
    - `names`: of `STANDARD`.
    - `seeds`: repetitions, each a task of its own.
    - `noise`: on every reading, as `read_task` has it.

    **Returns:** a dataset over `task` and `seed` with `error` of the device, `constant` and `linear`, and the `scale`
    and `offset` that were chosen. Errors are nrmse; of classifications, and of symbols, the share that is wrong.

    **Raises:** `ValueError` for another name.

        >>> import jax
        >>> from morphax import EchoStateNetwork
        >>> from morphax.judging.standard import solve
        >>> network = EchoStateNetwork.random(30, key=jax.random.key(0))
        >>> found = solve(network, ["parity of 2"], seeds=1, key=jax.random.key(1))
        >>> float(found.error[0, 0]) < 0.01, float(found.linear[0, 0]) > 0.3
        (True, True)
    """
    for name in names:
        check_choice("names", name, tuple(STANDARD))
    check_count("seeds", seeds, 1)
    # Libraries of linear algebra that share cores with XLA wait for each other.
    with threadpool_limits(limits=1, user_api="blas"):
        asked = _Asked(low, high, jnp.asarray(noise), [(scale, offset) for scale in scales for offset in offsets])
        rows = [[_row(substrate, name, seed, asked, key) for seed in range(seeds)] for name in names]
    table = np.array(rows)
    columns = ("error", "constant", "linear", "scale", "offset")
    unit = {"units": "1"}
    return xr.Dataset(
        {column: (("task", "seed"), table[:, :, place], unit) for place, column in enumerate(columns)},
        {
            "task": list(names),
            "asks": ("task", [STANDARD[name].asks for name in names]),
            "seed": np.arange(seeds),
        },
    )


class _Asked(NamedTuple):
    """The range of a device's input, noise on its readings, and scales and offsets that are tried."""

    low: float
    high: float
    noise: Array
    candidates: list[tuple[float, float]]


def _row(substrate: Substrate, name: str, seed: int, asked: _Asked, key: PRNGKeyArray) -> tuple[float, ...]:
    """Error, floors, and what was chosen, of one repetition of a task, which is the same whatever else is asked."""
    place, standard = list(STANDARD).index(name), STANDARD[name]
    task_key, run_key = jax.random.split(jax.random.fold_in(jax.random.fold_in(key, place), seed))
    task = standard.make(key=task_key)
    scale, offset = _chosen(substrate, task, standard.error, asked, run_key)
    fitted = _scaled(task, task, asked, scale, offset)
    error = _error(substrate, fitted, standard.error, asked.noise, run_key)
    constant, linear = _floors(task, standard.error)
    return float(error), float(constant), float(linear), scale, offset


def _chosen(
    substrate: Substrate,
    task: Task,
    measure: Callable[[Array, Array], Array],
    asked: _Asked,
    key: PRNGKeyArray,
) -> tuple[float, float]:
    """Scale and offset that do best on the end of the training part."""
    split = round((1 - HELD) * len(task.train_inputs))
    trial = Task(
        task.train_inputs[:split],
        task.train_targets[:split],
        task.train_inputs[split:],
        task.train_targets[split:],
        kind=task.kind,
        washout=task.washout,
    )
    tried = [_scaled(trial, task, asked, *each) for each in asked.candidates]
    errors = [float(_error(substrate, each, measure, asked.noise, key)) for each in tried]
    return asked.candidates[int(np.argmin(errors))]


def _scaled(task: Task, whole: Task, asked: _Asked, scale: float, offset: float) -> Task:
    """A task with inputs around the middle of the range, by the training inputs of the whole."""
    least, most = jnp.min(whole.train_inputs), jnp.max(whole.train_inputs)
    middle, half = (asked.low + asked.high) / 2, (asked.high - asked.low) / 2

    def into(inputs: Array) -> Array:
        unit = (2 * inputs - least - most) / jnp.maximum(most - least, 1e-12)
        return middle + half * (scale * unit + offset)

    return eqx.tree_at(lambda t: (t.train_inputs, t.test_inputs), task, replace_fn=into)


@eqx.filter_jit
def _error(
    substrate: Substrate, task: Task, measure: Callable[[Array, Array], Array], noise: Array, key: PRNGKeyArray
) -> Array:
    """Of a readout that is fitted on the training part, on the test part."""
    reading = read_task(substrate, task, noise=noise, key=key)
    return measure(answer(reading, task, ridge="cross-validate")[0], task.test_targets)


@eqx.filter_jit
def _floors(task: Task, measure: Callable[[Array, Array], Array]) -> tuple[Array, Array]:
    """What the mean of the training targets answers, and what a linear readout of the last inputs does."""
    mean = jnp.mean(task.train_targets[task.washout :], axis=0)
    constant = measure(jnp.broadcast_to(mean, task.test_targets.shape), task.test_targets)
    inputs = jnp.concatenate([task.train_inputs, task.test_inputs])
    places = jnp.arange(len(inputs))[:, None] - jnp.arange(TAPS)
    read = jnp.where(places >= 0, inputs[jnp.maximum(places, 0)], 0.0)
    split = len(task.train_inputs)
    reading = Reading(read[task.washout : split], read[split:])
    return constant, measure(answer(reading, task, ridge="cross-validate")[0], task.test_targets)
