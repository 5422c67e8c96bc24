"""Completion by tab, as bash carries it out; the other scripts say the same."""

import argparse
import subprocess
import sys

import pytest

from morphax.cli import _parser, main
from morphax.lab.completion import completion_script

ASK = """
compopt() {{ :; }}
{script}
COMP_WORDS=({words})
COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))
_morphax morphax "${{COMP_WORDS[$COMP_CWORD]}}" ""
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.fixture
def script(dice):
    def script(shell: str) -> str:
        parser: argparse.ArgumentParser = _parser()
        return completion_script(parser, {"demo/dice": dice}, shell)

    return script


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("morphax comp", "compare completion"),
        ("morphax run demo/d", "demo/dice"),
        ("morphax show wo", "work.py"),
        ("morphax run demo/dice --se", "--set --seeds"),
        ("morphax run demo/dice --set f", "faces="),
        ("morphax run demo/dice --set throws = 3 --set p", "precision="),
        ("morphax run other --set f", ""),
        ("morphax compare fold", "folder"),
        ("morphax compare folder fold", "folder"),
        ("morphax completion z", "zsh"),
    ],
)
def test_bash_is_offered_what_fits(script, words, offered, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "work.py").touch()
    asked = ASK.format(script=script("bash"), words=words)
    done = subprocess.run(["bash", "-c", asked], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.split() == offered.split()
    assert done.stderr == ""


@pytest.mark.parametrize("shell", ["zsh", "tcsh"])
def test_the_other_shells_know_experiments(script, shell):
    text = script(shell)
    assert "demo/dice" in text
    assert "completion" in text
    assert ("compadd -S '' -- seed= precision= throws= faces=" in text) == (shell == "zsh")


def test_the_command_prints_the_script_or_says_what_to_install(capsys, monkeypatch):
    assert main(["completion", "zsh"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("#compdef morphax")
    assert "josephson/neurons) compadd" in printed
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["completion", "bash"]) == 1
    assert 'pip install "morphax[completion]"' in capsys.readouterr().err
