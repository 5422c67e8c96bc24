"""What pieces cost that other processes carry out: time gained by a second worker, processor time, memory, messages.

    python benchmarks/executor.py [--quick] [--threads 1] [--keep] [PART ...]

- `workers`: eight equal pieces of seconds each, seeds of `josephson/shots` at full size, on one worker and on two, in
  turns. Ratios are of times on the clock, which other work on the machine spoils, and of processor time: that of one
  worker over that of the busier of two. Workers are started, and programs compiled, beforehand.
- `pieces`: processor time of coordinator and scheduler, which are one process here, for pieces that are sent one by one
  and in chunks; that of writing their files is shown apart.
- `total`: 1,000 pieces that are busy for 10 ms: processor time of all processes over that of the pieces.
- `many`: 10,000 pieces of nothing, as one run and as a sweep of 10,000 points, from the command to the report.
- `waiting`: what the coordinator takes while workers are at work on long pieces.
- `threads`: threads of a worker that run or would run, while it multiplies and decomposes large matrices, counted a
  hundred times a second (Linux): two workers must not want more than two cores.

Every part is a process of its own. Processor time is user and system time; that of the workers is taken when they run,
without their start. All pieces and compiled programs go to a temporary folder.
"""

import json
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from threading import Event, Thread
from typing import Any
from unittest.mock import patch

import jax
import jax.numpy as jnp
import numpy as np
import psutil
import xarray as xr
from rich.console import Console

from measuring import Report, arguments
from morphax import BaseConfig, Experiment, parameter
from morphax.experiments import find_experiment
from morphax.lab import executor as engine
from morphax.lab.executor import Executor
from morphax.lab.identity import source_of, versions
from morphax.lab.job import Job, Task, place_of
from morphax.lab.progress import Progress
from morphax.lab.run_folder import RunFolder
from morphax.lab.script import load_experiment, module_of
from morphax.lab.store import PieceStore
from morphax.lab.sweep import Sweep


class Pieces(Experiment):
    """Pieces that keep a core busy for some time, or multiply and decompose matrices."""

    class Config(BaseConfig):
        count: int = parameter(8, "pieces", ge=1, extent=True)
        busy: float = parameter(0.0, "processor time of a piece", unit="s", ge=0)
        size: int = parameter(0, "of matrices; 0: none", ge=0)
        point: int = parameter(0, "of a sweep", ge=0)

    name = "benchmark/pieces"

    def run(self, config, *, key, progress):
        work = {f"piece {i}": partial(matrices if config.size else busy, config, i) for i in range(config.count)}
        return xr.concat(list(progress.pieces(work).values()), xr.Variable("piece", np.arange(config.count)))

    def figures(self, dataset):
        return {}


def busy(config: Pieces.Config, index: int) -> xr.Dataset:
    end = time.thread_time() + config.busy
    while time.thread_time() < end:
        pass
    return xr.Dataset({"x": float(index + config.point)})


def matrices(config: Pieces.Config, index: int) -> xr.Dataset:
    a = np.random.default_rng(index).standard_normal((config.size, config.size))
    multiplied = jnp.asarray(a)
    for _ in range(10):
        multiplied = jnp.tanh(multiplied @ a)
    values = jnp.linalg.svd(multiplied, compute_uv=False)
    return xr.Dataset({"x": float(values[0]) + float(np.linalg.svd(a @ a, compute_uv=False)[0])})


# --- Measuring --------------------------------------------------------------------------------------------------------


class Writing:
    """Counts the processor time of writing pieces in this process."""

    seconds = 0.0

    def __init__(self) -> None:
        keep = PieceStore.keep

        def timed(*arguments: Any, **more: Any) -> Any:
            started = time.thread_time()
            try:
                return keep(*arguments, **more)
            finally:
                Writing.seconds += time.thread_time() - started

        PieceStore.keep = timed


class Setting:
    """Pieces of an experiment, as a run hands them to an executor."""

    def __init__(self, experiment: Experiment, config: BaseConfig, folder: Path):
        source, values = source_of(module_of(experiment)), config.model_dump(mode="json")
        self.job = Job(place_of(experiment.origin), values, {}, source, versions() | {"backend": jax.default_backend()})
        self.store = PieceStore(folder / ".pieces", {"experiment": experiment.name}, values)
        self.checkpoints = folder / "checkpoints"

    def carry_out(self, executor: Executor, labels: Sequence[str]) -> None:
        def elsewhere(wanted: Sequence[tuple[Progress, str]], tell: Any) -> Any:
            return executor.carry_out([Task(self.job, label, self.checkpoints) for _, label in wanted], tell)

        with open(os.devnull, "w") as nowhere:
            console = Console(file=nowhere, force_terminal=True)
            progress = Progress(self.store, checkpoints=self.checkpoints, console=console, elsewhere=elsewhere)
            progress.pieces(dict.fromkeys(labels, xr.Dataset))


class Spent:
    """Seconds: on the clock, of this process, of writing pieces, of each worker."""

    def __init__(self) -> None:
        self.before = self._now()

    def _now(self) -> tuple[float, float, float, dict[int, float]]:
        return time.perf_counter(), time.process_time(), Writing.seconds, processor_times()

    def stop(self) -> None:
        after = self._now()
        self.clock, self.coordinator, self.writing = (after[i] - self.before[i] for i in range(3))
        workers = {process: seconds - self.before[3].get(process, 0.0) for process, seconds in after[3].items()}
        self.workers = sorted(workers.values(), reverse=True)


def processor_times() -> dict[int, float]:
    """Of all processes below this one."""
    found = {}
    for process in psutil.Process().children(recursive=True):
        times = process.cpu_times()
        found[process.pid] = times.user + times.system
    return found


@contextmanager
def started(workers: int) -> Iterator[tuple[Executor, float, float]]:
    """An executor whose workers run; seconds on the clock and of all processors until they did."""
    clock, before = time.perf_counter(), time.process_time()
    with Executor(workers) as executor:
        executor.check()
        everything = time.process_time() - before + sum(processor_times().values())
        yield executor, time.perf_counter() - clock, everything


def spent(setting: Setting, executor: Executor, labels: Sequence[str]) -> Spent:
    found = Spent()
    setting.carry_out(executor, labels)
    found.stop()
    return found


def labelled(first: int, count: int) -> list[str]:
    return [f"piece {index}" for index in range(first, first + count)]


# --- Parts ------------------------------------------------------------------------------------------------------------


def workers(folder: Path, quick: bool) -> None:
    experiment = find_experiment("josephson/shots")
    assert experiment is not None
    pieces, rounds = 8, 1 if quick else 3
    config = experiment.Config(seeds=pieces + 2, **{"numbers": (1000, 10_000)} if quick else {})
    found: dict[int, list[Spent]] = {1: [], 2: []}
    starts: dict[int, list[tuple[float, float]]] = {1: [], 2: []}
    for turn in range(rounds):
        for count in (1, 2):
            setting = Setting(experiment(), config, folder / f"{turn} {count}")
            with started(count) as (executor, clock, processor):
                starts[count].append((clock, processor))
                setting.carry_out(executor, ["seed 0", "seed 1"])  # compiles, or takes from the cache
                labels = [f"seed {index}" for index in range(2, 2 + pieces)]
                found[count].append(spent(setting, executor, labels))
    print(f"{'':34}{'clock s':>9}{'busier worker s':>17}{'all workers s':>15}{'coordinator s':>15}{'start s':>9}")
    for count, several in found.items():
        row = [median(s.clock for s in several), median(s.workers[0] for s in several)]
        row += [median(sum(s.workers) for s in several), median(s.coordinator for s in several)]
        start = median(clock for clock, _ in starts[count])
        numbers = f"{row[0]:9.1f}{row[1]:17.1f}{row[2]:15.1f}{row[3]:15.2f}{start:9.1f}"
        print(f"{f'{pieces} pieces, workers: {count}':34}{numbers}")
    clock = median(one.clock / two.clock for one, two in zip(found[1], found[2], strict=True))
    processor = median(one.workers[0] / two.workers[0] for one, two in zip(found[1], found[2], strict=True))
    told("two workers for one, clock", clock, ">= 1.8")
    told("two workers for one, processor time of the busier worker", processor, ">= 1.8")
    told("processor time of the start of a worker, s", median(s for _, s in starts[1]))


def pieces(folder: Path, quick: bool) -> None:
    count = 100 if quick else 500
    experiment, config = ours(count=100_000)
    print(f"{'ms a piece':34}{'coordinator':>13}{'of it writing':>15}{'the rest':>10}{'chunks':>9}")
    with started(2) as (executor, _, _), counted_chunks() as chunks:
        setting = Setting(experiment, config, folder)
        setting.carry_out(executor, labelled(0, 20))
        for name, seconds in (("one by one", 0.0), ("in chunks", engine.SECONDS_OF_A_CHUNK)):
            engine.SECONDS_OF_A_CHUNK = seconds
            before = len(chunks)
            found = spent(setting, executor, labelled(100 + 10_000 * int(seconds > 0), count))
            whole, writing = (1e3 * value / count for value in (found.coordinator, found.writing))
            numbers = f"{whole:13.2f}{writing:15.2f}{whole - writing:10.2f}{len(chunks) - before:9}"
            print(f"{f'{count} pieces, {name}':34}{numbers}")
            told(f"coordinator and scheduler, ms a piece, {name}", whole - writing, "<= 5")


def total(folder: Path, quick: bool) -> None:
    count, each = 200 if quick else 1000, 0.01
    experiment, config = ours(count=count + 20, busy=each)
    with started(2) as (executor, clock, processor), counted_chunks() as chunks:
        setting = Setting(experiment, config, folder)
        setting.carry_out(executor, labelled(count, 20))
        found = spent(setting, executor, labelled(0, count))
    pure, everything = count * each, found.coordinator + sum(found.workers)
    print(f"{count} pieces of 10 ms in {len(chunks)} chunks: {found.clock:.1f} s on the clock; processor time, s:")
    print(f"  workers {sum(found.workers):.2f}, coordinator {found.coordinator:.2f}, of it writing {found.writing:.2f}")
    print(f"  apart: start of two workers {processor:.1f} ({clock:.1f} on the clock)")
    told(
        "processor time of all over that of the pieces, without writing", (everything - found.writing) / pure, "<= 1.5"
    )
    told("processor time of all over that of the pieces, with writing", everything / pure)


def many(folder: Path, quick: bool) -> None:
    count = 500 if quick else 10_000
    print(f"{'':24}{'clock':>8}{'coordinator':>13}{'of it writing':>15}{'workers':>9}", end="")
    print(f"{'MiB':>6}{'tasks':>7}{'sent':>8}{'received':>10}{'files':>8}")
    for name, points in (("a run", 0), ("a sweep", count)):
        row = in_a_process(as_a_run, folder / name, 1 if points else count, points)
        print(
            f"{f'{count} pieces, {name}':24}{row['clock']:8.1f}{row['coordinator']:13.1f}{row['writing']:15.1f}", end=""
        )
        print(f"{row['workers']:9.1f}{row['peak']:6.0f}", end="")
        print(f"{row['tasks']:7}{row['sent']:8}{row['received']:10}{row['files']:8}")
        told(f"coordinator without writing, ms a piece, {name}", 1e3 * (row["coordinator"] - row["writing"]) / count)
        told(f"coordinator, KiB a piece, {name}", 1024 * row["grown"] / count)


def as_a_run(folder: Path, count: int, points: int) -> dict[str, float]:
    """A run, or a sweep, with the memory of this process before and at its greatest."""
    experiment, config = ours(count=count)
    if points:
        experiment = Sweep(experiment, {"point": list(range(points))})
    with started(2) as (executor, *_), counted_chunks() as chunks, counted_messages() as messages:
        before = peak_memory()
        found = Spent()
        run = RunFolder(folder / "runs" / "out", experiment, config, executor=executor, console=Console(quiet=True))
        run.execute()
        found.stop()
    files = sum(path.is_file() for path in folder.rglob("*"))
    return {
        "clock": found.clock,
        "coordinator": found.coordinator,
        "writing": found.writing,
        "workers": sum(found.workers),
        "peak": peak_memory(),
        "grown": peak_memory() - before,
        "tasks": len(chunks),
        "files": files,
    } | messages


def waiting(folder: Path, quick: bool) -> None:
    each = 3.0 if quick else 10.0
    experiment, config = ours(count=4, busy=each)
    with started(2) as (executor, *_):
        setting = Setting(experiment, config, folder)
        setting.carry_out(executor, labelled(0, 1))
        found = spent(setting, executor, labelled(1, 2))
    told("coordinator while it waits, ms a second", 1e3 * found.coordinator / found.clock)


def threads(folder: Path, quick: bool) -> None:
    size = 600 if quick else 1500
    experiment, config = ours(count=20, size=size)
    for count in (1, 2):
        with started(count) as (executor, *_):
            setting = Setting(experiment, config, folder / str(count))
            setting.carry_out(executor, labelled(0, count))
            with wanting_cores() as wanted:
                found = spent(setting, executor, labelled(count, 2 * count))
        cores = len(os.sched_getaffinity(0)) // count
        most = f"<= {1.1 * cores:g}"
        told(f"workers: {count}; threads of a worker that run or would run", max(wanted.values()), most)
        told(f"workers: {count}; processor time of a worker over the clock", found.workers[0] / found.clock, most)


PARTS = {part.__name__: part for part in (workers, pieces, total, many, waiting, threads)}


def ours(**numbers: Any) -> tuple[Experiment, BaseConfig]:
    """The class as workers find it: in a file of its own."""
    experiment = load_experiment(f"{Path(__file__).resolve()}:Pieces")()
    return experiment, experiment.Config(**numbers)


FOUND: list[tuple[str, float, str]] = []


def told(what: str, value: float, asked: str = "") -> None:
    """Into the table of the part."""
    FOUND.append((what, value, asked))


def carried_out(name: str, folder: Path, quick: bool) -> list[tuple[str, float, str]]:
    PARTS[name](folder, quick)
    return FOUND


def peak_memory() -> float:
    """Largest resident set so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@contextmanager
def counted_chunks() -> Iterator[list[int]]:
    """The number of pieces of every task that is sent meanwhile."""
    found: list[int] = []
    send = engine._Round._send

    def counting(self: Any, names: list[str]) -> None:
        found.append(len(names))
        send(self, names)

    engine._Round._send = counting
    try:
        yield found
    finally:
        engine._Round._send = send


@contextmanager
def counted_messages() -> Iterator[dict[str, int]]:
    """Messages that coordinator and scheduler send and receive; those between the two are counted at both ends."""
    from distributed.comm.inproc import InProc
    from distributed.comm.tcp import TCP

    found = {"sent": 0, "received": 0}

    def counting(method: Any, what: str) -> Any:
        async def counted(*arguments: Any, **more: Any) -> Any:
            result = await method(*arguments, **more)
            found[what] += 1
            return result

        return counted

    with ExitStack() as stack:
        for comm in (TCP, InProc):
            for method, what in (("write", "sent"), ("read", "received")):
                stack.enter_context(patch.object(comm, method, counting(getattr(comm, method), what)))
        yield found


@contextmanager
def wanting_cores() -> Iterator[dict[int, float]]:
    """Process -> threads of it that run or are ready to, on average over the time in which there is one (Linux)."""
    found: dict[int, float] = {}
    samples: dict[int, list[int]] = {}
    stopped = Event()

    def look() -> None:
        while not stopped.wait(0.01):
            for process in processor_times():
                if ready := sum(map(is_ready, Path(f"/proc/{process}/task").glob("*/stat"))):
                    samples.setdefault(process, []).append(ready)

    thread = Thread(target=look, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        stopped.set()
        thread.join()
        found |= {process: float(np.mean(counts)) for process, counts in samples.items() if len(counts) > 20}


def is_ready(status: Path) -> bool:
    try:
        return status.read_text().rpartition(")")[2].split()[0] == "R"
    except OSError:
        return False


def in_a_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function gives in a new process, whose memory and times are its own."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_send, args=(theirs, function, arguments))
    process.start()
    theirs.close()
    try:
        return json.loads(ours.recv())
    finally:
        process.join()


def _send(pipe: Any, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    Writing()
    pipe.send(json.dumps(function(*arguments)))


def main() -> None:
    parser = arguments(__doc__, quick="fewer, shorter pieces")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)} (default: all)")
    options = parser.parse_args()
    if unknown := set(options.parts) - PARTS.keys():
        parser.error(f"there is no part {', '.join(sorted(unknown))}")
    report = Report("executor", options, "jax", "dask", "distributed", "xarray")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MORPHAX_COMPILE_CACHE"] = str(Path(folder) / "programs")
        for name in PARTS:
            if not options.parts or name in options.parts:
                rows = in_a_process(carried_out, name, Path(folder) / name, options.quick)
                report.table(name, name, ["", "here", "wanted"], rows)
    report.finish()


if __name__ == "__main__":
    main()
