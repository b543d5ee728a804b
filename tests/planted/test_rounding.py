"""The healthy port rounds where transformers' eager attention does, and nowhere else.

Each node is computed again in float64 from the inputs that the port recorded. In bfloat16 the
outcome must lie between the roundings of y - B and y + B, B being the error bound of float32
accumulation in any order (gamma(n) = n u / (1 - n u)); elementwise nodes have B = 0. This is a
small judge of its own, so that the port is known to be healthy without asking samebits. Left out:
q_norm, windows and scaled rotary embeddings, of the shapes Q and M (test_port.py compares those
with transformers).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from cases import OLD_SHAPES, Case
from make_checkpoints import SHAPES
from port import read_checkpoint
from samebits import Trace, load_trace

Array = np.ndarray[Any, Any]
U = 2.0**-24
TINY = 2.0**-126  # denormals may be flushed


def rn(values: Array) -> Array:
    """float64 to bfloat16, rounded once: ml_dtypes goes through float32, which would be twice."""
    bits = np.ascontiguousarray(values, np.float64).view(np.uint64)
    rounded = bits + np.uint64(2**44 - 1) + ((bits >> np.uint64(45)) & np.uint64(1))
    return (rounded & ~np.uint64(2**45 - 1)).view(np.float64)


def gamma(n: int) -> float:
    return n * U / (1 - n * U)


class Judge:
    def __init__(self, trace: Trace, tensors: dict[str, Array], shape: str) -> None:
        self.shape = SHAPES[shape]
        self.values = {name: trace[name].float32().astype(np.float64) for name in trace}
        cast = {name: value.astype(ml_dtypes.bfloat16) for name, value in tensors.items()}
        self.weights = {name: value.astype(np.float64) for name, value in cast.items()}
        self.input_ids = trace.input_ids
        self.outside: dict[str, int] = {}

    def within(
        self, name: str, y: Array, bound: Array | float, tail: Callable[[Array], Array] = rn
    ) -> None:
        ends = tail(y - bound), tail(y + bound)
        low, high = np.minimum(*ends) - TINY, np.maximum(*ends) + TINY
        actual = self.values[name].reshape(y.shape)
        # Written so that NaN is outside.
        self.outside[name] = int((~((actual >= low) & (actual <= high))).sum())

    def linear(self, name: str, source: str, weight: str | None = None) -> None:
        x, w = self.values[source], self.weights[f"{weight or name}.weight"]
        b = self.weights.get(f"{name}.bias", np.zeros(len(w)))
        self.within(name, x @ w.T + b, gamma(w.shape[1] + 2) * (abs(x) @ abs(w.T) + abs(b)))

    def norm(self, name: str, source: str) -> None:
        x, w = self.values[source], self.weights[f"{name}.weight"]
        y = x / np.sqrt((x * x).mean(-1, keepdims=True) + self.shape.rms_norm_eps)
        bound = abs(y) * (gamma(x.shape[1] + 2) / 2 + 6 * U)
        self.within(name, y, bound, lambda v: rn(rn(v) * w))

    def rotary(self) -> None:
        size = self.shape.head_dim
        tokens = len(self.values["model.rotary.cos"])
        inverse = self.shape.rope_theta ** -(np.arange(0, size, 2) / size)
        angle = np.tile(np.arange(tokens)[:, None] * inverse, 2)
        for name, y in (("cos", np.cos(angle)), ("sin", np.sin(angle))):
            self.within(f"model.rotary.{name}", y, 6 * U * angle + 4 * U)

    def rope(self, name: str, source: str) -> None:
        cos, sin = (self.values[f"model.rotary.{part}"][:, None] for part in ("cos", "sin"))
        x = self.values[source].reshape(self.values[name].shape)
        first, second = np.split(x, 2, axis=-1)
        rotated = np.concatenate([-second, first], axis=-1)
        # Exact in float64; float32 rounds the sum of two bfloat16 values before bfloat16 does.
        total = (rn(x * cos) + rn(rotated * sin)).astype(np.float32).astype(np.float64)
        self.within(name, total, 0)

    def attention(self, name: str) -> None:
        q = self.values[f"{name}.q_rope"].transpose(1, 0, 2)
        groups = self.shape.num_attention_heads // self.shape.num_key_value_heads
        k = self.values[f"{name}.k_rope"].transpose(1, 2, 0).repeat(groups, axis=0)
        scale = float(np.float32(self.shape.head_dim**-0.5))
        bound = gamma(self.shape.head_dim + 1) * (abs(q) @ abs(k))
        self.within(
            f"{name}.scores",
            q @ k,
            bound,
            lambda v: rn((rn(v) * scale).astype(np.float32).astype(np.float64)),
        )
        tokens = q.shape[1]
        seen = np.tril(np.ones((tokens, tokens), bool))
        s = np.where(seen, self.values[f"{name}.scores"], -np.inf)
        e = np.exp(s - s.max(-1, keepdims=True))
        y = e / e.sum(-1, keepdims=True)
        error = np.where(seen, s.max(-1, keepdims=True) - np.where(seen, s, 0) + 5, 0) * U
        bound = y * (error + (y * error).sum(-1, keepdims=True) + gamma(tokens) + 2 * U)
        self.within(f"{name}.probs", y, bound + 2 * TINY)
        p = self.values[f"{name}.probs"]
        v = self.values[f"{name}.v_proj"].reshape(tokens, -1, self.shape.head_dim)
        v = v.transpose(1, 0, 2).repeat(groups, axis=0)
        joined = [(a @ b).transpose(1, 0, 2) for a, b in ((p, v), (abs(p), abs(v)))]
        self.within(f"{name}.context", joined[0], gamma(tokens + 1) * joined[1])

    def add(self, name: str, a: str, b: str) -> None:
        total = (self.values[a] + self.values[b]).astype(np.float32).astype(np.float64)
        self.within(name, total, 0)

    def run(self) -> None:
        rows = self.weights["model.embed_tokens.weight"][self.input_ids]
        self.within("model.embed_tokens", rows, 0)
        self.rotary()
        x = "model.embed_tokens"
        for n in range(self.shape.num_hidden_layers):
            layer = f"model.layers.{n}"
            attention, mlp = f"{layer}.self_attn", f"{layer}.mlp"
            self.norm(f"{layer}.input_layernorm", x)
            for part in ("q", "k", "v"):
                self.linear(f"{attention}.{part}_proj", f"{layer}.input_layernorm")
            for part in ("q", "k"):
                self.rope(f"{attention}.{part}_rope", f"{attention}.{part}_proj")
            self.attention(attention)
            self.linear(f"{attention}.o_proj", f"{attention}.context")
            self.add(f"{layer}.attn_residual", x, f"{attention}.o_proj")
            self.norm(f"{layer}.post_attention_layernorm", f"{layer}.attn_residual")
            for part in ("gate", "up"):
                self.linear(f"{mlp}.{part}_proj", f"{layer}.post_attention_layernorm")
            gate = self.values[f"{mlp}.gate_proj"]
            y = gate / (1 + np.exp(-gate))
            self.within(f"{mlp}.act", y, 8 * U * abs(y))
            self.within(
                f"{mlp}.gated", self.values[f"{mlp}.act"] * self.values[f"{mlp}.up_proj"], 0
            )
            self.linear(f"{mlp}.down_proj", f"{mlp}.gated")
            self.add(layer, f"{layer}.attn_residual", f"{mlp}.down_proj")
            x = layer
        self.norm("model.norm", x)
        head = "model.embed_tokens" if self.shape.tie_word_embeddings else "lm_head"
        self.linear("lm_head", "model.norm", head)


def judged(case: Case, checkpoints: Path, folder: Path) -> dict[str, int]:
    tensors = read_checkpoint(checkpoints / case.shape)
    judge = Judge(load_trace(case.record(checkpoints, folder)), tensors, case.shape)
    judge.run()
    assert judge.outside.keys() == judge.values.keys()
    return judge.outside


@pytest.mark.parametrize("shape", OLD_SHAPES)
def test_healthy_port_is_within_every_interval(
    shape: str, checkpoints: Path, tmp_path: Path
) -> None:
    outside = judged(Case(shape, "bfloat16"), checkpoints, tmp_path)
    assert {name: count for name, count in outside.items() if count} == {}


LOW_PRECISION = ("cast-truncation", "softmax-low-precision", "norm-low-precision",
                 "activation-low-precision")  # fmt: skip


@pytest.mark.parametrize("bug", LOW_PRECISION)
@pytest.mark.parametrize("shape", OLD_SHAPES)
def test_low_precision_is_outside(shape: str, bug: str, checkpoints: Path, tmp_path: Path) -> None:
    """No summation order gives these: without that they would be no bugs."""
    outside = judged(Case(shape, "bfloat16", f"{bug}:default"), checkpoints, tmp_path)
    wrong = {name.rpartition(".")[2] for name, count in outside.items() if count}
    kinds = {
        "softmax-low-precision": {"probs"},
        "norm-low-precision": {"input_layernorm", "post_attention_layernorm", "norm"},
        "activation-low-precision": {"act"},
    }
    if bug == "cast-truncation":
        assert {"cos", "input_layernorm", "q_proj", "scores", "probs", "act"} <= wrong
    else:
        assert wrong == kinds[bug]


@pytest.mark.parametrize("shape", OLD_SHAPES)
def test_norm_eps_is_outside(shape: str, checkpoints: Path, tmp_path: Path) -> None:
    case = Case(shape, "bfloat16", "norm-eps:default", tokens=64)
    outside = judged(case, checkpoints, tmp_path)
    assert outside["model.layers.0.input_layernorm"] > 0
