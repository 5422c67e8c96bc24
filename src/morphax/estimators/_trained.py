"""Physical networks that are trained, as estimators."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted

from morphax._checks import check_choice, check_count, check_range
from morphax.estimators._arguments import Constructor, variant
from morphax.estimators._device import Device, Maker
from morphax.estimators._inputs import Encoder, Series, read_inputs, rounded_steps
from morphax.estimators._process import Precision, computing, on_device, on_host
from morphax.estimators._reading import BLOCK
from morphax.estimators._reservoirs import WithDevice
from morphax.learning.backprop import Backpropagation
from morphax.learning.equilibrium import PHASE_COSTS, EquilibriumPropagation, EquilibriumRule
from morphax.learning.objectives import classification
from morphax.learning.rule import LearningRule, WrappedRule
from morphax.learning.train import Trained, adjustable, train
from morphax.substrates.base import State, Stepper, Substrate, count_neurons, evolve, stepped
from morphax.substrates.energy import EnergySubstrate
from morphax.substrates.quantized import BinarisedPerceptron
from morphax.substrates.wrappers import WithReadout, Wrapper

Rule = Literal["auto", "backpropagation", "equilibrium-propagation"]
RULES: tuple[Rule, ...] = ("auto", "backpropagation", "equilibrium-propagation")
Coding = Literal["linear", "phases", "activities"]
"""What outputs are: any numbers, of classes the logarithms of their odds; phases; activities in [0, 1]."""
Meaning = Literal["odds", "sines", "numbers"]
FEWEST = 512
"""Rows to train with, of which some may fill up."""
CHUNK = 500
"""Steps that are compiled into one loop."""
SHOTS = 15
"""Of a substrate that is random, where nothing is said."""
AT_ONCE = (EnergySubstrate, BinarisedPerceptron)
"""What takes an input as one vector, and remembers none before it."""


class WhilePresent(Wrapper):
    """A substrate that stands still where the last number of an input is 0: there the series is over."""

    @property
    def channels(self) -> int:
        """One more than inside."""
        return int(np.max(self.substrate.channels)) + 1

    def stepper(self) -> Stepper:
        """That of the substrate, or nothing."""
        inner = self.substrate.stepper()

        def step(state: State, drive: Array, *, key: PRNGKeyArray | None = None) -> State:
            after = stepped(inner, state, drive[:-1], key=key)
            return jax.tree.map(lambda new, old: jnp.where(drive[-1] > 0, new, old), after, state)

        return step


class Scale(NamedTuple):
    """How numbers that are to be foretold become targets: (y - middle) / size."""

    middle: Float[np.ndarray, " outputs"]
    size: Float[np.ndarray, " outputs"]

    @classmethod
    def fitted(cls, y: Float[np.ndarray, "samples outputs"], coding: Coding) -> Scale:
        """Mean 0 and deviation 1; of phases the range from -pi/4 to pi/4, of activities that from 0.1 to 0.9."""
        if coding == "linear":
            middle, size = y.mean(axis=0), y.std(axis=0)
        else:
            low, high = y.min(axis=0), y.max(axis=0)
            size = (high - low) / (np.pi / 2 if coding == "phases" else 0.8)
            middle = (low + high) / 2 - (0.0 if coding == "phases" else 0.5) * size
        return cls(middle, np.where(size > 0, size, 1.0))


class Physical(WithDevice):
    """The substrate of a trained estimator, its rule, and how it is trained and asked."""

    _recipe = "substrate"

    def __init__(
        self,
        substrate: str | Device | Maker | Substrate = "quantized",
        rule: Rule | LearningRule = "auto",
        hidden: Sequence[int] = (64,),
        *,
        steps: int = 500,
        batch_size: int = 32,
        learning_rate: float = 0.01,
        arrangement: Literal["held", "sequence"] | None = None,
        input_scale: float = 1.0,
        shots: int | None = None,
        precision: Precision = "double",
        random_state: int | np.integer | np.random.RandomState | None = None,
    ):
        self.substrate = substrate
        self.rule = rule
        self.hidden = hidden
        self.steps = steps
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.arrangement: Literal["held", "sequence"] | None = arrangement
        self.input_scale = input_scale
        self.shots = shots
        self.precision: Precision = precision
        self.random_state = random_state

    def _arranged(self) -> Literal["held", "sequence"] | None:
        """What two axes are: what takes its input at once has no sequences."""
        kind = _kind(self.recipe)
        return "held" if self.arrangement is None and kind and issubclass(kind, AT_ONCE) else self.arrangement

    def _train(self, series: Series, y: np.ndarray, classes: bool) -> None:
        """Make the substrate and train it on classes, numbered from 0, or on numbers (samples, outputs)."""
        self.check_settings()
        device = self.recipe
        self.encoder_ = Encoder.fitted(series, device.encoded)
        self.seed_ = int(check_random_state(self.random_state).randint(2**31))
        make_key, read_key, train_key = jax.random.split(jax.random.key(self.seed_), 3)
        outputs = int(y.max()) + 1 if classes else y.shape[1]
        made = device.make(tuple(self.hidden), series.channels, outputs, key=make_key)
        substrate, own = made.substrate, count_neurons(made.substrate) == outputs
        if not own:
            substrate = WithReadout.random(substrate, outputs, key=read_key)
        rule = self._chosen_rule(substrate)
        self.coding_: Coding = _coding(substrate, rule, own)
        self.cross_entropy_ = classes and _is_cross_entropy(rule)
        self.width_, self.padded_ = made.width, not series.equally_long
        if self.padded_ and isinstance(substrate, EnergySubstrate):
            raise ValueError(f"X holds series, but {type(made.substrate).__name__} takes its input at once")
        self.steps_ = rounded_steps(int(series.lengths.max())) if self.padded_ else int(series.lengths.max())
        encoded = self._encoded(series)
        drives, targets, examples = self._filled(encoded, self._targets(y, outputs, classes))
        done: Trained[Any] = train(
            WhilePresent(substrate) if self.padded_ else substrate,
            rule.suited("classification" if classes else "regression"),
            (drives, targets),
            adjustable(optax.adam, learning_rate=self.learning_rate),
            int(self.steps),
            key=train_key,
            batch_size=int(self.batch_size),
            examples=examples,
            chunk=min(int(self.steps), CHUNK),
        )
        trained = done.last.substrate if self.padded_ else done.last
        self.substrate_, self.history_ = on_host(trained), done.history
        self.shots_ = self._shots_of(trained, encoded)

    def _targets(self, y: np.ndarray, outputs: int, classes: bool) -> Float[np.ndarray, "samples outputs"]:
        if classes:
            return _of_classes(y, outputs, self.coding_)
        self.scale_ = Scale.fitted(y, self.coding_)
        return (y - self.scale_.middle) / self.scale_.size

    def _filled(self, encoded: Series, targets: np.ndarray) -> tuple[Array, Array, int]:
        """Inputs and targets to train with, and how many of them are samples: shapes that tables of all sizes share.

        Less data than a batch are taken several times, each sample as often.
        """
        times = -(-int(self.batch_size) // len(targets))
        examples = times * len(targets)
        rows = max(FEWEST, 1 << (examples - 1).bit_length())
        places = np.append(np.tile(np.arange(len(targets)), times), np.zeros(rows - examples, int))
        drives = self._drives(encoded, slice(None), len(targets), self.padded_)[places]
        return jnp.asarray(drives), jnp.asarray(targets[places], jnp.result_type(float)), examples

    def _shots_of(self, substrate: Any, encoded: Series) -> int | None:
        """How often a sample is presented: once where the answer is always the same."""
        if self.shots is not None or isinstance(substrate, EnergySubstrate):
            return self.shots
        first = jnp.asarray(self._drives(encoded, slice(0, BLOCK), BLOCK, self.padded_))
        around = WhilePresent(substrate) if self.padded_ else substrate
        meaning = self._meaning()
        one, other = (_asked(around, first, jax.random.split(jax.random.key(seed), 1), meaning) for seed in (0, 1))
        return None if bool(jnp.all(one == other)) else SHOTS

    def _drives(self, encoded: Series, places: slice, rows: int, padded: bool) -> Float[np.ndarray, "rows steps width"]:
        """Some samples as they are brought to the substrate, with zeros behind; of series also where they are over."""
        drives, lengths = encoded.filled(places, rows, self._steps(encoded), self.width_)
        if not padded:
            return drives
        present = np.arange(drives.shape[1]) < lengths[:, None]
        return np.concatenate([drives, present[:, :, None]], axis=2)

    def _steps(self, series: Series) -> int:
        longest = int(series.lengths.max())
        return max(self.steps_, rounded_steps(longest)) if self.padded_ or not series.equally_long else longest

    def _encoded(self, series: Series) -> Series:
        return self.encoder_(series).mapped(lambda values: self.input_scale * values)

    def _scores(self, X: Any) -> Float[np.ndarray, "samples outputs"]:
        """What is compared, mean over shots: probabilities, sines of phases, or outputs."""
        check_is_fitted(self)
        with computing(self.precision):
            series, _ = read_inputs(self, X, arrangement=self._arranged(), fitting=False)
            substrate, padded = on_device(self.substrate_), self.padded_ or not series.equally_long
            around = WhilePresent(substrate) if padded else substrate
            keys, meaning, encoded = self._keys(substrate), self._meaning(), self._encoded(series)
            starts = range(0, len(series.lengths), BLOCK)
            blocks = (self._drives(encoded, slice(start, start + BLOCK), BLOCK, padded) for start in starts)
            found = [_asked(around, jnp.asarray(block), keys, meaning) for block in blocks]
            scores = np.concatenate([np.asarray(each, np.float64) for each in found])[: len(series.lengths)]
        if not np.isfinite(scores).all():
            sample = int(np.argwhere(~np.isfinite(scores))[0, 0])
            raise ValueError(f"the answer to sample {sample} is not finite: it is too far from what was learned from")
        return scores

    def _keys(self, substrate: Substrate) -> PRNGKeyArray | None:
        """One for each presentation; where an equilibrium is reached once, its start is no matter of chance."""
        if self.shots_ is None and isinstance(substrate, EnergySubstrate):
            return None
        return jax.random.split(jax.random.fold_in(jax.random.key(self.seed_), 1), self.shots_ or 1)

    def _meaning(self) -> Meaning:
        """What answers are averaged as."""
        if not isinstance(self, ClassifierMixin) or self.coding_ == "activities":
            return "numbers"
        if self.coding_ == "phases":
            return "sines"
        return "odds" if self.cross_entropy_ else "numbers"

    def _chosen_rule(self, substrate: Substrate) -> LearningRule:
        if isinstance(self.rule, LearningRule):
            return self.rule
        check_choice("rule", self.rule, RULES)
        by_energy = isinstance(substrate, EnergySubstrate) if self.rule == "auto" else self.rule != "backpropagation"
        if not by_energy:
            return Backpropagation()
        # An activity that has come to the end of its range does not feel a weak nudge.
        phases = isinstance(substrate, EnergySubstrate) and substrate.default_cost in PHASE_COSTS
        return EquilibriumPropagation() if phases else EquilibriumPropagation(strength=1.0, nudging="symmetric")

    def check_settings(self) -> None:
        """Refuse, by `ValueError`, what is out of range."""
        if np.ndim(self.hidden) != 1 or not len(self.hidden):
            raise ValueError(f"hidden is {self.hidden!r}; it must be numbers of neurons, one or more, such as (64,)")
        for number in self.hidden:
            check_count("hidden", number, 1)
        check_count("steps", self.steps, 1)
        check_count("batch_size", self.batch_size, 1)
        check_range("learning_rate", self.learning_rate, low=0.0, open_low=True)
        check_range("input_scale", self.input_scale, low=0.0, open_low=True)
        if self.shots is not None:
            check_count("shots", self.shots, 1)
        kind = _kind(self.recipe)
        if self.arrangement == "sequence" and kind and issubclass(kind, AT_ONCE):
            raise ValueError(f'arrangement is "sequence", but {kind.__name__} takes its input at once: "held"')

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "substrate_")


@eqx.filter_jit
def _asked(
    substrate: Substrate, drives: Float[Array, "samples steps width"], keys: PRNGKeyArray | None, meaning: Meaning
) -> Float[Array, "samples outputs"]:
    """Answers, mean over keys. All samples share them: an answer does not depend on what else is asked."""

    def answers(key: PRNGKeyArray | None) -> Array:
        outputs = jax.vmap(lambda one: evolve(substrate, one, key=key, observe="last")[0])(drives)
        if meaning == "odds":
            return jax.nn.softmax(outputs, axis=-1)
        return jnp.sin(outputs) if meaning == "sines" else outputs

    return answers(None) if keys is None else jnp.mean(jax.lax.map(answers, keys), axis=0)


def _of_classes(y: np.ndarray, classes: int, coding: Coding) -> Float[np.ndarray, "samples classes"]:
    one_hot = np.eye(classes)[y]
    return (one_hot - 0.5) * np.pi if coding == "phases" else one_hot


def _coding(substrate: Substrate, rule: LearningRule, own: bool) -> Coding:
    """What targets must be, of a rule that compares them with outputs of the substrate's own or of a readout."""
    rule = _inner(rule)
    if not isinstance(rule, EquilibriumRule) or not isinstance(substrate, EnergySubstrate):
        return "linear"
    if rule.compared(substrate) in PHASE_COSTS:
        return "phases"
    return "activities" if own else "linear"


def _inner(rule: LearningRule) -> LearningRule:
    return _inner(rule.rule) if isinstance(rule, WrappedRule) else rule


def _is_cross_entropy(rule: LearningRule) -> bool:
    rule = _inner(rule)
    return isinstance(rule, Backpropagation) and rule.objective in (None, classification)


def _kind(device: Device) -> type[Substrate] | None:
    """The class of what a recipe makes, where that can be told before."""
    if isinstance(device.kind, Substrate):
        return type(device.kind)
    return device.built_in.kind if device.built_in else None


def _has_probabilities(estimator: Physical) -> bool:
    """Whether the loss is a cross-entropy; before the substrate is made, whether it is going to be."""
    if hasattr(estimator, "cross_entropy_"):
        return estimator.cross_entropy_
    if isinstance(estimator.rule, LearningRule):
        return _is_cross_entropy(estimator.rule)
    kind = _kind(estimator.recipe)
    by_energy = kind is not None and issubclass(kind, EnergySubstrate)
    return estimator.rule == "backpropagation" or (estimator.rule == "auto" and not by_energy)


class PhysicalClassifier(ClassifierMixin, Physical):
    """A physical network that is trained to tell classes apart.

    **Arguments:**

    - `substrate`: a system by name, a `Device` with settings, a function `(neurons, channels, key) -> Substrate`, or a
      substrate. A linear readout stands behind what does not give one output a class; it is trained, too.
    - `rule`: "backpropagation", "equilibrium-propagation", or a `LearningRule`. "auto": equilibrium propagation where
      there is an energy, else back-propagation.
    - `hidden`: neurons of its layers, each >= 1; of a system without layers, or a function, the last number counts.
    - `steps`: updates by Adam, >= 1.
    - `batch_size`: samples in an update, >= 1; less data are taken several times.
    - `learning_rate`: > 0.
    - `arrangement`: of an array of (samples, numbers): "held", every row is one vector, or "sequence", it is one number
      an interval. None: needed of a system that remembers; others take vectors only.
    - `input_scale`: > 0; by how much the signal is multiplied after it was encoded (`Device`).
    - `shots`: presentations of a sample over which answers are averaged. None: 15 where the substrate is random, else
      1. An energy substrate comes to rest once, from a start that is no matter of chance.
    - `precision`: "double" or "single".
    - `random_state`: draws substrate, batches and what is random.

    **Attributes:** `classes_`; `history_`, the metrics of every step; `substrate_`, trained, with NumPy's arrays;
    `n_features_in_`, features or channels.

    **Raises:** `ValueError` for values out of range, other shapes, and what the rule refuses; `DivergedError` where
    something is no longer finite; `RuntimeError` in a process that was forked off one in which JAX had computed.

        >>> from sklearn.datasets import load_wine
        >>> from morphax.estimators import PhysicalClassifier
        >>> X, y = load_wine(return_X_y=True)
        >>> qubits = PhysicalClassifier("quantized", steps=200, random_state=0).fit(X[::2], y[::2])
        >>> bool(qubits.score(X[1::2], y[1::2]) > 0.9), qubits.predict_proba(X[:1]).shape
        (True, (1, 3))
    """

    def fit(self, X: Any, y: Any) -> Self:
        """Train the network."""
        with computing(self.precision):
            series, y = read_inputs(self, X, y, arrangement=self._arranged(), fitting=True)
            check_classification_targets(y)
            self.classes_, numbers = np.unique(y, return_inverse=True)
            if len(self.classes_) < 2:
                raise ValueError(f"y has 1 class, {self.classes_[0]!r}; a classifier needs 2 or more")
            self._train(series, numbers, classes=True)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """The most probable class of every sample."""
        scores = self._scores(X)
        return self.classes_[np.argmax(scores, axis=1)]

    @available_if(_has_probabilities)
    def predict_proba(self, X: Any) -> Float[np.ndarray, "samples classes"]:
        """Probabilities of the classes, where the loss is a cross-entropy."""
        return self._scores(X)

    def decision_function(self, X: Any) -> np.ndarray:
        """By what the class is chosen, larger for a class that is more probable; of two classes their difference."""
        scores = self._scores(X)
        return scores[:, 1] - scores[:, 0] if len(self.classes_) == 2 else scores


class PhysicalRegressor(RegressorMixin, Physical):
    """A physical network that is trained to give a number, or several.

    **Arguments, attributes, raises:** those of `PhysicalClassifier` but the classes. Targets become outputs with mean
    0 and deviation 1; of a substrate whose outputs are phases their range becomes -pi/4 to pi/4, of activities 0.1 to
    0.9.

        >>> from sklearn.datasets import load_diabetes
        >>> from morphax.estimators import Device, PhysicalRegressor
        >>> X, y = load_diabetes(return_X_y=True)
        >>> oscillators = PhysicalRegressor(Device("spintronic", scale=8.0), arrangement="held", random_state=0)
        >>> bool(oscillators.fit(X[::2], y[::2]).score(X[1::2], y[1::2]) > 0.3)
        True
    """

    def fit(self, X: Any, y: Any) -> Self:
        """Train the network."""
        with computing(self.precision):
            series, y = read_inputs(
                self, X, y, arrangement=self._arranged(), fitting=True, y_numeric=True, multi_output=True
            )
            self.several_ = np.ndim(y) > 1
            self._train(series, np.asarray(y, float).reshape(len(y), -1), classes=False)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """The number, or the numbers, of every sample."""
        outputs = self._scores(X) * self.scale_.size + self.scale_.middle
        return outputs if self.several_ else outputs[:, 0]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


class QuantizedPerceptronClassifier(PhysicalClassifier):
    """`PhysicalClassifier` of neurons that are qubits (`QuantizedPerceptron`), by back-propagation.

    **Arguments:** those of `PhysicalClassifier` but `substrate`; hidden layers of equal size.

        >>> from morphax.estimators import QuantizedPerceptronClassifier
        >>> QuantizedPerceptronClassifier(hidden=(32,), steps=100).substrate
        'quantized'
    """

    __init__: Constructor = variant(PhysicalClassifier.__init__, {"substrate": "quantized"}, hidden=(64,))


class SpintronicClassifier(PhysicalClassifier):
    """`PhysicalClassifier` of layers of spintronic oscillators (`SpintronicNetwork`), by back-propagation through time.

    **Arguments:** those of `PhysicalClassifier` but `substrate`.

        >>> from morphax.estimators import SpintronicClassifier
        >>> SpintronicClassifier(hidden=(16, 16), arrangement="sequence").substrate
        'spintronic'
    """

    __init__: Constructor = variant(PhysicalClassifier.__init__, {"substrate": "spintronic"}, hidden=(32,))


class PhaseOscillatorClassifier(PhysicalClassifier):
    """`PhysicalClassifier` of coupled phase oscillators (`PhaseOscillators`), by equilibrium propagation.

    **Arguments:** those of `PhysicalClassifier` but `substrate`.

        >>> from morphax.estimators import PhaseOscillatorClassifier
        >>> PhaseOscillatorClassifier(hidden=(8,)).substrate
        'phase-oscillators'
    """

    __init__: Constructor = variant(PhysicalClassifier.__init__, {"substrate": "phase-oscillators"}, hidden=(16,))
