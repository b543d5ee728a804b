"""Random checkpoints and prompts: a seed gives a family, sizes, scales, and a dtype.

They are registered among the shapes of tests/planted under the names R0, R1, ...
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
for folder in ("python", "examples/jax_port", "tests/planted"):
    if str(ROOT / folder) not in sys.path:
        sys.path.insert(0, str(ROOT / folder))

from make_checkpoints import SHAPES, Shape  # noqa: E402

LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}  # fmt: skip
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
LINEAR = {"rope_type": "linear", "factor": 2.0}


def random_shape(seed: int) -> str:
    """The name under which SHAPES has it."""
    name = f"R{seed}"
    if name in SHAPES:
        return name
    random = np.random.default_rng([seed, 4711])
    family = str(random.choice(["qwen2", "qwen2", "qwen3", "llama", "mistral"]))
    kv_heads = int(random.choice([1, 2, 3, 4]))
    heads = kv_heads * int(random.choice([1, 2, 3, 7]))
    head_dim = int(random.choice([16, 32, 48, 64] if heads < 16 else [16, 32]))
    # A square q_proj is what most published models have.
    hidden = heads * head_dim
    if family in ("qwen3", "llama", "mistral") and random.random() < 0.3:
        hidden += 64
        hidden += -hidden % heads  # transformers wants a multiple
    layers = int(random.choice([2, 3, 4, 11])) if hidden < 300 else int(random.choice([2, 3]))
    scalings = {"qwen2": [None], "qwen3": [None, YARN], "llama": [None, LLAMA3, LINEAR],
                "mistral": [None, LLAMA3]}[family]  # fmt: skip
    window = int(random.choice([6, 9, 12])) if family == "mistral" else None
    SHAPES[name] = Shape(
        seed=1000 + seed,
        model_type=family,
        num_hidden_layers=layers,
        hidden_size=hidden,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=head_dim,
        intermediate_size=int(random.integers(hidden, 3 * hidden)) // 8 * 8,
        vocab_size=int(random.integers(300, 900)),
        tie_word_embeddings=bool(random.random() < 0.5),
        dtype=str(random.choice(["bfloat16", "bfloat16", "float32"])),
        rope_theta=float(random.choice([1e5, 5e5, 1e6, 5e6])),
        rms_norm_eps=float(random.choice([1e-6, 1e-6, 1e-5])),
        embedding_std=float(random.choice([0.02, 0.05, 0.1])),
        rope_scaling=scalings[int(random.integers(len(scalings)))],
        sliding_window=window,
    )
    return name


def random_tokens(seed: int) -> int:
    return int(np.random.default_rng([seed, 12]).integers(16, 72))
