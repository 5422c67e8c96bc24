"""Relaxers against closed solutions: decay, an overdamped pendulum, thermal fluctuations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from morphax import PhaseOscillators
from morphax.dynamics.relaxation import (
    AcceleratedDescent,
    AdaptiveRungeKutta,
    BlockSweeps,
    Landscape,
    RungeKutta,
    Slope,
    Sweeps,
)

pytestmark = pytest.mark.usefixtures("double")
PENDULUM = Landscape(lambda phi: -jnp.sin(phi))


def pendulum(start: float, time: float) -> float:
    """tan(phi / 2) decays exponentially."""
    return 2 * np.arctan(np.tan(start / 2) * np.exp(-time))


@pytest.mark.parametrize(
    ("relaxer", "error"),
    [
        (RungeKutta(2.0, 0.01, 4, tolerance=np.inf), 1e-9),
        (RungeKutta(2.0, 0.01, 1, tolerance=np.inf), 1e-2),
        (AdaptiveRungeKutta(2.0, 1e-10, 1e-10, tolerance=np.inf), 1e-8),
    ],
)
def test_they_follow_the_dynamics(relaxer, error):
    ended = relaxer(PENDULUM, jnp.array([1.0, -3.0]))
    np.testing.assert_allclose(ended.state, [pendulum(1.0, 2.0), pendulum(-3.0, 2.0)], atol=error)
    assert ended.residual == jnp.max(jnp.abs(jnp.sin(ended.state)))
    assert ended.converged
    assert ended.steps > 0


def test_the_last_step_is_never_longer_than_asked():
    ended = RungeKutta(1.0, 0.3, 4)(PENDULUM, jnp.array([1.0]))
    assert ended.steps == 4
    assert abs(ended.state[0] - pendulum(1.0, 1.0)) < 1e-4


def test_a_residual_above_the_tolerance_has_not_converged():
    short, long = (RungeKutta(time, 0.1, tolerance=1e-3)(PENDULUM, jnp.array([1.0])) for time in (2.0, 20.0))
    assert not short.converged
    assert long.converged


def test_a_rotating_system_has_not_converged():
    rotating = Landscape(lambda phi: 2.0 - jnp.sin(phi))
    assert not RungeKutta(tolerance=1e-3)(rotating, jnp.zeros(1)).converged


def test_too_few_steps_have_not_converged():
    assert not AdaptiveRungeKutta(100.0, max_steps=3)(PENDULUM, jnp.ones(1)).converged


def test_nan_has_not_converged():
    broken = Landscape(lambda x: x**3)
    assert not RungeKutta(100.0, 0.1)(broken, jnp.ones(1)).converged


SPRING = Landscape(  # its sweeps meet a third of the force
    lambda x: -x, Sweeps(lambda x: x, lambda x: (0.9 * x, jnp.max(jnp.abs(x)) / 3), lambda x: x)
)


def test_sweeps_go_on_until_what_they_leave_is_small():
    alone = BlockSweeps(1e-5)(SPRING, jnp.ones(2))
    assert alone.converged
    assert alone.residual == pytest.approx(0.9 ** int(alone.steps))
    assert 0.9e-5 < alone.residual <= 1e-5  # the first state that small
    assert not BlockSweeps(1e-5, max_sweeps=int(alone.steps) - 1)(SPRING, jnp.ones(2)).converged


@pytest.mark.parametrize("leave", [0, 1])
def test_a_batch_sweeps_until_all_but_some_are_at_rest(leave):
    def relax(start):
        return BlockSweeps(1e-5)(SPRING, start, batch="examples", leave=leave)

    ended = jax.vmap(relax, axis_name="examples")(jnp.array([[1.0], [1e-3], [1e3]]))
    np.testing.assert_array_equal(ended.converged, [True, True, leave == 0])
    slowest = jnp.sort(ended.residual)[-1 - leave]
    assert 0.9e-5 < slowest <= 1e-5


@pytest.mark.slow
def test_single_precision_sweeps_are_not_stopped_short_of_the_tolerance():
    # In these of 20,000 networks the force that was left exceeded twice what the last sweep had met.
    stopped = np.array([1812, 3026, 3718, 4161, 5057, 5382, 5897, 5922, 5979, 6077, 6702, 7184])

    @jax.vmap
    def relax(key):
        first, second, third = jax.random.split(key, 3)
        network = PhaseOscillators.all_to_all(2, 2, 1, coupling_deviation=1.0, bias_scale=0.5, key=first)
        return network.relax(jax.random.uniform(second, (2,), minval=-1.57, maxval=1.57), key=third)

    with jax.enable_x64(False):
        ended = relax(jax.random.split(jax.random.key(7), 20_000)[stopped])
    assert ended.converged.all()
    assert ended.residual.max() <= 1e-5
    assert ended.steps.max() < 100


def test_momentum_descends_a_narrow_valley_in_few_steps():
    """Of a chain of springs, whose condition number is that of the Laplacian, 4 n^2 / pi^2."""
    springs = 2 * jnp.eye(60) - jnp.eye(60, k=1) - jnp.eye(60, k=-1)
    pull = jnp.zeros(60).at[-1].set(1.0)

    def slope(x):
        return Slope(x @ springs @ x / 2 - pull @ x, pull - springs @ x, jnp.diag(springs))

    chain = Landscape(lambda x: slope(x).force, slope=slope)
    ended = AcceleratedDescent(1e-9, 3000)(chain, jnp.zeros(60))
    assert ended.converged
    assert ended.steps < 1500
    np.testing.assert_allclose(ended.state, np.arange(1, 61) / 61, atol=1e-6)
    assert not AcceleratedDescent(1e-9, int(ended.steps) // 2, max_sweeps=0)(chain, jnp.zeros(60)).converged


def test_fluctuations_at_a_temperature_obey_equipartition():
    # Of an oscillator with stiffness 2: the mean square is T / 2; 4,000 of them have a relative error of 2.2 %.
    spring = Landscape(lambda x: -2.0 * x)
    relaxer = RungeKutta(5.0, 0.01, temperature=0.3)
    ended = relaxer(spring, jnp.zeros(4000), key=jax.random.key(0))
    assert abs(jnp.mean(ended.state**2) / 0.15 - 1) < 0.1
    with pytest.raises(ValueError, match=r"key is None; a relaxation at temperature 0\.3 is random"):
        relaxer(spring, jnp.zeros(1))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RungeKutta(duration=0.0), "duration is 0.0; it must be > 0"),
        (lambda: RungeKutta(time_step=-1.0), "time_step is -1.0; it must be > 0"),
        (lambda: RungeKutta(order=5), "order is 5; it must be one of 1, 2, 3, 4"),
        (lambda: AdaptiveRungeKutta(max_steps=0), "max_steps is 0"),
        (lambda: BlockSweeps(tolerance=0.0), "tolerance is 0.0; it must be > 0"),
        (lambda: BlockSweeps(max_sweeps=0), "max_sweeps is 0; it must be a whole number >= 1"),
        (lambda: BlockSweeps()(PENDULUM, jnp.zeros(1)), "this substrate has no sweeps"),
        (lambda: AcceleratedDescent(tolerance=0.0), "tolerance is 0.0; it must be > 0"),
        (lambda: AcceleratedDescent(max_steps=0), "max_steps is 0; it must be a whole number >= 1"),
        (lambda: AcceleratedDescent()(PENDULUM, jnp.zeros(1)), "has neither slopes nor sweeps"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
