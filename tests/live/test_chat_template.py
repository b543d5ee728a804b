"""Chat templates and expressions against jinja2 as transformers configures it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import template_grammar
import template_oracle as oracle

TEMPLATES = sorted((oracle.ROOT / "testdata" / "templates").glob("*.jinja"))


@pytest.fixture(autouse=True, scope="module")
def renderer() -> None:
    pytest.importorskip("transformers")
    if not oracle.RENDERER.is_file():
        pytest.skip(f"{oracle.RENDERER} is not built: make build, or set RENDER_TEMPLATE")


def test_there_are_templates() -> None:
    assert len(TEMPLATES) >= 6


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_chats(path: Path) -> None:
    entries = oracle.template_entries(path.name, path.read_text(encoding="utf-8"))
    counts, failures = oracle.compare(entries)
    assert not failures, failures[0]
    assert counts["unsupported"] == 0
    assert counts["equal"] >= 20


@pytest.mark.filterwarnings("ignore::SyntaxWarning")
def test_templates_at_random() -> None:
    entries = template_grammar.templates(400, seed=20261124)
    counts, failures = oracle.compare(entries)
    assert not failures, failures[0]
    assert counts["equal"] >= 300
    assert counts["unsupported"] <= 12  # 3%: slices of constants and the like


def test_smollm2(smollm2: Path) -> None:
    config = json.loads((smollm2 / "tokenizer_config.json").read_text(encoding="utf-8"))
    template = config.get("chat_template")
    if template is None:
        template = (smollm2 / "chat_template.jinja").read_text(encoding="utf-8")
    counts, failures = oracle.compare(oracle.template_entries("smollm2", template))
    assert not failures, failures[0]
    assert counts["unsupported"] == 0


def test_the_program_prints_text_and_ids(
    samebits_program: Any, smollm2: Path, tmp_path: Path
) -> None:
    if "  tokenize " not in samebits_program("--help").stdout:
        pytest.skip("no command tokenize in this build")
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(smollm2)
    chats = oracle.conversations()
    for name in ("user", "three turns", "unicode", "markup", "blanks"):
        file = tmp_path / "chat.json"
        file.write_text(json.dumps(chats[name]), encoding="utf-8")
        found = samebits_program.json("tokenize", smollm2, "--chat", file)
        text = tokenizer.apply_chat_template(
            chats[name], tokenize=False, add_generation_prompt=True
        )
        assert found["text"] == text
        assert found["ids"] == tokenizer.encode(text, add_special_tokens=False)
