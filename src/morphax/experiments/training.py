"""Training inside an experiment: resumed with its run, written to the run's history, its numbers as arrays."""

from typing import Any, Generic, NamedTuple, TypeVar

import equinox as eqx
import optax
from jaxtyping import PRNGKeyArray, PyTree

from morphax.lab.progress import Progress
from morphax.learning.history import History
from morphax.learning.rule import LearningRule, Metrics
from morphax.learning.train import Data, Score, train

Networks = TypeVar("Networks", bound=PyTree)


class Trained(NamedTuple, Generic[Networks]):
    """The networks after the last step, what the training noted, and the networks with the highest score."""

    last: Networks
    history: History
    best: Networks


def train_ensemble(
    networks: Networks,
    rule: LearningRule,
    data: Data,
    optimiser: optax.GradientTransformation,
    steps: int,
    *,
    key: PRNGKeyArray,
    progress: Progress,
    label: str,
    batch_size: int | None = None,
    watch: dict[str, Data] | None = None,
    score: Score | None = None,
    ensemble: bool = True,
    every: int = 50,
) -> Trained[Networks]:
    """Train a stack of networks (or one, without `ensemble`) with `morphax.learning.train.train`.

    A run that is interrupted goes on inside this training. `history.jsonl` gets the steps at which something was
    watched, or all steps where nothing is.

    **Arguments:** those of `train`, but for

    - `progress`, `label`: of the run; no two trainings of a run have the same label.
    - `batch_size`: all of `data` where they are fewer.
    - `every`: steps between two looks at the watched data.
    """

    def record(rows: list[dict[str, Any]]) -> None:
        numbered = [{"step": step, **row} for step, row in enumerate(rows)]
        progress.record(label, [row for row in numbered if not watch or watch.keys() <= row.keys()])

    done = train(
        networks,
        rule,
        data,
        optimiser,
        steps,
        key=key,
        batch_size=None if batch_size is None else min(batch_size, len(data[0])),
        watch=watch,
        score=score,
        ensemble=ensemble,
        chunk=every,
        checkpoint=progress.checkpoint(label),
        on_chunk=record,
    )
    return Trained(done.last, History(done.history), done.best)


@eqx.filter_jit
def judged(rule: Any, data: Data, network: PyTree, key: PRNGKeyArray) -> Metrics:
    """What a rule says of one network on some data."""
    return rule.metrics(network, *data, key=key)
