"""Learning at equilibrium: equilibrium propagation for any energy substrate, and the exact gradients beside it."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from morphax._checks import check_choice, check_count, is_concrete
from morphax.dynamics.relaxation import (
    AcceleratedDescent,
    BlockSweeps,
    Relaxation,
    Relaxer,
    RungeKutta,
    merged,
)
from morphax.learning.metrics import accuracy
from morphax.learning.rule import LearningRule, Metrics, check_outputs
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
Nudging = Literal["one-sided", "opposite", "symmetric"]
NUDGINGS: dict[Nudging, tuple[int, int]] = {"one-sided": (1, 0), "opposite": (0, -1), "symmetric": (1, -1)}
"""Both equilibria that are compared, by their nudge in units of the strength; 0 is the free one."""
PHASE_COSTS = (phase_distance, phase_overlap, phase_squared_error)
FEWEST = 8  # examples that go on by themselves
IN_STEP = (BlockSweeps, AcceleratedDescent)
"""Relaxers whose examples of one batch wait for each other."""


def phase_classification(
    outputs: Float[Array, "examples classes"], targets: Float[Array, "examples classes"]
) -> Metrics:
    r"""The "accuracy" of the most probable class, $p_i \propto 1 + \sin \phi_i$ (Wang et al., Sec. III B)."""
    right = jnp.argmax(jnp.sin(outputs), axis=-1) == jnp.argmax(jnp.sin(targets), axis=-1)
    return {"accuracy": jnp.mean(right.astype(outputs.dtype))}


class EquilibriumRule(LearningRule):
    """What rules at equilibrium share: examples relax from random states, and a cost compares outputs with targets.

    **Arguments:**

    - `cost`: of outputs and targets, elementwise: `phase_overlap`, `phase_distance`, `squared_error`, yours; what it
      gives is summed. None: what suits the substrate (`default_cost`).
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

    cost: Cost | None = eqx.field(static=True, default=None)
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
        return self.cost or substrate.default_cost

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
        targets: Array | None = None,
        strength: ArrayLike = 0.0,
    ) -> Relaxation:
        """All examples at once, free or nudged."""
        relaxer, cost = self.relaxer or substrate.default_relaxer, self.compared(substrate)

        def relax(relaxer: Relaxer, examples: Any, **options: Any) -> Relaxation:
            def one(
                drive: Array, start: State, key: PRNGKeyArray, target: Array | None, memory: Any = None
            ) -> Relaxation:
                nudge = None if target is None else Nudge(cost, strength, target)
                more = options if memory is None else options | {"memory": memory}
                return relaxer(substrate.landscape(drive, nudge), start, key=key, **more)

            return jax.vmap(one, axis_name="examples")(*examples)

        examples = (inputs, starts, keys, targets)
        if isinstance(relaxer, IN_STEP):
            nudge = None if targets is None else Nudge(cost, strength, targets[0])
            swept = substrate.landscape(inputs[0], nudge).sweeps is not None
            ended = _in_stages(relax, relaxer, examples, swept)
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
    - `nudging`: "one-sided" towards the target, "opposite" away from it, or "symmetric" both.

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
        inputs, targets, starts, noise = self._repeated(substrate, inputs, targets, key)
        nudges = NUDGINGS[self.nudging]
        up, down = (nudge * self.strength for nudge in nudges)
        pulled = [nudge * self.strength for nudge in nudges if nudge]
        free, *nudged = self._free_and_nudged(substrate, inputs, starts, noise, targets, pulled)
        found = iter(nudged)
        first, second = (next(found) if nudge else free for nudge in nudges)
        counts = free.converged & first.converged & second.converged
        weights, cost = _mean_weights(counts) / (up - down), self.compared(substrate)

        def contrast(substrate: EnergySubstrate) -> Array:
            # What is read may depend on weights, too (a readout): then the nudge's own energy counts.
            def total(state: State, drive: Array, target: Array, strength: ArrayLike) -> Array:
                return substrate.energy(state, drive) + Nudge(cost, strength, target).energy(substrate.observe(state))

            energies = jax.vmap(lambda a, b, u, t: total(a, u, t, up) - total(b, u, t, down))
            states = (_kept(counts, first.state), _kept(counts, second.state))
            return jnp.sum(weights * energies(*states, inputs, targets))

        metrics = self._judged(substrate, free, targets)
        metrics["unconverged"] = jnp.mean((~counts).astype(weights.dtype))
        return metrics, eqx.filter_grad(contrast)(substrate)


class ImplicitDifferentiation(EquilibriumRule):
    r"""Learning rule: the exact gradient at the free equilibrium, by the implicit function theorem.

    $$\frac{dC}{d\theta} = -\lambda^T \frac{\partial F}{\partial \theta}, \qquad
      \left( \frac{\partial F}{\partial s} \right)^T \lambda = \frac{\partial C}{\partial s}$$

    at $F(s, \theta) = 0$: one linear system of the size of the state for every example. What equilibrium propagation
    approaches for $\beta \to 0$.
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
        weights, cost = _mean_weights(free.converged), self.compared(substrate)

        def adjoint(state: State, drive: Array, target: Array) -> State:
            flat, unflatten = ravel_pytree(state)

            def force(flat: Array) -> Array:
                return ravel_pytree(substrate.landscape(drive).force(unflatten(flat)))[0]

            def pull(flat: Array) -> Array:
                return jnp.sum(cost(substrate.observe(unflatten(flat)), target))

            return unflatten(jnp.linalg.solve(jax.jacobian(force)(flat).T, jax.grad(pull)(flat)))

        multipliers = _kept(free.converged, jax.vmap(adjoint)(free.state, inputs, targets))
        states = _kept(free.converged, free.state)

        def lagrangian(substrate: EnergySubstrate) -> Array:
            def one(state: State, multiplier: State, drive: Array, target: Array) -> Array:
                forces = substrate.landscape(drive).force(state)
                products = jax.tree.map(lambda a, b: jnp.sum(a * b), multiplier, forces)
                return jnp.sum(cost(substrate.observe(state), target)) - jax.tree.reduce(jnp.add, products)

            return jnp.sum(weights * jax.vmap(one)(states, multipliers, inputs, targets))

        return self._judged(substrate, free, targets), eqx.filter_grad(lagrangian)(substrate)


class RelaxationBackpropagation(EquilibriumRule):
    """Learning rule: back-propagation through the relaxation, exact for the state that it ends in.

    The relaxer must be differentiable: `RungeKutta`, which is the default here. Memory grows with the number of steps.
    Where a relaxation ends is where its cost is taken, at rest or not: none is left out.
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
        return metrics, gradient


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


def _in_stages(
    relax: Callable[..., Relaxation],
    relaxer: BlockSweeps | AcceleratedDescent,
    examples: tuple[Any, ...],
    can_sweep: bool,
) -> Relaxation:
    """Examples of one batch wait for each other, and most need few steps: the slowest go on among themselves."""
    inputs, starts, keys, targets = examples
    if relaxer.prefix is not None:
        starts = relax(relaxer.prefix, examples).state
        relaxer = replace(relaxer, prefix=None)
    examples = (inputs, starts, keys, targets)
    if isinstance(relaxer, BlockSweeps):
        return _slowest_apart(relax, relaxer, examples)
    ended = _slowest_apart(relax, replace(relaxer, max_sweeps=0), examples)
    if not relaxer.max_sweeps or not can_sweep:
        return ended
    return _swept(partial(relax, relaxer.sweeps), examples, ended._replace(memory=None))


def _swept(sweep: Callable[..., Relaxation], examples: tuple[Any, ...], ended: Relaxation) -> Relaxation:
    """Sweep those that are not at rest from where they began, an eighth of the batch at a time: mostly none or few."""
    number = len(examples[0])
    size = max(min(FEWEST, number), number // 8)

    def sweep_some(carry: tuple[Array, Relaxation]) -> tuple[Array, Relaxation]:
        done, ended = carry
        _, chosen = jax.lax.top_k(1 - done.astype(float), size)
        filling, before, some = jax.tree.map(lambda x: x[chosen], (done, ended, examples))
        inputs, starts, keys, targets = some
        # Where fewer are left than are swept, others fill up: they stay where they are.
        either = jax.vmap(lambda filling, a, b: jax.tree.map(partial(jnp.where, filling), a, b))
        swept = sweep((inputs, either(filling, before.state, starts), keys, targets), batch="examples")
        after = either(filling, before, jax.vmap(merged)(before, swept))
        return done.at[chosen].set(True), jax.tree.map(lambda x, y: x.at[chosen].set(y), ended, after)

    return jax.lax.while_loop(lambda carry: ~jnp.all(carry[0]), sweep_some, (ended.converged, ended))[1]


def _slowest_apart(
    relax: Callable[..., Relaxation], relaxer: BlockSweeps | AcceleratedDescent, examples: tuple[Any, ...]
) -> Relaxation:
    slow = len(examples[0]) // 4
    if slow < FEWEST:
        return relax(relaxer, examples, batch="examples")
    ended = relax(relaxer, examples, batch="examples", leave=slow)
    _, worst = jax.lax.top_k(jnp.nan_to_num(ended.residual, nan=jnp.inf), slow)
    inputs, _, keys, targets, *_ = examples
    rest = jax.tree.map(lambda x: x[worst], (inputs, ended.state, keys, targets, ended.memory))
    more = _slowest_apart(relax, relaxer, rest)
    more = more._replace(steps=more.steps + ended.steps[worst])
    return jax.tree.map(lambda whole, part: whole.at[worst].set(part), ended._replace(memory=None), more)


def _mean_weights(counts: Bool[Array, " examples"]) -> Float[Array, " examples"]:
    """Weights of a mean over the examples that count."""
    return counts / jnp.maximum(jnp.sum(counts), 1)


def _kept(counts: Bool[Array, " examples"], tree: Any) -> Any:
    """0 in place of examples that are left out: their weight is 0, but 0 times NaN is not."""
    return jax.tree.map(lambda x: jnp.where(counts.reshape(-1, *[1] * (x.ndim - 1)), x, 0), tree)
