"""A recipe for a device: what estimators make theirs of, when they know how many numbers an input holds."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple, Self, cast

import equinox as eqx
import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from morphax._checks import check_choice
from morphax.judging.devices import (
    BUILT_IN,
    ENCODINGS,
    BuiltIn,
    Encoding,
    from_file,
    in_precision,
    is_python,
    made,
    python_device,
)
from morphax.substrates.base import Substrate, numbers_of
from morphax.substrates.wrappers import WithInput

Maker = Callable[..., Substrate]
SIZES = {"neurons", "channels"}
"""What a function of a device is told."""


class Made(NamedTuple):
    """A device, and how many numbers an input holds: those of the data, and behind them zeros."""

    substrate: Substrate
    width: int


class Device:
    """A device to be made: its kind, its settings, and how a signal is brought to it.

    scikit-learn's searches reach every setting by name: `device__damping_rate` of an estimator.

    **Arguments:**

    - `kind`: a system of the library ("josephson", "spin-torque", "echo-state", "relu", "spintronic", "ctrnn",
      "phase-oscillators", "hopfield", "quantized", "spiking"); FILE.py:NAME or a file of `morphax.save`; a function
      `(neurons, channels, key) -> Substrate`; or a substrate, whose size is fixed.
    - `encoding`: of each channel: "standard", mean 0 and deviation 1 over the training data; "unit", their range
      becomes [0, 1], for a device that is even in its drive and so loses a sign; "phase", [-pi/2, pi/2]; "raw", as it
      is. Samples beyond the training data are not cut off. None: what suits the kind, "standard" for what is not the
      library's.
    - `settings`: arguments of the class of a system, or of the function.

    A system of the library takes a number of channels that is a power of two, the last of which are always 0, so that
    tables of similar width share what was compiled. Where a device takes another number, an input layer stands before
    it: weights uniform in +-1/sqrt(channels).

        >>> from morphax.estimators import Device, ReservoirClassifier
        >>> oscillators = ReservoirClassifier(Device("spin-torque", damping_rate=0.5), arrangement="held")
        >>> oscillators.set_params(device__damping_rate=2.0).device
        Device('spin-torque', damping_rate=2.0)
    """

    def __init__(
        self, kind: str | Maker | Substrate = "echo-state", *, encoding: Encoding | None = None, **settings: Any
    ):
        self.kind = kind
        self.encoding: Encoding | None = encoding
        self.settings = settings

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Kind, encoding and settings, as scikit-learn asks for them."""
        return {"kind": self.kind, "encoding": self.encoding, **self.settings}

    def constructor_arguments(self) -> dict[str, Any]:
        """Of what it is made: how `morphax.save` stores it."""
        return self.get_params()

    def set_params(self, **params: Any) -> Self:
        """Change any of them; what a device does not take is refused when it is made."""
        for name, value in params.items():
            if name in ("kind", "encoding"):
                setattr(self, name, value)
            else:
                self.settings = self.settings | {name: value}
        return self

    def __repr__(self) -> str:
        kind = self.kind if isinstance(self.kind, str) else getattr(self.kind, "__name__", type(self.kind).__name__)
        encoding = {} if self.encoding is None else {"encoding": self.encoding}
        return f"Device({', '.join([repr(kind), *(f'{k}={v!r}' for k, v in (encoding | self.settings).items())])})"

    def _maker(self) -> Maker | None:
        """The function of neurons, channels and a key that was given, or that a file holds."""
        found: Any = self.kind
        if isinstance(found, str):
            found = python_device(found)[0] if is_python(found) else None
            if not callable(found) or not inspect.signature(found).parameters.keys() >= SIZES:
                return None
        return cast(Maker, found) if callable(found) else None

    @property
    def built_in(self) -> BuiltIn | None:
        """The system of the library, where it is one."""
        return BUILT_IN.get(self.kind) if isinstance(self.kind, str) else None

    @property
    def encoded(self) -> Encoding:
        """How a signal is brought to it."""
        if self.encoding is not None:
            check_choice("encoding", self.encoding, ENCODINGS)
            return self.encoding
        return self.built_in.encoding if self.built_in else "standard"

    def make(self, neurons: tuple[int, ...], channels: int, outputs: int | None = None, *, key: PRNGKeyArray) -> Made:
        """The device, and how many numbers an input of it holds.

        **Arguments:**

        - `neurons`: of its layers; of a system without layers, or a function, the last number counts. A function gets
          `neurons`, `channels` and, where it takes one, a `key` by these names, or, if it has others, in this order.
        - `channels`: numbers in an input of the data.
        - `outputs`: of a system that has outputs of its own. None: as many as neurons in its last layer.
        - `key`: draws what is random.

        **Raises:** `ValueError` for settings or kinds that do not exist.
        """
        device_key, mask_key = jax.random.split(key)
        neurons = tuple(map(int, neurons))  # of a grid of NumPy's
        padded = 1 << (channels - 1).bit_length()
        maker = self._maker()
        if isinstance(self.kind, Substrate):
            if self.settings:
                raise ValueError(
                    f"device is there already and has no setting {next(iter(self.settings))!r}; give a function of it"
                )
            found = in_precision(self.kind)
        elif (kind := self.built_in) is not None:
            # A phase of 0 is a torque, a drive of 0 nothing.
            width = channels if kind.encoding == "phase" else padded
            sized = kind.sized(neurons, width, neurons[-1] if outputs is None else outputs)
            found = _drawn(str(self.kind), kind, sized, self.settings, device_key)
        elif maker is not None:
            found = _asked(maker, neurons[-1], channels, self.settings, device_key)
        elif isinstance(self.kind, str):
            found = from_file(self.kind, self.settings, key=device_key)
        else:
            found = self.kind
        if not isinstance(found, Substrate):
            raise ValueError(
                f"device gives a {type(found).__name__}; it must be the name of a system ({', '.join(BUILT_IN)}), a "
                "function (neurons, channels, key) that gives a substrate, a substrate, or a Device of these"
            )
        for width in (channels, padded):
            if width in numbers_of(found.channels):
                return Made(found, width)
        return Made(WithInput.random(found, padded, key=mask_key), padded)


def as_device(value: Any) -> Device:
    """What an estimator was given as its device."""
    return value if isinstance(value, Device) else Device(value)


def _asked(maker: Maker, neurons: int, channels: int, settings: dict[str, Any], key: PRNGKeyArray) -> Any:
    """What a function gives."""
    name = getattr(maker, "__name__", type(maker).__name__)
    parameters = inspect.signature(maker).parameters
    if parameters.keys() >= SIZES:
        known = {"key": key} if "key" in parameters else {}
        given: Any = made(name, maker, settings | {"neurons": neurons, "channels": channels} | known, settings)
    elif inspect.isclass(maker):
        raise ValueError(f"device is a class, {name}; give a substrate of it, or a function (neurons, channels, key)")
    else:
        given = made(name, lambda **rest: maker(neurons, channels, key, **rest), settings, settings)
    # Numbers in it may have been made before, in another precision.
    return in_precision(given) if isinstance(given, Substrate) else given


def _drawn(name: str, kind: BuiltIn, sized: dict[str, Any], settings: dict[str, Any], key: PRNGKeyArray) -> Substrate:
    """In one compiled program, which is kept: a spectral radius alone is dozens of operations."""
    # A grid of NumPy's holds numbers of NumPy's, which are traced where plain ones are not.
    settings = {name: value.item() if isinstance(value, np.generic) else value for name, value in settings.items()}
    arguments = kind.settings | sized | settings
    if kind.random:
        return made(name, eqx.filter_jit(kind.make), arguments | {"key": key}, settings)
    return made(name, kind.make, arguments, settings)
