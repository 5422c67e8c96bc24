"""Networks of leaky integrate-and-fire neurons."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PRNGKeyArray

from morphax._checks import (
    check_choice,
    check_count,
    check_finite,
    check_key,
    check_memory,
    check_range,
    check_shape,
    is_concrete,
)
from morphax.dynamics.logistic import relative_growth
from morphax.pytrees import DEVICE, WEIGHT
from morphax.substrates.base import Stepper
from morphax.substrates.draws import events
from morphax.substrates.layers import per_neuron
from morphax.substrates.neuronwise import Neuronwise

Method = Literal["euler", "exact"]
METHODS: tuple[Method, ...] = ("euler", "exact")


class SpikingState(NamedTuple):
    """What a network of spiking neurons remembers.

    - `voltage`, `current`: shape (neurons,).
    - `recent`: spikes of the steps in which neurons are still refractory, latest first, shape (refractory_steps - 1,
      neurons).
    - `record`: activity in the time steps of the last input interval, shape (steps_per_input, visible).
    """

    voltage: Float[Array, " neurons"]
    current: Float[Array, " neurons"]
    recent: Float[Array, "memory neurons"]
    record: Float[Array, "steps visible"]


class SpikingNetwork(Neuronwise):
    r"""Leaky integrate-and-fire neurons with synaptic currents, recurrently connected.

    $$\tau_\mathrm{mem} \dot v = (1 - z) (v_l - v + R I), \qquad \tau_\mathrm{syn} \dot I = -I$$

    A neuron spikes ($\xi = 1$) when its voltage reaches $v_\mathrm{th}$. Its voltage is then reset to $v_r$ and stays
    there for the refractory time, during which it counts as active, $z = 1$; every current jumps by
    $W_\mathrm{rec} \xi$, and by $W_\mathrm{in} \xi^\mathrm{in}$ for spikes of the input. In a time step $h$

    $$v' = v_l + a (v - v_l) + c R I_n, \quad \xi_{n+1} = \Theta(v' - v_\mathrm{th}), \quad
      I_{n+1} = b I_n + W_\mathrm{rec} \xi_{n+1} + W_\mathrm{in} \xi^\mathrm{in}_{n+1}$$

    with $a = 1 - h / \tau_\mathrm{mem}$, $b = 1 - h / \tau_\mathrm{syn}$, $c = h / \tau_\mathrm{mem}$ by the method of
    Euler, and the exact solution of the equations between two steps otherwise; spikes happen at ends of steps in both.

    The derivative of $\Theta$ is replaced by $1 / (\alpha |x| + 1)^2$, so that gradients pass through spikes, resets
    and refractory times.

    **Units:** times in ms, rates in spikes per ms (700 Hz is 0.7); voltages in any unit, currents in that unit over R.

    **Arguments:**

    - `recurrent_weights`: $W_\mathrm{rec}$, shape (neurons, neurons), [to, from].
    - `input_weights`: $W_\mathrm{in}$, shape (neurons, inputs).
    - `membrane_time_constant`, `synaptic_time_constant`: $\tau_\mathrm{mem}, \tau_\mathrm{syn} \ge h$.
    - `threshold`: $v_\mathrm{th}$, above the reset potential.
    - `leak_potential`, `reset_potential`: $v_l$, $v_r$.
    - `resistance`: $R > 0$.
    - `input_rate`: of Poisson inputs, 0 to one spike in a time step; shape (inputs,). None: input spikes are given.
    - `time_step`: $h > 0$.
    - `refractory_steps`: refractory time in time steps, at least 1: the step of the spike itself.
    - `steps_per_input`: time steps for which one drive is held.
    - `visible`: the first so many neurons are observed; None: all.
    - `method`: "euler" or "exact".
    - `steepness`: $\alpha > 0$, per unit of voltage.

    Numbers of neurons may be one for all, or shape (neurons,).

    **Drive:** with an `input_rate`, by how much rates are multiplied, shape () or (inputs,); beyond one spike in a time
    step they saturate. Without, numbers of spikes or, in units of one spike, currents: shape (inputs,) for every time
    step of the interval, or (steps_per_input, inputs).

    **Observation:** activities z, 1 or 0, in every time step of the interval, shape (steps_per_input * visible,), steps
    first.

    **Raises:** `ValueError` for wrong shapes, NaN, infinity, and values outside these ranges.

    Source: Pehle & Wetterich, Phys. Rev. E 106, 045311 (2022), Eqs. 20-29, A1-A7.

        >>> import jax, jax.numpy as jnp
        >>> from morphax import evolve
        >>> from morphax.substrates.spiking import SpikingNetwork
        >>> neuron = SpikingNetwork(jnp.zeros((1, 1)), jnp.ones((1, 1)), leak_potential=2.0)
        >>> active, _ = evolve(neuron, jnp.zeros((100, 1)))
        >>> int(jnp.diff(jnp.flatnonzero(active[:, 0]))[0])            # n with 2 (1 - 0.9^n) > 1
        7
    """

    recurrent_weights: Float[Array, "neurons neurons"] = eqx.field(metadata=WEIGHT)
    input_weights: Float[Array, "neurons inputs"] = eqx.field(metadata=WEIGHT)
    membrane_time_constant: Float[Array, " neurons"] = eqx.field(metadata=DEVICE)
    synaptic_time_constant: Float[Array, " neurons"] = eqx.field(metadata=DEVICE)
    threshold: Float[Array, " neurons"] = eqx.field(metadata=DEVICE)
    leak_potential: Float[Array, " neurons"] = eqx.field(metadata=DEVICE)
    reset_potential: Float[Array, " neurons"] = eqx.field(metadata=DEVICE)
    resistance: Float[Array, " neurons"] = eqx.field(metadata=DEVICE)
    input_rate: Float[Array, " inputs"] | None = eqx.field(metadata=DEVICE)
    time_step: float = eqx.field(static=True)
    refractory_steps: int = eqx.field(static=True)
    steps_per_input: int = eqx.field(static=True)
    visible: int = eqx.field(static=True)
    method: Method = eqx.field(static=True)
    steepness: float = eqx.field(static=True)

    def __init__(
        self,
        recurrent_weights: ArrayLike,
        input_weights: ArrayLike,
        *,
        membrane_time_constant: ArrayLike = 10.0,
        synaptic_time_constant: ArrayLike = 5.0,
        threshold: ArrayLike = 1.0,
        leak_potential: ArrayLike = 0.0,
        reset_potential: ArrayLike = 0.0,
        resistance: ArrayLike = 1.0,
        input_rate: ArrayLike | None = None,
        time_step: float = 1.0,
        refractory_steps: int = 1,
        steps_per_input: int = 1,
        visible: int | None = None,
        method: Method = "euler",
        steepness: float = 100.0,
    ):
        check_shape("input_weights", input_weights, (None, None))
        neurons, inputs = np.shape(input_weights)
        check_shape("recurrent_weights", recurrent_weights, (neurons, neurons))
        check_finite("recurrent_weights", recurrent_weights)
        check_finite("input_weights", input_weights)
        check_range("time_step", time_step, low=0.0, open_low=True)
        check_range("membrane_time_constant", membrane_time_constant, low=time_step)
        check_range("synaptic_time_constant", synaptic_time_constant, low=time_step)
        check_range("resistance", resistance, low=0.0, open_low=True)
        check_finite("leak_potential", leak_potential)
        check_finite("reset_potential", reset_potential)
        check_finite("threshold", threshold)
        _check_above(threshold, reset_potential)
        check_count("refractory_steps", refractory_steps, 1)
        check_count("steps_per_input", steps_per_input, 1)
        if visible is not None:
            check_count("visible", visible, 1, neurons)
        check_choice("method", method, METHODS)
        check_range("steepness", steepness, low=0.0, open_low=True)
        self.recurrent_weights = jnp.asarray(recurrent_weights, jnp.result_type(float))
        self.input_weights = jnp.asarray(input_weights, jnp.result_type(float))
        self.membrane_time_constant = per_neuron("membrane_time_constant", membrane_time_constant, neurons)
        self.synaptic_time_constant = per_neuron("synaptic_time_constant", synaptic_time_constant, neurons)
        self.threshold = per_neuron("threshold", threshold, neurons)
        self.leak_potential = per_neuron("leak_potential", leak_potential, neurons)
        self.reset_potential = per_neuron("reset_potential", reset_potential, neurons)
        self.resistance = per_neuron("resistance", resistance, neurons)
        self.input_rate = None
        if input_rate is not None:
            check_range("input_rate", input_rate, low=0.0, high=1 / time_step)
            self.input_rate = per_neuron("input_rate", input_rate, inputs)
        self.time_step = float(time_step)
        self.refractory_steps = refractory_steps
        self.steps_per_input = steps_per_input
        self.visible = neurons if visible is None else visible
        self.method = method
        self.steepness = float(steepness)

    @classmethod
    def random(
        cls,
        neurons: int,
        inputs: int,
        *,
        input_mean: float = 0.02,
        input_deviation: float = 0.3,
        recurrent_mean: float = 0.0,
        recurrent_deviation: float = 0.3,
        key: PRNGKeyArray,
        **options: Any,
    ) -> Self:
        """Normally distributed weights whose mean over every row is exactly `input_mean` and `recurrent_mean`.

        What a neuron receives on average is the number of inputs times their mean weight: chance in it would leave some
        neurons silent and others always active.
        """
        check_key("key", key)
        check_count("neurons", neurons, 1)
        check_count("inputs", inputs, 1)
        check_memory("neurons", neurons, neurons * (neurons + inputs))
        check_range("input_deviation", input_deviation, low=0.0)
        check_range("recurrent_deviation", recurrent_deviation, low=0.0)

        def weights(key: PRNGKeyArray, columns: int, mean: float, deviation: float) -> Array:
            drawn = jax.random.normal(key, (neurons, columns))
            return mean + deviation * (drawn - jnp.mean(drawn, axis=1, keepdims=True))

        first, second = jax.random.split(key)
        recurrent = weights(first, neurons, recurrent_mean, recurrent_deviation)
        return cls(recurrent, weights(second, inputs, input_mean, input_deviation), **options)

    @property
    def channels(self) -> int | tuple[int, ...]:
        """With Poisson inputs one number for all of them, or one each; else one number an input."""
        return self.input_weights.shape[1] if self.input_rate is None else (1, self.input_weights.shape[1])

    @property
    def exact_derivatives(self) -> bool:
        """No: a surrogate stands for the derivative of a spike."""
        return False

    def initial_state(self, *, key: PRNGKeyArray | None = None) -> SpikingState:
        """At the leak potential (below threshold: else at the reset potential), without currents and spikes."""
        resting = jnp.where(self.leak_potential < self.threshold, self.leak_potential, self.reset_potential)
        return SpikingState(
            resting,
            jnp.zeros_like(resting),
            jnp.zeros((self.refractory_steps - 1, resting.size), resting.dtype),
            jnp.zeros((self.steps_per_input, self.visible), resting.dtype),
        )

    def step(self, state: SpikingState, drive: Float[Array, "..."], *, key: PRNGKeyArray | None = None) -> SpikingState:
        """An input interval; `key` draws Poisson inputs."""
        return self.stepper()(state, drive, key=key)

    def stepper(self) -> Stepper:
        """Shares the factors of a time step."""
        factors = self._factors()

        def advance(state: SpikingState, arriving: Array) -> tuple[SpikingState, Array]:
            after, spikes, active = self._fired(state, factors)
            current = after.current + self.recurrent_weights @ spikes + arriving
            return after._replace(current=current), active[: self.visible]

        def step(state: SpikingState, drive: Array, *, key: PRNGKeyArray | None = None) -> SpikingState:
            # Going back, what a step computed is cheaper to compute again than to keep.
            last, record = jax.lax.scan(jax.checkpoint(advance, prevent_cse=False), state, self._arriving(drive, key))
            return last._replace(record=record)

        return step

    def _fired(self, state: SpikingState, factors: tuple[Array, Array, Array]) -> tuple[SpikingState, Array, Array]:
        """The state after a time step but for what arrives then, spikes, and activities."""
        keep, fade, gain = factors
        free = (1 - keep) * self.leak_potential + keep * state.voltage + gain * state.current
        waiting = jnp.sum(state.recent, axis=0)
        if self.refractory_steps > 1:
            # Far below threshold, where even the replaced derivative is small: who waits cannot spike.
            above = jnp.where(waiting > 0, -jnp.inf, free - self.threshold)
            free = jnp.where(waiting > 0, state.voltage, free)
        else:
            above = free - self.threshold
        spikes = heaviside(above, self.steepness)
        voltage = free + spikes * (self.reset_potential - free)
        recent = jnp.concatenate([spikes[None], state.recent])[: self.refractory_steps - 1]
        return SpikingState(voltage, fade * state.current, recent, state.record), spikes, waiting + spikes

    # One step, neuron by neuron (`Neuronwise`).

    @property
    def one_step(self) -> bool:
        """With one time step for an input that is given, not drawn."""
        return self.steps_per_input == 1 and self.input_rate is None

    def wires(self) -> Float[Array, "entering neurons"]:
        """What spikes of neurons and of inputs add to currents."""
        return jnp.concatenate([self.recurrent_weights.T, self.input_weights.T])

    def entering(
        self, state: SpikingState, drive: Float[Array, "..."], wires: Array, shifts: Sequence[Array] | None = None
    ) -> list[Float[Array, " entering"]]:
        """Spikes of the step, and of the inputs."""
        return [jnp.concatenate([self._fired(state, self._factors())[1], drive.reshape(-1)])]

    def alone(
        self, state: SpikingState, reaching: Float[Array, " neurons"]
    ) -> tuple[SpikingState, Float[Array, " neurons"]]:
        """A time step of every neuron; spikes that arrive are in the currents at its end."""
        after, spikes, active = self._fired(state, self._factors())
        return after._replace(current=after.current + reaching, record=active[None, : self.visible]), spikes

    def observe(self, state: SpikingState, *, key: PRNGKeyArray | None = None) -> Float[Array, " activities"]:
        """Activities in the time steps of the last interval."""
        return state.record.reshape(-1)

    def disturb(self, state: SpikingState, amplitude: ArrayLike, *, key: PRNGKeyArray) -> SpikingState:
        """Noise on the voltages; who is refractory does not feel it."""
        noise = amplitude * jax.random.normal(key, state.voltage.shape, state.voltage.dtype)
        waiting = jnp.sum(state.recent, axis=0) > 0
        return state._replace(voltage=jnp.where(waiting, state.voltage, state.voltage + noise))

    def _factors(self) -> tuple[Array, Array, Array]:
        """Of voltage, of current, and of current in the voltage."""
        membrane, synapse = self.time_step / self.membrane_time_constant, self.time_step / self.synaptic_time_constant
        if self.method == "euler":
            return 1 - membrane, 1 - synapse, membrane * self.resistance
        slower, difference = jnp.minimum(membrane, synapse), jnp.abs(membrane - synapse)
        gain = membrane * jnp.exp(-slower) * relative_growth(difference)
        return jnp.exp(-membrane), jnp.exp(-synapse), gain * self.resistance

    def _arriving(self, drive: Array, key: PRNGKeyArray | None) -> Float[Array, "steps neurons"]:
        """How much input spikes add to the currents."""
        inputs = self.input_weights.shape[1]
        if self.input_rate is None:
            if drive.ndim < 2:
                drive = jnp.broadcast_to(
                    jnp.atleast_1d(drive), (self.steps_per_input, *jnp.shape(jnp.atleast_1d(drive)))
                )
            check_shape("drive", drive, (self.steps_per_input, inputs))
            return drive @ self.input_weights.T
        if key is None:
            raise ValueError("key is None; Poisson inputs are random")
        if drive.ndim:
            check_shape("drive", drive, (inputs,))
        probability = jnp.clip(drive * self.input_rate * self.time_step, 0.0, 1.0)
        spikes = events(key, probability, (self.steps_per_input, inputs))
        # The backward pass keeps spikes as they are, in a quarter of the memory.
        product = jax.checkpoint(lambda spikes, weights: spikes.astype(weights.dtype) @ weights.T, prevent_cse=False)
        return product(spikes, self.input_weights)


@jax.custom_jvp
def heaviside(x: Float[Array, "..."], steepness: ArrayLike) -> Float[Array, "..."]:
    r"""1 where $x \ge 0$, else 0, with the derivative $1 / (\alpha |x| + 1)^2$ of a fast sigmoid.

    Source: Zenke & Ganguli, Neural Comput. 30, 1514 (2018); Pehle & Wetterich, Eq. A7.

        >>> import jax
        >>> from morphax.substrates.spiking import heaviside
        >>> heaviside(0.1, 100.0).item(), round(jax.grad(heaviside)(0.1, 100.0).item(), 5)
        (1.0, 0.00826)
    """
    x = jnp.asarray(x, jnp.result_type(float))
    return (x >= 0).astype(x.dtype)


@heaviside.defjvp
def _(primals: tuple[Array, ArrayLike], tangents: tuple[Array, Any]) -> tuple[Array, Array]:
    x, steepness = primals
    return heaviside(x, steepness), tangents[0] / (steepness * jnp.abs(x) + 1) ** 2


def _check_above(threshold: ArrayLike, reset_potential: ArrayLike) -> None:
    if not (is_concrete(threshold) and is_concrete(reset_potential)):
        return
    gap = np.asarray(threshold, float) - np.asarray(reset_potential, float)
    if np.any(gap <= 0):
        worst = np.min(gap)
        raise ValueError(f"threshold is {-worst:g} below the reset potential; it must be above it")
