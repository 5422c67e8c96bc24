r"""What separates a simulation from a chip, for every substrate: the roles of its leaves say what varies.

A fabricated device is a draw of `Imperfections`. A rule that is to learn despite them is wrapped: `NoiseAware` sees
another device at every step and learns weights that fit all of them; `InTheLoop` uses the answers of the one device
that there is, and the model only for the backward pass.
"""

from collections.abc import Callable
from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import io_callback
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from morphax._checks import check_count, check_finite, check_range, check_shape, is_concrete
from morphax.learning.backprop import Backpropagation
from morphax.learning.train import LearningRule, Metrics
from morphax.pytrees import Role, Tree, perturb, select
from morphax.substrates.base import Consumption, State, Stepper, Substrate

HardwareFunction = Callable[[PyTree, np.ndarray], np.ndarray]


def mismatch(substrate: Tree, *, weights: ArrayLike = 0.0, devices: ArrayLike = 0.0, key: PRNGKeyArray) -> Tree:
    r"""A device from the same production line: every number times a log-normal factor of mean 1.

    **Arguments:**

    - `substrate`: what was designed.
    - `weights`, `devices`: relative spread $\sigma \ge 0$ of the leaves with the role weight and device.
    - `key`: which device.

    **Raises:** `ValueError` for a negative or non-finite spread.

        >>> import jax
        >>> from morphax import SpintronicNetwork
        >>> from morphax.learning.hardware import mismatch
        >>> network = SpintronicNetwork.random((16, 16), key=jax.random.key(0))
        >>> chip = mismatch(network, devices=0.05, key=jax.random.key(1))
        >>> bool((chip.connections.weights == network.connections.weights).all())
        True
        >>> 0.03 < (chip.damping_rate / network.damping_rate).std().item() < 0.07
        True
    """
    first, second = jax.random.split(key)
    return perturb(perturb(substrate, weights, "weight", key=first), devices, "device", key=second)


def quantise(tree: Tree, bits: int, *chosen: Role) -> Tree:
    r"""Leaves with a role in `chosen` (weights when none is named) rounded to what `bits` can hold.

    Each leaf has its own scale: $2^{\mathrm{bits}} - 1$ levels, evenly spaced from minus to plus the largest magnitude
    in the leaf, with 0 among them. The derivative is that of no rounding (straight-through), so quantised weights can
    be trained.

    **Raises:** `ValueError` unless `bits` is a whole number >= 2.

        >>> import equinox as eqx, jax.numpy as jnp
        >>> from morphax import WEIGHT
        >>> from morphax.learning.hardware import quantise
        >>> class Weights(eqx.Module):
        ...     values: jnp.ndarray = eqx.field(metadata=WEIGHT)
        >>> quantise(Weights(jnp.array([0.0, 0.2, -0.8, 1.5])), 2).values.tolist()
        [0.0, 0.0, -1.5, 1.5]
    """
    check_count("bits", bits, 2)
    rounded, fixed = select(tree, *(chosen or ("weight",)))
    return eqx.combine(jax.tree.map(lambda leaf: _rounded(leaf, bits), rounded), fixed)


class Imperfections(eqx.Module):
    r"""How devices differ from the model; `device(substrate, key)` fabricates one.

    Applied in this order: `weight_bits` rounds the weights, `weight_mismatch` and `device_mismatch` spread them and the
    material (`mismatch`), `state_noise` adds Gaussian noise of this standard deviation to the state after every input
    (`Substrate.disturb`).

    **Raises:** `ValueError` for a negative or non-finite number, or fewer than 2 bits.
    """

    weight_mismatch: Array | float = 0.0
    device_mismatch: Array | float = 0.0
    state_noise: Array | float = 0.0
    weight_bits: int | None = eqx.field(static=True, default=None)

    def __check_init__(self) -> None:
        for name in ("weight_mismatch", "device_mismatch", "state_noise"):
            check_range(name, getattr(self, name), low=0.0)
        if self.weight_bits is not None:
            check_count("weight_bits", self.weight_bits, 2)

    def device(self, substrate: Tree, *, key: PRNGKeyArray) -> "Tree | Noisy":
        """A fabricated device that follows `substrate`'s present weights; the same key is the same device."""
        if self.weight_bits is not None:
            substrate = quantise(substrate, self.weight_bits)
        varied = mismatch(substrate, weights=self.weight_mismatch, devices=self.device_mismatch, key=key)
        silent = is_concrete(self.state_noise) and not np.any(np.asarray(self.state_noise))
        return varied if silent else Noisy(varied, jnp.asarray(self.state_noise, jnp.result_type(float)))


class Noisy(Substrate):
    """A substrate whose state is disturbed after every input, with standard deviation `amplitude` (0: never).

    Needs a key in `evolve` unless the amplitude is 0.

        >>> import jax, jax.numpy as jnp
        >>> from morphax import SpintronicNetwork, evolve
        >>> from morphax.learning.hardware import Noisy
        >>> network = SpintronicNetwork.random((8, 8), measured="states", key=jax.random.key(0))
        >>> noisy, _ = evolve(Noisy(network, 0.01), jnp.zeros(1), key=jax.random.key(1))
        >>> 0.003 < jnp.std(noisy - evolve(network, jnp.zeros(1))[0]).item() < 0.02
        True
    """

    substrate: Substrate
    amplitude: Array | float

    def initial_state(self, *, key: PRNGKeyArray | None = None) -> State:
        """That of the substrate."""
        return self.substrate.initial_state(key=key)

    def step(self, state: State, drive: Float[Array, "..."], *, key: PRNGKeyArray | None = None) -> State:
        """The substrate's step, then noise."""
        return self.stepper()(state, drive, key=key)

    def stepper(self) -> Stepper:
        """The substrate's, then noise."""
        inner = self.substrate.stepper()

        def step(state: State, drive: Array, *, key: PRNGKeyArray | None = None) -> State:
            if key is None:
                return inner(state, drive)
            first, second = jax.random.split(key)
            return self.substrate.disturb(inner(state, drive, key=first), self.amplitude, key=second)

        return step

    def observe(self, state: State, *, key: PRNGKeyArray | None = None) -> Float[Array, " neurons"]:
        """That of the substrate."""
        return self.substrate.observe(state, key=key)

    def disturb(self, state: State, amplitude: ArrayLike, *, key: PRNGKeyArray) -> State:
        """That of the substrate."""
        return self.substrate.disturb(state, amplitude, key=key)

    def consumption(self) -> tuple[Consumption, ...]:
        """That of the substrate."""
        return self.substrate.consumption()


class NoiseAware(eqx.Module):
    """Learning rule: `rule` on another fabricated device at every step, so that the weights suit all of them.

    The gradient that the device gives is applied to the weights as designed. Watched data are judged on the model.

    **Arguments:**

    - `rule`: any learning rule.
    - `imperfections`: how devices vary.
    """

    rule: LearningRule
    imperfections: Imperfections

    def gradient(
        self, substrate: Substrate, inputs: PyTree, targets: PyTree, *, key: PRNGKeyArray
    ) -> tuple[Metrics, Any]:
        """Metrics and gradient of `rule` on a new device."""
        which, noise = jax.random.split(key)
        device = self.imperfections.device(substrate, key=which)
        metrics, gradient = self.rule.gradient(device, inputs, targets, key=noise)
        return metrics, gradient.substrate if isinstance(device, Noisy) else gradient

    def metrics(self, substrate: Substrate, inputs: PyTree, targets: PyTree, *, key: PRNGKeyArray) -> Metrics:
        """Those of `rule` on the substrate as designed."""
        return self.rule.metrics(substrate, inputs, targets, key=key)  # pyright: ignore[reportAttributeAccessIssue]


class InTheLoop(eqx.Module):
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
    function answers with another shape, NaN or infinity.

    Source: Wright et al., Nature 601, 549 (2022), "physics-aware training"; Plouet et al. (2025), Sec. V.
    """

    rule: Backpropagation
    device: Imperfections | HardwareFunction
    key: PRNGKeyArray | None = None
    measured_states: bool = eqx.field(static=True, default=False)

    def __check_init__(self) -> None:
        if isinstance(self.device, Imperfections):
            if self.key is None:
                raise ValueError("key is None; it says which device the imperfections fabricate")
        elif self.measured_states:
            raise ValueError("measured_states is True, but a Python function gives outputs only; it must be False")

    def gradient(
        self, substrate: Substrate, inputs: Array, targets: Array, *, key: PRNGKeyArray
    ) -> tuple[Metrics, Any]:
        """Metrics of the device's answers, and the gradient through the model."""
        device = self._fabricated(substrate)
        if device is not None:
            twin = _Twin(substrate, device, self.measured_states)
            metrics, gradient = self.rule.gradient(twin, inputs, targets, key=key)
            return metrics, gradient.model

        answers = self._asked(substrate, inputs, key)

        def loss(substrate: Substrate) -> tuple[Array, Metrics]:
            metrics = self.rule.objective(_valued(answers, self.rule.outputs(substrate, inputs, key=key)), targets)
            return metrics["loss"], metrics

        gradient, metrics = eqx.filter_grad(loss, has_aux=True)(substrate)
        return metrics, gradient

    def metrics(self, substrate: Substrate, inputs: Array, targets: Array, *, key: PRNGKeyArray) -> Metrics:
        """Those of the device's answers."""
        device = self._fabricated(substrate)
        if device is not None:
            return self.rule.metrics(device, inputs, targets, key=key)
        return self.rule.objective(self._asked(substrate, inputs, key), targets)

    def _fabricated(self, substrate: Substrate) -> Substrate | None:
        """The device with the present weights; None when it is no simulated one."""
        if not isinstance(self.device, Imperfections) or self.key is None:
            return None
        return self.device.device(substrate, key=self.key)

    def _asked(self, substrate: Substrate, inputs: Array, key: PRNGKeyArray) -> Array:
        """The answers of the Python function; it may be random, so it is called once for every call here."""
        device = cast(HardwareFunction, self.device)
        expected = jax.eval_shape(lambda: self.rule.outputs(substrate, inputs, key=key))
        weights, _ = select(substrate, "weight")

        def ask(weights: PyTree, inputs: Array) -> np.ndarray:
            answers = np.asarray(device(jax.tree.map(np.asarray, weights), np.asarray(inputs)), expected.dtype)
            check_shape("the device's answer", answers, expected.shape)
            check_finite("the device's answer", answers)
            return answers

        return io_callback(ask, expected, weights, inputs)


class _Twin(Substrate):
    """A device and the model of it, driven together: values of the device, derivatives of the model."""

    model: Substrate
    device: Substrate
    measured_states: bool = eqx.field(static=True)

    def initial_state(self, *, key: PRNGKeyArray | None = None) -> tuple[State, State]:
        return self.model.initial_state(key=key), self.device.initial_state(key=key)

    def step(self, state: tuple[State, State], drive: Array, *, key: PRNGKeyArray | None = None) -> tuple[State, State]:
        return self.stepper()(state, drive, key=key)

    def stepper(self) -> Stepper:
        follow, act = self.model.stepper(), self.device.stepper()

        def step(state: tuple[State, State], drive: Array, *, key: PRNGKeyArray | None = None) -> tuple[State, State]:
            model, device = state
            device = jax.lax.stop_gradient(act(device, drive, key=key))
            model = follow(model, drive, key=key)
            return _valued(device, model) if self.measured_states else model, device

        return step

    def observe(self, state: tuple[State, State], *, key: PRNGKeyArray | None = None) -> Array:
        model, device = state
        return _valued(self.device.observe(device, key=key), self.model.observe(model, key=key))


def _valued(values: PyTree, derivatives: PyTree) -> PyTree:
    """The numbers of `values` with the derivatives of `derivatives`."""
    return jax.tree.map(lambda v, d: d + jax.lax.stop_gradient(v - d), values, derivatives)


def inference_energy(substrate: Substrate, duration: float) -> float:
    r"""Energy of one inference in joules, from the device constants that a substrate states.

    $$E = \sum_\mathrm{parts} n \left(P \, T + E_1\right)$$

    with $n$ parts of a kind that draw the power $P$ for the duration $T$ and the energy $E_1$ once.

    **Arguments:**

    - `substrate`: with `Substrate.consumption`.
    - `duration`: of the presentation, in ns, > 0.

    **Raises:** `ValueError` for a substrate without device constants.

    The paper's 96 neurons and 2,896 synapses over 100 ns (Plouet et al., Sec. V: "about 40 pJ"):

        >>> import jax
        >>> from morphax import SpintronicNetwork, WithReadout
        >>> from morphax.learning.hardware import inference_energy
        >>> first, second = jax.random.split(jax.random.key(0))
        >>> network = WithReadout.random(SpintronicNetwork.random(key=first), outputs=10, key=second)
        >>> round(inference_energy(network, duration=100.0) * 1e12, 2)
        38.56
    """
    check_range("duration", duration, low=0.0, open_low=True)
    parts = substrate.consumption()
    if not parts:
        raise ValueError(f"substrate is a {type(substrate).__name__}, which states no device constants")
    return sum(part.number * (part.power * duration * 1e-9 + part.energy) for part in parts)


def _rounded(leaf: Array, bits: int) -> Array:
    largest = jnp.max(jnp.abs(leaf))
    step = jnp.where(largest > 0, largest, 1.0) / (2 ** (bits - 1) - 1)
    return leaf + jax.lax.stop_gradient(jnp.round(leaf / step) * step - leaf)
