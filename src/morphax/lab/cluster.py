"""Workers of Dask: those of this machine, started as pieces need them, or those of a scheduler that is there."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from multiprocessing import resource_tracker
from typing import Any

from morphax._checks import cores
from morphax._optional import needed
from morphax.lab.errors import UsageError

_SETTINGS = {
    # All memory of JAX is unmanaged: a worker that is paused would stand still for ever.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 0.95,
    "distributed.worker.profile.enabled": False,
    # Looking at the memory of every worker ten times a second costs more than all messages.
    "distributed.worker.memory.monitor-interval": "500ms",
    "distributed.admin.system-monitor.interval": "5s",
    "distributed.admin.tick.interval": "1s",
    # Deaths of workers are counted here, piece by piece.
    "distributed.scheduler.allowed-failures": 0,
    "distributed.admin.tick.limit": "1h",
    "distributed.comm.timeouts.connect": "20s",
}


def connected(stack: ExitStack, workers: int | None, scheduler: str | None, patience: float) -> Any:
    """A client of `workers` processes that are started here, or of a scheduler; `stack` ends what was begun.

    **Raises:** `UsageError` where no scheduler answers within `patience` seconds; `ImportError` where Dask is missing.
    """
    distributed, dask = needed("distributed", "distributed"), needed("dask", "distributed")
    environment = _environment(workers or 1)
    stack.enter_context(dask.config.set(_SETTINGS | {"distributed.nanny.pre-spawn-environ": environment}))
    stack.callback(_quietly())
    if scheduler is None:
        stack.callback(_as_before(*environment))
        # What interrupts this process waits until all workers are there: half a cluster could not be ended.
        with ThreadPoolExecutor(1, initializer=_ignore_terminal) as thread:
            cluster = thread.submit(_started, stack, distributed, workers or 1).result()
        # Both are in this process: what they tell each other need not become bytes.
        cluster.sync(cluster.scheduler.listen, "inproc://")
        address, loop = cluster.scheduler.listeners[-1].contact_address, cluster.loop
    else:
        address, loop = scheduler, None
    try:
        client = distributed.Client(address, loop=loop, timeout=patience, set_as_default=False, name="morphax")
    except (OSError, ValueError, TypeError) as error:  # of TLS without certificates the type
        raise UsageError(f"scheduler is {address!r}; none answers there ({one_line(error)})") from error
    return stack.enter_context(client)


def one_line(error: BaseException) -> str:
    """Kind and text of an error."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _started(stack: ExitStack, distributed: Any, workers: int) -> Any:
    """Scheduler and workers of this machine, which `stack` ends from now on."""
    cluster = distributed.LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        memory_limit=int(distributed.system.MEMORY_LIMIT / workers),
        dashboard_address="127.0.0.1:0",
        worker_dashboard_address=None,
        silence_logs="CRITICAL",
    )
    return stack.enter_context(cluster)


def _environment(workers: int) -> dict[str, str]:
    """XLA takes as many threads as NPROC says; BLAS and LAPACK one: beside XLA's own, more are slower."""
    threads = {f"{library}_NUM_THREADS": "1" for library in ("OPENBLAS", "OMP", "MKL")}
    return {**threads, "NPROC": str(max(1, cores() // workers)), "MALLOC_TRIM_THRESHOLD_": "65536"}


def _ignore_terminal() -> None:
    """Threads and processes that are started from this thread on leave Ctrl-C and a closed terminal to the coordinator.

    A terminal tells all its processes at once; workers end with the coordinator.
    """
    if hasattr(signal, "pthread_sigmask"):  # Windows has neither
        resource_tracker.ensure_running()  # Python starts it with the first process, and then hears Ctrl-C again
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})


def _quietly() -> Callable[[], None]:
    """Dask's own notes of what ends are not for people; what gives them their voice back."""
    import logging

    names = ("distributed", *(f"distributed.{what}" for what in ("client", "nanny", "scheduler")))
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)

    def back() -> None:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)

    return back


def _as_before(*names: str) -> Callable[[], None]:
    """Dask leaves in the environment here what it gives workers, and gives it to those of the next executor instead."""
    before = {name: os.environ.get(name) for name in names}

    def back() -> None:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

    return back
