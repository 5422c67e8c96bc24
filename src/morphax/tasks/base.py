"""What a task is: inputs and what should be answered to each."""

from typing import Literal

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from morphax._checks import check_count


class Task(eqx.Module):
    """Inputs and targets for training and for testing: one long stream, or many examples.

    `arrangement="stream"`: the first axis is time. The substrate sees the training inputs and then, without
    interruption, the test inputs. The first `washout` training points drive the substrate but enter no fit and no
    score; of the test points none is discarded.

    `arrangement="examples"`: the first axis counts examples, each of which is a sequence (or one input) of its own,
    to which the substrate starts afresh.

    A function that makes a task takes a random `key`, so an ensemble of tasks is `jax.vmap(make)(keys)`.

        >>> import jax
        >>> from morphax.tasks import waveforms
        >>> task = waveforms(train_points=80, test_points=40, key=jax.random.key(0))
        >>> task.train_inputs.shape, task.train_targets.shape, task.kind
        ((80,), (80, 1), 'classification')
    """

    train_inputs: Float[Array, "train ..."]
    train_targets: Float[Array, "train outputs"]
    test_inputs: Float[Array, "test ..."]
    test_targets: Float[Array, "test outputs"]
    kind: Literal["classification", "regression"] = eqx.field(static=True)
    arrangement: Literal["stream", "examples"] = eqx.field(static=True, default="stream")
    washout: int = eqx.field(static=True, default=0)
    reference: str = eqx.field(static=True, default="")


def one_hot(labels: ArrayLike, classes: int) -> Float[Array, "examples classes"]:
    """Labels 0 to `classes` - 1 as rows with a 1 at the label and else 0.

    **Raises:** `ValueError` for a label that is no class, saying where.

        >>> from morphax.tasks.base import one_hot
        >>> one_hot([2, 0], 3).tolist()
        [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
    """
    check_count("classes", classes, 1)
    numbers = np.asarray(labels)
    wrong = np.argwhere((numbers < 0) | (numbers >= classes) | (numbers != np.floor(numbers)))
    if numbers.ndim != 1 or len(wrong):
        what = f"has shape {numbers.shape}" if numbers.ndim != 1 else f"[{wrong[0, 0]}] is {numbers[wrong[0, 0]]}"
        raise ValueError(f"labels{'' if numbers.ndim == 1 else ' '}{what}; labels are whole numbers 0 to {classes - 1}")
    return jnp.asarray(np.eye(classes)[numbers.astype(int)], jnp.result_type(float))
