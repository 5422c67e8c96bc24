"""That of the README, and ways to make it: a file as users have them."""

import equinox as eqx
import jax
import jax.numpy as jnp

from morphax import DEVICE, Substrate


class LeakyIntegrators(Substrate):
    damping_rate: jax.Array = eqx.field(metadata=DEVICE)

    def initial_state(self, *, key=None):
        return jnp.zeros_like(self.damping_rate)

    def step(self, state, drive, *, key=None):
        memory = jnp.exp(-self.damping_rate)
        return memory * state + (1 - memory) * jnp.tanh(drive)

    def observe(self, state, *, key=None):
        return state


def integrators(neurons, channels, key, slowest=0.1):
    return LeakyIntegrators(jnp.linspace(slowest, 2, neurons))


def twenty():
    return LeakyIntegrators(jnp.linspace(0.1, 2, 20))
