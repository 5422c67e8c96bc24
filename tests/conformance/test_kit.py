"""The kit itself: a class that breaks a promise gets a sentence that says what to change."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from morphax import DEVICE, WEIGHT, Backpropagation, EnergySubstrate, LearningRule, Substrate
from morphax.testing import BrokenPromiseError, check_rule, check_substrate, rule_promises, substrate_promises


class Leaky(Substrate):
    """Keeps every promise."""

    damping_rate: jax.Array = eqx.field(metadata=DEVICE)
    gain: jax.Array = eqx.field(metadata=WEIGHT)

    def initial_state(self, *, key=None):
        return jnp.zeros_like(self.damping_rate)

    def step(self, state, drive, *, key=None):
        memory = jnp.exp(-self.damping_rate)
        return memory * state + (1 - memory) * jnp.tanh(self.gain * drive)

    def observe(self, state, *, key=None):
        return state


class WithoutRole(Leaky):
    offset: jax.Array = eqx.field(default_factory=lambda: jnp.ones(3))


class TwoChannelsUnsaid(Leaky):
    def step(self, state, drive, *, key=None):
        first, second = drive
        return super().step(state, first * second, key=key)


class GlobalChance(Leaky):
    def observe(self, state, *, key=None):
        return state + np.random.normal()  # noqa: NPY002


class Growing(Leaky):
    def step(self, state, drive, *, key=None):
        return jnp.concatenate([state, state])


class FixedPrecision(Leaky):
    def observe(self, state, *, key=None):
        return state.astype(jnp.float32)


class WrongSlope(Leaky):
    def observe(self, state, *, key=None):
        return state + jax.lax.stop_gradient(state)


class InfiniteSlope(Leaky):
    def observe(self, state, *, key=None):
        return jnp.sqrt(jnp.abs(state) * 0)


class AxisMatters(Leaky):
    def step(self, state, drive, *, key=None):
        return super().step(state, drive + drive.ndim, key=key)


class OtherStepper(Leaky):
    def stepper(self):
        return lambda state, drive, *, key=None: 0.5 * self.step(state, drive, key=key)


class DeafNoise(Leaky):
    def disturb(self, state, amplitude, *, key):
        return state


class Uphill(EnergySubstrate):
    stiffness: jax.Array = eqx.field(metadata=WEIGHT)

    def initial_state(self, *, key=None):
        return jnp.full_like(self.stiffness, 0.3)

    def energy(self, state, drive):
        return jnp.sum(self.stiffness * (state - drive) ** 2) / 2

    def force(self, state, drive):
        return jax.grad(self.energy)(state, drive)

    def observe(self, state, *, key=None):
        return state


def made(cls: type[Leaky]) -> Leaky:
    return cls(jnp.array([0.3, 1.0, 2.0]), jnp.array([0.5, -1.0, 2.0]))


def test_a_device_that_keeps_its_promises_passes():
    check_substrate(made(Leaky))
    names = [str(promise) for promise in substrate_promises(made(Leaky))]
    assert "every array has a role" in names


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cls", "sentence"),
    [
        (WithoutRole, r"\.offset has no role: declare eqx\.field\(metadata=WEIGHT\)"),
        (TwoChannelsUnsaid, "say in the property `channels` what step takes"),
        (GlobalChance, "step by step it gives other numbers than compiled: .* draw all chance from `key`"),
        (Growing, "return a state of the structure, shapes and types that it got"),
        (FixedPrecision, "the observation is float32: somewhere an array is made with a type of its own"),
        (WrongSlope, "the derivative of what is observed along one direction is .*, a finite difference"),
        (InfiniteSlope, "is not finite .a square root or a norm"),
        (AxisMatters, r"gives other numbers than the same of shape \(\); begin step with"),
        (OtherStepper, "stepper.. steps to another state than step"),
        (DeafNoise, "disturb with amplitude 0.1 leaves the state as it is"),
    ],
)
def test_a_broken_promise_is_told_in_a_sentence(cls, sentence):
    with pytest.raises(BrokenPromiseError, match=f"(?s)a {cls.__name__} breaks .*{sentence}"):
        check_substrate(made(cls))


def test_a_force_that_leads_uphill_is_told():
    promises = {str(promise): promise for promise in substrate_promises(Uphill(jnp.ones(2)))}
    with pytest.raises(BrokenPromiseError, match="force points up the energy"):
        promises["force is the slope of the energy"].check()


class NoLoss(Backpropagation):
    def gradient(self, substrate, inputs, targets, *, key=None):
        metrics, gradient = super().gradient(substrate, inputs, targets, key=key)
        return {"error": metrics["loss"]}, gradient


class HalfGradient(Backpropagation):
    def gradient(self, substrate, inputs, targets, *, key=None):
        metrics, gradient = super().gradient(substrate, inputs, targets, key=key)
        return metrics, jax.tree.map(lambda g: 0.5 * g, gradient)


class Careless(LearningRule):
    """Admits everything."""

    def check(self, substrate, data, trained=("weight",)):
        pass

    def metrics(self, substrate, inputs, targets, *, key):
        return {"loss": jnp.zeros(())}

    def gradient(self, substrate, inputs, targets, *, key):
        return {"loss": jnp.zeros(())}, jax.tree.map(jnp.zeros_like, eqx.filter(substrate, eqx.is_inexact_array))


def check_until_one_breaks(rule):
    for promise in rule_promises(rule):
        promise.check()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rule", "sentence"),
    [
        (NoLoss(), 'gradient must give metrics with a scalar "loss"'),
        (HalfGradient(), "the gradient along one direction is .*, a finite difference"),
    ],
)
def test_a_rule_that_breaks_a_promise_is_told(rule, sentence):
    with pytest.raises(BrokenPromiseError, match=sentence):
        check_until_one_breaks(rule)


@pytest.mark.slow
def test_all_broken_promises_of_a_rule_are_told_at_once():
    sentences = r"(?s)a Careless breaks \d+ promises of \d+:\n- .*change nothing.*\n- .*admits fewer targets than"
    with pytest.raises(BrokenPromiseError, match=sentences):
        check_rule(Careless())


def test_what_is_neither_is_refused():
    with pytest.raises(BrokenPromiseError, match="is no Substrate"):
        check_substrate(3)  # pyright: ignore[reportArgumentType]
    with pytest.raises(BrokenPromiseError, match="is no LearningRule"):
        check_rule(max)  # pyright: ignore[reportArgumentType]
