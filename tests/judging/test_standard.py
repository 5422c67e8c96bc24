"""Standard tasks against what is known of them."""

import jax
import numpy as np
import pytest

from morphax import EchoStateNetwork, JosephsonMixer
from morphax.judging import Recording, withstands
from morphax.judging.standard import STANDARD, solve, solve_recorded
from morphax.substrates.external import ExternalSubstrate

KEY = jax.random.key(0)


@pytest.mark.slow
def test_floors_are_those_that_the_tasks_have():
    """Half of the parities are guessed; a linear readout of 50 inputs does NARMA-10 to 0.4."""
    found = solve(EchoStateNetwork.random(5, key=KEY), ["NARMA-10", "parity of 2"], seeds=2, key=KEY)
    assert found.linear.sel(task="NARMA-10").values == pytest.approx([0.4, 0.4], abs=0.05)
    assert found.constant.sel(task="NARMA-10").values == pytest.approx([1, 1], abs=0.03)
    assert found.linear.sel(task="parity of 2").values == pytest.approx([0.5, 0.5], abs=0.05)


@pytest.mark.slow
def test_a_device_is_the_better_the_more_it_can():
    """The mixer multiplies, but forgets at once; the network does both."""
    names = ["NARMA-10", "parity of 2"]
    mixer, network = (
        solve(device, names, seeds=1, key=KEY)
        for device in (JosephsonMixer.two_mode(), EchoStateNetwork.random(100, key=KEY))
    )
    assert float(mixer.error.sel(task="parity of 2")[0, 0]) < 0.02
    assert float(mixer.error.sel(task="NARMA-10")[0, 0]) > 0.7
    assert float(network.error.sel(task="NARMA-10")[0, 0]) < float(network.linear.sel(task="NARMA-10")[0])


@pytest.mark.slow
def test_a_task_is_the_same_whatever_else_is_asked():
    device = EchoStateNetwork.random(5, key=KEY)
    alone = solve(device, ["parity of 3"], seeds=1, key=KEY)
    among = solve(device, ["NARMA-2", "parity of 3"], seeds=2, key=KEY)
    assert np.array_equal(alone.error[0, 0], among.error[1, 0])


@pytest.mark.slow
def test_noise_on_readings_costs():
    """And what is chosen for one noise does not depend on which others are asked."""
    device = EchoStateNetwork.random(20, key=KEY)
    both = solve(device, ["NARMA-2"], seeds=1, noises=(0.0, 0.1), key=KEY)
    assert both.error[0, 0, 0] < 0.8 * both.error[0, 0, 1]
    alone = solve(device, ["NARMA-2"], seeds=1, noises=(0.1,), key=KEY)
    assert np.array_equal(alone.error[0, 0, 0], both.error[0, 0, 1])


@pytest.mark.slow
def test_inputs_stay_within_the_range():
    asked = []

    def device(inputs):
        asked.append((inputs.min(), inputs.max()))
        return np.hstack([inputs, inputs**2])

    bench = ExternalSubstrate(device, neurons=2)
    solve(bench, ["NARMA-2", "channel, 24 dB"], seeds=1, low=0.0, high=2.0, key=KEY)
    withstands(bench, "scale", low=0.0, high=2.0, points=1000, key=KEY)
    assert min(low for low, _ in asked) >= 0
    assert max(high for _, high in asked) <= 2
    with pytest.raises(ValueError, match=r"values\[0\] is 3"):
        withstands(bench, "scale", (3.0,), key=KEY)


@pytest.mark.slow
def test_what_was_recorded_is_judged_by_its_own_input():
    """A tap for each of the last three inputs, and products of them, tell parities of three bits."""
    u = np.where(np.random.default_rng(0).uniform(size=3000) > 0.5, 1.0, -1.0)
    bits = [np.roll(u, k) for k in range(3)]
    recording = Recording(u, np.stack([*bits, bits[0] * bits[1], bits[0] * bits[1] * bits[2]], axis=1))
    found = solve_recorded(recording, key=KEY)
    assert found.error.sel(task=["parity of 2", "parity of 3"]).values.max() == 0
    assert found.linear.sel(task="parity of 3").item() > 0.4
    assert found.error.sel(task="NARMA-2").item() < 1


def test_other_names_are_refused():
    with pytest.raises(ValueError, match="names is 'NARMA-3'; it must be one of 'NARMA-2'"):
        solve(EchoStateNetwork.random(5, key=KEY), ["NARMA-3"], key=KEY)
    assert len(STANDARD) == 9
