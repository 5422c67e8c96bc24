"""Recordings from files as laboratories write them, and what is wrong with them."""

from typing import Any

import jax
import numpy as np
import pytest
import xarray as xr

from morphax import EchoStateNetwork, JosephsonMixer
from morphax.judging import Recording, findings, information_processing_capacity, record
from morphax.tasks.tables import read_table

RNG = np.random.default_rng(0)
DRIVE = RNG.uniform(-1, 1, 4000)
COIN = np.repeat(np.random.default_rng(9).choice([-1.0, 1.0], 800), 5)


def line(inputs: np.ndarray = DRIVE, taps: int = 3) -> np.ndarray:
    return np.stack([np.roll(inputs, delay) for delay in range(taps)], axis=1)


def texts(recording: Recording, severity: str) -> list[str]:
    return [finding.text for finding in findings(recording) if finding.severity == severity]


def write(path, header: str, rows: np.ndarray, *, separator: str = ",", decimal: str = ".") -> None:
    lines = [separator.join(f"{value:.9g}".replace(".", decimal) for value in row) for row in rows]
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")


def test_a_good_recording_has_nothing_wrong():
    assert findings(Recording(DRIVE, line())) == []


@pytest.mark.parametrize(
    ("header", "separator", "decimal"),
    [
        ("time,u,x1,x2,x3", ",", "."),
        ("Zeit (ms);u (V);x1 (mA);x2 (mA);x3 (mA)", ";", ","),
        ("t\tu\tx1\tx2\tx3\n[ms]\t[V]\t[mA]\t[mA]\t[mA]", "\t", "."),
    ],
)
def test_tables_are_read_as_instruments_write_them(tmp_path, header, separator, decimal):
    path = tmp_path / "device.csv"
    write(path, header, np.column_stack([0.1 * np.arange(4000), DRIVE, line()]), separator=separator, decimal=decimal)
    found = Recording.from_csv(path, inputs="u", responses="x*")
    assert found.inputs[:, 0] == pytest.approx(DRIVE, abs=1e-8)
    assert found.responses == pytest.approx(line(), abs=1e-8)
    assert found.reading_names == ("x1", "x2", "x3")
    named = "ms" in header
    assert found.units == ({"u": "V", "x1": "mA", "x2": "mA", "x3": "mA"} if named else {})
    assert found.interval == pytest.approx(1e-4 if named else 0.1)


def test_a_column_keeps_the_title_that_it_has_in_the_file(tmp_path):
    path = tmp_path / "tide.csv"
    path.write_text("day,height (m)\nMon,1.5\nTue,2.5\n", encoding="utf-8")
    table = read_table(path)
    assert table.column("height (m)").tolist() == table.column("height").tolist() == [1.5, 2.5]
    assert table.units == {"height": "m"}


def test_repeats_follow_each_other_in_a_file(tmp_path):
    path = tmp_path / "twice.csv"
    rows = np.concatenate([np.column_stack([np.full(4000, run), DRIVE, line() + run]) for run in range(2)])
    write(path, "run,u,x0,x1,x2", rows)
    found = Recording.from_csv(path, inputs="u", repeat="run")
    assert len(found) == 4000
    assert found.repeats[0] == pytest.approx(line() + 1, abs=1e-8)
    rows[5000, 1] += 1.0
    write(path, "run,u,x0,x1,x2", rows)
    with pytest.raises(ValueError, match="repeat 2 has other inputs than the first"):
        Recording.from_csv(path, inputs="u", repeat="run")


@pytest.mark.parametrize(
    ("rows", "arguments", "message"),
    [
        ("u,x\n1,2\n3,4\n", {"inputs": "v"}, "column is 'v', which .* does not have"),
        ("u,x\n1,2\n3,4\n", {"responses": "u,x"}, "column 'u' is an input and a response"),
        ("u,x\n1,2\n,4\n", {}, "column 'u' misses 1 of 2 values, in row 3"),
        ("u,x\n1,2\n3,high\n5,6\n", {}, "column 'x' holds 'high' in row 3"),
        ("time,u,x\n0,1,2\n1,3,4\n3,3,4\n4,1,2\n5,1,2\n", {}, "between points 1 and 2 there are 2, and otherwise 1"),
        ("time,u,x\n0,1,2\n1,3,4\n1,3,4\n", {}, "the time does not rise in point 2"),
    ],
)
def test_bad_tables_are_one_line(tmp_path, rows, arguments, message):
    path = tmp_path / "bad.csv"
    path.write_text(rows, encoding="utf-8")
    with pytest.raises(ValueError, match=message) as refused:
        Recording.from_csv(path, **arguments)
    assert "\n" not in str(refused.value)


def test_a_recording_stays_in_its_file_and_is_judged_there(tmp_path):
    path = tmp_path / "device.nc"
    Recording(DRIVE, line(), [line() + 1], 1e-9, ("u",), ("a", "b", "c"), {"u": "V"}).to_netcdf(path)
    found = Recording.from_netcdf(path)
    assert not isinstance(found.responses, np.ndarray)
    assert (found.interval, found.input_names, found.reading_names) == (1e-9, ("u",), ("a", "b", "c"))
    assert found.units["u"] == "V"
    assert len(found.repeats) == 1
    in_file, in_memory = (
        information_processing_capacity(each.inputs, each.responses, max_degree=2, max_delay=5)
        for each in (found, Recording(DRIVE, line()))
    )
    assert in_file.identical(in_memory)
    for taken in (lambda each: each.every(2), lambda each: each.shifted(1), lambda each: each.detrended(50)):
        mine, theirs = taken(found), taken(Recording(DRIVE, line()))
        assert np.array_equal(mine.inputs[3:-2], theirs.inputs[3:-2])
        assert np.array_equal(mine.responses[3:-2], theirs.responses[3:-2])
    with pytest.raises(ValueError, match="has no variable 'voltage'; it has inputs, responses"):
        Recording.from_netcdf(path, inputs="voltage")


def test_parts_of_a_file_are_read_ahead_and_again(tmp_path, monkeypatch):
    monkeypatch.setattr("morphax.judging.recording.AHEAD", 12)
    path = tmp_path / "device.nc"
    Recording(DRIVE, line()).to_netcdf(path)
    found = Recording.from_netcdf(path).responses
    for time in (np.s_[5:7], np.s_[6:9], np.s_[7:30], np.s_[2:4], np.s_[-3:], np.s_[1:11:3], np.s_[9:9]):
        assert np.array_equal(found[time], line()[time])


def test_a_simulation_is_recorded_with_repeats_and_noise():
    drives = np.asarray(jax.random.uniform(jax.random.key(0), (3000,)))
    mixer = JosephsonMixer.two_mode(measured=4)
    found = record(mixer, drives, repeats=2, noise=0.1, key=jax.random.key(1))
    difference = found.responses - found.repeats[0]
    assert difference.std(axis=0) == pytest.approx(0.1 * 2**0.5 * found.responses.std(axis=0), rel=0.05)


@pytest.mark.parametrize(
    ("inputs", "responses", "severity", "message"),
    [
        (np.zeros(4000), line(), "error", "the input u0 is 0 all the time"),
        (np.repeat(DRIVE[:1000], 4), line(), "error", "the input u0 is held for 4 points each; keep one point of 4"),
        (COIN, line(COIN), "error", "the input u0 is held for 5 points each; keep one point of 5"),
        (DRIVE[:250], line()[:250], "error", "250 points, of which 200 are left out (washout), are too few for 3"),
        (DRIVE[:500], line()[:500], "warning", "500 points for 3 readings tell capacities to some percent; 600"),
        (np.tile(DRIVE[:40], 100), line(np.tile(DRIVE[:40], 100)), "warning", "or repeats itself"),
        (np.stack([DRIVE, DRIVE], axis=1), line(), "warning", "the inputs u0 and u1 depend on each other"),
        (np.stack([DRIVE, DRIVE**2], axis=1), line(), "warning", "the inputs u0 and u1 depend on each other"),
        (DRIVE, line(np.roll(DRIVE, 99)), "warning", "99 points after it came, and nothing sooner"),
        (DRIVE, np.ones((4000, 2)), "error", "no reading changes"),
        (DRIVE, np.hstack([line(), np.ones((4000, 2))]), "note", "x3 and x4 are constant and were left out"),
        (DRIVE, np.hstack([line(), -2 * line()[:, :1] + 5]), "note", "x0 and x3 are one reading, up to a factor"),
        (DRIVE, line() + np.linspace(0, 1, 4000)[:, None], "warning", "readings drift"),
        (DRIVE, line(np.roll(DRIVE, -3)), "error", "readings answer the input 3 points before it comes"),
    ],
)
def test_what_is_wrong_is_found_and_named(inputs, responses, severity, message):
    assert any(message in text for text in texts(Recording(inputs, responses), severity))


def test_missing_readings_are_named():
    broken = line()
    broken[[700, 701], 1] = np.nan
    assert texts(Recording(DRIVE, broken), "error") == [
        "readings of 2 of 4000 points are missing, the first is x1 of point 700; cut the recording there"
    ]


def test_inputs_that_depend_on_their_past_are_told_apart():
    correlated = np.convolve(DRIVE, 0.8 ** np.arange(30))[:4000]
    assert [finding.severity for finding in findings(Recording(correlated, line(correlated)))] == ["note"]
    volatile = DRIVE * np.tile(np.repeat([0.2, 1.0], 20), 100)
    assert "foretold by its past" in texts(Recording(volatile, line(volatile)), "warning")[0]


def test_inputs_that_repeat_themselves_are_not_taken_for_early_answers():
    again = np.tile(DRIVE[:40], 100)
    assert not [text for text in texts(Recording(again, line(again)), "error") if "before it comes" in text]


def test_the_last_point_of_a_hold_is_kept_wherever_the_first_change_is():
    held = np.repeat([1.0, 1.0, -1.0, 1.0, -1.0, -1.0], 5)[2:]
    rows = np.arange(len(held), dtype=float)[:, None]
    assert Recording(held, rows).every(5).responses[:, 0].tolist() == [2.0, 7.0, 12.0, 17.0, 22.0, 27.0]


def test_lists_and_one_column_of_a_file_are_recordings_too(tmp_path):
    found = Recording(DRIVE.tolist(), line().tolist(), [line().tolist()])
    assert len(found) == 4000
    xr.Dataset({"inputs": ("time", DRIVE), "responses": (("time", "reading"), line())}).to_netcdf(
        tmp_path / "one.nc", engine="h5netcdf"
    )
    in_file = Recording.from_netcdf(tmp_path / "one.nc")
    assert np.array_equal(in_file.inputs[5:9], DRIVE[5:9, None])


def test_drift_is_taken_out():
    """A random walk as large as the signal hides what a delay line holds; a moving mean gives most of it back."""
    inputs = np.random.default_rng(4).uniform(-1, 1, 20_000)
    spectrum = np.fft.rfft(np.random.default_rng(1).normal(size=(20_000, 8)), axis=0)
    frequencies = np.maximum(np.fft.rfftfreq(20_000), 1 / 20_000)[:, None]
    drift = np.fft.irfft(spectrum / frequencies, axis=0)
    recording = Recording(inputs, line(inputs, 8) + drift / drift.std(axis=0))
    arguments: dict[str, Any] = {"max_degree": 2, "max_delay": 15}

    def total(found: Recording) -> float:
        return float(information_processing_capacity(found.inputs, found.responses, **arguments).total)

    assert total(recording) < 6.5
    assert total(recording.detrended(50)) > 7.6


def test_bad_recordings_are_refused():
    with pytest.raises(ValueError, match=r"responses has shape \(3999, 3\); it must be \(4000, readings\)"):
        Recording(DRIVE, line()[1:])
    with pytest.raises(ValueError, match=r"repeats\[0\] has shape \(4000, 2\); it must be \(4000, 3\)"):
        Recording(DRIVE, line(), [line()[:, :2]])
    with pytest.raises(ValueError, match="interval is 0"):
        Recording(DRIVE, line(), interval=0.0)
    with pytest.raises(ValueError, match="reading_names has 1 names; there are 3"):
        Recording(DRIVE, line(), reading_names=("x",))
    with pytest.raises(ValueError, match="noise is -1"):
        record(EchoStateNetwork.random(3, key=jax.random.key(0)), DRIVE[:10], noise=-1.0, key=jax.random.key(0))
