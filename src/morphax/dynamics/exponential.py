r"""The exponential of a real linear generator acting on a state, $e^{L t} x$, without forming a matrix.

The exponential is expanded in the Faber polynomials of an ellipse with centre $c$ and foci $c \pm 2 \gamma \sqrt q$
(Chebyshev polynomials up to scaling; imaginary foci, $q < 0$, keep the recurrence real):

$$ e^{A} = \sum_n c_n F_n(A), \qquad F_{n+1} = \tfrac{1}{\gamma} (A - c) F_n - q F_{n-1}, \qquad
   \sum_n c_n u^n = e^{c + \gamma (u + q / u)} . $$

The sum stops as soon as a rigorous bound on everything left out is below the tolerance. The bound combines two
things: the norms of the last two terms, which are known, and the growth of $F_n(A)$, which an ellipse around
the numerical range of $A$ limits (`Enclosure`). Where the generator is too large for one expansion the time is cut
into equal sub-steps, at run time.

References: Beckermann & Reichel, SIAM J. Numer. Anal. 47, 3849 (2009), for Faber polynomials and the numerical
range; Huisinga, Pesce, Kosloff & Saalfrank, J. Chem. Phys. 110, 5538 (1999), for Faber propagation of Liouvillians.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import equinox.internal as eqxi
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float, Int, PyTree

MAX_TERMS = 256
"""Number of coefficients that are computed; `MAX_CAPACITY` makes sure that the sum ends before."""

MAX_CAPACITY = 80.0
"""Largest half-sum of the semi-axes of the ellipse around the numerical range that one expansion takes.

The terms of order n are bounded by (e MAX_CAPACITY / n)^n, that is e^-42 at n = MAX_TERMS.
"""

MAX_SUBSTEPS = 64
"""Largest number of sub-steps that can be differentiated."""

BLOCK = 8
"""Number of terms between two looks at the error."""

MAX_BLOCKS = (MAX_TERMS - 2) // BLOCK

BRANCHES = 8
"""Length of the scans that differentiable loops of bounded length are made of."""


class Generator(NamedTuple):
    """A real matrix that depends on coefficients, as two pure functions.

    Attributes
    ----------
    apply
        (coefficients, state) -> matrix times state, an array like the state.
    adjoint
        coefficients -> coefficients of the transposed matrix. With it the reverse mode runs at the speed of the
        forward mode; what JAX would derive from shifts and slices is several times slower.
    """

    apply: Callable[[Any, Array], Array]
    adjoint: Callable[[Any], Any]


class Enclosure(NamedTuple):
    r"""A stadium in the complex plane that contains the numerical range of a generator.

    $$ W(L) \subseteq \{ |z + m| \le m + s \} + i [-\omega, \omega] $$

    Attributes
    ----------
    decay
        $m \ge 0$, inverse time: half of the largest decay rate.
    growth
        $s \ge 0$, inverse time: the largest growth rate of the 2-norm.
    frequency
        $\omega \ge 0$, inverse time: norm of the part that only rotates.
    """

    decay: Float[Array, ""]
    growth: Float[Array, ""]
    frequency: Float[Array, ""]


def exponential_action(
    generator: Generator,
    coefficients: PyTree[Float[Array, "..."]],
    state: Float[Array, "..."],
    time: Float[Array, ""] | float,
    enclosure: Enclosure,
    tolerance: float | None = None,
) -> Float[Array, "..."]:
    r"""The state after a time under a constant generator, $e^{L t} x$.

    Jit, vmap, forward- and reverse-mode derivatives (of any order, with respect to the coefficients, the state and
    the time) all work; the lanes of a vmap share the number of sub-steps and of terms of the slowest lane.

    Parameters
    ----------
    generator
        L and its transpose as pure functions.
    coefficients
        Real arrays that the generator depends on.
    state
        Real array of any shape; single or double precision.
    time
        Duration, not negative.
    enclosure
        Where the numerical range of the generator lies (per unit of time).
    tolerance
        Largest truncation error of a sub-step relative to the 2-norm of the state; 1e-12 in double and 2e-7 in
        single precision if not given.

    Returns
    -------
    Array
        Same shape and type as the state. NaN where the bound could not be met (an enclosure that is wrong, rates that
        are not finite), and where a derivative would need more than `MAX_SUBSTEPS` sub-steps.
    """
    if tolerance is None:
        tolerance = 1e-12 if state.dtype == jnp.float64 else 2e-7
    time = jnp.asarray(time, state.dtype)
    return _exponential_action(generator, tolerance, coefficients, state, time, lax.stop_gradient(enclosure))


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _exponential_action(generator, tolerance, coefficients, state, time, enclosure):
    """Fast evaluation: as few terms as this very state needs. Loops of unknown length have no reverse mode."""
    expansion = _expand(enclosure, time)
    step = partial(_scaled, generator, coefficients, time, expansion)
    return lax.fori_loop(0, expansion.substeps, lambda _, x: _adaptive_sum(step, x, expansion, tolerance)[0], state)


@_exponential_action.defjvp
def _exponential_action_jvp(generator, tolerance, primals, tangents):
    return jax.jvp(partial(_differentiable_action, generator, tolerance), primals, tangents)


def _differentiable_action(generator, tolerance, coefficients, state, time, enclosure):
    """Same expansion with loops of bounded length, and enough terms for every direction of the state space.

    The number of terms is found with a probe that has components everywhere: the derivative goes in directions
    in which the state itself may have none. One more block pays for the factor n that differentiation brings.
    """
    expansion = _expand(enclosure, time)
    probe = jnp.cos(jnp.arange(state.size, dtype=state.dtype) ** 2).reshape(state.shape)
    frozen = partial(_scaled, generator, *lax.stop_gradient((coefficients, time)), expansion)
    probed, blocks = _adaptive_sum(frozen, probe, expansion, tolerance)
    blocks = jnp.minimum(blocks + 1, MAX_BLOCKS)
    valid = (expansion.substeps <= MAX_SUBSTEPS) & jnp.all(jnp.isfinite(probed))

    @jax.checkpoint
    def evolve(coefficients, state, time):
        step = partial(_scaled, generator, coefficients, time, expansion)
        return _bounded_loop(
            lambda _, x: _fixed_sum(step, x, expansion, blocks), expansion.substeps, state, MAX_SUBSTEPS
        )

    # A factor, and not a choice, so that the derivatives are NaN too.
    return jnp.where(valid, 1, jnp.nan).astype(state.dtype) * evolve(coefficients, state, time)


class _Expansion(NamedTuple):
    """Faber expansion of the exponential over one sub-step; no derivative passes through it.

    `tail[n]` times the larger of the norms of F_n x and F_(n+1) x bounds the sum of all terms beyond n + 1.
    """

    substeps: Int[Array, ""]
    centre: Float[Array, ""]
    capacity: Float[Array, ""]
    focus: Float[Array, ""]
    coefficients: Float[Array, " terms"]
    tail: Float[Array, " terms"]


def _scaled(generator, coefficients, time, expansion, state):
    """(A - c) x / gamma with A = L time / substeps."""
    rate = time / (expansion.substeps * expansion.capacity)
    return rate * _apply(generator, coefficients, state) - (expansion.centre / expansion.capacity) * state


def _expand(enclosure: Enclosure, time: Float[Array, ""]) -> _Expansion:
    """Choose the ellipse and the number of sub-steps, then the coefficients and the bounds."""
    enclosure, time = lax.stop_gradient((enclosure, time))
    whole = _confocal_capacity(Enclosure(*(time * x for x in enclosure)))
    # What is not finite, or would run for days, gets few sub-steps: it cannot converge, and is NaN in the end.
    wanted = jnp.where(jnp.isfinite(whole), jnp.clip(jnp.ceil(whole / MAX_CAPACITY), 1, 2**20), 1)
    substeps = eqxi.unvmap_max(wanted.astype(jnp.int32))
    stadium = Enclosure(*(time / substeps * x for x in enclosure))
    centre, capacity, focus = _ellipse(stadium)
    growth = jnp.maximum(_confocal_capacity(stadium) / capacity, 1.1)
    return _Expansion(
        substeps,
        centre,
        capacity,
        focus,
        _faber_coefficients(centre, capacity, focus),
        _tail_bound(centre, capacity, focus, growth),
    )


def _ellipse(stadium: Enclosure) -> tuple[Float[Array, ""], Float[Array, ""], Float[Array, ""]]:
    """Centre c, capacity gamma (half-sum of the semi-axes) and q of an ellipse on which few terms are needed.

    Any ellipse gives the right sum. This one is smaller than the numerical range, whose corners states hardly reach;
    it was fitted to the fewest terms for one and two damped, driven, coupled, hot and anharmonic modes.
    """
    decay, _, frequency = stadium
    floor = 1e-3  # keeps the divisions finite for a vanishing generator or time
    real_axis = 0.8 * decay
    slow = 25 * decay**2 / (25 * decay**2 + frequency**2 + floor**2)
    imaginary_axis = jnp.sqrt(real_axis**2 + (1 - slow / 2) * frequency**2 - 0.3 * decay**2)
    capacity = (real_axis + imaginary_axis) / 2 + floor
    return -real_axis, capacity, (real_axis**2 - imaginary_axis**2) / (4 * capacity**2)


def _confocal_capacity(stadium: Enclosure) -> Float[Array, ""]:
    """Half-sum of the semi-axes of the ellipse that has the foci of `_ellipse` and contains the stadium."""
    centre, capacity, focus = _ellipse(stadium)
    squared_focus = 4 * capacity**2 * focus
    angle = jnp.asarray(np.linspace(0, np.pi, 65), centre.dtype)
    support = (
        -(stadium.decay + centre) * jnp.cos(angle)
        + (stadium.decay + stadium.growth)
        + stadium.frequency * jnp.sin(angle)
    )
    # The tangents at the 65 angles enclose slightly more than the convex set itself: 1 / cos(pi / 128).
    support = 1.001 * support
    real_squared = jnp.max(support**2 + squared_focus * jnp.sin(angle) ** 2)
    real_squared = jnp.maximum(real_squared, jnp.maximum(squared_focus, 0))
    return (jnp.sqrt(real_squared) + jnp.sqrt(real_squared - squared_focus)) / 2


def _faber_coefficients(centre, capacity, focus) -> Float[Array, " terms"]:
    """The c_n, which are J_n or I_n scaled, by downward recurrence: every one to full relative accuracy.

    From c_(n-1) = (n / gamma) c_n + q c_(n+1) follow the ratios c_n / c_(n-1), which cannot overflow; the sum of the
    series at u = 1 fixes the scale.
    """
    order = jnp.arange(1, MAX_TERMS, dtype=centre.dtype)

    def ratio(above, n):
        here = 1 / (n / capacity + focus * above)
        return here, here

    _, ratios = lax.scan(ratio, jnp.zeros_like(centre), order, reverse=True, unroll=32)
    relative = jnp.cumprod(ratios)
    total = 1 + jnp.sum(relative * (1 + focus**order))
    first = jnp.exp(centre + capacity * (1 + focus)) / total
    return first * jnp.concatenate([jnp.ones((1,), centre.dtype), relative])


def _tail_bound(centre, capacity, focus, growth) -> Float[Array, " terms"]:
    r"""Bound on all terms beyond n + 1, in units of the larger of the norms of $F_n x$ and $F_{n+1} x$.

    Cauchy's estimate on a circle of radius r, $|c_k| \le e^{c + \gamma (r + q / r)} r^{-k}$, is best at the saddle
    $\gamma (r - q / r) = n + 1$ and holds for all k. $F_{n+1+k} = U_k F_{n+1} - q U_{k-1} F_n$ with scaled
    Chebyshev polynomials of the second kind, whose norm is at most $2 R^k / (1 - |q| / R^2)$ when the confocal ellipse
    of R times the capacity contains the numerical range. The geometric sum over k needs r > R.
    """
    order = jnp.arange(MAX_TERMS, dtype=centre.dtype) + 1
    squared = order**2 + 4 * capacity**2 * focus
    radius = (order + jnp.sqrt(jnp.maximum(squared, 0))) / (2 * capacity)
    usable = (squared > 0) & (radius > 1.01 * growth)
    radius = jnp.where(usable, radius, 2 * growth)
    logarithm = centre + capacity * (radius + focus / radius) - order * jnp.log(radius)
    second_kind = 2 * (1 + jnp.abs(focus) / growth) / (1 - jnp.abs(focus) / growth**2)
    amplification = second_kind * growth / (radius - growth)
    return jnp.where(usable, jnp.exp(logarithm) * amplification, jnp.inf)


def _adaptive_sum(step, state, expansion, tolerance):
    """Sum terms, a block at a time, until the bound on the rest is below the tolerance; also count the blocks.

    All lanes of a vmap run until the last has converged: that costs no selections in the loop.
    """
    limit = tolerance * _norm(state)

    def unfinished(carry):
        block, *_, error = carry
        return (block < MAX_BLOCKS) & eqxi.unvmap_any(error > limit)

    def add_block(carry):
        block, previous, current, total, _ = carry
        previous, current, total = _add_terms(step, expansion, block, previous, current, total)
        error = expansion.tail[BLOCK * (block + 1)] * jnp.maximum(_norm(previous), _norm(current))
        return block + 1, previous, current, total, error

    start = (jnp.int32(0), *_first_terms(step, state, expansion), jnp.full_like(limit, jnp.inf))
    block, _, _, total, error = lax.while_loop(unfinished, add_block, start)
    return jnp.where(error <= limit, total, jnp.nan), block


def _fixed_sum(step, state, expansion, blocks):
    """Sum a given number of blocks of terms, differentiably."""

    def add_block(block, carry):
        return _add_terms(step, expansion, block, *carry)

    return _bounded_loop(add_block, blocks, _first_terms(step, state, expansion), MAX_BLOCKS)[-1]


def _first_terms(step, state, expansion):
    """2 F_0 x, F_1 x and the sum of the first two terms; the 2 makes the recurrence the same from F_2 on."""
    current = step(state)
    return 2 * state, current, expansion.coefficients[0] * state + expansion.coefficients[1] * current


def _add_terms(step, expansion, block, previous, current, total):
    """Add one block of terms, two at a time in place of two buffers, so that nothing is copied around.

    A loop and not a longer body: the compiler would fuse across the terms and evaluate each of them many times.
    """

    def add_two(pair, carry):
        previous, current, total = carry
        previous = step(current) - expansion.focus * previous
        current = step(previous) - expansion.focus * current
        n = 2 + BLOCK * block + 2 * pair
        total = total + (expansion.coefficients[n] * previous + expansion.coefficients[n + 1] * current)
        return previous, current, total

    return lax.fori_loop(0, BLOCK // 2, add_two, (previous, current, total))


def _norm(state):
    return jnp.sqrt(jnp.vdot(state, state))


def _bounded_loop(body: Callable[..., PyTree], count: Int[Array, ""], state: PyTree, bound: int) -> PyTree:
    """fori_loop(0, count, body, state) for count <= bound, with a reverse mode.

    A tree of short scans whose branches are skipped beyond count. The reverse mode keeps the state before every
    iteration and computes the rest again.
    """
    body, width = jax.checkpoint(body, prevent_cse=False), 1
    while width < bound:
        body, width = partial(_bounded_branch, body, width, count), width * BRANCHES
    return body(jnp.zeros_like(count), state)


def _bounded_branch(body, width, count, branch, state):
    """Consecutive calls of a body that itself stands for `width` iterations."""

    def visit(state, leaf):
        return lax.cond(leaf * width < count, partial(body, leaf), lambda x: x, state), None

    return lax.scan(visit, state, branch * BRANCHES + jnp.arange(BRANCHES, dtype=count.dtype))[0]


def _apply(generator: Generator, coefficients: Any, state: Array) -> Array:
    """generator.apply with the transpose that the generator gives: one primitive that is linear in the state."""
    leaves, tree = jax.tree.flatten(coefficients)
    return _apply_p.bind(*leaves, state, generator=generator, tree=tree)


def _apply_implementation(*operands, generator, tree):
    return generator.apply(jax.tree.unflatten(tree, operands[:-1]), operands[-1])


def _apply_jvp(primals, tangents, *, generator, tree):
    bind = partial(_apply_p.bind, generator=generator, tree=tree)
    *leaves, state = primals
    *leaves_dot, state_dot = tangents
    changes = [] if type(state_dot) is ad.Zero else [bind(*leaves, state_dot)]
    if any(type(leaf) is not ad.Zero for leaf in leaves_dot):
        leaves_dot = tuple(ad.instantiate_zeros(leaf) for leaf in leaves_dot)
        implementation = partial(_apply_implementation, generator=generator, tree=tree)
        _, change = jax.jvp(lambda *leaves: implementation(*leaves, state), tuple(leaves), leaves_dot)
        changes.append(change)
    return bind(*primals), sum(changes[1:], start=changes[0])


def _apply_transpose(cotangent, *operands, generator, tree):
    leaves = operands[:-1]
    if type(cotangent) is ad.Zero:
        return [None] * len(operands)
    adjoint = generator.adjoint(jax.tree.unflatten(tree, leaves))
    return [*[None] * len(leaves), _apply(generator, adjoint, cotangent)]


def _apply_batch(operands, axes, *, generator, tree):
    (size,) = {x.shape[axis] for x, axis in zip(operands, axes, strict=True) if axis is not None}

    def spread(x, axis):
        return jnp.broadcast_to(x, (size, *x.shape)) if axis is None else jnp.moveaxis(x, axis, 0)

    *leaves, state = operands
    shared = all(axis is None for axis in axes[:-1])
    if not shared:
        leaves = [spread(x, axis) for x, axis in zip(leaves, axes, strict=False)]
    lanes = _batched(generator, shared)
    return _apply_p.bind(*leaves, spread(state, axes[-1]), generator=lanes, tree=tree), 0


@lru_cache(maxsize=256)
def _batched(generator: Generator, shared: bool) -> Generator:
    """The generator for a leading axis of states, each with its own coefficients or all sharing them."""
    if shared:
        return Generator(jax.vmap(generator.apply, in_axes=(None, 0)), generator.adjoint)
    return Generator(jax.vmap(generator.apply), jax.vmap(generator.adjoint))


_apply_p = Primitive("linear_generator")
_apply_p.def_impl(_apply_implementation)
_apply_p.def_abstract_eval(lambda *operands, **_: operands[-1])
ad.primitive_jvps[_apply_p] = _apply_jvp
ad.primitive_transposes[_apply_p] = _apply_transpose
batching.primitive_batchers[_apply_p] = _apply_batch
mlir.register_lowering(_apply_p, mlir.lower_fun(_apply_implementation, multiple_results=False))
