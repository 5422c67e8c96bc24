"""Schedulers and workers that are started by others; and processes that are killed, of which none stays behind."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Thread

import pytest

from morphax.lab.errors import UsageError
from morphax.lab.executor import Executor, SchedulerLostError
from morphax.lab.run_folder import RunFolder
from morphax.lab.script import load_experiment

SPEC = f"{Path(__file__).with_name('bench.py')}:Bench"
BENCH = load_experiment(SPEC)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("default"),
    pytest.mark.skipif(sys.platform == "win32", reason="Windows has none of these signals"),
]


class Cluster:
    """A scheduler and two workers in a folder of their own, as an administrator starts them."""

    def __init__(self, folder: Path):
        file = folder / "scheduler.json"
        self.folder = folder
        self.scheduler = self.start("scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(file))
        wait_for(lambda: file.exists() and file.read_text().endswith("}"))
        self.address = json.loads(file.read_text())["address"]
        self.workers = [self.start("worker", self.address, "--nthreads", "1") for _ in range(2)]

    def start(self, what: str, *arguments: str) -> subprocess.Popen:
        command = [sys.executable, "-m", "dask", what, *arguments, "--no-dashboard", "--dashboard-address", ":0"]
        return subprocess.Popen(command, cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def end(self) -> None:
        for process in (*self.workers, self.scheduler):
            process.terminate()
            process.wait(timeout=20)


@pytest.fixture
def cluster(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    cluster = Cluster(tmp_path / "elsewhere")
    yield cluster
    cluster.end()


def wait_for(happened, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def pieces(folder: Path) -> int:
    return len(list((folder / ".pieces").glob("*/[!.]*.nc")))


def run(folder: Path, executor: Executor | None, **numbers) -> RunFolder:
    return RunFolder(folder, BENCH(), BENCH.Config(**numbers), executor=executor)


def test_a_cluster_that_is_there_gives_the_numbers_of_a_serial_run(tmp_path, cluster, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("factor.csv").write_text("3.0")
    with Executor(scheduler=cluster.address) as executor:
        run(tmp_path / "a" / "out", executor, csv="factor.csv").execute()
        run(tmp_path / "a" / "out2", executor, count=2).execute()
    serial = run(tmp_path / "b" / "out", None, csv="factor.csv")
    serial.execute()
    assert RunFolder(tmp_path / "a" / "out", BENCH(), serial.config).dataset().x.identical(serial.dataset().x)
    assert all(process.poll() is None for process in (cluster.scheduler, *cluster.workers))


def test_a_shared_folder_is_where_the_run_was_asked_for(tmp_path, cluster, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Executor(scheduler=cluster.address, shared=Path("states")) as executor:
        ran = run(tmp_path / "out", executor, deadly=2, deaths=1, notes=str(tmp_path))
        ran.execute()
    assert ran.dataset()["first"].values.tolist() == [0, 0, 5, 0]
    assert (tmp_path / "states").is_dir()


def test_a_cluster_whose_workers_leave_and_come_again_says_so_each_time(tmp_path, cluster):
    said: list[str] = []

    def come_and_go() -> None:
        for times in (1, 2):
            before = pieces(tmp_path)
            wait_for(lambda before=before: pieces(tmp_path) > before)
            for worker in cluster.workers:
                worker.terminate()
                worker.wait(timeout=20)
            wait_for(lambda times=times: len(said) == times)
            cluster.workers[:] = [cluster.start("worker", cluster.address, "--nthreads", "1")]

    killer = Thread(target=come_and_go)
    killer.start()
    with Executor(scheduler=cluster.address, say=said.append) as executor:
        executor._client.wait_for_workers(2)
        run(tmp_path / "out", executor, count=16, seconds=0.5).execute()
    killer.join()
    assert said == [f"waiting for workers of {cluster.address}"] * 2


def test_workers_that_are_there_take_one_core_a_thread_before_jax_begins_to_compute(cluster):
    with Executor(scheduler=cluster.address) as executor:
        executor._client.wait_for_workers(2)
        executor.check()  # asks JAX for its devices, when XLA makes its threads
        found = executor._client.run(lambda: os.environ.get("NPROC"))
    assert set(found.values()) == {"1"}


def test_a_scheduler_that_dies_ends_the_run_and_the_next_goes_on(tmp_path, cluster):
    numbers = {"count": 12, "seconds": 0.3}

    def kill() -> None:
        wait_for(lambda: pieces(tmp_path) > 0)
        cluster.scheduler.kill()

    killer = Thread(target=kill)
    killer.start()
    with (
        Executor(scheduler=cluster.address) as executor,
        pytest.raises(SchedulerLostError, match=f"the scheduler at {cluster.address} is gone"),
    ):
        run(tmp_path / "out", executor, **numbers).execute()
    killer.join()
    before = pieces(tmp_path)
    assert 1 <= before < 12
    run(tmp_path / "out", None, **numbers).execute()
    assert pieces(tmp_path) == 12


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "tls://127.0.0.1:1"])  # the second without certificates
def test_no_scheduler_is_one_line(address):
    with pytest.raises(UsageError, match=f"scheduler is '{address}'; none answers there"):
        Executor(scheduler=address, patience=1.0).backend  # noqa: B018


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_coordinator_that_ends_leaves_no_process_behind_and_goes_on(tmp_path, number):
    out = tmp_path / "out"
    numbers = ["--set", "count=16", "--set", "seconds=0.5"]
    command = [sys.executable, "-m", "morphax.cli", "run", SPEC, "--workers", "2", "--out", str(out), *numbers]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: pieces(tmp_path) >= 3, 60)
    workers = descendants(process.pid)
    assert len(workers) >= 2
    os.kill(process.pid, number)
    _, told = process.communicate(timeout=60)
    if number != signal.SIGKILL:
        assert process.returncode == 128 + number
        assert "stopped; finished pieces are kept" in told
    wait_for(lambda: not any(alive(worker) for worker in workers), 60)
    before = pieces(tmp_path)
    assert 3 <= before < 16
    run(out, None, count=16, seconds=0.5).execute()
    assert pieces(tmp_path) == 16


@pytest.mark.parametrize("moment", ["start", "work"])
def test_ctrl_c_which_a_terminal_sends_to_workers_too_is_one_line_and_leaves_no_process_behind(tmp_path, moment):
    out = tmp_path / "out"
    numbers = ["--set", "count=16", "--set", "seconds=0.5"]
    command = [sys.executable, "-m", "morphax.cli", "run", SPEC, "--workers", "2", "--out", str(out), *numbers]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    wait_for(lambda: len(descendants(process.pid)) >= 2 and (moment == "start" or pieces(tmp_path) >= 3))
    workers = descendants(process.pid)
    os.killpg(process.pid, signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT
    assert re.fullmatch(r"\nstopped; finished pieces are kept\. Resume with: .*\n", told)
    wait_for(lambda: not any(alive(worker) for worker in workers), 60)


def descendants(process: int) -> list[int]:
    listed = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    parents = {int(child): int(parent) for child, parent in (line.split() for line in listed.splitlines())}

    def is_below(child: int) -> bool:
        return child in parents and (parents[child] == process or is_below(parents[child]))

    return [child for child in parents if is_below(child) and not is_ps(child)]


def is_ps(process: int) -> bool:
    return "ps" in name_of(process).split()[:1]


def name_of(process: int) -> str:
    try:
        return Path(f"/proc/{process}/comm").read_text()
    except OSError:
        return ""


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
