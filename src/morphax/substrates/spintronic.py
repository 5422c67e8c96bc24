"""Spintronic nano-oscillators: independent spin-torque oscillators, read by their power."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PRNGKeyArray

from morphax._checks import check_count, check_range, check_shape
from morphax.pytrees import DEVICE
from morphax.substrates.base import Substrate

SERIES_BELOW = 0.25  # argument under which (1 - exp(-y)) / y is summed as a series
SERIES_TERMS = 12


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

    **State:** $\ln p$, shape (neurons,).

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
        self.bias_current = _per_neuron("bias_current", bias_current, neurons)
        self.damping_rate = _per_neuron("damping_rate", damping_rate, neurons)
        self.nonlinearity = _per_neuron("nonlinearity", nonlinearity, neurons)
        self.efficiency = _per_neuron("efficiency", efficiency, neurons)
        self.initial_power = _per_neuron("initial_power", initial_power, neurons)
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
    filled = saturation * _relative_growth(size)
    rising = -jnp.logaddexp(-size - log_power, jnp.log(jnp.where(grows, filled, 1.0)))
    falling = log_power - size - jnp.log1p(jnp.where(grows, 0.0, filled) * jnp.exp(log_power))
    return jnp.where(grows, rising, falling)


def _relative_growth(y: Float[Array, " neurons"]) -> Float[Array, " neurons"]:
    """(1 - exp(-y)) / y for y >= 0, with its derivative accurate at y = 0 too."""
    small = y < SERIES_BELOW
    near, far = jnp.where(small, y, 0.0), jnp.where(small, 1.0, y)
    series = jnp.ones_like(y)
    for term in range(SERIES_TERMS, 1, -1):  # Horner: 1 - y/2 (1 - y/3 (1 - ...))
        series = 1 - near / term * series
    return jnp.where(small, series, -jnp.expm1(-far) / far)


def _per_neuron(name: str, value: ArrayLike, neurons: int) -> Float[Array, " neurons"]:
    array = jnp.asarray(value, dtype=jnp.result_type(float))
    if array.ndim:
        check_shape(name, array, (neurons,))
    return jnp.broadcast_to(array, (neurons,))
