"""What errors of the Mackey-Glass task against the delay tell."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from morphax._lazy import xr
from morphax.experiments.josephson._mixer import surely

PORTS = ("separate", "joint")
TRENDS = {"dissipation": ("more dissipation", "5b"), "coupling": ("less coupling", "5c")}
"""What makes the error grow along each sweep, and the figure that shows it."""
PHASE = "the series keeps its phase for long: a linear readout of 16 of its points beats the constant, too (same run)"
NO_FASTER = {
    ("separate", 0.0): "exact readings are inverted to rounding: slopes over 20 delays are the same at all "
    "dissipations, within 0.001 (same run)",
    ("separate", 1e-6): "with the most dissipation and noise the error is large one point ahead already, and has less "
    "to rise (same run)",
    ("joint", 0.0): "errors of the joint port are the same at all dissipations, within 0.02 (same run)",
    ("joint", 1e-6): "errors of the joint port are the same at all dissipations, within 0.02 (same run)",
}
"""Why errors do not rise faster, by port and noise."""


def all_seeds(dataset: xr.Dataset) -> Iterator[xr.DataArray]:
    """Errors against the delay, of all seeds, of every port, noise and point of a sweep."""
    for sweep in TRENDS:
        curves = dataset[f"log_error_{sweep}"].stack(point=("port", "noise", sweep))
        yield from (curves.isel(point=place, drop=True) for place in range(curves.sizes["point"]))


def all_curves(dataset: xr.Dataset) -> Iterator[xr.DataArray]:
    """Their means over seeds."""
    yield from (curve.mean("seed") for curve in all_seeds(dataset))


def explained(curve: xr.DataArray, scale: Callable[[np.ndarray], np.ndarray]) -> float:
    """Share of the variance over the delays that a line in their scale explains."""
    return float(np.corrcoef(scale(curve.delay.values), curve.values)[0, 1] ** 2)


def logarithmic(curve: xr.DataArray) -> float:
    """Variance that a line in log(delay) explains, less what a line in the delay does."""
    return explained(curve, np.log) - explained(curve, np.asarray)


def far(curve: xr.DataArray) -> float:
    """Mean over the last half of the delays."""
    return float(curve.isel(delay=slice(curve.sizes["delay"] // 2, None)).mean())


def of_best_constant(dataset: xr.Dataset) -> float:
    """Mean log error of the constant that makes it least: what the range of the series alone allows."""
    series = dataset.series.values
    constants = np.linspace(series.min(), series.max(), 1001)[:, None]
    return float(np.log10(np.maximum(np.abs(series - constants), np.finfo(float).eps)).mean(1).min())


def frequencies(dataset: xr.Dataset, curve: xr.DataArray) -> float:
    """Main frequency of an error curve over that of the series."""
    return main_frequency(curve.values) / main_frequency(dataset.series.values)


def main_frequency(series: np.ndarray) -> float:
    """Where the power of a series has its maximum, 1 / points; without its course of second order."""
    places = np.arange(len(series))
    rest = series - np.polyval(np.polyfit(places, series, 2), places)
    power = np.abs(np.fft.rfft(rest * np.hanning(len(series)), 16 * len(series))) ** 2
    return float(np.argmax(power) / (16 * len(series)))


def faster(dataset: xr.Dataset, port: str, noise: float) -> float:
    """By how much the error rises faster over 20 delays with the most dissipation than with the least, less 2 SE."""
    first = dataset.log_error_dissipation.sel(port=port, noise=noise).sel(delay=slice(1, 20))
    slopes = first.polyfit("delay", 1).polyfit_coefficients.sel(degree=1)
    return surely(slopes.isel(dissipation=-1) - slopes.isel(dissipation=0))


def at_slopes(dataset: xr.Dataset) -> xr.DataArray:
    """How much larger log errors are at slopes than at extrema, of every seed and delay; mixer as configured."""
    return dataset.slopes_over_extrema.sel(port="separate").isel(dissipation=0, noise=0)


def base(dataset: xr.Dataset, port: str = "separate") -> xr.DataArray:
    """Log error against delay of the mixer as configured, noise as small as was asked for."""
    return dataset.log_error_dissipation.sel(port=port).isel(dissipation=0, noise=0).mean("seed")


def saturation(curve: xr.DataArray) -> float:
    """Rise of the smoothed error over the second half of the delays, in units of that over the first half."""
    smooth = curve.rolling(delay=max(curve.sizes["delay"] // 5, 1), center=True, min_periods=1).mean()
    middle = smooth.sizes["delay"] // 2
    return float((smooth[-1] - smooth[middle]) / (smooth[middle] - smooth[0]))


def trend(dataset: xr.Dataset, sweep: str, port: str, noise: float) -> float:
    """How surely the error grows along a sweep in the paper's direction: mean less two standard errors over seeds.

    Of each seed: the log error, mean over delays, at the most dissipative (least coupled) point less that at the least
    dissipative (most coupled) one. Above 0 the paper's trend is seen; a trend within its error is not.
    """
    errors = dataset[f"log_error_{sweep}"].sel(port=port, noise=noise).mean("delay")
    first, last = errors.isel({sweep: 0}), errors.isel({sweep: -1})
    return surely(last - first if sweep == "dissipation" else first - last)
