"""A Llama prefill in NumPy float32 that adds as llama.cpp's CPU code does, and its trace.

    python examples/ggml_order/port.py MODEL PROMPT_IDS OUT.safetensors [--cache f32]

Independent of samebits but for the taps and the names of the shards. What is taken over from ggml
(AVX-512 build, facts only): a dot product runs in 4 accumulators of 16 lanes with fused multiply-
add, which are added in a tree; sums of squares and of exponentials are float64; cos and sin come
from an angle that is multiplied up in float32 from pair to pair; the probabilities are multiplied
by the reciprocal of their sum; K and V lie in the cache as float16 unless --cache f32 is given.
Left out: ggml's own exp, the permuted rows of q and k in a GGUF file, batches.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from safetensors import safe_open

import samebits
from samebits.checkpoint import shards

F32 = np.float32
LANES, ACCUMULATORS = 16, 4


def read(folder: Path) -> dict[str, np.ndarray]:
    import torch  # NumPy has no bfloat16

    tensors = {}
    for shard in shards(folder):
        with safe_open(shard, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 (no mapping)
                tensors[name] = file.get_tensor(name).to(torch.float32).numpy()
    return tensors


def dot(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """x [T, K] and w [N, K] to [T, N] (float32): each sum in ggml's order."""
    step = LANES * ACCUMULATORS
    size = -(-x.shape[1] // step) * step
    x, w = (np.pad(a, ((0, 0), (0, size - a.shape[1]))) for a in (x, w))
    out = np.empty((x.shape[0], w.shape[0]), F32)
    rows = max(1, 2**21 // (x.shape[0] * step))  # what a block of accumulators may take
    for begin in range(0, w.shape[0], rows):
        some = w[begin : begin + rows]
        sums = np.zeros((x.shape[0], some.shape[0], step), F32)
        for k in range(0, size, step):
            # The product is exact in float64: one rounding a step, as with a fused instruction.
            product = np.multiply(
                x[:, None, k : k + step], some[None, :, k : k + step], dtype=np.float64
            )
            sums = (sums + product).astype(F32)
        while sums.shape[-1] > 1:
            half = sums.shape[-1] // 2
            sums = sums[..., :half] + sums[..., half:]
        out[:, begin : begin + rows] = sums[..., 0]
    return out


class Llama:
    def __init__(self, folder: Path, cache: str) -> None:
        self.config = json.loads((folder / "config.json").read_text())
        self.weights = read(folder)
        self.cache = np.float16 if cache == "f16" else F32
        self.heads = self.config["num_attention_heads"]
        self.kv_heads = self.config["num_key_value_heads"]
        self.head_dim = self.config.get("head_dim") or self.config["hidden_size"] // self.heads
        self.weights.setdefault("lm_head.weight", self.weights["model.embed_tokens.weight"])

    def linear(self, name: str, x: np.ndarray) -> np.ndarray:
        return samebits.tap(name, dot(x, self.weights[f"{name}.weight"]))

    def rms_norm(self, name: str, x: np.ndarray) -> np.ndarray:
        squares = (x * x).astype(np.float64).sum(axis=-1, keepdims=True)
        mean = (squares / x.shape[-1]).astype(F32)
        scale = F32(1) / np.sqrt(mean + F32(self.config["rms_norm_eps"]))
        return samebits.tap(name, x * scale * self.weights[f"{name}.weight"])

    def rotary(self, tokens: int) -> tuple[np.ndarray, np.ndarray]:
        """cos and sin [T, D]; pair i's angle is the one before it times a constant."""
        theta = self.config.get("rope_theta") or self.config["rope_parameters"]["rope_theta"]
        factor = F32(F32(theta) ** F32(-2.0 / self.head_dim))
        angle, angles = np.arange(tokens, dtype=F32), []
        for _ in range(self.head_dim // 2):
            angles.append(angle)
            angle = angle * factor
        table = np.stack(angles + angles, axis=-1)
        cos = samebits.tap("model.rotary.cos", np.cos(table))
        return cos, samebits.tap("model.rotary.sin", np.sin(table))

    def rotate(self, name: str, x: np.ndarray, cos: np.ndarray, sin: np.ndarray) -> np.ndarray:
        heads = x.reshape(x.shape[0], -1, self.head_dim)
        a, b = np.split(heads, 2, axis=-1)
        turned = np.concatenate([-b, a], axis=-1)
        rotated = heads * cos[:, None] + turned * sin[:, None]
        return samebits.tap(name, rotated)  # [T, H, D]

    def attention(self, layer: str, x: np.ndarray, cos: np.ndarray, sin: np.ndarray) -> np.ndarray:
        name, tokens = f"{layer}.self_attn", x.shape[0]
        q, k, v = (self.linear(f"{name}.{m}_proj", x) for m in "qkv")
        q = self.rotate(f"{name}.q_rope", q, cos, sin)
        k = self.rotate(f"{name}.k_rope", k, cos, sin).astype(self.cache).astype(F32)
        v = v.reshape(tokens, -1, self.head_dim).astype(self.cache).astype(F32)
        group = self.heads // self.kv_heads
        scale, hidden = F32(1 / np.sqrt(self.head_dim)), np.triu(np.ones((tokens, tokens), bool), 1)
        scores, probs, context = [], [], []
        for h in range(self.heads):
            scores.append(dot(q[:, h], k[:, h // group]) * scale)
            masked = np.where(hidden, F32(-np.inf), scores[h])
            e = np.exp(masked - masked.max(axis=-1, keepdims=True))
            total = e.sum(axis=-1, keepdims=True, dtype=np.float64)
            probs.append(e * (1 / total).astype(F32))
            context.append(dot(probs[h], np.ascontiguousarray(v[:, h // group].T)))
        samebits.tap(f"{name}.scores", np.stack(scores))
        samebits.tap(f"{name}.probs", np.stack(probs))
        y = samebits.tap(f"{name}.context", np.stack(context, axis=1).reshape(tokens, -1))
        return self.linear(f"{name}.o_proj", y)

    def mlp(self, layer: str, x: np.ndarray) -> np.ndarray:
        gate = self.linear(f"{layer}.mlp.gate_proj", x)
        up = self.linear(f"{layer}.mlp.up_proj", x)
        act = samebits.tap(f"{layer}.mlp.act", gate / (1 + np.exp(-gate)))
        gated = samebits.tap(f"{layer}.mlp.gated", act * up)
        return self.linear(f"{layer}.mlp.down_proj", gated)

    def __call__(self, ids: list[int]) -> np.ndarray:
        x = samebits.tap("model.embed_tokens", self.weights["model.embed_tokens.weight"][ids])
        cos, sin = self.rotary(len(ids))
        for n in range(self.config["num_hidden_layers"]):
            layer = f"model.layers.{n}"
            y = self.rms_norm(f"{layer}.input_layernorm", x)
            x = x + self.attention(layer, y, cos, sin)
            samebits.tap(f"{layer}.attn_residual", x)
            y = self.rms_norm(f"{layer}.post_attention_layernorm", x)
            x = samebits.tap(layer, x + self.mlp(layer, y))
        return self.linear("lm_head", self.rms_norm("model.norm", x))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("ids", help="token ids, with commas between them")
    parser.add_argument("out", type=Path)
    parser.add_argument("--cache", choices=["f16", "f32"], default="f16")
    options = parser.parse_args()
    ids = [int(i) for i in options.ids.split(",")]
    model = Llama(options.model, options.cache)
    with samebits.Recorder(options.out, input_ids=ids, dtype="float32", framework="ggml-order"):
        model(ids)


if __name__ == "__main__":
    main()
