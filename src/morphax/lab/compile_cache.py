"""Compiled programs are kept from run to run: most of a short run's time is compilation."""

import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import jax
import platformdirs
from jax.experimental.compilation_cache.compilation_cache import reset_cache

VARIABLE = "MORPHAX_COMPILE_CACHE"
LARGEST = 512 * 2**20  # bytes


@contextmanager
def compile_cache(largest: int = LARGEST) -> Iterator[None]:
    """Keep programs that JAX compiles, of all sizes, in the user's cache folder, and take from there what was kept.

    Another folder is chosen, or the cache is turned off, by the environment variable `MORPHAX_COMPILE_CACHE` (a folder,
    or "off"). A cache that JAX was told to use (`JAX_COMPILATION_CACHE_DIR`) is left as it is, and so is everything
    where the folder cannot be made. An entry that is damaged is removed, and its program compiled anew. At the end what
    was used longest ago is removed until `largest` bytes are left, and the configuration of JAX is as before.
    """
    folder = _folder() if jax.config.values["jax_compilation_cache_dir"] is None else None
    if folder is None:
        yield
        return
    settings = {
        "jax_compilation_cache_dir": str(folder),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before = {name: jax.config.values[name] for name in settings}
    try:
        _configure(settings)
        with _damage_repaired(folder):
            yield
    finally:
        _configure(before)
        # Another process may remove files at the same time.
        with suppress(OSError):
            _shrink(folder, largest)


def make_room(share: float = 0.5) -> None:
    """Let compiled programs go when memory has more than this share of the parts that Linux grants a process.

    Each program takes some; after ten thousand or so the next one would end the process. What is needed again is
    compiled again, or comes from the folder of `compile_cache`.
    """
    try:
        most = int(Path("/proc/sys/vm/max_map_count").read_text())
        taken = Path("/proc/self/maps").read_bytes().count(b"\n")
    except OSError:  # another system
        return
    if taken > share * most:
        jax.clear_caches()


def _folder() -> Path | None:
    """Where programs are kept; None where nowhere."""
    asked = os.environ.get(VARIABLE, "")
    if asked == "off":
        return None
    folder = Path(asked).expanduser() if asked else platformdirs.user_cache_path("morphax") / "programs"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder


def _configure(settings: dict[str, Any]) -> None:
    for name, value in settings.items():
        jax.config.update(name, value)
    reset_cache()  # JAX looks at the settings only once


@contextmanager
def _damage_repaired(folder: Path) -> Iterator[None]:
    """JAX warns of an entry that it cannot read, and compiles, but leaves the entry there."""

    def show(message: Warning | str, *where: Any) -> None:
        if found := re.match(r"Error (reading|writing) persistent compilation cache entry for '(.*?)'", str(message)):
            with suppress(OSError):
                for entry in folder.glob(f"{found[2]}-*"):
                    entry.unlink(missing_ok=True)
        else:
            shown(message, *where)

    with warnings.catch_warnings():
        warnings.filterwarnings("always", "Error (reading|writing) persistent compilation cache entry")
        shown, warnings.showwarning = warnings.showwarning, show
        yield


def _shrink(folder: Path, largest: int) -> None:
    entries = [(path, path.stat()) for path in folder.rglob("*") if path.is_file()]
    size = sum(status.st_size for _, status in entries)
    # Where reading leaves no trace, the oldest go first.
    for path, status in sorted(entries, key=lambda entry: max(entry[1].st_atime, entry[1].st_mtime)):
        if size <= largest:
            break
        path.unlink(missing_ok=True)
        size -= status.st_size
