"""One look for all figures, and their files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from cycler import cycler

from morphax.files import write_atomically

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, RED, GREEN, ORANGE, VIOLET, GREY = "#2563a8", "#c23b3b", "#3a8c5c", "#d68a1f", "#7a5195", "#7f7f7f"

STYLE: dict[Any, Any] = {
    "axes.grid": True,
    "axes.prop_cycle": cycler(color=[BLUE, RED, GREEN, ORANGE, VIOLET, GREY]),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": "medium",
    "figure.constrained_layout.use": True,
    "figure.dpi": 100,
    "font.size": 10,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "savefig.dpi": 150,
    # The same data must give the same file.
    "svg.hashsalt": "morphax",
}

# Kinds of files, and what must not stand in them: the same data must give the same file.
KINDS: dict[str, dict[str, Any]] = {"svg": {"Date": None}, "png": {"Software": None}}

Figures: TypeAlias = "dict[str, Figure]"
"""The figures of an experiment by their names."""


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches. Matplotlib is imported here: an experiment is shown without."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height))


def literal(text: str) -> str:
    """A text from outside - a column's name - that Matplotlib draws as it is: no dollar sign begins a formula."""
    return text.replace("$", r"\$")


def mean_and_range(axes: Axes, x: Any, values: xr.DataArray, over: str = "seed", **style: Any) -> None:
    """The mean over a dimension as a line, and all between the least and the greatest as a band."""
    (line,) = axes.plot(x, values.mean(over), **style)
    axes.fill_between(x, values.min(over), values.max(over), color=line.get_color(), alpha=0.2, linewidth=0)


@contextmanager
def styled() -> Iterator[None]:
    """Figures that are drawn meanwhile look alike."""
    import matplotlib as mpl

    with mpl.rc_context(STYLE):
        yield


def save_figures(figures: Figures, folder: Path) -> None:
    """Write every figure as PNG and SVG."""
    with styled():
        for name, figure in figures.items():
            for kind, metadata in KINDS.items():
                write_atomically(
                    folder / f"{name}.{kind}", lambda file, f=figure, m=metadata: f.savefig(file, metadata=m)
                )
