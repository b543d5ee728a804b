"""Records a transformers model: unmodified modules, a prefill and cached decode steps.

Module outputs come from forward hooks, the inside of attention from samebits.torch_attention. The
calls of the model are those of `generate` with greedy choice: a cache from the first pass on,
position_ids counted from each sequence's first token, an attention_mask only where there is
padding. Unlike there, the logits of all tokens are computed, and nothing stops at an end token.
Left out: flash and flex attention, static caches, architectures other than Llama, Mistral, Qwen2
and Qwen3.
"""

from __future__ import annotations

import inspect
import json
import os
import platform
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from samebits.blind_spots import PromptWarning, blind_spots, prompt_warnings
from samebits.checkpoint import checkpoint_digest
from samebits.rotary import RotaryRecord
from samebits.torch_attention import KINDS, watched
from samebits.trace import Numbers, Recorder

SUPPORTED = ("llama", "mistral", "qwen2", "qwen3")

Hook = Callable[..., None]
Progress = Callable[[int, int], None]


class _Tape:
    """Appends what a pass computes to the trace's tensors; a single sequence has no batch axis."""

    def __init__(self, recorder: Recorder, batch: int) -> None:
        self._recorder = recorder
        self._batch = batch
        self._axis = 0 if batch == 1 else 1
        self.seen = 0  # tokens so far, those of the present pass included

    def _plain(self, tensor: Any) -> Any:
        return tensor[0] if self._batch == 1 else tensor.expand(self._batch, *tensor.shape[1:])

    def rows(self, name: str, tensor: Any) -> None:
        """[B, t, ..] of the pass's t tokens."""
        self._recorder.append(name, self._plain(tensor), self._axis)

    def keys(self, name: str, tensor: Any) -> None:
        """[B, H, t, s] over the last s keys so far (a sliding window drops the earlier ones)."""
        first = self.seen - tensor.shape[-1]
        self._recorder.append(name, self._plain(tensor), self._axis + 1, first)


def _first(output: Any) -> Any:
    return output[0] if isinstance(output, tuple) else output


class _Hooks:
    """Forward hooks that leave modules' inputs and outputs on a tape, until the stack unwinds."""

    def __init__(self, tape: _Tape, stack: ExitStack) -> None:
        self._tape = tape
        self._stack = stack

    def after(self, module: Any, call: Hook) -> None:
        self._stack.callback(module.register_forward_hook(call, with_kwargs=True).remove)

    def output(self, name: str, module: Any) -> None:
        def hook(_module: Any, _args: Any, _kwargs: Any, output: Any) -> None:
            self._tape.rows(name, _first(output))

        self.after(module, hook)

    def input(self, name: str, module: Any) -> None:
        def hook(_module: Any, args: Any) -> None:
            self._tape.rows(name, args[0])

        self._stack.callback(module.register_forward_pre_hook(hook).remove)

    def model(self, model: Any) -> None:
        self.output("model.embed_tokens", model.model.embed_tokens)
        for n, layer in enumerate(model.model.layers):
            name = f"model.layers.{n}"
            for part in ("input_layernorm", "post_attention_layernorm"):
                self.output(f"{name}.{part}", getattr(layer, part))
            for part in ("q_proj", "k_proj", "v_proj", "o_proj"):
                self.output(f"{name}.self_attn.{part}", getattr(layer.self_attn, part))
            for part in ("q_norm", "k_norm"):  # Qwen3
                if hasattr(layer.self_attn, part):
                    self.output(f"{name}.self_attn.{part}", getattr(layer.self_attn, part))
            for part in ("gate_proj", "up_proj", "down_proj"):
                self.output(f"{name}.mlp.{part}", getattr(layer.mlp, part))
            self.output(f"{name}.mlp.act", layer.mlp.act_fn)
            self.input(f"{name}.mlp.gated", layer.mlp.down_proj)
            self.input(f"{name}.attn_residual", layer.post_attention_layernorm)
            self.output(name, layer)
        self.output("model.norm", model.model.norm)
        self.output("lm_head", model.lm_head)

    def rotary(self, module: Any, record: RotaryRecord) -> None:
        def hook(_module: Any, args: Any, kwargs: Any, output: Any) -> None:
            self._tape.rows("model.rotary.cos", output[0])
            self._tape.rows("model.rotary.sin", output[1])
            record.see(module, kwargs["position_ids"] if len(args) < 2 else args[1], output)

        self.after(module, hook)

    def progress(self, model: Any, passes: int, report: Progress) -> None:
        layers = model.model.layers
        done = 0

        def hook(*_: Any) -> None:
            nonlocal done
            done += 1
            report(done, passes * len(layers))

        for layer in layers:
            self.after(layer, hook)


def _forget_lengths(rotary: Any) -> None:
    """Dynamic rope scaling keeps the frequencies of the longest text: as if there was none."""
    if rotary.rope_type == "dynamic":
        rotary.register_buffer("inv_freq", rotary.original_inv_freq.clone(), persistent=False)
        rotary.max_seq_len_cached = rotary.original_max_seq_len


@dataclass
class _Inputs:
    """What the model is called with; grows by a column a decode step."""

    ids: Any  # [B, T]
    mask: Any  # [B, T] of 0 and 1, or None: no padding
    positions: Any  # [B, T]

    @staticmethod
    def make(config: Any, input_ids: Numbers, attention_mask: Numbers | None) -> _Inputs:
        ids = _matrix(input_ids, "input_ids")
        if (bad := ids[(ids < 0) | (ids >= config.vocab_size)]).numel():
            raise ValueError(
                f"input_ids: {bad[0].item()} is not from 0 to {config.vocab_size - 1} (vocab_size)"
            )
        mask = torch.ones_like(ids)
        if attention_mask is not None:
            mask = _matrix(attention_mask, "attention_mask")
        if mask.shape != ids.shape or not ((mask == 0) | (mask == 1)).all():
            raise ValueError("attention_mask: expected a 0 or 1 for each of input_ids")
        if not (mask[:, -1] == 1).all():
            raise ValueError("attention_mask: the last token must not be masked: pad on the left")
        # As generate's _prepare_position_ids_for_generation.
        positions = (mask.cumsum(-1) - 1).masked_fill(mask == 0, 0)
        return _Inputs(ids, None if (mask == 1).all() else mask, positions)

    def add(self, tokens: Any) -> None:
        """`tokens` [B, 1] follow."""
        self.ids = torch.cat([self.ids, tokens], dim=-1)
        self.positions = torch.cat([self.positions, self.positions[:, -1:] + 1], dim=-1)
        if self.mask is not None:
            self.mask = torch.cat([self.mask, torch.ones_like(tokens)], dim=-1)


def _nested(values: Any) -> Any:
    """[B, T] as the trace's metadata has it: [B][T], or [T] of a single sequence."""
    rows = values.tolist()
    return rows[0] if len(rows) == 1 else rows


def _matrix(values: Any, what: str) -> Any:
    """[B, T] integers of a list, of a list of lists, or of an array."""
    plain = values.tolist() if hasattr(values, "tolist") else values
    try:
        matrix = torch.tensor(plain)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{what}: expected [T] or [B][T] integers: {error}") from None
    if matrix.ndim == 1:
        matrix = matrix[None]
    if matrix.ndim != 2 or matrix.numel() == 0 or matrix.is_floating_point():
        raise ValueError(f"{what}: expected [T] or [B][T] integers, found {list(matrix.shape)}")
    return matrix.long()


def _passes(model: Any, inputs: _Inputs, steps: int, tape: _Tape) -> list[int]:
    """The prefill and `steps` decode steps; returns the tokens of each pass."""
    cache = transformers.DynamicCache(config=model.config)
    named = inspect.signature(model.forward).parameters
    cache_name = "cache" if "cache" in named else "past_key_values"  # before transformers 5.24
    chunks = [inputs.ids.shape[1]]
    while True:
        new = chunks[-1]
        tape.seen += new
        device = model.device
        mask = {} if inputs.mask is None else {"attention_mask": inputs.mask.to(device)}
        output = model(
            input_ids=inputs.ids[:, -new:].clone().to(device),
            position_ids=inputs.positions[:, -new:].clone().to(device),
            use_cache=True,
            **{cache_name: cache},
            **mask,
        )
        if len(chunks) > steps:
            return chunks
        inputs.add(output.logits[:, -1].float().argmax(-1, keepdim=True).cpu())
        chunks.append(1)


def _cpu() -> str:
    """For people: the processor's name, and the instructions that torch chose."""
    name = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    except OSError:  # no Linux
        pass
    return f"{name}, {platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"


def weight_alignment(model: Any) -> dict[str, int]:
    """Where each weight lies, modulo 64; a tied weight under each of its names."""
    named = model.named_parameters(remove_duplicate=False)
    return {name: parameter.data_ptr() % 64 for name, parameter in named}


def _origin(model: Any, absent: dict[str, str]) -> dict[str, str]:
    """What tells a replay which checkpoint this was, and what depends on the process."""
    found = {}
    if all(parameter.device.type == "cpu" for parameter in model.parameters()):
        found["weight_alignment"] = json.dumps(weight_alignment(model))
    else:
        absent["weight_alignment"] = "the weights are not in the CPU's memory"
    folder = getattr(model, "name_or_path", "")
    if not folder or not os.path.isdir(folder):
        absent["checkpoint_digest"] = "the model was not loaded from a folder"
        return found
    try:
        found["checkpoint_digest"] = checkpoint_digest(folder)
    except (OSError, ValueError) as error:
        absent["checkpoint_digest"] = str(error)
    return found


def _run_metadata(
    config: Any, inputs: _Inputs, chunks: list[int], rotary: RotaryRecord, absent: dict[str, str]
) -> dict[str, str]:
    """What is known at the end of a run."""
    found = {"chunks": json.dumps(chunks)}
    if inputs.mask is not None:
        found["attention_mask"] = json.dumps(_nested(inputs.mask))
    if rotary.problem:
        absent["rotary"] = rotary.problem
    else:
        found["rotary"] = json.dumps(rotary.json(), separators=(",", ":"))
    blind = blind_spots(config, inputs.ids.tolist(), inputs.mask is not None, chunks)
    found["blind_spots"] = json.dumps(blind)
    if absent:
        found["absent"] = json.dumps(absent)
    return found


def _check_attention(model: Any, recorder: Recorder) -> None:
    for n in range(len(model.model.layers)):
        if f"model.layers.{n}.self_attn.context" not in recorder:
            raise RuntimeError(
                f"transformers {transformers.__version__} did not ask its attention registry in "
                f"layer {n}; capture can not look into attention"
            )


def check_model_type(config: Any) -> None:
    if config.model_type not in SUPPORTED:
        raise ValueError(
            f"model_type {config.model_type!r}: capture knows {' and '.join(SUPPORTED)}; "
            "other models can be recorded with samebits.Recorder and samebits.tap"
        )


def _check(model: Any, attention: str, steps: int) -> None:
    check_model_type(model.config)
    if attention not in KINDS:
        raise ValueError(f"attention {attention!r}: expected {' or '.join(KINDS)}")
    if steps < 0:
        raise ValueError(f"steps {steps}: expected 0 or more")


def capture(
    model: Any,
    input_ids: Numbers,
    path: str | os.PathLike[str],
    *,
    attention_mask: Numbers | None = None,
    steps: int = 0,
    attention: str = "eager",
    progress: Progress | None = None,
    **metadata: str,
) -> list[int] | list[list[int]]:
    """samebits.capture: see there."""
    _check(model, attention, steps)
    inputs = _Inputs.make(model.config, input_ids, attention_mask)
    dtype = str(model.dtype).removeprefix("torch.")
    longest = int(inputs.positions.max()) + 1
    for text in prompt_warnings(longest, dtype):
        warnings.warn(text, PromptWarning, stacklevel=3)
    absent: dict[str, str] = {}
    if attention == "sdpa":
        for part in ("scores", "probs"):
            absent[f"model.layers.N.self_attn.{part}"] = "inside of sdpa's fused kernel"
    rotary = RotaryRecord()
    with ExitStack() as stack:
        stack.callback(model.train, model.training)
        stack.enter_context(torch.no_grad())
        recorder = stack.enter_context(
            Recorder(
                path,
                input_ids=_nested(inputs.ids),
                dtype=dtype,
                framework="torch",
                framework_version=f"{torch.__version__}, transformers {transformers.__version__}",
                attention=attention,
                metadata={"threads": str(torch.get_num_threads()), "cpu": _cpu(), **metadata},
            )
        )
        tape = _Tape(recorder, inputs.ids.shape[0])
        stack.enter_context(watched(model.config, attention, tape))
        hooks = _Hooks(tape, stack)
        hooks.model(model)
        hooks.rotary(model.model.rotary_emb, rotary)
        if progress is not None:
            hooks.progress(model, steps + 1, progress)
        _forget_lengths(model.model.rotary_emb)
        model.eval()
        chunks = _passes(model, inputs, steps, tape)
        _check_attention(model, recorder)
        recorder.set_inputs(_nested(inputs.ids), _nested(inputs.positions))
        recorder.annotate(_origin(model, absent))
        recorder.annotate(_run_metadata(model.config, inputs, chunks, rotary, absent))
    ids: list[int] | list[list[int]] = _nested(inputs.ids)
    return ids
