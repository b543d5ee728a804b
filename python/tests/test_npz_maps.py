"""Traces as numpy writes them, with other names and layouts: the same report as of the original."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from samebits import load_trace

ROOT = Path(__file__).resolve().parents[2]
NANO = ROOT / "models" / "nano"
TRACE = NANO / "demo" / "port_repaired.safetensors"
PROGRAM = Path(os.environ.get("SAMEBITS", ROOT / "build" / "release" / "samebits"))
CONFIG = json.loads((NANO / "config.json").read_text())
HEADS, KV_HEADS = CONFIG["num_attention_heads"], CONFIG["num_key_value_heads"]
HEAD_DIM = CONFIG["hidden_size"] // HEADS
ATTENTION, MLP = "model.layers.{}.self_attn.", "model.layers.{}.mlp."

pytestmark = pytest.mark.skipif(not PROGRAM.is_file(), reason=f"{PROGRAM} is not built")


def report(*options: Any) -> Any:
    command = [PROGRAM, "check", NANO, *options, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    del result["trace"]
    return result


def arrays() -> tuple[list[int], dict[str, np.ndarray]]:
    trace = load_trace(TRACE)
    values = {name: trace[name].bits.view(ml_dtypes.bfloat16) for name in trace}
    return list(trace.input_ids), values


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_of_the_same_names(save: Any, tmp_path: Path) -> None:
    ids, values = arrays()
    save(tmp_path / "t.npz", input_ids=np.array(ids), dtype="bfloat16", **values)
    assert report(tmp_path / "t.npz") == report(TRACE)


def foreign(values: dict[str, np.ndarray], tokens: int) -> dict[str, np.ndarray]:
    """A batch axis; o_proj and down_proj transposed; q, k, v by groups; gate and up by turns."""
    out = {}
    fused = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")
    for name, value in values.items():
        if name.endswith(fused):
            continue
        short = name.replace("model.layers.", "blk.").replace("model.", "top_")
        turned = name.endswith(("o_proj", "down_proj"))
        out[short] = np.ascontiguousarray(value.T) if turned else value[None]
    for n in range(CONFIG["num_hidden_layers"]):
        q, k, v = (
            values[f"{ATTENTION.format(n)}{part}_proj"].reshape(tokens, KV_HEADS, -1, HEAD_DIM)
            for part in "qkv"
        )
        out[f"blk.{n}.qkv"] = np.concatenate([q, k, v], axis=2).reshape(1, tokens, -1)
        pair = [values[f"{MLP.format(n)}{part}_proj"] for part in ("gate", "up")]
        out[f"blk.{n}.gate_up"] = np.stack(pair, axis=-1).reshape(tokens, -1)
    return out


def rules() -> list[dict[str, Any]]:
    batch = {"take": [[0, 0]]}
    parts = ["input_layernorm", "attn_residual", "post_attention_layernorm", "mlp.act", "mlp.gated"]
    parts += [f"self_attn.{part}" for part in ("q_rope", "k_rope", "scores", "probs", "context")]
    found: list[dict[str, Any]] = [
        {"from": f"blk.{{N}}.{part}", "to": f"model.layers.{{N}}.{part}", **batch} for part in parts
    ]
    found += [
        {"from": f"blk.{{N}}.{part}", "to": f"model.layers.{{N}}.{part}", "transpose": [1, 0]}
        for part in ("self_attn.o_proj", "mlp.down_proj")
    ]
    found += [
        {"from": f"top_{part}", "to": f"model.{part}", **batch}
        for part in ("embed_tokens", "norm", "rotary.cos", "rotary.sin")
    ]
    group = HEADS // KV_HEADS
    return [
        *found,
        {"from": "blk.{N}", "to": "model.layers.{N}", **batch},
        {"from": "lm_head", "to": "lm_head", **batch},
        {"from": "blk.{N}.qkv", "to": [ATTENTION.format("{N}") + f"{p}_proj" for p in "qkv"],
         **batch, "reshape": ["T", KV_HEADS, group + 2, HEAD_DIM],
         "split": {"axis": 2, "sizes": [group, 1, 1]}, "then_reshape": ["T", -1]},
        {"from": "blk.{N}.gate_up", "to": [MLP.format("{N}") + f"{p}_proj" for p in ("gate", "up")],
         "reshape": ["T", -1, 2], "split": {"axis": 2, "sizes": [1, 1]},
         "then_reshape": ["T", -1]},
    ]  # fmt: skip


def test_foreign_names_and_layouts(tmp_path: Path) -> None:
    ids, values = arrays()
    trace, trace_map = tmp_path / "t.npz", tmp_path / "map.json"
    np.savez(trace, **foreign(values, len(ids)))
    text = {"metadata": {"input_ids": ids, "dtype": "bfloat16"}, "tensors": rules()}
    trace_map.write_text(json.dumps(text))
    assert report(trace, "--map", trace_map) == report(TRACE)


def test_names_of_nobody_are_an_error_with_suggestions(tmp_path: Path) -> None:
    _, values = arrays()
    np.savez(tmp_path / "t.npz", input_ids=np.array([1]), dtype="bfloat16",
             output_norm=values["model.norm"])  # fmt: skip
    command = [PROGRAM, "check", NANO, tmp_path / "t.npz"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "perhaps model.norm" in done.stderr
