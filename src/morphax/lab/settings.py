"""Settings of a configuration as people write them on the command line, and as they are shown there."""

from __future__ import annotations

import json
import math
import types
import typing
from typing import TYPE_CHECKING, Any

from morphax.lab.errors import UsageError, nearest

if TYPE_CHECKING:
    from morphax.lab.experiment import BaseConfig, Experiment


def assignment(text: str, config: type[BaseConfig]) -> tuple[str, Any]:
    """Field and value of KEY=VALUE. **Raises:** `UsageError` for another form, and for unknown fields."""
    key, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"--set is {text!r}; it must be KEY=VALUE")
    if key not in config.model_fields:
        raise UsageError(f"--set {key} is unknown; {nearest(key, config.model_fields)}")
    if _takes_several(config.model_fields[key].annotation) and not value.startswith("["):
        value = f"[{value}]"
    return key, value_of(value)


def value_of(text: str) -> Any:
    """What is written behind an equals sign: JSON where it is that, else a text.

    >>> from morphax.lab.settings import value_of
    >>> value_of("[1, 0.5]"), value_of("true"), value_of("square")
    ([1, 0.5], True, 'square')
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _takes_several(annotation: Any) -> bool:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return any(_takes_several(part) for part in typing.get_args(annotation))
    return typing.get_origin(annotation) in (tuple, list)


def whole(name: str, text: str) -> int:
    """A whole number that an option was given. **Raises:** `UsageError` in one line."""
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"{name} is {text!r}; it must be a whole number") from None


def number(name: str, text: str) -> float:
    """A number that an option was given. **Raises:** `UsageError` in one line."""
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"{name} is {text!r}; it must be a number") from None


def configure(experiment: Experiment, values: dict[str, Any]) -> BaseConfig:
    """The configuration with these values. **Raises:** `UsageError` in one line that begins with what was set."""
    import pydantic

    try:
        return experiment.Config(**values)
    except pydantic.ValidationError as error:
        raise UsageError(refusal(error)) from error


def refusal(error: ValueError) -> str:
    """What a configuration says of its values, in one line that begins with what was set."""
    import pydantic

    if not isinstance(error, pydantic.ValidationError):
        return " ".join(str(error).split())
    entries = error.errors()
    # A tuple with a bad element is also reported as too short, by one for each.
    elements = {entry["loc"][:-1] for entry in entries}
    told = [entry for entry in entries if entry["type"] != "too_short" or entry["loc"] not in elements]
    return "; ".join(_problem(entry) for entry in told)


def _problem(entry: Any) -> str:
    message = entry["msg"].removeprefix("Value error, ").replace("Input should be", "it must be")
    name = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in entry["loc"]).lstrip(".")
    if name:
        return f"{name} is {entry['input']!r}; {message}"
    # What is wrong with a file begins with its name.
    for key, value in entry["input"].items() if isinstance(entry["input"], dict) else ():
        if isinstance(value, str) and message.startswith(f"{value} "):
            return f"{key} is {value!r}, which {message.removeprefix(value).lstrip()}"
    return message


def allowed(entry: dict[str, Any]) -> str:
    """The range of a field, from its entry in the JSON schema."""
    parts = [option for option in entry.get("anyOf", [entry]) if option.get("type") != "null"]
    texts = []
    for part in parts:
        if "enum" in part:
            texts.append(" | ".join(map(str, part["enum"])))
            continue
        signs = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}
        limits = [f"{sign} {_number(part[key])}" for key, sign in signs.items() if part.get(key, math.inf) != math.inf]
        if part.get("type") == "array":
            elements = [*part.get("prefixItems", ()), *([part["items"]] if part.get("items") else [])]
            limits = [f"list: {' or '.join(dict.fromkeys(map(allowed, elements)))}"]
        texts.append(" and ".join(limits) or part.get("type", ""))
    return " or ".join(texts)


def _number(value: float) -> str:
    return str(int(value)) if value == round(value) and abs(value) < 1e15 else f"{value:g}"


def plain(value: Any) -> str:
    """A value as it is printed by Rich, in which brackets are markup."""
    text = ", ".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
    return text.replace("[", r"\[")
