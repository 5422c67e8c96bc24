"""Whether what was made fast still is: ratios of processor time at reduced size, each against its criterion.

    python benchmarks/guard.py [PART ...]

Every part is a process of its own on one core; its contenders take turns, in single precision, and medians are
compared. A ratio below 0.8 of its criterion fails. A ratio says how many times longer the baseline takes; for the
gradient of the Fock method, how many values it costs (less is better).
"""

import argparse
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

ALLOWED, TURNS = 0.8, 4
Call = Callable[[], Any]


class Ratio(NamedTuple):
    """How many times longer `baseline` takes than `own`; with `most`, how many values a gradient may cost."""

    name: str
    baseline: Call
    own: Call
    wanted: float
    most: bool = False


def trigonometry() -> list[Ratio]:
    import jax
    import jax.numpy as jnp

    from morphax.dynamics.trigonometry import sin_cos

    def often(function: Callable[[jax.Array], tuple[jax.Array, jax.Array]]) -> Call:
        """Again and again over what fits the cache: fresh memory for a million results costs more than they do."""

        def again(_: int, x: jax.Array) -> jax.Array:
            return jnp.add(*function(x))

        repeated = jax.jit(lambda x: jax.lax.fori_loop(0, 1000, again, x))
        return lambda: repeated(jnp.linspace(-30, 30, 4096))

    return [Ratio("sine and cosine, jnp / ours", often(lambda x: (jnp.sin(x), jnp.cos(x))), often(sin_cos), 10.0)]


def oscillators() -> list[Ratio]:
    import equinox as eqx
    import jax

    import phase_oscillators as benchmark
    from morphax import PhaseOscillators
    from morphax.dynamics.relaxation import AcceleratedDescent, BlockSweeps, RungeKutta
    from morphax.learning.equilibrium import EquilibriumPropagation
    from morphax.tasks import phase_digits

    task, key = phase_digits(), benchmark.KEY
    inputs, targets = task.train_inputs[: benchmark.BATCH], task.train_targets[: benchmark.BATCH]

    def iteration(network: PhaseOscillators, relaxer: Any) -> Call:
        rule = EquilibriumPropagation(relaxer=relaxer, strength=benchmark.STRENGTH)
        step = eqx.filter_jit(lambda n: rule.gradient(n, inputs, targets, key=key))
        return lambda: step(network)

    layered, dense = PhaseOscillators.layered((64, 200, 10), key=key), PhaseOscillators.all_to_all(64, 148, 10, key=key)
    starts = jax.vmap(lambda k: layered.initial_state(key=k))(jax.random.split(key, benchmark.BATCH))
    twin = benchmark.Torch(layered, inputs, targets, starts)
    return [
        Ratio(
            "Runge-Kutta 64-200-10, PyTorch / ours",
            lambda: twin.iteration(10),
            iteration(layered, RungeKutta(10.0, 0.25)),
            2.5,
        ),
        Ratio(
            "EP iteration, 222 units, sweeps / descent",
            iteration(dense, BlockSweeps(1e-4, 1000)),
            iteration(dense, AcceleratedDescent(1e-4)),
            6.0,
        ),
    ]


def perceptron() -> list[Ratio]:
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import numpy as np

    import quantized as benchmark
    from morphax import QuantizedPerceptron
    from morphax.learning.backprop import Backpropagation
    from morphax.learning.train import train
    from morphax.learning.voting import vote

    benchmark.TESTS = benchmark.IMAGES = 2000
    benchmark.BATCHES = benchmark.IMAGES // benchmark.BATCH
    key, random = jax.random.key(0), np.random.default_rng(0)
    images = random.standard_normal((benchmark.TESTS, 784)).astype(np.float32)
    labels = random.integers(0, 10, benchmark.TESTS)
    tests, answers = jnp.asarray(images[:, None]), jnp.eye(10)[labels]
    found = []
    for name, wanted in (("rotation", 3.5), ("both", 2.5)):
        numbers = benchmark.REGIMES[name]
        network = QuantizedPerceptron.random(benchmark.SIZES, key=key, **numbers)
        peer = benchmark.Peer(network, images, labels, **numbers)
        votes = eqx.filter_jit(lambda n: vote(n, tests, benchmark.SHOTS, key=key))
        epoch = partial(
            train,
            network,
            Backpropagation(),
            (tests, answers),
            benchmark.OPTIMISER,
            benchmark.BATCHES,
            key=key,
            batch_size=benchmark.BATCH,
            chunk=benchmark.BATCHES,
        )
        found += [
            Ratio(f"15 votes, {name}, PyTorch / ours", peer.votes, partial(votes, network), wanted),
            Ratio(f"epoch, {name}, PyTorch / ours", peer.epoch, lambda run=epoch: run().last, 1.8),
        ]
    return found


def fock() -> list[Ratio]:
    import jax
    import jax.numpy as jnp

    from morphax import JosephsonMixer, evolve
    from morphax.quantum import Populations

    found = []
    for levels, most in ((8, 4.5), (12, 6.0)):
        states = tuple((i, j) for i in range(levels) for j in range(levels))
        mixer = JosephsonMixer.two_mode(levels=levels, method="fock", measured=Populations(states))
        drives = jnp.linspace(-1, 1, 8)

        def value(mixer: JosephsonMixer, drives: jax.Array) -> jax.Array:
            return jnp.sum(jnp.sin(7 * evolve(mixer, drives)[0]))

        forward, gradient = jax.jit(value), jax.jit(jax.grad(value, argnums=(0, 1)))
        found.append(
            Ratio(
                f"gradient of the Fock method, 2 x {levels} levels, in values",
                partial(gradient, mixer, drives),
                partial(forward, mixer, drives),
                most,
                most=True,
            )
        )
    return found


def batches() -> list[Ratio]:
    import equinox as eqx
    import jax
    import jax.numpy as jnp

    from morphax import SpintronicNetwork, WithReadout
    from morphax.learning.backprop import Backpropagation

    key, examples, points = jax.random.key(0), 1920, 64
    network = WithReadout.random(SpintronicNetwork.random(key=key), outputs=10, key=key)
    inputs = jax.random.uniform(key, (examples, points, 1))
    targets = jnp.eye(10)[jnp.arange(examples) % 10]

    def gradient(**options: Any) -> Call:
        rule = Backpropagation(**options)
        step = eqx.filter_jit(lambda n: rule.gradient(n, inputs, targets, key=key))
        return lambda: step(network)

    return [Ratio("batch of 1,920, whole / in parts", gradient(microbatch=examples), gradient(), 2.2)]


def spiking() -> list[Ratio]:
    import spiking as benchmark

    found = []
    for backward, wanted in ((False, 3.8), (True, 2.6)):
        ours, *_, peer = benchmark.cases(100, 400, 400, backward, 1)
        name = "forward and backward" if backward else "forward"
        found.append(
            Ratio(f"100 spiking chains, {name}, Norse / ours", benchmark.call(peer), benchmark.call(ours), wanted)
        )
    return found


PARTS = {part.__name__: part for part in (trigonometry, oscillators, perceptron, fock, batches, spiking)}


def judge(part: str) -> bool:
    """Measure a part on one core, and print what was found; whether all is well."""
    import jax

    well = True
    for name, baseline, own, wanted, most in PARTS[part]():
        times: tuple[list[float], list[float]] = [], []
        for turn in range(TURNS + 1):
            for call, measured in zip((baseline, own), times, strict=True):
                start = time.process_time()
                jax.block_until_ready(call())
                if turn:
                    measured.append(time.process_time() - start)
        ratio = statistics.median(times[0]) / statistics.median(times[1])
        kept = ratio <= wanted / ALLOWED if most else ratio >= wanted * ALLOWED
        well &= kept
        sign = "at most" if most else "at least"
        print(f"{name:58s}{ratio:7.1f}   wanted {sign} {wanted:4.1f}{'' if kept else '   TOO SLOW'}", flush=True)
    return well


def pinned(core: int) -> None:
    """Before libraries start their threads."""
    os.sched_setaffinity(0, {core})
    os.environ.update(GOMP_SPINCOUNT="10000", OMP_NUM_THREADS="1")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; all if none is given")
    parts = parser.parse_args().parts or list(PARTS)
    if unknown := set(parts) - set(PARTS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    core, spawn = max(os.sched_getaffinity(0)), multiprocessing.get_context("spawn")
    well = True
    for part in parts:
        with spawn.Pool(1, pinned, (core,)) as pool:
            well &= pool.apply(judge, (part,))
    sys.exit(0 if well else f"a ratio misses {ALLOWED:g} of what is wanted")


if __name__ == "__main__":
    main()
