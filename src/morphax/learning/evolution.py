"""Evolution strategies: a population around the weights, whose better half says where to go and how far."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from morphax._checks import check_count, check_range
from morphax.learning.rule import Asked, Metrics, check_whole_steps
from morphax.learning.zeroth_order import JudgedRule


class Population(NamedTuple):
    """What `CMAES` remembers: the distribution around the weights, and the paths that they took."""

    scale: Float[Array, ""]
    covariance: Float[Array, "weights weights"] | Float[Array, " weights"]
    path: Float[Array, " weights"]
    scaled_path: Float[Array, " weights"]
    generation: Int[Array, ""]


class CMAES(JudgedRule):
    r"""Learning rule: evolution strategy with covariance matrix adaptation (CMA-ES).

    Candidates $\theta + \sigma y_k$, $y_k \sim N(0, C)$, are ranked by their loss; the better half moves the weights,
    $\theta' = \theta + \sigma \sum_i w_i y_{(i)}$, and shapes $C$ and $\sigma$ of the next step. What comes out as
    gradient is $\theta - \theta'$, so the optimiser must be `optax.sgd(1.0)`. A loss that is not finite ranks last, and
    metrics are means over candidates that have one.

    **Arguments:** (besides those of `JudgedRule`)

    - `population`: candidates $\lambda \ge 4$; $4 + 3 \ln d$ for $d$ weights is usual, more where the loss is noisy.
    - `spread`: $\sigma$ of the first step, > 0, in the units of the weights.
    - `separable`: whether $C$ is diagonal: memory and time go with $d$, not $d^2$ and $d^3$.

    Source: Hansen, "The CMA evolution strategy: a tutorial", arXiv:1604.00772 (2016), with positive weights; Ros &
    Hansen, PPSN X, 296 (2008), for the separable one.

        >>> import jax, jax.numpy as jnp, optax
        >>> from morphax import Backpropagation, EchoStateNetwork, WithReadout, train
        >>> from morphax.learning.evolution import CMAES
        >>> network = WithReadout.random(EchoStateNetwork.random(8, key=jax.random.key(0)), 2, key=jax.random.key(1))
        >>> data = jax.random.normal(jax.random.key(2), (10, 4)), jnp.eye(2)[jnp.arange(10) % 2]
        >>> rule = CMAES(Backpropagation(), population=12)
        >>> history = train(network, rule, data, optax.sgd(1.0), 20, key=jax.random.key(3)).history
        >>> history[-1]["loss"] < history[0]["loss"], history.presentations[-1].item()
        (True, 2400)
    """

    population: int = eqx.field(static=True, default=16)
    spread: float | Float[Array, ""] = 0.1
    separable: bool = eqx.field(static=True, default=False)

    def __check_init__(self) -> None:
        check_count("population", self.population, 4)
        check_range("spread", self.spread, low=0.0, open_low=True)

    def check_optimiser(self, optimiser: optax.GradientTransformation, weights: PyTree) -> None:
        """Refuse what would change the step."""
        check_whole_steps(self, optimiser, weights)

    def memory(self, substrate: Any, *, key: PRNGKeyArray) -> Population:
        """A round distribution, and no path yet."""
        flat, _ = ravel_pytree(self._selected(substrate)[0])
        nothing = jnp.zeros_like(flat)
        covariance = jnp.ones_like(flat) if self.separable else jnp.eye(flat.size, dtype=flat.dtype)
        return Population(jnp.asarray(self.spread, flat.dtype), covariance, nothing, nothing, jnp.asarray(0))

    def cost(self, examples: int) -> Asked:
        """All examples for every candidate."""
        return Asked(self.population * self._presented(examples), self.population)

    def gradient(
        self, substrate: Any, inputs: Array, targets: Array, *, key: PRNGKeyArray, memory: Population | None = None
    ) -> tuple[Metrics, PyTree, Population]:
        """Mean metrics of the candidates, the step backwards, and the next distribution."""
        memory = self.memory(substrate, key=key) if memory is None else memory
        weights, rest = self._selected(substrate)
        flat, unflatten = ravel_pytree(weights)
        exists, _ = ravel_pytree(self._pruned(jax.tree.map(jnp.ones_like, weights), rest))
        which, noise = jax.random.split(key)
        shape, back = _root(memory.covariance), _root(memory.covariance, -1)
        steps = exists * jax.vmap(shape)(jax.random.normal(which, (self.population, flat.size), flat.dtype))

        def judged(item: tuple[Array, PRNGKeyArray]) -> Metrics:
            model = eqx.combine(unflatten(flat + item[0]), rest)
            return self.rule.metrics(model, inputs, targets, key=item[1])

        metrics = jax.lax.map(judged, (memory.scale * steps, jax.random.split(noise, self.population)))
        order = jnp.argsort(jnp.nan_to_num(metrics["loss"], nan=jnp.inf))
        best = steps[order[: self.population // 2]]
        change, memory = self._next(memory, best, back, jnp.sum(exists))
        finite = jnp.isfinite(metrics["loss"])
        means = jax.tree.map(lambda x: jnp.mean(x, axis=0, where=jnp.expand_dims(finite, range(1, x.ndim))), metrics)
        return means | self.cost(len(inputs)).reported(), unflatten(-change), memory

    def _next(self, memory: Population, best: Array, back: Any, d: Array) -> tuple[Array, Population]:
        """The change of the weights, and the distribution after it (Hansen, Eqs. 40-47)."""
        ranks = jnp.arange(1, len(best) + 1)
        shares = jnp.log((self.population + 1) / 2) - jnp.log(ranks)
        shares = shares / jnp.sum(shares)
        effective = 1 / jnp.sum(shares**2)
        rate_scale = (effective + 2) / (d + effective + 5)
        damping = 1 + 2 * jnp.maximum(0, jnp.sqrt((effective - 1) / (d + 1)) - 1) + rate_scale
        rate_path = (4 + effective / d) / (d + 4 + 2 * effective / d)
        rank_one = 2 / ((d + 1.3) ** 2 + effective)
        rank_many = 2 * (effective - 2 + 1 / effective) / ((d + 2) ** 2 + effective)
        if self.separable:
            rank_one, rank_many = (d + 2) / 3 * rank_one, (d + 2) / 3 * rank_many
        rank_one = jnp.minimum(1, rank_one)
        rank_many = jnp.minimum(1 - rank_one, rank_many)

        step, generation = shares @ best, memory.generation + 1
        scaled = (1 - rate_scale) * memory.scaled_path
        scaled = scaled + jnp.sqrt(rate_scale * (2 - rate_scale) * effective) * back(step)
        length = jnp.sqrt(d) * (1 - 1 / (4 * d) + 1 / (21 * d**2))  # of a normal vector, on average
        found = jnp.linalg.norm(scaled)
        goes_on = found / jnp.sqrt(1 - (1 - rate_scale) ** (2 * generation)) < (1.4 + 2 / (d + 1)) * length
        path = (1 - rate_path) * memory.path
        path = path + goes_on * jnp.sqrt(rate_path * (2 - rate_path) * effective) * step
        stalled = (1 - goes_on) * rate_path * (2 - rate_path)
        kept = 1 + rank_one * stalled - rank_one - rank_many
        if self.separable:
            seen = rank_one * path**2 + rank_many * (shares @ best**2)
        else:
            seen = rank_one * jnp.outer(path, path) + rank_many * (best.T * shares) @ best
        scale = memory.scale * jnp.exp(rate_scale / damping * (found / length - 1))
        return memory.scale * step, Population(scale, kept * memory.covariance + seen, path, scaled, generation)


def _root(covariance: Array, sign: int = 1) -> Callable[[Array], Array]:
    r"""$x \mapsto C^{\pm 1/2} x$."""
    if covariance.ndim == 1:
        return lambda x: x * covariance ** (sign / 2)
    values, axes = jnp.linalg.eigh(covariance)
    scales = jnp.maximum(values, jnp.finfo(values.dtype).tiny) ** (sign / 2)
    return lambda x: axes @ (scales * (axes.T @ x))
