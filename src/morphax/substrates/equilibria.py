"""Multistability: which equilibria a network has for an input, how many, and how they move."""

from typing import NamedTuple

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from morphax._checks import check_count, check_range
from morphax.dynamics.relaxation import Relaxation, Relaxer
from morphax.substrates.base import State
from morphax.substrates.energy import EnergySubstrate


class Equilibria(NamedTuple):
    """Distinct equilibria of a network for one input, those that were reached most often first.

    - `states`: one each, stacked along a leading axis.
    - `outputs`: what is observed at each, shape (equilibria, outputs).
    - `shares`: part of the relaxations that ended in each, shape (equilibria,): how large its basin is.
    - `unconverged`: part of the relaxations that did not converge; they are counted nowhere else.
    """

    states: State
    outputs: Float[np.ndarray, "equilibria outputs"]
    shares: Float[np.ndarray, " equilibria"]
    unconverged: float


def find_equilibria(
    substrate: EnergySubstrate,
    drive: Float[Array, "..."],
    *,
    starts: int = 100,
    tolerance: float = 1e-2,
    relaxer: Relaxer | None = None,
    key: PRNGKeyArray,
) -> Equilibria:
    """Relax from many random states, and put together those that end in the same place.

    **Arguments:**

    - `substrate`, `drive`: the network and its clamped inputs.
    - `starts`: random initial states, >= 1. Equilibria with a small basin may be missed.
    - `tolerance`: states closer than this (`substrate.distance`) are one equilibrium, > 0.
    - `relaxer`: as in `relax`. Sizes of basins are those of the physical dynamics only with the physical dynamics.
    - `key`: draws the initial states.

    **Raises:** `ValueError` for numbers out of range.

        >>> import jax, jax.numpy as jnp
        >>> from morphax import PhaseOscillators
        >>> from morphax.substrates.equilibria import find_equilibria
        >>> pair = PhaseOscillators.from_matrix([[0, 1.0], [1.0, 0]], inputs=[0], outputs=[1])
        >>> found = find_equilibria(pair, jnp.array([0.3]), key=jax.random.key(0))
        >>> round(found.outputs.item(), 3), found.shares.tolist()
        (0.3, [1.0])
    """
    check_count("starts", starts, 1)
    check_range("tolerance", tolerance, low=0.0, open_low=True)
    ended, distances = _relaxed(substrate, drive, relaxer, jax.random.split(key, starts))
    close = np.asarray(distances) <= tolerance
    left = np.asarray(ended.converged).copy()
    chosen, sizes = [], []
    while left.any():
        first = int(np.argmax(left))
        group = left & close[first]
        group[first] = True
        chosen.append(first)
        sizes.append(group.sum())
        left &= ~group
    order = np.argsort(sizes)[::-1].astype(int) if sizes else np.zeros(0, int)
    rows = np.array(chosen, int)[order]
    states = jax.tree.map(lambda leaf: leaf[rows], ended.state)
    outputs = np.asarray(jax.vmap(substrate.observe)(ended.state))[rows]
    return Equilibria(
        states, outputs, np.array(sizes, float)[order] / starts, float(1 - np.asarray(ended.converged).mean())
    )


@eqx.filter_jit
def _relaxed(
    substrate: EnergySubstrate, drive: Array, relaxer: Relaxer | None, keys: PRNGKeyArray
) -> tuple[Relaxation, Array]:
    ended = jax.vmap(lambda k: substrate.relax(drive, relaxer=relaxer, key=k))(keys)
    distance = jax.vmap(jax.vmap(substrate.distance, (None, 0)), (0, None))
    return ended, distance(ended.state, ended.state)
