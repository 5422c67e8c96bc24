"""What a task is: inputs and what should be answered to each."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from morphax._checks import check_choice, check_count, check_finite

Kind = Literal["classification", "regression"]
Arrangement = Literal["stream", "sequences", "inputs"]
KINDS: tuple[Kind, ...] = ("classification", "regression")
ARRANGEMENTS: tuple[Arrangement, ...] = ("stream", "sequences", "inputs")
Pair = tuple[Float[Array, "examples time channels"], Float[Array, "examples ..."]]


class Task(eqx.Module):
    """Inputs and targets for training and for testing, in one of three arrangements.

    - `"stream"`: one long drive; the first axis is time, inputs are (time,) or (time, channels). The substrate sees the
      training inputs and then, without interruption, the test inputs. The first `washout` training points drive the
      substrate but enter no fit and no score; of the test points none is discarded.
    - `"sequences"`: many drives, (examples, time) or (examples, time, channels), to each of which the substrate starts
      afresh. Targets are (examples, outputs), of the end, or (examples, time, outputs).
    - `"inputs"`: vectors that are presented at once, (examples, channels); targets (examples, outputs).

    `train` and `test` are pairs (inputs, targets) as learning rules take them, whatever the arrangement; views lead
    from one arrangement to another: `as_sequences`, `as_vectors`, `windows`, `held`.

    A function that makes a task takes a random `key`, so an ensemble of tasks is `jax.vmap(make)(keys)`.

    **Raises:** `ValueError` for another kind or arrangement, other numbers of inputs and targets, axes that the
    arrangement does not have, NaN or infinity, a washout that leaves nothing or belongs to no stream.

        >>> import jax
        >>> from morphax.tasks import waveforms
        >>> task = waveforms(train_points=80, test_points=40, key=jax.random.key(0))
        >>> task.train_inputs.shape, task.train_targets.shape, task.kind
        ((80,), (80, 1), 'classification')
        >>> [x.shape for x in (*task.train, *task.test)]
        [(1, 80, 1), (1, 80, 1), (1, 120, 1), (1, 40, 1)]
    """

    train_inputs: Float[Array, "train ..."]
    train_targets: Float[Array, "train outputs"]
    test_inputs: Float[Array, "test ..."]
    test_targets: Float[Array, "test outputs"]
    kind: Kind = eqx.field(static=True)
    arrangement: Arrangement = eqx.field(static=True, default="stream")
    washout: int = eqx.field(static=True, default=0)
    reference: str = eqx.field(static=True, default="")

    def __check_init__(self) -> None:
        check_choice("kind", self.kind, KINDS)
        check_choice("arrangement", self.arrangement, ARRANGEMENTS)
        axes = {"stream": (1, 2), "sequences": (2, 3), "inputs": (2,)}[self.arrangement]
        for part in ("train", "test"):
            inputs, targets = getattr(self, f"{part}_inputs"), getattr(self, f"{part}_targets")
            if inputs.ndim not in axes:
                raise ValueError(
                    f"{part}_inputs has shape {inputs.shape}; arranged as {self.arrangement!r} it must have "
                    f"{' or '.join(map(str, axes))} axes"
                )
            if targets.ndim not in ((2, 3) if self.arrangement == "sequences" else (2,)):
                raise ValueError(f"{part}_targets has shape {targets.shape}; its last axis must count outputs")
            if len(inputs) != len(targets) or not len(inputs):
                raise ValueError(
                    f"{part}_inputs has {len(inputs)} rows, {part}_targets {len(targets)}; both must have as many, at "
                    "least 1"
                )
            check_finite(f"{part}_inputs", inputs)
            check_finite(f"{part}_targets", targets)
            # Sequences may be of other lengths.
            skipped = 2 if self.arrangement == "sequences" else 1
            if inputs.shape[skipped:] != self.train_inputs.shape[skipped:]:
                raise ValueError(
                    f"test_inputs has shape {inputs.shape}; one input must have shape "
                    f"{self.train_inputs.shape[skipped:]} as in train_inputs"
                )
            if targets.shape[-1] != self.train_targets.shape[-1]:
                raise ValueError(
                    f"test_targets has {targets.shape[-1]} columns, train_targets {self.train_targets.shape[-1]}; both "
                    "must have as many"
                )
            if targets.ndim == 3 and targets.shape[1] > inputs.shape[1]:
                raise ValueError(
                    f"{part}_targets has {targets.shape[1]} points in time; there must not be more than in "
                    f"{part}_inputs, {inputs.shape[1]}"
                )
        if self.washout and self.arrangement != "stream":
            raise ValueError(f"washout is {self.washout}; only a stream has one, so it must be 0")
        check_count("washout", self.washout, 0, len(self.train_inputs) - 1)

    @property
    def channels(self) -> int:
        """How many numbers one input holds."""
        has_axis = self.train_inputs.ndim == (3 if self.arrangement == "sequences" else 2)
        return self.train_inputs.shape[-1] if has_axis else 1

    @property
    def outputs(self) -> int:
        """How many numbers are to be answered."""
        return self.train_targets.shape[-1]

    @property
    def train(self) -> Pair:
        """Inputs, shape (examples, time, channels), and targets to learn from.

        A stream is one example, whose targets begin after the washout: a rule compares the last points. A vector is a
        sequence of one input.
        """
        if self.arrangement == "stream":
            return self._with_axes(self.train_inputs)[None], self.train_targets[None, self.washout :]
        return self._with_axes(self.train_inputs), self.train_targets

    @property
    def test(self) -> Pair:
        """Likewise, to be judged by. Of a stream the inputs are all, and the targets those of the test points."""
        if self.arrangement == "stream":
            return self._with_axes(jnp.concatenate([self.train_inputs, self.test_inputs]))[None], self.test_targets[
                None
            ]
        return self._with_axes(self.test_inputs), self.test_targets

    def _with_axes(self, inputs: Array) -> Array:
        if self.arrangement == "inputs":
            return inputs[:, None]
        return inputs if inputs.ndim == (3 if self.arrangement == "sequences" else 2) else inputs[..., None]


def as_sequences(task: Task) -> Task:
    """The numbers of every vector one after the other: sequences of one channel.

    >>> from morphax.tasks import as_sequences, xor
    >>> as_sequences(xor()).train_inputs.shape, as_sequences(xor()).channels
    ((4, 2), 1)
    """
    _check_arranged("as_sequences", task, "inputs")
    return replace(task, arrangement="sequences")


def as_vectors(task: Task) -> Task:
    """All numbers of every sequence at once, as one vector; of targets in time the last."""
    _check_arranged("as_vectors", task, "sequences")
    flat = [x.reshape(len(x), -1) for x in (task.train_inputs, task.test_inputs)]
    ends = [y if y.ndim == 2 else y[:, -1] for y in (task.train_targets, task.test_targets)]
    if flat[0].shape[1] != flat[1].shape[1]:
        raise ValueError(
            f"test_inputs holds {flat[1].shape[1]} numbers an example, train_inputs {flat[0].shape[1]}; both must hold "
            "as many"
        )
    return replace(
        task,
        train_inputs=flat[0],
        train_targets=ends[0],
        test_inputs=flat[1],
        test_targets=ends[1],
        arrangement="inputs",
    )


def windows(task: Task, length: int, *, every: int = 1) -> Task:
    """A stream cut into sequences of `length` inputs, each with the target of its last point.

    One window ends at every point (or each `every`-th) that the stream scores: training points after the washout that
    have enough before them, and all test points, whose windows reach back into what was seen before.

    **Raises:** `ValueError` for a task that is no stream, and a length for which no training window is left.

        >>> import jax
        >>> from morphax.tasks import waveforms, windows
        >>> task = windows(waveforms(80, 40, key=jax.random.key(0)), 8)
        >>> task.train_inputs.shape, task.test_inputs.shape, task.test_targets.shape
        ((73, 8), (40, 8), (40, 1))
    """
    _check_arranged("windows", task, "stream")
    points = len(task.train_inputs)
    check_count("length", length, 1, points)
    check_count("every", every, 1)
    inputs = jnp.concatenate([task.train_inputs, task.test_inputs])
    targets = jnp.concatenate([task.train_targets, task.test_targets])
    ends = np.arange(max(length - 1, task.washout), len(inputs))
    parts = []
    for chosen in (ends[ends < points][::every], ends[ends >= points][::every]):
        parts += [inputs[chosen[:, None] - np.arange(length)[::-1]], targets[chosen]]
    return replace(
        task,
        train_inputs=parts[0],
        train_targets=parts[1],
        test_inputs=parts[2],
        test_targets=parts[3],
        arrangement="sequences",
        washout=0,
    )


def held(task: Task, intervals: int) -> Task:
    """Every vector held for so many input intervals: sequences of equal inputs, for a substrate that takes its time.

    >>> from morphax.tasks import held, xor
    >>> held(xor(), 5).train_inputs.shape
    (4, 5, 2)
    """
    _check_arranged("held", task, "inputs")
    check_count("intervals", intervals, 1)
    parts = [jnp.repeat(x[:, None], intervals, axis=1) for x in (task.train_inputs, task.test_inputs)]
    return replace(task, train_inputs=parts[0], test_inputs=parts[1], arrangement="sequences")


def as_phases(task: Task) -> Task:
    r"""Inputs and targets as phases: the range of the training part becomes $[-\pi/2, \pi/2]$.

    0 and 1 of a classification become $\mp \pi/2$, as `phase_classification` reads them. One map serves all channels,
    and one all outputs; test values beyond the range are mapped beyond it.

        >>> import jax
        >>> from morphax.tasks import as_phases, waveforms
        >>> task = as_phases(waveforms(80, 40, key=jax.random.key(0)))
        >>> float(task.train_inputs.max()), sorted(set(task.train_targets.ravel().tolist()))
        (1.570796..., [-1.570796..., 1.570796...])
    """

    def mapped(train: Array, test: Array) -> tuple[Array, Array]:
        low, high = jnp.min(train), jnp.max(train)
        width = jnp.where(high > low, high - low, 1.0)
        train, test = (jnp.pi * ((x - low) / width - 0.5) for x in (train, test))
        return train, test

    train_inputs, test_inputs = mapped(task.train_inputs, task.test_inputs)
    train_targets, test_targets = mapped(task.train_targets, task.test_targets)
    return replace(
        task,
        train_inputs=train_inputs,
        train_targets=train_targets,
        test_inputs=test_inputs,
        test_targets=test_targets,
    )


def as_labels(task: Task) -> Task:
    """A classification whose targets are phases with 1 for what is positive and 0 for what is not.

    >>> from morphax.tasks import as_labels, xor
    >>> as_labels(xor()).train_targets[:, 0].tolist()
    [0.0, 1.0, 1.0, 0.0]
    """
    if task.kind != "classification":
        raise ValueError(f"kind is {task.kind!r}; as_labels takes a task of kind 'classification'")
    train, test = ((y > 0).astype(y.dtype) for y in (task.train_targets, task.test_targets))
    return replace(task, train_targets=train, test_targets=test)


def _check_arranged(view: str, task: Task, arrangement: Arrangement) -> None:
    if task.arrangement != arrangement:
        ways = {
            ("stream", "inputs"): "windows first",
            ("stream", "sequences"): "windows",
            ("sequences", "inputs"): "as_vectors first",
            ("inputs", "sequences"): "held or as_sequences first",
        }
        hint = ways.get((task.arrangement, arrangement), "another view")
        raise ValueError(
            f"arrangement is {task.arrangement!r}; {view} takes a task arranged as {arrangement!r}: use {hint}"
        )


def one_hot(labels: ArrayLike | Sequence[int], classes: int) -> Float[Array, "examples classes"]:
    """Labels 0 to `classes` - 1 as rows with a 1 at the label and else 0.

    **Raises:** `ValueError` for a label that is no class, saying where.

        >>> from morphax.tasks.base import one_hot
        >>> one_hot([2, 0], 3).tolist()
        [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
    """
    check_count("classes", classes, 1)
    numbers = np.asarray(labels)
    wrong = np.argwhere((numbers < 0) | (numbers >= classes) | (numbers != np.floor(numbers)))
    if numbers.ndim != 1 or len(wrong):
        what = f"has shape {numbers.shape}" if numbers.ndim != 1 else f"[{wrong[0, 0]}] is {numbers[wrong[0, 0]]}"
        raise ValueError(f"labels{'' if numbers.ndim == 1 else ' '}{what}; labels are whole numbers 0 to {classes - 1}")
    return jnp.asarray(np.eye(classes)[numbers.astype(int)], jnp.result_type(float))
