"""What physical systems are compared with: reservoirs, a recurrent network, and a perceptron with noise."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PRNGKeyArray

from morphax._checks import check_choice, check_count, check_finite, check_range, check_shape, is_concrete
from morphax.dynamics.logistic import relative_growth
from morphax.pytrees import DEVICE
from morphax.substrates.base import Substrate
from morphax.substrates.layers import Connections, LayeredNetwork, Measured, Method, per_neuron
from morphax.substrates.quantized import BinarisedPerceptron, sign, straight_through
from morphax.units import ns

SQUARINGS = 24  # the spectral radius comes from the matrix to the power 2^24


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
        >>> from morphax.substrates.software import ReLUReservoir
        >>> reservoir = ReLUReservoir(jnp.array([[1.0], [-1.0]]), jnp.array([[0.5], [0.5]]))
        >>> evolve(reservoir, jnp.array([1.0, -1.0]))[0].tolist()
        [[1.0, 0.0], [0.0, 1.5]]
    """

    input_weights: Float[Array, "neurons inputs"] = eqx.field(metadata=DEVICE)
    memory_weights: Float[Array, "neurons inputs"] = eqx.field(metadata=DEVICE)

    def __init__(self, input_weights: ArrayLike, memory_weights: ArrayLike):
        self.input_weights = _matrix("input_weights", input_weights, (None, None))
        self.memory_weights = _matrix("memory_weights", memory_weights, self.input_weights.shape)

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
        check_count("neurons", neurons, 1)
        check_count("inputs", inputs, 1)
        check_range("scale", scale, low=0.0, open_low=True)
        check_choice("memory", memory, ("vector", "square"))
        first, second = jax.random.split(key)
        input_weights = scale * _uniform(first, neurons, inputs)
        if memory == "vector":
            return cls(input_weights, scale * _uniform(second, neurons, inputs))
        return cls(input_weights, _uniform(second, neurons, neurons) @ input_weights / neurons**0.5)

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
        >>> from morphax.substrates.software import EchoStateNetwork
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
        self.input_weights = _matrix("input_weights", input_weights, (None, None))
        neurons = self.input_weights.shape[0]
        self.recurrent_weights = _matrix("recurrent_weights", recurrent_weights, (neurons, neurons))
        self.bias = _matrix("bias", bias, (neurons,))
        self.leak_rate = _matrix("leak_rate", leak_rate, ())
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
        check_count("neurons", neurons, 1)
        check_count("inputs", inputs, 1)
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


class ContinuousTimeRecurrentNetwork(LayeredNetwork):
    r"""Leaky tanh neurons in layers (CTRNN): the software twin of `SpintronicNetwork`, with an unbounded state.

    $$\frac{dx}{dt} = -\gamma x + I(t), \qquad y = \tanh x, \qquad
      I(t) = S \left(W^\mathrm{ext} y_\mathrm{below} + W^\mathrm{int} y_\mathrm{own} + b\right)$$

    **Units:** times in ns; `damping_rate` and `amplification` in 1/ns.

    **Arguments:**

    - `connections`: weights, biases and masks (`Connections`).
    - `damping_rate`: $\gamma = 1 / \tau > 0$, one number or shape (neurons,).
    - `amplification`: $S$; default 0.5 $\gamma$, as in the spintronic network.
    - `interval`, `time_step`, `method`, `order`, `measured`: as in `SpintronicNetwork`.

    **State:** $x$, shape (neurons,), at first 0.

    **Raises:** `ValueError` as `SpintronicNetwork`.

    Source: Plouet et al., Phys. Rev. Applied 23, 034051 (2025), Eqs. 6-8, after Funahashi & Nakamura, Neural Netw. 6,
    801 (1993).

        >>> import jax, jax.numpy as jnp
        >>> from morphax.substrates.base import evolve
        >>> from morphax.substrates.software import ContinuousTimeRecurrentNetwork
        >>> network = ContinuousTimeRecurrentNetwork.random((8, 8), key=jax.random.key(0))
        >>> evolve(network, jnp.ones(20))[0].shape
        (20, 8)
    """

    damping_rate: Float[Array, " neurons"] = eqx.field(metadata=DEVICE)

    def __init__(
        self,
        connections: Connections,
        *,
        damping_rate: ArrayLike = 1 / (14.12 * ns),
        amplification: ArrayLike | None = None,
        interval: ArrayLike = 1 * ns,
        time_step: float | None = None,
        method: Method = "exponential",
        order: int = 2,
        measured: Measured = "last layer",
    ):
        check_range("damping_rate", damping_rate, low=0.0, open_low=True)
        self.damping_rate = per_neuron("damping_rate", damping_rate, connections.neurons)
        if amplification is None:
            amplification = 0.5 * self.damping_rate
        super().__init__(connections, amplification, interval, time_step, method, order, measured)

    def initial_state(self, *, key: PRNGKeyArray | None = None) -> Float[Array, " neurons"]:
        """All neurons at 0."""
        return jnp.zeros_like(self.damping_rate)

    def held(
        self, state: Float[Array, " neurons"], current: Float[Array, " neurons"], duration: ArrayLike
    ) -> Float[Array, " neurons"]:
        """Exponential relaxation to the current over the damping rate."""
        decay = self.damping_rate * duration
        return jnp.exp(-decay) * state + duration * relative_growth(decay) * current

    def velocity(self, state: Float[Array, " neurons"], current: Float[Array, " neurons"]) -> Float[Array, " neurons"]:
        """Eq. 6."""
        return current - self.damping_rate * state

    def outputs(self, state: Float[Array, " neurons"]) -> Float[Array, " neurons"]:
        """Eq. 8."""
        return jnp.tanh(state)

    def states(self, state: Float[Array, " neurons"]) -> Float[Array, " neurons"]:
        """The states themselves."""
        return state


class NoisyPerceptron(BinarisedPerceptron):
    r"""A classical binarised perceptron with Gaussian noise in its preactivations, and dropout.

    $$d = m \, \mathrm{sgn}(h + \sigma n), \qquad n \sim N(0, 1), \quad m \in \{0, 1 / (1 - p)\}$$

    What `QuantizedPerceptron` is compared with: randomness that nobody would call quantum.

    **Arguments:**

    - `weights`: as in `QuantizedPerceptron`.
    - `noise`: $\sigma \ge 0$, in units of the preactivation.
    - `dropout`: $p$ in [0, 1[, probability that a hidden neuron is left out of a shot.

    Without a key there is neither. Backward: slope 1 where $|h| \le 1$.

    **Raises:** `ValueError` for numbers out of range.

        >>> import jax, jax.numpy as jnp
        >>> from morphax.substrates.software import NoisyPerceptron
        >>> network = NoisyPerceptron.random((4, 8, 2), dropout=0.5, key=jax.random.key(0))
        >>> network.step(network.initial_state(), jnp.ones(4), key=jax.random.key(1)).shape
        (2,)
    """

    noise: Float[Array, ""] = eqx.field(metadata=DEVICE)
    dropout: Float[Array, ""] = eqx.field(metadata=DEVICE)

    def __init__(self, weights: Sequence[ArrayLike], *, noise: ArrayLike = 0.0, dropout: ArrayLike = 0.0):
        super().__init__(weights)
        self.noise = _matrix("noise", noise, ())
        check_range("noise", self.noise, low=0.0)
        self.dropout = _matrix("dropout", dropout, ())
        check_range("dropout", self.dropout, low=0.0)
        if is_concrete(self.dropout) and self.dropout >= 1:
            raise ValueError(f"dropout is {self.dropout}; it must be >= 0 and < 1")

    def activations(
        self, preactivation: Float[Array, " neurons"], memory: Any, key: PRNGKeyArray | None
    ) -> tuple[Float[Array, " neurons"], Any]:
        """Signs of noisy preactivations, some left out."""
        if key is None:
            return straight_through(preactivation, sign(preactivation), 1.0), None
        first, second = jax.random.split(key)
        noisy = preactivation + self.noise * jax.random.normal(first, preactivation.shape, preactivation.dtype)
        kept = jax.random.bernoulli(second, 1 - self.dropout, preactivation.shape) / (1 - self.dropout)
        return kept * straight_through(preactivation, sign(noisy), 1.0), None


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
        >>> from morphax.substrates.software import spectral_radius_of
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


def _uniform(key: PRNGKeyArray, *shape: int) -> Float[Array, "..."]:
    return jax.random.uniform(key, shape, minval=-1.0, maxval=1.0)


def _matrix(name: str, value: ArrayLike, shape: tuple[int | None, ...]) -> Float[Array, "..."]:
    array = jnp.asarray(value, dtype=jnp.result_type(float))
    check_shape(name, array, shape)
    check_finite(name, array)
    return array


def _input_vector(drive: Float[Array, "..."], input_weights: Float[Array, "neurons inputs"]) -> Float[Array, " inputs"]:
    vector = jnp.atleast_1d(drive)
    check_shape("drive", vector, input_weights.shape[1:])
    return vector
