#!/usr/bin/env python3
"""samebits' tokenizer and the `tokenizers` library side by side: load and encode, one thread.

Usage: python bench/tokenizer.py BINARY TOKENIZER_FOLDER [--mb 10] [--repetitions 5]
BINARY is tokenizer_bench (preset bench). The text is made of this machine's files: a third prose
(/usr/share/doc), a third Python sources, a third catalogues and manual pages in languages of other
scripts. The two run in turn, repetition by repetition, on the same text, and the ids of both are
compared: whole, and by lines for the library's better speed on short texts.
"""

from __future__ import annotations

import argparse
import gettext
import glob
import gzip
import json
import os
import random
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"

import tokenizers

MASK = (1 << 64) - 1
LANGUAGES = "ar bg el fa he hi ja ka ko ru th uk zh_CN zh_TW ta te bn".split()  # noqa: SIM905
PIECE = 65536


def text_of(path: str) -> str:
    try:
        if path.endswith(".mo"):
            with Path(path).open("rb") as file:
                translations = gettext.GNUTranslations(file)
            values = vars(translations).get("_catalog", {}).values()
            return "\n".join(v for v in values if isinstance(v, str))[:PIECE]
        with gzip.open(path) if path.endswith(".gz") else Path(path).open("rb") as file:
            return bytes(file.read(PIECE)).decode("utf-8").replace("\0", "")
    except (OSError, UnicodeError, EOFError):
        return ""


def mixed_text(megabytes: float) -> str:
    library = os.path.dirname(os.__file__)
    groups = [
        glob.glob("/usr/share/doc/**/*", recursive=True),
        glob.glob(f"{library}/**/*.py", recursive=True),
        [
            path
            for language in LANGUAGES
            for pattern in (
                f"/usr/share/locale/{language}*/LC_MESSAGES/*.mo",
                f"/usr/share/man/{language}*/**/*.gz",
            )
            for path in glob.glob(pattern, recursive=True)
        ],
    ]
    result = []
    for group in groups:
        files = sorted(path for path in group if os.path.isfile(path))
        random.Random(1).shuffle(files)
        size = 0
        while files and size < megabytes * 1e6 / 3:
            part = text_of(files.pop())
            result.append(part)
            size += len(part.encode())
        print(f"  {size} bytes of a group of {len(group)} files")
    return "\n".join(result)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binary", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--mb", type=float, default=10)
    parser.add_argument("--repetitions", type=int, default=5)
    options = parser.parse_args()
    path = options.folder / "tokenizer.json"
    text = mixed_text(options.mb)
    ours: dict[str, list[float]] = {"load": [], "encode": []}
    theirs: dict[str, list[float]] = {"load": [], "encode": [], "pieces": []}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "text")
        file.write_bytes(text.encode())
        for _ in range(options.repetitions):
            done = subprocess.run(
                [options.binary, path, file, "1"], check=True, capture_output=True, text=True
            )
            one = json.loads(done.stdout)
            ours["load"] += one["load_s"]
            ours["encode"] += one["encode_s"]
            start = time.perf_counter()
            tokenizer = tokenizers.Tokenizer.from_file(str(path))
            theirs["load"].append(time.perf_counter() - start)
            start = time.perf_counter()
            ids = tokenizer.encode(text, add_special_tokens=False).ids
            theirs["encode"].append(time.perf_counter() - start)
            start = time.perf_counter()
            for begin in range(0, len(text), 4096):
                tokenizer.encode(text[begin : begin + 4096], add_special_tokens=False)
            theirs["pieces"].append(time.perf_counter() - start)
            value = 0xCBF29CE484222325
            for token in ids:
                value = ((value ^ token) * 0x100000001B3) & MASK
            same = f"{value:016x}" == one["hash"]
            assert same, "the ids differ"
    size = len(text.encode()) / 1e6

    def show(name: str, seconds: list[float], rate: bool) -> None:
        values = [size / s for s in seconds] if rate else seconds
        unit = "MB/s" if rate else "s"
        low, middle, high = min(values), statistics.median(values), max(values)
        print(f"{name:42} {middle:8.3f} {unit} [{low:.3f}-{high:.3f}]")

    print(f"{path}: {size:.2f} MB, {len(ids)} tokens, the same ids from both")
    show("samebits, load", ours["load"], False)
    show(f"tokenizers {tokenizers.__version__}, load", theirs["load"], False)
    show("samebits, whole text", ours["encode"], True)
    show("tokenizers, whole text", theirs["encode"], True)
    show("tokenizers, calls of 4096 characters", theirs["pieces"], True)
    best = min(*theirs["encode"], *theirs["pieces"])
    ratio = best / statistics.median(ours["encode"])
    print(f"samebits' median is {ratio:.1f} times the library's best of both")


if __name__ == "__main__":
    main()
