r"""The trained part of a reservoir computer: one linear layer, found in closed form.

Features are the substrate's observations $F$, shape (time, neurons). The readout $Y = F W^T + b$ minimises
$\lVert F W^T + b - \tilde Y \rVert^2 + \lambda \lVert W \rVert^2$: with $\lambda = 0$ by the pseudo-inverse (Dudas et
al., Eqs. 2, 3), else as a ridge regression.
"""

from typing import Literal, NamedTuple

import equinox as eqx
import jax
import jax.custom_batching
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from morphax._checks import check_count, check_finite, check_range, check_shape
from morphax.pytrees import WEIGHT
from morphax.substrates.base import Substrate, evolve
from morphax.tasks.base import Task

Features = Float[Array, "time neurons"]
Targets = Float[Array, "time outputs"]


class Readout(eqx.Module):
    """A linear map from observations to outputs; call it with features of shape (time, neurons)."""

    weights: Float[Array, "outputs neurons"] = eqx.field(metadata=WEIGHT)
    bias: Float[Array, " outputs"] = eqx.field(metadata=WEIGHT)

    def __call__(self, features: Features | np.ndarray) -> Targets:
        return jnp.asarray(features) @ self.weights.T + self.bias


def fit_readout(
    features: Features | np.ndarray,
    targets: Targets | np.ndarray,
    *,
    ridge: float | Literal["cross-validate"] = 0.0,
    bias: bool = True,
    folds: int = 5,
) -> Readout:
    r"""The readout that answers `features` with `targets` as well as a linear map can.

    **Arguments:**

    - `features`: observations, (time, neurons).
    - `targets`: (time, outputs).
    - `ridge`: the penalty $\lambda \ge 0$ in units of the neurons' mean square, $\lambda = $ `ridge` $\cdot
      \mathrm{tr}(F^T F)/\mathrm{neurons}$, so that it does not depend on the scale of the readings. 0 is the
      pseudo-inverse with singular values below rounding dropped. "cross-validate" takes, from 17 decades, the strength
      with the least squared error over `folds` held-out blocks of consecutive points.
    - `bias`: whether a constant is learned too (never penalised). The paper's Eq. 2 has none.

    **Raises:** `ValueError` for shapes that do not match, non-finite values, fewer points than folds.

        >>> import jax.numpy as jnp
        >>> from morphax import fit_readout
        >>> time = jnp.linspace(0, 6, 50)
        >>> features = jnp.stack([jnp.sin(time), jnp.cos(time)], axis=1)
        >>> readout = fit_readout(features, jnp.sin(time + 1)[:, None] + 2)
        >>> [round(float(w), 3) for w in (*readout.weights[0], *readout.bias)]   # cos 1, sin 1, 2
        [0.54, 0.841, 2.0]
    """
    features, targets = jnp.asarray(features), jnp.asarray(targets)
    check_shape("features", features, (None, None))
    check_shape("targets", targets, (features.shape[0], None))
    check_finite("features", features)
    check_finite("targets", targets)
    if ridge == "cross-validate":
        check_count("folds", folds, 2, features.shape[0])
        strength = _cross_validated(features, targets, bias, folds)
    elif isinstance(ridge, str):
        raise ValueError(f"ridge is {ridge!r}; it must be a number >= 0 or 'cross-validate'")
    else:
        check_range("ridge", ridge, low=0.0)
        strength = jnp.asarray(ridge, features.dtype)
    weights, offsets = _paths(features, targets, strength[None], bias)
    return Readout(weights[0], offsets[0])


class Reading(NamedTuple):
    """Observations while a task runs: training points after the washout, and all test points."""

    train: Features
    test: Features


def read_task(
    substrate: Substrate, task: Task, *, noise: float | Array = 0.0, key: PRNGKeyArray | None = None
) -> Reading:
    r"""Drive a substrate through a task and read it: a stream in one go, else each example after its last input.

    **Arguments:**

    - `substrate`: the reservoir.
    - `task`: its first `task.washout` training points drive the reservoir and are then discarded; no test point is.
    - `noise`: standard deviation of Gaussian noise added to every reading, in units of the observation. A noise-free
      pseudo-inverse uses memory at the level of rounding that no laboratory has.
    - `key`: needed for noise and by random substrates.
    """
    check_range("noise", noise, low=0.0)
    dynamics, meter = (None, None) if key is None else tuple(jax.random.split(key))
    drives = jnp.concatenate([task.train_inputs, task.test_inputs])
    if task.arrangement == "stream":
        observations, _ = evolve(substrate, drives, key=dynamics)
    else:
        keys = None if dynamics is None else jax.random.split(dynamics, len(drives))
        drives = drives[:, None] if task.arrangement == "inputs" else drives
        observations = jax.vmap(lambda d, k: evolve(substrate, d, key=k, observe="last")[0])(drives, keys)
    if meter is not None:
        observations = observations + noise * jax.random.normal(meter, observations.shape, observations.dtype)
    elif isinstance(noise, jax.Array) or noise > 0:
        raise ValueError(f"noise is {noise} but key is None; random noise needs a key")
    split = task.train_inputs.shape[0]
    return Reading(observations[task.washout : split], observations[split:])


def answer(
    reading: Reading, task: Task, *, ridge: float | Literal["cross-validate"] = 0.0, bias: bool = True
) -> tuple[Targets, Readout]:
    """Fit a readout on the training part of a reading and answer the test part: (test outputs, readout)."""
    readout = fit_readout(reading.train, task.train_targets[task.washout :], ridge=ridge, bias=bias)
    return readout(reading.test), readout


def _paths(
    features: Features, targets: Targets, ridge: Float[Array, " strengths"], bias: bool
) -> tuple[Float[Array, "strengths outputs neurons"], Float[Array, "strengths outputs"]]:
    """Solutions for several strengths from one singular value decomposition."""
    centre = jnp.mean(features, axis=0) if bias else jnp.zeros_like(features[0])
    level = jnp.mean(targets, axis=0) if bias else jnp.zeros_like(targets[0])
    U, singular, Vt = _svd(features - centre)
    penalty = ridge * jnp.sum(singular**2) / features.shape[1]
    rounding = max(features.shape) * jnp.finfo(features.dtype).eps * singular[0]
    kept = singular > rounding
    divisor = jnp.where(kept, singular**2 + penalty[:, None], 1)
    gains = jnp.where(kept, singular / divisor, 0)
    weights = jnp.einsum("so,rs,sn->ron", U.T @ (targets - level), gains, Vt)
    return weights, level - weights @ centre


def _thin_svd(matrix: Float[Array, "rows columns"]) -> tuple[Array, Array, Array]:
    U, singular, Vt = jnp.linalg.svd(matrix, full_matrices=False)
    return U, singular, Vt


@jax.custom_jvp
def _svd(matrix: Float[Array, "rows columns"]) -> tuple[Array, Array, Array]:
    """Thin singular value decomposition, one by one in a batch.

    Several batched decompositions in one program can wait for each other for ever on XLA's CPU thread pool (seen with
    jaxlib 0.10.2 on two cores). Derivatives take the ordinary way: a sequential map has none in reverse mode.
    """
    return jax.custom_batching.sequential_vmap(_thin_svd)(matrix)


@_svd.defjvp
def _svd_jvp(
    primals: tuple[Array], tangents: tuple[Array]
) -> tuple[tuple[Array, Array, Array], tuple[Array, Array, Array]]:
    return jax.jvp(_thin_svd, primals, tangents)


def _cross_validated(features: Features, targets: Targets, bias: bool, folds: int) -> Float[Array, ""]:
    """The strength with the least mean squared error on held-out blocks of consecutive points."""
    floor = int(np.floor(np.log10(jnp.finfo(features.dtype).eps))) + 1
    strengths = jnp.logspace(floor, floor + 16, 17, dtype=features.dtype)
    block = features.shape[0] // folds
    order = jnp.arange(block * folds).reshape(folds, block)

    def error(fold: Array) -> Float[Array, " strengths"]:
        held = order[fold]
        rest = jnp.delete(order, fold, axis=0, assume_unique_indices=True).reshape(-1)
        weights, offsets = _paths(features[rest], targets[rest], strengths, bias)
        outputs = jnp.einsum("tn,ron->rto", features[held], weights) + offsets[:, None]
        return jnp.mean((outputs - targets[held]) ** 2, axis=(1, 2))

    return strengths[jnp.argmin(jnp.mean(jax.vmap(error)(jnp.arange(folds)), axis=0))]
