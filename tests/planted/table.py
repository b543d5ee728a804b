"""The table of planted bugs for the docs, in markdown.

    python tests/planted/table.py [--keep FOLDER] [--out FILE] [--seed N] [PREFIX ...]

A cell is: the share of variants that `samebits check` named rightly (cause, first node, nothing
else). Exit code 1 when a cell is not full. --keep: checkpoints and traces are kept there and used
again. --seed: other weights and prompts, to see that check was not made to fit those of the tests.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from cases import Case, all_cases
from checker import check, complaints
from faults import BOTH, BUGS, CHAINS
from make_checkpoints import SHAPES, write_checkpoint

Results = dict[tuple[str, str, str], list[bool]]


def row_of(case: Case) -> str:
    if case.layers != "all":
        return f"{case.cause}, layers {case.layers} only"
    if case.cause:
        return f"{case.cause}, with chains" if case.chains else case.cause
    if not case.chains:
        return "healthy"
    return case.chains if case.chains in CHAINS else "chains together"


def run(folder: Path, prefixes: tuple[str, ...], keep: bool) -> Results:
    checkpoints, traces = folder / "ckpt", folder / "traces"
    traces.mkdir(parents=True, exist_ok=True)
    for shape in SHAPES:
        if not (checkpoints / shape / "config.json").exists():
            write_checkpoint(shape, checkpoints / shape)
    results: Results = defaultdict(list)
    for case in all_cases():
        if not case.name.startswith(prefixes):
            continue
        trace = traces / f"{case.name}.safetensors"
        if not trace.exists():
            case.record(checkpoints, traces)
        found = complaints(case, check(checkpoints / case.shape, trace))
        if not keep:
            trace.unlink()
        for complaint in found:
            print(f"{case.name}: {complaint}", file=sys.stderr)
        results[row_of(case), case.shape, case.dtype].append(not found)
    return results


def table(results: Results) -> str:
    columns = [(shape, dtype) for shape in SHAPES for dtype in BOTH]
    head = [f"{shape} {'fp32' if dtype == 'float32' else 'bf16'}" for shape, dtype in columns]
    lines = ["| planted | " + " | ".join(head) + " |", "|---" * (len(head) + 1) + "|"]
    order = [*BUGS, "healthy", *CHAINS, "chains together"]
    rows = sorted({key[0] for key in results}, key=lambda r: (r not in order, *_place(r, order)))
    for row in rows:
        cells = []
        for shape, dtype in columns:
            outcomes = results.get((row, shape, dtype))
            cells.append(f"{sum(outcomes)}/{len(outcomes)}" if outcomes else "-")
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    outcomes = [outcome for cell in results.values() for outcome in cell]
    lines += ["", f"{sum(outcomes)} of {len(outcomes)} traces judged rightly. -: no effect there."]
    return "\n".join(lines)


def _place(row: str, order: list[str]) -> tuple[int, str]:
    return (order.index(row) if row in order else len(order), row)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", type=Path, metavar="FOLDER")
    parser.add_argument("--out", type=Path, metavar="FILE")
    parser.add_argument("--seed", type=int, default=0, help="added to the shapes' seeds")
    parser.add_argument("prefixes", nargs="*", metavar="PREFIX", help="of case names: A-bfloat16")
    arguments = parser.parse_args()
    prefixes = tuple(arguments.prefixes) or ("",)
    for name, shape in SHAPES.items():
        SHAPES[name] = dataclasses.replace(shape, seed=shape.seed + arguments.seed)
    if arguments.keep:
        results = run(arguments.keep, prefixes, keep=True)
    else:
        with tempfile.TemporaryDirectory() as folder:
            results = run(Path(folder), prefixes, keep=False)
    text = table(results)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n")
    return 0 if all(all(outcomes) for outcomes in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
