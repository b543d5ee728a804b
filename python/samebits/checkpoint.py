"""Which checkpoint a model came from: a digest of its configuration and of its tensors' names,
dtypes, shapes and places. Left out: the weights' values, which would take a minute for 7B."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_MAX_HEADER = 100 << 20  # as safetensors itself allows


def shards(folder: Path) -> list[Path]:
    """The files that hold the weights, in the order of their names' bytes."""
    if (folder / _SINGLE).exists():
        return [folder / _SINGLE]
    index = json.loads((folder / _INDEX).read_bytes())
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weight_map, dict):
        raise ValueError(f"{folder / _INDEX}: expected an object with an object 'weight_map'")
    names = sorted({str(name) for name in weight_map.values()}, key=os.fsencode)
    return [folder / name for name in names]


def checkpoint_digest(folder: str | os.PathLike[str]) -> str:
    """`checkpoint_digest` of docs/trace-format.md. Raises OSError or ValueError without one."""
    root = Path(folder)
    digest = hashlib.sha256((root / "config.json").read_bytes())
    for path in shards(root):
        with path.open("rb") as file:
            length = file.read(8)
            size = int.from_bytes(length, "little")
            header = file.read(size) if size <= _MAX_HEADER else b""
        if len(length) != 8 or len(header) != size:
            raise ValueError(f"{path}: no safetensors file")
        digest.update(length)
        digest.update(header)
    return digest.hexdigest()
