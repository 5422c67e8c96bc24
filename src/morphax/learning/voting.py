"""What a random substrate answers when it is asked several times."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from morphax._checks import check_count, check_finite, check_shape
from morphax.learning.train import LearningRule, Metrics
from morphax.substrates.base import Substrate, evolve


class MajorityVote(eqx.Module):
    """Learning rule: another rule, whose answers are judged by the most frequent class of several shots.

    Gradients are those of the rule, from one shot. Watched data are judged with `shots` shots an example: "accuracy".

    **Arguments:**

    - `rule`: gives the gradient.
    - `shots`: >= 1. Classes that are equally frequent are decided for the lowest one, so that 2 shots are no better
      than 1.
    - `at_once`: examples whose shots are computed at once; many more do not fit into a cache.
    """

    rule: LearningRule
    shots: int = eqx.field(static=True, default=15)
    at_once: int = eqx.field(static=True, default=50)

    def __check_init__(self) -> None:
        check_count("shots", self.shots, 1)
        check_count("at_once", self.at_once, 1)

    def gradient(
        self, substrate: Substrate, inputs: Array, targets: Array, *, key: PRNGKeyArray
    ) -> tuple[Metrics, Any]:
        """That of the rule."""
        return self.rule.gradient(substrate, inputs, targets, key=key)

    def metrics(
        self,
        substrate: Substrate,
        inputs: Float[Array, "examples time ..."],
        targets: Float[Array, "examples classes"],
        *,
        key: PRNGKeyArray,
    ) -> Metrics:
        """The accuracy of the majority.

        **Raises:** as `vote`, and `ValueError` for targets of another shape than the votes.
        """
        votes = vote(substrate, inputs, self.shots, key=key, at_once=self.at_once)
        check_shape("targets", targets, votes.shape)
        right = jnp.argmax(votes, axis=-1) == jnp.argmax(targets, axis=-1)
        return {"accuracy": jnp.mean(right.astype(targets.dtype))}


def vote(
    substrate: Substrate,
    inputs: Float[Array, "examples time ..."],
    shots: int,
    *,
    key: PRNGKeyArray,
    at_once: int = 50,
) -> Float[Array, "examples classes"]:
    """How often each class is the answer (the largest output after the last input) in `shots` shots of each example.

    What does not depend on chance - the first layer of a perceptron - is computed once for all shots.

    **Raises:** `ValueError` for fewer than 1 shot or example, or at once, and for inputs that are not finite.
    """
    check_count("shots", shots, 1)
    check_count("at_once", at_once, 1)
    check_count("number of examples in inputs", len(inputs), 1)
    check_finite("inputs", inputs)

    def one(example: tuple[Array, PRNGKeyArray]) -> Array:
        drives, example_key = example
        outputs = jax.vmap(lambda k: evolve(substrate, drives, key=k, observe="last")[0])(
            jax.random.split(example_key, shots)
        )
        return jnp.sum(jax.nn.one_hot(jnp.argmax(outputs, axis=-1), outputs.shape[-1], dtype=outputs.dtype), axis=0)

    examples = (inputs, jax.random.split(key, len(inputs)))
    return jax.lax.map(one, examples, batch_size=min(at_once, len(inputs)))
