"""The datasets of many points as one with the swept axes, from which each is cut out again as it was."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

LAYOUT = "layout_of_points"
"""The variable that says what each point has, where points differ in it."""
TEXTS = "OUT"  # kinds of NumPy's arrays: a file gives texts back as another
FILLED = {"f": np.nan, "c": np.nan, "M": np.datetime64("NaT"), "m": np.timedelta64("NaT")}
Rows = Mapping[str, Sequence[list[int] | None]]
"""Dimension -> for every point where its places are among those of all points; None where it has no such dimension."""


def side_by_side(found: Sequence[xr.Dataset], axes: Mapping[str, xr.Variable]) -> xr.Dataset:
    """Datasets of all points along new axes, the last running fastest.

    Along every dimension are the places that any point has, in the order in which they come; ascending numbers stay
    ascending. Where a point lacks a place, or a variable, stands NaN, and of texts an empty one: there, whole numbers
    and flags become floating-point numbers. A coordinate that differs between points, and every variable, has the new
    axes. What each point had is told in `LAYOUT`, unless it is the same for all.

    **Arguments:**

    - `found`: of the points.
    - `axes`: name -> coordinate; the name may be that of a scalar coordinate which says the same.
    """
    dims = dict.fromkeys(str(dim) for dataset in found for dim in dataset.dims)
    merged = {dim: _merged(found, dim) for dim in dims}
    rows = {dim: rows for dim, (_, rows) in merged.items()}
    sizes = {dim: len(places) for dim, (places, _) in merged.items()}
    variables: dict[str, xr.Variable] = {}
    for name in dict.fromkeys(str(name) for dataset in found for name in dataset.variables):
        if name in dims:
            variables[name] = xr.Variable(name, merged[name][0], _attributes(name, found))
        elif name not in axes:
            variables[name] = _stacked(name, found, rows, sizes, axes)
    coordinates = {str(name) for dataset in found for name in dataset.coords} & variables.keys()
    whole = xr.Dataset(variables, attrs=found[0].attrs).set_coords(coordinates)
    layouts = [_layout(dataset, rows, point) for point, dataset in enumerate(found)]
    whole = whole.assign_coords(axes)
    plain = _plain_layout(whole, axes)
    if any(layout != plain for layout in layouts):
        whole[LAYOUT] = _told(layouts)
    return whole


def every_point(dataset: xr.Dataset, axes: Sequence[str]) -> Iterator[xr.Dataset]:
    """What `side_by_side` was given, one after the other."""
    about = json.loads(str(dataset[LAYOUT].item())) if LAYOUT in dataset else None
    for number, places in enumerate(itertools.product(*(range(dataset.sizes[axis]) for axis in axes))):
        part = dataset.isel(dict(zip(axes, places, strict=True)))
        yield part.drop_vars(axes) if about is None else _cut_out(part, about["layouts"][about["points"][number]])


def _merged(found: Sequence[xr.Dataset], dim: str) -> tuple[np.ndarray, list[list[int] | None]]:
    """The places of all points along a dimension, and its rows."""
    positions: dict[Any, int] = {}
    rows = []
    firsts = []
    for dataset in found:
        values = _values(dataset, dim)
        if values is None:
            rows.append(None)
            continue
        keys = _keys(values)
        firsts += [values[i : i + 1] for i, key in enumerate(keys) if key not in positions]
        rows.append([positions.setdefault(key, len(positions)) for key in keys])
    places = np.concatenate(firsts) if firsts else np.arange(0)
    own = {tuple(row) for row in rows if row is not None}
    if len(own) < 2 or places.dtype.kind not in "iufM" or not all(_ascends(places[list(row)]) for row in own):
        return places, rows
    order = np.argsort(places, kind="stable")
    moved = np.argsort(order).tolist()
    return places[order], [None if row is None else [moved[position] for position in row] for row in rows]


def _values(dataset: xr.Dataset, dim: str) -> np.ndarray | None:
    """The places along a dimension: numbers from 0 without a coordinate, the only one of a scalar coordinate."""
    return np.atleast_1d(dataset[dim].values) if dim in dataset.dims or dim in dataset.variables else None


def _keys(values: np.ndarray) -> list[Any]:
    """What tells places apart, also where one comes twice, or is NaN."""
    seen: Counter[Any] = Counter()
    keys = []
    for value in values.tolist():
        name = value if value == value else "NaN"
        keys.append((name, seen[name]))
        seen[name] += 1
    return keys


def _ascends(values: np.ndarray) -> bool:
    return bool(np.all(values[1:] >= values[:-1]))


def _stacked(
    name: str, found: Sequence[xr.Dataset], rows: Rows, sizes: Mapping[str, int], axes: Mapping[str, xr.Variable]
) -> xr.Variable:
    """A variable of all points."""
    there = {point: dataset.variables[name] for point, dataset in enumerate(found) if name in dataset.variables}
    dims = list(dict.fromkeys(str(dim) for variable in there.values() for dim in variable.dims))
    shape = (len(found), *(sizes[dim] for dim in dims))
    arrays = {point: _array(variable, dims) for point, variable in there.items()}
    whole = _empty(shape, list(arrays.values()))
    known = np.zeros(shape, bool)
    for point, array in arrays.items():
        at = [_at(rows[dim][point], dim in there[point].dims) for dim in dims]
        known[(point, *np.ix_(*at))] = True
        whole[(point, *np.ix_(*at))] = array
    if name in found[next(iter(there))].coords and (one := _common(whole, known)) is not None:
        return xr.Variable(dims, one, _attributes(name, found))
    whole = whole.reshape(*(axis.size for axis in axes.values()), *shape[1:])
    return xr.Variable((*axes, *dims), whole, _attributes(name, found))


def _attributes(name: str, found: Sequence[xr.Dataset]) -> dict[Any, Any]:
    """Those of the first point that has a variable."""
    return next(dataset.variables[name].attrs for dataset in found if name in dataset.variables)


def _array(variable: xr.Variable, dims: Sequence[str]) -> np.ndarray:
    """The numbers with all these dimensions, those in front that the variable lacks of length 1."""
    values = variable.transpose(*(dim for dim in dims if dim in variable.dims)).values
    values = values.astype(str) if values.dtype.kind in TEXTS else values
    return values.reshape([variable.sizes.get(dim, 1) for dim in dims])


def _empty(shape: tuple[int, ...], arrays: Sequence[np.ndarray]) -> np.ndarray:
    dtype = np.result_type(*arrays)
    if sum(array.size for array in arrays) == np.prod(shape):
        return np.empty(shape, dtype)
    if dtype.kind == "U":
        return np.full(shape, "", dtype)
    return np.full(shape, FILLED.get(dtype.kind, np.nan), dtype if dtype.kind in FILLED else float)


def _at(row: list[int] | None, has: bool) -> list[int]:
    """Where a point's numbers stand along a dimension; of a variable that lacks it, at its first place."""
    return (row or []) if has else (row or [0])[:1]


def _common(whole: np.ndarray, known: np.ndarray) -> np.ndarray | None:
    """What all points have alike, as far as they have it."""
    first = np.take_along_axis(whole, known.argmax(0)[None], 0)
    same = (whole == first) | ((whole != whole) & (first != first))
    return first[0] if np.all(same | ~known) else None


def _layout(dataset: xr.Dataset, rows: Rows, point: int) -> dict[str, Any]:
    """What a point has: along every dimension so many places from the first, or these; type, role, dimensions."""
    places = {dim: row for dim, several in rows.items() if (row := several[point]) is not None}
    short = {dim: len(row) if row == list(range(len(row))) else row for dim, row in places.items()}
    variables = {
        str(name): _about(variable, list(variable.dims), name in dataset.coords)
        for name, variable in dataset.variables.items()
    }
    return {"places": short, "variables": variables}


def _plain_layout(whole: xr.Dataset, axes: Mapping[str, xr.Variable]) -> dict[str, Any]:
    """That of a point which has all."""
    places = {str(dim): size for dim, size in whole.sizes.items() if dim not in axes}
    variables = {
        str(name): _about(variable, [dim for dim in variable.dims if dim not in axes], name in whole.coords)
        for name, variable in whole.variables.items()
        if name not in axes
    }
    return {"places": places, "variables": variables}


def _about(variable: xr.Variable, dims: list[Any], coordinate: bool) -> list[Any]:
    return ["text" if variable.dtype.kind in TEXTS else variable.dtype.str, coordinate, dims]


def _told(layouts: Sequence[dict[str, Any]]) -> xr.Variable:
    texts = [json.dumps(layout) for layout in layouts]
    numbers = {text: number for number, text in enumerate(dict.fromkeys(texts))}
    about = {"layouts": [json.loads(text) for text in numbers], "points": [numbers[text] for text in texts]}
    return xr.Variable((), json.dumps(about), {"long_name": "what each point has, as JSON"})


def _cut_out(part: xr.Dataset, layout: Mapping[str, Any]) -> xr.Dataset:
    rows = {dim: list(range(places)) if isinstance(places, int) else places for dim, places in layout["places"].items()}
    variables = {}
    for name, (kind, _, dims) in layout["variables"].items():
        variable = part.variables[name]
        at = {dim: _at(rows.get(str(dim)), dim in dims) for dim in variable.dims}
        variable = variable.isel({dim: places if dim in dims else places[0] for dim, places in at.items()})
        variable = variable.transpose(*dims)
        values = variable.values if kind == "text" else variable.values.astype(kind)
        variables[name] = xr.Variable(dims, values, variable.attrs)
    coordinates = [name for name, (_, coordinate, _) in layout["variables"].items() if coordinate]
    return xr.Dataset(variables, attrs=part.attrs).set_coords(coordinates)
