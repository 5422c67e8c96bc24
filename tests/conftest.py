"""Shared fixtures. Compiled programs are shared between the tests of one session, and between its processes."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import jax
import matplotlib as mpl
import pytest

mpl.use("agg")


def pytest_configure(config: pytest.Config) -> None:
    workers = getattr(config, "workerinput", None)
    session = workers["testrunuid"] if workers else "alone"
    jax.config.update("jax_compilation_cache_dir", str(Path(tempfile.gettempdir()) / f"morphax-tests-{session}"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


@pytest.fixture
def double() -> Iterator[None]:
    """Double precision, for this test only."""
    with jax.enable_x64(True):
        yield
