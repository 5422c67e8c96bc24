"""Which rule trains layers best for as many presentations, and on a chip that is not the model?"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from functools import partial
from typing import Annotated, Any, Literal, Self, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PRNGKeyArray
from pydantic import Field, model_validator

from morphax._lazy import xr
from morphax.experiments.rules._digits import (
    AUGMENTED,
    BACKPROPAGATION,
    CLASSES,
    COLOURS,
    DIRECT,
    FORWARD,
    HEADS,
    LABELLED,
    LOCAL,
    LOOP,
    NODE,
    PIXELS,
    RANDOM_TRACES,
    ROWS,
    SPSA,
    TRACES,
    DigitsConfig,
    Images,
    chosen,
    make_rules,
)
from morphax.experiments.rules._panels import over_budgets, over_chips, over_rates, tables
from morphax.experiments.training import Trainer
from morphax.lab.blocks import Blocks
from morphax.lab.experiment import Claim, Count, Experiment, NonNegative, Positive, parameter
from morphax.lab.figures import Figures
from morphax.lab.progress import Progress, along
from morphax.learning.backprop import Backpropagation
from morphax.learning.ensemble import make_members, map_members, member_keys
from morphax.learning.hardware import InTheLoop
from morphax.learning.rule import Data
from morphax.learning.train import adjustable
from morphax.substrates.imperfections import Imperfections
from morphax.substrates.layered import OscillatorLayers
from morphax.substrates.spintronic import AutoOscillatorState, SpintronicNetwork
from morphax.substrates.wrappers import WithReadout
from morphax.units import ns

OSCILLATORS, SPINTRONIC = SYSTEMS = "oscillator layers", "spintronic network"
OscillatorRule = Literal[
    "back-propagation",
    "in the loop",
    "SPSA",
    "node perturbation",
    "feedback alignment",
    "DFA",
    "augmented DFA",
    "local heads",
    "forward-forward",
    "physical local",
]
SpintronicRule = Literal["back-propagation", "in the loop", "SPSA", "node perturbation", "e-prop", "RFLO"]
UPDATED = (BACKPROPAGATION, DIRECT, AUGMENTED)
"""Rules that claims compare after equally many updates; each takes one presentation of an image."""
LOOKS = 10  # at watched images in a training
Rates = Annotated[tuple[Positive, ...], Field(min_length=1)]
SHAPES = {OSCILLATORS: (PIXELS,), SPINTRONIC: (ROWS, PIXELS // ROWS)}
LOCALS, TRACED = (HEADS, FORWARD, LOCAL), (TRACES, RANDOM_TRACES)
Neurons = Annotated[int, Field(ge=1, le=10_000)]


def mean(rule: str, budget: int, system: str = OSCILLATORS) -> Any:
    """Test accuracy, mean over seeds."""
    return lambda d: float(d.accuracy.sel(system=system, rule=rule, budget=budget).mean())


def on_chips(rule: str, budget: int, spread: float, system: str = OSCILLATORS) -> Any:
    """The same on chips."""
    return lambda d: float(d.chip_accuracy.sel(system=system, rule=rule, budget=budget, spread=spread).mean())


def updated(rule: str) -> Any:
    """The same of oscillator layers, of rules with equally many updates."""
    return lambda d: float(d.updated_accuracy.sel(rule=rule).mean())


def best_other(budget: int, spread: float) -> Any:
    """The best of all rules on chips but the one in the loop."""

    def best(dataset: xr.Dataset) -> float:
        part = dataset.chip_accuracy.sel(system=OSCILLATORS, budget=budget, spread=spread).drop_sel(rule=LOOP)
        return float(part.mean("seed").max())

    return best


class Layered(Experiment):
    """Ours: learning rules on the same layers and digits, given as many presentations, or updates.

    Of auto-oscillators in layers, and of a spintronic network that reads a digit row by row. A presentation is an image
    shown to the device for learning; back-propagation, through a model, learns from as many images. Then on chips
    whose device constants differ from the model's by log-normal factors that no rule knows: back-propagation is
    off-chip, other rules learn from what the chip answers, with slopes of the model where they need any. Rates are
    chosen for every rule at every budget by the mean accuracy on validation images, off-chip of the model. Accuracies
    are those of the last weights.
    """

    class Config(DigitsConfig):
        rules: tuple[OscillatorRule, ...] = parameter(
            get_args(OscillatorRule), "for oscillator layers", min_length=1, extent=True
        )
        spintronic_rules: tuple[SpintronicRule, ...] = parameter(
            get_args(SpintronicRule), "for the spintronic network", extent=True
        )
        layers: tuple[Neurons, ...] = parameter((48, 48), "oscillators in each layer", min_length=1)
        spintronic_layers: tuple[Neurons, ...] = parameter((24, 24), "neurons in each layer", min_length=1)
        interval: float = parameter(
            4.0, "time between two rows, one step of the integrator; neurons take 14 to relax", unit="ns", gt=0
        )
        budgets: tuple[Count, ...] = parameter(
            (10_000, 100_000, 1_000_000), "presentations, multiples of the first", min_length=1
        )
        local_up_to: Count = parameter(
            100_000, "largest budget of local rules, and of those with traces, whose steps take seven times as long"
        )
        rates: tuple[Rates, ...] = parameter(
            ((0.006, 0.012, 0.024, 0.048), (0.003, 0.006, 0.012, 0.024), (0.001, 0.002, 0.004)),
            "learning rates tried, of each budget",
        )
        spintronic_rates: tuple[Rates, ...] = parameter(
            ((0.1, 0.2, 0.4, 0.8), (0.05, 0.1, 0.2), (0.05, 0.1)), "of the spintronic network"
        )
        spreads: tuple[NonNegative, ...] = parameter(
            (0.0, 0.3, 0.6), "relative spreads of device constants", min_length=1
        )
        chips_up_to: Count = parameter(100_000, "largest budget on chips")
        traced_chips_up_to: Count = parameter(10_000, "the same of rules with traces")
        updates: int = parameter(200, "of rules that take one presentation of an image", ge=1)
        updates_rates: Rates = parameter((0.006, 0.012, 0.024, 0.048), "learning rates tried with so many")

        @model_validator(mode="after")
        def _budgets_fit(self) -> Self:
            least = self.budgets[0]
            if any(budget % least for budget in self.budgets) or least < 3 * self.batch_size:
                raise ValueError(
                    f"budgets is {self.budgets}; the first must cover a step, {3 * self.batch_size} presentations, and "
                    "the others be multiples of it"
                )
            for name in ("local_up_to", "chips_up_to", "traced_chips_up_to"):
                if getattr(self, name) < least:
                    raise ValueError(f"{name} is {getattr(self, name)}; it must be at least the first budget, {least}")
            for name in ("rates", "spintronic_rates"):
                if len(sets := getattr(self, name)) != len(self.budgets):
                    raise ValueError(f"{name} has {len(sets)} sets; it must have one for each of {self.budgets}")
            for name in ("rules", "spintronic_rules"):
                if LOOP in (rules := getattr(self, name)) and BACKPROPAGATION not in rules:
                    raise ValueError(
                        f"{name} is {rules}; what is in the loop is compared with {BACKPROPAGATION}: add it"
                    )
            return self

        def budgets_of(self, rule: str) -> list[int]:
            """On the model."""
            return [b for b in self.budgets if b <= self.local_up_to or rule not in (*LOCALS, *TRACED)]

        def chip_budgets_of(self, rule: str) -> list[int]:
            """On chips."""
            largest = self.traced_chips_up_to if rule in TRACED else self.chips_up_to
            return [budget for budget in self.budgets_of(rule) if budget <= largest]

        def steps_within(self, rule: str, budget: int) -> int:
            """That a budget covers."""
            return self.steps(rule, budget, self.budgets[0])

        def rules_of(self, system: str) -> tuple[str, ...]:
            """Those that are asked for."""
            return self.rules if system == OSCILLATORS else self.spintronic_rules

        def tried(self, system: str, budget: int) -> tuple[float, ...]:
            """The rates for a budget."""
            sets = self.rates if system == OSCILLATORS else self.spintronic_rates
            return sets[self.budgets.index(budget)]

    name = "rules/layered"
    quick = {
        "seeds": 1,
        "rules": (BACKPROPAGATION, SPSA, NODE, AUGMENTED),
        "spintronic_rules": (BACKPROPAGATION,),
        "budgets": (10_000,),
        "rates": ((0.012, 0.024),),
        "spintronic_rates": ((0.4,),),
        "spreads": (0.0, 0.6),
        "updates_rates": (0.024,),
    }
    claims = (
        Claim.at_least("1e5: node perturbation (%)", 94.0, mean(NODE, 100_000), source="ours"),
        Claim.at_least(
            "1e5: node perturbation above SPSA (%)",
            mean(SPSA, 100_000),
            mean(NODE, 100_000),
            source="same run; by 8 points",
            tolerance=-8.0,
        ),
        Claim.at_least(
            "1e6: node perturbation beside back-propagation (%)",
            mean(BACKPROPAGATION, 1_000_000),
            mean(NODE, 1_000_000),
            source="same run; within 1.5 points",
            tolerance=1.5,
        ),
        *(
            Claim.at_least(f"200 updates: {rule} (%)", 94.0, updated(rule), source="ours")
            for rule in (DIRECT, AUGMENTED)
        ),
        *(
            Claim.at_least(
                f"200 updates: {rule} beside back-propagation (%)",
                updated(BACKPROPAGATION),
                updated(rule),
                source="same run; within 3 points",
                tolerance=3.0,
            )
            for rule in (DIRECT, AUGMENTED)
        ),
        Claim.within(
            "200 updates: augmented DFA beside DFA (%)",
            updated(DIRECT),
            updated(AUGMENTED),
            source="same run; by less than a point",
            tolerance=1.0,
        ),
        *(
            Claim.at_least(
                f"{text}, spread 0.6: augmented DFA beside itself without mismatch (%)",
                on_chips(AUGMENTED, budget, 0.0),
                on_chips(AUGMENTED, budget, 0.6),
                source="same run; loses less than 2 points",
                tolerance=2.0,
            )
            for text, budget in (("1e4", 10_000), ("1e5", 100_000))
        ),
        *(
            Claim.at_least(
                f"{text}, spread 0.6: in the loop is the best rule (%)",
                best_other(budget, 0.6),
                on_chips(LOOP, budget, 0.6),
                source="same run; the best of all others",
            )
            for text, budget in (("1e4", 10_000), ("1e5", 100_000))
        ),
        *(
            Claim.reported(f"spintronic network, 1e5: {rule} (%)", mean(rule, 100_000, SPINTRONIC), source="ours")
            for rule in get_args(SpintronicRule)
            if rule != LOOP
        ),
        *(
            Claim.reported(
                f"spintronic network, 1e4, spread 0.6: {rule} (%)",
                on_chips(rule, 10_000, 0.6, SPINTRONIC),
                source="ours",
            )
            for rule in (BACKPROPAGATION, LOOP, TRACES)
        ),
    )

    def run(self, config: Config, *, key: PRNGKeyArray, progress: Progress) -> xr.Dataset:
        image_key, make_key, rule_key, device_key, train_key = jax.random.split(key, 5)
        lab = _Laboratory(
            config, config.images(image_key), make_key, rule_key, device_key, Trainer(train_key, progress)
        )
        spreads = [spread for spread in config.spreads if spread > 0]
        work: dict[str, Any] = {}
        for system in SYSTEMS:
            for rule in config.rules_of(system):
                # Without mismatch a device in the loop is the model.
                budgets = config.budgets_of(rule) if rule != LOOP else []
                points = [(b, 0.0) for b in budgets] + [(b, s) for b in config.chip_budgets_of(rule) for s in spreads]
                work |= {_label(system, rule, *at): partial(lab.within, system, rule, *at) for at in points}
        compared = [rule for rule in UPDATED if rule in config.rules]
        work |= {f"{rule}, {config.updates} updates": partial(lab.updated, rule) for rule in compared}
        seeds = Blocks("seed", config.seeds, size=5)
        parts = seeds.join(progress.pieces(seeds.split(work)))

        def of_rule(system: str, rule: str) -> xr.Dataset:
            model = BACKPROPAGATION if rule == LOOP else rule
            budgets = {b: parts[_label(system, model, b, 0.0)] for b in config.budgets_of(rule)}
            chips = {}
            for budget in config.chip_budgets_of(rule):
                found = {s: parts[_label(system, rule, budget, s)] for s in spreads} | {0.0: budgets[budget]}
                chips[budget] = _along("spread", {s: found[s] for s in config.spreads})
            steps, asked = np.array([config.steps_within(rule, b) for b in config.budgets]), config.asked(rule)
            counts = {name: ("budget", steps * number) for name, number in asked._asdict().items()}
            counted = xr.Dataset(counts, {"budget": list(config.budgets)})
            whole = [chosen(_along("budget", budgets)), chosen(_along("budget", chips), "chip_"), counted]
            return xr.merge(whole, join="outer")

        def of_system(system: str) -> xr.Dataset:
            return _along("rule", {rule: of_rule(system, rule) for rule in config.rules_of(system)})

        found = [_along("system", {system: of_system(system) for system in SYSTEMS if config.rules_of(system)})]
        if compared:
            after = _along("rule", {rule: parts[f"{rule}, {config.updates} updates"] for rule in compared})
            found.append(chosen(after, "updated_"))
        dataset = xr.merge(found, join="outer")
        # Joined coordinates come sorted; these have an order of their own.
        orders = {"system": SYSTEMS, "rule": tuple(COLOURS)}
        dataset = dataset.sel({dim: [name for name in names if name in dataset[dim]] for dim, names in orders.items()})
        for name, variable in dataset.data_vars.items():
            percent = str(name).endswith(("validation", "test", "accuracy"))
            # Not every rule fits both systems, nor was every rate tried of every budget.
            variable.attrs = {"units": "%" if percent else "1", "may_be_missing": 1}
        dataset.spread.attrs = {"units": "1", "long_name": "relative spread of device constants"}
        dataset.budget.attrs = {"units": "1", "long_name": "presentations"}
        return dataset.assign_attrs(updates=config.updates)

    def tables(self, dataset: xr.Dataset) -> dict[str, list[dict[str, str]]]:
        return tables(dataset)

    def figures(self, dataset: xr.Dataset) -> Figures:
        return {"budgets": over_budgets(dataset), "chips": over_chips(dataset), "rates": over_rates(dataset)}


@dataclass
class _Laboratory:
    """Trains networks by rules."""

    config: Layered.Config
    images: Images
    make_key: PRNGKeyArray
    rule_key: PRNGKeyArray
    device_key: PRNGKeyArray
    trainer: Trainer

    def within(self, system: str, name: str, budget: int, spread: float, seeds: range) -> xr.Dataset:
        """Accuracies with every rate, trained with so many presentations, on chips with so much mismatch."""
        config = self.config
        steps, least = (config.steps_within(name, b) for b in (budget, config.budgets[0]))
        every = least * max(1, steps // least // LOOKS)
        label = _label(system, name, budget, spread)
        return self._tried(label, system, name, config.tried(system, budget), steps, every, spread, seeds)

    def updated(self, name: str, seeds: range) -> xr.Dataset:
        """Accuracies with every rate after so many updates of oscillator layers."""
        config = self.config
        every = config.steps_within(name, config.budgets[0])
        label = f"{name}, {config.updates} updates"
        return self._tried(label, OSCILLATORS, name, config.updates_rates, config.updates, every, 0.0, seeds)

    def _tried(
        self,
        label: str,
        system: str,
        name: str,
        rates: Iterable[float],
        steps: int,
        every: int,
        spread: float,
        seeds: range,
    ) -> xr.Dataset:
        networks, images = self._networks(system, name, seeds), self.images.shaped(*SHAPES[system])
        keys = member_keys(self.device_key, seeds)
        if name == LOOP:
            rule = InTheLoop(Backpropagation(), Imperfections(device_mismatch=jnp.full(len(seeds), spread)), keys)
        else:
            rule = make_rules(name, self.rule_key, seeds)
        if spread > 0 and name not in (BACKPROPAGATION, LOOP):
            networks = eqx.filter_vmap(partial(_chip, spread, derivatives=name in TRACED))(networks, keys)
        found = []
        for rate in rates:
            done = self.trainer.train(
                f"{label}, rate {rate:g}",
                networks,
                rule,
                images.train,
                optimiser=adjustable(optax.adam, learning_rate=rate),
                steps=steps,
                batch_size=self.config.batch_size,
                watch=images.watched,
                ensemble=seeds,
                every=every,
            )
            validation, test = (done.history[-1][part]["accuracy"] for part in ("validation", "test"))
            if spread > 0 and name == BACKPROPAGATION:
                test = map_members(eqx.Partial(_judged, images.test, spread), done.last, keys)
            found.append((validation, test))
        both = 100 * np.moveaxis(np.array(found), 1, 0)
        dims = ("learning_rate", "seed")
        return xr.Dataset(
            {"validation": (dims, both[0]), "test": (dims, both[1])},
            {"learning_rate": list(rates), "seed": list(seeds)},
        )

    def _networks(self, system: str, name: str, seeds: range) -> Any:
        """Untrained."""
        config = self.config

        def layers(key: PRNGKeyArray) -> OscillatorLayers:
            label = CLASSES if name in LABELLED else 0
            return OscillatorLayers.random((PIXELS + label, *config.layers, CLASSES), key=key)

        def network(key: PRNGKeyArray) -> WithReadout:
            first, second = jax.random.split(key)
            inside = SpintronicNetwork.random(
                config.spintronic_layers, inputs=PIXELS // ROWS, interval=config.interval * ns, key=first
            )
            return WithReadout.random(inside, CLASSES, key=second)

        return make_members(layers if system == OSCILLATORS else network, self.make_key, seeds)


class Measured(SpintronicNetwork):
    """A chip whose neurons have the derivatives of the model's, along what they did.

    The amplification in its wiring is the chip's: it scales all that one neuron learns, which Adam divides out.
    """

    model: SpintronicNetwork

    def __init__(self, chip: Any, model: Any):
        for field in fields(chip):
            setattr(self, field.name, getattr(chip, field.name))
        # The weights are the chip's.
        self.model = eqx.tree_at(lambda m: m.connections, model, None)

    def held(
        self, state: AutoOscillatorState, current: Float[Array, " neurons"], duration: ArrayLike
    ) -> AutoOscillatorState:
        """The powers of the chip."""
        answered, modelled = super().held(state, current, duration), self.model.held(state, current, duration)
        return jax.tree.map(lambda a, m: m + jax.lax.stop_gradient(a - m), answered, modelled)


def _chip(spread: float, network: Any, key: PRNGKeyArray, derivatives: bool = False) -> Any:
    """A chip with the network's weights; where a rule asks for the neurons' derivatives, with those of the model."""
    chip = Imperfections(device_mismatch=spread).device(network, key=key)
    if not derivatives:
        return chip
    return eqx.tree_at(lambda n: n.substrate, chip, Measured(chip.substrate, network.substrate))


@eqx.filter_jit
def _judged(data: Data, spread: float, network: Any, key: PRNGKeyArray) -> Array:
    """Accuracy of a network that was trained as a model, on its chip."""
    return Backpropagation().metrics(_chip(spread, network, key), *data)["accuracy"]


def _along(dim: str, parts: dict[Any, xr.Dataset]) -> xr.Dataset:
    return along(dim, parts, join="outer", data_vars="all", coords="minimal", compat="override")


def _label(system: str, rule: str, budget: int, spread: float) -> str:
    return f"{system}, {rule}, {budget}" + (f", spread {spread:g}" if spread else "")
