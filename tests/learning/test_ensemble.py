"""Many members at once give the numbers of each alone."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from morphax import LearningRule
from morphax.learning.ensemble import count_members, make_members, map_members, member
from morphax.learning.train import DivergedError, train
from morphax.pytrees import WEIGHT


class Line(eqx.Module):
    slope: jax.Array = eqx.field(metadata=WEIGHT)
    name: str = eqx.field(static=True, default="line")


class NoisyLeastSquares(LearningRule):
    """Uses its key, and a constant of its own."""

    noise: jax.Array

    def metrics(self, substrate, inputs, targets, *, key):
        noise = self.noise * jax.random.normal(key, inputs.shape)
        return {"loss": jnp.mean((substrate.slope * inputs + noise - targets) ** 2)}

    def gradient(self, substrate, inputs, targets, *, key):
        def loss(line):
            return self.metrics(line, inputs, targets, key=key)["loss"]

        value, gradient = eqx.filter_value_and_grad(loss)(substrate)
        return {"loss": value}, gradient


@pytest.mark.parametrize("precise", [False, True])
def test_members_are_computed_as_if_alone(precise):
    rng = np.random.default_rng(0)

    @eqx.filter_jit
    def chaos(start, parts, key):
        def step(x, _):
            x = jnp.sin(3 * parts["matrix"] @ x) + 1 / jnp.arange(3.0, 9.0)
            return x, x[0]

        end, path = jax.lax.scan(step, start, None, length=200)
        return {"end": end + jax.random.normal(key, (6,)), "path": path, "third": jnp.asarray(1.0) / 3}

    with jax.enable_x64(precise):
        starts, matrices = jnp.asarray(rng.normal(size=(5, 6))), jnp.asarray(rng.normal(size=(5, 6, 6)))
        stacks = (starts, {"matrix": matrices, "name": "any"}, jax.random.split(jax.random.key(0), 5))
        results = [map_members(chaos, *stacks, compiled=compiled) for compiled in (False, True)]
        alone = [chaos(starts[i], {"matrix": matrices[i], "name": "any"}, stacks[2][i]) for i in range(5)]
    for result in results:
        for name, values in result.items():
            assert values.dtype == (jnp.float64 if precise else jnp.float32)
            np.testing.assert_array_equal(values, np.stack([one[name] for one in alone]))


def test_making_and_taking_apart():
    stack = make_members(lambda key: Line(jax.random.normal(key, (2,))), jax.random.key(1), 3)
    assert count_members(stack) == 3
    assert stack.name == "line"
    second = jax.random.normal(jax.random.split(jax.random.key(1), 3)[1], (2,))
    np.testing.assert_array_equal(member(stack, 1).slope, second)


@pytest.mark.parametrize(
    ("stacks", "message"),
    [
        ((np.ones((3, 2)), np.ones((4, 2))), r"are \[3, 4\]; all must have one length"),
        ((np.ones((3, 2)), np.ones(())), "all must have one length"),
        ((np.ones(()),), r"are \['no axis'\]"),
        (("nothing",), r"are \[\]"),
    ],
)
def test_stacks_of_different_lengths_are_refused(stacks, message):
    with pytest.raises(ValueError, match=message):
        map_members(lambda *parts: parts[0], *stacks)


X = np.arange(7.0)
OPTIMISER = optax.adam(0.1)


def score(watched):
    return -watched["validation"]["loss"]


def run(lines, rule, key, **options):
    data = (jnp.asarray(X), jnp.asarray(3 * X))
    options = {
        "batch_size": 2,
        "chunk": 4,
        "watch": {"validation": (data[0][:2], data[1][:2])},
        "score": score,
        **options,
    }
    return train(lines, rule, data, OPTIMISER, 12, key=key, **options)


@pytest.mark.slow
@pytest.mark.usefixtures("double")
def test_a_member_is_trained_as_if_alone():
    key = jax.random.key(4)
    slopes, noises = jnp.array([0.0, 1.0, 2.9]), jnp.array([0.1, 1.0, 3.0])
    last, history, best = run(Line(slopes), NoisyLeastSquares(noises), key, ensemble=True)
    for i in range(3):
        alone = run(Line(slopes[i]), NoisyLeastSquares(noises[i]), jax.random.fold_in(key, i))
        assert last.slope[i] == alone.last.slope
        assert best.slope[i] == alone.best.slope
        assert [row["loss"][i] for row in history] == [row["loss"] for row in alone.history]
        watched = [row["validation"]["loss"] for row in alone.history if "validation" in row]
        assert [row["validation"]["loss"][i] for row in history if "validation" in row] == watched
        assert len(watched) == 3
    assert best.slope[2] != last.slope[2]


@pytest.mark.slow
@pytest.mark.usefixtures("double")
def test_divergence_names_the_member():
    noises = jnp.zeros(3)
    with pytest.raises(DivergedError, match="loss of member 1 is not finite at step 0"):
        run(Line(jnp.array([0.0, 1e200, 0.0])), NoisyLeastSquares(noises), jax.random.key(0), ensemble=True)

    class Broken(NoisyLeastSquares):
        def gradient(self, substrate, inputs, targets, *, key):
            metrics, gradient = super().gradient(substrate, inputs, targets, key=key)
            return metrics, Line(jnp.where(substrate.slope > 2.95, jnp.nan, gradient.slope))

    start = Line(jnp.array([0.0, 2.8, 2.96]))
    with pytest.raises(DivergedError, match=r"leaf \.slope of member 2 is not finite after step 0"):
        run(start, Broken(noises), jax.random.key(0), ensemble=True, chunk=1)


@pytest.mark.slow
@pytest.mark.usefixtures("double")
def test_members_are_trained_in_parts_as_in_the_whole():
    key, slopes, noises = jax.random.key(4), jnp.array([0.0, 1.0, 2.9]), jnp.array([0.1, 1.0, 3.0])
    whole = run(Line(slopes), NoisyLeastSquares(noises), key, ensemble=True)
    part = run(Line(slopes[1:]), NoisyLeastSquares(noises[1:]), key, ensemble=range(1, 3))
    assert part.last.slope.tolist() == whole.last.slope[1:].tolist()
    assert [row["loss"] for row in part.history] == [row["loss"][1:] for row in whole.history]
    with pytest.raises(ValueError, match=r"ensemble is range\(1, 3\); it must be the places of 3 members"):
        run(Line(slopes), NoisyLeastSquares(noises), key, ensemble=range(1, 3))
    with pytest.raises(DivergedError, match="loss of member 2 is not finite"):
        run(Line(jnp.array([0.0, 1e200])), NoisyLeastSquares(jnp.zeros(2)), key, ensemble=range(1, 3))
