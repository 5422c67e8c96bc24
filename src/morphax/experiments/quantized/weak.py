"""Neurons as qubits that are measured weakly."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from morphax._lazy import xr
from morphax.experiments.quantized._claims import CLASSICAL, WEAK, final
from morphax.experiments.quantized._training import SMALL, PerceptronConfig, Steps, beside, draw_errors, swept
from morphax.experiments.quantized.paper import BARNEY
from morphax.experiments.training import Trainer
from morphax.lab.experiment import Claim, Experiment, parameter
from morphax.lab.figures import BLUE, Figures, new_figure
from morphax.lab.progress import Progress


def at_strength(steps: int) -> Callable[[xr.Dataset], float]:
    """Error of the sweep at g = steps pi / 38."""
    return lambda d: float(d.sweep_validation.isel(epoch_s=-1).sel(steps=steps))


class Weak(Experiment):
    """Fig. 7: validation error against the strength g of the measurement, a = 0.

    g = 5 pi / 19 with several seeds and the classical network beside it; other strengths with one network each and
    fewer epochs. Backward rule htanh: the activation's own slope does not exist at a = 0.
    """

    class Config(PerceptronConfig):
        steps: Steps = parameter(10, "g at the point of the claim, in units of pi / 38")
        sweep: tuple[Steps, ...] = parameter((2, 3, 4, 5, 6, 8, 10, 13, 16, 19), "g likewise", min_length=1)
        sweep_epochs: int = parameter(120, "passes through the training images, sweep", ge=1)

    name = "quantized/weak"
    quick = SMALL | {"sweep": (3, 19), "sweep_epochs": 2}
    paper = BARNEY
    claims = (
        WEAK.reached("g = 5 pi / 19: validation error", "weak"),
        WEAK.least(
            "least error of the sweep",
            lambda d: float(d.sweep_validation.isel(epoch_s=-1).min()),
            "120 epochs of 500: at g = 5 pi / 19 the last 400 gain 0.002 (quantized/weak)",
        ),
        WEAK.gains("less error than the classical network", "weak"),
        Claim.reported("classical validation error", final(CLASSICAL), source="Fig. 7b", item="weak helps"),
        Claim.at_least(
            "learning is lost below pi / 8: error at 3 pi / 38",
            0.5,
            at_strength(3),
            source="Fig. 7b; ours: the number",
            item="transition",
        ),
        Claim.at_most(
            "and not above it: error at 6 pi / 38",
            0.2,
            at_strength(6),
            source="Fig. 7b; ours: the number",
            item="transition",
        ),
        Claim.reported(
            "sweep: best g, in units of pi / 19",
            lambda d: float(d.sweep_validation.isel(epoch_s=-1).idxmin("steps")) / 2,
            source="Fig. 7b",
            item="weak",
            paper=5.0,
        ),
    )

    def run(self, config: Config, *, key: PRNGKeyArray, progress: Progress) -> xr.Dataset:
        make_key, train_key, sweep_key = jax.random.split(key, 3)
        trainer = Trainer(train_key, progress)
        kinds = {
            CLASSICAL: partial(config.networks, make_key),
            "weak": partial(config.networks, make_key, strength=config.steps * np.pi / 38),
        }

        def sweep(members: range) -> xr.Dataset:
            networks = config.networks(sweep_key, members, strength=[k * np.pi / 38 for k in config.sweep])
            done = config.trained(trainer, "sweep", networks, members, config.sweep_epochs)
            return swept(config.errors(done.history), "steps", config.sweep, members, {"long_name": "38 g / pi"})

        blocks = config.blocks("steps", len(config.sweep), config.sweep_epochs)
        parts = blocks.join(progress.pieces(config.trainings(trainer, kinds) | blocks.split({"sweep": sweep})))
        return beside(parts, kinds).merge(parts["sweep"])

    def figures(self, dataset: xr.Dataset) -> Figures:
        figure = new_figure(10, 3.8)
        curves, sweep = figure.subplots(1, 2)
        draw_errors(curves, dataset.validation, f"Fig. 7a, g = {float(dataset.g.sel(kind='weak')) / np.pi:.3g} pi")
        curves.axhline(WEAK.error, color="black", linewidth=0.8, label="paper's best")
        curves.legend(fontsize="small")
        sweep.semilogy(dataset.steps / 38, dataset.sweep_validation.isel(epoch_s=-1), "o-", color=BLUE)
        sweep.axvline(1 / 8, color="black", linewidth=0.8)
        sweep.set_yticks([0.05, 0.1, 0.2, 0.5, 1], ["0.05", "0.1", "0.2", "0.5", "1"])
        sweep.minorticks_off()
        sweep.set(xlabel="g / pi", title=f"Fig. 7b, {int(dataset.epoch_s[-1])} epochs, one network each")
        return {"weak": figure}
