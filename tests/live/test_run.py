"""`samebits run` and `samebits trace` as a user meets them, on the embedded model."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

WRONG = [
    (["--ids", ""], "give a prompt or --ids 1,2,3"),
    (["--ids", "1,,2"], "--ids: expected 1,2,3; wrong from character 3: ',2'"),
    (["--ids", "1,2,"], "--ids: expected 1,2,3; wrong from character 3: '2,'"),
    (["--ids", "1 2"], "--ids: expected 1,2,3; wrong from character 1: '1 2'"),
    (["--ids=-1"], "--ids: expected 1,2,3; wrong from character 1: '-1'"),
    (["--ids", "99999999999999999999"], "--ids: expected 1,2,3"),
    (["--ids", "1,496"], "token id 496: expected 0 to 495 (vocab_size - 1)"),
    (["--ids", ",".join(["1"] * 1025)], "1025 tokens: the model's context ends at 1024"),
    (["text", "--ids", "1"], "give a prompt or --ids or --chat, not more than one"),
    ([""], "give a prompt or --ids 1,2,3"),
    (["--ids", "1", "--dtype", "int8"], "--dtype int8: expected float32, bfloat16 or float16"),
    (["--ids", "1", "--cpu", "z80"], "--cpu z80: expected native"),
    (["--ids", "1", "--threads", "-2"], "--threads -2: expected 1 to 1024"),
    (["--ids", "1", "--chunk", "0"], "--chunk 0: expected at least 1"),
    (["--ids", "1", "--unknown"], "--unknown"),
]
WRONG_RUN = [
    (["--ids", "1", "--max-tokens", "0"], "--max-tokens"),
    (["--ids", "1", "--temperature", "-1"], "--temperature"),
    (["--ids", "1", "--temperature", "nan"], "--temperature"),
    (["--ids", "1", "--top-p", "nan"], "--top-p"),
    (["--ids", "1", "--top-p", "1.5"], "--top-p"),
    (["--ids", "1", "--top-k", "-1"], "--top-k"),
]


def name(value: Any) -> str:
    return " ".join(value)[:40] if isinstance(value, list) else ""


@pytest.mark.parametrize(("arguments", "words"), WRONG + WRONG_RUN, ids=name)
def test_run_errors(arguments: list[str], words: str, samebits_program: Any, nano: Path) -> None:
    done = samebits_program("run", nano, *arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(("arguments", "words"), WRONG, ids=name)
def test_trace_errors(
    arguments: list[str], words: str, samebits_program: Any, nano: Path, tmp_path: Path
) -> None:
    done = samebits_program("trace", nano, *arguments, "-o", tmp_path / "t.safetensors")
    assert done.returncode == 2
    assert words in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_folders(samebits_program: Any, nano: Path, tmp_path: Path) -> None:
    for model, words in [
        (tmp_path / "none", "not a folder"),
        (nano / "config.json", "not a folder"),
        (tmp_path, "config.json"),
    ]:
        done = samebits_program("run", model, "--ids", "1")
        assert done.returncode == 2
        assert done.stderr.startswith("samebits: ")
        assert words in done.stderr
    for output in [tmp_path, tmp_path / "none" / "t.safetensors"]:
        done = samebits_program("trace", nano, "--ids", "1", "-o", output)
        assert done.returncode == 2
        assert str(output) in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_a_tokenizer(samebits_program: Any, nano: Path, tmp_path: Path) -> None:
    for file in ("config.json", "model.safetensors"):
        (tmp_path / file).symlink_to(nano / file)
    done = samebits_program("run", tmp_path, "--ids", "1,2,3", "--max-tokens", "4")
    assert done.returncode == 0
    assert len(done.stdout.strip().split(",")) == 4
    report = samebits_program.json("run", tmp_path, "--ids", "1,2,3", "--max-tokens", "4")
    assert report["text"] is None
    assert ",".join(map(str, report["ids"])) == done.stdout.strip()
    done = samebits_program("run", tmp_path, "What is 1 + 1?")
    assert done.returncode == 2
    assert "--ids" in done.stderr


def test_a_full_output_is_an_error(samebits_program: Any, nano: Path) -> None:
    with Path("/dev/full").open("w") as full:
        for extra in ([], ["--json"]):
            done = subprocess.run(
                [samebits_program.binary, "run", nano, "--ids", "1,2", "--max-tokens", "2", *extra],
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
                timeout=60,
            )
            assert done.returncode == 2
            assert "standard output" in done.stderr


QUESTION = "What is 17 + 25?"
WAYS = [
    [],
    [],
    ["--threads", "1"],
    ["--threads", "7"],
    ["--chunk", "1"],
    ["--chunk", "5", "--threads", "3"],
    ["--cpu", "portable"],
    ["--cpu", "portable", "--threads", "2", "--chunk", "3"],
]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize(
    "sampling",
    [[], ["--temperature", "3", "--seed", "7"], ["--temperature", "2", "--top-k", "20"]],
    ids=["greedy", "seed", "top-k"],
)
def test_only_timings_differ(
    dtype: str, sampling: list[str], samebits_program: Any, nano: Path
) -> None:
    reports = []
    for way in WAYS:
        report = samebits_program.json("run", nano, QUESTION, "--dtype", dtype, *sampling, *way)
        timings = report.pop("timings")
        assert {"cpu", "threads", "prefill_tokens_per_s", "decode_tokens_per_s"} <= set(timings)
        reports.append(report)
    assert all(report == reports[0] for report in reports)
    keys = {
        "dtype",
        "ids",
        "logprobs",
        "profile",
        "prompt",
        "prompt_ids",
        "sampling",
        "stop_reason",
    }
    assert set(reports[0]) == {*keys, "text"}
    assert reports[0]["dtype"] == dtype
    if sampling:
        kept = sampling[: sampling.index("--seed")] if "--seed" in sampling else sampling
        other = samebits_program.json("run", nano, QUESTION, "--dtype", dtype, *kept, "--seed", "8")
        assert other["ids"] != reports[0]["ids"]


def test_logprobs_are_those_of_the_logits(
    samebits_program: Any, nano: Path, tmp_path: Path
) -> None:
    """The logits of the trace of prompt and answer, log softmax in fp64. 1e-6: sampler.h."""
    report = samebits_program.json(
        "run", nano, QUESTION, "--dtype", "float32", "--top-logprobs", 7, "--temperature", 3,
        "--repetition-penalty", 1.5, "--seed", 3, "--max-tokens", 8,
    )  # fmt: skip
    ids = report["prompt_ids"] + report["ids"]
    path = tmp_path / "logits.safetensors"
    joined = ",".join(map(str, ids))
    done = samebits_program(
        "trace", nano, "--ids", joined, "--dtype", "float32", "--nodes", "lm_head", "-o", path
    )
    assert done.returncode == 0, done.stderr
    logits = load_file(path)["lm_head"].astype(np.float64)[len(report["prompt_ids"]) - 1 : -1]
    expected = logits - np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1))[:, None]
    expected -= logits.max(-1, keepdims=True)
    assert len(report["logprobs"]) == len(report["ids"]) > 1
    for row, entry, chosen in zip(expected, report["logprobs"], report["ids"], strict=True):
        assert entry["id"] == chosen
        assert abs(entry["logprob"] - row[chosen]) < 1e-6
        order = np.argsort(-row, kind="stable")[:7]
        assert [other["id"] for other in entry["top"]] == order.tolist()
        for other in entry["top"]:
            assert abs(other["logprob"] - row[other["id"]]) < 1e-6


def test_traces_have_the_same_bytes_but_for_the_header(
    samebits_program: Any, nano: Path, tmp_path: Path
) -> None:
    digests = set()
    for i, way in enumerate(WAYS):
        path = tmp_path / f"{i}.safetensors"
        done = samebits_program("trace", nano, QUESTION, "-o", path, *way)
        assert done.returncode == 0, done.stderr
        data = path.read_bytes()
        digests.add(hashlib.sha256(data[8 + int.from_bytes(data[:8], "little") :]).hexdigest())
    assert len(digests) == 1


def test_text_is_streamed_as_in_the_report(samebits_program: Any, nano: Path) -> None:
    done = samebits_program("run", nano, QUESTION)
    report = samebits_program.json("run", nano, QUESTION)
    assert done.returncode == 0
    assert done.stdout == report["text"] + "\n"
    assert report["stop_reason"] == "eos_token"


def test_the_end_of_the_context(samebits_program: Any, nano: Path) -> None:
    ids = ",".join(["17"] * 1022)
    report = samebits_program.json("run", nano, "--ids", ids, "--temperature", "1000", "--seed", 1)
    assert report["stop_reason"] == "context"
    assert len(report["ids"]) == 3  # two more fit in, and the last needs no place


def test_the_chat_template_is_transformers(samebits_program: Any, nano: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    tokenizer = transformers.AutoTokenizer.from_pretrained(nano)
    for text in [QUESTION, "Don't!  It's\n\n 3.14\t...", "  a <|im_end|> b ", "x"]:
        expected = tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], add_generation_prompt=True, return_dict=True
        )["input_ids"]
        chat = samebits_program.json("run", nano, text, "--max-tokens", 1)
        assert chat["prompt_ids"] == expected
        raw = samebits_program.json("run", nano, text, "--raw", "--max-tokens", 1)
        assert raw["prompt_ids"] == tokenizer.encode(text, add_special_tokens=False)
