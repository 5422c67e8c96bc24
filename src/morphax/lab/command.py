"""What was typed, as it may be written down."""

import re
import sys


def command_line() -> str:
    """The command of this process."""
    return " ".join(["morphax", *map(without_password, sys.argv[1:])])


def without_password(url: str) -> str:
    """A database's address without what opens it.

    >>> from morphax.lab.command import without_password
    >>> without_password("postgresql://me:secret@host/db"), without_password("postgresql://host/db?password=secret")
    ('postgresql://me:***@host/db', 'postgresql://host/db?password=***')
    """
    return re.sub(r"(://[^:/@]*:).*(?=@)|([?&]password=)[^&]*", r"\1\2***", url)
