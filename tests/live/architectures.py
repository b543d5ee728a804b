"""Random checkpoints of every architecture x rotary embedding, and what samebits makes of them.

    python tests/live/architectures.py [--binary FILE]     the table of docs/architectures.md

Sizes are odd, heads are grouped, biases and windows are there where a family has them; the prompt
is longer than the windows and than the length that scaled embeddings were made from. Half of the
configurations are written as transformers 4 spelled them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
for folder in ("python", "tests/live"):
    if str(ROOT / folder) not in sys.path:
        sys.path.insert(0, str(ROOT / folder))

import numpy as np  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402

import samebits  # noqa: E402
from error_bound import bounds  # noqa: E402

torch.set_num_threads(1)  # the tensors are too small to share

VOCAB, TOKENS, ORIGINAL = 131, 48, 32
IDS = [(i * i * 7 + 13 * i + 5) % VOCAB for i in range(TOKENS)]
SIZES: dict[str, Any] = {
    "hidden_size": 72, "intermediate_size": 100, "vocab_size": VOCAB, "num_attention_heads": 6,
    "num_key_value_heads": 2, "num_hidden_layers": 2, "max_position_embeddings": 128,
    "rms_norm_eps": 1e-6, "eos_token_id": None, "bos_token_id": None, "pad_token_id": None,
}  # fmt: skip

# Name -> (class, what it adds). The window of 13 is no multiple of anything and less than 48.
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen2": ("Qwen2", {
        "use_sliding_window": True, "sliding_window": 13, "max_window_layers": 1,
        "tie_word_embeddings": True,
    }),
    "llama": ("Llama", {"attention_bias": True, "mlp_bias": True}),
    "qwen3": ("Qwen3", {
        "head_dim": 20, "attention_bias": True, "use_sliding_window": True, "sliding_window": 13,
        "layer_types": ["sliding_attention", "full_attention"],
    }),
    "mistral": ("Mistral", {"head_dim": 16, "sliding_window": 13}),
}  # fmt: skip

ROPES: dict[str, dict[str, Any]] = {
    "default": {"rope_type": "default"},
    "linear": {"rope_type": "linear", "factor": 4.0},
    "dynamic": {"rope_type": "dynamic", "factor": 2.5},
    "llama3": {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": ORIGINAL,
    },
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": ORIGINAL},
    "yarn, all keys": {
        "rope_type": "yarn", "factor": 3.5, "original_max_position_embeddings": ORIGINAL,
        "beta_fast": 8, "beta_slow": 0.5, "truncate": False, "mscale": 0.8, "mscale_all_dim": 0.3,
    },
}  # fmt: skip
THETA = 50000.0


@dataclass(frozen=True)
class Case:
    family: str
    rope: str

    @property
    def name(self) -> str:
        return f"{self.family}-{self.rope}".replace(", ", "-").replace(" ", "-")

    @property
    def old_spelling(self) -> bool:
        return (list(FAMILIES).index(self.family) + list(ROPES).index(self.rope)) % 2 == 0

    def make(self, folder: Path) -> None:
        name, more = FAMILIES[self.family]
        sizes = SIZES | more
        if self.rope == "dynamic":  # scales what is longer than this
            sizes["max_position_embeddings"] = ORIGINAL
        if self.family == "mistral" and self.rope == "default":
            sizes["sliding_window"] = None
        config = getattr(transformers, f"{name}Config")(
            **sizes, rope_parameters={"rope_theta": THETA, **ROPES[self.rope]}
        )
        torch.manual_seed(list(FAMILIES).index(self.family) * 10 + list(ROPES).index(self.rope))
        model = getattr(transformers, f"{name}ForCausalLM")(config)
        for key, parameter in model.named_parameters():
            if key.endswith("bias"):
                torch.nn.init.normal_(parameter, std=1.0)
            elif key.endswith("norm.weight"):
                torch.nn.init.uniform_(parameter, 0.5, 1.5)
            elif "embed" in key:  # a tied head gives logits of some units
                torch.nn.init.normal_(parameter, std=0.2)
            else:
                torch.nn.init.normal_(parameter, std=1.5 * parameter.shape[1] ** -0.5)
        model.save_pretrained(folder)
        if self.old_spelling:
            rewrite(folder / "config.json")


def rewrite(path: Path) -> None:
    """As transformers 4 wrote it: rope_theta, rope_scaling with `type`, torch_dtype."""
    config = json.loads(path.read_text())
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    rope["type"] = rope.pop("rope_type")
    config["rope_scaling"] = None if rope["type"] == "default" else rope
    config["torch_dtype"] = config.pop("dtype")
    path.write_text(json.dumps(config))


CASES = [Case(family, rope) for family in FAMILIES for rope in ROPES]


def load(folder: Path, dtype: str) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=getattr(torch, dtype), attn_implementation="eager"
    ).eval()


def exact_logits(folder: Path) -> Any:
    with torch.no_grad():
        return load(folder, "float64")(torch.tensor([IDS]), use_cache=False).logits[0].numpy()


def joined(ids: list[int]) -> str:
    return ",".join(map(str, ids))


# Some logits of the last tokens: behind the windows, and behind the original length.
PLACES = [(TOKENS - 1 - 2 * i, (37 * i + 11) % VOCAB) for i in range(6)]


def share_of_bound(folder: Path, own: Path) -> float:
    """The largest distance of recorded float32 logits from float64, in units of the bound."""
    exact = exact_logits(folder)
    ours = samebits.load_trace(own)["lm_head"].float32().astype(np.float64)
    if not np.isfinite(ours).all() or np.abs(exact).max() <= 1:
        return float("inf")
    limits = bounds(load(folder, "float64"), IDS, PLACES)
    return max(
        abs(float(ours[place] - exact[place])) / limit
        for place, limit in zip(PLACES, limits, strict=True)
    )


def capture(folder: Path, dtype: str, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # 48 tokens: what eps may hide
        samebits.capture(load(folder, dtype), IDS, path)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", default=os.environ.get("SAMEBITS", "build/release/samebits"))
    binary = parser.parse_args().binary

    def run(*arguments: object) -> Any:
        done = subprocess.run(
            [binary, *map(str, arguments)], capture_output=True, text=True, check=False
        )
        if done.returncode == 2 or (not done.stdout and "check" in map(str, arguments)):
            raise SystemExit(f"{arguments}: {done.stderr}")
        return done

    print("| architecture | rope | logits | dtype | nodes | identical | rounding | bug | unknown |")
    print("|---" * 9 + "|")
    wrong = 0
    for case in CASES:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            case.make(folder)
            own = folder / "own.safetensors"
            run("trace", folder, "--ids", joined(IDS), "--dtype", "float32", "-o", own)
            share = share_of_bound(folder, own)
            wrong += share > 1
            for dtype in ("float32", "bfloat16"):
                torch_trace = folder / "torch.safetensors"
                capture(folder, dtype, torch_trace)
                report = json.loads(run("check", folder, torch_trace, "--json").stdout)
                grades = Counter(node["grade"] for node in report["nodes"])
                counts = [grades[g] for g in ("identical", "rounding", "bug", "unknown")]
                wrong += bool(report["findings"]) or counts[2] + counts[3] > 0
                cells = [case.family, case.rope, f"{share:.2g}" if dtype == "float32" else "",
                         dtype, len(report["nodes"]), *counts]  # fmt: skip
                print("| " + " | ".join(map(str, cells)) + " |", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
