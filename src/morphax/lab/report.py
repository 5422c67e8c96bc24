"""The report of a run: one HTML file that opens offline, made from the run folder alone."""

import base64
import inspect
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jinja2
import xarray as xr
from pydantic.fields import FieldInfo

from morphax.files import read_json, write_text
from morphax.lab.experiment import Experiment, bounded


def write_report(folder: Path, experiment: Experiment, dataset: xr.Dataset, figures: Iterable[str]) -> Path:
    """Write `report.html` into a run folder from its `config.json`, `environment.json`, `claims.json` and figures."""
    request = read_json(folder / "config.json")
    fields = experiment.Config.model_fields
    pictures = {name: (folder / "figures" / f"{name}.png").read_bytes() for name in sorted(figures)}
    page = template("report.html").render(
        name=request["experiment"],
        quick=request["quick"],
        text=(inspect.getdoc(experiment) or "").split("\n\n"),
        verdict=experiment.verdict(dataset),
        tables=experiment.tables(dataset),
        claims=rows_of(read_json(folder / "claims.json")),
        figures={name: base64.b64encode(picture).decode() for name, picture in pictures.items()},
        config=[(key, value, _unit(fields[key]), fields[key].description) for key, value in request["config"].items()],
        environment=dict(_flat(read_json(folder / "environment.json"))),
        results=[_described(name, variable) for name, variable in dataset.data_vars.items()],
        seconds=dataset.attrs.get("seconds"),
    )
    write_text(folder / "report.html", page)
    return folder / "report.html"


def rows_of(claims: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Judged claims with the columns of a table: a row each, also where one was judged at many points."""
    texts: dict[str, list[dict[str, Any]]] = {}
    for claim in claims:
        texts.setdefault(claim["claim"], []).append(claim)
    return [
        several[0] | (claim_texts(several[0]) if len(several) == 1 else _at_points(several))
        for several in texts.values()
    ]


def _at_points(claims: list[dict[str, Any]]) -> dict[str, str]:
    """The columns of one claim that was judged at many points."""
    columns = [claim_texts(claim) for claim in claims]
    expected = {texts["expected"] for texts in columns}
    numbers = sorted(claim["ours"] for claim in claims if claim["ours"] is not None)
    judged = [claim["met"] for claim in claims if claim["met"] is not None]
    here = f"{_short(numbers[0])} … {_short(numbers[-1])}" if numbers else "not run"
    verdict = f"met at {sum(judged)} of {len(judged)} points" if judged else columns[0]["verdict"]
    if judged and all(judged):
        verdict = f"met: at all {len(judged)} points"
    return {"expected": expected.pop() if len(expected) == 1 else "each its own", "here": here, "verdict": verdict}


def claim_texts(claim: dict[str, Any]) -> dict[str, str]:
    """The columns "expected", "here" and "verdict" of a judged claim, for the terminal and the report alike."""
    paper = claim["paper"]
    expected = "—" if paper is None else bounded(claim["relation"], _short(paper), claim["tolerance"])
    verdict = "refuted" if "refuted" in claim else {True: "met", False: "not met", None: "reported"}[claim["met"]]
    missing = "not run"
    if "no_verdict" in claim:
        verdict, missing = f"no verdict: {claim['no_verdict']}", "—"
    here = missing if claim["ours"] is None else _short(claim["ours"])
    return {"expected": expected, "here": here, "verdict": verdict}


def coloured(verdict: str) -> str:
    """A verdict as the terminal shows it, in Rich's markup."""
    colours = {"met": "green", "not met": "bold red", "refuted": "magenta", "reported": "dim"}
    colour = colours.get(verdict.partition(":")[0], "bold yellow")  # met at some points, or no verdict, and why
    return f"[{colour}]{verdict}[/{colour}]"


def _short(value: float) -> str:
    """Four digits, or all of a whole number (a count)."""
    return f"{value:.0f}" if value == round(value) and abs(value) < 1e6 else f"{value:.4g}"


def template(name: str) -> jinja2.Template:
    """Of a page that opens offline."""
    loader = jinja2.PackageLoader("morphax.lab", "")
    return jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined).get_template(name)


def _described(name: Any, variable: xr.DataArray) -> dict[str, str]:
    axes = ", ".join(f"{dim} {size}" for dim, size in variable.sizes.items())
    return {
        "name": str(name),
        "axes": axes or "one number",
        "units": str(variable.attrs.get("units", "")),
        "meaning": str(variable.attrs.get("long_name", "")),
    }


def _unit(field: FieldInfo) -> str:
    extra = field.json_schema_extra
    return str(extra.get("unit", "")) if isinstance(extra, dict) else ""


def _flat(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key} ")
        else:
            yield prefix + key, ", ".join(map(str, value)) if isinstance(value, list) else value
