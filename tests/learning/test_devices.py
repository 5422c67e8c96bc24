"""Members divided over several devices have the numbers that they have on one.

The real comparison is with a process of four simulated devices, which runs this file as a script.
"""

import hashlib
import json
import os
import subprocess
import sys
from functools import partial
from typing import Any
from unittest.mock import patch

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from morphax import Backpropagation, EchoStateNetwork, WithReadout, train
from morphax.learning import ensemble
from morphax.learning.ensemble import divided, make_members, map_members, member_keys
from morphax.learning.train import DivergedError
from morphax.tasks import waveforms

DEVICES = 4
COUNTS = (9, 4, 3, 1)
KEY = jax.random.key(7)


class Chaos:
    """A function that doubles an error of rounding at every step, and knows where it was compiled."""

    def __init__(self) -> None:
        self.compiled_on: list[Any] = []
        self.call = eqx.filter_jit(self._call)

    def _call(self, start, parts, key):
        self.compiled_on.append(ensemble._asked_device())

        def step(x, _):
            x = jnp.sin(3 * parts["matrix"] @ x) + 1 / jnp.arange(3.0, 9.0)
            return x, x[0]

        end, path = jax.lax.scan(step, start, None, length=100)
        return {"end": end + jax.random.normal(key, (6,)), "path": path, "key": jax.random.fold_in(key, 1)}

    @staticmethod
    def stacks(members: int) -> tuple[Any, ...]:
        rng = np.random.default_rng(members)
        matrices = {"matrix": jnp.asarray(rng.normal(size=(members, 6, 6))), "name": "any"}
        return jnp.asarray(rng.normal(size=(members, 6))), matrices, member_keys(KEY, members)


def network(key):
    first, second = jax.random.split(key)
    return WithReadout.random(EchoStateNetwork.random(5, key=first), outputs=1, key=second)


TASK, RULE, OPTIMISER = waveforms(32, 32, key=KEY), Backpropagation(), optax.adam(0.01)


def score(watched):
    return -watched["test"]["loss"]


def trained(wild: int | None = None):
    """Five networks, one of which may be beyond numbers."""
    stack = make_members(network, KEY, 5)
    if wild is not None:
        stack = eqx.tree_at(lambda stack: stack.bias, stack, stack.bias.at[wild].set(jnp.inf))
    options = {"chunk": 2, "ensemble": True, "score": score, "key": KEY}
    return train(stack, RULE, TASK, OPTIMISER, 5, **options)


def judge(key):
    """Of a reservoir drawn by a key, the error of a fit to its states, and the end of an iteration."""
    draw, drive = jax.random.split(key)
    matrix = jax.random.normal(draw, (8, 8)) / 3
    inputs = jax.random.normal(drive, (60,))

    def step(state, value):
        state = jnp.tanh(matrix @ state + value)
        return state, state

    states = jax.lax.scan(step, jnp.zeros(8), inputs)[1]
    weights = jnp.linalg.lstsq(states[1:], inputs[:-1])[0]
    rest = jax.lax.while_loop(lambda x: jnp.sum(x**2) > 1e-3, lambda x: 0.7 * jnp.tanh(matrix @ x / 2), states[-1])
    return {"error": jnp.mean((states[1:] @ weights - inputs[:-1]) ** 2), "rest": rest}


def digest(tree: Any) -> str:
    """Of every bit of every array."""
    found = hashlib.sha256()
    for leaf in jax.tree.leaves(eqx.filter(tree, eqx.is_array)):
        numbers = jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
        found.update(f"{numbers.dtype} {numbers.shape}".encode() + np.asarray(numbers).tobytes())
    return found.hexdigest()


def numbers() -> dict[str, Any]:
    """What must not depend on the number of devices."""
    chaos, found = Chaos(), {}
    for members in COUNTS:
        for compiled in (False, True):
            result = map_members(chaos.call, *Chaos.stacks(members), compiled=compiled)
            assert all(leaf.devices() == {jax.devices()[0]} and not leaf.committed for leaf in jax.tree.leaves(result))
            found[f"{members} {compiled}"] = digest(result)
    # What a function has closed over stays where its owner has put it.
    put = jax.device_put(jnp.arange(3.0) / 7, jax.devices()[-1])
    found["put"] = digest(map_members(eqx.filter_jit(lambda x: jnp.sin(x) @ put), jnp.arange(15.0).reshape(5, 3)))
    done = trained()
    found |= {"last": digest(done.last), "best": digest(done.best), "history": list(done.history)}
    with pytest.raises(DivergedError, match="of member 3 is not finite") as error:
        trained(wild=3)
    return found | {"error": str(error.value)}


def compilations() -> dict[str, int]:
    """How often a function is compiled for some members, and on how many devices."""
    found = {}
    for members in COUNTS:
        chaos = Chaos()
        for compiled in (False, True):
            map_members(chaos.call, *Chaos.stacks(members), compiled=compiled)
        assert len(set(chaos.compiled_on)) == len(chaos.compiled_on)
        found[str(members)] = len(chaos.compiled_on)
    chaos = Chaos()
    with jax.default_device(jax.devices()[-1]):
        assert map_members(chaos.call, *Chaos.stacks(9))["end"].devices() == {jax.devices()[-1]}
    assert chaos.compiled_on == [jax.devices()[-1]]
    return found


def judged() -> dict[str, Any]:
    """By `vmap`, divided where the number of members allows it: on how many devices, and what came out."""
    found = {}
    for members in (8, 6, 7):
        keys = divided(member_keys(KEY, members))
        found[f"{members} keys"] = len(keys.devices()), jax.jit(jax.vmap(judge))(keys)
    # What is no CPU has one batched program a device.
    places = set()

    @jax.jit
    def noted(key):
        places.add(ensemble._asked_device())
        return judge(key)

    with patch.object(jax, "default_backend", lambda: "gpu"):
        batched = map_members(noted, keys)
    assert all(leaf.devices() == {jax.devices()[0]} and not leaf.committed for leaf in batched.values())
    found["groups"] = len(places), batched
    return jax.tree.map(lambda leaf: leaf.tolist() if eqx.is_array(leaf) else leaf, found)


def test_groups_are_neighbours_of_nearly_equal_size():
    assert ensemble._groups(9, 4) == [range(2), range(2, 4), range(4, 6), range(6, 9)]
    assert ensemble._groups(3, 3) == [range(1), range(1, 2), range(2, 3)]


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["cpu", "gpu"])
@pytest.mark.parametrize("members", [2, 5])
def test_groups_come_back_in_order(backend, members):
    """With one device that counts as three, and as what it is not."""

    @jax.jit
    def one(x, y, key):
        return {"product": x * y, "key": key}

    stacks = jnp.arange(members * 2.0).reshape(members, 2), jnp.arange(members), member_keys(KEY, members)
    with (
        patch.object(ensemble, "_devices", lambda: 3 * jax.local_devices()),
        patch.object(jax, "default_backend", lambda: backend),
    ):
        result = map_members(one, *stacks)
        put = map_members(one, *(jax.device_put(stack, jax.devices()[0]) for stack in stacks))
        traced = jax.jit(partial(map_members, one))(*stacks) if backend != "cpu" else put
    for values in (result, put, traced):
        np.testing.assert_array_equal(values["product"], stacks[0] * stacks[1][:, None])
        assert (values["key"] == stacks[2]).all()


def test_one_device_divides_nothing():
    stack = Chaos.stacks(4)
    assert divided(stack) is stack


def there(what: str, devices: int = DEVICES) -> Any:
    """What a function of this file gives in a process with several devices."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    done = subprocess.run(
        [sys.executable, "-W", "error", __file__, what],
        env={**os.environ, "XLA_FLAGS": flags},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_members_on_four_devices_have_the_bits_of_one():
    assert there("numbers") == json.loads(json.dumps(numbers()))


@pytest.mark.slow
def test_every_device_compiles_once():
    assert compilations() == {str(members): 1 for members in COUNTS}
    assert there("compilations") == {str(members): min(members, DEVICES) for members in COUNTS}


@pytest.mark.slow
def test_a_divided_vmap_has_the_numbers_of_one_device_to_rounding():
    one, several = judged(), there("judged")
    assert {way: devices for way, (devices, _) in one.items()} == {"8 keys": 1, "6 keys": 1, "7 keys": 1, "groups": 1}
    assert {way: devices for way, (devices, _) in several.items()} == {
        "8 keys": 4,
        "6 keys": 3,
        "7 keys": 1,
        "groups": 4,
    }
    for way, (_, values) in several.items():
        for name, value in values.items():
            np.testing.assert_allclose(value, one[way][1][name], rtol=2e-5, atol=1e-6, err_msg=way)


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]]()))
