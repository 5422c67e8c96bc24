"""MNIST: 70,000 handwritten digits of 28 x 28 pixels, of which 15,000 are installed with morphax."""

import os
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import platformdirs
from jaxtyping import Array, Float, PRNGKeyArray

from morphax._checks import check_count, check_key
from morphax._optional import needed
from morphax.files import KnownFile, received
from morphax.tasks.base import Task, one_hot
from morphax.tasks.idx import SHIPPED as SHA256, load_idx, read_shipped

MEAN, DEVIATION = 0.1307, 0.3081  # of the training pixels in [0, 1]
ALL, SHIPPED = 60_000, 5_000  # training images
KINDS = ("images-idx3-ubyte", "labels-idx1-ubyte")
MIRRORS = ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/")
# SHA-256 of the uncompressed files: archives are compressed anew now and then.
CHECKSUMS = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
}


def mnist(
    train_images: int = SHIPPED,
    test_images: int = 10_000,
    *,
    key: PRNGKeyArray | None = None,
    drawn_from: int = ALL,
) -> Task:
    r"""Which digit is it? Every image is one input of 784 pixels, $(x / 255 - 0.1307) / 0.3081$.

    The first 5,000 training images and all test images are installed with morphax. A task that needs later training
    images takes all 60,000 from the files `train-images-idx3-ubyte` and `train-labels-idx1-ubyte`, compressed (`.gz`)
    or not, in `mnist/` in the data directory: the environment variable `MORPHAX_DATA_DIR`, by default the user's cache
    folder. Where they are missing they are downloaded there (extra `download`).

    **Arguments:**

    - `train_images`: 1 to 60,000 of the training set.
    - `test_images`: 1 to 10,000 of the test set.
    - `key`: draws both; None takes the first ones.
    - `drawn_from`: `key` draws among the first so many of the training set, `train_images` to 60,000. With 5,000 at
      most nothing but what is installed is needed. (Test images are drawn from all 10,000.)

    **Returns:** a `Task` of examples: inputs (images, 784), targets (images, 10), one-hot.

    **Raises:** `ValueError` for numbers out of range and for a file whose bytes are not those of MNIST, naming the
    checksum; `FileNotFoundError` when files are missing and cannot be downloaded, saying where to put them.

    Source: LeCun, Cortes & Burges, "The MNIST database of handwritten digits" (1998); 5,000 training and 10,000
    validation images as in Barney, Lakhdar-Hamina & Galitski, "Natural quantization of neural networks" (2025), Tab. I.

        >>> import jax
        >>> from morphax.tasks import mnist
        >>> task = mnist(100, 50, key=jax.random.key(0), drawn_from=5_000)
        >>> task.train_inputs.shape, task.test_targets.shape
        ((100, 784), (50, 10))
    """
    check_key("key", key)
    check_count("train_images", train_images, 1, ALL)
    check_count("test_images", test_images, 1, 10_000)
    if key is None:
        drawn_from = train_images
    check_count("drawn_from", drawn_from, train_images, ALL)
    train_key, test_key = (None, None) if key is None else jax.random.split(key)
    read, train = (read_shipped, "train-5000") if drawn_from <= SHIPPED else (_load, "train")
    train_files = [read(f"{train}-{kind}")[:drawn_from] for kind in KINDS]
    test_files = [read_shipped(f"t10k-{kind}") for kind in KINDS]
    return Task(
        *_examples(train_files, train_images, train_key),
        *_examples(test_files, test_images, test_key),
        kind="classification",
        arrangement="inputs",
        reference="Barney, Lakhdar-Hamina & Galitski (2025), Tab. I",
    )


def mnist_data(train_images: int = SHIPPED, *, drawn_from: int | None = None) -> dict[str, str | KnownFile]:
    """The files that `mnist` reads, by their names, for `BaseConfig.data`: the SHA-256 of those that are installed."""
    shipped = (drawn_from or train_images) <= SHIPPED
    names = [f"{part}-{kind}" for part in (("train-5000", "t10k") if shipped else ("t10k",)) for kind in KINDS]
    everything = {} if shipped else {name: _known(name) for name in CHECKSUMS}
    return {**everything, **{name: SHA256[name] for name in names}}


def data_directory() -> Path:
    """Where data sets lie: the environment variable `MORPHAX_DATA_DIR`, or the user's cache folder."""
    return Path(os.environ.get("MORPHAX_DATA_DIR") or platformdirs.user_cache_dir("morphax")).expanduser()


def _examples(
    files: list[np.ndarray], number: int, key: PRNGKeyArray | None
) -> tuple[Float[Array, "images 784"], Float[Array, "images 10"]]:
    """Inputs and targets: `number` of the images, the first ones without a key."""
    images, labels = files
    chosen = np.arange(number) if key is None else np.asarray(jax.random.permutation(key, len(images)))[:number]
    pixels = (images[chosen].reshape(number, -1) / 255 - MEAN) / DEVIATION
    return jnp.asarray(pixels, jnp.result_type(float)), one_hot(labels[chosen], 10)


def _load(name: str) -> np.ndarray:
    """One of the files with all training images, found or downloaded, with the right bytes."""
    return load_idx(_place(name), CHECKSUMS[name], "remove it to download it anew")


def _known(name: str) -> KnownFile:
    return KnownFile(CHECKSUMS[name], lambda: _find(name) is not None, partial(_place, name))


def _find(name: str) -> Path | None:
    folder, digest = data_directory() / "mnist", CHECKSUMS[name]
    places = (folder / name, folder / f"{name}.gz", received(digest), received(digest, ".gz"))
    return next((path for path in places if path.is_file()), None)


def _place(name: str) -> Path:
    return _find(name) or _download(name)


def _download(name: str) -> Path:
    """One of the files with all training images, with the right bytes."""
    folder = data_directory() / "mnist"
    missing = f"{name} is not in {folder}"
    put = f"put {' and '.join(CHECKSUMS)} there, or set MORPHAX_DATA_DIR to the folder that holds mnist/"
    try:
        pooch, _ = needed("pooch", "download"), needed("tqdm", "download")
    except ImportError as error:
        raise FileNotFoundError(f"{missing}; {put}; to download it, {error}") from error
    failures = []
    for mirror in MIRRORS:
        try:
            address, file = f"{mirror}{name}.gz", f"{name}.gz"
            path = Path(pooch.retrieve(address, known_hash=None, fname=file, path=folder, progressbar=True))
        except (OSError, ValueError) as error:
            failures.append(f"{mirror}: {type(error).__name__}")
            continue
        try:
            load_idx(path, CHECKSUMS[name], "it is tried elsewhere")
            return path
        except ValueError as error:
            path.unlink()
            failures.append(f"{mirror}: {error}")
    raise FileNotFoundError(f"{missing} and could not be downloaded ({'; '.join(failures)}); {put}")
