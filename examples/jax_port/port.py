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

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

from faults import Plan, listing
from samebits import Recorder, tap

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

    def frequencies(self, theta: float, tokens: int, kind: str) -> tuple[np.ndarray, float]:
        """Inverse frequencies in float32, and the factor of cos and sin."""
        size, rope = self.head_dim, self.rope
        factor = float(rope.get("factor", 1))
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


# ---- the model ------------------------------------------------------------------------------


class Model:
    """Weights by module name: kernels are [in, out], the transpose of what PyTorch stores."""

    def __init__(self, folder: Path, dtype: str, plan: Plan) -> None:
        self.config = Config(folder)
        self.dtype = jnp.dtype(dtype)
        self.plan = plan
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
        for name, values in tensors.items():
            module, _, kind = name.rpartition(".")
            array = self.cast(jnp.asarray(values))
            if kind == "bias":
                if not self._bias_forgotten(module):
                    self.biases[module] = array
            elif array.ndim == 1:
                self.vectors[module] = array
            elif module == "model.embed_tokens":
                self.embedding = array  # [V, E]
            else:
                self.kernels[module] = array if self._not_transposed(module, array) else array.T
        if self.config.tied:
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

    def linear(self, module: str, x: Array) -> Array:
        """x [T, in], kernel [in, out]."""
        y = dot(x, self.kernels[module])
        bias = self.biases.get(module)
        if bias is None:
            return tap(module, self.cast(y))  # round
        if "bias-separate" in self.plan.chains:
            y = self.add(self.cast(y), bias)  # round: the product, then the sum
        else:
            y = self.cast(y + f32(bias))  # round
        if self.plan.bug("bias-twice", layer_of(module)) in ("all", module.split(".")[-1]):
            y = self.add(y, bias)
        return tap(module, y)

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
            return tap(module, x * jax.lax.rsqrt(variance + eps) * weight)
        if module.endswith(("q_norm", "k_norm")) and self.plan.bug("qk-norm-missing", layer):
            return tap(module, x)
        x32 = f32(x)
        variance = jnp.mean(jnp.square(x32), axis=-1, keepdims=True)
        normed = x32 * jax.lax.rsqrt(variance + eps)
        if "norm-weight-fp32" in self.plan.chains:
            return tap(module, self.cast(normed * f32(weight)))  # round: once
        return tap(module, self.multiply(weight, self.cast(normed)))  # round: before the weight

    def rotary(self, tokens: int) -> tuple[Array, Array]:
        """cos and sin [T, D]."""
        theta = self.config.theta
        if value := self.plan.bug("rope-theta"):
            theta = float(value)
        kind = "default" if self.plan.bug("rope-scaling-missing") else self.config.rope_type
        inverse, scale = self.config.frequencies(theta, tokens, kind)
        if self.plan.bug("rope-attention-factor"):
            scale = 1.0
        offset = int(self.plan.bug("rope-position-offset") or 0)
        angles = (jnp.arange(tokens, dtype=jnp.float32) + offset)[:, None] * inverse
        if self.plan.bugs.get("rope-interleaved") == "tables":
            both = jnp.repeat(angles, 2, axis=-1)
        else:
            both = jnp.concatenate([angles, angles], axis=-1)
        cosine, sine = jnp.cos(both) * jnp.float32(scale), jnp.sin(both) * jnp.float32(scale)
        if self.plan.bugs.get("rope-rotation-direction") == "sin":
            sine = -sine
        cos = tap("model.rotary.cos", self.cast(cosine))  # round
        return cos, tap("model.rotary.sin", self.cast(sine))  # round

    def rope(self, name: str, x: Array, cos: Array, sin: Array) -> Array:
        """x [T, heads, D]."""
        layer = layer_of(name)
        if self.plan.bug("rope-missing", layer):
            return tap(name, x)
        cos, sin = cos[:, None, :], sin[:, None, :]
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
            return tap(name, self.cast(f32(x) * f32(cos) + f32(rotated) * f32(sin)))  # round: once
        # round: each product, then the sum
        return tap(name, self.add(self.multiply(x, cos), self.multiply(rotated, sin)))

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
        product = jnp.einsum("htd,hsd->hts", q, k, preferred_element_type=jnp.float32)
        if "scores-fp32" in self.plan.chains:
            return tap(name, product * scale)  # stays float32
        if "scale-before-cast" in self.plan.chains:
            return tap(name, self.cast(product * scale))  # round: once
        rounded = self.cast(product)  # round
        if "scale-bf16" in self.plan.chains:
            return tap(name, self.multiply(rounded, self.cast(jnp.float32(scale))))
        return tap(name, self.multiply(rounded, jnp.float32(scale)))  # round

    def probs(self, name: str, scores: Array) -> Array:
        layer, tokens = layer_of(name), scores.shape[-1]
        diagonal = {"self": -1, "next": 1}.get(self.plan.bug("mask-offset", layer) or "", 0)
        if self.plan.bug("mask-missing", layer):
            diagonal = tokens
        seen = jnp.tril(jnp.ones((tokens, tokens), bool), diagonal)
        window = 0 if layer is None else self.config.windows[layer]
        window += int(self.plan.bug("window-off-by-one", layer) or 0)
        window = int(self.plan.bug("window-size", layer) or window)
        if window and not self.plan.bug("window-missing", layer):
            seen &= jnp.triu(jnp.ones((tokens, tokens), bool), 1 - window)
        # The lowest finite number, not -inf: a row that sees nothing spreads evenly, without NaN.
        masked = jnp.where(seen, scores, jnp.finfo(scores.dtype).min)
        if self.plan.bug("softmax-low-precision", layer):
            return tap(name, jax.nn.softmax(masked.astype(self.dtype), axis=-1))
        return tap(name, self.cast(jax.nn.softmax(f32(masked), axis=-1)))  # round

    def attention(self, layer: str, x: Array, cos: Array, sin: Array) -> Array:
        c, name, tokens = self.config, f"{layer}.self_attn", x.shape[0]
        q = self.linear(f"{name}.q_proj", x).reshape(tokens, c.heads, c.head_dim)
        k = self.linear(f"{name}.k_proj", x).reshape(tokens, c.kv_heads, c.head_dim)
        v = self.linear(f"{name}.v_proj", x).reshape(tokens, c.kv_heads, c.head_dim)
        if c.qk_norm:  # head by head
            q, k = self.rms_norm(f"{name}.q_norm", q), self.rms_norm(f"{name}.k_norm", k)
        q = self.rope(f"{name}.q_rope", q, cos, sin)
        k = self.rope(f"{name}.k_rope", k, cos, sin)
        groups = c.heads // c.kv_heads
        if self.plan.bug("gqa-head-order", layer_of(layer)):
            k, v = (jnp.tile(a, (1, groups, 1)) for a in (k, v))
        else:
            k, v = (jnp.repeat(a, groups, axis=1) for a in (k, v))
        q, k, v = (a.transpose(1, 0, 2) for a in (q, k, v))  # [H, T, D]
        probs = self.probs(f"{name}.probs", self.scores(f"{name}.scores", q, k))
        heads = jnp.einsum("hts,hsd->thd", probs, v, preferred_element_type=jnp.float32)
        context = tap(f"{name}.context", self.cast(heads).reshape(tokens, -1))  # round
        return self.linear(f"{name}.o_proj", context)

    def activation(self, name: str, x: Array) -> Array:
        layer = layer_of(name)
        if self.plan.bug("activation-low-precision", layer):
            return tap(name, jax.nn.silu(x))
        x32 = f32(x)
        variant = self.plan.bug("activation", layer)
        if variant == "relu":
            y = jax.nn.relu(x32)
        elif variant is not None:
            y = jax.nn.gelu(x32, approximate=variant == "gelu_tanh")
        else:
            y = x32 / (1 + jnp.exp(-x32))
        return tap(name, self.cast(y))  # round

    def mlp(self, layer: str, x: Array) -> Array:
        name = f"{layer}.mlp"
        names = (f"{name}.gate_proj", f"{name}.up_proj")
        fused = jnp.concatenate([self.kernels[module] for module in names], axis=1)  # [E, 2F]
        both = self.cast(dot(x, fused))  # round
        gate, up = jnp.split(both, 2, axis=-1)
        swapped = self.plan.bug("gate-up-swapped", layer_of(layer))
        if swapped == "split":
            gate, up = up, gate
        tap(names[0], gate)
        tap(names[1], up)
        if swapped == "act":
            gate, up = up, gate
        gated = tap(f"{name}.gated", self.multiply(self.activation(f"{name}.act", gate), up))
        return self.linear(f"{name}.down_proj", gated)

    def __call__(self, ids: list[int]) -> Array:
        """Logits [T, V]."""
        x = tap("model.embed_tokens", self.embedding[jnp.asarray(ids)])
        cos, sin = self.rotary(len(ids))
        for n in range(self.config.layers):
            layer = f"model.layers.{n}"
            normed = self.rms_norm(f"{layer}.input_layernorm", x)
            attended = self.attention(layer, normed, cos, sin)
            wrong = self.plan.bug("residual-source", n)
            before = normed if wrong == "attention" else x
            middle = tap(f"{layer}.attn_residual", self.add(before, attended))
            normed = self.rms_norm(f"{layer}.post_attention_layernorm", middle)
            before = normed if wrong == "mlp" else middle
            x = tap(layer, self.add(before, self.mlp(layer, normed)))
        return self.linear("lm_head", self.rms_norm("model.norm", x))


def f32(x: Array) -> Array:
    return x.astype(jnp.float32)


def dot(x: Array, kernel: Array) -> Array:
    """[T, in] times [in, out], accumulated and returned in float32."""
    return jnp.dot(x, kernel, preferred_element_type=jnp.float32)


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


def run(folder: Path, ids: list[int], dtype: str, plan: Plan, out: Path) -> Array:
    """One prefill, recorded to `out`; returns the logits."""
    model = Model(folder, dtype, plan)
    with Recorder(
        out,
        input_ids=ids,
        dtype=dtype,
        framework="jax",
        framework_version=jax.__version__,
        attention="eager",
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
