"""What every physical system is to the rest of the library: something driven, evolving and observed."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from morphax._checks import check_finite

State = PyTree
Stepper = Callable[..., State]


class Substrate(eqx.Module):
    """A physical system that is driven by an input, evolves by its own dynamics and is observed.

    A new system is one subclass with three methods. Each takes *one* example; use `jax.vmap` for many. Methods are pure
    functions of (fields, arguments, key). Array fields declare their role, `eqx.field(metadata=WEIGHT)` or
    `eqx.field(metadata=DEVICE)`.

    A leaky integrator with one input, exact over each interval of length 1:

        >>> import equinox as eqx, jax, jax.numpy as jnp
        >>> from morphax import DEVICE, Substrate, evolve
        >>> class LeakyIntegrator(Substrate):
        ...     damping_rate: jax.Array = eqx.field(metadata=DEVICE)
        ...     def initial_state(self, *, key=None):
        ...         return jnp.zeros_like(self.damping_rate)
        ...     def step(self, state, drive, *, key=None):
        ...         memory = jnp.exp(-self.damping_rate)
        ...         return memory * state + (1 - memory) * drive
        ...     def observe(self, state, *, key=None):
        ...         return state
        >>> neurons = LeakyIntegrator(jnp.array([0.1, 1.0]))
        >>> observations, state = evolve(neurons, jnp.ones(100))
        >>> observations.shape
        (100, 2)
        >>> bool(jnp.allclose(state, 1 - jnp.exp(-100 * neurons.damping_rate), atol=1e-5))
        True
    """

    @abstractmethod
    def initial_state(self, *, key: PRNGKeyArray | None = None) -> State:
        """The state before the first input: any pytree."""

    @abstractmethod
    def step(self, state: State, drive: Float[Array, "..."], *, key: PRNGKeyArray | None = None) -> State:
        """Hold one input for one input interval and let physics act. `key` feeds noise, where there is some."""

    @abstractmethod
    def observe(self, state: State, *, key: PRNGKeyArray | None = None) -> Float[Array, " neurons"]:
        """What a laboratory would read. `key` feeds a read-out that is itself random (a finite number of shots)."""

    def stepper(self) -> Stepper:
        """A function like `step`, with everything that depends on neither state nor drive computed once.

        `evolve` calls it before its loop. The default is `step` itself; a substrate overrides it when part of a step is
        worth sharing between all steps (a propagator, a factorisation).
        """
        return self.step


def evolve(
    substrate: Substrate,
    drives: Float[Array, "time ..."] | np.ndarray,
    *,
    state: State | None = None,
    key: PRNGKeyArray | None = None,
) -> tuple[Float[Array, "time neurons"], State]:
    """Drive a substrate with a sequence and observe it after every input: one `jax.lax.scan`, compiled once.

    **Arguments:**

    - `substrate`: the physical system.
    - `drives`: one input a row; the first axis is time in input intervals. For many sequences: `jax.vmap`.
    - `state`: where to start; by default the substrate's own initial state. Feed the returned state to go on.
    - `key`: random key, needed only by a substrate with noise, random initial state or finite shots.

    **Returns:** the observations, one row an input, and the state after the last input.

    **Raises:** `ValueError` when `drives` is a scalar, empty, or holds NaN or infinity (says where).

        >>> import jax, jax.numpy as jnp
        >>> from morphax import JosephsonMixer, evolve
        >>> mixer = JosephsonMixer.two_mode(measured=9)
        >>> populations, state = evolve(mixer, jnp.sin(jnp.arange(16.0)))
        >>> populations.shape
        (16, 9)
        >>> later, _ = evolve(mixer, jnp.ones(4), state=state)     # goes on where the first ended
    """
    drives = jnp.asarray(drives)
    if not jnp.issubdtype(drives.dtype, jnp.inexact):
        drives = drives.astype(jnp.result_type(float))
    if drives.ndim == 0 or drives.shape[0] == 0:
        raise ValueError(f"drives has shape {drives.shape}; its first axis is time and must hold at least 1 point")
    check_finite("drives", drives)
    return _evolve(substrate, drives, state, key)


@eqx.filter_jit
def _evolve(substrate: Substrate, drives: Array, state: State | None, key: PRNGKeyArray | None) -> tuple[Array, State]:
    first, per_step = (None, None) if key is None else tuple(jax.random.split(key))
    if state is None:
        state = substrate.initial_state(key=first)
    step = substrate.stepper()

    def advance(state: State, inputs: tuple[Array, Any]) -> tuple[State, Array]:
        drive, step_key = inputs
        noise, readout = (None, None) if step_key is None else tuple(jax.random.split(step_key))
        state = step(state, drive, key=noise)
        return state, substrate.observe(state, key=readout)

    keys = None if per_step is None else jax.random.split(per_step, drives.shape[0])
    state, observations = jax.lax.scan(advance, state, (drives, keys))
    return observations, state
