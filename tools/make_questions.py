"""Writes questions whose answers are known, in GSM8K's layout, for models larger than models/nano.

    python tools/make_questions.py questions.jsonl [--count 80] [--seed 0]

Small sums, counting, ordering and short word problems, eight kinds in turns, no question twice. The
same seed gives the same file, and a smaller count its beginning.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

NAMES = ["Anna", "Ben", "Carla", "David", "Emma", "Felix", "Grace", "Hugo"]
THINGS = ["apples", "books", "coins", "pencils", "stamps", "tickets"]


def question(kind: int, draw: random.Random) -> tuple[str, str]:
    """The question and its answer in words, with the result behind "####"."""
    a, b, c = draw.randint(2, 9), draw.randint(2, 9), draw.randint(10, 40)
    name, thing = draw.choice(NAMES), draw.choice(THINGS)
    if kind == 0:
        return f"What is {a} + {b}?", f"{a} + {b} = {a + b} #### {a + b}"
    if kind == 1:
        return f"What is {c} - {a}?", f"{c} - {a} = {c - a} #### {c - a}"
    if kind == 2:
        return f"What is {a} times {b}?", f"{a} * {b} = {a * b} #### {a * b}"
    if kind == 3:
        text = f"{name} has {c} {thing} and buys {a} more. How many {thing} does {name} have now?"
        return text, f"{c} + {a} = {c + a} #### {c + a}"
    if kind == 4:
        text = f"{name} has {c} {thing} and gives {a} away. How many {thing} are left?"
        return text, f"{c} - {a} = {c - a} #### {c - a}"
    if kind == 5:
        text = f"There are {a} boxes with {b} {thing} in each. How many {thing} are there in all?"
        return text, f"{a} * {b} = {a * b} #### {a * b}"
    if kind == 6:
        numbers = draw.sample(range(10, 100), 3)
        text = f"Which is the largest of these numbers: {', '.join(map(str, numbers))}?"
        return text, f"The largest is {max(numbers)} #### {max(numbers)}"
    return f"Which number comes after {c}?", f"{c} + 1 = {c + 1} #### {c + 1}"


def questions(count: int, seed: int) -> dict[str, str]:
    """Questions with their answers, as many as there are when there are fewer than `count`."""
    draw = random.Random(seed)
    seen: dict[str, str] = {}
    for i in range(100 * count):
        text, answer = question(i % 8, draw)
        seen.setdefault(text, answer)
        if len(seen) == count:
            break
    return seen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("--count", type=int, default=80)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    found = questions(args.count, args.seed)
    if args.count < 1 or len(found) < args.count:
        parser.error(
            f"--count {args.count}: expected at least 1, and there are {len(found)} questions"
        )
    with args.output.open("w") as file:
        for text, answer in found.items():
            file.write(json.dumps({"question": text, "answer": answer}) + "\n")


if __name__ == "__main__":
    main()
