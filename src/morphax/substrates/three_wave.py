r"""The Josephson mixer before the rotating-wave approximation.

Dudas et al. begin with three-wave mixing (Eq. 5) and drive the common mode at the difference of the frequencies. With
a stiff pump, $c + c^\dagger \to 2 p \cos \omega_p t$, $\omega_p = \omega_a - \omega_b = \Delta$ and $g = \chi p$,

$$H = \omega_a a^\dagger a + \omega_b b^\dagger b + 2 g \cos(\Delta t) (a + a^\dagger)(b + b^\dagger)
      + \text{drives } 2 \cos(\omega t),$$

of which Eq. 6 keeps what is at rest in the frame that rotates with both modes. Here nothing is dropped:

$$\dot\alpha = -\tfrac{\kappa_a}{2} \alpha - i g (1 + e^{2i\Delta t}) \beta
               - i g (e^{2i\omega_a t} + e^{2i\omega_b t}) \beta^*
               - x \epsilon \sqrt{2\kappa_a} (1 + e^{2i\omega_a t}),$$

and likewise for $\beta$, with $-\Delta$ in the place of $\Delta$. The Hamiltonian is quadratic: states stay Gaussian,
and become squeezed. Means and covariances are exact.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Complex, Float, PRNGKeyArray

from morphax._checks import check_count, check_range, check_shape
from morphax.quantum.gaussian import gaussian_populations
from morphax.quantum.measurement import Populations
from morphax.substrates.base import Stepper, Substrate
from morphax.substrates.josephson import JosephsonMixer
from morphax.units import GHz

WHOLE = 1e-6  # of a period that a whole number of them may miss
GaussianState = tuple[Complex[Array, " modes"], Complex[Array, "twice twice"]]


class Values(NamedTuple):
    """The propagator of means, the response to inputs of 1, and what covariances gain."""

    propagator: Array
    response: Array
    added: Array


class ThreeWaveMixer(Substrate):
    r"""Two driven, damped modes with a pumped three-wave coupling, exactly (Dudas et al., Eq. 5).

    An input is held for `interval`, in which all beats of the frequencies take whole numbers of periods: then every
    input acts by the same affine map of means and covariances, which is integrated once (Runge-Kutta of fourth order).

    **Units:** rates in rad/ns, times in ns, `drive_amplitude` in sqrt(rad/ns).

    **Arguments:**

    - `mixer`: coupling (no detunings), dissipation, drives, port and interval; coherent, with two modes. Populations of
      its measured states are read.
    - `frequencies`: $\omega_a > \omega_b > 0$. 2 pi x 10 and 9 GHz in the paper.
    - `steps`: of the integrator in a period of $2\omega_a$, >= 8.

    **State:** means of a and b, and the covariance of (a, b, a+, b+), in the frame that rotates with the modes.

    **Raises:** `ValueError` for another kind of mixer, frequencies out of order, and beats that end within an interval.

        >>> import jax.numpy as jnp
        >>> from morphax import JosephsonMixer, evolve
        >>> from morphax.substrates.three_wave import ThreeWaveMixer
        >>> from morphax.units import GHz
        >>> mixer = JosephsonMixer.two_mode(interval=10.0, measured=9)
        >>> exact = ThreeWaveMixer(mixer, (1 * GHz, 0.5 * GHz))
        >>> difference = evolve(exact, jnp.ones(3))[0] - evolve(mixer, jnp.ones(3))[0]
        >>> bool(abs(difference).max() < 0.01)
        True
    """

    mixer: JosephsonMixer
    frequencies: tuple[float, float] = eqx.field(static=True)
    steps: int = eqx.field(static=True)

    def __init__(
        self, mixer: JosephsonMixer, frequencies: tuple[float, float] = (10 * GHz, 9 * GHz), *, steps: int = 32
    ):
        if mixer.method != "coherent" or mixer.modes != 2:
            raise ValueError(
                f"mixer has {mixer.modes} modes and method {mixer.method!r}; it must have 2 and 'coherent'"
            )
        if not isinstance(mixer.measured, Populations) or mixer.shots is not None:
            raise ValueError("mixer must measure populations of basis states, exactly: without shots")
        check_shape("frequencies", frequencies, (2,))
        check_range("frequencies", frequencies, low=0.0, open_low=True)
        check_count("steps", steps, 8)
        first, second = (float(frequency) for frequency in frequencies)
        periods = np.array([first, second, first - second]) * mixer.interval / np.pi
        if first <= second or np.any(np.abs(periods - np.round(periods)) > WHOLE * periods):
            raise ValueError(
                f"frequencies are {first:g} and {second:g} rad/ns; the first must be larger, and twice of each, and "
                f"twice their difference, must have whole numbers of periods in {mixer.interval:g} ns, not {periods}"
            )
        self.mixer, self.frequencies, self.steps = mixer, (first, second), steps

    @property
    def channels(self) -> tuple[int, ...]:
        """One number for both modes, or one a mode."""
        return self.mixer.channels

    def initial_state(self, *, key: PRNGKeyArray | None = None) -> GaussianState:
        """The vacuum."""
        amplitudes = self.mixer.initial_state()
        return amplitudes, jnp.eye(4, dtype=amplitudes.dtype) / 2

    def step(
        self, state: GaussianState, drive: Float[Array, "..."], *, key: PRNGKeyArray | None = None
    ) -> GaussianState:
        """Hold one input for one interval."""
        return self.stepper()(state, drive, key=key)

    def stepper(self) -> Stepper:
        propagator, response, added = self._map()

        def step(state: GaussianState, drive: Array, *, key: PRNGKeyArray | None = None) -> GaussianState:
            mean, covariance = state
            both = propagator @ jnp.concatenate([mean, mean.conj()]) + response @ jnp.broadcast_to(drive, (2,))
            return both[:2], propagator @ covariance @ propagator.conj().T + added

        return step

    def observe(self, state: GaussianState, *, key: PRNGKeyArray | None = None) -> Float[Array, " neurons"]:
        """Populations of the basis states that the mixer measures."""
        assert isinstance(self.mixer.measured, Populations)
        states = np.array(self.mixer.measured.states)
        return gaussian_populations(*state, int(states.max()) + 1)[tuple(states.T)]

    def _equations(self, time: ArrayLike) -> tuple[Array, Array, Array]:
        r"""$M$, the drives, and $D$, of $\dot\xi = M \xi + x f$ and $\dot\sigma = M \sigma + \sigma M^\dagger + D$."""
        mixer, (first, second), frequencies = self.mixer, self.frequencies, jnp.array(self.frequencies)
        turning = jnp.exp(1j * frequencies * time)
        root = jnp.sqrt(mixer.damping_rate)
        damping = (jnp.outer(root, root) if mixer.port == "joint" else jnp.diag(mixer.damping_rate)) / 2
        damping = damping * jnp.outer(turning, turning.conj())
        pumped = 2 * jnp.cos((first - second) * time) * mixer.coupling[0, 1]
        exchange = jnp.array([[0.0, 1.0], [1.0, 0.0]]) * pumped
        converted = -damping - 1j * exchange * jnp.outer(turning, turning.conj())
        squeezed = -1j * exchange * jnp.outer(turning, turning)
        matrix = jnp.block([[converted, squeezed], [squeezed.conj(), converted.conj()]])
        driven = -jnp.diag(mixer.drive_rates(jnp.ones(2)) * 2 * jnp.cos(frequencies * time) * turning)
        zero = jnp.zeros_like(damping)
        return matrix, jnp.vstack([driven, driven.conj()]), jnp.block([[damping, zero], [zero, damping.conj()]])

    def _map(self) -> Values:
        """What an interval does."""
        dtype = self.initial_state()[0].dtype
        count = self.steps * round(self.frequencies[0] * self.mixer.interval / np.pi)
        length = self.mixer.interval / count

        def slope(values: Values, time: ArrayLike) -> Values:
            propagator, response, added = values
            matrix, driven, noise = self._equations(time)
            gained = matrix @ added
            return Values(matrix @ propagator, matrix @ response + driven, gained + gained.conj().T + noise)

        def moved(values: Values, slopes: Values, by: float) -> Values:
            return jax.tree.map(lambda value, change: value + by * change, values, slopes)

        def advance(values: Values, index: Array) -> tuple[Values, None]:
            time = index * length
            first = slope(values, time)
            second = slope(moved(values, first, length / 2), time + length / 2)
            third = slope(moved(values, second, length / 2), time + length / 2)
            fourth = slope(moved(values, third, length), time + length)
            mean = jax.tree.map(lambda a, b, c, d: (a + 2 * b + 2 * c + d) / 6, first, second, third, fourth)
            return moved(values, mean, length), None

        start = Values(jnp.eye(4, dtype=dtype), jnp.zeros((4, 2), dtype), jnp.zeros((4, 4), dtype))
        return jax.lax.scan(advance, start, jnp.arange(count))[0]
