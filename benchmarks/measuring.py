"""What benchmarks share: cores, contenders in processes of their own, rates of the machine, tables that are kept.

JAX and PyTorch are imported by whoever is measured: their threads and their memory are part of it.
"""

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

RESULTS = Path(__file__).parent.parent / "docs" / "results" / "speed"
Call = Callable[[], Any]

# Read when PyTorch loads. By default its threads spin for milliseconds after every operation: on a machine that has
# other work that is a hundred times slower, and the spinning would disturb whoever is measured next.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")


def arguments(doc: str | None, *, quick: str | None = "fewer repeats") -> argparse.ArgumentParser:
    """Options that benchmarks have in common; `quick` says what that one does, None leaves it out."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    if quick is not None:
        parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--threads", type=int, default=None, metavar="N", help="keep to N cores (all)")
    parser.add_argument("--keep", action="store_true", help="store the tables, for docs/build.py")
    return parser


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0))


class Report:
    """The tables of a run, printed as they come, and stored in docs/results/speed when it was asked for.

    The process is kept on the cores that were asked for. It begins anew for that: libraries that are imported by now
    may have threads already, which would stay on all.
    """

    def __init__(self, name: str, options: argparse.Namespace, *packages: str):
        self.name, self.keep = name, options.keep
        allowed = sorted(os.sched_getaffinity(0))
        if options.threads is not None and options.threads < len(allowed):
            if options.threads < 1:
                raise SystemExit("--threads: at least 1")
            os.sched_setaffinity(0, allowed[-options.threads :])
            os.execv(sys.executable, [sys.executable, *sys.argv])
        self.threads = len(allowed)
        self.tables: dict[str, dict[str, Any]] = {}
        self.started = time.perf_counter()
        versions = ", ".join(f"{package} {version(package)}" for package in packages)
        self.cores = "one core" if self.threads == 1 else f"{self.threads} cores"
        self.machine = f"{processor()}; {versions}"
        print(f"{self.cores} of {self.machine}; Python {platform.python_version()}, load {os.getloadavg()[0]:.1f}")

    def table(self, name: str, title: str, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Print, and remember, a table; numbers get three digits."""
        texts = [[cell if isinstance(cell, str) else digits(cell) for cell in row] for row in rows]
        self.tables[name] = {"header": list(header), "rows": texts}
        widths = [max(map(len, column)) for column in zip(header, *texts, strict=True)]
        print(f"\n{title}")
        for row in (header, *texts):
            first, *others = (
                cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
            )
            print("   " + "  ".join([first, *others]).rstrip(), flush=True)

    def finish(self, *, partly: bool = False) -> None:
        """Store what was asked for; `partly`: rows that were measured take the place of those that are stored."""
        print(f"\nload {os.getloadavg()[0]:.1f} at the end, {time.perf_counter() - self.started:.0f} s in all")
        if self.keep:
            RESULTS.mkdir(parents=True, exist_ok=True)
            path = RESULTS / f"{self.name}-{self.threads}.json"
            content = {"machine": self.machine, "cores": self.cores, "tables": self.tables}
            if partly and path.exists():
                stored = json.loads(path.read_text(encoding="utf-8"))
                if stored["machine"] != self.machine:
                    raise SystemExit(f"{path} is of another machine: measure everything")
                for name, table in stored["tables"].items():
                    fresh = {row[0]: row for row in self.tables.get(name, {"rows": []})["rows"]}
                    table["rows"] = [fresh.get(row[0], row) for row in table["rows"]]
                content["tables"] = self.tables | stored["tables"]
            text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
            path.write_text(text, encoding="utf-8")


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def digits(value: float | None) -> str:
    """Three digits; nothing for None."""
    if value is None:
        return ""
    if value == 0 or 1e-3 <= abs(value) < 1e6:
        return f"{float(f'{value:.3g}'):,.6f}".rstrip("0").rstrip(".")
    return f"{value:.1e}"


# --- Times ------------------------------------------------------------------------------------------------------------


class Times(NamedTuple):
    """Seconds: on the clock, median and least, and of all processors."""

    median: float
    least: float
    processor: float

    def each(self, number: float) -> "Times":
        return Times(*(value / number for value in self))


def timed(call: Call) -> tuple[float, float]:
    """Seconds on the clock and of all cores, until the result is there."""
    if isinstance(call, Apart):
        return call.timed()
    wall, before = time.perf_counter(), time.process_time()
    result = call()
    if "jax" in sys.modules:
        sys.modules["jax"].block_until_ready(result)
    return time.perf_counter() - wall, time.process_time() - before


def side_by_side(
    contenders: Mapping[str, Call], repeats: int, *, warm: bool = True, most: float = 1e9
) -> dict[str, Times]:
    """Times of all contenders, who take turns; the first call of each compiles and is not counted.

    Who takes longer than `most` seconds is measured once.
    """
    if warm:
        for call in contenders.values():
            timed(call)
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, call in contenders.items():
            if not samples[name] or samples[name][0][0] < most:
                samples[name].append(timed(call))
    return {name: summary(found) for name, found in samples.items()}


def summary(samples: Sequence[tuple[float, float]]) -> Times:
    wall, used = zip(*samples, strict=True)
    return Times(statistics.median(wall), min(wall), statistics.median(used))


class Apart:
    """A contender in a process of its own, where `prepare(*given)` makes what is called.

    For those that configure devices, threads or memory, which is settled when a process begins to compute.
    """

    def __init__(
        self,
        prepare: Callable[..., Any],
        *given: Any,
        on: Sequence[int] | None = None,
        settings: Mapping[str, str] | None = None,
    ):
        spawn = multiprocessing.get_context("spawn")
        self.pipe, theirs = spawn.Pipe()
        self.process = spawn.Process(target=_contend, args=(theirs, prepare, given), daemon=True)
        # Taken over by the process, before it imports anything that looks at them.
        allowed = os.sched_getaffinity(0)
        os.sched_setaffinity(0, allowed if on is None else on)
        with patch.dict(os.environ, settings or {}):
            self.process.start()
        os.sched_setaffinity(0, allowed)
        # Without this a contender that fails would leave the other end open, and this process waiting.
        theirs.close()
        self.pipe.recv()

    def timed(self) -> tuple[float, float]:
        return self.ask("")

    def ask(self, what: str) -> Any:
        """What a method of the prepared object gives; nothing: the seconds of a call."""
        self.pipe.send(what)
        return self.pipe.recv()

    def __call__(self) -> None:
        self.timed()

    def stop(self) -> None:
        self.pipe.close()
        self.process.join()


def _contend(pipe: Any, prepare: Callable[..., Any], given: Any) -> None:
    prepared = prepare(*given)
    pipe.send("ready")
    while True:
        try:
            asked = pipe.recv()
        except EOFError:
            return
        pipe.send(getattr(prepared, asked)() if asked else timed(prepared))


# --- What the machine can do ------------------------------------------------------------------------------------------


def rates(double: bool = False) -> dict[str, float]:
    """Operations a second on the cores of this process, in compiled code.

    Products of two matrices of 1,024 rows; multiply and add, sixteen in a row, of 4,096 numbers in the cache, two
    operations each; exponentials of as many. The last two on one core, times the number of cores.
    """
    import jax
    import jax.numpy as jnp

    with jax.enable_x64(double):
        matrix, numbers = jnp.ones((1024, 1024)), jnp.linspace(0.1, 1, 4096)

        def chain(_: int, x: Any) -> Any:
            for index in range(16):
                x = x * (1 - 1e-3 * index) + 1e-3
            return x

        again = 2000
        product = jax.jit(lambda m: m @ m)
        fused = jax.jit(lambda x: jax.lax.fori_loop(0, again, chain, x))
        exponential = jax.jit(lambda x: jax.lax.fori_loop(0, again, lambda _, y: jnp.exp(-y), x))
        calls = {
            "products": lambda: product(matrix),
            "elementwise": lambda: fused(numbers),
            "transcendental": lambda: exponential(numbers),
        }
        found = side_by_side(calls, 9)
    return {
        "products": 2 * 1024**3 / found["products"].least,
        "elementwise": cores() * 2 * 16 * again * 4096 / found["elementwise"].processor,
        "transcendental": cores() * again * 4096 / found["transcendental"].processor,
    }


def fock_terms(device: Any, drives: Any) -> int:
    """Terms of the Faber series that a run of a mixer adds, over all points."""
    import jax

    from morphax import evolve
    from morphax.dynamics import exponential

    action, blocks = exponential._exponential_action, []

    def watched(*arguments: Any) -> Any:
        image, number = action(*arguments)
        jax.debug.callback(lambda b: blocks.append(int(b)), number)
        return image, number

    jax.clear_caches()
    with patch.object(exponential, "_exponential_action", watched):
        jax.block_until_ready(jax.jit(lambda d: evolve(device, d)[0])(drives))
        jax.effects_barrier()
    jax.clear_caches()
    return sum(2 + exponential.BLOCK * b for b in blocks)
