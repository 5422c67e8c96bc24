"""One mixer read as populations or quadratures, once or several times an interval, with few or many photons."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, PRNGKeyArray

from morphax.learning.ensemble import map_members
from morphax.learning.metrics import accuracy, capacity, mean_log10_error
from morphax.learning.readout import fit_readout
from morphax.quantum.measurement import (
    Amplitudes,
    BasisState,
    DensityMatrix,
    Measurement,
    Populations,
    Quadratures,
    Shots,
    TopLevels,
    reduced,
)
from morphax.substrates.base import Stepper, Substrate, evolve
from morphax.substrates.josephson import JosephsonMixer
from morphax.tasks.base import Task
from morphax.tasks.chaos import mackey_glass
from morphax.tasks.memory import information_processing
from morphax.tasks.waveforms import waveforms

MEASURED = 16
FEW = (4, MEASURED)  # readings that are estimated from shots
INSTANTS = 4  # of an interval
LATEST = (3, 1, 0, 2)
"""Order in which instants are read: the end of the interval, its middle, its quarters."""
SUBSTEPS = 25  # of the equation of many photons, between two instants
LONGEST = (15, 6, 4)
"""Longest delays of the products of degree 1, 2, 3 whose capacity is measured."""
AHEAD = tuple(range(1, 21))
"""Points of the Mackey-Glass series."""
POPULATIONS, SAMPLED, QUADRATURES, PAST = OBSERVABLES = (
    "populations",
    "populations, sampled",
    "quadratures",
    "past inputs",
)


class Seen(Measurement):
    """Exact readings of two modes: populations, means of quadratures, their variances, the highest levels."""

    states: tuple[BasisState, ...] = eqx.field(static=True)
    levels: tuple[int, ...] = eqx.field(static=True)

    def of_amplitudes(
        self, alpha: Amplitudes, *, shots: Shots = None, key: PRNGKeyArray | None = None
    ) -> Float[Array, " neurons"]:
        means = Quadratures().of_amplitudes(alpha)
        parts = Populations(self.states).of_amplitudes(alpha), means, jnp.full_like(means, 0.5)
        return jnp.concatenate([*parts, TopLevels(self.levels).of_amplitudes(alpha)])

    def of_density_matrix(
        self,
        rho: DensityMatrix,
        levels: tuple[int, ...],
        *,
        shots: Shots = None,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, " neurons"]:
        means = Quadratures().of_density_matrix(rho, levels)
        parts = Populations(self.states).of_density_matrix(rho, levels), means, _squares(rho, levels) - means**2
        return jnp.concatenate([*parts, TopLevels(levels).of_density_matrix(rho, levels)])


def _squares(rho: DensityMatrix, levels: tuple[int, ...]) -> Float[Array, " quadratures"]:
    r"""$\langle X^2 \rangle$ of all modes, then $\langle P^2 \rangle$.

    They are $\langle n \rangle + 1/2 + \mathrm{Re} \langle a^2 \rangle$, and with the other sign.
    """
    numbers, pairs = [], []
    for mode, top in enumerate(levels):
        single, n = reduced(rho, levels, mode), jnp.arange(top)
        numbers.append(jnp.diagonal(single).real @ n)
        pairs.append(jnp.diagonal(single, -2).real @ jnp.sqrt(n[1:-1] * n[2:]))
    both, apart = jnp.stack(numbers) + 0.5, jnp.stack(pairs)
    return jnp.concatenate([both + apart, both - apart])


class ManyPhotons(Substrate):
    r"""The mixer with many photons and weak Kerr terms: modes are classical amplitudes.

    $$\dot\alpha_j = -\sum_k A_{jk} \alpha_k - i K_j |\alpha_j|^2 \alpha_j - x \epsilon_j \sqrt{2 \kappa_j}$$

    What counts is $K |\alpha|^2$: with s times the photons and a Kerr term s times as weak amplitudes are $\sqrt s$
    times as large and otherwise the same, while the vacuum's fluctuations stay. The equation is split: the linear part
    is exact, as is the rotation by the Kerr term, half before it and half after (Strang; second order in the step).
    """

    mixer: JosephsonMixer

    def initial_state(self, *, key: PRNGKeyArray | None = None) -> Complex[Array, " modes"]:
        return jnp.zeros(self.mixer.modes, jnp.result_type(self.mixer.damping_rate.dtype, jnp.complex64))

    def step(
        self, state: Complex[Array, " modes"], drive: Float[Array, ""], *, key: PRNGKeyArray | None = None
    ) -> Complex[Array, " modes"]:
        return self.stepper()(state, drive)

    def stepper(self) -> Stepper:
        time = self.mixer.interval / SUBSTEPS
        kerr = jnp.zeros(()) if self.mixer.kerr is None else self.mixer.kerr
        linear = dataclasses.replace(self.mixer, kerr=None, method="coherent", interval=time).stepper()

        def rotated(alpha: Array) -> Array:
            return alpha * jnp.exp(-0.5j * time * kerr * jnp.abs(alpha) ** 2)

        def step(state: Array, drive: Array, *, key: PRNGKeyArray | None = None) -> Array:
            return jax.lax.fori_loop(0, SUBSTEPS, lambda _, alpha: rotated(linear(rotated(alpha), drive)), state)

        return step

    def observe(self, state: Complex[Array, " modes"], *, key: PRNGKeyArray | None = None) -> Float[Array, " neurons"]:
        return self.mixer.measured.of_amplitudes(state)


class Plan(eqx.Module):
    """How every device is tried: tasks, noises (relative), runs at a point, numbers of readings, readout."""

    train_points: int
    test_points: int
    washout: int
    noises: Float[Array, " noises"]
    runs: Float[Array, " runs"]
    sizes: tuple[int, ...]
    readout: dict[str, Any]


class Trial(eqx.Module):
    """What a seed asks: waveforms, polynomials of past inputs, Mackey-Glass, equally long; inputs within [-1, 1]."""

    tasks: tuple[Task, Task, Task]
    inputs: Float[Array, "tasks points"]


def over_members(function: Callable[..., Any], *operands: Any) -> Callable[..., Any]:
    """`over_seeds` for what takes stacks of members, and not keys alone: devices have programs in common."""
    program = eqx.filter_jit(eqx.Partial(function, *operands))
    met = []

    def of(*stacks: Any) -> Any:
        results = map_members(program, *stacks, compiled=bool(met))
        met.append(stacks)
        return results

    return of


def trial(plan: Plan, key: PRNGKeyArray) -> Trial:
    points = {"train_points": plan.train_points, "test_points": plan.test_points}
    first, second, third = jax.random.split(key, 3)
    tasks = (
        waveforms(**points, key=first),
        information_processing(LONGEST, len(LONGEST), **points, washout=plan.washout, key=second),
        mackey_glass(AHEAD, **points, washout=plan.washout, key=third),
    )
    series = [jnp.concatenate([task.train_inputs, task.test_inputs]) for task in tasks]
    return Trial(tasks, jnp.stack([each / jnp.max(jnp.abs(each)) for each in series]))


def seen(
    mixer: JosephsonMixer, many: bool, drive: Float[Array, " three"], asked: Trial
) -> Float[Array, "tasks points instants neurons"]:
    """What a mixer that reads `Seen`, or the same with `many` photons, shows at the instants, in order of `LATEST`.

    `drive` holds what an input is multiplied with, what is added, and how many times as long an interval is.
    """
    part = dataclasses.replace(slowed(mixer, drive[2]), interval=mixer.interval / INSTANTS)
    device = ManyPhotons(part) if many else part
    drives = jnp.repeat(drive[0] * asked.inputs + drive[1], INSTANTS, axis=1)
    readings = jax.lax.map(lambda u: evolve(device, u)[0], drives)
    return readings.reshape(*asked.inputs.shape, INSTANTS, -1)[:, :, LATEST, :]


def judged(
    plan: Plan, asked: Trial, seen: Float[Array, "tasks points instants neurons"], key: PRNGKeyArray
) -> dict[str, Array]:
    """Scores of a seed: (observable, noise, readings), and those of shots: (observable, runs, FEW).

    Past inputs are the last observable; they have no shots.
    """
    noise_key, shot_key = jax.random.split(key)
    exact = _readings(seen, asked.inputs)
    spread = jnp.sqrt(jnp.mean(jnp.var(exact, axis=2), axis=2))[:, :, None, None]
    # The same for all readings, with noise and from runs: every one is judged by itself.
    errors = jax.random.normal(noise_key, exact.shape[1:], exact.dtype)
    noisy = exact + plan.noises[:, None, None, None, None] * spread * errors
    drawn = jax.lax.map(lambda runs: _drawn(seen, runs, errors, shot_key), plan.runs)
    return _all_scores(noisy, drawn, asked.tasks, plan) | {"top_level": jnp.max(seen[..., -2:])}


def _all_scores(
    noisy: Float[Array, "noises observables tasks points readings"],
    drawn: Float[Array, "runs few counted tasks points readings"],
    tasks: tuple[Task, Task, Task],
    plan: Plan,
) -> dict[str, Array]:
    """Scores of noisy readings for every size of the plan, and of those drawn from runs.

    In one loop: a program with a fit of its own for every size takes half a minute to compile.
    """
    together = jnp.concatenate([each.reshape(-1, *each.shape[-3:]) for each in (noisy, drawn)])
    levels, sizes = int(np.prod(noisy.shape[:2])), plan.sizes
    of_noise, of_runs = np.repeat(np.arange(levels), len(sizes)), np.arange(levels, len(together))
    few = np.broadcast_to(np.array(FEW)[:, None], drawn.shape[:3]).ravel()
    places, wide = jnp.array([*of_noise, *of_runs]), jnp.array([*np.tile(sizes, levels), *few])
    scores = jax.lax.map(lambda case: _scores(together[case[0]], case[1], tasks, plan.readout), (places, wide))
    found = {}
    for name, score in scores.items():
        found[name] = jnp.moveaxis(score[: len(of_noise)].reshape(*noisy.shape[:2], len(sizes)), 0, 1)
        found[f"{name}_of_shots"] = score[len(of_noise) :].reshape(drawn.shape[:3]).transpose(2, 0, 1)
    return found


def _readings(
    seen: Float[Array, "tasks points instants neurons"], inputs: Float[Array, "tasks points"]
) -> Float[Array, "observables tasks points readings"]:
    """Sixteen readings of each kind, in order of `OBSERVABLES`: instant by instant, and of inputs by age."""
    populations, means = seen[..., :MEASURED], seen[..., MEASURED : MEASURED + 4]
    shape = (*inputs.shape, MEASURED)
    padded = jnp.pad(inputs, ((0, 0), (MEASURED - 1, 0)))
    ago = jnp.arange(inputs.shape[1])[:, None] + MEASURED - 1 - jnp.arange(MEASURED)
    sampled = populations[..., :4].reshape(shape)
    return jnp.stack([populations[:, :, 0], sampled, means.reshape(shape), padded[:, ago]])


def _drawn(
    seen: Float[Array, "tasks points instants neurons"],
    runs: Array,
    errors: Float[Array, "tasks points readings"],
    key: PRNGKeyArray,
) -> Float[Array, "few counted tasks points readings"]:
    """Means over runs of one detection each, which the detector's settings - instants, X or P - share equally.

    Of the first four readings and of all sixteen. Counts are multinomial; the error of quadratures has the variance of
    the state, and is Gaussian for so many runs.
    """
    populations, means, variances = jnp.split(seen[..., : MEASURED + 8], (MEASURED, MEASURED + 4), axis=-1)
    # The end with all runs, and every instant with its part; one call, for it takes seconds to compile.
    settings = jnp.concatenate([populations[:, :, :1], populations], axis=2)
    counts = _counted(settings, jnp.floor(runs / jnp.array([1, *[INSTANTS] * INSTANTS])), key)
    end, sampled = counts[:, :, 0], counts[:, :, 1:, :4].reshape(*seen.shape[:2], MEASURED)
    apart = jnp.sqrt(variances) * errors.reshape(means.shape)
    quadratures = [means + apart * jnp.sqrt(2 * instants / runs) for instants in (1, INSTANTS)]
    few, all_of_them = (each.reshape(*seen.shape[:2], MEASURED) for each in quadratures)
    return jnp.stack([jnp.stack([end, end, few]), jnp.stack([end, sampled, all_of_them])])


def _counted(populations: Float[Array, "... states"], runs: Array, key: PRNGKeyArray) -> Float[Array, "... states"]:
    """Relative frequencies; what is missing to 1 is any other state."""
    known = jnp.clip(populations, 0, 1)
    other = jnp.maximum(1 - known.sum(-1, keepdims=True), 0)
    counts = jax.random.multinomial(key, runs, jnp.concatenate([known, other], axis=-1))
    return counts[..., :-1] / runs[:, None]


def _scores(
    readings: Float[Array, "tasks points readings"],
    size: Array,
    tasks: tuple[Task, Task, Task],
    readout: dict[str, Any],
) -> dict[str, Float[Array, ""]]:
    """What the first so many readings are good for; the others are 0, which no fit uses."""
    known = jnp.where(jnp.arange(MEASURED) < size, readings, 0)

    def answers(read: Array, task: Task) -> Array:
        split = len(task.train_inputs)
        fitted = fit_readout(read[task.washout : split], task.train_targets[task.washout :], **readout)
        return fitted(read[split:])

    waves, memory, chaos = (answers(read, task) for read, task in zip(known, tasks, strict=True))
    capacities = capacity(memory, tasks[1].test_targets)
    return {
        "accuracy": accuracy(waves, tasks[0].test_targets),
        "linear_memory": capacities[: LONGEST[0] + 1].sum(),
        "capacity": capacities.sum(),
        "digits": -mean_log10_error(chaos, tasks[2].test_targets),
    }


def slowed(mixer: JosephsonMixer, factor: Array) -> JosephsonMixer:
    """All rates times a factor: what the mixer does when inputs are held that many times as long."""
    rates = mixer.coupling, mixer.damping_rate, mixer.kerr
    changed = *(None if rate is None else factor * rate for rate in rates), jnp.sqrt(factor) * mixer.drive_amplitude
    return eqx.tree_at(
        lambda m: (m.coupling, m.damping_rate, m.kerr, m.drive_amplitude), mixer, changed, is_leaf=lambda x: x is None
    )
