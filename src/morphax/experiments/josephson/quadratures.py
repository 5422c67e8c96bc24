"""Do basis states hold more than field quadratures?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray
from pydantic import Field

from morphax._lazy import xr
from morphax.experiments.josephson._mixer import WaveformConfig
from morphax.experiments.josephson._quadratures import (
    FEW,
    INSTANTS,
    LONGEST,
    MEASURED,
    OBSERVABLES,
    PAST,
    POPULATIONS,
    QUADRATURES,
    SAMPLED,
    Plan,
    Seen,
    judged,
    over_members,
    seen,
    trial,
)
from morphax.experiments.josephson.paper import DUDAS
from morphax.lab.blocks import Blocks
from morphax.lab.experiment import BEYOND, Claim, Experiment, NonNegative, Positive, parameter
from morphax.lab.figures import BLUE, GREEN, GREY, ORANGE, RED, Figures, new_figure
from morphax.lab.progress import Progress, along
from morphax.learning.ensemble import member_keys
from morphax.quantum.measurement import basis_states
from morphax.units import us

NOISE, SHOTS = 1e-3, 1e6
LINEAR, STRONG, MANY = "no Kerr", "K = 1 kappa", "K = 1 kappa, many photons"
DRIVES = {"as printed": (1.0, 0.0, 1.0), "offset": (0.5, 0.5, 1.0), "offset, slow": (0.5, 0.5, 4.0)}
"""What drives is the first number times an input, plus the second; intervals are the third times as long."""
FAST, SLOW = ("as printed", "offset"), ("offset, slow",)
SCORES = {
    "accuracy": "accuracy on sine and square",
    "linear_memory": "linear memory capacity",
    "capacity": "capacity of degrees 1 to 3",
    "digits": "Mackey-Glass, mean -log10 |error|",
}


def best(
    dataset: xr.Dataset,
    score: str,
    observable: str,
    devices: Sequence[str],
    readings: int = MEASURED,
    drives: Sequence[str] = FAST,
    noise: float = NOISE,
    shots: float | None = None,
) -> float:
    """Mean score over seeds, of the device and with the drive that suit an observable best."""
    if shots is None:
        part = dataset[score].sel(readings=readings, noise=noise)
    else:
        part = dataset[f"{score}_of_shots"].sel(counted=readings, shots=shots)
    return float(part.sel(observable=observable, device=list(devices), drive=list(drives)).mean("seed").max())


def with_kerr(dataset: xr.Dataset) -> list[str]:
    return [str(device) for device in dataset.device.values if device != LINEAR]


def fewest(dataset: xr.Dataset, observable: str, devices: Sequence[str], noise: float, enough: float = 0.99) -> float:
    """Fewest readings with this mean accuracy; one more than the most that were tried where none has it."""
    tried = [int(n) for n in dataset.readings.values]
    good = (n for n in tried if best(dataset, "accuracy", observable, devices, n, noise=noise) >= enough)
    return float(min(good, default=max(tried) + 1))


KERR_PAIR = "both with K = kappa"
PAIRS: dict[str, Callable[[xr.Dataset], tuple[Sequence[str], Sequence[str]]]] = {
    "both without Kerr": lambda _: ((LINEAR,), (LINEAR,)),
    KERR_PAIR: lambda _: ((STRONG,), (STRONG,)),
    "populations without, quadratures with Kerr": lambda d: ((LINEAR,), with_kerr(d)),
}
"""Devices whose populations, and those whose quadratures, are compared: of several the best."""


CAUSE = (
    "at one instant all populations of linear modes are functions of two photon numbers; four of them at four instants "
    "remember more than sixteen at one (claims on sampling)"
)
KERR_CAUSES = {
    ("linear_memory", 4): "four readings hold 3.8 functions of past inputs either way; populations are even in the "
    "drive, and more of theirs are products (capacity of degrees 1 to 3, same run)",
    ("linear_memory", MEASURED): "sixteen populations of one instant remember 1.9, at the four instants of the "
    "quadratures 3.3 (same run)",
    ("capacity", MEASURED): "sixteen populations of one instant hold 7 functions of past inputs at most, at the four "
    "instants of the quadratures 11.5 (same run)",
    (
        "digits",
        MEASURED,
    ): "sixteen populations of one instant: at the four instants of the quadratures they have 1.50 to "
    "1.53, and sixteen past inputs by themselves 1.52 (same run)",
}


def compared(score: str, readings: int = MEASURED, shots: float | None = None) -> tuple[Claim, ...]:
    """Populations against quadratures."""
    equal = f"noise {NOISE:g}" if shots is None else f"{shots:.0e} runs"
    return tuple(
        Claim.at_least(
            f"{SCORES[score]}, {readings} readings, {equal}: populations against quadratures, {pair}",
            lambda d, of=of: best(d, score, QUADRATURES, of(d)[1], readings, shots=shots),
            lambda d, of=of: best(d, score, POPULATIONS, of(d)[0], readings, shots=shots),
            source="Sec. V; ours: quadratures of this run" if shots is None else "ours: quadratures of this run",
            # More memory is claimed; tasks must be solved no worse.
            tolerance=-1e-9 if score in ("linear_memory", "capacity") else 0.0,
            item="quadratures" if shots is None else BEYOND,
            cause=CAUSE if score == "linear_memory" and pair != KERR_PAIR else KERR_CAUSES.get((score, readings), ""),
        )
        for pair, of in PAIRS.items()
    )


class Quadratures(Experiment):
    r"""Sec. V: basis states as neurons against the two field quadratures of each mode, at equal numbers of readings.

    One mixer is read as populations of basis states at the end of each interval, or as means of
    $X = (a + a^\dagger)/\sqrt 2$ and $P$ of both modes (vacuum variance 1/2): four at its end, sixteen at four
    instants of it; and, as a control, as four populations at these four instants. That without Kerr terms, with them,
    and in the limit of many photons in which others used quadratures: there modes are classical amplitudes, and have no
    populations of single photons. Noise is equal relative to what readings vary by. In equal numbers of runs a
    detection ends a run, of the photons in both modes or of one quadrature of each: sixteen quadratures share runs
    among eight settings.

    Populations are even in the drive and quadratures odd, whatever the Kerr terms: each is tried with the inputs as
    printed and with an offset, (1 + x)/2, and takes what suits it. Four samples in an interval are four times as fast
    as one; in a slow drive inputs are held four times as long, so that samples are as far apart.
    """

    class Config(WaveformConfig):
        seeds: int = parameter(5, "independent repetitions", ge=1, le=1000, extent=True)
        damping_rate: tuple[NonNegative, ...] = parameter(
            (17.0, 21.0), "dissipation of each of two modes", unit="rad/us", min_length=2, max_length=2
        )
        kerrs: tuple[Positive, ...] = parameter((0.3, 1.0), "Kerr terms, in damping rates", min_length=1)
        noises: tuple[NonNegative, ...] = parameter(
            (0.0, 1e-3, 1e-2), "noise on readings, in root mean squares of what these vary by", min_length=1
        )
        numbers: tuple[Annotated[int, Field(ge=100, le=10**12)], ...] = parameter(
            (1000, 10_000, 100_000, 1_000_000, 10_000_000), "runs for all readings at a point", min_length=1
        )
        sizes: tuple[Annotated[int, Field(ge=1, le=MEASURED)], ...] = parameter(
            (1, 2, 3, 4, 5, 6, 8, 9, 10, 12, 14, 16), "numbers of readings", min_length=1
        )
        bias: bool = parameter(True, "whether the readout learns a constant")
        washout: int = parameter(40, "training points of the memory tasks that enter no fit", ge=LONGEST[0])

        def asked_states(self) -> dict[str, int]:
            return {"the number of measured ones": MEASURED}

        def columns(self) -> int:
            return 3 * INSTANTS * (MEASURED + 10) + 200

    name = "josephson/quadratures"
    quick = {
        "seeds": 1,
        "train_points": 160,
        "test_points": 160,
        "levels": 6,
        "kerrs": (1.0,),
        "noises": (0.0, NOISE),
        "numbers": (10_000, 1_000_000),
        "sizes": (2, 4, 9, 16),
    }
    paper = DUDAS
    claims = (
        *compared("linear_memory"),
        *compared("linear_memory", 4),
        *compared("capacity"),
        *compared("accuracy"),
        *compared("digits"),
        Claim.at_least(
            "no need for sampling: linear memory, 16 readings: populations against quadratures with Kerr whose samples "
            "are as far apart",
            lambda d: best(d, "linear_memory", QUADRATURES, with_kerr(d), drives=SLOW),
            lambda d: best(d, "linear_memory", POPULATIONS, (LINEAR,)),
            source=f"Sec. V; ours: slow quadratures of this run, noise {NOISE:g}",
            tolerance=-1e-9,
            item="quadratures",
            cause=CAUSE,
        ),
        *(
            Claim.at_least(
                f"no need for sampling: {SCORES[score]}, no Kerr: 16 populations against 4 populations at 4 instants",
                lambda d, score=score: best(d, score, SAMPLED, (LINEAR,)),
                lambda d, score=score: best(d, score, POPULATIONS, (LINEAR,)),
                source=f"Sec. V; ours: samples of this run, noise {NOISE:g}",
                item="quadratures",
                cause=cause,
            )
            for score, cause in (
                ("linear_memory", CAUSE),
                ("accuracy", "four wrong answers of 5,000 (same run)"),
            )
        ),
        *(
            Claim.at_most(
                f"readings for 99 %, noise {noise:g}: populations without against quadratures with Kerr",
                lambda d, noise=noise: fewest(d, QUADRATURES, with_kerr(d), noise),
                lambda d, noise=noise: fewest(d, POPULATIONS, (LINEAR,), noise),
                source="Sec. V: fewer measurements; quadratures of this run",
                tolerance=-1.0,
                item="quadratures",
            )
            for noise in (0.0, NOISE)
        ),
        *compared("accuracy", shots=SHOTS),
        *compared("linear_memory", shots=SHOTS),
        Claim.at_most(
            "linear modes, 4 quadratures classify no better than past inputs do without a reservoir",
            lambda d: best(d, "accuracy", PAST, (LINEAR,), noise=0.0),
            lambda d: best(d, "accuracy", QUADRATURES, (LINEAR,), 4, noise=0.0),
            source="ours: coherent states, linear in the drive",
            tolerance=0.02,
            item=BEYOND,
        ),
        Claim.at_most(
            "linear modes, 16 quadratures: capacity beyond linear memory",
            0.1,
            lambda d: best(d, "capacity", QUADRATURES, (LINEAR,)) - best(d, "linear_memory", QUADRATURES, (LINEAR,)),
            source="ours: none but chance",
            item=BEYOND,
        ),
        *(
            Claim.within(
                f"linear modes, {readings} quadratures: linear memory",
                memory,
                lambda d, n=readings: best(d, "linear_memory", QUADRATURES, (LINEAR,), n, noise=0.0),
                source=f"ours: {why}",
                tolerance=0.1,
                item=BEYOND,
            )
            for readings, memory, why in (
                (4, 2.0, "a real drive leaves two conjugate exponents for past inputs"),
                (MEASURED, 3.0, "these two, and the latest input by itself"),
            )
        ),
        Claim.at_most(
            "linear memory of populations with the drive as printed, any Kerr term",
            0.1,
            lambda d: best(d, "linear_memory", POPULATIONS, [LINEAR, *with_kerr(d)], drives=FAST[:1]),
            source="ours: they are even in the drive",
            item=BEYOND,
        ),
        Claim.at_most(
            "population of the highest level where there is a Kerr term, at most",
            0.01,
            lambda d: d.top_level.sel(device=[each for each in with_kerr(d) if each != MANY]).max(),
            source="ours: what a truncation may cut off",
            item=BEYOND,
        ),
    )

    def run(self, config: Config, *, key: PRNGKeyArray, progress: Progress) -> xr.Dataset:
        readout, levels = config.readout, (config.levels,) * 2
        points = config.train_points, config.test_points, config.washout
        plan = Plan(*points, jnp.array(config.noises), jnp.array(config.numbers, float), config.sizes, readout)
        steps = over_members(trial, plan), over_members(judged, plan)
        kerrs = {LINEAR: (0.0, False)} | {f"K = {kerr:g} kappa": (kerr, False) for kerr in config.kerrs}
        work = {}
        for device, (kerr, many) in (kerrs | {MANY: (1.0, True)}).items():
            rates = kerr * jnp.array(config.damping_rate) / us if kerr else None
            mixer = config.mixer(measured=Seen(basis_states(levels, MEASURED), levels), shots=None, kerr=rates)
            drives = [over_members(seen, mixer, many, jnp.array(drive)) for drive in DRIVES.values()]
            work[device] = partial(self._device, config, key, steps, drives, many)
        blocks = Blocks("seed", config.seeds)
        parts = blocks.join(progress.pieces(blocks.split(work)))
        return along("device", {device: parts[device] for device in work}, {"long_name": "Kerr term"})

    def _device(
        self, config: Config, key: PRNGKeyArray, steps: Sequence[Callable], drives: Any, many: bool, seeds: range
    ) -> xr.Dataset:
        """Scores of some seeds with all drives; NaN for the populations of a device of many photons, and its shots."""
        ask, judge = steps
        task_keys, keys = member_keys(key, seeds), member_keys(jax.random.fold_in(key, 1), seeds)
        asked = ask(task_keys)
        scores = [judge(asked, drive(asked), keys) for drive in drives]
        found = {name: np.stack([np.asarray(each[name]) for each in scores]) for name in scores[0]}
        about = {"units": "1", "long_name": "largest population of the highest level"}
        variables: dict[str, Any] = {"top_level": (("drive", "seed"), found.pop("top_level"), about)}
        for name, score in found.items():
            shots = name.endswith("_of_shots")
            values = np.full((*score.shape[:2], len(OBSERVABLES), *score.shape[3:]), np.nan)
            values[:, :, : score.shape[2]] = score
            if many:
                values[:, :, [OBSERVABLES.index(each) for each in OBSERVABLES if shots or each != QUADRATURES]] = np.nan
            about = {"units": "1", "long_name": SCORES[name.removesuffix("_of_shots")], "may_be_missing": 1}
            dims = ("drive", "seed", "observable", *(("shots", "counted") if shots else ("noise", "readings")))
            variables[name] = (dims, values, about)
        coordinates = {"drive": list(DRIVES), "seed": list(seeds), "observable": list(OBSERVABLES)}
        coordinates |= {"noise": list(config.noises), "readings": list(config.sizes)}
        return xr.Dataset(variables, coordinates | {"shots": list(config.numbers), "counted": list(FEW)})

    def figures(self, dataset: xr.Dataset) -> Figures:
        figure = new_figure(11, 7)
        axes = figure.subplots(2, 3)
        rows = [
            (POPULATIONS, LINEAR, "o-", BLUE),
            (POPULATIONS, STRONG, "o--", BLUE),
            (SAMPLED, LINEAR, "^-", GREEN),
            (QUADRATURES, LINEAR, "s-", GREY),
            (QUADRATURES, STRONG, "s--", ORANGE),
            (QUADRATURES, MANY, "s-", RED),
        ]
        noise = NOISE if NOISE in dataset.noise.values else float(dataset.noise[-1])
        panels = [(score, "readings") for score in SCORES] + [("accuracy", "shots"), ("linear_memory", "shots")]
        for axis, letter, (score, against) in zip(axes.flat, "abcdef", panels, strict=True):
            counted = against == "shots"
            shown = dataset[f"{score}_of_shots"].sel(counted=MEASURED) if counted else dataset[score].sel(noise=noise)
            for observable, device, style, colour in rows:
                part = shown.sel(observable=observable, device=device, drive=list(FAST)).mean("seed").max("drive")
                label = f"{observable}; " + device.replace("1 kappa", r"$\kappa$")
                if bool(part.notnull().any()):
                    axis.plot(part[against], part, style, color=colour, markersize=4, label=label)
            if counted:
                axis.set(xscale="log", xlabel="runs at a point", title=f"({letter}) {MEASURED} readings")
            else:
                axis.set(xlabel="readings", xticks=(1, *range(4, MEASURED + 1, 4)), title=f"({letter}) noise {noise:g}")
            axis.set_ylabel(SCORES[score])
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize="small")
        return {"quadratures": figure}
