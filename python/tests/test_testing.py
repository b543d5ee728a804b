"""assert_port: passes what rounding explains, and says what is wrong otherwise."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from samebits import load_trace
from samebits.testing import PortError, assert_port, find_program

ROOT = Path(__file__).resolve().parents[2]
NANO = ROOT / "models" / "nano"
PROGRAM = Path(os.environ.get("SAMEBITS", ROOT / "build" / "release" / "samebits"))

pytestmark = pytest.mark.skipif(not PROGRAM.is_file(), reason=f"{PROGRAM} is not built")


def test_healthy_port_passes() -> None:
    report = assert_port(NANO / "demo" / "port_repaired.safetensors", NANO, program=PROGRAM)
    assert report["verdict"] == "rounding"


def test_buggy_port_says_why() -> None:
    trace = NANO / "demo" / "port_buggy.safetensors"
    with pytest.raises(PortError, match="weight-not-transposed") as caught:
        assert_port(trace, NANO, program=PROGRAM)
    assert caught.value.report["verdict"] == "bug"
    assert_port(trace, NANO, program=PROGRAM, allow=["weight-not-transposed"])


def test_arrays_with_metadata() -> None:
    trace = load_trace(NANO / "demo" / "port_repaired.safetensors")
    arrays = {name: trace[name].float32() for name in trace}
    report = assert_port(arrays, NANO, program=PROGRAM, input_ids=trace.input_ids,
                         dtype="bfloat16", framework="numpy")  # fmt: skip
    assert report["verdict"] == "rounding"
    arrays["model.norm"] = np.flip(arrays["model.norm"], 1).copy()
    with pytest.raises(PortError):
        assert_port(arrays, NANO, program=PROGRAM, input_ids=trace.input_ids,
                    dtype="bfloat16", framework="numpy")  # fmt: skip


def test_what_can_not_be_judged_is_no_pass(tmp_path: Path) -> None:
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"nothing")
    with pytest.raises(RuntimeError, match=r"broken\.safetensors"):
        assert_port(broken, NANO, program=PROGRAM)
    with pytest.raises(FileNotFoundError):
        find_program(tmp_path / "none")
    with pytest.raises(TypeError, match="metadata"):
        assert_port(NANO / "demo" / "port_repaired.safetensors", NANO, program=PROGRAM, dtype="x")
