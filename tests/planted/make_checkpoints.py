"""Writes the random checkpoints of the planted-bug tests as Hugging Face folders, with numpy.

    python tests/planted/make_checkpoints.py OUT [A B C L]

Shapes (all have a square q_proj and o_proj, grouped queries, norm weights away from 1):
  A  qwen2, 4 layers, 8/2 heads of 32, bf16, untied
  B  qwen2, 3 layers, 14/2 heads of 32 (7 queries a KV head, as Qwen2.5-7B), bf16, tied
  C  qwen2, 3 layers, 6/3 heads of 64, fp32 in two shards, untied
  L  llama, 3 layers, 4/2 heads of 64, bf16, no biases, rms_norm_eps 1e-5
  Q  qwen3, 3 layers, 4/2 heads of 64, bf16, yarn scaling of a context of 16, tied
  M  mistral, 3 layers, 8/2 heads of 32, bf16, a window of 12, llama3 scaling of a context of 16

The embedding is small, as in real models, so that the first norms meet small mean squares and an
eps of 1e-5 for 1e-6 shows; some q and k biases are tens, as Qwen2.5's. Left out: anything that
trained weights have and random ones do not.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Shape:
    seed: int
    model_type: str
    num_hidden_layers: int
    hidden_size: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    tie_word_embeddings: bool
    dtype: str
    rope_theta: float
    rms_norm_eps: float
    embedding_std: float
    shards: int = 1
    rope_scaling: dict[str, Any] | None = None
    sliding_window: int | None = None

    def has(self, need: str) -> bool:
        """Whether a bug that needs this part can be planted."""
        scaling = (self.rope_scaling or {}).get("rope_type", "default")
        return {
            "": True,
            "qk_norm": self.model_type == "qwen3",
            "window": self.sliding_window is not None,
            "scaling": scaling != "default",
            "no scaling": scaling == "default",
            "yarn": scaling == "yarn",
            "groups": self.num_key_value_heads > 1,
            "many layers": self.num_hidden_layers > 10,
            "untied": not self.tie_word_embeddings,
            "bias": self.model_type == "qwen2",
            "float32 weights": self.dtype == "float32",
        }[need]


Q_PAIR, K_PAIR = 1, 3  # rotary pairs whose biases are large

SHAPES = {
    "A": Shape(11, "qwen2", 4, 256, 8, 2, 32, 688, 512, False, "bfloat16", 1e6, 1e-6, 0.02),
    "B": Shape(12, "qwen2", 3, 448, 14, 2, 32, 1216, 640, True, "bfloat16", 1e6, 1e-6, 0.1),
    "C": Shape(13, "qwen2", 3, 384, 6, 3, 64, 1024, 512, False, "float32", 2.5e5, 1e-6, 0.25, 2),
    "L": Shape(14, "llama", 3, 256, 4, 2, 64, 704, 384, False, "bfloat16", 5e5, 1e-5, 0.05),
    "Q": Shape(
        15,
        "qwen3",
        3,
        256,
        4,
        2,
        64,
        704,
        384,
        True,
        "bfloat16",
        1e6,
        1e-6,
        0.1,
        rope_scaling={
            "rope_type": "yarn",
            "factor": 4.0,
            "original_max_position_embeddings": 16,
        },
    ),
    "M": Shape(
        16,
        "mistral",
        3,
        256,
        8,
        2,
        32,
        704,
        384,
        False,
        "bfloat16",
        5e5,
        1e-5,
        0.05,
        rope_scaling={
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16,
        },
        sliding_window=12,
    ),
}


def prompt(name: str, tokens: int) -> list[int]:
    """The ids that the tests feed to a shape: the same for the same length."""
    generator = np.random.default_rng([SHAPES[name].seed, 77])
    return [int(i) for i in generator.integers(0, SHAPES[name].vocab_size, 4096)[:tokens]]


def to_bfloat16_bits(values: Array) -> Array:
    """Nearest even; the values here are finite."""
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")


def large_columns(head_dim: int, first: int) -> list[int]:
    """Two rotary pairs of a head."""
    half = head_dim // 2
    return [column + side for column in (first, first + half // 2) for side in (0, half)]


def make_bias(generator: np.random.Generator, heads: int, head_dim: int, first: int) -> Array:
    """Moderate biases, and two rotary pairs a head with tens; q and k get different pairs."""
    bias = generator.standard_normal((heads, head_dim)) * 0.3
    for column in large_columns(head_dim, first):
        bias[:, column] = generator.choice([-1.0, 1.0], heads) * generator.uniform(10, 40, heads)
    return bias.reshape(-1)


def make_tensors(s: Shape) -> dict[str, Array]:
    generator = np.random.default_rng(s.seed)

    def linear(out_features: int, in_features: int, gain: float) -> Array:
        return generator.standard_normal((out_features, in_features)) * (
            gain / math.sqrt(in_features)
        )

    def norm(size: int = s.hidden_size) -> Array:
        return generator.uniform(0.4, 1.6, size)

    q_size, kv_size = (n * s.head_dim for n in (s.num_attention_heads, s.num_key_value_heads))
    tensors = {
        "model.embed_tokens.weight": generator.standard_normal((s.vocab_size, s.hidden_size))
        * s.embedding_std
    }
    for n in range(s.num_hidden_layers):
        layer = f"model.layers.{n}"
        attention, mlp = f"{layer}.self_attn", f"{layer}.mlp"
        tensors[f"{layer}.input_layernorm.weight"] = norm()
        for name, size in (("q", q_size), ("k", kv_size), ("v", kv_size)):
            # q and k smaller than 1: with the biases the scores then spread over some units.
            gain = 1.0 if name == "v" else 0.6
            tensors[f"{attention}.{name}_proj.weight"] = linear(size, s.hidden_size, gain)
        if s.model_type == "qwen2":
            # Where one side has tens, the other is small: otherwise every softmax is one-hot.
            for name, first in (("q", K_PAIR), ("k", Q_PAIR)):
                weight = tensors[f"{attention}.{name}_proj.weight"]
                rows = weight.reshape(-1, s.head_dim, s.hidden_size)
                rows[:, large_columns(s.head_dim, first)] *= 0.1
            heads, kv_heads = s.num_attention_heads, s.num_key_value_heads
            tensors[f"{attention}.q_proj.bias"] = make_bias(generator, heads, s.head_dim, Q_PAIR)
            tensors[f"{attention}.k_proj.bias"] = make_bias(generator, kv_heads, s.head_dim, K_PAIR)
            tensors[f"{attention}.v_proj.bias"] = generator.standard_normal(kv_size) * 0.5
        if s.model_type == "qwen3":  # scores of some units
            for name in ("q", "k"):
                tensors[f"{attention}.{name}_norm.weight"] = 1.5 * norm(s.head_dim)
        tensors[f"{attention}.o_proj.weight"] = linear(s.hidden_size, q_size, 0.3)
        tensors[f"{layer}.post_attention_layernorm.weight"] = norm()
        tensors[f"{mlp}.gate_proj.weight"] = linear(s.intermediate_size, s.hidden_size, 1.5)
        tensors[f"{mlp}.up_proj.weight"] = linear(s.intermediate_size, s.hidden_size, 1.0)
        tensors[f"{mlp}.down_proj.weight"] = linear(s.hidden_size, s.intermediate_size, 0.4)
    tensors["model.norm.weight"] = norm()
    if not s.tie_word_embeddings:
        tensors["lm_head.weight"] = linear(s.vocab_size, s.hidden_size, 3.0)
    return tensors


def make_config(s: Shape) -> dict[str, Any]:
    config: dict[str, Any] = {
        "architectures": [f"{s.model_type.capitalize()}ForCausalLM"],
        "model_type": s.model_type,
        "hidden_act": "silu",
        "max_position_embeddings": 4096,
        "rope_theta": s.rope_theta,
        "torch_dtype": s.dtype,
    }
    for key in (
        "num_hidden_layers", "hidden_size", "num_attention_heads", "num_key_value_heads",
        "intermediate_size", "vocab_size", "tie_word_embeddings", "rms_norm_eps",
    ):  # fmt: skip
        config[key] = getattr(s, key)
    if s.rope_scaling:
        config["rope_scaling"] = s.rope_scaling
    if s.model_type == "mistral":
        config["sliding_window"] = s.sliding_window
    if s.model_type in ("mistral", "qwen3"):
        config["head_dim"] = s.head_dim
    if s.model_type == "llama":
        config |= {"head_dim": s.head_dim, "attention_bias": False, "mlp_bias": False}
    else:
        config["use_sliding_window"] = False
    return config


def write_safetensors(path: Path, tensors: dict[str, Array], dtype: str) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    blocks, at = [], 0
    for name, values in tensors.items():
        bits = to_bfloat16_bits(values) if dtype == "bfloat16" else values.astype("<f4")
        blocks.append(bits.tobytes())
        header[name] = {
            "dtype": "BF16" if dtype == "bfloat16" else "F32",
            "shape": list(values.shape),
            "data_offsets": [at, at + len(blocks[-1])],
        }
        at += len(blocks[-1])
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(blocks))


def write_checkpoint(name: str, folder: Path) -> None:
    shape = SHAPES[name]
    folder.mkdir(parents=True, exist_ok=True)
    tensors = make_tensors(shape)
    (folder / "config.json").write_text(json.dumps(make_config(shape), indent=2) + "\n")
    if shape.shards == 1:
        write_safetensors(folder / "model.safetensors", tensors, shape.dtype)
        return
    names = list(tensors)
    weight_map, total = {}, 0
    for i in range(shape.shards):
        file = f"model-{i + 1:05}-of-{shape.shards:05}.safetensors"
        part = names[i * len(names) // shape.shards : (i + 1) * len(names) // shape.shards]
        write_safetensors(folder / file, {key: tensors[key] for key in part}, shape.dtype)
        weight_map |= dict.fromkeys(part, file)
        total += sum(tensors[key].size for key in part) * (2 if shape.dtype == "bfloat16" else 4)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder; each shape gets one of its own in it")
    parser.add_argument("shapes", nargs="*", metavar="SHAPE", help="A, B, C, L, Q, M; default all")
    arguments = parser.parse_args()
    for name in arguments.shapes or SHAPES:
        if name not in SHAPES:
            parser.error(f"no shape {name!r}; there are {', '.join(SHAPES)}")
        write_checkpoint(name, arguments.out / name)
        print(arguments.out / name)


if __name__ == "__main__":
    main()
