"""How many presentations does learning take, over the number of weights?"""

from __future__ import annotations

import itertools
from functools import partial
from typing import Annotated, Any, Self

import jax
import numpy as np
import optax
from jaxtyping import PRNGKeyArray
from pydantic import Field, model_validator

from morphax._lazy import xr
from morphax.experiments.rules._digits import (
    BACKPROPAGATION,
    CLASSES,
    COLOURS,
    NODE,
    PIXELS,
    SPSA,
    DigitsConfig,
    Images,
    make_rules,
)
from morphax.experiments.training import Trainer
from morphax.lab.blocks import Blocks
from morphax.lab.experiment import Claim, Count, Experiment, Positive, parameter
from morphax.lab.figures import Figures, new_figure
from morphax.lab.progress import Progress, along
from morphax.learning.ensemble import make_members
from morphax.learning.train import adjustable
from morphax.substrates.layered import OscillatorLayers

RULES = (BACKPROPAGATION, NODE, SPSA)
Hidden = Annotated[tuple[Annotated[int, Field(ge=1, le=10_000)], ...], Field(min_length=1)]
Rates = Annotated[tuple[Positive, ...], Field(min_length=1)]


def weights_of(hidden: tuple[int, ...]) -> int:
    """Weights and biases of layers with so many oscillators, between pixels and classes."""
    sizes = (PIXELS, *hidden, CLASSES)
    return sum((below + 1) * above for below, above in itertools.pairwise(sizes))


def ratio(weights: int) -> Any:
    """Mean presentations with SPSA over those with node perturbation; 0 where a network never got there with these."""

    def of(dataset: xr.Dataset) -> float:
        part = dataset.sel(weights=weights)
        slow, fast = part.sel(rule=SPSA), part.sel(rule=NODE)
        return float(fast.reached.all() * slow.presentations.mean() / fast.presentations.mean())

    return of


def share(weights: int) -> Any:
    """Of networks that SPSA brought to the target."""
    return lambda d: float(d.reached.sel(rule=SPSA, weights=weights).mean())


class Scaling(Experiment):
    """Ours: presentations until nine of ten digits are right, for oscillator layers from few weights to many.

    With weights disturbed at once (SPSA), with what reaches the neurons disturbed, and with back-propagation, for which
    an image that is learned from counts as one presentation. Counted is until the test accuracy is reached for the
    first time; a network that has not reached it within the rule's largest budget counts as that, so that of SPSA it is
    a lower bound. The rate is the one with the fewest presentations, mean over seeds, until the same accuracy on
    validation images. Layers with fewer weights than the smallest here do not get so far reliably by any rule.
    """

    class Config(DigitsConfig):
        hidden: tuple[Hidden, ...] = parameter(
            ((6,), (16,), (48, 48), (128, 128)), "oscillators in the layers of each device", min_length=1, extent=True
        )
        target: float = parameter(0.9, "accuracy", gt=0, lt=1)
        looks: int = parameter(100, "at watched images in a training", ge=1)
        backpropagation_budget: Count = parameter(40_000, "largest budget of back-propagation")
        node_budget: Count = parameter(300_000, "largest budget of node perturbation")
        spsa_budget: Count = parameter(1_000_000, "largest budget of SPSA")
        backpropagation_rates: Rates = parameter((0.012, 0.024, 0.048), "learning rates tried with back-propagation")
        node_rates: Rates = parameter((0.006, 0.012, 0.024), "learning rates tried with node perturbation")
        spsa_rates: Rates = parameter((0.0015, 0.003, 0.006, 0.012), "learning rates tried with SPSA")

        @model_validator(mode="after")
        def _devices_differ(self) -> Self:
            numbers = [weights_of(hidden) for hidden in self.hidden]
            if len(set(numbers)) < len(numbers):
                raise ValueError(f"hidden is {self.hidden}, with {numbers} weights; no two devices may have as many")
            return self

        @model_validator(mode="after")
        def _budgets_cover_the_looks(self) -> Self:
            for rule, (budget, _) in self.trials().items():
                if self.steps(rule, budget, budget) < self.looks:
                    raise ValueError(f"looks is {self.looks}; {budget} presentations of {rule} are fewer steps")
            return self

        def trials(self) -> dict[str, tuple[int, tuple[float, ...]]]:
            """The largest budget of each rule, and the rates."""
            return {
                BACKPROPAGATION: (self.backpropagation_budget, self.backpropagation_rates),
                NODE: (self.node_budget, self.node_rates),
                SPSA: (self.spsa_budget, self.spsa_rates),
            }

    name = "rules/scaling"
    quick = {
        "seeds": 1,
        "hidden": ((16,),),
        "looks": 30,
        "node_budget": 60_000,
        "spsa_budget": 200_000,
        "backpropagation_rates": (0.024,),
        "node_rates": (0.012,),
        "spsa_rates": (0.006, 0.012),
    }
    claims = (
        *(
            Claim.at_least(
                f"{weights_of(hidden):,} weights: presentations with SPSA over those with node perturbation",
                4.0,
                ratio(weights_of(hidden)),
                source="ours; ratio of means over networks",
            )
            for hidden in Config.model_fields["hidden"].default
        ),
        *(
            Claim.reported(
                f"{weights_of(hidden):,} weights: networks that SPSA brought to the target within its budget, share",
                share(weights_of(hidden)),
                source="ours",
            )
            for hidden in Config.model_fields["hidden"].default
        ),
    )

    def run(self, config: Config, *, key: PRNGKeyArray, progress: Progress) -> xr.Dataset:
        image_key, make_key, train_key = jax.random.split(key, 3)
        images, trainer = config.images(image_key).shaped(PIXELS), Trainer(train_key, progress)
        work = {
            f"{rule}, {weights_of(hidden)} weights": partial(_counted, config, images, make_key, trainer, rule, hidden)
            for hidden in config.hidden
            for rule in RULES
        }
        seeds = Blocks("seed", config.seeds, size=5)
        parts = seeds.join(progress.pieces(seeds.split(work)))
        sizes = [weights_of(hidden) for hidden in config.hidden]
        options: dict[str, Any] = {"join": "outer", "data_vars": "all"}
        rules = {rule: along("weights", {n: parts[f"{rule}, {n} weights"] for n in sizes}, **options) for rule in RULES}
        tried = along("rule", rules, **options)
        # A rate that was not tried takes forever.
        means = tried.validated.mean("seed").fillna(np.inf)
        picked = tried.isel(learning_rate=means.argmin("learning_rate"))
        rate, picked = picked.learning_rate.drop_vars("learning_rate"), picked.drop_vars("learning_rate")
        dataset = xr.Dataset(
            {
                "validated": tried.validated,
                "presentations": picked.tested,
                "reached": picked.reached,
                "accuracy": picked.stopped,
                "rate": rate,
                "budget": tried.budget.isel(weights=0, drop=True),
            }
        )
        texts = {
            "validated": "presentations until the target on validation images",
            "presentations": "presentations until the target on test images",
            "reached": "whether it was reached within the budget",
            "accuracy": "test accuracy when the target was reached on validation images",
            "rate": "learning rate with the fewest presentations on validation images",
            "budget": "largest budget",
        }
        for name, text in texts.items():
            dataset[name].attrs = {"units": "%" if name == "accuracy" else "1", "long_name": text, "may_be_missing": 1}
        dataset.weights.attrs = {"units": "1", "long_name": "weights and biases"}
        return dataset.assign_attrs(target=config.target)

    def tables(self, dataset: xr.Dataset) -> dict[str, list[dict[str, str]]]:
        rows = []
        for weights in dataset.weights.values:
            for rule in dataset.rule.values:
                part = dataset.sel(weights=weights, rule=rule)
                rows.append(
                    {
                        "weights": f"{weights:,}",
                        "rule": str(rule),
                        "learning rate": f"{float(part.rate):g}",
                        "presentations, mean": f"{float(part.presentations.mean()):,.0f}",
                        "standard deviation": f"{float(part.presentations.std()):,.0f}",
                        "networks that got there": f"{int(part.reached.sum())} of {part.seed.size}",
                    }
                )
        return {f"Presentations until {dataset.attrs['target']:.0%} of test images are right": rows}

    def figures(self, dataset: xr.Dataset) -> Figures:
        figure = new_figure(9.5, 3.9)
        counts, ratios = figure.subplots(1, 2)
        for rule in dataset.rule.values:
            part = dataset.sel(rule=rule)
            mean, style = part.presentations.mean("seed"), {"color": COLOURS[rule], "capsize": 2}
            counts.errorbar(dataset.weights, mean, part.presentations.std("seed"), fmt="o-", label=rule, **style)
            some = ~part.reached.astype(bool).all("seed")
            if some.any():
                marks = {"marker": "^", "s": 70, "facecolors": "none", "edgecolors": COLOURS[rule]}
                counts.scatter(dataset.weights[some], mean[some], **marks, label=f"{rule}: lower bound")
        slow, fast = (dataset.sel(rule=rule) for rule in (SPSA, NODE))
        # Of two lower bounds there is no ratio.
        ratio = (slow.presentations.mean("seed") / fast.presentations.mean("seed")).where(fast.reached.all("seed"))
        ratios.plot(dataset.weights, ratio, "o-", color=COLOURS[SPSA])
        ratios.axhline(4, color="black", linewidth=0.8, linestyle=":")
        label = f"presentations to {dataset.attrs['target']:.0%}"
        counts.set(xscale="log", yscale="log", xlabel="weights", ylabel=label)
        ratios.set(xscale="log", yscale="log", xlim=counts.get_xlim(), xlabel="weights", ylabel=f"{SPSA} / {NODE}")
        counts.legend(fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
        return {"scaling": figure}


def _counted(
    config: Scaling.Config,
    images: Images,
    make_key: PRNGKeyArray,
    trainer: Trainer,
    name: str,
    hidden: tuple[int, ...],
    seeds: range,
) -> xr.Dataset:
    """Presentations of a rule with each of its rates, for some networks of a size."""
    budget, rates = config.trials()[name]
    rule, each = make_rules(name, make_key, seeds), config.presentations(name)
    networks = make_members(lambda key: OscillatorLayers.random((PIXELS, *hidden, CLASSES), key=key), make_key, seeds)
    every = config.steps(name, budget, budget) // config.looks
    found: dict[str, list[np.ndarray]] = {"validated": [], "tested": [], "reached": [], "stopped": []}
    for rate in rates:
        history = trainer.train(
            f"{name}, {weights_of(hidden)} weights, rate {rate:g}",
            networks,
            rule,
            images.train,
            optimiser=adjustable(optax.adam, learning_rate=rate),
            steps=every * config.looks,
            batch_size=config.batch_size,
            watch=images.watched,
            ensemble=seeds,
            every=every,
        ).history
        validation, test = (history.watched(part)["accuracy"] for part in ("validation", "test"))
        shown = history.steps * each
        (first, validated), (then, reached) = _first(validation, config.target), _first(test, config.target)
        found["validated"].append(np.where(validated, shown[first], budget))
        found["tested"].append(np.where(reached, shown[then], budget))
        found["reached"].append(reached)
        found["stopped"].append(100 * np.where(validated, np.take_along_axis(test, first[None], 0)[0], test[-1]))
    variables = {variable: (("learning_rate", "seed"), np.array(rows, float)) for variable, rows in found.items()}
    return xr.Dataset(variables | {"budget": budget}, {"learning_rate": list(rates), "seed": list(seeds)})


def _first(accuracy: np.ndarray, target: float) -> tuple[np.ndarray, np.ndarray]:
    """The first look, of (looks, networks), at which each network has the accuracy; and whether it ever has."""
    there = accuracy >= target
    return np.argmax(there, axis=0), np.any(there, axis=0, keepdims=True)[0]
