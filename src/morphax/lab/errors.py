"""What goes wrong through what was asked."""

import difflib
from collections.abc import Iterable


class UsageError(ValueError):
    """What the user asked for cannot be done as asked: one line that says what to ask instead."""


def nearest(word: str, choices: Iterable[str]) -> str:
    """What to say beside a word that is none of the choices.

    >>> from morphax.lab.errors import nearest
    >>> nearest("coupplig", ("coupling", "noise"))
    "did you mean 'coupling'?"
    """
    choices = list(choices)
    near = difflib.get_close_matches(word, choices, n=1, cutoff=0.4)
    return f"did you mean {near[0]!r}?" if near else f"it must be one of {', '.join(choices)}"
