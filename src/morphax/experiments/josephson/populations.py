"""Which basis states are populated, and what do they tell?"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from morphax._lazy import xr
from morphax.experiments.josephson._mixer import Conditions, WaveformConfig, over_seeds
from morphax.experiments.josephson.paper import DUDAS
from morphax.lab.blocks import Blocks
from morphax.lab.experiment import Claim, Count, Experiment, NonNegative, Positive, Proof, parameter
from morphax.lab.figures import BLUE, GREY, ORANGE, RED, Figures, new_figure
from morphax.lab.progress import Progress, along
from morphax.learning.metrics import accuracy
from morphax.learning.readout import answer, read_task
from morphax.quantum.measurement import PhotonNumbers
from morphax.substrates.base import evolve
from morphax.substrates.josephson import JosephsonMixer
from morphax.tasks.chaos import mackey_glass
from morphax.tasks.waveforms import waveforms
from morphax.units import MHz

SEEN = 16  # levels of each mode that are looked at, of an untruncated mixer
PAPER = 8  # levels of the paper's simulation
MEASURED = 16
WORKING, PRINTED, FORECAST, HALF = SETTINGS = (
    "waveforms, working point",
    "waveforms, as printed",
    "Mackey-Glass, a quarter of the drive",
    "Mackey-Glass, all of the drive",
)
PORTS = ("separate", "joint")
SIGNIFICANT = 1e-3
"""Largest population in the course of a task from which on a state counts as populated."""


def populated_levels(dataset: xr.Dataset, setting: str) -> xr.DataArray:
    """Levels of each mode that are populated."""
    return (dataset.level_population.sel(setting=setting) >= SIGNIFICANT).sum("level")


def lifetimes(mixer: JosephsonMixer) -> float:
    """How many of the longest lifetime of a mode, 1 / kappa, an input lasts."""
    return float(mixer.interval * mixer.damping_rate.min())


def above(setting: str) -> Callable[[xr.Dataset], float]:
    """The largest population of the fuller mode above the seventh level."""
    return lambda d: float(d.above.sel(setting=setting).max("mode"))


def truncated(dataset: xr.Dataset, levels: int) -> float:
    """Mean accuracy of the mixer with so many levels a mode."""
    return float(dataset.accuracy.sel(levels=levels).mean("seed"))


class Populations(Experiment):
    """Secs. IV, V, VI A: levels that the drives populate, what coupling adds, and what readings are independent.

    Peak populations in the course of both tasks, at the working point and as printed, of a mixer without truncation.
    Whether states that nobody measures take part: the same sixteen are measured while Hilbert space is cut off behind
    fewer and fewer levels. How many independent readings they make: singular values of 64 populations, in the course of
    the waveforms, above what noise has. And the classical description: all populations of the density matrix are those
    of two complex amplitudes that a classical computer follows.
    """

    class Config(WaveformConfig):
        seeds: int = parameter(5, "independent repetitions", ge=1, le=1000, extent=True)
        couplings: tuple[NonNegative, ...] = parameter(
            (0.0, 0.25, 0.5, 1.0, 2.0, 4.0), "g / 2 pi", unit="MHz", min_length=2
        )
        truncations: tuple[Count, ...] = parameter((4, 5, 6, 8), "levels per mode, at least 4", min_length=2)
        noises: tuple[Positive, ...] = parameter((1e-2, 1e-4, 1e-6), "on every reading", min_length=1)

        def asked_states(self) -> dict[str, int]:
            return {"the number of measured ones": MEASURED}

    name = "josephson/populations"
    quick = {"seeds": 1, "train_points": 200, "test_points": 200, "truncations": (4, 8), "couplings": (0.0, 2.0)}
    paper = DUDAS
    claims = (
        Claim.at_most(
            "as printed: lifetimes of the longer-lived oscillator that an input lasts",
            1.0,
            lambda d: lifetimes(JosephsonMixer.printed()),
            source="Sec. III: shorter than the lifetime",
            item="lifetime",
            proof=Proof(best=100e-3 * 2 * np.pi * 17, place="100 ns times 2 pi x 17 MHz, as printed"),
        ),
        Claim.reported(
            "working point: lifetimes of the longer-lived oscillator that an input lasts",
            lambda d: lifetimes(JosephsonMixer.two_mode()),
            source="ours: kappa without 2 pi; there memory is enough all the same (josephson/waveforms)",
            item="lifetime",
            paper=1.0,
        ),
        *(
            Claim.within(
                f"working point: levels of a mode that reach a population of 0.001, {words} mode",
                8.0,
                lambda d, place=place: populated_levels(d, WORKING).sortby(populated_levels(d, WORKING))[place],
                source="Secs. I, V: up to 8; ours: the population",
                tolerance=1.0,
                item="64 neurons",
            )
            for words, place in (("fuller", -1), ("emptier", 0))
        ),
        Claim.at_least(
            "working point: basis states that reach a population of 0.001",
            64.0,
            lambda d: d.populated.sel(port="separate", coupling=2.0),
            source="Secs. I, V: up to 64; ours: the population",
            item="64 neurons",
            cause="high levels of both modes are seldom populated together: 8 levels of each are (claims above)",
        ),
        Claim.within(
            "working point: levels of a mode that reach a population of 0.001, fuller mode, against five",
            5.0,
            lambda d: populated_levels(d, WORKING).max("mode"),
            source="Sec. VI A: the first 5; ours: the population",
            tolerance=1.0,
            item="levels",
            cause="the paper counts five levels here, eight in Secs. I and V and 49 = 7^2 states in Sec. IV A; with a "
            "population of 0.05 they are five, with one of 0.001 eight (level_population of this run)",
        ),
        Claim.at_most(
            "working point: population above the seventh level, at most",
            0.01,
            above(WORKING),
            source="Sec. VI A: negligible; ours: the number",
            item="levels",
        ),
        Claim.at_most(
            "as printed: population above the seventh level, at most",
            0.01,
            above(PRINTED),
            source="Sec. VI A: negligible; ours: the number",
            item="levels",
            cause="20e5 sqrt(Hz) drives many times the amplitude that eight levels hold, whatever the factor 2 pi "
            "(docs/josephson.md)",
        ),
        Claim.at_most(
            "as printed: photons at the peak, fuller mode",
            7.0,
            lambda d: d.photons.sel(setting=PRINTED).max("mode"),
            source="Sec. VI A: truncated at 7",
            item="levels",
            cause="20e5 sqrt(Hz) drives many times the amplitude that eight levels hold, whatever the factor 2 pi "
            "(docs/josephson.md)",
        ),
        Claim.at_most(
            "Mackey-Glass, a quarter of the drive: population above the seventh level, at most",
            0.01,
            above(FORECAST),
            source="Sec. VI A; ours: the number",
            item="quarter drive",
        ),
        Claim.at_least(
            "and all of it would not do: population above the seventh level",
            0.01,
            above(HALF),
            source="Sec. VI A: its values are larger",
            item="quarter drive",
            cause="inputs up to 1.3 at the working point's drive stay within eight levels, too (figure)",
        ),
        *(
            Claim.at_least(
                f"basis states that are populated: strongest against weakest coupling, {words}",
                lambda d, port=port: d.populated.sel(port=port).sortby("coupling").isel(coupling=0),
                lambda d, port=port: d.populated.sel(port=port).sortby("coupling").isel(coupling=-1),
                source="Sec. IV B; weakest coupling of this run, same drive",
                tolerance=-1e-9,
                item="populated by coupling",
                cause="coupled modes split by 2 g and leave resonance with the drives: fewer photons enter (next rows)",
            )
            for port, words in zip(PORTS, ("a port for each mode", "joint port"), strict=True)
        ),
        *(
            Claim.reported(
                f"most photons of both modes, strongest coupling over weakest, {words}",
                lambda d, port=port: (
                    d.coupled_photons.sel(port=port).sortby("coupling")[-1]
                    / d.coupled_photons.sel(port=port).sortby("coupling")[0]
                ),
                source="ours",
                item="populated by coupling",
            )
            for port, words in zip(PORTS, ("a port for each mode", "joint port"), strict=True)
        ),
        Claim.reported(
            "joint port: basis states that are populated at 1 MHz",
            lambda d: d.populated.sel(port="joint", coupling=1.0),
            source="ours",
            item="populated by coupling",
        ),
        Claim.at_least(
            "working point: basis states that are populated",
            49.0,
            lambda d: d.populated.sel(port="separate", coupling=2.0),
            source="Sec. IV A: 49; ours: a population of 0.001",
            item="unmeasured states",
            cause="49 takes all pairs of seven levels; of eight levels that each mode reaches, few pairs are reached "
            "together (level_population of this run)",
        ),
        Claim.at_most(
            "states that are not measured take part: accuracy of 16 states, Hilbert space cut off behind them",
            lambda d: truncated(d, 8),
            lambda d: truncated(d, 4),
            source="Sec. IV A; eight levels of this run; by half a per cent",
            tolerance=-0.005,
            item="unmeasured states",
            cause="without the states behind them, the sixteen classify as well",
        ),
        *(
            Claim.reported(
                f"independent readings of 64 populations, noise {noise:g}",
                lambda d, noise=noise: d.independent.sel(noise=noise).mean("seed"),
                source="ours: singular values above those of the noise; the paper's 49 are populated",
                item="unmeasured states",
            )
            for noise in (1e-2, 1e-4, 1e-6)
        ),
        Claim.at_least(
            "populations of the density matrix that two classical amplitudes do not give: largest difference",
            1e-3,
            lambda d: d.classical_difference,
            source="Sec. IV A: an advantage of quantum superposition; ours: the number",
            item="superposition",
            proof=Proof(
                best=0.0,
                place="linear modes stay a product of coherent states (docs/josephson.md, What the linear mixer is)",
            ),
        ),
        Claim.within(
            "10 oscillators of 8 states each: basis states, in billions",
            3.0,
            lambda d: 8.0**10 / 1e9,
            source="Sec. I; ours: the tolerance",
            tolerance=0.5,
            item="ten oscillators",
            proof=Proof(best=8.0**10 / 1e9, place="8^10 = 1.07e9; 9 states each would be 3.5e9"),
        ),
    )

    def run(self, config: Config, *, key: PRNGKeyArray, progress: Progress) -> xr.Dataset:
        peaks = {
            WORKING: _peaks(config.mixer(), _waves(config, key)),
            PRINTED: _peaks(JosephsonMixer.printed(), _waves(config, key)),
            FORECAST: _peaks(config.mixer(drive_amplitude=config.mixer().drive_amplitude / 4), _chaos(config, key)),
            HALF: _peaks(config.mixer(), _chaos(config, key)),
        }
        waves = _waves(config, key)
        first = config.mixer(coupling=min(config.couplings) * MHz, port="joint")
        drive = first.with_peak_photons(waves, peaks[WORKING].photons.max().item()).drive_amplitude
        by_port = {"separate": {}, "joint": {"port": "joint", "drive_amplitude": drive}}
        found = [
            [_populated(config.mixer(coupling=g * MHz, **by_port[port]), waves) for g in config.couplings]
            for port in PORTS
        ]
        populated, photons = np.moveaxis(np.array(found), -1, 0)
        noises = jnp.array(config.noises)
        independent = over_seeds(_independent, key, config.mixer(measured=PAPER**2), noises, config.conditions())
        mixers = {n: config.mixer(levels=n, method="fock", measured=MEASURED) for n in config.truncations}
        accuracies = {n: over_seeds(_accuracy, key, mixer, config.conditions()) for n, mixer in mixers.items()}

        def compute(seeds: range) -> xr.Dataset:
            found = [accuracies[n](seeds) for n in config.truncations]
            return xr.Dataset(
                {
                    "independent": (("seed", "noise"), independent(seeds), {"units": "1"}),
                    "accuracy": (("levels", "seed"), found, {"units": "1", "long_name": "test accuracy"}),
                },
                {"seed": list(seeds), "noise": list(config.noises), "levels": list(config.truncations)},
            )

        dataset = Blocks("seed", config.seeds).carry_out(progress, compute)
        meaning = {"units": "1", "long_name": "basis states that reach a population of 0.001"}
        coordinates = {"port": list(PORTS), "coupling": list(config.couplings)}
        return (
            dataset.merge(along("setting", peaks))
            .assign_coords(coordinates)
            .assign(
                populated=(("port", "coupling"), populated, meaning),
                coupled_photons=(
                    ("port", "coupling"),
                    photons,
                    {"units": "1", "long_name": "most photons of both modes"},
                ),
                classical_difference=((), _classical_difference(config, key), {"units": "1"}),
            )
        )

    def figures(self, dataset: xr.Dataset) -> Figures:
        figure = new_figure(10, 3.4)
        left, middle, right = figure.subplots(1, 3)
        for setting, colour in zip((WORKING, FORECAST, HALF), (BLUE, ORANGE, RED), strict=True):
            part = dataset.level_population.sel(setting=setting).max("mode")
            left.plot(part.level, part, "o-", color=colour, label=setting, markersize=3)
        left.axhline(SIGNIFICANT, color=GREY, linestyle=":")
        left.axvline(PAPER - 0.5, color=GREY, linewidth=0.8)
        left.set(xlabel="level of the fuller mode", ylabel="largest population", yscale="log", ylim=(1e-6, 30))
        left.legend(fontsize="x-small", loc="upper right")
        for port, colour in zip(PORTS, (BLUE, ORANGE), strict=True):
            part = dataset.populated.sel(port=port)
            middle.plot(part.coupling, part, "o-", color=colour, label=f"{port} port{'s' * (port == 'separate')}")
        middle.legend(fontsize="x-small")
        middle.set(xlabel=r"coupling $g / 2\pi$ (MHz)", ylabel="populated basis states")
        mean = dataset.accuracy.mean("seed")
        right.plot(mean.levels, 100 * mean, "o-", color=BLUE)
        right.set(xlabel="levels per mode, 4 of them measured", ylabel="test accuracy (%)")
        return {"populations": figure}


def _waves(config: Populations.Config, key: PRNGKeyArray) -> jax.Array:
    return waveforms(config.train_points, 16, key=key).train_inputs


def _chaos(config: Populations.Config, key: PRNGKeyArray) -> jax.Array:
    return mackey_glass(train_points=config.train_points, test_points=16, key=key).train_inputs


def _photons(mixer: JosephsonMixer, drives: jax.Array) -> np.ndarray:
    """Mean photon numbers of both modes in the course of some drives, untruncated."""
    counting = dataclasses.replace(mixer, measured=PhotonNumbers(), method="coherent")
    return np.asarray(evolve(counting, drives)[0])


def _levels(photons: np.ndarray) -> np.ndarray:
    """Populations of the levels of coherent states, (..., level)."""
    from scipy.stats import poisson

    return poisson.pmf(np.arange(SEEN), photons[..., None])


def _peaks(mixer: JosephsonMixer, drives: jax.Array) -> xr.Dataset:
    """What both modes hold at most in the course of some drives."""
    from scipy.stats import poisson

    photons = _photons(mixer, drives)
    variables = {
        "photons": (("mode",), photons.max(0), {"units": "1", "long_name": "photons at the peak"}),
        "level_population": (("mode", "level"), _levels(photons).max(0), {"units": "1"}),
        "above": (("mode",), poisson.sf(PAPER - 1, photons).max(0), {"units": "1"}),
    }
    return xr.Dataset(variables, {"mode": ["a", "b"], "level": np.arange(SEEN)})


def _populated(mixer: JosephsonMixer, drives: jax.Array) -> tuple[int, float]:
    """Basis states |n_a n_b> that are populated at some time, and the most photons of both modes together."""
    photons = _photons(mixer, drives)
    levels = _levels(photons)
    states = np.einsum("tm,tn->tmn", levels[:, 0], levels[:, 1])
    return int((states.max(0) >= SIGNIFICANT).sum()), float(photons.sum(1).max())


def _independent(mixer: JosephsonMixer, noises: jax.Array, conditions: Conditions, key: PRNGKeyArray) -> jax.Array:
    """For each noise, singular values of all readings, less their means, above what noise alone would have."""
    reading = read_task(mixer, waveforms(conditions.train_points, 16, key=key)).train
    values = jnp.linalg.svd(reading - reading.mean(0), compute_uv=False)
    # The largest singular value of noise: Marchenko and Pastur.
    of_noise = jnp.sqrt(reading.shape[0]) + jnp.sqrt(reading.shape[1])
    return (values > noises[:, None] * of_noise).sum(1)


def _accuracy(mixer: JosephsonMixer, conditions: Conditions, key: PRNGKeyArray) -> jax.Array:
    """Of a test set."""
    task = waveforms(conditions.train_points, conditions.test_points, key=key)
    return accuracy(answer(read_task(mixer, task), task, **conditions.readout)[0], task.test_targets)


def _classical_difference(config: Populations.Config, key: PRNGKeyArray) -> float:
    """Of populations, between a density matrix with twice the levels and two complex amplitudes."""
    drives = _waves(config, key)[:64]
    levels, measured = 2 * PAPER, PAPER**2
    found = [
        evolve(config.mixer(method=method, levels=levels, measured=measured), drives)[0]
        for method in ("fock", "coherent")
    ]
    return float(jnp.abs(found[0] - found[1]).max())
