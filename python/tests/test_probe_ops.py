"""The probe of PyTorch's functions: its arithmetic, what it finds, and that it can fail."""

from __future__ import annotations

import itertools
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from samebits import elementary
from samebits import function_replay as replay

torch = pytest.importorskip("torch", reason="torch is not installed")

from samebits import probe_ops  # noqa: E402
from samebits.probe_flash import probe_sdpa  # noqa: E402

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def rounded(value: Fraction, bits: int) -> float:
    """`value` to `bits` significant bits, ties to even."""
    if value == 0:
        return 0.0
    unit = Fraction(1)
    while abs(value) / unit >= 1 << bits:
        unit *= 2
    while abs(value) / unit < 1 << (bits - 1):
        unit /= 2
    return float(round(value / unit) * unit)


@pytest.mark.parametrize(("fma", "bits"), [(elementary.fma32, 24), (elementary.fma64, 53)])
def test_fused_multiply_add_rounds_once(fma: Any, bits: int) -> None:
    generator = np.random.default_rng(1)
    dtype = np.float32 if bits == 24 else np.float64
    a, b, c = generator.standard_normal((3, 3000)).astype(dtype)
    c[::2] = -(a * b)[::2]  # cancels: only the fused one sees the rest
    c[1::4] *= dtype(2.0**-20)
    result = fma(a, b, c)
    for x, y, z, found in zip(a, b, c, result, strict=True):
        assert float(found) == rounded(
            Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z)), bits
        )
    assert np.count_nonzero(result != (a * b + c)) > 500


def sizes(dtype: Any) -> probe_ops.Sizes:
    inv_freq = 1.0 / (10000.0 ** (torch.arange(0, 32, 2).float() / 32))
    table = probe_ops.RotaryTable(inv_freq, 1.0, 50)
    return probe_ops.Sizes(dtype, [64, 96], 256, 32, [1, 5, 40], 60, [table])


def assert_no_floating_point_numbers(value: Any) -> None:
    """The profile's digest is made from text that must look alike in Python and C++."""
    assert not isinstance(value, float)
    children = value.values() if isinstance(value, dict) else value
    for child in children if isinstance(value, (dict, list)) else []:
        assert_no_floating_point_numbers(child)


@pytest.mark.parametrize("dtype", DTYPES)
def test_everything_is_found_and_proven(dtype: Any) -> None:
    functions = probe_ops.probe_functions(sizes(dtype))
    assert set(functions) == {"sum", "softmax", "silu", "sdpa", "rotary"}
    for name, entry in functions.items():
        for item in entry if name == "rotary" else [entry]:
            assert item["proof"]["differing"] == 0, (name, item)
            assert item["proof"]["compared"] > 400, (name, item)
    assert_no_floating_point_numbers(functions)


def test_another_kernel_is_unproven(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that adds in no order that is known: the counts must say so."""
    monkeypatch.setattr(torch.Tensor, "mean", lambda x, _: x.double().sum(-1).float() / x.shape[-1])
    found = probe_ops.probe_sum([64, 96], np.random.default_rng(0))
    assert found["proof"]["differing"] > 0


def test_the_flash_proof_sees_its_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interpreter with another fused step is not proven."""
    plain = lambda a, b, c: np.asarray(np.float32(a) * b + c, np.float32)  # noqa: E731
    monkeypatch.setattr(replay, "fma32", plain)
    found = probe_sdpa(torch.float32, 32, 60, np.random.default_rng(0))
    assert found["proof"]["differing"] > 0


def test_sums_depend_on_the_lanes() -> None:
    x = np.random.default_rng(3).standard_normal((200, 576)).astype(np.float32)
    sums = [replay.cascade_sum(x, lanes) for lanes in probe_ops.LANES]
    for one, other in itertools.pairwise(sums):
        assert np.any(one != other)


def test_rotary_differences_give_torch_cosines() -> None:
    inv_freq = 1.0 / (1e6 ** (torch.arange(0, 64, 2).float() / 64))
    found = probe_ops.probe_rotary(probe_ops.RotaryTable(inv_freq, 1.0, 300))
    angle = torch.arange(300).float()[:, None] * inv_freq
    for name, exact in (("cos", np.cos), ("sin", np.sin)):
        values = exact(angle.numpy().astype(np.longdouble)).astype(np.float32)
        for position, i, ulps in found[name]:
            towards = np.float32(np.inf if ulps > 0 else -np.inf)
            for _ in range(abs(ulps)):
                values[position, i] = np.nextafter(values[position, i], towards)
        assert np.array_equal(values, getattr(angle, name)().numpy())
