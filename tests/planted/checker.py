"""Runs `samebits check` and says what it should have said."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cases import ROOT, Case

EXIT_NO_BUG, EXIT_BUG = 0, 1


def binary() -> Path:
    return Path(os.environ.get("SAMEBITS", ROOT / "build" / "release" / "samebits"))


@dataclass(frozen=True)
class Report:
    exit_code: int
    json: dict[str, Any]
    stderr: str

    @property
    def causes(self) -> list[str]:
        return sorted({finding["cause"] for finding in self.json["findings"]})

    def grades(self, grade: str) -> list[str]:
        return [node["name"] for node in self.json["nodes"] if node["grade"] == grade]


def check(model: Path, trace: Path) -> Report:
    done = subprocess.run(
        [binary(), "check", model, trace, "--json"],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    try:
        report = json.loads(done.stdout)
    except ValueError:
        raise AssertionError(
            f"check gave no JSON, exit {done.returncode}: {done.stdout[:200]!r} {done.stderr[:500]}"
        ) from None
    return Report(done.returncode, report, done.stderr)


def complaints(case: Case, report: Report) -> list[str]:
    """How the report differs from what was planted; empty when it is right."""
    if case.cause is None:
        return healthy_complaints(report)
    found = []
    if report.exit_code != EXIT_BUG:
        found.append(f"exit code {report.exit_code}, expected {EXIT_BUG}")
    if report.json["verdict"] != "bug":
        found.append(f"verdict {report.json['verdict']!r}, expected 'bug'")
    if report.causes != [case.cause]:
        found.append(f"causes {report.causes}, expected [{case.cause!r}]")
    if case.first_node and report.json["first_divergence"] != case.first_node:
        found.append(f"first at {report.json['first_divergence']}, expected {case.first_node}")
    return found


def healthy_complaints(report: Report, complete: bool = False) -> list[str]:
    """`complete`: nothing may be graded unknown either."""
    found = []
    if report.exit_code != EXIT_NO_BUG:
        found.append(f"exit code {report.exit_code}, expected {EXIT_NO_BUG}")
    if report.json["verdict"] == "bug":
        found.append("verdict 'bug' on a healthy trace")
    if report.json["findings"]:
        found.append(f"findings on a healthy trace: {report.causes}")
    if not report.json["nodes"]:
        found.append("no node was judged")
    if bad := report.grades("bug"):
        found.append(f"nodes graded bug: {bad}")
    if complete and (unknown := report.grades("unknown")):
        found.append(f"nodes graded unknown: {unknown}")
    return found
