"""Substrates that relax: forces against slopes of energies, nudges, costs, and where a relaxation starts."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from morphax import WEIGHT, EnergySubstrate, evolve
from morphax.dynamics.relaxation import RungeKutta
from morphax.substrates.energy import (
    Nudge,
    golden_sequence,
    phase_distance,
    phase_overlap,
    phase_squared_error,
    slope,
    squared_error,
    wrap,
)

pytestmark = pytest.mark.usefixtures("double")
KEY = jax.random.key(0)
PHASE_COSTS = (phase_distance, phase_overlap, phase_squared_error)
LONG = RungeKutta(200.0, 0.1)


class Springs(EnergySubstrate):
    """A chain of springs from the input to the output, its state a pytree; stiffer with its length."""

    stiffness: jax.Array = eqx.field(metadata=WEIGHT)

    def initial_state(self, *, key=None):
        places = jnp.zeros(2) if key is None else jax.random.normal(key, (2,))
        return {"inner": places[0], "end": places[1:]}

    def energy(self, state, drive):
        lengths = jnp.diff(jnp.array([drive[0], state["inner"], state["end"][0]]))
        return jnp.sum(self.stiffness * (lengths**2 / 2 + lengths**4 / 4))

    def observe(self, state, *, key=None):
        return state["end"]


@pytest.fixture
def springs() -> Springs:
    return Springs(jnp.array([1.0, 2.0]))


@pytest.fixture
def drive() -> jax.Array:
    return jnp.array([0.7])


@pytest.fixture
def state() -> dict[str, jax.Array]:
    return {"inner": jnp.array(0.2), "end": jnp.array([-0.4])}


def central(function, value, step=1e-6):
    return (function(value + step) - function(value - step)) / (2 * step)


def test_the_force_is_minus_the_slope_of_the_energy(springs, drive, state):
    force = springs.force(state, drive)
    inner = central(lambda x: springs.energy(state | {"inner": x}, drive), state["inner"])
    end = central(lambda x: springs.energy(state | {"end": x}, drive), state["end"])
    np.testing.assert_allclose([force["inner"], force["end"][0]], [-inner, -end], rtol=1e-8)
    np.testing.assert_array_equal(springs.landscape(drive).force(state)["end"], force["end"])


def test_a_nudge_adds_its_force_to_the_outputs_alone(springs, drive, state):
    nudge = Nudge(squared_error, 0.3, jnp.array([1.0]))
    free, nudged = springs.force(state, drive), springs.landscape(drive, nudge).force(state)
    np.testing.assert_array_equal(nudged["inner"], free["inner"])
    np.testing.assert_allclose(nudged["end"] - free["end"], -0.3 * (state["end"] - 1.0), rtol=1e-12)
    np.testing.assert_allclose(nudged["end"] - free["end"], nudge.force(state["end"]), rtol=1e-12)
    np.testing.assert_allclose(nudge.force(state["end"]), -central(nudge.energy, state["end"]), rtol=1e-8)
    at_rest = springs.relax(drive, nudge=nudge, relaxer=LONG).state
    assert 0.7 < at_rest["inner"] < at_rest["end"][0] < 1.0  # pulled out, against the springs
    np.testing.assert_allclose(springs.force(at_rest, drive)["end"], -nudge.force(at_rest["end"]), atol=1e-8)


def test_at_rest_every_spring_has_its_length(springs, drive):
    ended = springs.relax(drive, relaxer=LONG)
    assert ended.converged
    assert springs.distance(ended.state, {"inner": jnp.array(0.7), "end": jnp.array([0.7])}) < 1e-6
    # A step holds one input until rest, from wherever the last has led.
    places, _ = evolve(springs, jnp.array([[0.7], [-2.0]]))
    np.testing.assert_allclose(places[:, 0], [0.7, -2.0], atol=1e-5)


def test_a_relaxation_starts_where_it_is_told(springs, drive, state):
    idle = RungeKutta(1e-9, 1e-9)
    np.testing.assert_allclose(springs.relax(drive, state=state, relaxer=idle).state["end"], state["end"], atol=1e-6)
    np.testing.assert_allclose(springs.relax(drive, relaxer=idle).state["end"], 0.0, atol=1e-6)
    drawn = [springs.relax(drive, relaxer=idle, key=jax.random.key(k)).state["end"][0] for k in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    with pytest.raises(ValueError, match="key is None; a relaxation at temperature 1 is random"):
        springs.relax(drive, relaxer=RungeKutta(temperature=1.0))


@pytest.mark.parametrize("cost", [*PHASE_COSTS, squared_error])
def test_slopes_of_costs_agree_with_finite_differences(cost):
    outputs, targets = (jnp.asarray(a) for a in np.random.default_rng(0).uniform(-3.0, 3.0, (2, 50)))
    differences = (cost(outputs + 1e-6, targets) - cost(outputs - 1e-6, targets)) / 2e-6
    np.testing.assert_allclose(slope(cost, outputs, targets), differences, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("cost", [*PHASE_COSTS, squared_error])
def test_costs_are_least_at_the_target(cost):
    outputs = jnp.linspace(-3.0, 3.0, 101)
    values = cost(outputs, outputs[30])
    assert jnp.argmin(values) == 30
    assert abs(values[30]) < 2e-6
    assert jnp.all(values[jnp.arange(101) != 30] > 1e-4)


@pytest.mark.parametrize("cost", PHASE_COSTS)
def test_costs_of_phases_know_the_circle(cost):
    phases = jnp.linspace(-3.0, 3.0, 13)
    np.testing.assert_allclose(cost(phases + 2 * np.pi, 1.3), cost(phases, 1.3), rtol=1e-7)
    np.testing.assert_allclose(cost(phases, 0.0), cost(-phases, 0.0), rtol=1e-7)


def test_costs_at_known_phases():
    assert phase_distance(np.pi / 2, 0.0) == pytest.approx(1)
    assert phase_distance(np.pi, 0.0) == pytest.approx(2)
    assert phase_overlap(np.pi / 2, 0.0) == pytest.approx(np.log(2), abs=1e-5)
    assert phase_squared_error(np.pi - 0.1, 0.1 - np.pi) == pytest.approx(0.2**2 / 2)
    # The overlap's slope is tan(x / 2), and stays bounded where that is not.
    assert slope(phase_overlap, jnp.array([2.0]), jnp.array([0.0]))[0] == pytest.approx(np.tan(1.0), rel=1e-4)
    near = slope(phase_overlap, np.pi + jnp.linspace(-0.1, 0.1, 10_001), jnp.array(0.0))
    assert 100 < jnp.max(jnp.abs(near)) <= 500


def test_wrapped_angles_are_the_same_angles():
    angles = jnp.linspace(-20.0, 20.0, 401)
    wrapped = wrap(angles)
    assert wrapped.min() >= -jnp.pi
    assert wrapped.max() < jnp.pi
    np.testing.assert_allclose(jnp.exp(1j * wrapped), jnp.exp(1j * angles), atol=1e-12)
    assert wrap(jnp.pi) == -jnp.pi


def test_the_golden_sequence_fills_the_interval_without_symmetry():
    numbers = np.asarray(golden_sequence(500))
    np.testing.assert_array_equal(numbers[:20], golden_sequence(20))
    gaps = np.diff(np.sort(numbers), prepend=0, append=1)
    assert 0 < gaps.min() < gaps.max() < 3 / 500
    assert np.abs(numbers[:, None] + numbers - 1).min() > 1e-4  # none is the mirror image of another, or its own
    assert golden_sequence(3).dtype == jnp.float64
