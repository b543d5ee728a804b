"""The port checklist as a table: samebits under torch's profile against transformers, component by
component. Writes what stands behind the mark in docs/parity.md.

    make parity                      # or: PYTHONPATH=python python tests/parity/table.py --out FILE

Left out: what cannot be run side by side here (other machines, more than two torch threads).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import parity
import torch
import transformers

ROOT = Path(__file__).resolve().parents[2]
PROMPTS = [1, 2, 3, 5, 9, 40, 70, 200]
BOTH = ("eager", "sdpa")
MARK = "<!-- what follows is written by make parity -->"
ORDER = [
    "embedding", "rotary", "RMSNorm", "q, k, v projections", "scores", "softmax", "context",
    "o_proj", "MLP gate, up", "MLP activation, product", "MLP down", "residuals", "final norm",
    "logits, one token", "logits, several tokens",
]  # fmt: skip
TEXTS = [
    "Hello, world!", "", " ", "naïve café", "日本語のテキスト", "मेरा नाम", "👩‍👩‍👧 family",
    "def f(x):\n    return x ** 2\n", "1234567890", "\t\ttabs\n\n\n", "https://example.org/?q=1",
]  # fmt: skip


class Table:
    """Counts of each column (a model in a dtype) and rows of whole answers."""

    def __init__(self, program: Path) -> None:
        self.program = program
        self.columns: dict[str, parity.Counts] = {}
        self.answers: list[tuple[str, str, int, int]] = []  # component, what, compared, differing
        self.not_proven: set[str] = set()

    def traces(self, name: str, folder: Path, dtype: str, threads: list[int],
               prompts: list[int], steps: int, batch: list[int]) -> None:  # fmt: skip
        counts = self.columns.setdefault(f"{name} {dtype}", parity.Counts())
        for count in threads:
            with tempfile.TemporaryDirectory() as work:
                bench = parity.Bench(self.program, folder, dtype, count, Path(work))
                say(f"{name} {dtype}, {count} threads")
                parity.traces(bench, counts, prompts, steps, BOTH, progress=lambda _: None)
                if batch:
                    parity.padded_batch(bench, counts, batch, 4, BOTH)
        self.not_proven |= counts.not_proven

    def generations(self, name: str, folder: Path, dtype: str, seeds: int) -> None:
        say(f"{name} {dtype}, generate")
        with tempfile.TemporaryDirectory() as work:
            bench = parity.Bench(self.program, folder, dtype, 2, Path(work))
            results = list(parity.generations(bench, 12, 64, range(seeds)))
        greedy = [same for seed, same in results if seed is None]
        sampled = [same for seed, same in results if seed is not None]
        what = f"{name} {dtype}, 64 tokens"
        self.answers.append(("generation, greedy", what, 1, greedy.count(False)))
        self.answers.append(("sampling, a seed each", what, len(sampled), sampled.count(False)))

    def checkpoint(self, name: str, folder: Path) -> None:
        """Configuration, weights and tokens as transformers has them."""
        with tempfile.TemporaryDirectory() as work:
            bench = parity.Bench(self.program, folder, "bfloat16", 1, Path(work))
            shown = json.loads(bench.run("inspect", folder, "--json"))["config"]
            config = bench.model.config
            keys = [key for key in shown if hasattr(config, key) and key != "dtype"]
            different = [key for key in keys if getattr(config, key) != shown[key]]
            self.answers.append(("configuration", f"{name}, keys", len(keys), len(different)))
            saved = Path(work) / "saved"
            bench.model.save_pretrained(saved)
            found = json.loads(bench.run("diff", folder, saved, "--json", codes=(0, 1)))
            values = sum(parameter.numel() for parameter in bench.model.parameters())
            wrong = 0 if found["same"] else values
            self.answers.append(("weights, byte for byte", f"{name}, values", values, wrong))
            if (folder / "tokenizer.json").is_file():
                self.tokens(name, folder, bench)

    def tokens(self, name: str, folder: Path, bench: parity.Bench) -> None:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        wrong = 0
        for text in TEXTS:
            path = bench.work / "text"
            path.write_text(text, encoding="utf-8")
            ids = json.loads(bench.run("tokenize", folder, path, "--json"))["ids"]
            wrong += ids != tokenizer(text)["input_ids"]
        self.answers.append(("tokenization", f"{name}, texts", len(TEXTS), wrong))

    def differing(self) -> int:
        traces = sum(counts.total()[1] for counts in self.columns.values())
        return traces + sum(wrong for *_, wrong in self.answers)

    def markdown(self, seconds: float) -> str:
        names = list(self.columns)
        lines = [
            "| component | " + " | ".join(names) + " |",
            "|---|" + "---|" * len(names),
        ]
        for component in ORDER:
            cells = []
            for name in names:
                counts = self.columns[name]
                compared = counts.compared.get(component, 0)
                cells.append(
                    f"{counts.differing.get(component, 0)} of {compared:,}" if compared else "-"
                )
            lines.append(f"| {component} | " + " | ".join(cells) + " |")
        totals = [self.columns[name].total() for name in names]
        cells = [f"**{differing} of {compared:,}**" for compared, differing in totals]
        lines.append("| **all** | " + " | ".join(cells) + " |")
        lines += ["", "| component | what | compared | differing |", "|---|---|---|---|"]
        for component, what, compared, wrong in self.answers:
            lines.append(f"| {component} | {what} | {compared:,} | {wrong} |")
        every = sum(compared for compared, _ in totals)
        lines += [
            "",
            f"{every:,} values of traces, {sum(d for _, d in totals)} differ; "
            f"{len(self.not_proven)} entries of the profiles not proven.",
        ]
        lines += [f"- not proven: {line}" for line in sorted(self.not_proven)]
        cpu = next(
            (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
             if line.startswith("model name")), platform.machine(),
        )  # fmt: skip
        lines += [
            "",
            f"torch {torch.__version__} ({torch.backends.cpu.get_cpu_capability()}), transformers "
            f"{transformers.__version__}, CPU {cpu}, {os.cpu_count()} virtual cores, "
            f"{seconds / 60:.0f} minutes.",
        ]
        return "\n".join(lines) + "\n"


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# Name, dtype, torch threads, prompts, decode steps, a left-padded batch or none.
TRACES: list[tuple[str, str, int, list[int], int, list[int]]] = [
    ("nano", "bfloat16", 2, PROMPTS, 32, [9, 5, 3]),
    ("nano", "float32", 1, PROMPTS, 32, [9, 5, 3]),
    ("SmolLM2-135M", "bfloat16", 2, [1, 9, 70, 200], 4, []),
    ("qwen2-896-tied", "bfloat16", 1, PROMPTS, 4, [9, 5, 3]),
    ("qwen2-896-tied", "float32", 2, PROMPTS, 4, []),
    ("qwen2-896-head128", "bfloat16", 2, [1, 3, 9, 70], 4, []),
    ("qwen2-256", "float32", 2, PROMPTS, 32, []),
    ("qwen2-256", "float16", 1, [1, 9, 70], 4, []),
]


def fill(table: Table, smollm2: Path | None, write: Callable[[], None]) -> None:
    """Whatever is done so far is written: it takes a quarter of an hour."""
    with tempfile.TemporaryDirectory() as made:
        folders = {"nano": ROOT / "models" / "nano"}
        if smollm2 is not None:
            folders["SmolLM2-135M"] = smollm2
        for name in ("qwen2-256", "qwen2-896-tied", "qwen2-896-head128"):
            folders[name] = Path(made) / name
            parity.make_model(name, folders[name])
        for name in ("nano", "SmolLM2-135M", "qwen2-896-head128"):
            if name in folders:
                table.checkpoint(name, folders[name])
        for name, dtype, threads, prompts, steps, batch in TRACES:
            if name in folders:
                table.traces(name, folders[name], dtype, [threads], prompts, steps, batch)
                write()
        table.generations("qwen2-256", folders["qwen2-256"], "bfloat16", 20)
        write()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "parity.md")
    arguments = parser.parse_args()
    transformers.utils.logging.disable_progress_bar()
    program = Path(os.environ.get("SAMEBITS", ROOT / "build" / "release" / "samebits"))
    smollm2 = os.environ.get("SMOLLM2")
    table = Table(program)
    begin = time.monotonic()
    head, mark, _ = arguments.out.read_text(encoding="utf-8").partition(MARK)
    if not mark:
        raise ValueError(f"{arguments.out}: no line {MARK!r} to write behind")

    def write() -> None:
        text = table.markdown(time.monotonic() - begin)
        arguments.out.write_text(f"{head}{mark}\n\n{text}", encoding="utf-8")

    fill(table, Path(smollm2) if smollm2 else None, write)
    print(table.markdown(time.monotonic() - begin))
    return 1 if table.differing() else 0


if __name__ == "__main__":
    sys.exit(main())
