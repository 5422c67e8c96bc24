"""What a rule minimises: a function of outputs and targets that gives metrics, among them the "loss"."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from morphax._checks import check_count, is_concrete
from morphax.learning.metrics import accuracy, nrmse
from morphax.learning.rule import Metrics
from morphax.quantum.correlation_map import correlations, squared_distance

Objective = Callable[[Array, Array], Metrics]
"""Where its attribute `mean_over_examples` is True, its loss is the mean of losses of single examples."""


SMALLEST = 1e-12  # probability below which a Kullback-Leibler divergence grows no steeper


@dataclass(frozen=True)
class Classification:
    """Mean cross-entropy with the right classes ("loss", in nats), "accuracy"; its one instance is `classification`.

    With several outputs it is that of their softmax with one-hot targets. One output is the logarithm of the odds of
    class 1, its target 1 or 0. Outputs and targets have the classes as last axis, (..., classes).
    """

    mean_over_examples: ClassVar[bool] = True

    def __call__(self, outputs: Float[Array, "... classes"], targets: Float[Array, "... classes"]) -> Metrics:
        if outputs.shape[-1] == 1:
            loss = optax.sigmoid_binary_cross_entropy(outputs, targets)
            return {"loss": jnp.mean(loss), "accuracy": accuracy(jax.nn.sigmoid(outputs), targets)}
        return {
            "loss": jnp.mean(optax.softmax_cross_entropy(outputs, targets)),
            "accuracy": accuracy(outputs, targets),
        }

    def check(self, targets: ArrayLike) -> None:
        """Refuse targets that are no probabilities of classes."""
        if not is_concrete(targets):
            return
        rows = np.asarray(targets)
        wrong = (rows < 0) | (rows > 1)
        if rows.shape[-1] > 1:
            wrong |= np.abs(np.sum(rows, axis=-1, keepdims=True) - 1) > 1e-4
        if wrong.any():
            where = tuple(int(i) for i in np.argwhere(wrong)[0])
            row = rows[where[:-1]]
            raise ValueError(
                f"targets[{', '.join(map(str, where[:-1]))}] is {np.array2string(row, threshold=6)}; classification "
                "takes one-hot rows, or one column of 0 and 1: use morphax.tasks.as_labels for phases, one_hot for "
                "numbers of classes, Backpropagation(regression) for values"
            )


@dataclass(frozen=True)
class Regression:
    """Mean squared error ("loss"), and "nrmse" (`morphax.learning.metrics`); its one instance is `regression`."""

    mean_over_examples: ClassVar[bool] = True

    def __call__(self, outputs: Float[Array, "..."], targets: Float[Array, "..."]) -> Metrics:
        return {"loss": jnp.mean((outputs - targets) ** 2), "nrmse": nrmse(outputs, targets)}

    def check(self, targets: ArrayLike) -> None:
        """Any number may be a target."""


classification = Classification()
regression = Regression()


@dataclass(frozen=True)
class DensityMatrixLoss:
    r"""Objective: how far the correlations of neurons are from those of a quantum state (Eqs. 18, 19, 32, 36).

    $$ l = |\rho - f(\chi)|_2^2, \qquad \chi_\mu = \overline{s^{(1)}_{\mu_1} \cdots s^{(Q)}_{\mu_Q}}, \qquad
       s = 2 z - 1 $$

    The mean is over time and over examples, which are independent chains of one network; a chain needs time to forget
    how it began. Outputs are activities z, shape (chains, inputs, activities), of 3Q neurons; targets are coefficients
    $\chi$, shape (chains, 4, ..., 4), the same for every chain.

    **Arguments:**

    - `burn_in`: time steps of every chain that do not count.

    Metrics: "loss", and the "coefficients" $\chi$.
    """

    burn_in: int = 0

    def __call__(
        self, outputs: Float[Array, "chains inputs activities"], targets: Float[Array, "chains ..."]
    ) -> Metrics:
        spins = 2 * activities(outputs, 3 * (targets.ndim - 1), self.burn_in) - 1
        chi = correlations(spins)
        return {"loss": squared_distance(chi, targets[0]), "coefficients": chi}


@dataclass(frozen=True)
class CategoricalLoss:
    r"""Objective: how far the states of neurons are from a distribution (Eqs. B1, B2).

    $$ KL(p_s | p_t) = \sum_z p_s(z) \ln \frac{p_s(z)}{p_t(z)} $$

    $p_s(z)$ is the share of time, over all examples, in which the activities of n neurons are z; the first neuron is
    the most significant binary digit. Targets are $p_t > 0$, shape (chains, 2^n), the same for every chain.

    **Arguments:**

    - `neurons`: n.
    - `burn_in`: time steps of every chain that do not count.

    Metrics: "loss" in nats, and the sampled "distribution".
    """

    neurons: int
    burn_in: int = 0

    def __call__(
        self, outputs: Float[Array, "chains inputs activities"], targets: Float[Array, "chains states"]
    ) -> Metrics:
        z = activities(outputs, self.neurons, self.burn_in)
        share = jnp.full((z.shape[0], 1), 1 / z.shape[0], z.dtype)
        for neuron in range(self.neurons):
            both = jnp.stack([1 - z[:, neuron], z[:, neuron]], axis=-1)
            share = (share[:, :, None] * both[:, None, :]).reshape(z.shape[0], -1)
        sampled = jnp.sum(share, axis=0)
        loss = jnp.sum(sampled * (jnp.log(sampled + SMALLEST) - jnp.log(targets[0])))
        return {"loss": loss, "distribution": sampled}


def activities(outputs: Float[Array, "chains inputs activities"], neurons: int, burn_in: int) -> Float[Array, "..."]:
    """Of all chains after their burn-in, one time step a row, shape (time, neurons).

    **Raises:** `ValueError` where nothing is left, or the activities are those of another number of neurons.
    """
    check_count("burn_in", burn_in, 0)
    chains, inputs, number = outputs.shape
    if number % neurons:
        raise ValueError(
            f"outputs has {number} activities an input; {neurons} neurons are measured, in every time step"
        )
    steps = inputs * (number // neurons)
    if burn_in >= steps:
        raise ValueError(f"burn_in is {burn_in}; a chain has {steps} time steps")
    return outputs.reshape(chains, steps, neurons)[:, burn_in:].reshape(-1, neurons)
