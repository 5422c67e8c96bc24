"""What papers say is answered, and every claim says whose it is."""

import pytest

from morphax.experiments import all_experiments
from morphax.lab.experiment import BEYOND

OF_PAPERS = {name: made for name, made in all_experiments().items() if made.paper is not None}
PAPERS = {made.paper.title: made.paper for made in OF_PAPERS.values() if made.paper is not None}


def test_there_are_five_papers():
    assert len(PAPERS) == 5
    systems = {name.partition("/")[0] for name in OF_PAPERS}
    assert all(name in OF_PAPERS for name in all_experiments() if name.partition("/")[0] in systems)


@pytest.mark.parametrize("name", OF_PAPERS)
def test_every_claim_names_what_the_paper_says_or_goes_beyond_it(name):
    paper = OF_PAPERS[name].paper
    assert paper is not None
    for claim in OF_PAPERS[name].claims:
        assert claim.item == BEYOND or claim.item in paper.items, claim.text


@pytest.mark.parametrize("title", PAPERS)
def test_everything_that_a_paper_says_is_answered(title):
    answered = {claim.item for made in OF_PAPERS.values() for claim in made.claims if made.paper is PAPERS[title]}
    assert PAPERS[title].items.keys() <= answered, PAPERS[title].items.keys() - answered
