"""Roles: declared once, found everywhere."""

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

from morphax import DEVICE, WEIGHT, JosephsonMixer, count, perturb, roles, select
from morphax.learning.readout import Readout


class Layer(eqx.Module):
    weights: jax.Array = eqx.field(metadata=WEIGHT)
    rates: tuple[jax.Array, jax.Array] = eqx.field(metadata=DEVICE)
    state: jax.Array


class Network(eqx.Module):
    layers: list[Layer]
    readout: Readout = eqx.field(metadata=DEVICE)


def network() -> Network:
    layer = Layer(jnp.ones((2, 3)), (jnp.ones(4), jnp.ones(())), jnp.ones(5))
    return Network([layer, layer], Readout(jnp.ones((1, 2)), jnp.zeros(1)))


def test_roles_are_found_through_lists_tuples_and_modules():
    found = roles(network())
    assert found.layers[1].weights == "weight"
    assert found.layers[0].rates == ("device", "device")
    assert found.layers[0].state == "unassigned"


def test_the_innermost_declaration_wins():
    assert roles(network()).readout.weights == "weight"


def test_count_and_select_agree():
    with pytest.warns(
        UserWarning, match=r"Network\.layers\[0\]\.state has no role, .*SETTING.*\(also \.layers\[1\]\.state\)"
    ):
        assert count(network(), "weight") == 2 * 6 + 2 + 1
    assert count(network(), "device") == 2 * 5
    chosen, rest = select(network(), "weight", "device")
    assert chosen.layers[0].state is None
    assert jax.tree.all(jax.tree.map(jnp.array_equal, eqx.combine(chosen, rest), network()))


def test_perturb_has_the_stated_spread_and_touches_nothing_else(double):
    many = Layer(jnp.full(40_000, 2.0), (jnp.ones(3), jnp.ones(())), jnp.ones(5))
    varied = perturb(many, 0.1, "weight", key=jax.random.key(0))
    relative = varied.weights / 2 - 1
    assert abs(relative.std() - 0.1) < 5 * 0.1 / (2 * 40_000) ** 0.5
    assert abs(relative.mean()) < 5 * 0.1 / 40_000**0.5
    assert jnp.array_equal(varied.rates[0], many.rates[0])
    assert jnp.array_equal(varied.state, many.state)


def test_a_perturbed_mixer_is_still_a_physical_one(double):
    mixer = perturb(JosephsonMixer.two_mode(), 0.05, "device", key=jax.random.key(1))
    hermitian_part = mixer.amplitude_generator() + mixer.amplitude_generator().conj().T
    assert jnp.allclose(hermitian_part, jnp.diag(mixer.damping_rate))


def test_a_negative_spread_is_refused():
    with pytest.raises(ValueError, match=r"spread is -0\.1; it must be >= 0"):
        perturb(network(), -0.1, key=jax.random.key(0))
