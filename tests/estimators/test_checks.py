"""What scikit-learn asks of every estimator: all of its checks, none expected to fail."""

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from morphax.estimators import (
    PhaseOscillatorClassifier,
    PhysicalRegressor,
    QuantizedPerceptronClassifier,
    ReservoirClassifier,
    ReservoirRegressor,
    ReservoirTransformer,
    SpintronicClassifier,
)

# Every interval of the ten is read: what the mixer forgets of the first is gone from a mean over two.
MIXER = {"device": "josephson", "neurons": 64, "arrangement": "sequence", "readings": 10}
SCARCE = ReservoirClassifier("relu", arrangement="held")
RESERVOIRS = [
    ReservoirClassifier("spin-torque", arrangement="held"),
    ReservoirClassifier("echo-state", arrangement="held"),
    ReservoirClassifier(**MIXER),
    ReservoirRegressor("relu", arrangement="held"),
    ReservoirRegressor("spin-torque", arrangement="held"),
    ReservoirRegressor("echo-state", arrangement="held"),
    ReservoirRegressor(**MIXER),
    ReservoirTransformer("echo-state", arrangement="held"),
]
TRAINED = [
    QuantizedPerceptronClassifier(steps=100),
    SpintronicClassifier(hidden=(16,), steps=60, arrangement="held"),
    PhaseOscillatorClassifier(hidden=(8,), steps=60),
    PhysicalRegressor("spintronic", hidden=(16,), steps=200, arrangement="held"),
]


def keeps(estimator, check) -> None:
    name = getattr(check, "func", check).__name__
    if name == "check_array_api_input":  # asks for a setting of SciPy, for estimators that say they know such arrays
        assert not estimator.__sklearn_tags__().array_api_support
        return
    check(estimator)


@parametrize_with_checks([SCARCE])
@pytest.mark.filterwarnings("default")
def test_a_reservoir_keeps_what_scikit_learn_relies_on(estimator, check):
    keeps(estimator, check)


@pytest.mark.slow
@parametrize_with_checks(RESERVOIRS)
@pytest.mark.filterwarnings("default")
def test_every_reservoir_keeps_what_scikit_learn_relies_on(estimator, check):
    keeps(estimator, check)


@pytest.mark.slow
@parametrize_with_checks(TRAINED)
@pytest.mark.filterwarnings("default")
def test_trained_estimators_keep_what_scikit_learn_relies_on(estimator, check):
    keeps(estimator, check)
