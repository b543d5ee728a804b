"""Rules: which output of a matrix product has which order, and how a bias enters.

The same values as ``samebits/numerics/sum_rule.h``; docs/profile-format.md describes the JSON.
``evaluate_rule`` is the numpy interpreter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from samebits.orders import Floats, Json, LaneOrder, Peel, SumOrder, evaluate, order_from_json

Round: TypeAlias = Callable[[Floats], Floats]


@dataclass(frozen=True)
class Columns:
    """A class of outputs n: "all", "complete", "rest", "in_peel" or "after_peel"."""

    kind: str = "all"
    count: int = 1
    at: int | None = None
    peel: Peel = field(default_factory=Peel)

    def range(self, outs: int, peel: int) -> tuple[int, int]:
        complete = outs // self.count * self.count
        if self.kind == "complete":
            return 0, complete
        if self.kind == "rest":
            if self.at is None:
                return complete, outs
            return min(outs, complete + self.at), min(outs, complete + self.at + 1)
        if self.kind == "in_peel":
            return 0, min(peel, outs)
        if self.kind == "after_peel":
            return min(peel, outs), outs
        return 0, outs

    def to_json(self) -> Json:
        if self.kind in ("in_peel", "after_peel"):
            return {self.kind: self.peel.to_json()}
        at = {} if self.at is None else {"at": self.at}
        return {self.kind: self.count, **at}

    @staticmethod
    def from_json(json: Json) -> Columns:
        for kind in ("in_peel", "after_peel"):
            if kind in json:
                return Columns(kind, peel=Peel.from_json(json[kind]))
        kind = "complete" if "complete" in json else "rest"
        return Columns(kind, json[kind], json.get("at"))


@dataclass(frozen=True)
class OrderClass:
    """Rows [row_begin, row_end) and a class of columns, which share an order."""

    order: SumOrder
    columns: Columns = field(default_factory=Columns)
    row_begin: int = 0
    row_end: int | None = None

    def to_json(self) -> Json:
        json: Json = {"order": self.order.to_json()}
        if self.columns.kind != "all":
            json["columns"] = self.columns.to_json()
        if self.row_begin != 0 or self.row_end is not None:
            json["rows"] = [self.row_begin, self.row_end]
        return json


@dataclass(frozen=True)
class SumRule:
    """Classes that hold every output once; ``bias`` is "first", "last" or "rounded"."""

    classes: tuple[OrderClass, ...]
    bias: str = "last"

    def to_json(self) -> Json:
        return {"bias": self.bias, "classes": [c.to_json() for c in self.classes]}

    @staticmethod
    def from_json(json: Json) -> SumRule:
        def read(item: Json) -> OrderClass:
            rows: list[Any] = item.get("rows", [0, None])
            columns = Columns.from_json(item["columns"]) if "columns" in item else Columns()
            return OrderClass(order_from_json(item["order"]), columns, rows[0], rows[1])

        return SumRule(tuple(read(item) for item in json["classes"]), json["bias"])


@dataclass(frozen=True)
class Alignment:
    """(address / 4) mod 4 of the first element of each operand, and the rows' strides."""

    x: int = 0
    w: int = 0
    y: int = 0


@dataclass(frozen=True)
class Region:
    """A rectangle of outputs with one order and peel."""

    rows: slice
    outs: slice
    order: SumOrder
    peel: int


def _resolve(peel: Peel, at: Alignment, strides: Alignment, row: int, out: int) -> int:
    if peel.of is None:
        return peel.count
    own = out if peel.of == "w" else row
    index = own if peel.row is None else peel.row
    position = getattr(at, peel.of) + index * getattr(strides, peel.of)
    return int(peel.least + (-(position + peel.least)) % 4)


def _varies(peel: Peel | None, strides: Alignment, operands: str) -> bool:
    if peel is None or peel.of is None or peel.row is not None or peel.of not in operands:
        return False
    return bool(getattr(strides, peel.of) % 4)


def regions(
    rule: SumRule, rows: int, outs: int, size: int, at: Alignment | None = None
) -> Iterator[Region]:
    """All outputs of x [rows, size] times w [outs, size], both contiguous, cut into regions."""
    at = at or Alignment()
    strides = Alignment(x=size, w=size, y=outs)
    for c in rule.classes:
        last = rows if c.row_end is None else min(c.row_end, rows)
        peel = c.order.peel if isinstance(c.order, LaneOrder) else None
        by_row = _varies(peel, strides, "xy") or _varies(c.columns.peel, strides, "xy")
        row_step = 1 if by_row else max(1, last - c.row_begin)
        for row in range(c.row_begin, last, row_step):
            begin, end = c.columns.range(outs, _resolve(c.columns.peel, at, strides, row, 0))
            out_step = 1 if _varies(peel, strides, "w") else max(1, end - begin)
            for out in range(begin, end, out_step):
                count = 0 if peel is None else _resolve(peel, at, strides, row, out)
                yield Region(slice(row, row + row_step), slice(out, out + out_step), c.order, count)


def evaluate_rule(
    rule: SumRule,
    x: Floats,
    w: Floats,
    c: Floats | None,
    round_to: Round,
    at: Alignment | None = None,
) -> Floats:
    """round(x w^T + c): x [M, K], w [N, K] and c (bias [N], or [M, N]) widened to fp32."""
    rows, outs = x.shape[0], w.shape[0]
    result = np.full((rows, outs), np.nan, np.float32)
    full = None if c is None else np.broadcast_to(c, (rows, outs))
    for region in regions(rule, rows, outs, x.shape[1], at):
        x_part, w_part = x[region.rows], w[region.outs]
        c_part = None if full is None else full[region.rows, region.outs]
        inside = c_part if rule.bias == "first" else None
        sums = evaluate(region.order, x_part, w_part, inside, region.peel)
        if c_part is not None and rule.bias != "first":
            sums = c_part + (round_to(sums) if rule.bias == "rounded" else sums)
        result[region.rows, region.outs] = round_to(sums)
    return result


def bfloat16(values: Floats) -> Floats:
    """Rounded to nearest even, as fp32."""
    bits = values.view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) & np.uint32(
        0xFFFF0000
    )
    return np.where(np.isnan(values), values, rounded.view(np.float32))


def float16(values: Floats) -> Floats:
    """Rounded to nearest even, as fp32."""
    with np.errstate(over="ignore"):
        return values.astype(np.float16).astype(np.float32)


def float32(values: Floats) -> Floats:
    """As it is."""
    return values


ROUNDINGS: dict[str, Round] = {"float32": float32, "bfloat16": bfloat16, "float16": float16}
