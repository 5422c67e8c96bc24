"""Handwritten digits of 8 x 8 pixels: pixel by pixel as a sequence, or all at once as phases."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from morphax._checks import check_count, check_key, check_range
from morphax.tasks.base import Task, one_hot
from morphax.tasks.idx import SHIPPED, read_shipped


def sequential_digits(train_fraction: float = 0.5, *, key: PRNGKeyArray) -> Task:
    """The 1,797 digits of 8 x 8 pixels, scanned row by row, in a random split.

    **Arguments:**

    - `train_fraction`: part of the images to train with, in ]0, 1[.
    - `key`: draws the split. (First and second half of the set were written by different people, and a split there
      costs 9 points of accuracy.)

    **Returns:** a `Task` of examples: inputs (images, 64) with values from 0 to 16, targets (images, 10), one-hot.

    **Raises:** `ValueError` for a fraction out of range.

    Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository
    (1998), the test set; sequential as in Plouet et al., Phys. Rev. Applied 23, 034051 (2025), Sec. III.

        >>> import jax
        >>> from morphax.tasks import sequential_digits
        >>> task = sequential_digits(key=jax.random.key(0))
        >>> task.train_inputs.shape, task.test_targets.shape
        ((898, 64), (899, 10))
    """
    check_key("key", key)
    check_range("train_fraction", train_fraction, low=0.0, high=1.0, open_low=True)
    images, labels = _digits()
    train = int(train_fraction * len(images))
    if train == len(images):
        raise ValueError(f"train_fraction is {train_fraction:g}; it must leave images to test with")
    order = jax.random.permutation(key, len(images))
    inputs = jnp.asarray(images, jnp.result_type(float))[order]
    targets = one_hot(np.asarray(labels), 10)[order]
    return Task(
        inputs[:train],
        targets[:train],
        inputs[train:],
        targets[train:],
        kind="classification",
        arrangement="sequences",
        reference="Plouet et al., Phys. Rev. Applied 23, 034051 (2025), Sec. III",
    )


def digits_digests() -> dict[str, str]:
    """The SHA-256 of the files with the digits, by their names; each is checked when it is read."""
    return {name: digest for name, digest in SHIPPED.items() if name.startswith("digits-")}


def phase_digits(train_per_class: int = 100, test_per_class: int = 70) -> Task:
    r"""The digits with all pixels at once: grey levels as phases from $-\pi/2$ to $\pi/2$, one-hot classes likewise.

    **Arguments:**

    - `train_per_class`: images of each digit to train with, the first ones of the set.
    - `test_per_class`: images of each digit to test with, the next ones; at most 174 together.

    **Returns:** a `Task` of examples: inputs (images, 64), targets (images, 10), $\pi/2$ for the right class.

    **Raises:** `ValueError` for more images than there are.

    Source: as `sequential_digits`; Wang, Wanjura & Marquardt (2024), Sec. III B.

        >>> from morphax.tasks import phase_digits
        >>> phase_digits().train_inputs.shape, phase_digits().test_targets.shape
        ((1000, 64), (700, 10))
    """
    images, labels = _digits()
    fewest = int(np.bincount(labels).min())
    check_count("train_per_class", train_per_class, 1, fewest - 1)
    check_count("test_per_class", test_per_class, 1, fewest - train_per_class)
    places = [np.flatnonzero(labels == digit) for digit in range(10)]
    train = np.sort(np.concatenate([p[:train_per_class] for p in places]))
    test = np.sort(np.concatenate([p[train_per_class : train_per_class + test_per_class] for p in places]))
    phases = jnp.asarray((images / 16 - 0.5) * np.pi, jnp.result_type(float))
    targets = jnp.asarray((np.eye(10)[labels] - 0.5) * np.pi, jnp.result_type(float))
    return Task(
        phases[train],
        targets[train],
        phases[test],
        targets[test],
        kind="classification",
        arrangement="inputs",
        reference="Wang, Wanjura & Marquardt (2024), Sec. III B",
    )


def _digits() -> tuple[Float[np.ndarray, "1797 64"], Int[np.ndarray, " 1797"]]:
    """Pixels from 0 to 16, and which digit it is."""
    images, labels = (read_shipped(f"digits-{kind}") for kind in ("images-idx3-ubyte", "labels-idx1-ubyte"))
    return images.reshape(len(images), -1).astype(float), labels.astype(int)


class HeldOut(NamedTuple):
    """Training examples, and others that were held out to validate with: (inputs, targets) each."""

    train: tuple[Float[Array, "train ..."], Float[Array, "train ..."]]
    validation: tuple[Float[Array, "validation ..."], Float[Array, "validation ..."]]


def hold_out(
    inputs: Float[Array, "examples ..."], targets: Float[Array, "examples ..."], fraction: float, *, key: PRNGKeyArray
) -> HeldOut:
    """Hold a random `fraction` (in ]0, 1[) of the examples out of a training, to choose settings and weights by."""
    check_key("key", key)
    check_range("fraction", fraction, low=0.0, high=1.0, open_low=True)
    held = round(fraction * len(inputs))
    if not 0 < held < len(inputs):
        raise ValueError(f"fraction is {fraction:g} of {len(inputs)} examples; it must hold out some and leave some")
    order = jax.random.permutation(key, len(inputs))
    kept, validation = order[held:], order[:held]
    return HeldOut((inputs[kept], targets[kept]), (inputs[validation], targets[validation]))
