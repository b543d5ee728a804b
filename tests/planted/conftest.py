"""Fixtures of the planted-bug tests."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
pytest.importorskip("jax", reason="jax is not installed: the port that plants bugs needs it")

import cases


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints")
    for shape in cases.SHAPES:
        cases.write_checkpoint(shape, folder / shape)
    return folder
