"""What if the chip is not the model?"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray
from pydantic import Field

from morphax._lazy import xr
from morphax.experiments.spintronic._network import NetworkConfig
from morphax.experiments.spintronic.paper import PLOUET
from morphax.experiments.spintronic.sequential_digits import ENTRIES, OURS
from morphax.experiments.training import Trainer
from morphax.lab.blocks import Blocks
from morphax.lab.experiment import Claim, Experiment, NonNegative, parameter
from morphax.lab.figures import BLUE, GREEN, ORANGE, RED, VIOLET, Figures, new_figure
from morphax.lab.progress import Progress, along
from morphax.learning.backprop import Backpropagation
from morphax.learning.ensemble import map_members
from morphax.learning.hardware import InTheLoop, NoiseAware
from morphax.learning.train import Data
from morphax.substrates.imperfections import Imperfections
from morphax.substrates.wrappers import WithReadout

STRATEGIES = ("off-chip", "noise-aware", "in the loop, outputs", "in the loop, states")
OFF_CHIP, NOISE_AWARE, OUTPUTS, STATES = STRATEGIES


def mean(strategy: str, spread: float) -> Any:
    """Mean accuracy over networks and devices."""
    return lambda d: float(d.accuracy.sel(strategy=strategy, spread=spread).mean())


class Mismatch(Experiment):
    """Ours: accuracy on devices that differ from the model, for three ways to train.

    Off-chip: trained on the model, weights uploaded. Noise-aware: another device at every training step, then uploaded.
    In the loop: trained off-chip, then on one device each, which answers while the model back-propagates; either only
    its outputs are read, or its state after every pixel. Every device constant and every weight differs from its
    nominal value by a log-normal factor. Beside it: weights or devices alone, weight resolution, state noise.
    """

    class Config(NetworkConfig):
        seeds: int = parameter(3, "networks", ge=1, extent=True)
        devices: int = parameter(4, "devices for each network", ge=1)
        spreads: tuple[NonNegative, ...] = parameter(
            (0.0, 0.05, 0.1, 0.2, 0.3), "relative spreads of mismatch", min_length=1
        )
        bits: tuple[Annotated[int, Field(ge=2, le=32)], ...] = parameter(
            (3, 4, 5, 6, 8), "weight resolutions", min_length=1
        )
        state_noises: tuple[NonNegative, ...] = parameter((0.0, 0.003, 0.01, 0.03), "noise on powers after every pixel")
        epochs: int = parameter(60, "passes over the training images", ge=1)
        loop_epochs: int = parameter(20, "passes in the loop", ge=1)
        loop_rate: float = parameter(0.03, "largest step of Adam in the loop, cosine", gt=0)

    name = "spintronic/mismatch"
    quick = {
        "seeds": 1,
        "devices": 2,
        "spreads": (0.0, 0.2),
        "bits": (3, 6),
        "state_noises": (0.0, 0.03),
        "epochs": 6,
        "loop_epochs": 2,
        "layers": (16, 16),
    }
    paper = PLOUET
    claims = (
        *(
            Claim.at_least(
                f"in the loop ({what} read), 20 % mismatch: as good as no mismatch (%)",
                mean(OFF_CHIP, 0.0),
                mean(strategy, 0.2),
                source="Sec. V, citing [42]: robust up to about 20 %; ours: 3 points",
                item="mismatch",
                tolerance=3.0,
                cause=cause,
            )
            for what, strategy, cause in (
                ("states", STATES, ""),
                (
                    "outputs",
                    OUTPUTS,
                    "with outputs alone the model back-propagates along powers that are not those of the "
                    "device; with its powers read it is 85.6 % (spintronic/mismatch)",
                ),
            )
        ),
        Claim.at_least(
            "noise-aware, 20 % mismatch: better than off-chip (%)",
            mean(OFF_CHIP, 0.2),
            mean(NOISE_AWARE, 0.2),
            source="Sec. V; same run; ours: 5 points",
            item="off-chip",
            tolerance=-5.0,
        ),
        Claim.at_least(
            "noise-aware, 20 % mismatch: as good as no mismatch (%)",
            mean(OFF_CHIP, 0.0),
            mean(NOISE_AWARE, 0.2),
            source="Sec. V: robust enough, citing other methods [37, 43, 44]; ours: 3 points",
            item="off-chip",
            tolerance=3.0,
        ),
        Claim.reported("off-chip, 5 % mismatch (%)", mean(OFF_CHIP, 0.05), source="ours", item="off-chip"),
        Claim.reported("off-chip, 20 % mismatch (%)", mean(OFF_CHIP, 0.2), source="ours", item="off-chip"),
    )

    def run(self, config: Config, *, key: PRNGKeyArray, progress: Progress) -> xr.Dataset:
        data_key, make_key, train_key, device_key = jax.random.split(key, 4)
        task = config.task(data_key)
        lab = _Laboratory(
            config=config.but(**ENTRIES[OURS].changes),
            train=(task.train_inputs, task.train_targets),
            test=(task.test_inputs, task.test_targets),
            make_key=make_key,
            device_key=device_key,
            trainer=Trainer(train_key, progress),
        )
        spreads = [spread for spread in config.spreads if spread > 0]
        work = {OFF_CHIP: lab.off_chip}
        work |= {f"{NOISE_AWARE} {s:g}": partial(lab.noise_aware, s) for s in spreads}
        work |= {f"{n} {s:g}": partial(lab.in_the_loop, n, s) for n in (OUTPUTS, STATES) for s in spreads}
        seeds = Blocks("seed", config.seeds)
        parts = seeds.join(progress.pieces(seeds.split(work)))
        first = parts[OFF_CHIP]
        # Without mismatch there is nothing to adapt to.
        parts |= {f"{n} 0": first.sel(spread=0.0, drop=True) for n in STRATEGIES if 0 in config.spreads}
        meaning = {"units": "1", "long_name": "relative spread of mismatch"}

        def by_spread(strategy: str) -> xr.Dataset:
            return along("spread", {s: parts[f"{strategy} {s:g}"][["accuracy"]] for s in config.spreads}, meaning)

        rows = {OFF_CHIP: first[["accuracy"]]} | {strategy: by_spread(strategy) for strategy in STRATEGIES[1:]}
        accuracy = along("strategy", rows, coords="minimal", compat="override").accuracy
        return first.assign(accuracy=accuracy.assign_attrs(units="%", long_name="test accuracy on devices"))

    def figures(self, dataset: xr.Dataset) -> Figures:
        figure = new_figure(12, 4)
        left, middle, right = figure.subplots(1, 3, sharey=True, width_ratios=(3, 2, 2))
        place = 100 * dataset.spread
        for strategy, colour in zip(STRATEGIES, (BLUE, ORANGE, VIOLET, RED), strict=True):
            part = dataset.accuracy.sel(strategy=strategy)
            left.plot(place, part.mean(("seed", "device")), "o-", color=colour, label=strategy)
            low, high = part.min(("seed", "device")), part.max(("seed", "device"))
            left.fill_between(place, low, high, color=colour, alpha=0.12, linewidth=0)
        for name, colour in (("weights only", GREEN), ("devices only", "grey")):
            part = dataset.part_accuracy.sel(part=name).mean(("seed", "device"))
            left.plot(place, part, ":", color=colour, label=f"off-chip, {name}")
        left.set(xlabel="mismatch (%)", ylabel="test accuracy (%)", ylim=(0, 100), title="mean and range over devices")
        left.legend(fontsize="small", loc="lower left")
        for axes, variable, name in ((middle, "bit_accuracy", "bits"), (right, "noise_accuracy", "state_noise")):
            axes.plot(dataset[name], dataset[variable].mean("seed"), "o-", color=BLUE)
        middle.set(xlabel="weight resolution (bits)", title="off-chip, rounded weights")
        right.set(xlabel="noise on powers, per pixel", title="off-chip, state noise")
        right.locator_params(axis="x", nbins=4)
        return {"mismatch": figure}


@dataclass(kw_only=True)
class _Laboratory:
    """Trains networks and judges them on devices."""

    config: Mismatch.Config
    train: Data
    test: Data
    make_key: PRNGKeyArray
    device_key: PRNGKeyArray
    trainer: Trainer
    _nominal: dict[range, WithReadout] = field(default_factory=dict)

    def off_chip(self, seeds: range) -> xr.Dataset:
        """Trained on the model: mismatch of either kind, rounding, noise."""
        config, networks = self.config, self.trained_on_model(self.trainer, seeds)
        on_devices = partial(self.on_devices, networks, seeds)
        both = [on_devices(Imperfections(s, s)) for s in config.spreads]
        parts = [
            [on_devices(kind(s)) for s in config.spreads]
            for kind in (lambda s: Imperfections(weight_mismatch=s), lambda s: Imperfections(device_mismatch=s))
        ]
        rounded = [on_devices(Imperfections(weight_bits=b), devices=1) for b in config.bits]
        noisy = [on_devices(Imperfections(state_noise=n)) for n in config.state_noises]
        percent = {"units": "%"}
        return xr.Dataset(
            {
                "accuracy": (("spread", "seed", "device"), np.array(both), percent),
                "part_accuracy": (("part", "spread", "seed", "device"), np.array(parts), percent),
                "bit_accuracy": (("bits", "seed"), np.array(rounded)[..., 0], percent),
                "noise_accuracy": (("state_noise", "seed"), np.array(noisy).mean(-1), percent),
            },
            {
                "spread": list(config.spreads),
                "part": ["weights only", "devices only"],
                "bits": list(config.bits),
                "state_noise": list(config.state_noises),
                "seed": list(seeds),
                "device": np.arange(config.devices),
            },
        )

    def noise_aware(self, spread: float, seeds: range) -> xr.Dataset:
        """Trained on another device at every step."""
        rule, label = NoiseAware(Backpropagation(), self.stacked(spread, len(seeds))), f"{NOISE_AWARE} {spread:g}"
        networks = self.trained(self.trainer, self.config, self.fresh(seeds), label, rule, seeds)
        return _dataset(self.on_devices(networks, seeds, Imperfections(spread, spread)), seeds)

    def in_the_loop(self, strategy: str, spread: float, seeds: range) -> xr.Dataset:
        """Trained off-chip, then each network on each of its devices."""
        devices, keys = self.config.devices, self.device_keys(seeds).reshape(-1)
        networks = jax.tree.map(lambda x: jnp.repeat(x, devices, 0) if eqx.is_array(x) else x, self.nominal(seeds))
        rule = InTheLoop(Backpropagation(), self.stacked(spread, len(keys)), keys, measured_states=strategy == STATES)
        config = self.config.but(epochs=self.config.loop_epochs, learning_rate=self.config.loop_rate, schedule="cosine")
        members = range(seeds.start * devices, seeds.stop * devices)
        tuned = self.trained(self.trainer, config, networks, f"{strategy} {spread:g}", rule, members)
        scores = map_members(eqx.Partial(_on_devices, self.test), tuned, keys[:, None], self.stacked(spread, len(keys)))
        return _dataset(100 * np.asarray(scores, float).reshape(len(seeds), devices), seeds)

    def device_keys(self, seeds: range) -> PRNGKeyArray:
        """(seeds, devices)."""
        return jax.random.split(self.device_key, (seeds.stop, self.config.devices))[seeds.start :]

    def fresh(self, seeds: range) -> WithReadout:
        """Untrained networks."""
        return self.config.networks("spintronic", self.make_key, seeds)

    def nominal(self, seeds: range) -> WithReadout:
        """Networks trained on the model. A process that has not trained them yet does so, and tells nobody."""
        if seeds not in self._nominal:
            self.trained_on_model(Trainer(self.trainer.key, Progress()), seeds)
        return self._nominal[seeds]

    def trained_on_model(self, trainer: Trainer, seeds: range) -> WithReadout:
        """Networks after training without mismatch."""
        networks = self.trained(trainer, self.config, self.fresh(seeds), OFF_CHIP, Backpropagation(), seeds)
        self._nominal[seeds] = networks
        return networks

    def trained(
        self, trainer: Trainer, config: NetworkConfig, networks: WithReadout, label: str, rule: Any, members: range
    ) -> WithReadout:
        """The networks after training by a rule."""
        numbers = config.training(self.train)
        return trainer.train(label, networks, rule, self.train, ensemble=members, **numbers).last

    def on_devices(
        self, networks: WithReadout, seeds: range, imperfections: Imperfections, devices: int | None = None
    ) -> np.ndarray:
        """Accuracy in per cent (networks, devices) on fabricated devices."""
        keys = self.device_keys(seeds)[:, :devices]
        # What is 0 stays a plain number: no noise is drawn to be multiplied by 0.
        stacked = jax.tree.map(lambda x: jnp.full(len(keys), x) if x else x, imperfections)
        return 100 * np.asarray(map_members(eqx.Partial(_on_devices, self.test), networks, keys, stacked), float)

    def stacked(self, spread: float, members: int) -> Imperfections:
        """Mismatch of weights and devices, for a stack of members."""
        return Imperfections(jnp.full(members, spread), jnp.full(members, spread))


@eqx.filter_jit
def _on_devices(data: Data, network: WithReadout, keys: PRNGKeyArray, imperfections: Imperfections) -> Array:
    def one(key: PRNGKeyArray) -> Array:
        device = imperfections.device(network, key=key)
        return Backpropagation().metrics(device, *data, key=jax.random.fold_in(key, 1))["accuracy"]

    return jax.lax.map(one, keys)


def _dataset(scores: np.ndarray, seeds: range) -> xr.Dataset:
    return xr.Dataset({"accuracy": (("seed", "device"), scores, {"units": "%"})}, {"seed": list(seeds)})
