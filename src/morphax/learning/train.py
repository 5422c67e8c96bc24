"""The one training loop. It knows no substrate and no rule by name."""

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from morphax._checks import check_count, check_key
from morphax.files import DamagedError, digest_of_file, read_sealed, write_atomically, write_sealed
from morphax.host import original_errors
from morphax.learning.ensemble import count_members, map_members, member
from morphax.learning.fingerprint import fingerprint, program_of
from morphax.learning.history import History, Row
from morphax.learning.rule import Data, LearningRule, Metrics, remembered
from morphax.pytrees import Role, select, warn_of_unassigned
from morphax.tasks.base import Task

Model = TypeVar("Model", bound=PyTree)
# Folded into the key for what is not a step: no training has so many.
SHUFFLE, WATCH, MEMORY = 2**32 - 1, 2**32 - 2, 2**32 - 3
WILD = 1e4  # magnitude of data beyond which no learning rate is to blame
Score = Callable[[dict[str, Metrics]], Float[Array, ""]]


class Trained(NamedTuple, Generic[Model]):
    """What a training gives.

    - `last`: the substrate after the last step.
    - `history`: one dict of metrics a step, at the end of each chunk also those of the watched data; as arrays with
      `history.metric("loss")`, `history.watched("test")`, `history.steps`.
    - `best`: the substrate whose score was highest at the end of a chunk; `last` where there is no score.
    """

    last: Model
    history: History
    best: Model


class DivergedError(RuntimeError):
    """A metric or a trained leaf became NaN or infinite; `trained` is what was trained until then."""

    trained: Trained[Any]


def train(
    substrate: Model,
    rule: LearningRule,
    data: Data | Task,
    optimiser: optax.GradientTransformation,
    steps: int,
    *,
    key: PRNGKeyArray,
    batch_size: int | None = None,
    examples: int | None = None,
    watch: Mapping[str, Data] | None = None,
    score: Score | None = None,
    ensemble: bool | range = False,
    trained: tuple[Role, ...] = ("weight",),
    chunk: int = 50,
    budget: int | None = None,
    checkpoint: Path | None = None,
    on_chunk: Callable[[list[Row]], None] | None = None,
) -> Trained[Model]:
    """Change the leaves with the roles `trained` by a learning rule, in compiled chunks of steps.

    **Arguments:**

    - `substrate`: what is trained.
    - `rule`: gives metrics and gradient from (substrate, inputs, targets, key).
    - `data`: (inputs, targets), whole, their first axis counting examples; or a task, whose training part is learned
      from, whose test part is watched as "test" unless `watch` says something else, and whose kind chooses the
      objective that the rule leaves open.
    - `optimiser`: any of Optax, schedules and clipping included. The same object compiles once for many trainings, and
      so do those of `adjustable`.
    - `steps`: number of updates, >= 1.
    - `key`: step `i` uses `jax.random.fold_in(key, i)`, so that a resumed training draws the same numbers.
    - `batch_size`: examples in a step. Every epoch is shuffled anew and cut into whole batches; what is left over of it
      is left out, other examples each time. None: all of `data` at every step.
    - `examples`: how many of `data`, from the first on, are learned from; the rest fills them up to a shape that is
      compiled already, and never enters a batch. Needs a `batch_size`. None: all.
    - `watch`: further data by name, judged by `rule.metrics` at the end of every chunk: validation, test.
    - `score`: of the watched metrics, higher is better: `lambda watched: watched["validation"]["accuracy"]`. It
      decides what `best` is; of equals the first.
    - `ensemble`: whether `substrate` is a stack of independent ones (`make_members`), all trained in one call through
      one compilation for each device (`map_members`), each with a key of its own. Array leaves of `rule` are stacked
      likewise; the data are shared. Metrics then have the members as leading axis.
    - `trained`: roles of the leaves that change.
    - `chunk`: steps between two visits of the host: progress, history, watched data, checkpoint.
    - `budget`: presentations of an example to the device, by each member, that learning may ask for (`rule.cost`): it
      ends with the last step that is covered, though `steps` says more. What `watch` presents is not of it. None: any
      number.
    - `checkpoint`: folder for the state of the training; an interrupted one goes on from there. None: not kept.
    - `on_chunk`: called with the history so far after every chunk, and once at the start where a checkpoint has one.

    **Returns:** `Trained`: the last substrate, the history, the best substrate.

    **Raises:** `DivergedError` when a metric or a leaf is no longer finite (says which, and at which step); the last
    checkpoint stays, and what was trained before that chunk is the error's `trained`. `ValueError`, before anything
    compiles, for what the rule refuses (`LearningRule.check`), a batch larger than the data, a score without watched
    data, a budget that does not cover one step, and a checkpoint of another configuration (says what differs). Where a
    device in the loop fails (`InTheLoop`), that error, too, carries `trained`.

        >>> import jax, optax
        >>> from morphax import Backpropagation, EchoStateNetwork, WithReadout, train
        >>> from morphax.tasks import waveforms
        >>> first, second = jax.random.split(jax.random.key(0))
        >>> network = WithReadout.random(EchoStateNetwork.random(50, key=first), outputs=1, key=second)
        >>> trained = train(network, Backpropagation(), waveforms(key=first), optax.adam(0.05), 100, key=second)
        >>> len(trained.history), trained.history[-1]["test"]["accuracy"] > 0.95
        (100, True)
    """
    check_key("key", key)
    check_count("steps", steps, 1)
    check_count("chunk", chunk, 1)
    if not isinstance(rule, LearningRule):
        raise ValueError(f"rule is a {type(rule).__name__}; it must be a LearningRule (gradient, metrics, check)")
    if isinstance(data, Task):
        rule, watch, data = rule.suited(data.kind), {"test": data.test} if watch is None else watch, data.train
    rule = rule.for_roles(*trained)
    watch = dict(watch or {})
    if score is not None and not watch:
        raise ValueError("score is given without watch; name the data that it judges")
    _check(rule, substrate, data, watch, trained, ensemble is not False)
    rows = len(jax.tree.leaves(data)[0])
    if examples is not None:
        check_count("examples", examples, 1, rows)
        if batch_size is None:
            raise ValueError(f"examples is {examples} without batch_size; a step takes all of the data then")
    if batch_size is not None:
        check_count("batch_size", batch_size, 1, rows if examples is None else examples)
    steps = _covered(rule, steps, budget, rows if batch_size is None else batch_size)
    warn_of_unassigned(substrate)

    weights, fixed = select(substrate, *trained)
    arrays = eqx.filter(rule, eqx.is_array)
    members = None
    if ensemble is not False:
        count = count_members((substrate, arrays))
        members = range(count) if ensemble is True else ensemble
        if len(members) != count or members.start < 0:
            raise ValueError(f"ensemble is {ensemble}; it must be the places of {count} members, from 0 on")
    rule.check_optimiser(optimiser, weights if members is None else member(weights, 0))
    step_keys = key if members is None else jax.vmap(partial(jax.random.fold_in, key))(jnp.asarray(members))
    kept = _memory(rule, substrate, step_keys, members is not None)
    state = _start(weights, optimiser, kept, None if members is None else len(members), score is not None)
    history: list[Row] = []
    if checkpoint is not None:
        asked = (substrate, rule, data, watch, key, batch_size, examples, members, trained, optimiser, state, score)
        _claim(checkpoint, _description(*asked))
        state, history = _resume(checkpoint, state)
        if history and on_chunk is not None:
            on_chunk(history)

    lengths: set[int] = set()
    count = None if examples is None else jnp.asarray(examples)
    while len(history) < steps:
        # The last chunk may be shorter; it compiles once more, and only when it is.
        length, first = min(chunk, steps - len(history)), len(history)
        shared = (data, watch, optimiser, score, batch_size, count, trained, jnp.asarray(first), length)
        run = partial(_chunk, shared)
        one = run if members is None else partial(map_members, run, compiled=length in lengths)
        lengths.add(length)
        try:
            with original_errors():
                done: _Chunk = jax.block_until_ready(one(state, fixed, rule, step_keys))
            rows = _rows(done, members is not None)
            _check_finite(rows, done, data, first, members)
        except Exception as error:
            error.trained = _trained(state, fixed, history)  # pyright: ignore[reportAttributeAccessIssue]
            raise
        state, history = done.state, history + rows
        if checkpoint is not None:
            _save(checkpoint, state, history)
        if on_chunk is not None:
            on_chunk(history)
    return _trained(state, fixed, history)


def adjustable(make: Callable[..., optax.GradientTransformation], **numbers: ArrayLike) -> optax.GradientTransformation:
    """The optimiser `make(**numbers)`, whose numbers may change without compiling anew.

    A learning rate inside an Optax optimiser is part of the compiled program. Here the numbers enter the program as
    arrays, so that the trials of a search or the points of a sweep share one compilation; `make` must be one and the
    same function for all of them, and take traced numbers.

        >>> import optax
        >>> from morphax.learning.train import adjustable
        >>> slow, fast = adjustable(optax.sgd, learning_rate=0.01), adjustable(optax.sgd, learning_rate=1.0)
        >>> fast.update({"x": 2.0}, fast.init({"x": 0.0}))[0]["x"].item()
        -2.0
    """
    arrays = {name: jnp.asarray(value, jnp.result_type(float)) for name, value in numbers.items()}
    return optax.GradientTransformation(eqx.Partial(_made_init, make, arrays), eqx.Partial(_made_update, make, arrays))


def _made_init(make: Callable[..., optax.GradientTransformation], numbers: dict[str, Array], weights: PyTree) -> PyTree:
    return make(**numbers).init(weights)


def _made_update(
    make: Callable[..., optax.GradientTransformation],
    numbers: dict[str, Array],
    gradient: PyTree,
    state: PyTree,
    weights: PyTree = None,
) -> tuple[PyTree, PyTree]:
    return make(**numbers).update(gradient, state, weights)


class _State(NamedTuple):
    weights: PyTree
    memory: PyTree  # of the optimiser
    remembered: PyTree  # by the rule
    best: PyTree
    best_score: Array | None


def _check(
    rule: LearningRule,
    substrate: PyTree,
    data: Data,
    watch: dict[str, Data],
    trained: tuple[Role, ...],
    ensemble: bool,
) -> None:
    """What the rule refuses, of the first member of an ensemble."""
    if ensemble:
        count_members(substrate)
        substrate, rule = member(substrate, 0), member(rule, 0)
    rule.check(substrate, data, trained)
    for name, judged in watch.items():
        try:
            rule.check(substrate, judged, trained)
        except ValueError as error:
            raise ValueError(f"watch[{name!r}]: {error}") from None


def _trained(state: _State, fixed: PyTree, history: list[Row]) -> Trained[Any]:
    last = eqx.combine(state.weights, fixed)
    return Trained(last, History(history), last if state.best_score is None else eqx.combine(state.best, fixed))


def _covered(rule: LearningRule, steps: int, budget: int | None, batch: int) -> int:
    """As many of the steps as a budget covers."""
    if budget is None:
        return steps
    check_count("budget", budget, 1)
    each = rule.cost(batch).presentations
    if each > budget:
        raise ValueError(
            f"budget is {budget}; a step of {type(rule).__name__} with {batch} examples presents {each}: give at least "
            "that, or a smaller batch_size"
        )
    return min(steps, budget // each) if each else steps


def _memory(rule: LearningRule, substrate: PyTree, key: PRNGKeyArray, ensemble: bool) -> PyTree:
    """What the rule remembers at the beginning."""

    def begun(rule: LearningRule, substrate: PyTree, key: PRNGKeyArray) -> PyTree:
        return rule.memory(substrate, key=jax.random.fold_in(key, MEMORY))

    return (eqx.filter_vmap(begun) if ensemble else begun)(rule, substrate, key)


def _start(
    weights: PyTree, optimiser: optax.GradientTransformation, kept: PyTree, members: int | None, scored: bool
) -> _State:
    memory = optimiser.init(weights) if members is None else eqx.filter_vmap(optimiser.init)(weights)
    if not scored:
        return _State(weights, memory, kept, None, None)
    return _State(weights, memory, kept, weights, jnp.full(() if members is None else members, -jnp.inf))


class _Chunk(NamedTuple):
    """What some steps gave: metrics of every step, of the watched data at the end, whether leaves were finite."""

    state: _State
    metrics: Metrics
    watched: dict[str, Metrics]
    finite: Array


@eqx.filter_jit
def _chunk(shared: tuple[Any, ...], state: _State, fixed: PyTree, rule: Any, key: PRNGKeyArray) -> _Chunk:
    """`length` steps from step `first` on, for one member."""
    data, watch, optimiser, score, batch_size, examples, trained, first, length = shared

    batches = None if batch_size is None else _Batches(data, batch_size, key, examples)

    def update(carry: tuple[_State, Array | None], step: Array) -> tuple[Any, tuple[Metrics, Array]]:
        state, order = carry
        model = eqx.combine(state.weights, fixed)
        (inputs, targets), order = (data, None) if batches is None else batches.at(step, order)
        examples = len(jax.tree.leaves(inputs)[0])
        metrics, gradient, *kept = rule.gradient(
            model, inputs, targets, key=jax.random.fold_in(key, step), **remembered(state.remembered)
        )
        metrics = rule.cost(examples).reported() | metrics
        gradient = select(eqx.filter(gradient, eqx.is_inexact_array), *trained)[0]
        changes, memory = optimiser.update(gradient, state.memory, state.weights)
        weights = eqx.apply_updates(state.weights, changes)
        finite = jnp.array([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(weights)])
        state = state._replace(weights=weights, memory=memory, remembered=kept[0] if kept else None)
        return (state, order), (metrics, finite)

    order = None if batches is None else batches.order(first)
    (state, _), (metrics, finite) = jax.lax.scan(update, (state, order), first + jnp.arange(length))
    model, watch_key = eqx.combine(state.weights, fixed), jax.random.fold_in(key, WATCH)
    watched = {
        name: rule.metrics(model, *values, key=jax.random.fold_in(watch_key, first + length))
        | rule.cost_of_metrics(len(jax.tree.leaves(values)[0])).reported()
        for name, values in watch.items()
    }
    if score is not None and state.best_score is not None:
        value = score(watched)
        better = value > state.best_score
        best = jax.tree.map(partial(jnp.where, better), state.weights, state.best)
        state = state._replace(best=best, best_score=jnp.where(better, value, state.best_score))
    return _Chunk(state, metrics, watched, finite)


class _Batches(NamedTuple):
    """Minibatches: every epoch in an order of its own, drawn when it begins."""

    data: Data
    size: int
    key: PRNGKeyArray
    examples: Array | None

    @property
    def whole(self) -> Array | int:
        """Whole batches in an epoch."""
        return (self._rows if self.examples is None else self.examples) // self.size

    @property
    def _rows(self) -> int:
        return jax.tree.leaves(self.data)[0].shape[0]

    def order(self, step: Array) -> Array:
        """Of the epoch to which a step belongs; what only fills up comes last."""
        key = jax.random.fold_in(jax.random.fold_in(self.key, SHUFFLE), step // self.whole)
        if self.examples is None:
            return jax.random.permutation(key, self._rows)
        drawn = jax.random.uniform(key, (self._rows,))
        return jnp.argsort(jnp.where(jnp.arange(self._rows) < self.examples, drawn, jnp.inf))

    def at(self, step: Array, order: Any) -> tuple[Data, Array]:
        """The batch of a step, and the order that holds for it."""
        place = step % self.whole
        order = jax.lax.cond(place == 0, lambda: self.order(step), lambda: order)
        chosen = jax.lax.dynamic_slice_in_dim(order, place * self.size, self.size)
        return jax.tree.map(lambda values: values[chosen], self.data), order


def _rows(done: _Chunk, ensemble: bool) -> list[Row]:
    """One dict a step; with an ensemble the steps are the second axis of the metrics."""
    columns = {
        name: np.moveaxis(np.asarray(values), int(ensemble), 0).tolist() for name, values in done.metrics.items()
    }
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    for name, values in done.watched.items():
        rows[-1][name] = {metric: np.asarray(value).tolist() for metric, value in values.items()}
    return rows


def _check_finite(rows: list[Row], done: _Chunk, data: Data, first: int, members: range | None) -> None:
    """Refuse to go on with NaN or infinity, naming what broke first."""
    flags = np.asarray(done.finite)[None] if members is None else np.asarray(done.finite)
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(done.state.weights)]
    # A leaf that breaks in a step spoils the metrics of the next.
    broken = [(step, 1, f"leaf {paths[leaf]}", who) for who, step, leaf in np.argwhere(~flags).tolist()] + [
        (step, 0, name, who)
        for step, row in enumerate(rows)
        for name, value in row.items()
        if not isinstance(value, dict)
        for who in np.unique(np.argwhere(~np.isfinite(np.atleast_1d(value)))[:, 0]).tolist()
    ]
    if broken:
        step, after, what, who = min(broken)
        where = "" if members is None else f" of member {members[who]}"
        when = f"{'after' if after else 'at'} step {first + step}"
        raise DivergedError(f"{what}{where} is not finite {when}; {_remedy(data, at_once=first + step == 0)}")


def _remedy(data: Data, at_once: bool) -> str:
    """What may help a training that diverged."""
    for name, tree in zip(("inputs", "targets"), data, strict=True):
        largest = max((float(jnp.max(jnp.abs(leaf))) for leaf in jax.tree.leaves(tree)), default=0.0)
        if largest > WILD:
            return f"{name} reach {largest:.3g} in magnitude: scale them to about 1"
    if at_once:  # whatever the learning rate
        return "the loss or its gradient overflows: use double precision (jax.enable_x64) or smaller inputs"
    return "lower the learning rate"


def _description(
    substrate: PyTree,
    rule: Any,
    data: Data,
    watch: dict[str, Data],
    key: PRNGKeyArray,
    batch_size: int | None,
    examples: int | None,
    members: range | None,
    trained: tuple[Role, ...],
    optimiser: optax.GradientTransformation,
    state: _State,
    score: Score | None,
) -> dict[str, Any]:
    """What a checkpoint must share with the training that resumes it."""
    return {
        "substrate": fingerprint(substrate),
        "rule": f"{type(rule).__qualname__} {fingerprint(rule)}",
        "data": fingerprint(data),
        "watch": fingerprint(watch),
        "key": fingerprint(key),
        "batch_size": batch_size,
        "examples": examples,
        "members": None if members is None else list(members),
        "trained": list(trained),
        "optimiser": _fingerprint(optimiser, state if members is None else member(state, 0)),
        "score": fingerprint(score),
    }


def _fingerprint(optimiser: optax.GradientTransformation, state: _State) -> str:
    """Of an optimiser: of the programs that make its memory and its changes."""
    memory, rest = eqx.partition(state.memory, eqx.is_array)

    def both(weights: PyTree, gradient: PyTree, memory: PyTree) -> PyTree:
        changes = optimiser.update(gradient, eqx.combine(memory, rest), weights)
        return eqx.filter((optimiser.init(weights), changes), eqx.is_array)

    return program_of(both, state.weights, state.weights, memory)


def _claim(folder: Path, description: dict[str, Any]) -> None:
    """Refuse the checkpoint of another training; sign a new folder."""
    path = folder / "training.json"
    try:
        found = read_sealed(path)
    except (FileNotFoundError, DamagedError) as error:
        if isinstance(error, DamagedError):  # and nobody knows of which training what lies beside it is
            warnings.warn(f"{error}; the training begins anew", stacklevel=3)
            for old in folder.glob("*-*.*"):
                old.unlink()
        write_sealed(path, description)
        return
    changed = [name for name, value in description.items() if found.get(name) != value]
    if changed:
        raise ValueError(
            f"checkpoint {str(folder)!r} holds a training with another {', '.join(changed)}; choose another folder, or "
            "remove it to start anew"
        )


def _save(folder: Path, state: _State, history: list[Row]) -> None:
    """State and history of the same step, in two files named by it; older ones go when the new are whole.

    The history is written last, with the digest of the state: it vouches for both.
    """
    step = len(history)
    path = folder / f"state-{step:09d}.eqx"
    write_atomically(path, lambda file: eqx.tree_serialise_leaves(file, state))
    write_sealed(_history_of(path), {"rows": history, "state": digest_of_file(path)})
    for old in folder.glob("*-*.*"):
        if old.stem.split("-")[1] != f"{step:09d}":
            old.unlink()


def _resume(folder: Path, state: _State) -> tuple[_State, list[Row]]:
    """The last whole checkpoint, or the start."""
    for saved in sorted(folder.glob("state-*.eqx"), reverse=True):
        try:
            kept = read_sealed(_history_of(saved))
        except FileNotFoundError:
            continue  # it was killed between the two files
        except DamagedError as error:
            warnings.warn(f"{error}; the training goes on from an earlier state", stacklevel=3)
            continue
        if digest_of_file(saved) == kept["state"]:
            return eqx.tree_deserialise_leaves(saved, state), kept["rows"]
        warnings.warn(f"{saved} is damaged; the training goes on from an earlier state", stacklevel=3)
    return state, []


def _history_of(saved: Path) -> Path:
    return saved.with_name(saved.name.replace("state", "history")).with_suffix(".json")
