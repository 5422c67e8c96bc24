"""Leaky tanh neurons in continuous time: what networks of physical neurons are compared with."""

import equinox as eqx
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PRNGKeyArray

from morphax._checks import check_range
from morphax.dynamics.logistic import relative_growth
from morphax.pytrees import DEVICE
from morphax.substrates.layers import Connections, LayeredNetwork, Method, Observed, per_neuron
from morphax.units import ns


class ContinuousTimeRecurrentNetwork(LayeredNetwork):
    r"""Leaky tanh neurons in layers (CTRNN): the software twin of `SpintronicNetwork`, with an unbounded state.

    $$\frac{dx}{dt} = -\gamma x + I(t), \qquad y = \tanh x, \qquad
      I(t) = S \left(W^\mathrm{ext} y_\mathrm{below} + W^\mathrm{int} y_\mathrm{own} + b\right)$$

    **Units:** times in ns; `damping_rate` and `amplification` in 1/ns.

    **Arguments:**

    - `connections`: weights, biases and masks (`Connections`).
    - `damping_rate`: $\gamma = 1 / \tau > 0$, one number or shape (neurons,).
    - `amplification`: $S$; default 0.5 $\gamma$, as in the spintronic network.
    - `interval`, `time_step`, `method`, `order`, `observed`: as in `SpintronicNetwork`.

    **State:** $x$, shape (neurons,), at first 0.

    **Raises:** `ValueError` as `SpintronicNetwork`.

    Source: Plouet et al., Phys. Rev. Applied 23, 034051 (2025), Eqs. 6-8, after Funahashi & Nakamura, Neural Netw. 6,
    801 (1993).

        >>> import jax, jax.numpy as jnp
        >>> from morphax.substrates.base import evolve
        >>> from morphax.substrates.recurrent import ContinuousTimeRecurrentNetwork
        >>> network = ContinuousTimeRecurrentNetwork.random((8, 8), key=jax.random.key(0))
        >>> evolve(network, jnp.ones(20))[0].shape
        (20, 8)
    """

    damping_rate: Float[Array, " neurons"] = eqx.field(metadata=DEVICE)

    def __init__(
        self,
        connections: Connections,
        *,
        damping_rate: ArrayLike = 1 / (14.12 * ns),
        amplification: ArrayLike | None = None,
        interval: ArrayLike = 1 * ns,
        time_step: float | None = None,
        method: Method = "exponential",
        order: int = 2,
        observed: Observed = "last layer",
    ):
        check_range("damping_rate", damping_rate, low=0.0, open_low=True)
        self.damping_rate = per_neuron("damping_rate", damping_rate, connections.neurons)
        if amplification is None:
            amplification = 0.5 * self.damping_rate
        super().__init__(connections, amplification, interval, time_step, method, order, observed)

    def initial_state(self, *, key: PRNGKeyArray | None = None) -> Float[Array, " neurons"]:
        """All neurons at 0."""
        return jnp.zeros_like(self.damping_rate)

    def held(
        self, state: Float[Array, " neurons"], current: Float[Array, " neurons"], duration: ArrayLike
    ) -> Float[Array, " neurons"]:
        """Exponential relaxation to the current over the damping rate."""
        decay = self.damping_rate * duration
        return jnp.exp(-decay) * state + duration * relative_growth(decay) * current

    def velocity(self, state: Float[Array, " neurons"], current: Float[Array, " neurons"]) -> Float[Array, " neurons"]:
        """Eq. 6."""
        return current - self.damping_rate * state

    def outputs(self, state: Float[Array, " neurons"]) -> Float[Array, " neurons"]:
        """Eq. 8."""
        return jnp.tanh(state)

    def states(self, state: Float[Array, " neurons"]) -> Float[Array, " neurons"]:
        """The states themselves."""
        return state
