"""Learning rules: one gradient of each against back-propagation, and two peers of single families.

    python benchmarks/rules.py [part ...] [--quick] [--threads 1] [--keep]

Networks and data are random, single precision, 100 examples:

- layers of oscillators, 64-48-48-10; rules that show a label beside the data have 10 inputs more;
- spintronic networks of (24, 24) neurons, 8 rows of 8 pixels and 64 pixels, and one of (6, 6) for real-time recurrent
  learning, whose memory and time go with weights times states;
- phase oscillators, 64-32-10, relaxed by sweeps to a largest force of 1e-4; the gradient is implicit differentiation;
- a lattice of 4 x 6 nonlinear oscillators over T = 20.

Shown are the time of a gradient, that from nothing to its compiled program, both as ratios to the gradient of the same
table, and what is presented of an example. Contenders take turns; ratios are of medians.

CMA-ES against evosax: the full one in 100 dimensions, the separable one in 1,000; as many candidates, the same function
and first spread; the time of a generation, and the value at the mean in the end, median of nine keys. evosax weighs bad
candidates negatively in its full one, morphax does not: it is shown both ways. Candidates are judged at once by evosax,
one after the other by morphax, for which they are devices.

E-prop against braintrace: one layer of leaky tanh neurons over 64 steps, behind a readout, the error at the last.
Before anything is timed, gradients must agree. braintrace 0.2.6 gives a readout inside its model no gradient, so that
it stays outside. A peer that is not installed is left out, and said so.
"""

from collections.abc import Callable, Mapping
from functools import partial
from importlib.util import find_spec
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from measuring import Call, Report, arguments, side_by_side
from morphax import PhaseOscillators, SpintronicNetwork, WithReadout
from morphax.dynamics.relaxation import BlockSweeps
from morphax.learning import (
    CMAES,
    AgnosticPropagation,
    Backpropagation,
    CoupledLearning,
    DirectFeedbackAlignment,
    EligibilityPropagation,
    EquilibriumPropagation,
    FeedbackAlignment,
    ForwardForward,
    ForwardGradient,
    FrequencyPropagation,
    HamiltonianEcho,
    HolomorphicPropagation,
    ImplicitDifferentiation,
    KolenPollack,
    LearningRule,
    LocalHeads,
    NodePerturbation,
    PhysicalLocalLearning,
    RandomFeedbackLocalOnline,
    RealTimeRecurrentLearning,
    SignSymmetry,
    SparseApproximation,
    ZerothOrder,
    regression,
)
from morphax.pytrees import WEIGHT
from morphax.substrates.energy import phase_distance
from morphax.substrates.layered import OscillatorLayers
from morphax.substrates.recurrent import ContinuousTimeRecurrentNetwork
from morphax.substrates.reversible import NonlinearLattice
from morphax.substrates.topology import Topology

EXAMPLES, CLASSES = 100, 10
KEY = jax.random.key(0)
# A rule, a substrate and data.
Contender = tuple[LearningRule, Any, tuple[Any, Any]]


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("parts", nargs="*", metavar="part", help=f"{', '.join(PARTS)} (all)")
    options = parser.parse_args()
    if unknown := [name for name in options.parts if name not in PARTS]:
        parser.error(f"part is {unknown[0]}; it must be one of {', '.join(PARTS)}")
    peers = [name for name in ("evosax", "braintrace") if find_spec(name)]
    report = Report("rules", options, "jax", "equinox", "numpy", *peers)
    for name in options.parts or PARTS:
        if name in ("evosax", "braintrace") and name not in peers:
            print(f"\n{name} is not installed, and left out")
        else:
            PARTS[name](report, options.quick)
    report.finish(partly=bool(options.parts))


# --- Rules against back-propagation -----------------------------------------------------------------------------------


class Gradient:
    """The gradient of a rule; what it remembers is what it begins with."""

    def __init__(self, rule: LearningRule, network: Any, data: tuple[Any, Any]):
        rule.check(network, data)
        self.given = network, data, KEY
        self.program = eqx.filter_jit(lambda network, data, key: rule.gradient(network, *data, key=key)[:2])
        self.compiled: Any = None

    def compile(self) -> None:
        """From nothing."""
        jax.clear_caches()
        self.compiled = self.program.lower(*self.given).compile()

    def __call__(self) -> Any:
        return (self.compiled or self.program)(*self.given)


def against(report: Report, name: str, title: str, contenders: Mapping[str, Contender], quick: bool) -> None:
    """A table; the first contender is the gradient."""
    gradients = {way: Gradient(*contender) for way, contender in contenders.items()}
    compiled = side_by_side({way: each.compile for way, each in gradients.items()}, 1 if quick else 3, warm=False)
    found = side_by_side(gradients, 3 if quick else 15)
    first = next(iter(contenders))
    rows = []
    for way, (rule, _, _) in contenders.items():
        seconds, building = found[way].median, compiled[way].median
        ratios = seconds / found[first].median, building / compiled[first].median
        asked = rule.cost(EXAMPLES).presentations / EXAMPLES
        rows.append([way, 1e3 * seconds, ratios[0], building, ratios[1], asked])
    header = ["", "ms", "ratio", "compilation s", "ratio", "presentations"]
    report.table(name, f"{title}; one gradient, {EXAMPLES} examples", header, rows)


def one_hot(key: jax.Array) -> jax.Array:
    return jax.nn.one_hot(jax.random.randint(key, (EXAMPLES,), 0, CLASSES), CLASSES)


def layers(report: Report, quick: bool) -> None:
    make, draw, label = jax.random.split(KEY, 3)
    plain = OscillatorLayers.random((64, 48, 48, CLASSES), key=make)
    labelled = OscillatorLayers.random((64 + CLASSES, 48, 48, CLASSES), key=make)
    data = jax.random.normal(draw, (EXAMPLES, 64)), one_hot(label)
    true = Backpropagation()
    rules: dict[str, LearningRule] = {
        "back-propagation": true,
        "zeroth order, 1 direction": ZerothOrder(true),
        "zeroth order, 10 directions": ZerothOrder(true, directions=10),
        "zeroth order, 1 direction an example": ZerothOrder(true, each_example=True),
        "forward gradient": ForwardGradient(true),
        "CMA-ES, separable, 16 candidates": CMAES(true, separable=True),
        "node perturbation, 1 direction": NodePerturbation(),
        "feedback alignment": FeedbackAlignment(key=KEY),
        "direct feedback alignment": DirectFeedbackAlignment(key=KEY),
        "augmented direct feedback alignment": DirectFeedbackAlignment(key=KEY, slope=lambda a: 1 / jnp.cosh(a)),
        "sign symmetry": SignSymmetry(),
        "Kolen-Pollack": KolenPollack(KEY),
        "local heads": LocalHeads(KEY),
        "forward-forward": ForwardForward(CLASSES),
        "physical local learning": PhysicalLocalLearning(CLASSES),
    }
    with_labels = ("forward-forward", "physical local learning")
    contenders = {way: (rule, labelled if way in with_labels else plain, data) for way, rule in rules.items()}
    against(report, "layers", "Layers of oscillators, 64-48-48-10", contenders, quick)


def in_time(report: Report, quick: bool) -> None:
    for inputs, steps in ((8, 8), (1, 64)):
        title = f"Spintronic network (24, 24), {steps} steps of {inputs} pixel{'s'[: inputs - 1]}"
        against(report, f"time-{steps}", title, spintronic((24, 24), inputs, steps), quick)
    small = spintronic((6, 6), 1, 64, RTRL=RealTimeRecurrentLearning())
    against(report, "time-small", "Spintronic network (6, 6), 64 steps of 1 pixel", small, quick)


def spintronic(sizes: tuple[int, ...], inputs: int, steps: int, **others: LearningRule) -> dict[str, Contender]:
    make, read, draw, label = jax.random.split(KEY, 4)
    network = WithReadout.random(SpintronicNetwork.random(sizes, inputs=inputs, key=make), CLASSES, key=read)
    data = jax.random.uniform(draw, (EXAMPLES, steps, inputs)), one_hot(label)
    rules: dict[str, LearningRule] = {
        "back-propagation": Backpropagation(),
        **others,
        "SnAp-1": SparseApproximation(KEY),
        "e-prop": EligibilityPropagation(KEY),
        "RFLO": RandomFeedbackLocalOnline(KEY),
        "node perturbation, 1 direction": NodePerturbation(),
    }
    return {way: (rule, network, data) for way, rule in rules.items()}


def energy(report: Report, quick: bool) -> None:
    make, draw, wanted = jax.random.split(KEY, 3)
    network = PhaseOscillators.layered((64, 32, CLASSES), key=make)
    shapes = (EXAMPLES, 64), (EXAMPLES, CLASSES)
    data = tuple(jax.random.uniform(k, s, minval=-1.5, maxval=1.5) for k, s in zip((draw, wanted), shapes, strict=True))
    shared: Any = {"objective": phase_distance, "relaxer": BlockSweeps(1e-4, 2000)}
    rules: dict[str, LearningRule] = {
        "implicit differentiation": ImplicitDifferentiation(**shared),
        "equilibrium propagation, one-sided": EquilibriumPropagation(**shared),
        "equilibrium propagation, symmetric": EquilibriumPropagation(**shared, nudging="symmetric"),
        "equilibrium propagation, four-point": EquilibriumPropagation(**shared, nudging="four-point"),
        "holomorphic, 6 points": HolomorphicPropagation(**shared),
        "coupled learning": CoupledLearning(**shared),
        "agnostic": AgnosticPropagation(**shared),
        "frequency propagation": FrequencyPropagation(**shared),
    }
    contenders = {way: (rule, network, data) for way, rule in rules.items()}
    against(report, "energy", "Phase oscillators, 64-32-10, at rest", contenders, quick)


def lattice(report: Report, quick: bool) -> None:
    make, draw, wanted = jax.random.split(KEY, 3)
    topology = Topology.lattice((4, 6), inputs=[0, 6, 12, 18], outputs=[5, 23])
    network = NonlinearLattice.random(topology, duration=20.0, key=make)
    data = jax.random.normal(draw, (EXAMPLES, 4)), jax.random.normal(wanted, (EXAMPLES, 2))
    rules: dict[str, LearningRule] = {
        "back-propagation": Backpropagation(regression),
        "Hamiltonian echo, symmetric": HamiltonianEcho(1e-2, objective=regression),
        "Hamiltonian echo, one-sided": HamiltonianEcho(1e-2, kicks="one-sided", objective=regression),
    }
    contenders = {way: (rule, network, data) for way, rule in rules.items()}
    against(report, "lattice", "Lattice of 4 x 6 nonlinear oscillators, T = 20", contenders, quick)


# --- CMA-ES against evosax --------------------------------------------------------------------------------------------


class Point(eqx.Module):
    """Where a function is looked at."""

    place: jax.Array = eqx.field(metadata=WEIGHT)


class Value(LearningRule):
    """Of a function of one place."""

    function: Any = eqx.field(static=True)

    def gradient(self, substrate: Point, inputs: Any, targets: Any, *, key: Any) -> Any:
        raise NotImplementedError

    def metrics(self, substrate: Point, inputs: Any, targets: Any, *, key: Any) -> dict[str, jax.Array]:
        return {"loss": self.function(substrate.place)}


def ellipsoid(place: jax.Array) -> jax.Array:
    """Axes that differ a thousandfold in curvature."""
    return jnp.sum(1000 ** jnp.linspace(0, 1, len(place)) * place**2)


def rosenbrock(place: jax.Array) -> jax.Array:
    """A curved valley."""
    return jnp.sum(100 * (place[1:] - place[:-1] ** 2) ** 2 + (1 - place[:-1]) ** 2)


def evolution(report: Report, quick: bool) -> None:
    repeats, generations = (3, 200) if quick else (9, 1000)
    spread, keys = 0.3, jax.random.split(KEY, 9)
    for separable, size, population in ((False, 100, 20), (True, 1000, 24)):
        rows = []
        start = jnp.full(size, 0.5)
        for function in (ellipsoid, rosenbrock):
            ways: dict[str, Any] = {"morphax": ours(function, population, spread, separable, generations)}
            for negative in (False,) if separable else (False, True):
                suffix = "" if separable else f", {'also negative' if negative else 'positive'} weights"
                ways[f"evosax{suffix}"] = theirs(function, population, spread, separable, generations, negative)
            times = side_by_side({way: partial(run, start, KEY) for way, run in ways.items()}, repeats)
            least = min(found.median for way, found in times.items() if way != "morphax")
            for way, run in ways.items():
                value = float(np.median([run(start, key) for key in keys]))
                each = times[way].each(generations).median
                rows.append([f"{function.__name__}: {way}", 1e3 * each, times[way].median / least, value])
        kind = "separable" if separable else "full"
        title = f"CMA-ES, {kind}, {size:,} dimensions, {population} candidates, {generations:,} generations"
        header = ["", "ms a generation", "of the faster evosax", "value in the end"]
        report.table(f"cma-{kind}", title, header, rows)


def ours(function: Any, population: int, spread: float, separable: bool, generations: int) -> Any:
    rule = CMAES(Value(function), population=population, spread=spread, separable=separable)

    @jax.jit
    def run(start: jax.Array, key: jax.Array) -> jax.Array:
        def generation(carry: Any, key: jax.Array) -> Any:
            place, memory = carry
            _, step, memory = rule.gradient(Point(place), jnp.zeros(1), jnp.zeros(1), key=key, memory=memory)
            return (place - step.place, memory), None

        first = start, rule.memory(Point(start), key=key)
        (place, _), _ = jax.lax.scan(generation, first, jax.random.split(key, generations))
        return function(place)

    return run


def theirs(function: Any, population: int, spread: float, separable: bool, generations: int, negative: bool) -> Any:
    from evosax.algorithms import CMA_ES, Sep_CMA_ES

    @jax.jit
    def run(start: jax.Array, key: jax.Array) -> jax.Array:
        strategy = (Sep_CMA_ES if separable else CMA_ES)(population_size=population, solution=start)
        strategy.use_negative_weights = negative
        parameters = strategy.default_params.replace(std_init=jnp.asarray(spread))

        def generation(state: Any, key: jax.Array) -> Any:
            ask, tell = jax.random.split(key)
            places, state = strategy.ask(ask, state, parameters)
            return strategy.tell(tell, places, jax.vmap(function)(places), state, parameters)[0], None

        state = strategy.init(key, start, parameters)
        state, _ = jax.lax.scan(generation, state, jax.random.split(key, generations))
        return function(strategy.get_mean(state))

    return run


# --- E-prop against braintrace ----------------------------------------------------------------------------------------


def online(report: Report, quick: bool) -> None:
    rows = []
    for neurons in (32, 128):
        make, read, draw, label = jax.random.split(KEY, 4)
        network = ContinuousTimeRecurrentNetwork.random((neurons,), intralayer_density=1.0, order=1, key=make)
        # Without synapses of neurons with themselves the two definitions, and SnAp-1, are the same.
        bare = jnp.where(jnp.eye(neurons, dtype=bool), 0.0, network.connections.weights)
        network = eqx.tree_at(lambda n: n.connections.weights, network, bare)
        device = WithReadout.random(network, CLASSES, key=read)
        data = jax.random.normal(draw, (EXAMPLES, 64, 1)), one_hot(label)
        calls: dict[str, Call] = {
            "morphax, e-prop": Gradient(EligibilityPropagation(KEY), device, data),
            "braintrace, e-prop": braintrace_gradient(device, data),
            "morphax, back-propagation": Gradient(Backpropagation(), device, data),
        }
        apart = difference(calls["morphax, e-prop"]()[1], calls["braintrace, e-prop"](), network)
        assert apart < 1e-4, apart
        print(f"\n{neurons} neurons: gradients of both e-props apart by {apart:.0e}")
        found = side_by_side(calls, 3 if quick else 15)
        theirs = found["braintrace, e-prop"].median
        rows += [[f"{neurons}: {way}", 1e3 * t.median, t.median / theirs] for way, t in found.items()]
    title = f"One layer of leaky tanh neurons, 64 steps, {EXAMPLES} examples; one gradient"
    report.table("e-prop", title, ["neurons", "ms", "of braintrace"], rows)


def braintrace_gradient(device: Any, data: tuple[Any, Any]) -> Call:
    """The same network as a cell of braintrace; gives what a step of its gradient is called with."""
    import brainstate
    import braintrace

    network, (inputs, targets) = device.substrate, data
    neurons = network.connections.neurons
    decay = jnp.exp(-network.damping_rate * network.interval)
    gain = network.held(jnp.zeros(neurons), network.amplification, network.interval)
    weights = jnp.concatenate([network.connections.input_weights.T, network.connections.weights.T])

    class Cell(brainstate.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wiring = braintrace.nn.Linear(*weights.shape, w_init=weights, b_init=network.connections.bias)

        def init_state(self, batch_size: int | None = None, **_: Any) -> None:
            self.state = brainstate.HiddenState(jnp.zeros((batch_size, neurons)))

        def update(self, drive: jax.Array) -> jax.Array:
            entering = jnp.concatenate([drive, jnp.tanh(self.state.value)], axis=-1)
            self.state.value = decay * self.state.value + gain * self.wiring(entering)
            return jnp.tanh(self.state.value)

    cell = Cell()
    readout = brainstate.nn.Linear(neurons, CLASSES, w_init=device.weights.T, b_init=device.bias)
    drives = jnp.swapaxes(inputs, 0, 1)
    learner = braintrace.compile(cell, braintrace.EProp, drives[0], batch_size=EXAMPLES)
    trained = {**learner.param_states, ("readout",): readout.weight}
    last = jnp.zeros(len(drives)).at[-1].set(1.0)

    def loss(drive: jax.Array) -> jax.Array:
        return -jnp.mean(jnp.sum(jax.nn.log_softmax(readout(learner(drive))) * targets, axis=-1))

    @brainstate.transform.jit
    def run() -> Any:
        cell.state.value = jnp.zeros_like(cell.state.value)
        learner.reset_state(EXAMPLES)
        return learner.etrace_grad(drives, step_fn=loss, mask=last, reduction="sum", weights=trained)

    return run


def difference(ours: Any, theirs: Any, network: Any) -> float:
    """The largest relative one, over weights, input weights, biases, and the readout."""
    (wiring,) = (found for name, found in theirs.items() if name != ("readout",))
    inputs, found = network.channels, ours.substrate.connections
    # What is no synapse learns nothing here.
    recurrent = jnp.where(network.connections.mask, wiring["weight"][inputs:].T, 0.0)
    pairs = [
        (found.weights, recurrent),
        (found.input_weights, wiring["weight"][:inputs].T * network.connections.input_mask),
        (found.bias, wiring["bias"]),
        (ours.weights, theirs[("readout",)]["weight"].T),
        (ours.bias, theirs[("readout",)]["bias"]),
    ]
    return max(float(jnp.linalg.norm(a - b) / jnp.linalg.norm(b)) for a, b in pairs)


PARTS: dict[str, Callable[[Report, bool], None]] = {
    "layers": layers,
    "time": in_time,
    "energy": energy,
    "lattice": lattice,
    "evosax": evolution,
    "braintrace": online,
}


if __name__ == "__main__":
    main()
