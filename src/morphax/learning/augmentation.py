"""Training on examples that are changed a little at every step."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from morphax._checks import check_range
from morphax.learning.rule import WrappedRule, remembered

Augment = Callable[[Any, PRNGKeyArray], Any]


class Augmented(WrappedRule):
    r"""Learning rule: another rule, on inputs that `augment(inputs, key)` changes anew at every step.

    $$g = \nabla_\theta L(a_k(x), y), \qquad k \text{ drawn at every step}$$

    Watched data are judged as they are.

    **Arguments:**

    - `rule`: gives gradient and metrics.
    - `augment`: inputs of a batch and a key to changed ones of the same shape: `RandomAffine`, or yours.

    Source: Simard, Steinkraus & Platt, ICDAR (2003).

        >>> import jax, jax.numpy as jnp
        >>> from morphax import Augmented, Backpropagation, EchoStateNetwork, WithReadout
        >>> network = WithReadout.random(EchoStateNetwork.random(4, key=jax.random.key(0)), 2, key=jax.random.key(1))
        >>> rule = Augmented(Backpropagation(), lambda inputs, key: inputs + 0.1 * jax.random.normal(key, inputs.shape))
        >>> inputs, targets = jnp.ones((6, 3)), jnp.eye(2)[jnp.arange(6) % 2]
        >>> metrics, gradient = rule.gradient(network, inputs, targets, key=jax.random.key(2))
        >>> gradient.weights.shape
        (2, 4)
    """

    augment: Augment

    def gradient(
        self, substrate: Any, inputs: Any, targets: Any, *, key: PRNGKeyArray, memory: Any = None
    ) -> tuple[Any, ...]:
        """That of the rule, of changed inputs."""
        first, second = jax.random.split(key)
        return self.rule.gradient(substrate, self.augment(inputs, first), targets, key=second, **remembered(memory))


class InputNoise(eqx.Module):
    r"""Independent Gaussian noise on every number of every input, $x + \sigma n$ with $n \sim N(0, 1)$.

    - `deviation`: $\sigma \ge 0$, in units of the inputs.

    Source: Bishop, Neural Computation 7, 108 (1995): training with it is a Tikhonov regularisation.

        >>> import jax, jax.numpy as jnp
        >>> from morphax.learning.augmentation import InputNoise
        >>> noisy = InputNoise(0.5)(jnp.zeros((100, 100)), jax.random.key(0))
        >>> round(float(noisy.std()), 1)
        0.5
    """

    deviation: float | Float[Array, ""] = 0.0

    def __check_init__(self) -> None:
        check_range("deviation", self.deviation, low=0.0)

    def __call__(self, inputs: Float[Array, "..."], key: PRNGKeyArray) -> Float[Array, "..."]:
        """Changed inputs."""
        return inputs + self.deviation * jax.random.normal(key, inputs.shape, inputs.dtype)


class RandomAffine(eqx.Module):
    r"""Shift, turn and scale flat images at random, each in its own way, about their centre; linear interpolation.

    A pixel takes the value at $c + A (x - c) + t$ with $A$ a rotation divided by a scale; beyond the rim lies
    `background`. All draws are uniform.

    **Arguments:**

    - `shape`: rows and columns of an image.
    - `shift`: largest shift in either direction, in pixels, >= 0.
    - `rotation`: largest angle in either direction, in radians, >= 0.
    - `scaling`: largest relative change of size, in [0, 1[.
    - `background`: value beyond the rim.

        >>> import jax, jax.numpy as jnp
        >>> from morphax.learning.augmentation import RandomAffine
        >>> images = jnp.eye(8).reshape(1, 64)
        >>> same = RandomAffine((8, 8))(images, jax.random.key(0))
        >>> bool(jnp.allclose(same, images, atol=1e-6))
        True
    """

    shape: tuple[int, int] = eqx.field(static=True)
    shift: float | Float[Array, ""] = 0.0
    rotation: float | Float[Array, ""] = 0.0
    scaling: float | Float[Array, ""] = 0.0
    background: float = 0.0

    def __check_init__(self) -> None:
        check_range("shift", self.shift, low=0.0)
        check_range("rotation", self.rotation, low=0.0)
        check_range("scaling", self.scaling, low=0.0, high=1.0)

    def __call__(self, images: Float[Array, "images pixels"], key: PRNGKeyArray) -> Float[Array, "images pixels"]:
        """Changed images."""
        rows, columns = self.shape
        grid = jnp.stack(jnp.meshgrid(jnp.arange(rows), jnp.arange(columns), indexing="ij"), -1).reshape(-1, 2)
        centre = (jnp.array([rows, columns]) - 1) / 2

        def one(image: Array, key: PRNGKeyArray) -> Array:
            first, second, third = jax.random.split(key, 3)
            shift = self.shift * jax.random.uniform(first, (2,), minval=-1, maxval=1)
            angle = self.rotation * jax.random.uniform(second, minval=-1, maxval=1)
            size = 1 + self.scaling * jax.random.uniform(third, minval=-1, maxval=1)
            turn = jnp.array([[jnp.cos(angle), -jnp.sin(angle)], [jnp.sin(angle), jnp.cos(angle)]]) / size
            places = (grid - centre) @ turn.T + centre + shift
            return jax.scipy.ndimage.map_coordinates(
                image.reshape(rows, columns), list(places.T), order=1, cval=self.background
            )

        return jax.vmap(one)(images, jax.random.split(key, len(images)))
