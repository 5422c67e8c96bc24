"""Processor time of starting: of imports and commands beside `import jax`, of a run with programs that were kept.

    python benchmarks/starts.py [--rounds 9] [--runs 3] [--threads 1] [--keep]

Every measurement is a process of its own, whose user and system time the operating system counts: other work on the
machine stretches it less than the clock. All take turns in every round; medians are shown. `import morphax *` takes all
public names, which `import morphax` leaves for later.

The second table runs experiments without the compile cache, with one that is empty, and with what that run left; their
datasets must be the same.
"""

import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from statistics import median

import xarray as xr

from measuring import Report, arguments

MORPHAX = ("-m", "morphax.cli")
# Arguments of Python, and the ratio to the first that is required.
STARTS: dict[str, tuple[tuple[str, ...], float | None]] = {
    "import jax": (("-c", "import jax"), None),
    "import jax, equinox, optax": (("-c", "import jax, equinox, optax"), None),
    "import morphax": (("-c", "import morphax"), 2.0),
    "from morphax import *": (("-c", "from morphax import *"), 2.0),
    "morphax --version": ((*MORPHAX, "--version"), 1.0),
    "morphax --help": ((*MORPHAX, "--help"), 1.0),
    "morphax list": ((*MORPHAX, "list"), 1.5),
    "morphax show josephson/waveforms": ((*MORPHAX, "show", "josephson/waveforms"), 2.5),
    "morphax show quantized/rotation": ((*MORPHAX, "show", "quantized/rotation"), 2.5),
}
EXPERIMENTS = ("josephson/shots", "phase-oscillators/xor", "spiking/distribution")
REQUIRED = 0.4  # of a run without the cache


def main() -> None:
    parser = arguments(__doc__, quick=None)
    parser.add_argument("--rounds", type=int, default=9, help="of starts")
    parser.add_argument("--runs", type=int, default=3, help="of each experiment, and of each state of the cache")
    options = parser.parse_args()
    report = Report("starts", options, "jax", "equinox", "optax", "numpy")
    starts(report, options.rounds)
    runs(report, options.runs)
    report.finish()


def starts(report: Report, rounds: int) -> None:
    times: dict[str, list[float]] = {name: [] for name in STARTS}
    for _ in range(rounds):
        for name, (command, _) in STARTS.items():
            times[name].append(processor_time(*command))
    one = median(times["import jax"])
    rows = [
        [f"`{name}`", median(times[name]), median(times[name]) / one, "" if most is None else f"at most {most:g}"]
        for name, (_, most) in STARTS.items()
    ]
    report.table("starts", "Starts", ["", "s", "ratio", "required"], rows)


def runs(report: Report, rounds: int) -> None:
    rows = []
    for name in EXPERIMENTS:
        times: dict[str, list[float]] = {"no cache": [], "first": [], "later": []}
        results = []
        for _ in range(rounds):
            with tempfile.TemporaryDirectory() as folder:
                out, cache = Path(folder) / "run", str(Path(folder) / "cache")
                for way, asked in (("no cache", "off"), ("first", cache), ("later", cache)):
                    command = (*MORPHAX, "run", name, "--quick", "--fresh", "--out", str(out))
                    times[way].append(processor_time(*command, settings={"MORPHAX_COMPILE_CACHE": asked}))
                    results.append(xr.load_dataset(out / "result.nc", engine="h5netcdf"))
        none, first, later = (median(seconds) for seconds in times.values())
        same = "the same" if all(result.equals(results[0]) for result in results) else "NOT the same"
        rows.append([f"`run {name} --quick`", none, first, later, later / none, f"at most {REQUIRED}", same])
    header = ["processor s", "no cache", "first", "later", "ratio", "required", "datasets"]
    report.table("runs", "Runs without the compile cache, with an empty one, and with what was kept", header, rows)


def processor_time(*arguments: str, settings: Mapping[str, str] | None = None) -> float:
    """Seconds, user and system, of a Python process that ends well, without a cache that was chosen before."""
    ours = {key: value for key, value in os.environ.items() if not key.startswith("JAX_")}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = ours | dict(settings or {})
    subprocess.run([sys.executable, *arguments], env=environment, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
