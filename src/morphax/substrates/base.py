"""What every physical system is to the rest of the library: something driven, evolving and observed."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import fields
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from morphax._checks import check_choice, check_finite, check_key, is_concrete
from morphax.dynamics.scan import segmented_scan

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
    functions of (fields, arguments, key). Array fields declare their role, `eqx.field(metadata=WEIGHT)`, `DEVICE` or
    `SETTING`; a number of Python or NumPy with a role becomes an array. A system that takes more than one number an
    input says so in `channels`. `morphax.testing.check_substrate` tells whether a class keeps all of this.

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

    def __check_init__(self) -> None:
        for field in fields(self):
            value, role = getattr(self, field.name), field.metadata.get("role")
            if role is not None and field.metadata.get("static"):
                raise ValueError(
                    f"{type(self).__name__}.{field.name} has the role {role} and is static, so nothing trains it and "
                    "no device differs in it; leave out one of the two"
                )
            if role in ("weight", "device") and _is_number(value):
                object.__setattr__(self, field.name, jnp.asarray(value, jnp.result_type(float)))

    @property
    def channels(self) -> int | tuple[int, ...]:
        """How many numbers one input holds, or the numbers of numbers that it may hold; 1 where nothing is said.

        One channel is taken with or without its axis, shape (1,) or ().
        """
        return 1

    @property
    def exact_derivatives(self) -> bool:
        """Whether derivatives are those of what is computed; False where others stand in for them, as for a spike."""
        return True

    @property
    def differentiable(self) -> bool:
        """Whether a step has derivatives at all; a device outside of this process has none."""
        return True

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

    def driven(
        self,
        drives: Float[Array, "time ..."],
        *,
        state: State | None = None,
        key: PRNGKeyArray | None = None,
        every: bool = True,
        segment: int | None = None,
    ) -> tuple[Float[Array, "*time neurons"], State]:
        """What `evolve` gives, which calls it: one step after the other.

        A system overrides it that answers whole sequences only.
        """
        first, per_step = (None, None) if key is None else tuple(jax.random.split(key))
        if state is None:
            state = self.initial_state(key=first)
        step = self.stepper()

        def advance(state: State, inputs: tuple[Array, Any]) -> tuple[State, Array | None]:
            drive, step_key = inputs
            noise, readout = (None, None) if step_key is None else tuple(jax.random.split(step_key))
            state = stepped(step, state, drive, key=noise)
            return state, self.observe(state, key=readout) if every else None

        keys = None if per_step is None else jax.random.split(per_step, drives.shape[0])
        state, observations = segmented_scan(advance, state, (drives, keys), segment=segment)
        if every:
            return observations, state
        # The same key as the last of "every", so that both read the same shots.
        last = None if keys is None else jax.random.split(keys[-1])[1]
        return self.observe(state, key=last), state

    def check_state(self, state: State) -> None:
        """Refuse, by `ValueError`, a state from which nothing can go on: by itself, one with NaN or infinity."""
        for path, leaf in jax.tree_util.tree_leaves_with_path(state):
            if eqx.is_inexact_array_like(leaf):
                check_finite(f"state{jax.tree_util.keystr(path)}", leaf)

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
        """What its parts draw, for an estimate of the energy (`morphax.substrates.imperfections.inference_energy`).

        Empty where no device constants are known, which is the default.
        """
        return ()


def _is_number(value: Any) -> bool:
    """Whether something is a real number, or NumPy's real numbers, and should be an array."""
    if isinstance(value, np.ndarray | np.generic):
        return np.issubdtype(value.dtype, np.floating)
    return isinstance(value, float | int) and not isinstance(value, bool)


def count_neurons(substrate: Substrate) -> int:
    """How many numbers an observation has, without computing one."""
    key = jax.random.key(0)
    reading = jax.eval_shape(lambda: substrate.observe(substrate.initial_state(key=key), key=key))
    if len(reading.shape) != 1:
        raise ValueError(
            f"observe of {type(substrate).__name__} gives shape {reading.shape}; it must give one axis, (neurons,)"
        )
    return reading.shape[0]


def check_channels(substrate: Substrate, drive_shape: tuple[int, ...]) -> None:
    """Refuse one input of another number of channels than the substrate takes, with the remedy.

    Inputs with more than one axis (spikes in every time step) are left to the substrate.
    """
    if len(drive_shape) > 1:
        return
    channels = drive_shape[0] if drive_shape else 1
    if channels not in numbers_of(substrate.channels):
        unsaid = type(substrate).channels is Substrate.channels
        raise ValueError(
            f"one input has {counted(channels)}, shape {drive_shape}; {type(substrate).__name__} takes "
            f"{counted(substrate.channels)}: put WithInput.random(substrate, channels={channels}, key=key) around it"
            + (", or say in its property `channels` what it takes" if unsaid else "")
        )


def presented(substrate: Substrate, inputs: Array) -> Float[Array, "examples time ..."]:
    """Inputs of many examples as one sequence of inputs each.

    Two axes are (examples, time) where the substrate takes one channel, and else (examples, channels): vectors, each
    presented at once.

    **Raises:** `ValueError` for another number of channels than the substrate takes.
    """
    shape = np.shape(inputs)
    if len(shape) < 2:
        raise ValueError(
            f"inputs has shape {shape}; it must be (examples, time), (examples, channels) or (examples, time, channels)"
            "; one stream is one example: inputs[None]"
        )
    if len(shape) == 2 and 1 not in numbers_of(substrate.channels):
        inputs = inputs[:, None]
    check_channels(substrate, np.shape(inputs)[2:])
    return inputs


def numbers_of(channels: int | tuple[int, ...]) -> tuple[int, ...]:
    return channels if isinstance(channels, tuple) else (channels,)


def counted(channels: int | tuple[int, ...]) -> str:
    numbers = sorted(set(numbers_of(channels)))
    return f"{' or '.join(map(str, numbers))} channel{'' if numbers == [1] else 's'}"


def stepped(step: Stepper, state: State, drive: Float[Array, "..."], *, key: PRNGKeyArray | None = None) -> State:
    """One step; one channel comes with or without its axis, as the step takes it.

    What it takes leaves the state's shapes as they were.
    """
    if jnp.shape(drive) not in ((), (1,)):
        return step(state, drive, key=key)

    def tried(drive: Array) -> tuple[State | None, Exception | None]:
        try:
            after = step(state, drive, key=key)
        except (TypeError, ValueError, IndexError) as error:
            return None, error
        return after if jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, state) else None, None

    after, error = tried(drive)
    if after is None:
        after, _ = tried(jnp.reshape(drive, () if jnp.ndim(drive) else (1,)))
    if after is not None:
        return after
    if error is not None:
        raise error
    return step(state, drive, key=key)


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

    **Raises:** `ValueError` when `drives` is a scalar, empty, holds NaN or infinity (says where), or has another number
    of channels than the substrate takes; for a state that is none of the substrate; and where an observation is not
    finite (says after which input; inside `jax.jit` nobody can look).

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
    check_channels(substrate, drives.shape[1:])
    check_finite("drives", drives)
    check_choice("observe", observe, ("every", "last"))
    check_key("key", key)
    if state is not None:
        substrate.check_state(state)
    # A device outside is asked from here where that is possible, and what it raises comes from here.
    run = _evolve if substrate.differentiable or not is_concrete(drives) else _driven
    observations, state = run(substrate, drives, state, key, observe == "every", segment)
    if is_concrete(observations) and not np.all(np.isfinite(observations)):
        index = np.argwhere(~np.isfinite(observations))[0].tolist()
        where = f"after input {index[0]}" if observe == "every" else "at the end"
        raise ValueError(
            f"an observation of the {type(substrate).__name__} is not finite {where} (neuron {index[-1]}); a drive or "
            "a rate is too large, or the precision too low"
        )
    return observations, state


def _driven(
    substrate: Substrate,
    drives: Array,
    state: State | None,
    key: PRNGKeyArray | None,
    every: bool,
    segment: int | None,
) -> tuple[Array, State]:
    return substrate.driven(drives, state=state, key=key, every=every, segment=segment)


_evolve = eqx.filter_jit(_driven)
