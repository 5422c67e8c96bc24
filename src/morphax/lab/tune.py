"""A search for good settings: Optuna proposes, a run's progress keeps every finished trial."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from morphax._lazy import xr
from morphax.lab.progress import Progress

SEEDS_APART = 1_000_003  # between the samplers of two searches of one run


class Range(NamedTuple):
    """Numbers from `low` to `high`, searched on a logarithmic scale unless `log` is False."""

    low: float
    high: float
    log: bool = True


def tune(
    evaluate: Callable[[dict[str, float]], float],
    space: Mapping[str, Range],
    trials: int,
    *,
    seed: int,
    progress: Progress,
    label: str,
) -> xr.Dataset:
    """Search `space` for the settings with the highest value, by the tree-structured Parzen estimator.

    Every trial's proposal depends only on `seed` and on the trials before it, so that a search that was interrupted
    goes on as if it had not been.

    **Arguments:**

    - `evaluate`: the value of settings (parameter name -> number), higher is better. It must not see test data.
    - `space`: a `Range` for every parameter.
    - `trials`: evaluations, >= 1.
    - `seed`: of the proposals.
    - `progress`, `label`: of the run; every trial is a piece.

    **Returns:** a dataset along "trial" with every parameter and "value".

    **Raises:** `ImportError` that says what to install when Optuna is missing.

    Source: Akiba et al., KDD 2019 (Optuna); Bergstra et al., NeurIPS 2011 (the estimator).
    """
    optuna = _optuna()
    distributions = {
        name: optuna.distributions.FloatDistribution(r.low, r.high, log=r.log) for name, r in space.items()
    }

    def trial(name: str, earlier: dict[str, xr.Dataset]) -> xr.Dataset:
        sampler = optuna.samplers.TPESampler(seed=SEEDS_APART * seed + len(earlier))
        study = optuna.create_study(direction="maximize", sampler=sampler)
        for done in earlier.values():
            settings = {parameter: float(done[parameter]) for parameter in space}
            study.add_trial(
                optuna.trial.create_trial(params=settings, distributions=distributions, value=float(done.value))
            )
        settings = study.ask(distributions).params
        return xr.Dataset({**settings, "value": evaluate(settings)})

    parts = progress.chain([f"{label} {index}" for index in range(trials)], trial)
    return xr.concat(list(parts.values()), xr.Variable("trial", np.arange(trials)))


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise ImportError('tuning needs Optuna: pip install "morphax[tune]"') from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
