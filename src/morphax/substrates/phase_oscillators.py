"""Coupled phase oscillators: the XY model, and the Kuramoto dynamics that descends in its energy."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PRNGKeyArray

from morphax._checks import check_finite, check_range, check_shape, is_concrete
from morphax.dynamics.relaxation import AcceleratedDescent, BlockSweeps, Landscape, Relaxer, Slope, Sweeps
from morphax.dynamics.trigonometry import arctan2, sin_cos
from morphax.pytrees import DEVICE, WEIGHT
from morphax.substrates.energy import (
    Cost,
    EnergySubstrate,
    Nudge,
    golden_sequence,
    phase_overlap,
    phase_squared_error,
    slope,
    wrap,
)
from morphax.substrates.topology import Group, Topology, back, taken

NEWTON_STEPS = 2  # of a nudged output in a sweep
OVERSHOOT = 0.6  # of the way to the best phase: about halves the number of sweeps
MANY_UNITS = 50  # with the inputs; in smaller networks descent and sweeps rest at different mean energies


class PhaseOscillators(EnergySubstrate):
    r"""A network of phase oscillators, some clamped to the inputs, that relaxes in the energy of an XY model.

    $$E = -\sum_{i<j} W_{ij} \cos(\phi_i - \phi_j) - \sum_i h_i \cos(\phi_i - \psi_i) - \sum_i \omega_i \phi_i, \qquad
      \frac{d\phi_i}{dt} = -\frac{\partial E}{\partial \phi_i}$$

    Couplings and energies are in units of a rate, time in its inverse. With $\omega \ne 0$ (natural frequencies,
    relative to that of the inputs) this is the Kuramoto model; oscillators whose frequency exceeds what pulls them do
    not lock, and no equilibrium exists: a relaxation then reports that it did not converge.

    **Arguments:**

    - `topology`: couplings that exist, inputs, outputs: `Topology.all_to_all`, `.layered`, `.lattice`, or from edges.
    - `couplings`: $W$, one number for each of `topology.edges`: shape (couplings,).
    - `bias_strengths`, `bias_phases`: $h$, $\psi$ of the free units in ascending order, shape (free,); 0 by default.
    - `frequencies`: $\omega$ of the free units, shape (free,); 0 by default.

    **State:** phases of the free units, shape (free,). **Drive:** phases of the inputs, shape (inputs,).
    **Observation:** phases of the outputs in $[-\pi, \pi[$. Costs of a nudge must be periodic.

    `relax` descends by `BlockSweeps` in small networks and where units fall into two groups without inner couplings
    (layers, lattices), else by `AcceleratedDescent`. In a sweep an oscillator goes to its best phase, all others given:
    the angle of the field that it feels. Units that are not coupled to each other move at once; others in chunks, held
    back by the sum of a unit's couplings in its chunk, which keeps every sweep of a free network from raising the
    energy.

    **Raises:** `ValueError` for wrong shapes, NaN or infinity.

    Source: Wang, Wanjura & Marquardt, "Training coupled phase oscillators as a neuromorphic platform using equilibrium
    propagation" (2024), Eqs. 1, 2.

        >>> import jax, jax.numpy as jnp
        >>> from morphax import PhaseOscillators
        >>> network = PhaseOscillators.layered((2, 5, 1), key=jax.random.key(0))
        >>> rest = network.relax(jnp.array([0.5, -0.5]), key=jax.random.key(1))
        >>> network.observe(rest.state).shape, bool(rest.converged)
        ((1,), True)
    """

    couplings: Float[Array, " couplings"] = eqx.field(metadata=WEIGHT)
    bias_strengths: Float[Array, " free"] = eqx.field(metadata=WEIGHT)
    bias_phases: Float[Array, " free"] = eqx.field(metadata=WEIGHT)
    frequencies: Float[Array, " free"] = eqx.field(metadata=DEVICE)
    topology: Topology = eqx.field(static=True)

    def __init__(
        self,
        topology: Topology,
        couplings: ArrayLike,
        *,
        bias_strengths: ArrayLike | None = None,
        bias_phases: ArrayLike | None = None,
        frequencies: ArrayLike | None = None,
    ):
        check_shape("couplings", couplings, (len(topology.edges),))
        free = len(topology.free)
        fields = {"bias_strengths": bias_strengths, "bias_phases": bias_phases, "frequencies": frequencies}
        values = {name: jnp.zeros(free) if value is None else value for name, value in fields.items()}
        for name, value in values.items():
            check_shape(name, value, (free,))
        for name, value in {"couplings": couplings, **values}.items():
            check_finite(name, value)
            setattr(self, name, jnp.asarray(value, jnp.result_type(float)))
        self.topology = topology

    @classmethod
    def from_matrix(
        cls,
        couplings: ArrayLike | Sequence[Sequence[float]],
        *,
        inputs: Sequence[int],
        outputs: Sequence[int],
        connected: ArrayLike | None = None,
        **rest: Any,
    ) -> "PhaseOscillators":
        """A network from a symmetric matrix of couplings, shape (units, units); its diagonal is not used.

        `connected` is a symmetric mask of the couplings that exist; by default those that are not 0. `rest` are biases
        and frequencies, as above.

        **Raises:** `ValueError` for a matrix or mask that is not square or not symmetric.
        """
        matrix = _symmetric("couplings", couplings)
        mask = matrix != 0 if connected is None else _symmetric("connected", np.asarray(connected, bool))
        check_shape("connected", mask, matrix.shape)
        edges = np.argwhere(np.triu(mask, 1))
        topology = Topology(len(matrix), edges, inputs=inputs, outputs=outputs)
        return cls(topology, matrix[tuple(topology.edges.T)], **rest)

    @classmethod
    def from_topology(
        cls,
        topology: Topology,
        *,
        coupling_deviation: ArrayLike | None = None,
        bias_scale: float = 0.0,
        frequency_deviation: float = 0.0,
        key: PRNGKeyArray,
    ) -> "PhaseOscillators":
        r"""Normal couplings, biases uniform in strength and phase.

        - `coupling_deviation`: standard deviation of the couplings, one number or one for each; by default
          $1 / \sqrt{\mathrm{units}}$.
        - `bias_scale`: strengths are uniform in $\pm$ this; phases are uniform on the circle.
        - `frequency_deviation`: standard deviation of the natural frequencies.
        """
        deviation = (
            topology.units**-0.5
            if coupling_deviation is None
            else jnp.asarray(coupling_deviation, jnp.result_type(float))
        )
        for name, value in (
            ("coupling_deviation", deviation),
            ("bias_scale", bias_scale),
            ("frequency_deviation", frequency_deviation),
        ):
            check_range(name, value, low=0.0)
        first, second, third, fourth = jax.random.split(key, 4)
        free = len(topology.free)
        return cls(
            topology,
            deviation * jax.random.normal(first, (len(topology.edges),)),
            bias_strengths=bias_scale * jax.random.uniform(second, (free,), minval=-1, maxval=1),
            bias_phases=jax.random.uniform(third, (free,), minval=-jnp.pi, maxval=jnp.pi),
            frequencies=frequency_deviation * jax.random.normal(fourth, (free,)),
        )

    @classmethod
    def layered(cls, layers: Sequence[int], *, key: PRNGKeyArray, **rest: Any) -> "PhaseOscillators":
        r"""Layers with random couplings: standard deviation $1 / \sqrt{N_i + N_{i+1}}$ between layers i and i + 1."""
        topology = Topology.layered(layers)
        sizes = [(a * b, (a + b) ** -0.5) for a, b in pairwise(layers)]
        scale = np.concatenate([np.full(number, deviation) for number, deviation in sizes])
        return cls.from_topology(topology, **{"coupling_deviation": scale, **rest}, key=key)

    @classmethod
    def all_to_all(
        cls, inputs: int, hidden: int, outputs: int, *, key: PRNGKeyArray, **rest: Any
    ) -> "PhaseOscillators":
        """All coupled to all; the rest as in `from_topology`."""
        return cls.from_topology(Topology.all_to_all(inputs, hidden, outputs), **rest, key=key)

    @property
    def matrix(self) -> Float[Array, "units units"]:
        """All couplings as a symmetric matrix."""
        return self._taken(self.topology.edge_at)

    @property
    def channels(self) -> int:
        """The clamped units."""
        return len(self.topology.inputs)

    @property
    def default_cost(self) -> Cost:
        """Minus the logarithm of the overlap (Wang et al., Eq. 4): outputs are phases."""
        return phase_overlap

    @property
    def quadratic_cost(self) -> Cost:
        """Half the squared angle."""
        return phase_squared_error

    @property
    def default_relaxer(self) -> Relaxer:
        """Accelerated descent in networks of 50 units and more with couplings inside of `groups`; else sweeps."""
        layered = self.topology.blocks is self.topology.groups
        return BlockSweeps() if layered or self.topology.units < MANY_UNITS else AcceleratedDescent()

    def initial_state(self, *, key: PRNGKeyArray | None = None) -> Float[Array, " free"]:
        r"""Phases uniform in $[-\pi, \pi[$; without a key spread over it by the golden ratio.

        With inputs of 0 or $\pi$ and no bias no torque acts where all phases are 0 or $\pi$: mostly a saddle.
        """
        free = len(self.topology.free)
        if key is None:
            return jnp.pi * (2 * golden_sequence(free) - 1)
        return jax.random.uniform(key, (free,), minval=-jnp.pi, maxval=jnp.pi)

    def observe(self, state: Float[Array, " free"], *, key: PRNGKeyArray | None = None) -> Float[Array, " outputs"]:
        r"""Phases of the outputs in $[-\pi, \pi[$."""
        return wrap(state[self.topology.read])

    def energy(self, state: Float[Array, " free"], drive: Float[Array, " inputs"]) -> Float[Array, ""]:
        """Eq. 1, less the couplings among inputs, which are clamped."""
        return self._fields(self.topology.blocks, drive).slope(state).energy

    def force(self, state: Float[Array, " free"], drive: Float[Array, " inputs"]) -> Float[Array, " free"]:
        """Eq. 2, two products with the couplings."""
        return self.landscape(drive).force(state)

    def landscape(self, drive: Float[Array, " inputs"], nudge: Nudge | None = None) -> Landscape:
        """Force, slopes and sweeps; what the inputs do is computed once."""
        check_shape("drive", drive, (len(self.topology.inputs),))
        blocks, groups = self.topology.blocks, self.topology.groups
        apart = self._fields(blocks, drive)
        swept = apart if blocks is groups else self._fields(groups, drive)

        def slope_at(state: Array) -> Slope:
            inner = apart.slope(state)
            return inner if nudge is None else _nudged_slope(inner, nudge, state, self.topology.read)

        def sweep(units: tuple[Array, ...]) -> tuple[tuple[Array, ...], Array]:
            largest = jnp.asarray(0.0, units[0].dtype)
            for index, group in enumerate(groups):
                inner, around = swept.matrices[index][index], swept.on(index, units, own=False)
                unit, frequency = units[index], swept.frequencies[index]
                if inner is None:
                    torque = _torque(unit, around, frequency)
                    moved = _beyond(_aligned(around, frequency, unit), unit)
                    if nudge is not None and len(group.outputs):
                        moved, torque = _pulled(group, nudge, around, unit, frequency, moved, torque)
                    met = jnp.max(jnp.abs(torque), initial=0.0)
                else:
                    moved, met = _sweep_inside(group, nudge, inner, around, unit, frequency)
                largest = jnp.maximum(largest, met)
                units = (*units[:index], moved, *units[index + 1 :])
            return units, largest

        def decode(units: tuple[Array, ...]) -> Array:
            cosines, sines = taken(jnp.concatenate(units, axis=-1), back(groups))
            return arctan2(sines, cosines)

        sweeps = Sweeps(lambda state: _encoded(groups, state), sweep, decode)
        return Landscape(lambda state: slope_at(state).force, sweeps, slope_at)

    def distance(self, first: Float[Array, " free"], second: Float[Array, " free"]) -> Float[Array, ""]:
        """Largest difference of two phases, around the circle."""
        return jnp.max(jnp.abs(wrap(first - second)), initial=0.0)

    def check_targets(self, targets: Any) -> None:
        """Refuse what is no phase."""
        if not is_concrete(targets):
            return
        values = np.asarray(targets)
        check_finite("targets", values)
        outside = np.abs(values) > np.pi * (1 + 1e-6)
        if outside.any():
            raise ValueError(
                f"targets is {values[outside].flat[0]:g}; a phase is from -pi to pi. Encode a number x in [0, 1] as "
                "pi (x - 1/2), a class as pi/2 for the right output and -pi/2 for the others"
            )

    def _taken(self, numbers: np.ndarray) -> Array:
        """Couplings by their numbers, 0 where there is none."""
        return jnp.append(self.couplings, 0.0)[numbers]

    def _fields(self, groups: tuple[Group, ...], drive: Array) -> "_Fields":
        return _Fields(
            groups,
            tuple(tuple(None if e is None else self._taken(e) for e in group.edges) for group in groups),
            tuple(self._outside(groups, drive)),
            tuple(jnp.where(group.units < 0, 0.0, self.frequencies[group.units]) for group in groups),
        )

    def _outside(self, groups: tuple[Group, ...], drive: Array) -> list[Array]:
        """The field of inputs and biases on every group, (cosine, sine): shape (2, units of the group)."""
        clamped = _circle(drive)
        bias = self.bias_strengths * _circle(self.bias_phases)
        fields = []
        for group in groups:
            local = jnp.where(group.units < 0, 0.0, bias[:, group.units])
            if group.input_edges is not None:
                local = local + clamped @ self._taken(group.input_edges).T
            fields.append(local)
        return fields


class _Fields(NamedTuple):
    """What acts on every group: couplings to each of them (None: none), the field from outside, and frequencies."""

    groups: tuple[Group, ...]
    matrices: tuple[tuple[Array | None, ...], ...]
    outside: tuple[Array, ...]
    frequencies: tuple[Array, ...]

    def on(self, index: int, units: Sequence[Array], part: int | None = None, *, own: bool = True) -> Array:
        """The field on group `index`, with what its own units do to each other or without.

        Of unit vectors (cosine, sine), or of one part of them.
        """
        total = self.outside[index] if part is None else self.outside[index][part]
        for other, matrix in enumerate(self.matrices[index]):
            if matrix is not None and (own or other != index):
                total = total + units[other] @ matrix.T
        return total

    def slope(self, state: Array) -> Slope:
        """Without a nudge. Cosines and sines are kept apart: stacked, they would be copied around."""
        sines, cosines = ([taken(each, group.units) for group in self.groups] for each in sin_cos(state))
        energies, torques, curvatures = [], [], []
        for index, (sine, cosine) in enumerate(zip(sines, cosines, strict=True)):
            along, across = self.on(index, cosines, 0), self.on(index, sines, 1)
            outside, frequency = self.outside[index], self.frequencies[index]
            torques.append(cosine * across - sine * along + frequency)
            curvatures.append(cosine * along + sine * across)
            # Of couplings each has two ends.
            pairs = (curvatures[-1] + cosine * outside[0] + sine * outside[1]) / 2
            energies.append(-jnp.sum(pairs) - frequency @ taken(state, self.groups[index].units))
        places = back(self.groups)
        torque, curvature = (taken(jnp.concatenate(each), places) for each in (torques, curvatures))
        return Slope(sum(energies[1:], start=energies[0]), torque, curvature)


def _nudged_slope(inner: Slope, nudge: Nudge, state: Array, read: np.ndarray) -> Slope:
    """With what a nudge adds to the outputs."""
    outputs = taken(state, read)
    slopes, bends = jax.jvp(lambda o: slope(nudge.cost, o, nudge.targets), (outputs,), (jnp.ones_like(outputs),))
    return Slope(
        inner.energy + nudge.energy(outputs),
        inner.force.at[read].add(-nudge.times(slopes)),
        inner.curvature.at[read].add(nudge.times(bends)),
    )


def _encoded(groups: tuple[Group, ...], state: Array) -> tuple[Array, ...]:
    """Unit vectors of each group, (cosine, sine): shape (2, units of the group)."""
    circle = _circle(state)
    return tuple(taken(circle, group.units) for group in groups)


def _circle(phases: Array) -> Array:
    """Unit vectors (cosine, sine): shape (2, phases)."""
    sine, cosine = sin_cos(phases)
    return jnp.stack([cosine, sine])


def _torque(unit: Array, local: Array, frequency: Array) -> Array:
    return unit[0] * local[1] - unit[1] * local[0] + frequency


def _sweep_inside(
    group: Group, nudge: Nudge | None, inner: Array, around: Array, unit: Array, frequency: Array
) -> tuple[Array, Array]:
    """Sweep units that are coupled to each other, chunk by chunk, in the field `around` of all others.

    In a chunk all move at once, held back by the sum of a unit's couplings in it: then the energy cannot rise.
    """
    size = len(group.units) // group.chunks
    rows = inner.reshape(group.chunks, size, -1)
    blocks = inner.reshape(group.chunks, size, group.chunks, size)
    damping = jnp.sum(jnp.abs(jnp.einsum("cicj->cij", blocks)), axis=-1)

    def move(chunk: Any, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        whole, largest = carry
        part, local, own = (jax.lax.dynamic_slice_in_dim(x, chunk * size, size, -1) for x in (whole, around, frequency))
        local = local + whole @ rows[chunk].T
        torque = _torque(part, local, own)
        local = local + damping[chunk] * part
        moved = _beyond(_aligned(local, own, part), part)
        if nudge is not None and len(group.outputs):
            moved, torque = _pulled(group, nudge, local, part, own, moved, torque)
        largest = jnp.maximum(largest, jnp.max(jnp.abs(torque), initial=0.0))
        return jax.lax.dynamic_update_slice_in_dim(whole, moved, chunk * size, -1), largest

    start = (unit, jnp.asarray(0.0, unit.dtype))
    return move(0, start) if group.chunks == 1 else jax.lax.fori_loop(0, group.chunks, move, start)


def _pulled(
    group: Group, nudge: Nudge, local: Array, unit: Array, frequency: Array, moved: Array, torque: Array
) -> tuple[Array, Array]:
    """Where the nudged units of a group move, and their torque before, put in among the others."""
    at = group.places
    phases, pulled = _nudged(local[:, at], unit[:, at], frequency[at], nudge, nudge.targets[group.outputs])
    return moved.at[:, at].set(_circle(phases)), torque.at[at].set(pulled)


def _aligned(local: Array, frequency: Array, before: Array) -> Array:
    """Unit vectors along the field, ahead of it by the angle at which its torque balances the frequency."""
    square = jnp.sum(local**2, axis=0)
    inverse = jax.lax.rsqrt(jnp.where(square > 0, square, 1.0))
    ahead = jnp.clip(frequency * inverse, -1, 1)
    behind = jnp.sqrt(1 - ahead**2)
    cosine, sine = local * inverse
    return jnp.where(square > 0, jnp.stack([cosine * behind - sine * ahead, sine * behind + cosine * ahead]), before)


def _beyond(best: Array, before: Array) -> Array:
    r"""Beyond the best unit vector by `OVERSHOOT` of the angle to it, or on it when that angle exceeds 90 degrees.

    The energy as a function of one angle is symmetric about its minimum: what lies nearer to it than before is lower.
    """
    along = jnp.sum(best * before, axis=0)
    share = jnp.where(along > 0, OVERSHOOT, 0.0)
    mixed = best * (1 - share + 2 * share * along) - share * before
    return mixed * jax.lax.rsqrt(jnp.sum(mixed**2, axis=0))


def _nudged(local: Array, unit: Array, frequency: Array, nudge: Nudge, targets: Array) -> tuple[Array, Array]:
    r"""Nearer to the phase at which field, frequency and nudge balance, and the torque that there was.

    Newton steps inside a bracket, with $x = \phi - \phi^\tau$, for $f \sin(x - d) - \omega + \beta c'(x) = 0$: between
    the target (x = 0) and where the output would be without nudge, or beyond that when the nudge pushes away.
    """
    strength = jnp.linalg.norm(local, axis=0)
    ahead = jnp.arcsin(jnp.clip(frequency / jnp.where(strength > 0, strength, 1.0), -1, 1))
    direction = wrap(arctan2(local[1], local[0]) - targets)
    unpulled = wrap(direction + ahead)
    side = jnp.where(unpulled < 0, -1.0, 1.0)
    far = jnp.abs(unpulled)
    pulls = nudge.strength >= 0
    low = jnp.where(pulls, 0.0, far)
    high = jnp.where(pulls, far, jnp.minimum(far + jnp.pi / 2, jnp.pi))

    def gradient(x: Array) -> Array:
        push = nudge.strength * slope(nudge.cost, targets + side * x, targets)
        return side * (strength * jnp.sin(side * x - direction) - frequency + push)

    x = side * wrap(arctan2(unit[1], unit[0]) - targets)
    unbalanced = gradient(x)
    x = jnp.clip(x, low, high)
    for _ in range(NEWTON_STEPS):
        value, curvature = jax.jvp(gradient, (x,), (jnp.ones_like(x),))
        low, high = jnp.where(value < 0, x, low), jnp.where(value < 0, high, x)
        newton = x - value / jnp.where(curvature > 0, curvature, 1.0)
        inside = (curvature > 0) & (newton >= low) & (newton <= high)
        x = jnp.where(inside, newton, (low + high) / 2)
    return targets + side * x, unbalanced


def _symmetric(name: str, value: ArrayLike | Sequence[Sequence[float]]) -> np.ndarray:
    matrix = np.asarray(value)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"{name} has shape {matrix.shape}; it must be square, (units, units)")
    check_finite(name, matrix)
    wrong = np.argwhere(~np.isclose(matrix, matrix.T, rtol=1e-6, atol=0))
    if len(wrong):
        i, j = map(int, wrong[0])
        raise ValueError(f"{name}[{i}, {j}] is {matrix[i, j]:g}, {name}[{j}, {i}] is {matrix[j, i]:g}; must be equal")
    return matrix
