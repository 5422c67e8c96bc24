"""Prediction of chaotic time series: the Mackey-Glass delay equation and the Lorenz system."""

from collections.abc import Sequence
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from morphax._checks import check_choice, check_count, check_key, check_range, is_concrete
from morphax.tasks._points import check_points
from morphax.tasks.base import Task

EXPONENT = 10  # of the Mackey-Glass feedback; Eq. 7 of Dudas et al. and nearly all of the literature


def mackey_glass(
    delays: Sequence[int] = (1,),
    train_points: int = 1000,
    test_points: int = 1000,
    *,
    sample_interval: float = 1.0,
    step: float = 0.1,
    washout: int = 100,
    beta: float = 0.2,
    gamma: float = 0.1,
    tau: float = 17.0,
    transient: float = 1000.0,
    key: PRNGKeyArray,
) -> Task:
    r"""Predict the Mackey-Glass time series several points ahead.

    $$\frac{dx}{dt} = \frac{\beta \, x(t - \tau)}{1 + x^{10}(t - \tau)} - \gamma \, x(t)$$

    is integrated by the classical Runge-Kutta method along the method of steps: each stretch of length $\tau$ is an
    ordinary equation driven by the stretch before it. The delayed value half-way through a step is the midpoint of the
    cubic Hermite interpolant, so the global error is of fourth order in `step`. Time is dimensionless; the task's
    delays count *points*. Inputs are raw values $x$ (about 0.4 to 1.3 at the default parameters).

    **Arguments:**

    - `delays`: how many points ahead to predict, each at least 1; one target column each, in this order.
    - `train_points`, `test_points`: numbers of points.
    - `sample_interval`: time between two points, a multiple of `step`.
    - `step`: integration step, a divisor of `tau`.
    - `washout`: training points that drive the substrate but enter no fit, from 0 to `train_points - 1`.
    - `beta`, `gamma`: feedback and decay rates, > 0.
    - `tau`: delay of the feedback, > 0.
    - `transient`: time discarded before the first point, a multiple of `step`, >= 0.
    - `key`: random key; it draws the constant history $x(t \le 0)$, uniform in [0.2, 0.8].

    **Returns:** a regression `Task` with inputs of shape (time,) and targets $x$ of shape (time, delays). Targets run
    on past the last input, so no point is lost; a training target never is a test target of the same column.

    **Raises:** `ValueError` for a value outside the ranges above.

    Source: Mackey & Glass, Science 197, 287 (1977); as a reservoir's task Dudas et al., "Quantum reservoir neural
    network implementation on a Josephson mixer" (2022), Eq. 7 and Sec. IV B.

        >>> import jax
        >>> from morphax.tasks.chaos import mackey_glass
        >>> task = mackey_glass(delays=(1, 20), train_points=200, test_points=100, key=jax.random.key(0))
        >>> task.train_inputs.shape, task.train_targets.shape
        ((200,), (200, 2))
        >>> bool((task.train_targets[:-20, 1] == task.train_inputs[20:]).all())
        True
    """
    check_key("key", key)
    check_points(train_points, test_points, washout)
    _check_delays(delays)
    for name, value in (("step", step), ("beta", beta), ("gamma", gamma)):
        check_range(name, value, low=0.0, open_low=True)
    lag = _steps("tau", tau, step, at_least=1)
    stride = _steps("sample_interval", sample_interval, step, at_least=1)
    first = _steps("transient", transient, step, at_least=0)
    points = train_points + test_points
    length = first + stride * (points + max(delays) - 1) + 1
    history = jax.random.uniform(key, minval=0.2, maxval=0.8)
    series = mackey_glass_series(history, *_scalars(step, beta, gamma), lag=lag, length=length)[first::stride]
    targets = jnp.stack([series[delay : delay + points] for delay in delays], axis=1)
    return Task(
        train_inputs=series[:train_points],
        train_targets=targets[:train_points],
        test_inputs=series[train_points:points],
        test_targets=targets[train_points:],
        kind="regression",
        washout=washout,
        reference="Mackey & Glass 1977; Dudas et al. 2022, Eq. 7",
    )


def lorenz(
    horizon: int = 1,
    train_points: int = 1000,
    test_points: int = 1000,
    *,
    component: Literal["x", "y", "z"] | None = None,
    standardise: bool = True,
    sample_interval: float = 0.02,
    step: float = 0.01,
    washout: int = 100,
    sigma: float = 10.0,
    rho: float = 28.0,
    beta: float = 8 / 3,
    transient: float = 50.0,
    key: PRNGKeyArray,
) -> Task:
    r"""Predict the state of the Lorenz system some points ahead.

    $$\dot x = \sigma (y - x), \qquad \dot y = x (\rho - z) - y, \qquad \dot z = x y - \beta z$$

    by the classical Runge-Kutta method. Time is dimensionless.

    **Arguments:**

    - `horizon`: how many points ahead to predict, at least 1.
    - `train_points`, `test_points`: numbers of points.
    - `component`: the one component that is seen and predicted; all three by default.
    - `standardise`: scale every component to zero mean and unit variance *over the training inputs*; otherwise raw.
    - `sample_interval`: time between two points, a multiple of `step`.
    - `step`: integration step, > 0.
    - `washout`: training points that drive the substrate but enter no fit, from 0 to `train_points - 1`.
    - `sigma`, `rho`, `beta`: parameters of the system, > 0; the defaults are chaotic.
    - `transient`: time discarded before the first point, a multiple of `step`, >= 0.
    - `key`: random key; it draws the start, normal around (0, 0, 25) with standard deviation 5.

    **Returns:** a regression `Task` with inputs of shape (time, 3) and targets of shape (time, 3), or (time,) and
    (time, 1) for one component.

    **Raises:** `ValueError` for a value outside the ranges above, or for standardising a system that came to rest.

    Source: Lorenz, J. Atmos. Sci. 20, 130 (1963), Eqs. 25-27.

        >>> import jax
        >>> from morphax.tasks.chaos import lorenz
        >>> task = lorenz(horizon=5, train_points=200, test_points=100, key=jax.random.key(0))
        >>> task.train_inputs.shape, task.test_targets.shape
        ((200, 3), (100, 3))
        >>> lorenz(component="x", train_points=200, test_points=100, key=jax.random.key(0)).test_inputs.shape
        (100,)
    """
    check_key("key", key)
    check_points(train_points, test_points, washout)
    check_count("horizon", horizon, 1)
    check_choice("component", component, (None, "x", "y", "z"))
    for name, value in (("step", step), ("sigma", sigma), ("rho", rho), ("beta", beta)):
        check_range(name, value, low=0.0, open_low=True)
    stride = _steps("sample_interval", sample_interval, step, at_least=1)
    first = _steps("transient", transient, step, at_least=0)
    points = train_points + test_points
    start = jnp.array([0.0, 0.0, 25.0]) + 5 * jax.random.normal(key, (3,))
    length = first + stride * (points + horizon - 1) + 1
    states = lorenz_series(start, *_scalars(step, sigma, rho, beta), length=length)[first::stride]
    _check_followed("step", step, states)
    if standardise:
        states = _standardised(states, train_points)
    if component is not None:
        states = states[:, ["xyz".index(component)]]
    inputs = states if component is None else states[:, 0]
    return Task(
        train_inputs=inputs[:train_points],
        train_targets=states[horizon : horizon + train_points],
        test_inputs=inputs[train_points:points],
        test_targets=states[horizon + train_points : horizon + points],
        kind="regression",
        washout=washout,
        reference="Lorenz 1963, Eqs. 25-27",
    )


@partial(jax.jit, static_argnames=("lag", "length"))
def mackey_glass_series(
    history: Float[Array, ""],
    step: Float[Array, ""],
    beta: Float[Array, ""],
    gamma: Float[Array, ""],
    *,
    lag: int,
    length: int,
) -> Float[Array, " length"]:
    """x(0), x(step), ... x((length - 1) step) from the constant `history`, with a delay of `lag` steps.

    A stretch of `lag` steps is (values at the starts, middles and ends of its steps): what the next stretch is driven
    by. Middles are stored instead of slopes because the slope jumps at t = 0, where history and solution meet.
    """

    def slope(x: Array, delayed: Array) -> Array:
        return beta * delayed / (1 + delayed**EXPONENT) - gamma * x

    def advance(x: Array, delayed: tuple[Array, Array, Array]) -> tuple[Array, tuple[Array, Array, Array]]:
        start, middle, end = delayed
        k1 = slope(x, start)
        k2 = slope(x + step / 2 * k1, middle)
        k3 = slope(x + step / 2 * k2, middle)
        k4 = slope(x + step * k3, end)
        following = x + step / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        halfway = (x + following) / 2 + step / 8 * (k1 - slope(following, end))
        return following, (x, halfway, following)

    def stretch(before: tuple[Array, Array, Array], _: None) -> tuple[tuple[Array, Array, Array], Array]:
        after = jax.lax.scan(advance, before[2][-1], before)[1]
        return after, after[0]

    constant = jnp.full((lag,), history)
    _, series = jax.lax.scan(stretch, (constant, constant, constant), length=-(-length // lag))
    return series.reshape(-1)[:length]


@partial(jax.jit, static_argnames="length")
def lorenz_series(
    start: Float[Array, "3"],
    step: Float[Array, ""],
    sigma: Float[Array, ""],
    rho: Float[Array, ""],
    beta: Float[Array, ""],
    *,
    length: int,
) -> Float[Array, "length 3"]:
    """The states at times 0, step, ... (length - 1) step."""

    def slope(state: Array) -> Array:
        x, y, z = state
        return jnp.stack([sigma * (y - x), x * (rho - z) - y, x * y - beta * z])

    def advance(state: Array, _: None) -> tuple[Array, Array]:
        k1 = slope(state)
        k2 = slope(state + step / 2 * k1)
        k3 = slope(state + step / 2 * k2)
        k4 = slope(state + step * k3)
        return state + step / 6 * (k1 + 2 * k2 + 2 * k3 + k4), state

    return jax.lax.scan(advance, start, length=length)[1]


def _standardised(states: Float[Array, "time 3"], train_points: int) -> Float[Array, "time 3"]:
    """Zero mean and unit variance over the training points; a component at rest has no variance and is refused."""
    mean, spread = states[:train_points].mean(axis=0), states[:train_points].std(axis=0)
    if is_concrete(spread):
        for name, value in zip("xyz", spread, strict=True):
            if value == 0:
                raise ValueError(f"standardise is True but component {name} rests or has one training point; set False")
    return (states - mean) / spread


def _scalars(*values: float) -> tuple[Float[Array, ""], ...]:
    return tuple(jnp.asarray(value, dtype=jnp.result_type(float)) for value in values)


def _check_followed(name: str, step: float, states: Array) -> None:
    """Refuse a step with which the numerical solution runs away."""
    if is_concrete(states) and not bool(jnp.all(jnp.isfinite(states))):
        raise ValueError(f"{name} is {step:g}; with so long a step the solution grows beyond all bounds: shorten it")


def _check_delays(delays: Sequence[int]) -> None:
    if not len(delays):
        raise ValueError("delays is empty; it must name at least one delay >= 1")
    for index, delay in enumerate(delays):
        check_count(f"delays[{index}]", delay, 1)


def _steps(name: str, duration: float, step: float, *, at_least: int) -> int:
    """How many steps make `duration`; refused when they are not a whole number."""
    check_range(name, duration, low=0.0)
    steps = round(duration / step)
    if abs(duration / step - steps) > 1e-6 * max(steps, 1) or steps < at_least:
        raise ValueError(f"{name} is {duration:g}; it must be a multiple of step = {step:g}, at least {at_least} of it")
    return steps
