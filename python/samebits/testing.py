"""For a port's own tests: `samebits check` as an assertion.

    from samebits.testing import assert_port

    def test_port():
        assert_port("port.safetensors", "Qwen2.5-0.5B-Instruct")

Left out: judging itself, which the program `samebits` does (found by the argument `program`, the
environment's SAMEBITS, or PATH).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from samebits.trace import Recorder


class PortError(AssertionError):
    """The port is not what the checkpoint says; `report` is the object of `check --json`."""

    def __init__(self, message: str, report: dict[str, Any]) -> None:
        super().__init__(message)
        self.report = report


def find_program(program: str | os.PathLike[str] | None = None) -> str:
    """The path of `samebits`. Raises FileNotFoundError."""
    asked = program or os.environ.get("SAMEBITS")
    found = shutil.which(asked or "samebits")
    if found is None:
        raise FileNotFoundError(
            f"{asked or 'samebits'}: no such program; build it, and set SAMEBITS or PATH"
        )
    return found


def assert_port(
    trace: str | os.PathLike[str] | Mapping[str, Any],
    model: str | os.PathLike[str],
    *,
    profile: str | os.PathLike[str] | None = None,
    trace_map: str | os.PathLike[str] | None = None,
    allow: Iterable[str] = (),
    program: str | os.PathLike[str] | None = None,
    **metadata: Any,
) -> dict[str, Any]:
    """Judges a trace; returns the report, or raises PortError when there is a bug in it, or when
    something that had to be judged could not be.

    `trace`: a file, or arrays by name with the metadata of a Recorder (input_ids, dtype, ...) as
    further arguments. `allow`: causes that are known and accepted. Raises RuntimeError when the
    input can not be read.
    """
    if isinstance(trace, Mapping):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "port.safetensors"
            with Recorder(path, **metadata) as recorder:
                for name, array in trace.items():
                    recorder.record(name, array)
            return _check(path, model, profile, trace_map, allow, program)
    if metadata:
        raise TypeError(f"{', '.join(metadata)}: metadata goes with arrays, a file has its own")
    return _check(Path(trace), model, profile, trace_map, allow, program)


def _check(
    trace: Path,
    model: str | os.PathLike[str],
    profile: str | os.PathLike[str] | None,
    trace_map: str | os.PathLike[str] | None,
    allow: Iterable[str],
    program: str | os.PathLike[str] | None,
) -> dict[str, Any]:
    options = [option for flag, value in (("--profile", profile), ("--map", trace_map))
               if value is not None for option in (flag, os.fspath(value))]  # fmt: skip
    command = [find_program(program), "check", os.fspath(model), os.fspath(trace), *options]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=False)
    if not done.stdout:
        raise RuntimeError(done.stderr.strip() or f"{command[0]} ended with {done.returncode}")
    report: dict[str, Any] = json.loads(done.stdout)
    accepted = set(allow)
    causes = [finding["cause"] for finding in report["findings"]]
    if report["verdict"] == "unknown" or any(cause not in accepted for cause in causes):
        text = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        raise PortError(f"{trace}: {report['verdict']}\n{text}", report)
    return report
