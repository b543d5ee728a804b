"""Records what a model computes on its way from token ids to logits, for `samebits check`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from samebits.arrays import RawArray
from samebits.blind_spots import PromptWarning
from samebits.trace import Numbers, Recorder, Trace, load_trace, read_metadata, tap

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

__all__ = [
    "PromptWarning",
    "RawArray",
    "Recorder",
    "Trace",
    "capture",
    "load_trace",
    "read_metadata",
    "tap",
]
__version__ = "0.1.0"


def capture(
    model: Any,
    input_ids: Numbers,
    path: str | os.PathLike[str],
    *,
    attention_mask: Numbers | None = None,
    steps: int = 0,
    attention: str = "eager",
    progress: Callable[[int, int], None] | None = None,
    **metadata: str,
) -> list[int] | list[list[int]]:
    """Runs a transformers model, unchanged, and writes every node to `path` as a trace.

    `input_ids` is [T] or, for a batch padded on the left, [B][T] (lists or arrays) with an
    `attention_mask` of the same form that has 0 for padding. After the prompt come `steps` cached
    decode steps, each with the most probable token. Returns the ids of the trace.

    `attention` is what the model runs with, whatever it was loaded with: `eager` shows scores and
    probs, `sdpa` hides them. The model is as it was afterwards. `progress` is called after each
    layer with the number done and the number to do; `metadata` is added to the trace's. Warns
    (PromptWarning) about prompts that can not show some classes of errors. Raises ValueError for
    architectures that it does not know, and for ids outside of the vocabulary.
    """
    from samebits.torch_capture import capture as run  # torch is an extra

    return run(
        model,
        input_ids,
        path,
        attention_mask=attention_mask,
        steps=steps,
        attention=attention,
        progress=progress,
        **metadata,
    )
