r"""The exponential of a real linear generator acting on a state, $e^{L t} x$, without forming a matrix.

The exponential is expanded in Faber polynomials (`faber`; Chebyshev polynomials up to scaling; imaginary foci, $q < 0$,
keep the recurrence real), of $B = (A - c) / \gamma$ with $A = L t$:

$$ e^{A} = \sum_n c_n F_n(A), \qquad F_0 = 1, \quad F_1 = B, \quad F_2 = B F_1 - 2 q F_0, \quad
   F_{n+1} = B F_n - q F_{n-1} . $$

The sum stops as soon as a rigorous bound on everything left out is below the tolerance. The bound combines two
things: the norms of the last two terms, which are known, and the growth of $F_n(A)$, which an ellipse around
the numerical range of $A$ limits (`Enclosure`). Where the generator is too large for one expansion the time is cut
into equal sub-steps, at run time.

The derivative is that of the sum. In reverse mode, with the slope $y$ at the end,

$$ \lambda_n = c_n y + B^T \lambda_{n+1} - q \lambda_{n+2} \; (2 q \text{ at } n = 0), \qquad
   \delta x = \lambda_0, \qquad \delta B = \sum_n \lambda_{n+1} (F_n x)^T, $$

one more run that keeps the terms, one adjoint run, and elementwise products of the two.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import NamedTuple

import equinox.internal as eqxi
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, PyTree

from morphax.dynamics.faber import MAX_TERMS, Enclosure, Expansion, expand
from morphax.dynamics.generator import Generator, framed, inner, placed
from morphax.dynamics.linear_map import LinearMap

MAX_SUBSTEPS = 64
"""Largest number of sub-steps that can be differentiated."""

BLOCK = 8
"""Number of terms between two looks at the error."""

MAX_BLOCKS = (MAX_TERMS - 2) // BLOCK

KEPT = 128
"""Number of terms that the reverse mode keeps at a time; memory for more would cost more than it saves."""

BRANCHES = 8
"""Length of the scans that differentiable loops of bounded length are made of."""


def exponential_action(
    generator: Generator,
    coefficients: Float[Array, " coefficients"],
    state: Float[Array, "rows columns"],
    time: Float[Array, ""] | float,
    enclosure: Enclosure,
    tolerance: float | None = None,
) -> Float[Array, "rows columns"]:
    r"""The state after a time under a constant generator, $e^{L t} x$.

    Jit, vmap, forward- and reverse-mode derivatives (of any order, with respect to the coefficients, the state and
    the time) all work; the lanes of a vmap share the number of sub-steps and of terms of the slowest lane. A gradient
    costs three to six values, more where there are many sub-steps, and keeps `KEPT` states; second derivatives take
    the reverse mode that JAX derives, which is several times slower.

    Parameters
    ----------
    generator
        L, a sum of known matrices.
    coefficients
        Real numbers that the generator is linear in.
    state
        Real matrix; single or double precision.
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
    coefficients, time, enclosure = jax.tree.map(
        lambda x: jnp.asarray(x, state.dtype), (coefficients, time, lax.stop_gradient(enclosure))
    )
    return _exponential_action(generator, tolerance, coefficients, state, time, enclosure)[0]


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _exponential_action(generator, tolerance, coefficients, state, time, enclosure):
    """As few terms as this very state needs, and the largest number of blocks of terms that a sub-step took."""
    expansion = expand(enclosure, time)
    terms = _recurrence(generator, coefficients, time, expansion)

    def substep(_, carry):
        state, most = carry
        state, blocks = _adaptive_sum(terms, state, expansion, tolerance)
        return state, jnp.maximum(most, blocks)

    return lax.fori_loop(0, expansion.substeps, substep, (state, jnp.int32(0)))


@_exponential_action.defjvp
def _exponential_action_jvp(generator, tolerance, primals, tangents):
    coefficients, state, time, enclosure = primals
    image, blocks = _exponential_action(generator, tolerance, *primals)
    expansion = expand(enclosure, time)
    blocks = jnp.maximum(blocks, _least_blocks(expansion, tolerance))
    enough = lax.stop_gradient((expansion.substeps <= MAX_SUBSTEPS) & jnp.all(jnp.isfinite(image)))
    run = _Run(coefficients, state, time, expansion, blocks, jnp.where(enough, 1, jnp.nan).astype(state.dtype))
    return (image, blocks), (_derivative(generator)(run, tangents[:3]), np.zeros((), jax.dtypes.float0))


def _least_blocks(expansion, tolerance):
    """Blocks after which little is left of any state: a derivative has directions that the state itself may lack.

    On the ellipse the norm of F_n is at most 2, and n times that stands for its derivative.
    """
    order = jnp.arange(MAX_TERMS)
    beyond = jnp.cumsum((2 * order * jnp.abs(expansion.coefficients))[::-1])[::-1]
    terms = jnp.sum(beyond > tolerance)
    return jnp.clip((terms + BLOCK - 3) // BLOCK, 1, MAX_BLOCKS).astype(jnp.int32)


class _Run(NamedTuple):
    """What a derivative is taken at; `valid` is 1, or NaN where there is none."""

    coefficients: Float[Array, " coefficients"]
    state: Float[Array, "rows columns"]
    time: Float[Array, ""]
    expansion: Expansion
    blocks: Int[Array, ""]
    valid: Float[Array, ""]

    @property
    def pairs(self) -> Int[Array, ""]:
        """Pairs of terms beyond the first: two more than the sum took, for the factor n of differentiation."""
        return eqxi.unvmap_max(jnp.minimum(BLOCK // 2 * self.blocks + 2, MAX_TERMS // 2 - 1))


@lru_cache(maxsize=256)
def _derivative(generator: Generator) -> LinearMap:
    """(_Run, (change of coefficients, state and time)) -> change of the state at the end."""
    return LinearMap(partial(_tangent, generator), partial(_cotangent, generator), partial(_smooth_tangent, generator))


class _Recurrence(NamedTuple):
    """F_n x for n = 0, 1, ..., two at a time in place of two framed buffers, so that nothing is copied around.

    `step` is B of a framed state, without the frame. The recurrence is the same from F_2 on if it begins with 2 F_0.
    """

    step: Callable[[Array], Array]
    focus: Float[Array, ""]
    margin: int

    def begin(self, state: Array) -> tuple[Array, Array]:
        """2 F_0 x and F_1 x."""
        first = framed(state, self.margin)
        return 2 * first, framed(self.step(first), self.margin)

    def next(self, beside: Array, before: Array) -> Array:
        """F_(n+1) x from F_n x and F_(n-1) x."""
        return self.step(beside) - self.focus * self.inner(before)

    def advance(self, previous: Array, current: Array) -> tuple[Array, Array]:
        previous = self.placed(previous, self.next(current, previous))
        return previous, self.placed(current, self.next(previous, current))

    def inner(self, state: Array) -> Array:
        return inner(state, self.margin)

    def placed(self, state: Array, rows: Array) -> Array:
        return placed(state, rows, self.margin)

    def begin_sum(self, state: Array, expansion: Expansion) -> tuple[Array, Array, Array]:
        """The first two terms and their sum."""
        previous, current = self.begin(state)
        c = expansion.coefficients
        return previous, current, c[0] * state + c[1] * self.inner(current)

    def add(self, expansion: Expansion, pair: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        """Terms 2 + 2 pair and 3 + 2 pair.

        Loops call it, and nothing longer: the compiler would fuse across terms and evaluate each of them many times.
        """
        previous, current, total = carry
        previous, current = self.advance(previous, current)
        c, n = expansion.coefficients, 2 + 2 * pair
        return previous, current, total + (c[n] * self.inner(previous) + c[n + 1] * self.inner(current))

    def add_block(
        self, expansion: Expansion, block: Array, sums: tuple[Array, Array, Array]
    ) -> tuple[Array, Array, Array]:
        """The terms between two looks at the error."""
        first = BLOCK // 2 * block
        return lax.fori_loop(0, BLOCK // 2, lambda i, sums: self.add(expansion, first + i, sums), sums)


def _recurrence(generator, coefficients, time, expansion, transposed=False) -> _Recurrence:
    terms = generator.terms(_rate(time, expansion) * coefficients)
    terms = generator.transposed(terms) if transposed else terms
    shift = expansion.centre / expansion.capacity

    def step(state):
        return generator.apply(terms, state) - shift * inner(state, generator.margin)

    return _Recurrence(step, expansion.focus, generator.margin)


def _rate(time, expansion):
    """Of A = L time / substeps in units of the capacity."""
    return time / (expansion.substeps * expansion.capacity)


def _adaptive_sum(terms, state, expansion, tolerance):
    """Sum terms, a block at a time, until the bound on the rest is below the tolerance; also count the blocks.

    All lanes of a vmap run until the last has converged: that costs no selections in the loop.
    """
    limit = tolerance * _norm(state)

    def unfinished(carry):
        block, *_, error = carry
        return (block < MAX_BLOCKS) & eqxi.unvmap_any(error > limit)

    def add_block(carry):
        block, *sums, _ = carry
        sums = terms.add_block(expansion, block, tuple(sums))
        largest = jnp.maximum(_norm(sums[0]), _norm(sums[1]))
        # Nothing is left of a state of zeros, also where the bound is infinite.
        error = jnp.where(largest == 0, 0, expansion.tail[BLOCK * (block + 1)] * largest)
        return block + 1, *sums, error

    start = (jnp.int32(0), *terms.begin_sum(state, expansion), jnp.full_like(limit, jnp.inf))
    block, _, _, total, error = lax.while_loop(unfinished, add_block, start)
    return jnp.where(error <= limit, total, jnp.nan), block


def _norm(state):
    return jnp.sqrt(jnp.vdot(state, state))


def _tangent(generator, run, changes):
    """Terms and their changes side by side."""
    coefficients_dot, state_dot, time_dot = changes
    expansion = run.expansion
    terms = _recurrence(generator, run.coefficients, run.time, expansion)
    changed = partial(generator.apply, generator.terms(_rate(run.time, expansion) * coefficients_dot))
    c = expansion.coefficients

    def substep(_, carry):
        state, change = carry
        previous, current, total = terms.begin_sum(state, expansion)
        previous_dot, current_dot = terms.begin(change)
        current_dot = terms.placed(current_dot, terms.inner(current_dot) + changed(previous) / 2)
        total_dot = c[0] * change + c[1] * terms.inner(current_dot)

        def add(pair, carry):
            previous, current, total, previous_dot, current_dot, total_dot = carry
            n = 2 + 2 * pair
            previous_dot = terms.placed(previous_dot, terms.next(current_dot, previous_dot) + changed(current))
            previous, current, total = terms.add(expansion, pair, (previous, current, total))
            current_dot = terms.placed(current_dot, terms.next(previous_dot, current_dot) + changed(previous))
            total_dot = total_dot + (c[n] * terms.inner(previous_dot) + c[n + 1] * terms.inner(current_dot))
            return previous, current, total, previous_dot, current_dot, total_dot

        start = previous, current, total, previous_dot, current_dot, total_dot
        _, _, total, _, _, total_dot = lax.fori_loop(0, run.pairs, add, start)
        return total, total_dot

    state, change = lax.fori_loop(0, expansion.substeps, substep, (run.state, state_dot))
    return run.valid * (change + time_dot * _drift(generator, run.coefficients, state))


def _drift(generator, coefficients, state):
    """L x, which is the derivative with respect to the time."""
    return generator.apply(generator.terms(coefficients), framed(state, generator.margin))


def _cotangent(generator, run, slope):
    """The transpose of `_tangent`."""
    substeps, blank = run.expansion.substeps, framed(jnp.zeros_like(run.state), generator.margin)
    nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(generator.slopes, blank, blank))
    back = partial(_back, generator, run)

    def several():
        """Sub-steps from the last to the first, from the states between them."""
        terms = _recurrence(generator, run.coefficients, run.time, run.expansion)

        def keep(i, carry):
            states, state = carry
            sums = terms.begin_sum(state, run.expansion)
            return states.at[i].set(state), lax.fori_loop(0, run.pairs, partial(terms.add, run.expansion), sums)[-1]

        states = jnp.zeros((MAX_SUBSTEPS, *slope.shape), slope.dtype)
        states, last = lax.fori_loop(0, substeps - 1, keep, (states, run.state))
        carry = back(last, slope, nothing)
        return lax.fori_loop(1, substeps, lambda i, carry: back(states[substeps - 1 - i], *carry), carry)

    slope, sums = lax.cond(substeps > 1, several, lambda: back(run.state, slope, nothing))
    found = (
        _rate(run.time, run.expansion) * generator.gathered(sums),
        slope,
        jnp.vdot(slope, _drift(generator, run.coefficients, run.state)),
    )
    return jax.tree.map(lambda x: run.valid * x, found)


def _back(generator, run, state, slope, sums):
    """One sub-step backwards: the slope at its start, and what the coefficients' slopes are gathered from."""
    expansion, q, c = run.expansion, run.expansion.focus, run.expansion.coefficients
    terms = _recurrence(generator, run.coefficients, run.time, expansion)
    adjoint = _recurrence(generator, run.coefficients, run.time, expansion, transposed=True)
    count = 2 * run.pairs + 2
    chunks = (count + KEPT - 1) // KEPT
    blank = framed(jnp.zeros_like(state), generator.margin)

    def chunk(i, carry):
        start = KEPT * (chunks - 1 - i)
        pairs = jnp.minimum(count - start, KEPT) // 2
        begun = lax.fori_loop(0, start // 2, lambda _, pair: terms.advance(*pair), terms.begin(state))

        def keep(pair, carry):
            kept, *pair_of_terms = carry
            previous, current = terms.advance(*pair_of_terms)
            kept = kept.at[2 * pair].set(terms.inner(previous)).at[2 * pair + 1].set(terms.inner(current))
            return kept, previous, current

        halved = jnp.where(start == 0, 0.5, 1).astype(state.dtype)  # The recurrence begins with twice F_0.
        kept = jnp.zeros((KEPT, *state.shape), state.dtype)
        kept = kept.at[0].set(halved * terms.inner(begun[0])).at[1].set(terms.inner(begun[1]))
        kept, *_ = lax.fori_loop(1, pairs, keep, (kept, *begun))

        def add(pair, carry):
            after, beyond, odd, even, sums = carry
            place = 2 * (pairs - 1 - pair)
            n = start + place
            odd, even = terms.placed(odd, kept[place + 1]), terms.placed(even, kept[place])
            beyond = adjoint.placed(beyond, c[n + 1] * slope + adjoint.next(after, beyond))
            found = generator.slopes(after, odd), generator.slopes(beyond, even)
            sums = jax.tree.map(lambda total, a, b: total + (a + b), sums, *found)
            last = adjoint.step(beyond) - jnp.where(n == 0, 2 * q, q) * adjoint.inner(after)
            return adjoint.placed(after, c[n] * slope + last), beyond, odd, even, sums

        after, beyond, sums = carry
        after, beyond, _, _, sums = lax.fori_loop(0, pairs, add, (after, beyond, blank, blank, sums))
        return after, beyond, sums

    start, _, sums = lax.fori_loop(0, chunks, chunk, (blank, blank, sums))
    return adjoint.inner(start), sums


def _smooth_tangent(generator, run, changes):
    action = partial(_smooth_action, generator, run)
    return jax.jvp(action, (run.coefficients, run.state, run.time), changes)[1]


def _smooth_action(generator, run, coefficients, state, time):
    """The action with loops of bounded length, which JAX can differentiate any number of times."""
    expansion, blocks = run.expansion, eqxi.unvmap_max(jnp.minimum(run.blocks + 1, MAX_BLOCKS))

    @jax.checkpoint
    def evolve(coefficients, state, time):
        product = partial(_product(generator), generator.terms(_rate(time, expansion) * coefficients))
        shift = expansion.centre / expansion.capacity
        terms = _Recurrence(lambda x: product(x) - shift * x, expansion.focus, 0)

        add_block = partial(terms.add_block, expansion)

        def substep(_, state):
            return _bounded_loop(add_block, blocks, terms.begin_sum(state, expansion), MAX_BLOCKS)[-1]

        return _bounded_loop(substep, expansion.substeps, state, MAX_SUBSTEPS)

    # A factor, and not a choice, so that the derivatives are NaN too.
    return run.valid * evolve(coefficients, state, time)


@lru_cache(maxsize=256)
def _product(generator: Generator) -> LinearMap:
    """(terms, state) -> L x; the derived transpose of shifts and slices is several times slower."""

    def apply(terms, state):
        return generator.apply(terms, framed(state, generator.margin))

    def transpose(terms, state):
        return apply(generator.transposed(terms), state)

    return LinearMap(apply, transpose, apply)


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
