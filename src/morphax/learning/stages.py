"""A batch of examples comes to rest in stages, so that many that are fast do not wait for few that are slow."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from morphax.dynamics.relaxation import AcceleratedDescent, BlockSweeps, Relaxation, merged

FEWEST = 8  # examples that go on by themselves
IN_STEP = (BlockSweeps, AcceleratedDescent)
"""Relaxers whose examples of one batch wait for each other."""


def in_stages(
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
    inputs, starts, keys, targets = examples
    size = max(min(FEWEST, len(inputs)), len(inputs) // 8)

    def sweep_some(carry: tuple[Array, Relaxation]) -> tuple[Array, Relaxation]:
        done, ended = carry
        _, chosen = jax.lax.top_k(1 - done.astype(float), size)
        full, before, *some = jax.tree.map(lambda x: x[chosen], (done, ended, starts, inputs, keys, targets))
        # Where fewer are left than are swept, others fill up: they stay where they are.
        either = jax.vmap(lambda full, a, b: jax.tree.map(partial(jnp.where, full), a, b))
        swept = sweep((some[1], either(full, before.state, some[0]), *some[2:]), batch="examples")
        after = either(full, before, jax.vmap(merged)(before, swept))
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
