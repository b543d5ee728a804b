#!/usr/bin/env python3
"""Writes samebits/text/unicode_tables.inc: what the `tokenizers` library knows about Unicode.

Each class is read off the library itself: every code point goes through the library's regular
expressions, Digits, added tokens and normalizers, whose Unicode versions are not the same
(docs/tokenizer.md names them). Two things can not be seen from outside and come from the package
unicodedata2: canonical combining classes and one-step decompositions, both for the characters only
that the library is seen to treat so. The Unicode standard never changes either for a character.

Usage: python tools/make_unicode_tables.py > samebits/text/unicode_tables.inc   (some 40 s)
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

os.environ["TOKENIZERS_PARALLELISM"] = "false"

import tokenizers
import unicodedata2
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers

LIMIT = 0x110000
POINTS = [c for c in range(LIMIT) if not 0xD800 <= c <= 0xDFFF]
KINDS = [  # as samebits/text/unicode.h; the rest is 0
    (r"[\p{Lu}\p{Lt}]", 1),
    (r"\p{Ll}", 2),
    (r"[\p{Lm}\p{Lo}]", 3),
    (r"\p{M}", 4),
    (r"\p{N}", 5),
    (r"\s", 6),
    (r"[\r\n]", 7),
]
WORD, NUMERIC, UNSTABLE = 8, 16, 32


def chunks(points: list[int], size: int = 20000) -> Iterator[list[int]]:
    for i in range(0, len(points), size):
        yield points[i : i + size]


def matching(pattern: str) -> set[int]:
    split = pre_tokenizers.Split(Regex(pattern), "removed")
    left: set[int] = set()
    for part in chunks(POINTS):
        text = "".join(map(chr, part))
        for _, (begin, end) in split.pre_tokenize_str(text):
            left.update(part[begin:end])
    return set(POINTS) - left


def numeric() -> set[int]:
    """Digits: characters that come out alone from between letters."""
    digits = pre_tokenizers.Digits(individual_digits=True)
    found: set[int] = set()
    for part in chunks(POINTS):
        text = "".join("xx" + chr(c) + "xx" for c in part)
        for _, (begin, end) in digits.pre_tokenize_str(text):
            if end - begin == 1:
                found.add(ord(text[begin]))
    return found


def word() -> set[int]:
    """Characters beside which an added token with single_word is not found."""
    tokenizer = Tokenizer(models.BPE(vocab={"a": 0, "|": 1}, merges=[], unk_token="a"))
    tokenizer.add_tokens([AddedToken("<t>", single_word=True)])
    token = tokenizer.token_to_id("<t>")
    found: set[int] = set()
    for part in chunks(POINTS):
        encoding = tokenizer.encode("".join(chr(c) + "<t>|" for c in part))
        seen = {o[0] for i, o in zip(encoding.ids, encoding.offsets, strict=True) if i == token}
        found.update(c for i, c in enumerate(part) if i * 5 + 1 not in seen)
    return found


def mapped(normalizer: normalizers.Normalizer, texts: Iterable[str]) -> list[str]:
    """Each text normalised, apart from the others: a line end combines with nothing."""
    return str(normalizer.normalize_str("\n".join(texts))).split("\n")


def combining_classes() -> dict[int, int]:
    """Of the characters that the library puts into another order, or others before them."""
    nfd = normalizers.NFD()
    marks = [c for c in POINTS if unicodedata2.combining(chr(c))]
    result = {}
    low, high = "\u0334", "\u0345"  # the least class, 1, and the greatest, 240
    before = mapped(nfd, (chr(c) + low for c in marks))
    after = mapped(nfd, (high + chr(c) for c in marks))
    for c, first, second in zip(marks, before, after, strict=True):
        value = unicodedata2.combining(chr(c))
        moved = first != mapped(nfd, [chr(c)])[0] + low if value > 1 else second[0] != high
        if moved:
            result[c] = value
    return result


def numbers(name: str, kind: str, values: list[int]) -> None:
    print(f"\nconstexpr {kind} {name}[] = {{")
    line = "   "
    for value in values:
        item = f" {value:#x}," if value > 9 else f" {value},"
        if len(line) + len(item) > 100:
            print(line)
            line = "   "
        line += item
    print(line + "\n};")
    print(f"constexpr size_t {name}Size = {len(values)};")


def main() -> None:
    classes = [0] * LIMIT
    for pattern, kind in KINDS:
        for c in matching(pattern):
            classes[c] = kind
    for found, flag in ((word(), WORD), (numeric(), NUMERIC)):
        for c in found:
            classes[c] |= flag

    hangul = range(0xAC00, 0xD7A4)
    points = [c for c in POINTS if c != 10 and c not in hangul]
    full: dict[str, dict[int, str]] = {}
    for form in ("NFC", "NFD", "NFKD"):
        results = mapped(getattr(normalizers, form)(), map(chr, points))
        full[form] = {c: s for c, s in zip(points, results, strict=True) if s != chr(c)}
    combining = combining_classes()
    pairs = []
    for c in sorted(full["NFD"]):
        step = unicodedata2.decomposition(chr(c)).split()
        if len(step) == 2 and not step[0].startswith("<") and c not in full["NFC"]:
            pairs.append((int(step[0], 16), int(step[1], 16), c))
    unstable = set(full["NFC"]) | set(combining) | {b for _, b, _ in pairs}
    unstable |= set(range(0x1161, 0x1176)) | set(range(0x11A8, 0x11C3))
    for c in unstable:
        classes[c] |= UNSTABLE

    print(
        "// Made by tools/make_unicode_tables.py; not to be edited.\n"
        f"// Read off tokenizers {tokenizers.__version__}, with unicodedata2 "
        f"{unicodedata2.unidata_version} for what can not be seen.\n"
        "// Included by unicode.cc, which unpacks what has to be fast. All are sorted.\n"
        "// kClassRuns: first code point << 8 | class byte of unicode.h. kCombining: first, last,\n"
        "// canonical combining class. kCanonical: code point, offset in kDecompositions << 8 |\n"
        "// length; kCompatible: the same where NFKD is not NFD. kCompositions: a, b, both.\n"
    )
    runs = []
    for c in range(LIMIT):
        if c == 0 or classes[c] != classes[c - 1]:
            runs.append(c << 8 | classes[c])
    numbers("kClassRuns", "uint32_t", runs)
    spans: list[list[int]] = []  # first code point, how many follow, class
    for c in sorted(combining):
        if spans and spans[-1][2] == combining[c] and sum(spans[-1][:2]) == c - 1:
            spans[-1][1] += 1
        else:
            spans.append([c, 0, combining[c]])
    flat = [value for first, more, number in spans for value in (first, first + more, number)]
    numbers("kCombining", "uint32_t", flat)

    pool: list[int] = []

    def entries(table: dict[int, str]) -> list[int]:
        result = []
        for c in sorted(table):
            result += [c, len(pool) << 8 | len(table[c])]
            pool.extend(map(ord, table[c]))
        return result

    canonical = entries(full["NFD"])
    compatible = entries({c: s for c, s in full["NFKD"].items() if full["NFD"].get(c) != s})
    numbers("kCanonical", "uint32_t", canonical)
    numbers("kCompatible", "uint32_t", compatible)
    numbers("kDecompositions", "uint32_t", pool)
    numbers("kCompositions", "uint32_t", [v for pair in sorted(pairs) for v in pair])


if __name__ == "__main__":
    main()
