"""Can spiking neurons learn to sample?"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from morphax._lazy import xr
from morphax.experiments.spiking._networks import SpikingConfig
from morphax.experiments.spiking.paper import PEHLE
from morphax.experiments.training import Trainer, judged
from morphax.lab.experiment import Claim, Experiment, parameter
from morphax.lab.figures import BLUE, GREEN, GREY, Figures, new_figure
from morphax.lab.progress import Progress, along
from morphax.learning.backprop import Backpropagation
from morphax.learning.ensemble import map_members
from morphax.learning.objectives import CategoricalLoss
from morphax.substrates.base import evolve
from morphax.substrates.spiking import SpikingNetwork


def fall(dataset: xr.Dataset) -> float:
    """By how much the loss of an instance falls from its begin to its end: mean less two standard errors."""
    losses = dataset.training_divergence
    falls = losses.isel(epoch=0) - losses.isel(epoch=-1)
    return float(falls.mean() - 2 * falls.std(ddof=1) / falls.size**0.5)


def refractory_times(dataset: xr.Dataset) -> np.ndarray:
    """How long neurons stay active, in ms, of all that begin and end within what is shown."""
    active = dataset.activity.transpose("time", ...).values.reshape(dataset.sizes["time"], -1) > 0.5
    step = float(dataset.time[1] - dataset.time[0])
    changes = [np.flatnonzero(np.diff(one)) for one in active.T]
    # Every other interval between two changes is one of activity; the first, where the neuron rested before.
    return step * np.concatenate([np.diff(at)[int(one[0]) :: 2] for at, one in zip(changes, active.T, strict=True)])


class Distribution(Experiment):
    """Fig. 9: five neurons with a refractory time of ten steps learn the distribution of states of other such neurons.

    The target is what a network with random weights samples, smoothed so that no state has probability 0. Training and
    judging draw inputs of their own.
    """

    class Config(SpikingConfig):
        neurons: int = parameter(5, "recurrently connected", ge=1, le=10)
        inputs: int = parameter(256, "Poisson sources", ge=1)
        input_rate: float = parameter(0.3, "of a source", unit="1/ms", gt=0)
        leak_potential: float = parameter(0.9, "of the threshold")
        refractory_steps: int = parameter(10, "time steps of a refractory time", ge=1)
        input_mean: float = parameter(0.0, "mean weight of the inputs")
        input_deviation: float = parameter(0.02, "standard deviation of the weights of the inputs (not printed)", ge=0)
        recurrent_deviation: float = parameter(0.3, "standard deviation of the recurrent weights (not printed)", ge=0)
        learning_rate: float = parameter(1e-3, "of Adam, its default", gt=0)
        mean_learning_rate: float = parameter(1e-4, "of Adam, for the mean of a row", gt=0)
        decay: float = parameter(1000.0, "epochs in which both fall by a factor e", gt=0)
        epochs: int = parameter(1000, "updates", ge=1)
        every: int = parameter(25, "epochs between two looks", ge=1)
        chains: int = parameter(16, "independent runs of a network in an epoch: the batch", ge=1)
        intervals: int = parameter(6, "of a chain", ge=1)
        burn_in: int = parameter(50, "time steps of a chain that do not count", ge=0)
        seeds: int = parameter(5, "instances: targets and networks", ge=1, extent=True)
        smoothing: float = parameter(1e-5, "share of the uniform distribution in the target", gt=0, lt=1)
        test_chains: int = parameter(16, "sampling runs to judge a network", ge=2)
        test_intervals: int = parameter(201, "of such a run", ge=2)

    name = "spiking/distribution"
    quick = {"seeds": 1, "epochs": 20, "every": 10, "intervals": 4, "test_intervals": 21, "inputs": 64}
    paper = PEHLE
    claims = (
        Claim.at_most(
            "Kullback-Leibler divergence after training, mean of five instances",
            0.05,
            lambda d: d.divergence.mean("seed"),
            source="Fig. 9c: similar to Ref. 14; ours: the number",
            item="distribution",
        ),
        Claim.reported(
            "before training",
            lambda d: d.training_divergence.isel(epoch=0).mean("seed"),
            source="Fig. 9c",
            item="distribution",
        ),
        Claim.at_least(
            "the loss falls in training: mean of five instances less two standard errors",
            0.0,
            fall,
            source="Fig. 9c",
            tolerance=-1e-9,
            item="instances",
        ),
        Claim.reported(
            "after training: standard deviation over five instances",
            lambda d: d.training_divergence.isel(epoch=-1).std("seed", ddof=1),
            source="Fig. 9c",
            item="instances",
        ),
        Claim.within(
            "shortest activity of a neuron (ms): the refractory time",
            10.0,
            lambda d: refractory_times(d).min(),
            source="Fig. 9a, App. B",
            tolerance=0.0,
            item="refractory times",
        ),
        Claim.within(
            "longest activity of a neuron (ms): one spike each",
            10.0,
            lambda d: refractory_times(d).max(),
            source="Fig. 9a, App. B",
            tolerance=0.0,
            item="refractory times",
        ),
        Claim.reported(
            "least to largest sampled probability of a pattern over 16 runs, mean width",
            lambda d: (d.sampled.max("run") - d.sampled.min("run")).mean(),
            source="Fig. 9b: error bars",
            item="error bars",
        ),
        Claim.at_least(
            "patterns whose wanted probability lies between the least and the largest sampled one, share",
            0.5,
            lambda d: ((d.wanted >= d.sampled.min("run")) & (d.wanted <= d.sampled.max("run"))).mean(),
            source="Fig. 9b; ours: the number",
            item="error bars",
        ),
        Claim.reported(
            "smallest that sampling allows: another run of the target's own network",
            lambda d: d.own_divergence.mean("seed"),
            source="ours",
            item="distribution",
        ),
    )

    def run(self, config: Config, *, key: PRNGKeyArray, progress: Progress) -> xr.Dataset:
        labels = {seed: f"instance {seed}" for seed in range(config.seeds)}
        work = {
            label: partial(_instance, config, jax.random.fold_in(key, seed), progress, label)
            for seed, label in labels.items()
        }
        parts = progress.pieces(work)
        return along("seed", {seed: parts[label] for seed, label in labels.items()})

    def figures(self, dataset: xr.Dataset) -> Figures:
        figure = new_figure(11, 7)
        grid = figure.add_gridspec(2, 3)
        spikes, bars, curve = (figure.add_subplot(part) for part in (grid[0, :], grid[1, :2], grid[1, 2]))
        first = dataset.isel(seed=0)
        for neuron in range(dataset.sizes["neuron"]):
            active = np.asarray(first.activity.isel(neuron=neuron), bool)
            spikes.fill_between(first.time, neuron - 0.4, neuron + 0.4, where=active, color=GREY, alpha=0.5, step="pre")
            begins = np.flatnonzero(active & ~np.roll(active, 1))
            spikes.vlines(first.time.values[begins], neuron - 0.4, neuron + 0.4, color="black", linewidth=1)
        spikes.set(xlabel="time (ms)", ylabel="neuron", title="Fig. 9a: spikes and refractory times")
        spikes.grid(False)
        states = np.arange(dataset.sizes["pattern"])
        runs = first.sampled
        bars.bar(states - 0.2, runs.mean("run"), 0.4, color=BLUE, label="sampled")
        bars.vlines(states - 0.2, runs.min("run"), runs.max("run"), color="black", linewidth=0.8)
        bars.bar(states + 0.2, first.wanted, 0.4, color=GREEN, label="target")
        bars.set(yscale="log", ylim=(1e-4, 1), xlabel="state", ylabel="probability", title="Fig. 9b")
        bars.legend(fontsize="small")
        mean, spread = dataset.training_divergence.mean("seed"), dataset.training_divergence.std("seed")
        curve.semilogy(dataset.epoch, mean, color=BLUE)
        curve.fill_between(dataset.epoch, np.maximum(mean - spread, 1e-3), mean + spread, color=BLUE, alpha=0.2)
        curve.set(xlabel="step", ylabel="divergence (nat)", title="Fig. 9c")
        return {"distribution": figure}


def _instance(config: Distribution.Config, key: PRNGKeyArray, progress: Progress, label: str) -> xr.Dataset:
    target_key, sample_key, make_key, train_key, test_key = jax.random.split(key, 5)
    states = 2**config.neurons

    def network(key: PRNGKeyArray) -> SpikingNetwork:
        return SpikingNetwork.random(
            config.neurons,
            config.inputs,
            key=key,
            leak_potential=config.leak_potential,
            refractory_steps=config.refractory_steps,
            **config.options(),
        )

    rule = Backpropagation(CategoricalLoss(config.neurons, config.burn_in), observe="every")
    uniform = jnp.full(states, 1 / states)

    def data(chains: int, intervals: int, wanted: Array) -> tuple[Array, Array]:
        return jnp.ones((chains, intervals)), jnp.broadcast_to(wanted, (chains, states))

    teacher, test = network(target_key), (config.test_chains, config.test_intervals)
    sampled = judged(rule, data(*test, uniform), teacher, sample_key)["distribution"]
    wanted = (1 - config.smoothing) * sampled + config.smoothing * uniform
    own = judged(rule, data(*test, wanted), teacher, jax.random.fold_in(sample_key, 1))["loss"]
    student, training = network(make_key), data(config.chains, config.intervals, wanted)
    trainer, watch = Trainer(train_key, progress), {"further": training}
    done = trainer.train(label, student, rule, training, watch=watch, ensemble=False, **config.training())
    before = judged(rule, data(*test, wanted), student, test_key)["loss"]
    run = data(1, config.test_intervals, wanted)
    runs = map_members(
        lambda k: rule.metrics(done.best, *run, key=k)["distribution"], jax.random.split(test_key, config.test_chains)
    )
    after = judged(rule, data(*test, wanted), done.best, test_key)
    activity = evolve(done.best, jnp.ones(1 + 200 // config.interval), key=test_key)[0].reshape(-1, config.neurons)
    columns = {
        "divergence": ((), after["loss"]),
        "own_divergence": ((), own),
        "training_divergence": ("epoch", [before, *done.history.watched("further")["loss"]]),
        "wanted": ("pattern", wanted),
        "sampled": (("run", "pattern"), runs),
        "activity": (("time", "neuron"), activity[-200:]),
    }
    dataset = xr.Dataset({name: (dims, np.asarray(v, float), {"units": "1"}) for name, (dims, v) in columns.items()})
    for name in ("divergence", "own_divergence", "training_divergence"):
        dataset[name].attrs["units"] = "nat"
    times = config.time_step * np.arange(len(activity[-200:]))
    return dataset.assign_coords(epoch=[0, *done.history.steps], time=("time", times, {"units": "ms"}))
