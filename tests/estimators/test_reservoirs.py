import functools
import pickle
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.svm import SVC

from morphax import EchoStateNetwork, ExternalSubstrate, JosephsonMixer, QuantizedPerceptron, evolve
from morphax.estimators import Device, ReservoirClassifier, ReservoirRegressor, ReservoirTransformer

from .conftest import copy_of, tones
from .leaky import LeakyIntegrators, twenty

IN_SINGLE_PRECISION = LeakyIntegrators(jnp.linspace(0.1, 2, 20))


def echo_states(neurons, channels, key, spectral_radius=0.5):
    return EchoStateNetwork.random(neurons, inputs=channels, spectral_radius=spectral_radius, key=key)


def test_features_are_the_readings_of_the_device():
    X = np.random.default_rng(0).normal(size=(3, 12, 2))
    reservoir = ReservoirTransformer("echo-state", neurons=5, readings=3, washout=2, random_state=1).fit(X)
    found = reservoir.transform(X).reshape(3, 4, 5)
    with jax.enable_x64(True):
        encoded = (X - X.mean(axis=(0, 1))) / X.std(axis=(0, 1))
        network = jax.tree.map(jnp.asarray, reservoir.device_)
        readings = np.asarray(jax.vmap(lambda series: evolve(network, series)[0])(encoded))
    windows = [readings[:, a:b].mean(axis=1) for a, b in ((2, 5), (5, 8), (8, 12))]
    np.testing.assert_allclose(found, np.stack([*windows, readings[:, -1]], axis=1), atol=1e-12)
    assert reservoir.get_feature_names_out()[[0, 6, -1]].tolist() == [
        "window0_neuron0",
        "window1_neuron1",
        "last_neuron4",
    ]


def test_lists_of_lists_and_tables_are_series_too():
    series, labels = tones(20)
    fitted = ReservoirClassifier("relu", 10, random_state=0).fit(series, labels)
    for other in ([each.tolist() for each in series], [pd.DataFrame(each) for each in series], tuple(series)):
        np.testing.assert_array_equal(
            copy_of(fitted).fit(other, labels).decision_function(other), fitted.decision_function(series)
        )


@pytest.mark.slow
def test_what_a_series_is_filled_up_with_changes_nothing():
    series, _ = tones(40)
    plans: list[tuple[Any, float]] = [("last", 0.0), ("mean", 0.0), (8, 0.1)]
    for readings, noise in plans:
        reservoir = ReservoirTransformer(neurons=10, readings=readings, washout=3, noise=noise, random_state=0)
        together = reservoir.fit(series).transform(series)
        long = np.zeros((300, 2))  # a sample that is longer than any of before
        for place in (0, 17):
            sample = series[place]
            for among in (sample[None], [sample], [sample.tolist()], [sample, long], np.array([sample, long], object)):
                np.testing.assert_array_equal(reservoir.transform(among)[0], together[place])


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_one_sample_is_answered_alone_as_among_a_thousand(noise):
    X = np.random.default_rng(0).normal(size=(1000, 20))
    reservoir = ReservoirTransformer(neurons=30, arrangement="sequence", noise=noise, random_state=0).fit(X)
    together = reservoir.transform(X)
    for place in (0, 127, 500, 999):
        np.testing.assert_array_equal(reservoir.transform(X[place : place + 1])[0], together[place])
    np.testing.assert_array_equal(reservoir.transform(X[::-1]), together[::-1])


@pytest.mark.parametrize(
    ("readout", "methods"),
    [
        (None, ("predict", "decision_function")),
        pytest.param(
            make_pipeline(MinMaxScaler(), LogisticRegression()),
            ("predict_proba", "decision_function"),
            marks=pytest.mark.slow,
        ),
        pytest.param(SVC(), ("predict", "decision_function"), marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("arrangement", ["held", pytest.param("sequence", marks=pytest.mark.slow)])
def test_and_so_is_what_the_readout_says(readout, methods, arrangement):
    X = np.random.default_rng(0).normal(size=(1000, 20))
    y = (X[:, 0] + X[:, 1] > 0).astype(int) + (X[:, 2] > 0)
    classifier = ReservoirClassifier("relu", 30, arrangement=arrangement, readout=readout, random_state=0).fit(X, y)
    regressor = ReservoirRegressor("relu", 30, arrangement=arrangement, random_state=0).fit(X, X[:, 0])
    for ask in (*(getattr(classifier, method) for method in methods), regressor.predict):
        together = ask(X)
        np.testing.assert_array_equal(ask(X[::-1]), together[::-1])
        for place in (*range(0, 1000, 91), 127, 128, 999):
            np.testing.assert_array_equal(ask(X[place : place + 1])[0], together[place])


@pytest.mark.slow
def test_the_same_random_state_gives_the_same_bits(wine):
    X, y = wine
    first, again, other = (
        ReservoirRegressor("relu", arrangement="held", noise=0.01, random_state=seed).fit(X, y).predict(X)
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3


@pytest.mark.slow
def test_a_second_fit_of_equal_shape_compiles_nothing(wine, compiled):
    X, y = wine
    ReservoirClassifier("spin-torque", arrangement="held", random_state=0).fit(X, y).predict(X)
    compiled()
    for scale in (1.0, 0.5):
        further = ReservoirClassifier("spin-torque", arrangement="held", input_scale=scale, random_state=1)
        further.fit(X[:70, :11], y[:70]).predict(X[:9, :11])
    assert compiled() == []
    # Another setting is another program that draws the device; what is computed with it is the same.
    further.set_params(device__damping_rate=0.7).fit(X, y)
    assert set(compiled()) <= {"jit(random)"}


@pytest.mark.slow
def test_ten_folds_compile_the_dynamics_once(wine, compiled):
    jax.clear_caches()
    assert (
        cross_val_score(ReservoirClassifier("relu", 37, arrangement="held", random_state=0), *wine, cv=10).mean() > 0.95
    )
    assert compiled().count("jit(_read_block)") == 1


@pytest.mark.slow
def test_a_search_with_two_processes_equals_one_with_one(wine):
    X, y = wine
    pipeline = make_pipeline(MinMaxScaler(), ReservoirClassifier("spin-torque", 30, arrangement="held", random_state=0))
    grid = {"reservoirclassifier__device__damping_rate": [0.5, 1.0], "reservoirclassifier__input_scale": [0.3, 1.0]}
    alone, together = (GridSearchCV(pipeline, grid, cv=3, n_jobs=jobs).fit(X, y) for jobs in (1, 2))
    for name in ("mean_test_score", "split0_test_score", "split2_test_score"):
        np.testing.assert_array_equal(alone.cv_results_[name], together.cv_results_[name])
    np.testing.assert_array_equal(
        alone.best_estimator_.decision_function(X), together.best_estimator_.decision_function(X)
    )


def test_threads_of_joblib_compute_in_double_precision(wine):
    from joblib import parallel_config

    X, y = wine
    reservoir = ReservoirRegressor("echo-state", 20, arrangement="held", random_state=0)
    with parallel_config("threading", n_jobs=2):
        together = cross_val_score(reservoir, X, y, cv=4)
    np.testing.assert_array_equal(together, cross_val_score(reservoir, X, y, cv=4))


@pytest.mark.slow
@pytest.mark.parametrize(
    "device",
    ["echo-state", Device("josephson", kerr=[0.001, 0.001], levels=4)],
)
def test_a_pickled_fit_answers_alike_in_another_process(tmp_path, wine, device):
    X, y = wine[0][:30], wine[1][:30]
    neurons = 16 if isinstance(device, Device) else 30
    fitted = ReservoirRegressor(device, neurons, arrangement="held", random_state=0).fit(X, y)
    (tmp_path / "fitted.pickle").write_bytes(pickle.dumps(fitted))
    np.savez(tmp_path / "both.npz", X=X, said=fitted.predict(X))
    program = (
        "import pickle, numpy as np\n"
        "both = np.load('both.npz')\n"
        "said = pickle.load(open('fitted.pickle', 'rb')).predict(both['X'])\n"
        "assert (said == both['said']).all(), abs(said - both['said']).max()\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, timeout=120)


def test_a_substrate_is_a_device(wine):
    X, y = wine
    integrators = twenty()
    held = ReservoirClassifier(integrators, arrangement="held", random_state=0)  # an input layer stands before it
    assert type(held.fit(X, y).device_).__name__ == "WithInput"
    series = ReservoirClassifier(integrators, arrangement="sequence", random_state=0)
    assert isinstance(series.fit(X, y).device_, LeakyIntegrators)
    assert series.score(X, y) > 0.9
    assert isinstance(pickle.loads(pickle.dumps(copy_of(series))).device, LeakyIntegrators)


def test_a_function_is_a_device_and_has_settings(wine):
    X, y = wine
    reservoir = ReservoirClassifier(echo_states, neurons=12, arrangement="held", random_state=0)
    assert reservoir.fit(X, y).device_.input_weights.shape == (12, 13)
    calm = copy_of(reservoir).set_params(device__spectral_radius=0.1).fit(X, y)
    np.testing.assert_allclose(calm.device_.recurrent_weights, 0.2 * reservoir.device_.recurrent_weights, rtol=1e-6)
    assert copy_of(calm).get_params()["device__spectral_radius"] == 0.1


def test_functions_are_asked_by_name_and_classes_are_no_functions(wine):
    X, y = wine

    def swapped(channels, key, neurons, density=0.5):
        return EchoStateNetwork.random(neurons, inputs=channels, density=density, key=key)

    def keyless(neurons, channels):
        return IN_SINGLE_PRECISION

    def by_place(n, c, k):
        return echo_states(n, c, k)

    for maker in (swapped, keyless, by_place, functools.partial(echo_states, spectral_radius=0.1)):
        fitted = ReservoirClassifier(maker, neurons=12, arrangement="held", random_state=0).fit(X, y)
        assert fitted.score(X, y) > 0.5
    wrong: list[tuple[Any, str]] = [
        (LeakyIntegrators, "device is a class, LeakyIntegrators"),
        (lambda: None, "cannot be made"),
        (lambda neurons, channels: None, "device gives a NoneType"),
    ]
    for device, message in wrong:
        with pytest.raises(ValueError, match=message):
            ReservoirClassifier(device, arrangement="held").fit(X, y)


def test_numbers_of_a_grid_of_numpys_are_numbers(wine):
    X, y = wine
    grid = {"neurons": np.array([10, 20]), "readings": np.array([1, 2]), "washout": np.array([0])}
    reservoir = ReservoirClassifier("relu", arrangement="held", random_state=0)
    search: Any = GridSearchCV(reservoir, grid, error_score="raise", cv=2)  # pyright: ignore[reportArgumentType]
    assert search.fit(X, y).best_score_ > 0.8


def test_units_do_not_matter_however_large_or_small_the_numbers(wine):
    X, y = wine
    for encoding in ("standard", "unit", "phase"):
        scores = [
            ReservoirClassifier(Device("relu", encoding=encoding), 20, arrangement="held", random_state=0)
            .fit(X * size, y)
            .score(X * size, y)
            for size in (1.0, 1e200, 1e-200)
        ]
        assert min(scores) > 0.9


def test_a_mixer_has_a_mode_for_each_of_two_channels():
    X = np.random.default_rng(0).normal(size=(6, 10, 2))
    assert isinstance(ReservoirTransformer("josephson", 16, random_state=0).fit(X).device_, JosephsonMixer)


@pytest.mark.slow
def test_shots_average_what_is_random():
    X = np.random.default_rng(0).normal(size=(1, 30))
    exact = ReservoirTransformer("josephson", 9, arrangement="sequence", random_state=0).fit(X)

    def error(shots: int) -> float:
        few = ReservoirTransformer("josephson", 9, arrangement="sequence", shots=shots, random_state=0).fit(X)
        return float(np.sqrt(np.mean((few.transform(X) - exact.transform(X)) ** 2)))

    # Of binomial shots: the error falls as their root, here by a factor of ten with 81 readings each.
    assert 6 < error(100) / error(10_000) < 16


def test_a_random_device_is_presented_as_often_as_it_has_shots():
    def qubits(neurons, channels, key):
        return QuantizedPerceptron.random((channels, neurons, neurons), width=2.0, key=key)

    X = np.random.default_rng(0).normal(size=(200, 3))

    def scatter(shots: int) -> float:
        reservoir = ReservoirTransformer(qubits, 8, arrangement="held", shots=shots, random_state=0).fit(X)
        repeated = reservoir.transform(X[:1] + 1e-9 * np.arange(200)[:, None])  # each is another sample
        return float(repeated.std(axis=0).mean())

    assert 3 < scatter(1) / scatter(16) < 5


def test_a_device_outside_is_asked_each_sample_once():
    asked = []

    def instrument(drives: np.ndarray) -> np.ndarray:
        asked.append(len(drives))
        return np.cumsum(np.tanh(np.reshape(drives, (len(drives), -1))[:, :1] * [1.0, 0.5]), axis=0)

    series = [np.random.default_rng(n).normal(size=(n, 1)) for n in (5, 9, 7)]
    outside = ExternalSubstrate(instrument, channels=1, neurons=2)
    found = ReservoirTransformer(outside, readings="last", random_state=0).fit(series).transform(series)
    assert asked == [5, 9, 7]
    points = np.concatenate(series)
    last = [np.tanh((each - points.mean()) / points.std() * [1.0, 0.5]).sum(axis=0) for each in series]
    np.testing.assert_allclose(found, last, rtol=1e-12)


def test_a_readout_that_gives_probabilities_gives_them(wine):
    X, y = wine
    plain = ReservoirClassifier(arrangement="held")
    assert not hasattr(plain, "predict_proba")
    assert hasattr(plain, "decision_function")
    forest = ReservoirClassifier(arrangement="held", readout=RandomForestClassifier(10, random_state=0), random_state=0)
    assert not hasattr(forest, "decision_function")
    np.testing.assert_allclose(forest.fit(X, y).predict_proba(X).sum(axis=1), 1.0)


def test_what_is_asked_wrongly_is_refused_in_a_sentence(wine):
    X, y = wine
    series = X.reshape(178, 13, 1)

    def refused(message: str, X=X, **settings) -> None:
        with pytest.raises(ValueError, match=message):
            ReservoirClassifier(**settings).fit(X, y)

    refused('say arrangement="held"')
    refused("needs none", X=series, arrangement="held")
    refused("must be \\(time, channels\\) with as many channels", X=[np.ones((3, 1 + (n > 5))) for n in range(178)])
    refused("it must be one of None, 'held', 'sequence'", arrangement="hold")
    refused("readings is 'first'", arrangement="held", readings="first")
    refused("washout is 1; it must be < the length", arrangement="held", washout=1)
    refused("input_scale is 0", arrangement="held", input_scale=0)
    refused("did you mean 'echo-state'", arrangement="held", device="echo")
    refused(
        "has no setting 'damping'|cannot be made of damping", arrangement="held", device=Device("echo-state", damping=1)
    )
    refused("encoding is 'unity'", arrangement="held", device=Device().set_params(encoding="unity"))
    refused("device gives a int", arrangement="held", device=3)
    refused("X is a list of series of numbers", X=[np.arange(3.0 + (n > 5)) for n in range(178)])
    refused("readout is a Ridge; it must be a classifier", arrangement="held", readout=Ridge())
    far = X.copy()
    far[:2, 3] = 1.7e308, -1.7e308
    refused("channel 3 of X reaches from -1.7e\\+308", arrangement="held", X=far)
    refused("\\(178, 1, 1, 13\\); it must be \\(samples, features\\)", X=X[:, None, None])
    refused("precision is 'half'", arrangement="held", precision="half")
    refused(
        "X\\[1\\] contains NaN|contains NaN", X=[np.ones((3, 1)), np.full((4, 1), np.nan), *[np.ones((3, 1))] * 176]
    )
    refused(
        "sample 0 are not finite", arrangement="held", device=Device("relu", encoding="raw", scale=100.0), X=X * 1e304
    )
    unfitted = ReservoirClassifier("echo", arrangement="held")
    with pytest.raises(ValueError, match="did you mean"):
        unfitted.fit(X, y)
    with pytest.raises(NotFittedError):
        unfitted.predict(X)
    fitted = ReservoirClassifier("relu", arrangement="held", random_state=0).fit(X, y)
    with pytest.raises(ValueError, match="needs none"):
        fitted.predict(series)
    with pytest.raises(ValueError, match="X has 12 features"):
        fitted.predict(X[:, :12])
