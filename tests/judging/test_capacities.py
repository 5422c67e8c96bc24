"""Capacities against devices of which they are known."""

import jax
import numpy as np
import pytest

from morphax import EchoStateNetwork, evolve
from morphax.judging import effective_dimension, information_processing_capacity
from morphax.judging.products import KINDS, affordable, kinds, shell
from morphax.judging.readings import WithNoise

POINTS = 20_000


def inputs_of(kind: str, points: int = POINTS) -> np.ndarray:
    rng = np.random.default_rng(3)
    if kind.startswith("AR"):
        given = np.zeros(points)
        for time, push in enumerate(rng.uniform(-1, 1, points)):
            given[time] = float(kind[2:]) * given[time - 1] + push
        return given
    return {
        "uniform": lambda: rng.uniform(-1, 1, points),
        "Gaussian": lambda: rng.normal(size=points),
        "exponential": lambda: rng.exponential(size=points),
        "four levels": lambda: rng.integers(0, 4, points).astype(float),
        "binary": lambda: rng.integers(0, 2, points).astype(float),
    }[kind]()


def delayed(inputs: np.ndarray, taps: int) -> np.ndarray:
    return np.stack([np.roll(inputs, delay) for delay in range(taps)], axis=1)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["uniform", "Gaussian", "exponential", "four levels", "binary", "AR.5", "AR.9"])
def test_a_delay_line_remembers_as_many_inputs_as_it_has_taps_whatever_the_input(kind):
    inputs = inputs_of(kind)
    found = information_processing_capacity(inputs, delayed(inputs, 11))
    assert float(found.total) == pytest.approx(11, abs=3 * float(found.total_error) + 0.02)
    assert float(found.by_degree[0]) == pytest.approx(11, abs=0.05)
    if not kind.startswith("AR"):  # otherwise it holds older innovations, too
        assert found.memory.values[:11] == pytest.approx(np.ones(11), abs=0.01)
        assert found.memory.values[11:] == pytest.approx(np.zeros(40), abs=0.01)


def test_noise_of_the_size_of_the_signal_leaves_half():
    r"""N / (1 + sigma^2), which is the effective dimension of the line without noise."""
    inputs = inputs_of("uniform")
    line = delayed(inputs, 16)
    noisy = line + inputs.std() * np.random.default_rng(0).normal(size=line.shape)
    found = information_processing_capacity(inputs, noisy)
    assert float(found.total) == pytest.approx(8, abs=3 * float(found.total_error))
    assert effective_dimension(line, [1.0])[0] == pytest.approx(8, abs=0.02)


def test_single_products_are_found_where_they_are():
    inputs = inputs_of("uniform")
    past = delayed(inputs, 13)
    products = np.stack([past[:, 3] ** 2, past[:, 0] * past[:, 1], past[:, 2] * past[:, 5] * past[:, 7]], axis=1)
    found = information_processing_capacity(inputs, products, max_delay=12)
    significant = found.isel(product=found.significant.values)
    assert set(significant.factors.values) == {"P2(u[t-3])", "P1(u[t]) P1(u[t-1])", "P1(u[t-2]) P1(u[t-5]) P1(u[t-7])"}
    assert significant.capacity.values == pytest.approx(np.ones(3), abs=0.01)
    assert float(found.total) == pytest.approx(3, abs=3 * float(found.total_error) + 0.02)


def test_products_of_a_binary_input_are_parities():
    inputs = inputs_of("binary")
    past = 2 * delayed(inputs, 5) - 1
    parities = np.stack([past[:, 0] * past[:, 1], past[:, 1] * past[:, 2] * past[:, 4]], axis=1)
    found = information_processing_capacity(inputs, parities, max_delay=10)
    assert found.by_degree.values[:4] == pytest.approx([0, 1, 1, 0], abs=0.02)


def test_channels_have_products_of_their_own():
    rng = np.random.default_rng(1)
    inputs = rng.uniform(-1, 1, (POINTS, 2))
    responses = np.stack([inputs[:, 0] * np.roll(inputs[:, 1], 2), np.roll(inputs[:, 1], 4)], axis=1)
    found = information_processing_capacity(inputs, responses, max_degree=3, max_delay=5)
    significant = found.isel(product=found.significant.values)
    assert set(significant.factors.values) == {"P1(u0[t]) P1(u1[t-2])", "P1(u1[t-4])"}


@pytest.mark.slow
def test_a_fading_network_uses_all_of_its_readings():
    """Whatever its scale: capacities add up to the number of readings (Dambre et al. 2012)."""
    inputs = jax.random.uniform(jax.random.key(1), (10_000,), minval=-1.0, maxval=1.0)
    network = EchoStateNetwork.random(15, key=jax.random.key(2))
    devices = [np.asarray(evolve(network, scale * inputs)[0]) for scale in (0.1, 0.5)]
    found = information_processing_capacity(np.asarray(inputs), devices)
    assert found["rank"].values.tolist() == [15, 15]
    assert found.total.values == pytest.approx([15, 15], rel=0.04)
    assert (found.raw.sum("product") > 18).all()  # what is without a chance level
    # The larger the input, the less linear.
    assert found.by_degree.values[0, 0] > found.by_degree.values[0, 1] + 1


@pytest.mark.slow
def test_a_long_recording_gives_the_whole_to_two_percent():
    inputs = jax.random.uniform(jax.random.key(1), (100_000,), minval=-1.0, maxval=1.0)
    network = EchoStateNetwork.random(50, key=jax.random.key(2))
    found = information_processing_capacity(np.asarray(inputs), np.asarray(evolve(network, 0.1 * inputs)[0]))
    assert float(found.total) == pytest.approx(50, rel=0.02)


def test_what_does_not_follow_the_input_has_no_capacity():
    """Of some 7,000 products at most 4 seem to hold something, at p = 1e-4 each."""
    rng = np.random.default_rng(5)
    tried, wrong = 0, 0
    while tried < 7000:
        inputs = rng.uniform(-1, 1, 4000)
        found = information_processing_capacity(inputs, rng.normal(size=(4000, 20)), p_value=0.999)
        tried += found.sizes["product"]
        wrong += int((found.raw > threshold_of(found, 1e-4)).sum())
        assert float(found.total) == pytest.approx(0, abs=4 * float(found.total_error))
    assert wrong <= 4


def threshold_of(found, p_value):
    from scipy.stats import beta

    rank, points = int(found["rank"]), 4000 - 200
    level = beta.isf(p_value, rank / 2, (points - 1 - rank) / 2)
    return level * np.maximum(1.0, found.chance * points / rank)


@pytest.mark.slow
def test_intervals_cover_what_is_true():
    """Nominal 95 %: of 200 recordings between 90 and 99 %."""
    inside = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        inputs = rng.uniform(-1, 1, 3000)
        line = delayed(inputs, 8) + inputs.std() * rng.normal(size=(3000, 8))
        found = information_processing_capacity(inputs, line, max_degree=3, max_delay=20)
        inside += bool(found.total_low <= 4 <= found.total_high)
    assert 180 <= inside <= 198


def test_constant_and_equal_readings_count_once():
    inputs = inputs_of("uniform", 4000)
    line = delayed(inputs, 3)
    responses = np.hstack([line, line[:, :1], np.full((4000, 1), 7.0), 1e-3 * line[:, :1] + 40.0])
    found = information_processing_capacity(inputs, responses, max_degree=2, max_delay=5)
    assert int(found["rank"]) == 3
    assert float(found.total) == pytest.approx(3, abs=0.05)


def test_what_is_less_than_the_rounding_of_readings_is_not_counted():
    """Single precision, or the steps of a converter, make no readings independent."""
    inputs = inputs_of("uniform", 4000)
    past = delayed(inputs, 2)
    mixed = past[:, :1] + 1e-9 * past
    assert int(information_processing_capacity(inputs, mixed, max_degree=1, max_delay=3)["rank"]) == 2
    single = mixed.astype(np.float32)
    assert int(information_processing_capacity(inputs, single, max_degree=1, max_delay=3)["rank"]) == 1
    steps = np.round(mixed * 200)
    assert int(information_processing_capacity(inputs, steps, max_degree=1, max_delay=3)["rank"]) == 1


def test_a_coarse_reading_takes_nothing_from_fine_ones():
    inputs = inputs_of("uniform", 8000)
    past = delayed(inputs, 6)
    fine = past[:, :1] + 0.03 * past
    coarse = np.round(delayed(inputs, 7)[:, 6:] * 8)
    found = information_processing_capacity(inputs, np.hstack([fine, coarse]), max_degree=1, max_delay=8)
    assert int(found["rank"]) == 7
    assert float(found.total) == pytest.approx(7, abs=0.15)
    assert float(found.linear_memory) == pytest.approx(float(found.total))


def test_bits_of_readings_only_take():
    """What a converter leaves grows with its bits."""
    inputs = inputs_of("uniform", 6000)
    past = delayed(inputs, 8)
    read = past.sum(axis=1, keepdims=True) + 0.1 * past
    totals = []
    for bits in (3, 4, 6, 8, 12):
        step = np.ptp(read, axis=0) / (2**bits - 1)
        rounded = np.round(read / step) * step
        found = information_processing_capacity(inputs, rounded, max_degree=1, max_delay=10)
        totals.append(float(found.total))
    assert np.all(np.diff(totals) > -0.02)
    assert totals[-1] == pytest.approx(8, abs=0.05)


def test_of_many_channels_the_degree_is_what_can_be_looked_at():
    assert affordable([8], 8) == 8
    assert affordable([8] * 32, 8) == 3
    for channels in (8, 12):
        degree = affordable([8] * channels, 8)
        assert len(kinds([8] * channels, degree)) <= KINDS < len(kinds([8] * channels, degree + 1))
    inputs = np.random.default_rng(0).uniform(-1, 1, (4000, 32))
    found = information_processing_capacity(inputs, np.roll(inputs, 1, axis=0)[:, :4], max_delay=3, max_products=500)
    assert float(found.total) == pytest.approx(4, abs=0.2)


def test_noise_is_the_same_in_whatever_pieces_it_is_read():
    noisy = WithNoise(np.zeros((10_000, 2)), np.array([1.0, 3.0]), seed=7)
    whole = noisy[0:10_000]
    assert np.array_equal(noisy[4000:9000], whole[4000:9000])
    assert np.array_equal(noisy[8192:8193], whole[8192:8193])
    assert whole.std(axis=0) == pytest.approx([1, 3], rel=0.03)
    assert abs(np.corrcoef(whole, rowvar=False)[0, 1]) < 0.04


def test_shells_hold_every_product_once():
    """All products of a kind up to a delay: so many ways to give its factors variables of their own."""
    for kind, number in ((((0, 1),), 5), (((0, 1), (0, 2)), 20), (((0, 1), (0, 1)), 10), (((0, 1), (1, 1)), 25)):
        products = [each for longest in range(5) for each in shell(kind, longest)]
        assert len(products) == len(set(products)) == number
    assert kinds([3], 3) == [((0, 1),), ((0, 2),), ((0, 1), (0, 1)), ((0, 3),), ((0, 1), (0, 2)), ((0, 1),) * 3]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inputs": np.zeros(1000)}, "inputs of channel 0 are all 0; an input must vary"),
        ({"inputs": np.full(1000, np.nan)}, "inputs"),
        ({"responses": np.zeros((999, 2))}, "responses have 999 points of time; inputs have 1000"),
        ({"responses": np.where(np.arange(2000).reshape(1000, 2) == 1501, np.nan, 1.0)}, r"responses\[750, 1\] is nan"),
        ({"washout": 10}, "washout is 10; it must be a whole number from 50 to 999"),
        ({"max_degree": 0}, "max_degree is 0"),
        ({"max_products": 0}, "max_products is 0"),
        ({"p_value": 0.0}, "p_value is 0.0"),
        ({"innovations": "yes"}, "innovations is 'yes'"),
    ],
)
def test_bad_arguments_are_refused(change, message):
    rng = np.random.default_rng(0)
    arguments = {"inputs": rng.normal(size=1000), "responses": rng.normal(size=(1000, 2))} | change
    with pytest.raises(ValueError, match=message):
        information_processing_capacity(**arguments)
