"""Shared fixtures."""

from collections.abc import Iterator

import jax
import matplotlib as mpl
import pytest

mpl.use("agg")


@pytest.fixture
def double() -> Iterator[None]:
    """Double precision, for this test only."""
    with jax.enable_x64(True):
        yield
