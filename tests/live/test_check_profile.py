"""`samebits check --profile`: transformers' own traces have the framework's bits in every node, and
an eps whose effect stays inside every interval is found by its bits."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")

import samebits
from samebits.probe import Wanted, probe
from samebits.profile import unproven

sys.path.append(str(Path(__file__).resolve().parents[1] / "parity"))
import parity

PROMPT, STEPS = 24, 3


def _check(samebits_program: Any, folder: Path, trace: Path, profile: Path | None) -> Any:
    options = [] if profile is None else ["--profile", profile]
    done = samebits_program("check", folder, trace, *options, "--json")
    assert done.returncode in (0, 1), done.stderr or done.stdout[:2000]
    return json.loads(done.stdout)


def _capture(model: Any, path: Path, attention: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ids = parity.prompt(PROMPT, model.config.vocab_size)
        samebits.capture(model, ids, path, steps=STEPS, attention=attention)


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def profiled(request: Any, nano: Path, tmp_path_factory: Any) -> tuple[Any, Path]:
    model = parity.load(nano, request.param)
    found = probe(model, Wanted([PROMPT], STEPS))
    if missing := unproven(found):
        pytest.skip(f"not proven on this machine: {'; '.join(missing[:5])}")
    path = tmp_path_factory.mktemp("profile") / "torch.profile.json"
    path.write_text(json.dumps(found))
    return model, path


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_every_node_has_the_frameworks_bits(
    attention: str, profiled: tuple[Any, Path], nano: Path, samebits_program: Any, tmp_path: Path
) -> None:
    model, profile = profiled
    trace = tmp_path / "ref.safetensors"
    _capture(model, trace, attention)
    result = _check(samebits_program, nano, trace, profile)
    assert result["verdict"] == "identical"
    assert result["findings"] == []
    replayed = [node for node in result["nodes"] if "inside" not in node]
    assert len(replayed) == len(result["nodes"]) - (8 if attention == "sdpa" else 0)
    assert all(node["replay_differing"] == 0 for node in replayed)
    assert all(node["identical_to"] == "replay" for node in result["nodes"])


def test_an_eps_that_no_interval_shows(
    profiled: tuple[Any, Path], nano: Path, samebits_program: Any, tmp_path: Path
) -> None:
    model, profile = profiled
    if str(model.dtype) != "torch.float32":
        pytest.skip("in 16 bits this eps gives the same bits")
    norms = [m for m in model.modules() if hasattr(m, "variance_epsilon")]
    trace = tmp_path / "port.safetensors"
    try:
        for norm in norms:
            norm.variance_epsilon = 9.9e-7
        _capture(model, trace, "eager")
    finally:
        for norm in norms:
            norm.variance_epsilon = 1e-6
    assert _check(samebits_program, nano, trace, None)["verdict"] == "rounding"
    result = _check(samebits_program, nano, trace, profile)
    assert result["verdict"] == "bug"
    assert [finding["cause"] for finding in result["findings"]] == ["norm-eps"]
    assert result["findings"][0]["evidence"]["value"] == pytest.approx(9.9e-7, rel=1e-3)
