"""Whether a driven device forgets where it started, and how soon."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray

from morphax._checks import check_count
from morphax.substrates.base import State, Substrate, stepped


def lyapunov_exponents(
    substrate: Substrate,
    drives: Float[Array, "time ..."],
    count: int = 4,
    *,
    washout: int = 200,
    state: State | None = None,
    key: PRNGKeyArray | None = None,
) -> Float[np.ndarray, " count"]:
    r"""Conditional Lyapunov exponents: how fast states grow apart, or together, under one input, per input interval.

    $$\lambda_i = \frac{1}{T} \sum_t \ln |R_{ii}(t)|, \qquad
      Q(t) R(t) = \frac{\partial s(t)}{\partial s(t - 1)} Q(t - 1)$$

    A negative largest exponent means that the device follows its input: after $-1 / \lambda_1$ intervals the distance
    of two states has fallen by e (`forgetting_time`), at once where the exponent is minus infinity. Complex numbers of
    a state count as two.

    **Arguments:**

    - `substrate`: one whose step has exact derivatives.
    - `drives`: inputs; the more, the smaller the error, which falls as one over the root of their number.
    - `count`: how many exponents, the largest first; at most as many as the state has numbers.
    - `washout`: inputs that go ahead.
    - `state`: where to start; by default the substrate's own initial state.
    - `key`: for a substrate with noise: both states that are compared meet the same.

    **Raises:** `ValueError` for a substrate whose derivatives are others than those of its step, or fewer drives than
    `washout` + 1.

    Source: Benettin et al., Meccanica 15, 9 (1980), with the input held the same.

        >>> import jax
        >>> from morphax import JosephsonMixer
        >>> from morphax.judging import lyapunov_exponents
        >>> mixer = JosephsonMixer.two_mode()       # half of the mean damping rate, 19 / us, times 100 ns
        >>> found = lyapunov_exponents(mixer, jax.random.uniform(jax.random.key(0), (400,)), 1)
        >>> round(float(found[0]), 3)
        -0.95
    """
    check_count("washout", washout, 0, len(drives) - 1)
    if not substrate.exact_derivatives:
        raise ValueError(
            f"the step of {type(substrate).__name__} has other derivatives than its own; start it twice and compare "
            "instead (consistency)"
        )
    first, per_step = (None, None) if key is None else tuple(jax.random.split(key))
    start = substrate.initial_state(key=first) if state is None else state
    check_count("count", count, 1, size_of(start))
    keys = None if per_step is None else jax.random.split(per_step, len(drives))
    return np.asarray(_exponents(substrate, jnp.asarray(drives), keys, start, count, washout))


def size_of(state: State) -> int:
    """How many real numbers a state has."""
    return len(_numbers(state)[0])


def forgetting_time(exponents: Float[np.ndarray, " count"]) -> float:
    r"""$-1 / \lambda_1$ in input intervals: when the distance of two states has fallen by e; infinite if it grows."""
    largest = float(np.max(exponents))
    return -1.0 / largest if largest < 0 else float("inf")


@eqx.filter_jit
def _exponents(
    substrate: Substrate, drives: Array, keys: Array | None, start: State, count: int, washout: int
) -> Float[Array, " count"]:
    step = substrate.stepper()
    flat, back = _numbers(start)

    def after(numbers: Array, drive: Array, key: Array | None) -> Array:
        return _numbers(stepped(step, back(numbers), drive, key=key))[0]

    def advance(carry: tuple[Array, Array], given: tuple[Array, Array | None]) -> tuple[tuple[Array, Array], Array]:
        numbers, directions = carry
        drive, key = given
        following, push = jax.linearize(lambda each: after(each, drive, key), numbers)
        directions, triangle = jnp.linalg.qr(jax.vmap(push, 1, 1)(directions))
        return (following, directions), jnp.log(jnp.abs(jnp.diag(triangle)))

    # Directions of a random rotation: those of the axes may be blind to each other.
    directions = jnp.linalg.qr(jax.random.normal(jax.random.key(0), (len(flat), count), flat.dtype))[0]
    _, growth = jax.lax.scan(advance, (flat, directions), (drives, keys))
    return jnp.mean(growth[washout:], axis=0)


def _numbers(state: State):
    """A state as real numbers, and the way back."""
    parts, rest = eqx.partition(state, eqx.is_inexact_array)
    split = jax.tree.map(lambda leaf: (leaf.real, leaf.imag) if jnp.iscomplexobj(leaf) else leaf, parts)
    flat, unravel = ravel_pytree(split)
    complexes = jax.tree.map(jnp.iscomplexobj, parts)

    def back(numbers: Array) -> State:
        joined = jax.tree.map(
            lambda is_complex, leaf: jax.lax.complex(*leaf) if is_complex else leaf, complexes, unravel(numbers)
        )
        return eqx.combine(joined, rest)

    return flat, back
