"""What judging costs: capacities of one recording by morphax, RCbench and reservoirpy, side by side in one run.

    python benchmarks/judging.py [--quick] [--threads 1] [--keep] [PART ...]

- `products`: an echo-state network of 50 neurons, driven with 100,000 independent inputs. morphax tries 5,000 products
  up to degree 5; RCbench takes all that it has up to degree 3 and delay 8 (165), by ridge regression as it comes;
  reservoirpy fits 100 delays, its memory capacity, on the readings alone, as its function does. Each is a process of
  its own; peak memory is that of the whole process, libraries and recording included.
- `growth`: how time grows with readings, points and products.
- `chips`: up to 100 devices of one production line, simulated at once and in turn, and judged with one drive.
- `stream`: recordings of 1 and 10 million points of 50 readings in a file (4 GB), read in stretches.

Times are of the clock; the machine should do nothing else.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from measuring import Apart, Report, arguments

NEURONS, POINTS, PRODUCTS, TAPS = 50, 100_000, 5000, 100


def main() -> None:
    parser = arguments(__doc__, quick="a tenth of the points")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)} (default: all)")
    options = parser.parse_args()
    report = Report("judging", options, "jax", "rcbench", "reservoirpy", "numpy")
    for name in options.parts or PARTS:
        PARTS[name](report, 10 if options.quick else 1)
    report.finish()


def recording(folder: Path, neurons: int, points: int) -> Path:
    """Inputs and readings of an echo-state network, in a file."""
    from morphax import EchoStateNetwork, evolve
    from morphax.judging import stimulus

    path = folder / f"{neurons}-{points}.npz"
    with jax.enable_x64(True):
        inputs = stimulus(points, key=jax.random.key(0))
        network = EchoStateNetwork.random(neurons, input_scale=0.1, key=jax.random.key(1))
        np.savez(path, inputs=inputs, readings=np.asarray(evolve(network, inputs)[0]))
    return path


def apart(work: Callable[..., Any], *arguments: Any) -> tuple[float, float, Any]:
    """Seconds, peak memory in MB, and what a function gives in a process of its own."""
    contender = Apart(Measured, work, *arguments)
    try:
        return contender.ask("found")
    finally:
        contender.stop()


class Measured:
    """Work that was prepared, done once."""

    def __init__(self, work: Callable[..., Any], *arguments: Any):
        self.ready = work(*arguments)

    def found(self) -> tuple[float, float, Any]:
        started = time.perf_counter()
        found = self.ready()
        seconds = time.perf_counter() - started
        return seconds, peak(), found


def peak() -> float:
    """MB. What getrusage tells of a process begins with what its parent had."""
    told = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(told["VmHWM"].split()[0]) / 1e3


def by_morphax(path: Path, products: int, degree: int = 5) -> Callable[[], tuple[int, float]]:
    from morphax.judging import information_processing_capacity

    stored = np.load(path)
    inputs, readings = stored["inputs"], stored["readings"]

    def run() -> tuple[int, float]:
        found = information_processing_capacity(inputs, readings, max_degree=degree, max_products=products)
        return found.sizes["product"], float(found.total)

    return run


def by_rcbench(path: Path) -> Callable[[], tuple[int, float]]:
    import logging

    from rcbench.tasks.ipc import IPCEvaluator

    logging.disable(logging.INFO)
    stored = np.load(path)
    judge = IPCEvaluator(stored["inputs"], stored["readings"], max_delay=8, max_degree=3)

    def run() -> tuple[int, float]:
        found = judge.calculate_total_capacity(feature_selection_method="pca", num_features="all")
        return len(found["all_results"]), float(found["total_capacity"])

    return run


def by_reservoirpy(path: Path) -> Callable[[], tuple[int, float]]:
    from reservoirpy.nodes import Ridge

    # Its function drives a model by itself; here readings are there, and its regression is what is timed.
    stored = np.load(path)
    inputs, readings = stored["inputs"], stored["readings"]
    delayed = np.stack([np.roll(inputs, delay) for delay in range(1, TAPS + 1)], axis=1)[TAPS:]
    used, split = readings[TAPS:], round(0.8 * (len(readings) - TAPS))

    def run() -> tuple[int, float]:
        readout = Ridge(ridge=1e-8)
        readout.fit(used[:split], delayed[:split])
        told = readout.run(used[split:])
        shares = [np.corrcoef(a, b)[0, 1] ** 2 for a, b in zip(told.T, delayed[split:].T, strict=True)]
        return TAPS, float(np.sum(shares))

    return run


def products(report: Report, less: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = recording(Path(folder), NEURONS, POINTS // less)
        found = {
            "morphax": apart(by_morphax, path, PRODUCTS),
            "RCbench": apart(by_rcbench, path),
            "reservoirpy (memory alone)": apart(by_reservoirpy, path),
        }
    rate = found["morphax"][2][0] / found["morphax"][0]
    rows = [
        [name, f"{count:,}", seconds, count / seconds, f"{memory:.0f}", total, rate / (count / seconds)]
        for name, (seconds, memory, (count, total)) in found.items()
    ]
    header = ["", "products", "s", "a second", "MB", "sum", "morphax's rate is"]
    report.table("products", f"{NEURONS} readings, {POINTS // less:,} points", header, rows)


def growth(report: Report, less: int) -> None:
    points = POINTS // less
    cases = [
        (NEURONS, points, PRODUCTS),
        (2 * NEURONS, points, PRODUCTS),
        (4 * NEURONS, points, PRODUCTS),
        (NEURONS, points // 10, PRODUCTS),
        (NEURONS, points, PRODUCTS // 4),
        (NEURONS, points, 4 * PRODUCTS),
    ]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for neurons, length, count in cases:
            path = recording(Path(folder), neurons, length)
            seconds, memory, (tried, _) = apart(by_morphax, path, count, 8)
            rows.append([f"{neurons}", f"{length:,}", f"{tried:,}", seconds, f"{memory:.0f}"])
    report.table("growth", "Growth of the time", ["readings", "points", "products", "s", "MB"], rows)


def chips(report: Report, less: int) -> None:
    points = POINTS // less // 10
    rows = []
    for devices in (1, 10, 100):
        _, memory, (at_once, in_turn, judged) = apart(by_chips, devices, points)
        rows.append([f"{devices}", at_once, in_turn, judged, f"{memory:.0f}"])
    header = ["devices", "at once, s", "in turn, s", "judged, s", "MB"]
    report.table("chips", f"Chips of one production line, {points:,} points", header, rows)


def by_chips(devices: int, points: int) -> Callable[[], tuple[float, float, float]]:
    from morphax import EchoStateNetwork, evolve, mismatch
    from morphax.judging import information_processing_capacity, stimulus

    inputs = stimulus(points, key=jax.random.key(0))
    design = EchoStateNetwork.random(NEURONS, input_scale=0.1, key=jax.random.key(1))
    keys = jax.random.split(jax.random.key(2), devices)

    def one(key: Any) -> Any:
        return evolve(mismatch(design, devices=0.1, key=key), inputs)[0]

    each, every = jax.jit(one), jax.jit(jax.vmap(one))

    def timed(work: Callable[[], Any]) -> tuple[float, Any]:
        started = time.perf_counter()
        found = jax.block_until_ready(work())
        return time.perf_counter() - started, found

    def run() -> tuple[float, float, float]:
        timed(lambda: each(keys[0]))
        in_turn, _ = timed(lambda: [each(key) for key in keys])
        timed(lambda: every(keys))
        at_once, found = timed(lambda: every(keys))
        recordings = list(np.asarray(found, float))
        judged, _ = timed(
            lambda: information_processing_capacity(inputs, recordings, max_products=PRODUCTS).total.values
        )
        return at_once, in_turn, judged

    return run


def by_stream(path: Path, products: int) -> Callable[[], tuple[int, float]]:
    from morphax.judging import Recording, information_processing_capacity

    stored = Recording.from_netcdf(path)

    def run() -> tuple[int, float]:
        found = information_processing_capacity(
            stored.inputs, stored.responses, max_degree=3, max_delay=20, max_products=products
        )
        return found.sizes["product"], float(found.total)

    return run


def stream(report: Report, less: int) -> None:
    readings, taps, rows = NEURONS, 25, []
    with tempfile.TemporaryDirectory() as folder:
        for points in (10**6 // less, 10**7 // less):
            path = Path(folder) / f"{points}.nc"
            write_long(path, points, readings, taps)
            seconds, memory, (count, total) = apart(by_stream, path, 500)
            rows.append(
                [f"{points:,}", f"{path.stat().st_size / 1e6:,.0f}", f"{count}", seconds, f"{memory:.0f}", total]
            )
            path.unlink()
    header = ["points", "MB of the file", "products", "s", "MB", "sum"]
    report.table("stream", f"A file of {readings} readings, in stretches", header, rows)


def write_long(path: Path, points: int, readings: int, taps: int) -> None:
    """A delay line of `taps`, and products of neighbouring taps, written in stretches."""
    import h5netcdf

    rng = np.random.default_rng(0)
    u = rng.uniform(-1, 1, points + taps)
    with h5netcdf.File(path, "w") as file:
        file.dimensions = {"time": points, "channel": 1, "reading": readings}
        file.create_variable("inputs", ("time", "channel"), float)[:] = u[taps:, None]
        table = file.create_variable("responses", ("time", "reading"), float)
        for low in range(0, points, 100_000):
            high = min(low + 100_000, points)
            lines = np.stack([u[low + taps - delay : high + taps - delay] for delay in range(taps + 1)], axis=1)
            table[low:high] = np.hstack([lines[:, :taps], lines[:, :taps] * lines[:, 1:]])


PARTS: dict[str, Callable[[Report, int], None]] = {
    "products": products,
    "growth": growth,
    "chips": chips,
    "stream": stream,
}


if __name__ == "__main__":
    main()
