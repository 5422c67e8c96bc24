"""The input that a laboratory should apply to a device, and how much of it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PRNGKeyArray

from morphax._checks import check_choice, check_count, check_range
from morphax.files import write_text

KINDS = ("uniform", "gaussian", "binary")
FEWEST = 20
"""Points for each reading below which nothing is judged."""
ADVICE = (
    "Hold each for as long as the device takes to answer, read all readings at the end of it, apply the whole drive "
    "twice or more, and write columns u, x0, x1, ...: morphax judge FILE.csv."
)
ENOUGH = 200
"""Points for each reading from which on capacities are known to 2 %."""


class Span(NamedTuple):
    """What a device takes as input."""

    low: float | Array
    high: float | Array

    @property
    def middle(self) -> Array:
        """Around which inputs are scaled."""
        return jnp.asarray(self.low + self.high, jnp.result_type(float)) / 2

    @property
    def half(self) -> Array:
        """From the middle to an end."""
        return jnp.asarray(self.high - self.low, jnp.result_type(float)) / 2

    def into(self, unit: ArrayLike, scale: ArrayLike = 1.0, offset: ArrayLike = 0.0) -> Array:
        """Numbers from -1 to 1 around an offset, in units of `half`, and as far as a share of what it leaves.

        What lies beyond is held at the ends, as by a converter.
        """
        share = scale * (1 - jnp.abs(offset))
        return jnp.clip(self.middle + self.half * (share * jnp.asarray(unit) + offset), self.low, self.high)


def stimulus(
    points: int, kind: str = "uniform", *, low: float = -1.0, high: float = 1.0, key: PRNGKeyArray
) -> Float[np.ndarray, " time"]:
    r"""An input that a laboratory should apply: independent numbers, of which every function is told apart.

    **Arguments:**

    - `points`: how many. With 200 for each reading capacities are known to 2 %.
    - `kind`: "uniform" between `low` and `high`; "gaussian", cut there at three deviations; "binary", one or the other.

    **Raises:** `ValueError` for another kind, fewer than 100 points, or `low` >= `high`.
    """
    check_count("points", points, 100)
    check_range("high", high, low=low, open_low=True)
    check_choice("kind", kind, KINDS)
    if kind == "uniform":
        drawn = jax.random.uniform(key, (points,), minval=low, maxval=high)
    elif kind == "gaussian":
        drawn = (low + high) / 2 + (high - low) / 6 * jax.random.truncated_normal(key, -3.0, 3.0, (points,))
    else:
        drawn = jnp.where(jax.random.bernoulli(key, shape=(points,)), high, low)
    return np.asarray(drawn, float)


def write_drive(path: Path, drives: Float[np.ndarray, " time"]) -> None:
    """A column u, with all digits."""
    write_text(path, "u\n" + "".join(f"{np.format_float_positional(value)}\n" for value in drives))


def expect(points: int) -> str:
    """What a drive of so many points tells, in a sentence.

    >>> from morphax.judging.stimulus import expect
    >>> expect(20_000)
    '20000 points tell the capacities of up to 100 readings to 2 %, and those of up to 1000 roughly'
    """
    check_count("points", points, 100)
    return (
        f"{points} points tell the capacities of up to {points // ENOUGH} readings to 2 %, and those of up to "
        f"{points // FEWEST} roughly"
    )
