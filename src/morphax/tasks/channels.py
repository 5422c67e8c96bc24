"""Symbols and bits: a distorted radio channel to be undone, and parity of what was heard."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from morphax._checks import check_count, check_finite, check_key, check_shape
from morphax.tasks._points import check_points
from morphax.tasks.base import Task

SYMBOLS = (-3.0, -1.0, 1.0, 3.0)
ECHOES = (0.08, -0.12, 1.0, 0.18, -0.1, 0.091, -0.05, 0.04, 0.03, 0.01)
"""Of symbols from 2 ahead to 7 behind."""
AHEAD = 2


def channel_equalisation(
    train_points: int = 3000,
    test_points: int = 6000,
    *,
    signal_to_noise: float = 24.0,
    washout: int = 100,
    key: PRNGKeyArray,
) -> Task:
    r"""Tell which symbols were sent through a channel with echoes, distortion and noise.

    $$q(n) = \sum_{k=-2}^{7} h_k \, d(n - k), \qquad u(n) = q(n) + 0.036 \, q(n)^2 - 0.011 \, q(n)^3 + \nu(n)$$

    of independent symbols $d \in \{-3, -1, 1, 3\}$ with $h_{-2} \dots h_7$ = 0.08, -0.12, 1, 0.18, -0.1, 0.091, -0.05,
    0.04, 0.03, 0.01; $\nu$ is Gaussian. The target beside $u(n)$ is $d(n - 2)$. What is compared is how often the
    symbol next to an output is not the one that was sent (`symbol_errors`).

    **Arguments:**

    - `train_points`, `test_points`: numbers of points.
    - `signal_to_noise`: of the distorted signal to $\nu$, in dB; 12 to 32 in the literature.
    - `washout`: training points that enter no fit, from 0 to `train_points - 1`.
    - `key`: random key; it draws symbols and noise.

    **Returns:** a regression `Task` with inputs (time,) and targets (time, 1).

    **Raises:** `ValueError` for a value outside the ranges above.

    Source: Jaeger & Haas, Science 304, 78 (2004); as a device's task Paquot et al., Scientific Reports 2, 287 (2012).

        >>> import jax
        >>> from morphax.tasks.channels import channel_equalisation
        >>> task = channel_equalisation(200, 100, key=jax.random.key(0))
        >>> task.train_inputs.shape, sorted(set(task.train_targets[:, 0].tolist()))
        ((200,), [-3.0, -1.0, 1.0, 3.0])
    """
    check_key("key", key)
    check_points(train_points, test_points, washout)
    check_finite("signal_to_noise", signal_to_noise)
    symbol_key, noise_key = jax.random.split(key)
    points = train_points + test_points
    behind = len(ECHOES) - 1 - AHEAD
    sent = jax.random.randint(symbol_key, (behind + points + AHEAD,), 0, len(SYMBOLS))
    values = jnp.array(SYMBOLS)[sent]
    # Entry n of a convolution reaches from 2 ahead of symbol n to 7 behind it.
    heard = jnp.convolve(values, jnp.array(ECHOES), mode="valid")
    distorted = heard + 0.036 * heard**2 - 0.011 * heard**3
    noise = jax.random.normal(noise_key, distorted.shape) * jnp.std(distorted) * 10 ** (-signal_to_noise / 20)
    targets = values[behind - 2 : behind - 2 + points, None]
    inputs, split = distorted + noise, train_points
    return Task(
        inputs[:split],
        targets[:split],
        inputs[split:],
        targets[split:],
        kind="regression",
        washout=washout,
        reference="Jaeger & Haas 2004; Paquot et al. 2012",
    )


def symbol_errors(outputs: Float[Array, "time 1"], targets: Float[Array, "time 1"]) -> Float[Array, ""]:
    """The share of outputs that are next to another of the four symbols than the one that was sent."""
    check_shape("outputs", outputs, targets.shape)
    nearest = jnp.argmin(jnp.abs(outputs - jnp.array(SYMBOLS)), axis=-1)
    sent = jnp.argmin(jnp.abs(targets - jnp.array(SYMBOLS)), axis=-1)
    return jnp.mean(nearest != sent, dtype=jnp.result_type(outputs, float))


def parity(
    order: int = 3, train_points: int = 1000, test_points: int = 1000, *, washout: int = 100, key: PRNGKeyArray
) -> Task:
    r"""Tell whether the last bits hold an odd number of ones.

    $$y(t) = \left(\sum_{k=0}^{n-1} b(t - k)\right) \bmod 2, \qquad u(t) = 2 b(t) - 1$$

    of independent bits. No readout that is linear in past inputs does better than chance, from two bits on.

    **Arguments:**

    - `order`: how many bits, $n \ge 1$.
    - `train_points`, `test_points`: numbers of points.
    - `washout`: training points that enter no fit, from `order` - 1 to `train_points - 1`.
    - `key`: random key; it draws the bits.

    **Returns:** a classification `Task` with inputs -1 and 1, (time,), and targets 0 and 1, (time, 1).

    **Raises:** `ValueError` for a value outside the ranges above.

    Source: Bertschinger & Natschlager, Neural Computation 16, 1413 (2004).

        >>> import jax
        >>> from morphax.tasks.channels import parity
        >>> task = parity(2, key=jax.random.key(0))
        >>> bits = (task.train_inputs + 1) / 2
        >>> bool((task.train_targets[1:, 0] == (bits[1:] + bits[:-1]) % 2).all())
        True
    """
    check_key("key", key)
    check_count("order", order, 1)
    check_points(train_points, test_points, washout)
    check_count("washout", washout, order - 1, train_points - 1)
    bits = jax.random.bernoulli(key, shape=(train_points + test_points,)).astype(jnp.int32)
    sums = jnp.convolve(bits, jnp.ones(order, jnp.int32))[: len(bits)]
    inputs, targets, split = 2.0 * bits - 1, (sums % 2).astype(float)[:, None], train_points
    return Task(
        inputs[:split],
        targets[:split],
        inputs[split:],
        targets[split:],
        kind="classification",
        washout=washout,
        reference="Bertschinger & Natschlager 2004",
    )
