"""Makes a profile: how torch adds on this machine, for what a model meets, each entry proven beside
the running kernels (docs/profile-format.md).

The matrix products are found by probe_gemm.py, all other operations by probe_ops.py; here they
become one file, with what depends on the process (where the weights lie, the rotary angles).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import transformers

from samebits import probe_gemm, probe_ops, shapes
from samebits.profile import FORMAT, cpu, digest, merge
from samebits.torch_capture import weight_alignment

Json = dict[str, Any]
# done and total in no unit, and what is being probed
Progress = Callable[[int, int, str], None]

ATTENTIONS = ("eager", "sdpa")


@dataclass(frozen=True)
class Wanted:
    """What a profile is to cover: these prompt lengths, each continued by so many single tokens;
    a batch is padded, so its prompts have one length."""

    prompts: Sequence[int]
    steps: int
    batch: int = 1
    attentions: Sequence[str] = ATTENTIONS


def _sizes(model: Any, wanted: Wanted, dtype: torch.dtype) -> probe_ops.Sizes:
    config = model.config
    attention = model.model.layers[0].self_attn
    norms = [config.hidden_size] + [attention.head_dim] * hasattr(attention, "q_norm")
    longest = max(wanted.prompts) + wanted.steps
    rotary = model.model.rotary_emb
    table = probe_ops.RotaryTable(rotary.inv_freq.float(), rotary.attention_scaling, longest)
    return probe_ops.Sizes(
        dtype=dtype,
        norm_sizes=norms,
        intermediate_size=config.intermediate_size,
        head_dim=attention.head_dim,
        prompts=[wanted.batch * prompt for prompt in wanted.prompts] + [wanted.batch],
        max_keys=longest,
        rotary=[table],
    )


def probe(model: Any, wanted: Wanted, progress: Progress = lambda *_: None) -> Json:
    """The profile of a transformers model on the CPU, in its dtype, with torch's present number of
    threads. Entries that no rule explains are in it, unproven, with the counts."""
    dtype = str(model.dtype).removeprefix("torch.")
    loads = [
        shapes.workload_of(model.config, wanted.prompts, wanted.steps, wanted.batch, attention)
        for attention in wanted.attentions
    ]
    loads[1:] = [replace(load, linears=()) for load in loads[1:]]  # the same for all
    total = sum(probe_gemm.work(load) for load in loads) * 1.1
    done = 0.0

    def products(work: float) -> None:
        nonlocal done
        done += work
        progress(int(done), int(total), "matrix products")

    def functions(name: str) -> None:
        progress(int(done), int(total), name)

    entries = []
    for load in loads:
        entries += probe_gemm.probe_products(load, dtype, products)
    sizes = _sizes(model, wanted, model.dtype)
    name, flags = cpu()
    profile: Json = {
        "format": FORMAT,
        "framework": "torch",
        "framework_version": torch.__version__,
        "transformers_version": transformers.__version__,
        "cpu": name,
        "cpu_flags": flags,
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "dtype": dtype,
        "rng": "torch",
        "model_type": model.config.model_type,
        "prompts": sorted(set(wanted.prompts)),
        "steps": wanted.steps,
        "batch": wanted.batch,
        "weight_alignment": weight_alignment(model),
        **merge(entries),
        "functions": probe_ops.probe_functions(sizes, progress=functions),
    }
    profile["digest"] = digest(profile)
    return profile
