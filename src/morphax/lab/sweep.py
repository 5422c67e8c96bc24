"""An experiment at many points: one folder, one dataset with the swept axes, claims judged at every point."""

from __future__ import annotations

import inspect
import itertools
import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, Union, get_args, get_origin

import jax
import numpy as np
import xarray as xr
from jaxtyping import PRNGKeyArray

from morphax.lab.errors import UsageError, nearest
from morphax.lab.experiment import BaseConfig, Experiment, fails
from morphax.lab.figures import GREEN, GREY, RED, Figures, literal, mean_and_range, new_figure
from morphax.lab.points import every_point, side_by_side
from morphax.lab.progress import Known, Listing, Progress, raise_failures
from morphax.lab.settings import refusal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_POINTS = 100_000
PANELS = 12  # of one figure
SEED = "seed"
MEMBER = "a member of all seeds"  # no dimension of an experiment is called so


class Point(NamedTuple):
    """A point of a sweep.

    - `name`: "noise=0.001, seed=3".
    - `config`: there.
    """

    name: str
    config: BaseConfig


class Sweep(Experiment):
    """An experiment at all combinations of some values of its configuration.

    Every point is a run with that configuration, whose pieces it shares: a finer sweep computes only what is new. The
    dataset has an axis for everything that is swept; it is called `swept_KEY` where the experiment has such a name
    itself. Places that only some points have hold NaN at the others; claims see each point as its own run gives it.

    **Arguments:**

    - `experiment`: that is swept.
    - `over`: key of its configuration -> values, one or more keys.

    **Raises:** `UsageError` for unknown keys, values given twice, too many points, and keys that name files of data.

        >>> import jax
        >>> from morphax.experiments import find_experiment
        >>> from morphax.lab.progress import Progress
        >>> from morphax.lab.sweep import Sweep
        >>> sweep = Sweep(find_experiment("spiking/ising-chain")(), {"seed": [0, 1]})
        >>> [point.name for point in sweep.points(sweep.Config())]
        ['seed=0', 'seed=1']
    """

    def __init__(self, experiment: Experiment, over: Mapping[str, Sequence[Any]]):
        self.experiment = experiment
        self.over = {key: list(values) for key, values in over.items()}
        self.name = experiment.name  # pyright: ignore[reportAttributeAccessIssue]
        self.Config = experiment.Config  # pyright: ignore[reportAttributeAccessIssue]
        self.quick = experiment.quick  # pyright: ignore[reportAttributeAccessIssue]
        self.claims = experiment.claims  # pyright: ignore[reportAttributeAccessIssue]
        self.__doc__ = f"{inspect.getdoc(experiment) or ''}\n\n{self._told()}"
        self._check()

    @property
    def origin(self) -> type[Experiment]:
        return self.experiment.origin

    def asks(self) -> dict[str, Any]:
        return {"over": self.over}

    def points(self, config: BaseConfig) -> list[Point]:
        """All points around a configuration, the last axis running fastest.

        **Raises:** `UsageError`, naming the point, where the configuration takes no such value, or asks for other data:
        those of the run are what its identity knows.
        """
        points = []
        for values in itertools.product(*self.over.values()):
            changes = dict(zip(self.over, values, strict=True))
            name = ", ".join(f"{key}={_text(value)}" for key, value in changes.items())
            try:
                here = self.Config(**(config.model_dump() | changes))
            except ValueError as error:
                raise UsageError(f"over is {name}; {refusal(error)}") from error
            if data := other_data(config, here, self.over):
                what = f"{data}, a file of data" if data in self.over else f"{name}, which changes the data ({data})"
                raise UsageError(f"over is {what}; a sweep has the same data at all points")
            points.append(Point(name, here))
        return points

    def run(self, config: Any, *, key: PRNGKeyArray, progress: Progress) -> xr.Dataset:
        points = self.points(config)
        for point in points:
            point.config.check_memory()
        parts = [progress.at(point.name, point.config) for point in points]
        prepare(self.experiment, progress, parts, [point.config for point in points])
        found, failed = [], {}
        for point, part in zip(points, parts, strict=True):
            came = run_part(self.experiment, point.config, part)
            if isinstance(came, Exception):
                failed[point.name] = came
            else:
                found.append(came)
            progress.take(part)
        raise_failures(failed, len(points), "points")
        return self._side_by_side(found, points)

    def judge(self, dataset: xr.Dataset) -> list[dict[str, Any]]:
        """Every claim at every point, which is its `at`."""
        points = list(self._at_every_point(dataset))
        return [claim.judge(part) | {"at": at} for claim in self.claims for at, part in points]

    def figures(self, dataset: xr.Dataset) -> Figures:
        """The numbers of the claims, and all variables, against what is swept."""
        return self._of_claims(dataset) | {
            "variable claims" if name == "claims" else str(name): _drawn(self._axes(dataset), array)
            for name, array in dataset.data_vars.items()
            if array.dtype.kind in "biuf" and array.size
        }

    def _told(self) -> str:
        texts = [f"{key} ({len(values)} values)" for key, values in self.over.items()]
        return f"Swept over {' and '.join(texts)}."

    def _check(self) -> None:
        if not self.over:
            raise UsageError("over is empty; name what is swept: --over KEY=VALUES")
        for key, values in self.over.items():
            if key not in self.Config.model_fields:
                raise UsageError(f"over {key} is unknown; {nearest(key, self.Config.model_fields)}")
            texts = [json.dumps(value) for value in values]
            if not values or len(set(texts)) < len(texts):
                raise UsageError(
                    f"over {key} is {', '.join(texts) or 'empty'}; it must be one or more different values"
                )
        if (points := math.prod(map(len, self.over.values()))) > MOST_POINTS:
            raise UsageError(f"over has {points} points; it must have at most {MOST_POINTS}")

    def _axes(self, dataset: xr.Dataset) -> dict[str, str]:
        """The swept keys by the names of their axes."""
        return {f"swept_{key}" if f"swept_{key}" in dataset.dims else key: key for key in self.over}

    def _side_by_side(self, found: list[xr.Dataset], points: list[Point]) -> xr.Dataset:
        taken = set().union(*(set(map(str, {*d.variables, *d.dims})) for d in found))
        axes = {}
        for key, values in self.over.items():
            # A scalar coordinate that says where a point is needs no place beside the axis.
            told = all(_is_scalar(d, key, getattr(p.config, key)) for d, p in zip(found, points, strict=True))
            axis = f"swept_{key}" if key in taken and not told else key
            extra = self.Config.model_fields[key].json_schema_extra
            unit = extra.get("unit", "") if isinstance(extra, dict) else ""
            axes[axis] = xr.Variable(axis, _coordinate(values), {"units": str(unit)} if unit else {})
        return side_by_side(found, axes)

    def _at_every_point(self, dataset: xr.Dataset) -> Iterator[tuple[dict[str, Any], xr.Dataset]]:
        places = itertools.product(*self.over.values())
        for values, part in zip(places, every_point(dataset, list(self._axes(dataset))), strict=True):
            yield dict(zip(self.over, values, strict=True)), part

    def _of_claims(self, dataset: xr.Dataset) -> Figures:
        """One panel a claim, while there is room: ours along the first axis, the paper's number as a line."""
        judged = self.judge(dataset)
        texts = list(dict.fromkeys(claim["claim"] for claim in judged))[:PANELS]
        rows = {text: [claim for claim in judged if claim["claim"] == text] for text in texts}
        rows = {text: several for text, several in rows.items() if any(c["ours"] is not None for c in several)}
        if not rows:
            return {}
        shape = tuple(len(values) for values in self.over.values())
        figure, panels = _panels(len(rows))
        for axes, (text, several) in zip(panels, rows.items(), strict=False):
            ours = np.array([math.nan if c["ours"] is None else c["ours"] for c in several], float).reshape(shape)
            met = np.array([1.0 if c["met"] else 0.0 if fails(c) else math.nan for c in several]).reshape(shape)
            self._draw_claim(axes, ours, met, several[0]["paper"])
            axes.set_title(literal(_wrapped(text)), fontsize="small")
        marks = "a cross where it is not met" if len(shape) == 2 else "green where it is met, red where not"
        figure.suptitle(f"the claims: what came out here; {marks}")
        return {"claims": figure}

    def _draw_claim(self, axes: Axes, ours: np.ndarray, met: np.ndarray, paper: float | None) -> None:
        (key, values), *others = self.over.items()
        if len(others) == 1:
            _heat_map(axes, ours, (key, values), others[0])
            for row, column in np.argwhere(met == 0):
                axes.plot(column, row, "x", color="white")
            return
        x, numeric = _places(values)
        flat, verdicts = ours.reshape(len(values), -1), met.reshape(len(values), -1)
        for column in range(flat.shape[1]):
            axes.plot(x, flat[:, column], "-", color=GREY, linewidth=0.8)
            colours = [{1.0: GREEN, 0.0: RED}.get(verdict, GREY) for verdict in verdicts[:, column]]
            axes.scatter(x, flat[:, column], c=colours, s=16, zorder=3)
        if paper is not None:
            axes.axhline(paper, color="black", linewidth=0.8, linestyle=":")
        _label(axes, key, values, numeric)


def prepare(
    experiment: Experiment, progress: Progress, parts: Sequence[Progress], configs: Sequence[BaseConfig]
) -> None:
    """Where workers are, have the pieces of all parts of a run carried out at once."""
    if progress.elsewhere is not None:
        wanted = [
            (part, label)
            for part, config in zip(parts, configs, strict=True)
            for label in _pieces_at(experiment, config, part)
        ]
        progress.ahead(wanted)


def other_data(config: BaseConfig, here: BaseConfig, over: Collection[str]) -> str | None:
    """The name of data that two configurations do not share, if possible of a field of `over`; None without any."""
    ours, theirs = config.data(), here.data()
    names = [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]
    return min(names, key=lambda name: name not in over, default=None)


def run_part(experiment: Experiment, config: BaseConfig, part: Progress) -> xr.Dataset | Exception:
    """What an experiment gives, or raised, at a configuration other than that of the run.

    **Raises:** what keeps the whole run from going on: its folder, the store or the scheduler is lost, or data changed.
    """
    try:
        with part.noting(), jax.enable_x64(config.precision == "double"):
            return experiment.run(config, key=jax.random.key(config.seed), progress=part)
    except Exception as error:
        if part.broken is not None:
            raise
        return error


def _pieces_at(experiment: Experiment, config: BaseConfig, part: Progress) -> list[str]:
    """The names of the pieces; none where they are a chain, which is carried out when it is its turn.

    None, too, where the experiment fails before they are known: it does so again when it is its turn.
    """
    listing = Listing()
    try:
        with part.noting(), jax.enable_x64(config.precision == "double"):
            experiment.run(config, key=jax.random.key(config.seed), progress=listing)
    except Known as known:
        return known.wanted
    except Exception:
        pass
    return []


def read_axis(text: str, config: type[BaseConfig]) -> tuple[str, list[Any]]:
    """The key and the values of KEY=START:STOP:N, KEY=START:STOP:N:log, or KEY=VALUE,VALUE,...

    N values from START to STOP, both included, at equal distances or, with "log", equal ratios. Those of a field of
    whole numbers must be whole.

    **Raises:** `UsageError` in one line.

        >>> from morphax.experiments import find_experiment
        >>> from morphax.lab.sweep import read_axis
        >>> read_axis("noise=1e-4:1e-2:3:log", find_experiment("josephson/neurons").Config)
        ('noise', [0.0001, 0.001, 0.01])
        >>> read_axis("seed=0:4:5", find_experiment("josephson/neurons").Config)
        ('seed', [0, 1, 2, 3, 4])
    """
    key, equals, values = text.partition("=")
    if not equals or not values:
        raise UsageError(f"--over is {text!r}; it must be KEY=START:STOP:N, KEY=START:STOP:N:log, or KEY=VALUE,VALUE")
    if key not in config.model_fields:
        raise UsageError(f"--over {key} is unknown; {nearest(key, config.model_fields)}")
    if ":" not in values or values.startswith(("[", '"')):
        return key, _listed(values)
    found = _range(text, values.split(":"))
    if takes_whole(config.model_fields[key].annotation):
        if any(value != round(value) for value in found):
            raise UsageError(f"--over is {text!r}; {key} takes whole numbers, and {found[1]:g} is none")
        return key, [round(value) for value in found]
    return key, found


def _range(text: str, parts: list[str]) -> list[float]:
    try:
        start, stop, count = float(parts[0]), float(parts[1]), int(parts[2])
    except (ValueError, IndexError):
        raise UsageError(f"--over is {text!r}; it must be KEY=START:STOP:N or KEY=START:STOP:N:log") from None
    log = parts[3:] == ["log"]
    if parts[3:] and not log:
        raise UsageError(f"--over is {text!r}; behind the number of values only :log may stand")
    if not (math.isfinite(start) and math.isfinite(stop)) or not 2 <= count <= MOST_POINTS:
        raise UsageError(f"--over is {text!r}; START and STOP must be finite, N from 2 to {MOST_POINTS}")
    if log and not (start > 0 and stop > 0):
        raise UsageError(f"--over is {text!r}; equal ratios need START and STOP > 0")
    values = np.geomspace(start, stop, count) if log else np.linspace(start, stop, count)
    # As people write them: 0.3 and not 0.30000000000000004, so that other sweeps meet the same points.
    return [float(f"{value:.12g}") for value in values]


def takes_whole(annotation: Any) -> bool:
    """Whether a field takes whole numbers and no others, whatever it takes beside numbers."""
    if get_origin(annotation) is Annotated:
        annotation = annotation.__origin__
    if get_origin(annotation) in (Union, UnionType):
        parts = [part for part in get_args(annotation) if part is not NoneType]
        return bool(parts) and all(map(takes_whole, parts))
    return annotation is int


def split(values: str) -> list[str]:
    """At the commas outside of brackets and quotation marks.

    >>> from morphax.lab.sweep import split
    >>> split('[3,1],[3,2]')
    ['[3,1]', '[3,2]']
    """
    parts, depth, quoted = [""], 0, False
    for letter in values:
        quoted ^= letter == '"'
        depth += 0 if quoted else (letter == "[") - (letter == "]")
        if letter == "," and depth == 0 and not quoted:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def _listed(values: str) -> list[Any]:
    for text in (values, f"[{values}]"):
        with suppress(json.JSONDecodeError):
            if isinstance(found := json.loads(text), list):
                return found
    return split(values)


def over_folder(folder: Path, keys: Sequence[str], content: Any, *, kind: str = "sweep") -> Path:
    """The default folder of a sweep, or a study, over some keys: beside that of the run at its centre."""
    from morphax.lab.naming import file_name

    return folder.with_name(
        file_name(f"{folder.name}-{kind}-{','.join(keys)}", [folder.name, kind, content], whole=False)
    )


def _text(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else value if isinstance(value, str) else json.dumps(value)


def _coordinate(values: list[Any]) -> np.ndarray:
    """Lists and null stand as their texts: an axis has one value a place."""
    plain = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    return np.array(values if plain else [_text(value) for value in values])


def _is_scalar(dataset: xr.Dataset, key: str, value: Any) -> bool:
    return key in dataset.coords and not dataset[key].dims and bool(dataset[key].item() == value)


def _drawn(swept: Mapping[str, str], array: xr.DataArray) -> Figure:
    """A variable against what is swept: curves along one axis, a heat map along two; what else it has in panels."""
    axes = [axis for axis in swept if axis in array.dims and axis not in (SEED, f"swept_{SEED}")][:2]
    array = array.astype(float)
    seeds = [dim for dim in array.dims if dim in (SEED, f"swept_{SEED}")] if axes else []
    if not axes:
        axes = [next(axis for axis in swept if axis in array.dims)]
    others = [dim for dim in array.dims if dim not in (*axes, *seeds)]
    places = list(itertools.product(*(range(array.sizes[dim]) for dim in others)))
    chosen = [places[i] for i in np.unique(np.linspace(0, len(places) - 1, PANELS).round().astype(int))]
    figure, panels = _panels(len(chosen))
    for panel, place in zip(panels, chosen, strict=False):
        part = array.isel(dict(zip(others, place, strict=True)))
        title = ", ".join(f"{dim} {_text(array[dim].values.tolist()[i])}" for dim, i in zip(others, place, strict=True))
        if len(axes) == 2:
            mean = part.mean(seeds) if seeds else part
            both = [(axis, mean[axis].values.tolist()) for axis in axes]
            _heat_map(panel, np.asarray(mean.transpose(*axes)), *both)
        else:
            values = part[axes[0]].values.tolist()
            x, numeric = _places(values)
            part = part.stack({MEMBER: seeds}) if seeds else part.expand_dims(MEMBER)
            mean_and_range(panel, x, part.transpose(axes[0], MEMBER), over=MEMBER, marker="o", markersize=3.5)
            _label(panel, axes[0], values, numeric)
        panel.set_title(literal(title), fontsize="small")
    unit = array.attrs.get("units", "")
    name = f"{array.name}{'' if unit in ('', '1') else f' ({unit})'}"
    shown = "" if len(chosen) == len(places) else f"; {len(chosen)} of {len(places)} places, evenly spaced"
    what = "mean" if len(axes) == 2 else "mean and range"
    figure.suptitle(f"{name}: {what} over seeds{shown}" if seeds else f"{name}{shown}")
    return figure


def _panels(count: int) -> tuple[Figure, list[Axes]]:
    columns = min(count, 4 if count > 6 else 2 if count == 4 else 3)
    rows = -(-count // columns)
    figure = new_figure(max(5.0, 3.4 * columns), 0.4 + 2.8 * rows)
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in panels[count:]:
        axes.set_axis_off()
    return figure, panels


def _places(values: Sequence[Any]) -> tuple[np.ndarray, bool]:
    """Where values stand along an axis; and whether they are numbers."""
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    return (np.array(values, float) if numeric else np.arange(len(values), dtype=float)), numeric


def _label(axes: Axes, name: str, values: Sequence[Any], numeric: bool) -> None:
    axes.set_xlabel(name)
    if not numeric:
        axes.set_xticks(range(len(values)), [literal(_text(value)) for value in values])
    elif _is_logarithmic(values):
        axes.set_xscale("log")


def _is_logarithmic(values: Sequence[float]) -> bool:
    return len(values) > 2 and min(values) > 0 and max(values) > 20 * min(values) and values[1] / values[0] > 1.2


def _heat_map(
    axes: Axes, numbers: np.ndarray, first: tuple[str, Sequence[Any]], second: tuple[str, Sequence[Any]]
) -> None:
    """The first axis upwards, the second to the right, one square a point."""
    image = axes.imshow(numbers, origin="lower", aspect="auto", cmap="viridis")
    axes.figure.colorbar(image, ax=axes)
    for (name, values), set_ticks, set_label in (
        (second, axes.set_xticks, axes.set_xlabel),
        (first, axes.set_yticks, axes.set_ylabel),
    ):
        ticks = np.unique(np.linspace(0, len(values) - 1, 6).round().astype(int))
        set_ticks(
            ticks,
            [f"{v:.3g}" if isinstance(v := values[tick], float) else literal(_text(v)) for tick in ticks],
        )
        set_label(name)
    axes.grid(visible=False)


def _wrapped(text: str) -> str:
    import textwrap

    return textwrap.fill(text, 34, max_lines=3)
