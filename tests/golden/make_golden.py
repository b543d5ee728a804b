#!/usr/bin/env python3
"""Records what PyTorch computes, and in which order it added, for tests that have no Python.

Writes to a folder beside itself, named after the machine's kind (avx2, avx512, amx): traces of
models/nano (*.safetensors), the profiles that replay them (*.profile.json) and manifest.json with
versions, machine, settings and digests. golden_test.sh replays each trace on any machine and
expects the bits. To stay small a trace keeps some layers; the last ones and the logits hang on all
that came before.

Usage: PYTHONPATH=python python tests/golden/make_golden.py
"""

from __future__ import annotations

import hashlib
import json
import platform
import struct
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

import samebits
from samebits.probe import Wanted, probe
from samebits.profile import compared, unproven

GOLDEN = Path(__file__).resolve().parent
ROOT = GOLDEN.parents[1]
MODEL = ROOT / "models" / "nano"
PROMPT, STEPS = 9, 3
LONG = 70  # tokens: enough for blocks of K and for packed attention
PADDED = (9, 5, 3)  # tokens of each sequence of the batch
# Of each sequence. In bfloat16 most prompts give the same values in most orders; with these a tenth
# of the first one's are others in the canonical order.
SEEDS = (4, 28, 26)


@dataclass(frozen=True)
class Golden:
    dtype: str
    attention: str
    threads: int = 1
    lengths: tuple[int, ...] = (PROMPT,)
    layers: tuple[int, ...] = (0, 3)  # that are kept

    @property
    def name(self) -> str:
        return f"{self.dtype}-{self.attention}-threads{self.threads}{self._form}"

    @property
    def profile(self) -> str:
        """One for both attentions."""
        return f"{self.dtype}-threads{self.threads}{self._form}.profile.json"

    @property
    def _form(self) -> str:
        if len(self.lengths) > 1:
            return f"-batch{len(self.lengths)}"
        return f"-prompt{self.lengths[0]}" if self.lengths[0] != PROMPT else ""


GOLDENS = [
    Golden("bfloat16", "eager"),
    Golden("bfloat16", "sdpa"),
    Golden("bfloat16", "eager", threads=2, layers=(3,)),
    Golden("float32", "eager", layers=(3,)),
    Golden("float32", "sdpa", layers=(3,)),
    Golden("bfloat16", "eager", lengths=PADDED, layers=(3,)),
    Golden("bfloat16", "sdpa", lengths=(LONG,), layers=()),
    Golden("float16", "sdpa", layers=(3,)),
]


def kind() -> str:
    """Of the machine: on each torch takes other kernels."""
    capability = torch.backends.cpu.get_cpu_capability().lower()
    return "amx" if torch.cpu._is_amx_tile_supported() else capability


HERE = GOLDEN / kind()


def tokens(length: int, seed: int) -> list[int]:
    vocab = json.loads((MODEL / "config.json").read_text())["vocab_size"]
    return [(i * i * 31 + 17 * i + 5 + 101 * seed) % vocab for i in range(length)]


def keep(path: Path, layers: tuple[int, ...]) -> None:
    """Drops the tensors of other layers from a trace."""
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    metadata = header.pop("__metadata__")
    absent = json.loads(metadata.get("absent", "{}"))
    kept: dict[str, Any] = {}
    blob = b""
    for name, entry in header.items():
        parts = name.split(".")
        if parts[1:2] == ["layers"] and int(parts[2]) not in layers:
            absent[f"model.layers.{parts[2]}"] = "left out, to keep the file small"
            continue
        begin, end = entry["data_offsets"]
        kept[name] = {**entry, "data_offsets": [len(blob), len(blob) + end - begin]}
        blob += data[8 + size + begin : 8 + size + end]
    metadata["absent"] = json.dumps(absent, sort_keys=True)
    text = json.dumps({"__metadata__": metadata, **kept}).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + blob)


def record(golden: Golden, model: Any) -> dict[str, Any]:
    path = HERE / f"{golden.name}.safetensors"
    rows = [tokens(length, seed) for seed, length in zip(SEEDS, golden.lengths, strict=False)]
    longest = max(golden.lengths)
    padded = [[0] * (longest - len(row)) + row for row in rows]
    mask = [[0] * (longest - len(row)) + [1] * len(row) for row in rows]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", samebits.PromptWarning)
        samebits.capture(
            model,
            padded if len(rows) > 1 else rows[0],
            path,
            attention_mask=mask if len(rows) > 1 else None,
            steps=STEPS,
            attention=golden.attention,
        )
    keep(path, golden.layers)
    return {
        "trace": path.name,
        "profile": golden.profile,
        "dtype": golden.dtype,
        "attention": golden.attention,
        "threads": golden.threads,
        "lengths": list(golden.lengths),
        "steps": STEPS,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }


def make_profile(golden: Golden, model: Any, attentions: list[str]) -> dict[str, Any]:
    batch = len(golden.lengths)
    profile = probe(model, Wanted([max(golden.lengths)], STEPS, batch, attentions))
    if lines := unproven(profile):
        raise SystemExit(f"{golden.profile}: not proven, so no golden: {'; '.join(lines)}")
    text = json.dumps(profile, sort_keys=True, separators=(",", ":"))
    (HERE / golden.profile).write_text(text + "\n")
    return {
        "profile": golden.profile,
        "digest": profile["digest"],
        "values_compared": compared(profile),
    }


def groups() -> Iterator[tuple[list[Golden], list[str]]]:
    """The traces of one profile, and their attentions."""
    for profile in dict.fromkeys(golden.profile for golden in GOLDENS):
        members = [golden for golden in GOLDENS if golden.profile == profile]
        yield members, [golden.attention for golden in members]


def main() -> None:
    HERE.mkdir(exist_ok=True)
    for old in [*HERE.glob("*.safetensors"), *HERE.glob("*.profile.json")]:
        old.unlink()
    traces, profiles = [], []
    for members, attentions in groups():
        first = members[0]
        torch.set_num_threads(first.threads)
        model = transformers.AutoModelForCausalLM.from_pretrained(
            MODEL, dtype=getattr(torch, first.dtype), local_files_only=True
        ).eval()
        profiles.append(make_profile(first, model, attentions))
        traces += [record(golden, model) for golden in members]
        print(f"{first.profile}: {len(members)} traces")
    saved = json.loads(next(HERE.glob("*.profile.json")).read_text())
    manifest = {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
        "cpu": saved["cpu"],
        "capability": saved["capability"],
        "tokens": "(31 i i + 17 i + 5 + 101 seed) mod vocab_size",
        "seeds": list(SEEDS),
        "traces": traces,
        "profiles": profiles,
    }
    (HERE / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")


if __name__ == "__main__":
    main()
