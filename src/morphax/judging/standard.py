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

from morphax._checks import check_choice, check_count, check_range
from morphax._lazy import xr
from morphax.judging.recording import Recording
from morphax.judging.stimulus import Span
from morphax.learning.metrics import accuracy, nrmse
from morphax.learning.readout import Reading, answer, read_task
from morphax.substrates.base import Substrate
from morphax.tasks.base import Task
from morphax.tasks.channels import channel_equalisation, parity, symbol_errors
from morphax.tasks.chaos import lorenz, mackey_glass
from morphax.tasks.laser import santa_fe_laser
from morphax.tasks.memory import BOUND, narma, narma_outputs
from morphax.tasks.series import forecast
from morphax.tasks.waveforms import waveforms

TAPS = 50
"""Past inputs that the linear floor reads."""
SCALES = (0.1, 0.3, 1.0)
OFFSETS = (0.0, 0.5)
POINTS = 2000
"""Of training, and of test."""
HELD = 0.25
"""Share of the training points, at their end, on which scale and offset of the input are chosen."""


def wrong(outputs: Float[Array, "time outputs"], targets: Float[Array, "time outputs"]) -> Array:
    """The share of points that are classified wrongly."""
    return jnp.maximum(1 - accuracy(outputs, targets), 0.0)


class Standard(NamedTuple):
    """A task that devices are compared by: `make(key=...)`, what it asks for, and which error counts."""

    make: Callable[..., Task]
    asks: str
    error: Callable[[Array, Array], Array] = nrmse
    carried: bool = False
    """Whether its data come with another package (extra `data`)."""


def _laser() -> Task:
    """One point ahead, 4,000 points to train and 2,000 to test with; the same whatever the key."""
    points = 3 * POINTS + 1
    return forecast(santa_fe_laser()[:points], train_fraction=(2 * POINTS + 1) / points, washout=100)[0]


STANDARD = {
    "NARMA-2": Standard(lambda key: narma(2, POINTS, POINTS, key=key), "memory of 2, products"),
    "NARMA-10": Standard(lambda key: narma(10, POINTS, POINTS, key=key), "memory of 10, products"),
    "Mackey-Glass, 10 ahead": Standard(
        lambda key: mackey_glass((10,), POINTS, POINTS, key=key), "a smooth chaotic series"
    ),
    "Lorenz, x from x, 10 ahead": Standard(
        lambda key: lorenz(10, POINTS, POINTS, component="x", key=key), "a chaotic series that jumps"
    ),
    "parity of 2": Standard(lambda key: parity(2, POINTS, POINTS, key=key), "products of 2 inputs", wrong),
    "parity of 3": Standard(lambda key: parity(3, POINTS, POINTS, key=key), "products of 3 inputs", wrong),
    "channel, 24 dB": Standard(
        lambda key: channel_equalisation(POINTS, 2 * POINTS, signal_to_noise=24.0, key=key),
        "memory of 9, weak distortion",
        symbol_errors,
    ),
    "Santa Fe laser": Standard(lambda key: _laser(), "a measured chaotic series", carried=True),
    "sine or square": Standard(lambda key: waveforms(POINTS, POINTS, key=key), "memory of 4, thresholds", wrong),
}


USUAL = tuple(name for name, standard in STANDARD.items() if not standard.carried)
"""Those whose data are always there."""


def solve(
    substrate: Substrate,
    names: Sequence[str] = USUAL,
    *,
    seeds: int = 3,
    low: float = -1.0,
    high: float = 1.0,
    noises: Sequence[float] = (0.0,),
    scales: Sequence[float] = SCALES,
    offsets: Sequence[float] = OFFSETS,
    key: PRNGKeyArray,
) -> xr.Dataset:
    """Errors of a device at standard tasks, beside those of a constant and of a linear readout of past inputs.

    Inputs of a task are brought into [`low`, `high`]: around an offset, in units of half that range, and as far as a
    scale times what is then left of it. Both are decided by the last quarter of the training points, and the strength
    of the readout's ridge by cross-validation within the rest. The test points are looked at once.

    **Arguments:**

    - `substrate`: a device that takes one number an input.
    - `names`: of `STANDARD`.
    - `seeds`: repetitions, each a task of its own.
    - `noises`: on every reading, in units of its deviation; the readout is trained with it.

    **Returns:** a dataset over `task` and `seed` with the floors `constant` and `linear`, and, at every `noise`, the
    `error` of the device, and the `scale` and `offset` that were chosen. Errors are nrmse; of classifications, and of
    symbols, the share that is wrong.

    **Raises:** `ValueError` for another name.

        >>> import jax
        >>> from morphax import EchoStateNetwork
        >>> from morphax.judging.standard import solve
        >>> network = EchoStateNetwork.random(30, key=jax.random.key(0))
        >>> found = solve(network, ["parity of 2"], seeds=1, key=jax.random.key(1))
        >>> float(found.error[0, 0, 0]) < 0.01, float(found.linear[0, 0]) > 0.3
        (True, True)
    """
    for name in names:
        check_choice("names", name, tuple(STANDARD))
    check_count("seeds", seeds, 1)
    check_range("noises", noises, low=0.0)
    check_range("high", high, low=low, open_low=True)
    # Libraries of linear algebra that share cores with XLA wait for each other.
    with threadpool_limits(limits=1, user_api="blas"):
        asked = _Asked(Span(low, high), tuple(noises), [(scale, offset) for scale in scales for offset in offsets])
        rows = [[_row(substrate, name, seed, asked, key) for seed in range(seeds)] for name in names]
    return table(rows, names, [STANDARD[name].asks for name in names], noises)


def solve_recorded(
    recording: Recording, noises: Sequence[float] = (0.0,), *, washout: int = 200, key: PRNGKeyArray
) -> xr.Dataset:
    """Errors of what was recorded at tasks about its own input: NARMA and parities.

    NARMA's input, uniform in [0, 0.5], is the rank of the recorded one, and a bit is whether that is in the upper half;
    of several channels it is the first. The first half of the recording, of at most 4,000 points, trains the readout.

    **Returns:** as `solve`, for one seed. A NARMA that diverges is left out.
    """
    from scipy.stats import rankdata

    check_range("noises", noises, low=0.0)
    points = min(len(recording), washout + 2 * POINTS)
    first = recording.inputs[0:points][:, 0]
    rank = (rankdata(first) - 0.5) / points  # equal inputs share one
    bits = rank > 0.5
    targets: dict[str, np.ndarray] = {}
    for order in (2, 10):
        answers = np.asarray(narma_outputs(jnp.asarray(rank / 2), order))
        if np.max(answers) <= BOUND:
            targets[f"NARMA-{order}"] = answers
    for order in (2, 3):
        targets[f"parity of {order}"] = np.convolve(bits, np.ones(order))[:points] % 2
    read = jnp.asarray(np.asarray(recording.responses[0:points], float))
    split = washout + (points - washout) // 2
    rows = []
    with threadpool_limits(limits=1, user_api="blas"):
        for name, target in targets.items():
            inputs, wanted = jnp.asarray(rank), jnp.asarray(target)[:, None]
            task = Task(
                inputs[:split],
                wanted[:split],
                inputs[split:],
                wanted[split:],
                kind="classification" if name.startswith("parity") else "regression",
                washout=washout,
            )
            reading = Reading(read[washout:split], read[split:])
            measure = STANDARD[name].error
            errors = [float(_answered(reading, task, measure, jnp.asarray(noise), key)) for noise in noises]
            constant, linear = _floors(task, measure)
            rows.append([Solved(errors, [1.0] * len(errors), [0.0] * len(errors), float(constant), float(linear))])
    return table(rows, list(targets), [STANDARD[name].asks for name in targets], noises)


def table(rows: list[list[Solved]], names: Sequence[str], asks: Sequence[str], noises: Sequence[float]) -> xr.Dataset:
    """A row of repetitions for every task."""
    unit = {"units": "1"}

    def column(name: str) -> np.ndarray:
        return np.array([[getattr(each, name) for each in row] for row in rows])

    return xr.Dataset(
        {name: (("task", "seed", "noise"), column(name), unit) for name in ("error", "scale", "offset")}
        | {name: (("task", "seed"), column(name), unit) for name in ("constant", "linear")},
        {
            "task": list(names),
            "asks": ("task", list(asks)),
            "seed": np.arange(len(rows[0])),
            "noise": list(noises),
        },
    )


class Solved(NamedTuple):
    """One repetition of a task: errors, and what was chosen, at every noise; and the floors."""

    error: list[float]
    scale: list[float]
    offset: list[float]
    constant: float
    linear: float


class _Asked(NamedTuple):
    """The range of a device's input, noises on its readings, and scales and offsets that are tried."""

    span: Span
    noises: tuple[float, ...]
    candidates: list[tuple[float, float]]


def _row(substrate: Substrate, name: str, seed: int, asked: _Asked, key: PRNGKeyArray) -> Solved:
    """One repetition of a task, which is the same whatever else is asked."""
    standard = STANDARD[name]
    number = list(STANDARD).index(name)
    task_key, run_key = jax.random.split(jax.random.fold_in(jax.random.fold_in(key, number), seed))
    task = standard.make(key=task_key)
    chosen = _chosen(substrate, task, standard.error, asked, run_key)
    # Once for each choice, however many noises share it.
    found = {
        each: _errors(substrate, _scaled(task, task, asked.span, *each), standard.error, asked.noises, run_key)
        for each in dict.fromkeys(chosen)
    }
    fits = [float(found[each][place]) for place, each in enumerate(chosen)]
    constant, linear = _floors(task, standard.error)
    return Solved(fits, [scale for scale, _ in chosen], [by for _, by in chosen], float(constant), float(linear))


def _chosen(
    substrate: Substrate,
    task: Task,
    measure: Callable[[Array, Array], Array],
    asked: _Asked,
    key: PRNGKeyArray,
) -> list[tuple[float, float]]:
    """Scale and offset that do best on the end of the training part, at every noise."""
    split = round((1 - HELD) * len(task.train_inputs))
    trial = Task(
        task.train_inputs[:split],
        task.train_targets[:split],
        task.train_inputs[split:],
        task.train_targets[split:],
        kind=task.kind,
        washout=task.washout,
    )
    errors = [
        _errors(substrate, _scaled(trial, task, asked.span, *each), measure, asked.noises, key)
        for each in asked.candidates
    ]
    # Where a device leaves all bounds, it is not driven so.
    finite = np.nan_to_num(np.array(errors), nan=np.inf)
    return [asked.candidates[place] for place in np.argmin(finite, axis=0)]


def _scaled(task: Task, whole: Task, span: Span, scale: float, offset: float) -> Task:
    """A task with inputs within the range, by the training inputs of the whole."""
    least, most = jnp.min(whole.train_inputs), jnp.max(whole.train_inputs)

    def into(inputs: Array) -> Array:
        return span.into((2 * inputs - least - most) / jnp.maximum(most - least, 1e-12), scale, offset)

    return eqx.tree_at(lambda t: (t.train_inputs, t.test_inputs), task, replace_fn=into)


def _errors(
    substrate: Substrate,
    task: Task,
    measure: Callable[[Array, Array], Array],
    noises: Sequence[float],
    key: PRNGKeyArray,
) -> Float[np.ndarray, " noises"]:
    """Of readouts that are fitted on the training part, on the test part."""
    run, meter = jax.random.split(key)
    # A device outside is asked by this process, and not from within a program.
    reading = (_reading if substrate.differentiable else read_task)(substrate, task, key=run)
    return np.array([float(_answered(reading, task, measure, jnp.asarray(noise), meter)) for noise in noises])


_reading = eqx.filter_jit(read_task)


@eqx.filter_jit
def _answered(
    reading: Reading, task: Task, measure: Callable[[Array, Array], Array], noise: Array, key: PRNGKeyArray
) -> Array:
    """The error of a readout, with noise on every reading in units of its deviation, which is the readout's unit."""
    mean, deviation = jnp.mean(reading.train, axis=0), jnp.std(reading.train, axis=0)
    size = jnp.where(deviation > 0, deviation, 1.0)
    train, test = (
        (part - mean) / size + noise * jax.random.normal(each, part.shape, part.dtype)
        for part, each in zip((reading.train, reading.test), jax.random.split(key), strict=True)
    )
    return measure(answer(Reading(train, test), task, ridge="cross-validate")[0], task.test_targets)


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
