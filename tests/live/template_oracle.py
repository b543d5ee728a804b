"""jinja2 as transformers sets it up, beside ours: the same templates and variables through both.

The clock of both stands at 2026-11-24 18:05:09.
"""

from __future__ import annotations

import copy
import datetime
import json
import os
import subprocess
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RENDERER = Path(
    os.environ.get(
        "RENDER_TEMPLATE", ROOT / "build" / "release" / "tests" / "templates" / "render_template"
    )
)

Entry = dict[str, Any]


class FixedClock(datetime.datetime):
    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> FixedClock:
        return cls(2026, 11, 24, 18, 5, 9)


def reference(entries: list[Entry]) -> list[Entry]:
    """What transformers makes of each entry: {"text": ...} or {"error": ...}."""
    from transformers.utils import chat_template_utils as hf

    real, hf.datetime = hf.datetime, FixedClock
    results: list[Entry] = []
    try:
        for given in entries:
            entry = copy.deepcopy(given)
            try:
                if "chat" in entry:
                    text = chat_text(hf, entry["template"], entry["chat"], entry.get("tokens", {}))
                else:
                    compiled = hf._compile_jinja_template(entry["template"])
                    text = compiled.render(**entry["variables"])
                text.encode()  # a lone surrogate is an error here as well
                results.append({"text": text})
            except Exception as error:
                results.append({"error": f"{type(error).__name__}: {error}"})
    finally:
        hf.datetime = real
    return results


def chat_text(hf: Any, template: str, chat: Any, tokens: dict[str, str]) -> str:
    """As PreTrainedTokenizerBase.apply_chat_template(tokenize=False)."""
    options = {"messages": chat} if isinstance(chat, list) else dict(chat)
    messages = hf._normalize_chat_messages(options.pop("messages"))
    rendered, _ = hf.render_jinja_template(
        conversations=[messages],
        tools=options.pop("tools", None),
        documents=options.pop("documents", None),
        chat_template=template,
        add_generation_prompt=options.pop("add_generation_prompt", True),
        **{**tokens, **options},
    )
    return str(rendered[0])


def ours(entries: list[Entry]) -> list[Entry]:
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(entries, file)
        file.flush()
        done = subprocess.run([RENDERER, file.name], capture_output=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr.decode()
    results = json.loads(done.stdout)
    assert len(results) == len(entries)
    return list(results)


def verdict(expected: Entry, actual: Entry) -> str:
    if "text" in actual:
        return "equal" if actual["text"] == expected.get("text") else "differ"
    if "error" in expected:
        return "error in both"
    return "unsupported" if actual["unsupported"] else "differ"


def compare(entries: list[Entry]) -> tuple[Counter[str], list[str]]:
    """How many of each verdict, and a description of each one that differs."""
    counts: Counter[str] = Counter()
    failures = []
    for entry, expected, actual in zip(entries, reference(entries), ours(entries), strict=True):
        kind = verdict(expected, actual)
        counts[kind] += 1
        if kind == "differ":
            failures.append(
                f"{entry.get('name', entry['template'])!r}\n"
                f"  jinja2: {str(expected)[:1500]}\n  ours:   {str(actual)[:1500]}"
            )
    return counts, failures


TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Weather of a place, \"now\" or later. <b>&</b> 'quoted'",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": "City, e.g. Zürich 東京"},
                    "days": {"type": ["integer", "null"], "default": 3, "enum": [1, 3, 7]},
                    "unit": {"type": "string", "enum": ["C", "F"]},
                    "points": {
                        "type": "array",
                        "items": {"type": "object", "properties": {"x": {"type": "number"}}},
                    },
                },
                "required": ["city"],
            },
            "return": {"type": "string"},
        },
    },
    {
        "type": "function",
        "function": {
            "name": "stop",
            "description": "Stops.",
            "parameters": {"type": "object", "properties": {}},
        },
    },
]


def message(role: str, content: Any, **more: Any) -> Entry:
    return {"role": role, "content": content, **more}


def call(name: str, arguments: Any, number: str = "abcdef123") -> Entry:
    return {
        "id": number,
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }


def conversations() -> dict[str, Any]:
    """Chats as people have them, and as they should not."""
    system, user = message("system", "Be brief."), message("user", "Hello!")
    answer = message("assistant", "Hi there.")
    weather = message("user", "How is the weather in Zürich?")
    arguments = {"city": "Zürich", "days": 3, "unit": "C", "deep": {"a": [1, 2.5, None, True]}}
    asks = message("assistant", "", tool_calls=[call("get_weather", arguments)])
    told = message("tool", '{"t": 21.5}', name="get_weather", tool_call_id="abcdef123")
    both = message(
        "assistant",
        None,
        tool_calls=[call("get_weather", arguments), call("stop", {}, "123456789")],
    )
    as_text = message(
        "assistant", "Let me see.", tool_calls=[call("get_weather", json.dumps(arguments))]
    )
    thinks = message("assistant", "Fine.", reasoning_content="It is\nsunny.")
    tagged = message("assistant", "<think>\nhm\n</think>\n\nFine.")
    parts = message("user", [{"type": "text", "text": "A"}, {"type": "text", "text": "B"}])
    image = message("user", [{"type": "image"}, {"type": "text", "text": "what?"}])
    chats: dict[str, Any] = {
        "user": [user],
        "system and user": [system, user],
        "three turns": [system, user, answer, message("user", "And you?")],
        "ends with assistant": [user, answer],
        "many turns": [user, answer] * 6 + [user],
        "unicode": [message("user", "Grüße 東京 👩‍👩‍👧 e\u0301 \u200b עברית \U0001f600")],
        "markup": [message("user", "<|im_start|>system\n{{ x }} {% raw %} </s> [INST]")],
        "blanks": [message("system", "  s \n"), message("user", "\n\n u\t \n"), answer, user],
        "empty content": [message("system", ""), message("user", "")],
        "empty answer": [user, message("assistant", ""), user],
        "long": [message("user", "word " * 2000)],
        "quotes": [message("user", 'it\'s "quoted" \\ back \\n slash')],
        "parts": [system, parts],
        "image": [image],
        "parts of a system": [message("system", [{"type": "text", "text": "S"}]), user],
        "thinking": [user, thinks, message("user", "More?")],
        "thinking last": [user, thinks],
        "tagged thinking": [user, tagged, message("user", "More?")],
        "reasoning": [user, message("assistant", "Yes.", reasoning="so"), user],
        "tool calls": [system, weather, asks, told, message("assistant", "21.5"), user],
        "tool call last": [weather, asks],
        "tool result last": [weather, asks, told],
        "two calls": [weather, both, told, message("tool", "ok", tool_call_id="123456789")],
        "arguments as text": [weather, as_text, told, user],
        "tool result as object": [weather, asks, message("tool", {"t": 21.5}), user],
        "call ids of nine": [weather, asks, told, message("assistant", "ok"), weather],
        "developer": [message("developer", "Be terse."), user],
        "ipython": [weather, asks, message("ipython", {"t": [1, "ü"]})],
        "unknown role": [message("critic", "hm")],
        "assistant first": [answer, user],
        "user twice": [user, user],
        "system last": [user, system],
        "two systems": [system, system, user],
        "no content": [{"role": "user"}],
        "no role": [{"content": "x"}],
        "null content": [message("user", None)],
        "number content": [message("user", 3)],
    }
    with_tools = {
        f"{name}, tools": {"messages": chats[name], "tools": TOOLS}
        for name in (
            "user",
            "system and user",
            "three turns",
            "tool calls",
            "tool call last",
            "tool result last",
            "two calls",
            "arguments as text",
            "tool result as object",
            "thinking",
            "blanks",
            "parts",
        )
    }
    documents = [{"title": "One", "text": "First."}, {"title": "Zwei ü", "text": "Second."}]
    options: dict[str, Any] = {
        "no generation prompt": {"messages": chats["three turns"], "add_generation_prompt": False},
        "no prompt, tools": {
            "messages": chats["tool calls"],
            "tools": TOOLS,
            "add_generation_prompt": False,
        },
        "one tool": {"messages": chats["user"], "tools": TOOLS[1:]},
        "no tools": {"messages": chats["user"], "tools": []},
        "thinking off": {"messages": chats["thinking"], "enable_thinking": False},
        "thinking on": {"messages": chats["thinking"], "enable_thinking": True},
        "thinking off, tools": {
            "messages": chats["tool calls"],
            "tools": TOOLS,
            "enable_thinking": False,
        },
        "thinking word": {"messages": chats["user"], "thinking": True},
        "documents": {"messages": chats["system and user"], "documents": documents},
        "date": {"messages": chats["system and user"], "date_string": "26 Jul 2024"},
        "tools in user": {
            "messages": chats["system and user"],
            "tools": TOOLS,
            "tools_in_user_message": False,
        },
        "code interpreter": {
            "messages": chats["user"],
            "tools": TOOLS,
            "builtin_tools": ["brave_search", "code_interpreter"],
        },
        "effort": {"messages": chats["user"], "reasoning_effort": "high"},
        "custom instructions": {"messages": chats["user"], "custom_instructions": "Rhyme."},
    }
    return {**chats, **with_tools, **options}


TOKENS = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "pad_token": "<pad>",
}


def template_entries(name: str, template: str, tokens: dict[str, str] | None = None) -> list[Entry]:
    return [
        {
            "name": f"{name}: {chat}",
            "template": template,
            "chat": messages,
            "tokens": TOKENS if tokens is None else tokens,
        }
        for chat, messages in conversations().items()
    ]
