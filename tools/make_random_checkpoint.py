"""Writes a checkpoint with random weights, for speed, memory and shape tests of any size.

    python tools/make_random_checkpoint.py OUT_DIR --shape qwen2.5-7b
    python tools/make_random_checkpoint.py OUT_DIR --layers 4 --hidden 256 --heads 8 --kv-heads 2 \\
        --intermediate 704 --vocab 1000 --tied
    python tools/make_random_checkpoint.py OUT_DIR --architecture qwen3 --rope yarn --window 64 ...

Makes config.json and the weights as Hugging Face lays them out, in shards with an index when they
do not fit into one. Streams: memory stays near 100 MB whatever the size. Equal arguments give equal
bytes. Makes no tokenizer: such a checkpoint runs on token ids. Needs numpy alone.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

STD = 0.02  # Qwen2's initializer_range
# Coprime, so that the stream of weights (see Weights) repeats only after their product, 1.8e13.
MAGNITUDES = 4194301
SIGNS = 4194287
CHUNK = 1 << 20


@dataclass(frozen=True)
class Sizes:
    num_hidden_layers: int
    hidden_size: int
    num_attention_heads: int
    num_key_value_heads: int
    intermediate_size: int
    vocab_size: int
    tie_word_embeddings: bool
    rope_theta: float = 1e6
    rms_norm_eps: float = 1e-6
    max_position_embeddings: int = 32768
    architecture: str = "qwen2"
    explicit_head_dim: int | None = None
    attention_bias: bool = False  # llama and qwen3: also of o_proj; qwen2 always has its own
    mlp_bias: bool = False  # llama
    rope: str = "default"
    rope_factor: float = 4.0
    original_length: int | None = None
    window: int | None = None  # qwen2 and qwen3: in the upper half of the layers

    @property
    def head_dim(self) -> int:
        return self.explicit_head_dim or self.hidden_size // self.num_attention_heads

    @property
    def rope_parameters(self) -> dict[str, Any]:
        parameters: dict[str, Any] = {"rope_type": self.rope, "rope_theta": self.rope_theta}
        if self.rope != "default":
            parameters["factor"] = self.rope_factor
        if self.rope in ("yarn", "llama3"):
            original = self.original_length or self.max_position_embeddings // 4
            parameters["original_max_position_embeddings"] = original
        if self.rope == "llama3":
            parameters |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
        return parameters


SHAPES = {
    "qwen2.5-0.5b": Sizes(24, 896, 14, 2, 4864, 151936, True),
    "qwen2.5-1.5b": Sizes(28, 1536, 12, 2, 8960, 151936, True),
    "qwen2.5-7b": Sizes(28, 3584, 28, 4, 18944, 152064, False),
}


@dataclass(frozen=True)
class Storage:
    """How a value is held in the file."""

    header: str  # safetensors' name
    config: str  # torch's name
    bits: type[np.unsignedinteger[Any]]

    def encode(self, values: np.ndarray) -> np.ndarray:
        values = np.ascontiguousarray(values, dtype=np.float32)
        if self.header == "F32":
            return values.view(np.uint32)
        if self.header == "F16":
            return values.astype(np.float16).view(np.uint16)
        wide = values.view(np.uint32)  # round: bf16, to nearest, ties to even; finite values only
        return ((wide + 0x7FFF + ((wide >> 16) & 1)) >> 16).astype(np.uint16)


STORAGE = {
    "bf16": Storage("BF16", "bfloat16", np.uint16),
    "f16": Storage("F16", "float16", np.uint16),
    "f32": Storage("F32", "float32", np.uint32),
}


@dataclass(frozen=True)
class Tensor:
    name: str
    shape: tuple[int, ...]

    @property
    def count(self) -> int:
        return math.prod(self.shape)


def tensors(sizes: Sizes) -> Iterator[Tensor]:
    """Names and shapes, in the order of the file."""
    hidden, inner = sizes.hidden_size, sizes.intermediate_size
    queries = sizes.num_attention_heads * sizes.head_dim
    keys = sizes.num_key_value_heads * sizes.head_dim
    yield Tensor("model.embed_tokens.weight", (sizes.vocab_size, hidden))
    for layer in range(sizes.num_hidden_layers):
        prefix = f"model.layers.{layer}."
        yield Tensor(prefix + "input_layernorm.weight", (hidden,))
        for name, rows in (("q_proj", queries), ("k_proj", keys), ("v_proj", keys)):
            yield Tensor(f"{prefix}self_attn.{name}.weight", (rows, hidden))
            if sizes.architecture == "qwen2" or sizes.attention_bias:
                yield Tensor(f"{prefix}self_attn.{name}.bias", (rows,))
        if sizes.architecture == "qwen3":
            for name in ("q_norm", "k_norm"):
                yield Tensor(f"{prefix}self_attn.{name}.weight", (sizes.head_dim,))
        yield Tensor(prefix + "self_attn.o_proj.weight", (hidden, queries))
        if sizes.attention_bias:
            yield Tensor(prefix + "self_attn.o_proj.bias", (hidden,))
        yield Tensor(prefix + "post_attention_layernorm.weight", (hidden,))
        yield Tensor(prefix + "mlp.gate_proj.weight", (inner, hidden))
        yield Tensor(prefix + "mlp.up_proj.weight", (inner, hidden))
        yield Tensor(prefix + "mlp.down_proj.weight", (hidden, inner))
        if sizes.mlp_bias:
            for name, rows in (("gate_proj", inner), ("up_proj", inner), ("down_proj", hidden)):
                yield Tensor(f"{prefix}mlp.{name}.bias", (rows,))
    yield Tensor("model.norm.weight", (hidden,))
    if not sizes.tie_word_embeddings:
        yield Tensor("lm_head.weight", (sizes.vocab_size, hidden))


class Weights:
    """Normal values fast enough for a disk: drawing 7.6e9 of them would take minutes.

    Matrices read one long stream: a ring of values times a ring of signs, of coprime lengths. Two
    rows with the same magnitudes thus have independent signs, and no two tokens always tie.
    """

    def __init__(self, sizes: Sizes, storage: Storage, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._head_dim = sizes.head_dim
        self._storage = storage
        magnitudes = storage.encode(self._normal(MAGNITUDES, STD))
        top = np.array(1, storage.bits) << (8 * magnitudes.itemsize - 1)
        signs = self._rng.integers(0, 2, SIGNS).astype(storage.bits) * top
        # The start of each ring is repeated behind its end, so that every chunk is one slice.
        self._magnitudes = np.concatenate([magnitudes, magnitudes[:CHUNK]])
        self._signs = np.concatenate([signs, signs[:CHUNK]])
        self._position = 0

    def write(self, tensor: Tensor, file: BinaryIO) -> None:
        if len(tensor.shape) == 1:
            file.write(self._storage.encode(self._vector(tensor)).tobytes())
            return
        left = tensor.count
        while left > 0:
            count = min(left, CHUNK)
            a, b = self._position % MAGNITUDES, self._position % SIGNS
            file.write((self._magnitudes[a : a + count] ^ self._signs[b : b + count]).tobytes())
            self._position += count
            left -= count

    def _normal(self, count: int, std: float) -> np.ndarray:
        return self._rng.standard_normal(count, dtype=np.float32) * np.float32(std)

    def _vector(self, tensor: Tensor) -> np.ndarray:
        """A norm's weight or a bias."""
        if tensor.name.endswith("norm.weight"):
            return 1 + self._normal(tensor.count, 0.1)
        values = self._normal(tensor.count, 0.3)
        # Qwen2.5 has biases of tens in q and k where rotary hardly turns: the last columns of each
        # half of a head. The largest of q and of k lie in different columns, or they alone would
        # make the scores.
        half = self._head_dim // 2
        for name, first, low, high in (("q_proj", 4, 4, 12), ("k_proj", 2, 20, 60)):
            if f".{name}." in tensor.name and half >= 4:
                heads = values.reshape(-1, 2, half)
                size = self._rng.uniform(low, high, (len(heads), 2, 2))
                signs = self._rng.choice([-1.0, 1.0], (len(heads), 2, 2))
                heads[:, :, half - first : half - first + 2] = size * signs
        return values


def plan(sizes: Sizes, item_bytes: int, shard_bytes: int) -> list[list[Tensor]]:
    """The tensors of each shard; a shard exceeds the limit only when it is one large tensor."""
    shards: list[list[Tensor]] = [[]]
    used = 0
    for tensor in tensors(sizes):
        size = tensor.count * item_bytes
        if shards[-1] and used + size > shard_bytes:
            shards.append([])
            used = 0
        shards[-1].append(tensor)
        used += size
    return shards


def write_shard(path: Path, shard: list[Tensor], storage: Storage, weights: Weights) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for tensor in shard:
        end = offset + tensor.count * np.dtype(storage.bits).itemsize
        header[tensor.name] = {
            "dtype": storage.header,
            "shape": list(tensor.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the data is to start at a multiple of 8
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in shard:
            weights.write(tensor, file)


def config(sizes: Sizes, storage: Storage) -> dict[str, Any]:
    result: dict[str, Any] = {
        "architectures": [f"{sizes.architecture.capitalize()}ForCausalLM"],
        "attention_dropout": 0.0,
        "bos_token_id": min(151643, sizes.vocab_size - 2),
        "eos_token_id": min(151645, sizes.vocab_size - 1),
        "hidden_act": "silu",
        "hidden_size": sizes.hidden_size,
        "initializer_range": STD,
        "intermediate_size": sizes.intermediate_size,
        "max_position_embeddings": sizes.max_position_embeddings,
        "model_type": sizes.architecture,
        "num_attention_heads": sizes.num_attention_heads,
        "num_hidden_layers": sizes.num_hidden_layers,
        "num_key_value_heads": sizes.num_key_value_heads,
        "rms_norm_eps": sizes.rms_norm_eps,
        "tie_word_embeddings": sizes.tie_word_embeddings,
        "torch_dtype": storage.config,
        "use_cache": True,
        "vocab_size": sizes.vocab_size,
    }
    if sizes.rope == "default":
        result["rope_theta"] = sizes.rope_theta
    else:
        result["rope_parameters"] = sizes.rope_parameters
    if sizes.explicit_head_dim or sizes.architecture == "qwen3":
        result["head_dim"] = sizes.head_dim
    if sizes.architecture in ("llama", "qwen3"):
        result["attention_bias"] = sizes.attention_bias
    if sizes.architecture == "llama":
        result["mlp_bias"] = sizes.mlp_bias
    if sizes.architecture == "mistral":
        result["sliding_window"] = sizes.window
    if sizes.architecture in ("qwen2", "qwen3"):
        layers = sizes.num_hidden_layers
        result |= {
            "max_window_layers": layers // 2 if sizes.window else layers,
            "sliding_window": sizes.window or sizes.max_position_embeddings,
            "use_sliding_window": sizes.window is not None,
        }
    return result


def write_checkpoint(
    out: Path, sizes: Sizes, storage: Storage, seed: int, shard_bytes: int
) -> tuple[int, int]:
    """Returns the number of shards and of bytes of weights."""
    item = np.dtype(storage.bits).itemsize
    shards = plan(sizes, item, shard_bytes)
    total = sum(tensor.count for tensor in tensors(sizes)) * item
    out.mkdir(parents=True, exist_ok=True)
    present = sorted(path.name for path in (*out.glob("*.safetensors"), *out.glob("config.json")))
    if present:
        sys.exit(f"{out}: holds {present[0]} already; choose an empty folder")
    free = shutil.disk_usage(out).free
    if free < total + (1 << 24):
        sys.exit(f"{out}: needs {total / 1e9:.1f} GB, {free / 1e9:.1f} GB are free")
    weights = Weights(sizes, storage, seed)
    weight_map = {}
    for number, shard in enumerate(shards, 1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        if len(shards) == 1:
            name = "model.safetensors"
        write_shard(out / name, shard, storage, weights)
        weight_map.update({tensor.name: name for tensor in shard})
        print(f"{name}: {len(shard)} tensors", file=sys.stderr)
    if len(shards) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (out / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
    # Last, since without it the folder is no checkpoint: an interrupted run is not taken for one.
    (out / "config.json").write_text(json.dumps(config(sizes, storage), indent=2) + "\n")
    return len(shards), total


FIELDS = {
    "layers": "num_hidden_layers",
    "hidden": "hidden_size",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "intermediate": "intermediate_size",
    "vocab": "vocab_size",
    "tied": "tie_word_embeddings",
    "rope_theta": "rope_theta",
    "eps": "rms_norm_eps",
    "max_positions": "max_position_embeddings",
    "architecture": "architecture",
    "head_dim": "explicit_head_dim",
    "attention_bias": "attention_bias",
    "mlp_bias": "mlp_bias",
    "rope": "rope",
    "rope_factor": "rope_factor",
    "original_length": "original_length",
    "window": "window",
}


def chosen_sizes(args: argparse.Namespace, parser: argparse.ArgumentParser) -> Sizes:
    """The named shape with what was given on top, or all of it as given."""
    given = {
        field: getattr(args, flag)
        for flag, field in FIELDS.items()
        if getattr(args, flag) is not None
    }
    if args.shape:
        sizes = replace(SHAPES[args.shape], **given)
    else:
        given.setdefault("tie_word_embeddings", False)
        try:
            sizes = Sizes(**given)
        except TypeError:
            flags = [f"--{flag.replace('_', '-')}" for flag in list(FIELDS)[:6]]
            parser.error(f"without --shape all are needed: {' '.join(flags)}")
    counts = (getattr(sizes, field) for field in list(FIELDS.values())[:6])
    if min(counts) < 1 or sizes.vocab_size < 2:
        parser.error("sizes must be positive, and the vocabulary hold two tokens or more")
    divides = sizes.explicit_head_dim or sizes.hidden_size % sizes.num_attention_heads == 0
    if not divides or sizes.head_dim < 2 or sizes.head_dim % 2:
        parser.error("--hidden must be --heads times an even number, or --head-dim be even")
    if (sizes.attention_bias and sizes.architecture not in ("llama", "qwen3")) or (
        sizes.mlp_bias and sizes.architecture != "llama"
    ):
        parser.error(f"{sizes.architecture} has no such bias to choose")
    if sizes.window is not None and (sizes.window < 1 or sizes.architecture == "llama"):
        parser.error("--window must be positive, and llama has none")
    if sizes.num_attention_heads % sizes.num_key_value_heads:
        parser.error("--heads must be a multiple of --kv-heads")
    return sizes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, metavar="OUT_DIR")
    parser.add_argument("--shape", choices=sorted(SHAPES), help="sizes of a published model")
    for flag in ("layers", "hidden", "heads", "kv-heads", "intermediate", "vocab"):
        parser.add_argument(f"--{flag}", type=int)
    parser.add_argument("--tied", action=argparse.BooleanOptionalAction, help="lm_head = embedding")
    parser.add_argument("--rope-theta", type=float)
    parser.add_argument("--eps", type=float, help="of the norms")
    parser.add_argument("--max-positions", type=int, help="max_position_embeddings")
    parser.add_argument("--architecture", choices=("llama", "mistral", "qwen2", "qwen3"))
    parser.add_argument("--head-dim", type=int, help="other than --hidden over --heads")
    parser.add_argument("--attention-bias", action="store_const", const=True)
    parser.add_argument("--mlp-bias", action="store_const", const=True)
    parser.add_argument("--rope", choices=("default", "linear", "dynamic", "llama3", "yarn"))
    parser.add_argument("--rope-factor", type=float)
    parser.add_argument("--original-length", type=int, help="of llama3 and yarn")
    parser.add_argument("--window", type=int, help="sliding window")
    parser.add_argument("--dtype", choices=sorted(STORAGE), default="bf16")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shard-mb", type=int, default=4000, help="largest shard, in 1e6 bytes")
    args = parser.parse_args()
    sizes = chosen_sizes(args, parser)
    start = time.monotonic()
    shards, total = write_checkpoint(
        args.out, sizes, STORAGE[args.dtype], args.seed, args.shard_mb * 1_000_000
    )
    files = f"{shards} shards" if shards > 1 else "one file"
    print(f"{args.out}: {total / 1e9:.2f} GB in {files}, {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
