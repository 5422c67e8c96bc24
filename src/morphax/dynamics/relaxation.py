"""Ways to an equilibrium: the physical dynamics, or a faster descent to the same fixed points."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from morphax._checks import check_choice, check_count, check_range
from morphax._optional import needed
from morphax.dynamics.runge_kutta import TABLEAUS, runge_kutta_step

FIRST_RATE, SLOWER, FLATTEST, ROUNDING, BLOCK = 0.9, 0.85, 0.3, 4.0, 4
"""Of an accelerated descent: its rate, by how much it is less after the energy rose, the least curvature in units of
the mean one, how many units in the last place of the energy are no rise, and steps between two looks at it."""

State = PyTree
Force = Callable[[State], State]


class Relaxation(NamedTuple):
    """Where a relaxation ended.

    - `state`: the last state.
    - `residual`: the largest force that is left.
    - `steps`: time steps or sweeps taken.
    - `converged`: whether `residual` is finite and at most the relaxer's tolerance.
    - `memory`: what a relaxer that was interrupted goes on with, besides the state.
    """

    state: State
    residual: Float[Array, ""]
    steps: Int[Array, ""]
    converged: Bool[Array, ""]
    memory: Any = None


class Sweeps(NamedTuple):
    """A substrate's own way down: every sweep lowers the energy, and its fixed points are the equilibria.

    `encode` and `decode` translate between a state and what is swept (say, angles and unit vectors); `sweep` returns
    what comes next and the largest force that it met.
    """

    encode: Callable[[State], Any]
    sweep: Callable[[Any], tuple[Any, Float[Array, ""]]]
    decode: Callable[[Any], State]


class Slope(NamedTuple):
    """What is seen from a state: its energy, the force on it, and the curvature of the energy along each number."""

    energy: Float[Array, ""]
    force: State
    curvature: State


class Landscape(NamedTuple):
    """What a relaxer sees of a system with clamped inputs: the force on a state; sweeps, and slopes, where given."""

    force: Force
    sweeps: Sweeps | None = None
    slope: Callable[[State], Slope] | None = None


class RungeKutta(eqx.Module):
    r"""Follow $ds/dt = F(s)$ for a fixed time with fixed steps; with a temperature, Langevin dynamics.

    $$ds = F(s) \, dt + \sqrt{2 T} \, dW$$

    Noise is added after every step, normal with variance $2 T \, \Delta t$ (weak order 1). Differentiable in both
    modes.

    **Arguments:**

    - `duration`, `time_step`: > 0; the number of steps is rounded up.
    - `order`: of the scheme without noise, 1 to 4.
    - `temperature`: $T \ge 0$, in units of the energy.
    - `tolerance`: largest force that counts as converged, > 0; infinity: to have followed the time without NaN counts.
      So it is with a temperature, whose noise never lets the force vanish.
    """

    duration: float = eqx.field(static=True, default=100.0)
    time_step: float = eqx.field(static=True, default=0.1)
    order: int = eqx.field(static=True, default=4)
    temperature: float = eqx.field(static=True, default=0.0)
    tolerance: float = eqx.field(static=True, default=1e-3)

    def __check_init__(self) -> None:
        check_range("duration", self.duration, low=0.0, open_low=True)
        check_range("time_step", self.time_step, low=0.0, open_low=True)
        check_range("temperature", self.temperature, low=0.0)
        check_choice("order", self.order, tuple(TABLEAUS))
        _check_tolerance(self.tolerance)

    def __call__(self, landscape: Landscape, state: State, *, key: PRNGKeyArray | None = None) -> Relaxation:
        """Relax from `state`."""
        if self.temperature and key is None:
            raise ValueError(f"key is None; a relaxation at temperature {self.temperature:g} is random")
        steps = max(1, math.ceil(self.duration / self.time_step - 1e-9))
        duration = self.duration / steps
        kick = (2 * self.temperature * duration) ** 0.5

        def step(state: State, index: Array) -> tuple[State, None]:
            state = runge_kutta_step(landscape.force, state, duration, order=self.order)
            if kick:
                assert key is not None
                state = _kicked(state, kick, jax.random.fold_in(key, index))
            return state, None

        state, _ = jax.lax.scan(step, state, jnp.arange(steps))
        return _ended(landscape, state, jnp.asarray(steps), math.inf if self.temperature else self.tolerance)


class AdaptiveRungeKutta(eqx.Module):
    """Follow the force for a fixed time with Tsitouras' method of order 5(4) and adaptive steps, by Diffrax.

    **Arguments:**

    - `duration`: > 0.
    - `relative_tolerance`, `absolute_tolerance`: of a step's error, > 0.
    - `max_steps`: after so many the relaxation stops where it is and counts as not converged.
    - `tolerance`: largest force that counts as converged, > 0; infinity: to have followed the time without NaN counts.
    """

    duration: float = eqx.field(static=True, default=100.0)
    relative_tolerance: float = eqx.field(static=True, default=1e-6)
    absolute_tolerance: float = eqx.field(static=True, default=1e-6)
    max_steps: int = eqx.field(static=True, default=100_000)
    tolerance: float = eqx.field(static=True, default=1e-3)

    def __check_init__(self) -> None:
        for name in ("duration", "relative_tolerance", "absolute_tolerance"):
            check_range(name, getattr(self, name), low=0.0, open_low=True)
        check_count("max_steps", self.max_steps, 1)
        _check_tolerance(self.tolerance)

    def __call__(self, landscape: Landscape, state: State, *, key: PRNGKeyArray | None = None) -> Relaxation:
        """Relax from `state`; `key` is not used. `ImportError` without Diffrax (extra `diffrax`)."""
        diffrax = needed("diffrax", "diffrax")
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(lambda t, y, args: landscape.force(y)),
            diffrax.Tsit5(),
            t0=0.0,
            t1=self.duration,
            dt0=None,
            y0=state,
            stepsize_controller=diffrax.PIDController(rtol=self.relative_tolerance, atol=self.absolute_tolerance),
            max_steps=self.max_steps,
            adjoint=diffrax.ForwardMode(),
            throw=False,
        )
        assert solution.ys is not None
        last = jax.tree.map(lambda y: y[-1], solution.ys)
        ended = _ended(landscape, last, solution.stats["num_steps"], self.tolerance)
        return ended._replace(converged=ended.converged & (solution.result == diffrax.RESULTS.successful))


class BlockSweeps(eqx.Module):
    """Sweep over blocks of units until the force is small: the substrate's own way to the equilibria of its dynamics.

    Sweeps move in larger steps than the dynamics and may enter another basin. Where it matters which equilibrium is
    reached, let the physical dynamics decide with a short `prefix`.

    **Arguments:**

    - `tolerance`: largest force that counts as converged, > 0.
    - `max_sweeps`: sweeps at most, >= 1; a relaxation that needs more counts as not converged.
    - `prefix`: dynamics that are followed first, or None.
    """

    tolerance: float = eqx.field(static=True, default=1e-5)
    max_sweeps: int = eqx.field(static=True, default=2000)
    prefix: RungeKutta | None = eqx.field(static=True, default=None)

    def __check_init__(self) -> None:
        check_range("tolerance", self.tolerance, low=0.0, open_low=True)
        check_count("max_sweeps", self.max_sweeps, 1)

    def __call__(
        self,
        landscape: Landscape,
        state: State,
        *,
        key: PRNGKeyArray | None = None,
        batch: str | None = None,
        leave: int = 0,
    ) -> Relaxation:
        """Relax from `state`.

        Under `jax.vmap(..., axis_name=batch)` all examples sweep until at most `leave` of them are not at rest, which
        is faster than to keep those still that are.
        """
        sweeps = landscape.sweeps
        if sweeps is None:
            raise ValueError(
                "relaxer is BlockSweeps, but this substrate has no sweeps; use RungeKutta, or define them in "
                "`landscape`"
            )
        if self.prefix is not None:
            state = self.prefix(landscape, state, key=key).state
        everyone = jnp.asarray(leave + 1)

        def unfinished(carry: tuple[Any, ...]) -> Array:
            _, moving, count, *_ = carry
            return (moving > leave) & (count < self.max_sweeps)

        def sweep(carry: tuple[Any, Array, Array]) -> tuple[Any, Array, Array]:
            swept, met = sweeps.sweep(carry[0])
            # What a sweep leaves behind may be somewhat more than what it met.
            return swept, _number(met > self.tolerance / 2, batch), carry[2] + 1

        def sweep_and_judge(carry: tuple[Any, Array, Array, State, Array]) -> tuple[Any, Array, Array, State, Array]:
            swept, _, count = jax.lax.while_loop(unfinished, sweep, (carry[0], everyone, carry[2]))
            state = sweeps.decode(swept)
            left = _largest(landscape.force(state))
            return swept, _number(left > self.tolerance, batch), count, state, left

        unknown = jnp.asarray(jnp.inf, jnp.result_type(*jax.tree.leaves(state)))
        start = (sweeps.encode(state), everyone, jnp.asarray(0), state, unknown)
        _, _, count, state, left = jax.lax.while_loop(unfinished, sweep_and_judge, start)
        return Relaxation(state, left, count, left <= self.tolerance)


class AcceleratedDescent(eqx.Module):
    r"""Descend with momentum, all numbers at once, each with the curvature that it feels; sweep what is left.

    $$v \leftarrow \frac{k}{k + 3} v + a \, \mathrm{clip}\left(\frac{F}{\max(d, 0.3 \overline{|d|})}, \pm 1\right),
      \qquad s \leftarrow s + v$$

    with the curvature $d$ along each number. Every fourth step it is looked at: it begins anew (k = 0) where it goes
    uphill, $F \cdot v < 0$, or the energy rose, after which $a$ is less, too. Every example of a batch has its own $k$
    and $a$. Where all are coupled to all, a step is one product with the couplings, and a sweep is one for each chunk.

    As `BlockSweeps`, it may enter another basin than the dynamics, and takes a `prefix`. Where a landscape gives no
    slopes (a nudge on a readout of it), it sweeps.

    **Arguments:** as those of `BlockSweeps`, and

    - `max_steps`: steps at most, >= 1, in each stage where the slowest examples of a batch go on by themselves. What is
      not at rest then is swept, from where it began: momentum carries oscillators that hardly lock past the place where
      they would.
    - `max_sweeps`: >= 0.
    """

    tolerance: float = eqx.field(static=True, default=1e-5)
    max_steps: int = eqx.field(static=True, default=1000)
    max_sweeps: int = eqx.field(static=True, default=2000)
    prefix: RungeKutta | None = eqx.field(static=True, default=None)

    def __check_init__(self) -> None:
        check_range("tolerance", self.tolerance, low=0.0, open_low=True)
        check_count("max_steps", self.max_steps, 1)
        check_count("max_sweeps", self.max_sweeps, 0)

    @property
    def sweeps(self) -> BlockSweeps:
        """For what does not come to rest by descending."""
        return BlockSweeps(self.tolerance, max(self.max_sweeps, 1))

    def __call__(
        self,
        landscape: Landscape,
        state: State,
        *,
        key: PRNGKeyArray | None = None,
        batch: str | None = None,
        leave: int = 0,
        memory: "_Momentum | None" = None,
    ) -> Relaxation:
        """Relax from `state`; `batch` and `leave` as in `BlockSweeps`, `memory` of a relaxation that left some."""
        if landscape.slope is None and landscape.sweeps is None:
            raise ValueError(
                "relaxer is AcceleratedDescent, but this substrate has neither slopes nor sweeps; use RungeKutta, or "
                "define them in `landscape`"
            )
        if self.prefix is not None:
            state = self.prefix(landscape, state, key=key).state
        if landscape.slope is None:
            return self.sweeps(landscape, state, key=key, batch=batch, leave=leave)
        ended = self._descended(landscape.slope, state, batch, leave, memory)
        if leave or not self.max_sweeps or landscape.sweeps is None:
            return ended
        return merged(ended, self.sweeps(landscape, begun_anew(ended, state), batch=batch))

    def _descended(
        self,
        slope_at: Callable[[State], Slope],
        state: State,
        batch: str | None,
        leave: int,
        memory: "_Momentum | None",
    ) -> Relaxation:
        start, unflatten = ravel_pytree(state)
        zero = jnp.zeros((), start.dtype)
        if memory is None:
            memory = _Momentum(jnp.zeros_like(start), zero, zero + FIRST_RATE, zero + jnp.inf)

        def seen(position: Array) -> Slope:
            energy, force, curvature = slope_at(unflatten(position))
            return Slope(energy, ravel_pytree(force)[0], ravel_pytree(curvature)[0])

        def unfinished(carry: _Descent) -> Array:
            return (carry.moving > leave) & (carry.step < self.max_steps)

        def moved(
            position: Array, velocity: Array, ahead: Array, rate: Array, slope: Slope, flattest: Array
        ) -> tuple[Array, Array, Array]:
            steepest = slope.force / jnp.maximum(slope.curvature, flattest)
            velocity = ahead / (ahead + 3) * velocity + rate * jnp.clip(steepest, -1, 1)
            return position + velocity, velocity, ahead + 1

        def advance(carry: _Descent) -> _Descent:
            slope, past = seen(carry.position), carry.momentum
            residual = jnp.max(jnp.abs(slope.force), initial=0.0)
            rose = slope.energy > past.energy + ROUNDING * jnp.finfo(start.dtype).eps * jnp.abs(slope.energy)
            rate = jnp.where(rose, SLOWER * past.rate, past.rate)
            ahead = jnp.where(rose | (slope.force @ past.velocity < 0), 0.0, past.ahead)
            flattest = FLATTEST * jnp.mean(jnp.abs(slope.curvature))
            position, velocity, ahead = moved(carry.position, past.velocity, ahead, rate, slope, flattest)
            for _ in range(BLOCK - 1):
                position, velocity, ahead = moved(position, velocity, ahead, rate, seen(position), flattest)
            # Rounding may find somewhat more at the end.
            moves = ~(residual <= self.tolerance / 2)
            position = jnp.where(moves, position, carry.position)
            momentum = _Momentum(velocity, ahead, rate, slope.energy)
            return _Descent(position, momentum, _number(moves, batch), carry.step + BLOCK)

        first = _Descent(start, memory, jnp.asarray(leave + 1), jnp.asarray(0))
        last = jax.lax.while_loop(unfinished, advance, first)
        state = unflatten(last.position)
        residual = _largest(slope_at(state).force)
        return Relaxation(state, residual, last.step, residual <= self.tolerance, last.momentum if leave else None)


def begun_anew(ended: Relaxation, start: State) -> State:
    """Where a relaxation ended, or began if it did not converge."""
    return jax.tree.map(partial(jnp.where, ended.converged), ended.state, start)


def merged(first: Relaxation, second: Relaxation) -> Relaxation:
    """The first of two relaxations in a row where it converged, else the second."""
    state, residual = jax.tree.map(partial(jnp.where, first.converged), first[:2], second[:2])
    steps = first.steps + jnp.where(first.converged, 0, second.steps)
    return Relaxation(state, residual, steps, first.converged | second.converged)


class _Momentum(NamedTuple):
    velocity: Float[Array, " numbers"]
    ahead: Float[Array, ""]
    rate: Float[Array, ""]
    energy: Float[Array, ""]


class _Descent(NamedTuple):
    position: Float[Array, " numbers"]
    momentum: _Momentum
    moving: Int[Array, ""]
    step: Int[Array, ""]


Relaxer = RungeKutta | AdaptiveRungeKutta | BlockSweeps | AcceleratedDescent


def _number(moves: Array, batch: str | None) -> Int[Array, ""]:
    """How many examples of a batch are not at rest."""
    return moves.astype(int) if batch is None else jax.lax.psum(moves.astype(int), batch)


def _check_tolerance(tolerance: float) -> None:
    if tolerance != math.inf:
        check_range("tolerance", tolerance, low=0.0, open_low=True)


def _ended(landscape: Landscape, state: State, steps: Array, tolerance: float) -> Relaxation:
    residual = _largest(landscape.force(state))
    return Relaxation(state, residual, steps, (residual <= tolerance) & jnp.isfinite(residual))


def _largest(force: State) -> Float[Array, ""]:
    return jnp.max(jnp.array([jnp.max(jnp.abs(leaf), initial=0.0) for leaf in jax.tree.leaves(force)]))


def _kicked(state: State, size: float, key: PRNGKeyArray) -> State:
    leaves, structure = jax.tree.flatten(state)
    keys = jax.random.split(key, len(leaves))
    kicked = [x + size * jax.random.normal(k, x.shape, x.dtype) for x, k in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(structure, kicked)
