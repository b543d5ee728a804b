"""The program under test and the checkpoints it is compared on."""

from __future__ import annotations

import json
import os
import subprocess
import zlib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
BINARY = Path(os.environ.get("SAMEBITS", ROOT / "build" / "release" / "samebits"))
NANO = ROOT / "models" / "nano"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """SAMEBITS_PLANTED_PART=K/N: of the planted cases the K-th of N parts, by the hash of the name;
    the others are counted as deselected."""
    part = os.environ.get("SAMEBITS_PLANTED_PART")
    if not part:
        return
    number, parts = map(int, part.split("/"))
    if not 1 <= number <= parts:
        raise pytest.UsageError(f"SAMEBITS_PLANTED_PART={part}: expected K/N with 1 <= K <= N")
    left_out = [
        item
        for item in items
        if "/planted/test_planted.py::test_case[" in item.nodeid
        and zlib.crc32(item.nodeid.encode()) % parts != number - 1
    ]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


class Samebits:
    """Runs the binary; a call that has not ended after ten minutes is an error."""

    binary = BINARY

    def __call__(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [BINARY, *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
            stdin=subprocess.DEVNULL,
        )

    def json(self, *arguments: object, exit_code: int = 0) -> Any:
        done = self(*arguments, "--json")
        assert done.returncode == exit_code, done.stderr or done.stdout[:2000]
        return json.loads(done.stdout)


@pytest.fixture(scope="session")
def samebits_program() -> Samebits:
    if not BINARY.is_file():
        pytest.skip(f"{BINARY} is not built: make build, or set SAMEBITS")
    return Samebits()


@pytest.fixture(scope="session")
def nano() -> Path:
    return NANO


@pytest.fixture(scope="session")
def smollm2() -> Path:
    folder = os.environ.get("SMOLLM2")
    if not folder or not Path(folder, "config.json").is_file():
        pytest.skip("SMOLLM2 names no folder with SmolLM2: tools/get_smollm2.py makes one")
    return Path(folder)
