"""Reservoirs as estimators: devices that are not trained, and any estimator of scikit-learn that reads them."""

from __future__ import annotations

import numbers
from collections.abc import Callable
from dataclasses import fields
from typing import Any, Literal, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float
from sklearn.base import (
    BaseEstimator,
    ClassifierMixin,
    RegressorMixin,
    TransformerMixin,
    clone,
    is_classifier,
    is_regressor,
)
from sklearn.linear_model import RidgeClassifierCV, RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_random_state
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted

from morphax._checks import check_count, check_range
from morphax.estimators._arguments import Constructor, variant
from morphax.estimators._device import Device, Maker, as_device
from morphax.estimators._inputs import Encoder, Series, read_inputs, rounded_steps
from morphax.estimators._process import Precision, computing, on_device, on_host
from morphax.estimators._reading import BLOCK, Plan, features_of
from morphax.substrates.base import Substrate, count_neurons
from morphax.substrates.wrappers import Wrapper

AnyDevice = str | Device | Maker | Substrate
Readings = int | Literal["last", "mean"]
STRENGTHS = tuple(np.logspace(-4, 4, 17))
"""Ridges of which the default readout takes the one with the least error of samples left out."""


class WithDevice(BaseEstimator):
    """What estimators share that hold a device: its settings as nested parameters, tags, and a state of NumPy's."""

    _recipe = "device"
    """The parameter that says what the device is."""

    @property
    def recipe(self) -> Device:
        """Of what its device is made."""
        return as_device(getattr(self, self._recipe))

    def set_params(self, **params: Any) -> Self:
        """Change parameters; those of the device, `device__damping_rate`, also where it was given by its name."""
        recipe = params.get(self._recipe, getattr(self, self._recipe))
        if any(name.startswith(f"{self._recipe}__") for name in params) and not isinstance(recipe, Device):
            params = {self._recipe: Device(recipe)} | {k: v for k, v in params.items() if k != self._recipe}
        return super().set_params(**params)

    def __getstate__(self) -> dict[str, Any]:
        """With NumPy's arrays: a process that JAX cannot compute in could not take others."""
        state: dict[str, Any] = dict(**super().__getstate__())  # pyright: ignore[reportCallIssue]
        recipe = state.get(self._recipe)
        if isinstance(recipe, Substrate):
            state[self._recipe] = on_host(recipe)
        elif isinstance(recipe, Device) and isinstance(recipe.kind, Substrate):
            state[self._recipe] = Device(**recipe.get_params() | {"kind": on_host(recipe.kind)})
        return state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags


class Reservoir(WithDevice):
    """The device of a reservoir, and how it is driven and read."""

    def __init__(
        self,
        device: AnyDevice = "echo-state",
        neurons: int = 100,
        *,
        arrangement: Literal["held", "sequence"] | None = None,
        readings: Readings = 8,
        washout: int = 0,
        input_scale: float = 1.0,
        noise: float = 0.0,
        shots: int | None = None,
        readout: Any = None,
        precision: Precision = "double",
        random_state: int | np.integer | np.random.RandomState | None = None,
    ):
        self.device = device
        self.neurons = neurons
        self.arrangement = arrangement
        self.readings = readings
        self.washout = washout
        self.input_scale = input_scale
        self.noise = noise
        self.shots = shots
        self.readout = readout
        self.precision: Precision = precision
        self.random_state = random_state

    def _fit_device(self, series: Series) -> None:
        """Make the device, and learn how to bring a signal to it."""
        self.check_settings()
        device = self.recipe
        self.encoder_ = Encoder.fitted(series, device.encoded)
        self.seed_ = int(check_random_state(self.random_state).randint(2**31))
        made = device.make((self.neurons,), series.channels, key=jax.random.key(self.seed_))
        # A substrate may hold keys of its own, which NumPy has no form for.
        self.device_ = on_host(with_shots(made.substrate, self.shots))
        shortest, longest = int(series.lengths.min()), int(series.lengths.max())
        self._check_length(shortest)
        windows = {"last": 0, "mean": 1}.get(str(self.readings), self.readings)
        washout = int(self.washout)
        windows = min(int(windows), shortest - washout)
        # A window of one interval holds the last readings already.
        last = self.readings == "last" or (self.readings != "mean" and longest - washout > windows)
        steps = longest if series.equally_long else rounded_steps(longest)
        self.plan_ = Plan(windows, last, washout, steps, made.width)
        self._n_features_out = (windows + last) * count_neurons(made.substrate)

    def _read(self, series: Series, *, learning: bool = False) -> Float[np.ndarray, "samples features"]:
        """Features of samples. Those that were learned from are read with other noise when they are asked again."""
        self._check_length(int(series.lengths.min()))
        drives = self.encoder_(series).mapped(lambda values: self.input_scale * values)
        device = on_device(self.device_)
        found = features_of(
            device,
            drives,
            self.plan_,
            noise=self.noise,
            shots=None if self.shots is None or _takes_shots(device) else self.shots,
            key=jax.random.fold_in(jax.random.key(self.seed_), int(learning)),
        )
        if not np.isfinite(found).all():
            sample = int(np.argwhere(~np.isfinite(found))[0, 0])
            raise ValueError(
                f"readings of sample {sample} are not finite: a drive or a rate is too large for "
                f"{type(device).__name__}; lower input_scale, {self.input_scale:g}"
            )
        return found.astype(np.float64, copy=False)

    def check_settings(self) -> None:
        """Refuse, by `ValueError`, what is out of range."""
        check_count("neurons", self.neurons, 1)
        check_count("washout", self.washout, 0)
        check_range("input_scale", self.input_scale, low=0.0, open_low=True)
        check_range("noise", self.noise, low=0.0)
        if self.shots is not None:
            check_count("shots", self.shots, 1)
        if self.readings not in ("last", "mean"):
            if not isinstance(self.readings, numbers.Integral):
                raise ValueError(f'readings is {self.readings!r}; it must be "last", "mean" or a number of windows')
            check_count("readings", int(self.readings), 1)

    def _check_length(self, shortest: int) -> None:
        if self.washout >= shortest:
            raise ValueError(
                f"washout is {self.washout}; it must be < the length of every sample, of which one has {shortest}"
            )


class ReservoirTransformer(TransformerMixin, Reservoir):
    """Readings of a device that is driven by every sample: features for whatever comes after it.

    **Arguments:**

    - `device`: a system by name, a `Device` with settings, a function `(neurons, channels, key) -> Substrate`, or a
      substrate.
    - `neurons`: of the device, >= 1; of a substrate that is there already, those that it has.
    - `arrangement`: of an array of (samples, numbers): "held", every row is one vector that is held for one interval,
      or "sequence", it is one number an interval. (samples, time, channels), and lists of (time, channels) whose
      lengths differ, need none.
    - `readings`: what is kept of a series: "last", the readings after the last interval; "mean", their mean over time;
      or a number of windows of equal length, over each of which they are averaged, and with them the last ones.
    - `washout`: first intervals that do not count.
    - `input_scale`: > 0; by how much the signal is multiplied after it was encoded (`Device`).
    - `noise`: standard deviation of Gaussian noise on every reading, >= 0, in the device's units. It is drawn from
      `random_state` and the sample itself, so that its readings do not depend on what else is asked.
    - `shots`: repetitions over which a reading is averaged, of a device that measures or is random. None: expectation
      values, or one presentation.
    - `precision`: "double" or "single".
    - `random_state`: draws the device, and noise.

    **Attributes:** `device_`, with NumPy's arrays; `encoder_`; `n_features_in_`, features or channels; `seed_`.

    **Raises:** `ValueError` for values out of range, other shapes, and readings that are not finite.
    `RuntimeError` in a process that was forked off one in which JAX had computed.

        >>> import numpy as np
        >>> from morphax.estimators import ReservoirTransformer
        >>> series = np.sin(np.arange(60).reshape(2, 30, 1))
        >>> ReservoirTransformer("spin-torque", neurons=20, readings=4, random_state=0).fit_transform(series).shape
        (2, 100)
    """

    __init__: Constructor = variant(Reservoir.__init__, {"readout": None})

    def fit(self, X: Any, y: Any = None) -> Self:
        """Make the device for so many channels, and learn the range of the signal."""
        with computing(self.precision):
            series, _ = read_inputs(self, X, arrangement=self.arrangement, fitting=True)
            self._fit_device(series)
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "plan_")

    def transform(self, X: Any) -> Float[np.ndarray, "samples features"]:
        """The features of every sample."""
        check_is_fitted(self)
        with computing(self.precision):
            series, _ = read_inputs(self, X, arrangement=self.arrangement, fitting=False)
            return self._read(series)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Which neuron is read when: "window0_neuron3", "last_neuron3"."""
        check_is_fitted(self)
        return np.array(self.plan_.names(count_neurons(self.device_)), object)


class ReservoirWithReadout(Reservoir):
    """A reservoir with an estimator of scikit-learn behind it."""

    def _fit(self, X: Any, y: Any, default: Any, **of_targets: Any) -> Any:
        """Fit the readout to what is read, and return the targets."""
        with computing(self.precision):
            series, y = read_inputs(self, X, y, arrangement=self.arrangement, fitting=True, **of_targets)
            if isinstance(self, ClassifierMixin):
                check_classification_targets(y)
            self._check_readout()
            self._fit_device(series)
            features = self._read(series, learning=True)
        readout: Any = make_pipeline(StandardScaler(), default) if self.readout is None else clone(self.readout)
        self.readout_ = readout.fit(features, y)
        return y

    def _check_readout(self) -> None:
        classes = isinstance(self, ClassifierMixin)
        if self.readout is not None and not (is_classifier if classes else is_regressor)(self.readout):
            wanted = "classifier" if classes else "regressor"
            raise ValueError(f"readout is a {type(self.readout).__name__}; it must be a {wanted} of scikit-learn")

    def _answer(self, method: str, X: Any) -> np.ndarray:
        """What the readout says of every sample: of blocks of one size, for products of others round otherwise."""
        check_is_fitted(self)
        with computing(self.precision):
            series, _ = read_inputs(self, X, arrangement=self.arrangement, fitting=False)
            features = self._read(series)
        samples = len(features)
        features = np.concatenate([features, np.zeros((-samples % BLOCK, features.shape[1]))])
        ask = getattr(self.readout_, method)
        return np.concatenate([ask(features[at : at + BLOCK]) for at in range(0, len(features), BLOCK)])[:samples]

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "readout_")


def _readout_has(method: str) -> Callable[[Any], bool]:
    """Whether the readout has a method; before it is fitted, whether it is going to."""

    def check(estimator: ReservoirWithReadout) -> bool:
        readout = getattr(estimator, "readout_", estimator.readout)
        return hasattr(RidgeClassifierCV if readout is None else readout, method)

    return check


class ReservoirClassifier(ClassifierMixin, ReservoirWithReadout):
    """A device that is driven by every sample, and a classifier of scikit-learn that is fitted to its readings.

    **Arguments:** those of `ReservoirTransformer`, and

    - `readout`: the classifier. None: standardised readings and ridge regression, whose strength is the one of 17 from
      1e-4 to 1e4 with the least error of samples that are left out one by one.

    **Attributes:** `classes_`, `readout_`, and those of `ReservoirTransformer`.

    **Raises:** as `ReservoirTransformer`.

        >>> from sklearn.datasets import load_wine
        >>> from morphax.estimators import ReservoirClassifier
        >>> X, y = load_wine(return_X_y=True)
        >>> classifier = ReservoirClassifier("spin-torque", arrangement="held", random_state=0).fit(X[::2], y[::2])
        >>> bool(classifier.score(X[1::2], y[1::2]) > 0.95)
        True
    """

    def fit(self, X: Any, y: Any) -> Self:
        """Make the device and fit the readout to classes."""
        self._fit(X, y, RidgeClassifierCV(alphas=STRENGTHS))
        self.classes_ = self.readout_.classes_
        return self

    def predict(self, X: Any) -> np.ndarray:
        """The class of every sample."""
        return self._answer("predict", X)

    @available_if(_readout_has("predict_proba"))
    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities of the classes, of a readout that gives them."""
        return self._answer("predict_proba", X)

    @available_if(_readout_has("decision_function"))
    def decision_function(self, X: Any) -> np.ndarray:
        """What the readout decides by."""
        return self._answer("decision_function", X)


class ReservoirRegressor(RegressorMixin, ReservoirWithReadout):
    """A device that is driven by every sample, and a regressor of scikit-learn that is fitted to its readings.

    **Arguments:** those of `ReservoirTransformer`, and

    - `readout`: the regressor. None: standardised readings and ridge regression, as in `ReservoirClassifier`.

    Targets may have several columns. **Attributes:** `readout_`, and those of `ReservoirTransformer`.

    **Raises:** as `ReservoirTransformer`.

        >>> import numpy as np
        >>> from morphax.estimators import ReservoirRegressor
        >>> frequency = np.random.default_rng(0).uniform(0.1, 0.5, 200)
        >>> series = np.sin(frequency[:, None] * np.arange(40))
        >>> regressor = ReservoirRegressor(arrangement="sequence", random_state=0).fit(series[:100], frequency[:100])
        >>> bool(regressor.score(series[100:], frequency[100:]) > 0.99)
        True
    """

    def fit(self, X: Any, y: Any) -> Self:
        """Make the device and fit the readout to numbers."""
        self._fit(X, y, RidgeCV(alphas=STRENGTHS), y_numeric=True, multi_output=True)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """The number, or the numbers, of every sample."""
        return self._answer("predict", X)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


def _takes_shots(substrate: Substrate) -> bool:
    return any(field.name == "shots" for field in fields(_innermost(substrate)))


def _innermost(substrate: Any) -> Any:
    return _innermost(substrate.substrate) if isinstance(substrate, Wrapper) else substrate


def with_shots(substrate: Substrate, shots: int | None) -> Substrate:
    """The device reading from so many repetitions, where it measures; another one is presented the sample so often."""
    if shots is None or not _takes_shots(substrate):
        return substrate
    number: ArrayLike = jnp.asarray(shots, jnp.result_type(float))
    return eqx.tree_at(lambda s: _innermost(s).shots, substrate, number, is_leaf=lambda leaf: leaf is None)
