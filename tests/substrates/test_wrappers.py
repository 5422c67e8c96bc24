"""Layers around a substrate, the kind of what is inside, which stays, and energies behind a readout."""

# The kind of a wrapper is decided when it is made: no type checker knows it.
# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportArgumentType=false

import copy
import dataclasses
import pickle
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from morphax import (
    WEIGHT,
    EchoStateNetwork,
    EnergySubstrate,
    HopfieldNetwork,
    JosephsonMixer,
    Noisy,
    PhaseOscillators,
    Substrate,
    WithFeedback,
    WithInput,
    WithReadout,
    Wrapper,
    evolve,
    make_members,
    roles,
)
from morphax.learning.ensemble import member
from morphax.pytrees import select
from morphax.substrates.energy import Nudge, phase_overlap, squared_error

pytestmark = pytest.mark.usefixtures("double")

KEY = jax.random.key(4)


@pytest.fixture
def esn():
    return EchoStateNetwork.random(4, inputs=2, key=KEY)


def oscillators():
    """Biases leave one equilibrium."""
    network = PhaseOscillators.layered((2, 4, 2), key=KEY)
    return eqx.tree_at(lambda n: n.bias_strengths, network, jnp.linspace(1.0, 1.6, 6))


def hopfield():
    network = HopfieldNetwork.random((2, 4, 2), scale=0.5, key=KEY)
    return eqx.tree_at(lambda n: n.biases, network, tuple(b + 0.4 for b in network.biases))


def onion(inside=None) -> Any:
    """Three layers around an energy substrate."""
    inside = oscillators() if inside is None else inside
    driven = WithInput(Noisy(inside, 0.0), 0.3 * jnp.ones((2, 3)), gain=jnp.array([1.0, -0.5]), offset=0.2)
    return WithReadout.random(driven, 2, key=KEY)


# Layers.


def test_a_readout_is_linear(esn):
    W, b = jnp.array([[1.0, -2.0, 0.5, 0.0], [0.0, 0.0, 0.0, 3.0]]), jnp.array([0.1, -0.2])
    drives = jax.random.normal(KEY, (5, 2))
    inner, state = evolve(esn, drives)
    outer, same = evolve(WithReadout(esn, W, b), drives)
    np.testing.assert_allclose(outer, inner @ W.T + b, rtol=1e-12)
    np.testing.assert_array_equal(same, state)


@pytest.mark.parametrize("offset", [0.3, np.array([0.3, -0.1])])
@pytest.mark.parametrize("gain", [2.0, np.array([2.0, 0.5])])
def test_an_input_layer_scales_shifts_and_masks(esn, gain, offset):
    M, u = np.array([[1.0, 0.0, -1.0], [0.5, 2.0, 0.0]]), np.asarray(jax.random.normal(KEY, (5, 3)))
    driven = WithInput(esn, M, gain=gain, offset=offset)
    assert driven.channels == 3
    expected, _ = evolve(esn, offset + gain * (u @ M.T))
    np.testing.assert_allclose(evolve(driven, u)[0], expected, rtol=1e-10)
    np.testing.assert_allclose(driven.step(esn.initial_state(), u[0]), evolve(driven, u[:1])[1], rtol=1e-12)


def test_without_gain_and_offset_there_is_the_mask_alone(esn):
    plain = WithInput(esn, np.eye(2))
    drives = jax.random.normal(KEY, (5, 2))
    np.testing.assert_array_equal(evolve(plain, drives)[0], evolve(esn, drives)[0])
    assert set(jax.tree.leaves((roles(plain).mask, roles(plain).gain, roles(plain).offset))) == {"weight"}


def test_random_masks_are_as_wide_as_they_say():
    wide = EchoStateNetwork.random(3, inputs=200, key=KEY)
    mask = np.asarray(WithInput.random(wide, 9, key=KEY).mask)
    assert mask.shape == (200, 9)
    assert 0.99 / 3 < np.abs(mask).max() <= 1 / 3
    assert np.std(mask) == pytest.approx(1 / 3 / np.sqrt(3), rel=0.05)
    mixer = JosephsonMixer.two_mode(measured=4)
    assert WithInput.random(mixer, 3, key=KEY).mask.shape == (2, 3)
    assert WithInput.random(mixer, 3, drives=1, key=KEY).mask.shape == (1, 3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda s: WithInput(s, np.ones((3, 1))),
            r"mask has shape \(3, 1\), 3 rows; EchoStateNetwork takes 2 channels",
        ),
        (lambda s: WithInput(s, np.ones(2)), r"mask has shape \(2,\); it must be \(any, any\)"),
        (lambda s: WithInput(s, np.full((2, 1), np.nan)), r"mask\[0, 0\] is nan"),
        (lambda s: WithInput(s, np.ones((2, 1)), gain=np.ones(3)), r"gain has shape \(3,\); it must be \(2,\)"),
        (lambda s: WithInput(s, np.ones((2, 1)), offset=np.inf), "offset is inf"),
        (lambda s: WithInput.random(s, 0, key=KEY), "channels is 0"),
        (lambda s: evolve(WithInput(s, np.ones((2, 3))), np.ones((4, 2))), "one input has 2 channels, .* takes 3"),
        (lambda s: WithReadout(s, np.ones((2, 3)), np.ones(2)), r"weights has shape \(2, 3\); it must be \(any, 4\)"),
        (lambda s: WithReadout.random(s, 0, key=KEY), "outputs is 0"),
    ],
)
def test_layers_that_do_not_fit_are_refused(esn, make, message):
    with pytest.raises(ValueError, match=message):
        make(esn)


# Kinds.


class Head(WithReadout):
    """A user's own readout."""


class Doubled(Wrapper):
    """A user's own wrapper, with a number of its own."""

    factor: float = eqx.field(metadata=WEIGHT, default=2.0)

    def drive(self, drive):
        return self.factor * drive


def is_energetic(wrapper) -> bool:
    inside = wrapper.substrate
    return isinstance(wrapper, EnergySubstrate) and (not isinstance(inside, Wrapper) or is_energetic(inside))


WAYS = {
    "jit": lambda w: eqx.filter_jit(lambda w: w)(w),
    "tree": lambda w: jax.tree.map(lambda x: x, w),
    "vmap": lambda w: eqx.filter_vmap(lambda _: w)(jnp.arange(2)),
    "member": lambda w: member(eqx.filter_vmap(lambda _: w)(jnp.arange(2)), 1),
    "replace": lambda w: dataclasses.replace(w, substrate=w.substrate),
    "tree_at": lambda w: eqx.tree_at(lambda w: w.substrate, w, w.substrate),
    "select": lambda w: eqx.combine(*select(w, "weight")),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda w: pickle.loads(pickle.dumps(w)),
}


@pytest.mark.parametrize("way", WAYS)
def test_the_kind_survives(way):
    for wrapper in (onion(), Noisy(hopfield(), 0.0), Doubled(oscillators())):
        after = WAYS[way](wrapper)
        assert is_energetic(after)
        assert type(after) is type(wrapper)
        assert jax.tree.structure(after) == jax.tree.structure(wrapper)


def test_around_other_systems_nothing_is_an_energy_substrate(esn):
    for plain in (Noisy(esn, 0.1), Doubled(esn), WithReadout.random(esn, 2, key=KEY)):
        assert not isinstance(plain, EnergySubstrate)
        assert not isinstance(pickle.loads(pickle.dumps(plain)), EnergySubstrate)


@pytest.mark.slow
def test_an_ensemble_of_wrapped_networks_is_one():
    stack = make_members(
        lambda key: WithReadout.random(PhaseOscillators.layered((2, 3, 1), key=key), 2, key=key), KEY, 3
    )
    assert is_energetic(stack)
    assert stack.weights.shape == (3, 2, 1)
    rests = jax.vmap(lambda n: n.relax(jnp.ones(2)).state)(stack)
    assert rests.shape == (3, 4)


def test_what_is_replaced_by_another_kind_makes_another_kind():
    energetic, plain = WithReadout.random(oscillators(), 2, key=KEY), EchoStateNetwork.random(2, inputs=2, key=KEY)
    reservoir = dataclasses.replace(energetic, substrate=plain)
    assert type(reservoir) is WithReadout
    assert not isinstance(reservoir, EnergySubstrate)
    np.testing.assert_array_equal(reservoir.weights, energetic.weights)
    assert evolve(reservoir, jnp.ones((3, 2)))[0].shape == (3, 2)
    again = dataclasses.replace(reservoir, substrate=oscillators())
    assert type(again) is type(energetic)


@pytest.mark.slow
def test_classes_of_users_keep_kinds_and_names():
    head = Head(oscillators(), jnp.ones((1, 2)), jnp.zeros(1))
    assert isinstance(head, Head)
    assert is_energetic(head)
    assert (type(head).__name__, type(head).__module__) == ("Head", __name__)
    assert head.__doc__ == Head.__doc__
    doubled: Any = Doubled(oscillators())
    assert doubled.factor == 2
    np.testing.assert_allclose(doubled.relax(jnp.ones(2)).state, oscillators().relax(2 * jnp.ones(2)).state)


def test_a_change_of_step_or_of_stepper_is_used_wherever_a_step_is_made(esn):
    class Halved(Wrapper):
        def step(self, state, drive, *, key=None):
            return super().step(state, drive, key=key) / 2

    class AlsoHalved(Wrapper):
        def stepper(self):
            inner = super().stepper()
            return lambda state, drive, *, key=None: inner(state, drive, key=key) / 2

    drives = jax.random.normal(KEY, (2, 2))
    for cls in (Halved, AlsoHalved):
        wrapped, state = cls(esn), esn.initial_state()
        for drive in drives:
            state = esn.step(state, drive) / 2
        np.testing.assert_allclose(evolve(wrapped, drives)[1], state, rtol=1e-12)
        by_hand = wrapped.step(wrapped.step(wrapped.initial_state(), drives[0]), drives[1])
        np.testing.assert_allclose(by_hand, state, rtol=1e-12)
        around = WithReadout.random(wrapped, 1, key=KEY)
        np.testing.assert_allclose(evolve(around, drives)[1], state, rtol=1e-12)


def test_a_change_of_what_is_observed_says_that_it_hides_what_a_nudge_pulls():
    class First(Wrapper):
        def observe(self, state, *, key=None):
            return self.substrate.observe(state, key=key)[:1]

    wrapped: Any = First(oscillators())
    assert wrapped.observe(wrapped.relax(jnp.ones(2)).state).shape == (1,)
    with pytest.raises(ValueError, match="First overrides observe, and a nudge cannot tell what it pulls on"):
        wrapped.relax(jnp.ones(2), nudge=Nudge(squared_error, 0.1, jnp.ones(1)))


# Energies. A nudge of what is read belongs to the energy: F = E + beta C(read(observe(s)), target).


def reading(scale, inside=None) -> Any:
    return WithReadout.random(oscillators() if inside is None else inside, 3, scale=scale, key=KEY)


NUDGED = {
    "bare": lambda: (oscillators(), 0.3, 0.4),
    "phases": lambda: (reading(1.0), 0.3, 1.0),
    "away": lambda: (reading(1.0), -0.3, 1.0),
    "small weights": lambda: (reading(1e-2), 0.3, 1.0),
    "tiny weights": lambda: (reading(1e-12), 0.3, 1.0),
    "far targets": lambda: (reading(1.0), 0.3, 30.0),
    "strong": lambda: (reading(0.5), 5.0, 1.0),
    "hopfield": lambda: (reading(1.0, hopfield()), 0.3, 1.0),
    "onion": lambda: (onion(), 0.3, 1.0),
    "hopfield onion": lambda: (onion(hopfield()), 0.3, 1.0),
    "readout of a readout": lambda: (WithReadout.random(reading(1.0), 2, key=KEY), 0.3, 1.0),
}


def total_energy(network, state, drive, nudge):
    return network.energy(state, drive) + nudge.energy(network.observe(state))


def largest(tree) -> float:
    return float(jnp.max(jnp.abs(ravel_pytree(tree)[0])))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NUDGED if name not in ("strong", "hopfield")])
def test_a_nudged_relaxation_ends_in_an_equilibrium_of_the_total_energy(name):
    network, strength, reach = NUDGED[name]()
    outputs = len(network.observe(network.initial_state()))
    nudge = Nudge(network.default_cost, strength, reach * jnp.linspace(-1, 1, outputs))
    drive = jnp.linspace(0.2, 0.9, network.channels)
    tight = type(network.default_relaxer)(1e-10)

    @eqx.filter_jit
    def ended(network):
        start = network.initial_state(key=KEY)
        free = network.relax(drive, state=start, relaxer=tight)
        return start, free, network.relax(drive, state=free.state, nudge=nudge, relaxer=tight)

    start, free, rest = ended(network)
    assert rest.converged
    assert largest(jax.grad(total_energy, 1)(network, rest.state, drive, nudge)) < 1e-8
    if isinstance(start, jax.Array):  # of phases; the potentials of a Hopfield network may lie beyond their activities
        force = network.landscape(drive, nudge).force(start)
        np.testing.assert_allclose(force, -jax.grad(total_energy, 1)(network, start, drive, nudge), atol=1e-12)
    moved = largest(jax.tree.map(jnp.subtract, rest.state, free.state))
    assert (moved > 1e-6) == (name != "tiny weights")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["phases", "far targets", "strong", "hopfield", "onion"])
def test_every_sweep_lowers_the_total_energy(name):
    network, strength, reach = NUDGED[name]()
    nudge = Nudge(squared_error, strength, reach * jnp.linspace(-1, 1, len(network.observe(network.initial_state()))))
    drive = jnp.linspace(0.2, 0.9, network.channels)
    free = network.relax(drive)

    @eqx.filter_jit
    def energies(network, state):
        sweeps = network.landscape(drive, nudge).sweeps

        def sweep(swept, _):
            return sweeps.sweep(swept)[0], total_energy(network, sweeps.decode(swept), drive, nudge)

        return jax.lax.scan(sweep, sweeps.encode(state), None, length=60)[1]

    found = np.asarray(energies(network, free.state))
    assert np.diff(found).max() < 1e-12
    assert found[-1] < found[0] - 1e-5


@pytest.mark.slow
def test_a_nudge_of_another_cost_is_an_equilibrium_too():
    network, drive = reading(0.5), jnp.array([0.3, -0.4])
    nudge = Nudge(phase_overlap, 0.3, jnp.array([0.5, -0.5, 1.0]))
    rest = network.relax(drive, nudge=nudge, relaxer=type(network.default_relaxer)(1e-10))
    assert rest.converged
    assert largest(jax.grad(total_energy, 1)(network, rest.state, drive, nudge)) < 1e-8


def test_the_energy_of_a_wrapped_system_is_that_inside_under_the_drive_that_reaches_it():
    network, inside = onion(), oscillators()
    drive, state = jnp.array([0.1, 0.5, -0.3]), jax.random.normal(KEY, (6,))
    reaching = network.substrate.drive(drive)
    assert float(network.energy(state, drive)) == pytest.approx(float(inside.energy(state, reaching)), rel=1e-12)
    np.testing.assert_array_equal(network.force(state, drive), inside.force(state, reaching))
    assert network.default_relaxer == inside.default_relaxer
    assert network.default_cost is squared_error
    assert network.substrate.default_cost is phase_overlap
    network.check_targets(jnp.array([9.0]))  # outputs are no phases any more
    with pytest.raises(ValueError, match="a phase is from -pi to pi"):
        network.substrate.check_targets(jnp.array([9.0]))


@pytest.mark.slow
@pytest.mark.parametrize("inside", [oscillators, hopfield])
def test_the_derivative_of_a_step_is_that_of_the_equilibrium(inside):
    """By the implicit function theorem; against finite differences along a direction in all weights and the drive."""
    network, drive = onion(inside()), jnp.array([0.1, 0.5, -0.3])
    network = eqx.tree_at(lambda n: n.substrate.substrate.amplitude, network, 0.0)
    weights, rest = select(network, "weight")
    numbers, back = ravel_pytree((weights, drive))
    shadow = jnp.array([1.0, -0.7])

    def shown(numbers):
        weights, drive = back(numbers)
        network = eqx.combine(weights, rest)
        state = network.step(network.initial_state(), drive)
        return shadow @ network.observe(network.step(state, 0.5 * drive))

    shown = jax.jit(shown)
    slopes = jax.grad(shown)(numbers)
    direction = jax.random.normal(KEY, numbers.shape)
    step = 1e-3  # what is left of the force, 1e-5, is divided by it
    difference = (shown(numbers + step * direction) - shown(numbers - step * direction)) / (2 * step)
    assert float(slopes @ direction) == pytest.approx(float(difference), rel=5e-3, abs=1e-4)


def test_functions_among_the_fields_do_not_hinder_a_derivative():
    class Springs(EnergySubstrate):
        stiffness: jax.Array = eqx.field(metadata=WEIGHT)
        curve: object = jnp.tanh

        def initial_state(self, *, key=None):
            return jnp.zeros(2)

        def energy(self, state, drive):
            return jnp.sum((state - self.stiffness * self.curve(drive)) ** 2) / 2  # pyright: ignore[reportCallIssue]

        def observe(self, state, *, key=None):
            return state

    def shown(stiffness):
        springs: Substrate = Springs(stiffness)
        return jnp.sum(springs.step(springs.initial_state(), jnp.array([0.3])))

    np.testing.assert_allclose(jax.grad(shown)(jnp.ones(2)), np.tanh(0.3), rtol=1e-4)


def test_answers_reach_the_substrate_again():
    mixer = WithReadout.random(JosephsonMixer.two_mode(measured=9), 2, key=KEY)
    matrix = np.array([[0.5, -0.3]])
    outputs, state = evolve(WithFeedback(mixer, matrix), drives := jnp.linspace(0.1, 1, 6))
    expected = mixer.initial_state()
    for drive, output in zip(drives, outputs, strict=True):
        expected = mixer.step(expected, drive + matrix[0] @ mixer.observe(expected))
        np.testing.assert_allclose(mixer.observe(expected), output, atol=1e-12)
    np.testing.assert_allclose(state, expected, atol=1e-12)


def test_what_is_fed_back_is_of_no_kind():
    """Neurons that reach each other through a readout are not known one by one, and do not rest in one energy."""
    network = HopfieldNetwork.random((2, 4, 2), key=KEY)
    assert type(WithFeedback(network, np.eye(2))) is WithFeedback
    assert not isinstance(WithFeedback(network, np.eye(2)), EnergySubstrate)


@pytest.mark.parametrize(
    ("matrix", "text"),
    [
        (np.zeros((1, 3)), r"matrix has shape \(1, 3\)"),
        (np.zeros((5, 2)), r"matrix has shape \(5, 2\), 5 rows; .* takes .* so it must have as many"),
        (np.full((1, 2), np.nan), "matrix"),
    ],
)
def test_a_matrix_that_does_not_fit_is_refused(matrix, text):
    with pytest.raises(ValueError, match=text):
        WithFeedback(WithReadout.random(JosephsonMixer.two_mode(measured=9), 2, key=KEY), matrix)
