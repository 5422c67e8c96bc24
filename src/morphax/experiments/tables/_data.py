"""A table with a target: classes or numbers, and columns of numbers that are to foretell it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

from jaxtyping import Float

from morphax._lazy import np
from morphax._optional import needed
from morphax.lab.errors import UsageError, nearest
from morphax.tasks.tables import read_table

Kind = Literal["classification", "regression"]
SHIPPED = {
    "wine": "load_wine",
    "digits": "load_digits",
    "breast-cancer": "load_breast_cancer",
    "diabetes": "load_diabetes",
}
"""Tables that scikit-learn brings along."""
TARGET = "target"
"""Their column."""
LARGEST = 1e100
"""Number in a column: of larger ones there may be no squares."""
SMALLEST_FOLD = 10
"""Rows, where a target is a number: of fewer a coefficient of determination is a matter of chance."""
CLASSES = 20
"""Whole numbers of more different values than this are no classes."""


class Labelled(NamedTuple):
    """Features with their names, and the target with its own: numbers, or texts where they are classes."""

    columns: list[str]
    features: Float[np.ndarray, "samples columns"]
    target: str
    targets: np.ndarray
    kind: Kind


def labelled(data: str, target: str, task: str) -> Labelled:
    """A table by its file, or by the name of one that scikit-learn brings along.

    **Arguments:** `task`: "auto" tells classes from numbers: texts are classes, and so are whole numbers with at most
    20 different values.

    **Raises:** `ValueError`, in one line, for an unknown column, text in a column of numbers, and missing values.
    """
    if data in SHIPPED:
        found = getattr(needed("sklearn.datasets", "estimators"), SHIPPED[data])()
        if target != TARGET:
            raise UsageError(f"target is {target!r}; that of {data} is {TARGET!r}")
        texts = [f"{value:.17g}" for value in found.target]
        columns = [str(name) for name in found.feature_names]
        return _typed(columns, np.asarray(found.data, float), texts, target, task)
    table = read_table(data)
    (name, *others) = table.matching(target)
    if others:
        raise UsageError(f"target is {target!r}, which names {1 + len(others)} columns; it must name one")
    columns = [column for column in table.names if column != name]
    if not columns:
        raise UsageError(f"{data} has no column beside {name!r}")
    features = np.stack([table.column(column) for column in columns], axis=1)
    return _typed(columns, features, table.texts(name), name, task)


def features_in(path: Path, columns: list[str]) -> Float[np.ndarray, "samples columns"]:
    """These columns of a file, whatever else it holds."""
    table = read_table(path)
    return np.stack([table.column(column) for column in columns], axis=1)


def _typed(
    columns: list[str], features: Float[np.ndarray, "samples columns"], texts: list[str], target: str, task: str
) -> Labelled:
    for column, values in zip(columns, features.T, strict=True):
        if (worst := np.max(np.abs(values), initial=0.0)) > LARGEST:
            raise UsageError(f"column {column!r} holds a number of size {worst:g}; it must be <= {LARGEST:g}")
    numbers = _numbers(texts)
    if task == "auto":
        whole = numbers is not None and (numbers == np.round(numbers)).all() and len(np.unique(numbers)) <= CLASSES
        task = "classification" if numbers is None or whole else "regression"
    if task == "classification":
        if numbers is not None and len(np.unique(numbers)) < len(set(texts)):
            texts = [f"{number:.17g}" for number in numbers]  # one class is written in several ways
        return Labelled(columns, features, target, np.array(texts, object), "classification")
    if numbers is None:
        raise UsageError(f"target is {target!r}, which holds text, and no number can be foretold; task is {task!r}")
    return Labelled(columns, features, target, numbers, "regression")


def _numbers(texts: list[str]) -> Float[np.ndarray, " samples"] | None:
    try:
        numbers = np.array([float(text) for text in texts])
    except ValueError:
        return None
    return numbers if np.isfinite(numbers).all() else None


def check_folds(table: Labelled, folds: int) -> None:
    """Refuse a class with fewer members than folds, fewer rows, and a target that is always the same.

    **Raises:** `UsageError` in one line.
    """
    rows = len(table.targets)
    if table.kind == "regression" or not rows:
        if rows < SMALLEST_FOLD * folds:
            raise UsageError(f"cv is {folds}; {rows} rows are too few, for a fold must have {SMALLEST_FOLD} at least")
        if len(np.unique(table.targets)) < 2:
            raise UsageError(f"the target is {table.targets[0]:g} in every row; there is nothing to foretell")
        return
    names, counts = np.unique(table.targets.astype(str), return_counts=True)
    if len(names) < 2:
        raise UsageError(f"the target has 1 class, {str(names[0])!r}; there must be 2 or more")
    if counts.min() < folds:
        least = str(names[np.argmin(counts)])
        members = "1 member" if counts.min() == 1 else f"{counts.min()} members"
        raise UsageError(
            f"cv is {folds}, but class {least!r} has {members}; take fewer folds, leave the class out, or --task "
            "regression for numbers"
        )


def check_source(data: str) -> None:
    """Refuse what is neither a file nor a table by name."""
    if data not in SHIPPED and not Path(data).is_file():
        hint = nearest(data, SHIPPED)
        raise UsageError(
            f"data is {data!r}, and there is no such file"
            + (f"; {hint}" if hint.startswith("did") else f"; it may be {', '.join(SHIPPED)}, of scikit-learn")
        )
