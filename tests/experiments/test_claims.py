"""Numbers that claims about quantum reservoirs and quantum states take from theory, or out of a dataset."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from morphax.experiments.josephson._curves import explained, logarithmic, of_best_constant
from morphax.experiments.josephson._mixer import lagged
from morphax.experiments.josephson.mackey_glass import _slopes_over_extrema
from morphax.experiments.josephson.waveforms import best_without_memory
from morphax.experiments.spiking._states import BELL, ENSEMBLES
from morphax.experiments.spiking.completeness import changed_by_gates, turned_by_unitaries
from morphax.experiments.spiking.distribution import refractory_times
from morphax.experiments.spiking.gates import connected
from morphax.experiments.spiking.ising_chain import RING, functions_of_energy
from morphax.quantum.correlation_map import coefficients
from morphax.quantum.states import pure_state
from morphax.tasks.waveforms import waveforms


def test_no_rule_without_memory_tells_more_points_of_sines_and_squares_apart():
    task = waveforms(8000, 16, key=jax.random.key(0))
    values, targets = np.round(task.train_inputs, 6), np.asarray(task.train_targets[:, 0])
    likelier = sum(max((targets[values == v] == c).sum() for c in (0, 1)) for v in np.unique(values))
    assert best_without_memory() == 0.875
    assert likelier / len(values) == pytest.approx(0.875, abs=0.02)


def test_lagged_inputs_run_on_from_training_to_test():
    task = waveforms(16, 8, key=jax.random.key(0))
    reading = lagged(task, 3)
    inputs = np.concatenate([task.train_inputs, task.test_inputs])
    assert np.array_equal(reading.train[:, 0], task.train_inputs)
    assert np.array_equal(reading.train[:2, 2], [0, 0])
    assert np.array_equal(reading.test[:, 2], inputs[14:22])


def test_errors_at_slopes_are_told_from_those_at_extrema():
    time = jnp.linspace(0, 40, 2000)[:, None] * jnp.array([1.0, 2.0])
    difference = _slopes_over_extrema(jnp.sin(time), jnp.abs(jnp.cos(time)))
    assert np.allclose(difference, 1, atol=0.05)


def test_curves_that_rise_with_the_logarithm_are_told_from_lines():
    delay = np.arange(1, 101)
    rising, line = (xr.DataArray(y, {"delay": delay}, ["delay"]) for y in (np.log(delay), 1.0 * delay))
    assert explained(rising, np.log) == pytest.approx(1)
    assert logarithmic(rising) > 0 > logarithmic(line)


def test_the_best_constant_lies_where_most_points_are():
    series = xr.Dataset({"series": ("point", np.r_[np.full(90, 1.0) + 1e-3 * np.arange(90), np.zeros(10)])})
    assert of_best_constant(series) < np.log10(np.abs(series.series - series.series.mean())).mean()


def test_a_chain_of_gates_keeps_one_expectation_value_and_the_eigenvalues():
    states = ENSEMBLES["chain"](jax.random.key(1), 40, 2)
    chi = np.array([coefficients(rho) for rho in states])
    moved = np.ptp(chi, axis=0).reshape(-1) > 1e-4
    assert moved.sum() == changed_by_gates() == 14
    assert not moved[1]
    assert np.allclose(np.linalg.eigvalsh(states), np.linalg.eigvalsh(states[0]), atol=1e-5)
    assert turned_by_unitaries() == 12


def test_correlations_connect_pairs_in_a_bell_state_and_all_spins_in_a_random_one():
    assert connected(np.asarray(coefficients(BELL))) == 2
    assert connected(np.asarray(coefficients(pure_state([1, 0, 0, 0])))) == 1
    assert connected(np.asarray(coefficients(ENSEMBLES["pure"](jax.random.key(0), 1, 2)[0]))) == 6


def test_times_of_activity_that_are_cut_off_do_not_count():
    one, two = [1, 0, 1, 1, 1, 0, 0, 1, 1, 0, 1], [0, 1, 1, 0, 0, 0, 1, 0, 0, 0, 0]
    activity = np.array([one, two]).T[None]
    dataset = xr.Dataset({"activity": (("seed", "time", "neuron"), activity)}, {"time": 0.5 * np.arange(11)})
    assert sorted(refractory_times(dataset)) == [0.5, 1.0, 1.0, 1.5]


def test_the_energy_of_a_ring_takes_as_many_functions_as_the_paper_counts():
    assert functions_of_energy() == (RING, RING)
