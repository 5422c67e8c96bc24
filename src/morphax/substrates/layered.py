"""Layers that feed each other: known wiring in front of each, and physics, which may be a black box."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Self

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PRNGKeyArray

from morphax._checks import check_key, check_range, check_shape
from morphax.dynamics.logistic import auto_oscillator_step
from morphax.pytrees import DEVICE, SETTING, WEIGHT
from morphax.substrates.base import Substrate
from morphax.substrates.wrappers import Wrapper, keeps
from morphax.units import ns


class Layered(Substrate):
    r"""A substrate of layers, each of which answers what the one below says.

    $$a_l = \mathrm{feed}(l, y_{l-1}), \qquad y_l = \mathrm{respond}(l, a_l), \qquad y_{-1} = \mathrm{input}, \qquad
      o = \mathrm{feed}(L, y_{L-1})$$

    Wiring (`feed`) is known and can be differentiated with respect to its weights: masks, gains and whatever structure
    it has come along. Of the physics (`respond`) a rule that promises so asks nothing but answers. An input presents
    all layers at once; the state is what the readout gave.

    A subclass gives `layers`, `feed`, `respond` and `channels`.

    **Raises:** `ValueError` where `respond` gives another number of neurons than what reached them.
    """

    @property
    @abstractmethod
    def layers(self) -> int:
        """$L$, those with physics; wiring `feed(layers, ...)` behind the last is the readout."""

    @abstractmethod
    def feed(self, layer: int, below: Float[Array, " below"]) -> Float[Array, " neurons"]:
        """What reaches the neurons of a layer, 0 to `layers`."""

    @abstractmethod
    def respond(
        self, layer: int, fed: Float[Array, " neurons"], *, key: PRNGKeyArray | None = None
    ) -> Float[Array, " neurons"]:
        """What each neuron of a layer, 0 to `layers` - 1, makes of what reaches it."""

    def passed(
        self, drive: Float[Array, " inputs"], *, key: PRNGKeyArray | None = None, shifts: Sequence[Array] | None = None
    ) -> tuple[list[Array], list[Array], Array]:
        """Present an input: what reached every layer, what enters every wiring (the input first), and the output.

        `shifts` are added to what reaches the layers.
        """
        fed, entering = [], [jnp.atleast_1d(drive)]
        for layer in range(self.layers):
            reached = self.feed(layer, entering[-1])
            reached = reached if shifts is None else reached + shifts[layer]
            noise = None if key is None else jax.random.fold_in(key, layer)
            fed.append(reached)
            answered = self.respond(layer, reached, key=noise)
            check_shape(f"the answer of layer {layer}", answered, reached.shape)
            entering.append(answered)
        return fed, entering, self.feed(self.layers, entering[-1])

    def initial_state(self, *, key: PRNGKeyArray | None = None) -> Float[Array, " outputs"]:
        """Nothing was presented yet."""
        channels = self.channels if isinstance(self.channels, int) else self.channels[0]
        shape = jax.eval_shape(lambda: self.passed(jnp.zeros(channels))[2])
        return jnp.zeros(shape.shape, shape.dtype)

    def step(
        self, state: Array, drive: Float[Array, " inputs"], *, key: PRNGKeyArray | None = None
    ) -> Float[Array, " outputs"]:
        """Present an input; nothing is left of the last."""
        return self.passed(drive, key=key)[2]

    def observe(self, state: Array, *, key: PRNGKeyArray | None = None) -> Float[Array, " outputs"]:
        """The output."""
        return state


@keeps(Layered)
class LayeredWrapper(Wrapper, Layered):
    """What a wrapper around layers forwards: what it does to the input and to the output are parts of the wiring."""

    substrate: Layered  # pyright: ignore[reportIncompatibleVariableOverride] (modules are frozen)

    @property
    def layers(self) -> int:
        """Those of the substrate, where a wrapper changes nothing that its wiring and physics do not show."""
        own = type(self)
        changed = [name for name in ("step", "stepper", "observe") if getattr(own, name) is not getattr(Wrapper, name)]
        if changed and own.respond is LayeredWrapper.respond:
            raise ValueError(
                f"{own.__name__} overrides {', '.join(changed)}, which layers do not show one by one; it must "
                "override `drive`, `read` or `respond` instead"
            )
        return self.substrate.layers

    def feed(self, layer: int, below: Float[Array, " below"]) -> Float[Array, " neurons"]:
        """That of the substrate, under the drive that reaches it, and what becomes of its output."""
        fed = self.substrate.feed(layer, self.drive(below) if layer == 0 else below)
        return self.read(fed) if layer == self.layers else fed

    def respond(
        self, layer: int, fed: Float[Array, " neurons"], *, key: PRNGKeyArray | None = None
    ) -> Float[Array, " neurons"]:
        """That of the substrate."""
        return self.substrate.respond(layer, fed, key=key)


class OscillatorLayers(Layered):
    r"""Layers of spintronic auto-oscillators between matrices of synapses, and a linear readout.

    $$a_l = W_l y_{l-1} + b_l, \qquad y_l = x(h), \qquad
      \frac{dx}{dt} = -\gamma (1 + Q x) x + I_l \, x (1 - x), \qquad I_l = I_0 + S a_l$$

    Every oscillator starts from the power $x_0$, is driven for the interval $h$, and shows its power then
    (`auto_oscillator_step`: the closed form). With $I_0 = 2 \gamma$, $x_0 = 1/2$ and $Q = 0$ it stays where it is when
    nothing reaches it.

    **Units:** times in ns, rates in 1/ns; weights, biases, inputs and outputs are dimensionless.

    **Arguments:**

    - `weights`: one matrix (to, from) for each layer, and one for the readout.
    - `biases`: one vector for each matrix.
    - `damping_rate`: $\gamma > 0$, here and below one number for all oscillators; each gets its own, as a device has.
    - `nonlinear_damping`: $Q \ge 0$.
    - `amplification`: $S$. None: $4 \gamma$.
    - `resting_drive`: $I_0$. None: $2 \gamma$.
    - `initial_power`: $x_0$ in ]0, 1].
    - `interval`: $h > 0$. None: $4 / \gamma$.

    Source: Plouet et al., Phys. Rev. Applied 23, 034051 (2025), Eqs. 1, 2, for the oscillator.

        >>> import jax, jax.numpy as jnp
        >>> from morphax.substrates.layered import OscillatorLayers
        >>> network = OscillatorLayers.random((4, 3, 2), key=jax.random.key(0))
        >>> network.step(network.initial_state(), jnp.ones(4)).shape
        (2,)
        >>> network.respond(0, jnp.array([-50.0, 0.0, 50.0])).round(2).tolist()   # off, at rest, full
        [0.0, 0.5, 1.0]
    """

    weights: tuple[Float[Array, "to from"], ...] = eqx.field(metadata=WEIGHT)
    biases: tuple[Float[Array, " to"], ...] = eqx.field(metadata=WEIGHT)
    damping_rate: tuple[Float[Array, " neurons"], ...] = eqx.field(metadata=DEVICE)
    nonlinear_damping: tuple[Float[Array, " neurons"], ...] = eqx.field(metadata=DEVICE)
    amplification: tuple[Float[Array, " neurons"], ...] = eqx.field(metadata=DEVICE)
    resting_drive: tuple[Float[Array, " neurons"], ...] = eqx.field(metadata=DEVICE)
    initial_power: Float[Array, ""] = eqx.field(metadata=SETTING)
    interval: Float[Array, ""] = eqx.field(metadata=SETTING)

    def __init__(
        self,
        weights: Sequence[ArrayLike],
        biases: Sequence[ArrayLike],
        damping_rate: float = 1 / (14.12 * ns),
        nonlinear_damping: float = 0.0,
        amplification: float | None = None,
        resting_drive: float | None = None,
        initial_power: ArrayLike = 0.5,
        interval: ArrayLike | None = None,
    ):
        check_range("damping_rate", damping_rate, low=0.0, open_low=True)
        check_range("nonlinear_damping", nonlinear_damping, low=0.0)
        check_range("initial_power", initial_power, low=0.0, high=1.0, open_low=True)
        interval = 4 / damping_rate if interval is None else interval
        check_range("interval", interval, low=0.0, open_low=True)
        kind = jnp.result_type(float)
        self.weights = tuple(jnp.asarray(matrix, kind) for matrix in weights)
        self.biases = tuple(jnp.asarray(vector, kind) for vector in biases)
        if len(self.weights) < 2 or len(self.weights) != len(self.biases):
            raise ValueError(
                f"weights has {len(self.weights)} matrices and biases {len(self.biases)} vectors; there must be one of "
                "each for every layer and for the readout"
            )
        before = self.weights[0].shape[1]
        for index, (matrix, vector) in enumerate(zip(self.weights, self.biases, strict=True)):
            check_shape(f"weights[{index}]", matrix, (None, before))
            check_shape(f"biases[{index}]", vector, matrix.shape[:1])
            before = matrix.shape[0]

        def each(value: float) -> tuple[Array, ...]:
            return tuple(jnp.full(len(vector), value, kind) for vector in self.biases[:-1])

        self.damping_rate, self.nonlinear_damping = each(damping_rate), each(nonlinear_damping)
        self.amplification = each(4 * damping_rate if amplification is None else amplification)
        self.resting_drive = each(2 * damping_rate if resting_drive is None else resting_drive)
        self.initial_power, self.interval = jnp.asarray(initial_power, kind), jnp.asarray(interval, kind)

    @classmethod
    def random(cls, sizes: Sequence[int], *, scale: float = 1.0, key: PRNGKeyArray, **options: ArrayLike) -> Self:
        r"""Normal weights with a standard deviation of `scale` $/ \sqrt{\mathrm{fan\ in}}$, no biases.

        - `sizes`: inputs, neurons of every layer, outputs.
        - `options`: those of the class.
        """
        check_key("key", key)
        check_range("scale", scale, low=0.0)
        if len(sizes) < 3 or min(sizes) < 1:
            raise ValueError(f"sizes is {tuple(sizes)}; it must name inputs, one layer or more, and outputs, each >= 1")
        keys = jax.random.split(key, len(sizes) - 1)
        shapes = list(zip(sizes[1:], sizes[:-1], strict=True))
        drawn = [scale * jax.random.normal(k, s) / s[1] ** 0.5 for k, s in zip(keys, shapes, strict=True)]
        return cls(drawn, [jnp.zeros(size) for size in sizes[1:]], **options)  # pyright: ignore[reportArgumentType]

    @property
    def channels(self) -> int:
        """The inputs of the first layer."""
        return self.weights[0].shape[1]

    @property
    def layers(self) -> int:
        """Those of oscillators."""
        return len(self.weights) - 1

    def feed(self, layer: int, below: Float[Array, " below"]) -> Float[Array, " neurons"]:
        """$W y + b$."""
        check_shape("below", below, self.weights[layer].shape[1:])
        return below @ self.weights[layer].T + self.biases[layer]

    def respond(
        self, layer: int, fed: Float[Array, " neurons"], *, key: PRNGKeyArray | None = None
    ) -> Float[Array, " neurons"]:
        """The power of each oscillator after an interval."""
        drive = self.resting_drive[layer] + self.amplification[layer] * fed
        numbers = self.damping_rate[layer], self.nonlinear_damping[layer], self.interval
        power = jnp.broadcast_to(self.initial_power, drive.shape)
        return auto_oscillator_step(power, drive, *numbers)
