"""What the probes of matrix products share: arrays as torch's tensors, and how many to take."""

from __future__ import annotations

from collections.abc import Callable

import torch

from samebits.orders import Floats

Progress = Callable[[float], None]  # work done, in units of probe_gemm.work()

ROWS = 32  # held at least, for several products of few rows
ENOUGH = 2048  # outputs that are compared at least, or about so


def to_torch(values: Floats, dtype: str) -> torch.Tensor:
    return torch.from_numpy(values).to(getattr(torch, dtype))


def to_numpy(tensor: torch.Tensor) -> Floats:
    values: Floats = tensor.float().contiguous().numpy()
    return values


def aligned(tensor: torch.Tensor, position: int = 0) -> torch.Tensor:
    """A copy whose first element stands ``position`` elements after a multiple of 64 bytes."""
    buffer = torch.empty(tensor.numel() + 32 + position, dtype=tensor.dtype)
    first = (-buffer.data_ptr() % 64) // tensor.element_size() + position
    copy = buffer[first : first + tensor.numel()].view(tensor.shape)
    copy.copy_(tensor)
    return copy
