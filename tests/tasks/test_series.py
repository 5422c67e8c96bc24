"""Forecasts leak nothing from the future, and a file is read or refused in one clear line."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from morphax.tasks.series import Scaling, forecast, read_series, sunspots


@pytest.mark.parametrize("horizon", [1, 4])
def test_every_later_value_is_forecast_once_and_never_trained_on(horizon):
    values = np.random.default_rng(0).normal(size=60)
    task, scaling = forecast(values, horizon, train_fraction=0.6, washout=3)
    known = 36
    np.testing.assert_allclose(scaling.from_unit(task.test_targets[:, 0]), values[known:], atol=1e-5)
    np.testing.assert_allclose(scaling.from_unit(task.train_targets[:, 0]), values[horizon:known], atol=1e-5)
    inputs = jnp.concatenate([task.train_inputs, task.test_inputs])
    np.testing.assert_allclose(scaling.from_unit(inputs), values[:-horizon], atol=1e-5)
    assert (task.kind, task.washout) == ("regression", 3)


def test_later_values_change_nothing_in_training():
    values = np.random.default_rng(1).normal(size=60)
    changed = values.copy()
    changed[36:] = 1000 * np.arange(24)
    (before, scaling_before), (after, scaling_after) = (
        forecast(series, 2, train_fraction=0.6, washout=0) for series in (values, changed)
    )
    np.testing.assert_array_equal(before.train_inputs, after.train_inputs)
    np.testing.assert_array_equal(before.train_targets, after.train_targets)
    assert (scaling_before.low, scaling_before.high) == (scaling_after.low, scaling_after.high)
    assert float(after.test_targets.max()) > 1  # beyond the scale, not clipped


def test_training_part_fills_the_unit_scale():
    task, scaling = forecast(np.linspace(10.0, 30.0, 101), train_fraction=0.5, washout=0)
    assert float(task.train_inputs.min()) == -1
    assert float(task.train_targets.max()) == pytest.approx(1)
    values = jnp.array([-3.0, 12.5, 99.0])
    np.testing.assert_allclose(scaling.from_unit(scaling.to_unit(values)), values, rtol=1e-5)


def test_forecast_vmaps_and_differentiates_over_the_series():
    values = jax.random.normal(jax.random.key(0), (3, 40))
    tasks, scalings = jax.jit(jax.vmap(lambda row: forecast(row, 2)))(values)
    assert tasks.train_inputs.shape[0] == scalings.low.shape[0] == 3
    np.testing.assert_allclose(tasks.test_targets[1], forecast(values[1], 2)[0].test_targets, atol=1e-6)
    slope = jax.grad(lambda high: Scaling(jnp.array(0.0), high).to_unit(jnp.array(1.0)))(jnp.array(2.0))
    assert float(slope) == pytest.approx(-0.5)


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        (np.ones((5, 2)), {}, r"values has shape \(5, 2\); it must be one series"),
        (np.array([1.0, 2.0, np.nan]), {}, r"values\[2\] is nan; values must be finite"),
        (np.ones(50), {}, "values is 1 throughout the training part; it must vary"),
        (
            np.arange(20.0),
            {"horizon": 2},
            "values has 20 points, 13 of them for training; .* washout 10 need at least 14",
        ),
        (np.arange(20.0), {"horizon": 15, "washout": 0}, "horizon 15 and washout 0 need at least 17 for training"),
        (np.arange(50.0), {"horizon": 0}, "horizon is 0; it must be a whole number >= 1"),
        (np.arange(50.0), {"washout": -1}, "washout is -1; it must be a whole number >= 0"),
        (np.arange(50.0), {"train_fraction": 1.5}, "train_fraction is 1.5; it must be > 0 and <= 1"),
        (np.arange(50.0), {"train_fraction": 0.999}, "train_fraction is 0.999; of 50 points it leaves none"),
    ],
)
def test_bad_series_are_refused(values, options, message):
    with pytest.raises(ValueError, match=message):
        forecast(values, **options)


def test_sunspots_are_the_published_ones():
    years, values = sunspots()
    np.testing.assert_array_equal(years, np.arange(1700, 2009))
    assert dict(zip(years.tolist(), values.tolist(), strict=True))[1957] == 190.2
    assert values.min() == 0
    task, scaling = forecast(values)
    assert task.train_inputs.size + task.test_inputs.size == 308
    assert float(scaling.from_unit(task.test_targets[-1, 0])) == pytest.approx(2.9, abs=1e-4)


@pytest.fixture
def write(tmp_path):
    def to_file(text):
        path = tmp_path / "series.csv"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return to_file


@pytest.mark.parametrize(
    ("text", "column", "expected"),
    [
        ("a,b\n1,2\n3,4\n", None, ("b", [2, 4])),
        ("a,b\n1,2\n3,4\n", "a", ("a", [1, 3])),
        ("1,2\n3,4\n", None, ("2", [2, 4])),
        ("1,2\n3,4\n", "1", ("1", [1, 3])),
        ("5\n6\n7\n", None, ("1", [5, 6, 7])),
        ("value\n5\n6\n", None, ("value", [5, 6])),
        ("day,height,remark\nMon,1.5,low\nTue,-2e1,high\n", None, ("height", [1.5, -20])),
        ("Mon,1\nTue,2\n", None, ("2", [1, 2])),
        ("t,300,400\n0,1,2\n1,3,4\n", "400", ("400", [2, 4])),
        ("a;b\r\n1;2\r\n\r\n3;4\r\n", None, ("b", [2, 4])),
        ("a\tb\n1\t2\n3\t4\n", None, ("b", [2, 4])),
        ('"a, b", c\n"1",2\n3,4\n', "a, b", ("a, b", [1, 3])),
        ("\ufeffa,b\n1,2\n3,4\n", "a", ("a", [1, 3])),
    ],
)
def test_files_are_read(write, text, column, expected):
    name, values = read_series(write(text), column)
    assert (name, values.tolist()) == expected
    assert values.dtype == np.float64


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        (
            "year,activity\n1,2\n3,4\n",
            "Activty",
            "column is 'Activty', which .* did you mean 'activity'\\? .*year, act",
        ),
        ("year,activity\n1,2\n3,4\n", "xyz", r"column is 'xyz', which .* does not have; \(columns: year, activity\)"),
        ("a\n1\noops\n3\n", "a", "column 'a' holds 'oops' in row 3; it must hold finite numbers"),
        ("a\n1\ninf\n3\n", "a", "column 'a' holds 'inf' in row 3"),
        ("a,b\n1,2\n,4\n5,6\nNA,7\n", "a", "column 'a' misses 2 of 4 values, in row 3, 5"),
        ("a,b\n1,2\n,4\n5\n", "a", "row 4 has a different number of cells than the first row: 1, not 2"),
        ("a,b\nx,y\nu,v\n", None, r"has no column of numbers \(columns: a, b\)"),
        ("a\n1\n", None, "has too few rows of data: 1; a series needs at least 2"),
        ("", None, "is empty"),
        ("a\n1,5\n", None, "row 2 has a different number of cells than the first row: 2, not 1"),
        (b"a\n\xff\xfe\n1\n", None, "is not a CSV file in UTF-8"),
        ('a\n"1\n2\n', None, "is not a CSV file in UTF-8: unexpected end of data"),
    ],
)
def test_bad_files_are_refused_in_one_line(write, text, column, message):
    with pytest.raises(ValueError, match=message) as error:
        read_series(write(text), column)
    assert "\n" not in str(error.value)


def test_files_that_cannot_be_opened_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere.csv cannot be read: No such file"):
        read_series(tmp_path / "nowhere.csv")
    with pytest.raises(ValueError, match="cannot be read: Is a directory"):
        read_series(tmp_path)
