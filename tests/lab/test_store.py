"""Finished pieces: found by what decides their numbers, never read where they are damaged."""

import numpy as np
import pytest
import xarray as xr

from morphax import BaseConfig, parameter
from morphax.files import TEMPORARY, read_sealed_dataset, write_sealed_dataset, write_text
from morphax.lab.progress import Progress
from morphax.lab.store import PieceStore, prune, store_beside

IDENTITY = {"experiment": "demo", "source": "a", "data": {}, "versions": {"jax": "1"}}


class Config(BaseConfig):
    rate: float = parameter(1.0, "a rate")
    points: tuple[int, ...] = parameter((1, 2), "points", extent=True)
    noise: float = parameter(0.0, "noise")


class Run:
    """Pieces that read some fields, and count how often they are computed."""

    def __init__(self, folder, *, identity=IDENTITY, reuse=True, **numbers):
        self.config = Config(**numbers)
        self.said: list[str] = []
        self.done: list[str] = []
        store = PieceStore(folder, identity, self.config.model_dump(mode="json"), reuse=reuse, say=self.said.append)
        progress = Progress(store, extents=Config.extents())
        with progress.noting():
            self.parts = progress.pieces({f"point {n}": lambda n=n: self.piece(n) for n in self.config.points})
        self.digests = progress.digests

    def piece(self, point: int) -> xr.Dataset:
        self.done.append(f"point {point}")
        values = {"x": ("step", self.config.rate * point * np.arange(3.0), {"units": "ns"})}
        return xr.Dataset(values, {"name": ("step", ["a", "b", "c"])}, {"kind": "demo", "list": [1, 2]})


def test_more_points_reuse_those_that_are_there(tmp_path):
    first = Run(tmp_path)
    again = Run(tmp_path, points=(1, 2, 3))
    assert (first.done, again.done) == (["point 1", "point 2"], ["point 3"])
    assert all(again.parts[label].identical(first.parts[label]) for label in first.parts)
    assert again.digests["point 1"] == first.digests["point 1"]


def test_a_field_that_no_piece_reads_does_not_matter_and_one_that_is_read_does(tmp_path):
    Run(tmp_path)
    assert Run(tmp_path, noise=0.5).done == []
    assert Run(tmp_path, rate=2.0).done == ["point 1", "point 2"]
    assert Run(tmp_path).done == []


@pytest.mark.parametrize(
    "other", [{"experiment": "else"}, {"source": "b"}, {"data": {"csv": "0"}}, {"versions": {"jax": "2"}}]
)
def test_another_experiment_source_data_or_version_is_another_piece(tmp_path, other):
    Run(tmp_path)
    assert Run(tmp_path, identity=IDENTITY | other).done == ["point 1", "point 2"]


def test_without_reuse_everything_is_computed_and_kept(tmp_path):
    Run(tmp_path)
    assert Run(tmp_path, reuse=False).done == ["point 1", "point 2"]
    assert Run(tmp_path).done == []


@pytest.mark.parametrize("harm", ["flip", "cut", "empty", "swap"])
def test_what_is_damaged_is_named_and_computed_anew(tmp_path, harm):
    first = Run(tmp_path)
    one, two = (next(tmp_path.glob(f"*/{first.digests[label]}.nc")) for label in ("point 1", "point 2"))
    content = bytearray(one.read_bytes())
    if harm == "flip":
        place = content.find(np.arange(3.0).tobytes())
        content[place + 14] ^= 1
        one.write_bytes(content)
    elif harm == "cut":
        one.write_bytes(content[: len(content) // 2])
    elif harm == "empty":
        one.write_bytes(b"")
    else:
        one.write_bytes(two.read_bytes())
    again = Run(tmp_path)
    assert again.done == ["point 1"]
    assert len(again.said) == 1
    assert again.said[0].startswith("point 1: ")
    assert str(one) in again.said[0]
    assert again.parts["point 1"].identical(first.parts["point 1"])
    assert Run(tmp_path).done == []


def test_no_bit_of_a_piece_can_flip_and_be_read(tmp_path):
    """Many bytes of a file: either it is noticed, or the numbers are the same."""
    first = Run(tmp_path, points=(1,))
    (path,) = tmp_path.glob("*/*.nc")
    whole = path.read_bytes()
    for place in range(0, len(whole), 509):
        content = bytearray(whole)
        content[place] ^= 1 << (place % 8)
        path.write_bytes(content)
        again = Run(tmp_path, points=(1,))
        assert again.parts["point 1"].identical(first.parts["point 1"]), place
        path.write_bytes(whole)


@pytest.mark.parametrize(
    "attributes",
    [
        {"range": [0.1]},
        {"range": np.array([0.1])},
        {"range": (1, 2.5)},
        {"names": ["a"]},
        {"name": np.str_("a")},
        {"units": "seconds since release"},
        {"units": "days since 2000-01-01"},
        {"units": "days"},
        {"scale_factor": 2.0, "add_offset": 1.0, "missing_value": 1.0},
        {"_Unsigned": "true"},
    ],
)
@pytest.mark.parametrize("values", [[1.0, np.nan], [1, 2], ["a", "b"]])
def test_whatever_attributes_mean_to_others_numbers_come_back_as_they_were(tmp_path, attributes, values):
    dataset = xr.Dataset({"x": ("time", values, attributes)}, {"time": ("time", [0.0, 1.5], attributes)}, attributes)
    write_sealed_dataset(tmp_path / "a.nc", dataset)
    found = read_sealed_dataset(tmp_path / "a.nc")
    assert found.equals(dataset)
    for owner in (found, found.x, found.time):
        assert {name: np.ravel(value).tolist() for name, value in owner.attrs.items()} == {
            name: np.ravel(value).tolist() for name, value in attributes.items()
        }


def test_dates_come_back_and_how_others_stored_their_numbers_does_not_matter(tmp_path):
    days = np.array(["2020-01-01", "NaT"], "datetime64[s]")
    dataset = xr.Dataset({"x": ("day", [1.234, 2.0])}, {"day": days, "span": ("day", days - days[0])})
    dataset.x.encoding = {"scale_factor": 0.1, "dtype": "int16", "_FillValue": -1}
    write_sealed_dataset(tmp_path / "a.nc", dataset)
    assert read_sealed_dataset(tmp_path / "a.nc").identical(dataset)


@pytest.mark.parametrize(
    ("variable", "message"),
    [
        (((), 1.0, {"_FillValue": 0.0}), "x has an attribute '_FillValue', which netCDF files need for themselves"),
        (((), 1.0, {"coordinates": "a b"}), "x has an attribute 'coordinates'"),
        (
            ((), 1.0, {"ready": True}),
            "x has an attribute 'ready' that is True; a netCDF file keeps a text, a",
        ),
        (((), 1.0, {"grid": np.ones((2, 2))}), "x has an attribute 'grid'"),
        (((), 1.0, {"limits": {"low": 0}}), "x has an attribute 'limits' that is {'low': 0}"),
        (("step", np.array(["a", np.nan], object)), "x holds nan; a netCDF file keeps numbers, or texts and nothing"),
    ],
)
def test_what_a_file_does_not_keep_is_refused_at_the_first_piece(tmp_path, variable, message):
    store, done = PieceStore(tmp_path, IDENTITY, {}), []

    def piece(label: str) -> xr.Dataset:
        done.append(label)
        return xr.Dataset({"x": variable})

    with pytest.raises(ValueError, match=f"^a: {message}"):
        Progress(store).pieces({label: lambda label=label: piece(label) for label in "ab"})
    assert done == ["a"]
    assert not list(tmp_path.glob("*/*"))


def test_a_folder_that_is_pruned_while_a_file_begins_is_made_again(tmp_path, monkeypatch):
    import tempfile

    make, times = tempfile.mkstemp, []

    def pruned_before(*, dir, **more):
        times.append(dir)
        if len(times) < 3:
            prune(tmp_path, 0)
        return make(dir=dir, **more)

    monkeypatch.setattr(tempfile, "mkstemp", pruned_before)
    write_text(tmp_path / "ab" / "a.txt", "text")
    assert [path.name for path in (tmp_path / "ab").iterdir()] == ["a.txt"]
    assert not list(tmp_path.glob(f"{TEMPORARY}*"))


def test_a_store_is_pruned_by_last_use(tmp_path):
    import os

    first = Run(tmp_path, points=(1, 2, 3))
    for age, label in ((300, "point 1"), (200, "point 2"), (100, "point 3")):
        for path in [next(tmp_path.glob(f"*/{first.digests[label]}.nc"))]:
            stamp = path.stat().st_mtime - age
            os.utime(path, (stamp, stamp))
    size = sum(path.stat().st_size for path in tmp_path.glob("*/*"))
    freed = prune(tmp_path, size - 1)
    assert freed > 0
    assert Run(tmp_path, points=(1, 2, 3)).done == ["point 1"]
    assert prune(tmp_path, 0) > 0
    assert not tmp_path.exists()


def test_the_store_lies_beside_the_runs(tmp_path):
    assert store_beside(tmp_path / "runs" / "josephson" / "shots" / "quick") == tmp_path / "runs" / ".pieces"
    assert store_beside(tmp_path / "out") == tmp_path / ".pieces"


def test_where_the_runs_cannot_be_written_pieces_lie_beside_the_run_or_in_it(tmp_path):
    runs = tmp_path / "runs"
    run = runs / "demo" / "out"
    runs.mkdir()
    (runs / ".pieces").touch()
    assert store_beside(run) == runs / "demo" / ".pieces"
    (runs / "demo").mkdir()
    (runs / "demo" / ".pieces").touch()
    assert store_beside(run) == run / ".pieces"
