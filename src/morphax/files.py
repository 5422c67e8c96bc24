"""Files that are either whole or absent: each is written under a temporary name and then renamed.

What must be trusted years later is sealed: a JSON file carries the digest of its own content, a dataset that of its
numbers, so that a flipped bit or a file cut short is noticed when it is read.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import socket
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NamedTuple

from morphax._lazy import np, xr

TEMPORARY = ".morphax-"
"""How the names of files begin that are being written; host and process follow."""
TAKEN = frozenset({"_Encoding", "_FillValue", "calendar", "coordinates", "dtype", "sha256"})
"""Attributes that say how a dataset is stored, and do not come back."""


class DamagedError(ValueError):
    """A file that does not hold what was written to it."""


class KnownFile(NamedTuple):
    """A file of data whose content is known beforehand, wherever it lies.

    - `sha256`: of the content, uncompressed.
    - `is_here`: whether this machine has it.
    - `path`: where it is; it is fetched where it is not here. `OSError` where that cannot be.
    """

    sha256: str
    is_here: Callable[[], bool]
    path: Callable[[], Path]


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, flush it to disk and rename it to `path`."""
    temporary = _begun_beside(path)
    try:
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        # mkstemp makes a file that only its owner reads; a result is an ordinary file.
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _begun_beside(path: Path) -> Path:
    """An empty temporary file in the folder of `path`."""
    prefix = f"{TEMPORARY}{socket.gethostname()}-{os.getpid()}-"
    for attempts_left in reversed(range(10)):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix=prefix, suffix=path.suffix, dir=path.parent)
        except FileNotFoundError:  # another process prunes, and took the folder, which was empty
            if not attempts_left:
                raise
        else:
            os.close(handle)
            return Path(name)
    raise AssertionError


def writer_of(temporary: Path) -> tuple[str, int]:
    """Host and process that write, or wrote, a temporary file."""
    host, process, _ = temporary.name.removeprefix(TEMPORARY).rsplit("-", 2)
    return host, int(process)


def write_bytes(path: Path, content: bytes) -> None:
    write_atomically(path, lambda temporary: temporary.write_bytes(content))


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode())


def write_json(path: Path, content: Any) -> None:
    """JSON as people read it; NaN and infinity are refused, because JSON has none."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def digest_of(content: Any) -> str:
    """The SHA-256 of JSON content, in a spelling that does not depend on the order of its keys."""
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def received(digest: str, suffix: str = "") -> Path:
    """Where a file is kept that another machine sent, named by its digest."""
    user = os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME", "user")
    return Path(tempfile.gettempdir()) / f"morphax-data-{user}" / f"{digest}{suffix}"


def sent_as(path: Path) -> str:
    """Behind its digest (`received`), how a file is called that keeps its name on another machine."""
    return f".file/{path.name}"


def state_of(path: Path) -> tuple[int, ...] | None:
    """What changes with the content of a file, and is known without reading it; None where there is no such file."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def changed(what: object) -> str:
    """The sentence about a file that a run depends on."""
    return f"{what} has changed while the run went on; run again"


def check_regular(path: Path, largest: int | None = None) -> None:
    """Refuse what cannot be read to its end - folders, devices, pipes - and files of more than `largest` bytes.

    **Raises:** `OSError`, whose `strerror` says what it is.
    """
    found = path.stat()
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "No regular file but a pipe or a device", str(path))
    if largest is not None and found.st_size > largest:
        size, allowed = (f"{number / 1e6:.0f} MB" for number in (found.st_size, largest))
        raise OSError(errno.EFBIG, f"It holds {size}, and at most {allowed} are read", str(path))


def digest_of_file(path: Path) -> str:
    """The SHA-256 of the bytes of a regular file."""
    check_regular(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_sealed(path: Path, content: dict[str, Any]) -> None:
    """JSON with the digest of its content as "sha256"."""
    write_json(path, content | {"sha256": digest_of(content)})


def read_sealed(path: Path) -> dict[str, Any]:
    """What `write_sealed` wrote, without the digest.

    **Raises:** `DamagedError`, naming the file, where that is not what the file holds.
    """
    try:
        content = read_json(path)
        seal = content.pop("sha256")
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise DamagedError(f"{path} is damaged: it is no whole JSON with a seal") from error
    if seal != digest_of(content):
        raise DamagedError(f"{path} is damaged: its content is not what was written")
    return content


def write_dataset(path: Path, dataset: xr.Dataset, **options: Any) -> None:
    """netCDF; `options` are of `xarray.Dataset.to_netcdf`."""
    write_atomically(path, lambda temporary: dataset.to_netcdf(temporary, engine="h5netcdf", **options))


def read_dataset(path: Path) -> xr.Dataset:
    """The whole dataset in memory, with the file closed again.

    Numbers are as they were written, whatever attributes such as "scale_factor" or "seconds since release" mean to
    other programs; only dates and spans of time become those of NumPy again.
    """
    from xarray.conventions import decode_cf_variable

    dataset = xr.load_dataset(path, engine="h5netcdf", decode_times=False, mask_and_scale=False)
    for name, variable in dataset.variables.items():
        if "calendar" in variable.attrs or str(variable.attrs.get("dtype")).startswith("timedelta64"):
            dataset[name] = decode_cf_variable(name, variable, decode_timedelta=True)
        variable.attrs.pop("_FillValue", None)  # xarray gives one to whatever may be NaN
    return dataset


def write_sealed_dataset(path: Path, dataset: xr.Dataset, **options: Any) -> None:
    """netCDF with the digest of its numbers, names and attributes as attribute "sha256".

    **Raises:** `ValueError`, naming variable and attribute, for what a file would give back as something else.
    """
    # How a file of others stored the numbers of a dataset that was read from it is not taken over.
    kept = dataset.drop_encoding()
    kept.attrs = _kept("the dataset", dataset.attrs)
    for name, variable in kept.variables.items():
        variable.attrs = _kept(str(name), variable.attrs)
        if variable.dtype.kind == "O":
            for value in variable.values.flat:
                if not isinstance(value, str):
                    raise ValueError(f"{name} holds {value!r}; a netCDF file keeps numbers, or texts and nothing else")
    write_dataset(path, kept.assign_attrs(sha256=digest_of_dataset(kept)), **options)


def read_sealed_dataset(path: Path) -> xr.Dataset:
    """What `write_sealed_dataset` wrote, without the digest.

    **Raises:** `DamagedError`, naming the file, where that is not what the file holds.
    """
    try:
        dataset = read_dataset(path)
        seal = dataset.attrs.pop("sha256")
    except FileNotFoundError:
        raise
    except Exception as error:  # whatever a library makes of a broken file
        raise DamagedError(f"{path} is damaged: it is no whole netCDF file with a seal") from error
    if seal != digest_of_dataset(dataset):
        raise DamagedError(f"{path} is damaged: its numbers are not those that were written")
    return dataset


def digest_of_dataset(dataset: xr.Dataset) -> str:
    """The SHA-256 of all numbers, names and attributes of a dataset, as they come back from a file."""
    whole = hashlib.sha256(digest_of(_plain(dataset.attrs)).encode())
    for name in sorted(map(str, dataset.variables)):
        variable = dataset.variables[name]
        what = [name, list(map(str, variable.dims)), list(variable.shape), _plain(variable.attrs)]
        whole.update(digest_of(what).encode())
        whole.update(_bytes_of(variable.values))
    return whole.hexdigest()


def _bytes_of(values: np.ndarray) -> bytes:
    """Of texts their letters: a file gives them back in another type of array."""
    if values.dtype.kind in "OUS":
        return json.dumps([str(value) for value in values.ravel().tolist()]).encode()
    kinds = {"b": "i1", "i": "<i8", "u": "<u8", "f": "<f8", "c": "<c16", "M": "<M8[ns]", "m": "<m8[ns]"}
    kind = kinds.get(values.dtype.kind)
    return values.astype(kind).tobytes() if kind else values.tobytes()


def _plain(attributes: Mapping[Any, Any]) -> dict[str, Any]:
    """Attributes as JSON: numbers of NumPy as those of Python, and of a list of one, as netCDF does, what it holds."""
    plain = {}
    for name, value in attributes.items():
        listed = np.asarray(value).tolist()
        plain[str(name)] = listed[0] if isinstance(listed, list) and len(listed) == 1 else listed
    return plain


def _kept(owner: str, attributes: Mapping[Any, Any]) -> dict[str, Any]:
    """Attributes as a netCDF file gives them back."""
    for name, value in attributes.items():
        if name in TAKEN:
            raise ValueError(f"{owner} has an attribute {name!r}, which netCDF files need for themselves; rename it")
        array = np.asarray(value)
        if array.ndim > 1 or array.dtype.kind not in "iufU":
            raise ValueError(
                f"{owner} has an attribute {name!r} that is {value!r}; a netCDF file keeps a text, a number, or a list "
                "of either"
            )
    return _plain(attributes)


_noted: ContextVar[set[Path] | None] = ContextVar("noted", default=None)


@contextmanager
def noting_files() -> Iterator[set[Path]]:
    """The files with data that are read meanwhile, of those readers that tell (`note_file`)."""
    found: set[Path] = set()
    token = _noted.set(found)
    try:
        yield found
    finally:
        _noted.reset(token)


def note_file(path: Path) -> None:
    """Tell that data are read from a file: they decide numbers, and belong to the identity of a run."""
    if (found := _noted.get()) is not None:
        found.add(path.resolve())
