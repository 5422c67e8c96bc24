"""How long does it take to learn, along the axes of Fig. 8, and where is learning lost?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Self

import jax
import numpy as np
from jaxtyping import PRNGKeyArray
from pydantic import Field, model_validator

from morphax._lazy import xr
from morphax.experiments.quantized._claims import BOTH, CLASSICAL_STEPS, ROTATION, TWO_ERRORS, WEAK
from morphax.experiments.quantized._training import SMALL, NonNegative, PerceptronConfig, Steps
from morphax.experiments.quantized.paper import BARNEY
from morphax.experiments.training import Trainer
from morphax.lab.blocks import join_blocks
from morphax.lab.experiment import Claim, Experiment, parameter
from morphax.lab.figures import BLUE, GREEN, GREY, RED, Figures, new_figure
from morphax.lab.progress import Progress

FINE = 20  # parts of pi / 38 in the look at the transition, so that whole numbers name its points
CLOSE = 1.25
"""A network has converged where its error is at most this times that of its last epoch."""


def along_axis(dataset: xr.Dataset, axis: str) -> xr.DataArray:
    """Validation errors (point, epoch) of the points with projective measurements ("a"), with a = 0 ("g"), or all."""
    kept = {"a": dataset.steps == CLASSICAL_STEPS, "g": dataset.width == 0, "all": dataset.steps > 0}[axis]
    return dataset.validation.sel(point=dataset.point[kept])


def classical(dataset: xr.Dataset) -> xr.DataArray:
    """Validation errors of the classical network over epochs."""
    errors = along_axis(dataset, "a")
    return errors.sel(point=errors.point[errors.width == 0]).squeeze("point")


def converged_after(errors: xr.DataArray) -> xr.DataArray:
    """Epochs until the error comes close to that of the last epoch for the first time."""
    return errors.epoch[(errors <= CLOSE * errors.isel(epoch=-1)).argmax("epoch")]


def slowest(axis: str, *, steps: int = 0, width: float = np.inf) -> Callable[[xr.Dataset], float]:
    """The longest time of convergence on an axis, from a strength on or up to a width, over the classical one."""

    def ratio(dataset: xr.Dataset) -> float:
        errors = along_axis(dataset, axis)
        errors = errors.sel(point=errors.point[(errors.steps >= steps) & (errors.width <= width)])
        return float(converged_after(errors).max() / converged_after(classical(dataset)))

    return ratio


def lowest(axis: str) -> Callable[[xr.Dataset], float]:
    """Least error after the last epoch."""
    return lambda d: float(along_axis(d, axis).isel(epoch=-1).min())


def gained(axis: str) -> Callable[[xr.Dataset], float]:
    """By how much the least error on an axis lies below that of the classical network."""
    return lambda d: float(classical(d).isel(epoch=-1)) - lowest(axis)(d)


def transition(dataset: xr.Dataset) -> dict[str, float]:
    """Where learning is lost: error(g) = low + (high - low) / (1 + exp((g - g_c) / w)), by least squares.

    g_c / pi and w / pi, and half the 95 % interval of g_c / pi.
    """
    from scipy import optimize, stats

    g, error = dataset.fine.values / (38 * FINE), dataset.near.values

    def curve(g: np.ndarray, centre: float, width: float, low: float, high: float) -> np.ndarray:
        return low + (high - low) / (1 + np.exp((g - centre) / width))

    start = (1 / 8, 0.01, error.min(), error.max())
    best, covariance = optimize.curve_fit(curve, g, error, start, bounds=((0, 1e-4, 0, 0), (0.5, 0.2, 1, 1)))
    spread = stats.t.ppf(0.975, len(g) - len(best)) * covariance[0, 0] ** 0.5
    return {"centre": best[0], "width": best[1], "half": spread, "low": best[2], "high": best[3]}


class Curves(Experiment):
    """Figs. 5a, 7a, 7b, 8: single networks along the axes of Fig. 8 and its diagonal, for all of Table I's epochs.

    The paper's numbers are least errors of single networks, each trained once: that is computed here, on the first
    5,000 images, beside what several seeds give elsewhere. Strengths near the one at which learning is lost are tried
    in finer steps. Backward rule htanh.
    """

    class Config(PerceptronConfig):
        every: int = parameter(20, "epochs between two looks at the validation images", ge=1)
        widths: tuple[NonNegative, ...] = parameter(
            (0.0, *(10 ** (k / 6) for k in (-6, -4, -3, -2, 0))), "a with projective measurements", min_length=2
        )
        strengths: tuple[Steps, ...] = parameter((6, 8, 10, 13, 16), "g with a = 0, in units of pi / 38", min_length=1)
        both_widths: tuple[NonNegative, ...] = parameter(
            (10 ** (-4 / 6), 10 ** (-1 / 2), 10 ** (-1 / 3), 10 ** (-1 / 3)), "a of the diagonal", min_length=1
        )
        both_strengths: tuple[Steps, ...] = parameter((13, 16, 16, 18), "g of the diagonal, likewise", min_length=1)
        fine: tuple[Annotated[int, Field(ge=0, le=CLASSICAL_STEPS * FINE)], ...] = parameter(
            (60, 70, 80, 85, 90, 95, 100, 110, 120), "g near the transition, in units of pi / 760", min_length=5
        )
        fine_epochs: int = parameter(200, "passes through the training images there", ge=1)

        @model_validator(mode="after")
        def _diagonal_has_pairs(self) -> Self:
            if len(self.both_widths) != len(self.both_strengths):
                raise ValueError(
                    f"both_strengths has {len(self.both_strengths)} values; it must have {len(self.both_widths)}, one "
                    "for each of both_widths"
                )
            if 0.0 not in self.widths:
                raise ValueError(f"widths is {self.widths}; the classical network, 0, must be among them")
            return self

        def points(self) -> list[tuple[float, int]]:
            """(a, g in units of pi / 38)."""
            projective = [(a, CLASSICAL_STEPS) for a in self.widths]
            diagonal = zip(self.both_widths, self.both_strengths, strict=True)
            return projective + [(0.0, k) for k in self.strengths] + list(diagonal)

    name = "quantized/curves"
    quick = SMALL | {
        "widths": (0.0, 10**-0.5),
        "strengths": (10,),
        "both_widths": (10 ** (-1 / 3),),
        "both_strengths": (18,),
        "fine": (40, 60, 90, 120, 200),
        "fine_epochs": 2,
    }
    paper = BARNEY
    claims = (
        ROTATION.least("least error of single networks, a alone", lowest("a")),
        WEAK.least("least error of single networks, g alone", lowest("g")),
        BOTH.least("least error of single networks, all points", lowest("all")),
        *(
            Claim.at_least(
                f"{words} improves on the classical network: what the best point gains",
                TWO_ERRORS,
                gained(axis),
                source="Fig. 8; ours: two binomial errors of a difference",
                item="both help",
            )
            for words, axis in (("more a", "a"), ("less g", "g"), ("either or both", "all"))
        ),
        Claim.at_most(
            "a up to 10^-1/3: longest time of convergence over the classical one",
            2.0,
            slowest("a", width=BOTH.width + 1e-6),
            source="Sec. on weak measurement: similar to rotation; ours: the number",
            item="widths",
        ),
        Claim.at_most(
            "g from 8 pi / 38 on: longest time of convergence over the classical one",
            2.0,
            slowest("g", steps=8),
            source="Fig. 7a: mostly unaffected; ours: the number",
            item="convergence time",
        ),
        Claim.at_least(
            "and below that it takes longer: 6 pi / 38",
            slowest("g", steps=8),
            slowest("g"),
            source="Fig. 7a: until g becomes sufficiently small",
            tolerance=-1e-9,
            item="convergence time",
        ),
        Claim.within(
            "learning is lost at g_c / pi",
            1 / 8,
            lambda d: transition(d)["centre"],
            source="Fig. 7b: approximately; ours: a tenth of it",
            tolerance=0.0125,
            item="transition",
        ),
        Claim.reported(
            "half the 95 % interval of g_c / pi", lambda d: transition(d)["half"], source="ours", item="transition"
        ),
        Claim.at_most(
            "quickly: width w of the transition over g_c",
            0.25,
            lambda d: transition(d)["width"] / transition(d)["centre"],
            source="Fig. 7b: quickly loses its ability to learn; ours: the number",
            item="transition",
        ),
    )

    def run(self, config: Config, *, key: PRNGKeyArray, progress: Progress) -> xr.Dataset:
        make_key, near_key, train_key = jax.random.split(key, 3)
        trainer, points = Trainer(train_key, progress), config.points()
        widths, steps = zip(*points, strict=True)

        def trained(label: str, widths: Sequence[float], strengths: Sequence[float], epochs: int, members: range):
            made_with = near_key if label == "near" else make_key
            strength = [k * np.pi / 38 for k in strengths]
            networks = config.networks(made_with, members, width=widths, strength=strength)
            return config.errors(config.trained(trainer, label, networks, members, epochs).history)

        def course(members: range) -> xr.Dataset:
            errors = trained("points", widths, steps, config.epochs, members)
            return errors.rename(member="point").assign_coords(
                point=list(members),
                width=("point", [widths[i] for i in members]),
                steps=("point", [steps[i] for i in members], {"long_name": "38 g / pi"}),
            )

        def near(members: range) -> xr.Dataset:
            fine = [k / FINE for k in config.fine]
            errors = trained("near", [0.0] * len(fine), fine, config.fine_epochs, members)
            last = errors.validation.isel(epoch=-1, drop=True).rename(member="fine")
            return xr.Dataset({"near": last}).assign_coords(fine=[config.fine[i] for i in members])

        work = {**config.blocks("point", len(points), config.epochs).split({"points": course})}
        work |= config.blocks("fine", len(config.fine), config.fine_epochs).split({"near": near})
        done = progress.pieces(work)
        together = join_blocks("point", {k: v for k, v in done.items() if "point" in v.dims})["points"]
        return together.merge(join_blocks("fine", {k: v for k, v in done.items() if "fine" in v.dims})["near"])

    def figures(self, dataset: xr.Dataset) -> Figures:
        from matplotlib import colormaps

        figure = new_figure(10, 7.5)
        (first, second), (third, fourth) = figure.subplots(2, 2)
        for axes, axis, title in ((first, "a", "Fig. 5a: a alone"), (second, "g", "Fig. 7a: g alone")):
            errors = along_axis(dataset, axis).sortby("width" if axis == "a" else "steps", ascending=axis == "a")
            colours = colormaps["viridis"](np.linspace(0, 0.95, errors.sizes["point"]))
            for place, colour in enumerate(colours):
                curve = errors.isel(point=place)
                label = f"{float(curve.width):.3g}" if axis == "a" else rf"{int(curve.steps) / 38:.3f} $\pi$"
                axes.semilogy(curve.epoch, curve, color=colour, label=label)
            axes.set(xlabel="epoch", ylabel="validation error", title=title)
            axes.legend(title=axis, fontsize="x-small", ncols=2)
        self._transition(third, dataset)
        self._ends(fourth, dataset)
        return {"curves": figure}

    def _transition(self, axes, dataset: xr.Dataset) -> None:
        fit = transition(dataset)
        g = np.linspace(float(dataset.fine.min()), float(dataset.fine.max()), 200) / (38 * FINE)
        fitted = fit["low"] + (fit["high"] - fit["low"]) / (1 + np.exp((g - fit["centre"]) / fit["width"]))
        axes.plot(dataset.fine / (38 * FINE), dataset.near, "o", color=BLUE, label="one network each")
        axes.plot(g, fitted, color=BLUE, linewidth=1, label=rf"fit, $g_c / \pi$ = {fit['centre']:.4f}")
        axes.axvspan(fit["centre"] - fit["half"], fit["centre"] + fit["half"], color=BLUE, alpha=0.15)
        axes.axvline(1 / 8, color=GREY, linewidth=0.8, label=r"paper's $\pi / 8$")
        axes.set(xlabel=r"$g / \pi$", ylabel="validation error", title="Fig. 7b, where learning is lost")
        axes.legend(fontsize="small")

    def _ends(self, axes, dataset: xr.Dataset) -> None:
        last = dataset.validation.isel(epoch=-1)
        ticks = [f"{float(p.width):.2g}, {int(p.steps) / 38:.2f}" for p in last]
        kinds = [BLUE if int(p.steps) == CLASSICAL_STEPS else GREEN if float(p.width) == 0 else RED for p in last]
        place = np.arange(len(ticks))
        axes.bar(place, last, color=kinds)
        axes.axhline(BOTH.error, color="black", linewidth=0.8)
        axes.set_xticks(place, ticks, rotation=90, fontsize="x-small")
        title = f"Fig. 8, {int(dataset.epoch[-1])} epochs; line: paper's least"
        axes.set(xlabel=r"a, g / $\pi$", ylabel="validation error", title=title)
