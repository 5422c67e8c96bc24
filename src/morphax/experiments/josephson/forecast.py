"""The everyday job: forecast a series of numbers."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray
from pydantic import Field, model_validator

from morphax._lazy import xr
from morphax.experiments.josephson._mixer import FOLDS, MixerConfig, Ridge, over_seeds
from morphax.experiments.josephson.paper import DUDAS
from morphax.lab.blocks import Blocks
from morphax.lab.experiment import BEYOND, Claim, Experiment, Positive, parameter
from morphax.lab.figures import BLUE, GREEN, GREY, ORANGE, Figures, literal, new_figure
from morphax.lab.progress import Progress
from morphax.learning.metrics import rmse
from morphax.learning.readout import Reading, fit_readout, read_task
from morphax.substrates.josephson import JosephsonMixer
from morphax.substrates.reservoirs import EchoStateNetwork
from morphax.tasks.base import Task
from morphax.tasks.series import SUNSPOTS, Scaling, forecast, read_series, sunspots

MODELS = {
    "mixer": ("Josephson mixer", BLUE),
    "persistence": ("persistence", GREY),
    "autoregression": ("linear autoregression", GREEN),
    "echo-state": ("echo-state network", ORANGE),
}
VALIDATION_FRACTION = 0.25
"""Part of the training points, at their end, on which a reservoir's time scale is chosen before the final fit."""


class Forecast(Experiment):
    """Ours: forecast any series from a CSV file, against persistence, autoregression and an echo-state network.

    Default: the yearly sunspot number 1700-2008 (NOAA National Geophysical Data Center, public domain), one year
    ahead. For your own: --set csv=FILE --set column=NAME --set horizon=H. The series is split in time order and scaled
    by its training part. Inputs are shifted into [0, 1] because populations cannot tell a drive from its negative.
    Time scales of both reservoirs and the order of the autoregression are chosen on the end of the training part.
    """

    class Config(MixerConfig):
        csv: str | None = parameter(None, "CSV file with the series; null: yearly sunspot numbers")
        column: str | None = parameter(None, "its column; null: the last one that holds numbers")
        horizon: int = parameter(1, "how many points ahead", ge=1)
        train_fraction: float = parameter(0.67, "part of the series that is known to the fit", gt=0, lt=1)
        washout: int = parameter(20, "first points that enter no fit", ge=0)
        measured: int = parameter(36, "measured states of the mixer", ge=1)
        neurons: int = parameter(100, "neurons of the echo-state network", ge=1)
        largest_order: int = parameter(20, "largest order of the autoregression that is tried", ge=1)
        peak_photons: float = parameter(2.0, "peak photon number on the training points", gt=0)
        dissipations: tuple[Positive, ...] = parameter(
            (0.1, 0.2, 0.5, 1.0, 2.0), "tried factors on damping_rate", min_length=1
        )
        leak_rates: tuple[Annotated[float, Field(gt=0, le=1)], ...] = parameter(
            (0.2, 0.5, 1.0), "tried leak rates of the echo-state network", min_length=1
        )
        noise: float = parameter(1e-4, "standard deviation of Gaussian noise on every population", ge=0)
        bias: bool = parameter(True, "whether the readout learns a constant")
        ridge: Ridge = parameter("cross-validate", "readout: 0, a relative strength, or cross-validate")
        train_points: int = parameter(0, "unused: the series and train_fraction decide", ge=0, le=0)
        test_points: int = parameter(0, "unused: the series and train_fraction decide", ge=0, le=0)

        def data(self) -> dict[str, Path | str]:
            return {"sunspots": SUNSPOTS} if self.csv is None else {"csv": Path(self.csv)}

        def points(self) -> int:
            return len(self.series()[2])

        def columns(self) -> int:
            return max(self.measured, self.neurons, self.largest_order)

        def numbers_of_state(self) -> int:
            # An echo-state network's matrix is decomposed for its largest eigenvalue; complex, in some copies.
            return super().numbers_of_state() + 5 * self.neurons**2

        def series(self) -> tuple[str, Float[np.ndarray, " time"], Float[np.ndarray, " time"]]:
            """Name, time of each point, and values."""
            if self.csv is None:
                years, values = sunspots()
                return "yearly sunspot number", years.astype(float), values
            name, values = read_series(self.csv, self.column)
            return name, np.arange(len(values), dtype=float), values

        @model_validator(mode="after")
        def _series_can_be_used(self) -> Forecast.Config:
            if self.csv is None and self.column is not None:
                raise ValueError("column is given but csv is not; name the file too: --set csv=FILE")
            with jax.enable_x64(self.precision == "double"):
                task, _ = forecast(
                    self.series()[2], self.horizon, train_fraction=self.train_fraction, washout=self.washout
                )
            fitted = len(task.train_targets) - self.washout
            if fitted - _held_of(fitted) < FOLDS:
                raise ValueError(
                    f"washout is {self.washout}; of {len(task.train_targets)} training points it leaves {fitted}, and "
                    f"with a quarter held out there must be at least {FOLDS}"
                )
            return self

    name = "josephson/forecast"
    quick = {"seeds": 3}
    paper = DUDAS
    claims = tuple(
        Claim.at_most(
            f"test error of the mixer against {MODELS[other][0]}, same run (NRMSE)",
            lambda d, other=other: d.nrmse.sel(model=other).mean(),
            lambda d: d.nrmse.sel(model="mixer").mean(),
            source=f"{MODELS[other][0]}, same split and same readout training",
            item=BEYOND,
            cause="populations with an offset remember less than two inputs linearly, 1.6 (josephson/quadratures); "
            "autoregressions of order 1 and 2 have 0.587 and 0.420 (josephson/forecast, largest_order=1 and 2)",
        )
        for other in ("persistence", "autoregression", "echo-state")
    )

    def run(self, config: Config, *, key: PRNGKeyArray, progress: Progress) -> xr.Dataset:
        name, times, values = config.series()
        task, scaling = forecast(values, config.horizon, train_fraction=config.train_fraction, washout=config.washout)
        drives = eqx.tree_at(lambda t: (t.train_inputs, t.test_inputs), task, replace_fn=lambda x: (1 + x) / 2)

        mixer, peak_photons = config.mixer(measured=config.measured), jnp.asarray(config.peak_photons)
        readers = {
            "mixer": (eqx.Partial(_mixer, mixer, peak_photons, drives, jnp.asarray(config.noise)), config.dissipations),
            "persistence": (eqx.Partial(_lagged, task, 1), (1,)),
            "autoregression": (
                eqx.Partial(_lagged, task, config.largest_order),
                tuple(range(1, config.largest_order + 1)),
            ),
            "echo-state": (eqx.Partial(_network, task, config.neurons), config.leak_rates),
        }
        targets = task.train_targets[task.washout :]
        models = {
            model: over_seeds(
                _chosen, key, read, jnp.array(tried), targets, None if model == "persistence" else config.readout
            )
            for model, (read, tried) in readers.items()
        }

        def compute(seeds: range) -> xr.Dataset:
            predictions, chosen = zip(*(model(seeds) for model in models.values()), strict=True)
            return xr.Dataset(
                {
                    "prediction": (("model", "seed", "time"), np.array(predictions)),
                    "chosen": (("model", "seed"), np.array(chosen, float)),
                },
                {"model": list(models), "seed": list(seeds)},
            )

        scaled = Blocks("seed", config.seeds).carry_out(progress, compute)
        tested = slice(-len(task.test_targets), None)
        return _in_own_units(scaled, name, times[tested], values[tested], scaling)

    def figures(self, dataset: xr.Dataset) -> Figures:
        figure = new_figure(9, 6.5)
        top, bottom = figure.subplots(2, 1, sharex=True)
        name = dataset.observed.attrs["long_name"]
        top.plot(dataset.time, dataset.observed, color="black", linewidth=1.6, label="observed")
        for model, (label, colour) in MODELS.items():
            part = dataset.prediction.sel(model=model)
            mean, error = part.mean("seed"), float(dataset.nrmse.sel(model=model).mean())
            if model != "persistence":
                top.plot(dataset.time, mean, color=colour, linewidth=1.2, label=label)
            bottom.plot(
                dataset.time, mean - dataset.observed, color=colour, linewidth=1, label=f"{label}: NRMSE {error:.3f}"
            )
        top.set(ylabel=literal(name), title="test period (mean of the seeds)")
        bottom.set(ylabel="forecast - observed", xlabel="time")
        for axis in (top, bottom):
            axis.legend(fontsize="small", ncols=2, loc="upper left")
            low, high = axis.get_ylim()
            axis.set_ylim(low, high + 0.25 * (high - low))
        return {"forecast": figure}

    def exports(self, dataset: xr.Dataset) -> dict[str, str]:
        """`predictions.csv`: time, observed value, and each model's forecast (mean of the seeds)."""
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        models = [str(model) for model in dataset.model.values]
        table.writerow(["time", "observed", *models])
        means = dataset.prediction.mean("seed")
        for index, time in enumerate(dataset.time.values):
            table.writerow([f"{v:.12g}" for v in (time, dataset.observed.values[index], *means[:, index].values)])
        return {"predictions.csv": text.getvalue()}


def _mixer(
    mixer: JosephsonMixer, peak_photons: Array, drives: Task, noise: Array, factor: Array, key: PRNGKeyArray
) -> Reading:
    """What the mixer reads with its damping rates times a factor."""
    damped = eqx.tree_at(lambda m: m.damping_rate, mixer, factor * mixer.damping_rate)
    return read_task(damped.with_peak_photons(drives.train_inputs, peak_photons), drives, noise=noise, key=key)


def _network(task: Task, neurons: int, leak_rate: Array, key: PRNGKeyArray) -> Reading:
    return read_task(EchoStateNetwork.random(neurons, leak_rate=leak_rate, key=key), task)


def _chosen(
    read: Callable[[Array, PRNGKeyArray], Reading],
    candidates: Array,
    targets: Array,
    readout: dict[str, Any] | None,
    key: PRNGKeyArray,
) -> tuple[Array, Array]:
    """Test outputs of a seed, with the candidate that does best on the end of the training part, and which that is.

    Without a readout a reading is the answer itself.
    """
    held = _held_of(len(targets))

    def outputs_of(candidate: Array) -> tuple[Array, Array]:
        reading = read(candidate, key)
        if readout is None:
            return jnp.zeros(()), reading.test
        trial = fit_readout(reading.train[:-held], targets[:-held], **readout)
        final = fit_readout(reading.train, targets, **readout)
        return rmse(trial(reading.train[-held:]), targets[-held:]), final(reading.test)

    errors, outputs = jax.lax.map(outputs_of, candidates)
    best = jnp.argmin(errors)
    return outputs[best, :, 0], candidates[best]


def _held_of(points: int) -> int:
    """How many training points, at their end, are held out to choose by."""
    return max(round(VALIDATION_FRACTION * points), 1)


def _lagged(task: Task, lags: int, order: Array, key: PRNGKeyArray) -> Reading:
    """What a linear autoregression reads: the latest `order` inputs, newest first, zeros behind them up to `lags`."""
    inputs = jnp.concatenate([task.train_inputs, task.test_inputs])
    ages = jnp.arange(lags)
    # Before the first point the series is taken to stand still.
    read = inputs[jnp.maximum(jnp.arange(inputs.size)[:, None] - ages, 0)] * (ages < order)
    split = task.train_inputs.size
    return Reading(read[task.washout : split], read[split:])


def _in_own_units(scaled: xr.Dataset, name: str, times: np.ndarray, values: np.ndarray, scaling: Scaling) -> xr.Dataset:
    """Forecasts and errors in the unit of the series."""
    observed = xr.DataArray(values, {"time": times}, ("time",), attrs={"long_name": name})
    predicted = scaled.prediction.copy(data=np.asarray(scaling.from_unit(scaled.prediction.values)))
    predicted = predicted.assign_coords(time=times).assign_attrs(long_name=f"forecast of the {name}")
    error = np.sqrt(((predicted - observed) ** 2).mean("time"))
    return xr.Dataset(
        {
            "observed": observed,
            "prediction": predicted,
            "rmse": error.assign_attrs(long_name=f"root mean square error of the {name}"),
            "nrmse": (error / observed.std("time")).assign_attrs(units="1", long_name="rmse / standard deviation"),
            "chosen": scaled.chosen.assign_attrs(long_name="dissipation factor, order or leak rate that was chosen"),
        }
    )
