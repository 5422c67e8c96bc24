"""Layered spintronic networks: training and following them with morphax, PyTorch and Diffrax, side by side.

    python benchmarks/spintronic.py [--quick] [--threads 1] [--keep]

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
which such work disturbs less, and the processor time of all cores together. Those of the first two tables are processes
of their own: a second CPU device, over which examples or seeds are divided, costs a step on one core a fifth.
"""

import os
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple
from unittest.mock import patch

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch

from measuring import Apart, Call, Report, Times, arguments, side_by_side, timed
from morphax import SpintronicNetwork, WithReadout, evolve
from morphax.learning.backprop import Backpropagation
from morphax.learning.ensemble import make_members, member
from morphax.learning.train import train
from morphax.pytrees import select
from morphax.tasks import sequential_digits

BATCH, LEARNING_RATE, KEY = 120, 0.01, jax.random.key(0)
# The same object everywhere: `train` compiles once for it.
OPTIMISER = optax.chain(optax.clip(1.0), optax.adam(LEARNING_RATE))
RULE = Backpropagation()


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
    options = arguments(__doc__, quick="fewer repeats, smaller sizes").parse_args()
    size = QUICK if options.quick else FULL
    report = Report("spintronic", options, "jax", "equinox", "optax", "torch", "diffrax", "numpy")
    for order in (2, 1):
        one_step(report, order, size)
    one_training(report, size)
    inputs = digits()[0][:BATCH]
    for interval in size.intervals:
        against_diffrax(report, interval, inputs, size)
    memory(report, size)
    report.finish()


def digits() -> tuple[jax.Array, jax.Array]:
    task = sequential_digits(key=KEY)
    return task.train_inputs, task.train_targets


def network(order: int = 2, *, key: jax.Array = KEY) -> WithReadout:
    first, second = jax.random.split(key)
    return WithReadout.random(SpintronicNetwork.random(order=order, key=first), outputs=10, key=second)


# --- 1. One training step ---------------------------------------------------------------------------------------------


def one_step(report: Report, order: int, size: Size) -> None:
    """The step of a training with order 1 or 2: agreement, then times."""
    print(f"\n1. One training step, order {order}")
    last = max(os.sched_getaffinity(0))
    counts = (1, 2) if report.threads > 1 else (1,)
    contenders: dict[str, Call] = {}
    for threads in reversed(counts):
        name = "morphax, 1 core" if threads == 1 else f"morphax, examples divided over {threads} cores"
        contenders[name] = apart(order, threads, last)
    for threads in counts:
        contenders[f"PyTorch eager, {threads} thread{'s'[: threads - 1]}"] = apart(order, threads, last, torch_by=0)
    for threads in counts:
        name = f"PyTorch compiled by {size.span}, {threads} thread{'s'[: threads - 1]}"
        try:
            contenders[name] = apart(order, threads, last, torch_by=size.span, anew=size is FULL)
        except EOFError:  # a compiler that fails is a result here; what it says is above
            print(f"   {name} does not work")
    times = side_by_side(contenders, size.repeats)
    rows = compared(times)
    for contender in contenders.values():
        contender.stop()
    report.table(f"step-{order}", f"One training step, order {order}, batch {BATCH}", ["ms", *HEADER], rows)


def apart(order: int, threads: int, core: int, torch_by: int | None = None, anew: bool = True) -> Apart:
    """A contender on one core, or on all with a device for each of some."""
    if threads == 1:
        return Apart(Step, order, 1, torch_by, anew, on=[core])
    return Apart(Step, order, threads, torch_by, anew, settings={"JAX_NUM_CPU_DEVICES": str(threads)})


class Step:
    """A training step by morphax, or by PyTorch: `torch_by` points are compiled as one, 0 runs eagerly."""

    def __init__(self, order: int, threads: int, torch_by: int | None, anew: bool):
        inputs, targets = (data[:BATCH] for data in digits())
        model = network(order)
        if torch_by is None:
            rule = Backpropagation(shards=threads) if threads > 1 else RULE
            self.step = morphax_step(model, inputs, targets, rule)
            return
        # What an earlier run compiled would make the time of compilation look short.
        torch.compiler.config.force_disable_caches = anew
        warnings.filterwarnings("ignore", message="dynamo_pgo force disabled")
        theirs = torch.from_numpy(np.array(inputs)), torch.from_numpy(np.array(targets)).argmax(1)
        metrics, gradient = eqx.filter_jit(RULE.gradient)(model, inputs, targets, key=KEY)
        twin = Twin(model, threads=threads, span=torch_by or None)
        began = time.perf_counter()
        loss, gradients = twin.gradient(*theirs)
        seconds = time.perf_counter() - began
        wrong = [np.asarray(a) - b.numpy() for a, b in zip(leaves(gradient), gradients, strict=True)]
        whole = np.sqrt(sum(np.sum(np.square(a)) for a in leaves(gradient)))
        off = np.sqrt(sum(np.sum(w**2) for w in wrong)) / whole
        told = f"loss {abs(loss / float(metrics['loss']) - 1):.0e}, gradient {off:.0e} from morphax (relative)"
        self.step = partial(twin.step, *theirs)
        if torch_by:
            told += f", compiled in {seconds:.0f} s"
        print(f"   {twin.name}: {told}", flush=True)

    def __call__(self) -> None:
        self.step()


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


def one_training(report: Report, size: Size) -> None:
    """Whole runs; the time is divided by seeds and steps."""
    steps, last, many = size.epochs * (len(digits()[0]) // BATCH), max(os.sched_getaffinity(0)), size.seeds
    contenders: dict[str, tuple[Call, int]] = {}
    devices = {"JAX_NUM_CPU_DEVICES": str(report.threads)}
    for way in ("in one call", "in a call each", "as one batched program (vmap)"):
        contenders[f"morphax, {many} seeds {way}"] = Apart(Training, size, way, settings=devices), many
    contenders["morphax, 1 seed on 1 core"] = Apart(Training, size, "alone", on=[last]), 1
    contenders["PyTorch eager, 1 seed on 1 core"] = Apart(Training, size, "PyTorch", on=[last]), 1
    first = {name: timed(call)[0] for name, (call, _) in contenders.items()}
    times = side_by_side({name: call for name, (call, _) in contenders.items()}, size.runs, warm=False)
    rows = compared({name: times[name].each(seeds * steps) for name, (_, seeds) in contenders.items()})
    header = ["ms a seed and step", *HEADER, "first call, s"]
    for call, _ in contenders.values():
        call.stop()
    report.table(
        "training", f"2. Training runs of {steps} steps, order 2", header, [[*row, first[row[0]]] for row in rows]
    )


class Training:
    """A whole run of training, of one seed or of some."""

    def __init__(self, size: Size, way: str):
        data = inputs, targets = digits()
        stack = make_members(lambda key: network(key=key), KEY, size.seeds)
        members = [member(stack, index) for index in range(size.seeds)]
        steps = size.epochs * (len(inputs) // BATCH)
        run = partial(
            train, rule=RULE, data=data, optimiser=OPTIMISER, steps=steps, key=KEY, batch_size=BATCH, chunk=steps
        )

        def batched() -> None:
            # The very same training, with the members as a batch axis of one program.
            with patch("morphax.learning.train.map_members", lambda f, *s, compiled: eqx.filter_vmap(f)(*s)):
                run(stack, ensemble=True)

        theirs = tensor(inputs), tensor(targets).argmax(1)
        ways = {
            "in one call": lambda: run(stack, ensemble=True),
            "in a call each": lambda: [run(one) for one in members],
            "as one batched program (vmap)": batched,
            "alone": lambda: run(members[0]),
            "PyTorch": lambda: Twin(members[0], threads=1).run(*theirs, size.epochs),
        }
        self.run = ways[way]

    def __call__(self) -> None:
        self.run()


# --- 3. Diffrax -------------------------------------------------------------------------------------------------------


def against_diffrax(report: Report, interval: float, inputs: jax.Array, size: Size) -> None:
    """Times of the cheapest settings whose error is not above morphax's, for powers after every input."""
    device = SpintronicNetwork(network().substrate.connections, interval=interval, observed="states")
    truth = converged(device, inputs)

    def ours(device: SpintronicNetwork, setting: float) -> tuple[jax.Array, int]:
        return jax.vmap(lambda drives: evolve(device, drives)[0])(inputs), 1

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
    followed = compared(side_by_side(contenders, size.repeats))
    sloped = compared(side_by_side(gradients, max(1, size.repeats // 3)))
    rows = [[*row, f"{errors[row[0]]:.0e}", *slope[1:3]] for row, slope in zip(followed, sloped, strict=True)]
    header = ["ms", *HEADER, "error", "with gradient", "ratio there"]
    report.table("diffrax", f"3. Following {len(inputs)} sequences, inputs held for {interval:g} ns", header, rows)


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
    return partial(forward, weights), partial(gradient, weights)


# --- 4. Memory --------------------------------------------------------------------------------------------------------


def memory(report: Report, size: Size) -> None:
    """Temporary memory and time of a gradient of long sequences."""
    weights, fixed = select(network(), "weight")
    targets = jax.nn.one_hot(jnp.arange(BATCH) % 10, 10)
    rows = []
    for points in size.points:
        inputs = jax.random.uniform(KEY, (BATCH, points), maxval=16.0)
        mebibytes, calls = {}, {}
        for segment in (None, round(points**0.5)):
            rule = Backpropagation(segment=segment, microbatch=BATCH)

            def gradient(weights: Any, inputs: jax.Array, rule: Backpropagation = rule) -> Any:
                return select(rule.gradient(eqx.combine(weights, fixed), inputs, targets, key=KEY)[1], "weight")[0]

            program = jax.jit(gradient).lower(weights, inputs).compile()
            name = f"{points:,} points, " + ("all states kept" if segment is None else f"in segments of {segment}")
            mebibytes[name] = program.memory_analysis().temp_size_in_bytes / 2**20
            calls[name] = partial(program, weights, inputs)
        found = compared(side_by_side(calls, max(1, size.repeats // 4)))
        rows += [[row[0], mebibytes[row[0]], *row[1:]] for row in found]
    title = f"4. Gradient (order 2, batch {BATCH}) with all states kept, and in segments of sqrt(points)"
    report.table("memory", title, ["", "MiB", "ms", *HEADER[1:]], rows)


HEADER = ("median", "ratio", "least", "processor")


def compared(times: dict[str, Times]) -> list[list[Any]]:
    """A row a contender, in ms; ratios say how many times the first one's median."""
    first = next(iter(times.values())).median
    return [
        [name, 1e3 * found.median, found.median / first, 1e3 * found.least, 1e3 * found.processor]
        for name, found in times.items()
    ]


if __name__ == "__main__":
    main()
