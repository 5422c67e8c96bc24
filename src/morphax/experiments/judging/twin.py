"""Is a twin of the chip good enough to train it?"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, PRNGKeyArray, PyTree

from morphax._lazy import xr
from morphax.experiments.spintronic._network import NetworkConfig, accuracies
from morphax.experiments.spintronic.sequential_digits import ENTRIES, OURS
from morphax.experiments.training import Trainer
from morphax.judging.stepwise import identify_steps, read_steps
from morphax.lab.blocks import Blocks
from morphax.lab.experiment import Claim, Experiment, Positive, parameter
from morphax.lab.figures import BLUE, GREEN, GREY, ORANGE, RED, VIOLET, Figures, new_figure
from morphax.lab.progress import Progress, along
from morphax.learning.backprop import Backpropagation
from morphax.learning.ensemble import map_members
from morphax.learning.hardware import InTheLoop
from morphax.learning.train import Data
from morphax.pytrees import select
from morphax.substrates.base import Substrate
from morphax.substrates.imperfections import Imperfections, mismatch
from morphax.substrates.wrappers import WithReadout

UPLOADED = "uploaded"
COMPENSATED = "uploaded, weights by the twin"
ALONE = {"outputs": "in the loop, outputs, without a twin", "states": "in the loop, states, without a twin"}
TWINNED = {"outputs": "in the loop, outputs, through the twin", "states": "in the loop, states, through the twin"}
STRATEGIES = (UPLOADED, COMPENSATED, *ALONE.values(), *TWINNED.values())
GREY_LEVELS = 16.0
"""Of a pixel."""


def mean(strategy: str, spread: float) -> Any:
    """Mean accuracy over networks and chips."""
    return lambda d: float(d.accuracy.sel(strategy=strategy, spread=spread).mean())


def exact(dataset: xr.Dataset) -> float:
    """Mean accuracy of networks that are their models."""
    return float(dataset.exact.mean())


class OneDevice(Imperfections):
    """A device that differs from the model by known factors on all of its weights and device parameters."""

    factors: PyTree = None

    def device(self, substrate: Any, *, key: PRNGKeyArray) -> Any:
        """The model with its present weights, times the factors."""
        varied, rest = select(substrate, "weight", "device")
        return eqx.combine(jax.tree.map(jnp.multiply, varied, self.factors), rest)


class Twin(Experiment):
    """Ours: a hidden chip is recorded, a twin is identified, and the chip is trained through its twin.

    Every weight and every device constant of the chip differs from the design by a log-normal factor that nobody knows.
    Its states are read after every input of some random sequences, with noise, and a twin is fitted to them. Weights
    are then uploaded as the twin says, and trained further with the chip in the loop: it answers, the twin
    back-propagates. Beside it: weights as designed, and the loop with the design as model. Who identifies knows how
    much chips of this line scatter, and how noisy the readings are; what is read in the loop has no noise.
    """

    class Config(NetworkConfig):
        seeds: int = parameter(3, "networks", ge=1, extent=True)
        chips: int = parameter(4, "chips for each network", ge=1)
        spreads: tuple[Positive, ...] = parameter((0.1, 0.2), "relative spreads of chips", min_length=1)
        sequences: int = parameter(60, "random sequences that are recorded, of 64 inputs", ge=1)
        noise: float = parameter(0.01, "noise of what is read, of its deviation", gt=0)
        epochs: int = parameter(60, "passes over the training images", ge=1)
        loop_epochs: int = parameter(20, "passes in the loop", ge=1)
        loop_rate: float = parameter(0.03, "largest step of Adam in the loop, cosine", gt=0)

    name = "judging/twin"
    quick = {
        "seeds": 1,
        "chips": 2,
        "spreads": (0.2,),
        "sequences": 20,
        "epochs": 6,
        "loop_epochs": 2,
        "layers": (16, 16),
    }
    claims = (
        *(
            Claim.at_least(
                f"through the twin, {read} read in the loop, {100 * spread:g} % spread: as good as the exact model (%)",
                exact,
                mean(TWINNED[read], spread),
                source=f"same run; within {points} point{'s' * (points > 1)}",
                tolerance=float(points),
            )
            for spread, points in ((0.1, 1), (0.2, 3))
            for read in ("states", "outputs")
        ),
        *(
            Claim.reported(f"{strategy}, 20 % spread (%)", mean(strategy, 0.2), source="ours")
            for strategy in (UPLOADED, COMPENSATED, *ALONE.values())
        ),
        Claim.reported("inputs that a chip is asked to identify it", lambda d: d.asked_to_identify, source="ours"),
        Claim.reported("inputs that a chip is asked in the loop", lambda d: d.asked_in_the_loop, source="ours"),
    )

    def run(self, config: Config, *, key: PRNGKeyArray, progress: Progress) -> xr.Dataset:
        data_key, make_key, train_key, chip_key = jax.random.split(key, 4)
        task = config.task(data_key)
        lab = _Laboratory(
            config=config.but(**ENTRIES[OURS].changes),
            train=(task.train_inputs, task.train_targets),
            test=(task.test_inputs, task.test_targets),
            make_key=make_key,
            chip_key=chip_key,
            trainer=Trainer(train_key, progress),
        )
        work = {"exact": lab.exact}
        work |= {f"spread {spread:g}": partial(lab.chips, spread) for spread in config.spreads}
        seeds = Blocks("seed", config.seeds)
        parts = seeds.join(progress.pieces(seeds.split(work)))
        meaning = {"units": "1", "long_name": "relative spread of chips"}
        dataset = along("spread", {spread: parts[f"spread {spread:g}"] for spread in config.spreads}, meaning)
        batches = len(task.train_inputs) // config.batch_size * config.batch_size
        pixels = task.train_inputs.shape[1]
        unit = {"units": "inputs"}
        return dataset.merge(parts["exact"]).assign(
            asked_to_identify=((), config.sequences * pixels, unit),
            asked_in_the_loop=((), config.loop_epochs * batches * pixels, unit),
        )

    def figures(self, dataset: xr.Dataset) -> Figures:
        figure = new_figure(9, 3.6)
        left, right = figure.subplots(1, 2, width_ratios=(3, 1))
        places = np.arange(dataset.sizes["spread"])
        colours = (GREY, GREEN, VIOLET, RED, ORANGE, BLUE)
        for number, (strategy, colour) in enumerate(zip(STRATEGIES, colours, strict=True)):
            part = dataset.accuracy.sel(strategy=strategy)
            middle = part.mean(("seed", "chip"))
            ends = [middle - part.min(("seed", "chip")), part.max(("seed", "chip")) - middle]
            shift = 0.1 * (number - (len(STRATEGIES) - 1) / 2)
            left.errorbar(places + shift, middle, yerr=ends, fmt="o", color=colour, label=strategy, capsize=2)
        left.axhline(exact(dataset), color="black", linewidth=1, linestyle="--", label="exact model")
        left.set_xticks(places, [f"{100 * spread:g} %" for spread in dataset.spread.values])
        left.set(xlabel="spread of chips", ylabel="test accuracy (%)", ylim=(0, 100))
        left.grid(visible=False, axis="x")
        for who, colour in (("design", GREY), ("twin", BLUE)):
            error = dataset.free_error.sel(model=who).mean(("seed", "chip"))
            right.plot(places, 100 * error, "o-", color=colour, label=who)
        right.set_xticks(places, [f"{100 * spread:g} %" for spread in dataset.spread.values])
        right.set(xlabel="spread of chips", yscale="log", title="running freely, off by\n(% of deviation)")
        right.legend(fontsize="small")
        figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize="small")
        return {"twin": figure}


@dataclass(kw_only=True)
class _Laboratory:
    """Trains networks, hides chips, and finds their twins."""

    config: Twin.Config
    train: Data
    test: Data
    make_key: PRNGKeyArray
    chip_key: PRNGKeyArray
    trainer: Trainer
    _nominal: dict[range, WithReadout] = field(default_factory=dict)

    def exact(self, seeds: range) -> xr.Dataset:
        """Networks that are trained and used on their model."""
        networks = self.trained_on_model(self.trainer, seeds)
        scores = 100 * accuracies(networks, self.test)
        about = {"units": "%", "long_name": "test accuracy of the exact model"}
        return xr.Dataset({"exact": ("seed", scores, about)}, {"seed": list(seeds)})

    def chips(self, spread: float, seeds: range) -> xr.Dataset:
        """All strategies on the same chips."""
        config, count = self.config, self.config.chips
        if seeds not in self._nominal:
            self.trained_on_model(Trainer(self.trainer.key, Progress()), seeds)
        designs = jax.tree.map(lambda x: jnp.repeat(x, count, 0) if eqx.is_array(x) else x, self._nominal[seeds])
        keys = jax.random.split(self.chip_key, (seeds.stop, count))[seeds.start :].reshape(-1)
        found = eqx.Partial(
            identified, jnp.asarray(spread), jnp.asarray(config.noise), config.sequences, self.train[0].shape[1]
        )
        twins, of_design, of_twin, errors = map_members(found, designs, keys)
        members = range(seeds.start * count, seeds.stop * count)
        plain, known = self.devices(of_design), self.devices(of_twin)
        scores = {
            UPLOADED: self.judged(designs, plain),
            COMPENSATED: self.judged(twins, known),
        }
        for read in ("outputs", "states"):
            scores[ALONE[read]] = self.tuned(ALONE[read], spread, designs, plain, read, members)
            scores[TWINNED[read]] = self.tuned(TWINNED[read], spread, twins, known, read, members)
        shape = (len(seeds), count)
        about = {"units": "%", "long_name": "test accuracy on the chip"}
        accuracy = np.array([scores[strategy].reshape(shape) for strategy in STRATEGIES])
        free = np.moveaxis(np.asarray(errors, float).reshape(*shape, 2), -1, 0)
        error = {"units": "1", "long_name": "error of a model that runs freely, of the states' deviation"}
        return xr.Dataset(
            {
                "accuracy": (("strategy", "seed", "chip"), accuracy, about),
                "free_error": (("model", "seed", "chip"), free, error),
            },
            {
                "strategy": list(STRATEGIES),
                "model": ["design", "twin"],
                "seed": list(seeds),
                "chip": np.arange(count),
            },
        )

    def devices(self, factors: PyTree) -> OneDevice:
        """A stack of devices, each with factors of its own."""
        return OneDevice(factors=factors)

    def judged(self, models: WithReadout, devices: OneDevice) -> np.ndarray:
        """Accuracy in per cent of the chips with the weights of their models."""
        return 100 * np.asarray(map_members(eqx.Partial(_on_chip, self.test), models, devices), float)

    def tuned(
        self, strategy: str, spread: float, models: WithReadout, devices: OneDevice, read: str, members: range
    ) -> np.ndarray:
        """Accuracy of the chips after training with each in the loop of its model."""
        keys = jax.random.split(self.chip_key, members.stop)[members.start :]
        rule = InTheLoop(Backpropagation(), devices, keys, measured_states=read == "states")
        config = self.config.but(epochs=self.config.loop_epochs, learning_rate=self.config.loop_rate, schedule="cosine")
        return self.judged(self.trained(self.trainer, config, models, f"{strategy} {spread:g}", rule, members), devices)

    def trained_on_model(self, trainer: Trainer, seeds: range) -> WithReadout:
        """Networks after training on the model."""
        fresh = self.config.networks("spintronic", self.make_key, seeds)
        networks = self.trained(trainer, self.config, fresh, "exact", Backpropagation(), seeds)
        self._nominal[seeds] = networks
        return networks

    def trained(
        self, trainer: Trainer, config: NetworkConfig, networks: WithReadout, label: str, rule: Any, members: range
    ) -> WithReadout:
        """The networks after training by a rule."""
        numbers = config.training(self.train)
        return trainer.train(label, networks, rule, self.train, ensemble=members, **numbers).last


@eqx.filter_jit
def _on_chip(data: Data, model: WithReadout, device: OneDevice) -> Array:
    return Backpropagation().metrics(device.device(model, key=jax.random.key(0)), *data)["accuracy"]


def hidden_chip(spread: ArrayLike, network: WithReadout, key: PRNGKeyArray) -> WithReadout:
    """The chip that belongs to a key: its factors are the same for all weights."""
    chip_key, _, _, _ = jax.random.split(key, 4)
    return mismatch(network, weights=spread, devices=spread, key=chip_key)


@eqx.filter_jit
def identified(
    spread: Array, noise: Array, sequences: int, length: int, design: WithReadout, key: PRNGKeyArray
) -> tuple[WithReadout, PyTree, PyTree, Array]:
    """The twin of a hidden chip, with the design's weights; factors of the chip over design and twin; and errors.

    Weights of the twin are those that are to be effective; the chip has them times what the twin does not know.
    """
    _, drive_key, read_key, fresh_key = jax.random.split(key, 4)
    chip = hidden_chip(spread, design, key)
    drives = GREY_LEVELS * jax.random.uniform(drive_key, (sequences, length))
    twin = identify_steps(design, read_steps(chip, drives, noise=noise, key=read_key), spread=spread, noise=noise)
    fresh = GREY_LEVELS * jax.random.uniform(fresh_key, (10, length))
    runs = [read_steps(each, fresh, noise=0.0, key=read_key).readings for each in (chip, design, twin)]
    errors = jnp.array([jnp.sqrt(jnp.mean((run - runs[0]) ** 2) / jnp.var(runs[0])) for run in runs[1:]])
    of_design, of_twin = _ratio(chip, design), _ratio(chip, twin)
    # The weights that were designed become effective where the twin knows what the chip makes of them.
    weights, _ = select(design, "weight")
    _, rest = select(twin, "weight")
    return eqx.combine(weights, rest), of_design, of_twin, errors


def _ratio(chip: Substrate, model: Substrate) -> PyTree:
    """Factors by which a chip differs; 1 where a number is 0 in both."""
    one, other = (select(each, "weight", "device")[0] for each in (chip, model))
    return jax.tree.map(lambda a, b: jnp.where(b == 0, 1.0, a / jnp.where(b == 0, 1.0, b)), one, other)
