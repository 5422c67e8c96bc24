r"""Designing a reservoir by gradient: material parameters that make the best linear readout better.

The readout needs no gradient of its own. For features $F$ (time, neurons) that are estimated from $N$ multinomial
shots, the expected squared error of weights $w$ (and a constant) is

$$L(w) = \tfrac1T \lVert F w + b - y \rVert^2 + w^T \Sigma w, \qquad
  \Sigma = \tfrac1N \left(\mathrm{diag}(\bar p) - \tfrac1T F^T F\right),$$

whose minimum over $w$ and $b$ is a closed form, smooth in the parameters of the substrate.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from morphax.learning.readout import Features, Targets
from morphax.learning.rule import LearningRule, Metrics
from morphax.substrates.base import evolve


def readout_error(
    features: Features, targets: Targets, shots: Float[Array, ""] | float, *, independent: bool = False
) -> Float[Array, ""]:
    r"""$\min_{w, b} L$: the least expected squared error of a linear readout of populations from finite shots.

    **Arguments:**

    - `features`: exact populations, (time, neurons).
    - `targets`: (time, outputs).
    - `shots`: repetitions $N > 0$ behind every reading.
    - `independent`: whether readings are estimated one by one, each from N binary answers (classical neurons that
      answer with a probability), instead of all from the same N shots: $\Sigma$ is then its diagonal.

    **Returns:** the error summed over outputs; between 0 and the targets' variance.
    """
    mean, level = features.mean(axis=0), targets.mean(axis=0)
    moments = features.T @ features / len(features)
    together = jnp.diag(jnp.diag(moments)) if independent else moments
    covariance = (jnp.diag(mean) - together) / shots
    centred = moments - jnp.outer(mean, mean)
    cross = (features - mean).T @ (targets - level) / len(features)
    explained = jnp.sum(cross * jnp.linalg.solve(centred + covariance, cross))
    return jnp.sum(jnp.var(targets, axis=0)) - explained


class ReadoutDesign(LearningRule):
    r"""Learning rule: gradient of `readout_error` through the dynamics, for a stack of designs at once.

    $$E = \mathrm{tr} \, \mathrm{Var}(y) - \mathrm{tr} \, c^T (C + \Sigma / N)^{-1} c, \qquad
      c = \mathrm{Cov}(p, y), \quad C = \mathrm{Cov}(p), \quad
      \Sigma = \langle \mathrm{diag}(p) - p p^T \rangle$$

    is the least squared error of a linear readout of populations $p$ that $N$ shots estimate, of targets $y$.

    A design is any pytree with a method `substrate()`; the stack's leading axis counts independent designs. Since the
    summed error has independent gradients, an element-wise optimiser trains them as if each were alone. Metrics:
    "loss", the error of every design. `independent` is that of `readout_error`.

    Source: ours; covariances of multinomial counts. Used by the experiments josephson/design and rules/design.

        >>> import equinox as eqx, jax, jax.numpy as jnp
        >>> from morphax import JosephsonMixer, Substrate
        >>> from morphax.learning.design import ReadoutDesign
        >>> class Drive(eqx.Module):
        ...     drive: jax.Array
        ...     def substrate(self):
        ...         return JosephsonMixer.two_mode(drive_amplitude=self.drive, measured=4)
        >>> designs, inputs = Drive(jnp.array([1.0, 2.0])), jnp.sin(jnp.arange(40.0))
        >>> metrics, gradient = ReadoutDesign(shots=1000.0).gradient(
        ...     designs, inputs, inputs[:, None] ** 2, key=jax.random.key(0)
        ... )
        >>> metrics["loss"].shape, gradient.drive.shape
        ((2,), (2,))
    """

    shots: Float[Array, ""] | float
    washout: int = eqx.field(static=True, default=0)
    independent: bool = eqx.field(static=True, default=False)

    def needs(self) -> str:
        """A stack of designs."""
        return "a stack of designs, each with a method substrate()"

    def fits(self, substrate: Any) -> bool:
        """Whatever makes a substrate."""
        return callable(getattr(substrate, "substrate", None))

    def check_data(self, substrate: Any, inputs: Array, targets: Array) -> None:
        """Refuse anything but one stream."""
        if targets.ndim != 2:
            raise ValueError(
                f"targets has shape {targets.shape}; a design is judged on one stream, (time, outputs): use "
                "(task.train_inputs, task.train_targets)"
            )

    def metrics(self, substrate: PyTree, inputs: Array, targets: Targets, *, key: PRNGKeyArray) -> Metrics:
        """The error of every design."""
        return {"loss": self._errors(substrate, inputs, targets)}

    def gradient(
        self, substrate: PyTree, inputs: Array, targets: Targets, *, key: PRNGKeyArray
    ) -> tuple[Metrics, PyTree]:
        """The error of every design, and the derivatives."""

        def total(designs: PyTree) -> tuple[Array, Array]:
            errors = self._errors(designs, inputs, targets)
            return jnp.sum(errors), errors

        gradient, errors = eqx.filter_grad(total, has_aux=True)(substrate)
        return {"loss": errors} | self.cost(len(inputs)).reported(), gradient

    def _errors(self, designs: PyTree, inputs: Array, targets: Targets) -> Float[Array, " designs"]:
        def one(design: PyTree) -> Array:
            features, _ = evolve(design.substrate(), inputs)
            kept = features[self.washout :], targets[self.washout :]
            return readout_error(*kept, self.shots, independent=self.independent)

        return jax.vmap(one)(designs)
