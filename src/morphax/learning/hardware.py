r"""Learning for devices that differ from the model (`morphax.substrates.imperfections`).

`NoiseAware` sees another device at every step and learns weights that fit all of them; `InTheLoop` uses the answers of
the one device that there is, and the model only for the backward pass.
"""

from collections.abc import Callable
from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray, PyTree

from morphax._checks import check_finite, check_shape
from morphax.dynamics.relaxation import Landscape, Sweeps
from morphax.host import ask_host, original_errors
from morphax.learning.backprop import Backpropagation
from morphax.learning.rule import Asked, Data, Metrics, WrappedRule, remembered
from morphax.pytrees import Role, select
from morphax.substrates.base import State, Stepper, Substrate
from morphax.substrates.energy import EnergySubstrate, Nudge
from morphax.substrates.imperfections import Imperfections
from morphax.substrates.wrappers import Wrapper

HardwareFunction = Callable[[PyTree, np.ndarray], np.ndarray]


class NoiseAware(WrappedRule):
    r"""Learning rule: `rule` on another fabricated device at every step, so that the weights suit all of them.

    $$g = \nabla L(\theta \, e^\epsilon, \phi \, e^\delta), \qquad \epsilon, \delta \text{ drawn at every step}$$

    for weights $\theta$ and device parameters $\phi$ that scatter log-normally (`Imperfections` holds more).

    The gradient that the device gives is applied to the weights as designed. Watched data are judged on the model.

    **Arguments:**

    - `rule`: any learning rule.
    - `imperfections`: how devices vary.

    Source: Murray & Edwards, IEEE Trans. Neural Netw. 5, 792 (1994); off-chip training: Plouet et al. (2025), Sec. V.

        >>> import jax, jax.numpy as jnp
        >>> from morphax import Backpropagation, EchoStateNetwork, Imperfections, NoiseAware, WithReadout
        >>> network = WithReadout.random(EchoStateNetwork.random(4, key=jax.random.key(0)), 2, key=jax.random.key(1))
        >>> data = jnp.ones((6, 3)), jnp.eye(2)[jnp.arange(6) % 2]
        >>> rule = NoiseAware(Backpropagation(), Imperfections(weight_mismatch=0.1))
        >>> one, other = (rule.gradient(network, *data, key=jax.random.key(k))[0]["loss"] for k in (2, 3))
        >>> bool(one == other)  # two devices
        False
    """

    imperfections: Imperfections

    def check(self, substrate: Any, data: Data, trained: tuple[Role, ...] = ("weight",)) -> None:
        """What the rule refuses of a device, and imperfections that the substrate cannot have."""
        self.rule.check(self.imperfections.device(substrate, key=jax.random.key(0)), data, trained)

    def gradient(
        self, substrate: Substrate, inputs: PyTree, targets: PyTree, *, key: PRNGKeyArray, memory: PyTree = None
    ) -> tuple[Any, ...]:
        """Metrics and gradient of `rule` on a new device."""
        which, noise = jax.random.split(key)
        device = self.imperfections.device(substrate, key=which)
        metrics, gradient, *kept = self.rule.gradient(device, inputs, targets, key=noise, **remembered(memory))
        return metrics, gradient.substrate if self.imperfections.disturbs else gradient, *kept

    def memory(self, substrate: Substrate, *, key: PRNGKeyArray) -> PyTree:
        """That of the rule, on a device."""
        return self.rule.memory(self.imperfections.device(substrate, key=key), key=key)


class InTheLoop(WrappedRule):
    r"""Learning rule: hardware in the loop. The device answers, the model back-propagates.

    Loss and its derivative are taken at the answers $o_\mathrm{device}$ of one fixed device, and the derivative is
    carried backward through the model, $dL/d\theta = (\partial o_\mathrm{model} / \partial \theta)^T \, \partial L /
    \partial o |_{o_\mathrm{device}}$. Where the laboratory can read the state after every input (`measured_states`),
    the model is linearised along the measured trajectory instead of its own, which then may differ much more from it.

    **Arguments:**

    - `rule`: `Backpropagation`, with its objective.
    - `device`: `Imperfections` with the `key` of one device; or a Python function `device(weights, inputs)` that
      uploads the weights (the substrate's structure with NumPy arrays where the weights are, None elsewhere), presents
      the inputs (examples, time, ...) and returns the outputs of the shape that the model gives.
    - `key`: which device, for `Imperfections`.
    - `measured_states`: whether states are read; not with a Python function.

    Watched data are judged on the device.

    **Raises:** `ValueError` for `Imperfections` without key, measured states of a Python function, and when that
    function answers with another shape, NaN or infinity, or raises (its exception is the cause).

    Source: Wright et al., Nature 601, 549 (2022), "physics-aware training"; Plouet et al. (2025), Sec. V.

        >>> import jax, jax.numpy as jnp, numpy as np
        >>> from morphax import Backpropagation, EchoStateNetwork, InTheLoop, WithReadout
        >>> network = WithReadout.random(EchoStateNetwork.random(4, key=jax.random.key(0)), 2, key=jax.random.key(1))
        >>> def device(weights, inputs):  # your driver: upload the weights, present the inputs, read the outputs
        ...     return np.tile(weights.bias, (len(inputs), 1))
        >>> inputs, targets = jnp.ones((6, 3)), jnp.eye(2)[jnp.arange(6) % 2]
        >>> metrics, gradient = InTheLoop(Backpropagation(), device).gradient(
        ...     network, inputs, targets, key=jax.random.key(2)
        ... )
        >>> int(metrics["presentations"])
        6
    """

    rule: Backpropagation  # pyright: ignore[reportIncompatibleVariableOverride] (modules are frozen)
    device: Imperfections | HardwareFunction
    key: PRNGKeyArray | None = None
    measured_states: bool = eqx.field(static=True, default=False)

    def __check_init__(self) -> None:
        if not isinstance(self.rule, Backpropagation):
            raise ValueError(
                f"rule is {type(self.rule).__name__}; a device in the loop gives outputs, so it must be Backpropagation"
            )
        if isinstance(self.device, Imperfections):
            if self.key is None:
                raise ValueError("key is None; it says which device the imperfections fabricate")
        elif self.measured_states:
            raise ValueError("measured_states is True, but a Python function gives outputs only; it must be False")

    def check(self, substrate: Any, data: Data, trained: tuple[Role, ...] = ("weight",)) -> None:
        """What the rule refuses, of the model and of a simulated device, which may lack what is to be imperfect."""
        super().check(substrate, data, trained)
        device = self._fabricated(substrate)
        if device is not None:
            self.rule.check(device, data, trained)

    def gradient(
        self, substrate: Substrate, inputs: Array, targets: Array, *, key: PRNGKeyArray, memory: PyTree = None
    ) -> tuple[Metrics, Any]:
        """Metrics of the device's answers, and the gradient through the model."""
        device = self._fabricated(substrate)
        if device is not None:
            twin = Twin(substrate, device, self.measured_states)
            metrics, gradient = self.rule.gradient(twin, inputs, targets, key=key)
            return metrics | self.cost(len(inputs)).reported(), gradient.substrate

        learned, fixed = select(substrate, *self.rule.roles)

        def loss(learned: PyTree) -> tuple[Array, Metrics]:
            modelled = self.rule.answers(eqx.combine(learned, fixed), inputs, targets, key=key)
            metrics = self.rule.judged(_valued(answers, modelled), targets)
            return metrics["loss"], metrics

        with original_errors():
            answers = jax.block_until_ready(self._asked(substrate, inputs, targets, key))
        gradient, metrics = jax.grad(loss, has_aux=True)(learned)
        return metrics | self.cost(len(inputs)).reported(), gradient

    def cost(self, examples: int) -> Asked:
        """Every example is presented once, after the weights were written."""
        return Asked(examples, 1)

    def cost_of_metrics(self, examples: int) -> Asked:
        """The same."""
        return Asked(examples, 1)

    def metrics(self, substrate: Substrate, inputs: Array, targets: Array, *, key: PRNGKeyArray) -> Metrics:
        """Those of the device's answers."""
        device = self._fabricated(substrate)
        if device is not None:
            return self.rule.metrics(device, inputs, targets, key=key)
        with original_errors():
            answers = jax.block_until_ready(self._asked(substrate, inputs, targets, key))
        return self.rule.judged(answers, targets)

    def _fabricated(self, substrate: Substrate) -> Substrate | None:
        """The device with the present weights; None when it is no simulated one."""
        if not isinstance(self.device, Imperfections) or self.key is None:
            return None
        return self.device.device(substrate, key=self.key)

    def _asked(self, substrate: Substrate, inputs: Array, targets: Array, key: PRNGKeyArray) -> Array:
        """The answers of the Python function; it may be random, so it is called once for every call here."""
        device = cast(HardwareFunction, self.device)
        expected = jax.eval_shape(lambda: self.rule.answers(substrate, inputs, targets, key=key))
        weights, _ = select(substrate, "weight")

        def ask(weights: PyTree, inputs: Array) -> np.ndarray:
            try:
                answers = np.asarray(device(jax.tree.map(np.asarray, weights), np.asarray(inputs)), expected.dtype)
            except Exception as error:
                raise ValueError(f"the device did not answer: {type(error).__name__}: {error}") from error
            check_shape("the device's answer", answers, expected.shape)
            check_finite("the device's answer", answers)
            return answers

        return ask_host(ask, expected, weights, inputs)


class Twin(Wrapper):
    """A device and the model of it, driven together: values of the device, derivatives of the model.

    **Arguments:**

    - `substrate`: the model.
    - `device`: of the same structure.
    - `measured_states`: whether the device's state is read after every input, and the model's set to it.
    """

    device: Substrate
    measured_states: bool = eqx.field(static=True)

    def initial_state(self, *, key: PRNGKeyArray | None = None) -> tuple[State, State]:
        """Of both."""
        return self.substrate.initial_state(key=key), self.device.initial_state(key=key)

    def stepper(self) -> Stepper:
        """Both under the same drive."""
        follow, act = self.substrate.stepper(), self.device.stepper()

        def step(state: tuple[State, State], drive: Array, *, key: PRNGKeyArray | None = None) -> tuple[State, State]:
            model, device = state
            device = jax.lax.stop_gradient(act(device, drive, key=key))
            model = follow(model, drive, key=key)
            return _valued(device, model) if self.measured_states else model, device

        return step

    def observe(self, state: tuple[State, State], *, key: PRNGKeyArray | None = None) -> Array:
        """What the device shows."""
        model, device = state
        return _valued(self.device.observe(device, key=key), self.substrate.observe(model, key=key))

    # Of energy substrates: both relax side by side.

    def found(self, state: tuple[State, State], *, key: PRNGKeyArray | None = None) -> tuple[State, State]:
        """What is found of both."""
        (model, device), (first, second) = self._energetic, state
        measured = device.found(second, key=key)
        return _valued(measured, first) if self.measured_states else model.found(first, key=key), measured

    def energy(self, state: tuple[State, State], drive: Array) -> Array:
        """The device's, with the derivative of the model's."""
        (model, device), (first, second) = self._energetic, state
        return _valued(device.energy(second, drive), model.energy(first, drive))

    def force(self, state: tuple[State, State], drive: Array) -> tuple[State, State]:
        """Of both."""
        return self.landscape(drive).force(state)

    def landscape(self, drive: Array, nudge: Nudge | None = None) -> Landscape:
        """Of both."""
        follow, act = (part.landscape(drive, nudge) for part in self._energetic)

        def force(state: tuple[State, State]) -> tuple[State, State]:
            return follow.force(state[0]), act.force(state[1])

        if follow.sweeps is None or act.sweeps is None:
            return Landscape(force)
        ours, theirs = follow.sweeps, act.sweeps

        def sweep(swept: tuple[Any, Any]) -> tuple[Any, Array]:
            (first, met), (second, also_met) = ours.sweep(swept[0]), theirs.sweep(swept[1])
            return (first, second), jnp.maximum(met, also_met)

        return Landscape(
            force,
            Sweeps(
                lambda state: (ours.encode(state[0]), theirs.encode(state[1])),
                sweep,
                lambda swept: (ours.decode(swept[0]), theirs.decode(swept[1])),
            ),
        )

    def distance(self, first: tuple[State, State], second: tuple[State, State]) -> Array:
        """The larger of both."""
        parts = zip(self._energetic, first, second, strict=True)
        return jnp.max(jnp.stack([part.distance(one, other) for part, one, other in parts]))

    @property
    def _energetic(self) -> tuple[EnergySubstrate, EnergySubstrate]:
        return cast(EnergySubstrate, self.substrate), cast(EnergySubstrate, self.device)


def _valued(values: PyTree, derivatives: PyTree) -> PyTree:
    """The numbers of `values` with the derivatives of `derivatives`."""
    return jax.tree.map(lambda v, d: d + jax.lax.stop_gradient(v - d), values, derivatives)
