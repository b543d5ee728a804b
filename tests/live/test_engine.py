"""samebits against transformers on random Qwen2 and Llama checkpoints of odd sizes.

Left out: planted bugs and the checkpoints of tests/planted, where transformers' own traces are
judged, too; trained weights (test_smollm2.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")

import samebits  # noqa: E402

# No size is a multiple of a vector length; 3 queries a KV head, and none of them equal.
SIZES = {
    "hidden_size": 72, "intermediate_size": 100, "vocab_size": 131, "num_attention_heads": 6,
    "num_key_value_heads": 2, "num_hidden_layers": 3, "max_position_embeddings": 512,
    "rms_norm_eps": 1e-6,
}  # fmt: skip
IDS = [(i * i * 7 + 13 * i + 5) % 131 for i in range(64)]
MODELS = ["qwen2", "qwen2-tied", "llama"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    result = {}
    for seed, name in enumerate(MODELS):
        torch.manual_seed(seed)
        sizes: dict[str, Any] = SIZES | {"tie_word_embeddings": name.endswith("tied")}
        if name.startswith("qwen2"):
            model = transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**sizes))
        else:
            model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes))
        for parameter_name, parameter in model.named_parameters():
            if parameter_name.endswith("bias"):
                torch.nn.init.normal_(parameter, std=3.0)
            elif parameter_name.endswith("norm.weight"):
                torch.nn.init.uniform_(parameter, 0.5, 1.5)
            elif "embed" in parameter_name:  # a tied head gives logits of some units
                torch.nn.init.normal_(parameter, std=0.2)
            else:
                torch.nn.init.normal_(parameter, std=1.5 * parameter.shape[1] ** -0.5)
        result[name] = tmp_path_factory.mktemp(name)
        model.save_pretrained(result[name])
    return result


def load(folder: Path, dtype: str) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=getattr(torch, dtype), attn_implementation="eager"
    ).eval()


def reference_logits(folder: Path, dtype: str) -> np.ndarray[Any, Any]:
    with torch.no_grad():
        return load(folder, dtype)(torch.tensor([IDS])).logits[0].double().numpy()


def joined(ids: list[int]) -> str:
    return ",".join(map(str, ids))


def trace(samebits_program: Any, folder: Path, path: Path, dtype: str) -> Any:
    done = samebits_program("trace", folder, "--ids", joined(IDS), "--dtype", dtype, "-o", path)
    assert done.returncode == 0, done.stderr
    return samebits.load_trace(path)


@pytest.mark.parametrize("name", MODELS)
def test_float32_logits(
    name: str, folders: dict[str, Path], samebits_program: Any, tmp_path: Path
) -> None:
    """The error against float64 is of the size of transformers' own float32 error.

    Both make the same roundings but for the order of sums. A sum in 16 lanes has at most
    K / 16 + 4 roundings in a row where a plain chain has K, so samebits' error should not be the
    larger one; 2 leaves room for chance, as the errors of one prompt are correlated. Any other
    mistake is at least as large as a rounding, in every row: it multiplies the error.
    """
    exact = reference_logits(folders[name], "float64")
    theirs = reference_logits(folders[name], "float32") - exact
    recorded = trace(samebits_program, folders[name], tmp_path / "t.safetensors", "float32")
    ours = recorded["lm_head"].float32().astype(np.float64) - exact
    assert np.isfinite(ours).all()
    assert np.abs(exact).max() > 1
    ours_rms, theirs_rms = (float(np.sqrt(np.mean(error**2))) for error in (ours, theirs))
    print(f"{name}: rms error samebits {ours_rms:.2e}, transformers {theirs_rms:.2e}")
    assert theirs_rms > 0
    assert ours_rms <= 2 * theirs_rms


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("name", MODELS)
def test_transformers_trace_is_judged_healthy(
    name: str, dtype: str, folders: dict[str, Path], samebits_program: Any, tmp_path: Path
) -> None:
    path = tmp_path / "torch.safetensors"
    samebits.capture(load(folders[name], dtype), IDS, path)
    report = samebits_program.json("check", folders[name], path)
    assert report["findings"] == []
    assert {node["grade"] for node in report["nodes"]} <= {"identical", "rounding"}
    assert len(report["nodes"]) > 3 * 15


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("name", MODELS)
def test_own_trace_is_judged_healthy(
    name: str, dtype: str, folders: dict[str, Path], samebits_program: Any, tmp_path: Path
) -> None:
    """The engine, which the judge does not use, computes what the judge proves to be possible."""
    path = tmp_path / "own.safetensors"
    trace(samebits_program, folders[name], path, dtype)
    report = samebits_program.json("check", folders[name], path)
    assert report["findings"] == []
    assert {node["grade"] for node in report["nodes"]} <= {"identical", "rounding"}


@pytest.mark.parametrize("name", MODELS)
def test_greedy_tokens(name: str, folders: dict[str, Path], samebits_program: Any) -> None:
    model = load(folders[name], "float32")
    model.generation_config.eos_token_id = None
    for start in range(0, 60, 20):
        ids = IDS[start : start + 20]
        with torch.no_grad():
            expected = model.generate(
                torch.tensor([ids]), max_new_tokens=32, do_sample=False, pad_token_id=0
            )[0, len(ids) :].tolist()
        report = samebits_program.json(
            "run", folders[name], "--ids", joined(ids), "--dtype", "float32", "--max-tokens", 32
        )  # fmt: skip
        stop = set(model.config.eos_token_id if isinstance(model.config.eos_token_id, list)
                   else [model.config.eos_token_id])  # fmt: skip
        cut = next((i + 1 for i, token in enumerate(expected) if token in stop), len(expected))
        assert report["ids"] == expected[:cut]
