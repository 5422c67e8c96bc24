"""What a training noted, step by step, as arrays."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np

from morphax._checks import check_choice

Row = dict[str, Any]


@dataclass(frozen=True, repr=False)
class History(Sequence[Row]):
    """The rows of a training: the metrics of every step; at some steps also those of watched data, under their name.

    A sequence of rows, and their columns as arrays. The first axis of an array counts steps; members of an ensemble
    follow, then the axes of the metric itself.

    **Arguments:**

    - `rows`: one dict a step: metric -> number or nested lists; name of watched data -> dict of metrics.

        >>> from morphax.learning.history import History
        >>> rows = [{"loss": 3.0}, {"loss": 2.0, "test": {"accuracy": 0.5}}, {"loss": 1.0, "test": {"accuracy": 0.75}}]
        >>> history = History(rows)
        >>> history[-1]["loss"], history.metric("loss").tolist()
        (1.0, [3.0, 2.0, 1.0])
        >>> history.steps.tolist(), history.watched("test")["accuracy"].tolist()
        ([2, 3], [0.5, 0.75])
    """

    rows: list[Row]

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> "History": ...
    def __getitem__(self, index: int | slice) -> "Row | History":
        return History(self.rows[index]) if isinstance(index, slice) else self.rows[index]

    @property
    def steps(self) -> np.ndarray:
        """How many steps had been taken each time that watched data were judged."""
        return 1 + np.flatnonzero([bool(_watched(row)) for row in self.rows])

    def metric(self, name: str) -> np.ndarray:
        """A metric at every step, (steps, ...)."""
        check_choice("name", name, [key for key in self.rows[0] if key not in _watched(self.rows[0])])
        return np.array([row[name] for row in self.rows])

    @property
    def presentations(self) -> np.ndarray:
        """Examples that had been presented to the device after every step, for learning."""
        return np.cumsum(self.metric("presentations"), axis=0)

    @property
    def writes(self) -> np.ndarray:
        """How often weights had been written into it."""
        return np.cumsum(self.metric("writes"), axis=0)

    def watched(self, name: str) -> dict[str, np.ndarray]:
        """The metrics of watched data at `steps`, each (watched steps, ...)."""
        judged = [watched for watched in map(_watched, self.rows) if watched]
        check_choice("name", name, list(judged[0]) if judged else [])
        return {metric: np.array([watched[name][metric] for watched in judged]) for metric in judged[0][name]}


def _watched(row: Row) -> Row:
    """What a row says of watched data: a metric is never a dict."""
    return {name: value for name, value in row.items() if isinstance(value, dict)}
