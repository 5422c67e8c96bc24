"""Fingerprints differ where contents do, and are the same in another process."""

import contextlib
import functools
import io
import os
import subprocess
import sys
from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from morphax import PhaseOscillators
from morphax.learning.fingerprint import fingerprint, program_of
from morphax.substrates.topology import Topology

FACTOR = 2.0


class Parts(eqx.Module):
    values: jax.Array
    number: float = 1.0
    name: str = eqx.field(static=True, default="a")


@dataclass
class Line:
    slope: float

    def at(self, x):
        return self.slope * x


def scaled(factor):
    return lambda x: factor * x


def with_default(x, factor=2.0):
    return factor * x


def global_factor(x):
    return FACTOR * x


def edges(*pairs):
    return Topology(4, pairs, inputs=[0], outputs=[3])


DIFFERENT = {
    "values": (Parts(jnp.ones(2)), Parts(jnp.array([1.0, 1.0 + 1e-7]))),
    "shape": (jnp.ones((2, 3)), jnp.ones((3, 2))),
    "type": (np.ones(2, np.float32), np.ones(2, np.float64)),
    "plain number": (Parts(jnp.ones(2), 1.0), Parts(jnp.ones(2), 2.0)),
    "static field": (Parts(jnp.ones(2), name="a"), Parts(jnp.ones(2), name="b")),
    "random key": (jax.random.key(0), jax.random.key(1)),
    "order": ([1, 2], [2, 1]),
    "nesting": ([[1], [2, 3]], [[1, 2], [3]]),
    "boundaries": (["ab", "c"], ["a", "bc"]),
    "tuple and list": ((1, 2), [1, 2]),
    "name of a field": ({"a": 1}, {"b": 1}),
    "set": ({1, 2}, {1, 3}),
    "constant of a lambda": (lambda x: 0.1 * x, lambda x: 0.2 * x),
    "closure": (scaled(1.0), scaled(2.0)),
    "closure over an array": (scaled(jnp.ones(2)), scaled(jnp.zeros(2))),
    "function inside a function": (scaled(scaled(1.0)), scaled(scaled(2.0))),
    "partial": (functools.partial(with_default, factor=1), functools.partial(with_default, factor=2)),
    "jitted": (jax.jit(scaled(1.0)), jax.jit(scaled(2.0))),
    "method": (Line(1.0).at, Line(2.0).at),
    "edges": (edges((0, 1), (1, 3)), edges((0, 2), (2, 3))),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_what_differs_is_told_apart(name):
    one, other = DIFFERENT[name]
    assert fingerprint(one) != fingerprint(other)
    assert fingerprint(one) == fingerprint(one)


def test_what_is_made_anew_is_the_same():
    def make():
        return [Parts(jnp.arange(3.0)), scaled(2.0), {"b": {3, 1, 2}}, PhaseOscillators.layered((2, 3, 1), key=KEY)]

    assert fingerprint(make()) == fingerprint(make())


KEY = jax.random.key(0)


def test_defaults_and_global_numbers_of_a_function_count(monkeypatch):
    before = fingerprint(with_default, global_factor)
    monkeypatch.setattr(with_default, "__defaults__", (3.0,))
    changed = fingerprint(with_default, global_factor)
    monkeypatch.setitem(globals(), "FACTOR", 3.0)
    assert len({before, changed, fingerprint(with_default, global_factor)}) == 3


def test_a_function_that_calls_itself_ends():
    def factorial(n):
        return n * factorial(n - 1) if n else 1

    assert fingerprint(factorial) == fingerprint(factorial)


PROGRAM = """
import jax, jax.numpy as jnp, numpy as np, optax
from morphax import EquilibriumPropagation, PhaseOscillators
from morphax.learning.fingerprint import fingerprint, program_of
network = PhaseOscillators.layered((2, 3, 1), key=jax.random.key(0))
rule = EquilibriumPropagation(objective=lambda o, t: 0.3 * (o - t) ** 2)
optimiser = optax.chain(optax.clip(1.0), optax.adamw(optax.cosine_decay_schedule(0.1, 100)))
state = optimiser.init(jnp.ones(2))
print(fingerprint(network, rule, {"x", "y", "z"}), program_of(optimiser.update, jnp.ones(2), state, jnp.ones(2)))
"""


@pytest.mark.slow
def test_another_process_finds_the_same():
    """Whatever its addresses and its order of sets."""
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    there = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, env=environment
    ).stdout
    here = io.StringIO()
    with contextlib.redirect_stdout(here):
        exec(PROGRAM, {"__name__": "__main__"})
    assert here.getvalue() == there
    assert len(there.split()) == 2


def test_programs_differ_by_every_constant():
    table = np.arange(3.0)

    def looked_up(numbers):
        return jax.jit(lambda i: jnp.asarray(numbers)[i])

    def in_a_branch(numbers):
        return lambda i: jax.lax.cond(i > 0, looked_up(numbers), lambda i: 0.0, i)

    for make in (looked_up, in_a_branch):
        assert program_of(make(table), 0) == program_of(make(table.copy()), 0)
        assert program_of(make(table), 0) != program_of(make(table + 1e-6), 0)
