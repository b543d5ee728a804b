"""Looks into transformers' attention while it runs, without a change to what it computes.

A wrapper stands in transformers' attention registry under the name of the real function and calls
it. sdpa is one fused kernel: q and k go in and context comes out, scores and probs never exist.
Eager attention is Python: its scores are picked up as its operations run, and its probs are what it
returns. Left out: flash and flex attention.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import transformers
from torch.overrides import TorchFunctionMode
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

KINDS = ("eager", "sdpa")


class Tape(Protocol):
    """Where a pass leaves its tensors."""

    def rows(self, name: str, tensor: Any) -> None:
        """[B, t, ..] of the pass's t tokens."""

    def keys(self, name: str, tensor: Any) -> None:
        """[B, H, t, s] over the last s keys so far."""


class _Scores(TorchFunctionMode):  # type: ignore[misc]
    """Hands over the first matmul's product as soon as it is scaled, before any mask."""

    def __init__(self, take: Callable[[Any], None]) -> None:
        super().__init__()
        self._take = take
        self._product: Any = None
        self.found = False

    def __torch_function__(
        self, function: Any, _types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        if self.found:
            return result
        if self._product is None:
            if function.__name__ == "matmul":
                self._product = result
        elif function.__name__ == "mul" and args[0] is self._product:
            self.found = True
            self._product = None  # it is as large as the scores
            self._take(result)
        return result


def _eager_function(module: Any) -> Callable[..., Any]:
    """eager_attention_forward beside the class of `module`, as the class itself finds it."""
    for kind in type(module).__mro__:
        function = getattr(sys.modules.get(kind.__module__), "eager_attention_forward", None)
        if function is not None:
            found: Callable[..., Any] = function
            return found
    raise RuntimeError(f"{type(module).__name__}: no eager_attention_forward in its module")


def _eager(real: Callable[..., Any] | None, tape: Tape) -> Callable[..., Any]:
    def attention(module: Any, query: Any, key: Any, *args: Any, **kwargs: Any) -> Any:
        name = f"model.layers.{module.layer_idx}.self_attn"
        _inputs(tape, name, query, key)
        function = real or _eager_function(module)
        with _Scores(lambda scores: tape.keys(f"{name}.scores", scores)) as scores:
            output, probs = function(module, query, key, *args, **kwargs)
        if not scores.found:
            raise RuntimeError(
                f"{name}: eager attention of transformers {transformers.__version__} does not "
                "scale the product of q and k as earlier versions do; capture can not find scores"
            )
        tape.keys(f"{name}.probs", probs)
        tape.rows(f"{name}.context", output.flatten(2))
        return output, probs

    return attention


def _sdpa(real: Callable[..., Any], tape: Tape) -> Callable[..., Any]:
    def attention(module: Any, query: Any, key: Any, *args: Any, **kwargs: Any) -> Any:
        name = f"model.layers.{module.layer_idx}.self_attn"
        _inputs(tape, name, query, key)
        output, weights = real(module, query, key, *args, **kwargs)
        tape.rows(f"{name}.context", output.flatten(2))
        return output, weights

    return attention


def _inputs(tape: Tape, name: str, query: Any, key: Any) -> None:
    """query [B, H, t, D], key [B, K, s, D] whose last t are new."""
    tape.rows(f"{name}.q_rope", query.transpose(1, 2))
    tape.rows(f"{name}.k_rope", key[:, :, -query.shape[2] :].transpose(1, 2))


@contextmanager
def watched(config: Any, kind: str, tape: Tape) -> Iterator[None]:
    """Within it, models with `config` run attention of `kind`, which leaves its tensors on `tape`.

    The name in the configuration stays that of the real attention, since transformers chooses masks
    by it. The registry is global: do not run other models in other threads meanwhile.
    """
    before = config._attn_implementation
    registered = ALL_ATTENTION_FUNCTIONS.get(kind)
    if kind == "eager":
        wrapper = _eager(registered, tape)
    else:
        assert registered is not None
        wrapper = _sdpa(registered, tape)
    config._attn_implementation = kind
    ALL_ATTENTION_FUNCTIONS[kind] = wrapper  # over the library's entry, for this process only
    try:
        yield
    finally:
        del ALL_ATTENTION_FUNCTIONS[kind]
        if registered is not ALL_ATTENTION_FUNCTIONS.get(kind):
            ALL_ATTENTION_FUNCTIONS[kind] = registered  # it had been replaced before us
        config._attn_implementation = before
