"""Reservoirs that are not trained: echo-state and rectifier networks, and independent spin-torque oscillators."""

from typing import Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PRNGKeyArray

from morphax._checks import check_choice, check_count, check_key, check_memory, check_range, check_shape
from morphax.dynamics.logistic import relative_growth
from morphax.pytrees import DEVICE
from morphax.substrates.base import Substrate
from morphax.substrates.layers import as_array, per_neuron

SQUARINGS = 24  # the spectral radius comes from the matrix to the power 2^24


class EchoStateNetwork(Substrate):
    r"""The leaky echo-state network: a fixed random recurrent network of tanh neurons.

    $$y(t) = (1 - a) \, y(t - 1) + a \tanh\left(W_\mathrm{in} x(t) + W y(t - 1) + b\right)$$

    **Arguments:**

    - `input_weights`: $W_\mathrm{in}$, shape (neurons, inputs), finite.
    - `recurrent_weights`: $W$, shape (neurons, neurons), finite.
    - `bias`: $b$, shape (neurons,), finite.
    - `leak_rate`: $a$ in ]0, 1], one number; 1 has no leak.

    **State:** the outputs $y$, shape (neurons,); at first 0.

    **Raises:** `ValueError` for wrong shapes, NaN or infinity, or a leak rate out of range.

    Source: Lukoševičius, "A practical guide to applying echo state networks" (2012), Eqs. 2 and 3, after Jaeger, GMD
    Report 148 (2001).

        >>> import jax, jax.numpy as jnp
        >>> from morphax.substrates.base import evolve
        >>> from morphax.substrates.reservoirs import EchoStateNetwork
        >>> network = EchoStateNetwork.random(50, spectral_radius=0.9, key=jax.random.key(0))
        >>> drives = jnp.sin(jnp.arange(300.0))
        >>> here, _ = evolve(network, drives)
        >>> there, _ = evolve(network, drives, state=jnp.ones(50))
        >>> bool(jnp.allclose(here[-1], there[-1], atol=1e-5))          # the start is forgotten
        True
    """

    input_weights: Float[Array, "neurons inputs"] = eqx.field(metadata=DEVICE)
    recurrent_weights: Float[Array, "neurons neurons"] = eqx.field(metadata=DEVICE)
    bias: Float[Array, " neurons"] = eqx.field(metadata=DEVICE)
    leak_rate: Float[Array, ""] = eqx.field(metadata=DEVICE)

    def __init__(
        self,
        input_weights: ArrayLike,
        recurrent_weights: ArrayLike,
        bias: ArrayLike,
        leak_rate: ArrayLike = 1.0,
    ):
        self.input_weights = as_array("input_weights", input_weights, (None, None))
        neurons = self.input_weights.shape[0]
        self.recurrent_weights = as_array("recurrent_weights", recurrent_weights, (neurons, neurons))
        self.bias = as_array("bias", bias, (neurons,))
        self.leak_rate = as_array("leak_rate", leak_rate, ())
        check_range("leak_rate", self.leak_rate, low=0.0, high=1.0, open_low=True)

    @classmethod
    def random(
        cls,
        neurons: int,
        *,
        inputs: int = 1,
        spectral_radius: float = 0.9,
        input_scale: float = 1.0,
        leak_rate: float | Array = 1.0,
        density: float = 1.0,
        bias_scale: float = 0.2,
        key: PRNGKeyArray,
    ) -> "EchoStateNetwork":
        r"""A network with weights uniform in [-1, 1] whose recurrent matrix is scaled to a spectral radius.

        The spectral radius is computed without eigenvalues (see `spectral_radius_of`), so networks are drawn under
        `jit` and `vmap` and on any device. A recurrent matrix that is nilpotent, as a very sparse one may be, has
        spectral radius 0 and is left as drawn.

        **Arguments:**

        - `neurons`, `inputs`: numbers of both, at least 1.
        - `spectral_radius`: largest modulus of the eigenvalues of the recurrent matrix, >= 0; below 1 for fading
          memory in practice.
        - `input_scale`, `bias_scale`: sizes of input weights and biases, >= 0. Without bias the network is odd in
          its input and computes no even function of it.
        - `leak_rate`: in ]0, 1].
        - `density`: expected part of the recurrent weights that are not 0, in ]0, 1].
        - `key`: random key.
        """
        check_key("key", key)
        check_count("neurons", neurons, 1)
        check_count("inputs", inputs, 1)
        check_memory("neurons", neurons, neurons * (neurons + inputs))
        for name, value in (
            ("spectral_radius", spectral_radius),
            ("input_scale", input_scale),
            ("bias_scale", bias_scale),
        ):
            check_range(name, value, low=0.0)
        check_range("density", density, low=0.0, high=1.0, open_low=True)
        keys = jax.random.split(key, 4)
        present = jax.random.bernoulli(keys[0], density, (neurons, neurons))
        recurrent = jnp.where(present, _uniform(keys[1], neurons, neurons), 0.0)
        drawn = spectral_radius_of(recurrent)
        return cls(
            input_scale * _uniform(keys[2], neurons, inputs),
            jnp.where(drawn > 0, spectral_radius / jnp.where(drawn > 0, drawn, 1.0), 1.0) * recurrent,
            bias_scale * _uniform(keys[3], neurons),
            leak_rate,
        )

    @property
    def channels(self) -> int:
        """The columns of the input weights."""
        return self.input_weights.shape[1]

    def initial_state(self, *, key: PRNGKeyArray | None = None) -> Float[Array, " neurons"]:
        """All outputs 0."""
        return jnp.zeros_like(self.bias)

    def step(
        self, state: Float[Array, " neurons"], drive: Float[Array, "..."], *, key: PRNGKeyArray | None = None
    ) -> Float[Array, " neurons"]:
        """Take one input, shape (inputs,) or () for a single one."""
        total = self.input_weights @ _input_vector(drive, self.input_weights) + self.recurrent_weights @ state
        return (1 - self.leak_rate) * state + self.leak_rate * jnp.tanh(total + self.bias)

    def observe(self, state: Float[Array, " neurons"], *, key: PRNGKeyArray | None = None) -> Float[Array, " neurons"]:
        """The outputs of all neurons."""
        return state


class ReLUState(NamedTuple):
    """The last input, which is all the memory of a `ReLUReservoir`, and its present output."""

    previous: Float[Array, " inputs"]
    output: Float[Array, " neurons"]


class ReLUReservoir(Substrate):
    r"""The static classical reservoir: rectified mixtures of the present and the previous input.

    $$y(t) = \max\left(0, \; W_\mathrm{in} x(t) + W_\mathrm{res} x(t - 1)\right)$$

    The paper calls $W_\mathrm{res}$ a square matrix of the size of the reservoir, yet it acts on an input, and the
    paper adds that the reservoir remembers a single step. So whatever stands between, the previous input reaches each
    neuron through one number per input: that is `memory_weights`, and `random` offers the readings of how to draw it.

    **Arguments:**

    - `input_weights`: $W_\mathrm{in}$, shape (neurons, inputs), finite.
    - `memory_weights`: weights of the previous input, same shape, finite.

    **State:** `ReLUState`; at first previous input and output are 0.

    **Raises:** `ValueError` for weights of different shapes or with NaN or infinity.

    Source: Dudas et al., "Quantum reservoir neural network implementation on a Josephson mixer" (2022), Eq. 12 and
    Sec. VI B.

        >>> import jax.numpy as jnp
        >>> from morphax.substrates.base import evolve
        >>> from morphax.substrates.reservoirs import ReLUReservoir
        >>> reservoir = ReLUReservoir(jnp.array([[1.0], [-1.0]]), jnp.array([[0.5], [0.5]]))
        >>> evolve(reservoir, jnp.array([1.0, -1.0]))[0].tolist()
        [[1.0, 0.0], [0.0, 1.5]]
    """

    input_weights: Float[Array, "neurons inputs"] = eqx.field(metadata=DEVICE)
    memory_weights: Float[Array, "neurons inputs"] = eqx.field(metadata=DEVICE)

    def __init__(self, input_weights: ArrayLike, memory_weights: ArrayLike):
        self.input_weights = as_array("input_weights", input_weights, (None, None))
        self.memory_weights = as_array("memory_weights", memory_weights, self.input_weights.shape)

    @classmethod
    def random(
        cls,
        neurons: int,
        *,
        inputs: int = 1,
        scale: float = 1.0,
        memory: Literal["vector", "square"] = "vector",
        key: PRNGKeyArray,
    ) -> "ReLUReservoir":
        r"""A reservoir with independent weights, uniform in [-1, 1] times `scale`.

        **Arguments:**

        - `neurons`, `inputs`: numbers of both, at least 1.
        - `scale`: size of the weights, > 0. Outputs are proportional to it.
        - `memory`: "vector" draws the memory weights like the input weights. "square" draws a square matrix, divided by
          the root of its size, that acts on the previous input as the input weights distributed it:
          $W_\mathrm{res} W_\mathrm{in} x(t - 1)$.
        - `key`: random key.
        """
        check_key("key", key)
        check_count("neurons", neurons, 1)
        check_count("inputs", inputs, 1)
        check_memory("neurons", neurons, neurons * (neurons + inputs))
        check_range("scale", scale, low=0.0, open_low=True)
        check_choice("memory", memory, ("vector", "square"))
        first, second = jax.random.split(key)
        input_weights = scale * _uniform(first, neurons, inputs)
        if memory == "vector":
            return cls(input_weights, scale * _uniform(second, neurons, inputs))
        return cls(input_weights, _uniform(second, neurons, neurons) @ input_weights / neurons**0.5)

    @property
    def channels(self) -> int:
        """The columns of the input weights."""
        return self.input_weights.shape[1]

    def initial_state(self, *, key: PRNGKeyArray | None = None) -> ReLUState:
        """No input so far."""
        neurons, inputs = self.input_weights.shape
        dtype = self.input_weights.dtype
        return ReLUState(previous=jnp.zeros(inputs, dtype), output=jnp.zeros(neurons, dtype))

    def step(self, state: ReLUState, drive: Float[Array, "..."], *, key: PRNGKeyArray | None = None) -> ReLUState:
        """Take one input, shape (inputs,) or () for a single one."""
        present = _input_vector(drive, self.input_weights)
        output = jax.nn.relu(self.input_weights @ present + self.memory_weights @ state.previous)
        return ReLUState(previous=present, output=output)

    def observe(self, state: ReLUState, *, key: PRNGKeyArray | None = None) -> Float[Array, " neurons"]:
        """The outputs of all neurons."""
        return state.output


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
        >>> from morphax.substrates.reservoirs import SpinTorqueReservoir
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
        check_key("key", key)
        check_count("neurons", neurons, 1)
        check_count("inputs", inputs, 1)
        check_memory("neurons", neurons, neurons * (neurons + inputs))
        check_range("input_scale", input_scale, low=0.0, open_low=True)
        check_range("bias", bias)
        if weighted_bias and inputs > 1:
            raise ValueError(f"weighted_bias is True with {inputs} inputs; it is defined for 1 input only")
        weights = input_scale * jax.random.uniform(key, (neurons, inputs), minval=-1.0, maxval=1.0)
        return cls(weights, bias_current=bias * weights[:, 0] if weighted_bias else bias, **options)

    @property
    def channels(self) -> int:
        """The columns of the input weights."""
        return self.input_weights.shape[1]

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


def spectral_radius_of(matrix: Float[Array, "n n"]) -> Float[Array, ""]:
    r"""The largest modulus of the eigenvalues of a square matrix, by Gelfand's formula.

    $$\rho(A) = \lim_{k \to \infty} \lVert A^k \rVert^{1/k}, \qquad k = 2^{24} \text{ by repeated squaring}$$

    Unlike `jnp.linalg.eigvals`, which not every device has, these are matrix products: they batch under `vmap` and run
    everywhere. The relative error is about $2^{-24} \ln \kappa$, with $\kappa$ the condition number of
    the eigenvectors, and rounding.

    **Arguments:**

    - `matrix`: shape (n, n).

    **Returns:** the spectral radius, a scalar; 0 for a matrix of which a power vanishes.

        >>> import jax.numpy as jnp
        >>> from morphax.substrates.reservoirs import spectral_radius_of
        >>> spectral_radius_of(jnp.array([[0.0, 2.0], [-2.0, 0.0]])).round(5).item()      # eigenvalues +-2i
        2.0
    """
    check_shape("matrix", matrix, (len(matrix), len(matrix)))

    def square(carry: tuple[Array, Array], weight: Array) -> tuple[tuple[Array, Array], None]:
        power, logarithm = carry
        norm = jnp.linalg.norm(power)
        power = power / jnp.where(norm > 0, norm, 1.0)
        return (power @ power, logarithm + weight * jnp.log(norm)), None

    weights = 0.5 ** jnp.arange(SQUARINGS, dtype=matrix.dtype)
    (_, logarithm), _ = jax.lax.scan(square, (matrix, jnp.zeros((), matrix.dtype)), weights)
    return jnp.exp(logarithm)


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


def _uniform(key: PRNGKeyArray, *shape: int) -> Float[Array, "..."]:
    return jax.random.uniform(key, shape, minval=-1.0, maxval=1.0)


def _input_vector(drive: Float[Array, "..."], input_weights: Float[Array, "neurons inputs"]) -> Float[Array, " inputs"]:
    vector = jnp.atleast_1d(drive)
    check_shape("drive", vector, input_weights.shape[1:])
    return vector
