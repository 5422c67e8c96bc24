"""Relaxers against closed solutions: decay, an overdamped pendulum, thermal fluctuations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from morphax.dynamics.relaxation import AdaptiveRungeKutta, Descent, Landscape, RungeKutta

pytestmark = pytest.mark.usefixtures("double")
PENDULUM = Landscape(lambda phi: -jnp.sin(phi))


def pendulum(start: float, time: float) -> float:
    """tan(phi / 2) decays exponentially."""
    return 2 * np.arctan(np.tan(start / 2) * np.exp(-time))


@pytest.mark.parametrize(
    ("relaxer", "error"),
    [
        (RungeKutta(2.0, 0.01, 4), 1e-9),
        (RungeKutta(2.0, 0.01, 1), 1e-2),
        (AdaptiveRungeKutta(2.0, 1e-10, 1e-10), 1e-8),
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
        (lambda: Descent(tolerance=0.0), "tolerance is 0.0; it must be > 0"),
        (lambda: Descent()(PENDULUM, jnp.zeros(1)), "this substrate has no sweeps"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
