"""Forecasts leak nothing from the future, and a file is read or refused in one clear line."""

import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from morphax.files import digest_of_file
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


def test_a_small_change_of_a_large_number_is_kept_in_single_precision():
    values = 1.7e9 + 10 * np.sin(np.arange(60.0))
    task, scaling = forecast(values, washout=0)
    assert task.train_inputs.dtype == jnp.float32
    np.testing.assert_allclose(scaling.from_unit(task.test_targets[:, 0]), values[40:], rtol=0, atol=1e-5)
    assert scaling.to_unit(values).dtype == jnp.float32
    np.testing.assert_allclose(scaling.to_unit(values[1:40]), task.train_targets[:, 0])


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
        (
            np.r_[np.arange(49.0), 1e300],
            {},
            r"values\[49\] is 1e\+300; scaled by the training part, from 0 to 33",
        ),
        (np.r_[-1e308, 1e308, np.arange(48.0)], {}, r"values\[1\] is 1e\+308; .* it is too large for float32"),
        (np.array(["1", "x"]), {}, "values is .* it must be real"),
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
        ("index;height\n0;1,5\n1;-2,25e1\n2;3\n", None, ("height", [1.5, -22.5, 3])),
        ("0\t1,5\n1\t,5\n", None, ("2", [1.5, 0.5])),
        ("a;b\n0,125;x\n12,345;y\n", None, ("a", [0.125, 12.345])),
        ("a;date\n1,5;01.02.2024\n2,5;02.02.2024\n", None, ("a", [1.5, 2.5])),
        ("date,a,remark\n2024-01-01,1,\n2024-01-02,2,3 broke\n", None, ("a", [1, 2])),
        ("t,300,400\n0,1,2\n,3,4\n2,5,6\n", None, ("400", [2, 4, 6])),
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
        ("year,activity\n1,2\n3,4\n", "xyz", r"column is 'xyz', which .* does not have \(columns: year, activity\)"),
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
        ('i,a\n1,"1,5"\n2,"2,5"\n', None, "column 'a' holds '1,5' in row 2; .* write decimal points"),
        ("i,a\n1,1\n2,oops\n3,3\n", None, "column 'a' holds 'oops' in row 3; it must hold finite numbers$"),
        ("i,a\n1,1\n2,inf\n3,inf\n", None, "column 'a' holds 'inf' in row 3"),
        ("t,300,400\n0,1,2\nx,3,4\n2,5,6\n", "t", "column 't' holds 'x' in row 3"),
        ("i;a\n1;1,5\n2;2.5\n", None, "'2.5' in row 3 has a decimal point and '1,5' in row 2 a comma"),
        ("i;a\n1;1,500\n2;2,500\n", None, "'1,500' in row 2 may be 1.500 or 1500, and so may all"),
        ("i;a\n1;1.234,5\n2;2,5\n", None, "column 'a' holds '1.234,5' in row 2; .* no thousands separators"),
        ("i;a\n1;1 234\n2;2 345\n", None, "column 'a' holds '1 234' in row 2; .* no thousands separators"),
        ("a,b,a\n1,2,3\n4,5,6\n", "a", r"has 2 columns called 'a' \(1, 3\); each must have a name of its own"),
        ("a,b,a\n1,2,3\n4,5,6\n", None, r"has 2 columns called 'a' \(1, 3\)"),
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


def test_what_never_ends_is_refused_before_it_is_read(tmp_path):
    endless, huge = tmp_path / "pipe.csv", tmp_path / "huge.csv"
    os.mkfifo(endless)
    with huge.open("wb") as file:
        file.truncate(10**12)  # takes no space
    for path in (endless, Path("/dev/zero")):
        with pytest.raises(ValueError, match=f"{path} cannot be read: No regular file but a pipe or a device"):
            read_series(path)
        with pytest.raises(OSError, match="No regular file"):
            digest_of_file(path)
    with pytest.raises(ValueError, match=r"huge\.csv cannot be read: It holds 1000000 MB, and at most 200 MB are read"):
        read_series(huge)
