"""Which couplings, dissipations and drives should one build?"""

from __future__ import annotations

from functools import partial
from typing import Annotated

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray
from pydantic import Field

from morphax._lazy import xr
from morphax.experiments.josephson._mixer import Conditions, MixerConfig, WaveformConfig, over_seeds
from morphax.experiments.josephson.paper import DUDAS
from morphax.experiments.training import Trained, Trainer, falling_adam
from morphax.lab.blocks import Blocks
from morphax.lab.experiment import BEYOND, Claim, Experiment, parameter
from morphax.lab.figures import BLUE, GREY, RED, Figures, new_figure
from morphax.lab.progress import Progress, along
from morphax.learning.design import ReadoutDesign
from morphax.learning.ensemble import member, member_keys
from morphax.learning.metrics import accuracy
from morphax.learning.readout import answer, read_task
from morphax.learning.train import adjustable
from morphax.pytrees import WEIGHT
from morphax.quantum.measurement import PhotonNumbers
from morphax.substrates.base import evolve
from morphax.substrates.josephson import JosephsonMixer
from morphax.tasks.waveforms import waveforms
from morphax.units import us


class MixerParameters(eqx.Module):
    """What is designed, in rad/us and unbounded: logarithms of what must stay positive."""

    coupling: Float[Array, "*stack modes modes"] = eqx.field(metadata=WEIGHT)
    log_damping: Float[Array, "*stack modes"] = eqx.field(metadata=WEIGHT)
    log_drive: Float[Array, "*stack modes"] = eqx.field(metadata=WEIGHT)
    mixer: JosephsonMixer

    def substrate(self) -> JosephsonMixer:
        """The mixer with these parameters; everything else as in `mixer`."""
        new = (self.coupling / us, jnp.exp(self.log_damping) / us, jnp.exp(self.log_drive) / us**0.5)
        return eqx.tree_at(lambda m: (m.coupling, m.damping_rate, m.drive_amplitude), self.mixer, new)


def mixer_starts(config: MixerConfig, measured: int, keys: PRNGKeyArray) -> MixerParameters:
    """Random devices around the working point: half an octave in drive and damping, couplings of either sign."""
    mixer = config.mixer(measured=measured)

    def one(key: PRNGKeyArray) -> MixerParameters:
        keys = jax.random.split(key, 3)
        spread = jnp.triu(jax.random.normal(keys[0], mixer.coupling.shape))
        coupling = mixer.coupling * us + config.coupling * np.pi * (spread + jnp.triu(spread, 1).T)
        damping = jnp.log(mixer.damping_rate * us) + 0.5 * jax.random.normal(keys[1], (mixer.modes,))
        drive = jnp.log(mixer.drive_amplitude * us**0.5) + 0.3 * jax.random.normal(keys[2], (mixer.modes,))
        return MixerParameters(coupling, damping, drive, mixer)

    return eqx.filter_vmap(one)(keys)


class Design(Experiment):
    """Ours: a mixer designed by gradient through its dynamics does with fewer states or shots what sixteen did.

    Couplings (and detunings), dissipations and drives of both modes minimise the readout's expected error at a stated
    number of shots, from random starts around the working point. The best start is chosen by its training error; all
    accuracies are on new sequences with counted photons.
    """

    class Config(WaveformConfig):
        bias: bool = parameter(True, "whether the readout learns a constant")
        fewer: int = parameter(4, "measured states of the frugal design", ge=1)
        full: int = parameter(16, "measured states of the reference and of the other design", ge=1)
        design_shots: float = parameter(1e4, "shots per reading that the design minimises the error for", gt=0)
        steps: int = parameter(300, "gradient steps", ge=1)
        starts: int = parameter(16, "random starts", ge=1, extent=True)
        learning_rate: float = parameter(0.05, "first step of Adam, falling as a cosine", gt=0)
        numbers: tuple[Annotated[int, Field(ge=1, le=10**12)], ...] = parameter(
            (100, 1000, 10_000, 100_000, 1_000_000), "shots tested", min_length=1
        )

    name = "josephson/design"
    quick = {
        "seeds": 3,
        "train_points": 240,
        "test_points": 400,
        "steps": 60,
        "starts": 4,
        "numbers": (1000, 10_000, 1_000_000),
    }
    paper = DUDAS
    claims = (
        Claim.at_least(
            "designed, 4 states, 10^4 shots, against the working point with 16 states and as many shots",
            lambda d: at(d, "working, 16", 10_000),
            lambda d: at(d, "designed, 4", 10_000),
            source="16 measured states of the working point, same run",
            item=BEYOND,
        ),
        Claim.at_least(
            "designed, 4 states, 10^4 shots, against the paper's accuracy of exact populations",
            0.995,
            lambda d: at(d, "designed, 4", 10_000),
            source="Sec. IV A",
            item=BEYOND,
        ),
        Claim.at_least(
            "designed, 16 states, 10^4 shots, against the working point with 10^6",
            lambda d: at(d, "working, 16", 1_000_000),
            lambda d: at(d, "designed, 16", 10_000),
            source="a hundred times the shots at the working point, same run",
            item=BEYOND,
        ),
    )

    def run(self, config: Config, *, key: PRNGKeyArray, progress: Progress) -> xr.Dataset:
        designs = {f"designed, {n}": n for n in (config.fewer, config.full)}
        references = {f"working, {n}": n for n in (config.fewer, config.full)}
        train_key, test_key = jax.random.split(key)

        def designed(measured: int, starts: range) -> xr.Dataset:
            """Tests of the best of some starts."""
            trained = self._trained(config, measured, starts, train_key, progress)
            errors = trained.history.metric("loss")
            best = int(np.argmin(errors[-1]))
            curve = (("start", "step"), errors.T, {"units": "1", "long_name": "expected squared error of the readout"})
            return self._tested(config, member(trained.last, best).substrate(), test_key).assign(error=curve)

        starts = Blocks("start", config.starts, 4, together=False)
        work = starts.split({name: partial(designed, n) for name, n in designs.items()})
        work |= {
            name: partial(self._tested, config, config.mixer(measured=n), test_key) for name, n in references.items()
        }
        parts = progress.pieces(work)

        def best(name: str) -> xr.Dataset:
            blocks = [part for label, part in parts.items() if label.startswith(f"{name}, start ")]
            least = min(blocks, key=lambda block: float(block.error[:, -1].min()))
            return least.drop_vars("error").assign(error=xr.concat([block.error for block in blocks], "start"))

        devices = {name: best(name) for name in designs} | {name: parts[name] for name in references}
        attributes = {"long_name": "device, measured states"}
        return along("device", devices, attributes, join="outer", coords="minimal", compat="override")

    def _trained(
        self, config: Config, measured: int, starts: range, key: PRNGKeyArray, progress: Progress
    ) -> Trained[MixerParameters]:
        """Designs from some starts; they share a rule that takes them all at once."""
        task_key, start_key, run_key = jax.random.split(key, 3)
        task = waveforms(config.train_points, config.test_points, key=task_key)
        return Trainer(run_key, progress).train(
            f"designed, {measured}",
            mixer_starts(config, measured, member_keys(start_key, starts)),
            ReadoutDesign(jnp.asarray(config.design_shots)),
            (task.train_inputs, task.train_targets),
            optimiser=adjustable(falling_adam(config.steps), learning_rate=config.learning_rate),
            steps=config.steps,
            ensemble=False,
        )

    def _tested(self, config: Config, mixer: JosephsonMixer, key: PRNGKeyArray) -> xr.Dataset:
        """Accuracy on new sequences, by seed and number of shots, and the device itself."""
        numbers = jnp.array(config.numbers, float)
        scores, photons = over_seeds(_scores, key, mixer, numbers, config.conditions())(range(config.seeds))
        rate, entries = {"units": "rad/us"}, {"long_name": "upper triangle of G"}
        return xr.Dataset(
            {
                "accuracy": (("seed", "shots"), scores, {"units": "1", "long_name": "test accuracy"}),
                "peak_photons": ("mode", photons.max(axis=0), {"units": "1", "long_name": "largest photon number"}),
                "coupling": (
                    ("mode", "other"),
                    np.triu(mixer.coupling) * us,
                    rate | entries,
                ),
                "damping_rate": ("mode", np.asarray(mixer.damping_rate) * us, rate),
                "drive_amplitude": ("mode", np.asarray(mixer.drive_amplitude) * us**0.5, {"units": "sqrt(rad/us)"}),
            },
            {"seed": np.arange(config.seeds), "shots": list(config.numbers)},
        )

    def figures(self, dataset: xr.Dataset) -> Figures:
        figure = new_figure(10, 4.2)
        left, right = figure.subplots(1, 2)
        devices = [str(name) for name in dataset.device.values]
        for device in (name for name in devices if name.startswith("designed")):
            colour = BLUE if device == devices[0] else RED
            left.plot(dataset.step, dataset.error.sel(device=device).T, color=colour, alpha=0.3, linewidth=0.8)
            left.plot([], [], color=colour, label=f"{device} states")
        left.set(yscale="log", xlabel="gradient step", ylabel="expected squared error", title="design: all starts")
        left.legend()
        styles = ((BLUE, "o-"), (RED, "o-"), (GREY, "s:"), ("black", "s:"))
        for device, (colour, style) in zip(devices, styles, strict=True):
            part = 100 * dataset.accuracy.sel(device=device)
            mean, spread = part.mean("seed"), part.std("seed")
            right.errorbar(part.shots, mean, spread, fmt=style, color=colour, capsize=3, label=f"{device} states")
        right.axhline(99.5, color="black", linewidth=0.8, linestyle=":")
        right.set(xscale="log", xlabel="measurement shots per reading", ylabel="accuracy (%)", ylim=(None, 100.5))
        right.set_title(f"new sequences, {dataset.sizes['seed']} seeds")
        right.legend(fontsize="small", loc="lower right")
        return {"design": figure}


def _scores(mixer: JosephsonMixer, numbers: Array, conditions: Conditions, key: PRNGKeyArray) -> tuple[Array, Array]:
    """Test accuracy of a seed for every number of shots, and the largest photon number of each mode."""
    task_key, run_key = jax.random.split(key)
    task = waveforms(conditions.train_points, conditions.test_points, key=task_key)

    def scored(shots: Array) -> Array:
        device = eqx.tree_at(lambda m: m.shots, mixer, shots, is_leaf=lambda leaf: leaf is None)
        reading = read_task(device, task, noise=conditions.noise, key=run_key)
        return accuracy(answer(reading, task, **conditions.readout)[0], task.test_targets)

    counter = eqx.tree_at(lambda m: m.measured, mixer, PhotonNumbers())
    photons = jnp.max(evolve(counter, task.test_inputs)[0], axis=0)
    return jax.lax.map(scored, numbers), photons


def at(dataset: xr.Dataset, device: str, shots: int) -> float:
    """Mean test accuracy of a device at a number of shots."""
    return float(dataset.accuracy.sel(device=device, shots=shots).mean())
