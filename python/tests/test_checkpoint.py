"""The digest that ties a trace to its checkpoint."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from samebits.checkpoint import checkpoint_digest


def by_hand(folder: Path, files: list[str]) -> str:
    data = (folder / "config.json").read_bytes()
    for name in files:
        content = (folder / name).read_bytes()
        data += content[: 8 + int.from_bytes(content[:8], "little")]
    return hashlib.sha256(data).hexdigest()


def test_one_file(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"a": 1}')
    save_file({"x": np.ones(3, np.float32)}, tmp_path / "model.safetensors")
    first = checkpoint_digest(tmp_path)
    assert first == by_hand(tmp_path, ["model.safetensors"])
    save_file({"x": np.zeros(3, np.float32)}, tmp_path / "model.safetensors")
    assert checkpoint_digest(str(tmp_path)) == first  # values do not count
    save_file({"x": np.zeros(4, np.float32)}, tmp_path / "model.safetensors")
    assert checkpoint_digest(tmp_path) != first
    save_file({"x": np.ones(3, np.float32)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"a": 2}')
    assert checkpoint_digest(tmp_path) != first


def test_shards_in_the_order_of_their_names(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    for name in ("b", "a", "unlisted"):
        save_file({name: np.ones(1, np.float32)}, tmp_path / f"{name}.safetensors")
    weight_map = {"b": "b.safetensors", "x": "b.safetensors", "a": "a.safetensors"}
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    expected = by_hand(tmp_path, ["a.safetensors", "b.safetensors"])
    assert checkpoint_digest(tmp_path) == expected
    save_file({"one": np.ones(1, np.float32)}, tmp_path / "model.safetensors")
    assert checkpoint_digest(tmp_path) == by_hand(tmp_path, ["model.safetensors"])


@pytest.mark.parametrize("content", [b"", b"\1\0\0\0", b"\xff" * 9, b"\x08\0\0\0\0\0\0\0{}"])
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
