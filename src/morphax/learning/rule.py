"""What a learning rule is, and what stands around one."""

from abc import abstractmethod
from collections.abc import Iterator
from inspect import isabstract
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PRNGKeyArray, PyTree

from morphax._checks import check_finite
from morphax.pytrees import Role, select
from morphax.substrates.base import Substrate
from morphax.substrates.wrappers import Wrapper
from morphax.tasks.base import Kind

Metrics = dict[str, Array]
Data = tuple[PyTree, PyTree]


class Asked(NamedTuple):
    """What is asked of a device: `presentations` of one example each, and `writes` of its weights."""

    presentations: int = 0
    writes: int = 0

    def reported(self) -> Metrics:
        """As metrics."""
        return {name: jnp.asarray(number) for name, number in self._asdict().items()}


class LearningRule(eqx.Module):
    """Turns the difference between what was observed and what was wanted into a change of the substrate.

    A new rule is one subclass with two methods, pure functions of (rule, substrate, data, key). `fits` and `needs` say
    which substrates it admits; `check` refuses all others, and data that do not fit, before anything compiles.

        >>> import equinox as eqx, jax, jax.numpy as jnp
        >>> from morphax import LearningRule
        >>> class LeastSquares(LearningRule):
        ...     def metrics(self, substrate, inputs, targets, *, key):
        ...         return {"loss": jnp.mean((substrate.slope * inputs - targets) ** 2)}
        ...     def gradient(self, substrate, inputs, targets, *, key):
        ...         loss, slope = eqx.filter_value_and_grad(
        ...             lambda s: self.metrics(s, inputs, targets, key=key)["loss"]
        ...         )(substrate)
        ...         return {"loss": loss}, slope

    A rule that asks a device says how often (`cost`), and one that remembers something between steps what (`memory`).
    """

    @property
    def exact(self) -> bool:
        """Whether the gradient is the derivative of the loss, wherever the substrate's derivatives are exact."""
        return False

    @abstractmethod
    def gradient(self, substrate: Any, inputs: PyTree, targets: PyTree, *, key: PRNGKeyArray) -> tuple[Any, ...]:
        """Metrics (scalars or small arrays by name, among them the "loss") and a gradient.

        The gradient has the substrate's own structure; what is not trained may hold anything. A rule that remembers
        takes `memory=` besides, and gives what it remembers then as a third; without it, it begins.
        """

    def memory(self, substrate: Any, *, key: PRNGKeyArray) -> PyTree:
        """What the rule remembers from step to step, at the beginning; None, if nothing.

        `train` keeps it beside the optimiser's, in checkpoints and for every member of an ensemble.
        """
        return None

    def cost(self, examples: int) -> Asked:
        """What a gradient of so many examples asks of the device; nothing, where a model answers in its place.

        What `gradient` reports as "presentations" and "writes".
        """
        return Asked()

    def cost_of_metrics(self, examples: int) -> Asked:
        """What `metrics` of so many examples ask of it."""
        return Asked()

    @abstractmethod
    def metrics(self, substrate: Any, inputs: PyTree, targets: PyTree, *, key: PRNGKeyArray) -> Metrics:
        """The same metrics, nothing learned."""

    def needs(self) -> str:
        """What a substrate must be, in words that follow "needs"."""
        return "any substrate"

    def fits(self, substrate: Any) -> bool:
        """Whether the substrate is of the kind that this rule needs."""
        return True

    def suited(self, kind: Kind) -> "LearningRule":
        """This rule, with what was left open (an objective, a measure) chosen for a kind of task."""
        return self

    def for_roles(self, *trained: Role) -> "LearningRule":
        """This rule, for whom it is enough to give gradients of leaves with these roles."""
        return self

    def check_data(self, substrate: Any, inputs: PyTree, targets: PyTree) -> None:
        """Refuse data that do not fit to the substrate and this rule; finite and equally many they are already."""

    def check_optimiser(self, optimiser: optax.GradientTransformation, weights: PyTree) -> None:
        """Refuse an optimiser that what this rule gives is not meant for."""

    def check(self, substrate: Any, data: Data, trained: tuple[Role, ...] = ("weight",)) -> None:
        """Refuse, in one line with the remedy, what could not be trained: before anything compiles.

        **Raises:** `ValueError` where the substrate is not what the rule needs, nothing in it has a role that is
        trained, or the data do not fit: other numbers of inputs and targets, NaN, channels, outputs.
        """
        inputs, targets = data
        if not self.fits(substrate):
            raise ValueError(
                f"{type(self).__name__} needs {self.needs()}; substrate is {described(substrate)}, which "
                f"{_any_of(fitting_rules(substrate)) or 'no rule here'} fits"
            )
        if not jax.tree.leaves(select(substrate, *trained)[0]):
            raise ValueError(
                f"trained is {trained}, but {described(substrate)} has no array with such a role, so nothing would be "
                "learned; put WithReadout.random(substrate, outputs, key=key) around it, fit_readout on what is read, "
                'or train another role: trained=("device",)'
            )
        _check_lengths(inputs, targets)
        for name, tree in (("inputs", inputs), ("targets", targets)):
            for leaf in jax.tree.leaves(tree):
                check_finite(name, leaf)
        self.check_data(substrate, inputs, targets)


def remembered(memory: PyTree) -> dict[str, PyTree]:
    """What a rule is given of its memory: nothing, if it has none."""
    return {} if memory is None else {"memory": memory}


def check_whole_steps(rule: LearningRule, optimiser: optax.GradientTransformation, weights: PyTree) -> None:
    """Refuse whatever does not take the gradient as the step backwards."""
    step = jax.tree.map(jnp.ones_like, weights)
    changes, _ = optimiser.update(step, optimiser.init(weights), weights)
    if not all(np.allclose(change, -1) for change in jax.tree.leaves(changes)):
        raise ValueError(f"{type(rule).__name__} gives whole steps, so the optimiser must be optax.sgd(1.0)")


class WrappedRule(LearningRule):
    """A rule around a rule: what a subclass does not change is that of `rule`."""

    rule: LearningRule

    def gradient(
        self, substrate: Any, inputs: PyTree, targets: PyTree, *, key: PRNGKeyArray, memory: PyTree = None
    ) -> tuple[Any, ...]:
        """That of the rule."""
        return self.rule.gradient(substrate, inputs, targets, key=key, **remembered(memory))

    def memory(self, substrate: Any, *, key: PRNGKeyArray) -> PyTree:
        """That of the rule."""
        return self.rule.memory(substrate, key=key)

    def cost(self, examples: int) -> Asked:
        """That of the rule."""
        return self.rule.cost(examples)

    def cost_of_metrics(self, examples: int) -> Asked:
        """That of the rule's."""
        return self.rule.cost_of_metrics(examples)

    def metrics(self, substrate: Any, inputs: PyTree, targets: PyTree, *, key: PRNGKeyArray) -> Metrics:
        """Those of the rule."""
        return self.rule.metrics(substrate, inputs, targets, key=key)

    def check_optimiser(self, optimiser: optax.GradientTransformation, weights: PyTree) -> None:
        """What the rule refuses."""
        self.rule.check_optimiser(optimiser, weights)

    def needs(self) -> str:
        """What the rule needs."""
        return self.rule.needs()

    def fits(self, substrate: Any) -> bool:
        """Whether the rule fits."""
        return self.rule.fits(substrate)

    def suited(self, kind: Kind) -> "WrappedRule":
        """This around the rule that suits the task."""
        return eqx.tree_at(lambda r: r.rule, self, self.rule.suited(kind), is_leaf=lambda x: x is self.rule)

    def for_roles(self, *trained: Role) -> "WrappedRule":
        """This around the rule for these roles."""
        return eqx.tree_at(lambda r: r.rule, self, self.rule.for_roles(*trained), is_leaf=lambda x: x is self.rule)

    def check_data(self, substrate: Any, inputs: PyTree, targets: PyTree) -> None:
        """Refuse what the rule does not refuse already."""

    def check(self, substrate: Any, data: Data, trained: tuple[Role, ...] = ("weight",)) -> None:
        """What the rule refuses, and then what this does."""
        self.rule.check(substrate, data, trained)
        self.check_data(substrate, *data)


def described(substrate: Any) -> str:
    """A substrate in words: "a WithReadout around a PhaseOscillators"."""
    name = f"a {type(substrate).__name__}"
    return f"{name} around {described(substrate.substrate)}" if isinstance(substrate, Wrapper) else name


def fitting_rules(substrate: Any) -> list[str]:
    """Names of the rules, of those that are imported and stand around no other, that fit a substrate."""
    return sorted(cls.__name__ for cls in _rules(LearningRule) if _fits(cls, substrate))


def _any_of(names: list[str]) -> str:
    return " or ".join([", ".join(names[:-1]), names[-1]] if names[1:] else names)


def check_outputs(rule: LearningRule, outputs: Any, targets: Any) -> None:
    """Refuse targets that are shaped otherwise than the outputs, with the remedy.

    Of outputs those of one example are enough, and shapes without numbers.
    """
    want = np.shape(targets)
    have = (*want[:1], *outputs.shape[1:])
    if have == want:
        return
    if have[:-1] == want[:-1]:
        raise ValueError(
            f"targets has {want[-1]} columns, but the substrate gives {have[-1]} outputs; put "
            f"WithReadout.random(substrate, outputs={want[-1]}, key=key) around it"
        )
    raise ValueError(f"targets has shape {want}; {type(rule).__name__} compares it with outputs of shape {have}")


def _check_lengths(inputs: PyTree, targets: PyTree) -> None:
    lengths = [{np.shape(leaf)[:1] for leaf in jax.tree.leaves(tree)} for tree in (inputs, targets)]
    if lengths[0] != lengths[1] or any(len(one) != 1 or one == {()} for one in lengths):
        counts = [" or ".join(str(n[0]) if n else "no" for n in sorted(one)) for one in lengths]
        raise ValueError(
            f"inputs holds {counts[0]} examples, targets {counts[1]}; both must have examples as their first axis, "
            "equally many"
        )


def _rules(base: type[LearningRule]) -> Iterator[type[LearningRule]]:
    for cls in base.__subclasses__():
        own = cls.__module__.startswith("morphax.learning.") and not isabstract(cls)
        if own and not issubclass(cls, WrappedRule):
            yield cls
        yield from _rules(cls)


def _fits(cls: type[LearningRule], substrate: Any) -> bool:
    try:
        rule = cls()
    except (TypeError, ValueError):
        rule = object.__new__(cls)  # whatever it needs besides, a key or a number, says nothing of the substrate
    try:
        return isinstance(substrate, Substrate) and rule.fits(substrate)
    except AttributeError:
        return False
