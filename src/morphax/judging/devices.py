"""Devices by name: the systems of this library as reservoirs for one input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jaxtyping import PRNGKeyArray

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


class BuiltIn(NamedTuple):
    """A system with numbers that make it a reservoir.

    `make(key=key, **settings)` takes the arguments of the class; `settings` are those that are given where nothing else
    is said.
    """

    make: Callable[..., Substrate]
    settings: dict[str, Any]
    random: bool = True
    """Whether its numbers are drawn: then `make` takes a key."""


BUILT_IN = {
    "josephson": BuiltIn(JosephsonMixer.two_mode, {"measured": 16}, random=False),
    "spin-torque": BuiltIn(SpinTorqueReservoir.random, {"neurons": 20}),
    "echo-state": BuiltIn(EchoStateNetwork.random, {"neurons": 50}),
    "relu": BuiltIn(ReLUReservoir.random, {"neurons": 50}),
    "spintronic": BuiltIn(SpintronicNetwork.random, {"layers": (32,), "scale": 8.0}),
    "ctrnn": BuiltIn(ContinuousTimeRecurrentNetwork.random, {"layers": (32,)}),
    "phase-oscillators": BuiltIn(PhaseOscillators.layered, {"layers": (4, 16, 16), "bias_scale": 0.5}),
    "hopfield": BuiltIn(HopfieldNetwork.random, {"layers": (4, 16, 16)}),
    "quantized": BuiltIn(QuantizedPerceptron.random, {"layers": (4, 32, 32, 16), "width": 0.4}),
    "spiking": BuiltIn(SpikingNetwork.random, {"neurons": 20, "inputs": 8, "steps_per_input": 5}),
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
        raise ValueError(f"device is {name!r}; it must be one of {', '.join(BUILT_IN)}")
    kind = BUILT_IN[name]
    device_key, mask_key = jax.random.split(key)
    arguments = kind.settings | settings | ({"key": device_key} if kind.random else {})
    try:
        substrate = kind.make(**arguments)
    except TypeError as error:
        raise ValueError(f"{name} does not take these settings ({', '.join(settings)}): {error}") from error
    return one_input(substrate, key=mask_key)


def one_input(substrate: Substrate, *, key: PRNGKeyArray) -> Substrate:
    """The substrate with a random mask in front where it takes more than one number an input."""
    if 1 in numbers_of(substrate.channels):
        return substrate
    return WithInput.random(substrate, 1, key=key)
