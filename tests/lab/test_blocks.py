"""Blocks of an ensemble: cut and put together."""

import numpy as np
import pytest
import xarray as xr

from morphax.lab.blocks import Blocks
from morphax.lab.progress import Progress


def member(kind):
    def compute(seeds):
        return xr.Dataset({"y": ("seed", [kind * s for s in seeds]), "kind": kind}, {"seed": list(seeds)})

    return compute


def test_blocks_do_not_change_what_comes_out():
    work = {"a, b": member(1), "c": member(2)}
    whole, parts = (
        blocks.join(Progress().pieces(blocks.split(work) | {"d": lambda: xr.Dataset({"z": 1})}))
        for blocks in (Blocks("seed", 5, 5), Blocks("seed", 5, 2))
    )
    assert list(parts) == ["a, b", "c", "d"]
    for name, part in parts.items():
        xr.testing.assert_identical(part, whole[name])
    assert parts["c"].y.values.tolist() == list(2 * np.arange(5))
    assert parts["c"].kind.ndim == 0


def test_a_longer_ensemble_has_the_blocks_of_a_shorter_one():
    short, long = (list(Blocks("seed", count, 2).split({"a": member(1)})) for count in (4, 7))
    assert long[:2] == short
    assert long[-1] == "a, seed 6"


def test_what_belongs_to_no_member_must_be_equal_in_all_blocks():
    blocks = Blocks("seed", 2, 1)
    work = {"a": lambda seeds: xr.Dataset({"y": ("seed", list(seeds)), "z": seeds[0]})}
    with pytest.raises(xr.MergeError, match="z"):
        blocks.join(Progress().pieces(blocks.split(work)))


@pytest.mark.parametrize(("count", "size", "named"), [(0, 1, "seed is 0"), (3, 0, "size is 0")])
def test_bad_blocks_are_refused(count, size, named):
    with pytest.raises(ValueError, match=named):
        Blocks("seed", count, size).split({"a": member(1)})
