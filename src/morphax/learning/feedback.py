r"""Errors that reach the layers through other wires than the weights themselves: feedback alignment and its kin.

Back-propagation needs the transposed weights, and the slope of every neuron. Here random matrices carry the error back,
and a function of what reached a neuron may stand for its slope, so that the device is never differentiated.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from morphax._checks import check_key, check_range
from morphax.learning.layer_errors import LayerErrors, Pass
from morphax.pytrees import select
from morphax.substrates.layered import Layered

Slope = Literal["model"] | Callable[[Array], Array]


def neuron_slopes(substrate: Layered, layer: int, fed: Float[Array, "examples neurons"]) -> Array:
    """How the answer of each neuron changes with what reaches it, by the substrate's derivative.

    Where answers are random, of one draw of the noise: noise that is added does not change it.
    """

    def one(fed: Array) -> Array:
        return jax.jvp(lambda a: substrate.respond(layer, a, key=jax.random.key(0)), (fed,), (jnp.ones_like(fed),))[1]

    return jax.vmap(one)(fed)


class FeedbackRule(LayerErrors):
    r"""What rules share that send errors down: $\delta_l = (B_l \, \delta_\mathrm{above}) \circ f'(a_l)$.

    **Arguments:** (besides those of `LayerErrors`)

    - `slope`: what stands for $f'$: "model", the derivative of the substrate's `respond`, or a function of what reached
      the neurons, with which the device is asked for nothing but answers ("augmented").
    """

    slope: Slope = eqx.field(static=True, default="model", kw_only=True)

    def __check_init__(self) -> None:
        if self.slope != "model" and not callable(self.slope):
            raise ValueError(f"slope is {self.slope!r}; it must be 'model' or a function of what reaches the neurons")

    def _slope(self, substrate: Layered, layer: int, fed: Float[Array, "examples neurons"]) -> Array:
        return self.slope(fed) if callable(self.slope) else neuron_slopes(substrate, layer, fed)

    def _down(self, substrate: Layered, shown: Pass, backward: Callable[[int, Array], Array]) -> list[Array]:
        """Errors of all layers, from the readout down; `backward` carries that above a layer to its neurons."""
        deltas, above = [], shown.error
        for layer in reversed(range(substrate.layers)):
            above = backward(layer, above) * self._slope(substrate, layer, shown.fed[layer])
            deltas.insert(0, above)
        return deltas


def _matrix(key: PRNGKeyArray, below: int, above: int, dtype: Any) -> Array:
    """Normal, as weights are: with a variance of one over the neurons that an error comes from the weights of."""
    return jax.random.normal(key, (below, above), dtype) / below**0.5


class FeedbackAlignment(FeedbackRule):
    r"""Learning rule: fixed random matrices carry errors from layer to layer.

    $$\delta_l = (B_l \, \delta_{l+1}) \circ f'(a_l)$$

    Weights align with the matrices while they learn. Each example is presented once.

    **Arguments:** (besides those of `FeedbackRule`)

    - `key`: of the matrices, normal with variance $1 / n_l$; or
    - `matrices`: these themselves, one (neurons of the layer, neurons above) for each layer.

    Source: Lillicrap et al., Nat. Commun. 7, 13276 (2016).

        >>> import jax, jax.numpy as jnp
        >>> from morphax.learning.feedback import FeedbackAlignment
        >>> from morphax.substrates.layered import OscillatorLayers
        >>> network = OscillatorLayers.random((3, 8, 2), key=jax.random.key(0))
        >>> data = jax.random.normal(jax.random.key(1), (6, 3)), jnp.eye(2)[jnp.arange(6) % 2]
        >>> metrics, gradient = FeedbackAlignment(key=jax.random.key(2)).gradient(network, *data, key=jax.random.key(3))
        >>> gradient.weights[0].shape, int(metrics["presentations"])
        ((8, 3), 6)
    """

    key: PRNGKeyArray | None = None
    matrices: tuple[Float[Array, "neurons above"], ...] | None = None

    def __check_init__(self) -> None:
        if (self.key is None) == (self.matrices is None):
            raise ValueError("key and matrices: one of them says how errors come back")
        if self.key is not None:
            check_key("key", self.key)

    def errors(
        self, substrate: Layered, shown: Pass, targets: Array, *, key: PRNGKeyArray, memory: PyTree = None
    ) -> tuple[list[Array], tuple[PyTree, ...]]:
        """Layer by layer."""

        def backward(layer: int, above: Array) -> Array:
            return above @ self._fixed(layer, shown.fed[layer].shape[-1], above.shape[-1], above.dtype).T

        return self._down(substrate, shown, backward), ()

    def _fixed(self, layer: int, below: int, above: int, dtype: Any) -> Array:
        if self.matrices is not None:
            return self.matrices[layer]
        assert self.key is not None
        return _matrix(jax.random.fold_in(self.key, layer), below, above, dtype)


class DirectFeedbackAlignment(FeedbackAlignment):
    r"""Learning rule: fixed random matrices carry the error of the outputs to every layer at once.

    $$\delta_l = (B_l \, \delta_L) \circ f'(a_l)$$

    With a function as `slope` it is the augmented one of Nakajima et al.: neither the slope of the device nor its
    weights are needed on the way back.

    Source: Nokland, NeurIPS 29 (2016); Nakajima et al., Nat. Commun. 13, 7847 (2022).

        >>> import equinox as eqx, jax, jax.numpy as jnp
        >>> from morphax.learning.feedback import DirectFeedbackAlignment
        >>> from morphax.substrates.layered import OscillatorLayers
        >>> network = OscillatorLayers.random((3, 8, 8, 2), key=jax.random.key(0))
        >>> data = jax.random.normal(jax.random.key(1), (6, 3)), jnp.eye(2)[jnp.arange(6) % 2]
        >>> augmented = DirectFeedbackAlignment(key=jax.random.key(2), slope=lambda a: 1 / jnp.cosh(a))
        >>> eqx.filter_jit(augmented.gradient)(network, *data, key=jax.random.key(3))[1].weights[1].shape
        (8, 8)
    """

    def errors(
        self, substrate: Layered, shown: Pass, targets: Array, *, key: PRNGKeyArray, memory: PyTree = None
    ) -> tuple[list[Array], tuple[PyTree, ...]]:
        """Of every layer from the outputs."""
        outputs = shown.error
        deltas = []
        for layer, fed in enumerate(shown.fed):
            matrix = self._fixed(layer, fed.shape[-1], outputs.shape[-1], outputs.dtype)
            deltas.append((outputs @ matrix.T) * self._slope(substrate, layer, fed))
        return deltas, ()


class SignSymmetry(FeedbackRule):
    r"""Learning rule: the signs of the weights carry errors back, scaled as the weights are.

    $$\delta_l = (\mathrm{sign}(W_{l+1})^T \delta_{l+1}) \, r_{l+1} \circ f'(a_l)$$

    $W$ is the Jacobian of the wiring, $r$ the root mean square of its entries.

    Source: Liao, Leibo & Poggio, AAAI 30 (2016), with uniform magnitudes.

        >>> import equinox as eqx, jax, jax.numpy as jnp
        >>> from morphax.learning.feedback import SignSymmetry
        >>> from morphax.substrates.layered import OscillatorLayers
        >>> network = OscillatorLayers.random((3, 8, 2), key=jax.random.key(0))
        >>> data = jax.random.normal(jax.random.key(1), (6, 3)), jnp.eye(2)[jnp.arange(6) % 2]
        >>> eqx.filter_jit(SignSymmetry().gradient)(network, *data, key=jax.random.key(3))[1].weights[0].shape
        (8, 3)
    """

    def errors(
        self, substrate: Layered, shown: Pass, targets: Array, *, key: PRNGKeyArray, memory: PyTree = None
    ) -> tuple[list[Array], tuple[PyTree, ...]]:
        """Layer by layer."""

        def backward(layer: int, above: Array) -> Array:
            wiring = _wiring(substrate, layer + 1, shown.fed[layer].shape[-1])
            return above @ jnp.sign(wiring) * jnp.sqrt(jnp.mean(wiring**2))

        return self._down(substrate, shown, backward), ()


class Matrices(NamedTuple):
    """What `KolenPollack` remembers."""

    backward: tuple[Float[Array, "neurons above"], ...]


class KolenPollack(FeedbackRule):
    r"""Learning rule: matrices that carry errors back change as the weights do, and both decay until they are equal.

    $$\delta_l = (B_l \, \delta_{l+1}) \circ f'(a_l), \qquad
      B_l \leftarrow B_l - \eta \left( y_l \, \delta_{l+1}^T + \lambda B_l \right)$$

    and $\lambda W$ is added to the gradient of the weights. Where these are changed by gradient descent with the same
    $\eta$, $W^T - B$ shrinks by $1 - \eta \lambda$ in every step.

    **Arguments:** (besides those of `FeedbackRule`)

    - `key`: of the matrices at the beginning.
    - `learning_rate`: $\eta > 0$, that of the optimiser.
    - `decay`: $\lambda \ge 0$.

    Source: Kolen & Pollack, ICNN 3, 1375 (1994); Akrout et al., NeurIPS 32 (2019).

        >>> import jax, jax.numpy as jnp, optax
        >>> from morphax import train
        >>> from morphax.learning.feedback import KolenPollack
        >>> from morphax.substrates.layered import OscillatorLayers
        >>> network = OscillatorLayers.random((3, 8, 2), key=jax.random.key(0))
        >>> data = jax.random.normal(jax.random.key(1), (6, 3)), jnp.eye(2)[jnp.arange(6) % 2]
        >>> rule = KolenPollack(jax.random.key(2), learning_rate=0.1)
        >>> history = train(network, rule, data, optax.sgd(0.1), 50, key=jax.random.key(3)).history
        >>> history[-1]["loss"] < history[0]["loss"]
        True
    """

    key: PRNGKeyArray
    learning_rate: float | Float[Array, ""] = 0.1
    decay: float | Float[Array, ""] = 0.01

    def __check_init__(self) -> None:
        check_key("key", self.key)
        check_range("learning_rate", self.learning_rate, low=0.0, open_low=True)
        check_range("decay", self.decay, low=0.0)

    def memory(self, substrate: Layered, *, key: PRNGKeyArray) -> Matrices:
        """Random matrices."""
        _, entering, outputs = jax.eval_shape(lambda: substrate.passed(jnp.zeros(substrate.channels), key=key))
        sizes = [y.size for y in entering[1:]] + [outputs.size]
        keys = jax.random.split(self.key, substrate.layers)
        pairs = zip(keys, sizes[:-1], sizes[1:], strict=True)
        return Matrices(tuple(_matrix(k, below, above, outputs.dtype) for k, below, above in pairs))

    def errors(
        self, substrate: Layered, shown: Pass, targets: Array, *, key: PRNGKeyArray, memory: Matrices | None = None
    ) -> tuple[list[Array], tuple[PyTree, ...]]:
        """Layer by layer, and the matrices after the step."""
        backward = (self.memory(substrate, key=key) if memory is None else memory).backward
        deltas = self._down(substrate, shown, lambda layer, above: above @ backward[layer].T)
        above = [*deltas[1:], shown.error]
        moved = tuple(
            matrix - self.learning_rate * (below.T @ error + self.decay * matrix)
            for matrix, below, error in zip(backward, shown.entering[1:], above, strict=True)
        )
        return deltas, (Matrices(moved),)

    def gradient(
        self, substrate: Layered, inputs: Array, targets: Array, *, key: PRNGKeyArray, memory: PyTree = None
    ) -> tuple[Any, ...]:
        """With the decay of the weights."""
        metrics, gradient, *kept = super().gradient(substrate, inputs, targets, key=key, memory=memory)
        learned, _ = select(substrate, *self.roles)
        return metrics, jax.tree.map(lambda g, w: g + self.decay * w, gradient, learned), *kept


def _wiring(substrate: Layered, layer: int, below: int) -> Float[Array, "to from"]:
    """The Jacobian of the wiring in front of a layer."""
    return jax.jacobian(lambda y: substrate.feed(layer, y))(jnp.zeros(below))
