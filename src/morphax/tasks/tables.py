"""Tables of numbers in CSV files, as instruments and spreadsheets write them."""

from __future__ import annotations

import csv
import difflib
import math
import re
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
from jaxtyping import Float

from morphax.files import check_regular, note_file

MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "?", "-"})
LARGEST_FILE = 200_000_000
"""Bytes: all cells of a file are held as text while it is read, in about ten times as much memory."""
DECIMAL_COMMA = re.compile(r"[+-]?(\d+,\d*|,\d+)([eE][+-]?\d+)?")
THOUSANDS = re.compile(r"[+-]?\d{1,3}([.,' \u00a0\u202f]\d{3})+([.,]\d*)?")
COMMA_OR_THOUSAND = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}")
Rows = list[tuple[int, list[str]]]
"""The non-empty rows of a file: (line number from 1, cells)."""
WITH_UNIT = re.compile(r"(.*\S)\s*[(\[](.*)[)\]]")
"""A title such as "voltage (mV)"."""
BRACKETED = re.compile(r"[(\[](.*)[)\]]")


@dataclass(frozen=True)
class Table:
    """The columns of a file, as text until they are asked for.

    **Attributes:** `names` of the columns, in order, and their `units`, where the file says them; `titles`, as they
    stand there.
    """

    path: Path
    names: tuple[str, ...]
    titles: tuple[str, ...]
    rows: Rows = field(repr=False)
    units: dict[str, str]

    def column(self, name: str, *, gaps: bool = False) -> Float[np.ndarray, " rows"]:
        """A column as numbers.

        **Arguments:** `gaps`: whether cells that hold nothing are NaN; otherwise they are refused.

        **Raises:** `ValueError`, in one line, when there is no such column (names the nearest), or two, or a cell holds
        text (says the row and the text) or nothing (says which rows).
        """
        cells = self._cells(name)
        for line, cell in cells:
            if not (_is_missing(cell) or _is_number(cell)):
                hint = "; write decimal points, and no thousands separators" if _is_written_otherwise(cell) else ""
                raise ValueError(
                    f"{self.path}: column {name!r} holds {cell!r} in row {line}; it must hold finite numbers{hint}"
                )
        if not gaps:
            _refuse_missing(self.path, name, cells)
        return np.array([math.nan if _is_missing(cell) else float(cell) for _, cell in cells])

    def texts(self, name: str) -> list[str]:
        """A column as it is written. **Raises:** `ValueError`, in one line, where cells hold nothing."""
        cells = self._cells(name)
        _refuse_missing(self.path, name, cells)
        return [cell for _, cell in cells]

    def numeric(self) -> list[str]:
        """The columns that are no text, in order."""
        return [name for name in self.names if _is_mostly_numbers([cell for _, cell in self._cells(name)])]

    def last_numeric(self) -> str:
        """The last column that is no text. **Raises:** `ValueError` where there is none."""
        for index in reversed(range(len(self.names))):
            if _is_mostly_numbers([cells[index] for _, cells in self.rows]):
                return self.names[index]
        raise ValueError(f"{self.path} has no column of numbers (columns: {', '.join(self.names)})")

    def matching(self, pattern: str) -> list[str]:
        """The columns of a name, or of names with `*` and `?`, in order. **Raises:** `ValueError` without any."""
        named = list(zip(self.names, self.titles, strict=True))
        whole = [name for name, title in named if pattern in (name, title)]
        found = whole or [name for name, title in named if fnmatchcase(name, pattern) or fnmatchcase(title, pattern)]
        if not found:
            raise ValueError(self._unknown(pattern))
        return found

    def _cells(self, name: str) -> list[tuple[int, str]]:
        named = enumerate(zip(self.names, self.titles, strict=True))
        places = [place for place, names in named if name in names]
        if not places:
            raise ValueError(self._unknown(name))
        if len(places) > 1:
            listed = ", ".join(str(place + 1) for place in places)
            raise ValueError(
                f"{self.path} has {len(places)} columns called {name!r} ({listed}); each must have a name of its own"
            )
        return [(line, cells[places[0]]) for line, cells in self.rows]

    def _unknown(self, column: str) -> str:
        lowered = {name.lower(): name for name in self.names}
        near = difflib.get_close_matches(column.lower(), lowered, n=1)
        hint = f"; did you mean {lowered[near[0]]!r}?" if near else ""
        return f"column is {column!r}, which {self.path} does not have{hint} (columns: {', '.join(self.names)})"


def read_table(path: str | Path) -> Table:
    """Read a CSV file.

    Cells are separated by commas, or by semicolons or tabs where the first row holds any. With semicolons or tabs the
    numbers of the whole file may have decimal commas instead of points ("1,5", as spreadsheets write in German or
    French). Thousands separators are not read. The first row is taken for a header when none of its cells is a number,
    or when a column is text there and mostly numbers below; the second for units, when it is in brackets or has none
    either. Units may stand in the header, too: "voltage (mV)". Without a header the columns are named "1", "2", ...
    Empty lines are skipped, and lines that begin with "#".

    **Arguments:** `path`: the file, in UTF-8; a regular one of at most 200 MB.

    **Raises:** `ValueError`, in one line, when the file cannot be read, rows differ in length, or commas may be decimal
    or not. Rows count the lines of the file from 1.
    """
    note_file(Path(path))
    rows = _read_rows(Path(path))
    names, titles, units, rows = _split_header(rows)
    for line, cells in rows:
        if len(cells) != len(names):
            raise ValueError(
                f"{path}: row {line} has a different number of cells than the first row: {len(cells)}, not {len(names)}"
            )
    return Table(Path(path), tuple(names), tuple(titles), rows, units)


def _split_header(rows: Rows) -> tuple[list[str], list[str], dict[str, str], Rows]:
    """The names of the columns, their titles, their units, and the rows without the header."""
    first, below = rows[0][1], [cells for _, cells in rows[1:]]

    def is_title(index: int, cell: str) -> bool:
        text = not _is_missing(cell) and not _is_number(cell)
        return text and _is_mostly_numbers([cells[index] for cells in below if index < len(cells)])

    titled = [is_title(index, cell) for index, cell in enumerate(first)]
    if any(map(_is_number, first)) and not any(titled):
        numbers = [str(index) for index in range(1, len(first) + 1)]
        return numbers, numbers, {}, rows
    rows = rows[1:]
    split = [WITH_UNIT.fullmatch(cell) for cell in first]
    names = [match[1] if match else cell for match, cell in zip(split, first, strict=True)]
    units = {match[1]: match[2] for match in split if match}
    # Titles that differ in their units alone keep them.
    if len(set(names)) < len(set(first)):
        names, units = first, {}
    second = rows[0][1] if rows else []
    if len(rows) > 1 and len(second) == len(names) and _are_units(second, titled):
        units |= {name: _bare(cell) for name, cell in zip(names, second, strict=True) if cell}
        rows = rows[1:]
    return names, first, units, rows


def _are_units(cells: list[str], titled: list[bool]) -> bool:
    """Whether a second row holds units: text in every column of numbers that is not empty, in brackets or all short."""
    above_numbers = [cell for cell, number in zip(cells, titled, strict=True) if number and cell]
    return (
        bool(above_numbers)
        and all(
            not _is_number(cell) and not _is_missing(cell) and not _is_written_otherwise(cell) for cell in above_numbers
        )
        and all(BRACKETED.fullmatch(cell) or len(cell) <= 8 for cell in above_numbers)
    )


def _bare(cell: str) -> str:
    match = BRACKETED.fullmatch(cell)
    return match[1] if match else cell


def _read_rows(path: Path) -> Rows:
    try:
        check_regular(path, LARGEST_FILE)
        with path.open(newline="", encoding="utf-8-sig") as file:
            first = file.readline()
            file.seek(0)
            delimiter = next((mark for mark in ";\t" if mark in first), ",")
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            rows = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is not a CSV file in UTF-8: {error}") from error
    rows = [row for row in rows if any(row[1]) and not row[1][0].startswith("#")]
    if not rows:
        raise ValueError(f"{path} is empty; a series needs at least 2 rows")
    return rows if delimiter == "," else _with_points(path, rows)


def _with_points(path: Path, rows: Rows) -> Rows:
    """The same rows with decimal points, where the file has decimal commas."""
    with_comma = [(line, cell) for line, cells in rows for cell in cells if DECIMAL_COMMA.fullmatch(cell)]
    if not with_comma:
        return rows
    for line, cells in rows:
        for cell in cells:
            if "." in cell and _is_number(cell):
                raise ValueError(
                    f"{path}: {cell!r} in row {line} has a decimal point and {with_comma[0][1]!r} in row "
                    f"{with_comma[0][0]} a comma; a file must have one or the other, and no thousands separators"
                )
    if all(COMMA_OR_THOUSAND.fullmatch(cell) for _, cell in with_comma):
        line, cell = with_comma[0]
        raise ValueError(
            f"{path}: {cell!r} in row {line} may be {cell.replace(',', '.')} or {cell.replace(',', '')}, and so may "
            "all numbers with a comma; write decimal points, and no thousands separators"
        )
    return [
        (line, [cell.replace(",", ".") if DECIMAL_COMMA.fullmatch(cell) else cell for cell in cells])
        for line, cells in rows
    ]


def _refuse_missing(path: Path, name: str, cells: list[tuple[int, str]]) -> None:
    missing = [line for line, cell in cells if _is_missing(cell)]
    if missing:
        listed = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
        raise ValueError(f"{path}: column {name!r} misses {len(missing)} of {len(cells)} values, in row {listed}")


def _is_mostly_numbers(cells: list[str]) -> bool:
    """Whether at least half of the cells that are not missing were meant as numbers."""
    present = [cell for cell in cells if not _is_missing(cell)]
    meant = sum(_number(cell) is not None or _is_written_otherwise(cell) for cell in present)
    return bool(present) and 2 * meant >= len(present)


def _is_missing(cell: str) -> bool:
    return cell.lower() in MISSING


def _is_number(cell: str) -> bool:
    number = _number(cell)
    return number is not None and math.isfinite(number)


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


def _is_written_otherwise(cell: str) -> bool:
    """Whether it is a number with a decimal comma or thousands separators, which is not read as it stands."""
    return bool(DECIMAL_COMMA.fullmatch(cell) or THOUSANDS.fullmatch(cell))
