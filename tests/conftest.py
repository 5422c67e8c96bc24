"""Shared fixtures, and programs that compile fast: most of a test's time is compilation.

Compiled programs are shared between the tests of one session, and between its processes.
"""

import gc
import itertools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

# In the environment, so that the processes that a test starts compile alike. The arithmetic stays the same.
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_use_fusion_emitters=false"

import jax
import matplotlib as mpl
import pytest

mpl.use("agg")
gc.set_threshold(200_000, 50, 100)  # tracing makes many objects and few cycles


def pytest_configure(config: pytest.Config) -> None:
    workers = getattr(config, "workerinput", None)
    session = workers["testrunuid"] if workers else "alone"
    folder = str(Path(tempfile.gettempdir()) / f"morphax-tests-{session}")
    for name, value in {
        "jax_compilation_cache_dir": folder,
        "jax_persistent_cache_min_compile_time_secs": 0.2,
        "jax_disable_most_optimizations": True,
    }.items():
        jax.config.update(name, value)
        os.environ[name.upper()] = str(value)


TESTS_UNTIL_LOOK = 25
MANY = 30_000  # of the 65,530 memory mappings that Linux grants a process
_finished = itertools.count(1)


@pytest.fixture(autouse=True)
def _release_programs() -> Iterator[None]:
    """A compiled program takes some memory mappings: all tests need more than there are."""
    yield
    if not next(_finished) % TESTS_UNTIL_LOOK and _mappings() > MANY:
        jax.clear_caches()


def _mappings() -> float:
    """How many this process has; where the system does not tell, too many."""
    try:
        with open("/proc/self/maps", "rb") as file:
            return sum(1 for _ in file)
    except OSError:
        return float("inf")


@pytest.fixture
def double() -> Iterator[None]:
    """Double precision, for this test only."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def optimised() -> Iterator[None]:
    """Programs as users run them, for a test that runs longer than it compiles."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)
