"""Work in pieces: shown with the time left, kept when finished, and not done twice."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from rich.console import Console

from morphax._checks import cores
from morphax._lazy import xr
from morphax.lab.bar import Shown, shown
from morphax.lab.blocks import Block
from morphax.lab.compile_cache import make_room
from morphax.lab.history import History, of_members
from morphax.lab.identity import noting_fields
from morphax.lab.naming import file_name
from morphax.lab.store import Piece, PieceStore, Rows

if TYPE_CHECKING:
    from morphax.lab.experiment import BaseConfig

MOST_NAMED = 10  # of pieces that fail


class NonFiniteError(RuntimeError):
    """A piece of a run came out with NaN or infinity."""


class PiecesFailedError(RuntimeError):
    """Some pieces of a run failed, while the others were computed and kept."""


class Outcome(NamedTuple):
    """What came of a piece that was carried out.

    - `label`: its name.
    - `dataset`: its numbers; None where it failed.
    - `history`: of its trainings, as far as they went.
    - `seconds`: that it took.
    - `fields`: of the configuration, that were read meanwhile or before in the same process.
    - `error`: why it failed.
    """

    label: str
    dataset: xr.Dataset | None
    history: Rows
    seconds: float
    fields: frozenset[str]
    error: Exception | None = None


Tell = Callable[[Mapping[str, str]], None]
"""Is told what goes on where: worker -> piece."""
Elsewhere = Callable[[Sequence[tuple["Progress", str]], Tell], Iterable[tuple[int, Outcome]]]


class Known(BaseException):
    """Ends a run where its pieces are known (`Listing`), and which of them it needs first."""

    def __init__(self, work: Mapping[str, Callable[[], xr.Dataset]], wanted: Collection[str] | None = None):
        super().__init__()
        self.work = work
        self.wanted = [label for label in work if wanted is None or label in wanted]


class Progress:
    """Carries out the pieces of a run.

    `seconds` is what all pieces took when they were computed, `waited` what went by until they were there; `digests`
    are those of the pieces, by label. `broken` is what went wrong around them, and
    not in the experiment: the store, the lock, the scheduler.

    **Arguments:**

    - `store`: where finished pieces are kept and found. None: nowhere; nothing is reused.
    - `checkpoints`: where the states of trainings are kept that are not finished. None: nowhere; nothing is resumed.
    - `history`: file for what `record` tells. None: nowhere.
    - `console`: where the bar is drawn. None: no bar.
    - `extents`: fields of the configuration that say how many pieces there are (`parameter`).
    - `before_keeping`: is called before a piece is kept, and may refuse.
    - `elsewhere`: carries pieces out in other processes, each given by its progress and label, and gives what came of
      them by their place in the list, in any order (`Executor`). None: they are computed here, one after the other.

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
        elsewhere: Elsewhere | None = None,
    ):
        self.store = store
        self.checkpoints = checkpoints
        self.console = console
        self.seconds = 0.0
        self.waited = 0.0
        self.digests: dict[str, str] = {}
        self.before_keeping = before_keeping
        self.elsewhere = elsewhere
        self.point = ""
        self.broken: Exception | None = None
        self._ready: dict[str, Piece | Exception] = {}
        self._history = History(history)
        self._extents = frozenset(extents)
        self._outside: set[str] = set()
        self._inside: set[str] = set()

    @contextmanager
    def noting(self) -> Iterator[None]:
        """What is read of the configuration meanwhile counts for all pieces that follow."""
        with noting_fields(self._outside):
            yield

    def pieces(
        self, work: Mapping[str, Callable[[], xr.Dataset]], wanted: Collection[str] | None = None
    ) -> dict[str, xr.Dataset]:
        """The dataset of every piece by its label; what was computed before is read, not done again.

        `wanted` are the labels of those that are needed; None: all. A run that needs some pieces to know which others
        it needs asks twice, with all that it may ask for as `work`: workers know of no other pieces.

        A piece depends on its label and on all that was read of the configuration until it was finished, but for
        extents (`parameter`), which only a piece that reads them itself depends on.

        **Raises:** where pieces fail, after all others are finished and kept: what one of them raised (`NonFiniteError`
        where it holds NaN or infinity, naming piece, variable and place), or `PiecesFailedError` that names all.
        """
        labels = [label for label in work if wanted is None or label in wanted]
        with self._waiting(labels) as bar:
            failed = {label: error for label in labels if isinstance(error := self._ready.get(label), Exception)}
            done = {
                label: piece for label in labels if label not in failed and (piece := self._found(label)) is not None
            }
            bar.advance(len(failed) + len(done))
            missing = [label for label in labels if label not in failed and label not in done]
            for outcome in self._here(work, missing, bar) if self.elsewhere is None else self._elsewhere(missing, bar):
                if outcome.error is None:
                    done[outcome.label] = self._keep(outcome)
                else:
                    failed[outcome.label] = outcome.error
                    self._tell_failure(outcome, len(missing))
                bar.advance()
        raise_failures(failed, len(labels))
        self.digests |= {label: done[label].digest for label in labels}
        return {label: done[label].dataset for label in labels}

    def chain(
        self, labels: list[str], compute: Callable[[str, dict[str, xr.Dataset]], xr.Dataset]
    ) -> dict[str, xr.Dataset]:
        """Like `pieces`, for pieces that need what came before, one after the other, here.

        `compute` is given a label and the results so far; the first that fails ends the chain.
        """
        results: dict[str, xr.Dataset] = {}
        with self._waiting(labels) as bar:
            for label in labels:
                if (piece := self._found(label)) is None:
                    work = {label: lambda label=label: compute(label, results)}
                    (outcome,) = self._here(work, [label], bar)
                    if outcome.error is not None:
                        raise_failures({label: outcome.error}, len(labels))
                    piece = self._keep(outcome)
                self.digests[label] = piece.digest
                results[label] = piece.dataset
                bar.advance()
        return results

    def at(self, point: str, config: BaseConfig) -> Progress:
        """Of a part of the run that has another configuration: its pieces are those of a run with that.

        What the part says of itself counts for the run after `take`.
        """
        part = Progress(
            None if self.store is None else self.store.at(config.model_dump(mode="json")),
            checkpoints=None if self.checkpoints is None else checkpoint_of(self.checkpoints, point),
            console=self.console,
            extents=self._extents,
            before_keeping=self.before_keeping,
            elsewhere=self.elsewhere,
        )
        part.point = point
        return part

    def ahead(self, wanted: Sequence[tuple[Progress, str]]) -> None:
        """Have pieces of parts carried out elsewhere, all at once, before the parts ask for them.

        What a piece raised is raised where its part asks for it.
        """
        assert self.elsewhere is not None
        started = time.perf_counter()
        with shown(self.console, len(wanted)) as bar:
            missing = []
            for part, label in wanted:
                part._history.order.setdefault(label, {})  # pieces come back in another order
                if (piece := part._found(label)) is None:
                    missing.append((part, label))
                else:
                    part._ready[label] = piece
            bar.advance(len(wanted) - len(missing))
            for index, outcome in self.elsewhere(missing, bar.tell):
                part, label = missing[index]
                part._ready[label] = outcome.error or part._keep(outcome)
                if outcome.error is not None:
                    self._tell_failure(outcome._replace(label=f"{part.point}: {label}"), len(wanted))
                bar.advance()
        self.waited += time.perf_counter() - started

    def take(self, part: Progress) -> None:
        """Count what a finished part says of itself."""
        self.seconds += part.seconds
        self.waited += part.waited
        self.digests |= {f"{part.point}: {label}": digest for label, digest in part.digests.items()}
        for label, rows in part._history.order.items():
            named = {f"{part.point}: {training}": steps for training, steps in rows.items()}
            self._history.finish(f"{part.point}: {label}", named)

    def checkpoint(self, label: str) -> Path | None:
        """A folder for the states of one training of the present piece; None when nothing is kept."""
        if self.checkpoints is None:
            return None
        return checkpoint_of(checkpoint_of(self.checkpoints, self._history.present), label)

    def record(self, label: str, rows: list[dict[str, Any]]) -> None:
        """Tell the history of one training of the present piece so far, one dict a step, in the order of the steps.

        The file is written at the end, and on the way not more often than every few seconds.
        """
        with self._around():
            self._history.add(label, rows)

    def tell(self, text: str) -> None:
        """Say what people should know."""
        if self.console is not None:
            self.console.print(f"morphax: {text}", markup=False, soft_wrap=True)

    def finish(self) -> None:
        """Write what is not written yet of the history."""
        self._history.write()

    def carried_out(self, label: str, compute: Callable[[], xr.Dataset]) -> Outcome:
        """Compute a piece, and say what came of it."""
        started = time.perf_counter()
        dataset = error = None
        self._history.begin(label)
        try:
            with noting_fields(self._inside):
                dataset = compute().as_numpy()
            _check_finite(label, dataset)
        except Exception as raised:
            dataset, error = None, raised
            self._history.write()
        except SystemExit as end:
            error = RuntimeError(f"{label}: it calls sys.exit({end.code}), which ends no run")
            self._history.write()
        except BaseException:
            self._history.write()
            raise
        # What a compiled program read when it was traced for one piece is not read again for the next: all count.
        fields, seconds = frozenset(self._inside), time.perf_counter() - started
        make_room()
        return Outcome(label, dataset, self._history.rows(label), seconds, fields, error)

    @contextmanager
    def _waiting(self, labels: list[str]) -> Iterator[Shown]:
        for label in labels:
            if label in self.digests:
                raise ValueError(f"two pieces are called {label!r}; a label names one piece of a run")
            self._history.order.setdefault(label, {})
        started = time.perf_counter()
        try:
            with shown(self.console, len(labels)) as bar:
                yield bar
        finally:
            self.waited += time.perf_counter() - started

    @contextmanager
    def _around(self) -> Iterator[None]:
        """What goes wrong meanwhile is no doing of the experiment."""
        try:
            yield
        except Exception as error:
            self.broken = error
            raise

    def _found(self, label: str) -> Piece | None:
        if isinstance(ready := self._ready.get(label), Piece):
            return ready
        with self._around():
            piece = None if self.store is None else self.store.find(label)
        if piece is not None:
            self.seconds += piece.seconds
            self._inside |= piece.fields
            self._history.finish(label, piece.history)
        return piece

    def _here(
        self, work: Mapping[str, Callable[[], xr.Dataset]], labels: Sequence[str], bar: Shown
    ) -> Iterator[Outcome]:
        for group in _together(work, labels):
            bar.tell({"": group[0] if len(group) == 1 else f"{group[0]} and {len(group) - 1} more"})
            if len(group) == 1 or (outcomes := self._at_once(work, group)) is None:
                outcomes = (self.carried_out(label, work[label]) for label in group)
            yield from outcomes

    def _at_once(self, work: Mapping[str, Any], labels: list[str]) -> list[Outcome] | None:
        """What came of blocks that were computed in one call; None where it failed: each has to try by itself."""
        blocks: list[Block] = [work[label] for label in labels]
        first, members = blocks[0], range(blocks[0].members.start, blocks[-1].members.stop)
        name = f"{labels[0]} to {labels[-1]}"
        whole = self.carried_out(name, lambda: first.compute(members))
        del self._history.order[name]
        if whole.dataset is None:
            return None
        outcomes = []
        for label, block in zip(labels, blocks, strict=True):
            part = slice(block.members.start - members.start, block.members.stop - members.start)
            history = {training: [of_members(row, part) for row in rows] for training, rows in whole.history.items()}
            seconds = whole.seconds * len(block.members) / len(members)
            outcomes.append(Outcome(label, whole.dataset.isel({first.dim: part}), history, seconds, whole.fields))
        if self.checkpoints is not None:
            shutil.rmtree(checkpoint_of(self.checkpoints, name), ignore_errors=True)
        return outcomes

    def _elsewhere(self, labels: Sequence[str], bar: Shown) -> Iterator[Outcome]:
        assert self.elsewhere is not None
        if not labels:  # the points of a sweep, whose pieces are there (`ahead`)
            return
        with self._around():
            for _, outcome in self.elsewhere([(self, label) for label in labels], bar.tell):
                yield outcome

    def _keep(self, outcome: Outcome) -> Piece:
        label, dataset, history, seconds, fields, _ = outcome
        assert dataset is not None
        with self._around():
            self.before_keeping()
        self.seconds += seconds
        self._inside |= fields
        self._history.finish(label, history)
        fields = (self._outside - self._extents) | self._inside
        if self.store is None:
            piece = Piece(dataset, history, seconds, frozenset(fields), "")
        else:
            with self._around():
                piece = self.store.keep(label, dataset, history, seconds=seconds, fields=fields)
        if self.checkpoints is not None:
            shutil.rmtree(checkpoint_of(self.checkpoints, label), ignore_errors=True)
        return piece

    def _tell_failure(self, outcome: Outcome, pieces: int) -> None:
        # Of a single piece the error itself is enough.
        if pieces > 1:
            self.tell(f"{_failure(outcome.label, outcome.error)}; the others go on")


class Listing(Progress):
    """Ends a run where its pieces are known, with the exception `Known`; those of a chain are none by themselves."""

    def pieces(self, work: Mapping[str, Callable[[], xr.Dataset]], wanted: Collection[str] | None = None) -> Any:
        raise Known(work, wanted)

    def chain(self, labels: list[str], compute: Callable[[str, dict[str, xr.Dataset]], xr.Dataset]) -> Any:
        raise Known({})


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


def checkpoint_of(folder: Path, label: str) -> Path:
    """Where in a folder the states of a piece are kept, or in that of a piece those of a training."""
    return folder / file_name(label, label, whole=False)


def _together(work: Mapping[str, Any], labels: Sequence[str]) -> list[list[str]]:
    """Pieces by the call that computes them: neighbouring blocks with a member for every core, or one piece."""
    groups: list[list[str]] = []
    for label in labels:
        piece, before = work[label], work[groups[-1][-1]] if groups else None
        fits = isinstance(before, Block) and before.precedes(piece)
        if fits and piece.members.stop - work[groups[-1][0]].members.start <= cores():
            groups[-1].append(label)
        else:
            groups.append([label])
    return groups


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


def raise_failures(failed: Mapping[str, Exception], total: int, what: str = "pieces") -> None:
    """Raise what failed, if anything did: of one thing its error, with a note, else `PiecesFailedError` that names all.

    A note in parentheses belongs to the message that people see.
    """
    if len(failed) == 1:
        ((label, error),) = failed.items()
        where = "" if str(error).startswith(label) else f"{what.removesuffix('s')} {label!r}; "
        error.add_note(f"({where}what is finished is kept: the same command goes on with the rest)")
        raise error
    if failed:
        (label, error), *others = failed.items()
        named = ", ".join(repr(label) for label, _ in others[:MOST_NAMED])
        more = f" and {len(others) - MOST_NAMED} more" if len(others) > MOST_NAMED else ""
        raise PiecesFailedError(
            f"{len(failed)} of {total} {what} failed, the others are kept; the same command tries only these again: "
            f"{_failure(label, error)}; likewise {named}{more}"
        )


def _failure(label: str, error: Exception | None) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if text.startswith(label) else f"{label}: {text}"
