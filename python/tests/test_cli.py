"""python -m samebits capture: what it records of texts, chats, ids and batches, and its errors."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import samebits
from samebits.__main__ import main
from samebits.checkpoint import checkpoint_digest
from samebits.progress import Progress

torch = pytest.importorskip("torch", reason="torch is not installed")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")

from tiny_model import V, make_model  # noqa: E402

NANO = Path(__file__).parents[2] / "models" / "nano"
CHAT = [{"role": "user", "content": "1 + 1?"}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint without a tokenizer."""
    path = tmp_path_factory.mktemp("checkpoint") / "model"
    make_model("qwen2", torch.float32).save_pretrained(path)
    return path


def capture(model: Path, out: Path, *arguments: str) -> int:
    threads = torch.get_num_threads()
    try:
        return main(["capture", "--model", str(model), "-o", str(out), *arguments])
    finally:
        torch.set_num_threads(threads)


def test_as_a_program(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "ref.safetensors"
    command = [sys.executable, "-m", "samebits", "capture", "--model", str(folder)]
    done = subprocess.run(
        [*command, "--ids", "1,2,3", "--dtype", "bfloat16", "--threads", "1", "-o", str(out)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert "warning: 3 tokens" in done.stderr
    assert "not shown by this trace: no decode steps" in done.stderr
    assert "\r" not in done.stderr  # no terminal
    trace = samebits.load_trace(out)
    assert trace.dtype == "bfloat16"
    assert trace.metadata["threads"] == "1"
    assert trace.metadata["attention"] == "eager"
    assert trace.metadata["checkpoint_digest"] == checkpoint_digest(folder)
    assert "prompt" not in trace.metadata
    alignment = json.loads(trace.metadata["weight_alignment"])
    assert "model.layers.0.self_attn.q_proj.weight" in alignment


def test_prompt(tmp_path: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(NANO)
    assert capture(NANO, tmp_path / "a", "--prompt", "1 + 1 = 2", "--steps", "2") == 0
    trace = samebits.load_trace(tmp_path / "a")
    assert trace.input_ids[:-2] == tokenizer("1 + 1 = 2").input_ids
    assert trace.chunks == [len(trace.input_ids) - 2, 1, 1]
    assert trace.metadata["prompt"] == "1 + 1 = 2"
    assert trace.metadata["checkpoint_digest"] == checkpoint_digest(NANO)


def test_prompt_has_the_special_tokens(folder: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(folder, model)
    tokenizer = json.loads((NANO / "tokenizer.json").read_text())
    name = "<|im_end|>"
    first = {"SpecialToken": {"id": name, "type_id": 0}}
    tokenizer["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [first, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [first, {"Sequence": {"id": "A", "type_id": 0}}],
        "special_tokens": {
            "<|im_end|>": {"id": "<|im_end|>", "ids": [9], "tokens": ["<|im_end|>"]}
        },
    }
    (model / "tokenizer.json").write_text(json.dumps(tokenizer))
    shutil.copy(NANO / "tokenizer_config.json", model)
    plain = transformers.AutoTokenizer.from_pretrained(NANO)("()").input_ids
    assert max(plain) < V
    (tmp_path / "chat").write_text(json.dumps(CHAT))
    config = json.loads((model / "tokenizer_config.json").read_text())
    config["chat_template"] = "()"
    (model / "tokenizer_config.json").write_text(json.dumps(config))
    assert capture(model, tmp_path / "a", "--prompt", "()") == 0
    assert samebits.load_trace(tmp_path / "a").input_ids == [9, *plain]
    assert capture(model, tmp_path / "a", "--chat", str(tmp_path / "chat")) == 0
    assert samebits.load_trace(tmp_path / "a").input_ids == plain  # the template has them


@pytest.mark.parametrize(
    ("form", "more"),
    [
        (CHAT, {"add_generation_prompt": True}),
        ({"messages": CHAT}, {"add_generation_prompt": True}),
        ({"messages": CHAT, "add_generation_prompt": False}, {}),
        ({"messages": CHAT, "unused": 1}, {"add_generation_prompt": True}),
    ],
)
def test_chat(form: Any, more: dict[str, Any], tmp_path: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(NANO)
    (tmp_path / "chat.json").write_text(json.dumps(form))
    assert capture(NANO, tmp_path / "a", "--chat", str(tmp_path / "chat.json")) == 0
    trace = samebits.load_trace(tmp_path / "a")
    expected = tokenizer.apply_chat_template(CHAT, tokenize=False, **more)
    assert trace.metadata["prompt"] == expected
    assert trace.input_ids == tokenizer(expected, add_special_tokens=False).input_ids


def test_chat_from_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO('[{"role": "user", "content": "\\ud83d"}]'))
    assert capture(NANO, tmp_path / "a", "--chat", "-") == 0
    assert "user\n\ufffd<" in samebits.load_trace(tmp_path / "a").metadata["prompt"]


def test_batch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "chat.json").write_text(json.dumps(CHAT))
    tokenizer = transformers.AutoTokenizer.from_pretrained(NANO)
    chat = tokenizer.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True)
    rows = [
        tokenizer("2 + 2 =").input_ids,
        tokenizer(chat, add_special_tokens=False).input_ids,
        [5, 6, 7],
    ]
    assert capture(
        NANO, tmp_path / "a", "--prompt", "2 + 2 =", "--chat", str(tmp_path / "chat.json"),
        "--ids", "5,6,7", "--dtype", "float32", "--attention", "sdpa", "--steps", "1",
    ) == 0  # fmt: skip
    trace = samebits.load_trace(tmp_path / "a")
    longest = max(len(row) for row in rows)
    pads = [longest - len(row) for row in rows]
    assert pads[1] == 0
    pad = tokenizer.pad_token_id
    for ids, row, count in zip(trace.input_ids, rows, pads, strict=True):
        assert ids[:-1] == [pad] * count + row
    mask = json.loads(trace.metadata["attention_mask"])
    assert mask == [[0] * n + [1] * (longest - n + 1) for n in pads]
    assert json.loads(trace.metadata["prompt"]) == ["2 + 2 =", chat]
    assert trace["lm_head"].shape[:2] == (3, longest + 1)
    err = capsys.readouterr().err
    assert f"3 sequences of {longest + 1} tokens, 2 passes" in err
    assert "absent: model.layers.N.self_attn.scores" in err


@pytest.mark.parametrize(
    ("config", "arguments", "pad"),
    [
        ({"pad_token_id": 11, "eos_token_id": 12}, (), 11),
        ({"pad_token_id": None, "eos_token_id": [13, 14]}, (), 13),
        ({"pad_token_id": 11}, ("--pad", "15"), 15),
    ],
)
def test_pad_token(
    config: dict[str, Any], arguments: tuple[str, ...], pad: int, folder: Path, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    shutil.copytree(folder, model)
    known = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**known, **config}))
    assert capture(model, tmp_path / "a", "--ids", "1,2", "--ids", "3", *arguments) == 0
    assert samebits.load_trace(tmp_path / "a").input_ids == [[1, 2], [pad, 3]]


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ([], "give a --prompt"),
        (["--ids", f"1,{V}"], f"--ids: {V} is not below vocab_size {V}"),
        (["--ids", "-1"], "--ids: -1 is not below"),
        (["--ids", "1,2", "--ids", "3"], "--pad"),
        (["--ids", "1,2", "--ids", "3", "--pad", "80"], "pad token 80"),
        (["--prompt", "x"], "no tokenizer.json; use --ids"),
        (["--chat", "missing.json"], "no tokenizer.json; use --ids"),
        (["--ids", "1", "-o", "/no/such/folder/x"], "/no/such/folder is no folder"),
        (["--ids", "1", "-o", "/"], "is a folder"),
        (["--ids", "1", "--model", "/no/such"], "/no/such: no folder with a config.json"),
    ],
)
def test_errors(
    arguments: list[str], match: str, folder: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    model = tmp_path / "model"
    shutil.copytree(folder, model)
    config = json.loads((model / "config.json").read_text())
    config |= {"pad_token_id": None, "eos_token_id": None}
    (model / "config.json").write_text(json.dumps(config))
    assert capture(model, tmp_path / "out", *arguments) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert match in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["--ids", "1,x"], "expected ids such as 1,2,3"),
        (["--ids", ""], "expected ids such as"),
        (["--ids", "9" * 5000], "expected ids such as"),
        (["--ids", "1", "--steps", "-1"], "expected 0 or more"),
        (["--ids", "1", "--steps", "x"], "expected 0 or more"),
        (["--ids", "1", "--threads", "0"], "expected 1 or more"),
        (["--ids", "1", "--pad", "-2"], "expected 0 or more"),
        (["--ids", "1", "--dtype", "float64"], "invalid choice"),
        (["--ids", "1", "--attention", "flash"], "invalid choice"),
    ],
)
def test_arguments_out_of_range(
    arguments: list[str], match: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        capture(NANO, tmp_path / "out", *arguments)
    assert end.value.code == 2
    assert match in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "no JSON"),
        ("{", "no JSON"),
        ("[" * 100000, "no JSON"),
        ("3", "expected a list of messages"),
        ("{}", "expected a list of messages"),
        ('{"messages": 3}', "expected a list of messages"),
        ("[1]", "--chat"),
        ('[{"role": "user"}]', "--chat"),
        ('{"messages": []}', "--chat"),
        ("\xff", "no JSON"),
        ('{"messages": [], "tokenize": true}', "--chat"),
    ],
)
def test_bad_chats(
    text: str, match: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "chat.json").write_text(text, encoding="latin-1")
    assert capture(NANO, tmp_path / "out", "--chat", str(tmp_path / "chat.json")) == 2
    assert match in capsys.readouterr().err
    assert capture(NANO, tmp_path / "out", "--chat", str(tmp_path / "missing.json")) == 2
    assert "missing.json: No such file" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_checkpoints_that_do_not_fit(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """transformers fills what is missing with random weights: no trace of those."""
    model = tmp_path / "model"
    shutil.copytree(folder, model)
    config = json.loads((model / "config.json").read_text())
    changes: list[tuple[dict[str, Any], str]] = [
        ({"num_hidden_layers": 3, "layer_types": None}, "missing_keys"),
        ({"intermediate_size": 7}, "model: "),
        ({"model_type": "gpt2"}, "gpt2"),
        ({"model_type": "none"}, "model: "),
    ]
    for change, match in changes:
        (model / "config.json").write_text(json.dumps({**config, **change}))
        assert capture(model, tmp_path / "out", "--ids", "1,2") == 2
        assert match in capsys.readouterr().err
    (model / "config.json").write_text(json.dumps(config))
    weights = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(weights[:-5])
    assert capture(model, tmp_path / "out", "--ids", "1,2") == 2
    assert not (tmp_path / "out").exists()


def test_weights_are_not_overwritten(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "model"
    shutil.copytree(folder, model)
    weights = (model / "model.safetensors").read_bytes()
    assert capture(model, model / "model.safetensors", "--ids", "1,2") == 2
    assert "holds the model's weights" in capsys.readouterr().err
    assert (model / "model.safetensors").read_bytes() == weights
    assert capture(model, model / "trace.safetensors", "--ids", "1,2") == 0


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_line() -> None:
    terminal = _Terminal()
    progress = Progress("capture: layers", terminal, patience=0)
    progress(1, 4)
    progress(2, 4)  # too soon after the first
    progress.close()
    assert terminal.getvalue() == "\r\x1b[Kcapture: layers: 25% (1 of 4)\r\x1b[K"
    short, plain = _Terminal(), io.StringIO()
    for stream, patience in ((short, 60.0), (plain, 0.0)):
        progress = Progress("x", stream, patience)
        progress(1, 4)
        progress.close()
        assert stream.getvalue() == ""
