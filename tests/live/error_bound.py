"""How far float32 logits may be from exact ones: a probabilistic bound, to first order.

Each rounding errs by at most u times the magnitude of what is rounded. With roundings that are
independent and of mean 0 (the model of Higham and Mary, SIAM J. Sci. Comput. 41, 2019), Hoeffding's
inequality bounds their weighted sum: it exceeds L sqrt(sum (g c)^2) with a probability of at most
2 exp(-L^2 / 2), where c is the bound of one rounding and g the derivative of the logit by what is
rounded. L = 6: 3e-8. A sum of n products has n roundings, each of a partial sum that is at most
sum |x w| in any order: c^2 adds up to n (u sum |x w|)^2.

Errors that many values share are added up before they are squared: that of a row's norm, of a row's
softmax, of an angle, which all heads and layers share. Those of the frequencies, which all tokens
share, count as absolute values, without any luck. The derivatives come from transformers' own graph
in float64, which keeps norms, softmax and rotary tables in float32: those count twice. Left out:
terms of second order (u is 6e-8: a millionth), embeddings (exact), the rounding of the exponents
2i/d, which is the same in both.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, eager_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

U = 2.0**-24
LUCK = 6.0
NAME = "samebits_error_bound"
Tensor = Any


class Node:
    """One operation's output: c of each element, and a factor of u that a row's values share."""

    def __init__(self, value: Tensor, own: Tensor, shared: float | Tensor = 0.0) -> None:
        value.retain_grad()
        self.value, self.own, self.shared = value, own.detach(), shared

    def squares(self) -> float:
        if self.value.grad is None:
            return 0.0
        gradient, value = self.value.grad, self.value.detach()
        rows = (gradient * value).sum(-1) * self.shared * U
        return float(((gradient * self.own) ** 2).sum() + (rows**2).sum())


class Tables:
    """The rotary tables, as leaves of the graph. `relative`: the error of a frequency."""

    def __init__(self, inverse: Tensor, relative: float, cos: Tensor, sin: Tensor) -> None:
        self.inverse, self.relative = inverse, relative
        self.cos, self.sin = (table.detach().requires_grad_() for table in (cos, sin))

    def parts(self) -> tuple[float, float]:
        """The squares of what has luck, and the rest. Twice each: both sides are fp32."""
        half = self.cos.shape[-1] // 2
        cos, sin = self.cos.detach()[0, :, :half], self.sin.detach()[0, :, :half]
        # Both halves of a table hold the same numbers.
        by_cos, by_sin = (t.grad[0, :, :half] + t.grad[0, :, half:] for t in (self.cos, self.sin))
        angles = torch.arange(len(cos))[:, None] * self.inverse
        by_angle = by_sin * cos - by_cos * sin
        squares = (2 * 4 * U) ** 2 * (by_cos**2 + by_sin**2).sum()
        squares = squares + ((2 * U * angles * by_angle) ** 2).sum()
        rest = ((angles * by_angle).sum(0)).abs().sum() * 2 * self.relative
        return float(squares), float(rest)


class Run:
    """Hooks that note the nodes of one float64 forward pass."""

    def __init__(self, config: Any) -> None:
        self.nodes: list[Node] = []
        self.tables: Any = None
        # docs/numerics/bounds.md: the power and its inverse; scaling; theta in fp32 for dynamic.
        rope = config.rope_parameters
        extra = {"default": 0.0, "linear": 2.0, "dynamic": 8 * rope.get("factor", 0.0)}
        self.relative = U * (4 + extra.get(rope["rope_type"], 24.0))

    def linear(self, module: Any, inputs: Any, output: Tensor) -> None:
        x, w = inputs[0].detach().abs(), module.weight.detach().abs()
        total = x @ w.T
        if module.bias is not None:
            total = total + module.bias.detach().abs()
        self.nodes.append(Node(output, U * (w.shape[1] + 2) ** 0.5 * total))

    def norm(self, module: Any, _inputs: Any, output: Tensor) -> None:
        # Half of the relative error of the sum of squares, and the four operations behind it.
        shared = 2 * ((module.weight.shape[0] ** 0.5) / 2 + 4)
        self.nodes.append(Node(output, 2 * 2 * U * output.detach().abs(), shared))

    def activation(self, _module: Any, _inputs: Any, output: Tensor) -> None:
        self.nodes.append(Node(output, 8 * U * output.detach().abs()))

    def one_rounding(self, value: Tensor) -> None:
        self.nodes.append(Node(value, U * value.detach().abs()))

    def attention(
        self,
        module: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor,
        scaling: float,
        **_: Any,
    ) -> tuple[Tensor, Tensor]:
        tokens = query.shape[2]
        for rotated in (query, key):
            # |x cos| + |x' sin| is at most sqrt(2) times the length of the pair; three roundings.
            first, second = rotated.detach().chunk(2, -1)
            pair = 2**0.5 * torch.hypot(first, second).repeat(1, 1, 1, 2)
            self.nodes.append(Node(rotated, U * 3**0.5 * pair))
        groups = query.shape[1] // key.shape[1]
        keys, values = (t.repeat_interleave(groups, 1) for t in (key, value))
        scores = torch.matmul(query, keys.transpose(2, 3)) * scaling
        magnitude = query.detach().abs() @ keys.detach().abs().transpose(2, 3) * scaling
        self.nodes.append(Node(scores, U * (query.shape[3] + 2) ** 0.5 * magnitude))
        masked = scores + mask
        probs = torch.nn.functional.softmax(masked, dim=-1, dtype=torch.float64)
        p, s = probs.detach(), masked.detach()
        depth = (s.amax(-1, keepdim=True) - s).clamp(0, 1e4) + 5  # docs/numerics/bounds.md
        # The sum has the errors of the exponentials, weighted, and of its additions.
        shared = 2 * ((p * depth).sum(-1) + tokens**0.5 + 2)
        self.nodes.append(Node(probs, 2 * U * p * (depth + 1), shared))
        output = torch.matmul(probs, values)
        self.nodes.append(Node(output, U * (tokens + 1) ** 0.5 * (p @ values.detach().abs())))
        return output.transpose(1, 2).contiguous(), probs

    def add_hooks(self, model: Any) -> list[Any]:
        def rotary(module: Any, _inputs: Any, output: Any) -> Any:
            self.tables = Tables(module.inv_freq.double(), self.relative, *output)
            return self.tables.cos, self.tables.sin

        def into(_module: Any, inputs: Any) -> None:
            self.one_rounding(inputs[0])

        def out_of(_module: Any, _inputs: Any, output: Any) -> None:
            self.one_rounding(output[0] if isinstance(output, tuple) else output)

        hooks = [model.model.rotary_emb.register_forward_hook(rotary)]
        for module in model.modules():
            if isinstance(module, torch.nn.Linear):
                hooks.append(module.register_forward_hook(self.linear))
            elif type(module).__name__.endswith("RMSNorm"):
                hooks.append(module.register_forward_hook(self.norm))
        for layer in model.model.layers:
            hooks.append(layer.mlp.act_fn.register_forward_hook(self.activation))
            hooks.append(layer.mlp.down_proj.register_forward_pre_hook(into))
            hooks.append(layer.post_attention_layernorm.register_forward_pre_hook(into))
            hooks.append(layer.register_forward_hook(out_of))
        return hooks


def bounds(model: Any, ids: list[int], places: list[tuple[int, int]]) -> list[float]:
    """For each (token, word) of `places` the bound of that logit. `model`: eager, float64."""
    run = Run(model.config)
    before = model.config._attn_implementation
    ALL_ATTENTION_FUNCTIONS.register(NAME, run.attention)
    ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, eager_mask)
    hooks = run.add_hooks(model)
    try:
        model.config._attn_implementation = NAME
        logits = model(torch.tensor([ids]), use_cache=False).logits[0]
        result = []
        for token, word in places:
            for value in (*(n.value for n in run.nodes), run.tables.cos, run.tables.sin):
                value.grad = None
            logits[token, word].backward(retain_graph=True)
            squares, rest = run.tables.parts()
            squares += sum(node.squares() for node in run.nodes)
            result.append(LUCK * squares**0.5 + rest)
        return result
    finally:
        model.config._attn_implementation = before
        for hook in hooks:
            hook.remove()
