r"""The trained part of a reservoir computer: one linear layer, found in closed form.

Features are the substrate's observations $F$, shape (time, neurons). The readout $Y = F W^T + b$ minimises
$\lVert F W^T + b - \tilde Y \rVert^2 + \lambda \lVert W \rVert^2$: with $\lambda = 0$ by the pseudo-inverse (Dudas et
al., Eqs. 2, 3), else as a ridge regression.
"""

import math
import warnings
from typing import Literal

import equinox as eqx
import jax
import jax.custom_batching
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PRNGKeyArray

from morphax._checks import check_count, check_finite, check_range, check_shape, is_concrete
from morphax.pytrees import SETTING, WEIGHT
from morphax.substrates.base import Substrate, evolve
from morphax.tasks.base import Task

Features = Float[Array, "time neurons"]
Targets = Float[Array, "time outputs"]
Ridge = float | Literal["cross-validate"] | None
LOST = 0.6  # nrmse that an error of readings makes; with the best ridge for it, lambda s^2 / (s^2 + lambda)^2 <= 1 / 4
BEYOND = 10.0  # standard deviations of the targets: outputs that vary more than that answer nothing


class Readout(eqx.Module):
    """A linear map from observations to outputs; call it with features of shape (time, neurons).

    `fit_readout` tells besides how far it can be trusted with readings other than those that it was fitted to:

    - `condition_number`: largest over smallest singular value of the features, those below rounding left out.
    - `noise_gain`: the `nrmse` that readings with an independent error as large as themselves would make; an error of
      1 % of their root mean square makes a hundredth of it.
    - `target_mean`, `target_deviation`: mean and standard deviation of what it was fitted to, shape (outputs,).

    A call warns of outputs that vary more than ten times as much as the targets did: such readings are not those that
    it was fitted to - of another device, or noisy - and it amplifies the difference.
    """

    weights: Float[Array, "outputs neurons"] = eqx.field(metadata=WEIGHT)
    bias: Float[Array, " outputs"] = eqx.field(metadata=WEIGHT)
    # What a fit found out: nothing trains it, and no device differs in it.
    condition_number: Float[Array, ""] | float = eqx.field(default=math.nan, metadata=SETTING)
    noise_gain: Float[Array, ""] | float = eqx.field(default=math.nan, metadata=SETTING)
    target_mean: Float[Array, " outputs"] | float = eqx.field(default=0.0, metadata=SETTING)
    target_deviation: Float[Array, " outputs"] | float = eqx.field(default=math.inf, metadata=SETTING)

    def __call__(self, features: Features | np.ndarray) -> Targets:
        outputs = jnp.asarray(features) @ self.weights.T + self.bias
        if is_concrete(outputs):
            wide = _root_mean_square(outputs - self.target_mean)
            times = _ratio(wide, _root_mean_square(self.target_deviation))
            if times > BEYOND:
                warnings.warn(
                    f"the outputs vary {times:.2g} times as much as the targets of the fit, which did not see such "
                    f"readings: it amplifies relative errors {self.noise_gain:.2g} times; fit with reading_error= or "
                    "a larger ridge=",
                    stacklevel=2,
                )
        return outputs


def fit_readout(
    features: Features | np.ndarray,
    targets: Targets | np.ndarray,
    *,
    ridge: Ridge = None,
    reading_error: ArrayLike = 0.0,
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
      with the least squared error over `folds` held-out blocks of consecutive points. None is what is best for
      `reading_error`: 0 where there is none.
    - `reading_error`: standard deviation $\epsilon \ge 0$ of what the readings that it is for will differ by from
      `features`, in units of these' root mean square $f$: 0.01 for noise of 1 %, or 0.05 for other devices of 5 %
      spread. The least expected squared error then has $\lambda = \mathrm{time} \cdot \epsilon^2 f^2$.
    - `bias`: whether a constant is learned too (never penalised). The paper's Eq. 2 has none.

    **Warns** where `reading_error`, or rounding, becomes an `nrmse` above 0.6. The ridge that is best for a reading
    error leaves at most 0.5 of it.

    **Raises:** `ValueError` for shapes that do not match, non-finite values, fewer points than folds.

        >>> import jax.numpy as jnp
        >>> from morphax import fit_readout
        >>> time = jnp.linspace(0, 6, 50)
        >>> features = jnp.stack([jnp.sin(time), jnp.cos(time)], axis=1)
        >>> readout = fit_readout(features, jnp.sin(time + 1)[:, None] + 2)
        >>> [round(float(w), 3) for w in (*readout.weights[0], *readout.bias)]   # cos 1, sin 1, 2
        [0.54, 0.841, 2.0]
        >>> float(readout.condition_number) < 2, round(float(readout.noise_gain), 1)
        (True, 1.0)
    """
    features, targets = (jnp.asarray(x, jnp.result_type(x, float)) for x in (features, targets))
    check_shape("features", features, (None, None))
    if not features.size:
        raise ValueError(f"features has shape {features.shape}; a readout needs at least 1 point and 1 neuron")
    check_shape("targets", targets, (features.shape[0], None))
    check_finite("features", features)
    check_finite("targets", targets)
    check_range("reading_error", reading_error, low=0.0)
    size = _root_mean_square(features)
    if ridge is None:
        varying = features - jnp.mean(features, axis=0) if bias else features
        strength = jnp.square(reading_error * _ratio(size, _root_mean_square(varying)))
    elif ridge == "cross-validate":
        check_count("folds", folds, 2, features.shape[0])
        strength = _cross_validated(features, targets, bias, folds)
    elif isinstance(ridge, str):
        raise ValueError(f"ridge is {ridge!r}; it must be a number >= 0, 'cross-validate' or None")
    else:
        check_range("ridge", ridge, low=0.0)
        strength = jnp.asarray(ridge, features.dtype)
    weights, offsets, condition = _paths(features, targets, strength[None], bias)
    mean, deviation = jnp.mean(targets, axis=0), jnp.std(targets, axis=0)
    made = jnp.sqrt(jnp.mean(jnp.sum(weights[0] ** 2, axis=1))) * size
    gain = _ratio(made, _root_mean_square(deviation))
    _warn_of_amplification(reading_error, gain, condition)
    return Readout(weights[0], offsets[0], condition, gain, mean, deviation)


class Reading(eqx.Module):
    """Observations while a task runs.

    - `train`, `test`: training points after the washout, and all test points.
    - `noise`: standard deviation of the noise on every reading.
    - `random`: whether another reading would differ: noise, or a random substrate.
    """

    train: Features
    test: Features
    noise: ArrayLike = 0.0
    random: bool = eqx.field(static=True, default=False)


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
    return Reading(observations[task.washout : split], observations[split:], noise, key is not None)


def answer(
    reading: Reading, task: Task, *, other: Reading | None = None, ridge: Ridge = None, bias: bool = True
) -> tuple[Targets, Readout]:
    """Fit a readout on the training part of a reading and answer the test part: (test outputs, readout).

    **Arguments:**

    - `reading`: of the device on which the readout is fitted (`read_task`).
    - `other`: of another device, or of the same with more noise, on the same task: its test part is answered instead,
      by the readout of the first. None: the same.
    - `ridge`, `bias`: as in `fit_readout`. A ridge of None is by how much the training part of `other` differs
      (`reading_error`); for a random reading "cross-validate"; else 0, the pseudo-inverse.
    """
    asked = reading if other is None else other
    if other is None:
        difference = jnp.asarray(reading.noise)
    else:
        check_shape("other.train", other.train, reading.train.shape)
        difference = _root_mean_square(other.train - reading.train)
    if ridge is None and other is None and reading.random:
        ridge = "cross-validate"
    readout = fit_readout(
        reading.train,
        task.train_targets[task.washout :],
        ridge=ridge,
        reading_error=_ratio(difference, _root_mean_square(reading.train)),
        bias=bias,
    )
    return asked.test @ readout.weights.T + readout.bias, readout


def _root_mean_square(values: ArrayLike) -> Float[Array, ""]:
    return jnp.sqrt(jnp.mean(jnp.square(values)))


def _ratio(part: Array, whole: Array) -> Array:
    """Their quotient; 0 where there is no whole."""
    return jnp.where(whole > 0, part / jnp.where(whole > 0, whole, 1.0), 0.0)


def _warn_of_amplification(reading_error: ArrayLike, gain: Array, condition: Array) -> None:
    """Warn where the outputs of readings with this error, or rounded ones, are lost in it."""
    if not (is_concrete(gain) and is_concrete(reading_error)):
        return
    rounding = float(jnp.finfo(gain.dtype).eps)
    error = max(float(np.asarray(reading_error)), rounding)
    if error * gain > LOST:
        what = "rounding" if error == rounding else f"a relative reading error of {error:.2g}"
        warnings.warn(
            f"{what} becomes an nrmse of {error * gain:.2g}, for the features have a condition number of "
            f"{condition:.2g}; pass a larger ridge=, or None, which finds the one for reading_error=",
            stacklevel=3,
        )


def _paths(
    features: Features, targets: Targets, ridge: Float[Array, " strengths"], bias: bool
) -> tuple[Float[Array, "strengths outputs neurons"], Float[Array, "strengths outputs"], Float[Array, ""]]:
    """Solutions for several strengths from one singular value decomposition, and the features' condition number."""
    centre = jnp.mean(features, axis=0) if bias else jnp.zeros_like(features[0])
    level = jnp.mean(targets, axis=0) if bias else jnp.zeros_like(targets[0])
    U, singular, Vt = thin_svd(features - centre)
    penalty = ridge * jnp.sum(singular**2) / features.shape[1]
    rounding = max(features.shape) * jnp.finfo(features.dtype).eps * singular[0]
    kept = singular > rounding
    divisor = jnp.where(kept, singular**2 + penalty[:, None], 1)
    gains = jnp.where(kept, singular / divisor, 0)
    weights = jnp.einsum("so,rs,sn->ron", U.T @ (targets - level), gains, Vt)
    smallest = jnp.min(singular, where=kept, initial=jnp.inf)
    return weights, level - weights @ centre, jnp.maximum(singular[0] / smallest, 1.0)


def _plain_svd(matrix: Float[Array, "rows columns"]) -> tuple[Array, Array, Array]:
    U, singular, Vt = jnp.linalg.svd(matrix, full_matrices=False)
    return U, singular, Vt


@jax.custom_jvp
def thin_svd(matrix: Float[Array, "rows columns"]) -> tuple[Array, Array, Array]:
    """Thin singular value decomposition, one by one in a batch.

    Several batched decompositions in one program can wait for each other for ever on XLA's CPU thread pool (seen with
    jaxlib 0.10.2 on two cores). Derivatives take the ordinary way: a sequential map has none in reverse mode.
    """
    return jax.custom_batching.sequential_vmap(_plain_svd)(matrix)


@thin_svd.defjvp
def _thin_svd_jvp(
    primals: tuple[Array], tangents: tuple[Array]
) -> tuple[tuple[Array, Array, Array], tuple[Array, Array, Array]]:
    return jax.jvp(_plain_svd, primals, tangents)


def _cross_validated(features: Features, targets: Targets, bias: bool, folds: int) -> Float[Array, ""]:
    """The strength with the least mean squared error on held-out blocks of consecutive points."""
    floor = int(np.floor(np.log10(jnp.finfo(features.dtype).eps))) + 1
    strengths = jnp.logspace(floor, floor + 16, 17, dtype=features.dtype)
    block = features.shape[0] // folds
    order = jnp.arange(block * folds).reshape(folds, block)

    def error(fold: Array) -> Float[Array, " strengths"]:
        held = order[fold]
        rest = jnp.delete(order, fold, axis=0, assume_unique_indices=True).reshape(-1)
        weights, offsets, _ = _paths(features[rest], targets[rest], strengths, bias)
        outputs = jnp.einsum("tn,ron->rto", features[held], weights) + offsets[:, None]
        return jnp.mean((outputs - targets[held]) ** 2, axis=(1, 2))

    return strengths[jnp.argmin(jnp.mean(jax.vmap(error)(jnp.arange(folds)), axis=0))]
