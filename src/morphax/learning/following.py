"""What rules share that follow neurons one by one while a sequence runs (`Neuronwise`), behind readouts and noise."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from morphax.pytrees import Role, select
from morphax.substrates.base import State, Stepper, Substrate, stepped
from morphax.substrates.neuronwise import Neuronwise
from morphax.substrates.wrappers import Wrapper

NEEDS = (
    "a network whose neurons are known one by one (Neuronwise; one step an interval: of LayeredNetwork the method "
    "'exponential', of SpikingNetwork one time step an input that is given), also behind a readout"
)


def known_one_by_one(substrate: Any) -> bool:
    """Whether a substrate is such a network; nothing in front of it learns."""
    while isinstance(substrate, Wrapper):
        if type(substrate).drive is not Wrapper.drive or type(substrate).initial_state is not Wrapper.initial_state:
            return False
        substrate = substrate.substrate
    return isinstance(substrate, Neuronwise) and substrate.one_step


def inside(substrate: Any) -> Neuronwise:
    """The network, of what stands around it."""
    while isinstance(substrate, Wrapper):
        substrate = substrate.substrate
    return substrate


class Followed(NamedTuple):
    """A sequence as it ran: outputs and states after every input, and the states before each."""

    outputs: Float[Array, "time outputs"]
    before: State
    after: State


def followed(substrate: Substrate, drives: Float[Array, "time ..."], key: PRNGKeyArray) -> Followed:
    """What `evolve` does with the same key, with the states."""
    first, per_step = jax.random.split(key)
    step = substrate.stepper()

    def advance(state: State, now: tuple[Array, PRNGKeyArray]) -> tuple[State, Followed]:
        drive, step_key = now
        noise, readout = jax.random.split(step_key)
        after = stepped(step, state, drive, key=noise)
        return after, Followed(substrate.observe(after, key=readout), state, after)

    keys = jax.random.split(per_step, len(drives))
    return jax.lax.scan(advance, substrate.initial_state(key=first), (drives, keys))[1]


class Shifted(Wrapper):
    """A network with something added to what reaches its neurons: it comes behind the drive, one row an evaluation."""

    def stepper(self) -> Stepper:
        """The network's, by hand."""
        network = inside(self)
        wires, channels = network.wires(), network.channels
        assert isinstance(channels, int)

        def step(state: State, drive: Array, *, key: PRNGKeyArray | None = None) -> State:
            shifts = list(drive[channels:].reshape(network.evaluations, -1))
            entering = network.entering(state, drive[:channels], wires, shifts)
            return network.alone(state, entering[-1] @ wires + shifts[-1])[0]

        return step


def shiftable(substrate: Any) -> Any:
    """The substrate, with drives that hold shifts besides."""
    if isinstance(substrate, Wrapper):
        return eqx.tree_at(
            lambda s: s.substrate, substrate, shiftable(substrate.substrate), is_leaf=lambda x: x is substrate.substrate
        )
    return Shifted(substrate)


def of_wires(
    substrate: Any,
    roles: tuple[Role, ...],
    total: Float[Array, "entering neurons"],
    after: State,
    errors: Float[Array, "examples time outputs"],
) -> PyTree:
    """The gradient of leaves with `roles`, from that of all wires and from what was read."""
    learned, fixed = select(substrate, *roles)

    def pulled(learned: PyTree) -> Array:
        model = eqx.combine(learned, fixed)
        read = jax.vmap(jax.vmap(model.observe))(after)
        return jnp.sum(inside(model).wires() * total) + jnp.sum(read * errors)

    return jax.grad(pulled)(learned)
