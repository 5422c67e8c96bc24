r"""Driven, damped, coupled bosonic modes: the Josephson mixer of Dudas et al. and its generalisations.

Any number of modes $a_j$, in the frame rotating with each, obey the master equation (Eqs. 6, 8, 9, $\hbar = 1$)

$$\dot\rho = -i[H, \rho] + \sum_C \left(C \rho C^\dagger - \tfrac12 \{C^\dagger C, \rho\}\right),$$
$$H = \sum_{ij} G_{ij} a_i^\dagger a_j + \sum_j \tfrac{K_j}{2} a_j^\dagger a_j^\dagger a_j a_j
    + i x \sum_j \epsilon_j \sqrt{2 \kappa_j} (a_j - a_j^\dagger).$$

Without Kerr terms and at zero temperature everything is linear in the $a_j$, and a state that starts as a product of
coherent states stays one. So the linear mixer *is* one complex number a mode, read through Poisson distributions:
nothing in it is entangled, and a classical computer follows it at a cost of modes^2 a point.
"""

import dataclasses
import warnings
from collections.abc import Sequence
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Complex, Float, PRNGKeyArray

from morphax._checks import check_choice, check_count, check_finite, check_range, check_real, check_shape, is_concrete
from morphax.pytrees import DEVICE, SETTING
from morphax.quantum.lindblad import BosonicLindblad
from morphax.quantum.measurement import Measurement, PhotonNumbers, Populations, TopLevels, basis_states
from morphax.substrates.base import Stepper, Substrate, evolve
from morphax.units import MHz, ns, s, us

Port = Literal["separate", "joint"]
Method = Literal["auto", "coherent", "fock"]
ModeState = Complex[Array, " modes"] | Complex[Array, "states states"]
STATE_TOLERANCE = 1e-3  # of a state where a simulation goes on; single precision passes


class JosephsonMixer(Substrate):
    r"""Resonantly driven bosonic modes with pairwise photon conversion (Dudas et al., Secs. III and VI A).

    An input $x$ (one number, or one a mode) is held for `interval` as the drive amplitude $\epsilon_j x_j$.

    **Units:** rates in rad/ns, times in ns, `drive_amplitude` in sqrt(rad/ns); see `morphax.units`.

    **Arguments:**

    - `coupling`: conversion rates $G$, symmetric (modes, modes), of which the upper triangle is read; its diagonal is
      each mode's detuning from its drive. One number couples every pair alike, on resonance.
    - `damping_rate`: $\kappa_j \ge 0$, shape (modes,).
    - `drive_amplitude`: $\epsilon_{0,j}$, shape (modes,) or one number for all.
    - `kerr`: $K_j$, shape (modes,) or one number. None: no such term.
    - `thermal_occupation`: mean photon number $\bar n_j \ge 0$ of the bath behind each port. None: zero temperature.
    - `interval`: how long an input is held, > 0; 100 ns in the paper.
    - `levels`: Fock states kept per mode, >= 2, one number or one a mode. The coherent method needs no truncation and
      uses `levels` only to say which basis states exist.
    - `port`: "separate", $C_j = \sqrt{\kappa_j} a_j$, or "joint", the printed $C = \sum_j \sqrt{\kappa_j} a_j$ (modes
      that share one line; combinations that cancel in it are dark and hardly decay).
    - `method`: "coherent" follows the amplitudes exactly in closed form; "fock" integrates the master equation on the
      truncated levels; "auto" takes "coherent" wherever it is exact.
    - `measured`: what is read: a `Measurement` (`Populations`, `PhotonNumbers`, `Quadratures`), a number of basis
      states in nested order, or a sequence of basis states.
    - `shots`: repetitions behind each reading; None reads exact expectation values.

    **State:** coherent: amplitudes, (modes,) complex; fock: density matrix, (states, states) complex. Its trace is set
    to 1 after every input, since rounding lets it drift.

    **Raises:** `ValueError` for wrong shapes, non-finite or negative rates, zero levels, states that do not exist, and
    for `method="coherent"` with a Kerr term or a thermal port.

        >>> import jax.numpy as jnp
        >>> from morphax import JosephsonMixer, evolve
        >>> from morphax.units import MHz, us
        >>> mixer = JosephsonMixer(2 * MHz, jnp.array([17, 21]) / us, 0.05, measured=16)
        >>> mixer.method, mixer.measured.states[-1]
        ('coherent', (3, 3))
        >>> populations, _ = evolve(mixer, jnp.array([0.0, 1.0, -1.0]))
        >>> populations[0, 0].item()                                         # no drive: still the vacuum
        1.0
    """

    coupling: Float[Array, "modes modes"] = eqx.field(metadata=DEVICE)
    damping_rate: Float[Array, " modes"] = eqx.field(metadata=DEVICE)
    drive_amplitude: Float[Array, " modes"] = eqx.field(metadata=DEVICE)
    kerr: Float[Array, " modes"] | None = eqx.field(metadata=DEVICE)
    thermal_occupation: Float[Array, " modes"] | None = eqx.field(metadata=DEVICE)
    interval: float = eqx.field(static=True)
    levels: tuple[int, ...] = eqx.field(static=True)
    port: Port = eqx.field(static=True)
    method: Literal["coherent", "fock"] = eqx.field(static=True)
    measured: Measurement
    shots: Float[Array, ""] | None = eqx.field(metadata=SETTING)

    def __init__(
        self,
        coupling: ArrayLike | Sequence[float],
        damping_rate: ArrayLike | Sequence[float],
        drive_amplitude: ArrayLike | Sequence[float],
        *,
        kerr: ArrayLike | Sequence[float] | None = None,
        thermal_occupation: ArrayLike | Sequence[float] | None = None,
        interval: float = 100 * ns,
        levels: int | Sequence[int] = 8,
        port: Port = "separate",
        method: Method = "auto",
        measured: Measurement | int | Sequence[tuple[int, ...]] = 16,
        shots: int | Array | None = None,
    ):
        check_shape("damping_rate", damping_rate, (None,))
        check_range("damping_rate", damping_rate, low=0.0)
        self.damping_rate = _real("damping_rate", damping_rate)
        modes = self.damping_rate.shape[0]
        self.coupling = _coupling_matrix(coupling, modes)
        self.drive_amplitude = _per_mode("drive_amplitude", drive_amplitude, modes)
        self.kerr = _unless_zero(None if kerr is None else _per_mode("kerr", kerr, modes))
        if thermal_occupation is not None:
            check_range("thermal_occupation", thermal_occupation, low=0.0)
            thermal_occupation = _per_mode("thermal_occupation", thermal_occupation, modes)
        self.thermal_occupation = _unless_zero(thermal_occupation)
        check_range("interval", interval, low=0.0, open_low=True)
        self.interval = float(interval)
        self.levels = _levels(levels, modes)
        check_choice("port", port, ("separate", "joint"))
        self.port = port
        self._check_one_bath()
        self.method = self._resolve(method)
        if isinstance(measured, int | np.integer):
            measured = Populations(basis_states(self.levels, int(measured)))
        elif not isinstance(measured, Measurement):
            for state in measured:
                for photons in state:
                    check_count("measured", photons, 0)
            measured = Populations(tuple(tuple(int(n) for n in state) for state in measured))
        measured.check(self.levels)
        self.measured = measured
        if isinstance(shots, int | float):
            check_count("shots", shots, 1)
        elif shots is not None:
            check_range("shots", shots, low=1.0)
        # An array, so that a sweep over shots compiles once.
        self.shots = None if shots is None else jnp.asarray(shots, self.damping_rate.dtype)

    def _resolve(self, method: Method) -> Literal["coherent", "fock"]:
        check_choice("method", method, ("auto", "coherent", "fock"))
        linear = self.kerr is None and self.thermal_occupation is None
        if method == "coherent" and not linear:
            term = "kerr" if self.kerr is not None else "thermal_occupation"
            raise ValueError(f"method is 'coherent' but {term} is given; use method='fock' (or 'auto')")
        if method == "auto":
            return "coherent" if linear else "fock"
        return method

    def _check_one_bath(self) -> None:
        bath = self.thermal_occupation
        if self.port == "joint" and bath is not None and is_concrete(bath) and np.ptp(np.asarray(bath)) > 0:
            raise ValueError(
                f"thermal_occupation is {bath}; modes that share the joint port share one bath: one number"
            )

    @classmethod
    def two_mode(
        cls,
        coupling: float | Array = 2 * MHz,
        damping_rate: ArrayLike | Sequence[float] = (17 / us, 21 / us),
        drive_amplitude: float | Array = 2.77 / us**0.5,
        **options,
    ) -> "JosephsonMixer":
        r"""The mixer with working parameters: about two photons at most, memory of a few inputs.

        Rates are the paper's numbers *without* the factor $2\pi$, each mode has its own port, and the drive populates
        the first five levels at inputs within [-1, 1] (peak photon numbers 2.0 and 1.7; 0.15 % above level 7).
        `options` are those of the class.
        """
        return cls(coupling, jnp.asarray(damping_rate), drive_amplitude, **options)

    @classmethod
    def printed(cls, coupling: float | Array = 2 * MHz, **options) -> "JosephsonMixer":
        r"""The paper's printed numbers taken literally (Secs. III and VI A); the paper gives no coupling for Fig. 3.

        $\kappa = 2\pi \times 17, 21$ MHz through the joint port and $\epsilon_0 = 20 \times 10^5 \sqrt{\mathrm{Hz}}$,
        which drives several hundred times more amplitude than eight levels hold: see `with_peak_photons`.
        """
        options = {"port": "joint", **options}
        return cls(coupling, jnp.array([17 * MHz, 21 * MHz]), 20e5 / s**0.5, **options)

    @property
    def modes(self) -> int:
        """Number of bosonic modes."""
        return len(self.levels)

    @property
    def channels(self) -> tuple[int, ...]:
        """One number for all modes, or one a mode."""
        return (1, self.modes)

    def check_state(self, state: ModeState) -> None:
        """Refuse what is no state of this mixer: another shape, NaN, a matrix that is not Hermitian or of trace 1."""
        check_shape("state", state, (self.modes,) if self.method == "coherent" else (self.dimension,) * 2)
        check_finite("state", state)
        if self.method == "coherent" or not is_concrete(state):
            return
        rho = np.asarray(state)
        skew, trace = float(np.max(np.abs(rho - rho.conj().T))), complex(np.trace(rho))
        if skew > STATE_TOLERANCE:
            raise ValueError(f"state differs from its adjoint by {skew:g}; a density matrix is Hermitian")
        if abs(trace - 1) > STATE_TOLERANCE:
            raise ValueError(f"state has trace {trace.real:g}; that of a density matrix is 1")

    def initial_state(self, *, key: PRNGKeyArray | None = None) -> ModeState:
        """The vacuum."""
        dtype = jnp.result_type(self.damping_rate.dtype, jnp.complex64)
        if self.method == "coherent":
            return jnp.zeros(self.modes, dtype)
        return jnp.zeros((self.dimension, self.dimension), dtype).at[0, 0].set(1)

    @property
    def dimension(self) -> int:
        """Number of basis states on the truncated levels (the coherent method never lists them)."""
        return int(np.prod(self.levels, dtype=object))

    def step(self, state: ModeState, drive: Float[Array, "..."], *, key: PRNGKeyArray | None = None) -> ModeState:
        """Hold `drive`, one number or one a mode, for one `interval`."""
        return self.stepper()(state, drive, key=key)

    def stepper(self) -> Stepper:
        return self._coherent_stepper() if self.method == "coherent" else self._fock_stepper()

    def observe(self, state: ModeState, *, key: PRNGKeyArray | None = None) -> Float[Array, " neurons"]:
        """Read what `measured` names, exactly or from `shots` repetitions (which need a key)."""
        if self.method == "coherent":
            return self.measured.of_amplitudes(state, shots=self.shots, key=key)
        return self.measured.of_density_matrix(state, self.levels, shots=self.shots, key=key)

    def disturb(self, state: ModeState, amplitude: ArrayLike, *, key: PRNGKeyArray) -> ModeState:
        """Random displacements of the amplitudes, of root mean square `amplitude`.

        **Raises:** `ValueError` for the Fock method: noise on a density matrix gives none; use `thermal_occupation`.
        """
        if self.method == "fock":
            raise ValueError("method is 'fock'; a density matrix takes no additive noise: use thermal_occupation")
        return super().disturb(state, amplitude, key=key)

    def amplitude_generator(self) -> Complex[Array, "modes modes"]:
        r"""$A = \Gamma + iG$ of $\dot\alpha = -A \alpha - x \epsilon \sqrt{2\kappa}$ (rad/ns).

        $\Gamma = \mathrm{diag}(\kappa)/2$ for separate ports, $\Gamma_{ij} = \sqrt{\kappa_i \kappa_j}/2$ for the joint
        one.
        """
        if self.port == "joint":
            amplitude = jnp.sqrt(self.damping_rate)
            gamma = jnp.outer(amplitude, amplitude) / 2
        else:
            gamma = jnp.diag(self.damping_rate) / 2
        return gamma + 1j * _symmetric(self.coupling)

    def drive_rates(self, drive: Float[Array, "..."]) -> Float[Array, " modes"]:
        r"""$x_j \epsilon_j \sqrt{2 \kappa_j}$ for an input of one number or one a mode."""
        if jnp.shape(drive) not in ((), (self.modes,)):
            raise ValueError(
                f"one input has shape {jnp.shape(drive)}; it must be one number, shape (), or one a mode, "
                f"shape ({self.modes},)"
            )
        return drive * self.drive_amplitude * jnp.sqrt(2 * self.damping_rate)

    def with_peak_photons(self, drives: Float[Array, "time ..."], peak: float | Array) -> "JosephsonMixer":
        r"""The same mixer with its drives scaled so that the fullest mode reaches `peak` photons at most on `drives`.

        The linear mixer's photon numbers grow as the square of the drive, so one coherent run decides; Kerr terms and
        thermal photons are not counted.
        """
        check_range("peak", peak, low=0.0, open_low=True)
        linear = dataclasses.replace(
            self, kerr=None, thermal_occupation=None, method="coherent", measured=PhotonNumbers(), shots=None
        )
        photons, _ = evolve(linear, drives)
        scale = jnp.sqrt(peak / jnp.max(photons))
        return dataclasses.replace(self, drive_amplitude=scale * self.drive_amplitude)

    def truncation(self, drives: Float[Array, "time ..."], *, state: ModeState | None = None) -> Float[Array, " modes"]:
        """The largest population of each mode's highest level while `drives` run; a warning above 1 %.

        For the coherent method, which truncates nothing: the population that a truncated simulation would have to
        squeeze into the highest level.
        """
        watched = dataclasses.replace(self, measured=TopLevels(self.levels), shots=None)
        worst = jnp.max(evolve(watched, drives, state=state)[0], axis=0)
        if is_concrete(worst) and bool(jnp.any(worst > 0.01)):
            warnings.warn(
                f"the highest level holds {', '.join(f'{100 * float(p):.2g} %' for p in worst)} of the modes' "
                f"population (levels {self.levels}); above 1 % the truncation shows: raise levels or lower the drive",
                stacklevel=2,
            )
        return worst

    def _coherent_stepper(self) -> Stepper:
        r"""$\alpha \to E \alpha + F x$ from one exponential: $e^{[[-A, -1], [0, 0]] T} = [[E, F], [0, 1]]$.

        The block form needs no inverse of $A$, which is singular for a dark mode.
        """
        modes = self.modes
        A = self.amplitude_generator()
        zero = jnp.zeros_like(A)
        blocks = jnp.block([[-A, -jnp.eye(modes, dtype=A.dtype)], [zero, zero]])
        propagator = jax.scipy.linalg.expm(blocks * self.interval, max_squarings=48)
        E, F = propagator[:modes, :modes], propagator[:modes, modes:]

        def step(state: ModeState, drive: Array, *, key: PRNGKeyArray | None = None) -> ModeState:
            check_shape("state", state, (modes,))
            return E @ state + F @ self.drive_rates(drive)

        return step

    def _fock_stepper(self) -> Stepper:
        generator = BosonicLindblad(
            coupling=_symmetric(self.coupling),
            damping_rate=self.damping_rate,
            kerr=self.kerr,
            thermal_occupation=self.thermal_occupation,
            levels=self.levels,
            port=self.port,
        )

        def step(state: ModeState, drive: Array, *, key: PRNGKeyArray | None = None) -> ModeState:
            check_shape("state", state, (self.dimension, self.dimension))
            rho = generator.propagate(state, self.drive_rates(drive), self.interval)
            # The equation keeps the trace, rounding does not: in single precision it drifts by 1e-8 a point.
            return rho / jax.lax.stop_gradient(jnp.trace(rho).real)

        return step


def _real(name: str, value: ArrayLike | Sequence[float]) -> Array:
    check_real(name, value)
    array = jnp.asarray(value)
    return array if jnp.issubdtype(array.dtype, jnp.floating) else array.astype(jnp.result_type(float))


def _per_mode(name: str, value: ArrayLike | Sequence[float], modes: int) -> Array:
    if np.ndim(value) != 0:
        check_shape(name, value, (modes,))
    check_finite(name, value)
    return jnp.broadcast_to(_real(name, value), (modes,))


def _unless_zero(value: Array | None) -> Array | None:
    """None for a term that is known to vanish, so that it costs nothing."""
    return None if value is not None and is_concrete(value) and not np.any(value) else value


def _coupling_matrix(value: ArrayLike | Sequence[float], modes: int) -> Array:
    check_finite("coupling", value)
    if np.ndim(value) == 0:
        return _real("coupling", value) * (1 - jnp.eye(modes))
    check_shape("coupling", value, (modes, modes))
    matrix = _real("coupling", value)
    if is_concrete(matrix) and not np.allclose(matrix, np.transpose(matrix)):
        raise ValueError("coupling is not symmetric; conversion i -> j and j -> i have one rate, G[i, j] == G[j, i]")
    return matrix


def _symmetric(coupling: Float[Array, "modes modes"]) -> Float[Array, "modes modes"]:
    """The upper triangle, mirrored: the Hamiltonian stays Hermitian when noise perturbs each entry by itself."""
    return jnp.triu(coupling) + jnp.triu(coupling, 1).T


def _levels(levels: int | Sequence[int], modes: int) -> tuple[int, ...]:
    per_mode = (levels,) * modes if isinstance(levels, int | np.integer) else tuple(levels)
    if len(per_mode) != modes:
        raise ValueError(f"levels is {per_mode}; it must be one number or {modes}, one a mode")
    for top in per_mode:
        check_count("levels", top, 2)
    return tuple(int(top) for top in per_mode)
