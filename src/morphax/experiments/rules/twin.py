"""How many presentations does a twin spare?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import PRNGKeyArray, PyTree

from morphax._lazy import xr
from morphax.experiments.judging.twin import OneDevice, hidden_chip, identified
from morphax.experiments.spintronic._network import PERCENT, NetworkConfig, accuracies
from morphax.experiments.spintronic.sequential_digits import ENTRIES, OURS
from morphax.experiments.training import Trainer
from morphax.lab.blocks import Blocks
from morphax.lab.experiment import Claim, Count, Experiment, Positive, parameter
from morphax.lab.figures import BLUE, GREEN, GREY, ORANGE, RED, VIOLET, Figures, new_figure
from morphax.lab.progress import Progress, along
from morphax.learning.backprop import Backpropagation
from morphax.learning.ensemble import map_members, member_keys
from morphax.learning.evolution import CMAES
from morphax.learning.hardware import InTheLoop
from morphax.learning.history import History
from morphax.learning.node_perturbation import NodePerturbation
from morphax.learning.rule import Data, LearningRule
from morphax.learning.train import adjustable
from morphax.learning.zeroth_order import ZerothOrder
from morphax.substrates.wrappers import WithReadout

SPSA, NODE, EVOLUTION = RULES = ("SPSA", "node perturbation", "CMA-ES")
COLOURS = dict(zip(RULES, (RED, ORANGE, GREEN), strict=True))


def uploaded(dataset: xr.Dataset) -> float:
    """Presentations for the twin over those of the best rule without gradient, until the accuracy of the upload."""
    return float(dataset.upload_share.isel(sequences=-1))


def in_the_loop(dataset: xr.Dataset) -> float:
    """The same after the loop."""
    return float(dataset.loop_share.isel(sequences=-1))


class Twin(Experiment):
    """Ours: a chip is trained through a twin that was identified on it, or by rules that need no gradient.

    The hidden chip of `judging/twin`: every weight and every device constant differs from the design by a log-normal
    factor. For the twin the chip is shown some random sequences, and its states are read after every input, with noise;
    the weights of the design are trained further on the twin, which presents nothing, and uploaded. Then the chip is in
    the loop: it answers, the twin back-propagates. Rules without gradient ask for losses of images, at weights or
    neurons that are disturbed, and begin with the uploaded weights of the design. What they change is effective
    weights: the factors over uploaded ones, which they do not know, are divided out by Adam, and spare CMA-ES an uneven
    start. A sequence or image shown is a presentation; looks at validation and test images are not counted, for nobody.
    Rates (of CMA-ES: first spreads) are chosen at every look by the mean accuracy on held-out images on the chips. For
    an accuracy a rule without gradient needs more than what it had been shown at the last look before it got there, the
    best of them counts, and one that never gets there needs more than its budget: what the twin needs is compared with
    that.
    """

    class Config(NetworkConfig):
        seeds: int = parameter(10, "networks, each with a chip of its own", ge=1, extent=True)
        spread: float = parameter(0.2, "relative spread of chips", gt=0)
        sequences: tuple[Count, ...] = parameter(
            (5, 20, 60), "random sequences of 64 inputs that are recorded for a twin", min_length=1
        )
        noise: float = parameter(0.01, "noise of what is read, of its deviation", gt=0)
        epochs: int = parameter(60, "passes over the training images on the design", ge=1)
        twin_epochs: int = parameter(20, "further ones on the twin", ge=1)
        loop_epochs: int = parameter(5, "passes in the loop", ge=1)
        loop_rates: tuple[Positive, ...] = parameter(
            (0.003, 0.01, 0.03), "steps of Adam tried in the loop", min_length=1
        )
        budget: Count = parameter(50_000, "presentations of rules without gradient")
        looks: int = parameter(20, "at validation and test images meanwhile", ge=1, le=1000)
        rates: tuple[Positive, ...] = parameter((0.01, 0.03, 0.1), "steps of Adam tried without gradient", min_length=1)
        disturbance: float = parameter(0.01, "by which weights, or what reaches a neuron, are disturbed", gt=0)
        population: int = parameter(28, "candidates of CMA-ES", ge=4, le=1000)
        spreads: tuple[Positive, ...] = parameter((0.03, 0.1, 0.3), "first spreads of CMA-ES tried", min_length=1)

    name = "rules/twin"
    quick = {
        "seeds": 1,
        "sequences": (20,),
        "epochs": 4,
        "twin_epochs": 4,
        "loop_epochs": 2,
        "loop_rates": (0.03,),
        "budget": 12_000,
        "looks": 3,
        "rates": (0.01,),
        "spreads": (0.03,),
        "layers": (16, 16),
    }
    claims = (
        Claim.at_most(
            "trained on the twin, uploaded: presentations over those of the best rule without gradient",
            0.1,
            uploaded,
            source="ours; for the same accuracy",
        ),
        Claim.at_most(
            "then through the twin in the loop: presentations over those of the best rule without gradient",
            0.1,
            in_the_loop,
            source="ours; for the same accuracy",
        ),
        Claim.reported(
            "trained on the design, uploaded (%)", lambda d: d.design_accuracy.mean(), source="ours; no presentations"
        ),
        Claim.reported(
            "the same, with weights that become effective by the twin (%)",
            lambda d: d.known_accuracy.isel(sequences=-1).mean(),
            source="ours; as many presentations as sequences were recorded",
        ),
        Claim.reported(
            "trained on the twin, uploaded (%)",
            lambda d: d.upload_accuracy.isel(sequences=-1).mean(),
            source="ours; as many presentations as sequences were recorded",
        ),
        Claim.reported(
            "then through the twin in the loop (%)",
            lambda d: d.loop_accuracy.isel(sequences=-1, epoch=-1).mean(),
            source="ours; after all passes",
        ),
        *(
            Claim.reported(
                f"{rule} (%)",
                lambda d, rule=rule: d.free_accuracy.sel(rule=rule).isel(look=-1).mean(),
                source="ours; after the whole budget",
            )
            for rule in RULES
        ),
    )

    def run(self, config: Config, *, key: PRNGKeyArray, progress: Progress) -> xr.Dataset:
        data_key, held_key, make_key, train_key, chip_key = jax.random.split(key, 5)
        task = config.task(data_key)
        held = config.held_out(task, held_key)
        lab = _Laboratory(
            config=config.but(**ENTRIES[OURS].changes),
            train=held.train,
            watch={"validation": held.validation, "test": (task.test_inputs, task.test_targets)},
            make_key=make_key,
            chip_key=chip_key,
            trainer=Trainer(train_key, progress),
        )
        return _compared(Blocks("seed", config.seeds).carry_out(progress, lab.trained_in_all_ways))

    def figures(self, dataset: xr.Dataset) -> Figures:
        figure = new_figure(7.5, 4.5)
        axes = figure.subplots()
        for rule in dataset.rule.values:
            course = dataset.free_accuracy.sel(rule=rule).mean("seed")
            axes.plot(dataset.free_presentations.sel(rule=rule), course, color=COLOURS[rule], label=rule)
        colours = (VIOLET, GREY, BLUE)
        for place in range(dataset.sizes["sequences"]):
            part = dataset.isel(sequences=place)
            colour, count = colours[place % len(colours)], int(part.sequences)
            axes.plot(count, part.upload_accuracy.mean("seed"), "o", color=colour, markersize=7)
            shown = np.concatenate([[count], part.loop_presentations])
            reached = np.concatenate([[part.upload_accuracy.mean()], part.loop_accuracy.mean("seed")])
            axes.plot(shown, reached, ".-", color=colour, label=f"twin of {count} sequences, then in the loop")
        axes.axhline(float(dataset.model_accuracy.mean()), color="black", linestyle=":", label="design, no chip")
        axes.axhline(float(dataset.design_accuracy.mean()), color="black", linewidth=0.8, label="design, uploaded")
        axes.set(xscale="log", xlabel="presentations", ylabel="test accuracy on the chip (%)", ylim=(0, 100))
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize="small")
        return {"twin": figure}


@dataclass(frozen=True, kw_only=True)
class _Laboratory:
    """Trains designs, hides chips, finds their twins, and trains chips in all ways."""

    config: Twin.Config
    train: Data
    watch: dict[str, Data]
    make_key: PRNGKeyArray
    chip_key: PRNGKeyArray
    trainer: Trainer

    def trained_in_all_ways(self, seeds: range) -> xr.Dataset:
        """Accuracies on the chips of some networks."""
        config = self.config
        designs = self.on_model("design", config.networks("spintronic", self.make_key, seeds), config, seeds)
        keys = member_keys(self.chip_key, seeds)
        chips = eqx.filter_vmap(partial(hidden_chip, config.spread))(designs, keys)
        twins = {count: self.twinned(count, designs, keys, seeds) for count in config.sequences}
        free = {rule: self.without(rule, chips, seeds) for rule in RULES}
        model, design = self.judged(designs, seeds), self.judged(chips, seeds)
        alone = {"model_accuracy": model.test, "design_accuracy": design.test}
        whole = [xr.Dataset(alone), along("sequences", twins, {"units": "1"}), along("rule", free, join="outer")]
        return xr.merge(whole, join="exact")

    def on_model(self, label: str, networks: WithReadout, config: Twin.Config, seeds: range) -> WithReadout:
        """Networks after training by back-propagation, which asks no chip."""
        numbers = config.training(self.train)
        return self.trainer.train(label, networks, Backpropagation(), self.train, ensemble=seeds, **numbers).last

    def judged(self, networks: PyTree, seeds: range) -> xr.Dataset:
        """Accuracies in per cent, as they are."""
        found = {name: ("seed", 100 * accuracies(networks, data), PERCENT) for name, data in self.watch.items()}
        return xr.Dataset(found, {"seed": list(seeds)})

    def twinned(self, count: int, designs: WithReadout, keys: PRNGKeyArray, seeds: range) -> xr.Dataset:
        """Chips with the weights that their twins ask for, with those trained on twins, and on the way in the loop."""
        config = self.config
        length = self.train[0].shape[1]
        found = eqx.Partial(identified, jnp.asarray(config.spread), jnp.asarray(config.noise), count, length)
        twins, _, factors, _ = map_members(found, designs, keys)
        device = OneDevice(factors=factors)
        known = self.uploaded(twins, device, keys, seeds)
        label = f"twin of {count} sequences"
        twins = self.on_model(label, twins, config.but(epochs=config.twin_epochs), seeds)
        trained = self.uploaded(twins, device, keys, seeds)
        rule, tuning = InTheLoop(Backpropagation(), device, keys), config.but(epochs=config.loop_epochs)
        courses = {}
        for rate in config.loop_rates:
            numbers = tuning.but(learning_rate=rate, schedule="cosine").training(self.train)
            done = self.trainer.train(
                f"{label}, in the loop, rate {rate:g}",
                twins,
                rule,
                self.train,
                ensemble=seeds,
                watch=self.watch,
                **numbers,
            )
            courses[rate] = _course(done.history, "epoch", 1 + np.arange(config.loop_epochs), seeds)
        steps = len(self.train[0]) // config.batch_size
        shown = rule.cost(config.batch_size).presentations * steps * (1 + np.arange(config.loop_epochs))
        loop = along("loop_rate", courses, {"units": "1"}).rename(validation="loop_validation", test="loop_test")
        loop = loop.assign(loop_presentations=("epoch", count + shown, {"units": "1"}))
        return xr.merge([known.rename("known_accuracy"), trained.rename("upload_accuracy"), loop], join="exact")

    def uploaded(self, models: WithReadout, device: OneDevice, keys: PRNGKeyArray, seeds: range) -> xr.DataArray:
        """Test accuracies of chips with the weights of their models."""
        return self.judged(eqx.filter_vmap(_device_of)(models, device, keys), seeds).test

    def without(self, name: str, chips: WithReadout, seeds: range) -> xr.Dataset:
        """Chips on the way by a rule without gradient, at every rate."""
        config, count = self.config, len(seeds)
        tried: tuple[float, ...] = config.spreads if name == EVOLUTION else config.rates
        disturbance = jnp.full(count, config.disturbance)
        rules: dict[str, Callable[[float], LearningRule]] = {
            SPSA: lambda _: ZerothOrder(Backpropagation(), spread=disturbance),
            NODE: lambda _: NodePerturbation(spread=disturbance),
            EVOLUTION: lambda first: CMAES(
                Backpropagation(), population=config.population, spread=jnp.full(count, first), separable=True
            ),
        }
        each = rules[name](tried[0]).cost(config.batch_size).presentations
        every = max(1, config.budget // config.looks // each)
        looks = np.arange(1, 1 + config.looks)
        courses = {}
        for trial, rate in enumerate(tried):
            done = self.trainer.train(
                f"{name}, rate {rate:g}",
                chips,
                rules[name](rate),
                self.train,
                optimiser=optax.sgd(1.0) if name == EVOLUTION else adjustable(optax.adam, learning_rate=rate),
                steps=every * config.looks,
                batch_size=config.batch_size,
                watch=self.watch,
                ensemble=seeds,
                every=every,
            )
            courses[trial] = _course(done.history, "look", looks, seeds)
        found = along("trial", courses).rename(validation="free_validation", test="free_test")
        rates = ("trial", list(tried), {"units": "1", "long_name": "step of Adam, or first spread of CMA-ES"})
        return found.assign(free_rate=rates, free_presentations=("look", every * each * looks, {"units": "1"}))


def _course(history: History, dim: str, places: np.ndarray, seeds: range) -> xr.Dataset:
    """Accuracies at the looks at watched images."""
    variables = {
        name: ((dim, "seed"), 100 * history.watched(name)["accuracy"], PERCENT) for name in ("validation", "test")
    }
    return xr.Dataset(variables, {dim: places, "seed": list(seeds)})


def _compared(dataset: xr.Dataset) -> xr.Dataset:
    """With what the best rates reach, and what a twin needs over what the best rule without gradient needs."""
    loop = dataset.loop_validation.isel(epoch=-1, drop=True).mean("seed").argmax("loop_rate")
    free = dataset.free_validation.mean("seed").fillna(-1.0).argmax("trial")
    about = {"units": "%", "long_name": "test accuracy on the chip"}
    dataset = dataset.assign(
        loop_accuracy=dataset.loop_test.isel(loop_rate=loop).drop_vars("loop_rate").assign_attrs(about),
        free_accuracy=dataset.free_test.isel(trial=free).drop_vars("trial").assign_attrs(about),
    )
    for name in ("free_validation", "free_test", "free_rate"):
        dataset[name].attrs["may_be_missing"] = 1  # where fewer rates are tried
    meaning = {"units": "1", "long_name": "presentations over those of the best rule without gradient, at most"}
    last = dataset.loop_presentations.isel(epoch=-1, drop=True)
    upload = dataset.sequences / _needed(dataset, dataset.upload_accuracy.mean("seed"))
    looped = last / _needed(dataset, dataset.loop_accuracy.isel(epoch=-1, drop=True).mean("seed"))
    return dataset.assign(upload_share=upload.assign_attrs(meaning), loop_share=looped.assign_attrs(meaning))


def _needed(dataset: xr.Dataset, accuracy: xr.DataArray) -> xr.DataArray:
    """Presentations of the best rule without gradient at the last look before it has an accuracy; 0 at the first."""
    mean = dataset.free_accuracy.mean("seed")
    before = mean.cumulative("look").max() < accuracy
    return dataset.free_presentations.where(before, 0).max("look").min("rule")


def _device_of(model: WithReadout, device: OneDevice, key: PRNGKeyArray) -> WithReadout:
    return device.device(model, key=key)
