"""The input that a laboratory should apply to a device, and how much of it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PRNGKeyArray

from morphax._checks import check_choice, check_count, check_range

KINDS = ("uniform", "gaussian", "binary")
FEWEST = 20
"""Points for each reading below which nothing is judged."""
ENOUGH = 200
"""Points for each reading from which on capacities are known to 2 %."""


def stimulus(
    points: int, kind: str = "uniform", *, low: float = -1.0, high: float = 1.0, key: PRNGKeyArray
) -> Float[np.ndarray, " time"]:
    r"""An input that a laboratory should apply: independent numbers, of which every function is told apart.

    **Arguments:**

    - `points`: how many. With 200 for each reading capacities are known to 2 %.
    - `kind`: "uniform" between `low` and `high`; "gaussian", with 99.7 % between them; "binary", one or the other.

    **Raises:** `ValueError` for another kind, fewer than 100 points, or `low` >= `high`.
    """
    check_count("points", points, 100)
    check_range("high", high, low=low, open_low=True)
    check_choice("kind", kind, KINDS)
    if kind == "uniform":
        drawn = jax.random.uniform(key, (points,), minval=low, maxval=high)
    elif kind == "gaussian":
        drawn = (low + high) / 2 + (high - low) / 6 * jax.random.normal(key, (points,))
    else:
        drawn = jnp.where(jax.random.bernoulli(key, shape=(points,)), high, low)
    return np.asarray(drawn, float)


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
