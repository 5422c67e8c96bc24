"""Spintronic nano-oscillators: layered networks that are trained, and independent oscillators as a reservoir."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PRNGKeyArray

from morphax._checks import check_range
from morphax.dynamics.logistic import auto_oscillator_step
from morphax.pytrees import DEVICE
from morphax.substrates.base import Consumption
from morphax.substrates.layers import Connections, LayeredNetwork, Method, Observed, per_neuron
from morphax.units import MHz, ns

LEAST_POWER = 1e-30  # from which an oscillator grows when it is driven again, however far it had faded
NEURON_POWER, SYNAPSE_POWER = 1e-6, 1e-7  # W: 100 fJ and 10 fJ in the 100 ns of a presentation (Sec. V)


class AutoOscillatorState(NamedTuple):
    """Powers of all oscillators, and what the high-pass filters behind them let through."""

    power: Float[Array, " neurons"]
    filtered: Float[Array, " neurons"]


class SpintronicNetwork(LayeredNetwork):
    r"""Layers of spintronic auto-oscillators that drive each other through high-pass filters and amplifiers.

    $$\frac{dx}{dt} = -\gamma (1 + Q x) x + I(t) \, x (1 - x), \qquad
      \frac{dy}{dt} = -2 \pi f_\mathrm{cut} \, y + \frac{dx}{dt}$$

    $$I(t) = S \left(W^\mathrm{ext} y_\mathrm{below} + W^\mathrm{int} y_\mathrm{own} + b\right) + b_\mathrm{fixed}$$

    $x$ is the normalised oscillation power, which starts and stays in [0, 1]; $y$ is its filtered copy, 0 at the start.
    The first layer is driven by the input instead of a layer below. $W^\mathrm{int}$ is intralayer, as the paper's text
    and Fig. 1 say (docs/spintronic.md).

    While the drive is constant the equation for $x$ is logistic and solved in closed form (`auto_oscillator_step`), so
    the default scheme stays within [0, 1] and free of overflow for any drive; see `LayeredNetwork` for the schemes. It
    starts every step from a power of at least $10^{-30}$, which is far below the fluctuations of any device: the
    derivative of a return from less, up to the inverse of the power, has no number in single precision.

    **Units:** times in ns; `damping_rate`, `amplification` and `fixed_bias` in 1/ns; weights, biases and inputs are
    dimensionless.

    **Arguments:**

    - `connections`: weights, biases and masks (`Connections`).
    - `damping_rate`: $\gamma = 1 / \tau > 0$, here and below one number or shape (neurons,). The default is the paper's
      optimum, $\tau$ = 14.12 ns.
    - `nonlinear_damping`: $Q \ge 0$.
    - `amplification`: $S$, drive per unit of weighted sum. The paper prints $S = 0.5$ without a unit; in 1/ns no
      variant of the network learns, in units of $\gamma$ it does, and the default is 0.5 $\gamma$.
    - `fixed_bias`: $b_\mathrm{fixed}$; default $2 \gamma$, which makes $x = 1/2$ the resting point (for Q = 0).
    - `cutoff_frequency`: $2 \pi f_\mathrm{cut} \ge 0$ as an angular rate, by default 1 MHz.
    - `initial_power`: $x(0)$ in ]0, 1].
    - `interval`: how long an input is held, in ns, > 0.
    - `time_step`: of the integrator, in ns; the interval must be a multiple of it. None: one step an interval.
    - `method`, `order`: "exponential" with 1 (drive held at its value at the start of a step) or 2 (in its middle), or
      "runge-kutta" with 1 to 4. Order 1 must not be trained with: networks learn its error instead of the physics.
    - `observed`: "last layer": $y$ of the last layer; "outputs": all $y$; "states": all $x$.

    **State:** `AutoOscillatorState`.

    **Raises:** `ValueError` for wrong shapes, NaN or infinity, values outside the ranges above, an unknown order, or an
    interval that is no multiple of the time step.

    Source: Plouet et al., Phys. Rev. Applied 23, 034051 (2025), Eqs. 1-5.

        >>> import jax, jax.numpy as jnp
        >>> from morphax import SpintronicNetwork, evolve
        >>> network = SpintronicNetwork.random((32, 32, 32), key=jax.random.key(0))
        >>> outputs, state = evolve(network, jnp.sin(jnp.arange(64.0)))
        >>> outputs.shape, network.connections.synapses + 320
        ((64, 32), 2896)
        >>> bool(jnp.all((state.power > 0) & (state.power < 1)))
        True
    """

    damping_rate: Float[Array, " neurons"] = eqx.field(metadata=DEVICE)
    nonlinear_damping: Float[Array, " neurons"] = eqx.field(metadata=DEVICE)
    fixed_bias: Float[Array, " neurons"] = eqx.field(metadata=DEVICE)
    cutoff_frequency: Float[Array, " neurons"] = eqx.field(metadata=DEVICE)
    initial_power: Float[Array, " neurons"] = eqx.field(metadata=DEVICE)

    def __init__(
        self,
        connections: Connections,
        *,
        damping_rate: ArrayLike = 1 / (14.12 * ns),
        nonlinear_damping: ArrayLike = 0.0,
        amplification: ArrayLike | None = None,
        fixed_bias: ArrayLike | None = None,
        cutoff_frequency: ArrayLike = 1 * MHz,
        initial_power: ArrayLike = 0.5,
        interval: ArrayLike = 1 * ns,
        time_step: float | None = None,
        method: Method = "exponential",
        order: int = 2,
        observed: Observed = "last layer",
    ):
        neurons = connections.neurons
        check_range("damping_rate", damping_rate, low=0.0, open_low=True)
        check_range("nonlinear_damping", nonlinear_damping, low=0.0)
        check_range("cutoff_frequency", cutoff_frequency, low=0.0)
        check_range("initial_power", initial_power, low=0.0, high=1.0, open_low=True)
        self.damping_rate = per_neuron("damping_rate", damping_rate, neurons)
        if amplification is None:
            amplification = 0.5 * self.damping_rate
        super().__init__(connections, amplification, interval, time_step, method, order, observed)
        if fixed_bias is None:
            fixed_bias = 2 * self.damping_rate
        check_range("fixed_bias", fixed_bias)
        self.nonlinear_damping = per_neuron("nonlinear_damping", nonlinear_damping, neurons)
        self.fixed_bias = per_neuron("fixed_bias", fixed_bias, neurons)
        self.cutoff_frequency = per_neuron("cutoff_frequency", cutoff_frequency, neurons)
        self.initial_power = per_neuron("initial_power", initial_power, neurons)

    def initial_state(self, *, key: PRNGKeyArray | None = None) -> AutoOscillatorState:
        """Initial powers, and nothing behind the filters."""
        # Mismatch may take a start beyond 1, from where a negative drive would lead to infinity.
        return AutoOscillatorState(jnp.minimum(self.initial_power, 1.0), jnp.zeros_like(self.initial_power))

    def resting_drive(self) -> Float[Array, " neurons"]:
        """The fixed bias."""
        return self.fixed_bias

    def held(
        self, state: AutoOscillatorState, current: Float[Array, " neurons"], duration: ArrayLike
    ) -> AutoOscillatorState:
        """Power in closed form; the filter sees its change in the middle of `duration`, an error of third order."""
        before = jnp.maximum(state.power, LEAST_POWER)
        power = auto_oscillator_step(before, current, self.damping_rate, self.nonlinear_damping, duration)
        fading = jnp.exp(-self.cutoff_frequency * duration / 2)
        return AutoOscillatorState(power, fading * (fading * state.filtered + power - state.power))

    def velocity(self, state: AutoOscillatorState, current: Float[Array, " neurons"]) -> AutoOscillatorState:
        """Eqs. 3 and 5."""
        x = state.power
        change = -self.damping_rate * (1 + self.nonlinear_damping * x) * x + current * x * (1 - x)
        return AutoOscillatorState(change, change - self.cutoff_frequency * state.filtered)

    def outputs(self, state: AutoOscillatorState) -> Float[Array, " neurons"]:
        """The filtered powers."""
        return state.filtered

    def states(self, state: AutoOscillatorState) -> Float[Array, " neurons"]:
        """The powers."""
        return state.power

    def disturb(self, state: AutoOscillatorState, amplitude: ArrayLike, *, key: PRNGKeyArray) -> AutoOscillatorState:
        """Noise on the powers, which stay in [0, 1]; the filters pass it on."""
        noisy = state.power + amplitude * jax.random.normal(key, state.power.shape, state.power.dtype)
        noisy = jnp.clip(noisy, 0.0, 1.0)
        return AutoOscillatorState(noisy, state.filtered + noisy - state.power)

    def consumption(self) -> tuple[Consumption, ...]:
        """1 uW a neuron and 0.1 uW a synapse: the paper's 100 and 10 fJ over 100 ns, amplifiers included."""
        return (
            Consumption("neuron", self.connections.neurons, power=NEURON_POWER),
            Consumption("synapse", self.connections.synapses, power=SYNAPSE_POWER),
        )
