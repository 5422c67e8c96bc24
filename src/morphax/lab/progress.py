"""Work in pieces: shown with the time left, kept when finished, and not done twice."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress as Bar,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from morphax._lazy import xr
from morphax.files import digest_of, write_text
from morphax.lab.identity import noting_fields
from morphax.lab.store import Piece, PieceStore, Rows

SECONDS_BETWEEN_WRITES = 5.0  # of the history of a training that goes on


class NonFiniteError(RuntimeError):
    """A piece of a run came out with NaN or infinity."""


class Progress:
    """Carries out the pieces of a run. `seconds` is what pieces that were reused had taken when they were computed.

    **Arguments:**

    - `store`: where finished pieces are kept and found. None: nowhere; nothing is reused.
    - `checkpoints`: where the states of trainings are kept that are not finished. None: nowhere; nothing is resumed.
    - `history`: file for what `record` tells. None: nowhere.
    - `console`: where the bar is drawn. None: no bar.
    - `before_keeping`: is called before a piece is kept, and may refuse.

    `digests` are those of the pieces, by label.

        >>> import xarray as xr
        >>> from morphax.lab.progress import Progress
        >>> parts = Progress().pieces({"one": lambda: xr.Dataset({"x": 1.0}), "two": lambda: xr.Dataset({"x": 2.0})})
        >>> float(parts["two"].x)
        2.0
    """

    def __init__(
        self,
        store: PieceStore | None = None,
        *,
        checkpoints: Path | None = None,
        history: Path | None = None,
        console: Console | None = None,
        extents: Collection[str] = (),
        before_keeping: Callable[[], object] = lambda: None,
    ):
        self.store = store
        self.checkpoints = checkpoints
        self.console = console
        self.seconds = 0.0
        self.digests: dict[str, str] = {}
        self.before_keeping = before_keeping
        self._history = History(history)
        self._extents = frozenset(extents)
        self._outside: set[str] = set()
        self._inside: set[str] = set()

    @contextmanager
    def noting(self) -> Iterator[None]:
        """What is read of the configuration meanwhile counts for all pieces that follow."""
        with noting_fields(self._outside):
            yield

    def pieces(self, work: Mapping[str, Callable[[], xr.Dataset]]) -> dict[str, xr.Dataset]:
        """The dataset of every piece by its label; what was computed before is read, not done again.

        A piece depends on its label and on all that was read of the configuration until it was finished, but for
        extents (`parameter`), which only a piece that reads them itself depends on.

        **Raises:** `NonFiniteError` when a piece holds NaN or infinity, naming piece, variable and place. Pieces
        that finished before it stay kept.
        """
        return self.chain(list(work), lambda label, _: work[label]())

    def chain(
        self, labels: list[str], compute: Callable[[str, dict[str, xr.Dataset]], xr.Dataset]
    ) -> dict[str, xr.Dataset]:
        """Like `pieces`, for pieces that need what came before: `compute(label, earlier results)`."""
        results: dict[str, xr.Dataset] = {}
        with _bar(self.console) as bar:
            task = bar.add_task("", total=len(labels))
            for label in labels:
                bar.update(task, description=label)
                results[label] = self._piece(label, lambda label=label: compute(label, results))
                bar.advance(task)
        return results

    def checkpoint(self, label: str) -> Path | None:
        """A folder for the intermediate states of one long piece (a training's); None when nothing is kept."""
        return None if self.checkpoints is None else self.checkpoints / _file_name(label)

    def record(self, label: str, rows: list[dict[str, Any]]) -> None:
        """Tell the history of one training so far, one dict a step, in the order of the steps.

        It is kept with the piece that is being computed; the file is written at the end of a piece, and on the way not
        more often than every few seconds.
        """
        self._history.add(label, rows)

    def finish(self) -> None:
        """Write what is not written yet of the history."""
        self._history.write()

    def _piece(self, label: str, compute: Callable[[], xr.Dataset]) -> xr.Dataset:
        if label in self.digests:
            raise ValueError(f"two pieces are called {label!r}; a label names one piece of a run")
        piece = None if self.store is None else self.store.find(label)
        if piece is None:
            piece = self._computed(label, compute)
        else:
            self.seconds += piece.seconds
            self._inside |= piece.fields
            self._history.finish(piece.history)
        self.digests[label] = piece.digest
        return piece.dataset

    def _computed(self, label: str, compute: Callable[[], xr.Dataset]) -> Piece:
        started = time.perf_counter()
        try:
            with noting_fields(self._inside):
                dataset = compute()
        finally:
            self._history.write()
        _check_finite(label, dataset)
        self.before_keeping()
        seconds, history = time.perf_counter() - started, self._history.finish()
        # What a compiled program read when it was traced for one piece is not read again for the next: all count.
        fields = (self._outside - self._extents) | self._inside
        if self.store is None:
            return Piece(dataset, history, seconds, frozenset(fields), "")
        return self.store.keep(label, dataset, history, seconds=seconds, fields=fields)


class History:
    """The history of all trainings of a run, one JSON object a line, in the order of the pieces."""

    def __init__(self, path: Path | None):
        self.path = path
        self._finished: list[str] = []
        self._going_on: Rows = {}
        self._changed = False
        self._written_at = -math.inf

    def add(self, training: str, rows: list[dict[str, Any]]) -> None:
        """The rows of a training of the present piece so far."""
        self._going_on[training] = rows
        self._changed = True
        if time.monotonic() > self._written_at + SECONDS_BETWEEN_WRITES:
            self.write()

    def finish(self, rows: Rows | None = None) -> Rows:
        """End the present piece, whose rows are these where it was not computed; its rows."""
        rows = self._going_on if rows is None else rows
        self._finished += _lines(rows)
        self._changed |= bool(rows)
        self._going_on = {}
        return rows

    def write(self) -> None:
        """Write the file where something came that is not in it."""
        if self.path is not None and self._changed:
            self._changed, self._written_at = False, time.monotonic()
            write_text(self.path, "".join(f"{line}\n" for line in [*self._finished, *_lines(self._going_on)]))


def _lines(rows: Rows) -> Iterator[str]:
    for training, steps in rows.items():
        for step, row in enumerate(steps):
            yield json.dumps({"piece": training, "step": step, **row})


def along(
    dim: str, parts: Mapping[Any, xr.Dataset], attributes: Mapping[str, str] | None = None, **options: Any
) -> xr.Dataset:
    """Datasets side by side along a new dimension, whose coordinate the keys of `parts` are.

    **Arguments:**

    - `dim`: the dimension's name.
    - `parts`: coordinate -> dataset, in order: what `Progress.pieces` gave, or some of it.
    - `attributes`: of the coordinate (`units`, `long_name`).
    - `options`: of `xarray.concat`.

        >>> import xarray as xr
        >>> from morphax.lab.progress import along
        >>> along("drive", {0.1: xr.Dataset({"x": 1.0}), 0.2: xr.Dataset({"x": 2.0})}).x.sel(drive=0.2).item()
        2.0
    """
    return xr.concat(list(parts.values()), xr.Variable(dim, list(parts), attributes), **options)


def _check_finite(label: str, result: xr.Dataset) -> None:
    for name, variable in result.data_vars.items():
        if not np.issubdtype(variable.dtype, np.inexact) or variable.attrs.get("may_be_missing"):
            continue
        bad = np.argwhere(~np.isfinite(variable.values))
        if len(bad):
            place = ", ".join(f"{dim}={index}" for dim, index in zip(variable.dims, bad[0], strict=True))
            raise NonFiniteError(
                f"{label}: {name} is not finite at {place or 'its only value'} ({len(bad)} of {variable.size} values); "
                "a rate, a drive or a value in the data is too large, or the precision too low (--set precision=double)"
            )


def _bar(console: Console | None) -> Bar:
    return Bar(
        TextColumn("{task.description:<28.28}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console or Console(quiet=True),
        disable=console is None,
        transient=True,
    )


def _file_name(label: str) -> str:
    """What people recognise of a label, and what no other label has."""
    plain = "".join(c if c.isalnum() or c in "-_.=" else "_" for c in label)
    return f"{plain[:80]}-{digest_of(label)[:8]}"
