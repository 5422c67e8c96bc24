"""One writer for a folder: a lock with its owner's name and a heartbeat."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from morphax.files import DamagedError, read_sealed, write_sealed
from morphax.lab.environment import command_line
from morphax.lab.errors import UsageError

NAME = ".lock.json"
HEARTBEAT = 5.0
"""Seconds between two signs of life."""
SILENCE = 12 * HEARTBEAT
"""Seconds without a sign of life after which a process on another machine, or one that cannot be seen, is gone."""


class LockedError(UsageError):
    """Another process is at work in a folder."""


class LostError(RuntimeError):
    """Another process took a folder over, because this one gave no sign of life."""


@contextmanager
def locked(
    folder: Path, *, wait: bool = False, say: Callable[[str], object] = lambda text: None
) -> Iterator[Callable[[], None]]:
    """Hold the lock of a folder meanwhile; what is given raises `LostError` where it was lost.

    The lock of a process that was killed is taken over: at once where that can be seen (the same machine), after a
    minute without a sign of life where it cannot. On the same machine a process that lives keeps its lock, however
    long it is stopped.

    **Arguments:**

    - `folder`: exists and can be written.
    - `wait`: for the other process to end.
    - `say`: is told, once, for whom.

    **Raises:** `LockedError` that says who is at work there.
    """
    path, owner = folder / NAME, _me()
    told = False
    while not _take(path, owner):
        other = _read(path)
        if other is None:
            time.sleep(0.01)
            continue
        where = f"{str(folder)!r} is in use by process {other['process']} on {other['host']} since {other['since']}"
        if not wait:
            raise LockedError(f"out is {where} ({other['command']}); wait for it (--wait), or choose another folder")
        if not told:
            say(f"{where}; waiting for its end")
        told = True
        time.sleep(0.2)
    for leftover in folder.glob(f"{NAME}-*"):
        leftover.unlink(missing_ok=True)
    stop, lost = threading.Event(), threading.Event()

    def beat() -> None:
        while not stop.wait(HEARTBEAT):
            found = _read(path)
            if found is None or found["token"] != owner["token"]:
                lost.set()
                return
            with suppress(OSError):
                os.utime(path)

    def check() -> None:
        if lost.is_set():
            raise LostError(f"{str(folder)!r} was taken over by another process while this one stood still; run again")

    thread = threading.Thread(target=beat, daemon=True, name="heartbeat")
    thread.start()
    try:
        yield check
    finally:
        stop.set()
        thread.join()
        found = _read(path)
        if found is not None and found["token"] == owner["token"]:
            path.unlink(missing_ok=True)


def remove_dead(folder: Path) -> None:
    """Remove the lock of a process that was killed between its last write and its end."""
    path = folder / NAME
    if _is_dead(path, _read(path)):
        with suppress(OSError):
            path.unlink()


def lives(process: int) -> bool:
    """Whether a process of this machine has not ended."""
    if sys.platform == "win32":
        return _lives_on_windows(process)
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return not _is_zombie(process)


def _me() -> dict[str, Any]:
    return {
        "token": uuid4().hex,
        "process": os.getpid(),
        "started": _started(os.getpid()),
        "host": socket.gethostname(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command_line(),
    }


def _take(path: Path, owner: dict[str, Any]) -> bool:
    """Make the lock, whole and only where there is none; remove that of a dead process, so that it can be made."""
    claim = path.with_name(f"{path.name}-{owner['token']}")
    try:
        write_sealed(claim, owner)
        os.link(claim, path)
        return True
    except FileNotFoundError:
        return False  # who holds the lock removed it with what dead processes left
    except FileExistsError:
        pass
    except OSError:  # a file system without links
        with suppress(FileExistsError):
            with path.open("xb") as file:
                file.write(claim.read_bytes())
            return True
    finally:
        claim.unlink(missing_ok=True)
    dead = _read(path)
    if _is_dead(path, dead):
        with suppress(OSError):
            path.replace(claim)  # of several that see it dead, one moves it away
            if _read(claim) != dead:
                os.link(claim, path)  # and this one came too late: it is the next owner's
        claim.unlink(missing_ok=True)
    return False


def _read(path: Path) -> dict[str, Any] | None:
    """Whose lock it is; None where there is none, or one that was cut short."""
    try:
        return read_sealed(path)
    except (DamagedError, OSError):
        return None


def _is_dead(path: Path, found: dict[str, Any] | None) -> bool:
    """Whether the owner of a lock lives no more."""
    try:
        silence = time.time() - path.stat().st_mtime
    except OSError:
        return False
    if found is None or found["host"] != socket.gethostname():
        return silence > SILENCE
    if not lives(found["process"]):
        return True
    # Numbers of processes are given anew; when each began is not known everywhere.
    now = _started(found["process"])
    return now is not None and now != found["started"]


def _lives_on_windows(process: int) -> bool:
    import ctypes

    kernel = ctypes.windll.kernel32  # pyright: ignore[reportAttributeAccessIssue]
    handle = kernel.OpenProcess(0x00100000, False, process)  # SYNCHRONIZE
    if not handle:
        return False
    try:
        return kernel.WaitForSingleObject(handle, 0) != 0
    finally:
        kernel.CloseHandle(handle)


def _is_zombie(process: int) -> bool:
    return (fields := _status(process)) is not None and fields[0] == "Z"


def _started(process: int) -> str | None:
    """When a process began, in ticks since the machine did; None where the system does not tell."""
    return None if (fields := _status(process)) is None else fields[19]


def _status(process: int) -> list[str] | None:
    """Linux: what stands behind the name of a process in its status."""
    try:
        text = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return text.rpartition(")")[2].split()
