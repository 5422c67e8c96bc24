"""Learning at equilibrium: equilibrium propagation for any energy substrate, and the exact gradients beside it."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree

from morphax._checks import check_choice, check_count, is_concrete
from morphax.dynamics.relaxation import BlockSweeps, Landscape, Relaxation, Relaxer, RungeKutta
from morphax.learning.metrics import accuracy
from morphax.learning.rule import Asked, LearningRule, Metrics, check_outputs
from morphax.learning.stages import IN_STEP, in_stages
from morphax.substrates.base import State, check_channels
from morphax.substrates.energy import (
    Cost,
    EnergySubstrate,
    Nudge,
    phase_distance,
    phase_overlap,
    phase_squared_error,
)
from morphax.tasks.base import Kind

Measure = Callable[[Array, Array], Metrics]
Nudging = Literal["one-sided", "opposite", "symmetric", "four-point"]
NUDGINGS: dict[Nudging, tuple[tuple[float, float], ...]] = {
    "one-sided": ((1, 1), (0, -1)),
    "opposite": ((0, 1), (-1, -1)),
    "symmetric": ((1, 1 / 2), (-1, -1 / 2)),
    "four-point": ((1 / 2, 4 / 3), (-1 / 2, -4 / 3), (1, -1 / 6), (-1, 1 / 6)),
}
"""Nudges in units of the strength, and the share of each equilibrium in strength times gradient."""
PHASE_COSTS = (phase_distance, phase_overlap, phase_squared_error)


def phase_classification(
    outputs: Float[Array, "examples classes"], targets: Float[Array, "examples classes"]
) -> Metrics:
    r"""The "accuracy" of the most probable class, $p_i \propto 1 + \sin \phi_i$ (Wang et al., Sec. III B)."""
    right = jnp.argmax(jnp.sin(outputs), axis=-1) == jnp.argmax(jnp.sin(targets), axis=-1)
    return {"accuracy": jnp.mean(right.astype(outputs.dtype))}


class Term(NamedTuple):
    """What an equilibrium of every example adds to a contrast: its energy, nudge included, times a share."""

    share: ArrayLike  # one, or one an example
    strength: ArrayLike
    states: State


class EquilibriumRule(LearningRule):
    """What rules at equilibrium share: examples relax from random states, and a cost compares outputs with targets.

    **Arguments:**

    - `objective`: the cost of outputs and targets, elementwise: `phase_overlap`, `phase_distance`, `squared_error`,
      yours; what it gives is summed. None: what suits the substrate (`default_cost`).
    - `relaxer`: how an equilibrium is reached; None is the substrate's own way.
    - `initial_states`: random initial states of every example, over which gradient and metrics are averaged (M_init).
    - `measure`: further metrics of (outputs, targets): "accuracy", of the most probable class, which is that of the
      largest output, of its sine where the cost compares phases; or your own function. None: none, unless the kind of
      the task asks for one.

    Metrics: "loss", the mean cost at the free equilibrium; "unconverged", the share of relaxations that did not
    converge; "residual", the largest force left in those that did; "steps", their mean number; and those of `measure`.

    Inputs have shape (examples, channels) or (examples, 1, channels): each is one vector that is clamped.

    Of a large batch the slowest quarter goes on by itself when the others are at rest, and its slowest likewise
    (`BlockSweeps`, `AcceleratedDescent`). Relaxations that did not converge, and those whose nudged one did not, are
    left out of the gradient, and the metrics say how many. When none converged the gradient is 0.
    """

    objective: Cost | None = eqx.field(static=True, default=None)
    relaxer: Relaxer | None = None
    initial_states: int = eqx.field(static=True, default=1)
    measure: Measure | Literal["accuracy"] | None = eqx.field(static=True, default=None)

    def __check_init__(self) -> None:
        check_count("initial_states", self.initial_states, 1)

    def needs(self) -> str:
        """An energy substrate."""
        return "an energy substrate, which relaxes in an energy (EnergySubstrate: energy, relax)"

    def fits(self, substrate: Any) -> bool:
        """Energy substrates, also with something around them."""
        return isinstance(substrate, EnergySubstrate)

    def suited(self, kind: Kind) -> "EquilibriumRule":
        """With the accuracy measured of a classification, where no measure was chosen."""
        return self if self.measure is not None or kind == "regression" else replace(self, measure="accuracy")

    def check_data(self, substrate: EnergySubstrate, inputs: Array, targets: Array) -> None:
        """Refuse other channels than the substrate takes, and targets that its outputs cannot reach."""
        _, vectors = _vectors(substrate, inputs, targets)
        outputs = eqx.filter_eval_shape(lambda s: s.observe(s.initial_state(key=jax.random.key(0))), substrate)
        check_outputs(self, jax.ShapeDtypeStruct((1, *outputs.shape), outputs.dtype), vectors)
        substrate.check_targets(targets)

    def metrics(
        self,
        substrate: EnergySubstrate,
        inputs: Float[Array, "examples ..."],
        targets: Float[Array, "examples outputs"],
        *,
        key: PRNGKeyArray,
    ) -> Metrics:
        """What free relaxation gives."""
        inputs, targets, starts, noise = self._repeated(substrate, inputs, targets, key)
        return self._judged(substrate, self._relaxed(substrate, inputs, starts, noise), targets)

    def compared(self, substrate: EnergySubstrate) -> Cost:
        """The cost: the one that was chosen, or what suits the substrate."""
        return self.objective or substrate.default_cost

    def _repeated(
        self, substrate: EnergySubstrate, inputs: Array, targets: Array, key: PRNGKeyArray
    ) -> tuple[Array, Array, State, PRNGKeyArray]:
        """Every example `initial_states` times, with random initial states and keys."""
        inputs, targets = _vectors(substrate, inputs, targets)
        if self.initial_states > 1:
            inputs, targets = (jnp.repeat(x, self.initial_states, axis=0) for x in (inputs, targets))
        first, second = jax.random.split(key)
        number = inputs.shape[0]
        starts = jax.vmap(lambda k: substrate.initial_state(key=k))(jax.random.split(first, number))
        return inputs, targets, starts, jax.random.split(second, number)

    def _relaxed(
        self,
        substrate: EnergySubstrate,
        inputs: Array,
        starts: State,
        keys: PRNGKeyArray,
        targets: PyTree = None,
        strength: ArrayLike = 0.0,
        seen: Callable[[Array, Any], Landscape] | None = None,
    ) -> Relaxation:
        """All examples at once: free, nudged towards `targets`, or in what `seen` makes of a drive and a target."""
        relaxer, cost = self.relaxer or substrate.default_relaxer, self.compared(substrate)

        def nudged(drive: Array, target: Array | None) -> Landscape:
            return substrate.landscape(drive, None if target is None else Nudge(cost, strength, target))

        landscape = seen or nudged

        def relax(relaxer: Relaxer, examples: Any, **options: Any) -> Relaxation:
            def one(drive: Array, start: State, key: PRNGKeyArray, target: Any, memory: Any = None) -> Relaxation:
                more = options if memory is None else options | {"memory": memory}
                return relaxer(landscape(drive, target), start, key=key, **more)

            return jax.vmap(one, axis_name="examples")(*examples)

        examples = (inputs, starts, keys, targets)
        if isinstance(relaxer, IN_STEP):
            swept = landscape(*jax.tree.map(lambda x: x[0], (inputs, targets))).sweeps is not None
            ended = in_stages(relax, relaxer, examples, swept)
        else:
            ended = relax(relaxer, examples)
        return ended._replace(state=jax.vmap(lambda s, k: substrate.found(s, key=k))(ended.state, keys))

    def _free_and_nudged(
        self,
        substrate: EnergySubstrate,
        inputs: Array,
        starts: State,
        keys: PRNGKeyArray,
        targets: Array,
        strengths: Sequence[ArrayLike],
    ) -> list[Relaxation]:
        """Free, and from there nudged by each strength.

        One program goes round for each, for a relaxation takes long to compile. A nudge of strength 0 stands for none,
        except where the way down would be another with it: sweeps move outputs that are nudged otherwise.
        """
        # A laboratory relaxes and reads anew: noise is another one each time.
        again = [jax.vmap(lambda k, i=i: jax.random.fold_in(k, i))(keys) for i in range(1, len(strengths) + 1)]

        def relaxed(start: State, turn: tuple[Array, PRNGKeyArray]) -> Relaxation:
            strength, keys = turn
            return self._relaxed(substrate, inputs, start, keys, targets, strength)

        def ways(nudge: Nudge | None) -> tuple[bool, bool]:
            landscape = substrate.landscape(inputs[0], nudge)
            return landscape.sweeps is None, landscape.slope is None

        relaxer, none = self.relaxer or substrate.default_relaxer, Nudge(self.compared(substrate), 0.0, targets[0])
        if isinstance(relaxer, BlockSweeps) or ways(None) != ways(none):
            free = self._relaxed(substrate, inputs, starts, keys)
            turns = jnp.stack([jnp.asarray(strength) for strength in strengths]), jnp.stack(again)
            nudged = jax.lax.map(partial(relaxed, free.state), turns)
            return [free, *(jax.tree.map(lambda x, i=i: x[i], nudged) for i in range(len(strengths)))]

        def turn(carry: tuple[State, Array], turn: tuple[Array, PRNGKeyArray]) -> Any:
            start, begun = carry
            ended = relaxed(start, turn)
            onwards = jax.tree.map(lambda old, new: jnp.where(begun, old, new), start, ended.state)
            return (onwards, jnp.array(True)), ended

        turns = jnp.stack([jnp.zeros(()), *map(jnp.asarray, strengths)]), jnp.stack([keys, *again])
        _, ended = jax.lax.scan(turn, (starts, jnp.array(False)), turns)
        return [jax.tree.map(lambda x, i=i: x[i], ended) for i in range(1 + len(strengths))]

    def _contrasted(
        self, substrate: EnergySubstrate, inputs: Array, targets: Array, terms: Sequence[Term], counts: Array
    ) -> Any:
        """Derivative of a sum of energies, the mean over the examples that count."""
        weights, cost = mean_weights(counts), self.compared(substrate)

        def contrast(substrate: EnergySubstrate) -> Array:
            # What is read may depend on weights, too (a readout): then the nudge's own energy counts.
            def total(state: State, drive: Array, target: Array, strength: ArrayLike) -> Array:
                return substrate.energy(state, drive) + Nudge(cost, strength, target).energy(substrate.observe(state))

            sums = []
            for share, strength, states in terms:
                strengths = jnp.broadcast_to(jnp.asarray(strength), counts.shape)
                energies = jax.vmap(total)(kept(counts, states), inputs, targets, strengths)
                sums.append(jnp.sum(jnp.real(share * weights * energies)))
            return sum(sums[1:], start=sums[0])

        return eqx.filter_grad(contrast)(substrate)

    def _counted(self, substrate: EnergySubstrate, free: Relaxation, targets: Array, counts: Array) -> Metrics:
        """Metrics of the free equilibria, and how many examples are left out of the gradient."""
        metrics = self._judged(substrate, free, targets)
        return metrics | {"unconverged": jnp.mean((~counts).astype(metrics["loss"].dtype))}

    def _judged(self, substrate: EnergySubstrate, free: Relaxation, targets: Array) -> Metrics:
        outputs, cost = jax.vmap(substrate.observe)(free.state), self.compared(substrate)
        if self.measure == "accuracy":
            measured = phase_classification if cost in PHASE_COSTS else _most_probable
        else:
            measured = self.measure
        return {
            "loss": jnp.mean(jax.vmap(lambda o, t: jnp.sum(cost(o, t)))(outputs, targets)),
            "unconverged": jnp.mean((~free.converged).astype(outputs.dtype)),
            "residual": jnp.max(jnp.where(free.converged, free.residual, 0.0)),
            "steps": jnp.mean(free.steps.astype(outputs.dtype)),
            **({} if measured is None else measured(outputs, targets)),
        }


class EquilibriumPropagation(EquilibriumRule):
    r"""Learning rule: the gradient that the physics gives, from a free and a weakly nudged equilibrium.

    $$\frac{\partial C}{\partial \theta} \approx \frac{1}{\beta} \left( \frac{\partial F}{\partial \theta}(s^\beta) -
      \frac{\partial E}{\partial \theta}(s^0) \right), \qquad F = E + \beta C$$

    Each unit needs only what it and its neighbours do. The nudged relaxation starts at the free equilibrium. The error
    is of first order in $\beta$ for one-sided and opposite nudging and of second order for symmetric,
    $(E'(s^\beta) - E'(s^{-\beta})) / 2 \beta$.

    **Arguments:** (besides those of `EquilibriumRule`)

    - `strength`: $\beta > 0$. What remains of the force in the free equilibrium enters divided by it.
    - `nudging`: "one-sided" towards the target, "opposite" away from it, "symmetric" both, or "four-point": both, by
      $\beta$ and by half of it.

    **Raises:** `ValueError` for a strength that is not positive and finite.

    Source: Scellier & Bengio, Front. Comput. Neurosci. 11, 24 (2017); Laborieux et al., Front. Neurosci. 15, 633674
    (2021), for symmetric nudging; Wang, Wanjura & Marquardt (2024), Eqs. 5-9.

        >>> import equinox as eqx, jax, jax.numpy as jnp
        >>> from morphax import PhaseOscillators
        >>> from morphax.learning.equilibrium import EquilibriumPropagation
        >>> network = PhaseOscillators.all_to_all(2, 2, 1, coupling_deviation=1.0, key=jax.random.key(0))
        >>> inputs, targets = jnp.array([[1.0, -1.0], [0.5, 0.5]]), jnp.array([[1.5], [-1.5]])
        >>> gradient_of = eqx.filter_jit(EquilibriumPropagation().gradient)
        >>> metrics, gradient = gradient_of(network, inputs, targets, key=jax.random.key(1))
        >>> gradient.couplings.shape, float(metrics["unconverged"])
        ((9,), 0.0)
    """

    strength: float | Float[Array, ""] = 0.1
    nudging: Nudging = eqx.field(static=True, default="one-sided")

    def __check_init__(self) -> None:
        check_choice("nudging", self.nudging, tuple(NUDGINGS))
        if is_concrete(self.strength) and not np.all((np.asarray(self.strength) > 0) & np.isfinite(self.strength)):
            raise ValueError(
                f"strength is {self.strength}; beta must be > 0 and finite; without a nudge nothing differs. "
                'For nudging away from the target use nudging="opposite"'
            )

    def gradient(
        self,
        substrate: EnergySubstrate,
        inputs: Float[Array, "examples ..."],
        targets: Float[Array, "examples outputs"],
        *,
        key: PRNGKeyArray,
    ) -> tuple[Metrics, Any]:
        """Metrics of the free equilibria, and the contrast of free and nudged ones."""
        examples = len(inputs)
        inputs, targets, starts, noise = self._repeated(substrate, inputs, targets, key)
        terms = NUDGINGS[self.nudging]
        nudges = [multiple * self.strength for multiple, _ in terms if multiple]
        free, *nudged = self._free_and_nudged(substrate, inputs, starts, noise, targets, nudges)
        counts = jnp.all(jnp.stack([one.converged for one in (free, *nudged)]), axis=0)
        found = iter(nudged)
        contrast = [
            Term(share / self.strength, multiple * self.strength, (next(found) if multiple else free).state)
            for multiple, share in terms
        ]
        gradient = self._contrasted(substrate, inputs, targets, contrast, counts)
        return self._counted(substrate, free, targets, counts) | self.cost(examples).reported(), gradient

    def cost(self, examples: int) -> Asked:
        """Every example comes to rest free, and once more for every nudge."""
        relaxations = 1 + sum(multiple != 0 for multiple, _ in NUDGINGS[self.nudging])
        return Asked(examples * self.initial_states * relaxations, 1)

    def cost_of_metrics(self, examples: int) -> Asked:
        """Every example comes to rest free."""
        return Asked(examples * self.initial_states, 1)


class ImplicitDifferentiation(EquilibriumRule):
    r"""Learning rule: the exact gradient at the free equilibrium, by the implicit function theorem.

    $$\frac{dC}{d\theta} = -\lambda^T \frac{\partial F}{\partial \theta}, \qquad
      \left( \frac{\partial F}{\partial s} \right)^T \lambda = \frac{\partial C}{\partial s}$$

    at $F(s, \theta) = 0$: one linear system of the size of the state for every example. What equilibrium propagation
    approaches for $\beta \to 0$.

    Source: Almeida, ICNN (1987); Pineda, Phys. Rev. Lett. 59, 2229 (1987).

        >>> import equinox as eqx, jax, jax.numpy as jnp
        >>> from morphax import ImplicitDifferentiation, PhaseOscillators
        >>> network = PhaseOscillators.layered((2, 3, 1), key=jax.random.key(0))
        >>> data = jnp.array([[0.5, -0.5], [1.0, 0.2]]), jnp.array([[0.3], [-0.3]])
        >>> rule = ImplicitDifferentiation()
        >>> metrics, gradient = eqx.filter_jit(rule.gradient)(network, *data, key=jax.random.key(1))
        >>> bool(metrics["loss"] > 0), int(metrics["presentations"])
        (True, 0)
    """

    @property
    def exact(self) -> bool:
        """Yes."""
        return True

    def gradient(
        self,
        substrate: EnergySubstrate,
        inputs: Float[Array, "examples ..."],
        targets: Float[Array, "examples outputs"],
        *,
        key: PRNGKeyArray,
    ) -> tuple[Metrics, Any]:
        """Metrics and exact gradient; equilibria that did not converge are left out."""
        inputs, targets, starts, noise = self._repeated(substrate, inputs, targets, key)
        free = self._relaxed(substrate, inputs, starts, noise)
        weights, cost = mean_weights(free.converged), self.compared(substrate)

        def adjoint(state: State, drive: Array, target: Array) -> State:
            flat, unflatten = ravel_pytree(state)

            def force(flat: Array) -> Array:
                return ravel_pytree(substrate.landscape(drive).force(unflatten(flat)))[0]

            def pull(flat: Array) -> Array:
                return jnp.sum(cost(substrate.observe(unflatten(flat)), target))

            return unflatten(jnp.linalg.solve(jax.jacobian(force)(flat).T, jax.grad(pull)(flat)))

        multipliers = kept(free.converged, jax.vmap(adjoint)(free.state, inputs, targets))
        states = kept(free.converged, free.state)

        def lagrangian(substrate: EnergySubstrate) -> Array:
            def one(state: State, multiplier: State, drive: Array, target: Array) -> Array:
                forces = substrate.landscape(drive).force(state)
                products = jax.tree.map(lambda a, b: jnp.sum(a * b), multiplier, forces)
                return jnp.sum(cost(substrate.observe(state), target)) - jax.tree.reduce(jnp.add, products)

            return jnp.sum(weights * jax.vmap(one)(states, multipliers, inputs, targets))

        metrics = self._judged(substrate, free, targets) | self.cost(len(inputs)).reported()
        return metrics, eqx.filter_grad(lagrangian)(substrate)


class RelaxationBackpropagation(EquilibriumRule):
    r"""Learning rule: back-propagation through the relaxation, exact for the state that it ends in.

    $$g = \frac{d}{d\theta} C(s_T), \qquad s_{t+1} = \Phi_\theta(s_t)$$

    with the steps $\Phi$ of the relaxer, which must be differentiable: `RungeKutta`, which is the default here. Memory
    grows with the number of steps. Where a relaxation ends its cost is taken, at rest or not: none is left out.

    Source: Ernoult et al., NeurIPS 32 (2019), which compares it with equilibrium propagation.

        >>> import equinox as eqx, jax, jax.numpy as jnp
        >>> from morphax import PhaseOscillators, RelaxationBackpropagation
        >>> network = PhaseOscillators.layered((2, 3, 1), key=jax.random.key(0))
        >>> data = jnp.array([[0.5, -0.5], [1.0, 0.2]]), jnp.array([[0.3], [-0.3]])
        >>> rule = RelaxationBackpropagation()
        >>> metrics, gradient = eqx.filter_jit(rule.gradient)(network, *data, key=jax.random.key(1))
        >>> int(metrics["presentations"])  # the model is asked, no device
        0
    """

    relaxer: Relaxer | None = RungeKutta()

    @property
    def exact(self) -> bool:
        """Yes."""
        return True

    def check_data(self, substrate: EnergySubstrate, inputs: Array, targets: Array) -> None:
        """Besides, refuse a relaxer that cannot be differentiated."""
        self._check_relaxer()
        super().check_data(substrate, inputs, targets)

    def _check_relaxer(self) -> None:
        if not isinstance(self.relaxer, RungeKutta):
            raise ValueError(
                f"relaxer is {type(self.relaxer).__name__}; only RungeKutta can be differentiated in reverse"
            )

    def gradient(
        self,
        substrate: EnergySubstrate,
        inputs: Float[Array, "examples ..."],
        targets: Float[Array, "examples outputs"],
        *,
        key: PRNGKeyArray,
    ) -> tuple[Metrics, Any]:
        """Metrics, and the derivative of the final cost with respect to everything, through every step."""
        self._check_relaxer()
        inputs, targets, starts, noise = self._repeated(substrate, inputs, targets, key)

        def loss(substrate: EnergySubstrate) -> tuple[Array, Metrics]:
            free = self._relaxed(substrate, inputs, starts, noise)
            metrics = self._judged(substrate, free, targets)
            return metrics["loss"], metrics

        gradient, metrics = eqx.filter_grad(loss, has_aux=True)(substrate)
        return metrics | self.cost(len(inputs)).reported(), gradient


def _vectors(substrate: EnergySubstrate, inputs: Array, targets: Array) -> tuple[Array, Array]:
    """Inputs (examples, channels) and targets (examples, outputs), from one input an example."""
    if inputs.ndim == 3:
        if inputs.shape[1] != 1:
            raise ValueError(
                f"inputs has shape {inputs.shape}, {inputs.shape[1]} inputs an example; an equilibrium answers one "
                "vector: use morphax.tasks.as_vectors for sequences, windows before it for a stream, or Backpropagation"
            )
        inputs = inputs[:, 0]
        targets = targets[:, 0] if targets.ndim == 3 else targets
    inputs = inputs[:, None] if inputs.ndim == 1 else inputs
    check_channels(substrate, inputs.shape[1:])
    return inputs, targets


def _most_probable(outputs: Float[Array, "examples classes"], targets: Float[Array, "examples classes"]) -> Metrics:
    return {"accuracy": accuracy(outputs, targets)}


def mean_weights(counts: Bool[Array, " examples"]) -> Float[Array, " examples"]:
    """Weights of a mean over the examples that count."""
    return counts / jnp.maximum(jnp.sum(counts), 1)


def kept(counts: Bool[Array, " examples"], tree: Any) -> Any:
    """0 in place of examples that are left out: their weight is 0, but 0 times NaN is not."""
    return jax.tree.map(lambda x: jnp.where(counts.reshape(-1, *[1] * (x.ndim - 1)), x, 0), tree)
