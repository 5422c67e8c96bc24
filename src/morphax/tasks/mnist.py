"""MNIST: 70,000 handwritten digits of 28 x 28 pixels, from a folder or from the net, verified."""

import gzip
import hashlib
import math
import os
import zlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pooch
from jaxtyping import PRNGKeyArray

from morphax._checks import check_count
from morphax.tasks.base import Task, one_hot

MEAN, DEVIATION = 0.1307, 0.3081  # of the training pixels in [0, 1]
MIRRORS = ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/")
# SHA-256 of the uncompressed files: archives are compressed anew now and then.
CHECKSUMS = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def mnist(train_images: int = 5_000, test_images: int = 10_000, *, key: PRNGKeyArray | None = None) -> Task:
    r"""Which digit is it? Every image is one input of 784 pixels, $(x / 255 - 0.1307) / 0.3081$.

    The four files are taken from `mnist/` in the data directory - the environment variable `MORPHAX_DATA_DIR`, by
    default the user's cache folder - compressed (`.gz`) or not. What is missing is downloaded there.

    **Arguments:**

    - `train_images`: 1 to 60,000 of the training set.
    - `test_images`: 1 to 10,000 of the test set.
    - `key`: draws both; None takes the first ones.

    **Returns:** a `Task` of examples: inputs (images, 784), targets (images, 10), one-hot.

    **Raises:** `ValueError` for numbers out of range and for a file whose bytes are not those of MNIST, naming the
    checksum; `FileNotFoundError` when files are missing and cannot be downloaded, saying where to put them.

    Source: LeCun, Cortes & Burges, "The MNIST database of handwritten digits" (1998); 5,000 training and 10,000
    validation images as in Barney, Lakhdar-Hamina & Galitski, "Natural quantization of neural networks" (2025), Tab. I.

        >>> import jax, os, pytest
        >>> from morphax.tasks import mnist
        >>> if "MORPHAX_DATA_DIR" not in os.environ:
        ...     pytest.skip("no data directory")
        >>> task = mnist(100, 50, key=jax.random.key(0))
        >>> task.train_inputs.shape, task.test_targets.shape
        ((100, 784), (50, 10))
    """
    check_count("train_images", train_images, 1, 60_000)
    check_count("test_images", test_images, 1, 10_000)
    keys = (None, None) if key is None else tuple(jax.random.split(key))
    parts = []
    for prefix, number, part_key in zip(("train", "t10k"), (train_images, test_images), keys, strict=True):
        images, labels = (_load(f"{prefix}-{kind}") for kind in ("images-idx3-ubyte", "labels-idx1-ubyte"))
        chosen = np.arange(number) if part_key is None else np.asarray(jax.random.permutation(part_key, len(images)))
        chosen = chosen[:number]
        pixels = (images[chosen].reshape(number, -1) / 255 - MEAN) / DEVIATION
        parts += [jnp.asarray(pixels, jnp.result_type(float)), one_hot(labels[chosen], 10)]
    return Task(
        *parts,
        kind="classification",
        arrangement="inputs",
        reference="Barney, Lakhdar-Hamina & Galitski (2025), Tab. I",
    )


def data_directory() -> Path:
    """Where data sets lie: the environment variable `MORPHAX_DATA_DIR`, or the user's cache folder."""
    return Path(os.environ.get("MORPHAX_DATA_DIR") or pooch.os_cache("morphax")).expanduser()


def read_idx(content: bytes, name: str = "content") -> np.ndarray:
    """The array in the bytes of an IDX file.

    **Raises:** `ValueError`, naming `name`, when it is none, or is truncated or too long.

        >>> from morphax.tasks.mnist import read_idx
        >>> read_idx(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 8, 9])).tolist()
        [7, 8, 9]
    """
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in IDX_TYPES:
        raise ValueError(f"{name} is not an IDX file: it begins with {content[:4].hex(' ') or 'nothing'}")
    kind, dimensions = np.dtype(IDX_TYPES[content[2]]), content[3]
    start = 4 + 4 * dimensions
    if len(content) < start:
        raise ValueError(f"{name} is truncated: {len(content)} bytes do not hold {dimensions} dimensions")
    shape = tuple(np.frombuffer(content, ">u4", dimensions, 4).tolist())
    expected = start + math.prod(shape) * kind.itemsize
    if len(content) != expected:
        raise ValueError(
            f"{name} is {'truncated' if len(content) < expected else 'too long'}: shape {shape} needs "
            f"{expected} bytes, there are {len(content)}"
        )
    return np.frombuffer(content, kind, offset=start).reshape(shape)


def _load(name: str) -> np.ndarray:
    """One of the four files, found or downloaded, with the right bytes."""
    folder = data_directory() / "mnist"
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return read_idx(_verified(path, name), str(path))
    failures = []
    for mirror in MIRRORS:
        try:
            path = Path(pooch.retrieve(f"{mirror}{name}.gz", known_hash=None, fname=f"{name}.gz", path=folder))
        except (OSError, ValueError) as error:
            failures.append(f"{mirror}: {error}")
            continue
        try:
            return read_idx(_verified(path, name), str(path))
        except ValueError as error:
            path.unlink()
            failures.append(f"{mirror}: {error}")
    raise FileNotFoundError(
        f"{name} is not in {folder} and could not be downloaded. Put the four files {', '.join(CHECKSUMS)} there, with "
        f"or without .gz, or set MORPHAX_DATA_DIR to the folder that holds mnist/. ({'; '.join(failures)})"
    )


def _verified(path: Path, name: str) -> bytes:
    content = path.read_bytes()
    if path.suffix == ".gz":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(
                f"{path} cannot be unpacked ({error}); the SHA-256 of its content should be {CHECKSUMS[name]}; "
                "remove it to download it anew"
            ) from error
    found = hashlib.sha256(content).hexdigest()
    if found != CHECKSUMS[name]:
        raise ValueError(
            f"{path} is not MNIST's {name}: the SHA-256 of its uncompressed bytes is {found}, not {CHECKSUMS[name]}; "
            "remove it to download it anew"
        )
    return content
