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

from morphax._options import command_line
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
    return command_line(
        {
            "list": _list,
            "show": _show,
            "run": _run,
            "sweep": _sweep,
            "tune": _tune,
            "judge": _judge,
            "stimulus": _stimulus,
            "fit": _fit,
            "predict": _predict,
            "report": _report,
            "compare": _compare,
            "prune": _prune,
            "completion": _completion,
        }
    )


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
    from morphax.lab.experiment import bounded, readable

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
        claims.add_row(claim.text, bounded(claim.relation, paper, claim.tolerance), claim.source)
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


def _fit(options: argparse.Namespace, out: Console, err: Console) -> int:
    from morphax.lab.naming import default_folder

    options.name = "tables/fit"
    given = {name: value for name in ("table", "target", "device", "task") if (value := getattr(options, name))}
    if options.cv is not None:
        given["cv"] = whole("cv", options.cv)
    fields = _find(options.name).Config.model_fields
    # What is no field of the configuration is a setting of the device.
    own = [text for text in options.set if text.partition("=")[0] in fields or "=" not in text]
    given["settings"] = [text for text in options.set if text not in own]
    options.set = own
    experiment, config = _asked(options, given)
    path = options.out or default_folder(experiment, config, quick=options.quick)
    return _carried_out(experiment, config, path, options, out, err)


def _predict(options: argparse.Namespace, out: Console, err: Console) -> int:
    from morphax.experiments.tables._predict import predict_table

    out.print(predict_table(options.dir, options.data, options.out), markup=False, soft_wrap=True)
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
    from morphax.lab.experiment import fails
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
    return CLAIM_NOT_MET if options.check and any(map(fails, verdicts)) else OK


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
