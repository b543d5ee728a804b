"""The probe of matrix products against the torch that is installed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from samebits import known_rules, probe_gemm  # noqa: E402
from samebits.orders import TreeOrder  # noqa: E402
from samebits.profile import Entry, merge  # noqa: E402
from samebits.rules import SumRule  # noqa: E402
from samebits.shapes import Block, LinearShape, Packing, Workload  # noqa: E402

# Where all of known_rules.py has been seen (docs/numerics/torch-linear.md). Elsewhere an entry may
# be unproven, and says so.
KNOWN = torch.__version__.startswith("2.13.") and "AMD" in Path("/proc/cpuinfo").read_text()


def _load(attention: str, batch: int = 1, linears: tuple[LinearShape, ...] = ()) -> Workload:
    return Workload(
        linears=linears,
        head_dim=32,
        heads=4,
        kv_heads=2,
        batch=batch,
        prompts=(1, 3, 5, 12, 40),
        steps=2,
        attention=attention,
    )


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> int:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def _probe(load: Workload, dtype: str) -> list[Entry]:
    done = []
    entries = probe_gemm.probe_products(load, dtype, done.append)
    assert sum(done) == pytest.approx(probe_gemm.work(load))
    return entries


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_every_product_of_a_model(dtype: str, threads: int) -> None:
    linears = (LinearShape(96, 70, True), LinearShape(210, 64, False))
    for load in (_load("eager", linears=linears), _load("sdpa", batch=3)):
        entries = _probe(load, dtype)
        unproven = [entry for entry in entries if not entry.proof.proven]
        print(dtype, threads, Counter(entry.section for entry in entries), "unproven:", unproven)
        if KNOWN:
            assert not unproven
        assert all(entry.proof.compared > 0 for entry in entries)
        covered = {(entry.section, entry.rows, entry.keys) for entry in entries}
        if load.attention == "eager":
            assert {("linear", rows, 0) for rows in load.linear_rows()} <= covered
            assert {("context", rows, rows + past) for rows, past in load.passes()} <= covered
        else:
            assert {("sdpa_context", one.rows, one.keys) for one in load.blocks()} <= covered


def test_blocks_of_the_fused_kernel() -> None:
    load = Workload((), 64, 14, 2, 1, (40,), 2, "sdpa")
    # The last block of keys is computed whole, though not all of them are seen.
    assert load.blocks() == [Block(1, 41), Block(1, 42), Block(8, 40), Block(32, 40)]
    padded = Workload((), 64, 14, 2, 2, (40,), 1, "sdpa")
    # No block is causal then, and a decode step packs the 7 query heads of a kv head.
    assert padded.blocks() == [Block(1, 41), Block(7, 41), Block(8, 40), Block(32, 40)]
    long = Workload((), 64, 14, 2, 1, (600,), 0, "sdpa")
    assert Block(64, 512) in long.blocks()
    assert Block(24, 88) in long.blocks()  # the last queries, the keys after 512
    # Packed are the calls that are long enough in both directions.
    assert Block(64, 512, packed=True) in long.blocks(Packing(600, 600))
    assert not any(one.packed for one in long.blocks(Packing(601, 64)))
    assert not any(one.packed for one in load.blocks(Packing(40, 41)))


def test_unknown_order_is_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_rules, "product_rules", lambda *_: [known_rules.PLAIN_RULE])
    load = _load("sdpa", linears=(LinearShape(16, 12, False),))
    entries = [entry for entry in _probe(load, "bfloat16") if entry.section == "linear"]
    assert all(entry.proof.proven for entry in entries)
    kinds = {type(entry.proof.rule.classes[0].order) for entry in entries}
    assert kinds == {TreeOrder}


def test_unknown_order_that_cannot_be_found_is_unproven(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(*_: object) -> list[SumRule]:
        return []

    monkeypatch.setattr(known_rules, "product_rules", lambda *_: [known_rules.PLAIN_RULE])
    monkeypatch.setattr(known_rules, "block_rules", nothing)
    monkeypatch.setattr(probe_gemm, "search_tree", nothing)
    load = _load("sdpa", linears=(LinearShape(128, 12, False),))
    entries = [entry for entry in _probe(load, "bfloat16") if entry.section == "linear"]
    assert not any(entry.proof.proven for entry in entries)
    for item in merge(entries)["linear"]:
        assert item["proof"]["differing"] > 0
