"""What every physical system is to the rest of the library: something driven, evolving and observed."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from morphax._checks import check_choice, check_count, check_finite, check_range, check_shape
from morphax.dynamics.scan import segmented_scan
from morphax.pytrees import WEIGHT

State = PyTree
Stepper = Callable[..., State]


class Consumption(NamedTuple):
    """What one kind of part draws: `number` of them, each `power` (W) while it runs and `energy` (J) an inference."""

    part: str
    number: int
    power: float = 0.0
    energy: float = 0.0


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

    def disturb(self, state: State, amplitude: ArrayLike, *, key: PRNGKeyArray) -> State:
        """The state with Gaussian noise of standard deviation `amplitude` added to every real or complex number in it.

        A substrate overrides it where some of these numbers cannot fluctuate by themselves, or are bounded.
        """
        leaves, structure = jax.tree.flatten(state)
        keys = jax.random.split(key, max(len(leaves), 1))
        moved = [
            leaf + amplitude * jax.random.normal(k, jnp.shape(leaf), leaf.dtype) if eqx.is_inexact_array(leaf) else leaf
            for leaf, k in zip(leaves, keys, strict=False)
        ]
        return jax.tree.unflatten(structure, moved)

    def consumption(self) -> tuple[Consumption, ...]:
        """What its parts draw, for an estimate of the energy (`morphax.learning.hardware.inference_energy`).

        Empty where no device constants are known, which is the default.
        """
        return ()


class WithReadout(Substrate):
    r"""A substrate followed by a linear layer: $o = W \, \mathrm{observe}(s) + b$, weights to be learned.

    It makes a reservoir, or a network without output, something that answers; the weights are leaves like any other, so
    every learning rule trains them together with those of the substrate.

    **Arguments:**

    - `substrate`: what is read.
    - `weights`: $W$, shape (outputs, neurons), finite.
    - `bias`: $b$, shape (outputs,), finite.

    **State:** that of `substrate`.

    **Raises:** `ValueError` for wrong shapes, NaN or infinity.

        >>> import jax, jax.numpy as jnp
        >>> from morphax import JosephsonMixer, WithReadout, evolve
        >>> reader = WithReadout.random(JosephsonMixer.two_mode(measured=9), outputs=2, key=jax.random.key(0))
        >>> evolve(reader, jnp.ones(5))[0].shape
        (5, 2)
    """

    substrate: Substrate
    weights: Float[Array, "outputs neurons"] = eqx.field(metadata=WEIGHT)
    bias: Float[Array, " outputs"] = eqx.field(metadata=WEIGHT)

    def __init__(self, substrate: Substrate, weights: ArrayLike, bias: ArrayLike):
        check_shape("weights", weights, (None, _neurons(substrate)))
        check_finite("weights", weights)
        check_shape("bias", bias, np.shape(weights)[:1])
        check_finite("bias", bias)
        self.substrate = substrate
        self.weights = jnp.asarray(weights, dtype=jnp.result_type(float))
        self.bias = jnp.asarray(bias, dtype=jnp.result_type(float))

    @classmethod
    def random(cls, substrate: Substrate, outputs: int, *, scale: float = 1.0, key: PRNGKeyArray) -> "WithReadout":
        r"""Weights uniform in $\pm$ `scale` $/ \sqrt{n}$ for $n$ neurons, biases uniform in $\pm 1 / \sqrt{n}$."""
        check_count("outputs", outputs, 1)
        check_range("scale", scale, low=0.0)
        neurons = _neurons(substrate)
        first, second = jax.random.split(key)
        bound = neurons**-0.5
        weights = scale * jax.random.uniform(first, (outputs, neurons), minval=-bound, maxval=bound)
        return cls(substrate, weights, jax.random.uniform(second, (outputs,), minval=-bound, maxval=bound))

    def initial_state(self, *, key: PRNGKeyArray | None = None) -> State:
        """That of the substrate."""
        return self.substrate.initial_state(key=key)

    def step(self, state: State, drive: Float[Array, "..."], *, key: PRNGKeyArray | None = None) -> State:
        """That of the substrate."""
        return self.substrate.step(state, drive, key=key)

    def stepper(self) -> Stepper:
        """That of the substrate."""
        return self.substrate.stepper()

    def observe(self, state: State, *, key: PRNGKeyArray | None = None) -> Float[Array, " outputs"]:
        """The outputs of the linear layer."""
        return self.weights @ self.substrate.observe(state, key=key) + self.bias

    def disturb(self, state: State, amplitude: ArrayLike, *, key: PRNGKeyArray) -> State:
        """That of the substrate."""
        return self.substrate.disturb(state, amplitude, key=key)

    def consumption(self) -> tuple[Consumption, ...]:
        """That of the substrate, with the weights of the linear layer as further synapses."""
        return tuple(
            item._replace(number=item.number + self.weights.size) if item.part == "synapse" else item
            for item in self.substrate.consumption()
        )


def _neurons(substrate: Substrate) -> int:
    """How many numbers an observation has, without computing one."""
    key = jax.random.key(0)
    reading = jax.eval_shape(lambda: substrate.observe(substrate.initial_state(key=key), key=key))
    return reading.shape[0]


def evolve(
    substrate: Substrate,
    drives: Float[Array, "time ..."] | np.ndarray,
    *,
    state: State | None = None,
    key: PRNGKeyArray | None = None,
    observe: Literal["every", "last"] = "every",
    segment: int | None = None,
) -> tuple[Float[Array, "*time neurons"], State]:
    """Drive a substrate with a sequence and observe it after every input: one `jax.lax.scan`, compiled once.

    **Arguments:**

    - `substrate`: the physical system.
    - `drives`: one input a row; the first axis is time in input intervals. For many sequences: `jax.vmap`.
    - `state`: where to start; by default the substrate's own initial state. Feed the returned state to go on.
    - `key`: random key, needed only by a substrate with noise, random initial state or finite shots.
    - `observe`: after "every" input, or only after the "last" one.
    - `segment`: inputs between two states that back-propagation keeps (`segmented_scan`): less memory for more
      arithmetic. None keeps all.

    **Returns:** the observations, one row an input (with "last": just that row), and the state after the last input.

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
    check_choice("observe", observe, ("every", "last"))
    return _evolve(substrate, drives, state, key, observe == "every", segment)


@eqx.filter_jit
def _evolve(
    substrate: Substrate,
    drives: Array,
    state: State | None,
    key: PRNGKeyArray | None,
    every: bool,
    segment: int | None,
) -> tuple[Array, State]:
    first, per_step = (None, None) if key is None else tuple(jax.random.split(key))
    if state is None:
        state = substrate.initial_state(key=first)
    step = substrate.stepper()

    def advance(state: State, inputs: tuple[Array, Any]) -> tuple[State, Array | None]:
        drive, step_key = inputs
        noise, readout = (None, None) if step_key is None else tuple(jax.random.split(step_key))
        state = step(state, drive, key=noise)
        return state, substrate.observe(state, key=readout) if every else None

    keys = None if per_step is None else jax.random.split(per_step, drives.shape[0])
    state, observations = segmented_scan(advance, state, (drives, keys), segment=segment)
    if every:
        return observations, state
    # The same key as the last of "every", so that both read the same shots.
    last = None if keys is None else jax.random.split(keys[-1])[1]
    return substrate.observe(state, key=last), state
