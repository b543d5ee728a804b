"""Tensors on disk, in the pieces that they came in, until their file is written.

A tensor that grows by a forward pass at a time comes as pieces along one axis. Scores and probs
have a second axis that grows, the keys: there a piece is as wide as the keys that its pass saw, and
the places in front of and behind them become zeros when the file is written. Left out: names,
metadata and the safetensors header, which are the work of samebits.trace.
"""

from __future__ import annotations

import math
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np

from samebits.arrays import ELEMENT_SIZE, RawArray

_BLOCK = 1 << 22  # bytes in memory at a time


@dataclass(frozen=True)
class _Piece:
    begin: int  # in the spool
    shape: tuple[int, ...]
    first_key: int  # where its last axis begins in the tensor's, when the tensor has keys


@dataclass
class Spooled:
    """One tensor: all pieces agree in dtype and in every axis but `axis` (and the keys')."""

    dtype: str
    axis: int | None  # None: one piece, complete
    keys: bool = False  # the last axis counts keys, as many in the end as there are rows
    pieces: list[_Piece] = field(default_factory=list)

    @property
    def shape(self) -> tuple[int, ...]:
        first = self.pieces[0].shape
        if self.axis is None:
            return first
        rows = sum(piece.shape[self.axis] for piece in self.pieces)
        last = (*first[: self.axis], rows, *first[self.axis + 1 :])
        return (*last[:-1], rows) if self.keys else last

    @property
    def size(self) -> int:
        """Bytes."""
        return math.prod(self.shape) * ELEMENT_SIZE[self.dtype]

    def _fixed(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The sizes that a further piece of this shape must share."""
        assert self.axis is not None
        return shape[: self.axis] + shape[self.axis + 1 : -1 if self.keys else None]

    def check_piece(self, name: str, raw: RawArray) -> None:
        """Raises ValueError when `raw` can not follow the pieces that are there."""
        first = self.pieces[0].shape
        if raw.dtype != self.dtype or self._fixed(raw.shape) != self._fixed(first):
            raise ValueError(
                f"{name}: a piece {raw.dtype} {list(raw.shape)} can not follow one that is "
                f"{self.dtype} {list(first)} along axis {self.axis}"
            )


class Spool:
    """An unnamed file of tensors in `folder`, so that memory stays flat and the disk is the same
    as the result's."""

    def __init__(self, folder: Path) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile(  # noqa: SIM115  until close()
            dir=folder, prefix=".samebits-"
        )

    def add(self, tensor: Spooled, raw: RawArray, first_key: int = 0) -> None:
        begin = self._file.seek(0, os.SEEK_END)
        if raw.bits.size:
            self._file.write(np.ascontiguousarray(raw.bits).data)
        tensor.pieces.append(_Piece(begin, raw.shape, first_key))

    def write(self, tensor: Spooled, out: IO[bytes]) -> None:
        """Writes the joined elements of `tensor`, row-major."""
        if tensor.axis is None:
            self._copy(tensor.pieces[0].begin, tensor.size, out)
            return
        for outer in range(math.prod(tensor.shape[: tensor.axis])):
            for piece in tensor.pieces:
                inner = math.prod(piece.shape[tensor.axis :]) * ELEMENT_SIZE[tensor.dtype]
                begin = piece.begin + outer * inner
                if tensor.keys and piece.shape[-1] < tensor.shape[-1]:
                    self._copy_padded(tensor, piece, begin, out)
                else:
                    self._copy(begin, inner, out)

    def _copy(self, begin: int, size: int, out: IO[bytes]) -> None:
        self._file.seek(begin)
        while size > 0:
            block = self._file.read(min(size, _BLOCK))
            if not block:
                raise OSError("the spooled tensors end early")
            out.write(block)
            size -= len(block)

    def _copy_padded(self, tensor: Spooled, piece: _Piece, begin: int, out: IO[bytes]) -> None:
        """The rows [.., keys] of a piece from byte `begin`, in rows as wide as the tensor's."""
        assert tensor.axis is not None
        element = ELEMENT_SIZE[tensor.dtype]
        rows = math.prod(piece.shape[tensor.axis : -1])
        width, total = piece.shape[-1] * element, tensor.shape[-1] * element
        at = piece.first_key * element
        self._file.seek(begin)
        step = max(1, _BLOCK // total)
        for row in range(0, rows, step):
            count = min(step, rows - row)
            data = self._file.read(count * width)
            if len(data) != count * width:
                raise OSError("the spooled tensors end early")
            padded = np.zeros((count, total), np.uint8)
            padded[:, at : at + width] = np.frombuffer(data, np.uint8).reshape(count, width)
            out.write(padded.data)

    def close(self) -> None:
        self._file.close()
