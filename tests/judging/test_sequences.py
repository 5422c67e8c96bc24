"""Sequences that devices tell apart."""

import sys

import jax
import numpy as np
import pytest

from morphax import EchoStateNetwork
from morphax.judging.sequences import SEQUENCES, classify
from morphax.judging.standard import solve
from morphax.tasks.laser import santa_fe_laser
from morphax.tasks.vowels import japanese_vowels

KEY = jax.random.key(0)


def test_utterances_are_those_of_the_archive():
    train, test = japanese_vowels()
    assert np.bincount(train.speakers).tolist() == [30] * 9
    assert np.bincount(test.speakers).tolist() == [31, 35, 88, 44, 29, 24, 40, 50, 29]
    assert train.frames[0, 0, :3] == pytest.approx([1.860936, -0.207383, 0.261557], abs=1e-9)
    assert not train.frames[0, train.lengths[0] :].any()


@pytest.mark.slow
def test_a_network_tells_speakers_apart_that_means_do_not():
    """Ridge on means takes 48 of 370 for somebody else, and networks a few (Jaeger et al. 2007)."""
    found = classify(EchoStateNetwork.random(50, key=KEY), "JapaneseVowels", seeds=1, key=KEY)
    assert found.constant.item() == pytest.approx(1 - 31 / 370)
    assert 370 * found.linear.item() == pytest.approx(48, abs=6)
    assert 370 * found.error.item() < 8


@pytest.mark.slow
def test_digits_are_told_by_their_rows():
    found = classify(EchoStateNetwork.random(50, key=KEY), "sequential digits", seeds=1, key=KEY)
    assert found.error.item() < found.linear.item() < 0.08


def test_other_names_are_refused():
    with pytest.raises(ValueError, match="name is 'digits'; it must be one of 'JapaneseVowels', 'sequential digits'"):
        classify(EchoStateNetwork.random(3, key=KEY), "digits", key=KEY)
    assert len(SEQUENCES) == 2


@pytest.mark.slow
def test_the_laser_is_read_from_the_package_that_carries_it(monkeypatch, tmp_path):
    laser = santa_fe_laser()
    assert laser.shape == (10_093,)
    assert (laser.min(), laser.max()) == (0, 255)
    found = solve(EchoStateNetwork.random(50, key=KEY), ["Santa Fe laser"], seeds=1, key=KEY)
    assert found.error.item() < 0.5 * found.linear.item()
    (tmp_path / "reservoirpy").mkdir()
    (tmp_path / "reservoirpy" / "__init__.py").touch()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "reservoirpy", raising=False)
    with pytest.raises(ValueError, match=r"santafe_laser\.npy is not the file it should be"):
        santa_fe_laser()
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(ImportError, match=r'pip install "morphax\[data\]"'):
        santa_fe_laser()
