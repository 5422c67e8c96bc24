"""Pieces on worker processes: the numbers of a serial run, and what happens when something breaks."""

import hashlib
import json
import os
import re
import signal
import socket
import tempfile
import time
from pathlib import Path
from uuid import uuid4

import pytest
import xarray as xr

import morphax.lab.executor as executor_module
from morphax._checks import cores
from morphax.files import TEMPORARY, read_sealed, received, write_atomically, writer_of
from morphax.lab.errors import UsageError
from morphax.lab.executor import Executor, SchedulerLostError, _called, _named, _Round
from morphax.lab.job import Job, Task
from morphax.lab.lock import lives
from morphax.lab.mailbox import Mailbox
from morphax.lab.progress import PiecesFailedError
from morphax.lab.run_folder import RunFolder
from morphax.lab.script import load_experiment

BENCH, TWICE = (load_experiment(f"{Path(__file__).with_name('bench.py')}:{name}") for name in ("Bench", "Twice"))

# Of Dask, when worker processes end.
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module")
def executor():
    with Executor(2) as executor:
        executor.check()  # workers are at home where they are started: not in a test's folder
        yield executor


def run(folder: Path, executor: Executor | None, **numbers) -> RunFolder:
    return RunFolder(folder, BENCH(), BENCH.Config(**numbers), executor=executor)


def computed(folder: Path, executor: Executor | None, **numbers) -> xr.Dataset:
    ran = run(folder, executor, **numbers)
    ran.execute()
    return ran.dataset()


@pytest.mark.slow
def test_workers_give_the_numbers_history_and_files_of_a_serial_run(tmp_path, executor):
    serial = computed(tmp_path / "a" / "serial", None, count=30)
    parallel = computed(tmp_path / "b" / "parallel", executor, count=30)
    for dataset in (serial, parallel):
        del dataset.attrs["seconds"]
    assert parallel.identical(serial)
    one, other = ({path.name for path in (tmp_path / name).rglob("*")} for name in ("a/serial", "b/parallel"))
    assert one == other
    assert (tmp_path / "a/serial/history.jsonl").read_text() == (tmp_path / "b/parallel/history.jsonl").read_text()
    rows = [json.loads(line) for line in (tmp_path / "b/parallel/history.jsonl").read_text().splitlines()]
    assert [row["piece"] for row in rows[::3]] == [f"steps {i}" for i in range(30)]
    pieces = [read_sealed(tmp_path / name / "manifest.json")["pieces"] for name in ("a/serial", "b/parallel")]
    assert list(pieces[0]) == list(pieces[1])


@pytest.mark.slow
def test_pieces_that_fail_are_named_and_tried_again_alone(tmp_path, executor):
    with pytest.raises(PiecesFailedError, match=r"2 of 6 pieces failed.*: no power at [14]; likewise 'piece [14]'"):
        run(tmp_path / "out", executor, count=6, failing=(1, 4), notes=str(tmp_path)).execute()
    before = set((tmp_path / ".pieces").glob("*/[!.]*.nc"))
    assert len(before) == 4
    (tmp_path / "mended").touch()
    run(tmp_path / "out", executor, count=6, failing=(1, 4), notes=str(tmp_path)).execute()
    assert before < set((tmp_path / ".pieces").glob("*/[!.]*.nc"))


@pytest.mark.slow
def test_a_worker_that_is_killed_is_replaced_and_its_training_goes_on(tmp_path, executor):
    dataset = computed(tmp_path / "out", executor, deadly=2, deaths=2, notes=str(tmp_path))
    assert (tmp_path / "deaths").read_text() == "2"
    assert dataset["first"].values.tolist() == [0, 0, 6, 0]  # steps 0 to 5 were not done again
    serial = computed(tmp_path / "other" / "out", None)
    assert dataset.x.identical(serial.x)
    assert not (tmp_path / "out" / "checkpoints").exists()
    mine = Path(tempfile.gettempdir()).glob(f"{TEMPORARY}{socket.gethostname()}-*")
    assert all(lives(writer_of(folder)[1]) for folder in mine)  # those of the dead are gone


@pytest.mark.slow
def test_trainings_go_on_in_a_shared_folder(tmp_path):
    with Executor(1, shared=tmp_path / "shared") as executor:
        dataset = computed(tmp_path / "out", executor, deadly=2, deaths=1, notes=str(tmp_path))
        assert dataset["first"].values.tolist() == [0, 0, 5, 0]
        assert [path for path in (tmp_path / "shared").rglob("*") if path.is_file()] == []


@pytest.mark.slow
@pytest.mark.parametrize(("fresh", "first"), [(False, 7), (True, 0)])
def test_a_run_that_begins_anew_takes_up_no_state_of_a_shared_folder(tmp_path, fresh, first):
    asked = {"deadly": 2, "deaths": 3, "notes": str(tmp_path)}
    with Executor(1, shared=tmp_path / "shared") as executor:
        with pytest.raises(RuntimeError, match="3 workers ended"):
            run(tmp_path / "out", executor, **asked).execute()
        assert list((tmp_path / "shared").glob("*/*/*/*/*/state-0.txt"))
        again = RunFolder(tmp_path / "out", BENCH(), BENCH.Config(**asked), fresh=fresh, executor=executor)
        again.execute()
    assert again.dataset()["first"].values.tolist() == [0, 0, first, 0]


@pytest.mark.slow
def test_pieces_that_are_asked_for_later_are_found_where_they_do_not_depend_on_the_first(tmp_path, executor):
    asked = TWICE.Config()
    ran = RunFolder(tmp_path / "out", TWICE(), asked, executor=executor)
    ran.execute()
    assert ran.dataset().x.values.tolist() == [1.0, 2.0]
    asked = asked.model_copy(update={"known_before": False})
    with pytest.raises(UsageError, match=r"worker \d cannot do this: .* asks for 'b[01]' when .* ask twice"):
        RunFolder(tmp_path / "out2", TWICE(), asked, executor=executor).execute()
    RunFolder(tmp_path / "out3", TWICE(), asked).execute()


@pytest.mark.slow
def test_a_piece_that_kills_three_workers_is_given_up_by_name(tmp_path, executor):
    with pytest.raises(RuntimeError, match="piece 2: 3 workers ended while they carried it out"):
        run(tmp_path / "out", executor, deadly=2, notes=str(tmp_path)).execute()
    assert (tmp_path / "deaths").read_text() == "3"
    assert len(list((tmp_path / ".pieces").glob("*/[!.]*.nc"))) == 3


@pytest.mark.slow
def test_a_scheduler_that_dies_before_it_hands_out_what_is_finished_is_one_line(tmp_path, executor, monkeypatch):
    def gone(*arguments, **more):
        raise OSError("timed out")

    monkeypatch.setattr(executor._client, "gather", gone)
    with pytest.raises(SchedulerLostError, match="the scheduler is gone; what was finished is kept"):
        run(tmp_path / "out", executor).execute()


@pytest.mark.slow
def test_a_result_that_is_lost_before_it_is_asked_for_is_made_again(tmp_path, executor, monkeypatch):
    executor.check()
    following, lost = _Round.next, []

    def without_worker(ongoing, timeout):
        """The worker of the first finished piece ends before its result is fetched."""
        if not lost and (key := next(iter(ongoing.chunks), None)) is not None:
            future = ongoing.chunks[key][0]
            while future.status != "finished":
                time.sleep(0.01)
            (address,) = executor._client.who_has([future])[key]
            lost.append(address)
            executor._client.run(os._exit, 1, workers=[address], on_error="return")
            while future.status == "finished":
                time.sleep(0.01)
        yield from following(ongoing, timeout)

    monkeypatch.setattr(_Round, "next", without_worker)
    dataset = computed(tmp_path / "out", executor, count=6)
    assert lost
    assert dataset.x.identical(computed(tmp_path / "other" / "out", None, count=6).x)


@pytest.mark.slow
def test_data_that_a_worker_lacks_are_sent(tmp_path, executor, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")  # the path means nothing in the folder of the workers
    Path("factor.csv").write_text("3.0")
    scaled = computed(tmp_path / "out", executor, csv="factor.csv")
    plain = computed(tmp_path / "out2", executor)
    assert scaled.x.values.tolist() == (3 * plain.x).values.tolist()
    assert read_sealed(tmp_path / "out" / "config.json")["config"]["csv"] == "factor.csv"


@pytest.mark.slow
def test_data_that_change_before_they_are_sent_end_the_run(tmp_path, executor):
    (tmp_path / "factor.csv").write_text("3.0")
    ran = run(tmp_path / "out", executor, csv=str(tmp_path / "factor.csv"))
    (tmp_path / "factor.csv").write_text("4.0")
    with pytest.raises(UsageError, match=r"^csv \(.*factor.csv\) has changed while the run went on; run again$"):
        ran.execute()


@pytest.mark.slow
def test_data_that_do_not_arrive_are_not_sent_for_ever(tmp_path, executor, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("factor.csv").write_text(f"3.0{uuid4().int}")
    sent = []

    def lost():
        def take(digest: str, suffix: str, content: bytes) -> None:
            pass

        sent.append(take)
        return take

    monkeypatch.setattr("morphax.lab.executor._take_data", lost)
    with pytest.raises(UsageError, match=r"worker \d lacks csv also after it was sent"):
        run(tmp_path / "out", executor, csv="factor.csv", count=1).execute()
    assert 2 <= len(sent) <= 4  # to each of two workers


@pytest.mark.slow
def test_what_a_worker_cannot_keep_is_told_as_its_own(tmp_path, executor, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("factor.csv").write_text(f"3.0{uuid4().int}")

    def full():
        def take(digest: str, suffix: str, content: bytes) -> None:
            raise OSError(28, "No space left on device")

        return take

    monkeypatch.setattr("morphax.lab.executor._take_data", full)
    with pytest.raises(UsageError, match=r"worker \d cannot keep csv: OSError: .*No space left on device"):
        run(tmp_path / "out", executor, csv="factor.csv").execute()


@pytest.mark.slow
def test_a_worker_that_ends_while_a_file_is_sent_is_replaced(tmp_path, executor, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("factor.csv").write_text(f"3.0{uuid4().int}")
    takes = executor_module._take_data

    def deadly():
        def take(digest: str, suffix: str, content: bytes) -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        monkeypatch.setattr(executor_module, "_take_data", takes)
        return take

    monkeypatch.setattr(executor_module, "_take_data", deadly)
    dataset = computed(tmp_path / "out", executor, csv="factor.csv")
    assert dataset.sizes["piece"] == 4


@pytest.mark.slow
def test_known_data_that_a_worker_lacks_are_sent(tmp_path, executor):
    content = f"3.0{uuid4().int}".encode()  # that no machine has
    digest = hashlib.sha256(content).hexdigest()
    asked = {"known": digest, "notes": str(tmp_path)}
    with pytest.raises(UsageError, match=r"worker .* lacks known, and .*No such file or directory"):
        run(tmp_path / "out", executor, **asked).execute()
    (tmp_path / "known").write_bytes(content)
    try:
        scaled = computed(tmp_path / "out", executor, **asked)
        assert received(digest).read_bytes() == content
    finally:
        received(digest).unlink(missing_ok=True)
    plain = computed(tmp_path / "out2", executor)
    assert scaled.x.values.tolist() == (float(content) * plain.x).values.tolist()


def test_workers_are_named_by_name_and_address():
    there = {"tcp://a:1": {"name": 3}, "tcp://b:1": {"name": "lab1"}, "tcp://c:1": {"name": "tcp://c:1"}}
    assert [_named(address, there) for address in (*there, "tcp://gone:1")] == [
        "worker 3",
        "worker lab1 (tcp://b:1)",
        "worker tcp://c:1",
        "worker tcp://gone:1",
    ]


@pytest.mark.parametrize(
    ("worker", "called"), [(3, "worker 3"), ("lab1-0", "lab1-0"), ("tcp://10.0.0.1:41233", "10.0.0.1:41233")]
)
def test_workers_are_called_so_that_their_piece_fits_beside_it(worker, called):
    assert _called(worker) == called


def test_a_state_that_cannot_be_kept_is_told_once_and_those_after_it_are_kept(tmp_path, executor, monkeypatch):
    from distributed import Queue

    full, said = [True, True, False], []

    def write(path, content):
        if full.pop(0):
            raise OSError(28, "No space left on device")
        write_atomically(path, content)

    monkeypatch.setattr("morphax.lab.mailbox.write_atomically", write)
    task = Task(Job("demo", {}, {}, "", {}), "piece", tmp_path)
    mailbox = Mailbox(executor._client, {"0": task}, said.append)
    mailbox.start()
    for _ in range(3):
        Queue(mailbox.name, client=executor._client).put(("0", {"steps/state-0.txt": b"5"}))
    deadline = time.monotonic() + 30
    while not (found := list(tmp_path.glob("*/steps/state-0.txt"))) and time.monotonic() < deadline:
        time.sleep(0.01)
    mailbox.stop()
    assert [path.read_bytes() for path in found] == [b"5"]
    (told,) = said
    assert told.startswith("piece: its state cannot be kept ([Errno 28] No space left on device); if it is interr")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give either workers, a number of processes here, or scheduler"),
        ({"workers": 2, "scheduler": "tcp://here:1"}, "give either"),
        ({"workers": 0}, "workers is 0; it must be from 1 to 1024"),
        *(
            ({"scheduler": address}, f"scheduler is '{address}'; it must be an address such as tcp://127.0.0.1:8786")
            for address in ("127.0.0.1", "127.0.0.1:8786", "tcp://127.0.0.1", "")
        ),
    ],
)
def test_bad_executors_are_refused(options, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        Executor(**options)


@pytest.mark.slow
def test_workers_with_another_morphax_are_refused(executor, monkeypatch):
    monkeypatch.setattr("morphax.lab.executor.installed", lambda: {"morphax": "9", "jax": "1"})
    monkeypatch.delitem(executor.__dict__, "_about", raising=False)
    with pytest.raises(UsageError, match=r"has morphax .*, not 9, jax .*, not 1; install the same versions"):
        executor.check()


@pytest.mark.slow
def test_workers_have_their_share_of_the_cores_whoever_was_before_them(monkeypatch):
    monkeypatch.delenv("NPROC", raising=False)
    before, shares = dict(os.environ), []
    for workers in (1, 2):
        with Executor(workers) as executor:
            executor.check()
            shares += executor._client.run(lambda: int(os.environ["NPROC"])).values()
    assert shares == [cores(), max(1, cores() // 2), max(1, cores() // 2)]
    # Dask remembers in the environment that its process titles were set, and how strings are hashed.
    own = {"__DASK_PARENT_PID", "PYTHONHASHSEED"}
    assert {name: value for name, value in os.environ.items() if name not in own - before.keys()} == before
