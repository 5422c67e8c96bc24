"""The readout that is best for all that was seen so far, after every reading."""

from dataclasses import replace
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from morphax._checks import check_range
from morphax.learning.backprop import Backpropagation
from morphax.learning.objectives import Objective
from morphax.learning.rule import Asked, LearningRule, Metrics, check_whole_steps
from morphax.substrates.base import State, Substrate, count_neurons, stepped
from morphax.substrates.wrappers import WithFeedback, WithReadout
from morphax.tasks.base import Kind


class InverseCorrelation(NamedTuple):
    """What `RecursiveLeastSquares` remembers: of the readings, with a constant 1 behind them."""

    matrix: Float[Array, "readings readings"]


class _Learned(NamedTuple):
    """Weights of the readout, the bias behind them, and the inverse correlations of readings."""

    weights: Array
    inverse: Array


class RecursiveLeastSquares(LearningRule):
    r"""Learning rule: the readout that is best for all that was seen so far, after every reading (RLS, FORCE).

    $$k = \frac{P x}{\lambda + x^T P x}, \qquad W \leftarrow W + (t - W x) k^T, \qquad
      P \leftarrow \frac{P - k x^T P}{\lambda}$$

    for the readings x with a constant 1 behind them; at first $P = 1 / \alpha$. Without forgetting ($\lambda = 1$) the
    weights are at any time those of ridge regression with the penalty $\alpha \lVert W - W_0 \rVert^2$, bias included.
    What comes out as gradient is $\theta - \theta'$, so the optimiser must be `optax.sgd(1.0)`. Metrics are of what was
    answered before learning.

    The substrate must be a `WithReadout`; nothing else in it learns. With a `WithFeedback` around it what it answers is
    fed back meanwhile, uncorrected (FORCE): corrections keep the answers near the targets from the first moments on,
    and what remains of the error is what the device learns to live with.

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

    A network that goes on by itself:

        >>> from morphax import WithFeedback, evolve
        >>> inside = EchoStateNetwork.random(100, spectral_radius=1.5, leak_rate=0.1, key=jax.random.key(0))
        >>> network = WithFeedback(WithReadout.random(inside, 1, key=jax.random.key(1)), jnp.ones((1, 1)))
        >>> sine = jnp.sin(2 * jnp.pi * jnp.arange(3000) / 60)[None, :, None]
        >>> rule = RecursiveLeastSquares(penalty=0.1, objective=regression)
        >>> taught = train(network, rule, (jnp.zeros((1, 3000)), sine), optax.sgd(1.0), 1, key=jax.random.key(3)).last
        >>> answers, _ = evolve(taught, jnp.zeros(3000))
        >>> bool(jnp.allclose(answers[-120:-60], answers[-60:], atol=0.01)), round(float(jnp.max(answers[-60:])), 1)
        (True, 1.0)
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
        """What has a readout outside, fed back or not."""
        return isinstance(_answering(substrate), WithReadout)

    def suited(self, kind: Kind) -> "RecursiveLeastSquares":
        """With the objective of the kind, where none was chosen."""
        return replace(self, objective=self.judge.suited(kind).objective)

    def check_data(self, substrate: Substrate, inputs: Array, targets: Array) -> None:
        """What back-propagation refuses, and, where answers are fed back, targets that are not of every input."""
        self.judge.check_data(substrate, inputs, targets)
        if isinstance(substrate, WithFeedback) and np.shape(targets)[:-1] != np.shape(inputs)[:2]:
            raise ValueError(
                f"targets has shape {np.shape(targets)}; what is fed back must be right after every input: "
                f"{(*np.shape(inputs)[:2], count_neurons(substrate))}"
            )

    def check_optimiser(self, optimiser: optax.GradientTransformation, weights: PyTree) -> None:
        """Refuse what would change the step."""
        check_whole_steps(self, optimiser, weights)

    def memory(self, substrate: Substrate, *, key: PRNGKeyArray) -> InverseCorrelation:
        """Nothing was seen yet."""
        weights = _answering(substrate).weights
        return InverseCorrelation(jnp.eye(weights.shape[1] + 1, dtype=weights.dtype) / self.penalty)

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
        substrate: Substrate,
        inputs: Array,
        targets: Array,
        *,
        key: PRNGKeyArray,
        memory: InverseCorrelation | None = None,
    ) -> tuple[Metrics, PyTree, InverseCorrelation]:
        """Metrics of the answers before they were corrected, the step backwards, and the correlations after it."""
        memory = self.memory(substrate, key=key) if memory is None else memory
        readout = _answering(substrate)
        before = jnp.concatenate([readout.weights, readout.bias[:, None]], axis=1)
        begun = _Learned(before, memory.matrix)
        if isinstance(substrate, WithFeedback):
            learned, answers = self._fed_back(substrate, inputs, targets, begun, key)
        else:
            readings = self.judge.answers(readout.substrate, inputs, targets, key=key)
            rows = readings.reshape(-1, readings.shape[-1])
            wanted = targets.reshape(-1, targets.shape[-1])
            learned, answers = jax.lax.scan(lambda past, one: self._corrected(past, *one), begun, (rows, wanted))
        metrics = self.judge.judged(answers.reshape(targets.shape), targets)
        change = before - learned.weights
        nothing = jax.tree.map(lambda x: jnp.zeros_like(x) if eqx.is_inexact_array(x) else x, substrate)
        gradient = eqx.tree_at(_learning, nothing, (change[:, :-1], change[:, -1]))
        return metrics | self.cost(len(inputs)).reported(), gradient, InverseCorrelation(learned.inverse)

    def _corrected(self, past: _Learned, reading: Array, target: Array) -> tuple[_Learned, Array]:
        """After one reading; and what was answered before."""
        row = jnp.append(reading, 1.0)
        seen = past.inverse @ row
        gain = seen / (self.forgetting + row @ seen)
        answer = past.weights @ row
        weights = past.weights + jnp.outer(target - answer, gain)
        return _Learned(weights, (past.inverse - jnp.outer(gain, seen)) / self.forgetting), answer

    def _fed_back(
        self, substrate: WithFeedback, inputs: Array, targets: Array, begun: _Learned, key: PRNGKeyArray
    ) -> tuple[_Learned, Array]:
        """One example after the other, each from the beginning, with weights that change at every input."""
        inside = _answering(substrate).substrate
        step = inside.stepper()

        def at(past: tuple[_Learned, State, Array], one: tuple[Array, Array, PRNGKeyArray]) -> Any:
            (learned, state, answer), (drive, target, key) = past, one
            step_key, read_key = jax.random.split(key)
            state = stepped(step, state, substrate.fed(drive, answer), key=step_key)
            learned, answer = self._corrected(learned, inside.observe(state, key=read_key), target)
            return (learned, state, answer), answer

        def example(learned: _Learned, one: tuple[Array, Array, PRNGKeyArray]) -> tuple[_Learned, Array]:
            drives, wanted, key = one
            first, second, rest = jax.random.split(key, 3)
            state = inside.initial_state(key=first)
            answer = learned.weights @ jnp.append(inside.observe(state, key=second), 1.0)
            keys = jax.random.split(rest, len(drives))
            (learned, _, _), answers = jax.lax.scan(at, (learned, state, answer), (drives, wanted, keys))
            return learned, answers

        return jax.lax.scan(example, begun, (inputs, targets, jax.random.split(key, len(inputs))))


def _answering(substrate: Any) -> Any:
    """What has the readout."""
    return substrate.substrate if isinstance(substrate, WithFeedback) else substrate


def _learning(substrate: Any) -> tuple[Array, Array]:
    readout = _answering(substrate)
    return readout.weights, readout.bias
