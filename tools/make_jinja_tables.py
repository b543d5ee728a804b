#!/usr/bin/env python3
"""Writes samebits/jinja/unicode_tables.cc: what Python's str methods know about Unicode.

The tables are read off Python itself (str.isalpha, str.upper and so on), so they hold the Unicode
version of the Python that runs this. Usage: python3 tools/make_jinja_tables.py > FILE
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable

LIMIT = 0x110000


def characters() -> list[int]:
    return [c for c in range(LIMIT) if not 0xD800 <= c <= 0xDFFF]


def ranges(has: Callable[[str], bool]) -> list[int]:
    """First and last of each run of characters with the property, flat."""
    flat: list[int] = []
    for c in characters():
        if has(chr(c)):
            if flat and flat[-1] == c - 1:
                flat[-1] = c
            else:
                flat += [c, c]
    return flat


def is_ignorable(c: str) -> bool:
    """Case_Ignorable, seen from how a final sigma is made small."""
    sigma = "\u03a3"
    return ("A" + c + sigma).lower()[-1] == "\u03c2" and (" " + c + sigma).lower()[-1] != "\u03c2"


def mappings(function: Callable[[str], str]) -> tuple[list[int], list[tuple[int, str]]]:
    """Runs of (first, last, stride, difference), and what becomes several characters."""
    runs: list[list[int]] = []
    several: list[tuple[int, str]] = []
    for c in characters():
        mapped = function(chr(c))
        if mapped == chr(c):
            continue
        if len(mapped) > 1:
            several.append((c, mapped))
            continue
        difference = ord(mapped) - c
        if runs and runs[-1][3] == difference:
            first, last, stride, _ = runs[-1]
            step = c - last
            if step in (1, 2) and (first == last or stride == step):
                runs[-1][1:3] = [c, step]
                continue
        runs.append([c, c, 1, difference])
    return [number for run in runs for number in run], several


def write_numbers(kind: str, name: str, numbers: list[int]) -> None:
    print(f"const {kind} {name}[] = {{")
    line = "   "
    for number in numbers:
        text = f" {number},"
        if len(line) + len(text) > 100:
            print(line)
            line = "   "
        line += text
    print(line)
    print("};")
    print(f"const size_t {name}Size = {len(numbers)};\n")


def escaped(text: str) -> str:
    return "".join(f"\\{byte:03o}" for byte in text.encode())


def main() -> None:
    version = unicodedata.unidata_version
    print(f"// Made by tools/make_jinja_tables.py, Unicode {version}. Do not edit.")
    print("// clang-format off")
    print('#include "samebits/jinja/unicode_tables.h"\n')
    print("namespace samebits::jinja::tables {\n")
    for name, has in {
        "kAlpha": str.isalpha,
        "kDecimal": str.isdecimal,
        "kDigit": str.isdigit,
        "kNumeric": str.isnumeric,
        "kLower": str.islower,
        "kUpper": str.isupper,
        "kTitle": lambda c: c.istitle() and not c.isupper(),
        "kPrintable": str.isprintable,
        "kIgnorable": is_ignorable,
    }.items():
        write_numbers("uint32_t", name, ranges(has))
    for name, function in {
        "kToUpper": str.upper,
        "kToLower": str.lower,
        "kToTitle": str.title,
        "kToFolded": str.casefold,
    }.items():
        runs, several = mappings(function)
        write_numbers("int32_t", name, runs)
        print(f"const Several {name}Several[] = {{")
        for c, text in several or [(0, "")]:
            print(f'    {{{c}, "{escaped(text)}"}},')
        print("};")
        print(f"const size_t {name}SeveralSize = {len(several)};\n")
    print("}  // namespace samebits::jinja::tables")


if __name__ == "__main__":
    main()
