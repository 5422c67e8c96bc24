import ast
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import KBinsDiscretizer, MinMaxScaler, SplineTransformer
from sklearn.svm import SVC
from sklearn.utils import all_estimators

from morphax import EchoStateNetwork, load, save
from morphax.estimators import (
    Device,
    PhysicalRegressor,
    QuantizedPerceptronClassifier,
    ReservoirClassifier,
    ReservoirTransformer,
    load_estimator,
    save_estimator,
)
from morphax.learning import History

TEXTS = np.array(["barolo", "grignolino", "barbera"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "estimator",
    [
        ReservoirClassifier(Device("echo-state", leak_rate=0.5), 20, arrangement="held", random_state=0),
        ReservoirClassifier("relu", 9, arrangement="held", readout=SVC(), random_state=0),
        ReservoirClassifier(
            "josephson", 9, arrangement="sequence", readout=make_pipeline(MinMaxScaler(), LogisticRegression())
        ),
        QuantizedPerceptronClassifier(hidden=(8,), steps=5, random_state=np.random.RandomState(0)),
    ],
)
@pytest.mark.parametrize("kind", [str, pytest.param(object, marks=pytest.mark.slow)])
def test_what_was_fitted_answers_alike_from_a_file(tmp_path, wine, estimator, kind):
    X, y = wine[0], TEXTS[wine[1]].astype(kind)
    fitted = estimator.fit(X, y)
    again = load_estimator(save_estimator(tmp_path / "model.morphax", fitted))
    np.testing.assert_array_equal(again.predict(X), fitted.predict(X))
    assert again.classes_.tolist() == sorted(TEXTS)
    assert repr(again.get_params()).startswith("{")
    with zipfile.ZipFile(tmp_path / "model.morphax") as archive:
        assert not any(b"pickle" in archive.read(name) for name in archive.namelist())


def loaded(file: Path, trusted: list[str]) -> Any:
    """Trusting whatever it holds."""
    try:
        return load_estimator(file, trusted=trusted)
    except ValueError as error:
        return loaded(file, trusted + ast.literal_eval(str(error).split("trusted=")[1].rstrip(")")))


CLASSIFIERS = [cls for _, cls in all_estimators("classifier") if cls.__module__.startswith("sklearn.linear_model")]


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("cls", CLASSIFIERS, ids=lambda cls: cls.__name__)
def test_every_linear_model_is_a_readout_with_a_stored_form(tmp_path, wine, cls):
    X, y = wine
    readout = make_pipeline(SplineTransformer(), KBinsDiscretizer(), cls())
    fitted = ReservoirClassifier("relu", 5, arrangement="held", readout=readout, random_state=np.int64(3)).fit(X, y)
    file = save_estimator(tmp_path / "model.morphax", fitted)
    again = loaded(file, [])
    np.testing.assert_array_equal(again.predict(X), fitted.predict(X))
    assert again.random_state == 3


@pytest.mark.slow
def test_numbers_and_features_too(tmp_path, wine):
    X, y = wine
    regressor = PhysicalRegressor("ctrnn", hidden=(4,), arrangement="held", steps=3, random_state=0).fit(X, y)
    again = load_estimator(save_estimator(tmp_path / "model.morphax", regressor))
    np.testing.assert_array_equal(again.predict(X), regressor.predict(X))
    assert isinstance(again.history_, History)
    reservoir = ReservoirTransformer(arrangement="held", random_state=0).fit(X)
    again = load_estimator(save_estimator(tmp_path / "model.morphax", reservoir))
    np.testing.assert_array_equal(again.transform(X), reservoir.transform(X))


def test_what_is_not_trusted_is_refused(tmp_path, wine):
    X, y = wine
    neighbours = ReservoirClassifier("relu", 9, arrangement="held", readout=KNeighborsClassifier(3), random_state=0)
    path = save_estimator(tmp_path / "a.morphax", neighbours.fit(X, y))
    with pytest.raises(ValueError, match=r"sklearn.neighbors._kd_tree.KDTree in its readout, which skops") as refused:
        load_estimator(path)
    trusted = ast.literal_eval(str(refused.value).partition("trusted=")[2].rstrip(")"))
    np.testing.assert_array_equal(load_estimator(path, trusted=trusted).predict(X), neighbours.predict(X))
    with pytest.raises(ValueError, match=r"it must be one of morphax\.estimators"):
        save_estimator(tmp_path / "b.morphax", LogisticRegression())
    network = save(tmp_path / "c.morphax", {"estimator": EchoStateNetwork, "state": {}})
    with pytest.raises(ValueError, match="holds no estimator"):
        load_estimator(network)
    named = save_estimator(
        tmp_path / "d.morphax", ReservoirClassifier("relu", arrangement="held", readout=LogisticRegression())
    )
    tree = load(named)
    tree["state"]["readout"]["sklearn"] = KNeighborsClassifier
    with pytest.raises(ValueError, match="which is no linear model"):
        load_estimator(save(tmp_path / "e.morphax", tree))


def test_another_scikit_learn_is_told(tmp_path):
    tree = load(save_estimator(tmp_path / "a.morphax", ReservoirTransformer())) | {"scikit-learn": "1.0"}
    with pytest.warns(UserWarning, match=r"was written with scikit-learn 1.0"):
        load_estimator(save(tmp_path / "b.morphax", tree))
