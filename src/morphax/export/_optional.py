"""Packages that only `morphax[export]` installs."""

from importlib import import_module
from typing import Any


def needed(module: str) -> Any:
    """The module, or an `ImportError` that says how to install it."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise ImportError(f"export needs {module.partition('.')[0]}: pip install 'morphax[export]'") from error
