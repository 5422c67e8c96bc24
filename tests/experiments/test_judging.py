"""Devices of many kinds, judged by the command that users type."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from morphax import EchoStateNetwork, save
from morphax.cli import main
from morphax.experiments.judging._stored import as_json, reduced, stored
from morphax.experiments.judging.devices import DevicesConfig
from morphax.files import read_dataset
from morphax.judging.devices import BUILT_IN
from morphax.judging.prediction import SERIES, mackey_glass_of
from morphax.judging.sequences import SEQUENCES
from morphax.judging.standard import STANDARD

SMALL = {"points": 1000, "trial_points": 1000, "max_products": 500, "max_delay": 10, "washout": 60}
SMALL_OPTIONS = [text for key, value in SMALL.items() for text in ("--set", f"{key}={value}")]
SMALL_OPTIONS += ["--quick", "--set", "tasks=[]", "--set", "trials=[]", "--out", "out"]
ARRAY = """
import jax.numpy as jnp
from morphax import EchoStateNetwork, ExternalSubstrate


def network(neurons=5, *, key):
    return EchoStateNetwork.random(neurons, key=key)


def taps(inputs):
    import numpy as np
    with open(FOLDER + "/asked", "a") as notes:
        notes.write(f"{len(inputs)} ")
    return np.stack([np.concatenate([np.zeros(k), inputs[: len(inputs) - k, 0]]) for k in (1, 2, 3)], axis=1)


def bench():
    return ExternalSubstrate(taps, neurons=3)


def array(devices=6, *, key):
    return EchoStateNetwork.random(devices, key=key)


def nothing():
    return 3
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(f"FOLDER = {str(tmp_path)!r}\n{ARRAY}")
    return tmp_path


def judged(*arguments: str):
    assert main(["judge", *SMALL_OPTIONS, *arguments]) == 0
    return read_dataset(Path("out/result.nc"))


def error_of(capsys, *arguments: str) -> str:
    assert main(["judge", *SMALL_OPTIONS, *arguments]) in (1, 2)
    return capsys.readouterr().err


def write_recording(path: str, points: int = 2000, held: int = 1, early: int = 0) -> None:
    rng = np.random.default_rng(0)
    u = rng.uniform(-1, 1, points)
    read = np.stack([np.roll(u, k - early) for k in range(1, 5)], axis=1) + 0.01 * rng.normal(size=(points, 4))
    rows = np.repeat(np.column_stack([u, read]), held, axis=0)
    np.savetxt(path, rows, delimiter=",", header="u,x0,x1,x2,x3", comments="")


@pytest.mark.slow
def test_systems_are_judged_beside_each_other(capsys):
    dataset = judged("echo-state", "--set", "neurons=8", "--against", "echo-state neurons=5")
    assert dataset.device.values.tolist() == ["echo-state neurons=8", "echo-state neurons=5"]
    assert dataset.readings.values.tolist() == [8, 5]
    assert dataset.total.isel(noise=0).values == pytest.approx([7, 5], abs=1.5)
    shown = capsys.readouterr().out
    assert "functions of past inputs in its 8 readings" in shown
    assert "paper or baseline" not in shown
    page = Path("out/report.html").read_text()
    assert "<h2>Verdict</h2>" in page
    assert "<h2>All devices; in brackets" in page
    assert "<h2>Claims</h2>" not in page


@pytest.mark.slow
def test_what_is_stored_of_a_comparison_is_what_was_drawn_of_it():
    dataset = judged("echo-state neurons=5", "--set", 'trials=["spread"]')
    small = reduced(dataset)
    assert set(small.linear_memory.dims) == {"device", "noise"}
    assert small.total_spread.values == pytest.approx(dataset.total_spread.mean("spread_chip").values)
    held = json.loads(json.dumps(as_json(dataset), allow_nan=False))
    assert np.array(held["values"]["total"][1], float) == pytest.approx(small.total.values, rel=1e-3)
    assert held["axes"]["device"] == [["device"], ["echo-state neurons=5"]]


@pytest.mark.slow
def test_every_judgement_stands_beside_the_systems_of_this_library():
    judged("echo-state neurons=5", "--against", "josephson")
    page = Path("out/report.html").read_text()
    assert "(spintronic)" in page
    assert "(josephson)" not in page
    known = stored()
    assert set(BUILT_IN) <= set(known.device.values.tolist())
    assert set(known.task.values.tolist()) == set(STANDARD) | set(SEQUENCES)
    assert float(known.total.sel(device="echo-state").isel(noise=0)) == pytest.approx(50, abs=5)


@pytest.mark.slow
def test_a_device_is_the_same_whatever_others_are_asked():
    alone = judged("echo-state neurons=5")
    Path("out").rename("before")
    among = judged("josephson", "--set", "measured=4", "--against", "echo-state neurons=5")
    assert np.array_equal(
        alone.total.sel(device="echo-state neurons=5"), among.total.sel(device="echo-state neurons=5")
    )


@pytest.mark.slow
def test_a_recording_is_judged_by_its_own_input(capsys):
    write_recording("chip.csv")
    dataset = judged("chip.csv")
    assert dataset.total.isel(noise=0).item() == pytest.approx(4, abs=0.4)
    assert dataset.task.values.tolist() == ["NARMA-2", "NARMA-10", "parity of 2", "parity of 3"]
    assert dataset.error.sel(task="NARMA-2").isel(measured=0).item() < 1


@pytest.mark.slow
def test_held_inputs_and_early_answers_are_put_right(capsys):
    write_recording("held.csv", held=3)
    assert "the input u is held for 3 points each; keep one point of 3 (every=3)" in error_of(capsys, "held.csv")
    assert judged("held.csv", "--every", "3", "--fresh").total.isel(noise=0).item() == pytest.approx(4, abs=0.4)
    write_recording("early.csv", early=3)
    assert "readings answer the input 2 points before it comes" in error_of(capsys, "early.csv", "--fresh")
    dataset = judged("early.csv", "--shift", "2", "--fresh")
    assert dataset.memory.isel(noise=0, device=0).values[:5] == pytest.approx([1, 1, 1, 1, 0], abs=0.05)


@pytest.mark.slow
def test_a_changed_recording_is_another_question(capsys):
    write_recording("chip.csv")
    judged("chip.csv")
    write_recording("chip.csv", points=1900)
    assert "a run whose data have changed since (devices[0])" in error_of(capsys, "chip.csv")


@pytest.mark.slow
def test_what_a_python_file_gives(capsys):
    assert judged("mine.py:network").readings.item() == 5
    assert judged("mine.py:network", "--set", "neurons=4", "--fresh").readings.item() == 4
    assert judged("mine.py:array", "--set", "devices=7", "--fresh").readings.item() == 7
    assert "has no setting 'neuron'; did you mean 'neurons'?" in error_of(
        capsys, "mine.py:network", "--set", "mine.py:network.neuron=4", "--fresh"
    )
    assert "mine.py:nothing gives a int; it must give a substrate" in error_of(capsys, "mine.py:nothing", "--fresh")
    assert "mine.py holds no name 'netwrk'; did you mean 'network'?" in error_of(capsys, "mine.py:netwrk", "--fresh")


@pytest.mark.slow
def test_a_device_outside_is_asked_for_what_is_missing_alone(capsys, monkeypatch):
    def killed(*arguments, **options):
        raise RuntimeError("killed")

    asked = ("mine.py:bench", "--set", 'trials=["scale"]')
    with monkeypatch.context() as patch:
        patch.setattr("morphax.experiments.judging.devices.withstands", killed)
        assert "killed" in error_of(capsys, *asked)
    before = len(Path("asked").read_text().split())
    dataset = judged(*asked)
    after = len(Path("asked").read_text().split())
    assert after == before + dataset.sizes["scale"]
    assert dataset.total.isel(noise=0).item() == pytest.approx(3, abs=0.4)


@pytest.mark.slow
def test_a_device_outside_is_asked_again_for_what_is_new():
    few = judged("mine.py:bench")
    assert "total_scale" not in few
    assert few.asked_at.item().endswith("UTC")
    more = judged("mine.py:bench", "--set", 'trials=["scale"]', "--fresh")
    assert more.scale.values.tolist() == [0.1, 0.3, 1.0]
    Path("out").rename("before")
    assert "total_scale" in judged("mine.py:bench", "--set", 'trials=["scale", "reading_bits"]')


@pytest.mark.slow
def test_series_of_somebody_else_are_foretold(capsys):
    Path("files").mkdir()
    for tau in SERIES:
        np.save(f"files/mg_{tau}.npy", mackey_glass_of(tau, 1500))
    asked = ("echo-state neurons=5", "--set", 'tasks=["Mackey-Glass, free running"]', "--set", "starts=1")
    own = judged(*asked)
    theirs = judged(*asked, "--set", "mackey_glass=files", "--fresh")
    assert "NeuroBench's Mackey-Glass series (its own files), 1 start" in capsys.readouterr().out
    assert theirs.smape.values == pytest.approx(own.smape.values, abs=1e-6)
    np.save("files/mg_30.npy", np.ones(1500))
    assert "data have changed since (mg_30)" in error_of(capsys, *asked, "--set", "mackey_glass=files")


@pytest.mark.slow
def test_tasks_and_all_trials_stand_beside_each_other():
    asked = ("--set", 'tasks=["NARMA-2", "Lorenz, free running"]', "--set", "starts=2")
    dataset = judged("echo-state neurons=5", *asked, "--set", 'trials=["scale", "spread", "state_noise"]')
    assert dataset.scale.values.tolist() == [0.1, 0.3, 1.0, 3.0]
    assert dataset.error.dims == ("device", "task", "seed", "measured")
    assert dataset.lorenz_time.sizes["start"] == 2


@pytest.mark.slow
def test_settings_stand_beside_those_behind_a_name():
    dataset = judged("echo-state neurons=6", "--set", "leak_rate=0.5")
    assert dataset.device.item() == "echo-state leak_rate=0.5 neurons=6"


@pytest.mark.slow
def test_missing_readings_of_a_repeat_are_found(capsys):
    write_recording("chip.csv")
    head, *rows = Path("chip.csv").read_text().splitlines()
    runs = [[f"{row},{run}" for row in rows] for run in (1, 2)]
    runs[1][70] = runs[1][70].split(",")[0] + ",,0,0,0,2"
    Path("chip.csv").write_text("\n".join([f"{head},run", *runs[0], *runs[1]]) + "\n")
    message = "readings of 1 of 2000 points of repeat 2 are missing, the first is x0 of point 70"
    assert message in error_of(capsys, "chip.csv", "--repeat", "run")
    assert message in error_of(capsys, "chip.csv", "--repeat", "run", "--detrend", "100", "--fresh")


@pytest.mark.slow
def test_a_saved_device():
    save("network.morphax", EchoStateNetwork.random(6, key=jax.random.key(0)))
    assert judged("network.morphax").readings.item() == 6


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"devices": ("josefson",)}, "did you mean 'josephson'"),
        ({"settings": ("echo-stat.neurons=3",)}, "did you mean 'echo-state'"),
        ({"settings": ("neurons=3",)}, "must be NAME.KEY=VALUE"),
        ({"tasks": ("NARMA",)}, "did you mean 'NARMA-2'"),
        ({"low": 1.0}, "high is 1; it must be > low, 1"),
        ({"washout": 20}, "washout is 20; it must be >= max_delay, 50"),
        ({"noise": 0.3}, "noise is 0.3; it must be one of noises"),
        ({"noises": (0.1, 0.01)}, r"noises is \(0.1, 0.01\); they must rise from 0"),
        ({"mackey_glass": "nowhere"}, "folder 'nowhere' holds no mg_17.npy"),
        ({"every": 5}, "are of recordings; there is none"),
        ({"detrend": 2}, "detrend is 2; it must be 0 or >= 3"),
        ({"devices": ("echo-state", "echo-state")}, "two devices are called 'echo-state'"),
        ({"devices": ("echo-state 5",)}, "behind echo-state there must be settings"),
    ],
)
def test_what_cannot_be_asked_is_refused(numbers, message):
    with pytest.raises(ValueError, match=message):
        DevicesConfig(**numbers)


def test_a_stimulus_is_written_with_what_it_tells(capsys):
    assert main(["stimulus", "--points", "1000", "--kind", "binary", "--out", "drive.csv"]) == 0
    assert "1000 points tell the capacities of up to 5 readings to 2 %" in capsys.readouterr().out
    assert set(Path("drive.csv").read_text().split()) == {"u", "-1.", "1."}
    assert main(["stimulus", "--points", "many"]) == 2


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_a_file_travels_to_workers(tmp_path):
    write_recording("chip.csv")
    here = judged("chip.csv", "mine.py:network")
    there = judged("chip.csv", "mine.py:network", "--workers", "1", "--fresh")
    assert np.array_equal(here.total, there.total)
