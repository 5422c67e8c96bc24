"""A twin of a device whose state is read after every input: each step tells of its parameters by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from morphax._checks import check_count, check_range
from morphax.pytrees import Role, Tree, select
from morphax.substrates.base import State, Substrate, stepped

SOLUTIONS = 60
"""Directions of conjugate gradients in a step of Gauss and Newton."""


class Steps(NamedTuple):
    """What was read of a device: inputs, states after each, and the readings beside them.

    - `inputs`: (runs, time, ...).
    - `states`: the states of the substrate, with axes (runs, time + 1) in front: the first is the initial one.
    - `readings`: (runs, time, readings), what `observe` gives.
    """

    inputs: Float[Array, "runs time ..."]
    states: State
    readings: Float[Array, "runs time readings"]


def read_steps(
    substrate: Substrate, inputs: Float[Array, "runs time ..."], *, noise: float | Array = 0.0, key: PRNGKeyArray
) -> Steps:
    """Drive a device from its initial state, once for every run, and read its state after every input.

    **Arguments:** `noise`: Gaussian, on every number that is read, in units of its deviation.
    """
    check_range("noise", noise, low=0.0)
    states, readings = _trajectories(substrate, jnp.asarray(inputs, jnp.result_type(float)))
    keys = iter(jax.random.split(key, len(jax.tree.leaves(states)) + 1))

    def noisy(values: Array) -> Array:
        size = noise * jnp.std(values, axis=(0, 1))
        return values + size * jax.random.normal(next(keys), values.shape, values.dtype)

    return Steps(jnp.asarray(inputs), jax.tree.map(noisy, states), noisy(readings))


@eqx.filter_jit
def _trajectories(substrate: Substrate, inputs: Array) -> tuple[State, Array]:
    step = substrate.stepper()

    def one(drives: Array) -> tuple[State, Array]:
        def advance(state: State, drive: Array) -> tuple[State, tuple[State, Array]]:
            after = stepped(step, state, drive)
            return after, (after, substrate.observe(after))

        first = substrate.initial_state()
        _, (later, readings) = jax.lax.scan(advance, first, drives)
        return jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), first, later), readings

    return jax.vmap(one)(inputs)


def identify_steps(
    substrate: Tree,
    steps: Steps,
    *,
    free: Sequence[Role] = ("weight", "device"),
    spread: float | Array = 0.1,
    noise: float | Array = 0.01,
    iterations: int = 6,
) -> Tree:
    r"""Fit all parameters of a model to states that were read after every input.

    $$\theta_i = \theta_i^0 e^{\sigma z_i}, \qquad
      \min_z \sum_t \left|\frac{F(s_t, u_{t+1}; \theta) - s_{t+1}}{\sqrt 2 \, \epsilon}\right|^2
      + \left|\frac{g(s_t; \theta) - y_t}{\sqrt 2 \, \epsilon}\right|^2 + |z|^2$$

    with one step $F$ of the dynamics, from a measured state to the next, readings $g$, and the initial state likewise.
    No error accumulates, so that there is one minimum near the model for thousands of parameters; it is found by the
    method of Gauss and Newton, with conjugate gradients for each linear problem and no matrix. Noise on a state counts
    where the step ends and where it begins, hence $\sqrt 2$.

    **Arguments:**

    - `substrate`: the model, with parameters as designed; its steps are not random. Zeros stay zero.
    - `steps`: of the device (`read_steps`).
    - `free`: roles of the leaves that are fitted.
    - `spread`: $\sigma > 0$, the relative spread that is expected.
    - `noise`: $\epsilon$, in units of each number's deviation, > 0.
    - `iterations`: steps of Gauss and Newton.

    **Returns:** the model with the parameters of the device; those of which the steps tell nothing are as designed.

    **Raises:** `ValueError` for values out of range.

        >>> import jax
        >>> from morphax import SpintronicNetwork, mismatch
        >>> from morphax.judging.stepwise import identify_steps, read_steps
        >>> design = SpintronicNetwork.random((4, 4), scale=4.0, key=jax.random.key(0))
        >>> chip = mismatch(design, weights=0.1, devices=0.1, key=jax.random.key(1))
        >>> drives = jax.random.uniform(jax.random.key(2), (20, 50))
        >>> twin = identify_steps(design, read_steps(chip, drives, noise=0.001, key=jax.random.key(3)), noise=0.001)
        >>> fresh = jax.random.uniform(jax.random.key(4), (1, 60))
        >>> runs = [read_steps(each, fresh, key=jax.random.key(5)).readings for each in (chip, design, twin)]
        >>> bool(abs(runs[2] - runs[0]).max() < 0.1 * abs(runs[1] - runs[0]).max())
        True
    """
    check_range("spread", spread, low=0.0, open_low=True)
    check_range("noise", noise, low=0.0, open_low=True)
    check_count("iterations", iterations, 1)
    chosen, rest = select(substrate, *free)
    values, back = ravel_pytree(chosen)
    model = _Model(values, eqx.Partial(_combined, back, rest), jnp.asarray(spread, values.dtype))
    z = _found(model, steps, jnp.asarray(noise, values.dtype), iterations)
    return model.at(z)


class _Model(eqx.Module):
    """A substrate by its parameters."""

    values: Array
    combined: eqx.Partial
    spread: Array

    def at(self, z: Array) -> Any:
        return self.combined(self.values * jnp.exp(self.spread * z))


def _combined(back: PyTree, rest: PyTree, values: Array) -> Substrate:
    return eqx.combine(back(values), rest)


@eqx.filter_jit
def _found(model: _Model, steps: Steps, noise: Array, iterations: int) -> Array:
    before = jax.tree.map(lambda x: x[:, :-1], steps.states)
    after = jax.tree.map(lambda x: x[:, 1:], steps.states)
    first = jax.tree.map(lambda x: x[:, 0], steps.states)
    scale = jax.tree.map(lambda x: _size(x) * noise * jnp.sqrt(2.0), (steps.states, steps.readings))

    def residuals(z: Array) -> PyTree:
        substrate = model.at(z)
        step = substrate.stepper()
        both = jax.vmap(jax.vmap(lambda state, drive: stepped(step, state, drive)))(before, steps.inputs)
        start = substrate.initial_state()
        of_states = jax.tree.map(lambda x, y, s: (x - y) / s, both, after, scale[0])
        of_first = jax.tree.map(lambda x, y, s: (x - y) / s, start, first, scale[0])
        read = jax.vmap(jax.vmap(substrate.observe))(after)
        return of_states, of_first, (read - steps.readings) / scale[1]

    def improve(z: Array, _: None) -> tuple[Array, None]:
        left, forward = jax.linearize(residuals, z)
        backward = jax.linear_transpose(forward, z)

        def curvature(v: Array) -> Array:
            return backward(forward(v))[0] + v

        change, _ = jax.scipy.sparse.linalg.cg(curvature, -(backward(left)[0] + z), maxiter=SOLUTIONS)
        return z + change, None

    return jax.lax.scan(improve, jnp.zeros_like(model.values), length=iterations)[0]


def _size(values: Array) -> Array:
    """Deviation of each number; of one that does not vary that of all, which says nothing of it."""
    deviation = jnp.std(values, axis=(0, 1))
    return jnp.maximum(deviation, 1e-3 * jnp.sqrt(jnp.mean(deviation**2)) + jnp.finfo(values.dtype).tiny)
