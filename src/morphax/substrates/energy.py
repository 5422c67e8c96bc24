"""Substrates that relax: an energy, the force that follows from it, and the equilibrium where it vanishes."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PRNGKeyArray

from morphax.dynamics.relaxation import Landscape, Relaxation, Relaxer, RungeKutta, Slope, Sweeps
from morphax.substrates.base import State, Substrate
from morphax.substrates.wrappers import Wrapper, keeps

Cost = Callable[[Array, Array], Array]


class Nudge(eqx.Module):
    r"""What pulls the outputs towards targets: the energy $\beta \sum_i c(o_i, t_i)$ (Wang et al., Eq. 5).

    **Arguments:**

    - `cost`: $c$, elementwise: `phase_distance`, `phase_overlap`, `phase_squared_error`, `squared_error` or your own.
    - `strength`: $\beta$; 0 is the free system.
    - `targets`: $t$, shape (outputs,).
    """

    cost: Cost = eqx.field(static=True)
    strength: Float[Array, ""]
    targets: Float[Array, " outputs"]

    def __init__(self, cost: Cost, strength: ArrayLike, targets: ArrayLike):
        self.cost, self.strength, self.targets = cost, jnp.asarray(strength), jnp.asarray(targets)

    def energy(self, outputs: Float[Array, " outputs"]) -> Float[Array, ""]:
        """What it adds to the energy."""
        return self.times(jnp.sum(self.cost(outputs, self.targets)))

    def force(self, outputs: Float[Array, " outputs"]) -> Float[Array, " outputs"]:
        """What it adds to the force on every output."""
        return -self.times(slope(self.cost, outputs, self.targets))

    def times(self, number: Array) -> Array:
        """The strength times a number, which need not be finite where the strength is 0."""
        return jnp.where(self.strength == 0, 0.0, self.strength * number)


class Clamp(NamedTuple):
    """Holds outputs that are numbers of the state where they were set: which number each of them is."""

    places: State  # one hot: leaves (outputs, *shape of the leaf)

    def put(self, state: State, outputs: Float[Array, " outputs"]) -> State:
        """The state with these outputs."""
        return jax.tree.map(
            lambda s, p: jnp.where(jnp.any(p != 0, axis=0), jnp.tensordot(outputs, p, 1), s), state, self.places
        )

    def free(self, force: State) -> State:
        """The force on what is not held."""
        return jax.tree.map(lambda f, p: jnp.where(jnp.any(p != 0, axis=0), 0.0, f), force, self.places)


class EnergySubstrate(Substrate):
    r"""A physical system that relaxes to a minimum of an energy while its inputs are clamped.

    $$\frac{ds}{dt} = F(s, u) = -\frac{\partial E}{\partial s}(s, u)$$

    A new one defines `initial_state`, `energy` and `observe`. The rest follows, and may be overridden for speed:
    `force` (by default the derivative of the energy) and `landscape` (what all steps of a relaxation share, a nudge
    included, and the sweeps of a faster descent). One `step` is one relaxation: an input is clamped until the system
    has come to rest. Its derivative is that of the equilibrium, by the implicit function theorem,
    $ds = -(\partial F / \partial s)^{-1} \, dF$, however the equilibrium was found.

    Where an energy has a symmetry, `initial_state` without a key must not share it (`golden_sequence`): a relaxation
    keeps it, and ends in a saddle.

    Two springs, the second the output:

        >>> import equinox as eqx, jax, jax.numpy as jnp
        >>> from morphax import WEIGHT, EnergySubstrate
        >>> from morphax.dynamics.relaxation import RungeKutta
        >>> class Springs(EnergySubstrate):
        ...     stiffness: jax.Array = eqx.field(metadata=WEIGHT)
        ...     def initial_state(self, *, key=None):
        ...         return jnp.zeros(2)
        ...     def energy(self, state, drive):
        ...         x, y = state
        ...         return self.stiffness @ jnp.array([(x - drive[0]) ** 2, (y - x) ** 2]) / 2
        ...     def observe(self, state, *, key=None):
        ...         return state[1:]
        >>> rest = Springs(jnp.array([1.0, 2.0])).relax(jnp.array([0.5]), relaxer=RungeKutta(duration=50.0))
        >>> rest.state.round(3).tolist(), bool(rest.converged)
        ([0.5, 0.5], True)
    """

    @abstractmethod
    def energy(self, state: State, drive: Float[Array, "..."]) -> Float[Array, ""]:
        """The energy of a state with the inputs clamped to `drive`."""

    def force(self, state: State, drive: Float[Array, "..."]) -> State:
        """What drives the state, the time derivative of its free dynamics."""
        return jax.tree.map(jnp.negative, jax.grad(self.energy)(state, drive))

    def landscape(self, drive: Float[Array, "..."], nudge: Nudge | None = None) -> Landscape:
        """Force and sweeps with the inputs clamped."""

        if nudge is None:
            return Landscape(lambda state: self.force(state, drive))
        pulled = nudge

        def force(state: State) -> State:
            pull = jax.grad(lambda s: pulled.energy(self.observe(s)))(state)
            return jax.tree.map(jnp.subtract, self.force(state, drive), pull)

        return Landscape(force)

    @property
    def default_relaxer(self) -> Relaxer:
        """What `relax` uses when nothing is said: the dynamics; sweeps where the substrate has some."""
        return RungeKutta()

    @property
    def default_cost(self) -> Cost:
        """What compares an output with its target when nothing is said: the squared error, for outputs no phases."""
        return squared_error

    @property
    def quadratic_cost(self) -> Cost:
        """The squared distance of two observed numbers, half of it: a spring between them."""
        return squared_error

    def found(self, state: State, *, key: PRNGKeyArray | None = None) -> State:
        """What a laboratory finds after a relaxation that ended in `state`: that state, unless there is noise."""
        return state

    @property
    def clamp(self) -> Clamp:
        """What holds the outputs, where each of them is a number of the state."""
        return Clamp(jax.jacobian(self.observe)(self.initial_state()))

    def held(self, drive: Float[Array, "..."], outputs: Float[Array, " outputs"]) -> Landscape:
        """Force and sweeps with inputs and outputs clamped; a relaxation must start with these outputs."""
        clamp, inner = self.clamp, self.landscape(drive)
        # Springs so stiff that they move nothing: a sweep finds the outputs where they are set again after it.
        stiff = 1 / jnp.finfo(outputs.dtype).eps
        springs = self.landscape(drive, Nudge(self.quadratic_cost, stiff, outputs)).sweeps

        def force(state: State) -> State:
            return clamp.free(inner.force(state))

        def slope(state: State) -> Slope:
            assert inner.slope is not None
            seen = inner.slope(state)
            return seen._replace(force=clamp.free(seen.force))

        def sweep(swept: Any) -> tuple[Any, Array]:
            assert springs is not None
            state = clamp.put(springs.decode(springs.sweep(swept)[0]), outputs)
            left = jax.tree.map(lambda f: jnp.max(jnp.abs(f), initial=0.0), force(state))
            return springs.encode(state), jnp.max(jnp.stack(jax.tree.leaves(left)))

        sweeps = None if springs is None else Sweeps(springs.encode, sweep, springs.decode)
        return Landscape(force, sweeps, None if inner.slope is None else slope)

    def relax(
        self,
        drive: Float[Array, "..."],
        *,
        state: State | None = None,
        nudge: Nudge | None = None,
        relaxer: Relaxer | None = None,
        key: PRNGKeyArray | None = None,
    ) -> Relaxation:
        """Clamp the inputs and let the system come to rest.

        **Arguments:**

        - `drive`: the inputs.
        - `state`: where to start; by default the substrate's own initial state, random where `key` is given. One that
          is as symmetric as the energy stays so and may end in a saddle: only a force that vanishes is asked for.
        - `nudge`: pull on the outputs, or None.
        - `relaxer`: the dynamics or a descent (`morphax.dynamics.relaxation`).
        - `key`: for a random initial state, and for noise.

        **Returns:** the `Relaxation`: state, residual, steps, converged. Nothing is raised when it did not converge.
        """
        start, noise = (None, None) if key is None else tuple(jax.random.split(key))
        if state is None:
            state = self.initial_state(key=start)
        ended = (relaxer or self.default_relaxer)(self.landscape(jnp.atleast_1d(drive), nudge), state, key=noise)
        return ended._replace(state=self.found(ended.state, key=noise))

    def step(self, state: State, drive: Float[Array, "..."], *, key: PRNGKeyArray | None = None) -> State:
        """Hold one input until the system has come to rest."""
        drive = jnp.atleast_1d(drive)
        _, unflatten = ravel_pytree(state)

        def force(flat: Array) -> Array:
            return ravel_pytree(self.landscape(drive).force(unflatten(flat)))[0]

        def equilibrium(_: Any, start: Array) -> Array:
            arrays, rest = eqx.partition((self, drive), eqx.is_array)
            system, clamped = eqx.combine(jax.lax.stop_gradient(arrays), rest)
            return ravel_pytree(system.relax(clamped, state=unflatten(start), key=key).state)[0]

        def solve(linear: Callable[[Array], Array], right: Array) -> Array:
            return jnp.linalg.solve(jax.jacobian(linear)(jnp.zeros_like(right)), right)

        return unflatten(jax.lax.custom_root(force, ravel_pytree(state)[0], equilibrium, solve))

    def distance(self, first: State, second: State) -> Float[Array, ""]:
        """How far two states are apart: the largest difference of their numbers."""
        differences = jax.tree.map(lambda a, b: jnp.max(jnp.abs(a - b), initial=0.0), first, second)
        return jnp.max(jnp.array(jax.tree.leaves(differences)))

    def check_targets(self, targets: Any) -> None:
        """Refuse targets that no output can reach, where there are such (by default there are not)."""


@keeps(EnergySubstrate)
class EnergyWrapper(Wrapper, EnergySubstrate):
    """What a wrapper around an energy substrate forwards, so that it relaxes, too."""

    substrate: EnergySubstrate  # pyright: ignore[reportIncompatibleVariableOverride] (modules are frozen)

    @property
    def _reads_itself(self) -> bool:
        return type(self).read is Wrapper.read

    @property
    def default_relaxer(self) -> Relaxer:
        """That of the substrate."""
        return self.substrate.default_relaxer

    @property
    def default_cost(self) -> Cost:
        """That of the substrate; the squared error where something else is read."""
        return self.substrate.default_cost if self._reads_itself else squared_error

    @property
    def quadratic_cost(self) -> Cost:
        """That of the substrate; half the squared difference where something else is read."""
        return self.substrate.quadratic_cost if self._reads_itself else squared_error

    def found(self, state: State, *, key: PRNGKeyArray | None = None) -> State:
        """That of the substrate."""
        return self.substrate.found(state, key=key)

    def energy(self, state: State, drive: Float[Array, "..."]) -> Float[Array, ""]:
        """That of the substrate under the drive that reaches it."""
        return self.substrate.energy(state, self.drive(drive))

    def force(self, state: State, drive: Float[Array, "..."]) -> State:
        """That of the substrate under the drive that reaches it."""
        return self.substrate.force(state, self.drive(drive))

    def landscape(self, drive: Float[Array, "..."], nudge: Nudge | None = None) -> Landscape:
        """That of the substrate; a nudge on what is read pulls on the substrate's own observation."""
        inner = self.drive(drive)
        if nudge is not None and type(self).observe is not Wrapper.observe:
            raise ValueError(
                f"{type(self).__name__} overrides observe, and a nudge cannot tell what it pulls on; override `read` "
                "instead, or `landscape`, too"
            )
        if nudge is None or self._reads_itself:
            return self.substrate.landscape(inner, nudge)
        pulled = nudge

        def force(state: State) -> State:
            slopes = self._slopes(self.substrate.observe(state), pulled)
            return self.substrate.landscape(inner, Nudge(_tilt, 1.0, slopes)).force(state)

        free = self.substrate.landscape(inner)
        if free.sweeps is None:
            return Landscape(force)
        encode, _, decode = free.sweeps

        def sweep(swept: Any) -> tuple[Any, Array]:
            springs = self._springs(self.substrate.observe(decode(swept)), pulled)
            sweeps = self.substrate.landscape(inner, springs).sweeps
            assert sweeps is not None
            return sweeps.sweep(swept)

        return Landscape(force, Sweeps(encode, sweep, decode))

    def _slopes(self, observation: Array, nudge: Nudge) -> Array:
        """The derivative of a nudge of what is read by the substrate's own observation."""
        return jax.grad(lambda o: nudge.energy(self.read(o)))(observation)

    def _springs(self, observation: Array, nudge: Nudge) -> Nudge:
        r"""Springs on the substrate's observation that stand for a nudge of what is read, from where it is now.

        With $C(o) = \beta c(\mathrm{read}(o), t)$ and $k \ge |\beta| \, \lVert \partial \mathrm{read} / \partial o
        \rVert^2$, springs of stiffness k to $o - C'(o) / k$ pull as C does where o is. For a linear read and costs with
        $c'' \le 1$ their energy lies above C elsewhere, so that what lowers theirs lowers the true one. They are at
        most 1 long: on a circle a longer one would pull the other way around.
        """
        slopes = self._slopes(observation, nudge)
        stiffness = jnp.abs(nudge.strength) * jnp.sum(jax.jacobian(self.read)(observation) ** 2)
        stiffness = jnp.maximum(jnp.maximum(stiffness, jnp.max(jnp.abs(slopes))), jnp.finfo(slopes.dtype).tiny)
        return Nudge(self.substrate.quadratic_cost, stiffness, observation - slopes / stiffness)

    def distance(self, first: State, second: State) -> Float[Array, ""]:
        """That of the substrate."""
        return self.substrate.distance(first, second)

    def check_targets(self, targets: Any) -> None:
        """That of the substrate, where its own observation is compared."""
        if self._reads_itself:
            self.substrate.check_targets(targets)


def phase_distance(phase: ArrayLike, target: ArrayLike) -> Array:
    r"""$1 - \cos(\phi - \phi^\tau)$ (Wang et al., Eq. 3), from 0 to 2. The wrong answer is a fixed point, too."""
    return 1 - jnp.cos(jnp.subtract(phase, target))


def phase_overlap(phase: ArrayLike, target: ArrayLike) -> Array:
    r"""$-\ln \frac{1 + \cos(\phi - \phi^\tau)}{2}$ (Wang et al., Eq. 4, with the constant of Eq. A4: at least 0).

    Minus the logarithm of the overlap of two qubits on the equator. It diverges at $\phi = \phi^\tau + \pi$; 10^-6
    inside the logarithm keeps the force there below 500.
    """
    return -jnp.log((1 + jnp.cos(jnp.subtract(phase, target))) / 2 + 1e-6)


def phase_squared_error(phase: ArrayLike, target: ArrayLike) -> Array:
    r"""$\frac12 (\phi - \phi^\tau)^2$ along the shorter way around the circle."""
    return 0.5 * wrap(jnp.subtract(phase, target)) ** 2


def squared_error(output: ArrayLike, target: ArrayLike) -> Array:
    r"""$\frac12 (o - t)^2$, for outputs that are no phases."""
    return 0.5 * jnp.subtract(output, target) ** 2


def _tilt(output: ArrayLike, slope: ArrayLike) -> Array:
    """A cost that pulls equally everywhere."""
    return jnp.multiply(output, slope)


def golden_sequence(length: int) -> Float[Array, " length"]:
    r"""Numbers that fill ]0, 1[ evenly and without a symmetry: $n \varphi \bmod 1$ with the golden ratio $\varphi$.

    Where to start without a key: the same point at every call, and no special one.

        >>> from morphax.substrates.energy import golden_sequence
        >>> [round(float(x), 2) for x in golden_sequence(4)]
        [0.62, 0.24, 0.85, 0.47]
    """
    return jnp.asarray(np.arange(1, length + 1) * (1 + 5**0.5) / 2 % 1, jnp.result_type(float))


def wrap(angle: ArrayLike) -> Array:
    r"""The same angle in $[-\pi, \pi[$; of a complex one the real part is."""
    if jnp.iscomplexobj(angle):
        return jnp.asarray(angle) + jax.lax.stop_gradient(wrap(jnp.real(angle)) - jnp.real(angle))
    return jnp.asarray(jnp.mod(jnp.add(angle, jnp.pi), 2 * jnp.pi) - jnp.pi)


def slope(cost: Cost, outputs: Array, targets: Array) -> Array:
    """The derivative of an elementwise cost with respect to its outputs."""
    return jnp.asarray(jax.grad(lambda o: jnp.sum(cost(o, targets)))(outputs))
