"""How much a substrate remembers and computes: NARMA, linear memory, information processing capacity."""

from collections.abc import Sequence
from functools import partial
from itertools import combinations_with_replacement

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from morphax._checks import check_count, check_key
from morphax.tasks._points import check_points
from morphax.tasks.base import Task

LARGEST_ORDER = 10  # of NARMA: beyond it divergence is the rule (38 % of 2000-point sequences at 11, 99.6 % at 12)
BOUND = 2.0  # a NARMA output above it never comes back
ATTEMPTS = 100

Product = tuple[tuple[int, int], ...]
"""The factors of a target, each (delay, degree)."""


def narma(
    order: int = 10,
    train_points: int = 1000,
    test_points: int = 1000,
    *,
    washout: int = 100,
    key: PRNGKeyArray,
) -> Task:
    r"""Imitate a nonlinear autoregressive moving average (NARMA) of its random input.

    $$y(t + 1) = 0.3 \, y(t) + 0.05 \, y(t) \sum_{i=0}^{n-1} y(t - i) + 1.5 \, u(t - n + 1) \, u(t) + 0.1,
      \qquad u \sim U[0, 0.5]$$

    starting from rest ($y = u = 0$ before the first point). The target beside input $u(t)$ is $y(t + 1)$.

    The recurrence can diverge: at order 10 one sequence of 2000 points in about 100 does. A sequence that leaves
    $|y| \le 2$ is drawn again from a new key, at most 100 times, also under `jit` and `vmap`. The inputs are thus
    independent and uniform *given that the output stays bounded*. Orders above 10 diverge as a rule and are refused.

    **Arguments:**

    - `order`: how far the system looks back, $n$ from 1 to 10.
    - `train_points`, `test_points`: numbers of points.
    - `washout`: training points that drive the substrate but enter no fit, from 0 to `train_points - 1`.
    - `key`: random key; it draws the inputs.

    **Returns:** a regression `Task` with inputs of shape (time,) and targets of shape (time, 1).

    **Raises:** `ValueError` for a value outside the ranges above; an Equinox runtime error when 100 sequences diverged,
    to be expected only for a million points and more.

    Source: Atiya & Parlos, IEEE Trans. Neural Networks 11, 697 (2000), at order 10.

        >>> import jax
        >>> from morphax.tasks.memory import narma
        >>> task = narma(key=jax.random.key(0))
        >>> task.train_inputs.shape, task.train_targets.shape
        ((1000,), (1000, 1))
    """
    check_key("key", key)
    check_count("order", order, 1, LARGEST_ORDER)
    check_points(train_points, test_points, washout)
    inputs, outputs = _bounded_narma(key, order=order, points=train_points + test_points)
    return _task(inputs, outputs[:, None], train_points, washout, "Atiya & Parlos 2000")


def linear_memory(
    delays: Sequence[int] = tuple(range(1, 41)),
    train_points: int = 1000,
    test_points: int = 1000,
    *,
    washout: int = 100,
    key: PRNGKeyArray,
) -> Task:
    r"""Recall past inputs: $u(t - k)$ for every delay $k$, from independent inputs $u \sim U[-1, 1]$.

    The memory capacity is the sum over $k$ of the squared correlations between target and fitted output.

    **Arguments:**

    - `delays`: the delays $k \ge 0$ in points, one target column each, in this order.
    - `train_points`, `test_points`: numbers of points.
    - `washout`: training points that drive the substrate but enter no fit, from the longest delay (earlier targets
      are inputs which the substrate never saw) to `train_points - 1`.
    - `key`: random key; it draws the inputs.

    **Returns:** a regression `Task` with inputs of shape (time,) and targets of shape (time, delays).

    **Raises:** `ValueError` for a value outside the ranges above.

    Source: Jaeger, "Short term memory in echo state networks", GMD Report 152 (2001).

        >>> import jax
        >>> from morphax.tasks.memory import linear_memory
        >>> task = linear_memory(delays=(1, 5), key=jax.random.key(0))
        >>> bool((task.train_targets[5:, 1] == task.train_inputs[:-5]).all())
        True
    """
    check_key("key", key)
    if not len(delays):
        raise ValueError("delays is empty; it must name at least one delay >= 0")
    for index, delay in enumerate(delays):
        check_count(f"delays[{index}]", delay, 0)
    check_points(train_points, test_points, washout)
    _check_washout(washout, max(delays))
    inputs, windows = _uniform_windows(key, train_points + test_points, max(delays))
    return _task(inputs, windows[:, jnp.asarray(delays)], train_points, washout, "Jaeger 2001")


def information_processing(
    max_delay: int | Sequence[int] = 10,
    max_degree: int = 3,
    train_points: int = 1000,
    test_points: int = 1000,
    *,
    washout: int = 100,
    key: PRNGKeyArray,
) -> Task:
    r"""Compute every polynomial of past inputs: the targets of the information processing capacity.

    $$y(t) = \prod_i \sqrt{2 d_i + 1} \; P_{d_i}\!\left(u(t - k_i)\right), \qquad \sum_i d_i \le D,
      \qquad u \sim U[-1, 1]$$

    with Legendre polynomials $P_d$ and distinct delays $k_i$. The targets have zero mean and unit variance and are
    mutually uncorrelated, so the capacities add up to at most the number of independent observables of the substrate.

    **Arguments:**

    - `max_delay`, `max_degree`: see `legendre_products`, which lists the columns.
    - `train_points`, `test_points`: numbers of points.
    - `washout`: training points that drive the substrate but enter no fit, from the longest delay (earlier targets
      depend on inputs which the substrate never saw) to `train_points - 1`.
    - `key`: random key; it draws the inputs.

    **Returns:** a regression `Task` with inputs of shape (time,) and targets of shape (time, products).

    **Raises:** `ValueError` for a value outside the ranges above.

    Source: Dambre, Verstraeten, Schrauwen & Massar, Scientific Reports 2, 514 (2012).

        >>> import jax
        >>> from morphax.tasks.memory import information_processing, legendre_products
        >>> task = information_processing(max_delay=2, max_degree=2, key=jax.random.key(0))
        >>> task.train_targets.shape[1] == len(legendre_products(max_delay=2, max_degree=2))
        True
    """
    check_key("key", key)
    products = legendre_products(max_delay, max_degree)
    check_points(train_points, test_points, washout)
    longest = max(delay for product in products for delay, _ in product)
    _check_washout(washout, longest)
    inputs, windows = _uniform_windows(key, train_points + test_points, longest)
    polynomials = _normalised_legendre(windows, max_degree)
    targets = jnp.ones((inputs.size, len(products)), inputs.dtype)
    for factor in np.moveaxis(_padded(products, max_degree), 1, 0):  # one gather a factor; (0, 0) stands for 1
        targets = targets * polynomials[:, factor[:, 0], factor[:, 1]]
    return _task(inputs, targets, train_points, washout, "Dambre et al. 2012")


def legendre_products(max_delay: int | Sequence[int] = 10, max_degree: int = 3) -> tuple[Product, ...]:
    """The target columns of `information_processing` in order: the factors (delay, degree) of each product.

    **Arguments:**

    - `max_delay`: longest delay, at least 0; or a sequence with the longest delay for total degree 1, 2, ...,
      as nonlinear memory is shorter than linear memory.
    - `max_degree`: largest total degree, at least 1.

    **Returns:** products by rising total degree, then by delays; within a product delays rise.

    **Raises:** `ValueError` for a value out of range or a sequence whose length is not `max_degree`.

        >>> from morphax.tasks.memory import legendre_products
        >>> legendre_products(max_delay=1, max_degree=2)
        (((0, 1),), ((1, 1),), ((0, 2),), ((0, 1), (1, 1)), ((1, 2),))
        >>> len(legendre_products(max_delay=(20, 4), max_degree=2))
        36
    """
    check_count("max_degree", max_degree, 1)
    longest = [max_delay] * max_degree if isinstance(max_delay, int | np.integer) else list(max_delay)
    if len(longest) != max_degree:
        raise ValueError(f"max_delay has {len(longest)} values; it must have one for each of {max_degree} degrees")
    for delay in longest:
        check_count("max_delay", delay, 0)
    return tuple(
        tuple((delay, delays.count(delay)) for delay in sorted(set(delays)))
        for degree, last in enumerate(longest, start=1)
        for delays in combinations_with_replacement(range(last + 1), degree)
    )


@partial(jax.jit, static_argnames=("order", "points"))
def _bounded_narma(
    key: PRNGKeyArray, *, order: int, points: int
) -> tuple[Float[Array, " points"], Float[Array, " points"]]:
    """Inputs and outputs of the first sequence, of at most `ATTEMPTS`, that does not diverge."""

    def inputs(attempt: Array) -> Float[Array, " points"]:
        return jax.random.uniform(jax.random.fold_in(key, attempt), (points,), maxval=0.5)

    def diverges(attempt: Array) -> Bool[Array, ""]:
        return ~(narma_outputs(inputs(attempt), order).max() <= BOUND)

    chosen = jax.lax.while_loop(
        lambda attempt: (attempt < ATTEMPTS) & diverges(attempt), lambda attempt: attempt + 1, jnp.zeros((), int)
    )
    chosen = eqx.error_if(
        chosen, chosen == ATTEMPTS, f"all {ATTEMPTS} NARMA sequences of {points} points diverged: ask for fewer points"
    )
    return inputs(chosen), narma_outputs(inputs(chosen), order)


def narma_outputs(inputs: Float[Array, " points"], order: int) -> Float[Array, " points"]:
    """y(1), y(2), ... of the recurrence driven by u(0), u(1), ... from rest."""

    def advance(last: Array, drive: tuple[Array, Array]) -> tuple[Array, Array]:
        present, earliest = drive
        following = 0.3 * last[0] + 0.05 * last[0] * last.sum() + 1.5 * earliest * present + 0.1
        return jnp.concatenate([following[None], last[:-1]]), following

    earliest = jnp.concatenate([jnp.zeros(order - 1, inputs.dtype), inputs])[: inputs.size]
    return jax.lax.scan(advance, jnp.zeros(order, inputs.dtype), (inputs, earliest))[1]


def _uniform_windows(
    key: PRNGKeyArray, points: int, longest: int
) -> tuple[Float[Array, " points"], Float[Array, "points delays"]]:
    """Uniform inputs in [-1, 1], and beside each the inputs 0, 1, ... `longest` points ago."""
    inputs = jax.random.uniform(key, (longest + points,), minval=-1.0, maxval=1.0)
    ago = jnp.arange(longest + 1)
    return inputs[longest:], inputs[longest + jnp.arange(points)[:, None] - ago]


def _normalised_legendre(x: Float[Array, "*shape"], max_degree: int) -> Float[Array, "*shape degrees"]:
    """sqrt(2 d + 1) P_d(x) for d = 0 ... max_degree by Bonnet's recursion."""
    values = [jnp.ones_like(x), x]
    for degree in range(1, max_degree):
        values.append(((2 * degree + 1) * x * values[-1] - degree * values[-2]) / (degree + 1))
    norms = jnp.sqrt(2 * jnp.arange(max_degree + 1, dtype=x.dtype) + 1)
    return jnp.stack(values, axis=-1) * norms


def _padded(products: tuple[Product, ...], factors: int) -> np.ndarray:
    """The products as one array (products, factors, 2), filled up with factors of degree 0."""
    return np.array([product + ((0, 0),) * (factors - len(product)) for product in products])


def _check_washout(washout: int, longest: int) -> None:
    if washout < longest:
        raise ValueError(f"washout is {washout}; it must be >= {longest}, the longest delay")


def _task(inputs: Array, targets: Array, train_points: int, washout: int, reference: str) -> Task:
    return Task(
        train_inputs=inputs[:train_points],
        train_targets=targets[:train_points],
        test_inputs=inputs[train_points:],
        test_targets=targets[train_points:],
        kind="regression",
        washout=washout,
        reference=reference,
    )
