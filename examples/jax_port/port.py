"""Four families in JAX, as somebody would write them who ports a model from PyTorch.

    python examples/jax_port/port.py --model DIR --ids 1,2,3 --dtype bfloat16 -o port.safetensors
    python examples/jax_port/port.py ... --bug weight-not-transposed --layers 0,3
    python examples/jax_port/port.py --list

Qwen2, Qwen3, Llama and Mistral. It shares nothing with samebits but the one-line taps that write
its trace. Without --bug every rounding stands where transformers' eager attention has it: sums,
norms, softmax, SiLU and the rotary tables in float32, then one cast. faults.py names what can be
planted; the wrong line stands here beside the right one. Runs eagerly (taps need values). Left out:
a KV cache, batches, sampling.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

import accumulators
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

from faults import ACCUMULATORS, Plan, listing
from samebits.jax import Recorder
from samebits.jax import tap as record

Array = Any  # jax.Array
Weights = dict[str, Array]

# On a CPU this is the default; accelerators would take fewer passes.
jax.config.update("jax_default_matmul_precision", "highest")


# ---- loading --------------------------------------------------------------------------------


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    data = np.memmap(path, np.uint8, "r")
    header_size = int(data[:8].view("<u8")[0])
    header = json.loads(bytes(data[8 : 8 + header_size]))
    dtypes = {"F32": np.float32, "BF16": ml_dtypes.bfloat16, "F16": np.float16}
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = (8 + header_size + offset for offset in entry["data_offsets"])
        # A copy: tensors may start at odd addresses.
        values = np.frombuffer(data[begin:end].tobytes(), dtypes[entry["dtype"]])
        tensors[name] = values.reshape(entry["shape"])
    return tensors


def read_checkpoint(folder: Path) -> dict[str, np.ndarray]:
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        return read_safetensors(folder / "model.safetensors")
    files = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    tensors: dict[str, np.ndarray] = {}
    for file in files:
        tensors |= read_safetensors(folder / file)
    return tensors


class Config:
    def __init__(self, folder: Path) -> None:
        raw = json.loads((folder / "config.json").read_text())
        if raw["model_type"] not in ("qwen2", "qwen3", "llama", "mistral"):
            raise SystemExit(f"{folder}: model_type {raw['model_type']!r} was not ported")
        rope = raw.get("rope_scaling") or raw.get("rope_parameters") or {}
        self.layers: int = raw["num_hidden_layers"]
        self.hidden: int = raw["hidden_size"]
        self.heads: int = raw["num_attention_heads"]
        self.kv_heads: int = raw.get("num_key_value_heads") or self.heads
        self.head_dim: int = raw.get("head_dim") or self.hidden // self.heads
        self.eps: float = raw.get("rms_norm_eps", 1e-6)
        self.theta: float = rope.get("rope_theta") or raw.get("rope_theta", 10000.0)
        self.rope: dict[str, Any] = rope
        self.rope_type: str = rope.get("rope_type") or rope.get("type", "default")
        self.positions: int = raw.get("max_position_embeddings", 2048)
        self.windows = [self._window(raw, n) for n in range(self.layers)]
        self.qk_norm: bool = raw["model_type"] == "qwen3"
        self.tied: bool = raw.get("tie_word_embeddings", False)

    @staticmethod
    def _window(raw: dict[str, Any], layer: int) -> int:
        """Tokens that a token sees, itself included; 0: all."""
        if raw["model_type"] == "mistral":
            return raw.get("sliding_window", 4096) or 0
        used = raw.get("use_sliding_window", False) and layer >= raw.get("max_window_layers", 28)
        return (raw.get("sliding_window") or 0) if used else 0

    def frequencies(
        self, theta: float, tokens: int, kind: str, size: int, times: float
    ) -> tuple[np.ndarray, float]:
        """Inverse frequencies of `size` dimensions in float32, and the factor of cos and sin."""
        rope = self.rope
        factor = times * float(rope.get("factor", 1))
        if kind == "dynamic":
            length = max(tokens, self.positions)
            stretch = factor * length / self.positions - (factor - 1)
            theta = theta * stretch ** (size / (size - 2))
        exponents = np.arange(0, size, 2, dtype=np.float32) / np.float32(size)
        power = np.power(np.float32(theta), exponents)
        inverse = np.float32(1) / power
        original = rope.get("original_max_position_embeddings", self.positions)
        if kind == "linear":
            return inverse / np.float32(factor), 1.0
        if kind == "llama3":
            low, high = rope["low_freq_factor"], rope["high_freq_factor"]
            length = np.float32(2 * math.pi) / inverse
            smooth = (np.float32(original) / length - np.float32(low)) / np.float32(high - low)
            between = (1 - smooth) * inverse / np.float32(factor) + smooth * inverse
            scaled = np.where(length > original / low, inverse / np.float32(factor), between)
            return np.where(length < original / high, inverse, scaled), 1.0
        if kind == "yarn":

            def place(turns: float) -> float:
                return size * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(theta))

            low = max(math.floor(place(rope.get("beta_fast") or 32)), 0)
            high = min(math.ceil(place(rope.get("beta_slow") or 1)), size - 1)
            places = np.arange(size // 2, dtype=np.float32)
            ramp = np.clip((places - low) / np.float32(high - low or 0.001), 0, 1)
            slow = np.float32(1) / (np.float32(factor) * power)
            scale = rope.get("attention_factor") or 0.1 * math.log(factor) + 1
            return slow * ramp + inverse * (1 - ramp), scale
        return inverse, 1.0


# ---- recording ------------------------------------------------------------------------------


class Taps:
    """Records what the model computes, or, where that is planted, something else."""

    def __init__(self, plan: Plan, layers: int, dtype: str) -> None:
        self.plan, self.last, self.dtype = plan, f"model.layers.{layers - 1}", dtype
        self.seen: dict[str, Array] = {}

    def __call__(self, name: str, array: Array, early: Array | None = None) -> Array:
        """`early`: what a tap that stands too early would record."""
        layer, point = layer_of(name), self.plan.bug("trace-tap-point", layer_of(name))
        shown = array
        if early is not None and point == name.split(".")[-1].replace("q_proj", "bias"):
            shown = early
        stale = self.plan.bugs.get("trace-stale")
        if stale == "kv" and name.endswith("v_proj") and self.plan.bug("trace-stale", layer):
            shown = self.seen[name.replace("v_proj", "k_proj")]
        elif stale == "layers" and name == "model.layers.1":
            shown = self.seen["model.layers.0"]
        written = self.plan.bugs.get("trace-dtype")
        if written == "stored":
            shown = shown.astype(jnp.bfloat16)
        elif written in ("wide", "upcast"):
            shown = shown.astype(jnp.float32)
        if stale:
            self.seen[name] = array
        # The last layer waits for the final norm where that is recorded in its place.
        if self.plan.bugs.get("trace-tap-point") == "final-norm":
            if name == self.last:
                return array
            if name == "model.norm":
                record(self.last, shown)
        record(name, shown)
        return array


# ---- the model ------------------------------------------------------------------------------


class Model:
    """Weights by module name: kernels are [in, out], the transpose of what PyTorch stores."""

    def __init__(self, folder: Path, dtype: str, plan: Plan) -> None:
        self.config = Config(folder)
        written = plan.bugs.get("trace-dtype")
        if written:  # the model runs in one dtype, its trace says another
            dtype = "bfloat16" if written == "upcast" else "float32"
        self.dtype = jnp.dtype(dtype)
        self.plan = plan
        self.tap = Taps(plan, self.config.layers, dtype)
        self.kernels: Weights = {}
        self.biases: Weights = {}
        self.vectors: Weights = {}  # norms
        self._load(read_checkpoint(folder))

    # round: the one place where float32 becomes the model's dtype
    def cast(self, x: Array) -> Array:
        narrows = self.dtype == jnp.bfloat16 and x.dtype == jnp.float32
        if narrows and self.plan.bug("cast-truncation"):
            bits = jax.lax.bitcast_convert_type(x, jnp.uint32) & jnp.uint32(0xFFFF0000)
            x = jax.lax.bitcast_convert_type(bits, jnp.float32)
        return x.astype(self.dtype)  # nearest even

    def _load(self, tensors: dict[str, np.ndarray]) -> None:
        for n in range(self.config.layers):
            if variant := self.plan.bug("weights-swapped", n):
                swap_modules(tensors, n, variant)
            if self.plan.bug("bias-on-wrong-op", n):
                swap_tensors(tensors, *(f"{PREFIX.format(n)}{m}_proj.bias" for m in "kv"))
            if variant := self.plan.bug("weight-random", n):
                randomise(tensors, n, variant)
            if self.plan.bug("rope-row-permutation", n):
                permute_rows(tensors, n, self.config)
            if self.plan.bug("head-layout", n) == "fused":
                split_by_group(tensors, n, self.config)
        if self.plan.bug("layer-order"):
            tensors = sort_layers_by_name(tensors, self.config.layers)
        for name, values in tensors.items():
            module, _, kind = name.rpartition(".")
            loaded = jnp.asarray(values)
            if self.plan.bug("weight-dtype-chain"):
                loaded = loaded.astype(jnp.float16)
            array = self.cast(loaded)
            if kind == "bias":
                if not self._bias_forgotten(module):
                    self.biases[module] = array
            elif array.ndim == 1:
                self.vectors[module] = array
            elif module == "model.embed_tokens":
                self.embedding = array  # [V, E]
            else:
                self.kernels[module] = array if self._not_transposed(module, array) else array.T
        if self.config.tied or self.plan.bug("lm-head-tying"):
            self.kernels["lm_head"] = self.embedding.T

    def _bias_forgotten(self, module: str) -> bool:
        return self.plan.bug("bias-missing", layer_of(module)) in ("all", module.split(".")[-1])

    def _not_transposed(self, module: str, array: Array) -> bool:
        variant = self.plan.bug("weight-not-transposed", layer_of(module))
        names = ("q_proj", "o_proj") if variant == "both" else (variant,)
        # Only a square one goes unnoticed.
        return module.split(".")[-1] in names and array.shape[0] == array.shape[1]

    # ---- operations: computed in float32, rounded where marked

    def add(self, a: Array, b: Array) -> Array:
        return self.cast(f32(a) + f32(b))  # round

    def multiply(self, a: Array, b: Array) -> Array:
        return self.cast(f32(a) * f32(b))  # round

    def dot(self, x: Array, kernel: Array) -> Array:
        """[T, in] times [in, out], accumulated and returned in float32."""
        return self.product("tk,kn->tn", x, kernel)

    def product(self, spec: str, a: Array, b: Array) -> Array:
        chosen = self.plan.chains & ACCUMULATORS.keys()
        low = self.plan.bug("accumulator-low-precision")
        if low == "operands":
            a, b = a.astype(jnp.bfloat16), b.astype(jnp.bfloat16)
        if low == "blocks" and spec == "tk,kn->tn":
            total = jnp.zeros((a.shape[0], b.shape[1]), jnp.bfloat16)
            for begin in range(0, a.shape[1], 32):
                some = f32(a[:, begin : begin + 32]) @ f32(b[begin : begin + 32])
                total = (total + some.astype(jnp.bfloat16)).astype(jnp.bfloat16)
            return f32(total)
        if chosen - {"exp-approximate"}:
            return jnp.asarray(accumulators.product(spec, a, b, chosen))
        return jnp.einsum(spec, a, b, preferred_element_type=jnp.float32)

    def exp(self, x: Array) -> Array:
        y = jnp.exp(x)
        if "exp-approximate" in self.plan.chains:  # a relative error that waves with x
            y = y * (1 + jnp.float32(2**-14) * jnp.sin(97 * x))
        return y

    def linear(self, module: str, x: Array) -> Array:
        """x [T, in], kernel [in, out]."""
        y = self.dot(x, self.kernels[module])
        bias, early = self.biases.get(module), self.cast(y)
        if module == "lm_head" and self.plan.bug("softcap") == "logits":
            y = 30 * jnp.tanh(y / 30)
        if bias is None:
            return self.tap(module, self.cast(y))  # round
        if "bias-separate" in self.plan.chains:
            y = self.add(self.cast(y), bias)  # round: the product, then the sum
        else:
            y = self.cast(y + f32(bias))  # round
        if self.plan.bug("bias-twice", layer_of(module)) in ("all", module.split(".")[-1]):
            y = self.add(y, bias)
        return self.tap(module, y, early if module.endswith("q_proj") else None)

    def rms_norm(self, module: str, x: Array) -> Array:
        layer, weight = layer_of(module), self.vectors[module]
        eps = self.config.eps
        if value := self.plan.bug("norm-eps", layer):
            eps = (1e-5 if eps == 1e-6 else 1e-6) if value == "default" else float(value)
        plus_one = self.plan.bug("norm-weight-plus-one", layer)
        if plus_one == "default" or (plus_one == "qk" and module.endswith(("q_norm", "k_norm"))):
            weight = 1 + weight
        if self.plan.bug("norm-low-precision", layer):
            variance = jnp.mean(jnp.square(x), axis=-1, keepdims=True)
            return self.tap(module, x * jax.lax.rsqrt(variance + eps) * weight)
        of_heads = module.endswith(("q_norm", "k_norm"))
        if of_heads and self.plan.bug("qk-norm", layer) == "missing":
            return self.tap(module, x)
        skipped = self.plan.bug("norm-missing", layer)
        place = {"input": "input_layernorm", "post": "post_attention_layernorm"}
        if skipped and module.split(".")[-1] == place.get(skipped, "norm"):
            return self.tap(module, x)
        x32 = f32(x)
        if self.plan.bug("norm-mean-subtracted", layer) and not of_heads:
            x32 = x32 - jnp.mean(x32, axis=-1, keepdims=True)
        variance = jnp.mean(jnp.square(x32), axis=-1, keepdims=True)
        normed = x32 * jax.lax.rsqrt(variance + eps)
        if "norm-weight-fp32" in self.plan.chains:
            return self.tap(module, self.cast(normed * f32(weight)))  # round: once
        return self.tap(
            module, self.multiply(weight, self.cast(normed))
        )  # round: before the weight

    def rotary(self, tokens: int) -> tuple[Array, Array]:
        """cos and sin [T, D]."""
        theta = self.config.theta
        if value := self.plan.bug("rope-theta"):
            theta = float(value)
        scaling, partial = self.plan.bug("rope-scaling"), self.plan.bug("rope-partial")
        kind = "default" if scaling == "missing" else self.config.rope_type
        size = self.config.head_dim // 2 if partial == "half" else self.config.head_dim
        inverse, scale = self.config.frequencies(
            theta, tokens, kind, size, 2 if scaling == "doubled" else 1
        )
        if scaling == "attention-factor":
            scale = 1.0
        offset = int(self.plan.bug("rope-position-offset") or 0)
        positions, low = jnp.arange(tokens, dtype=jnp.float32) + offset, jnp.bfloat16
        rounded = self.plan.bug("rope-low-precision")
        if rounded == "frequency":
            inverse = f32(jnp.asarray(inverse).astype(low))
        elif rounded == "position":
            positions = f32(positions.astype(low))
        angles = positions[:, None] * inverse
        if rounded == "angle":
            angles = f32(angles.astype(low))
        if self.plan.bugs.get("rope-interleaved") == "tables":
            both = jnp.repeat(angles, 2, axis=-1)
        else:
            both = jnp.concatenate([angles, angles], axis=-1)
        cosine, sine = jnp.cos(both) * jnp.float32(scale), jnp.sin(both) * jnp.float32(scale)
        if self.plan.bugs.get("rope-rotation-direction") == "sin":
            sine = -sine
        cos = self.tap("model.rotary.cos", self.cast(cosine))  # round
        return cos, self.tap("model.rotary.sin", self.cast(sine))  # round

    def rope(self, name: str, x: Array, cos: Array, sin: Array) -> Array:
        """x [T, heads, D]."""
        layer = layer_of(name)
        missing = self.plan.bug("rope-missing", layer)
        if missing == "default" or (missing == "k" and name.endswith("k_rope")):
            return self.tap(name, x)
        return self.tap(name, self.rotate(layer, x, cos, sin))

    def rotate(self, layer: int | None, x: Array, cos: Array, sin: Array) -> Array:
        cos, sin = cos[:, None, :], sin[:, None, :]
        width = cos.shape[-1]
        if width < x.shape[-1]:  # a part of the head
            kept = x[..., width:]
            turned = self.rotate(layer, x[..., :width], cos[:, 0], sin[:, 0])
            return jnp.concatenate([turned, kept], axis=-1)
        if self.plan.bug("rope-rotation-direction", layer) == "rotate":
            rotated = -rotate_half(x)
        elif variant := self.plan.bug("rope-interleaved", layer):
            rotated = jnp.stack([-x[..., 1::2], x[..., ::2]], axis=-1).reshape(x.shape)
            if variant == "rope":  # one angle a pair, from tables that are right
                half = x.shape[-1] // 2
                cos = jnp.repeat(cos[..., :half], 2, axis=-1)
                sin = jnp.repeat(sin[..., :half], 2, axis=-1)
        else:
            rotated = rotate_half(x)
        if "rope-fp32" in self.plan.chains:
            return self.cast(f32(x) * f32(cos) + f32(rotated) * f32(sin))  # round: once
        # round: each product, then the sum
        return self.add(self.multiply(x, cos), self.multiply(rotated, sin))

    def scores(self, name: str, q: Array, k: Array) -> Array:
        """q, k [H, T, D] -> [H, T, S]."""
        scale = 1 / math.sqrt(self.config.head_dim)
        variant = self.plan.bug("attention-scale", layer_of(name))
        if variant == "missing":
            scale = 1.0
        elif variant == "hidden":
            scale = 1 / math.sqrt(self.config.hidden)
        elif variant == "squared":
            scale = scale * scale
        product = self.product("htd,hsd->hts", q, k)
        if self.plan.bug("softcap", layer_of(name)) == "scores":
            return self.tap(name, self.cast(50 * jnp.tanh(product * jnp.float32(scale) / 50)))
        if "scores-fp32" in self.plan.chains:
            return self.tap(name, product * scale)  # stays float32
        if "scale-before-cast" in self.plan.chains:
            return self.tap(name, self.cast(product * scale))  # round: once
        rounded = self.cast(product)  # round
        if "scale-bf16" in self.plan.chains:
            return self.tap(name, self.multiply(rounded, self.cast(jnp.float32(scale))))
        return self.tap(name, self.multiply(rounded, jnp.float32(scale)), rounded)  # round

    def probs(self, name: str, scores: Array) -> Array:
        layer, tokens = layer_of(name), scores.shape[-1]
        diagonal = {"self": -1, "next": 1}.get(self.plan.bug("mask-offset", layer) or "", 0)
        if self.plan.bug("mask-missing", layer):
            diagonal = tokens
        seen = jnp.tril(jnp.ones((tokens, tokens), bool), diagonal)
        window = 0 if layer is None else self.config.windows[layer]
        wrong = self.plan.bug("sliding-window", layer)
        if wrong in ("wider", "narrower"):
            window += (1 if wrong == "wider" else -1) if window else 0
        elif wrong and wrong != "missing":
            window = int(wrong)
        if window and wrong != "missing":
            seen &= jnp.triu(jnp.ones((tokens, tokens), bool), 1 - window)
        # The lowest finite number, not -inf: a row that sees nothing spreads evenly, without NaN.
        masked = jnp.where(seen, scores, jnp.finfo(scores.dtype).min)
        if self.plan.bug("softmax-low-precision", layer):
            return self.tap(name, jax.nn.softmax(masked.astype(self.dtype), axis=-1))
        if "exp-approximate" in self.plan.chains:
            s = f32(masked)
            e = jnp.where(seen, self.exp(s - s.max(axis=-1, keepdims=True)), 0)
            return self.tap(name, self.cast(e / e.sum(axis=-1, keepdims=True)))  # round
        return self.tap(name, self.cast(jax.nn.softmax(f32(masked), axis=-1)))  # round

    def attention(self, layer: str, x: Array, cos: Array, sin: Array) -> Array:
        c, name, tokens = self.config, f"{layer}.self_attn", x.shape[0]
        minor = self.plan.bug("head-layout", layer_of(layer)) == "projection"

        def heads_of(part: str, heads: int) -> Array:
            y = self.linear(f"{name}.{part}_proj", x)
            if minor:
                return y.reshape(tokens, c.head_dim, heads).transpose(0, 2, 1)
            return y.reshape(tokens, heads, c.head_dim)

        q, k, v = heads_of("q", c.heads), heads_of("k", c.kv_heads), heads_of("v", c.kv_heads)
        after = self.plan.bug("qk-norm", layer_of(layer)) == "after-rope"
        if c.qk_norm and not after:  # head by head
            q, k = self.rms_norm(f"{name}.q_norm", q), self.rms_norm(f"{name}.k_norm", k)
        q = self.rope(f"{name}.q_rope", q, cos, sin)
        k = self.rope(f"{name}.k_rope", k, cos, sin)
        if after:
            q, k = self.rms_norm(f"{name}.q_norm", q), self.rms_norm(f"{name}.k_norm", k)
        if narrow := self.plan.bug("cache-low-precision", layer_of(layer)):
            kept = jnp.float16 if narrow == "f16" else jnp.bfloat16
            k, v = k.astype(kept).astype(self.dtype), v.astype(kept).astype(self.dtype)
        groups = c.heads // c.kv_heads
        if self.plan.bug("gqa-head-order", layer_of(layer)):
            k, v = (jnp.tile(a, (1, groups, 1)) for a in (k, v))
        else:
            k, v = (jnp.repeat(a, groups, axis=1) for a in (k, v))
        q, k, v = (a.transpose(1, 0, 2) for a in (q, k, v))  # [H, T, D]
        probs = self.probs(f"{name}.probs", self.scores(f"{name}.scores", q, k))
        heads = self.product("hts,hsd->htd", probs, v).transpose(1, 0, 2)
        context = self.tap(f"{name}.context", self.cast(heads).reshape(tokens, -1))  # round
        return self.linear(f"{name}.o_proj", context)

    def activation(self, name: str, x: Array) -> Array:
        layer = layer_of(name)
        if self.plan.bug("activation-low-precision", layer):
            return self.tap(name, jax.nn.silu(x))
        x32 = f32(x)
        variant = self.plan.bug("activation", layer)
        if variant == "relu":
            y = jax.nn.relu(x32)
        elif variant is not None:
            y = jax.nn.gelu(x32, approximate=variant == "gelu_tanh")
        else:
            y = x32 / (1 + self.exp(-x32))
        return self.tap(name, self.cast(y))  # round

    def mlp(self, layer: str, x: Array) -> Array:
        name = f"{layer}.mlp"
        names = (f"{name}.gate_proj", f"{name}.up_proj")
        fused = jnp.concatenate([self.kernels[module] for module in names], axis=1)  # [E, 2F]
        both = self.cast(self.dot(x, fused))  # round
        gate, up = jnp.split(both, 2, axis=-1)
        swapped = self.plan.bug("gate-up-swapped", layer_of(layer))
        if swapped == "split":
            gate, up = up, gate
        self.tap(names[0], gate)
        self.tap(names[1], up)
        if swapped == "act":
            gate, up = up, gate
        gated = self.tap(f"{name}.gated", self.multiply(self.activation(f"{name}.act", gate), up))
        return self.linear(f"{name}.down_proj", gated)

    def __call__(self, ids: list[int]) -> Array:
        """Logits [T, V]."""
        x = self.embedding[jnp.asarray(ids)]
        if self.plan.bug("embedding-scale"):
            x = self.multiply(x, jnp.float32(math.sqrt(self.config.hidden)))
        x = self.tap("model.embed_tokens", x)
        cos, sin = self.rotary(len(ids))
        for n in range(self.config.layers):
            layer = f"model.layers.{n}"
            normed = self.rms_norm(f"{layer}.input_layernorm", x)
            attended = self.attention(layer, normed, cos, sin)
            wrong = self.plan.bug("residual-source", n)
            before = normed if wrong == "attention" else x
            before = jnp.zeros_like(x) if wrong == "missing" else before
            narrow = self.plan.bug("residual-low-precision", n)
            middle = self.add(before, attended)
            if narrow:
                middle = f32(middle.astype(jnp.bfloat16))
            self.tap(f"{layer}.attn_residual", middle)
            normed = self.rms_norm(f"{layer}.post_attention_layernorm", middle)
            before = normed if wrong == "mlp" else middle
            x = self.add(before, self.mlp(layer, normed))
            if narrow:
                x = f32(x.astype(jnp.bfloat16))
            self.tap(layer, x)
        return self.linear("lm_head", self.rms_norm("model.norm", x))


def f32(x: Array) -> Array:
    return x.astype(jnp.float32)


def rotate_half(x: Array) -> Array:
    first, second = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([-second, first], axis=-1)


def layer_of(name: str) -> int | None:
    parts = name.split(".")
    return int(parts[2]) if parts[:2] == ["model", "layers"] else None


def swap_modules(tensors: dict[str, np.ndarray], layer: int, variant: str) -> None:
    """A name mapping with two lines exchanged."""
    pair = {
        "kv": ("self_attn.k_proj", "self_attn.v_proj"),
        "norms": ("input_layernorm", "post_attention_layernorm"),
    }[variant]
    for kind in ("weight", "bias"):
        one, other = (f"model.layers.{layer}.{module}.{kind}" for module in pair)
        if one in tensors:
            tensors[one], tensors[other] = tensors[other], tensors[one]


PREFIX = "model.layers.{}.self_attn."


def swap_tensors(tensors: dict[str, np.ndarray], one: str, other: str) -> None:
    tensors[one], tensors[other] = tensors[other], tensors[one]


def randomise(tensors: dict[str, np.ndarray], layer: int, variant: str) -> None:
    part = "mlp" if variant == "down_proj" else "self_attn"
    name = f"model.layers.{layer}.{part}.{variant}.weight"
    random = np.random.default_rng(layer).normal(0, 0.02, tensors[name].shape)
    tensors[name] = random.astype(tensors[name].dtype)


def permute_rows(tensors: dict[str, np.ndarray], layer: int, config: Config) -> None:
    """As a converter does for rotations of pairs (2i, 2i + 1)."""
    for part, heads in (("q", config.heads), ("k", config.kv_heads)):
        for kind in ("weight", "bias"):
            name = f"{PREFIX.format(layer)}{part}_proj.{kind}"
            if name in tensors:
                rows = tensors[name].reshape(heads, 2, config.head_dim // 2, -1)
                tensors[name] = rows.swapaxes(1, 2).reshape(tensors[name].shape)


def split_by_group(tensors: dict[str, np.ndarray], layer: int, config: Config) -> None:
    """[q; k; v], split as if each group had its queries, its key and its value side by side."""
    groups, size = config.kv_heads, config.heads // config.kv_heads
    for kind in ("weight", "bias"):
        names = [f"{PREFIX.format(layer)}{part}_proj.{kind}" for part in "qkv"]
        if names[0] not in tensors:
            continue
        fused = np.concatenate([tensors[name] for name in names])
        split = fused.reshape(groups, size + 2, config.head_dim, -1)
        parts = (split[:, :size], split[:, size], split[:, size + 1])
        for name, part in zip(names, parts, strict=True):
            tensors[name] = part.reshape(tensors[name].shape)


def sort_layers_by_name(tensors: dict[str, np.ndarray], layers: int) -> dict[str, np.ndarray]:
    order = sorted(range(layers), key=str)
    found = dict(tensors)
    for name in tensors:
        n = layer_of(name)
        if n is not None:
            found[name] = tensors[name.replace(f".{n}.", f".{order[n]}.", 1)]
    return found


def run(folder: Path, ids: list[int], dtype: str, plan: Plan, out: Path) -> Array:
    """One prefill, recorded to `out`; returns the logits."""
    model = Model(folder, dtype, plan)
    stated, more, wrong = list(ids), {}, plan.bugs.get("trace-inputs")
    if wrong == "ids":
        stated[len(ids) // 2] = (stated[len(ids) // 2] + 7) % model.embedding.shape[0]
    elif wrong == "positions":
        more["positions"] = list(range(1, len(ids) + 1))
    said = {"stored": "bfloat16", "wide": "bfloat16", "upcast": "float32"}
    with Recorder(
        out,
        input_ids=stated,
        dtype=said.get(plan.bugs.get("trace-dtype", ""), dtype),
        framework="jax",
        framework_version=jax.__version__,
        attention="eager",
        **more,
    ):
        return model(ids)


def main() -> None:
    parser = argparse.ArgumentParser(description="A JAX port of four families that writes traces")
    parser.add_argument("--model", type=Path, help="Hugging Face folder")
    parser.add_argument("--ids", help="token ids: 1,2,3")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--bug", default="", help="NAME[:VARIANT], comma-separated")
    parser.add_argument("--chain", default="", help="healthy rounding chains, comma-separated")
    parser.add_argument("--layers", default="all", help="where bugs are planted: all, or 0,3")
    parser.add_argument("--list", action="store_true", help="prints bugs and chains")
    parser.add_argument("-o", "--out", type=Path, help="trace to write")
    arguments = parser.parse_args()
    if arguments.list:
        print(listing())
        return
    if not (arguments.model and arguments.ids and arguments.out):
        parser.error("--model, --ids and -o are needed")
    try:
        plan = Plan.parse(arguments.bug, arguments.chain, arguments.layers)
        ids = [int(i) for i in arguments.ids.split(",")]
    except ValueError as error:
        parser.error(str(error))
    logits = run(arguments.model, ids, arguments.dtype, plan, arguments.out)
    print(
        f"{arguments.out}: {len(ids)} tokens, next {int(jnp.argmax(logits[-1]))}", file=sys.stderr
    )


if __name__ == "__main__":
    main()
