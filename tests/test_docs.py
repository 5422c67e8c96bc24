"""The documentation's tables are those of the stored results, and its Python runs."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CODE = re.compile(r"```python\n(.*?)```", re.DOTALL)


def test_tables_are_up_to_date():
    done = subprocess.run([sys.executable, ROOT / "docs/build.py", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "page",
    [
        pytest.param("README.md", marks=pytest.mark.slow),
        pytest.param("docs/devices.md", marks=pytest.mark.slow),
        pytest.param("docs/josephson.md", marks=pytest.mark.slow),
        "docs/experiments.md",
        "docs/judging.md",
        "docs/machines.md",
        "docs/phase-oscillators.md",
        "docs/quantized.md",
        "docs/spiking.md",
        pytest.param("docs/training.md", marks=pytest.mark.slow),
    ],
)
def test_python_in_the_pages_runs(page):
    namespace: dict = {"__name__": "docs"}
    for block in CODE.findall((ROOT / page).read_text(encoding="utf-8")):
        exec(compile(block, page, "exec"), namespace)
