"""The report shows what the run folder holds, and tables say the same of a claim everywhere."""

import importlib.util
from pathlib import Path

import pytest

from morphax import cli
from morphax.cli import main
from morphax.lab.report import claim_texts
from morphax.lab.run_folder import RunFolder

BUILD = Path(__file__).parents[2] / "docs" / "build.py"


def claim(**changes):
    values = {"claim": "loss", "paper": 0.5, "ours": 0.25, "tolerance": 0.0, "relation": "at most", "source": "Fig. 1"}
    return values | {"met": True} | changes


NO_VERDICT = claim(ours=None, met=None, no_verdict="not a number")


@pytest.fixture
def page(dice, tmp_path):
    folder = RunFolder(tmp_path, dice(), dice.Config(throws=12), quick=True)
    folder.execute()
    return (tmp_path / "report.html").read_text(encoding="utf-8")


def test_the_report_has_claims_figures_numbers_and_units(page, dice):
    for text in (
        "demo/dice",
        "Means of thrown dice.",
        *(claim.text for claim in dice.claims),
        "3.5 ± 1",
        "not run",  # of 8 faces
        'alt="dice" src="data:image/png;base64,',
        "figures/dice.png",
        "<td><code>throws</code></td><td>12 </td><td>throws of a die</td>",
        "<td>[6, 20] faces</td>",
        "<td><code>mean</code></td><td>faces 2</td><td>points</td><td>of all throws</td>",
        "versions jax",
    ):
        assert text in page, text


def test_the_report_needs_no_net_and_says_that_it_is_quick(page):
    assert "http" not in page
    assert "<code>--quick</code> run" in page


@pytest.mark.parametrize(
    ("claim", "texts"),
    [
        (claim(), ("≤ 0.5", "0.25", "met")),
        (claim(met=False), ("≤ 0.5", "0.25", "not met")),
        (claim(relation="at least", tolerance=0.1, met=False), ("≥ 0.5 - 0.1", "0.25", "not met")),
        (claim(relation="at most", tolerance=0.1, met=True), ("≤ 0.5 + 0.1", "0.25", "met")),
        (claim(relation="at least", tolerance=-8.0, met=False), ("≥ 0.5 + 8", "0.25", "not met")),
        (claim(relation="at least", tolerance=-1e-9, met=False), ("> 0.5", "0.25", "not met")),
        (claim(relation="within", tolerance=0.25), ("0.5 ± 0.25", "0.25", "met")),
        (claim(relation="reported", paper=None, met=None), ("—", "0.25", "reported")),
        (claim(relation="reported", ours=1234567.0, met=None), ("0.5", "1.235e+06", "reported")),
        (claim(paper=None, ours=None, met=None), ("—", "not run", "reported")),
        (claim(met=False, refuted={"best": 0.6, "proof": "Eq. 1"}), ("≤ 0.5", "0.25", "refuted")),
        (NO_VERDICT, ("≤ 0.5", "—", "no verdict: not a number")),
        (
            claim(paper=None, met=None, no_verdict="the baseline is infinite"),
            ("—", "0.25", "no verdict: the baseline is infinite"),
        ),
    ],
)
def test_texts_of_a_claim(claim, texts):
    assert tuple(claim_texts(claim).values()) == texts


def test_the_table_of_the_pages_says_what_has_no_verdict(tmp_path, monkeypatch):
    specification = importlib.util.spec_from_file_location("build", BUILD)
    assert specification is not None
    assert specification.loader is not None
    build = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(build)
    monkeypatch.setattr(build, "DOCS", tmp_path)
    monkeypatch.setattr(build, "judged", lambda name: [claim(claim="|0>"), NO_VERDICT])
    assert build.claims("demo/dice", tmp_path / "page.md").splitlines()[2:4] == [
        "| \\|0> | ≤ 0.5 | 0.25 | met | Fig. 1 |",
        "| loss | ≤ 0.5 | — | **no verdict: not a number** | Fig. 1 |",
    ]


@pytest.mark.slow
def test_the_terminal_says_what_has_no_verdict_and_check_does_not_fail_for_it(dice, tmp_path, monkeypatch, capsys):
    class Broken(dice):
        claims = tuple(
            type(claim)(**vars(claim) | {"ours": lambda d: d["mean"].sel(faces=6) * float("nan")})
            for claim in dice.claims
        )

    monkeypatch.setattr(cli, "all_experiments", lambda: {"demo/dice": Broken})
    monkeypatch.setattr(cli, "find_experiment", lambda name: Broken)
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["run", "demo/dice", "--out", str(tmp_path), "--check"]) == 0
    assert capsys.readouterr().out.count("no verdict: not a number") == 3
    assert main(["report", str(tmp_path)]) == 0
    assert capsys.readouterr().out.count("no verdict: not a number") == 3
