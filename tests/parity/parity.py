"""Runs transformers and samebits side by side and counts differing bits, component by component.

The chain is a user's: samebits.capture records transformers, samebits.probe proves in which order
torch adds, `samebits trace --like --profile` replays, `samebits diff` counts. Everything is in
process but samebits itself, which is the program.
"""

from __future__ import annotations

import json
import subprocess
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers

import samebits
from samebits.probe import Wanted, probe
from samebits.profile import unproven

# Qwen2 with biases as large as Qwen2.5's, which make the scores large and their rounding coarse.
SIZES: dict[str, dict[str, Any]] = {
    "qwen2-256": {
        "hidden_size": 256, "num_attention_heads": 7, "num_key_value_heads": 1, "head_dim": 64,
        "intermediate_size": 704, "vocab_size": 1000, "num_hidden_layers": 2,
        "tie_word_embeddings": False,
    },
    "qwen2-896-tied": {
        "hidden_size": 896, "num_attention_heads": 14, "num_key_value_heads": 2,
        "intermediate_size": 1216, "vocab_size": 1504, "num_hidden_layers": 2,
        "tie_word_embeddings": True,
    },
    "qwen2-896-head128": {
        "hidden_size": 896, "num_attention_heads": 7, "num_key_value_heads": 1,
        "intermediate_size": 1216, "vocab_size": 1504, "num_hidden_layers": 2,
        "tie_word_embeddings": False,
    },
    "qwen2.5-7b-layer": {
        "hidden_size": 3584, "num_attention_heads": 28, "num_key_value_heads": 4,
        "intermediate_size": 18944, "vocab_size": 152064, "num_hidden_layers": 1,
        "tie_word_embeddings": False,
    },
}  # fmt: skip

COMPONENTS = [
    ("embedding", ("embed_tokens",)),
    ("rotary", ("rotary.cos", "rotary.sin", "q_rope", "k_rope")),
    ("RMSNorm", ("layernorm", "q_norm", "k_norm")),
    ("q, k, v projections", ("q_proj", "k_proj", "v_proj")),
    ("scores", ("scores",)),
    ("softmax", ("probs",)),
    ("context", ("context",)),
    ("o_proj", ("o_proj",)),
    ("MLP gate, up", ("gate_proj", "up_proj")),
    ("MLP activation, product", ("act", "gated")),
    ("MLP down", ("down_proj",)),
    ("residuals", ("attn_residual",)),  # and the layers' outputs
    ("final norm", ("model.norm",)),
]
# Which nodes a section of a profile, or one of its functions, is for.
_ATTENTION = (".scores", ".probs", ".context")
NODES_OF = {
    "linear": ("_proj", "lm_head"), "scores": _ATTENTION, "context": _ATTENTION,
    "sdpa_scores": _ATTENTION, "sdpa_context": _ATTENTION, "sdpa": _ATTENTION,
    "softmax": _ATTENTION, "sum": ("norm",), "silu": (".act",), "rotary": (".cos", ".sin"),
}  # fmt: skip
SAMPLING = {"temperature": 0.7, "top_k": 20, "top_p": 0.8, "repetition_penalty": 1.05}


@dataclass
class Counts:
    """By component: values compared, and how many of them differ."""

    compared: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    differing: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    not_proven: set[str] = field(default_factory=set)  # entries, a line each

    def add(self, component: str, compared: int, differing: int) -> None:
        self.compared[component] += compared
        self.differing[component] += differing

    def total(self) -> tuple[int, int]:
        return sum(self.compared.values()), sum(self.differing.values())


def component_of(name: str, tokens: int) -> str:
    if name == "lm_head":
        return "logits, one token" if tokens == 1 else "logits, several tokens"
    for component, ends in COMPONENTS:
        if name.endswith(ends):
            return component
    return "residuals"


def make_model(name: str, folder: Path) -> None:
    """A random checkpoint in bfloat16, so that it loads in every dtype without a choice."""
    torch.manual_seed(sum(map(ord, name)))
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        config = transformers.Qwen2Config(max_position_embeddings=1024, **SIZES[name])
        model = transformers.Qwen2ForCausalLM(config)
    finally:
        torch.set_default_dtype(before)
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if parameter_name.endswith("bias"):
                parameter.normal_(std=20.0)
            elif parameter_name.endswith("norm.weight"):
                parameter.uniform_(0.5, 1.5)
            elif "embed" in parameter_name:
                parameter.normal_(std=0.1)
            else:
                parameter.normal_(std=1.5 * parameter.shape[1] ** -0.5)
    model.generation_config = transformers.GenerationConfig()
    model.save_pretrained(folder)


def load(folder: Path, dtype: str) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=getattr(torch, dtype), local_files_only=True
    ).eval()


def prompt(length: int, vocab: int, seed: int = 0) -> list[int]:
    return [(i * i * 31 + 17 * i + 5 + 101 * seed) % vocab for i in range(length)]


class Bench:
    """One checkpoint in one dtype with one number of torch threads."""

    def __init__(self, program: Path, folder: Path, dtype: str, threads: int, work: Path) -> None:
        torch.set_num_threads(threads)
        self.program, self.folder, self.dtype, self.threads = program, folder, dtype, threads
        self.work = work
        self.model = load(folder, dtype)
        self.vocab = self.model.config.vocab_size

    def profile(self, wanted: Wanted) -> Path:
        torch.set_num_threads(self.threads)
        path = self.work / "torch.profile.json"
        self.found = probe(self.model, wanted)
        path.write_text(json.dumps(self.found))
        return path

    def run(self, *arguments: object, codes: Sequence[int] = (0,)) -> str:
        done = subprocess.run(
            [self.program, *map(str, arguments)], capture_output=True, text=True, check=False,
            stdin=subprocess.DEVNULL, timeout=3600,
        )  # fmt: skip
        assert done.returncode in codes, f"{arguments}: {done.stderr or done.stdout[-2000:]}"
        return done.stdout

    def trace(self, profile: Path, rows: list[list[int]], attention: str, steps: int) -> Any:
        """Captures and replays; returns `samebits diff --json` of the two."""
        torch.set_num_threads(self.threads)
        reference, mine = self.work / "ref.safetensors", self.work / "mine.safetensors"
        longest = max(map(len, rows))
        padded = [[0] * (longest - len(row)) + row for row in rows]
        mask = [[0] * (longest - len(row)) + [1] * len(row) for row in rows]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            samebits.capture(
                self.model, padded if len(rows) > 1 else rows[0], reference,
                attention_mask=mask if len(rows) > 1 else None, steps=steps, attention=attention,
            )  # fmt: skip
        self.run("trace", self.folder, "--like", reference, "--profile", profile, "-o", mine)
        return json.loads(self.run("diff", reference, mine, "--json", codes=(0, 1)))

    def compare(
        self, counts: Counts, rows: list[list[int]], attention: str, steps: int, profile: Path
    ) -> None:
        difference = self.trace(profile, rows, attention, steps)
        assert difference["only_a"] == difference["only_b"] == []
        assert not difference["inputs_differ"]
        missing = unproven(self.found)
        counts.not_proven |= set(missing)
        if missing and len(rows) == 1:
            self.judge_nodes(profile, missing)
        tokens = len(rows[0])  # of the prompt; every step is one more
        for node in difference["nodes"]:
            assert "not_comparable" not in node, node
            counts.add(component_of(node["name"], tokens), node["elements"], node["differing"])

    def judge_nodes(self, profile: Path, missing: list[str]) -> None:
        """Where entries are unproven, every node that hangs on none of them must be replayed from
        the reference's own inputs without a differing bit."""
        may_differ = {ends for line in missing for ends in NODES_OF[line.split()[0].rstrip(":")]}
        reference = self.work / "ref.safetensors"
        arguments = ("check", self.folder, reference, "--profile", profile, "--json")
        judged = json.loads(self.run(*arguments, codes=(0, 1, 2)))["nodes"]
        replayed = [node for node in judged if "replay_differing" in node]
        proven = [node for node in replayed if not node["name"].endswith(tuple(may_differ))]
        assert proven
        other = [node["name"] for node in proven if node["replay_differing"] > 0]
        assert other == [], f"proven, and other bits: {other[:5]}; not proven: {missing[:5]}"

    def generate(self, profile: Path, ids: list[int], tokens: int, seed: int | None) -> bool:
        """Whether `samebits run` gives generate's tokens; seed None: greedy."""
        torch.set_num_threads(self.threads)
        options: dict[str, Any] = {"do_sample": False, "repetition_penalty": 1.0}
        arguments: list[object] = ["--temperature", 0, "--repetition-penalty", 1]
        if seed is not None:
            torch.manual_seed(seed)
            options = {"do_sample": True, **SAMPLING}
            arguments = ["--seed", seed]
            for name, value in SAMPLING.items():
                arguments += ["--" + name.replace("_", "-"), value]
        input_ids = torch.tensor([ids])
        with torch.no_grad():
            out = self.model.generate(
                input_ids, attention_mask=torch.ones_like(input_ids), max_new_tokens=tokens,
                pad_token_id=0, **options,
            )  # fmt: skip
        answer = json.loads(
            self.run(
                "run", self.folder, "--ids", ",".join(map(str, ids)), "--dtype", self.dtype,
                "--max-tokens", tokens, "--profile", profile, "--json", *arguments,
            )
        )  # fmt: skip
        same: bool = answer["ids"] == out[0, len(ids) :].tolist()
        return same


def traces(bench: Bench, counts: Counts, prompts: Sequence[int], steps: int,
           attentions: Sequence[str], progress: Callable[[str], None] = print) -> None:  # fmt: skip
    """Every prompt under every attention, with its decode steps."""
    profile = bench.profile(Wanted(prompts, steps, 1, attentions))
    for attention in attentions:
        for length in prompts:
            progress(f"{attention}, {length} tokens")
            bench.compare(counts, [prompt(length, bench.vocab)], attention, steps, profile)


def padded_batch(bench: Bench, counts: Counts, lengths: Sequence[int], steps: int,
                 attentions: Sequence[str]) -> None:  # fmt: skip
    profile = bench.profile(Wanted([max(lengths)], steps, len(lengths), attentions))
    rows = [prompt(length, bench.vocab, seed) for seed, length in enumerate(lengths)]
    for attention in attentions:
        bench.compare(counts, rows, attention, steps, profile)


def generations(bench: Bench, length: int, tokens: int, seeds: Sequence[int]) -> Iterator[
    tuple[int | None, bool]
]:  # fmt: skip
    """Greedy, then one a seed."""
    profile = bench.profile(Wanted([length], tokens, 1, ["sdpa"]))
    ids = prompt(length, bench.vocab)
    yield None, bench.generate(profile, ids, tokens, None)
    for seed in seeds:
        yield seed, bench.generate(profile, ids, tokens, seed)
