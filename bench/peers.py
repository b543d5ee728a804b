"""samebits beside other engines on the same checkpoint, in turns: one table.

    build/venv/bin/python bench/peers.py FOLDER
    build/venv/bin/python bench/peers.py FOLDER --llama-bench PATH --gguf FILE --openvino FOLDER

Peers that are not installed, or whose model is not given, are left out and named. A round measures
every engine once, one after the other; the table has medians, and the ratio of samebits to the peer
round by round. Prefill: --tokens random tokens, logits of the last one. Decode: 64 behind 32.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

CONTEXT, NEW = 32, 64
# Tokens a second: of a prompt, of decoding.
Measure = Callable[[], tuple[float, float]]


def cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(": ")[2]
    return platform.processor()


def samebits(args: argparse.Namespace) -> tuple[str, Measure]:
    # The second round counts: the others' processes have read the weights and have memory, too.
    command = [args.samebits, "bench", args.folder, "--json", "--rounds", "2", "--batch", "1"]
    command += ["--dtype", args.dtype, "--threads", str(args.threads), "--max-tokens", str(NEW)]
    command += ["--prompt-tokens", f"{CONTEXT},{args.tokens}"]

    def measure() -> tuple[float, float]:
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        runs = json.loads(output)["runs"]
        prefill = [r for r in runs if r["kind"] == "prefill" and r["tokens"] == args.tokens]
        decode = [r for r in runs if r["kind"] == "decode" and r["depth"] == CONTEXT]
        return (
            args.tokens / prefill[0]["seconds_of_rounds"][-1],
            NEW / decode[0]["seconds_of_rounds"][-1],
        )

    version = subprocess.run(
        [args.samebits, "--version"], check=True, capture_output=True, text=True
    ).stdout
    return f"{version.strip()} {args.dtype}", measure


def transformers(args: argparse.Namespace) -> tuple[str, Measure]:
    import torch
    import transformers

    torch.set_num_threads(args.threads)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        args.folder, dtype=getattr(torch, args.dtype), attn_implementation="sdpa"
    ).eval()
    ids = torch.randint(0, model.config.vocab_size, (1, args.tokens))

    def prefill() -> float:
        start = time.perf_counter()
        with torch.inference_mode():
            model(input_ids=ids, use_cache=True, logits_to_keep=1)
        return args.tokens / (time.perf_counter() - start)

    def decode() -> float:
        with torch.inference_mode():
            out = model(input_ids=ids[:, :CONTEXT], use_cache=True, logits_to_keep=1)
            start = time.perf_counter()
            for _ in range(NEW):
                token = out.logits[:, -1].argmax(-1, keepdim=True)
                out = model(input_ids=token, past_key_values=out.past_key_values, use_cache=True)
        return NEW / (time.perf_counter() - start)

    prefill()  # reads the weights
    name = f"transformers {transformers.__version__}, torch {torch.__version__}, {args.dtype} sdpa"
    return name, lambda: (prefill(), decode())


def openvino(args: argparse.Namespace) -> tuple[str, Measure]:
    import numpy as np
    import openvino as ov
    import openvino_genai as genai

    hint = {"bfloat16": "bf16", "float16": "f16", "float32": "f32"}[args.dtype]
    pipeline = genai.LLMPipeline(
        args.openvino, "CPU", INFERENCE_NUM_THREADS=args.threads, INFERENCE_PRECISION_HINT=hint
    )
    random = np.random.default_rng(0)

    def seconds(prompt: int, new: int) -> float:
        config = genai.GenerationConfig()
        config.max_new_tokens = config.min_new_tokens = new
        config.ignore_eos, config.do_sample, config.apply_chat_template = True, False, False
        ids = ov.Tensor(random.integers(100, 20000, (1, prompt)).astype(np.int64))
        start = time.perf_counter()
        pipeline.generate(ids, config, lambda _: False)
        return time.perf_counter() - start

    def measure() -> tuple[float, float]:
        first = seconds(CONTEXT, 1)
        decode = NEW / (seconds(CONTEXT, NEW + 1) - first)
        return args.tokens / seconds(args.tokens, 1), decode

    seconds(CONTEXT, 4)
    return f"OpenVINO GenAI {genai.__version__}, {hint}", measure


def llama(args: argparse.Namespace) -> tuple[str, Measure]:
    def run(*options: str) -> dict[str, object]:
        command = [args.llama_bench, "-m", args.gguf, "-t", str(args.threads), "-r", "1"]
        output = subprocess.run(
            [*command, "-o", "json", *options], check=True, capture_output=True, text=True
        ).stdout
        found: dict[str, object] = json.loads(output)[0]
        return found

    def measure() -> tuple[float, float]:
        prefill = run("-p", str(args.tokens), "-n", "0")
        decode = run("-p", "0", "-n", str(NEW), "-d", str(CONTEXT))
        return float(str(prefill["avg_ts"])), float(str(decode["avg_ts"]))

    first = run("-p", "8", "-n", "0")
    return f"llama.cpp {first['build_commit']}, {first['model_type']}", measure


def engines(args: argparse.Namespace) -> list[tuple[str, Measure]]:
    found = [samebits(args)]
    if importlib.util.find_spec("transformers") and importlib.util.find_spec("torch"):
        found.append(transformers(args))
    else:
        print("left out: transformers (not installed)")
    if args.openvino and importlib.util.find_spec("openvino_genai"):
        found.append(openvino(args))
    else:
        print("left out: OpenVINO GenAI (--openvino FOLDER and the package openvino-genai)")
    if args.llama_bench and args.gguf:
        found.append(llama(args))
    else:
        print("left out: llama.cpp (--llama-bench PATH and --gguf FILE)")
    return found


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"


def ratio(ours: list[float], theirs: list[float]) -> str:
    return f"{statistics.median(a / b for a, b in zip(ours, theirs, strict=True)):.2f}"


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("folder", help="a checkpoint")
    parser.add_argument("--samebits", default="build/release/samebits")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--tokens", type=int, default=512, help="of the prompt")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--openvino", help="the same model, exported for OpenVINO")
    parser.add_argument("--llama-bench", help="the program of that name")
    parser.add_argument("--gguf", help="the same model for llama.cpp")
    args = parser.parse_args()
    found = engines(args)
    speeds: list[tuple[list[float], list[float]]] = [([], []) for _ in found]
    for number in range(args.rounds):
        for (name, measure), (prefill, decode) in zip(found, speeds, strict=True):
            time.sleep(0.5)  # threads of some peers wait busily for a while
            one, other = measure()
            prefill.append(one)
            decode.append(other)
            print(f"round {number + 1}: {name}: {one:.1f}, {other:.1f}", file=sys.stderr)
    print(f"\n{args.folder}, {args.threads} threads, {cpu_name()}, {args.rounds} rounds in turns\n")
    print(f"| tokens/s | prompt of {args.tokens} | samebits by it | decode | samebits by it |")
    print("|---|---|---|---|---|")
    for (name, _), (prefill, decode) in zip(found, speeds, strict=True):
        first, second = ratio(speeds[0][0], prefill), ratio(speeds[0][1], decode)
        print(f"| {name} | {spread(prefill)} | {first} | {spread(decode)} | {second} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
