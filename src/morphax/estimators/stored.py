"""Fitted estimators in a file, without pickle."""

from __future__ import annotations

import numbers
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
from sklearn.base import BaseEstimator

from morphax._optional import needed
from morphax.estimators._reservoirs import WithDevice
from morphax.learning.history import History
from morphax.saving import check_storable, load, save

PLAIN = ("sklearn.linear_model.", "sklearn.preprocessing.", "sklearn.pipeline.")
"""Modules whose estimators are numbers and texts; others are written by skops."""


def save_estimator(path: str | Path, estimator: Any) -> Path:
    """Write a fitted estimator of this module to one file, as `morphax.save` does: whole or not at all, without pickle.

    **Arguments:**

    - `path`: the file.
    - `estimator`: fitted or not. Devices, rules and functions in it must be importable. Readouts that are linear models
      of scikit-learn, scalers, and pipelines of them are stored as numbers where they hold nothing else; others need
      skops (extra `skops`).

    **Returns:** the path.

    **Raises:** `ValueError` for what has no stored form.

        >>> import numpy as np, tempfile
        >>> from morphax.estimators import ReservoirRegressor, load_estimator, save_estimator
        >>> X = np.random.default_rng(0).normal(size=(20, 3))
        >>> regressor = ReservoirRegressor("spin-torque", arrangement="held", random_state=0).fit(X, X[:, 0])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     again = load_estimator(save_estimator(f"{folder}/model.morphax", regressor))
        >>> bool((again.predict(X) == regressor.predict(X)).all())
        True
    """
    return save(path, described(estimator))


def load_estimator(path: str | Path, *, trusted: Sequence[str] = ()) -> Any:
    """What `save_estimator` wrote.

    **Arguments:** `trusted`: types in a readout, by name, that skops alone would not make.

    **Raises:** `ValueError` for a file that holds something else, and for types of a readout that skops does not trust.
    """
    return rebuilt(load(path), str(path), trusted)


def described(estimator: Any) -> dict[str, Any]:
    """An estimator as a tree that `morphax.save` takes."""
    if not isinstance(estimator, WithDevice):
        raise ValueError(f"estimator is a {type(estimator).__name__}; it must be one of morphax.estimators")
    state = {name: _stored(value, name) for name, value in estimator.__getstate__().items()}
    seed = state.get("random_state")
    # Of a generator the fit took a seed.
    state["random_state"] = int(seed) if isinstance(seed, numbers.Integral) else None
    return {"estimator": type(estimator), "state": state, "scikit-learn": sklearn.__version__}


def rebuilt(tree: Any, path: str, trusted: Sequence[str] = ()) -> Any:
    """The estimator of a tree."""
    cls = tree.get("estimator") if isinstance(tree, dict) else None
    if not (isinstance(cls, type) and issubclass(cls, WithDevice)):
        raise ValueError(f"{path} holds no estimator; morphax.load reads other things")
    if tree["scikit-learn"] != sklearn.__version__:
        warnings.warn(
            f"{path} was written with scikit-learn {tree['scikit-learn']}, and {sklearn.__version__} is installed: "
            "its readout may answer otherwise, or not at all",
            stacklevel=3,
        )
    made = _with_state(cls, {name: _restored(value, path, trusted) for name, value in tree["state"].items()})
    if hasattr(made, "history_"):  # which is a list, and stored as one
        made.history_ = History(made.history_)
    return made


def _stored(value: Any, where: str) -> Any:
    """With estimators of scikit-learn, and arrays of texts, as what `morphax.save` takes."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "OUS":
        texts = value.tolist()
        if not all(isinstance(text, str) for text in texts):
            raise ValueError(f"{where} holds {texts[:3]}; only texts and numbers are stored")
        return {"texts": texts, "type": value.dtype.str}
    if isinstance(value, BaseEstimator):
        plain = _plain(value, where) if f"{type(value).__module__}.".startswith(PLAIN) else None
        if plain is not None:
            return plain
        return {"skops": np.frombuffer(needed("skops.io", "skops").dumps(value), np.uint8)}
    if type(value) in (list, tuple):
        parts = [_stored(part, f"{where}[{place}]") for place, part in enumerate(value)]
        return parts if type(value) is list else tuple(parts)
    return value


def _plain(estimator: BaseEstimator, where: str) -> dict[str, Any] | None:
    """An estimator as numbers and texts, if it is nothing else: some hold compiled losses, splines, arrays of None."""
    try:
        state = {name: _stored(part, f"{where}.{name}") for name, part in vars(estimator).items()}
        check_storable(state)
    except ValueError:
        return None
    return {"sklearn": type(estimator), "state": state}


def _restored(value: Any, path: str, trusted: Sequence[str]) -> Any:
    if type(value) in (list, tuple):
        return type(value)(_restored(part, path, trusted) for part in value)
    if not isinstance(value, dict):
        return value
    if value.keys() == {"texts", "type"}:
        return np.array(value["texts"], np.dtype(value["type"]))
    if value.keys() == {"skops"}:
        io, content = needed("skops.io", "skops"), value["skops"].tobytes()
        if others := sorted(set(io.get_untrusted_types(data=content)) - set(trusted)):
            raise ValueError(
                f"{path} holds {', '.join(others)} in its readout, which skops does not trust; if you do, say so: "
                f"load_estimator(..., trusted={others})"
            )
        return io.loads(content, trusted=list(trusted))
    if value.keys() == {"sklearn", "state"}:
        cls = value["sklearn"]
        if not (issubclass(cls, BaseEstimator) and f"{cls.__module__}.".startswith(PLAIN)):
            raise ValueError(f"{path} holds a readout of {cls.__module__}.{cls.__name__}, which is no linear model")
        return _with_state(cls, {name: _restored(part, path, trusted) for name, part in value["state"].items()})
    return value


def _with_state(cls: type, state: dict[str, Any]) -> Any:
    made = object.__new__(cls)
    vars(made).update(state)
    return made
