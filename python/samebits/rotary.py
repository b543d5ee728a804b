"""What a model's rotary embedding computed, as data: the bits of inv_freq, and where the float32
cosines and sines differ from the correctly rounded ones.

PyTorch's cos and sin come from a vector library whose bits follow no published formula, so a replay
needs them as they were. Nearly all are correctly rounded: the few others are listed with their
distance in steps of float32. Left out: the factor that some rope scalings multiply onto cos and sin
(it is a field of its own), and the rounding to the model's dtype.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

Differences = list[list[int]]  # [position, i, d]


def correctly_rounded(function: Any, angle: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """`function` (np.cos, np.sin) in the widest format of the machine, rounded once to float32."""
    rounded: npt.NDArray[np.float32] = function(angle.astype(np.longdouble)).astype(np.float32)
    return rounded


def ordered(values: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """Integers in the order of the values, neighbours one apart, both zeros 0."""
    bits = values.view(np.int32).astype(np.int64)
    return np.where(bits < 0, -(bits & 0x7FFFFFFF), bits)


class RotaryRecord:
    """Sees every call of a rotary embedding module (Llama's and those that are built like it)."""

    def __init__(self) -> None:
        self._inv_freq: Any = None
        self._scaling = 1.0
        self._cos: dict[int, Differences] = {}  # by position
        self._sin: dict[int, Differences] = {}
        self.problem = ""  # why there is no record, if there is none

    def see(self, module: Any, position_ids: Any, output: tuple[Any, Any]) -> None:
        """`module` gave `output` = cos, sin [B, t, D] for `position_ids` [B, t]."""
        inv_freq = module.inv_freq.detach().float().cpu()
        if self._inv_freq is not None and not torch.equal(inv_freq, self._inv_freq):
            self.problem = "inv_freq changed from pass to pass"
        self._inv_freq = inv_freq.clone()
        self._scaling = float(module.attention_scaling)
        # As the module does it, in the same shapes, but without its scaling and its last cast.
        freqs = position_ids[..., None].float() * module.inv_freq.float()
        emb = torch.cat((freqs, freqs), dim=-1)
        cos, sin = emb.cos(), emb.sin()
        for mine, its in ((cos, output[0]), (sin, output[1])):
            if not torch.equal((mine * module.attention_scaling).to(its.dtype), its):
                self.problem = "the rotary embedding is not cos and sin of position * inv_freq"
        half = freqs.shape[-1]
        positions = position_ids.reshape(-1).tolist()
        angle = freqs.cpu().numpy().reshape(-1, half)
        for found, function, values in ((self._cos, np.cos, cos), (self._sin, np.sin, sin)):
            first_half = values[..., :half].cpu().numpy().reshape(-1, half)
            distance = ordered(first_half) - ordered(correctly_rounded(function, angle))
            for row, position in enumerate(positions):
                if position not in found:
                    found[position] = [
                        [position, int(i), int(distance[row, i])]
                        for i in np.flatnonzero(distance[row])
                    ]

    def json(self) -> dict[str, Any]:
        """The `rotary` entry of a trace's metadata (docs/trace-format.md)."""
        return {
            "inv_freq": self._inv_freq.numpy().view(np.uint32).tolist(),
            "attention_scaling": self._scaling,
            "cos": [entry for at in sorted(self._cos) for entry in self._cos[at]],
            "sin": [entry for at in sorted(self._sin) for entry in self._sin[at]],
        }
