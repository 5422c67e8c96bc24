"""Work in pieces: shown with the time left, kept when finished, and not done twice."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
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
from morphax.files import read_dataset, write_dataset, write_text

SECONDS_BETWEEN_WRITES = 5.0  # of the history of a training that goes on


class NonFiniteError(RuntimeError):
    """A piece of a run came out with NaN or infinity."""


class Progress:
    """Carries out the pieces of a run. `seconds` is what pieces that were read had taken when they were computed.

    **Arguments:**

    - `folder`: where finished pieces are kept (a run's `checkpoints` folder). None: nowhere; nothing is resumed.
    - `history`: file to which `record` writes. None: nowhere.
    - `console`: where the bar is drawn. None: no bar.

        >>> import xarray as xr
        >>> from morphax.lab.progress import Progress
        >>> parts = Progress().pieces({"one": lambda: xr.Dataset({"x": 1.0}), "two": lambda: xr.Dataset({"x": 2.0})})
        >>> float(parts["two"].x)
        2.0
    """

    def __init__(self, folder: Path | None = None, *, history: Path | None = None, console: Console | None = None):
        self.folder = folder
        self.history = history
        self.console = console
        self.seconds = 0.0
        self._unwritten: tuple[str, list[dict[str, Any]]] | None = None
        self._written_at = -math.inf

    def pieces(self, work: Mapping[str, Callable[[], xr.Dataset]]) -> dict[str, xr.Dataset]:
        """The dataset of every piece by its label; what an earlier, interrupted run finished is read, not done again.

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
        return None if self.folder is None else self.folder / _slug(label)

    def record(self, label: str, rows: list[dict[str, Any]]) -> None:
        """Write the history of one piece's training so far, one JSON object a step, beside those of other pieces.

        The file is written at the end of a piece, and on the way not more often than every few seconds.
        """
        if self._unwritten is not None and self._unwritten[0] != label:
            self._write_history()
        self._unwritten = (label, rows)
        if time.monotonic() > self._written_at + SECONDS_BETWEEN_WRITES:
            self._write_history()

    def _write_history(self) -> None:
        if self.history is None or self._unwritten is None:
            return
        (label, rows), self._unwritten = self._unwritten, None
        self._written_at = time.monotonic()
        written = self.history.read_text(encoding="utf-8").splitlines() if self.history.exists() else []
        others = [line for line in written if json.loads(line)["piece"] != label]
        own = [json.dumps({"piece": label, "step": step, **row}) for step, row in enumerate(rows)]
        write_text(self.history, "\n".join([*others, *own]) + "\n")

    def _piece(self, label: str, compute: Callable[[], xr.Dataset]) -> xr.Dataset:
        path = None if self.folder is None else self.folder / f"{_slug(label)}.nc"
        if path is not None and path.exists():
            result = read_dataset(path)
            self.seconds += result.attrs.pop("seconds", 0.0)
            return result
        started = time.perf_counter()
        try:
            result = compute()
        finally:
            self._write_history()
        _check_finite(label, result)
        if path is not None:
            write_dataset(path, result.assign_attrs(seconds=time.perf_counter() - started))
        return result


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
                "a rate or drive is too large, or the precision too low (--set precision=double)"
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


def _slug(label: str) -> str:
    return "".join(c if c.isalnum() or c in "-_.=" else "_" for c in label)
