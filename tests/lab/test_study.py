"""Searches over configurations: repeatable where they are a run's own, shared where they are asked to be."""

import re
import sys
from pathlib import Path
from threading import Thread
from typing import Annotated
from unittest.mock import Mock

import jax
import numpy as np
import optuna
import pytest
import xarray as xr
from matplotlib.figure import Figure
from pydantic import Field

from morphax import BaseConfig, Experiment, parameter
from morphax.cli import main
from morphax.files import read_json, read_sealed, write_sealed
from morphax.lab import tune
from morphax.lab.environment import without_password
from morphax.lab.errors import UsageError
from morphax.lab.executor import Executor
from morphax.lab.lock import LostError
from morphax.lab.progress import Outcome, PiecesFailedError, Progress
from morphax.lab.run_folder import RunFolder, open_run
from morphax.lab.script import load_experiment
from morphax.lab.store import PieceStore
from morphax.lab.study import Goal, Study, read_entry
from morphax.lab.tune import Choice, Range, Shared, propose

BENCH = f"{Path(__file__).with_name('bench.py')}:Bench"


class Hill(Experiment):
    """A hill with its top at x = 2."""

    class Config(BaseConfig):
        x: float = parameter(0.0, "place", unit="m", ge=-10, le=10)
        size: int = parameter(1, "of a step", ge=1, le=100)
        method: str = parameter("plus", "of counting")
        steps: tuple[int, ...] = parameter((1,), "of the way up")
        most: int | None = parameter(None, "of something")
        least: Annotated[int, Field(ge=1)] | float | None = parameter(None, "of something")
        broken: float = parameter(99.0, "beyond which nothing works")

    name = "demo/hill"
    done: list[float] = []

    def run(self, config, *, key, progress):
        def height():
            self.done.append(config.x)
            if config.x > config.broken:
                raise RuntimeError("too far")
            return xr.Dataset({"height": ("kind", [-((config.x - 2) ** 2), 0.0])}, {"kind": ["a, b", "c"]})

        return progress.pieces({"height": height})["height"]

    def figures(self, dataset):
        return {"hill": Figure()}


SPACE = {"x": Range(-5.0, 5.0, log=False)}
GOAL = Goal.read("height[kind=a, b]")


@pytest.fixture(autouse=True)
def nothing_done():
    Hill.done.clear()


def searched(folder: Path, over=SPACE, *, goal=GOAL, trials=12, together=1, storage=None, **numbers) -> RunFolder:
    study = Study(Hill(), over, goal, trials=trials, together=together, folder=folder, storage=storage)
    ran = RunFolder(folder, study, Hill.Config(**numbers))
    ran.execute()
    return ran


@pytest.mark.slow
def test_a_study_finds_the_top_and_is_the_same_again(tmp_path):
    first = searched(tmp_path / "a" / "out", trials=25).dataset()
    best = first.isel(trial=int(np.argmax(first.value.values)))
    assert abs(best.x - 2) < 0.5
    assert first.x.attrs["units"] == "m"
    assert len(Hill.done) == 25
    again = searched(tmp_path / "a" / "again", trials=25).dataset()
    assert len(Hill.done) == 25  # all trials were there
    assert again.x.values.tolist() == first.x.values.tolist()
    claims = read_json(tmp_path / "a" / "out" / "claims.json")
    assert [claim["ours"] for claim in claims] == [float(best.value), float(best.x)]
    kept = optuna.load_study(study_name="demo/hill", storage=f"sqlite:///{tmp_path / 'a' / 'out' / 'study.db'}")
    assert [trial.value for trial in kept.trials] == first.value.values.tolist()


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_a_longer_study_goes_on_from_a_shorter_one_and_a_broken_file_is_written_anew(tmp_path):
    short = searched(tmp_path / "short", trials=6, together=3).dataset()
    Hill.done.clear()
    begun = read_sealed(tmp_path / "short" / "config.json")
    begun["study"]["trials"] = 9
    write_sealed(tmp_path / "long" / "config.json", begun)
    (tmp_path / "long" / "study.db").write_bytes(b"broken")
    long = searched(tmp_path / "long", trials=9, together=3).dataset()
    assert len(Hill.done) == 3
    assert long.x.values[:6].tolist() == short.x.values.tolist()
    kept = optuna.load_study(study_name="demo/hill", storage=f"sqlite:///{tmp_path / 'long' / 'study.db'}")
    assert len(kept.trials) == 9


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_trials_that_fail_have_no_value_and_the_others_go_on(tmp_path):
    dataset = searched(tmp_path / "out", broken=1.0).dataset()
    assert np.isnan(dataset.value[dataset.x > 1]).all()
    assert np.isfinite(dataset.value[dataset.x <= 1]).all()
    assert 0 < (dataset.x > 1).sum() < 12


def test_what_fails_around_the_trials_is_no_failed_trial(tmp_path):
    study = Study(Hill(), SPACE, GOAL, trials=3, folder=tmp_path)
    for error in (LostError("taken over"), OSError(1, "not permitted"), UsageError("csv has changed")):
        Hill.done.clear()
        with pytest.raises(type(error), match=re.escape(str(error))):
            study.run(Hill.Config(), key=jax.random.key(0), progress=Progress(before_keeping=Mock(side_effect=error)))
        assert len(Hill.done) == 1


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_a_store_that_cannot_be_written_ends_the_study(tmp_path, monkeypatch):
    monkeypatch.setattr(PieceStore, "keep", Mock(side_effect=OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        searched(tmp_path / "out")
    assert len(Hill.done) == 1


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_a_study_whose_trials_all_failed_is_not_complete(tmp_path):
    with pytest.raises(PiecesFailedError, match=r"3 of 3 trials failed.*trial 0: too far"):
        searched(tmp_path / "out", trials=3, broken=-99.0)
    assert not open_run(tmp_path / "out", {"demo/hill": Hill}).complete


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_a_trial_without_the_place_has_no_value(tmp_path):
    class Steps(Hill):
        def run(self, config, *, key, progress):
            return xr.Dataset({"height": ("k", np.arange(config.size) * 1.0)}, {"k": np.arange(config.size)})

    def searching(place: int) -> xr.Dataset:
        goal = Goal.read(f"height[k={place}]")
        study = Study(Steps(), {"size": Range(2, 8, False, True)}, goal, trials=8, folder=tmp_path)
        return study.run(Hill.Config(), key=jax.random.key(0), progress=Progress())

    table = searching(3)
    assert np.isnan(table.value.values).tolist() == (table["size"] <= 3).values.tolist()
    assert 0 < (table["size"] <= 3).sum() < 8
    with pytest.raises(UsageError, match="height has no place k=99"):
        searching(99)


def test_a_trial_that_fails_before_its_pieces_fails_alike_with_workers(tmp_path):
    class Early(Hill):
        def run(self, config, *, key, progress):
            if config.x > 1:
                raise RuntimeError("no such place")
            return super().run(config, key=key, progress=progress)

    def elsewhere(wanted, tell):
        for place, (_, label) in enumerate(wanted):
            yield place, Outcome(label, xr.Dataset({"height": ("kind", [1.0])}, {"kind": ["a, b"]}), {}, 0, frozenset())

    study = Study(Early(), SPACE, GOAL, trials=6, together=3, folder=tmp_path)
    table = study.run(Hill.Config(), key=jax.random.key(0), progress=Progress(elsewhere=elsewhere))
    assert np.isnan(table.value.values).tolist() == (table.x > 1).values.tolist()
    assert 0 < (table.x > 1).sum() < 6


def test_other_data_are_refused(tmp_path):
    class Read(Hill):
        class Config(Hill.Config):
            csv: str | None = parameter(None, "file of data")

            def data(self) -> dict[str, Path | str]:
                return {} if self.csv is None else {"csv": Path(self.csv)}

    study = Study(Read(), {"csv": Choice(("a.csv", "b.csv"))}, GOAL, trials=1, folder=tmp_path)
    with pytest.raises(UsageError, match="over is csv, a file of data; all trials have the same data"):
        study.check_ends(Read.Config())


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_a_study_is_made_anew_from_its_folder(tmp_path):
    ran = searched(tmp_path / "out", {**SPACE, "method": Choice(("plus", "minus")), "size": Range(1, 9, False, True)})
    again = open_run(tmp_path / "out", {"demo/hill": Hill})
    assert again.request == ran.request
    assert again.publish() == read_json(tmp_path / "out" / "claims.json")
    assert set(np.unique(again.dataset().method)) <= {"plus", "minus"}
    assert again.dataset()["size"].dtype.kind == "i"


def recorded(folder: Path) -> list[tuple[dict, float | None]]:
    kept = optuna.load_study(study_name="demo/hill", storage=f"sqlite:///{folder / 'study.db'}")
    return [(trial.params, trial.value) for trial in kept.trials]


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_a_record_that_is_gone_or_damaged_is_written_anew_from_the_result(tmp_path):
    over = {**SPACE, "steps": Choice(([1], [2, 3])), "method": Choice(("plus", "minus")), "most": Choice((None, 3))}
    ran = searched(tmp_path, over, trials=6, together=2)
    before, file = recorded(tmp_path), tmp_path / "study.db"
    assert {params["steps"] for params, _ in before} <= {"[1]", "[2, 3]"}
    file.unlink()
    open_run(tmp_path, {"demo/hill": Hill}).publish()
    assert recorded(tmp_path) == before
    content = file.read_bytes()
    for start in range(4096, len(content), 4096):  # page by page
        file.write_bytes(content[:start] + bytes(4096) + content[start + 4096 :])
        ran.experiment.exports(ran.dataset())
        assert recorded(tmp_path) == before


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_a_report_is_made_without_optuna(tmp_path, monkeypatch):
    searched(tmp_path, trials=2)
    claims = read_json(tmp_path / "claims.json")
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert open_run(tmp_path, {"demo/hill": Hill}).publish() == claims


def test_a_failed_trial_that_is_tried_again_is_recorded_as_finished(tmp_path):
    class Repaired(Hill):
        works = False

        def run(self, config, *, key, progress):
            if config.x > 2 and not self.works:
                raise RuntimeError("out of order")
            return super().run(config, key=key, progress=progress)

    study = Study(Repaired(), SPACE, GOAL, trials=4, together=4, folder=tmp_path)
    study.run(Hill.Config(), key=jax.random.key(0), progress=Progress())
    assert None in [value for _, value in recorded(tmp_path)]
    Repaired.works = True
    table = study.run(Hill.Config(), key=jax.random.key(0), progress=Progress())
    assert [value for _, value in recorded(tmp_path)] == table.value.values.tolist()


@pytest.mark.slow
def test_texts_with_dollar_signs_are_drawn(tmp_path):
    searched(tmp_path, {"method": Choice((r"$\frac$", "b"))}, trials=3)
    assert (tmp_path / "figures" / "study.png").exists()


def test_lists_are_chosen_from_and_numbers_are_whole_where_a_field_takes_no_others():
    assert read_entry("steps=[1],[2,3]", Hill.Config) == ("steps", Choice(([1], [2, 3])))
    assert read_entry("most=1:5", Hill.Config) == ("most", Range(1, 5, False, True))
    assert read_entry("least=1:5", Hill.Config) == ("least", Range(1, 5, False, False))
    with pytest.raises(UsageError, match="two or more different values"):
        read_entry("steps=[1],[1]", Hill.Config)


def test_proposals_depend_on_what_was_finished_and_on_nothing_else():
    batches = [propose(SPACE, [], 3, seed=1) for _ in range(2)]
    assert batches[0] == batches[1]
    assert len({settings["x"] for settings in batches[0]}) == 3
    assert propose(SPACE, [], 3, seed=2) != batches[0]


@pytest.mark.slow
def test_two_runs_share_a_study(tmp_path):
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    names = [tmp_path / name / "out" for name in "ab"]
    threads = [Thread(target=searched, args=(name,), kwargs={"storage": url, "trials": 6}) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tables = [open_run(name, {"demo/hill": Hill}).dataset() for name in names]
    assert all(table.sizes["trial"] >= 6 for table in tables)
    assert len(Hill.done) in (6, 7)  # both may begin the last one
    assert "cannot be repeated" in (names[0] / "report.html").read_text()


@pytest.mark.slow
def test_runs_that_share_a_study_do_not_propose_the_same(tmp_path):
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    one, other = (Shared(url, "demo", SPACE, "maximize") for _ in range(2))
    assert one.study.ask(one.distributions).params != other.study.ask(other.distributions).params


@pytest.mark.slow
@pytest.mark.parametrize("signs", [0, 1])
def test_a_trial_whose_process_ended_is_tried_again(tmp_path, monkeypatch, signs):
    monkeypatch.setattr(tune, "HEARTBEAT", 1)
    monkeypatch.setattr(tune, "GRACE", 2)
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    dead = Shared(url, "demo", SPACE, "maximize")
    trial = dead.study.ask(dead.distributions)
    for _ in range(signs):
        dead.storage.record_heartbeat(trial._trial_id)
    tried, said = [], []

    def evaluate(first, several) -> list[float | None]:
        tried.extend(settings["x"] for settings in several)
        return [0.0] * len(several)

    living = Shared(url, "demo", SPACE, "maximize")
    living.work(2, 1, evaluate, said.append)
    assert said == ["waiting for 1 trial of other runs; what gives no sign of life for 2 s is tried again"]
    assert trial.params["x"] in tried
    assert len(living.finished) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x", "it must be KEY=LOW:HIGH"),
        ("y=1:2", "--over y is unknown"),
        ("x=2:1", "with LOW < HIGH"),
        ("x=-1:1:log", "LOW > 0 on a logarithmic scale"),
        ("x=0:1:lin", "it must be KEY=LOW:HIGH"),
        ("size=1:2.5", "size takes whole numbers"),
        ("x=1", "two or more different values"),
    ],
)
def test_bad_ranges_are_refused(text, message):
    with pytest.raises(UsageError) as refused:
        read_entry(text, Hill.Config)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("numbers", "message"), [({"trials": 0}, "trials is 0"), ({"trials": 1, "together": 0}, "parallel-trials is 0")]
)
def test_bad_numbers_are_refused(tmp_path, numbers, message):
    with pytest.raises(UsageError, match=message):
        Study(Hill(), SPACE, GOAL, folder=tmp_path, **numbers)


def test_what_no_configuration_takes_or_no_result_has_is_refused(tmp_path):
    study = Study(Hill(), {"x": Range(0.0, 20.0, log=False)}, GOAL, trials=1, folder=tmp_path)
    with pytest.raises(UsageError, match=r"over is x=20.0; x is 20.0; it must be less than or equal to 10"):
        study.check_ends(Hill.Config())
    with pytest.raises(UsageError, match=re.escape("maximise is 'height[kind]'")):
        Goal.read("height[kind]")
    dataset = xr.Dataset({"height": ("kind", [1.0])}, {"kind": ["a"]})
    with pytest.raises(UsageError, match="there is no variable 'heigth' to judge by; did you mean 'height'"):
        Goal.read("heigth").value(dataset)
    with pytest.raises(UsageError, match="height has no place kind=b; kind is a"):
        Goal.read("height[kind=b]").value(dataset)


def test_passwords_are_not_written_down():
    assert without_password("postgresql+psycopg://me:secret@host/db") == "postgresql+psycopg://me:***@host/db"
    assert without_password("postgresql://me:p@ss@host/db") == "postgresql://me:***@host/db"
    assert without_password("postgresql://me@host/db?password=secret&a=b") == "postgresql://me@host/db?password=***&a=b"
    assert without_password("sqlite:///here.db") == "sqlite:///here.db"


def test_a_database_whose_driver_is_missing_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    message = r"storage is 'postgresql://me:\*\*\*@host/db', .* its driver is not installed.*morphax\[tune\]"
    with pytest.raises(UsageError, match=message):
        Shared("postgresql://me:secret@host/db", "demo", SPACE, "maximize")


@pytest.mark.slow
def test_the_command_searches(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert (
        main(["tune", BENCH, "--maximise", "x", "--over", "seed=0:9", "--trials", "3", "--parallel-trials", "2"]) == 0
    )
    assert "largest x" in capsys.readouterr().out
    assert main(["tune", BENCH, "--maximise", "x", "--over", "seed=0:9", "--trials", "many"]) == 2


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_workers_try_what_a_serial_study_tries(tmp_path):
    bench, tables = load_experiment(BENCH), []
    with Executor(2) as executor:
        for name, workers in (("a", None), ("b", executor)):
            folder, over = tmp_path / name / "out", {"seed": Range(0, 99, False, True)}
            study = Study(bench(), over, Goal.read("x"), trials=6, together=3, folder=folder)
            ran = RunFolder(folder, study, bench.Config(), executor=workers)
            ran.execute()
            tables.append(ran.dataset())
    assert tables[0].seed.identical(tables[1].seed)
    assert tables[0].value.identical(tables[1].value)
