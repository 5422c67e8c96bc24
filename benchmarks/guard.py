"""Whether what was made fast still is: ratios of processor time at reduced size, each against its criterion.

    python benchmarks/guard.py [--full] [--keep] [PART ...]

Every part is a process of its own on one core; its contenders take turns, in single precision, and medians are
compared. A ratio below 0.8 of its criterion fails. A ratio says how many times longer the baseline takes; for the
gradient of the Fock method how many values it costs, and for large batches how many times as long an example takes
(less is better). `--full`: at full size, with double precision and the cases that the guard leaves out.
"""

import sys
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from measuring import Apart, Call, Report, arguments, side_by_side

ALLOWED = 0.8


class Ratio(NamedTuple):
    """How many times longer `baseline` takes than `own`; with `most`, how many times it may take at most."""

    name: str
    baseline: Call
    own: Call
    wanted: float
    most: bool = False


def trigonometry(full: bool) -> list[Ratio]:
    import jax
    import jax.numpy as jnp

    from morphax.dynamics.trigonometry import sin_cos

    def often(function: Callable[[jax.Array], tuple[jax.Array, jax.Array]]) -> Call:
        """Again and again over what fits the cache: fresh memory for a million results costs more than they do."""

        def again(_: int, x: jax.Array) -> jax.Array:
            return jnp.add(*function(x))

        repeated = jax.jit(lambda x: jax.lax.fori_loop(0, 1000, again, x))
        return partial(repeated, jnp.linspace(-30, 30, 4096))

    def ratio(name: str) -> Ratio:
        return Ratio(name, often(lambda x: (jnp.sin(x), jnp.cos(x))), often(sin_cos), 10.0)

    return [
        ratio("sine and cosine, jnp / ours"),
        *in_double(lambda: [ratio("the same in double precision")], full),
    ]


def oscillators(full: bool) -> list[Ratio]:
    import equinox as eqx
    import jax

    import phase_oscillators as benchmark
    from morphax import PhaseOscillators
    from morphax.dynamics.relaxation import AcceleratedDescent, BlockSweeps, RungeKutta
    from morphax.learning.equilibrium import EquilibriumPropagation
    from morphax.substrates.topology import Topology
    from morphax.tasks import phase_digits

    task, key = phase_digits(), benchmark.KEY
    inputs, targets = task.train_inputs[: benchmark.BATCH], task.train_targets[: benchmark.BATCH]

    relaxers = BlockSweeps(1e-4, 1000), AcceleratedDescent(1e-4)

    def iteration(network: PhaseOscillators, relaxer: Any) -> Call:
        rule = EquilibriumPropagation(relaxer=relaxer, strength=benchmark.STRENGTH)
        step = eqx.filter_jit(lambda n: rule.gradient(n, inputs, targets, key=key))
        return lambda: step(network)

    layered = PhaseOscillators.layered((64, 200, 10), key=key)
    starts = jax.vmap(lambda k: layered.initial_state(key=k))(jax.random.split(key, benchmark.BATCH))
    twin, duration = benchmark.Torch(layered, inputs, targets, starts), 100 if full else 5

    def relaxation(network: PhaseOscillators, relaxer: Any) -> Call:
        """Free, of 64 states."""
        rule, keys = EquilibriumPropagation(relaxer=relaxer), jax.random.split(key, 64)
        drives = jax.random.uniform(key, (64, len(network.topology.inputs)), minval=-1.5, maxval=1.5)
        begun = jax.vmap(lambda k: network.initial_state(key=k))(keys)
        run = eqx.filter_jit(lambda n: rule._relaxed(n, drives, begun, keys).state)
        return partial(run, network)

    networks = {"512 units": (PhaseOscillators.all_to_all(64, 438, 10, key=key), 5.0)}
    found = []
    if full:
        dense = PhaseOscillators.all_to_all(64, 148, 10, key=key)
        lattice = Topology.lattice((16, 16), inputs=range(16), outputs=range(240, 256))
        networks["lattice of 16 x 16"] = PhaseOscillators(lattice, jax.random.normal(key, (len(lattice.edges),))), 2.5
        name = "EP iteration, 222 units, sweeps / descent"
        found.append(Ratio(name, *(iteration(dense, r) for r in relaxers), 6.0))
    for name, (network, wanted) in networks.items():
        ways = (relaxation(network, relaxer) for relaxer in relaxers)
        found.append(Ratio(f"free relaxation, {name}, sweeps / descent", *ways, wanted))
    return [
        Ratio(
            "Runge-Kutta 64-200-10, PyTorch / ours",
            lambda: twin.iteration(duration),
            iteration(layered, RungeKutta(float(duration), 0.25)),
            2.5,
        ),
        *found,
    ]


def perceptron(full: bool) -> list[Ratio]:
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import numpy as np

    import quantized as benchmark
    from morphax import QuantizedPerceptron
    from morphax.learning.backprop import Backpropagation
    from morphax.learning.train import train
    from morphax.learning.voting import vote

    if not full:
        benchmark.TESTS, benchmark.IMAGES = 1000, 2500
    benchmark.BATCHES = benchmark.IMAGES // benchmark.BATCH
    key, random = jax.random.key(0), np.random.default_rng(0)
    number = max(benchmark.TESTS, benchmark.IMAGES)
    images = random.standard_normal((number, 784)).astype(np.float32)
    labels = random.integers(0, 10, number)
    tests = jnp.asarray(images[: benchmark.TESTS, None])
    data = jnp.asarray(images[: benchmark.IMAGES, None]), jnp.eye(10)[labels[: benchmark.IMAGES]]
    found = []
    for name, wanted in (("rotation", 3.5), ("both", 2.5)) if full else (("both", 2.5),):
        numbers = benchmark.REGIMES[name]
        network = QuantizedPerceptron.random(benchmark.SIZES, key=key, **numbers)
        peer = benchmark.Peer(network, images, labels, **numbers)
        votes = eqx.filter_jit(lambda n: vote(n, tests, benchmark.SHOTS, key=key))
        epoch = partial(
            train,
            network,
            Backpropagation(),
            data,
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


def fock(full: bool) -> list[Ratio]:
    import jax
    import jax.numpy as jnp

    from morphax import JosephsonMixer, evolve
    from morphax.quantum import Populations

    hot = {"kerr": jnp.array([0.002, 0.003]), "thermal_occupation": jnp.array([0.05, 0.02])}
    cases: dict[str, tuple[int, float, dict[str, Any]]] = {"2 x 6 levels": (6, 4.5, {})}
    if full:
        cases = {
            "2 x 8 levels": (8, 4.5, {}),
            "2 x 12 levels": (12, 6.0, {}),
            "2 x 6 levels with Kerr and thermal terms": (6, 5.0, hot),
            "2 x 8 levels with Kerr and thermal terms": (8, 5.0, hot),
            "2 x 6 levels, many sub-steps": (6, 5.0, {"interval": 1500.0}),
        }

    def ratios(precision: str) -> list[Ratio]:
        found = []
        for name, (levels, most, settings) in cases.items():
            states = tuple((i, j) for i in range(levels) for j in range(levels))
            mixer = JosephsonMixer.two_mode(levels=levels, method="fock", measured=Populations(states), **settings)
            given = mixer, jnp.linspace(-1, 1, 8)

            def value(mixer: JosephsonMixer, drives: jax.Array) -> jax.Array:
                return jnp.sum(jnp.sin(7 * evolve(mixer, drives)[0]))

            gradient = jax.jit(jax.grad(value, argnums=(0, 1)))
            title = f"Fock gradient in values, {name}{precision}"
            found.append(Ratio(title, partial(gradient, *given), partial(jax.jit(value), *given), most, most=True))
        return found

    return ratios("") + in_double(lambda: ratios(", double"), full)


def in_double(ratios: Callable[[], list[Ratio]], full: bool) -> list[Ratio]:
    """The same in double precision, in which they are called, too."""
    import jax

    if not full:
        return []

    def wide(call: Call) -> Call:
        def called() -> Any:
            with jax.enable_x64(True):
                return call()

        return called

    with jax.enable_x64(True):
        return [ratio._replace(baseline=wide(ratio.baseline), own=wide(ratio.own)) for ratio in ratios()]


def batches(full: bool) -> list[Ratio]:
    import equinox as eqx
    import jax
    import jax.numpy as jnp

    from morphax import SpintronicNetwork, WithReadout
    from morphax.learning.backprop import Backpropagation
    from morphax.pytrees import select

    key, points = jax.random.key(0), 64 if full else 32
    network = WithReadout.random(SpintronicNetwork.random(key=key), outputs=10, key=key)
    weights, fixed = select(network, "weight")

    def gradient(examples: int, **options: Any) -> Call:
        inputs = jax.random.uniform(key, (examples, points, 1))
        targets = jnp.eye(10)[jnp.arange(examples) % 10]
        rule = Backpropagation(**options)
        step = jax.jit(lambda w: rule.gradient(eqx.combine(w, fixed), inputs, targets, key=key)[1])
        return partial(step, weights)

    parts = gradient(1920)
    found = [Ratio("batch of 1,920, whole / in parts", gradient(1920, microbatch=1920), parts, 2.2)]
    if full:
        small = gradient(120)
        found += [
            Ratio("batch of 480, whole / in parts", gradient(480, microbatch=480), gradient(480), 1.5),
            Ratio("an example of 1,920 / of 120", parts, lambda: [small() for _ in range(16)], 1.1, most=True),
        ]
    return found


def spiking(full: bool) -> list[Ratio]:
    import spiking as benchmark

    found = []
    for backward, wanted in ((False, 3.8), (True, 2.6)):
        steps = 1000 if full else 200
        ours, *_, peer = benchmark.cases(100, steps, steps, backward, 1)
        name = "forward and backward" if backward else "forward"
        found.append(
            Ratio(f"100 spiking chains, {name}, Norse / ours", benchmark.call(peer), benchmark.call(ours), wanted)
        )
    return found


PARTS = {part.__name__: part for part in (trigonometry, oscillators, perceptron, fock, batches, spiking)}


class Part:
    """The ratios of a part, in a process of its own."""

    def __init__(self, name: str, full: bool):
        self.ratios, self.turns = PARTS[name](full), 7 if full else 3

    def judged(self) -> list[tuple[str, float, float, bool]]:
        found = []
        for name, baseline, own, wanted, most in self.ratios:
            times = side_by_side({"baseline": baseline, "own": own}, self.turns)
            found.append((name, times["baseline"].processor / times["own"].processor, wanted, most))
        return found


def main() -> None:
    parser = arguments(__doc__, quick=None)
    parser.set_defaults(threads=1)
    parser.add_argument("--full", action="store_true", help="full sizes, and more cases")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; all if none is given")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    report = Report("guard", options, "jax", "torch", "norse", "numpy")
    rows, slow = [], False
    for name in options.parts or PARTS:
        part = Apart(Part, name, options.full, settings={"OMP_NUM_THREADS": "1"})
        for title, ratio, wanted, most in part.ask("judged"):
            kept = ratio <= wanted / ALLOWED if most else ratio >= wanted * ALLOWED
            met = ratio <= wanted if most else ratio >= wanted
            rows.append([title, ratio, f"at {'most' if most else 'least'} {wanted:g}", "" if met else "missed"])
            slow |= not kept
            print(f"   {title}: {ratio:.2f}{'' if kept else '   TOO SLOW'}", flush=True)
        part.stop()
    report.table("ratios", "What was wanted, and what is", ["ratio", "here", "wanted", ""], rows)
    report.finish(partly=bool(options.parts))
    sys.exit(f"a ratio misses {ALLOWED:g} of what is wanted" if slow else 0)


if __name__ == "__main__":
    main()
