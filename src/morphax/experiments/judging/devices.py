"""Can a device compute, how much, how robustly, and what is it good for?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal, Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray
from pydantic import Field, model_validator

from morphax._lazy import xr
from morphax.experiments.judging import _pictures
from morphax.experiments.judging._asked import Asked, name_of, setting_of, with_settings
from morphax.experiments.judging._verdict import told
from morphax.judging.devices import (
    AS_IT_IS,
    BUILT_IN,
    Columns,
    find_device,
    is_python,
    is_recording,
    python_device,
)
from morphax.judging.footprint import footprint
from morphax.judging.judgement import judge
from morphax.judging.prediction import (
    FREE_RUNNING,
    SERIES,
    foretell_lorenz,
    foretell_mackey_glass,
    series_file,
)
from morphax.judging.recording import Recording
from morphax.judging.robustness import TRIALS, trials_of, withstands
from morphax.judging.sequences import SEQUENCES, classify
from morphax.judging.standard import STANDARD, USUAL, solve, solve_recorded
from morphax.lab.errors import UsageError, nearest
from morphax.lab.experiment import BaseConfig, Count, Data, Experiment, NonNegative, parameter
from morphax.lab.figures import Figures
from morphax.lab.identity import local_source_of
from morphax.lab.progress import Progress
from morphax.lab.script import file_in
from morphax.substrates.base import Substrate, count_neurons
from morphax.substrates.external import outside
from morphax.substrates.imperfections import inference_energy
from morphax.substrates.reservoirs import EchoStateNetwork, ReLUReservoir
from morphax.substrates.wrappers import Wrapper
from morphax.tasks.laser import santa_fe_laser
from morphax.units import ns

BY_ARGUMENT = {"devices", "against", "settings"}
"""What the command has arguments for: as a setting such a name is the device's."""
WHOLE = "all"
"""The one piece of a device outside."""
KEPT = 20
"""Products that are named, those with the largest capacity."""
Name = Annotated[str, Field(min_length=1)]
TASKS = (*STANDARD, *SEQUENCES, *FREE_RUNNING)
"""All that devices are compared by."""


class DevicesConfig(BaseConfig):
    """What is asked of which devices."""

    devices: tuple[Name, ...] = parameter(
        ("josephson", "echo-state"),
        "systems by name, FILE.py:NAME, recordings (CSV, netCDF), saved files",
        min_length=1,
        extent=True,
    )
    against: tuple[Name, ...] = parameter((), "further ones, to compare with", extent=True)
    settings: tuple[Name, ...] = parameter((), "of devices: NAME.KEY=VALUE", extent=True)
    inputs: str | None = parameter(None, "input columns of a recording; null: u*")
    responses: str | None = parameter(None, "its columns of readings; null: x*")
    repeat: str | None = parameter(None, "its column that numbers repeats of one input")
    every: int = parameter(1, "of it one point of so many is kept", ge=1)
    shift: int = parameter(0, "points by which its answers come before their inputs", ge=-1000, le=1000)
    detrend: int = parameter(0, "points over which what changes more slowly is taken out of it; 0: nothing", ge=0)
    points: int = parameter(20_000, "inputs of the drive", ge=1000)
    kind: Literal["uniform", "gaussian", "binary"] = parameter("uniform", "distribution of the drive")
    low: float = parameter(-1.0, "least input")
    high: float = parameter(1.0, "largest input")
    washout: int = parameter(200, "first points that are left out", ge=1)
    max_degree: int = parameter(8, "largest degree of a product", ge=1, le=20)
    max_delay: int = parameter(50, "longest delay", ge=1)
    max_products: int = parameter(5000, "products that are tried", ge=100)
    noises: tuple[NonNegative, ...] = parameter(
        (0.0, 1e-3, 1e-2, 1e-1), "noise on every reading, of its deviation", min_length=1
    )
    noise: float = parameter(1e-2, "noise with which tasks are solved and a verdict is given, one of noises", ge=0)
    tasks: tuple[Name, ...] = parameter((*USUAL, *SEQUENCES, *FREE_RUNNING), "standard tasks", extent=True)
    seeds: int = parameter(3, "repetitions of every task", ge=1)
    starts: int = parameter(30, "of every series that is foretold", ge=1, le=30)
    mackey_glass: str | None = parameter(None, "folder with NeuroBench's files, mg_17.npy ...; null: integrated here")
    trials: tuple[Name, ...] = parameter(tuple(TRIALS), "in which ways the device is made worse", extent=True)
    chips: Count = parameter(8, "devices of one production line")
    trial_points: int = parameter(10_000, "inputs of the drive there", ge=1000)

    @property
    def columns(self) -> Columns:
        """How recordings are read."""
        return Columns(self.inputs, self.responses, self.repeat, self.every, self.shift, self.detrend)

    def asked(self) -> list[Asked]:
        """All devices, with names that tell them apart."""
        texts = [*self.devices, *self.against]
        given = [with_settings(text) for text in texts]
        for text in self.settings:
            place, key, value = setting_of(text, texts)
            given[place][1][key] = value
        return [Asked(name_of(spec, settings), spec, settings) for spec, settings in given]

    def data(self) -> dict[str, Data]:
        data: dict[str, Data] = {}
        for field in ("devices", "against"):
            for place, spec in enumerate(getattr(self, field)):
                if with_settings(spec)[0] not in BUILT_IN:
                    data[f"{field}[{place}]"] = Path(file_in(spec) if is_python(spec) else spec)
                    if is_python(spec):
                        data[f"source of {field}[{place}]"] = _source(spec)
        if self.mackey_glass is not None:
            data |= {f"mg_{tau}": series_file(self.mackey_glass, tau) for tau in SERIES}
        return data

    def memory(self) -> float:
        # Readings of some devices at once, and with every further noise.
        return 8.0 * self.points * 64 * (2 + len(self.noises)) + 8.0 * self.trial_points * 64 * self.chips

    @model_validator(mode="after")
    def _can_be_asked(self) -> Self:
        asked = self.asked()
        names = [each.name for each in asked]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"two devices are called {twice!r}; rename a file")
        for each in asked:
            file = file_in(each.spec) if is_python(each.spec) else each.spec
            if each.spec not in BUILT_IN and not Path(file).is_file():
                raise ValueError(f"device is {each.spec!r}, and there is no such file; {nearest(each.spec, BUILT_IN)}")
        for field, known in (("tasks", TASKS), ("trials", TRIALS)):
            for value in getattr(self, field):
                if value not in known:
                    raise ValueError(f"{field} names {value!r}; {nearest(value, known)}")
        if self.low >= self.high:
            raise ValueError(f"high is {self.high:g}; it must be > low, {self.low:g}")
        if self.washout < self.max_delay:
            raise ValueError(f"washout is {self.washout}; it must be >= max_delay, {self.max_delay}")
        driven = not all(is_recording(each.spec) for each in asked)
        for name in ("points", *(["trial_points"] if self.trials else [])):
            if driven and self.washout > getattr(self, name) // 4:
                raise ValueError(f"washout is {self.washout}; it must be at most a quarter of {name}")
        if self.noises[0] != 0 or any(b <= a for a, b in pairwise(self.noises)):
            raise ValueError(f"noises is {self.noises}; they must rise from 0")
        if self.noise not in self.noises:
            raise ValueError(f"noise is {self.noise:g}; it must be one of noises")
        if self.detrend in (1, 2):
            raise ValueError(f"detrend is {self.detrend}; it must be 0 or >= 3")
        if self.columns != AS_IT_IS and not any(is_recording(each.spec) for each in asked):
            raise ValueError("inputs, responses, repeat, every, shift and detrend are of recordings; there is none")
        if self.mackey_glass is not None:
            for tau in SERIES:
                series_file(self.mackey_glass, tau)  # says what is missing
        if "Santa Fe laser" in self.tasks:
            santa_fe_laser()  # says what is missing
        return self


class Devices(Experiment):
    """What devices can compute: information processing capacity, tasks, and what of it imperfections leave.

    A simulated device is driven with independent inputs, and trained on standard tasks; so is one outside. Of a
    recording its own input is judged. Errors of tasks are nrmse, or shares that are wrong, with noise on every
    reading; a linear readout of the last 50 inputs stands beside them.
    """

    Config = DevicesConfig
    name = "judging/devices"
    quick = {
        "points": 4000,
        "max_products": 1000,
        "noises": (0.0, 1e-2),
        "tasks": ("NARMA-10", "Mackey-Glass, 10 ahead", "parity of 3"),
        "seeds": 1,
        "trials": ("spread", "reading_bits"),
        "chips": 3,
        "trial_points": 2000,
    }

    def run(self, config: DevicesConfig, *, key: PRNGKeyArray, progress: Progress) -> xr.Dataset:
        asked = config.asked()
        work: dict[str, Callable[[], xr.Dataset]] = {}
        labels: dict[str, list[str]] = {}
        for each in asked:
            parts = self._parts(each, config, key, progress)
            if progress.elsewhere is not None and list(parts) == [WHOLE]:
                raise UsageError(f"{each.name} is a device outside, which one process asks; leave workers out")
            labels[each.name] = [f"{each.name}: {part}" for part in parts]
            work |= dict(zip(labels[each.name], parts.values(), strict=True))
        done = progress.pieces(work)
        both = _side_by_side({name: _of_one([done[label] for label in mine]) for name, mine in labels.items()})
        series = "integrated here" if config.mackey_glass is None else "its own files"
        return both.assign(
            used_noise=((), config.noise, {"units": "1", "long_name": "noise of the verdict"}), series=((), series)
        )

    def figures(self, dataset: xr.Dataset) -> Figures:
        return _pictures.drawn(dataset)

    def verdict(self, dataset: xr.Dataset) -> dict[str, list[str]]:
        return {str(name): told(dataset.sel(device=name)) for name in dataset.device.values}

    def tables(self, dataset: xr.Dataset) -> dict[str, list[dict[str, str]]]:
        return _pictures.tables(dataset)

    def _parts(
        self, asked: Asked, config: DevicesConfig, key: PRNGKeyArray, progress: Progress
    ) -> dict[str, Callable[[], xr.Dataset]]:
        """What is asked of one device, which is the same whatever others are asked."""
        make_key, drive_key, task_key, trial_key = jax.random.split(key, 4)
        columns, settings = config.columns, asked.settings
        device = find_device(asked.spec, settings=settings, columns=columns, key=make_key)
        parts: dict[str, Callable[[], xr.Dataset]] = {"capacity": partial(_capacity, device, config, drive_key)}
        if isinstance(device, Recording):
            parts["tasks"] = partial(_own_tasks, device, config, task_key)
            return parts
        for name in config.tasks:
            # An instrument is not asked hundreds of questions, and cannot be held between two inputs.
            if name in STANDARD or device.differentiable:
                parts[name] = partial(_task, device, name, config, task_key)
        for name in config.trials:
            if name in trials_of(device):
                parts[name] = partial(_trial, device, name, config, trial_key)
        if device.differentiable:
            return parts
        return {WHOLE: partial(_asked_outside, device, config, parts, progress)}


def _capacity(device: Substrate | Recording, config: DevicesConfig, key: PRNGKeyArray) -> xr.Dataset:
    found = judge(
        device,
        points=config.points,
        kind=config.kind,
        low=config.low,
        high=config.high,
        washout=config.washout,
        max_degree=config.max_degree,
        max_delay=config.max_delay,
        max_products=config.max_products,
        noises=config.noises,
        key=key,
    )
    clean = found.isel(noise=0)
    best = np.argsort(-clean.capacity.values, kind="stable")[:KEPT]
    places = found.total_degree.values - 1, found.longest_delay.values
    held = np.zeros((found.sizes["noise"], config.max_degree, config.max_delay + 1))
    for row, capacity in zip(held, found.capacity.values, strict=True):
        np.add.at(row, places, capacity)
    kept = found.drop_dims(["product", *(dim for dim in ("reading",) if dim in found.dims)])
    kept = kept.reindex(degree=np.arange(1, config.max_degree + 1), fill_value=0.0)
    unit = {"units": "1"}
    kept = kept.assign(
        held=(("noise", "degree", "delay"), held, unit | {"long_name": "capacity by degree and longest delay"}),
        best=("place", np.array([*found.factors.values[best], *[""] * (KEPT - len(best))])),
        best_capacity=("place", np.pad(clean.capacity.values[best], (0, KEPT - len(best))), unit),
    )
    if isinstance(device, Substrate):
        kept = kept.assign(_of_hardware(device))
    if "consistency" in found:
        kept = kept.assign(consistency=found.consistency.mean("reading").assign_attrs(unit))
    return kept.drop_attrs(deep=False)


def _of_hardware(device: Substrate) -> dict[str, tuple]:
    """Energy of an input, where constants and time are known; and NeuroBench's figures of a network."""
    inner, found = device, {}
    readout = footprint(jnp.ones((1, count_neurons(device))))
    found["readout_size"] = ((), readout.size, {"units": "bytes", "long_name": "footprint of a readout of one output"})
    found["readout_operations"] = ((), readout.operations, {"units": "1", "long_name": "its effective operations"})
    while isinstance(inner, Wrapper):
        inner = inner.substrate
    interval = getattr(inner, "interval", None)
    if interval is not None and device.consumption():
        energy = inference_energy(device, float(interval) / ns)
        found["energy"] = ((), energy, {"units": "J", "long_name": "energy of an input"})
    if isinstance(inner, EchoStateNetwork | ReLUReservoir):  # what has no matter that computes
        about = footprint(inner)
        found["size"] = ((), about.size, {"units": "bytes", "long_name": "footprint of the network"})
        found["sparsity"] = ((), about.connection_sparsity, {"units": "1", "long_name": "connection sparsity"})
        found["operations"] = ((), about.operations, {"units": "1", "long_name": "effective operations of an input"})
    return found


def _task(device: Substrate, name: str, config: DevicesConfig, key: PRNGKeyArray) -> xr.Dataset:
    span = {"low": config.low, "high": config.high, "key": key}
    if name == "Mackey-Glass, free running":
        told = [
            foretell_mackey_glass(device, starts=config.starts, noise=noise, folder=config.mackey_glass, **span)[
                ["smape", "smape_constant", "valid_time"]
            ]
            for noise in (0.0, config.noise)
        ]
        return xr.concat(told, "measured")
    if name == "Lorenz, free running":
        found = foretell_lorenz(device, config.starts, noise=config.noise, **span)
        return found.rename(valid_time="lorenz_time", solver="lorenz_solver")
    noises = (0.0, config.noise)
    if name in SEQUENCES:
        return _of_task(classify(device, name, seeds=config.seeds, noises=noises, **span))
    return _of_task(solve(device, [name], seeds=config.seeds, noises=noises, **span))


def _own_tasks(recording: Recording, config: DevicesConfig, key: PRNGKeyArray) -> xr.Dataset:
    return _of_task(solve_recorded(recording, (0.0, config.noise), washout=config.washout, key=key))


def _of_task(found: xr.Dataset) -> xr.Dataset:
    """Noise is that of tasks alone: others are judged at more."""
    return found.drop_vars(("asks", "noise", "scale", "offset")).rename(noise="measured")


def _trial(device: Substrate, name: str, config: DevicesConfig, key: PRNGKeyArray) -> xr.Dataset:
    found = withstands(
        device,
        name,
        chips=config.chips,
        points=config.trial_points,
        kind=config.kind,
        low=config.low,
        high=config.high,
        noise=config.noise,
        washout=config.washout,
        max_degree=min(config.max_degree, 6),
        max_delay=min(config.max_delay, 30),
        max_products=min(config.max_products, 1500),
        key=key,
    )
    total = found.total.rename(f"total_{name}").drop_vars("chip")
    one = total.sizes["chip"] == 1
    return (total.isel(chip=0) if one else total.rename(chip=f"{name}_chip")).to_dataset()


def _asked_outside(
    device: Substrate, config: DevicesConfig, parts: Mapping[str, Callable[[], xr.Dataset]], progress: Progress
) -> xr.Dataset:
    """Everything in one piece: an instrument answers one question at a time, and its answers are kept meanwhile."""
    # Unlike others, this piece depends on what is asked.
    wanted = [name for name in (*config.tasks, *config.trials) if name in parts]
    if (bench := outside(device)) is not None and not bench.chosen:
        bench.keep_in(progress.checkpoint("answers"))
    found = _of_one([parts[name]() for name in ("capacity", *wanted)])
    return found.assign(asked_at=((), datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")))


def _of_one(parts: list[xr.Dataset]) -> xr.Dataset:
    """All parts of one device."""
    if len(parts) == 1:
        return parts[0]
    tasks = [part for part in parts if "task" in part.dims]
    others = [part for part in parts if "task" not in part.dims]
    together = [xr.concat(tasks, "task", data_vars="minimal")] if tasks else []
    return xr.merge([*others, *together], combine_attrs="drop", join="outer", compat="no_conflicts")


def _side_by_side(devices: Mapping[str, xr.Dataset]) -> xr.Dataset:
    """Along an axis `device`; NaN, and no text, where something was not asked of one."""
    both = xr.concat(
        list(devices.values()),
        xr.Variable("device", list(devices)),
        data_vars="all",
        coords="minimal",
        compat="override",
        join="outer",
        combine_attrs="drop",
    )
    for name, variable in both.data_vars.items():
        if variable.dtype.kind == "O":
            both[name] = variable.fillna("").astype(str)
        else:
            first = next(part[name] for part in devices.values() if name in part)
            both[name].attrs.update(first.attrs | {"may_be_missing": 1})
    return both.sel(task=[name for name in TASKS if name in both.task]) if "task" in both.dims else both


def settings_of(texts: Sequence[str], devices: Sequence[str]) -> tuple[list[str], list[str]]:
    """What is set of the judgement itself, and of devices: KEY=VALUE, where there is one, or NAME.KEY=VALUE.

    **Raises:** `UsageError` where nobody can say of which device.
    """
    fields = DevicesConfig.model_fields.keys() - BY_ARGUMENT
    own = [text for text in texts if text.partition("=")[0].strip() in fields]
    others = [text for text in texts if text not in own]
    if len(devices) == 1:
        return own, [text if "." in text.partition("=")[0] else f".{text}" for text in others]
    if unnamed := next((text for text in others if "." not in text.partition("=")[0]), None):
        key = unnamed.partition("=")[0]
        names = ", ".join(f"{name}.{key}" for name in devices)
        hint = nearest(key, fields)
        raise UsageError(f"--set is {unnamed!r}; {hint}; of a device it is {names}")
    return own, others


def _source(spec: str) -> str:
    """The digest of a Python file and of what it imports beside it."""
    return local_source_of(python_device(spec)[1])
