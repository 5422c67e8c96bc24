"""What a weak measurement answers, and what it leaves."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray
from pydantic import Field

from morphax._lazy import xr
from morphax.experiments.quantized._claims import BOTH, ROTATION, WEAK, wrong_at
from morphax.experiments.quantized.paper import BARNEY
from morphax.lab.experiment import BaseConfig, Claim, Experiment, Proof, parameter
from morphax.lab.figures import BLUE, GREY, RED, Figures, new_figure
from morphax.lab.progress import Progress, along
from morphax.learning.ensemble import map_members, member_keys
from morphax.substrates.quantized import QuantizedPerceptron, sign

REGIMES = {"weak alone": 0.0, "both": BOTH.width}
BELOW = ROTATION.width * np.outer([-1, 1], np.linspace(0.01, 0.9, 50)).ravel()  # preactivations below a
ABOVE = ROTATION.width * np.outer([-1, 1], np.linspace(1, 10, 50)).ravel()
Strength = Annotated[float, Field(ge=0, le=np.pi / 2)]


def wrong(layer: int) -> Callable[[xr.Dataset], float]:
    """Share of activations that are not the sign of their preactivation, weak measurement alone at the paper's g."""
    return lambda d: float(d.wrong.sel(regime="weak alone", layer=layer).sel(strength=WEAK.strength, method="nearest"))


def coherence(regime: str) -> Callable[[xr.Dataset], float]:
    """Mean |x| that measurements leave, over all layers, at the paper's g."""
    return lambda d: float(d.coherence.sel(regime=regime).sel(strength=WEAK.strength, method="nearest").mean("layer"))


def classical(dataset: xr.Dataset) -> float:
    """Share of activations that are wrong where g is pi / 2, weak measurement alone; the largest of all layers."""
    return float(dataset.wrong.sel(regime="weak alone").sel(strength=np.pi / 2, method="nearest", tolerance=1e-6).max())


def concurrence(up: float, strength: float) -> float:
    """Entanglement of qubit and ancilla after Eq. 7, 1 for a Bell state; the qubit was up with this probability."""
    qubit, ancilla = np.array([up, 1 - up]) ** 0.5, np.array([1.0, 1.0]) / 2**0.5
    z, y = np.diag([1.0, -1.0]), np.array([[0.0, -1j], [1j, 0.0]])
    gate = np.cos(strength / 2) * np.eye(4) + 1j * np.sin(strength / 2) * np.kron(z, y)
    state = gate @ np.kron(qubit, ancilla)
    return float(2 * abs(state[0] * state[3] - state[1] * state[2]))


class Outcomes(Experiment):
    """The section on weak measurement: how often an activation is wrong, and how much coherence is left.

    Random networks see random images of unit variance. An activation is wrong where it is not the sign of its
    preactivation; coherence is |x| of a neuron's qubit after it was measured. Beside what is drawn: the paper's
    (1 - sin g) / 2, and cos(g)^2 / 2, which Eq. 5 makes of it from the second layer on, since it turns a qubit back by
    the outcome, and not by where it is.
    """

    class Config(BaseConfig):
        seeds: int = parameter(10, "networks", ge=1, le=1000)
        images: int = parameter(200, "random inputs of each", ge=1)
        inputs: int = parameter(784, "numbers of an image", ge=1)
        neurons: int = parameter(512, "of each hidden layer", ge=1)
        layers: int = parameter(3, "hidden ones", ge=2, le=100)
        strengths: tuple[Strength, ...] = parameter(
            tuple(k * np.pi / 38 for k in (2, 4, 7, 10, 13, 16, 18, 19)), "g", unit="rad", min_length=1
        )

        def memory(self) -> float:
            weights = self.neurons * (self.inputs + (self.layers - 1) * self.neurons)
            return self.bytes_of_number * self.seeds * (weights + 8.0 * self.images * self.neurons * self.layers)

    name = "quantized/outcomes"
    quick = {"seeds": 2, "images": 20, "neurons": 128}
    paper = BARNEY
    claims = (
        Claim.within(
            "first layer: share of wrong activations",
            (1 - np.sin(WEAK.strength)) / 2,
            wrong(1),
            source="section on weak measurement: (1 - sin g) / 2",
            tolerance=0.002,
            item="wrong activations",
        ),
        Claim.within(
            "second layer: share of wrong activations",
            (1 - np.sin(WEAK.strength)) / 2,
            wrong(2),
            source="section on weak measurement: (1 - sin g) / 2, each activation",
            tolerance=0.002,
            item="wrong activations",
            proof=Proof(
                best=np.cos(WEAK.strength) ** 2 / 2,
                place="by Eq. 5 it is cos(g)^2 / 2 from the second layer on (docs/quantized.md, What is simulated)",
            ),
        ),
        Claim.at_most(
            "rotation: largest probability of a wrong activation where |h| >= a",
            0.0,
            lambda d: wrong_at(ABOVE, width=ROTATION.width).max(),
            source="section on weak measurement",
            tolerance=1e-6,
            item="preactivations",
        ),
        Claim.at_least(
            "rotation: least probability of a wrong activation where 0 < |h| < 0.9 a",
            0.0,
            lambda d: wrong_at(BELOW, width=ROTATION.width).min(),
            source="section on weak measurement: nonzero; ours: 1e-3",
            tolerance=-1e-3,
            item="preactivations",
        ),
        Claim.at_most(
            "weak measurement: largest difference of the probabilities of a wrong activation, all |h|",
            0.0,
            lambda d: np.ptp(wrong_at(np.concatenate([BELOW, ABOVE]), strength=WEAK.strength)),
            source="section on weak measurement: the same for each activation",
            tolerance=1e-6,
            item="preactivations",
        ),
        Claim.at_most(
            "g = pi / 2: share of wrong activations",
            0.0,
            classical,
            source="after Eq. 8: recovering classical behaviour",
            item="classical limit",
        ),
        Claim.at_most(
            "a = 0, g = pi / 2: largest probability of a wrong activation",
            0.0,
            lambda d: wrong_at(np.concatenate([BELOW, ABOVE])).max(),
            source="abstract: exactly; ours: rounding",
            tolerance=1e-6,
            item="classical limit",
        ),
        Claim.at_least(
            "g = pi / 2: entanglement of qubit and ancilla, the least over states of the qubit (concurrence)",
            1.0,
            lambda d: min(concurrence(up, np.pi / 2) for up in np.linspace(0, 1, 101)),
            source="after Eq. 8: a maximally entangled Bell state",
            tolerance=1e-9,
            item="entanglement",
            proof=Proof(
                best=0.0,
                place="by Eq. 8 it is 2 |alpha beta|: 1 only where |alpha|^2 = 1/2, and 0 for the basis states, in "
                "which qubits always are where a = 0",
            ),
        ),
        Claim.at_least(
            "the same for |alpha|^2 = 1/2",
            1.0,
            lambda d: concurrence(0.5, np.pi / 2),
            source="after Eq. 8",
            tolerance=1e-9,
            item="entanglement",
        ),
        Claim.at_least(
            "weak measurement alone: coherence that is left, mean |x|",
            1e-3,
            coherence("weak alone"),
            source="section on weak measurement; ours: the number",
            item="coherence",
            proof=Proof(
                best=0.0,
                place="with a = 0 all angles are 0 or pi, and qubits never leave their basis states "
                "(docs/quantized.md, What is simulated)",
            ),
        ),
        Claim.at_least(
            "weak measurement and rotation: coherence that is left, mean |x|",
            1e-3,
            coherence("both"),
            source="section on weak measurement; ours: the number",
            item="coherence",
        ),
    )

    def run(self, config: Config, *, key: PRNGKeyArray, progress: Progress) -> xr.Dataset:
        sizes = (config.inputs, *(config.neurons,) * config.layers, 1)
        keys = member_keys(key, config.seeds)

        def at(width: float, strength: float) -> xr.Dataset:
            make = eqx.Partial(_drawn, sizes, config.images, jnp.asarray(width), jnp.asarray(strength))
            found = map_members(make, keys)
            values = {name: ("layer", np.asarray(value).mean(0), {"units": "1"}) for name, value in found.items()}
            return xr.Dataset(values, {"layer": np.arange(1, config.layers + 1)})

        labels = {(name, g): f"{name}, g = {g:.4g}" for name in REGIMES for g in config.strengths}
        work = {label: partial(at, REGIMES[name], g) for (name, g), label in labels.items()}
        done = progress.pieces(work)
        meaning = {"units": "rad", "long_name": "strength g of the measurement"}
        parts = {
            name: along("strength", {g: done[labels[name, g]] for g in config.strengths}, meaning) for name in REGIMES
        }
        return along("regime", parts)

    def figures(self, dataset: xr.Dataset) -> Figures:
        figure = new_figure(9, 3.4)
        left, right = figure.subplots(1, 2)
        fine = np.linspace(0, np.pi / 2, 200)
        left.plot(fine, (1 - np.sin(fine)) / 2, color=GREY, label=r"$(1 - \sin g) / 2$")
        left.plot(fine, np.cos(fine) ** 2 / 2, color=GREY, linestyle=":", label=r"$\cos^2 g / 2$")
        for layer, colour in zip(dataset.layer.values[:2], (BLUE, RED), strict=False):
            part = dataset.sel(regime="weak alone", layer=layer)
            left.plot(part.strength, part.wrong, "o", color=colour, markersize=4, label=f"layer {layer}")
        left.set(xlabel="strength g (rad)", ylabel="wrong activations, share")
        left.legend(fontsize="small")
        for name, colour in zip(REGIMES, (BLUE, RED), strict=True):
            part = dataset.coherence.sel(regime=name).mean("layer")
            right.plot(part.strength, part, "o-", color=colour, markersize=4, label=f"a = {REGIMES[name]:.3g}")
        right.set(xlabel="strength g (rad)", ylabel="coherence left, mean |x|")
        right.legend(fontsize="small")
        return {"outcomes": figure}


def _drawn(sizes: tuple[int, ...], images: int, width: Array, strength: Array, key: PRNGKeyArray) -> dict[str, Array]:
    """Of every hidden layer of a random network: share of wrong activations, and mean coherence, over random images."""
    make_key, image_key, shot_key = jax.random.split(key, 3)
    network = QuantizedPerceptron.random(sizes, width=width, strength=strength, key=make_key)

    def shot(image: Array, key: PRNGKeyArray) -> tuple[Array, Array]:
        below, memory, wrong, left = image, None, [], []
        for matrix, layer_key in zip(network.weights[:-1], jax.random.split(key, network.layers), strict=True):
            preactivation = below @ matrix.T
            below, memory = network.activations(preactivation, memory, layer_key)
            wrong.append(jnp.mean(below != sign(preactivation)))
            left.append(jnp.mean(jnp.abs(memory[2])))
        return jnp.stack(wrong), jnp.stack(left)

    drives = jax.random.normal(image_key, (images, sizes[0]))
    wrong, left = jax.vmap(shot)(drives, jax.random.split(shot_key, images))
    return {"wrong": wrong.mean(0), "coherence": left.mean(0)}
