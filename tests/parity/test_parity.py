"""0 differing bits against transformers as it is installed; table.py has the whole comparison.

Where the probe could not prove an entry (another CPU, another torch), every node that hangs on
proven entries alone must still have its bits, replayed from the reference's own inputs; then the
case is skipped with the list of what is not proven. A difference under a proven profile fails.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")

import parity

ROOT = Path(__file__).resolve().parents[2]
BOTH = ("eager", "sdpa")


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory, nano: Path) -> dict[str, Path]:
    result = {"nano": nano}
    for name in ("qwen2-256", "qwen2-896-tied", "qwen2-896-head128"):
        result[name] = tmp_path_factory.mktemp(name)
        parity.make_model(name, result[name])
    return result


def judge(counts: parity.Counts) -> None:
    compared, differing = counts.total()
    assert compared > 0
    if counts.not_proven:
        lines = "; ".join(sorted(counts.not_proven)[:5])
        pytest.skip(f"{differing} of {compared} differ, but not proven on this machine: {lines}")
    assert differing == 0, dict(counts.differing)


def bench(program: Any, folder: Path, dtype: str, threads: int, work: Path) -> parity.Bench:
    return parity.Bench(program.binary, folder, dtype, threads, work)


@pytest.mark.parametrize(
    ("name", "dtype", "threads"),
    [
        ("nano", "float32", 1),
        ("nano", "bfloat16", 2),
        ("nano", "float16", 1),
        ("qwen2-256", "float32", 2),
        ("qwen2-256", "bfloat16", 1),
    ],
)
def test_traces(
    name: str, dtype: str, threads: int, folders: dict[str, Path], samebits_program: Any,
    tmp_path: Path,
) -> None:  # fmt: skip
    counts = parity.Counts()
    one = bench(samebits_program, folders[name], dtype, threads, tmp_path)
    parity.traces(one, counts, [1, 2, 3, 5, 9, 40, 70], 4, BOTH)
    judge(counts)


@pytest.mark.parametrize(
    ("name", "dtype"), [("qwen2-896-tied", "float32"), ("qwen2-896-head128", "bfloat16")]
)
def test_wider_models(
    name: str, dtype: str, folders: dict[str, Path], samebits_program: Any, tmp_path: Path
) -> None:
    counts = parity.Counts()
    one = bench(samebits_program, folders[name], dtype, 2, tmp_path)
    parity.traces(one, counts, [1, 5, 40, 200], 2, BOTH)
    judge(counts)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_padded_batch(
    dtype: str, folders: dict[str, Path], samebits_program: Any, tmp_path: Path
) -> None:
    counts = parity.Counts()
    one = bench(samebits_program, folders["qwen2-896-tied"], dtype, 2, tmp_path)
    parity.padded_batch(one, counts, [9, 5, 3], 3, BOTH)
    judge(counts)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_generation(
    dtype: str, folders: dict[str, Path], samebits_program: Any, tmp_path: Path
) -> None:
    one = bench(samebits_program, folders["qwen2-256"], dtype, 2, tmp_path)
    seeds = range(20) if dtype == "bfloat16" else range(3)
    other = [seed for seed, same in parity.generations(one, 12, 64, seeds) if not same]
    if missing := parity.unproven(one.found):
        pytest.skip(f"not proven on this machine: {'; '.join(missing[:5])}")
    assert other == []


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_smollm2(dtype: str, smollm2: Path, samebits_program: Any, tmp_path: Path) -> None:
    counts = parity.Counts()
    one = bench(samebits_program, smollm2, dtype, 2, tmp_path)
    parity.traces(one, counts, [1, 40], 2, BOTH)
    judge(counts)


@pytest.mark.skipif(
    os.environ.get("SAMEBITS_SEVEN_B") != "1", reason="3 GB on disk: SAMEBITS_SEVEN_B=1 runs it"
)
def test_a_layer_of_7b(samebits_program: Any, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    parity.make_model("qwen2.5-7b-layer", folder)
    counts = parity.Counts()
    one = bench(samebits_program, folder, "bfloat16", 2, tmp_path)
    parity.traces(one, counts, [1, 9, 40], 2, BOTH)
    print(counts.total())
    judge(counts)


def test_a_replay_without_the_profile_differs(
    folders: dict[str, Path], samebits_program: Any, tmp_path: Path
) -> None:
    """The comparison can fail: `canonical` does not give torch's bits."""
    one = bench(samebits_program, folders["qwen2-256"], "bfloat16", 1, tmp_path)
    profile = one.profile(parity.Wanted([9], 0, 1, ["eager"]))
    one.trace(profile, [parity.prompt(9, one.vocab)], "eager", 0)
    mine, reference = tmp_path / "canonical.safetensors", tmp_path / "ref.safetensors"
    one.run("trace", one.folder, "--like", reference, "-o", mine)
    one.run("diff", reference, mine, codes=(1,))
