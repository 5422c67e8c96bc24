"""States of trainings on their way from workers to the coordinator."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from uuid import uuid4

from morphax.files import write_atomically
from morphax.lab.job import Task
from morphax.lab.progress import checkpoint_of


class Mailbox:
    """Takes the states of trainings that workers send, and keeps them where a run keeps its own.

    A state that cannot be kept is only a later start; `say` is told of the first.
    """

    def __init__(self, client: Any, tasks: dict[str, Task], say: Callable[[str], object] = lambda text: None):
        self.client = client
        self.tasks = tasks
        self.say = say
        self.all_kept = True
        self.name = f"morphax-{uuid4().hex}"
        self.forgotten: set[str] = set()
        self.lock = threading.Lock()
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self._take, daemon=True, name="states")

    def start(self) -> None:
        if any(task.checkpoints is not None for task in self.tasks.values()):
            self.thread.start()

    def stop(self) -> None:
        self.stopped.set()
        if self.thread.is_alive():
            self._wake()
            self.thread.join(timeout=5)

    def _wake(self) -> None:
        """Send nothing, so that who waits for something need not wait any longer."""
        from distributed import Queue

        if self.client.status == "running":
            with suppress(Exception):  # the scheduler may end meanwhile
                Queue(self.name, client=self.client).put(None, timeout=1)

    def forget(self, name: str) -> None:
        """A piece is finished: what comes of it from now on is old."""
        with self.lock:
            self.forgotten.add(name)

    def _take(self) -> None:
        from distributed import Queue

        with suppress(Exception):  # the client tells of a scheduler that is gone
            queue: Any = Queue(self.name, client=self.client)
            while not self.stopped.is_set():
                # Without a time limit: Dask takes a third of a second to tell that it is over.
                if (sent := queue.get()) is not None:
                    self._keep_or_tell(*sent)

    def _keep_or_tell(self, name: str, files: dict[str, bytes]) -> None:
        try:
            self._keep(name, files)
        except Exception as error:
            if self.all_kept:
                self.all_kept = False
                label = self.tasks[name].label
                self.say(
                    f"{label}: its state cannot be kept ({error}); if it is interrupted, it begins at an older one"
                )

    def _keep(self, name: str, files: dict[str, bytes]) -> None:
        task = self.tasks[name]
        with self.lock:
            if name in self.forgotten or task.checkpoints is None:
                return
            folder = checkpoint_of(task.checkpoints, task.label)
            # The description of a training, its state, and the history that vouches for it.
            for path in sorted(files, key=lambda path: "history" in path):
                write_atomically(folder / path, lambda file, path=path: file.write_bytes(files[path]))
            for old in folder.glob("*/*.*"):
                if old.relative_to(folder).as_posix() not in files:
                    old.unlink(missing_ok=True)
