"""Reservoirs read in blocks of samples of one shape, so that no number of samples compiles anything anew."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from morphax.estimators._inputs import Series
from morphax.substrates.base import Substrate, count_neurons, evolve

BLOCK = 128
"""Samples that are computed together."""
LARGEST = 2**26
"""Readings of a block: of long series fewer samples are computed together."""


class Parts(NamedTuple):
    """Of what features are made; see `Plan`."""

    windows: int
    last: bool


class Plan(NamedTuple):
    """What is read of a series.

    - `windows`: parts of equal length, over each of which every neuron is averaged; 0: none.
    - `last`: whether the readings after the last input stand behind.
    - `washout`: first intervals that do not count.
    - `steps`: intervals to which series are filled up; longer ones to the next multiple.
    - `width`: numbers in an input.
    """

    windows: int
    last: bool
    washout: int
    steps: int
    width: int

    def names(self, neurons: int) -> list[str]:
        """Of the features, in order."""
        parts = ["mean"] if self.windows == 1 else [f"window{window}" for window in range(self.windows)]
        return [f"{part}_neuron{neuron}" for part in [*parts, *["last"] * self.last] for neuron in range(neurons)]


def features_of(
    substrate: Substrate, series: Series, plan: Plan, *, noise: float, shots: int | None, key: PRNGKeyArray
) -> Float[np.ndarray, "samples features"]:
    """Readings of every sample, which depend on that sample alone, whatever others are asked."""
    neurons = count_neurons(substrate)
    steps = plan.steps * -(-int(series.lengths.max()) // plan.steps)
    parts, amplitude, washout = Parts(plan.windows, plan.last), noise or None, jnp.asarray(plan.washout)
    if not substrate.differentiable:
        if shots is not None:
            raise ValueError(f"shots is {shots}; a device outside is presented each sample once")
        return _asked_outside(substrate, series, steps, parts, amplitude, washout, plan, key)
    block = BLOCK
    while block > 1 and block * steps * neurons > LARGEST:
        block //= 2
    amplitude = None if amplitude is None else jnp.asarray(amplitude)
    found = [
        _read_block(substrate, jnp.asarray(drives), jnp.asarray(lengths), keys, amplitude, washout, parts, shots)
        for drives, lengths, keys in _blocks(series, block, steps, plan.width, key)
    ]
    # Only now, so that the next block is under way while one is computed.
    return np.concatenate([np.asarray(each) for each in found])[: len(series.lengths)]


def _asked_outside(
    substrate: Substrate,
    series: Series,
    steps: int,
    parts: Parts,
    noise: float | None,
    washout: Array,
    plan: Plan,
    key: PRNGKeyArray,
) -> Float[np.ndarray, "samples features"]:
    """Of a device outside: each sample as it is, one after the other; a question costs what it costs."""
    found = []
    for drives, lengths, keys in _blocks(series, 1, steps, plan.width, key):
        dynamics, meter = jax.random.split(keys[0])
        readings, _ = evolve(substrate, drives[0, : lengths[0]], key=dynamics)
        if noise is not None:
            readings = readings + noise * jax.random.normal(meter, readings.shape, readings.dtype)
        filled = jnp.zeros((steps, readings.shape[1])).at[: lengths[0]].set(readings)
        found.append(np.asarray(_features_alone(filled, jnp.asarray(lengths[0]), washout, parts)))
    return np.stack(found)


def _blocks(series: Series, block: int, steps: int, width: int, key: PRNGKeyArray) -> Iterator[tuple[Any, Any, Any]]:
    for start in range(0, len(series.lengths), block):
        places = slice(start, start + block)
        drives, lengths = series.filled(places, block, steps, width)
        digests = np.zeros((block, 2), np.uint32)
        for row, sample in zip(digests, series.values[places], strict=False):
            content = sample.tobytes()
            row[:] = zlib.crc32(content), zlib.adler32(content)
        yield drives, lengths, _keys(key, digests)


@jax.jit
def _keys(key: PRNGKeyArray, digests: Int[Array, "samples 2"]) -> PRNGKeyArray:
    """A key for each sample: of a key and of what the sample holds, not of its place among others."""

    def one(digest: Array) -> PRNGKeyArray:
        return jax.random.fold_in(jax.random.fold_in(key, digest[0]), digest[1])

    return jax.vmap(one)(digests)


@eqx.filter_jit
def _read_block(
    substrate: Substrate,
    drives: Float[Array, "samples steps width"],
    lengths: Int[Array, " samples"],
    keys: PRNGKeyArray,
    noise: Array | None,
    washout: Array,
    parts: Parts,
    shots: int | None,
) -> Float[Array, "samples features"]:
    def one(drives: Array, length: Array, key: PRNGKeyArray) -> Array:
        def shown(key: PRNGKeyArray) -> Array:
            dynamics, meter = jax.random.split(key)
            readings, _ = evolve(substrate, drives, key=dynamics)
            if noise is not None:
                readings = readings + noise * jax.random.normal(meter, readings.shape, readings.dtype)
            return _features(readings, length, washout, parts)

        if shots is None:
            return shown(key)
        nothing = jax.tree.map(jnp.zeros_like, jax.eval_shape(shown, key))
        return jax.lax.fori_loop(0, shots, lambda i, sum: sum + shown(jax.random.fold_in(key, i)), nothing) / shots

    return jax.vmap(one)(drives, lengths, keys)


def _features(
    readings: Float[Array, "steps neurons"], length: Array, washout: Array, parts: Parts
) -> Float[Array, " features"]:
    """Means over windows, and the last readings.

    Sums are made step by step, so that what a series was filled up with changes no bit of them.
    """
    window = jnp.arange(parts.windows)
    points = length - washout
    first = washout + window * points // max(parts.windows, 1)
    # One point at least, where there are more windows than points.
    end = jnp.maximum(washout + (window + 1) * points // max(parts.windows, 1), first + 1)

    def add(total: Array, at: tuple[Array, Array]) -> tuple[Array, Array]:
        step, reading = at
        total = jnp.where(jnp.any(step == first), 0.0, total) + reading
        return total, total

    found = []
    if parts.windows:
        _, sums = jax.lax.scan(add, jnp.zeros_like(readings[0]), (jnp.arange(len(readings)), readings))
        found.append((sums[end - 1] / (end - first)[:, None]).reshape(-1))
    if parts.last:
        found.append(readings[length - 1])
    return jnp.concatenate(found)


_features_alone = eqx.filter_jit(_features)
