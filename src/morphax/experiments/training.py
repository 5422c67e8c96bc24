"""Training inside an experiment: resumed with its run, written to the run's history, its numbers as arrays."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple, TypeVar

import equinox as eqx
import jax
import optax
from jaxtyping import PRNGKeyArray, PyTree

from morphax.lab.progress import Progress
from morphax.learning.rule import Data, LearningRule, Metrics
from morphax.learning.train import Score, Trained, train

Networks = TypeVar("Networks", bound=PyTree)


class Trainer(NamedTuple):
    """Trains ensembles inside a run: all with one key, resumed with the run, written to its `history.jsonl`.

    **Arguments:**

    - `key`: for `morphax.learning.train.train`.
    - `progress`: of the run.
    """

    key: PRNGKeyArray
    progress: Progress

    def train(
        self,
        label: str,
        networks: Networks,
        rule: LearningRule,
        data: Data,
        *,
        optimiser: optax.GradientTransformation,
        steps: int,
        batch_size: int | None = None,
        watch: dict[str, Data] | None = None,
        score: Score | None = None,
        ensemble: bool | range = True,
        every: int = 50,
    ) -> Trained[Networks]:
        """Train a stack of networks (or one, without `ensemble`) with `morphax.learning.train.train`.

        `history.jsonl` gets the steps at which data were watched, or all steps where none are.

        **Arguments:** those of `train`, but for

        - `label`: in `history.jsonl`; no two trainings of a run have the same.
        - `batch_size`: all of `data` where they are fewer.
        - `every`: steps between two looks at the watched data.
        """

        def record(rows: Sequence[dict[str, Any]]) -> None:
            numbered = [{"step": step, **row} for step, row in enumerate(rows)]
            self.progress.record(label, [row for row in numbered if not watch or watch.keys() <= row.keys()])

        return train(
            networks,
            rule,
            data,
            optimiser,
            steps,
            key=self.key,
            batch_size=None if batch_size is None else min(batch_size, len(jax.tree.leaves(data)[0])),
            watch=watch,
            score=score,
            ensemble=ensemble,
            chunk=every,
            checkpoint=self.progress.checkpoint(label),
            on_chunk=record,
        )


@eqx.filter_jit
def judged(rule: Any, data: Data, network: PyTree, key: PRNGKeyArray) -> Metrics:
    """What a rule says of one network on some data."""
    return rule.metrics(network, *data, key=key)


@cache
def falling_adam(steps: int) -> Callable[..., optax.GradientTransformation]:
    """Adam with a cosine, given the first learning rate; cached, so that trainings share it and compile once."""
    shape = optax.cosine_decay_schedule(1.0, steps)

    def make(learning_rate: Any) -> optax.GradientTransformation:
        return optax.adam(lambda count: learning_rate * shape(count))

    return make
