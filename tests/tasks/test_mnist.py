"""MNIST: found, verified, refused."""

import gzip
import os
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from morphax.tasks import mnist, one_hot
from morphax.tasks.mnist import CHECKSUMS, data_directory, read_idx

HERE = os.environ.get("MORPHAX_DATA_DIR")
needs_data = pytest.mark.skipif(not HERE, reason="no data directory")


@needs_data
def test_the_first_images_are_the_known_ones():
    task = mnist(5_000, 10_000)
    assert np.argmax(task.train_targets[:10], -1).tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert np.argmax(task.test_targets[:10], -1).tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    pixels = np.asarray(task.train_inputs) * 0.3081 + 0.1307
    assert pixels.shape == (5_000, 1, 784)
    assert pixels.min() == pytest.approx(0, abs=1e-6)
    assert pixels.max() == pytest.approx(1, abs=1e-6)
    assert pixels.mean() == pytest.approx(0.1307, abs=2e-3)


@needs_data
def test_a_key_draws_other_images_and_again_the_same():
    first, again, other = (mnist(200, 100, key=jax.random.key(k)) for k in (0, 0, 1))
    np.testing.assert_array_equal(first.train_inputs, again.train_inputs)
    assert not np.array_equal(first.train_inputs, other.train_inputs)
    assert len(np.unique(np.asarray(first.train_inputs[:, 0]), axis=0)) == 200


@needs_data
def test_uncompressed_files_serve_as_well(tmp_path, monkeypatch):
    assert HERE is not None
    (tmp_path / "mnist").mkdir()
    for name in CHECKSUMS:
        content = gzip.decompress((Path(HERE) / "mnist" / f"{name}.gz").read_bytes())
        (tmp_path / "mnist" / name).write_bytes(content)
    expected = mnist(10, 10).train_inputs
    monkeypatch.setenv("MORPHAX_DATA_DIR", str(tmp_path))
    np.testing.assert_array_equal(mnist(10, 10).train_inputs, expected)


@needs_data
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda content: content[:-1000], "content should be ba891046"),
        (lambda content: gzip.compress(gzip.decompress(content)[:-1], 1), "SHA-256 of its uncompressed bytes is"),
        (lambda content: b"<html>not found</html>", "cannot be unpacked"),
    ],
)
def test_corrupt_files_are_named_with_what_is_wrong(tmp_path, monkeypatch, spoil, message):
    assert HERE is not None
    shutil.copytree(Path(HERE) / "mnist", tmp_path / "mnist")
    path = tmp_path / "mnist" / "train-images-idx3-ubyte.gz"
    path.write_bytes(spoil(path.read_bytes()))
    monkeypatch.setenv("MORPHAX_DATA_DIR", str(tmp_path))
    with pytest.raises(ValueError, match=message) as caught:
        mnist(10, 10)
    assert str(path) in str(caught.value)


def test_without_files_and_net_the_error_says_where_to_put_them(tmp_path, monkeypatch):
    def offline(*arguments, **options):
        raise OSError("no route to host")

    monkeypatch.setenv("MORPHAX_DATA_DIR", str(tmp_path))
    monkeypatch.setattr("pooch.retrieve", offline)
    with pytest.raises(FileNotFoundError, match="Put the four files") as caught:
        mnist(10, 10)
    assert str(tmp_path / "mnist") in str(caught.value)


@needs_data
def test_what_is_downloaded_is_verified_and_kept(tmp_path, monkeypatch):
    """A mirror that answers with something else is passed over."""
    assert HERE is not None
    source, asked = Path(HERE) / "mnist", []

    def retrieve(url, *, known_hash, fname, path):
        asked.append(url)
        Path(path).mkdir(parents=True, exist_ok=True)
        target = Path(path) / fname
        good = "storage.googleapis" in url
        target.write_bytes((source / fname).read_bytes() if good else gzip.compress(b"maintenance"))
        return str(target)

    monkeypatch.setenv("MORPHAX_DATA_DIR", str(tmp_path))
    monkeypatch.setattr("pooch.retrieve", retrieve)
    assert mnist(10, 10).train_inputs.shape == (10, 1, 784)
    assert len(asked) == 8
    mnist(10, 10)
    assert len(asked) == 8


def test_the_default_directory_is_the_users_cache(monkeypatch):
    monkeypatch.delenv("MORPHAX_DATA_DIR", raising=False)
    assert data_directory().name == "morphax"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "begins with nothing"),
        (b"\x1f\x8b\x08\x00", "not an IDX file"),
        (bytes([0, 0, 8, 2, 0, 0, 0]), "do not hold 2 dimensions"),
        (bytes([0, 0, 8, 1, 0, 0, 0, 3, 1, 2]), "truncated: shape .3,. needs 11 bytes, there are 10"),
        (bytes([0, 0, 8, 1, 0, 0, 0, 1, 1, 2]), "too long"),
    ],
)
def test_bytes_that_are_no_idx_file_are_refused(content, message):
    with pytest.raises(ValueError, match=message):
        read_idx(content)


@pytest.mark.parametrize(("labels", "message"), [([0, 10], r"labels\[1\] is 10"), ([-1], "is -1"), ([[1]], "shape")])
def test_labels_outside_the_classes_are_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        one_hot(np.array(labels), 10)


@pytest.mark.parametrize("change", [{"train_images": 0}, {"train_images": 60_001}, {"test_images": 10_001}])
def test_numbers_of_images_are_checked(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        mnist(**change)


def test_a_home_folder_is_found(monkeypatch):
    monkeypatch.setenv("MORPHAX_DATA_DIR", "~/data")
    assert data_directory() == Path.home() / "data"


def test_an_idx_file_of_impossible_size_is_refused():
    with pytest.raises(ValueError, match="truncated: shape"):
        read_idx(bytes([0, 0, 8, 4]) + 4 * (65_536).to_bytes(4, "big"))
