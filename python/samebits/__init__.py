"""Records what a model computes on its way from token ids to logits, for `samebits check`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from samebits.arrays import RawArray
from samebits.trace import Recorder, Trace, load_trace, tap

if TYPE_CHECKING:
    import os

__all__ = ["RawArray", "Recorder", "Trace", "capture", "load_trace", "tap"]
__version__ = "0.1.0"


def capture(
    model: Any, input_ids: Sequence[int], path: str | os.PathLike[str], **metadata: str
) -> None:
    """Runs a transformers model on one prompt, records every node: samebits.torch_capture."""
    from samebits.torch_capture import capture as run  # torch is an extra

    run(model, input_ids, path, **metadata)
