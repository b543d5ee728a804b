"""The digest that ties a trace to its checkpoint."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from samebits.checkpoint import checkpoint_digest


def write(folder: Path, array: Any, name: str = "model.safetensors", tensor: str = "x") -> None:
    save_file({tensor: array}, folder / name)


def test_by_hand(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"a": 1}')
    write(tmp_path, np.arange(3, dtype=np.float32))
    data = b'{"a": 1}' + b"x\0F32\0[3]\0" + np.arange(3, dtype=np.float32).tobytes()
    expected = "sha256:" + hashlib.sha256(data).hexdigest()
    assert checkpoint_digest(tmp_path) == expected
    assert checkpoint_digest(str(tmp_path)) == expected


def test_what_counts(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"a": 1}')
    large = np.zeros(5000, np.float32)  # 20000 bytes: the first and the last 4096 count
    write(tmp_path, large)
    first = checkpoint_digest(tmp_path)
    for place in (0, 1023, 3976, 4999):
        edited = large.copy()
        edited[place] = 1
        write(tmp_path, edited)
        assert checkpoint_digest(tmp_path) != first
    middle = large.copy()
    middle[2500] = 1
    write(tmp_path, middle)
    assert checkpoint_digest(tmp_path) == first
    write(tmp_path, large.reshape(50, 100))
    assert checkpoint_digest(tmp_path) != first
    write(tmp_path, large)
    (tmp_path / "config.json").write_text('{"a": 2}')
    assert checkpoint_digest(tmp_path) != first


def test_shards_are_no_part_of_it(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    a, b = np.ones(1, np.float32), np.zeros(2, np.float32)
    write(tmp_path, a, "second.safetensors", "a")
    write(tmp_path, b, "first.safetensors", "b")
    weight_map = {"a": "second.safetensors", "b": "first.safetensors"}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    sharded = checkpoint_digest(tmp_path)
    save_file({"a": a, "b": b}, tmp_path / "model.safetensors")
    assert checkpoint_digest(tmp_path) == sharded


def headed(header: str) -> bytes:
    return len(header).to_bytes(8, "little") + header.encode() + b"1234"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\1\0\0\0",
        b"\xff" * 9,
        b"\x08\0\0\0\0\0\0\0{}",
        headed("[]"),
        headed('{"x": 1}'),
        headed('{"x": {"dtype": "F32", "shape": [1]}}'),
        headed('{"x": {"dtype": "F32", "shape": 1, "data_offsets": [0, 4]}}'),
        headed('{"x": {"dtype": "F32", "shape": [1.5], "data_offsets": [0, 4]}}'),
        headed('{"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 5]}}'),
        headed('{"x": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}'),
        headed('{"x": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}}'),
        headed('{"x": {"dtype": "F32", "shape": [1], "data_offsets": [0]}}'),
        headed('{"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 1e99]}}'),
    ],
)
def test_no_safetensors(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.safetensors: no safetensors"):
        checkpoint_digest(tmp_path)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="config"):
        checkpoint_digest(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(OSError, match="index"):
        checkpoint_digest(tmp_path)
    for text in ("[]", "{}", '{"weight_map": 3}', "no"):
        (tmp_path / "model.safetensors.index.json").write_text(text)
        with pytest.raises(ValueError, match=r"weight_map|Expecting"):
            checkpoint_digest(tmp_path)
