"""Which gradient of qubits is best for as many shots?"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, PRNGKeyArray

from morphax._lazy import xr
from morphax.experiments.rules._against import compared, flat_gradient
from morphax.lab.blocks import Blocks
from morphax.lab.experiment import BaseConfig, Claim, Count, Experiment, parameter
from morphax.lab.figures import BLUE, GREY, ORANGE, RED, Figures, new_figure
from morphax.lab.progress import Progress, along
from morphax.learning.backprop import Backpropagation
from morphax.learning.rule import Data
from morphax.learning.shift import AngleShift, ScoreFunction
from morphax.pytrees import select
from morphax.substrates.quantized import QuantizedPerceptron

RULES = ("score function", "score function without baseline", "angle shift", "straight-through")
COLOURS = (BLUE, GREY, ORANGE, RED)


def cosine(rule: str, presentations: int) -> Any:
    """Mean over seeds."""
    return lambda d: float(d.cosine.sel(rule=rule, presentations=presentations).mean())


class Quantum(Experiment):
    """Ours: gradients from measured outcomes against that of the expected loss, which enumerates all of them.

    A perceptron of few qubits, rotated and measured projectively, and as many presentations for every rule: the score
    function takes shots, the shift of angles two for every neuron and one besides. Straight-through estimators, which
    are biased, take shots of a model.
    """

    class Config(BaseConfig):
        seeds: int = parameter(10, "networks, each with data of its own", ge=1, extent=True)
        precision: Literal["double", "single"] = parameter("double", "floating-point precision of the run")
        inputs: int = parameter(6, "inputs", ge=1)
        neurons: int = parameter(6, "hidden neurons, one layer; 2^neurons outcomes are enumerated", ge=1, le=12)
        classes: int = parameter(3, "classes", ge=2)
        examples: int = parameter(4, "examples of a gradient", ge=1)
        width: float = parameter(0.7, "a, of the linear part of the activation", gt=0)
        presentations: tuple[Count, ...] = parameter(
            (520, 4160, 33_280), "presentations of a gradient, multiples of examples x (1 + 2 x neurons)", min_length=1
        )
        draws: int = parameter(20, "gradients of a network", ge=1)

    name = "rules/quantum"
    quick = {"seeds": 2, "presentations": (520,), "draws": 4}
    claims = (
        *(
            Claim.at_least(
                f"{presentations:,} presentations: score function above angle shift (cosines)",
                cosine("angle shift", presentations),
                cosine("score function", presentations),
                source="ours",
            )
            for presentations in (520, 4160, 33_280)
        ),
        Claim.at_least(
            "520 presentations: the baseline helps (cosines)",
            cosine("score function without baseline", 520),
            cosine("score function", 520),
            source="ours",
        ),
        Claim.reported("33,280 presentations: straight-through", cosine("straight-through", 33_280), source="ours"),
    )

    def run(self, config: Config, *, key: PRNGKeyArray, progress: Progress) -> xr.Dataset:
        keys = jax.random.split(key, config.seeds)
        seeds = Blocks("seed", config.seeds, size=5)
        work: dict[str, Callable[[range], xr.Dataset]] = {
            f"{rule}, {number}": partial(_cosines, config, rule, number, keys)
            for rule in RULES
            for number in config.presentations
        }
        parts = seeds.join(progress.pieces(seeds.split(work)))
        numbers = config.presentations
        rules = {rule: along("presentations", {n: parts[f"{rule}, {n}"] for n in numbers}) for rule in RULES}
        dataset = along("rule", rules)
        dataset.cosine.attrs = {"units": "1", "long_name": "cosine with the gradient of the expected loss"}
        return dataset

    def figures(self, dataset: xr.Dataset) -> Figures:
        figure = new_figure(7.5, 3.6)
        axes = figure.subplots()
        for rule, colour in zip(RULES, COLOURS, strict=True):
            values = dataset.cosine.sel(rule=rule)
            axes.errorbar(
                dataset.presentations, values.mean("seed"), values.std("seed"), fmt="o-", color=colour, label=rule
            )
        axes.set(xscale="log", xlabel="presentations", ylabel="cosine with the gradient")
        axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
        return {"quantum": figure}


def _made(config: Quantum.Config, key: PRNGKeyArray) -> tuple[QuantizedPerceptron, Data]:
    make_key, input_key = jax.random.split(key)
    network = QuantizedPerceptron.random(
        (config.inputs, config.neurons, config.classes), width=config.width, key=make_key
    )
    labels = jnp.arange(config.examples) % config.classes
    return network, (jax.random.normal(input_key, (config.examples, config.inputs)), jnp.eye(config.classes)[labels])


@eqx.filter_jit
def _expected(network: QuantizedPerceptron, data: Data) -> Array:
    """The gradient of the expected loss of a shot."""
    inputs, targets = data
    neurons = network.weights[0].shape[0]
    outcomes = jnp.array(list(itertools.product((-1.0, 1.0), repeat=neurons)))[:, None]

    def loss(network: QuantizedPerceptron) -> Array:
        def one(drive: Array, target: Array) -> Array:
            shares = jax.vmap(lambda d: network.probability(drive, d))(outcomes)
            losses = jax.vmap(lambda d: Backpropagation().judged(network.answer(d)[None], target[None])["loss"])
            return jnp.sum(shares * losses(outcomes))

        return jnp.mean(jax.vmap(one)(inputs, targets))

    return ravel_pytree(select(eqx.filter_grad(loss)(network), "weight")[0])[0]


def _cosines(config: Quantum.Config, name: str, presentations: int, keys: PRNGKeyArray, seeds: range) -> xr.Dataset:
    shots = presentations // config.examples
    rule, rounds = {
        "score function": (ScoreFunction(shots), 1),
        "score function without baseline": (ScoreFunction(shots, baseline=False), 1),
        "angle shift": (AngleShift(shots // (1 + 2 * config.neurons), neurons=config.neurons), 1),
        "straight-through": (Backpropagation(), shots),
    }[name]
    found = []
    for seed in seeds:
        network, data = _made(config, keys[seed])
        right, draws = _expected(network, data), jax.random.split(jax.random.fold_in(keys[seed], 1), config.draws)
        cosines = [compared(_mean(rule, network, data, draw, rounds), right)[1] for draw in draws]
        found.append(np.mean(cosines))
    return xr.Dataset({"cosine": ("seed", np.array(found))}, {"seed": list(seeds)})


def _mean(rule: Any, network: QuantizedPerceptron, data: Data, key: PRNGKeyArray, rounds: int) -> Array:
    """The gradient of a rule, or the mean of several."""
    if rounds == 1:
        return flat_gradient(rule, network, data, key)
    inputs, targets = (jnp.repeat(x, rounds, axis=0) for x in data)
    return flat_gradient(rule, network, (inputs, targets), key)
