"""Rules that contrast equilibria: what each tends to, how fast, and what it refuses."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree
from tests.learning.test_equilibrium import TIGHT, flat, gradient_of, phases

from morphax import HopfieldNetwork, WithReadout
from morphax.dynamics.relaxation import BlockSweeps
from morphax.learning.contrastive import (
    AgnosticPropagation,
    CoupledLearning,
    FrequencyPropagation,
    HolomorphicPropagation,
)
from morphax.learning.equilibrium import EquilibriumPropagation, ImplicitDifferentiation, Nudging
from morphax.learning.train import train
from morphax.substrates.energy import phase_distance

KEY = jax.random.key(0)
RULES = {
    "coupled": CoupledLearning(),
    "coupled, both sides": CoupledLearning(nudging="symmetric"),
    "holomorphic": HolomorphicPropagation(phase_distance, points=4),
    "frequency": FrequencyPropagation(phase_distance, period=40.0),
    "agnostic": AgnosticPropagation(phase_distance, nudging="symmetric"),
}


def exact(network, inputs, targets, cost) -> np.ndarray:
    return flat(gradient_of(ImplicitDifferentiation(cost, TIGHT), network, inputs, targets)[1])


def error(rule, network, inputs, targets, cost) -> float:
    """Relative to the exact gradient."""
    metrics, gradient = gradient_of(rule, network, inputs, targets)
    assert metrics["unconverged"] == 0
    right = exact(network, inputs, targets, cost)
    return float(np.linalg.norm(flat(gradient) - right) / np.linalg.norm(right))


@pytest.mark.slow
def test_four_nudges_are_far_better_than_two(double):
    network, inputs, targets, cost = phases()

    def of(nudging: Nudging, strength: float) -> float:
        rule = EquilibriumPropagation(cost, TIGHT, strength=jnp.asarray(strength), nudging=nudging)
        return error(rule, network, inputs, targets, cost)

    for strength in (0.1, 0.01):
        assert of("four-point", strength) < of("symmetric", strength) / 20


@pytest.mark.slow
@pytest.mark.parametrize("points", [4, 6])
def test_the_error_of_a_complex_circle_falls_with_a_power_of_its_points(points, double):
    network, inputs, targets, _ = phases()
    large, small = (
        error(
            HolomorphicPropagation(
                phase_distance, TIGHT, strength=jnp.asarray(strength), points=points, tolerance=1e-9
            ),
            network,
            inputs,
            targets,
            phase_distance,
        )
        for strength in (0.1, 0.05)
    )
    assert large < (1e-3 if points == 6 else 1e-2)
    assert large / small == pytest.approx(2**points, rel=0.2)


@pytest.mark.slow
def test_held_outputs_teach_the_error_weighted_by_their_stiffness(double):
    network, inputs, targets, _ = phases()
    amounts = (1e-2, 1e-3)
    rules = [CoupledLearning(None, TIGHT, amount=jnp.asarray(amount), nudging="symmetric") for amount in amounts]
    gradients = [flat(gradient_of(rule, network, inputs, targets)[1]) for rule in rules]

    @jax.jit
    def pulls(drive, target):
        """K (o - t): the Schur complement of the Hessian on the outputs, times the error."""
        state, back = ravel_pytree(network.relax(drive, relaxer=TIGHT).state)
        hessian = jax.hessian(lambda flat: network.energy(back(flat), drive))(state)
        places = jax.vmap(lambda p: ravel_pytree(p)[0])(network.clamp.places)
        outputs = network.observe(back(state))
        return jnp.linalg.solve(places @ jnp.linalg.solve(hessian, places.T), outputs - target)

    weighted = jax.vmap(pulls)(inputs, targets)
    right = exact(network, inputs, weighted, lambda output, pull: output * pull)
    errors = [np.linalg.norm(gradient - right) / np.linalg.norm(right) for gradient in gradients]
    assert errors[1] < 1e-5
    assert errors[0] / errors[1] == pytest.approx(100, rel=0.1)


@pytest.mark.slow
def test_couplings_hear_the_gradient_at_the_nudge_s_frequency(double):
    network, inputs, targets, _ = phases()

    def of(period: float, strength: float) -> float:
        rule = FrequencyPropagation(phase_distance, TIGHT, strength=jnp.asarray(strength), period=period)
        return error(rule, network, inputs, targets, phase_distance)

    slow, fast = of(400.0, 1e-3), of(200.0, 1e-3)
    assert slow < 5e-3
    assert fast / slow == pytest.approx(4, rel=0.1)


@pytest.mark.slow
def test_weights_on_springs_move_along_the_gradient(double):
    network, inputs, targets, _ = phases()

    def of(compliance: float) -> float:
        rule = AgnosticPropagation(
            phase_distance, TIGHT, strength=1e-3, nudging="symmetric", compliance=compliance, rounds=12
        )
        return error(rule, network, inputs, targets, phase_distance)

    large, small = of(2e-3), of(1e-3)
    assert small < 1e-2
    assert large / small == pytest.approx(2, rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_they_teach(rule):
    network, inputs, targets, _ = phases()
    rule = eqx.tree_at(lambda r: r.relaxer, rule, BlockSweeps(1e-5), is_leaf=lambda x: x is None)
    history = train(network, rule, (inputs, targets), optax.adam(0.05), 20, key=KEY, chunk=20).history
    loss = history.metric("loss")
    assert loss[-1] < 0.8 * loss[0]
    assert history.presentations[-1] == 20 * rule.cost(len(inputs)).presentations


@pytest.mark.slow
def test_what_cannot_be_held_or_continued_is_refused():
    network, inputs, targets, _ = phases()
    read = WithReadout.random(network, 3, key=KEY)
    with pytest.raises(ValueError, match="nothing can hold them"):
        CoupledLearning().check(read, (inputs, targets))
    kinked = partial(HolomorphicPropagation().check, data=(inputs, targets))
    with pytest.raises(ValueError, match="is not analytic"):
        kinked(HopfieldNetwork.random((4, 6, 3), key=KEY))
    with pytest.raises(ValueError, match="is not analytic"):
        HolomorphicPropagation(lambda o, t: jnp.abs(o - t)).check(network, (inputs, targets))
    HolomorphicPropagation(phase_distance).check(network, (inputs, targets))


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: CoupledLearning(amount=1.5), "amount"),
        (lambda: HolomorphicPropagation(points=1), "points"),
        (lambda: FrequencyPropagation(readings=2), "readings"),
        (lambda: FrequencyPropagation(period=0.0), "period"),
        (lambda: AgnosticPropagation(compliance=0.0), "compliance"),
    ],
)
def test_numbers_out_of_range_are_refused(make, match):
    with pytest.raises(ValueError, match=match):
        make()
