"""Every architecture x rotary embedding against transformers: float32 logits within a derived
bound, greedy tokens, and transformers' own traces judged healthy. The cases: architectures.py.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")

from architectures import (  # noqa: E402
    CASES,
    IDS,
    ORIGINAL,
    Case,
    capture,
    joined,
    load,
    share_of_bound,
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


# Small mistakes that a configuration can hold.
EDITS: list[tuple[Case, dict[str, Any]]] = [
    (Case("mistral", "yarn"), {"sliding_window": 14}),
    (Case("qwen3", "yarn"), {"sliding_window": 12}),
    (Case("llama", "llama3"), {"factor": 9.0}),
    (Case("qwen2", "yarn"), {"factor": 4.1}),
    (Case("mistral", "dynamic"), {"factor": 2.6}),
    (Case("qwen2", "linear"), {"factor": 4.01}),
    (Case("llama", "default"), {"rms_norm_eps": 1e-5}),
]


@pytest.mark.parametrize(
    ("case", "edit"), EDITS, ids=[f"{c.name}-{next(iter(e))}" for c, e in EDITS]
)
def test_the_bound_notices_small_mistakes(
    case: Case, edit: dict[str, Any], folders: dict[Case, Path], samebits_program: Any,
    tmp_path: Path,
) -> None:  # fmt: skip
    wrong = tmp_path / "wrong"
    shutil.copytree(folders[case], wrong)
    config = json.loads((wrong / "config.json").read_text())
    for key, value in edit.items():
        rope = config.get("rope_scaling") or config.get("rope_parameters") or {}
        (config if key in config else rope)[key] = value
    (wrong / "config.json").write_text(json.dumps(config))
    own = tmp_path / "own.safetensors"
    done = samebits_program("trace", wrong, "--ids", joined(IDS), "--dtype", "float32", "-o", own)
    assert done.returncode == 0, done.stderr
    assert share_of_bound(folders[case], own) > 1


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
