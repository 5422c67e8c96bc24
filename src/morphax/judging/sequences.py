"""Sequences told apart by a device that takes one number after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray
from threadpoolctl import threadpool_limits

from morphax._checks import check_choice, check_count, check_range
from morphax._lazy import xr
from morphax.judging.standard import HELD, OFFSETS, SCALES, Solved, table, wrong
from morphax.judging.stimulus import Span
from morphax.learning.readout import fit_readout
from morphax.substrates.base import Substrate, evolve
from morphax.tasks.base import one_hot
from morphax.tasks.digits import sequential_digits
from morphax.tasks.vowels import Utterances, japanese_vowels


class Labelled(NamedTuple):
    """Sequences of numbers, and what they are.

    - `inputs`: (examples, time), periods of equal length one after the other.
    - `periods`: how many of each example are its own; what follows is filled up.
    - `labels`: from 0 on.
    """

    inputs: Float[np.ndarray, "examples time"]
    periods: Int[np.ndarray, " examples"]
    labels: Int[np.ndarray, " examples"]


class Labelling(NamedTuple):
    """A task that devices are compared by.

    - `make(key=...)`: sequences to train and to test with.
    - `asks`: what it asks for.
    - `period`: numbers in a period: a frame, a row.
    - `averaged`: whether readings are averaged over periods, number by number; else those at the end of every period
      stand side by side.
    """

    make: Callable[..., tuple[Labelled, Labelled]]
    asks: str
    period: int
    averaged: bool


def _vowels(*, key: PRNGKeyArray) -> tuple[Labelled, Labelled]:
    """Coefficients of a frame one after the other; the split is that of the data."""

    def labelled(part: Utterances) -> Labelled:
        return Labelled(part.frames.reshape(len(part.frames), -1), part.lengths, part.speakers)

    train, test = (labelled(part) for part in japanese_vowels())
    order = np.asarray(jax.random.permutation(key, len(train.labels)))
    return Labelled(*(each[order] for each in train)), test


def _digits(*, key: PRNGKeyArray) -> tuple[Labelled, Labelled]:
    task = sequential_digits(key=key)

    def labelled(inputs: Array, targets: Array) -> Labelled:
        return Labelled(np.asarray(inputs), np.full(len(inputs), 8), np.asarray(jnp.argmax(targets, axis=1)))

    return labelled(task.train_inputs, task.train_targets), labelled(task.test_inputs, task.test_targets)


SEQUENCES = {
    "JapaneseVowels": Labelling(_vowels, "memory of a frame of 12", 12, averaged=True),
    "sequential digits": Labelling(_digits, "memory of a row of 8", 8, averaged=False),
}


def classify(
    substrate: Substrate,
    name: str,
    *,
    seeds: int = 3,
    low: float = -1.0,
    high: float = 1.0,
    noises: Sequence[float] = (0.0,),
    scales: Sequence[float] = SCALES,
    offsets: Sequence[float] = OFFSETS,
    key: PRNGKeyArray,
) -> xr.Dataset:
    """The share of sequences that a device and a linear readout take for something else.

    Every sequence is shown number by number to the device, which begins anew with each. Of an utterance the readings
    after each of the 12 coefficients are averaged over its frames; of an image those at the end of every row stand side
    by side. Scale and offset of the input are chosen on a quarter of the training examples.

    **Arguments:** `name`: of `SEQUENCES`; others as of `solve`.

    **Returns:** as `solve`; the floor `linear` reads the numbers themselves, likewise averaged, `constant` is the most
    frequent label.

    **Raises:** `ValueError` for another name.
    """
    check_choice("name", name, tuple(SEQUENCES))
    check_count("seeds", seeds, 1)
    check_range("noises", noises, low=0.0)
    kind = SEQUENCES[name]
    asked = _Asked(kind, Span(low, high), tuple(noises), [(scale, offset) for scale in scales for offset in offsets])
    place = list(SEQUENCES).index(name)
    keys = [jax.random.fold_in(jax.random.fold_in(key, 100 + place), seed) for seed in range(seeds)]
    with threadpool_limits(limits=1, user_api="blas"):
        rows = [[_row(substrate, asked, each) for each in keys]]
    return table(rows, [name], [kind.asks], noises)


class _Asked(NamedTuple):
    kind: Labelling
    span: Span
    noises: tuple[float, ...]
    candidates: list[tuple[float, float]]


def _row(substrate: Substrate, asked: _Asked, key: PRNGKeyArray) -> Solved:
    task_key, run_key, meter = jax.random.split(key, 3)
    train, test = asked.kind.make(key=task_key)
    fitted = len(train.labels)

    def errors(parts: Sequence[Labelled], split: int, scale: float, offset: float) -> list[float]:
        """Of readouts that are fitted on the first examples, on the others, at every noise."""
        labels = np.concatenate([part.labels for part in parts])
        read = [_shown(substrate, asked, part, train, scale, offset, run_key) for part in parts]
        size = jnp.std(read[0], axis=(0, 1))
        found = []
        for noise in asked.noises:
            noisy = [
                _arranged(_with_noise(each, noise * size, jax.random.fold_in(meter, place)), part, asked.kind)
                for place, (each, part) in enumerate(zip(read, parts, strict=True))
            ]
            found.append(_error(jnp.concatenate(noisy), split, labels))
        return found

    held = round((1 - HELD) * fitted)
    tried = np.array([errors((train,), held, *each) for each in asked.candidates])
    chosen = [asked.candidates[place] for place in np.argmin(np.nan_to_num(tried, nan=np.inf), axis=0)]
    found = {each: errors((train, test), fitted, *each) for each in dict.fromkeys(chosen)}
    numbers = jnp.concatenate([_numbers(part, asked.kind) for part in (train, test)])
    most = np.bincount(train.labels).argmax()
    return Solved(
        error=[found[each][place] for place, each in enumerate(chosen)],
        scale=[scale for scale, _ in chosen],
        offset=[offset for _, offset in chosen],
        constant=float(np.mean(test.labels != most)),
        linear=_error(numbers, fitted, np.concatenate([train.labels, test.labels])),
    )


def _shown(
    substrate: Substrate,
    asked: _Asked,
    part: Labelled,
    train: Labelled,
    scale: float,
    offset: float,
    key: PRNGKeyArray,
) -> Float[Array, "examples time neurons"]:
    """Readings after every number."""
    least, most = float(train.inputs.min()), float(train.inputs.max())
    unit = (2 * part.inputs - least - most) / (most - least)
    drives = asked.span.into(jnp.asarray(unit, jnp.result_type(float)), scale, offset)
    return _read(substrate, drives, jax.random.split(key, len(drives)))


@jax.jit
def _with_noise(read: Array, size: Float[Array, " neurons"], key: PRNGKeyArray) -> Array:
    return read + size * jax.random.normal(key, read.shape, read.dtype)


@eqx.filter_jit
def _read(substrate: Substrate, drives: Float[Array, "examples time"], keys: PRNGKeyArray) -> Array:
    return jax.vmap(lambda each, key: evolve(substrate, each, key=key)[0])(drives, keys)


def _arranged(
    read: Float[Array, "examples time neurons"], part: Labelled, kind: Labelling
) -> Float[Array, "examples features"]:
    count, time, neurons = read.shape
    periods = read.reshape(count, time // kind.period, kind.period, neurons)
    if not kind.averaged:
        return periods[:, :, -1].reshape(count, -1)
    own = (np.arange(time // kind.period) < part.periods[:, None])[:, :, None, None]
    return (jnp.sum(periods * own, axis=1) / part.periods[:, None, None]).reshape(count, -1)


def _numbers(part: Labelled, kind: Labelling) -> Float[Array, "examples features"]:
    """The numbers themselves, as readings are arranged; all of them where these stand side by side."""
    inputs = jnp.asarray(part.inputs)
    return _arranged(inputs[..., None], part, kind) if kind.averaged else inputs


def _error(read: Float[Array, "examples features"], fitted: int, labels: Int[np.ndarray, " examples"]) -> float:
    """Of a readout that is fitted on the first examples, on the others; features in units of their deviation."""
    targets = one_hot(labels, int(labels.max()) + 1)
    deviation = jnp.std(read[:fitted], axis=0)
    scaled = (read - jnp.mean(read[:fitted], axis=0)) / jnp.where(deviation > 0, deviation, 1.0)
    readout = fit_readout(scaled[:fitted], targets[:fitted], ridge="cross-validate")
    return float(wrong(scaled[fitted:] @ readout.weights.T + readout.bias, targets[fitted:]))
