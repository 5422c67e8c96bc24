"""Asking a trained substrate."""

from typing import Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from morphax._checks import check_choice, check_finite
from morphax.learning.backprop import Backpropagation
from morphax.substrates.base import Substrate
from morphax.tasks.base import ARRANGEMENTS, Arrangement, Task


def predict(
    substrate: Substrate,
    inputs: Task | Float[Array | np.ndarray, "..."],
    *,
    arrangement: Arrangement | None = None,
    observe: Literal["every", "last"] | None = None,
    key: PRNGKeyArray | None = None,
) -> Float[Array, "..."]:
    """What a substrate answers, whatever the arrangement of the inputs.

    **Arguments:**

    - `substrate`: trained or not.
    - `inputs`: a task, whose test part is answered in the shape of its targets; or an array, arranged as a "stream",
      (time,) or (time, channels), as "sequences", (examples, time) or (examples, time, channels), or as "inputs",
      (examples, channels).
    - `arrangement`: of an array. None: one axis is a stream; two are sequences where the substrate takes one channel,
      and else vectors; three are sequences.
    - `observe`: whether the answer is the observation after "every" input or the "last"; by default every one of a
      stream, the last one of each sequence.
    - `key`: needed by a substrate that is random.

    **Returns:** (time, outputs) of a stream; of examples (examples, outputs), or (examples, time, outputs).

    **Raises:** `ValueError` for other channels than the substrate takes, NaN or infinity, and where a key is missing.

        >>> import jax, jax.numpy as jnp
        >>> from morphax import JosephsonMixer, WithReadout, predict
        >>> reader = WithReadout.random(JosephsonMixer.two_mode(measured=9), outputs=2, key=jax.random.key(0))
        >>> predict(reader, jnp.ones(5)).shape, predict(reader, jnp.ones((3, 5))).shape
        ((5, 2), (3, 2))
    """
    if isinstance(inputs, Task):
        drives, targets = inputs.test
        outputs = Backpropagation().answers(substrate, drives, targets, key=key)
        return outputs[0] if inputs.arrangement == "stream" else outputs
    inputs = jnp.asarray(inputs)
    check_finite("inputs", inputs)
    if arrangement is None:
        arrangement = "stream" if inputs.ndim == 1 else "sequences"
    check_choice("arrangement", arrangement, ARRANGEMENTS)
    if arrangement == "stream":
        stream = inputs[:, None] if inputs.ndim == 1 else inputs
        return Backpropagation(observe=observe or "every").outputs(substrate, stream[None], key=key)[0]
    examples = inputs[:, None] if arrangement == "inputs" else inputs
    return Backpropagation(observe=observe).outputs(substrate, examples, key=key)
