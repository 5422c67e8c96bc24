"""Sine or square? The smallest task that needs both a nonlinearity and a memory."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from morphax._checks import check_count, check_key
from morphax.tasks._points import check_points
from morphax.tasks.base import Task


def waveforms(
    train_points: int = 1000,
    test_points: int = 1000,
    *,
    points_per_period: int = 8,
    washout: int = 0,
    key: PRNGKeyArray,
) -> Task:
    r"""Classify each point of a random sequence of sine and square periods.

    A period of $n$ points is, with equal probability,

    $$\sin(2 \pi i / n) \quad \text{(target 1)} \qquad \text{or} \qquad
      +1 \text{ for } i < n/2, \; -1 \text{ for } i \ge n/2 \quad \text{(target 0)}, \qquad i = 0 \dots n - 1.$$

    The values $\pm 1$ occur in both, so a memoryless classifier cannot tell them apart.

    **Arguments:**

    - `train_points`, `test_points`: numbers of points, multiples of `points_per_period`.
    - `points_per_period`: points $n$ of a period, even and at least 4.
    - `washout`: training points that drive the substrate but enter no fit, from 0 to `train_points - 1`.
    - `key`: random key; it draws the sequence of periods.

    **Returns:** a classification `Task` with inputs of shape (time,) and targets of shape (time, 1).

    **Raises:** `ValueError` for numbers of points that are not whole periods, or outside the ranges above.

    Source: Dudas et al., "Quantum reservoir neural network implementation on a Josephson mixer" (2022), Sec. IV A and
    Fig. 3a, with $n = 8$ and 1000 + 1000 points.

        >>> import jax
        >>> from morphax.tasks.waveforms import waveforms
        >>> task = waveforms(train_points=16, test_points=8, key=jax.random.key(0))
        >>> task.train_inputs[:8].tolist(), task.train_targets[0].tolist()
        ([1.0, 1.0, 1.0, 1.0, -1.0, -1.0, -1.0, -1.0], [0.0])
    """
    check_key("key", key)
    check_points(train_points, test_points, washout)
    check_count("points_per_period", points_per_period, 4)
    for name, value, divisor in (
        ("points_per_period", points_per_period, 2),
        ("train_points", train_points, points_per_period),
        ("test_points", test_points, points_per_period),
    ):
        if value % divisor:
            raise ValueError(f"{name} is {value}; it must be a multiple of {divisor}")
    is_sine = jax.random.bernoulli(key, shape=((train_points + test_points) // points_per_period,))
    inputs = jnp.where(is_sine[:, None], *_periods(points_per_period)).reshape(-1)
    targets = jnp.repeat(is_sine.astype(inputs.dtype), points_per_period)[:, None]
    return Task(
        train_inputs=inputs[:train_points],
        train_targets=targets[:train_points],
        test_inputs=inputs[train_points:],
        test_targets=targets[train_points:],
        kind="classification",
        washout=washout,
        reference="Dudas et al. 2022, Sec. IV A",
    )


def _periods(points: int) -> tuple[Float[Array, " points"], Float[Array, " points"]]:
    """One period of the sine and one of the square."""
    index = jnp.arange(points)
    sine = jnp.sin(2 * jnp.pi * index / points)
    return sine, jnp.where(index < points // 2, 1.0, -1.0).astype(sine.dtype)
