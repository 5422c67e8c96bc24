"""Both ways to be quantum at once."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from morphax._lazy import xr
from morphax.experiments.quantized._claims import ACTIVATION, BOTH, CLASSICAL, CLASSICAL_STEPS, HTANH, TWO_ERRORS
from morphax.experiments.quantized._training import (
    LARGEST_WIDTH,
    SMALL,
    NonNegative,
    PerceptronConfig,
    Steps,
    beside,
    draw_errors,
)
from morphax.experiments.quantized.paper import BARNEY
from morphax.experiments.training import Trainer
from morphax.lab.experiment import Claim, Experiment, parameter
from morphax.lab.figures import Figures, new_figure
from morphax.lab.progress import Progress, along

SINGLE = (
    "the paper's is the least of a sweep: with drawn images and the activation's own slope single networks have 0.049 "
    "to 0.052 here (quantized/subsets)"
)


def gained(*, wider: bool | None, weaker: bool | None) -> Callable[[xr.Dataset], float]:
    """By how much the classical corner of the map has more error than the best of some others.

    Those with a > 0, or a = 0; with g < pi / 2, or g = pi / 2. None: all but the corner.
    """

    def of(dataset: xr.Dataset) -> float:
        wide, weak = dataset.width > 0, dataset.steps < CLASSICAL_STEPS
        chosen = (wide | weak) if wider is None or weaker is None else (wide == wider) & (weak == weaker)
        return float(dataset.valley.sel(width=0, steps=CLASSICAL_STEPS) - dataset.valley.where(chosen).min())

    return of


def best_width(steps: int) -> Callable[[xr.Dataset], float]:
    """Where on the map the error is least for a strength."""
    return lambda d: float(d.valley.sel(steps=steps).idxmin("width"))


def floor(dataset: xr.Dataset) -> float:
    """How far the lowest errors over all widths lie apart, for strengths at which networks learn."""
    lowest = dataset.valley.where(dataset.steps >= 10, drop=True).min("width")
    return float(lowest.max() - lowest.min())


class Landscape(Experiment):
    """Fig. 8: validation error against width a and strength g.

    a = 10^-1/3, g = 9 pi / 19 with several seeds, both backward rules and the classical network beside it; the map with
    one network a point, backward rule htanh, and fewer epochs.
    """

    class Config(PerceptronConfig):
        width: float = parameter(BOTH.width, "a at the point of the claim", gt=0, le=LARGEST_WIDTH)
        steps: Steps = parameter(18, "g at the point of the claim, in units of pi / 38")
        widths: tuple[NonNegative, ...] = parameter(
            (0.0, *(10 ** (k / 6) for k in (-6, -4, -3, -2, 0, 2))), "a of the map", min_length=2
        )
        strengths: tuple[Steps, ...] = parameter(
            (5, 8, 10, 13, 16, 18, 19), "g of the map, in units of pi / 38", min_length=2
        )
        map_epochs: int = parameter(60, "passes through the training images, map", ge=1)

    name = "quantized/landscape"
    quick = SMALL | {"widths": (0.0, 0.5), "strengths": (8, 19), "map_epochs": 2}
    paper = BARNEY
    claims = (
        BOTH.reached("a = 10^-1/3, g = 9 pi / 19: validation error, backward htanh", HTANH, SINGLE),
        BOTH.reached("a = 10^-1/3, g = 9 pi / 19: validation error, own slope", ACTIVATION, SINGLE),
        BOTH.least(
            "least error of the map, htanh",
            lambda d: float(d.valley.min()),
            "60 epochs of 500: at its best point the others gain 0.005 (quantized/landscape)",
        ),
        BOTH.gains("less error than the classical network, own slope", ACTIVATION),
        *(
            Claim.at_least(
                f"map: what {words} gains over the classical corner",
                TWO_ERRORS,
                gained(wider=wider, weaker=weaker),
                source="Fig. 8; ours: two binomial errors of a difference",
                item="both help",
            )
            for words, wider, weaker in (
                ("more a alone", True, False),
                ("less g alone", False, True),
                ("both", True, True),
            )
        ),
        *(
            Claim.at_least(
                f"up to a point: error of the map at its least g and {words}, less that of the classical corner",
                TWO_ERRORS,
                lambda d, place=place: (
                    d.valley.sel(steps=5).isel(width=place) - d.valley.sel(width=0, steps=CLASSICAL_STEPS)
                ),
                source="Fig. 8; ours: two binomial errors of a difference",
                item="both help",
            )
            for words, place in (("a = 0", 0), ("largest a", -1))
        ),
        Claim.at_most(
            "the floor of the valley is flat: largest less least of the lowest errors for g >= 10 pi / 38",
            0.01,
            floor,
            source="Fig. 8: does not vary much; ours: the number",
            item="valley",
        ),
        Claim.at_most(
            "the valley is curved: best a at g = 10 pi / 38 against that at pi / 2",
            best_width(CLASSICAL_STEPS),
            best_width(10),
            source="Fig. 8; one network a point",
            tolerance=-1e-9,
            item="valley",
        ),
        Claim.at_least(
            "the best points of the map are quantum: error of the classical corner less the lowest of the others",
            TWO_ERRORS,
            gained(wider=None, weaker=None),
            source="Fig. 8; ours: two binomial errors of a difference",
            item="both help",
        ),
    )

    def run(self, config: Config, *, key: PRNGKeyArray, progress: Progress) -> xr.Dataset:
        make_key, train_key, map_key = jax.random.split(key, 3)
        trainer = Trainer(train_key, progress)
        strength = config.steps * np.pi / 38
        kinds = {
            CLASSICAL: partial(config.networks, make_key),
            HTANH: partial(config.networks, make_key, width=config.width, strength=strength),
            ACTIVATION: partial(
                config.networks, make_key, width=config.width, strength=strength, backward="activation"
            ),
        }

        def row(steps: int, members: range) -> xr.Dataset:
            row_key, strength = jax.random.fold_in(map_key, steps), steps * np.pi / 38
            networks = config.networks(row_key, members, width=config.widths, strength=strength)
            done = config.trained(trainer, f"map {steps}", networks, members, config.map_epochs)
            error = config.errors(done.history).validation.isel(epoch=-1, drop=True).rename(member="width")
            return xr.Dataset({"valley": error}).assign_coords(width=[config.widths[index] for index in members])

        blocks = config.blocks("width", len(config.widths), config.map_epochs)
        work = config.trainings(trainer, kinds) | blocks.split({f"map {k}": partial(row, k) for k in config.strengths})
        parts = blocks.join(progress.pieces(work))
        rows = along("steps", {k: parts[f"map {k}"] for k in config.strengths}, {"long_name": "38 g / pi"})
        return beside(parts, kinds).merge(rows)

    def figures(self, dataset: xr.Dataset) -> Figures:
        figure = new_figure(11, 4.5)
        curves, axes = figure.subplots(1, 2)
        kind = dataset.sel(kind=HTANH)
        where = f"a = {float(kind.a):.3g}, g = {float(kind.g) / np.pi:.3g} pi"
        draw_errors(curves, dataset.validation, f"{where}, two backward rules")
        curves.axhline(BOTH.error, color="black", linewidth=0.8, label="paper's best")
        curves.legend(loc="upper right", fontsize="small")
        values = np.asarray(dataset.valley.transpose("steps", "width"))
        shown = axes.imshow(values, cmap="viridis_r", vmax=2 * values.min(), origin="lower", aspect="auto")
        for i, j in np.ndindex(values.shape):
            colour = "black" if values[i, j] < 1.5 * values.min() else "white"
            axes.text(j, i, f"{values[i, j]:.3f}", ha="center", va="center", color=colour, fontsize="x-small")
        axes.set_xticks(range(values.shape[1]), [f"{a:.3g}" for a in dataset.width.values])
        axes.set_yticks(range(values.shape[0]), [f"{k / 38:.3f}" for k in dataset.steps.values])
        axes.set(xlabel="a", ylabel="g / pi", title="Fig. 8: validation error, one network a point")
        axes.grid(False)
        figure.colorbar(shown)
        return {"landscape": figure}
