"""Constructors that differ from another in a few arguments, which scikit-learn reads from their signatures."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

Constructor = Callable[..., None]


def variant(constructor: Constructor, fixed: dict[str, Any], **defaults: Any) -> Constructor:
    """A constructor with the arguments of another, but for those in `fixed`, which are given; with other defaults.

    >>> import inspect
    >>> from morphax.estimators._arguments import variant
    >>> class Whole:
    ...     def __init__(self, device, neurons=100):
    ...         self.device, self.neurons = device, neurons
    >>> class Echo(Whole):
    ...     __init__ = variant(Whole.__init__, {"device": "echo-state"}, neurons=20)
    >>> inspect.signature(Echo), Echo().device
    (<Signature (neurons=20)>, 'echo-state')
    """
    parameters = inspect.signature(constructor).parameters
    taken = [
        parameter.replace(default=defaults.get(name, parameter.default))
        for name, parameter in parameters.items()
        if name not in fixed
    ]
    signature = inspect.Signature(taken)

    def construct(self: Any, *args: Any, **options: Any) -> None:
        given = signature.bind(self, *args, **options)
        given.apply_defaults()
        constructor(**given.arguments, **fixed)

    vars(construct)["__signature__"] = signature
    return construct
