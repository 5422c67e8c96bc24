"""The systems of this library, judged once at full size: what every judgement is shown beside."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from morphax._lazy import xr
from morphax.files import read_json

STORED = Path(__file__).with_name("comparison.json")
"""Written by docs/build.py from the full-size result of judging/comparison."""
KEPT = (
    "readings",
    "rank",
    "total",
    "total_error",
    "linear_memory",
    "effective_dimension",
    "lyapunov",
    "forgetting_time",
    "energy",
    "operations",
    "sparsity",
    "size",
    "readout_operations",
    "readout_size",
    "error",
    "smape",
    "smape_constant",
    "used_noise",
    "valid_time",
    "lorenz_time",
)
AT_NOISE = ("error", "smape", "smape_constant", "valid_time", "lorenz_time")
"""What is asked at the noise of the verdict, as all trials are."""
DIGITS = 4


def reduced(dataset: xr.Dataset) -> xr.Dataset:
    """What is one number a device, noise, task or trial: means over seeds, starts and chips."""
    from morphax.judging.robustness import TRIALS

    kept = {}
    for name in (*KEPT, *(f"total_{trial}" for trial in TRIALS)):
        if name not in dataset:
            continue
        values = dataset[name]
        chips = [dim for dim in values.dims if str(dim).endswith("chip")]
        kept[name] = values.mean([dim for dim in ("seed", "start") if dim in values.dims] + chips)
    return xr.Dataset(kept).drop_attrs()


def as_json(dataset: xr.Dataset) -> dict[str, Any]:
    """Rounded numbers and the names of their axes; null where there is none, and "-inf" is a text."""
    small = reduced(dataset)

    def plain(values: np.ndarray) -> Any:
        if values.dtype.kind not in "fiu":
            return values.tolist()
        flat = [
            float(f"{value:.{DIGITS}g}") if np.isfinite(value) else None if np.isnan(value) else str(value)
            for value in values.ravel().tolist()
        ]
        return np.array(flat, object).reshape(values.shape).tolist()

    return {
        part: {str(name): [list(each.dims), plain(each.values)] for name, each in found.items()}
        for part, found in (("axes", small.coords), ("values", small.data_vars))
    }


@cache
def stored() -> xr.Dataset:
    """The systems of this library, reduced."""
    held = read_json(STORED)
    numbers = {name: (dims, np.array(values, float)) for name, (dims, values) in held["values"].items()}
    return xr.Dataset(numbers, {name: (dims, np.array(values)) for name, (dims, values) in held["axes"].items()})


def others(dataset: xr.Dataset) -> xr.Dataset:
    """Those of them that a judgement has no device of the same name for, as far as the same was asked of them."""
    known = stored()
    mine = set(map(str, dataset.device.values))
    known = known.sel(device=[name for name in known.device.values if str(name) not in mine])
    if "used_noise" in dataset and float(dataset.used_noise) != float(known.used_noise):
        known = known.drop_vars([name for name in known if str(name) in AT_NOISE or str(name).startswith("total_")])
    return known
