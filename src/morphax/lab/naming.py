"""Names of folders and files that say what is in them, on every file system."""

from __future__ import annotations

import json
import re
import shlex
import typing
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from morphax.files import digest_of
from morphax.lab.script import spec_of

if TYPE_CHECKING:
    from morphax.lab.experiment import BaseConfig, Experiment

LONGEST = 80  # characters of a name
DIGITS = 8  # of the digest behind a name that does not say everything
# Some file systems know no capitals, some shells expand brackets, and some programs read "%".
SAFE = re.compile(r"[a-z0-9_.,=+-]*")
WORD = re.compile(r"[a-z0-9_.+-]+")


def default_folder(experiment: Experiment, config: BaseConfig, *, quick: bool) -> Path:
    """One folder for each way of asking, named by what was changed: the same command finds its own run again.

    Changes stand in the order of the configuration. Those that a folder's name cannot say in full have a digest.

        >>> from morphax.experiments import find_experiment
        >>> from morphax.lab.naming import default_folder
        >>> neurons = find_experiment("josephson/neurons")()
        >>> default_folder(neurons, neurons.Config(noise="1e-3", seeds=20), quick=False).as_posix()
        'runs/josephson/neurons/full-seeds=20,noise=1e-3'
    """
    usual = experiment.Config(**(experiment.quick if quick else {})).model_dump(mode="json")
    changed = {key: value for key, value in config.model_dump(mode="json").items() if value != usual[key]}
    name = "quick" if quick else "full"
    if changed:
        texts = {key: _text(value) for key, value in changed.items()}
        plain = all(_is_plain(value, experiment.Config.model_fields[key].annotation) for key, value in changed.items())
        name += "-" + ",".join(f"{key}={text}" for key, text in texts.items())
        name = file_name(name, changed, whole=plain)
    return Path("runs") / experiment.name / name


def command_for(request: Mapping[str, Any], experiment: Experiment, folder: Path) -> str:
    """The command that asks for what is stored of a run, for a shell.

    **Arguments:**

    - `request`: as `config.json` holds it.
    - `experiment`: that was asked; a sweep or a study where it was one.
    - `folder`: of the run.

        >>> from pathlib import Path
        >>> from morphax.experiments import find_experiment
        >>> from morphax.lab.naming import command_for
        >>> shots = find_experiment("josephson/shots")()
        >>> config = shots.Config(**shots.quick | {"seed": 7}).model_dump(mode="json")
        >>> command_for({"quick": True, "config": config}, shots, Path("my run"))
        "morphax run josephson/shots --quick --set seed=7 --out 'my run'"
    """
    study = request.get("study", {})
    command = ["morphax", "tune" if study else "sweep" if "over" in request else "run", spec_of(experiment)]
    command += ["--quick"] * request["quick"]
    usual = experiment.Config(**(experiment.quick if request["quick"] else {})).model_dump(mode="json")
    changed = {key: value for key, value in request["config"].items() if value != usual.get(key)}
    for key, value in changed.items():
        command += ["--set", f"{key}={_argument(value)}"]
    for key, values in request.get("over", {}).items():
        command += ["--over", f"{key}={_argument(values)}"]
    if study:
        command += ["--maximise" if study["maximise"] else "--minimise", study["variable"]]
        for key, entry in study["over"].items():
            command += ["--over", f"{key}={_searched(entry)}"]
        command += ["--trials", str(study["trials"]), "--parallel-trials", str(study["together"])]
        command += ["--storage", study["storage"]] if "storage" in study else []
    return shlex.join([*command, "--out", str(folder)])


def _argument(value: Any) -> str:
    """A value as it is written behind KEY=: JSON, or a text that cannot be taken for it."""
    return value if isinstance(value, str) and not _is_json(value) else json.dumps(value, separators=(",", ":"))


def _searched(entry: Sequence[Any]) -> str:
    """What a study searches: the values of a choice, or a range with its ends and whether it is logarithmic."""
    if len(entry) == 1:
        return ",".join(map(_argument, entry[0]))
    low, high, log, _ = entry
    return f"{_text(low)}:{_text(high)}" + ":log" * log


def file_name(text: str, content: Any, *, whole: bool = True) -> str:
    """A text as the name of a file, with a digest of the content where it had to be changed, or does not say all of it.

    **Arguments:**

    - `text`: that people read.
    - `content`: what the name stands for, as JSON; another content has another name.
    - `whole`: whether no other content has this text.
    """
    # Windows drops a full stop at the end.
    if whole and SAFE.fullmatch(text) and len(text) <= LONGEST and not text.endswith("."):
        return text
    safe = "".join(character if SAFE.fullmatch(character) else "_" for character in text)
    return f"{safe[: LONGEST - DIGITS - 1]}-{digest_of(content)[:DIGITS]}"


def _text(value: Any) -> str:
    """The shortest spelling of a value, and one for all: 1e-3 and 0.001 are the same number."""
    if isinstance(value, list):
        return ",".join(map(_text, value))
    if isinstance(value, float):
        return _text_of_number(value)
    return value if isinstance(value, str) else json.dumps(value)


def _text_of_number(value: float) -> str:
    sign, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    assert isinstance(exponent, int)  # configurations hold finite numbers
    first, *others = map(str, digits)
    mantissa = f"{first}.{''.join(others)}" if others else first
    with_power = f"{'-' * sign}{mantissa}e{exponent + len(others)}"
    return min(repr(value).removesuffix(".0"), with_power, key=len)


def _is_plain(value: Any, annotation: Any) -> bool:
    """Whether no other value of the field has the same text, and no list of changes can be read in two ways."""
    if isinstance(value, list):
        # A list of one looks like what is in it.
        several = len(value) > 1 or typing.get_origin(annotation) in (tuple, list)
        return several and all(not isinstance(part, list) and _is_plain(part, None) for part in value)
    if isinstance(value, str):
        return WORD.fullmatch(value) is not None and not _is_json(value)
    return not isinstance(value, dict)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
