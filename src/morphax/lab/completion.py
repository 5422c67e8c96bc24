"""Completion by tab: a script for a shell that knows commands, options, experiments and their configuration.

The script is written once and asks nothing when it is used: it is made anew when experiments are added.
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterator, Mapping
from shlex import join, quote
from typing import TYPE_CHECKING, Any

from morphax._optional import needed

if TYPE_CHECKING:
    from morphax.lab.experiment import Experiment

# bash puts a space behind a word that is complete; behind KEY= its value follows.
BASH_WITHOUT_SPACE = """
_morphax() {
  _shtab_morphax "$@"
  [[ "${COMPREPLY[0]-}" == *= ]] && compopt -o nospace 2>/dev/null  # bash 3 has none
  return 0
}
complete -o bashdefault -F _morphax morphax
"""


def completion_script(parser: ArgumentParser, experiments: Mapping[str, type[Experiment]], shell: str) -> str:
    """The script for bash, zsh or tcsh.

    **Arguments:**

    - `parser`: of the command line; what an argument takes is told from its metavar.
    - `experiments`: name -> class.
    - `shell`: "bash", "zsh" or "tcsh" (which completes no keys of `--set`).

    **Raises:** `ImportError` that says what to install where shtab is missing.
    """
    shtab = needed("shtab", "completion")
    completers = {
        "NAME": _names(list(experiments)),
        "KEY=VALUE": _keys({name: list(experiment.Config.model_fields) for name, experiment in experiments.items()}),
        "DIR": shtab.DIRECTORY,
        "FILE.html": shtab.FILE,
    }
    for action in _actions(parser):
        if action.metavar in completers:
            action.complete = completers[action.metavar]
    script = shtab.complete(parser, shell)
    return script + BASH_WITHOUT_SPACE if shell == "bash" else script


def _actions(parser: ArgumentParser) -> Iterator[Any]:
    """All arguments, those of commands, too."""
    for action in parser._actions:
        yield action
        for command in action.choices.values() if isinstance(action.choices, dict) else ():
            yield from _actions(command)


def _names(names: list[str]) -> dict[str, Any]:
    """Experiments, and files."""
    words = join(names)
    return {
        "bash": "_morphax_names_files",  # shtab takes what is called so for files, and does not end folders by a space
        "zsh": "_morphax_names",
        "tcsh": "`_morphax_names`",
        "preamble": {
            "bash": f'_morphax_names_files() {{\n  compgen -W {quote(words)} -- "$1"\n  compgen -f -- "$1"\n}}',
            "zsh": f"_morphax_names() {{\n  compadd -- {words}\n  _files\n}}",
            # A name has the sign that ends a list of words there.
            "tcsh": f"alias _morphax_names {quote(f'echo {words}')}",
        },
    }


def _keys(fields: Mapping[str, list[str]]) -> dict[str, Any]:
    """The fields of the experiment that stands before them on the line."""

    def function(line: str, offer: str) -> str:
        words = {name: " ".join(f"{key}=" for key in keys) for name, keys in fields.items()}
        cases = [f"{name}) {offer.format(words[name])}; return ;;" for name in words]
        loop = ["local word", f"for word in {line}; do", 'case "$word" in', *cases, "esac", "done"]
        return "\n  ".join(["_morphax_keys() {", *loop]) + "\n}"

    return {
        "bash": "_morphax_keys",
        "zsh": "_morphax_keys",
        "preamble": {
            "bash": function('"${COMP_WORDS[@]}"', "compgen -W '{}' -- \"$1\""),
            "zsh": function("$words", "compadd -S '' -- {}"),
        },
    }
