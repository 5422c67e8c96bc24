"""What rules share that give every layer an error: the gradient is that of the wiring at it."""

from abc import abstractmethod
from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from morphax.learning.backprop import Backpropagation
from morphax.learning.objectives import Objective
from morphax.learning.rule import Asked, LearningRule, Metrics
from morphax.pytrees import Role, select
from morphax.substrates.base import presented
from morphax.substrates.layered import Layered
from morphax.tasks.base import Kind


class Pass(eqx.Module):
    """What one presentation of every example showed, and how the loss changes with the outputs.

    - `fed`: what reached each layer, each (examples, neurons).
    - `entering`: what entered each wiring, the inputs first.
    - `outputs`: what the readout gave.
    - `error`: derivative of the loss with respect to the outputs.
    """

    fed: list[Float[Array, "examples neurons"]]
    entering: list[Float[Array, "examples below"]]
    outputs: Float[Array, "examples outputs"]
    error: Float[Array, "examples outputs"]


class LayerErrors(LearningRule):
    r"""Learning rules that say, for each layer, how the loss changes with what reaches its neurons.

    $$g = \sum_l \left( \frac{\partial\, \mathrm{feed}(l, y_{l-1})}{\partial \theta} \right)^T \delta_l$$

    with $\delta_L$ the derivative of the loss with respect to the outputs, which is known; a subclass gives the others.
    The device is asked, never differentiated; its wiring is.

    **Arguments:**

    - `objective`: as of `Backpropagation`; a mean over examples.
    - `roles`: of the leaves of the wiring whose gradient is computed. `train` sets those that it trains.
    """

    objective: Objective | None = eqx.field(static=True, default=None, kw_only=True)
    roles: tuple[Role, ...] = eqx.field(static=True, default=("weight",), kw_only=True)

    @property
    def judge(self) -> Backpropagation:
        """Who compares outputs with targets."""
        return Backpropagation(self.objective)

    def needs(self) -> str:
        """Layers."""
        return "layers with known wiring (Layered: layers, feed, respond)"

    def fits(self, substrate: Any) -> bool:
        """Layers."""
        return isinstance(substrate, Layered)

    def suited(self, kind: Kind) -> "LayerErrors":
        """With the objective of the kind, where none was chosen."""
        return replace(self, objective=self.judge.suited(kind).objective)

    def for_roles(self, *trained: Role) -> "LayerErrors":
        """With gradients of leaves with these roles."""
        return replace(self, roles=trained)

    def check_data(self, substrate: Layered, inputs: Array, targets: Array) -> None:
        """What back-propagation refuses, and more than one input an example."""
        self.judge.check_data(substrate, inputs, targets)
        if presented(substrate, inputs).shape[1] != 1:
            raise ValueError(
                f"inputs has shape {inputs.shape}; layers answer one vector at once, so it must be (examples, channels)"
            )

    @property
    def presentations(self) -> int:
        """Of every example, for a gradient."""
        return 1

    def cost(self, examples: int) -> Asked:
        """Every example as often as the rule needs it, with one set of weights."""
        return Asked(self.presentations * examples, 1)

    def cost_of_metrics(self, examples: int) -> Asked:
        """Every example once."""
        return Asked(examples, 1)

    def metrics(self, substrate: Layered, inputs: Array, targets: Array, *, key: PRNGKeyArray) -> Metrics:
        """What the objective says of the answers."""
        return self.judge.metrics(substrate, inputs, targets, key=key)

    @abstractmethod
    def errors(
        self, substrate: Layered, shown: Pass, targets: Array, *, key: PRNGKeyArray, memory: PyTree = None
    ) -> tuple[list[Array], tuple[PyTree, ...]]:
        """The errors of all layers but the readout, each (examples, neurons), and what is remembered, if anything."""

    def gradient(
        self, substrate: Layered, inputs: Array, targets: Array, *, key: PRNGKeyArray, memory: PyTree = None
    ) -> tuple[Any, ...]:
        """Metrics, and the derivative of the wiring at the errors."""
        noise, chance = jax.random.split(key)
        drives = presented(substrate, inputs)[:, 0]
        targets = targets[:, 0] if targets.ndim == 3 else targets
        fed, entering, outputs = jax.vmap(lambda x, k: substrate.passed(x, key=k))(
            drives, jax.random.split(noise, len(drives))
        )
        error = jax.grad(lambda outputs: self.judge.judged(outputs, targets)["loss"])(outputs)
        shown = Pass(fed, entering, outputs, error)
        deltas, kept = self.errors(substrate, shown, targets, key=chance, memory=memory)
        learned, fixed = select(substrate, *self.roles)

        def pulled(learned: PyTree) -> Array:
            wired = eqx.combine(learned, fixed)
            pulls = [
                jnp.sum(jax.vmap(lambda below, layer=layer: wired.feed(layer, below))(below) * delta)
                for layer, (below, delta) in enumerate(zip(entering, [*deltas, error], strict=True))
            ]
            return sum(pulls[1:], start=pulls[0])

        metrics = self.judge.judged(outputs, targets) | self.cost(len(drives)).reported()
        return metrics, jax.grad(pulled)(learned), *kept
