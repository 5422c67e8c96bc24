"""Devices outside: a function, a process, an instrument that answers whole sequences of inputs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import IO, Any, NoReturn

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from morphax._checks import check_count, check_finite, check_range, check_shape, is_concrete
from morphax.files import digest_of, write_atomically
from morphax.host import ask_host
from morphax.substrates.base import State, Substrate
from morphax.substrates.wrappers import Wrapper

Device = Callable[[np.ndarray], Any]
SECONDS_TO_END = 5.0
"""After which what reads a process that was killed is left behind."""


class ExternalSubstrate(Substrate):
    """A device that this process can ask: driven with a whole sequence, it answers with readings after every input.

    It works wherever a substrate is only driven and read: readouts, judging, tasks, predictions. It has no derivatives,
    and cannot be held between two inputs; what needs either refuses. A layer for its inputs or a readout may stand
    around it. Questions are asked one after the other, also under `jax.vmap` and from several threads.

    **Arguments:**

    - `device`: takes inputs (time, channels) and returns readings (time, neurons), both NumPy arrays: whatever calls
      NumPy, PyTorch, a circuit simulator or the driver of an instrument; or a `LineProcess`. Every call begins anew.
    - `neurons`: readings after each input.
    - `channels`: numbers of an input.
    - `attempts`: how often a question is asked that raises, or is answered in a wrong way, before that is believed.
    - `timeout`: seconds in which an answer must come. None: whenever it comes.
    - `answers`: folder in which all that it answered is kept, so that a run that was killed asks only for what is
      missing. Repeats stay repeats: a question that is asked a second time has a second answer. None: nothing is kept.

    **State:** the last readings; they cannot be set.

    **Raises:** what the device raises, as it is; `ValueError` where it answers with another shape, NaN or infinity;
    `TimeoutError` where it does not answer.

        >>> import numpy as np
        >>> from morphax import evolve
        >>> from morphax.substrates.external import ExternalSubstrate
        >>> doubled = ExternalSubstrate(lambda inputs: np.hstack([2 * inputs, inputs**2]), neurons=2)
        >>> evolve(doubled, np.array([1.0, 3.0]))[0].tolist()
        [[2.0, 1.0], [6.0, 9.0]]
    """

    bench: _Bench = eqx.field(static=True)
    neurons: int = eqx.field(static=True)
    inputs: int = eqx.field(static=True)

    def __init__(
        self,
        device: Device,
        neurons: int,
        channels: int = 1,
        *,
        attempts: int = 1,
        timeout: float | None = None,
        answers: str | Path | None = None,
    ):
        if not callable(device):
            raise ValueError(f"device is {device!r}; it must be a function of inputs (time, channels)")
        check_count("neurons", neurons, 1)
        check_count("channels", channels, 1)
        check_count("attempts", attempts, 1)
        if timeout is not None:
            check_range("timeout", timeout, low=0.0, open_low=True)
        self.bench = _Bench(device, neurons, attempts, timeout, None if answers is None else Path(answers))
        self.neurons = neurons
        self.inputs = channels

    @property
    def channels(self) -> int:
        return self.inputs

    @property
    def exact_derivatives(self) -> bool:
        return False

    @property
    def differentiable(self) -> bool:
        return False

    def initial_state(self, *, key: PRNGKeyArray | None = None) -> Float[Array, " neurons"]:
        """No readings yet."""
        return jnp.zeros(self.neurons)

    def step(self, state: State, drive: Float[Array, ...], *, key: PRNGKeyArray | None = None) -> State:
        """Refused: the device cannot be held between two inputs."""
        raise ValueError("an external device answers whole sequences; use evolve, and what is built on it")

    def observe(self, state: State, *, key: PRNGKeyArray | None = None) -> Float[Array, " neurons"]:
        """The last readings."""
        return state

    def driven(
        self,
        drives: Float[Array, "time ..."],
        *,
        state: State | None = None,
        key: PRNGKeyArray | None = None,
        every: bool = True,
        segment: int | None = None,
    ) -> tuple[Float[Array, "*time neurons"], State]:
        """What the device answers to a sequence."""
        if state is not None:
            raise ValueError("state is given; an external device begins anew with every sequence")
        sequence = jnp.reshape(drives, (len(drives), self.inputs))
        expected = jax.ShapeDtypeStruct((len(drives), self.neurons), jnp.result_type(float))
        if is_concrete(sequence):
            readings = jnp.asarray(self.bench.ask(np.asarray(sequence)), expected.dtype)
        else:
            readings = ask_host(lambda asked: self.bench.ask(asked).astype(expected.dtype), expected, sequence)
        return (readings if every else readings[-1]), readings[-1]


class _Bench:
    """Asks a device, one question at a time, and keeps what it answered."""

    def __init__(self, device: Device, neurons: int, attempts: int, timeout: float | None, folder: Path | None):
        self.device = device
        self.neurons = neurons
        self.attempts = attempts
        self.timeout = timeout
        self.folder = folder
        self.chosen = folder is not None  # by the user
        self.asked: Counter[str] = Counter()
        self.lock = threading.Lock()
        self.busy: threading.Thread | None = None

    def keep_in(self, folder: Path | None) -> None:
        """Keep answers in a folder from now on, as if nothing had been asked yet."""
        self.folder = folder
        self.asked.clear()

    def ask(self, inputs: np.ndarray) -> Float[np.ndarray, "time neurons"]:
        inputs = np.array(inputs, float)
        with self.lock:
            path = self._path(inputs)
            if path is not None and path.is_file():
                return self._checked(np.load(path, allow_pickle=False), inputs)
            answer = self._answer(inputs)
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(path, lambda file: _save(file, answer))
            return answer

    def _path(self, inputs: np.ndarray) -> Path | None:
        """Where the answer to a question is kept, which may be asked several times."""
        if self.folder is None:
            return None
        digest = digest_of([inputs.shape, inputs.tobytes().hex()])[:24]
        self.asked[digest] += 1
        return self.folder / f"{digest}-{self.asked[digest]}.npy"

    def _answer(self, inputs: np.ndarray) -> np.ndarray:
        for attempt in range(1, self.attempts + 1):
            try:
                return self._checked(self._in_time(inputs), inputs)
            except Exception:
                if attempt == self.attempts:
                    raise
        raise AssertionError

    def _checked(self, answer: Any, inputs: np.ndarray) -> np.ndarray:
        readings = np.asarray(answer, float)
        check_shape("the device's answer", readings, (len(inputs), self.neurons))
        check_finite("the device's answer", readings)
        return readings

    def _in_time(self, inputs: np.ndarray) -> Any:
        if self.timeout is None:
            return self.device(inputs)
        if isinstance(self.device, LineProcess):
            return self.device(inputs, timeout=self.timeout)
        late = TimeoutError(f"the device did not answer within {self.timeout:g} s")
        # A function cannot be stopped: it is left behind, and has nothing else to answer until it has ended.
        if self.busy is not None:
            self.busy.join(self.timeout)
            if self.busy.is_alive():
                raise late
        answers: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()
        self.busy = threading.Thread(target=_answered, args=(self.device, inputs, answers), name="device", daemon=True)
        self.busy.start()
        try:
            answer, error = answers.get(timeout=self.timeout)
        except Empty:
            raise late from None
        if error is not None:
            raise error
        return answer


def _answered(device: Device, inputs: np.ndarray, answers: SimpleQueue[tuple[Any, BaseException | None]]) -> None:
    try:
        answers.put((device(inputs), None))
    except BaseException as error:
        answers.put((None, error))


def outside(substrate: Substrate) -> _Bench | None:
    """What asks the device behind a substrate, where there is one outside, whatever stands around it."""
    while isinstance(substrate, Wrapper):
        substrate = substrate.substrate
    return substrate.bench if isinstance(substrate, ExternalSubstrate) else None


class LineProcess:
    """A device in another process, in any language, that speaks lines of JSON on its standard streams.

    It reads a line `{"inputs": [[0.1], [0.2], ...]}`, rows of channels, and writes a line
    `{"responses": [[...], ...]}`, a row of readings for each, or `{"error": "what went wrong"}`. The process starts
    with the first question, and anew when it has ended or did not answer in time. What it writes to its error stream is
    shown as it is.

    **Arguments:** `command`: program and arguments.

    **Raises:** `RuntimeError` for an answer that is an error, or none, or when the process ends.
    """

    def __init__(self, command: Sequence[str]):
        self.process: subprocess.Popen[str] | None = None
        self._end: weakref.finalize | None = None
        if isinstance(command, str) or not command:
            raise ValueError(f"command is {command!r}; it must be a list: program and arguments")
        self.command = list(command)
        self.lines: SimpleQueue[str] = SimpleQueue()

    def __call__(self, inputs: Float[np.ndarray, "time channels"], *, timeout: float | None = None) -> np.ndarray:
        """Ask it. **Raises:** `TimeoutError`, and the process is ended, without an answer after `timeout` seconds."""
        process = self._running()
        if not self.lines.empty():
            if line := self.lines.get():
                self._refuse(line)
            self.close()  # it has just ended
            process = self._running()
        assert process.stdin is not None
        try:
            question = json.dumps({"inputs": np.asarray(inputs).tolist()}) + "\n"
            # One that does not read keeps who writes waiting, and has no more time than one that does not answer.
            threading.Thread(target=_write, args=(process.stdin, question), daemon=True).start()
            line = self.lines.get(timeout=timeout)
        except Empty as error:
            self.close()
            raise TimeoutError(f"{self.command[0]} did not answer within {timeout:g} s") from error
        if not line:
            code = process.wait()
            self.close()
            raise RuntimeError(f"{self.command[0]} ended with exit code {code} before it answered")
        try:
            answer = json.loads(line)
        except json.JSONDecodeError:
            answer = None
        if not isinstance(answer, dict) or not answer.keys() & {"responses", "error"}:
            self._refuse(line)
        if "error" in answer:
            raise RuntimeError(f"{self.command[0]}: {answer['error']}")
        return np.asarray(answer["responses"], float)

    def _refuse(self, line: str) -> NoReturn:
        """A process that writes other lines than answers is out of step, and begins anew with the next question."""
        self.close()
        raise RuntimeError(
            f"{self.command[0]} wrote {line.strip()[:80]!r}; it must write one line for each question, "
            '{"responses": [[...], ...]}, and all else to its error stream'
        )

    def close(self) -> None:
        """End the process."""
        if self._end is not None:
            self._end()
        self.process = self._end = None

    def _running(self) -> subprocess.Popen[str]:
        if self.process is None or self.process.poll() is not None:
            self.close()
            # A session of its own, so that all that it starts ends with it.
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,
            )
            self.lines = SimpleQueue()
            reader = threading.Thread(target=_read_lines, args=(self.process, self.lines), daemon=True)
            reader.start()
            # Also when this object is forgotten, and when Python ends.
            self._end = weakref.finalize(self, _ended, self.process, reader)
        return self.process


def _read_lines(process: subprocess.Popen[str], lines: SimpleQueue[str]) -> None:
    """What a process writes, line by line, and an empty one when it has ended."""
    assert process.stdout is not None
    try:
        for line in process.stdout:
            lines.put(line)
    finally:
        lines.put("")


def _ended(process: subprocess.Popen[str], reader: threading.Thread) -> None:
    if hasattr(os, "killpg"):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.wait()
    reader.join(SECONDS_TO_END)
    for stream in (process.stdin, process.stdout):
        # A stream that somebody still reads would be waited for.
        if stream is not None and not (reader.is_alive() and stream is process.stdout):
            with suppress(OSError):  # what was not sent has nobody to read it
                stream.close()


def _write(stream: IO[str], text: str) -> None:
    with suppress(OSError, ValueError):  # it has ended: that is seen where its answer is read
        stream.write(text)
        stream.flush()


def _save(path: Path, answer: np.ndarray) -> None:
    with path.open("wb") as file:
        np.save(file, answer, allow_pickle=False)
