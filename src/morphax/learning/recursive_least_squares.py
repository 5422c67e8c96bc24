"""The readout that is best for all that was seen so far, after every reading."""

from dataclasses import replace
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from morphax._checks import check_range
from morphax.learning.backprop import Backpropagation
from morphax.learning.objectives import Objective
from morphax.learning.rule import Asked, LearningRule, Metrics, check_whole_steps
from morphax.substrates.base import Substrate
from morphax.substrates.wrappers import WithReadout
from morphax.tasks.base import Kind


class InverseCorrelation(NamedTuple):
    """What `RecursiveLeastSquares` remembers: of the readings, with a constant 1 behind them."""

    matrix: Float[Array, "readings readings"]


class RecursiveLeastSquares(LearningRule):
    r"""Learning rule: the readout that is best for all that was seen so far, after every reading (RLS; FORCE without
    feedback).

    $$k = \frac{P x}{\lambda + x^T P x}, \qquad W \leftarrow W + (t - W x) k^T, \qquad
      P \leftarrow \frac{P - k x^T P}{\lambda}$$

    for the readings x with a constant 1 behind them; at first $P = 1 / \alpha$. Without forgetting ($\lambda = 1$) the
    weights are at any time those of ridge regression with the penalty $\alpha \lVert W - W_0 \rVert^2$, bias included.
    What comes out as gradient is $\theta - \theta'$, so the optimiser must be `optax.sgd(1.0)`. Metrics are of what was
    answered before learning.

    The substrate must be a `WithReadout`; nothing else in it learns.

    **Arguments:**

    - `penalty`: $\alpha > 0$.
    - `forgetting`: $\lambda$ in ]0, 1].
    - `objective`: as of `Backpropagation`, for the metrics.

    Source: Sussillo & Abbott, Neuron 63, 544 (2009), Eqs. 4, 5.

        >>> import jax, jax.numpy as jnp, optax
        >>> from morphax import EchoStateNetwork, WithReadout, train
        >>> from morphax.learning import regression
        >>> from morphax.learning.recursive_least_squares import RecursiveLeastSquares
        >>> network = WithReadout.random(EchoStateNetwork.random(20, key=jax.random.key(0)), 1, key=jax.random.key(1))
        >>> inputs = jax.random.uniform(jax.random.key(2), (1, 400))
        >>> data = inputs, jnp.roll(inputs, 1)[..., None]       # what was the last input?
        >>> rule = RecursiveLeastSquares(objective=regression)
        >>> history = train(network, rule, data, optax.sgd(1.0), 2, key=jax.random.key(3)).history
        >>> bool(history[1]["loss"] < 1e-3)
        True
    """

    penalty: float | Float[Array, ""] = 1e-4
    forgetting: float | Float[Array, ""] = 1.0
    objective: Objective | None = eqx.field(static=True, default=None, kw_only=True)

    def __check_init__(self) -> None:
        check_range("penalty", self.penalty, low=0.0, open_low=True)
        check_range("forgetting", self.forgetting, low=0.0, high=1.0, open_low=True)

    @property
    def judge(self) -> Backpropagation:
        """Who compares outputs with targets."""
        return Backpropagation(self.objective)

    def needs(self) -> str:
        """A readout."""
        return "a readout (WithReadout)"

    def fits(self, substrate: Any) -> bool:
        """What has a readout outside."""
        return isinstance(substrate, WithReadout)

    def suited(self, kind: Kind) -> "RecursiveLeastSquares":
        """With the objective of the kind, where none was chosen."""
        return replace(self, objective=self.judge.suited(kind).objective)

    def check_data(self, substrate: Substrate, inputs: Array, targets: Array) -> None:
        """What back-propagation refuses."""
        self.judge.check_data(substrate, inputs, targets)

    def check_optimiser(self, optimiser: optax.GradientTransformation, weights: PyTree) -> None:
        """Refuse what would change the step."""
        check_whole_steps(self, optimiser, weights)

    def memory(self, substrate: WithReadout, *, key: PRNGKeyArray) -> InverseCorrelation:
        """Nothing was seen yet."""
        size = substrate.weights.shape[1] + 1
        return InverseCorrelation(jnp.eye(size, dtype=substrate.weights.dtype) / self.penalty)

    def cost(self, examples: int) -> Asked:
        """Every example once, and weights are written while it runs."""
        return Asked(examples, 1)

    def cost_of_metrics(self, examples: int) -> Asked:
        """Every example once."""
        return Asked(examples, 1)

    def metrics(self, substrate: Substrate, inputs: Array, targets: Array, *, key: PRNGKeyArray) -> Metrics:
        """What the objective says of the answers."""
        return self.judge.metrics(substrate, inputs, targets, key=key)

    def gradient(
        self,
        substrate: WithReadout,
        inputs: Array,
        targets: Array,
        *,
        key: PRNGKeyArray,
        memory: InverseCorrelation | None = None,
    ) -> tuple[Metrics, PyTree, InverseCorrelation]:
        """Metrics of the answers before they were corrected, the step backwards, and the correlations after it."""
        memory = self.memory(substrate, key=key) if memory is None else memory
        readings = self.judge.answers(substrate.substrate, inputs, targets, key=key)
        rows = readings.reshape(-1, readings.shape[-1])
        rows = jnp.concatenate([rows, jnp.ones((len(rows), 1), rows.dtype)], axis=1)
        before = jnp.concatenate([substrate.weights, substrate.bias[:, None]], axis=1)

        def learn(carry: tuple[Array, Array], one: tuple[Array, Array]) -> tuple[tuple[Array, Array], Array]:
            weights, inverse = carry
            row, target = one
            seen = inverse @ row
            gain = seen / (self.forgetting + row @ seen)
            answer = weights @ row
            return (
                weights + jnp.outer(target - answer, gain),
                (inverse - jnp.outer(gain, seen)) / self.forgetting,
            ), answer

        wanted = targets.reshape(-1, targets.shape[-1])
        (after, inverse), answers = jax.lax.scan(learn, (before, memory.matrix), (rows, wanted))
        metrics = self.judge.judged(answers.reshape(targets.shape), targets)
        change = before - after
        nothing = jax.tree.map(lambda x: jnp.zeros_like(x) if eqx.is_inexact_array(x) else x, substrate)
        gradient = eqx.tree_at(lambda s: (s.weights, s.bias), nothing, (change[:, :-1], change[:, -1]))
        return metrics | self.cost(len(inputs)).reported(), gradient, InverseCorrelation(inverse)
