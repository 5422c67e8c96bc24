"""Sweeps: one dataset with the swept axes, whose points are runs, and share their pieces."""

from pathlib import Path
from unittest.mock import Mock

import jax
import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure

from morphax import BaseConfig, Claim, Experiment, parameter
from morphax.cli import main
from morphax.experiments.josephson.forecast import Forecast
from morphax.files import read_json
from morphax.lab.compare import Comparison, read_runs
from morphax.lab.errors import UsageError
from morphax.lab.executor import Executor
from morphax.lab.lock import LostError
from morphax.lab.progress import Progress
from morphax.lab.run_folder import RunFolder, open_run
from morphax.lab.script import load_experiment
from morphax.lab.sweep import Sweep, over_folder, read_axis

BENCH = f"{Path(__file__).with_name('bench.py')}:Bench"


class Line(Experiment):
    """A line through sizes."""

    class Config(BaseConfig):
        slope: float = parameter(1.0, "of the line", unit="V/m", ge=-10, le=10)
        largest: int = parameter(3, "largest size", ge=1)
        method: str = parameter("plus", "of rounding")
        csv: str | None = parameter(None, "file of data")

        def data(self) -> dict[str, Path | str]:
            return {} if self.csv is None else {"csv": Path(self.csv)}

    name = "demo/line"
    claims = (
        Claim.at_least("grows", 0.0, lambda d: d.y.isel(size=-1).mean(), source="ours"),
        Claim.reported("points", lambda d: d.sizes["size"], source="ours"),
    )
    done: list[tuple[float, int]] = []

    def run(self, config, *, key, progress):
        def size(n):
            self.done.append((config.slope, n))
            progress.record("fit", [{"loss": n}])
            return xr.Dataset({"y": ("seed", [config.slope * n, config.slope * n + 1])})

        parts = progress.pieces({f"size {n}": lambda n=n: size(n) for n in range(1, config.largest + 1)})
        return xr.concat(list(parts.values()), xr.Variable("size", np.arange(1, config.largest + 1)))

    def figures(self, dataset):
        return {"line": Figure()}


class Named(Experiment):
    """Numbers, flags, texts and coordinates of things that have names."""

    class Config(BaseConfig):
        names: tuple[int, ...] = parameter((3, 1), "of the things")
        steps: int = parameter(3, "of the loss", ge=1)
        noise: float = parameter(0.1, "of everything")
        most: int | None = parameter(None, "of something")

    name = "demo/named"
    claims = (
        Claim.reported("first", lambda d: d.number[0], source="ours"),
        Claim.reported("size", lambda d: d.number.size, source="ours"),
        Claim.reported("not flagged", lambda d: (~d.flag).sum(), source="ours"),
        Claim.reported("last letter", lambda d: ord(str(d.text.values[-1])), source="ours"),
        Claim.reported("steps", lambda d: d.loss.size, source="ours"),
    )

    def run(self, config, *, key, progress):
        names = np.array(config.names)

        def numbers():
            return xr.Dataset(
                {
                    "number": ("name", np.where(names == 2, np.nan, names), {"may_be_missing": 1}),
                    "flag": ("name", names > 1),
                    "text": ("name", [chr(96 + n) for n in names]),
                    "loss": ("step", np.arange(config.steps) * config.noise),
                },
                {"name": names, "noise": config.noise, "square": ("name", names**2), "rate": 1 / config.steps},
            )

        return progress.pieces({"numbers": numbers})["numbers"]

    def figures(self, dataset):
        return {}


@pytest.fixture(autouse=True)
def nothing_done():
    Line.done.clear()


def swept(folder: Path, over, **numbers) -> RunFolder:
    ran = RunFolder(folder, Sweep(Line(), over), Line.Config(**numbers))
    ran.execute()
    return ran


@pytest.mark.slow
def test_a_sweep_is_the_runs_at_its_points(tmp_path):
    ran = swept(tmp_path / "sweep", {"slope": [1.0, -2.0], "largest": [2, 3]})
    dataset = ran.dataset()
    assert dataset.y.dims == ("slope", "largest", "size", "seed")
    assert dataset.slope.attrs["units"] == "V/m"
    assert np.isnan(dataset.y.sel(largest=2, size=3)).all()
    for slope in (1.0, -2.0):
        alone = RunFolder(tmp_path / f"at {slope}", Line(), Line.Config(slope=slope))
        alone.execute()
        assert dataset.y.sel(slope=slope, largest=3).values.tolist() == alone.dataset().y.values.tolist()
    assert len(Line.done) == 2 * 5 + 0  # of the runs at its points nothing was computed again
    claims = read_json(tmp_path / "sweep" / "claims.json")
    assert [claim["met"] for claim in claims if claim["claim"] == "grows"] == [True, True, False, False]
    assert [claim["ours"] for claim in claims if claim["claim"] == "points"] == [2, 3, 2, 3]
    assert claims[1]["at"] == {"slope": 1.0, "largest": 3}
    rows = (tmp_path / "sweep" / "history.jsonl").read_text().splitlines()
    assert rows[2] == '{"piece": "slope=1, largest=3: fit", "step": 0, "loss": 1}'
    assert {path.name for path in (tmp_path / "sweep" / "figures").iterdir()} == {
        f"{name}.{kind}" for name in ("claims", "y") for kind in ("png", "svg")
    }


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_a_finer_sweep_computes_what_is_new(tmp_path):
    swept(tmp_path / "coarse", {"slope": [0.0, 1.0]})
    Line.done.clear()
    dataset = swept(tmp_path / "fine", {"slope": [0.0, 0.5, 1.0]}).dataset()
    assert {slope for slope, _ in Line.done} == {0.5}
    assert dataset.y.sel(slope=0.5, size=2).values.tolist() == [1.0, 2.0]


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_claims_and_figures_are_made_anew_from_the_folder(tmp_path):
    ran = swept(tmp_path / "sweep", {"slope": [1.0, 2.0]})
    before = read_json(tmp_path / "sweep" / "claims.json")
    again = open_run(tmp_path / "sweep", {"demo/line": Line})
    assert again.publish() == before
    assert again.request == ran.request
    with pytest.raises(UsageError, match="a run with another over"):
        RunFolder(tmp_path / "sweep", Sweep(Line(), {"slope": [1.0]}), Line.Config())
    with pytest.raises(UsageError, match="a run with another over"):
        RunFolder(tmp_path / "sweep", Line(), Line.Config())


@pytest.mark.slow
def test_seeds_texts_and_names_that_are_taken_are_swept(tmp_path):
    dataset = swept(tmp_path / "a", {"seed": [3, 4], "method": ["plus", "minus"]}, largest=1).dataset()
    assert dataset.y.dims == ("swept_seed", "method", "size", "seed")
    assert dataset.method.values.tolist() == ["plus", "minus"]
    assert len(list((tmp_path / "a" / "figures").glob("*.png"))) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("slope", "it must be KEY=START:STOP:N"),
        ("slop=1,2", "--over slop is unknown; did you mean 'slope'?"),
        ("slope=0:1", "it must be KEY=START:STOP:N"),
        ("slope=0:1:3:lin", "only :log may stand"),
        ("slope=0:1:1", "N from 2 to"),
        ("slope=0:inf:3", "must be finite"),
        ("slope=0:1:3:log", "equal ratios need START and STOP > 0"),
        ("largest=1:2:3", "largest takes whole numbers, and 1.5 is none"),
    ],
)
def test_bad_axes_are_refused(text, message):
    with pytest.raises(UsageError) as refused:
        read_axis(text, Line.Config)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("over", "message"),
    [
        ({}, "over is empty"),
        ({"slop": [1]}, "over slop is unknown"),
        ({"slope": [1.0, 1.0]}, "over slope is 1.0, 1.0; it must be one or more different values"),
        ({"slope": []}, "over slope is empty"),
        ({"slope": list(range(400)), "seed": list(range(400))}, "160000 points; it must have at most 100000"),
    ],
)
def test_bad_sweeps_are_refused(over, message):
    with pytest.raises(UsageError) as refused:
        Sweep(Line(), over)
    assert message in str(refused.value)


def test_points_that_no_configuration_takes_are_refused_before_anything_is_computed():
    with pytest.raises(UsageError, match=r"over is slope=20; slope is 20.0; it must be less than or equal to 10"):
        Sweep(Line(), {"slope": [1.0, 20.0]}).points(Line.Config())


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    "over",
    [
        {"names": [[3, 1], [3, 2]]},
        {"steps": [3, 5]},
        *(
            pytest.param(over, marks=pytest.mark.slow)
            for over in (
                {"names": [[3, 1], [4, 3, 1]], "noise": [0.1, 0.2]},
                {"noise": [0.1, 0.2]},
                {"names": [[1], [2]], "steps": [2, 3], "seed": [0, 1]},
            )
        ),
    ],
)
def test_every_point_is_the_run_there(tmp_path, over):
    sweep = Sweep(Named(), over)
    ran = RunFolder(tmp_path / "sweep", sweep, Named.Config())
    claims = ran.execute()
    for number, point in enumerate(sweep.points(Named.Config())):
        alone = RunFolder(tmp_path / str(number), Named(), point.config)
        at_point = claims[number :: len(claims) // len(Named.claims)]
        assert [claim["ours"] for claim in at_point] == [claim["ours"] for claim in alone.execute()]
        part = list(sweep._at_every_point(ran.dataset()))[number][1]
        assert part.equals(alone.dataset())
        assert {name: v.dtype.kind for name, v in part.variables.items()} == {
            name: v.dtype.kind for name, v in alone.dataset().variables.items()
        }
    assert open_run(tmp_path / "sweep", {"demo/named": Named}).publish() == claims


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_places_stay_in_their_order_and_what_is_missing_is_not_a_number(tmp_path):
    ran = RunFolder(tmp_path / "a", Sweep(Named(), {"names": [[3, 1], [3, 2]]}), Named.Config())
    ran.execute()
    dataset = ran.dataset()
    assert dataset.name.values.tolist() == [3, 1, 2]
    assert dataset.square.values.tolist() == [9, 1, 4]
    assert dataset.text.values.tolist() == [["c", "a", ""], ["c", "", "b"]]
    assert np.isnan(dataset.number.values).tolist() == [[False, False, True], [False, True, True]]


class Odd(Line):
    """A variable of the name of a figure, and one along texts."""

    name = "demo/odd"
    claims = (Claim.reported(r"costs $\frac$", lambda d: d.claims, source="ours"),)

    def run(self, config, *, key, progress):
        return xr.Dataset({"claims": config.slope, "x": ("kind", [1.0, 2.0])}, {"kind": [r"$\frac$", "b"]})


@pytest.mark.slow
@pytest.mark.parametrize("others", [{}, {"slope": [1.0, 2.0]}])
def test_names_with_dollar_signs_are_drawn_and_figures_keep_apart(tmp_path, others):
    over = {"method": [r"$\frac$", "b"], **others}
    RunFolder(tmp_path / "a", Sweep(Odd(), over), Odd.Config()).execute()
    assert {path.stem for path in (tmp_path / "a" / "figures").iterdir()} == {"claims", "variable claims", "x"}


def test_files_of_data_are_not_swept(tmp_path):
    (tmp_path / "data.csv").write_text("1")
    files = [str(tmp_path / "data.csv"), str(tmp_path / "other.csv")]
    for centre in (files[0], None):
        with pytest.raises(UsageError, match="over is csv, a file of data; a sweep has the same data at all points"):
            Sweep(Line(), {"csv": [*files, None]}).points(Line.Config(csv=centre))


def test_other_data_are_refused_before_anything_is_computed():
    class Lines(Line):
        class Config(Line.Config):
            def data(self) -> dict[str, Path | str]:
                return {"table": f"of {self.method}"}

    with pytest.raises(UsageError, match=r"over is method=minus, which changes the data \(table\)"):
        Sweep(Lines(), {"method": ["plus", "minus"]}).points(Lines.Config())


def test_what_the_configuration_refuses_by_itself_is_told_in_one_line():
    forecast = Forecast()
    with pytest.raises(UsageError) as refused:
        Sweep(forecast, {"csv": ["none.csv", "nothing.csv"]}).points(forecast.Config())
    assert (
        str(refused.value) == "over is csv=none.csv; csv is 'none.csv', which cannot be read: No such file or directory"
    )


def test_what_fails_around_the_points_ends_the_sweep():
    lost = Progress(before_keeping=Mock(side_effect=LostError("taken over")))
    with pytest.raises(LostError):
        Sweep(Line(), {"slope": [1.0, 2.0]}).run(Line.Config(largest=1), key=jax.random.key(0), progress=lost)
    assert len(Line.done) == 1


def test_axes_are_read_as_people_write_them():
    assert read_axis("slope=0:0.3:4", Line.Config) == ("slope", [0.0, 0.1, 0.2, 0.3])
    assert read_axis("method=plus,minus", Line.Config) == ("method", ["plus", "minus"])
    assert read_axis('method="a:b"', Line.Config) == ("method", ["a:b"])
    assert read_axis("csv=null", Line.Config) == ("csv", [None])
    assert read_axis("csv=a[1,2].csv,b", Line.Config) == ("csv", ["a[1,2].csv", "b"])
    assert read_axis("names=[3,1],[3,2]", Named.Config) == ("names", [[3, 1], [3, 2]])
    assert read_axis("names=[[3,1],[3,2]]", Named.Config) == ("names", [[3, 1], [3, 2]])
    assert read_axis("steps=[3,5]", Named.Config) == ("steps", [3, 5])
    _, values = read_axis("most=100:1000:3", Named.Config)
    assert [repr(value) for value in values] == ["100", "550", "1000"]


def test_other_sweeps_have_other_folders():
    folder = Path("runs/demo/line/full")
    names = {over_folder(folder, list(over), over).name for over in ({"slope": [1]}, {"slope": [1, 2]}, {"seed": [1]})}
    assert len(names) == 3
    assert all(name.startswith("full-sweep-") for name in names)


@pytest.mark.slow
def test_the_command_sweeps_and_shows_a_row_for_each_claim(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["sweep", BENCH, "--set", "count=2", "--over", "seed=0:2:3"]) == 0
    assert "full-count=2-sweep-seed" in capsys.readouterr().out
    (folder,) = Path("runs/demo/bench").iterdir()
    assert RunFolder(folder, *_asked(folder)).dataset().x.sizes == {"seed": 3, "piece": 2, "place": 3}


def _asked(folder: Path):
    ran = open_run(folder, {})
    return ran.experiment, ran.config


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_workers_have_the_pieces_of_all_points_at_once(tmp_path):
    bench = load_experiment(BENCH)
    with Executor(2) as executor:
        serial, parallel = (
            RunFolder(tmp_path / name / "out", Sweep(bench(), {"seed": [0, 1, 2]}), bench.Config(), executor=workers)
            for name, workers in (("a", None), ("b", executor))
        )
        serial.execute()
        parallel.execute()
    assert parallel.dataset().x.identical(serial.dataset().x)
    history = [(folder.path / "history.jsonl").read_text() for folder in (serial, parallel)]
    assert history[0] == history[1]


@pytest.mark.slow
def test_a_comparison_tells_over_what_was_swept(tmp_path):
    for name, slopes in (("few", [1.0, 2.0]), ("more", [1.0, 2.0, 3.0])):
        swept(tmp_path / name, {"slope": slopes})
    differences = dict(Comparison(read_runs([tmp_path / "few", tmp_path / "more"])).differences)
    assert differences["over: slope"] == ["1.0, 2.0", "1.0, 2.0, 3.0"]
