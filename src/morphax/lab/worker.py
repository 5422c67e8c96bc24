"""What a worker does: make the pieces of a run anew from a few texts, and carry out those that it is asked for."""

from __future__ import annotations

import atexit
import os
import re
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cache, lru_cache
from pathlib import Path
from typing import Any
from uuid import uuid4

from morphax._lazy import xr
from morphax.files import (
    TEMPORARY,
    KnownFile,
    digest_of_file,
    noting_files,
    received,
    sent_as,
    write_atomically,
    writer_of,
)
from morphax.lab.identity import installed, source_of
from morphax.lab.job import Job, class_at
from morphax.lab.lock import lives
from morphax.lab.progress import Known, Listing, Outcome, checkpoint_of
from morphax.lab.script import file_in, module_of

Files = dict[str, bytes]
"""The states of the trainings of a piece: path below its folder -> content."""
Send = Callable[[str, Files], object]
"""Takes the states of the trainings of a piece along: label, files."""
SECONDS_BETWEEN_STATES = 20.0  # that are sent
SHARE_FOR_STATES = 0.05  # of the time, at most
_FOR_GOOD = ExitStack()  # what holds as long as the process lives
_ONE_AT_A_TIME = threading.RLock()  # a piece has all cores of its process


class UnfitError(RuntimeError):
    """A worker cannot do what it is asked for: another version, other source, other data."""


class PieceError(RuntimeError):
    """A piece failed on a worker."""


class LackingError(RuntimeError):
    """A worker lacks files of data: their names are the arguments."""


def carry_out(
    job: str,
    labels: Sequence[str],
    *,
    states: Mapping[str, Files],
    shared: str | None = None,
    anew: bool = False,
    send: Send | None = None,
) -> list[Outcome]:
    """Carry out some pieces of a run.

    **Arguments:**

    - `job`: `Job.text`.
    - `labels`: of the pieces.
    - `states`: of trainings that were begun elsewhere, by piece.
    - `shared`: folder that all workers see, in which states are kept. None: they are kept here, and sent.
    - `anew`: whether states that are in that folder are old, and go.
    - `send`: sends them.

    **Raises:** `UnfitError`, `LackingError`.
    """
    with _ONE_AT_A_TIME:
        if shared is not None and anew:
            for label in labels:
                shutil.rmtree(checkpoint_of(Path(shared), label), ignore_errors=True)
        _prepare()
        here = _listed(job)
        return [here.carry_out_piece(label, states.get(label, {}), shared, send) for label in labels]


def take_data(digest: str, suffix: str, content: bytes) -> None:
    """Keep a file that was sent."""
    write_atomically(received(digest, suffix), lambda path: path.write_bytes(content))


@cache
def _prepare() -> None:
    """Once in a process: threads, and the cache of compiled programs that workers of a machine share."""
    from threadpoolctl import threadpool_limits

    from morphax.lab.compile_cache import compile_cache

    threadpool_limits(limits=1, user_api="blas")
    _remove_dead()
    _FOR_GOOD.enter_context(compile_cache())
    atexit.register(_FOR_GOOD.close)


def _remove_dead() -> None:
    """Remove the folders of workers of this machine that were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{TEMPORARY}{socket.gethostname()}-*"):
        if not lives(writer_of(folder)[1]):
            shutil.rmtree(folder, ignore_errors=True)


@lru_cache(maxsize=4)
def _listed(job: str) -> _Pieces:
    return _Pieces(Job.read(job))


class _Pieces(Listing):
    """The pieces of a run, which ends where it would carry them out."""

    def __init__(self, job: Job):
        super().__init__()
        experiment = class_at(job.experiment)()
        _check(job, module_of(experiment))
        self.job = job
        self.config = experiment.Config(**_with_data(job))
        data = self.config.data()
        if lacking := [name for name, file in data.items() if isinstance(file, KnownFile) and not file.is_here()]:
            raise LackingError(*lacking)
        for name, digest in data.items():
            if isinstance(digest, str) and digest != job.data[name]:
                raise UnfitError(f"it has another {name}; install the same on all machines, and restart workers")
        self.files = {path.resolve() for path in data.values() if isinstance(path, Path)}
        self.experiment = experiment
        self.work: dict[str, Callable[[], xr.Dataset]] = {}
        self.goes_on = False
        self._send: Callable[[], object] = lambda: None
        self._list()

    def _list(self) -> None:
        """The pieces that the run asks for first; where it goes on, also those that do not depend on them."""
        import jax

        with self._set(), self._noting_files(), suppress(Known):
            self.experiment.run(self.config, key=jax.random.key(self.config.seed), progress=self)

    def pieces(self, work: Mapping[str, Callable[[], xr.Dataset]], wanted: Collection[str] | None = None) -> Any:
        self.work |= work
        if not self.goes_on:
            raise Known(work)
        return _Unknown(work)

    def chain(self, labels: list[str], compute: Callable[[str, dict[str, xr.Dataset]], xr.Dataset]) -> Any:
        raise UnfitError(f"{self.job.experiment} is a chain: what comes later needs what came before")

    def carry_out_piece(self, label: str, states: Files, shared: str | None, send: Send | None) -> Outcome:
        """One piece, its trainings begun where others left them."""
        work = self._work_of(label)
        folder = _attempt(shared, label)
        for name, content in states.items():
            write_atomically(
                checkpoint_of(folder, label) / name, lambda path, content=content: path.write_bytes(content)
            )
        self.checkpoints = folder
        self._send = _Sender(label, checkpoint_of(folder, label), send) if send is not None else lambda: None
        try:
            with self._set():
                outcome = self.carried_out(label, self._without_other_files(work))
        finally:
            if shared is None:
                shutil.rmtree(folder, ignore_errors=True)
        if shared is not None and outcome.error is None:
            shutil.rmtree(folder.parent, ignore_errors=True)  # with what earlier attempts left
        return _told(outcome)

    def record(self, label: str, rows: list[dict[str, Any]]) -> None:
        super().record(label, rows)
        self._send()

    def _work_of(self, label: str) -> Callable[[], xr.Dataset]:
        if label not in self.work:
            self.goes_on = True
            with suppress(Exception):  # whatever comes of a run without its results
                self._list()
        if label not in self.work:
            raise UnfitError(
                f"{self.job.experiment} asks for {label!r} when it has what came of other pieces, which workers do "
                "not know; give pieces() all that may be asked for as `work`, and ask twice with `wanted`"
            )
        return self.work[label]

    def _without_other_files(self, work: Callable[[], xr.Dataset]) -> Callable[[], xr.Dataset]:
        def compute() -> xr.Dataset:
            with self._noting_files():
                return work()

        return compute

    @contextmanager
    def _noting_files(self) -> Any:
        with noting_files() as read:
            yield
        if undeclared := read - self.files:
            named = ", ".join(sorted(map(str, undeclared)))
            raise RuntimeError(f"{self.job.experiment} reads {named}, which data() of its Config does not name")

    @contextmanager
    def _set(self) -> Any:
        import jax

        # A setting of each thread.
        with jax.enable_x64(self.config.precision == "double"):
            yield


class _Unknown(Mapping[str, Any]):
    """What came of pieces, where that is not known: a run that looks at it ends."""

    def __init__(self, work: Mapping[str, Callable[[], xr.Dataset]]):
        self.work = work

    def __getitem__(self, label: str) -> Any:
        raise Known(self.work)

    def __iter__(self) -> Iterator[str]:
        raise Known(self.work)

    def __len__(self) -> int:
        raise Known(self.work)

    def __or__(self, other: object) -> Any:
        raise Known(self.work)

    __ror__ = __or__


def _told(outcome: Outcome) -> Outcome:
    """What can be sent: of an error its text."""
    error = outcome.error
    if error is None:
        return outcome
    text = (
        str(error)
        if isinstance(error, ValueError | RuntimeError) and str(error)
        else f"{type(error).__name__}: {error}"
    )
    return outcome._replace(error=PieceError(text))


class _Sender:
    """Sends the states of the trainings of a piece, now and then."""

    def __init__(self, label: str, folder: Path, send: Send):
        self.label = label
        self.folder = folder
        self.send = send
        self.next = time.monotonic() + SECONDS_BETWEEN_STATES

    def __call__(self) -> None:
        started = time.monotonic()
        if started < self.next:
            return
        files = {path.relative_to(self.folder).as_posix(): path.read_bytes() for path in self.folder.glob("*/*.*")}
        self.send(self.label, files)
        took = time.monotonic() - started
        self.next = time.monotonic() + max(SECONDS_BETWEEN_STATES, took / SHARE_FOR_STATES)


def _attempt(shared: str | None, label: str) -> Path:
    """A folder that only this attempt at a piece writes, with what the last one left."""
    if shared is None:
        return Path(tempfile.mkdtemp(prefix=f"{TEMPORARY}{socket.gethostname()}-{os.getpid()}-"))
    attempts = checkpoint_of(Path(shared), label)
    before = sorted(attempts.glob("*"), key=_last_written)
    attempt = attempts / uuid4().hex
    attempt.mkdir(parents=True)
    if before:
        with suppress(OSError):  # it may go on, and remove what is old; a training begins at its last whole state
            shutil.copytree(before[-1], attempt, dirs_exist_ok=True)
    return attempt


def _last_written(attempt: Path) -> float:
    """When a state was last written; a folder that is copied has the time of the one that it is a copy of."""
    last = 0.0
    for state in attempt.glob("*/*/*"):
        with suppress(OSError):  # it may go on, and remove what is old
            last = max(last, state.stat().st_mtime)
    return last


def _with_data(job: Job) -> dict[str, Any]:
    """The configuration, with the files of data that this machine has."""
    config, lacking = dict(job.config), []
    for name, digest in job.data.items():
        field, place = _place(name)
        text = config.get(field) if place is None else config[field][place]
        # A field may hold the digest of known data instead of a file.
        if not isinstance(text, str) or text == digest or _is(path := Path(file_in(text)), digest):
            continue
        sent = received(digest, sent_as(path))
        if _is(sent, digest):
            here = f"{sent}{text.removeprefix(file_in(text))}"
            config[field] = here if place is None else _replaced(config[field], place, here)
        else:
            lacking.append(name)
    if lacking:
        raise LackingError(*lacking)
    return config


def _place(name: str) -> tuple[str, int | None]:
    """The field of a configuration that holds a file, and where in it: "csv", or "devices[1]"."""
    found = re.fullmatch(r"(\w+)\[(\d+)\]", name)
    return (name, None) if found is None else (found[1], int(found[2]))


def _replaced(values: Sequence[Any], place: int, value: Any) -> list[Any]:
    return [*values[:place], value, *values[place + 1 :]]


def _is(path: Path, digest: str) -> bool:
    return path.is_file() and digest_of_file(path) == digest


def _check(job: Job, module: str) -> None:
    """Refuse to give other numbers than those that are asked for."""
    here = about()
    for name, asked in job.versions.items():
        if here[name] != asked:
            raise UnfitError(f"it has {name} {here[name]}, and {asked} is asked for")
    if source_of(module) != job.source:
        raise UnfitError(
            f"its source of {job.experiment} or of morphax is another one; install the same on all machines, and "
            "restart workers that loaded an older one"
        )


def about() -> dict[str, Any]:
    """Of this process, as others compare it: versions, and on what it computes."""
    import jax

    return {**installed(), "backend": jax.default_backend()}
