"""The command line: judge, run, sweep, and what else helps with runs. Thin: no physics, no numbers.

What takes long to import is imported where it is needed: help and the list of experiments do without JAX.
"""

from __future__ import annotations

import argparse
import inspect
import io
import math
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import morphax
from morphax.experiments import all_experiments, find_experiment, summaries
from morphax.lab.errors import UsageError, nearest
from morphax.lab.settings import allowed, assignment, configure, number, plain, whole

if TYPE_CHECKING:
    from rich.console import Console
    from rich.tree import Tree

    from morphax.lab.executor import Executor
    from morphax.lab.experiment import BaseConfig, Experiment
    from morphax.lab.run_folder import RunFolder

OK, FAILED, BAD_ARGUMENT, CLAIM_NOT_MET = 0, 1, 2, 3
STOPPED, BROKEN_PIPE = 128, 13  # STOPPED and the number of the signal


class Stopped(BaseException):
    """A signal asks the process to end: Ctrl-C, a queue, a terminal that is closed."""

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.number = number


def program() -> NoReturn:
    """What a shell starts."""
    code = main()
    if code > STOPPED:
        # Threads of XLA may be at work: to take Python apart around them can end in a segmentation fault.
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):
                stream.flush()
        os._exit(code)
    sys.exit(code)


def main(arguments: Sequence[str] | None = None) -> int:
    """One command; returns the exit code."""
    options = _parser().parse_args(arguments)
    from rich.console import Console

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a pipe on Windows cannot encode "≥"
    out, err = Console(highlight=False), Console(stderr=True, highlight=False)
    try:
        with _stopped_by_signals(), _warnings_in_a_line(err):
            return options.action(options, out, err)
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # who reads what is printed has read enough
            return STOPPED + BROKEN_PIPE
        err.print(f"morphax: the experiment calls sys.exit({end.code}), which ends no run", markup=False)
        return FAILED
    except (Exception, KeyboardInterrupt, Stopped) as error:
        if (stop := _stop_behind(error)) is not None:
            from morphax.lab.environment import command_line

            again = [text for text in (sys.argv[1:] if arguments is None else arguments) if text != "--fresh"]
            with suppress(OSError):  # the terminal is closed
                told = f"stopped; finished pieces are kept. Resume with: {command_line(again)}"
                err.print(f"\n{told}", markup=False, soft_wrap=True)
            return STOPPED + (stop.number if isinstance(stop, Stopped) else signal.SIGINT)
        if options.debug:
            traceback.print_exc()
        else:
            err.print(f"morphax: {_one_line(error)}", markup=False, soft_wrap=True)
        return BAD_ARGUMENT if isinstance(error, UsageError) else FAILED


def _stop_behind(error: BaseException | None) -> BaseException | None:
    """What asked the process to end, also where on the way out nothing could be written to a closed terminal."""
    while error is not None and not isinstance(error, KeyboardInterrupt | Stopped):
        error = error.__context__ if isinstance(error, OSError) else None
    return error


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """What a queue or a closed terminal sends ends a run as Ctrl-C does."""

    def stop(number: int, frame: Any) -> None:
        raise Stopped(number)

    before: dict[int, Any] = {}
    # Elsewhere Python sets no handlers, and Windows has no SIGHUP.
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            # What is to outlive its terminal (nohup) ignores the signal, and goes on.
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _warnings_in_a_line(err: Console) -> Iterator[None]:
    """A warning is a sentence for who runs, not a place in the source."""

    def show(message: Warning | str, *where: Any) -> None:
        err.print(f"morphax: {' '.join(str(message).split())}", markup=False, soft_wrap=True)

    shown, warnings.showwarning = warnings.showwarning, show
    try:
        yield
    finally:
        warnings.showwarning = shown


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="morphax", description="Simulate, train and judge physical neural networks.")
    parser.add_argument("--version", action="version", version=f"morphax {morphax.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, action: Any, text: str, epilog: str | None = None) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text, epilog=epilog)
        sub.add_argument("--debug", action="store_true", help="show the traceback of an error")
        sub.set_defaults(action=action)
        return sub

    listed = command("list", _list, "every experiment, one line each")
    listed.add_argument("--tree", action="store_true", help="grouped by system, with the number of runs below runs/")
    named = "of an experiment, or FILE:CLASS, one in a file of its own"
    show = command("show", _show, "an experiment's configuration and claims")
    show.add_argument("name", metavar="NAME", help=named)
    show.add_argument("--quick", action="store_true", help="of a quick run")
    show.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="with a changed number")
    show.add_argument("--seeds", metavar="N", help="with so many independent repetitions")
    cache = (
        "Compiled programs are kept in the user's cache folder and make later runs start faster. The environment "
        "variable MORPHAX_COMPILE_CACHE names another folder, or turns this off: MORPHAX_COMPILE_CACHE=off."
    )
    run = command("run", _run, "run an experiment, or resume it", cache)
    _add_run_options(run, named)
    sweep = command("sweep", _sweep, "run an experiment at many points of its configuration, or resume that", cache)
    _add_run_options(sweep, named)
    text = "what is swept (repeatable): KEY=START:STOP:N, KEY=START:STOP:N:log, or KEY=VALUE,VALUE,..."
    sweep.add_argument("--over", action="append", required=True, metavar="KEY=VALUES", help=text)
    tune = command("tune", _tune, "search for the configuration at which an experiment does best", cache)
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
    judge = command("judge", _judge, "what devices can compute: simulated ones, recordings, devices outside", cache)
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
    stimulus = command("stimulus", _stimulus, "write the input that a laboratory should apply to a device, as CSV")
    stimulus.add_argument("--points", metavar="N", default="20000", help="how many (default: 20000)")
    stimulus.add_argument("--kind", default="uniform", help="uniform (default), gaussian or binary")
    stimulus.add_argument("--low", metavar="U", default="-1", help="least input (default: -1)")
    stimulus.add_argument("--high", metavar="U", default="1", help="largest input (default: 1)")
    stimulus.add_argument("--seed", metavar="N", default="0", help="of the random numbers (default: 0)")
    stimulus.add_argument("--out", type=Path, metavar="FILE.csv", default=Path("stimulus.csv"), help="the file")
    report = command("report", _report, "make claims, figures and report anew from a run folder")
    report.add_argument("dir", type=Path, metavar="DIR")
    compare = command("compare", _compare, "runs side by side: configurations, claims and shared numbers")
    compare.add_argument("first", type=Path, metavar="DIR", help="a run folder")
    compare.add_argument("others", type=Path, metavar="DIR", nargs="+", help="further ones")
    page = "page with figures (default: below runs/, named by the runs)"
    compare.add_argument("--out", type=Path, metavar="FILE.html", help=page)
    text = "remove finished pieces that runs keep for each other; their results stay"
    prune = command("prune", _prune, text)
    prune.add_argument("dir", type=Path, metavar="DIR", nargs="?", default=Path("runs"), help="of runs (default: runs)")
    prune.add_argument("--leave", metavar="GB", default="0", help="what was used last, up to so much (default: 0)")
    text = "print a script that completes commands, options, experiments and the keys of --set by tab"
    completion = command("completion", _completion, text)
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


def _list(options: argparse.Namespace, out: Console, err: Console) -> int:
    lines = summaries()
    if options.tree:
        out.print(_tree(lines, Path("runs")))
        return OK
    width = max(map(len, lines))
    for name, summary in lines.items():
        out.print(f"{name:{width}}  {summary}", markup=False, soft_wrap=True)
    return OK


def _tree(lines: dict[str, str], runs: Path) -> Tree:
    from rich.markup import escape
    from rich.tree import Tree

    tree, systems = Tree("experiments"), {}
    for name, summary in lines.items():
        system, _, own = name.rpartition("/")
        if system and system not in systems:
            systems[system] = tree.add(f"[bold]{escape(system)}[/bold]")
        count = len(list((runs / name).glob("*/config.json")))
        there = f" [green]({count} run{'s' * (count != 1)})[/green]" if count else ""
        systems.get(system, tree).add(f"{escape(own)}{there}  [dim]{escape(summary)}[/dim]")
    return tree


def _show(options: argparse.Namespace, out: Console, err: Console) -> int:
    from rich.table import Table

    from morphax._checks import free_memory
    from morphax.lab.experiment import readable

    made, config = _asked(options)
    experiment = type(made)
    out.print(f"[bold]{experiment.name}[/bold]")
    out.print(inspect.getdoc(experiment), markup=False)
    out.print("\n[bold]configuration[/bold] (--set KEY=VALUE)")
    title = "value" if options.set or options.seeds or options.quick else "default"
    table = Table("", title, "allowed", "meaning", box=None, pad_edge=False)
    table.columns[0].no_wrap = True
    schema = experiment.Config.model_json_schema()["properties"]
    for key, value in config.model_dump().items():
        entry = schema[key]
        default = f"{plain(value)} {entry.get('unit', '')}".strip()
        if key in experiment.quick and not options.quick:
            default += f" (quick: {plain(experiment.quick[key])})"
        table.add_row(key, default, allowed(entry), entry["description"])
    out.print(table)
    if memory := config.memory():
        free = readable(free_memory())
        out.print(f"\n[bold]memory[/bold] about {readable(memory)} with these numbers; {free} are free")
    out.print("\n[bold]claims[/bold]")
    claims = Table("", "paper or baseline", "source", box=None, pad_edge=False)
    for claim in experiment.claims:
        paper = "computed alongside" if callable(claim.paper) else "—" if claim.paper is None else f"{claim.paper:g}"
        tolerance = f" ± {claim.tolerance:g}" if claim.tolerance else ""
        claims.add_row(claim.text, f"{claim.relation} {paper}{tolerance}", claim.source)
    out.print(claims)
    return OK


def _run(options: argparse.Namespace, out: Console, err: Console) -> int:
    from morphax.lab.naming import default_folder

    experiment, config = _asked(options)
    path = options.out or default_folder(experiment, config, quick=options.quick)
    return _carried_out(experiment, config, path, options, out, err)


def _sweep(options: argparse.Namespace, out: Console, err: Console) -> int:
    from morphax.lab.naming import default_folder
    from morphax.lab.sweep import Sweep, over_folder, read_axis

    experiment, config = _asked(options)
    axes = [read_axis(text, experiment.Config) for text in options.over]
    over = dict(axes)
    if len(over) < len(axes):
        raise UsageError(f"--over names {' and '.join(key for key, _ in axes)}; a key is swept once")
    sweep = Sweep(experiment, over)
    sweep.points(config)  # refuses what no point takes
    path = options.out or over_folder(default_folder(experiment, config, quick=options.quick), list(over), over)
    return _carried_out(sweep, config, path, options, out, err)


def _tune(options: argparse.Namespace, out: Console, err: Console) -> int:
    from morphax.lab.environment import without_password
    from morphax.lab.naming import default_folder
    from morphax.lab.study import Goal, Study, read_entry
    from morphax.lab.sweep import over_folder

    experiment, config = _asked(options)
    over = dict(read_entry(text, experiment.Config) for text in options.over)
    goal = Goal.read(options.maximise or options.minimise, options.maximise is not None)
    numbers = {
        "trials": whole("trials", options.trials),
        "together": whole("parallel-trials", options.parallel_trials),
    }
    usual = default_folder(experiment, config, quick=options.quick)
    what = {key: list(entry) for key, entry in over.items()} | {"goal": list(goal), "numbers": list(numbers.values())}
    if options.storage is not None:
        what["storage"] = without_password(options.storage)
    path = options.out or over_folder(usual, list(over), what, kind="tune")
    study = Study(experiment, over, goal, **numbers, folder=path, storage=options.storage)
    study.check_ends(config)
    return _carried_out(study, config, path, options, out, err)


def _judge(options: argparse.Namespace, out: Console, err: Console) -> int:
    from morphax.experiments.judging.devices import settings_of
    from morphax.lab.naming import default_folder

    options.name = "judging/devices"
    changed = {name: value for name in ("inputs", "responses", "repeat") if (value := getattr(options, name))}
    changed |= {name: whole(name, text) for name in ("every", "shift", "detrend") if (text := getattr(options, name))}
    changed |= {"devices": options.devices, "against": options.against}
    own, of_devices = settings_of(options.set, options.devices)
    options.set = own
    experiment, given = _asked(options, changed | {"settings": of_devices})
    path = options.out or default_folder(experiment, given, quick=options.quick)
    return _carried_out(experiment, given, path, options, out, err)


def _stimulus(options: argparse.Namespace, out: Console, err: Console) -> int:
    import jax

    from morphax.judging.stimulus import ADVICE, expect, stimulus, write_drive

    points, low, high = whole("points", options.points), number("low", options.low), number("high", options.high)
    with jax.enable_x64(True):
        key = jax.random.key(whole("seed", options.seed))
        write_drive(options.out, stimulus(points, options.kind, low=low, high=high, key=key))
    out.print(f"{expect(points)}. {ADVICE} Written to {options.out}", markup=False, soft_wrap=True)
    return OK


def _asked(options: argparse.Namespace, given: Mapping[str, Any] | None = None) -> tuple[Experiment, BaseConfig]:
    """The experiment and the configuration that a command names; `given` by options of its own."""
    experiment = _find(options.name)()
    changes = dict(given or {}) | dict(assignment(text, experiment.Config) for text in options.set)
    if options.seeds is not None:
        if "seeds" not in experiment.Config.model_fields:
            raise UsageError(f"seeds is {options.seeds}, but {experiment.name} has no repetitions")
        changes |= [assignment(f"seeds={options.seeds}", experiment.Config)]
    return experiment, configure(experiment, (experiment.quick if options.quick else {}) | changes)


def _carried_out(
    experiment: Experiment, config: BaseConfig, path: Path, options: argparse.Namespace, out: Console, err: Console
) -> int:
    from morphax.lab.compile_cache import compile_cache
    from morphax.lab.run_folder import RunFolder

    with compile_cache(), _executor(options, err) as executor:
        folder = RunFolder(
            path,
            experiment,
            config,
            quick=options.quick,
            wait=options.wait,
            fresh=options.fresh,
            console=err,
            executor=executor,
        )
        if folder.complete:
            err.print(f"{experiment.name} has run before; shown as stored (--fresh runs it anew)", markup=False)
        verdicts = folder.execute()
    _print_verdicts(experiment.name, verdicts, folder, out)
    return CLAIM_NOT_MET if options.check and any(claim["met"] is False for claim in verdicts) else OK


def _executor(options: argparse.Namespace, err: Console) -> AbstractContextManager[Executor | None]:
    """What carries out pieces; None where this process does."""
    if options.workers is None and options.scheduler is None:
        if options.shared is not None:
            raise UsageError(f"shared is {str(options.shared)!r} without workers; add --workers or --scheduler")
        return nullcontext()
    from morphax.lab.executor import Executor

    workers = None if options.workers is None else whole("workers", options.workers)
    return Executor(workers, options.scheduler, shared=options.shared, say=lambda text: err.print(text, markup=False))


def _report(options: argparse.Namespace, out: Console, err: Console) -> int:
    from morphax.lab.run_folder import open_run

    folder = open_run(options.dir, all_experiments(), console=err)
    _print_verdicts(folder.experiment.name, folder.publish(), folder, out)
    return OK


def _compare(options: argparse.Namespace, out: Console, err: Console) -> int:
    from morphax.lab.compare import Comparison, page_for, read_runs, tables, write_page

    runs = read_runs([options.first, *options.others])
    page = page_for(runs, options.out)
    comparison = Comparison(runs)
    for table in tables(comparison):
        out.print(table)
    write_page(comparison, page)
    out.print(f"page: {page}", markup=False, soft_wrap=True)
    return OK


def _completion(options: argparse.Namespace, out: Console, err: Console) -> int:
    from morphax.lab.completion import completion_script

    print(completion_script(_parser(), all_experiments(), options.shell))
    return OK


def _prune(options: argparse.Namespace, out: Console, err: Console) -> int:
    from morphax.lab.store import prune

    try:
        gigabytes = float(options.leave)
    except ValueError:
        gigabytes = math.nan
    if not 0 <= gigabytes < math.inf:
        raise UsageError(f"leave is {options.leave!r}; it must be a number of gigabytes >= 0")
    if not options.dir.is_dir():
        raise UsageError(f"dir is {str(options.dir)!r}, which is no folder")
    if not (store := options.dir / ".pieces").is_dir():
        out.print(f"no pieces are kept in {options.dir}: it holds no .pieces", markup=False, soft_wrap=True)
        return OK
    freed = prune(store, round(gigabytes * 1e9))
    out.print(f"freed {freed / 1e6:.1f} MB")
    return OK


def _print_verdicts(name: str, verdicts: list[dict[str, Any]], folder: RunFolder, out: Console) -> None:
    from rich.table import Table

    from morphax.lab.report import coloured, rows_of

    for about, sentences in folder.experiment.verdict(folder.dataset()).items():
        out.print(about, style="bold", markup=False)
        for sentence in sentences:
            style = "yellow" if sentence.startswith("Warning: ") else None
            out.print(f"  {sentence}", style=style, markup=False, soft_wrap=True)
    table = Table("claim", "paper or baseline", "here", "verdict", title=name, title_justify="left")
    for row in rows_of(verdicts):
        table.add_row(row["claim"], row["expected"], row["here"], coloured(row["verdict"]))
    if verdicts:
        out.print(table)
    out.print(f"report: {folder.path / 'report.html'}", markup=False, soft_wrap=True)


def _find(name: str) -> type[Experiment]:
    experiment = find_experiment(name)
    if experiment is None:
        raise UsageError(f"experiment is {name!r}; {nearest(name, summaries())} (morphax list shows all)")
    return experiment


def _one_line(error: BaseException) -> str:
    notes = [note for note in getattr(error, "__notes__", ()) if note.startswith("(")]  # JAX has some of its own
    text = " ".join(" ".join([str(error), *notes]).split())
    return text if isinstance(error, ValueError | RuntimeError) and text else f"{type(error).__name__}: {text}"


if __name__ == "__main__":
    program()
