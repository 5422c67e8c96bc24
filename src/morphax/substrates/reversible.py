"""Substrates whose motion can be run backwards: a Hamiltonian, the reversal of time, and a symplectic step."""

import math
from abc import abstractmethod
from typing import NamedTuple, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PRNGKeyArray

from morphax._checks import check_finite, check_key, check_range
from morphax.pytrees import DEVICE, SETTING, WEIGHT
from morphax.substrates.base import Substrate
from morphax.substrates.layers import as_array
from morphax.substrates.topology import PLACES, Topology
from morphax.substrates.wrappers import Wrapper, keeps


class Motion(NamedTuple):
    """Positions and momenta."""

    position: Float[Array, " coordinates"]
    momentum: Float[Array, " coordinates"]


class Reversible(Substrate):
    r"""A conservative system, but for a damping that is the same for all momenta.

    $$\dot q = \frac{\partial H}{\partial p}, \qquad \dot p = -\frac{\partial H}{\partial q} - \gamma p, \qquad
      H(q, p, u) = \frac{p^2}{2} + V(q, u)$$

    An input is held for `steps` steps of `time_step`. One is half of the damping, half a kick, a drift, half a kick and
    half of the damping: symplectic where there is no damping, and its own inverse when the momenta are turned around
    and the damping is a gain.

    A subclass gives `potential`, `observe`, `initial_state`, `damping`, `time_step` and `steps`.
    """

    damping: eqx.AbstractVar[Float[Array, ""]]
    time_step: eqx.AbstractVar[Float[Array, ""]]
    steps: eqx.AbstractVar[int]

    @abstractmethod
    def potential(self, position: Float[Array, " coordinates"], drive: Float[Array, "..."]) -> Float[Array, ""]:
        """$V$ with the inputs held at `drive`."""

    def hamiltonian(self, state: Motion, drive: Float[Array, "..."]) -> Float[Array, ""]:
        """The energy, with the inputs held."""
        return jnp.sum(state.momentum**2) / 2 + self.potential(state.position, drive)

    def reverse(self, state: Motion) -> Motion:
        """The state from which everything goes back: momenta turned around."""
        return Motion(state.position, -state.momentum)

    def advance(self, state: Motion, drive: Float[Array, "..."], damping: ArrayLike) -> Motion:
        """A step of `time_step` under another damping (negative: a gain)."""
        fading, half = jnp.exp(-self.time_step / 2 * damping), self.time_step / 2
        momentum = fading * state.momentum - half * jax.grad(self.potential)(state.position, drive)
        position = state.position + self.time_step * momentum
        momentum = momentum - half * jax.grad(self.potential)(position, drive)
        return Motion(position, fading * momentum)

    def path(self, state: Motion, drive: Float[Array, "..."], damping: ArrayLike) -> tuple[Motion, Motion]:
        """An input interval: the last state, and those before every step."""
        return jax.lax.scan(lambda now, _: (self.advance(now, drive, damping), now), state, None, length=self.steps)

    def step(self, state: Motion, drive: Float[Array, "..."], *, key: PRNGKeyArray | None = None) -> Motion:
        """Hold an input for an interval."""
        return self.path(state, drive, self.damping)[0]


@keeps(Reversible)
class ReversibleWrapper(Wrapper, Reversible):
    """What a wrapper around a reversible substrate forwards, so that it is one."""

    substrate: Reversible  # pyright: ignore[reportIncompatibleVariableOverride] (modules are frozen)

    @property
    def damping(self) -> Float[Array, ""]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """That of the substrate."""
        return self.substrate.damping

    @property
    def time_step(self) -> Float[Array, ""]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """That of the substrate."""
        return self.substrate.time_step

    @property
    def steps(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Those of the substrate."""
        return self.substrate.steps

    def potential(self, position: Float[Array, " coordinates"], drive: Float[Array, "..."]) -> Float[Array, ""]:
        """That of the substrate under the drive that reaches it."""
        return self.substrate.potential(position, self.drive(drive))

    def hamiltonian(self, state: Motion, drive: Float[Array, "..."]) -> Float[Array, ""]:
        """That of the substrate under the drive that reaches it."""
        return self.substrate.hamiltonian(state, self.drive(drive))

    def reverse(self, state: Motion) -> Motion:
        """That of the substrate."""
        return self.substrate.reverse(state)

    def advance(self, state: Motion, drive: Float[Array, "..."], damping: ArrayLike) -> Motion:
        """That of the substrate under the drive that reaches it."""
        return self.substrate.advance(state, self.drive(drive), damping)


class NonlinearLattice(Reversible):
    r"""Masses on nonlinear springs, coupled by linear ones: a lattice of $\phi^4$ oscillators.

    $$V(q, u) = \sum_i \left( \frac{\kappa_i}{2} q_i^2 + \frac{\lambda_i}{4} q_i^4 - b_i q_i \right) +
      \sum_{(i, j)} \frac{J_{ij}}{2} (q_i - q_j)^2$$

    Masses that are inputs are held at $u$. All masses are 1, so that times are in units of $\sqrt{m / \kappa}$.

    **Arguments:**

    - `topology`: who is coupled to whom (`Topology`), which masses are held, and which are read.
    - `couplings`: $J$, one for every edge.
    - `biases`: $b$, forces on the free masses; None: none.
    - `stiffness`: $\kappa$, `nonlinearity`: $\lambda \ge 0$, one number or one for every free mass.
    - `damping`: $\gamma \ge 0$.
    - `duration`: $> 0$, for which an input is held; `time_step`: $> 0$, rounded down to a part of it.

    **State:** `Motion` of the free masses, at first at rest at 0.

    Source: Lopez-Pastor & Marquardt, Phys. Rev. X 13, 031020 (2023), for such systems that learn.

        >>> import jax, jax.numpy as jnp
        >>> from morphax import evolve
        >>> from morphax.substrates.reversible import NonlinearLattice
        >>> from morphax.substrates.topology import PLACES, Topology
        >>> topology = Topology.lattice((3, 4), inputs=[0, 4, 8], outputs=[3, 7])
        >>> lattice = NonlinearLattice.random(topology, key=jax.random.key(0))
        >>> evolve(lattice, jnp.ones((1, 3)))[0].shape
        (1, 2)
    """

    topology: Topology = eqx.field(static=True)
    couplings: Float[Array, " edges"] = eqx.field(metadata=WEIGHT)
    biases: Float[Array, " free"] = eqx.field(metadata=WEIGHT)
    stiffness: Float[Array, " free"] = eqx.field(metadata=DEVICE)
    nonlinearity: Float[Array, " free"] = eqx.field(metadata=DEVICE)
    damping: Float[Array, ""] = eqx.field(metadata=DEVICE)
    time_step: Float[Array, ""] = eqx.field(metadata=SETTING)
    steps: int = eqx.field(static=True)

    def __init__(
        self,
        topology: Topology,
        couplings: ArrayLike,
        *,
        biases: ArrayLike | None = None,
        stiffness: ArrayLike = 1.0,
        nonlinearity: ArrayLike = 1.0,
        damping: ArrayLike = 0.0,
        duration: float = 10.0,
        time_step: float = 0.05,
    ):
        for name, value in (("nonlinearity", nonlinearity), ("damping", damping)):
            check_range(name, value, low=0.0)
        for name, value in (("duration", duration), ("time_step", time_step)):
            check_range(name, value, low=0.0, open_low=True)
        check_finite("stiffness", stiffness)
        free, kind = len(topology.free), jnp.result_type(float)
        self.topology = topology
        self.couplings = as_array("couplings", couplings, (len(topology.edges),))
        self.biases = as_array("biases", jnp.zeros(free) if biases is None else biases, (free,))
        self.stiffness = jnp.broadcast_to(jnp.asarray(stiffness, kind), (free,))
        self.nonlinearity = jnp.broadcast_to(jnp.asarray(nonlinearity, kind), (free,))
        self.damping = as_array("damping", damping, ())
        self.steps = max(1, math.ceil(duration / time_step - 1e-9))
        self.time_step = jnp.asarray(duration / self.steps, kind)

    @classmethod
    def random(
        cls,
        topology: Topology,
        *,
        coupling: float = 1.0,
        deviation: float = 0.3,
        key: PRNGKeyArray,
        **options: ArrayLike,
    ) -> Self:
        """Normal couplings with mean `coupling` and this standard deviation; `options` are those of the class."""
        check_key("key", key)
        check_range("deviation", deviation, low=0.0)
        drawn = coupling + deviation * jax.random.normal(key, (len(topology.edges),))
        return cls(topology, drawn, **options)  # pyright: ignore[reportArgumentType]

    @property
    def channels(self) -> int:
        """The masses that are held."""
        return len(self.topology.inputs)

    def initial_state(self, *, key: PRNGKeyArray | None = None) -> Motion:
        """At rest at 0."""
        return Motion(jnp.zeros_like(self.stiffness), jnp.zeros_like(self.stiffness))

    def potential(self, position: Float[Array, " free"], drive: Float[Array, " inputs"]) -> Float[Array, ""]:
        """That of all springs."""
        order = np.argsort(np.concatenate([self.topology.free, self.topology.inputs])).astype(PLACES)
        whole = jnp.concatenate([position, jnp.atleast_1d(drive)])[order]
        ends = self.topology.edges.astype(PLACES)
        stretched = whole[ends[:, 0]] - whole[ends[:, 1]]
        alone = self.stiffness * position**2 / 2 + self.nonlinearity * position**4 / 4 - self.biases * position
        return jnp.sum(alone) + jnp.sum(self.couplings * stretched**2) / 2

    def observe(self, state: Motion, *, key: PRNGKeyArray | None = None) -> Float[Array, " outputs"]:
        """Positions of the outputs."""
        return state.position[self.topology.read]
