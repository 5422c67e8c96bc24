"""Physical systems as estimators of scikit-learn: reservoirs with any readout, and networks that are trained.

    >>> from sklearn.datasets import load_wine
    >>> from sklearn.model_selection import cross_val_score
    >>> from morphax.estimators import ReservoirClassifier
    >>> oscillators = ReservoirClassifier("spin-torque", arrangement="held", random_state=0)
    >>> bool(cross_val_score(oscillators, *load_wine(return_X_y=True)).mean() > 0.95)
    True

Needs scikit-learn (extra `estimators`); nothing else in the library imports this.
"""

from morphax._optional import needed

needed("sklearn", "estimators")

from morphax.estimators._device import Device  # noqa: E402
from morphax.estimators._reservoirs import (  # noqa: E402
    ReservoirClassifier,
    ReservoirRegressor,
    ReservoirTransformer,
)
from morphax.estimators._trained import (  # noqa: E402
    PhaseOscillatorClassifier,
    PhysicalClassifier,
    PhysicalRegressor,
    QuantizedPerceptronClassifier,
    SpintronicClassifier,
)
from morphax.estimators.stored import load_estimator, save_estimator  # noqa: E402

__all__ = [
    "Device",
    "PhaseOscillatorClassifier",
    "PhysicalClassifier",
    "PhysicalRegressor",
    "QuantizedPerceptronClassifier",
    "ReservoirClassifier",
    "ReservoirRegressor",
    "ReservoirTransformer",
    "SpintronicClassifier",
    "load_estimator",
    "save_estimator",
]
