"""Packages that only an extra of morphax installs, asked for where they are needed."""

from importlib import import_module
from typing import Any


def needed(module: str, extra: str) -> Any:
    """The module, or an `ImportError` that says with which extra it is installed.

    >>> from morphax._optional import needed
    >>> needed("nowhere.at_all", "tune")
    Traceback (most recent call last):
    ImportError: this needs nowhere, which is not installed: pip install "morphax[tune]"
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        raise ImportError(f'this needs {package}, which is not installed: pip install "morphax[{extra}]"') from error
