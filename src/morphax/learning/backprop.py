"""Gradients through the dynamics: back-propagation through time for any substrate whose step is differentiable."""

from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax.sharding import AxisType, PartitionSpec
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from morphax._checks import check_count
from morphax.learning.metrics import accuracy, nrmse
from morphax.learning.train import Metrics
from morphax.substrates.base import Substrate, evolve

Objective = Callable[[Array, Array], Metrics]


def classification(outputs: Float[Array, "examples classes"], targets: Float[Array, "examples classes"]) -> Metrics:
    """Mean cross-entropy of the outputs' softmax with one-hot targets ("loss", in nats), and "accuracy"."""
    return {
        "loss": jnp.mean(optax.softmax_cross_entropy(outputs, targets)),
        "accuracy": accuracy(outputs, targets),
    }


def regression(outputs: Float[Array, "..."], targets: Float[Array, "..."]) -> Metrics:
    """Mean squared error ("loss"), and "nrmse" (`morphax.learning.metrics`)."""
    return {"loss": jnp.mean((outputs - targets) ** 2), "nrmse": nrmse(outputs, targets)}


class Backpropagation(eqx.Module):
    r"""Learning rule: the gradient of a loss through the dynamics, mean over examples.

    $$\frac{dL}{d\theta} = \sum_t \frac{\partial L}{\partial s_t} \frac{\partial s_t}{\partial \theta}, \qquad
      s_t = \mathrm{step}_\theta(s_{t-1}, u_t)$$

    **Arguments:**

    - `objective`: a function of (outputs, targets) that gives metrics, among them the "loss" that is minimised:
      `classification`, `regression`, or your own.
    - `observe`: what answers: the observation after the "last" input, shape (examples, outputs), or after "every",
      (examples, time, outputs).
    - `segment`: inputs between two states that are kept for the backward pass (`segmented_scan`): memory for time.
    - `shards`: equal parts of the examples that so many devices work on at once. A CPU counts as one device unless
      `jax.config.update("jax_num_cpu_devices", 2)` comes before the first computation.

    Inputs have shape (examples, time, ...). A key, where the substrate needs one, is split over the examples.

    Source: Werbos, Proc. IEEE 78, 1550 (1990).

        >>> import jax, jax.numpy as jnp
        >>> from morphax import SpintronicNetwork, WithReadout
        >>> from morphax.learning.backprop import Backpropagation
        >>> first, second, third = jax.random.split(jax.random.key(0), 3)
        >>> network = WithReadout.random(SpintronicNetwork.random((8, 8), key=first), outputs=2, key=second)
        >>> inputs, targets = jax.random.normal(third, (6, 20)), jnp.eye(2)[jnp.array([0, 1, 1, 0, 1, 0])]
        >>> metrics, gradient = Backpropagation().gradient(network, inputs, targets, key=jax.random.key(1))
        >>> gradient.substrate.connections.weights.shape, sorted(metrics)
        ((16, 16), ['accuracy', 'loss'])
    """

    objective: Objective = eqx.field(static=True, default=classification)
    observe: Literal["every", "last"] = eqx.field(static=True, default="last")
    segment: int | None = eqx.field(static=True, default=None)
    shards: int = eqx.field(static=True, default=1)

    def __check_init__(self) -> None:
        check_count("shards", self.shards, 1, len(jax.devices()))

    def outputs(
        self, substrate: Substrate, inputs: Float[Array, "examples time ..."], *, key: PRNGKeyArray | None = None
    ) -> Float[Array, "examples ..."]:
        """What the substrate answers to every example."""

        arrays, rest = eqx.partition(substrate, eqx.is_array)

        def answers(arrays: PyTree, inputs: Array, keys: PRNGKeyArray | None) -> Array:
            def one(drives: Array, key: PRNGKeyArray | None) -> Array:
                substrate = eqx.combine(arrays, rest)
                return evolve(substrate, drives, key=key, observe=self.observe, segment=self.segment)[0]

            return jax.vmap(one)(inputs, keys)

        keys = None if key is None else jax.random.split(key, inputs.shape[0])
        if self.shards == 1:
            return answers(arrays, inputs, keys)
        if inputs.shape[0] % self.shards:
            raise ValueError(f"shards is {self.shards}; it must divide the number of examples, {inputs.shape[0]}")
        mesh = jax.make_mesh((self.shards,), ("examples",), (AxisType.Auto,), devices=jax.devices()[: self.shards])
        split = PartitionSpec("examples")
        # Inside, the start of a scan counts as the same everywhere and its end does not: that check has to be off.
        divided = jax.shard_map(
            answers, mesh=mesh, in_specs=(PartitionSpec(), split, split), out_specs=split, check_vma=False
        )
        return divided(arrays, inputs, keys)

    def metrics(
        self,
        substrate: Substrate,
        inputs: Float[Array, "examples time ..."],
        targets: Float[Array, "examples ..."],
        *,
        key: PRNGKeyArray | None = None,
    ) -> Metrics:
        """What the objective says of the answers."""
        return self.objective(self.outputs(substrate, inputs, key=key), targets)

    def gradient(
        self,
        substrate: Substrate,
        inputs: Float[Array, "examples time ..."],
        targets: Float[Array, "examples ..."],
        *,
        key: PRNGKeyArray | None = None,
    ) -> tuple[Metrics, Any]:
        """Metrics, and the gradient of their loss with respect to every inexact array of the substrate."""

        def loss(substrate: Substrate) -> tuple[Array, Metrics]:
            metrics = self.metrics(substrate, inputs, targets, key=key)
            return metrics["loss"], metrics

        gradient, metrics = eqx.filter_grad(loss, has_aux=True)(substrate)
        return metrics, gradient
