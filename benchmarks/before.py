"""Every job of the benchmarks with the code of another checkout and with this one's, on one core and on several.

    git worktree add --detach ../before COMMIT
    python benchmarks/before.py ../before [--quick] [--keep] [ROW ...]

A job has a process of its own for each checkout and number of cores; the two checkouts take turns. On one core the time
is that of the processor, on several that of the clock. The last columns say how fast the job would be if all its
arithmetic went at the rates that the machine reaches (`measuring.rates`), as a share of what it takes on one core, and
what most of that time would be. Operations are counted in the program that JAX traces, `sin_cos` as the polynomials
that it is, and random words as their integer operations; of relaxations, the products of the steps that every example
needs itself; of the Fock method, the terms that it adds.
"""

import os
import sys
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from measuring import Apart, Report, arguments, digits, fock_terms, rates, side_by_side

KINDS = ("products", "elementwise", "transcendental")
HERE = Path(__file__).parent.parent / "src"


class Job(NamedTuple):
    """What is called, what its milliseconds are divided by, and what counts its arithmetic."""

    call: Callable[[], Any]
    each: float = 1
    count: Callable[[], Counter[str]] | None = None


# --- Jobs: public names that both checkouts have ----------------------------------------------------------------------


def mixer(method: str, levels: int, gradient: bool, cores: int) -> Job:
    import jax
    import jax.numpy as jnp

    from morphax import JosephsonMixer, evolve
    from morphax.quantum import Populations

    points = 2000 if method == "coherent" else 20
    states = tuple((i, j) for i in range(levels) for j in range(levels))
    device = JosephsonMixer.two_mode(method=method, levels=levels, measured=Populations(states))
    drives = jax.random.uniform(jax.random.key(0), (points,), minval=-1.0)

    def value(device: JosephsonMixer, drives: jax.Array) -> jax.Array:
        return jnp.sum(jnp.sin(7 * evolve(device, drives)[0]))

    run = jax.jit(jax.grad(value, argnums=(0, 1)) if gradient else value)
    if method == "coherent":
        return Job(partial(run, device, drives), points, partial(traced, value, device, drives))
    return Job(partial(run, device, drives), points, partial(terms, device, drives, levels, gradient))


def terms(device: Any, drives: Any, levels: int, gradient: bool) -> Counter[str]:
    """Of a term 44 operations a number of the state: diagonals of K_r (5) and K_i (3), each from the left and from the
    right, two jumps of three operations, two numbers times states in the recurrence, and the term in the sum. A
    gradient goes through the terms three times, and gathers a product for each of 18 diagonals."""
    number = fock_terms(device, drives)
    return Counter(elementwise=number * levels**4 * (3 * 44 + 2 * 18 if gradient else 44))


def phases(layered: bool, relaxer: str, cores: int) -> Job:
    """An iteration of equilibrium propagation, 300 images; all-to-all by descent, where there is one."""
    import equinox as eqx
    import jax

    from morphax import PhaseOscillators
    from morphax.dynamics import relaxation
    from morphax.learning.equilibrium import EquilibriumPropagation
    from morphax.substrates.energy import Nudge, phase_overlap
    from morphax.tasks import phase_digits

    task, key, strength = phase_digits(), jax.random.key(0), 0.1
    inputs, targets = task.train_inputs[:300], task.train_targets[:300]
    if layered:
        substrate = PhaseOscillators.layered((64, 200, 10), key=key)
    else:
        substrate = PhaseOscillators.all_to_all(64, 148, 10, key=key)
    if relaxer == "runge-kutta":
        chosen = relaxation.RungeKutta(10.0, 0.25)
    elif hasattr(relaxation, "AcceleratedDescent") and not layered:
        chosen = relaxation.AcceleratedDescent(1e-4)
    else:
        chosen = relaxation.BlockSweeps(1e-4, 1000)
    rule = EquilibriumPropagation(relaxer=chosen, strength=strength)

    def gradient(network: Any) -> Any:
        return rule.gradient(network, inputs, targets, key=key)

    step = eqx.filter_jit(gradient)

    @jax.vmap
    def steps(drive: Any, target: Any, key: Any) -> Any:
        free = substrate.relax(drive, state=substrate.initial_state(key=key), relaxer=chosen)
        nudge = Nudge(phase_overlap, strength, target)
        return free.steps + substrate.relax(drive, state=free.state, nudge=nudge, relaxer=chosen).steps

    def products() -> Counter[str]:
        """Cosines and sines, to the outputs and back; or of all free units with one another."""
        each = 2 * 2 * (2 * 200 * 10 if layered else 158**2)
        return Counter(products=each * int(jax.jit(steps)(inputs, targets, jax.random.split(key, 300)).sum()))

    return Job(
        lambda: step(substrate), 1, partial(traced, gradient, substrate) if relaxer == "runge-kutta" else products
    )


def exclusive_or(cores: int) -> Job:
    import jax
    import optax

    from morphax import PhaseOscillators
    from morphax.dynamics.relaxation import BlockSweeps
    from morphax.learning.ensemble import make_members
    from morphax.learning.equilibrium import EquilibriumPropagation
    from morphax.learning.train import train
    from morphax.tasks import xor

    task, key = xor(), jax.random.key(0)
    networks = make_members(
        lambda k: PhaseOscillators.all_to_all(2, 2, 1, coupling_deviation=1.0, bias_scale=0.5, key=k), key, 20
    )
    rule, descent = EquilibriumPropagation(relaxer=BlockSweeps(1e-4, 500), strength=0.1), optax.sgd(0.1)
    data = task.train_inputs, task.train_targets
    return Job(lambda: train(networks, rule, data, descent, 1000, key=key, ensemble=True, chunk=1000).last, 1000)


def perceptron(regime: str, work: str, cores: int) -> Job:
    import equinox as eqx
    import jax
    import jax.numpy as jnp

    import quantized as benchmark
    from morphax import QuantizedPerceptron
    from morphax.learning.backprop import Backpropagation
    from morphax.learning.train import train
    from morphax.learning.voting import vote

    key, numbers = jax.random.key(0), benchmark.REGIMES[regime]
    images = jax.random.normal(key, (benchmark.TESTS, 1, 784))
    network, batch = QuantizedPerceptron.random(benchmark.SIZES, key=key, **numbers), benchmark.BATCH
    if work == "votes":
        votes = eqx.filter_jit(lambda n: vote(n, images, benchmark.SHOTS, key=key))
        return Job(
            partial(votes, network), 1, partial(traced, lambda n: vote(n, images, benchmark.SHOTS, key=key), network)
        )
    inputs, rule = images[: benchmark.IMAGES], Backpropagation()
    targets, steps = jnp.eye(10)[jnp.arange(len(inputs)) % 10], benchmark.BATCHES
    epochs = 1
    if work == "ensemble":
        points, epochs = benchmark.SWEEPS["points (a, g)"], 3
        network = eqx.filter_vmap(lambda p: QuantizedPerceptron.random(benchmark.SIZES, key=key, **p))(
            {name: jnp.array(values) for name, values in points.items()}
        )
    run = partial(
        train,
        network,
        rule,
        (inputs, targets),
        benchmark.OPTIMISER,
        epochs * steps,
        key=key,
        batch_size=batch,
        chunk=steps,
        ensemble=work == "ensemble",
    )

    def count() -> Counter[str]:
        one = QuantizedPerceptron.random(benchmark.SIZES, key=key, **benchmark.REGIMES[regime])
        found = traced(lambda n: rule.gradient(n, inputs[:batch], targets[:batch], key=key), one)
        return Counter({kind: number * steps * epochs * (4 if epochs > 1 else 1) for kind, number in found.items()})

    return Job(lambda: run().last, 1, count)


def spikes(chains: int, backward: bool, cores: int) -> Job:
    import spiking as benchmark

    steps = 20_000 if chains == 1 else 1000
    case = benchmark.cases(chains, steps, steps, backward, cores)[0]
    if chains > 1 and cores > 1:
        case = case._replace(divided=True)
    return Job(benchmark.call(case), 1, partial(traced, *benchmark.program(case)))


def spintronic(order: int, batch: int, points: int, cores: int) -> Job:
    """One step of a training; gradients are of the weights alone where that is to be had."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp

    if cores > 1:
        jax.config.update("jax_num_cpu_devices", cores)
    import optax

    from morphax import SpintronicNetwork, WithReadout
    from morphax.learning.backprop import Backpropagation
    from morphax.learning.train import train

    key = jax.random.key(0)
    network = WithReadout.random(SpintronicNetwork.random(order=order, key=key), outputs=10, key=key)
    inputs = jax.random.uniform(key, (batch, points, 1), maxval=16.0)
    targets = jnp.eye(10)[jnp.arange(batch) % 10]
    steps = max(1, 1200 // batch)
    rule = Backpropagation(shards=cores) if cores > 1 else Backpropagation()
    optimiser = optax.chain(optax.clip(1.0), optax.adam(0.01))

    def run() -> Any:
        return train(network, rule, (inputs, targets), optimiser, steps, key=key, batch_size=batch, chunk=steps).last

    def count() -> Counter[str]:
        from morphax.pytrees import select

        weights, fixed = select(network, "weight")
        whole = Backpropagation(microbatch=batch)

        def gradient(weights: Any) -> Any:
            return whole.gradient(eqx.combine(weights, fixed), inputs, targets, key=key)[1]

        return Counter({kind: steps * number for kind, number in traced(gradient, weights).items()})

    return Job(run, steps, count)


def alone(cores: int) -> Job:
    """The rule's gradient outside of a training."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp

    from morphax import SpintronicNetwork, WithReadout
    from morphax.learning.backprop import Backpropagation

    key, rule = jax.random.key(0), Backpropagation()
    network = WithReadout.random(SpintronicNetwork.random(key=key), outputs=10, key=key)
    inputs, targets = jax.random.uniform(key, (120, 64, 1), maxval=16.0), jnp.eye(10)[jnp.arange(120) % 10]
    return Job(partial(eqx.filter_jit(lambda n: rule.gradient(n, inputs, targets, key=key)), network))


def capacities(cores: int) -> Job:
    import tempfile

    import judging as benchmark

    folder = Path(tempfile.mkdtemp())
    return Job(benchmark.by_morphax(benchmark.recording(folder, 50, 20_000), 1000))


ROWS: dict[str, tuple[Callable[[int], Job], bool]] = {
    "mixer, coherent, a point": (partial(mixer, "coherent", 8, False), True),
    "mixer, Fock, 2 x 8 levels, a point": (partial(mixer, "fock", 8, False), True),
    "the same, gradient": (partial(mixer, "fock", 8, True), True),
    "mixer, Fock, 2 x 12 levels, a point": (partial(mixer, "fock", 12, False), True),
    "the same, gradient, 2 x 12": (partial(mixer, "fock", 12, True), True),
    "oscillators 64-200-10, EP iteration of 300, sweeps": (partial(phases, True, "sweeps"), False),
    "the same, Runge-Kutta to T = 10": (partial(phases, True, "runge-kutta"), False),
    "222 oscillators, all-to-all, EP iteration of 300": (partial(phases, False, "default"), False),
    "the same, all-to-all, Runge-Kutta to T = 10": (partial(phases, False, "runge-kutta"), False),
    "XOR, 20 networks, an update": (exclusive_or, False),
    "perceptron, an epoch of 5,000, classical": (partial(perceptron, "classical", "epoch"), False),
    "the same, rotation": (partial(perceptron, "rotation", "epoch"), False),
    "the same, both": (partial(perceptron, "both", "epoch"), False),
    "four networks, three epochs": (partial(perceptron, "both", "ensemble"), False),
    "perceptron, 15 votes on 10,000, rotation": (partial(perceptron, "rotation", "votes"), False),
    "15 votes, both": (partial(perceptron, "both", "votes"), False),
    "spiking, one chain of 20,000 steps": (partial(spikes, 1, False), False),
    "the same, with gradient": (partial(spikes, 1, True), False),
    "spiking, 100 chains of 1,000 steps": (partial(spikes, 100, False), False),
    "100 chains, with gradient": (partial(spikes, 100, True), False),
    "spintronic 3 x 32, a step, order 2, batch 120": (partial(spintronic, 2, 120, 64), False),
    "the same, order 1": (partial(spintronic, 1, 120, 64), False),
    "a step, order 2, batch 1,920": (partial(spintronic, 2, 1920, 64), False),
    "the gradient alone, batch 120": (alone, False),
    "a step, order 2, batch 120, 1,024 points": (partial(spintronic, 2, 120, 1024), False),
    "judging, 1,000 products of 20,000 points": (capacities, True),
}


# --- Counting ---------------------------------------------------------------------------------------------------------

TRANSCENDENTAL = {
    *("sin", "cos", "tan", "atan2", "exp", "exp2", "expm1", "log", "log1p", "tanh", "logistic", "erf_inv", "pow"),
}
MOVED = {
    *("broadcast_in_dim", "reshape", "transpose", "slice", "dynamic_slice", "dynamic_update_slice", "gather", "split"),
    *("concatenate", "pad", "squeeze", "rev", "iota", "convert_element_type", "bitcast_convert_type", "stop_gradient"),
    *("random_wrap", "random_unwrap", "random_split", "random_fold_in", "random_seed", "optimization_barrier", "empty"),
}


def traced(function: Callable[..., Any], *given: Any) -> Counter[str]:
    """Operations of the program that JAX makes of a function; a loop of unknown length counts once."""
    import equinox as eqx

    return operations(eqx.filter_make_jaxpr(function)(*given)[0].jaxpr)


def operations(jaxpr: Any) -> Counter[str]:
    found: Counter[str] = Counter()
    for equation in jaxpr.eqns:
        name, parameters = equation.primitive.name, equation.params
        inner = [operations(below) for value in parameters.values() for below in jaxprs(value)]
        size = max((variable.aval.size for variable in equation.outvars if hasattr(variable.aval, "size")), default=0)
        if name == "dot_general":
            (contracted, _), _ = parameters["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            depth = 1
            for axis in contracted:
                depth *= shape[axis]
            found["products"] += 2 * size * depth
        elif name == "scan":
            found += Counter({kind: parameters["length"] * number for kind, number in inner[0].items()})
        elif name == "cond":
            found += max(inner, key=lambda one: sum(one.values()))
        elif inner:
            found += inner[-1] if name == "while" else inner[0]
        elif name == "random_bits" or name.startswith("threefry"):
            found["elementwise"] += 50 * size  # 20 rounds of five operations for two words
        elif name in TRANSCENDENTAL:
            found["transcendental"] += size
        elif name.startswith("reduce") or name.startswith("cum") or name.startswith("arg"):
            found["elementwise"] += max(variable.aval.size for variable in equation.invars)
        elif name not in MOVED:
            found["elementwise"] += size
    return found


def jaxprs(value: Any) -> list[Any]:
    if hasattr(value, "jaxpr"):
        return [value.jaxpr]
    if hasattr(value, "eqns"):
        return [value]
    return [below for one in value for below in jaxprs(one)] if isinstance(value, tuple | list) else []


# --- Measuring --------------------------------------------------------------------------------------------------------


class Contender:
    """A job with the code of one checkout."""

    def __init__(self, source: str, row: str, cores: int):
        # Before whatever is installed.
        sys.path.insert(0, source)
        import jax

        import morphax

        assert Path(morphax.__file__).is_relative_to(source), f"{morphax.__file__} is not of {source}"
        prepare, double = ROWS[row]
        jax.config.update("jax_enable_x64", double)
        self.job = prepare(cores)

    def __call__(self) -> Any:
        return self.job.call()

    def each(self) -> float:
        return self.job.each

    def count(self) -> dict[str, float] | None:
        return None if self.job.count is None else dict(self.job.count())


class Rates:
    def __init__(self, double: bool):
        self.double = double

    def found(self) -> dict[str, float]:
        return rates(self.double)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("before", type=Path, metavar="CHECKOUT", help="that this one is compared with")
    parser.add_argument("rows", nargs="*", metavar="ROW", help="a part of the name of a row (all); others stay stored")
    options = parser.parse_args()
    if not (options.before / "src" / "morphax").is_dir():
        parser.error(f"{options.before}: no checkout of morphax")
    report = Report("before", options, "jax", "equinox", "numpy")
    allowed = sorted(os.sched_getaffinity(0))
    sources = [str((options.before / "src").resolve()), str(HERE)]
    counts = (1, len(allowed)) if len(allowed) > 1 else (1,)
    can, lines = {}, []
    for double in (False, True):
        machine = Apart(Rates, double, on=allowed[-1:])
        can[double] = machine.ask("found")
        machine.stop()
    for name in ROWS:
        if options.rows and not any(part in name for part in options.rows):
            continue
        line: list[Any] = [name]
        for cores in counts:
            ours = [Apart(Contender, source, name, cores, on=allowed[-cores:]) for source in sources]
            count = ours[1].ask("count") if cores == 1 else None
            times = side_by_side(dict(zip(("before", "now"), ours, strict=True)), 3 if options.quick else 7, most=20.0)
            each = 1e-3 * ours[1].ask("each")
            old, new = (one.processor / each if cores == 1 else one.median / each for one in times.values())
            line += [old, new, old / new]
            if cores == 1:
                share = shared(count, can[ROWS[name][1]], times["now"].processor)
            for one in ours:
                one.stop()
        lines.append([*line, *share])
        print(f"   {name}: {', '.join(map(str, [digits(x) for x in line[1:]]))} {share}", flush=True)
    header = ["ms"]
    for cores in counts:
        where = "one core" if cores == 1 else f"{cores} cores"
        header += [f"before, {where}", f"now, {where}", "ratio"]
    report.table("rows", "Every job, before and now", [*header, "at the machine's rates", "most of it"], lines)
    report.table(
        "rates",
        "What one core reaches, billions a second",
        ["", *KINDS],
        [["double" if d else "single", *(can[d][kind] / 1e9 for kind in KINDS)] for d in (False, True)],
    )
    report.finish(partly=bool(options.rows))


def shared(count: dict[str, float] | None, can: dict[str, float], seconds: float) -> list[str]:
    """The share of the time that the arithmetic would take at the machine's rates, and the kind that takes most."""
    if not count:
        return ["", ""]
    least = {kind: count.get(kind, 0) / can[kind] for kind in KINDS}
    return [f"{sum(least.values()) / seconds:.0%}", max(least, key=lambda kind: least[kind])]


if __name__ == "__main__":
    main()
