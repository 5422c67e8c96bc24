"""Does a substrate, or a learning rule, keep what the library promises of every one?

`check_substrate` and `check_rule` try every promise and tell of all that are broken at once, each in a sentence that
says what to change. In a test suite, one test a promise:

    import pytest
    from morphax.testing import substrate_promises

    @pytest.mark.parametrize("promise", substrate_promises(MyDevice(...)), ids=str)
    def test_my_device(promise):
        promise.check()
"""

from morphax.testing._promises import BrokenPromiseError, Promise
from morphax.testing._rules import check_rule, check_training, decide, rule_promises
from morphax.testing._substrates import check_substrate, substrate_promises

__all__ = [
    "BrokenPromiseError",
    "Promise",
    "check_rule",
    "check_substrate",
    "check_training",
    "decide",
    "rule_promises",
    "substrate_promises",
]
