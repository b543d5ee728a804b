"""The rotary record: inv_freq and every cosine can be rebuilt from it, bit for bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import samebits

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")

from tiny_model import IDS, T, make_model  # noqa: E402

from samebits.rotary import correctly_rounded, ordered  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::samebits.PromptWarning")

SCALINGS: dict[str, dict[str, Any]] = {
    "default": {"rope_type": "default", "rope_theta": 10000.0},
    "yarn": {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0,
             "original_max_position_embeddings": 32},
    "llama3": {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0,
               "high_freq_factor": 4.0, "original_max_position_embeddings": 32},
}  # fmt: skip


def rebuilt(record: dict[str, Any], part: str, positions: list[int]) -> npt.NDArray[np.float32]:
    """cos or sin [T, D/2] in float32, as docs/trace-format.md says."""
    inv_freq = np.array(record["inv_freq"], np.uint32).view(np.float32)
    angle = np.array(positions, np.float32)[:, None] * inv_freq
    value = correctly_rounded({"cos": np.cos, "sin": np.sin}[part], angle)
    steps = ordered(value)
    for position, i, d in record[part]:
        for row in np.flatnonzero(np.array(positions) == position):
            steps[row, i] += d
    bits = np.where(steps < 0, 0x80000000 | -steps, steps).astype(np.uint32)
    return bits.view(np.float32) * np.float32(record["attention_scaling"])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("scaling", SCALINGS)
def test_cos_and_sin_from_the_record(scaling: str, dtype: str, tmp_path: Path) -> None:
    model = make_model("llama", getattr(torch, dtype), rope_parameters=SCALINGS[scaling])
    ids, mask = [IDS, [0] * 5 + IDS[5:]], [[1] * T, [0] * 5 + [1] * (T - 5)]
    samebits.capture(model, ids, tmp_path / "trace", attention_mask=mask, steps=2)
    trace = samebits.load_trace(tmp_path / "trace")
    record = json.loads(trace.metadata["rotary"])
    assert (record["attention_scaling"] != 1) == (scaling == "yarn")
    for part in ("cos", "sin"):
        for b, positions in enumerate(json.loads(trace.metadata["positions"])):
            half = rebuilt(record, part, positions)
            whole = torch.from_numpy(np.concatenate([half, half], -1)).to(model.dtype)
            np.testing.assert_array_equal(
                trace[f"model.rotary.{part}"].float32()[b], whole.float().numpy()
            )


def test_differences_are_found_and_needed(tmp_path: Path) -> None:
    """torch's cos is not always correctly rounded; without the differences bits would be wrong."""
    model = make_model("llama", torch.float32, head_dim=64, max_position_embeddings=4096)
    ids = [i % 80 for i in range(1500)]
    samebits.capture(model, ids, tmp_path / "trace", attention="sdpa")
    trace = samebits.load_trace(tmp_path / "trace")
    record = json.loads(trace.metadata["rotary"])
    for part in ("cos", "sin"):
        theirs = trace[f"model.rotary.{part}"].float32()[:, :32]
        np.testing.assert_array_equal(rebuilt(record, part, list(range(1500))), theirs)
        assert all(0 <= position < 1500 and 0 <= i < 32 for position, i, _ in record[part])
        assert record[part] == sorted(record[part])
        plain = rebuilt({**record, part: []}, part, list(range(1500)))
        assert np.count_nonzero(plain != theirs) == len(record[part])


def test_bfloat16_frequencies(tmp_path: Path) -> None:
    """model.to() rounds the buffer: the record has what was used."""
    model = make_model("llama", torch.float32).to(torch.bfloat16)
    samebits.capture(model, IDS, tmp_path / "trace")
    record = json.loads(samebits.read_metadata(tmp_path / "trace")["rotary"])
    assert all(bits % 65536 == 0 for bits in record["inv_freq"])


def test_frequencies_that_change_on_the_way_are_not_recorded(tmp_path: Path) -> None:
    scaling = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}
    model = make_model(
        "llama", torch.float32, rope_parameters=scaling, max_position_embeddings=T + 1
    )
    for steps, constant in ((1, True), (3, False), (0, True)):
        samebits.capture(model, IDS, tmp_path / "trace", steps=steps)
        metadata = samebits.read_metadata(tmp_path / "trace")
        assert ("rotary" in metadata) == constant
        assert ("rotary" in json.loads(metadata["absent"])) == (not constant)


def test_another_embedding_is_not_recorded(tmp_path: Path) -> None:
    model = make_model("llama", torch.float32)
    rotary = model.model.rotary_emb
    plain = rotary.forward
    rotary.forward = lambda x, position_ids: plain(x, position_ids + 1)
    samebits.capture(model, IDS, tmp_path / "trace")
    metadata = samebits.read_metadata(tmp_path / "trace")
    assert "rotary" not in metadata
    assert "position" in json.loads(metadata["absent"])["rotary"]


def test_ordered() -> None:
    values = np.array([-1.0, -1e-45, -0.0, 0.0, 1e-45, 1.0], np.float32)
    assert ordered(values).tolist() == [-0x3F800000, -1, 0, 0, 1, 0x3F800000]


def test_correctly_rounded() -> None:
    """As by float64, whose rounding to float32 goes wrong once in 1e8; numpy's float32 does not."""
    angle = np.arange(20000, dtype=np.float32) * np.float32(0.37)
    for function in (np.cos, np.sin):
        expected = function(angle.astype(np.float64)).astype(np.float32)
        np.testing.assert_array_equal(correctly_rounded(function, angle), expected)
        assert (function(angle) != expected).any()
