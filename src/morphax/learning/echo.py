r"""Hamiltonian echo learning: time is reversed, the outputs are kicked on the way, and the way back tells the
gradient."""

import warnings
from dataclasses import replace
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from morphax._checks import check_choice, check_range, is_concrete
from morphax.learning.backprop import Backpropagation
from morphax.learning.objectives import Objective
from morphax.learning.rule import Asked, LearningRule, Metrics
from morphax.pytrees import Role, select
from morphax.substrates.base import presented
from morphax.substrates.reversible import Motion, Reversible
from morphax.tasks.base import Kind

Sides = Literal["one-sided", "symmetric"]
SIDES: dict[Sides, tuple[int, ...]] = {"one-sided": (1, 0), "symmetric": (1, -1)}


class HamiltonianEcho(LearningRule):
    r"""Learning rule: a perturbed echo. The system runs, time is reversed while outputs are kicked, and it runs back.

    $$p \to -p - \epsilon \frac{\partial C}{\partial q}, \qquad
      g = \frac{1}{2 \epsilon} \left( \int_0^T \frac{\partial H}{\partial \theta} \, dt \Big|_{+\epsilon} -
      \int_0^T \frac{\partial H}{\partial \theta} \, dt \Big|_{-\epsilon} \right)$$

    over the way back, with inputs in reversed order. The motion itself is the adjoint: no model is differentiated but
    the Hamiltonian with respect to the weights, which each of them feels. Integrals are sums over the kicks of the
    symplectic step, with which the gradient of the discrete motion is exact for $\epsilon \to 0$, with an error of
    second order for symmetric kicks.

    Damping $\gamma$ destroys the echo, unless the system is amplified on the way back: momenta grow with $+\gamma$, and
    what is felt a time $\tau$ after the reversal counts $e^{-\gamma \tau}$.

    **Arguments:**

    - `strength`: $\epsilon > 0$.
    - `kicks`: "symmetric", two echoes; or "one-sided", one, compared with the way there, with an error of first order.
    - `gain`: what the device is amplified with on the way back, in units of its damping: 1 is exact, 0 none.
    - `objective`: as of `Backpropagation`; it compares the last output.
    - `roles`: of the leaves whose gradient is computed. `train` sets those that it trains.

    **Raises:** `ValueError` for values out of range. **Warns** for a damped system without gain, with $\gamma T$.

    Source: Lopez-Pastor & Marquardt, Phys. Rev. X 13, 031020 (2023), Eqs. 9-13; the gain is ours.

        >>> import equinox as eqx, jax, jax.numpy as jnp
        >>> from morphax.learning import regression
        >>> from morphax.learning.echo import HamiltonianEcho
        >>> from morphax.substrates.reversible import NonlinearLattice
        >>> from morphax.substrates.topology import Topology
        >>> topology = Topology.lattice((2, 3), inputs=[0, 3], outputs=[2, 5])
        >>> lattice = NonlinearLattice.random(topology, key=jax.random.key(0))
        >>> data = jax.random.normal(jax.random.key(1), (6, 2)), jnp.ones((6, 2))
        >>> rule = HamiltonianEcho(objective=regression)
        >>> metrics, gradient = eqx.filter_jit(rule.gradient)(lattice, *data, key=jax.random.key(3))
        >>> gradient.couplings.shape, int(metrics["presentations"])
        ((6,), 18)
    """

    strength: float | Float[Array, ""] = 1e-3
    kicks: Sides = eqx.field(static=True, default="symmetric")
    gain: float | Float[Array, ""] = 1.0
    objective: Objective | None = eqx.field(static=True, default=None, kw_only=True)
    roles: tuple[Role, ...] = eqx.field(static=True, default=("weight",), kw_only=True)

    def __check_init__(self) -> None:
        check_range("strength", self.strength, low=0.0, open_low=True)
        check_choice("kicks", self.kicks, tuple(SIDES))
        check_range("gain", self.gain, low=0.0)

    @property
    def judge(self) -> Backpropagation:
        """Who compares outputs with targets."""
        return Backpropagation(self.objective, observe="last")

    def needs(self) -> str:
        """Time that can be reversed."""
        return "a reversible substrate (Reversible: hamiltonian, reverse, and a symplectic step)"

    def fits(self, substrate: Any) -> bool:
        """Reversible substrates, also with something around them."""
        return isinstance(substrate, Reversible)

    def suited(self, kind: Kind) -> "HamiltonianEcho":
        """With the objective of the kind, where none was chosen."""
        return replace(self, objective=self.judge.suited(kind).objective)

    def for_roles(self, *trained: Role) -> "HamiltonianEcho":
        """With gradients of leaves with these roles."""
        return replace(self, roles=trained)

    def check_data(self, substrate: Reversible, inputs: Array, targets: Array) -> None:
        """What back-propagation refuses, and targets at several times; warns of damping without gain."""
        if targets.ndim == 3:
            raise ValueError(
                f"targets has shape {targets.shape}; {type(self).__name__} teaches the last output, so it must be "
                "(examples, outputs): use morphax.tasks.windows for a stream"
            )
        self.judge.check_data(substrate, inputs, targets)
        if is_concrete(substrate.damping) and is_concrete(self.gain) and substrate.damping > 0 and self.gain == 0:
            time = float(substrate.time_step) * substrate.steps * presented(substrate, inputs).shape[1]
            warnings.warn(
                f"{type(substrate).__name__} has damping, gamma T = {float(substrate.damping) * time:.2g}, and gain 0: "
                "the echo does not return, and the gradient is wrong; amplify on the way back (gain=1)",
                stacklevel=3,
            )

    def cost(self, examples: int) -> Asked:
        """There, and back with each kick."""
        return Asked(examples * (1 + sum(side != 0 for side in SIDES[self.kicks])), 1)

    def cost_of_metrics(self, examples: int) -> Asked:
        """There."""
        return Asked(examples, 1)

    def metrics(self, substrate: Reversible, inputs: Array, targets: Array, *, key: PRNGKeyArray) -> Metrics:
        """What the objective says of the answers."""
        return self.judge.metrics(substrate, inputs, targets, key=key)

    def gradient(
        self,
        substrate: Reversible,
        inputs: Float[Array, "examples time ..."],
        targets: Float[Array, "examples outputs"],
        *,
        key: PRNGKeyArray,
    ) -> tuple[Metrics, PyTree]:
        """Metrics of the way there, and the contrast of the ways back."""
        drives = presented(substrate, inputs)
        start = jax.vmap(lambda k: substrate.initial_state(key=k))(jax.random.split(key, len(drives)))
        ended, there = jax.vmap(lambda s, u: _run(substrate, s, u, substrate.damping))(start, drives)
        outputs, pull_back = jax.vjp(jax.vmap(substrate.observe), ended)
        metrics = self.judge.judged(outputs, targets)
        (slopes,) = pull_back(jax.grad(lambda o: self.judge.judged(o, targets)["loss"])(outputs))
        learned, fixed = select(substrate, *self.roles)
        sides = SIDES[self.kicks]
        # The objective is a mean, and a kick must not become weaker with the number of examples.
        strength = self.strength * len(drives)

        def back(side: int) -> Motion:
            kicked = Motion(
                ended.position + side * strength * slopes.momentum, ended.momentum + side * strength * slopes.position
            )
            turned = substrate.reverse(kicked)
            return jax.vmap(lambda s, u: _run(substrate, s, u[::-1], -self.gain * substrate.damping)[1])(turned, drives)

        def felt(learned: PyTree) -> Array:
            model = eqx.combine(learned, fixed)
            sums = [side * self._sum(model, substrate, back(side), drives[:, ::-1]) for side in sides if side]
            if 0 in sides:
                # Undisturbed, the way back is the way there.
                sums.append(-self._sum(model, substrate, jax.tree.map(lambda x: x[:, ::-1], there), drives[:, ::-1]))
            share = 1 / (strength * (sides[0] - sides[1]))
            return share * sum(sums) + jnp.sum(jax.vmap(model.observe)(ended) * jax.grad(self._loss(targets))(outputs))

        return metrics | self.cost(len(drives)).reported(), jax.grad(felt)(learned)

    def _loss(self, targets: Array) -> Any:
        return lambda outputs: self.judge.judged(outputs, targets)["loss"]

    def _sum(self, model: Reversible, substrate: Reversible, path: Motion, drives: Array) -> Array:
        """What weights feel on the way: the Hamiltonian at both ends of every step."""
        points = drives.shape[1] * substrate.steps
        fading = jnp.exp(-substrate.damping * substrate.time_step * (jnp.arange(points) + 0.5))
        held = jnp.repeat(drives, substrate.steps, axis=1)
        path = jax.lax.stop_gradient(path)
        energy = jax.vmap(jax.vmap(model.hamiltonian))
        before, after = (jax.tree.map(lambda x, cut=cut: x[:, cut], path) for cut in (slice(None, -1), slice(1, None)))
        both = energy(before, held) + energy(after, held)
        return jax.lax.stop_gradient(substrate.time_step) / 2 * jnp.sum(jax.lax.stop_gradient(fading) * both)


def _run(substrate: Reversible, state: Motion, drives: Array, damping: Any) -> tuple[Motion, Motion]:
    """The last state, and all: one more than there are steps."""

    def interval(state: Motion, drive: Array) -> tuple[Motion, Motion]:
        return substrate.path(state, drive, damping)

    last, path = jax.lax.scan(interval, state, drives)
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), path)
    return last, jax.tree.map(lambda x, end: jnp.concatenate([x, end[None]]), flat, last)
