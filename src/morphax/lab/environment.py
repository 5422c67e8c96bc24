"""Where and by what a run was computed, as it may be written down."""

import importlib.metadata
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

PACKAGES = ("morphax", "jax", "jaxlib", "equinox", "optax", "numpy", "xarray", "matplotlib")


def command_line(arguments: Sequence[str] | None = None) -> str:
    """The command of this process, or of `arguments`, as others may read it, for a shell."""
    return shlex.join(["morphax", *map(without_password, sys.argv[1:] if arguments is None else arguments)])


def without_password(url: str) -> str:
    """A database's address without what opens it.

    >>> from morphax.lab.environment import without_password
    >>> without_password("postgresql://me:secret@host/db"), without_password("postgresql://host/db?password=secret")
    ('postgresql://me:***@host/db', 'postgresql://host/db?password=***')
    """
    return re.sub(r"(://[^:/@]*:).*(?=@)|([?&]password=)[^&]*", r"\1\2***", url)


def environment(seed: int) -> dict[str, Any]:
    """Versions, devices, git revision and seed: what else decides the numbers of a run."""
    import jax

    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "devices": [f"{device.platform}: {device.device_kind}" for device in jax.devices()],
        "git_revision": git_revision(),
        "seed": seed,
        "command": command_line(),
    }


def git_revision() -> str | None:
    """The revision of the source tree that morphax runs from, "+" behind it when that was changed; else None."""
    package = Path(__file__).parents[1]

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(package), *arguments], capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    # An installed copy may lie inside somebody else's repository, which then does not track it.
    if not git("ls-files", "--error-unmatch", "__init__.py"):
        return None
    revision = git("rev-parse", "HEAD")
    return revision and revision + ("+" if git("status", "--porcelain", ".") else "")
