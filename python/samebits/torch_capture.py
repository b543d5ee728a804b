"""Records a transformers model: eager attention, unmodified modules, one prefill.

Module outputs come from forward hooks. Inside attention there are no modules: there a recording
function is entered in transformers' attention registry that does what the models'
eager_attention_forward does, operation for operation (tests compare the logits bit for bit). Left
out: sdpa and flash attention (they have no scores), batches, decoding with a cache, architectures
other than Llama, Mistral, Qwen2 and Qwen3.
"""

from __future__ import annotations

import os
import platform
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import transformers
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, eager_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from samebits.trace import Recorder, tap

SUPPORTED = ("llama", "mistral", "qwen2", "qwen3")
_REGISTRY_NAME = "samebits_recording_eager"

Hook = Callable[..., None]


def prompt_warnings(input_ids: Sequence[int], dtype: str) -> list[str]:
    """What a trace of this prompt could not show, whatever the port does wrong."""
    tokens, found = len(input_ids), []
    if tokens == 1:
        found.append(
            "one token: a softmax over one key is 1 and the rotation by position 0 is none, so "
            "wrong masks, scales, rotary embeddings and head orders in the scores do not show"
        )
    elif tokens < 16:
        found.append(
            f"{tokens} tokens: too few for the statistics of small effects; a wrong rope theta or "
            "scaling shows little. Use at least 16"
        )
    if 1 < tokens < 64 and dtype == "bfloat16":
        found.append(
            f"{tokens} tokens in bfloat16: a wrong norm eps may stay below one step. Use 64"
        )
    return found


def _repeat_kv(states: Any, groups: int) -> Any:
    batch, heads, tokens, head_dim = states.shape
    if groups == 1:
        return states
    expanded = states[:, :, None, :, :].expand(batch, heads, groups, tokens, head_dim)
    return expanded.reshape(batch, heads * groups, tokens, head_dim)


def _recording_attention(
    module: Any,
    query: Any,
    key: Any,
    value: Any,
    attention_mask: Any,
    scaling: float,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Any, Any]:
    """eager_attention_forward with taps. query [1, H, T, D], key and value [1, K, S, D]."""
    name = f"model.layers.{module.layer_idx}.self_attn"
    tap(f"{name}.q_rope", query[0].transpose(0, 1))
    tap(f"{name}.k_rope", key[0].transpose(0, 1))
    keys = _repeat_kv(key, module.num_key_value_groups)
    values = _repeat_kv(value, module.num_key_value_groups)
    scores = torch.matmul(query, keys.transpose(2, 3)) * scaling
    tap(f"{name}.scores", scores[0])
    masked = scores if attention_mask is None else scores + attention_mask
    probs = torch.nn.functional.softmax(masked, dim=-1, dtype=torch.float32).to(query.dtype)
    tap(f"{name}.probs", probs[0])
    dropped = torch.nn.functional.dropout(probs, p=dropout, training=module.training)
    output = torch.matmul(dropped, values).transpose(1, 2).contiguous()
    tap(f"{name}.context", output[0].flatten(1))
    return output, probs


@contextmanager
def _attention(config: Any) -> Iterator[None]:
    """The recording function in place of config's attention."""
    before = config._attn_implementation
    ALL_ATTENTION_FUNCTIONS.register(_REGISTRY_NAME, _recording_attention)
    ALL_MASK_ATTENTION_FUNCTIONS.register(_REGISTRY_NAME, eager_mask)
    config._attn_implementation = _REGISTRY_NAME
    try:
        yield
    finally:
        config._attn_implementation = before


def _first(output: Any) -> Any:
    return output[0] if isinstance(output, tuple) else output


def _output_hook(name: str) -> Hook:
    def hook(_module: Any, _inputs: Any, output: Any) -> None:
        tap(name, _first(output)[0])

    return hook


def _input_hook(name: str) -> Hook:
    def hook(_module: Any, inputs: Any) -> None:
        tap(name, inputs[0][0])

    return hook


def _rotary_hook(_module: Any, _inputs: Any, output: Any) -> None:
    tap("model.rotary.cos", output[0][0])
    tap("model.rotary.sin", output[1][0])


def _add_hooks(model: Any, stack: ExitStack) -> None:
    def after(module: Any, hook: Hook) -> None:
        stack.callback(module.register_forward_hook(hook).remove)

    def before(module: Any, hook: Hook) -> None:
        stack.callback(module.register_forward_pre_hook(hook).remove)

    after(model.model.embed_tokens, _output_hook("model.embed_tokens"))
    after(model.model.rotary_emb, _rotary_hook)
    for n, layer in enumerate(model.model.layers):
        name = f"model.layers.{n}"
        for part in ("input_layernorm", "post_attention_layernorm"):
            after(getattr(layer, part), _output_hook(f"{name}.{part}"))
        for part in ("q_proj", "k_proj", "v_proj", "o_proj"):
            after(getattr(layer.self_attn, part), _output_hook(f"{name}.self_attn.{part}"))
        for part in ("q_norm", "k_norm"):  # Qwen3
            if hasattr(layer.self_attn, part):
                after(getattr(layer.self_attn, part), _output_hook(f"{name}.self_attn.{part}"))
        for part in ("gate_proj", "up_proj", "down_proj"):
            after(getattr(layer.mlp, part), _output_hook(f"{name}.mlp.{part}"))
        after(layer.mlp.act_fn, _output_hook(f"{name}.mlp.act"))
        before(layer.mlp.down_proj, _input_hook(f"{name}.mlp.gated"))
        before(layer.post_attention_layernorm, _input_hook(f"{name}.attn_residual"))
        after(layer, _output_hook(name))
    after(model.model.norm, _output_hook("model.norm"))
    after(model.lm_head, _output_hook("lm_head"))


def _forget_lengths(rotary: Any) -> None:
    """Dynamic rope scaling keeps the frequencies of the longest text: as if there was none."""
    if rotary.rope_type == "dynamic":
        rotary.register_buffer("inv_freq", rotary.original_inv_freq.clone(), persistent=False)
        rotary.max_seq_len_cached = rotary.original_max_seq_len


def capture(
    model: Any, input_ids: Sequence[int], path: str | os.PathLike[str], **metadata: str
) -> None:
    """Runs `model` on one prompt (no cache) and writes every node of the trace format to `path`.

    The model is as it was afterwards; its attention is eager for this run, whatever it was loaded
    with. Warns (UserWarning) about prompts that can not show some classes of errors. Raises
    ValueError for architectures that it does not know. `metadata` is added to the trace's.
    """
    config = model.config
    if config.model_type not in SUPPORTED:
        raise ValueError(
            f"model_type {config.model_type!r}: capture knows {' and '.join(SUPPORTED)}; "
            "other models can be recorded with samebits.Recorder and samebits.tap"
        )
    dtype = str(model.dtype).removeprefix("torch.")
    for text in prompt_warnings(input_ids, dtype):
        warnings.warn(text, stacklevel=2)
    ids = torch.tensor([list(input_ids)], dtype=torch.long, device=model.device)
    was_training = model.training
    with ExitStack() as stack:
        stack.callback(model.train, was_training)
        stack.enter_context(torch.no_grad())
        stack.enter_context(_attention(config))
        stack.enter_context(
            Recorder(
                path,
                input_ids=input_ids,
                dtype=dtype,
                framework="torch",
                framework_version=f"{torch.__version__}, transformers {transformers.__version__}",
                attention="eager",
                metadata={
                    "threads": str(torch.get_num_threads()),
                    "cpu": f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}",
                    **metadata,
                },
            )
        )
        _add_hooks(model, stack)
        _forget_lengths(model.model.rotary_emb)
        model.eval()
        model(ids, use_cache=False)
