"""Which matrix products a model meets for given prompts and steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

# Query rows of one block of torch's fused attention kernel, by the number of query rows, and keys
# of one block (from its source; docs/numerics/torch-ops.md).
_Q_SPLITS = ((192, 32), (768, 64))
_Q_SPLIT_ABOVE = 256
_KV_SPLIT = 512


@dataclass(frozen=True, order=True)
class LinearShape:
    """A linear layer."""

    in_features: int
    out_features: int
    bias: bool


@dataclass(frozen=True)
class Packing:
    """From which lengths of a call on the fused kernel's products are of another kind."""

    min_q_len: int
    min_kv_len: int


@dataclass(frozen=True, order=True)
class Block:
    """One product inside the fused kernel: query rows by keys."""

    rows: int
    keys: int
    packed: bool = False


@dataclass(frozen=True)
class Workload:
    """The shapes of all products of a model."""

    linears: tuple[LinearShape, ...]
    head_dim: int
    heads: int
    kv_heads: int
    batch: int
    prompts: tuple[int, ...]
    steps: int
    attention: str  # "eager" or "sdpa"

    def linear_rows(self) -> list[int]:
        """Rows of a linear layer: tokens of the batch, in prefill and in a decode step."""
        rows = {self.batch * prompt for prompt in self.prompts}
        if self.steps:
            rows.add(self.batch)
        return sorted(rows)

    def passes(self) -> list[tuple[int, int]]:
        """(new tokens, keys before them) of every forward pass."""
        prefill = {(prompt, 0) for prompt in self.prompts}
        decode = {(1, prompt + step) for prompt in self.prompts for step in range(self.steps)}
        return sorted(prefill | decode)

    def blocks(self, packing: Packing | None = None) -> list[Block]:
        """Every product inside the fused kernel."""
        found: set[Block] = set()
        for rows, past in self.passes():
            if self.batch > 1 and rows == 1:
                # transformers packs the query heads of a kv head into rows when there is a mask.
                found |= _blocks(self.heads // self.kv_heads, past + 1, False, packing)
            found |= _blocks(rows, past + rows, rows > 1 and self.batch == 1, packing)
        return sorted(found)


def _blocks(rows: int, keys: int, causal: bool, packing: Packing | None) -> set[Block]:
    packed = packing is not None and rows >= packing.min_q_len and keys >= packing.min_kv_len
    split = next((size for below, size in _Q_SPLITS if rows < below), _Q_SPLIT_ABOVE)
    found = set()
    for row in range(0, rows, split):
        count = min(split, rows - row)
        seen = min(row + count, keys) if causal else keys
        for key in range(0, seen, _KV_SPLIT):
            # whole, though not all are seen
            found.add(Block(count, min(_KV_SPLIT, keys - key), packed))
    return found


def workload_of(
    config: Any, prompts: Sequence[int], steps: int, batch: int, attention: str
) -> Workload:
    """From a transformers configuration: the model is built without memory for its weights."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    linears = {
        LinearShape(module.in_features, module.out_features, module.bias is not None)
        for module in model.modules()
        if isinstance(module, torch.nn.Linear)
    }
    heads = config.num_attention_heads
    return Workload(
        linears=tuple(sorted(linears)),
        head_dim=getattr(config, "head_dim", None) or config.hidden_size // heads,
        heads=heads,
        kv_heads=getattr(config, "num_key_value_heads", None) or heads,
        batch=batch,
        prompts=tuple(sorted(set(prompts))),
        steps=steps,
        attention=attention,
    )
