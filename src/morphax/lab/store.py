"""Finished pieces, found again by what decides their numbers: for a longer run, a finer sweep, another figure."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from morphax.files import (
    TEMPORARY,
    DamagedError,
    digest_of,
    read_sealed,
    read_sealed_dataset,
    write_sealed,
    write_sealed_dataset,
    writer_of,
)
from morphax.lab.lock import lives

if TYPE_CHECKING:
    import xarray as xr

LARGEST = 4 * 2**30  # bytes
ABANDONED = 24 * 3600.0  # seconds after which a file that is being written is nobody's
ABOUT = "morphax_piece"  # the variable of a file that says what piece it is
Rows = dict[str, list[dict[str, Any]]]
"""The history of the trainings of a piece: training -> one dict a step."""


class Piece(NamedTuple):
    """What a piece gave.

    - `dataset`: its numbers.
    - `history`: of its trainings.
    - `seconds`: that it took to compute.
    - `fields`: of the configuration, on which it depends.
    - `digest`: of all that decides its numbers.
    """

    dataset: xr.Dataset
    history: Rows
    seconds: float
    fields: frozenset[str]
    digest: str


class PieceStore:
    """The pieces of one run in a folder that many runs share.

    Two pieces are the same when they have the same label and the same identity (experiment, source, data, versions),
    and all fields of the configuration that were read until the first was finished have the same values. Every piece is
    one file, named by the digest of these; a file that is not what was written is named, removed, and computed anew.

    **Arguments:**

    - `folder`: of the pieces of all runs; it is made when it is needed.
    - `identity`: what decides the numbers of every piece beside the configuration, as JSON.
    - `values`: the configuration, as JSON.
    - `reuse`: whether to look for what is there.
    - `say`: is told of what is damaged.
    """

    def __init__(
        self,
        folder: Path,
        identity: Mapping[str, Any],
        values: Mapping[str, Any],
        *,
        reuse: bool = True,
        say: Callable[[str], object] = lambda text: None,
    ):
        self.folder = folder
        self.identity = dict(identity)
        self.values = dict(values)
        self.reuse = reuse
        self.say = say

    def at(self, values: Mapping[str, Any]) -> PieceStore:
        """The same at another configuration."""
        return PieceStore(self.folder, self.identity, values, reuse=self.reuse, say=self.say)

    def find(self, label: str) -> Piece | None:
        """A piece that was kept, if there is such a one."""
        if not self.reuse:
            return None
        base = self._base(label)
        for path in sorted(self._place(base).glob(f"{base}.*.json")):
            try:
                fields = read_sealed(path)["fields"]
            except (DamagedError, OSError) as error:
                self.say(f"{error}; it is left out")
                path.unlink(missing_ok=True)
                continue
            if set(fields) <= self.values.keys() and (piece := self._read(label, base, fields)) is not None:
                for used in (path, self._path(piece.digest)):
                    with suppress(OSError):
                        os.utime(used)  # for `prune`
                return piece
        return None

    def keep(self, label: str, dataset: xr.Dataset, history: Rows, *, seconds: float, fields: Iterable[str]) -> Piece:
        """Write a piece that was computed while these fields were read."""
        fields = frozenset(fields) & self.values.keys()
        base = self._base(label)
        piece = Piece(dataset, history, seconds, fields, self._digest(base, fields))
        about = {"label": label, "digest": piece.digest, "seconds": seconds, "history": history}
        # A variable: attributes of a netCDF file hold 64 kB at most.
        text = np.frombuffer(json.dumps(about).encode(), np.uint8)
        try:
            write_sealed_dataset(self._path(piece.digest), dataset.assign({ABOUT: (f"{ABOUT}_bytes", text)}))
        except ValueError as error:
            raise ValueError(f"{label}: {error}") from error
        names = sorted(fields)
        # Of the piece it is enough to know on which fields it depends: their values lead to its digest.
        write_sealed(self._place(base) / f"{base}.{digest_of(names)[:16]}.json", {"label": label, "fields": names})
        return piece

    def _base(self, label: str) -> str:
        return digest_of([self.identity, label])[:40]

    def _digest(self, base: str, fields: Iterable[str]) -> str:
        return digest_of([base, {name: self.values[name] for name in fields}])

    def _place(self, digest: str) -> Path:
        return self.folder / digest[:2]

    def _path(self, digest: str) -> Path:
        return self._place(digest) / f"{digest}.nc"

    def _read(self, label: str, base: str, fields: list[str]) -> Piece | None:
        digest = self._digest(base, fields)
        path = self._path(digest)
        try:
            dataset = read_sealed_dataset(path)
            about = json.loads(dataset[ABOUT].values.tobytes())
            if (about["label"], about["digest"]) != (label, digest):
                raise DamagedError(f"{path} is another piece: {about['label']}")
        except FileNotFoundError:
            return None
        except (DamagedError, KeyError, ValueError) as error:
            self.say(f"{label}: {error}; it is computed anew")
            path.unlink(missing_ok=True)
            return None
        return Piece(dataset.drop_vars(ABOUT), about["history"], about["seconds"], frozenset(fields), digest)


def store_beside(run: Path) -> Path:
    """Where the pieces of a run are kept: in `.pieces` in the folder `runs` above it, or else beside it.

    Where that cannot be written it is the next of these that can, and at last the run's own folder.
    """
    run = run.absolute()
    places = [*[parent for parent in run.parents if parent.name == "runs"][:1], run.parent, run]
    return next((place / ".pieces" for place in places if takes_files(place / ".pieces")), places[0] / ".pieces")


def takes_files(folder: Path) -> bool:
    """Whether files can be written into a folder, which is made where there is none."""
    there = next(place for place in (folder, *folder.parents) if place.exists())
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)


def prune(folder: Path, largest: int = LARGEST) -> int:
    """Remove pieces that were used longest ago until `largest` bytes are left; how many bytes that freed.

    What other processes write meanwhile is left alone.
    """
    files: list[tuple[float, int, Path]] = []
    now = time.time()
    for path in folder.glob("*/*"):
        with suppress(OSError):
            status = path.stat()
            if path.name.startswith(TEMPORARY):
                host, process = writer_of(path)
                if now - status.st_mtime > ABANDONED or (host == socket.gethostname() and not lives(process)):
                    path.unlink()
                continue
            files.append((status.st_mtime, status.st_size, path))
    size, freed = sum(file[1] for file in files), 0
    for _, bytes_, path in sorted(files):
        if size - freed <= largest:
            break
        path.unlink(missing_ok=True)
        freed += bytes_
    for place in folder.glob("*"):
        with suppress(OSError):
            place.rmdir()
    if largest == 0:
        with suppress(OSError):
            folder.rmdir()
    return freed
