r"""The master equation of driven, damped, coupled bosonic modes on truncated Fock spaces, made fast.

A Hermitian $\rho = R + i S$ is kept as the real matrix $X = R + S$: R is symmetric and S antisymmetric, so nothing is
lost, and Hermiticity holds by construction. All jump operators $C$ are real, hence with
$K = -i H - \tfrac12 \sum C^T C = K_r + i K_i$

$$ \dot X = K_r X + X K_r^T + K_i X^T - X^T K_i^T + \sum_C C X C^T . $$

In the Fock basis every matrix here has a few non-zero diagonals. A product with one of them is a shift of the
flattened matrix and a scaling of its rows or columns, and the whole right-hand side is one pass over memory.
"""

import itertools
import math
from collections.abc import Callable
from functools import cache, partial, reduce
from operator import add
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Complex, Float

from morphax._checks import check_choice, check_range, check_shape
from morphax.dynamics.exponential import exponential_action
from morphax.dynamics.faber import Enclosure
from morphax.dynamics.generator import Generator, framed, inner, shifts

Diagonals = dict[int, Float[np.ndarray, " states"]]
"""A matrix with few diagonals: {k: w} has the elements A[p, p + k] = w[p]; w is zero where p + k does not exist."""


class BosonicLindblad(eqx.Module):
    r"""Generator of the master equation of bosonic modes, held constant while a state is propagated.

    $$ \dot\rho = -i [H, \rho] + \sum_C \left( C \rho C^\dagger - \tfrac12 \{C^\dagger C, \rho\} \right), $$
    $$ H = \sum_{ij} G_{ij} a_i^\dagger a_j + \sum_j \tfrac{K_j}{2} a_j^\dagger a_j^\dagger a_j a_j
           + \sum_j i e_j (a_j - a_j^\dagger) $$

    with the truncated matrices $a_j$ and their products, in the row-major basis $|n_1, n_2, \dots\rangle$. Any unit of
    time will do as long as all rates have its inverse. Precision follows the arguments.

    **Arguments:**

    - `coupling`: G, symmetric; its diagonal is the modes' detuning.
    - `damping_rate`: $\kappa_j \ge 0$.
    - `kerr`: $K_j$. None: no such term.
    - `thermal_occupation`: $\bar n_j \ge 0$ of each port's bath (one common value for a joint port, where the mean is
      taken). None: zero temperature, and no work for what is absent.
    - `levels`: Fock states kept per mode, >= 2.
    - `port`: "separate": $C_j = \sqrt{\kappa_j (\bar n_j + 1)} a_j$ and $\sqrt{\kappa_j \bar n_j} a_j^\dagger$;
      "joint": $\sqrt{\bar n + 1}\, C$ and $\sqrt{\bar n}\, C^\dagger$ with $C = \sum_j \sqrt{\kappa_j} a_j$.

    **Raises:** `ValueError` for wrong shapes, negative rates or occupations, fewer than two levels, unknown ports.

        >>> import jax.numpy as jnp
        >>> mode = BosonicLindblad(jnp.zeros((1, 1)), jnp.array([0.5]), levels=(3,))
        >>> one_photon = jnp.diag(jnp.array([0, 1, 0], dtype=complex))
        >>> rho = mode.propagate(one_photon, jnp.zeros(1), time=2.0)
        >>> round(float(rho[1, 1].real), 5)                                  # exp(-0.5 * 2)
        0.36788
    """

    coupling: Float[Array, "modes modes"]
    damping_rate: Float[Array, " modes"]
    kerr: Float[Array, " modes"] | None = None
    thermal_occupation: Float[Array, " modes"] | None = None
    levels: tuple[int, ...] = eqx.field(static=True, kw_only=True, converter=tuple)
    port: Literal["separate", "joint"] = eqx.field(static=True, kw_only=True, default="separate")

    def __check_init__(self):
        modes = len(self.levels)
        if min(self.levels, default=0) < 2:
            raise ValueError(f"levels is {self.levels}; every mode needs at least 2")
        check_shape("coupling", self.coupling, (modes, modes))
        check_shape("damping_rate", self.damping_rate, (modes,))
        check_range("damping_rate", self.damping_rate, low=0.0)
        if self.kerr is not None:
            check_shape("kerr", self.kerr, (modes,))
        if self.thermal_occupation is not None:
            check_shape("thermal_occupation", self.thermal_occupation, (modes,))
            check_range("thermal_occupation", self.thermal_occupation, low=0.0)
        check_choice("port", self.port, ("separate", "joint"))

    def propagate(
        self,
        rho: Complex[Array, "states states"],
        drive: Float[Array, " modes"],
        time: Float[Array, ""] | float,
    ) -> Complex[Array, "states states"]:
        r"""$e^{\mathcal L(e) t} \rho$, the state after a time at constant drive.

        The error is below 1e-11 in double and about 1e-6 in single precision in every element, whatever the rates.
        Jit, vmap, forward and reverse derivatives with respect to rho, drive, time and all rates work.

        Parameters
        ----------
        rho
            Hermitian matrix (what is not Hermitian in it is ignored), (states, states), complex.
        drive
            $e_j$, real, inverse time.
        time
            Duration >= 0.

        Returns
        -------
        Array
            Same shape and precision as rho.
        """
        equation, rates = self._equation(), self._rates(drive)
        return _unpack(exponential_action(equation, rates, _pack(rho), time, self.enclosure(drive)))

    def derivative(
        self, rho: Complex[Array, "states states"], drive: Float[Array, " modes"]
    ) -> Complex[Array, "states states"]:
        r"""$\dot\rho$, the right-hand side of the master equation; arguments as for `propagate`."""
        equation = self._equation()
        return _unpack(equation.apply(equation.terms(self._rates(drive)), framed(_pack(rho), equation.margin)))

    def enclosure(self, drive: Float[Array, " modes"]) -> Enclosure:
        r"""Where the numerical range of the generator lies; closed form, never too small.

        With $P = C \otimes 1$, $Q = 1 \otimes C$ a dissipator is $PQ - \tfrac12 P^\dagger P - \tfrac12 Q^\dagger Q$.
        In a normalised state the last two are $-t$ with $0 \le t \le \|C\|^2$, and $|\langle PQ \rangle| \le
        \tfrac12 \langle P P^\dagger + Q^\dagger Q \rangle \le t + s$ with $2 s$ the largest eigenvalue of
        $[C, C^\dagger]$: a disc around $-\|C\|^2$. The commutator adds the spread of H's eigenvalues to both
        sides of the real axis, at most the sum of the spreads of its terms.
        """
        emission, absorption = self._bath_rates()
        highest = jnp.asarray(self.levels, emission.dtype) - 1
        # ||sum_j c_j a_j|| <= sum_j |c_j| sqrt(levels_j - 1); for separate ports each mode is alone.
        reach = jnp.sqrt(highest[:, None] * highest[None, :])
        decay = jnp.sum((emission + absorption) * reach)
        growth = jnp.sum(jnp.diag(emission)) / 2 + jnp.sum(jnp.diag(absorption) * highest) / 2
        frequency = self._rotation_spread()
        for i, j in _pairs(len(self.levels)):
            frequency += jnp.abs(self.coupling[i, j]) * _conversion_spread(self.levels[i], self.levels[j])
        spreads = jnp.asarray([_drive_spread(n) for n in self.levels], emission.dtype)
        return Enclosure(decay, growth, frequency + jnp.sum(jnp.abs(drive) * spreads))

    def _rotation_spread(self) -> Float[Array, ""]:
        """Largest minus smallest eigenvalue of the Hamiltonian without conversion and drive."""
        numbers = _numbers(self.levels)
        parts = [self.coupling[i, i] * jnp.asarray(n, self.coupling.dtype) for i, n in enumerate(numbers)]
        if self.kerr is not None:
            parts += [k / 2 * jnp.asarray(n * (n - 1), k.dtype) for k, n in zip(self.kerr, numbers, strict=True)]
        diagonal = reduce(add, parts)
        return jnp.max(diagonal) - jnp.min(diagonal)

    def _bath_rates(self) -> tuple[Float[Array, "modes modes"], Float[Array, "modes modes"]]:
        r"""Rates of $\sum_{ij} \Gamma_{ij} a_i \rho a_j^\dagger$ (emission) and of the reverse (absorption)."""
        thermal = jnp.zeros_like(self.damping_rate) if self.thermal_occupation is None else self.thermal_occupation
        if self.port == "separate":
            return jnp.diag(self.damping_rate * (thermal + 1)), jnp.diag(self.damping_rate * thermal)
        amplitude = jnp.sqrt(self.damping_rate)
        line = amplitude[:, None] * amplitude[None, :]
        return line * (jnp.mean(thermal) + 1), line * jnp.mean(thermal)

    def _equation(self) -> "_MasterEquation":
        return _master_equation(self.levels, self.port, self.kerr is not None, self.thermal_occupation is not None)

    def _rates(self, drive: Float[Array, " modes"]) -> Float[Array, " rates"]:
        """The rates that the equation is linear in, in the order of `_master_equation`."""
        modes = range(len(self.levels))
        rates = [*drive, *(self.coupling[i, i] for i in modes)]
        rates += [self.coupling[i, j] for i, j in _pairs(len(self.levels))]
        rates += [] if self.kerr is None else [*self.kerr]
        emission, absorption = self._bath_rates()
        for bath in (emission,) if self.thermal_occupation is None else (emission, absorption):
            rates += [bath[i, j] for i, j in itertools.product(modes, modes) if i == j or self.port == "joint"]
        return jnp.stack(rates)


class _Terms(NamedTuple):
    """Diagonals of K_r and K_i, and {(k, m): (u, v)} for terms u[p] X[p + k, q + m] v[q] of the jumps."""

    real: dict[int, Any]
    imaginary: dict[int, Any]
    jumps: dict[tuple[int, int], tuple[Any, Any]]


class _MasterEquation(Generator):
    """The equation for X as a sum of constant pieces, each with a rate."""

    def __init__(self, pieces: list[_Terms]):
        self.pieces = pieces
        self.margin = 1 + max(abs(k) for piece in pieces for k in _rows_of(piece))

    def terms(self, coefficients: Float[Array, " rates"]) -> _Terms:
        dtype = coefficients.dtype
        total = _Terms({}, {}, {})
        for rate, piece in zip(coefficients, self.pieces, strict=True):
            for diagonals, added in ((total.real, piece.real), (total.imaginary, piece.imaginary)):
                for k, w in added.items():
                    scaled = rate * jnp.asarray(w, dtype)
                    diagonals[k] = diagonals[k] + scaled if k in diagonals else scaled
            for place, (u, v) in piece.jumps.items():
                total.jumps[place] = rate * jnp.asarray(u, dtype), jnp.asarray(v, dtype)
        return total

    def transposed(self, terms: _Terms) -> _Terms:
        """Terms of K_r^T, -K_i^T and C^T."""
        return _Terms(
            {-k: jnp.roll(w, k) for k, w in terms.real.items()},
            {-k: -jnp.roll(w, k) for k, w in terms.imaginary.items()},
            {(-k, -m): (jnp.roll(u, k), jnp.roll(v, m)) for (k, m), (u, v) in terms.jumps.items()},
        )

    def apply(self, terms: _Terms, framed: Float[Array, "framed states"]) -> Float[Array, "states states"]:
        """dX/dt, one fused pass over X and its transpose."""
        direct = shifts(framed, self.margin)
        result = _from_the_left_and_right(terms, direct)
        transposed = shifts(_transposed(framed, self.margin), self.margin)
        for k, w in terms.imaginary.items():
            result += w[:, None] * transposed(k, 0) - w * transposed(0, k)
        return result

    def slopes(
        self, cotangent: Float[Array, "framed states"], state: Float[Array, "framed states"]
    ) -> list[Float[Array, "states states"]]:
        r"""$Y \circ L_r X$ for every piece, of K_i its transpose; phases share one product, $Y^T \circ X$."""
        direct = shifts(state, self.margin)
        y, turned = (shifts(x, self.margin)(0, 0) for x in (cotangent, _transposed(cotangent, self.margin)))
        found = [turned * direct(0, 0)]
        for piece in map(partial(_typed, state.dtype), self.pieces):
            if _is_phase(piece):
                continue
            if piece.imaginary:
                parts = [w * direct(0, k) - w[:, None] * direct(k, 0) for k, w in piece.imaginary.items()]
                found.append(turned * reduce(add, parts))
            else:
                found.append(y * _from_the_left_and_right(piece, direct))
        return found

    def gathered(self, slopes: list[Float[Array, "states states"]]) -> Float[Array, " rates"]:
        turned, *others = slopes
        balance = jnp.sum(turned, axis=0) - jnp.sum(turned, axis=1)
        rest = iter(others)
        return jnp.stack(
            [
                jnp.vdot(balance, piece.imaginary[0]) if _is_phase(piece) else jnp.sum(next(rest))
                for piece in map(partial(_typed, turned.dtype), self.pieces)
            ]
        )


def _from_the_left_and_right(terms: _Terms, direct: Callable[[int, int], Array]) -> Float[Array, "states states"]:
    """K_r X + X K_r^T and the jumps."""
    parts = [w[:, None] * direct(k, 0) + w * direct(0, k) for k, w in terms.real.items()]
    parts += [(u[:, None] * v) * direct(k, m) for (k, m), (u, v) in terms.jumps.items()]
    return reduce(add, parts)


def _transposed(state: Float[Array, "framed states"], margin: int) -> Float[Array, "framed states"]:
    return framed(inner(state, margin).T, margin)


def _typed(dtype: Any, piece: _Terms) -> _Terms:
    return jax.tree.map(lambda w: jnp.asarray(w, dtype), piece)


def _is_phase(piece: _Terms) -> bool:
    """Whether it is a diagonal Hamiltonian."""
    return set(piece.imaginary) == {0}


def _rows_of(piece: _Terms) -> list[int]:
    return [*piece.real, *piece.imaginary, *(k for k, _ in piece.jumps)]


@cache
def _master_equation(
    levels: tuple[int, ...], port: Literal["separate", "joint"], kerr: bool, thermal: bool
) -> _MasterEquation:
    """Pieces for drives, detunings, conversions, Kerr terms, emission and absorption."""
    lower, numbers, modes = _annihilators(levels), _numbers(levels), range(len(levels))
    raising = [_adjoint(a) for a in lower]
    pieces = [_Terms(_added(a, {k: -w for k, w in _adjoint(a).items()}), {}, {}) for a in lower]
    pieces += [_Terms({}, {0: -number}, {}) for number in numbers]
    for i, j in _pairs(len(levels)):
        conversion = _added(_product(raising[i], lower[j]), _product(raising[j], lower[i]))
        pieces.append(_Terms({}, {k: -w for k, w in conversion.items()}, {}))
    if kerr:
        pieces += [_Terms({}, {0: -number * (number - 1) / 2}, {}) for number in numbers]
    for ladder in (lower, raising) if thermal else (lower,):
        for i, j in itertools.product(modes, modes):
            if i == j or port == "joint":
                ((k, u),), ((m, v),) = ladder[i].items(), ladder[j].items()
                damping = {k: -w / 2 for k, w in _product(_adjoint(ladder[i]), ladder[j]).items()}
                pieces.append(_Terms(damping, {}, {(k, m): (u, v)}))
    return _MasterEquation(pieces)


def _pack(rho: Complex[Array, "states states"]) -> Float[Array, "states states"]:
    """X = R + S of the Hermitian part R + i S of a matrix."""
    R, S = rho.real, rho.imag
    return (R + R.T + S - S.T) / 2


def _unpack(X: Float[Array, "states states"]) -> Complex[Array, "states states"]:
    return lax.complex((X + X.T) / 2, (X - X.T) / 2)


def _pairs(modes: int) -> list[tuple[int, int]]:
    return list(itertools.combinations(range(modes), 2))


def _numbers(levels: tuple[int, ...]) -> Float[np.ndarray, "modes states"]:
    """Photons of every mode in every basis state."""
    return np.indices(levels, dtype=float).reshape(len(levels), -1)


def _annihilators(levels: tuple[int, ...]) -> list[Diagonals]:
    """The truncated a_j on the product space; a_j has the one diagonal k = product of the later levels."""
    return [
        {math.prod(levels[j + 1 :]): np.where(n < levels[j] - 1, np.sqrt(n + 1.0), 0.0)}
        for j, n in enumerate(_numbers(levels))
    ]


def _adjoint(A: Diagonals) -> Diagonals:
    return {-k: _shift(w, -k) for k, w in A.items()}


def _product(A: Diagonals, B: Diagonals) -> Diagonals:
    product: Diagonals = {}
    for (k, v), (m, w) in itertools.product(A.items(), B.items()):
        product[k + m] = product.get(k + m, 0.0) + v * _shift(w, k)
    return product


def _shift(w: Float[np.ndarray, " states"], k: int) -> Float[np.ndarray, " states"]:
    """w[p + k] at p, and zero where there is none."""
    return np.pad(w, abs(k))[abs(k) + k :][: w.size]


def _added(A: Diagonals, B: Diagonals) -> Diagonals:
    return {k: np.add(A.get(k, 0.0), B.get(k, 0.0)) for k in {**A, **B}}


@cache
def _drive_spread(levels: int) -> float:
    """Largest minus smallest eigenvalue of i (a - a^dagger): twice the largest root of a Hermite polynomial."""
    return 2 * _largest_eigenvalue(np.sqrt(np.arange(1.0, levels)))


@cache
def _conversion_spread(first: int, second: int) -> float:
    """Largest minus smallest eigenvalue of a^dagger b + b^dagger a, one tridiagonal matrix a total photon number."""
    largest = 0.0
    for photons in range(1, first + second - 1):
        n = np.arange(max(0, photons - second + 1), min(first - 1, photons))
        largest = max(largest, _largest_eigenvalue(np.sqrt((n + 1.0) * (photons - n))))
    return 2 * largest


def _largest_eigenvalue(beside: Float[np.ndarray, " n"]) -> float:
    """Of the symmetric tridiagonal matrix with a zero diagonal and these elements beside it."""
    return float(np.linalg.eigvalsh(np.diag(beside, 1) + np.diag(beside, -1))[-1])
