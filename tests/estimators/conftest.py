from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_wine


@pytest.fixture(scope="session")
def wine() -> tuple[np.ndarray, np.ndarray]:
    data: Any = load_wine()
    return data.data, data.target


@pytest.fixture
def compiled() -> Iterator[Callable[[], list[str]]]:
    """Names of the functions that were compiled since it was asked last."""
    names: list[str] = []

    def note(event: str, duration: float, **kwargs: Any) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            names.append(str(kwargs.get("fun_name")))

    def asked() -> list[str]:
        found = names.copy()
        names.clear()
        return found

    listener: Any = note
    jax.monitoring.register_event_duration_secs_listener(listener)
    yield asked
    jax.monitoring.unregister_event_duration_listener(listener)


def copy_of(estimator: Any) -> Any:
    """A clone, whose type scikit-learn does not tell."""
    return clone(estimator)


def tones(samples: int, seed: int = 0) -> tuple[list[np.ndarray], np.ndarray]:
    """Series of two channels and unequal length, of two frequencies."""
    random = np.random.default_rng(seed)
    labels = random.integers(2, size=samples)
    lengths = random.integers(20, 60, size=samples)
    phases = random.uniform(0, 2 * np.pi, size=samples)
    series = [
        np.stack([np.sin((0.3 + 0.2 * label) * np.arange(n) + phase), random.normal(size=n)], axis=1)
        for label, n, phase in zip(labels, lengths, phases, strict=True)
    ]
    return series, labels
