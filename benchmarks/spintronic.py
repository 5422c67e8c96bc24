"""Layered spintronic networks: training and following them with morphax, PyTorch and Diffrax, side by side.

    python benchmarks/spintronic.py [--quick]

Three layers of 32 auto-oscillators with a linear readout answer the digits of 8 x 8 pixels, 120 sequences of 64 points
a batch, in single precision. Four tables:

1. One training step (forward, backward, clipping to 1, Adam): morphax on one core and with the examples divided over
   two, PyTorch eager and PyTorch compiled, with the same scheme, weights and data. The PyTorch twin forms all external
   drives at once, makes one product of matrices a drive and follows the closed form of the logistic equation. Losses
   and gradients are compared before anything is timed.
2. One training run, for one seed and for many: `train` on a stack of members, one call a member, all members as one
   batched program (`vmap`), and PyTorch eager.
3. The same equations with Diffrax, no less accurate than morphax's scheme, forward and with gradient.
4. Memory and time of back-propagation, with and without segments that are computed twice.

Contenders take turns, so that other work on the machine burdens all of them; with the median the least time is shown,
which such work disturbs less, and the processor time of all cores together.
"""

import argparse
import os
import platform
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple
from unittest.mock import patch

# Read when PyTorch loads. By default its threads spin for milliseconds after every operation: on a machine that has
# other work that is a hundred times slower, and the spinning would disturb whoever is measured next.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch

from morphax import SpintronicNetwork, WithReadout, evolve
from morphax.learning.backprop import Backpropagation
from morphax.learning.ensemble import make_members, member
from morphax.learning.train import train
from morphax.pytrees import select
from morphax.tasks import sequential_digits

# A core is a device of its own only if that is said before the first computation.
jax.config.update("jax_num_cpu_devices", 2)
BATCH, LEARNING_RATE, KEY = 120, 0.01, jax.random.key(0)
# The same object everywhere: `train` compiles once for it.
OPTIMISER = optax.chain(optax.clip(1.0), optax.adam(LEARNING_RATE))
RULE = Backpropagation()
Call = Callable[[], Any]


class Peer(NamedTuple):
    """A way to use Diffrax; `shared`: the batch is one system with common steps, instead of mapped over."""

    solver: type
    adaptive: bool
    shared: bool

    @property
    def name(self) -> str:
        steps = "adaptive" if self.adaptive else "fixed"
        return f"Diffrax {self.solver.__name__} {steps}, {'one system' if self.shared else 'vmap'}"


PEERS = (
    Peer(diffrax.Tsit5, adaptive=False, shared=True),
    Peer(diffrax.Tsit5, adaptive=True, shared=False),
    Peer(diffrax.Tsit5, adaptive=True, shared=True),
    Peer(diffrax.Dopri8, adaptive=True, shared=False),
    Peer(diffrax.Bosh3, adaptive=False, shared=True),
    Peer(diffrax.Heun, adaptive=False, shared=True),
)


class Size(NamedTuple):
    """How much is measured."""

    repeats: int
    span: int  # points that PyTorch compiles as one: more are a little faster, and take longer to compile
    epochs: int
    seeds: int
    runs: int
    peers: tuple[Peer, ...]
    intervals: tuple[float, ...]
    points: tuple[int, ...]


FULL = Size(9, 4, 10, 10, 1, PEERS, (1.0,), (64, 1024, 4096))
QUICK = Size(3, 1, 1, 4, 1, PEERS[:2], (1.0,), (64, 1024))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer repeats, smaller sizes")
    size = QUICK if parser.parse_args().quick else FULL
    # What an earlier run compiled would make the time of compilation look short.
    torch.compiler.config.force_disable_caches = size is FULL
    warnings.filterwarnings("ignore", message="dynamo_pgo force disabled")
    start = time.perf_counter()
    machine()
    task = sequential_digits(key=KEY)
    inputs, targets = task.train_inputs, task.train_targets
    for order in (2, 1):
        one_step(order, inputs[:BATCH], targets[:BATCH], size)
    one_training(inputs, targets, size)
    for interval in size.intervals:
        against_diffrax(interval, inputs[:BATCH], size)
    memory(size)
    print(f"\nload {os.getloadavg()[0]:.1f} at the end, {time.perf_counter() - start:.0f} s in all")


def machine() -> None:
    versions = ", ".join(f"{m.__name__} {m.__version__}" for m in (jax, eqx, optax, torch, diffrax, np))
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Python {platform.python_version()}, {versions}")
    print(f"two busy threads get {free_cores():.2f} cores; with less than 2, other work holds the rest")


def free_cores() -> float:
    """Processor time per second that two threads of this process get."""
    matrix = np.ones((1024, 1024))
    with ThreadPoolExecutor(2) as pool:
        wall, processor = timed(lambda: list(pool.map(lambda _: [np.sort(matrix * i) for i in range(50)], range(2))))
    return processor / wall


def network(order: int = 2, *, key: jax.Array = KEY) -> WithReadout:
    first, second = jax.random.split(key)
    return WithReadout.random(SpintronicNetwork.random(order=order, key=first), outputs=10, key=second)


# --- 1. One training step ---------------------------------------------------------------------------------------------


def one_step(order: int, inputs: jax.Array, targets: jax.Array, size: Size) -> None:
    """The step of a training with order 1 or 2: agreement, then times."""
    print(f"\n1. One training step, order {order}, batch {BATCH} x {inputs.shape[1]} points")
    model = network(order)
    metrics, gradient = eqx.filter_jit(RULE.gradient)(model, inputs, targets, key=KEY)
    theirs = torch.from_numpy(np.array(inputs)), torch.from_numpy(np.array(targets)).argmax(1)

    def agreement(twin: "Twin") -> None:
        loss, gradients = twin.gradient(*theirs)
        wrong = [np.asarray(a) - b.numpy() for a, b in zip(leaves(gradient), gradients, strict=True)]
        whole = np.sqrt(sum(np.sum(np.square(a)) for a in leaves(gradient)))
        print(
            f"   {twin.name}: loss {abs(loss / float(metrics['loss']) - 1):.0e}, "
            f"gradient {np.sqrt(sum(np.sum(w**2) for w in wrong)) / whole:.0e} from morphax (relative)"
        )

    contenders: dict[str, Call] = {
        "morphax, examples divided over 2 cores": morphax_step(model, inputs, targets, Backpropagation(shards=2)),
        "morphax, 1 core": morphax_step(model, inputs, targets, RULE),
    }
    trials = {}
    for threads in (1, 2):
        twin = Twin(model, threads=threads)
        agreement(twin)
        contenders[twin.name] = partial(twin.step, *theirs)
        trials[threads] = min(timed(contenders[twin.name])[0] for _ in range(3))
    for threads in (1, 2):
        slower = trials[threads] / min(trials.values())
        twin = Twin(model, threads=threads, span=size.span)
        if slower > 1.5:
            # Hopeless, and nearly always because other work has the second core.
            print(f"   with {threads} threads PyTorch eager is {slower:.1f} times slower: left out, and not compiled")
            del contenders[Twin(model, threads=threads).name]
            continue
        try:
            seconds = timed(partial(agreement, twin))[0]
        except Exception as error:  # whatever a compiler may raise is a result here
            print(f"   {twin.name} does not work: {type(error).__name__}: {str(error)[:200]}")
            continue
        print(f"   ... compiled in {seconds:.0f} s")
        contenders[twin.name] = partial(twin.step, *theirs)
    table(side_by_side(contenders, size.repeats))


def leaves(model: WithReadout) -> tuple[jax.Array, ...]:
    """What is learned, in the order of `Twin.learned`."""
    c = model.substrate.connections
    return c.weights, c.input_weights, c.bias, model.weights, model.bias


def morphax_step(model: WithReadout, inputs: jax.Array, targets: jax.Array, rule: Backpropagation) -> Call:
    weights, fixed = select(model, "weight")

    @jax.jit
    def step(weights: Any, memory: Any) -> tuple[Any, Any]:
        gradient = rule.gradient(eqx.combine(weights, fixed), inputs, targets, key=KEY)[1]
        changes, memory = OPTIMISER.update(select(gradient, "weight")[0], memory, weights)
        return eqx.apply_updates(weights, changes), memory

    state = [(weights, OPTIMISER.init(weights))]

    def call() -> None:
        state[0] = jax.block_until_ready(step(*state[0]))

    return call


class Twin:
    """The network and its optimiser in PyTorch; `span` points are compiled as one, None runs eagerly."""

    def __init__(self, model: WithReadout, *, threads: int, span: int | None = None):
        device: SpintronicNetwork = model.substrate
        how = "eager" if span is None else f"compiled by {span}"
        self.name = f"PyTorch {how}, {threads} thread{'s'[: threads - 1]}"
        self.threads, self.span = threads, span or 1
        self.learned = [tensor(leaf).requires_grad_() for leaf in leaves(model)]
        self.masks = [tensor(mask).float() for mask in (device.connections.mask, device.connections.input_mask)]
        self.amplification, self.resting = tensor(device.amplification), tensor(device.fixed_bias)
        self.initial, interval, cutoff = tensor(device.initial_power), float(device.interval), device.cutoff_frequency
        fading = [tensor(jnp.exp(-cutoff * interval / part)) for part in (4, 2)]
        constants = (tensor(device.damping_rate), *fading, interval)
        self.advance = partial(torch_points, order=device.scheme.order, constants=constants)
        if span is not None:
            torch._dynamo.reset()
            self.advance = torch.compile(self.advance, fullgraph=True, dynamic=False)
        self.optimiser = torch.optim.Adam(self.learned, lr=LEARNING_RATE, fused=True)

    def loss(self, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        weights, input_weights, bias, readout, offset = self.learned
        recurrent = (weights * self.masks[0]).T * self.amplification
        entering = (input_weights * self.masks[1]).T * self.amplification
        external = inputs.T[:, :, None] * entering + (self.amplification * bias + self.resting)
        power = self.initial.expand(len(inputs), -1)
        filtered = torch.zeros_like(power)
        for part in external.split(self.span):
            power, filtered = self.advance(power, filtered, part, recurrent)
        return torch.nn.functional.cross_entropy(filtered[:, -readout.shape[1] :] @ readout.T + offset, labels)

    def gradient(self, inputs: torch.Tensor, labels: torch.Tensor) -> tuple[float, list[torch.Tensor]]:
        torch.set_num_threads(self.threads)
        self.optimiser.zero_grad()
        loss = self.loss(inputs, labels)
        loss.backward()
        return loss.item(), [leaf.grad for leaf in self.learned]

    def step(self, inputs: torch.Tensor, labels: torch.Tensor) -> None:
        self.gradient(inputs, labels)
        torch.nn.utils.clip_grad_value_(self.learned, 1.0)
        self.optimiser.step()

    def run(self, inputs: torch.Tensor, labels: torch.Tensor, epochs: int) -> None:
        for _ in range(epochs):
            order = torch.randperm(len(inputs))
            for chosen in order[: len(order) - len(order) % BATCH].split(BATCH):
                self.step(inputs[chosen], labels[chosen])


def torch_points(
    power: torch.Tensor, filtered: torch.Tensor, external: torch.Tensor, weights: torch.Tensor, *, order: int, constants
) -> tuple[torch.Tensor, torch.Tensor]:
    """Hold each of some inputs for an interval; `external` has them as first axis."""
    damping, quarter, half, interval = constants
    for drive in external.unbind(0):
        current = torch.addmm(drive, filtered, weights)
        if order == 2:
            middle = logistic(power, current, damping, interval / 2)
            current = torch.addmm(drive, quarter * (quarter * filtered + middle - power), weights)
        after = logistic(power, current, damping, interval)
        power, filtered = after, half * (half * filtered + after - power)
    return power, filtered


def logistic(power: torch.Tensor, current: torch.Tensor, damping: torch.Tensor, duration: float) -> torch.Tensor:
    """The closed form, with as few operations as there can be."""
    growth = current - damping
    # 0 / 0 at threshold, and rounding of its derivative nearby: keep off, by too little to matter.
    growth = growth + torch.where(growth.abs() < 1e-4, 2e-4, 0.0)
    lost = torch.expm1(growth * -duration)
    return power / (1 + lost * (1 - current * power / growth))


def tensor(array: Any) -> torch.Tensor:
    return torch.from_numpy(np.array(array))


# --- 2. One training run ----------------------------------------------------------------------------------------------


def one_training(inputs: jax.Array, targets: jax.Array, size: Size) -> None:
    """Whole runs; the time is divided by seeds and steps."""
    steps = size.epochs * (len(inputs) // BATCH)
    print(f"\n2. One training run of {steps} steps (order 2), for 1 and for {size.seeds} seeds; ms per seed and step")
    stack = make_members(lambda key: network(key=key), KEY, size.seeds)
    members = [member(stack, index) for index in range(size.seeds)]
    theirs = tensor(inputs), tensor(targets).argmax(1)
    arguments = {"steps": steps, "key": KEY, "batch_size": BATCH, "chunk": steps}
    run = partial(train, rule=RULE, data=(inputs, targets), optimiser=OPTIMISER, **arguments)

    def batched() -> None:
        # The very same training, with the members as a batch axis of one program.
        with patch("morphax.learning.train.map_members", lambda f, *s, compiled: eqx.filter_vmap(f)(*s)):
            run(stack, ensemble=True)

    def by_eager(threads: int) -> Call:
        return lambda: Twin(members[0], threads=threads).run(*theirs, size.epochs)

    many = size.seeds
    contenders: dict[str, tuple[Call, int]] = {
        f"morphax train, {many} seeds in one call": (lambda: run(stack, ensemble=True), many),
        "morphax train, 1 seed": (lambda: run(members[0]), 1),
        f"morphax train, {many} calls of one seed": (lambda: [run(one) for one in members], many),
        f"morphax train, {many} seeds, vmap": (batched, many),
        "PyTorch eager, 1 seed, 1 thread (*)": (by_eager(1), 1),
    }
    # A core is a device of its own here, and the second compiles only for many seeds.
    first_calls = {"one seed": lambda: run(members[0]), "many": lambda: run(stack, ensemble=True), "vmap": batched}
    compile_seconds = compiling(first_calls)
    calls = {name: call for name, (call, _) in contenders.items()}
    times = side_by_side(calls, size.runs, warm=False)
    table({name: times[name].each(seeds * steps) for name, (_, seeds) in contenders.items()})
    print(f"   first calls, compilation included: {compile_seconds}")
    print(f"   (*) {many} seeds would take {many} times as long, or half of that in two processes at best")


def compiling(calls: dict[str, Call]) -> str:
    """Seconds of the first call of each."""
    return ", ".join(f"{name} {timed(call)[0]:.1f} s" for name, call in calls.items())


# --- 3. Diffrax -------------------------------------------------------------------------------------------------------


def against_diffrax(interval: float, inputs: jax.Array, size: Size) -> None:
    """Times of the cheapest settings whose error is not above morphax's, for powers after every input."""
    device = SpintronicNetwork(network().substrate.connections, interval=interval, observed="states")
    truth = converged(device, inputs)

    def ours(device: SpintronicNetwork, setting: float) -> tuple[jax.Array, int]:
        return jax.vmap(lambda drives: evolve(device, drives)[0])(inputs), 1

    print(f"\n3. Following {len(inputs)} sequences, inputs held for {interval:g} ns")
    name = "morphax, order 2"
    forward, gradient = both(ours, device, 1.0)
    contenders, gradients = {name: forward}, {name: gradient}
    allowed = np.abs(np.asarray(forward()[0]) - truth).max()
    errors = {name: allowed}
    for peer in size.peers:
        solve = partial(follow, inputs=inputs, peer=peer)
        found = cheapest(solve, device, peer, truth, allowed)
        if found is None:
            print(f"   {peer.name}: no setting is accurate enough")
            continue
        setting, error, steps = found
        tolerance = f"tolerance {setting:.1g}, " if peer.adaptive else ""
        name = f"{peer.name} ({tolerance}{steps} a point)"
        # Back-propagation is cheaper the fewer steps there might be.
        contenders[name], gradients[name] = both(partial(solve, most_steps=steps), device, setting)
        errors[name] = error
    table(side_by_side(contenders, size.repeats), errors)
    print("   with the gradient of a sum of the last powers")
    table(side_by_side(gradients, max(1, size.repeats // 3)))


def converged(device: SpintronicNetwork, inputs: jax.Array) -> np.ndarray:
    """Powers in double precision by classical Runge-Kutta steps of 1/40 of an interval."""
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda x: x.astype(float) if eqx.is_inexact_array(x) else x, device)
        fine = wide.integrated_by("runge-kutta", 4, float(device.interval) / 40)
        return np.asarray(jax.jit(jax.vmap(lambda drives: evolve(fine, drives)[0]))(inputs.astype(float)))


def follow(
    device: SpintronicNetwork, setting: Any, *, inputs: jax.Array, peer: Peer, most_steps: int = 512
) -> tuple[jax.Array, jax.Array]:
    """Powers after every input, and the most steps in an interval; `setting`: steps an interval, or tolerance."""
    existing = device.connections.existing()
    weights = existing.weights.T * device.amplification
    entering = existing.input_weights.T * device.amplification
    constant = device.amplification * existing.bias + device.fixed_bias
    controller = diffrax.PIDController(rtol=setting, atol=setting) if peer.adaptive else diffrax.ConstantStepSize()
    first_step = device.interval if peer.adaptive else device.interval / setting
    term = diffrax.ODETerm(lambda t, state, external: device.velocity(state, state.filtered @ weights + external))

    def hold(state: Any, external: jax.Array) -> tuple[Any, tuple[jax.Array, jax.Array]]:
        # One solution an interval: no step crosses a jump of the input.
        times = (0.0, device.interval, first_step)
        options = {"stepsize_controller": controller, "max_steps": most_steps, "throw": False}
        done = diffrax.diffeqsolve(term, peer.solver(), *times, state, external, **options)
        state = jax.tree.map(lambda x: x[-1], done.ys)
        return state, (state.power, done.stats["num_steps"])

    def one(drives: jax.Array) -> tuple[jax.Array, jax.Array]:
        state = device.initial_state()
        if drives.ndim == 2:
            state = jax.tree.map(lambda x: jnp.broadcast_to(x, (drives.shape[1], *x.shape)), state)
        return jax.lax.scan(hold, state, drives[..., None] * entering[0] + constant)[1]

    powers, steps = one(inputs.T) if peer.shared else jax.vmap(one)(inputs)
    return powers.swapaxes(0, 1) if peer.shared else powers, jnp.max(steps)


def cheapest(
    solve: Callable, device: SpintronicNetwork, peer: Peer, truth: np.ndarray, allowed: float
) -> tuple[float, float, int] | None:
    """The fewest steps or the loosest tolerance with an error that is allowed, this error, and steps an interval."""
    # The setting is an argument of the program, which is compiled once.
    program = eqx.filter_jit(solve)
    for setting in 10.0 ** -np.arange(1, 7.5, 0.5) if peer.adaptive else (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64):
        powers, steps = program(device, jnp.float32(setting))
        error = np.abs(np.asarray(powers) - truth).max()
        if error <= allowed:
            return float(setting), error, int(steps)
    return None


def both(solve: Callable, device: SpintronicNetwork, setting: float) -> tuple[Call, Call]:
    """The solution, and the gradient of a sum of its last values for the weights, compiled."""
    weights, fixed = select(device, "weight")
    forward = jax.jit(lambda w: solve(eqx.combine(w, fixed), setting))
    gradient = jax.jit(jax.grad(lambda w: jnp.sum(solve(eqx.combine(w, fixed), setting)[0][:, -1])))
    return partial(finished, forward, weights), partial(finished, gradient, weights)


def finished(function: Callable, *arguments: Any) -> Any:
    return jax.block_until_ready(function(*arguments))


# --- 4. Memory --------------------------------------------------------------------------------------------------------


def memory(size: Size) -> None:
    """Temporary memory and time of a gradient of long sequences."""
    print(f"\n4. Gradient (order 2, batch {BATCH}) with all states kept, and in segments of sqrt(points)")
    header = (
        f"{'points':>8} {'segment':>8} {'MiB':>9} {'ratio':>7} {'median ms':>10} {'ratio':>7} {'least':>9} {'cpu':>9}"
    )
    print(f"   {header}")
    weights, fixed = select(network(), "weight")
    targets = jax.nn.one_hot(jnp.arange(BATCH) % 10, 10)
    for points in size.points:
        inputs = jax.random.uniform(KEY, (BATCH, points), maxval=16.0)
        mebibytes, calls = {}, {}
        for segment in (None, round(points**0.5)):
            rule = Backpropagation(segment=segment, microbatch=BATCH)

            def gradient(weights: Any, inputs: jax.Array, rule: Backpropagation = rule) -> Any:
                return select(rule.gradient(eqx.combine(weights, fixed), inputs, targets, key=KEY)[1], "weight")[0]

            program = jax.jit(gradient).lower(weights, inputs).compile()
            mebibytes[str(segment)] = program.memory_analysis().temp_size_in_bytes / 2**20
            calls[str(segment)] = partial(finished, program, weights, inputs)
        times = side_by_side(calls, max(1, size.repeats // 4))
        for name, result in times.items():
            share, longer = mebibytes[name] / mebibytes["None"], result.median / times["None"].median
            row = f"{points:8d} {name:>8} {mebibytes[name]:9.1f} {share:7.3f} {result.median:10.1f} {longer:7.2f}"
            print(f"   {row} {result.least:9.1f} {result.processor:9.1f}")


# --- Measuring --------------------------------------------------------------------------------------------------------


class Times(NamedTuple):
    """Milliseconds."""

    median: float
    least: float
    processor: float

    def each(self, number: int) -> "Times":
        return Times(*(value / number for value in self))


def timed(call: Call) -> tuple[float, float]:
    """Seconds on the wall and of all cores."""
    wall, processor = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - wall, time.process_time() - processor


def side_by_side(contenders: dict[str, Call], repeats: int, *, warm: bool = True) -> dict[str, Times]:
    """Times of all contenders, who take turns; the first call of each compiles and is not counted."""
    if warm:
        for call in contenders.values():
            call()
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, call in contenders.items():
            samples[name].append(timed(call))
    return {
        name: Times(1e3 * np.median(wall), 1e3 * min(wall), 1e3 * np.median(processor))
        for name, values in samples.items()
        for wall, processor in [zip(*values, strict=True)]
    }


def table(times: dict[str, Times], errors: dict[str, float] | None = None) -> None:
    """One row a contender; ratios say how many times the first one's median."""
    first = next(iter(times.values())).median
    print(f"   {'':60} {'median ms':>10} {'ratio':>7} {'least':>9} {'cpu':>9}" + ("      error" if errors else ""))
    for name, row in times.items():
        error = f" {errors[name]:10.1e}" if errors else ""
        print(f"   {name:60} {row.median:10.2f} {row.median / first:7.2f} {row.least:9.2f} {row.processor:9.2f}{error}")


if __name__ == "__main__":
    main()
