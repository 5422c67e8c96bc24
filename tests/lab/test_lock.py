"""One writer for a folder: who is at work there is said, a dead owner's lock is taken over."""

import multiprocessing
import os
import socket
import subprocess
import sys
import textwrap
import time

import pytest

from morphax.files import read_sealed, write_sealed
from morphax.lab import lock
from morphax.lab.lock import NAME, LockedError, LostError, locked


def test_a_second_process_is_told_who_is_at_work(tmp_path):
    with locked(tmp_path):
        with (
            pytest.raises(LockedError, match=rf"is in use by process {os.getpid()} on .* since .*wait for it \(--wait"),
            locked(tmp_path),
        ):
            pass
        assert (tmp_path / NAME).exists()
    assert not list(tmp_path.iterdir())
    with locked(tmp_path):
        pass


def test_a_password_is_not_written_into_a_lock(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["morphax", "tune", "--storage", "postgresql://me:secret@host/db"])
    with locked(tmp_path):
        assert read_sealed(tmp_path / NAME)["command"] == "morphax tune --storage 'postgresql://me:***@host/db'"


def test_the_lock_is_released_after_an_error(tmp_path):
    with pytest.raises(ZeroDivisionError), locked(tmp_path):
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())


def test_waiting_ends_with_the_other_process(tmp_path):
    program = f"""
        import time, pathlib
        from morphax.lab.lock import locked
        with locked(pathlib.Path({str(tmp_path)!r})):
            print("held", flush=True)
            time.sleep(1.0)
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        said, started = [], time.monotonic()
        with locked(tmp_path, wait=True, say=said.append):
            assert time.monotonic() - started > 0.5
    assert len(said) == 1
    assert f"process {other.pid} on" in said[0]
    assert other.returncode == 0


HOW = ["killed", "silent elsewhere", "cut short"] + ["number given anew"] * (sys.platform == "linux")


@pytest.mark.parametrize("how", HOW)
def test_the_lock_of_a_dead_process_is_taken_over(tmp_path, how):
    path = tmp_path / NAME
    owner = lock._me()
    if how == "killed":
        owner["process"] = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True)
        owner["process"] = int(owner["process"].stdout)
    elif how == "number given anew":
        owner["started"] = "1"
    elif how == "silent elsewhere":
        owner["host"] = "elsewhere"
    write_sealed(path, owner)
    if how == "cut short":
        path.write_text("{")
    if how in ("silent elsewhere", "cut short"):
        old = time.time() - 2 * lock.SILENCE
        os.utime(path, (old, old))
    with locked(tmp_path):
        assert read_sealed(path)["process"] == os.getpid()


@pytest.mark.parametrize("how", ["here, long silent", "elsewhere, not long silent"])
def test_the_lock_of_a_living_process_is_respected(tmp_path, how):
    owner = lock._me()
    if how.startswith("elsewhere"):
        owner |= {"host": "elsewhere", "process": 2**30}
    write_sealed(tmp_path / NAME, owner)
    silence = 100 * lock.SILENCE if how.startswith("here") else lock.SILENCE / 2
    old = time.time() - silence
    os.utime(tmp_path / NAME, (old, old))
    with pytest.raises(LockedError, match="is in use by"), locked(tmp_path):
        pass


def test_whose_lock_was_taken_over_notices(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "HEARTBEAT", 0.05)
    with locked(tmp_path) as check:
        check()
        write_sealed(tmp_path / NAME, lock._me())
        time.sleep(0.5)
        with pytest.raises(LostError, match="was taken over"):
            check()
    assert (tmp_path / NAME).exists()


def _contend(folder, barrier, results):
    barrier.wait()
    try:
        with locked(folder):
            time.sleep(0.5)
            results.put("held")
    except LockedError:
        results.put("refused")


@pytest.mark.slow
def test_of_several_that_see_a_dead_owner_one_takes_over(tmp_path):
    context = multiprocessing.get_context("spawn")
    for _ in range(2):
        write_sealed(tmp_path / NAME, lock._me() | {"process": 2**22 + 1, "host": socket.gethostname()})
        barrier, results = context.Barrier(3), context.Queue()
        others = [context.Process(target=_contend, args=(tmp_path, barrier, results)) for _ in range(3)]
        for other in others:
            other.start()
        for other in others:
            other.join()
        assert sorted(results.get() for _ in others) == ["held", "refused", "refused"]
        assert not list(tmp_path.iterdir())
