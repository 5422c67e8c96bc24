"""Fig. 5: how far into the future of a chaotic series?"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray
from pydantic import model_validator

from morphax._lazy import xr
from morphax.experiments.josephson._curves import (
    NO_FASTER,
    PHASE,
    PORTS,
    TRENDS,
    all_curves,
    all_seeds,
    at_slopes,
    base,
    explained,
    far,
    faster,
    frequencies,
    logarithmic,
    of_best_constant,
    saturation,
    trend,
)
from morphax.experiments.josephson._mixer import MixerConfig, check_washout, lagged, over_seeds, surely
from morphax.experiments.josephson.paper import DUDAS
from morphax.lab.blocks import Blocks
from morphax.lab.experiment import Claim, Experiment, NonNegative, Positive, parameter
from morphax.lab.figures import BLUE, GREY, RED, Figures, new_figure
from morphax.lab.progress import Progress
from morphax.learning.ensemble import member_keys
from morphax.learning.readout import answer, read_task
from morphax.substrates.josephson import JosephsonMixer
from morphax.tasks.base import Task
from morphax.tasks.chaos import mackey_glass
from morphax.units import MHz

STEP = 0.1  # of the integrator, in `mackey_glass`
SHOWN = 20  # delay of Fig. 5a
LAGS = 16  # inputs of the linear readout without a reservoir: as many as states are measured


class MackeyGlass(Experiment):
    """Fig. 5: error of predicting the Mackey-Glass series against the delay, for several dissipations and couplings.

    Every trend of the paper is a claim under stated conditions: port, and noise on the readings. Drives are scaled to
    the same peak photon number everywhere, so that what changes is memory and mixing, not population.
    """

    class Config(MixerConfig):
        bias: bool = parameter(True, "whether the readout learns a constant")
        seeds: int = parameter(10, "independent repetitions; the trends need their spread", ge=2, le=1000)
        largest_delay: int = parameter(100, "predicted are 1, 2, ... this many points ahead", ge=2)
        dissipations: tuple[Positive, ...] = parameter(
            (1.0, 2.0, math.pi, 2 * math.pi, 4 * math.pi), "factors on damping_rate (2 pi: as printed)", min_length=2
        )
        couplings: tuple[NonNegative, ...] = parameter((0.25, 0.5, 1.0, 2.0, 4.0), "g / 2 pi", unit="MHz", min_length=2)
        noises: tuple[NonNegative, ...] = parameter(
            (0.0, 1e-6), "noise on every reading (replaces noise)", min_length=1
        )
        peak_photons: float = parameter(2.0, "peak photon number of the fuller mode", gt=0)
        measured: int = parameter(16, "measured states", ge=1)
        sample_interval: float = parameter(1.0, "time of the series between two points", ge=0.1, le=1000)
        washout: int = parameter(100, "training points that enter no fit", ge=0)

        @model_validator(mode="after")
        def _whole_steps(self) -> Self:
            check_washout(self)
            steps = self.sample_interval / STEP
            if abs(steps - round(steps)) > 1e-6 * steps:
                raise ValueError(f"sample_interval is {self.sample_interval:g}; it must be a multiple of {STEP:g}")
            return self

        def columns(self) -> int:
            # All noises at once, each with answers to all delays.
            return len(self.noises) * (self.measured + self.largest_delay)

    name = "josephson/mackey-glass"
    quick = {"seeds": 2, "train_points": 500, "test_points": 500}

    paper = DUDAS
    claims = (
        Claim.at_least(
            "error grows with the delay: mean log10 error at 100 less that at 1",
            0.0,
            lambda d: base(d).isel(delay=-1).mean() - base(d).isel(delay=0).mean(),
            source="Sec. IV B, Fig. 5b",
            item="logarithmic error",
        ),
        Claim.at_least(
            "and in all the cases: the least of all curves, mean - 2 SE",
            0.0,
            lambda d: min(surely(curve.isel(delay=-1) - curve.isel(delay=0)) for curve in all_seeds(d)),
            source="Sec. IV B",
            tolerance=-1e-9,
            item="logarithmic error",
        ),
        Claim.at_least(
            "a line in log(delay) explains more of the error than one in the delay: variance explained, difference",
            0.0,
            lambda d: logarithmic(base(d)),
            source='Sec. IV B: "overall logarithmic increase"',
            tolerance=-1e-9,
            item="logarithmic error",
        ),
        Claim.at_least(
            "and in all the cases: the least of all curves",
            0.0,
            lambda d: min(logarithmic(curve) for curve in all_curves(d)),
            source="likewise",
            tolerance=-1e-9,
            item="logarithmic error",
        ),
        *(
            Claim.at_least(
                f"variance over the delays that a line in log(delay) explains, {port} port{'s' * (port == 'separate')}",
                0.5,
                lambda d, port=port: explained(base(d, port), np.log),
                source="likewise; ours: the number, most of it",
                item="logarithmic error",
                cause="with the joint port memory is gone after ten points: there the error has its largest value, "
                "and from then on it oscillates (same run)"
                if port == "joint"
                else "",
            )
            for port in PORTS
        ),
        Claim.at_most(
            "error saturates: rise over the last half of the delays, per rise over the first",
            0.5,
            lambda d: saturation(base(d)),
            source="Sec. IV B; ours: the number",
            item="saturation",
        ),
        Claim.at_most(
            "and in all the cases: the largest such ratio of all curves",
            0.5,
            lambda d: max(saturation(curve) for curve in all_curves(d)),
            source="Sec. IV B; ours: the number",
            item="saturation",
        ),
        Claim.at_least(
            "it saturates where the range of the points alone would: log10 error of delays beyond half, against that "
            "of the best constant",
            of_best_constant,
            lambda d: far(base(d)),
            source="Sec. IV B; best constant for the series of this run",
            item="range",
            cause=PHASE,
        ),
        Claim.at_least(
            "and in all the cases: the curve with the largest such error",
            of_best_constant,
            lambda d: max(far(curve) for curve in all_curves(d)),
            source="likewise",
            item="range",
            cause=PHASE,
        ),
        Claim.reported(
            "the same of a linear readout of 16 inputs, without a reservoir",
            lambda d: far(d.linear_log_error.mean("seed")),
            source="ours",
            item="range",
        ),
        Claim.within(
            "errors oscillate with twice the frequency of the series",
            2.0,
            lambda d: frequencies(d, base(d)),
            source="Sec. IV B; ours: periodicity read as frequency, of which a hundred delays resolve a quarter",
            item="oscillation",
            tolerance=0.5,
        ),
        Claim.within(
            "and in all the figures: the curve that is furthest from it",
            2.0,
            lambda d: max((frequencies(d, curve) for curve in all_curves(d)), key=lambda ratio: abs(ratio - 2)),
            source="likewise",
            item="oscillation",
            tolerance=0.5,
        ),
        Claim.at_least(
            f"delay {SHOWN}: log10 error at slopes less that at minima and maxima, mean - 2 SE",
            0.0,
            lambda d: surely(at_slopes(d).sel(delay=SHOWN)),
            source="Sec. IV B; delay of Fig. 5a",
            tolerance=-1e-9,
            item="extrema",
        ),
        Claim.at_least(
            "the same, mean over all delays",
            0.0,
            lambda d: surely(at_slopes(d).mean("delay")),
            source="Sec. IV B",
            tolerance=-1e-9,
            item="extrema",
            cause="which of them is easier changes with the delay; at two thirds it is the slopes (same run)",
        ),
        *(
            Claim.at_least(
                f"more dissipation, a faster rise of the error over 20 delays ({port} port"
                f"{'s' * (port == 'separate')}, noise {noise:g}): rise - 2 SE",
                0.0,
                lambda d, port=port, noise=noise: faster(d, port, noise),
                source="Sec. IV B",
                item="shorter memory",
                cause=NO_FASTER[port, noise],
            )
            for port, noise in itertools.product(PORTS, (0.0, 1e-6))
        ),
        *(
            Claim.at_least(
                f"{change}, more error ({port} port{'s' * (port == 'separate')}, noise {noise:g}): rise - 2 SE",
                0.0,
                lambda d, sweep=sweep, port=port, noise=noise: trend(d, sweep, port, noise),
                source=f"Sec. IV B, Fig. {figure}",
                item=sweep,
                cause="coupling helps one point ahead and harms from ten on: errors there grow with it (same run)"
                if (sweep, port) == ("coupling", "separate")
                else "",
            )
            for sweep, (change, figure) in TRENDS.items()
            for port, noise in itertools.product(PORTS, (0.0, 1e-6))
        ),
    )

    def run(self, config: Config, *, key: PRNGKeyArray, progress: Progress) -> xr.Dataset:
        sweeps = {
            "dissipation": [(config.coupling, factor) for factor in config.dissipations],
            "coupling": [(coupling, 1.0) for coupling in config.couplings],
        }
        curves = {
            sweep: [self._points(config, port, points, key) for port in PORTS] for sweep, points in sweeps.items()
        }

        def compute(seeds: range) -> xr.Dataset:
            parts = [self._sweep(config, sweep, [of(seeds) for of in curves[sweep]], seeds) for sweep in sweeps]
            about = {"units": "1", "long_name": "mean log10 |error| without a reservoir"}
            return xr.merge([*parts, xr.Dataset({"linear_log_error": (("seed", "delay"), linear(seeds), about)})])

        linear = over_seeds(_without_reservoir, key, _series(config), _delays(config), config.readout)
        series = np.asarray(_series(config)((1,), key=jax.random.split(member_keys(key, 1)[0])[0]).test_inputs)
        dataset = Blocks("seed", config.seeds).carry_out(progress, compute)
        return dataset.assign(series=("point", series, {"units": "1"}))

    def _points(
        self, config: Config, port: str, points: list[tuple[float, float]], key: PRNGKeyArray
    ) -> Callable[[range], dict[str, np.ndarray]]:
        """What gives the errors of some seeds at all points."""
        unit = config.mixer(coupling=MHz, port=port, measured=config.measured)
        grid, noises = tuple(map(jnp.array, zip(*points, strict=True))), jnp.array(config.noises)
        numbers = noises, jnp.asarray(config.peak_photons)
        return over_seeds(_errors, key, unit, grid, *numbers, _series(config), _delays(config), config.readout)

    def _sweep(self, config: Config, sweep: str, ports: list[dict[str, np.ndarray]], seeds: range) -> xr.Dataset:
        """Errors of some seeds, of every port."""
        values = config.dissipations if sweep == "dissipation" else config.couplings
        meaning = "factor on the damping rates" if sweep == "dissipation" else "g / 2 pi in MHz"
        log_error, nrmse = ([port[name] for port in ports] for name in ("log_error", "nrmse"))
        dims = ("port", "seed", sweep, "noise", "delay")
        columns = {
            f"log_error_{sweep}": (dims, log_error, {"units": "1", "long_name": "mean log10 |error|"}),
            f"nrmse_{sweep}": (dims, nrmse, {"units": "1"}),
        }
        if sweep == "dissipation":
            about = {"units": "1", "long_name": "mean log10 |error| at slopes, less that at minima and maxima"}
            columns["slopes_over_extrema"] = (dims, [port["slopes_over_extrema"] for port in ports], about)
        return xr.Dataset(
            columns,
            {
                "port": list(PORTS),
                "seed": list(seeds),
                sweep: (sweep, list(values), {"long_name": meaning}),
                "noise": list(config.noises),
                "delay": ("delay", np.arange(1, config.largest_delay + 1), {"units": "points"}),
            },
        )

    def figures(self, dataset: xr.Dataset) -> Figures:
        figure = new_figure(10, 9)
        grid = figure.add_gridspec(3, 2, height_ratios=(0.6, 1, 1))
        top = figure.add_subplot(grid[0, :])
        points, delay = np.arange(200), 20
        top.plot(points, dataset.series[:200], color=BLUE, label="input")
        top.plot(points, dataset.series[delay : delay + 200], color=RED, label=f"target, delay {delay}")
        top.set(title="(a) Mackey-Glass series", xlabel="point", ylabel="x")
        top.legend(ncols=2, fontsize="small")
        sweeps = (("b", "dissipation", r"$\kappa \times$"), ("c", "coupling", r"$g / 2\pi$ (MHz) ="))
        for row, (letter, sweep, label) in enumerate(sweeps, start=1):
            for column, port in enumerate(PORTS):
                axis = figure.add_subplot(grid[row, column])
                curves = dataset[f"log_error_{sweep}"].sel(port=port).isel(noise=-1).mean("seed")
                for value, shade in zip(curves[sweep].values, np.linspace(0.25, 1, curves.sizes[sweep]), strict=True):
                    line, text = curves.sel({sweep: value}), f"{label} {value:.3g}"
                    axis.plot(curves.delay, line, color=RED, alpha=shade, linewidth=1.2, label=text)
                clean = dataset[f"log_error_{sweep}"].sel(port=port).isel(noise=0).mean("seed")
                axis.plot(clean.delay, clean.isel({sweep: 0}), ":", color=GREY, label="first, noise-free")
                axis.set(xlabel="delay (points)", ylabel=r"mean $\log_{10}$ |error|")
                noise = float(dataset.noise[-1])
                axis.set_title(f"({letter}) {sweep}, {port} port{'s' * (port == 'separate')}, noise {noise:.0e}")
                axis.legend(fontsize="x-small", ncols=2)
        return {"mackey-glass": figure}


def _delays(config: MackeyGlass.Config) -> tuple[int, ...]:
    return tuple(range(1, config.largest_delay + 1))


def _series(config: MackeyGlass.Config) -> Callable[..., Task]:
    """The task, but for its delays and its key."""
    return eqx.Partial(
        mackey_glass,
        train_points=config.train_points,
        test_points=config.test_points,
        sample_interval=config.sample_interval,
        washout=config.washout,
    )


def _errors(
    unit: JosephsonMixer,
    grid: tuple[jax.Array, jax.Array],
    noises: jax.Array,
    peak_photons: jax.Array,
    series: Callable[..., Task],
    delays: tuple[int, ...],
    readout: dict[str, Any],
    key: PRNGKeyArray,
) -> dict[str, jax.Array]:
    """Errors of a seed, (points, noises, delays), with the coupling and the damping rates of a mixer times factors."""
    task_key, run_key = jax.random.split(key)
    task = series(delays, key=task_key)
    drives = jnp.concatenate([task.train_inputs, task.test_inputs])

    def at(coupling: jax.Array, damping: jax.Array, noise: jax.Array) -> dict[str, jax.Array]:
        scaled = (coupling * unit.coupling, damping * unit.damping_rate)
        mixer = eqx.tree_at(lambda m: (m.coupling, m.damping_rate), unit, scaled)
        mixer = mixer.with_peak_photons(drives, peak_photons)
        outputs, _ = answer(read_task(mixer, task, noise=noise, key=run_key), task, **readout)
        error = jnp.abs(outputs - task.test_targets)
        logarithms = _logarithms(error)
        return {
            "log_error": jnp.mean(logarithms, axis=0),
            "slopes_over_extrema": _slopes_over_extrema(task.test_targets, logarithms),
            "nrmse": jnp.sqrt(jnp.mean(error**2, axis=0)) / jnp.std(task.test_targets, axis=0),
        }

    over_noise = jax.vmap(at, in_axes=(None, None, 0))
    return jax.lax.map(lambda point: over_noise(point[0], point[1], noises), grid)


def _without_reservoir(
    series: Callable[..., Task], delays: tuple[int, ...], readout: dict[str, Any], key: PRNGKeyArray
) -> jax.Array:
    """Log errors of a seed, of a linear readout of the latest inputs."""
    task = series(delays, key=jax.random.split(key)[0])
    outputs, _ = answer(lagged(task, LAGS), task, **readout)
    return jnp.mean(_logarithms(jnp.abs(outputs - task.test_targets)), axis=0)


def _logarithms(error: jax.Array) -> jax.Array:
    return jnp.log10(jnp.maximum(error, jnp.finfo(error.dtype).eps))


def _slopes_over_extrema(targets: jax.Array, logarithms: jax.Array) -> jax.Array:
    """Of each delay, mean log error where the target is locally steepest less that where it turns."""
    step, steepness = jnp.diff(targets, axis=0), jnp.abs(targets[2:] - targets[:-2])
    turns = (step[:-1] * step[1:] <= 0)[1:-1]
    slopes = steepness[1:-1] >= jnp.maximum(steepness[:-2], steepness[2:])
    inner = logarithms[2:-2]
    return jnp.mean(inner, axis=0, where=slopes) - jnp.mean(inner, axis=0, where=turns)
