"""Runs side by side, from their folders alone: configurations that differ, claims, and the numbers that they share.

Nothing is computed again, and nothing is written into a run folder.
"""

from __future__ import annotations

import base64
import io
import itertools
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from rich.markup import escape
from rich.table import Table

from morphax.files import DamagedError, digest_of_file, read_json, read_sealed, read_sealed_dataset, write_text
from morphax.lab.errors import UsageError
from morphax.lab.figures import (
    BLUE,
    GREEN,
    GREY,
    KINDS,
    ORANGE,
    RED,
    VIOLET,
    literal,
    mean_and_range,
    new_figure,
    styled,
)
from morphax.lab.naming import file_name
from morphax.lab.points import LAYOUT
from morphax.lab.report import coloured, rows_of, template

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS = 12  # of one variable
VARIABLES = 40  # that are drawn
FEW = 30  # points that are marked, beside the line through them
SEED = "seed"  # the dimension over which means and ranges are taken
COLOURS = (BLUE, RED, GREEN, ORANGE, VIOLET, GREY)
LINES = ("-", "--", ":", "-.")  # of the runs after these
NOTHING = "—"
WHOLES = ("over", "study")  # what a sweep and a study ask beside the configuration


@dataclass(frozen=True)
class Run:
    """A finished run as it lies in its folder; `label` is what tells its path from those of the others."""

    path: Path
    label: str
    request: dict[str, Any]
    environment: dict[str, Any]
    claims: list[dict[str, Any]]
    dataset: xr.Dataset


@dataclass(frozen=True)
class Variable:
    """What two or more runs have under one name, with the same axes (but for seeds) and unit: label -> numbers."""

    name: str
    arrays: dict[str, xr.DataArray]

    @property
    def first(self) -> xr.DataArray:
        return next(iter(self.arrays.values()))

    @property
    def unit(self) -> str:
        return str(self.first.attrs.get("units", ""))

    @property
    def meaning(self) -> str:
        return str(self.first.attrs.get("long_name", ""))

    @cached_property
    def dims(self) -> list[str]:
        return _dims(self.first)

    @cached_property
    def places(self) -> dict[str, list[Any]]:
        """The places along each axis that all runs have, in the order of the first of them."""
        return {dim: _common([_values(array, dim) for array in self.arrays.values()]) for dim in self.dims}

    @cached_property
    def along(self) -> str | None:
        """The axis along which a curve is drawn: the longest of those with numbers, or else the last."""
        numeric = [dim for dim in self.dims if all(_is_numeric(_values(a, dim)) for a in self.arrays.values())]
        longest = max(numeric, key=lambda dim: max(a.sizes[dim] for a in self.arrays.values()), default=None)
        return longest or (self.dims[-1] if self.dims else None)

    def slices(self) -> list[dict[str, Any]]:
        """The places along all other axes: a panel each."""
        others = [dim for dim in self.dims if dim != self.along]
        return [
            dict(zip(others, place, strict=True)) for place in itertools.product(*(self.places[dim] for dim in others))
        ]


class Comparison:
    """Two or more runs side by side.

    - `runs`: that are compared.
    - `differences`: what differs of request and environment: (what, one text for each run).
    - `claims`: (claim, expected or None where that differs, the row of `rows_of` or None for each run).
    - `variables`: that are shared.
    - `left_out`: variables that are not compared, and why.
    """

    def __init__(self, runs: Sequence[Run]):
        self.runs = list(runs)
        self.differences = _differences(self.runs)
        self.claims = _claims(self.runs)
        self.left_out: dict[str, str] = {}
        self.variables = list(self._shared())

    def _shared(self) -> Iterator[Variable]:
        """Of every name what has the same axes and unit in two runs or more."""
        for name in dict.fromkeys(str(name) for run in self.runs for name in run.dataset.data_vars):
            groups: dict[str, dict[str, xr.DataArray]] = {}
            for run in self.runs:
                if name in run.dataset.data_vars:
                    groups.setdefault(_kind(run.dataset[name]), {})[run.label] = run.dataset[name]
            shared = {kind: arrays for kind, arrays in groups.items() if len(arrays) > 1 and _is_drawable(arrays)}
            yield from (Variable(name, arrays) for arrays in shared.values())
            if alone := [f"{self._named(groups[kind])}: {kind}" for kind in groups if kind not in shared]:
                self.left_out[name] = "; ".join(alone)

    def _named(self, labels: Collection[str]) -> str:
        return "in all runs" if len(labels) == len(self.runs) else f"only in {' and '.join(labels)}"


def read_runs(paths: Iterable[Path]) -> list[Run]:
    """The runs in these folders.

    **Raises:** `UsageError`, naming the folder, when it is no run, one that is not finished, or damaged.
    """
    paths = list(paths)
    labels = _labels(paths)
    for index, path in enumerate(paths):
        if path.resolve() in [other.resolve() for other in paths[:index]]:
            raise UsageError(f"dir is {str(path)!r}, which is given twice; a run is compared with others")
    return [_read(path, label) for path, label in zip(paths, labels, strict=True)]


def page_for(runs: Sequence[Run], out: Path | None) -> Path:
    """Where the page goes: to `out`, or below `runs` under the labels of the runs.

    **Raises:** `UsageError` when that is no page, or lies in a run folder, which holds what its manifest says.
    """
    if out is None:
        labels = "-with-".join(run.label.replace("/", "-") for run in runs)
        where = [run.path.resolve().as_posix() for run in runs]
        out = Path("runs") / f"{file_name(f'compare-{labels}', where, whole=False)}.html"
    if out.suffix != ".html" or out.is_dir():
        raise UsageError(f"out is {str(out)!r}; it must be a file whose name ends in .html")
    for run in runs:
        if run.path.resolve() in out.resolve().parents:
            raise UsageError(f"out is {str(out)!r}, in the run folder {run.path}; a page of several runs is of none")
    return out


def tables(comparison: Comparison) -> Iterator[Table]:
    """What the terminal shows: differences, claims, numbers."""
    labels = [escape(run.label) for run in comparison.runs]
    differences = Table("what differs", *labels, title="configuration", title_justify="left")
    for name, texts in comparison.differences:
        differences.add_row(escape(name), *map(escape, texts))
    yield differences
    claims = Table("claim", "paper or baseline", *labels, title="claims", title_justify="left")
    for claim, expected, columns in comparison.claims:
        claims.add_row(escape(claim), expected or "each its own", *(_cell(texts, expected) for texts in columns))
    yield claims
    title = escape("shared numbers: mean [least, greatest] at the places that all have")
    numbers = Table("variable", "unit", "places", *labels, title=title, title_justify="left")
    left_out = "\n".join(f"{name}: {why}" for name, why in comparison.left_out.items())
    numbers.caption, numbers.caption_justify = escape(f"left out:\n{left_out}") if left_out else None, "left"
    for row in _number_rows(comparison):
        numbers.add_row(*map(escape, row))
    yield numbers


def write_page(comparison: Comparison, path: Path) -> None:
    """One HTML file that opens offline: the tables, and the shared variables drawn over each other."""
    figures, notes = _pictures(comparison)
    page = template("compare.html").render(
        runs=comparison.runs,
        differences=comparison.differences,
        claims=comparison.claims,
        numbers=list(_number_rows(comparison)),
        figures=figures,
        left_out=comparison.left_out | notes,
        panels=PANELS,
        variables=VARIABLES,
    )
    try:
        write_text(path, page)
    except OSError as error:
        raise UsageError(f"out is {str(path)!r}, which cannot be written: {error.strerror}") from error


def _read(path: Path, label: str) -> Run:
    if not (path / "config.json").is_file():
        raise UsageError(f"dir is {str(path)!r}, which is no run folder (it holds no config.json)")
    manifest: dict[str, Any] = {"complete": False}
    try:
        with suppress(FileNotFoundError):
            manifest = read_sealed(path / "manifest.json")
    except DamagedError as error:
        raise UsageError(f"dir is {str(path)!r}; {error}; morphax report {path} makes it anew") from error
    if not manifest["complete"]:
        raise UsageError(f"dir is {str(path)!r}, a run that is not finished; the command that began it finishes it")
    for name in ("config.json", "environment.json", "claims.json", "result.nc"):
        with suppress(OSError):
            if digest_of_file(path / name) == manifest["files"][name]:
                continue
        raise UsageError(f"dir is {str(path)!r}, whose {name} is not what was written; run the experiment again")
    request, environment = read_sealed(path / "config.json"), read_json(path / "environment.json")
    claims, dataset = read_json(path / "claims.json"), read_sealed_dataset(path / "result.nc")
    return Run(path, label, request, environment, claims, dataset.drop_vars(LAYOUT, errors="ignore"))


def _labels(paths: Sequence[Path]) -> list[str]:
    """The ends of the paths, from where they differ."""
    parts = [path.resolve().parts for path in paths]
    # Of a folder that holds another run its own name remains.
    above = zip(*(names[:-1] for names in parts), strict=False)
    shared = sum(1 for _ in itertools.takewhile(lambda names: len(set(names)) == 1, above))
    return ["/".join(names[shared:]) for names in parts]


def _differences(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    told = [_told(run) for run in runs]
    names = dict.fromkeys(name for texts in told for name in texts)
    rows = [(name, [texts.get(name, NOTHING) for texts in told]) for name in names]
    return [(name, texts) for name, texts in rows if len(set(texts)) > 1]


def _told(run: Run) -> dict[str, str]:
    """What was asked, and where it ran, in texts."""
    request, environment = run.request, run.environment
    texts = {"experiment": request["experiment"], "size": "quick" if request["quick"] else "full"}
    texts |= {key: _plain(value) for key, value in request["config"].items()}
    texts |= {f"{what}: {name}": _plain(value) for what in WHOLES for name, value in request.get(what, {}).items()}
    texts |= {f"data: {name}": digest[:12] for name, digest in request["data"].items()}
    texts |= {f"source: {name}": _plain(value)[-40:] for name, value in request.get("source", {}).items()}
    texts |= {f"version: {name}": version for name, version in environment["versions"].items()}
    return texts | {key: _plain(environment[key]) for key in ("python", "devices", "git_revision")}


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_plain, value))
    return value if isinstance(value, str) else json.dumps(value)


def _claims(runs: Sequence[Run]) -> list[tuple[str, str | None, list[dict[str, Any] | None]]]:
    told = [{row["claim"]: row for row in rows_of(run.claims)} for run in runs]
    rows = []
    for text in dict.fromkeys(text for claims in told for text in claims):
        columns = [claims.get(text) for claims in told]
        expected = {texts["expected"] for texts in columns if texts is not None}
        rows.append((text, expected.pop() if len(expected) == 1 else None, columns))
    return rows


def _cell(texts: dict[str, Any] | None, expected: str | None) -> str:
    if texts is None:
        return NOTHING
    against = "" if expected else f" (against {texts['expected']})"
    return f"{texts['here']}{against} {coloured(texts['verdict'])}"


def _kind(array: xr.DataArray) -> str:
    """What arrays must agree in to be drawn over each other."""
    if array.dtype.kind not in "biuf":
        return "no real numbers"
    unit = str(array.attrs.get("units", ""))
    return f"along {', '.join(sorted(_dims(array))) or 'nothing'}" + (f" in {unit}" if unit else "")


def _is_drawable(arrays: Mapping[str, xr.DataArray]) -> bool:
    return all(array.size and array.dtype.kind in "biuf" for array in arrays.values())


def _dims(array: xr.DataArray) -> list[str]:
    return [str(dim) for dim in array.dims if dim != SEED]


def _values(array: xr.DataArray, dim: str) -> list[Any]:
    """The places along an axis; of one without coordinate their numbers."""
    return array[dim].values.tolist()


def _common(several: Sequence[list[Any]]) -> list[Any]:
    others = [set(values) for values in several[1:]]
    return [place for place in dict.fromkeys(several[0]) if all(place in values for values in others)]


def _is_numeric(values: list[Any]) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def _at(array: xr.DataArray, place: Mapping[str, Any]) -> xr.DataArray:
    """The part of an array at one place of some axes."""
    return array.isel({dim: _values(array, dim).index(value) for dim, value in place.items()})


def _number_rows(comparison: Comparison) -> Iterator[list[str]]:
    """Name, unit, number of places, and the numbers of every run at these."""
    for variable in comparison.variables:
        count = int(np.prod([len(places) for places in variable.places.values()], initial=1, dtype=int))
        texts = [_summary(variable, variable.arrays.get(run.label)) if count else NOTHING for run in comparison.runs]
        yield [variable.name, variable.unit, str(count), *texts]


def _summary(variable: Variable, array: xr.DataArray | None) -> str:
    if array is None:
        return NOTHING
    for dim, places in variable.places.items():
        index = {value: position for position, value in reversed(list(enumerate(_values(array, dim))))}
        array = array.isel({dim: [index[place] for place in places]})
    numbers = array.values[np.isfinite(array.values)].astype(float)
    if not numbers.size:
        return "not a number"
    spread = f" [{numbers.min():.4g}, {numbers.max():.4g}]" if numbers.size > 1 else ""
    return f"{numbers.mean():.4g}{spread}"


def _pictures(comparison: Comparison) -> tuple[list[tuple[str, str, str]], dict[str, str]]:
    """Figures as (caption, note, PNG in base 64), and the variables without one, and why."""
    figures, notes = [], {}
    styles = {
        run.label: {"color": COLOURS[i % len(COLOURS)], "linestyle": LINES[i // len(COLOURS) % len(LINES)]}
        for i, run in enumerate(comparison.runs)
    }
    for variable in comparison.variables:
        slices = variable.slices()
        if not slices:
            notes[variable.name] = "not drawn: the runs have no place in common along the axes of its panels"
        elif len(figures) == VARIABLES:
            notes[variable.name] = f"not drawn: it comes after the first {VARIABLES}"
        else:
            shown = [slices[i] for i in np.unique(np.linspace(0, len(slices) - 1, PANELS).round().astype(int))]
            with styled():
                picture = _png(_drawn(variable, shown, styles))
            figures.append((_caption(variable), _note(variable, slices, shown), picture))
    return figures, notes


def _caption(variable: Variable) -> str:
    unit = f" ({variable.unit})" if variable.unit not in ("", "1") else ""
    return variable.name + (f", {variable.meaning}" if variable.meaning else "") + unit


def _note(variable: Variable, slices: Sequence[Any], shown: Sequence[Any]) -> str:
    """How a figure is to be read, and what is not in it."""
    seeds = any(SEED in array.dims for array in variable.arrays.values())
    notes = ["Mean and range over seeds."] if seeds else []
    if len(shown) < len(slices):
        notes.append(f"{len(shown)} of {len(slices)} slices, evenly spaced.")
    for dim in variable.dims:
        every = {value for array in variable.arrays.values() for value in _values(array, dim)}
        if dim != variable.along and (missing := len(every) - len(variable.places[dim])):
            notes.append(f"Left out: {missing} of {len(every)} places along {dim}, which not all of the runs have.")
    return " ".join(notes)


def _drawn(variable: Variable, shown: Sequence[Mapping[str, Any]], styles: Mapping[str, dict[str, Any]]) -> Figure:
    columns = min(len(shown), 4 if len(shown) > 6 else 3)
    rows = -(-len(shown) // columns)
    width, height = (3.2 * columns, 2.6 * rows) if len(shown) > 1 else (7.0, 3.6 if variable.dims else 2.2)
    figure = new_figure(width, height + 0.22 * len(variable.arrays))
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for axes, place in itertools.zip_longest(panels.flat, shown):
        if place is None:
            axes.set_axis_off()
            continue
        _draw(axes, variable, place, styles)
        axes.tick_params(labelbottom=True)  # also where the panel below is missing
        axes.set_title(", ".join(f"{dim} {_tick(value)}" for dim, value in place.items()))
    _scale(panels.flat[0], variable)
    figure.supylabel(f"{variable.name}{'' if variable.unit in ('', '1') else f' ({variable.unit})'}")
    if variable.along is not None:
        unit = str(variable.first[variable.along].attrs.get("units", ""))
        figure.supxlabel(f"{variable.along}{'' if unit in ('', '1') else f' ({unit})'}")
    figure.legend(*panels.flat[0].get_legend_handles_labels(), loc="outside upper left", ncols=1)
    return figure


def _draw(axes: Axes, variable: Variable, place: Mapping[str, Any], styles: Mapping[str, dict[str, Any]]) -> None:
    """All runs in one panel: curves along numbers, points along names."""
    everywhere = _everywhere(variable)
    names = {value: position for position, value in enumerate(dict.fromkeys(everywhere))}
    for number, (name, array) in enumerate(variable.arrays.items()):
        part, label = _at(array, place).astype(float), literal(name)
        if _is_numeric(everywhere):
            _curve(axes, np.array(_values(part, str(variable.along))), part, {"label": label} | styles[name])
        else:
            shift = 0.6 * ((number + 0.5) / len(variable.arrays) - 0.5)
            positions = [names[value] for value in _values(part, variable.along)] if variable.along else [0]
            part = part if variable.along else part.expand_dims("one")
            _points(axes, np.array(positions) + shift, part, label, styles[name]["color"])
    if not _is_numeric(everywhere):
        axes.set_xticks(list(names.values()), [_tick(name) for name in names], rotation=20 if len(names) > 3 else 0)
        axes.set_xlim(-0.5, len(names) - 0.5)
        axes.grid(visible=False, axis="x")
        axes.tick_params(axis="x", length=0)


def _curve(axes: Axes, x: np.ndarray, part: xr.DataArray, style: dict[str, Any]) -> None:
    style |= {"marker": "o" if len(x) <= FEW else "", "markersize": 3.5}
    if SEED in part.dims:
        mean_and_range(axes, x, part, over=SEED, **style)
    else:
        axes.plot(x, part, **style)


def _points(axes: Axes, x: np.ndarray, part: xr.DataArray, label: str, colour: str) -> None:
    """The mean as a point, and the range over seeds as a bar."""
    mean, least, greatest = (
        (part.mean(SEED), part.min(SEED), part.max(SEED)) if SEED in part.dims else (part, part, part)
    )
    axes.errorbar(x, mean, [mean - least, greatest - mean], fmt="o", capsize=3, color=colour, label=label)


def _tick(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else literal(str(value))


def _scale(axes: Axes, variable: Variable) -> None:
    """Logarithmic axes for what spans orders of magnitude; all panels share them."""
    y = np.concatenate([array.values[np.isfinite(array.values)].ravel() for array in variable.arrays.values()])
    if y.size and y.min() > 0 and y.max() > 1000 * y.min():
        axes.set_yscale("log")
    x = _everywhere(variable)
    # Sizes such as 10, 100, 1000, and not 1, 2, ... 1000.
    if _is_numeric(x) and min(x) > 0 and max(x) > 100 * min(x) and np.median(x) < (min(x) + max(x)) / 4:
        axes.set_xscale("log")


def _everywhere(variable: Variable) -> list[Any]:
    """The places of all runs along the axis of the curves; one without a name where there is no such axis."""
    along = variable.along
    return [value for a in variable.arrays.values() for value in _values(a, along)] if along else [""]


def _png(figure: Figure) -> str:
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata=KINDS["png"])
    return base64.b64encode(file.getvalue()).decode()
