"""The documentation's tables are those of the stored results, and its Python runs."""

import re
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from morphax.cli import main

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
        pytest.param("docs/estimators.md", marks=pytest.mark.slow),
        pytest.param("docs/experiments.md", marks=pytest.mark.slow),
        pytest.param("docs/judging.md", marks=pytest.mark.slow),
        "docs/machines.md",
        pytest.param("docs/phase-oscillators.md", marks=pytest.mark.slow),
        "docs/quantized.md",
        pytest.param("docs/spiking.md", marks=pytest.mark.slow),
        pytest.param("docs/rules.md", marks=pytest.mark.slow),
        pytest.param("docs/training.md", marks=pytest.mark.slow),
    ],
)
def test_python_in_the_pages_runs(page):
    namespace: dict = {"__name__": "docs"}
    for block in CODE.findall((ROOT / page).read_text(encoding="utf-8")):
        exec(compile(block, page, "exec"), namespace)


@pytest.mark.slow
def test_the_tutorial_is_what_happens(tmp_path, monkeypatch, capsys):
    page = (ROOT / "docs/your-device.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    perl = re.search(r"((?:    .*\n)+)", page[page.index("    # leaky.pl") :])
    files = [*CODE.findall(page), textwrap.dedent(perl[1] if perl else "")]
    for text in files:
        Path(text.split("\n")[0].strip("# ")).write_text(text, encoding="utf-8")
    small = ["points=2000", "trial_points=1000", "max_products=500", "max_delay=10", "washout=60", "tasks=[]"]
    for line in re.findall(r"^    morphax (.*?)(?: +#.*)?$", page, re.MULTILINE):
        command = shlex.split(line)
        if command[0] == "judge":
            command += ["--quick", "--fresh", *(text for pair in small for text in ("--set", pair))]
        if "recording.csv" in command:
            write_answers()
        assert main(command) == 0, capsys.readouterr().err
    held = [float(number) for number in re.findall(r"Holds ([\d.]+)", capsys.readouterr().out)]
    assert held[-2:] == pytest.approx([3, 6], abs=1)  # the recording, and the program


def write_answers() -> None:
    """What the tutorial's device answered to its stimulus, in two runs, as German instruments write it."""
    drive = np.loadtxt("stimulus.csv", skiprows=1)
    rows = [
        [0.5 * time, run, drive[time], *(drive[max(time - lag, 0)] for lag in (1, 2, 3))]
        for run in (1, 2)
        for time in range(len(drive))
    ]
    lines = [";".join(f"{number:g}" for number in row).replace(".", ",") for row in rows]
    Path("recording.csv").write_text("\n".join(["time (ms);run;drive;v1;v2;v3", *lines]) + "\n")
