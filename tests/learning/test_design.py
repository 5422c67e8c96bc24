"""What a reservoir could achieve, and its gradient through the dynamics."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from morphax import WEIGHT, JosephsonMixer, evolve, fit_readout
from morphax.learning.design import ReadoutDesign, readout_error
from morphax.tasks import waveforms

pytestmark = pytest.mark.usefixtures("double")


@pytest.mark.slow
def test_readout_error_is_what_the_readout_achieves():
    features = jnp.asarray(np.random.default_rng(0).dirichlet(np.ones(6), size=200))[:, :5]
    targets = features @ jnp.arange(5.0)[:, None] ** 2 + jnp.sin(jnp.arange(200.0))[:, None]
    exact = readout_error(features, targets, 1e15)
    assert np.isclose(exact, jnp.mean((fit_readout(features, targets)(features) - targets) ** 2), rtol=1e-9)


@pytest.mark.slow
def test_readout_error_predicts_the_error_of_counted_photons():
    features = jnp.asarray(np.random.default_rng(0).dirichlet(np.ones(6), size=3000))[:, :5]
    targets = features[:, :1] - features[:, 1:2]
    shots = 200
    counted = jax.vmap(lambda key, p: jax.random.multinomial(key, 1.0 * shots, jnp.append(p, 1 - p.sum()))[:5] / shots)(
        jax.random.split(jax.random.key(0), 3000), features
    )
    achieved = jnp.mean((fit_readout(counted, targets)(counted) - targets) ** 2)
    # 3000 squared errors of roughly normal variables fix their mean to sqrt(2 / 3000) = 2.6 %.
    assert np.isclose(readout_error(features, targets, shots), achieved, rtol=0.1)


class Tuned(eqx.Module):
    log_damping: jax.Array = eqx.field(metadata=WEIGHT)

    def substrate(self):
        return JosephsonMixer.two_mode(damping_rate=jnp.exp(self.log_damping), measured=4)


@pytest.mark.slow
def test_a_stack_of_designs_has_independent_gradients():
    task = waveforms(80, 80, key=jax.random.key(0))
    stack = Tuned(jnp.log(jnp.array([[0.017, 0.021], [0.005, 0.03]])))
    rule = ReadoutDesign(shots=1e4)
    metrics, gradient = rule.gradient(stack, task.train_inputs, task.train_targets, key=jax.random.key(0))

    def error(log_damping):
        features, _ = evolve(Tuned(log_damping).substrate(), task.train_inputs)
        return readout_error(features, task.train_targets, 1e4)

    assert np.isclose(metrics["loss"][1], error(stack.log_damping[1]))
    shift = jnp.array([1e-5, 0.0])
    slope = (error(stack.log_damping[1] + shift) - error(stack.log_damping[1] - shift)) / 2e-5
    assert np.isclose(gradient.log_damping[1, 0], slope, rtol=1e-4)
