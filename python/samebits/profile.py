"""Profiles: how a framework adds on one machine, as JSON. docs/profile-format.md describes it."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from samebits.orders import Json
from samebits.replay import Proof
from samebits.rules import SumRule

FORMAT = "samebits-profile-1"
SECTIONS = ("linear", "scores", "context", "sdpa_scores", "sdpa_context")


@dataclass
class Entry:
    """One shape of a product, and what was proven of it."""

    section: str
    shape: Json  # the keys of the entry that are not ranges
    rows: int
    keys: int  # of attention; 0 for a linear layer
    proof: Proof


def runs(values: Sequence[int]) -> list[list[int]]:
    """[lowest, highest] of each run of consecutive integers."""
    found: list[list[int]] = []
    for value in sorted(set(values)):
        if found and found[-1][1] == value - 1:
            found[-1][1] = value
        else:
            found.append([value, value])
    return found


def _rectangles(points: set[tuple[int, int]]) -> list[tuple[list[int], Any]]:
    """Ranges of rows and keys that hold exactly these points; "rows" for keys as many as rows."""
    square = {point for point in points if point[0] == point[1]}
    result: list[tuple[list[int], Any]] = []
    if len(square) > 1:
        result += [(run, "rows") for run in runs([rows for rows, _ in square])]
        points = points - square
    by_keys: dict[tuple[int, int], list[int]] = {}
    for rows in sorted({rows for rows, _ in points}):
        for low, high in runs([k for r, k in points if r == rows]):
            by_keys.setdefault((low, high), []).append(rows)
    for (low, high), all_rows in by_keys.items():
        result += [(run, [low, high]) for run in runs(all_rows)]
    return result


def _inside(entry: Entry, rows: list[int], keys: Any) -> bool:
    if not rows[0] <= entry.rows <= rows[1]:
        return False
    if keys == "rows":
        return entry.keys == entry.rows
    return bool(keys[0] <= entry.keys <= keys[1])


def merge(entries: Sequence[Entry]) -> Json:
    """The rules and the sections: neighbouring shapes that share a rule become one entry."""
    rules: dict[SumRule, int] = {}
    groups: dict[tuple[str, str, int, bool], list[Entry]] = {}
    for entry in entries:
        number = rules.setdefault(entry.proof.rule, len(rules))
        shape = json.dumps(entry.shape, sort_keys=True)
        groups.setdefault((entry.section, shape, number, entry.proof.proven), []).append(entry)
    sections: dict[str, list[Json]] = {section: [] for section in SECTIONS}
    for (section, shape, number, _), members in groups.items():
        for rows, keys in _rectangles({(one.rows, one.keys) for one in members}):
            inside = [one for one in members if _inside(one, rows, keys)]
            proof = {
                "compared": sum(one.proof.compared for one in inside),
                "differing": sum(one.proof.mismatches for one in inside),
            }
            ranges = {"rows": rows} if section == "linear" else {"rows": rows, "keys": keys}
            item = {**json.loads(shape), **ranges, "rule": number, "proof": proof}
            sections[section].append(item)
            members = [one for one in members if not _inside(one, rows, keys)]
    return {"rules": [rule.to_json() for rule in rules], **sections}


def digest(profile: Json) -> str:
    """Of all but the digest itself, independent of the order of keys and of white space."""
    rest = {key: value for key, value in profile.items() if key != "digest"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def cpu() -> tuple[str, list[str]]:
    """Model name and flags, as the kernel tells them."""
    fields: dict[str, str] = {}
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            fields.setdefault(name.strip(), value.strip())
    except OSError:
        pass
    return fields.get("model name", platform.machine()), sorted(fields.get("flags", "").split())


def unproven(profile: Json) -> list[str]:
    """A line for each entry that was not proven."""
    lines = []
    for section in SECTIONS:
        for entry in profile[section]:
            proof = entry["proof"]
            if proof["differing"] or not proof["compared"]:
                shape = {key: entry[key] for key in entry if key not in ("rule", "proof")}
                lines.append(f"{section} {shape}: {proof['differing']} of {proof['compared']}")
    for name, found in profile["functions"].items():
        for one in found if isinstance(found, list) else [found]:
            proof = one["proof"]
            if proof["differing"] or not proof["compared"]:
                lines.append(f"{name}: {proof['differing']} of {proof['compared']}")
    return lines


def compared(profile: Json) -> int:
    """Values that all proofs together compared."""
    count = 0
    for section in SECTIONS:
        count += sum(entry["proof"]["compared"] for entry in profile[section])
    for found in profile["functions"].values():
        count += sum(
            one["proof"]["compared"] for one in (found if isinstance(found, list) else [found])
        )
    return count
