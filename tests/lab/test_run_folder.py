"""A run on disk: whole or resumed, with its claims whatever their numbers, and refused where it is another's."""

import json
import re
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure
from pydantic import model_validator

from morphax import parameter
from morphax.files import digest_of_file, read_json, read_sealed
from morphax.lab.run_folder import RunFolder, UsageError, open_run

FILES = {"manifest.json", "config.json", "environment.json", "result.nc", "claims.json", "history.jsonl", "report.html"}
FILES |= {"figures"}


def run(path: Path, experiment, **numbers) -> RunFolder:
    folder = RunFolder(path, experiment, experiment.Config(**numbers))
    folder.execute()
    return folder


def without_seconds(folder: RunFolder) -> xr.Dataset:
    dataset = folder.dataset()
    del dataset.attrs["seconds"]
    return dataset


def strict_json(path: Path):
    def refuse(word: str):
        raise AssertionError(f"{word} is no JSON")

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


def test_a_run_leaves_a_complete_folder(dice, tmp_path):
    folder = run(tmp_path / "out", dice(), throws=5, seed=3)
    assert folder.complete
    assert {entry.name for entry in folder.path.iterdir()} == FILES
    assert read_sealed(folder.path / "config.json") == {
        "format": 2,
        "experiment": "demo/dice",
        "quick": False,
        "config": {"seed": 3, "precision": "double", "throws": 5, "faces": [6, 20]},
        "data": {},
    }
    assert read_json(folder.path / "environment.json")["seed"] == 3
    assert folder.dataset().attrs["experiment"] == "demo/dice"
    lines = [json.loads(line) for line in (folder.path / "history.jsonl").read_text().splitlines()]
    assert [(line["piece"], line["step"]) for line in lines] == [
        (f"die {n}", step) for n in (6, 20) for step in range(5)
    ]
    assert float(folder.dataset()["mean"].sel(faces=6)) == pytest.approx(
        np.mean([line["points"] for line in lines[:5]])
    )


@pytest.mark.slow
def test_the_same_seed_gives_the_same_numbers_and_another_seed_others(dice, tmp_path):
    first, second, other = (run(tmp_path / name, dice(), seed=seed) for name, seed in (("a", 0), ("b", 0), ("c", 1)))
    assert without_seconds(first).identical(without_seconds(second))
    assert not first.dataset().equals(other.dataset())


def test_an_interrupted_run_goes_on_where_it_was_and_its_seconds_are_those_of_both_legs(dice, tmp_path):
    class Interrupted(dice):
        legs: list[int] = []

        def thrown(self, config, faces, key, progress):
            self.legs.append(faces)
            time.sleep(0.3 if faces == 6 else 0.0)
            if self.legs == [6, 20]:
                raise KeyboardInterrupt
            return super().thrown(config, faces, key, progress)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "out", Interrupted())
    assert not (tmp_path / "out" / "result.nc").exists()
    started = time.perf_counter()
    resumed = run(tmp_path / "out", Interrupted())
    leg = time.perf_counter() - started
    assert Interrupted.legs == [6, 20, 20]
    assert not (tmp_path / "out" / "checkpoints").exists()
    assert 0.3 < resumed.dataset().attrs["seconds"] < 0.3 + leg + 5.0
    assert without_seconds(resumed).identical(without_seconds(run(tmp_path / "whole", dice())))


def test_a_result_that_could_not_be_drawn_is_not_computed_again(dice, tmp_path):
    class Blank(dice):
        computed, drawn = 0, 0

        def run(self, config, *, key, progress):
            Blank.computed += 1
            return super().run(config, key=key, progress=progress)

        def figures(self, dataset):
            Blank.drawn += 1
            if Blank.drawn == 1:
                raise OSError("no space left on device")
            return super().figures(dataset)

    with pytest.raises(OSError, match="no space"):
        run(tmp_path / "out", Blank())
    folder = RunFolder(tmp_path / "out", Blank(), Blank.Config())
    assert not folder.complete
    seconds = folder.dataset().attrs["seconds"]
    folder.execute()
    assert folder.complete
    assert Blank.computed == 1
    assert folder.dataset().attrs["seconds"] == seconds


def test_a_claim_that_is_not_a_number_ends_the_run_without_a_verdict(dice, tmp_path):
    """Also when the run is resumed, and when its report is made anew."""

    class Broken(dice):
        def thrown(self, config, faces, key, progress):
            dataset = super().thrown(config, faces, key, progress)
            return dataset.assign(mean=dataset["mean"].where(faces != 6).assign_attrs(may_be_missing=1))

        def figures(self, dataset):
            return {"dice": Figure()}

    def judged(folder: RunFolder) -> list[str | None]:
        claims = strict_json(folder.path / "claims.json")
        assert [claim["met"] for claim in claims] == [None, None, None]
        return [claim.get("no_verdict") for claim in claims]

    expected = ["not a number", "the baseline is not a number", None]
    folder = run(tmp_path / "out", Broken())
    assert folder.complete
    assert judged(folder) == expected
    page = (folder.path / "report.html").read_text()
    assert "no verdict: not a number" in page
    assert "no verdict: the baseline is not a number" in page
    (folder.path / "report.html").unlink()
    (folder.path / "claims.json").unlink()
    assert judged(run(folder.path, Broken())) == expected
    (folder.path / "claims.json").unlink()
    assert [claim.get("no_verdict") for claim in open_run(folder.path, {"demo/dice": Broken}).publish()] == expected
    assert judged(folder) == expected


def test_a_folder_of_another_run_is_refused_by_what_differs(dice, tmp_path):
    class Coins(dice):
        name = "demo/coins"

    run(tmp_path, dice(), throws=5)
    path = re.escape(repr(str(tmp_path)))
    with pytest.raises(
        UsageError, match=rf"^out is {path}, a run with another throws; choose another folder, or start"
    ):
        RunFolder(tmp_path, dice(), dice.Config(throws=6))
    with pytest.raises(UsageError, match="a run with another seed, faces;"):
        RunFolder(tmp_path, dice(), dice.Config(throws=5, seed=1, faces=(6,)))
    with pytest.raises(UsageError, match="a run with another quick;"):
        RunFolder(tmp_path, dice(), dice.Config(throws=5), quick=True)
    with pytest.raises(UsageError, match="a run of demo/dice; choose another folder for demo/coins"):
        RunFolder(tmp_path, Coins(), Coins.Config(throws=5))


def test_a_folder_that_is_no_run_is_refused_and_left_alone(dice, tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(UsageError, match="which holds other files; it must be new, empty, or a run"):
        RunFolder(tmp_path, dice(), dice.Config())
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(UsageError, match="which cannot be made: Not a directory"):
        RunFolder(tmp_path / "thesis.tex" / "out", dice(), dice.Config())


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize(
    "names",
    [
        ("config.json", "checkpoints/epoch-100.pt"),
        ("checkpoints/epoch-100.pt", "figures/photo.png"),
        ("result.nc",),
        ("manifest.json", "study.db"),
    ],
)
def test_files_that_only_have_the_names_of_a_runs_are_refused_and_left_alone(dice, tmp_path, names, fresh):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text('{"hidden_size": 768}')
    with pytest.raises(UsageError, match="which holds other files; it must be new, empty, or a run"):
        RunFolder(tmp_path, dice(), dice.Config(), fresh=fresh)
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()} == set(names)
    assert all((tmp_path / name).read_text() == '{"hidden_size": 768}' for name in names)


@pytest.mark.parametrize("fresh", [False, True])
def test_what_others_keep_in_the_folder_of_checkpoints_stays(dice, tmp_path, fresh):
    out = run(tmp_path / "out", dice(), throws=5).path
    precious, ours = out / "checkpoints" / "epoch-100.pt", out / "checkpoints" / "0123456789ab" / "state-1.eqx"
    for path in (precious, ours):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    (out / "claims.json").unlink()
    RunFolder(out, dice(), dice.Config(throws=5), fresh=fresh).execute()
    assert [path.name for path in (out / "checkpoints").iterdir()] == [precious.name]


@pytest.mark.slow
@pytest.mark.parametrize("lost", [("config.json",), ("config.json", "result.nc"), ("config.json", "manifest.json")])
def test_what_is_whole_proves_that_a_folder_is_a_run(dice, tmp_path, lost):
    folder = run(tmp_path / "out", dice(), throws=5)
    whole = without_seconds(folder)
    for name in lost:
        content = (folder.path / name).read_bytes()
        (folder.path / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(UsageError, match="a run with another throws;"):
        RunFolder(folder.path, dice(), dice.Config(throws=6))
    with pytest.warns(UserWarning, match="it is (made|written|computed) anew"):
        assert without_seconds(run(folder.path, dice(), throws=5)).identical(whole)
    assert {entry.name for entry in folder.path.iterdir()} == FILES


@pytest.mark.slow
def test_a_run_that_is_killed_while_it_is_discarded_is_still_a_run(dice, tmp_path, monkeypatch):
    """At every file that is removed: the same command goes on, and leaves the folder of an undisturbed run."""
    unlink = Path.unlink
    removed = 0

    def killed(path: Path, missing_ok: bool = False) -> None:
        nonlocal removed
        if path.exists() and not path.name.startswith("."):
            removed += 1
            if removed > kill_at:
                raise KeyboardInterrupt
        unlink(path, missing_ok=missing_ok)

    kill_at, ended = 0, False
    while not ended:
        out = run(tmp_path / str(kill_at), dice(), throws=5).path
        removed = 0
        with monkeypatch.context() as patch:
            patch.setattr(Path, "unlink", killed)
            try:
                RunFolder(out, dice(), dice.Config(throws=6), fresh=True).execute()
                ended = True
            except KeyboardInterrupt:
                pass
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is missing is named
            again = RunFolder(out, dice(), dice.Config(throws=6))
            again.execute()
        assert again.complete
        assert {entry.name for entry in out.iterdir()} == FILES
        kill_at += 1
    assert kill_at > 7


def test_a_figure_that_is_drawn_no_more_goes_and_a_strangers_stays(dice, tmp_path):
    class Twice(dice):
        def figures(self, dataset):
            return super().figures(dataset) | {"older": Figure()}

    figures = run(tmp_path / "out", Twice()).path / "figures"
    (figures / "mine.png").touch()
    assert (figures / "older.svg").exists()
    open_run(tmp_path / "out", {"demo/dice": dice}).publish()
    assert {path.name for path in figures.iterdir()} == {"dice.png", "dice.svg", "mine.png"}


def test_another_class_of_the_same_name_shares_no_pieces(dice, tmp_path):
    class Fair(dice):
        bonus = 0

        def thrown(self, config, faces, key, progress):
            return super().thrown(config, faces, key, progress) + self.bonus

    class Loaded(Fair):
        bonus = 100

    fair, loaded = run(tmp_path / "fair", Fair()).dataset(), run(tmp_path / "loaded", Loaded()).dataset()
    assert np.array_equal(loaded["mean"], fair["mean"] + 100)


def test_a_report_needs_no_file_of_data(dice, tmp_path):
    class Loaded(dice):
        class Config(dice.Config):
            csv: str | None = parameter(None, "a file")

            def data(self):
                return {} if self.csv is None else {"csv": Path(self.csv)}

            @model_validator(mode="after")
            def _is_there(self):
                if self.csv is not None and not Path(self.csv).exists():
                    raise ValueError(f"{self.csv} cannot be read")
                return self

    csv = tmp_path / "d.csv"
    csv.write_text("1\n")
    stored = read_sealed(run(tmp_path / "out", Loaded(), csv=str(csv)).path / "config.json")
    csv.unlink()
    folder = open_run(tmp_path / "out", {"demo/dice": Loaded})
    (folder.path / "report.html").unlink()
    folder.publish()
    assert folder.complete
    assert read_sealed(folder.path / "config.json") == stored


def test_data_are_read_again_where_they_may_have_changed_and_then_refused(dice, tmp_path, monkeypatch):
    csv, digested = tmp_path / "d.csv", []

    class Loaded(dice):
        class Config(dice.Config):
            csv: str = parameter("", "a file")
            edit: int = parameter(0, "after the die with so many faces the file is another one")

            def data(self):
                return {"csv": Path(self.csv)}

        def thrown(self, config, faces, key, progress):
            if faces == config.edit:
                csv.write_text("2\n")
            return super().thrown(config, faces, key, progress)

    def counted(path):
        digested.append(path)
        return digest_of_file(path)

    csv.write_text("1\n")
    monkeypatch.setattr("morphax.lab.run_folder._digest_of_any", counted)
    run(tmp_path / "out", Loaded(), csv=str(csv), faces=(4, 6, 8, 10, 12))
    assert len(digested) == 1  # of five pieces
    with pytest.raises(UsageError, match=r"csv \(.*d.csv\) has changed while the run went on; run again"):
        run(tmp_path / "other", Loaded(), csv=str(csv), faces=(4, 6, 20, 8), edit=20, throws=3)


def test_a_run_is_opened_with_its_own_numbers(dice, tmp_path):
    run(tmp_path / "out", dice(), throws=7)
    opened = open_run(tmp_path / "out", {"demo/dice": dice})
    assert opened.config == dice.Config(throws=7)
    with pytest.raises(UsageError, match="a run of 'demo/dice', which this installation lacks"):
        open_run(tmp_path / "out", {})
    with pytest.raises(UsageError, match=r"which is no run folder \(it holds no config.json\)"):
        open_run(tmp_path, {"demo/dice": dice})


def test_a_piece_that_is_not_finite_stops_the_run_and_the_pieces_before_it_stay(dice, tmp_path):
    class Loaded(dice):
        def thrown(self, config, faces, key, progress):
            dataset = super().thrown(config, faces, key, progress)
            return dataset * np.nan if faces == 20 else dataset

    with pytest.raises(RuntimeError, match="die 20: mean is not finite at its only value"):
        run(tmp_path / "out", Loaded())
    assert len(list((tmp_path / ".pieces").glob("*/*.nc"))) == 1
    assert not (tmp_path / "out" / "result.nc").exists()


def test_a_store_that_cannot_be_written_is_refused_before_anything_is_computed(dice, tmp_path):
    class Counted(dice):
        def run(self, config, *, key, progress):
            raise AssertionError("it was computed")

    (tmp_path / "store").touch()
    with pytest.raises(UsageError, match=r"pieces are kept in '.*store', which cannot be written"):
        RunFolder(tmp_path / "out", Counted(), dice.Config(), store=tmp_path / "store").execute()
