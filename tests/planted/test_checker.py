"""checker.py must not pass what is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from cases import Case
from checker import Report, complaints, healthy_complaints

CASE = Case("A", "float32", "rope-theta:10000")
FINDING = {"cause": "rope-theta", "node": "model.rotary.cos"}
GOOD = {
    "verdict": "bug",
    "first_divergence": "model.rotary.cos",
    "findings": [FINDING, {**FINDING, "node": "model.rotary.sin"}],
    "nodes": [{"name": "model.rotary.cos", "grade": "bug"}],
}
HEALTHY = {
    "verdict": "rounding",
    "first_divergence": None,
    "findings": [],
    "nodes": [{"name": "lm_head", "grade": "rounding"}],
}


def test_right_reports_pass() -> None:
    assert complaints(CASE, Report(1, GOOD, "")) == []
    assert complaints(Case("A", "float32"), Report(0, HEALTHY, "")) == []
    assert healthy_complaints(Report(0, HEALTHY, ""), complete=True) == []


@pytest.mark.parametrize(
    ("exit_code", "change"),
    [
        (0, {}),
        (2, {}),
        (1, {"verdict": "unknown"}),
        (1, {"findings": []}),
        (1, {"findings": [FINDING, {**FINDING, "cause": "norm-eps"}]}),
        (1, {"findings": [{**FINDING, "cause": "norm-eps"}]}),
        (1, {"first_divergence": None}),
        (1, {"first_divergence": "model.rotary.sin"}),
    ],
)
def test_wrong_reports_of_bugs_fail(exit_code: int, change: dict[str, Any]) -> None:
    assert complaints(CASE, Report(exit_code, {**GOOD, **change}, ""))


@pytest.mark.parametrize(
    ("exit_code", "change"),
    [
        (1, {}),
        (2, {}),
        (0, {"verdict": "bug"}),
        (0, {"findings": [FINDING]}),
        (0, {"nodes": []}),
        (0, {"nodes": [{"name": "lm_head", "grade": "bug"}]}),
        (0, {"nodes": [{"name": "lm_head", "grade": "unknown"}]}),
    ],
)
def test_wrong_reports_of_healthy_runs_fail(exit_code: int, change: dict[str, Any]) -> None:
    assert healthy_complaints(Report(exit_code, {**HEALTHY, **change}, ""), complete=True)
