"""Pieces on many processes: of this machine, or of a cluster that is there. The engine is Dask."""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property
from itertools import groupby
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Self
from uuid import uuid4

from morphax.files import KnownFile, changed, digest_of, sent_as
from morphax.lab.cluster import connected, one_line
from morphax.lab.errors import UsageError
from morphax.lab.identity import installed
from morphax.lab.job import Task
from morphax.lab.mailbox import Mailbox
from morphax.lab.progress import Outcome, Tell, checkpoint_of

MOST_WORKERS = 1024
KILLS = 3
"""So many workers may end while they carry out a piece; then it is given up."""
SECONDS_OF_A_CHUNK = 0.5
"""Pieces that are shorter are sent several at once."""
LONGEST_CHUNK = 500
SECONDS_BETWEEN_LOOKS = 1.0
Part = tuple[str, str | None, bool, dict[str, str], dict[str, dict[str, bytes]]]
"""Pieces of one job: its text, shared folder, whether what lies there is old, label -> name of the piece, label ->
states of its trainings."""
RESENT = 2
"""So often a file is sent to a worker for one piece; then that is given up."""
ADDRESS = re.compile(r"[a-z]+://.+:\d+")


class SchedulerLostError(RuntimeError):
    """The scheduler is gone, and with it what had been asked of workers."""


class Executor:
    """Carries out pieces on `workers` processes of this machine, or on the workers of a scheduler.

    A worker is told the place of the experiment, its configuration, digests of source and data, and names of pieces; it
    makes everything else anew. What it computes is the same as here, bit for bit, on processors of one kind. It has its
    cores for itself, one piece at a time. Workers start when they are needed, and end with `close`.

    A worker that ends in the middle of a piece is replaced, and the piece begun anew, a training where its last state
    says; a piece that ends three workers is given up.

    **Arguments:**

    - `workers`: processes of this machine, 1 to 1024.
    - `scheduler`: address of a scheduler of Dask, instead: "tcp://host:port".
    - `shared`: folder that all workers see, where trainings keep their states. None: the states are sent.
    - `patience`: seconds in which a scheduler must answer.
    - `say`: is told what people should know.

    **Raises:** `UsageError` when both or neither of `workers` and `scheduler` are given, or no scheduler answers;
    `ImportError` where Dask is missing (extra `distributed`).
    """

    def __init__(
        self,
        workers: int | None = None,
        scheduler: str | None = None,
        *,
        shared: Path | None = None,
        patience: float = 20.0,
        say: Callable[[str], object] = lambda text: None,
    ):
        if (workers is None) == (scheduler is None):
            raise UsageError("give either workers, a number of processes here, or scheduler, the address of a cluster")
        if workers is not None and not 1 <= workers <= MOST_WORKERS:
            raise UsageError(f"workers is {workers}; it must be from 1 to {MOST_WORKERS}")
        if scheduler is not None and not ADDRESS.fullmatch(scheduler):
            raise UsageError(f"scheduler is {scheduler!r}; it must be an address such as tcp://127.0.0.1:8786")
        self.workers = workers
        self.scheduler = scheduler
        self.shared = None if shared is None else shared.absolute()  # workers are at home in other folders
        self.patience = patience
        self.say = say
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the workers that were started here; others are left, free of what was asked of them."""
        self._stack.close()
        self.__dict__.pop("_client", None)

    @property
    def backend(self) -> str:
        """On what the workers compute: "cpu", "gpu"."""
        if self.scheduler is None:
            import jax

            return jax.default_backend()
        return self._about["backend"]

    def check(self) -> None:
        """Refuse workers that differ from this process, or from each other: `UsageError`."""
        assert self._about

    def tell_of_waiting(self) -> None:
        """Say that a cluster has no workers just now."""
        self.say(f"waiting for workers of {self.scheduler}")

    def workers_there(self) -> dict[str, Any]:
        """The workers that are there: address -> what the scheduler knows of it."""
        return self._client.scheduler_info(n_workers=-1).get("workers", {})

    def carry_out(self, tasks: Sequence[Task], tell: Tell = lambda doing: None) -> Iterator[tuple[int, Outcome]]:
        """What comes of some pieces, in the order in which they are finished: place in the list, outcome.

        **Raises:** `SchedulerLostError`; `UsageError` where workers cannot do what is asked of them (`UnfitError`).
        """
        with _Round(self, tasks) as ongoing:
            looked = -SECONDS_BETWEEN_LOOKS
            while ongoing.goes_on:
                if time.monotonic() - looked > SECONDS_BETWEEN_LOOKS:
                    tell(ongoing.look())
                    looked = time.monotonic()
                ongoing.refill()
                for finished in ongoing.next(SECONDS_BETWEEN_LOOKS):
                    ongoing.refill()
                    yield finished

    @cached_property
    def _client(self) -> Any:
        return connected(self._stack, self.workers, self.scheduler, self.patience)

    @cached_property
    def _about(self) -> dict[str, Any]:
        """What all workers have in common. **Raises:** `UsageError` where they differ from this process."""
        found = self._client.run(_about_worker(), on_error="return")
        if not found:
            self.tell_of_waiting()
            self._client.wait_for_workers(1)
            found = self._client.run(_about_worker(), on_error="return")
        expected = installed()
        workers = self.workers_there()
        for address, about in found.items():
            worker = _named(address, workers)
            if isinstance(about, Exception):
                raise UsageError(f"{worker} cannot work: {one_line(about)}; install morphax there")
            if other := [
                f"{name} {about[name]}, not {expected[name]}" for name in expected if about[name] != expected[name]
            ]:
                raise UsageError(f"{worker} has {', '.join(other)}; install the same versions on all machines")
        backends = {about["backend"] for about in found.values()}
        if len(backends) > 1:
            raise UsageError(f"workers of {self.scheduler} compute on {' and '.join(sorted(backends))}; take one kind")
        return next(iter(found.values()))


class _Round:
    """Some pieces on their way: those that wait, those that workers have, those that came back."""

    def __init__(self, executor: Executor, tasks: Sequence[Task]):
        self.executor = executor
        self.client = executor._client
        self.names = {f"{index}": task for index, task in enumerate(tasks)}
        self.waiting = deque(self.names)
        self.chunks: dict[str, tuple[Any, list[str]]] = {}
        self.done: SimpleQueue[str] = SimpleQueue()
        self.alone: set[str] = set()
        self.kills: Counter[str] = Counter()
        self.seconds = SECONDS_OF_A_CHUNK
        self.places = 1
        self.deserted = False
        self.supplied: Counter[tuple[str, str]] = Counter()
        self.texts = {id(task.job): task.job.text() for task in tasks}
        self.mailbox = Mailbox(self.client, self.names, executor.say)

    def __enter__(self) -> Self:
        self.executor.check()
        self.mailbox.start()
        self.look()
        self.refill()
        return self

    def __exit__(self, *error: object) -> None:
        self.mailbox.stop()
        with suppress(Exception):  # whatever state the cluster is in
            self.client.cancel([future for future, _ in self.chunks.values()], force=True)

    @property
    def goes_on(self) -> bool:
        return bool(self.waiting or self.chunks)

    def look(self) -> dict[str, str]:
        """Count the workers; what each does."""
        self._check_scheduler()
        with self._connected():
            workers = self.executor.workers_there()
            processing = self.client.processing()
        if not workers and not self.deserted and self.executor.scheduler is not None:
            self.executor.tell_of_waiting()
        self.deserted = not workers
        self.places = max(1, len(workers))
        doing = {}
        for address, keys in processing.items():
            for key in keys:
                if key in self.chunks and address in workers:
                    doing[_called(workers[address].get("name", address))] = self._shown(self.chunks[key][1])
        return doing

    def refill(self) -> None:
        """Give every worker something to do."""
        while self.waiting and len(self.chunks) < self.places:
            self._send(self._chunk())

    def next(self, timeout: float) -> Iterator[tuple[int, Outcome]]:
        """What came back."""
        keys = []
        with suppress(Empty):
            keys.append(self.done.get(timeout=timeout))
            while True:
                keys.append(self.done.get_nowait())
        ended = {key: self.chunks.pop(key) for key in keys}
        # All at once: asking for one costs as many messages as asking for many.
        finished = {key: future for key, (future, _) in ended.items() if future.status == "finished"}
        with self._connected():
            results = self.client.gather(finished) if finished else {}
        for key, (future, names) in ended.items():
            if key in results:
                yield from self._finished(names, results[key])
            elif future.status == "error":
                yield from self._failed(names, future.exception())
            elif future.status == "cancelled":  # and not by us
                raise SchedulerLostError(self._lost)
            else:  # its worker ended before anybody asked for the result: the scheduler has it made again
                self._await(key, future, names)

    def _finished(self, names: list[str], result: Any) -> Iterator[tuple[int, Outcome]]:
        kind, content = result
        if kind == "unfit":
            address, why = content
            raise UsageError(f"{_named(address, self.executor.workers_there())} cannot do this: {why}")
        if kind == "lacking":
            self._supply(names[0], *content)
            self.waiting.extendleft(reversed(names))
            return
        # Compilation makes the first piece longer than those that follow.
        self.seconds = sum(outcome.seconds for outcome in content) / len(content)
        for name, outcome in zip(names, content, strict=True):
            self.mailbox.forget(name)
            yield int(name), outcome

    def _failed(self, names: list[str], error: Exception) -> Iterator[tuple[int, Outcome]]:
        from distributed import KilledWorker

        if not isinstance(error, KilledWorker):
            raise UsageError(f"workers cannot carry out pieces: {one_line(error)}") from error
        for name in reversed(names):
            task = self.names[name]
            self.kills[name] += 1 + error.allowed_failures
            self.alone.add(name)
            if self.kills[name] < KILLS:
                self.waiting.appendleft(name)
                continue
            text = f"{task.label}: {self.kills[name]} workers ended while they carried it out; it may need more memory"
            yield int(name), Outcome(task.label, None, {}, 0.0, frozenset(), RuntimeError(text))

    def _chunk(self) -> list[str]:
        """The next pieces for one worker."""
        most = min(LONGEST_CHUNK, max(1, len(self.waiting) // (2 * self.places)))
        wanted = min(most, max(1, int(SECONDS_OF_A_CHUNK / max(self.seconds, 1e-6))))
        chunk = [self.waiting.popleft()]
        if chunk[0] in self.alone or self._states(self.names[chunk[0]]):
            return chunk
        while self.waiting and len(chunk) < wanted:
            name = self.waiting[0]
            task = self.names[name]
            if name in self.alone or self._states(task):
                break
            chunk.append(self.waiting.popleft())
        return chunk

    def _send(self, names: list[str]) -> None:
        key = f"morphax-{uuid4().hex}"
        # The points of a sweep are jobs of their own, often of one short piece.
        by_job = groupby(names, key=lambda name: id(self.names[name].job))
        parts = [self._part(list(group)) for _, group in by_job]
        with self._connected():
            future = self.client.submit(_CARRY_OUT, parts, self.mailbox.name, key=key, pure=False)
        self._await(key, future, names)

    def _await(self, key: str, future: Any, names: list[str]) -> None:
        self.chunks[key] = future, names
        future.add_done_callback(lambda future: self.done.put(future.key))

    def _part(self, names: list[str]) -> Part:
        """What a worker is told of some pieces of one job."""
        tasks = [self.names[name] for name in names]
        text = self.texts[id(tasks[0].job)]
        shared = None if self.executor.shared is None else str(self.executor.shared / digest_of(text)[:12])
        named = {task.label: name for task, name in zip(tasks, names, strict=True)}
        # What was kept since the run began is no longer old.
        anew = tasks[0].anew and not self.kills[names[0]]
        return text, shared, anew, named, {task.label: states for task in tasks if (states := self._states(task))}

    def _states(self, task: Task) -> dict[str, bytes]:
        if task.checkpoints is None or not (folder := checkpoint_of(task.checkpoints, task.label)).is_dir():
            return {}
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.glob("*/[!.]*.*")}

    def _supply(self, piece: str, address: str, lacking: list[str]) -> None:
        """Send files of data to a worker that lacks them for a piece."""
        from distributed.comm.core import CommClosedError

        task, worker = self.names[piece], _named(address, self.executor.workers_there())
        if self.supplied[address, piece] == RESENT:
            raise UsageError(f"{worker} lacks {', '.join(lacking)} also after it was sent; look at its folder for data")
        self.supplied[address, piece] += 1
        for name in lacking:
            file, digest = task.files[name], task.job.data[name]
            try:
                path = file.path() if isinstance(file, KnownFile) else file
                content = path.read_bytes()
            except OSError as error:
                raise UsageError(f"{worker} lacks {name}, and {error}") from error
            suffix = path.suffix if isinstance(file, KnownFile) else sent_as(path)
            # Of a known file it may be the compressed content; its reader looks at it.
            if isinstance(file, Path) and hashlib.sha256(content).hexdigest() != digest:
                raise UsageError(changed(f"{name} ({file})"))
            with self._connected():
                told = self.client.run(_take_data(), digest, suffix, content, workers=[address], on_error="return").get(
                    address
                )
            if isinstance(told, Exception):
                if isinstance(told, CommClosedError) or address not in self.executor.workers_there():
                    return  # it is gone: another one takes the piece
                raise UsageError(f"{worker} cannot keep {name}: {one_line(told)}")

    def _shown(self, names: list[str]) -> str:
        first = self.names[names[0]].label
        return first if len(names) == 1 else f"{first} and {len(names) - 1} more"

    def _check_scheduler(self) -> None:
        if self.client.status != "running":
            raise SchedulerLostError(self._lost)

    @contextmanager
    def _connected(self) -> Iterator[None]:
        """While a scheduler dies, whatever is asked of it fails in one of several ways."""
        try:
            yield
        except Exception as error:
            if isinstance(error, OSError | TimeoutError | CancelledError) or self.client.status != "running":
                raise SchedulerLostError(self._lost) from error
            raise

    @property
    def _lost(self) -> str:
        where = f" at {self.executor.scheduler}" if self.executor.scheduler else ""
        return f"the scheduler{where} is gone; what was finished is kept: the same command goes on"


def _carry_out() -> Callable[..., Any]:
    """What workers are sent: a function that goes by value, because the scheduler may lack morphax."""

    def carry_out(parts: list[Part], mailbox: str) -> tuple[str, Any]:
        import contextlib

        from distributed import Queue, get_client, get_worker

        worker = get_worker()
        os.environ.setdefault("NPROC", str(worker.state.nthreads))

        from morphax.lab import worker as work

        def one(job: str, shared: str | None, anew: bool, names: dict[str, str], states: Any) -> list[Outcome]:
            def send(label: str, files: dict[str, bytes]) -> None:
                with contextlib.suppress(OSError, ValueError, TimeoutError):  # the next ones will do
                    Queue(mailbox, client=get_client()).put((names[label], files), timeout=30)

            send_or_not = None if shared else send
            return work.carry_out(job, list(names), states=states, shared=shared, anew=anew, send=send_or_not)

        try:
            return "done", [outcome for part in parts for outcome in one(*part)]
        except work.LackingError as lacking:
            return "lacking", (worker.address, list(lacking.args))
        except work.UnfitError as unfit:
            return "unfit", (worker.address, str(unfit))

    return carry_out


_CARRY_OUT = _carry_out()


def _about_worker() -> Callable[..., dict[str, Any]]:
    def about(dask_worker: Any) -> dict[str, Any]:

        # XLA looks at it once, when JAX is first asked for its devices: here.
        os.environ.setdefault("NPROC", str(dask_worker.state.nthreads))

        from morphax.lab.worker import about

        return about()

    return about


def _take_data() -> Callable[..., None]:
    def take(digest: str, suffix: str, content: bytes) -> None:
        from morphax.lab.worker import take_data

        take_data(digest, suffix, content)

    return take


def _called(worker: Any) -> str:
    """Workers of this machine have a number, others a name; its address where nobody gave it one."""
    return f"worker {worker}" if isinstance(worker, int) else str(worker).removeprefix("tcp://")


def _named(address: str, workers: Mapping[str, Any]) -> str:
    """A worker by its name, where it has one, and its address, where the name is not one that was given here."""
    name = workers.get(address, {}).get("name", address)
    if isinstance(name, int):
        return _called(name)
    return f"worker {address}" if name == address else f"worker {name} ({address})"
