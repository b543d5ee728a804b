"""A sample of the mutation suite (run.py): random checkpoints that the judge was not made with."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
pytest.importorskip("jax", reason="jax is not installed: the port that plants bugs needs it")

import run

from checker import binary

pytestmark = pytest.mark.skipif(
    not binary().is_file(), reason=f"{binary()} is not built: make build, or set SAMEBITS"
)
SEED = 103  # none that the tables of docs/diagnosis.md have


@pytest.fixture
def suite(tmp_path: Path) -> run.Suite:
    return run.Suite(tmp_path, tmp_path / "results.jsonl")


def _lines(suite: run.Suite) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in suite.out.read_text().splitlines()]
    return [line for line in lines if not line.get("no_effect")]


def test_bugs_of_the_jax_port(suite: run.Suite) -> None:
    suite.single(SEED)
    lines = _lines(suite)
    wrong = [f"{line['case']}: {line['causes']}" for line in lines if not line["right"]]
    assert len(lines) > 50
    assert len(wrong) <= len(lines) // 50, wrong  # 98 %, as the whole suite


def test_bugs_planted_in_transformers(suite: run.Suite) -> None:
    pytest.importorskip("transformers", reason="transformers is not installed")
    suite.torch(SEED)
    lines = _lines(suite)
    wrong = [f"{line['case']}: {line['causes']}" for line in lines if not line["right"]]
    assert len(lines) > 15
    assert wrong == []


def test_healthy_runs(suite: run.Suite) -> None:
    pytest.importorskip("transformers", reason="transformers is not installed")
    suite.healthy(SEED)
    wrong = [f"{line['case']}: {line['causes']}" for line in _lines(suite) if not line["right"]]
    assert wrong == []


def test_a_pair_of_bugs(suite: run.Suite) -> None:
    suite.pairs(SEED)
    assert [line["right"] for line in _lines(suite)] == [True]


def test_traces_are_compared_bit_by_bit(suite: run.Suite) -> None:
    """The oracle of the suite can see a difference, and sees none where there is none."""
    shape, _, _ = suite.checkpoint(SEED)
    plan = run.Plan.parse
    one = suite.port(SEED, "float32", plan(), "one")
    other = suite.port(SEED, "float32", plan(), "other")
    wrong = suite.port(SEED, "float32", plan("attention-scale:missing"), "wrong")
    assert run.first_difference(shape, one, other) is None
    assert run.first_difference(shape, one, wrong) == "model.layers.0.self_attn.scores"
