"""Devices outside: functions and processes that answer whole sequences."""

import subprocess
import sys
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from morphax import Backpropagation, EchoStateNetwork, Noisy, WithInput, WithReadout, evolve, predict
from morphax.learning.readout import answer, read_task
from morphax.substrates.external import ExternalSubstrate, LineProcess
from morphax.tasks.memory import narma

KEY = jax.random.key(0)
NETWORK = EchoStateNetwork.random(12, key=KEY)
PROGRAM = """
import json, sys, time
for line in sys.stdin:
    inputs = json.loads(line)["inputs"]
    first = inputs[0][0]
    if first == 5: sys.exit(3)
    if first == 6: time.sleep(30)
    if first == 7: print("hello"); sys.stdout.flush(); continue
    if first == 8: print(json.dumps({"error": "the laser is off"})); sys.stdout.flush(); continue
    memory, rows = 0.0, []
    for (value,) in inputs:
        memory = 0.5 * memory + value
        rows.append([memory, memory**2])
    print(json.dumps({"responses": rows})); sys.stdout.flush()
"""


def measured(inputs: np.ndarray) -> np.ndarray:
    """A network in the place of a laboratory."""
    return np.asarray(evolve(NETWORK, inputs[:, 0])[0])


def line_device(**options) -> ExternalSubstrate:
    return ExternalSubstrate(LineProcess([sys.executable, "-c", PROGRAM]), neurons=2, **options)


@pytest.mark.slow
def test_a_device_answers_as_its_model_would():
    task = narma(2, 300, 200, key=KEY)
    device = ExternalSubstrate(measured, neurons=12)
    there, here = (answer(read_task(each, task, key=KEY), task)[0] for each in (device, NETWORK))
    assert np.allclose(there, here, atol=1e-4)


def test_it_is_asked_under_vmap_and_jit_once_for_every_example():
    asked = []

    def device(inputs: np.ndarray) -> np.ndarray:
        asked.append(inputs.copy())
        return np.cumsum(inputs, axis=0)

    substrate = ExternalSubstrate(device, neurons=1)
    drives = jnp.arange(12.0).reshape(4, 3)
    found = jax.jit(jax.vmap(lambda drive: evolve(substrate, drive)[0]))(drives)
    assert found[..., 0].tolist() == np.cumsum(drives, axis=1).tolist()
    assert sorted(each[0, 0] for each in asked) == [0, 3, 6, 9]


def test_layers_stand_around_it():
    device = ExternalSubstrate(lambda inputs: np.hstack([inputs, inputs**2]), neurons=4, channels=2)
    whole = WithReadout(WithInput(device, jnp.array([[1.0], [2.0]])), jnp.ones((1, 4)), jnp.array([10.0]))
    assert evolve(whole, jnp.array([1.0, 2.0]))[0].tolist() == [[18.0], [36.0]]
    assert predict(whole, jnp.array([[1.0, 2.0]])).tolist() == [[36.0]]


def test_what_needs_more_than_answers_refuses():
    device = ExternalSubstrate(measured, neurons=12)
    reader = WithReadout.random(device, outputs=1, key=KEY)
    data = (jnp.ones((4, 5)), jnp.ones((4, 1)))
    with pytest.raises(ValueError, match="Backpropagation needs a substrate whose step can be differentiated"):
        Backpropagation().check(reader, data)
    with pytest.raises(ValueError, match="Noisy changes what happens between two inputs"):
        evolve(Noisy(device, 0.1), jnp.ones(3), key=KEY)
    with pytest.raises(ValueError, match="answers whole sequences"):
        device.step(device.initial_state(), jnp.ones(()))
    with pytest.raises(ValueError, match="begins anew with every sequence"):
        evolve(device, jnp.ones(3), state=jnp.ones(12))


def test_what_it_raises_comes_as_it_is():
    def broken(inputs: np.ndarray) -> np.ndarray:
        raise OSError("the fibre is out")

    with pytest.raises(OSError, match="the fibre is out"):
        evolve(ExternalSubstrate(broken, neurons=1), jnp.ones(3))


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (np.ones((2, 2)), r"the device's answer has shape \(2, 2\); it must be \(3, 2\)"),
        (np.ones((3, 1)), r"the device's answer has shape \(3, 1\)"),
        (np.full((3, 2), np.nan), "the device's answer"),
    ],
)
def test_wrong_answers_are_refused(reply, message):
    with pytest.raises(ValueError, match=message):
        evolve(ExternalSubstrate(lambda inputs: reply, neurons=2), jnp.ones(3))


def test_a_question_is_repeated_before_its_failure_is_believed():
    calls = []

    def moody(inputs: np.ndarray) -> np.ndarray:
        calls.append(1)
        if len(calls) < 3:
            raise RuntimeError("not now")
        return inputs

    assert evolve(ExternalSubstrate(moody, neurons=1, attempts=3), jnp.ones(3))[0].shape == (3, 1)
    assert len(calls) == 3


def test_late_answers_are_not_waited_for():
    device = ExternalSubstrate(lambda inputs: time.sleep(2.0), neurons=1, timeout=0.1)
    started = time.monotonic()
    with pytest.raises(TimeoutError, match=r"did not answer within 0\.1 s"):
        evolve(device, jnp.ones(3))
    assert time.monotonic() - started < 1.5


def test_answers_are_kept_and_repeats_stay_repeats(tmp_path):
    rng, calls = np.random.default_rng(0), []

    def noisy(inputs: np.ndarray) -> np.ndarray:
        calls.append(1)
        return inputs + rng.normal(size=inputs.shape)

    def run() -> list[np.ndarray]:
        device = ExternalSubstrate(noisy, neurons=1, answers=tmp_path)
        return [np.asarray(evolve(device, jnp.ones(4) * scale)[0]) for scale in (1.0, 1.0, 2.0)]

    first = run()
    assert len(calls) == 3
    assert not np.array_equal(first[0], first[1])
    min(tmp_path.iterdir()).unlink()
    again = run()
    assert len(calls) == 4
    assert sum(np.array_equal(one, other) for one, other in zip(first, again, strict=True)) == 2


def test_questions_are_asked_one_after_the_other():
    busy, worst = [0], [0]

    def slow(inputs: np.ndarray) -> np.ndarray:
        busy[0] += 1
        worst[0] = max(worst[0], busy[0])
        time.sleep(0.05)
        busy[0] -= 1
        return inputs

    device = ExternalSubstrate(slow, neurons=1)
    threads = [threading.Thread(target=evolve, args=(device, jnp.ones(2))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert worst[0] == 1


def test_a_process_speaks_lines_of_json():
    device = line_device()
    found, _ = evolve(device, jnp.array([1.0, 0.0, 1.0]))
    assert found.tolist() == [[1.0, 1.0], [0.5, 0.25], [1.25, 1.5625]]
    assert evolve(device, jnp.array([1.0]))[0].tolist() == [[1.0, 1.0]]  # the same process, anew


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "error", "message"),
    [
        (5.0, RuntimeError, "ended with exit code 3 before it answered"),
        (6.0, TimeoutError, "did not answer within 2 s"),
        (7.0, RuntimeError, "wrote 'hello'; it must write one line for each question"),
        (8.0, RuntimeError, "the laser is off"),
    ],
)
def test_a_process_that_fails_says_how_and_is_asked_again(first, error, message):
    device = line_device(timeout=2.0)
    with pytest.raises(error, match=message):
        evolve(device, jnp.array([first]))
    assert evolve(device, jnp.array([2.0]))[0].tolist() == [[2.0, 4.0]]


@pytest.mark.slow
def test_a_function_that_never_answers_does_not_keep_python(tmp_path):
    program = """
import threading
import jax.numpy as jnp
from morphax import ExternalSubstrate, evolve
device = ExternalSubstrate(lambda inputs: threading.Event().wait(), neurons=1, timeout=0.2, attempts=2)
evolve(device, jnp.ones(3))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert "TimeoutError: the device did not answer within 0.2 s" in done.stderr


def test_a_time_out_of_the_driver_itself_reaches_the_user():
    def driver(inputs: np.ndarray) -> np.ndarray:
        raise TimeoutError("GPIB 7 does not answer")

    with pytest.raises(TimeoutError, match="GPIB 7 does not answer"):
        evolve(ExternalSubstrate(driver, neurons=1, timeout=5.0), jnp.ones(2))


def test_a_process_that_writes_more_than_answers_is_not_believed():
    """One line too many would be taken for the answer to the next question."""
    program = """
import json, sys
print("ready", flush=True)
for line in sys.stdin:
    print(json.dumps({"responses": json.loads(line)["inputs"]}), flush=True)
"""
    device = ExternalSubstrate(LineProcess([sys.executable, "-c", program]), neurons=1, attempts=3, timeout=20.0)
    for question in (1.0, 2.0):
        with pytest.raises(RuntimeError, match="wrote 'ready'; it must write one line for each question"):
            evolve(device, jnp.array([question]))


def test_bytes_that_are_no_text_are_an_error_too():
    program = (
        "import sys; sys.stdin.readline(); sys.stdout.buffer.write(b'gr\\xfc\\xdfe\\n'); sys.stdout.flush(); input()"
    )
    with pytest.raises(RuntimeError, match="it must write one line for each question"):
        evolve(ExternalSubstrate(LineProcess([sys.executable, "-c", program]), neurons=1), jnp.ones(2))


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="device is 3; it must be a function"):
        ExternalSubstrate(3, neurons=1)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="neurons is 0"):
        ExternalSubstrate(measured, neurons=0)
    with pytest.raises(ValueError, match="timeout is 0"):
        ExternalSubstrate(measured, neurons=1, timeout=0.0)
    with pytest.raises(ValueError, match="command is 'ls'; it must be a list"):
        LineProcess("ls")
