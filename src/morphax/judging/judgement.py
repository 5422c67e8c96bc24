"""A device judged: what it remembers, computes and withstands, and a verdict in sentences."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from morphax._checks import check_range
from morphax._lazy import xr
from morphax.judging.capacities import information_processing_capacity
from morphax.judging.dynamics import forgetting_time, lyapunov_exponents, size_of
from morphax.judging.findings import findings
from morphax.judging.ranks import NOISES, consistency, effective_dimension, separation_ranks
from morphax.judging.readings import Readings, WithNoise
from morphax.judging.recording import Recording, record
from morphax.judging.stimulus import stimulus
from morphax.substrates.base import Substrate

EXPONENTS = 1000
"""Inputs over which exponents are averaged."""
AT_ONCE = 0.05
"""Inputs; what forgets as fast has no state."""
SURPRISE = 3.0
"""Standard errors by which capacities must be above what can be to be a finding."""


def judge(
    device: Substrate | Recording,
    *,
    points: int = 20_000,
    kind: str = "uniform",
    low: float = -1.0,
    high: float = 1.0,
    washout: int = 200,
    max_degree: int = 8,
    max_delay: int = 50,
    max_products: int = 5000,
    noises: Sequence[float] = NOISES,
    key: PRNGKeyArray,
) -> xr.Dataset:
    """What a device can compute: capacities, independent readings, memory, and what of it noise leaves.

    A substrate is driven with a `stimulus`, twice, from two initial states and with noise of its own; a recording is
    taken as it is.

    **Arguments:**

    - `device`: a substrate that takes one number an input, or a recording.
    - `points`, `kind`, `low`, `high`: the drive of a substrate.
    - `washout`, `max_degree`, `max_delay`, `max_products`: as in `information_processing_capacity`.
    - `noises`: further noise on every reading, in units of that reading's deviation, with which all is judged again;
      they rise from 0.

    **Returns:** a dataset with an axis `noise`: everything of `information_processing_capacity`, and
    `effective_dimension`; without it `consistency` of each reading and `consistent_dimension`, where there are repeats,
    and, of a simulated substrate, `kernel_rank`, `generalisation_rank`, `lyapunov` and `forgetting_time`; how many
    `readings` there are, and `findings`, one a line. `verdict` tells it in sentences.

    **Raises:** `ValueError`, with what was found, for a recording that cannot be judged.

        >>> import jax
        >>> from morphax import JosephsonMixer
        >>> from morphax.judging import judge
        >>> mixer = JosephsonMixer.two_mode(measured=9)
        >>> found = judge(mixer, points=2000, max_products=500, key=jax.random.key(0))
        >>> int(found["rank"][0])
        9
    """
    check_range("noises", noises, low=0.0)
    if not len(noises) or noises[0] != 0 or np.any(np.diff(noises) <= 0):
        raise ValueError(f"noises is {tuple(noises)}; they must rise from 0")
    drive_key, record_key, noise_key, rank_key = jax.random.split(key, 4)
    if isinstance(device, Recording):
        recording = device
    else:
        drives = stimulus(points, kind, low=low, high=high, key=drive_key)
        recording = record(device, drives, repeats=2, key=record_key)
    found = findings(recording, washout)
    errors = [finding.text for finding in found if finding.severity == "error"]
    if errors:
        raise ValueError("; ".join(errors))
    readings = Readings.of(recording.responses, min(washout, len(recording) // 4))
    deviations = np.zeros(len(recording.reading_names))
    deviations[readings.kept] = readings.deviation
    seeds = jax.random.randint(noise_key, (len(noises),), 0, np.iinfo(np.int32).max).tolist()
    noisy = [
        WithNoise(recording.responses, noise * deviations, seed) if noise else recording.responses
        for noise, seed in zip(noises, seeds, strict=True)
    ]
    dataset = information_processing_capacity(
        recording.inputs,
        noisy,
        washout=washout,
        max_degree=max_degree,
        max_delay=max_delay,
        max_products=max_products,
    ).rename(device="noise")
    unit = {"units": "1"}
    dimensions = effective_dimension(recording.responses, noises, repeats=recording.repeats, washout=washout)
    dataset = dataset.assign_coords(noise=("noise", list(noises), unit | {"long_name": "noise on every reading"}))
    dataset = dataset.assign(
        effective_dimension=("noise", dimensions, unit | {"long_name": "effective dimension"}),
    )
    if recording.repeats:
        again = consistency([recording.responses, *recording.repeats], washout=washout)
        dataset = dataset.assign(consistency=again.consistency, consistent_dimension=again.dimension)
    if isinstance(device, Substrate) and device.differentiable:
        dataset = dataset.assign(_of_substrate(device, recording.inputs, low, high, washout, rank_key))
    texts = [f"{finding.severity}: {finding.text}" for finding in found] + _surprises(dataset, washout)
    name = "recording" if isinstance(device, Recording) else type(device).__name__
    said = {"readings": ((), len(recording.reading_names), unit), "findings": ((), "\n".join(texts))}
    return dataset.assign(said).assign_attrs(device=name)


def verdict(dataset: xr.Dataset, noise: float = 1e-2) -> list[str]:
    """What `judge` found, in sentences: warnings first, and last what was done to a recording.

    **Arguments:** `noise`: at which the device is imagined in use, one of those that were judged.
    """
    clean = dataset.isel(noise=0)
    used = dataset.sel(noise=noise, method="nearest")
    said = [f"{text[0].upper()}{text[1:]}." for text in str(dataset.findings.values).split("\n") if text]
    lines = [text for text in said if text.startswith("Warning: ")]
    readings = int(dataset.readings)
    total, memory = float(clean.total), float(clean.linear_memory)
    error = float(clean.total_error)
    shares = np.clip(clean.by_degree.values / max(total, 1e-12), 0.0, 1.0)
    linear = (
        "mostly linearly" if shares[0] > 0.6 else "mostly nonlinearly" if shares[0] < 0.3 else "both linearly and not"
    )
    lines.append(
        f"Holds {with_error(total, error)} functions of past inputs in its {readings} readings, "
        f"{linear} ({', '.join(f'{100 * share:.0f} % of degree {degree}' for degree, share in _largest(shares))})."
    )
    forgets = float(dataset.get("forgetting_time", np.inf))
    slowly = f"by a factor e in {forgets:.1f} inputs" if forgets > AT_ONCE else "at once"
    settles = f"; where it started is forgotten {slowly}" if np.isfinite(forgets) else ""
    memory_error = float(clean.linear_memory_error)
    again = float(dataset.get("consistent_dimension", np.nan))
    counted = "" if np.isfinite(again) else " (its own noise not taken off: repeats would tell it)"
    lines.append(f"Remembers {with_error(max(memory, 0.0), memory_error)} inputs{settles}.")
    lines.append(
        f"At {100 * float(used.noise):g} % noise on every reading {float(used.effective_dimension):.1f} of its "
        f"{readings} readings are independent{counted}, and {float(used.total):.1f} functions are left."
    )
    if (rest := float(clean["rank"]) - total) > max(0.1 * float(clean["rank"]), 3 * error):
        lines.append(
            f"Of {int(clean['rank'])} independent readings {rest:.1f} hold something else: products that were not "
            "tried (max_products, max_degree, max_delay), noise, or what is no function of the input."
        )
    if np.isfinite(again):
        lines.append(
            f"Applied again, the same input gives {again:.1f} of {int(clean['rank'])} independent readings again."
        )
    return [*lines, *(text for text in said if text.startswith("Note: "))]


def with_error(value: float, error: float) -> str:
    """ "9.3 ± 0.2", or with the first digit of a smaller error, "9.31 ± 0.02"."""
    digits = int(np.clip(np.ceil(-np.log10(error)), 1, 4)) if 0 < error < np.inf else 1
    return f"{value:.{digits}f} ± {error:.{digits}f}"


def _largest(shares: np.ndarray) -> list[tuple[int, float]]:
    """Degrees with the largest shares, at most three of them."""
    order = np.argsort(-shares)[:3]
    return [(int(place) + 1, float(shares[place])) for place in order if shares[place] > 0.02]


def _of_substrate(
    substrate: Substrate, inputs: np.ndarray, low: float, high: float, washout: int, key: PRNGKeyArray
) -> dict[str, tuple]:
    """What only a simulation tells."""
    ranks = separation_ranks(substrate, low=low, high=high, key=key)
    unit = {"units": "1"}
    found: dict[str, tuple] = {f"{name}_rank": ((), rank, unit) for name, rank in ranks.items()}
    if substrate.exact_derivatives and size_of(substrate.initial_state(key=key)):
        drives = jnp.asarray(inputs[0 : washout + EXPONENTS][:, 0])
        exponents = lyapunov_exponents(substrate, drives, 1, washout=washout, key=key)
        found["lyapunov"] = (
            (),
            float(exponents[0]),
            {"units": "1 / input", "long_name": "largest exponent", "may_be_missing": 1},
        )
        found["forgetting_time"] = ((), forgetting_time(exponents), {"units": "inputs", "may_be_missing": 1})
    return found


def _surprises(dataset: xr.Dataset, washout: int) -> list[str]:
    """What cannot be if all that was assumed holds."""
    clean, texts = dataset.isel(noise=0), []
    excess = float(clean.total - clean["rank"])
    if excess > SURPRISE * float(clean.total_error) and excess > 0.02 * float(clean["rank"]):
        texts.append(
            f"warning: capacities add up to {float(clean.total):.1f}, more than {int(clean['rank'])} readings hold: "
            "the input is not independent in time, or the readings are not stationary"
        )
    forgets = float(dataset.get("forgetting_time", 0.0))
    if np.isinf(forgets):
        texts.append(
            "warning: the device never forgets where it started (its largest conditional exponent is not negative): "
            "what it answers is no function of its input alone"
        )
    elif 10 * forgets > washout:
        texts.append(
            f"warning: the device forgets where it started by a factor e in {forgets:.3g} inputs; a washout of "
            f"{washout} is too short, {10 * forgets:.0f} would do"
        )
    last = clean.memory.values[-3:]
    if last.sum() > 0.05:
        texts.append("warning: memory goes on beyond the longest delay that was tried; raise max_delay")
    return texts
