"""What do the neurons do?"""

from __future__ import annotations

from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from morphax._lazy import xr
from morphax.experiments.spintronic._network import NetworkConfig, layered
from morphax.experiments.spintronic.paper import PLOUET
from morphax.experiments.training import Trainer
from morphax.lab.blocks import Blocks
from morphax.lab.experiment import Claim, Experiment, Proof, parameter
from morphax.lab.figures import Figures, new_figure
from morphax.lab.progress import Progress, along
from morphax.learning.backprop import Backpropagation
from morphax.learning.ensemble import map_members
from morphax.substrates.base import evolve
from morphax.substrates.layers import LayeredNetwork
from morphax.substrates.wrappers import WithReadout
from morphax.tasks.base import Task
from morphax.units import MHz

SHOWN = (5, 6, 9, 3, 3, 8)  # classes of the six images in Figs. 1 and 2
COLOURS = ("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple", "tab:brown")


def slowness(dataset: xr.Dataset, interval: float, layer: int) -> float:
    """How many pixels a neuron's power takes to change by its own spread, mean over seeds."""
    return float(dataset.slowness.sel(interval=interval, layer=layer).mean("seed"))


def variation(dataset: xr.Dataset, interval: float) -> float:
    """Standard deviation over time of an output neuron's power, mean over images and neurons."""
    return float(_output_powers(dataset, interval).std("pixel").mean())


def apart(dataset: xr.Dataset, *, same: bool) -> float:
    """Root mean square distance of the output layer's course for two images, of the same class or of two, mean."""
    powers = _output_powers(dataset, _adapted(dataset)).transpose("image", ...).values
    first, second = np.triu_indices(len(powers), 1)
    wanted = (dataset.label.values[first] == dataset.label.values[second]) == same
    return float(np.sqrt(((powers[first] - powers[second]) ** 2).mean((1, 2)))[wanted].mean())


def off_centre(dataset: xr.Dataset) -> float:
    """|mean| of what the filters let through, over its deviation, when adapted; over neurons, images and time."""
    powers = dataset.power.sel(interval=_adapted(dataset)).transpose("pixel", ...).values.astype(float)
    steps = np.diff(powers, axis=0, prepend=0.5)  # the network starts at one half
    later = np.subtract.outer(np.arange(len(steps)), np.arange(len(steps)))
    # Eq. 5, every change in the middle of its interval.
    response = np.where(later >= 0, np.exp(-MHz * _adapted(dataset) * (np.maximum(later, 0) + 0.5)), 0.0)
    filtered = np.tensordot(response, steps, 1)
    return float(abs(filtered.mean()) / filtered.std())


def taken_away(dataset: xr.Dataset) -> float:
    """Part of a lasting shift that the filter (Eq. 5) takes away, mean over an image of the adapted interval."""
    decay = MHz * dataset.sizes["pixel"] * _adapted(dataset)
    return float(1 - (1 - np.exp(-decay)) / decay)


class Dynamics(Experiment):
    """Figs. 1b-d and 2c-e: powers of single neurons of trained networks while six images are read.

    Slowness is the spread of a neuron's power over time and images, divided by the root mean square of its change from
    one pixel to the next.
    """

    class Config(NetworkConfig):
        seeds: int = parameter(3, "networks at each interval; traces are those of the first", ge=1, extent=True)
        epochs: int = parameter(40, "passes over the training images", ge=1)
        fast: float = parameter(0.1, "time between two pixels, Fig. 2c", unit="ns", gt=0)
        adapted: float = parameter(1.0, "time between two pixels, Figs. 1 and 2d", unit="ns", gt=0)
        slow: float = parameter(10.0, "time between two pixels, Fig. 2e", unit="ns", gt=0)

        def intervals_used(self) -> list[tuple[str, float]]:
            return [("fast", self.fast), ("adapted", self.adapted), ("slow", self.slow)]

    name = "spintronic/dynamics"
    quick = {"seeds": 1, "epochs": 4, "layers": (16, 16, 16), "slow": 5.0}
    paper = PLOUET
    claims = (
        *(
            Claim.at_least(
                f"each layer is slower than the one before: layer {layer} against layer {layer - 1} (pixels)",
                lambda d, layer=layer: slowness(d, _adapted(d), layer - 1),
                lambda d, layer=layer: slowness(d, _adapted(d), layer),
                source="Sec. II, Fig. 1: each layer acts as an integrator",
                item="integrators",
            )
            for layer in (1, 2)
        ),
        Claim.at_least(
            "fast input: the output layer is smoother than when adapted (pixels)",
            lambda d: slowness(d, _adapted(d), 2),
            lambda d: slowness(d, float(d.interval.min()), 2),
            source="Sec. IV, Fig. 2c",
            item="too slow",
        ),
        Claim.at_most(
            "slow input: the output layer follows faster than when adapted (pixels)",
            lambda d: slowness(d, _adapted(d), 2),
            lambda d: slowness(d, float(d.interval.max()), 2),
            source="Sec. IV, Fig. 2e; of the memory: spintronic/time-scales",
            item="too fast",
        ),
        Claim.at_least(
            "rich dynamics when adapted: deviation of an output's power over time against fast input",
            lambda d: variation(d, float(d.interval.min())),
            lambda d: variation(d, _adapted(d)),
            source="Sec. IV, Fig. 2d against 2c",
            item="rich dynamics",
        ),
        Claim.at_most(
            "two images of one class lie closer in the output layer than two of different ones (rms of powers)",
            lambda d: apart(d, same=False),
            lambda d: apart(d, same=True),
            source="Sec. III, Fig. 1d; all 32 neurons, other pairs of this run",
            item="separation",
        ),
        Claim.within(
            "powers vary around half: mean power when adapted",
            0.5,
            lambda d: d.mean_power.sel(interval=_adapted(d)).mean(),
            source="Sec. II; ours: 0.15",
            item="half power",
            tolerance=0.15,
        ),
        Claim.at_most(
            "drives are centred: |mean| of what filters let through, over its deviation, when adapted",
            1.0,
            off_centre,
            source="Sec. II; ours: the number",
            item="high-pass filters",
        ),
        Claim.at_least(
            "filters centre them: part of a lasting shift that they take away, mean over an image",
            0.5,
            taken_away,
            source="Sec. II: 1 MHz; ours: half of it",
            item="high-pass filters",
            proof=Proof(
                best=taken_away,
                place="1 MHz is 159 ns, an image 64 ns: 1 - (1 - exp(-u)) / u with u = 64 / 159; what centres the "
                "drives is that filters start at 0 with powers of one half",
            ),
        ),
        Claim.at_least(
            "powers are bounded: the least", 0.0, lambda d: d.power.min(), source="Sec. III", item="bounded"
        ),
        Claim.at_most("and the largest", 1.0, lambda d: d.power.max(), source="Sec. III", item="bounded"),
    )

    def run(self, config: Config, *, key: PRNGKeyArray, progress: Progress) -> xr.Dataset:
        data_key, make_key, train_key = jax.random.split(key, 3)
        trainer = Trainer(train_key, progress)
        task = config.task(data_key)
        labels = {interval: f"{interval:g} ns" for interval in (config.fast, config.adapted, config.slow)}

        def traces(interval: float, seeds: range) -> xr.Dataset:
            here, train = config.but(interval=interval), (task.train_inputs, task.train_targets)
            networks, numbers = here.networks("spintronic", make_key, seeds), here.training(train)
            done = trainer.train(labels[interval], networks, Backpropagation(), train, ensemble=seeds, **numbers)
            return self._traces(here, done.last, _images(task)).assign_coords(seed=list(seeds))

        blocks = Blocks("seed", config.seeds)
        work = blocks.split({label: partial(traces, interval) for interval, label in labels.items()})
        parts = blocks.join(progress.pieces(work))
        for label, part in parts.items():
            parts[label] = part.assign(power=part.power.sel(seed=0, drop=True))
        return along("interval", {interval: parts[label] for interval, label in labels.items()}, {"units": "ns"})

    def _traces(self, config: NetworkConfig, networks: WithReadout, images: Array) -> xr.Dataset:
        powers = np.asarray(map_members(eqx.Partial(_powers, images), layered(networks).observing("states")))
        layers = np.repeat(np.arange(len(config.layers)), config.layers)
        slow = powers.std(axis=(1, 2)) / np.sqrt((np.diff(powers, axis=2) ** 2).mean(axis=(1, 2)))
        by_layer = np.stack([slow[:, layers == layer].mean(axis=1) for layer in range(len(config.layers))], axis=1)
        first = {"units": "1", "long_name": "power of the oscillators of the first network"}
        return xr.Dataset(
            {
                "power": (("seed", "image", "pixel", "neuron"), powers, first),
                "slowness": (("seed", "layer"), by_layer, {"units": "pixels"}),
                "mean_power": ("seed", powers.mean(axis=(1, 2, 3)), {"units": "1"}),
            },
            {
                "label": ("image", list(SHOWN)),
                "of_layer": ("neuron", layers),
                "pixel": 1 + np.arange(powers.shape[2]),
                "layer": np.arange(len(config.layers)),
            },
        )

    def figures(self, dataset: xr.Dataset) -> Figures:
        layers = new_figure(11, 3.4)
        adapted = dataset.power.sel(interval=_adapted(dataset))
        for axes, layer, neuron in zip(layers.subplots(1, 3, sharey=True), (0, 1, 2), (0, 0, 1), strict=True):
            _draw(axes, adapted.where(adapted.of_layer == layer, drop=True).isel(neuron=neuron), _adapted(dataset))
            axes.set_title(f"Fig. 1: neuron {neuron} of layer {layer}")
        layers.axes[0].set_ylabel("power")
        layers.axes[0].legend(dataset.label.values.tolist(), title="class", fontsize="small", loc="lower left", ncols=2)

        speeds = new_figure(11, 3.4)
        for axes, interval, neuron in zip(speeds.subplots(1, 3), dataset.interval.values, (3, 1, 2), strict=True):
            part = dataset.power.sel(interval=interval)
            _draw(axes, part.where(part.of_layer == part.of_layer.max(), drop=True).isel(neuron=neuron), interval)
            axes.set_title(f"Fig. 2: a pixel every {interval:g} ns, neuron {neuron} of layer 2")
        speeds.axes[0].set_ylabel("power")
        return {"layers": layers, "speeds": speeds}


def _adapted(dataset: xr.Dataset) -> float:
    return float(dataset.interval[1])


def _output_powers(dataset: xr.Dataset, interval: float) -> xr.DataArray:
    """Of the last layer, for an interval."""
    return dataset.power.sel(interval=interval).isel(neuron=(dataset.of_layer == dataset.of_layer.max()).values)


def _draw(axes: Any, powers: xr.DataArray, interval: float) -> None:
    for image, colour in enumerate(COLOURS):
        axes.plot(powers.pixel * interval, powers.isel(image=image), color=colour, linewidth=1.2)
    axes.set_xlabel("time (ns)")


def _images(task: Task) -> Float[Array, "images time"]:
    """Test images of the classes that the paper shows: of a class that comes twice, the first two."""
    labels = np.argmax(np.asarray(task.test_targets), axis=1)
    seen: dict[int, int] = {}
    chosen = []
    for label in SHOWN:
        chosen.append(np.flatnonzero(labels == label)[seen.get(label, 0)])
        seen[label] = seen.get(label, 0) + 1
    return task.test_inputs[jnp.array(chosen)]


@eqx.filter_jit
def _powers(images: Float[Array, "images time"], network: LayeredNetwork) -> Float[Array, "images time neurons"]:
    return jax.vmap(lambda drives: evolve(network, drives)[0])(images)
