"""Reads the same long prompt with samebits and with PyTorch in turns and prints the ratio.

    build/venv/bin/python bench/prefill_vs_torch.py FOLDER --samebits build/release/samebits

FOLDER is a checkpoint, for instance of tools/make_random_checkpoint.py --shape qwen2.5-1.5b. Both
use the same number of threads and bfloat16, and compute the logits of the last token only. A ratio
is that of two times next to one another: they share what else the machine does at that moment.
"""

import argparse
import json
import statistics
import subprocess
import time
from typing import Any


def samebits_seconds(args: argparse.Namespace) -> float:
    """One round of `samebits bench`, which has read all weights once before."""
    command = [args.samebits, "bench", args.folder, "--json", "--rounds", "1", "--max-tokens", "1"]
    command += ["--dtype", "bfloat16", "--threads", str(args.threads)]
    command += ["--prompt-tokens", str(args.tokens)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(json.loads(output)["prefill"]["seconds"])


def torch_prefill(args: argparse.Namespace) -> Any:
    """A function that reads the prompt once and returns the seconds it took."""
    import torch
    import transformers

    torch.set_num_threads(args.threads)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        args.folder, dtype=torch.bfloat16, attn_implementation="sdpa"
    ).eval()
    ids = torch.randint(0, model.config.vocab_size, (1, args.tokens))

    def prefill() -> float:
        start = time.perf_counter()
        with torch.inference_mode():
            model(input_ids=ids, use_cache=True, logits_to_keep=1)
        return time.perf_counter() - start

    print(f"torch {torch.__version__}, transformers {transformers.__version__}, sdpa")
    return prefill


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--samebits", default="build/release/samebits")
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    prefill = torch_prefill(args)
    prefill()  # reads the weights
    ratios = []
    for _ in range(args.rounds):
        theirs = prefill()
        time.sleep(0.5)  # their threads wait for work for a while before they sleep
        ours = samebits_seconds(args)
        theirs = statistics.mean([theirs, prefill()])
        ratios.append(ours / theirs)
        print(
            f"samebits {ours:.2f} s ({args.tokens / ours:.1f} tokens/s), "
            f"PyTorch {theirs:.2f} s ({args.tokens / theirs:.1f} tokens/s), ratio {ratios[-1]:.2f}",
            flush=True,
        )
    print(
        f"samebits takes {statistics.median(ratios):.2f} times as long as PyTorch "
        f"({min(ratios):.2f} to {max(ratios):.2f}, {args.rounds} rounds)"
    )


if __name__ == "__main__":
    main()
