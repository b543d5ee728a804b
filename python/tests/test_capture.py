"""capture: complete, bit-identical to the plain eager run, and without a trace in the model."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import samebits

torch = pytest.importorskip("torch", reason="torch is not installed")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")

from samebits.torch_capture import prompt_warnings  # noqa: E402

T, E, F, V, H, K, D, N = 20, 64, 96, 80, 4, 2, 16, 2
IDS = [(7 * i + 3) % V for i in range(T)]
SIZES = {
    "hidden_size": E, "intermediate_size": F, "vocab_size": V, "num_attention_heads": H,
    "num_key_value_heads": K, "num_hidden_layers": N,
}  # fmt: skip


def make_model(family: str, dtype: Any, attention: str = "eager") -> Any:
    torch.manual_seed(0)
    name = {"qwen2": "Qwen2", "llama": "Llama", "qwen3": "Qwen3", "mistral": "Mistral"}[family]
    more = {"qwen3": {"head_dim": D}, "mistral": {"sliding_window": 7}}.get(family, {})
    config = getattr(transformers, f"{name}Config")(**SIZES, **more)
    model = getattr(transformers, f"{name}ForCausalLM")(config)
    model.set_attn_implementation(attention)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter)
    return model.to(dtype).eval()


def expected_shapes(family: str) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens": (T, E), "model.rotary.cos": (T, D), "model.rotary.sin": (T, D),
        "model.norm": (T, E), "lm_head": (T, V),
    }  # fmt: skip
    for n in range(N):
        layer = f"model.layers.{n}"
        attention, mlp = f"{layer}.self_attn", f"{layer}.mlp"
        shapes |= {
            layer: (T, E),
            f"{attention}.q_rope": (T, H, D),
            f"{attention}.k_rope": (T, K, D),
        }
        if family == "qwen3":
            shapes |= {f"{attention}.q_norm": (T, H, D), f"{attention}.k_norm": (T, K, D)}
        shapes |= dict.fromkeys((f"{attention}.q_proj", f"{attention}.context"), (T, H * D))
        shapes |= dict.fromkeys((f"{attention}.k_proj", f"{attention}.v_proj"), (T, K * D))
        shapes |= dict.fromkeys((f"{attention}.scores", f"{attention}.probs"), (H, T, T))
        for part in ("input_layernorm", "self_attn.o_proj", "attn_residual", "mlp.down_proj"):
            shapes[f"{layer}.{part}"] = (T, E)
        shapes[f"{layer}.post_attention_layernorm"] = (T, E)
        for part in ("gate_proj", "up_proj", "act", "gated"):
            shapes[f"{mlp}.{part}"] = (T, F)
    return shapes


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("family", ["qwen2", "llama", "qwen3", "mistral"])
def test_capture(family: str, dtype: str, attention: str, tmp_path: Path) -> None:
    path = tmp_path / "trace.safetensors"
    model = make_model(family, getattr(torch, dtype), attention)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        samebits.capture(model, IDS, path, prompt="text")
    assert model.config._attn_implementation == attention
    assert not any(module._forward_hooks for module in model.modules())
    assert not any(module._forward_pre_hooks for module in model.modules())

    trace = samebits.load_trace(path)
    assert {name: trace[name].shape for name in trace} == expected_shapes(family)
    stored = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}[dtype]
    assert {trace[name].dtype for name in trace} == {stored}
    assert trace.input_ids == IDS
    assert trace.dtype == dtype
    assert trace.metadata["framework"] == "torch"
    assert trace.metadata["attention"] == "eager"
    assert trace.metadata["prompt"] == "text"

    model.set_attn_implementation("eager")
    with torch.no_grad():
        plain = model(torch.tensor([IDS]), output_attentions=True, output_hidden_states=True)
    np.testing.assert_array_equal(trace["lm_head"].float32(), plain.logits[0].float().numpy())
    for n, probs in enumerate(plain.attentions):
        name = f"model.layers.{n}.self_attn.probs"
        np.testing.assert_array_equal(trace[name].float32(), probs[0].float().numpy())
    for n, hidden in enumerate(plain.hidden_states[1:-1]):
        np.testing.assert_array_equal(
            trace[f"model.layers.{n}"].float32(), hidden[0].float().numpy()
        )
    recorded = trace["model.layers.1.mlp.gated"].float32()
    act, up = (trace[f"model.layers.1.mlp.{part}"].float32() for part in ("act", "up_proj"))
    rounded = torch.from_numpy(act * up).to(model.dtype).float().numpy()
    np.testing.assert_array_equal(recorded, rounded)
    hidden_places = np.triu(np.ones((T, T), bool), 1)
    assert (trace["model.layers.0.self_attn.probs"].float32()[:, hidden_places] == 0).all()


def test_a_failing_model_leaves_no_file_and_no_hooks(tmp_path: Path) -> None:
    model = make_model("qwen2", torch.float32)
    with pytest.raises(IndexError):
        samebits.capture(model, [*IDS, V + 1], tmp_path / "trace")
    assert list(tmp_path.iterdir()) == []
    assert model.config._attn_implementation == "eager"
    assert not any(module._forward_hooks for module in model.modules())


def test_other_architectures_are_named(tmp_path: Path) -> None:
    config = transformers.GPT2Config(n_embd=32, n_layer=1, n_head=2, vocab_size=V)
    with pytest.raises(ValueError, match="gpt2"):
        samebits.capture(transformers.GPT2LMHeadModel(config), IDS, tmp_path / "trace")


@pytest.mark.parametrize(
    ("ids", "dtype", "words"),
    [
        ([3], "bfloat16", ["one token"]),
        ([3, 4], "float32", ["2 tokens"]),
        ([3, 4], "bfloat16", ["2 tokens", "eps"]),
        (list(range(20)), "bfloat16", ["eps"]),
        (list(range(64)), "bfloat16", []),
        (list(range(20)), "float32", []),
    ],
)
def test_prompt_warnings(ids: list[int], dtype: str, words: list[str]) -> None:
    found = prompt_warnings(ids, dtype)
    assert len(found) == len(words)
    for text, word in zip(found, words, strict=True):
        assert word in text


def test_command(tmp_path: Path) -> None:
    make_model("qwen2", torch.float32).save_pretrained(tmp_path / "model")
    command = [sys.executable, "-m", "samebits", "capture", "--model", str(tmp_path / "model")]
    out = tmp_path / "ref.safetensors"
    done = subprocess.run(
        [*command, "--ids", "1,2,3", "--dtype", "bfloat16", "--threads", "1", "-o", str(out)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert "warning: 3 tokens" in done.stderr
    trace = samebits.load_trace(out)
    assert trace.dtype == "bfloat16"
    assert trace.metadata["threads"] == "1"
    for ids in ("1,x", f"1,{V}"):
        done = subprocess.run(
            [*command, "--ids", ids, "-o", str(tmp_path / "no")],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2
        assert "--ids" in done.stderr
        assert not (tmp_path / "no").exists()
