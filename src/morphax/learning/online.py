r"""Learning while a sequence runs: sensitivities and eligibility traces that go forward in time.

Back-propagation through time keeps every state and goes back through all of them. Here every synapse carries along what
it has done to its neuron, and nothing needs to be kept. What a neuron does by itself must be known (`Neuronwise`); who
asks for less is cheaper, and farther from the gradient: `RealTimeRecurrentLearning`, `SparseApproximation`,
`EligibilityPropagation`, `RandomFeedbackLocalOnline`.
"""

from abc import abstractmethod
from dataclasses import replace
from functools import partial
from math import prod
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from morphax._checks import check_key
from morphax.learning.backprop import Backpropagation
from morphax.learning.following import NEEDS, Followed, followed, inside, known_one_by_one, of_wires
from morphax.learning.objectives import Objective
from morphax.learning.rule import Asked, LearningRule, Metrics
from morphax.pytrees import Role, select
from morphax.substrates.base import State, Substrate, evolve, presented
from morphax.substrates.neuronwise import Neuronwise
from morphax.tasks.base import Kind


class OnlineRule(LearningRule):
    """What rules share whose gradient comes forward in time.

    **Arguments:**

    - `objective`: as of `Backpropagation`; it compares the last output, or with targets at several times as many.
    - `roles`: of the leaves whose gradient is computed. `train` sets those that it trains.
    """

    objective: Objective | None = eqx.field(static=True, default=None, kw_only=True)
    roles: tuple[Role, ...] = eqx.field(static=True, default=("weight",), kw_only=True)

    @property
    def judge(self) -> Backpropagation:
        """Who compares outputs with targets."""
        return Backpropagation(self.objective, roles=self.roles)

    def suited(self, kind: Kind) -> "OnlineRule":
        """With the objective of the kind, where none was chosen."""
        return replace(self, objective=self.judge.suited(kind).objective)

    def for_roles(self, *trained: Role) -> "OnlineRule":
        """With gradients of leaves with these roles."""
        return replace(self, roles=trained)

    def check_data(self, substrate: Substrate, inputs: Array, targets: Array) -> None:
        """What back-propagation refuses."""
        self.judge.check_data(substrate, inputs, targets)

    def cost(self, examples: int) -> Asked:
        """Every example once."""
        return Asked(examples, 1)

    def cost_of_metrics(self, examples: int) -> Asked:
        """Every example once."""
        return Asked(examples, 1)

    def metrics(self, substrate: Substrate, inputs: Array, targets: Array, *, key: PRNGKeyArray) -> Metrics:
        """What the objective says of the answers."""
        return self.judge.metrics(substrate, inputs, targets, key=key)

    def gradient(
        self, substrate: Substrate, inputs: Array, targets: Array, *, key: PRNGKeyArray
    ) -> tuple[Metrics, PyTree]:
        """Metrics, and the gradient of the leaves with `roles`."""
        inputs = presented(substrate, inputs)
        keys = jax.random.split(key, len(inputs))
        ran = jax.vmap(partial(followed, substrate))(inputs, keys)

        def loss(outputs: Array) -> tuple[Array, Metrics]:
            compared = outputs[:, -targets.shape[1] :] if targets.ndim == 3 else outputs[:, -1]
            metrics = self.judge.judged(compared, targets)
            return metrics["loss"], metrics

        errors, metrics = jax.grad(loss, has_aux=True)(ran.outputs)
        return metrics | self.cost(len(inputs)).reported(), self.slopes(substrate, inputs, errors, ran, keys)

    @abstractmethod
    def slopes(
        self,
        substrate: Substrate,
        inputs: Float[Array, "examples time ..."],
        errors: Float[Array, "examples time outputs"],
        ran: Followed,
        keys: PRNGKeyArray,
    ) -> PyTree:
        """The gradient, from the derivative of the loss with respect to all outputs, and from how the device ran."""


class RealTimeRecurrentLearning(OnlineRule):
    r"""Learning rule: sensitivities of all states to all weights, carried along (RTRL): the gradient.

    $$P_t = \frac{\partial s_t}{\partial s_{t-1}} P_{t-1} + \frac{\partial s_t}{\partial \theta}, \qquad
      g = \sum_t \frac{\partial L}{\partial o_t} \left( \frac{\partial o_t}{\partial s_t} P_t +
      \frac{\partial o_t}{\partial \theta} \right)$$

    Memory and time go with weights times states, however long a sequence is; examples follow each other.

    Source: Williams & Zipser, Neural Comput. 1, 270 (1989).

        >>> import jax, jax.numpy as jnp
        >>> from morphax import SpintronicNetwork, WithReadout
        >>> from morphax.learning.online import RealTimeRecurrentLearning
        >>> network = SpintronicNetwork.random((8, 8), key=jax.random.key(0))
        >>> network = WithReadout.random(network, 2, key=jax.random.key(1))
        >>> data = jax.random.normal(jax.random.key(2), (6, 5)), jnp.eye(2)[jnp.arange(6) % 2]
        >>> metrics, gradient = RealTimeRecurrentLearning().gradient(network, *data, key=jax.random.key(3))
        >>> gradient.substrate.connections.weights.shape, int(metrics["presentations"])
        ((16, 16), 0)
    """

    @property
    def exact(self) -> bool:
        """Yes."""
        return True

    def needs(self) -> str:
        """Derivatives of a step."""
        return self.judge.needs()

    def fits(self, substrate: Any) -> bool:
        """What has derivatives."""
        return self.judge.fits(substrate)

    def cost(self, examples: int) -> Asked:
        """Nothing: sensitivities are those of a model, which answers in its place."""
        return Asked()

    def cost_of_metrics(self, examples: int) -> Asked:
        """Nothing."""
        return Asked()

    def slopes(self, substrate: Substrate, inputs: Array, errors: Array, ran: Followed, keys: PRNGKeyArray) -> PyTree:
        """In the mode of differentiation that goes forward."""
        learned, fixed = select(substrate, *self.roles)
        flat, unflatten = ravel_pytree(learned)

        def add(total: Array, example: tuple[Array, Array, PRNGKeyArray]) -> tuple[Array, None]:
            drives, error, key = example

            def product(flat: Array) -> Array:
                return jnp.sum(evolve(eqx.combine(unflatten(flat), fixed), drives, key=key)[0] * error)

            return total + jax.jacfwd(product)(flat), None

        return unflatten(jax.lax.scan(add, jnp.zeros_like(flat), (inputs, errors, keys))[0])


class TraceRule(OnlineRule):
    r"""What rules share whose every synapse keeps a trace of what it has done to its own neuron.

    $$e_{ij, t} = D_{i, t} \, e_{ij, t-1} + \frac{\partial s_{i, t}}{\partial I_i} y_{j, t-1}, \qquad
      g_{ij} = \sum_t \frac{\partial L}{\partial o_t} \frac{\partial o_t}{\partial s_{i, t}} \, e_{ij, t}$$

    with the state $s_i$ of a neuron, which may be several numbers, and what reaches it, $I_i$. Neurons that are not
    read are told the errors by a fixed random matrix, $\partial L / \partial y_i = \sum_k B_{ik} \, \partial L /
    \partial o_k$. A readout learns by its own gradient.

    **Arguments:** (besides those of `OnlineRule`)

    - `key`: of the random matrix, normal with variance 1 / outputs.
    """

    key: PRNGKeyArray

    def __check_init__(self) -> None:
        check_key("key", self.key)

    def needs(self) -> str:
        """Neurons that are known one by one."""
        return NEEDS

    def fits(self, substrate: Any) -> bool:
        """Such networks; nothing in front of them learns."""
        return known_one_by_one(substrate)

    def slopes(self, substrate: Substrate, inputs: Array, errors: Array, ran: Followed, keys: PRNGKeyArray) -> PyTree:
        """From traces of every synapse along the states that were met, and from what was read."""
        network = inside(substrate)
        signal, wires = self._signal(substrate, errors), network.wires()

        def one(drives: Array, errors: Array, ran: Followed) -> Array:
            def advance(carry: tuple[State, Array], now: tuple[State, State, Array, Array]) -> Any:
                traces, total = carry
                before, after, drive, error = now
                traces, of_sent = self._advanced(network, wires, before, traces, jnp.atleast_1d(drive))
                read, sent = signal(after, error)
                told = jax.tree.map(lambda r, t: _by_neuron(r[..., None, :] * t, len(sent)), read, traces)
                return (traces, total + sent * of_sent + jax.tree.reduce(jnp.add, told)), None

            still = jax.tree.map(lambda x: x[0], ran.before)
            traces = jax.tree.map(lambda s: jnp.zeros((*s.shape[:-1], len(wires), s.shape[-1]), s.dtype), still)
            start = traces, jnp.zeros_like(wires)
            return jax.lax.scan(advance, start, (ran.before, ran.after, drives, errors))[0][1]

        totals = jax.vmap(one)(inputs, errors, ran)
        return of_wires(substrate, self.roles, jnp.sum(totals, axis=0), ran.after, errors)

    def _signal(self, substrate: Substrate, errors: Array) -> Any:
        """How the loss changes with the state and with what each neuron sends: a function of state and error."""
        state = substrate.initial_state()
        network = inside(substrate)
        sent = jax.eval_shape(lambda: network.alone(state, jnp.zeros(network.wires().shape[1]))[1])
        jacobians = jax.tree.leaves(jax.jacobian(substrate.observe)(state))
        seen = [_by_neuron(jnp.any(x != 0, axis=0)[..., None, :], sent.size)[0] for x in jacobians]
        told = sum(seen) == 0
        matrix = jax.random.normal(self.key, (sent.size, errors.shape[-1])) / errors.shape[-1] ** 0.5

        def signal(state: State, error: Array) -> tuple[State, Array]:
            if self._all_told:
                return jax.tree.map(jnp.zeros_like, state), matrix @ error
            return jax.vjp(substrate.observe, state)[1](error)[0], jnp.where(told, matrix @ error, 0.0)

        return signal

    @property
    def _all_told(self) -> bool:
        """Whether the random matrix tells all neurons."""
        return False

    def _advanced(
        self, network: Neuronwise, wires: Array, state: State, traces: State, inputs: Array
    ) -> tuple[State, Array]:
        """The traces after a step, and that of what is sent."""
        entering = network.entering(state, inputs, wires)[-1]
        reaching = entering @ wires
        still = jax.tree.map(jnp.zeros_like, state)
        by_drive = jax.jvp(network.alone, (state, reaching), (still, jnp.ones_like(reaching)))[1]
        kept = self._kept(network, wires, state, traces, inputs)
        moved = entering[:, None] + network.by_itself(state, inputs, wires) if self._all_ways else entering[:, None]
        return jax.tree.map(lambda k, d: k + d[..., None, :] * moved, kept, by_drive)

    def _kept(self, network: Neuronwise, wires: Array, state: State, traces: State, inputs: Array) -> Any:
        """What is left of the traces, and what of them is sent."""
        reaching = network.entering(state, inputs, wires)[-1] @ wires

        def along(change: State) -> tuple[State, Array]:
            # Otherwise the drive stays as it is while the neuron changes.
            back = network.returning(state, inputs, wires, change) if self._all_ways else jnp.zeros_like(reaching)
            return jax.jvp(network.alone, (state, reaching), (change, back))[1]

        # Neurons do not mix here, so that one synapse of each goes along at a time.
        return jax.vmap(along, in_axes=-2, out_axes=-2)(traces)

    @property
    def _all_ways(self) -> bool:
        """Whether a neuron is followed through all that leads back to it within the step, too."""
        return False


class EligibilityPropagation(TraceRule):
    r"""Learning rule: e-prop. Traces go through the neuron alone, $D_i = \partial s_{i, t} / \partial s_{i, t-1}$ at a
    given drive.

    What a neuron does to itself by way of others is left out. Neurons that are read get the exact learning signal.

    Source: Bellec et al., Nat. Commun. 11, 3625 (2020).

        >>> import equinox as eqx, jax, jax.numpy as jnp
        >>> from morphax import SpintronicNetwork, WithReadout
        >>> from morphax.learning.online import EligibilityPropagation
        >>> network = SpintronicNetwork.random((8, 8), key=jax.random.key(0))
        >>> network = WithReadout.random(network, 2, key=jax.random.key(1))
        >>> data = jax.random.normal(jax.random.key(2), (6, 5)), jnp.eye(2)[jnp.arange(6) % 2]
        >>> rule = EligibilityPropagation(jax.random.key(4))
        >>> eqx.filter_jit(rule.gradient)(network, *data, key=jax.random.key(3))[1].substrate.connections.weights.shape
        (16, 16)
    """


class RandomFeedbackLocalOnline(TraceRule):
    r"""Learning rule: RFLO. Traces as of `EligibilityPropagation`; the random matrix tells the errors to all neurons.

    Nothing on the way back is the readout's, and nothing of other neurons is known.

    Source: Murray, eLife 8, e43299 (2019).

        >>> import equinox as eqx, jax, jax.numpy as jnp
        >>> from morphax import SpintronicNetwork, WithReadout
        >>> from morphax.learning.online import RandomFeedbackLocalOnline
        >>> network = SpintronicNetwork.random((8, 8), key=jax.random.key(0))
        >>> network = WithReadout.random(network, 2, key=jax.random.key(1))
        >>> data = jax.random.normal(jax.random.key(2), (6, 5)), jnp.eye(2)[jnp.arange(6) % 2]
        >>> rule = RandomFeedbackLocalOnline(jax.random.key(4))
        >>> eqx.filter_jit(rule.gradient)(network, *data, key=jax.random.key(3))[1].weights.shape
        (2, 8)
    """

    @property
    def _all_told(self) -> bool:
        return True


class SparseApproximation(TraceRule):
    r"""Learning rule: SnAp-1. Of the sensitivities of `RealTimeRecurrentLearning` those are kept that a synapse has at
    once.

    $$D_i = \frac{d s_{i, t}}{d s_{i, t-1}}$$

    with what a neuron does to itself within one step, through its own synapse or, at order 2, through others.

    Source: Menick et al., ICLR (2021), Sec. 3.

        >>> import equinox as eqx, jax, jax.numpy as jnp
        >>> from morphax import SpintronicNetwork, WithReadout
        >>> from morphax.learning.online import SparseApproximation
        >>> network = SpintronicNetwork.random((8, 8), key=jax.random.key(0))
        >>> network = WithReadout.random(network, 2, key=jax.random.key(1))
        >>> data = jax.random.normal(jax.random.key(2), (6, 5)), jnp.eye(2)[jnp.arange(6) % 2]
        >>> rule = SparseApproximation(jax.random.key(4))
        >>> eqx.filter_jit(rule.gradient)(network, *data, key=jax.random.key(3))[1].substrate.connections.weights.shape
        (16, 16)
    """

    @property
    def _all_ways(self) -> bool:
        return True


def _by_neuron(part: Array, neurons: int) -> Float[Array, "entering neurons"]:
    """Summed over all numbers of a neuron; neurons of which a part of the state knows nothing get 0."""
    summed = jnp.sum(part.reshape(prod(part.shape[:-2]), *part.shape[-2:]), axis=0)
    return jnp.pad(summed, ((0, 0), (0, neurons - summed.shape[-1])))
