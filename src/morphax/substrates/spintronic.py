"""Spintronic nano-oscillators: layered networks that are trained, and independent oscillators as a reservoir."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PRNGKeyArray

from morphax._checks import check_count, check_range, check_shape
from morphax.dynamics.logistic import auto_oscillator_step, relative_growth
from morphax.pytrees import DEVICE
from morphax.substrates.base import Consumption, Substrate
from morphax.substrates.layers import Connections, LayeredNetwork, Measured, Method, per_neuron
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
    The first layer is driven by the input instead of a layer below. Eq. 4 as printed feeds $W^\mathrm{int}$ from the
    layer below; the text and Fig. 1 say intralayer, and that is what is built (the printed form does not learn).

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
    - `measured`: "last layer": $y$ of the last layer; "outputs": all $y$; "states": all $x$.

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
        measured: Measured = "last layer",
    ):
        neurons = connections.neurons
        check_range("damping_rate", damping_rate, low=0.0, open_low=True)
        check_range("nonlinear_damping", nonlinear_damping, low=0.0)
        check_range("cutoff_frequency", cutoff_frequency, low=0.0)
        check_range("initial_power", initial_power, low=0.0, high=1.0, open_low=True)
        self.damping_rate = per_neuron("damping_rate", damping_rate, neurons)
        if amplification is None:
            amplification = 0.5 * self.damping_rate
        super().__init__(connections, amplification, interval, time_step, method, order, measured)
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


class SpinTorqueReservoir(Substrate):
    r"""Independent spin-torque nano-oscillators, the dynamical classical reservoir.

    The power $p$ of each oscillator obeys the nonlinear auto-oscillator equation

    $$\frac{dp}{dt} = 2 \left(-\Gamma (1 + Q p) + \sigma I \, (1 - p)\right) p, \qquad
      I = I_0 + W_\mathrm{in} x,$$

    which for a current held constant is logistic, $\dot p = 2 p \, (r - s p)$ with $r = \sigma I - \Gamma$ and
    $s = \sigma I + \Gamma Q$, and has the closed form

    $$p(t) = \frac{p_0}{e^{-2rt} + 2 s t \, p_0 \, \varphi(2rt)}, \qquad \varphi(y) = \frac{1 - e^{-y}}{y}.$$

    It is evaluated for $\ln p$: exact to rounding at threshold ($r = 0$), far above and far below it, where an
    oscillator may fade under the smallest floating-point number and still come back. Above threshold the power tends to
    $r / s$, below it to 0; it stays within ]0, 1[.

    **Units:** times in ns, `damping_rate` in rad/ns, currents in any unit of which `efficiency` has the inverse times
    rad/ns. Only the products $\Gamma T$ and $\sigma I T$ with the interval $T$ matter.

    **Arguments:**

    - `input_weights`: $W_\mathrm{in}$, current per unit of input, shape (neurons, inputs), finite.
    - `bias_current`: $I_0$, shape (neurons,) or one number for all, finite. The printed equation multiplies the
      whole current by the input weights: that is `bias_current = input_weights[:, 0] * bias`.
    - `damping_rate`: $\Gamma > 0$, shape (neurons,) or one number.
    - `nonlinearity`: $Q \ge 0$, shape (neurons,) or one number.
    - `efficiency`: $\sigma > 0$, shape (neurons,) or one number. By default $\sigma = \Gamma$, so that currents count
      in units of the threshold current $\Gamma / \sigma$.
    - `initial_power`: power before the first input, in ]0, 1], shape (neurons,) or one number.
    - `interval`: how long an input is held, $T > 0$.

    **State:** $\ln p$, shape (neurons,); additive noise on it is relative noise on the power.

    **Raises:** `ValueError` for wrong shapes, NaN or infinity, or values outside the ranges above.

    Source: Dudas et al., "Quantum reservoir neural network implementation on a Josephson mixer" (2022), Eq. 13 and
    Sec. VI C, after Slavin & Tiberkevich, IEEE Trans. Magn. 45, 1875 (2009).

        >>> import jax.numpy as jnp
        >>> from morphax.substrates.base import evolve
        >>> from morphax.substrates.spintronic import SpinTorqueReservoir
        >>> oscillator = SpinTorqueReservoir(jnp.array([[1.0]]), bias_current=2.0, nonlinearity=2.0)
        >>> power, _ = evolve(oscillator, jnp.zeros(50))
        >>> round(power[-1, 0].item(), 5)                   # r / s = (2 - 1) / (2 + 2)
        0.25
    """

    input_weights: Float[Array, "neurons inputs"] = eqx.field(metadata=DEVICE)
    bias_current: Float[Array, " neurons"] = eqx.field(metadata=DEVICE)
    damping_rate: Float[Array, " neurons"] = eqx.field(metadata=DEVICE)
    nonlinearity: Float[Array, " neurons"] = eqx.field(metadata=DEVICE)
    efficiency: Float[Array, " neurons"] = eqx.field(metadata=DEVICE)
    initial_power: Float[Array, " neurons"] = eqx.field(metadata=DEVICE)
    interval: float = eqx.field(static=True)

    def __init__(
        self,
        input_weights: ArrayLike,
        *,
        bias_current: ArrayLike = 2.0,
        damping_rate: ArrayLike = 1.0,
        nonlinearity: ArrayLike = 2.0,
        efficiency: ArrayLike | None = None,
        initial_power: ArrayLike = 0.1,
        interval: float = 1.0,
    ):
        check_shape("input_weights", input_weights, (None, None))
        check_range("input_weights", input_weights)
        check_range("damping_rate", damping_rate, low=0.0, open_low=True)
        check_range("nonlinearity", nonlinearity, low=0.0)
        if efficiency is None:
            efficiency = damping_rate
        check_range("efficiency", efficiency, low=0.0, open_low=True)
        check_range("bias_current", bias_current)
        check_range("initial_power", initial_power, low=0.0, high=1.0, open_low=True)
        check_range("interval", interval, low=0.0, open_low=True)
        self.input_weights = jnp.asarray(input_weights, dtype=jnp.result_type(float))
        neurons = self.input_weights.shape[0]
        self.bias_current = per_neuron("bias_current", bias_current, neurons)
        self.damping_rate = per_neuron("damping_rate", damping_rate, neurons)
        self.nonlinearity = per_neuron("nonlinearity", nonlinearity, neurons)
        self.efficiency = per_neuron("efficiency", efficiency, neurons)
        self.initial_power = per_neuron("initial_power", initial_power, neurons)
        self.interval = float(interval)

    @classmethod
    def random(
        cls,
        neurons: int,
        *,
        inputs: int = 1,
        input_scale: float = 1.0,
        bias: float = 2.0,
        weighted_bias: bool = False,
        key: PRNGKeyArray,
        **options,
    ) -> "SpinTorqueReservoir":
        r"""Oscillators with input weights uniform in [-1, 1] times `input_scale`.

        **Arguments:**

        - `neurons`, `inputs`: numbers of both, at least 1.
        - `input_scale`: size of the input weights, > 0, in units of current per unit of input.
        - `bias`: bias current, in the same unit: of the threshold current unless an `efficiency` is given.
        - `weighted_bias`: False: every oscillator carries the same bias, as on a chip. True: the bias passes through
          the input weights like the input, $I = W_\mathrm{in} (\mathrm{bias} + x)$, as printed (one input only);
          oscillators of negative weight then never start.
        - `key`: random key.
        - `options`: those of the class: `damping_rate`, `nonlinearity`, `efficiency`, `initial_power`, `interval`.
        """
        check_count("neurons", neurons, 1)
        check_count("inputs", inputs, 1)
        check_range("input_scale", input_scale, low=0.0, open_low=True)
        check_range("bias", bias)
        if weighted_bias and inputs > 1:
            raise ValueError(f"weighted_bias is True with {inputs} inputs; it is defined for 1 input only")
        weights = input_scale * jax.random.uniform(key, (neurons, inputs), minval=-1.0, maxval=1.0)
        return cls(weights, bias_current=bias * weights[:, 0] if weighted_bias else bias, **options)

    def initial_state(self, *, key: PRNGKeyArray | None = None) -> Float[Array, " neurons"]:
        """The logarithm of the initial power."""
        return jnp.log(self.initial_power)

    def step(
        self, state: Float[Array, " neurons"], drive: Float[Array, "..."], *, key: PRNGKeyArray | None = None
    ) -> Float[Array, " neurons"]:
        """Hold one input, shape (inputs,) or () for a single one, for an interval."""
        inputs = jnp.atleast_1d(drive)
        check_shape("drive", inputs, self.input_weights.shape[1:])
        gain = self.efficiency * (self.bias_current + self.input_weights @ inputs)
        growth = 2 * (gain - self.damping_rate) * self.interval
        saturation = 2 * (gain + self.damping_rate * self.nonlinearity) * self.interval
        return _log_logistic(state, growth, saturation)

    def observe(self, state: Float[Array, " neurons"], *, key: PRNGKeyArray | None = None) -> Float[Array, " neurons"]:
        """The power of every oscillator."""
        return jnp.exp(state)


def _log_logistic(
    log_power: Float[Array, " neurons"], growth: Float[Array, " neurons"], saturation: Float[Array, " neurons"]
) -> Float[Array, " neurons"]:
    r"""ln p(1) of dp/dt = p (growth - saturation p), for p(0) < 1 and saturation >= growth.

    Growth and decay have a form each, in which every exponential is at most 1. Where growth >= 0 saturation is
    positive, as $s - r = \Gamma (1 + Q) > 0$; elsewhere a harmless number keeps gradients free of NaN.
    """
    grows = growth >= 0
    size = jnp.where(grows, growth, -growth)
    filled = saturation * relative_growth(size)
    rising = -jnp.logaddexp(-size - log_power, jnp.log(jnp.where(grows, filled, 1.0)))
    falling = log_power - size - jnp.log1p(jnp.where(grows, 0.0, filled) * jnp.exp(log_power))
    return jnp.where(grows, rising, falling)
