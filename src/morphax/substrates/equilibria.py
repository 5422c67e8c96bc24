"""Multistability: which equilibria a network has for an input, how many, and how they move."""

from typing import NamedTuple

import equinox as eqx
import jax
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray

from morphax._checks import check_count, check_range
from morphax.dynamics.relaxation import Relaxation, Relaxer
from morphax.substrates.base import State
from morphax.substrates.energy import EnergySubstrate

MARGINAL = 1e-4  # of the fastest rate: a relaxation to its tolerance cannot tell slower growth from none


class Equilibria(NamedTuple):
    """Distinct stable equilibria of a network for one input, those that were reached most often first.

    - `states`: one each, stacked along a leading axis.
    - `outputs`: what is observed at each, shape (equilibria, outputs).
    - `shares`: part of the relaxations that ended in each, shape (equilibria,): how large its basin is.
    - `saddles`: part of the relaxations that converged where a small push grows; they are counted nowhere else.
    - `unconverged`: part of the relaxations that did not converge; likewise.
    """

    states: State
    outputs: Float[np.ndarray, "equilibria outputs"]
    shares: Float[np.ndarray, " equilibria"]
    saddles: float
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
    r"""Relax from many random states, and put together those that end in the same minimum.

    The force vanishes at saddles, too. Stable is where no eigenvalue of its derivative $\partial F / \partial s$ has a
    real part above `MARGINAL` of the largest magnitude among them: for the slope of an energy, where the Hessian has no
    negative eigenvalue. Exactly at a corner of the force (an end of a Hopfield neuron's range) its derivative is the
    mean of both sides, which may err either way.

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
        >>> round(found.outputs.item(), 3), found.shares.tolist(), found.saddles
        (0.3, [1.0], 0.0)
    """
    check_count("starts", starts, 1)
    check_range("tolerance", tolerance, low=0.0, open_low=True)
    ended, distances = _relaxed(substrate, drive, relaxer, jax.random.split(key, starts))
    converged, close = np.asarray(ended.converged), np.asarray(distances) <= tolerance
    left, saddles = converged.copy(), 0
    chosen, sizes = [], []
    while left.any():
        first = int(np.argmax(left))
        group = np.arange(starts) == first
        if is_stable(substrate, drive, jax.tree.map(lambda leaf, row=first: leaf[row], ended.state)):
            group |= left & close[first]
            chosen.append(first)
            sizes.append(group.sum())
        else:
            saddles += 1
        left &= ~group
    order = np.argsort(sizes)[::-1].astype(int)
    rows = np.array(chosen, int)[order]
    states = jax.tree.map(lambda leaf: leaf[rows], ended.state)
    outputs = np.asarray(jax.vmap(substrate.observe)(ended.state))[rows]
    shares = np.array(sizes, float)[order] / starts
    return Equilibria(states, outputs, shares, saddles / starts, float(1 - converged.mean()))


def is_stable(substrate: EnergySubstrate, drive: Float[Array, "..."], state: State) -> bool:
    """Whether small pushes away from an equilibrium die out, by the eigenvalues of the force's derivative."""
    rates = np.linalg.eigvals(np.asarray(_jacobian(substrate, drive, state)))
    return bool(rates.real.max() <= MARGINAL * np.abs(rates).max())


@eqx.filter_jit
def _jacobian(substrate: EnergySubstrate, drive: Array, state: State) -> Float[Array, "numbers numbers"]:
    flat, unflatten = ravel_pytree(state)
    return jax.jacfwd(lambda flat: ravel_pytree(substrate.force(unflatten(flat), drive))[0])(flat)


@eqx.filter_jit
def _relaxed(
    substrate: EnergySubstrate, drive: Array, relaxer: Relaxer | None, keys: PRNGKeyArray
) -> tuple[Relaxation, Array]:
    ended = jax.vmap(lambda k: substrate.relax(drive, relaxer=relaxer, key=k))(keys)
    distance = jax.vmap(jax.vmap(substrate.distance, (None, 0)), (0, None))
    return ended, distance(ended.state, ended.state)
