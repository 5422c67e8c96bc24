"""MNIST: what is installed, and what is found, verified, refused."""

import gzip
import hashlib
import sys
from importlib import resources
from pathlib import Path

import jax
import numpy as np
import pytest

from morphax.files import KnownFile, received
from morphax.tasks import mnist, one_hot
from morphax.tasks.idx import SHIPPED, load_idx, read_idx, read_shipped
from morphax.tasks.mnist import CHECKSUMS, data_directory, mnist_data

IMAGES, LABELS = CHECKSUMS


@pytest.fixture(autouse=True)
def _nowhere(tmp_path, monkeypatch):
    """No data directory of the machine, and no net: nothing but what is installed and what a test puts there."""

    def offline(*arguments, **options):
        raise OSError("no route to host")

    monkeypatch.setenv("MORPHAX_DATA_DIR", str(tmp_path))
    monkeypatch.setattr("pooch.retrieve", offline)


@pytest.fixture(scope="module")
def synthetic():
    """Both files of 60,000 training images, by name: the first pixels of an image are its number, in base 250."""
    numbers = np.arange(60_000)
    images = np.zeros((60_000, 784), np.uint8)
    images[:, 0], images[:, 1] = numbers // 250, numbers % 250
    header = bytes([0, 0, 8, 3]) + b"".join(size.to_bytes(4, "big") for size in (60_000, 28, 28))
    labels = bytes([0, 0, 8, 1]) + (60_000).to_bytes(4, "big") + (numbers % 10).astype(np.uint8).tobytes()
    return {IMAGES: header + images.tobytes(), LABELS: labels}


@pytest.fixture
def folder(tmp_path, monkeypatch, synthetic):
    """A data directory with the synthetic training images, as if they were the original ones."""
    (tmp_path / "mnist").mkdir()
    for name, content in synthetic.items():
        monkeypatch.setitem(CHECKSUMS, name, hashlib.sha256(content).hexdigest())
        (tmp_path / "mnist" / f"{name}.gz").write_bytes(gzip.compress(content, 1))
    return tmp_path / "mnist"


def numbers(task):
    """Which of the synthetic images a task trains with."""
    pixels = np.round((np.asarray(task.train_inputs).reshape(-1, 784) * 0.3081 + 0.1307) * 255).astype(int)
    return 250 * pixels[:, 0] + pixels[:, 1]


def test_the_first_images_are_the_known_ones():
    task = mnist(5_000, 10_000)
    assert np.argmax(task.train_targets[:10], -1).tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert np.argmax(task.test_targets[:10], -1).tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    pixels = np.asarray(task.train_inputs) * 0.3081 + 0.1307
    assert pixels.shape == (5_000, 784)
    assert pixels.min() == pytest.approx(0, abs=1e-6)
    assert pixels.max() == pytest.approx(1, abs=1e-6)
    assert pixels.mean() == pytest.approx(0.1307, abs=2e-3)


def test_a_key_draws_other_images_and_again_the_same():
    first, again, other = (mnist(200, 100, key=jax.random.key(k), drawn_from=5_000) for k in (0, 0, 1))
    np.testing.assert_array_equal(first.train_inputs, again.train_inputs)
    assert not np.array_equal(first.train_inputs, other.train_inputs)
    assert len(np.unique(np.asarray(first.train_inputs), axis=0)) == 200


@pytest.mark.parametrize("name", SHIPPED)
def test_what_is_installed_is_checked(tmp_path, monkeypatch, name):
    """A bit that flipped on a disk, or a file of another version."""
    content = gzip.decompress((resources.files("morphax.tasks") / "data" / f"{name}.gz").read_bytes())
    assert hashlib.sha256(content).hexdigest() == SHIPPED[name]
    (tmp_path / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ValueError, match=f"not {SHIPPED[name]}; install morphax anew") as caught:
        load_idx(tmp_path / name, SHIPPED[name], "install morphax anew")
    assert str(tmp_path / name) in str(caught.value)
    monkeypatch.setitem(SHIPPED, name, "0" * 64)
    with pytest.raises(ValueError, match="install morphax anew"):
        read_shipped(name)


def test_source_and_licence_lie_beside_the_data():
    text = (resources.files("morphax.tasks") / "data" / "README.md").read_text(encoding="utf-8")
    assert "CC BY-SA 3.0" in text
    assert "CC BY 4.0" in text


def test_later_images_come_from_the_files(folder):
    task = mnist(6_000, 10)
    np.testing.assert_array_equal(numbers(task), np.arange(6_000))
    np.testing.assert_array_equal(np.argmax(task.train_targets, -1), np.arange(6_000) % 10)
    assert np.argmax(task.test_targets, -1).tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]


def test_a_key_draws_from_all_images_or_from_the_first(folder):
    chosen = numbers(mnist(2_000, 10, key=jax.random.key(3)))
    assert len(np.unique(chosen)) == 2_000
    # Uniform over 60,000: below 5,000 lie a twelfth, to five standard deviations.
    assert abs(np.mean(chosen < 5_000) - 1 / 12) < 5 * np.sqrt(1 / 12 * 11 / 12 / 2_000)
    few = numbers(mnist(2_000, 10, key=jax.random.key(3), drawn_from=6_000))
    assert len(np.unique(few)) == 2_000
    assert few.max() < 6_000


def test_what_the_installed_images_answer_looks_at_no_folder(folder):
    for path in folder.iterdir():
        path.write_bytes(b"damaged")
    mnist(5_000, 10_000)
    mnist(5_000, 10_000, key=jax.random.key(0), drawn_from=5_000)
    key = jax.random.key(0)
    for later in (
        lambda: mnist(5_001, 10),
        lambda: mnist(10, 10, key=key),
        lambda: mnist(10, 10, key=key, drawn_from=5_001),
    ):
        with pytest.raises(ValueError, match="cannot be unpacked"):
            later()


def test_uncompressed_files_serve_as_well(folder, synthetic):
    for name, content in synthetic.items():
        (folder / f"{name}.gz").unlink()
        (folder / name).write_bytes(content)
    np.testing.assert_array_equal(numbers(mnist(6_000, 10)), np.arange(6_000))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda content: content[:-1000], "content should be {}"),
        (lambda content: gzip.compress(gzip.decompress(content)[:-1], 1), "SHA-256 of its uncompressed bytes is .*{}"),
        (lambda content: b"<html>not found</html>", "cannot be unpacked"),
    ],
)
def test_corrupt_files_are_named_with_what_is_wrong(folder, spoil, message):
    path = folder / f"{IMAGES}.gz"
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(ValueError, match=message.format(CHECKSUMS[IMAGES])) as caught:
        mnist(6_000, 10)
    assert str(path) in str(caught.value)


def test_without_files_and_net_the_error_says_where_to_put_them(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"put {IMAGES} and {LABELS} there") as caught:
        mnist(6_000, 10)
    assert str(tmp_path / "mnist") in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("package", ["pooch", "tqdm"])
def test_without_files_and_what_downloads_them_the_error_says_what_to_install(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(FileNotFoundError, match=rf'put {IMAGES}.*pip install "morphax\[download\]"'):
        mnist(6_000, 10)


def test_what_is_downloaded_is_verified_and_kept(tmp_path, monkeypatch, folder):
    """A mirror that answers with something else is passed over."""
    source, asked = folder.rename(tmp_path / "elsewhere"), []

    def retrieve(url, *, known_hash, fname, path, progressbar):
        asked.append(url)
        assert progressbar
        Path(path).mkdir(parents=True, exist_ok=True)
        target = Path(path) / fname
        good = "storage.googleapis" in url
        target.write_bytes((source / fname).read_bytes() if good else gzip.compress(b"maintenance"))
        return str(target)

    monkeypatch.setattr("pooch.retrieve", retrieve)
    assert mnist(6_000, 10).train_inputs.shape == (6_000, 784)
    assert len(asked) == 4
    mnist(6_000, 10)
    assert len(asked) == 4


def test_what_another_machine_sent_is_found(tmp_path, monkeypatch, synthetic):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    for name, content in synthetic.items():
        monkeypatch.setitem(CHECKSUMS, name, hashlib.sha256(content).hexdigest())
    assert not any(isinstance(entry, KnownFile) for entry in mnist_data(5_000).values())
    files = {name: entry for name, entry in mnist_data(5_001).items() if isinstance(entry, KnownFile)}
    assert {name: file.sha256 for name, file in files.items()} == CHECKSUMS
    for name, file in files.items():
        assert not file.is_here()
        with pytest.raises(FileNotFoundError, match=f"{name} is not in .* and could not be downloaded"):
            file.path()
        target = received(file.sha256, ".gz")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(gzip.compress(synthetic[name], 1))
        assert file.is_here()
        assert file.path() == target
    assert numbers(mnist(5_001, 10))[-1] == 5_000


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


@pytest.mark.parametrize(
    "change",
    [
        {"train_images": 0},
        {"train_images": 60_001},
        {"test_images": 10_001},
        {"drawn_from": 60_001, "key": jax.random.key(0)},
        {"drawn_from": 99, "key": jax.random.key(0), "train_images": 100},
    ],
)
def test_numbers_of_images_are_checked(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        mnist(**change)


def test_a_home_folder_is_found(monkeypatch):
    monkeypatch.setenv("MORPHAX_DATA_DIR", "~/data")
    assert data_directory() == Path.home() / "data"


def test_an_idx_file_of_impossible_size_is_refused():
    with pytest.raises(ValueError, match="truncated: shape"):
        read_idx(bytes([0, 0, 8, 4]) + 4 * (65_536).to_bytes(4, "big"))
