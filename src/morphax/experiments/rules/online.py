"""What does a rule lose that goes forward in time?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PRNGKeyArray
from pydantic import Field

from morphax._lazy import xr
from morphax.experiments.rules._digits import CLASSES, PIXELS, DigitsConfig, Images
from morphax.experiments.training import Trainer
from morphax.lab.blocks import Blocks
from morphax.lab.experiment import Claim, Experiment, Positive, parameter
from morphax.lab.figures import BLUE, GREEN, ORANGE, RED, Figures, new_figure
from morphax.lab.progress import Progress, along
from morphax.learning.backprop import Backpropagation
from morphax.learning.ensemble import make_members
from morphax.learning.online import EligibilityPropagation, RandomFeedbackLocalOnline, SparseApproximation
from morphax.learning.train import adjustable
from morphax.substrates.recurrent import ContinuousTimeRecurrentNetwork
from morphax.substrates.spiking import SpikingNetwork
from morphax.substrates.spintronic import SpintronicNetwork
from morphax.substrates.wrappers import WithReadout
from morphax.units import ns

BPTT, SNAP, EPROP, RFLO = RULES = ("BPTT", "SnAp-1", "e-prop", "RFLO")
ONLINE = {SNAP: SparseApproximation, EPROP: EligibilityPropagation, RFLO: RandomFeedbackLocalOnline}
COLOURS = dict(zip(RULES, (BLUE, ORANGE, GREEN, RED), strict=True))
Network = Literal["CTRNN", "spintronic", "spiking"]
LOOKS = 6  # at watched images in a training
STRICTLY = -1e-9
"""Tolerance of a claim that asks for more, where equal is not enough."""
Rates = Annotated[tuple[Positive, ...], Field(min_length=1)]
Neurons = Annotated[int, Field(ge=1, le=1000)]


def mean(network: str, length: int, rule: str) -> Any:
    """Mean test accuracy over seeds, at the rate that was chosen."""
    return lambda d: float(d.accuracy.sel(network=network, length=length, rule=rule).mean())


class Online(Experiment):
    """Ours: digits that arrive row by row or pixel by pixel, learned backward in time or forward.

    Leaky tanh neurons (CTRNN, one layer), spintronic oscillators (two layers, of which the last is read) and spiking
    neurons (one recurrent layer) learn with Adam from equally many images: by back-propagation through time, and by
    rules whose traces go forward. Real-time recurrent learning, the exact one of these, would give what
    back-propagation gives; derivatives of spikes are surrogates for all. A rate is chosen for every network, length and
    rule by the mean accuracy on validation images; accuracies are those of the last weights. Everything else - scales,
    time constants - was chosen by back-propagation's validation accuracy, once, and is the same for all rules.
    """

    class Config(DigitsConfig):
        networks: tuple[Network, ...] = parameter(get_args(Network), "that learn", min_length=1, extent=True)
        lengths: tuple[Literal[8, 16, 32, 64], ...] = parameter(
            (8, 64), "T, inputs in which an image arrives: 8 rows, 64 pixels", min_length=1, extent=True
        )
        updates: int = parameter(300, "updates", ge=LOOKS)
        rates: Rates = parameter((0.003, 0.01, 0.03, 0.1), "rates tried with the CTRNN")
        spintronic_rates: Rates = parameter((0.03, 0.1, 0.3), "rates tried with the spintronic network")
        spiking_rates: Rates = parameter((0.003, 0.01, 0.03), "rates tried with the spiking network")
        neurons: Neurons = parameter(32, "tanh neurons")
        layers: tuple[Neurons, ...] = parameter((24, 24), "oscillators of each layer", min_length=1)
        spiking: Neurons = parameter(64, "spiking neurons")
        relaxation: float = parameter(0.25, "relaxation time of tanh neurons over an image's duration", gt=0)
        scale: float = parameter(3.0, "initial weights of tanh neurons, times +-1/sqrt(fan-in)", gt=0)
        duration: float = parameter(32.0, "of an image at oscillators, which take 14 to relax", unit="ns", gt=0)
        membrane: float = parameter(0.5, "membrane time constant over an image's duration", gt=0)
        blanks: int = parameter(2, "inputs of nothing after an image, until its end has come to spikes", ge=0, le=64)

        def rates_of(self, network: str) -> tuple[float, ...]:
            """Rates tried."""
            return {"CTRNN": self.rates, "spintronic": self.spintronic_rates, "spiking": self.spiking_rates}[network]

    name = "rules/online"
    quick = {
        "seeds": 2,
        "networks": ("CTRNN",),
        "lengths": (8,),
        "rates": (0.01, 0.03),
        "updates": 60,
        "neurons": 16,
    }
    claims = (
        Claim.at_least(
            "CTRNN, T = 8: BPTT above SnAp-1 (%)",
            mean("CTRNN", 8, SNAP),
            mean("CTRNN", 8, BPTT),
            source="SnAp-1 of the same run",
            tolerance=STRICTLY,
        ),
        Claim.at_least(
            "CTRNN, T = 8: SnAp-1 not below e-prop (%)",
            mean("CTRNN", 8, EPROP),
            mean("CTRNN", 8, SNAP),
            source="e-prop of the same run",
        ),
        Claim.at_least(
            "CTRNN, T = 8: e-prop above RFLO (%)",
            mean("CTRNN", 8, RFLO),
            mean("CTRNN", 8, EPROP),
            source="RFLO of the same run",
            tolerance=STRICTLY,
        ),
        *(
            Claim.reported(f"{network}, T = {length}: {rule} (%)", mean(network, length, rule), source="ours")
            for network in get_args(Network)
            for length in (8, 64)
            if (network, length) != ("CTRNN", 8)
            for rule in RULES
        ),
    )

    def run(self, config: Config, *, key: PRNGKeyArray, progress: Progress) -> xr.Dataset:
        image_key, make_key, rule_key, train_key = jax.random.split(key, 4)
        lab = _Laboratory(config, config.images(image_key), make_key, rule_key, Trainer(train_key, progress))
        points = [(n, t, r) for n in config.networks for t in config.lengths for r in RULES]
        work: dict[str, Callable[[range], xr.Dataset]] = {
            _label(*point): partial(lab.tried, *point) for point in points
        }
        seeds = Blocks("seed", config.seeds, size=2)
        parts = seeds.join(progress.pieces(seeds.split(work)))

        def of_rule(network: str, length: int) -> xr.Dataset:
            return along("rule", {rule: parts[_label(network, length, rule)] for rule in RULES})

        meaning = {"units": "1", "long_name": "inputs in which an image arrives"}
        networks = {
            network: along("length", {length: of_rule(network, length) for length in config.lengths}, meaning)
            for network in config.networks
        }
        # Networks have rates of their own.
        return _chosen(along("network", networks, join="outer"))

    def figures(self, dataset: xr.Dataset) -> Figures:
        points = [(n, t) for n in dataset.network.values for t in dataset.length.values]
        figure = new_figure(2.6 * len(points) + 1, 6)
        upper, lower = figure.subplots(2, len(points), sharey=True, squeeze=False)
        for above, below, (network, length) in zip(upper, lower, points, strict=True):
            here = dataset.sel(network=network, length=length)
            for rule in RULES:
                tried = here.validation.sel(rule=rule).isel(update=-1).mean("seed").dropna("learning_rate")
                above.plot(tried.learning_rate, tried, "o-", color=COLOURS[rule], label=rule)
                course = here.course.sel(rule=rule)
                middle, spread = course.mean("seed"), course.std("seed")
                below.plot(dataset["update"], middle, color=COLOURS[rule])
                below.fill_between(
                    dataset["update"], middle - spread, middle + spread, color=COLOURS[rule], alpha=0.15, linewidth=0
                )
            rates = here.validation.dropna("learning_rate", how="all").learning_rate.values
            above.set(xscale="log", xlabel="learning rate", title=f"{network}, T = {length}")
            above.set_xticks(rates, [f"{rate:g}" for rate in rates])
            above.set_xticks([], minor=True)
            below.set(xlabel="updates", ylim=(0, 100))
        upper[0].set_ylabel("validation accuracy (%)")
        lower[0].set_ylabel("test accuracy (%)")
        figure.legend(
            *upper[0].get_legend_handles_labels(), loc="outside lower center", ncols=min(len(RULES), 2 * len(points))
        )
        return {"online": figure}


@dataclass(frozen=True)
class _Laboratory:
    """Makes networks, and trains them by the rules."""

    config: Online.Config
    images: Images
    make_key: PRNGKeyArray
    rule_key: PRNGKeyArray
    trainer: Trainer

    def tried(self, network: str, length: int, rule: str, seeds: range) -> xr.Dataset:
        """Accuracies on validation and test images at every rate, on the way and at the end."""
        config, images = self.config, self._arriving(network, length)
        networks = make_members(partial(_MAKE[network], config, length), self.make_key, seeds)
        learning = Backpropagation() if rule == BPTT else make_members(ONLINE[rule], self.rule_key, seeds)
        courses: dict[str, list[np.ndarray]] = {name: [] for name in images.watched}
        updates = np.arange(0)
        for rate in config.rates_of(network):
            history = self.trainer.train(
                f"{_label(network, length, rule)}, rate {rate:g}",
                networks,
                learning,
                images.train,
                optimiser=adjustable(optax.adam, learning_rate=rate),
                steps=config.updates,
                batch_size=config.batch_size,
                watch=images.watched,
                ensemble=seeds,
                every=config.updates // LOOKS,
            ).history
            updates = history.steps
            for name, course in courses.items():
                course.append(100 * history.watched(name)["accuracy"])
        return xr.Dataset(
            {name: (("learning_rate", "update", "seed"), np.array(course)) for name, course in courses.items()},
            {"learning_rate": list(config.rates_of(network)), "update": updates, "seed": list(seeds)},
        )

    def _arriving(self, network: str, length: int) -> Images:
        images = self.images.shaped(length, PIXELS // length)
        if network != "spiking" or not self.config.blanks:
            return images

        def followed(inputs: Array) -> Array:
            return jnp.pad(inputs, ((0, 0), (0, self.config.blanks), (0, 0)))

        return Images(*((followed(inputs), targets) for inputs, targets in images))


def _ctrnn(config: Online.Config, length: int, key: PRNGKeyArray) -> WithReadout:
    first, second = jax.random.split(key)
    inside = ContinuousTimeRecurrentNetwork.random(
        (config.neurons,),
        inputs=PIXELS // length,
        interlayer_density=1.0,
        intralayer_density=1.0,
        scale=config.scale,
        damping_rate=1 / (config.relaxation * length * ns),
        interval=1 * ns,
        key=first,
    )
    return WithReadout.random(inside, CLASSES, key=second)


def _spintronic(config: Online.Config, length: int, key: PRNGKeyArray) -> WithReadout:
    first, second = jax.random.split(key)
    inside = SpintronicNetwork.random(
        config.layers, inputs=PIXELS // length, interval=config.duration / length * ns, key=first
    )
    return WithReadout.random(inside, CLASSES, key=second)


def _spiking(config: Online.Config, length: int, key: PRNGKeyArray) -> WithReadout:
    first, second = jax.random.split(key)
    time_constant = max(1.0, config.membrane * length)
    inside = SpikingNetwork.random(
        config.spiking,
        PIXELS // length,
        membrane_time_constant=time_constant,
        synaptic_time_constant=max(1.0, time_constant / 2),
        key=first,
    )
    return WithReadout.random(inside, CLASSES, key=second)


_MAKE: dict[str, Callable[[Online.Config, int, PRNGKeyArray], WithReadout]] = {
    "CTRNN": _ctrnn,
    "spintronic": _spintronic,
    "spiking": _spiking,
}


def _label(network: str, length: int, rule: str) -> str:
    return f"{network}, T = {length}, {rule}"


def _chosen(tried: xr.Dataset) -> xr.Dataset:
    """Beside all that was tried, what the rate reached that is best on validation images at the end."""
    scores = tried.validation.isel(update=-1, drop=True).mean("seed")
    # -1: less than any accuracy, where a rate was not tried.
    picked = tried.isel(learning_rate=scores.fillna(-1.0).argmax("learning_rate"))
    percent, missing = {"units": "%"}, {"may_be_missing": 1}
    course = picked.test.drop_vars("learning_rate")
    dataset = tried.assign(
        accuracy=course.isel(update=-1, drop=True).assign_attrs(percent, long_name="test accuracy"),
        course=course.assign_attrs(percent, long_name="test accuracy"),
        rate=picked.learning_rate.drop_vars("learning_rate").assign_attrs(units="1"),
    )
    dataset.validation.attrs = percent | missing | {"long_name": "validation accuracy"}
    dataset.test.attrs = percent | missing | {"long_name": "test accuracy at every rate"}
    return dataset
