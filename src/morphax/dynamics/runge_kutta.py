"""Explicit Runge-Kutta steps of order 1 to 4: the reference that faster schemes are measured against."""

from collections.abc import Callable
from typing import TypeVar

import jax
from jax.typing import ArrayLike
from jaxtyping import PyTree

from morphax._checks import check_choice

State = TypeVar("State", bound=PyTree)

# Order -> (rows of the lower triangle, weights): Euler, midpoint, Kutta's third order, the classical fourth order.
TABLEAUS: dict[int, tuple[tuple[tuple[float, ...], ...], tuple[float, ...]]] = {
    1: (((),), (1.0,)),
    2: (((), (1 / 2,)), (0.0, 1.0)),
    3: (((), (1 / 2,), (-1.0, 2.0)), (1 / 6, 2 / 3, 1 / 6)),
    4: (((), (1 / 2,), (0.0, 1 / 2), (0.0, 0.0, 1.0)), (1 / 6, 1 / 3, 1 / 3, 1 / 6)),
}


def runge_kutta_step(velocity: Callable[[State], State], state: State, duration: ArrayLike, *, order: int = 4) -> State:
    r"""One step of $ds/dt = v(s)$ over `duration`, with an error of `duration` to the power `order + 1`.

    **Arguments:**

    - `velocity`: the time derivative of a state, of the same structure.
    - `state`: any pytree of arrays.
    - `duration`: length of the step.
    - `order`: 1 (Euler), 2 (midpoint), 3 (Kutta) or 4 (classical).

    **Raises:** `ValueError` for another order.

        >>> import jax.numpy as jnp
        >>> from morphax.dynamics.runge_kutta import runge_kutta_step
        >>> round(float(runge_kutta_step(lambda x: -x, jnp.array(1.0), 0.1)), 6)     # exp(-0.1)
        0.904837
    """
    check_choice("order", order, tuple(TABLEAUS))
    rows, weights = TABLEAUS[order]
    slopes: list[State] = []
    for row in rows:
        slopes.append(velocity(_moved(state, slopes, row, duration)))
    return _moved(state, slopes, weights, duration)


def _moved(state: State, slopes: list[State], weights: tuple[float, ...], duration: ArrayLike) -> State:
    used = [(w, s) for w, s in zip(weights, slopes, strict=True) if w]
    if not used:
        return state
    total = jax.tree.map(
        lambda *leaves: sum(w * leaf for (w, _), leaf in zip(used, leaves, strict=True)), *(slope for _, slope in used)
    )
    return jax.tree.map(lambda x, change: x + duration * change, state, total)
