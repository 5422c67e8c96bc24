import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_diabetes, load_wine
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import StratifiedKFold, cross_val_score
from tests.estimators import leaky
from threadpoolctl import threadpool_info

from morphax.cli import main
from morphax.estimators import ReservoirClassifier
from morphax.experiments.tables._data import labelled
from morphax.files import read_dataset

WINE: Any = load_wine()


def written(path: Path, columns: list[str], rows: object) -> str:
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(columns)
        table.writerows(rows)  # pyright: ignore[reportArgumentType]
    return str(path)


@pytest.fixture
def wine(tmp_path: Path) -> str:
    return written(
        tmp_path / "wine.csv", [*WINE.feature_names, "grape"], np.column_stack([WINE.data, WINE.target]).tolist()
    )


def rows_of(path: Path) -> list[list[str]]:
    return list(csv.reader(path.read_text().splitlines()))


def fit(*arguments: str, folder: Path) -> int:
    return main(["fit", *arguments, "--quick", "--out", str(folder)])


@pytest.mark.slow
def test_a_table_is_fitted_reported_and_further_rows_are_foretold(tmp_path, wine, capsys):
    settings = ("--set", "damping_rate=0.8", "--set", "readings=last")
    assert fit(wine, "--target", "grape", *settings, folder=tmp_path / "run") == 0
    said = capsys.readouterr().out
    assert "spin-torque damping_rate=0.8 readings=last on wine.csv" in said
    assert "0.399 by guessing" in said
    assert main(["report", str(tmp_path / "run")]) == 0
    out = tmp_path / "said.csv"
    assert main(["predict", str(tmp_path / "run"), wine, "--out", str(out)]) == 0
    rows = rows_of(out)
    assert rows[0] == ["grape"]
    assert np.mean([int(float(row[0])) for row in rows[1:]] == WINE.target) > 0.97
    left_out = rows_of(tmp_path / "run" / "foretold.csv")
    assert 0.9 < np.mean([a == b for a, b in left_out[1:]]) < 1


@pytest.mark.slow
def test_scores_are_those_of_scikit_learn(tmp_path, wine):
    assert fit(wine, "--target", "grape", "--device", "relu", folder=tmp_path / "run") == 0
    found = read_dataset(tmp_path / "run" / "result.nc")
    folds = StratifiedKFold(3, shuffle=True, random_state=0)
    reservoir = ReservoirClassifier("relu", arrangement="held", random_state=0)
    np.testing.assert_allclose(
        found.score.sel(model="device", seed=0), cross_val_score(reservoir, WINE.data, WINE.target, cv=folds)
    )


@pytest.mark.slow
def test_trees_of_a_small_table_grow_in_one_thread(tmp_path, wine, monkeypatch):
    """Several wait for one another all the time: beside other work, minutes for a second."""
    threads = []

    def grown(self: Any, *arguments: Any) -> Any:
        threads.extend(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "openmp")
        return fitted(self, *arguments)

    fitted = HistGradientBoostingClassifier.fit
    monkeypatch.setattr(HistGradientBoostingClassifier, "fit", grown)
    assert fit(wine, "--target", "grape", "--device", "relu", folder=tmp_path / "out") == 0
    assert set(threads) == {1}


@pytest.mark.slow
def test_numbers_are_foretold_by_what_is_trained(tmp_path):
    data: Any = load_diabetes()
    y = data.target
    table = written(tmp_path / "table.csv", [*"abcdefghij", "progress"], np.column_stack([data.data, y + 0.5]).tolist())
    asked = (table, "--target", "progress", "--device", "ctrnn", "--set", "steps=100", "--set", "neurons=16")
    assert fit(*asked, folder=tmp_path / "run") == 0
    found = read_dataset(tmp_path / "run" / "result.nc")
    assert found.measure == "coefficient of determination"
    assert float(found.score.sel(model="device").mean()) > 0.3
    out = tmp_path / "said.csv"
    assert main(["predict", str(tmp_path / "run"), table, "--out", str(out)]) == 0
    said = [float(row[0]) for row in rows_of(out)[1:]]
    assert np.corrcoef(said, y)[0, 1] > 0.6


def test_texts_and_few_whole_numbers_are_classes(tmp_path):
    def kind(values: list[object], task: str = "auto") -> str:
        table = written(tmp_path / "t.csv", ["x", "y"], list(enumerate(values)))
        return labelled(table, "y", task).kind

    assert kind(["a", "b"] * 20) == kind([1, 2] * 20) == kind([1.5, 2.5] * 20, "classification") == "classification"
    assert kind([1.5, 2.5] * 20) == kind(list(range(40))) == kind([1, 2] * 20, "regression") == "regression"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--target", "graep"), "column is 'graep', which wine.csv does not have; did you mean 'grape'?"),
        (("--target", "grape", "--cv", "90"), "cv is 90, but class '2.0' has 48 members"),
        (("--target", "grape", "--set", "key=3"), "settings holds 'key=3', which --seeds says"),
        (("--target", "grape", "--set", "kind=relu"), "settings holds 'kind=relu', which --device says"),
        (("--target", "grape", "--set", "encoding=unity"), "encoding is 'unity'"),
        (("--target", "grape", "--set", "neurons=20,30"), "neurons is (20, 30); behind a readout there is one"),
        (
            ("--target", "grape", "--device", "phase-oscillators", "--set", "arrangement=sequence"),
            'arrangement is "sequence", but PhaseOscillators takes its input at once',
        ),
        (("--target", "alcohol", "--cv", "30"), "cv is 30; 178 rows are too few, for a fold must have 10 at least"),
        (("--target", "grape", "--device", "broken.py:broken"), "which gives no device: ZeroDivisionError"),
        (("--target", "grape", "--device", "ekko-state"), "did you mean 'echo-state'?"),
        (("--target", "grape", "--set", "damping=1"), "unexpected keyword argument 'damping'"),
        (("--target", "grape", "--set", "readings=0"), "readings is 0; it must be a whole number >= 1"),
        (
            ("--target", "grape", "--task", "sort"),
            "task is 'sort'; it must be 'auto', 'classification'",
        ),
    ],
)
def test_what_is_asked_wrongly_is_refused_in_a_line(tmp_path, wine, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    Path("broken.py").write_text("def broken(neurons, channels, key):\n    return 1 / 0\n")
    assert fit("wine.csv", *arguments, folder=tmp_path / "run") == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[1, "a"], ["", "b"]] * 9, "column 'x' misses 9 of 18 values"),
        ([[1, "a"], ["red", "b"], [2, "b"]] * 9, "column 'x' holds 'red' in row 3"),
        ([[1, "a"], [2, ""]] * 9, "column 'y' misses 9 of 18 values"),
        ([[1, "a"]] * 9, "the target has 1 class, 'a'"),
        ([[1, "a"]] * 9 + [[2, "b"]], "class 'b' has 1 member;"),
        ([], "0 rows are too few"),
        ([[1, 1.5], [2, 1.5]] * 20, "the target is 1.5 in every row"),
        ([[1e200, "a"], [2, "b"]] * 20, "column 'x' holds a number of size 1e+200"),
    ],
)
def test_a_table_with_gaps_or_words_is_refused_in_a_line(tmp_path, capsys, rows, message):
    assert fit(written(tmp_path / "t.csv", ["x", "y"], rows), "--target", "y", folder=tmp_path / "run") == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_one_class_may_be_written_in_several_ways(tmp_path):
    def classes(values: list[object]) -> set[str]:
        return set(labelled(written(tmp_path / "t.csv", ["x", "y"], list(enumerate(values))), "y", "auto").targets)

    assert classes(["0", "0.0", "1", "1.00"] * 9) == {"0", "1"}
    assert classes(["007", "1"] * 9) == {"007", "1"}  # as they are written, where that is one each


@pytest.mark.slow
def test_further_rows_need_the_same_columns(tmp_path, wine, capsys):
    assert main(["predict", str(tmp_path), wine]) == 2
    assert "holds no model.morphax" in capsys.readouterr().err
    assert fit(wine, "--target", "gra*", "--device", "relu", folder=tmp_path / "run") == 0
    assert rows_of(tmp_path / "run" / "foretold.csv")[0] == ["grape", "foretold"]
    capsys.readouterr()
    other = written(tmp_path / "other.csv", WINE.feature_names[:-1], WINE.data[:, :-1].tolist())
    run = str(tmp_path / "run")
    assert main(["predict", run, other, "--out", str(tmp_path / "said.csv")]) == 2
    assert "column is 'proline', which" in capsys.readouterr().err
    assert main(["predict", run, wine, "--out", wine]) == 2
    assert "the file with the rows; write to another one" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("device", ["device.py:integrators", "device.py:twenty"])
def test_a_device_of_ones_own_is_fitted_from_its_file(tmp_path, wine, monkeypatch, device):
    monkeypatch.chdir(tmp_path)
    shutil.copy(leaky.__file__, "device.py")
    assert fit("wine.csv", "--target", "grape", "--device", device, folder=Path("run")) == 0
    assert float(read_dataset(Path("run/result.nc")).score.sel(model="device").mean()) > 0.9
    assert main(["predict", "run", "wine.csv"]) == 0
