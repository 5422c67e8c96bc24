"""Keep the documentation's numbers what a run gave: python docs/build.py [RUNS]

With a folder of finished full-size runs (as `morphax run` leaves them below `runs/`) result, configuration, versions
and figures of each are copied to docs/results/. Then every block

    <!-- results: NAME -->
    ...
    <!-- end -->

in the pages is written anew: the claims of the code, judged on the stored result, and the figures. So is what the
package holds of results. Likewise

    <!-- coverage: SYSTEM -->
    ...
    <!-- end -->

is what the paper of a system shows and says, and which claims answer it. Tables of benchmarks, which `--keep` stores in
docs/results/speed/, fill the blocks

    <!-- speed: BENCHMARK/TABLE -->
    ...
    <!-- end -->

for each number of cores that was measured. `--check` writes nothing and fails when something is stale.
"""

import argparse
import json
import re
import shutil
import sys
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from morphax.experiments import all_experiments
from morphax.experiments.judging._stored import STORED, as_json
from morphax.files import read_json, read_sealed, read_sealed_dataset, write_json, write_sealed_dataset
from morphax.lab.report import claim_texts

DOCS = Path(__file__).parent
BESIDE = 4  # columns at most of tables that stand side by side
BLOCK = re.compile(r"(<!-- (results|coverage|speed|which): (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="?", type=Path)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    if options.runs is not None:
        for folder in sorted(options.runs.glob("*/*/full")):
            collect(folder)
    stale = []
    for page in [DOCS.parent / "README.md", *sorted(DOCS.glob("*.md"))]:
        text = page.read_text(encoding="utf-8")
        fresh = BLOCK.sub(lambda match, page=page: match[1] + filled(match[2], match[3], page) + match[4], text)
        if fresh != text:
            stale.append(page.name)
            if not options.check:
                page.write_text(fresh, encoding="utf-8")
    fresh = as_text(as_json(read_sealed_dataset(DOCS / "results/judging/comparison/result.nc")))
    if not STORED.exists() or fresh != STORED.read_text(encoding="utf-8"):
        stale.append(STORED.name)
        if not options.check:
            STORED.write_text(fresh, encoding="utf-8")
    if options.check and stale:
        print(f"stale: {', '.join(stale)}; run python docs/build.py", file=sys.stderr)
        return 1
    return 0


def collect(folder: Path) -> None:
    """Copy one run folder, the result compressed, without what can be made from it."""
    request = read_sealed(folder / "config.json")
    target = DOCS / "results" / request["experiment"]
    target.mkdir(parents=True, exist_ok=True)
    environment = read_json(folder / "environment.json")
    write_json(target / "run.json", request | {"versions": environment["versions"], "seed": environment["seed"]})
    result = read_sealed_dataset(folder / "result.nc")
    compressed = {name: {"compression": "gzip", "shuffle": True} for name, v in result.data_vars.items() if v.ndim}
    write_sealed_dataset(target / "result.nc", result, encoding=compressed)
    for figure in target.glob("*.png"):
        figure.unlink()
    for figure in (folder / "figures").glob("*.png"):
        shutil.copy(figure, target)


def as_text(content: dict[str, dict[str, list]]) -> str:
    """JSON with one array a line, so that changes can be read."""
    parts = [
        f"{json.dumps(part)}: {{\n" + ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in found.items()) + "\n}"
        for part, found in content.items()
    ]
    return "{\n" + ",\n".join(parts) + "\n}\n"


def filled(kind: str, name: str, page: Path) -> str:
    """What stands in a block, as Markdown."""
    if kind == "which":
        return which(int(name))
    if kind == "coverage":
        return coverage(name)
    return claims(name, page) if kind == "results" else speed(name)


def speed(name: str) -> str:
    """A table of a benchmark; where it was measured on one core and on more, side by side, or below each other."""
    benchmark, _, which = name.partition("/")
    found = [read_json(path) for path in sorted((DOCS / "results" / "speed").glob(f"{benchmark}-*.json"))]
    found = [run for run in found if which in run["tables"]]
    if not found:
        raise SystemExit(f"{name}: no such table of a benchmark is stored; python benchmarks/... --keep stores one")
    tables = [run["tables"][which] for run in found]
    if len(found) == 1:
        lines = markdown_table(tables[0]["header"], tables[0]["rows"])
    elif len(tables[0]["header"]) > BESIDE:
        parts = zip(found, tables, strict=True)
        each = [[f"On {run['cores']}:", "", *markdown_table(one["header"], one["rows"]), ""] for run, one in parts]
        lines = [line for part in each for line in part][:-1]
    else:
        # Rows are recognised by their first cell.
        labels = dict.fromkeys(row[0] for one in tables for row in one["rows"])
        head, rows = [tables[0]["header"][0]], {label: [label] for label in labels}
        for run, one in zip(found, tables, strict=True):
            columns, given = one["header"][1:], {row[0]: row[1:] for row in one["rows"]}
            head += [f"{column}, {run['cores']}" for column in columns]
            for label, row in rows.items():
                row += given.get(label, [""] * len(columns))
        lines = markdown_table(head, rows.values())
    machines = dict.fromkeys(run["machine"] for run in found)
    return "\n".join([*lines, "", *(f"Measured on {machine}." for machine in machines)]) + "\n"


def which(budget: int) -> str:
    """What a device offers, which rule is best for it, and what that reached and asked: from results of `rules/...`."""
    layered, alone = (read_sealed_dataset(DOCS / f"results/rules/{name}/result.nc") for name in ("layered", "which"))
    layers, network = (
        layered.sel(system=system, budget=budget) for system in ("oscillator layers", "spintronic network")
    )
    chips = layered.sel(system="oscillator layers", spread=float(layered.spread.max()))
    chips = chips.assign(accuracy=chips.chip_accuracy, validation=chips.chip_validation).sel(budget=budget)
    spread = f"chips that differ by {100 * float(layered.spread.max()):g} %"
    nudged = [rule for rule in alone.rule.values if rule not in ("implicit", "back-propagation")]
    offers = (
        ("a loss, and weights can be written", "layers", layers, ("SPSA",)),
        ("besides: something can be added at its neurons", "layers", layers, ("node perturbation",)),
        (
            "what reaches its layers, and what they answer",
            "layers",
            layers,
            ("feedback alignment", "DFA", "augmented DFA", "local heads", "forward-forward", "physical local"),
        ),
        ("nothing, but there is a model", f"layers, {spread}", chips, ("back-propagation",)),
        ("answers, and there is a model", f"layers, {spread}", chips, ("in the loop",)),
        ("no model", f"layers, {spread}", chips, ("SPSA", "node perturbation", "augmented DFA")),
        ("states in the course of a sequence", "spintronic network, rows", network, ("e-prop", "RFLO")),
        ("nothing, but there is a model", "spintronic network, rows", network, ("back-propagation",)),
        ("rest in an energy", "Hopfield network", alone.sel(system="energy"), nudged),
        ("time can be reversed", "lattice, rows", alone.sel(system="reversal"), ("echo",)),
    )
    rows = []
    for offer, device, found, rules in offers:
        scores = found.validation.sel(rule=list(rules)).mean("seed").max("learning_rate").dropna("rule")
        best = found.sel(rule=scores.rule[int(np.argmax(scores.values))])
        accuracy = f"{float(best.accuracy.mean()):.1f} ± {float(best.accuracy.std()):.1f}"
        asked = 0 if str(best.rule.values) == "back-propagation" else 1
        counts = [f"{int(best[name]) * asked:,}" for name in ("presentations", "writes")]
        rows.append((offer, device, str(best.rule.values), accuracy, *counts))
    head = ("what the device offers", "device", "best rule", "test accuracy, %", "presentations", "writes")
    return "\n".join(markdown_table(head, rows)) + "\n"


def markdown_table(head: Sequence[object], rows: Iterable[Iterable[object]]) -> list[str]:
    return [markdown_row(head), "|---" * len(head) + "|", *map(markdown_row, rows)]


def markdown_row(cells: Iterable[object]) -> str:
    # |00> is a state, not two columns.
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"


@cache
def judged(name: str) -> list[dict[str, Any]]:
    """The claims of an experiment on its stored result; where none is stored yet, without any number."""
    made, stored = all_experiments()[name], DOCS / "results" / name / "result.nc"
    if stored.exists():
        return made().judge(read_sealed_dataset(stored))
    fields = {"paper": None, "ours": None, "met": None, "no_verdict": "no full-size run is stored yet"}
    return [
        {field: getattr(c, field) for field in ("relation", "tolerance", "source", "item")} | {"claim": c.text} | fields
        for c in made.claims
    ]


def claims(name: str, page: Path) -> str:
    """The claims of an experiment and its figure, as Markdown."""
    folder = DOCS / "results" / name
    lines = ["| claim | paper or baseline | here | verdict | source |", "|---|---|---|---|---|"]
    for claim in judged(name):
        texts = claim_texts(claim)
        cells = (claim["claim"], texts["expected"], texts["here"], _verdict(claim), claim["source"])
        lines.append(markdown_row(cells))
    lines.append("")
    lines += [f"![{name}]({figure.relative_to(page.parent).as_posix()})" for figure in sorted(folder.glob("*.png"))]
    return "\n".join(lines) + "\n"


def coverage(system: str) -> str:
    """What the paper of a system shows and says, and the claims that answer it, as Markdown."""
    experiments = [made for name, made in all_experiments().items() if name.startswith(f"{system}/")]
    (paper,) = {made.paper for made in experiments if made.paper is not None}
    answers: dict[str, list[tuple[str, dict[str, Any]]]] = {item: [] for item in paper.items}
    for made in experiments:
        for claim in judged(made.name):
            answers.get(claim.get("item", ""), []).append((made.name, claim))
    rows = []
    for item, (place, says) in paper.items.items():
        for name, claim in answers[item]:
            texts = claim_texts(claim)
            rows.append((place, says, name, claim["claim"], texts["expected"], texts["here"], _verdict(claim)))
        if not answers[item]:
            rows.append((place, says, *4 * ("—",), "**not answered**"))
    head = ("where", "what the paper shows or says", "experiment", "claim", "paper or baseline", "here", "verdict")
    cited = f"{paper.authors}, [*{paper.title}*]({paper.link}), {paper.published}."
    return "\n".join([cited, "", *markdown_table(head, rows)]) + "\n"


def _verdict(claim: dict[str, Any]) -> str:
    """With the cause of one that is not met, and the proof of one that is refuted."""
    verdict = claim_texts(claim)["verdict"]
    if verdict in ("met", "reported"):
        return verdict
    refuted = claim.get("refuted")
    why = f"at best {refuted['best']:.4g}; {refuted['proof']}" if refuted else claim.get("cause", "")
    return f"**{verdict}**" + (f": {why}" if why else "")


if __name__ == "__main__":
    sys.exit(main())
