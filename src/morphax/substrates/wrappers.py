"""What stands around a substrate: a linear layer behind it, one before it, and what keeps its kind."""

from collections.abc import Callable
from dataclasses import fields
from functools import cache
from typing import Any, Self, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PRNGKeyArray

from morphax._checks import check_count, check_finite, check_key, check_range, check_shape
from morphax.pytrees import WEIGHT
from morphax.substrates.base import (
    Consumption,
    State,
    Stepper,
    Substrate,
    count_neurons,
    counted,
    numbers_of,
    stepped,
)
from morphax.tasks.base import Task

Kind = TypeVar("Kind", bound="type[Wrapper]")


class Wrapper(Substrate):
    """A substrate around a substrate, which stays what it is: around an energy substrate it is an energy substrate.

    A subclass changes what goes in (`drive`), what comes out (`read`), or any method; everything else is that of
    `substrate`. Around an energy substrate a change of `observe` needs one of `landscape`, too. As `pathlib.Path` makes
    a `PosixPath`, calling the subclass makes an object of a class that is both:
    `isinstance(WithReadout(PhaseOscillators(...), ...), EnergySubstrate)`.

    **Arguments:**

    - `substrate`: what is inside.
    """

    substrate: Substrate

    def __new__(cls, substrate: Substrate | None = None, *args: Any, **options: Any) -> Self:
        """The class that keeps the kind of `substrate`."""
        made: Any = cls if substrate is None else cls.around(substrate)
        self = super().__new__(made)
        if not issubclass(made, cls):
            # Of another kind than what is called (`dataclasses.replace`), so that Python does not initialise it.
            made.__init__(self, substrate, *args, **options)
        return self

    @classmethod
    def around(cls, substrate: Substrate) -> type[Self]:
        """This class, together with what it has to forward for a substrate of such a kind."""
        alone = getattr(cls, "wraps_as", cls)
        kinds = tuple(keeper for kind, keeper in _KEEPERS.items() if isinstance(substrate, kind))
        return _joined(alone, kinds) if kinds else alone

    def __reduce__(self) -> Any:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return _rebuilt, (getattr(type(self), "wraps_as", type(self)), values)

    @property
    def channels(self) -> int | tuple[int, ...]:
        """Those of the substrate."""
        return self.substrate.channels

    @property
    def exact_derivatives(self) -> bool:
        """Whether they are inside."""
        return self.substrate.exact_derivatives

    @property
    def differentiable(self) -> bool:
        """Whether there are derivatives inside."""
        return self.substrate.differentiable

    def driven(
        self,
        drives: Float[Array, "time ..."],
        *,
        state: State | None = None,
        key: PRNGKeyArray | None = None,
        every: bool = True,
        segment: int | None = None,
    ) -> tuple[Float[Array, "*time outputs"], State]:
        """One step after the other; or, around what answers whole sequences only, those under `drive` and `read`."""
        if self.differentiable:
            return super().driven(drives, state=state, key=key, every=every, segment=segment)
        own = type(self)
        changed = [name for name in ("step", "stepper", "observe") if getattr(own, name) is not getattr(Wrapper, name)]
        if changed:
            raise ValueError(
                f"{own.__name__} changes what happens between two inputs, but the device inside answers whole "
                "sequences only; put it around a model of the device"
            )
        shown, state = self.substrate.driven(jax.vmap(self.drive)(drives), state=state, key=key, every=every)
        return jax.vmap(self.read)(shown) if every else self.read(shown), state

    def drive(self, drive: Float[Array, "..."]) -> Float[Array, "..."]:
        """What reaches the substrate of one input: all of it."""
        return drive

    def read(self, observation: Float[Array, " neurons"]) -> Float[Array, " outputs"]:
        """What becomes of the substrate's observation: nothing."""
        return observation

    def initial_state(self, *, key: PRNGKeyArray | None = None) -> State:
        """That of the substrate."""
        return self.substrate.initial_state(key=key)

    def step(self, state: State, drive: Float[Array, "..."], *, key: PRNGKeyArray | None = None) -> State:
        """That of the substrate, under the drive that reaches it."""
        if type(self).stepper is not Wrapper.stepper:
            return self.stepper()(state, drive, key=key)
        return stepped(self.substrate.step, state, self.drive(drive), key=key)

    def stepper(self) -> Stepper:
        """That of the substrate, under the drive that reaches it."""
        if type(self).step is not Wrapper.step:
            return self.step
        inner = self.substrate.stepper()

        def step(state: State, drive: Array, *, key: PRNGKeyArray | None = None) -> State:
            return stepped(inner, state, self.drive(drive), key=key)

        return step

    def observe(self, state: State, *, key: PRNGKeyArray | None = None) -> Float[Array, " outputs"]:
        """What becomes of the substrate's observation."""
        return self.read(self.substrate.observe(state, key=key))

    def check_state(self, state: State) -> None:
        """That of the substrate."""
        self.substrate.check_state(state)

    def disturb(self, state: State, amplitude: ArrayLike, *, key: PRNGKeyArray) -> State:
        """That of the substrate."""
        return self.substrate.disturb(state, amplitude, key=key)

    def consumption(self) -> tuple[Consumption, ...]:
        """That of the substrate."""
        return self.substrate.consumption()


_KEEPERS: dict[type[Substrate], type[Wrapper]] = {}


def keeps(kind: type[Substrate]) -> Callable[[Kind], Kind]:
    """Class decorator: what a `Wrapper` around a substrate of this kind forwards besides."""

    def register(keeper: Kind) -> Kind:
        _KEEPERS[kind] = keeper
        return keeper

    return register


@cache
def _joined(cls: type[Wrapper], kinds: tuple[type[Wrapper], ...]) -> Any:
    content = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__, "wraps_as": cls}
    metaclass: Any = type(cls)
    return metaclass(cls.__name__, (cls, *kinds), content)


def _rebuilt(cls: type[Wrapper], values: dict[str, Any]) -> Wrapper:
    """A wrapper from its fields; the class that `around` makes has no name by which it could be found again."""
    wrapper = object.__new__(cls.around(values["substrate"]))
    for name, value in values.items():
        object.__setattr__(wrapper, name, value)
    return wrapper


class WithReadout(Wrapper):
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

    weights: Float[Array, "outputs neurons"] = eqx.field(metadata=WEIGHT)
    bias: Float[Array, " outputs"] = eqx.field(metadata=WEIGHT)

    def __init__(self, substrate: Substrate, weights: ArrayLike, bias: ArrayLike):
        check_shape("weights", weights, (None, count_neurons(substrate)))
        check_finite("weights", weights)
        check_shape("bias", bias, np.shape(weights)[:1])
        check_finite("bias", bias)
        self.substrate = substrate
        self.weights = jnp.asarray(weights, dtype=jnp.result_type(float))
        self.bias = jnp.asarray(bias, dtype=jnp.result_type(float))

    @classmethod
    def random(cls, substrate: Substrate, outputs: int, *, scale: float = 1.0, key: PRNGKeyArray) -> "WithReadout":
        r"""Weights uniform in $\pm$ `scale` $/ \sqrt{n}$ for $n$ neurons, biases uniform in $\pm 1 / \sqrt{n}$."""
        check_key("key", key)
        check_count("outputs", outputs, 1)
        check_range("scale", scale, low=0.0)
        neurons = count_neurons(substrate)
        first, second = jax.random.split(key)
        bound = neurons**-0.5
        weights = scale * jax.random.uniform(first, (outputs, neurons), minval=-bound, maxval=bound)
        return cls(substrate, weights, jax.random.uniform(second, (outputs,), minval=-bound, maxval=bound))

    def read(self, observation: Float[Array, " neurons"]) -> Float[Array, " outputs"]:
        """The outputs of the linear layer."""
        return self.weights @ observation + self.bias

    def consumption(self) -> tuple[Consumption, ...]:
        """That of the substrate, with the weights of the linear layer as further synapses."""
        return tuple(
            item._replace(number=item.number + self.weights.size) if item.part == "synapse" else item
            for item in self.substrate.consumption()
        )


class WithInput(Wrapper):
    r"""A substrate behind a linear layer: how a signal $u$ is scaled and masked onto the device.

    $$d = d_0 + g \, M u$$

    The counterpart of `WithReadout`: it fits the channels of any task to those of any substrate, and its numbers are
    weights, so every learning rule trains them too.

    **Arguments:**

    - `substrate`: what is driven.
    - `mask`: $M$, shape (drives, channels), with as many drives as the substrate takes; finite.
    - `gain`: $g$, one number or shape (drives,); 1 by default.
    - `offset`: $d_0$, one number or shape (drives,); 0 by default.

    **State:** that of `substrate`. **Drive:** shape (channels,), or () for one.

    **Raises:** `ValueError` for wrong shapes, NaN or infinity.

        >>> import jax, jax.numpy as jnp
        >>> from morphax import JosephsonMixer, WithInput, evolve
        >>> driven = WithInput.random(JosephsonMixer.two_mode(measured=9), channels=3, key=jax.random.key(0))
        >>> driven.mask.shape, evolve(driven, jnp.ones((5, 3)))[0].shape          # each mode has a drive of its own
        ((2, 3), (5, 9))
        >>> half = WithInput(JosephsonMixer.two_mode(measured=9), jnp.ones((1, 1)), gain=0.5)
        >>> bool(jnp.allclose(evolve(half, jnp.ones(5))[0], evolve(half.substrate, jnp.ones(5) / 2)[0]))
        True
    """

    mask: Float[Array, "drives channels"] = eqx.field(metadata=WEIGHT)
    gain: Float[Array, " drives"] = eqx.field(metadata=WEIGHT)
    offset: Float[Array, " drives"] = eqx.field(metadata=WEIGHT)

    def __init__(self, substrate: Substrate, mask: ArrayLike, *, gain: ArrayLike = 1.0, offset: ArrayLike = 0.0):
        check_shape("mask", mask, (None, None))
        drives = _drives_of("mask", mask, substrate)
        self.substrate = substrate
        self.mask = jnp.asarray(mask, jnp.result_type(float))
        for name, value in (("gain", gain), ("offset", offset)):
            if np.ndim(value):
                check_shape(name, value, (drives,))
            setattr(self, name, jnp.broadcast_to(jnp.asarray(value, jnp.result_type(float)), (drives,)))
        for name, value in (("mask", mask), ("gain", gain), ("offset", offset)):
            check_finite(name, value)

    @classmethod
    def random(
        cls,
        substrate: Substrate,
        channels: int,
        *,
        drives: int | None = None,
        gain: ArrayLike = 1.0,
        offset: ArrayLike = 0.0,
        key: PRNGKeyArray,
    ) -> "WithInput":
        r"""A mask uniform in $\pm 1 / \sqrt{c}$ for $c$ channels.

        `drives`: which number of drives, where the substrate takes several; by default the largest.
        """
        check_key("key", key)
        check_count("channels", channels, 1)
        rows = max(numbers_of(substrate.channels)) if drives is None else drives
        bound = channels**-0.5
        mask = jax.random.uniform(key, (rows, channels), minval=-bound, maxval=bound)
        return cls(substrate, mask, gain=gain, offset=offset)

    @property
    def channels(self) -> int:
        """The channels of the mask."""
        return self.mask.shape[1]

    def drive(self, drive: Float[Array, "..."]) -> Float[Array, " drives"]:
        """Offset, and the masked and scaled input."""
        signal = jnp.atleast_1d(drive)
        check_shape("drive", signal, self.mask.shape[1:])
        return self.offset + self.gain * (self.mask @ signal)


class WithFeedback(Wrapper):
    r"""A substrate whose own answers reach it again, beside its input: $d = u + F o$ with the last outputs o.

    What makes a reservoir go on by itself: a readout that is trained to say the next value, fed back, generates a
    series. `RecursiveLeastSquares` trains it while it is fed back (FORCE). It is a substrate that evolves and of no
    other kind, whatever is inside: neurons that reach each other through their readout are not known one by one.

    **Arguments:**

    - `substrate`: what answers, such as a `WithReadout`.
    - `matrix`: $F$, shape (drives, outputs), with as many drives as the substrate takes; finite.

    **State:** that of `substrate`; its outputs are read once more for what is fed back.

    **Raises:** `ValueError` for a wrong shape, NaN or infinity.

        >>> import jax, jax.numpy as jnp
        >>> from morphax import EchoStateNetwork, WithFeedback, WithReadout, evolve
        >>> network = WithReadout.random(EchoStateNetwork.random(50, key=jax.random.key(0)), 1, key=jax.random.key(1))
        >>> evolve(WithFeedback(network, jnp.ones((1, 1))), jnp.zeros(30))[0].shape
        (30, 1)
    """

    matrix: Float[Array, "drives outputs"] = eqx.field(metadata=WEIGHT)

    def __init__(self, substrate: Substrate, matrix: ArrayLike):
        check_shape("matrix", matrix, (None, count_neurons(substrate)))
        check_finite("matrix", matrix)
        _drives_of("matrix", matrix, substrate)
        self.substrate = substrate
        self.matrix = jnp.asarray(matrix, jnp.result_type(float))

    @classmethod
    def around(cls, substrate: Substrate) -> type[Self]:
        """This class: the kind of what is inside is not kept."""
        return cls

    def fed(self, drive: Float[Array, "..."], outputs: Float[Array, " outputs"]) -> Float[Array, " drives"]:
        """What reaches the substrate of an input and of outputs."""
        return jnp.atleast_1d(drive) + self.matrix @ outputs

    def stepper(self) -> Stepper:
        """That of the substrate, under its input and what it answers at the beginning."""
        inner = self.substrate.stepper()

        def step(state: State, drive: Array, *, key: PRNGKeyArray | None = None) -> State:
            first, second = (None, None) if key is None else jax.random.split(key)
            outputs = self.substrate.observe(state, key=first)
            return stepped(inner, state, self.fed(drive, outputs), key=second)

        return step


def _drives_of(name: str, matrix: ArrayLike, substrate: Substrate) -> int:
    """The rows of a matrix, which the substrate must take."""
    drives = np.shape(matrix)[0]
    if drives not in numbers_of(substrate.channels):
        raise ValueError(
            f"{name} has shape {np.shape(matrix)}, {drives} rows; {type(substrate).__name__} takes "
            f"{counted(substrate.channels)}, so it must have as many"
        )
    return drives


def fitted(substrate: Substrate, task: Task, *, key: PRNGKeyArray) -> Substrate:
    """The substrate with what it lacks for a task around it: a random input layer, a random readout, both, or nothing.

    An input layer where it does not take the task's channels, a readout where it does not give as many outputs.

        >>> import jax
        >>> from morphax import SpintronicNetwork, fitted
        >>> from morphax.tasks import phase_digits
        >>> network = SpintronicNetwork.random((8, 8), key=jax.random.key(0))
        >>> network = fitted(network, phase_digits(), key=jax.random.key(1))
        >>> type(network).__name__, type(network.substrate).__name__
        ('WithReadout', 'WithInput')
    """
    first, second = jax.random.split(key)
    if task.channels not in numbers_of(substrate.channels):
        substrate = WithInput.random(substrate, task.channels, key=first)
    if count_neurons(substrate) != task.outputs:
        substrate = WithReadout.random(substrate, task.outputs, key=second)
    return substrate
