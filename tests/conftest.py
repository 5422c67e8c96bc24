"""Shared fixtures, and programs that compile fast: most of a test's time is compilation.

Compiled programs are shared between the tests of one session, and between its processes.
"""

import gc
import itertools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from threading import local

# In the environment, so that the processes that a test starts compile alike. The arithmetic stays the same. A program
# of one part takes an eighth less time to compile than one of many, and half the memory mappings.
os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        "--xla_cpu_use_fusion_emitters=false",
        "--xla_cpu_parallel_codegen_split_count=1",
    ]
)

import jax
import matplotlib as mpl
import pytest
from jax._src.interpreters import mlir
from jaxlib.mlir import ir

mpl.use("agg")
gc.set_threshold(200_000, 50, 100)  # tracing makes many objects and few cycles
# No public name leads there: to register all operations anew takes most of the time in which a program is lowered. One
# for every thread, because none guards what it holds against others.
_contexts, _make_context = local(), mlir.make_ir_context


def _context_of_thread() -> object:
    if ir.Context.current is not None:
        return _make_context()  # a program is lowered within another one, into which its own parts must not go
    if not hasattr(_contexts, "own"):
        _contexts.own = _make_context()
    return _contexts.own


mlir.make_ir_context = _context_of_thread


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


@cache
def postgres_programs() -> Path | None:
    """The folder of PostgreSQL's programs, which Debian keeps out of the search path; None where there are none."""
    folders = [os.environ["PATH"], *map(str, Path("/usr/lib/postgresql").glob("*/bin"))]
    if config := shutil.which("pg_config"):
        folders += subprocess.run([config, "--bindir"], capture_output=True, text=True).stdout.split()
    found = shutil.which("initdb", path=os.pathsep.join(folders))
    return None if found is None else Path(found).resolve().parent


def pytest_report_header() -> str | None:
    told = "PostgreSQL is not installed: the test of a study in its database was left out"
    return told if postgres_programs() is None else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if postgres_programs() is None and (left := [item for item in items if item.get_closest_marker("postgres")]):
        items[:] = [item for item in items if item not in left]
        config.hook.pytest_deselected(items=left)


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
