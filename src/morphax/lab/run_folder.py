"""A run on disk: what was asked, where it ran, what came out; resumed when the same is asked again."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import xarray as xr
from rich.console import Console
from threadpoolctl import threadpool_limits

from morphax.files import (
    TEMPORARY,
    DamagedError,
    KnownFile,
    changed,
    digest_of,
    digest_of_file,
    noting_files,
    read_json,
    read_sealed,
    read_sealed_dataset,
    state_of,
    write_bytes,
    write_json,
    write_sealed,
    write_sealed_dataset,
)
from morphax.lab.environment import environment
from morphax.lab.errors import UsageError
from morphax.lab.experiment import BaseConfig, Experiment
from morphax.lab.figures import KINDS, save_figures, styled
from morphax.lab.identity import changed_source, source_files, source_of, versions
from morphax.lab.job import Job, Task, place_of
from morphax.lab.lock import locked, remove_dead
from morphax.lab.naming import command_for
from morphax.lab.progress import Outcome, Progress, Tell
from morphax.lab.report import write_report
from morphax.lab.request import MANIFEST, asked, data_of, difference, request_for, request_in, whose
from morphax.lab.script import class_of, load_experiment, module_of, source_record
from morphax.lab.store import PieceStore, prune, store_beside, takes_files
from morphax.lab.study import Study
from morphax.lab.sweep import Sweep

if TYPE_CHECKING:
    from morphax.lab.executor import Executor

UNLISTED = ("environment.json", "history.jsonl", "result.nc", "study.db")
"""What a run writes beside `config.json` before its manifest lists its files."""
OF_CHECKPOINTS = re.compile(r"[0-9a-f]{12}")
"""Folders with the states of trainings."""
INTERNAL = ("morphax_request", "morphax_identity", "morphax_pieces")


class RunFolder:
    """The folder of one run: what was asked, what came out, and last a manifest of all files and pieces.

    `config.json` is written first and `manifest.json` last; every file is whole or absent, and sealed by a digest: of
    its own content, or in the manifest. What is damaged is named and made anew. One process at a time is at work in the
    folder. Files that are not of the run are left alone; a folder that holds files but no sealed word of a run is
    somebody else's.

    **Arguments:**

    - `path`: of the folder; made where there is none.
    - `experiment`, `config`, `quick`: what is asked.
    - `store`: folder with finished pieces, of this and other runs. None: `.pieces` beside the runs (`store_beside`).
    - `wait`: for another process that is at work in the folder, instead of refusing.
    - `fresh`: whether to begin anew: the files of the run are removed, and nothing is taken from the store.
    - `console`: where is told what goes on.
    - `executor`: carries out the pieces on other processes. None: this one does.
    - `stored`: what the run in the folder was asked, where it is only read or published (`open_run`): its files of data
      are not looked at.

    **Raises:** `UsageError` when the folder cannot be written, holds something else, or holds a run of another
    experiment, configuration or data; when another process is at work there; when a file of data cannot be read.
    """

    def __init__(
        self,
        path: Path,
        experiment: Experiment,
        config: BaseConfig,
        *,
        quick: bool = False,
        store: Path | None = None,
        wait: bool = False,
        fresh: bool = False,
        console: Console | None = None,
        executor: Executor | None = None,
        stored: dict[str, Any] | None = None,
    ):
        self.path = path
        self.experiment = experiment
        self.config = config
        self.store = store_beside(path) if store is None else store
        self.wait = wait
        self.fresh = fresh
        self.console = console
        self.executor = executor
        self.data: dict[str, Path | KnownFile] = {}
        if stored is None:
            self.data, digests = data_of(config)
            stored = request_for(experiment, config, digests, quick=quick)
        self.request = stored
        self.files = {name: entry for name, entry in self.data.items() if isinstance(entry, Path)}
        self._found: dict[str, tuple[int, ...] | None] = {}
        _make(path)
        self._check_request()
        self._tell_of_another_source()

    @property
    def complete(self) -> bool:
        """Whether the run has come to its end, and all that it wrote is as it was written."""
        return not self.fresh and (manifest := self._manifest()) is not None and not self._changed(manifest)

    def execute(self) -> list[dict[str, Any]]:
        """Run what is missing, write everything, and return the judged claims.

        `seconds` of the result are those of all legs of an interrupted run, but for what was spent on pieces that were
        not finished then.
        """
        if self.complete:
            remove_dead(self.path)
            return read_json(self.path / "claims.json")
        with self._at_work() as check:
            if self.fresh:
                # Before anything is removed, so that a run that is discarded halfway is still one.
                self._sign()
                self._discard()
            self._remove_damaged()
            self._sign()
            if not self._has_result():
                self._compute(check)
            return self._publish()

    def publish(self) -> list[dict[str, Any]]:
        """Judge the stored result and write claims, figures, exports and report from it."""
        with self._at_work():
            self._remove_damaged()
            self._sign()
            return self._publish()

    def dataset(self) -> xr.Dataset:
        """The stored result. **Raises:** `DamagedError` where it is not what was written."""
        dataset = read_sealed_dataset(self.path / "result.nc")
        for name in INTERNAL:
            dataset.attrs.pop(name, None)
        return dataset

    @contextmanager
    def _at_work(self) -> Iterator[Callable[[], None]]:
        with locked(self.path, wait=self.wait, say=self._say) as check:
            self._check_request()
            for folder in (self.path, self.path / "figures"):
                for leftover in folder.glob(f"{TEMPORARY}*"):
                    leftover.unlink(missing_ok=True)
            yield check

    def _compute(self, check: Callable[[], None]) -> None:
        """Write the environment and the result, with the seconds that all legs of the run took."""
        self.config.check_memory()
        if not takes_files(self.store):
            raise UsageError(f"pieces are kept in {str(self.store)!r}, which cannot be written")

        def before_keeping() -> None:
            check()
            self._check_data()
            if (edited := changed_source(sources)) is not None:
                raise UsageError(changed(edited))

        identity, sources = self._identity(), source_files(module_of(self.experiment))
        store = PieceStore(self.store, identity, self.request["config"], reuse=not self.fresh, say=self._say)
        progress = Progress(
            store,
            checkpoints=self._checkpoints(),
            history=self.path / "history.jsonl",
            console=self.console,
            extents=type(self.config).extents(),
            before_keeping=before_keeping,
            elsewhere=None if self.executor is None else self._elsewhere,
        )
        write_json(self.path / "environment.json", environment(self.config.seed))
        started = time.perf_counter()
        # XLA already keeps every core busy; BLAS threads beside its own make small decompositions several times slower.
        with (
            progress.noting(),
            noting_files() as read,
            threadpool_limits(limits=1, user_api="blas"),
            jax.enable_x64(self.config.precision == "double"),
        ):
            dataset = self.experiment.run(self.config, key=jax.random.key(self.config.seed), progress=progress)
        before_keeping()
        if undeclared := read - {file.resolve() for file in self.files.values()}:
            named = ", ".join(sorted(map(str, undeclared)))
            raise RuntimeError(f"{self.experiment.name} reads {named}, which data() of its Config does not name")
        seconds = progress.seconds + time.perf_counter() - started - progress.waited
        progress.finish()
        write_sealed_dataset(
            self.path / "result.nc",
            dataset.assign_attrs(
                experiment=self.experiment.name,
                seconds=seconds,
                morphax_request=json.dumps(self.request),
                morphax_identity=digest_of(identity),
                morphax_pieces=json.dumps(progress.digests),
            ),
        )
        prune(self.store)

    def _elsewhere(self, wanted: Sequence[tuple[Progress, str]], tell: Tell) -> Iterator[tuple[int, Outcome]]:
        """Have pieces carried out by the executor."""
        assert self.executor is not None
        place, identity = place_of(self.experiment.origin), self._identity()
        jobs: dict[int, Job] = {}
        tasks = []
        for progress, label in wanted:
            assert progress.store is not None
            if id(progress) not in jobs:
                jobs[id(progress)] = Job(
                    place, progress.store.values, identity["data"], identity["source"], identity["versions"]
                )
            tasks.append(Task(jobs[id(progress)], label, progress.checkpoints, self.data, self.fresh))
        return self.executor.carry_out(tasks, tell)

    def _checkpoints(self) -> Path:
        return self.path / "checkpoints" / digest_of([self._identity(), self.request["config"]])[:12]

    def _remove_checkpoints(self) -> None:
        """Those of this run and of what it was before, and not what others keep in a folder of that name."""
        folder = self.path / "checkpoints"
        for states in folder.glob("*"):
            if OF_CHECKPOINTS.fullmatch(states.name):
                shutil.rmtree(states, ignore_errors=True)
        with suppress(OSError):
            folder.rmdir()

    def _publish(self) -> list[dict[str, Any]]:
        try:
            dataset = read_sealed_dataset(self.path / "result.nc")
        except (FileNotFoundError, DamagedError) as error:
            raise UsageError(
                f"dir is {str(self.path)!r}, whose result is not there ({error}); finish it: {self._command()}"
            ) from error
        pieces = json.loads(dataset.attrs["morphax_pieces"])
        for name in INTERNAL:
            dataset.attrs.pop(name)
        verdicts = self.experiment.judge(dataset)
        exports = self.experiment.exports(dataset)
        with styled():
            figures = self.experiment.figures(dataset)
        written = ["config.json", "environment.json", "result.nc", "claims.json", "report.html", *exports]
        written += [f"figures/{name}.{kind}" for name in figures for kind in KINDS]
        written += ["history.jsonl"] * (self.path / "history.jsonl").exists()
        before = [name for name in self._listed() if name not in written]
        # Before they are there, so that whatever stops this run, the next one knows all its files.
        self._write_manifest({"complete": False, "files": dict.fromkeys([*written, *before]), "pieces": pieces})
        for name in before:  # a figure that this version draws no more
            (self.path / name).unlink(missing_ok=True)
        write_json(self.path / "claims.json", verdicts)
        for name, content in exports.items():
            write_bytes(self.path / name, content if isinstance(content, bytes) else content.encode())
        save_figures(figures, self.path / "figures")
        if not (self.path / "environment.json").exists():
            write_json(self.path / "environment.json", environment(self.config.seed))
        write_report(self.path, self.experiment, dataset, figures)
        self._remove_checkpoints()
        digests = {name: digest_of_file(self.path / name) for name in written}
        self._write_manifest({"complete": True, "files": digests, "pieces": pieces})
        return verdicts

    def _write_manifest(self, content: dict[str, Any]) -> None:
        write_sealed(self.path / MANIFEST, {"request": self.request} | content)

    def _listed(self) -> list[str]:
        """The files that a manifest lists, also that of a run that did not come to its end."""
        with suppress(FileNotFoundError, DamagedError):
            return list(read_sealed(self.path / MANIFEST)["files"])
        return []

    def _manifest(self, say: Callable[[str], object] = lambda text: None) -> dict[str, Any] | None:
        """Of a run that came to its end; None where it did not."""
        try:
            manifest = read_sealed(self.path / MANIFEST)
        except FileNotFoundError:
            return None
        except DamagedError as error:
            say(f"{error}; it is made anew")
            return None
        return manifest if manifest["complete"] else None

    def _changed(self, manifest: dict[str, Any]) -> list[str]:
        """The files that are not as the manifest says."""
        return [name for name, digest in manifest["files"].items() if _digest_of_any(self.path / name) != digest]

    def _remove_damaged(self) -> None:
        """Name and remove what is not as it was written, and what can only be made together with it."""
        manifest = self._manifest(say=self._say)
        for name in [] if manifest is None else self._changed(manifest):
            path = self.path / name
            if path.exists():
                self._say(f"{path} is not what was written; it is made anew")
            path.unlink(missing_ok=True)
            if name == "history.jsonl":
                (self.path / "result.nc").unlink(missing_ok=True)

    def _identity(self) -> dict[str, Any]:
        """What decides the numbers of all pieces beside the configuration."""
        return {
            "experiment": self.experiment.name,
            "class": class_of(self.experiment),
            "source": source_of(module_of(self.experiment)),
            "data": self.request["data"],
            "versions": versions()
            | {"backend": jax.default_backend() if self.executor is None else self.executor.backend},
        }

    def _has_result(self) -> bool:
        """Whether a result was written that this morphax would compute again."""
        try:
            attributes = read_sealed_dataset(self.path / "result.nc").attrs
            stored = json.loads(attributes["morphax_request"])
            same = attributes["morphax_identity"] == digest_of(self._identity())
        except FileNotFoundError:
            return False
        except (DamagedError, KeyError) as error:
            self._say(f"{error}; it is computed anew")
            return False
        return same and asked(stored) == asked(self.request)

    def _discard(self) -> None:
        """Remove the files of the run but `config.json`, and of its folders those that are empty then."""
        for name in sorted({*UNLISTED, *self._listed()} - {"config.json"}):
            (self.path / name).unlink(missing_ok=True)
        self._remove_checkpoints()
        with suppress(OSError):
            (self.path / "figures").rmdir()
        (self.path / MANIFEST).unlink(missing_ok=True)

    def _sign(self) -> None:
        """Write what is asked, where it is not there or damaged."""
        path = self.path / "config.json"
        try:
            if read_sealed(path) == self.request:
                return
        except FileNotFoundError:
            pass
        except DamagedError as error:
            self._say(f"{error}; it is written anew")
        write_sealed(path, self.request)

    def _check_request(self) -> None:
        """Refuse a folder that holds something else."""
        found = request_in(self.path)
        if found is None:
            # What a run leaves behind that is stopped before it signs is hidden.
            if any(not entry.name.startswith(".") for entry in self.path.iterdir()):
                raise UsageError(f"out is {str(self.path)!r}, which holds other files; it must be new, empty, or a run")
            return
        if whose(found) != whose(self.request):
            raise UsageError(
                f"out is {str(self.path)!r}, a run of {whose(found)}; choose another folder for {whose(self.request)}"
            )
        if asked(found) != asked(self.request) and not self.fresh:
            raise UsageError(
                f"out is {str(self.path)!r}, {difference(asked(found), asked(self.request))}; choose another "
                "folder, or start it anew with --fresh"
            )

    def _tell_of_another_source(self) -> None:
        """A file is edited while one works with it: a finished run says that it is older."""
        source = source_record(self.experiment)
        if source is None or self.fresh or self._manifest() is None:
            return
        with suppress(FileNotFoundError, DamagedError):
            found = read_sealed(self.path / "config.json").get("source", source)
            if found["sha256"] != source["sha256"]:
                self._say(
                    f"{source['file']}, or what it imports beside it, has changed since {self.path} was computed; its "
                    f"numbers are those of before: {self._command()} --fresh computes them anew"
                )

    def _command(self) -> str:
        return command_for(self.request, self.experiment, self.path)

    def _check_data(self) -> None:
        """Refuse to go on where a file has changed since it was asked for: nobody knows what was read of it."""
        for name, file in self.files.items():
            state = state_of(file)
            if name in self._found and state == self._found[name]:
                continue
            if _digest_of_any(file) != self.request["data"][name]:
                raise UsageError(changed(f"{name} ({file})"))
            self._found[name] = state

    def _say(self, text: str) -> None:
        if self.console is not None:
            self.console.print(f"morphax: {text}", markup=False, soft_wrap=True)
        else:
            warnings.warn(text, stacklevel=2)


def _make(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"out is {str(path)!r}, which cannot be made: {error.strerror}") from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise UsageError(f"out is {str(path)!r}, which cannot be written")


def _digest_of_any(path: Path) -> str | None:
    """None where there is no such file."""
    try:
        return digest_of_file(path)
    except OSError:
        return None


def open_run(path: Path, experiments: Mapping[str, type[Experiment]], *, console: Console | None = None) -> RunFolder:
    """The run folder at `path` with the experiment and configuration that are stored in it."""
    if not any((path / name).exists() for name in ("config.json", MANIFEST, "result.nc")):
        raise UsageError(f"dir is {str(path)!r}, which is no run folder (it holds no config.json)")
    request = request_in(path)
    if request is None:
        raise UsageError(f"dir is {str(path)!r}, in which nothing that is whole says what run it is of")
    experiment = _experiment_of(request, path, experiments)()
    if "over" in request:
        experiment = Sweep(experiment, request["over"])
    if "study" in request:
        experiment = Study.of(experiment, request["study"], path)
    fields = experiment.Config.model_fields
    if unlike := sorted(request["config"].keys() ^ fields.keys()):
        raise UsageError(
            f"dir is {str(path)!r}, a run of another version of {experiment.name}, which differs in {', '.join(unlike)}"
        )
    try:
        config = experiment.Config(**request["config"])
    except (ValueError, ImportError):  # files or packages are elsewhere by now, and the result is there without them
        config = experiment.Config.model_construct(**request["config"])
    return RunFolder(path, experiment, config, console=console, stored=request)


def _experiment_of(
    request: dict[str, Any], path: Path, experiments: Mapping[str, type[Experiment]]
) -> type[Experiment]:
    """The class that a run is of: of its file, where it has one, or of that name."""
    name, source = request["experiment"], request.get("source")
    if source is not None and Path(source["file"]).is_file():
        return load_experiment(f"{source['file']}:{source['class']}")
    if name in experiments:
        return experiments[name]
    if source is None:
        raise UsageError(f"dir is {str(path)!r}, a run of {name!r}, which this installation lacks")
    raise UsageError(
        f"dir is {str(path)!r}, a run of {source['class']} in {source['file']}, which is gone; put the file back, or "
        "read result.nc"
    )
