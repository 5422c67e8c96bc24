"""IDX files, the format of MNIST: arrays, read with the right bytes or refused."""

import gzip
import hashlib
import math
import zlib
from importlib import resources
from pathlib import Path

import numpy as np

IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
# SHA-256 of the uncompressed files of tasks/data/, whose README.md says where they are from.
SHIPPED = {
    "digits-images-idx3-ubyte": "359cd13f0f514122884198b78a131df597421cbf5e93a76678fa96fc548f0d96",
    "digits-labels-idx1-ubyte": "ce71631c1f31ce56fa54f31d1d498fafacff59b001e6c30c4a5e29508aa277ad",
    "train-5000-images-idx3-ubyte": "1e3ffdb2f57e22d9e5363dde25c2d057542c2e72baa312f0f3b03948bb3802b7",
    "train-5000-labels-idx1-ubyte": "685aeb7baef68233efa643639a5e9c15bb48be09a628f96fb7f606ca2a1ea7bc",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    "vowels-cepstra-idx2-int": "9a57203a8848a5e86b8397d83141627323057e76541493ba29ca078e1fe14a70",
    "vowels-lengths-idx1-ubyte": "771a95bae221c6161215d773c8da0cd51791efb65939ae18ad3e7d245210c584",
    "vowels-speakers-idx1-ubyte": "7fe6653d2af940a9d3e73cc56dd8e3836e8ea88248df283c1f0220aa10ae02e4",
}


def read_shipped(name: str) -> np.ndarray:
    """One of the arrays that are installed with morphax.

    >>> from morphax.tasks.idx import read_shipped
    >>> read_shipped("t10k-images-idx3-ubyte").shape
    (10000, 28, 28)
    """
    with resources.as_file(resources.files("morphax.tasks") / "data" / f"{name}.gz") as path:
        return load_idx(path, SHIPPED[name], "install morphax anew")


def load_idx(path: Path, checksum: str, remedy: str) -> np.ndarray:
    """The array in an IDX file, compressed (`.gz`) or not.

    **Raises:** `ValueError` where the SHA-256 of the uncompressed bytes is not `checksum`, with the `remedy`.
    """
    content = path.read_bytes()
    if path.suffix == ".gz":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(
                f"{path} cannot be unpacked ({error}); the SHA-256 of its content should be {checksum}; {remedy}"
            ) from error
    found = hashlib.sha256(content).hexdigest()
    if found != checksum:
        raise ValueError(
            f"{path} is not the file it should be: the SHA-256 of its uncompressed bytes is {found}, not {checksum}; "
            f"{remedy}"
        )
    return read_idx(content, str(path))


def read_idx(content: bytes, name: str = "content") -> np.ndarray:
    """The array in the bytes of an IDX file.

    **Raises:** `ValueError`, naming `name`, when it is none, or is truncated or too long.

        >>> from morphax.tasks.idx import read_idx
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
