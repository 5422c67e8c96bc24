"""What do pair spins add?"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from morphax._lazy import xr
from morphax.experiments.spiking._states import ENSEMBLES, TURNED
from morphax.experiments.spiking.paper import PEHLE
from morphax.lab.experiment import BaseConfig, Claim, Experiment, Proof, parameter
from morphax.lab.figures import BLUE, GREY, RED, Figures, new_figure
from morphax.lab.progress import Progress, along
from morphax.quantum.correlation_map import coefficients, extended_correlations, extended_spins
from morphax.quantum.maximum_entropy import REACHED
from morphax.quantum.realisability import correlation_bound, extended_realisability, realisability
from morphax.quantum.states import ghz_state, pure_state, w_state

BOUND = "linear programmes over all distributions that obey the quantum constraint (spiking/extended-map)"
"""Where proofs stand."""
MINIMAL_BOUND = "linear programmes over all distributions of nine spins (spiking/extended-map)"
ENSEMBLE_NAMES = ("Hilbert-Schmidt", "rank 4", "rank 2", "pure")
ZERO = pure_state([1, 0])
NAMED = {
    "GHZ": ghz_state(3),
    "GHZ, 1/8 turn": ghz_state(3, turns=1 / 8),
    "W": w_state(3),
    "T psi_+ |0>": np.kron(TURNED, ZERO),
}
X, Y = 1, 2
FIVE = [
    [(a, b, 0, 0, 0), (0, 0, c, d, 0), (0, 0, 0, 0, e)]
    for a, b, c, d, e in ((X, X, X, X, X), (X, Y, X, Y, X), (X, Y, X, X, Y), (X, X, X, Y, Y))
]
SIX = [
    [(X, a, 0, 0, 0, 0), (0, 0, X, b, 0, 0), (0, 0, 0, 0, X, c)]
    for a, b, c in ((X, X, X), (X, Y, Y), (Y, X, Y), (Y, Y, X))
]
"""Correlations of GHZ whose signs contradict each other: each spin occurs twice, and the product of the signs is -1."""
NAMED_FOUR = {
    "GHZ": ghz_state(4),
    "GHZ, 1/8 turn": ghz_state(4, turns=1 / 8),
    "W": w_state(4),
    "T psi_+ |00>": np.kron(np.kron(TURNED, ZERO), ZERO),
}


def upper(name: str) -> Callable[[xr.Dataset], xr.DataArray]:
    """The visibility that the extended map allows a named state at most."""
    return lambda d: d.upper.sel(named=name)


def _lower_four(dataset: xr.Dataset, name: str) -> xr.DataArray:
    return dataset["lower_four"].sel(four=name)


def _most(dataset: xr.Dataset, qubits: int) -> xr.DataArray:
    return dataset["upper_ghz"].sel(qubits=qubits)


def realised(name: str, kind: str = "extended") -> Callable[[xr.Dataset], xr.DataArray]:
    """Share of an ensemble that the extended map realises, or the minimal one."""
    return lambda d: (d.visibility.sel(map=kind, ensemble=name) == 1).mean()


class ExtendedMap(Experiment):
    """Eqs. 52 to 59: GHZ realised by pair spins, and states that they do not realise; three qubits, and four.

    The paper finds no state of three qubits that the extended map misses, and leaves completeness open. Linear
    programmes decide it for three qubits, Gibbs distributions for four. From five on correlations of GHZ contradict
    each other.
    """

    class Config(BaseConfig):
        states: int = parameter(200, "of each ensemble, three qubits", ge=2)
        four_qubits: bool = parameter(True, "whether four qubits are decided too, a minute for a state")
        four_pure: int = parameter(24, "random pure states of four qubits, beside the named ones", ge=1)

    name = "spiking/extended-map"
    quick = {"states": 6, "four_qubits": False}
    paper = PEHLE
    claims = (
        Claim.within(
            "GHZ by Eqs. 54-59, all 2^21 configurations: largest error of a coefficient",
            0.0,
            lambda d: d.construction_error,
            source="Sec. VI: exact",
            item="extended ghz",
            tolerance=1e-12,
        ),
        Claim.within(
            "the same: by how much the quantum constraint is missed",
            0.0,
            lambda d: d.construction_miss,
            source="Eq. 53",
            item="extended ghz",
            tolerance=1e-12,
        ),
        Claim.within(
            "GHZ: visibility, extended map", 1.0, upper("GHZ"), source="Sec. VI", tolerance=1e-6, item="extended ghz"
        ),
        Claim.at_least(
            "GHZ with a phase of 1/8 turn: visibility, extended map",
            1.0,
            upper("GHZ, 1/8 turn"),
            proof=Proof(best=upper("GHZ, 1/8 turn"), place=BOUND),
            source='Sec. VI: "we did not find other three-qubit density matrices that cannot be realized"',
            item="extended",
            tolerance=1e-6,
        ),
        Claim.at_least(
            "T psi_+ |0>: visibility, extended map",
            1.0,
            upper("T psi_+ |0>"),
            proof=Proof(best=upper("T psi_+ |0>"), place=BOUND),
            source="likewise",
            tolerance=1e-6,
            item="extended",
        ),
        *(
            Claim.at_least(
                f"{name}: share of states that the extended map realises",
                1.0,
                realised(name),
                proof=Proof(best=realised(name), place=BOUND),
                source="likewise",
                item="extended",
            )
            for name in ENSEMBLE_NAMES
        ),
        *(
            Claim.at_least(
                f"{name}: share of states that the minimal map realises, more than half",
                0.5,
                realised(name, "minimal"),
                proof=Proof(best=realised(name, "minimal"), place=MINIMAL_BOUND),
                source='Sec. VI: "for randomly chosen density matrices one finds for most cases"',
                tolerance=-1e-9,
                item="random three",
            )
            for name in ENSEMBLE_NAMES
        ),
        Claim.at_most(
            "GHZ: visibility, minimal map",
            1.0,
            lambda d: d.minimal.sel(named="GHZ"),
            source="Sec. I: not complete for three or more qubits",
            tolerance=-1e-6,
            item="ghz",
        ),
        Claim.at_most(
            "four qubits, GHZ: visibility, minimal map",
            1.0,
            lambda d: d["minimal_four"].sel(four="GHZ"),
            source="likewise",
            tolerance=-1e-6,
            item="ghz",
        ),
        Claim.reported(
            "four qubits, GHZ with a phase of 1/8 turn: visibility, at most",
            lambda d: d["upper_four"].sel(four="GHZ, 1/8 turn"),
            source="Sec. VI: open",
            item="four qubits",
        ),
        *(
            Claim.reported(
                f"four qubits, {name}: visibility, at least",
                partial(_lower_four, name=name),
                source="Sec. VI: open",
                item="four qubits",
            )
            for name in ("GHZ", "W")
        ),
        Claim.reported(
            "four qubits, random pure states: share that is realised, to 1e-5",
            lambda d: (d["lower_four_pure"] >= 1 - REACHED).mean(),
            source="Sec. VI: open",
            item="four qubits",
        ),
        *(
            Claim.reported(
                f"{word} qubits, GHZ: visibility, at most",
                partial(_most, qubits=qubits),
                source='Sec. VI: open, "if new obstructions arise for a certain number of qubits"',
                item="four qubits",
            )
            for qubits, word in ((5, "five"), (6, "six"))
        ),
    )

    def run(self, config: Config, *, key: PRNGKeyArray, progress: Progress) -> xr.Dataset:
        three_key, four_key = jax.random.split(key)

        def ensemble(index: int, name: str) -> xr.Dataset:
            states = ENSEMBLES[name](jax.random.fold_in(three_key, index), config.states, 3)
            minimal = [realisability(rho).visibility for rho in states]
            extended = [extended_realisability(rho).upper for rho in states]
            values = {"visibility": (("map", "state"), [minimal, extended], {"units": "1"})}
            return xr.Dataset(values, {"map": ["minimal", "extended"]})

        def bracket(rho: np.ndarray, suffix: str) -> xr.Dataset:
            found = extended_realisability(rho)
            own = {f"minimal{suffix}": realisability(rho).visibility}
            values = own | {f"lower{suffix}": found.lower, f"upper{suffix}": found.upper}
            return xr.Dataset({name: ((), value, {"units": "1"}) for name, value in values.items()})

        fours: dict[str, np.ndarray] = {}
        pure = np.empty((0, 16, 16))
        if config.four_qubits:
            fours, pure = NAMED_FOUR, ENSEMBLES["pure"](four_key, config.four_pure, 4)
        work = {"construction": _construction, "contradictions": _contradictions}
        work |= {f"ensemble {name}": partial(ensemble, i, name) for i, name in enumerate(ENSEMBLE_NAMES)}
        work["named"] = lambda: along("named", {name: bracket(rho, "") for name, rho in NAMED.items()})
        work |= {f"four {name}": partial(bracket, rho, "_four") for name, rho in fours.items()}
        work |= {f"four_pure {index}": partial(bracket, rho, "_four_pure") for index, rho in enumerate(pure)}
        parts = progress.pieces(work)
        dataset = xr.merge([parts["construction"], parts["contradictions"], parts["named"]])
        for dim, names in (("ensemble", ENSEMBLE_NAMES), ("four", fours), ("four_pure", range(len(pure)))):
            if names:
                dataset = dataset.merge(along(dim, {name: parts[f"{dim} {name}"] for name in names}))
        return dataset

    def figures(self, dataset: xr.Dataset) -> Figures:
        panels = [("named", "", "three qubits: visibility"), ("four", "_four", "four qubits: visibility")]
        panels = [panel for panel in panels if panel[0] in dataset.coords]
        figure = new_figure(4 + 4 * len(panels), 4)
        shares, *others = figure.subplots(1, 1 + len(panels))
        realised = (dataset.visibility == 1).mean("state")
        for place, (kind, colour) in enumerate((("minimal", GREY), ("extended", BLUE))):
            where = np.arange(dataset.sizes["ensemble"]) + (place - 0.5) * 0.4
            shares.bar(where, realised.sel(map=kind), 0.4, color=colour, label=f"{kind} map")
        shares.set_xticks(range(dataset.sizes["ensemble"]), list(dataset.ensemble.values), fontsize="small")
        shares.set(ylabel="share of states realised", title="three qubits", ylim=(0, 1.25))
        shares.legend(fontsize="small", ncols=2)
        for axes, (dim, suffix, title) in zip(others, panels, strict=True):
            names = dataset[dim]
            places = np.arange(names.size)
            axes.plot(dataset[f"minimal{suffix}"], places - 0.12, "s", color=GREY, label="minimal")
            low, high = dataset[f"lower{suffix}"], dataset[f"upper{suffix}"]
            axes.hlines(places + 0.12, low, high, color=BLUE, linewidth=3)
            axes.plot(high, places + 0.12, "o", color=BLUE, label="extended")
            axes.axvline(2**-0.5, color=RED, linewidth=0.8)
            labels = list(names.values)
            if f"lower{suffix}_pure" in dataset:
                labels.append(f"{dataset.sizes[f'{dim}_pure']} pure, random")
                for kind, colour, marker, shift in (("minimal", GREY, "s", -0.12), ("lower", BLUE, "o", 0.12)):
                    drawn = dataset[f"{kind}{suffix}_pure"]
                    axes.plot(drawn, np.full(drawn.size, names.size + shift), marker, color=colour, markersize=3)
            axes.set_yticks(range(len(labels)), labels, fontsize="small")
            axes.set(title=title, xlim=(0.1, 1.05), ylim=(len(labels) - 0.5, -0.5))
        others[0].legend(fontsize="small", loc="lower left")
        return {"extended-map": figure}


def _contradictions() -> xr.Dataset:
    """What the four correlations leave of GHZ."""
    most = [correlation_bound(ghz_state(len(ways[0][0])), ways) for ways in (FIVE, SIX)]
    return xr.Dataset({"upper_ghz": ("qubits", most, {"units": "1"})}, {"qubits": [5, 6]})


def _construction() -> xr.Dataset:
    """Eqs. 54 to 59: 21 spins are free, the others follow."""
    names = {index: place for place, index in enumerate(extended_spins(3))}
    tied, one = {}, {}
    for qubit in range(3):
        others = [q for q in range(3) if q != qubit]

        def at(*axes: int, qubit: int = qubit, others: list[int] = others) -> int:
            index = [0, 0, 0]
            for place, axis in zip(others if len(axes) == 2 else [qubit], axes, strict=True):
                index[place] = axis
            return names[tuple(index)]

        tied |= {at(1, 1): (at(1), 1), at(2, 2): (at(1), -1), at(1, 2): (at(2), -1), at(2, 1): (at(2), -1)}
        one |= {at(3, 3): 1}
    free = [place for place in range(36) if place not in tied and place not in one]
    numbers = np.arange(2 ** len(free))
    spins = np.ones((len(numbers), 36), np.int8)
    for bit, place in enumerate(free):
        spins[:, place] = 2 * (numbers >> bit & 1) - 1
    for place, (source, sign) in tied.items():
        spins[:, place] = sign * spins[:, source]
    chi, miss = extended_correlations(spins)
    error = np.max(np.abs(chi - np.asarray(coefficients(ghz_state(3)))))
    return xr.Dataset(
        {
            "construction_error": ((), float(error), {"units": "1"}),
            "construction_miss": ((), float(miss), {"units": "1"}),
        }
    )
