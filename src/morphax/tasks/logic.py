"""Logic functions as tasks for systems that answer with phases."""

import jax.numpy as jnp

from morphax.tasks.base import Task


def xor() -> Task:
    r"""Exclusive or in phases: true is $\pi/2$, false is $-\pi/2$.

    **Returns:** a `Task` of examples: inputs (4, 2), targets (4, 1); the four examples are there to train and to test.

    Source: Wang, Wanjura & Marquardt, "Training coupled phase oscillators as a neuromorphic platform using equilibrium
    propagation" (2024), Sec. III A.

        >>> from morphax.tasks import xor
        >>> (xor().train_targets[:, 0] > 0).tolist()          # of 00, 01, 10, 11
        [False, True, True, False]
    """
    inputs = jnp.array([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]]) * jnp.pi / 2
    targets = jnp.array([[-1.0], [1.0], [1.0], [-1.0]]) * jnp.pi / 2
    return Task(
        inputs,
        targets,
        inputs,
        targets,
        kind="classification",
        arrangement="inputs",
        reference="Wang, Wanjura & Marquardt (2024), Sec. III A",
    )
