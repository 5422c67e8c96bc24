"""What a claim says of a result, and what it says when there is nothing to say."""

import json
import math

import pytest
import xarray as xr

from morphax import Claim
from morphax.lab.experiment import Proof, fails

LOSS = xr.Dataset({"loss": 0.2, "missing": math.nan, "endless": math.inf})


def loss(dataset):
    return dataset.loss


@pytest.mark.parametrize(
    ("claim", "met"),
    [
        (Claim.at_least("", 0.2, loss, source=""), True),
        (Claim.at_least("", 0.25, loss, source=""), False),
        (Claim.at_least("", 0.25, loss, source="", tolerance=0.05), True),
        (Claim.at_least("", 0.2, loss, source="", tolerance=-0.01), False),
        (Claim.at_most("", 0.2, loss, source=""), True),
        (Claim.at_most("", 0.1, loss, source=""), False),
        (Claim.at_most("", 0.1, loss, source="", tolerance=0.1), True),
        (Claim.within("", 0.3, loss, source="", tolerance=0.1), True),
        (Claim.within("", 0.1, loss, source="", tolerance=0.1), True),
        (Claim.within("", 0.31, loss, source="", tolerance=0.1), False),
        (Claim.at_most("", lambda d: 2 * d.loss, loss, source=""), True),
        (Claim.at_most("", lambda d: d.loss / 2, loss, source=""), False),
        (Claim.reported("", loss, source="", paper=0.2), None),
        (Claim.reported("", loss, source=""), None),
    ],
)
def test_each_relation_holds_up_to_its_tolerance(claim, met):
    verdict = claim.judge(LOSS)
    assert verdict["met"] is met
    assert verdict["ours"] == 0.2
    assert "no_verdict" not in verdict


def test_a_verdict_repeats_the_claim():
    verdict = Claim.within("loss", 0.25, loss, source="Fig. 1", tolerance=0.1).judge(LOSS)
    assert verdict == {
        "claim": "loss",
        "paper": 0.25,
        "ours": 0.2,
        "tolerance": 0.1,
        "relation": "within",
        "source": "Fig. 1",
        "met": True,
    }


@pytest.mark.parametrize(
    ("claim", "paper", "ours", "why"),
    [
        (Claim.at_least("", 1.0, lambda d: d.missing, source=""), 1.0, None, "not a number"),
        (Claim.at_most("", 1.0, lambda d: d.endless, source=""), 1.0, None, "infinite"),
        (Claim.at_most("", 1.0, lambda d: -d.endless, source=""), 1.0, None, "infinite"),
        (
            Claim.within("", lambda d: d.missing, loss, source="", tolerance=1.0),
            None,
            0.2,
            "the baseline is not a number",
        ),
        (Claim.at_most("", lambda d: d.endless, loss, source=""), None, 0.2, "the baseline is infinite"),
        (Claim.at_least("", lambda d: d.missing, lambda d: d.missing, source=""), None, None, "not a number"),
        (Claim.reported("", lambda d: d.missing, source="", paper=1.0), 1.0, None, "not a number"),
    ],
)
def test_a_number_that_cannot_be_compared_has_no_verdict_and_says_why(claim, paper, ours, why):
    verdict = claim.judge(LOSS)
    assert (verdict["paper"], verdict["ours"], verdict["met"], verdict["no_verdict"]) == (paper, ours, None, why)
    json.dumps(verdict, allow_nan=False)


def test_a_point_that_the_run_left_out_is_not_judged():
    verdict = Claim.at_least("", 1.0, lambda d: d["accuracy"], source="").judge(LOSS)
    assert verdict["ours"] is None
    assert verdict["met"] is None
    assert "no_verdict" not in verdict


def test_the_cause_is_told_of_a_claim_that_is_not_met():
    claim = Claim.at_least("", 0.3, loss, source="", item="loss", cause="too few steps")
    verdict = claim.judge(LOSS)
    assert (verdict["met"], verdict["item"], verdict["cause"]) == (False, "loss", "too few steps")
    assert fails(verdict)
    assert "cause" not in claim.judge(LOSS + 1)


@pytest.mark.parametrize(
    ("best", "refuted"),
    [(0.25, {"best": 0.25, "proof": "Eq. 1"}), (lambda d: d.loss, {"best": 0.2, "proof": "Eq. 1"}), (0.3, None)],
)
def test_a_claim_is_refuted_where_the_best_that_is_possible_does_not_meet_it(best, refuted):
    claim = Claim.at_least("", 0.3, loss, source="", cause="too few steps", proof=Proof(best=best, place="Eq. 1"))
    verdict = claim.judge(LOSS)
    assert verdict["met"] is False
    assert verdict.get("refuted") == refuted
    assert fails(verdict) == ("cause" in verdict) == (refuted is None)
    json.dumps(verdict, allow_nan=False)


def test_a_claim_that_is_met_against_its_proof_has_no_verdict():
    verdict = Claim.at_least("", 0.1, loss, source="", proof=Proof(best=0.05, place="Eq. 1")).judge(LOSS)
    assert verdict["met"] is None
    assert verdict["no_verdict"] == "it is met, and 0.05 is proved to be the best that is possible"


def test_a_bound_that_is_no_number_proves_nothing():
    proof = Proof(best=lambda d: d.missing, place="Eq. 1")
    assert fails(Claim.at_least("", 0.3, loss, source="", proof=proof).judge(LOSS))


def test_only_a_reported_claim_needs_no_number():
    with pytest.raises(ValueError, match="paper is None in 'accuracy'"):
        Claim(text="accuracy", paper=None, ours=loss, relation="at least", source="")
    with pytest.raises(ValueError, match="relation is 'above'"):
        Claim(text="accuracy", paper=1.0, ours=loss, relation="above", source="")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="proof is given in 'accuracy'"):
        Claim(text="accuracy", paper=None, ours=loss, relation="reported", source="", proof=Proof(best=1.0, place=""))
