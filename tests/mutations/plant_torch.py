"""Bugs planted in transformers itself: in a copy of the checkpoint or its configuration, as a wrong
converter or config would, or in a module of the loaded model. What runs is PyTorch's own code.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from random_models import SHAPES
from safetensors.torch import load_file, save_file

import samebits

Tensors = dict[str, torch.Tensor]
ATTENTION = "model.layers.{}.self_attn."


def _layers(shape: str) -> range:
    return range(SHAPES[shape].num_hidden_layers)


def _swap(tensors: Tensors, one: str, other: str) -> None:
    tensors[one], tensors[other] = tensors[other], tensors[one]


def not_transposed(shape: str, t: Tensors) -> None:
    for n in _layers(shape):
        for part in ("q_proj", "o_proj"):
            name = f"{ATTENTION.format(n)}{part}.weight"
            if t[name].shape[0] == t[name].shape[1]:
                t[name] = t[name].T.contiguous()


def swapped_kv(shape: str, t: Tensors) -> None:
    for n in _layers(shape):
        for kind in ("weight", "bias"):
            k, v = (f"{ATTENTION.format(n)}{part}_proj.{kind}" for part in "kv")
            if k in t:
                _swap(t, k, v)


def swapped_norms(shape: str, t: Tensors) -> None:
    for n in _layers(shape):
        one, other = ("input_layernorm", "post_attention_layernorm")
        _swap(t, f"model.layers.{n}.{one}.weight", f"model.layers.{n}.{other}.weight")


def gate_up(shape: str, t: Tensors) -> None:
    for n in _layers(shape):
        _swap(t, *(f"model.layers.{n}.mlp.{part}_proj.weight" for part in ("gate", "up")))


def biases(factor: float) -> Callable[[str, Tensors], None]:
    def edit(shape: str, t: Tensors) -> None:
        for name in t:
            if name.endswith(".bias"):
                t[name] = t[name] * factor

    return edit


def bias_on_wrong_op(shape: str, t: Tensors) -> None:
    for n in _layers(shape):
        k, v = (f"{ATTENTION.format(n)}{part}_proj.bias" for part in "kv")
        if k in t:
            _swap(t, k, v)


def layer_order(shape: str, t: Tensors) -> None:
    order = sorted(_layers(shape), key=str)
    old = dict(t)
    for name in old:
        if name.startswith("model.layers."):
            n = int(name.split(".")[2])
            t[name] = old[name.replace(f".{n}.", f".{order[n]}.", 1)]


def random_weight(shape: str, t: Tensors) -> None:
    name = "model.layers.1.mlp.down_proj.weight"
    generator = torch.Generator().manual_seed(5)
    t[name] = (0.02 * torch.randn(t[name].shape, generator=generator)).to(t[name].dtype)


def through_f16(shape: str, t: Tensors) -> None:
    for name in t:
        t[name] = t[name].half().to(t[name].dtype)


def norm_plus_one(shape: str, t: Tensors) -> None:
    for name in t:
        if name.endswith("norm.weight"):
            t[name] = t[name] + 1


def row_permutation(shape: str, t: Tensors) -> None:
    s = SHAPES[shape]
    for n in _layers(shape):
        for part, heads in (("q", s.num_attention_heads), ("k", s.num_key_value_heads)):
            for kind in ("weight", "bias"):
                name = f"{ATTENTION.format(n)}{part}_proj.{kind}"
                if name in t:
                    rows = t[name].reshape(heads, 2, s.head_dim // 2, -1)
                    t[name] = rows.transpose(1, 2).reshape(t[name].shape).contiguous()


def tied(shape: str, t: Tensors) -> None:
    if "lm_head.weight" in t:
        t["lm_head.weight"] = t["model.embed_tokens.weight"].clone()


WEIGHTS: dict[str, Callable[[str, Tensors], None]] = {
    "weight-not-transposed": not_transposed,
    "weights-swapped:kv": swapped_kv,
    "weights-swapped:norms": swapped_norms,
    "gate-up-swapped": gate_up,
    "bias-missing": biases(0),
    "bias-twice": biases(2),
    "bias-on-wrong-op": bias_on_wrong_op,
    "layer-order": layer_order,
    "weight-random": random_weight,
    "weight-dtype-chain": through_f16,
    "norm-weight-plus-one": norm_plus_one,
    "rope-row-permutation": row_permutation,
    "lm-head-tying": tied,
}

CONFIGS: dict[str, Callable[[dict[str, Any]], None]] = {
    "norm-eps": lambda c: c.update(rms_norm_eps=1e-5 if c["rms_norm_eps"] == 1e-6 else 1e-6),
    "rope-theta": lambda c: c.update(rope_theta=1e4),
    "activation:gelu": lambda c: c.update(hidden_act="gelu"),
    "activation:tanh": lambda c: c.update(hidden_act="gelu_pytorch_tanh"),
    "rope-scaling": lambda c: c.pop("rope_scaling", None),
    "sliding-window": lambda c: c.update(sliding_window=None) if "sliding_window" in c else None,
}


def _for_each(kind: str, edit: Callable[[Any], None]) -> Callable[[Any], None]:
    def run(model: Any) -> None:
        for name, module in model.named_modules():
            if name.endswith(kind):
                edit(module)

    return run


def _scale_one(module: Any) -> None:
    module.scaling = 1.0


def _skip_norm(module: Any) -> None:
    module.forward = lambda x: x


def _layer_norm(module: Any) -> None:
    own = module.forward
    module.forward = lambda x: own((x.float() - x.float().mean(-1, keepdim=True)).to(x.dtype))


def _scale_embedding(module: Any) -> None:
    own = module.forward
    module.forward = lambda ids: own(ids) * (module.weight.shape[1] ** 0.5)


MODULES: dict[str, Callable[[Any], None]] = {
    "attention-scale": _for_each("self_attn", _scale_one),
    "norm-missing": _for_each("post_attention_layernorm", _skip_norm),
    "embedding-scale": _for_each("embed_tokens", _scale_embedding),
}

PLANTED = (*WEIGHTS, *CONFIGS, *MODULES)


def record(shape: str, checkpoint: Path, planted: str, dtype: str, ids: list[int], out: Path,
           attention: str = "eager", copy: Path | None = None) -> None:  # fmt: skip
    """Captures transformers with what is planted ("": nothing) on the checkpoint."""
    folder = checkpoint
    if planted in WEIGHTS or planted in CONFIGS:
        assert copy is not None
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(checkpoint, copy)
        folder = copy
        if planted in WEIGHTS:
            tensors = load_file(copy / "model.safetensors")
            WEIGHTS[planted](shape, tensors)
            save_file(tensors, copy / "model.safetensors", {"format": "pt"})
        else:
            config = json.loads((copy / "config.json").read_text())
            CONFIGS[planted](config)
            (copy / "config.json").write_text(json.dumps(config))
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=getattr(torch, dtype), attn_implementation=attention
    )
    if planted in MODULES:
        MODULES[planted](model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        samebits.capture(model, ids, out)
