"""How little of a quantum state does its energy need?"""

from __future__ import annotations

from functools import cache, partial
from typing import Self

import numpy as np
from jaxtyping import PRNGKeyArray
from pydantic import model_validator

from morphax._lazy import xr
from morphax.experiments.spiking.paper import PEHLE
from morphax.lab.experiment import BEYOND, BaseConfig, Claim, Count, Experiment, NonNegative, parameter
from morphax.lab.figures import BLUE, GREEN, ORANGE, RED, VIOLET, Figures, new_figure
from morphax.lab.progress import Progress, along
from morphax.quantum.correlation_map import coefficients
from morphax.quantum.ground_state import (
    LARGEST_WHOLE,
    LARGEST_WINDOW,
    energy_bound,
    ground_state_energy,
    transverse_field_ising,
)

RING = 4  # sites of the ring whose energy is taken apart


@cache
def functions_of_energy() -> tuple[int, int]:
    """Expectation values and two-point functions that the energy of a ring needs; others fail.

    Coefficients of the Hamiltonian that are not 0 belong to them: tr(H rho) is the sum of products of coefficients.
    """
    chi = np.asarray(coefficients(transverse_field_ising(RING, 1.0, 1.0, periodic=True).toarray()))
    points = (np.argwhere(np.abs(chi) > 1e-3) > 0).sum(1)
    ones, twos = int((points == 1).sum()), int((points == 2).sum())
    if ones + twos != len(points):
        raise RuntimeError(f"the energy needs functions of {sorted(set(points.tolist()))} points")
    return ones, twos


class IsingChain(Experiment):
    """Sec. VII: lower bounds of the energy of the transverse-field Ising chain from partial quantum constraints.

    Expectation values need only be those of positive density matrices of k neighbouring sites. The energy that they
    allow is a rigorous lower bound; k = 1 leaves correlations free.
    """

    class Config(BaseConfig):
        sites: int = parameter(10, "of the chain", ge=3, le=16)
        neighbours: tuple[Count, ...] = parameter((1, 2, 3, 4, 5), "k, sites of a density matrix", min_length=1)
        fields: tuple[NonNegative, ...] = parameter(
            (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0), "h, of the coupling J = 1", min_length=1
        )

        @model_validator(mode="after")
        def _neighbours_can_be_treated(self) -> Self:
            for k in self.neighbours:
                if k > self.sites or k > (LARGEST_WHOLE if k == self.sites else LARGEST_WINDOW):
                    raise ValueError(
                        f"neighbours is {self.neighbours}; each must be <= {min(self.sites, LARGEST_WINDOW)}"
                        + (f" or {self.sites}, all sites" if self.sites <= LARGEST_WHOLE else "")
                    )
            return self

    name = "spiking/ising-chain"
    quick = {"sites": 6, "neighbours": (1, 2, 3), "fields": (0.0, 1.0, 2.0)}
    paper = PEHLE
    claims = (
        Claim.at_most(
            "bounds above the exact energy, by more than 1e-6",
            0.0,
            lambda d: (d.bound > d.exact + 1e-6).sum(),
            source="exact diagonalisation of this run",
            item="partial constraints",
        ),
        Claim.within(
            "h = J, ring, k = 2: energy of a site",
            -(2**0.5),
            lambda d: (d.bound / d.sites).sel(boundary="ring", field=1.0, k=2),
            source="ours: - sqrt 2",
            item=BEYOND,
            tolerance=1e-5,
        ),
        *(
            Claim.within(
                f"ring of {RING} sites: {words} that its energy needs, of 4^{RING} coefficients",
                float(RING),
                lambda d, place=place: functions_of_energy()[place],
                source="Sec. VII: n",
                tolerance=0.0,
                item="few functions",
            )
            for place, words in enumerate(("expectation values", "two-point functions"))
        ),
        *(
            Claim.reported(
                f"h = J, open chain, k = {k}: relative error of the bound",
                lambda d, k=k: (d.bound / d.exact - 1).sel(boundary="open", field=1.0, k=k),
                source='Sec. VII: "already a reasonable approximation"',
                item="partial constraints",
            )
            for k in (1, 2, 3, 4, 5)
        ),
    )

    def run(self, config: Config, *, key: PRNGKeyArray, progress: Progress) -> xr.Dataset:
        def energies(boundary: str, field: float) -> xr.Dataset:
            chain, ring = (config.sites, 1.0, field), boundary == "ring"
            bounds = [energy_bound(*chain, neighbours=k, periodic=ring).energy for k in config.neighbours]
            exact, units = ground_state_energy(*chain, periodic=ring), {"units": "J"}
            return xr.Dataset({"bound": ("k", bounds, units), "exact": ((), exact, units)})

        def at(field: float) -> xr.Dataset:
            return along("boundary", {name: energies(name, field) for name in ("open", "ring")})

        parts = progress.pieces({f"h = {h:g}": partial(at, h) for h in config.fields})
        dataset = along("field", dict(zip(config.fields, parts.values(), strict=True)), {"units": "J"})
        dataset = dataset.transpose("boundary", "k", "field")
        return dataset.assign_coords(k=list(config.neighbours), sites=config.sites)

    def figures(self, dataset: xr.Dataset) -> Figures:
        figure = new_figure(10, 3.8)
        for axes, boundary in zip(figure.subplots(1, 2), dataset.boundary.values, strict=True):
            part = dataset.sel(boundary=boundary)
            for k, colour in zip(part.k.values, (RED, ORANGE, GREEN, BLUE, VIOLET), strict=False):
                below = (part.exact - part.bound.sel(k=k)) / part.sites
                axes.plot(part.field, below, ".-", color=colour, label=f"k = {k}")
            axes.set(xlabel="h / J", title=f"{boundary}, {int(part.sites)} sites")
            axes.set_yscale("symlog", linthresh=1e-3)
            axes.set_ylim(top=20)
        figure.axes[0].set_ylabel("(exact energy - bound) / J per site")
        figure.axes[0].legend(fontsize="small", ncols=3)
        return {"ising-chain": figure}
