"""How often must a quantised perceptron be asked?"""

from __future__ import annotations

from typing import Annotated

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray
from pydantic import Field

from morphax._lazy import xr
from morphax.experiments.quantized._training import LARGEST_WIDTH, SMALL, PerceptronConfig
from morphax.experiments.quantized.paper import BARNEY
from morphax.experiments.training import Trainer
from morphax.lab.blocks import Blocks
from morphax.lab.experiment import BEYOND, Claim, Experiment, parameter
from morphax.lab.figures import BLUE, RED, Figures, new_figure
from morphax.lab.progress import Progress
from morphax.learning.ensemble import map_members, member_keys
from morphax.learning.voting import vote
from morphax.substrates.quantized import BinarisedPerceptron
from morphax.tasks import Task


class Shots(Experiment):
    """Fig. 4: validation error of a network trained with a = 0.5 against the number of passes for each image.

    Each number of shots is drawn afresh, `repeats` times.
    """

    class Config(PerceptronConfig):
        width: float = parameter(0.5, "a", ge=0, le=LARGEST_WIDTH)
        epochs: int = parameter(200, "passes through the training images", ge=1)
        numbers: tuple[Annotated[int, Field(ge=1)], ...] = parameter(
            (1, 2, 3, 4, 5, 7, 10, 15, 21, 31), "of shots", min_length=1
        )
        repeats: int = parameter(3, "draws at each number", ge=1)

    name = "quantized/shots"
    quick = SMALL | {"numbers": (1, 2, 5), "repeats": 1}
    paper = BARNEY
    claims = (
        Claim.at_most(
            "few shots outperform deterministic inference: error with 5 shots",
            lambda d: d.deterministic.isel(epoch=-1).mean(),
            lambda d: d.error.sel(shots=5).mean(),
            source="Fig. 4; deterministic inference of this run",
            item="shots",
        ),
        Claim.within(
            "diminishing returns after 10: what 21 more gain",
            0.0,
            lambda d: d.error.sel(shots=10).mean() - d.error.sel(shots=31).mean(),
            source="Fig. 4; ours: the number",
            item="shots",
            tolerance=0.002,
        ),
        Claim.at_most(
            "two shots gain nothing, ties: what the second gains",
            0.0,
            lambda d: d.error.sel(shots=1).mean() - d.error.sel(shots=2).mean(),
            source="ours",
            item=BEYOND,
            tolerance=0.001,
        ),
    )

    def run(self, config: Config, *, key: PRNGKeyArray, progress: Progress) -> xr.Dataset:
        make_key, train_key, shot_key = jax.random.split(key, 3)

        def compute(seeds: range) -> xr.Dataset:
            task, networks = config.task(), config.networks(make_key, seeds, width=config.width)
            done = config.trained(Trainer(train_key, progress), "training", networks, seeds, task=task)
            errors = []
            for index, number in enumerate(config.numbers):
                judge = eqx.Partial(_errors, task, number, config.repeats)
                keys = member_keys(jax.random.fold_in(shot_key, index), seeds)
                errors.append(np.asarray(map_members(judge, done.last, keys)))
            error = (("shots", "member", "repeat"), np.array(errors), {"units": "1"})
            dataset = config.errors(done.history).assign(error=error).rename(member="seed")
            return dataset.assign_coords(shots=list(config.numbers), seed=list(seeds))

        return Blocks("seed", config.seeds).carry_out(progress, compute)

    def figures(self, dataset: xr.Dataset) -> Figures:
        figure = new_figure(5.5, 3.8)
        axes = figure.subplots()
        mean, spread = dataset.error.mean(("seed", "repeat")), dataset.error.mean("repeat").std("seed")
        axes.errorbar(dataset.shots, mean, spread, fmt="o-", color=BLUE, label="majority of shots")
        axes.axhline(float(dataset.deterministic.isel(epoch=-1).mean()), color=RED, label="deterministic")
        axes.set(xlabel="shots", ylabel="validation error", title="Fig. 4")
        axes.legend()
        return {"shots": figure}


@eqx.filter_jit
def _errors(task: Task, shots: int, repeats: int, network: BinarisedPerceptron, key: PRNGKeyArray) -> Array:
    """Share of wrong answers of the majority, drawn `repeats` times."""
    digits = jnp.argmax(task.test_targets, axis=-1)
    votes = [vote(network, task.test_inputs, shots, key=k) for k in jax.random.split(key, repeats)]
    return jnp.stack([jnp.mean(jnp.argmax(counts, axis=-1) != digits) for counts in votes])
