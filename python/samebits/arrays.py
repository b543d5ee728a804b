"""Arrays of numpy, torch and jax as raw little-endian bytes.

bfloat16 is taken as the 16 bits that the framework holds, never through another dtype. Left out:
dtypes that a trace can not hold (float64, integers, float8): these are errors, not conversions.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

# safetensors' names, and the bytes of one element
ELEMENT_SIZE = {"F32": 4, "BF16": 2, "F16": 2}
_NUMPY_NAMES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}


@dataclass(frozen=True)
class RawArray:
    """dtype in safetensors' words, shape, and the elements row-major in little endian."""

    dtype: str
    shape: tuple[int, ...]
    bits: npt.NDArray[np.unsignedinteger[Any]]  # uint32 for F32, else uint16

    def float32(self) -> npt.NDArray[np.float32]:
        """The values as float32, which holds all three dtypes exactly."""
        if self.dtype == "F32":
            return self.bits.view(np.float32)
        if self.dtype == "F16":
            return self.bits.view(np.float16).astype(np.float32)
        return (self.bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def _is_torch(array: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(array, torch.Tensor)


def _is_traced(array: Any) -> bool:
    jax = sys.modules.get("jax")
    return jax is not None and isinstance(array, jax.core.Tracer)


def _from_torch(tensor: Any, name: str) -> RawArray:
    import torch

    dtype = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}.get(tensor.dtype)
    if dtype is None:
        raise TypeError(f"{name}: a trace holds float32, bfloat16 or float16, not {tensor.dtype}")
    plain = tensor.detach().cpu().contiguous()
    # Same bits under an integer type, since numpy has no bfloat16.
    if dtype == "F32":
        bits = plain.view(torch.int32).numpy().view(np.uint32)
    else:
        bits = plain.view(torch.int16).numpy().view(np.uint16)
    return RawArray(dtype, tuple(tensor.shape), bits)


def raw_array(array: Any, name: str) -> RawArray:
    """`array` out of its framework; `name` is for messages only.

    The bits may be the framework's own memory, which it may use again: they are valid until the
    caller returns to it. (A copy of each scores tensor would be felt.)
    """
    if _is_traced(array):
        raise TypeError(
            f"{name}: tapped inside jax.jit (or grad, vmap, scan), where arrays have no values. "
            "Run the model eagerly to record it: with jax.disable_jit(): model(...)"
        )
    if _is_torch(array):
        return _from_torch(array, name)
    plain = np.asarray(array)
    dtype = _NUMPY_NAMES.get(plain.dtype.name)
    if dtype is None:
        raise TypeError(f"{name}: a trace holds float32, bfloat16 or float16, not {plain.dtype}")
    unsigned = np.dtype("<u4") if dtype == "F32" else np.dtype("<u2")
    if plain.dtype.byteorder == ">":
        plain = plain.astype(plain.dtype.newbyteorder("<"))
    # reshape: ascontiguousarray makes a scalar one-dimensional
    bits = np.ascontiguousarray(plain).reshape(plain.shape).view(unsigned)
    return RawArray(dtype, plain.shape, bits)
