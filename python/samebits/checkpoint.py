"""Which checkpoint a model came from: a digest of its configuration, and of its tensors' names,
dtypes, shapes, and first and last bytes. Left out: all of the weights, which would take a minute
for 7B."""

from __future__ import annotations

import hashlib
import json
import operator
import os
from pathlib import Path
from typing import Any

_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_MAX_HEADER = 100 << 20  # as safetensors itself allows
_END = 4096  # bytes of each end of a tensor


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


def _header(path: Path) -> tuple[dict[str, Any], int]:
    """The tensors that a file names, and where its data begins."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        text = file.read(size) if size <= _MAX_HEADER else b""
    if not text or len(text) != size:
        raise ValueError(f"{path}: no safetensors file")
    header = json.loads(text)
    if not isinstance(header, dict):
        raise ValueError(f"{path}: no safetensors file")
    header.pop("__metadata__", None)
    return header, 8 + size


def _text(path: Path, name: str, entry: Any, size: int) -> tuple[str, int, int]:
    """What a header's entry says, as the digest has it, and where its data lies in `size` bytes."""
    try:
        shape = ",".join(str(operator.index(axis)) for axis in entry["shape"])
        low, high = (operator.index(offset) for offset in entry["data_offsets"])
        dtype = str(entry["dtype"])
    except (KeyError, TypeError, ValueError):
        low, high = 1, 0
    if not 0 <= low <= high <= size:
        raise ValueError(f"{path}: no safetensors file: tensor {name[:60]!r}")
    return f"{name}\0{dtype}\0[{shape}]\0", low, high


def tensor_shapes(folder: Path) -> dict[str, list[int]]:
    """Of all tensors. Raises OSError or ValueError without a checkpoint."""
    shapes = {}
    for path in shards(folder):
        for name, entry in _header(path)[0].items():
            shape = entry.get("shape") if isinstance(entry, dict) else None
            if not isinstance(shape, list) or not all(isinstance(n, int) and n >= 0 for n in shape):
                raise ValueError(f"{path}: no safetensors file: tensor {name[:60]!r}")
            shapes[name] = shape
    return shapes


def checkpoint_digest(folder: str | os.PathLike[str]) -> str:
    """`checkpoint_digest` of docs/trace-format.md. Raises OSError or ValueError without one."""
    root = Path(folder)
    digest = hashlib.sha256((root / "config.json").read_bytes())
    tensors: dict[str, tuple[Path, dict[str, Any], int]] = {}
    for path in shards(root):
        header, begin = _header(path)
        for name, entry in header.items():
            tensors[name] = (path, entry, begin)
    for name in sorted(tensors, key=str.encode):
        path, entry, begin = tensors[name]
        text, low, high = _text(path, name, entry, path.stat().st_size - begin)
        digest.update(text.encode())
        with path.open("rb") as file:
            file.seek(begin + low)
            if high - low <= 2 * _END:
                digest.update(file.read(high - low))
            else:
                digest.update(file.read(_END))
                file.seek(begin + high - _END)
                digest.update(file.read(_END))
    return "sha256:" + digest.hexdigest()
