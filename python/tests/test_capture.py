"""capture: complete, the bits of the unmodified model, and without a trace in the model."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import samebits
from samebits.blind_spots import blind_spots, prompt_warnings

torch = pytest.importorskip("torch", reason="torch is not installed")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")

from tiny_model import FAMILIES, IDS, SIZES, D, E, F, H, K, N, T, V, make_model  # noqa: E402
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::samebits.PromptWarning")


def padded(lengths: list[int]) -> tuple[list[list[int]], list[list[int]]]:
    """ids and attention_mask of sequences of these lengths, padded on the left."""
    longest = max(lengths)
    rows = [IDS[i : i + length] for i, length in enumerate(lengths)]
    ids = [[0] * (longest - len(row)) + row for row in rows]
    return ids, [[0] * (longest - len(row)) + [1] * len(row) for row in rows]


def expected_shapes(
    family: str, tokens: int, attention: str, batch: tuple[int, ...]
) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens": (tokens, E), "model.rotary.cos": (tokens, D),
        "model.rotary.sin": (tokens, D), "model.norm": (tokens, E), "lm_head": (tokens, V),
    }  # fmt: skip
    for n in range(N):
        layer = f"model.layers.{n}"
        attn, mlp = f"{layer}.self_attn", f"{layer}.mlp"
        shapes |= {
            layer: (tokens, E),
            f"{attn}.q_rope": (tokens, H, D),
            f"{attn}.k_rope": (tokens, K, D),
        }
        if family == "qwen3":
            shapes |= {f"{attn}.q_norm": (tokens, H, D), f"{attn}.k_norm": (tokens, K, D)}
        shapes |= dict.fromkeys((f"{attn}.q_proj", f"{attn}.context"), (tokens, H * D))
        shapes |= dict.fromkeys((f"{attn}.k_proj", f"{attn}.v_proj"), (tokens, K * D))
        if attention == "eager":
            shapes |= dict.fromkeys((f"{attn}.scores", f"{attn}.probs"), (H, tokens, tokens))
        for part in ("input_layernorm", "self_attn.o_proj", "attn_residual", "mlp.down_proj"):
            shapes[f"{layer}.{part}"] = (tokens, E)
        shapes[f"{layer}.post_attention_layernorm"] = (tokens, E)
        for part in ("gate_proj", "up_proj", "act", "gated"):
            shapes[f"{mlp}.{part}"] = (tokens, F)
    return {name: (*batch, *shape) for name, shape in shapes.items()}


def bits(tensor: Any) -> npt.NDArray[Any]:
    """Unsigned integers, so that comparisons know NaN and the sign of zero."""
    return samebits.arrays.raw_array(tensor, "").bits


def assert_as_generate(model: Any, trace: samebits.Trace, ids: Any, mask: Any, steps: int) -> None:
    """Hidden states and probs of every pass against transformers' own `generate`."""
    eager = trace.metadata["attention"] == "eager"
    plain = model.generate(
        ids, attention_mask=mask, max_new_tokens=steps + 1, do_sample=False,
        return_dict_in_generate=True, output_hidden_states=True, output_attentions=eager,
    )  # fmt: skip
    batch = ids.shape[0]
    np.testing.assert_array_equal(
        np.array(trace.input_ids).reshape(batch, -1), plain.sequences[:, :-1].numpy()
    )
    for n in range(N - 1):  # the last one comes after the norm there
        theirs = torch.cat([states[n + 1] for states in plain.hidden_states], 1)
        mine = trace[f"model.layers.{n}"].bits
        np.testing.assert_array_equal(mine.reshape(batch, *mine.shape[-2:]), bits(theirs))
    end = 0
    for states in plain.attentions or ():
        end += states[0].shape[2]
        for n, probs in enumerate(states):
            mine = trace[f"model.layers.{n}.self_attn.probs"].bits
            mine = mine.reshape(batch, *mine.shape[-3:])
            tokens, keys = probs.shape[2:]
            piece = mine[:, :, end - tokens : end, end - keys : end]
            np.testing.assert_array_equal(piece, bits(probs))
            assert not mine[:, :, end - tokens : end, end:].any()
            assert not mine[:, :, end - tokens : end, : end - keys].any()


def assert_logits(model: Any, trace: samebits.Trace, ids: Any, mask: Any) -> None:
    """The logits of all tokens against plain calls of the model; generate computes the last's."""
    padding = {} if mask.all() else {"attention_mask": mask}
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    parts, cache = [], None
    for tokens in trace.chunks:
        if parts:
            ids = parts[-1][:, -1:].argmax(-1)
            positions = positions[:, -1:] + 1
            if padding:
                mask = torch.cat([mask, torch.ones_like(ids)], 1)
                padding = {"attention_mask": mask}
        assert ids.shape[1] == tokens
        with torch.no_grad():
            output = model(ids, past_key_values=cache, position_ids=positions, **padding)
        cache = output.past_key_values
        parts.append(output.logits)
    theirs = bits(torch.cat(parts, 1))
    np.testing.assert_array_equal(trace["lm_head"].bits.reshape(theirs.shape), theirs)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("lengths", "steps"), [([T], 0), ([T], 3), ([1], 2), ([9, 9], 1), ([T, 7, 13], 3)]
)
def test_the_bits_of_the_unmodified_model(
    family: str, dtype: str, attention: str, lengths: list[int], steps: int, tmp_path: Path
) -> None:
    path = tmp_path / "trace.safetensors"
    model = make_model(family, getattr(torch, dtype), "sdpa" if attention == "eager" else "eager")
    ids, mask = padded(lengths)
    loaded = model.config._attn_implementation
    registered = ALL_ATTENTION_FUNCTIONS.get(attention)
    returned = samebits.capture(
        model, ids, path, attention_mask=mask, steps=steps, attention=attention, prompt="text"
    )
    assert model.config._attn_implementation == loaded
    assert ALL_ATTENTION_FUNCTIONS.get(attention) is registered
    assert not any(module._forward_hooks for module in model.modules())
    assert not any(module._forward_pre_hooks for module in model.modules())

    trace = samebits.load_trace(path)
    tokens, batch = max(lengths) + steps, (len(lengths),) if len(lengths) > 1 else ()
    shapes = expected_shapes(family, tokens, attention, batch)
    assert {name: trace[name].shape for name in trace} == shapes
    stored = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}[dtype]
    assert {trace[name].dtype for name in trace} == {stored}
    assert trace.input_ids == returned
    assert trace.dtype == dtype
    assert trace.chunks == [max(lengths)] + [1] * steps
    assert trace.metadata["framework"] == "torch"
    assert trace.metadata["attention"] == attention
    assert trace.metadata["prompt"] == "text"

    model.set_attn_implementation(attention)
    assert_as_generate(model, trace, torch.tensor(ids), torch.tensor(mask), steps)
    assert_logits(model, trace, torch.tensor(ids), torch.tensor(mask))


def test_inside_of_a_layer(tmp_path: Path) -> None:
    """What no output of transformers shows, from its neighbours in the trace."""
    model = make_model("qwen2", torch.bfloat16)
    samebits.capture(model, IDS, tmp_path / "trace", steps=2)
    trace = samebits.load_trace(tmp_path / "trace")

    def value(name: str) -> Any:
        return torch.from_numpy(trace[f"model.layers.1.{name}"].float32())

    def rounded(x: Any) -> npt.NDArray[np.float32]:
        result: npt.NDArray[np.float32] = x.to(torch.bfloat16).float().numpy()
        return result

    np.testing.assert_array_equal(
        value("mlp.gated"), rounded(value("mlp.act") * value("mlp.up_proj"))
    )
    before = torch.from_numpy(trace["model.layers.0"].float32())
    np.testing.assert_array_equal(
        value("attn_residual"), rounded(before + value("self_attn.o_proj"))
    )
    queries = value("self_attn.q_rope").transpose(0, 1)  # [H, T, D]
    keys = value("self_attn.k_rope").transpose(0, 1).repeat_interleave(H // K, 0)
    scores = queries @ keys.transpose(1, 2) * D**-0.5  # twice rounded in the model
    seen = torch.ones(T + 2, T + 2).tril().bool()
    assert torch.allclose(value("self_attn.scores")[:, seen], scores[:, seen], rtol=2**-7, atol=0.1)
    assert not torch.allclose(queries @ keys.transpose(1, 2), scores, rtol=2**-7, atol=0.1)
    hidden = ~seen
    assert (value("self_attn.probs")[:, hidden] == 0).all()
    assert torch.allclose(value("self_attn.probs").sum(-1), torch.ones(()), atol=0.02)


def test_two_threads(tmp_path: Path) -> None:
    model = make_model("llama", torch.float32)
    torch.set_num_threads(2)
    try:
        samebits.capture(model, IDS, tmp_path / "trace", steps=2)
        trace = samebits.load_trace(tmp_path / "trace")
        ids = torch.tensor([IDS])
        assert_as_generate(model, trace, ids, torch.ones_like(ids), 2)
    finally:
        torch.set_num_threads(1)
    assert trace.metadata["threads"] == "2"


def test_metadata_of_a_batch(tmp_path: Path) -> None:
    ids, mask = padded([5, 3])
    samebits.capture(
        make_model("llama", torch.float32), np.array(ids), tmp_path / "trace",
        attention_mask=torch.tensor(mask), steps=2, attention="sdpa",
    )  # fmt: skip
    metadata = samebits.read_metadata(tmp_path / "trace")
    assert json.loads(metadata["positions"]) == [[0, 1, 2, 3, 4, 5, 6], [0, 0, 0, 1, 2, 3, 4]]
    assert json.loads(metadata["attention_mask"]) == [[1] * 7, [0, 0, 1, 1, 1, 1, 1]]
    assert [row[:5] for row in json.loads(metadata["input_ids"])] == ids
    assert json.loads(metadata["chunks"]) == [5, 1, 1]
    absent = json.loads(metadata["absent"])
    assert "sdpa" in absent["model.layers.N.self_attn.scores"]
    assert "sdpa" in absent["model.layers.N.self_attn.probs"]
    assert torch.backends.cpu.get_cpu_capability() in metadata["cpu"]


def test_metadata_of_one_sequence(tmp_path: Path) -> None:
    model = make_model("llama", torch.float32, tie_word_embeddings=True)
    samebits.capture(model, [IDS], tmp_path / "trace", attention_mask=[[1] * T])
    metadata = samebits.read_metadata(tmp_path / "trace")
    assert json.loads(metadata["input_ids"]) == IDS
    assert json.loads(metadata["positions"]) == list(range(T))
    assert "attention_mask" not in metadata  # none was given to the model
    alignment = json.loads(metadata["weight_alignment"])
    assert alignment.keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert alignment[name] == tensor.data_ptr() % 64
    assert json.loads(metadata["absent"]).keys() == {"checkpoint_digest"}
    assert any("cache" in text for text in json.loads(metadata["blind_spots"]))


def test_weights_at_odd_addresses(tmp_path: Path) -> None:
    model = make_model("llama", torch.float32)
    weight = model.lm_head.weight
    buffer = torch.zeros(weight.numel() + 11)
    buffer[11:] = weight.detach().reshape(-1)
    weight.data = buffer[11:].view(weight.shape)
    samebits.capture(model, IDS, tmp_path / "trace")
    metadata = samebits.read_metadata(tmp_path / "trace")
    assert json.loads(metadata["weight_alignment"])["lm_head.weight"] == 44


def test_flat_memory(tmp_path: Path) -> None:
    """A run that writes 160 MB needs a few more than one that writes nothing."""
    script = tmp_path / "run.py"
    script.write_text(
        "import resource, sys, torch, transformers, samebits\n"
        "torch.set_num_threads(1)\n"
        "config = transformers.LlamaConfig(hidden_size=32, intermediate_size=32, vocab_size=64,\n"
        "    num_attention_heads=4, num_key_value_heads=4, num_hidden_layers=20)\n"
        "model = transformers.LlamaForCausalLM(config).eval()\n"
        "ids = [[i % 64 for i in range(500)]]\n"
        "model.set_attn_implementation('eager')\n"
        "with torch.no_grad():\n"
        "    model(torch.tensor(ids))\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "samebits.capture(model, ids[0], sys.argv[1], steps=2)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    out = tmp_path / "trace"
    done = subprocess.run(
        [sys.executable, str(script), str(out)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert out.stat().st_size > 150e6
    assert int(done.stdout) * 1024 < 30e6  # the padded blocks of scores, a layer's temporaries


def test_a_failing_model_leaves_no_file_and_no_hooks(tmp_path: Path) -> None:
    model = make_model("qwen2", torch.float32)
    model.model.layers[1].mlp.down_proj.weight.data = torch.ones(3, 3)
    with pytest.raises(RuntimeError):
        samebits.capture(model, IDS, tmp_path / "trace", attention="sdpa")
    assert list(tmp_path.iterdir()) == []
    assert model.config._attn_implementation == "eager"
    assert ALL_ATTENTION_FUNCTIONS["sdpa"].__module__.startswith("transformers")
    assert not any(module._forward_hooks for module in model.modules())


def test_attention_that_was_replaced_before(tmp_path: Path) -> None:
    """Somebody's own function under the name of eager is what runs, and stays."""
    model = make_model("llama", torch.float32)
    original = transformers.models.llama.modeling_llama.eager_attention_forward
    calls = []

    def own(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return original(*args, **kwargs)

    ALL_ATTENTION_FUNCTIONS["eager"] = own
    try:
        samebits.capture(model, IDS, tmp_path / "trace")
        assert ALL_ATTENTION_FUNCTIONS["eager"] is own
    finally:
        del ALL_ATTENTION_FUNCTIONS["eager"]
    assert len(calls) == N


def test_attention_in_another_form_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def other(module: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> Any:
        keys = key.repeat_interleave(H // K, 1)
        values = value.repeat_interleave(H // K, 1)
        probs = ((query * module.scaling) @ keys.transpose(2, 3)).softmax(-1)
        return (probs @ values).transpose(1, 2), probs

    module = "transformers.models.llama.modeling_llama"
    monkeypatch.setattr(f"{module}.eager_attention_forward", other)
    with pytest.raises(RuntimeError, match="can not find scores"):
        samebits.capture(make_model("llama", torch.float32), IDS, tmp_path / "trace")
    assert list(tmp_path.iterdir()) == []


def test_other_architectures_are_named(tmp_path: Path) -> None:
    config = transformers.GPT2Config(n_embd=32, n_layer=1, n_head=2, vocab_size=V)
    with pytest.raises(ValueError, match="gpt2"):
        samebits.capture(transformers.GPT2LMHeadModel(config), IDS, tmp_path / "trace")


@pytest.mark.parametrize(
    ("ids", "options", "match"),
    [
        ([3, V], {}, f"{V} is not from 0 to {V - 1}"),
        ([3, -1], {}, "-1 is not from 0"),
        ([], {}, "input_ids: expected"),
        ([[]], {}, "input_ids: expected"),
        ([[1, 2], [3]], {}, "input_ids: expected"),
        ([[[1]]], {}, "input_ids: expected"),
        ([1.5], {}, "input_ids: expected"),
        (["a"], {}, "input_ids: expected"),
        ([2**70], {}, "input_ids: expected"),
        ([1, 2], {"attention_mask": [1]}, "attention_mask: expected a 0 or 1"),
        ([1, 2], {"attention_mask": [2, 1]}, "attention_mask: expected a 0 or 1"),
        ([1, 2], {"attention_mask": [1, 0]}, "pad on the left"),
        ([1, 2], {"attention": "flash"}, "expected eager or sdpa"),
        ([1, 2], {"steps": -1}, "steps -1"),
    ],
)
def test_bad_arguments(ids: Any, options: Any, match: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=match):
        samebits.capture(make_model("qwen2", torch.float32), ids, tmp_path / "trace", **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("tokens", "dtype", "words"),
    [
        (1, "bfloat16", ["one token"]),
        (2, "float32", ["2 tokens"]),
        (2, "bfloat16", ["2 tokens", "eps"]),
        (20, "bfloat16", ["eps"]),
        (64, "bfloat16", []),
        (20, "float32", []),
    ],
)
def test_prompt_warnings(tokens: int, dtype: str, words: list[str]) -> None:
    found = prompt_warnings(tokens, dtype)
    assert len(found) == len(words)
    for text, word in zip(found, words, strict=True):
        assert word in text


def test_padding_does_not_count_as_prompt(tmp_path: Path) -> None:
    ids, mask = [[0] * 30 + [5, 6], [0] * 31 + [7]], [[0] * 30 + [1, 1], [0] * 31 + [1]]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        samebits.capture(
            make_model("llama", torch.float32), ids, tmp_path / "trace", attention_mask=mask
        )
    found = [str(w.message) for w in caught if w.category is samebits.PromptWarning]
    assert len(found) == 1
    assert "2 tokens" in found[0]
    assert caught[0].filename == __file__


def test_blind_spots() -> None:
    config = transformers.LlamaConfig(**SIZES)
    assert blind_spots(config, [[1, 2], [3, 4]], True, [2, 1]) == []
    for rows, padding, chunks, word in (
        ([[1, 2]], True, [1, 1], "one sequence"),
        ([[1, 2], [3, 4]], False, [1, 1], "no padding"),
        ([[1, 2], [3, 4]], True, [2], "no decode"),
        ([[1, 1], [3, 3]], True, [1, 1], "one token repeated"),
    ):
        found = blind_spots(config, rows, padding, chunks)
        assert len(found) == 1
        assert word in found[0]
    config = transformers.MistralConfig(**{**SIZES, "num_key_value_heads": H}, sliding_window=3)
    found = blind_spots(config, [[1, 2], [3, 4]], True, [1, 1])
    assert ["window" in found[0], "key/value heads" in found[1]] == [True, True]
    assert "window" not in blind_spots(config, [[1, 2, 3, 4]], True, [4])[0]
    config = transformers.Qwen2Config(**SIZES, sliding_window=3, use_sliding_window=False)
    assert blind_spots(config, [[1, 2], [3, 4]], True, [1, 1]) == []


def test_progress(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    samebits.capture(
        make_model("llama", torch.float32), IDS, tmp_path / "trace", steps=2,
        progress=lambda done, total: calls.append((done, total)),
    )  # fmt: skip
    assert calls == [(i, 3 * N) for i in range(1, 3 * N + 1)]
