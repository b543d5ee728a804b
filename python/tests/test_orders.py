"""Orders and rules: numpy's interpreter against sums written out, proofs, profile entries."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from samebits import known_rules
from samebits.orders import (
    ChainOrder,
    LaneOrder,
    LaneStage,
    Peel,
    TreeOrder,
    evaluate,
    fma,
    order_from_json,
)
from samebits.profile import Entry, digest, merge, runs
from samebits.replay import Proof, Replay, cancelling, differing, prove, windows
from samebits.rules import ROUNDINGS, Alignment, OrderClass, SumRule, evaluate_rule, regions
from samebits.tree_search import search_tree


def _exact_fma(x: float, w: float, c: float) -> np.float32:
    """Rounded once, by the definition: of two neighbours the nearer, the even one of a tie."""
    value = Fraction(x) * Fraction(w) + Fraction(c)
    if value == 0:
        return np.float32(x * w + c)  # signs of zeros are those of IEEE 754
    near = np.float32(float(value))
    around = [near, np.nextafter(near, np.float32(np.inf)), np.nextafter(near, np.float32(-np.inf))]

    def distance(candidate: np.float32) -> tuple[Fraction, int]:
        return abs(Fraction(float(candidate)) - value), int(candidate.view(np.uint32)) & 1

    best = min((one for one in around if np.isfinite(one)), key=distance)
    return np.float32(math.copysign(float(best), value)) if best == 0 else best


@pytest.mark.parametrize("scale", [1.0, 2.0**-70, 2.0**-63])
def test_fma_rounds_once(scale: float) -> None:
    generator = np.random.default_rng(1)
    x = generator.standard_normal(2000, np.float32) * np.float32(scale)
    w = generator.standard_normal(2000, np.float32) * np.float32(scale)
    # Near -x w, and near half steps of it: where rounding twice would show.
    c = (-x * w * (1 + generator.integers(-4, 5, 2000) * np.float32(2.0**-24))).astype(np.float32)
    c[::3] = np.ldexp(c[::3], 24)
    expected = np.array([_exact_fma(*map(float, one)) for one in zip(x, w, c, strict=True)])
    assert differing(fma(x, w, c), expected.astype(np.float32)) == 0


def test_flush() -> None:
    one = np.float32([1.0])
    below = np.float32([2.0**-127])
    zero = np.float32([0.0])
    assert fma(one, below, zero, flush=True)[0] == 0
    assert fma(one, below, zero)[0] == 2.0**-127
    order = ChainOrder(flush=True)
    assert evaluate(order, np.float32([[2.0**-130]]), np.float32([[8.0]]))[0, 0] == 0
    assert (
        evaluate(order, np.float32([[2.0**-130]]), np.float32([[8.0]]), below[None])[0, 0] == below
    )


def test_chain_of_blocks_and_groups() -> None:
    generator = np.random.default_rng(2)
    x, w = cancelling(generator, 1, 1, 6, "float32", exact=False)
    p = (x * w)[0]
    fours = ChainOrder(group=(((0, 2), (1, 3)),), tail_descending=True, fused=False)
    expected = (np.float32(0) + ((p[0] + p[2]) + (p[1] + p[3]))) + p[5] + p[4]
    assert evaluate(fours, x, w)[0, 0] == expected
    blocks = ChainOrder(block=4, fused=False)
    first = ((p[0] + p[1]) + p[2]) + p[3]
    assert evaluate(blocks, x, w, np.float32([[0.25]]))[0, 0] == (0.25 + first) + (p[4] + p[5])
    assert list(ChainOrder(192, 384).block_ends(383)) == [191, 382, 383]
    assert list(ChainOrder(192, 384).block_ends(384)) == [192, 384]
    assert list(ChainOrder(192, 384).block_ends(192)) == [192]
    assert list(ChainOrder(4, 8, "up").block_ends(7)) == [4, 7]
    assert list(ChainOrder(4, 8, "up").block_ends(13)) == [4, 8, 12, 13]
    assert list(ChainOrder(4, 8, "rest").block_ends(13)) == [4, 8, 11, 13]
    assert list(ChainOrder().block_ends(9)) == [9]


def test_lanes() -> None:
    generator = np.random.default_rng(3)
    x, w = cancelling(generator, 1, 1, 12, "float32", exact=False)
    p = (x * w)[0]
    order = LaneOrder((LaneStage(4, 1, 1),), peel=Peel(2), fused=False, tail_fused=False)
    lanes = [((p[0] + p[1]) + p[2]) + p[6], p[3] + p[7], p[4] + p[8], p[5] + p[9]]
    expected = (((lanes[0] + lanes[2]) + (lanes[1] + lanes[3])) + p[10]) + p[11]
    assert evaluate(order, x, w, peel=2)[0, 0] == expected


def test_lanes_that_go_on() -> None:
    generator = np.random.default_rng(9)
    x, w = cancelling(generator, 1, 1, 12, "float32", exact=False)
    p = (x * w)[0]
    rounded = {"peel": Peel(1), "tail": "lanes", "fused": False, "tail_fused": False}
    stages = (LaneStage(2, 2, 2), LaneStage(2, 1, 1, start="lanes"))
    order = LaneOrder(stages, peel_last=True, **rounded)
    lane_0 = (((p[1] + p[5]) + (p[3] + p[7])) + p[9]) + p[11]
    lane_1 = ((p[2] + p[6]) + (p[4] + p[8])) + p[10]
    assert evaluate(order, x, w, peel=1)[0, 0] == p[0] + (lane_0 + lane_1)
    order = LaneOrder((LaneStage(2, 2, 1), LaneStage(4, 1, 1, start="total")), **rounded)
    total = ((p[0] + p[1]) + p[3]) + (p[2] + p[4])
    joined = ((total + p[5]) + p[7]) + (p[6] + p[8])
    seven = evaluate(order, x[:, :7].copy(), w[:, :7].copy(), peel=1)[0, 0]
    assert seven == (total + p[5]) + p[6]
    assert joined != seven
    quarters = LaneOrder((LaneStage(12, 1, 1, quarter_lanes=True),), fused=False)
    q = [(p[i] + p[i + 4]) + p[i + 8] for i in range(4)]
    assert evaluate(quarters, x, w)[0, 0] == (q[0] + q[1]) + (q[2] + q[3])


def test_pairs_of_a_fused_chain() -> None:
    generator = np.random.default_rng(10)
    x, w = cancelling(generator, 1, 1, 4, "float32", exact=False)

    def join(total: np.float32, k: int) -> np.float32:
        return fma(x[:, k], w[:, k], np.float32([total]))[0]

    p = (x * w)[0]
    order = ChainOrder(group=(((0, 2), (3, 1)),), start_in_chain=True)
    expected = np.float32(0.5) + (join(p[0], 2) + join(p[3], 1))
    assert evaluate(order, x, w, np.float32([[0.5]]))[0, 0] == expected


def _rules() -> list[SumRule]:
    found: list[SumRule] = []
    for dtype in ROUNDINGS:
        for rows in (1, 3, 5):
            for outs in (1, 3, 40):
                found += known_rules.product_rules(dtype, rows, 2, outs, 100)
            found += known_rules.context_rules(dtype, rows, 2)
            found += known_rules.sdpa_context_rules(dtype, rows)
        found += known_rules.sdpa_score_rules(dtype, 6, 11)
    return list(dict.fromkeys(found))


def test_json_and_back() -> None:
    for rule in _rules():
        assert SumRule.from_json(rule.to_json()) == rule
    tree = TreeOrder((0, 1, -1), True)
    assert order_from_json(tree.to_json()) == tree


def test_classes_hold_every_output_once() -> None:
    for rule in _rules():
        for rows, outs, size in ((6, 11, 45), (7, 4, 64), (9, 3, 30)):
            for position in range(4):
                held = np.zeros((rows, outs), int)
                at = Alignment(position, position, position)
                for region in regions(rule, rows, outs, size, at):
                    held[region.rows, region.outs] += 1
                assert (held == 1).all(), rule


def test_a_wrong_order_is_told() -> None:
    """Each rule's outputs differ from every other rule's, on the data of the proofs."""
    generator = np.random.default_rng(4)
    for dtype in ROUNDINGS:
        x, w = cancelling(generator, 8, 64, 320, dtype)
        orders = [known_rules.LANES_8X8, known_rules.PARTIAL_4, known_rules.PLAIN]
        orders += [known_rules.BLOCKED, LaneOrder((LaneStage(8, 4, 4),))]
        sums = [evaluate(order, x, w) for order in orders]
        for i, one in enumerate(sums):
            for other in sums[:i]:
                assert differing(one, other) > one.size // 4


def test_differing_never_takes_nan() -> None:
    nan = np.float32([np.nan])
    assert differing(nan, nan) == 1
    assert differing(np.float32([0.0]), np.float32([-0.0])) == 1
    assert differing(np.float32([1.0]), np.float32([1.0])) == 0


def test_replay_is_the_rule() -> None:
    """Smaller products, windows of rows and sampled columns, as the whole product has them."""
    generator = np.random.default_rng(6)
    x, w = cancelling(generator, 9, 23, 50, "float32", exact=False)
    bias = generator.standard_normal(23, np.float32) * np.float32(1e-4)
    columns = np.array([0, 3, 4, 9, 20, 21, 22])
    replay = Replay(x, w[columns], columns, bias[columns], "bfloat16", Alignment(w=1))
    for rule in _rules():
        for rows, first in ((1, 0), (6, 0), (2, 7)):
            part = x[first : first + rows]
            at = Alignment(w=1)
            expected = evaluate_rule(rule, part, w, bias, ROUNDINGS["bfloat16"], at)[:, columns]
            assert differing(replay.output(rule, rows, 23, first), expected) == 0, rule


def test_prove_takes_the_right_rule_or_says_so() -> None:
    generator = np.random.default_rng(7)
    x, w = cancelling(generator, 5, 20, 100, "bfloat16")
    replay = Replay(x, w, np.arange(20), None, "bfloat16")
    right = known_rules.PARTIAL_4_RULE
    kernel = replay.output(right, 5, 20)

    def check(rule: SumRule) -> tuple[int, int]:
        return 100, differing(replay.output(rule, 5, 20), kernel)

    wrong = [known_rules.LANES_RULE, known_rules.PLAIN_RULE]
    assert prove([*wrong, right], [check, check]) == Proof(right, 200, 0)
    best = prove(wrong, [check])
    assert not best.proven
    assert best.mismatches > 20
    assert best.compared == 100


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_search_finds_a_tree(dtype: str) -> None:
    hidden = LaneOrder((LaneStage(4, 2, 2),), peel=Peel(1))

    def dot(x: np.ndarray, w: np.ndarray) -> float:
        rounded = ROUNDINGS[dtype](evaluate(hidden, x[None], w[None], peel=1))
        return float(rounded[0, 0])

    rules = search_tree(dot, 19, dtype, 1)
    generator = np.random.default_rng(8)
    x, w = cancelling(generator, 4, 30, 19, dtype, exact=dtype != "float32")
    expected = evaluate(hidden, x, w, peel=1)
    matching = [rule for rule in rules
                if differing(evaluate(rule.classes[0].order, x, w), expected) == 0]  # fmt: skip
    assert matching


def test_ranges() -> None:
    assert runs([3, 1, 2, 7]) == [[1, 3], [7, 7]]
    assert list(windows(2, 6, 9)) == [0, 2, 4, 6]
    one, two = known_rules.LANES_RULE, known_rules.PLAIN_RULE

    def entry(rows: int, keys: int, rule: SumRule, bad: int = 0) -> Entry:
        return Entry("scores", {"head_dim": 8}, rows, keys, Proof(rule, 10, bad))

    entries = [entry(n, n, one) for n in range(1, 5)] + [entry(1, n, two) for n in range(2, 6)]
    entries.append(entry(5, 5, two, bad=3))
    found = merge(entries)["scores"]
    assert [(e["rows"], e["keys"], e["rule"], e["proof"]) for e in found] == [
        ([1, 4], "rows", 0, {"compared": 40, "differing": 0}),
        ([1, 1], [2, 5], 1, {"compared": 40, "differing": 0}),
        ([5, 5], [5, 5], 1, {"compared": 10, "differing": 3}),
    ]


def test_digest_does_not_see_itself() -> None:
    profile = {"b": [1, "ä"], "a": {"y": 1, "x": 2}}
    other = {"a": {"x": 2, "y": 1}, "b": [1, "ä"], "digest": "sha256:0"}
    assert digest(profile) == digest(other)
    assert digest(profile) != digest({**profile, "b": [2, "ä"]})


def test_one_class_is_enough() -> None:
    rule = SumRule((OrderClass(ChainOrder()),))
    x = np.float32([[1.0, 2.0]])
    assert evaluate_rule(rule, x, x, None, ROUNDINGS["float32"])[0, 0] == 5.0
