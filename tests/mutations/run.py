"""The mutation suite: bugs planted by independent implementations in random checkpoints, each
trace judged by `samebits check`.

    python tests/mutations/run.py single  --seeds 0-19 --out results.jsonl
    python tests/mutations/run.py torch   --seeds 0-19 --out results.jsonl
    python tests/mutations/run.py healthy --seeds 0-99 --out results.jsonl
    python tests/mutations/run.py pairs   --seeds 0-99 --out results.jsonl
    python tests/mutations/run.py sparse  --seeds 0-9  --out results.jsonl
    python tests/mutations/table.py results.jsonl

One line a case: what was planted, what was found, where, and whether that is right. Cases that are
in the file already are left out, so a run can be interrupted. What a bug changes is known from the
port itself: where its trace differs from the healthy one first is the right first node, and a trace
that does not differ shows no bug ("no effect").
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from random_models import random_shape, random_tokens  # it sets the paths of the others

import cases
import checker
from faults import ACCUMULATORS, BUGS, CHAINS, Plan
from make_checkpoints import prompt, write_checkpoint
from samebits import load_trace

DTYPES = ("float32", "bfloat16")
# The healthy habits of a port that may be combined; one place for the scale.
SCALES = ("scale-before-cast", "scores-fp32", "scale-bf16")
# What layer outputs alone can not show: an offset of all positions cancels in the scores, and in
# float32 no rounding is left that tells it.
INVISIBLE_IN_LAYERS = {("float32", "rope-position-offset")}


@dataclass
class Outcome:
    causes: list[str]
    first: str | None
    verdict: str
    exit_code: int
    chains: list[str]
    seconds: float


def check(model: Path, trace: Path) -> Outcome:
    begin = time.perf_counter()
    try:
        report = checker.check(model, trace)
    except AssertionError as error:
        return Outcome([], None, f"failed: {error}", -1, [], 0)
    return Outcome(
        report.causes,
        report.json["first_divergence"],
        report.json["verdict"],
        report.exit_code,
        sorted({c["chain"] for c in report.json["chains"]}),
        round(time.perf_counter() - begin, 2),
    )


def read(path: Path) -> tuple[dict[str, Any], bytes]:
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def first_difference(shape: str, one: Path, other: Path) -> str | None:
    return cases.first_difference(shape, load_trace(one), load_trace(other))


def keep_layers(path: Path, out: Path) -> None:
    """A trace with the layer outputs only."""
    header, data = read(path)
    metadata = header.pop("__metadata__")
    kept: dict[str, Any] = {}
    blocks, at = [], 0
    for name, entry in header.items():
        if not name.startswith("model.layers.") or name.count(".") != 2:
            continue
        begin, end = entry["data_offsets"]
        kept[name] = {**entry, "data_offsets": [at, at + end - begin]}
        blocks.append(data[begin:end])
        at += end - begin
    text = json.dumps({"__metadata__": metadata, **kept}).encode()
    text += b" " * (-len(text) % 8)
    out.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(blocks))


class Suite:
    def __init__(self, folder: Path, out: Path) -> None:
        self.folder, self.out = folder, out
        self.done: set[str] = set()
        self.right = self.counted = 0
        if out.exists():
            for line in out.read_text().splitlines():
                self.done.add(json.loads(line)["case"])

    def checkpoint(self, seed: int) -> tuple[str, Path, list[int]]:
        shape = random_shape(seed)
        folder = self.folder / shape
        if not (folder / "config.json").exists():
            write_checkpoint(shape, folder)
        return shape, folder, prompt(shape, random_tokens(seed))

    def port(self, seed: int, dtype: str, plan: Plan, name: str) -> Path:
        import port

        _, folder, ids = self.checkpoint(seed)
        path = self.folder / f"{name}.safetensors"
        port.run(folder, ids, dtype, plan, path)
        return path

    def write(self, case: str, mode: str, planted: list[str], expected: str | None,
              outcome: Outcome, right: bool, **more: Any) -> None:  # fmt: skip
        line = {"case": case, "mode": mode, "planted": planted, "expected_first": expected,
                **outcome.__dict__, "right": right, **more}  # fmt: skip
        with self.out.open("a") as file:
            file.write(json.dumps(line) + "\n")
        self.counted += 1
        self.right += right
        mark = "ok  " if right else "MISS"
        print(f"{mark} {case}: {outcome.causes} at {outcome.first}", file=sys.stderr, flush=True)

    def no_effect(self, case: str, mode: str, planted: list[str]) -> None:
        with self.out.open("a") as file:
            file.write(json.dumps({"case": case, "mode": mode, "planted": planted,
                                   "no_effect": True}) + "\n")  # fmt: skip

    # One bug in all layers, one variant of each cause for each seed.
    def single(self, seed: int, sparse: bool = False) -> None:
        shape, folder, ids = self.checkpoint(seed)
        for dtype in DTYPES:
            healthy: Path | None = None
            # All have the seed's prompt, whatever the fixed cases ask for.
            planted = [
                case for case in cases.bug_cases(shape, dtype) if case.tokens <= max(64, len(ids))
            ]
            for cause in sorted({str(case.cause) for case in planted}):
                variants = [case.bug for case in planted if case.cause == cause]
                bug = variants[seed % len(variants)]
                if sparse and (cause.startswith("trace-") or not self._acts_on_one_op(cause)):
                    continue
                if sparse and (dtype, cause) in INVISIBLE_IN_LAYERS:
                    continue
                name = f"{'sparse' if sparse else 'single'}-{seed}-{dtype}-{bug}"
                if name in self.done:
                    continue
                healthy = healthy or self.port(seed, dtype, Plan.parse(), "healthy")
                trace = self.port(seed, dtype, Plan.parse(bug), "planted")
                expected = first_difference(shape, healthy, trace)
                if expected is None and not cause.startswith("trace-"):
                    self.no_effect(name, "sparse" if sparse else "single", [cause])
                    continue
                if sparse:
                    self._sparse(name, folder, trace, healthy, cause, shape)
                    continue
                outcome = check(folder, trace)
                right = outcome.causes == [cause] and outcome.exit_code == 1
                if not cause.startswith("trace-"):
                    right = right and outcome.first == expected
                self.write(name, "single", [cause], expected, outcome, right)

    @staticmethod
    def _acts_on_one_op(cause: str) -> bool:
        return cause not in ("cast-truncation", "weight-dtype-chain", "layer-order",
                             "residual-low-precision", "accumulator-low-precision")  # fmt: skip

    def _sparse(self, name: str, folder: Path, trace: Path, healthy: Path, cause: str,
                shape: str) -> None:  # fmt: skip
        small, small_healthy = self.folder / "small.safetensors", self.folder / "ok.safetensors"
        keep_layers(trace, small)
        keep_layers(healthy, small_healthy)
        expected = first_difference(shape, small_healthy, small)
        if expected is None:  # behind the layers
            self.no_effect(name, "sparse", [cause])
            return
        outcome = check(folder, small)
        layer = int(expected.split(".")[2])
        found = outcome.first or ""
        parts = found.split(".")
        found_layer = int(parts[2]) if found.startswith("model.layers.") else 0
        self.write(name, "sparse", [cause], expected, outcome, outcome.causes == [cause],
                   right_layer=bool(found) and found_layer == layer)  # fmt: skip

    def torch(self, seed: int) -> None:
        import plant_torch

        shape, folder, ids = self.checkpoint(seed)
        for dtype in DTYPES:
            healthy = self.folder / "torch_healthy.safetensors"
            plant_torch.record(shape, folder, "", dtype, ids, healthy)
            for planted in plant_torch.PLANTED:
                cause = planted.partition(":")[0]
                name = f"torch-{seed}-{dtype}-{planted}"
                if name in self.done:
                    continue
                trace = self.folder / "torch.safetensors"
                plant_torch.record(shape, folder, planted, dtype, ids, trace,
                                   copy=self.folder / "copy")  # fmt: skip
                expected = first_difference(shape, healthy, trace)
                if expected is None:
                    self.no_effect(name, "torch", [cause])
                    continue
                outcome = check(folder, trace)
                right = outcome.causes == [cause] and outcome.first == expected
                self.write(name, "torch", [cause], expected, outcome, right)

    # 30 healthy runs for each seed: habits in random subsets, accumulators, torch in both forms.
    def healthy(self, seed: int) -> None:
        import plant_torch

        shape, folder, ids = self.checkpoint(seed)
        chosen = random.Random(seed)
        for dtype in DTYPES:
            for number in range(11):
                chains = [c for c in CHAINS if c not in SCALES and chosen.random() < 0.5]
                if chosen.random() < 0.7:
                    chains.append(chosen.choice(SCALES))
                if number % 3 == 2:
                    chains.append(chosen.choice(list(ACCUMULATORS)))
                habits = ",".join(chains)
                name = f"healthy-{seed}-{dtype}-{number}-{habits}"
                if name in self.done:
                    continue
                trace = self.port(seed, dtype, Plan.parse("", habits), "planted")
                self._healthy(name, folder, trace, chains)
            for attention, length in itertools.product(("eager", "sdpa"), (1, 0)):
                name = f"healthy-{seed}-{dtype}-torch-{attention}-{length}"
                if name in self.done:
                    continue
                trace = self.folder / "torch.safetensors"
                some = ids[: max(2, len(ids) // 2)] if length else ids
                plant_torch.record(shape, folder, "", dtype, some, trace, attention)
                self._healthy(name, folder, trace, [attention])

    def _healthy(self, name: str, folder: Path, trace: Path, habits: list[str]) -> None:
        outcome = check(folder, trace)
        right = outcome.exit_code == 0 and not outcome.causes
        self.write(name, "healthy", habits, None, outcome, right)

    def pairs(self, seed: int) -> None:
        shape, folder, _ = self.checkpoint(seed % 20)
        chosen = random.Random(seed)
        dtype = DTYPES[seed % 2]
        planted = [
            c for c in cases.bug_cases(shape, dtype) if not str(c.cause).startswith("trace-")
        ]
        for attempt in range(20):
            one, other = chosen.sample(planted, 2)
            if one.cause == other.cause or BUGS[str(one.cause)] is BUGS[str(other.cause)]:
                continue
            bugs = [one.bug, other.bug]
            name = f"pairs-{seed}-{dtype}-{'+'.join(bugs)}"
            if name in self.done:
                return
            both = self.port(seed % 20, dtype, Plan.parse(",".join(bugs)), "both")
            # Each must matter where the other is.
            alone = [self.port(seed % 20, dtype, Plan.parse(bug), f"alone{i}")
                     for i, bug in enumerate(bugs)]  # fmt: skip
            if any(first_difference(shape, both, trace) is None for trace in alone):
                continue
            outcome = check(folder, both)
            wanted = sorted({str(one.cause), str(other.cause)})
            self.write(name, "pairs", wanted, None, outcome, outcome.causes == wanted,
                       attempt=attempt)  # fmt: skip
            return


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("mode", choices=("single", "torch", "healthy", "pairs", "sparse"))
    parser.add_argument("--seeds", default="0-19", help="first-last")
    parser.add_argument("--out", type=Path, required=True, help="JSON lines; continued if there")
    arguments = parser.parse_args()
    first, _, last = arguments.seeds.partition("-")
    seeds = range(int(first), int(last or first) + 1)
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        suite = Suite(Path(folder), arguments.out)
        for count, seed in enumerate(seeds, 1):
            if "jax" in sys.modules:  # what it compiled for other shapes
                sys.modules["jax"].clear_caches()
            if arguments.mode == "sparse":
                suite.single(seed, sparse=True)
            else:
                getattr(suite, arguments.mode)(seed)
            left = (time.monotonic() - begin) / count * (len(seeds) - count)
            print(f"{arguments.mode}: seed {seed}, {suite.right} of {suite.counted} right, "
                  f"{left:.0f} s left", flush=True)  # fmt: skip
    return 0 if suite.right == suite.counted else 1


if __name__ == "__main__":
    sys.exit(main())
