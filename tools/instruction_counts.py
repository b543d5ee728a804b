#!/usr/bin/env python3
"""How many instructions the hot loops take: by valgrind, so the same on a busy machine.

    tools/instruction_counts.py BINARY             compares with what is recorded
    tools/instruction_counts.py BINARY --update    records anew

Recorded in tests/kernels/instruction_counts.json. A count that grows by more than 2 % is an error:
say in the commit why it is worth it, and update. One that falls as much is an error, too, or the
next growth would not be seen. Only the program's own code counts (what libc and the loader do
depends on the machine). valgrind knows no AVX-512.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RECORDED = ROOT / "tests" / "kernels" / "instruction_counts.json"
MOST = 0.02
PROMPT = ",".join(str(40 + 7 * i % 300) for i in range(64))
SHORT = PROMPT[: PROMPT.index(",", 20)]
RUNS = {
    "prompt of 64, avx2, bfloat16": ["--cpu", "avx2", "--ids", PROMPT, "--max-tokens", "1"],
    "prompt of 64, avx2, float32": [
        *["--cpu", "avx2", "--ids", PROMPT, "--max-tokens", "1", "--dtype", "float32"],
    ],
    "24 tokens, avx2, bfloat16": ["--cpu", "avx2", "--ids", SHORT, "--max-tokens", "24"],
    "4 tokens, portable, bfloat16": ["--cpu", "portable", "--ids", SHORT, "--max-tokens", "4"],
}


def count(binary: Path, options: list[str]) -> int:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "callgrind.out")
        command = ["valgrind", "-q", "--tool=callgrind", f"--callgrind-out-file={out}", str(binary)]
        command += ["run", str(ROOT / "models" / "nano"), *options]
        command += ["--threads", "1", "--temperature", "0"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
        if done.returncode != 0:
            sys.exit(f"{' '.join(command)}: exit {done.returncode}\n{done.stderr[:2000]}")
        listed = subprocess.run(
            ["callgrind_annotate", "--threshold=100", "--auto=no", str(out)],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    own = re.compile(rf"^\s*([\d,]+) .*\[.*{re.escape(binary.name)}\]\s*$", re.MULTILINE)
    counts = [int(number.replace(",", "")) for number in own.findall(listed)]
    if not counts:
        sys.exit(f"callgrind_annotate lists nothing of {binary}:\n{listed[:2000]}")
    return sum(counts)


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("binary", type=Path)
    parser.add_argument("--update", action="store_true", help="write the counts of this build")
    arguments = parser.parse_args()
    counts = {name: count(arguments.binary, options) for name, options in RUNS.items()}
    if arguments.update:
        RECORDED.write_text(json.dumps(counts, indent=2) + "\n")
    recorded = json.loads(RECORDED.read_text())
    failed = recorded.keys() != counts.keys()
    for name, number in counts.items():
        change = number / recorded.get(name, number) - 1
        wrong = abs(change) > MOST
        failed = failed or wrong
        print(f"{name}: {number:,} instructions, {change:+.2%}{'  <- more than 2 %' * wrong}")
    if failed:
        print(f"differs from {RECORDED.relative_to(ROOT)}: tools/instruction_counts.py --update")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
