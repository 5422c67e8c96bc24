"""The command line as a user meets it: exit codes, one-line errors, run folders, resumption."""

import io
import json
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import chdir, redirect_stdout
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from morphax.cli import main
from morphax.experiments import all_experiments
from morphax.files import read_json, read_sealed
from morphax.lab.figures import save_figures

WAVEFORMS = ["run", "josephson/waveforms", "--quick", "--seeds", "2"]
DICE = f"{Path(__file__).with_name('conftest.py')}:Dice"
FAST = {"spiking/ghz"}  # the quick runs of the others are marked slow, like all that takes more than some seconds
LONG = {"spintronic/density", "spintronic/sequential-digits", "spintronic/time-scales"}  # run longer than they compile
FILES = {"manifest.json", "config.json", "environment.json", "result.nc", "claims.json", "report.html", "figures"}


@pytest.fixture(autouse=True)
def _in_a_new_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def ran(tmp_path_factory) -> tuple[Path, str]:
    """A folder in which "out" is a finished run, and what it printed."""
    folder, printed = tmp_path_factory.mktemp("ran"), io.StringIO()
    with chdir(folder), redirect_stdout(printed):
        assert main([*WAVEFORMS, "--out", "out"]) == 0
    return folder, printed.getvalue()


@pytest.fixture
def out(ran) -> Path:
    """The same run, in the folder of the test, with the pieces that runs keep for each other."""
    shutil.copytree(ran[0], ".", dirs_exist_ok=True)
    return Path("out")


def read(path: Path) -> xr.Dataset:
    """The numbers of a result, without what is said of the run that gave them."""
    return xr.load_dataset(path / "result.nc", engine="h5netcdf").drop_attrs()


def error_of(capsys, arguments: list[str], code: int) -> str:
    assert main(arguments) == code
    error = capsys.readouterr().err
    assert error.strip().count("\n") == 0, error
    assert "Traceback" not in error
    return error


def test_list_names_every_experiment(capsys):
    assert main(["list"]) == 0
    listing = capsys.readouterr().out
    assert all(name in listing for name in all_experiments())


def test_the_tree_groups_experiments_by_system_and_counts_their_runs(capsys):
    for name in ("quick", "full-seeds=3"):
        folder = Path("runs/josephson/shots") / name
        folder.mkdir(parents=True)
        (folder / "config.json").touch()
    assert main(["list", "--tree"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line[4:] for line in lines if line[:1] in "├└"] == [
        "josephson",
        "judging",
        "phase-oscillators",
        "quantized",
        "rules",
        "spiking",
        "spintronic",
        "tables",
    ]
    (shots,) = (line for line in lines if "(2 runs)" in line)
    assert shots.startswith("│   └── shots (2 runs)  ")
    assert not any("(1 run" in line or "/" in line.partition("  ")[0] for line in lines)


def test_show_tells_the_memory_that_numbers_take(capsys):
    shown = []
    for options in ([], ["--set", "train_points=800000"], ["--quick"]):
        assert main(["show", "josephson/waveforms", *options]) == 0
        shown.append(capsys.readouterr().out)
    assert "memory about 13 MB with these numbers; " in shown[0]
    assert "memory about 5.13 GB with these numbers; " in shown[1]
    assert "800000" in shown[1]
    assert "memory about 2 MB" in shown[2]
    error = error_of(capsys, ["show", "josephson/waveforms", "--set", "train_points=8"], 2)
    assert "train_points is 8; it must be greater than or equal to 16" in error


def test_a_run_that_does_not_fit_in_memory_names_what_to_lower(capsys, monkeypatch):
    monkeypatch.setattr("morphax.lab.experiment.free_memory", lambda: 1e9)
    large = ["--set", "train_points=800000", "--set", "test_points=1000", "--seeds", "20", "--out", "out"]
    error = error_of(capsys, ["run", "josephson/waveforms", *large], 2)
    assert "a run takes about 10.3 GB of memory, and 1 GB are free; lower train_points (800000), seeds (20)" in error
    assert not Path("out/result.nc").exists()


@pytest.mark.parametrize("name", sorted(all_experiments()))
def test_show_gives_defaults_units_ranges_and_claims(name, capsys):
    assert main(["show", name]) == 0
    shown = capsys.readouterr().out
    assert "seed" in shown
    assert "≥" in shown
    assert "paper or baseline" in shown


def test_a_run_leaves_a_complete_folder(ran, out):
    assert "met" in ran[1]
    assert "out/report.html" in ran[1]
    assert {entry.name for entry in out.iterdir()} == FILES
    request = read_sealed(out / "config.json")
    assert request["experiment"] == "josephson/waveforms"
    assert request["config"]["seeds"] == 2
    assert {"versions", "devices", "git_revision", "seed"} <= read_json(out / "environment.json").keys()
    for claim in read_json(out / "claims.json"):
        assert list(claim)[:7] == ["claim", "paper", "ours", "tolerance", "relation", "source", "met"]
    dataset = xr.load_dataset(out / "result.nc", engine="h5netcdf")
    assert dataset.accuracy.dims == ("row", "seed")
    assert all("units" in variable.attrs for variable in dataset.data_vars.values())
    report = (out / "report.html").read_text()
    assert "data:image/png;base64," in report
    assert "http" not in report
    assert {p.suffix for p in (out / "figures").iterdir()} == {".png", ".svg"}


def test_a_finished_run_is_shown_and_not_repeated(out, capsys):
    before = (out / "result.nc").stat().st_mtime_ns
    assert main([*WAVEFORMS, "--out", "out"]) == 0
    assert "has run before" in capsys.readouterr().err
    assert (out / "result.nc").stat().st_mtime_ns == before
    assert main([*WAVEFORMS, "--out", "out", "--fresh"]) == 0
    assert (out / "result.nc").stat().st_mtime_ns != before


def test_report_is_made_anew_from_the_folder_alone(out):
    claims = (out / "claims.json").read_text()
    (out / "report.html").unlink()
    (out / "claims.json").unlink()
    assert main(["report", "out"]) == 0
    assert (out / "claims.json").read_text() == claims


def test_check_exits_with_3_when_a_claim_is_not_met():
    unmet = ["run", DICE, "--set", "throws=1", "--set", "seed=2", "--out", "out"]
    assert main(unmet) == 0
    assert main([*unmet, "--check"]) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "josephson/wavforms"], "experiment is 'josephson/wavforms'; did you mean 'josephson/waveforms'?"),
        ([*WAVEFORMS, "--set", "coupplig=1"], "--set coupplig is unknown; did you mean 'coupling'?"),
        ([*WAVEFORMS, "--set", "coupling"], "--set is 'coupling'; it must be KEY=VALUE"),
        ([*WAVEFORMS, "--set", "levels=0"], "levels is 0; it must be greater than or equal to 2"),
        ([*WAVEFORMS, "--set", "damping_rate=-1,2"], "damping_rate[0] is -1; it must be greater than or equal to 0"),
        ([*WAVEFORMS, "--set", "coupling=NaN"], "coupling is nan; it must be"),
        ([*WAVEFORMS, "--set", "coupling=strong"], "coupling is 'strong'; it must be a valid number"),
        (["run", "josephson/waveforms", "--seeds", "0"], "seeds is 0; it must be greater than or equal to 1"),
        ([*WAVEFORMS, "--out", "/proc/none/here"], "out is '/proc/none/here', which cannot be made"),
        (
            ["run", "quantized/landscape", "--set", "widths=-1,0.5"],
            "widths[0] is -1; it must be greater than",
        ),
        (["run", "quantized/weak", "--set", "sweep=3,25"], "sweep[1] is 25; it must be less than or equal to 19"),
        (
            ["run", "quantized/shots", "--set", "numbers=1,-2"],
            "numbers[1] is -2; it must be greater than or",
        ),
        (
            ["run", "quantized/shots", "--set", "batch_size=6000"],
            "batch_size is 6000; it must be <= train_images",
        ),
        (
            ["run", "josephson/shots", "--set", "numbers=100,-1"],
            "numbers[1] is -1; it must be greater than or equal to 1",
        ),
        (
            ["run", "phase-oscillators/xor", "--set", "starts=0"],
            "starts[0] is 0; it must be greater than or",
        ),
        (["run", "josephson/scaling", "--set", "modes=0"], "modes[0] is 0; it must be greater than or equal to 1"),
        (
            ["run", "josephson/neurons", "--set", "sizes=1e12"],
            "sizes[0] is 1000000000000.0; it must be less than or equal",
        ),
        ([*WAVEFORMS, "--set", "train_points=1e12"], "train_points is 1000000000000.0; it must be less than or equal"),
        ([*WAVEFORMS, "--set", "levels=true"], "levels is true; it must be a number"),
        ([*WAVEFORMS, "--set", "seed=4294967296"], "seed is 4294967296; it must be less than 4294967296"),
        ([*WAVEFORMS, "--set", "levels=2"], "levels is 2; 2 modes (damping_rate) of 2 levels have 4 states, and"),
        (
            [*WAVEFORMS, "--set", "damping_rate=17"],
            "damping_rate is (17.0,); 1 modes (damping_rate) of 8 levels have 8",
        ),
        ([*WAVEFORMS, "--set", "damping_rate=0,0"], "damping_rate is (0.0, 0.0); one must be > 0"),
        ([*WAVEFORMS, "--set", "train_points=17"], "train_points is 17; it must be a multiple of 8"),
        (["run", "josephson/forecast", "--set", "levels=2"], "levels is 2; 2 modes"),
        (["run", "josephson/forecast", "--set", "measured=65"], "measured is 65; 2 modes (damping_rate) of 8 levels"),
        (["run", "josephson/forecast", "--set", "leak_rates="], "leak_rates is []; Tuple should have at least 1"),
        (["run", "josephson/forecast", "--set", "washout=201"], "washout is 201; of 206 training points it leaves 5"),
        (["run", "josephson/design", "--set", "fewer=65"], "fewer is 65; 2 modes"),
        (["run", "josephson/shots", "--set", "couplings=1"], "drives is (2.401, 2.77); it must hold one amplitude"),
        (["run", "josephson/mackey-glass", "--set", "sample_interval=0.25"], "sample_interval is 0.25; it must be a"),
        (["run", "josephson/mackey-glass", "--set", "washout=999"], "washout is 999; train_points - washout is 1, and"),
        (["run", "josephson/scaling", "--set", "train_points=16"], "train_points is 16; train_points - washout is -84"),
        (
            ["run", "josephson/scaling", "--set", "sizes=64", "--set", "levels=2"],
            "sizes is (64,); the least must be <= 2",
        ),
        (
            ["run", "spintronic/tune", "--set", "longest_step=1e-9"],
            "interval is 1; with longest_step = 1e-09 that takes",
        ),
        (["run", "spintronic/dynamics", "--set", "slow=1e9"], "slow is 1e+09; with longest_step = 2.5 that takes"),
        (["run", "spintronic/time-scales", "--set", "intervals=1e9"], "intervals.0 is 1e+09; with longest_step"),
        (["run", "spintronic/tune", "--set", "train_fraction=1e-9"], "train_fraction is 1e-09; of 1797 images it must"),
        (
            ["run", "spintronic/tune", "--set", "validation_fraction=1e-9"],
            "validation_fraction is 1e-09; of 898 images",
        ),
        (["run", "spintronic/tune", "--set", "relaxation_times=3,2"], "relaxation_times is 3, 2; the first must be <="),
        (["run", "spiking/distribution", "--set", "time_step=20"], "time_step is 20; it must be <= membrane_time"),
        (
            ["run", "spiking/distribution", "--set", "synaptic_time_constant=0.5"],
            "synaptic_time_constant is 0.5; it must",
        ),
        (["run", "spiking/distribution", "--set", "input_rate=2"], "input_rate is 2; it must be <= 1: one spike in a"),
        (["run", "spiking/distribution", "--set", "burn_in=300"], "burn_in is 300; it must be < 300, intervals times"),
        (
            ["run", "spiking/density-matrix", "--set", "neurons=5"],
            "neurons is 5; it must be greater than or equal to 6",
        ),
        (["run", "spiking/density-matrix", "--set", 'targets=["x"]'], "targets[0] is 'x'; it must be 'psi_+', 'rho'"),
        (["run", "spiking/completeness", "--set", 'ensembles=["x"]'], "ensembles[0] is 'x'; ensembles is 'x'; it must"),
        (["run", "spiking/ising-chain", "--set", "neighbours=7"], "neighbours is (7,); each must be <= 6 or 10, all"),
        (
            ["run", "phase-oscillators/digits", "--set", "train_per_class=150"],
            "train_per_class is 150; train_per_class +",
        ),
        (
            ["run", "phase-oscillators/lattice", "--set", "validation_fraction=1e-9"],
            "validation_fraction is 1e-09; of 200",
        ),
        (["run", "phase-oscillators/better", "--set", "iterations=1"], "iterations is 1; it must be greater than"),
        (["run", "phase-oscillators/lattice", "--set", "scales=1e300"], "scales[0] is 1e+300; it must be less than"),
        (["run", "phase-oscillators/xor", "--set", "prefix=1e300"], "prefix is 1e+300; it must be less than or equal"),
        (
            ["run", "spintronic/density", "--set", "relaxation_time=1e-9"],
            "relaxation_time is 1e-09; it must be greater",
        ),
        (["run", "quantized/rotation", "--set", "widths=0,0"], "widths is (0.0, 0.0); one must be > 0"),
        (["run", "quantized/noise", "--set", "width=1e300"], "width is 1e+300; it must be less than or equal to"),
        (["run", "josephson/forecast", "--set", "csv=/dev/zero"], "csv is '/dev/zero', which cannot be read: No reg"),
        (["prune", "nowhere"], "dir is 'nowhere', which is no folder"),
        (["report", "nowhere"], "dir is 'nowhere', which is no run folder"),
        (["run", "josephson/forecast", "--set", "csv=missing.csv"], "csv is 'missing.csv', which cannot be read"),
        (["run", "josephson/forecast", "--set", "horizon=500"], "too"),
    ],
)
def test_a_bad_argument_is_one_line_and_exit_code_2(arguments, message, capsys):
    if message == "too":
        message = "values has 309 points"
    assert message in error_of(capsys, arguments, 2)


def test_show_gives_whole_numbers_whole_ranges_in_lists_and_takes_seeds(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["show", "josephson/neurons", "--seeds", "7"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert "≥ 0 and < 4294967296 " in lines["seed"]
    assert " 7 " in lines["seeds"]
    assert "list: ≥ 1 and ≤ " in lines["sizes"]


def test_prune_says_where_nothing_is_kept(capsys):
    Path("runs").mkdir()
    assert main(["prune"]) == 0
    assert capsys.readouterr().out == "no pieces are kept in runs: it holds no .pieces\n"


def test_a_store_that_cannot_be_written_is_replaced_by_one_that_can():
    Path("runs").mkdir()
    Path("runs/.pieces").touch()
    assert main(["run", DICE, "--out", "runs/demo/out"]) == 0
    assert list(Path("runs/demo/.pieces").glob("*/*.nc"))


def test_a_study_in_a_database_has_a_folder_of_its_own(monkeypatch):
    monkeypatch.setattr("morphax.cli._carried_out", lambda study, config, path, *_: folders.append(path) or 0)
    folders = []
    tune = ["tune", DICE, "--maximise", "mean", "--over", "throws=1:9", "--trials", "2"]
    for storage in ([], ["--storage", "sqlite:///a.db"], ["--storage", "sqlite:///b.db"]):
        assert main([*tune, *storage]) == 0
    assert len(set(folders)) == 3


def small(text: str) -> list[str]:
    """The command that runs an experiment with two pieces, whose second does what a text says."""
    Path("small.py").write_text(
        textwrap.dedent(f"""
            import os, signal, sys, time
            import xarray as xr
            from morphax import BaseConfig, Experiment

            class Small(Experiment):
                name = "demo/small"
                Config = BaseConfig
                def run(self, config, *, key, progress):
                    def second():
                        {text}
                        return xr.Dataset({{"x": 2.0}})
                    return progress.pieces({{"one": lambda: xr.Dataset({{"x": 1.0}}), "two": second}})["two"]
                def figures(self, dataset):
                    return {{}}
            """)
    )
    return ["run", "small.py:Small", "--out", "my run", "--fresh"]


def test_a_piece_that_ends_the_process_has_failed(capsys):
    assert main(small("sys.exit(0)")) == 1
    assert "two: it calls sys.exit(0), which ends no run" in capsys.readouterr().err
    assert len(list(Path(".pieces").glob("*/*.nc"))) == 1


def test_the_command_to_resume_is_for_a_shell_and_starts_nothing_anew(capsys):
    assert main(small("raise KeyboardInterrupt")) == 130
    assert "Resume with: morphax run small.py:Small --out 'my run'\n" in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows has no SIGHUP")
def test_a_run_that_is_to_outlive_its_terminal_goes_on():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert main(small("os.kill(os.getpid(), signal.SIGHUP)")) == 0
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows has no terminals that are closed")
def test_a_terminal_that_is_closed_stops_a_run_as_its_signal_does():
    command = [sys.executable, "-m", "morphax.cli", *small("open('begun', 'w').close(); time.sleep(60)")]
    # In a process of its own, in which JAX has started no threads: they would not survive a fork.
    program = f"""
        import os, pty, select, signal, time
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which `nohup make test` ignores
        child, terminal = pty.fork()
        if child == 0:
            os.execv({sys.executable!r}, {command!r})
        deadline = time.monotonic() + 60
        while not os.path.exists("begun") and time.monotonic() < deadline:
            if select.select([terminal], [], [], 0.05)[0]:
                os.read(terminal, 65536)
        os.close(terminal)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True, timeout=120
    )
    assert int(done.stdout) == 128 + signal.SIGHUP


def test_a_folder_of_another_run_is_refused(out, capsys):
    assert "a run with another seeds" in error_of(capsys, [*WAVEFORMS[:-1], "3", "--out", "out"], 2)
    other = ["run", "josephson/neurons", "--quick", "--out", "out"]
    assert "a run of josephson/waveforms" in error_of(capsys, other, 2)


@pytest.mark.slow
def test_fresh_removes_what_is_the_runs_and_nothing_else(out):
    strangers = [out / name for name in ("precious/thesis.tex", "figures/mine.png", "notes.md")]
    for path in strangers:
        path.parent.mkdir(exist_ok=True)
        path.write_text("x")
    before = read(out)
    assert main([*WAVEFORMS, "--set", "seed=1", "--fresh", "--out", "out"]) == 0
    assert not read(out).equals(before)
    assert all(path.exists() for path in strangers)
    assert "mine" not in (out / "report.html").read_text()


@pytest.mark.parametrize(
    ("name", "harm"),
    [
        ("result.nc", "cut"),
        *(
            pytest.param(name, harm, marks=pytest.mark.slow)
            for name in ("config.json", "claims.json", "result.nc", "manifest.json", "environment.json")
            for harm in ("cut", "empty", "missing")
            if (name, harm) != ("result.nc", "cut")
        ),
    ],
)
def test_a_damaged_file_is_made_anew(name, harm, out, capsys):
    """Never read, and never a dead end."""
    whole, path = read(out), out / name
    content = path.read_bytes()
    if harm == "missing":
        path.unlink()
    else:
        path.write_bytes(content[: len(content) // 2] if harm == "cut" else b"")
    assert main([*WAVEFORMS, "--out", "out"]) == 0
    said = capsys.readouterr().err
    assert harm == "missing" or f"{path}" in said
    assert {entry.name for entry in out.iterdir()} == FILES
    xr.testing.assert_identical(read(out), whole)
    if name not in ("environment.json", "result.nc", "manifest.json"):
        assert path.read_bytes() == content


def test_a_folder_with_other_files_is_left_alone(capsys):
    Path("mine").mkdir()
    (Path("mine") / "thesis.tex").write_text("x")
    for extra in ([], ["--fresh"]):
        assert "holds other files" in error_of(capsys, [*WAVEFORMS, "--out", "mine", *extra], 2)
    assert (Path("mine") / "thesis.tex").exists()


def test_debug_shows_the_traceback(capsys):
    assert main(["run", "nothing", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.slow
def test_a_failed_run_exits_with_1_and_keeps_what_was_computed(capsys, monkeypatch):
    from morphax.experiments.josephson import waveforms

    over_seeds = waveforms.over_seeds

    def broken(one, key, *operands):
        whole = over_seeds(one, key, *operands)
        return lambda seeds: {name: np.where(1 in seeds, np.nan, value) for name, value in whole(seeds).items()}

    monkeypatch.setattr(waveforms, "over_seeds", broken)
    assert main([*WAVEFORMS, "--out", "out"]) == 1
    *told, last = capsys.readouterr().err.strip().splitlines()
    assert told[0].startswith("morphax: seed 1: accuracy is not finite at row=0, seed=0")
    assert told[0].endswith("; the others go on")
    assert last.startswith("morphax: seed 1: accuracy is not finite")
    assert len(list(Path(".pieces").glob("*/*.nc"))) == 1
    monkeypatch.setattr(waveforms, "over_seeds", over_seeds)  # and not undo(), which would leave the folder, too
    assert main([*WAVEFORMS, "--out", str(Path("out").absolute())]) == 0


def test_ctrl_c_stops_cleanly_says_how_to_resume_and_resuming_gives_the_same_numbers(ran, capsys, monkeypatch):
    from morphax.experiments.josephson import waveforms

    over_seeds = waveforms.over_seeds

    def interrupted(one, key, *operands):
        whole = over_seeds(one, key, *operands)

        def of(seeds):
            if 1 in seeds:
                raise KeyboardInterrupt
            return whole(seeds)

        return of

    out = Path("out").absolute()
    monkeypatch.setattr("morphax.lab.progress.cores", lambda: 1)
    monkeypatch.setattr(waveforms, "over_seeds", interrupted)
    assert main([*WAVEFORMS, "--out", str(out)]) == 130
    assert f"Resume with: morphax run josephson/waveforms --quick --seeds 2 --out {out}" in capsys.readouterr().err
    assert len(list(Path(".pieces").glob("*/*.nc"))) == 1
    monkeypatch.setattr(waveforms, "over_seeds", over_seeds)
    assert main([*WAVEFORMS, "--out", str(out)]) == 0
    xr.testing.assert_equal(read(out), read(ran[0] / "out"))


@pytest.mark.slow
def test_a_killed_training_resumes_and_gives_the_same_numbers(tmp_path):
    """The design experiment, killed by the operating system in the middle of a training."""
    small = ["--quick", "--seeds", "2", "--set", "train_points=64", "--set", "test_points=64", "--set", "steps=60"]
    command = [sys.executable, "-m", "morphax.cli", "run", "josephson/design", *small]
    main(["run", "josephson/design", *small, "--out", "elsewhere/whole"])
    process = subprocess.Popen([*command, "--out", "killed"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(Path("killed").glob("checkpoints/*/*/*/state-*.eqx")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert not (Path("killed") / "result.nc").exists()
    assert main(["run", "josephson/design", *small, "--out", "killed"]) == 0
    xr.testing.assert_equal(read(Path("killed")), read(Path("elsewhere/whole")))
    histories = [(Path(name) / "history.jsonl").read_text() for name in ("killed", "elsewhere/whole")]
    assert histories[0] == histories[1]
    lines = [json.loads(line) for line in histories[0].splitlines()]
    assert {(line["piece"], line["step"]) for line in lines} == {
        (piece, step) for piece in ("designed, 4", "designed, 16") for step in range(60)
    }


@pytest.mark.slow
def test_forecast_of_a_users_file_writes_predictions(capsys):
    values = 5 + np.sin(np.arange(200) / 3)
    Path("tide.csv").write_text("day,height\n" + "".join(f"{i},{v:.6f}\n" for i, v in enumerate(values)))
    series = ["--set", "csv=tide.csv", "--set", "column=height", "--set", "horizon=3", "--set", "measured=9"]
    few = ["--set", "dissipations=1", "--set", "leak_rates=1", "--set", "largest_order=3", "--seeds", "1"]
    assert main(["run", "josephson/forecast", "--quick", *series, *few, "--out", "out"]) == 0
    table = np.genfromtxt(Path("out") / "predictions.csv", delimiter=",", names=True)
    assert table.dtype.names is not None
    assert set(table.dtype.names) == {"time", "observed", "mixer", "persistence", "autoregression", "echostate"}
    assert np.allclose(table["observed"], values[table["time"].astype(int)], atol=1e-5)
    # A sampled sine obeys a linear recurrence of second order.
    assert np.allclose(table["autoregression"], table["observed"], atol=1e-2)
    assert np.allclose(table["persistence"], values[table["time"].astype(int) - 3], atol=1e-5)


def test_a_columns_name_is_drawn_as_it_is(tmp_path):
    from morphax.experiments.josephson.forecast import MODELS, Forecast

    observed = xr.DataArray([1.0, 2.0, 1.5], {"time": [0.0, 1.0, 2.0]}, attrs={"long_name": "a$_{$ and $x"})
    errors = xr.DataArray([[0.5]] * len(MODELS), {"model": list(MODELS), "seed": [0]})
    dataset = xr.Dataset({"observed": observed, "prediction": observed * (1 + errors), "nrmse": errors})
    save_figures(Forecast().figures(dataset), tmp_path)
    assert "a$_{$ and $x" in (tmp_path / "forecast.svg").read_text()  # a comment beside the glyphs


@pytest.mark.slow
def test_a_large_offset_keeps_the_forecast_in_single_precision(capsys):
    values = 1.7e9 + 10 * np.sin(np.arange(200) / 3)
    Path("tide.csv").write_text("day,a$_{$\n" + "".join(f"{i},{v:.6f}\n" for i, v in enumerate(values)))
    series = ["--set", "csv=tide.csv", "--set", "measured=2", "--set", "neurons=2", "--set", "precision=single"]
    few = ["--set", "dissipations=1", "--set", "leak_rates=1", "--set", "largest_order=3", "--seeds", "1"]
    assert main(["run", "josephson/forecast", *series, *few, "--out", "out"]) == 0
    assert "a$_{$" in (Path("out") / "report.html").read_text()
    table = np.genfromtxt(Path("out") / "predictions.csv", delimiter=",", names=True)
    assert np.allclose(table["observed"], values[134:], rtol=0, atol=1e-2)
    assert np.allclose(table["autoregression"], values[134:], rtol=0, atol=0.1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("day,height\n1,2\n2,\n3,4\n", "misses 1 of 3 values, in row 3"),
        ("day,height\n1,2\n2,tall\n3,4\n", "holds 'tall' in row 3"),
        ("day,height\n1,2\n2,3\n3,4\n", "values has 3 points"),
        ("day,hight\n1,2\n2,3\n3,4\n", "did you mean 'hight'?"),
    ],
)
def test_a_bad_series_is_one_line(content, message, capsys):
    Path("tide.csv").write_text(content)
    arguments = ["run", "josephson/forecast", "--set", "csv=tide.csv", "--set", "column=height"]
    assert message in error_of(capsys, arguments, 2)


def test_a_pipe_that_cannot_encode_a_sign_gets_a_question_mark(monkeypatch):
    """As on Windows, whose pipes take the characters of a code page."""
    pipe = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr(sys, "stdout", pipe)
    assert main(["show", "josephson/waveforms"]) == 0
    pipe.seek(0)
    assert "? 1 " in pipe.read()


def test_what_an_extra_installs_is_asked_for_before_anything_is_trained(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    error = error_of(capsys, ["run", "phase-oscillators/digits", "--quick", "--out", "out"], 1)
    assert 'pip install "morphax[estimators]"' in error
    assert not list(Path("out").glob("checkpoints/*"))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in FAST else pytest.mark.slow)
        for name in sorted(set(all_experiments()) - {"josephson/waveforms"})
    ],
)
def test_every_experiment_runs_quickly_and_draws_its_figure(name, request):
    if name in LONG:
        request.getfixturevalue("optimised")
    assert main(["run", name, "--quick", "--out", "out"]) == 0
    claims = read_json(Path("out") / "claims.json")
    # Which claims a quick run meets is a matter of luck where it trains a few small networks.
    assert not claims or any(claim["ours"] is not None and np.isfinite(claim["ours"]) for claim in claims)
    assert list((Path("out") / "figures").glob("*.png"))


def test_who_has_read_enough_ends_a_command_in_silence():
    with subprocess.Popen(
        [sys.executable, "-m", "morphax.cli", "list"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141
