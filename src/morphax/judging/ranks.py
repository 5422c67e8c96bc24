"""How many of a device's readings are independent of each other, and of noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, PRNGKeyArray

from morphax._checks import check_count, check_range, check_shape
from morphax._lazy import xr
from morphax.judging.readings import Readings, stretches
from morphax.substrates.base import Substrate, evolve, numbers_of

NOISES = (0.0, 1e-3, 1e-2, 1e-1)


def effective_dimension(
    responses: Any, noises: Sequence[float] = NOISES, *, repeats: Sequence[Any] = (), washout: int = 200
) -> Float[np.ndarray, " noises"]:
    r"""How many numbers a readout has to work with when every reading has noise of its own.

    $$d(\sigma) = \sum_i \frac{\lambda_i}{\lambda_i + \sigma^2}$$

    with the eigenvalues $\lambda_i$ of the correlation matrix of the readings. It bounds the information processing
    capacity of noisy readings, and is reached where all products are found; without noise it is the rank. Where there
    are repeats, what they do not have in common is noise, too: $d(\sigma) = \operatorname{tr} (C + \sigma^2)^{-1} S$
    (`consistency`).

    **Arguments:**

    - `responses`: readings (time, readings). Without repeats all of them is taken for an answer to the input.
    - `noises`: standard deviations $\sigma \ge 0$ of further noise on every reading, in units of its own.
    - `repeats`: further readings for the same input.
    - `washout`: points at the beginning that are left out.

        >>> import numpy as np
        >>> from morphax.judging import effective_dimension
        >>> x = np.random.default_rng(0).normal(size=(20_000, 3))
        >>> effective_dimension(np.hstack([x, x]), [0.0, 1.0], washout=0).round(1).tolist()
        [3.0, 2.0]
    """
    check_range("noises", noises, low=0.0)
    check_count("washout", washout, 0, responses.shape[0] - 2)
    if len(repeats):
        first, variance, shared = _in_common([responses, *repeats], washout)
        size = first.axes.T @ first.axes
        whole, part = first.axes.T @ variance @ first.axes, first.axes.T @ shared @ first.axes
        return np.array([np.trace(np.linalg.solve(whole + noise**2 * size, part)) for noise in noises])
    readings = Readings.of(responses, washout)
    variances = readings.variances[:, None]
    return np.sum(variances / (variances + np.asarray(noises, float) ** 2), axis=0)


def consistency(responses: Sequence[Any], *, washout: int = 200) -> xr.Dataset:
    r"""How much of the readings comes again when the same input is applied again.

    $$\gamma_j^2 = \frac{S_{jj}}{C_{jj}}, \qquad d = \operatorname{tr} C^{-1} S$$

    with the covariance $C$ of readings, and $S$ of what two repeats have in common: all of that is a function of the
    input, or of a clock that both share. $d$ is the effective dimension at the noise that the device really has, for
    which nothing needs to be known of it.

    **Arguments:**

    - `responses`: readings (time, readings) of two repeats or more of one input, beginning at the same point of it.
    - `washout`: points at the beginning that are left out, in which repeats still differ by where they started.

    **Returns:** a dataset with `consistency` $\gamma_j^2$ of every reading, 1 where nothing else has an influence and
    0 where the input has none; and `dimension` $d$.

    **Raises:** `ValueError` for fewer than two repeats, or repeats of different shapes.

    Source: Uchida, McAllister & Roy, PRL 93, 244102 (2004); Lymburn et al., Chaos 29, 023118 (2019).

        >>> import numpy as np
        >>> from morphax.judging import consistency
        >>> rng = np.random.default_rng(0)
        >>> signal = rng.normal(size=(50_000, 1))
        >>> noisy = [signal + rng.normal(size=signal.shape) for _ in range(2)]
        >>> round(float(consistency(noisy).dimension), 1)
        0.5
    """
    if len(responses) < 2:
        raise ValueError(f"responses hold {len(responses)} repeat; at least 2 of one input are needed")
    for place, repeat in enumerate(responses[1:], start=1):
        check_shape(f"responses[{place}]", repeat, responses[0].shape)
    check_count("washout", washout, 0, responses[0].shape[0] - 2)
    first, variance, shared = _in_common(responses, washout)
    # In the directions in which readings are more than rounding.
    whole, part = first.axes.T @ variance @ first.axes, first.axes.T @ shared @ first.axes
    unit = {"units": "1"}
    each = np.full(responses[0].shape[1], np.nan)
    each[first.kept] = np.diag(shared) / np.diag(variance)
    return xr.Dataset(
        {
            "consistency": ("reading", each, unit | {"may_be_missing": 1}),
            "dimension": ((), float(np.trace(np.linalg.solve(whole, part))), unit),
        }
    )


def _in_common(responses: Sequence[Any], washout: int) -> tuple[Readings, np.ndarray, np.ndarray]:
    """The first repeat, the covariance of readings in its units, and that of what two repeats have in common."""
    many, count = len(responses), responses[0].shape[0] - washout
    first = Readings.of(responses[0], washout)
    own = np.zeros((many, len(first.kept), len(first.kept)))
    own_means = np.zeros((many, len(first.kept)))
    common = np.zeros_like(own[0])
    for parts in zip(*(stretches(repeat, washout) for repeat in responses), strict=True):
        scaled = [(part[:, first.kept] - first.mean) / first.deviation for part in parts]
        for place, part in enumerate(scaled):
            own[place] += part.T @ part
            own_means[place] += part.sum(axis=0)
        together = np.sum(scaled, axis=0)
        common += together.T @ together
    means = own_means.sum(axis=0) / count
    variance = np.mean([o / count - np.outer(m, m) / count**2 for o, m in zip(own, own_means, strict=True)], axis=0)
    # The covariance of the sum is that of all repeats, and that of all pairs of different ones.
    shared = (common / count - np.outer(means, means) - many * variance) / (many * (many - 1))
    return first, variance, shared


def separation_ranks(
    substrate: Substrate,
    noise: float = 1e-3,
    *,
    streams: int = 400,
    length: int = 200,
    common: int = 10,
    low: float = -1.0,
    high: float = 1.0,
    key: PRNGKeyArray,
) -> dict[str, int]:
    r"""Kernel and generalisation rank: in how many directions readings differ for inputs that differ, and should not.

    The kernel rank counts the directions in which the last readings of `streams` independent random streams differ by
    more than noise, $\lambda_i > \sigma^2$ in units of each reading's deviation *over those streams*. The
    generalisation rank counts, on the same scale, those of streams whose last `common` inputs are the same: what is
    left of a past that should be forgotten. A device that classifies what it saw recently has a large first and a
    small second.

    **Arguments:**

    - `noise`: $\sigma > 0$. Without noise both are the number of readings.
    - `streams`: how many, at least as many as readings for the rank to be free.
    - `length`: inputs of a stream, >= `common` + 1.
    - `low`, `high`: inputs are uniform between them.

    **Returns:** `{"kernel": ..., "generalisation": ...}`.

    Source: Legenstein & Maass, Neural Networks 20, 323 (2007); the noise is ours.
    """
    check_range("noise", noise, low=0.0, open_low=True)
    check_count("streams", streams, 2)
    check_count("common", common, 1)
    check_count("length", length, common + 1)
    drive_key, common_key, run_key = jax.random.split(key, 3)
    channels = numbers_of(substrate.channels)
    shape = () if 1 in channels else channels[:1]
    drives = jax.random.uniform(drive_key, (streams, length, *shape), minval=low, maxval=high)
    same = jax.random.uniform(common_key, (common, *shape), minval=low, maxval=high)
    ended = jax.vmap(lambda drive, key: evolve(substrate, drive, key=key, observe="last")[0])
    keys = jax.random.split(run_key, streams)
    different = np.asarray(ended(drives, keys), float)
    alike = np.asarray(ended(drives.at[:, -common:].set(same), keys), float)
    scale = different.std(axis=0)
    scale[scale == 0] = 1.0

    def rank(rows: np.ndarray) -> int:
        singular = np.linalg.svd((rows - rows.mean(axis=0)) / scale, compute_uv=False)
        return int(np.sum(singular**2 / streams > noise**2))

    return {"kernel": rank(different), "generalisation": rank(alike)}
