"""What the runs of experiments are cut into: enough for many machines, and taken up by longer ones."""

import jax
import pytest
import xarray as xr

from morphax.experiments import all_experiments
from morphax.files import read_sealed
from morphax.lab.progress import Known, Listing
from morphax.lab.run_folder import RunFolder

# A training is no shorter for more machines; nor is a search in which every trial follows from the last.
FEW = {
    "josephson/populations": 5,  # seeds, which take seconds
    "quantized/classical": 3,  # trainings of one network
    "quantized/shots": 3,  # likewise
    "rules/mnist": 6,  # likewise
    "spiking/distribution": 5,  # likewise
    "spintronic/tune": 0,  # four chains
}


def pieces(name: str, **numbers) -> list[str]:
    experiment = all_experiments()[name]()
    config = experiment.Config(**numbers)
    with pytest.raises(Known) as known, jax.enable_x64(config.precision == "double"):
        experiment.run(config, key=jax.random.key(config.seed), progress=Listing())
    return known.value.wanted


@pytest.mark.slow
@pytest.mark.parametrize("name", all_experiments())
def test_a_run_at_full_size_has_eight_pieces_or_a_reason(name):
    found = len(pieces(name))
    assert found == FEW[name] if name in FEW else found >= 8


def test_more_seeds_have_the_pieces_of_fewer_and_some_more():
    few, many = pieces("josephson/shots", seeds=2), pieces("josephson/shots", seeds=4)
    assert many[:2] == few
    assert len(many) == 4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "extent", "few", "many"),
    [
        ("josephson/waveforms", "seeds", 2, 3),
        ("josephson/design", "starts", 4, 8),
        ("phase-oscillators/xor", "seeds", 10, 20),
        ("quantized/weak", "seeds", 2, 3),
        ("spiking/completeness", "states", 100, 200),
        ("spintronic/dynamics", "seeds", 1, 2),
    ],
)
def test_a_longer_run_takes_up_the_pieces_of_a_shorter_one(tmp_path, name, extent, few, many):
    """And has its numbers: blocks do not feel how many there are."""
    experiment = all_experiments()[name]()
    configs = {n: experiment.Config(**{**experiment.quick, extent: n}) for n in (few, many)}
    short, long = (RunFolder(tmp_path / f"{n}", experiment, config, quick=True) for n, config in configs.items())
    short.execute()
    before = {path.name: path.stat().st_ino for path in tmp_path.glob(".pieces/*/*.nc")}
    long.execute()
    after = {path.name: path.stat().st_ino for path in tmp_path.glob(".pieces/*/*.nc")}
    assert len(after) > len(before)
    assert all(after[name] == file for name, file in before.items())
    few_digests, many_digests = (read_sealed(run.path / "manifest.json")["pieces"] for run in (short, long))
    assert few_digests.items() <= many_digests.items()
    if extent == "seeds" and "seed" in long.dataset().dims:
        one, two = short.dataset(), long.dataset()
        for variable in one.data_vars:
            if "seed" in one[variable].dims:
                assert one[variable].equals(two[variable].sel(seed=one.seed)), variable


@pytest.mark.slow
def test_blocks_at_once_have_the_bits_of_blocks_by_themselves(tmp_path, monkeypatch):
    results = []
    for cores in (1, 2):
        monkeypatch.setattr("morphax.lab.progress.cores", lambda cores=cores: cores)
        experiment = all_experiments()["quantized/weak"]()
        run = RunFolder(tmp_path / str(cores) / "out", experiment, experiment.Config(**experiment.quick), quick=True)
        run.execute()
        results.append(run.dataset().drop_vars("seconds", errors="ignore"))
    xr.testing.assert_equal(*results)
