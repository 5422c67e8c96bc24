"""What a run is asked, as its folder keeps it: experiment, configuration, digests of data; and what tells two apart."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from morphax.files import DamagedError, KnownFile, digest_of_file, read_json, read_sealed, read_sealed_dataset
from morphax.lab.errors import UsageError
from morphax.lab.experiment import BaseConfig, Data, Experiment
from morphax.lab.script import source_record

FORMAT = 2
"""Of run folders; the first had no digests."""
MANIFEST = "manifest.json"


def request_for(experiment: Experiment, config: BaseConfig, digests: dict[str, str], *, quick: bool) -> dict[str, Any]:
    """What is asked, as JSON; `digests` are those of the data."""
    request = {
        "format": FORMAT,
        "experiment": experiment.name,
        "quick": quick,
        "config": config.model_dump(mode="json"),
        "data": digests,
        **experiment.asks(),
    }
    source = source_record(experiment)
    return request if source is None else request | {"source": source}


def data_of(config: BaseConfig) -> tuple[dict[str, Path | KnownFile], dict[str, str]]:
    """The files that a run reads, of which those of a user are there, and the digests of all its data."""
    data = config.data()
    for name, entry in data.items():
        if isinstance(entry, Path) and not entry.is_file():
            raise UsageError(f"{name} is {str(entry)!r}, which is no file that can be read")
    files = {name: entry for name, entry in data.items() if not isinstance(entry, str)}
    return files, {name: _digest_of_data(entry) for name, entry in data.items()}


def _digest_of_data(entry: Data) -> str:
    if isinstance(entry, KnownFile):
        return entry.sha256
    return digest_of_file(entry) if isinstance(entry, Path) else entry


def request_in(folder: Path) -> dict[str, Any] | None:
    """What the run in a folder was asked: where `config.json` is damaged or gone, manifest and result tell it, too.

    None where nothing that morphax has sealed says that there is a run.

    **Raises:** `UsageError` where an older morphax wrote it.
    """
    unsealed = (OSError, DamagedError, KeyError)
    with suppress(*unsealed):
        return read_sealed(folder / "config.json")
    with suppress(*unsealed):
        return read_sealed(folder / MANIFEST)["request"]
    with suppress(*unsealed):
        return json.loads(read_sealed_dataset(folder / "result.nc").attrs["morphax_request"])
    with suppress(OSError, ValueError):
        older = read_json(folder / "config.json")
        if isinstance(older, dict) and older.keys() == {"experiment", "quick", "config"}:
            raise UsageError(
                f"{str(folder)!r} holds a run of {older['experiment']} by an older morphax; choose another folder"
            )
    return None


def whose(request: dict[str, Any]) -> str:
    """The experiment that a run is of; of one in a file also that file's name, wherever it lies, and the class."""
    name, source = request["experiment"], request.get("source")
    return name if source is None else f"{name} ({Path(source['file']).name}:{source['class']})"


def asked(request: dict[str, Any]) -> dict[str, Any]:
    """What is asked, whatever the file that defines the experiment holds: on that its pieces depend."""
    return {key: value for key, value in request.items() if key != "source"} | {"experiment": whose(request)}


def difference(found: dict[str, Any], asked: dict[str, Any]) -> str:
    """In what a run differs from what is asked."""
    old, new = found["config"], asked["config"]
    if changed := [key for key in new if old.get(key) != new[key]]:
        return f"a run with another {', '.join(changed)}"
    if changed := [name for name in asked["data"] if found["data"].get(name) != asked["data"][name]]:
        return f"a run whose data have changed since ({', '.join(changed)})"
    changed = [key for key in dict.fromkeys([*asked, *found]) if found.get(key) != asked.get(key)]
    return "a run with another " + ", ".join(changed)
