"""Programs are kept where they may be, taken when they are whole, and not too many."""

import logging
import os
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache.compilation_cache import reset_cache

from morphax.cli import main
from morphax.files import read_dataset
from morphax.lab.compile_cache import compile_cache, make_room


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Iterator[Path]:
    """Where programs are kept. The cache of the test session steps aside, as if JAX had been told of none."""
    monkeypatch.setenv("MORPHAX_COMPILE_CACHE", str(tmp_path / "programs"))
    session = jax.config.values["jax_compilation_cache_dir"]
    jax.config.update("jax_compilation_cache_dir", None)
    yield tmp_path / "programs"
    jax.config.update("jax_compilation_cache_dir", session)
    reset_cache()


def computed(factor: float = 3.0) -> np.ndarray:
    """Compiled anew, or taken from what was kept."""
    jax.clear_caches()
    return np.asarray(jax.jit(lambda x: jnp.sin(x) * factor)(np.arange(5.0)))


def taken(caplog) -> list[str]:
    return [record.message for record in caplog.records if "cache hit for 'jit__lambda" in record.message]


def test_programs_of_all_sizes_are_kept_and_taken(folder, caplog):
    caplog.set_level(logging.DEBUG, logger="jax._src.compiler")
    with compile_cache():
        first = computed()
    assert list(folder.iterdir())
    assert not taken(caplog)
    with compile_cache():
        assert (computed() == first).all()
    assert taken(caplog)


def test_the_configuration_of_jax_is_as_before(folder):
    before = dict(jax.config.values)
    with compile_cache():
        assert jax.config.values["jax_compilation_cache_dir"] == str(folder)
    assert dict(jax.config.values) == before
    computed(4.0)
    assert not list(folder.iterdir())


def test_it_can_be_turned_off_and_leaves_a_cache_that_jax_was_told_to_use(folder, tmp_path, monkeypatch):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "mine"))
    with compile_cache():
        computed(5.0)
    jax.config.update("jax_compilation_cache_dir", None)
    monkeypatch.setenv("MORPHAX_COMPILE_CACHE", "off")
    with compile_cache():
        computed(5.0)
    assert not folder.exists()


def test_a_folder_that_cannot_be_made_is_no_hindrance(folder, monkeypatch):
    folder.write_text("a file")
    with compile_cache():
        assert computed(6.0).shape == (5,)
    monkeypatch.setenv("MORPHAX_COMPILE_CACHE", str(folder / "below"))
    with compile_cache():
        assert computed(6.0).shape == (5,)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[: len(content) // 2],
        lambda content: content[:100] + bytes([content[100] ^ 64]) + content[101:],
        lambda content: zlib.compress(b"\0\0\0\1no program"),
    ],
    ids=["empty", "cut", "one bit", "another content"],
)
def test_damaged_entries_are_compiled_anew_and_repaired(damage: Callable[[bytes], bytes], folder, caplog):
    caplog.set_level(logging.DEBUG, logger="jax._src.compiler")
    with compile_cache():
        whole = computed()
    entries = {path: path.read_bytes() for path in folder.iterdir()}
    for path, content in entries.items():
        path.write_bytes(damage(content))
    with warnings.catch_warnings(record=True) as told, compile_cache():
        assert (computed() == whole).all()
    assert not told
    assert not taken(caplog)
    with compile_cache():
        assert (computed() == whole).all()
    assert taken(caplog)


@pytest.mark.slow
def test_a_run_with_damaged_programs_is_a_run_like_any_other(folder, dice, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("morphax.cli.find_experiment", lambda name: dice)
    datasets, errors = [], []
    for _ in range(2):
        jax.clear_caches()
        assert main(["run", "demo/dice", "--fresh", "--out", str(tmp_path / "run")]) == 0
        datasets.append(read_dataset(tmp_path / "run" / "result.nc"))
        errors.append(capsys.readouterr().err)
        assert list(folder.iterdir())
        for path in folder.iterdir():
            path.write_bytes(b"damaged")
    assert datasets[0].equals(datasets[1])
    assert not any("rror" in text or "arning" in text for text in errors)


def test_other_warnings_arrive(folder):
    with pytest.warns(UserWarning, match="of the experiment"), compile_cache():
        warnings.warn("of the experiment", stacklevel=1)


def test_what_was_used_longest_ago_is_removed(folder):
    folder.mkdir()
    for age, name in enumerate(("new", "old", "oldest")):
        (folder / name).write_bytes(bytes(1000))
        os.utime(folder / name, (1e9 - age, 1e9 - age))
    with compile_cache(largest=2500):
        (folder / "oldest").write_bytes(bytes(1000))
    assert {path.name for path in folder.iterdir()} == {"new", "oldest"}


def test_programs_are_let_go_before_the_system_has_no_room_for_more():
    traced = []

    @jax.jit
    def double(x):
        traced.append(x)
        return 2 * x

    for share, times in ((None, 1), (0.5, 1), (0.0, 2)):
        if share is not None:
            make_room(share)
        assert double(jnp.ones(3)).tolist() == [2.0, 2.0, 2.0]
        assert len(traced) == times
