"""python -m samebits capture: records a transformers model as a trace."""

from __future__ import annotations

import argparse
import sys
import warnings
from typing import TYPE_CHECKING

from samebits.trace import DTYPES

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]


def _ids(text: str) -> list[int]:
    try:
        return [int(item) for item in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected ids such as 1,2,3, found {text!r}") from None


def register(subparsers: Subparsers) -> None:
    capture = subparsers.add_parser("capture", help="record transformers' eager attention run")
    capture.add_argument("--model", required=True, metavar="DIR", help="Hugging Face folder")
    capture.add_argument("--ids", required=True, type=_ids, help="token ids of the prompt: 1,2,3")
    capture.add_argument("--dtype", choices=DTYPES, default="bfloat16")
    capture.add_argument("--threads", type=int, help="torch threads (default: torch's choice)")
    capture.add_argument("-o", "--out", required=True, metavar="FILE", help="trace to write")
    capture.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    import torch
    from transformers import AutoModelForCausalLM

    from samebits.torch_capture import capture

    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    model = AutoModelForCausalLM.from_pretrained(
        arguments.model,
        dtype=getattr(torch, arguments.dtype),
        attn_implementation="eager",
        local_files_only=True,
    )
    if max(arguments.ids) >= model.config.vocab_size:
        raise ValueError(
            f"--ids: {max(arguments.ids)} is not below vocab_size {model.config.vocab_size}"
        )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        capture(model, arguments.ids, arguments.out)
    for warning in caught:
        print(f"warning: {warning.message}", file=sys.stderr)
    print(f"{arguments.out}: {len(arguments.ids)} tokens recorded", file=sys.stderr)
    return 0
