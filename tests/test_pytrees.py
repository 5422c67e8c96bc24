"""Roles: declared once, found everywhere."""

import warnings
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from morphax import (
    DEVICE,
    SETTING,
    WEIGHT,
    Backpropagation,
    JosephsonMixer,
    Substrate,
    WithReadout,
    count,
    mismatch,
    perturb,
    roles,
    select,
    train,
)
from morphax.learning.objectives import regression
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
    same = partial(jnp.array_equal, equal_nan=True)
    assert jax.tree.all(jax.tree.map(same, eqx.combine(chosen, rest), network()))


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


class Memristor(Substrate):
    """A user's class: numbers as they come."""

    conductance: jax.typing.ArrayLike = eqx.field(metadata=DEVICE)
    gain: float = eqx.field(metadata=WEIGHT, default=2.0)

    def initial_state(self, *, key=None):
        return jnp.zeros(2)

    def step(self, state, drive, *, key=None):
        return state + self.gain * self.conductance * drive

    def observe(self, state, *, key=None):
        return state


@pytest.mark.parametrize("value", [1.5, 1, np.float32(1.5), np.array([1.0, 1.5]), jnp.ones(2)])
def test_a_number_with_a_role_is_an_array_that_varies_and_is_trained(value):
    """However it was given: a spread that left it as it was made every study of robustness look perfect."""
    device = Memristor(value)
    assert count(device, "device") == np.size(value)
    assert count(device, "weight") == 1
    chip = mismatch(device, devices=0.5, weights=0.5, key=jax.random.key(0))
    assert (np.asarray(chip.conductance) != value).all()
    assert chip.gain != 2
    assert jnp.result_type(chip.conductance) == jnp.float32


def test_numbers_inside_lists_vary_too():
    parts = Layer(jnp.ones(2), (1.0, 2.0), jnp.ones(1))  # pyright: ignore[reportArgumentType]
    varied = perturb(parts, 0.5, "device", key=jax.random.key(0))
    assert varied.rates[0] != 1
    assert varied.rates[1] != 2


def test_a_role_on_what_is_static_is_refused():
    class Static(Memristor):
        duration: float = eqx.field(static=True, metadata=DEVICE, default=1.0)

    with pytest.raises(ValueError, match=r"Static\.duration has the role device and is static, so nothing trains it"):
        Static(1.0)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(("spreads", "role"), [({"devices": 0.1}, "device"), ({"weights": 0.1}, "weight")])
def test_a_spread_that_finds_nothing_to_spread_is_refused(spreads, role):
    class Bare(eqx.Module):
        numbers: jax.Array = eqx.field(metadata=SETTING)

    message = rf"spread is 0\.1, but Bare has no array with the role {role}; use 0 there, .*metadata={role.upper()}"
    with pytest.raises(ValueError, match=message):
        mismatch(Bare(jnp.ones(3)), **spreads, key=jax.random.key(0))
    assert (mismatch(Bare(jnp.ones(3)), devices=0.0, key=jax.random.key(0)).numbers == 1).all()


def test_arrays_without_a_role_are_warned_of_once_for_every_class():
    class Forgotten(Memristor):
        offset: jax.Array = eqx.field(default_factory=lambda: jnp.ones(2))

    class AlsoForgotten(Forgotten):
        pass

    def warned(substrate):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(2):
                mismatch(substrate, devices=0.1, key=jax.random.key(0))
        return [str(each.message) for each in caught]

    first, second = (WithReadout.random(cls(1.0), 1, key=jax.random.key(1)) for cls in (Forgotten, AlsoForgotten))  # pyright: ignore[reportArgumentType]
    (message,) = warned(first)
    assert message.startswith("WithReadout.substrate.offset has no role, so nothing trains it and no device differs")
    assert warned(first) == []
    assert len(warned(second)) == 1  # its readout is of the same class, and was warned of
    late = type("Late", (Forgotten,), {"__module__": __name__})(1.0)  # pyright: ignore[reportArgumentType]
    data, rule = (jnp.ones((1, 2)), jnp.ones((1, 2))), Backpropagation(regression)
    with pytest.warns(UserWarning, match=r"Late\.offset has no role"):
        train(late, rule, data, optax.sgd(0.1), 1, key=jax.random.key(0))


def test_a_negative_spread_is_refused():
    with pytest.raises(ValueError, match=r"spread is -0\.1; it must be >= 0"):
        perturb(network(), -0.1, key=jax.random.key(0))
