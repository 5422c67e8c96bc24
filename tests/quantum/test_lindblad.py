"""The Lindblad kernel against QuTiP, matrix exponentials, an analytic solution and finite differences."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import qutip
import scipy.linalg

from morphax.dynamics import exponential
from morphax.dynamics.exponential import exponential_action
from morphax.quantum.lindblad import BosonicLindblad


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


def two_modes(**changes):
    arguments = {
        "coupling": jnp.array([[0.7, 12.0], [12.0, -0.3]]),
        "damping_rate": jnp.array([17.0, 21.0]),
        "levels": (4, 3),
    }
    return BosonicLindblad(**(arguments | changes))


SYSTEMS = {
    "separate": two_modes,
    "joint": lambda: two_modes(port="joint"),
    "kerr": lambda: two_modes(kerr=jnp.array([9.0, -14.0])),
    "thermal": lambda: two_modes(thermal_occupation=jnp.array([0.4, 0.2])),
    "joint thermal kerr": lambda: two_modes(
        port="joint", thermal_occupation=jnp.array([0.3, 0.3]), kerr=jnp.array([9.0, -14.0])
    ),
    "three modes": lambda: BosonicLindblad(
        jnp.array([[0.5, 8.0, 3.0], [8.0, 0.0, -5.0], [3.0, -5.0, 1.0]]), jnp.array([9.0, 4.0, 15.0]), levels=(3, 2, 2)
    ),
    "one mode": lambda: BosonicLindblad(jnp.array([[30.0]]), jnp.array([20.0]), levels=(9,)),
    "no damping": lambda: two_modes(damping_rate=jnp.zeros(2)),
    "strong kerr, many sub-steps": lambda: two_modes(kerr=jnp.array([1500.0, 700.0])),
    "strong damping, many sub-steps": lambda: two_modes(damping_rate=jnp.array([900.0, 500.0])),
}


def drive_of(system):
    return jnp.array([31.0, -22.0, 12.0])[: len(system.levels)]


def random_state(system, key=0):
    rng = np.random.default_rng(key)
    states = int(np.prod(system.levels))
    vectors = rng.normal(size=(states, 3)) + 1j * rng.normal(size=(states, 3))
    rho = vectors @ vectors.conj().T
    return jnp.asarray(rho / np.trace(rho))


def qutip_model(system, drive) -> tuple[qutip.Qobj, list[qutip.Qobj]]:
    """The Hamiltonian and the collapse operators as one would write them in QuTiP."""
    zero = 0 * qutip.qeye(list(system.levels))
    levels, modes = system.levels, range(len(system.levels))
    a = [qutip.tensor([qutip.destroy(n) if i == j else qutip.qeye(n) for i, n in enumerate(levels)]) for j in modes]
    G, kappa = np.asarray(system.coupling), np.asarray(system.damping_rate)
    kerr = np.zeros(len(levels)) if system.kerr is None else np.asarray(system.kerr)
    bath = np.zeros(len(levels)) if system.thermal_occupation is None else np.asarray(system.thermal_occupation)
    H = sum((G[i, j] * a[i].dag() * a[j] for i in modes for j in modes), zero)
    H += sum(kerr[j] / 2 * a[j].dag() * a[j].dag() * a[j] * a[j] for j in modes)
    H += sum(1j * float(drive[j]) * (a[j] - a[j].dag()) for j in modes)
    if system.port == "joint":
        C = sum((np.sqrt(kappa[j]) * a[j] for j in modes), zero)
        return H, [np.sqrt(bath[0] + 1) * C, np.sqrt(bath[0]) * C.dag()]
    down = [np.sqrt(kappa[j] * (bath[j] + 1)) * a[j] for j in modes]
    return H, down + [np.sqrt(kappa[j] * bath[j]) * a[j].dag() for j in modes]


def superoperator(system, drive):
    """QuTiP's Liouvillian as a dense matrix on column-stacked density matrices."""
    H, collapse = qutip_model(system, drive)
    return qutip.liouvillian(H, collapse).full()  # pyright: ignore[reportCallIssue]  (its stubs lack the defaults)  # pyright: ignore[reportCallIssue, reportArgumentType]


def expected_state(system, drive, rho, time):
    propagator = scipy.linalg.expm(superoperator(system, drive) * time)
    return (propagator @ np.asarray(rho).T.ravel()).reshape(rho.shape).T


@pytest.mark.slow
@pytest.mark.parametrize("name", SYSTEMS)
def test_propagation_equals_the_exponential_of_the_qutip_liouvillian(name):
    system = SYSTEMS[name]()
    drive, rho = drive_of(system), random_state(system)
    np.testing.assert_allclose(system.propagate(rho, drive, 0.1), expected_state(system, drive, rho, 0.1), atol=2e-12)


@pytest.mark.parametrize("name", ["separate", "joint thermal kerr"])
def test_propagation_equals_mesolve(name):
    system = SYSTEMS[name]()
    drive, rho = drive_of(system), random_state(system)
    H, collapse = qutip_model(system, drive)
    solved = qutip.mesolve(
        H,
        qutip.Qobj(np.asarray(rho), dims=H.dims),
        [0, 0.1],
        collapse,
        options={"method": "vern9", "rtol": 1e-11, "atol": 1e-13, "progress_bar": ""},
    )
    np.testing.assert_allclose(system.propagate(rho, drive, 0.1), solved.final_state.full(), atol=1e-10)


@pytest.mark.parametrize("name", SYSTEMS)
def test_enclosure_contains_the_numerical_range(name):
    system = SYSTEMS[name]()
    L = superoperator(system, drive_of(system))
    decay, growth, frequency = (float(x) for x in system.enclosure(drive_of(system)))
    for angle in np.linspace(0, np.pi, 9):
        rotated = np.exp(-1j * angle) * L
        reach = np.linalg.eigvalsh((rotated + rotated.conj().T) / 2)[-1]
        assert reach <= -decay * np.cos(angle) + decay + growth + frequency * np.sin(angle) + 1e-9


def test_a_damped_oscillator_loses_photons_exponentially():
    system = BosonicLindblad(jnp.array([[3.0]]), jnp.array([0.8]), levels=(12,))
    rho = random_state(system)
    number = jnp.arange(12)
    for time in (0.0, 0.5, 3.0):
        photons = jnp.sum(number * jnp.diagonal(system.propagate(rho, jnp.zeros(1), time)).real)
        np.testing.assert_allclose(photons, jnp.sum(number * jnp.diagonal(rho).real) * np.exp(-0.8 * time), rtol=1e-12)


def test_a_hot_mode_reaches_the_bose_distribution():
    system = BosonicLindblad(jnp.zeros((1, 1)), jnp.ones(1), thermal_occupation=jnp.array([0.5]), levels=(10,))
    rho = system.propagate(random_state(system), jnp.zeros(1), 200.0)
    weights = (0.5 / 1.5) ** np.arange(10)
    np.testing.assert_allclose(jnp.diagonal(rho).real, weights / weights.sum(), atol=1e-11)


def test_two_short_steps_are_one_long_step():
    system = two_modes()
    rho, drive = random_state(system), drive_of(system)
    halves = system.propagate(system.propagate(rho, drive, 0.3), drive, 0.5)
    np.testing.assert_allclose(halves, system.propagate(rho, drive, 0.8), atol=1e-12)


@pytest.mark.slow
def test_trace_hermiticity_and_positivity_survive_ten_thousand_points(optimised):
    system = two_modes()

    @jax.jit
    def run(drives):
        def point(rho, x):
            rho = system.propagate(rho, x * drive_of(system), 0.1)
            return rho, (jnp.trace(rho), jnp.abs(rho - rho.conj().T).max(), jnp.linalg.eigvalsh(rho)[0])

        return jax.lax.scan(point, jnp.zeros((12, 12), complex).at[0, 0].set(1), drives)[1]

    trace, skewness, lowest = run(jax.random.uniform(jax.random.key(0), (10_000,), minval=-1.0))
    assert jnp.abs(trace - 1).max() < 1e-10
    assert skewness.max() == 0
    assert lowest.min() > -1e-10


@pytest.mark.slow
def test_single_precision():
    with jax.enable_x64(False):
        system = two_modes(kerr=jnp.array([9.0, -14.0]))
        drive, rho = drive_of(system), random_state(system)
        out = system.propagate(rho, drive, 0.1)
        assert out.dtype == jnp.complex64
        np.testing.assert_allclose(out, expected_state(system, drive, rho, 0.1), atol=3e-6)


def loss(parameters, system, rho):
    """A smooth number that depends on every traced argument."""
    rates, drive, time = parameters
    out = dataclasses.replace(system, **rates).propagate(rho, drive, time)
    return jnp.sum(jnp.abs(out - 0.01) ** 2 * jnp.arange(1, out.size + 1).reshape(out.shape) ** 0.5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["one mode", "thermal", "joint thermal kerr", "three modes", "strong damping, many sub-steps"]
)
def test_gradients_equal_finite_differences(name):
    system = SYSTEMS[name]()
    fields = ["coupling", "damping_rate", "kerr", "thermal_occupation"]
    rates = {name: getattr(system, name) for name in fields if getattr(system, name) is not None}
    parameters = (rates, drive_of(system), jnp.asarray(0.05))
    rho = random_state(system)
    gradient = jax.jit(jax.grad(loss))(parameters, system, rho)

    leaves, tree = jax.tree.flatten(parameters)
    rng = np.random.default_rng(1)
    direction = tree.unflatten([jnp.asarray(rng.normal(size=x.shape)) for x in leaves])
    # The coupling is symmetric, and so is its direction.
    direction[0]["coupling"] = direction[0]["coupling"] + direction[0]["coupling"].T
    forward = jax.jit(lambda p, d: jax.jvp(lambda q: loss(q, system, rho), (p,), (d,))[1])(parameters, direction)
    reverse = sum(jax.tree.leaves(jax.tree.map(jnp.vdot, gradient, direction)))

    def along(s):
        return loss(jax.tree.map(lambda p, d: p + s * d, parameters, direction), system, rho)

    h = 1e-5
    np.testing.assert_allclose(forward, (along(h) - along(-h)) / (2 * h), rtol=1e-6)
    # The time's slope is taken at the start in one and at the end in the other: both are good to the sum's error.
    np.testing.assert_allclose(reverse, forward, rtol=1e-10, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("kept", [128, 16], ids=["all terms kept", "sixteen at a time"])
@pytest.mark.parametrize("name", ["separate", "joint thermal kerr", "strong damping, many sub-steps"])
def test_gradient_is_that_of_the_sum_written_out_for_jax(name, kept, monkeypatch):
    """In every leaf; an adjoint run beside the terms against the reverse mode that JAX derives."""
    monkeypatch.setattr(exponential, "KEPT", kept)
    system = SYSTEMS[name]()
    equation, drive, state = system._equation(), drive_of(system), random_state(system).real
    weight = random_state(system, key=1).real

    def gradient(derivative):
        monkeypatch.setattr(exponential, "_derivative", derivative)

        def value(rates, state, time):
            return jnp.vdot(weight, exponential_action(equation, rates, state, time, system.enclosure(drive)))

        return jax.jit(jax.grad(value, argnums=(0, 1, 2)))(system._rates(drive), state, 0.05)

    def written_out(equation):
        return partial(exponential._smooth_tangent, equation)

    own = exponential._derivative
    own.cache_clear()
    for a, b in zip(gradient(own), gradient(written_out), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12 * np.abs(b).max())


@pytest.mark.slow
def test_gradient_with_respect_to_the_state_is_the_adjoint_map():
    system = two_modes()
    rho, weight, drive = random_state(system), random_state(system, key=1), drive_of(system)
    gradient = jax.jit(jax.grad(lambda r: jnp.vdot(weight, system.propagate(r, drive, 0.1)).real))(rho)
    adjoint = scipy.linalg.expm(superoperator(system, drive).conj().T * 0.1)
    expected = (adjoint @ np.asarray(weight).T.ravel()).reshape(rho.shape).T
    np.testing.assert_allclose(gradient, expected.conj(), atol=1e-11)


@pytest.mark.slow
def test_gradient_of_a_stationary_state_sees_directions_that_the_state_lacks():
    """From the vacuum, undriven, the sum ends at once; its derivative with respect to the drive must not."""
    system = two_modes()
    vacuum = jnp.zeros((12, 12), complex).at[0, 0].set(1)

    def amplitude(e):
        rho = system.propagate(vacuum, e * jnp.ones(2), 0.1)
        return rho[0, 3].real

    h = 1e-4
    numeric = (amplitude(h) - amplitude(-h)) / (2 * h)
    np.testing.assert_allclose(jax.jit(jax.grad(amplitude))(0.0), numeric, rtol=1e-6)
    np.testing.assert_allclose(jax.jit(jax.jacfwd(amplitude))(0.0), numeric, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("time", [2.0, 20.0])
def test_a_state_of_zeros_stays_and_changes_as_any_other(time):
    """Nothing of it tells how many terms its changes need."""
    system = BosonicLindblad(jnp.array([[0.3]]), jnp.array([0.5]), levels=(6,))
    nothing, change = jnp.zeros((6, 6), complex), random_state(system)
    value, slope = jax.jvp(lambda r: system.propagate(r, jnp.array([0.2]), time), (nothing,), (change,))
    np.testing.assert_array_equal(value, 0)
    np.testing.assert_allclose(slope, system.propagate(change, jnp.array([0.2]), time), atol=1e-11)


@pytest.mark.slow
def test_precision_is_that_of_the_state():
    system = two_modes(levels=(2, 2))
    rho = random_state(system).astype(jnp.complex64)
    assert system.propagate(rho, drive_of(system), 0.01).dtype == jnp.complex64


@pytest.mark.slow
@pytest.mark.parametrize("outer", [jax.jacfwd, jax.grad], ids=["forward", "reverse"])
def test_second_derivatives(outer):
    system = two_modes(levels=(3,), coupling=jnp.array([[4.0]]), damping_rate=jnp.array([20.0]))
    rho = random_state(system)
    slope = jax.grad(lambda x: system.propagate(rho, x * drive_of(system), 0.05)[0, 0].real)
    h = 1e-5
    numeric = (jax.jit(slope)(1.0 + h) - jax.jit(slope)(1.0 - h)) / (2 * h)
    np.testing.assert_allclose(jax.jit(outer(slope))(1.0), numeric, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    "transform", [lambda f: f, pytest.param(jax.grad, marks=pytest.mark.slow)], ids=["value", "gradient"]
)
def test_vmap_over_parameters_with_very_different_step_counts(transform):
    system = two_modes()
    rho = random_state(system)

    def value(scale):
        fast = dataclasses.replace(system, damping_rate=scale * system.damping_rate)
        return fast.propagate(rho, scale * drive_of(system), 0.1)[1, 2].real

    scales = jnp.array([0.1, 1.0, 8.0])
    transformed = jax.jit(transform(value))
    one_by_one = jnp.stack([transformed(s) for s in scales])
    np.testing.assert_allclose(jax.jit(jax.vmap(transformed))(scales), one_by_one, rtol=1e-9, atol=1e-11)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["separate", "joint thermal kerr"])
def test_single_precision_stays_single_where_double_is_on(name):
    system = jax.tree.map(lambda x: x.astype(jnp.float32), SYSTEMS[name]())
    drive, rho = drive_of(system).astype(jnp.float32), random_state(system).astype(jnp.complex64)
    value, slope = jax.jit(jax.value_and_grad(lambda d: system.propagate(rho, d, 0.02)[0, 1].real))(drive)
    assert (value.dtype, slope.dtype) == (jnp.float32, jnp.float32)
    double = SYSTEMS[name]()
    exact = jax.jit(jax.grad(lambda d: double.propagate(random_state(double), d, 0.02)[0, 1].real))(drive_of(double))
    np.testing.assert_allclose(slope, exact, rtol=2e-4)


def test_derivative_is_the_right_hand_side():
    system = two_modes(kerr=jnp.array([9.0, -14.0]))
    rho, drive = random_state(system), drive_of(system)
    expected = (superoperator(system, drive) @ np.asarray(rho).T.ravel()).reshape(rho.shape).T
    np.testing.assert_allclose(system.derivative(rho, drive), expected, atol=1e-10)


def test_rates_that_are_not_finite_are_loud():
    system = two_modes()
    assert jnp.isnan(system.propagate(random_state(system), jnp.array([jnp.nan, 0.0]), 0.1)).all()
    assert jnp.isnan(system.propagate(random_state(system), jnp.array([jnp.inf, 0.0]), 0.1)).all()


@pytest.mark.slow
def test_too_many_substeps_for_a_derivative_are_loud():
    system = two_modes(levels=(2, 2), damping_rate=jnp.array([1e6, 1e6]))
    rho = random_state(system)

    def population(time):
        return system.propagate(rho, jnp.zeros(2), time)[0, 0].real

    assert jnp.isfinite(population(0.1))
    assert jnp.isnan(jax.jit(jax.grad(population))(0.1))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"damping_rate": jnp.array([1.0, -1.0])}, "damping_rate is -1"),
        ({"damping_rate": jnp.ones(3)}, "damping_rate has shape"),
        ({"coupling": jnp.zeros((3, 3))}, "coupling has shape"),
        ({"kerr": jnp.zeros(1)}, "kerr has shape"),
        ({"thermal_occupation": jnp.array([-0.1, 0.0])}, "thermal_occupation is -0.1"),
        ({"levels": (5, 1)}, "levels"),
        ({"port": "shared"}, "port is 'shared'"),
    ],
)
def test_bad_arguments_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        two_modes(**changes)
