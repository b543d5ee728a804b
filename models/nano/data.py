"""The questions that the embedded model is trained and measured on: short arithmetic chats.

Every example is a question and an answer in the GSM8K layout ("... #### 42"), made from a seed.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

NAMES = ["Tom", "Anna", "Ben", "Mia", "Leo", "Eva", "Sam", "Ida", "Max", "Zoe"]
THINGS = ["apples", "books", "coins", "cards", "pens", "eggs", "shells", "stamps"]

TALK = [
    ("Hello!", "Hello! Ask me a small sum."),
    ("Hi, who are you?", "I am nano, a very small model. I can do short sums."),
    ("What can you do?", "I can add, subtract and multiply small numbers."),
    ("Thank you!", "You are welcome."),
]


def _plus(rng: random.Random) -> tuple[str, str]:
    a, b = rng.randint(0, 99), rng.randint(0, 99)
    name, thing = rng.choice(NAMES), rng.choice(THINGS)
    question = rng.choice(
        [
            f"What is {a} + {b}?",
            f"Add {a} and {b}.",
            f"{name} has {a} {thing} and gets {b} more. How many {thing} does {name} have now?",
            f"There are {a} {thing} in a box and {b} on the table. How many {thing} are there?",
        ]
    )
    return question, f"{a} + {b} = {a + b} #### {a + b}"


def _minus(rng: random.Random) -> tuple[str, str]:
    a = rng.randint(1, 99)
    b = rng.randint(0, a)
    name, thing = rng.choice(NAMES), rng.choice(THINGS)
    question = rng.choice(
        [
            f"What is {a} - {b}?",
            f"Take {b} away from {a}.",
            f"{name} has {a} {thing} and gives away {b}. How many {thing} are left?",
            f"{name} had {a} {thing} and lost {b}. How many {thing} does {name} still have?",
        ]
    )
    return question, f"{a} - {b} = {a - b} #### {a - b}"


def _times(rng: random.Random) -> tuple[str, str]:
    a, b = rng.randint(2, 9), rng.randint(2, 9)
    name, thing = rng.choice(NAMES), rng.choice(THINGS)
    question = rng.choice(
        [
            f"What is {a} * {b}?",
            f"Multiply {a} by {b}.",
            f"{name} has {a} boxes with {b} {thing} each. How many {thing} does {name} have?",
            f"A pack holds {b} {thing}. How many {thing} are in {a} packs?",
        ]
    )
    return question, f"{a} * {b} = {a * b} #### {a * b}"


def _two_steps(rng: random.Random) -> tuple[str, str]:
    a, b = rng.randint(1, 60), rng.randint(1, 39)
    c = rng.randint(0, a + b)
    name, thing = rng.choice(NAMES), rng.choice(THINGS)
    question = rng.choice(
        [
            f"{name} has {a} {thing}, finds {b} and gives away {c}. How many are left?",
            f"What is {a} + {b} - {c}?",
        ]
    )
    s = a + b
    return question, f"{a} + {b} = {s}, {s} - {c} = {s - c} #### {s - c}"


def problems(seed: int) -> Iterator[tuple[str, str]]:
    """Endless (question, answer) pairs."""
    rng = random.Random(seed)
    while True:
        yield rng.choices([_plus, _minus, _times, _two_steps], [3, 3, 2, 2])[0](rng)


def heldout(count: int, seed: int = 1) -> list[tuple[str, str]]:
    """Distinct questions that training must never show."""
    found: dict[str, str] = {}
    for question, answer in problems(seed):
        found.setdefault(question, answer)
        if len(found) == count:
            return list(found.items())
    return []
