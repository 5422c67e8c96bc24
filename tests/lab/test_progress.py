"""Work in pieces: kept by label, not done twice, refused where it is not finite, timed, recorded."""

import io
import json
import time

import numpy as np
import pytest
import xarray as xr
from rich.console import Console

from morphax.lab.bar import duration, shown
from morphax.lab.progress import NonFiniteError, PiecesFailedError, Progress, along
from morphax.lab.store import PieceStore


def kept(folder, values=None, **options) -> Progress:
    return Progress(PieceStore(folder, {"experiment": "demo"}, values or {}), **options)


def files(folder) -> list[str]:
    return sorted(path.name for path in folder.glob("*/*.nc"))


class Work:
    """Pieces that count how often they are computed."""

    def __init__(self):
        self.done: list[str] = []

    def piece(self, label: str, value: float, seconds: float = 0.0):
        def compute() -> xr.Dataset:
            self.done.append(label)
            time.sleep(seconds)
            return xr.Dataset({"x": ("step", [value, value])}, attrs={"source": label})

        return compute


def test_pieces_come_back_by_label_in_order():
    work = Work()
    parts = Progress().pieces({label: work.piece(label, value) for label, value in (("b", 2.0), ("a", 1.0))})
    assert list(parts) == ["b", "a"]
    assert {label: float(part.x[0]) for label, part in parts.items()} == {"b": 2.0, "a": 1.0}


def test_a_finished_piece_is_read_and_equals_the_one_that_was_computed(tmp_path):
    work = Work()
    pieces = {label: work.piece(label, value) for label, value in (("size 4, 2 ns", 0.1), ("β", 0.2))}
    first = kept(tmp_path).pieces(pieces)
    again = kept(tmp_path).pieces(pieces)
    assert work.done == ["size 4, 2 ns", "β"]
    assert all(again[label].identical(first[label]) for label in pieces)


def test_pieces_that_are_not_wanted_are_not_computed():
    work, progress = Work(), Progress()
    pieces = {label: work.piece(label, value) for label, value in (("a", 1.0), ("b", 2.0), ("c", 3.0))}
    assert list(progress.pieces(pieces, ["a", "b"])) == ["a", "b"]
    assert list(progress.pieces(pieces, {"c"})) == ["c"]
    assert work.done == ["a", "b", "c"]


def test_a_piece_that_fails_is_not_kept_and_all_others_are(tmp_path):
    work = Work()

    def fails() -> xr.Dataset:
        raise RuntimeError("no power")

    with pytest.raises(RuntimeError, match="no power"):
        kept(tmp_path).pieces({"a": work.piece("a", 1.0), "b": fails, "c": work.piece("c", 3.0)})
    assert len(files(tmp_path)) == 2
    parts = kept(tmp_path).pieces({label: work.piece(label, 2.0) for label in "abc"})
    assert work.done == ["a", "c", "b"]
    assert float(parts["a"].x[0]) == 1.0


@pytest.mark.parametrize(
    "carry_out",
    [
        lambda work: Progress().pieces(work),
        lambda work: Progress().chain(list(work), lambda label, earlier: work[label]()),
    ],
)
def test_one_piece_that_fails_of_many_is_named_with_what_to_do(carry_out):
    def fails() -> xr.Dataset:
        raise KeyError("boom")

    with pytest.raises(KeyError) as raised:
        carry_out({"a": Work().piece("a", 1.0), "b": fails, "c": Work().piece("c", 1.0)})
    assert raised.value.__notes__ == ["(piece 'b'; what is finished is kept: the same command goes on with the rest)"]


def test_pieces_that_fail_are_all_named():
    def fails(error: Exception):
        def compute() -> xr.Dataset:
            raise error

        return compute

    pieces = {"a": fails(RuntimeError("no power")), "b": fails(KeyError("x")), "c": Work().piece("c", 1.0)}
    with pytest.raises(PiecesFailedError, match=r"^2 of 3 pieces failed, .* these again: a: no power; likewise 'b'$"):
        Progress().pieces(pieces)


def test_a_chain_ends_with_its_first_failure(tmp_path):
    def compute(label: str, earlier: dict[str, xr.Dataset]) -> xr.Dataset:
        if label == "two":
            raise RuntimeError("no power")
        return xr.Dataset({"x": 1.0})

    progress = kept(tmp_path)
    with pytest.raises(RuntimeError, match="no power"):
        progress.chain(["one", "two", "three"], compute)
    assert list(progress.digests) == ["one"]


def test_a_chain_sees_what_came_before(tmp_path):
    def compute(label: str, earlier: dict[str, xr.Dataset]) -> xr.Dataset:
        return xr.Dataset({"x": 1.0 + sum(float(part.x) for part in earlier.values())})

    kept(tmp_path).chain(["one", "two"], compute)
    parts = kept(tmp_path).chain(["one", "two", "three"], compute)
    assert {label: float(part.x) for label, part in parts.items()} == {"one": 1.0, "two": 2.0, "three": 4.0}


def test_a_piece_with_nan_is_refused_by_piece_variable_and_place(tmp_path):
    values = np.ones((2, 3))
    values[1, 2] = np.nan
    broken = xr.Dataset({"rate": (("seed", "step"), values), "count": ("seed", [1, 2])})
    with pytest.raises(NonFiniteError, match=r"^fast: rate is not finite at seed=1, step=2 \(1 of 6 values\)"):
        kept(tmp_path).pieces({"fast": lambda: broken})
    assert not list(tmp_path.iterdir())
    with pytest.raises(NonFiniteError, match="loss is not finite at its only value"):
        Progress().pieces({"fast": lambda: xr.Dataset({"loss": np.inf})})


def test_what_may_be_missing_may_be_nan():
    dataset = xr.Dataset({"rate": ("step", [1.0, np.nan], {"may_be_missing": 1})})
    assert Progress().pieces({"a": lambda: dataset})["a"].identical(dataset)


def test_seconds_of_pieces_that_are_read_are_known(tmp_path):
    work = Work()
    pieces = {"a": work.piece("a", 1.0, seconds=0.05), "b": work.piece("b", 1.0, seconds=0.1)}
    first = kept(tmp_path)
    parts = first.pieces(pieces)
    assert 0.15 <= first.seconds <= first.waited
    assert parts["a"].attrs == {"source": "a"}
    second = kept(tmp_path)
    parts = second.pieces(pieces)
    assert second.seconds == first.seconds
    assert work.done == ["a", "b"]
    assert parts["a"].attrs == {"source": "a"}


def test_history_holds_every_training_of_a_piece(tmp_path):
    history = tmp_path / "history.jsonl"

    def piece(label: str, progress: Progress):
        def compute() -> xr.Dataset:
            for training in ("first", "second"):
                for steps in (1, 2, 3):
                    progress.record(f"{label}, {training}", [{"loss": float(step)} for step in range(steps)])
            return xr.Dataset({"x": 1.0})

        return compute

    progress = Progress(history=history)
    progress.pieces({label: piece(label, progress) for label in "ab"})
    progress.finish()
    lines = [json.loads(line) for line in history.read_text().splitlines()]
    assert lines == [
        {"piece": f"{label}, {training}", "step": step, "loss": float(step)}
        for label in "ab"
        for training in ("first", "second")
        for step in range(3)
    ]


def test_history_of_a_piece_that_fails_is_written_too(tmp_path):
    progress = Progress(history=tmp_path / "history.jsonl")

    def fails() -> xr.Dataset:
        progress.record("a", [{"loss": 1.0}])
        progress.record("a", [{"loss": 1.0}, {"loss": 0.5}])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        progress.pieces({"a": fails})
    assert len((tmp_path / "history.jsonl").read_text().splitlines()) == 2


def test_checkpoints_have_a_folder_for_each_training_and_go_with_their_piece(tmp_path):
    assert Progress().checkpoint("a") is None
    progress, found = Progress(checkpoints=tmp_path), []

    def compute() -> xr.Dataset:
        for training in ("a, 2/3 ns", "a,_2/3 ns"):
            folder = progress.checkpoint(training)
            assert folder is not None
            folder.mkdir(parents=True, exist_ok=True)
            found.append(folder.relative_to(tmp_path))
        if len(found) == 2:
            raise RuntimeError("no power")
        return xr.Dataset({"x": 1.0})

    with pytest.raises(RuntimeError, match="no power"):
        progress.pieces({"a": compute})
    assert len(set(found)) == 2
    assert all(folder.name.startswith("a,_2_3_ns-") and (tmp_path / folder).exists() for folder in found)
    progress = Progress(checkpoints=tmp_path)
    found.append(None)
    progress.pieces({"a": compute})
    assert not list(tmp_path.iterdir())
    assert found[3:] == found[:2]


def test_a_bar_is_drawn_on_a_terminal_and_leaves_no_lines_in_a_file():
    for terminal in (False, True):
        written = io.StringIO()
        console = Console(file=written, force_terminal=terminal)
        Progress(console=console).pieces({"a": Work().piece("a", 1.0)})
        assert ("1/1" in written.getvalue()) == terminal
        assert terminal or not written.getvalue()


@pytest.mark.parametrize(("seconds", "told"), [(0.2, "0 s"), (59.9, "59 s"), (271, "4:31"), (3725, "1:02:05")])
def test_durations_are_told_as_people_read_them(seconds, told):
    assert duration(seconds) == told


def test_the_bar_says_how_long_the_whole_will_take_and_of_workers_only_since_when():
    now, written = [0.0], io.StringIO()
    console = Console(file=written, width=120, get_time=lambda: now[0])
    with shown(console, 30) as lines:
        for now[0] in (10.0, 20.0, 30.0):
            lines.advance()
        lines.tell({"worker 1": "piece 3"})
        now[0] = 36.0
        console.print(lines.bar.make_tasks_table(lines.bar.tasks))
    whole, worker = written.getvalue().splitlines()
    assert whole.split("  ")[-1].strip().endswith("3/30 36 s, about 4:30 left")
    assert worker.strip().startswith("worker 1: piece 3")
    assert worker.strip().endswith(" 6 s")
    assert "?" not in worker


def test_along_makes_the_keys_a_coordinate():
    parts = {0.5: xr.Dataset({"x": 1.0}), 0.1: xr.Dataset({"x": 2.0})}
    joined = along("interval", parts, {"units": "ns"})
    assert joined.interval.values.tolist() == [0.5, 0.1]
    assert joined.interval.attrs == {"units": "ns"}
    assert joined.x.sel(interval=0.1).item() == 2.0
