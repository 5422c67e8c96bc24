"""An ensemble on one device and divided over several, side by side.

    python benchmarks/devices.py [--quick] [--devices 4] [--threads 1] [--keep]

Networks of three layers of 32 auto-oscillators learn the digits of 8 x 8 pixels, 120 sequences of 64 points a batch,
in single precision: `train(..., ensemble=True)`, whose members `map_members` divides, and a compiled `vmap` over keys,
forward only, on keys that `divided` has put on several devices.

Every contender is a process of its own, for the number of devices is settled when a process begins to compute; they
take turns. On a machine with several GPUs one works against all of them, and the ratios show what that gains. Otherwise
devices are simulated: they share the cores, which one device fills already. Nothing can be gained then, and the ratios
show what the division costs: every device compiles for itself (the first call), and in a divided `vmap` devices wait
for each other.

Shown are the median and the least time on the wall, processor time, ratios to the first row, and by how much the losses
differ from its own.
"""

import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from statistics import median
from typing import Any, NamedTuple

from measuring import Apart, Report, arguments

WORK = {"train": "`train`, ensemble of {members}, {steps} steps", "vmap": "`vmap` over {members} keys, forward"}
SIMULATED = "--xla_force_host_platform_device_count="


class Size(NamedTuple):
    """How much is measured."""

    members: int
    steps: int
    repeats: int


FULL = Size(8, 20, 7)
QUICK = Size(8, 4, 3)


def main() -> None:
    parser = arguments(__doc__, quick="fewer repeats and steps")
    parser.add_argument("--devices", type=int, default=4, help="that are simulated where there are not several GPUs")
    options = parser.parse_args()
    size = QUICK if options.quick else FULL
    report = Report("devices", options, "jax", "equinox", "optax", "numpy")
    contenders = started(options.devices, size)
    header = ["", "median s", "ratio", "least", "processor", "first call", "ratio there", "losses"]
    for work, title in WORK.items():
        rows = measured(work, contenders, size.repeats)
        report.table(work, title.format(**size._asdict()), header, rows)
    report.finish()


# --- Who asks ---------------------------------------------------------------------------------------------------------


def started(devices: int, size: Size) -> dict[str, Apart]:
    """The contenders by name, waiting for work."""
    looked = subprocess.run(
        [sys.executable, "-c", "import jax; print(jax.default_backend(), jax.local_device_count())"],
        capture_output=True,
        text=True,
        check=True,
    )
    kind, count = looked.stdout.split()
    if kind != "cpu" and int(count) > 1:
        print(f"{count} devices ({kind})")
        # Two processes at once: neither may take all the memory.
        found = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        ways = {f"one of {count} devices": (True, found), f"{count} devices": (False, found)}
    else:
        print(f"{devices} devices are simulated on the CPU: no gain is to be expected, this is what the division costs")
        one, several = ({"JAX_PLATFORMS": "cpu", "XLA_FLAGS": f"{SIMULATED}{number}"} for number in (1, devices))
        ways = {
            "one device": (False, one),
            f"one of {devices} devices": (True, several),
            f"{devices} devices": (False, several),
        }
    return {name: Apart(Contender, alone, size, settings=settings) for name, (alone, settings) in ways.items()}


def measured(work: str, contenders: dict[str, Apart], repeats: int) -> list[list[Any]]:
    """One row a contender; the first call of each compiles and has a column of its own."""
    samples: dict[str, list[dict[str, Any]]] = {name: [] for name in contenders}
    for _ in range(1 + repeats):
        for name, contender in contenders.items():
            samples[name].append(contender.ask(work))
    reference, rows = next(iter(samples.values())), []
    for name, (first, *others) in samples.items():
        wall, least = median(one["wall"] for one in others), min(one["wall"] for one in others)
        ratio = wall / median(one["wall"] for one in reference[1:])
        off = max(abs(a / b - 1) for a, b in zip(first["losses"], reference[0]["losses"], strict=True))
        used, longer = median(one["processor"] for one in others), first["wall"] / reference[0]["wall"]
        same = f"{off:.0e} off" if off else "the same"
        rows.append([name, wall, ratio, least, used, first["wall"], longer, same])
    return rows


# --- Who works --------------------------------------------------------------------------------------------------------


class Contender:
    """Does the work on one of the devices, or on all: what a call needed, and its losses."""

    def __init__(self, alone: bool, size: Size):
        import jax

        self.where = (lambda: jax.default_device(jax.local_devices()[0])) if alone else nullcontext
        with self.where():
            self.calls = prepared(size)

    def train(self) -> dict[str, Any]:
        return self.needed("train")

    def vmap(self) -> dict[str, Any]:
        return self.needed("vmap")

    def needed(self, work: str) -> dict[str, Any]:
        import numpy as np

        wall, processor = time.perf_counter(), time.process_time()
        with self.where():
            losses = np.asarray(self.calls[work]())
        used = {"wall": time.perf_counter() - wall, "processor": time.process_time() - processor}
        return used | {"losses": losses.tolist()}


def prepared(size: Size) -> dict[str, Callable[[], Any]]:
    """The work by name; each call gives a loss for every member."""
    import jax
    import optax

    from morphax import Backpropagation, SpintronicNetwork, WithReadout, train
    from morphax.learning.ensemble import divided, make_members, member_keys
    from morphax.tasks import sequential_digits

    batch, key, rule = 120, jax.random.key(0), Backpropagation()
    optimiser = optax.chain(optax.clip(1.0), optax.adam(0.01))
    task = sequential_digits(key=key)
    data = task.train_inputs, task.train_targets

    def network(key: jax.Array) -> WithReadout:
        first, second = jax.random.split(key)
        return WithReadout.random(SpintronicNetwork.random(key=first), outputs=10, key=second)

    stack = make_members(network, key, size.members)
    arguments = {"steps": size.steps, "key": key, "batch_size": batch, "chunk": size.steps, "ensemble": True}

    def trained() -> Any:
        return train(stack, rule, data, optimiser, **arguments).history[-1]["loss"]

    @jax.jit
    @jax.vmap
    def judged(key: jax.Array) -> jax.Array:
        return rule.metrics(network(key), data[0][:batch], data[1][:batch], key=key)["loss"]

    return {"train": trained, "vmap": lambda: judged(divided(member_keys(key, size.members)))}


if __name__ == "__main__":
    main()
