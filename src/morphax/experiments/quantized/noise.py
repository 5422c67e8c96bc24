"""Is the gain quantum, or is it noise?"""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray
from pydantic import Field

from morphax._lazy import xr
from morphax.experiments.quantized._claims import CLASSICAL, ROTATION, advantage, answer_up, final
from morphax.experiments.quantized._training import (
    LARGEST_WIDTH,
    SMALL,
    Kind,
    NonNegative,
    PerceptronConfig,
    beside,
    draw_errors,
)
from morphax.experiments.quantized.paper import BARNEY
from morphax.experiments.training import Trainer
from morphax.lab.experiment import BEYOND, Claim, Experiment, Proof, parameter
from morphax.lab.figures import BLUE, RED, Figures, new_figure
from morphax.lab.progress import Progress
from morphax.learning.ensemble import make_members
from morphax.substrates.quantized import NoisyPerceptron

rotation = final("rotation", ROTATION, "error")


def best(dataset: xr.Dataset, prefix: str) -> str:
    """Of the kinds whose name begins so, the one with the smallest error."""
    kinds = [k for k in dataset.kind.values if k.startswith(prefix)]
    if not kinds:
        raise KeyError(prefix)
    return str(dataset.error.sel(kind=kinds).isel(epoch=-1).mean("seed").idxmin("kind").item())


def from_noise(dataset: xr.Dataset) -> float:
    """How far a rotated qubit's probability of +1 is from a noisy classical neuron's, over preactivations up to 2 a."""
    width = ROTATION.width
    noise = np.linspace(-2 * width, 2 * width, 4001)
    density = np.where(abs(noise) <= width, np.pi / (4 * width) * np.cos(np.pi * noise / (2 * width)), 0.0)
    below = np.cumsum((density[1:] + density[:-1]) / 2) * np.diff(noise)
    return float(abs(answer_up(noise[1:], width=width) - below).max())


def beaten(prefix: str) -> Claim:
    """Reported: whether the rotation is better than the best of a family, with all certainty that the seeds give."""
    return Claim.reported(
        f"rotation has less error than the best {prefix}: lower end of the 95 % interval",
        lambda d: advantage("rotation", best(d, prefix), ROTATION, "error")(d),
        source="ours",
        paper=0.0,
        item=BEYOND,
    )


class Noise(Experiment):
    """Ours: the rotated network against classical ones of the same size with Gaussian noise or dropout.

    Gaussian noise is added to every preactivation before its sign is taken; the smallest has the standard deviation of
    the noise that the rotation is equal to, a sqrt(1 - 8 / pi^2). Networks with noise answer by the majority of their
    shots, with dropout deterministically, as is usual. Backward rule htanh for all.
    """

    class Config(PerceptronConfig):
        width: float = parameter(ROTATION.width, "a of the rotated network", gt=0, le=LARGEST_WIDTH)
        epochs: int = parameter(300, "passes through the training images", ge=1)
        noises: tuple[NonNegative, ...] = parameter((1.0, 2.5), "Gaussian noise, of that of the rotation", min_length=1)
        dropouts: tuple[Annotated[float, Field(ge=0, lt=1)], ...] = parameter(
            (0.1, 0.3), "share of hidden neurons left out", min_length=1
        )

    name = "quantized/noise"
    quick = SMALL | {"noises": (1.0,), "dropouts": (0.1,)}
    paper = BARNEY
    claims = (
        Claim.reported("rotation, a = 10^-1/2: validation error", rotation, source="ours", item=BEYOND),
        Claim.reported("classical: validation error", final(CLASSICAL, name="error"), source="ours", item=BEYOND),
        Claim.at_least(
            "a rotated qubit's answers differ from those of a classical neuron with noise: largest difference of "
            "probabilities",
            1e-3,
            from_noise,
            source="Sec. on rotation: in terms of quantum tunnelling; ours: the number",
            item="tunnelling",
            proof=Proof(
                best=0.0,
                place="(1 + sin(pi phi_a(h) / 2)) / 2 is the probability that h + n > 0 for a noise n of density "
                "pi / (4 a) cos(pi n / 2 a) (docs/quantized.md, What is simulated)",
            ),
        ),
        Claim.at_least(
            "rotation has less error than Gaussian noise of the same size: lower end of the 95 % interval",
            0.0,
            advantage("rotation", "noise 1", ROTATION, "error"),
            source="Sec. on rotation: in terms of quantum tunnelling; noise of this run",
            item="tunnelling",
            cause="the rotation is a noise, and gains what noise gains: 0.0548 against 0.0555, without noise 0.0673 "
            "(quantized/noise)",
        ),
        Claim.within(
            "Gaussian noise of the same size is as good as rotation: validation error",
            rotation,
            final("noise 1", name="error"),
            source="rotation of this run: it equals a noise of another shape",
            item=BEYOND,
            tolerance=0.002,
        ),
        *(
            Claim.reported(
                f"the best {name}: validation error",
                lambda d, prefix=prefix: final(best(d, prefix), name="error")(d),
                source="rotation of this run",
                item=BEYOND,
                paper=rotation,
            )
            for name, prefix in (("Gaussian noise", "noise"), ("dropout", "dropout"))
        ),
        Claim.at_least(
            "Gaussian noise, too, has less error than none: lower end of the 95 % interval",
            0.0,
            advantage("noise 1", name="error"),
            source="ours",
            item=BEYOND,
        ),
        beaten("noise"),
        beaten("dropout"),
    )

    def run(self, config: Config, *, key: PRNGKeyArray, progress: Progress) -> xr.Dataset:
        make_key, train_key = jax.random.split(key)
        same = config.width * np.sqrt(1 - 8 / np.pi**2)

        def noisy(noise: float, dropout: float, seeds: range) -> Any:
            def make(key: PRNGKeyArray) -> NoisyPerceptron:
                imperfections = {"noise": jnp.asarray(noise), "dropout": jnp.asarray(dropout)}
                return NoisyPerceptron.random(config.sizes, **imperfections, key=key)

            return make_members(make, make_key, seeds)

        kinds: dict[str, Kind] = {
            CLASSICAL: partial(config.networks, make_key),
            "rotation": partial(config.networks, make_key, width=config.width),
        }
        kinds |= {f"noise {n:g}": partial(noisy, n * same, 0.0) for n in config.noises}
        kinds |= {f"dropout {p:g}": partial(noisy, 0.0, p) for p in config.dropouts}
        dataset = beside(progress.pieces(config.trainings(Trainer(train_key, progress), kinds)), kinds)
        alone = xr.DataArray([k.startswith("dropout") for k in kinds], dims="kind")
        answered = xr.where(alone, dataset.deterministic, dataset.validation)
        return dataset.assign(error=answered.assign_attrs(units="1"))

    def figures(self, dataset: xr.Dataset) -> Figures:
        figure = new_figure(10, 3.8)
        curves, ends = figure.subplots(1, 2)
        draw_errors(curves, dataset.error, "classical networks with noise")
        curves.legend(fontsize="small")
        last = dataset.error.isel(epoch=-1)
        for place, kind in enumerate(dataset.kind.values):
            colour = RED if kind == CLASSICAL else BLUE
            ends.plot(np.full(dataset.sizes["seed"], place), last.sel(kind=kind), "o", color=colour)
        ends.set_xticks(range(len(dataset.kind)), [str(k) for k in dataset.kind.values], rotation=30, fontsize="small")
        ends.set(title=f"after {int(dataset.epoch[-1])} epochs, each seed")
        return {"noise": figure}
