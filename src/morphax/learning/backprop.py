"""Gradients through the dynamics: back-propagation through time for any substrate whose step is differentiable."""

from dataclasses import replace
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, PartitionSpec
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from morphax._checks import check_count
from morphax.learning.objectives import Classification, Objective, Regression, classification, regression
from morphax.learning.rule import LearningRule, Metrics, check_outputs
from morphax.pytrees import Role, select
from morphax.substrates.base import Substrate, evolve, presented
from morphax.tasks.base import Kind

KEPT = 2**22
"""Bytes of states that a part of a batch may keep: with what else the backward pass keeps that stays in a cache."""
LEAST = 100
"""Examples of a part, at least: products of fewer rows take longer than fetching what does not fit."""


class Backpropagation(LearningRule):
    r"""Learning rule: the gradient of a loss through the dynamics, mean over examples.

    $$\frac{dL}{d\theta} = \sum_t \frac{\partial L}{\partial s_t} \frac{\partial s_t}{\partial \theta}, \qquad
      s_t = \mathrm{step}_\theta(s_{t-1}, u_t)$$

    **Arguments:**

    - `objective`: a function of (outputs, targets) that gives metrics, among them the "loss" that is minimised:
      `classification`, `regression`, or your own. None: what suits the kind of the task; of a plain pair of inputs and
      targets `classification`.
    - `observe`: what answers: the observation after the "last" input, shape (examples, outputs), or after "every",
      (examples, time, outputs). None: as the targets ask by their axes; where they hold fewer points in time than the
      inputs, the last ones are compared.
    - `segment`: inputs between two states that are kept for the backward pass (`segmented_scan`): memory for time.
    - `microbatch`: examples whose gradient is computed at once; those of the parts are added up. What is kept for the
      backward pass then fits into a cache, and memory does not grow with the batch. Needs an objective that is a mean
      over examples (`mean_over_examples`), and divides their number. None: on a CPU so many that about 4 MB of states
      are kept, but not fewer than 100, elsewhere all.
    - `roles`: of the leaves whose gradient is computed. `train` sets those that it trains.
    - `shards`: equal parts of the examples that so many devices work on at once. A CPU counts as one device unless
      `jax.config.update("jax_num_cpu_devices", 2)` comes before the first computation.

    Inputs have shape (examples, time, channels); also (examples, time) of one channel, and (examples, channels) of a
    substrate that takes several, each vector presented at once. A key, where the substrate needs one, is split over the
    examples. An energy substrate comes to rest at every input, and its equilibria are differentiated implicitly.

    Source: Werbos, Proc. IEEE 78, 1550 (1990).

        >>> import jax, jax.numpy as jnp
        >>> from morphax import SpintronicNetwork, WithReadout
        >>> from morphax.learning.backprop import Backpropagation
        >>> first, second, third = jax.random.split(jax.random.key(0), 3)
        >>> network = WithReadout.random(SpintronicNetwork.random((8, 8), key=first), outputs=2, key=second)
        >>> inputs, targets = jax.random.normal(third, (6, 20)), jnp.eye(2)[jnp.array([0, 1, 1, 0, 1, 0])]
        >>> metrics, gradient = Backpropagation().gradient(network, inputs, targets, key=jax.random.key(1))
        >>> gradient.substrate.connections.weights.shape, sorted(metrics)
        ((16, 16), ['accuracy', 'loss', 'presentations', 'writes'])
    """

    objective: Objective | None = eqx.field(static=True, default=None)
    observe: Literal["every", "last"] | None = eqx.field(static=True, default=None)
    segment: int | None = eqx.field(static=True, default=None)
    microbatch: int | None = eqx.field(static=True, default=None)
    roles: tuple[Role, ...] = eqx.field(static=True, default=("weight",))
    shards: int = eqx.field(static=True, default=1)

    def __check_init__(self) -> None:
        check_count("shards", self.shards, 1, len(jax.devices()))
        if self.microbatch is not None:
            check_count("microbatch", self.microbatch, 1)

    @property
    def exact(self) -> bool:
        """Yes."""
        return True

    def needs(self) -> str:
        """A substrate."""
        return "a substrate whose step can be differentiated"

    def fits(self, substrate: Any) -> bool:
        """Every substrate that has derivatives."""
        return isinstance(substrate, Substrate) and substrate.differentiable

    def suited(self, kind: Kind) -> "Backpropagation":
        """With the objective of the kind, where none was chosen."""
        chosen = classification if kind == "classification" else regression
        return self if self.objective is not None else replace(self, objective=chosen)

    def for_roles(self, *trained: Role) -> "Backpropagation":
        """With gradients of leaves with these roles."""
        return replace(self, roles=trained)

    def check_data(self, substrate: Substrate, inputs: Array, targets: Array) -> None:
        """Refuse other channels than the substrate takes, and targets that cannot be compared with its outputs."""
        alone = replace(self, shards=1)

        def first(substrate: Substrate, inputs: Array, targets: Array) -> Array:
            inputs = presented(substrate, inputs)
            return alone.answers(substrate, inputs[:1], targets[:1], key=jax.random.key(0))

        outputs = eqx.filter_eval_shape(first, substrate, inputs, targets)
        objective = self.objective or classification
        if isinstance(objective, Classification | Regression):
            check_outputs(self, outputs, targets)
            objective.check(targets)
        outputs = jax.ShapeDtypeStruct((len(targets), *outputs.shape[1:]), outputs.dtype)
        metrics = eqx.filter_eval_shape(objective, outputs, targets)
        if "loss" not in metrics or metrics["loss"].shape != ():
            raise ValueError(f'objective gives {", ".join(sorted(metrics))}; it must give a "loss", one number')

    def outputs(
        self, substrate: Substrate, inputs: Float[Array, "examples time ..."], *, key: PRNGKeyArray | None = None
    ) -> Float[Array, "examples ..."]:
        """What the substrate answers to every example: after the last input, unless `observe` is "every"."""
        return self._observed(substrate, inputs, self.observe or "last", _keys(key, inputs))

    def judged(self, outputs: Float[Array, "examples ..."], targets: Float[Array, "examples ..."]) -> Metrics:
        """What the objective says of answers."""
        return (self.objective or classification)(outputs, targets)

    def answers(
        self, substrate: Substrate, inputs: Array, targets: Array, *, key: PRNGKeyArray | None = None
    ) -> Float[Array, "examples ..."]:
        """The outputs that are compared with targets."""
        return self._compared(substrate, inputs, targets, _keys(key, inputs))

    def _compared(self, substrate: Substrate, inputs: Array, targets: Array, keys: PRNGKeyArray | None) -> Array:
        if self.observe is not None or targets.ndim != 3:
            return self._observed(substrate, inputs, self.observe or "last", keys)
        return self._observed(substrate, inputs, "every", keys)[:, -targets.shape[1] :]

    def _observed(
        self, substrate: Substrate, inputs: Array, observe: Literal["every", "last"], keys: PRNGKeyArray | None
    ) -> Array:
        inputs = presented(substrate, inputs)
        arrays, rest = eqx.partition(substrate, eqx.is_array)

        def answers(arrays: PyTree, inputs: Array, keys: PRNGKeyArray | None) -> Array:
            def one(drives: Array, key: PRNGKeyArray | None) -> Array:
                substrate = eqx.combine(arrays, rest)
                return evolve(substrate, drives, key=key, observe=observe, segment=self.segment)[0]

            return jax.vmap(one)(inputs, keys)

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
        return self.judged(self.answers(substrate, inputs, targets, key=key), targets)

    def gradient(
        self,
        substrate: Substrate,
        inputs: Float[Array, "examples time ..."],
        targets: Float[Array, "examples ..."],
        *,
        key: PRNGKeyArray | None = None,
    ) -> tuple[Metrics, Any]:
        """Metrics, and the gradient of their loss with respect to the leaves with `roles`; None elsewhere."""
        learned, fixed = select(substrate, *self.roles)

        def loss(learned: PyTree, inputs: Array, targets: Array, keys: PRNGKeyArray | None) -> tuple[Array, Array]:
            outputs = self._compared(eqx.combine(learned, fixed), inputs, targets, keys)
            return self.judged(outputs, targets)["loss"], outputs

        def add(total: PyTree, part: tuple[Array, Array, PRNGKeyArray | None]) -> tuple[PyTree, Array]:
            gradient, outputs = jax.grad(loss, has_aux=True)(learned, *part)
            return jax.tree.map(jnp.add, total, gradient), outputs

        whole = (inputs, targets, _keys(key, inputs))
        parts = self._parts(substrate, inputs)
        if parts == 1:
            gradient, outputs = jax.grad(loss, has_aux=True)(learned, *whole)
        else:
            split = jax.tree.map(lambda x: x.reshape(parts, -1, *x.shape[1:]), whole)
            total, outputs = jax.lax.scan(add, jax.tree.map(jnp.zeros_like, learned), split)
            gradient = jax.tree.map(lambda x: x / parts, total)
            outputs = outputs.reshape(-1, *outputs.shape[2:])
        return self.judged(outputs, targets) | self.cost(len(inputs)).reported(), gradient

    def _parts(self, substrate: Substrate, inputs: Array) -> int:
        """In how many parts a batch is learned from."""
        examples, objective = len(inputs), self.objective or classification
        adds = getattr(objective, "mean_over_examples", False)
        if self.microbatch is not None:
            if not adds:
                raise ValueError(
                    f"microbatch is {self.microbatch}, but the loss of {objective!r} is not known to be a mean over "
                    "examples (it has no mean_over_examples = True)"
                )
            if examples % self.microbatch or self.microbatch % self.shards:
                raise ValueError(
                    f"microbatch is {self.microbatch}; it must divide {examples} examples into parts that "
                    f"{self.shards} shards divide"
                )
            return examples // self.microbatch
        if not adds or jax.default_backend() != "cpu":
            return 1
        least = round(examples * self._kept(substrate, inputs) / (KEPT * self.shards))
        least = max(1, min(least, examples // (LEAST * self.shards)))
        fitting = (parts for parts in range(least, 2 * least) if examples % (parts * self.shards) == 0)
        return next(fitting, 1)

    def _kept(self, substrate: Substrate, inputs: Array) -> int:
        """Bytes that one example keeps for the backward pass, about: its states."""
        state = eqx.filter_eval_shape(lambda s: s.initial_state(key=jax.random.key(0)), substrate)
        size = sum(
            leaf.size * leaf.dtype.itemsize
            for leaf in jax.tree.leaves(state)
            if jnp.issubdtype(leaf.dtype, jnp.inexact)
        )
        points = np.shape(presented(substrate, inputs))[1]
        return size * (points if self.segment is None else self.segment + points // self.segment)


def _keys(key: PRNGKeyArray | None, inputs: Array) -> PRNGKeyArray | None:
    """One for each example."""
    return None if key is None else jax.random.split(key, len(inputs))
