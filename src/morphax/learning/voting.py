"""What a random substrate answers when it is asked several times."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from morphax._checks import check_count, check_finite, check_shape
from morphax.learning.equilibrium import PHASE_COSTS, EquilibriumRule
from morphax.learning.rule import Asked, Metrics, WrappedRule
from morphax.substrates.base import Substrate, evolve, presented
from morphax.substrates.energy import EnergySubstrate


class MajorityVote(WrappedRule):
    r"""Learning rule: another rule, whose answers are judged by the most frequent class of several shots.

    $$\hat y = \mathrm{argmax}_c \sum_{n=1}^{N} [c = \mathrm{argmax}_k f_k^{(n)}]$$

    Gradients are those of the rule, from one shot. Watched data are judged with `shots` shots an example: "loss", the
    share of wrong answers, and "accuracy".

    **Arguments:**

    - `rule`: gives the gradient.
    - `shots`: >= 1. Classes that are equally frequent are decided for the lowest one, so that 2 shots are no better
      than 1.
    - `block`: examples whose shots are computed together; many more do not fit into a cache.

    Source: Barney et al. (2025), Fig. 4, and the text before it.

        >>> import jax, jax.numpy as jnp
        >>> from morphax import Backpropagation, MajorityVote, QuantizedPerceptron
        >>> network = QuantizedPerceptron.random((4, 8, 8, 2), width=0.3, key=jax.random.key(0))
        >>> data = jax.random.normal(jax.random.key(1), (6, 1, 4)), jnp.eye(2)[jnp.arange(6) % 2]
        >>> rule = MajorityVote(Backpropagation(), shots=5)
        >>> sorted(rule.metrics(network, *data, key=jax.random.key(2))), rule.cost_of_metrics(6).presentations
        (['accuracy', 'loss'], 30)
    """

    shots: int = eqx.field(static=True, default=15)
    block: int = eqx.field(static=True, default=50)

    def __check_init__(self) -> None:
        check_count("shots", self.shots, 1)
        check_count("block", self.block, 1)

    def cost_of_metrics(self, examples: int) -> Asked:
        """All shots of every example."""
        return Asked(self.shots * examples, 1)

    def check_data(self, substrate: Any, inputs: Any, targets: Any) -> None:
        """Refuse targets that are not one of several classes at the end of each example."""
        if targets.ndim != 2 or targets.shape[1] < 2:
            raise ValueError(
                f"targets has shape {targets.shape}; a vote decides between 2 classes or more after the last input, so "
                "it must be (examples, classes): use morphax.tasks.windows for a stream, one_hot for labels"
            )
        rule = self.rule
        while isinstance(rule, WrappedRule):
            rule = rule.rule
        if (
            isinstance(rule, EquilibriumRule)
            and isinstance(substrate, EnergySubstrate)
            and (rule.compared(substrate) in PHASE_COSTS)
        ):
            raise ValueError(
                f"rule is {type(rule).__name__} with a cost of phases, but a vote is cast for the largest output, and "
                f"of phases that is not the most probable class; put WithReadout.random(substrate, "
                f"outputs={targets.shape[1]}, key=key) around it"
            )

    def metrics(
        self,
        substrate: Substrate,
        inputs: Float[Array, "examples time ..."],
        targets: Float[Array, "examples classes"],
        *,
        key: PRNGKeyArray,
    ) -> Metrics:
        """Share of wrong answers and accuracy of the majority.

        **Raises:** as `vote`, and `ValueError` for targets of another shape than the votes.
        """
        votes = vote(substrate, inputs, self.shots, key=key, block=self.block)
        check_shape("targets", targets, votes.shape)
        right = jnp.argmax(votes, axis=-1) == jnp.argmax(targets, axis=-1)
        accuracy = jnp.mean(right.astype(targets.dtype))
        return {"loss": 1 - accuracy, "accuracy": accuracy}


def vote(
    substrate: Substrate,
    inputs: Float[Array, "examples time ..."],
    shots: int,
    *,
    key: PRNGKeyArray,
    block: int = 50,
) -> Float[Array, "examples classes"]:
    """How often each class is the answer (the largest output after the last input) in `shots` shots of each example.

    What does not depend on chance - the first layer of a perceptron - is computed once for all shots.

    **Raises:** `ValueError` for fewer than 1 shot, example, or example in a block, and for inputs that are not finite.
    """
    check_count("shots", shots, 1)
    check_count("block", block, 1)
    check_count("number of examples in inputs", len(inputs), 1)
    check_finite("inputs", inputs)
    inputs = presented(substrate, inputs)

    def one(example: tuple[Array, PRNGKeyArray]) -> Array:
        drives, example_key = example
        outputs = jax.vmap(lambda k: evolve(substrate, drives, key=k, observe="last")[0])(
            jax.random.split(example_key, shots)
        )
        return jnp.sum(jax.nn.one_hot(jnp.argmax(outputs, axis=-1), outputs.shape[-1], dtype=outputs.dtype), axis=0)

    examples = (inputs, jax.random.split(key, len(inputs)))
    return jax.lax.map(one, examples, batch_size=min(block, len(inputs)))
