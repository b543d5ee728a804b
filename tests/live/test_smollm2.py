"""samebits on trained weights, SmolLM2-135M-Instruct, against transformers.

The folder is named by SMOLLM2; tools/get_smollm2.py makes it.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")

import samebits  # noqa: E402

TEXTS = [
    "The water cycle describes how water moves through the land, the oceans and the air. When the "
    "sun heats the surface of the sea, water turns into vapour and rises, cools and forms clouds.",
    "def fibonacci(n):\n    if n < 2:\n        return n\n    return fibonacci(n - 1) + "
    "fibonacci(n - 2)\n\nfor i in range(10):\n    print(i, fibonacci(i))\n",
    "Dear Sir or Madam, I am writing to you because the train on Monday, 14 March 2022 was late by "
    "45 minutes, and I missed the meeting that I had planned for months; please tell me what to do",
    "Q: What is the capital of France?\nA: Paris.\nQ: What is the capital of Italy?\nA: Rome.\nQ: "
    "What is the capital of Japan?\nA: Tokyo.\nQ: What is the capital of Spain?\nA:",
    "Once upon a time, in a small village at the foot of a mountain, there lived an old clockmaker "
    "who had never seen the sea, although he dreamed about it every single night of his long life.",
    "Écris une phrase sur l'été à Nîmes, s'il te plaît. \u0028naïve façade\u0029",
    "Zähle drei Städte auf, die an der Donau liegen.",
    "What does 你好,世界! mean in English?",
    "Write a haiku about rain 🌧️ and a cat 🐈\u200d⬛.",
    "List three prime numbers,\r\n\tone a line:\n\n",
]
TOKENS = 64


@pytest.fixture(scope="module")
def tokenizer(smollm2: Path) -> Any:
    return transformers.AutoTokenizer.from_pretrained(smollm2)


def joined(ids: list[int]) -> str:
    return ",".join(map(str, ids))


def test_greedy_answers_in_float32(smollm2: Path, tokenizer: Any, samebits_program: Any) -> None:
    """Text in, text out: the template, the tokenizer, 64 greedy tokens and their text."""
    model = transformers.AutoModelForCausalLM.from_pretrained(
        smollm2, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    for text in TEXTS:
        chat = tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], add_generation_prompt=True, return_dict=True
        )["input_ids"]
        with torch.no_grad():
            generated = model.generate(
                torch.tensor([chat]), max_new_tokens=TOKENS, do_sample=False, pad_token_id=2
            )
        expected = generated[0, len(chat) :].tolist()
        report = samebits_program.json(
            "run", smollm2, text, "--dtype", "float32", "--temperature", 0, "--max-tokens", TOKENS
        )  # fmt: skip
        assert report["prompt_ids"] == chat, text
        assert report["ids"] == expected, text
        assert report["text"] == tokenizer.decode(expected, skip_special_tokens=True)


def test_repetition_penalty(smollm2: Path, tokenizer: Any, samebits_program: Any) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(
        smollm2, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    ids = tokenizer.encode(TEXTS[4])
    answers = []
    for penalty in (1.0, 1.3):
        with torch.no_grad():
            generated = model.generate(
                torch.tensor([ids]), max_new_tokens=24, do_sample=False, pad_token_id=2,
                repetition_penalty=penalty,
            )  # fmt: skip
        answers.append(generated[0, len(ids) :].tolist())
        report = samebits_program.json(
            "run", smollm2, TEXTS[4], "--raw", "--dtype", "float32", "--max-tokens", 24,
            "--temperature", 0, "--repetition-penalty", penalty,
        )  # fmt: skip
        assert report["ids"] == answers[-1]
    assert answers[0] != answers[1]


def test_transformers_bfloat16_trace(
    smollm2: Path, tokenizer: Any, samebits_program: Any, tmp_path: Path
) -> None:
    ids = tokenizer.encode(TEXTS[0] + " " + TEXTS[4], add_special_tokens=False)[:64]
    assert len(ids) == 64
    model = transformers.AutoModelForCausalLM.from_pretrained(
        smollm2, dtype=torch.bfloat16, attn_implementation="eager"
    ).eval()
    path = tmp_path / "torch.safetensors"
    samebits.capture(model, ids, path)
    report = samebits_program.json("check", smollm2, path)
    assert report["findings"] == []
    assert len(report["nodes"]) > 30 * 15
    grades = {node["name"]: node["grade"] for node in report["nodes"]}
    assert {n: g for n, g in grades.items() if g not in ("identical", "rounding")} == {}


@pytest.mark.parametrize("cache", ["f32", "f16"])
def test_ggml_order(smollm2: Path, samebits_program: Any, tmp_path: Path, cache: str) -> None:
    """Sums as llama.cpp's are rounding; its float16 cache is named."""
    path = tmp_path / "ggml.safetensors"
    port = Path(__file__).parents[2] / "examples" / "ggml_order" / "port.py"
    ids = "504,3575,282,4649,314,7042,28,284,260,4626,338,7313"
    subprocess.run([sys.executable, port, smollm2, ids, path, "--cache", cache], check=True)
    report = samebits_program.json("check", smollm2, path, exit_code=0 if cache == "f32" else 1)
    causes = {finding["cause"] for finding in report["findings"]}
    assert causes == (set() if cache == "f32" else {"cache-low-precision"})
    wrong = {node["name"].split(".")[-1] for node in report["nodes"] if node["grade"] == "bug"}
    assert wrong == (set() if cache == "f32" else {"scores", "context"})


def test_chat_template_and_tokenizer(smollm2: Path, tokenizer: Any, samebits_program: Any) -> None:
    for text in ["Hi", "What's 12 + 34?\n\n  Don't guess: it's easy!", *TEXTS]:
        expected = tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], add_generation_prompt=True, return_dict=True
        )["input_ids"]
        chat = samebits_program.json("run", smollm2, text, "--max-tokens", 1)
        assert chat["prompt_ids"] == expected, text
        raw = samebits_program.json("run", smollm2, text, "--raw", "--max-tokens", 1)
        assert raw["prompt_ids"] == tokenizer.encode(text, add_special_tokens=False), text
