"""What goes wrong through what was asked."""


class UsageError(ValueError):
    """What the user asked for cannot be done as asked: one line that says what to ask instead."""
