"""Pieces of equal kind, a few members of an ensemble each: seeds, states, points of a sweep."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from morphax._checks import check_count
from morphax._lazy import xr

if TYPE_CHECKING:
    from morphax.lab.progress import Progress

OfMembers = Callable[[range], "xr.Dataset"]


class Block(NamedTuple):
    """A piece: what `compute` gives of some members.

    `together` says that it may be given the members of neighbouring blocks as well, in one call, and gives each of them
    the same bits.
    """

    dim: str
    members: range
    compute: OfMembers
    together: bool

    def __call__(self) -> xr.Dataset:
        return self.compute(self.members)

    def precedes(self, other: Any) -> bool:
        """Whether another piece may be computed in one call with this one, behind it."""
        return (
            isinstance(other, Block)
            and self.together
            and other.compute is self.compute
            and other.members.start == self.members.stop
        )


@dataclass(frozen=True)
class Blocks:
    """The members 0 ... `count` - 1 along a dimension, `size` to a piece; the last piece may have fewer.

    What a member is must not depend on the block in which it is computed, nor on how many there are: then a longer run
    takes up the blocks of a shorter one. `jax.random.split(key, count)` gives member i the same key whatever the count.

    **Arguments:**

    - `dim`: the dimension, in the singular: "seed".
    - `count`: of members, >= 1.
    - `size`: members of a piece, >= 1.
    - `together`: whether a process that computes all pieces itself may take several at once, to fill its cores. Only
      for what gives a member the same bits whoever its neighbours are (`map_members` and training do on CPUs), and
      whose datasets hold nothing but numbers of members and what all blocks share.

        >>> import xarray as xr
        >>> from morphax.lab.blocks import Blocks
        >>> from morphax.lab.progress import Progress
        >>> blocks = Blocks("seed", count=5, size=2)
        >>> def square(seeds):
        ...     return xr.Dataset({"y": ("seed", [seed**2 for seed in seeds])})
        >>> list(blocks.split({"square": square}))
        ['square, seed 0-1', 'square, seed 2-3', 'square, seed 4']
        >>> blocks.carry_out(Progress(), square).y.values.tolist()
        [0, 1, 4, 9, 16]
    """

    dim: str
    count: int
    size: int = 1
    together: bool = True

    def split(self, work: Mapping[str, OfMembers]) -> dict[str, Block]:
        """The pieces of some kinds of work, each of which is given the members of a block. A kind may be called ""."""
        return {
            self._label(name, members): Block(self.dim, members, compute, self.together)
            for name, compute in work.items()
            for members in self._blocks()
        }

    def carry_out(self, progress: Progress, compute: OfMembers) -> xr.Dataset:
        """The whole, where all pieces of a run are blocks of one kind."""
        return self.join(progress.pieces(self.split({"": compute})))[""]

    def join(self, parts: Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
        """What the pieces gave by kind of work, their members side by side; other pieces as they are, in their place.

        Variables without the dimension must be equal in all blocks.
        """
        return join_blocks(self.dim, parts)

    def _blocks(self) -> list[range]:
        check_count(self.dim, self.count, 1)
        check_count("size", self.size, 1)
        return [range(low, min(low + self.size, self.count)) for low in range(0, self.count, self.size)]

    def _label(self, name: str, members: range) -> str:
        last = f"-{members[-1]}" if len(members) > 1 else ""
        block = f"{self.dim} {members[0]}{last}"
        return f"{name}, {block}" if name else block


def join_blocks(dim: str, parts: Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """`Blocks.join`, for blocks along a dimension of which kinds of work have different numbers."""
    block = re.compile(rf"(?:(.*), )?{re.escape(dim)} \d+(?:-\d+)?")
    joined: dict[str, list[xr.Dataset]] = {}
    for label, part in parts.items():
        found = block.fullmatch(label)
        joined.setdefault((found[1] or "") if found else label, []).append(part)
    options: Any = {"data_vars": "minimal", "coords": "minimal", "compat": "equals", "join": "exact"}
    return {name: xr.concat(each, dim, **options) if len(each) > 1 else each[0] for name, each in joined.items()}
