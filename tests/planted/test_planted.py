"""`samebits check` on traces of the port: the planted cause and its first node and nothing else,
and silence on healthy ones. The binary is build/release/samebits, or SAMEBITS.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from cases import TOKENS_EPS_BF16, Case, chain_cases, short_cases
from checker import binary, check, complaints, healthy_complaints
from faults import BOTH
from make_checkpoints import SHAPES, prompt

pytestmark = pytest.mark.skipif(
    not binary().is_file(), reason=f"{binary()} is not built: make build, or set SAMEBITS"
)


@pytest.fixture
def traces(tmp_path: Path) -> Iterator[Path]:
    """A folder that is emptied at once: the traces of all cases together are a gigabyte."""
    yield tmp_path
    for file in tmp_path.iterdir():
        file.unlink()


@pytest.mark.parametrize("case", short_cases(), ids=lambda case: case.name)
def test_case(case: Case, checkpoints: Path, traces: Path) -> None:
    report = check(checkpoints / case.shape, case.record(checkpoints, traces))
    assert complaints(case, report) == []


@pytest.mark.parametrize("shape", ["A"])
def test_every_subset_of_chains(shape: str, checkpoints: Path, traces: Path) -> None:
    wrong = {}
    for case in chain_cases(shape, "bfloat16", every_subset=True):
        trace = case.record(checkpoints, traces)
        if found := complaints(case, check(checkpoints / shape, trace)):
            wrong[case.name] = found
        trace.unlink()
    assert wrong == {}


@pytest.mark.parametrize(("shape", "dtype"), list(itertools.product(SHAPES, BOTH)))
def test_transformers_itself(shape: str, dtype: str, checkpoints: Path, traces: Path) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    import samebits

    model = transformers.AutoModelForCausalLM.from_pretrained(
        checkpoints / shape, dtype=getattr(torch, dtype), attn_implementation="eager"
    )
    trace = traces / "torch.safetensors"
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # 64 tokens: nothing to warn of
        samebits.capture(model, prompt(shape, TOKENS_EPS_BF16), trace)
    assert healthy_complaints(check(checkpoints / shape, trace), complete=True) == []


def test_two_bugs_at_once(checkpoints: Path, traces: Path) -> None:
    """Independent bugs are found in the same run, each with its cause."""
    for dtype in BOTH:
        bugs = "weight-not-transposed:o_proj,attention-scale:missing"
        case = Case("A", dtype, bugs)
        report = check(checkpoints / "A", case.record(checkpoints, traces))
        assert report.exit_code == 1
        assert report.causes == ["attention-scale", "weight-not-transposed"]
        assert report.json["first_divergence"] == "model.layers.0.self_attn.scores"
