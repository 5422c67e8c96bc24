"""What goes on, drawn on a terminal: pieces that are done, and what every worker does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress as Bar,
    ProgressColumn,
    Task,
    TextColumn,
)
from rich.text import Text

LONGEST_MEMORY = 24 * 3600.0  # seconds; by how long pieces took the rest is estimated


class _Done(MofNCompleteColumn):
    """Pieces that are done, of how many; a worker has one at a time."""

    def render(self, task: Task) -> Text:
        return super().render(task) if task.total is not None else Text()


class _Times(ProgressColumn):
    """How long it has gone on, and of the whole about how long it still will."""

    def render(self, task: Task) -> Text:
        left = "" if task.time_remaining is None else f", about {duration(task.time_remaining)} left"
        return Text(duration(task.elapsed or 0.0) + left)


def duration(seconds: float) -> str:
    """As people read it: 9 s, 4:31, 1:02:05."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}:{minutes:02}:{rest:02}"
    return f"{minutes}:{rest:02}" if minutes else f"{rest} s"


class Shown:
    """A bar with the pieces that are done, and a line for every worker with what it does since when."""

    def __init__(self, bar: Bar, pieces: int):
        self.bar = bar
        self.whole = bar.add_task("", total=pieces)
        self.workers: dict[str, tuple[str, Any]] = {}

    def advance(self, pieces: int = 1) -> None:
        self.bar.advance(self.whole, pieces)

    def tell(self, doing: Mapping[str, str]) -> None:
        """Worker -> piece; that of this process has no name."""
        if set(doing) == {""}:
            self.bar.update(self.whole, description=doing[""])
            return
        for worker in self.workers.keys() - doing.keys():
            self.bar.remove_task(self.workers.pop(worker)[1])
        for worker, piece in sorted(doing.items()):
            before, line = self.workers.get(worker, ("", None))
            if piece != before:
                if line is not None:
                    self.bar.remove_task(line)
                self.workers[worker] = piece, self.bar.add_task(f"{worker}: {piece}", total=None)


@contextmanager
def shown(console: Console | None, pieces: int) -> Iterator[Shown]:
    """A bar for so many pieces; none without a console, or in a file."""
    columns = (
        TextColumn("{task.description:<40.40}"),
        BarColumn(20),
        _Done(),
        _Times(),
    )
    bar = Bar(
        *columns,
        console=console or Console(quiet=True),
        # A file would get an empty line from each.
        disable=console is None or not (console.is_terminal or console.is_jupyter),
        transient=True,
        refresh_per_second=2,  # drawing takes milliseconds
        speed_estimate_period=LONGEST_MEMORY,
    )
    with bar:
        yield Shown(bar, pieces)
