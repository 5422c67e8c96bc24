"""Pieces of equal kind, a few members of an ensemble each: seeds, states, points of a sweep."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from morphax._checks import check_count
from morphax._lazy import xr


@dataclass(frozen=True)
class Blocks:
    """The members 0 ... `count` - 1 along a dimension, `size` to a piece; the last piece may have fewer.

    What a member is must not depend on the block in which it is computed, nor on how many there are: then a longer run
    takes up the blocks of a shorter one. `jax.random.split(key, count)` gives member i the same key whatever the count.

    **Arguments:**

    - `dim`: the dimension, in the singular: "seed".
    - `count`: of members, >= 1.
    - `size`: members of a piece, >= 1.

        >>> import xarray as xr
        >>> from morphax.lab.blocks import Blocks
        >>> from morphax.lab.progress import Progress
        >>> blocks = Blocks("seed", count=5, size=2)
        >>> work = blocks.split({"square": lambda seeds: xr.Dataset({"y": ("seed", [s**2 for s in seeds])})})
        >>> list(work)
        ['square, seed 0-1', 'square, seed 2-3', 'square, seed 4']
        >>> blocks.join(Progress().pieces(work))["square"].y.values.tolist()
        [0, 1, 4, 9, 16]
    """

    dim: str
    count: int
    size: int

    def split(self, work: Mapping[str, Callable[[range], xr.Dataset]]) -> dict[str, Callable[[], xr.Dataset]]:
        """The pieces of some kinds of work, each of which is given the members of a block."""
        return {
            self._label(name, members): partial(compute, members)
            for name, compute in work.items()
            for members in self._blocks()
        }

    def join(self, parts: Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
        """What the pieces gave by kind of work, their members side by side; other pieces as they are, in their place.

        Variables without the dimension must be equal in all blocks.
        """
        names = {self._label("", members): members for members in self._blocks()}
        joined: dict[str, list[xr.Dataset]] = {}
        for label, part in parts.items():
            name, comma, block = label.rpartition(", ")
            joined.setdefault(name if f"{comma}{block}" in names else label, []).append(part)
        return {name: blocks[0] if len(blocks) == 1 else self._beside(blocks) for name, blocks in joined.items()}

    def _beside(self, blocks: list[xr.Dataset]) -> xr.Dataset:
        return xr.concat(blocks, self.dim, data_vars="minimal", coords="minimal", compat="equals", join="exact")

    def _blocks(self) -> list[range]:
        check_count(self.dim, self.count, 1)
        check_count("size", self.size, 1)
        return [range(low, min(low + self.size, self.count)) for low in range(0, self.count, self.size)]

    def _label(self, name: str, members: range) -> str:
        last = f"-{members[-1]}" if len(members) > 1 else ""
        return f"{name}, {self.dim} {members[0]}{last}"
