"""What the classical network does with 5,000 images."""

from __future__ import annotations

from functools import partial

import jax
from jaxtyping import PRNGKeyArray

from morphax._lazy import xr
from morphax.experiments.quantized._training import SMALL, PerceptronConfig, beside
from morphax.experiments.quantized.paper import BARNEY
from morphax.experiments.training import Trainer
from morphax.lab.experiment import Claim, Experiment, parameter
from morphax.lab.figures import BLUE, RED, Figures, mean_and_range, new_figure
from morphax.lab.progress import Progress


class Classical(Experiment):
    """Fig. 2: the training error of the classical network vanishes, and its validation error does not: overfitting."""

    class Config(PerceptronConfig):
        every: int = parameter(10, "epochs between two looks at the validation images", ge=1)
        shots: int = parameter(1, "the network is deterministic", ge=1, le=1)

    name = "quantized/classical"
    quick = SMALL | {"shots": 1}
    paper = BARNEY
    claims = (
        Claim.within(
            "training error after the last epoch",
            0.0,
            lambda d: d.training.isel(epoch=-1).mean(),
            source='Fig. 2: "vanishes"; ours: the number',
            item="overfitting",
            tolerance=0.001,
        ),
        Claim.within(
            "quickly: after a tenth of the epochs",
            0.0,
            lambda d: d.training.isel(epoch=(len(d.epoch) - 1) // 10).mean(),
            source='Fig. 2: "quickly vanishes"; ours: the numbers',
            item="overfitting",
            tolerance=0.001,
        ),
        Claim.at_least(
            "validation error after the last epoch",
            0.05,
            lambda d: d.validation.isel(epoch=-1).mean(),
            source='Fig. 2: "bottoms out at a nonzero value"; ours: the number',
            item="overfitting",
        ),
        Claim.at_most(
            "most of it is there after a tenth of the epochs: validation error then, of the last",
            1.25,
            lambda d: (d.validation.isel(epoch=(len(d.epoch) - 1) // 10) / d.validation.isel(epoch=-1)).mean(),
            source="Fig. 2; ours: the number",
            item="overfitting",
        ),
    )

    def run(self, config: Config, *, key: PRNGKeyArray, progress: Progress) -> xr.Dataset:
        make_key, train_key = jax.random.split(key)
        kinds = {"classical": partial(config.networks, make_key)}
        parts = progress.pieces(config.trainings(Trainer(train_key, progress), kinds))
        return beside(parts, kinds).isel(kind=0, drop=True)

    def figures(self, dataset: xr.Dataset) -> Figures:
        figure = new_figure(5.5, 3.8)
        axes = figure.subplots()
        for name, colour in (("validation", BLUE), ("training", RED)):
            mean_and_range(axes, dataset.epoch, dataset[name], color=colour, label=name)
        axes.set(xlabel="epoch", ylabel="error", title="Fig. 2: classical", ylim=(0, None))
        axes.legend()
        return {"classical": figure}
