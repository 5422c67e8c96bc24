"""An ensemble on one device and divided over several, side by side.

    python benchmarks/devices.py [--quick] [--devices 4]

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

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from importlib.metadata import version
from statistics import median
from typing import Any, NamedTuple

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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer repeats and steps")
    parser.add_argument("--devices", type=int, default=4, help="that are simulated where there are not several GPUs")
    parser.add_argument("--contender", choices=("one", "all"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    size = QUICK if options.quick else FULL
    if options.contender:
        contend(options.contender == "one", size)
        return
    versions = ", ".join(f"{name} {version(name)}" for name in ("jax", "equinox", "optax", "numpy"))
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Python {platform.python_version()}, {versions}")
    contenders = started(options.devices, ["--quick"] if options.quick else [])
    for work, title in WORK.items():
        print(f"\n{title.format(**size._asdict())}")
        measure(work, contenders, size.repeats)
    for process in contenders.values():
        process.communicate()
    print(f"\nload {os.getloadavg()[0]:.1f} at the end")


# --- Who asks ---------------------------------------------------------------------------------------------------------


def started(devices: int, options: list[str]) -> dict[str, subprocess.Popen[str]]:
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
        ways = {f"one of {count} devices": ("one", found), f"{count} devices": ("all", found)}
    else:
        print(f"{devices} devices are simulated on the CPU: no gain is to be expected, this is what the division costs")
        one, several = ({"JAX_PLATFORMS": "cpu", "XLA_FLAGS": f"{SIMULATED}{number}"} for number in (1, devices))
        ways = {
            "one device": ("all", one),
            f"one of {devices} devices": ("one", several),
            f"{devices} devices": ("all", several),
        }
    pipe: Any = subprocess.PIPE
    return {
        name: subprocess.Popen(
            [sys.executable, __file__, "--contender", way, *options],
            env={**os.environ, **settings},
            stdin=pipe,
            stdout=pipe,
            text=True,
        )
        for name, (way, settings) in ways.items()
    }


def measure(work: str, contenders: dict[str, subprocess.Popen[str]], repeats: int) -> None:
    """One row a contender; the first call of each compiles and has a column of its own."""
    samples: dict[str, list[dict[str, Any]]] = {name: [] for name in contenders}
    for _ in range(1 + repeats):
        for name, process in contenders.items():
            samples[name].append(asked(process, work))
    print(f"   {'':22} {'median s':>9} {'ratio':>6} {'least':>7} {'cpu':>7} {'first call':>11} {'ratio':>6}  losses")
    reference = next(iter(samples.values()))
    for name, (first, *others) in samples.items():
        wall, least = median(one["wall"] for one in others), min(one["wall"] for one in others)
        ratio = wall / median(one["wall"] for one in reference[1:])
        off = max(abs(a / b - 1) for a, b in zip(first["losses"], reference[0]["losses"], strict=True))
        print(
            f"   {name:22} {wall:9.2f} {ratio:6.2f} {least:7.2f} {median(one['processor'] for one in others):7.2f} "
            f"{first['wall']:11.1f} {first['wall'] / reference[0]['wall']:6.2f}  "
            f"{f'{off:.0e} off' if off else 'the same'}",
            flush=True,
        )


def asked(process: subprocess.Popen[str], work: str) -> dict[str, Any]:
    """What a contender needed, and its losses."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{work}\n")
    process.stdin.flush()
    answer = process.stdout.readline()
    if not answer:
        raise SystemExit(f"a contender ended with {process.wait()}")
    return json.loads(answer)


# --- Who works --------------------------------------------------------------------------------------------------------


def contend(alone: bool, size: Size) -> None:
    """Do what the lines of standard input name, on one of the devices or on all."""
    import jax
    import numpy as np

    with jax.default_device(jax.local_devices()[0]) if alone else nullcontext():
        calls = prepared(size)
        for line in sys.stdin:
            wall, processor = time.perf_counter(), time.process_time()
            losses = np.asarray(calls[line.strip()]())
            needed = {"wall": time.perf_counter() - wall, "processor": time.process_time() - processor}
            print(json.dumps({**needed, "losses": losses.tolist()}), flush=True)


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
