"""Where time stops growing like the work: levels, batches, points, oscillators; each on one core.

    python benchmarks/growth.py [--quick] [--threads 1] [--keep] [PART ...]

- `levels`: a point of the Fock method, in double precision; the work is N^2 numbers times the terms that are added.
- `batch`: a training step of the spintronic 3 x 32 network with 64 points, as it comes and with the batch as a whole;
  that of the perceptron; 100 time steps of spiking chains. The work is the number of examples.
- `points`: the gradient of the spintronic network, batch 120, with all states kept and in segments; spiking chains with
  all steps kept. The work is the number of points.
- `oscillators`: 64 states of networks coupled all-to-all: a sweep, a step of accelerated descent, one of Runge-Kutta.
  The work is the square of the number.

Shown is the time for a unit of work, of one processor. A row leaves the power law where that is more than 1.5
times the least of the rows of less work; below, before the law begins, calls and loops cost more than what they do.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from measuring import Call, Report, arguments, fock_terms, side_by_side
from morphax import JosephsonMixer, PhaseOscillators, QuantizedPerceptron, SpintronicNetwork, WithReadout, evolve
from morphax.dynamics.relaxation import AcceleratedDescent, BlockSweeps, RungeKutta
from morphax.learning.backprop import Backpropagation
from morphax.pytrees import select
from morphax.substrates.spiking import SpikingNetwork
from morphax.units import MHz, us

KEY, LEFT = jax.random.key(0), 1.5


def measured(cases: Sequence[tuple[str, float, float, Call]], each_second: float) -> list[list[Any]]:
    """A row a case, of growing work: ms of a part, time for a unit of it, and whether it leaves the power law there."""
    rows, least = [], np.inf
    for name, parts, work, call in cases:
        seconds = side_by_side({name: call}, 3)[name].processor
        each = each_second * seconds / work
        rows.append([name, 1e3 * seconds / parts, each, "leaves" if each > LEFT * least else ""])
        least = min(least, each)
    return rows


def levels(report: Report, quick: bool) -> None:
    rows = []
    for modes, numbers in (
        (2, (4, 6, 8, 10) if quick else (4, 6, 8, 10, 12, 16)),
        (3, (3, 4) if quick else (3, 4, 6, 8)),
    ):
        cases = []
        with jax.enable_x64(True):
            for number in numbers:
                device = JosephsonMixer(
                    2 * MHz, jnp.full(modes, 17 / us), 2.77 / us**0.5 / 2, levels=number, method="fock", measured=1
                )
                drives = jnp.linspace(-1, 1, 20 if device.dimension <= 64 else 3)
                work = float(fock_terms(device, drives) * device.dimension**2)
                run = jax.jit(lambda x, d=device: evolve(d, x)[0])
                cases.append((f"{modes} x {number}", drives.size, work, partial(run, drives)))
            rows += measured(cases, 1e9)
    header = ["modes x levels", "ms a point", "ns a number and term", ""]
    report.table("levels", "Fock method, double precision", header, rows)


def batch(report: Report, quick: bool) -> None:
    sizes = (30, 120, 480, 1920) if quick else (30, 120, 480, 1920, 7680)
    whole = [gradient(spintronic(), size, 64, Backpropagation(microbatch=size)) for size in sizes]
    parts = [gradient(spintronic(), size, 64, Backpropagation()) for size in sizes]
    perceptron = QuantizedPerceptron.random((784, 512, 512, 512, 10), width=0.464, strength=1.5, key=KEY)
    images = [gradient(perceptron, size, 1, Backpropagation(), 784) for size in sizes]
    chains = [spiking(size, 100) for size in ((1, 10, 100) if quick else (1, 10, 100, 1000))]
    ways = {"in one": (sizes, whole), "as it comes": (sizes, parts)}
    ways = {f"spintronic, {way}": calls for way, calls in ways.items()} | {"perceptron": (sizes, images)}
    table(report, "batch", "examples", ways | {"spiking, 100 steps": ((1, 10, 100, 1000)[: len(chains)], chains)})


def points(report: Report, quick: bool) -> None:
    lengths = (64, 256, 1024) if quick else (64, 256, 1024, 4096)

    def followed(n: int, segment: int | None = None) -> Call:
        return gradient(spintronic(), 120, n, Backpropagation(microbatch=120, segment=segment))

    steps = (1000, 10_000) if quick else (1000, 10_000, 100_000)
    ways = {
        "spintronic, all kept": (lengths, [followed(n) for n in lengths]),
        "spintronic, in segments": (lengths, [followed(n, round(n**0.5)) for n in lengths]),
    }
    table(report, "points", "points", ways | {"spiking, one chain": (steps, [spiking(1, n) for n in steps])})


def oscillators(report: Report, quick: bool) -> None:
    numbers = (32, 128, 512) if quick else (32, 64, 128, 256, 512, 1024, 2048)
    many = 20
    ways = {
        "a sweep": BlockSweeps(1e-30, many),
        "a step of descent": AcceleratedDescent(1e-30, max_steps=many, max_sweeps=0),
        "a step of Runge-Kutta": RungeKutta(many * 0.25, 0.25),
    }
    columns = {}
    for way, relaxer in ways.items():
        calls = []
        for number in numbers:
            network = PhaseOscillators.all_to_all(1, number - 2, 1, key=KEY)
            starts = jax.vmap(lambda k, n=network: n.initial_state(key=k))(jax.random.split(KEY, 64))

            @jax.jit
            def relaxed(starts: jax.Array, network: Any = network, relaxer: Any = relaxer) -> jax.Array:
                def one(start: jax.Array) -> jax.Array:
                    return network.relax(jnp.zeros(1), state=start, relaxer=relaxer).state

                return jax.vmap(one, axis_name="examples")(starts)

            calls.append(partial(relaxed, starts))
        columns[f"{way} of 64"] = (numbers, calls)
    table(report, "oscillators", "oscillators", columns, many, 2)


def table(
    report: Report,
    name: str,
    what: str,
    ways: dict[str, tuple[Sequence[int], list[Call]]],
    parts: int = 1,
    power: int = 1,
) -> None:
    rows = []
    for way, (numbers, calls) in ways.items():
        cases = [
            (f"{way}, {number:,}", parts, float(parts * number**power), call)
            for number, call in zip(numbers, calls, strict=True)
        ]
        rows += measured(cases, 1e6)
    unit = what.removesuffix("s") + ("" if power == 1 else " squared")
    report.table(name, f"Growth with {what}", [what, "ms", f"us a{'n' * (unit[0] in 'aeio')} {unit}", ""], rows)


def spintronic() -> WithReadout:
    return WithReadout.random(SpintronicNetwork.random(key=KEY), outputs=10, key=KEY)


def gradient(network: Any, examples: int, points: int, rule: Backpropagation, channels: int = 1) -> Call:
    weights, fixed = select(network, "weight")
    targets = jnp.eye(10)[jnp.arange(examples) % 10]
    inputs = jax.random.uniform(KEY, (examples, points, channels))

    @jax.jit
    def slopes(weights: Any, inputs: jax.Array) -> Any:
        return select(rule.gradient(eqx.combine(weights, fixed), inputs, targets, key=KEY)[1], "weight")[0]

    return partial(slopes, weights, inputs)


def spiking(chains: int, steps: int) -> Call:
    interval = 100 if chains == 1 else 10
    first, second = jax.random.split(KEY)
    network = SpikingNetwork(
        0.3 * jax.random.normal(first, (64, 64)),
        0.02 + 0.3 * jax.random.normal(second, (64, 128)),
        input_rate=0.7,
        steps_per_input=interval,
        visible=6,
    )
    drives = jnp.ones(steps // interval)
    run = jax.jit(jax.vmap(lambda key: evolve(network, drives, key=key)[0].mean()))
    return partial(run, jax.random.split(KEY, chains))


PARTS: dict[str, Callable[[Report, bool], None]] = {
    part.__name__: part for part in (levels, batch, points, oscillators)
}


def main() -> None:
    parser = arguments(__doc__, quick="fewer and smaller sizes")
    parser.set_defaults(threads=1)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)} (all)")
    options = parser.parse_args()
    if unknown := set(options.parts) - PARTS.keys():
        parser.error(f"there is no part {', '.join(sorted(unknown))}")
    report = Report("growth", options, "jax", "equinox", "numpy")
    for name in options.parts or PARTS:
        PARTS[name](report, options.quick)
    report.finish(partly=bool(options.parts))


if __name__ == "__main__":
    main()
