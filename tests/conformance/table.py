"""Train every cell of rule x substrate x task for two steps, and write the table in docs/devices.md.

    python -m tests.conformance.table [--workers N]

Exits with 1 where a cell that its rule admits fails.
"""

import argparse
import os
import re
import sys
from collections import ChainMap
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import jax
import tests.conftest  # noqa: F401 - programs compile as fast as those of tests
from tests.conformance.catalogue import RULES, SUBSTRATES, TASKS, VIEWS, admitted

from morphax.testing import BrokenPromiseError, check_training

ACROSS = 7  # rules in one table
TOGETHER = 8  # rules that share what JAX compiles for a substrate: half the time, some GB of memory
PAGE = Path(__file__).parents[2] / "docs" / "devices.md"
BLOCK = re.compile(r"(<!-- conformance -->\n).*?(<!-- end conformance -->)", re.DOTALL)


class Row(NamedTuple):
    """One rule on one substrate: tasks that train as they are, those that do through a view, and what failed."""

    typed: int
    viewed: int
    failures: list[str]


def rules_by(count: int) -> list[list[str]]:
    """All rules, some at a time."""
    rules = list(RULES)
    return [rules[first : first + count] for first in range(0, len(rules), count)]


def tried(name: str, rules: Sequence[str]) -> dict[tuple[str, str], Row]:
    """Every task with some rules on one substrate."""
    rows = {(name, rule): _row(name, rule) for rule in rules}
    jax.clear_caches()
    return rows


def _row(name: str, rule: str) -> Row:
    row = Row(0, 0, [])
    for on, make in TASKS.items():
        try:
            cell = admitted(rule, name, make())
            if cell is None:
                continue
            check_training(cell.rule, cell.substrate, cell.task)
        except BrokenPromiseError as error:
            row.failures.append(f"{rule} x {name} x {on}: {error}")
            continue
        typed = cell.view is VIEWS[0]
        row = row._replace(typed=row.typed + typed, viewed=row.viewed + (not typed))
    return row


def table(rows: dict[tuple[str, str], Row]) -> str:
    """Substrates down, rules across, some beside each other."""

    def text(row: Row) -> str:
        if row.failures:
            return f"{len(row.failures)} failed"
        views = f" + {row.viewed}" if row.viewed else ""
        return f"{row.typed}{views}" if row.typed + row.viewed else "—"

    lines = []
    for group in rules_by(ACROSS):
        lines += [f"| | {' | '.join(group)} |", "|---" * (len(group) + 1) + "|"]
        lines += [f"| {name} | {' | '.join(text(rows[name, rule]) for rule in group)} |" for name in SUBSTRATES]
        lines.append("")
    return "\n".join(lines)


def _without_optimisation() -> None:
    jax.config.update("jax_disable_most_optimizations", True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    options = parser.parse_args()
    together = list(product(SUBSTRATES, rules_by(TOGETHER)))
    with ProcessPoolExecutor(options.workers, get_context("spawn"), _without_optimisation) as pool:
        rows = dict(ChainMap(*pool.map(tried, *zip(*together, strict=True))))
    failures = [failure for row in rows.values() for failure in row.failures]
    print(table(rows))
    print("\n".join(failures) or f"all of {len(rows) * len(TASKS)} cells train or are refused")
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(BLOCK.sub(lambda match: match[1] + table(rows) + match[2], page), encoding="utf-8")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
