"""Writes and reads traces (docs/trace-format.md).

A Recorder spools every array to disk as it comes, so memory stays flat; the file appears under its
final name only when it is complete. Left out: checking shapes against a model's configuration,
which is the work of `samebits check`.
"""

from __future__ import annotations

import contextvars
import json
import math
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, TypeVar

import numpy as np
import numpy.typing as npt
import safetensors

from samebits.arrays import ELEMENT_SIZE, RawArray, raw_array

FORMAT = "samebits-trace-1"
DTYPES = ("float32", "bfloat16", "float16")

T = TypeVar("T")


@dataclass(frozen=True)
class _Spooled:
    dtype: str
    shape: tuple[int, ...]
    begin: int
    size: int


def _check_ids(values: Sequence[int], what: str) -> list[int]:
    plain = [int(value) for value in values]
    if not plain or any(value < 0 or value >= 2**31 for value in plain):
        raise ValueError(f"{what}: expected one or more integers from 0 to 2^31 - 1: {plain[:8]}")
    return plain


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
        input_ids: Sequence[int],
        dtype: str,
        framework: str,
        framework_version: str | None = None,
        positions: Sequence[int] | None = None,
        attention: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        if dtype not in DTYPES:
            raise ValueError(f"dtype {dtype!r}: expected one of {', '.join(DTYPES)}")
        ids = _check_ids(input_ids, "input_ids")
        self._path = Path(path)
        self._metadata = {
            **(metadata or {}),
            "format": FORMAT,
            "input_ids": json.dumps(ids),
            "dtype": dtype,
            "framework": framework,
        }
        if framework_version is not None:
            self._metadata["framework_version"] = framework_version
        if attention is not None:
            self._metadata["attention"] = attention
        if positions is not None:
            places = _check_ids(positions, "positions")
            if len(places) != len(ids):
                raise ValueError(f"{len(places)} positions for {len(ids)} input_ids")
            self._metadata["positions"] = json.dumps(places)
        for key, value in self._metadata.items():
            if not isinstance(value, str):
                raise TypeError(f"metadata {key}: expected a string, found {value!r}")
        self._tensors: dict[str, _Spooled] = {}
        self._spool: IO[bytes] | None = None
        self._token: contextvars.Token[Recorder | None] | None = None

    def __enter__(self) -> Recorder:
        if self._spool is not None:
            raise RuntimeError("this Recorder is in use")
        # Beside the result: the same disk has room, and the rename is atomic.
        self._spool = tempfile.TemporaryFile(dir=self._path.parent, prefix=".samebits-")
        self._tensors = {}
        self._token = _active.set(self)
        return self

    def record(self, name: str, array: Any) -> None:
        """Copies `array` into the trace under `name`; a name can be recorded once."""
        if self._spool is None:
            raise RuntimeError(f"{name}: recorded outside of the Recorder's with block")
        if not name or name == "__metadata__":
            raise ValueError(f"{name!r} can not name a tensor")
        if name in self._tensors:
            raise ValueError(
                f"{name}: recorded twice. A trace is one forward pass; when the port computes a "
                "tensor in parts, join them first"
            )
        raw = raw_array(array, name)
        begin = self._spool.tell()
        self._spool.write(np.ascontiguousarray(raw.bits).data if raw.bits.size else b"")
        self._tensors[name] = _Spooled(raw.dtype, raw.shape, begin, self._spool.tell() - begin)

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

    def _write(self, spool: IO[bytes]) -> None:
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
                    spool.seek(self._tensors[name].begin)
                    _copy(spool, out, self._tensors[name].size)
            umask = os.umask(0)
            os.umask(umask)
            os.chmod(temporary, 0o666 & ~umask)  # mkstemp makes files for their owner alone
            os.replace(temporary, self._path)
        except BaseException:
            os.unlink(temporary)
            raise


_active: contextvars.ContextVar[Recorder | None] = contextvars.ContextVar("samebits", default=None)


def _copy(source: IO[bytes], target: IO[bytes], size: int) -> None:
    while size > 0:
        block = source.read(min(size, 1 << 22))
        if not block:
            raise OSError("the spooled tensors end early")
        target.write(block)
        size -= len(block)


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
        ids: list[int] = json.loads(self.metadata["input_ids"])
        return ids

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
    metadata: dict[str, str] = header.get("__metadata__", {})
    if metadata.get("format") != FORMAT:
        raise ValueError(f"{path}: __metadata__ format {metadata.get('format')!r}, not {FORMAT!r}")
    for key in ("input_ids", "dtype"):
        if key not in metadata:
            raise ValueError(f"{path}: __metadata__ has no {key!r}")
    tensors: dict[str, RawArray] = {}
    for name, entry in entries:
        dtype, shape = str(entry["dtype"]), tuple(int(size) for size in entry["shape"])
        if dtype not in ELEMENT_SIZE:
            raise ValueError(f"{path}: {name}: dtype {dtype}: expected F32, BF16 or F16")
        unsigned = np.dtype("<u4") if ELEMENT_SIZE[dtype] == 4 else np.dtype("<u2")
        elements: npt.NDArray[Any] = np.frombuffer(bytes(entry["data"]), unsigned, math.prod(shape))
        tensors[name] = RawArray(dtype, shape, elements.reshape(shape))
    return Trace(metadata, tensors)
