"""What a trace of a given prompt could not show, whatever the port does wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class PromptWarning(UserWarning):
    """The prompt is too weak to show errors that a trace is there to show."""


def prompt_warnings(tokens: int, dtype: str) -> list[str]:
    """Reasons to take a longer prompt; `tokens` of the longest sequence, without padding."""
    found = []
    if tokens == 1:
        found.append(
            "one token: a softmax over one key is 1 and the rotation by position 0 is none, so "
            "wrong masks, scales, rotary embeddings and head orders in the scores do not show"
        )
    elif tokens < 16:
        found.append(
            f"{tokens} tokens: too few for the statistics of small effects; a wrong rope theta or "
            "scaling shows little. Use at least 16"
        )
    if 1 < tokens < 64 and dtype == "bfloat16":
        found.append(
            f"{tokens} tokens in bfloat16: a wrong norm eps may stay below one step. Use 64"
        )
    return found


def blind_spots(
    config: Any, rows: Sequence[Sequence[int]], padded: bool, chunks: Sequence[int]
) -> list[str]:
    """Classes of errors that do not show in this run, most of them by choice.

    `rows` are the ids [B][T], `config` is transformers'. In words that stand alone: they go into
    the trace as they are.
    """
    found = []
    tokens = len(rows[0])
    if len(rows) == 1:
        found.append("one sequence: sequences that get mixed up in a batch")
    if not padded:
        found.append("no padding: masks and positions of padded sequences")
    if len(chunks) == 1:
        found.append("no decode steps: a key/value cache, its offsets and positions")
    if all(len(set(row)) == 1 for row in rows) and tokens > 1:
        found.append("one token repeated: values that belong to another token")
    window = getattr(config, "sliding_window", None)
    layers = getattr(config, "layer_types", None) or []
    if window and (not layers or "sliding_attention" in layers) and tokens <= window:
        found.append(f"{tokens} tokens within the sliding window of {window}: a missing window")
    if config.num_attention_heads == config.num_key_value_heads:
        found.append("as many key/value heads as heads: heads that share the wrong keys")
    return found
