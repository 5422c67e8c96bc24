"""morphax: simulate, train and judge physical neural networks.

Five words carry the library. A **substrate** is driven by an input, evolves by its own dynamics and is observed. A
**learning rule** changes it so that what is observed becomes what is wanted. A **task** supplies inputs and targets. An
**experiment** is one of each with numbers filled in, and a set of **claims**: what a paper printed, and what came out.
"""

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from morphax._public import *  # noqa: F403

__version__ = importlib.metadata.version("morphax")


def __getattr__(name: str) -> Any:
    """A public name. All are loaded with the first that is asked for: the command line's help need not wait for JAX."""
    if name == "__all__" or not name.startswith("_"):
        names = vars(importlib.import_module("morphax._public"))
        public = {key: value for key, value in names.items() if not key.startswith("_")}
        globals().update(public, __all__=list(public))
        if name in globals():
            return globals()[name]
    raise AttributeError(f"module 'morphax' has no attribute {name!r}")


def __dir__() -> list[str]:
    __getattr__("__all__")
    return sorted(globals())
