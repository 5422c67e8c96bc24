"""The commands and options that people write, and what help says of them."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import morphax

Action = Callable[..., Any]
"""What a command does: of (options, terminal, terminal for what goes on) it gives an exit code."""


def command_line(actions: Mapping[str, Action]) -> argparse.ArgumentParser:
    """The parser; of each command that has an action."""
    parser = argparse.ArgumentParser(prog="morphax", description="Simulate, train and judge physical neural networks.")
    parser.add_argument("--version", action="version", version=f"morphax {morphax.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, text: str, epilog: str | None = None) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text, epilog=epilog)
        sub.add_argument("--debug", action="store_true", help="show the traceback of an error")
        sub.set_defaults(action=actions[name])
        return sub

    listed = command("list", "every experiment, one line each")
    listed.add_argument("--tree", action="store_true", help="grouped by system, with the number of runs below runs/")
    named = "of an experiment, or FILE:CLASS, one in a file of its own"
    show = command("show", "an experiment's configuration and claims")
    show.add_argument("name", metavar="NAME", help=named)
    show.add_argument("--quick", action="store_true", help="of a quick run")
    show.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="with a changed number")
    show.add_argument("--seeds", metavar="N", help="with so many independent repetitions")
    cache = (
        "Compiled programs are kept in the user's cache folder and make later runs start faster. The environment "
        "variable MORPHAX_COMPILE_CACHE names another folder, or turns this off: MORPHAX_COMPILE_CACHE=off."
    )
    run = command("run", "run an experiment, or resume it", cache)
    _add_run_options(run, named)
    sweep = command("sweep", "run an experiment at many points of its configuration, or resume that", cache)
    _add_run_options(sweep, named)
    text = "what is swept (repeatable): KEY=START:STOP:N, KEY=START:STOP:N:log, or KEY=VALUE,VALUE,..."
    sweep.add_argument("--over", action="append", required=True, metavar="KEY=VALUES", help=text)
    tune = command("tune", "search for the configuration at which an experiment does best", cache)
    _add_run_options(tune, named)
    goals = tune.add_mutually_exclusive_group(required=True)
    text = "what decides: the mean of a variable of the result, or of a part of it: VARIABLE[coordinate=value,...]"
    goals.add_argument("--maximise", metavar="VARIABLE", help=text)
    goals.add_argument("--minimise", metavar="VARIABLE", help="the same, where less is better")
    text = "what is searched (repeatable): KEY=LOW:HIGH, KEY=LOW:HIGH:log, or KEY=VALUE,VALUE,..."
    tune.add_argument("--over", action="append", required=True, metavar="KEY=RANGE", help=text)
    tune.add_argument("--trials", required=True, metavar="N", help="in all")
    tune.add_argument("--parallel-trials", default="1", metavar="K", help="proposed at once (default: 1)")
    text = "database of a study that several runs share, as SQLAlchemy reads it (default: the run's own study)"
    tune.add_argument("--storage", metavar="URL", help=text)
    judge = command("judge", "what devices can compute: simulated ones, recordings, devices outside", cache)
    text = "a system by name, FILE.py:NAME, a recording (CSV or netCDF), or a saved file"
    judge.add_argument("devices", metavar="DEVICE", nargs="+", help=text)
    judge.add_argument("--against", metavar="DEVICE", action="append", default=[], help="compare with (repeatable)")
    for name, text in (
        ("inputs", "input columns of a recording, by name or pattern (default: u*)"),
        ("responses", "its columns of readings (default: x*)"),
        ("repeat", "its column that numbers repeats of one input"),
    ):
        judge.add_argument(f"--{name}", metavar="COLUMNS", help=text)
    for name, text in (
        ("every", "of a recording keep one point of so many: inputs were held"),
        ("shift", "by so many points its answers come before their inputs"),
        ("detrend", "take out of it what changes more slowly than over so many points"),
    ):
        judge.add_argument(f"--{name}", metavar="N", help=text)
    _add_carrying_options(judge, "change a number, or a setting of a device: DEVICE.KEY=VALUE (repeatable)")
    stimulus = command("stimulus", "write the input that a laboratory should apply to a device, as CSV")
    stimulus.add_argument("--points", metavar="N", default="20000", help="how many (default: 20000)")
    stimulus.add_argument("--kind", default="uniform", help="uniform (default), gaussian or binary")
    stimulus.add_argument("--low", metavar="U", default="-1", help="least input (default: -1)")
    stimulus.add_argument("--high", metavar="U", default="1", help="largest input (default: 1)")
    stimulus.add_argument("--seed", metavar="N", default="0", help="of the random numbers (default: 0)")
    stimulus.add_argument("--out", type=Path, metavar="FILE.csv", default=Path("stimulus.csv"), help="the file")
    fit = command("fit", "what a device makes of a table, beside what is used elsewhere", cache)
    text = "CSV file; or wine, digits, breast-cancer, diabetes: tables of scikit-learn"
    fit.add_argument("table", metavar="DATA", help=text)
    fit.add_argument("--target", metavar="COLUMN", help="what is to be foretold; all other columns foretell it")
    fit.add_argument("--device", metavar="KIND", help="a system by name, FILE.py:NAME or a saved file (spin-torque)")
    fit.add_argument("--task", metavar="KIND", help="classification or regression (default: by the target)")
    fit.add_argument("--cv", metavar="N", help="folds (default: 5)")
    _add_carrying_options(fit, "change a number, or a setting of the device: KEY=VALUE (repeatable)")
    predict = command("predict", "what a fitted device says of further rows, as CSV")
    predict.add_argument("dir", type=Path, metavar="DIR", help="run folder of morphax fit")
    predict.add_argument("data", type=Path, metavar="DATA", help="CSV file with the columns that it was fitted to")
    text = "the file (default: predictions.csv)"
    predict.add_argument("--out", type=Path, metavar="FILE.csv", default=Path("predictions.csv"), help=text)
    report = command("report", "make claims, figures and report anew from a run folder")
    report.add_argument("dir", type=Path, metavar="DIR")
    compare = command("compare", "runs side by side: configurations, claims and shared numbers")
    compare.add_argument("first", type=Path, metavar="DIR", help="a run folder")
    compare.add_argument("others", type=Path, metavar="DIR", nargs="+", help="further ones")
    page = "page with figures (default: below runs/, named by the runs)"
    compare.add_argument("--out", type=Path, metavar="FILE.html", help=page)
    text = "remove finished pieces that runs keep for each other; their results stay"
    prune = command("prune", text)
    prune.add_argument("dir", type=Path, metavar="DIR", nargs="?", default=Path("runs"), help="of runs (default: runs)")
    prune.add_argument("--leave", metavar="GB", default="0", help="what was used last, up to so much (default: 0)")
    text = "print a script that completes commands, options, experiments and the keys of --set by tab"
    completion = command("completion", text)
    completion.add_argument("shell", choices=("bash", "zsh", "tcsh"))
    return parser


def _add_run_options(command: argparse.ArgumentParser, named: str) -> None:
    """What every command has that carries out the pieces of an experiment."""
    command.add_argument("name", metavar="NAME", help=named)
    _add_carrying_options(command, "change a number (repeatable)")


def _add_carrying_options(command: argparse.ArgumentParser, setting: str) -> None:
    """What every command has that carries out pieces, but for what."""
    command.add_argument("--quick", action="store_true", help="reduced sizes: the same shape in under a minute")
    command.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=setting)
    command.add_argument("--seeds", metavar="N", help="number of independent repetitions")
    command.add_argument("--out", type=Path, metavar="DIR", help="run folder (default: below runs/)")
    command.add_argument("--fresh", action="store_true", help="discard the run in the folder and reuse no pieces")
    command.add_argument("--wait", action="store_true", help="for another process that is at work in the run folder")
    command.add_argument("--check", action="store_true", help="exit with 3 when a claim is not met")
    command.add_argument("--workers", metavar="N", help="carry out pieces on N processes of this machine")
    command.add_argument("--scheduler", metavar="ADDRESS", help="on the workers of a Dask scheduler: tcp://host:port")
    text = "folder that all workers see, for the states of trainings (default: they are sent)"
    command.add_argument("--shared", type=Path, metavar="DIR", help=text)
