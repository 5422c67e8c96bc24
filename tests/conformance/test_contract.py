"""Every substrate x every rule x every task: it trains, or is refused in one line that says what to do. No third."""

from functools import cache

import jax
import pytest
from tests.conformance.catalogue import KEY, RULES, SUBSTRATES, TASKS, admitted

from morphax import Substrate, Task, fitted
from morphax.testing import check_rule, check_substrate, check_training, decide

pytestmark = pytest.mark.slow  # the contract of one device and one rule is tried shorter beside it
REMEDIES = ("use ", "put ", "needs ", "must ", "train another role")


@cache
def substrate(name: str) -> Substrate:
    return SUBSTRATES[name]()


@cache
def task(name: str) -> Task:
    return TASKS[name]()


@cache
def cell(name: str, on: str) -> Substrate:
    """A substrate with the input layer and the readout that a task needs."""
    return fitted(substrate(name), task(on), key=KEY)


def shape_of(task: Task) -> tuple:
    """What decides of a task, without its numbers, whether a rule admits it."""
    low, high = float(task.train_targets.min()), float(task.train_targets.max())
    return task.arrangement, task.kind, task.channels, task.outputs, low >= 0 and high <= 1


@cache
def different_tasks() -> tuple[str, ...]:
    """One task of every shape: what is decided abstractly is the same for the others."""
    return tuple({shape_of(task(name)): name for name in reversed(TASKS)}.values())


@pytest.mark.parametrize("name", SUBSTRATES)
def test_substrates_keep_their_promises(name):
    check_substrate(substrate(name))


# A laboratory answers one task only.
@pytest.mark.parametrize("name", [name for name in RULES if "laboratory" not in name])
def test_rules_keep_their_promises(name):
    check_rule(RULES[name](task("waveforms")))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", SUBSTRATES)
def test_every_cell_is_admitted_or_refused(name, rule):
    for on in different_tasks():
        refusal = decide(RULES[rule](task(on)), cell(name, on), task(on))
        assert refusal is None or any(word in refusal for word in REMEDIES), refusal


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", SUBSTRATES)
def test_what_a_rule_admits_it_trains(name, rule):
    one = next(filter(None, (admitted(rule, name, task(on)) for on in TASKS)), None)
    if one is not None:
        check_training(one.rule, one.substrate, one.task)


@pytest.mark.parametrize("on", TASKS)
@pytest.mark.parametrize("name", SUBSTRATES)
def test_every_task_trains_every_substrate(name, on):
    one = admitted("Backpropagation", name, task(on))
    assert one is not None
    check_training(one.rule, one.substrate, one.task)


@pytest.mark.parametrize(("rule", "on"), [("EquilibriumPropagation", "xor"), ("Backpropagation", "phase_digits")])
def test_a_refusal_compiles_nothing(rule, on, caplog):
    rule, refused, data = RULES[rule](task(on)), cell("echo-state", on), task(on).train
    jax.clear_caches()
    with jax.log_compiles(), pytest.raises(ValueError, match=r"needs an energy substrate|one-hot rows"):
        rule.check(refused, data)
    assert "compilation" not in caplog.text
