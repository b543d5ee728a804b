"""Every architecture x rotary embedding against transformers: float32 logits within a derived bound,
greedy tokens, and transformers' own traces judged healthy. The cases: architectures.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")

from architectures import (  # noqa: E402
    CASES, IDS, ORIGINAL, Case, capture, joined, load, share_of_bound,
)  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[Case, Path]:
    result = {}
    for case in CASES:
        result[case] = tmp_path_factory.mktemp(case.name)
        case.make(result[case])
    return result


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_float32_logits_are_within_the_bound(
    case: Case, folders: dict[Case, Path], samebits_program: Any, tmp_path: Path
) -> None:
    own = tmp_path / "own.safetensors"
    done = samebits_program(
        "trace", folders[case], "--ids", joined(IDS), "--dtype", "float32", "-o", own
    )
    assert done.returncode == 0, done.stderr
    share = share_of_bound(folders[case], own)
    assert share <= 1
    report = samebits_program.json("check", folders[case], own)
    assert report["findings"] == []
    assert {node["grade"] for node in report["nodes"]} <= {"identical", "rounding"}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_transformers_trace_is_judged_healthy(
    case: Case, dtype: str, folders: dict[Case, Path], samebits_program: Any, tmp_path: Path
) -> None:
    path = tmp_path / "torch.safetensors"
    capture(folders[case], dtype, path)
    report = samebits_program.json("check", folders[case], path)
    assert report["findings"] == []
    assert {node["grade"] for node in report["nodes"]} <= {"identical", "rounding"}
    nodes = {node["name"].rpartition(".")[2] for node in report["nodes"]}
    assert ("q_norm" in nodes) == (case.family == "qwen3")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_greedy_tokens(case: Case, folders: dict[Case, Path], samebits_program: Any) -> None:
    """Prompts that end before and behind the original length, and cross it while they go on."""
    for length in (ORIGINAL - 8, ORIGINAL + 8):
        model = load(folders[case], "float32")  # dynamic scaling remembers the longest text
        with torch.no_grad():
            expected = model.generate(
                torch.tensor([IDS[:length]]), max_new_tokens=16, do_sample=False, pad_token_id=0
            )[0, length:].tolist()
        report = samebits_program.json(
            "run", folders[case], "--ids", joined(IDS[:length]), "--dtype", "float32",
            "--max-tokens", 16,
        )  # fmt: skip
        assert report["ids"] == expected
