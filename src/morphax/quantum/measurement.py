r"""What is read from bosonic modes: basis-state populations, photon numbers, quadratures; exact or from $N$ shots.

Two kinds of state are understood. **Coherent amplitudes** $\alpha$ (one complex number a mode) stand for the product
of coherent states, whose photon numbers are independent Poisson variables. A **density matrix** $\rho$ on truncated
levels, in the row-major basis $|n_1, n_2, \dots\rangle$, stands for anything.

Finite shots are drawn from the exact distribution of outcomes, never from a Gaussian put around the mean.
"""

import itertools
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, PRNGKeyArray

from morphax._checks import check_choice, check_count

Amplitudes = Complex[Array, " modes"]
DensityMatrix = Complex[Array, "states states"]
BasisState = tuple[int, ...]
Shots = Float[Array, ""] | None


class Measurement(eqx.Module):
    """What is read at the end of every input interval, for one kind of observable."""

    @abstractmethod
    def of_amplitudes(
        self, alpha: Amplitudes, *, shots: Shots = None, key: PRNGKeyArray | None = None
    ) -> Float[Array, " neurons"]:
        """Read a product of coherent states, exactly or from `shots` repetitions."""

    @abstractmethod
    def of_density_matrix(
        self,
        rho: DensityMatrix,
        levels: tuple[int, ...],
        *,
        shots: Shots = None,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, " neurons"]:
        """Read a density matrix, exactly or from `shots` repetitions."""

    def check(self, levels: tuple[int, ...]) -> None:
        """Refuse, by `ValueError`, a measurement that these modes do not admit."""


class Populations(Measurement):
    r"""Occupation probabilities $p(n) = \langle n | \rho | n \rangle$ of chosen basis states (Dudas et al., Eq. 11).

    One shot detects the photon numbers of all modes at once, so counts are multinomial over the chosen states and
    "any other state". Range of each neuron: [0, 1].

    **Arguments:** `states`: tuples of photon numbers, one number a mode.

        >>> import jax.numpy as jnp
        >>> from morphax.quantum import Populations
        >>> vacuum_and_one = Populations(states=((0,), (1,)))
        >>> [round(p, 4) for p in vacuum_and_one.of_amplitudes(jnp.array([1.0 + 0.0j])).tolist()]  # Poisson, mean 1
        [0.3679, 0.3679]
    """

    states: tuple[BasisState, ...] = eqx.field(static=True)

    def of_amplitudes(
        self, alpha: Amplitudes, *, shots: Shots = None, key: PRNGKeyArray | None = None
    ) -> Float[Array, " neurons"]:
        numbers = np.array(self.states)
        weights = poisson_weights(photon_numbers(alpha), int(numbers.max()) + 1)
        modes = np.arange(numbers.shape[1])
        return _frequencies(jnp.prod(weights[modes, numbers], axis=1), shots, key)

    def of_density_matrix(
        self,
        rho: DensityMatrix,
        levels: tuple[int, ...],
        *,
        shots: Shots = None,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, " neurons"]:
        indices = np.ravel_multi_index(tuple(np.array(self.states).T), levels)
        return _frequencies(jnp.diagonal(rho).real[indices], shots, key)

    def check(self, levels: tuple[int, ...]) -> None:
        if not self.states:
            raise ValueError("measured holds no state; it must hold at least 1")
        for state in self.states:
            if len(state) != len(levels) or any(not 0 <= n < top for n, top in zip(state, levels, strict=False)):
                raise ValueError(
                    f"measured state {state} does not exist; it must hold {len(levels)} photon numbers, each below "
                    f"the mode's number of levels {levels}"
                )
        if len(set(self.states)) != len(self.states):
            raise ValueError("measured holds a state twice; every state must be different")


class PhotonNumbers(Measurement):
    r"""Mean photon number $\langle a_j^\dagger a_j \rangle$ of every mode; a shot counts photons in all modes."""

    def of_amplitudes(
        self, alpha: Amplitudes, *, shots: Shots = None, key: PRNGKeyArray | None = None
    ) -> Float[Array, " neurons"]:
        mean = photon_numbers(alpha)
        if shots is None:
            return mean
        # The sum of `shots` independent Poisson counts is itself Poisson.
        return jax.random.poisson(_required(key), shots * mean).astype(mean.dtype) / shots

    def of_density_matrix(
        self,
        rho: DensityMatrix,
        levels: tuple[int, ...],
        *,
        shots: Shots = None,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, " neurons"]:
        keys = _split(key, len(levels))
        means = []
        for mode, top in enumerate(levels):
            numbers = _frequencies(jnp.diagonal(reduced(rho, levels, mode)).real, shots, keys[mode])
            means.append(numbers @ jnp.arange(top, dtype=numbers.dtype))
        return jnp.stack(means)


class Quadratures(Measurement):
    r"""Means of $X_j = (a_j + a_j^\dagger)/\sqrt 2$ of all modes, then of $P_j = (a_j - a_j^\dagger)/(i \sqrt 2)$.

    The vacuum variance is 1/2. With finite shots each quadrature is read by homodyne detection in `shots` runs of its
    own. A density matrix is sampled on a grid of `resolution` bins.
    """

    resolution: int = eqx.field(static=True, default=400)

    def of_amplitudes(
        self, alpha: Amplitudes, *, shots: Shots = None, key: PRNGKeyArray | None = None
    ) -> Float[Array, " neurons"]:
        mean = jnp.sqrt(2.0) * jnp.concatenate([alpha.real, alpha.imag])
        if shots is None:
            return mean
        return mean + jax.random.normal(_required(key), mean.shape, mean.dtype) / jnp.sqrt(2 * shots)

    def of_density_matrix(
        self,
        rho: DensityMatrix,
        levels: tuple[int, ...],
        *,
        shots: Shots = None,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, " neurons"]:
        keys = _split(key, 2 * len(levels))
        means = []
        for phase, mode in itertools.product((0.0, np.pi / 2), range(len(levels))):
            single = reduced(rho, levels, mode)
            if shots is None:
                ladder = np.sqrt(np.arange(1, levels[mode]))
                mean_a = jnp.sum(jnp.diagonal(single, -1) * ladder)
                means.append(jnp.sqrt(2.0) * (mean_a * jnp.exp(-1j * phase)).real)
            else:
                positions, probabilities = homodyne_distribution(single, phase, self.resolution)
                means.append(_frequencies(probabilities, shots, keys[len(means)]) @ positions)
        return jnp.stack(means).astype(jnp.diagonal(rho).real.dtype)


class TopLevels(Measurement):
    """Probability that each mode holds at least its highest level's photons: what a truncation can get wrong.

    On a density matrix this is the population of the highest level; on coherent amplitudes the Poisson tail from that
    level on, which a truncated simulation of the same state would have to squeeze into it.
    """

    levels: tuple[int, ...] = eqx.field(static=True)

    def of_amplitudes(
        self, alpha: Amplitudes, *, shots: Shots = None, key: PRNGKeyArray | None = None
    ) -> Float[Array, " neurons"]:
        weights = poisson_weights(photon_numbers(alpha), max(self.levels))
        below = jnp.arange(max(self.levels)) < jnp.array(self.levels)[:, None] - 1
        return 1 - jnp.sum(jnp.where(below, weights, 0), axis=1)

    def of_density_matrix(
        self,
        rho: DensityMatrix,
        levels: tuple[int, ...],
        *,
        shots: Shots = None,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, " neurons"]:
        return jnp.stack([reduced(rho, levels, mode)[-1, -1].real for mode in range(len(levels))])


def basis_states(
    levels: Sequence[int], count: int, *, order: Literal["nested", "photons"] = "nested"
) -> tuple[BasisState, ...]:
    """The first `count` basis states of modes with these numbers of levels.

    `order="nested"` goes by the largest photon number in any mode, so that the first 4, 9, 16 states of two modes are
    |00> to |11>, |22>, |33> as measured in the paper; `order="photons"` goes by the total photon number, which suits
    many modes. Within a group the fewest photons come first.

    **Raises:** `ValueError` when there are fewer states than `count`.

        >>> from morphax.quantum import basis_states
        >>> basis_states((8, 8), 4)
        ((0, 0), (0, 1), (1, 0), (1, 1))
        >>> basis_states((8, 8, 8), 4, order="photons")
        ((0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0))
    """
    check_choice("order", order, ("nested", "photons"))
    available = int(np.prod([int(top) for top in levels], dtype=object))
    check_count("measured", count, 1, available)
    groups = _nested(len(levels)) if order == "nested" else _by_photons(len(levels))
    existing = (state for state in groups if all(n < top for n, top in zip(state, levels, strict=True)))
    return tuple(itertools.islice(existing, count))


def photon_numbers(alpha: Amplitudes) -> Float[Array, " modes"]:
    r"""Mean photon numbers $|\alpha_j|^2$ of coherent states."""
    return alpha.real**2 + alpha.imag**2


def poisson_weights(mean: Float[Array, " modes"], levels: int) -> Float[Array, "modes levels"]:
    r"""$P(n) = e^{-\mu} \mu^n / n!$ for $n < $ `levels`; smooth at $\mu = 0$."""
    weights = [jnp.exp(-mean)]
    for n in range(1, levels):
        weights.append(weights[-1] * mean / n)
    return jnp.stack(weights, axis=-1)


def reduced(rho: DensityMatrix, levels: tuple[int, ...], mode: int) -> Complex[Array, "levels levels"]:
    """The reduced density matrix of one mode: the partial trace over all others."""
    before, after = int(np.prod(levels[:mode])), int(np.prod(levels[mode + 1 :]))
    shape = (before, levels[mode], after)
    return jnp.einsum("aibajb->ij", rho.reshape(shape + shape))


def coherent_state(alpha: Amplitudes, levels: tuple[int, ...]) -> DensityMatrix:
    """The density matrix of a product of coherent states, cut off at `levels` (its trace shows what is cut off)."""
    psi = jnp.ones(1, alpha.dtype)
    for mode, top in enumerate(levels):
        factor = [jnp.exp(-photon_numbers(alpha[mode]) / 2).astype(alpha.dtype)]
        for n in range(1, top):
            factor.append(factor[-1] * alpha[mode] / np.sqrt(n))
        psi = jnp.kron(psi, jnp.stack(factor))
    return jnp.outer(psi, psi.conj())


def homodyne_distribution(
    rho: Complex[Array, "levels levels"], phase: float, bins: int
) -> tuple[Float[Array, " bins"], Float[Array, " bins"]]:
    r"""Positions $x$ and probabilities of the quadrature $X \cos\phi + P \sin\phi$ of one mode.

    $p(x) = \sum_{mn} \rho_{mn} e^{-i (m - n) \phi} \psi_m(x) \psi_n(x)$ with the oscillator's Hermite functions
    $\psi_n$, normalised on a grid that reaches 4 standard deviations of the vacuum beyond the classical turning point.
    """
    levels = rho.shape[0]
    reach = np.sqrt(2 * levels + 1) + 4 / np.sqrt(2)
    positions = np.linspace(-reach, reach, bins)
    functions = [np.pi**-0.25 * np.exp(-(positions**2) / 2)]
    for n in range(1, levels):
        below = functions[n - 2] if n > 1 else 0.0
        functions.append(np.sqrt(2 / n) * positions * functions[-1] - np.sqrt((n - 1) / n) * below)
    hermite = np.stack(functions) * np.exp(-1j * phase * np.arange(levels))[:, None]
    density = jnp.einsum("mn,mx,nx->x", rho, hermite, hermite.conj()).real
    probabilities = jnp.maximum(density, 0)
    return jnp.asarray(positions, density.dtype), probabilities / probabilities.sum()


def _frequencies(probabilities: Array, shots: Shots, key: PRNGKeyArray | None) -> Array:
    """Relative frequencies of the given outcomes in `shots` multinomial trials; the probabilities when `shots` is None.

    What is missing to 1 is the outcome "anything else".
    """
    if shots is None:
        return probabilities
    known = jnp.clip(probabilities, 0, 1)
    other = jnp.maximum(1 - known.sum(), 0)
    counts = jax.random.multinomial(_required(key), shots.astype(known.dtype), jnp.append(known, other))
    return counts[:-1].astype(known.dtype) / shots


def _required(key: PRNGKeyArray | None) -> PRNGKeyArray:
    if key is None:
        raise ValueError("key is None; a finite number of shots is random and needs a key (evolve(..., key=...))")
    return key


def _split(key: PRNGKeyArray | None, count: int) -> Sequence[PRNGKeyArray | None]:
    return [None] * count if key is None else list(jax.random.split(key, count))


def _nested(modes: int) -> Iterator[BasisState]:
    for largest in itertools.count():
        shell = (state for state in itertools.product(range(largest + 1), repeat=modes) if max(state) == largest)
        yield from sorted(shell, key=lambda state: (sum(state), state))


def _by_photons(modes: int) -> Iterator[BasisState]:
    for total in itertools.count():
        yield from sorted(_compositions(total, modes), key=lambda state: (max(state), state))


def _compositions(total: int, modes: int) -> Iterator[BasisState]:
    if modes == 1:
        yield (total,)
        return
    for first in range(total + 1):
        for rest in _compositions(total - first, modes - 1):
            yield (first, *rest)
