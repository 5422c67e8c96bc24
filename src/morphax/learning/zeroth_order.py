r"""Learning without derivatives: the loss of disturbed weights says where to go.

`ZerothOrder` asks for nothing but a loss, so it trains whatever can be judged: a model, or, with `InTheLoop` as its
rule, a black box on the bench.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from morphax._checks import check_choice, check_count, check_range
from morphax.learning.backprop import Backpropagation
from morphax.learning.rule import Asked, Data, LearningRule, Metrics, WrappedRule
from morphax.pytrees import Role, select
from morphax.substrates.base import Substrate

Sampling = Literal["antithetic", "one-sided"]
Distribution = Literal["rademacher", "normal"]


class JudgedRule(WrappedRule):
    """What rules share that ask for nothing but the metrics of another, of disturbed weights.

    **Arguments:**

    - `rule`: whose metrics give the loss: `Backpropagation` (its objective), a rule of energy substrates, or
      `InTheLoop`, which asks the device.
    - `roles`: of the leaves that are disturbed, those that `train` trains. None: those.
    """

    roles: tuple[Role, ...] | None = eqx.field(static=True, default=None, kw_only=True)

    def needs(self) -> str:
        """A loss."""
        return "a substrate" if self._answers else self.rule.needs()

    def fits(self, substrate: Any) -> bool:
        """Whatever can be judged; derivatives are not asked for."""
        return isinstance(substrate, Substrate) if self._answers else self.rule.fits(substrate)

    @property
    def _answers(self) -> bool:
        """Whether the rule needs derivatives, and its metrics none."""
        rule = self.rule
        while isinstance(rule, WrappedRule):
            rule = rule.rule
        return isinstance(rule, Backpropagation)

    def for_roles(self, *trained: Role) -> "JudgedRule":
        """With disturbances of the leaves with these roles, unless others were asked for."""
        return replace(self, roles=self.roles or trained)

    def check(self, substrate: Any, data: Data, trained: tuple[Role, ...] = ("weight",)) -> None:
        """What every rule refuses, and to disturb something else than what is trained."""
        if self.roles is not None and set(self.roles) != set(trained):
            raise ValueError(f"roles is {self.roles}, but trained is {trained}; both must name the same leaves")
        LearningRule.check(self, substrate, data, trained)

    def check_data(self, substrate: Any, inputs: Array, targets: Array) -> None:
        """What the rule refuses."""
        self.rule.check_data(substrate, inputs, targets)

    def cost_of_metrics(self, examples: int) -> Asked:
        """That of the rule; where a model answers, it stands for the device."""
        return Asked(self._presented(examples), 1)

    def _presented(self, examples: int) -> int:
        """For one loss."""
        return max(self.rule.cost_of_metrics(examples).presentations, examples)

    def _selected(self, substrate: Any) -> tuple[PyTree, PyTree]:
        return select(substrate, *(self.roles or ("weight",)))

    def _pruned(self, direction: PyTree, rest: PyTree) -> PyTree:
        """A direction with 0 where there is no synapse."""
        whole = jax.tree.map(
            lambda node: node.existing() if _has_synapses(node) else node,
            eqx.combine(direction, rest),
            is_leaf=_has_synapses,
        )
        return self._selected(whole)[0]


class ZerothOrder(JudgedRule):
    r"""Learning rule: simultaneous perturbation of all weights, along random directions (SPSA, evolution strategies).

    $$g = \frac{1}{K} \sum_k \frac{L(\theta + c v_k) - L(\theta - c v_k)}{2 c} \, v_k$$

    with independent components of mean 0 and variance 1. Of a quadratic loss the mean is its gradient; the cosine with
    it is about $\sqrt{K / (K + d)}$ for $d$ weights. The metrics are means over all that was presented, so that nothing
    is presented for them alone. Noise is drawn anew whenever a device is asked.

    **Arguments:** (besides those of `JudgedRule`)

    - `directions`: $K \ge 1$.
    - `spread`: $c > 0$, in the units of the weights.
    - `sampling`: "antithetic", as above, or "one-sided", $(L(\theta + c v_k) - L(\theta)) / c$, with $K + 1$ losses
      instead of $2 K$ and an error of first order in $c$.
    - `distribution`: of components, "rademacher" (1 or -1) or "normal".
    - `ranked`: whether losses are replaced by their ranks, from -1/2 to 1/2: only their order counts. Needs
      `directions` >= 2; the size of the gradient means nothing then.
    - `each_example`: whether every example has directions of its own, which averages over more of them and costs as
      many writes.

    Only synapses that exist are disturbed.

    **Raises:** `ValueError` for values outside these ranges, and by `check` for other `roles` than are trained.

    Source: Spall, IEEE Trans. Autom. Control 37, 332 (1992); Salimans et al., arXiv:1703.03864 (2017), for ranks.

        >>> import jax, jax.numpy as jnp
        >>> from morphax import Backpropagation, EchoStateNetwork, WithReadout
        >>> from morphax.learning.zeroth_order import ZerothOrder
        >>> rule = ZerothOrder(Backpropagation(), directions=3)
        >>> rule.cost(10)                                           # 2 x 3 losses of ten examples
        Asked(presentations=60, writes=6)
        >>> network = WithReadout.random(EchoStateNetwork.random(8, key=jax.random.key(0)), 2, key=jax.random.key(1))
        >>> data = jax.random.normal(jax.random.key(2), (10, 4)), jnp.eye(2)[jnp.arange(10) % 2]
        >>> metrics, gradient = rule.gradient(network, *data, key=jax.random.key(3))
        >>> gradient.weights.shape, int(metrics["presentations"])
        ((2, 8), 60)
    """

    directions: int = eqx.field(static=True, default=1)
    spread: float | Float[Array, ""] = 1e-2
    sampling: Sampling = eqx.field(static=True, default="antithetic")
    distribution: Distribution = eqx.field(static=True, default="rademacher")
    ranked: bool = eqx.field(static=True, default=False)
    each_example: bool = eqx.field(static=True, default=False)

    def __check_init__(self) -> None:
        check_count("directions", self.directions, 1)
        check_range("spread", self.spread, low=0.0, open_low=True)
        check_choice("sampling", self.sampling, ("antithetic", "one-sided"))
        check_choice("distribution", self.distribution, ("rademacher", "normal"))
        if self.ranked and self.directions < 2:
            raise ValueError("ranked is True with directions 1; ranks of one direction are a sign: take 2 or more")

    @property
    def _losses(self) -> int:
        return 2 * self.directions if self.sampling == "antithetic" else self.directions + 1

    def cost(self, examples: int) -> Asked:
        """All examples for every loss."""
        return Asked(self._losses * self._presented(examples), self._losses * (examples if self.each_example else 1))

    def gradient(
        self, substrate: Any, inputs: Array, targets: Array, *, key: PRNGKeyArray, memory: PyTree = None
    ) -> tuple[Any, ...]:
        """Mean metrics of the disturbed weights, and the estimate of the gradient."""
        examples = len(inputs)
        if self.each_example:
            alone = jax.vmap(lambda one, target, key: self._estimate(substrate, one[None], target[None], key))
            each = alone(inputs, targets, jax.random.split(key, examples))
            metrics, gradient = jax.tree.map(lambda x: jnp.mean(x, axis=0), each)
        else:
            metrics, gradient = self._estimate(substrate, inputs, targets, key)
        return metrics | self.cost(examples).reported(), gradient

    def _estimate(self, substrate: Any, inputs: Array, targets: Array, key: PRNGKeyArray) -> tuple[Metrics, PyTree]:
        weights, rest = self._selected(substrate)
        which, noise = jax.random.split(key)

        def judged(weights: PyTree, key: PRNGKeyArray) -> Metrics:
            return self.rule.metrics(eqx.combine(weights, rest), inputs, targets, key=key)

        def moved(direction: PyTree, distance: Any) -> PyTree:
            return jax.tree.map(lambda w, v: w + distance * v, weights, direction)

        def asked(keys: tuple[PRNGKeyArray, PRNGKeyArray]) -> tuple[Metrics, ...]:
            direction, (first, second) = self._direction(weights, rest, keys[0]), jax.random.split(keys[1])
            up = judged(moved(direction, self.spread), first)
            return (up, judged(moved(direction, -self.spread), second)) if self.sampling == "antithetic" else (up,)

        keys = jax.random.split(which, self.directions)
        up, *down = jax.lax.map(asked, (keys, jax.random.split(noise, self.directions)))
        if self.sampling == "antithetic":
            losses = jnp.concatenate([up["loss"], down[0]["loss"]])
        else:
            base = judged(weights, jax.random.fold_in(noise, self.directions))
            down = [jax.tree.map(lambda x: x[None], base)]
            losses = jnp.concatenate([up["loss"], base["loss"][None]])
        if self.ranked:
            losses = jnp.argsort(jnp.argsort(losses)) / (len(losses) - 1) - 0.5
        slopes = (losses[: self.directions] - losses[self.directions :]) / self.spread
        slopes = slopes / (2 if self.sampling == "antithetic" else 1)

        def add(total: PyTree, item: tuple[PRNGKeyArray, Array]) -> tuple[PyTree, None]:
            direction = self._direction(weights, rest, item[0])
            return jax.tree.map(lambda t, v: t + item[1] / self.directions * v, total, direction), None

        gradient, _ = jax.lax.scan(add, jax.tree.map(jnp.zeros_like, weights), (keys, slopes))
        metrics = jax.tree.map(lambda *each: jnp.mean(jnp.concatenate(each), axis=0), up, *down)
        return metrics, gradient

    def _direction(self, weights: PyTree, rest: PyTree, key: PRNGKeyArray) -> PyTree:
        """Along which all weights move, 0 where there is no synapse; drawn again from its key where it is needed."""
        draw = jax.random.rademacher if self.distribution == "rademacher" else jax.random.normal
        return self._pruned(_drawn(weights, draw, key), rest)


class ForwardGradient(JudgedRule):
    r"""Learning rule: the derivative along random directions, times them.

    $$g = \frac{1}{K} \sum_k (\nabla L \cdot v_k) \, v_k$$

    with normal $v_k$; the slope along each is exact, in one forward pass of a model with its tangent. What
    `ZerothOrder` tends to for a small spread, without its presentations: nothing is asked of a device.

    **Arguments:** (besides those of `JudgedRule`)

    - `directions`: $K \ge 1$.

    Source: Baydin et al., arXiv:2202.08587 (2022).

        >>> import jax, jax.numpy as jnp
        >>> from morphax import Backpropagation, EchoStateNetwork, WithReadout
        >>> from morphax.learning.zeroth_order import ForwardGradient
        >>> network = WithReadout.random(EchoStateNetwork.random(8, key=jax.random.key(0)), 2, key=jax.random.key(1))
        >>> data = jax.random.normal(jax.random.key(2), (10, 4)), jnp.eye(2)[jnp.arange(10) % 2]
        >>> metrics, gradient = ForwardGradient(Backpropagation()).gradient(network, *data, key=jax.random.key(3))
        >>> gradient.weights.shape, int(metrics["presentations"])
        ((2, 8), 0)
    """

    directions: int = eqx.field(static=True, default=1)

    def __check_init__(self) -> None:
        check_count("directions", self.directions, 1)

    def fits(self, substrate: Any) -> bool:
        """What has derivatives."""
        return self.rule.fits(substrate)

    def needs(self) -> str:
        """What the rule needs."""
        return self.rule.needs()

    def cost(self, examples: int) -> Asked:
        """Nothing: the model answers."""
        return Asked()

    def cost_of_metrics(self, examples: int) -> Asked:
        """That of the rule."""
        return self.rule.cost_of_metrics(examples)

    def gradient(
        self, substrate: Any, inputs: Array, targets: Array, *, key: PRNGKeyArray, memory: PyTree = None
    ) -> tuple[Any, ...]:
        """Metrics, and the mean of directions times the slope along them."""
        weights, rest = self._selected(substrate)
        which, noise = jax.random.split(key)

        def loss(weights: PyTree) -> tuple[Array, Metrics]:
            metrics = self.rule.metrics(eqx.combine(weights, rest), inputs, targets, key=noise)
            return metrics["loss"], metrics

        def along(key: PRNGKeyArray) -> tuple[Metrics, PyTree]:
            direction = self._pruned(_drawn(weights, jax.random.normal, key), rest)
            _, slope, metrics = jax.jvp(loss, (weights,), (direction,), has_aux=True)
            return metrics, jax.tree.map(lambda v: slope * v, direction)

        metrics, found = jax.vmap(along)(jax.random.split(which, self.directions))
        metrics, gradient = jax.tree.map(lambda x: jnp.mean(x, axis=0), (metrics, found))
        return metrics | self.cost(len(inputs)).reported(), gradient


def _drawn(weights: PyTree, draw: Callable[..., Array], key: PRNGKeyArray) -> PyTree:
    leaves, structure = jax.tree.flatten(weights)
    keys = jax.random.split(key, len(leaves))
    return jax.tree.unflatten(structure, [draw(k, w.shape, w.dtype) for k, w in zip(keys, leaves, strict=True)])


def _has_synapses(node: Any) -> bool:
    return callable(getattr(node, "existing", None))
