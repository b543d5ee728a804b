"""How far float32 logits may be from exact ones, to first order.

Every operation may err by B (docs/numerics/bounds.md): gamma(n) times the sum of magnitudes for sums
of n terms, some units of roundoff u for the others, in any order of summation. A logit moves by the
sum over all elements of all operations of |d logit / d element| B, plus terms of second order: u is
6e-8, so those are a millionth of it. The derivatives come from transformers' own graph in float64,
which keeps norms, softmax and rotary tables in float32: their B counts twice. Left out: embeddings
(exact), the causal bookkeeping of masked places (their probabilities are 0).
"""

from __future__ import annotations

from typing import Any

import torch
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, eager_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

U = 2.0**-24
NAME = "samebits_error_bound"
Tensor = Any


def gamma(n: int) -> float:
    return n * U / (1 - n * U)


class Errors:
    """Nodes of one float64 run with the bound of each: (value, B)."""

    def __init__(self) -> None:
        self.nodes: list[tuple[Tensor, Tensor]] = []

    def note(self, value: Tensor, bound: Tensor) -> None:
        if value.requires_grad:
            value.retain_grad()
            self.nodes.append((value, bound.detach()))

    def linear(self, module: Any, inputs: Any, output: Tensor) -> None:
        x, w = inputs[0].detach().abs(), module.weight.detach().abs()
        total = x @ w.T
        if module.bias is not None:
            total = total + module.bias.detach().abs()
        self.note(output, gamma(w.shape[1] + 2) * total)

    def norm(self, module: Any, _inputs: Any, output: Tensor) -> None:
        size = module.weight.shape[0]
        self.note(output, 2 * output.detach().abs() * (gamma(size + 2) / 2 + 8 * U))

    def elementwise(self, _module: Any, _inputs: Any, output: Tensor) -> None:
        output = output[0] if isinstance(output, tuple) else output
        self.note(output, 8 * U * output.detach().abs())

    def input_of(self, _module: Any, inputs: Any) -> None:
        """A product or a sum of two: one rounding."""
        self.note(inputs[0], U * inputs[0].detach().abs())

    def attention(
        self, module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor,
        scaling: float, **_: Any,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        # q and k behind the rotary embedding: |x cos| + |x' sin| is at most sqrt(2) times the length
        # of the pair; three roundings, and the error of cos and sin (angles up to the last position).
        tokens = query.shape[2]
        for rotated in (query, key):
            half = rotated.shape[-1] // 2
            pair = torch.hypot(rotated[..., :half], rotated[..., half:]).repeat(1, 1, 1, 2).detach()
            angles = torch.arange(tokens)[:, None] * self.inverse.repeat(2)
            table = (8 * U + self.relative) * angles + 8 * U
            self.note(rotated, pair * (2**0.5 * gamma(3) + 2 * 2**0.5 * table))
        groups = query.shape[1] // key.shape[1]
        keys, values = (t.repeat_interleave(groups, 1) for t in (key, value))
        scores = torch.matmul(query, keys.transpose(2, 3)) * scaling
        magnitude = query.detach().abs() @ keys.detach().abs().transpose(2, 3) * scaling
        self.note(scores, gamma(query.shape[3] + 2) * magnitude)
        masked = scores + mask
        probs = torch.nn.functional.softmax(masked, dim=-1, dtype=torch.float64)
        p, s = probs.detach(), masked.detach()
        depth = (s.amax(-1, keepdim=True) - s).clamp(0, 1e4) + 5
        spread = (p * depth).sum(-1, keepdim=True)
        self.note(probs, 2 * p * (U * (depth + spread) + gamma(tokens) + 2 * U))
        output = torch.matmul(probs, values)
        self.note(output, gamma(tokens + 1) * (p @ values.detach().abs()))
        return output.transpose(1, 2).contiguous(), probs


def bounds(model: Any, ids: list[int], places: list[tuple[int, int]]) -> list[float]:
    """For each (token, vocabulary) of `places` the bound of that logit. `model`: eager, float64."""
    errors = Errors()
    rotary = model.model.rotary_emb
    hooks = []
    before = model.config._attn_implementation
    ALL_ATTENTION_FUNCTIONS.register(NAME, errors.attention)
    ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, eager_mask)

    def keep_frequencies(module: Any, _inputs: Any, _output: Any) -> None:
        errors.inverse = module.inv_freq.double()
        # Exponents that are rounded, theta of dynamic scaling, ramps: a bound for all of them.
        theta = model.config.rope_parameters["rope_theta"]
        factor = model.config.rope_parameters.get("factor", 1.0)
        errors.relative = U * (2 * float(torch.tensor(theta).log()) + 16 * factor)

    try:
        model.config._attn_implementation = NAME
        hooks.append(rotary.register_forward_hook(keep_frequencies))
        for module in model.modules():
            if isinstance(module, torch.nn.Linear):
                hooks.append(module.register_forward_hook(errors.linear))
            elif type(module).__name__.endswith("RMSNorm"):
                hooks.append(module.register_forward_hook(errors.norm))
        for layer in model.model.layers:
            hooks.append(layer.mlp.act_fn.register_forward_hook(errors.elementwise))
            hooks.append(layer.mlp.down_proj.register_forward_pre_hook(errors.input_of))
            hooks.append(layer.post_attention_layernorm.register_forward_pre_hook(errors.input_of))
            hooks.append(layer.register_forward_hook(errors.elementwise))
        logits = model(torch.tensor([ids]), use_cache=False).logits[0]
        result = []
        for token, word in places:
            for value, _ in errors.nodes:
                value.grad = None
            logits[token, word].backward(retain_graph=True)
            total = sum(
                float((value.grad.abs() * bound).sum())
                for value, bound in errors.nodes
                if value.grad is not None
            )
            result.append(total)
        return result
    finally:
        model.config._attn_implementation = before
        for hook in hooks:
            hook.remove()
