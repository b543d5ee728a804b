"""What several subcommands ask of their arguments, with errors of one line."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from samebits.checkpoint import shards


def at_least(minimum: int, text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = minimum - 1
    if value < minimum:
        raise argparse.ArgumentTypeError(f"expected {minimum} or more, found {text[:60]!r}")
    return value


def check_model(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise ValueError(f"--model {folder}: no folder with a config.json")


def check_out(out: Path, folder: Path) -> None:
    """What would fail only after the model has been loaded and run."""
    if not out.parent.is_dir():
        raise ValueError(f"--out {out}: {out.parent} is no folder")
    if out.is_dir():
        raise ValueError(f"--out {out}: is a folder")
    try:
        weights = [path.resolve() for path in shards(folder)]
    except (OSError, ValueError):
        weights = []  # transformers will say what is missing
    if out.resolve() in weights:
        raise ValueError(f"--out {out}: holds the model's weights")


def load(folder: Path, kind: Any, **options: Any) -> Any:
    """kind.from_pretrained. The folder is input: whatever it makes transformers raise is its fault,
    told in one line."""
    try:
        return kind.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, **options
        )
    except Exception as error:
        reason = " ".join(str(error).split())[:500] or type(error).__name__
        raise ValueError(f"{folder}: {reason}") from error


def load_model(folder: Path, dtype: str, attention: str) -> Any:
    import torch
    import transformers

    if sys.stderr.isatty():
        print(f"loading {folder}", file=sys.stderr)
    model, info = load(
        folder,
        transformers.AutoModelForCausalLM,
        dtype=getattr(torch, dtype),
        attn_implementation=attention,
        output_loading_info=True,
    )
    # transformers fills these with random values and goes on.
    for what in ("missing_keys", "mismatched_keys"):
        if info.get(what):
            raise ValueError(f"{folder}: {what}: {sorted(map(str, info[what]))[:3]}")
    return model
