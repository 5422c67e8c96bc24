"""Fig. 3: sine or square?"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from morphax._lazy import xr
from morphax.experiments.josephson._mixer import Conditions, WaveformConfig, over_seeds
from morphax.lab.blocks import Blocks
from morphax.lab.experiment import Claim, Experiment, parameter
from morphax.lab.figures import BLUE, GREY, RED, Figures, new_figure
from morphax.lab.progress import Progress
from morphax.learning.metrics import accuracy, rmse, root_sum_square_over_n
from morphax.learning.readout import answer, read_task
from morphax.substrates.josephson import JosephsonMixer
from morphax.tasks.waveforms import waveforms
from morphax.units import MHz

PRINTED_DAMPING = (17.0, 21.0)
"""The dissipation rates of Sec. III over 2 pi, in MHz."""

ROWS = {"separate, 16": ("separate", 16), "separate, 9": ("separate", 9), "joint, 16": ("joint", 16)}
ROWS |= {"joint, 9": ("joint", 9)}
SCORES = {"accuracy": accuracy, "rmse": rmse, "root_sum_square_over_n": root_sum_square_over_n}
B, C = "Sec. IV A, Fig. 3b", "Sec. IV A, Fig. 3c"
JOINT = "Sec. VI A as printed, kappa = 2 pi x 17, 21 MHz; no g is printed for it"


class Waveforms(Experiment):
    """Fig. 3: a two-mode mixer tells the points of sine periods from those of square periods.

    Sixteen and nine measured populations with separate ports and working parameters; and, as rows of their own, the
    printed joint port with the printed rates (2 pi included), its drive scaled to a stated peak photon number.

    The mixer is linear: its state is one complex number a mode, without entanglement, and its populations are products
    of Poisson weights of them. What computes here is the readout's nonlinearity and the modes' memory.
    """

    class Config(WaveformConfig):
        joint_peak_photons: float = parameter(2.0, "peak photon number that the joint port's drive is scaled to", gt=0)

        def asked_states(self) -> dict[str, int]:
            return {"the number of measured ones": max(measured for _, measured in ROWS.values())}

    name = "josephson/waveforms"
    quick = {"seeds": 3, "train_points": 400, "test_points": 400}
    claims = (
        Claim.at_least(
            "16 states: mean accuracy", 0.995, lambda d: d.accuracy.sel(row="separate, 16").mean(), source=B
        ),
        Claim.at_least("16 states: worst seed", 0.995, lambda d: d.accuracy.sel(row="separate, 16").min(), source=B),
        Claim.at_most("16 states: mean RMSE (Eq. 4)", 0.003, lambda d: _rmse(d, "separate, 16"), source=B),
        Claim.at_least("9 states: mean accuracy", 0.995, lambda d: d.accuracy.sel(row="separate, 9").mean(), source=C),
        Claim.at_least("9 states: worst seed", 0.995, lambda d: d.accuracy.sel(row="separate, 9").min(), source=C),
        Claim.at_most("9 states: mean RMSE (Eq. 4)", 0.017, lambda d: _rmse(d, "separate, 9"), source=C),
        Claim.reported(
            "16 states, joint port", lambda d: d.accuracy.sel(row="joint, 16").mean(), source=JOINT, paper=0.995
        ),
        Claim.reported(
            "9 states, joint port", lambda d: d.accuracy.sel(row="joint, 9").mean(), source=JOINT, paper=0.995
        ),
    )

    def run(self, config: Config, *, key: PRNGKeyArray, progress: Progress) -> xr.Dataset:
        rows = {row: self._row(config, row, key) for row in ROWS}

        def compute(seeds: range) -> xr.Dataset:
            found = [row(seeds) for row in rows.values()]
            scores = {n: (("row", "seed"), [each[n] for each in found], {"units": "1"}) for n in SCORES}
            series = {n: (("seed", "point"), found[0][n], {"units": "1"}) for n in ("input", "target")}
            predicted = (("row", "seed", "point"), [each["prediction"] for each in found], {"units": "1"})
            names = xr.Variable("row", list(rows), {"long_name": "port, number of measured states"})
            return xr.Dataset(scores | series | {"prediction": predicted}, {"row": names, "seed": list(seeds)})

        dataset = Blocks("seed", config.seeds).carry_out(progress, compute)
        return dataset.assign(
            {name: dataset[name].sel(seed=0, drop=True) for name in ("input", "target", "prediction")}
        )

    def _row(self, config: Config, row: str, key: PRNGKeyArray) -> Callable[[range], dict[str, np.ndarray]]:
        port, measured = ROWS[row]
        if port == "joint":
            mixer = config.mixer(measured=measured, port=port, damping_rate=np.array(PRINTED_DAMPING) * MHz)
            peak_photons = jnp.asarray(config.joint_peak_photons)
        else:
            mixer, peak_photons = config.mixer(measured=measured, port=port), None
        return over_seeds(_told_apart, key, mixer, peak_photons, config.conditions())

    def figures(self, dataset: xr.Dataset) -> Figures:
        figure = new_figure(8, 7)
        axes = figure.subplots(4, 1, sharex=True)
        shown = slice(0, 128)
        points = np.arange(dataset.sizes["point"])[shown]
        axes[0].plot(points, dataset.input[shown], "o-", color=GREY, markersize=3, linewidth=0.8)
        axes[0].set(ylabel="input", title="(a) periods of a sine and of a square wave in random order")
        for axis, letter, row in zip(axes[1:], "bcd", ("separate, 16", "separate, 9", "joint, 16"), strict=True):
            part = dataset.sel(row=row)
            axis.step(points, part.target[shown], where="mid", color=RED, label="target (1: sine)")
            axis.plot(points, part.prediction[shown], "o-", color=BLUE, markersize=3, linewidth=0.8, label="reservoir")
            mean, worst = float(part.accuracy.mean()), float(part.accuracy.min())
            port, states = row.split(", ")
            axis.set(
                ylabel="output",
                ylim=(-0.6, 1.6),
                title=f"({letter}) {port} port{'s' * (port != 'joint')}, {states} measured states: accuracy mean "
                f"{100 * mean:.1f} %, worst of {part.sizes['seed']} seeds {100 * worst:.1f} %",
            )
        axes[1].legend(ncols=2, loc="upper right", fontsize="small")
        axes[-1].set_xlabel("test point")
        return {"waveforms": figure}


def _told_apart(
    mixer: JosephsonMixer, peak_photons: jax.Array | None, conditions: Conditions, key: PRNGKeyArray
) -> dict[str, jax.Array]:
    """Scores and series of a seed; the drive is scaled to a peak photon number where one is given."""
    task_key, run_key = jax.random.split(key)
    task = waveforms(conditions.train_points, conditions.test_points, key=task_key)
    if peak_photons is not None:
        mixer = mixer.with_peak_photons(task.train_inputs, peak_photons)
    reading = read_task(mixer, task, noise=conditions.noise, key=run_key)
    outputs, _ = answer(reading, task, **conditions.readout)
    scores = {name: score(outputs, task.test_targets) for name, score in SCORES.items()}
    return scores | {"input": task.test_inputs, "target": task.test_targets[:, 0], "prediction": outputs[:, 0]}


def _rmse(dataset: xr.Dataset, row: str) -> float:
    return float(dataset.root_sum_square_over_n.sel(row=row).mean())
