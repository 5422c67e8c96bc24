r"""What separates a simulation from a chip, for every substrate: the roles of its leaves say what varies.

A fabricated device is a draw of `Imperfections`. Rules that learn despite them: `morphax.learning.hardware`.
"""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PRNGKeyArray

from morphax._checks import check_count, check_key, check_range, is_concrete
from morphax.pytrees import SETTING, Role, Tree, perturb, select, warn_of_unassigned
from morphax.substrates.base import State, Stepper, Substrate
from morphax.substrates.energy import EnergySubstrate
from morphax.substrates.layered import Layered
from morphax.substrates.wrappers import Wrapper


def mismatch(substrate: Tree, *, weights: ArrayLike = 0.0, devices: ArrayLike = 0.0, key: PRNGKeyArray) -> Tree:
    r"""A device from the same production line: every number times a log-normal factor of mean 1.

    **Arguments:**

    - `substrate`: what was designed.
    - `weights`, `devices`: relative spread $\sigma \ge 0$ of the leaves with the role weight and device.
    - `key`: which device.

    **Raises:** `ValueError` for a negative or non-finite spread, and where no leaf has the role that is to be spread.
    Warns once of arrays without a role, which do not vary.

        >>> import jax
        >>> from morphax import SpintronicNetwork
        >>> from morphax.substrates.imperfections import mismatch
        >>> network = SpintronicNetwork.random((16, 16), key=jax.random.key(0))
        >>> chip = mismatch(network, devices=0.05, key=jax.random.key(1))
        >>> bool((chip.connections.weights == network.connections.weights).all())
        True
        >>> 0.03 < (chip.damping_rate / network.damping_rate).std().item() < 0.07
        True
    """
    warn_of_unassigned(substrate)
    check_key("key", key)
    first, second = jax.random.split(key)
    return perturb(perturb(substrate, weights, "weight", key=first), devices, "device", key=second)


def quantise(tree: Tree, bits: int, *chosen: Role) -> Tree:
    r"""Leaves with a role in `chosen` (weights when none is named) rounded to what `bits` can hold.

    Each leaf has its own scale: $2^{\mathrm{bits}} - 1$ levels, evenly spaced from minus to plus the largest magnitude
    in the leaf, with 0 among them. The derivative is that of no rounding (straight-through), so quantised weights can
    be trained.

    **Raises:** `ValueError` unless `bits` is a whole number >= 2.

        >>> import equinox as eqx, jax.numpy as jnp
        >>> from morphax import WEIGHT
        >>> from morphax.substrates.imperfections import quantise
        >>> class Weights(eqx.Module):
        ...     values: jnp.ndarray = eqx.field(metadata=WEIGHT)
        >>> quantise(Weights(jnp.array([0.0, 0.2, -0.8, 1.5])), 2).values.tolist()
        [0.0, 0.0, -1.5, 1.5]
    """
    check_count("bits", bits, 2)
    rounded, fixed = select(tree, *(chosen or ("weight",)))
    return eqx.combine(jax.tree.map(lambda leaf: _rounded(leaf, bits), rounded), fixed)


class Imperfections(eqx.Module):
    r"""How devices differ from the model; `device(substrate, key)` fabricates one.

    Applied in this order: `weight_bits` rounds the weights, `weight_mismatch` and `device_mismatch` spread them and the
    material (`mismatch`), `state_noise` adds Gaussian noise of this standard deviation to the state after every input
    (`Substrate.disturb`).

    **Raises:** `ValueError` for a negative or non-finite number, or fewer than 2 bits.
    """

    weight_mismatch: Array | float = eqx.field(default=0.0, metadata=SETTING)
    device_mismatch: Array | float = eqx.field(default=0.0, metadata=SETTING)
    state_noise: Array | float = eqx.field(default=0.0, metadata=SETTING)
    weight_bits: int | None = eqx.field(static=True, default=None)

    def __check_init__(self) -> None:
        for name in ("weight_mismatch", "device_mismatch", "state_noise"):
            check_range(name, getattr(self, name), low=0.0)
        if self.weight_bits is not None:
            check_count("weight_bits", self.weight_bits, 2)

    def device(self, substrate: Tree, *, key: PRNGKeyArray) -> "Tree | Noisy":
        """A fabricated device that follows `substrate`'s present weights; the same key is the same device."""
        if self.weight_bits is not None:
            substrate = quantise(substrate, self.weight_bits)
        varied = mismatch(substrate, weights=self.weight_mismatch, devices=self.device_mismatch, key=key)
        return Noisy(varied, jnp.asarray(self.state_noise, jnp.result_type(float))) if self.disturbs else varied

    @property
    def disturbs(self) -> bool:
        """Whether there may be noise, so that a device is `Noisy`."""
        return not is_concrete(self.state_noise) or bool(np.any(np.asarray(self.state_noise)))


class Noisy(Wrapper):
    """A substrate whose state is disturbed after every input, with standard deviation `amplitude` (0: never).

    Of an energy substrate what it came to rest at is disturbed, of layers (`Layered`) what each of them answers.

    **Raises:** `ValueError` where it is driven without a key, unless the amplitude is known to be 0.

        >>> import jax, jax.numpy as jnp
        >>> from morphax import SpintronicNetwork, evolve
        >>> from morphax.substrates.imperfections import Noisy
        >>> network = SpintronicNetwork.random((8, 8), observed="states", key=jax.random.key(0))
        >>> noisy, _ = evolve(Noisy(network, 0.01), jnp.zeros(1), key=jax.random.key(1))
        >>> 0.003 < jnp.std(noisy - evolve(network, jnp.zeros(1))[0]).item() < 0.02
        True
    """

    amplitude: Array | float = eqx.field(metadata=SETTING)

    def __check_init__(self) -> None:
        check_range("amplitude", self.amplitude, low=0.0)

    def stepper(self) -> Stepper:
        """The substrate's, then noise."""
        if isinstance(self, Layered):
            return partial(Layered.step, self)
        inner = self.substrate.stepper()

        def step(state: State, drive: Array, *, key: PRNGKeyArray | None = None) -> State:
            first, second = self._keys(key)
            return self._disturbed(inner(state, drive, key=first), second)

        return step

    def found(self, state: State, *, key: PRNGKeyArray | None = None) -> State:
        """Of an energy substrate: where it came to rest, disturbed."""
        assert isinstance(self.substrate, EnergySubstrate)
        first, second = self._keys(key)
        return self._disturbed(self.substrate.found(state, key=first), second)

    def respond(
        self, layer: int, fed: Float[Array, " neurons"], *, key: PRNGKeyArray | None = None
    ) -> Float[Array, " neurons"]:
        """Of layers: what one answers, disturbed."""
        assert isinstance(self.substrate, Layered)
        first, second = self._keys(key)
        return self._disturbed(self.substrate.respond(layer, fed, key=first), second)

    def _keys(self, key: PRNGKeyArray | None) -> tuple[PRNGKeyArray | None, PRNGKeyArray | None]:
        if key is not None:
            return tuple(jax.random.split(key))
        if not is_concrete(self.amplitude) or np.any(np.asarray(self.amplitude)):
            raise ValueError(f"key is None; a Noisy {type(self.substrate).__name__} is random")
        return None, None

    def _disturbed(self, state: State, key: PRNGKeyArray | None) -> State:
        return state if key is None else self.substrate.disturb(state, self.amplitude, key=key)


def inference_energy(substrate: Substrate, duration: float) -> float:
    r"""Energy of one inference in joules, from the device constants that a substrate states.

    $$E = \sum_\mathrm{parts} n \left(P \, T + E_1\right)$$

    with $n$ parts of a kind that draw the power $P$ for the duration $T$ and the energy $E_1$ once.

    **Arguments:**

    - `substrate`: with `Substrate.consumption`.
    - `duration`: of the presentation, in ns, > 0.

    **Raises:** `ValueError` for a substrate without device constants.

    The paper's 96 neurons and 2,896 synapses over 100 ns (Plouet et al., Sec. V: "about 40 pJ"):

        >>> import jax
        >>> from morphax import SpintronicNetwork, WithReadout
        >>> from morphax.substrates.imperfections import inference_energy
        >>> first, second = jax.random.split(jax.random.key(0))
        >>> network = WithReadout.random(SpintronicNetwork.random(key=first), outputs=10, key=second)
        >>> round(inference_energy(network, duration=100.0) * 1e12, 2)
        38.56
    """
    check_range("duration", duration, low=0.0, open_low=True)
    parts = substrate.consumption()
    if not parts:
        raise ValueError(f"substrate is a {type(substrate).__name__}, which states no device constants")
    return sum(part.number * (part.power * duration * 1e-9 + part.energy) for part in parts)


def _rounded(leaf: Array, bits: int) -> Array:
    largest = jnp.max(jnp.abs(leaf))
    step = jnp.where(largest > 0, largest, 1.0) / (2 ** (bits - 1) - 1)
    return leaf + jax.lax.stop_gradient(jnp.round(leaf / step) * step - leaf)
