"""How cost grows: what `samebits bench` measures beside what the work predicts.

    build/venv/bin/python -m pip install matplotlib
    build/venv/bin/python bench/growth.py FOLDER [FOLDER ...] -o docs/growth.svg
    build/venv/bin/python bench/growth.py --from growth.json -o docs/growth.svg

The first checkpoint is measured over prompt length, context depth, sequences together and threads;
all of them over model size. The prediction of a measurement is the larger one of its operations by
the peak and its bytes by the bandwidth, both measured right before and behind it: what a machine
without any other cost would take.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

Run = dict[str, Any]
LENGTHS = "128,512,2048,4096,8192,16384,32700"
BATCHES = "1,2,4,8,16,32"


def bench(samebits: str, folder: str, **options: object) -> Run:
    command = [samebits, "bench", folder, "--json"]
    for name, value in options.items():
        command += [f"--{name.replace('_', '-')}", str(value)]
    print(" ".join(command), flush=True)
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    result: Run = json.loads(output)
    return result


def measure(args: argparse.Namespace) -> Run:
    first, rest = args.folders[0], args.folders[1:]
    common = {"rounds": args.rounds, "max_tokens": 8}
    one = {**common, "batch": 1, "prompt_tokens": 512}
    threads = range(1, (os.cpu_count() or 1) + 1)
    return {
        "growth": bench(
            args.samebits, first, **{**common, "batch": BATCHES, "prompt_tokens": args.lengths}
        ),
        "threads": [bench(args.samebits, first, **one, threads=n) for n in threads],
        "sizes": [bench(args.samebits, folder, **one) for folder in [first, *rest]],
    }


@dataclass
class Point:
    x: float
    seconds: float  # of one pass: a prompt, or a token of each sequence
    predicted: float
    tokens_per_s: float


def point(run: Run, x: float) -> Point:
    passes = run["tokens"] if run["kind"] == "decode" else 1
    seconds = run["seconds"] / passes
    return Point(x, seconds, seconds * run["share_of_limit"], run["tokens_per_s"])


@dataclass
class Panel:
    title: str
    x_label: str
    lines: dict[str, list[Point]]


def points(
    results: Iterable[Run], x: Callable[[Run, Run], float], wanted: Callable[[Run], bool]
) -> list[Point]:
    """Of the runs of all results, by x (of a result and its run)."""
    found = [
        point(run, x(result, run)) for result in results for run in result["runs"] if wanted(run)
    ]
    return sorted(found, key=lambda p: p.x)


def is_prompt(run: Run) -> bool:
    return bool(run["kind"] == "prefill")


def is_alone(run: Run) -> bool:
    return bool(run["kind"] == "decode" and run["batch"] == 1)


def panels(data: Run) -> list[Panel]:
    growth, threads, sizes = [data["growth"]], data["threads"], data["sizes"]
    prompts = points(growth, lambda _, run: run["tokens"], is_prompt)
    depths = points(growth, lambda _, run: run["depth"], is_alone)
    together = points(growth, lambda _, run: run["batch"], lambda run: run["batch"] > 1)

    def thread_count(result: Run, _: Run) -> float:
        return float(threads.index(result) + 1)

    def size(result: Run, _: Run) -> float:
        token = next(filter(is_alone, result["runs"]))
        return float(token["bytes"] / token["tokens"] / 1e9)

    def both(results: list[Run], x: Callable[[Run, Run], float]) -> dict[str, list[Point]]:
        return {
            "a prompt of 512": points(results, x, is_prompt),
            "a token": points(results, x, is_alone),
        }

    return [
        Panel("Prompt length", "tokens", {"a prompt": prompts}),
        Panel("Context depth", "tokens before", {"a token": depths}),
        Panel(
            "Sequences together",
            "sequences",
            {"a token of each": [replace(depths[0], x=1), *together]},
        ),
        Panel("Threads", "threads", both(threads, thread_count)),
        Panel("Model size", "GB that a token reads", both(sizes, size)),
    ]


def table(panel: Panel) -> str:
    lines = [
        f"| {panel.x_label} | what | seconds | predicted | share | tokens/s |",
        "|---" * 6 + "|",
    ]
    for name, measured in panel.lines.items():
        lines += [
            f"| {p.x:g} | {name} | {p.seconds:.3g} | {p.predicted:.3g} "
            f"| {100 * p.predicted / p.seconds:.0f} % | {p.tokens_per_s:.3g} |"
            for p in measured
        ]
    return "\n".join(lines)


def draw(data: Run, to: Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "samebits"  # the same file from the same figures
    from matplotlib import pyplot, ticker

    figure, axes = pyplot.subplots(2, 3, figsize=(13, 7.5), layout="constrained")
    for panel, axis in zip(panels(data), axes.flat, strict=False):
        for i, (name, measured) in enumerate(panel.lines.items()):
            xs = [p.x for p in measured]
            axis.plot(xs, [p.predicted for p in measured], "-", color=f"C{i}", alpha=0.5)
            axis.plot(xs, [p.seconds for p in measured], "o", color=f"C{i}", label=name)
        axis.set(title=panel.title, xlabel=panel.x_label, ylabel="seconds")
        axis.set(xscale="log", yscale="log")
        seconds = [
            t for line in panel.lines.values() for p in line for t in (p.seconds, p.predicted)
        ]
        axis.xaxis.set_minor_locator(ticker.NullLocator())
        axis.set_xticks(xs, [f"{x:.0f}" if x >= 10 else f"{x:.2g}" for x in xs], rotation=30)
        axis.yaxis.set_major_formatter("{x:g}")
        narrow = max(seconds) < 10 * min(seconds)
        axis.yaxis.set_minor_formatter("{x:g}" if narrow else ticker.NullFormatter())
        axis.grid(True, which="major", alpha=0.3)
        axis.legend()
    cpu, growth = data["growth"]["cpu"], data["growth"]
    last = axes.flat[-1]
    last.axis("off")
    last.text(
        0,
        1,
        f"{cpu['name']}, {cpu['isa']}, {growth['dtype']}\n\npoints: measured\n"
        "lines: predicted, operations by the peak\nor bytes by the bandwidth, whichever takes\n"
        "longer, measured around each point\n\n"
        f"{growth['limits']['flops_per_s'] / 1e9:.0f} GFLOP/s, "
        f"{growth['limits']['read_bytes_per_s'] / 1e9:.1f} GB/s",
        va="top",
    )
    figure.savefig(to, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="*", help="checkpoints; the first one is measured whole")
    parser.add_argument("-o", "--output", type=Path, help="the picture, as SVG")
    parser.add_argument("--json", type=Path, help="keep the measurements here")
    parser.add_argument("--from", dest="source", type=Path, help="measurements that --json kept")
    parser.add_argument("--lengths", default=LENGTHS, help="prompts of the first one, in tokens")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--samebits", default="build/release/samebits")
    args = parser.parse_args()
    if (args.source is None) == (not args.folders):
        parser.error("either checkpoints, or --from what was measured")
    data = json.loads(args.source.read_text()) if args.source else measure(args)
    if args.json:
        args.json.write_text(json.dumps(data, indent=1))
    for panel in panels(data):
        print(f"\n{panel.title}\n\n{table(panel)}")
    if args.output:
        draw(data, args.output)


if __name__ == "__main__":
    main()
