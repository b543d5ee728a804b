"""`samebits diff` against what PyTorch does to tensors: relations between checkpoints, planted by
its own operations, and the metrics of traces against its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

HEAD_DIM, HEADS = 16, 14  # of models/nano
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
Edit = Callable[[torch.Tensor], torch.Tensor]


def truncated(x: torch.Tensor) -> torch.Tensor:
    bits = x.float().view(torch.int32) & -65536  # 0xffff0000
    return bits.view(torch.float32).bfloat16()


def to_hugging_face(x: torch.Tensor) -> torch.Tensor:
    """convert_llama_weights_to_hf.py, with the second axis as it comes."""
    pairs = x.view(x.shape[0] // HEAD_DIM, HEAD_DIM // 2, 2, *x.shape[1:])
    return pairs.transpose(1, 2).reshape(x.shape)


def heads(x: torch.Tensor) -> torch.Tensor:
    return x.view(HEADS, HEAD_DIM, -1).flip(0).reshape(x.shape)


# dtypes of the first tensor, what is done to it, what must be found
CASES: list[tuple[str, list[torch.dtype], Edit, list[str]]] = [
    ("transposed", DTYPES, lambda x: x.T, ["transposed"]),
    ("rows", DTYPES, lambda x: x[torch.randperm(len(x))], ["rows-permuted"]),
    ("columns", DTYPES, lambda x: x[:, torch.randperm(x.shape[1])], ["columns-permuted"]),
    ("heads", DTYPES, heads, ["heads-permuted"]),
    ("head columns", DTYPES, lambda x: heads(x.T.contiguous()).T, ["head-columns-permuted"]),
    ("rotary", DTYPES, to_hugging_face, ["rotary-pairs-to-halves"]),
    ("flat", DTYPES, lambda x: x.reshape(-1), ["reshaped"]),
    ("wider", DTYPES[1:], lambda x: x.float(), ["same-numbers"]),
    ("bfloat16", DTYPES[:1], lambda x: x.bfloat16(), ["rounded-to-bfloat16"]),
    ("float16", DTYPES[:1], lambda x: x.half(), ["rounded-to-float16"]),
    ("float32", [torch.float64], lambda x: x.float(), ["rounded-to-float32"]),
    ("through float16", DTYPES[:1], lambda x: x.half().float(), ["rounded-through-float16"]),
    ("through bfloat16", DTYPES[:1], lambda x: x.bfloat16().float(), ["rounded-through-bfloat16"]),
    ("cut", DTYPES[:1], truncated, ["truncated-to-bfloat16"]),
    (
        "transposed and rounded",
        DTYPES[:1],
        lambda x: x.T.bfloat16(),
        ["transposed", "rounded-to-bfloat16"],
    ),
    ("times 0.125", DTYPES, lambda x: x * 0.125, ["scaled"]),
    ("times 0.1", DTYPES, lambda x: x * 0.1, ["scaled"]),
    ("by sqrt 128", DTYPES, lambda x: x / 128**0.5, ["scaled"]),
    ("negated", DTYPES, lambda x: -x, ["scaled"]),
    ("plus 1", DTYPES, lambda x: x + 1, ["shifted"]),
    ("minus 0.01", DTYPES, lambda x: x - 0.01, ["shifted"]),
    ("noise", DTYPES, lambda x: x + 0.01 * torch.randn(x.shape).to(x.dtype), []),
]


def pair(folder: Path, a: torch.Tensor, b: torch.Tensor) -> list[str]:
    paths = []
    for name, tensor in (("a", a), ("b", b)):
        paths.append(str(folder / f"{name}.safetensors"))
        save_file({"weight": tensor.contiguous()}, paths[-1])
    return [*paths, "--head-dim", str(HEAD_DIM)]


@pytest.mark.parametrize(("case", "dtypes", "edit", "ids"), CASES, ids=lambda v: str(v)[:24])
def test_relations(
    case: str,
    dtypes: list[torch.dtype],
    edit: Edit,
    ids: list[str],
    samebits_program: Any,
    tmp_path: Path,
) -> None:
    for dtype in dtypes:
        torch.manual_seed(1)
        side = HEADS * HEAD_DIM
        a = (torch.randn(side, side, dtype=torch.float64) * 0.05).to(dtype)
        b = edit(a).contiguous().clone()
        arguments = pair(tmp_path, a, b)
        (found,) = samebits_program.json("diff", *arguments, exit_code=1)["tensors"]
        assert [step["id"] for step in found["relation"]] == ids, (case, dtype)
        # One element in the middle, one bit.
        whole = {torch.float64: torch.int64, torch.float32: torch.int32}
        bits = b.view(whole.get(b.dtype, torch.int16)).view(-1)
        bits[bits.numel() // 2] ^= 1
        arguments = pair(tmp_path, a, b)
        (found,) = samebits_program.json("diff", *arguments, exit_code=1)["tensors"]
        if case == "wider":  # the narrow one is still the wide one rounded
            assert [step["from"] for step in found["relation"]] == ["b"], (case, dtype)
        else:
            assert found["verdict"] == "other", (case, dtype)


def test_whole_checkpoint(samebits_program: Any, nano: Path, tmp_path: Path) -> None:
    tensors = load_file(nano / "model.safetensors")
    layer = "model.layers.1."
    gate, up = layer + "mlp.gate_proj.weight", layer + "mlp.up_proj.weight"
    edited = {name: tensor.clone() for name, tensor in tensors.items()}
    edited[gate], edited[up] = tensors[up].clone(), tensors[gate].clone()
    q = layer + "self_attn.q_proj.weight"
    edited[q] = tensors[q].T.contiguous()
    norm = layer + "input_layernorm.weight"
    edited[norm] = tensors[norm].float()
    edited["model.renamed"] = edited.pop(layer + "mlp.down_proj.weight")
    save_file(edited, tmp_path / "edited.safetensors")
    done = samebits_program.json("diff", nano, tmp_path / "edited.safetensors", exit_code=1)
    verdicts = {tensor["name"]: tensor["verdict"] for tensor in done["tensors"]}
    assert verdicts == {
        gate: "same-as-another",
        up: "same-as-another",
        q: "transposed",
        norm: "same-numbers",
    }
    assert {t["name"]: t["same_as"] for t in done["tensors"] if t["same_as"]} == {
        gate: up,
        up: gate,
    }
    assert [(t["name"], t["same_as"]) for t in done["only_b"]] == [
        ("model.renamed", layer + "mlp.down_proj.weight")
    ]
    assert done["counts"]["same"] == len(tensors) - 5


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_metrics(dtype: torch.dtype, samebits_program: Any, tmp_path: Path) -> None:
    torch.manual_seed(2)
    tokens, vocabulary = 6, 300
    a = (4 * torch.randn(tokens, vocabulary)).to(dtype)
    b = (a.double() + 0.1 * torch.randn(tokens, vocabulary).double()).to(dtype)
    b[0] = a[0]
    paths = []
    for name, tensor in (("a", a), ("b", b)):
        paths.append(tmp_path / f"{name}.safetensors")
        metadata = {
            "format": "samebits-trace-1",
            "input_ids": str(list(range(tokens))),
            "dtype": str(dtype).removeprefix("torch."),
        }
        save_file({"lm_head": tensor}, paths[-1], metadata=metadata)
    done = samebits_program.json("diff", *paths, exit_code=1)
    (node,) = done["nodes"]
    x, y = a.double(), b.double()
    distance = (x - y).abs()
    assert node["differing"] == int((a != b).sum())
    assert node["max_abs"] == float(distance.max())
    assert node["max_rel"] == float((distance / x.abs())[distance > 0].max())
    # Sums of fp64 in another order: 1800 terms, each addition rounds by 2^-53.
    close = 1800 * 2.0**-53
    assert node["rms"] == pytest.approx(float(distance.square().mean().sqrt()), rel=close)
    cosine = torch.nn.functional.cosine_similarity(x.view(-1), y.view(-1), dim=0)
    assert node["cosine"] == pytest.approx(float(cosine), rel=close)
    whole = torch.int32 if dtype == torch.float32 else torch.int16
    places = [t.view(whole).long() for t in (a, b)]
    low = torch.iinfo(whole).min
    ordered = [torch.where(p < 0, low - p, p) for p in places]
    assert node["max_ulp"] == int((ordered[0] - ordered[1]).abs().max())
    p, q = x.log_softmax(-1), y.log_softmax(-1)
    kl = (p.exp() * (p - q)).sum(-1)
    # 300 terms of either sign; each has the rounding of a log softmax of magnitude below 32, which
    # is 2^-48.
    assert node["logits"]["kl_mean"] == pytest.approx(float(kl.mean()), abs=300 * 2.0**-48)
    assert node["logits"]["kl_max"] == pytest.approx(float(kl.max()), abs=300 * 2.0**-48)
    assert node["logits"]["kl_max_token"] == int(kl.argmax())
    assert node["logits"]["same_top1"] == int((x.argmax(-1) == y.argmax(-1)).sum())
    top = [
        [set(row.sort(descending=True, stable=True).indices[:5].tolist()) for row in t]
        for t in (x, y)
    ]
    assert node["logits"]["same_top5"] == sum(s == t for s, t in zip(*top, strict=True))
