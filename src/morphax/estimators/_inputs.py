"""Tables, series and lists of series: looked at as scikit-learn asks for, and brought to devices."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from sklearn.utils import check_array, check_X_y
from sklearn.utils.validation import validate_data

from morphax._checks import check_choice
from morphax.judging.devices import Encoding

Arrangement = Literal["held", "sequence", "series"]
"""A row is one vector, held for one interval; one number an interval; or the data have an axis of time themselves."""
FORMS = "(samples, features), (samples, time, channels) or a list of (time, channels)"
NO_TARGETS = object()
FEW = 4
"""Numbers of intervals are rounded up to so many parts of a power of two, so that few programs are compiled."""


class Series(NamedTuple):
    """Samples of (time, channels), all of one shape, or a list with a shape for each."""

    values: Float[np.ndarray, "samples time channels"] | Sequence[Float[np.ndarray, "time channels"]]
    lengths: Int[np.ndarray, " samples"]
    arrangement: Arrangement

    @property
    def channels(self) -> int:
        """Numbers in an input."""
        return self.values[0].shape[1]

    @property
    def equally_long(self) -> bool:
        """Whether no sample is padded."""
        return isinstance(self.values, np.ndarray)

    def filled(
        self, places: slice, samples: int, steps: int, width: int
    ) -> tuple[Float[np.ndarray, "samples steps width"], Int[np.ndarray, " samples"]]:
        """Some of them with zeros behind: further time, further channels, and further samples of length 1."""
        lengths = self.lengths[places]
        values = np.zeros((samples, steps, width))
        if isinstance(self.values, np.ndarray):
            values[: len(lengths), : self.values.shape[1], : self.channels] = self.values[places]
        else:
            for row, sample in zip(values, self.values[places], strict=False):
                row[: len(sample), : self.channels] = sample
        return values, np.concatenate([lengths, np.ones(samples - len(lengths), int)])

    def mapped(self, change: Any) -> Series:
        """With other numbers."""
        if isinstance(self.values, np.ndarray):
            return self._replace(values=change(self.values))
        return self._replace(values=[change(sample) for sample in self.values])


def read_inputs(
    estimator: Any, X: Any, y: Any = NO_TARGETS, *, arrangement: Any, fitting: bool, **of_targets: Any
) -> tuple[Series, Any]:
    """What an estimator was given, looked at as scikit-learn does; and targets, where `y` is given.

    **Arguments:**

    - `estimator`: it learns `n_features_in_`, `arrangement_`, and names of features.
    - `arrangement`: what two axes are; None where nobody has said it.
    - `fitting`: whether it learns these; else they must be the same.
    - `of_targets`: further words for `validate_data`.

    **Raises:** `ValueError` for anything else than the three forms, NaN, and other numbers of features or channels.
    """
    supervised, X = y is not NO_TARGETS, _stacked(X)
    if isinstance(X, np.ndarray) and X.ndim > 3:
        raise ValueError(f"X has shape {X.shape}; it must be {FORMS}")
    # What scikit-learn annotates is a part of what it takes.
    words: dict[str, Any] = {"X": X, "dtype": np.float64, "allow_nd": True}
    if supervised:
        words |= {"y": y} | of_targets
    if (ragged := _ragged(X)) is not None:
        series = _checked_list(ragged)
        if fitting and hasattr(estimator, "feature_names_in_"):
            del estimator.feature_names_in_
        y = _targets_alone(estimator, y, len(ragged), of_targets) if supervised else None
    else:
        # Without this, the second axis of three would be taken for features.
        if isinstance(X, np.ndarray) and X.ndim == 3:
            words["ensure_2d"] = False
        found: Any = validate_data(estimator, reset=fitting, **words)
        X, y = found if supervised else (found, None)
        series = _arranged(X, arrangement)
    features = series.values[0].shape[0 if series.arrangement == "sequence" else 1]
    if fitting:
        estimator.n_features_in_ = features
        estimator.arrangement_ = series.arrangement
    else:
        if series.arrangement != estimator.arrangement_:
            raise ValueError(
                f"X is arranged as {series.arrangement!r}; {type(estimator).__name__} was fitted to "
                f"{estimator.arrangement_!r}"
            )
        if features != estimator.n_features_in_:
            raise ValueError(
                f"X has {features} features, but {type(estimator).__name__} is expecting {estimator.n_features_in_} "
                "features as input"
            )
    return series, y


def _stacked(X: Any) -> Any:
    """A list of series as one array, where all are equally long; and what holds them as a list."""
    if isinstance(X, np.ndarray) and X.dtype == object and X.ndim == 1:
        X = list(X)
    if isinstance(X, list | tuple) and X and np.ndim(X[0]) == 2:
        with suppress(ValueError):
            return np.stack(X)
    return X


def _ragged(X: Any) -> list[Any] | None:
    """A list of (time, channels) whose shapes differ; None for what NumPy makes one array of."""
    if not isinstance(X, list | tuple) or not X or not all(hasattr(each, "__len__") for each in X):
        return None
    if isinstance(X[0], str) or (len({len(each) for each in X}) == 1 and not isinstance(X[0], np.ndarray)):
        return None
    found = [np.asarray(each) for each in X]
    return found if len({each.shape for each in found}) > 1 else None


def _checked_list(samples: list[np.ndarray]) -> Series:
    channels = {each.shape[1:] for each in samples}
    if len(channels) > 1 or len(next(iter(channels))) != 1:
        if all(each.ndim == 1 for each in samples):
            raise ValueError(
                "X is a list of series of numbers whose lengths differ; give each as (time, channels), of one channel "
                "series[:, None]"
            )
        raise ValueError(
            f"X is a list of arrays of shapes {', '.join(map(str, sorted({each.shape for each in samples})[:4]))}; all "
            "must be (time, channels) with as many channels"
        )
    words: dict[str, Any] = {"dtype": np.float64, "order": "C"}
    checked = [check_array(each, input_name=f"X[{place}]", **words) for place, each in enumerate(samples)]
    return Series(checked, np.array([len(each) for each in checked]), "series")


def _targets_alone(estimator: Any, y: Any, samples: int, of_targets: dict[str, Any]) -> Any:
    """Targets looked at beside inputs that stand for samples."""
    if y is None:
        raise ValueError(f"requires y to be passed, but {type(estimator).__name__} was given None")
    return check_X_y(np.zeros((samples, 1)), y, **of_targets)[1]


def _arranged(X: Float[np.ndarray, "samples ..."], arrangement: Any) -> Series:
    check_choice("arrangement", arrangement, (None, "held", "sequence"))
    if X.ndim == 2:
        if arrangement is None:
            raise ValueError(
                f"X has shape {X.shape} and arrangement is None, and nothing tells a table from series of one channel: "
                'say arrangement="held" where a row is one vector, or "sequence" where it is one number after the other'
            )
        values = X[:, None, :] if arrangement == "held" else X[:, :, None]
    elif X.ndim == 3:
        if arrangement is not None:
            raise ValueError(
                f"arrangement is {arrangement!r} and X has shape {X.shape}; (samples, time, channels) needs none"
            )
        if 0 in X.shape:
            raise ValueError(f"Found array with 0 feature(s) (shape={X.shape}) while a minimum of 1 is required.")
        values, arrangement = X, "series"
    else:
        raise ValueError(f"X has shape {X.shape}; it must be {FORMS}")
    return Series(values, np.full(len(X), values.shape[1]), arrangement)


@dataclass(frozen=True)
class Encoder:
    """How numbers in units of their own become a drive: $(x - x_0) g$ for every channel."""

    offset: Float[np.ndarray, " channels"]
    gain: Float[np.ndarray, " channels"]

    @classmethod
    def fitted(cls, series: Series, encoding: Encoding) -> Encoder:
        """To all points of the training data. A channel that is constant, but for rounding, becomes 0.

        **Raises:** `ValueError` for a channel whose range is not finite.
        """
        rows = np.concatenate(series.values) if isinstance(series.values, list) else series.values
        rows = np.reshape(rows, (-1, series.channels))
        if encoding == "raw":
            return cls(np.zeros(series.channels), np.ones(series.channels))
        low, high = rows.min(axis=0), rows.max(axis=0)
        with np.errstate(over="ignore"):
            extent = high - low
        if not np.isfinite(extent).all():
            channel = int(np.argmin(np.isfinite(extent)))
            raise ValueError(
                f"channel {channel} of X reaches from {low[channel]:g} to {high[channel]:g}, too far to be scaled"
            )
        varies = extent > 10 * np.finfo(float).eps * np.maximum(np.abs(low), np.abs(high))
        # Else squares and inverses of numbers that are very large or small would not be finite.
        unit = np.where(varies & (extent > np.finfo(float).tiny), extent, np.inf)
        if encoding == "standard":
            middle = rows.mean(axis=0)
            spread = ((rows - middle) / unit).std(axis=0)
            return cls(middle, 1 / (np.where(spread > 0, spread, 1.0) * unit))
        if encoding == "phase":
            return cls(low + extent / 2, np.pi / unit)
        return cls(low, 1 / unit)

    def __call__(self, series: Series) -> Series:
        """The drives."""
        return series.mapped(lambda values: (values - self.offset) * self.gain)


def rounded_steps(steps: int) -> int:
    """A number of intervals, or the next larger one of which there are few.

    >>> [rounded_steps(n) for n in (1, 7, 9, 64, 65, 150)]
    [1, 7, 10, 64, 80, 160]
    """
    part = max(1, (1 << (steps - 1).bit_length()) // (2 * FEW))
    return -(-steps // part) * part
