"""Recorder, tap and load_trace."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open

import samebits

Options = dict[str, Any]


@pytest.fixture
def options(tmp_path: Path) -> Options:
    return {
        "path": tmp_path / "trace.safetensors",
        "input_ids": [5, 6],
        "dtype": "bfloat16",
        "framework": "test",
    }


# Signalling and quiet NaN, infinities, -0, the smallest denormal, the largest finite value: any
# conversion through another dtype would change one of them.
SPECIAL = np.array([0x7F81, 0xFFC1, 0x7F80, 0xFF80, 0x8000, 0x0001, 0x7F7F, 0x3F80], np.uint16)


def test_round_trip(options: Options) -> None:
    transposed = np.arange(6, dtype=np.float32).reshape(2, 3).T
    with samebits.Recorder(**options, positions=[3, 4], metadata={"prompt": "hello"}) as recorder:
        recorder.record("half", np.array([1.5, -0.0], np.float16))
        assert samebits.tap("floats", transposed) is transposed
        samebits.tap("big_endian", transposed.astype(">f4"))
        samebits.tap("scalar", np.float32(7).reshape(()))
        samebits.tap("empty", np.zeros((0, 3), np.float32))
    trace = samebits.load_trace(options["path"])
    assert trace.input_ids == [5, 6]
    assert trace.dtype == "bfloat16"
    assert trace.metadata["prompt"] == "hello"
    assert json.loads(trace.metadata["positions"]) == [3, 4]
    np.testing.assert_array_equal(trace["floats"].float32(), transposed)
    np.testing.assert_array_equal(trace["big_endian"].float32(), transposed)
    assert trace["half"].dtype == "F16"
    assert trace["half"].bits.tolist() == [0x3E00, 0x8000]
    assert trace["scalar"].shape == ()
    assert trace["empty"].shape == (0, 3)


def test_tensors_are_aligned_and_other_readers_agree(options: Options) -> None:
    with samebits.Recorder(**options):
        samebits.tap("odd", np.ones(3, np.float16))
        samebits.tap("wide", np.ones(3, np.float32))
    data = options["path"].read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    assert size % 8 == 0
    assert header["wide"]["data_offsets"] == [0, 12]
    with safe_open(options["path"], "np") as file:
        np.testing.assert_array_equal(file.get_tensor("odd"), np.ones(3, np.float16))


def test_torch_bfloat16_keeps_its_bits(options: Options) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    tensor = torch.from_numpy(SPECIAL.view(np.int16).copy()).view(torch.bfloat16)
    with samebits.Recorder(**options):
        samebits.tap("x", tensor)
        samebits.tap("strided", tensor.reshape(2, 4).T)
        samebits.tap("gradient", torch.ones(2, requires_grad=True))
        tensor.zero_()  # recorded values are copies
    trace = samebits.load_trace(options["path"])
    assert trace["x"].dtype == "BF16"
    np.testing.assert_array_equal(trace["x"].bits, SPECIAL)
    np.testing.assert_array_equal(trace["strided"].bits, SPECIAL.reshape(2, 4).T)


def test_jax_bfloat16_keeps_its_bits(options: Options) -> None:
    jnp = pytest.importorskip("jax.numpy", reason="jax is not installed")
    ml_dtypes = pytest.importorskip("ml_dtypes")
    with samebits.Recorder(**options):
        samebits.tap("x", jnp.asarray(SPECIAL.view(ml_dtypes.bfloat16)))
    trace = samebits.load_trace(options["path"])
    assert trace["x"].dtype == "BF16"
    np.testing.assert_array_equal(trace["x"].bits, SPECIAL)


def test_tap_under_jit(options: Options) -> None:
    jax = pytest.importorskip("jax", reason="jax is not installed")
    function = jax.jit(lambda x: samebits.tap("x", x) * 2)
    assert function(1.0) == 2  # no recorder: a tap is nothing
    fresh = jax.jit(lambda x: samebits.tap("x", x) * 2)
    with pytest.raises(TypeError, match=r"jax\.jit"), samebits.Recorder(**options):
        fresh(1.0)
    with samebits.Recorder(**options), jax.disable_jit():
        fresh(jax.numpy.float32(1))
    assert samebits.load_trace(options["path"])["x"].float32() == 1


def test_tap_without_recorder_returns_its_argument() -> None:
    thing = object()
    assert samebits.tap("x", thing) is thing


def test_a_failed_block_leaves_nothing(options: Options) -> None:
    def fail() -> None:
        with samebits.Recorder(**options):
            samebits.tap("x", np.ones(2, np.float32))
            raise RuntimeError("model failed")

    with pytest.raises(RuntimeError, match="model failed"):
        fail()
    assert list(options["path"].parent.iterdir()) == []
    samebits.tap("y", np.ones(1))  # float64 would be an error if the recorder were still active


def test_a_failed_block_keeps_the_older_trace(options: Options) -> None:
    with samebits.Recorder(**options):
        samebits.tap("x", np.ones(2, np.float32))
    before = options["path"].read_bytes()
    with samebits.Recorder(**{**options, "path": options["path"].parent / "b"}) as recorder:
        recorder.record("x", np.zeros(2, np.float32))
        with pytest.raises(ValueError, match="twice"):
            recorder.record("x", np.zeros(2, np.float32))
    with pytest.raises(TypeError), samebits.Recorder(**options):
        samebits.tap("x", None)
    assert options["path"].read_bytes() == before


def test_pieces(options: Options) -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((2, 4, 3)).astype(np.float32)  # [B, T, E]
    scores = rng.standard_normal((2, 2, 4, 4)).astype(np.float16)  # [B, H, T, S]
    whole = np.zeros_like(scores)
    with samebits.Recorder(**options) as recorder:
        for begin, end in ((0, 2), (2, 3), (3, 4)):
            recorder.append("rows", rows[:, begin:end], axis=1)
            recorder.append("flat", rows[0, begin:end], axis=0)
            first = max(0, begin - 1)  # a window: the pass of row 3 does not have keys 0 and 1
            piece = scores[:, :, begin:end, first:end]
            whole[:, :, begin:end, first:end] = piece
            recorder.append("scores", piece, axis=2, first_key=first)
            recorder.append("one", piece[0], axis=1, first_key=first)
        recorder.set_inputs([[1, 2, 3, 4], [5, 6, 7, 8]], [[0, 1, 2, 3]] * 2)
        recorder.annotate({"chunks": "[2, 1, 1]"})
    trace = samebits.load_trace(options["path"])
    assert trace.input_ids == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert trace.chunks == [2, 1, 1]
    np.testing.assert_array_equal(trace["rows"].float32(), rows)
    np.testing.assert_array_equal(trace["flat"].float32(), rows[0])
    np.testing.assert_array_equal(trace["scores"].bits, whole.view(np.uint16))
    np.testing.assert_array_equal(trace["one"].bits, whole[0].view(np.uint16))


def test_pieces_in_blocks(options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("samebits.spool._BLOCK", 5)
    test_pieces(options)


def test_pieces_that_do_not_fit(options: Options) -> None:
    ones = np.ones((2, 3), np.float32)
    with samebits.Recorder(**options) as recorder:
        recorder.append("x", ones, axis=0)
        recorder.record("whole", ones)
        recorder.append("keys", ones[:, :2], axis=0, first_key=0)
        for array, match in ((ones[:, :2], "can not follow"), (ones.astype(np.float16), "F16")):
            with pytest.raises(ValueError, match=match):
                recorder.append("x", array, axis=0)
        for name, axis, key in (
            ("x", 1, None), ("x", 0, 0), ("whole", 0, None), ("keys", 0, None),
        ):  # fmt: skip
            with pytest.raises(ValueError, match=f"{name}: recorded before|no axis"):
                recorder.append(name, ones, axis=axis, first_key=key)
        for axis, key in ((2, None), (-1, None), (1, 0)):
            with pytest.raises(ValueError, match="no axis"):
                recorder.append("y", ones, axis=axis, first_key=key)
        for key in (-1, 2):  # three keys of four tokens
            with pytest.raises(ValueError, match="keys: 3 keys from"):
                recorder.append("keys", ones, axis=0, first_key=key)
        with pytest.raises(ValueError, match="twice"):
            recorder.record("x", ones)
    assert samebits.load_trace(options["path"])["x"].shape == (2, 3)


def test_a_failed_write_leaves_nothing(options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(*_: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("samebits.spool.Spool.write", no_space)
    with pytest.raises(OSError, match="no space"), samebits.Recorder(**options):
        samebits.tap("x", np.ones(2, np.float32))
    assert list(options["path"].parent.iterdir()) == []


def test_recorders_nest(options: Options, tmp_path: Path) -> None:
    inner = {**options, "path": tmp_path / "inner.safetensors"}
    with samebits.Recorder(**options):
        samebits.tap("outer", np.ones(1, np.float32))
        with samebits.Recorder(**inner):
            samebits.tap("inner", np.ones(1, np.float32))
        samebits.tap("again", np.ones(1, np.float32))
    assert sorted(samebits.load_trace(options["path"])) == ["again", "outer"]
    assert sorted(samebits.load_trace(inner["path"])) == ["inner"]


@pytest.mark.parametrize("array", [np.ones(2), np.ones(2, np.int32), np.array(["text"])])
def test_other_dtypes_are_errors(options: Options, array: Any) -> None:
    with pytest.raises(TypeError, match="x: a trace holds"), samebits.Recorder(**options):
        samebits.tap("x", array)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"input_ids": []}, "input_ids"),
        ({"input_ids": [-1]}, "input_ids"),
        ({"input_ids": [2**31]}, "input_ids"),
        ({"dtype": "float64"}, "float64"),
        ({"positions": [0]}, r"positions of shape \(1,\) for input_ids of shape \(2,\)"),
        ({"input_ids": [[1, 2], [3]]}, "rows of"),
        ({"input_ids": [[1, 2], []]}, "input_ids"),
        ({"input_ids": [[1, 2], 3]}, "input_ids"),
    ],
)
def test_bad_metadata(options: Options, change: Options, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        samebits.Recorder(**{**options, **change})


def test_what_is_no_trace(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for data in (b"", b"\xff" * 16, b"\x02\0\0\0\0\0\0\0{}"):
        path.write_bytes(data)
        with pytest.raises(ValueError, match="file: "):
            samebits.load_trace(path)
