"""64 spiking neurons with 128 Poisson inputs: time and memory against Norse (PyTorch) and plain JAX.

    python benchmarks/spiking.py [--quick] [--threads 1] [--keep]

One chain of 100,000 time steps and 100 chains of 1,000, single precision. Forward: activities of the first six neurons,
and from these the 16 averages of a state of two spins. Backward: also the gradient of the squared distance of these
averages from a target with respect to both weight matrices. Contenders:

- morphax: `evolve` on intervals, for which inputs are drawn and multiplied at once; with input spikes that are given
  instead; with segments that are computed twice; with the chains divided over the cores;
- plain JAX: one `lax.scan` over time steps, in which inputs are drawn and multiplied, after Appendix A of the paper;
- Norse: `LIFRecurrent` on input spikes that are given, drawn beforehand and not counted. What it takes for one chain is
  measured for a part of the steps and scaled.

Before anything is timed, all three get the same input spikes in double precision and must give the same spikes; morphax
and plain JAX the same gradient. That of Norse is another one: it does not follow the reset.

Every contender has a process of its own, and they take turns, so that other work on the machine burdens all of them.
Ratios are those of medians, to the faster Norse. Memory is the largest resident set of that process (imports,
compilation, data, everything) and by how much it grew after the imports; where times are scaled, it is extrapolated
from its growth between half of the part and all of it.
"""

import importlib
import multiprocessing
import resource
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from measuring import Apart, Call, Report, Times, arguments, side_by_side

# JAX and PyTorch are imported only by the processes that need them: their memory is part of what is measured.

NEURONS, INPUTS, MEASURED, RATE = 64, 128, 6, 0.7
STEEPNESS = 100.0
CHECKED = 1000
# Singlet of two spins: what the averages are compared with.
TARGET = np.diag([1.0, -1.0, -1.0, -1.0])
Matrices = tuple[np.ndarray, np.ndarray]


class Case(NamedTuple):
    """One row: `steps` of the `counted` ones are run by `kind`."""

    name: str
    kind: str
    chains: int
    steps: int
    counted: int
    backward: bool
    interval: int = 1
    segment: int | None = None
    given: bool = False
    threads: int = 1
    divided: bool = False
    measured: int = MEASURED


def main() -> None:
    options = arguments(__doc__).parse_args()
    report = Report("spiking", options, "jax", "torch", "norse", "numpy")
    agreement()
    rows: list[list[Any]] = []
    for chains, steps, part in ((1, 100_000, 5_000), (100, 1_000, 1_000)):
        for backward in (False, True):
            rows += compare(cases(chains, steps, part, backward, report.threads), 3 if options.quick else 7)
    header = ["", "median s", "of the faster Norse", "processor s", "peak MiB", "MiB after imports"]
    report.table("peers", "100,000 steps in all; * measured for a part and scaled", header, rows)
    report.finish()


def cases(chains: int, steps: int, part: int, backward: bool, threads: int) -> list[Case]:
    # An interval of 100 chains holds 100 times as much: shorter ones stay in the cache.
    interval = 100 if chains == 1 else 10
    first = Case("morphax", "morphax", chains, steps, steps, backward, interval, threads=threads)
    found = [first, first._replace(name="morphax, spikes given", given=True)]
    if backward:
        segment = round((steps / interval) ** 0.5)
        found.append(first._replace(name=f"morphax, segments of {segment * interval} steps", segment=segment))
    if chains > 1 and threads > 1:
        found.append(first._replace(name=f"morphax, divided over {threads} cores", divided=True))
    found.append(first._replace(name="plain JAX", kind="plain", interval=1))
    for number in sorted({1, threads}):
        name = f"Norse, {number} thread{'s' * (number > 1)}"
        found.append(first._replace(name=name, kind="norse", steps=part, given=True, threads=number))
    return found


def compare(cases: list[Case], repeats: int) -> list[list[Any]]:
    """Start all contenders, let them take turns, ask for their memory."""
    contenders = {case.name: Apart(Contender, case) for case in cases}
    times = side_by_side(contenders, repeats, warm=False)
    found = {case.name: times[case.name].each(case.steps / case.counted) for case in cases}
    norse = min(found[case.name].median for case in cases if case.kind == "norse")
    what = f"{cases[0].chains} chain{'s'[: cases[0].chains - 1]}, {'with gradient' if cases[0].backward else 'forward'}"
    rows = []
    for case in cases:
        peak, grown = contenders[case.name].ask("memory")
        contenders[case.name].stop()
        star = " *" * (case.steps < case.counted)
        seconds: Times = found[case.name]
        ratio = norse / seconds.median
        rows.append([f"{what}: {case.name}{star}", seconds.median, ratio, seconds.processor, round(peak), round(grown)])
    return rows


# --- A contender, in its own process ----------------------------------------------------------------------------------


class Contender:
    """Prepared, and called once; `memory` tells MiB at most, and how much was added after the imports."""

    def __init__(self, case: Case):
        load(case.kind)
        self.imported = peak_memory()
        self.run, self.missing = call(case), 0.0
        half = case.steps // 2
        if case.steps < case.counted:
            call(case._replace(steps=half))()
            self.missing -= peak_memory()
        self.run()
        if case.steps < case.counted:
            self.missing = (self.missing + peak_memory()) * (case.counted - case.steps) / (case.steps - half)

    def __call__(self) -> Any:
        return self.run()

    def memory(self) -> tuple[float, float]:
        peak = peak_memory() + self.missing
        return peak, peak - self.imported


def load(kind: str) -> None:
    """Import what a contender uses."""
    warnings.filterwarnings("ignore", message=".*torch.jit.script.*", category=DeprecationWarning)
    names = {"morphax": ("morphax.substrates.spiking",), "plain": ("jax.numpy",), "norse": ("torch", "norse.torch")}
    for name in names[kind]:
        importlib.import_module(name)


def peak_memory() -> float:
    """Largest resident set so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def matrices() -> Matrices:
    """Recurrent and input weights, by the rule of `SpikingNetwork.random`."""
    random = np.random.default_rng(0)

    def weights(columns: int, mean: float) -> np.ndarray:
        drawn = random.standard_normal((NEURONS, columns))
        return mean + 0.3 * (drawn - drawn.mean(1, keepdims=True))

    return weights(NEURONS, 0.0), weights(INPUTS, 0.02)


def input_spikes(chains: int, steps: int) -> np.ndarray:
    random = np.random.default_rng(1)
    # Through bytes: a large array of doubles would be part of the peak.
    return np.stack([random.integers(0, 10, (steps, INPUTS), np.uint8) < 10 * RATE for _ in range(chains)])


def call(case: Case) -> Call:
    if case.kind == "norse":
        return norse(case)
    import jax

    function, weights, given = program(case)
    run = jax.jit(function)
    return lambda: jax.block_until_ready(run(weights, given))


def program(case: Case) -> tuple[Callable[[Any, Any], Any], Any, Any]:
    """The loss, or loss and gradient, of `morphax` or plain JAX, and its arguments."""
    import jax
    import jax.numpy as jnp

    chain = morphax(case) if case.kind == "morphax" else plain(case)
    if case.divided:
        jax.config.update("jax_num_cpu_devices", case.threads)
    together = jax.vmap(chain, (None, 1 if case.given else 0))
    if case.divided:
        mesh = jax.make_mesh((case.threads,), ("chains",), (jax.sharding.AxisType.Auto,))
        split, whole = jax.P("chains"), jax.P()
        # Inside, the start of a scan counts as the same everywhere and its end does not: that check has to be off.
        together = jax.shard_map(together, mesh=mesh, in_specs=(whole, split), out_specs=split, check_vma=False)

    def loss(weights: Any, given: Any) -> jax.Array:
        spins = 2 * together(weights, given).reshape(-1, MEASURED) - 1
        with_one = jnp.concatenate([jnp.ones_like(spins[:, :1]), spins], axis=1)
        first, second = with_one[:, :4], with_one[:, jnp.array([0, 4, 5, 6])]
        return jnp.sum((first.T @ second / len(spins) - TARGET) ** 2) / 4

    weights = tuple(jnp.asarray(matrix, jnp.float32) for matrix in matrices())
    if case.given:
        spikes = input_spikes(case.chains, case.steps).reshape(case.chains, -1, case.interval, INPUTS)
        # In the order in which they are read.
        given = jnp.asarray(spikes.swapaxes(0, 1), jnp.float32)
    else:
        given = jax.random.split(jax.random.key(1), case.chains)
    return jax.value_and_grad(loss) if case.backward else loss, weights, given


def morphax(case: Case) -> Callable[[Any, Any], Any]:
    """Activities of the measured neurons, (steps, measured), for weights and a key or spikes (intervals, interval,
    inputs)."""
    import jax.numpy as jnp

    from morphax import evolve
    from morphax.substrates.spiking import SpikingNetwork

    def chain(weights: Any, given: Any) -> Any:
        network = SpikingNetwork(
            *weights,
            input_rate=None if case.given else RATE,
            steps_per_input=case.interval,
            visible=case.measured,
            steepness=STEEPNESS,
        )
        drives, key = (given, None) if case.given else (jnp.ones(case.steps // case.interval), given)
        found, _ = evolve(network, drives, key=key, segment=case.segment)
        return found.reshape(case.steps, case.measured)

    return chain


def plain(case: Case) -> Callable[[Any, Any], Any]:
    """The same after Eqs. A1-A7, for weights and a key or spikes (steps, inputs)."""
    import jax
    import jax.numpy as jnp

    @jax.custom_jvp
    def spike(x: jax.Array) -> jax.Array:
        return (x >= 0).astype(x.dtype)

    @spike.defjvp
    def _(primals: Any, tangents: Any) -> Any:
        return spike(*primals), tangents[0] / (STEEPNESS * jnp.abs(primals[0]) + 1) ** 2

    def chain(weights: Any, given: Any) -> Any:
        recurrent, entering = weights

        def step(state: Any, item: Any) -> Any:
            voltage, current = state
            arriving = item if case.given else jax.random.bernoulli(item, RATE, (INPUTS,)).astype(voltage.dtype)
            voltage = voltage + 0.1 * (current - voltage)
            spikes = spike(voltage - 1)
            voltage = (1 - spikes) * voltage
            current = current - 0.2 * current + recurrent @ spikes + entering @ arriving
            return (voltage, current), spikes[: case.measured]

        items = given if case.given else jax.random.split(given, case.steps)
        rest = jnp.zeros(NEURONS, recurrent.dtype)
        return jax.lax.scan(step, (rest, rest), items)[1]

    return chain


def norse(case: Case) -> Call:
    import torch

    torch.set_num_threads(case.threads)
    run, parameters = norse_network(torch.float32)
    spikes = torch.from_numpy(input_spikes(case.chains, case.steps)).transpose(0, 1).to(torch.float32).contiguous()
    target = torch.tensor(TARGET, dtype=torch.float32)

    def loss() -> torch.Tensor:
        spins = 2 * run(spikes)[..., :MEASURED].reshape(-1, MEASURED) - 1
        one = torch.ones_like(spins[:, :1])
        first, second = torch.cat([one, spins[:, :3]], 1), torch.cat([one, spins[:, 3:]], 1)
        return ((first.T @ second / len(spins) - target) ** 2).sum() / 4

    def forward() -> torch.Tensor:
        with torch.no_grad():
            return loss()

    return (lambda: torch.autograd.grad(loss(), parameters)) if case.backward else forward


def norse_network(dtype: Any) -> tuple[Callable[[Any], Any], tuple[Any, ...]]:
    """The network, from spikes of shape (steps, chains, inputs) to (steps, chains, neurons), and its two matrices."""
    import torch
    from norse.torch import LIFParameters, LIFRecurrent
    from norse.torch.functional.lif import LIFState

    def number(value: float) -> torch.Tensor:
        return torch.tensor(value, dtype=dtype)

    recurrent, entering = (torch.nn.Parameter(torch.tensor(matrix, dtype=dtype)) for matrix in matrices())
    constants = LIFParameters(
        number(200.0), number(100.0), number(0.0), number(1.0), number(0.0), "super", number(STEEPNESS)
    )
    # Neurons of the paper have connections to themselves, too.
    network = LIFRecurrent(
        INPUTS, NEURONS, p=constants, input_weights=entering, recurrent_weights=recurrent, autapses=True, dt=0.001
    )

    def run(spikes: torch.Tensor) -> torch.Tensor:
        rest = torch.zeros(spikes.shape[1], NEURONS, dtype=dtype)
        return network(spikes, LIFState(rest, rest, rest))[0]

    return run, (recurrent, entering)


# --- Agreement --------------------------------------------------------------------------------------------------------


def agreement() -> None:
    """All spikes of all neurons, in double precision: in single, rounding alone ends in different chains."""
    spawn = multiprocessing.get_context("spawn")
    with spawn.Pool(1) as pool:
        theirs = pool.apply(norse_trains)
    with spawn.Pool(1) as pool:
        (ours, gradients), (simple, their_gradients) = pool.apply(jax_trains)
    assert np.array_equal(ours, theirs)
    assert np.array_equal(ours, simple)
    apart = max(np.abs(a - b).max() / np.abs(a).max() for a, b in zip(gradients, their_gradients, strict=True))
    assert apart < 1e-9
    print(f"{int(ours.sum()):,} spikes in {CHECKED:,} steps, the same from all three; gradients apart by {apart:.0e}")


def jax_trains() -> list[tuple[np.ndarray, list[np.ndarray]]]:
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    spikes = jnp.asarray(input_spikes(1, CHECKED)[0], float)
    weights = tuple(map(jnp.asarray, matrices()))
    # Gradients of a sum in which every neuron and step counts differently.
    shares = jnp.sin(jnp.arange(CHECKED * NEURONS, dtype=float)).reshape(CHECKED, NEURONS)
    case = Case("", "", 1, CHECKED, CHECKED, True, 50, given=True, measured=NEURONS)
    found = []
    for chain, given in ((morphax(case), spikes.reshape(-1, case.interval, INPUTS)), (plain(case), spikes)):
        gradients = jax.grad(lambda w, f=chain, x=given: jnp.sum(shares * f(w, x)))(weights)
        found.append((np.asarray(chain(weights, given)), [np.asarray(g) for g in gradients]))
    return found


def norse_trains() -> np.ndarray:
    load("norse")
    import torch

    spikes = torch.from_numpy(input_spikes(1, CHECKED)[0]).to(torch.float64)[:, None]
    # In a time step Norse first lets input spikes jump the current and then moves the voltage; in Eqs. A1-A4 the
    # voltage moves with the current before the jump. Delayed by a step, inputs arrive at the same moment; recurrent
    # spikes, which both use in the step after theirs, do already.
    delayed = torch.cat([torch.zeros_like(spikes[:1]), spikes[:-1]])
    run, _ = norse_network(torch.float64)
    with torch.no_grad():
        return run(delayed)[:, 0].numpy()


if __name__ == "__main__":
    main()
