# ruff: noqa: RUF001 (texts in many scripts, some of them long)
"""Ids and texts of samebits against the `tokenizers` library as it is installed.

All cases and all 20,000 random texts of tests/fixtures/make_tokenizer_cases.py, on every tokenizer
that lies in the repository, on SmolLM2's when SMOLLM2 names its folder, and on settings of added
tokens, normalizers and pre-tokenizers that the recorded fixtures do not have. Left out: speed
(bench/tokenizer.py).
"""

from __future__ import annotations

import json
import random
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is not installed")

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "fixtures"))
from make_tokenizer_cases import CASES, OTHER, RANDOM, random_texts, record  # noqa: E402

FILES = sorted((ROOT / "tests" / "fixtures" / "tokenizer" / "small").glob("*.json"))
FILES += [
    ROOT / "testdata" / "tokenizers" / name / "tokenizer.json" for name in ("qwen2.5", "qwen3")
]
FILES += [ROOT / "models" / "nano" / "tokenizer.json"]
ALL_CASES = [text for kind in CASES.values() for text in kind]


@pytest.fixture(scope="session")
def encode_texts(samebits_program: Any) -> Path:
    path = Path(samebits_program.binary).parent / "tests" / "text" / "encode_texts"
    if not path.is_file():
        pytest.skip(f"{path} is not built")
    return path


def ours(binary: Path, file: Path, texts: list[str]) -> list[tuple[list[int], str, str]]:
    encoded = [text.encode() for text in texts]
    data = b"".join(struct.pack("<I", len(text)) + text for text in encoded)
    done = subprocess.run([binary, file], input=data, capture_output=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr.decode()
    out, at, results = done.stdout, 0, []

    def number() -> int:
        nonlocal at
        at += 4
        return int(struct.unpack_from("<I", out, at - 4)[0])

    def text() -> str:
        nonlocal at
        size = number()
        at += size
        return out[at - size : at].decode()

    while at < len(out):
        count = number()
        ids = list(struct.unpack_from(f"<{count}I", out, at))
        at += 4 * count
        results.append((ids, text(), text()))
    assert len(results) == len(texts)
    return results


def compare(binary: Path, file: Path, texts: list[str]) -> int:
    """Fails at the first text that differs; returns how many ids were compared."""
    tokenizer = tokenizers.Tokenizer.from_file(str(file))
    compared = 0
    for text, mine in zip(texts, ours(binary, file, texts), strict=True):
        assert mine == record(tokenizer, text), f"{file}: {text!r}"
        compared += len(mine[0])
    return compared


@pytest.mark.parametrize(
    "file", FILES, ids=lambda file: file.stem.replace("tokenizer", file.parent.name)
)
def test_cases_and_random_texts(file: Path, encode_texts: Path) -> None:
    assert len(CASES) >= 84
    texts = ALL_CASES + list(random_texts(RANDOM))
    ids = compare(encode_texts, file, texts)
    print(f"{file}: {len(CASES)} kinds, {len(texts)} texts, {ids} ids")
    assert ids > len(texts)


def test_smollm2(smollm2: Path, encode_texts: Path) -> None:
    texts = ALL_CASES + list(random_texts(RANDOM | {"seed": 2}))
    ids = compare(encode_texts, smollm2 / "tokenizer.json", texts)
    print(f"SmolLM2: {len(texts)} texts, {ids} ids")


def test_every_character(encode_texts: Path) -> None:
    """Each code point between a letter, a digit, a space and a mark, under the known patterns.

    Of the planes that hold nothing but ideographs or nothing at all, every 64th.
    """
    dense = [
        *range(0x3400),
        *range(0xA000, 0xAC00),
        *range(0xD7B0, 0xD800),
        *range(0xF900, 0x12600),
    ]
    dense += [*range(0x13000, 0x13600), *range(0x16000, 0x17000), *range(0x1AFF0, 0x20000)]
    codes = sorted({*dense, *range(0, 0xD800, 64), *range(0xE000, 0x110000, 64)})
    texts = [
        "\n".join("a{0}b1{0}2 {0} '{0}e\u0301".format(chr(c)) for c in codes[begin : begin + 64])
        for begin in range(0, len(codes), 64)
    ]
    for name in ("llama3", "tekken", "other"):
        file = ROOT / "tests" / "fixtures" / "tokenizer" / "small" / f"{name}.json"
        print(name, len(codes), "characters,", compare(encode_texts, file, texts), "ids")


def added(content: str, id: int, **flags: bool) -> dict[str, Any]:
    base = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    return {"id": id, "content": content} | base | flags


def base_file() -> dict[str, Any]:
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [],
        "normalizer": None, "pre_tokenizer": {
            "type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True,
        },
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True,
                    "use_regex": True},
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
            "ignore_merges": False, "vocab": {c: i for i, c in enumerate([*alphabet, "ab"])},
            "merges": [["a", "b"]],
        },
    }  # fmt: skip


def encodes(tokenizer: Any, text: str) -> bool:
    """The library panics when a token of blanks lies in what another one strips."""
    try:
        tokenizer.encode(text)
    except BaseException as error:
        if type(error).__name__ == "PanicException":
            return False
        raise
    return True


def test_added_tokens_with_all_flags(encode_texts: Path, tmp_path: Path) -> None:
    """Random sets of added tokens with random flags, on texts that are made of their pieces."""
    chooser = random.Random(3)
    contents = [
        "<a>",
        "<ab>",
        "ab",
        "b",
        " ",
        "a b",
        "<",
        "\u00e9",
        "e\u0301",
        "\n\n",
        "X",
        "\u1100\u1161",
    ]
    compared = 0
    for round_number in range(60):
        data = base_file()
        if chooser.random() < 0.6:
            data["normalizer"] = {"type": chooser.choice(["NFC", "NFD", "NFKC", "NFKD"])}
        next_id = len(data["model"]["vocab"])
        for content in chooser.sample(contents, chooser.randrange(1, 6)):
            flags = {
                flag: chooser.random() < 0.4
                for flag in ("single_word", "lstrip", "rstrip", "normalized", "special")
            }
            known = data["model"]["vocab"].get(content)
            data["added_tokens"].append(
                added(content, next_id if known is None else known, **flags)
            )
            next_id += known is None
        file = tmp_path / f"{round_number}.json"
        file.write_text(json.dumps(data), "utf-8")
        pieces = [*contents, "a", "c", "  ", "\t", ".", "1", "_", "\u0301", "\u11a8", "\u3000"]
        made = [
            "".join(chooser.choice(pieces) for _ in range(chooser.randrange(12)))
            for _ in range(100)
        ]
        tokenizer = tokenizers.Tokenizer.from_file(str(file))
        texts = [text for text in made if encodes(tokenizer, text)]
        compare(encode_texts, file, texts)
        compared += len(texts)
    print(f"{compared} texts")
    assert compared > 3000


@pytest.mark.parametrize(
    "behavior", ["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"]
)
@pytest.mark.parametrize("invert", [False, True])
def test_split(behavior: str, invert: bool, encode_texts: Path, tmp_path: Path) -> None:
    patterns = [
        {"String": "a"}, {"String": "ab"}, {"Regex": r"\s+"}, {"Regex": r"[aeiou]|\p{N}{2}"},
        {"Regex": OTHER}, {"Regex": r"x*"}, {"Regex": r"(?=b)|\p{Han}"}, {"Regex": r"(?i:abc|ſ)"},
        {"Regex": r"\p{Lu}?\d"}, {"Regex": r"^.|.$"},
    ]  # fmt: skip
    for number, pattern in enumerate(patterns):
        data = base_file()
        data["pre_tokenizer"] = {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": pattern, "behavior": behavior, "invert": invert},
                data["pre_tokenizer"] | {"use_regex": False},
            ],
        }
        # What of words is cut is seen only when they have no merges: so each word gets a space.
        data["pre_tokenizer"]["pretokenizers"][1]["add_prefix_space"] = True
        file = tmp_path / f"{number}.json"
        file.write_text(json.dumps(data), "utf-8")
        # Newer than what PCRE2 knows as Han, digits and capitals.
        newer = ("\U000323af", "\U00010d40", "\ua7cb")
        texts = [t for t in ALL_CASES if len(t) < 500 and not any(c in t for c in newer)]
        compare(encode_texts, file, [*texts, "xabxxab b", "aab\nabc\n", "ABC abſ S漢字x漢"])


def test_the_command_gives_the_same_ids(samebits_program: Any, tmp_path: Path) -> None:
    folder = ROOT / "testdata" / "tokenizers" / "qwen2.5"
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    text = "\n".join(text for text in ALL_CASES if "\0" not in text)
    (tmp_path / "text").write_bytes(text.encode())
    printed = samebits_program.json("tokenize", folder, tmp_path / "text")
    assert printed["ids"] == tokenizer.encode(text).ids


def test_invalid_bytes_are_replaced(encode_texts: Path, tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps(base_file()), "utf-8")
    tokenizer = tokenizers.Tokenizer.from_file(str(file))
    raw = b"a\xff\xe2\x82z\xf0\x9f\x98\xed\xa0\x80"
    data = struct.pack("<I", len(raw)) + raw
    done = subprocess.run([encode_texts, file], input=data, capture_output=True, check=True)
    count = struct.unpack_from("<I", done.stdout)[0]
    ids = list(struct.unpack_from(f"<{count}I", done.stdout, 4))
    assert ids == tokenizer.encode(raw.decode("utf-8", "replace")).ids
