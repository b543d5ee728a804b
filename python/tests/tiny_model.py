"""Random models of each family that capture knows, a few kilobytes each."""

from __future__ import annotations

from typing import Any

import torch
import transformers

T, E, F, V, H, K, D, N = 20, 64, 96, 80, 4, 2, 16, 2
IDS = [(7 * i + 3) % V for i in range(T)]
FAMILIES = {"qwen2": "Qwen2", "llama": "Llama", "qwen3": "Qwen3", "mistral": "Mistral"}
SIZES = {
    "hidden_size": E, "intermediate_size": F, "vocab_size": V, "num_attention_heads": H,
    "num_key_value_heads": K, "num_hidden_layers": N,
}  # fmt: skip


def make_model(family: str, dtype: Any, attention: str = "eager", **options: Any) -> Any:
    torch.manual_seed(0)
    more = {"qwen3": {"head_dim": D}, "mistral": {"sliding_window": 7}}.get(family, {})
    config = getattr(transformers, f"{FAMILIES[family]}Config")(**SIZES, **{**more, **options})
    model = getattr(transformers, f"{FAMILIES[family]}ForCausalLM")(config)
    model.set_attn_implementation(attention)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter)
    rotary = model.model.rotary_emb.inv_freq.clone()
    model = model.to(dtype).eval()
    model.model.rotary_emb.inv_freq = rotary  # from_pretrained keeps it in float32, to() does not
    model.generation_config.eos_token_id = None  # as capture: decode steps do not stop
    return model
