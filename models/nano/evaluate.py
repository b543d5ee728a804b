"""Measures the embedded model on the held-out questions, with transformers.

    python models/nano/evaluate.py

Greedy decoding in batches; an answer counts when the number behind its "####" is the right one.
Says nothing about samebits: it is transformers that runs the model here.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

HERE = Path(__file__).resolve().parent


def wilson(right: int, count: int, z: float = 1.959964) -> tuple[float, float]:
    """The 95% interval of a share; unlike the normal one it holds near 0 and 1."""
    share = right / count
    middle = share + z * z / (2 * count)
    spread = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    return (middle - spread) / scale, (middle + spread) / scale


def result(answer: str) -> str | None:
    """What stands behind the last "####"; None when there is none."""
    _, mark, number = answer.rpartition("####")
    return number.strip() if mark else None


def answers(model, tokenizer, questions: list[str], batch: int) -> list[str]:
    found: list[str] = []
    for first in range(0, len(questions), batch):
        prompts = [
            tokenizer.apply_chat_template(
                [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
            )
            for question in questions[first : first + batch]
        ]
        inputs = tokenizer(
            prompts,
            return_tensors="pt",
            padding=True,
            padding_side="left",
            add_special_tokens=False,
        )
        width = inputs["input_ids"].shape[1]
        output = model.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            max_new_tokens=48,
            do_sample=False,
            pad_token_id=tokenizer.pad_token_id,
        )
        found += tokenizer.batch_decode(output[:, width:], skip_special_tokens=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=HERE)
    parser.add_argument("--questions", type=Path, help="jsonl; default: heldout.jsonl of the model")
    parser.add_argument("--dtype", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--batch", type=int, default=50)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--wrong", action="store_true", help="print what was answered wrongly")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    lines = (args.questions or args.model / "heldout.jsonl").read_text().splitlines()
    problems = [json.loads(line) for line in lines]
    questions = [problem["question"] for problem in problems]
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    for dtype in args.dtype:
        start = time.monotonic()
        model = AutoModelForCausalLM.from_pretrained(
            args.model, dtype=getattr(torch, dtype), attn_implementation="eager"
        )
        said = answers(model, tokenizer, questions, args.batch)
        right = 0
        for problem, answer in zip(problems, said, strict=True):
            expected = result(problem["answer"])
            if expected is not None and result(answer) == expected:
                right += 1
            elif args.wrong:
                print(f"{problem['question']}  said: {answer}  right: {problem['answer']}")
        low, high = wilson(right, len(problems))
        print(
            f"{dtype}: {right} of {len(problems)} held-out questions right, "
            f"{100 * right / len(problems):.1f}% "
            f"(95% interval {100 * low:.1f} to {100 * high:.1f}%), "
            f"{time.monotonic() - start:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
