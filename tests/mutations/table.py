"""The results of the mutation suite as markdown.

python tests/mutations/table.py RESULTS.jsonl ... > part.md
"""

from __future__ import annotations

import json
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

Line = dict[str, Any]


def dtype_of(line: Line) -> str:
    return "fp32" if "-float32-" in line["case"] else "bf16"


def share(right: int, total: int) -> str:
    return f"{right}/{total}" if total else "-"


def bug_table(lines: list[Line]) -> list[str]:
    """One row a cause: JAX and torch, both dtypes."""
    columns = [(mode, dtype) for mode in ("single", "torch") for dtype in ("fp32", "bf16")]
    cells: dict[tuple[str, str, str], list[bool]] = defaultdict(list)
    silent: Counter[str] = Counter()
    for line in lines:
        if line["mode"] not in ("single", "torch"):
            continue
        cause = line["planted"][0]
        if line.get("no_effect"):
            silent[cause] += 1
            continue
        cells[cause, line["mode"], dtype_of(line)].append(line["right"])
    out = [
        "| planted | JAX fp32 | JAX bf16 | torch fp32 | torch bf16 | no effect |",
        "|---|---|---|---|---|---|",
    ]
    for cause in sorted({key[0] for key in cells}):
        row = [cells[(cause, *column)] for column in columns]
        shown = " | ".join(share(sum(cell), len(cell)) for cell in row)
        out.append(f"| {cause} | {shown} | {silent[cause] or '-'} |")
    every = [bool(outcome) for cell in cells.values() for outcome in cell]
    out += ["", f"{sum(every)} of {len(every)} judged rightly: the planted cause and nothing else, "
                "at its first node."]  # fmt: skip
    return out


def confusion(lines: list[Line]) -> list[str]:
    """What was found instead, where it was not what was planted."""
    wrong: Counter[tuple[str, str]] = Counter()
    for line in lines:
        if line["mode"] in ("single", "torch") and not line.get("no_effect") and not line["right"]:
            found = " + ".join(line["causes"]) or "nothing"
            if line["causes"] == line["planted"]:
                found += ", at another node first"
            wrong[line["planted"][0], found] += 1
    if not wrong:
        return ["Nothing was confused."]
    out = ["| planted | found | times |", "|---|---|---|"]
    return out + [f"| {a} | {b} | {n} |" for (a, b), n in sorted(wrong.items())]


def main() -> None:
    lines: list[Line] = []
    for name in sys.argv[1:]:
        lines += [json.loads(text) for text in Path(name).read_text().splitlines()]
    by_mode: dict[str, list[Line]] = defaultdict(list)
    for line in lines:
        by_mode[line["mode"]].append(line)
    counted = {mode: [x for x in some if not x.get("no_effect")] for mode, some in by_mode.items()}
    out = ["### One bug", "", *bug_table(lines), "", "### Confusion", "", *confusion(lines)]
    if healthy := counted.get("healthy"):
        alarms = sum(not x["right"] for x in healthy)
        out += ["", "### Healthy runs", "",
                f"{len(healthy)} runs, {alarms} false alarms: with 95 % confidence fewer than "
                f"{3 / len(healthy) if alarms == 0 else (alarms + 4) / len(healthy):.2g} of such "
                "runs are called a bug."]  # fmt: skip
    if pairs := counted.get("pairs"):
        both = sum(x["right"] for x in pairs)
        out += ["", "### Pairs", "", f"{both} of {len(pairs)} random pairs: both causes and "
                "nothing else."]  # fmt: skip
        out += [f"- {' + '.join(x['planted'])}: found {' + '.join(x['causes']) or 'nothing'}"
                for x in pairs if not x["right"]]  # fmt: skip
    if sparse := counted.get("sparse"):
        layer, cause = (sum(bool(x[key]) for x in sparse) for key in ("right_layer", "right"))
        out += ["", "### Layer outputs only", "",
                f"Right layer in {layer}, right cause (and no other) in {cause} "
                f"of {len(sparse)}."]  # fmt: skip
        missed: Counter[str] = Counter(x["planted"][0] for x in sparse if not x["right"])
        out += [f"- {name}: {n} missed" for name, n in sorted(missed.items())]
    seconds = sorted(x["seconds"] for some in counted.values() for x in some)
    if seconds:
        out += ["", f"One check took {seconds[len(seconds) // 2]} s in the median, "
                f"{seconds[-1]} s at most."]  # fmt: skip
    print("\n".join(out))


if __name__ == "__main__":
    main()
