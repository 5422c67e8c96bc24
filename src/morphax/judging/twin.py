"""A model of the very device that was measured: its parameters, how well they are known, and whether the model fits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from morphax._checks import check_choice, check_count, check_range, check_shape
from morphax._lazy import xr
from morphax._optional import needed
from morphax.judging.recording import Recording
from morphax.pytrees import Role, select
from morphax.substrates.base import Substrate, evolve

FITS = 1.2
"""A model fits whose squared residuals, in units of the noise and per degree of freedom, are below this."""
KNOWN = 0.5
"""A parameter is identified when its standard error is below this share of the spread that was expected of it."""
SMALLEST = 1e-3
"""Readings that deviate by less than this share of the largest deviation are weighted as if they did: dead neurons."""


class Twin(NamedTuple):
    """What `identify` found.

    **Attributes:**

    - `substrate`: the model with the parameters of the device.
    - `parameters`: a dataset over `parameter` (a text such as ".damping_rate[1]"): `value`, `error` (standard),
      `start`, `identified`.
    - `chi2`: squared residuals in units of the noise, per degree of freedom; about 1 for the right model. Where the
      noise was not known it is 1 by construction, and NaN here.
    - `nrmse`: of the free-running twin on points that were not used, in units of the readings' deviation.
    - `noise`: of each reading, as it was given or found.
    - `gain`, `offset`: of each reading.
    """

    substrate: Substrate
    parameters: xr.Dataset
    chi2: float
    nrmse: float
    noise: Float[np.ndarray, " readings"]
    gain: Float[np.ndarray, " readings"]
    offset: Float[np.ndarray, " readings"]

    @property
    def fits(self) -> bool:
        """Whether the model explains the recording; where the noise is not known nobody can say."""
        return bool(self.chi2 < FITS)

    def says(self) -> str:
        """What was found, in a sentence."""
        unknown = [str(name) for name in self.parameters.parameter.values[~self.parameters.identified.values]]
        count = self.parameters.sizes["parameter"]
        known = f"{count - len(unknown)} of {count} parameters are identified"
        if unknown:
            known += f" (not {', '.join(unknown[:4])}{', ...' if len(unknown) > 4 else ''})"
        text = f"{known}; running freely the twin is off by {100 * self.nrmse:.2g} % of the readings' deviation"
        if np.isnan(self.chi2):
            return f"{text}; the noise is not known, so nobody can say whether the model fits"
        verdict = "the model fits" if self.fits else "the model does not fit: another class, or more starts"
        return f"{text}; chi^2 per degree of freedom is {self.chi2:.3g}, {verdict}"


def identify(
    substrate: Substrate,
    recording: Recording,
    *,
    free: Sequence[Role] = ("device",),
    spread: float = 0.1,
    noise: float | Float[np.ndarray, " readings"] | None = None,
    gain: Literal["profile", "known"] = "profile",
    washout: int = 0,
    train_fraction: float = 0.75,
    starts: int = 4,
    max_steps: int = 100,
    key: PRNGKeyArray,
) -> Twin:
    r"""Fit parameters of a model to a recording of the device: a twin, which answers as the device does.

    $$\theta_i = \theta_i^0 e^{\sigma z_i}, \qquad
      \min_z \sum_{t, j} \left(\frac{y_j(t) - a_j x_j(t; \theta) - b_j}{\epsilon_j}\right)^2 + \sum_i z_i^2$$

    by the method of Levenberg and Marquardt on the whole dynamics, with the Jacobian from forward-mode derivatives. The
    last sum is what is known beforehand: parameters scatter by a share $\sigma$ around those of the model. Gain $a_j$
    and offset $b_j$ of the readings are eliminated (variable projection), since instruments are rarely calibrated. The
    covariance of $z$ is $(J^T J + 1)^{-1}$, from the curvature at the minimum.

    **Arguments:**

    - `substrate`: the model, with parameters as designed. Zeros stay zero.
    - `recording`: of the device; the model starts at its own initial state where the recording begins.
    - `free`: roles of the leaves that are fitted.
    - `spread`: $\sigma > 0$, the relative spread that is expected.
    - `noise`: $\epsilon$, the standard deviation of the noise on readings, in their unit. None: from the difference of
      repeats where there are some; otherwise from what is left by the best fit, which then cannot be doubted.
    - `gain`: whether gain and offset of the readings are fitted too ("profile"), or 1 and 0 ("known").
    - `washout`: points that are not compared, while where the device started still matters.
    - `train_fraction`: part of the recording that is fitted; the rest judges the twin.
    - `starts`: from so many starts at most the search begins, the model's own first, until the model fits.
    - `max_steps`: of each search.

    **Raises:** `ValueError` for values out of range, a model without derivatives or free parameters, or of another
    number of readings; `ImportError` where Optimistix is missing (extra `twin`).

        >>> import jax
        >>> from morphax import JosephsonMixer
        >>> from morphax.judging import record
        >>> from morphax.judging.twin import identify
        >>> design = JosephsonMixer.two_mode(measured=9)
        >>> device = JosephsonMixer.two_mode(drive_amplitude=3.0 / 1000**0.5, measured=9)
        >>> drives = jax.random.uniform(jax.random.key(0), (300,))
        >>> recording = record(device, drives, noise=0.01, repeats=2, key=jax.random.key(1))
        >>> twin = identify(design, recording, gain="known", key=jax.random.key(2))
        >>> twin.fits, bool(abs(twin.substrate.drive_amplitude[0] * 1000**0.5 - 3.0) < 0.02)
        (True, True)
    """
    optimistix = needed("optimistix", "twin")
    check_range("spread", spread, low=0.0, open_low=True)
    check_choice("gain", gain, ("profile", "known"))
    check_count("starts", starts, 1)
    check_count("max_steps", max_steps, 1)
    check_range("train_fraction", train_fraction, low=0.0, high=1.0, open_low=True)
    split = round(train_fraction * len(recording))
    check_count("washout", washout, 0, max(split - 2, 0))
    if not substrate.exact_derivatives:
        raise ValueError(f"{type(substrate).__name__} has no derivatives of its own; a twin is found by them")
    chosen, rest = select(substrate, *free)
    values, back = ravel_pytree(chosen)
    moved = np.flatnonzero(np.asarray(values))
    if not len(moved):
        raise ValueError(
            f"free is {tuple(free)}, but no number that is not zero has such a role; nothing can be fitted"
        )
    if missing := recording.missing():
        raise ValueError(missing)
    measured = jnp.asarray(np.asarray(recording.responses[0 : len(recording)]), values.dtype)
    table = recording.inputs[0 : len(recording)]
    inputs = jnp.asarray(table if table.shape[1] > 1 else table[:, 0], values.dtype)
    modelled = jax.eval_shape(lambda: evolve(substrate, inputs)[0])
    check_shape("responses", measured, modelled.shape)

    def model(z: Array) -> Substrate:
        return eqx.combine(back(values * jnp.exp(jnp.zeros_like(values).at[moved].set(spread * z))), rest)

    problem = _Problem(model, inputs, measured, split, washout, gain == "profile")
    epsilon, known = _noise_of(recording, noise, measured)
    best = _search(optimistix, problem, epsilon, len(moved), starts, max_steps, key)
    if not known:
        # The residuals of the best fit are the only sign of the noise.
        left, _, _ = problem.compared(best, jnp.ones_like(epsilon))
        epsilon = jnp.maximum(jnp.std(left, axis=0), jnp.finfo(left.dtype).eps)
        best = _search(optimistix, problem, epsilon, len(moved), 1, max_steps, key, start=best)
    residuals, a, b = problem.compared(best, epsilon)
    jacobian = np.asarray(jax.jacfwd(lambda z: problem.compared(z, epsilon)[0].ravel())(best), float)
    covariance = np.linalg.inv(jacobian.T @ jacobian + np.eye(len(moved)))
    errors = np.sqrt(np.diag(covariance))
    freedom = residuals.size - len(moved) - (2 * measured.shape[1] if gain == "profile" else 0)
    found = model(best)
    new = np.asarray(ravel_pytree(select(found, *free)[0])[0], float)[moved]
    unit = {"units": "1"}
    parameters = xr.Dataset(
        {
            "value": ("parameter", new),
            "error": ("parameter", np.abs(new) * spread * errors),
            "start": ("parameter", np.asarray(values, float)[moved]),
            "identified": ("parameter", errors < KNOWN, unit),
        },
        {"parameter": np.array(_paths(chosen))[moved]},
    )
    return Twin(
        found,
        parameters,
        float(jnp.sum(residuals**2)) / freedom if known else float("nan"),
        problem.free_running(best, a, b),
        np.asarray(epsilon, float),
        np.asarray(a, float),
        np.asarray(b, float),
    )


class _Problem(NamedTuple):
    """A model and what it is compared with."""

    model: Any
    inputs: Array
    measured: Array
    split: int
    washout: int
    profiled: bool

    def compared(self, z: Array, epsilon: Array) -> tuple[Array, Array, Array]:
        """Residuals of the fitted points in units of the noise; gain and offset."""
        used = slice(self.washout, self.split)
        x, y = evolve(self.model(z), self.inputs[: self.split])[0][used], self.measured[used]
        a, b = self._calibrated(x, y)
        return (y - a * x - b) / epsilon, a, b

    def _calibrated(self, x: Array, y: Array) -> tuple[Array, Array]:
        if not self.profiled:
            return jnp.ones(x.shape[1], x.dtype), jnp.zeros(x.shape[1], x.dtype)
        means = jnp.mean(x, axis=0), jnp.mean(y, axis=0)
        centred = x - means[0]
        variance = jnp.sum(centred**2, axis=0)
        # A reading that does not move has no gain.
        a = jnp.sum(centred * (y - means[1]), axis=0) / jnp.where(variance > 0, variance, 1.0)
        return a, means[1] - a * means[0]

    def free_running(self, z: Array, a: Array, b: Array) -> float:
        """Error on the points behind those that were fitted, in units of the readings' deviation."""
        if self.split >= len(self.measured):
            return float("nan")
        x = evolve(self.model(z), self.inputs)[0][self.split :]
        y = self.measured[self.split :]
        scale = jnp.std(y, axis=0)
        scale = jnp.maximum(scale, SMALLEST * jnp.max(scale))
        return float(jnp.sqrt(jnp.mean(((y - a * x - b) / scale) ** 2)))


def _search(
    optimistix: Any,
    problem: _Problem,
    epsilon: Array,
    count: int,
    starts: int,
    max_steps: int,
    key: PRNGKeyArray,
    start: Array | None = None,
) -> Array:
    """The best of some searches; no further one where the model fits already."""
    solver = optimistix.LevenbergMarquardt(rtol=1e-6, atol=1e-6)

    def residuals(z: Array, epsilon: Array) -> Array:
        return jnp.concatenate([problem.compared(z, epsilon)[0].ravel(), z])

    @jax.jit
    def search(z: Array) -> tuple[Array, Array]:
        options = {"jac": "fwd"}
        found = optimistix.least_squares(residuals, solver, z, epsilon, options, max_steps=max_steps, throw=False).value
        return found, jnp.sum(residuals(found, epsilon) ** 2)

    used = (problem.split - problem.washout) * problem.measured.shape[1]
    best, least = None, np.inf
    for place, each in enumerate(jax.random.split(key, starts)):
        first = jnp.zeros(count, epsilon.dtype) if start is None else start
        found, cost = search(first if place == 0 else jax.random.normal(each, (count,), epsilon.dtype))
        # A search that left all bounds has no cost.
        cost = float(np.nan_to_num(float(cost), nan=np.inf))
        if best is None or cost < least:
            best, least = found, cost
        if least < FITS * used:
            break
    assert best is not None
    return best


def _noise_of(recording: Recording, noise: Any, measured: Array) -> tuple[Array, bool]:
    """Noise of each reading, and whether it is known."""
    scale = jnp.std(measured, axis=0)
    floor = SMALLEST * jnp.max(scale)
    if noise is not None:
        check_range("noise", noise, low=0.0, open_low=True)
        return jnp.broadcast_to(jnp.asarray(noise, measured.dtype), scale.shape), True
    if recording.repeats:
        runs = [np.asarray(each[0 : len(recording)], float) for each in (recording.responses, *recording.repeats)]
        spread = np.std(np.stack(runs), axis=0, ddof=1)
        found = jnp.asarray(np.sqrt(np.mean(spread**2, axis=0)), measured.dtype)
        return jnp.maximum(found, floor * 1e-2), True
    return jnp.maximum(0.01 * scale, 0.01 * floor), False


def _paths(tree: PyTree) -> list[str]:
    """A text for every number of a pytree."""
    texts = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = jax.tree_util.keystr(path)
        places = np.ndindex(np.shape(leaf))
        texts += [f"{name}[{', '.join(map(str, place))}]" if place else name for place in places]
    return texts
