"""Orders of summation: samebits' interpreter and fast kernels against the numpy one of the probe.

Every known rule and a literal tree, on cancelling data, in every dtype, at every alignment.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from samebits import known_rules
from samebits.orders import ChainOrder, TreeOrder
from samebits.replay import cancelling
from samebits.rules import ROUNDINGS, Alignment, OrderClass, SumRule, evaluate_rule

Run = Callable[[list[dict[str, Any]]], list[dict[str, Any]]]


@pytest.fixture(scope="session")
def replay_products(samebits_program: Any) -> Run:
    path = Path(samebits_program.binary).parent / "tests" / "orders" / "replay_products"
    if not path.is_file():
        pytest.skip(f"{path} is not built")

    def run(cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
        done = subprocess.run(
            [path], input=json.dumps(cases), capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def _rules(dtype: str) -> list[SumRule]:
    rules: list[SumRule] = []
    for rows in (1, 5):
        rules += known_rules.product_rules(dtype, rows, 2, OUTS, SIZE)
        rules += known_rules.context_rules(dtype, rows, 2)
        rules += known_rules.sdpa_context_rules(dtype, rows)
    rules += known_rules.product_rules(dtype, ROWS, 2, 1, SIZE)  # rules by row
    rules += known_rules.sdpa_score_rules(dtype, 6, 11)
    # A joined pair of halves, each a chain.
    postfix: list[int] = []
    for begin, end in ((0, SIZE // 2), (SIZE // 2, SIZE)):
        postfix.append(begin)
        for element in range(begin + 1, end):
            postfix += [element, -1]
    for fused in (True, False):
        tree = TreeOrder((*postfix, -1), fused)
        rules.append(SumRule((OrderClass(tree),), "last"))
    for halve in ("down", "up", "rest"):
        chain = ChainOrder(block=7, halve_below=50 if halve != "rest" else 14, halve=halve)
        rules.append(SumRule((OrderClass(chain),), "rounded"))
    return list(dict.fromkeys(rules))


ROWS, SIZE, OUTS = 6, 45, 11


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("c", ["nothing", "bias", "old output"])
def test_numpy_and_samebits_agree(replay_products: Run, dtype: str, c: str) -> None:
    generator = np.random.default_rng(5)
    cases, expected = [], []
    for number, rule in enumerate(_rules(dtype)):
        for exact in (True, False):
            x, w = cancelling(generator, ROWS, OUTS, SIZE, dtype, exact)
            shape = OUTS if c == "bias" else (ROWS, OUTS)
            addend = ROUNDINGS[dtype](generator.standard_normal(shape, np.float32) * 1e-3)
            addend = addend.astype(np.float32)
            y_dtype = "float32" if c == "old output" else dtype
            position = [int(p) for p in generator.integers(0, 4, 3)]

            def bits(values: np.ndarray) -> list[int]:
                return values.view(np.uint32).ravel().tolist()

            cases.append({
                "rule": rule.to_json(), "dtype": dtype, "y_dtype": y_dtype,
                "rows": ROWS, "size": SIZE, "outs": OUTS, "x": bits(x), "w": bits(w),
                "bias": bits(addend) if c == "bias" else None,
                "old": bits(addend) if c == "old output" else None,
                "position": position,
            })  # fmt: skip
            added = None if c == "nothing" else addend
            y = evaluate_rule(rule, x, w, added, ROUNDINGS[y_dtype], Alignment(*position))
            expected.append((number, bits(np.ascontiguousarray(y))))
    results = replay_products(cases)
    assert len(results) == len(expected)
    seen = set()
    for (number, y), result in zip(expected, results, strict=True):
        assert result["interpreter"] == y, _rules(dtype)[number]
        assert result["fast"] == y, _rules(dtype)[number]
        seen.add(tuple(y))
    # The data must tell orders apart: hardly two of them give the same outputs.
    assert len(seen) == len(expected)
