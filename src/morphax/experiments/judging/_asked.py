"""Devices as they are asked for: what a user writes, and settings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from morphax.judging.devices import BUILT_IN
from morphax.lab.errors import nearest
from morphax.lab.settings import value_of


class Asked(NamedTuple):
    """A device, as it was asked for: `name` on page and pieces, `spec` for `find_device`, and its settings."""

    name: str
    spec: str
    settings: dict[str, Any]


def with_settings(text: str) -> tuple[str, dict[str, Any]]:
    """A device and its settings: of a system they may stand behind its name, "echo-state neurons=20"."""
    name, *pairs = text.split()
    if name not in BUILT_IN:
        return text, {}
    settings = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not (key and equals):
            raise ValueError(f"device is {text!r}; behind {name} there must be settings: KEY=VALUE")
        settings[key] = value_of(value)
    return name, settings


def setting_of(text: str, devices: list[str]) -> tuple[int, str, Any]:
    """Place of the device, key and value of NAME.KEY=VALUE."""
    left, equals, value = text.partition("=")
    name, dot, key = left.rpartition(".")
    if not (equals and dot and key):
        raise ValueError(f"settings holds {text!r}; it must be NAME.KEY=VALUE")
    # Nothing in front of the dot is the first device.
    named = [place for place, device in enumerate(devices) if name in _names(device)] if name else [0]
    if not named:
        raise ValueError(f"settings holds {text!r}; {nearest(name, [Path(device).name for device in devices])}")
    if len(named) > 1:
        raise ValueError(f"settings holds {text!r}; {len(named)} devices are called so")
    return named[0], key, value_of(value)


def _names(device: str) -> set[str]:
    """What a device is called by its settings: all of it, without the folder or settings, or the name in the file."""
    bare, _ = with_settings(device)
    return {device, bare, Path(bare).name, bare.rpartition(":")[2]}


def name_of(spec: str, settings: Mapping[str, Any]) -> str:
    own = spec if spec in BUILT_IN else Path(spec).name
    return " ".join([own, *(f"{key}={json.dumps(value)}" for key, value in sorted(settings.items()))])
