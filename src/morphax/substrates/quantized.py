"""The quantised perceptron: a binarised multilayer network whose neurons are qubits."""

from abc import abstractmethod
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PRNGKeyArray

from morphax._checks import check_choice, check_count, check_finite, check_key, check_range, check_shape, is_concrete
from morphax.dynamics.trigonometry import sin_cos
from morphax.pytrees import DEVICE, WEIGHT
from morphax.substrates.base import Substrate
from morphax.substrates.draws import events
from morphax.substrates.layers import as_array

Backward = Literal["htanh", "activation"]
BACKWARDS: tuple[Backward, ...] = ("htanh", "activation")


class BinarisedPerceptron(Substrate):
    r"""A multilayer perceptron whose hidden activations are $\pm 1$, without biases.

    $$d^k = \pm 1 \; \text{given} \; h^k = W^{k-1} d^{k-1}, \qquad f = W^L d^L$$

    A subclass defines `activations`, how they come about. One input is one image: shape (inputs,).

    **State:** the outputs $f$, shape (outputs,); qubits start anew for every input.
    """

    weights: tuple[Float[Array, "neurons below"], ...] = eqx.field(metadata=WEIGHT)

    def __init__(self, weights: Sequence[ArrayLike]):
        if len(weights) < 2:
            raise ValueError(f"weights holds {len(weights)} matrices; a hidden and an output layer need at least 2")
        for index, matrix in enumerate(weights):
            name = f"weights[{index}]"
            check_shape(name, matrix, (None, None if index == 0 else np.shape(weights[index - 1])[0]))
            check_finite(name, matrix)
            if 0 in np.shape(matrix):
                raise ValueError(f"{name} has shape {np.shape(matrix)}; every layer must have at least 1 neuron")
        self.weights = tuple(jnp.asarray(matrix, jnp.result_type(float)) for matrix in weights)

    @classmethod
    def random(cls, layers: Sequence[int], *, key: PRNGKeyArray, **rest: Any) -> Self:
        r"""Weights uniform in $\pm 1 / \sqrt{n}$ for $n$ neurons below; `layers` counts inputs, hidden, outputs."""
        check_key("key", key)
        for size in layers:
            check_count("layers", size, 1)
        if len(layers) < 3:
            raise ValueError(f"layers is {tuple(layers)}; it must count inputs, at least 1 hidden layer, and outputs")
        keys = jax.random.split(key, len(layers) - 1)
        weights = [
            jax.random.uniform(k, (above, below), minval=-1.0, maxval=1.0) * below**-0.5
            for k, (below, above) in zip(keys, pairwise(layers), strict=True)
        ]
        return cls(weights, **rest)

    @property
    def channels(self) -> int:
        """Inputs of the first layer."""
        return self.weights[0].shape[1]

    @property
    def exact_derivatives(self) -> bool:
        """No: outcomes are signs, and straight-through estimators stand for their derivatives."""
        return False

    @abstractmethod
    def activations(
        self, preactivation: Float[Array, " neurons"], memory: Any, key: PRNGKeyArray | None
    ) -> tuple[Float[Array, " neurons"], Any]:
        """Activations of one layer, and what is left for the next (`memory` is None before the first).

        Without a key they are the classical ones, the signs of the preactivations.
        """

    def initial_state(self, *, key: PRNGKeyArray | None = None) -> Float[Array, " outputs"]:
        """All outputs 0."""
        return jnp.zeros(self.weights[-1].shape[0], self.weights[-1].dtype)

    def step(
        self, state: Float[Array, " outputs"], drive: Float[Array, " inputs"], *, key: PRNGKeyArray | None = None
    ) -> Float[Array, " outputs"]:
        """One pass of one input through all layers: one shot. Without a key, the classical pass."""
        check_shape("drive", drive, self.weights[0].shape[1:])
        hidden = self.weights[:-1]
        keys = [None] * len(hidden) if key is None else jax.random.split(key, len(hidden))
        below, memory = drive, None
        for matrix, layer_key in zip(hidden, keys, strict=True):
            below, memory = self.activations(below @ matrix.T, memory, layer_key)
        return below @ self.weights[-1].T

    def observe(self, state: Float[Array, " outputs"], *, key: PRNGKeyArray | None = None) -> Float[Array, " outputs"]:
        """The outputs."""
        return state


class QuantizedPerceptron(BinarisedPerceptron):
    r"""A binarised perceptron whose neurons are qubits: rotated by what the layer below answered, then measured.

    $$\theta^k_i = \frac{\pi}{2} \left(d_i^{k-1} - \phi_a(h_i^k)\right), \quad d^0_i \equiv 1, \qquad
      \phi_a(x) = \mathrm{clip}(x / a, -1, 1), \qquad
      P(d) = \frac{1 + d \, s \, \langle z \rangle}{2}, \quad s = \sin g$$

    The qubit of a neuron starts in $|0\rangle$, is rotated about y by $\theta$ and measured with strength $g$ through
    an ancilla; what the measurement leaves of it is rotated in the next layer. It stays pure and real, so
    $(\langle z \rangle, \langle x \rangle)$ is all of it:

    $$z' = \frac{z + d s}{1 + d s z}, \qquad x' = \frac{x \cos g}{1 + d s z}.$$

    Neurons are not entangled with each other, so the sampler is exact (`morphax.quantum.register` simulates the whole
    register). Regimes: classical ($a = 0$, $g = \pi/2$), rotation ($a > 0$), weak measurement ($g < \pi/2$), both. What
    each of them is equal to, and where coherence is carried: docs/quantized.md.

    **Arguments:**

    - `weights`: matrices from layer to layer, shapes (neurons, inputs), (neurons, neurons) ..., (outputs, neurons).
    - `width`: $a \ge 0$, of the linear part of the activation; 0 is the sign.
    - `strength`: $g$ in $[0, \pi/2]$ rad, the angle that entangles neuron and ancilla; None is $\pi/2$, projective, and
      saves the arithmetic of what a measurement leaves.
    - `backward`: the straight-through estimator of the activations' derivative: "htanh", 1 where $|h| \le 1$ (Eq. 3,
      what the paper says), or "activation", $1/a$ where $|h| \le a$ (the derivative of $\phi_a$, for $a > 0$).

    Width and strength have the gradient 0. Without a key, or with $a = 0$ and $g = \pi/2$, activations are
    $\mathrm{sgn}(h)$ with $\mathrm{sgn}(0) = +1$.

    **Raises:** `ValueError` for widths below 0, strengths out of range, weights that do not fit to each other, hidden
    layers of different size, and "activation" with a width of 0.

    Source: Barney, Lakhdar-Hamina & Galitski, "Natural quantization of neural networks" (2025), Eqs. 1-9.

        >>> import jax, jax.numpy as jnp
        >>> from morphax import QuantizedPerceptron, evolve
        >>> network = QuantizedPerceptron.random((4, 8, 8, 2), width=0.3, key=jax.random.key(0))
        >>> image = jnp.array([[0.1, -0.2, 0.5, 1.0]])
        >>> one, _ = evolve(network, image, key=jax.random.key(1))
        >>> other, _ = evolve(network, image, key=jax.random.key(2))
        >>> one.shape, bool(jnp.allclose(one, other))
        ((1, 2), False)
    """

    width: Float[Array, ""] = eqx.field(metadata=DEVICE)
    strength: Float[Array, ""] | None = eqx.field(metadata=DEVICE)
    backward: Backward = eqx.field(static=True)

    def __init__(
        self,
        weights: Sequence[ArrayLike],
        *,
        width: ArrayLike = 0.0,
        strength: ArrayLike | None = None,
        backward: Backward = "htanh",
    ):
        super().__init__(weights)
        if len({matrix.shape[0] for matrix in self.weights[:-1]}) > 1:
            sizes = [matrix.shape[0] for matrix in self.weights[:-1]]
            raise ValueError(f"weights has hidden layers of {sizes} neurons; all use the same qubits and must be equal")
        check_shape("width", width, ())
        check_range("width", width, low=0.0)
        check_choice("backward", backward, BACKWARDS)
        if backward == "activation" and is_concrete(width) and width == 0:
            raise ValueError('backward is "activation" with width 0; the derivative of a sign is 0: use "htanh"')
        self.width = jnp.asarray(width, jnp.result_type(float))
        self.strength = None
        if strength is not None:
            check_shape("strength", strength, ())
            # Single precision rounds pi/2 up.
            check_range("strength", strength, low=0.0, high=np.pi / 2 * (1 + 1e-7))
            self.strength = jnp.asarray(strength, jnp.result_type(float))
        self.backward = backward

    def activations(
        self, preactivation: Float[Array, " neurons"], memory: Any, key: PRNGKeyArray | None
    ) -> tuple[Float[Array, " neurons"], Any]:
        """Outcomes of the measurements, and (outcomes, z, x) of the qubits after them where they are weak."""
        if key is None:
            outcomes, memory = sign(preactivation), None
        else:
            outcomes, memory = self._measured(jax.lax.stop_gradient(preactivation), memory, key)
        if self.backward == "htanh":
            return straight_through(preactivation, outcomes, 1.0), memory
        return straight_through(preactivation, outcomes, self.width), memory

    def rotation(self, preactivation: Float[Array, " neurons"]) -> tuple[Array, Array]:
        r"""$\sin \frac{\pi \phi_a}{2}$ and $\cos \frac{\pi \phi_a}{2}$, exactly $\pm 1$ and 0 where $|h| \ge a$."""
        soft = jnp.abs(preactivation) < self.width
        angle = jnp.where(soft, preactivation, 0.0) * (jnp.pi / 2) / jnp.where(self.width > 0, self.width, 1.0)
        sine, cosine = sin_cos(angle)
        return jnp.where(soft, sine, sign(preactivation)), jnp.where(soft, cosine, 0.0)

    def angles(self, layer: int, below: Float[Array, " below"]) -> Float[Array, " neurons"]:
        r"""$\pi \phi_a(h) / 2$, how far the qubits of a hidden layer are turned from the equator by what is below.

        Its derivative is that of the clip, also with another `backward`.
        """
        preactivation, soft = below @ self.weights[layer].T, self.width > 0
        turned = jnp.clip(preactivation / jnp.where(soft, self.width, 1.0), -1, 1)
        return jnp.where(soft, turned, sign(preactivation)) * (jnp.pi / 2)

    def shot(
        self,
        drive: Float[Array, " inputs"],
        *,
        key: PRNGKeyArray,
        shifts: Float[Array, "layers neurons"] | None = None,
    ) -> Float[Array, "layers neurons"]:
        """Outcomes of all measurements of one shot, with angles shifted."""
        below, memory, outcomes = drive, None, []
        for layer, layer_key in enumerate(jax.random.split(key, self.layers)):
            angles = self.angles(layer, below)
            z, x = _turned(*sin_cos(angles if shifts is None else angles + shifts[layer]), memory)
            below, memory = self._outcomes(z, x, layer_key)
            outcomes.append(below)
        return jnp.stack(outcomes)

    def answer(self, outcomes: Float[Array, "layers neurons"]) -> Float[Array, " outputs"]:
        """What the readout makes of the outcomes."""
        return outcomes[-1] @ self.weights[-1].T

    @property
    def layers(self) -> int:
        """Hidden ones."""
        return len(self.weights) - 1

    def probability(self, drive: Float[Array, " inputs"], outcomes: Float[Array, "layers neurons"]) -> Float[Array, ""]:
        """Probability of all measurement outcomes (+1 or -1) of one shot.

        **Raises:** `ValueError` for outcomes that are neither, for wrong shapes, and for a drive that is not finite.
        """
        return jnp.exp(self.log_probability(drive, outcomes))

    def log_probability(
        self, drive: Float[Array, " inputs"], outcomes: Float[Array, "layers neurons"]
    ) -> Float[Array, ""]:
        """Its logarithm, for which a product over many neurons would be too small; raises as it does."""
        check_shape("drive", drive, self.weights[0].shape[1:])
        check_finite("drive", drive)
        check_shape("outcomes", outcomes, (len(self.weights) - 1, self.weights[0].shape[0]))
        if is_concrete(outcomes) and not np.isin(outcomes, (-1, 1)).all():
            wrong = np.asarray(outcomes)[~np.isin(outcomes, (-1, 1))][0]
            raise ValueError(f"outcomes contains {wrong}; every one must be +1 or -1")
        below, memory, total = drive, None, jnp.asarray(0.0, self.weights[0].dtype)
        for matrix, measured in zip(self.weights[:-1], jnp.asarray(outcomes, total.dtype), strict=True):
            z, x = self._rotated(below @ matrix.T, memory)
            total = total + jnp.sum(jnp.log((1 + measured * self._sharpness * z) / 2))
            below, memory = measured, self._left(measured, z, x)
        return total

    @property
    def _sharpness(self) -> Array | float:
        return 1.0 if self.strength is None else jnp.sin(self.strength)

    def _measured(self, preactivation: Array, memory: Any, key: PRNGKeyArray) -> tuple[Array, Any]:
        return self._outcomes(*self._rotated(preactivation, memory), key)

    def _outcomes(self, z: Array, x: Array, key: PRNGKeyArray) -> tuple[Array, Any]:
        """Of measurements, and what they leave."""
        drawn = events(key, (1 + self._sharpness * z) / 2, z.shape)
        # A quotient is computed once; a selection XLA would repeat, with rotation and draws, in whatever it stands in.
        outcomes = 1 / jnp.where(drawn, 1.0, -1.0).astype(z.dtype)
        return outcomes, self._left(outcomes, z, x)

    def _rotated(self, preactivation: Array, memory: Any) -> tuple[Array, Array]:
        """z and x of the qubits after the rotation, from the last outcomes and what they left."""
        return _turned(*self.rotation(preactivation), memory)

    def _left(self, outcomes: Array, z: Array, x: Array) -> Any:
        """What a measurement leaves. A projective one leaves z = outcome: as in the first layer, so nothing is kept."""
        if self.strength is None:
            return None
        pull = outcomes * jnp.sin(self.strength)
        # Clipped for outcomes that are impossible, where rounding leaves 0 / 0.
        norm = jnp.maximum(1 + pull * z, jnp.finfo(z.dtype).tiny)
        z, x = ((z + pull) / norm).clip(-1, 1), (x * jnp.cos(self.strength) / norm).clip(-1, 1)
        return outcomes, z, x


def _turned(sine: Array, cosine: Array, memory: Any) -> tuple[Array, Array]:
    """z and x of qubits that are turned, from what the layer below left of them (None: they are new)."""
    if memory is None:
        return sine, cosine
    before, z, x = memory
    return before * (z * sine - x * cosine), before * (x * sine + z * cosine)


class NoisyPerceptron(BinarisedPerceptron):
    r"""A classical binarised perceptron with Gaussian noise in its preactivations, and dropout.

    $$d = m \, \mathrm{sgn}(h + \sigma n), \qquad n \sim N(0, 1), \quad m \in \{0, 1 / (1 - p)\}$$

    What `QuantizedPerceptron` is compared with: randomness that nobody would call quantum.

    **Arguments:**

    - `weights`: as in `QuantizedPerceptron`.
    - `noise`: $\sigma \ge 0$, in units of the preactivation.
    - `dropout`: $p$ in [0, 1[, probability that a hidden neuron is left out of a shot.
    - `window`: $w > 0$; backward, the slope is $1/w$ where $|h| \le w$. 1 is htanh; a network whose rotation has the
      width $a$ is trained alike with $w = a$ and its own slope.

    Without a key there is neither noise nor dropout.

    **Raises:** `ValueError` for numbers out of range.

        >>> import jax, jax.numpy as jnp
        >>> from morphax.substrates.quantized import NoisyPerceptron
        >>> network = NoisyPerceptron.random((4, 8, 2), dropout=0.5, key=jax.random.key(0))
        >>> network.step(network.initial_state(), jnp.ones(4), key=jax.random.key(1)).shape
        (2,)
    """

    noise: Float[Array, ""] = eqx.field(metadata=DEVICE)
    dropout: Float[Array, ""] = eqx.field(metadata=DEVICE)
    window: float = eqx.field(static=True)

    def __init__(
        self, weights: Sequence[ArrayLike], *, noise: ArrayLike = 0.0, dropout: ArrayLike = 0.0, window: float = 1.0
    ):
        super().__init__(weights)
        self.noise = as_array("noise", noise, ())
        check_range("noise", self.noise, low=0.0)
        self.dropout = as_array("dropout", dropout, ())
        check_range("dropout", self.dropout, low=0.0)
        if is_concrete(self.dropout) and self.dropout >= 1:
            raise ValueError(f"dropout is {self.dropout}; it must be >= 0 and < 1")
        check_range("window", window, low=0.0, open_low=True)
        self.window = window

    def activations(
        self, preactivation: Float[Array, " neurons"], memory: Any, key: PRNGKeyArray | None
    ) -> tuple[Float[Array, " neurons"], Any]:
        """Signs of noisy preactivations, some left out."""
        if key is None:
            return straight_through(preactivation, sign(preactivation), self.window), None
        first, second = jax.random.split(key)
        noisy = preactivation + self.noise * jax.random.normal(first, preactivation.shape, preactivation.dtype)
        kept = jax.random.bernoulli(second, 1 - self.dropout, preactivation.shape) / (1 - self.dropout)
        return kept * straight_through(preactivation, sign(noisy), self.window), None


def sign(values: Float[Array, "..."]) -> Float[Array, "..."]:
    """+1 for values >= 0, else -1."""
    return jnp.where(values >= 0, 1.0, -1.0).astype(values.dtype)


def straight_through(
    preactivation: Float[Array, "..."], outcomes: Float[Array, "..."], width: ArrayLike
) -> Float[Array, "..."]:
    r"""`outcomes`, with the derivative of $\mathrm{clip}(h / \mathrm{width}, -1, 1)$: $1 / w$ where $|h| \le w$."""
    return _straight_through(preactivation, outcomes, jnp.asarray(width, preactivation.dtype))


@jax.custom_jvp
def _straight_through(preactivation: Array, outcomes: Array, width: Array) -> Array:
    return outcomes


@_straight_through.defjvp
def _(primals: tuple[Array, Array, Array], tangents: tuple[Array, Array, Array]) -> tuple[Array, Array]:
    preactivation, outcomes, width = primals
    return outcomes, jnp.where(jnp.abs(preactivation) <= width, 1 / width, 0.0) * tangents[0]
