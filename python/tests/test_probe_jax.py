"""The probe of jax's products: what it calls proven is, and a wrong rule is not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("jax", reason="jax is not installed")

from samebits import known_rules, probe_jax
from samebits.__main__ import main
from samebits.profile import digest, unproven
from samebits.replay import cancelling, differing
from samebits.rules import SumRule, evaluate_rule, float32

NANO = Path(__file__).resolve().parents[2] / "models" / "nano"


def _profile(tmp_path: Path, dtype: str) -> dict[str, object]:
    out = tmp_path / "jax.profile.json"
    options = ["--dtype", dtype, "--prompts", "1,8", "--steps", "1", "-o", str(out)]
    code = main(["probe", "--framework", "jax", "--model", str(NANO), *options])
    profile: dict[str, object] = json.loads(out.read_text())
    assert code == (1 if unproven(profile) else 0)
    return profile


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_profile_of_a_checkpoint(dtype: str, tmp_path: Path) -> None:
    profile = _profile(tmp_path, dtype)
    assert profile["framework"] == "jax"
    assert profile["digest"] == digest(profile)
    linear = profile["linear"]
    assert isinstance(linear, list)
    shapes = {(e["in_features"], e["out_features"], e["layout"]) for e in linear}
    assert {(224, 608, "in_out"), (224, 608, "out_in"), (608, 224, "in_out")} <= shapes
    assert (224, 496, "in_out") in shapes  # the tied lm_head
    assert all(e["proof"]["compared"] > 0 for e in linear)


@pytest.mark.parametrize("layout", probe_jax.LAYOUTS)
def test_what_is_proven_has_the_bits_of_other_data(layout: str, tmp_path: Path) -> None:
    profile = _profile(tmp_path, "float32")
    rules, linear = profile["rules"], profile["linear"]
    assert isinstance(rules, list)
    assert isinstance(linear, list)
    product = probe_jax._kernels("float32")[layout]
    proven = 0
    for entry in linear:
        if entry["layout"] != layout or entry["proof"]["differing"]:
            continue
        rule = SumRule.from_json(rules[entry["rule"]])
        generator = np.random.default_rng(99)
        rows, outs, size = entry["rows"][0], entry["out_features"], entry["in_features"]
        x, w = cancelling(generator, rows, outs, size, "float32", exact=False)
        assert differing(evaluate_rule(rule, x, w, None, float32), product(x, w)) == 0
        # Another order has other bits on the same data.
        other = evaluate_rule(known_rules.PARTIAL_4_RULE, x, w, None, float32)
        assert differing(other, product(x, w)) > 0
        proven += 1
    print(layout, proven, "of", len(linear))
    if proven == 0:
        pytest.skip(f"no entry of layout {layout} is proven on this machine")


def test_options_of_torch_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--model", str(NANO), "--batch", "3", "-o", str(tmp_path / "x.json")]
    assert main(["probe", "--framework", "jax", *options]) == 2
    assert "--batch goes with --framework torch alone" in capsys.readouterr().err
