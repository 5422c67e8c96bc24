"""Every experiment by its name: the modules of this package, and those that other packages announce.

An installed package adds its own by an entry point of the group `morphax.experiments` that names an `Experiment` class.
"""

import importlib
import importlib.metadata
import inspect
import pkgutil

from morphax.lab.experiment import Experiment


def all_experiments() -> dict[str, type[Experiment]]:
    """Name -> class, in the order in which they are defined.

    >>> from morphax.experiments import all_experiments
    >>> "josephson/waveforms" in all_experiments()
    True
    """
    modules = [importlib.import_module(f"{__name__}.{info.name}") for info in pkgutil.iter_modules(__path__)]
    classes = [value for module in modules for value in vars(module).values() if _is_experiment(value)]
    classes += [point.load() for point in importlib.metadata.entry_points(group="morphax.experiments")]
    return {experiment.name: experiment for experiment in classes}


def _is_experiment(value: object) -> bool:
    return inspect.isclass(value) and issubclass(value, Experiment) and not inspect.isabstract(value)
