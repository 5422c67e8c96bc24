"""Devices by name: the systems of this library as reservoirs for one input, what a file holds, and recordings."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from morphax.judging.recording import Recording
from morphax.lab.errors import UsageError, nearest
from morphax.lab.script import file_in, load_named
from morphax.saving import load
from morphax.substrates.base import Substrate, numbers_of
from morphax.substrates.hopfield import HopfieldNetwork
from morphax.substrates.josephson import JosephsonMixer
from morphax.substrates.phase_oscillators import PhaseOscillators
from morphax.substrates.quantized import QuantizedPerceptron
from morphax.substrates.recurrent import ContinuousTimeRecurrentNetwork
from morphax.substrates.reservoirs import EchoStateNetwork, ReLUReservoir, SpinTorqueReservoir
from morphax.substrates.spiking import SpikingNetwork
from morphax.substrates.spintronic import SpintronicNetwork
from morphax.substrates.wrappers import WithInput

Encoding = Literal["standard", "unit", "phase", "raw"]
"""Of a signal: mean 0 and deviation 1; [0, 1]; [-pi/2, pi/2]; as it is."""
ENCODINGS = get_args(Encoding)


class BuiltIn(NamedTuple):
    """A system with numbers that make it a reservoir, or something to train.

    `make(key=key, **settings)` takes the arguments of the class; `settings` are those that are given where nothing else
    is said.
    """

    make: Callable[..., Substrate]
    settings: dict[str, Any]
    sized: Callable[[tuple[int, ...], int, int], dict[str, Any]]
    """Settings for layers of so many neurons, so many numbers in an input, and so many outputs.

    Of a system without layers the last number of neurons counts; without outputs of its own it is read by others.
    """
    random: bool = True
    """Whether its numbers are drawn: then `make` takes a key."""
    encoding: Encoding = "standard"
    """How a signal in units of its own is brought to it."""
    trained: bool = False
    """Whether it is trained as a whole where nothing else is said; of the others a readout is fitted."""

    @property
    def kind(self) -> type[Substrate]:
        """The class."""
        return getattr(self.make, "__self__", Substrate)


def _mixing(neurons: tuple[int, ...], channels: int, outputs: int) -> dict[str, Any]:
    return {"neurons": neurons[-1], "inputs": channels, "input_scale": channels**-0.5}


def _in_layers(neurons: tuple[int, ...], channels: int, outputs: int) -> dict[str, Any]:
    return {"layers": (channels, *neurons, outputs)}


def _damped(neurons: tuple[int, ...], channels: int, outputs: int) -> dict[str, Any]:
    # Less than the class's own, at which most activities of many inputs are at the ends of their range.
    return _in_layers(neurons, channels, outputs) | {"scale": 0.5}


def _recurrent(neurons: tuple[int, ...], channels: int, outputs: int) -> dict[str, Any]:
    return {"layers": neurons, "inputs": channels}


def _rectified(neurons: tuple[int, ...], channels: int, outputs: int) -> dict[str, Any]:
    return {"neurons": neurons[-1], "inputs": channels, "scale": channels**-0.5}


def _spiking(neurons: tuple[int, ...], channels: int, outputs: int) -> dict[str, Any]:
    return {"neurons": neurons[-1], "inputs": channels}


def _modes(neurons: tuple[int, ...], channels: int, outputs: int) -> dict[str, Any]:
    return {"measured": neurons[-1], "levels": max(8, math.isqrt(neurons[-1] - 1) + 1)}


BUILT_IN = {
    "josephson": BuiltIn(JosephsonMixer.two_mode, {"measured": 16}, _modes, random=False, encoding="unit"),
    "spin-torque": BuiltIn(SpinTorqueReservoir.random, {"neurons": 20}, _mixing),
    "echo-state": BuiltIn(EchoStateNetwork.random, {"neurons": 50}, _mixing),
    "relu": BuiltIn(ReLUReservoir.random, {"neurons": 50}, _rectified),
    "spintronic": BuiltIn(SpintronicNetwork.random, {"layers": (32,), "scale": 8.0}, _recurrent, trained=True),
    "ctrnn": BuiltIn(ContinuousTimeRecurrentNetwork.random, {"layers": (32,)}, _recurrent, trained=True),
    "phase-oscillators": BuiltIn(
        PhaseOscillators.layered, {"layers": (4, 16, 16), "bias_scale": 0.5}, _in_layers, encoding="phase", trained=True
    ),
    "hopfield": BuiltIn(HopfieldNetwork.random, {"layers": (4, 16, 16)}, _damped, trained=True),
    "quantized": BuiltIn(
        QuantizedPerceptron.random, {"layers": (4, 32, 32, 16), "width": 0.4}, _in_layers, trained=True
    ),
    "spiking": BuiltIn(SpikingNetwork.random, {"neurons": 20, "inputs": 8, "steps_per_input": 5}, _spiking),
}
"""The systems of this library that are known by name."""


def built_in(name: str, *, key: PRNGKeyArray, **settings: Any) -> Substrate:
    """A system of the library, by its name, that takes one number an input.

    **Arguments:**

    - `name`: one of `BUILT_IN`.
    - `key`: draws what is random in it, and the mask of the input where it takes more than one number.
    - `settings`: arguments of its class, instead of those in `BUILT_IN`.

    **Raises:** `ValueError`, in one line, for another name, or settings that its class does not take.

        >>> import jax
        >>> from morphax.judging.devices import built_in
        >>> built_in("echo-state", neurons=30, key=jax.random.key(0)).bias.shape
        (30,)
    """
    if name not in BUILT_IN:
        raise ValueError(f"device is {name!r}; {nearest(name, BUILT_IN)}")
    kind = BUILT_IN[name]
    device_key, mask_key = jax.random.split(key)
    arguments = kind.settings | settings | ({"key": device_key} if kind.random else {})
    return one_input(made(name, kind.make, arguments, settings), key=mask_key)


def made(name: str, make: Callable[..., Any], arguments: Mapping[str, Any], settings: Mapping[str, Any]) -> Any:
    """What a function gives, where it takes these settings."""
    signature = inspect.signature(make)
    try:
        signature.bind(**arguments)
    except TypeError as error:
        taken = [each for each in signature.parameters if each != "key"]
        if unknown := [each for each in settings if each not in taken]:
            raise UsageError(f"{name} has no setting {unknown[0]!r}; {nearest(unknown[0], taken)}") from error
        raise UsageError(f"{name} cannot be made: {error}") from error
    try:
        return make(**arguments)
    except TypeError as error:
        raise UsageError(f"{name} cannot be made of {', '.join(settings) or 'no settings'}: {error}") from error


def one_input(substrate: Substrate, *, key: PRNGKeyArray) -> Substrate:
    """The substrate with a random mask in front where it takes more than one number an input."""
    if 1 in numbers_of(substrate.channels):
        return substrate
    return WithInput.random(substrate, 1, key=key)


class Columns(NamedTuple):
    """How a file is read as a recording: names of its columns or variables, and what is done with its points.

    - `inputs`, `responses`, `repeat`: as in `Recording.from_csv` and `Recording.from_netcdf`. None: what these take.
    - `every`: one point of so many is kept (`Recording.every`).
    - `shift`: by how many points answers come before their inputs (`Recording.shifted`).
    - `detrend`: window over which slow changes are taken out (`Recording.detrended`); 0: they stay.
    """

    inputs: str | None = None
    responses: str | None = None
    repeat: str | None = None
    every: int = 1
    shift: int = 0
    detrend: int = 0


AS_IT_IS = Columns()
TABLES = (".csv", ".tsv", ".txt", ".dat")
NETCDF = (".nc", ".nc4", ".h5", ".hdf5")


def find_device(
    spec: str, *, settings: Mapping[str, Any] | None = None, columns: Columns = AS_IT_IS, key: PRNGKeyArray
) -> Substrate | Recording:
    """A device by what people write: a name, a Python file, a saved file, a recording.

    **Arguments:**

    - `spec`: a system of `BUILT_IN`; FILE.py:NAME, a substrate, or a function or class that gives one, of settings and,
      where it takes it, of a `key`; a file of `morphax.save`; a recording in a CSV or netCDF file.
    - `settings`: arguments of the system or function.
    - `columns`: of a recording.
    - `key`: draws what is random in it, and the mask of the input where it takes more than one number.

    **Raises:** `ValueError`, in one line, for what is none of these.

        >>> import jax
        >>> from morphax.judging.devices import find_device
        >>> find_device("echo-state", settings={"neurons": 30}, key=jax.random.key(0)).bias.shape
        (30,)
    """
    settings = dict(settings or {})
    if "key" in settings:
        raise UsageError(f"{spec}.key cannot be set; another seed draws another device")
    if spec in BUILT_IN:
        return built_in(spec, key=key, **settings)
    device_key, mask_key = jax.random.split(key)
    found = from_file(spec, settings, columns=columns, key=device_key)
    return found if isinstance(found, Recording) else one_input(found, key=mask_key)


def from_file(
    spec: str, settings: Mapping[str, Any], *, columns: Columns = AS_IT_IS, key: PRNGKeyArray
) -> Substrate | Recording:
    """What a file holds, as `find_device` does, whatever number of channels it takes."""
    if is_python(spec):
        return in_precision(_from_python(spec, dict(settings), key))
    path = Path(spec)
    if not path.is_file():
        known = f"a system ({', '.join(BUILT_IN)}), FILE.py:NAME, a recording (CSV or netCDF) or a saved file"
        hint = nearest(spec, BUILT_IN)
        raise UsageError(f"device is {spec!r}; {hint if hint.startswith('did') else f'it must be {known}'}")
    if settings:
        raise UsageError(f"{spec} is a file and has no setting {next(iter(settings))!r}")
    if path.suffix.lower() in TABLES + NETCDF:
        return _recorded(path, columns)
    with jax.enable_x64(True):  # whatever it was stored in
        saved = load(path)
    if not isinstance(saved, Substrate):
        raise UsageError(f"{spec} holds a {type(saved).__name__}; it must hold a substrate")
    return in_precision(saved)


def is_python(spec: str) -> bool:
    """Whether this is FILE.py:NAME."""
    return spec not in BUILT_IN and file_in(spec).endswith(".py")


def is_recording(spec: str) -> bool:
    """Whether this is the name of a file with a recording."""
    return spec not in BUILT_IN and Path(spec).suffix.lower() in TABLES + NETCDF


def python_device(spec: str) -> tuple[Any, str]:
    """What FILE.py:NAME is, and the name of the module that the file became."""
    return load_named(spec, "device", _may_be_meant)


def _may_be_meant(value: Any) -> bool:
    made_there = (getattr(value, "__module__", None) or "").startswith("morphax_file_")
    return isinstance(value, Substrate) or (callable(value) and made_there)


def _from_python(spec: str, settings: dict[str, Any], key: PRNGKeyArray) -> Substrate:
    found, _ = python_device(spec)
    if callable(found) and not isinstance(found, Substrate):
        takes_key = "key" in inspect.signature(found).parameters
        found = made(spec, found, settings | ({"key": key} if takes_key else {}), settings)
    elif settings:
        raise UsageError(f"{spec} is there already and has no setting {next(iter(settings))!r}; name a function")
    if not isinstance(found, Substrate):
        raise UsageError(
            f"{spec} gives a {type(found).__name__}; it must give a substrate (ExternalSubstrate makes one of a "
            "function of inputs)"
        )
    return found


def _recorded(path: Path, columns: Columns) -> Recording:
    named = {name: value for name in ("inputs", "responses") if (value := getattr(columns, name)) is not None}
    if path.suffix.lower() in NETCDF:
        if columns.repeat is not None:
            raise UsageError(f"repeat is {columns.repeat!r}; repeats in a netCDF file are along its axis 'repeat'")
        recording = Recording.from_netcdf(path, **named)
    else:
        recording = Recording.from_csv(path, **named, repeat=columns.repeat)
    if columns.every > 1:
        recording = recording.every(columns.every)
    if columns.shift:
        recording = recording.shifted(columns.shift)
    return recording.detrended(columns.detrend) if columns.detrend else recording


def in_precision(substrate: Substrate) -> Substrate:
    """With numbers in the present precision, whenever it was made."""
    real, complex_ = jnp.result_type(float), jnp.result_type(complex)

    def cast(leaf: Any) -> Any:
        if not eqx.is_inexact_array(leaf):
            return leaf
        return leaf.astype(complex_ if jnp.iscomplexobj(leaf) else real)

    return jax.tree.map(cast, substrate)
