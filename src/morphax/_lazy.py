"""NumPy and xarray, loaded when something of them is first used: experiments are listed and shown without."""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any


class _Module(ModuleType):
    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module(self.__name__), name)


if TYPE_CHECKING:
    import numpy as np
    import xarray as xr
else:
    np, xr = _Module("numpy"), _Module("xarray")
