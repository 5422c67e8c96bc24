"""What do devices reach that come to rest, or whose time can be reversed?"""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Literal, get_args

import jax
import numpy as np
import optax
from jaxtyping import PRNGKeyArray
from pydantic import Field

from morphax._lazy import xr
from morphax.experiments.rules._digits import CLASSES, PIXELS, ROWS, DigitsConfig, Images, chosen
from morphax.experiments.training import Trainer
from morphax.lab.blocks import Blocks
from morphax.lab.experiment import Claim, Count, Experiment, Positive, parameter
from morphax.lab.figures import BLUE, GREEN, GREY, ORANGE, RED, Figures, new_figure
from morphax.lab.progress import Progress, along
from morphax.learning.backprop import Backpropagation
from morphax.learning.contrastive import CoupledLearning
from morphax.learning.echo import HamiltonianEcho
from morphax.learning.ensemble import make_members
from morphax.learning.equilibrium import EquilibriumPropagation, ImplicitDifferentiation
from morphax.learning.rule import Asked, LearningRule
from morphax.learning.train import adjustable
from morphax.learning.zeroth_order import ZerothOrder
from morphax.substrates.hopfield import HopfieldNetwork
from morphax.substrates.reversible import NonlinearLattice
from morphax.substrates.topology import Topology
from morphax.substrates.wrappers import WithReadout

ENERGY, REVERSAL = SYSTEMS = "energy", "reversal"
RULES: dict[str, dict[str, LearningRule]] = {
    ENERGY: {
        "implicit": ImplicitDifferentiation(),
        "one-sided": EquilibriumPropagation(strength=0.5),
        "symmetric": EquilibriumPropagation(strength=0.2, nudging="symmetric"),
        "four-point": EquilibriumPropagation(strength=0.2, nudging="four-point"),
        "coupled": CoupledLearning(amount=0.2, nudging="symmetric"),
    },
    REVERSAL: {
        "back-propagation": Backpropagation(),
        "echo": HamiltonianEcho(),
        "SPSA": ZerothOrder(Backpropagation()),
    },
}
EnergyRule = Literal["implicit", "one-sided", "symmetric", "four-point", "coupled"]
ReversalRule = Literal["back-propagation", "echo", "SPSA"]
COLOURS = (GREY, BLUE, ORANGE, RED, GREEN)
Rates = Annotated[tuple[Positive, ...], Field(min_length=1)]


def mean(system: str, rule: str) -> Any:
    """Test accuracy, mean over seeds."""
    return lambda d: float(d.accuracy.sel(system=system, rule=rule).mean())


class Which(Experiment):
    """Ours: a network with an energy, and a lattice whose time can be reversed, learn digits by what only they allow.

    As many presentations as `rules/layered` gives to layers at its second budget; with its results this is the table of
    what a device offers and which rule is best. The Hopfield network sees an image at once, the lattice row by row,
    held at the masses of its first column, and a readout behind it learns, too. Exact gradients (implicit, through a
    model) show what a rule loses, or gains, that estimates them. Rates are chosen by the mean accuracy
    on validation images; accuracies are those of the last weights.
    """

    class Config(DigitsConfig):
        energy_rules: tuple[EnergyRule, ...] = parameter(
            get_args(EnergyRule), "for the network with an energy", min_length=1, extent=True
        )
        reversal_rules: tuple[ReversalRule, ...] = parameter(
            get_args(ReversalRule), "for the lattice", min_length=1, extent=True
        )
        budget: Count = parameter(100_000, "presentations; who asks a model only learns from as many images")
        rates: Rates = parameter((0.003, 0.01, 0.03), "learning rates tried with the network with an energy")
        reversal_rates: Rates = parameter((0.01, 0.03, 0.1), "learning rates tried with the lattice")
        hidden: int = parameter(32, "hidden neurons of the network with an energy", ge=1, le=1000)
        columns: int = parameter(6, "columns of the lattice, of 8 masses each", ge=3, le=30)
        duration: float = parameter(2.0, "for which the lattice is shown a row", gt=0)

        @property
        def rules(self) -> dict[str, tuple[str, ...]]:
            """Those of each system."""
            return {ENERGY: self.energy_rules, REVERSAL: self.reversal_rules}

    name = "rules/which"
    quick = {
        "seeds": 1,
        "energy_rules": ("symmetric",),
        "reversal_rules": ("echo",),
        "budget": 2_000,
        "rates": (0.01,),
        "reversal_rates": (0.03,),
        "hidden": 8,
        "columns": 3,
    }
    claims = tuple(
        Claim.reported(f"{system}: {rule} (%)", mean(system, rule), source="ours")
        for system in SYSTEMS
        for rule in RULES[system]
    )

    def run(self, config: Config, *, key: PRNGKeyArray, progress: Progress) -> xr.Dataset:
        image_key, make_key, train_key = jax.random.split(key, 3)
        images, trainer = config.images(image_key), Trainer(train_key, progress)
        work = {
            f"{system}, {rule}": partial(_tried, config, images, system, rule, make_key, trainer)
            for system in SYSTEMS
            for rule in config.rules[system]
        }
        seeds = Blocks("seed", config.seeds, size=5)
        parts = seeds.join(progress.pieces(seeds.split(work)))
        systems = {}
        for system, rules in config.rules.items():
            made = [RULES[system][rule] for rule in rules]
            asked = [np.array(rule.cost(config.batch_size)) * _steps(config, rule) for rule in made]
            counts = {name: ("rule", column) for name, column in zip(Asked._fields, np.transpose(asked), strict=True)}
            accuracies = {rule: chosen(parts[f"{system}, {rule}"]) for rule in rules}
            systems[system] = along("rule", accuracies).assign(counts)
        dataset = along("system", systems, join="outer")
        for name, variable in dataset.data_vars.items():
            percent = str(name).endswith(("validation", "test", "accuracy"))
            variable.attrs = {"units": "%" if percent else "1", "may_be_missing": 1}
        return dataset

    def figures(self, dataset: xr.Dataset) -> Figures:
        figure = new_figure(9, 3.6)
        for axes, system in zip(figure.subplots(1, 2, sharey=True), SYSTEMS, strict=True):
            present = dataset.accuracy.sel(system=system).dropna("rule", how="all").rule.values
            rules = [rule for rule in RULES[system] if rule in present]
            values = dataset.accuracy.sel(system=system, rule=rules)
            axes.bar(rules, values.mean("seed"), yerr=values.std("seed"), color=COLOURS[: len(rules)])
            axes.set(title=system, ylabel="test accuracy (%)" if system == ENERGY else "", ylim=(0, 100))
        return {"which": figure}


def _steps(config: Which.Config, rule: LearningRule) -> int:
    return max(1, config.budget // (rule.cost(config.batch_size).presentations or config.batch_size))


def _made(config: Which.Config, system: str, key: PRNGKeyArray) -> Any:
    if system == ENERGY:
        return HopfieldNetwork.random((PIXELS, config.hidden, CLASSES), key=key)
    first, second = jax.random.split(key)
    rows = [row * config.columns for row in range(ROWS)]
    last = [row + config.columns - 1 for row in rows]
    topology = Topology.lattice((ROWS, config.columns), inputs=rows, outputs=last)
    lattice = NonlinearLattice.random(topology, duration=config.duration, time_step=0.1, key=first)
    return WithReadout.random(lattice, CLASSES, key=second)


def _tried(
    config: Which.Config,
    images: Images,
    system: str,
    name: str,
    key: PRNGKeyArray,
    trainer: Trainer,
    seeds: range,
) -> xr.Dataset:
    """Accuracies with every rate."""
    images = images.shaped(*((PIXELS,) if system == ENERGY else (ROWS, PIXELS // ROWS)))
    rule = RULES[system][name].suited("classification")
    steps, found = _steps(config, rule), []
    rates = config.rates if system == ENERGY else config.reversal_rates
    for rate in rates:
        done = trainer.train(
            f"{system}, {name}, rate {rate:g}",
            make_members(partial(_made, config, system), key, seeds),
            make_members(lambda _: rule, key, seeds),
            images.train,
            optimiser=adjustable(optax.adam, learning_rate=rate),
            steps=steps,
            batch_size=config.batch_size,
            watch=images.watched,
            ensemble=seeds,
            every=-(-steps // 5),
        )
        found.append([done.history[-1][part]["accuracy"] for part in ("validation", "test")])
    both, dims = 100 * np.moveaxis(np.array(found), 1, 0), ("learning_rate", "seed")
    return xr.Dataset(
        {"validation": (dims, both[0]), "test": (dims, both[1])},
        {"learning_rate": list(rates), "seed": list(seeds)},
    )
