"""xarray, loaded when something of it is first used: an experiment's configuration and claims are shown without."""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any


class _Module(ModuleType):
    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module(self.__name__), name)


if TYPE_CHECKING:
    import xarray as xr
else:
    xr = _Module("xarray")
