"""Networks that evolve, and whose neurons are known one by one."""

from abc import abstractmethod
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from morphax.substrates.base import State, Substrate


class Neuronwise(Substrate):
    r"""A network with known wiring, and of whose neurons each is known by itself, for one step.

    $$I = e \, V, \qquad (s', y) = \mathrm{alone}(s, I)$$

    with all that enters the wiring, $e$ - what neurons send, inputs, a constant - and one matrix $V$ of all that
    weighs it. Neurons do not mix in `alone`. Rules that follow a synapse while a sequence runs (`morphax.learning.
    online`), or disturb what reaches a neuron (`NodePerturbation`), ask for no more.

    A subclass gives the abstract methods besides those of `Substrate`; its step must be what they say.
    """

    @property
    def one_step(self) -> bool:
        """Whether an input interval is one step, as these rules need it."""
        return True

    @property
    def evaluations(self) -> int:
        """How often the wiring is evaluated in a step: an integrator of higher order looks ahead."""
        return 1

    @abstractmethod
    def wires(self) -> Float[Array, "entering neurons"]:
        """$V$."""

    @abstractmethod
    def entering(
        self, state: State, drive: Float[Array, "..."], wires: Array, shifts: Sequence[Array] | None = None
    ) -> list[Float[Array, " entering"]]:
        """$e$ at every evaluation in a step; `shifts` are added to what reaches the neurons at each."""

    @abstractmethod
    def alone(self, state: State, reaching: Float[Array, " neurons"]) -> tuple[State, Float[Array, " neurons"]]:
        """The state after a step, from what reaches the neurons at the last evaluation, and what each sends then."""

    def by_itself(self, state: State, drive: Array, wires: Array) -> Float[Array, "entering neurons"] | float:
        """How what reaches a neuron at the last evaluation changes with its own wires at those before."""
        return 0.0

    def returning(self, state: State, drive: Array, wires: Array, change: State) -> Float[Array, " neurons"]:
        """How what reaches a neuron at the last evaluation changes where its own state alone does, by `change`.

        Here through its own synapse, and in one evaluation, in which neurons do not mix.
        """

        def sent(state: State) -> Array:
            return self.entering(state, drive, wires)[-1][: wires.shape[1]]

        return jnp.diagonal(wires) * jax.jvp(sent, (state,), (change,))[1]
