"""A paper, and what it says: figures, tables and sentences, each of which claims answer."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple


class Item(NamedTuple):
    """One thing that a paper shows or says, in our words."""

    place: str
    says: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Paper:
    """What experiments reproduce.

    **Arguments:**

    - `authors`, `title`, `published`, `link`: as one cites it.
    - `items`: all that it shows or says of its system in figures, tables and numbers, by a short name each. Claims name
      the one that they answer (`Claim.item`).
    """

    authors: str
    title: str
    published: str
    link: str
    items: Mapping[str, Item]
