r"""Learning from single shots of qubits: by shifted angles, and by the score function of what was measured.

Both estimate the gradient of the expected loss of one shot, $\sum_d P(d) \, L(d)$, from outcomes $d$ alone. What a
device must tell are its angles (`Angled`).
"""

from abc import abstractmethod
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from morphax._checks import check_count, is_concrete
from morphax.learning.backprop import Backpropagation
from morphax.learning.objectives import Objective
from morphax.learning.rule import Asked, LearningRule, Metrics
from morphax.pytrees import Role, select
from morphax.substrates.base import presented
from morphax.tasks.base import Kind


@runtime_checkable
class Angled(Protocol):
    """Layers of qubits that are turned by declared angles and measured, as `QuantizedPerceptron` has them."""

    @property
    def layers(self) -> int:
        """How many."""
        ...

    def angles(self, layer: int, below: Any) -> Any:
        """By which a layer's qubits are turned, given the outcomes below: known, with derivatives."""
        ...

    def shot(self, drive: Any, *, key: Any, shifts: Any = None) -> Any:
        """Outcomes of all measurements, with angles that are shifted."""
        ...

    def log_probability(self, drive: Any, outcomes: Any) -> Any:
        """Of outcomes, in a model."""
        ...

    def answer(self, outcomes: Any) -> Any:
        """The outputs."""
        ...


class ShotRule(LearningRule):
    """What rules share that learn from outcomes.

    **Arguments:**

    - `shots`: of every example, at least 1.
    - `objective`: as of `Backpropagation`.
    - `roles`: of the leaves whose gradient is computed. `train` sets those that it trains.
    """

    shots: int = eqx.field(static=True, default=16)
    objective: Objective | None = eqx.field(static=True, default=None, kw_only=True)
    roles: tuple[Role, ...] = eqx.field(static=True, default=("weight",), kw_only=True)

    def __check_init__(self) -> None:
        check_count("shots", self.shots, 1)

    @property
    def judge(self) -> Backpropagation:
        """Who compares outputs with targets."""
        return Backpropagation(self.objective)

    def needs(self) -> str:
        """Declared angles."""
        return "qubits with declared angles (Angled: angles, shot, log_probability, answer)"

    def fits(self, substrate: Any) -> bool:
        """Declared angles."""
        return isinstance(substrate, Angled)

    def suited(self, kind: Kind) -> "ShotRule":
        """With the objective of the kind, where none was chosen."""
        return replace(self, objective=self.judge.suited(kind).objective)

    def for_roles(self, *trained: Role) -> "ShotRule":
        """With gradients of leaves with these roles."""
        return replace(self, roles=trained)

    def check_data(self, substrate: Any, inputs: Array, targets: Array) -> None:
        """What back-propagation refuses, more than one input an example, and angles without a slope."""
        self.judge.check_data(substrate, inputs, targets)
        if presented(substrate, inputs).shape[1] != 1:
            raise ValueError(f"inputs has shape {inputs.shape}; qubits answer one vector at once: (examples, channels)")
        width = getattr(substrate, "width", None)
        if width is not None and is_concrete(width) and np.asarray(width) == 0:
            raise ValueError(
                f"{type(substrate).__name__} has width 0, where angles do not change with weights; give it one > 0"
            )

    def cost_of_metrics(self, examples: int) -> Asked:
        """A shot of every example."""
        return Asked(examples, 1)

    def metrics(self, substrate: Any, inputs: Array, targets: Array, *, key: PRNGKeyArray) -> Metrics:
        """What the objective says of one shot of every example."""
        return self.judge.metrics(substrate, inputs, targets, key=key)

    def _losses(self, outputs: Float[Array, "examples shots outputs"], targets: Array) -> Array:
        """Of every shot."""

        def one(outputs: Array, target: Array) -> Array:
            return self.judge.judged(outputs[None], target[None])["loss"]

        return jax.vmap(jax.vmap(one, (0, None)))(outputs, targets)

    def _judged(self, outputs: Float[Array, "examples shots outputs"], targets: Array) -> Metrics:
        return self.judge.judged(outputs.reshape(-1, outputs.shape[-1]), jnp.repeat(targets, self.shots, axis=0))

    @abstractmethod
    def slopes(self, substrate: Any, drives: Array, targets: Array, key: PRNGKeyArray) -> tuple[Metrics, PyTree]:
        """Metrics, and the gradient of the leaves with `roles`."""

    def gradient(self, substrate: Any, inputs: Array, targets: Array, *, key: PRNGKeyArray) -> tuple[Metrics, PyTree]:
        """Metrics of the shots, and an unbiased estimate of the gradient of their mean."""
        drives = presented(substrate, inputs)[:, 0]
        targets = targets[:, 0] if targets.ndim == 3 else targets
        metrics, gradient = self.slopes(substrate, drives, targets, key)
        return metrics | self.cost(len(drives)).reported(), gradient

    def _shots(self, substrate: Any, drives: Array, key: PRNGKeyArray, shifts: Array | None = None) -> Array:
        """Outcomes (examples, shots, layers, neurons)."""
        keys = jax.random.split(key, (len(drives), self.shots))
        one = jax.vmap(lambda u, k: substrate.shot(u, key=k, shifts=shifts), (None, 0))
        return jax.vmap(one)(drives, keys)


class ScoreFunction(ShotRule):
    r"""Learning rule: the score function of the outcomes (REINFORCE), with the mean of the other shots as baseline.

    $$g = \frac{1}{K} \sum_k (L_k - b_k) \, \nabla \ln P(d_k) + \nabla L(d_k), \qquad
      b_k = \frac{1}{K - 1} \sum_{j \ne k} L_j$$

    with $K$ shots of every example; the last term is that of the readout, which knows no chance. Probabilities come
    from a model of the device, outcomes from the device.

    **Arguments:** (besides those of `ShotRule`)

    - `baseline`: whether to subtract one, which leaves the mean and takes away variance. Needs 2 shots.

    Source: Williams, Mach. Learn. 8, 229 (1992); Kool, van Hoof & Welling, ICLR workshop DeepRLStructPred (2019), for
    the baseline.

        >>> import equinox as eqx, jax, jax.numpy as jnp
        >>> from morphax import QuantizedPerceptron
        >>> from morphax.learning.shift import ScoreFunction
        >>> network = QuantizedPerceptron.random((3, 4, 2), width=0.5, key=jax.random.key(0))
        >>> data = jax.random.normal(jax.random.key(1), (6, 3)), jnp.eye(2)[jnp.arange(6) % 2]
        >>> metrics, gradient = eqx.filter_jit(ScoreFunction(shots=8).gradient)(network, *data, key=jax.random.key(2))
        >>> gradient.weights[0].shape, int(metrics["presentations"])
        ((4, 3), 48)
    """

    baseline: bool = eqx.field(static=True, default=True)

    def __check_init__(self) -> None:
        if self.baseline and self.shots < 2:
            raise ValueError(f"shots is {self.shots}, but the baseline is the mean of the other shots; give 2 or more")

    def cost(self, examples: int) -> Asked:
        """All shots of every example."""
        return Asked(self.shots * examples, 1)

    def slopes(self, substrate: Any, drives: Array, targets: Array, key: PRNGKeyArray) -> tuple[Metrics, PyTree]:
        """From the losses of the shots."""
        outcomes = self._shots(substrate, drives, key)
        outputs = jax.vmap(jax.vmap(substrate.answer))(outcomes)
        losses = self._losses(outputs, targets)
        others = (jnp.sum(losses, axis=1, keepdims=True) - losses) / (self.shots - 1) if self.baseline else 0.0
        learned, fixed = select(substrate, *self.roles)

        def surrogate(learned: PyTree) -> Array:
            model = eqx.combine(learned, fixed)
            scores = jax.vmap(jax.vmap(model.log_probability, (None, 0)))(drives, outcomes)
            direct = self._losses(jax.vmap(jax.vmap(model.answer))(outcomes), targets)
            return jnp.mean((losses - others) * scores + direct)

        return self._judged(outputs, targets), jax.grad(surrogate)(learned)


class AngleShift(ShotRule):
    r"""Learning rule: the angle of a neuron is shifted by a quarter turn both ways (parameter shift).

    $$\frac{\partial \langle L \rangle}{\partial \theta_i} = \frac{\langle L \rangle_{\theta_i + \pi / 2} -
      \langle L \rangle_{\theta_i - \pi / 2}}{2}$$

    is exact, for an expectation is a sine of every angle; weights change the angles in a known way, given what was
    measured below. No model of probabilities is needed. A weight itself has no fixed generator: shifting it would be
    wrong.

    **Arguments:** (besides those of `ShotRule`)

    - `neurons`: how many are shifted in a step, one after the other, drawn without repetition: at least 1. With fewer
      than all the gradient has the same mean, and more variance.

    Source: Mitarai, Negoro, Kitagawa & Fujii, Phys. Rev. A 98, 032309 (2018); Schuld et al., Phys. Rev. A 99, 032331
    (2019).

        >>> import equinox as eqx, jax, jax.numpy as jnp
        >>> from morphax import QuantizedPerceptron
        >>> from morphax.learning.shift import AngleShift
        >>> network = QuantizedPerceptron.random((3, 4, 2), width=0.5, key=jax.random.key(0))
        >>> data = jax.random.normal(jax.random.key(1), (6, 3)), jnp.eye(2)[jnp.arange(6) % 2]
        >>> rule = AngleShift(shots=8, neurons=4)
        >>> metrics, gradient = eqx.filter_jit(rule.gradient)(network, *data, key=jax.random.key(2))
        >>> gradient.weights[0].shape, int(metrics["presentations"])        # 6 x 8 x (1 + 2 x 4)
        ((4, 3), 432)
    """

    neurons: int = eqx.field(static=True, default=16)

    def __check_init__(self) -> None:
        check_count("neurons", self.neurons, 1)

    def check_data(self, substrate: Any, inputs: Array, targets: Array) -> None:
        """Besides, refuse to shift more neurons than there are."""
        super().check_data(substrate, inputs, targets)
        layers, width = self._shape(substrate, presented(substrate, inputs)[0, 0])
        if self.neurons > layers * width:
            raise ValueError(
                f"neurons is {self.neurons}; {type(substrate).__name__} has {layers} x {width}, so it must be at "
                f"most {layers * width}"
            )

    def _shape(self, substrate: Any, drive: Array) -> tuple[int, ...]:
        return eqx.filter_eval_shape(lambda s, u: s.shot(u, key=jax.random.key(0)), substrate, drive).shape

    def cost(self, examples: int) -> Asked:
        """All shots of every example undisturbed, and twice for every neuron."""
        return Asked(self.shots * examples * (1 + 2 * self.neurons), 1 + 2 * self.neurons)

    def slopes(self, substrate: Any, drives: Array, targets: Array, key: PRNGKeyArray) -> tuple[Metrics, PyTree]:
        """From the losses of shifted shots."""
        first, which, noise = jax.random.split(key, 3)
        layers, width = self._shape(substrate, drives[0])
        learned, fixed = select(substrate, *self.roles)
        outcomes = self._shots(substrate, drives, first)

        def direct(learned: PyTree) -> Array:
            return jnp.mean(self._losses(jax.vmap(jax.vmap(eqx.combine(learned, fixed).answer))(outcomes), targets))

        def pulled(learned: PyTree, place: Array, outcomes: Array, losses: Array) -> Array:
            """Mean of loss times angle of one neuron, of given outcomes below."""
            model, found = eqx.combine(learned, fixed), []
            for layer in range(layers):
                below = drives[:, None] if layer == 0 else outcomes[:, :, layer - 1]
                below = jnp.broadcast_to(below, (*losses.shape, below.shape[-1]))
                angles = jax.vmap(jax.vmap(lambda y, layer=layer: model.angles(layer, y)))(below)
                found.append(jnp.mean(losses[..., None] * angles, axis=(0, 1)))
            return jnp.concatenate(found)[place]

        def shifted(total: PyTree, item: tuple[Array, PRNGKeyArray]) -> tuple[PyTree, None]:
            place, key = item
            one = (jnp.arange(layers * width) == place).reshape(layers, width) * (jnp.pi / 2)
            for side, side_key in zip((1, -1), jax.random.split(key), strict=True):
                seen = self._shots(substrate, drives, side_key, side * one)
                losses = self._losses(jax.vmap(jax.vmap(substrate.answer))(seen), targets)
                slope = jax.grad(pulled)(learned, place, seen, losses)
                total = jax.tree.map(lambda t, g, side=side: t + side * g / 2, total, slope)
            return total, None

        places = jax.random.permutation(which, layers * width)[: self.neurons]
        start = jax.tree.map(jnp.zeros_like, learned)
        hidden, _ = jax.lax.scan(shifted, start, (places, jax.random.split(noise, self.neurons)))
        share = layers * width / self.neurons
        gradient = jax.tree.map(lambda d, h: d + share * h, jax.grad(direct)(learned), hidden)
        return self._judged(jax.vmap(jax.vmap(substrate.answer))(outcomes), targets), gradient
