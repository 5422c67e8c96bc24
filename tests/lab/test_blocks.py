"""Blocks of an ensemble: cut and put together, and computed several at once."""

import json

import numpy as np
import pytest
import xarray as xr

from morphax.lab import progress as progress_module
from morphax.lab.blocks import Blocks, join_blocks
from morphax.lab.progress import Progress
from morphax.lab.store import PieceStore


def member(kind):
    def compute(seeds):
        return xr.Dataset({"y": ("seed", [kind * s for s in seeds]), "kind": kind}, {"seed": list(seeds)})

    return compute


def test_blocks_do_not_change_what_comes_out():
    work = {"a, b": member(1), "c": member(2)}
    whole, parts = (
        blocks.join(Progress().pieces(blocks.split(work) | {"d": lambda: xr.Dataset({"z": 1})}))
        for blocks in (Blocks("seed", 5, 5), Blocks("seed", 5, 2))
    )
    assert list(parts) == ["a, b", "c", "d"]
    for name, part in parts.items():
        xr.testing.assert_identical(part, whole[name])
    assert parts["c"].y.values.tolist() == list(2 * np.arange(5))
    assert parts["c"].kind.ndim == 0


def test_a_longer_ensemble_has_the_blocks_of_a_shorter_one():
    short, long = (list(Blocks("seed", count, 2).split({"a": member(1)})) for count in (4, 7))
    assert long[:2] == short
    assert long[-1] == "a, seed 6"


def test_what_belongs_to_no_member_must_be_equal_in_all_blocks():
    blocks = Blocks("seed", 2, 1, together=False)
    work = {"a": lambda seeds: xr.Dataset({"y": ("seed", list(seeds)), "z": seeds[0]})}
    with pytest.raises(xr.MergeError, match="z"):
        blocks.join(Progress().pieces(blocks.split(work)))


@pytest.mark.parametrize(("count", "size", "named"), [(0, 1, "seed is 0"), (3, 0, "size is 0")])
def test_bad_blocks_are_refused(count, size, named):
    with pytest.raises(ValueError, match=named):
        Blocks("seed", count, size).split({"a": member(1)})


def test_kinds_of_different_numbers_are_joined_by_their_labels():
    work = Blocks("seed", 3, 2).split({"a": member(1)}) | Blocks("seed", 4, 3).split({"b": member(2)})
    joined = join_blocks("seed", Progress().pieces(work))
    assert {name: part.y.values.tolist() for name, part in joined.items()} == {"a": [0, 1, 2], "b": [0, 2, 4, 6]}


class Trainings:
    """Members that write a history, as trainings do, and fail where a test asks for it."""

    def __init__(self, progress: Progress, failing: tuple[int, ...] = ()):
        self.progress, self.failing, self.calls = progress, failing, []

    def compute(self, seeds: range) -> xr.Dataset:
        self.calls.append(list(seeds))
        self.progress.record("training", [{"loss": [float(seed) for seed in seeds], "test": {"a": list(seeds)}}])
        if bad := set(seeds) & set(self.failing):
            raise RuntimeError(f"no power at seed {min(bad)}")
        return xr.Dataset({"y": ("seed", np.square(seeds)), "z": 1.0}, {"seed": list(seeds)})


@pytest.fixture
def three_cores(monkeypatch):
    monkeypatch.setattr(progress_module, "cores", lambda: 3)


def progress_in(folder) -> Progress:
    store = PieceStore(folder, {"experiment": "demo"}, {})
    return Progress(store, history=folder / "history.jsonl", checkpoints=folder / "checkpoints")


def carried_out(folder, together: bool) -> tuple[Trainings, Progress, dict[str, xr.Dataset]]:
    progress = progress_in(folder)
    work = Trainings(progress)
    parts = progress.pieces(Blocks("seed", 5, 1, together).split({"": work.compute}))
    progress.finish()
    return work, progress, parts


def test_blocks_that_fill_the_cores_give_the_pieces_of_blocks_by_themselves(tmp_path, three_cores):
    apart, one, expected = carried_out(tmp_path / "a", together=False)
    at_once, other, parts = carried_out(tmp_path / "b", together=True)
    assert apart.calls == [[0], [1], [2], [3], [4]]
    assert at_once.calls == [[0, 1, 2], [3, 4]]
    assert other.digests == one.digests
    assert list(parts) == list(expected)
    for label, part in parts.items():
        xr.testing.assert_identical(part, expected[label])
    histories = [(tmp_path / name / "history.jsonl").read_text() for name in "ab"]
    assert histories[0] == histories[1]
    assert json.loads(histories[1].splitlines()[1])["test"] == {"a": [1]}
    assert carried_out(tmp_path / "b", together=True)[0].calls == []


def test_of_blocks_that_fail_at_once_each_tries_by_itself(tmp_path, three_cores):
    progress = progress_in(tmp_path)
    work = Trainings(progress, failing=(4,))
    with pytest.raises(RuntimeError, match="no power at seed 4"):
        Blocks("seed", 5).carry_out(progress, work.compute)
    assert work.calls == [[0, 1, 2], [3, 4], [3], [4]]
    assert carried_out(tmp_path, together=True)[0].calls == [[4]]
