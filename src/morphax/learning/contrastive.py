r"""Rules that compare equilibria in other ways than by weak, steady, real nudges.

All of them ask a device for equilibria alone, and change every coupling by what it itself can feel.
"""

import math
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core
from jax.flatten_util import ravel_pytree
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from morphax._checks import check_choice, check_count, check_range, is_concrete
from morphax.dynamics.relaxation import Landscape
from morphax.dynamics.runge_kutta import runge_kutta_step
from morphax.learning.equilibrium import EquilibriumRule, Term, kept, mean_weights
from morphax.learning.rule import Asked, Metrics
from morphax.pytrees import Role, select
from morphax.substrates.base import State
from morphax.substrates.energy import EnergySubstrate, Nudge, slope

Sides = Literal["one-sided", "symmetric"]
SIDES: dict[Sides, tuple[int, ...]] = {"one-sided": (1,), "symmetric": (1, -1)}


class CoupledLearning(EquilibriumRule):
    r"""Learning rule: outputs are held a little nearer to their targets, and energies of free and held compared.

    $$g = \frac{1}{\eta} \left( \frac{\partial E}{\partial \theta}(s^C) - \frac{\partial E}{\partial \theta}(s^F)
      \right), \qquad o^C = o^F + \eta \, (t - o^F)$$

    with $s^C$ at rest while the outputs are clamped to $o^C$. For $\eta \to 0$ this is **not** the gradient of the
    squared error: it is that of a cost whose derivative is $K (o - t)$, with the stiffness $K$ of the outputs, the
    force that it takes to move them ($E(o) \approx E + \frac12 \delta o^T K \, \delta o$ when all else is at rest).
    Outputs that are stiff count more.

    **Arguments:** (besides those of `EquilibriumRule`)

    - `amount`: $\eta$ in ]0, 1]; 1 clamps the outputs to their targets.
    - `nudging`: "one-sided", or "symmetric": away from the targets, too, $(E'(\eta) - E'(-\eta)) / 2 \eta$, with an
      error of second order in $\eta$.

    The `objective` only says what the loss is.

    **Raises:** `ValueError` for an amount out of range, and by `check` for outputs that are no numbers of the state
    (behind a readout), which nobody can hold.

    Source: Stern, Hexner, Rocks & Liu, Phys. Rev. X 11, 021045 (2021), Eqs. 2-4.

        >>> import equinox as eqx, jax, jax.numpy as jnp
        >>> from morphax import PhaseOscillators
        >>> from morphax.learning.contrastive import CoupledLearning
        >>> network = PhaseOscillators.all_to_all(2, 2, 1, coupling_deviation=1.0, key=jax.random.key(0))
        >>> inputs, targets = jnp.array([[1.0, -1.0], [0.5, 0.5]]), jnp.array([[1.5], [-1.5]])
        >>> gradient_of = eqx.filter_jit(CoupledLearning().gradient)
        >>> metrics, gradient = gradient_of(network, inputs, targets, key=jax.random.key(1))
        >>> gradient.couplings.shape, float(metrics["unconverged"]), int(metrics["presentations"])
        ((9,), 0.0, 4)
    """

    amount: float | Float[Array, ""] = 0.1
    nudging: Sides = eqx.field(static=True, default="one-sided")

    def __check_init__(self) -> None:
        check_choice("nudging", self.nudging, tuple(SIDES))
        check_range("amount", self.amount, low=0.0, high=1.0, open_low=True)

    def check_data(self, substrate: EnergySubstrate, inputs: Array, targets: Array) -> None:
        """Besides, refuse outputs that cannot be held."""
        super().check_data(substrate, inputs, targets)
        places = jax.vmap(lambda p: ravel_pytree(p)[0])(substrate.clamp.places)
        if is_concrete(places) and not np.all(np.sort(places, axis=1) == np.eye(1, places.shape[1])[:, ::-1]):
            raise ValueError(
                f"{type(substrate).__name__} has outputs that are no numbers of its state, so that nothing can hold "
                "them; use EquilibriumPropagation, or a substrate whose own outputs are compared"
            )

    def gradient(
        self,
        substrate: EnergySubstrate,
        inputs: Float[Array, "examples ..."],
        targets: Float[Array, "examples outputs"],
        *,
        key: PRNGKeyArray,
    ) -> tuple[Metrics, Any]:
        """Metrics of the free equilibria, and the contrast of held ones."""
        examples, sides = len(inputs), SIDES[self.nudging]
        inputs, targets, starts, noise = self._repeated(substrate, inputs, targets, key)
        free = self._relaxed(substrate, inputs, starts, noise)
        outputs = jax.vmap(substrate.observe)(free.state)
        # On a circle the shorter way.
        towards = -jax.vmap(lambda o, t: slope(substrate.quadratic_cost, o, t))(outputs, targets)
        counts, terms = free.converged, []
        for turn, side in enumerate(sides):
            wanted = outputs + side * self.amount * towards
            start = jax.vmap(substrate.clamp.put)(free.state, wanted)
            keys = jax.vmap(lambda k, turn=turn: jax.random.fold_in(k, turn + 1))(noise)
            held = self._relaxed(substrate, inputs, start, keys, wanted, seen=substrate.held)
            counts = counts & held.converged
            terms.append(Term(side / (len(sides) * self.amount), 0.0, held.state))
        if len(sides) == 1:
            terms.append(Term(-1 / self.amount, 0.0, free.state))
        gradient = self._contrasted(substrate, inputs, targets, terms, counts)
        return self._counted(substrate, free, targets, counts) | self.cost(examples).reported(), gradient

    def cost(self, examples: int) -> Asked:
        """Every example comes to rest free, and held on each side."""
        return Asked(examples * self.initial_states * (1 + len(SIDES[self.nudging])), 1)

    def cost_of_metrics(self, examples: int) -> Asked:
        """Every example comes to rest free."""
        return Asked(examples * self.initial_states, 1)


class HolomorphicPropagation(EquilibriumRule):
    r"""Learning rule: holomorphic equilibrium propagation, with nudges on a circle in the complex plane.

    $$g = \frac{1}{N \beta} \, \mathrm{Re} \sum_{k=0}^{N-1} e^{-2 \pi i k / N}
      \frac{\partial F}{\partial \theta}(s^{\beta_k}), \qquad \beta_k = \beta \, e^{2 \pi i k / N}, \qquad
      F = E + \beta_k C$$

    The Cauchy integral gives the derivative at $\beta = 0$ however large the circle is, as long as the equilibrium is
    analytic inside; with N points the error is of order $\beta^N$. Complex equilibria are found by Newton's method from
    the free one, one linear system of the size of the state for every step, in a model: nothing is
    asked of a device, which would have to oscillate (`FrequencyPropagation`).

    **Arguments:** (besides those of `EquilibriumRule`)

    - `strength`: $\beta > 0$.
    - `points`: $N \ge 2$.
    - `steps`: of Newton's method, at least 1.
    - `tolerance`: largest force that counts as converged.

    **Raises:** `ValueError` for values out of range, and by `check` for an energy or a cost that is not analytic: one
    with kinks or absolute values.

    Source: Laborieux & Zenke, NeurIPS 35 (2022), Eqs. 7-9.

        >>> import equinox as eqx, jax, jax.numpy as jnp
        >>> from morphax import PhaseOscillators
        >>> from morphax.learning.contrastive import HolomorphicPropagation
        >>> from morphax.substrates.energy import phase_distance
        >>> network = PhaseOscillators.all_to_all(2, 2, 1, coupling_deviation=1.0, key=jax.random.key(0))
        >>> inputs, targets = jnp.array([[1.0, -1.0], [0.5, 0.5]]), jnp.array([[1.5], [-1.5]])
        >>> rule = HolomorphicPropagation(phase_distance)
        >>> metrics, gradient = eqx.filter_jit(rule.gradient)(network, inputs, targets, key=jax.random.key(1))
        >>> gradient.couplings.shape, float(metrics["unconverged"])
        ((9,), 0.0)
    """

    strength: float | Float[Array, ""] = 0.1
    points: int = eqx.field(static=True, default=6)
    steps: int = eqx.field(static=True, default=8)
    tolerance: float = eqx.field(static=True, default=1e-4)

    def __check_init__(self) -> None:
        check_range("strength", self.strength, low=0.0, open_low=True)
        check_count("points", self.points, 2)
        check_count("steps", self.steps, 1)
        check_range("tolerance", self.tolerance, low=0.0, open_low=True)

    def check_data(self, substrate: EnergySubstrate, inputs: Array, targets: Array) -> None:
        """Besides, refuse what is not analytic."""
        super().check_data(substrate, inputs, targets)
        drive, target = jax.tree.map(lambda x: jnp.reshape(x[:1], -1), (inputs, targets))
        kinks = self._kinks(substrate, drive, target)
        if kinks:
            raise ValueError(
                f"{type(substrate).__name__} with {self.compared(substrate).__name__} is not analytic ({kinks}), as a "
                'complex nudge needs it; use EquilibriumPropagation(nudging="four-point")'
            )

    def _kinks(self, substrate: EnergySubstrate, drive: Array, target: Array) -> str:
        """What in energy and cost is not analytic, in words."""
        flat, unflatten = ravel_pytree(substrate.initial_state())
        point = flat + 0.1j * jnp.cos(jnp.arange(flat.size))

        def total(flat: Array) -> Array:
            return self._total(substrate, unflatten(flat), drive, target, jnp.asarray(self.strength + 0.0j))

        try:
            found = sorted(set(_kinked(jax.make_jaxpr(total)(point).jaxpr)))
            along = [jax.jvp(total, (point,), (turn * jnp.ones_like(point),))[1] for turn in (1.0, 1.0j)]
        except (TypeError, ValueError) as error:
            return str(error).splitlines()[0]
        if found:
            return ", ".join(found)
        return "" if jnp.allclose(1j * along[0], along[1], rtol=1e-3) else "its derivative depends on the direction"

    def _total(self, substrate: EnergySubstrate, state: State, drive: Array, target: Array, strength: Array) -> Array:
        nudge = Nudge(self.compared(substrate), strength, target)
        return substrate.energy(state, drive) + nudge.energy(substrate.observe(state))

    def gradient(
        self,
        substrate: EnergySubstrate,
        inputs: Float[Array, "examples ..."],
        targets: Float[Array, "examples outputs"],
        *,
        key: PRNGKeyArray,
    ) -> tuple[Metrics, Any]:
        """Metrics of the free equilibria, and the sum over the circle."""
        examples = len(inputs)
        inputs, targets, starts, noise = self._repeated(substrate, inputs, targets, key)
        free = self._relaxed(substrate, inputs, starts, noise)
        counts, terms = free.converged, []
        # A nudge and its conjugate have conjugate equilibria: half of the circle gives the real part.
        for k in range(self.points // 2 + 1):
            turn = jnp.exp(2j * jnp.pi * k / self.points)
            states, left = jax.vmap(lambda s, u, t, turn=turn: self._newton(substrate, s, u, t, self.strength * turn))(
                free.state, inputs, targets
            )
            counts = counts & (left <= self.tolerance)
            twice = 2 if 0 < k < self.points - k else 1
            terms.append(Term(twice / (turn * self.points * self.strength), self.strength * turn, states))
        gradient = self._contrasted(substrate, inputs, targets, terms, counts)
        return self._counted(substrate, free, targets, counts) | self.cost(examples).reported(), gradient

    def _newton(
        self, substrate: EnergySubstrate, state: State, drive: Array, target: Array, strength: Array
    ) -> tuple[State, Array]:
        """The complex equilibrium, and the largest force that is left."""
        flat, unflatten = ravel_pytree(jax.tree.map(lambda x: x + 0j, state))

        def force(flat: Array) -> Array:
            return jax.grad(lambda z: self._total(substrate, unflatten(z), drive, target, strength), holomorphic=True)(
                flat
            )

        def step(flat: Array, _: None) -> tuple[Array, None]:
            return flat - jnp.linalg.solve(jax.jacfwd(force, holomorphic=True)(flat), force(flat)), None

        flat, _ = jax.lax.scan(step, flat, None, length=self.steps)
        return unflatten(flat), jnp.max(jnp.abs(force(flat)), initial=0.0)


class FrequencyPropagation(EquilibriumRule):
    r"""Learning rule: the nudge oscillates, and every coupling listens at its frequency.

    $$\dot s = -\frac{\partial E}{\partial s} - \beta \cos \omega t \, \frac{\partial C}{\partial s}, \qquad
      g = \frac{2}{\beta T} \int_0^T \cos \omega t \, \frac{\partial F}{\partial \theta}(s(t)) \, dt$$

    over one period $T = 2 \pi / \omega$, after others that let the response settle. One run gives both sides at once:
    the error is of second order in $\beta$, and of second order in $\omega$ over the slowest rate at which the system
    relaxes.

    **Arguments:** (besides those of `EquilibriumRule`)

    - `strength`: $\beta > 0$.
    - `period`: $T > 0$, in the units of time of the force.
    - `settling`: periods before the one that counts, at least 1.
    - `readings`: in a period, equally spaced, at least 3.
    - `time_step`: of the Runge-Kutta method of order 4, > 0; rounded down to a part of the time between two readings.

    Source: Anisetti, Kandala, Scellier & Schwarz, Neural Comput. 36, 596 (2024), for the principle: activities there
    are multiplied by the nudge's signal.

        >>> import equinox as eqx, jax, jax.numpy as jnp
        >>> from morphax import PhaseOscillators
        >>> from morphax.learning.contrastive import FrequencyPropagation
        >>> network = PhaseOscillators.all_to_all(2, 2, 1, coupling_deviation=1.0, key=jax.random.key(0))
        >>> inputs, targets = jnp.array([[1.0, -1.0], [0.5, 0.5]]), jnp.array([[1.5], [-1.5]])
        >>> gradient_of = eqx.filter_jit(FrequencyPropagation().gradient)
        >>> metrics, gradient = gradient_of(network, inputs, targets, key=jax.random.key(1))
        >>> gradient.couplings.shape, float(metrics["unconverged"]), int(metrics["presentations"])
        ((9,), 0.0, 4)
    """

    strength: float | Float[Array, ""] = 0.1
    period: float = eqx.field(static=True, default=100.0)
    settling: int = eqx.field(static=True, default=1)
    readings: int = eqx.field(static=True, default=16)
    time_step: float = eqx.field(static=True, default=0.2)

    def __check_init__(self) -> None:
        check_range("strength", self.strength, low=0.0, open_low=True)
        check_range("period", self.period, low=0.0, open_low=True)
        check_count("settling", self.settling, 1)
        check_count("readings", self.readings, 3)
        check_range("time_step", self.time_step, low=0.0, open_low=True)

    def gradient(
        self,
        substrate: EnergySubstrate,
        inputs: Float[Array, "examples ..."],
        targets: Float[Array, "examples outputs"],
        *,
        key: PRNGKeyArray,
    ) -> tuple[Metrics, Any]:
        """Metrics of the free equilibria, and what the couplings hear."""
        examples = len(inputs)
        inputs, targets, starts, noise = self._repeated(substrate, inputs, targets, key)
        free = self._relaxed(substrate, inputs, starts, noise)
        states = jax.vmap(lambda *one: self._heard(substrate, *one))(free.state, inputs, targets)
        finite = [jnp.all(jnp.isfinite(x), axis=range(1, x.ndim)) for x in jax.tree.leaves(states)]
        counts = free.converged & jnp.all(jnp.stack(finite), axis=0)
        # Every reading is an example.
        flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), states)
        each = [jnp.repeat(x, self.readings, axis=0) for x in (inputs, targets, counts)]
        signal = jnp.tile(jnp.cos(2 * jnp.pi * (1 + jnp.arange(self.readings)) / self.readings), len(inputs))
        term = Term(2 * signal / self.strength, self.strength * signal, flat)
        gradient = self._contrasted(substrate, each[0], each[1], [term], each[2])
        return self._counted(substrate, free, targets, counts) | self.cost(examples).reported(), gradient

    def _heard(self, substrate: EnergySubstrate, state: State, drive: Array, target: Array) -> State:
        """States at the readings of the last period."""
        cost, apart = self.compared(substrate), self.period / self.readings
        steps = math.ceil(apart / self.time_step - 1e-9)

        def rate(now: tuple[State, Array]) -> tuple[State, Array]:
            state, time = now
            nudge = Nudge(cost, self.strength * jnp.cos(2 * jnp.pi * time / self.period), target)
            return substrate.landscape(drive, nudge).force(state), jnp.ones_like(time)

        def step(now: tuple[State, Array], _: None) -> tuple[tuple[State, Array], None]:
            return runge_kutta_step(rate, now, apart / steps, order=4), None

        def reading(now: tuple[State, Array], _: None) -> tuple[tuple[State, Array], State]:
            now, _ = jax.lax.scan(step, now, None, length=steps)
            return now, now[0]

        begun = state, jnp.zeros((), jax.tree.leaves(state)[0].dtype)
        begun, _ = jax.lax.scan(step, begun, None, length=steps * self.readings * self.settling)
        return jax.lax.scan(reading, begun, None, length=self.readings)[1]

    def cost(self, examples: int) -> Asked:
        """Every example comes to rest free, and oscillates."""
        return Asked(2 * examples * self.initial_states, 1)

    def cost_of_metrics(self, examples: int) -> Asked:
        """Every example comes to rest free."""
        return Asked(examples * self.initial_states, 1)


class AgnosticPropagation(EquilibriumRule):
    r"""Learning rule: agnostic equilibrium propagation; weights are degrees of freedom that move by themselves.

    A spring of compliance $\epsilon$ holds every weight at a knob $u$. In the free phase the knobs are turned until the
    weights stay where they are, $u = \theta + \epsilon \, \partial E / \partial \theta(s^0)$; then the outputs are
    nudged, and state and weights come to rest:

    $$(s^\beta, \theta^\beta) = \arg\min E(s, \theta) + \beta \, C(s) + \frac{(u - \theta)^2}{2 \epsilon}, \qquad
      g = \frac{\theta - \theta^\beta}{\epsilon \, \beta}$$

    Nobody needs to know the energy: the weights feel it. The error is of first order in $\epsilon$ and $\beta$, of
    second in $\beta$ for symmetric nudging. Every example has its own springs, and the mean of where they lead is the
    gradient.

    **Arguments:** (besides those of `EquilibriumRule`)

    - `strength`: $\beta > 0$.
    - `nudging`: "one-sided" or "symmetric".
    - `compliance`: $\epsilon > 0$.
    - `rounds`: how often state and weights in turn come to rest, at least 1.
    - `roles`: of what has springs. `train` sets those that it trains.

    Source: Scellier, Mishra, Bengio & Ollivier, NeurIPS 35 (2022), Eqs. 9-14.

        >>> import equinox as eqx, jax, jax.numpy as jnp
        >>> from morphax import PhaseOscillators
        >>> from morphax.learning.contrastive import AgnosticPropagation
        >>> network = PhaseOscillators.all_to_all(2, 2, 1, coupling_deviation=1.0, key=jax.random.key(0))
        >>> inputs, targets = jnp.array([[1.0, -1.0], [0.5, 0.5]]), jnp.array([[1.5], [-1.5]])
        >>> gradient_of = eqx.filter_jit(AgnosticPropagation().gradient)
        >>> metrics, gradient = gradient_of(network, inputs, targets, key=jax.random.key(1))
        >>> gradient.couplings.shape, float(metrics["unconverged"])
        ((9,), 0.0)
    """

    strength: float | Float[Array, ""] = 0.1
    nudging: Sides = eqx.field(static=True, default="one-sided")
    compliance: float | Float[Array, ""] = 0.01
    rounds: int = eqx.field(static=True, default=5)
    roles: tuple[Role, ...] = eqx.field(static=True, default=("weight",))

    def __check_init__(self) -> None:
        check_range("strength", self.strength, low=0.0, open_low=True)
        check_choice("nudging", self.nudging, tuple(SIDES))
        check_range("compliance", self.compliance, low=0.0, open_low=True)
        check_count("rounds", self.rounds, 1)

    def for_roles(self, *trained: Role) -> "AgnosticPropagation":
        """With springs on the leaves with these roles."""
        return replace(self, roles=trained)

    def gradient(
        self,
        substrate: EnergySubstrate,
        inputs: Float[Array, "examples ..."],
        targets: Float[Array, "examples outputs"],
        *,
        key: PRNGKeyArray,
    ) -> tuple[Metrics, Any]:
        """Metrics of the free equilibria, and how far the weights went."""
        examples, sides = len(inputs), SIDES[self.nudging]
        inputs, targets, starts, noise = self._repeated(substrate, inputs, targets, key)
        learned, fixed = select(substrate, *self.roles)
        cost = self.compared(substrate)
        free = self._relaxed(substrate, inputs, starts, noise)

        def felt(weights: PyTree, state: State, drive: Array, target: Array, strength: ArrayLike) -> PyTree:
            """The force on the weights, times minus the compliance."""

            def total(weights: PyTree) -> Array:
                one = eqx.combine(weights, fixed)
                return one.energy(state, drive) + Nudge(cost, strength, target).energy(one.observe(state))

            return jax.tree.map(lambda g: self.compliance * g, jax.grad(total)(weights))

        still = jax.vmap(lambda state, drive, target: felt(learned, state, drive, target, 0.0))(
            free.state, inputs, targets
        )
        knobs = jax.tree.map(jnp.add, learned, still)

        def moved(strength: ArrayLike, turn: int) -> tuple[PyTree, Array]:
            """Where the weights come to rest, for every example."""

            def seen(drive: Array, given: tuple[Array, PyTree]) -> Landscape:
                target, weights = given
                return eqx.combine(weights, fixed).landscape(drive, Nudge(cost, strength, target))

            def settle(now: tuple[State, PyTree, Array], index: Array) -> tuple[tuple[State, PyTree, Array], None]:
                start, weights, counts = now
                keys = jax.vmap(lambda k: jax.random.fold_in(jax.random.fold_in(k, turn + 1), index))(noise)
                ended = self._relaxed(substrate, inputs, start, keys, (targets, weights), seen=seen)
                pull = partial(felt, strength=strength)
                pulls = jax.vmap(pull)(weights, ended.state, inputs, targets)
                return (ended.state, jax.tree.map(jnp.subtract, knobs, pulls), counts & ended.converged), None

            begun = jax.tree.map(lambda w: jnp.broadcast_to(w, (len(inputs), *w.shape)), learned)
            (_, weights, counts), _ = jax.lax.scan(settle, (free.state, begun, free.converged), jnp.arange(self.rounds))
            return weights, counts

        counts, total = free.converged, jax.tree.map(jnp.zeros_like, knobs)
        for turn, side in enumerate(sides):
            weights, settled = moved(side * self.strength, turn)
            counts = counts & settled
            total = jax.tree.map(lambda t, w, w0, side=side: t + side * (w0 - w), total, weights, learned)
        shares = mean_weights(counts) / (len(sides) * self.strength * self.compliance)
        gradient = jax.tree.map(lambda t: jnp.tensordot(shares, t, 1), kept(counts, total))
        return self._counted(substrate, free, targets, counts) | self.cost(examples).reported(), gradient

    def cost(self, examples: int) -> Asked:
        """Every example comes to rest free, and as often as weights and states settle in turns, nudged on each side.

        A device whose weights move by themselves is presented with it once for each side.
        """
        turns = self.rounds * len(SIDES[self.nudging])
        return Asked(examples * self.initial_states * (1 + turns), 1 + turns)

    def cost_of_metrics(self, examples: int) -> Asked:
        """Every example comes to rest free."""
        return Asked(examples * self.initial_states, 1)


KINKS = {"abs", "sign", "max", "min", "clamp", "floor", "ceil", "rem", "lt", "le", "gt", "ge", "conj"}


def _kinked(jaxpr: core.Jaxpr) -> list[str]:
    """Operations on complex numbers that are not analytic, here and in programs within."""
    found = []
    for equation in jaxpr.eqns:
        complex_numbers = any(jnp.iscomplexobj(v.aval) for v in equation.invars)
        if equation.primitive.name in KINKS and complex_numbers:
            found.append(equation.primitive.name)
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=_is_program):
            if _is_program(inner):
                found += _kinked(getattr(inner, "jaxpr", inner))
    return found


def _is_program(value: Any) -> bool:
    return isinstance(value, core.Jaxpr | core.ClosedJaxpr)
