"""Writes and reads traces (docs/trace-format.md).

A Recorder spools every array to disk as it comes (samebits.spool), so memory stays flat; the file
appears under its final name only when it is complete. Left out: checking shapes against a model's
configuration, which is the work of `samebits check`.
"""

from __future__ import annotations

import contextvars
import json
import math
import operator
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
import safetensors

from samebits.arrays import ELEMENT_SIZE, RawArray, raw_array
from samebits.spool import Spool, Spooled

FORMAT = "samebits-trace-1"
DTYPES = ("float32", "bfloat16", "float16")

T = TypeVar("T")
Numbers: TypeAlias = Sequence[int] | Sequence[Sequence[int]]  # of one sequence, or of each


def _check_numbers(values: Numbers, what: str) -> list[int] | list[list[int]]:
    """[T], or [B][T] with all rows as long as the first."""
    if hasattr(values, "tolist"):  # an array
        values = values.tolist()
    if any(isinstance(value, Sequence) for value in values):
        rows = [_check_row(value, what) for value in values]
        if any(len(row) != len(rows[0]) for row in rows):
            raise ValueError(f"{what}: rows of {sorted({len(row) for row in rows})} entries")
        return rows
    return _check_row(values, what)


def _check_row(values: Any, what: str) -> list[int]:
    try:
        plain = [operator.index(value) for value in values]
    except TypeError:
        plain = []
    if not plain or any(value < 0 or value >= 2**31 for value in plain):
        raise ValueError(
            f"{what}: expected one or more integers from 0 to 2^31 - 1, found {str(values)[:60]}"
        )
    return plain


def _form(numbers: list[int] | list[list[int]]) -> tuple[int, ...]:
    first = numbers[0]
    return (len(numbers), len(first)) if isinstance(first, list) else (len(numbers),)


class Recorder:
    """Collects named arrays and writes them as one trace.

        with samebits.Recorder("port.safetensors", input_ids=ids, dtype="bfloat16",
                               framework="jax", framework_version=jax.__version__):
            model(ids)                      # calls samebits.tap(name, array)

    `dtype` is the dtype that the model runs in. An array may have another one (scores kept in
    float32, say): it is written as it is. `metadata` takes further strings (prompt, cpu,
    ...). If the block raises, no file is left. Recorders nest: the innermost one records.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        input_ids: Numbers,
        dtype: str,
        framework: str,
        framework_version: str | None = None,
        positions: Numbers | None = None,
        attention: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        if dtype not in DTYPES:
            raise ValueError(f"dtype {dtype!r}: expected one of {', '.join(DTYPES)}")
        self._path = Path(path)
        self._metadata: dict[str, str] = {}
        self.annotate({**(metadata or {}), "format": FORMAT, "dtype": dtype})
        self.annotate({"framework": framework})
        if framework_version is not None:
            self.annotate({"framework_version": framework_version})
        if attention is not None:
            self.annotate({"attention": attention})
        self.set_inputs(input_ids, positions)
        self._tensors: dict[str, Spooled] = {}
        self._spool: Spool | None = None
        self._token: contextvars.Token[Recorder | None] | None = None

    def annotate(self, metadata: Mapping[str, str]) -> None:
        """Adds metadata, or replaces it; strings only."""
        for key, value in metadata.items():
            if not isinstance(value, str):
                raise TypeError(f"metadata {key}: expected a string, found {value!r}")
        self._metadata.update(metadata)

    def set_inputs(self, input_ids: Numbers, positions: Numbers | None = None) -> None:
        """For runs whose ids are known at their end only. [T] or, in a batch, [B][T]."""
        ids = _check_numbers(input_ids, "input_ids")
        self._metadata["input_ids"] = json.dumps(ids)
        if positions is not None:
            places = _check_numbers(positions, "positions")
            if _form(places) != _form(ids):
                raise ValueError(
                    f"positions of shape {_form(places)} for input_ids of shape {_form(ids)}"
                )
            self._metadata["positions"] = json.dumps(places)

    def __enter__(self) -> Recorder:
        if self._spool is not None:
            raise RuntimeError("this Recorder is in use")
        self._spool = Spool(self._path.parent)
        self._tensors = {}
        self._token = _active.set(self)
        return self

    def record(self, name: str, array: Any) -> None:
        """Copies `array` into the trace under `name`; a name can be recorded once."""
        spool = self._open_for(name)
        if name in self._tensors:
            raise ValueError(
                f"{name}: recorded twice. A trace is one forward pass; when the port computes a "
                "tensor in parts, join them first, or record the parts with Recorder.append"
            )
        raw = raw_array(array, name)
        tensor = Spooled(raw.dtype, None)
        spool.add(tensor, raw)
        self._tensors[name] = tensor

    def append(self, name: str, array: Any, axis: int, first_key: int | None = None) -> None:
        """Copies `array` into the trace as the next rows of `name` along `axis`.

        With `first_key` the last axis of `array` holds keys, `first_key` being the first of them
        (scores and probs of a pass over a cache). There will be as many keys as rows in the end;
        places that no piece has become zeros.
        """
        spool = self._open_for(name)
        raw = raw_array(array, name)
        keys = first_key is not None
        if not 0 <= axis < len(raw.shape) - keys:
            raise ValueError(f"{name}: no axis {axis} for rows in shape {list(raw.shape)}")
        tensor = self._tensors.get(name)
        if tensor is None:
            tensor = Spooled(raw.dtype, axis, keys)
        elif (tensor.axis, tensor.keys) != (axis, keys):
            raise ValueError(f"{name}: recorded before, along another axis or as a whole")
        else:
            tensor.check_piece(name, raw)
        if first_key is not None:
            seen = raw.shape[axis] + (tensor.shape[axis] if tensor.pieces else 0)
            if not 0 <= first_key <= first_key + raw.shape[-1] <= seen:
                raise ValueError(
                    f"{name}: {raw.shape[-1]} keys from {first_key} on, of {seen} tokens so far"
                )
        spool.add(tensor, raw, first_key or 0)
        self._tensors[name] = tensor

    def __contains__(self, name: object) -> bool:
        return name in self._tensors

    def _open_for(self, name: str) -> Spool:
        if self._spool is None:
            raise RuntimeError(f"{name}: recorded outside of the Recorder's with block")
        if not name or name == "__metadata__":
            raise ValueError(f"{name!r} can not name a tensor")
        return self._spool

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._spool is not None
        assert self._token is not None
        _active.reset(self._token)
        try:
            if kind is None:
                self._write(self._spool)
        finally:
            self._spool.close()
            self._spool = None

    def _write(self, spool: Spool) -> None:
        # Wide elements first, so that every tensor is aligned to its elements.
        order = sorted(self._tensors, key=lambda name: -ELEMENT_SIZE[self._tensors[name].dtype])
        header: dict[str, Any] = {"__metadata__": self._metadata}
        at = 0
        for name in order:
            tensor = self._tensors[name]
            header[name] = {
                "dtype": tensor.dtype,
                "shape": list(tensor.shape),
                "data_offsets": [at, at + tensor.size],
            }
            at += tensor.size
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        handle, temporary = tempfile.mkstemp(
            dir=self._path.parent, prefix=f".{self._path.name}.", suffix=".part"
        )
        try:
            with os.fdopen(handle, "wb") as out:
                out.write(len(text).to_bytes(8, "little"))
                out.write(text)
                for name in order:
                    spool.write(self._tensors[name], out)
            umask = os.umask(0)
            os.umask(umask)
            os.chmod(temporary, 0o666 & ~umask)  # mkstemp makes files for their owner alone
            os.replace(temporary, self._path)
        except BaseException:
            os.unlink(temporary)
            raise


_active: contextvars.ContextVar[Recorder | None] = contextvars.ContextVar("samebits", default=None)


def tap(name: str, array: T) -> T:
    """Records `array` as `name` in the active Recorder, if there is one, and returns it unchanged.

    Under jax.jit arrays have no values: with an active Recorder that is a TypeError which says so,
    without one a tap does nothing, so taps may stay in jitted code.
    """
    recorder = _active.get()
    if recorder is not None:
        recorder.record(name, array)
    return array


class Trace(Mapping[str, RawArray]):
    """A trace that was read: tensors by name, in the dtypes that they were recorded in."""

    def __init__(self, metadata: dict[str, str], tensors: dict[str, RawArray]) -> None:
        self.metadata = metadata
        self._tensors = tensors

    @property
    def input_ids(self) -> list[int]:
        """[T], or of a batch [B][T]."""
        ids: list[int] = json.loads(self.metadata["input_ids"])
        return ids

    @property
    def chunks(self) -> list[int]:
        """Tokens of each forward pass, in order."""
        ids: list[Any] = self.input_ids
        tokens = len(ids[0]) if isinstance(ids[0], list) else len(ids)
        chunks: list[int] = json.loads(self.metadata.get("chunks", f"[{tokens}]"))
        return chunks

    @property
    def dtype(self) -> str:
        return self.metadata["dtype"]

    def __getitem__(self, name: str) -> RawArray:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def load_trace(path: str | os.PathLike[str]) -> Trace:
    """Reads a whole trace into memory; raises ValueError where it is none."""
    data = Path(path).read_bytes()
    try:
        # The library enforces the rules of the format before we look at anything.
        entries = safetensors.deserialize(data)  # type: ignore[no-untyped-call]
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path}: no safetensors file: {error}") from error
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    metadata = _checked_metadata(path, header.get("__metadata__", {}))
    tensors: dict[str, RawArray] = {}
    for name, entry in entries:
        dtype, shape = str(entry["dtype"]), tuple(int(size) for size in entry["shape"])
        if dtype not in ELEMENT_SIZE:
            raise ValueError(f"{path}: {name}: dtype {dtype}: expected F32, BF16 or F16")
        unsigned = np.dtype("<u4") if ELEMENT_SIZE[dtype] == 4 else np.dtype("<u2")
        elements: npt.NDArray[Any] = np.frombuffer(bytes(entry["data"]), unsigned, math.prod(shape))
        tensors[name] = RawArray(dtype, shape, elements.reshape(shape))
    return Trace(metadata, tensors)


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """The metadata of a trace, without its tensors; raises ValueError where it is none."""
    try:
        with safetensors.safe_open(path, "np") as file:
            metadata: dict[str, str] = file.metadata() or {}
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path}: no safetensors file: {error}") from error
    return _checked_metadata(path, metadata)


def _checked_metadata(path: str | os.PathLike[str], metadata: dict[str, str]) -> dict[str, str]:
    if metadata.get("format") != FORMAT:
        raise ValueError(f"{path}: __metadata__ format {metadata.get('format')!r}, not {FORMAT!r}")
    for key in ("input_ids", "dtype"):
        if key not in metadata:
            raise ValueError(f"{path}: __metadata__ has no {key!r}")
    return metadata
