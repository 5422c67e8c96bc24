"""Equilibrium propagation with thermal noise, Boltzmann's averages in place of equilibria, of many small networks."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree

from morphax.dynamics.relaxation import Force
from morphax.experiments.phase_oscillators.xor import xor_network
from morphax.learning.ensemble import make_members, map_members, member_keys
from morphax.learning.equilibrium import EquilibriumPropagation, Term, mean_weights
from morphax.learning.rule import Metrics
from morphax.pytrees import select
from morphax.substrates.energy import EnergySubstrate, Nudge, phase_distance
from morphax.substrates.phase_oscillators import PhaseOscillators
from morphax.tasks import xor

GROUP = 24
"""Runs that are computed at once: their networks are small, and one by one they would take several times as long."""


def langevin(
    force: Force,
    state: Float[Array, " numbers"],
    temperature: float | Float[Array, ""],
    *,
    key: PRNGKeyArray,
    readings: int,
    steps: int,
    time_step: float,
) -> Float[Array, "readings numbers"]:
    r"""States of overdamped Langevin dynamics, read every `steps` time steps.

    $$s_{n+1} = s_n + h F(s_n) + \sqrt{2 T h} \, \tfrac12 (\xi_n + \xi_{n+1})$$

    The noise of neighbouring steps is averaged: so the variance of a spring is exact whatever the time step below the
    limit of stability, where that of Euler's method is too large. Each number $\xi$ counts the heads of eight coins:
    mean, variance and skewness are those of a normal one, and it takes a fraction of the time.

    Source: Leimkuhler & Matthews, Appl. Math. Res. Express 2013, 34 (2013).
    """
    size = jnp.sqrt(jnp.asarray(temperature) * time_step).astype(state.dtype) / 2  # heads deviate by sqrt(2)

    def step(carry: tuple[Array, Array], heads: Array) -> tuple[tuple[Array, Array], None]:
        state, before = carry
        kick = size * (heads.astype(state.dtype) - 4)
        return (state + time_step * force(state) + before + kick, kick), None

    def reading(carry: tuple[Array, Array], heads: Array) -> tuple[tuple[Array, Array], Array]:
        carry, _ = jax.lax.scan(step, carry, heads)
        return carry, carry[0]

    heads = _tosses(key, 1 + readings * steps, *state.shape)
    first = size * (heads[0].astype(state.dtype) - 4)
    return jax.lax.scan(reading, (state, first), heads[1:].reshape(readings, steps, *state.shape))[1]


def _tosses(key: PRNGKeyArray, number: int, *shape: int) -> Array:
    """Heads of eight coins, all at once: many small draws would take longer than the dynamics."""
    words = jax.random.bits(key, (math.ceil(number / 4), *shape), jnp.uint32)
    return jax.lax.population_count(_bytes(words))[:number]


def _bytes(words: Array) -> Array:
    """The bytes of 32-bit words, along the first axis."""
    split = jnp.moveaxis(jax.lax.bitcast_convert_type(words, jnp.uint8), -1, 0)
    return split.reshape(-1, *words.shape[1:])


class ThermalPropagation(EquilibriumPropagation):
    r"""Equilibrium propagation where averages over noisy trajectories take the place of equilibria.

    $$\frac{\partial}{\partial \theta} \langle C \rangle \approx \frac{1}{\beta} \left(
      \left\langle \frac{\partial F}{\partial \theta} \right\rangle_\beta -
      \left\langle \frac{\partial E}{\partial \theta} \right\rangle_0 \right)$$

    With Boltzmann's averages this is the derivative of the free energy, whose slope along beta is the mean cost. A
    trajectory goes on from the free to the nudged network; the second half of both is averaged. Without noise there is
    nothing to average, and the last state counts alone.

    - `temperature`: $T \ge 0$, in units of the energy.
    - `duration`: of the free trajectory, and of the nudged one.
    - `time_step`, `interval`: of the dynamics, and between two readings.
    - `same_start`: whether all trajectories begin in one state, always the same, or in random ones.

    Source: Scellier, arXiv:2103.09985 (2021), for the stochastic rule; Wang, Wanjura & Marquardt (2024), Sec. II B.
    """

    temperature: float | Float[Array, ""] = 0.0
    duration: float = eqx.field(static=True, default=100.0)
    time_step: float = eqx.field(static=True, default=0.1)
    interval: float = eqx.field(static=True, default=1.0)
    same_start: bool | Bool[Array, ""] = False

    def gradient(
        self, substrate: EnergySubstrate, inputs: Array, targets: Array, *, key: PRNGKeyArray
    ) -> tuple[Metrics, Any]:
        """Mean distance in what is averaged of the free trajectories, and the contrast of both averages."""
        inputs, targets, starts, keys = self._repeated(substrate, inputs, targets, key)
        starts = jnp.where(self.same_start, substrate.initial_state(), starts)

        def turn(starts: Array, strength: Array) -> tuple[Array, Array]:
            again = jax.vmap(lambda k: jax.random.fold_in(k, strength > 0))(keys)
            states = jax.vmap(partial(self._trajectory, substrate, strength))(inputs, targets, starts, again)
            return states[:, -1], states[:, states.shape[1] // 2 :]

        strength = jnp.asarray(self.strength, starts.dtype)
        free, nudged = jax.lax.scan(turn, starts, jnp.stack([0 * strength, strength]))[1]
        # Every reading is an example.
        each, wanted = (jnp.repeat(x, free.shape[1], axis=0) for x in (inputs, targets))
        last = jnp.arange(free.shape[1]) == free.shape[1] - 1
        counts = jnp.tile(last | (jnp.asarray(self.temperature) > 0), len(free))
        free, nudged = (states.reshape(-1, states.shape[-1]) for states in (free, nudged))
        terms = [Term(1 / strength, strength, nudged), Term(-1 / strength, 0.0, free)]
        gradient = self._contrasted(substrate, each, wanted, terms, counts)
        away = jnp.sum(phase_distance(jax.vmap(substrate.observe)(free), wanted), axis=-1)
        return {"distance": mean_weights(counts) @ away}, gradient

    def _trajectory(
        self, substrate: EnergySubstrate, strength: Array, drive: Array, target: Array, start: Array, key: PRNGKeyArray
    ) -> Float[Array, "readings numbers"]:
        readings = max(2, math.ceil(self.duration / self.interval - 1e-9))
        steps = math.ceil(self.duration / readings / self.time_step - 1e-9)
        return langevin(
            substrate.landscape(drive, Nudge(self.compared(substrate), strength, target)).force,
            start,
            self.temperature,
            key=key,
            readings=readings,
            steps=steps,
            time_step=self.duration / readings / steps,
        )


def in_groups(compute: Callable[..., Any], size: int, make_key: PRNGKeyArray, key: PRNGKeyArray, runs: range) -> Any:
    """What `compute` gives of stacks of networks and their keys, for some runs, groups in as many threads as cores.

    All groups are full, so that the digits of a run do not depend on how many others there are.
    """
    groups = math.ceil(len(runs) / GROUP)
    full = range(runs.start, runs.start + groups * GROUP)
    members = make_members(partial(xor_network, size), make_key, full), member_keys(key, full)
    stacks = jax.tree.map(lambda x: x.reshape(groups, GROUP, *x.shape[1:]), members)
    # Said to be compiled: otherwise one group would go ahead alone.
    found = map_members(compute, *stacks, compiled=True)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[: len(runs)], found)


@eqx.filter_jit
def learned_networks(
    rule: ThermalPropagation, rate: Array, visits: int, every: int, networks: PhaseOscillators, keys: PRNGKeyArray
) -> tuple[PhaseOscillators, Metrics]:
    """Some networks at all looks, and what was seen of the updates until each.

    "noisy", the mean distance that the rule saw; "scatter", its deviation from update to update; "cancelled", by how
    much the squared updates exceed the square of their mean, as a share.
    """
    task = xor()

    def squared(tree: PyTree) -> Array:
        return sum((jnp.sum(x**2) for x in jax.tree.leaves(tree)), start=jnp.zeros(()))

    def one(network: PhaseOscillators, key: PRNGKeyArray) -> tuple[PhaseOscillators, Metrics]:
        weights, rest = select(network, "weight")

        def update(weights: PyTree, index: Array) -> tuple[PyTree, tuple[Array, Array]]:
            now, turn = eqx.combine(weights, rest), jax.random.fold_in(key, index)
            seen, gradient = rule.gradient(now, task.train_inputs, task.train_targets, key=turn)
            change = jax.tree.map(lambda g: rate * g, select(gradient, "weight")[0])
            return jax.tree.map(jnp.subtract, weights, change), (seen["distance"], squared(change))

        def look(before: PyTree, index: Array) -> tuple[PyTree, tuple[PhaseOscillators, Metrics]]:
            after, (distances, squares) = jax.lax.scan(update, before, every * index + jnp.arange(every))
            kept = squared(jax.tree.map(jnp.subtract, after, before)) / (every * jnp.sum(squares))
            seen = {"noisy": jnp.mean(distances), "scatter": jnp.std(distances), "cancelled": 1 - kept}
            return after, (eqx.combine(after, rest), seen)

        return jax.lax.scan(look, weights, jnp.arange(visits))[1]

    return eqx.filter_vmap(one)(networks, keys)


@eqx.filter_jit
def at_rest(rule: EquilibriumPropagation, network: PhaseOscillators, key: PRNGKeyArray) -> Array:
    """Mean distance of free equilibria."""
    return rule.metrics(network, xor().train_inputs, xor().train_targets, key=key)["distance"]
