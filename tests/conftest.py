"""The program under test and the checkpoints it is compared on."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
BINARY = Path(os.environ.get("SAMEBITS", ROOT / "build" / "release" / "samebits"))
NANO = ROOT / "models" / "nano"


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
