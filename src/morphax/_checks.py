"""Refusals of bad arguments: one line that names the argument, its value and what is allowed.

Values are looked at only where they are known: inside `jax.jit`, `jax.vmap` or `jax.grad` an array has no values yet
and only its shape is checked.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer


def is_concrete(value: Any) -> bool:
    """Whether the numbers of `value` can be looked at now (they cannot while JAX traces)."""
    return not isinstance(value, Tracer)


def check_finite(name: str, value: Any) -> None:
    """Refuse an array with NaN or infinity and say where the first one sits."""
    if not is_concrete(value):
        return
    array = np.asarray(value)
    if array.dtype.kind not in "biufcV":  # V: what JAX adds to NumPy's floating-point numbers
        raise ValueError(f"{name} is {value!r}; it must be a number")
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        where = tuple(int(i) for i in bad[0])
        place = f"{name}[{', '.join(map(str, where))}]" if where else name
        raise ValueError(
            f"{place} is {array[where]}; {name} must be finite ({len(bad)} of {array.size} values are not)"
        )


def check_real(name: str, value: Any) -> None:
    """Refuse what is no real number or array of such: text, objects, complex numbers."""
    kind = value.dtype.kind if isinstance(value, Tracer) else np.asarray(value).dtype.kind
    if kind not in "biuf":
        raise ValueError(f"{name} is {'complex' if kind == 'c' else repr(value)}; it must be real")


def check_range(
    name: str, value: Any, *, low: float | None = None, high: float | None = None, open_low: bool = False
) -> None:
    """Refuse an array with a value outside [low, high] (or ]low, high] with `open_low`)."""
    check_finite(name, value)
    if not is_concrete(value):
        return
    array = np.asarray(value)
    wrong = np.zeros(array.shape, bool)
    if low is not None:
        wrong |= (array <= low) if open_low else (array < low)
    if high is not None:
        wrong |= array > high
    if wrong.any():
        lower = "" if low is None else f"{'>' if open_low else '>='} {low:g}"
        upper = "" if high is None else f"<= {high:g}"
        allowed = " and ".join(part for part in (lower, upper) if part)
        raise ValueError(f"{name} is {array[wrong].flat[0]}; it must be {allowed}")


def check_memory(name: str, value: Any, numbers: int) -> None:
    """Refuse a size for which so many numbers in double precision are more than the machine holds."""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return  # this system does not tell
    if 8 * numbers > memory:
        raise ValueError(
            f"{name} is {value}; that takes {8 * numbers / 2**30:.3g} GiB, and this machine has {memory / 2**30:.3g}"
        )


def free_memory() -> float:
    """Bytes that may still be taken: of the machine and, on Linux, of the control groups of this process.

    Infinite where the system does not tell.
    """
    try:
        free = [float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))]
    except (AttributeError, ValueError, OSError):
        free = []
    for line in _lines_of(Path("/proc/meminfo")):
        if line.startswith("MemAvailable:"):
            free.append(1024.0 * int(line.split()[1]))
    return min([*free, *_left_in_groups(Path("/sys/fs/cgroup"))], default=float("inf"))


def _left_in_groups(root: Path) -> Iterator[float]:
    """What each control group leaves to this process, of version 2 or 1; cached files can be given up."""
    for line in _lines_of(Path("/proc/self/cgroup")):
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        base, names = (root, ("memory.max", "memory.current", "inactive_file"))
        if controllers:
            base, names = (root / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"))
        group = base / path.strip().lstrip("/")
        for folder in (group, *group.parents):
            limit, used = (_lines_of(folder / name) for name in names[:2])
            cached = [int(stat.split()[1]) for stat in _lines_of(folder / "memory.stat") if stat.split()[0] == names[2]]
            if limit and used and limit[0].isdigit():  # "max" is no limit
                yield float(int(limit[0]) - int(used[0]) + sum(cached))
            if folder == base:
                break


def _lines_of(path: Path) -> list[str]:
    """None where the file cannot be read."""
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def check_key(name: str, key: Any) -> None:
    """Refuse what is no random key, nor None."""
    if key is None or jnp.issubdtype(getattr(key, "dtype", bool), jax.dtypes.prng_key):
        return
    # Keys of the older kind are pairs of numbers.
    if getattr(key, "dtype", None) != np.uint32 or np.shape(key)[-1:] != (2,):
        raise ValueError(f"{name} is {key!r}; it must be a random key: jax.random.key(0)")


def check_shape(name: str, value: Any, shape: Sequence[int | None]) -> None:
    """Refuse an array whose shape is not `shape` (None: any length)."""
    actual = tuple(np.shape(value))
    if len(actual) != len(shape) or any(want not in (None, have) for have, want in zip(actual, shape, strict=True)):
        allowed = "(" + ", ".join("any" if n is None else str(n) for n in shape) + (",)" if len(shape) == 1 else ")")
        raise ValueError(f"{name} has shape {actual}; it must be {allowed}")


def check_choice(name: str, value: Any, choices: Sequence[Any]) -> None:
    """Refuse a value that is not one of `choices`."""
    if value not in choices:
        raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(map(repr, choices))}")


def check_count(name: str, value: Any, low: int, high: int | None = None) -> None:
    """Refuse anything but a whole number in [low, high]."""
    allowed = f">= {low}" if high is None else f"from {low} to {high}"
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or value < low or (high is not None and value > high):
        raise ValueError(f"{name} is {value!r}; it must be a whole number {allowed}")


def cores() -> int:
    """The cores that this process may use. XLA, too, looks at its affinity and takes no more than NPROC says."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = os.environ.get("NPROC", "")
    return min(allowed, int(limit)) if limit.isdecimal() and int(limit) else allowed
