"""The continuous Hopfield network: layers of neurons that relax in a quadratic energy."""

from collections.abc import Sequence
from itertools import pairwise

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PRNGKeyArray

from morphax._checks import check_count, check_finite, check_key, check_range, check_shape
from morphax.dynamics.relaxation import BlockSweeps, Landscape, Relaxer, Sweeps
from morphax.pytrees import WEIGHT
from morphax.substrates.energy import EnergySubstrate, Nudge, golden_sequence, slope

Layers = tuple[Float[Array, "..."], ...]


class HopfieldNetwork(EnergySubstrate):
    r"""Layers of neurons with symmetric couplings between neighbours, whose activities are their potentials in [0, 1].

    $$E = \frac12 \sum_i v_i^2 - \sum_{i<j} W_{ij} v_i v_j - \sum_i b_i v_i, \qquad v_i = \rho(u_i), \qquad
      \frac{du_i}{dt} = -u_i + \sum_j W_{ij} v_j + b_i$$

    with $\rho$ the hard sigmoid, which clips to [0, 1]: inside, the force is $-\partial E / \partial v$. Nothing in it
    is a phase; it shows that learning at equilibrium knows only energies.

    **Arguments:**

    - `weights`: for each pair of neighbouring layers a matrix, shape (upper layer, lower layer).
    - `biases`: for each layer but the first, shape (neurons,).

    **State:** potentials $u$ of all layers but the first, each of shape (neurons,). **Drive:** activities of the first
    layer, shape (inputs,). **Observation:** activities of the last layer, in [0, 1].

    `relax` descends by sweeps: the layers at even places move at once to the best activities given the others, then
    those at odd places.

    **Raises:** `ValueError` for shapes that do not fit, NaN or infinity.

    Source: Hopfield, PNAS 81, 3088 (1984); Scellier & Bengio, Front. Comput. Neurosci. 11, 24 (2017), Eqs. 1-3.

        >>> import jax, jax.numpy as jnp
        >>> from morphax.substrates.hopfield import HopfieldNetwork
        >>> network = HopfieldNetwork.random((4, 8, 2), key=jax.random.key(0))
        >>> rest = network.relax(jnp.ones(4))
        >>> network.observe(rest.state).shape, bool(rest.converged)
        ((2,), True)
    """

    weights: tuple[Float[Array, "upper lower"], ...] = eqx.field(metadata=WEIGHT)
    biases: tuple[Float[Array, " neurons"], ...] = eqx.field(metadata=WEIGHT)

    def __init__(self, weights: Sequence[ArrayLike], biases: Sequence[ArrayLike]):
        self.weights = tuple(jnp.asarray(w, jnp.result_type(float)) for w in weights)
        self.biases = tuple(jnp.asarray(b, jnp.result_type(float)) for b in biases)
        if not weights or len(weights) != len(biases):
            raise ValueError(
                f"weights holds {len(weights)} matrices, biases {len(biases)}; must be as many, at least 1"
            )
        for index, (matrix, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            below = None if index == 0 else len(self.biases[index - 1])
            check_shape(f"weights[{index}]", matrix, (None, below))
            check_shape(f"biases[{index}]", bias, matrix.shape[:1])
            check_finite(f"weights[{index}]", matrix)
            check_finite(f"biases[{index}]", bias)

    @classmethod
    def random(cls, layers: Sequence[int], *, scale: float = 1.0, key: PRNGKeyArray) -> "HopfieldNetwork":
        r"""Weights uniform in $\pm$ `scale` $\sqrt{6 / (N_i + N_{i+1})}$ (Glorot and Bengio), biases 0."""
        check_key("key", key)
        if len(layers) < 2:
            raise ValueError(f"layers is {tuple(layers)}; a network has an input layer and at least one more")
        for size in layers:
            check_count("layers", size, 1)
        check_range("scale", scale, low=0.0)
        sizes = list(pairwise(layers))
        weights = [
            scale * (6 / (below + above)) ** 0.5 * jax.random.uniform(k, (above, below), minval=-1, maxval=1)
            for k, (below, above) in zip(jax.random.split(key, len(sizes)), sizes, strict=True)
        ]
        return cls(weights, [jnp.zeros(above) for _, above in sizes])

    @property
    def channels(self) -> int:
        """The neurons of the first layer."""
        return self.weights[0].shape[1]

    @property
    def default_relaxer(self) -> Relaxer:
        """Sweeps."""
        return BlockSweeps()

    def initial_state(self, *, key: PRNGKeyArray | None = None) -> Layers:
        """Potentials uniform in [0, 1]; without a key spread over it by the golden ratio.

        Where all are 0 nothing moves without inputs and biases, and neurons with equal couplings stay equal.
        """
        if key is None:
            ends = np.cumsum([len(b) for b in self.biases])
            return tuple(jnp.split(golden_sequence(int(ends[-1])), ends[:-1]))
        keys = jax.random.split(key, len(self.biases))
        return tuple(jax.random.uniform(k, b.shape) for k, b in zip(keys, self.biases, strict=True))

    def observe(self, state: Layers, *, key: PRNGKeyArray | None = None) -> Float[Array, " outputs"]:
        """Activities of the last layer."""
        return jnp.clip(state[-1], 0, 1)

    def energy(self, state: Layers, drive: Float[Array, " inputs"]) -> Float[Array, ""]:
        """The energy of the activities."""
        layers = [drive, *(jnp.clip(u, 0, 1) for u in state)]
        quadratic = sum(jnp.sum(v**2) for v in layers[1:]) / 2
        coupled = sum(above @ (w @ below) for w, (below, above) in zip(self.weights, pairwise(layers), strict=True))
        biased = sum(b @ v for b, v in zip(self.biases, layers[1:], strict=True))
        return jnp.asarray(quadratic - coupled - biased)

    def force(self, state: Layers, drive: Float[Array, " inputs"]) -> Layers:
        """The time derivative of the potentials."""
        return self.landscape(drive).force(state)

    def landscape(self, drive: Float[Array, " inputs"], nudge: Nudge | None = None) -> Landscape:
        """Force and sweeps; a nudge acts on activities."""
        check_shape("drive", drive, (self.weights[0].shape[1],))
        last = len(self.biases) - 1

        def field(index: int, activities: Layers) -> Array:
            below = drive if index == 0 else activities[index - 1]
            local = self.weights[index] @ below + self.biases[index]
            return local if index == last else local + self.weights[index + 1].T @ activities[index + 1]

        def target(index: int, activities: Layers) -> Array:
            """Where the potential is drawn to."""
            local = field(index, activities)
            if nudge is None or index != last:
                return local
            return local - nudge.strength * slope(nudge.cost, activities[index], nudge.targets)

        def force(state: Layers) -> Layers:
            activities = tuple(jnp.clip(u, 0, 1) for u in state)
            return tuple(target(i, activities) - u for i, u in enumerate(state))

        def sweep(state: Layers) -> tuple[Layers, Array]:
            residuals = []
            for parity in (0, 1):
                for index in range(parity, last + 1, 2):
                    activities = tuple(jnp.clip(u, 0, 1) for u in state)
                    drawn = target(index, activities)
                    residuals.append(jnp.max(jnp.abs(drawn - state[index])))
                    if nudge is not None and index == last:
                        drawn = state[index] + _newton(nudge, activities[index]) * (drawn - state[index])
                    state = (*state[:index], drawn, *state[index + 1 :])
            return state, jnp.max(jnp.stack(residuals))

        return Landscape(force, Sweeps(lambda state: state, sweep, lambda state: state))


def _newton(nudge: Nudge, outputs: Array) -> Array:
    """The part of the way to go that a nudge's curvature leaves: 1 / (1 + beta c'')."""
    curvature = jax.jvp(lambda v: slope(nudge.cost, v, nudge.targets), (outputs,), (jnp.ones_like(outputs),))[1]
    return 1 / (1 + jnp.maximum(nudge.strength * curvature, 0.0))
