"""What Figs. 3 and 4 and Tables I and II show, and how that is judged here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import PRNGKeyArray

from morphax._lazy import xr
from morphax.lab.experiment import BEYOND, Claim
from morphax.substrates.phase_oscillators import PhaseOscillators
from morphax.tasks import xor

LOOKS = ", and looks every 10 iterations, not every 5"
SAME = 1e-2  # largest 1 - cosine by which the phases of one equilibrium, found twice, may differ


def speed(curve: xr.DataArray) -> xr.DataArray:
    """Minus the slope of log10 of the mean distance over the first 300 iterations."""
    first = curve.isel(iteration=slice(0, 300)).mean("run")
    steps = xr.DataArray(np.arange(first.sizes["iteration"]), dims="iteration")
    steps = steps - steps.mean()
    logs = xr.apply_ufunc(np.log10, first)
    return -(logs * steps).sum("iteration") / (steps**2).sum()


def gained(dataset: xr.Dataset, few: int, many: int) -> float:
    """By how much more initial states speed learning up in the largest network."""
    speeds = dataset.speed.isel(size_d=-1)
    return float(speeds.sel(starts=many) - speeds.sel(starts=few))


def early(dataset: xr.Dataset) -> Iterator[np.ndarray]:
    """log10 of all mean distances over the first 300 iterations."""
    for curves in (dataset.by_size.mean("run"), dataset.by_starts):
        logs = np.log10(curves.isel(iteration=slice(0, 300)).transpose(..., "iteration").values)
        yield from logs.reshape(-1, logs.shape[-1])


def straightness(curve: np.ndarray) -> float:
    """R^2 of a straight line through it."""
    return float(np.corrcoef(np.arange(len(curve)), curve)[0, 1] ** 2)


def ends(many: xr.DataArray) -> float:
    """Mean distance over the last 20 iterations, of that of the first."""
    means = many.mean("run_a")
    return float(means.isel(iteration=slice(-20, None)).mean() / means.isel(iteration=0))


def best_size(dataset: xr.Dataset) -> float:
    """The number of oscillators that learn fastest."""
    return float(speed(dataset.by_size).idxmax("size"))


def distances(dataset: xr.Dataset) -> np.ndarray:
    """Distance (Eq. 3) of every equilibrium that was found from its target, (visit, example, search)."""
    targets = np.asarray(xor().train_targets)[:, :1]
    return 1 - np.cos(dataset.output.transpose("visit", "example", "search").values - targets)


def moved_away(dataset: xr.Dataset) -> float:
    """By how much the worst equilibrium of an input lies farther from the target than at the look before, at most."""
    return float(np.diff(distances(dataset).max(-1), axis=0).max())


def lost(dataset: xr.Dataset) -> float:
    """By how many an input has fewer equilibria at the last look than at the first, at most; from the same starts."""
    phases = np.stack([dataset[name].transpose("visit", "example", "search").values for name in ("output", "hidden")])

    def different(visit: int, example: int) -> int:
        here = phases[:, visit, example]
        alike = np.asarray(1 - np.cos(here[:, :, None] - here[:, None, :]) <= SAME).all(axis=0)
        return int((np.argmax(alike, axis=0) == np.arange(here.shape[1])).sum())  # those that none before is like

    return float(max(different(0, example) - different(-1, example) for example in range(phases.shape[2])))


def saved(size: int) -> tuple[Any, Any]:
    """Speed per relaxation with one initial state, and the best with more."""

    def of(dataset: xr.Dataset) -> xr.DataArray:
        return (dataset.speed / dataset.starts).sel(size_d=size)

    return lambda d: of(d).sel(starts=1), lambda d: of(d).where(d.starts > 1).max()


class Size(NamedTuple):
    """A row of Tables I and II: parameters of both networks, best test accuracies of both and of two classifiers."""

    hidden: int
    units: int
    parameters: tuple[int, int]
    best: tuple[float, float, float]
    linear: float

    def network(self, structure: str, key: PRNGKeyArray) -> PhaseOscillators:
        """An untrained network of this size."""
        if structure == "layered":
            return PhaseOscillators.layered((64, self.hidden, 10), key=key)
        return PhaseOscillators.all_to_all(64, self.units - 74, 10, key=key)


PAPER = (
    Size(20, 85, (1540, 1596), (91.9, 93.3, 94.3), 90.4),
    Size(100, 139, (7620, 7725), (92.7, 92.7, 95.0), 90.3),
    Size(200, 185, (15220, 15246), (94.1, 92.4, 95.0), 90.7),
    Size(300, 222, (22820, 22831), (93.7, 92.9, 95.1), 90.7),
)


def at(variable: str, structure: str, row: int) -> Any:
    """Mean over seeds, KeyError where a run has left the size out."""
    return lambda d: float(d[variable].sel(structure=structure, row=row).mean("seed"))


def best(structure: str) -> Any:
    """The highest of the best accuracies of all four sizes."""
    return lambda d: max(at("best", structure, row)(d) for row in range(4))


def until_80(structure: str, row: int) -> Any:
    """Iterations until the mean test accuracy is 80 % for the first time; KeyError where it never is."""

    def iterations(dataset: xr.Dataset) -> float:
        course = dataset.accuracy.sel(structure=structure, row=row).mean("seed")
        reached = dataset.iteration[(course >= 80.0).values]
        if not len(reached):
            raise KeyError(f"{structure} {row}: 80 %")
        return float(reached[0])

    return iterations


def right_after_50(structure: str, row: int) -> Any:
    """Per cent of answers on the diagonal of the confusion matrix after 50 iterations."""

    def right(dataset: xr.Dataset) -> float:
        matrix = dataset.confusion.sel(structure=structure, row=row, snapshot=50).values
        return float(100 * np.trace(matrix) / matrix.sum())

    return right


def of_row(row: int) -> list[Claim]:
    """What Tables I and II print of one size, and what came out honestly."""
    size = PAPER[row]
    names = {"layered": f"64-{size.hidden}-10", "all-to-all": f"all-to-all {size.units}"}
    models = names | {"ANN": f"perceptron 64-{size.hidden}-10"}
    return [
        *(
            Claim.within(
                f"{name}: parameters",
                printed,
                at("parameters", kind, row),
                source="Tab. I",
                tolerance=0.0,
                item="parameters",
            )
            for (kind, name), printed in zip(names.items(), size.parameters, strict=True)
        ),
        *(
            Claim.within(
                f"{name}: best test accuracy (%)",
                printed,
                at("best", kind, row),
                source=f"Tab. II; ours: 1.5 points{LOOKS if kind in names else ''}",
                tolerance=1.5,
                item="perceptron" if kind == "ANN" else kind,
            )
            for (kind, name), printed in zip(models.items(), size.best, strict=True)
        ),
        *(
            Claim.reported(
                f"{name}: validated test accuracy (%)", at("validated", kind, row), source="ours", item=BEYOND
            )
            for kind, name in names.items()
        ),
    ]


def seeds_at(structure: str, iteration: int) -> Any:
    """Test accuracies of all sizes and seeds after some iterations."""
    return lambda d: d.accuracy.sel(structure=structure, iteration=iteration).transpose("row", "seed").values


def trend(structure: str) -> Any:
    """Lower end of the 95 % interval of |change of the accuracy after 50 iterations with twice the parameters|.

    A straight line through all sizes and seeds against the logarithm of the number of parameters.
    """

    def lower(dataset: xr.Dataset) -> float:
        from scipy import stats

        for row in range(4):
            dataset.accuracy.sel(row=row)  # KeyError where the run has left the size out
        accuracy = seeds_at(structure, 50)(dataset)
        parameters = dataset.parameters.sel(structure=structure).transpose("row", "seed").values
        line: Any = stats.linregress(np.log2(parameters).ravel(), accuracy.ravel())
        return float(abs(line.slope) - stats.t.ppf(0.975, accuracy.size - 2) * line.stderr)

    return lower


def spread_until_80(structure: str) -> Any:
    """Most iterations until 80 % over fewest, of four sizes."""
    return lambda d: np.divide(*(f([until_80(structure, row)(d) for row in range(4)]) for f in (max, min)))


def of_perceptron(hidden: int) -> int:
    """Weights and biases of an artificial network with this architecture."""
    return sum((below + 1) * above for below, above in ((64, hidden), (hidden, 10)))
