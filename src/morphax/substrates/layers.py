r"""What layered networks of dynamical neurons share: sparse connections, and the step of a recurrently driven network.

Every neuron has a state that relaxes in a closed form while its drive is constant, and an output. The drive

$$I(t) = S \left(W y(t) + W_\mathrm{in} u + b\right)$$

holds all layers in one block matrix $W$: blocks on the diagonal connect a layer to itself, those below it the layer
before.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from morphax._checks import check_choice, check_count, check_finite, check_key, check_range, check_shape, is_concrete
from morphax.dynamics.runge_kutta import TABLEAUS, runge_kutta_step
from morphax.pytrees import DEVICE, SETTING, WEIGHT
from morphax.substrates.base import State, Stepper
from morphax.substrates.neuronwise import Neuronwise

Observed = Literal["last layer", "outputs", "states"]
Method = Literal["exponential", "runge-kutta"]
ORDERS = {"exponential": (1, 2), "runge-kutta": tuple(TABLEAUS)}


class Connections(eqx.Module):
    r"""Weighted sums into every neuron of a network of layers, $W y + W_\mathrm{in} u + b$, with a fixed mask.

    Only weights where the mask is true are synapses; all others stay 0 whatever a learning rule does.

    **Arguments:**

    - `layers`: neurons in each layer; $N$ is their sum.
    - `weights`: $W$, shape (N, N), to row from column, finite.
    - `input_weights`: $W_\mathrm{in}$, shape (N, inputs), finite.
    - `bias`: $b$, shape (N,), finite.
    - `mask`, `input_mask`: booleans of the same shapes. By default the weights that are not 0.

    **Raises:** `ValueError` for wrong shapes, NaN or infinity.
    """

    layers: tuple[int, ...] = eqx.field(static=True)
    weights: Float[Array, "neurons neurons"] = eqx.field(metadata=WEIGHT)
    input_weights: Float[Array, "neurons inputs"] = eqx.field(metadata=WEIGHT)
    bias: Float[Array, " neurons"] = eqx.field(metadata=WEIGHT)
    mask: Bool[Array, "neurons neurons"]
    input_mask: Bool[Array, "neurons inputs"]

    def __init__(
        self,
        layers: tuple[int, ...],
        weights: ArrayLike,
        input_weights: ArrayLike,
        bias: ArrayLike,
        *,
        mask: ArrayLike | None = None,
        input_mask: ArrayLike | None = None,
    ):
        if not layers:
            raise ValueError("layers is empty; a network has at least 1")
        for size in layers:
            check_count("layers", size, 1)
        neurons = sum(layers)
        self.layers = tuple(layers)
        self.weights = as_array("weights", weights, (neurons, neurons))
        self.input_weights = as_array("input_weights", input_weights, (neurons, None))
        self.bias = as_array("bias", bias, (neurons,))
        self.mask = self.weights != 0 if mask is None else jnp.asarray(mask, bool)
        self.input_mask = self.input_weights != 0 if input_mask is None else jnp.asarray(input_mask, bool)
        check_shape("mask", self.mask, self.weights.shape)
        check_shape("input_mask", self.input_mask, self.input_weights.shape)

    @classmethod
    def random(
        cls,
        layers: tuple[int, ...],
        *,
        inputs: int = 1,
        interlayer_density: float = 0.5,
        intralayer_density: float = 0.5,
        scale: float = 1.0,
        key: PRNGKeyArray,
    ) -> "Connections":
        r"""A feedforward chain of layers, each connected to itself, with randomly chosen synapses.

        Of every block of $n$ possible synapses exactly round(density $n$) exist; which is drawn from `key`. Weights are
        uniform in $\pm$ `scale` $/ \sqrt{m}$ for $m$ neurons in the layer that sends (or $m$ inputs), biases likewise
        with the $m$ of what drives the layer from below.

        **Arguments:**

        - `layers`: neurons in each layer, from input to output.
        - `inputs`: inputs of the first layer.
        - `interlayer_density`: of connections from the input and from layer to layer, in [0, 1].
        - `intralayer_density`: of connections inside layers (a neuron to itself included), in [0, 1].
        - `scale`: >= 0.
        - `key`: random key.
        """
        check_key("key", key)
        check_count("inputs", inputs, 1)
        check_range("interlayer_density", interlayer_density, low=0.0, high=1.0)
        check_range("intralayer_density", intralayer_density, low=0.0, high=1.0)
        check_range("scale", scale, low=0.0)
        neurons, ends = sum(layers), np.cumsum(layers)
        mask = jnp.zeros((neurons, neurons), bool)
        fan_in = np.ones((neurons, neurons))
        driven_by = np.empty(neurons)
        mask_key, input_key, *keys = jax.random.split(key, 5)
        input_mask = jnp.zeros((neurons, inputs), bool)
        for index, (end, size) in enumerate(zip(ends, layers, strict=True)):
            rows = slice(end - size, end)
            own, below = jax.random.split(jax.random.fold_in(mask_key, index))
            mask = mask.at[rows, rows].set(_chosen(own, (size, size), intralayer_density))
            fan_in[rows, rows] = size
            driven_by[rows] = inputs if index == 0 else layers[index - 1]
            if index == 0:
                input_mask = input_mask.at[rows].set(_chosen(input_key, (size, inputs), interlayer_density))
            else:
                senders = slice(ends[index - 1] - layers[index - 1], ends[index - 1])
                mask = mask.at[rows, senders].set(_chosen(below, (size, layers[index - 1]), interlayer_density))
                fan_in[rows, senders] = layers[index - 1]
        uniform = [
            scale * jax.random.uniform(k, np.shape(m), minval=-1.0, maxval=1.0) / np.sqrt(m)
            for k, m in zip(keys, (fan_in, np.full((neurons, inputs), inputs), driven_by), strict=True)
        ]
        weights, input_weights = jnp.where(mask, uniform[0], 0.0), jnp.where(input_mask, uniform[1], 0.0)
        return cls(layers, weights, input_weights, uniform[2], mask=mask, input_mask=input_mask)

    @property
    def neurons(self) -> int:
        """The number of neurons in all layers."""
        return sum(self.layers)

    @property
    def synapses(self) -> int:
        """The number of connections that exist; biases are none."""
        return int(np.sum(np.asarray(self.mask))) + int(np.sum(np.asarray(self.input_mask)))

    def existing(self) -> "Connections":
        """The same with 0 wherever there is no synapse: what computes, and what is differentiated."""
        pruned = (jnp.where(self.mask, self.weights, 0.0), jnp.where(self.input_mask, self.input_weights, 0.0))
        return eqx.tree_at(lambda c: (c.weights, c.input_weights), self, pruned)


class Scheme(eqx.Module):
    """How a network is followed over an interval: `sub_steps` steps of an integrator of some order."""

    method: Method = eqx.field(static=True)
    order: int = eqx.field(static=True)
    sub_steps: int = eqx.field(static=True)

    def __init__(self, method: Method, order: int, interval: ArrayLike, time_step: float | None):
        check_choice("method", method, tuple(ORDERS))
        check_choice(f"order of method {method!r}", order, ORDERS[method])
        self.method, self.order = method, order
        self.sub_steps = 1 if time_step is None else _sub_steps(interval, time_step)


class Probe(eqx.Module):
    """What is read of a network."""

    observed: Observed = eqx.field(static=True)

    def __check_init__(self) -> None:
        check_choice("observed", self.observed, ("last layer", "outputs", "states"))


class Wiring(NamedTuple):
    """Matrices in front of the neurons, pruned and amplified, and what is always there."""

    weights: Float[Array, "from to"]
    input_weights: Float[Array, "inputs to"]
    constant: Float[Array, " to"]


class LayeredNetwork(Neuronwise):
    r"""Dynamical neurons in layers: everything but the equation of a neuron, which a subclass gives.

    Over a time step the drive is held, either at its value at the start (`order` 1) or at its value in the middle, for
    which half a step is made first (`order` 2), and every neuron follows the closed form of its equation: an
    exponential integrator. `method="runge-kutta"` integrates all equations together instead, with orders 1 to 4.
    """

    connections: Connections
    amplification: Float[Array, " neurons"] = eqx.field(metadata=DEVICE)
    interval: Float[Array, ""] = eqx.field(metadata=SETTING)
    scheme: Scheme
    probe: Probe

    def __init__(
        self,
        connections: Connections,
        amplification: ArrayLike,
        interval: ArrayLike,
        time_step: float | None,
        method: Method,
        order: int,
        observed: Observed,
    ):
        check_range("amplification", amplification)
        check_range("interval", interval, low=0.0, open_low=True)
        self.connections = connections
        self.amplification = per_neuron("amplification", amplification, connections.neurons)
        self.interval = jnp.asarray(interval, dtype=jnp.result_type(float))
        self.scheme = Scheme(method, order, interval, time_step)
        self.probe = Probe(observed)

    @classmethod
    def random(
        cls,
        layers: tuple[int, ...] = (32, 32, 32),
        *,
        inputs: int = 1,
        interlayer_density: float = 0.5,
        intralayer_density: float = 0.5,
        scale: float = 1.0,
        key: PRNGKeyArray,
        **options: Any,
    ) -> Self:
        """A network with `Connections.random(layers, ...)`; `options` are those of the class."""
        check_key("key", key)
        connections = Connections.random(
            layers,
            inputs=inputs,
            interlayer_density=interlayer_density,
            intralayer_density=intralayer_density,
            scale=scale,
            key=key,
        )
        return cls(connections, **options)

    def integrated_by(self, method: Method, order: int, time_step: float | None = None) -> Self:
        """The same network, followed by another scheme: say, to re-evaluate a trained one at convergence.

        **Arguments:**

        - `method`, `order`: "exponential" with 1 or 2, "runge-kutta" with 1 to 4.
        - `time_step`: in ns; None: one step an interval.

        **Raises:** `ValueError` for an order that the method lacks, or when the interval is no multiple of `time_step`.
        """
        scheme = Scheme(method, order, self.interval, time_step)
        return eqx.tree_at(lambda n: n.scheme, self, scheme, is_leaf=lambda node: isinstance(node, Scheme))

    def observing(self, observed: Observed) -> Self:
        """The same network with another probe: "last layer", "outputs" or "states"."""
        return eqx.tree_at(lambda n: n.probe, self, Probe(observed), is_leaf=lambda node: isinstance(node, Probe))

    @property
    def channels(self) -> int:
        """The inputs of the first layer."""
        return self.connections.input_weights.shape[1]

    def step(self, state: State, drive: Float[Array, "..."], *, key: PRNGKeyArray | None = None) -> State:
        """Hold one input, shape (inputs,) or () for a single one, for an interval."""
        return self.stepper()(state, drive, key=key)

    def stepper(self) -> Stepper:
        """The step, with weights that are pruned, amplified and transposed once."""
        weights, input_weights, constant = self.wiring()
        scheme = self.scheme
        duration = self.interval / scheme.sub_steps

        def step(state: State, drive: Array, *, key: PRNGKeyArray | None = None) -> State:
            inputs = jnp.atleast_1d(drive)
            check_shape("drive", inputs, input_weights.shape[:1])
            external = inputs @ input_weights + constant

            def current(state: State) -> Array:
                return self.outputs(state) @ weights + external

            def advance(state: State) -> State:
                if scheme.method == "runge-kutta":
                    return runge_kutta_step(lambda s: self.velocity(s, current(s)), state, duration, order=scheme.order)
                middle = state if scheme.order == 1 else self.held(state, current(state), duration / 2)
                return self.held(state, current(middle), duration)

            if scheme.sub_steps == 1:
                return advance(state)
            return jax.lax.scan(lambda s, _: (advance(s), None), state, None, length=scheme.sub_steps)[0]

        return step

    def wiring(self) -> Wiring:
        """What reaches the neurons: drive = outputs @ weights + inputs @ input_weights + constant."""
        existing = self.connections.existing()
        # Vector times matrix, not matrix times vector: with many examples this is one product of matrices as they lie.
        weights = existing.weights.T * self.amplification
        input_weights = existing.input_weights.T * self.amplification
        return Wiring(weights, input_weights, self.amplification * existing.bias + self.resting_drive())

    # One step, neuron by neuron (`Neuronwise`).

    @property
    def one_step(self) -> bool:
        """With a closed form, in one step an interval."""
        return self.scheme.method == "exponential" and self.scheme.sub_steps == 1

    @property
    def evaluations(self) -> int:
        """As many as the order."""
        return self.scheme.order

    def wires(self) -> Float[Array, "entering neurons"]:
        """The wiring as one matrix: outputs, inputs and a constant 1 enter it."""
        weights, input_weights, constant = self.wiring()
        return jnp.concatenate([weights, input_weights, constant[None]])

    def entering(
        self, state: State, drive: Float[Array, " inputs"], wires: Array, shifts: Sequence[Array] | None = None
    ) -> list[Float[Array, " entering"]]:
        """At the beginning of the interval, and at order 2 in its middle."""
        inputs = jnp.atleast_1d(drive)

        def sent(state: State) -> Array:
            return jnp.concatenate([self.outputs(state), inputs, jnp.ones(1, inputs.dtype)])

        first = sent(state)
        if self.evaluations == 1:
            return [first]
        reaching = first @ wires if shifts is None else first @ wires + shifts[0]
        return [first, sent(self.held(state, reaching, self.interval / 2))]

    def alone(self, state: State, reaching: Float[Array, " neurons"]) -> tuple[State, Float[Array, " neurons"]]:
        """Held for an interval."""
        after = self.held(state, reaching, self.interval)
        return after, self.outputs(after)

    def by_itself(self, state: State, drive: Array, wires: Array) -> Float[Array, "entering neurons"] | float:
        """At order 2, through what the neuron sends itself in the middle."""
        if self.evaluations == 1:
            return 0.0
        first, _ = self.entering(state, drive, wires)

        def halfway(reaching: Array) -> Array:
            return self.outputs(self.held(state, reaching, self.interval / 2))

        _, moved = jax.jvp(halfway, (first @ wires,), (jnp.ones(wires.shape[1], wires.dtype),))
        return first[:, None] * (jnp.diagonal(wires) * moved)

    def returning(self, state: State, drive: Array, wires: Array, change: State) -> Float[Array, " neurons"]:
        """At order 2 also through what others send in the middle, whom the neuron reached at the beginning."""
        if self.evaluations == 1:
            return super().returning(state, drive, wires, change)
        reaching, synapses = self.entering(state, drive, wires)[0] @ wires, wires[: wires.shape[1]]

        def halfway(state: State, reaching: Array) -> Array:
            return self.outputs(self.held(state, reaching, self.interval / 2))

        _, sent = jax.jvp(self.outputs, (state,), (change,))
        _, itself = jax.jvp(lambda state: halfway(state, reaching), (state,), (change,))
        _, moved = jax.jvp(lambda reaching: halfway(state, reaching), (reaching,), (jnp.ones_like(reaching),))
        return jnp.diagonal(synapses) * itself + jnp.einsum("ji,j,ij->i", synapses, moved, synapses) * sent

    def observe(self, state: State, *, key: PRNGKeyArray | None = None) -> Float[Array, " observed"]:
        """What `observed` names: outputs of the last layer, outputs of all neurons, or states of all neurons."""
        if self.probe.observed == "states":
            return self.states(state)
        outputs = self.outputs(state)
        return outputs if self.probe.observed == "outputs" else outputs[-self.connections.layers[-1] :]

    def resting_drive(self) -> Float[Array, " neurons"] | float:
        """The drive when nothing is connected."""
        return 0.0

    @abstractmethod
    def held(self, state: State, current: Float[Array, " neurons"], duration: ArrayLike) -> State:
        """The state after `duration` under a constant drive: the closed form of the equation of a neuron."""

    @abstractmethod
    def velocity(self, state: State, current: Float[Array, " neurons"]) -> State:
        """The time derivative of the state."""

    @abstractmethod
    def outputs(self, state: State) -> Float[Array, " neurons"]:
        """What each neuron sends to others."""

    @abstractmethod
    def states(self, state: State) -> Float[Array, " neurons"]:
        """The dynamical variable of each neuron."""


def as_array(name: str, value: ArrayLike, shape: tuple[int | None, ...]) -> Float[Array, "..."]:
    """`value` in the present precision, refused where its shape is another (None: any length) or it is not finite."""
    array = jnp.asarray(value, dtype=jnp.result_type(float))
    check_shape(name, array, shape)
    check_finite(name, array)
    return array


def per_neuron(name: str, value: ArrayLike, neurons: int) -> Float[Array, " neurons"]:
    """One number for all neurons, or one for each."""
    array = jnp.asarray(value, dtype=jnp.result_type(float))
    if array.ndim:
        check_shape(name, array, (neurons,))
    return jnp.broadcast_to(array, (neurons,))


def _chosen(key: PRNGKeyArray, shape: tuple[int, int], density: float) -> Bool[Array, "to from"]:
    """A mask of exactly round(density n) of n places."""
    size = shape[0] * shape[1]
    return jax.random.permutation(key, np.arange(size) < round(density * size)).reshape(shape)


def _sub_steps(interval: ArrayLike, time_step: float) -> int:
    check_range("time_step", time_step, low=0.0, open_low=True)
    if not is_concrete(interval):
        raise ValueError("interval has no value while JAX traces; choose time_step before")
    # A stack of networks may hold several intervals.
    ratios = np.asarray(interval, float) / time_step
    steps = round(float(ratios.flat[0]))
    if steps < 1 or np.any(np.abs(ratios - steps) > 1e-6 * steps):
        raise ValueError(f"time_step is {time_step:g}; the interval {interval} must be a multiple of it")
    return steps
