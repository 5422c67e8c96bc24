"""What learning rules promise."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from morphax.learning.rule import LearningRule, described, remembered
from morphax.learning.train import train
from morphax.pytrees import Role, select
from morphax.substrates.base import Substrate
from morphax.substrates.energy import EnergySubstrate
from morphax.substrates.hopfield import HopfieldNetwork
from morphax.substrates.layered import OscillatorLayers
from morphax.substrates.phase_oscillators import PhaseOscillators
from morphax.substrates.quantized import QuantizedPerceptron
from morphax.substrates.reservoirs import EchoStateNetwork
from morphax.substrates.reversible import NonlinearLattice
from morphax.substrates.spintronic import SpintronicNetwork
from morphax.substrates.topology import Topology
from morphax.substrates.wrappers import WithReadout, fitted
from morphax.tasks.base import Task
from morphax.testing._promises import (
    POINTS,
    BrokenPromiseError,
    Promise,
    at,
    cast,
    check_all,
    check_slope,
    equal,
    short,
    that,
    words,
)

EXAMPLES = 4
# Made once: trainings of equal shapes share what is compiled only where the optimiser is the same one.
SMALL_STEPS, WHOLE_STEPS = optax.adam(1e-2), optax.sgd(1.0)


def check_rule(rule: LearningRule) -> None:
    """Try whether a learning rule keeps what the library promises of every one.

    On a reservoir with a readout, a network with weights, an energy substrate, layers, a lattice, and a random one:
    each is refused by `check`, in one line, or gives a finite loss and a gradient of the substrate's structure, the
    same for the same key, and asks of the device what it announces (`cost`); two steps of `train` change what is
    trained and nothing else. Data that do not fit are refused. Where the rule says that its gradient is exact, it is
    that of finite differences.

    **Raises:** `BrokenPromiseError` with one sentence for each broken promise.
    """
    check_all(rule_promises(rule), f"a {type(rule).__name__}")


def rule_promises(rule: LearningRule) -> list[Promise]:
    """The promises that `check_rule` tries, one by one.

    >>> from morphax import Backpropagation
    >>> from morphax.testing import rule_promises
    >>> promise = rule_promises(Backpropagation())[0]
    >>> promise.name
    'it learns or refuses: a reservoir with a readout'
    >>> promise.check()
    """
    if not isinstance(rule, LearningRule):
        raise BrokenPromiseError(
            f"{rule!r:.80} is no LearningRule: derive its class from morphax.LearningRule and make one"
        )
    return [
        Promise(f"{words(attempt)}: {name}", lambda a=attempt, s=substrate, t=task: a(rule.suited(t.kind), s, t))
        for name, (substrate, task) in _sample().items()
        for attempt in (_it_learns_or_refuses, _it_refuses_data_that_do_not_fit)
    ]


def decide(rule: LearningRule, substrate: Substrate, task: Task, trained: tuple[Role, ...] = ("weight",)) -> str | None:
    """Whether a rule admits a substrate with a task, without compiling: None, or the line by which it refuses.

    Gradient and metrics of what is admitted are evaluated abstractly.

    **Raises:** `BrokenPromiseError` where the refusal is no `ValueError` of one line, and where what is admitted cannot
    be evaluated, gives no scalar loss, or a gradient of another structure.
    """
    rule, (inputs, targets) = rule.suited(task.kind).for_roles(*trained), task.train
    cell = f"{type(rule).__name__} on {described(substrate)}"
    try:
        rule.check(substrate, (inputs, targets), trained)
    except ValueError as error:
        that(len(str(error)) > 30 and "\n" not in str(error), f"{cell}: the refusal must be one line: {error}")
        return str(error)
    except Exception as error:
        raise BrokenPromiseError(
            f"{cell}: check must refuse by a ValueError, not {type(error).__name__}: {short(error)}"
        ) from error
    _check_evaluation(rule, substrate, inputs, targets, trained, cell)
    return None


def check_training(
    rule: LearningRule, substrate: Substrate, task: Task, trained: tuple[Role, ...] = ("weight",), steps: int = 2
) -> None:
    """Train some steps: finite metrics, changed leaves of the roles that are trained, nothing else changed.

    **Raises:** `BrokenPromiseError` where it does not.
    """
    cell = f"{type(rule).__name__} on {described(substrate)}"
    optimiser, weights = SMALL_STEPS, select(substrate, *trained)[0]
    try:
        rule.check_optimiser(optimiser, weights)
    except ValueError:
        optimiser = WHOLE_STEPS
    done = train(substrate, rule, task, optimiser, steps, key=jax.random.key(0), watch={}, trained=trained, chunk=steps)
    for row in done.history:
        numbers = [np.asarray(value, float) for value in row.values() if not isinstance(value, dict)]
        that(all(np.isfinite(n).all() for n in numbers), f"{cell}: a metric is not finite: {row}")
    (ours, rest), (theirs, kept) = select(substrate, *trained), select(done.last, *trained)
    that(not equal(ours, theirs), f"{cell}: {steps} steps change nothing of what is trained")
    that(equal(rest, kept), f"{cell}: a training changes what is not trained")


def _check_evaluation(
    rule: LearningRule, substrate: Substrate, inputs: Array, targets: Array, trained: tuple[Role, ...], cell: str
) -> None:
    key = jax.random.key(0)
    try:
        memory = rule.memory(substrate, key=key)
        metrics, gradient, *kept = eqx.filter_eval_shape(
            rule.gradient, substrate, inputs, targets, key=key, **remembered(memory)
        )
        judged = eqx.filter_eval_shape(rule.metrics, substrate, inputs, targets, key=key)
    except Exception as error:
        raise BrokenPromiseError(
            f"{cell}: check admits it, but it fails with {type(error).__name__}: {short(error)}; check must refuse it"
        ) from error
    for name, found in (("gradient", metrics), ("metrics", judged)):
        that(
            isinstance(found, dict) and "loss" in found and found["loss"].shape == (),
            f'{cell}: {name} must give metrics with a scalar "loss", and gives {sorted(found)}',
        )
    for after in kept:
        that(
            jax.tree.map(jnp.shape, memory) == jax.tree.map(jnp.shape, after),
            f"{cell}: what gradient remembers must be shaped as what memory gives",
        )
    wanted, _ = select(substrate, *trained)
    for path, leaf in jax.tree_util.tree_leaves_with_path(wanted):
        slope = at(gradient, path)
        that(
            slope is not None and slope.shape == leaf.shape,
            f"{cell}: the gradient has nothing of shape {leaf.shape} at {jax.tree_util.keystr(path)}; it must have the "
            "substrate's own structure",
        )


def _it_learns_or_refuses(rule: LearningRule, substrate: Substrate, task: Task) -> None:
    if decide(rule, substrate, task) is not None:
        return
    check_training(rule, substrate, task)
    (inputs, targets), key = task.train, jax.random.key(1)
    step = eqx.filter_jit(rule.gradient)
    one, other = (step(substrate, inputs, targets, key=key) for _ in range(2))
    that(equal(one, other), "the same key gives another gradient: draw all chance from `key`")
    announced = rule.cost(len(jax.tree.leaves(inputs)[0]))
    for name, number in announced._asdict().items():
        said = one[0].get(name, number)
        that(said == number, f"gradient says {said} {name}, cost {number}: both must be what is asked of the device")
    if rule.exact and substrate.exact_derivatives:
        _check_exact(rule, substrate, task)


def _it_refuses_data_that_do_not_fit(rule: LearningRule, substrate: Substrate, task: Task) -> None:
    inputs, targets = task.train
    if not rule.fits(substrate):
        return
    bad = {
        "fewer targets than inputs": (jnp.concatenate([inputs, inputs]), targets),
        "NaN among the targets": (inputs, targets.at[(0,) * targets.ndim].set(jnp.nan)),
        "NaN among the inputs": (inputs.at[(0,) * inputs.ndim].set(jnp.nan), targets),
        "one channel too many": (jnp.concatenate([inputs, inputs], axis=-1), targets),
    }
    for name, data in bad.items():
        try:
            rule.check(substrate, data)
        except ValueError as error:
            that("\n" not in str(error), f"check must refuse {name} in one line")
        else:
            raise BrokenPromiseError(f"check admits {name}: let it end with super().check(substrate, data, trained)")


def _check_exact(rule: LearningRule, substrate: Substrate, task: Task) -> None:
    """The gradient against finite differences, in double precision."""
    with jax.enable_x64(True):
        precise, key = cast(substrate, jnp.float64), jax.random.key(7)
        inputs, targets = (x.astype(jnp.float64) for x in task.train)
        moving, rest = select(precise, "weight")
        gradient = eqx.filter_jit(rule.gradient)(precise, inputs, targets, key=key)[1]
        loss = eqx.filter_jit(lambda m: rule.gradient(eqx.combine(m, rest), inputs, targets, key=key)[0]["loss"])
        slopes = jax.tree_util.tree_map_with_path(lambda path, _: at(gradient, path), moving)
        check_slope(loss, moving, slopes, "the gradient", rests=isinstance(substrate, EnergySubstrate))


def _sample() -> dict[str, tuple[Substrate, Task]]:
    """One substrate of each kind, with a task that fits."""
    keys = iter(jax.random.split(jax.random.key(3), 12))
    stream = _task((12,), (12, 1), "stream")
    digits = _task((EXAMPLES, 3), (EXAMPLES, 2), "inputs", labels=True)
    vectors = _task((EXAMPLES, 2), (EXAMPLES, 2), "inputs")
    sequences = _task((EXAMPLES, POINTS), (EXAMPLES, 2), "sequences", labels=True)
    lattice = Topology.lattice((2, 2), inputs=[0, 2], outputs=[1, 3])
    return {
        "a reservoir with a readout": (
            fitted(EchoStateNetwork.random(6, key=next(keys)), stream, key=next(keys)),
            stream,
        ),
        "a bare reservoir": (EchoStateNetwork.random(1, key=next(keys)), stream),
        "a network with weights": (
            WithReadout.random(SpintronicNetwork.random((4, 3), key=next(keys)), 2, key=next(keys)),
            sequences,
        ),
        "an energy substrate": (_activated(HopfieldNetwork.random((2, 4, 2), key=next(keys))), vectors),
        "an energy substrate with a readout": (
            fitted(PhaseOscillators.layered((2, 4, 1), key=next(keys)), vectors, key=next(keys)),
            vectors,
        ),
        "layers": (OscillatorLayers.random((3, 4, 2), key=next(keys)), digits),
        "layers with channels for labels": (OscillatorLayers.random((5, 4, 2), key=next(keys)), digits),
        "a lattice": (NonlinearLattice.random(lattice, duration=2.0, key=next(keys)), vectors),
        "a random substrate": (QuantizedPerceptron.random((3, 4, 4, 2), width=0.5, key=next(keys)), digits),
    }


def _activated(network: HopfieldNetwork) -> HopfieldNetwork:
    """With biases that keep its neurons between silence and saturation, where they learn."""
    return HopfieldNetwork([0.3 * matrix for matrix in network.weights], [0.4 + bias for bias in network.biases])


def _task(inputs: tuple[int, ...], targets: tuple[int, ...], arrangement: Any, labels: bool = False) -> Task:
    first, second = jax.random.split(jax.random.key(5))
    x = jax.random.uniform(first, inputs)
    y = (
        jax.nn.one_hot(jnp.arange(targets[0]) % targets[1], targets[1])
        if labels
        else jax.random.uniform(second, targets)
    )
    return Task(x, y, x, y, kind="classification" if labels else "regression", arrangement=arrangement)
