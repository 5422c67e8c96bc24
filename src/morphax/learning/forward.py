r"""Layers that learn by themselves: no error goes from one to another.

`LocalHeads` gives every layer an answer of its own. `ForwardForward` and `PhysicalLocalLearning` show an example with
its label and with a wrong one, and every layer learns to tell these apart; a new example is shown once with each label.
"""

from abc import abstractmethod
from dataclasses import replace
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from morphax._checks import check_choice, check_count, check_key, check_range
from morphax.learning.feedback import FeedbackRule, Slope, neuron_slopes
from morphax.learning.layer_errors import Pass
from morphax.learning.objectives import classification
from morphax.learning.rule import Asked, LearningRule, Metrics
from morphax.pytrees import Role, select
from morphax.substrates.base import numbers_of
from morphax.substrates.layered import Layered


class LocalHeads(FeedbackRule):
    r"""Learning rule: a fixed random matrix makes answers of every layer, and their errors teach that layer alone.

    $$\delta_l = H_l^T \, \frac{\partial L}{\partial o}(H_l y_l, t) \circ f'(a_l)$$

    The readout learns by its own gradient.

    **Arguments:** (besides those of `FeedbackRule`)

    - `key`: of the matrices, normal with variance 1 over the neurons of the layer.

    Source: Mostafa, Ramesh & Cauwenberghs, Front. Neurosci. 12, 608 (2018).

        >>> import jax, jax.numpy as jnp
        >>> from morphax.learning.forward import LocalHeads
        >>> from morphax.substrates.layered import OscillatorLayers
        >>> network = OscillatorLayers.random((3, 8, 2), key=jax.random.key(0))
        >>> data = jax.random.normal(jax.random.key(1), (6, 3)), jnp.eye(2)[jnp.arange(6) % 2]
        >>> metrics, gradient = LocalHeads(jax.random.key(2)).gradient(network, *data, key=jax.random.key(3))
        >>> gradient.weights[0].shape, int(metrics["presentations"])
        ((8, 3), 6)
    """

    key: PRNGKeyArray

    def __check_init__(self) -> None:
        check_key("key", self.key)

    def errors(
        self, substrate: Layered, shown: Pass, targets: Array, *, key: PRNGKeyArray, memory: PyTree = None
    ) -> tuple[list[Array], tuple[PyTree, ...]]:
        """Of every layer from its own answers."""

        def loss(outputs: Array) -> Array:
            return self.judge.judged(outputs, targets)["loss"]

        deltas = []
        for layer, (fed, answered) in enumerate(zip(shown.fed, shown.entering[1:], strict=True)):
            size = answered.shape[-1]
            head = jax.random.normal(jax.random.fold_in(self.key, layer), (shown.outputs.shape[-1], size)) / size**0.5
            told = jax.grad(loss)(answered @ head.T) @ head
            deltas.append(told * self._slope(substrate, layer, fed))
        return deltas, ()


class LabelledRule(LearningRule):
    r"""What rules share that show an example together with a label, once the right and once a wrong one.

    The last channels of the substrate are for the label, one for every class: it takes that many more than the data
    have. What enters a wiring, but for the first, is divided by its root mean square, so that a layer cannot tell right
    from wrong by how strong the one below answers. A subclass says how good a label is to each layer.

    **Arguments:**

    - `classes`: how many, at least 2.
    - `sharpness`: $s > 0$, by which the goodness is multiplied in the loss.
    - `roles`: of the leaves whose gradient is computed. `train` sets those that it trains.
    - `wrong`: how wrong labels are drawn: all "alike", or the "likely" ones more often, with the probabilities that the
      network gives them; then an example is presented with each label besides.

    A label is answered by the goodness of all layers together: an example is presented once with each. Metrics: "loss",
    the cross-entropy of the labels' goodness, and "accuracy"; of `gradient` "loss" is what it lowers, and "accuracy"
    how often the right label is better than the wrong one.
    """

    classes: int = eqx.field(static=True)
    sharpness: float | Float[Array, ""] = 10.0
    roles: tuple[Role, ...] = eqx.field(static=True, default=("weight",), kw_only=True)
    wrong: Literal["alike", "likely"] = eqx.field(static=True, default="alike", kw_only=True)

    def __check_init__(self) -> None:
        check_count("classes", self.classes, 2)
        check_choice("wrong", self.wrong, ("alike", "likely"))
        check_range("sharpness", self.sharpness, low=0.0, open_low=True)

    def needs(self) -> str:
        """Layers."""
        return "layers with known wiring (Layered: layers, feed, respond)"

    def fits(self, substrate: Any) -> bool:
        """Layers."""
        return isinstance(substrate, Layered)

    def for_roles(self, *trained: Role) -> "LabelledRule":
        """With gradients of leaves with these roles."""
        return replace(self, roles=trained)

    def check_data(self, substrate: Layered, inputs: Array, targets: Array) -> None:
        """Refuse what is no classification, and substrates without channels for the label."""
        inputs, targets = _one_input(inputs, targets)
        if targets.ndim != 2 or targets.shape[1] != self.classes:
            raise ValueError(
                f"targets has shape {targets.shape}; {type(self).__name__} shows labels of {self.classes} classes: it "
                "must be (examples, classes), which one_hot makes of labels"
            )
        (wanted,) = numbers_of(substrate.channels)
        if inputs.ndim != 2 or inputs.shape[1] + self.classes != wanted:
            raise ValueError(
                f"inputs has shape {inputs.shape}; {type(substrate).__name__} takes {wanted} channels, of which "
                f"{self.classes} are for the label, so it must be (examples, {wanted - self.classes})"
            )

    def cost(self, examples: int) -> Asked:
        """Every example with a right and a wrong label, after all labels where the wrong one is to be a likely one."""
        labels = 2 if self.wrong == "alike" else 2 + self.classes
        return Asked(labels * examples, 1)

    def cost_of_metrics(self, examples: int) -> Asked:
        """Every example with every label."""
        return Asked(self.classes * examples, 1)

    @abstractmethod
    def goodness(self, fed: list[Array], answered: list[Array]) -> list[Float[Array, " examples"]]:
        """What layers say of a label, from what reached each (and the readout) and what it answered."""

    @abstractmethod
    def contrast(self, right: Float[Array, " examples"], wrong: Float[Array, " examples"]) -> Float[Array, " examples"]:
        """The loss of one layer, from its goodness of both labels."""

    @abstractmethod
    def slope_of(self, substrate: Layered, layer: int, fed: Float[Array, "examples neurons"]) -> Array | float:
        """What stands for the derivative of the answers by what reached the neurons."""

    def scores(
        self, substrate: Layered, inputs: Float[Array, "examples channels"], *, key: PRNGKeyArray
    ) -> Float[Array, "examples classes"]:
        """The goodness of every label: what the network answers."""

        def of(label: Array, key: PRNGKeyArray) -> Array:
            labels = jnp.broadcast_to(label, (len(inputs), self.classes))
            fed, _, answered = self._shown(substrate, inputs, labels, key)
            return sum(self.goodness(fed, answered), start=jnp.zeros(()))

        return jax.vmap(of, out_axes=1)(jnp.eye(self.classes), jax.random.split(key, self.classes))

    def metrics(self, substrate: Layered, inputs: Array, targets: Array, *, key: PRNGKeyArray) -> Metrics:
        """Cross-entropy and accuracy of the labels."""
        inputs, targets = _one_input(inputs, targets)
        return classification(self.sharpness * self.scores(substrate, inputs, key=key), targets)

    def gradient(
        self, substrate: Layered, inputs: Array, targets: Array, *, key: PRNGKeyArray
    ) -> tuple[Metrics, PyTree]:
        """Metrics of both labels, and the gradient of the wiring."""
        inputs, targets = _one_input(inputs, targets)
        which, *noise = jax.random.split(key, 3)
        wrong = self._wrong(substrate, inputs, targets, which)
        shown = [self._shown(substrate, inputs, labels, k) for labels, k in zip((targets, wrong), noise, strict=True)]

        def loss(seen: list[tuple[list[Array], list[Array]]]) -> tuple[Array, Array]:
            right, wrong = (self.goodness(fed, answered) for fed, answered in seen)
            losses = [jnp.mean(self.contrast(r, w)) for r, w in zip(right, wrong, strict=True)]
            better = sum(right, start=jnp.zeros(())) > sum(wrong, start=jnp.zeros(()))
            return sum(losses, start=jnp.zeros(())), jnp.mean(better.astype(inputs.dtype))

        seen = [(fed, answered) for fed, _, answered in shown]
        (total, better), pulls = jax.value_and_grad(loss, has_aux=True)(seen)
        learned, fixed = select(substrate, *self.roles)

        def pulled(learned: PyTree) -> Array:
            wired, sums = eqx.combine(learned, fixed), []
            for (fed, entering, _), (by_fed, by_answer) in zip(shown, pulls, strict=True):
                for layer, (below, direct) in enumerate(zip(entering, by_fed, strict=True)):
                    delta = direct
                    if layer < substrate.layers:
                        delta = delta + by_answer[layer] * self.slope_of(substrate, layer, fed[layer])
                    reached = jax.vmap(lambda y, layer=layer: wired.feed(layer, y))(below)
                    sums.append(jnp.sum(reached * jax.lax.stop_gradient(delta)))
            return sum(sums[1:], start=sums[0])

        metrics = {"loss": total, "accuracy": better} | self.cost(len(inputs)).reported()
        return metrics, jax.grad(pulled)(learned)

    def _wrong(self, substrate: Layered, inputs: Array, targets: Array, key: PRNGKeyArray) -> Array:
        """One of the other labels for each example."""
        if self.wrong == "alike":
            turns = jax.random.randint(key, (len(inputs),), 1, self.classes)
            return jax.vmap(jnp.roll)(targets, turns)
        noise, draw = jax.random.split(key)
        scores = self.sharpness * self.scores(substrate, inputs, key=noise)
        labels = jax.random.categorical(draw, jnp.where(targets > 0, -jnp.inf, scores))
        return jax.nn.one_hot(labels, self.classes, dtype=targets.dtype)

    def _shown(
        self, substrate: Layered, drives: Array, labels: Array, key: PRNGKeyArray
    ) -> tuple[list[Array], list[Array], list[Array]]:
        """What reached every layer and the readout, what entered each wiring, and what the layers answered."""

        def one(drive: Array, label: Array, key: PRNGKeyArray) -> tuple[list[Array], list[Array], list[Array]]:
            fed, entering, answered = [], [jnp.concatenate([drive, label.astype(drive.dtype)])], []
            for layer in range(substrate.layers):
                fed.append(substrate.feed(layer, entering[-1]))
                answered.append(substrate.respond(layer, fed[-1], key=jax.random.fold_in(key, layer)))
                size = jnp.sqrt(jnp.mean(answered[-1] ** 2))
                entering.append(answered[-1] / jnp.maximum(size, jnp.finfo(size.dtype).tiny))
            return [*fed, substrate.feed(substrate.layers, entering[-1])], entering, answered

        return jax.vmap(one)(drives, labels, jax.random.split(key, len(drives)))


def _one_input(inputs: Array, targets: Array) -> tuple[Array, Array]:
    """Examples of one input each, without the axis of time."""
    inputs = inputs[:, 0] if inputs.ndim == 3 and inputs.shape[1] == 1 else inputs
    return inputs, targets[:, 0] if targets.ndim == 3 and targets.shape[1] == 1 else targets


class ForwardForward(LabelledRule):
    r"""Learning rule: the forward-forward algorithm.

    $$G_l = \langle y_l^2 \rangle, \qquad
      L_l = \ln \left( 1 + e^{s (\vartheta - G_l^+)} \right) + \ln \left( 1 + e^{s (G_l^- - \vartheta)} \right)$$

    the mean square of what a layer answers to an example with the right label (+), or a wrong one (-). The readout does
    not learn, and answers nothing.

    **Arguments:** (besides those of `LabelledRule`)

    - `threshold`: $\vartheta$.
    - `slope`: what stands for the derivative of a neuron, as of `FeedbackRule`: "model", or a function.

    Source: Hinton, arXiv:2212.13345 (2022), Eqs. 1, 2; Sec. 3.3 for wrong labels that are likely.

        >>> import jax, jax.numpy as jnp
        >>> from morphax.learning.forward import ForwardForward
        >>> from morphax.substrates.layered import OscillatorLayers
        >>> network = OscillatorLayers.random((3 + 2, 8, 8, 2), key=jax.random.key(0))
        >>> data = jax.random.normal(jax.random.key(1), (6, 3)), jnp.eye(2)[jnp.arange(6) % 2]
        >>> rule = ForwardForward(classes=2)
        >>> metrics, gradient = rule.gradient(network, *data, key=jax.random.key(3))
        >>> gradient.weights[0].shape, int(metrics["presentations"]), rule.cost_of_metrics(6).presentations
        ((8, 5), 12, 12)
    """

    threshold: float | Float[Array, ""] = 0.3
    slope: Slope = eqx.field(static=True, default="model", kw_only=True)

    def goodness(self, fed: list[Array], answered: list[Array]) -> list[Float[Array, " examples"]]:
        """Mean squares of answers."""
        return [jnp.mean(y**2, axis=-1) for y in answered]

    def contrast(self, right: Float[Array, " examples"], wrong: Float[Array, " examples"]) -> Float[Array, " examples"]:
        """Above the threshold, and below it."""
        apart = jax.nn.softplus(self.sharpness * (self.threshold - right))
        return apart + jax.nn.softplus(self.sharpness * (wrong - self.threshold))

    def slope_of(self, substrate: Layered, layer: int, fed: Float[Array, "examples neurons"]) -> Array:
        """The model's, or the function's."""
        return self.slope(fed) if callable(self.slope) else neuron_slopes(substrate, layer, fed)


class PhysicalLocalLearning(LabelledRule):
    r"""Learning rule: local learning of the matrices behind the physics (after PhyLL); no neuron is ever
    differentiated.

    $$G_l = \langle a_l^2 \rangle, \qquad L_l = \ln \left( 1 + e^{-s (G_l^+ - G_l^-)} \right), \qquad
      a_l = \mathrm{feed}(l, y_{l-1})$$

    for every wiring, the readout's included: what it makes of the physics below it is to be large for the right label
    and small for a wrong one. The loss of Momeni et al. compares directions of the answers to both; this one, their
    sizes.

    Source: Momeni, Rahmani, Mallejac, del Hougne & Fleury, Science 382, 1297 (2023).

        >>> import jax, jax.numpy as jnp
        >>> from morphax.learning.forward import PhysicalLocalLearning
        >>> from morphax.substrates.layered import OscillatorLayers
        >>> network = OscillatorLayers.random((3 + 2, 8, 8, 2), key=jax.random.key(0))
        >>> data = jax.random.normal(jax.random.key(1), (6, 3)), jnp.eye(2)[jnp.arange(6) % 2]
        >>> PhysicalLocalLearning(classes=2).gradient(network, *data, key=jax.random.key(3))[1].weights[2].shape
        (2, 8)
    """

    def goodness(self, fed: list[Array], answered: list[Array]) -> list[Float[Array, " examples"]]:
        """Mean squares of what reaches the layers and the readout."""
        return [jnp.mean(a**2, axis=-1) for a in fed]

    def contrast(self, right: Float[Array, " examples"], wrong: Float[Array, " examples"]) -> Float[Array, " examples"]:
        """Right above wrong."""
        return jax.nn.softplus(self.sharpness * (wrong - right))

    def slope_of(self, substrate: Layered, layer: int, fed: Float[Array, "examples neurons"]) -> float:
        """Answers are not judged."""
        return 0.0
