"""Descents to distributions and gates, and what spiking neurons are trained for."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from morphax.learning.backprop import Backpropagation
from morphax.learning.minimise import minimise
from morphax.learning.objectives import CategoricalLoss, DensityMatrixLoss
from morphax.learning.optimisers import split_rows
from morphax.learning.quantum_states import (
    after_gate,
    apply_gates,
    judge_estimate,
    learn_distribution,
    learn_gate,
    realised,
)
from morphax.learning.train import train
from morphax.quantum.correlation_map import coefficients, configurations, density_matrix
from morphax.quantum.realisability import nearest_realised
from morphax.quantum.states import CNOT, HADAMARD, fidelity, ghz_state, on_qubit, pure_state, random_density_matrix
from morphax.substrates.spiking import SpikingNetwork

pytestmark = pytest.mark.usefixtures("double")
KEY = jax.random.key(0)
STATES = np.array([np.asarray(random_density_matrix(2, key=jax.random.key(k))) for k in range(4)])


def wave_functions(number: int) -> jax.Array:
    return jax.random.normal(KEY, (number, 64))


def descend(states, **rest):
    run = jax.jit(jax.vmap(lambda chi, q: learn_distribution(chi, q, optax.sgd(30.0), **rest)))
    return run(jax.vmap(coefficients)(jnp.asarray(states)), wave_functions(len(states)))


def test_descent_finds_distributions_and_stops_at_the_tolerance():
    found = descend(STATES)
    assert found.converged.all()
    assert len(set(found.iterations.tolist())) > 1
    for rho, q in zip(STATES, found.argument, strict=True):
        np.testing.assert_allclose(density_matrix(realised(q)), rho, atol=1e-5)


def test_where_there_is_no_distribution_descent_ends_at_the_exact_minimum():
    rho = ghz_state(2, 1 / 8)
    found = descend(np.array([rho]), iterations=4000)
    assert not found.converged[0]
    assert found.loss[0] == pytest.approx(nearest_realised(rho).loss, rel=1e-3)


@pytest.mark.slow
def test_gates_are_learned():
    q = descend(STATES).argument
    for unitary in (CNOT, on_qubit(HADAMARD, 0, 2)):
        run = jax.jit(jax.vmap(lambda q, U=unitary: learn_gate(q, U, optax.adam(0.01))))
        found = run(q)
        assert found.converged.all()
        for rho, before, M in zip(STATES, q, found.argument, strict=True):
            np.testing.assert_allclose(
                density_matrix(after_gate(before, unitary)), unitary @ rho @ unitary.conj().T, atol=2e-5
            )
            np.testing.assert_allclose(
                density_matrix(realised(M @ before)), unitary @ rho @ unitary.conj().T, atol=4e-5
            )


def test_a_sequence_of_gates_is_carried_out():
    q = descend(STATES[:1]).argument[0]
    gates = [CNOT, on_qubit(HADAMARD, 0, 2), CNOT]
    found = jax.jit(lambda q: apply_gates(q, gates, optax.adam(0.01)))(q)
    whole = gates[2] @ gates[1] @ gates[0]
    assert found.converged.all()
    np.testing.assert_allclose(
        density_matrix(realised(found.argument[-1])), whole @ STATES[0] @ whole.conj().T, atol=1e-4
    )
    with pytest.raises(ValueError, match=r"gates\[1\] times its adjoint"):
        apply_gates(q, [CNOT, 2 * CNOT], optax.adam(0.01))


def test_minimise_says_when_it_did_not_arrive():
    found = minimise(lambda x: jnp.sum(x**2) + 1.0, jnp.ones(2), optax.sgd(0.1), iterations=7)
    assert (int(found.iterations), bool(found.converged)) == (7, False)
    nan = minimise(lambda x: jnp.log(x), jnp.array(-1.0), optax.sgd(0.1))
    assert (int(nan.iterations), bool(nan.converged)) == (0, False)
    done = minimise(lambda x: jnp.sum(x**2), jnp.zeros(2), optax.sgd(0.1))
    assert (int(done.iterations), bool(done.converged)) == (0, True)
    with pytest.raises(ValueError, match="tolerance is -1"):
        minimise(lambda x: x, jnp.array(1.0), optax.sgd(0.1), tolerance=-1.0)


@pytest.mark.slow
def test_losses_of_recorded_activities():
    # Each configuration once: the maximally mixed state, and the uniform distribution.
    z = (configurations(6) + 1) / 2
    outputs = jnp.asarray(z.reshape(4, 16, 6))
    chi = jnp.broadcast_to(coefficients(np.eye(4) / 4), (4, 4, 4))
    metrics = DensityMatrixLoss()(outputs, chi)
    assert float(metrics["loss"]) == pytest.approx(0, abs=1e-20)
    bell = jnp.broadcast_to(coefficients(ghz_state(2)), (4, 4, 4))
    assert float(DensityMatrixLoss()(outputs, bell)["loss"]) == pytest.approx(3 / 4)
    three = jnp.asarray(((configurations(9) + 1) / 2).reshape(2, 16, 16 * 9))
    ghz = jnp.broadcast_to(coefficients(ghz_state(3)), (2, 4, 4, 4))
    assert float(DensityMatrixLoss()(three, ghz)["loss"]) == pytest.approx(7 / 8)
    uniform = jnp.full((4, 64), 1 / 64)
    assert float(CategoricalLoss(6)(outputs, uniform)["loss"]) == pytest.approx(0, abs=1e-9)
    np.testing.assert_allclose(CategoricalLoss(6)(outputs, uniform)["distribution"], 1 / 64)


def test_divergence_of_a_known_distribution_and_the_order_of_its_states():
    z = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])[None]
    target = jnp.array([[0.1, 0.2, 0.3, 0.4]])
    metrics = CategoricalLoss(2)(z, target)
    np.testing.assert_allclose(metrics["distribution"], [0, 0.25, 0.5, 0.25])
    expected = 0.25 * np.log(0.25 / 0.2) + 0.5 * np.log(0.5 / 0.3) + 0.25 * np.log(0.25 / 0.4)
    assert float(metrics["loss"]) == pytest.approx(expected, abs=1e-9)
    assert np.isfinite(jax.grad(lambda z: CategoricalLoss(2)(z, target)["loss"])(z)).all()


def test_burn_in_is_left_out_of_every_chain():
    z = np.zeros((2, 3, 6 * 2))
    z[:, 0] = 1.0
    chi = jnp.broadcast_to(coefficients(np.eye(4) / 4), (2, 4, 4))
    kept = DensityMatrixLoss(burn_in=2)(jnp.asarray(z), chi)["coefficients"]
    np.testing.assert_allclose(kept[1:, 0], -1)
    with pytest.raises(ValueError, match="a chain has 6 time steps"):
        DensityMatrixLoss(burn_in=6)(jnp.asarray(z), chi)
    with pytest.raises(ValueError, match="12 activities"):
        CategoricalLoss(5)(jnp.asarray(z), jnp.ones((2, 32)))


def test_a_frozen_network_shows_why_estimates_are_projected():
    # Neurons that never change make a matrix far from positive, whose raw fidelity with psi_+ is 1.
    bell = ghz_state(2)
    best = max(configurations(6), key=lambda s: np.sum(np.outer(s[:3], s[3:]) * np.asarray(coefficients(bell))[1:, 1:]))
    frozen = np.asarray(density_matrix(jnp.asarray(np.outer([1, *best[:3]], [1, *best[3:]]))))
    estimate = judge_estimate(frozen, bell)
    assert estimate.raw_fidelity == pytest.approx(1)
    assert estimate.fidelity < 0.75
    assert estimate.smallest_eigenvalue < -0.2
    good = judge_estimate(STATES, STATES)
    np.testing.assert_allclose(good.fidelity, 1, atol=2e-6)
    np.testing.assert_allclose(good.raw_fidelity, 1, atol=1e-5)
    np.testing.assert_allclose(good.distance, 0, atol=1e-6)
    one = judge_estimate(STATES[0], pure_state([1, 0, 0, 0]))
    assert one.raw_fidelity == pytest.approx(fidelity(STATES[0], pure_state([1, 0, 0, 0])))


@pytest.mark.slow
def test_spiking_neurons_learn_a_density_matrix():
    rho = STATES[1]
    net = SpikingNetwork.random(12, 24, key=KEY, input_rate=0.7, input_mean=0.1, steps_per_input=25, visible=6)
    chi = coefficients(rho)
    data = (jnp.ones((8, 5)), jnp.broadcast_to(chi, (8, 4, 4)))
    rule = Backpropagation(DensityMatrixLoss(20), observe="every")
    optimiser = split_rows(optax.adam(0.02), optax.adam(0.002))
    history = train(net, rule, data, optimiser, 60, key=KEY).history
    first, last = (np.mean([row["loss"] for row in rows]) for rows in (history[:3], history[-10:]))
    assert last < 0.2 * first


def test_split_rows_descends_apart_in_means_and_deviations():
    W = jax.random.normal(KEY, (3, 5))
    gradient = jax.random.normal(jax.random.key(1), (3, 5))
    # With the same plain descent in both, deviations move as usual and means n times as far.
    optimiser = split_rows(optax.sgd(0.1), optax.sgd(0.1))
    change, _ = optimiser.update(gradient, optimiser.init(W), W)
    mean = gradient.mean(1, keepdims=True)
    np.testing.assert_allclose(np.asarray(change), -0.1 * (gradient - mean) - 0.1 * 5 * mean, atol=1e-12)
    # Adam scales every element, but deviations stay deviations.
    fixed = split_rows(optax.adam(0.1), optax.set_to_zero())
    change, _ = fixed.update(gradient, fixed.init(W), W)
    np.testing.assert_allclose(np.asarray(change).mean(1), 0, atol=1e-12)


def test_what_does_not_fit_is_refused():
    q, rate = jnp.ones(64), optax.sgd(0.1)
    for call, message in (
        (lambda: learn_gate(q, 2 * CNOT, rate), "unitary times its adjoint differs from 1 by 3"),
        (lambda: learn_gate(q, np.eye(8), rate), r"amplitudes has shape \(64,\); it must be \(512,\)"),
        (lambda: learn_gate(q, np.eye(3), rate), "power of two"),
        (lambda: learn_distribution(jnp.ones((4, 4)), jnp.ones(8), rate), r"start has shape \(8,\)"),
        (lambda: learn_distribution(jnp.ones((2, 2)), q, rate), r"target has shape \(2, 2\)"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
