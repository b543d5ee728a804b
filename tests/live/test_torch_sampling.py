"""Sampled tokens of samebits against torch and transformers as they are installed: the same bits.

The numbers on their own (softmax, torch.sort, exponential_), the logits processors with
torch.multinomial on random logits, and generate itself, whose logits samebits gets. Left out: the
logits; speed is printed, not judged.
"""

from __future__ import annotations

import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "fixtures"))
from make_torch_sampling import QWEN, SETTINGS, Settings, sample  # noqa: E402

CAPABILITY = torch.backends.cpu.get_cpu_capability()
LANES = {"AVX2": 8, "AVX512": 16}.get(CAPABILITY)
SEEDS = 20
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
Program = Callable[..., bytes]


@pytest.fixture(scope="session")
def torch_sampling(samebits_program: Any) -> Program:
    path = Path(samebits_program.binary).parent / "tests" / "sampling" / "torch_sampling"
    if not path.is_file():
        pytest.skip(f"{path} is not built")

    def run(*arguments: object, data: bytes = b"") -> bytes:
        command = [path, *map(str, arguments)]
        done = subprocess.run(command, input=data, capture_output=True, check=False, timeout=600)
        assert done.returncode == 0, done.stderr.decode()
        if len(data) > 5_000_000:
            print(done.stderr.decode().strip())
        return done.stdout

    return run


needs_lanes = pytest.mark.skipif(
    LANES is None, reason=f"capability {CAPABILITY}: only AVX2 and AVX512 have a known softmax"
)


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    """Small models are faster so; a test that takes `threads` says otherwise."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=[1, 2], ids=["1 thread", "2 threads"])
def threads(request: pytest.FixtureRequest, one_thread: None) -> int:
    torch.set_num_threads(request.param)
    return int(request.param)


def same_bits(mine: torch.Tensor, theirs: torch.Tensor) -> bool:
    assert mine.dtype == theirs.dtype == torch.float32
    return torch.equal(mine.view(torch.int32), theirs.contiguous().view(torch.int32))


def raw(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().view(torch.uint8).numpy().tobytes()


def generation(
    settings: Settings, seed: int, logits: torch.Tensor, context: torch.Tensor, scores: bool
) -> bytes:
    rows, vocabulary = logits.shape
    header = struct.pack(
        "<Q4d7q", seed, settings.temperature, settings.top_p, settings.min_p,
        settings.repetition_penalty, settings.top_k, LANES, DTYPES.index(logits.dtype), rows,
        vocabulary, len(context), scores,
    )  # fmt: skip
    return header + raw(context) + raw(logits)


def answers(
    out: bytes, rows: int, vocabulary: int, scores: bool
) -> list[tuple[int, torch.Tensor | None]]:
    size = 8 + 4 * vocabulary * scores
    assert len(out) == size * rows
    found = []
    for at in range(0, len(out), size):
        row = bytearray(out[at + 8 : at + size])
        kept = torch.frombuffer(row, dtype=torch.float32) if scores else None
        found.append((struct.unpack_from("<q", out, at)[0], kept))
    return found


def random_logits(seed: int, rows: int, vocabulary: int) -> torch.Tensor:
    """Flat and peaked ones; plain, rounded to bfloat16, and with heavy ties."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, vocabulary, generator=generator) * (1, 2, 4, 9)[seed % 4]
    rounding = seed % 3
    if rounding == 1:
        return logits.bfloat16()
    return (logits * 2).round() / 2 if rounding == 2 else logits


@pytest.mark.parametrize("seed", [0, 42, (1 << 32) + 42, (1 << 63) + 5, (1 << 64) - 1])
def test_exponential(seed: int, torch_sampling: Program) -> None:
    count = 2_000_000
    torch.manual_seed(seed)
    theirs = torch.empty(count).exponential_(1)
    mine = torch.frombuffer(
        bytearray(torch_sampling("exponential", seed, count)), dtype=torch.float32
    )
    assert same_bits(mine, theirs)


@needs_lanes
@pytest.mark.usefixtures("threads")
def test_softmax(torch_sampling: Program) -> None:
    """Every length to 300 with and without -infinity, long rows, arguments to the last denormal."""
    rows = []
    for n in [*range(1, 301), 512, 1000, 4096, 151936]:
        for seed in range(4):
            row = random_logits(7 * n + seed, 1, n)[0].float() * (1, 1, 6, 30)[seed]
            if seed == 1 and n > 2:
                row[torch.arange(n) % 3 != n % 2] = -torch.inf
            rows.append(row)
    rows.append(-torch.linspace(0, 105, 1_000_000))
    data = b"".join(struct.pack("<q", len(row)) + raw(row) for row in rows)
    mine = torch.frombuffer(
        bytearray(torch_sampling("softmax", LANES, data=data)), dtype=torch.float32
    )
    theirs = torch.cat([row.softmax(-1) for row in rows])
    print(f"{len(theirs)} probabilities of {len(rows)} rows")
    assert same_bits(mine, theirs)
    other = torch_sampling("softmax", 24 - LANES, data=data)
    assert other != bytes(raw(theirs)), "the lanes must matter"


def test_sort(torch_sampling: Program) -> None:
    rows = []
    for n in [*range(1, 200), 500, 1000, 5000, 32000, 151936]:
        for seed in range(3):
            row = random_logits(seed, 1, n)[0].float()
            if seed == 0:  # as top-k leaves it
                row[row < row.topk(min(n, 20))[0][-1]] = -torch.inf
            rows.append(row)
        rows.append(torch.arange(n).float() * (-1) ** n)
    data = b"".join(struct.pack("<q", len(row)) + raw(row) for row in rows)
    mine = torch.frombuffer(bytearray(torch_sampling("sort", data=data)), dtype=torch.int32)
    theirs = torch.cat([row.sort(stable=False).indices.int() for row in rows])
    stable = torch.cat([row.sort(stable=True).indices.int() for row in rows])
    print(f"{len(theirs)} indices, {int((theirs != stable).sum())} not as a stable sort has them")
    assert torch.equal(mine, theirs)
    assert not torch.equal(theirs, stable)


@needs_lanes
@pytest.mark.parametrize("vocabulary", [5, 7, 8, 9, 16, 17, 100, 1000, 5000, 40000, 151936])
def test_processors_and_multinomial(vocabulary: int, torch_sampling: Program, threads: int) -> None:
    """Tokens and every bit of the processed logits, for all settings and 20 seeds."""
    if threads > 1 and vocabulary < 32768:
        pytest.skip("torch cuts nothing below 32,768 elements over threads")
    rows = 4 if vocabulary < 100_000 else 1
    compared = 0
    for number, settings in enumerate(SETTINGS):
        data, wanted, scores = b"", [], []
        for seed in range(SEEDS):
            logits = random_logits(100 * number + seed, rows, vocabulary)
            context = torch.arange(0, 7 * vocabulary, 1 + vocabulary // 9) % vocabulary
            tokens, processed = sample(settings, seed, logits, context)
            wanted += tokens
            scores += processed
            data += generation(settings, seed, logits, context, scores=True)
        found = answers(torch_sampling("tokens", data=data), len(wanted), vocabulary, True)
        for i, (token, kept) in enumerate(found):
            assert kept is not None
            assert same_bits(kept, scores[i]), f"{settings}, row {i}"
            assert token == wanted[i], f"{settings}, row {i}"
        compared += len(wanted)
    print(f"vocabulary {vocabulary}: {compared} tokens")


@needs_lanes
def test_where_torch_gives_an_error(torch_sampling: Program) -> None:
    errors: set[str] = set()
    for bad in ([1.0, torch.nan], [torch.inf, 1.0], [-torch.inf] * 3, [3e38, 1.0]):
        for settings in SETTINGS:
            if settings.temperature == 0:
                continue
            row = torch.tensor([bad])
            context = torch.tensor([0])
            mine = answers(
                torch_sampling("tokens", data=generation(settings, 1, row, context, False)),
                1, len(bad), False,
            )[0][0]  # fmt: skip
            try:
                theirs = sample(settings, 1, row, context)[0][0]
            except RuntimeError as error:
                theirs, errors = -1, errors | {str(error)}
            assert mine == theirs, f"{bad}, {settings}"
    assert errors == {"probability tensor contains either `inf`, `nan` or element < 0"}


def generate_arguments(settings: Settings) -> dict[str, Any]:
    common = {
        "max_new_tokens": 64,
        "repetition_penalty": settings.repetition_penalty,
        "return_dict_in_generate": True,
        "output_logits": True,
        "output_scores": True,
    }
    if settings.temperature == 0:
        return common | {"do_sample": False}
    return common | {
        "do_sample": True,
        "temperature": settings.temperature,
        "top_k": settings.top_k,
        "top_p": settings.top_p,
        "min_p": settings.min_p or None,
    }


def load(folder: Path, dtype: torch.dtype) -> Any:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
    model.generation_config = transformers.GenerationConfig(pad_token_id=0)
    return model


def random_qwen2(dtype: torch.dtype) -> Any:
    """Of Qwen2.5's vocabulary; its logits are spread about 1.7 wide, in bfloat16 with ties."""
    config = transformers.Qwen2Config(
        vocab_size=151936, hidden_size=32, intermediate_size=64, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, tie_word_embeddings=False,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.Qwen2ForCausalLM(config).to(dtype).eval()
    with torch.no_grad():
        model.lm_head.weight.mul_(15)
    model.generation_config = transformers.GenerationConfig(pad_token_id=0)
    return model


def compare_generate(model: Any, settings: Settings, seeds: int, program: Program) -> int:
    ids = torch.tensor([[1, 17, 250, 3, 3, 99]])
    compared, different_texts = 0, set()
    for seed in range(seeds):
        torch.manual_seed(seed)
        with torch.no_grad():
            out = model.generate(
                ids, attention_mask=torch.ones_like(ids), **generate_arguments(settings)
            )
        wanted = out.sequences[0, ids.shape[1] :].tolist()
        logits = torch.cat(out.logits)
        data = generation(settings, seed, logits, ids[0], scores=seed == 0)
        found = answers(program("tokens", data=data), len(wanted), logits.shape[1], seed == 0)
        assert [token for token, _ in found] == wanted, f"{settings}, seed {seed}"
        for (_, kept), theirs in zip(found, out.scores, strict=True):
            assert kept is None or same_bits(kept, theirs[0])
        compared += len(wanted)
        different_texts.add(tuple(wanted))
    assert compared == 64 * seeds
    assert settings.temperature == 0 or len(different_texts) > seeds // 2
    return compared


@needs_lanes
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("settings", SETTINGS[:9], ids=range(9))
def test_generate(
    settings: Settings, dtype: torch.dtype, nano: Path, torch_sampling: Program
) -> None:
    seeds = SEEDS if settings == QWEN else 2
    print(compare_generate(load(nano, dtype), settings, seeds, torch_sampling), "tokens")


@needs_lanes
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_generate_with_a_large_vocabulary(dtype: torch.dtype, torch_sampling: Program) -> None:
    model = random_qwen2(dtype)
    seeds = SEEDS if dtype == torch.bfloat16 else 4
    compared = compare_generate(model, QWEN, seeds, torch_sampling)
    compared += compare_generate(model, Settings(temperature=1.1, top_p=0.9), 1, torch_sampling)
    print(compared, "tokens")


@needs_lanes
def test_generate_with_a_batch(nano: Path, torch_sampling: Program) -> None:
    """The rows of a batch draw one after the other from one generator."""
    model = load(nano, torch.float32)
    settings = replace(QWEN, repetition_penalty=1.0)
    ids = torch.tensor([[0, 0, 5, 6], [1, 17, 250, 3], [0, 9, 9, 8]])
    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1], [0, 1, 1, 1]])
    torch.manual_seed(3)
    with torch.no_grad():
        out = model.generate(ids, attention_mask=mask, **generate_arguments(settings))
    wanted = out.sequences[:, 4:].T.reshape(-1).tolist()
    logits = torch.cat(out.logits)
    data = generation(settings, 3, logits, torch.tensor([], dtype=torch.int64), scores=False)
    found = answers(torch_sampling("tokens", data=data), len(wanted), logits.shape[1], False)
    assert [token for token, _ in found] == wanted


@needs_lanes
def test_padding_is_not_penalized(nano: Path, torch_sampling: Program) -> None:
    """Of a row with padding, only the tokens that are not masked count."""
    model = load(nano, torch.float32)
    settings = Settings(temperature=0.0, repetition_penalty=1.5)
    ids = torch.tensor([[11, 12, 13, 5, 6]])
    mask = torch.tensor([[0, 0, 0, 1, 1]])
    with torch.no_grad():
        out = model.generate(ids, attention_mask=mask, **generate_arguments(settings))
    data = generation(settings, 0, torch.cat(out.logits), ids[0, 3:], scores=True)
    found = answers(torch_sampling("tokens", data=data), 64, out.logits[0].shape[1], True)
    assert [token for token, _ in found] == out.sequences[0, 5:].tolist()
    for (_, kept), theirs in zip(found, out.scores, strict=True):
        assert kept is not None
        assert same_bits(kept, theirs[0])
