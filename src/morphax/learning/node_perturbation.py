"""Node perturbation: what reaches the neurons is disturbed, not the weights."""

from collections.abc import Callable
from math import prod
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from morphax._checks import check_count, check_range
from morphax.learning.following import NEEDS, followed, inside, known_one_by_one, of_wires, shiftable
from morphax.learning.layer_errors import LayerErrors, Pass
from morphax.learning.rule import Metrics
from morphax.substrates.base import State, Substrate, presented
from morphax.substrates.layered import Layered


class NodePerturbation(LayerErrors):
    r"""Learning rule: what reaches the neurons is disturbed, and the change of the loss is the error of each.

    $$\delta_l = \frac{1}{K} \sum_k \frac{L(a + c \, \xi_k) - L(a - c \, \xi_k)}{2 c} \, \xi_{k, l}$$

    with components 1 or -1 for all layers at once, another draw for every example; the error of the outputs is known.
    Of networks that evolve (`Neuronwise`), whatever reaches any neuron at any time is disturbed at once. Directions of
    one example are rows of a Hadamard matrix with random signs of the columns: each by itself is random, and as many as
    there are neurons give every error by itself. The variance goes with the number of neurons, where that of
    `ZerothOrder` goes with that of weights; nothing is written, for what reaches a neuron is a bias. Each example is
    presented 2 K + 1 times. Where the device is random, its noise is divided by c, too.

    **Arguments:** (besides those of `LayerErrors`)

    - `directions`: $K \ge 1$.
    - `spread`: $c > 0$, in the units of what reaches the neurons.

    Source: Werfel, Xie & Seung, Neural Comput. 17, 2699 (2005).

        >>> import jax, jax.numpy as jnp
        >>> from morphax.learning.node_perturbation import NodePerturbation
        >>> from morphax.substrates.layered import OscillatorLayers
        >>> network = OscillatorLayers.random((3, 8, 2), key=jax.random.key(0))
        >>> data = jax.random.normal(jax.random.key(1), (6, 3)), jnp.eye(2)[jnp.arange(6) % 2]
        >>> metrics, gradient = NodePerturbation(directions=4).gradient(network, *data, key=jax.random.key(3))
        >>> gradient.weights[0].shape, int(metrics["presentations"])
        ((8, 3), 54)
    """

    directions: int = eqx.field(static=True, default=1)
    spread: float | Float[Array, ""] = 1e-2

    def __check_init__(self) -> None:
        check_count("directions", self.directions, 1)
        check_range("spread", self.spread, low=0.0, open_low=True)

    @property
    def presentations(self) -> int:
        """Undisturbed, and both ways along each direction."""
        return 2 * self.directions + 1

    def needs(self) -> str:
        """Layers, or neurons that are known one by one."""
        return f"{super().needs()}, or {NEEDS}"

    def fits(self, substrate: Any) -> bool:
        """Both."""
        return super().fits(substrate) or known_one_by_one(substrate)

    def check_data(self, substrate: Substrate, inputs: Array, targets: Array) -> None:
        """What back-propagation refuses, and of layers more than one input an example."""
        if isinstance(substrate, Layered):
            super().check_data(substrate, inputs, targets)
        else:
            self.judge.check_data(substrate, inputs, targets)

    def gradient(
        self, substrate: Any, inputs: Array, targets: Array, *, key: PRNGKeyArray, memory: PyTree = None
    ) -> tuple[Any, ...]:
        """Metrics, and the derivative of the wiring at the errors."""
        if isinstance(substrate, Layered):
            return super().gradient(substrate, inputs, targets, key=key)
        return self._in_time(substrate, presented(substrate, inputs), targets, key)

    def errors(
        self, substrate: Layered, shown: Pass, targets: Array, *, key: PRNGKeyArray, memory: PyTree = None
    ) -> tuple[list[Array], tuple[PyTree, ...]]:
        """Of every layer from two losses a direction."""
        sizes = [fed.shape[-1] for fed in shown.fed]
        ends = np.cumsum(sizes)[:-1].tolist()

        def loss(drive: Array, target: Array, shift: Array, key: PRNGKeyArray) -> Array:
            outputs = substrate.passed(drive, key=key, shifts=jnp.split(shift, ends))[2]
            return self.judge.judged(outputs[None], target[None])["loss"]

        found = self._estimated(loss, shown.entering[0], targets, jnp.zeros(sum(sizes), shown.error.dtype), key)
        return jnp.split(found, ends, axis=1), ()

    def _in_time(
        self, substrate: Substrate, inputs: Float[Array, "examples time ..."], targets: Array, key: PRNGKeyArray
    ) -> tuple[Metrics, PyTree]:
        """Of networks that evolve: whatever reaches a neuron at any time has an error of its own."""
        noise, chance = jax.random.split(key)
        network, device = inside(substrate), shiftable(substrate)
        inputs = inputs[..., None] if inputs.ndim == 2 else inputs
        examples, times = inputs.shape[:2]
        wires = network.wires()
        shape = times, network.evaluations, wires.shape[1]

        def compared(outputs: Array, targets: Array) -> Metrics:
            last = outputs[:, -targets.shape[1] :] if targets.ndim == 3 else outputs[:, -1]
            return self.judge.judged(last, targets)

        def loss(drives: Array, target: Array, shift: Array, key: PRNGKeyArray) -> Array:
            outputs = device.driven(jnp.concatenate([drives, shift.reshape(times, -1)], axis=1), key=key)[0]
            return compared(outputs[None], target[None])["loss"]

        ran = jax.vmap(lambda drives, k: followed(substrate, drives, k))(inputs, jax.random.split(noise, examples))
        errors = jax.grad(lambda outputs: compared(outputs, targets)["loss"])(ran.outputs)
        deltas = self._estimated(loss, inputs, targets, jnp.zeros(prod(shape), errors.dtype), chance).reshape(
            examples, *shape
        )

        def met(state: State, drive: Array) -> Array:
            return jnp.stack(network.entering(state, drive, wires))

        entering = jax.vmap(jax.vmap(met))(ran.before, inputs)
        total = jnp.einsum("btei,bten->in", entering, deltas)
        metrics = compared(ran.outputs, targets) | self.cost(examples).reported()
        return metrics, of_wires(substrate, self.roles, total, ran.after, errors)

    def _estimated(
        self, loss: Callable[..., Array], drives: Array, targets: Array, still: Array, key: PRNGKeyArray
    ) -> Float[Array, "examples shifts"]:
        """Derivatives of the mean of `loss(drive, target, shift, key)` at no shift, `still`, for each example."""
        which, noise = jax.random.split(key)
        examples = len(targets)
        signs = jax.random.rademacher(which, (examples, still.size), still.dtype)

        def one(drive: Array, target: Array, direction: Array, key: PRNGKeyArray) -> Array:
            up, down = jax.random.split(key)
            ahead = loss(drive, target, self.spread * direction, up)
            return (ahead - loss(drive, target, -self.spread * direction, down)) / (2 * self.spread) * direction

        def add(total: Array, index: Array) -> tuple[Array, None]:
            # Of a Hadamard matrix, an entry has the sign of the parity of common bits of row and column.
            common = jnp.bitwise_and(index, jnp.arange(still.size))
            directions = signs * (1 - 2 * (jax.lax.population_count(common) % 2))
            keys = jax.random.split(jax.random.fold_in(noise, index), examples)
            return total + jax.vmap(one)(drives, targets, directions, keys), None

        total, _ = jax.lax.scan(add, jnp.zeros((examples, still.size), still.dtype), jnp.arange(self.directions))
        # The loss is a mean over examples.
        return total / (self.directions * examples)
