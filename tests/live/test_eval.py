"""`samebits eval` against transformers: item by item the same answers."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")

import samebits  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
# Held-out items that are compared; SAMEBITS_EVAL=full takes all 500.
SAMPLE = 500 if os.environ.get("SAMEBITS_EVAL") == "full" else 60


def results(path: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines[0]["format"] == "samebits-eval-1"
    return sorted(lines[1:], key=lambda line: line["item"])


def chat_prompt(tokenizer: Any, question: str) -> list[int]:
    return tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], add_generation_prompt=True, return_dict=True
    )["input_ids"]


def greedy(model: Any, prompt: list[int], count: int) -> list[int]:
    with torch.no_grad():
        output = model.generate(
            torch.tensor([prompt]), max_new_tokens=count, do_sample=False, pad_token_id=0
        )
    return output[0, len(prompt) :].tolist()


def load(folder: Path, dtype: Any, attention: str = "sdpa") -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, attn_implementation=attention
    ).eval()


def compare(folder: Path, questions: list[str], lines: list[dict[str, Any]], model: Any) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    assert len(lines) == len(questions)
    for question, line in zip(questions, lines, strict=True):
        prompt = chat_prompt(tokenizer, question)
        assert line["prompt_tokens"] == len(prompt)
        [sample] = line["samples"]
        expected = greedy(model, prompt, 256 if sample["stop_reason"] == "eos_token" else 64)
        assert sample["ids"][: len(expected)] == expected, question
        if sample["stop_reason"] == "eos_token":
            assert sample["ids"] == expected
            assert sample["text"] == tokenizer.decode(expected, skip_special_tokens=True)


def heldout(nano: Path) -> list[str]:
    lines = (nano / "heldout.jsonl").read_text().splitlines()[:SAMPLE]
    return [json.loads(line)["question"] for line in lines]


def test_heldout_in_float32(samebits_program: Any, nano: Path, tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    samebits_program.json(
        "eval", nano, nano / "heldout.jsonl", "--chat", "--dtype", "float32", "--limit", SAMPLE,
        "-o", path,
    )  # fmt: skip
    compare(nano, heldout(nano), results(path), load(nano, torch.float32))


def test_heldout_under_a_profile(samebits_program: Any, nano: Path, tmp_path: Path) -> None:
    """bfloat16, in torch's own order of summation: the tokens of generate."""
    questions = heldout(nano)
    tokenizer = transformers.AutoTokenizer.from_pretrained(nano)
    lengths = sorted({len(chat_prompt(tokenizer, question)) for question in questions})
    profile = tmp_path / "torch.profile.json"
    done = subprocess.run(
        [sys.executable, "-m", "samebits", "probe", "--model", nano, "--dtype", "bfloat16",
         "--prompts", ",".join(map(str, lengths)), "--steps", "32", "--threads", "1",
         "-o", profile],
        capture_output=True, text=True, check=False, timeout=1200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    path = tmp_path / "out.jsonl"
    ran = samebits_program(
        "eval", nano, nano / "heldout.jsonl", "--chat", "--limit", SAMPLE, "--profile", profile,
        "-o", path,
    )  # fmt: skip
    if "not proven" in ran.stderr:
        pytest.skip(f"not proven on this machine: {ran.stderr.splitlines()[0]}")
    assert ran.returncode == 0, ran.stderr
    compare(nano, questions, results(path), load(nano, torch.bfloat16))


def test_generated_questions_with_smollm2(
    samebits_program: Any, smollm2: Path, tmp_path: Path
) -> None:
    questions = tmp_path / "questions.jsonl"
    subprocess.run([sys.executable, ROOT / "tools" / "make_questions.py", questions], check=True)
    path = tmp_path / "out.jsonl"
    samebits_program.json(
        "eval", smollm2, questions, "--chat", "--dtype", "float32", "--limit", 6,
        "--max-tokens", 64, "-o", path,
    )  # fmt: skip
    texts = [json.loads(line)["question"] for line in questions.read_text().splitlines()[:6]]
    compare(smollm2, texts, results(path), load(smollm2, torch.float32, "eager"))


def test_perplexity(samebits_program: Any, nano: Path, tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text((nano / "README.md").read_text()[:600])
    tokenizer = transformers.AutoTokenizer.from_pretrained(nano)
    ids = tokenizer(text.read_text())["input_ids"]
    trace = tmp_path / "torch.safetensors"
    model = load(nano, torch.float32, "eager")
    samebits.capture(model, ids, trace)
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0].double()
    expected = torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(ids[1:])).item()
    report = samebits_program.json(
        "eval", nano, text, "--perplexity", "--against", trace, "--dtype", "float32"
    )
    assert report["scored"] == len(ids) - 1
    # The two engines' logits differ by rounding; what that moves is the divergence they report.
    assert report["against"]["same_top"] == len(ids)
    assert report["against"]["kl_max"] < 1e-6
    assert abs(report["mean_nll"] - expected) < 1e-4
    assert report["perplexity"] == pytest.approx(math.exp(report["mean_nll"]), rel=1e-12)

    half = samebits_program.json("eval", nano, text, "--perplexity", "--against", trace)
    assert half["against"]["kl_median"] > 0
    ours = tmp_path / "ours.safetensors"
    joined = ",".join(map(str, ids))
    done = samebits_program("trace", nano, "--ids", joined, "--nodes", "lm_head", "-o", ours)
    assert done.returncode == 0, done.stderr
    from safetensors.torch import load_file

    q = torch.log_softmax(load_file(ours)["lm_head"].double(), -1)
    p = torch.log_softmax(load_file(trace)["lm_head"].double(), -1)
    kl = (p.exp() * (p - q)).sum(-1).sort().values
    against = half["against"]
    assert against["kl_mean"] == pytest.approx(kl.mean().item(), rel=1e-9)
    assert against["kl_max"] == pytest.approx(kl[-1].item(), rel=1e-9)
    for key, share in (("kl_median", 0.5), ("kl_p999", 0.999)):
        rank = math.ceil(share * len(kl)) - 1
        assert against[key] == pytest.approx(kl[rank].item(), rel=1e-9)
    assert against["same_top"] == int((p.argmax(-1) == q.argmax(-1)).sum())
