"""The history of all trainings of a run, as it is written to `history.jsonl`."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from morphax.files import write_text
from morphax.lab.store import Rows

SECONDS_BETWEEN_WRITES = 5.0  # of the history of a training that goes on


class History:
    """The history of all trainings of a run, one JSON object a line, in the order of the pieces.

    `order` are the rows by piece, `present` the piece that is being computed.
    """

    def __init__(self, path: Path | None):
        self.path = path
        self.order: dict[str, Rows] = {}
        self.present = ""
        self._changed = False
        self._written_at = -math.inf

    def begin(self, piece: str) -> None:
        """What is added from now on is of this piece."""
        self.present = piece
        self.order[piece] = {}

    def add(self, training: str, rows: list[dict[str, Any]]) -> None:
        """The rows of a training of the present piece so far."""
        self.order.setdefault(self.present, {})[training] = rows
        self._change()

    def finish(self, piece: str, rows: Rows) -> None:
        """The rows of a piece that is computed."""
        self.order[piece] = rows
        if rows:
            self._change()

    def rows(self, piece: str) -> Rows:
        """Of a piece, as far as it went."""
        return self.order[piece]

    def write(self) -> None:
        """Write the file where something came that is not in it."""
        if self.path is not None and self._changed:
            self._changed, self._written_at = False, time.monotonic()
            write_text(self.path, "".join(f"{line}\n" for rows in self.order.values() for line in _lines(rows)))

    def _change(self) -> None:
        self._changed = True
        if time.monotonic() > self._written_at + SECONDS_BETWEEN_WRITES:
            self.write()


def _lines(rows: Rows) -> Iterator[str]:
    for training, steps in rows.items():
        for step, row in enumerate(steps):
            yield json.dumps({"piece": training, "step": step, **row})


def of_members(row: Any, part: slice) -> Any:
    """Some members' share of a row of the history of an ensemble, whose lists have the members as first axis."""
    if isinstance(row, dict):
        return {name: of_members(value, part) for name, value in row.items()}
    return row[part] if isinstance(row, list) else row
