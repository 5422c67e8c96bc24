"""The one training loop. It knows no substrate and no rule by name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PRNGKeyArray, PyTree

from morphax._checks import check_count
from morphax.files import read_json, write_atomically, write_json
from morphax.pytrees import Role, select

Model = TypeVar("Model", bound=PyTree)
Metrics = dict[str, Array]
History = list[dict[str, Any]]


class LearningRule(Protocol):
    """Turns the difference between what was observed and what was wanted into a change of the substrate."""

    def gradient(
        self, substrate: PyTree, inputs: PyTree, targets: PyTree, *, key: PRNGKeyArray
    ) -> tuple[Metrics, PyTree]:
        """Metrics (scalars or small arrays by name) and a gradient with the substrate's own structure."""
        ...


class DivergedError(RuntimeError):
    """A metric or a trained leaf became NaN or infinite."""


def train(
    substrate: Model,
    rule: LearningRule,
    data: tuple[PyTree, PyTree],
    optimiser: optax.GradientTransformation,
    steps: int,
    *,
    key: PRNGKeyArray,
    trained: tuple[Role, ...] = ("weight",),
    chunk: int = 50,
    checkpoint: Path | None = None,
    on_chunk: Callable[[History], None] | None = None,
) -> tuple[Model, History]:
    """Change the leaves with the roles `trained` by a learning rule, in compiled chunks of steps.

    **Arguments:**

    - `substrate`: what is trained; a stack of independent ones trains as one when the rule treats them so.
    - `rule`: gives metrics and gradient from (substrate, inputs, targets, key).
    - `data`: (inputs, targets), whole.
    - `optimiser`: any of Optax, schedules and clipping included.
    - `steps`: number of updates, >= 1.
    - `key`: step `i` uses `jax.random.fold_in(key, i)`, so that a resumed training draws the same numbers.
    - `chunk`: steps between two visits of the host: progress, history, checkpoint.
    - `checkpoint`: folder for the state of the training; an interrupted one goes on from there. None: not kept.
    - `on_chunk`: called with the history so far after every chunk.

    **Returns:** the trained substrate and the history, one dict of metrics a step.

    **Raises:** `DivergedError` when a metric or a leaf is no longer finite (says at which step); the last
    checkpoint stays.

        >>> import equinox as eqx, jax, jax.numpy as jnp, optax
        >>> from morphax.learning.train import train
        >>> from morphax.pytrees import WEIGHT
        >>> class Line(eqx.Module):
        ...     slope: jax.Array = eqx.field(metadata=WEIGHT)
        >>> class LeastSquares:
        ...     def gradient(self, line, inputs, targets, *, key):
        ...         loss, slope = eqx.filter_value_and_grad(lambda m: jnp.mean((m.slope * inputs - targets) ** 2))(line)
        ...         return {"loss": loss}, slope
        >>> x = jnp.arange(5.0)
        >>> line, history = train(Line(jnp.zeros(())), LeastSquares(), (x, 3 * x), optax.adam(0.1), 200,
        ...                       key=jax.random.key(0))
        >>> round(line.slope.item(), 2), len(history)
        (3.0, 200)
    """
    check_count("steps", steps, 1)
    check_count("chunk", chunk, 1)
    weights, fixed = select(substrate, *trained)
    state = (weights, optimiser.init(weights))
    history: History = []
    if checkpoint is not None:
        state, history = _resume(checkpoint, state)

    @eqx.filter_jit
    def run(state: PyTree, first: Array, length: int) -> tuple[PyTree, Metrics]:
        def update(state: PyTree, step: Array) -> tuple[PyTree, Metrics]:
            weights, memory = state
            model = eqx.combine(weights, fixed)
            metrics, gradient = rule.gradient(model, *data, key=jax.random.fold_in(key, step))
            gradient = select(eqx.filter(gradient, eqx.is_inexact_array), *trained)[0]
            changes, memory = optimiser.update(gradient, memory, weights)
            return (eqx.apply_updates(weights, changes), memory), metrics

        return jax.lax.scan(update, state, first + jnp.arange(length))

    while len(history) < steps:
        # The last chunk may be shorter; it compiles once more, and only when it is.
        length = min(chunk, steps - len(history))
        state, metrics = run(state, jnp.asarray(len(history)), length)
        rows = _rows(metrics, length)
        _check_finite(rows, len(history), state[0])
        history = history + rows
        if checkpoint is not None:
            _save(checkpoint, state, history)
        if on_chunk is not None:
            on_chunk(history)
    return eqx.combine(state[0], fixed), history


def _rows(metrics: Metrics, length: int) -> History:
    columns = {name: np.asarray(values).tolist() for name, values in metrics.items()}
    return [{name: values[i] for name, values in columns.items()} for i in range(length)]


def _check_finite(rows: History, first: int, weights: PyTree) -> None:
    for index, row in enumerate(rows):
        for name, value in row.items():
            if not np.all(np.isfinite(value)):
                raise DivergedError(f"{name} is not finite at step {first + index}; lower the learning rate")
    if not all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(weights)):
        raise DivergedError(f"a trained leaf is not finite by step {first + len(rows)}; lower the learning rate")


def _save(folder: Path, state: PyTree, history: History) -> None:
    """History and state of the same step, each in a file named by it; older ones go when the new are whole."""
    step = len(history)
    write_json(folder / f"history-{step:09d}.json", history)
    write_atomically(folder / f"state-{step:09d}.eqx", lambda file: eqx.tree_serialise_leaves(file, state))
    for old in folder.glob("*-*.*"):
        if old.stem.split("-")[1] != f"{step:09d}":
            old.unlink()


def _resume(folder: Path, state: PyTree) -> tuple[PyTree, History]:
    """The last whole checkpoint, or the start."""
    saved = max(folder.glob("state-*.eqx"), default=None)
    if saved is None:
        return state, []
    history = read_json(folder / saved.name.replace("state", "history").replace(".eqx", ".json"))
    return eqx.tree_deserialise_leaves(saved, state), history
