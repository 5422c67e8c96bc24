"""A run, told to another process, which then carries out some of its pieces."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from morphax.files import KnownFile
from morphax.lab.script import load_experiment, names_a_file, spec_of

if TYPE_CHECKING:
    from morphax.lab.experiment import Experiment


class Job(NamedTuple):
    """What a process must know of a run to carry out its pieces; everything else it makes anew from this.

    - `experiment`: where its class is (`place_of`).
    - `config`: the configuration, as JSON.
    - `data`: name -> digest of all that is read.
    - `source`: the digest of the source behind the numbers.
    - `versions`: of what compiles and computes, and, as "backend", on what.
    """

    experiment: str
    config: dict[str, Any]
    data: dict[str, str]
    source: str
    versions: dict[str, str]

    def text(self) -> str:
        """As JSON."""
        return json.dumps(self._asdict(), sort_keys=True)

    @classmethod
    def read(cls, text: str) -> Self:
        """From what `text` gave."""
        return cls(**json.loads(text))


class Task(NamedTuple):
    """A piece that is to be carried out.

    - `job`: the run that it is of.
    - `label`: its name.
    - `checkpoints`: folder here for the states of its trainings. None: they are not kept.
    - `files`: of the job's data, by name.
    - `anew`: whether states of its trainings that are there from before are not taken up.
    """

    job: Job
    label: str
    checkpoints: Path | None = None
    files: Mapping[str, Path | KnownFile] = {}
    anew: bool = False


def place_of(experiment: type[Experiment]) -> str:
    """Where another process finds a class: FILE:CLASS for one in a file of its own, else MODULE:CLASS."""
    spec = spec_of(experiment)
    return spec if names_a_file(spec) else f"{experiment.__module__}:{experiment.__qualname__}"


def class_at(place: str) -> type[Experiment]:
    """The class at a place that `place_of` named."""
    where, _, name = place.rpartition(":")
    if names_a_file(where):
        return load_experiment(place)
    found: Any = importlib.import_module(where)
    for part in name.split("."):
        found = getattr(found, part)
    return found
