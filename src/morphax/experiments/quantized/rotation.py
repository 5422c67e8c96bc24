"""Neurons as qubits that are rotated and measured."""

import jax
import numpy as np
import xarray as xr
from jaxtyping import PRNGKeyArray
from matplotlib.figure import Figure

from morphax.experiments.quantized._training import (
    ACTIVATION,
    CLASSICAL,
    HTANH,
    SMALL,
    PerceptronConfig,
    advantage,
    beside,
    draw_errors,
    final,
    trained,
    trainings,
)
from morphax.lab.experiment import Claim, Experiment, parameter
from morphax.lab.figures import BLUE, ORANGE, RED
from morphax.lab.progress import Progress

BEST = 10**-0.5


class Rotation(Experiment):
    """Fig. 5: validation error against the width a of the activation.

    The point of the claim, a = 10^-1/2, with several seeds, both backward rules, and the classical network beside it;
    other widths with one network each and fewer epochs.
    """

    class Config(PerceptronConfig):
        width: float = parameter(BEST, "a at the point of the claim", gt=0)
        widths: tuple[float, ...] = parameter(
            (0.0, *(10 ** (k / 6) for k in range(-9, 4))), "a of the sweep", min_length=2
        )
        sweep_epochs: int = parameter(120, "passes through the training images, sweep", ge=1)

    name = "quantized/rotation"
    quick = SMALL | {"widths": (0.0, 10**-0.5), "sweep_epochs": 2}
    claims = (
        Claim(
            "a = 10^-1/2: validation error, backward htanh",
            0.0472,
            final("validation", kind=HTANH),
            "within",
            0.003,
            "Fig. 5",
        ),
        Claim(
            "a = 10^-1/2: validation error, backward with the activation's own slope",
            0.0472,
            final("validation", kind=ACTIVATION),
            "within",
            0.003,
            "Fig. 5",
        ),
        Claim(
            "less error than the classical network, htanh: lower end of the 95 % interval",
            0.0,
            advantage({"kind": HTANH}, {"kind": CLASSICAL}),
            "at least",
            0.0,
            "Fig. 5",
        ),
        Claim(
            "less error than the classical network, own slope: lower end of the 95 % interval",
            0.0,
            advantage({"kind": ACTIVATION}, {"kind": CLASSICAL}),
            "at least",
            0.0,
            "Fig. 5",
        ),
        Claim("classical validation error", None, final("validation", kind=CLASSICAL), "reported", 0.0, "Fig. 5"),
        Claim(
            "sweep, own slope: best width (log10)",
            -0.5,
            lambda d: float(
                np.log10(d.sweep_validation.isel(epoch_s=-1).sel(rule=ACTIVATION).sortby("width")[1:].idxmin())
            ),
            "within",
            0.34,
            "Fig. 5b",
        ),
        Claim(
            "sweep: too wide is worse than classical, own slope (error at the largest width)",
            lambda d: float(d.sweep_validation.isel(epoch_s=-1, width=0).sel(rule=HTANH)),
            lambda d: float(d.sweep_validation.isel(epoch_s=-1, width=-1).sel(rule=ACTIVATION)),
            "at least",
            0.0,
            "Fig. 5b",
        ),
    )

    def run(self, config: Config, *, key: PRNGKeyArray, progress: Progress) -> xr.Dataset:
        make_key, train_key, sweep_key = jax.random.split(key, 3)
        kinds = {
            CLASSICAL: config.networks(make_key),
            HTANH: config.networks(make_key, config.width),
            ACTIVATION: config.networks(make_key, config.width, backward="activation"),
        }
        wide = [a for a in config.widths if a > 0]

        def swept(rule: str) -> xr.Dataset:
            # Without width an activation has no slope of its own.
            widths = list(config.widths) if rule == HTANH else wide
            networks = config.networks(sweep_key, widths, backward="htanh" if rule == HTANH else "activation")
            part, _ = trained(config, networks, train_key, progress, f"sweep {rule}", config.sweep_epochs)
            renamed = part.rename({name: f"sweep_{name}" for name in part}).rename(member="width", epoch="epoch_s")
            return renamed.assign_coords(width=widths)

        work = trainings(config, kinds, train_key, progress)
        work |= {f"sweep {rule}": lambda r=rule: swept(r) for rule in (HTANH, ACTIVATION)}
        *points, first, second = progress.pieces(work)
        second = second.reindex(width=list(config.widths))
        sweep = xr.concat([first, second], xr.Variable("rule", [HTANH, ACTIVATION]))
        for variable in sweep.data_vars.values():
            variable.attrs["may_be_missing"] = 1
        return beside(points, kinds).merge(sweep)

    def figures(self, dataset: xr.Dataset) -> dict[str, Figure]:
        figure = Figure(figsize=(10, 3.8))
        curves, sweep = figure.subplots(1, 2)
        labels = {kind: f"a = 10^-1/2, {kind}" for kind in (HTANH, ACTIVATION)}
        draw_errors(curves, dataset.validation, "Fig. 5a", labels)
        curves.axhline(0.0472, color="black", linewidth=0.8, label="paper's best")
        curves.legend(fontsize="small")
        last = dataset.sweep_validation.isel(epoch_s=-1)
        positive = last.sel(width=dataset.width > 0)
        for rule, colour in ((HTANH, BLUE), (ACTIVATION, ORANGE)):
            sweep.loglog(positive.width, positive.sel(rule=rule), "o-", color=colour, label=rule)
        sweep.axhline(float(last.sel(rule=HTANH).isel(width=0)), color=RED, label="a = 0")
        sweep.set(xlabel="a", title=f"Fig. 5b, {int(dataset.epoch_s[-1])} epochs, one network each")
        sweep.legend(fontsize="small")
        return {"rotation": figure}
