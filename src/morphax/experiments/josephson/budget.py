"""How many readings, and how often, must one take to tell sines from squares?"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from morphax._lazy import xr
from morphax.experiments.josephson._mixer import Conditions, WaveformConfig, over_seeds
from morphax.experiments.josephson.design import mixer_starts
from morphax.experiments.josephson.paper import DUDAS
from morphax.experiments.training import Trainer, falling_adam
from morphax.lab.experiment import BEYOND, Claim, Count, Experiment, Positive, parameter
from morphax.lab.figures import BLUE, GREEN, GREY, ORANGE, RED, Figures, new_figure
from morphax.lab.progress import Progress, along
from morphax.learning.design import ReadoutDesign, readout_error
from morphax.learning.ensemble import member, member_keys
from morphax.learning.metrics import accuracy
from morphax.learning.readout import Reading, answer, read_task
from morphax.learning.train import adjustable
from morphax.pytrees import WEIGHT
from morphax.substrates.base import Substrate, evolve
from morphax.substrates.josephson import JosephsonMixer
from morphax.substrates.reservoirs import EchoStateNetwork, ReLUReservoir, SpinTorqueReservoir
from morphax.tasks.base import Task
from morphax.tasks.waveforms import waveforms

MIXER, NETWORK, DRAWN, WORKING = KINDS = ("designed mixer", "designed network", "drawn reservoir", "working point")
COLOURS = dict(zip(KINDS, (BLUE, ORANGE, GREEN, GREY), strict=True))
WANTED = 0.995
RELAXATIONS = (1.0, 3.0)  # of spin-torque oscillators, Gamma T, as in josephson/neurons


class Rates(EchoStateNetwork):
    """An echo-state network that is read as probabilities, (1 + y) / 2."""

    def observe(self, state: Float[Array, " neurons"], *, key: PRNGKeyArray | None = None) -> Float[Array, " neurons"]:
        """Between 0 and 1."""
        return (1 + state) / 2


class NetworkParameters(eqx.Module):
    """What is designed of a classical network: all that it has but its leak."""

    input_weights: Float[Array, "*stack neurons inputs"] = eqx.field(metadata=WEIGHT)
    recurrent_weights: Float[Array, "*stack neurons neurons"] = eqx.field(metadata=WEIGHT)
    bias: Float[Array, "*stack neurons"] = eqx.field(metadata=WEIGHT)

    def substrate(self) -> Rates:
        """The network with these parameters."""
        return Rates(self.input_weights, self.recurrent_weights, self.bias, jnp.ones(()))


def budget(dataset: xr.Dataset, kind: str) -> float:
    """The least readings times shots at which a kind has the wanted accuracy; infinite where it never has."""
    part = dataset.accuracy.sel(kind=kind).mean("seed")
    cost = part.readings * part.shots
    return float(cost.where(part >= WANTED).min().fillna(np.inf))


class Budget(Experiment):
    """Ours: the fewest readings times shots at which sines and squares are told apart with 99.5 %.

    Every reading is a probability that is estimated from N shots: of the mixer the population of a basis state (all
    from the same shots), of a classical neuron its answer, scaled to [0, 1], from N independent binary ones. Mixers
    (`josephson/design`) and echo-state networks are designed by gradient for each number of readings, from random
    starts; other classical reservoirs (Eqs. 12, 13) are the best of many draws. What is best is chosen by the expected
    error on training points, at the shots that it is designed for; accuracies are those on new sequences.
    """

    class Config(WaveformConfig):
        bias: bool = parameter(True, "whether the readout learns a constant")
        readings: tuple[Count, ...] = parameter((2, 3, 4, 6, 9), "measured states or neurons", min_length=1)
        design_shots: tuple[Positive, ...] = parameter(
            (100.0, 1000.0), "shots for which designs minimise the error", min_length=1
        )
        steps: int = parameter(300, "gradient steps", ge=1)
        starts: int = parameter(16, "random starts of a design", ge=1)
        draws: int = parameter(256, "of each kind of reservoir that is only drawn", ge=1)
        learning_rate: float = parameter(0.05, "first step of Adam, falling as a cosine", gt=0)
        numbers: tuple[Count, ...] = parameter(
            (10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 100_000, 1_000_000), "shots tested", min_length=1
        )

        def columns(self) -> int:
            return max(self.readings)

    name = "josephson/budget"
    quick = {
        "seeds": 2,
        "train_points": 160,
        "test_points": 160,
        "readings": (4,),
        "design_shots": (1000.0,),
        "steps": 40,
        "starts": 2,
        "draws": 8,
        "numbers": (1000, 100_000),
    }
    paper = DUDAS
    claims = (
        *(
            Claim.at_most(
                f"fewest readings times shots for 99.5 %: designed mixer against {words}",
                lambda d, kind=kind: budget(d, kind),
                lambda d: budget(d, MIXER),
                source="classical reservoirs of this run, read with the same noise",
                item=BEYOND,
            )
            for kind, words in ((DRAWN, "the best of many drawn reservoirs"), (NETWORK, "a designed network"))
        ),
        *(
            Claim.reported(
                f"fewest readings times shots for 99.5 %: {kind}",
                lambda d, kind=kind: budget(d, kind),
                source="ours",
                item=BEYOND,
            )
            for kind in KINDS
        ),
    )

    def run(self, config: Config, *, key: PRNGKeyArray, progress: Progress) -> xr.Dataset:
        design_key, test_key = jax.random.split(key)
        task = waveforms(config.train_points, config.test_points, key=design_key)
        makers: dict[str, Callable[[int, float, PRNGKeyArray], tuple[Substrate, bool]]] = {
            MIXER: lambda n, shots, key: (self._designed(config, MIXER, n, shots, task, key, progress), False),
            NETWORK: lambda n, shots, key: (self._designed(config, NETWORK, n, shots, task, key, progress), True),
            DRAWN: lambda n, shots, key: (_drawn(config.draws, n, shots, task, key), True),
            WORKING: lambda n, shots, key: (config.mixer(measured=n), False),
        }

        def point(kind: str, readings: int) -> xr.Dataset:
            """The better design at every number of shots: which one, its training error says."""
            scores = []
            for index, shots in enumerate(config.design_shots):
                place = jax.random.fold_in(jax.random.fold_in(design_key, readings), index)
                device, binary = makers[kind](readings, shots, place)
                scores.append(self._tested(config, device, binary, task, test_key))
            expected, tested = (np.array(part) for part in zip(*scores, strict=True))
            best = expected.argmin(0)
            chosen = np.take_along_axis(tested, best[None, None], 0)[0]
            return xr.Dataset(
                {"accuracy": (("seed", "shots"), chosen, {"units": "1", "long_name": "test accuracy"})},
                {"seed": np.arange(config.seeds), "shots": list(config.numbers)},
            )

        labels = {(kind, n): f"{kind}, {n} readings" for kind in KINDS for n in config.readings}
        parts = progress.pieces({label: partial(point, *pair) for pair, label in labels.items()})
        rows = {kind: along("readings", {n: parts[labels[kind, n]] for n in config.readings}) for kind in KINDS}
        return along("kind", rows)

    def _designed(
        self, config: Config, kind: str, n: int, shots: float, task: Task, key: PRNGKeyArray, progress: Progress
    ) -> Substrate:
        """The best of some starts after training."""
        start_key, run_key = jax.random.split(key)
        keys = member_keys(start_key, range(config.starts))
        starts = mixer_starts(config, n, keys) if kind == MIXER else eqx.filter_vmap(partial(_network, n))(keys)
        trained = Trainer(run_key, progress).train(
            f"{kind}, {n} readings, {shots:g} shots",
            starts,
            ReadoutDesign(jnp.asarray(shots), independent=kind == NETWORK),
            (task.train_inputs, task.train_targets),
            optimiser=adjustable(falling_adam(config.steps), learning_rate=config.learning_rate),
            steps=config.steps,
            ensemble=False,
        )
        return member(trained.last, int(np.nanargmin(trained.history.metric("loss")[-1]))).substrate()

    def _tested(
        self, config: Config, device: Substrate, binary: bool, task: Task, key: PRNGKeyArray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Expected error on training points at every number of shots, and accuracies (seed, shots) on new sequences."""
        numbers = jnp.array(config.numbers, float)
        low, high = _extremes(device, task) if binary else (jnp.zeros(()), jnp.ones(()))
        features = (evolve(device, task.train_inputs)[0] - low) / (high - low)
        errors = jax.vmap(lambda shots: readout_error(features, task.train_targets, shots, independent=binary))(numbers)
        # A device, and what scales it, are arrays: of all devices of a kind and size there is one program.
        scores = over_seeds(_scores, key, device, (low, high) if binary else None, numbers, config.conditions())
        return np.asarray(errors), scores(range(config.seeds))

    def figures(self, dataset: xr.Dataset) -> Figures:
        figure = new_figure(9.5, 4)
        left, right = figure.subplots(1, 2)
        mean = dataset.accuracy.mean("seed")
        for kind, colour in COLOURS.items():
            part = mean.sel(kind=kind)
            cost = (part.readings * part.shots).values.ravel()
            left.semilogx(cost, 100 * part.values.ravel(), "o", color=colour, markersize=3, label=kind)
            needed = part.shots.where(part >= WANTED).min("shots")
            right.semilogy(part.readings, needed, "o-", color=colour, label=kind)
        left.axhline(100 * WANTED, color=RED, linewidth=0.8, linestyle=":")
        left.set(xlabel="readings times shots", ylabel="accuracy (%), mean over seeds", ylim=(45, 101))
        left.legend(fontsize="small", loc="lower right")
        right.set(xlabel="readings", ylabel=f"shots for {100 * WANTED:g} %")
        return {"budget": figure}


def _network(neurons: int, key: PRNGKeyArray) -> NetworkParameters:
    drawn = EchoStateNetwork.random(neurons, bias_scale=1.0, key=key)
    return NetworkParameters(drawn.input_weights, drawn.recurrent_weights, drawn.bias)


def _drawn(draws: int, neurons: int, shots: float, task: Task, key: PRNGKeyArray) -> Substrate:
    """Of static neurons, spin-torque oscillators and networks that are drawn, the one with the least expected error."""
    makers: tuple[Callable[..., Any], ...] = (
        eqx.Partial(ReLUReservoir.random, neurons),
        *(eqx.Partial(SpinTorqueReservoir.random, neurons, damping_rate=rate) for rate in RELAXATIONS),
        eqx.Partial(EchoStateNetwork.random, neurons),
    )
    best, least = None, np.inf
    for index, make in enumerate(makers):
        stack = eqx.filter_vmap(lambda k, make=make: make(key=k))(
            jax.random.split(jax.random.fold_in(key, index), draws)
        )

        def error(device: Substrate) -> Array:
            low, high = _extremes(device, task)
            features = (evolve(device, task.train_inputs)[0] - low) / (high - low)
            return readout_error(features, task.train_targets, shots, independent=True)

        errors = np.asarray(eqx.filter_jit(eqx.filter_vmap(error))(stack))
        if np.nanmin(errors) < least:
            best, least = member(stack, int(np.nanargmin(errors))), np.nanmin(errors)
    assert best is not None
    return best


def _extremes(device: Substrate, task: Task) -> tuple[Array, Array]:
    """Least and largest reading of every neuron on training points, a little apart where it never changes."""
    readings = evolve(device, task.train_inputs)[0]
    low, high = readings.min(0), readings.max(0)
    return low, jnp.where(high > low, high, low + 1)


def _scores(
    device: Substrate,
    extremes: tuple[Array, Array] | None,
    numbers: Array,
    conditions: Conditions,
    key: PRNGKeyArray,
) -> Array:
    """Test accuracy of a seed for every number of shots."""
    task_key, run_key = jax.random.split(key)
    task = waveforms(conditions.train_points, conditions.test_points, key=task_key)

    def scored(shots: Array) -> Array:
        if extremes is None:
            assert isinstance(device, JosephsonMixer)
            counted = eqx.tree_at(lambda m: m.shots, device, shots, is_leaf=lambda leaf: leaf is None)
            reading = read_task(counted, task, key=run_key)
        else:
            reading = _sampled(read_task(device, task), extremes, shots, run_key)
        return accuracy(answer(reading, task, **conditions.readout)[0], task.test_targets)

    return jax.lax.map(scored, numbers)


def _sampled(reading: Reading, extremes: tuple[Array, Array], shots: Array, key: PRNGKeyArray) -> Reading:
    """Readings as probabilities that so many binary answers estimate; beyond the extremes they saturate."""
    low, high = extremes

    def estimate(readings: Array, key: PRNGKeyArray) -> Array:
        return jax.random.binomial(key, shots, jnp.clip((readings - low) / (high - low), 0, 1)) / shots

    first, second = jax.random.split(key)
    return Reading(estimate(reading.train, first), estimate(reading.test, second))
